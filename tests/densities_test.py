"""Tests of the densities by quadrature, moments and a literal posterior."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
from jax import flatten_util
import jax.numpy as jnp
import numpy as np
from scipy import special
from scipy import stats

from stein_jax import densities

# Weights {-2: 1/3, 2: 2/3}: mean 2/3, E x^2 = 1 + 4.
# A circle of radius r has covariance r^2 / 2 I; here plus scale^2.
# Var(c (x^2 - 1)) = 2 c^2, and x (x^2 - 1) has mean 0.
_TOYS = {
  'two_modes': (densities.two_modes(), [(-14, 14)], [2 / 3], [[5 - 4 / 9]]),
  'eight_gaussians': (
    densities.eight_gaussians(radius=3.0, scale=0.4),
    [(-7, 7)] * 2,
    [0, 0],
    (3**2 / 2 + 0.4**2) * np.eye(2),
  ),
  'banana': (
    densities.banana(curvature=0.7, scale=0.4),
    [(-6, 6), (-4, 28)],
    [0, 0],
    np.diag([1, 2 * 0.7**2 + 0.4**2]),
  ),
}


class ToyTest(parameterized.TestCase):
  @parameterized.named_parameters((name, *toy) for name, toy in _TOYS.items())
  def test_density_and_draws(self, density, box, mean, covariance):
    with self.subTest('integrates to 1'):
      # Spacing 0.1 at scale 0.4: the trapezoid rule errs by exp(-2 pi^2 4^2).
      axes = [np.arange(*limits, 0.1) for limits in box]
      grid = np.stack(np.meshgrid(*axes), -1).reshape(-1, len(box))
      log_density = jax.jit(jax.vmap(density.log_density))(
        grid.astype(np.float32)
      )
      mass = np.exp(np.asarray(log_density, np.float64)) * 0.1 ** len(box)
      self.assertAlmostEqual(np.sum(mass), 1, delta=1e-5)  # float32 arithmetic
    with self.subTest('moments of the density'):
      np.testing.assert_allclose(mass @ grid, mean, atol=1e-4)
      deviation = grid - mean
      np.testing.assert_allclose(
        (mass * deviation.T) @ deviation, covariance, atol=1e-4
      )
    with self.subTest('moments of the draws'):
      x = np.asarray(density.sample(jax.random.key(0), 20_000), np.float64)
      deviation = x - mean
      products = deviation[:, :, None] * deviation[:, None, :]
      for values, expected in ((x, mean), (products, covariance)):
        error = np.std(values, 0) / np.sqrt(len(x))
        np.testing.assert_array_less(
          np.abs(np.mean(values, 0) - expected), 4 * error
        )
    with self.subTest('starts'):
      center = -10 if len(box) == 1 else 0
      start = density.start(jax.random.key(1), 1000, None)
      self.assertEqual(start.shape, (1000, len(box)))
      self.assertAlmostEqual(
        np.mean(start), center, delta=4 / np.sqrt(start.size)
      )

  def test_banana_bends(self):
    x, y = _TOYS['banana'][0].sample(jax.random.key(0), 20_000).T
    product = np.asarray(x**2 * y)
    # E x^2 y = c E (x^4 - x^2) = 2 c.
    self.assertAlmostEqual(
      product.mean(), 2 * 0.7, delta=4 * product.std() / np.sqrt(20_000)
    )

  @parameterized.parameters(
    (densities.eight_gaussians, dict(radius=0.0), 'radius=0.0'),
    (densities.banana, dict(scale=-1.0), 'scale=-1.0'),
    (densities.logistic_regression, dict(num_examples=0), 'num_examples=0'),
  )
  def test_bad_arguments(self, factory, kwargs, message):
    with self.assertRaisesRegex(ValueError, message):
      factory(**kwargs)


class ArraysTest(parameterized.TestCase):
  _POSITIONS = {
    'mixture': (
      densities.mixture([[0, 1], [3, 2]], np.uint8(20), [1, 2], 0.0),
      np.array([2, 1]),
    ),
    'banana': (densities.banana(), np.array([2, 1])),
  }

  @parameterized.product(
    name=list(_POSITIONS),
    dtype=[np.uint8, np.int8, np.int32, np.float16, jnp.bfloat16, np.float64],
  )
  def test_positions_of_any_dtype(self, name, dtype):
    density, position = self._POSITIONS[name]
    value = density.log_density(position.astype(dtype))
    expected = density.log_density(np.float32(position))
    self.assertEqual(value.dtype, np.float32)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    self.assertTrue(np.isnan(density.log_density(np.float32([np.nan, 1]))))
    with self.assertRaisesRegex(ValueError, r'position.*\(1,\).*\(2,\)'):
      density.log_density(np.ones(1))

  def test_a_mixture_of_integers(self):
    # 20^2 would be 144 in eight bits.
    density = self._POSITIONS['mixture'][0]
    parts = stats.norm([[0, 1], [3, 2]], 20).pdf([2, 1]).prod(1)
    np.testing.assert_allclose(
      density.log_density(np.array([2, 1])),
      np.log(parts @ [1 / 3, 2 / 3]),
      rtol=1e-6,
    )
    x = density.sample(jax.random.key(0), 3)
    self.assertEqual((x.dtype, x.shape), (np.float32, (3, 2)))

  @parameterized.parameters(
    (dict(weights=[1.0, -2.0]), r'weights\[1\]=-2.0'),
    (dict(weights=[1.0, np.nan]), r'weights\[1\]=nan'),
    (dict(weights=[0.0, 0.0]), r'sum\(weights\)=0.0'),
    (dict(weights=[1.0]), r'weights.*\(1,\).*\(2,\)'),
    (dict(means=[0.0, 1.0]), r'means.*\(2,\).*\[k, d\]'),
    (dict(scale=0), 'scale=0'),
  )
  def test_refuses_what_is_no_mixture(self, wrong, message):
    right = dict(means=[[0.0], [1.0]], scale=1.0, weights=[1, 1], start=0.0)
    with self.assertRaisesRegex(ValueError, message):
      densities.mixture(**{**right, **wrong})

  def test_a_mixture_is_made_inside_jit(self):
    make = lambda means: densities.mixture(means, 1.0, [1.0, 2.0], 0.0)
    value = jax.jit(lambda means: make(means).log_density(jnp.ones(1)))
    means = jnp.array([[0.0], [1.0]])
    np.testing.assert_allclose(
      value(means), make(means).log_density(jnp.ones(1)), rtol=1e-6
    )


class LogisticRegressionTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    self.batch = {
      'image': rng.normal(size=(12, 3)),
      'label': rng.integers(0, 2, size=12),
    }
    self.positions = [
      {'weights': rng.normal(size=4), 'log_precision': rng.normal()}
      for _ in range(4)
    ]
    self.density = densities.logistic_regression(12)

  def literal(self, weights, log_precision):
    """log p(labels | weights) p(weights | alpha) p(alpha) |d alpha / d log alpha|."""
    inputs = np.concatenate([self.batch['image'], np.ones((12, 1))], 1)
    probability = special.expit(inputs @ weights)
    alpha = np.exp(log_precision)
    return (
      np.sum(stats.bernoulli.logpmf(self.batch['label'], probability))
      + np.sum(stats.norm.logpdf(weights, scale=alpha**-0.5))
      + stats.gamma.logpdf(alpha, a=1, scale=1 / 0.01)
      + log_precision
    )

  def test_log_density_up_to_a_constant(self):
    difference = [
      self.density.log_density(p, self.batch) - self.literal(**p)
      for p in self.positions
    ]
    np.testing.assert_allclose(difference, difference[0], rtol=1e-12)

  def test_gradient_by_finite_differences(self):
    gradient_fn = jax.jit(jax.grad(self.density.log_density))
    for position in self.positions:
      gradient = gradient_fn(position, self.batch)
      flat, unravel = flatten_util.ravel_pytree(position)
      at = lambda flat: self.literal(**unravel(flat))
      step = 1e-5  # errs by step^2 and, of values near 10, 1e-15 / step
      expected = [
        (at(flat + axis) - at(flat - axis)) / (2 * step)
        for axis in step * np.eye(flat.size)
      ]
      np.testing.assert_allclose(
        flatten_util.ravel_pytree(gradient)[0], expected, atol=1e-8
      )

  def test_minibatches_are_unbiased(self):
    for position in self.positions:
      parts = [
        self.density.log_density(
          position, {name: rows[i::3] for name, rows in self.batch.items()}
        )
        for i in range(3)
      ]
      self.assertGreater(np.ptp(parts), 0.1)
      np.testing.assert_allclose(
        np.mean(parts),
        self.density.log_density(position, self.batch),
        rtol=1e-12,
      )

  def test_labels_of_bytes(self):
    # 2 y - 1 would be 255 in eight bits.
    label = self.batch['label'].astype(np.uint8)
    batch = {**self.batch, 'label': label}
    np.testing.assert_array_equal(
      self.density.log_density(self.positions[0], batch),
      self.density.log_density(self.positions[0], self.batch),
    )

  def test_labels_that_are_no_class(self):
    value = lambda label: self.density.log_density(
      self.positions[0], {**self.batch, 'label': label}
    )
    label = self.batch['label']
    for wrong, message in (
      (1.0 * label, 'float64.*integers'),
      (label + 1, 'label=2'),
      (label - 1, 'label=-1'),
      (label[:3], r'image.*\(12, 3\).*\(3, 3\)'),
    ):
      with self.assertRaisesRegex(ValueError, message):
        value(wrong)
    for wrong in (label + 1, label - 1):
      self.assertTrue(np.isnan(jax.jit(value)(wrong)))
    with self.assertRaisesRegex(ValueError, 'label=-1 must be 0 or 1'):
      start = functools.partial(self.density.start, jax.random.key(0), 4)
      start({**self.batch, 'label': label - 1})

  def test_start(self):
    start = self.density.start(jax.random.key(0), 500, self.batch)
    shapes = jax.tree.map(jnp.shape, start)
    self.assertEqual(shapes, {'weights': (500, 4), 'log_precision': (500,)})
    for leaf in jax.tree.leaves(start):
      # The error of a standard deviation is 1 / sqrt(2 n) of it.
      self.assertAlmostEqual(
        np.std(leaf), 0.1, delta=0.4 / np.sqrt(2 * leaf.size)
      )


if __name__ == '__main__':
  absltest.main()
