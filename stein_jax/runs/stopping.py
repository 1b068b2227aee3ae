"""Signals that ask a run to stop, answered after a step."""

import ctypes
import os
import signal
import sys
import threading
import time

from absl import logging
import jax
from jax.experimental import multihost_utils

_ANSWER = (
  25  # seconds without a step, after which SIGTERM is not answered by a save
)


class Deadline:
  """Ends a process of several that got SIGTERM and waits for the others in vain.

  Python's handlers run between two lines of Python: a process that waits in a
  collective would never hear of the signal. A thread does, and ends the process unless
  steps go on or all have agreed to stop, and save.
  """

  def __init__(self):
    self._progress, self._agreed, self._theirs = time.monotonic(), False, None
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

  def step(self, agreed: bool) -> None:
    """Notes a step, and whether all stop after it."""
    self._progress, self._agreed = time.monotonic(), agreed

  def _listen(self):
    while signal.SIGTERM not in os.read(self._numbers, 64):
      pass
    if self._theirs:  # JAX tells the others
      self._theirs(signal.SIGTERM)
    self._progress = time.monotonic()
    while time.monotonic() < self._progress + _ANSWER:
      time.sleep(0.5)
      if self._agreed:  # and saves
        return
    print(
      f'SIGTERM: no step in {_ANSWER} s, so that nothing is saved; another process '
      'does not answer. The run goes on from its newest checkpoint.',
      file=sys.stderr,
      flush=True,
    )
    os._exit(1)


deadline: Deadline | None = None  # of a process of several


def listen() -> Deadline:
  """Returns this process's deadline, which is there from now on."""
  global deadline
  deadline = Deadline()
  return deadline


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
    if deadline:
      deadline.step(agreed)
    if agreed:
      logging.warning('A process got a signal: all stop after step %d.', done)
    return agreed
