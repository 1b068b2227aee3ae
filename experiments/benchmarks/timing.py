"""Times of compiled functions, taken in turn so that all see the same machine."""

from collections.abc import Callable, Mapping
import statistics
import time
from typing import Any

import jax


def medians(
  functions: Mapping[str, Callable], *args: Any, seconds: float = 1.0
) -> dict[str, float]:
  """Returns the median time in seconds of a call of each function, by name.

  Args:
    functions: jitted already, or of another library; what they return is waited for.
    *args: of every call.
    seconds: spent on each function, and at least three calls.
  """
  # One call each beforehand, which compiles and fills caches.
  for function in functions.values():
    jax.block_until_ready(function(*args))
  times = {name: [] for name in functions}
  end = time.perf_counter() + seconds * len(functions)
  calls = 0
  # Round after round, so that a slow moment of the machine falls on all alike.
  while calls < 3 or time.perf_counter() < end:
    calls += 1
    for name, function in functions.items():
      begin = time.perf_counter()
      jax.block_until_ready(function(*args))
      times[name].append(time.perf_counter() - begin)
  # The median, which one disturbed call does not move.
  return {name: statistics.median(taken) for name, taken in times.items()}
