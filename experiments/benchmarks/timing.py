"""Times of compiled functions, taken in turn so that all see the same machine."""

from collections.abc import Callable, Mapping
import statistics
import time
from typing import Any

from absl import flags
import jax

_SECONDS = flags.DEFINE_float(
  'seconds', 1.0, 'Spent on each function.', lower_bound=0.0
)


def medians(functions: Mapping[str, Callable], *args: Any) -> dict[str, float]:
  """Returns the median time in seconds of a call of each function, by name.

  Each is called for `--seconds`, and at least three times.

  Args:
    functions: jitted already, or of another library; what they return is waited for.
    *args: of every call.
  """
  # One call each beforehand, which compiles and fills caches.
  for function in functions.values():
    jax.block_until_ready(function(*args))
  times = {name: [] for name in functions}
  end = time.perf_counter() + _SECONDS.value * len(functions)
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
