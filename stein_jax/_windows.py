"""Every pair of n points once: each point with the n // 2 that follow it, cyclically.

For a block of rows these are within a window of columns of fixed size: half of all
points, and the block itself.
"""

from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from stein_jax.types import Array, Tree


class Windows(NamedTuple):
  """Points whose pairs are taken block by block.

  Attributes:
    n: number of points.
    size: number of rows of a block.
    points: a tree with leaves [length, ...], whose rows are the points, repeated.
  """

  n: int
  size: int
  points: Tree

  @classmethod
  def of(cls, points: Tree, size: int) -> 'Windows':
    """Returns the windows of points, leaves [n, ...]."""
    n = len(jax.tree.leaves(points)[0])
    empty = cls(n, size, ())
    length = size * len(empty.starts) + empty.width
    return cls(n, size, repeat_rows(points, length))

  @property
  def width(self) -> int:
    """Number of columns of a block."""
    return self.size + self.n // 2

  @property
  def starts(self) -> Array:
    """The first row of each block [blocks]."""
    return self.size * jnp.arange(-(-self.n // self.size))

  def block(self, start: Array) -> tuple[Tree, Tree, Array]:
    """Returns a block's rows, its columns, and which pairs count [size, width]."""
    cut = lambda length: jax.tree.map(
      lambda leaf: lax.dynamic_slice_in_dim(leaf, start, length), self.points
    )
    row = start + jnp.arange(self.size)
    counts = pair_mask(self.n, row, self.width) & (row < self.n)[:, None]
    return cut(self.size), cut(self.width), counts


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
