"""Processes of one run agree on what they train before the first step, or say why."""

from collections.abc import Callable, Mapping
import itertools
import time
from typing import Any
import zlib

import jax
from jax._src import distributed
import numpy as np

import stein_jax
from stein_jax.runs import reporting
from stein_jax.types import Batch

PATIENCE = 120  # seconds that others may take, if nobody says otherwise
_FAILED = 'stein_jax/failed'
_patience = PATIENCE
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
    for name, text in client.key_value_dir_get(_FAILED):
      raise RuntimeError(
        f'Process {name.rpartition("/")[2]} has failed: {text}'
      )
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
      'which has not begun to train. Start all again.'
    )
  return found


def tell_failure(text: str) -> None:
  """Tells the others why this process leaves, where they listen."""
  client = distributed.global_state.client
  client.key_value_set(f'{_FAILED}/{jax.process_index()}', text)
  if jax.process_index() == 0:
    time.sleep(2)  # what was told is kept by this process


def waits_for(holds: Callable[[], bool], seconds: float | None = None) -> bool:
  """Returns whether something comes to hold within so many seconds."""
  end = time.monotonic() + (_patience if seconds is None else seconds)
  # By looking again and again: a call that blocks hears no signal.
  while not holds():
    if time.monotonic() > end:
      return False
    time.sleep(0.2)
  return True
