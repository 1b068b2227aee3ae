"""Some of many points, where all pairs would be too many."""

import numpy as np

from stein_jax.types import Array

_RULED = 1000


def for_rules(x: Array) -> Array:
  """Returns at most 1,000 of the rows of x [n, d], evenly spaced.

  A rule for a bandwidth sees these alone where the rest is linear in n.
  """
  if len(x) <= _RULED:
    return x
  return x[np.linspace(0, len(x) - 1, _RULED, dtype=int)]
