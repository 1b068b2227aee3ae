"""Judges of images: networks that say what is in them."""

from collections.abc import Callable
import dataclasses
import zlib

import jax
import numpy as np

from stein_jax import datasets
from stein_jax import inception
from stein_jax import learners
from stein_jax import locations
from stein_jax import metrics
from stein_jax.metrics import classes
from stein_jax.runs import reporting
from stein_jax.runs import workdirs

# Images [n, h, w, c] in [0, 1] to features [n, f] and logits [n, k].
Judge = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Network:
  """A judge that says which network it is.

  Attributes:
    judge: what it says of images.
    description: what its scores depend on.
  """

  judge: Judge
  description: str

  def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return self.judge(images)


def described(judge: Judge, num_samples: int, num_data: int) -> str:
  """Returns what scores depend on: the judge, how many images, and of how many parts.

  Scores of other judges, numbers of images or splits are no scores to compare with.
  """
  splits = metrics.num_splits(min(num_samples, num_data))
  who = getattr(judge, 'description', None)
  if not isinstance(who, str) or not who.strip():
    who = 'a function that says nothing of itself'
  found = (
    f'{" ".join(who.split())}; {num_samples} samples beside {num_data} data, inception '
    f'score of {splits} part{"s" * (splits > 1)}'
  )
  if max(num_samples, num_data) > classes.MANIFOLD_ROWS:
    found += f', precision to coverage of the first {classes.MANIFOLD_ROWS}'
  return found


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
  state = workdirs.restore(config, workdir)
  classifier = state.classifier
  return Network(
    lambda rows: classified(classifier, datasets.from_unit(rows, config.data)),
    f'classification of {config.data.name}, seed {config.seed}, step '
    f'{int(state.step)}, {_accuracy(workdir, int(state.step))}, CRC-32 of its '
    f'parameters {_checksum(classifier.params)}',
  )


def _accuracy(workdir, step):
  """Returns what the run's own evaluation found at that step."""
  path = locations.absolute(workdir) / reporting.EVALUATION_FILE
  found = reporting.read_json(path) if path.exists() else {}
  if found.get('step') != step or 'test/accuracy' not in found:
    return 'of an accuracy that was not measured'
  return f'{found["test/accuracy"]:.2%} of its test images right'


def _checksum(params):
  """Returns the CRC-32 of all parameters, in the order of their names."""
  found = 0
  for _, leaf in sorted(
    (jax.tree_util.keystr(path), leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params)
  ):
    found = zlib.crc32(np.ascontiguousarray(leaf), found)
  return f'{found:08x}'


def inception_judge(path) -> Judge:
  """Returns the ImageNet Inception judge; see `inception.load` for the file."""
  params = inception.load(path)
  # Bytes times 255 would wrap.
  return Network(
    lambda rows: inception.activations(
      params, np.float32(255) * np.asarray(rows, np.float32)
    ),
    f'ImageNet Inception of 2015, CRC-32 of its parameters {_checksum(params)}, images '
    "resized to 299 pixels by its graph's bilinear rule, without smoothing",
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
