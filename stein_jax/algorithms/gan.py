"""Generative adversarial networks: DCGAN's losses, WGAN-GP, and EBGAN's margin."""

import functools
from typing import NamedTuple

import jax
from jax import nn
import jax.numpy as jnp

from stein_jax import build
from stein_jax import checks
from stein_jax import collectives
from stein_jax import dtypes
from stein_jax import energies
from stein_jax import generators
from stein_jax import learners
from stein_jax.types import Array, Batch, Metrics, PRNGKey

# The generator's, of the energies of its samples.
# E is minus the discriminator's logit, so that softplus(E) is -log D.
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
  """Returns the first state, conditional where the batch has a condition."""
  energy, generator = generators.create_pair(
    rng,
    build.build(energies, **config.energy),
    config.energy_optimizer,
    build.build(generators, **config.generator),
    config.generator_optimizer,
    batch['image'],
    **generators.given(batch.get('condition')),
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
    batch: 'image' [n, ...], and 'condition' [n, ...], the labels or images that both
      networks are given, if any.
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
    l1_weight: of the mean over pixels of |samples - data| in the generator's loss,
      for samples made of images: pix2pix's [IZZE17].
    axis_name: the mapped axis over which the batch is split.
  """
  checks.choice(_LOSSES, loss=loss)
  checks.non_negative(penalty=penalty, l1_weight=l1_weight)
  checks.positive(margin=margin)
  checks.count(generator_every=generator_every)
  checks.count(
    maximum=learners.MAX_REPEATED, num_generator_steps=num_generator_steps
  )
  rng = collectives.fold_in_index(rng, axis_name)
  between_rng, *noise_rngs, dropout_rng = jax.random.split(
    rng, num_generator_steps + 2
  )
  data = dtypes.at_least_float32(batch['image'])
  condition = energies.conditions(batch)
  draw = generators.drawer(state.generator, batch, axis_name=axis_name)
  context = dict(joint=joint, axis_name=axis_name, rng=dropout_rng)
  apart = lambda params, samples: energies.pair(
    state.energy, params, data, samples, *condition, **context
  )

  # The discriminator learns to tell data from samples.
  samples = draw(state.generator.params, noise_rngs[0])
  energy_loss = functools.partial(
    _energy_loss, loss=loss, margin=margin, apart=apart, samples=samples
  )
  if loss == 'wasserstein':
    rngs, examples = (between_rng, dropout_rng), (data, samples, *condition)
    energy_loss = _with_penalty(
      energy_loss, state.energy, penalty, rngs, *examples
    )
  energy, energy_metrics = learners.descend(
    state.energy, energy_loss, axis_name=axis_name
  )

  # The generator learns from the new one, when it is its turn.
  generator_loss = functools.partial(
    _generator_loss,
    fake=lambda made: apart(energy.params, made)[1],
    loss=loss,
    l1_weight=l1_weight,
    data=data,
  )
  due = state.step % generator_every == generator_every - 1
  generator, generator_metrics = _generator_steps(
    due, state.generator, generator_loss, draw, noise_rngs, axis_name
  )
  metrics = {**energy_metrics, **generator_metrics}
  return State(state.step + 1, energy, generator), metrics


def sample(
  state: State, rng: PRNGKey, num: int, *, condition: Array | None = None
) -> Array:
  """Returns samples [num, ...] of the generator.

  Where it is conditional the condition is labels [num], or images [num, h, w, c].
  """
  return generators.sample(
    state.generator, rng, num, **generators.given(condition)
  )


def _energy_loss(params, *, loss, margin, apart, samples):
  """Returns the discriminator's loss and metrics, without a penalty."""
  real, fake = apart(params, samples)
  metrics = {'energy/data': jnp.mean(real), 'energy/samples': jnp.mean(fake)}
  if loss == 'margin':
    return jnp.mean(real + nn.relu(margin - fake)), metrics
  if loss == 'wasserstein':
    return jnp.mean(real) - jnp.mean(fake), metrics
  # Softplus is finite where log(sigmoid) has overflowed.
  return jnp.mean(nn.softplus(real) + nn.softplus(-fake)), metrics


def _with_penalty(energy_loss, energy, weight, rngs, *batch):
  """Returns the loss with weight mean (|grad E| - 1)^2 between data and samples."""
  # The slope at one example would be a slope of the whole batch.
  if learners.mixes(energy):
    raise ValueError(
      "loss='wasserstein' bounds the slope at each example, and this energy "
      "mixes its batch; allowed: norm='layer' or 'none'."
    )

  def penalized(params):
    value, metrics = energy_loss(params)
    slope = _slope(energy.replace(params=params), *batch, rngs=rngs)
    metrics['energy/slope'] = jnp.mean(slope)
    return value + weight * jnp.mean((slope - 1) ** 2), metrics

  return penalized


def _generator_steps(due, generator, loss, draw, rngs, axis_name):
  """Returns the generator, where due after a step for each key, and metrics."""

  def move(generator, rng):
    made = functools.partial(draw, rng=rng)
    return learners.descend(
      generator, functools.partial(loss, draw=made), axis_name=axis_name
    )

  moved, metrics = learners.repeated(move, generator, rngs)
  # `due` is traced, so that one compiled step serves every turn: both are computed.
  choose = functools.partial(jnp.where, due)
  return jax.tree.map(choose, moved, generator), metrics


def _generator_loss(params, *, draw, fake, loss, l1_weight, data):
  """Returns the generator's loss of its samples' energies, and metrics."""
  made = draw(params)
  value = _LOSSES[loss](fake(made))
  metrics = {'generator/loss': value}
  # A weight of 0 spares the metric, which has no meaning without a pair.
  if not checks.is_zero(l1_weight):
    metrics['generator/absolute_error'] = jnp.mean(jnp.abs(made - data))
    value += l1_weight * metrics['generator/absolute_error']
  return value, metrics


def _slope(energy, data, samples, *condition, rngs):
  """Returns |grad E| [n] at a random point between each image and its sample."""
  between_rng, dropout_rng = rngs
  shape = (len(data),) + (1,) * (data.ndim - 1)
  # One share for all pixels: the points lie on lines from images to samples
  # [GAADC17].
  share = jax.random.uniform(between_rng, shape)
  between = share * data + (1 - share) * samples
  slope = energies.score(energy, between, *condition, rng=dropout_rng)
  slope = slope.reshape(len(data), -1)
  # The gradient of a root at 0 is infinite.
  return jnp.sqrt(jnp.sum(slope * slope, -1) + 1e-12)
