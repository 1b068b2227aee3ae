"""Tests of thinning against a literal greedy loop in float64."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from stein_jax import kernels
from stein_jax import stein
from tests import literal

_PLAIN = dict(standardize=False)


def chain(n=120, d=3, seed=0):
  """Returns the states [n, d] of a chain from a far start, and scores of N(0, S)."""
  rng, scale = np.random.default_rng(seed), np.linspace(0.5, 2, d)
  x, states = np.full(d, 5.0), []
  for _ in range(n):
    new = x + rng.normal(size=d) / 2
    gain = np.sum((x / scale) ** 2 - (new / scale) ** 2) / 2
    if np.log(rng.uniform()) < gain:
      x = new  # a state is kept where the proposal is not: some are equal
    states.append(x)
  states = np.array(states)
  return states, -states / scale**2


def stein_kernel(x, y, score_x, score_y, metric):
  """Returns u(x, y) [] of (1 + (x - y)' G (x - y))^(-1/2), term by term."""
  gap = x - y
  base = 1 + gap @ metric @ gap
  pull = metric @ gap
  slope, curve = -0.5 * base**-1.5, 0.75 * base**-2.5
  return (
    base**-0.5 * (score_x @ score_y)
    + 2 * slope * ((score_y - score_x) @ pull - np.trace(metric))
    - 4 * curve * (pull @ pull)
  )


def greedy(x, score, num, metric, *, extra=0.0, reward=0.0, weight=None):
  """Returns indices [num] and squared KSDs [num], from all of the Stein matrix."""
  n = len(x)
  weight = np.ones(n) if weight is None else weight
  u = np.array(
    [
      [
        weight[i]
        * weight[j]
        * stein_kernel(x[i], x[j], score[i], score[j], metric)
        for j in range(n)
      ]
      for i in range(n)
    ]
  )
  taken, ksd = [], []
  for t in range(1, num + 1):
    objective = np.diag(u) + 2 * u[:, taken].sum(1) + extra - t * reward
    taken.append(int(np.argmin(objective)))
    ksd.append(u[np.ix_(taken, taken)].mean())
  return taken, ksd


def median_of(x):
  """Returns the median squared distance [] of distinct pairs."""
  sq_dist = np.sum((x[:, None] - x[None]) ** 2, -1)
  return np.median(sq_dist[np.triu_indices(len(x), 1)])


@functools.partial(
  jax.jit, static_argnames=('num', 'standardize', 'covariance')
)
def _compiled(x, score, num, kernel, **keywords):
  return stein.thin(x, score, num, kernel, **keywords)


def found(x, score, num, kernel, **keywords):
  """Returns what `stein.thin` does in float64, where few decisions are ties."""
  with jax.enable_x64(True):
    return jax.device_get(_compiled(x, score, num, kernel, **keywords))


class ThinTest(parameterized.TestCase):
  def check(self, actual, expected):
    np.testing.assert_array_equal(actual[0], expected[0])
    np.testing.assert_allclose(actual[1], expected[1], rtol=1e-9)

  @parameterized.product(
    rule=('id', 'med', 'sclmed', 'smpcov'), standardize=(False, True)
  )
  def test_is_the_greedy_loop(self, rule, standardize):
    # The rules as the authors' package names them.
    x, score = chain()
    rules = {
      'med': kernels.Median(diagonal=False, log='none'),
      'sclmed': kernels.Median(diagonal=False, log='n'),
    }
    actual = found(
      x,
      score,
      20,
      kernels.IMQ(rules.get(rule, 1.0)),
      covariance=rule == 'smpcov',
      standardize=standardize,
    )
    if standardize:
      scale = np.abs(x - x.mean(0)).mean(0)
      x, score = x / scale, score * scale
    metric = {
      'id': lambda: np.eye(3),
      'med': lambda: np.eye(3) / median_of(x),
      'sclmed': lambda: np.eye(3) / median_of(x) * np.log(len(x)),
      'smpcov': lambda: np.linalg.inv(np.cov(x.T)),
    }[rule]()
    self.check(actual, greedy(x, score, 20, metric))

  def test_a_rule_sees_a_thousand_points_evenly_spaced(self):
    x = np.random.default_rng(0).normal(size=(1500, 1))
    rule = kernels.Median(diagonal=False, log='none')
    subset = x[np.arange(1000) * 1499 // 999]
    by_rule, by_number = (
      found(x, -x, 5, kernels.IMQ(bandwidth), standardize=False)
      for bandwidth in (rule, median_of(subset))
    )
    np.testing.assert_array_equal(by_rule[0], by_number[0])
    np.testing.assert_allclose(by_rule[1], by_number[1], rtol=1e-9)

  def test_the_regularised_form(self):
    x, score = chain()
    log_density = np.sum(score * x, 1) / 2
    laplacian = np.abs(np.sin(np.arange(len(x))))
    for entropy in (None, 0.3):
      actual = found(
        x,
        score,
        20,
        kernels.IMQ(1.0),
        log_density=log_density,
        laplacian=laplacian,
        entropy=entropy,
        **_PLAIN,
      )
      reward = (entropy or 1 / 20) * log_density
      self.check(
        actual,
        greedy(x, score, 20, np.eye(3), extra=laplacian, reward=reward),
      )

  def test_the_form_without_gradients(self):
    x, _ = chain()
    log_ratio = np.cos(x[:, 0])
    actual = found(x, -x, 20, kernels.IMQ(1.0), log_ratio=log_ratio, **_PLAIN)
    weight = np.exp(log_ratio - log_ratio.min())
    self.check(actual, greedy(x, -x, 20, np.eye(3), weight=weight))

  def test_ksd_is_that_of_the_points_taken(self):
    x, score = chain(400)
    indices, ksds = stein.thin(x, score, 30, kernels.IMQ(2.0), **_PLAIN)
    taken = np.asarray(indices)
    for count in (1, 2, 30):
      u = literal.imq_stein_matrix(x[taken[:count]], score[taken[:count]], 2.0)
      np.testing.assert_allclose(ksds[count - 1], u.mean(), rtol=1e-4)

  def test_leaves_out_the_way_from_a_far_start(self):
    x, score = chain(1000)
    indices, ksds = _compiled(x, score, 40, kernels.IMQ(4.0), **_PLAIN)
    evenly = np.linspace(0, len(x) - 1, 40, dtype=int)
    others = literal.imq_stein_matrix(x[evenly], score[evenly], 4.0).mean()
    self.assertGreater(min(np.asarray(indices)), 10)
    self.assertLess(ksds[-1], others / 4)

  def test_the_regularised_form_is_not_drawn_between_modes(self):
    # Candidates of two far modes and of the flat top between them, whose score is 0.
    means = np.array([-4.0, 4.0])
    x = np.concatenate(
      [np.zeros(10), *(m + np.linspace(-2, 2, 45) for m in means)]
    )
    x = x[:, None]
    log_parts = -((x - means) ** 2) / 2
    log_density = np.logaddexp(*log_parts.T)
    share = np.exp(log_parts - log_density[:, None])
    score = np.sum(share * (means - x), 1, keepdims=True)
    # s' = sum_k share_k ((mean_k - x)^2 - 1) - s^2, positive in the dip.
    curvature = np.sum(share * ((means - x) ** 2 - 1), 1) - score[:, 0] ** 2
    plain = _compiled(x, score, 20, kernels.IMQ(4.0), **_PLAIN)[0]
    mended = _compiled(
      x,
      score,
      20,
      kernels.IMQ(4.0),
      log_density=log_density,
      laplacian=np.maximum(curvature, 0),
      **_PLAIN,
    )[0]
    self.assertGreater(np.sum(np.asarray(plain) < 10), 0)
    self.assertEqual(np.sum(np.asarray(mended) < 10), 0)

  def test_in_float32_it_reaches_the_ksd_of_float64(self):
    x, score = chain(1000, 5)
    in_double = found(x, score, 50, kernels.IMQ(1.0))
    in_single = stein.thin(
      np.float32(x), np.float32(score), 50, kernels.IMQ(1.0)
    )
    self.assertEqual(in_single[1].dtype, jnp.float32)
    np.testing.assert_allclose(in_single[1][-1], in_double[1][-1], rtol=1e-3)

  def test_memory_grows_with_the_points_alone(self):
    points = jax.ShapeDtypeStruct((100_000, 10), jnp.float32)
    thin = functools.partial(stein.thin, num=1000, kernel=kernels.IMQ(1.0))
    needed = jax.jit(thin).lower(points, points).compile().memory_analysis()
    # Points and scores in another order, and some numbers for each point.
    self.assertLess(needed.temp_size_in_bytes, 4 * 100_000 * (4 * 10 + 20))

  def test_a_coordinate_that_never_moves_has_no_say(self):
    x = np.random.default_rng(0).normal(size=(30, 2))
    still = np.insert(x, 1, 2.0, axis=1)
    kernel = kernels.IMQ(bandwidth=2.0)
    expected, _ = stein.thin(x, -x, 5, kernel)
    found, ksds = stein.thin(still, -still, 5, kernel)
    self.assertTrue(np.all(np.isfinite(ksds)))
    # Its one term, 1 / bandwidth on the diagonal, is that of a wider kernel's slope.
    self.assertEqual(found[0], expected[0])
    _, ksd = stein.thin(still[:1], -still[:1], 1, kernel)
    np.testing.assert_allclose(ksd, [3 / 2.0])  # d / bandwidth, without a score

  def test_points_that_weigh_more_than_floats_hold_are_not_taken(self):
    # The last two are as far out as a chain's start, with q / p above 10^38.
    x = np.append(np.linspace(-2, 2, 21), [20.0, 25.0])[:, None]
    log_ratio = -np.abs(x[:, 0]) + 0.5 * x[:, 0] ** 2
    indices, ksds = stein.thin(x, -np.sign(x), 8, log_ratio=log_ratio)
    self.assertLess(np.max(indices), 21)
    self.assertTrue(np.all(np.isfinite(ksds)))

  def test_dtypes_may_differ(self):
    with jax.enable_x64(True):
      x = np.random.default_rng(0).normal(size=(30, 2))
      ratio = x[:, 0]
      expected = stein.thin(x, -x, 3, log_ratio=ratio)[1]
      for narrow in (
        (np.float32(x), -x, ratio),
        (np.float32(x), -np.float32(x), ratio),
      ):
        x_, score, ratio_ = narrow
        found = stein.thin(x_, score, 3, log_ratio=ratio_)[1]
        np.testing.assert_allclose(found, expected, rtol=1e-3)

  def test_nan_shows_in_the_ksd(self):
    for which in (0, 1):
      arrays = [np.array(a, np.float32) for a in chain()]
      arrays[which][3, 1] = np.nan
      self.assertTrue(
        np.isnan(stein.thin(*arrays, 5, kernels.IMQ(1.0))[1]).all()
      )

  @parameterized.parameters(
    (dict(num=0), 'num=0'),
    (dict(num=2, log_density=np.ones(3)), r'log_density has shape \(3,\)'),
    (dict(num=2, log_ratio=np.ones((4, 1))), r'log_ratio has shape \(4, 1\)'),
    (dict(num=2, laplacian=np.ones(4)), 'of use beside log_density alone'),
    (dict(num=2, entropy=0.1), 'of use beside log_density alone'),
    (dict(num=2, standardize=1), 'standardize=1 must be True or False'),
  )
  def test_refuses(self, keywords, message):
    x = np.arange(8.0).reshape(4, 2)
    with self.assertRaisesRegex(ValueError, message):
      stein.thin(x, -x, **keywords)


if __name__ == '__main__':
  absltest.main()
