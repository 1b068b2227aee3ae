"""Tests of the maximum mean discrepancy against loops over pairs in float64."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from stein_jax import kernels
from stein_jax import stein

_KEY = jax.random.key(0)


def literal_mmd(x, y, bandwidth):
  """Returns the discrepancy of rbf [], by loops over pairs of different points."""
  k = lambda a, b: np.exp(-np.sum((a - b) ** 2) / bandwidth)
  within = lambda z: np.mean(
    [k(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j]
  )
  return within(x) + within(y) - 2 * np.mean([k(a, b) for a in x for b in y])


def samples(n=9, m=6, d=2):
  rng = np.random.default_rng(0)
  return rng.normal(size=(n, d)), 0.5 + rng.normal(size=(m, d))


class MmdTest(parameterized.TestCase):
  @parameterized.parameters(None, 4)
  def test_is_the_mean_over_pairs(self, block_size):
    x, y = samples()
    found = stein.mmd(x, y, kernels.RBF(2.0), block_size=block_size)
    self.assertAlmostEqual(found, literal_mmd(x, y, 2.0), places=5)

  def test_of_sets_of_two_sizes_has_mean_zero(self):
    x = jax.random.normal(_KEY, (2000, 15, 1))
    of_draw = lambda x: stein.mmd(x[:5], x[5:], kernels.RBF(1.0))
    found = np.asarray(jax.jit(jax.vmap(of_draw))(x))
    self.assertLess(abs(found.mean()), 4 * found.std() / 2000**0.5)

  def test_a_rule_sees_both_sets(self):
    # So that a permutation leaves the bandwidth.
    x, y = samples()
    rule = kernels.Median(diagonal=False, log='none')
    found = stein.mmd_test(_KEY, x, y, kernels.RBF(rule), num_permutations=3)
    pool = np.concatenate([x, y])
    sq_dist = np.sum((pool[:, None] - pool[None]) ** 2, -1)
    expected = np.median(sq_dist[np.triu_indices(15, 1)])
    np.testing.assert_allclose(found.rows['bandwidth'], expected, rtol=1e-5)
    self.assertAlmostEqual(found[0], literal_mmd(x, y, expected), places=5)

  def test_p_value_is_that_of_all_splits(self):
    # 6 points into 4 and 2: fifteen splits, of which random ones are draws.
    x, y = samples(4, 2)
    pool = np.concatenate([x, y])
    seen = literal_mmd(x, y, 2.0)
    every = [
      literal_mmd(np.delete(pool, [i, j], 0), pool[[i, j]], 2.0)
      for i in range(6)
      for j in range(i)
    ]
    share, num = np.mean(np.array(every) >= seen - 1e-9), 20_000
    found = stein.mmd_test(_KEY, x, y, kernels.RBF(2.0), num_permutations=num)
    error = (share * (1 - share) / num) ** 0.5
    self.assertAlmostEqual(found.p_value, share, delta=4 * error + 1 / num)

  def test_points_that_are_all_equal_have_one_law(self):
    x, y = np.ones((5, 2)), np.ones((4, 2))
    for test in (stein.mmd_test, stein.aggregated_mmd_test):
      found = test(_KEY, x, y, kernels.RBF(1.0), num_permutations=50)
      self.assertEqual(found.p_value, 1)

  def test_aggregated_is_made_of_single_tests(self):
    x, y = samples(20, 12)
    scales, options = (0.2, 1.0, 5.0), dict(num_permutations=99)
    found = stein.aggregated_mmd_test(
      _KEY, x, y, kernels.RBF(2.0), scales=scales, **options
    )
    singles = [
      stein.mmd_test(_KEY, x, y, kernels.RBF(2 * scale), **options)
      for scale in scales
    ]
    np.testing.assert_allclose(
      found.rows['statistic'], [s.statistic for s in singles], atol=1e-6
    )
    p_values = [float(s.p_value) for s in singles]
    np.testing.assert_allclose(found.rows['p_value'], p_values, rtol=1e-6)
    self.assertAlmostEqual(found.statistic, min(p_values), places=6)
    self.assertBetween(found.p_value, min(p_values), 3 * min(p_values))

  @pytest.mark.slow
  def test_levels_of_sets_of_two_sizes(self):
    def p_values(rng):
      of_points, of_test = jax.random.split(rng)
      x = jax.random.normal(of_points, (30, 1))
      tests = stein.mmd_test, stein.aggregated_mmd_test
      return jnp.stack(
        [
          t(of_test, x[:20], x[20:], num_permutations=199).p_value
          for t in tests
        ]
      )

    keys = jax.random.split(_KEY, 1000)
    found = jax.jit(lambda keys: jax.lax.map(p_values, keys, batch_size=10))(
      keys
    )
    low, high = stats.binom.interval(0.99, 1000, 0.05)
    for count in np.sum(np.asarray(found) <= 0.05, 0):
      self.assertBetween(count, low, high)

  @pytest.mark.slow
  def test_finds_what_the_median_misses(self):
    def share(test):
      def p_value(rng):
        of_x, of_y, of_test = jax.random.split(rng, 3)
        x = jax.random.normal(of_x, (150, 5))
        y = jax.random.laplace(of_y, (150, 5)) / 2**0.5
        return test(of_test, x, y, num_permutations=199).p_value

      keys = jax.random.split(_KEY, 40)
      found = jax.jit(lambda k: jax.lax.map(p_value, k, batch_size=10))(keys)
      return np.mean(np.asarray(found) <= 0.05)

    self.assertLess(share(stein.mmd_test), 0.4)
    self.assertGreater(share(stein.aggregated_mmd_test), 0.4)

  @parameterized.parameters(
    functools.partial(stein.mmd, kernel=kernels.rbf),
    functools.partial(stein.mmd_test, _KEY),
    functools.partial(stein.aggregated_mmd_test, _KEY),
  )
  def test_refuses(self, function):
    with self.assertRaisesRegex(ValueError, r'len\(y\)=1 must be at least 2'):
      function(np.ones((3, 2)), np.ones((1, 2)))
    with self.assertRaisesRegex(ValueError, 'as many dimensions'):
      function(np.ones((3, 2)), np.ones((3, 1)))


if __name__ == '__main__':
  absltest.main()
