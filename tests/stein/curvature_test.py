"""Tests of what directions with a curvature are for, and what they do not depend on."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax

from stein_jax import kernels
from stein_jax import stein
from stein_jax.algorithms import svgd
from tests.stein import literal

_SCALES = jnp.logspace(-1, 1, 10)  # standard deviations


def _log_density(x):
  """N(1, diag(scales^2)), of condition 10^4."""
  return -0.5 * jnp.sum(((x - 1) / _SCALES) ** 2)


def _run(direction, start, *, num_steps, rate):
  state = svgd.create(_log_density, start, optax.sgd(rate))
  step = lambda s, _: (svgd.step(s, None, None, direction=direction)[0], None)
  state = jax.jit(lambda s: lax.scan(step, s, length=num_steps)[0])(state)
  return state.particles.params['particles']


class CurvatureTest(parameterized.TestCase):
  @parameterized.parameters(
    (stein.NewtonSVGD(), 60, 0.7),
    (
      stein.Whitened(stein.SVGD(kernels.RBF(20.0)), stein.Curvature()),
      800,
      0.5,
    ),
  )
  def test_condition_costs_no_steps(self, direction, num_steps, rate):
    start = 1 + _SCALES[None] * (
      1 + 1.5 * jax.random.normal(jax.random.key(0), (60, 10))
    )
    x = _run(direction, start, num_steps=num_steps, rate=rate)
    white = (x - 1) / _SCALES[None]
    expected = stein.predicted_variance(direction, 60, 10)
    self.assertBetween(expected, 0.9, 0.99)
    np.testing.assert_allclose(np.mean(white, 0), 0, atol=0.02)
    np.testing.assert_allclose(np.mean(np.var(white, 0)), expected, atol=0.03)

  def test_the_prediction_does_not_depend_on_the_scale_of_the_density(self):
    # 1 / v - 1 = (d / n) (e^v - 1 - v) / v, bandwidth 2 d, distances 2 d v.
    n, d = 200, 50
    for direction in (
      stein.NewtonSVGD(),
      stein.Whitened(stein.SVGD(kernels.RBF(2.0 * d)), stein.Curvature()),
    ):
      for variance in (0.1, 10.0, None):
        v = stein.predicted_variance(direction, n, d, variance=variance)
        gap = d / n * (np.exp(v) - 1 - v) / v
        np.testing.assert_allclose(1 / v - 1, gap, rtol=1e-3)

  @parameterized.parameters(
    stein.NewtonSVGD(),
    stein.MixtureSVGD(kernels.IMQ(), num_anchors=3),
    stein.Whitened(stein.SVGD(), stein.Curvature(), clip=0.0),
  )
  def test_units_change_nothing(self, direction):
    # Of y = A x + b: scores A'^-1 s, and steps A times those of x.
    x, _ = map(np.float64, literal.points(8, 3))
    a = np.random.default_rng(1).normal(size=(3, 3))
    log_density = lambda x: -jnp.sum(jnp.cosh(x))
    inverse = np.linalg.inv(a)
    moved = lambda y: log_density(jnp.asarray(inverse) @ (y - 1))

    def step(log_density, x):
      score = jax.vmap(jax.grad(log_density))(jnp.asarray(x))
      found = stein.call(direction, x, score, log_density=log_density)
      return np.asarray(found)

    with jax.enable_x64(True):
      expected = step(log_density, x) @ a.T
      found = step(moved, x @ a.T + 1)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)

  def test_one_anchor_is_one_kernel(self):
    # Weights of one anchor are 1, and Q is the curvature at the first particle.
    x, score = literal.points(8, 3)
    matrix = lambda x: jnp.diag(1 + x**2)
    found = stein.MixtureSVGD(kernels.IMQ(), 1, matrix)(x, score)
    given = stein.Given(np.diag(1 / (1 + x[0] ** 2)))
    expected = stein.Whitened(stein.SVGD(kernels.IMQ()), given, clip=0.0)(
      x, score
    )
    literal.assert_close(found, expected)

  def test_a_curvature_that_is_not_positive_is_made_so(self):
    # diag(4, -1, 0): the mean absolute eigenvalue is 5/3, a tenth of which is 1/6.
    matrix = lambda x: jnp.diag(jnp.array([4.0, -1.0, 0.0]))
    units = stein.Curvature(matrix, floor=0.1)(jnp.ones((3, 3)))
    found = units.root @ units.root.T
    np.testing.assert_allclose(found, np.diag([1 / 4, 1, 6]), atol=1e-5)
    np.testing.assert_allclose(units.root @ units.inverse, np.eye(3), atol=1e-6)
    # A saddle is left the way that the score points.
    saddle = lambda x: jnp.diag(jnp.array([4.0, -1.0]))
    step = stein.NewtonSVGD(saddle)(jnp.ones((1, 2)), jnp.array([[2.0, 3.0]]))
    np.testing.assert_allclose(step, [[2 / 4, 3]], rtol=1e-5)

  @parameterized.parameters(
    (
      stein.NewtonSVGD(lambda x: x),
      r'matrix has shape \(4, 3\); wanted: \(4, 3, 3\)',
    ),
    (stein.NewtonSVGD(lambda x: jnp.eye(3), floor=0.0), 'floor=0.0 must be'),
    (
      stein.Whitened(metric=stein.Curvature(lambda x: x)),
      'metric.*matrix has shape',
    ),
    (
      stein.MixtureSVGD(num_anchors=0, matrix=lambda x: jnp.eye(3)),
      'num_anchors=0 must be',
    ),
    (stein.NewtonSVGD(), 'NewtonSVGD needs log_density, which is not given'),
    (
      stein.Whitened(metric=stein.Curvature()),
      'Whitened needs log_density, which is not given',
    ),
  )
  def test_refuses(self, direction, message):
    x = jnp.ones((4, 3))
    with self.assertRaisesRegex(ValueError, message):
      stein.call(direction, x, x)


if __name__ == '__main__':
  absltest.main()
