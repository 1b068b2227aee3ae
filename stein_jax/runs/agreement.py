"""Processes of one run agree on what they train before the first step, or say why."""

from collections.abc import Callable, Mapping
import contextlib
import dataclasses
import itertools
import json
import os
import socket
import time
from typing import Any
import zlib

from absl import logging
import jax
from jax._src import distributed
import numpy as np

import stein_jax
from stein_jax.runs import reporting
from stein_jax.types import Batch

PATIENCE = 120  # seconds that others may take, if nobody says otherwise
_LATE = 10  # seconds that one process may start after another
_SILENCE = 15  # seconds, after which it is said who is missing
_FAILED = 'stein_jax/failed'
_patience = PATIENCE
_heard = False  # of a failure
_calls = itertools.count()  # as many in every process


def be_patient(seconds: int) -> None:
  """Lets this process wait so long for the others, whenever it waits."""
  global _patience
  _patience = seconds


def check(config, source, first: Batch) -> None:
  """Returns where all processes have the same config, code and data.

  Raises:
    ValueError: they differ; says in what.
    RuntimeError: another process does not come.
  """
  if jax.process_count() == 1:
    return
  batch = {
    name: zlib.crc32(np.ascontiguousarray(rows).tobytes())
    for name, rows in first.items()
  }
  fields = {
    **reporting.flat_config(config),
    'version of stein_jax': stein_jax.__version__,
    'version of jax': jax.__version__,
    'jax_enable_x64': jax.config.jax_enable_x64,
    'jax_default_prng_impl': jax.config.jax_default_prng_impl,
    'commit of the code': reporting.commit(),
    'examples of the data': len(source),
    'first batch of the data': batch,
  }
  ours = {name: str(value) for name, value in fields.items()}
  theirs = exchanged(ours)
  exchanged(
    {}
  )  # all have read: the first to leave may take what was said along
  for index, other in theirs.items():
    different = [
      f'{name}: {ours.get(name, "(absent)")} here, {other.get(name, "(absent)")} there'
      for name in sorted(ours.keys() | other.keys())
      if ours.get(name) != other.get(name)
    ]
    if different:
      raise ValueError(
        f'Process {jax.process_index()} differs from process {index}; all must be '
        f'started alike. {"; ".join(different[:5])}.'
      )


def meet(address: str, process: int, count: int) -> None:
  """Returns when all processes have come to process 0, at `address` (host:port).

  JAX does not say who is missing, and aborts. So they meet before it takes the port.

  Raises:
    ValueError: the processes were not numbered alike, or the address is none.
    RuntimeError: one has not come, or the port is taken.
  """
  host, _, port = address.rpartition(':')
  if not port.isdecimal() or not 0 <= process < count:
    raise ValueError(
      f'JAX_COORDINATOR_ADDRESS={address}, JAX_NUM_PROCESSES={count} and '
      f'JAX_PROCESS_ID={process} do not fit; needed: host:port, and a number from 0 '
      'to that of the processes less one.'
    )
  if count == 1:
    return
  now = time.monotonic()
  meeting = _Meeting(address, now, now + _SILENCE)
  if process == 0:
    meeting.hold(int(port), count)
  else:
    meeting.attend(host.strip('[]'), int(port), process, count)


@dataclasses.dataclass
class _Meeting:
  """What is said is a line of JSON; nothing that is read is more than that."""

  address: str
  begin: float
  due: float

  def hold(self, port, count):
    """Waits for all others, and tells them who is missing, what is wrong, or to go."""
    bound = os.environ.get('JAX_COORDINATOR_BIND_ADDRESS', '')
    port = int(bound.rpartition(':')[2] or port)
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    try:
      server = socket.create_server(
        ('', port), family=family, dualstack_ipv6=dual, backlog=count
      )
    except OSError as error:
      raise RuntimeError(
        f'Process 0 cannot listen at port {port} ({error.strerror}): another program '
        'is there, or another process with the number 0.'
      ) from error
    came, guest = {}, None
    with server, contextlib.ExitStack() as stack:
      server.settimeout(0.5)
      try:
        while len(came) < count - 1:
          came = {i: guest for i, guest in came.items() if not _is_gone(guest)}
          with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            guest = stack.enter_context(server.accept()[0])
            guest.settimeout(2)
            said = _line(guest)
            process, others = int(said['process']), int(said['of'])
            if others != count:
              raise _Wrong(
                f'Process {process} was started as one of {others}, process 0 as one '
                f'of {count}.'
              )
            if process in came:
              raise _Wrong(f'Two processes were started as number {process}.')
            came[process] = guest
          missing = sorted(set(range(1, count)) - came.keys())
          if missing and self.is_due():
            self.tell(missing)
            _say(came.values(), {'missing': missing})
          if missing and time.monotonic() > self.begin + _patience:
            raise _Wrong(
              f'Waited {_patience} s for process {_names(missing)}, which has not come '
              f'to {self.address}. Start all again.'
            )
      except _Wrong as error:
        guests = [*came.values(), guest]
        _say(guests, {'wrong': str(error)})
        # Those who come a little later are told as well.
        end = min(time.monotonic(), self.begin + _patience - _LATE) + _LATE
        while len(guests) < count - 1 and time.monotonic() < end:
          with contextlib.suppress(OSError, ValueError):
            guest = stack.enter_context(server.accept()[0])
            guest.settimeout(2)
            _line(guest)  # what is not read would reset the connection
            guests.append(guest)
            _say([guest], {'wrong': str(error)})
        raise RuntimeError(str(error)) from None
      _say(came.values(), {'go': True})

  def attend(self, host, port, process, count):
    """Comes to process 0, and goes when it says so."""
    trouble = 'nobody is there'
    while time.monotonic() < self.begin + _patience:
      if self.is_due():
        self.tell([0], trouble)
      try:
        with socket.create_connection((host, port), 5) as server:
          _send(server, {'process': process, 'of': count})
          # A little longer than process 0 waits, which knows more.
          server.settimeout(self.begin + _patience + 5 - time.monotonic())
          while 'go' not in (said := _line(server)):
            if 'wrong' in said:
              raise RuntimeError(said['wrong'])
            self.tell(said['missing'])
          return
      except OSError as error:
        trouble = error.strerror or str(error)
      except (ValueError, LookupError, TypeError):
        trouble = 'something else answers'
      time.sleep(0.5)
    raise RuntimeError(
      f'Process {process} waited {_patience} s for process 0 at {self.address} '
      f'({trouble}). Start all again.'
    )

  def is_due(self):
    """Returns whether it is time to say again who is missing."""
    now = time.monotonic()
    is_due = now > self.due
    if is_due:
      self.due = now + _SILENCE
    return is_due

  def tell(self, missing, trouble=None):
    logging.warning(
      'Waiting for process %s at %s, up to %d s%s: is the same command running there?',
      _names(missing),
      self.address,
      _patience,
      f' ({trouble})' if trouble else '',
    )


class _Wrong(Exception):
  """What ends a meeting."""


def _names(numbers):
  return ' and '.join(map(str, numbers))


def _say(guests, what):
  for guest in guests:
    with contextlib.suppress(OSError, AttributeError):  # gone, or none
      _send(guest, what)


def _send(connection, what):
  connection.sendall(json.dumps(what).encode() + b'\n')


def _line(connection):
  """Returns what is said next; ValueError if that is no such line."""
  text = b''
  while not text.endswith(b'\n'):
    byte = connection.recv(1)
    if not byte or len(text) > 10_000:
      raise ValueError('no line')
    text += byte
  return json.loads(text)


def _is_gone(connection):
  """Returns whether who was there has left."""
  try:
    connection.setblocking(False)
    return connection.recv(1, socket.MSG_PEEK) == b''
  except BlockingIOError:
    return False
  except OSError:
    return True
  finally:
    connection.settimeout(2)


def failure() -> str | None:
  """Returns a sentence if another process has failed; once, for whoever asks first."""
  global _heard
  if _heard:
    return None
  for name, text in distributed.global_state.client.key_value_dir_get(_FAILED):
    index = name.rpartition('/')[2]
    if index != str(distributed.global_state.process_id):
      _heard = True
      return f'Process {index} has failed: {text}'
  return None


def exchanged(value: Mapping[str, Any]) -> dict[int, Any]:
  """Returns what the other processes give here, by their numbers.

  Every process must call this as often as the others, with what JSON can hold.

  Raises:
    RuntimeError: a process does not come, or has failed.
  """
  client, call = distributed.global_state.client, next(_calls)
  key = lambda index: f'stein_jax/{call}/{index}'
  client.key_value_set(key(jax.process_index()), reporting.to_json(value))
  others = set(range(jax.process_count())) - {jax.process_index()}
  found = {}

  def come():
    if text := failure():
      raise RuntimeError(text)
    for index in others - found.keys():
      try:
        text = client.key_value_try_get(key(index))
      except Exception as error:  # of XLA's, which have no classes of their own
        if 'NOT_FOUND' not in str(error):
          raise
      else:
        found[index] = reporting.from_json(text)
    return found.keys() == others

  if not waits_for(come):
    missing = ', '.join(map(str, sorted(others - found.keys())))
    raise RuntimeError(
      f'Process {jax.process_index()} waited {_patience} s for process {missing}, '
      'which does not come. Start all again.'
    )
  return found


def tell_failure(text: str) -> None:
  """Tells the others why this process leaves, where they listen."""
  client = distributed.global_state.client
  client.key_value_set(f'{_FAILED}/{jax.process_index()}', text)
  if jax.process_index() == 0:
    time.sleep(8)  # what was told is kept by this process, and heard every 3 s


def waits_for(holds: Callable[[], bool], seconds: float | None = None) -> bool:
  """Returns whether something comes to hold within so many seconds."""
  end = time.monotonic() + (_patience if seconds is None else seconds)
  # It looks again and again, since a call that blocks hears no signal.
  while not holds():
    if time.monotonic() > end:
      return False
    time.sleep(0.2)
  return True
