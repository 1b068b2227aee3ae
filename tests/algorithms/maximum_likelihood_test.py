"""Tests of exact maximum likelihood."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
from jax import flatten_util
import jax.numpy as jnp
import numpy as np
from scipy import stats

from stein_jax import samplers
from stein_jax.algorithms import maximum_likelihood
from tests import literal


class MaximumLikelihoodTest(parameterized.TestCase):
  @parameterized.parameters(0.0, 0.7)
  def test_gradient_by_finite_differences(self, gamma):
    self.enter_context(jax.enable_x64(True))
    x = literal.rbm_data(20)
    state = literal.at_truth(maximum_likelihood, x)
    flat, unravel = flatten_util.ravel_pytree(literal.RBM_TRUTH)

    def regularised(flat):
      params = unravel(flat)
      return literal.rbm_log_likelihood(
        params, x
      ) + gamma * literal.rbm_log_partition(params)

    step = 1e-5  # errs by step^2 and 1e-15 / step
    expected = [
      (regularised(flat + axis) - regularised(flat - axis)) / (2 * step)
      for axis in step * np.eye(flat.size)
    ]
    moved = literal.ascent(
      maximum_likelihood, state, x, negative_weight=1 - gamma
    )
    actual = flatten_util.ravel_pytree(moved)[0]
    np.testing.assert_allclose(actual, expected, atol=1e-8)
    _, metrics = jax.jit(maximum_likelihood.step)(state, {'image': x}, None)
    self.assertAlmostEqual(
      metrics['energy/data'] + metrics['energy/log_partition'],
      -literal.rbm_log_likelihood(literal.RBM_TRUTH, x),
      places=12,
    )

  def test_learning(self):
    x = literal.rbm_data(literal.NUM_DATA)
    for params in literal.fit_rbm(
      maximum_likelihood, x, num_train_steps=600, num_seeds=6
    ):
      with self.subTest('at the optimum the moments agree'):
        model = literal.rbm_moments(params)
        for name, observed in literal.rbm_statistics(params, x).items():
          np.testing.assert_allclose(observed, model[name], atol=1e-3)
      with self.subTest('likelihood'):
        # Wilks: 2 n (best - truth) ~ chi^2 with one degree per parameter.
        excess = literal.rbm_log_likelihood(
          params, x
        ) - literal.rbm_log_likelihood(literal.RBM_TRUTH, x)
        self.assertBetween(
          2 * len(x) * excess, 0, stats.chi2.ppf(0.9999, literal.NUM_PARAMETERS)
        )

  def test_discounted_moments_are_larger(self):
    # At the optimum of mean E(data) + 0.3 log Z the bias asks for it.
    x, weight = literal.rbm_data(literal.NUM_DATA), 0.3
    (params,) = literal.fit_rbm(
      maximum_likelihood,
      x,
      num_train_steps=3000,
      num_seeds=1,
      negative_weight=weight,
    )
    model = literal.rbm_moments(params)['bias']
    np.testing.assert_allclose(model, x.mean(0) / weight, atol=1e-2)

  @parameterized.parameters(0.0, -0.3, np.inf)
  def test_bad_weight(self, weight):
    state = literal.at_truth(maximum_likelihood, literal.rbm_data(4))
    with self.assertRaisesRegex(ValueError, f'negative_weight={weight}'):
      maximum_likelihood.step(
        state, {'image': literal.rbm_data(4)}, None, negative_weight=weight
      )

  def test_sample(self):
    images = jnp.asarray(literal.rbm_data(5), jnp.float32).reshape(5, 2, 2, 1)
    state = literal.at_truth(maximum_likelihood, images)
    sample = functools.partial(
      maximum_likelihood.sample, state, chain=samplers.Gibbs(2)
    )
    for num in (1, 3):
      self.assertEqual(sample(jax.random.key(0), num).shape, (num, 2, 2, 1))


if __name__ == '__main__':
  absltest.main()
