"""What a classifier says of samples: how sure it is, and of which classes."""

import warnings

import numpy as np

from stein_jax import checks
from stein_jax import dtypes
from stein_jax.metrics import _rows
from stein_jax.metrics import laws
from stein_jax.types import Array

_SPLIT_ROWS = 1000  # in a part of an inception score, at least
MANIFOLD_ROWS = 5000  # whose matrix of distances is held


def inception_score(logits: Array, num_splits: int = 10) -> tuple[float, float]:
  """Returns the mean and spread over splits of the inception score [SGZCRC16].

  The score is exp E KL(p(y | x) || p(y)), from 1 to the number of classes. Splits are
  consecutive parts, as equal as can be, and the spread is the standard deviation
  over them with divisor `num_splits`. Both are as in the published code, so the order
  of the rows matters, and smaller parts score lower. A logit of -inf is a class of
  probability 0, which adds 0; a row of nothing else makes the score nan.

  Args:
    logits: a classifier's, for each sample [n, k].
    num_splits: how many parts.

  Raises:
    ValueError: the logits are not [n, k], or there are fewer rows than splits.
  """
  from scipy import special  # pylint: disable=g-import-not-at-top

  logits = dtypes.on_host(_rows.matrix(logits=logits))
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


def class_histogram(logits: Array) -> np.ndarray:
  """Returns the share of rows whose largest logit is each class's [k].

  The first of equal logits counts. Where the largest logit of a row is not finite, all
  shares are nan.
  """
  logits = dtypes.on_host(_rows.matrix(logits=logits))
  if not np.isfinite(logits.max(1)).all():
    return np.full(logits.shape[1], np.nan)
  counts = np.bincount(logits.argmax(1), minlength=logits.shape[1])
  return counts / len(logits)


def accuracy(logits: Array, labels: Array) -> float:
  """Returns the share of rows whose largest logit is that of their label.

  Where the largest logit of a row is not finite, it is nan.

  Args:
    logits: a classifier's, for each sample [n, k].
    labels: the right classes, integers [n].

  Raises:
    ValueError: the logits are not [n, k], or the labels not [n] and among k classes.
  """
  logits = dtypes.on_host(_rows.matrix(logits=logits))
  checks.labels(logits.shape[1], labels=labels)
  checks.per_example(len(logits), labels=labels)
  if not np.isfinite(logits.max(1)).all():
    return float('nan')
  return float(np.mean(logits.argmax(1) == np.asarray(labels)))


def calibration_error(
  logits: Array, labels: Array, num_bins: int = 15
) -> float:
  """Returns how far a classifier's confidence is from its accuracy [GPSW17 eq 3].

  This is the expected calibration error, from 0 to 1. Rows go into bins of equal width
  by their largest probability, a bin's upper end with it. It is the mean over rows of
  their bin's |accuracy - mean confidence|. Where the largest logit of a row is not
  finite, it is nan.

  Args:
    logits: a classifier's, for each sample [n, k].
    labels: the right classes, integers [n].
    num_bins: number of bins.

  Raises:
    ValueError: the logits are not [n, k], or the labels not [n] and among k classes.

  Examples:
    >>> logits = np.log([[0.9, 0.1], [0.9, 0.1]])  # right once, and 0.9 sure
    >>> print(f'{calibration_error(logits, [0, 1]):.4f}')
    0.4000
  """
  from scipy import special  # pylint: disable=g-import-not-at-top

  logits = dtypes.on_host(_rows.matrix(logits=logits))
  checks.labels(logits.shape[1], labels=labels)
  checks.per_example(len(logits), labels=labels)
  checks.count(num_bins=num_bins)
  if not np.isfinite(logits.max(1)).all():
    return float('nan')
  confidence = special.softmax(logits, 1).max(1)
  hits = logits.argmax(1) == np.asarray(labels)
  places = np.ceil(confidence * num_bins).astype(int) - 1
  gaps = np.bincount(places.clip(0, num_bins - 1), hits - confidence)
  # The share of a bin times its gap is the sum of its rows' gaps over all rows.
  return float(np.sum(np.abs(gaps)) / len(logits))


def auroc(inside: Array, outside: Array) -> float:
  """Returns how often a score of `inside` is above one of `outside`.

  This is the area under the ROC curve of telling the two by a threshold, in which equal
  scores count a half: 1 where every score of `inside` is above all others, and 0.5
  where scores tell nothing. The log density of an energy, -E(x), is such a score. A
  score of nan makes it nan.

  Args:
    inside: scores [n] of examples that should score high.
    outside: scores [m] of the others.

  Raises:
    ValueError: scores are not [n] and [m], or there are none.

  Examples:
    >>> print(auroc([3.0, 2.0], [1.0, 2.0]))
    0.875
  """
  inside, outside = dtypes.on_host(inside), dtypes.on_host(outside)
  for name, scores in dict(inside=inside, outside=outside).items():
    if scores.ndim != 1 or not scores.size:
      raise ValueError(f'{name} must be [n], n >= 1; got {scores.shape}.')
  if np.isnan(inside).any() or np.isnan(outside).any():
    return float('nan')
  ranked = np.sort(outside)
  below = np.searchsorted(ranked, inside, 'left')
  up_to = np.searchsorted(ranked, inside, 'right')
  return float(np.mean(below + up_to) / (2 * len(outside)))


def histogram_entropy(fractions: Array) -> float:
  """Returns the entropy in nats of fractions [k].

  Its exponential is the effective number of classes.

  Raises:
    ValueError: the fractions are not [k], are below 0, or miss the sum of 1 by more
      than half precision does, as counts do.
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

  The classifier is multinomial logistic regression on features standardised by the
  training rows' mean and deviation: it minimises mean cross entropy + penalty / (2 n)
  |weights|^2. A feature that is not finite makes the accuracy nan; a test row of a
  class that has no training row counts as wrong.

  Args:
    features: to learn from [n, f].
    labels: their classes, integers [n] of two or more.
    test_features: to be classified [m, f].
    test_labels: their classes [m].
    penalty: as above, positive.
    max_iter: steps of L-BFGS, at most.

  Raises:
    ValueError: there are not as many features, labels or classes as there should
      be, or the labels are not integers.

  Examples:
    >>> features, labels = np.array([[0.0], [1.0], [4.0], [5.0]]), [0, 0, 1, 1]
    >>> print(linear_probe(features, labels, features, labels))
    1.0
  """
  # pylint: disable=g-import-not-at-top
  from sklearn import exceptions
  from sklearn import linear_model

  train, test = (
    _rows.matrix(features=features),
    _rows.matrix(test_features=test_features),
  )
  _rows.check_same_width(train, test)
  checks.positive(penalty=penalty)
  checks.count(max_iter=max_iter)
  train, test = dtypes.on_host(train), dtypes.on_host(test)
  labels, test_labels = _classes(labels, train), _classes(test_labels, test)
  if len(np.unique(labels)) < 2:
    raise ValueError(
      f'labels are all {labels[0]}: one class is nothing to learn.'
    )
  if not _rows.all_finite(train, test):
    return float('nan')
  mean, spread = train.mean(0), train.std(0)
  spread = np.where(np.ptp(train, 0) > 0, spread, 1)  # a constant tells nothing
  model = linear_model.LogisticRegression(C=1 / penalty, max_iter=max_iter)
  with warnings.catch_warnings():
    # The last digits of the optimum do not matter for an accuracy.
    warnings.simplefilter('ignore', exceptions.ConvergenceWarning)
    model.fit((train - mean) / spread, labels)
  return float(model.score((test - mean) / spread, test_labels))


def num_splits(num: int) -> int:
  """Returns of how many parts the inception score of that many rows is."""
  return max(1, min(10, num // _SPLIT_ROWS))


def classifier_metrics(
  features: Array,
  logits: Array,
  data_features: Array,
  data_logits: Array,
  *,
  labels: Array | None = None,
) -> dict[str, float]:
  """Returns what a classifier says of n samples beside m data.

  'inception_score', its spread and that of the data, 'frechet_distance' and
  'class_entropy'; with more than 10 of each also `manifold_metrics`, and with labels
  'own_label', the share of samples that are taken for what they were made as.

  Args:
    features: of the samples [n, f].
    logits: of the samples [n, k].
    data_features: of the data [m, f].
    data_logits: of the data [m, k].
    labels: what the samples were made as, integers [n]; None where nobody said.

  Raises:
    ValueError: the arrays have other shapes, or labels are not among the classes.
  """
  num = min(len(logits), len(data_logits))
  splits = num_splits(num)
  score, spread = inception_score(logits, splits)
  found = {
    'inception_score': score,
    'inception_score_spread': spread,
    'inception_score_of_data': inception_score(data_logits, splits)[0],
    'frechet_distance': laws.frechet_distance(features, data_features),
    'class_entropy': histogram_entropy(class_histogram(logits)),
  }
  if num > 10:
    few = slice(0, MANIFOLD_ROWS)
    found |= laws.manifold_metrics(data_features[few], features[few])
  if labels is not None:
    found['own_label'] = accuracy(logits, labels)
  return found


def duplicates(
  source_images: np.ndarray,
  labels: np.ndarray,
  *,
  num_distinct: int = 500,
  copies: int = 100,
  seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns random training images, each copied, and their labels [LW17 tab 1].

  An inception score cannot tell these images [num_distinct * copies, ...], with labels
  [num_distinct * copies], from variety.

  Args:
    source_images: training images [N, ...].
    labels: their classes [N].
    num_distinct: how many different images.
    copies: how often each comes.
    seed: of the choice.

  Raises:
    ValueError: there are fewer images than `num_distinct`, or not as many labels.

  Examples:
    >>> images, labels = np.zeros((6, 8, 8, 1)), np.arange(6)
    >>> copied, classes = duplicates(images, labels, num_distinct=2, copies=3)
    >>> print(copied.shape, len(set(classes.tolist())))
    (6, 8, 8, 1) 2
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
