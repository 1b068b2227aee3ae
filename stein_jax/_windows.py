"""Every pair of n points once: each with the n // 2 that follow it, cyclically.

A block of rows then needs a window of columns of fixed size, which is half of all and
the block itself.
"""

import jax
import jax.numpy as jnp

from stein_jax.types import Array, Tree


def cyclic(tree: Tree, length: int) -> Tree:
  """Returns the leaves [n, ...] repeated to `length` rows and no more."""
  return jax.tree.map(lambda a: a[jnp.arange(length) % len(a)], tree)


def once(n: int, rows: Array, width: int) -> Array:
  """Returns which entries of a window count [rows, width].

  Column c is the point c after the first row's; of an even n the point half the way
  round belongs to the first half of rows alone.
  """
  twice = (n % 2 == 0) & (rows >= n // 2)
  reach = n // 2 - twice.astype(rows.dtype)
  offset = jnp.arange(width)[None] - jnp.arange(len(rows))[:, None]
  return (offset >= 1) & (offset <= reach[:, None])
