"""Tests of weights and control variates: exact cases, optima, and what they gain."""

import functools
import itertools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
from sklearn import datasets as sklearn_datasets

from stein_jax import kernels
from stein_jax import stein
from tests import literal

_KEY = jax.random.key(0)


def in_float64(function):
  """Returns what a function gives in float64."""
  with jax.enable_x64(True):
    return jax.device_get(function())


def least_on_simplex(u):
  """Returns the least w'Uw over weights [n], by trying every support."""
  best, found = np.inf, None
  for size in range(1, len(u) + 1):
    for support in map(list, itertools.combinations(range(len(u)), size)):
      part = np.linalg.solve(u[np.ix_(support, support)], np.ones(size))
      weights = np.zeros(len(u))
      weights[support] = part / part.sum()
      value = weights @ u @ weights
      if np.all(weights >= 0) and value < best:
        best, found = value, weights
  return found


class ImportanceWeightsTest(parameterized.TestCase):
  @parameterized.parameters(0, 1, 2)
  def test_are_the_least_of_all_supports(self, seed):
    x = 1 + np.random.default_rng(seed).normal(size=(8, 2))
    weights, gap = in_float64(
      lambda: stein.importance_weights(x, -x, kernels.IMQ(2.0), tolerance=1e-12)
    )
    u = literal.imq_stein_matrix(x, -x, 2.0)
    np.testing.assert_allclose(weights, least_on_simplex(u), atol=1e-6)
    self.assertBetween(gap, -1e-12, 1e-10)

  def test_meet_the_conditions_of_an_optimum(self):
    # (Uw)_i is w'Uw where there is weight, and no less elsewhere.
    x = 0.5 + np.random.default_rng(0).normal(size=(150, 3)).astype(np.float32)
    weights, gap = jax.jit(stein.importance_weights)(x, -x)
    weights = np.asarray(weights, np.float64)
    sq_dist = np.sum((x[:, None] - x[None]) ** 2, -1)
    median = np.median(sq_dist[np.triu_indices(150, 1)])
    products = literal.imq_stein_matrix(x, -x, median) @ weights
    value = weights @ products
    self.assertAlmostEqual(weights.sum(), 1, places=5)
    self.assertGreaterEqual(weights.min(), 0)
    self.assertLess(np.sum(weights > 0), 150)
    self.assertLess(value - products.min(), 2e-3 * value)
    self.assertAlmostEqual(gap, value - products.min(), delta=1e-3 * value)
    self.assertLess((products - value)[weights > 0.002].max(), 0.1 * value)

  def test_of_another_law_give_the_averages_of_p(self):
    errors = []
    for seed in range(5):
      x = 1.3 * np.random.default_rng(seed).normal(size=(200, 2)) + 0.5
      weights, _ = jax.jit(stein.importance_weights)(x, -x)
      weights = np.asarray(weights)
      for power in (1, 2):
        truth = power - 1
        errors.append(
          [(weights @ x**power)[0] - truth, np.mean(x[:, 0] ** power) - truth]
        )
    weighted, plain = np.sqrt(np.mean(np.square(errors), 0))
    self.assertLess(weighted, plain / 5)

  def test_of_copies_share_a_weight(self):
    # The second of two equal points changes nothing.
    x = np.array([[0.3], [-0.8], [1.1], [1.1]])
    once, _ = stein.importance_weights(x[:3], -x[:3], kernels.IMQ(1.0))
    twice, _ = stein.importance_weights(x, -x, kernels.IMQ(1.0))
    self.assertAlmostEqual(twice[2] + twice[3], once[2], places=3)

  def test_of_nan_are_nan(self):
    x = np.array([[0.0], [np.nan], [1.0]])
    weights, gap = stein.importance_weights(x, -x, kernels.IMQ(1.0))
    self.assertTrue(np.isnan(weights).all() and np.isnan(gap))


class ControlFunctionalTest(absltest.TestCase):
  def test_is_exact_for_what_the_kernel_spans(self):
    x = np.random.default_rng(0).normal(size=(20, 2))
    u = literal.imq_stein_matrix(x, -x, 2.0)
    shares = np.random.default_rng(1).normal(size=20)
    values = 3.0 + u @ (shares - shares.mean())
    found = in_float64(
      lambda: stein.control_functional(values, x, -x, kernels.IMQ(2.0))
    )
    self.assertAlmostEqual(found, 3.0, places=8)

  def test_of_a_constant_is_the_constant(self):
    x = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    found = stein.control_functional(np.full(50, 7.0), x, -x)
    self.assertAlmostEqual(found, 7.0, places=5)

  def test_is_the_solution_of_its_equations(self):
    rng = np.random.default_rng(2)
    x, values, share = rng.normal(size=(15, 2)), rng.normal(size=15), 0.1
    u = literal.imq_stein_matrix(x, -x, 1.0)
    solved = np.linalg.solve(
      u + share * np.trace(u) / 15 * np.eye(15), np.ones(15)
    )
    found = in_float64(
      lambda: stein.control_functional(
        values, x, -x, kernels.IMQ(1.0), regularization=share
      )
    )
    self.assertAlmostEqual(found, solved @ values / solved.sum(), places=10)

  def test_copies_count_once(self):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(10, 1))
    values = np.sin(x[:, 0])
    twice = np.concatenate([x, x[2:5]])
    once = lambda: stein.control_functional(
      values, x, -x, kernels.IMQ(1.0), regularization=1e-9
    )
    again = lambda: stein.control_functional(
      np.sin(twice[:, 0]), twice, -twice, kernels.IMQ(1.0), regularization=1e-9
    )
    self.assertAlmostEqual(in_float64(once), in_float64(again), places=5)

  def test_is_nearer_than_the_average(self):
    # E sin x + x^2 = 1; 50 sets of 100 points.
    x = np.random.default_rng(0).normal(size=(50, 100, 1)).astype(np.float32)
    values = np.sin(x[..., 0]) + x[..., 0] ** 2
    found = jax.jit(jax.vmap(stein.control_functional))(values, x, -x)
    error = lambda means: np.sqrt(np.mean((np.asarray(means) - 1) ** 2))
    self.assertLess(error(found), error(values.mean(1)) / 10)

  def test_refuses(self):
    x = np.ones((4, 2))
    with self.assertRaisesRegex(ValueError, r'values has shape \(3,\)'):
      stein.control_functional(np.ones(3), x, x)
    with self.assertRaisesRegex(ValueError, 'regularization=-1'):
      stein.control_functional(np.ones(4), x, x, regularization=-1)


class PolynomialTest(parameterized.TestCase):
  def gaussian(self, n=40):
    """Returns draws and scores of N(m, S) in three dimensions, m and S."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(3, 3))
    mean, covariance = np.array([1.0, -2.0, 0.5]), root @ root.T
    x = mean + rng.normal(size=(n, 3)) @ root.T
    return x, -(x - mean) @ np.linalg.inv(covariance), mean, covariance

  @parameterized.parameters(1, 2)
  def test_is_exact_for_polynomials_under_a_gaussian(self, order):
    x, score, mean, covariance = self.gaussian()
    cases = [(x @ [1.0, 2.0, 3.0] + 4, mean @ [1.0, 2.0, 3.0] + 4)]
    if order == 2:
      cases += [
        (x[:, 0] * x[:, 1], covariance[0, 1] + mean[0] * mean[1]),
        (x[:, 2] ** 2, covariance[2, 2] + mean[2] ** 2),
      ]
    for values, expected in cases:
      found = in_float64(
        lambda: stein.polynomial_control_variates(values, x, score, order=order)
      )
      self.assertAlmostEqual(found, expected, places=9)
      in_single = stein.polynomial_control_variates(
        values, x, score, order=order
      )
      self.assertAlmostEqual(in_single, expected, delta=1e-3)

  def test_a_coordinate_that_never_moves_is_no_harm(self):
    x, score, mean, _ = self.gaussian()
    still = np.append(x, np.full((len(x), 1), 2.0), 1)
    noise = np.random.default_rng(1).normal(size=(len(x), 1))
    found = stein.polynomial_control_variates(
      x[:, 0], still, np.append(score, noise, 1)
    )
    self.assertAlmostEqual(found, mean[0], delta=1e-3)

  def test_the_columns_of_order_two_are_those_of_its_monomials(self):
    # By least squares on Lap q + grad q . s, each by automatic differentiation, of
    # coordinates of mean 0 and variance 1.
    rng = np.random.default_rng(1)
    x, score, values = (
      rng.normal(size=(30, 2)),
      rng.normal(size=(30, 2)),
      rng.normal(size=30),
    )
    monomials = [
      lambda x: x[0],
      lambda x: x[1],
      lambda x: x[0] ** 2,
      lambda x: x[1] ** 2,
      lambda x: x[0] * x[1],
    ]

    def column(q):
      at = lambda x, s: jnp.trace(jax.hessian(q)(x)) + jax.grad(q)(x) @ s
      z = (x - x.mean(0)) / x.std(0)
      return jax.vmap(at)(jnp.array(z), jnp.array(score * x.std(0)))

    columns = in_float64(lambda: [column(q) for q in monomials])
    design = np.stack([np.ones(30), *columns], 1)
    expected = np.linalg.lstsq(design, values, rcond=None)[0][0]
    found = in_float64(
      lambda: stein.polynomial_control_variates(values, x, score, order=2)
    )
    self.assertAlmostEqual(found, expected, places=10)

  def test_lowers_the_variance_on_a_posterior(self):
    # Logistic regression on three features of the breast-cancer data: independent
    # draws by importance resampling from a fine grid of the Gaussian near it.
    data = sklearn_datasets.load_breast_cancer()
    features = data.data[:100, :3]
    features = (features - features.mean(0)) / features.std(0)
    sign = 2.0 * data.target[:100] - 1

    def log_density(w):
      margins = sign * (features @ w)
      return -jnp.sum(jnp.logaddexp(0, -margins)) - jnp.sum(w**2) / 2

    log_density = jax.jit(jax.vmap(log_density))
    score = jax.jit(jax.vmap(jax.grad(lambda w: log_density(w[None])[0])))
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(100_000, 3)) * 1.5
    weights = (
      np.asarray(log_density(wide), np.float64) + np.sum(wide**2, 1) / 4.5
    )
    weights = np.exp(weights - weights.max())
    weights /= weights.sum()
    truth = weights @ wide
    x = wide[rng.choice(len(wide), (40, 200), p=weights)].astype(np.float32)
    scores = np.stack([score(each) for each in x])
    errors = {0: x[..., 0].mean(1) - truth[0]}
    for order in (1, 2):
      estimate = jax.jit(
        jax.vmap(
          functools.partial(stein.polynomial_control_variates, order=order)
        )
      )
      errors[order] = np.asarray(estimate(x[..., 0], x, scores)) - truth[0]
    plain, first, second = (np.std(errors[order]) for order in (0, 1, 2))
    self.assertLess(first, plain / 3)
    self.assertLess(second, first / 2)

  def test_refuses(self):
    x = np.ones((6, 2))
    with self.assertRaisesRegex(
      ValueError, 'order=2 has 5 columns in 2 .* 6 points'
    ):
      stein.polynomial_control_variates(np.ones(6), x, x, order=2)
    with self.assertRaisesRegex(
      ValueError, 'order=3 is unknown; allowed: 1, 2'
    ):
      stein.polynomial_control_variates(np.ones(6), x, x, order=3)


if __name__ == '__main__':
  absltest.main()
