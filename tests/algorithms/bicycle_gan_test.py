"""Tests of cVAE-GAN, cVAE-GAN++ and BicycleGAN against their objectives by hand."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import chex
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
import pytest

from stein_jax.algorithms import bicycle_gan
from tests import draws
from tests import literal

_ENERGY = dict(literal.CONV_NET, reference_sigma=0.0)
_WEIGHTS = dict(
  image_weight=3.0, kl_weight=0.2, prior_weight=0.7, latent_weight=0.4
)


@functools.cache
def _start(conditional=True):
  batch = literal.images(conditional=conditional)
  network = literal.VAE_NETWORK
  config = ConfigDict(
    dict(
      energy=_ENERGY,
      energy_optimizer=literal.SGD,
      generator=literal.IMAGE_TO_IMAGE if conditional else network,
      generator_optimizer=literal.SGD,
    )
  )
  return bicycle_gan.init(jax.random.key(1), config, batch), batch


def _log_sigmoid(logit):
  return -jnp.log1p(jnp.exp(-logit))


def _encoder_alone(params):
  """Returns the encoder's part of a generator's parameters."""
  return {k: v for k, v in params['params'].items() if k == 'encoder'}


class StepTest(parameterized.TestCase):
  @parameterized.named_parameters(
    ('bicycle_gan', {}),
    ('cvae_gan_plus_plus', dict(latent_weight=0.0)),
    ('cvae_gan', dict(latent_weight=0.0, prior_weight=0.0)),
  )
  def test_is_the_game(self, changes):
    self.check(changes, conditional=True)

  @parameterized.named_parameters(
    ('of_codes_of_draws_alone', dict(prior_weight=0.0), True),
    ('without_conditions', {}, False),
  )
  @pytest.mark.slow
  def test_so_is_that(self, changes, conditional):
    self.check(changes, conditional)

  def check(self, changes, conditional):
    state, batch = _start(conditional)
    weights = {**_WEIGHTS, **changes}
    self.enter_context(draws.fixed())
    after, metrics = jax.jit(functools.partial(bicycle_gan.step, **weights))(
      state, batch, jax.random.key(0)
    )
    data, *condition = batch.values()
    apply = state.generator.apply_fn
    decode = lambda params, z: apply(params, z, *condition, method='decode')
    encode = lambda params, x: apply(
      params, x, *condition, method='encode', key=jax.random.key(0)
    )
    z = draws.latents((len(data), 3))

    def coded(params):
      mean, log_variance = encode(params, data)
      deviation = jnp.exp(log_variance) ** 0.5
      code = mean + deviation * draws.normals(mean.shape)
      divergence = -jnp.log(deviation) + (deviation**2 + mean**2 - 1) / 2
      return decode(params, code), jnp.mean(jnp.sum(divergence, 1))

    logit = lambda energy, params, x: -energy.apply_fn(params, x, *condition)

    def discriminator_loss(energy, images):
      def loss(params):
        real, fake = (logit(energy, params, x) for x in (data, images))
        # log(1 - sigmoid(logit)) = log sigmoid(-logit)
        loss = -jnp.mean(_log_sigmoid(real)) - jnp.mean(_log_sigmoid(-fake))
        return loss, {
          'energy/data': -jnp.mean(real),
          'energy/samples': -jnp.mean(fake),
        }

      return loss

    before = state.generator.params
    energy, expected = literal.descended(
      state.energy.params, discriminator_loss(state.energy, coded(before)[0])
    )
    prior_energy = state.prior_energy.params
    if weights['prior_weight'] or weights['latent_weight']:
      prior_energy, _ = literal.descended(
        prior_energy, discriminator_loss(state.prior_energy, decode(before, z))
      )

    def generator_loss(params):
      images, divergence = coded(params)
      drawn = decode(params, z)
      error = jnp.sum(jnp.abs(images - data)) / data.size
      # At the parameters before, of the encoder alone: it is a constant.
      latent_error = jnp.sum(jnp.abs(encode(before, drawn)[0] - z)) / z.size
      fooled = lambda learner, params, x: (
        -jnp.mean(_log_sigmoid(logit(learner, params, x)))
      )
      loss = (
        fooled(state.energy, energy, images)
        + weights['image_weight'] * error
        + weights['kl_weight'] * divergence
        + weights['prior_weight']
        * fooled(state.prior_energy, prior_energy, drawn)
        + weights['latent_weight'] * latent_error
      )
      metrics = {
        'generator/absolute_error': error,
        'generator/divergence': divergence,
      }
      if weights['prior_weight'] or weights['latent_weight']:
        metrics['generator/latent_error'] = latent_error
      return loss, metrics

    generator, generator_metrics = literal.descended(before, generator_loss)
    close = functools.partial(chex.assert_trees_all_close, rtol=1e-4, atol=1e-5)
    close(after.energy.params, energy)
    close(after.prior_energy.params, prior_energy)
    close(after.generator.params, generator)
    close(metrics, {**expected, **generator_metrics})
    self.assertEqual(after.step, 1)

  def test_the_encoder_does_not_learn_from_draws(self):
    state, batch = _start()
    weights = dict(image_weight=0.0, kl_weight=0.0, prior_weight=0.0)
    step = jax.jit(bicycle_gan.step)
    found = [
      step(state, batch, jax.random.key(0), latent_weight=weight, **weights)[0]
      for weight in (0.5, 5.0)
    ]
    encoders = [_encoder_alone(each.generator.params) for each in found]
    self.assertNotEmpty(encoders[0])
    chex.assert_trees_all_equal(*encoders)
    decoders = [
      {
        k: v
        for k, v in each.generator.params['params'].items()
        if k != 'encoder'
      }
      for each in found
    ]
    with self.assertRaises(AssertionError):
      chex.assert_trees_all_close(*decoders, rtol=1e-3)

  @parameterized.parameters(*_WEIGHTS)
  def test_bad_arguments(self, name):
    state, batch = _start()
    step = functools.partial(bicycle_gan.step, **{name: -0.5})
    with self.assertRaisesRegex(ValueError, f'{name}=-0.5 must be zero or'):
      jax.eval_shape(step, state, batch, jax.random.key(0))


class SampleTest(absltest.TestCase):
  def test_samples_are_of_their_conditions(self):
    state, batch = _start()
    draw = jax.jit(bicycle_gan.sample, static_argnums=2)
    x = draw(state, jax.random.key(0), 4, condition=batch['condition'])
    self.assertEqual(x.shape, (4, 8, 8, 1))
    other = batch['condition'].copy()
    other[2] *= -1
    y = draw(state, jax.random.key(0), 4, condition=other)
    changed = np.any(np.abs(x - y) > 1e-3, (1, 2, 3))
    np.testing.assert_array_equal(changed, np.arange(4) == 2)


if __name__ == '__main__':
  absltest.main()
