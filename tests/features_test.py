"""Tests of discrepancies by features against sums over pairs in float64."""

import functools
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from stein_jax import kernels
from stein_jax import stein
from stein_jax.stein import _spectrum

_KEY = jax.random.key(0)


def features(x, score, locations, bandwidth):
  """Returns s k + grad_x k of rbf, over the root of J d [n, J d]."""
  gap = x[:, None] - locations
  k = np.exp(-np.sum(gap**2, -1, keepdims=True) / bandwidth)
  values = k * score[:, None] - 2 * gap / bandwidth * k
  return values.reshape(len(x), -1) / locations.size**0.5


def points(n=30, d=3):
  rng = np.random.default_rng(n)
  return (
    rng.normal(size=(n, d)),
    rng.normal(size=(n, d)),
    rng.normal(size=(4, d)),
  )


class FssdTest(parameterized.TestCase):
  @parameterized.parameters(30, 3)
  def test_is_the_mean_over_pairs(self, n):
    x, score, locations = points(n)
    actual = stein.fssd(x, score, locations, kernels.RBF(2.0))
    tau = features(x, score, locations, 2.0)
    products = tau @ tau.T
    expected = (products.sum() - np.trace(products)) / n / (n - 1)
    self.assertAlmostEqual(actual, expected, places=5)

  def test_does_not_depend_on_blocks(self):
    # More points than a block has: what fills the last one must not count.
    x, score, locations = (np.tile(a, (4, 1)) for a in points(30))
    whole = stein.fssd(x, score, locations[:4], kernels.RBF(2.0))
    with mock.patch.object(kernels, 'block_rows', lambda *_: 50):
      in_blocks = stein.fssd(x, score, locations[:4], kernels.RBF(2.0))
    self.assertAlmostEqual(whole, in_blocks, places=5)

  def test_has_mean_zero_under_p(self):
    draws = jax.random.normal(_KEY, (2000, 20, 2))
    _, _, locations = points(d=2)
    of_draw = lambda x: stein.fssd(x, -x, locations, kernels.RBF(2.0))
    found = np.asarray(jax.jit(jax.vmap(of_draw))(draws))
    self.assertLess(abs(found.mean()), 4 * found.std() / 2000**0.5)
    moved = np.asarray(jax.jit(jax.vmap(of_draw))(draws + 1))
    self.assertGreater(moved.mean(), 10 * moved.std() / 2000**0.5)

  def test_of_a_grid_of_locations_is_the_ksd_of_an_integral(self):
    # E_v of the features' products is the Stein kernel of int k(x, v) k(y, v) q(v) dv;
    # of q flat and rbf of width h that is rbf of width 2 h, times (pi h / 2)^(1/2).
    grid = np.linspace(-9, 9, 400)[:, None]
    x, h = np.array([[0.3], [-1.1], [0.9]]), 0.8
    found = stein.fssd(x, -x, grid, kernels.RBF(h)) * 18
    wanted = stein.ksd(x, -x, kernels.RBF(2 * h), unbiased=True)
    self.assertAlmostEqual(found, wanted * (np.pi * h / 2) ** 0.5, delta=2e-3)

  def test_locations_raise_the_power_criterion(self):
    x = np.asarray(jax.random.laplace(_KEY, (500, 1))) / 2**0.5
    kernel = kernels.RBF(kernels.Median(diagonal=False, log='none'))

    def criterion(locations, kernel):
      tau = features(x, -x, np.asarray(locations), float(kernel.bandwidth))
      mean, norm = tau.mean(0), np.sum(tau.mean(0) ** 2)
      fssd = (len(x) * norm - np.mean(np.sum(tau**2, 1))) / (len(x) - 1)
      variance = 4 * np.mean((tau @ mean) ** 2) - 4 * norm**2
      return fssd / np.sqrt(variance + 1e-2)

    found = {
      steps: criterion(
        *jax.jit(
          functools.partial(
            stein.fssd_locations, kernel=kernel, num_steps=steps
          )
        )(_KEY, x, -x)
      )
      for steps in (1, 30)
    }
    self.assertGreater(found[30], 1.1 * found[1])

  def test_p_value_is_of_the_law_of_weighted_squares(self):
    # One feature, x itself with k = 1: n FSSD is (n m^2 - m_2) n / (n - 1), and the
    # law is c (z^2 - 1), c the variance of the points.
    x = np.random.default_rng(1).normal(size=(60, 1)) + 0.2
    flat = lambda sq_dist: jnp.ones_like(sq_dist)
    statistic, p_value = stein.fssd_test(
      _KEY, x, -x, flat, locations=np.zeros((1, 1)), num_draws=20_000
    )
    mean, square = x.mean(), np.mean(x**2)
    expected = (60 * mean**2 - square) * 60 / 59
    self.assertAlmostEqual(statistic, expected, places=4)
    chance = stats.chi2.sf(expected / x.var() + 1, 1)
    error = (chance * (1 - chance) / 20_000) ** 0.5
    self.assertAlmostEqual(p_value, chance, delta=4 * error)

  def test_sees_what_is_between_modes_of_many_points(self):
    x = jax.random.laplace(_KEY, (4000, 3)) / 2**0.5
    test = jax.jit(functools.partial(stein.fssd_test, num_steps=20))
    self.assertLess(test(_KEY, x, -x).p_value, 0.01)
    y = jax.random.normal(_KEY, x.shape)
    self.assertGreater(test(_KEY, y, -y).p_value, 0.01)

  @pytest.mark.slow
  def test_level_with_locations_that_were_learned(self):
    def p_value(rng):
      of_points, of_test = jax.random.split(rng)
      x = jax.random.normal(of_points, (300, 2))
      return stein.fssd_test(
        of_test, x, -x, num_draws=500, num_steps=10
      ).p_value

    keys = jax.random.split(jax.random.key(3), 1000)
    found = jax.jit(lambda keys: jax.lax.map(p_value, keys, batch_size=10))(
      keys
    )
    low, high = stats.binom.interval(0.99, 1000, 0.05)
    self.assertBetween(np.sum(np.asarray(found) <= 0.05), low, high)

  @parameterized.parameters(
    (dict(train_share=1.0), 'train_share=1.0 must be below 1'),
    (dict(train_share=0.01), 'leaves 0 to choose locations and 30 to test'),
    (dict(num_locations=0), 'num_locations=0'),
    (dict(num_draws=0), 'num_draws=0'),
    (dict(locations=np.ones((2, 4))), 'as many dimensions'),
  )
  def test_refuses(self, keywords, message):
    x, score, _ = points()
    with self.assertRaisesRegex(ValueError, message):
      stein.fssd_test(_KEY, x, score, **keywords)


class DtypesTest(absltest.TestCase):
  def test_of_points_and_scores_may_differ(self):
    kernel = kernels.RBF(bandwidth=9.0)
    with jax.enable_x64(True):
      x = np.random.default_rng(0).normal(size=(12, 2))
      narrow = np.float32(x)
      to_0 = lambda x, score: stein.fssd(x, score, jnp.zeros((1, 2)), kernel)
      waves = lambda x, score: stein.random_feature_ksd(_KEY, x, score, kernel)
      direction = lambda x, score: stein.RandomFeatureSVGD(kernel, 9)(
        x, score, rng=_KEY
      )
      for function in (to_0, waves, direction):
        expected = function(x, -x)
        # Both narrow would draw other frequencies.
        for mixed in ((narrow, -x), (x, -narrow)):
          np.testing.assert_allclose(
            function(*mixed), expected, rtol=1e-2, atol=1e-4
          )


class RandomFeaturesTest(parameterized.TestCase):
  @parameterized.parameters(0.0, 3000.0)
  def test_is_the_mean_over_pairs_of_the_stein_kernel_of_waves(self, offset):
    x, score, _ = points(20)
    kernel = kernels.IMQ(3.0)
    w = np.asarray(_spectrum.frequencies(_KEY, 6, kernel, jnp.array(x)))
    # k is the mean of cos(w.g), g = x - y: its slopes are -sin w and sin w, and the
    # trace of its mixed derivatives is |w|^2 cos.
    angle = (x[:, None] - x[None]) @ w.T
    slope = np.mean(np.sin(angle)[..., None] * w, 2)
    u = (
      score @ score.T * np.mean(np.cos(angle), 2)
      + np.einsum('id,ijd->ij', score, slope)
      - np.einsum('jd,ijd->ij', score, slope)
      + np.mean(np.cos(angle) * np.sum(w**2, 1), 2)
    )
    expected = (u.sum() - np.trace(u)) / 20 / 19
    found = stein.random_feature_ksd(
      _KEY, x + offset, score, kernel, num_features=6
    )
    self.assertAlmostEqual(found, expected, delta=2e-5 * (1 + offset / 10))

  @parameterized.parameters(
    kernels.RBF(2.0), kernels.IMQ(2.0), kernels.RationalQuadratic(2.0, 0.5)
  )
  def test_its_mean_is_the_ksd(self, kernel):
    x, score, _ = points(15)
    estimate = lambda rng: stein.random_feature_ksd(
      rng, x, score, kernel, num_features=200
    )
    found = np.asarray(jax.vmap(estimate)(jax.random.split(_KEY, 2000)))
    wanted = stein.ksd(x, score, kernel, unbiased=True)
    error = found.std() / 2000**0.5
    self.assertAlmostEqual(found.mean(), wanted, delta=4 * error)
    self.assertLess(4 * error, 0.2 * abs(wanted))

  def test_sees_tails_of_many_points(self):
    x = jax.random.laplace(_KEY, (4000, 3)) / 2**0.5
    test = jax.jit(stein.random_feature_ksd_test)
    self.assertLess(test(_KEY, x, -x).p_value, 0.01)
    y = jax.random.normal(_KEY, x.shape)
    self.assertGreater(test(_KEY, y, -y).p_value, 0.01)

  @pytest.mark.slow
  def test_level(self):
    def p_value(rng):
      of_points, of_test = jax.random.split(rng)
      x = jax.random.normal(of_points, (500, 2))
      return stein.random_feature_ksd_test(
        of_test, x, -x, num_draws=500
      ).p_value

    keys = jax.random.split(jax.random.key(3), 1000)
    found = jax.jit(lambda keys: jax.lax.map(p_value, keys, batch_size=10))(
      keys
    )
    low, high = stats.binom.interval(0.99, 1000, 0.05)
    self.assertBetween(np.sum(np.asarray(found) <= 0.05), low, high)

  @parameterized.parameters(
    (dict(num_features=0), 'num_features=0'),
    (dict(num_draws=0), 'num_draws=0'),
    (dict(kernel=lambda sq_dist: sq_dist), 'must have random features'),
  )
  def test_refuses(self, keywords, message):
    x, score, _ = points()
    with self.assertRaisesRegex(ValueError, message):
      stein.random_feature_ksd_test(_KEY, x, score, **keywords)


if __name__ == '__main__':
  absltest.main()
