"""Sums over all states of spins whose energy is quadratic."""

import jax
from jax import lax
import jax.numpy as jnp

from stein_jax.types import Array

MAX_LISTED = 20
MAX_SUMMED = 30  # where a state costs one exponential: seconds on two cores
ENTRIES = 2**20  # numbers of a block that is held at once


def signs(index: Array, num: int) -> Array:
  """Returns the lowest bits [..., num] of an index as -1 and 1."""
  bit = jnp.expand_dims(jnp.arange(num), range(index.ndim))
  return 2 * ((index[..., None] >> bit) & 1) - 1


def log_weights(field: Array, coupling: Array) -> Array:
  """Returns field.h + h.coupling h / 2 of all h in {-1, 1}^d, [2^d].

  The states are in the order of `signs`.
  """
  rows, to_states = _halves(field, coupling)
  return jax.vmap(to_states)(rows).reshape(-1)


def log_sum(field: Array, coupling: Array) -> Array:
  """Returns the logarithm of the sum of exp of `log_weights`, []."""
  rows, to_states = _halves(field, coupling)
  # In blocks, whose states are made anew for the gradient.
  sums = lax.map(
    jax.checkpoint(lambda row: jax.nn.logsumexp(to_states(row))),
    rows,
    batch_size=max(1, min(len(rows[0]), ENTRIES // len(rows[0]))),
  )
  return jax.nn.logsumexp(sums)


def _halves(field, coupling):
  """Returns rows, and a function of a row to the weights of the states in it.

  A weight is a term for each half of h = (v, u) and a product of the two. So the states
  are a matrix: a row is one u, and the function returns the weights of every v
  [2^(d // 2)] with it.
  """
  half = len(field) // 2

  def states_of(part):
    size = len(field[part])
    h = signs(jnp.arange(2**size), size).astype(field.dtype)
    return h, h @ field[part] + 0.5 * jnp.sum(h @ coupling[part, part] * h, 1)

  low, high = slice(half), slice(half, None)
  (v, own_v), (u, own_u) = states_of(low), states_of(high)

  def to_states(row):
    along, own = row
    return v @ along + own_v + own

  return (u @ coupling[high, low], own_u), to_states
