"""The folder of a run: whose it is, what it holds, and who is in it."""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import fcntl
import itertools
import math
import os
import pathlib
import platform
import stat
from typing import Any

from absl import logging
import jax
from ml_collections import ConfigDict
import numpy as np

import stein_jax
from stein_jax import _archives
from stein_jax import algorithms
from stein_jax import locations
from stein_jax import parallel
from stein_jax.runs import agreement
from stein_jax.runs import checkpoints
from stein_jax.runs import configs
from stein_jax.runs import reporting
from stein_jax.types import Batch

CONFIG_FILE = 'config.json'
BATCH_FILE = 'batch.json'
_LOCK_FILE = 'lock'
_SHOWN = 5  # differing fields in a message
_IMPORTS = 'STEIN_JAX_IMPORTS'
_SAFE = ('optax.contrib',)  # has optimizers alone
# Fields of which none is looked up, though they may have a colon.
_NO_NAMES = ('path', 'split', 'start')
# Fields that may be others when a run goes on.
_FREE = {'on_nonfinite', 'feed'}
_SINCE = (0, 2, 0)  # the first version whose saved configs are read here


def read_config(workdir) -> ConfigDict:
  """Returns the config that a workdir was made with, to be built.

  What it names is called, and whoever wrote it may have chosen any program. So a name
  'package.module:Name' is allowed where the environment's STEIN_JAX_IMPORTS lists the
  package or the module, by commas.

  Raises:
    FileNotFoundError: it is no workdir.
    ValueError: its config is damaged, or names a program that is not allowed.
  """
  path, fields = locations.absolute(workdir) / CONFIG_FILE, read_fields(workdir)
  listed = os.environ.get(_IMPORTS, '').split(',')
  allowed = {each.strip() for each in listed}
  for name in _programs(fields):
    module = name.partition(':')[0]
    packages = list(itertools.accumulate(module.split('.'), '{}.{}'.format))
    if module not in _SAFE and allowed.isdisjoint(packages):
      raise ValueError(
        f'{path} names {name!r}, and would have it imported and called. Where it is '
        f'yours, or you trust it, set {_IMPORTS}={packages[0]} in the environment.'
      )
  with _archives.refused(f'{path} is damaged'):
    for name in ('algorithm', 'data'):
      if name not in fields:
        raise ValueError(f'it has no {name}')
    return ConfigDict(fields)


def _programs(fields, key=''):
  """Yields each string of a config that could be the name of a program."""
  if isinstance(fields, Mapping):
    for name, value in fields.items():
      yield from _programs(value, name)
  elif isinstance(fields, list):
    for value in fields:
      yield from _programs(value, key)
  elif isinstance(fields, str):
    # The name of an algorithm may be that of a module alone.
    if (
      ':' in fields
      and key not in _NO_NAMES
      or (key == 'algorithm' and '.' in fields)
    ):
      yield fields


def read_fields(workdir) -> dict[str, Any]:
  """Returns the fields of the config that a workdir was made with, to be shown.

  Raises:
    FileNotFoundError: it is no workdir.
    ValueError: its config is damaged.
  """
  workdir = locations.absolute(workdir)
  path = workdir / CONFIG_FILE
  if not path.exists():
    raise FileNotFoundError(
      f'{workdir} holds no {CONFIG_FILE}; train there first.'
    )
  return _read_config(path)


def restore(config, workdir, *, step: int | None = None):
  """Returns the state of a run's newest whole checkpoint, or of that step's.

  Raises:
    FileNotFoundError: the workdir has no checkpoint, or not that one.
  """
  config, workdir = configs.complete(config), locations.absolute(workdir)
  manager = checkpoints.manager(workdir / 'checkpoints', read_only=True)
  if manager.latest_step() is None:
    raise FileNotFoundError(f'No checkpoint in {workdir}; train there first.')
  if step is not None and step not in manager.all_steps():
    raise FileNotFoundError(
      f'{workdir} has no checkpoint of step {step}; it has: '
      f'{", ".join(map(str, sorted(manager.all_steps())))}.'
    )
  state = algorithms.get(config.algorithm).init(
    jax.random.key(config.seed), config, batch_like(workdir)
  )
  return checkpoints.restore(manager, parallel.replicate(state), step=step)


def note_batch(workdir, batch: Batch) -> None:
  """Writes which arrays a batch of the run has, so that no data are needed later."""
  if jax.process_index():
    return
  kinds = {
    name: [str(value.dtype), list(value.shape)] for name, value in batch.items()
  }
  reporting.write_json(workdir / BATCH_FILE, kinds)


def batch_like(workdir):
  """Returns a batch of zeros like those of the run.

  Raises:
    FileNotFoundError: the run has none on record.
    ValueError: what it has is damaged, or larger than the memory.
  """
  path = workdir / BATCH_FILE
  if not path.exists():
    raise FileNotFoundError(
      f'{workdir} holds no {BATCH_FILE}, which a run writes before its first step.'
    )
  kinds = reporting.read_json(path)
  with _archives.refused(f'{path} is damaged'):
    if 'image' not in kinds:
      raise ValueError('it has no image')
    for dtype, shape in kinds.values():
      if dtype not in ('float32', 'int32') or not all(n > 0 for n in shape):
        raise ValueError(
          f'{dtype} {shape}; allowed: float32 and int32 of at least one number'
        )
      _archives.check_memory(4 * math.prod(shape))
    return {
      name: np.zeros(shape, dtype) for name, (dtype, shape) in kinds.items()
    }


def _read_config(path):
  """Returns the fields of a saved config.

  Raises:
    ValueError: it is damaged, or of a version whose configs had another layout.
  """
  fields = reporting.read_json(path)
  try:
    version = fields.pop('version', '0.1.0')
    layout = tuple(map(int, version.split('.')))
  except (TypeError, AttributeError, ValueError) as error:
    raise ValueError(f'{path} is damaged: {error}') from error
  if layout < _SINCE:
    raise ValueError(
      f'{path.parent} was made by stein_jax {version}, whose configs have another '
      f'layout than those of {stein_jax.__version__}; go on with that version, or '
      'choose another workdir.'
    )
  if not isinstance(fields.get('num_steps'), int):
    raise ValueError(f'{path} is damaged: it has no number of steps.')
  return fields


def refuse_links(workdir: pathlib.Path) -> None:
  """Raises ValueError if what is written or deleted in a workdir lies elsewhere."""
  for pattern in ('*', 'checkpoints/*', 'events/*', 'events/hparams/*'):
    for path in workdir.glob(pattern):
      if path.is_symlink():
        raise ValueError(
          f'{path} is a link; a run writes into its own folder alone. Choose another '
          'workdir, or put the file itself there.'
        )


class Watch:
  """Remembers which files are at some paths, and says which are there no more.

  A folder that was renamed, deleted or replaced would otherwise be written to as if
  nothing had been: to a file that no name has, or to a new folder beside the old one.
  A file that is cut would go on with a hole.

  Args:
    workdir: the folder, which may be a link; what is in it may not.
  """

  def __init__(self, workdir: pathlib.Path):
    self._workdir, self._seen = workdir, {}

  def add(self, *paths: pathlib.Path) -> None:
    """Begins to watch paths that are there; process 0 alone does."""
    if jax.process_index() == 0:
      self._seen |= {path: self._look(path) for path in paths}

  def check(self) -> None:
    """Raises Gone if at some path there is nothing, something else or less."""
    gone = []
    for path, (identity, size) in self._seen.items():
      self._seen[path] = self._look(path)
      if self._seen[path][0] != identity or self._seen[path][1] < size:
        gone.append(path)
    if self._workdir in gone:  # and all that is in it
      gone = [self._workdir]
    if gone:
      raise Gone(self._workdir, gone)

  def _look(self, path):
    """Returns what a path is, None where there is nothing, and how long a file is."""
    try:
      status = os.stat(path, follow_symlinks=path == self._workdir)
    except OSError:
      return None, 0
    is_file = stat.S_ISREG(status.st_mode)
    identity = status.st_dev, status.st_ino
    return identity, status.st_size if is_file else 0


class Gone(OSError):
  """Files of a run are not what they were.

  Attributes:
    paths: theirs.
  """

  def __init__(self, workdir: pathlib.Path, paths: Sequence[pathlib.Path]):
    super().__init__(
      f'Moved, deleted, cut or replaced while the run was in {workdir}: '
      f'{", ".join(map(str, paths))}.'
    )
    self.paths = paths


@contextlib.contextmanager
def claimed(workdir, config, *, extends: bool = False) -> Iterator[Watch]:
  """Makes the workdir this config's, and keeps other runs out while it is entered.

  What it yields watches the folder and the lock, in the process that writes to them.
  One that `extends` may have more steps than the run that is there, and data in another
  place; the workdir then is this config's.

  Raises:
    ValueError: it is another config's, or holds something else.
    RuntimeError: another run is in it.
    OSError: it cannot be written.
  """
  _is_ours(workdir, config, extends)
  watch = Watch(workdir)
  if jax.process_index():
    _same_folder(workdir, agreement.exchanged({})[0])
    yield watch
    return
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    lock = _locked(workdir)
    # The one who had the lock may have made it another config's by now.
    if not _is_ours(workdir, config, extends) or extends:
      fields = {'version': stein_jax.__version__, **_as_json(config)}
      reporting.write_json(workdir / CONFIG_FILE, fields, indent=2)
  except OSError as error:
    raise OSError(
      error.errno, f'{workdir} cannot be written: {error.strerror}'
    ) from error
  watch.add(workdir, workdir / _LOCK_FILE, workdir / CONFIG_FILE)
  with lock:
    if jax.process_count() > 1:
      agreement.exchanged(_told(workdir))
    yield watch


def _told(workdir):
  """Returns what tells a folder from others: what its lock says, and the path."""
  path = workdir / _LOCK_FILE
  return {'path': str(workdir), 'lock': path.read_text('utf-8')}


def _same_folder(workdir, first):
  """Refuses a folder other than that of the first process, which has locked it.

  Raises:
    ValueError: it is another.
  """
  holds = lambda: (
    (workdir / _LOCK_FILE).exists() and _told(workdir)['lock'] == first['lock']
  )
  # A network disk shows a new file late.
  if not agreement.waits_for(holds, 20):
    raise ValueError(
      f'{workdir} of process {jax.process_index()} is another folder than '
      f'{first["path"]} of process 0; all need one that they share.'
    )


def _locked(workdir):
  """Returns a file that is locked until it is closed or its process ends in any way.

  Raises:
    RuntimeError: another run has locked it.
    OSError: it cannot be written.
  """
  file = open(workdir / _LOCK_FILE, 'a+', encoding='utf-8')
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    file.seek(0)
    raise RuntimeError(
      f'Another run is in {workdir}: {file.read().strip()}. Wait for it to end, or '
      'choose another workdir.'
    ) from None
  except OSError as error:
    logging.warning(
      '%s cannot be locked (%s): see to it that no other run is in it.',
      workdir,
      error.strerror,
    )
  else:
    file.truncate(0)
    file.write(f'process {os.getpid()} on {platform.node()}\n')
    file.flush()
  return file


def _is_ours(workdir, config, extends=False):
  """Returns whether the workdir is this config's; False if it is new or empty.

  Raises:
    ValueError: it is another config's, or holds something else.
  """
  path = workdir / CONFIG_FILE
  refuse_links(workdir)
  if path.exists():
    a, b = (
      reporting.flat_config(each)
      for each in (_as_json(config), _read_config(path))
    )
    changed = [
      key
      for key in sorted((a.keys() | b.keys()) - _FREE)
      if a.get(key) != b.get(key)
    ]
    longer = a['num_steps'] > b['num_steps']
    if extends:  # by steps; the data may lie elsewhere by now
      paths = {'data.path', 'evaluation.data.path'}
      allowed = paths | ({'num_steps'} if longer else set())
      changed = [key for key in changed if key not in allowed]
    if changed:
      how = 'choose another workdir'
      if changed == ['num_steps'] and longer:
        how += f', or --extend={a["num_steps"]}'
      there = [
        f'{key}: {b.get(key, "(absent)")!r} there, {a.get(key, "(absent)")!r} here'
        for key in changed
      ]
      if len(there) > _SHOWN:
        there[_SHOWN:] = [f'and {len(there) - _SHOWN} more']
      raise ValueError(
        f'{workdir} was made with another config; {how}. Different: '
        f'{"; ".join(there)}.'
      )
    return True
  if workdir.exists() and not workdir.is_dir():
    raise ValueError(f'{workdir} is no folder; choose another workdir.')
  # A run that was killed at its very start may have left these.
  ours = {workdir / _LOCK_FILE, *workdir.glob(f'{path.stem}.*tmp')}
  if workdir.exists() and set(workdir.iterdir()) - ours:
    raise ValueError(f'{workdir} is not empty and holds no {CONFIG_FILE}.')
  return False


def _as_json(config):
  return reporting.from_json(config.to_json_best_effort())
