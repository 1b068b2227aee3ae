"""Tests of VGAN against updates taken literally, and of what its entropy does."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import chex
from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax

from stein_jax import energies
from stein_jax import generators
from stein_jax import learners
from stein_jax.algorithms import vgan
from tests import draws

_DATA = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), jnp.float32)


class Experts(nn.Module):
  """An energy of experts of vectors, with a dense network."""

  num_experts: int = 4
  widths: tuple[int, ...] = ()

  @nn.compact
  def expert_logits(self, x):
    for width in self.widths:
      x = nn.tanh(nn.Dense(width)(x))
    return nn.Dense(self.num_experts)(x)

  def __call__(self, x):
    return energies.expert_energy(self.expert_logits(x))


class Shift(nn.Module):
  """A generator z + g, z normal."""

  @nn.compact
  def __call__(self, rng, num):
    shift = self.param('g', nn.initializers.normal(1.0), (3,))
    return jax.random.normal(rng, (num, 3)) + shift[None]


def start(optimizer=None):
  optimizer = optimizer or optax.sgd(0.5)
  energy = learners.create(jax.random.key(1), Experts(), optimizer, _DATA)
  generator = generators.create(jax.random.key(2), Shift(), optimizer, 6)
  return vgan.State(jnp.zeros((), jnp.int32), energy, generator)


def terms(state, params, x):
  """Returns mean E(x) and H(x) [], literally."""
  p = nn.sigmoid(state.energy.apply_fn(params, x, method='expert_logits'))
  h = lambda p: -p * jnp.log(p) - (1 - p) * jnp.log(1 - p)
  return jnp.mean(jnp.sum(h(p), 1)), jnp.sum(h(jnp.mean(p, 0)))


class StepTest(parameterized.TestCase):
  @parameterized.parameters(
    dict(),
    dict(num_generator_steps=3),
    dict(generator_entropy=0.3, data_entropy=0.0),
    dict(generator_entropy=0.0, data_entropy=2.0),
  )
  def test_is_algorithm_1(self, **hyper):
    state = start()
    self.enter_context(draws.fixed())
    after, metrics = jax.jit(functools.partial(vgan.step, **hyper))(
      state, {'image': _DATA}, jax.random.key(0)
    )
    draw = lambda params: state.generator.apply_fn(params, jax.random.key(0), 6)

    def free_energy(params):
      mean, entropy = terms(state, state.energy.params, draw(params))
      return mean - hyper.get('generator_entropy', 1.0) * entropy

    generator = state.generator.params
    for _ in range(hyper.get('num_generator_steps', 1)):
      grads = jax.grad(free_energy)(generator)
      generator = jax.tree.map(lambda p, g: p - 0.5 * g, generator, grads)
    samples = draw(generator)

    def contrast(params):
      positive, entropy = terms(state, params, _DATA)
      negative, _ = terms(state, params, samples)
      return positive - negative - hyper.get('data_entropy', 1.0) * entropy

    grads = jax.grad(contrast)(state.energy.params)
    energy = jax.tree.map(lambda p, g: p - 0.5 * g, state.energy.params, grads)
    close = functools.partial(chex.assert_trees_all_close, rtol=1e-4, atol=1e-6)
    close(after.generator.params, generator)
    close(after.energy.params, energy)
    close(metrics['energy/data'], terms(state, state.energy.params, _DATA)[0])

  @parameterized.parameters(
    (dict(num_generator_steps=0), 'num_generator_steps=0'),
    (dict(generator_entropy=-1.0), 'generator_entropy=-1'),
    (dict(data_entropy=-0.5), 'data_entropy=-0.5'),
  )
  def test_bad_arguments(self, hyper, message):
    with self.assertRaisesRegex(ValueError, message):
      vgan.step(start(), {'image': _DATA}, jax.random.key(0), **hyper)

  def test_an_energy_without_experts_needs_zero_weights(self):
    state = start()
    energy = learners.create(
      jax.random.key(1), energies.MLP(widths=(3,)), optax.sgd(0.1), _DATA
    )
    state = state._replace(energy=energy)
    batch = {'image': _DATA}
    step = functools.partial(vgan.step, generator_entropy=0.0, data_entropy=0.0)
    jax.eval_shape(step, state, batch, jax.random.key(0))
    with self.assertRaisesRegex(AttributeError, 'expert_logits'):
      jax.eval_shape(vgan.step, state, batch, jax.random.key(0))


def _learned(state, data, **weights):
  """Returns the state after a step on each batch of data, and all metrics."""

  def step(state, inputs):
    x, rng = inputs
    return vgan.step(state, {'image': x}, rng, **weights)

  keys = jax.vmap(jax.random.key)(jnp.arange(len(data)))
  return jax.jit(lambda state: lax.scan(step, state, (data, keys)))(state)


class LearningTest(parameterized.TestCase):
  def test_only_a_bounded_energy_stays_bounded(self):
    """Without entropies an unbounded energy explodes against its generator."""

    def scale(energy_module, **weights):
      energy = learners.create(
        jax.random.key(1), energy_module, optax.adam(1e-2), _DATA
      )
      network = generators.MLP(latent_dim=2, dim=3, widths=(16,))
      generator = generators.create(
        jax.random.key(2), network, optax.adam(1e-3), 64
      )
      state = vgan.State(jnp.zeros((), jnp.int32), energy, generator)
      data = np.random.default_rng(3).normal(2, 1, (500, 64, 3))
      _, metrics = _learned(state, np.float32(data), **weights)
      gaps = metrics['energy/data'] - metrics['energy/samples']
      return float(abs(gaps[-1]))

    none = dict(generator_entropy=0.0, data_entropy=0.0)
    bound = 4 * np.log(2)
    self.assertLess(scale(Experts()), bound)
    self.assertGreater(
      scale(energies.BinaryRBM(num_hidden=8), **none), 2 * bound
    )

  def test_the_entropy_of_the_experts_keeps_samples_apart(self):
    """Experts that are the signs of x + 1; the generator starts on one side."""
    params = {
      'params': {
        'Dense_0': {'kernel': 4 * jnp.eye(3), 'bias': jnp.full(3, 4.0)}
      }
    }
    energy = learners.Learner.create(
      apply_fn=Experts(3).apply, params=params, tx=optax.set_to_zero()
    )
    shares = {}
    for weight in (1.0, 0.0):
      network = generators.MLP(latent_dim=3, dim=3, widths=(64, 64))
      generator = generators.create(
        jax.random.key(2), network, optax.adam(3e-3), 128
      )
      state = vgan.State(jnp.zeros((), jnp.int32), energy, generator)
      data = jnp.zeros((500, 128, 3))
      state, _ = _learned(state, data, generator_entropy=weight)
      samples = np.asarray(vgan.sample(state, jax.random.key(9), 1000))
      shares[weight] = np.mean(samples > -1, 0)
    # The best is every bit as often on as off: two opposite codes are enough. Without
    # the entropy all samples fall into the code they are nearest to.
    np.testing.assert_allclose(shares[1.0], 0.5, atol=0.15)
    np.testing.assert_allclose(np.abs(shares[0.0] - 0.5), 0.5, atol=0.05)


if __name__ == '__main__':
  absltest.main()
