"""Tests of directions in other units, and of what linear kernels are for."""

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

_TURN = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
# Of condition 10^4, in no coordinate alike.
_COVARIANCE = (_TURN * 10.0 ** np.arange(-2, 3)) @ _TURN.T
_MEAN = np.arange(5.0)


def _run(direction, start, *, num_steps, rate):
  """Returns particles after plain steps on N(mean, covariance)."""
  precision = jnp.asarray(np.linalg.inv(_COVARIANCE), jnp.float32)
  log_density = lambda x: -0.5 * (x - _MEAN) @ precision @ (x - _MEAN)
  state = svgd.create(log_density, start, optax.sgd(rate))
  step = lambda state, _: svgd.step(state, None, None, direction=direction)
  state, metrics = jax.jit(lambda s: lax.scan(step, s, length=num_steps))(state)
  return state.particles.params['particles'], metrics


class WhitenedTest(parameterized.TestCase):
  def test_moments_of_an_ill_conditioned_gaussian_are_exact(self):
    # At rest mean s = 0 and mean s (x - mean)' = -I, whose only solution is the mean
    # and the covariance, whatever the shape of the start.
    start = jax.random.uniform(jax.random.key(0), (40, 5), minval=-3, maxval=5)
    direction = stein.Whitened(stein.PolynomialSVGD())
    x, metrics = _run(direction, start, num_steps=200, rate=0.3)
    np.testing.assert_allclose(np.mean(x, 0), _MEAN, atol=1e-3)
    scale = np.sqrt(np.outer(np.diag(_COVARIANCE), np.diag(_COVARIANCE)))
    found = np.cov(np.transpose(x), ddof=0)
    np.testing.assert_allclose(found / scale, _COVARIANCE / scale, atol=1e-3)
    for name in ('particles/mean_score', 'particles/spread_error'):
      self.assertGreater(metrics[name][0], 0.1)
      self.assertLess(metrics[name][-1], 1e-3)

  @parameterized.parameters(True, False)
  def test_units_change_nothing(self, precondition):
    # Of x -> A x + b scores are A'^-1 s, and phi is A phi, or A'^-1 phi without the
    # preconditioner, where C is the covariance, A C A' then.
    x, score = map(np.float64, literal.points(8, 5))
    a = np.random.default_rng(1).normal(size=(5, 5))
    turned = np.linalg.solve(a.T, score.T).T

    def direction(covariance):
      return stein.Whitened(
        stein.SVGD(kernels.IMQ()), stein.Given(covariance), precondition, 0.0
      )

    with jax.enable_x64(True):
      phi = np.asarray(direction(_COVARIANCE)(x, score))
      found = np.asarray(
        direction(a @ _COVARIANCE @ a.T)(x @ a.T + 1.0, turned)
      )
    expected = phi @ a.T if precondition else np.linalg.solve(a.T, phi.T).T
    np.testing.assert_allclose(found, expected, rtol=1e-9)

  def test_the_own_covariance_forgets_the_units_of_coordinates(self):
    x, score = literal.points(8, 3)
    unit = np.float32([1e-2, 1.0, 1e2])
    direction = jax.jit(stein.Whitened(stein.SVGD(), stein.Covariance()))
    found = np.asarray(direction(x * unit, score / unit)) / unit
    literal.assert_close(found, direction(x, score), 256)

  def test_clips_white_rows(self):
    x, score = literal.points(8, 3)
    of = lambda clip, size: np.asarray(
      stein.Whitened(metric=stein.Given(jnp.full(3, 4.0)), clip=clip)(
        x, size * score
      ),
      np.float64,
    )
    # Rows of phi_z are those of phi halved, as L = 2 I.
    white = of(0.0, 2.0) / 2
    length = np.linalg.norm(white, axis=1, keepdims=True)
    limit = 0.5 * 3**0.5
    self.assertGreater(np.max(length), limit)
    self.assertLess(np.min(length), limit)
    expected = white * np.minimum(1, limit / length)
    np.testing.assert_allclose(of(0.5, 2.0) / 2, expected, rtol=1e-5)
    self.assertTrue(np.all(np.isfinite(of(0.5, 0.0))))
    slope = jax.grad(lambda x: jnp.sum(stein.Whitened()(x, 0 * x) ** 2))
    self.assertTrue(np.all(np.isfinite(slope(jnp.ones((4, 2))))))

  def test_passes_through_jit_and_vmap(self):
    x, score = literal.points(8, 3)
    swept = stein.Whitened(
      stein.SVGD(), stein.Covariance(jnp.array([0.1, 1.0])), clip=0.0
    )
    axes = jax.tree.map(lambda _: None, swept)
    axes = axes.replace(metric=stein.Covariance(0))
    found = jax.jit(
      jax.vmap(lambda direction: direction(x, score), in_axes=(axes,))
    )(swept)
    for each, ridge in zip(found, (0.1, 1.0), strict=True):
      one = stein.Whitened(metric=stein.Covariance(ridge), clip=0.0)
      literal.assert_close(each, one(x, score))

  def test_particles_that_coincide_follow_their_score(self):
    x, score = np.ones((2, 4, 3), np.float32)
    for metric in (stein.Covariance(), stein.Variances()):
      found = stein.Whitened(metric=metric, precondition=False, clip=0.0)(
        x, score
      )
      self.assertTrue(np.all(np.isfinite(found)))

  @parameterized.parameters(
    (
      dict(metric=stein.Given(np.ones(2))),
      r'metric: covariance has shape \(2,\)',
    ),
    (dict(metric=stein.Covariance(0.0)), 'metric.ridge=0.0 must be a positive'),
    (dict(clip=-1.0), 'clip=-1.0 must be zero or more'),
    (dict(precondition=1), 'precondition=1 must be True or False'),
    (
      dict(direction=stein.SVGD(kernels.RBF(-1.0))),
      'direction.kernel.bandwidth=-1.0 must be',
    ),
    (
      dict(direction=stein.FeatureSVGD()),
      'direction: FeatureSVGD needs features, which is not given here',
    ),
    (dict(direction=stein.Score()), 'no direction at other points'),
  )
  def test_refuses(self, fields, message):
    x = jnp.ones((4, 3))
    with self.assertRaisesRegex(ValueError, message):
      stein.Whitened(**fields)(x, x, at=x)

  def test_refuses_what_is_no_direction_or_metric(self):
    x = jnp.ones((4, 3))
    with self.assertRaisesRegex(TypeError, 'metric is the int 3; allowed: a'):
      stein.Whitened(metric=3)(x, x)
    with self.assertRaisesRegex(TypeError, 'direction is the class SVGD'):
      stein.Whitened(stein.SVGD)(x, x)


class SumTest(parameterized.TestCase):
  def test_weights_may_be_swept(self):
    x, score = literal.points(8, 3)
    parts = stein.SVGD(), stein.PolynomialSVGD()
    sweep = lambda weight: stein.Sum(parts, (1.0, weight))(x, score)
    found = jax.jit(jax.vmap(sweep))(jnp.array([0.0, 2.0]))
    for each, weight in zip(found, (0.0, 2.0), strict=True):
      literal.assert_close(
        each, parts[0](x, score) + weight * parts[1](x, score)
      )

  def test_gives_each_what_it_asks_for(self):
    x, score = literal.points(8, 3)
    direction = stein.Sum((stein.Score(), stein.FeatureSVGD()), (2.0, 1.0))
    self.assertTrue(stein.needs('features', direction))
    self.assertFalse(stein.needs('rng', direction))
    found = stein.call(direction, x, score, features=jnp.tanh, step=0)
    expected = stein.FeatureSVGD()(x, score, features=jnp.tanh)
    literal.assert_close(found, 2 * score + expected)

  @parameterized.parameters(
    (stein.Sum(()), r'directions=\(\) must be a sequence'),
    (stein.Sum((stein.SVGD(),), (1, 2)), r'weights=\(1, 2\) must be as many'),
    (
      stein.Sum((stein.SVGD(),), (-1,)),
      r'weights\[0\]=-1 must be zero or more',
    ),
    (
      stein.Sum((stein.SVGD(), stein.SVGD(kernels.RBF(-1.0)))),
      r'directions\[1\].kernel.bandwidth=-1.0 must be',
    ),
    (stein.PolynomialSVGD(0), 'degree=0 must be at least 1'),
    (stein.PolynomialSVGD(1, 0.0), 'bandwidth=0.0 must be a positive'),
    (stein.PolynomialSVGD(block_size=-1), 'block_size=-1 must be at least 0'),
  )
  def test_refuses(self, direction, message):
    x = jnp.ones((4, 3))
    with self.assertRaisesRegex(ValueError, message):
      direction(x, x)


class CallTest(absltest.TestCase):
  def test_a_function_may_ask(self):
    def noisy(x, score, *, rng, axis_name):
      del score, axis_name
      return x + jax.random.normal(rng, x.shape)

    noisy.needs_rng = True
    x, rng = jnp.zeros((4, 3)), jax.random.key(0)
    found = stein.call(noisy, x, x, rng=rng, step=0)
    np.testing.assert_array_equal(found, jax.random.normal(rng, x.shape))
    with self.assertRaisesRegex(ValueError, 'function needs rng, which is not'):
      stein.call(noisy, x, x)

  def test_an_unknown_need_is_refused(self):
    with self.assertRaisesRegex(ValueError, "name='time' is unknown"):
      stein.needs('time', stein.SVGD())


if __name__ == '__main__':
  absltest.main()
