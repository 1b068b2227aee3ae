"""Compiled programs, and decoded data, that are kept on disk for later launches."""

import contextlib
import os
import pathlib
import stat
import tempfile

from absl import logging
import jax
from jax._src import (
  compilation_cache,
)  # JAX's own has no other place for a cache
from jax._src import lru_cache

from stein_jax import datasets
from stein_jax import locations

_LIMIT = 2 * 2**30  # bytes of all programs
_HALF = '-half'  # of a program that is being written
_OURS = (lru_cache._CACHE_SUFFIX, lru_cache._ATIME_SUFFIX, _HALF)


def keep() -> None:
  """Keeps compiled programs on disk, for later launches of the same ones.

  In stein_jax/compiled of XDG_CACHE_HOME, which is ~/.cache; the environment's
  JAX_COMPILATION_CACHE_DIR names another folder, and JAX_ENABLE_COMPILATION_CACHE=0
  switches it off. Where the folder cannot be made or written, or where others may write
  to it, nothing is kept. The programs that were used longest ago are deleted where all
  are above 2 GiB, or JAX_COMPILATION_CACHE_MAX_SIZE bytes. A damaged one is compiled
  anew.
  """
  # What the user's environment says comes first.
  named = jax.config.jax_compilation_cache_dir
  limit = jax.config.jax_compilation_cache_max_size
  try:
    if named is None:
      folder = _of_user('compiled')
    else:
      folder = locations.expand(named)
      if '://' in str(folder):  # a bucket: JAX keeps it by itself
        jax.config.update('jax_compilation_cache_dir', str(folder))
        return
      folder = _made(pathlib.Path(folder))
    _prune(folder, _LIMIT if limit < 0 else limit)
  except (OSError, ValueError) as error:  # read-only, or no home at all
    say = logging.info if named is None else logging.warning
    say('Compiled programs are not kept: %s', error)
    jax.config.update('jax_compilation_cache_dir', None)
    return
  jax.config.update('jax_compilation_cache_dir', str(folder))
  # Its own limit asks for a further package and a lock around every file.
  jax.config.update('jax_compilation_cache_max_size', -1)
  compilation_cache.get_file_cache = lambda path: (_Programs(path), path)
  # JAX keeps programs of a second and more; a launch here has many that take
  # less.
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)


def keep_data() -> None:
  """Keeps decoded data sets on disk, for later launches with the same files.

  In stein_jax/decoded of XDG_CACHE_HOME, unless others may write there.
  """
  try:
    datasets.keep_in(_of_user('decoded'))
  except (OSError, ValueError) as error:
    logging.info('Decoded data are not kept: %s', error)
    datasets.keep_in(None)


def _of_user(name):
  """Returns a folder of the user's cache, which is made if it is not there."""
  home = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
  folder = locations.absolute(home) / 'stein_jax' / name
  if folder.exists() and folder.stat().st_uid == os.getuid():
    folder.chmod(0o700)  # one that an older version made may be a group's
  return _made(folder)


def _made(folder):
  """Returns the folder, made if it is not there, if it is the user's own.

  Raises:
    OSError: it cannot be made or written.
    ValueError: others may write to it.
  """
  folder.mkdir(mode=0o700, parents=True, exist_ok=True)
  _check_own(folder)
  # A folder can be there and refuse files, as on a read-only disk.
  tempfile.TemporaryFile(dir=folder).close()
  return folder


class _Programs(lru_cache.LRUCache):
  """JAX's cache, whose files are whole."""

  def __init__(self, path):
    super().__init__(path, max_size=-1)

  def get(self, key: str) -> bytes | None:
    value = super().get(key)
    if value is None:
      return None
    try:
      compilation_cache.decompress_executable(value)
    except Exception as error:  # of whichever library has compressed it
      # JAX would compile it anew at every launch, and never write it again.
      path = self._file(key)
      logging.warning('%s is damaged (%s): compiled anew.', path, error)
      path.unlink(missing_ok=True)
      return None
    return value

  def put(self, key: str, value: bytes) -> None:
    if self._file(key).exists():
      return
    # A process that is killed here leaves no half of a program under that name.
    with tempfile.NamedTemporaryFile(
      dir=self._path, suffix=_HALF, delete=False
    ) as file:
      try:
        file.write(value)
        file.flush()
        os.replace(file.name, self._file(key))
      except BaseException:
        os.unlink(file.name)
        raise

  def _file(self, key):
    return pathlib.Path(self._path) / f'{key}{lru_cache._CACHE_SUFFIX}'


def _check_own(folder):
  """Raises ValueError if others could put programs there, which would be run here."""
  status = folder.stat()
  if status.st_uid != os.getuid() or status.st_mode & 0o022:
    raise ValueError(
      f'others may write to {folder}; allowed: a folder of your own (chmod go-w).'
    )


def _prune(folder, limit):
  """Deletes the programs that were used longest ago, until the rest is below the limit.

  Whatever else is in the folder, which the user may have named, is left.
  """
  files = []
  for path in folder.iterdir():
    if not path.name.endswith(_OURS) or path.is_symlink():
      continue
    with contextlib.suppress(FileNotFoundError):  # by another launch
      status = path.stat()
      if stat.S_ISREG(status.st_mode):
        used = max(status.st_atime, status.st_mtime)
        files.append((used, status.st_size, path))
  size = sum(size for _, size, _ in files)
  for _, each, path in sorted(files):
    if size <= limit:
      return
    path.unlink(missing_ok=True)  # another launch may have done so
    size -= each
