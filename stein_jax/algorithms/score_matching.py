"""Score matching: Stein's, Hyvarinen's (exact or sliced), and denoising."""

from collections.abc import Callable, Sequence
import itertools
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from stein_jax import build
from stein_jax import checks
from stein_jax import collectives
from stein_jax import dtypes
from stein_jax import energies
from stein_jax import learners
from stein_jax import samplers
from stein_jax import stein
from stein_jax.types import Array, Batch, Metrics, Params, PRNGKey


class State(NamedTuple):
  step: Array
  energy: learners.Learner


def init(rng: PRNGKey, config, batch: Batch) -> State:
  """Returns the first state; an energy of several noise levels takes x and a level."""
  levels = getattr(getattr(config, 'step', None), 'noise_levels', ())
  check_levels(levels)
  energy = learners.create(
    rng,
    build.build(energies, **config.energy),
    config.optimizer,
    batch['image'],
    *([jnp.full(len(batch['image']), levels[0], float)] if levels else ()),
  )
  return State(jnp.zeros((), jnp.int32), energy)


def step(
  state: State,
  batch: Batch,
  rng: PRNGKey,
  *,
  objective: str = 'stein',
  direction: Callable[..., Array] = stein.SVGD(),
  num_projections: int = 1,
  noise_scale: float = 0.1,
  noise_levels: Sequence[float] = (),
  control_variate: bool = False,
  axis_name: str | None = None,
) -> tuple[State, Metrics]:
  """Returns the state after one score matching step and its metrics.

  If the energy mixes its batch, the model is the joint density of the batch.

  Args:
    state: the energy.
    batch: 'image' [n, ...].
    rng: key of the projections, the noise and the energy's dropout.
    objective: 'stein', 'exact', 'sliced' or 'denoising', for `stein_objective` and so
      on; or 'closed_form' for `exact_objective` with the energy's own laplacian.
    direction: rule of points and scores to phi, for 'stein'; see `energies.direction`.
    num_projections: number of random directions, for 'sliced'.
    noise_scale: standard deviation of the noise, in units of x, for 'denoising'.
    noise_levels: several of them for 'denoising', the largest first, in place of
      `noise_scale`; the energy is then a function of x and of a level [n], such as
      `energies.Levels`.
    control_variate: whether the loss of 'denoising' has a term of mean zero that leaves
      its variance as it is at any noise; it is for noise below a third of the spread
      of the data, and costs a second score.
    axis_name: the mapped axis over which the batch is split.

  Raises:
    ValueError: an argument is out of its range, or the objective takes second
      derivatives at single examples of an energy that mixes its batch.
  """
  checks.positive(noise_scale=noise_scale)
  checks.flag(control_variate=control_variate)
  check_levels(noise_levels)
  if noise_levels and objective != 'denoising':
    raise ValueError(
      f"noise_levels={checks.shown(noise_levels)} are for objective='denoising', and "
      f'objective={objective!r} has no noise; allowed: ().'
    )
  checks.count(num_projections=num_projections)
  data, energy = batch['image'], state.energy
  context = dict(
    axis_name=axis_name,
    dropout_rng=learners.dropout_key(energy, rng, axis_name=axis_name),
  )
  rng = collectives.fold_in_index(rng, axis_name)
  if objective == 'stein':
    loss_fn = stein_objective(energy, data, direction=direction, **context)
  elif objective == 'sliced':
    loss_fn = sliced_objective(energy, data, rng, num_projections, **context)
  elif objective == 'denoising':
    loss_fn = denoising_objective(
      energy,
      data,
      rng,
      noise_levels or noise_scale,
      control_variate=control_variate,
      **context,
    )
  else:
    # A name that is not an objective ends here too, and is refused first.
    checks.choice(
      ('stein', 'exact', 'closed_form', 'sliced', 'denoising'),
      objective=objective,
    )
    if learners.mixes(energy):
      raise ValueError(
        f'objective={objective!r} takes second derivatives at each example, and this '
        "energy mixes its batch; allowed: 'stein', 'sliced', 'denoising'."
      )
    loss_fn = exact_objective(
      energy,
      data,
      closed_form=objective != 'exact',
      dropout_rng=context['dropout_rng'],
    )

  def with_metrics(params):
    loss = loss_fn(params)
    return loss, {'energy/loss': loss}

  energy, metrics = learners.descend(energy, with_metrics, axis_name=axis_name)
  return State(state.step + 1, energy), metrics


def stein_objective(
  energy: learners.Learner,
  x: Array,
  *,
  direction: Callable[..., Array] = stein.SVGD(),
  axis_name: str | None = None,
  dropout_rng: PRNGKey | None = None,
) -> Callable[[Params], Array]:
  """Returns a loss whose gradient is half that of KSD^2 [LW17 eq 15].

  With f the log density, the loss is mean_i d/dt f(x_i + t phi(x_i)) at t = 0, with phi
  held fixed. This is the exact cross derivative, without a step size. The value of the
  loss estimates only the first term of KSD^2: it is there to be descended, not read.

  Args:
    energy: the learner.
    x: data [n, ...].
    direction: rule of points and scores to phi; see `energies.direction`.
    axis_name: the mapped axis over which the data are split.
    dropout_rng: key of the energy's dropout.
  """
  context = dict(axis_name=axis_name, rng=dropout_rng)
  x = dtypes.at_least_float32(x)
  # phi is made outside the loss, so that no gradient goes through it.
  phi = energies.direction(energy, direction, x, **context)

  def loss_fn(params):
    log_density = lambda x: -energies.value(energy, params, x, **context)
    return jnp.mean(jax.jvp(log_density, (x,), (phi,))[1])

  return loss_fn


def exact_objective(energy, x, *, closed_form=False, dropout_rng=None):
  """Returns Hyvarinen's loss, mean |s|^2 / 2 + tr grad s [LW17 eq 18] [H05].

  Args:
    energy: the learner.
    x: data [n, ...].
    closed_form: whether the trace is that of the energy's own `laplacian`; otherwise
      it takes one derivative per coordinate.
    dropout_rng: key of the energy's dropout.
  """
  x = dtypes.at_least_float32(x)

  def autodiff_laplacian(params):
    # No example depends on another here, so the gradient of the sum has a row
    # for each.
    total = lambda x: jnp.sum(
      energies.value(energy, params, x, rng=dropout_rng)
    )
    slope = jax.grad(total)
    basis = jnp.eye(x[0].size, dtype=x.dtype).reshape(-1, 1, *x.shape[1:])

    def second(axis):
      along = lambda t: jnp.sum(
        (slope(x + t * axis) * axis).reshape(len(x), -1), -1
      )
      return jax.jvp(along, (0.0,), (1.0,))[1]

    # All coordinates at once would hold a copy of the batch for each of them.
    return jnp.sum(jax.lax.map(second, basis, batch_size=16), 0)

  def loss_fn(params):
    if closed_form:
      laplacian = learners.call(
        energy, params, x, method='laplacian', rng=dropout_rng
      )
      checks.per_example(len(x), **{"The energy's laplacian": laplacian})
    else:
      laplacian = autodiff_laplacian(params)
    score = energies.score(energy.replace(params=params), x, rng=dropout_rng)
    # The score is -grad E, so that the trace of its derivative is -laplacian.
    return jnp.mean(0.5 * _sum_of_squares(score) - laplacian)

  return loss_fn


def sliced_objective(
  energy, x, rng, num_projections=1, *, axis_name=None, dropout_rng=None
):
  """Returns the sliced loss, mean |s|^2 / 2 + v'(grad s) v, v random [SGSE19].

  This is the variance-reduced form with Rademacher v, whose mean over v is the exact
  loss.
  """
  checks.key(rng=rng)
  checks.count(num_projections=num_projections)
  x = dtypes.at_least_float32(x)
  shape = (num_projections, *x.shape)
  projections = jax.random.rademacher(rng, shape, x.dtype)

  def loss_fn(params):
    score_fn = lambda x: energies.score(
      energy.replace(params=params), x, axis_name=axis_name, rng=dropout_rng
    )

    # v moves all rows at once, since the score of an energy that mixes its
    # batch is that of the joint density. Cross terms of two rows have mean 0.
    def project(v):
      score, change = jax.jvp(score_fn, (x,), (v,))
      curvature = jnp.sum((v * change).reshape(len(x), -1), -1)
      return jnp.mean(0.5 * _sum_of_squares(score) + curvature)

    return jnp.mean(jax.vmap(project)(projections))

  return loss_fn


def denoising_objective(
  energy,
  x,
  rng,
  noise_scale=0.1,
  *,
  control_variate=False,
  axis_name=None,
  dropout_rng=None,
):
  """Returns the loss mean |s(x + sigma xi) + xi / sigma|^2 / 2, times sigma^2 [V11].

  Its optimum is the density of the data blurred by sigma. The factor keeps the loss of
  order d, and gives several levels of sigma one weight [SE19].

  Args:
    energy: the learner.
    x: data [n, ...].
    rng: key of the noise and of the levels.
    noise_scale: sigma; or several [k], one of which is drawn for each example, and of
      which the energy is a function E(x, sigma) then.
    control_variate: whether sigma s(x).xi is taken from the loss. It has the mean zero,
      and without it the variance of the gradient grows as 1 / sigma^2.
    axis_name: the mapped axis over which the data are split.
    dropout_rng: key of the energy's dropout.
  """
  checks.key(rng=rng)
  x = dtypes.at_least_float32(x)
  level, sigma = (), noise_scale
  if np.ndim(noise_scale):
    if not isinstance(noise_scale, jax.core.Tracer):
      check_levels(np.asarray(noise_scale).tolist())
    checks.count(levels=len(noise_scale))
    rng, level_rng = jax.random.split(rng)
    levels = jnp.asarray(noise_scale, x.dtype)
    drawn = levels[jax.random.randint(level_rng, (len(x),), 0, len(levels))]
    level, sigma = (drawn,), drawn.reshape(-1, *(1,) * (x.ndim - 1))
  else:
    checks.positive(noise_scale=noise_scale)
  noise = jax.random.normal(rng, x.shape, x.dtype)
  noisy = x + sigma * noise

  def loss_fn(params):
    score_at = lambda x: energies.score(
      energy.replace(params=params),
      x,
      *level,
      axis_name=axis_name,
      rng=dropout_rng,
    )
    score = sigma * score_at(noisy)
    # With sigma^2 taken into the square nothing is divided by a small sigma.
    if not control_variate:
      return 0.5 * jnp.mean(_sum_of_squares(score + noise))
    # The two scores meet the noise as a difference, which is small where sigma is.
    change = (score - sigma * score_at(x)) * noise
    change = jnp.sum(change.reshape(len(x), -1), -1)
    squares = _sum_of_squares(score) + _sum_of_squares(noise)
    return jnp.mean(change + 0.5 * squares)

  return loss_fn


def check_levels(noise_levels: Sequence[float]) -> None:
  """Raises ValueError unless levels are positive numbers that fall."""
  if not isinstance(noise_levels, (tuple, list)):
    raise ValueError(
      f'noise_levels={checks.shown(noise_levels)} must be a sequence of numbers, the '
      'largest first.'
    )
  checks.positive(
    **{f'noise_levels[{i}]': each for i, each in enumerate(noise_levels)}
  )
  if any(low >= high for high, low in itertools.pairwise(noise_levels)):
    raise ValueError(
      f'noise_levels={checks.shown(noise_levels)} must fall, the largest first.'
    )


def sample(
  state: State,
  rng: PRNGKey,
  num: int,
  *,
  condition: Array | None = None,
  chain: samplers.Chain = samplers.MALA(0.3, 1000),
  noise_levels: Sequence[float] = (),
  denoise: bool = False,
) -> Array:
  """Returns samples [num, ...]: ends of chains at one level of noise after another.

  Chains of an energy of several levels begin at noise of the largest, and those at a
  level begin where those at the one before have ended [SE19 alg 1]. Without levels they
  are those of `energies.sample_state`.

  Args:
    state: the energy.
    rng: key of starts and chains.
    num: number of samples.
    condition: None; these energies take none.
    chain: the chain at each level, whose `step_size` is in units of the level then.
      [SE19] has Langevin(0.63, 100) at ten levels, [SE20] Langevin(0.35, 5) at 232.
    noise_levels: those of the step.
    denoise: whether the last level's noise is taken off the samples, by a step of its
      square along the score [SE20].

  Raises:
    ValueError: there are levels and a condition, or no levels to be taken off.
  """
  check_levels(noise_levels)
  checks.flag(denoise=denoise)
  if denoise and not noise_levels:
    raise ValueError(
      'denoise=True needs noise_levels, the last of which it takes off; allowed: False.'
    )
  if not noise_levels:
    return energies.sample_state(
      state, rng, num, condition=condition, chain=chain
    )
  if condition is not None:
    raise ValueError(
      'An energy of several noise levels takes these as its condition; allowed: None.'
    )
  checks.key(rng=rng)
  wanted = 'a chain with a step, such as samplers.Langevin(0.6, 100)'
  checks.has(('step_size', 'replace'), wanted, chain=chain)
  energy = state.energy
  rows, _ = energies.in_whole_batches(energy, num)
  block_size = energy.batch_size if learners.mixes(energy) else 0
  start_rng, *rngs = jax.random.split(rng, len(noise_levels) + 1)
  levels = jnp.asarray(noise_levels, float)
  start = jax.random.normal(start_rng, (rows, *energy.input_shape))

  def anneal(x, level_and_key):
    sigma, rng = level_and_key
    own = chain.replace(step_size=chain.step_size * sigma)
    moved, _ = energies.run_chain(
      energy, own, rng, x, jnp.full(rows, sigma), block_size=block_size
    )
    return moved, None

  x, _ = lax.scan(anneal, levels[0] * start, (levels, jnp.stack(rngs)))
  if denoise:
    sigma = levels[-1]
    x = x + sigma**2 * energies.score(energy, x, jnp.full(rows, sigma))
  return x[:num]


def _sum_of_squares(x):
  return jnp.sum(x.reshape(len(x), -1) ** 2, -1)
