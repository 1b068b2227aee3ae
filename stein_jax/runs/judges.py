"""Judges of images: networks that say what is in them."""

from collections.abc import Callable

import jax
import numpy as np

from stein_jax import checks
from stein_jax import datasets
from stein_jax import inception
from stein_jax import learners
from stein_jax import metrics
from stein_jax.runs import workdirs

# Images [n, h, w, c] in [0, 1] to features [n, f] and logits [n, k].
Judge = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


_MANIFOLD_ROWS = 5000  # whose matrix of distances is held


def judge(config, workdir) -> Judge:
  """Returns the judge that a finished run of `classification` is.

  Raises:
    FileNotFoundError: the workdir has no checkpoint.
    ValueError: it is a run of another algorithm.
  """
  if config.algorithm != 'classification':
    raise ValueError(
      f'{workdir} is a run of {config.algorithm}; allowed: classification.'
    )
  classifier = workdirs.restore(config, workdir).classifier
  return lambda rows: classified(
    classifier, datasets.from_unit(rows, config.data)
  )


def inception_judge(path) -> Judge:
  """Returns the ImageNet Inception judge; see `inception.load` for the file."""
  params = inception.load(path)
  # Bytes times 255 would wrap.
  return lambda rows: inception.activations(
    params, np.float32(255) * np.asarray(rows, np.float32)
  )


def judged(
  judge: Judge, samples, data, *, labels: np.ndarray | None = None
) -> dict[str, float]:
  """Returns what a judge says of samples beside data, both [n, h, w, c] in [0, 1].

  Inception score, Frechet distance to the data, the classes' share and entropy,
  precision and recall, density and coverage; and the share of samples that are
  given the label they were made with.

  Raises:
    ValueError: a judge that does not say [n, f] and [n, k] of n images, or labels
      that are not [n] and among the k classes.
  """
  features, logits = _said(judge, samples)
  real_features, real_logits = _said(judge, data)
  splits = max(1, min(10, len(samples) // 1000, len(data) // 1000))
  score, spread = metrics.inception_score(logits, splits)
  found = {
    'inception_score': score,
    'inception_score_spread': spread,
    'inception_score_of_data': metrics.inception_score(real_logits, splits)[0],
    'frechet_distance': metrics.frechet_distance(features, real_features),
    'class_entropy': metrics.histogram_entropy(metrics.class_histogram(logits)),
  }
  if min(len(samples), len(data)) > 10:
    few = slice(0, _MANIFOLD_ROWS)
    found |= metrics.manifold_metrics(real_features[few], features[few])
  if labels is not None:
    checks.labels(logits.shape[1], labels=labels)
    checks.per_example(len(samples), labels=labels)
    hits = np.argmax(logits, 1) == np.asarray(labels)
    known = np.isfinite(np.max(logits, 1)).all()
    found['own_label'] = float(np.mean(hits)) if known else float('nan')
  return found


def _said(judge, images):
  """Returns a judge's features [n, f] and logits [n, k] of images [n, ...]."""
  features, logits = map(np.asarray, judge(images))
  for name, rows in (('features', features), ('logits', logits)):
    if rows.ndim != 2 or len(rows) != len(images):
      raise ValueError(
        f"The judge's {name} have shape {rows.shape}; wanted: [n, k] of "
        f'{len(images)} images.'
      )
  return features, logits


@jax.jit
def _classify(classifier, rows):
  return learners.call(classifier, classifier.params, rows)


def classified(classifier, rows):
  """Returns the classifier's features [n, f] and logits [n, k], by blocks."""
  blocks = [
    _classify(classifier, rows[first : first + 1000])
    for first in range(0, len(rows), 1000)
  ]
  return tuple(np.concatenate(part) for part in zip(*blocks, strict=True))
