"""Tests of preconditioned chains, on Gaussians whose laws are known."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from stein_jax import build
from stein_jax import samplers
from tests.samplers import literal

_NUM = 20000
_PRECISION = np.array([[2.0, 0.6, 0.0], [0.6, 1.0, -0.2], [0.0, -0.2, 0.25]])
_MATRIX = np.array([[0.8, 0.3, 0.0], [0.3, 0.9, 0.1], [0.0, 0.1, 2.0]])


def normal(precision):
  precision = jnp.asarray(precision, jnp.float32)
  return samplers.target(
    lambda x: -0.5 * jnp.sum(x * jnp.dot(x, precision, precision='highest'), -1)
  )


def assert_covariance(x, covariance):
  """Mean 0 and the covariance, within 5 standard errors of independent normals."""
  x, variances = np.float64(x), np.diag(covariance)
  np.testing.assert_array_less(
    np.abs(x.mean(0)), 5 * (variances / len(x)) ** 0.5
  )
  error = (np.outer(variances, variances) + covariance**2) / len(x)
  np.testing.assert_array_less(
    np.abs(np.cov(x, rowvar=False) - covariance), 5 * error**0.5
  )


def ends(chain, target, x, seed=0):
  return jax.jit(lambda x: chain(jax.random.key(seed), x, target))(x)


class LawsTest(parameterized.TestCase):
  @parameterized.parameters(True, False)
  def test_the_stationary_covariance_of_langevin(self, best):
    # C = (I - h M L) C (I - h L M) + 2 h M of h = delta^2 / 2 is solved by the inverse
    # of L - (h / 2) L M L; it is L^-1 / (1 - delta^2 / 4) for M = L^-1.
    delta = 0.8
    covariance = np.linalg.inv(_PRECISION)
    matrix = covariance if best else _MATRIX
    exact = np.linalg.inv(
      _PRECISION - delta**2 / 4 * _PRECISION @ matrix @ _PRECISION
    )
    if best:
      np.testing.assert_allclose(exact, covariance / (1 - delta**2 / 4))
    chain = samplers.Preconditioned(samplers.Langevin(delta, 150), matrix)
    x, metrics = ends(chain, normal(_PRECISION), jnp.zeros((_NUM, 3)))
    assert_covariance(x, exact)
    # Stein's identity in any units: the mean of -x s(x) is that of x L x.
    np.testing.assert_allclose(
      metrics['virial_temperature'], np.trace(_PRECISION @ exact) / 3, rtol=0.05
    )

  def test_a_step_is_the_formula(self):
    # x - (delta^2 / 2) M L x without noise, and noise of covariance delta^2 M.
    x = np.array([[1.0, -2.0, 3.0]])
    langevin = samplers.Langevin(0.5, noise=False)
    found, _ = ends(
      samplers.Preconditioned(langevin, _MATRIX), normal(_PRECISION), x
    )
    np.testing.assert_allclose(
      found, x - 0.125 * x @ _PRECISION @ _MATRIX, rtol=1e-5
    )
    noisy = samplers.Preconditioned(samplers.Langevin(0.5), _MATRIX)
    found, _ = ends(noisy, normal(_PRECISION), jnp.zeros((_NUM, 3)))
    assert_covariance(found, 0.25 * _MATRIX)

  def test_mala_is_exact_and_accepts_as_on_a_round_normal(self):
    # Only a ratio with noise measured by M^-1 gives this rate and leaves p alone.
    scale = np.array([1e-2, 1.0, 1e2])
    covariance = scale[:, None] * np.linalg.inv(_PRECISION) * scale
    target = normal(np.linalg.inv(covariance))
    chain = samplers.Preconditioned(samplers.MALA(1.4), covariance)
    start = np.random.default_rng(0).multivariate_normal(
      np.zeros(3), covariance, _NUM
    )
    x, metrics = ends(chain, target, jnp.asarray(start, jnp.float32))
    rate = literal.mala_acceptance(1.4, 3)
    self.assertAlmostEqual(
      float(metrics['acceptance']), rate, delta=4 * (0.25 / _NUM) ** 0.5
    )
    assert_covariance(x, covariance)
    # From a start that is not of p, by another matrix.
    other = np.diag(scale**2) @ np.diag([0.5, 1.0, 4.0])
    chain = samplers.Preconditioned(samplers.MALA(0.7, 150), other)
    x, _ = ends(chain, target, jnp.zeros((_NUM, 3)))
    assert_covariance(x, covariance)


class UnitsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    shape = (4, 2, 3)
    self.x = {
      'a': jax.random.normal(jax.random.key(1), shape),
      'b': jnp.arange(4.0),
    }
    self.variances = {
      'a': 0.1 + jnp.arange(6.0).reshape(2, 3),
      'b': jnp.array(9.0),
    }
    self.target = samplers.target(
      lambda x: -jnp.sum(x['a'] ** 4, (1, 2)) - jnp.cos(x['b'])
    )

  @parameterized.parameters(
    samplers.Langevin(0.3, 5),
    samplers.MALA(0.3, 5),
    samplers.Underdamped(0.3, 5),
    samplers.Adapted(samplers.MALA(0.3, 5), 10),
    samplers.Tempered(samplers.MALA(0.3, 5), num_rounds=2),
  )
  def test_it_is_the_chain_in_white_coordinates(self, chain):
    scale = jax.tree.map(lambda v: v[None] ** 0.5, self.variances)
    times = lambda z: jax.tree.map(jnp.multiply, z, scale)
    white = samplers.target(lambda z: self.target.log_density(times(z)))
    z, expected = ends(
      chain, white, jax.tree.map(jnp.divide, self.x, scale), seed=3
    )
    found, metrics = ends(
      samplers.Preconditioned(chain, self.variances), self.target, self.x, 3
    )
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
      (found, metrics),
      (times(z), expected),
    )

  def test_variances_are_a_diagonal_matrix(self):
    x = jax.random.normal(jax.random.key(0), (5, 3))
    chains = (
      samplers.Preconditioned(samplers.MALA(0.9, 5), covariance)
      for covariance in ([1, 4, 9], np.diag([1, 4, 9]))
    )
    one, other = (ends(chain, normal(_PRECISION), x)[0] for chain in chains)
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)

  def test_what_stays_keeps_its_bits(self):
    x = 1000 / 3 + jax.random.normal(jax.random.key(0), (50, 3))
    # No proposal is where the density is.
    corner = samplers.target(
      lambda y: jnp.where(jnp.all(y == x, 1), 0, -jnp.inf)
    )
    for matrix in (_MATRIX, np.diag(_MATRIX)):
      chain = samplers.Preconditioned(samplers.MALA(0.1), matrix)
      np.testing.assert_array_equal(ends(chain, corner, x)[0], x)

  def test_a_chain_may_ask_for_one_point(self):
    # As kernels of other libraries are vmapped.
    def chain(rng, x, target):
      del rng
      score = jax.vmap(lambda x: target.score(x[None])[0])(x)
      return x + score, {}

    x = jnp.ones((4, 3))
    found, _ = ends(
      samplers.Preconditioned(chain, _MATRIX), normal(_PRECISION), x
    )
    np.testing.assert_allclose(found, x - x @ _PRECISION @ _MATRIX, rtol=1e-5)

  @parameterized.parameters(
    (jnp.bfloat16, jnp.bfloat16), (jnp.int8, jnp.float32)
  )
  def test_points_of_other_dtypes(self, dtype, expected):
    x = jnp.zeros((_NUM, 2), dtype)
    chain = samplers.Preconditioned(
      samplers.MALA(1.0, 20), np.array([1, 4], np.int32)
    )
    found, _ = ends(chain, normal(np.diag([1, 0.25])), x)
    self.assertEqual(found.dtype, expected)
    assert_covariance(np.asarray(found, np.float32), np.diag([1, 4]))

  def test_under_vmap(self):
    x = jnp.ones((4, 2))
    chain = lambda v: samplers.Preconditioned(samplers.MALA(0.5, 3), v)
    run = jax.jit(lambda v: ends(chain(v), normal(np.eye(2)), x)[0])
    variances = jnp.array([[1.0, 2.0], [3.0, 0.5]])
    np.testing.assert_allclose(
      jax.vmap(run)(variances), [run(v) for v in variances], rtol=1e-5
    )

  def test_a_nan_is_not_lost(self):
    chain = lambda v: samplers.Preconditioned(samplers.MALA(0.5, 3), v)
    run = jax.jit(
      lambda v: chain(v)(jax.random.key(0), jnp.ones((4, 2)), normal(np.eye(2)))
    )
    for shape in ((2,), (2, 2)):
      self.assertTrue(np.isnan(run(jnp.full(shape, jnp.nan))[0]).all())

  def test_a_config_names_it(self):
    section = dict(name='Langevin', step_size=0.3)
    found = build.build(
      samplers, 'Preconditioned', chain=section, covariance=[1.0, 4.0]
    )
    x, _ = ends(found, normal(np.eye(2)), jnp.ones((5, 2)))
    self.assertEqual(x.shape, (5, 2))

  @parameterized.parameters(
    (np.ones(3), r'covariance has shape \(3,\); wanted: \(2,\)'),
    (np.ones((2, 3)), r'covariance has shape \(2, 3\)'),
    (np.ones((1, 1)), r'covariance has shape \(1, 1\)'),
    (2.0, r'covariance has shape \(\)'),
    ({'a': np.ones(2)}, 'covariance'),
    (np.array([1.0, 0.0]), 'covariance=0.0 must be a positive'),
    (np.array([1.0, np.nan]), 'covariance=nan must be a positive'),
    (np.array([[1.0, 2.0], [2.0, 1.0]]), 'covariance must be a symmetric pos'),
    (np.array([[1.0, 0.5], [0.0, 1.0]]), 'covariance must be a symmetric pos'),
  )
  def test_what_is_no_covariance_is_refused(self, covariance, message):
    chain = samplers.Preconditioned(samplers.MALA(0.5), covariance)
    with self.assertRaisesRegex((ValueError, TypeError), message):
      chain(jax.random.key(0), jnp.ones((4, 2)), normal(np.eye(2)))

  @parameterized.parameters(
    (samplers.Langevin(0.1, clip=(0, 1)), ValueError, r'clip=\(0, 1\) would'),
    (samplers.Langevin(0.0), ValueError, 'step_size=0.0'),
    (samplers.Gibbs(), ValueError, 'no method gibbs'),
    (samplers.MALA, TypeError, 'chain is the class MALA'),
    (0.3, TypeError, 'chain is the float 0.3; allowed: a chain'),
  )
  def test_what_is_refused(self, chain, error, message):
    with self.assertRaisesRegex(error, message):
      samplers.Preconditioned(chain, np.ones(2))(
        jax.random.key(0), jnp.ones((4, 2)), normal(np.eye(2))
      )


if __name__ == '__main__':
  absltest.main()
