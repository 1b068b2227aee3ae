"""`experiments.train` for tests of what can happen to a process.

python -m tests.worker --accident=TERM:7 --states=FOLDER, and the flags of train.
"""

import itertools
import os
import pathlib
import signal
import sys
import time
from unittest import mock

from absl import flags
import jax
from jax.experimental import multihost_utils
import numpy as np

from experiments import train
from stein_jax import parallel
from stein_jax.runs import checkpoints
from stein_jax.runs import evaluation
from stein_jax.runs import launch

_ACCIDENT = flags.DEFINE_string(
  'accident',
  None,
  'SIGNAL:CALL: this process gets it in that call of the step, 0: before the first, '
  'save: before a checkpoint, end: after the evaluation. ERROR:CALL raises, LONG:CALL '
  'with all of a list; EXIT:CALL exits and SLEEP:CALL sleeps for an hour.',
)
_PAUSE = flags.DEFINE_float('pause', 0.0, 'Seconds that a call takes more.')
_HEARTBEAT = flags.DEFINE_integer(
  'heartbeat', 100, 'Seconds without one, after which a process is gone.'
)
_STATES = flags.DEFINE_string(
  'states', None, 'Where saved and restored states are written in full.'
)


def _compile_step(*args, **kwargs):
  step, calls = compile_step(*args, **kwargs), itertools.count(1)

  def call(*args):
    _meet(next(calls))
    time.sleep(_PAUSE.value)
    return step(*args)

  _meet(0)
  return call


def _meet(call):
  """Sends this process the signal that is due in that call."""
  name, _, due = (_ACCIDENT.value or '').partition(':')
  if due == str(call):
    if name == 'ERROR':
      raise RuntimeError('an accident')
    if name == 'LONG':
      raise ValueError([0.123456789] * 100_000)
    if name == 'EXIT':
      sys.exit(3)
    if name == 'SLEEP':
      time.sleep(3600)
    os.kill(os.getpid(), signal.Signals[f'SIG{name}'])


def _save(manager, state):
  _write('saved', state)
  _meet('save')
  save(manager, state)


def _evaluate(*args, **kwargs):
  found = evaluate(*args, **kwargs)
  _meet('end')
  return found


def _restore(manager, state, **options):
  state = restore(manager, state, **options)
  _write('restored', state)
  return state


def _write(name, state):
  """Writes every leaf, whole, to FOLDER/name_step.npz; process 0 alone does."""
  if not _STATES.value:
    return
  leaves = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(state):
    if not leaf.is_fully_addressable and not leaf.is_fully_replicated:
      leaf = multihost_utils.process_allgather(leaf, tiled=True)
    leaves[jax.tree_util.keystr(path)] = np.asarray(leaf)
  if jax.process_index() == 0:
    folder = pathlib.Path(_STATES.value)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / f'{name}_{int(state.step)}.npz', **leaves)


def _initialize(**kwargs):
  initialize(**{**kwargs, 'heartbeat_timeout_seconds': _HEARTBEAT.value})


compile_step = parallel.compile_step
initialize = jax.distributed.initialize
evaluate = evaluation.evaluate
save, restore = checkpoints.save, checkpoints.restore

if __name__ == '__main__':
  with (
    mock.patch.object(parallel, 'compile_step', _compile_step),
    mock.patch.object(jax.distributed, 'initialize', _initialize),
    mock.patch.object(checkpoints, 'save', _save),
    mock.patch.object(checkpoints, 'restore', _restore),
    mock.patch.object(evaluation, 'evaluate', _evaluate),
  ):
    launch.run(train.main, parse=train._CONFIG.parse)
