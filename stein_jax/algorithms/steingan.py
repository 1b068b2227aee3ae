"""SteinGAN: an energy by amortised maximum likelihood, a generator by SVGD.

SteinCD-GAN(alpha) mixes the negatives of SteinCD in: alpha = 0 is SteinGAN.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from stein_jax import build
from stein_jax import checks
from stein_jax import collectives
from stein_jax import dtypes
from stein_jax import energies
from stein_jax import generators
from stein_jax import kernels
from stein_jax import learners
from stein_jax import stein
from stein_jax.types import Array, Batch, Metrics, Params, PRNGKey

_SPACES = ('pixels', 'features', 'first_features')
_DIVERSITIES = ('none', 'pulling_away', 'batch_norm_entropy')
_NEGATIVES = ('before', 'fresh')
_CONTROLLERS = (
  'none',
  'discount',
  'discount_printed',
  'speed',
  'freeze',
  'freeze_ahead',
)


class State(NamedTuple):
  step: Array
  energy: learners.Learner
  generator: learners.Learner
  gap: Array  # [] of the last step; 0 without a controller
  first: Params | None = (
    None  # the energy's at the start, if the kernel keeps to them
  )


def init(rng: PRNGKey, config, batch: Batch) -> State:
  """Returns the first state; conditional where `config.step` says so."""
  energy, generator = generators.create_pair(
    rng,
    build.build(energies, **config.energy),
    config.energy_optimizer,
    build.build(generators, **config.generator),
    config.generator_optimizer,
    batch['image'],
    batch['label'] if config.step.conditional else None,
  )
  first = None
  if config.step.kernel_space == 'first_features':
    first = jax.tree.map(jnp.array, energy.params)  # a copy: states are donated
  zero = jnp.zeros((), jnp.int32)
  return State(zero, energy, generator, jnp.zeros(()), first)


def step(
  state: State,
  batch: Batch,
  rng: PRNGKey,
  *,
  kernel: str = 'rbf',
  kernel_space: str = 'pixels',
  repulsion: str = 'exact',
  normalize: str = 'count',
  bandwidth_scale: float = 1.0,
  bandwidth_log: str = 'n+1',
  bandwidth: float = 0.0,
  diversity: str = 'none',
  diversity_weight: float = 1.0,
  num_generator_steps: int = 1,
  negatives: str = 'before',
  negative_weight: float = 1.0,
  controller: str = 'none',
  alpha: float = 0.0,
  epsilon: float = 0.1,
  joint: bool = True,
  conditional: bool = False,
  axis_name: str | None = None,
) -> tuple[State, Metrics]:
  """Returns the state after one SteinGAN step [LW17 alg 2] [WL16 alg 2].

  The generator moves its samples along the direction [LW17 eq 21]; then the energy
  descends mean E(data) - (1 - gamma) mean E(samples) [LW17 eq 23] [WL16 eq 16].

  Args:
    state: the networks.
    batch: 'image' [n, ...], and 'label' [n] if conditional.
    rng: key of the step.
    kernel: a name in `kernels.PROFILES`, at its median bandwidth, or 'none': each
      sample follows its own score, without repulsion.
    kernel_space: 'pixels'; 'features' of the energy; or 'first_features', those of
      the energy as it was at the start.
    repulsion: of a feature kernel: 'exact', 'swapped' or 'nearest'; see
      `stein.feature_svgd_direction`.
    normalize: of the direction: 'count', 'row_sum' or 'unit_ball'; see
      `stein.svgd_direction`.
    bandwidth_scale: factor on the median bandwidth.
    bandwidth_log: what divides that median: the logarithm of 'n+1' or of 'n', or
      'none'.
    bandwidth: one for all steps, in place of the median of each; 0 for that.
    diversity: what else keeps samples apart, beside the kernel or, without one, in
      its place: 'none'; 'pulling_away', of the energy's features; or
      'batch_norm_entropy', of the generator. Each is a function of `generators`.
    diversity_weight: of it in the generator's loss, mean E(samples) its other part
      without a kernel.
    num_generator_steps: k, each with noise of its own.
    negatives: the samples that the energy sees: 'before', those that moved in the
      generator's last step, as it drew them before it; or 'fresh', new ones of the
      generator after it, as WL16's algorithm has it.
    negative_weight: 1 - gamma.
    controller: 'none'; 'discount': the weight falls to a third (gamma from 0.7 to
      0.9) where samples are reconstructed worse than data, the energy being ahead,
      as in LW17's code; 'discount_printed': where they are reconstructed better, as
      in its text; 'speed': there the energy learns at 5 times its rate; 'freeze':
      also, it does not learn where the two errors differ by more than 0.5;
      'freeze_ahead': 'discount' and 'speed', frozen only where it is ahead by that
      much.
    alpha: chance that a step of the energy uses the negatives of SteinCD, one SVGD
      step from the data, in place of the generator's; with labels, those of the
      data.
    epsilon: of SteinCD.
    joint: normalise data and samples in one batch; see `energies.pair`.
    conditional: labels enter both networks; samples are given the batch's.
    axis_name: the mapped axis over which the batch is split.
  """
  checks.choice((*kernels.PROFILES, 'none'), kernel=kernel)
  checks.choice(_SPACES, kernel_space=kernel_space)
  checks.choice(_DIVERSITIES, diversity=diversity)
  checks.choice(_CONTROLLERS, controller=controller)
  checks.choice(_NEGATIVES, negatives=negatives)
  checks.choice(('exact', 'swapped', 'nearest'), repulsion=repulsion)
  checks.choice(stein.NORMALIZATIONS, normalize=normalize)
  checks.count(num_generator_steps=num_generator_steps)
  checks.positive(epsilon=epsilon, bandwidth_scale=bandwidth_scale)
  checks.non_negative(
    negative_weight=negative_weight,
    alpha=alpha,
    bandwidth=bandwidth,
    diversity_weight=diversity_weight,
  )
  checks.at_most(1, alpha=alpha)
  shared_rng, rng = jax.random.split(rng)  # the one the same on all devices
  rng = collectives.fold_in_index(rng, axis_name)
  dropout_rng, gap_rng, noise_rng = jax.random.split(rng, 3)
  data = dtypes.at_least_float32(batch['image'])
  label = batch['label'] if conditional else None
  condition = () if label is None else (label,)
  if kernel != 'none' and not checks.is_zero(bandwidth):
    kernel = functools.partial(kernels.PROFILES[kernel], bandwidth=bandwidth)
  direct = functools.partial(
    _direction,
    state.energy,
    seen=_seen(state, kernel_space),
    kernel=kernel,
    repulsion=repulsion,
    normalize=normalize,
    rule=dict(scale=bandwidth_scale, log=bandwidth_log),
    axis_name=axis_name,
  )
  # An energy that does not mix its batch sees every example by itself.
  normalized_with = data if joint and learners.mixes(state.energy) else None
  penalty = _penalty(
    diversity, diversity_weight, state.energy, normalized_with, axis_name
  )
  draw = functools.partial(
    generators.generate,
    state.generator,
    num=len(data),
    label=label,
    axis_name=axis_name,
  )
  toward = lambda x: direct(x, normalized_with, *condition, rng=dropout_rng)
  generator = state.generator
  *draw_rngs, fresh_rng = jax.random.split(noise_rng, num_generator_steps + 1)
  for draw_rng in draw_rngs:
    generator, generator_metrics, samples = learners.descend(
      generator,
      generators.chain_rule_loss(
        functools.partial(draw, rng=draw_rng),
        toward,
        penalty=penalty,
        axis_name=axis_name,
      ),
      axis_name=axis_name,
    )

  if negatives == 'fresh':
    samples = draw(generator.params, rng=fresh_rng)
  seen = samples
  if not checks.is_zero(alpha):
    moved = data + epsilon * toward(data)
    seen = jnp.where(jax.random.bernoulli(shared_rng, alpha), moved, samples)
  discount, rate, frozen = _control(controller, state.gap)
  energy, energy_metrics = learners.descend(
    state.energy,
    energies.contrast(
      state.energy,
      data,
      seen,
      *condition,
      negative_weight=negative_weight * discount,
      joint=joint,
      axis_name=axis_name,
      rng=dropout_rng,
    ),
    rate=rate,
    axis_name=axis_name,
  )
  energy = jax.tree.map(
    lambda old, new: jnp.where(frozen, old, new), state.energy, energy
  )
  gap = state.gap
  if controller != 'none':
    gap = _gap(energy, data, samples, joint, gap_rng, axis_name)
    gap = gap.astype(state.gap.dtype)
  metrics = {**generator_metrics, **energy_metrics}
  return State(state.step + 1, energy, generator, gap, state.first), metrics


def sample(
  state: State, rng: PRNGKey, num: int, *, condition: Array | None = None
) -> Array:
  """Returns samples [num, ...] of the generator, of the labels [num] if given."""
  return generators.sample(state.generator, rng, num, label=condition)


def _control(controller, gap):
  """Returns factors on the energy's negatives and rate, and whether it is frozen."""
  behind = jnp.where(jnp.isnan(gap), gap, (gap > 0).astype(gap.dtype))
  discount = (1 + 2 * behind) / 3
  speed = 1 + 4 * behind
  return {
    'none': (1, 1, False),
    'discount': (discount, 1, False),  # LW17, on CIFAR-10, as its code does
    'discount_printed': ((3 - 2 * behind) / 3, 1, False),  # LW17 as printed
    'speed': (1, speed, False),  # LW17, on faces and bedrooms
    'freeze': (1, speed, jnp.abs(gap) > 0.5),  # WL16 as printed
    'freeze_ahead': (discount, speed, gap < -0.5),  # WL16 as its code does
  }[controller]


def _gap(energy, data, samples, joint, rng, axis_name):
  """Returns the mean reconstruction error of data less that of samples []."""
  errors = energies.pair(
    energy,
    energy.params,
    data,
    samples,
    joint=joint,
    axis_name=axis_name,
    rng=rng,
    method='reconstruction_error',
  )
  means = collectives.pmean(tuple(map(jnp.mean, errors)), axis_name)
  return means[0] - means[1]


def _direction(
  energy,
  x,
  normalized_with,
  *condition,
  seen,
  kernel,
  repulsion,
  normalize,
  rule,
  rng,
  axis_name,
):
  """Returns phi at x, like x; normalized_with is what x is normalised together with."""
  score = energies.score(
    energy,
    x,
    *condition,
    normalized_with=normalized_with,
    axis_name=axis_name,
    rng=rng,
  )
  if kernel == 'none':
    return score
  if seen is None:
    flat = x.reshape(len(x), -1)
    return stein.svgd_direction(
      flat,
      score.reshape(flat.shape),
      kernels.at_median(kernel, flat, axis_name=axis_name, **rule),
      normalize=normalize,
      axis_name=axis_name,
    ).reshape(x.shape)

  # Every device holds all features, without dropout: the kernel is one for all.
  features = _features(seen, collectives.all_gather(normalized_with, axis_name))
  whole = collectives.all_gather(x, axis_name)
  return stein.feature_svgd_direction(
    x,
    score,
    features,
    kernels.at_median(kernel, features(whole), **rule),
    form=repulsion,
    normalize=normalize,
    axis_name=axis_name,
  )


def _penalty(diversity, weight, energy, normalized_with, axis_name):
  """Returns what keeps samples apart, a loss of parameters and samples, or None."""
  if diversity == 'none':
    return None
  if diversity == 'batch_norm_entropy':
    return lambda params, _: -weight * generators.batch_norm_entropy(params)
  see = _features(energy, normalized_with, axis_name)
  apart = functools.partial(generators.pulling_away, axis_name=axis_name)
  return lambda _, samples: weight * apart(see(samples))


def _seen(state, kernel_space):
  """Returns the energy whose features the kernel is of; None for pixels."""
  if kernel_space == 'pixels':
    return None
  if kernel_space == 'features':
    return state.energy
  if state.first is None:
    raise ValueError(
      f'kernel_space={kernel_space!r} needs a state that `init` made for it.'
    )
  return state.energy.replace(params=state.first)


def _features(energy, normalized_with, axis_name=None):
  """Returns a function of x to the energy's features [n, f], without dropout."""
  see = functools.partial(
    learners.call if normalized_with is None else energies.pair,
    energy,
    energy.params,
    method='features',
    axis_name=axis_name,
  )
  return (
    see if normalized_with is None else lambda x: see(normalized_with, x)[1]
  )
