"""Recovery likelihood: an energy learns to take noise back, level by level [GSPWK21].

From data x_0 on, level t blurs x_t to x_{t+1} = a x_t + sigma xi, with a^2 = 1 -
sigma^2. The energy E(x, t) is that of x_t. It learns by the likelihood of x_t given
x_{t+1}, whose energy is E(x, t) + |x_{t+1} - a x|^2 / (2 sigma^2). With little noise
this has one mode, which a chain from x_{t+1} reaches soon. If chains have this law the
truth is the optimum at every sigma. As sigma goes to 0 the loss tends to that of score
matching; at 1, where nothing of x_t is left, it is that of maximum likelihood.

It is no option of `langevin_ebm`, since each datum has chains under a law of its own,
and samples go down all levels. The paper's network is E of a x; here it is E of x, so
that level 0 has the energy of data.
"""

from collections.abc import Sequence
import functools
from typing import NamedTuple

from flax import struct
import jax
from jax import lax
import jax.numpy as jnp

from stein_jax import build
from stein_jax import checks
from stein_jax import collectives
from stein_jax import dtypes
from stein_jax import energies
from stein_jax import layers
from stein_jax import learners
from stein_jax import samplers
from stein_jax import stein
from stein_jax.types import Array, Batch, Metrics, PRNGKey

# The paper's six levels.
_SCALES = (0.324, 0.517, 0.632, 0.713, 0.773, 1.0)


class State(NamedTuple):
  step: Array
  energy: learners.Learner


@struct.dataclass
class Noisy:
  """Examples with noise, in the units of what they were before it.

  Attributes:
    points: x_{t+1} / a = x_t + s xi, or noise alone if a is 0, [n, ...].
    scale: s = sigma / a, or 1 if a is 0, [n, 1, ...].
    tied: 1 if anything of x_t is left, else 0, [n, 1, ...].
    level: (t [n],), or () if there is one level.
  """

  points: Array
  scale: Array
  tied: Array
  level: tuple[Array, ...]


def init(rng: PRNGKey, config, batch: Batch) -> State:
  """Returns the first state.

  If there are several levels the energy takes them as labels 0, 1, ...; a network whose
  `num_classes` the config leaves at 0 has as many.
  """
  data, num = batch['image'], len(config.step.noise_scales)
  section, level = dict(config.energy), ()
  if num > 1:
    level = (jnp.zeros(len(data), jnp.int32),)
    if section.get('num_classes') == 0:
      section['num_classes'] = num
  energy = learners.create(
    rng,
    build.build(energies, **section),
    config.optimizer,
    data,
    *level,
  )
  return State(jnp.zeros((), jnp.int32), energy)


def step(
  state: State,
  batch: Batch,
  rng: PRNGKey,
  *,
  noise_scales: Sequence[float] = _SCALES,
  chain: samplers.Chain = samplers.Langevin(0.3, 30),
  ksd: stein.KSD = stein.KSD(max_points=0),
  axis_name: str | None = None,
) -> tuple[State, Metrics]:
  """Returns the state after one step of recovery likelihood [GSPWK21 alg 1].

  Args:
    state: the energy.
    batch: 'image' [n, ...], with entries of about unit size; each is taken to a level
      by chance.
    rng: key of the step.
    noise_scales: sigma of each level, in (0, 1]. The last alone may be 1: chains then
      start at noise, and move under E alone.
    chain: the chain that takes noise back, whose steps are in units of the noise,
      sigma / a, as 'chain/move' is. The default lasts 1.4 relaxation times of the
      noise; the paper's 30 steps, of 0.01 to 0.14, last at most 0.3, so that the energy
      learns what makes up for that. `samplers.Gibbs` has the very law of an RBM.
    ksd: what is logged as 'chain/ksd', of the ends of the chains: with a `max_points`
      above 0 their squared discrepancy to the laws that they ran under.
    axis_name: the mapped axis over which the batch is split.

  Raises:
    ValueError: an argument is out of its range, the energy has another number of
      levels or mixes its batch, or the chain takes no step.
  """
  checks.moves(chain=chain)
  _check_levels(state.energy, noise_scales)
  dropout_rng = learners.dropout_key(state.energy, rng, axis_name=axis_name)
  rng = collectives.fold_in_index(rng, axis_name)
  noise_rng, chain_rng = jax.random.split(rng)
  context = dict(axis_name=axis_name, dropout_rng=dropout_rng)

  # A datum is taken to a level, and is blurred to the next one.
  data, noisy = blur(noise_rng, batch['image'], noise_scales)

  # A short chain takes that noise back, as the energy has it.
  samples, chain_metrics = recover(
    state.energy, chain, chain_rng, noisy, ksd=ksd, **context
  )

  # The energy falls where the datum was, and rises where the chain ended. What ties
  # both to the noisy datum has no parameters.
  energy, metrics = energies.ascend_likelihood(
    state.energy, data, samples, *noisy.level, **context
  )
  return State(state.step + 1, energy), {**metrics, **chain_metrics}


def blur(
  rng: PRNGKey, x: Array, noise_scales: Sequence[float]
) -> tuple[Array, Noisy]:
  """Returns data at levels drawn by chance, x_t [n, ...], and x_{t+1}.

  Args:
    rng: key of the levels and the noise.
    x: data [n, ...].
    noise_scales: sigma of each level; see `step`.

  Raises:
    ValueError: a scale is out of its range.

  Examples:
    >>> x, noisy = blur(jax.random.key(0), jnp.ones((5, 3)), (0.6, 1.0))
    >>> x.shape, noisy.points.shape, noisy.scale.shape
    ((5, 3), (5, 3), (5, 1))
  """
  checks.key(rng=rng)
  _check_scales(noise_scales)
  level_rng, first_rng, rng = jax.random.split(rng, 3)
  x = dtypes.at_least_float32(x)
  share = jax.random.uniform(level_rng, (len(x),))
  level = jnp.floor(share * len(noise_scales)).astype(jnp.int32)
  # The levels before t leave this share of the variance of data.
  kept = jnp.cumprod(1 - jnp.array((0.0, *noise_scales[:-1]), x.dtype) ** 2)
  kept = _rowwise(kept[level], x)
  first = jax.random.normal(first_rng, x.shape, x.dtype)
  x = jnp.sqrt(kept) * x + jnp.sqrt(1 - kept) * first
  noisy, _ = _at_level(level, x, noise_scales)
  noise = noisy.scale * jax.random.normal(rng, x.shape, x.dtype)
  return x, noisy.replace(points=noisy.tied * x + noise)


def recover(
  energy: learners.Learner,
  chain: samplers.Chain,
  rng: PRNGKey,
  noisy: Noisy,
  *,
  ksd: stein.KSD = stein.KSD(max_points=0),
  axis_name: str | None = None,
  dropout_rng: PRNGKey | None = None,
) -> tuple[Array, Metrics]:
  """Returns x [n, ...] after a chain that starts at noisy examples, and its metrics.

  Its law is p(x, t) N(points; x, s^2), or p(x, t) for what is noise alone. It moves
  u = (x - points) / s, whose energy is E(points + s u, t) + |u|^2 / 2, so that one step
  size fits all levels. The chain's target has as `condition` (points, scale, tied,
  *level).

  Args:
    energy: the learner.
    chain: the chain.
    rng: key of the chain.
    noisy: where it starts.
    ksd: see `step`.
    axis_name: the mapped axis over which examples are split.
    dropout_rng: key of the energy's dropout.

  Raises:
    ValueError: the energy mixes its batch.
  """
  # A conditional law is that of one example alone.
  energies.check_density(energy)

  def apply(params, way, points, scale, tied, *level, rng=None):
    x = points + scale * way
    values = energies.value(energy, params, x, *level, rng=rng)
    return values + 0.5 * jnp.sum(layers.flat(tied * way**2), -1)

  if isinstance(chain, samplers.Gibbs):
    chain = functools.partial(_gibbs, energy, chain.num_steps)
  points = dtypes.at_least_float32(noisy.points)
  way, metrics = energies.run_chain(
    energy.replace(apply_fn=apply, module=learners.Function(apply)),
    chain,
    rng,
    jnp.zeros_like(points),
    points,
    noisy.scale,
    noisy.tied,
    *noisy.level,
    ksd=ksd,
    axis_name=axis_name,
    dropout_rng=dropout_rng,
  )
  return points + noisy.scale * way, metrics


def _gibbs(energy, num_steps, rng, way, target):
  """Returns u after sweeps of the energy's own Gibbs sampler, and {}."""
  checks.count(num_steps=num_steps)
  points, scale, tied, *level = target.condition
  if level or not learners.has_method(energy, 'gibbs'):
    raise ValueError(
      'Gibbs needs an energy of one level with conditional laws, as RBM is; allowed: '
      'Langevin, Underdamped, MALA.'
    )
  moved = learners.call(
    energy,
    energy.params,
    rng,
    points + scale * way,
    num_steps,
    method='gibbs',
    noisy=points,
    noise_scale=jnp.where(tied > 0, scale, jnp.inf),
  )
  return (moved - points) / scale, {}


def sample(
  state: State,
  rng: PRNGKey,
  num: int,
  *,
  condition: Array | None = None,
  noise_scales: Sequence[float] = _SCALES,
  chain: samplers.Chain = samplers.Langevin(0.3, 30),
) -> Array:
  """Returns samples [num, ...] of level 0 by chains down all levels [GSPWK21 alg 2].

  They start at N(0, I), which is right if the last scale is 1 or near it. The energy of
  one level with less noise has its samples by `energies.sample_state`.

  Args:
    state: the energy.
    rng: key of the start and the chains.
    num: number of samples.
    condition: there is none.
    noise_scales: see `step`.
    chain: the chain at each level; see `step`.

  Raises:
    ValueError: an argument is out of its range, or a condition is given.
  """
  checks.key(rng=rng)
  _check_scales(noise_scales)
  _check_levels(state.energy, noise_scales)
  if condition is not None:
    raise ValueError(
      'condition is given, and recovery_likelihood takes none; allowed: None.'
    )
  start_rng, chain_rng = jax.random.split(rng)
  start = jax.random.normal(start_rng, (num, *state.energy.input_shape))

  def down(x, inputs):
    level, rng = inputs
    noisy, shrink = _at_level(jnp.full(num, level), x, noise_scales)
    noisy = noisy.replace(points=x / shrink)
    return recover(state.energy, chain, rng, noisy)[0], None

  levels = jnp.arange(len(noise_scales))[::-1]
  keys = jax.random.split(chain_rng, len(noise_scales))
  return lax.scan(down, start, (levels, keys))[0]


def _at_level(level, x, noise_scales):
  """Returns what is known of noisy examples but their points, and a [n, 1, ...].

  In the place of an a of 0 there is 1.
  """
  sigma = _rowwise(jnp.array(noise_scales, x.dtype)[level], x)
  square = (1 - sigma) * (1 + sigma)  # near 1 the square of sigma would round
  tied = (square > 0).astype(x.dtype)
  shrink = jnp.sqrt(jnp.where(square > 0, square, 1))
  several = len(noise_scales) > 1
  return Noisy(x, sigma / shrink, tied, (level,) if several else ()), shrink


def _rowwise(values, x):
  """Returns values [n] as [n, 1, ...], of as many axes as x."""
  return values.reshape(-1, *(1,) * (x.ndim - 1))


def _check_scales(noise_scales):
  checks.parts(noise_scales=noise_scales)
  for i, scale in enumerate(noise_scales):
    named = {f'noise_scales[{i}]': scale}
    checks.positive(**named)
    checks.at_most(1, **named)
    if i + 1 < len(noise_scales):
      checks.below(1, **named)


def _check_levels(energy, noise_scales):
  """Refuses an energy of another number of levels than there are."""
  num = len(noise_scales) if len(noise_scales) > 1 else 0
  if energy.num_classes and energy.num_classes != num:
    raise ValueError(
      f'noise_scales={checks.shown(noise_scales)} have {len(noise_scales)} levels, '
      f'and the energy num_classes={energy.num_classes}; allowed: as many.'
    )
