"""Tests of cooperative networks against updates taken literally."""

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

from stein_jax import samplers
from stein_jax.algorithms import coopnets
from tests import draws
from tests import literal

_VAE = dict(literal.VAE_NETWORK, encoder_widths=())
_CHAIN = samplers.Langevin(0.4, num_steps=3)


class Exponential(nn.Module):
  """E = sum p x^2 / 2 - t x: flat at p = t = 0, and never so elsewhere."""

  @nn.compact
  def __call__(self, x):
    shape = (x.shape[-1],)
    p = self.param('p', nn.initializers.zeros, shape)
    t = self.param('t', nn.initializers.zeros, shape)
    return jnp.sum(0.5 * p[None] * x**2 - t[None] * x, -1)


def start(network):
  """Returns a first state and a batch, of images but for 'Linear'."""
  if network == 'Linear':
    decoder = np.array([0.9, -0.4]), np.array([0.2, 0.1])
    state = coopnets.State(
      jnp.zeros((), jnp.int32),
      literal.quadratic([0.3, 0.2], np.log([1.4, 0.7])),
      literal.linear(*decoder),
    )
    return state, {'image': literal.normal(6)}
  networks = dict(VAE=_VAE, ImageToImage=literal.IMAGE_TO_IMAGE)
  batch = literal.images(conditional=network == 'ImageToImage')
  config = ConfigDict(
    dict(
      energy=literal.CONV_NET,
      energy_optimizer=literal.SGD,
      generator=networks[network],
      generator_optimizer=literal.SGD,
    )
  )
  return coopnets.init(jax.random.key(1), config, batch), batch


class StepTest(parameterized.TestCase):
  @parameterized.parameters(
    ('VAE', {}, dict(generator_sigma=2.0)),
    ('ImageToImage', {}, dict(generator_sigma=2.0, data_weight=0.2)),
    ('Linear', dict(noise=False, clip=(-0.8, 0.9)), dict(data_weight=1.0)),
    ('Linear', dict(temperature=0.2), dict(energy_l2=0.1)),
  )
  def test_is_cooperative_learning(self, network, options, hyper):
    state, batch = start(network)
    chain = _CHAIN.replace(**options)
    self.enter_context(draws.fixed())
    after, metrics = jax.jit(
      functools.partial(coopnets.step, chain=chain, **hyper)
    )(state, batch, jax.random.key(0))
    data, *condition = batch.values()
    energy_l2 = hyper.pop('energy_l2', 0.0)
    weight, sigma = (
      hyper.pop('data_weight', 0.0),
      hyper.pop('generator_sigma', 0.3),  # X20's
    )
    z = draws.latents((len(data), 2 if network == 'Linear' else 3))
    propose = lambda params: state.generator.apply_fn(
      params, z, *condition, method='decode'
    )
    proposed = jax.jit(propose)(state.generator.params)
    revised = literal.chain(state.energy, chain, proposed, *condition)
    energy, energy_metrics = literal.descended(
      state.energy.params,
      literal.contrast(
        state.energy, data, revised, *condition, energy_l2=energy_l2
      ),
    )

    def generator_loss(params):
      samples, num = propose(params), len(data)
      error = jnp.sum((samples - revised) ** 2) / num
      to_data = jnp.sum(jnp.abs(samples - data)) / num
      loss = (1 - weight) * error / (2 * sigma**2) + weight * to_data
      return loss, {'generator/error': error}

    generator, generator_metrics = literal.descended(
      state.generator.params, generator_loss
    )
    moves = (revised - np.asarray(proposed)).reshape(len(data), -1)
    spread = np.sum(np.var(revised, 0))
    close = functools.partial(chex.assert_trees_all_close, rtol=2e-4, atol=1e-4)
    close(after.energy.params, energy)
    close(after.generator.params, generator)
    close(
      metrics,
      {
        **literal.watch(state.energy, chain, proposed, *condition),
        **energy_metrics,
        **generator_metrics,
        'samples/revision': np.float32(np.mean(np.linalg.norm(moves, axis=1))),
        'samples/variance': np.float32(spread),
      },
    )
    self.assertEqual(after.step, 1)

  @parameterized.parameters(
    (dict(generator_sigma=0.0), 'generator_sigma=0.0'),
    (dict(data_weight=-0.1), 'data_weight=-0.1'),
    (dict(data_weight=1.1), 'data_weight=1.1'),
    (dict(energy_l2=-1.0), 'energy_l2=-1.0'),
    (dict(chain=samplers.MALA(0.1, 0)), 'chain.num_steps=0'),
    (dict(chain=samplers.Langevin(0.1, 0)), 'chain.num_steps=0'),
    (dict(chain=samplers.Langevin(0.0)), 'chain.step_size=0.0'),
    (dict(chain=_CHAIN.replace(clip=(1.0, 1.0))), 'clip=.*low < high'),
  )
  def test_bad_arguments(self, hyper, message):
    state, batch = start('Linear')
    step = functools.partial(coopnets.step, **hyper)
    with self.assertRaisesRegex(ValueError, message):
      jax.eval_shape(step, state, batch, jax.random.key(0))

  def test_a_generator_of_other_images_is_refused(self):
    config = ConfigDict(
      dict(
        energy=literal.CONV_NET,
        energy_optimizer=literal.SGD,
        generator=dict(_VAE, shape=(4, 4, 1)),
        generator_optimizer=literal.SGD,
      )
    )
    with self.assertRaisesRegex(ValueError, r'data \(8, 8, 1\), samples \(4'):
      jax.eval_shape(
        lambda rng: coopnets.init(rng, config, literal.images()),
        jax.random.key(0),
      )


class SampleTest(absltest.TestCase):
  def test_samples_of_conditions_are_revised_under_them(self):
    """Six conditions on batches of four: noise off, the chain has no key."""
    state, _ = start('ImageToImage')
    condition = literal.images(6, conditional=True)['condition']
    chain = _CHAIN.replace(noise=False)

    @jax.jit
    def draw(rng):
      sample = functools.partial(
        coopnets.sample, state, rng, 6, condition=condition
      )
      return sample(chain=chain.replace(num_steps=0)), sample(chain=chain)

    first, found = draw(jax.random.key(0))
    expected = literal.chain(state.energy, chain, first, condition)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    self.assertGreater(np.max(np.abs(found - first)), 0.01)


class LearningTest(absltest.TestCase):
  def learned(self, chain, *, seed=2):
    """Returns parameters and metrics, averaged over the second half."""
    optimizer = optax.sgd(0.1)
    state = coopnets.State(
      jnp.zeros((), jnp.int32),
      literal.learner(
        Exponential(), dict(p=[0.5, 0.5], t=[0.0, 0.0]), optimizer
      ),
      literal.linear(
        np.array([0.3, 0.3]), np.array([-1.0, 1.0]), optimizer=optimizer
      ),
    )
    step = functools.partial(coopnets.step, chain=chain, generator_sigma=1.0)
    data = literal.normal(800, 100, seed=seed)
    _, (states, metrics) = literal.learned(
      step, state, data, jax.random.key(seed)
    )
    energy, generator = states.energy.params, states.generator.params
    return literal.last_half(energy['params'] | generator['params'] | metrics)

  def check(self, found, atol, **expected):
    # About the mean of a batch of 100.
    expected['samples/variance'] = 0.99 * np.sum(literal.VARIANCE)
    for name, value in expected.items():
      np.testing.assert_allclose(found[name], value, atol=atol, err_msg=name)

  def test_without_noise_the_generator_has_the_moments_of_the_data(self):
    """Nothing is left to revise: the energy is flat."""
    found = self.learned(samplers.Langevin(0.4, 10, noise=False))
    scale = np.sqrt(literal.VARIANCE)
    # The largest error in eight seeds: 0.03; of the revision 0.065.
    self.check(found, 0.06, p=0.0, t=0.0, shift=literal.MEAN, scale=scale)
    self.assertLess(found['samples/revision'], 0.1)

  def test_with_noise_the_generator_learns_the_mean_of_its_chains(self):
    """It regresses on z what the chain made of z; of the noise nothing is left.

    The revised samples have the data's moments: they, not the generator's, are the
    samples. Their variance falls with p, on a grid: that of 20 steps of y' = c y +
    delta xi from the mean, c = 1 - delta^2 p / 2.
    """
    found = self.learned(samplers.Langevin(0.4, 20))
    precision = np.linspace(0.1, 4, 10_000)[:, None]
    shrink = 1 - 0.4**2 / 2 * precision
    variance = 0.4**2 * (1 - shrink**40) / (1 - shrink**2)
    p = precision[np.argmin(np.abs(variance - literal.VARIANCE), 0), 0]
    # The largest error in eight seeds: 0.055; of the revision, 1.36 to 1.38.
    self.check(
      found, 0.1, p=p, t=p * literal.MEAN, shift=literal.MEAN, scale=0.0
    )
    self.assertGreater(found['samples/revision'], 1.0)


if __name__ == '__main__':
  absltest.main()
