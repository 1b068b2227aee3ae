"""The truths that energies are learned from, and what runs on them."""

import itertools
import pathlib

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np

from experiments.reproduce import objectives
from experiments.reproduce import rows
from experiments.reproduce import scripts
from experiments.reproduce import truths


def small():
  """Returns a truth of 2 units over 2 hidden ones."""
  rng = np.random.default_rng(0)
  return truths.Truth(
    rng.normal(size=2), rng.normal(size=(2, 2)), rng.normal(size=2)
  )


def literal_log_density(truth, x):
  """Returns log p(x) [n] of the mixture of Gaussians, one for each hidden state."""
  d, num_hidden = truth.weight.shape
  states = np.array(list(itertools.product((-1, 1), repeat=num_hidden)))
  means = truth.bias + states @ truth.weight.T
  weights = np.exp(states @ truth.hidden_bias + 0.5 * np.sum(means**2, 1))
  square = np.sum((x[:, None] - means) ** 2, -1)
  density = np.exp(-0.5 * square) / (2 * np.pi) ** (d / 2)
  return np.log(density @ weights / weights.sum())


class TruthsTest(parameterized.TestCase):
  def test_draws_are_of_the_density(self):
    truth = small()
    x = np.float64(truth.draws(0, 20_000))
    # Stein's identity, E s = 0 and E s x' = -I, within 5 standard errors.
    axis, h = np.eye(2), 1e-4
    score = np.stack(
      [
        (
          literal_log_density(truth, x + h * e)
          - literal_log_density(truth, x - h * e)
        )
        / (2 * h)
        for e in axis
      ],
      1,
    )
    for each in (score, score[:, :, None] * x[:, None, :] + axis):
      error = 5 * np.std(each, 0) / len(x) ** 0.5
      self.assertTrue(np.all(np.abs(np.mean(each, 0)) < error))
    self.assertFalse(np.any(truth.draws(1, 10) == truth.draws(0, 10)))

  def test_gaps_are_of_the_literal_densities(self):
    truth, other = small(), truths.separated()
    shift = truth.replace(bias=truth.bias + 1)
    x, mean = truth.draws(0, 1000), np.array([0.3, -0.2])
    expected = np.mean(
      literal_log_density(truth, x) - literal_log_density(shift, x)
    )
    # The mean that a model is centred at changes nothing.
    models = jax.tree.map(
      lambda a, b: np.stack([a, b])[None],
      truth.params(mean),
      shift.params(mean),
    )
    found = truth.gaps(models, x)
    self.assertEqual(found.shape, (1, 2))
    np.testing.assert_allclose(found[0], [0, expected], atol=1e-10)
    self.assertEqual(other.num_parameters, 125)

  def test_modes_apart_are_as_likely(self):
    truth = truths.separated()
    np.testing.assert_allclose(
      truth.weight.T @ truth.weight, 9 * np.eye(5), atol=1e-12
    )
    x = truth.draws(0, 4000)
    # The 32 modes lie 6 apart, so that signs along the weights tell them.
    index = ((x - truth.bias) @ truth.weight > 0) @ 2 ** np.arange(5)
    shares = np.bincount(index, minlength=32) / len(x)
    # The logits of the five signs are 2 * 0.3 times normal numbers.
    self.assertGreater(shares.min(), 0.002)

  def test_a_fitted_truth_is_kept(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    truths.get.cache_clear()
    first = truths.get('overlapping', folder)
    np.testing.assert_allclose(np.linalg.norm(first.weight, axis=0), 1.5)
    path = folder / 'truth' / 'overlapping.npz'
    np.savez(path, **vars(first.replace(bias=np.zeros(20))))
    truths.get.cache_clear()
    self.assertEqual(np.ptp(truths.get('overlapping', folder).bias), 0)


class ImagesTest(absltest.TestCase):
  def test_each_seed_holds_out_another_sixth(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    digits = truths.Images('digits', folder, fit_steps=30)
    # A fifth of the 1,797 digits is for tests, and a sixth of the rest validates.
    self.assertEqual(digits.train(0).shape, (1197, 64))
    self.assertEqual(digits.valid(0).shape, (240, 64))
    self.assertEqual(digits.test().shape, (360, 64))
    together = [
      np.concatenate([digits.train(seed), digits.valid(seed)])
      for seed in (0, 1)
    ]
    np.testing.assert_array_equal(*(np.sort(each, 0) for each in together))
    self.assertFalse(np.array_equal(digits.valid(0), digits.valid(1)))
    # Strokes are four times as high as the model's noise.
    self.assertEqual(digits.test().max(), 4.0)

  def test_a_fit_has_more_likelihood_than_a_gaussian_and_is_kept(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    digits = truths.Images('digits', folder, fit_steps=100)
    x = np.float64(digits.train(0))
    rest = np.sum((x - x.mean(0)) ** 2, 1)
    gaussian = -0.5 * rest.mean() - 32 * np.log(2 * np.pi)
    best = digits.best(0)
    self.assertGreater(best.log_likelihood(x), gaussian + 5)
    np.testing.assert_array_equal(
      digits._replace(fit_steps=1).best(0).weight, best.weight
    )


class ObjectivesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.plan = scripts.plan_of(objectives.SCRIPT, self.folder, smoke=True)

  def test_all_ways_have_as_many_trials(self):
    for key, way in objectives.WAYS.items():
      rates, values = way.trials()
      self.assertEqual((len(rates), len(values)), (6, 6), key)
      self.assertLen(set(zip(rates, np.nan_to_num(values), strict=True)), 6)

  def test_exact_maximum_likelihood_learns_the_truth(self):
    truth, way = small(), objectives.WAYS['exact']
    truth = truth.replace(weight=3 * truth.weight)
    found, _ = objectives.train(
      truths.Draws(truth, 5000),
      way,
      [0, 1],
      1000,
      np.array([3e-2, 1e-3]),
      np.full(2, np.nan),
      np.array([False, True]),
    )
    leaves = jax.tree.leaves(found)
    self.assertEqual({leaf.shape[:3] for leaf in leaves}, {(2, 2, 10)})
    gaps = truth.gaps(found, truth.draws(7, 20_000))
    # 8 parameters cost 4 / 5000 nats; the first tenth of the steps is not enough.
    self.assertTrue(np.all(gaps[:, 0, 0] > 0.1))
    self.assertTrue(np.all(gaps[:, 0, -1] < 0.01))
    self.assertTrue(np.all(gaps[:, 1] < 0.01))

  def test_a_run_chooses_by_validation_draws(self):
    row = objectives.row_of('overlapping', 1000, 'cd-1-langevin')
    found = objectives.run(self.plan, row)
    self.assertLen(found, self.plan.seeds)
    for numbers, _ in found:
      rates, values = objectives.WAYS['cd-1-langevin'].trials()
      best = int(np.argmin(numbers['trials']))
      self.assertEqual(numbers['valid'], numbers['trials'][best])
      self.assertEqual(
        (numbers['rate'], numbers['value']), (rates[best], values[best])
      )
      # Three evaluations of 200 examples in each of 20 updates.
      self.assertEqual(numbers['evaluations'][-1], 3 * 200 * 20)
      self.assertEqual(numbers['curve'][-1], numbers['gap'])
      self.assertLess(numbers['from_truth'], numbers['gap'])

  def test_a_run_of_images_is_measured_from_the_best_fit(self):
    row = objectives.row_of('digits-images', None, 'exact')
    self.assertEqual(row.id, 'digits-images-exact')
    found = objectives.run(self.plan, row)
    self.assertLen(found, self.plan.seeds)
    for seed, (numbers, _) in enumerate(found):
      source = objectives.source_of(self.plan, 'digits-images', None)
      best = source.best(seed).log_likelihood(source.test())
      self.assertAlmostEqual(numbers['test'] + numbers['gap'], best)
    rows.keep(self.folder, row, 0, *found[0])
    tables, figures = objectives.report(self.plan)[1:]
    (line,) = tables['digits-images, real images']
    self.assertEqual(line['below the best fit'], f'{found[0][0]["gap"]:.4g}')
    self.assertIn('digits-images_evaluations', figures)
    self.assertNotIn('digits-images_data', figures)

  def test_mnist_has_fewer_updates(self):
    plan = scripts.plan_of(objectives.SCRIPT, self.folder)
    self.assertEqual(objectives.steps_of(plan, 'mnist'), 2000)
    self.assertEqual(objectives.steps_of(plan, 'digits'), 5000)

  def test_chains_that_persist_are_as_many_as_a_batch(self):
    truth, way = small(), objectives.WAYS['pcd']
    draws = truths.Draws(truth, 300)
    found, _ = objectives.train(
      draws, way, [0], 10, np.array([1e-2]), np.array([np.nan])
    )
    self.assertTrue(np.all(np.isfinite(found['params']['weight'])))

  def test_a_generator_follows_a_slow_energy(self):
    truth, way = small(), objectives.WAYS['steingan']
    truth = truth.replace(weight=3 * truth.weight)
    found, _ = objectives.train(
      truths.Draws(truth, 5000),
      way,
      [0],
      300,
      np.array([1e-2]),
      np.array([1e-2]),
    )
    gaps = truth.gaps(found, truth.draws(7, 20_000))[0, 0]
    self.assertGreater(gaps[0], 0.1)
    self.assertLess(gaps[-1], 0.5 * gaps[0])

  def test_report_of_what_is_there(self):
    for n, gap in ((1000, 0.4), (10_000, 0.1)):
      for seed in range(2):
        result = dict(
          gap=gap,
          from_truth=gap / 2,
          valid=gap,
          rate=0.01,
          training_seconds=1.0,
          millions=1.0,
          curve=[1.0, gap],
          evaluations=[1.0, 2.0],
          elapsed=[0.5, 1.0],
        )
        row = objectives.row_of('overlapping', n, 'exact')
        rows.keep(self.folder, row, seed, result, None)
    tables, figures = objectives.report(self.plan)[1:]
    self.assertEqual(
      list(figures),
      ['gaps_1000', 'gaps_10000']
      + [f'overlapping_{key}' for key in ('data', 'evaluations', 'elapsed')],
    )
    for _, png in figures.values():
      self.assertStartsWith(png, b'\x89PNG')
    least, line = tables['Nats from the truth']
    # 125 parameters: half a nat each over n.
    self.assertEqual(least['overlapping, 1,000'], '0.062')
    self.assertEqual(line['overlapping, 10,000'], '0.1')
    _, begun = tables['Nats from the truth, begun at it']
    self.assertEqual(begun['overlapping, 1,000'], '0.2')
    (of_part,) = tables['overlapping, 10,000 draws']
    self.assertEqual(of_part['rate'], '0.01')
    self.assertEqual(of_part['option'], '')


if __name__ == '__main__':
  absltest.main()
