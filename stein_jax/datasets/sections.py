"""A config's data section: the source it names, and the range of its images."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from stein_jax import build
from stein_jax import checks
from stein_jax.datasets import sets
from stein_jax.datasets import sources

# Options that a section may have whatever its data set is.
_OF_ALL = ('condition', 'dequantize', 'binarize', 'limits')


def load(
  name: str,
  *,
  condition: str = 'none',
  dequantize: bool = False,
  binarize: bool = False,
  **kwargs,
):
  """Returns the source of a config's data section: `datasets.name(**kwargs)`.

  Args:
    name: a data set's, in `datasets.sets`, or 'package.module:function' of anybody's,
      which returns a source or anything that `datasets.Items` takes.
    condition: what of a batch becomes its 'condition': 'label' for the labels, of which
      the source's `num_classes` says how many there are; with 'none' batches have the
      condition that the data set gives them, if it gives any.
    dequantize: whether images of bytes get noise of one grey level, so that densities
      of them have likelihoods in bits per dimension; see `Arrays.dequantized`.
    binarize: whether images of bytes have two levels, the ends of their range, as
      energies of binary units need them; see `Arrays.binarized`.
    **kwargs: the data set's own arguments.

  Raises:
    ValueError: there is no such data set, and the message names those there are; or
      labels are to be the condition of a source that has none, or that has another
      condition.
    TypeError: the data set takes no such argument.
    FileNotFoundError: it is not on disk; the message has the command.
  """
  checks.choice(('none', 'label'), condition=condition)
  ways = dict(dequantize=dequantize, binarize=binarize)
  checks.flag(**ways)
  if dequantize and binarize:
    raise ValueError(
      'binarize=True leaves two levels, to which dequantize=True would add noise; '
      'allowed: one of the two.'
    )
  source = _as_source(build.build(sets, name, **kwargs))
  for way in (way for way, is_asked in ways.items() if is_asked):
    if not isinstance(source, sources.Arrays):
      raise ValueError(
        f'{way}=True needs images of bytes in memory, and {name!r} has none; '
        'allowed: False.'
      )
    source = source.binarized() if binarize else source.dequantized()
  if condition == 'none':
    return source
  example = source[slice(0, 1)]
  if 'condition' in example:
    raise ValueError(
      f"condition='label', but each image of {name!r} has a condition already, "
      f"{example['condition'].shape[1:]}; allowed: 'none'."
    )
  if 'label' not in example:
    raise ValueError(
      f"condition='label', but {name!r} has no labels; allowed: 'none'."
    )
  return source.conditioned_on_labels()


def _as_source(found):
  """Returns a source as it is, and anything else as one."""
  is_source = hasattr(found, 'pixels') and hasattr(found, 'scale')
  return found if is_source else sources.Items(found)


def from_file(section: Mapping[str, Any], path: str) -> dict[str, Any]:
  """Returns a config's data section, its images read from an .npz file instead.

  The file has arrays 'train_image', 'train_label', 'test_image', 'test_label'.
  """
  kept = {key: _option(section, key) for key in ('split', 'pixels', 'scale')}
  kept |= {key: section.get(key) for key in _OF_ALL}
  said = {key: value for key, value in kept.items() if value is not None}
  return dict(name='npz', path=path, **said)


def from_folder(section: Mapping[str, Any], path: str) -> dict[str, Any]:
  """Returns a config's data section, its images read from a folder or .zip instead.

  A section that has a path keeps all else. Another one keeps its split, its range and
  its condition, and images become as large as those of its own data set.
  """
  if 'path' in section and section['name'] != 'npz':
    return {**section, 'path': path}
  kept = {key: _option(section, key) for key in ('split', 'pixels', 'size')}
  kept |= {key: section.get(key) for key in _OF_ALL}
  size, channels = sets.SHAPES.get(section['name'], (None, 3))
  kept['size'] = kept['size'] or size
  if shape := _option(section, 'shape'):  # of synthetic images
    kept['size'], channels = shape[0], shape[-1]
  said = {key: value for key, value in kept.items() if value is not None}
  # Rows of a data set are no rows of another: train[:50000] becomes train.
  is_training = said.get('split', 'train').startswith('train')
  said['split'] = 'train' if is_training else 'test'
  return dict(name='folder', path=path, channels=channels, **said)


def to_unit(images: np.ndarray, section: Mapping[str, Any]) -> np.ndarray:
  """Returns images in the range of a config's data section as [0, 1], clipped."""
  factor, offset = _range_of(section)
  return np.clip((np.asarray(images) - offset) / (255 * factor), 0, 1)


def from_unit(images: np.ndarray, section: Mapping[str, Any]) -> np.ndarray:
  """Returns images in [0, 1] in the range of a config's data section."""
  factor, offset = _range_of(section)
  return np.asarray(images, np.float32) * np.float32(255 * factor) + offset


def bits_per_dimension(
  log_likelihood: float, dimensions: int, section: Mapping[str, Any]
) -> float:
  """Returns the bits that a density of dequantised bytes needs for each [TOB16].

  With images z in [0, 1) on the section's range a z + b it is 8 - (log p / d + log a)
  / log 2: a density that is uniform on the range needs 8.

  Args:
    log_likelihood: mean log p, in nats.
    dimensions: numbers of an image, d.
    section: a config's data section.
  """
  factor, _ = _range_of(section)
  nats = log_likelihood / dimensions + np.log(255 * factor)
  return float(8 - nats / np.log(2))


def _range_of(section):
  """Returns what uint8 images are multiplied by, and what is added."""
  factor, offset = sources.RANGES[_option(section, 'pixels') or 'unit']
  scale = _option(section, 'scale') or 1.0
  return scale * factor, np.float32(scale * offset)


def _option(section, name):
  """Returns a section's option, or its data set's default; None if it takes none."""
  defaults = build.defaults(build.named(sets, section['name']))
  return section.get(name, defaults.get(name))
