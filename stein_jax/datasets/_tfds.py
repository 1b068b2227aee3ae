"""Data sets that TFDS has prepared on disk."""

import functools
import os
import pathlib
import re
from typing import Any

import numpy as np

from stein_jax import _archives
from stein_jax import locations
from stein_jax.datasets import _files
from stein_jax.datasets import _kept
from stein_jax.datasets import sources


def in_memory(name, split, pixels):
  """Returns a source of a split of images with labels.

  A process decodes it once, since training and evaluation may ask for the same one,
  and again when what is in its files has changed. Later launches read what `_kept` has.
  """
  root = _builder(name).data_path
  files = sorted(each.name for each in root.iterdir() if each.is_file())
  folder = _archives.Folder(root)
  digest = _files.digest_of(str(root), folder, files, 'record')
  arrays = _decoded(name, split, str(root), digest)
  return sources.Arrays(arrays, pixels=pixels)


def data_source(name, split) -> Any:
  """Returns TFDS's random-access source of a split.

  Raises:
    FileNotFoundError: the set is not prepared; the message has the command.
    ValueError: the set has no such split.
  """
  builder = _builder(name)
  # TFDS refuses these too, but does not say which field of a config is wrong.
  names = sorted(builder.info.splits)
  if re.split(r'[\[+]', split)[0] not in names:
    raise ValueError(
      f'split={split!r} is unknown; {name!r} in {builder.data_path} has: '
      f'{", ".join(names)}.'
    )
  folder = builder.data_path
  with _archives.refused(f'{folder} cannot be read'):
    length = sum(map(_length, pathlib.Path(folder).iterdir()))
    source = builder.as_data_source(split=split)
    # What describes the set says how many there are, and all are asked for at once.
    if len(source) > length:
      raise ValueError(
        f'it says that it has {len(source)} examples, in {length} bytes'
      )
    return _Source(source, folder)


def _length(path):
  """Returns how many bytes a file of a set has; refuses a pipe, which would wait."""
  if path.is_dir():
    return 0
  with _archives.open_regular(path) as file:
    return os.fstat(file.fileno()).st_size


class _Source:
  """TFDS's source of a split, whose errors name its folder."""

  def __init__(self, source, folder):
    self._source, self._folder = source, folder

  def __len__(self):
    return len(self._source)

  def __getitems__(self, indices):
    with _archives.refused(f'{self._folder} cannot be read'):
      return self._source.__getitems__(indices)


@functools.lru_cache(maxsize=8)
def _decoded(name, split, folder, digest):
  """Returns the arrays of a split, from a cache with the last two among its keys."""
  del folder

  def decode():
    records = data_source(name, split)
    # One call for all is faster than one for each.
    rows = records.__getitems__(range(len(records)))
    image = np.stack([row['image'] for row in rows])
    return {'image': image, 'label': np.array([row['label'] for row in rows])}

  return sources.read_only(_kept.arrays(('tfds', name, split, digest), decode))


def _builder(name) -> Any:
  """Returns TFDS's builder of a set that is prepared, or says how to prepare it."""
  import tensorflow_datasets as tfds  # pylint: disable=g-import-not-at-top

  try:
    # This is the format that can be read by index; TFDS's default is another.
    builder = tfds.builder(
      name, data_dir=_data_dir(), file_format='array_record'
    )
    prepared = builder.data_path.exists() and bool(builder.info.splits)
  except tfds.core.registered.DatasetNotFoundError as error:
    raise FileNotFoundError(f'TFDS has no data set {name!r}: {error}') from None
  except Exception as error:  # what describes the set is JSON
    raise ValueError(
      f'{name!r} in {_data_dir() or "the folder of TFDS"} cannot be read: '
      f'{_archives.reason(error)}'
    ) from error
  if not prepared:
    raise FileNotFoundError(
      f'{name!r} is not prepared in {builder.data_path}. Prepare it once with\n'
      '  pip install "stein_jax[prepare]" && python -c "import '
      f"tensorflow_datasets as tfds; tfds.builder('{name}', "
      "file_format='array_record').download_and_prepare()\"\n"
      'or set TFDS_DATA_DIR to a folder that holds it.'
    )
  return builder


def _data_dir():
  """Returns the folder that the environment names; None for TFDS's own."""
  return locations.expand(os.environ.get('TFDS_DATA_DIR', '')) or None
