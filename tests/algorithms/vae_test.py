"""Tests of variational autoencoders, linear ones with closed forms among them."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
import optax

from stein_jax.algorithms import vae
from tests.algorithms import langevin_ebm_test as literal

NETWORK = dict(
  name='VAE',
  shape=(8, 8, 1),
  latent_dim=3,
  base=2,
  widths=(),
  strides=(2,),
  kernels=(4,),
  last_norm=False,
  encoder_widths=(2,),
  encoder_strides=(2,),
  encoder_kernels=(4,),
  scale=0.3,
)
IMAGE_TO_IMAGE = dict(
  name='ImageToImage',
  shape=(8, 8, 1),
  latent_dim=3,
  widths=(2,),
  num_blocks=0,
  encoder_widths=(2,),
  scale=0.3,
)


class Linear(nn.Module):
  """x = scale z + shift, each coordinate from its own, with a Gaussian encoder."""

  prior = 'normal'

  def setup(self):
    value = lambda name: self.param(name, nn.initializers.ones, (2,))
    self.scale, self.shift = value('scale'), value('shift')
    self.slope, self.intercept = value('slope'), value('intercept')
    self.log_variance = value('log_variance')

  def latent(self, rng, num):
    return jax.random.normal(rng, (num, 2))

  def decode(self, z):
    return self.scale[None] * z + self.shift[None]

  def encode(self, x, *, key=None):
    del key
    mean = self.slope[None] * x + self.intercept[None]
    return mean, jnp.broadcast_to(self.log_variance[None], x.shape)

  def __call__(self, rng, num):
    return self.decode(self.latent(rng, num))


_LINEAR = Linear()


def linear(scale, shift, *, encoder=None, optimizer=None, batch_size=4):
  """Returns a learner of that generator at these parameters."""
  scale, shift = np.broadcast_arrays(scale, shift)
  encoder = encoder or dict(slope=0.3, intercept=0.2, log_variance=-0.5)
  values = dict(scale=scale, shift=shift)
  values |= {k: np.broadcast_to(v, scale.shape) for k, v in encoder.items()}
  return literal.learner(
    _LINEAR,
    values,
    optimizer,
    input_shape=scale.shape,
    batch_size=batch_size,
  )


def posterior(scale, shift, noise):
  """Returns the encoder p(z | x) of x = scale z + shift + N(0, noise), by Bayes."""
  scale, shift = np.broadcast_arrays(scale, shift)
  total = scale**2 + noise
  return dict(
    slope=scale / total,
    intercept=-scale * shift / total,
    log_variance=np.log(noise / total),
  )


def evidence_bound(
  generator, rng, x, *condition, kl_weight=1.0, kl='prior', num_importance=10
):
  """Returns the loss of an autoencoder with its metrics, from the densities."""
  dropout_rng, code_rng = jax.random.split(rng)
  keys = [code_rng]
  if kl == 'posterior':
    keys = list(jax.random.split(code_rng, num_importance))
  normal = lambda x, mean, variance: jnp.sum(
    -0.5 * (x - mean) ** 2 / variance - 0.5 * jnp.log(2 * np.pi * variance),
    range(1, x.ndim),
  )

  def loss(params):
    mean, log_variance = generator.apply_fn(
      params, x, *condition, method='encode', key=dropout_rng
    )
    variance = jnp.exp(log_variance)
    errors, likelihoods, ratios = [], [], []  # ratios as logarithms
    for key in keys:
      z = mean + variance**0.5 * jax.random.normal(key, mean.shape)
      back = generator.apply_fn(params, z, *condition, method='decode')
      errors.append(jnp.sum((x - back) ** 2, range(1, x.ndim)))
      likelihoods.append(normal(x, back, 0.5))
      joint = likelihoods[-1] + normal(z, 0.0, 1.0)
      ratios.append(joint - normal(z, mean, variance))
    error = sum(errors) / len(keys)
    divergence = jnp.sum(
      -jnp.log(variance**0.5) + (variance + mean**2) / 2 - 0.5, -1
    )
    values = error + kl_weight * divergence
    if kl == 'posterior':  # as X21 prints it, with p(z | x) by Bayes
      evidence = functools.reduce(jnp.logaddexp, ratios) - np.log(len(keys))
      to_posterior = divergence - sum(likelihoods) / len(keys) + evidence
      values = kl_weight * to_posterior - evidence
    return jnp.mean(values), {
      'generator/reconstruction': jnp.mean(error),
      'generator/divergence': jnp.mean(divergence),
    }

  return loss


class StepTest(parameterized.TestCase):
  @parameterized.parameters(
    (dict(NETWORK, dropout=0.5), dict()),
    (IMAGE_TO_IMAGE, dict(kl_weight=0.3)),
  )
  def test_descends_minus_the_evidence_bound(self, network, hyper):
    conditional = network is IMAGE_TO_IMAGE
    batch = literal.images(conditional=conditional)
    config = ConfigDict(
      dict(generator=network, generator_optimizer=literal.SGD)
    )
    state = vae.init(jax.random.key(1), config, batch)
    after, metrics = jax.jit(functools.partial(vae.step, **hyper))(
      state, batch, jax.random.key(0)
    )
    rng = jax.random.fold_in(jax.random.key(0), 0)
    params, expected = literal.descended(
      state.generator.params,
      evidence_bound(state.generator, rng, *batch.values(), **hyper),
    )
    close = functools.partial(chex.assert_trees_all_close, rtol=1e-4, atol=1e-4)
    close(after.generator.params, params)
    close(metrics, expected)
    self.assertEqual(after.step, 1)

  def test_bad_arguments(self):
    state = vae.State(jnp.zeros((), jnp.int32), linear([1.0, 1.0], 0.0))
    with self.assertRaisesRegex(ValueError, 'kl_weight=-1.0'):
      vae.step(state, {'image': 0}, jax.random.key(0), kl_weight=-1.0)

  @parameterized.parameters(
    (dict(shape=(4, 4, 1)), r'data \(8, 8, 1\), samples \(4, 4, 1\)'),
    (dict(encoder_widths=()), r'encoder_widths=\(\) leaves no encoder'),
  )
  def test_bad_networks(self, network, message):
    batch = literal.images()
    config = ConfigDict(
      dict(generator=dict(NETWORK, **network), generator_optimizer=literal.SGD)
    )
    start = lambda rng: vae.step(vae.init(rng, config, batch), batch, rng)
    with self.assertRaisesRegex(ValueError, message):
      jax.eval_shape(start, jax.random.key(0))


class LearningTest(absltest.TestCase):
  def test_linear_autoencoders_are_probabilistic_pca(self):
    """The decoder's variance is kl_weight / 2, and what is beyond it is learned.

    The law of x = scale z + shift + N(0, gamma / 2) comes nearest to data of variance
    S with scale^2 = max(S - gamma / 2, 0), and the code has its posterior: that of
    the first coordinate, which varies less than the noise, is the prior.
    """
    gamma = 2.0
    mean, variance = literal.MEAN, literal.VARIANCE
    self.assertLess(variance[0], gamma / 2)
    self.assertGreater(variance[1], gamma / 2)
    generator = linear([0.5, 0.5], [0.0, 0.0], optimizer=optax.sgd(0.05))
    state = vae.State(jnp.zeros((), jnp.int32), generator)
    state, path = literal.learned(
      functools.partial(vae.step, kl_weight=gamma),
      state,
      literal.normal(400, 200),
      jax.random.key(0),
    )
    found = literal.last_half(path[0].generator.params['params'])
    scale = np.sqrt(np.maximum(variance - gamma / 2, 0))
    expected = dict(shift=mean, scale=scale)
    expected |= posterior(scale, mean, gamma / 2)
    self.assertEqual(set(found), set(expected))
    # The largest error in eight seeds: 0.015.
    for name, value in expected.items():
      with self.subTest(name):
        np.testing.assert_allclose(np.asarray(found[name]), value, atol=0.04)
    # Samples are decoded codes, without the decoder's noise.
    num = 4000
    x = np.asarray(vae.sample(state, jax.random.key(1), num))
    values = state.generator.params['params']
    spread = np.abs(values['scale'])
    error = np.abs(x.mean(0) - values['shift']) / (spread / num**0.5)
    self.assertLess(np.max(error), 4)
    error = np.abs(x.std(0) / spread - 1) * (2 * num) ** 0.5
    self.assertLess(np.max(error), 4)

  def test_samples_are_of_their_conditions(self):
    batch = literal.images(6, conditional=True)
    config = ConfigDict(
      dict(generator=IMAGE_TO_IMAGE, generator_optimizer=literal.SGD)
    )
    state = vae.init(jax.random.key(1), config, batch)
    draw = jax.jit(vae.sample, static_argnums=2)
    x = draw(state, jax.random.key(0), 6, condition=batch['condition'])
    self.assertEqual(x.shape, (6, 8, 8, 1))
    other = batch['condition'].copy()
    other[2] *= -1
    y = draw(state, jax.random.key(0), 6, condition=other)
    changed = np.any(np.abs(x - y) > 1e-3, (1, 2, 3))
    np.testing.assert_array_equal(changed, np.arange(6) == 2)


if __name__ == '__main__':
  absltest.main()
