"""Metrics against closed forms and literal definitions in NumPy."""

import contextlib
import io
import itertools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
from scipy import linalg
from scipy import stats

from stein_jax import metrics

KEY = jax.random.key(0)


def normal(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape)


def binary_logits(*probabilities):
  """Returns logits [n, 2] of the first class's probabilities."""
  p = np.array(probabilities)
  return np.log(np.stack([p, 1 - p], 1))


def slow_inception_score(logits, bounds):
  """The definition, on the probabilities."""
  p = np.exp(logits)
  p = p / p.sum(1, keepdims=True)
  scores = []
  for first, last in itertools.pairwise(bounds):
    part = p[first:last]
    kl = [np.sum(row * np.log(row / part.mean(0))) for row in part]
    scores.append(np.exp(np.mean(kl)))
  return np.mean(scores), np.std(scores)


class InceptionScoreTest(parameterized.TestCase):
  def test_uniform_predictions_score_one(self):
    mean, spread = metrics.inception_score(np.full((40, 7), 3.0))
    self.assertAlmostEqual(mean, 1, 12)
    self.assertAlmostEqual(spread, 0, 12)

  @parameterized.parameters(30.0, 1e4, 1e30)
  def test_certain_and_balanced_predictions_score_the_classes(self, height):
    # At height 30 the rest has probability 4e-13, by which a KL may miss log 5.
    logits = np.tile(height * np.eye(5, dtype=np.float32), (6, 1))
    mean, spread = metrics.inception_score(logits, num_splits=3)
    self.assertAlmostEqual(mean, 5, 9)
    self.assertAlmostEqual(spread, 0, 9)

  def test_two_classes_by_hand(self):
    # First part: p(y) = (0.55, 0.45). Second: both rows alike, so KL = 0.
    logits = binary_logits(0.9, 0.2, 0.6, 0.6)
    first = np.exp(
      0.5 * (0.9 * np.log(0.9 / 0.55) + 0.1 * np.log(0.1 / 0.45))
      + 0.5 * (0.2 * np.log(0.2 / 0.55) + 0.8 * np.log(0.8 / 0.45))
    )
    mean, spread = metrics.inception_score(logits, num_splits=2)
    self.assertAlmostEqual(mean, (first + 1) / 2, 12)
    self.assertAlmostEqual(spread, (first - 1) / 2, 12)

  @parameterized.parameters(
    (1, (0, 11)), (3, (0, 3, 7, 11)), (4, (0, 2, 5, 8, 11))
  )
  def test_definition_with_uneven_parts(self, num_splits, bounds):
    logits = 2 * normal(11, 4)
    np.testing.assert_allclose(
      metrics.inception_score(logits, num_splits),
      slow_inception_score(logits, bounds),
      rtol=1e-12,
    )

  def test_logits_count_up_to_a_constant_per_row(self):
    logits = normal(20, 3)
    shifted = logits + 1000 * normal(20, 1, seed=1)
    np.testing.assert_allclose(
      metrics.inception_score(shifted),
      metrics.inception_score(logits),
      rtol=1e-10,
    )

  def test_one_error_among_certain_predictions_is_finite(self):
    # p(y) = (3/4, 1/4): E KL is its entropy.
    logits = np.array([[1e4, 0], [1e4, 0], [0, 1e4], [1e4, 0]], np.float32)
    mean, _ = metrics.inception_score(jnp.asarray(logits), num_splits=1)
    self.assertAlmostEqual(mean, np.exp(stats.entropy([0.75, 0.25])), 9)

  def test_a_class_of_probability_zero_adds_nothing(self):
    # Two classes, each sure for half of the rows; the third never comes.
    logits = np.full((6, 3), -np.inf, np.float32)
    logits[:3, 0], logits[3:, 1] = 5, 7
    self.assertAlmostEqual(metrics.inception_score(logits, 1)[0], 2, 12)
    # p(y) = (3/4, 1/4): rows (1, 0) and (1/2, 1/2).
    logits = np.array([[0, -np.inf], [0, 0]])
    expected = 0.5 * np.log(4 / 3) + 0.25 * np.log(2 / 3) + 0.25 * np.log(2)
    self.assertAlmostEqual(
      metrics.inception_score(logits, 1)[0], np.exp(expected), 12
    )

  @parameterized.parameters([[[np.nan, 1.0]]], [[[-np.inf, -np.inf]]])
  def test_rows_without_probabilities_make_nan(self, row):
    logits = np.concatenate([np.zeros((3, 2)), row])
    self.assertTrue(np.isnan(metrics.inception_score(logits, 1)[0]))

  def test_refusals(self):
    with self.assertRaisesRegex(ValueError, '4 rows.*num_splits=5'):
      metrics.inception_score(np.zeros((4, 2)), num_splits=5)
    with self.assertRaisesRegex(ValueError, 'num_splits=0'):
      metrics.inception_score(np.zeros((4, 2)), num_splits=0)
    with self.assertRaisesRegex(ValueError, 'logits must be'):
      metrics.inception_score(np.zeros(4))


def matched(n, mean, covariance, seed=0):
  """Returns n points whose own mean and covariance are exactly those given."""
  z = normal(n, len(mean), seed=seed)
  z, _ = np.linalg.qr(z - z.mean(0))
  return mean + np.sqrt(n - 1) * z @ np.linalg.cholesky(covariance).T


def covariance(f, seed):
  factor = normal(f, f, seed=seed)
  return factor @ factor.T + 0.1 * np.eye(f)


class FrechetDistanceTest(parameterized.TestCase):
  @parameterized.parameters(1, 2, 6)
  def test_two_gaussians(self, f):
    mean_x, mean_y = normal(2, f)
    cov_x, cov_y = covariance(f, 1), covariance(f, 2)
    expected = np.sum((mean_x - mean_y) ** 2) + np.trace(
      cov_x + cov_y - 2 * linalg.sqrtm(cov_x @ cov_y).real
    )
    x = matched(20, mean_x, cov_x, seed=3)
    y = matched(31, mean_y, cov_y, seed=4)
    self.assertAlmostEqual(metrics.frechet_distance(x, y), expected, 10)

  def test_commuting_covariances_by_hand(self):
    # |(3, 4)|^2 + (2 - 1)^2 + (3 - 5)^2 with standard deviations.
    x = matched(10, np.zeros(2), np.diag([4.0, 9.0]), seed=1)
    y = matched(12, np.array([3.0, 4.0]), np.diag([1.0, 25.0]), seed=2)
    self.assertAlmostEqual(metrics.frechet_distance(x, y), 25 + 1 + 4, 10)

  def test_covariances_of_rank_one_by_hand(self):
    # Rows +-u have covariance 2uu', and |(2uu' 2vv')^(1/2)| = 2 |u'v|.
    u, v = np.array([1.0, 2.0, 0.0]), np.array([3.0, -1.0, 1.0])
    expected = 2 * u @ u + 2 * v @ v - 4 * abs(u @ v)
    self.assertAlmostEqual(
      metrics.frechet_distance(np.stack([u, -u]), np.stack([v, -v])),
      expected,
      12,
    )

  @parameterized.parameters((5, 40), (4, 9))
  def test_fewer_rows_than_features(self, n, m):
    x, y = normal(n, 12), 1 + 2 * normal(m, 12, seed=1)
    cov_x, cov_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    values, vectors = np.linalg.eigh(cov_x)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    inner = np.maximum(np.linalg.eigvalsh(root @ cov_y @ root), 0)
    expected = np.sum((x.mean(0) - y.mean(0)) ** 2)
    expected += np.trace(cov_x + cov_y) - 2 * np.sqrt(inner).sum()
    # The reference takes roots of eigenvalues 1e-16 about 0.
    self.assertAlmostEqual(metrics.frechet_distance(x, y), expected, 5)

  @parameterized.parameters(1e-5, 1e-9, 0.0)
  def test_nearly_singular_covariances_by_hand(self, small):
    # With commuting covariances the squared differences of standard deviations add up.
    # Rows are exact to roundings of 3, of which the least deviation is the smallest.
    stds = np.array([[3.0, 1.0, small, 2.0], [1.0, 1.0, 4 * small, 2 * small]])
    rotation, _ = np.linalg.qr(normal(4, 4, seed=5))
    x, y = (
      matched(40, np.zeros(4), np.eye(4), seed=i) * std @ rotation
      for i, std in enumerate(stds)
    )
    expected = np.sum((stds[0] - stds[1]) ** 2)
    self.assertAlmostEqual(metrics.frechet_distance(x, y), expected, 12)
    self.assertAlmostEqual(metrics.frechet_distance(y, x), expected, 12)

  def test_dead_and_repeated_features(self):
    x, y = normal(60, 5), 1 + 2 * normal(50, 5, seed=1)
    dead = lambda rows: np.pad(rows, ((0, 0), (0, 3)), constant_values=7.0)
    self.assertAlmostEqual(
      metrics.frechet_distance(dead(x), dead(y)),
      metrics.frechet_distance(x, y),
      10,
    )
    # Each feature twice is a rotation of the feature times the root of 2, and 0.
    self.assertAlmostEqual(
      metrics.frechet_distance(np.tile(x, 2), np.tile(y, 2)),
      2 * metrics.frechet_distance(x, y),
      10,
    )

  @parameterized.parameters((50, 4), (5, 30))
  def test_zero_for_equal_sets_in_any_order(self, n, f):
    x = normal(n, f).astype(np.float32)
    value = metrics.frechet_distance(x, x[::-1])
    self.assertGreaterEqual(value, 0)
    self.assertLess(value, 1e-10)

  def test_rotations_and_translations_of_both_do_not_matter(self):
    x, y = normal(30, 5), 1 + 3 * normal(40, 5, seed=1)
    rotation, _ = np.linalg.qr(normal(5, 5, seed=2))
    self.assertAlmostEqual(
      metrics.frechet_distance(x @ rotation + 7, y @ rotation + 7),
      metrics.frechet_distance(x, y),
      10,
    )

  def test_what_is_not_finite_makes_nan(self):
    x, y = normal(2, 10, 3)
    y[3, 1] = np.inf
    self.assertTrue(np.isnan(metrics.frechet_distance(x, y)))

  def test_refusals(self):
    with self.assertRaisesRegex(ValueError, '2 rows'):
      metrics.frechet_distance(np.zeros((1, 3)), np.zeros((5, 3)))
    with self.assertRaisesRegex(ValueError, r'\(5, 3\) and \(5, 4\)'):
      metrics.frechet_distance(np.zeros((5, 3)), np.zeros((5, 4)))


def slow_manifold_metrics(real, fake, k):
  """The four definitions, from all distances."""
  distance = lambda a, b: np.linalg.norm(a[:, None] - b[None], axis=-1)
  radius = lambda a: np.sort(distance(a, a), 1)[:, k]  # 0 is the point itself
  between = distance(real, fake)
  in_real = between < radius(real)[:, None]
  in_fake = between < radius(fake)[None]
  return {
    'precision': in_real.any(0).mean(),
    'recall': in_fake.any(1).mean(),
    'density': in_real.sum(0).mean() / k,
    'coverage': in_real.any(1).mean(),
  }


class ManifoldMetricsTest(parameterized.TestCase):
  def test_by_hand_on_a_line(self):
    # Radii are 1, 1, 2, 10 and 3.5, 3.5, 96. Of the fakes 0.5 is in the balls
    # of 0 and 1, 4 in that of 3, 100 in none. The real -10 is in no fake ball,
    # and none is in its own.
    real = np.array([[0.0], [1.0], [3.0], [-10.0]])
    fake = np.array([[0.5], [4.0], [100.0]])
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
      values = metrics.manifold_metrics(real, fake, nearest_k=1)
    expected = dict(precision=2 / 3, recall=3 / 4, density=1, coverage=3 / 4)
    self.assertEqual(values.keys(), expected.keys())
    for name in expected:
      self.assertAlmostEqual(values[name], expected[name], 12, name)
    self.assertEmpty(printed.getvalue())

  @parameterized.parameters(1, 3, 5)
  def test_definitions(self, k):
    real, fake = normal(40, 3), 0.5 + normal(30, 3, seed=1)
    values = metrics.manifold_metrics(
      jnp.asarray(real), jnp.asarray(fake), nearest_k=k
    )
    expected = slow_manifold_metrics(real, fake, k)
    for name in expected:
      self.assertAlmostEqual(values[name], expected[name], 12, name)

  @parameterized.parameters(np.nan, np.inf)
  def test_what_is_not_finite_makes_nan(self, value):
    x, y = normal(2, 10, 3)
    x[4, 1] = value
    for sets in ((x, y), (y, x)):
      values = metrics.manifold_metrics(*sets, nearest_k=2)
      self.assertLen(values, 4)
      self.assertTrue(np.isnan(list(values.values())).all())

  def test_laws_far_apart_share_nothing(self):
    values = metrics.manifold_metrics(normal(20, 2), 100 + normal(20, 2))
    self.assertEqual(set(values.values()), {0.0})

  def test_a_collapsed_sampler_is_precise_without_recall(self):
    real = normal(200, 2)
    fake = real[:1] + 1e-3 * normal(200, 2, seed=1)
    values = metrics.manifold_metrics(real, fake)
    self.assertEqual(values['precision'], 1)
    # At most the neighbourhood of one point.
    self.assertLess(values['recall'], 0.02)
    self.assertLess(values['coverage'], 0.2)

  def test_refusals(self):
    with self.assertRaisesRegex(ValueError, 'nearest_k=5 needs 7 rows'):
      metrics.manifold_metrics(np.zeros((6, 2)), np.zeros((9, 2)))
    with self.assertRaisesRegex(ValueError, 'nearest_k=0'):
      metrics.manifold_metrics(normal(9, 2), normal(9, 2), nearest_k=0)
    with self.assertRaisesRegex(ValueError, 'columns'):
      metrics.manifold_metrics(np.zeros((9, 2)), np.zeros((9, 3)))


class ClassHistogramTest(parameterized.TestCase):
  def test_shares_and_classes_never_predicted(self):
    logits = jnp.asarray([[3.0, 1, 0], [0, -1, -2], [-5, 1, 0], [9, 8, 7]])
    np.testing.assert_array_equal(
      metrics.class_histogram(logits), [0.75, 0.25, 0]
    )

  @parameterized.parameters([[np.nan, 2.0]], [[-np.inf, -np.inf]])
  def test_a_row_without_a_largest_logit_makes_nan(self, *row):
    shares = metrics.class_histogram(np.array([[1.0, 0], *row]))
    np.testing.assert_array_equal(shares, [np.nan, np.nan])
    self.assertTrue(np.isnan(metrics.histogram_entropy(shares)))

  @parameterized.parameters(
    ([3, 5], 'sum 8'),
    ([1.5, -0.5], '-0.5'),
    ([0.25, 0.25], 'sum 0.5'),
    ([[1.0]], r'\[k\].*\(1, 1\)'),
    ([], r'\[k\]'),
  )
  def test_entropy_refuses(self, fractions, message):
    with self.assertRaisesRegex(ValueError, message):
      metrics.histogram_entropy(fractions)

  def test_entropy(self):
    self.assertAlmostEqual(
      metrics.histogram_entropy(np.full(10, 0.1)), np.log(10), 12
    )
    self.assertEqual(metrics.histogram_entropy([0, 1.0, 0]), 0)
    # 1/2 log 2 + 2 (1/4 log 4)
    self.assertAlmostEqual(
      metrics.histogram_entropy([0.5, 0.25, 0.25]), 1.5 * np.log(2), 12
    )


class AccuracyTest(parameterized.TestCase):
  def test_share_of_hits(self):
    logits = np.array([[2.0, 1.0], [-np.inf, 0.0], [0.0, 0.0], [1.0, 2.0]])
    # The first of equal logits counts.
    for labels, share in (([0, 1, 0, 1], 1), ([0, 1, 1, 0], 0.5)):
      self.assertEqual(metrics.accuracy(logits, np.array(labels)), share)

  @parameterized.parameters(np.nan, np.inf)
  def test_without_a_largest_logit_it_is_nan(self, value):
    logits = np.array([[2.0, 1.0], [value, 0.0]])
    self.assertTrue(np.isnan(metrics.accuracy(logits, np.array([0, 0]))))

  @parameterized.parameters(
    ([0, 2], '=2 must be in 0, ..., 1'),
    ([0], r'\(1,\); wanted: \(2,\)'),
    ([0.0, 1.0], 'float64'),
  )
  def test_labels_that_are_refused(self, labels, message):
    with self.assertRaisesRegex(ValueError, message):
      metrics.accuracy(np.zeros((2, 2)), np.array(labels))


class CalibrationTest(parameterized.TestCase):
  @parameterized.parameters(15, 4, 1)
  def test_definition(self, num_bins):
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(200, 3))
    labels = rng.integers(0, 3, 200)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = 0.0
    for i in range(num_bins):
      low, high = i / num_bins, (i + 1) / num_bins
      rows = (p.max(1) > low) & (p.max(1) <= high)
      if rows.any():
        hits = np.mean(p[rows].argmax(1) == labels[rows])
        expected += rows.sum() / 200 * abs(hits - p[rows].max(1).mean())
    found = metrics.calibration_error(logits, labels, num_bins)
    self.assertAlmostEqual(found, expected, places=12)

  def test_sure_and_right_and_as_sure_as_right(self):
    sure = 50 * np.eye(3)
    self.assertAlmostEqual(metrics.calibration_error(sure, [0, 1, 2]), 0)
    self.assertAlmostEqual(metrics.calibration_error(sure, [1, 2, 0]), 1)
    # Three of four are right, and each is sure to 0.75.
    logits = np.log([[0.75, 0.25]] * 4)
    self.assertAlmostEqual(metrics.calibration_error(logits, [0, 0, 1, 0]), 0)

  def test_without_a_largest_logit_it_is_nan(self):
    logits = np.array([[2.0, 1.0], [np.nan, 0.0]])
    self.assertTrue(np.isnan(metrics.calibration_error(logits, [0, 0])))

  def test_refusals(self):
    with self.assertRaisesRegex(ValueError, '=2 must be in 0, ..., 1'):
      metrics.calibration_error(np.zeros((2, 2)), [0, 2])
    with self.assertRaisesRegex(ValueError, 'num_bins=0 must be at least 1'):
      metrics.calibration_error(np.zeros((2, 2)), [0, 1], 0)


class AurocTest(parameterized.TestCase):
  def test_is_the_share_of_pairs(self):
    rng = np.random.default_rng(0)
    inside, outside = rng.integers(2, 9, 30), rng.integers(0, 7, 40)
    pairs = inside[:, None] - outside[None]
    expected = np.mean((pairs > 0) + 0.5 * (pairs == 0))
    self.assertAlmostEqual(metrics.auroc(inside, outside), expected, places=12)
    self.assertAlmostEqual(
      metrics.auroc(outside, inside), 1 - expected, places=12
    )

  def test_infinite_scores_have_their_place(self):
    self.assertEqual(metrics.auroc([np.inf, 1.0], [-np.inf, 0.0]), 1)
    self.assertEqual(metrics.auroc([-np.inf], [-np.inf]), 0.5)

  def test_a_score_of_nan_makes_it_nan(self):
    self.assertTrue(np.isnan(metrics.auroc([1.0, np.nan], [0.0])))
    self.assertTrue(np.isnan(metrics.auroc([1.0], [np.nan])))

  def test_refusals(self):
    with self.assertRaisesRegex(ValueError, r'outside must be .*got \(0,\)'):
      metrics.auroc([1.0], [])
    with self.assertRaisesRegex(ValueError, r'inside must be .*got \(1, 1\)'):
      metrics.auroc([[1.0]], [1.0])


def slow_distances(x, y):
  x, y = (np.asarray(a, np.float64).reshape(len(a), -1) for a in (x, y))
  return np.linalg.norm(x[:, None] - y[None], axis=-1)


class DistanceTest(parameterized.TestCase):
  @parameterized.parameters(
    ((2, 3), None),
    ((9, 4, 4, 3), None),
    ((9, 4, 4, 3), 1),
    ((9, 4, 4, 3), 4),
  )
  def test_means_over_pairs_and_over_nearest(self, shape, block_size):
    # Offsets of 1e3 keep four decimals of float32 in the data itself.
    x = (1000 + normal(*shape)).astype(np.float32)
    distance = slow_distances(x, x)
    pairs = distance[np.triu_indices(len(x), 1)]
    self.assertAlmostEqual(
      metrics.pairwise_distance(x, block_size=block_size),
      pairs.mean(),
      delta=1e-4 * pairs.mean(),
    )
    np.fill_diagonal(distance, np.inf)
    self.assertAlmostEqual(
      metrics.nearest_neighbour_distance(x, block_size=block_size),
      distance.min(1).mean(),
      delta=1e-4 * pairs.mean(),
    )

  def test_by_hand_on_a_line(self):
    x = np.array([[0.0], [1.0], [3.0]])
    self.assertAlmostEqual(metrics.pairwise_distance(x), 2, 6)
    self.assertAlmostEqual(metrics.nearest_neighbour_distance(x), 4 / 3, 6)

  def test_one_row_repeated_is_at_zero(self):
    x = np.repeat(100 * normal(1, 50).astype(np.float32), 30, 0)
    self.assertEqual(metrics.pairwise_distance(x), 0)
    self.assertEqual(metrics.nearest_neighbour_distance(x), 0)

  def test_two_modes_of_copies(self):
    # 10 copies of each: 100 of the 190 pairs are the modes apart, 90 are at 0.
    modes = 10 * normal(2, 300).astype(np.float32)
    x = np.repeat(modes, 10, 0)
    apart = np.linalg.norm(modes[0] - modes[1])
    self.assertAlmostEqual(
      metrics.pairwise_distance(x) / apart, 100 / 190, delta=1e-3
    )
    self.assertEqual(metrics.nearest_neighbour_distance(x), 0)

  def test_small_distances_of_large_features(self):
    # Norms of 68 and a spread of 1e-2: the expanded square has an error of
    # about 1e-3 of the norm, the difference one of 1e-5, of the data itself.
    centers = normal(3, 128) * 6
    x = np.repeat(centers, 8, 0) + 1e-2 * normal(24, 128, seed=1)
    x = x.astype(np.float32)
    distance = slow_distances(x, x)
    np.fill_diagonal(distance, np.inf)
    # Another neighbour at about the same distance may be taken.
    self.assertAlmostEqual(
      metrics.nearest_neighbour_distance(x), distance.min(1).mean(), delta=0.03
    )

  def test_uint8_images_count_in_their_own_units(self):
    x = np.array([[[0, 3]], [[0, 0]], [[4, 0]]], np.uint8)
    self.assertAlmostEqual(metrics.pairwise_distance(x), 4, 6)
    self.assertAlmostEqual(metrics.nearest_neighbour_distance(x), 10 / 3, 6)

  def test_one_row_has_no_pair(self):
    for function in (
      metrics.pairwise_distance,
      metrics.nearest_neighbour_distance,
    ):
      with self.assertRaisesRegex(ValueError, 'n >= 2'):
        function(np.zeros((1, 3)))

  @parameterized.parameters(None, 1, 4)
  def test_nearest_training(self, block_size):
    train = normal(40, 5, 5, 1).astype(np.float32)
    x = normal(7, 5, 5, 1, seed=1).astype(np.float32)
    distances, indices = metrics.nearest_training(
      x, train, block_size=block_size
    )
    expected = slow_distances(x, train)
    np.testing.assert_array_equal(indices, expected.argmin(1))
    np.testing.assert_allclose(distances, expected.min(1), rtol=1e-5)

  @parameterized.parameters(0, 1e4)
  def test_memorised_samples_are_at_zero(self, offset):
    train = (offset + normal(40, 60)).astype(np.float32)
    wanted = np.array([5, 39, 0, 5])
    distances, indices = metrics.nearest_training(train[wanted], train)
    np.testing.assert_array_equal(indices, wanted)
    np.testing.assert_array_equal(distances, 0)

  def test_nan_is_nobodys_neighbour(self):
    x, train = normal(3, 2), normal(5, 2, seed=1)
    train[2, 0] = np.nan  # may be anywhere, so the nearest is not known
    distances, _ = metrics.nearest_training(x, train)
    np.testing.assert_array_equal(distances, np.full(3, np.nan))
    self.assertTrue(np.isnan(metrics.nearest_neighbour_distance(train)))
    self.assertTrue(np.isnan(metrics.pairwise_distance(train)))
    x[1, 0] = np.nan
    distances, _ = metrics.nearest_training(x, normal(5, 2, seed=1))
    np.testing.assert_array_equal(np.isnan(distances), [False, True, False])

  def test_samples_unlike_the_training_data_are_refused(self):
    with self.assertRaisesRegex(ValueError, 'differ'):
      metrics.nearest_training(np.zeros((2, 3)), np.zeros((2, 4)))
    with self.assertRaisesRegex(ValueError, 'n >= 1'):
      metrics.nearest_training(np.zeros((2, 3)), np.zeros((0, 3)))


class PsnrTest(parameterized.TestCase):
  def test_by_hand(self):
    # Errors of 1/10 everywhere, and of 1 in one of 4 * 5 * 3 numbers.
    x = np.zeros((2, 4, 5, 3))
    y = x.copy()
    y[0] = 0.1
    y[1, 2, 3, 1] = 1
    expected = [20, 10 * np.log10(60)]
    np.testing.assert_allclose(metrics.psnr(x, y), expected, rtol=1e-12)

  def test_the_range_does_not_matter_when_span_tells_it(self):
    x, y = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 4, 1), np.uint8)
    expected = metrics.psnr(x / 255, y / 255)
    np.testing.assert_allclose(metrics.psnr(x, y, span=255), expected)
    np.testing.assert_allclose(
      metrics.psnr(x / 127.5 - 1, y / 127.5 - 1, span=2), expected
    )

  def test_bytes_are_not_in_the_unit_range(self):
    x = np.array([0, 9], np.uint8).reshape(2, 1, 1, 1)
    with self.assertRaisesRegex(ValueError, r'\[0.0, 9.0\].*span=1.0'):
      metrics.psnr(x, x)

  def test_extremes(self):
    ones = np.ones((1, 2, 2, 1))
    np.testing.assert_array_equal(metrics.psnr(ones, ones), [np.inf])
    np.testing.assert_array_equal(metrics.psnr(ones, 0 * ones), [0])


def slow_ssim(x, y, span):
  """The definition of [WBSS04], window by window, of one channel [h, w]."""
  line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
  weights = np.outer(line, line) / line.sum() ** 2
  c_1, c_2 = (0.01 * span) ** 2, (0.03 * span) ** 2
  values = []
  for top, left in np.ndindex(x.shape[0] - 10, x.shape[1] - 10):
    a, b = (z[top : top + 11, left : left + 11] for z in (x, y))
    mean_a, mean_b = np.sum(weights * a), np.sum(weights * b)
    var_a = np.sum(weights * (a - mean_a) ** 2)
    var_b = np.sum(weights * (b - mean_b) ** 2)
    cov = np.sum(weights * (a - mean_a) * (b - mean_b))
    values.append(
      (2 * mean_a * mean_b + c_1)
      * (2 * cov + c_2)
      / ((mean_a**2 + mean_b**2 + c_1) * (var_a + var_b + c_2))
    )
  return np.mean(values)


class SsimTest(parameterized.TestCase):
  @parameterized.parameters(
    (11, 11, 1, 1.0), (13, 16, 3, 1.0), (12, 11, 2, 255)
  )
  def test_definition(self, height, width, channels, span):
    x = span * np.random.default_rng(0).random((2, height, width, channels))
    y = np.clip(x + 0.2 * span * normal(*x.shape, seed=1), 0, span)
    expected = [
      np.mean([slow_ssim(a[..., i], b[..., i], span) for i in range(channels)])
      for a, b in zip(x, y, strict=True)
    ]
    np.testing.assert_allclose(metrics.ssim(x, y, span=span), expected, 1e-10)

  def test_extremes(self):
    x = np.random.default_rng(0).random((2, 12, 12, 3)).astype(np.float32)
    np.testing.assert_allclose(metrics.ssim(x, x), 1, rtol=1e-12)
    # Without variance what is left is C_1 / (1 + C_1), C_1 = 1e-4.
    np.testing.assert_allclose(
      metrics.ssim(np.zeros_like(x), np.ones_like(x)), 1e-4 / (1 + 1e-4)
    )

  def test_bytes(self):
    x, y = np.random.default_rng(0).integers(
      0, 256, (2, 1, 12, 12, 1), np.uint8
    )
    np.testing.assert_allclose(
      metrics.ssim(x, y, span=255), metrics.ssim(x / 255, y / 255), rtol=1e-10
    )

  @parameterized.parameters((-1.0, 2.0), (0.0, 255.0), (100.0, 1e-3))
  def test_the_same_images_in_another_range(self, low, span):
    x, y = np.random.default_rng(0).random((2, 2, 12, 13, 1))
    expected = metrics.ssim(x, y)
    found = metrics.ssim(low + span * x, low + span * y, span=span, low=low)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    # Images and their negatives are about mid-grey what they are not about 0.
    found = metrics.ssim(2 * x - 1, 1 - 2 * x, span=2, low=-1)
    np.testing.assert_allclose(found, metrics.ssim(x, 1 - x), atol=1e-9)
    self.assertTrue(np.all(found < -0.9))

  @parameterized.parameters(
    ({'span': 2.0}, r'\[-1.0, 1.0\].*\[0.0, 2.0\]'),
    ({'low': -1.0}, r'\[-1.0, 1.0\], wider than span=1.0'),
    ({'low': -2.0, 'span': 2.5}, r'say \[-2.0, 0.5\]'),
    ({'span': 2.0, 'low': np.nan}, 'low=nan'),
  )
  def test_pixels_outside_the_range(self, options, message):
    x = np.linspace(-1, 1, 144).reshape(1, 12, 12, 1)
    with self.assertRaisesRegex(ValueError, message):
      metrics.ssim(x, x, **options)


class PairsTest(parameterized.TestCase):
  @parameterized.parameters(metrics.psnr, metrics.ssim)
  def test_nan_is_its_images_own(self, metric):
    x, y = np.random.default_rng(0).random((2, 3, 12, 12, 1))
    y[1, 3, 4] = np.nan
    np.testing.assert_array_equal(np.isnan(metric(x, y)), [False, True, False])

  @parameterized.parameters(metrics.psnr, metrics.ssim)
  def test_refusals(self, metric):
    x = np.zeros((2, 12, 12, 3))
    with self.assertRaisesRegex(ValueError, 'Shapes differ'):
      metric(x, x[:1])
    for bad in (x[0], x[:0], x[..., None]):
      with self.assertRaisesRegex(ValueError, r'\[n, h, w, c\]'):
        metric(bad, bad)
    with self.assertRaisesRegex(ValueError, 'span=0'):
      metric(x, x, span=0)

  def test_images_smaller_than_the_window(self):
    with self.assertRaisesRegex(ValueError, r'11 x 11.*\(1, 12, 10, 3\)'):
      metrics.ssim(*np.zeros((2, 1, 12, 10, 3)))


def slow_energy_distance(x, y):
  """The V-statistic, from all distances."""
  between, within_x, within_y = (
    slow_distances(a, b).mean() for a, b in ((x, y), (x, x), (y, y))
  )
  return 2 * between - within_x - within_y


# Compiling it whole takes less time than its operations one by one.
two_sample_test = jax.jit(
  metrics.two_sample_test, static_argnames=('num_permutations', 'block_size')
)


class TwoSampleTest(parameterized.TestCase):
  @parameterized.parameters(None, 1, 5)
  def test_statistic_and_bounds_of_p(self, block_size):
    x, y = normal(9, 3), 0.5 + normal(13, 3, seed=1)
    statistic, p_value = two_sample_test(
      jax.random.key(0),
      jnp.asarray(x, jnp.float32),
      jnp.asarray(y, jnp.float32),
      num_permutations=19,
      block_size=block_size,
    )
    self.assertAlmostEqual(float(statistic), slow_energy_distance(x, y), 5)
    self.assertAlmostEqual(20 * float(p_value) % 1, 0, 5)
    self.assertBetween(float(p_value), 0.05, 1)

  def test_on_a_line_it_is_the_distance_of_distribution_functions(self):
    x, y = normal(30, 1), 2 * normal(20, 1, seed=1)
    statistic, _ = two_sample_test(
      jax.random.key(0), jnp.asarray(x), jnp.asarray(y), num_permutations=1
    )
    expected = stats.energy_distance(x[:, 0], y[:, 0]) ** 2
    self.assertAlmostEqual(float(statistic), expected, 5)

  def test_it_differs_from_the_unbiased_one_by_the_pairs_left_out(self):
    x, y = jnp.asarray(normal(6, 2)), jnp.asarray(normal(8, 2, seed=1))
    statistic, _ = two_sample_test(jax.random.key(0), x, y, num_permutations=1)
    # A mean over n (n - 1) pairs is that over n^2 times n / (n - 1).
    left_out = slow_distances(x, x).mean() / 5 + slow_distances(y, y).mean() / 7
    self.assertAlmostEqual(
      float(statistic) - left_out, float(metrics.energy_distance(x, y)), 5
    )

  def test_p_is_that_of_all_splits(self):
    x, y = normal(4, 2), 0.8 + normal(4, 2, seed=1)
    pool = np.concatenate([x, y])
    values = []
    for chosen in itertools.combinations(range(8), 4):
      rest = [i for i in range(8) if i not in chosen]
      values.append(slow_energy_distance(pool[list(chosen)], pool[rest]))
    # The split seen and its mirror image tie.
    exact = np.mean(np.array(values) >= values[0] - 1e-9)
    num = 4000
    _, p_value = two_sample_test(
      jax.random.key(2), jnp.asarray(x), jnp.asarray(y), num_permutations=num
    )
    error = np.sqrt(exact * (1 - exact) / num)
    self.assertAlmostEqual(float(p_value), exact, delta=4 * error + 1 / num)

  def test_level_under_one_law(self):
    repeats, num = 200, 99
    x = jnp.asarray(normal(repeats, 12, 2), jnp.float32)
    y = jnp.asarray(normal(repeats, 8, 2, seed=1), jnp.float32)
    keys = jax.random.split(jax.random.key(0), repeats)
    test = lambda *args: two_sample_test(*args, num_permutations=num)
    _, p_values = jax.vmap(test)(keys, x, y)
    # p is uniform on 1/100, ..., 1.
    for level in (0.1, 0.5):
      error = np.sqrt(level * (1 - level) / repeats)
      rate = np.mean(np.asarray(p_values) <= level + 1e-6)
      self.assertAlmostEqual(rate, level, delta=4 * error, msg=level)

  def test_power_against_a_shift(self):
    repeats = 20
    x = jnp.asarray(normal(repeats, 30, 2), jnp.float32)
    y = 2 + jnp.asarray(normal(repeats, 30, 2, seed=1), jnp.float32)
    keys = jax.random.split(jax.random.key(0), repeats)
    test = lambda *args: two_sample_test(*args, num_permutations=49)
    _, p_values = jax.vmap(test)(keys, x, y)
    # No split of 60 points 2 apart comes near the one seen: all at 1 / 50.
    np.testing.assert_allclose(p_values, 0.02, rtol=1e-5)

  def test_ties_count_against_the_evidence(self):
    # Rows repeat three points, so many of the 70 splits differ in nothing but
    # the order of their sums.
    repeats, num = 40, 199
    levels = normal(3, 2).astype(np.float32)
    pool = levels[np.random.default_rng(1).integers(3, size=(repeats, 8))]
    exact = []
    splits = list(itertools.combinations(range(8), 4))
    signs = np.array([[1 if i in s else -1 for i in range(8)] for s in splits])
    for rows in pool:
      values = -np.sum(signs @ slow_distances(rows, rows) * signs, 1)
      exact.append(np.mean(values >= values[0] - 1e-9))
    exact = np.array(exact)
    keys = jax.random.split(jax.random.key(0), repeats)
    test = lambda *args: two_sample_test(*args, num_permutations=num)
    _, p_values = jax.vmap(test)(keys, pool[:, :4], pool[:, 4:])
    error = np.sqrt(np.mean(exact * (1 - exact)) / (num * repeats))
    expected = np.mean((1 + exact * num) / (1 + num))
    self.assertAlmostEqual(np.mean(p_values), expected, delta=4 * error)

  @parameterized.parameters(0, 1)
  def test_nan_is_no_evidence(self, which):
    pair = [jnp.asarray(normal(6, 2, seed=seed)) for seed in (0, 1)]
    pair[which] = pair[which].at[3, 1].set(jnp.nan)
    found = two_sample_test(jax.random.key(0), *pair, num_permutations=99)
    np.testing.assert_array_equal(found, [np.nan, np.nan])

  def test_blocks_bound_memory(self):
    points = jax.ShapeDtypeStruct((128, 2), jnp.float32)

    def program(block_size):
      test = lambda x, y: metrics.two_sample_test(
        jax.random.key(0), x, y, num_permutations=3, block_size=block_size
      )
      return str(jax.make_jaxpr(test)(points, points))

    self.assertIn('[256,256]', program(256))
    self.assertNotIn('[256,256]', program(8))

  @parameterized.parameters(0.0, 1e4)
  def test_equal_rows_are_no_evidence(self, offset):
    x = jnp.full((5, 3), offset)
    statistic, p_value = two_sample_test(jax.random.key(0), x, x)
    self.assertEqual(float(statistic), 0)
    self.assertEqual(float(p_value), 1)

  def test_refusals(self):
    x, rng = jnp.zeros((4, 2)), jax.random.key(0)
    with self.assertRaisesRegex(ValueError, r'\(4, 2\) and \(4, 3\)'):
      metrics.two_sample_test(rng, x, jnp.zeros((4, 3)))
    with self.assertRaisesRegex(ValueError, 'needs a point; got 4 and 0'):
      metrics.two_sample_test(rng, x, x[:0])
    with self.assertRaisesRegex(ValueError, r'\[n, d\]'):
      metrics.two_sample_test(rng, x, x[0])
    with self.assertRaisesRegex(ValueError, 'num_permutations=0'):
      metrics.two_sample_test(rng, x, x, num_permutations=0)


class DuplicatesTest(parameterized.TestCase):
  def test_distinct_images_with_their_labels_in_every_part(self):
    # An image is its index, and so is its label.
    images = np.broadcast_to(np.arange(50)[:, None, None, None], (50, 2, 2, 1))
    copied, labels = metrics.duplicates(
      images, np.arange(50), num_distinct=8, copies=6
    )
    self.assertEqual(copied.shape, (48, 2, 2, 1))
    np.testing.assert_array_equal(copied[:, 0, 0, 0], labels)
    self.assertLen(set(labels), 8)
    for part in np.split(labels, 6):
      self.assertEqual(set(part), set(labels))

  def test_the_seed_decides(self):
    images, labels = normal(50, 3), np.arange(50)
    first, again, other = (
      metrics.duplicates(images, labels, num_distinct=5, copies=2, seed=seed)
      for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[0], images[first[1]])
    self.assertNotEqual(list(first[1]), list(other[1]))

  def test_the_inception_score_does_not_see_copies(self):
    logits = 3 * normal(60, 4)
    copied, _ = metrics.duplicates(
      logits, np.zeros(60), num_distinct=60, copies=5
    )
    mean, spread = metrics.inception_score(copied, num_splits=5)
    expected, _ = metrics.inception_score(logits, num_splits=1)
    self.assertAlmostEqual(mean, expected, 10)
    self.assertAlmostEqual(spread, 0, 10)

  def test_refusals(self):
    with self.assertRaisesRegex(ValueError, 'num_distinct=500'):
      metrics.duplicates(np.zeros((10, 2)), np.zeros(10))
    with self.assertRaisesRegex(ValueError, '10 images, 9 labels'):
      metrics.duplicates(np.zeros((10, 2)), np.zeros(9), num_distinct=2)
    with self.assertRaisesRegex(ValueError, r'\(10, 1\).*\[N\]'):
      metrics.duplicates(np.zeros((10, 2)), np.zeros((10, 1)), num_distinct=2)


class LinearProbeTest(parameterized.TestCase):
  def test_of_separable_and_of_meaningless_features(self):
    labels = np.arange(400) % 4
    told = np.eye(4)[labels] + 0.05 * normal(400, 4)
    # A feature a million times as large, and one that is constant.
    told = np.concatenate(
      [told, 1e6 * normal(400, 1, seed=1), np.ones((400, 1))], 1
    )
    half = slice(0, 200), slice(200, 400)
    probe = lambda x: metrics.linear_probe(
      x[half[0]], labels[half[0]], x[half[1]], labels[half[1]]
    )
    self.assertEqual(probe(told), 1)
    # Of noise a quarter is right by chance, within four standard errors.
    self.assertAlmostEqual(probe(normal(400, 3, seed=2)), 0.25, delta=0.13)

  def test_refusals(self):
    x, y = np.zeros((4, 2)), np.arange(4)
    with self.assertRaisesRegex(ValueError, '4 rows, 3 labels'):
      metrics.linear_probe(x, y[:3], x, y)
    with self.assertRaisesRegex(ValueError, 'columns'):
      metrics.linear_probe(x, y, x[:, :1], y)
    with self.assertRaisesRegex(ValueError, 'penalty=0'):
      metrics.linear_probe(x, y, x, y, penalty=0)
    for bad in (y[:, None], y / 2, list('abcd')):
      with self.assertRaisesRegex(ValueError, r'integers \[n\]'):
        metrics.linear_probe(x, bad, x, y)
      with self.assertRaisesRegex(ValueError, r'integers \[n\]'):
        metrics.linear_probe(x, y, x, bad)
    with self.assertRaisesRegex(ValueError, 'all 0: one class'):
      metrics.linear_probe(x, 0 * y, x, y)

  def test_a_class_that_was_not_learned_is_wrong(self):
    x, y = np.arange(8.0)[:, None], np.arange(8) // 4
    rows, classes = np.array([[0.0], [7.0], [7.0], [7.0]]), [0, 1, 2, 1]
    self.assertEqual(metrics.linear_probe(x, y, rows, classes), 0.75)

  @parameterized.parameters(np.nan, np.inf)
  def test_what_is_not_finite_makes_nan(self, value):
    x, y = normal(8, 2), np.arange(8) % 2
    bad = x.copy()
    bad[3, 1] = value
    for train, test in ((bad, x), (x, bad)):
      self.assertTrue(np.isnan(metrics.linear_probe(train, y, test, y)))


class EnergyDistanceTest(parameterized.TestCase):
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


class SlicedWassersteinTest(parameterized.TestCase):
  @parameterized.parameters(1, 3)
  def test_slices_are_matched_in_the_order_of_their_values(self, dim):
    x, y = normal(6, dim), normal(4, dim, seed=1)
    found = metrics.sliced_wasserstein(KEY, x, y, num_slices=7)
    slices = np.asarray(jax.random.normal(KEY, (dim, 7)), np.float64)
    slices /= np.linalg.norm(slices, axis=0)
    # Twelve values of each, copies of the six and of the four, can be paired.
    x, y = (np.repeat(each, 12 // len(each), 0) @ slices for each in (x, y))
    square = np.mean((np.sort(x, 0) - np.sort(y, 0)) ** 2)
    self.assertAlmostEqual(float(found), square**0.5, 5)

  def test_gaussians_of_two_scales(self):
    # In every direction W_2 of N(0, 1) and N(0, 9) is 2. Sorted normals of n = 2,000
    # are off by O(log(n) / n) in the square.
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2000, 4)), 3 * rng.normal(size=(2000, 4))
    found = metrics.sliced_wasserstein(KEY, x, y)
    self.assertAlmostEqual(float(found), 2, delta=0.1)

  @parameterized.parameters(
    ((3, 2), (0, 2), {}, '3 and 0'),
    ((3, 2), (3, 1), {}, r'\(3, 2\) and \(3, 1\)'),
    ((3, 2), (3, 2), dict(num_slices=0), 'num_slices=0'),
  )
  def test_refuses(self, shape, other, options, message):
    with self.assertRaisesRegex(ValueError, message):
      metrics.sliced_wasserstein(
        KEY, np.zeros(shape), np.zeros(other), **options
      )


if __name__ == '__main__':
  absltest.main()
