"""Signals that ask a run to stop, answered after a step."""

import contextlib
import ctypes
import itertools
import os
import pathlib
import signal
import sys
import threading
import time

from absl import logging
import jax
from jax._src import distributed
from jax.experimental import multihost_utils

from stein_jax.runs import agreement

_ANSWER = (
  25  # seconds without a step, after which SIGTERM is not answered by a save
)
_BEATS = 'stein_jax/beats'
_BEAT = 3  # seconds between two of them


class Deadline:
  """Ends a process of several that waits for the others in vain.

  Python's handlers run between two lines of Python: a process that waits in a
  collective would never hear of a signal, nor look at the clock. Threads do. One hears
  SIGTERM, and ends the process unless the run gets on. The other tells how far this
  process is, sees how far the others are, and ends it when one of them holds all up.
  """

  def __init__(self, patience: float):
    self._limit = patience * 2 // 3
    self._count, self._progress, self._folder = 0, time.monotonic(), None
    self._theirs = None
    # Python writes the number of a signal here at once, whatever the main thread does.
    self._numbers, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=self._listen, daemon=True).start()

  def take_over(self) -> None:
    """Hears SIGTERM before JAX does, whose own handler would take it alone."""
    libc = ctypes.CDLL(None)
    libc.signal.restype = ctypes.c_void_p
    address = libc.signal(signal.SIGTERM, ctypes.c_void_p(signal.SIG_DFL))
    self._theirs = ctypes.CFUNCTYPE(None, ctypes.c_int)(address)
    signal.signal(signal.SIGTERM, lambda *_: None)
    threading.Thread(target=self._watch, daemon=True).start()

  def step(self, saves_to: pathlib.Path | None = None) -> None:
    """Notes that this process gets on, and where it writes from now on."""
    self._count, self._progress = self._count + 1, time.monotonic()
    self._folder = saves_to

  def _listen(self):
    while signal.SIGTERM not in os.read(self._numbers, 64):
      pass
    if self._theirs:  # JAX tells the others
      self._theirs(signal.SIGTERM)
    self._progress, written = time.monotonic(), None
    while time.monotonic() < self._progress + _ANSWER:
      time.sleep(0.2)
      # A large checkpoint may take longer, as long as it grows.
      if self._folder and written != (written := _size(self._folder)):
        self._progress = time.monotonic()
    _end(
      f'SIGTERM: no step in {_ANSWER} s, so that nothing is saved; another process '
      'does not answer. The run goes on from its newest checkpoint.'
    )

  def _watch(self):
    """Ends this process when another has stood still for too long."""
    client, ours = distributed.global_state.client, jax.process_index()
    silent, behind = {}, {}
    worked, count, idle = 0.0, 0, 0
    for beat in itertools.count():
      time.sleep(_BEAT)
      is_idle = time.process_time() < worked + _BEAT / 20
      # Before the first step a disk may be slow: `exchanged` looks at the clock then.
      is_still = self._count == count > 0
      worked, count = time.process_time(), self._count
      idle = idle + _BEAT if is_idle and is_still else 0
      try:
        text = f'{beat} {count} {idle}'
        client.key_value_set(f'{_BEATS}/{ours}', text, allow_overwrite=True)
        told = client.key_value_dir_get(_BEATS)
        failure = agreement.failure()
      except Exception:  # JAX ends this process when the first one is gone
        continue
      if failure:
        _end(failure)
      now = time.monotonic()
      rows = [
        (name.rpartition('/')[2], *map(int, text.split()))
        for name, text in told
      ]
      most = max(count for _, _, count, _ in rows)
      # What has changed is a new key, whose time begins now.
      silent = {(i, beat): silent.get((i, beat), now) for i, beat, _, _ in rows}
      behind = {
        (i, count): behind.get((i, count), now)
        for i, _, count, _ in rows
        if count < most
      }
      still = sorted(
        {
          i
          for (i, _), since in [*silent.items(), *behind.items()]
          if now > since + self._limit
        }
      )
      # A step that waits for another process cannot say for which.
      if min(idle for *_, idle in rows) > self._limit:
        still = list(map(str, range(jax.process_count())))
      if still:
        text = (
          f'Process {" and ".join(still)} stood still for {self._limit} s. Start all '
          'again: the run goes on from its newest checkpoint. --patience=SECONDS waits '
          'longer.'
        )
        with contextlib.suppress(Exception):
          agreement.tell_failure(text)
        _end(text)


def _size(folder):
  """Returns how much there is in unfinished checkpoints of a folder."""
  try:
    paths = [
      path
      for unfinished in folder.glob('*checkpoint-tmp*')
      for path in unfinished.rglob('*')
    ]
    return len(paths), sum(path.stat().st_size for path in paths)
  except OSError:  # one has just been renamed
    return None


def _end(text):
  """Says why this process ends, and ends it whatever its other threads do."""
  print(text, file=sys.stderr, flush=True)
  os._exit(1)


deadline: Deadline | None = None  # of a process of several


def listen(patience: float) -> Deadline:
  """Returns this process's deadline, which is there from now on."""
  global deadline
  deadline = Deadline(patience)
  return deadline


def step(saves_to: pathlib.Path | None = None) -> None:
  """Notes that this process gets on: as often in every process, where all have to."""
  if deadline:
    deadline.step(saves_to)


class Interruption:
  """Notes SIGTERM and SIGINT while it is entered, and says when to stop.

  Where there are several processes, one that gets a signal stops all. JAX has its own
  handler of SIGTERM then, which tells the others.
  """

  def __init__(self):
    self._requested = False
    self._handlers = {}
    self._asked = 0
    self._several = jax.process_count() > 1

  def __enter__(self):
    numbers = [signal.SIGINT]
    if not self._several:
      numbers.append(signal.SIGTERM)
    # Python lets the main thread alone set handlers, and a notebook may train
    # in another.
    if threading.current_thread() is threading.main_thread():
      for number in numbers:
        self._handlers[number] = signal.signal(number, self._note)
    return self

  def __exit__(self, *_):
    # Whoever called the loop gets its own handlers back.
    for number, handler in self._handlers.items():
      signal.signal(number, handler)

  def _note(self, number, frame):
    del frame
    if self._requested and number == signal.SIGINT:
      raise KeyboardInterrupt  # a second one does not wait for the step to end
    self._requested = True
    if self._several:
      os.kill(os.getpid(), signal.SIGTERM)
    logging.warning('Signal %d: stopping after this step.', number)

  def stops_after(self, done):
    """Returns whether the run ends with step `done`: the same in every process."""
    if not self._several:
      return self._requested
    # The processes agree, in the background, on a step that none has asked about,
    # and each is told when it asks about that one: so no step is left out, be it
    # within a call or before the run was continued.
    steps = range(self._asked + 1, done + 1)
    self._asked = done
    agreed = any([*map(multihost_utils.reached_preemption_sync_point, steps)])
    step()
    if agreed:
      logging.warning('A process got a signal: all stop after step %d.', done)
    return agreed
