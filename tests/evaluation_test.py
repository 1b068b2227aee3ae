"""Metrics against closed forms, and the report of a finished run."""

import json
import pathlib
import types
from unittest import mock
import warnings

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stein_jax import datasets
from stein_jax import energies
from stein_jax import inception
from stein_jax import learners
from stein_jax import metrics
from stein_jax import samplers
from stein_jax.runs import evaluation
from stein_jax.runs import images
from stein_jax.runs import judges
from stein_jax.runs import pictures
from stein_jax.runs import training
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
      energy, x, energies.exact_log_partition(energy)
    )
    np.testing.assert_allclose(values, expected, rtol=1e-5)

  def test_ais_brackets_the_exact_log_partition(self):
    energy = rbm(d=6, num_hidden=4)
    energy = energy.replace(
      params=jax.tree.map(lambda p: 10 * p, energy.params)
    )
    exact = float(energies.exact_log_partition(energy))
    options = dict(num_chains=400, num_temperatures=200, step_size=0.4)
    draws = energy.apply_fn(
      energy.params, jax.random.key(1), 400, method='sample'
    )
    below = energies.ais_log_partition(energy, jax.random.key(2), **options)
    above = energies.ais_log_partition(
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
    self.assertAlmostEqual(float(metrics.energy_distance(x, y)), 0, delta=0.01)
    self.assertAlmostEqual(
      float(metrics.energy_distance(x, y + 3)), expected, delta=0.15
    )

  def test_energy_distance_of_bytes(self):
    # 2 (5 + 255 + 245 + 5) / 4 - 250 - 250; in bytes the differences wrap.
    x, y = np.array([[0], [250]], np.uint8), np.array([[5], [255]], np.uint8)
    self.assertEqual(float(metrics.energy_distance(x, y)), -245)

  def test_energy_distance_of_half_precision(self):
    # 300^2 pairs are more than float16 can count.
    x, y = np.random.default_rng(0).normal(size=(2, 300, 2))
    x, y = x.astype(np.float16), (y + 0.2).astype(np.float16)
    apart = lambda a, b: np.linalg.norm(
      np.float64(a)[:, None] - np.float64(b)[None], axis=-1
    )
    within = lambda a: apart(a, a).sum() / (300 * 299)
    expected = 2 * apart(x, y).mean() - within(x) - within(y)
    found = metrics.energy_distance(jnp.asarray(x), jnp.asarray(y))
    self.assertEqual(found.dtype, jnp.float32)
    # A mean distance is about 2, and single precision has 6e-8 of it.
    self.assertAlmostEqual(float(found), expected, delta=4e-6)

  def test_energy_distance_has_a_slope_where_points_coincide(self):
    # On a line d/dx |x - y| = sign: 2 E|x - y| = (|x0| + |x0 - 2| + |x1| + |x1 - 2|)
    # / 2 and E|x - x'| = |x0 - x1|, at x = (0, 3).
    x, y = jnp.array([[0.0], [3.0]]), jnp.array([[0.0], [2.0]])
    slope = jax.grad(metrics.energy_distance)(x, y)
    np.testing.assert_allclose(slope, [[-0.5 + 1], [1 - 1]], atol=1e-6)

  def test_energy_distance_of_blocks(self):
    points = jax.ShapeDtypeStruct((3000, 2), jnp.float32)
    program = str(jax.make_jaxpr(metrics.energy_distance)(points, points))
    self.assertNotIn('[3000,3000', program)

  @parameterized.parameters(
    ((1, 2), (3, 2), '1 and 3 points'),
    ((3, 2), (0, 2), '3 and 0 points'),
    ((3,), (3,), r'\[n, d\]'),
    ((3, 2), (3, 1), r'\(3, 2\) and \(3, 1\)'),
  )
  def test_energy_distance_refuses(self, shape, other, message):
    with self.assertRaisesRegex(ValueError, message):
      metrics.energy_distance(np.zeros(shape), np.zeros(other))

  def test_log_mean_exp_of_none(self):
    with self.assertRaisesRegex(ValueError, 'no weights'):
      samplers.log_mean_exp(np.zeros(0))

  def test_log_mean_exp_of_half_precision(self):
    # 70,000 is no float16.
    values = jnp.full(70000, 3.0, jnp.float16)
    self.assertAlmostEqual(float(samplers.log_mean_exp(values)), 3, 5)

  def test_log_mean_exp(self):
    values = np.array([0.3, -2.0, 1.5], np.float32)
    self.assertAlmostEqual(
      float(samplers.log_mean_exp(values)), np.log(np.exp(values).mean()), 6
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
    said = judges.judged(self.judge, samples, data, labels=asked)
    self.assertAlmostEqual(said['inception_score'], 2, 5)
    self.assertAlmostEqual(said['inception_score_of_data'], 4, 5)
    self.assertAlmostEqual(said['class_entropy'], np.log(2), 5)
    self.assertEqual(said['own_label'], 0.5)
    self.assertGreater(said['frechet_distance'], 0)

  def test_data_judged_by_themselves_are_perfect(self):
    data = self.images(np.arange(40) % 4)
    said = judges.judged(self.judge, data, data)
    self.assertAlmostEqual(said['frechet_distance'], 0, 5)
    self.assertEqual(said['precision'], 1)
    self.assertEqual(said['coverage'], 1)
    self.assertNotIn('own_label', said)

  @parameterized.parameters(
    (np.arange(39) % 4, r'\(39,\); wanted: \(40,\)'),
    (np.zeros((40, 1), int), r'integers \[n\]'),
    (np.full(40, 4), '=4 must be in 0, ..., 3'),
  )
  def test_labels_that_are_none_of_the_samples(self, labels, message):
    data = self.images(np.arange(40) % 4)
    with self.assertRaisesRegex(ValueError, message):
      judges.judged(self.judge, data, data, labels=labels)

  def test_a_judge_that_says_too_little(self):
    data = self.images(np.arange(40) % 4)
    judge = lambda rows: (self.judge(rows)[0], self.judge(rows)[1][:1])
    with self.assertRaisesRegex(ValueError, r'logits have shape \(1, 4\)'):
      judges.judged(judge, data, data)

  def test_logits_that_are_nan_are_no_hits(self):
    data = self.images(np.arange(40) % 4)

    def judge(rows):
      features, logits = self.judge(rows)
      logits[0, 0] = np.nan  # whose place argmax would give
      return features, logits

    labels = np.arange(40) % 4
    said = judges.judged(judge, data, data, labels=labels)
    for name in ('own_label', 'inception_score', 'class_entropy'):
      self.assertTrue(np.isnan(said[name]), name)

  def test_inception_is_given_bytes_of_what_is_in_the_unit_range(self):
    rows = np.ones((1, 2, 2, 3), np.uint8)
    with (
      mock.patch.object(inception, 'load'),
      mock.patch.object(inception, 'activations') as activations,
    ):
      judges.inception_judge('file')(5 * rows)
    # 5 * 255 = 1275, which as a byte is 251; `activations` refuses it.
    self.assertEqual(activations.call_args.args[1].max(), 1275)

  def test_diversity_of_a_remembered_image_is_zero(self):
    data = self.images(np.arange(40) % 4)
    copies = np.repeat(data[:1], 10, 0)
    found = metrics.diversity(copies, data, data)
    self.assertEqual(found['samples/pairwise_distance'], 0)
    self.assertEqual(found['samples/nearest_training'], 0)
    self.assertGreater(found['data/pairwise_distance'], 0.5)


class RecoveredTest(parameterized.TestCase):
  """Images of one value in [-1, 1]: a luminance alone, without a structure."""

  section = dict(name='synthetic', pixels='symmetric')

  def constant(self, *values):
    ones = np.ones((len(values), 12, 12, 1), np.float32)
    return ones * np.reshape(2 * np.array(values) - 1, (-1, 1, 1, 1))

  def test_by_hand(self):
    # Off by 0.1 and, once cut to 1, by 0.05: 20 dB, and 10 log10(400).
    data, samples = self.constant(0.5, 0.95), self.constant(0.6, 1.3)
    found = evaluation.recovered(samples, {'image': data}, self.section)
    decibels = (20 + 26.0206) / 2
    # Without variances (2 a b + K_1^2) / (a^2 + b^2 + K_1^2) is left.
    similarity = [0.6001 / 0.6101, 1.9001 / (0.95**2 + 1.0001)]
    self.assertEqual(set(found), {'samples/psnr', 'samples/ssim'})
    self.assertAlmostEqual(found['samples/psnr'], decibels, delta=1e-3)
    self.assertAlmostEqual(
      found['samples/ssim'], np.mean(similarity), delta=1e-5
    )

  def test_pasted(self):
    # Half of the pixels are known: half the squared error is left, 3.0103 dB.
    data, samples = self.constant(0.5, 0.5), self.constant(0.6, 0.4)
    mask = np.zeros_like(data)
    mask[:, :6] = 1
    batch = {'image': data, 'mask': mask}
    found = evaluation.recovered(samples, batch, self.section)
    self.assertAlmostEqual(found['samples/psnr'], 20, delta=1e-3)
    self.assertAlmostEqual(found['samples/psnr_pasted'], 23.0103, delta=1e-3)
    self.assertBetween(found['samples/ssim'], 0, 0.99)
    self.assertNotEqual(found['samples/ssim_pasted'], found['samples/ssim'])
    all_known = {**batch, 'mask': np.ones_like(mask)}
    found = evaluation.recovered(samples, all_known, self.section)
    # Variances are at least 1e-14 to the package, beside C_2 = 9e-4.
    self.assertAlmostEqual(found['samples/ssim_pasted'], 1, delta=1e-10)
    self.assertEqual(found['samples/psnr_pasted'], np.inf)
    none_known = {**batch, 'mask': np.zeros_like(mask)}
    found = evaluation.recovered(samples, none_known, self.section)
    for name in ('psnr', 'ssim'):
      self.assertEqual(
        found[f'samples/{name}_pasted'], found[f'samples/{name}']
      )

  @parameterized.parameters(np.nan, 0.5, 255)
  def test_a_mask_of_other_values(self, value):
    data = self.constant(0.5)
    batch = {'image': data, 'mask': np.full_like(data, value)}
    with self.assertRaisesRegex(ValueError, 'mask must be 0'):
      evaluation.recovered(data, batch, self.section)


class SamplerTest(parameterized.TestCase):
  @parameterized.parameters((3, 3), (8, 5))
  def test_one_sample_for_each_condition(self, asked, given):
    condition = np.arange(20, dtype=np.float32).reshape(5, 2, 2, 1) / 20
    source = datasets.Arrays({'image': condition, 'condition': condition})
    drawn = self.sampler(source, asked)(7)
    self.assertEqual(drawn['num'], given)
    self.assertEqual(drawn['num_steps'], 2)
    np.testing.assert_array_equal(drawn['condition'], condition[:given])
    self.assertEqual(drawn['state'], 7)

  def test_as_many_as_asked_without(self):
    source = datasets.Arrays({'image': np.zeros((5, 2, 2, 1), np.float32)})
    drawn = self.sampler(source, 8)(7)
    self.assertEqual(drawn['num'], 8)
    self.assertIsNone(drawn['condition'])

  def test_nothing_to_draw(self):
    source = datasets.Arrays({'image': np.zeros((5, 2))})
    algorithm = types.SimpleNamespace()
    self.assertIsNone(evaluation.sampler(algorithm, None, source)(7))

  def sampler(self, source, asked):
    """Returns the sampler of an algorithm that returns what it is given."""

    def sample(state, rng, num, *, num_steps, condition=None):
      del rng
      return dict(
        state=state, num=num, num_steps=num_steps, condition=condition
      )

    config = types.SimpleNamespace(
      seed=0,
      sample={'num_steps': 2},
      evaluation=types.SimpleNamespace(num_samples=asked),
    )
    return evaluation.sampler(
      types.SimpleNamespace(sample=sample), config, source
    )


class PicturesTest(parameterized.TestCase):
  def test_labels_are_not_what_samples_are_made_of(self):
    source = datasets.load('digits', condition='label')
    self.assertIsNone(pictures.image_condition(source[:3]))
    self.assertIsNone(pictures.image_condition({'image': np.zeros((3, 2))}))
    batch = datasets.load('synthetic', pairs=True)[:3]
    self.assertIs(pictures.image_condition(batch), batch['condition'])

  def test_of_data_of_one_value(self):
    data = np.zeros((2, 3, 3, 1), np.float32)
    with warnings.catch_warnings():
      warnings.simplefilter('error')
      picture = pictures.picture(data, {'image': data})
    self.assertEqual(images.read_png(picture).min(), 0)

  def test_strips_have_a_row_each(self):
    # Two paths of three images of 2 x 1 pixels, with 2 pixels around each.
    paths = np.arange(12).reshape(2, 3, 2, 1, 1) / 51  # 5 levels of grey apart
    page = images.strips(paths)
    expected = np.full((2 * 4 + 2, 3 * 3 + 2), 255)
    for path in range(2):
      for time in range(3):
        first = 10 * (3 * path + time)
        top, left = 2 + 4 * path, 2 + 3 * time
        expected[top : top + 2, left] = [first, first + 5]
    self.assertEqual(page.dtype, np.uint8)
    np.testing.assert_array_equal(page, np.stack([expected] * 3, -1))

  @parameterized.parameters((5, 5), (10, 8))
  def test_recovery_page(self, num, shown):
    # Rows of conditions, samples and true images, each pixel twice.
    value = lambda base: np.broadcast_to(
      base + np.arange(num, dtype=np.float32).reshape(-1, 1, 1, 1) / 50,
      (num, 4, 3, 3),
    )
    batch = {'condition': value(0.0), 'image': value(0.8)}
    page = images.read_png(
      pictures.recovery_page(value(0.4), batch, dict(name='synthetic'))
    )
    self.assertEqual(page.shape, (2 * (3 * 6 + 2), 2 * (shown * 5 + 2), 3))
    for row, base in enumerate((0.0, 0.4, 0.8)):
      corner = 2 * (2 + 6 * row)
      greys = np.round(255 * (base + np.arange(shown) / 50))
      np.testing.assert_array_equal(page[corner, 4::10, 0][:shown], greys)


class EvaluateTest(parameterized.TestCase):
  @parameterized.parameters('stein_cd_mnist', 'svgd_toy', 'amortized_svgd_toy')
  def test_writes_numbers_samples_and_a_page_that_stands_alone(self, name):
    self.check(name)

  @parameterized.parameters(
    'contrastive_divergence_toy', 'steingan_mnist_joint'
  )
  @pytest.mark.slow
  def test_so_do_longer_ones(self, name):
    self.check(name)

  def check(self, name):
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
