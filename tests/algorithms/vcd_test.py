"""Tests of variational contrastive divergence and of its transition operator."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stein_jax import datasets
from stein_jax import energies
from stein_jax import generators
from stein_jax import learners
from stein_jax.algorithms import vcd
from tests import draws

_IMAGES = jnp.asarray(
  np.random.default_rng(0).uniform(size=(8, 4, 4, 1)), jnp.float32
)
_OPERATOR = generators.TransitionOperator(
  shape=(4, 4, 1), latent_dim=6, widths=(2, 3)
)


def start(operator=_OPERATOR, images=_IMAGES, optimizer=None, **energy):
  optimizer = optimizer or optax.sgd(0.5)
  energy = dict(dict(widths=(2,), dense=3, num_experts=4), **energy)
  half = images[: len(images) // 2]
  return vcd.State(
    jnp.zeros((), jnp.int32),
    learners.create(
      jax.random.key(1), energies.MultiModal(**energy), optimizer, half
    ),
    learners.create(
      jax.random.key(2), operator, optimizer, jax.random.key(0), half
    ).replace(input_shape=half.shape[1:], batch_size=len(half)),
  )


class OperatorTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.params = jax.jit(_OPERATOR.init)(
      jax.random.key(0), jax.random.key(1), _IMAGES
    )

  def call(self, *inputs, keep=0.5, method=None):
    module = _OPERATOR.clone(keep=keep)
    return module.apply(self.params, *inputs, method=method)

  def test_keeping_the_whole_code_is_reconstruction(self):
    moved = self.call(jax.random.key(5), _IMAGES, keep=1.0)
    found = self.call(_IMAGES, method='reconstruct')
    np.testing.assert_allclose(moved, found, rtol=1e-6)
    logits = self.call(_IMAGES, method='reconstruction_logits')
    np.testing.assert_allclose(found, nn.sigmoid(logits), rtol=1e-6)

  def test_keeping_nothing_forgets_where_it_started(self):
    moved = self.call(jax.random.key(5), _IMAGES, keep=0.0)
    other = self.call(jax.random.key(5), 1 - _IMAGES, keep=0.0)
    np.testing.assert_array_equal(moved, other)
    with draws.fixed():
      moved, z = (
        self.call(jax.random.key(5), *inputs, keep=0.0, method=method)
        for inputs, method in (((_IMAGES,), None), ((8,), 'latent'))
      )
    np.testing.assert_allclose(moved, self.call(z, method='decode'), rtol=1e-6)

  def test_half_of_the_code_is_replaced(self):
    """With a decoder that is the identity the code itself can be seen."""
    seen, images = [], np.tile(_IMAGES, (40, 1, 1, 1))
    decoder = lambda next_fun, args, kwargs, context: (
      seen.append(args[0]) or next_fun(*args, **kwargs)
      if context.method_name == 'decode'
      and isinstance(context.module, generators.DCGAN)
      else next_fun(*args, **kwargs)
    )
    code = self.call(images, method='encode')
    self.assertLess(np.abs(code).max(), 1)
    with nn.intercept_methods(decoder):
      for seed in range(5):
        self.call(jax.random.key(seed), images)
    kept = np.mean([np.isclose(z, code) for z in seen])
    # 5 x 320 x 6 independent coordinates: the standard error is 0.005.
    self.assertAlmostEqual(kept, 0.5, delta=0.02)

  @parameterized.parameters(
    # The authors' MNIST operator, by hand: encoder, then decoder.
    ((28, 28, 1), (64, 64), 256),
    ((32, 32, 3), (128, 128), 2048),
  )
  def test_numbers_of_parameters(self, shape, widths, latent_dim):
    module = generators.TransitionOperator(
      shape=shape, widths=widths, latent_dim=latent_dim
    )
    params = jax.eval_shape(
      module.init, jax.random.key(0), jax.random.key(1), jnp.zeros((2, *shape))
    )
    h, w, c = shape
    m = widths[0]
    bottom = h * w // 16 * m
    weights = 25 * c * m + 25 * m * m + bottom * latent_dim
    weights += latent_dim * bottom + 25 * m * m + 25 * m * c
    norms = 2 * (m + m + latent_dim + bottom + m)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    self.assertEqual(count, weights + norms)

  def test_bad_arguments(self):
    with self.assertRaisesRegex(ValueError, 'keep=1.5'):
      generators.TransitionOperator(keep=1.5)


class StepTest(parameterized.TestCase):
  def test_is_algorithm_2(self):
    self.check('cross_entropy')

  @pytest.mark.slow
  def test_is_algorithm_2_by_squares(self):
    self.check('squared')

  def check(self, reconstruction):
    state = start()
    step = jax.jit(functools.partial(vcd.step, reconstruction=reconstruction))
    data, first = _IMAGES[:4], _IMAGES[4:]
    rng = jax.random.key(0)
    self.enter_context(draws.fixed())
    h = lambda p: -p * jnp.log(p) - (1 - p) * jnp.log(1 - p)

    def terms(params, x):
      p = nn.sigmoid(state.energy.apply_fn(params, x, method='expert_logits'))
      return jnp.mean(jnp.sum(h(p), 1)), jnp.sum(h(jnp.mean(p, 0)))

    def loss(params, rho):
      moved = state.generator.apply_fn(params, rng, first)
      mean, entropy = terms(state.energy.params, moved)
      back = state.generator.apply_fn(params, first, method='reconstruct')
      if reconstruction == 'squared':
        error = jnp.mean(jnp.sum((back - first) ** 2, (1, 2, 3)))
      else:
        error = -jnp.mean(
          first * jnp.log(back) + (1 - first) * jnp.log(1 - back)
        )
      return rho * (mean - entropy) + (1 - rho) * error

    def contrast(params, moved):
      positive, entropy = terms(params, data)
      return positive - terms(params, moved)[0] - entropy

    def descend(slope, params, argument):
      return jax.tree.map(
        lambda p, g: p - 0.5 * g, params, slope(params, argument)
      )

    slopes = [jax.jit(jax.grad(f)) for f in (loss, contrast)]
    close = functools.partial(chex.assert_trees_all_close, rtol=1e-3, atol=1e-5)
    for rho in (0.0, 0.3, 1.0):
      after, metrics = step(state, {'image': _IMAGES}, rng, rho=rho)
      generator = descend(slopes[0], state.generator.params, rho)
      moved = state.generator.apply_fn(generator, rng, first)
      energy = descend(slopes[1], state.energy.params, moved)
      close(after.generator.params, generator)
      close(after.energy.params, energy)
      self.assertIn('generator/reconstruction', metrics)

  @parameterized.parameters(
    (dict(rho=1.5), 'rho=1.5'),
    (dict(rho=-0.1), 'rho=-0.1'),
    (dict(reconstruction='l1'), 'reconstruction.*l1.*squared'),
    (dict(num_generator_steps=0), 'num_generator_steps=0'),
  )
  def test_bad_arguments(self, hyper, message):
    with self.assertRaisesRegex(ValueError, message):
      vcd.step(start(), {'image': _IMAGES}, jax.random.key(0), **hyper)

  def test_an_odd_batch_is_refused(self):
    with self.assertRaisesRegex(ValueError, '7.*even'):
      vcd.step(start(), {'image': _IMAGES[:7]}, jax.random.key(0))


class ChainTest(absltest.TestCase):
  def test_transitions_are_calls_in_turn(self):
    state, rng = start(), jax.random.key(3)
    self.enter_context(draws.fixed())
    path = vcd.transitions(state.generator, rng, _IMAGES, num_steps=2)
    np.testing.assert_array_equal(path[0], _IMAGES)
    x = _IMAGES
    for i in range(2):
      x = state.generator.apply_fn(state.generator.params, rng, x)
      np.testing.assert_allclose(path[i + 1], x, rtol=1e-5, atol=1e-6)
    ends = vcd.sample(state, rng, 8, condition=_IMAGES, num_steps=2)
    np.testing.assert_array_equal(ends, path[-1])

  def test_samples_do_not_depend_on_their_number(self):
    state, rng = start(), jax.random.key(3)
    few, many = (vcd.sample(state, rng, num, num_steps=1) for num in (2, 4))
    self.assertEqual(many.shape, (4, 4, 4, 1))
    np.testing.assert_array_equal(few, many[:2])
    self.assertEqual(vcd.sample(state, rng, 9, num_steps=1).shape[0], 9)


class LearningTest(absltest.TestCase):
  @pytest.mark.slow
  def test_an_autoencoder_of_digits(self):
    """rho = 0 on real digits: half the error of the mean image."""
    source = datasets.digits()
    operator = generators.TransitionOperator(
      shape=(8, 8, 1), latent_dim=32, widths=(8, 16)
    )
    batches = datasets.batches(source, 100, seed=0)
    state = start(operator, next(batches)['image'], optax.adam(3e-3))
    step = jax.jit(functools.partial(vcd.step, rho=0.0))
    for i in range(100):
      state, _ = step(state, next(batches), jax.random.key(i))
    x = datasets.digits('test')[:]['image'][:100]
    back = state.generator.apply_fn(
      state.generator.params, x, method='reconstruct'
    )
    error, spread = np.mean((back - x) ** 2), np.mean((x - x.mean(0)) ** 2)
    self.assertLess(error, 0.5 * spread)


if __name__ == '__main__':
  absltest.main()
