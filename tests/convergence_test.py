"""R-hat and effective draws by ArviZ: autoregressions, and R-hat's definition."""

import sys
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal
from scipy import stats

from stein_jax import metrics
from stein_jax import samplers


def autoregression(slope, num, seed=0):
  """Returns four chains [4, num] of x' = slope x + noise, at rest, of variance 1."""
  rng = np.random.default_rng(seed)
  noise = (1 - slope**2) ** 0.5 * rng.normal(size=(4, num))
  start = slope * rng.normal(size=(4, 1))
  return signal.lfilter([1], [1, -slope], noise, zi=start)[0]


def r_hat(draws):
  """The larger of V21's two, of ranks and of ranks of distances to the median."""

  def of_ranks(x):
    ranks = stats.rankdata(x).reshape(x.shape)
    z = stats.norm.ppf((ranks - 3 / 8) / (x.size + 1 / 4))
    n = z.shape[1]
    within = np.mean(np.var(z, 1, ddof=1))
    between = n * np.var(z.mean(1), ddof=1)
    return (((n - 1) / n * within + between / n) / within) ** 0.5

  half = draws.shape[1] // 2
  halves = np.concatenate([draws[:, :half], draws[:, -half:]])
  return max(of_ranks(halves), of_ranks(np.abs(halves - np.median(halves))))


class ConvergenceTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    pytest.importorskip('arviz', reason='ArviZ is not installed')

  @parameterized.parameters(0.0, 0.5, -0.5, 0.9)
  def test_draws_of_an_autoregression(self, slope):
    # Of n draws n (1 - a) / (1 + a) are effective. The relative error of such an
    # estimate that sums autocorrelations to lag m is (2 (2 m + 1) / n)^(1/2), and
    # terms count for about 3 / (1 - |a|) lags.
    num = 5000
    found = metrics.convergence(autoregression(slope, num))
    expected = 4 * num * (1 - slope) / (1 + slope)
    error = (2 * (6 / (1 - abs(slope)) + 1) / (4 * num)) ** 0.5
    self.assertAlmostEqual(found['ess_bulk'] / expected, 1, delta=4 * error)
    self.assertLess(found['r_hat'], 1.01)
    self.assertEqual(set(found), {'r_hat', 'ess_bulk', 'ess_tail'})

  @parameterized.parameters(200, 201)
  def test_r_hat_is_its_definition(self, num):
    draws = autoregression(0.5, num)
    moved = draws + np.arange(4)[:, None] / 2
    wider = draws * (1 + np.arange(4)[:, None])
    for x in draws, moved, wider:
      self.assertAlmostEqual(metrics.convergence(x)['r_hat'], r_hat(x), 10)
    for x in moved, wider:
      self.assertGreater(metrics.convergence(x)['r_hat'], 1.1)

  def test_rare_tails_have_fewer_draws(self):
    # Chains that cross from -1 to 1 all the time, and leave for the tails rarely.
    fast, slow = autoregression(0.0, 2000), autoregression(0.99, 2000, seed=1)
    found = metrics.convergence(fast * np.exp(slow))
    self.assertLess(found['ess_tail'], found['ess_bulk'] / 4)

  def test_the_worst_number_of_each_leaf(self):
    good, slow = autoregression(0.0, 500), autoregression(0.9, 500)
    moved = good + np.arange(4)[:, None]
    found = metrics.convergence(
      {'a': np.stack([good, moved, slow], -1), 'b': (jnp.array(slow),)}
    )
    of = metrics.convergence
    expected = {
      'a/r_hat': of(moved)['r_hat'],
      'a/ess_bulk': min(of(moved)['ess_bulk'], of(slow)['ess_bulk']),
      'a/ess_tail': min(of(moved)['ess_tail'], of(slow)['ess_tail']),
      'b/0/r_hat': of(slow)['r_hat'],
      'b/0/ess_bulk': of(slow)['ess_bulk'],
      'b/0/ess_tail': of(slow)['ess_tail'],
    }
    self.assertEqual(set(found), set(expected))
    for name, value in expected.items():
      np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)

  @parameterized.parameters(np.nan, np.inf)
  def test_what_is_not_finite_is_seen(self, bad):
    x = np.stack([autoregression(0.0, 50)] * 3, -1)
    x[1, 7, 2] = bad
    self.assertTrue(np.isnan(list(metrics.convergence(x).values())).all())

  def test_chains_that_stand_still_say_nothing(self):
    x = np.repeat(np.arange(4.0)[:, None], 50, 1)
    self.assertTrue(np.isnan(list(metrics.convergence(x).values())).all())

  def test_the_path_of_a_chain(self):
    law = samplers.target(lambda x: -0.5 * x**2)
    chain = samplers.MALA(0.2)

    def keep(x, rng):
      x, _ = chain(rng, x, law)
      return x, x

    def path(num):
      keys = jax.random.split(jax.random.key(0), num)
      run = jax.jit(lambda keys: jax.lax.scan(keep, start, keys)[1])
      return metrics.convergence(run(keys).T)

    start = jnp.array([-9.0, -3.0, 3.0, 9.0])
    # In 20 steps x goes down by (1 - 0.02)^20 = 2/3.
    self.assertGreater(path(20)['r_hat'], 2)
    found = path(20000)
    self.assertLess(found['r_hat'], 1.02)
    # About 0.01 for each step, as of an autoregression of slope 0.98.
    self.assertBetween(found['ess_bulk'], 400, 1600)


class RefusedTest(parameterized.TestCase):
  @parameterized.parameters(
    (np.zeros(9),),
    (np.zeros((1, 9)),),
    (np.zeros((2, 3)),),
    (np.zeros((2, 9, 0)),),
    ({},),
    ({'a': np.zeros((2, 9)), 'b': np.zeros((3, 9))},),
  )
  def test_shapes(self, draws):
    with self.assertRaisesRegex(ValueError, r'draws has .*\[chains, draws, '):
      metrics.convergence(draws)

  def test_a_missing_package_is_named(self):
    with mock.patch.dict(sys.modules, arviz=None):
      with self.assertRaisesRegex(ModuleNotFoundError, 'pip install arviz'):
        metrics.convergence(np.zeros((2, 9)))


if __name__ == '__main__':
  absltest.main()
