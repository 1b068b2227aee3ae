"""Metrics against closed forms, and the report of a finished run."""

import json
import pathlib

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from stein_jax import energies
from stein_jax import evaluation
from stein_jax import learners
from stein_jax import training
from tests import conformance_test


def rbm(seed=0, d=3, num_hidden=2):
  return learners.create(
    jax.random.key(seed),
    energies.RBM(num_hidden),
    dict(name='sgd', learning_rate=0.1),
    jnp.zeros((1, d)),
  )


class MetricsTest(parameterized.TestCase):
  def test_log_likelihood_of_a_gaussian(self):
    # With B = 0 and c = 0 the RBM is N(b, I).
    energy = rbm()
    mean = np.array([0.5, -1.0, 2.0], np.float32)
    params = jax.tree.map(jnp.zeros_like, energy.params)
    params['params']['bias'] = jnp.asarray(mean)
    energy = energy.replace(params=params)
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    expected = -0.5 * np.sum((x - mean) ** 2, 1) - 1.5 * np.log(2 * np.pi)
    values = evaluation.log_likelihood(
      energy, x, evaluation.exact_log_partition(energy)
    )
    np.testing.assert_allclose(values, expected, rtol=1e-5)

  def test_ais_brackets_the_exact_log_partition(self):
    energy = rbm(d=6, num_hidden=4)
    energy = energy.replace(
      params=jax.tree.map(lambda p: 10 * p, energy.params)
    )
    exact = float(evaluation.exact_log_partition(energy))
    options = dict(num_chains=400, num_temperatures=200, step_size=0.4)
    draws = energy.apply_fn(
      energy.params, jax.random.key(1), 400, method='sample'
    )
    below = evaluation.ais_log_partition(energy, jax.random.key(2), **options)
    above = evaluation.ais_log_partition(
      energy, jax.random.key(3), init=draws, **options
    )
    # The weights' spread at these lengths is below 0.5 nats: 4 errors are 0.1.
    self.assertAlmostEqual(float(below), exact, delta=0.1)
    self.assertAlmostEqual(float(above), exact, delta=0.1)
    self.assertLess(float(below), float(above) + 0.1)

  def test_energy_distance_is_zero_for_one_law_and_known_for_two(self):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 2000, 1)).astype(np.float32)
    # On a line E|x - y| for unit Gaussians d apart minus that at 0, doubled;
    # at d = 3, E|N(3, 2)| = 3.0688 and E|N(0, 2)| = 2 / sqrt(pi).
    scale = 2**0.5
    from scipy import stats

    folded = stats.foldnorm(3 / scale, scale=scale).mean()
    expected = 2 * folded - 2 * 2 / np.pi**0.5
    self.assertAlmostEqual(
      float(evaluation.energy_distance(x, y)), 0, delta=0.01
    )
    self.assertAlmostEqual(
      float(evaluation.energy_distance(x, y + 3)), expected, delta=0.15
    )

  def test_log_mean_exp(self):
    values = np.array([0.3, -2.0, 1.5], np.float32)
    self.assertAlmostEqual(
      float(evaluation.log_mean_exp(values)), np.log(np.exp(values).mean()), 6
    )


class JudgeTest(parameterized.TestCase):
  """A judge that reads the class from the first pixel: known posteriors."""

  @staticmethod
  def judge(rows):
    labels = np.round(rows[:, 0, 0, 0] * 4).astype(int)
    return rows.reshape(len(rows), -1), 50.0 * np.eye(4)[labels]

  def images(self, labels):
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(len(labels), 2, 2, 1)).astype(np.float32)
    images[:, 0, 0, 0] = labels / 4
    return images

  def test_says_what_the_labels_say(self):
    data = self.images(np.arange(40) % 4)
    samples = self.images(np.arange(40) % 2)
    asked = np.arange(40) % 4  # half of them are what they should be
    said = evaluation.judged(self.judge, samples, data, labels=asked)
    self.assertAlmostEqual(said['inception_score'], 2, 5)
    self.assertAlmostEqual(said['inception_score_of_data'], 4, 5)
    self.assertAlmostEqual(said['class_entropy'], np.log(2), 5)
    self.assertEqual(said['own_label'], 0.5)
    self.assertGreater(said['frechet_distance'], 0)

  def test_data_judged_by_themselves_are_perfect(self):
    data = self.images(np.arange(40) % 4)
    said = evaluation.judged(self.judge, data, data)
    self.assertAlmostEqual(said['frechet_distance'], 0, 5)
    self.assertEqual(said['precision'], 1)
    self.assertEqual(said['coverage'], 1)
    self.assertNotIn('own_label', said)

  def test_diversity_of_a_remembered_image_is_zero(self):
    data = self.images(np.arange(40) % 4)
    copies = np.repeat(data[:1], 10, 0)
    found = evaluation.diversity(copies, data, data)
    self.assertEqual(found['samples/pairwise_distance'], 0)
    self.assertEqual(found['samples/nearest_training'], 0)
    self.assertGreater(found['data/pairwise_distance'], 0.5)


class EvaluateTest(parameterized.TestCase):
  @parameterized.parameters(
    'stein_cd_mnist',
    'contrastive_divergence_toy',
    'svgd_toy',
    'amortized_svgd_toy',
    'steingan_mnist_joint',
  )
  def test_writes_numbers_samples_and_a_page_that_stands_alone(self, name):
    workdir = pathlib.Path(self.create_tempdir().full_path) / 'run'
    config = conformance_test.get_config(name)
    training.train(config, workdir)
    metrics = evaluation.evaluate(training.read_config(workdir), workdir)
    written = json.loads((workdir / 'evaluation.json').read_text())
    self.assertEqual(written, {'step': 4, **metrics})
    self.assertLen(
      np.load(workdir / 'samples.npy'), config.evaluation.num_samples
    )
    page = (workdir / 'report.html').read_text()
    self.assertIn('data:image/png;base64,', page)
    self.assertIn(config.algorithm, page)
    self.assertNotIn('src="http', page)
    for metric in metrics:
      self.assertIn(metric, page)

  def test_without_a_checkpoint_it_says_so(self):
    workdir = self.create_tempdir().full_path
    with self.assertRaisesRegex(FileNotFoundError, 'No checkpoint'):
      evaluation.evaluate(
        conformance_test.get_config('stein_cd_mnist'), workdir
      )


if __name__ == '__main__':
  absltest.main()
