"""Images from images and a code: conditional VAE-GANs and BicycleGAN [ZZPDEWS17].

With the default weights BicycleGAN; without `latent_weight` cVAE-GAN++; without
`prior_weight` too, cVAE-GAN.
"""

import functools
from typing import NamedTuple

import jax
from jax import lax
from jax import nn
import jax.numpy as jnp

from stein_jax import build
from stein_jax import checks
from stein_jax import collectives
from stein_jax import energies
from stein_jax import generators
from stein_jax import learners
from stein_jax.types import Array, Batch, Metrics, PRNGKey


class State(NamedTuple):
  step: Array
  energy: learners.Learner  # minus the logit of real, beside decoded codes
  prior_energy: learners.Learner  # the same, beside decoded draws of the prior
  generator: learners.Learner  # with an encoder


def init(rng: PRNGKey, config, batch: Batch) -> State:
  """Returns the first state."""
  rng, prior_rng = jax.random.split(rng)
  energy, generator = generators.create_pair(
    rng,
    build.build(energies, **config.energy),
    config.energy_optimizer,
    build.build(generators, **config.generator),
    config.generator_optimizer,
    batch['image'],
    condition=batch.get('condition'),
  )
  prior_energy = learners.create(
    prior_rng,
    build.build(energies, **config.energy),
    config.energy_optimizer,
    batch['image'],
    *energies.conditions(batch),
  )
  return State(jnp.zeros((), jnp.int32), energy, prior_energy, generator)


def step(
  state: State,
  batch: Batch,
  rng: PRNGKey,
  *,
  image_weight: float = 10.0,
  kl_weight: float = 0.01,
  prior_weight: float = 1.0,
  latent_weight: float = 0.5,
  axis_name: str | None = None,
) -> tuple[State, Metrics]:
  """Returns the state after one step of the game [ZZPDEWS17].

  Two discriminators sigmoid(-E) learn to tell the data from images of their codes and
  from images of draws of the prior. Then generator and encoder descend

    mean -log D(coded) + image_weight mean |coded - data|
      + kl_weight mean KL(code | prior) + prior_weight mean -log D'(drawn)
      + latent_weight mean |latent - mean code of drawn|,

  the last of them by the generator alone.

  Args:
    state: the networks.
    batch: 'image' [n, ...], and 'condition' [n, ...] if conditional.
    rng: key of the step.
    image_weight: of the mean over pixels.
    kl_weight: of the sum over the code.
    prior_weight: 0 without it.
    latent_weight: of the mean over the code; 0 without it.
    axis_name: the mapped axis over which the batch is split.
  """
  checks.non_negative(
    image_weight=image_weight,
    kl_weight=kl_weight,
    prior_weight=prior_weight,
    latent_weight=latent_weight,
  )
  key = learners.dropout_key(state.energy, rng, axis_name=axis_name)
  context = dict(axis_name=axis_name, rng=key)  # one module serves both
  rng = collectives.fold_in_index(rng, axis_name)
  dropout_rng, code_rng, latent_rng = jax.random.split(rng, 3)
  data, condition = batch['image'], energies.conditions(batch)
  call = functools.partial(learners.call, state.generator, axis_name=axis_name)
  decode = functools.partial(call, method='decode')
  encode = functools.partial(call, method='encode', key=dropout_rng)
  z = generators.latent(state.generator, latent_rng, len(data))
  drawn = functools.partial(_decoded, decode, data.shape, z, condition)
  coded = functools.partial(
    _coded, decode, encode, data, condition, code_rng, z.shape
  )
  draws = not (checks.is_zero(prior_weight) and checks.is_zero(latent_weight))

  # Each discriminator learns to tell the data from images of one kind.
  before, prior_energy = state.generator.params, state.prior_energy
  learned = functools.partial(_tell_apart, data, condition, context)
  energy, metrics = learned(coded(before)[0], state.energy)
  if draws:
    prior_energy, _ = learned(drawn(before), prior_energy)

  # Generator and encoder descend what the discriminators and the data say.
  fooled = functools.partial(_fooled, condition=condition, context=context)

  def generator_loss(params):
    images, kl = coded(params)
    error = jnp.mean(jnp.abs(images - data))
    loss = fooled(energy, images) + image_weight * error + kl_weight * kl
    metrics = {'generator/absolute_error': error, 'generator/divergence': kl}
    if draws:
      images = drawn(params)
      latent_error = _latent_error(encode, params, images, condition, z)
      metrics['generator/latent_error'] = latent_error
      loss += prior_weight * fooled(prior_energy, images)
      loss += latent_weight * latent_error
    return loss, metrics

  generator, generator_metrics = learners.descend(
    state.generator, generator_loss, axis_name=axis_name
  )
  metrics |= generator_metrics
  return State(state.step + 1, energy, prior_energy, generator), metrics


def sample(
  state: State, rng: PRNGKey, num: int, *, condition: Array | None = None
) -> Array:
  """Returns samples [num, ...], of the images [num, ...] if conditional."""
  return generators.sample(state.generator, rng, num, condition=condition)


def _decoded(decode, shape, code, condition, params):
  """Returns the images of codes [n, k], or refuses those of another shape."""
  images = decode(params, code, *condition)
  checks.shape(shape, samples=images)
  return images


def _coded(decode, encode, data, condition, rng, shape, params):
  """Returns images of the data's codes, and the divergence of these from the prior."""
  mean, log_variance = encode(params, data, *condition)
  checks.shape(shape, mean=mean, log_variance=log_variance)
  unit = jax.random.normal(rng, mean.shape, mean.dtype)
  code = mean + jnp.exp(0.5 * log_variance) * unit
  divergence = jnp.mean(generators.kl_divergence(mean, log_variance))
  return _decoded(decode, data.shape, code, condition, params), divergence


def _latent_error(encode, params, images, condition, z):
  """Returns how far codes of images of z are from z []; the encoder does not learn."""
  mean, _ = encode(lax.stop_gradient(params), images, *condition)
  return jnp.mean(jnp.abs(mean - z))


def _fooled(energy, images, *, condition, context):
  """Returns mean -log D(images) [], which falls as the discriminator is fooled."""
  values = energies.value(energy, energy.params, images, *condition, **context)
  return jnp.mean(nn.softplus(values))


def _tell_apart(data, condition, context, images, energy):
  """Returns a discriminator one step better at telling images from data, metrics."""

  def loss_fn(params):
    real, fake = energies.pair(
      energy, params, data, images, *condition, joint=False, **context
    )
    metrics = {'energy/data': jnp.mean(real), 'energy/samples': jnp.mean(fake)}
    return jnp.mean(nn.softplus(real) + nn.softplus(-fake)), metrics

  return learners.descend(energy, loss_fn, axis_name=context['axis_name'])
