"""Judges of samples against known posteriors."""

from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from stein_jax import inception
from stein_jax import metrics
from stein_jax.runs import judges


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

  def test_scores_say_what_they_depend_on(self):
    judge = judges.Network(self.judge, 'four classes')
    images = self.images(np.arange(40) % 4)
    self.assertEqual(
      judges.judged(judge, images, images),
      judges.judged(self.judge, images, images),
    )
    self.assertEqual(
      judges.described(judge, 2500, 40_000),
      'four classes; 2500 samples beside 40000 data, inception score of 2 parts, '
      'precision to coverage of the first 5000',
    )
    for silent in ('', ' ', None, 3):
      self.assertStartsWith(
        judges.described(judges.Network(self.judge, silent), 40, 40),
        'a function that says nothing of itself; 40 samples',
      )
    self.assertIn(
      'says nothing of itself; 40 samples', judges.described(self.judge, 40, 40)
    )

  def test_a_checksum_is_that_of_every_parameter(self):
    params = {'b': np.zeros(3, np.float32), 'a': {'c': np.ones(2, np.float32)}}
    whole = judges._checksum(params)
    self.assertEqual(whole, judges._checksum(dict(reversed(params.items()))))
    other = {**params, 'a': {'c': np.array([1, 1 + 1e-6], np.float32)}}
    self.assertNotEqual(whole, judges._checksum(other))


if __name__ == '__main__':
  absltest.main()
