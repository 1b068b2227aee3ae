"""Tests of constraints: maps against autodiff, laws that SVGD finds through them."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from stein_jax import bijectors
from stein_jax.algorithms import svgd

_ONES = {
  'exp': bijectors.Exp(),
  'softplus': bijectors.Softplus(),
  'interval': bijectors.Interval(-1.0, 3.0),
}


class _Halves:
  """A bijector of one's own, as of distrax or TensorFlow Probability."""

  def forward(self, z):
    return z / 2

  def inverse(self, x):
    return 2 * x

  def forward_log_det_jacobian(self, z):
    return jnp.full_like(z, -np.log(2))


class MapsTest(parameterized.TestCase):
  @parameterized.parameters(*_ONES)
  def test_inverse_and_slope(self, name):
    bijector, z = _ONES[name], np.linspace(-8, 8, 33)
    with jax.enable_x64(True):
      x = bijector.forward(jnp.asarray(z))
      np.testing.assert_allclose(bijector.inverse(x), z, atol=1e-9)
      slope = jax.vmap(jax.grad(bijector.forward))(jnp.asarray(z))
      found = bijector.forward_log_det_jacobian(jnp.asarray(z))
      np.testing.assert_allclose(found, np.log(slope), rtol=1e-9, atol=1e-9)
      x = np.asarray(x)
    low, high = (-1, 3) if name == 'interval' else (0, np.inf)
    self.assertTrue(np.all((x > low) & (x < high)))
    self.assertTrue(np.all(np.diff(x) > 0))

  def test_by_hand(self):
    np.testing.assert_allclose(bijectors.Exp().forward(0.0), 1)
    np.testing.assert_allclose(bijectors.Softplus().forward(0.0), np.log(2))
    np.testing.assert_allclose(bijectors.Interval(-1, 3).forward(0.0), 1)
    found = bijectors.Simplex().forward(jnp.zeros(3))
    np.testing.assert_allclose(found, np.full(4, 0.25), rtol=1e-6)

  def test_of_integers(self):
    z = np.array([0, 2])
    for bijector in (*_ONES.values(), bijectors.Simplex()):
      np.testing.assert_allclose(
        bijector.forward(z), bijector.forward(np.float32(z)), rtol=1e-6
      )
    slopes = bijectors.Simplex().forward_log_det_jacobian
    np.testing.assert_allclose(slopes(z), slopes(np.float32(z)), rtol=1e-6)

  def test_one_share_is_all(self):
    whole = {'share': bijectors.Simplex()}
    z = bijectors.unconstrain(whole, {'share': jnp.ones((3, 1))})
    self.assertEqual(z['share'].shape, (3, 0))
    x = bijectors.constrain(whole, z)
    np.testing.assert_array_equal(x['share'], np.ones((3, 1)))

  @parameterized.parameters(1, 2, 5)
  def test_simplex(self, size):
    z = np.random.default_rng(size).normal(scale=2, size=(7, size))
    simplex = bijectors.Simplex()
    with jax.enable_x64(True):
      z = jnp.asarray(z)
      x = simplex.forward(z)
      np.testing.assert_allclose(np.sum(x, -1), 1, rtol=1e-12)
      self.assertGreater(np.min(x), 0)
      np.testing.assert_allclose(simplex.inverse(x), z, rtol=1e-9, atol=1e-9)
      jacobian = jax.vmap(jax.jacfwd(lambda z: simplex.forward(z)[:-1]))(z)
      np.testing.assert_allclose(
        simplex.forward_log_det_jacobian(z),
        np.linalg.slogdet(jacobian)[1],
        rtol=1e-9,
      )

  def test_far_out_in_float32(self):
    z = jnp.array([-80.0, 80.0])
    for name in ('exp', 'softplus'):
      found = _ONES[name].inverse(_ONES[name].forward(z))
      np.testing.assert_allclose(found, z, rtol=1e-6)
    for bijector in (*_ONES.values(), bijectors.Simplex()):
      self.assertTrue(np.all(np.isfinite(bijector.forward_log_det_jacobian(z))))

  @parameterized.parameters(
    (bijectors.Interval(1.0, 1.0), 'high - low=0.0 must be a positive'),
    (bijectors.Interval(0.0, np.inf), 'high=inf must be a finite number'),
  )
  def test_refuses(self, bijector, message):
    for function in (
      bijector.forward,
      bijector.inverse,
      bijector.forward_log_det_jacobian,
    ):
      with self.assertRaisesRegex(ValueError, message):
        function(jnp.zeros(3))


class TreesTest(parameterized.TestCase):
  def test_of_a_tree(self):
    z = {
      'rate': jnp.array([0.0, 1.0]),
      'rest': {'a': jnp.ones((2, 3)), 'b': jnp.ones(2)},
      'share': jnp.zeros((2, 1)),
      'free': jnp.arange(2),
    }
    of = {
      'rate': bijectors.Exp(),
      'rest': _Halves(),
      'share': bijectors.Simplex(),
      'free': None,
    }
    x = bijectors.constrain(of, z)
    np.testing.assert_allclose(x['rate'], [1, np.e], rtol=1e-6)
    np.testing.assert_allclose(x['rest']['a'], np.full((2, 3), 0.5))
    np.testing.assert_allclose(x['share'], np.full((2, 2), 0.5))
    np.testing.assert_allclose(x['free'], [0, 1])
    back = bijectors.unconstrain(of, x)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), back, z
    )
    one = jax.tree.map(lambda leaf: leaf[1], z)
    log_density = bijectors.unconstrained(of, lambda x, c: c * x['rate'])
    # z, four halves, the slope 1/4 of the share at 0, and nothing of what is free.
    expected = 2 * np.e + 1 - 4 * np.log(2) + np.log(0.25)
    np.testing.assert_allclose(log_density(one, 2.0), expected, rtol=1e-6)

  def test_one_for_all(self):
    x = bijectors.constrain(
      bijectors.Exp(), {'a': jnp.zeros(3), 'b': jnp.ones(3)}
    )
    np.testing.assert_allclose(x['b'], np.full(3, np.e), rtol=1e-6)

  def test_particles_outside_are_refused(self):
    x = {'rate': jnp.array([1.0, -1.0])}
    of = {'rate': bijectors.Exp()}
    with self.assertRaisesRegex(ValueError, r'shape \(2,\) are outside .* Exp'):
      bijectors.unconstrain(of, x)
    nan = jax.jit(lambda x: bijectors.unconstrain(of, x))(x)['rate'][1]
    self.assertTrue(np.isnan(nan))
    bad = {'rate': jnp.array([1.0, jnp.nan])}
    self.assertTrue(np.isnan(bijectors.unconstrain(of, bad)['rate'][1]))
    bad = {'rate': jnp.array([1.0, jnp.nan, -1.0])}  # which hides no other
    with self.assertRaisesRegex(ValueError, r'shape \(3,\) are outside .* Exp'):
      bijectors.unconstrain(of, bad)

  def test_shares_that_do_not_add_up_are_refused(self):
    share = jnp.array([[0.2, 0.8], [0.5, 0.7]])
    with self.assertRaisesRegex(ValueError, 'outside of what Simplex reaches'):
      bijectors.unconstrain(bijectors.Simplex(), share)

  def test_what_is_no_bijector_is_named(self):
    for bad, message in (
      (3, 'is the int 3'),
      (bijectors.Exp, 'is the class Exp'),
    ):
      with self.assertRaisesRegex(TypeError, f'bijector {message}; allowed: a'):
        bijectors.constrain({'rate': bad}, {'rate': jnp.ones(3)})


# Laws of one leaf, by their log density, bijector and exact draws.
_LAWS = {
  'gamma, softplus': (
    lambda x: 2 * jnp.log(x) - x,
    bijectors.Softplus(),
    stats.gamma(3),
  ),
  'gamma, exp': (
    lambda x: 2 * jnp.log(x) - x,
    bijectors.Exp(),
    stats.gamma(3),
  ),
  'beta': (
    lambda x: jnp.log(x + 1) + 3 * jnp.log(3 - x),
    bijectors.Interval(-1.0, 3.0),
    stats.beta(2, 4, loc=-1, scale=4),
  ),
  'dirichlet': (
    lambda x: jnp.sum(jnp.array([1.0, 2.0, 3.0]) * jnp.log(x)),
    bijectors.Simplex(),
    stats.dirichlet([2, 3, 4]),
  ),
}


class LawTest(parameterized.TestCase):
  @parameterized.parameters(*_LAWS)
  def test_stein_identity_at_exact_draws(self, name):
    # E s = 0 and E s z' = -I, which a Jacobian left out or wrong would spoil.
    log_density, bijector, law = _LAWS[name]
    draws = law.rvs(size=20_000, random_state=0).astype(np.float32)
    z = bijectors.unconstrain(bijector, draws)
    score = jax.vmap(jax.grad(bijectors.unconstrained(bijector, log_density)))(
      z
    )
    z, score = (np.reshape(np.float64(a), (len(z), -1)) for a in (z, score))
    products = score[:, :, None] * z[:, None]
    for terms, mean in ((score, 0), (products, -np.eye(z.shape[1]))):
      error = np.std(terms, 0) / len(z) ** 0.5
      self.assertLess(np.max(np.abs(np.mean(terms, 0) - mean) / error), 4.5)

  @parameterized.parameters(*_LAWS)
  def test_svgd_finds_it(self, name):
    log_density, bijector, law = _LAWS[name]
    draws = law.rvs(size=100, random_state=1).astype(np.float32)
    z = 0.5 * bijectors.unconstrain(bijector, draws) - 0.3
    optimizer = optax.adam(optax.linear_schedule(0.1, 0.0, 600))
    of_z = bijectors.unconstrained(bijector, log_density)
    state = svgd.create(of_z, z, optimizer)
    step = lambda s, _: (svgd.step(s, None, None)[0], None)
    state = jax.jit(lambda s: lax.scan(step, s, length=600)[0])(state)
    x = bijectors.constrain(bijector, state.particles.params['particles'])
    mean, var = np.asarray(law.mean()), np.diag(np.atleast_2d(_covariance(law)))
    np.testing.assert_allclose(
      np.mean(x, 0), mean, atol=0.1 * np.max(var) ** 0.5
    )
    np.testing.assert_allclose(np.var(x, 0), np.squeeze(var), rtol=0.15)


def _covariance(law):
  return law.cov() if hasattr(law, 'cov') else law.var()


class NumPyroTest(absltest.TestCase):
  def test_its_transforms_are_taken_as_they_are(self):
    transforms = pytest.importorskip('numpyro.distributions.transforms')
    self.enter_context(jax.numpy_rank_promotion('allow'))
    theirs = {
      'share': transforms.StickBreakingTransform(),
      'rate': transforms.ExpTransform(),
      'between': transforms.ComposeTransform(
        [transforms.SigmoidTransform(), transforms.AffineTransform(-1.0, 4.0)]
      ),
    }
    ours = {
      'share': bijectors.Simplex(),
      'rate': bijectors.Exp(),
      'between': bijectors.Interval(-1.0, 3.0),
    }
    rng = np.random.default_rng(0)
    z = {
      'share': jnp.asarray(rng.normal(size=(5, 3)), jnp.float32),
      'rate': jnp.asarray(rng.normal(size=5), jnp.float32),
      'between': jnp.asarray(rng.normal(size=(5, 2)), jnp.float32),
    }
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    x = bijectors.constrain(theirs, z)
    jax.tree.map(close, x, bijectors.constrain(ours, z))
    jax.tree.map(close, bijectors.unconstrain(theirs, x), z)
    log_density = lambda x: jnp.sum(x['share'] ** 2) - x['rate']
    found, expected = (
      jax.vmap(bijectors.unconstrained(of, log_density))(z)
      for of in (theirs, ours)
    )
    close(found, expected)


if __name__ == '__main__':
  absltest.main()
