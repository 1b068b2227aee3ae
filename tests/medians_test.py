"""The median of squared distances is that of `numpy.median`, bit for bit.

The points are small integers about zero, so that every distance is exact.
"""

import functools
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from stein_jax import _medians

FEW = _medians._ONE_BLOCK


@functools.partial(jax.jit, static_argnames=('diagonal', 'block_size'))
def _actual(x, **options):
  return _medians.median_squared_distance(x, **options)


def _expected(x, diagonal=True):
  norms = np.sum(x * x, 1)
  sq_dist = norms[:, None] + norms[None] - 2 * x @ x.T
  return np.median(sq_dist[diagonal | ~np.eye(len(x), dtype=bool)])


def _points(n, d=3, *, high=50, seed=0):
  return np.random.default_rng(seed).integers(-high, high, (n, d)).astype(float)


class MedianTest(parameterized.TestCase):
  @parameterized.product(
    n=[2, 3, 10, 16, 17, FEW, FEW + 1, 1030],
    diagonal=[True, False],
  )
  def test_is_that_of_numpy(self, n, diagonal):
    x = _points(n)
    actual = _actual(jnp.array(x, jnp.float32), diagonal=diagonal)
    self.assertEqual(actual, _expected(x, diagonal))

  @parameterized.product(kind=['same', 'one_apart', 'two'], n=[2, 9, 16])
  def test_few_points_that_coincide(self, kind, n):
    row = np.arange(n)
    x = dict(same=0 * row, one_apart=(row == 1) * 30, two=row % 2 * 40)[kind]
    x = x[:, None].astype(float)
    for diagonal in (True, False):
      actual = _actual(jnp.array(x, jnp.float32), diagonal=diagonal)
      self.assertEqual(actual, _expected(x, diagonal))

  @parameterized.parameters(np.nan, np.inf)
  def test_few_points_that_are_not_finite(self, bad):
    x = _points(7).astype(np.float32)
    x[3, 1] = bad
    self.assertTrue(np.isnan(_actual(x)))

  @parameterized.parameters((7, 1), (7, 5), (600, 64), (600, 1000))
  def test_is_that_of_numpy_by_blocks(self, n, block_size):
    x = _points(n)
    actual = _actual(jnp.array(x, jnp.float32), block_size=block_size)
    self.assertEqual(actual, _expected(x))

  @parameterized.named_parameters(
    ('two_values', np.arange(900) % 2 * 40.0),
    ('sorted', np.arange(-450, 450.0)),
    ('clumps', np.repeat([-30.0, 0, 1, 30], [300, 200, 200, 200])),
    ('one_apart', np.where(np.arange(900) == 5, 30.0, 0)),
    ('same', np.zeros(900)),
  )
  def test_where_the_sample_misleads(self, x):
    x = x[:, None]
    for diagonal in (True, False):
      actual = _actual(jnp.array(x, jnp.float32), diagonal=diagonal)
      self.assertEqual(actual, _expected(x, diagonal))

  def test_in_float64(self):
    x = _points(700, high=2**20)  # distances need more than 24 bits
    with jax.enable_x64(True):
      self.assertEqual(_actual(jnp.array(x)), _expected(x))

  def test_of_more_than_is_kept(self):
    x = _points(1031)
    with mock.patch.object(_medians, '_STORED_ENTRIES', 0):
      actual = jax.jit(_medians.median_squared_distance)(
        jnp.array(x, jnp.float32)
      )
    self.assertEqual(actual, _expected(x))

  def test_of_many_densities_at_once(self):
    x = np.stack([_points(30, seed=seed) for seed in range(3)])
    many = jax.jit(jax.vmap(_medians.median_squared_distance))(
      jnp.array(x, jnp.float32)
    )
    np.testing.assert_array_equal(many, list(map(_expected, x)))


if __name__ == '__main__':
  absltest.main()
