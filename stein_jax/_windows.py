"""Every pair of n points once: each point with the n // 2 that follow it, cyclically.

For a block of rows these are within a window of columns of fixed size: half of all
points, and the block itself.
"""

import jax
import jax.numpy as jnp

from stein_jax.types import Array, Tree


def repeat_rows(tree: Tree, length: int) -> Tree:
  """Returns the leaves [n, ...] with their rows repeated in order, `length` in all."""
  return jax.tree.map(lambda a: a[jnp.arange(length) % len(a)], tree)


def pair_mask(n: int, rows: Array, width: int) -> Array:
  """Returns which entries of a window are pairs that count [rows, width].

  Args:
    n: number of points.
    rows: which points are the block's rows, one after the other [rows].
    width: number of columns; column c is the point c after the first row's.
  """
  # With an even n, two points that are half the way round from each other follow each
  # other; the pair counts for the one in the first half.
  seen_before = (n % 2 == 0) & (rows >= n // 2)
  reach = n // 2 - seen_before.astype(rows.dtype)
  offset = jnp.arange(width)[None] - jnp.arange(len(rows))[:, None]
  return (offset >= 1) & (offset <= reach[:, None])
