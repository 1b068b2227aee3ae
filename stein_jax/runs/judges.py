"""Judges of images: networks that say what is in them."""

from collections.abc import Callable

import jax
import numpy as np

from stein_jax import datasets
from stein_jax import inception
from stein_jax import learners
from stein_jax import metrics
from stein_jax.runs import workdirs

# Images [n, h, w, c] in [0, 1] to features [n, f] and logits [n, k].
Judge = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


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

  It is `metrics.classifier_metrics` of the judge's features and logits.

  Raises:
    ValueError: the judge does not say [n, f] and [n, k] of n images, or the labels are
      not [n] and among the k classes.
  """
  features, logits = _answers(judge, samples)
  return metrics.classifier_metrics(
    features, logits, *_answers(judge, data), labels=labels
  )


def _answers(judge, images):
  """Returns a judge's features [n, f] and logits [n, k] of images [n, ...]."""
  features, logits = map(np.asarray, judge(images))
  # Any function may be a judge, so nothing is known of its result.
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
  # Blocks bound the memory that a network's layers take.
  blocks = [
    _classify(classifier, rows[first : first + 1000])
    for first in range(0, len(rows), 1000)
  ]
  return tuple(np.concatenate(part) for part in zip(*blocks, strict=True))
