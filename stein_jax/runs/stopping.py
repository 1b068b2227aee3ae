"""Signals that ask a run to stop, answered after a step."""

import os
import signal
import threading

from absl import logging
import jax
from jax.experimental import multihost_utils


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
    if agreed:
      logging.warning('A process got a signal: all stop after step %d.', done)
    return agreed
