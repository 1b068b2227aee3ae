"""Tests of the predicted variance: closed forms, and particles that ran."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stein_jax import kernels
from stein_jax import stein
from stein_jax.algorithms import svgd
from tests.stein import literal

_WIDE = kernels.Median(2.0, log='none')
_KERNELS = {
  'RBF, log': kernels.RBF(),
  'RBF, wide': kernels.RBF(_WIDE),
  'IMQ, wide': kernels.IMQ(_WIDE),
}


class _OwnRule:
  """A rule for a bandwidth that says nothing of distances."""

  def at(self, x, axis_name=None):
    return jnp.ones(())


def _at_rest(direction, n, d, *, num_steps=1500, rate=0.05):
  """Returns the mean variance of particles after Adam on N(0, I), and metrics."""
  half = num_steps // 2
  schedule = optax.join_schedules(
    [
      optax.constant_schedule(rate),
      optax.exponential_decay(rate, half, 0.01),
    ],
    [half],
  )
  start = 1 + 1.5 * jax.random.normal(jax.random.key(0), (n, d))
  log_density = lambda x: -0.5 * jnp.sum(x**2)
  state = svgd.create(log_density, start, optax.adam(schedule, b2=0.99))
  step = lambda state, _: svgd.step(state, None, None, direction=direction)
  run = jax.jit(lambda state: lax.scan(step, state, length=num_steps))
  state, metrics = run(state)
  x = state.particles.params['particles']
  return np.mean(np.var(x, 0)), jax.tree.map(lambda m: m[-1], metrics)


class PredictedTest(parameterized.TestCase):
  @parameterized.parameters((200, 50), (100, 10), (30, 200))
  def test_of_the_gaussian_with_a_rule(self, n, d):
    # 1 / v - 1 = (d / n) (e^c - 1 - c) / c, where the median over c is the bandwidth.
    for rule, c in (
      (kernels.Median(), np.log(n + 1)),
      (kernels.Median(3.0, log='n'), np.log(n) / 3),
      (kernels.Median(2.0, log='none'), 0.5),
    ):
      found = stein.predicted_variance(stein.SVGD(kernels.RBF(rule)), n, d)
      expected = 1 / (1 + d / n * (np.exp(c) - 1 - c) / c)
      np.testing.assert_allclose(found, expected, rtol=1e-5)

  @parameterized.parameters(0.3, 1.0)
  def test_of_imq_with_a_rule(self, c):
    # 1 / v - 1 = (2 d / (n c)) ((1 + c)^(3/2) - (1 + c) - c / 2).
    kernel = kernels.IMQ(kernels.Median(1 / c, log='none'))
    found = stein.predicted_variance(stein.SVGD(kernel), 200, 50)
    gap = 2 * 50 / 200 / c * ((1 + c) ** 1.5 - (1 + c) - c / 2)
    np.testing.assert_allclose(found, 1 / (1 + gap), rtol=1e-5)

  @parameterized.parameters(10.0, 100.0, 1000.0)
  def test_of_a_bandwidth_it_is_a_root(self, bandwidth):
    n, d = 200, 50
    direction = stein.SVGD(kernels.RBF(bandwidth))
    v = float(stein.predicted_variance(direction, n, d))
    c = 2 * d * v / bandwidth
    gap = d / n * (np.exp(c) - 1 - c) / c
    np.testing.assert_allclose(1 / v - 1, gap, rtol=1e-3)
    # On a density four times as wide, with four times the bandwidth, nothing changes.
    wider = stein.SVGD(kernels.RBF(4 * bandwidth))
    found = stein.predicted_variance(wider, n, d, variance=4 * v)
    np.testing.assert_allclose(found, v, rtol=1e-4)

  def test_of_sums(self):
    # 1 / v - 1 = d (drive of both) / (n d (slopes of both)), c = 1/2 and log(n + 1).
    n, d, wide, narrow = 200, 50, 0.5, np.log(201)
    drive = sum(1 - np.exp(-c) - c * np.exp(-c) for c in (wide, narrow))
    slope = sum(c * np.exp(-c) for c in (wide, narrow))
    expected = 1 / (1 + d / n * drive / slope)
    rbf = kernels.RBF(_WIDE), kernels.RBF()
    for direction in (
      stein.SVGD(kernels.Sum(rbf)),
      stein.Sum(tuple(map(stein.SVGD, rbf))),
      stein.Whitened(stein.Sum(tuple(map(stein.SVGD, rbf)))),
    ):
      found = stein.predicted_variance(direction, n, d)
      np.testing.assert_allclose(found, expected, rtol=1e-5)
    # exp(-r / h) exp(-r / h) is exp(-2 r / h).
    product = kernels.Product((kernels.RBF(_WIDE), kernels.RBF(_WIDE)))
    one = kernels.RBF(kernels.Median(log='none'))
    np.testing.assert_allclose(
      stein.predicted_variance(stein.SVGD(product), n, d),
      stein.predicted_variance(stein.SVGD(one), n, d),
      rtol=1e-5,
    )

  def test_of_a_linear_kernel_beside(self):
    # The narrow kernel adds no slope to speak of, so that 1 / v - 1 = 1 / (n w).
    n, d, w = 200, 50, 0.3
    narrow = stein.SVGD(kernels.RBF(kernels.Median(0.05)))
    both = stein.Whitened(
      stein.Sum((narrow, stein.PolynomialSVGD()), weights=(1.0, w))
    )
    found = stein.predicted_variance(both, n, d)
    np.testing.assert_allclose(found, 1 / (1 + 1 / (n * w)), rtol=1e-5)

  def test_in_units_that_are_given(self):
    # With C = 4 I particles of variance v have v / 4, which only a bandwidth sees.
    inner = stein.SVGD(kernels.RBF(100.0))
    given = stein.Whitened(inner, stein.Given(jnp.full(50, 4.0)))
    np.testing.assert_allclose(
      stein.predicted_variance(given, 200, 50, variance=2.0),
      stein.predicted_variance(inner, 200, 50, variance=0.5),
      rtol=1e-5,
    )

  def test_may_be_traced(self):
    predict = lambda h: stein.predicted_variance(
      stein.SVGD(kernels.RBF(h)), 200, 50
    )
    found = jax.jit(jax.vmap(predict))(jnp.array([10.0, 1000.0]))
    np.testing.assert_allclose(
      found, [predict(10.0), predict(1000.0)], rtol=1e-5
    )

  @parameterized.parameters(
    stein.Score(),
    stein.FeatureSVGD(),
    stein.PolynomialSVGD(2),
    stein.SVGD(kernels.Sum((kernels.RBF(), kernels.RBF(_OwnRule())))),
    stein.Sum((stein.SVGD(), stein.Score())),
    stein.Whitened(metric=lambda x, axis_name: None),
    lambda x, score, axis_name: x,
  )
  def test_not_all_can_tell(self, direction):
    self.assertIsNone(stein.predicted_variance(direction, 200, 50))

  def test_coincident_particles_have_one_too(self):
    found = stein.predicted_variance(stein.SVGD(), 200, 50, variance=0.0)
    self.assertTrue(np.isfinite(found))
    nan = stein.predicted_variance(stein.SVGD(), 200, 50, variance=np.nan)
    self.assertTrue(np.isnan(nan))

  def test_refuses_what_is_no_direction_and_no_variance(self):
    with self.assertRaisesRegex(TypeError, 'direction is the class SVGD'):
      stein.predicted_variance(stein.SVGD, 200, 50)
    with self.assertRaisesRegex(ValueError, 'variance=-1.0 must be zero'):
      stein.predicted_variance(stein.SVGD(), 200, 50, variance=-1.0)

  @parameterized.parameters((0, 3, 'num_particles=0'), (3, 0, 'dim=0'))
  def test_refuses(self, n, d, message):
    with self.assertRaisesRegex(ValueError, message):
      stein.predicted_variance(stein.SVGD(), n, d)

  def test_of_a_run(self):
    # The narrow rule and the wide one, where they differ most.
    for kernel in (kernels.RBF(), kernels.RBF(_WIDE)):
      direction = stein.SVGD(kernel)
      found, metrics = _at_rest(direction, 50, 20, num_steps=600)
      expected = stein.predicted_variance(direction, 50, 20)
      self.assertAlmostEqual(
        metrics['particles/predicted_variance'], float(expected), places=4
      )
      np.testing.assert_allclose(found, expected, atol=0.08)

  @parameterized.product(name=tuple(_KERNELS), n=[50, 200], d=[10, 50])
  @pytest.mark.slow
  def test_of_long_runs(self, name, n, d):
    direction = stein.SVGD(_KERNELS[name])
    found, _ = _at_rest(direction, n, d)
    expected = float(stein.predicted_variance(direction, n, d))
    # Where distances differ and the kernel is narrow, the particles use it.
    above = 0.2 if (name, n, d) == ('RBF, log', 200, 10) else 0.05
    self.assertBetween(found, expected - 0.05, expected + above)


class MomentsTest(parameterized.TestCase):
  def test_by_definition(self):
    x, score = literal.points(8, 3)
    wide = np.float64(x)
    centred = wide - wide.mean(0)
    sd = wide.std(0)
    expected = (
      np.sqrt(np.mean((score.mean(0) * sd) ** 2)),
      np.max(np.abs(np.mean(score * centred, 0) + 1)),
      np.mean(sd**2),
    )
    np.testing.assert_allclose(stein.moments(x, score), expected, rtol=1e-5)
    split = literal.mapped(
      'shard_map',
      lambda x, s: jnp.stack(stein.moments(x, s, axis_name=literal.AXIS))[None],
      jnp.array(x),
      jnp.array(score),
    )
    np.testing.assert_allclose(split, np.tile(expected, (4, 1)), rtol=1e-5)

  def test_of_exact_draws_they_are_errors_of_draws(self):
    x = jax.random.normal(jax.random.key(0), (10_000, 4))
    found = stein.moments(x, -x)
    # Of standard errors 0.01 and sqrt(2) 0.01.
    self.assertLess(found.mean_score, 0.04)
    self.assertLess(found.spread_error, 0.06)


class MetricsTest(absltest.TestCase):
  def test_the_prediction_is_for_many_dimensions(self):
    for d, direction, told in (
      (9, stein.SVGD(), False),
      (10, stein.SVGD(), True),
      (10, stein.Score(), False),
    ):
      x = jax.random.normal(jax.random.key(0), (6, d))
      state = svgd.create(lambda x: -jnp.sum(x**2), x, optax.sgd(0.1))
      metrics = svgd.step(state, None, None, direction=direction)[1]
      self.assertEqual('particles/predicted_variance' in metrics, told)

  def test_a_direction_is_given_key_step_and_log_density(self):
    def direction(x, score, *, rng, step, log_density, axis_name):
      del score, axis_name
      np.testing.assert_allclose(log_density(x[0]), -np.sum(x[0] ** 2))
      return x * 0 + jax.random.uniform(rng) + step

    for name in ('rng', 'step', 'log_density'):
      setattr(direction, f'needs_{name}', True)
    state = svgd.create(
      lambda x: -jnp.sum(x**2), jnp.ones((4, 2)), optax.sgd(1.0)
    )
    rng = jax.random.key(1)
    for i in range(2):
      before = state.particles.params['particles']
      state, _ = svgd.step(state, None, rng, direction=direction)
      after = state.particles.params['particles']
      np.testing.assert_allclose(
        after - before, np.full((4, 2), jax.random.uniform(rng) + i), rtol=1e-5
      )


if __name__ == '__main__':
  absltest.main()
