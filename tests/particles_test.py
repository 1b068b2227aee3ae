"""The densities that directions are compared on, and what they are compared by."""

import pathlib
import sys
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats
from sklearn import datasets as sklearn_datasets

from experiments.reproduce import particles
from experiments.reproduce import problems
from experiments.reproduce import rows
from experiments.reproduce import scripts

KEY = jax.random.key(0)


class ProblemsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.numpy_rank_promotion('allow'))

  @parameterized.parameters(
    'gaussian-2', 'correlated-10', 'heavy-10', 'mixture-10', 'banana'
  )
  def test_draws_are_of_the_density(self, name):
    problem = problems.get(name)
    x = problem.sample(KEY, 20_000)
    score = jax.vmap(jax.grad(problem.log_density))(x)
    # Stein's identity: E s = 0 and E s x' = -I, within 5 standard errors of a mean.
    products = score[:, :, None] * x[:, None, :] + jnp.eye(x.shape[1])
    for each in (score, products):
      error = 5 * jnp.std(each, 0) / len(x) ** 0.5
      self.assertTrue(jnp.all(jnp.abs(jnp.mean(each, 0)) < error + 1e-6))

  def test_moments_that_are_known(self):
    draws = lambda name: np.asarray(problems.get(name).sample(KEY, 20_000))
    # Of Student's t with 5 degrees of freedom, in each coordinate.
    error = 5 * 5 / 3 * (8 / 20_000) ** 0.5  # its kurtosis is 9
    np.testing.assert_allclose(draws('heavy-10').var(0), 5 / 3, atol=error)
    x = draws('mixture-2')
    self.assertAlmostEqual((x[:, 0] < 0).mean(), 1 / 3, delta=0.02)
    eigenvalues = np.linalg.eigvalsh(np.cov(draws('correlated-10').T))
    np.testing.assert_allclose(eigenvalues, np.geomspace(0.1, 10, 10), rtol=0.1)

  def test_eight_schools_are_one_law_in_two_coordinates(self):
    raw, centred = problems.get('schools'), problems.get('schools-centred')
    z = jax.random.normal(KEY, (5, 10))
    x = jax.vmap(raw.summary)(z)  # mean, log scale, effects
    # An effect is `mean + scale raw`: eight of them have the Jacobian scale^8.
    expected = jax.vmap(raw.log_density)(z) - 8 * z[:, 1]
    found = jax.vmap(centred.log_density)(x)
    # Both are sums of some hundreds.
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_allclose(jax.vmap(centred.summary)(x), x)

  def test_eight_schools_are_rubins(self):
    # Half normal of scale 10 for exp(z), whose logarithm has the slope exp(z).
    z = np.random.default_rng(0).normal(size=(2, 10))
    y = np.array([28, 8, -3, 7, -1, 1, 18, 12])
    error = np.array([15, 10, 16, 11, 9, 11, 10, 18])
    expected = [
      stats.norm.logpdf(mean, scale=10)
      + stats.halfnorm.logpdf(np.exp(log_scale), scale=10)
      + log_scale
      + stats.norm.logpdf(raw).sum()
      + stats.norm.logpdf(y, mean + np.exp(log_scale) * raw, error).sum()
      for mean, log_scale, *raw in z
      for raw in [np.array(raw)]
    ]
    found = jax.vmap(problems.get('schools').log_density)(z)
    # Equal up to a constant.
    np.testing.assert_allclose(
      found[1] - found[0], np.diff(expected)[0], rtol=1e-5
    )

  def test_logistic_regression_of_breast_cancer(self):
    problem = problems.get('logistic')
    w = np.random.default_rng(0).normal(size=(2, 31))
    (x, y), (test_x, test_y) = problems.split(
      sklearn_datasets.load_breast_cancer()
    )
    self.assertEqual((len(x), len(test_x)), (455, 114))

    def log_likelihoods(w, x, y):
      p = 1 / (1 + np.exp(-(w[0] + x @ w[1:])))
      return np.log(np.where(y == 1, p, 1 - p))

    expected = [
      log_likelihoods(each, np.float64(x), y).sum() - 0.5 * each @ each
      for each in w
    ]
    found = jax.vmap(problem.log_density)(w)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    each = [
      np.exp(log_likelihoods(one, np.float64(test_x), test_y)) for one in w
    ]
    expected = np.log(np.mean(each, 0)).mean()
    self.assertAlmostEqual(float(problem.predict(w)), expected, 4)

  def test_chains_need_a_package(self):
    with mock.patch.dict(sys.modules, blackjax=None):
      problems.check_chains(['gaussian-2'])  # has draws
      with self.assertRaisesRegex(ValueError, 'BlackJAX: pip install'):
        problems.check_chains(['gaussian-2', 'schools'])

  @parameterized.parameters(
    ('network-diabetes', 62, 89), ('network-wine', 88, 108)
  )
  def test_networks(self, name, dim, summaries):
    problem = problems.get(name)
    x = problem.start(KEY, 3)
    self.assertEqual(x.shape[0], 3)
    found = jax.vmap(problem.summary)(x)
    self.assertEqual(found.shape, (3, summaries))
    # At weights of 0 the network says nothing: a third for each class of wine.
    if name == 'network-wine':
      zero = jnp.zeros((1, x.shape[1]))
      self.assertAlmostEqual(float(problem.predict(zero)), -np.log(3), 5)


class ParticlesTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.numpy_rank_promotion('allow'))

  def test_modes(self):
    x = jnp.array([[-1.0, 0], [-3, 5], [2, 0], [4, 1], [3, 1]])
    share, within = particles.in_modes(x, np.array([[-2.0, 0], [2, 0]]))
    np.testing.assert_allclose(share, [0.4, 0.6])
    np.testing.assert_allclose(within, [1.0, 2 / 3], rtol=1e-6)

  def test_particles_that_a_prediction_asks_for(self):
    # A flat kernel asks for 2.7 particles a dimension, where the bracket of e^c - 1 - c
    # over c at c = 1/2 is 0.297: 0.9 / 0.1 * 0.297 = 2.7 [and a tenth for steps].
    direction = particles.WAYS['rbf-wide'].make(None)
    found = particles.particles_for(direction, 200, 0.9)
    self.assertBetween(found, 2.67 * 200, 2.7 * 200 * 1.1)

  def test_a_row_is_judged_by_draws_that_chose_nothing(self):
    truth = np.random.default_rng(0).normal(size=(20_000, 2)).astype(np.float32)
    truth[:1000] += 5  # those by which steps are chosen
    measure = particles.Measure(problems.get('gaussian-2'), truth, 100)
    exact = measure.exact(0)
    self.assertAlmostEqual(exact['variance'], 1, delta=0.5)
    self.assertLess(exact['energy_distance'], 0.2)
    self.assertGreater(measure.validation(jnp.asarray(truth[-100:])), 2)
    self.assertEqual(measure.validation(jnp.full((100, 2), jnp.nan)), np.inf)

  def test_a_run_of_a_direction_and_of_a_chain(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    plan = scripts.plan_of(particles.SCRIPT, folder, smoke=True)
    for way, predicted in (('rbf-median', True), ('mala', False)):
      row = particles.row_of('gaussian-2', 10, way)
      found = particles.run(plan, row)
      self.assertLen(found, plan.seeds)
      for seed, (numbers, _) in enumerate(found):
        self.assertEqual(numbers['steps/length'], 20)
        self.assertEqual('predicted' in numbers, predicted)
        self.assertTrue(np.isfinite(numbers['seconds/energy_distance']))
        rows.keep(folder, row, seed, numbers, None)
    self.assertEqual(
      particles.means(plan, 'gaussian-2', 10, 'mala')['rate'],
      found[0][0]['rate'],
    )

  def test_report_of_what_is_there(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    plan = scripts.plan_of(particles.SCRIPT, folder, smoke=True)
    numbers = {
      f'{kind}/{key}': 2.0 * value
      for kind in ('steps', 'seconds')
      for key in ('energy_distance', 'variance')
      for value in (1,)
    }
    for way, factor in (('exact', 1), ('rbf-wide', 3)):
      for seed in range(2):
        row = particles.row_of('gaussian-2', 50, way)
        scaled = {key: factor * value for key, value in numbers.items()}
        scaled |= {'predicted': 0.5} if way == 'rbf-wide' else {}
        rows.keep(folder, row, seed, scaled, None)
    tables, figures = particles.report(plan)[1:]
    self.assertEqual(list(figures), ['overview_50', 'predicted'])
    for _, png in figures.values():
      self.assertStartsWith(png, b'\x89PNG')
    title = 'Energy distance over that of draws, 50 particles, equal scores'
    self.assertEqual(
      [line['gaussian-2'] for line in tables[title]], ['1.00', '3.00']
    )
    title = 'Variance over the truth, 50 particles, equal seconds'
    self.assertEqual(
      [line['gaussian-2'] for line in tables[title]], ['2.00', '6.00']
    )
    (line,) = tables['Predicted and measured variance']
    self.assertEqual(
      (line['predicted'], line['equal scores']), ('0.500', '6.000')
    )


if __name__ == '__main__':
  absltest.main()
