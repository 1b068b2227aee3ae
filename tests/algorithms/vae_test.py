"""Tests of variational autoencoders, linear ones with closed forms among them."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import chex
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
import optax

from stein_jax.algorithms import vae
from tests import draws
from tests import literal


class StepTest(parameterized.TestCase):
  @parameterized.parameters(
    (dict(literal.VAE_NETWORK, dropout=0.5), dict()),
    (literal.IMAGE_TO_IMAGE, dict(kl_weight=0.3)),
  )
  def test_descends_minus_the_evidence_bound(self, network, hyper):
    conditional = network is literal.IMAGE_TO_IMAGE
    batch = literal.images(conditional=conditional)
    config = ConfigDict(
      dict(generator=network, generator_optimizer=literal.SGD)
    )
    state = vae.init(jax.random.key(1), config, batch)
    self.enter_context(draws.fixed())
    after, metrics = jax.jit(functools.partial(vae.step, **hyper))(
      state, batch, jax.random.key(0)
    )
    params, expected = literal.descended(
      state.generator.params,
      literal.evidence_bound(state.generator, *batch.values(), **hyper),
    )
    close = functools.partial(chex.assert_trees_all_close, rtol=1e-4, atol=1e-4)
    close(after.generator.params, params)
    close(metrics, expected)
    self.assertEqual(after.step, 1)

  def test_bad_arguments(self):
    state = vae.State(jnp.zeros((), jnp.int32), literal.linear([1.0, 1.0], 0.0))
    with self.assertRaisesRegex(ValueError, 'kl_weight=-1.0'):
      vae.step(state, {'image': 0}, jax.random.key(0), kl_weight=-1.0)

  @parameterized.parameters(
    (dict(shape=(4, 4, 1)), r'data \(8, 8, 1\), samples \(4, 4, 1\)'),
    (dict(encoder_widths=()), r'encoder_widths=\(\) must have one'),
  )
  def test_bad_networks(self, network, message):
    batch = literal.images()
    config = ConfigDict(
      dict(
        generator=dict(literal.VAE_NETWORK, **network),
        generator_optimizer=literal.SGD,
      )
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
    generator = literal.linear(
      [0.5, 0.5], [0.0, 0.0], optimizer=optax.sgd(0.05)
    )
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
    expected |= literal.posterior(scale, mean, gamma / 2)
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
      dict(generator=literal.IMAGE_TO_IMAGE, generator_optimizer=literal.SGD)
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
