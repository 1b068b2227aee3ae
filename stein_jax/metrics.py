"""How good samples are: quality, variety, copies, and tests of two laws.

Pure functions of arrays. Those of classes take a classifier's logits, those of
features whatever features they are given. Distances go by blocks of rows, in
float32; spectra, class probabilities and pixels are float64 on the host. Where a
number that goes in is nan, what comes out is.
"""

import contextlib
import functools
import io
import warnings

import jax
import jax.numpy as jnp
import numpy as np

from stein_jax import _distances
from stein_jax import checks
from stein_jax import dtypes
from stein_jax import kernels
from stein_jax.types import Array, PRNGKey

_SLACK = 1e-5  # of a range of pixels, made in single precision


def inception_score(logits: Array, num_splits: int = 10) -> tuple[float, float]:
  """Returns the mean and spread over splits of the inception score [SGZCRC16].

  exp E KL(p(y | x) || p(y)), from 1 to the number of classes. Splits are
  consecutive parts, as equal as can be, and the spread is the standard deviation
  over them with divisor `num_splits`, both as in the published code: the order
  of the rows matters. A smaller part scores lower. A logit of -inf is a class of
  probability 0, which adds 0; a row of nothing else has no probabilities: nan.

  Args:
    logits: a classifier's, of each sample [n, k].
    num_splits: how many parts.

  Raises:
    ValueError: logits that are not [n, k], or fewer rows than splits.
  """
  from scipy import special  # pylint: disable=g-import-not-at-top

  logits = dtypes.on_host(_matrix(logits=logits))
  checks.count(num_splits=num_splits)
  n = len(logits)
  if n < num_splits:
    raise ValueError(f'{n} rows do not make num_splits={num_splits} parts.')
  bounds = np.arange(num_splits + 1) * n // num_splits
  scores = []
  for first, last in zip(bounds[:-1], bounds[1:], strict=True):
    with np.errstate(invalid='ignore'):  # inf - inf
      # The logarithm of a softmax is -inf where a classifier is very sure.
      log_p = special.log_softmax(logits[first:last], 1)
      log_mean = special.logsumexp(log_p, 0) - np.log(last - first)
      p = np.exp(log_p)
      terms = np.where(p == 0, 0, p * (log_p - log_mean))
    scores.append(np.exp(np.mean(np.sum(terms, 1))))
  return float(np.mean(scores)), float(np.std(scores))


def frechet_distance(x: Array, y: Array) -> float:
  """Returns the squared Frechet distance of Gaussians fitted to x, y [HRUNH17].

  |mu_x - mu_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2)), with divisor n - 1 in the
  covariances, in float64. Singular ones, as of fewer rows than features, are
  fine; a feature that is not finite makes it nan. Few rows make it larger:
  compare like with like.

  Args:
    x: features [n, f].
    y: features [m, f].

  Raises:
    ValueError: fewer than 2 rows, or not as many features in both.
  """
  x, y = _matrix(x=x), _matrix(y=y)
  _same_width(x, y)
  for rows in (x, y):
    if len(rows) < 2:
      raise ValueError(f'A covariance needs 2 rows; got {len(rows)}.')
  x, y = dtypes.on_host(x), dtypes.on_host(y)
  if not _all_finite(x, y):
    return float('nan')

  def fit(rows):
    mean = np.mean(rows, 0)
    return mean, np.linalg.qr((rows - mean) / (len(rows) - 1) ** 0.5, mode='r')

  # With C = R'R the eigenvalues of (C_x C_y)^(1/2) are the singular values of
  # R_x R_y': no root is taken of an eigenvalue that is rounding about zero.
  (mean_x, root_x), (mean_y, root_y) = fit(x), fit(y)
  product = root_x @ root_y.T
  if not _all_finite(product):
    return float('nan')
  cross = np.linalg.svd(product, compute_uv=False).sum()
  spread = np.sum(root_x**2) + np.sum(root_y**2) - 2 * cross
  # Rounding alone makes the spread negative.
  return float(np.sum((mean_x - mean_y) ** 2) + max(spread, 0))


def manifold_metrics(
  real: Array, fake: Array, *, nearest_k: int = 5
) -> dict[str, float]:
  """Returns 'precision', 'recall' [KKLLA19], 'density', 'coverage' [N20].

  With balls about the points of a set that reach just short of the `nearest_k`-th
  neighbour: precision is the share of fake points in a ball of a real one, recall
  the reverse, density the mean number of real balls a fake point is in over
  `nearest_k`, coverage the share of real balls with a fake point. Density is about
  1 for equal laws, and can be more; the others are at most 1. A feature that is not
  finite makes all four nan. Holds matrices [n, n], [m, m] and [n, m]: 2.5 GB for
  10,000 of each.

  Args:
    real: features of data [n, f].
    fake: features of samples [m, f].
    nearest_k: which neighbour sets the radius of a ball.

  Raises:
    ValueError: fewer than `nearest_k` + 2 rows, or not as many features in both.
  """
  import prdc  # pylint: disable=g-import-not-at-top

  real, fake = _matrix(real=real), _matrix(fake=fake)
  _same_width(real, fake)
  checks.count(nearest_k=nearest_k)
  if min(len(real), len(fake)) < nearest_k + 2:
    raise ValueError(
      f'nearest_k={nearest_k} needs {nearest_k + 2} rows; got {len(real)} '
      f'and {len(fake)}.'
    )
  real, fake = dtypes.on_host(real), dtypes.on_host(fake)
  if not _all_finite(real, fake):
    return dict.fromkeys(
      ('precision', 'recall', 'density', 'coverage'), float('nan')
    )
  # The package prints the two counts.
  with contextlib.redirect_stdout(io.StringIO()):
    values = prdc.compute_prdc(real, fake, nearest_k)
  return {name: float(value) for name, value in values.items()}


def class_histogram(logits: Array) -> np.ndarray:
  """Returns the share of rows whose largest logit is each class's [k].

  The first of equal ones counts. Where a row has no largest one that is finite, all
  shares are nan.
  """
  logits = dtypes.on_host(_matrix(logits=logits))
  if not np.isfinite(logits.max(1)).all():
    return np.full(logits.shape[1], np.nan)
  counts = np.bincount(logits.argmax(1), minlength=logits.shape[1])
  return counts / len(logits)


def histogram_entropy(fractions: Array) -> float:
  """Returns the entropy in nats of fractions [k].

  Its exponential is the effective number of classes.

  Raises:
    ValueError: fractions that are not [k], that are below 0, or that miss the sum
      of 1 by more than half precision does, as counts do.
  """
  from scipy import special  # pylint: disable=g-import-not-at-top

  fractions = dtypes.on_host(fractions)
  if fractions.ndim != 1 or not fractions.size:
    raise ValueError(f'fractions must be [k], k >= 1; got {fractions.shape}.')
  low, total = np.min(fractions), np.sum(fractions)
  if low < 0 or abs(total - 1) > 0.01:
    raise ValueError(
      'fractions must be at least 0 with sum 1; the least of them is '
      f'{low}, their sum {total}.'
    )
  return float(np.sum(special.entr(fractions)))


def pairwise_distance(x: Array, *, block_size: int | None = None) -> float:
  """Returns the mean Euclidean distance over the pairs i < j of x [n, ...].

  In more than 4 dimensions a pair of copies may read 1e-3 of their distance from the
  middle of their group instead of 0; see `kernels.squared_distance`.

  Args:
    x: at least 2 rows, of any shape.
    block_size: rows of the distance matrix held at a time; None keeps memory
      bounded.
  """
  x = _flat(x, 2)
  sums = np.asarray(_distance_sums(x, block_size), np.float64)
  return float(np.sum(sums) / (len(x) * (len(x) - 1)))


def nearest_neighbour_distance(
  x: Array, *, block_size: int | None = None
) -> float:
  """Returns the mean over rows of x [n, ...] of the distance to the nearest other.

  Arguments and accuracy as in `pairwise_distance` and `nearest_training`.
  """
  x = _flat(x, 2)
  lengths, _ = _nearest(x, x, jnp.arange(len(x)), block_size)
  return float(np.mean(np.asarray(lengths, np.float64)))


def nearest_training(
  x: Array, train: Array, *, block_size: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """Returns each sample's distance to the nearest training row, and that row.

  Distances [n] of memorised samples are 0; indices [n] are into `train`. The
  distance is exact for the row found, and the row found the nearest but for
  rounding: another within 1e-3 of the distance from the middle of its group may be
  taken for it. A row of `train` that is nan makes all distances nan, a sample that
  is its own.

  Args:
    x: samples [n, ...].
    train: training data [m, ...], of the same shape but for m.
    block_size: rows of the distance matrix held at a time; None keeps memory
      bounded.
  """
  if np.shape(x)[1:] != np.shape(train)[1:]:
    raise ValueError(
      f'Samples {np.shape(x)} and training data {np.shape(train)} differ in '
      'more than their number.'
    )
  x, train = _flat(x, 1), _flat(train, 1)
  # No row of `train` is the sample itself; an index past the end leaves all in.
  own = jnp.full(len(x), len(train))
  lengths, indices = _nearest(x, train, own, block_size)
  return np.asarray(lengths), np.asarray(indices)


def psnr(x: Array, y: Array, *, span: float = 1.0) -> np.ndarray:
  """Returns each image's peak signal-to-noise ratio in dB [n]; of equals, inf.

  10 log10(span^2 / mean squared error over pixels and channels).

  Args:
    x: images [n, h, w, c].
    y: what they are compared with [n, h, w, c].
    span: how wide the range of pixels is: 1 of [0, 1], 2 of [-1, 1], 255 of bytes.

  Raises:
    ValueError: images that are not [n, h, w, c], of two shapes, or with pixels in a
      wider range.
  """
  x, y, _, _ = _pairs(x, y, span)
  error = np.mean((x - y) ** 2, (1, 2, 3))
  with np.errstate(divide='ignore'):
    return 10 * np.log10(span**2 / error)


def ssim(
  x: Array, y: Array, *, span: float = 1.0, low: float = 0.0
) -> np.ndarray:
  """Returns each image's structural similarity [n], at most 1 [WBSS04].

  With the paper's Gaussian window of 11 x 11 pixels and deviation 1.5, K_1 =
  0.01, K_2 = 0.03; the mean over the windows inside the image, and over channels.

  Args:
    x: images [n, h, w, c].
    y: what they are compared with [n, h, w, c].
    span: how wide the range of pixels is: 1 of [0, 1], 2 of [-1, 1], 255 of bytes.
    low: where it begins: -1 of [-1, 1]. A luminance is measured from there.

  Raises:
    ValueError: images that are not [n, h, w, c], of two shapes, smaller than the
      window, or with pixels outside [low, low + span].
  """
  from skimage import metrics as skimage_metrics  # pylint: disable=g-import-not-at-top

  x, y, least, most = _pairs(x, y, span)
  if min(x.shape[1:3]) < 11:
    raise ValueError(f'Images must be at least 11 x 11 pixels; got {x.shape}.')
  checks.finite(low=low)
  if least < low - _SLACK * span or most > low + (1 + _SLACK) * span:
    raise ValueError(
      f'Pixels are in [{least}, {most}]; low={low} and span={span} say '
      f'[{low}, {low + span}].'
    )
  similarity = functools.partial(
    skimage_metrics.structural_similarity,
    data_range=span,
    channel_axis=-1,
    gaussian_weights=True,
    sigma=1.5,
    use_sample_covariance=False,
  )
  pairs = zip(x - low, y - low, strict=True)
  return np.array([similarity(*pair) for pair in pairs])


def diversity(samples, data, training=None) -> dict[str, float]:
  """Returns distances among samples [n, ...] and data [m, ...], in their units.

  Mean pairwise and nearest-neighbour distances of both; with training images, the
  mean distance of a sample, and of a datum, to the nearest of them: a sampler that
  remembers is nearer to them than data are.
  """
  found = {
    'samples/pairwise_distance': pairwise_distance(samples),
    'data/pairwise_distance': pairwise_distance(data),
    'samples/nearest_distance': nearest_neighbour_distance(samples),
    'data/nearest_distance': nearest_neighbour_distance(data),
  }
  if training is not None:
    for name, rows in (('samples', samples), ('data', data)):
      distance, _ = nearest_training(rows, training)
      found[f'{name}/nearest_training'] = float(np.mean(distance))
  return found


def energy_distance(x: Array, y: Array) -> Array:
  """Returns the energy distance 2 E|x - y| - E|x - x'| - E|y - y'| [] [SR13].

  Zero in the mean only where two samples [n, d], [m, d] have one law: the means over
  pairs leave out those of a point with itself, so it can be below zero. Differentiable,
  with slope 0 where points coincide; memory is bounded.

  Raises:
    ValueError: points that are not [n, d] and [m, d], or fewer than 2 of either,
      which have no pair.
  """
  x, y = dtypes.at_least_float32(x), dtypes.at_least_float32(y)
  if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
    raise ValueError(
      f'Points must be [n, d] and [m, d]; got {x.shape} and {y.shape}.'
    )
  if min(len(x), len(y)) < 2:
    raise ValueError(f'{len(x)} and {len(y)} points: each needs 2 for a pair.')

  def distance(a, b, same):
    def from_row(row):
      square = jnp.sum((row[None] - b) ** 2, 1)
      apart = square != 0
      root = jnp.sqrt(jnp.where(apart, square, 1))  # which has no slope at 0
      return jnp.sum(jnp.where(apart, root, 0))

    total = jnp.sum(kernels.map_rows(from_row, a, b.size, None))
    return total / (len(a) * (len(b) - same))

  return 2 * distance(x, y, 0) - distance(x, x, 1) - distance(y, y, 1)


def two_sample_test(
  rng: PRNGKey,
  x: Array,
  y: Array,
  *,
  num_permutations: int = 500,
  block_size: int | None = None,
) -> tuple[Array, Array]:
  """Returns the energy distance of x and y [] and its p-value [] under one law.

  2 E|x - y| - E|x - x'| - E|y - y'| with plain means over all pairs, which is
  zero or more [SR13]; `energy_distance` leaves out the pairs (i, i).
  Under one law any split of the pooled rows is as likely as the one seen, so the
  test is exact. The p-value counts the statistic among the draws, and lies in
  [1 / (num_permutations + 1), 1].

  Args:
    rng: key of the permutations.
    x: points [n, d].
    y: points [m, d].
    num_permutations: draws.
    block_size: rows of the distance matrix held at a time; None keeps memory
      bounded.

  Raises:
    ValueError: points that are not [n, d] and [m, d], or an option below 1.
  """
  checks.count(num_permutations=num_permutations)
  x, y = dtypes.at_least_float32(x), dtypes.at_least_float32(y)
  if x.ndim != 2 or y.ndim != 2 or not len(x) or not len(y):
    raise ValueError(f'Points must be [n, d]; got {x.shape} and {y.shape}.')
  _same_width(x, y)
  n, m = len(x), len(y)
  pool = jnp.concatenate([x, y])
  # With weights 1 / n and -1 / m the statistic is -w' D w.
  weights = jnp.concatenate([jnp.full(n, 1 / n), jnp.full(m, -1 / m)])
  weights = weights.astype(pool.dtype)[None]
  draws = jax.random.permutation(
    rng,
    jnp.repeat(weights, num_permutations, 0),
    axis=1,
    independent=True,
  )
  weights = jnp.concatenate([weights, draws])

  points, others, squared = _distances.prepare(pool, pool)

  def row_terms(row):
    point, i, weight = row
    distance = jnp.sqrt(squared(point, others).at[i].set(0))
    product = jnp.dot(weights, distance, precision=jax.lax.Precision.HIGHEST)
    return -weight * product, jnp.mean(distance)

  terms, means = kernels.map_rows(
    row_terms, (points, jnp.arange(n + m), weights.T), n + m, block_size
  )
  statistics = jnp.sum(terms, 0)
  # Splits that differ by rows that are copies tie. Rounding must not break that,
  # or data that repeat themselves would be rejected too often.
  slack = 16 * jnp.finfo(pool.dtype).eps * jnp.mean(means)
  exceed = jnp.sum(statistics[1:] >= statistics[0] - slack)
  p_value = (1 + exceed) / (1 + num_permutations)
  # A comparison with nan is False, which would read as evidence.
  p_value = jnp.where(jnp.isnan(statistics).any(), jnp.nan, p_value)
  return statistics[0], p_value


def linear_probe(
  features: Array,
  labels: Array,
  test_features: Array,
  test_labels: Array,
  *,
  penalty: float = 1.0,
  max_iter: int = 200,
) -> float:
  """Returns the test accuracy of a linear classifier of features.

  Multinomial logistic regression on features standardised by the training rows'
  mean and deviation: mean cross entropy + penalty / (2 n) |weights|^2. A feature
  that is not finite makes it nan; a test row of a class that has no training row
  counts as wrong.

  Args:
    features: to learn from [n, f].
    labels: their classes, integers [n] of two or more.
    test_features: to be classified [m, f].
    test_labels: their classes [m].
    penalty: as above, positive.
    max_iter: steps of L-BFGS, at most.

  Raises:
    ValueError: not as many features, labels or classes as there should be, or
      labels that are no integers.
  """
  # pylint: disable=g-import-not-at-top
  from sklearn import exceptions
  from sklearn import linear_model

  train, test = _matrix(features=features), _matrix(test_features=test_features)
  _same_width(train, test)
  checks.positive(penalty=penalty)
  checks.count(max_iter=max_iter)
  train, test = dtypes.on_host(train), dtypes.on_host(test)
  labels, test_labels = _classes(labels, train), _classes(test_labels, test)
  if len(np.unique(labels)) < 2:
    raise ValueError(
      f'labels are all {labels[0]}: one class is nothing to learn.'
    )
  if not _all_finite(train, test):
    return float('nan')
  mean, spread = train.mean(0), train.std(0)
  spread = np.where(np.ptp(train, 0) > 0, spread, 1)  # a constant tells nothing
  model = linear_model.LogisticRegression(C=1 / penalty, max_iter=max_iter)
  with warnings.catch_warnings():
    # The last digits of the optimum do not matter for an accuracy.
    warnings.simplefilter('ignore', exceptions.ConvergenceWarning)
    model.fit((train - mean) / spread, labels)
  return float(model.score((test - mean) / spread, test_labels))


def duplicates(
  source_images: np.ndarray,
  labels: np.ndarray,
  *,
  num_distinct: int = 500,
  copies: int = 100,
  seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns random training images, each copied, and their labels [LW17 tab 1].

  The baseline that an inception score cannot tell from variety: images
  [num_distinct * copies, ...] and labels [num_distinct * copies].

  Args:
    source_images: training images [N, ...].
    labels: their classes [N].
    num_distinct: how many different images.
    copies: how often each comes.
    seed: of the choice.

  Raises:
    ValueError: fewer images than `num_distinct`, or not as many labels.
  """
  checks.count(num_distinct=num_distinct, copies=copies)
  if np.ndim(labels) != 1:
    raise ValueError(f'labels have shape {np.shape(labels)}; allowed: [N].')
  if len(source_images) != len(labels):
    raise ValueError(f'{len(source_images)} images, {len(labels)} labels.')
  if num_distinct > len(source_images):
    raise ValueError(
      f'num_distinct={num_distinct} is more than the {len(source_images)} '
      'images.'
    )
  chosen = np.random.default_rng(seed).choice(
    len(source_images), num_distinct, replace=False
  )
  # The whole set over and over, so that each split of an inception score, a
  # consecutive part, holds all of it.
  chosen = np.tile(chosen, copies)
  return np.asarray(source_images)[chosen], np.asarray(labels)[chosen]


def _matrix(**arrays):
  """Returns the one array named, on the host, or refuses what is not [n, k]."""
  ((name, value),) = arrays.items()
  value = np.asarray(value)
  if value.ndim != 2 or not value.size:
    raise ValueError(f'{name} must be [n, k], n and k >= 1; got {value.shape}.')
  return value


def _all_finite(*arrays):
  return all(np.isfinite(array).all() for array in arrays)


def _classes(labels, rows):
  """Returns labels on the host, or refuses what is not one integer for each row."""
  labels = np.asarray(labels)
  if labels.ndim != 1 or labels.dtype.kind not in 'iub':
    raise ValueError(
      f'labels are {labels.dtype} {labels.shape}; allowed: integers [n].'
    )
  if len(rows) != len(labels):
    raise ValueError(f'{len(rows)} rows, {len(labels)} labels.')
  return labels


def _pairs(x, y, span):
  """Returns two sets of images [n, h, w, c] in float64, and where pixels are."""
  checks.positive(span=span)
  x, y = dtypes.on_host(x), dtypes.on_host(y)
  checks.same_shape(x=x.shape, y=y.shape)
  if x.ndim != 4 or not x.size:
    raise ValueError(f'Images must be [n, h, w, c], all >= 1; got {x.shape}.')
  least, most = min(x.min(), y.min()), max(x.max(), y.max())
  if most - least > (1 + _SLACK) * span:
    raise ValueError(
      f'Pixels are in [{least}, {most}], wider than span={span}.'
    )
  return x, y, least, most


def _same_width(x, y):
  if x.shape[1] != y.shape[1]:
    raise ValueError(f'Unequal numbers of columns: {x.shape} and {y.shape}.')


def _flat(x, minimum):
  """Returns rows [n, d] of x [n, ...], in the dtype sums are taken in."""
  x = jnp.asarray(x)
  if x.ndim < 2 or len(x) < minimum or not x.size:
    raise ValueError(f'Needs rows [n, ...], n >= {minimum}; got {x.shape}.')
  return dtypes.at_least_float32(x.reshape(len(x), -1))


@jax.jit(static_argnames='block_size')
def _distance_sums(x, block_size):
  """Returns the sum of distances from each row of x [n, d] to the others [n]."""
  points, others, squared = _distances.prepare(x, x)

  def row_sum(row):
    point, i = row
    return jnp.sum(jnp.sqrt(squared(point, others).at[i].set(0)))

  rows = (points, jnp.arange(len(x)))
  return kernels.map_rows(row_sum, rows, len(x), block_size)


@jax.jit(static_argnames='block_size')
def _nearest(x, others, own, block_size):
  """Returns distance [n] and index [n] of the nearest of `others`, but for own [n]."""
  placed, placed_others, squared = _distances.prepare(x, others)

  def nearest(row):
    point, placed, i = row
    sq_dist = squared(placed, placed_others)
    # A set that repeats a row has it at 0 all the same.
    sq_dist = sq_dist.at[i].set(jnp.inf, mode='drop')
    index = jnp.argmin(sq_dist)
    # The expansion of the square loses small distances; subtraction does not.
    distance = jnp.linalg.norm(point - others[index])
    # No row is the nearest of some that may be anywhere.
    return jnp.where(jnp.isnan(sq_dist).any(), jnp.nan, distance), index

  return kernels.map_rows(nearest, (x, placed, own), len(others), block_size)
