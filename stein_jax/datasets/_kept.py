"""Decoded arrays that are kept on disk for later launches."""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import hashlib
import io
import json
import os
import pathlib
import tempfile

from absl import logging
import numpy as np

_MOST = 8  # files, each of a split
_SIZE = hashlib.sha256().digest_size
_SUFFIX, _HALF = '.arrays', '-half'
_folder: pathlib.Path | None = None


def keep_in(folder: pathlib.Path | None) -> None:
  """Sets the folder in which `arrays` keeps what it decodes; None keeps nothing."""
  global _folder
  _folder = folder


def arrays(
  key: Sequence[str], decode: Callable[[], Mapping[str, np.ndarray]]
) -> Mapping[str, np.ndarray]:
  """Returns what `decode` returns, from disk if it was kept there under that key.

  Each file begins with a digest of the rest. One that is damaged is decoded anew.

  Args:
    key: names what is decoded, with a digest of its files.
    decode: returns the arrays by name.
  """
  if _folder is None:
    return decode()
  name = hashlib.sha256(json.dumps(key).encode()).hexdigest()
  file = _folder / f'{name}{_SUFFIX}'
  try:
    found = _read(file)
    os.utime(file)  # those that were used longest ago are deleted
    return found
  except FileNotFoundError:
    pass
  except (OSError, ValueError) as error:
    logging.warning('%s is damaged (%s): decoded anew.', file, error)
  found = decode()
  try:
    _write(file, found)
  except OSError as error:  # a full disk, as an example
    logging.info('Decoded data are not kept: %s', error)
  return found


def _read(file):
  content = file.read_bytes()
  digest, body = content[:_SIZE], content[_SIZE:]
  if hashlib.sha256(body).digest() != digest:
    raise ValueError('its SHA-256 is another one')
  with np.load(io.BytesIO(body), allow_pickle=False) as found:
    return dict(found)


def _write(file, found):
  body = io.BytesIO()
  np.savez(body, **found)
  # A process that is killed here leaves no half under that name.
  with tempfile.NamedTemporaryFile(
    dir=file.parent, suffix=_HALF, delete=False
  ) as half:
    try:
      half.write(hashlib.sha256(body.getbuffer()).digest())
      half.write(body.getbuffer())
      half.flush()
      os.replace(half.name, file)
    except BaseException:
      os.unlink(half.name)
      raise
  used = {}
  for each in file.parent.glob(f'*{_SUFFIX}'):
    with contextlib.suppress(FileNotFoundError):  # by another launch
      used[each] = each.stat().st_mtime
  for each in sorted(used, key=used.get)[:-_MOST]:
    each.unlink(missing_ok=True)
