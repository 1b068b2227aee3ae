"""Tests of the densities by quadrature, moments and a literal posterior."""

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
