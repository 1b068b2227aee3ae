"""Tests of the tests: levels, powers, and literal forms of what is ranked."""

import math

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from stein_jax import kernels
from stein_jax import stein
from stein_jax.stein import _draws
from stein_jax.stein import goodness_of_fit
from tests import literal

_KEY = jax.random.key(0)
_MEDIAN = kernels.IMQ(kernels.Median(diagonal=False, log='none'))


def p_values(test, law, num, n, d, seed=7):
  """Returns p-values [num] of draws of a law [n, d] against N(0, I)."""

  def once(rng):
    of_points, of_test = jax.random.split(rng)
    x = law(of_points, (n, d))
    return test(of_test, x, -x).p_value

  keys = jax.random.split(jax.random.key(seed), num)
  return np.asarray(
    jax.jit(lambda k: jax.lax.map(once, k, batch_size=10))(keys)
  )


def assert_level(found, level=0.05):
  """The share of p-values up to the level lies in its binomial interval of 99 %."""
  low, high = stats.binom.interval(0.99, len(found), level)
  count = np.sum(found <= level)
  assert low <= count <= high, (
    f'{count} of {len(found)}, not in {low} to {high}'
  )


def laplace(rng, shape):
  """Returns draws of a Laplace law of variance 1."""
  return jax.random.laplace(rng, shape) / 2**0.5


def u_statistics(x, score, bandwidths, signs):
  """Returns the sum of w_i w_j u(x_i, x_j) over i != j, over n (n - 1) [k, b]."""
  n = len(x)
  rows = []
  for h in bandwidths:
    u = literal.imq_stein_matrix(x, score, h) * (1 - np.eye(n))
    rows.append([w @ u @ w / n / (n - 1) for w in signs])
  return np.array(rows)


def rejects(values, level):
  """Returns the decision of [SGG22 alg 1], by bisection, on values [k, b]."""
  num_tests, num = values.shape
  ordered, weight = np.sort(values), 1 / num_tests

  def exceeds(u, columns):
    place = math.ceil(num * (1 - u * weight) - 1e-9) - 1
    return (values[:, columns] > ordered[:, place, None]).any(0)

  low, high = 0.0, 1 / weight
  for _ in range(50):
    middle = (low + high) / 2
    if np.mean(exceeds(middle, slice(None))) <= level:
      low = middle
    else:
      high = middle
  return bool(exceeds(low, [0])[0])


class AggregatedTest(parameterized.TestCase):
  def points(self, n=40, d=2):
    x = np.random.default_rng(n).normal(size=(n, d)).astype(np.float32)
    return x, (-1.3 * x).astype(np.float32)

  def test_p_value_is_the_least_level_at_which_the_paper_rejects(self):
    rng = np.random.default_rng(0)
    decisions = []
    for shift in (0, 1, 1.5, 2, 2.5, 3):
      common = rng.normal(size=(1, 200))
      values = common + rng.normal(size=(4, 200)) * [[0.1], [1], [2], [3]]
      values[1, 0] += shift
      *_, p_value = _draws.aggregated(jnp.array(values))
      for level in (0.0101, 0.0501, 0.2001):
        self.assertEqual(p_value <= level, rejects(values, level))
        decisions.append(bool(p_value <= level))
    self.assertBetween(np.mean(decisions), 0.2, 0.8)

  @parameterized.parameters(None, 7)
  def test_is_its_definition(self, block_size):
    x, score = self.points()
    scales, num = (0.1, 1.0, 4.0), 50
    found = jax.jit(
      lambda x, score: stein.aggregated_ksd_test(
        _KEY,
        x,
        score,
        kernels.IMQ(2.0),
        scales=scales,
        num_bootstrap=num,
        block_size=block_size,
      )
    )(x, score)
    bandwidths = 2 * np.array(scales)
    signs = np.asarray(_draws.signs(_KEY, num, len(x), 0.5, np.float32))
    values = u_statistics(x, score, bandwidths, signs)
    of_each = np.mean(values >= values[:, :1], 1)
    ranks = np.mean(values[:, None] >= values[:, :, None], -1).min(0)
    np.testing.assert_allclose(found.rows['bandwidth'], bandwidths, rtol=1e-6)
    np.testing.assert_allclose(
      found.rows['statistic'], values[:, 0], atol=1e-5 * np.abs(values).max()
    )
    np.testing.assert_allclose(found.rows['p_value'], of_each, rtol=1e-6)
    self.assertAlmostEqual(found.statistic, min(of_each), places=6)
    self.assertAlmostEqual(found.p_value, np.mean(ranks <= ranks[0]), places=6)

  def test_of_one_bandwidth_is_the_single_test(self):
    x, score = self.points()
    found = stein.aggregated_ksd_test(_KEY, x, score, scales=(1.0,))
    self.assertEqual(found.p_value, found.rows['p_value'][0])

  def test_does_not_depend_on_the_order_of_bandwidths(self):
    x, score = self.points()
    p_value = lambda scales: (
      stein.aggregated_ksd_test(
        _KEY, x, score, scales=scales, num_bootstrap=200
      ).p_value
    )
    self.assertEqual(p_value((0.1, 1.0, 10.0)), p_value((10.0, 0.1, 1.0)))

  def test_does_not_depend_on_the_unit(self):
    x, score = self.points()
    first, second = (
      stein.aggregated_ksd_test(_KEY, x * unit, score / unit).p_value
      for unit in (1.0, np.float32(2.0**-20))
    )
    self.assertEqual(first, second)

  def test_finds_what_the_median_misses(self):
    # In five dimensions the median is far wider than where the laws differ.
    single = lambda *a: stein.ksd_test(*a, _MEDIAN, num_bootstrap=300)
    several = lambda *a: stein.aggregated_ksd_test(*a, num_bootstrap=300)
    share = lambda test: np.mean(p_values(test, laplace, 40, 150, 5) <= 0.05)
    self.assertLess(share(single), 0.35)
    self.assertGreater(share(several), 0.5)

  @parameterized.parameters((200, 1), (100, 5))
  @pytest.mark.slow
  def test_level(self, n, d):
    test = lambda *a: stein.aggregated_ksd_test(*a, num_bootstrap=500)
    assert_level(p_values(test, jax.random.normal, 1000, n, d))

  def test_of_a_chain(self):
    # As in the test of one bandwidth: x_t = 0.8 x_{t-1} + 0.6 noise.
    noise = jax.random.normal(_KEY, (101, 100, 1))
    along = lambda x, noise: 2 * (0.8 * x + 0.6 * noise,)
    x = jnp.swapaxes(jax.lax.scan(along, noise[0], noise[1:])[1], 0, 1)
    keys = jax.random.split(_KEY, len(x))
    independent, persistent = (
      np.mean(
        jax.jit(
          jax.vmap(
            lambda rng, x: (
              stein.aggregated_ksd_test(
                rng, x, -x, num_bootstrap=300, flip_probability=chance
              ).p_value
            )
          )
        )(keys, x)
        <= 0.05
      )
      for chance in (0.5, 0.05)
    )
    self.assertGreater(independent, 0.3)
    self.assertLess(persistent, 0.05 + 4 * (0.05 * 0.95 / 100) ** 0.5)

  def test_of_nan_is_nan(self):
    x, score = self.points()
    score[3, 1] = np.nan
    found = stein.aggregated_ksd_test(_KEY, x, score)
    self.assertTrue(np.isnan(found.statistic) and np.isnan(found.p_value))

  @parameterized.parameters(
    (dict(scales=()), r'scales has shape \(0,\)'),
    (dict(scales=(1.0, -2.0)), r'scales\[1\]=-2.0 must be a positive number'),
    (dict(num_bootstrap=0), 'num_bootstrap=0'),
    (dict(flip_probability=0.6), 'flip_probability=0.6'),
  )
  def test_refuses(self, keywords, message):
    x, score = self.points()
    with self.assertRaisesRegex(ValueError, message):
      stein.aggregated_ksd_test(_KEY, x, score, **keywords)

  def test_refuses_a_kernel_without_a_bandwidth(self):
    x, score = self.points()
    with self.assertRaisesRegex(
      TypeError, 'allowed: a kernel with a bandwidth'
    ):
      stein.aggregated_ksd_test(
        _KEY, x, score, lambda sq_dist: 1 / (1 + sq_dist)
      )


class LevelTest(parameterized.TestCase):
  @parameterized.named_parameters(
    ('the_median', _MEDIAN), ('the_median_over_log', kernels.IMQ())
  )
  @pytest.mark.slow
  def test_of_one_bandwidth(self, kernel):
    test = lambda *a: stein.ksd_test(*a, kernel, num_bootstrap=500)
    assert_level(p_values(test, jax.random.normal, 1000, 100, 2))

  @pytest.mark.slow
  def test_of_many_blocks(self):
    test = lambda _, x, score: stein.block_ksd_test(
      x, score, points_per_block=5
    )
    assert_level(p_values(test, jax.random.normal, 1000, 5000, 2))

  @pytest.mark.slow
  def test_of_few_blocks_is_cautious(self):
    # Values of blocks are skewed to the right, and so their t to the left.
    test = lambda _, x, score: stein.block_ksd_test(x, score)
    found = p_values(test, jax.random.normal, 1000, 2500, 2)
    self.assertBetween(np.mean(found <= 0.05), 0.01, 0.05)


class FormsTest(parameterized.TestCase):
  @parameterized.product(n=[1, 2, 3, 64, 65, 130], block_size=[None, 1, 50])
  def test_are_quadratic_forms(self, n, block_size):
    rng = np.random.default_rng(n)
    x, score = rng.normal(size=(2, n, 3)).astype(np.float32)
    weights = rng.normal(size=(4, n)).astype(np.float32)
    own = rng.normal(size=n).astype(np.float32)
    forms = jax.jit(
      lambda *arrays: _draws.stein_forms(
        *arrays[:3], kernels.IMQ(2.0), arrays[3], block_size
      )
    )
    u = literal.imq_stein_matrix(x, score, 2.0)
    np.fill_diagonal(u, own)
    np.testing.assert_allclose(
      forms(weights, x, score, own),
      np.einsum('ki,ij,kj->k', weights, u, weights),
      atol=3e-6 * np.sum(np.abs(u)),
    )
    # What depends on a point that is nan is nan.
    spoilt = x.copy()
    spoilt[-1, 0] = np.nan
    if n > 1:
      self.assertTrue(np.all(np.isnan(forms(weights, spoilt, score, own))))


class BlockTest(parameterized.TestCase):
  def test_is_its_definition(self):
    # 23 points in blocks of 4: three are left out.
    x = np.random.default_rng(0).normal(size=(23, 3)).astype(np.float32)
    statistic, p_value = stein.block_ksd_test(
      x, -1.1 * x, kernels.IMQ(2.0), points_per_block=4
    )
    u = literal.imq_stein_matrix(x, -1.1 * x, 2.0)
    values = []
    for start in range(0, 20, 4):
      block = u[start : start + 4, start : start + 4]
      values.append((block.sum() - np.trace(block)) / 12)
    expected = np.mean(values) / (np.std(values, ddof=1) / 5**0.5)
    self.assertAlmostEqual(statistic, expected, places=4)
    self.assertAlmostEqual(p_value, stats.norm.sf(expected), places=5)

  def test_of_pairs_is_normal_under_p(self):
    test = lambda rng, x, score: stein.block_ksd_test(
      x, score, kernels.IMQ(1.0), points_per_block=2
    )
    found = p_values(test, jax.random.normal, 1000, 200, 1)
    self.assertGreater(stats.kstest(found, 'uniform').pvalue, 0.001)
    assert_level(found)

  def test_larger_blocks_see_more(self):
    def power(size):
      test = lambda rng, x, score: stein.block_ksd_test(
        x, score, kernels.IMQ(1.0), points_per_block=size
      )
      return np.mean(p_values(test, laplace, 60, 900, 1) <= 0.05)

    self.assertLess(power(2), 0.5)
    self.assertGreater(power(None), 0.8)

  def test_has_no_seed_to_report(self):
    x = jnp.arange(12.0).reshape(6, 2)
    report = stein.block_ksd_test(x, -x, points_per_block=3).report()
    self.assertIn('2 of 3 points', report)
    self.assertNotIn('seed', report)

  def test_of_blocks_that_are_alike_is_nan(self):
    x = np.tile([[1.0], [3.0]], (3, 1))
    _, p_value = stein.block_ksd_test(x, x, points_per_block=2)
    self.assertTrue(np.isnan(p_value))

  def test_is_never_0(self):
    x = 3 + np.random.default_rng(0).normal(size=(4000, 1))
    statistic, p_value = stein.block_ksd_test(x, -x)
    self.assertGreater(statistic, 40)  # where the normal tail is below floats
    self.assertGreater(p_value, 0)

  @parameterized.parameters(
    (1, 'points_per_block=1 must be at least 2'),
    (4, 'points_per_block=4 makes 1 blocks of 6 points; two are needed'),
  )
  def test_refuses(self, size, message):
    x = np.ones((6, 2))
    with self.assertRaisesRegex(ValueError, message):
      stein.block_ksd_test(x, x, points_per_block=size)


def fit_normal(x):
  """Returns mean and standard deviation, each [1, 1]."""
  return jnp.mean(x, keepdims=True), jnp.std(x, keepdims=True)


def score_of_normal(found, x):
  mean, spread = found
  return (mean - x) / spread**2


def draw_normal(rng, found, n):
  mean, spread = found
  return mean + spread * jax.random.normal(rng, (n, 1))


class CompositeTest(parameterized.TestCase):
  def result(self, rng, x, _=None, num=99):
    return stein.composite_ksd_test(
      rng, x, fit_normal, score_of_normal, draw_normal, num_bootstrap=num
    )

  def shares(self, law, num, n=60):
    found = p_values(self.result, law, num, n, 1)
    return np.mean(found <= 0.05)

  def test_statistic_is_of_the_fitted_member(self):
    x = 3 + 2 * np.random.default_rng(0).normal(size=(40, 1))
    sq_dist = (x - x.T) ** 2
    median = np.median(sq_dist[np.triu_indices(40, 1)])
    u = literal.imq_stein_matrix(x, (x.mean() - x) / x.var(), median)
    found = self.result(_KEY, x, num=3)
    self.assertAlmostEqual(found.statistic, 40 * u.mean(), places=3)

  def test_sees_what_the_family_lacks(self):
    # Of 60 points with two modes. Any mean and any unit will do.
    def modes(rng, shape):
      of_mode, of_noise = jax.random.split(rng)
      side = jax.random.rademacher(of_mode, shape, jnp.float32)
      return 10 + 3 * (side + 0.3 * jax.random.normal(of_noise, shape))

    self.assertGreater(self.shares(modes, 20), 0.9)

  @pytest.mark.slow
  def test_level(self):
    normal = lambda rng, shape: 4 + 3 * jax.random.normal(rng, shape)
    found = p_values(self.result, normal, 1000, 60, 1)
    assert_level(found)
    # A test of the member alone, without fitting the draws, hardly ever rejects.
    alone = lambda rng, x, _: stein.ksd_test(
      rng,
      x,
      score_of_normal(fit_normal(x), x),
      _MEDIAN,
      num_bootstrap=99,
    )
    found = p_values(alone, normal, 1000, 60, 1)
    self.assertLess(np.mean(found <= 0.05), 0.005)

  def test_of_draws_that_are_nan_is_nan(self):
    # A draw that no comparison holds for would count as one below the statistic.
    draw = lambda rng, found, n: jnp.full((n, 1), jnp.nan)
    x = np.arange(9.0)[:, None]
    statistic, p_value = stein.composite_ksd_test(
      _KEY, x, fit_normal, score_of_normal, draw, num_bootstrap=9
    )
    self.assertTrue(np.isfinite(statistic))
    self.assertTrue(np.isnan(p_value))

  def test_refuses_draws_of_another_shape(self):
    draw = lambda rng, found, n: jnp.zeros(n)
    with self.assertRaisesRegex(ValueError, r'sample has shape \(9,\)'):
      stein.composite_ksd_test(
        _KEY, np.arange(9.0)[:, None], fit_normal, score_of_normal, draw
      )


class ReportTest(absltest.TestCase):
  def result(self):
    x = jnp.arange(6.0).reshape(3, 2)
    return jax.jit(
      lambda rng: stein.aggregated_ksd_test(
        rng, x, -x, kernels.IMQ(2.0), scales=(0.5, 1.0), num_bootstrap=9
      )
    )(jax.random.key(5))

  def test_says_what_the_test_depends_on(self):
    found = self.result()
    title, *lines = found.report().splitlines()
    self.assertIn('aggregated over bandwidths', title)
    said = [' '.join(line.split()) for line in lines]
    self.assertEqual(
      said[:5],
      [
        'points 3 in 2 dimensions',
        'kernel IMQ(exponent=-0.5)',
        'draws 9',
        'flip probability 0.5',
        'seed 0 5',
      ],
    )
    self.assertEqual(said[5], f'statistic {float(found.statistic):.6g}')
    self.assertEqual(said[6], f'p-value {float(found.p_value):.4g}')
    self.assertEqual(said[7], 'bandwidth p_value statistic')
    self.assertEqual([row.split()[0] for row in said[8:]], ['1', '2'])

  def test_comes_apart_into_statistic_and_p_value(self):
    found = self.result()
    statistic, p_value = found
    self.assertEqual((statistic, p_value), (found.statistic, found.p_value))
    self.assertEqual((found[0], found[1]), (statistic, p_value))
    self.assertLen(found, 2)

  def test_of_many_tests_asks_for_one(self):
    x = jnp.ones((3, 2))
    test = lambda rng: stein.ksd_test(rng, x, -x, kernels.imq, num_bootstrap=3)
    found = jax.vmap(test)(jax.random.split(_KEY, 4))
    with self.assertRaisesRegex(ValueError, r'of \(4,\) tests; take one by'):
      found.report()
    one = jax.tree.map(lambda leaf: leaf[2], found)
    self.assertIn('kernel            imq', one.report())

  def test_the_scales_span_a_thousandth_of_the_median_to_ten_times_it(self):
    scales = np.array(goodness_of_fit.SCALES)
    np.testing.assert_allclose(scales[[0, -1]], [1e-3, 10])
    np.testing.assert_allclose(scales[1:] / scales[:-1], 10 ** (4 / 9))


if __name__ == '__main__':
  absltest.main()
