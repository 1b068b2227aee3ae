"""Arrays that metrics take: rows [n, k], and rows of any shape."""

import jax.numpy as jnp
import numpy as np

from stein_jax import dtypes


def matrix(**arrays):
  """Returns the one array named, on the host, or refuses what is not [n, k]."""
  ((name, value),) = arrays.items()
  value = np.asarray(value)
  if value.ndim != 2 or not value.size:
    raise ValueError(f'{name} must be [n, k], n and k >= 1; got {value.shape}.')
  return value


def all_finite(*arrays):
  """Returns whether every number of every array is finite."""
  return all(np.isfinite(array).all() for array in arrays)


def check_same_width(x, y):
  """Refuses matrices of different numbers of columns."""
  if x.shape[1] != y.shape[1]:
    raise ValueError(f'Unequal numbers of columns: {x.shape} and {y.shape}.')


def flat(x, minimum):
  """Returns rows [n, d] of x [n, ...], in the dtype sums are taken in."""
  x = jnp.asarray(x)
  if x.ndim < 2 or len(x) < minimum or not x.size:
    raise ValueError(f'Needs rows [n, ...], n >= {minimum}; got {x.shape}.')
  return dtypes.at_least_float32(x.reshape(len(x), -1))
