"""Generative adversarial networks: DCGAN's losses, WGAN-GP, and EBGAN's margin."""

import functools
from typing import NamedTuple

import jax
from jax import nn
import jax.numpy as jnp
import numpy as np

from stein_jax import build
from stein_jax import checks
from stein_jax import collectives
from stein_jax import dtypes
from stein_jax import energies
from stein_jax import generators
from stein_jax import learners
from stein_jax.types import Array, Batch, Metrics, PRNGKey

# The generator's, of the energies of its samples.
_LOSSES = {
  'non_saturating': lambda fake: jnp.mean(nn.softplus(fake)),
  'minimax': lambda fake: -jnp.mean(nn.softplus(-fake)),
  'wasserstein': jnp.mean,
  'margin': jnp.mean,
}


class State(NamedTuple):
  step: Array
  energy: learners.Learner  # of the discriminator: minus its logit, or itself
  generator: learners.Learner


def init(rng: PRNGKey, config, batch: Batch) -> State:
  """Returns the first state.

  Conditional on labels where `config.step` says so, on images where there are any.
  """
  energy, generator = generators.create_pair(
    rng,
    build.build(energies, **config.energy),
    config.energy_optimizer,
    build.build(generators, **config.generator),
    config.generator_optimizer,
    batch['image'],
    batch['label'] if config.step.conditional else None,
    batch.get('condition'),
  )
  return State(jnp.zeros((), jnp.int32), energy, generator)


def step(
  state: State,
  batch: Batch,
  rng: PRNGKey,
  *,
  loss: str = 'non_saturating',
  penalty: float = 10.0,
  margin: float = 10.0,
  generator_every: int = 1,
  num_generator_steps: int = 1,
  joint: bool = True,
  conditional: bool = False,
  l1_weight: float = 0.0,
  axis_name: str | None = None,
) -> tuple[State, Metrics]:
  """Returns the state after one step of the game [Z16 eq 1].

  With D(x) = sigmoid(-E(x)) the discriminator ascends mean log D(data) + mean
  log (1 - D(samples)). With 'margin' the discriminator is D = E: it descends mean
  D(data) + max(0, margin - D(samples)) [ZML17 eq 1], and the generator mean D(samples)
  [ZML17 eq 2].

  Args:
    state: the networks.
    batch: 'image' [n, ...]; 'label' [n] if conditional; 'condition' [n, ...] where
      images are made of images.
    rng: key of the step.
    loss: of the generator: 'non_saturating', -mean log D(samples); 'minimax',
      mean log (1 - D(samples)), as printed; 'wasserstein', by which both
      networks play for mean E(samples) - mean E(data), and the discriminator pays
      `penalty` mean (|grad E| - 1)^2 between data and samples [GAADC17]; or 'margin'.
    penalty: of 'wasserstein'.
    margin: of 'margin', the energy from which samples are bad enough: in units of
      the energy, an autoencoder's error in the paper, which found 10 the best on
      MNIST [ZML17].
    generator_every: steps until the generator's turn.
    num_generator_steps: k, in its turn, each after the first with new noise.
    joint: normalise data and samples in one batch; see `energies.pair`.
    conditional: labels enter both networks; samples are given the batch's.
    l1_weight: of the mean over pixels of |samples - data| in the generator's loss,
      for samples made of images: pix2pix's [IZZE17].
    axis_name: the mapped axis over which the batch is split.
  """
  checks.choice(_LOSSES, loss=loss)
  checks.non_negative(penalty=penalty, l1_weight=l1_weight)
  checks.positive(margin=margin)
  checks.count(
    generator_every=generator_every, num_generator_steps=num_generator_steps
  )
  if loss == 'wasserstein' and learners.mixes(state.energy):
    raise ValueError(
      "loss='wasserstein' bounds the slope at each example, and this energy "
      "mixes its batch; allowed: norm='layer' or 'none'."
    )
  rng = collectives.fold_in_index(rng, axis_name)
  between_rng, *noise_rngs, dropout_rng = jax.random.split(
    rng, num_generator_steps + 2
  )
  data = dtypes.at_least_float32(batch['image'])
  given = {'label': batch['label']} if conditional else {}
  if 'condition' in batch:
    given['condition'] = batch['condition']
  condition = tuple(given.values())
  draw = functools.partial(
    generators.generate,
    state.generator,
    num=len(data),
    **given,
    axis_name=axis_name,
  )
  samples = draw(state.generator.params, noise_rngs[0])
  energies_of = functools.partial(
    energies.pair,
    state.energy,
    joint=joint,
    axis_name=axis_name,
    rng=dropout_rng,
  )

  def energy_loss(params):
    real, fake = energies_of(params, data, samples, *condition)
    metrics = {'energy/data': jnp.mean(real), 'energy/samples': jnp.mean(fake)}
    if loss == 'margin':
      return jnp.mean(real + nn.relu(margin - fake)), metrics
    if loss != 'wasserstein':
      return jnp.mean(nn.softplus(real) + nn.softplus(-fake)), metrics
    learner = state.energy.replace(params=params)
    rngs = between_rng, dropout_rng
    slope = _slope(learner, data, samples, *condition, rngs=rngs)
    metrics['energy/slope'] = jnp.mean(slope)
    value = jnp.mean(real) - jnp.mean(fake)
    return value + penalty * jnp.mean((slope - 1) ** 2), metrics

  def generator_loss(params, noise_rng):
    made = draw(params, noise_rng)
    fake = energies_of(energy.params, data, made, *condition)[1]
    value = _LOSSES[loss](fake)
    metrics = {'generator/loss': value}
    if not checks.is_zero(l1_weight):
      metrics['generator/absolute_error'] = jnp.mean(jnp.abs(made - data))
      value += l1_weight * metrics['generator/absolute_error']
    return value, metrics

  energy, energy_metrics = learners.descend(
    state.energy, energy_loss, axis_name=axis_name
  )
  moved = state.generator
  for noise_rng in noise_rngs:
    moved, generator_metrics = learners.descend(
      moved,
      functools.partial(generator_loss, noise_rng=noise_rng),
      axis_name=axis_name,
    )
  due = state.step % generator_every == generator_every - 1
  generator = jax.tree.map(
    lambda old, new: jnp.where(due, new, old), state.generator, moved
  )
  metrics = {**energy_metrics, **generator_metrics}
  return State(state.step + 1, energy, generator), metrics


def sample(
  state: State, rng: PRNGKey, num: int, *, condition: Array | None = None
) -> Array:
  """Returns samples [num, ...] of the generator.

  Where it is conditional the condition is labels [num], or images [num, h, w, c].
  """
  name = 'label' if np.ndim(condition) == 1 else 'condition'
  return generators.sample(state.generator, rng, num, **{name: condition})


def _slope(energy, data, samples, *condition, rngs):
  """Returns |grad E| [n] at a random point between each image and its sample."""
  between_rng, dropout_rng = rngs
  shape = (len(data),) + (1,) * (data.ndim - 1)
  share = jax.random.uniform(between_rng, shape)
  between = share * data + (1 - share) * samples
  slope = energies.score(energy, between, *condition, rng=dropout_rng)
  slope = slope.reshape(len(data), -1)
  return jnp.sqrt(jnp.sum(slope * slope, -1) + 1e-12)
