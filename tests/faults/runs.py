"""Runs by the command that a user types, and what they leave behind."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
from tensorboard.backend.event_processing import event_accumulator

from stein_jax.runs import training
from stein_jax.runs import workdirs
from tests import smoke

_ROOT = pathlib.Path(__file__).parent.parent.parent
_PATIENCE = 300  # seconds, also where the machine is busy


class Run:
  """A run of a config's smoke scale as a process; what it prints goes to a file."""

  def __init__(
    self,
    config,
    *flags,
    workdir,
    module='train',
    cache=None,
    log=None,
    **options,
  ):
    self.workdir, self.log = workdir, log or workdir.with_suffix('.log')
    if config:
      flags = (f'--config=configs/{config}.py:smoke', *flags)
    cache = cache or jax.config.jax_compilation_cache_dir
    environment = dict(
      os.environ,
      JAX_PLATFORMS='cpu',
      JAX_NUM_CPU_DEVICES='1',
      JAX_LOG_COMPILES='1',
      JAX_COMPILATION_CACHE_DIR=str(cache),
      JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS='0',
    )
    self._begin = time.time()
    with open(self.log, 'w') as log:
      self.process = subprocess.Popen(
        (
          *(sys.executable, '-m', f'experiments.{module}'),
          *(f'--workdir={workdir}', *flags),
        ),
        cwd=_ROOT,
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
        **options,
      )

  def wait_for(self, condition) -> bool:
    """Returns whether the condition came true before the process ended."""
    end = time.monotonic() + _PATIENCE
    while not condition():
      if self.process.poll() is not None:
        return condition()
      if time.monotonic() > end:
        self.kill()
        raise TimeoutError(self.printed()[-4000:])
      time.sleep(0.001)
    return True

  def printed(self) -> str:
    return self.log.read_text(errors='replace')

  def kill(self, number=signal.SIGKILL) -> None:
    if self.process.poll() is None:
      self.process.send_signal(number)

  def end(self) -> int:
    """Returns the exit code of the process, which ends by itself."""
    try:
      return self.process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
      self.kill()
      raise

  def finish(self) -> None:
    """Waits for the end of a run; AssertionError if that is not a good one."""
    if self.end():
      raise AssertionError(self.printed()[-4000:])

  def num_lines(self) -> int:
    """Returns how many lines of metrics there are."""
    path = self.workdir / 'metrics.jsonl'
    return path.read_text().count('\n') if path.exists() else 0

  def writing(self) -> set[str]:
    """Returns the names of the checkpoints that it has begun, and not yet ended."""
    begun = set()
    for path in self.workdir.glob('checkpoints/*checkpoint-tmp*'):
      with contextlib.suppress(FileNotFoundError):  # it has just been renamed
        if path.stat().st_mtime > self._begin:  # others were killed before
          begun.add(path.name)
    return begun

  def compiling(self) -> bool:
    """Returns whether the last that was said is that a program is compiled."""
    text = self.printed()
    return text.rfind('Compiling jit') > text.rfind('Finished XLA compilation')


def saved(workdir) -> list[int]:
  """Returns the steps whose checkpoints are written, in order."""
  names = [path.name for path in workdir.glob('checkpoints/*')]
  return sorted(int(name) for name in names if name.isdigit())


def contents(workdir) -> dict:
  """Returns what a run ended with: its state, and all that it reported.

  Without what the clock decides.
  """
  state = workdirs.restore(training.read_config(workdir), workdir)
  return {
    'step': int(state.step),
    'state': {
      jax.tree_util.keystr(path): np.asarray(leaf)
      for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    },
    'metrics': smoke.metric_lines(workdir),
    'events': _events(workdir / 'events'),
    'hparams': _events(workdir / 'events' / 'hparams'),
  }


def assert_equal(actual: dict, expected: dict) -> None:
  """Raises AssertionError unless two runs ended with the same, bit for bit."""
  for part in ('step', 'metrics', 'events', 'hparams'):
    if actual[part] != expected[part]:
      raise AssertionError(
        f'{part} differ: {actual[part]}, expected {expected[part]}'
      )
  assert actual['state'].keys() == expected['state'].keys()
  for path, array in expected['state'].items():
    np.testing.assert_array_equal(actual['state'][path], array, path)


def _events(folder):
  """Returns (step, value) of every scalar and picture of an events folder."""
  events = event_accumulator.EventAccumulator(
    str(folder), {'scalars': 0, 'images': 0}
  ).Reload()
  scalars = {
    tag: [(event.step, event.value) for event in events.Scalars(tag)]
    for tag in events.Tags()['scalars']
    if tag != 'steps_per_second'
  }
  pictures = {
    tag: [(e.step, e.encoded_image_string) for e in events.Images(tag)]
    for tag in events.Tags()['images']
  }
  return {**scalars, **pictures}
