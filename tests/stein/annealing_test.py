"""Tests of schedules of the score's weight, and of what annealing is for."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax

from stein_jax import densities
from stein_jax import kernels
from stein_jax import stein
from stein_jax.algorithms import svgd
from tests.stein import literal


class ScheduleTest(parameterized.TestCase):
  @parameterized.parameters(
    (
      stein.LinearRise(100, floor=0.1),
      (0, 5, 50, 100, 500),
      (0.1, 0.1, 0.5, 1, 1),
    ),
    (
      stein.TanhRise(100, 2.0, floor=0.0),
      (0, 50, 99, 100, 500),
      (0, np.tanh(0.65**2), np.tanh(1.287**2), 1, 1),
    ),
    # Cycles of 20 steps; the plateau begins where the fifth ends.
    (
      stein.CyclicRise(100, 5, 2.0, floor=0.04),
      (0, 2, 10, 19, 20, 30, 99, 100, 500),
      (0.04, 0.04, 0.25, 0.9025, 0.04, 0.25, 0.9025, 1, 1),
    ),
    (
      stein.CyclicRise(99, 1, 1.0, floor=0.0),
      (0, 33, 98, 99),
      (0, 1 / 3, 98 / 99, 1),
    ),
  )
  def test_by_hand(self, schedule, steps, weights):
    found = jax.jit(jax.vmap(schedule))(jnp.array(steps))
    np.testing.assert_allclose(found, weights, rtol=1e-4)

  @parameterized.parameters(
    (stein.LinearRise(0), 'num_steps=0 must be'),
    (stein.LinearRise(floor=2.0), 'floor=2.0 must be at most 1'),
    (stein.TanhRise(power=0.0), 'power=0.0 must be a positive'),
    (stein.CyclicRise(num_cycles=0), 'num_cycles=0 must be'),
    (stein.CyclicRise(power=-1.0), 'power=-1.0 must be a positive'),
  )
  def test_refuses(self, schedule, message):
    with self.assertRaisesRegex(ValueError, message):
      schedule(0)


class AnnealedTest(parameterized.TestCase):
  def test_at_full_weight_it_is_the_direction(self):
    x, score = literal.points(8, 3)
    annealed = stein.Annealed(schedule=stein.LinearRise(10))
    found = annealed(x, score, step=10)
    np.testing.assert_array_equal(found, stein.SVGD()(x, score))
    share = stein.predicted_variance(annealed, 200, 50)
    self.assertEqual(share, stein.predicted_variance(stein.SVGD(), 200, 50))
    hot = annealed.replace(temperature=2.0)
    self.assertIsNone(stein.predicted_variance(hot, 200, 50))

  def test_without_the_score_it_repels(self):
    # grad_{x_j} k(x_j, x_i) is odd in (i, j), so that it sums to 0 over particles.
    x, score = literal.points(8, 3)
    found = stein.Annealed(schedule=lambda step: 0.0 * step)(x, score, step=3)
    self.assertGreater(np.max(np.abs(found)), 0.1)
    np.testing.assert_allclose(np.sum(found, 0), 0, atol=1e-5)
    literal.assert_close(found, stein.SVGD()(x, 0 * score))

  def test_a_temperature_is_that_of_the_density(self):
    # Of particles with a linear kernel, exactly: N(0, 1) at temperature 2 is N(0, 2).
    direction = stein.Annealed(
      stein.PolynomialSVGD(), stein.LinearRise(50), temperature=2.0
    )
    start = jax.random.normal(jax.random.key(0), (20, 2))
    state = svgd.create(lambda x: -0.5 * jnp.sum(x**2), start, optax.sgd(0.2))
    step = lambda s, _: (svgd.step(s, None, None, direction=direction)[0], None)
    state = jax.jit(lambda s: lax.scan(step, s, length=400)[0])(state)
    covariance = np.cov(
      np.transpose(state.particles.params['particles']), ddof=0
    )
    np.testing.assert_allclose(covariance, 2 * np.eye(2), atol=1e-3)

  def test_finds_the_other_mode(self):
    # 2/3 at (2, 0) and 1/3 at (-2, 0), far apart for their width of 0.5.
    density = densities.mixture(
      jnp.array([[2.0, 0.0], [-2.0, 0.0]]), 0.5, jnp.array([2.0, 1.0]), 0.0
    )
    start = jax.random.normal(jax.random.key(0), (60, 2)) * 0.5
    start += jnp.array([[2.0, 0.0]])

    def left(direction):
      optimizer = optax.sgd(optax.linear_schedule(0.5, 0.05, 1500))
      state = svgd.create(density.log_density, start, optimizer)
      step = lambda s, _: (
        svgd.step(s, None, None, direction=direction)[0],
        None,
      )
      state = jax.jit(lambda s: lax.scan(step, s, length=1500)[0])(state)
      return np.mean(state.particles.params['particles'][:, 0] < 0)

    kernel = kernels.RBF()
    self.assertEqual(left(stein.SVGD(kernel)), 0)
    for schedule in (stein.TanhRise(1000), stein.CyclicRise(1000, 3)):
      found = left(stein.Annealed(stein.SVGD(kernel), schedule))
      # Which share a mode has is left to chance: annealing finds modes.
      self.assertBetween(found, 0.1, 0.9)

  def test_passes_on_what_its_direction_asks_for(self):
    x, _ = literal.points(8, 3)
    inner = stein.GradientFreeSVGD(kernels.RBF(2.0))
    annealed = stein.Annealed(inner, stein.LinearRise(10))
    self.assertTrue(stein.needs('log_density', annealed))
    self.assertFalse(stein.needs_score(annealed))
    log_density = lambda x: -jnp.sum(x**2)
    found = stein.call(annealed, x, None, step=5, log_density=log_density)
    half = inner(x, log_density=lambda x: 0.5 * log_density(x))
    literal.assert_close(found, half)

  @parameterized.parameters(
    (dict(temperature=0.0), ValueError, 'temperature=0.0 must be a positive'),
    (
      dict(schedule=stein.LinearRise),
      TypeError,
      'schedule is the class LinearR',
    ),
    (dict(schedule=stein.LinearRise(0)), ValueError, 'schedule.num_steps=0'),
    (dict(direction=3), TypeError, 'direction.* is the int 3'),
  )
  def test_refuses(self, fields, error, message):
    x = jnp.ones((4, 3))
    with self.assertRaisesRegex(error, message):
      stein.Annealed(**fields)(x, x, step=0)


if __name__ == '__main__':
  absltest.main()
