"""Reductions over the mapped axis that holds the batch.

Every function is the identity when `axis_name` is None, so that one body runs
alone, under `vmap(axis_name=...)`, `pmap` and `shard_map`. Nothing else in the
codebase tests `axis_name`.
"""

from collections.abc import Callable

import jax
from jax import lax
import jax.numpy as jnp

from stein_jax import checks
from stein_jax.types import Array, PRNGKey, Tree


def pmean(tree: Tree, axis_name: str | None) -> Tree:
  """Returns the mean of every leaf over the axis."""
  return tree if axis_name is None else lax.pmean(tree, axis_name)


def psum(tree: Tree, axis_name: str | None) -> Tree:
  """Returns the sum of every leaf over the axis."""
  return tree if axis_name is None else lax.psum(tree, axis_name)


def pmax(tree: Tree, axis_name: str | None) -> Tree:
  """Returns the largest of every leaf over the axis."""
  return tree if axis_name is None else lax.pmax(tree, axis_name)


def pmin(tree: Tree, axis_name: str | None) -> Tree:
  """Returns the smallest of every leaf over the axis."""
  return tree if axis_name is None else lax.pmin(tree, axis_name)


def all_gather(tree: Tree, axis_name: str | None) -> Tree:
  """Returns every leaf [n, ...] joined over the axis: [N, ...]."""
  if axis_name is None:
    return tree
  return jax.tree.map(
    # Tiled, so that shards join along their rows without a new axis.
    lambda leaf: lax.all_gather(leaf, axis_name, tiled=True),
    tree,
  )


def ring_sum(
  function: Callable[[Tree, Array | int], Tree],
  share: Tree,
  axis_name: str | None,
) -> Tree:
  """Returns the sum of function(share, index) over the shards of the axis.

  Shares travel from shard to shard, so that none holds more than two, and the next
  is on its way while one is worked on.
  """
  own = index(axis_name)
  if axis_name is None:
    return function(share, own)
  shards = size(axis_name)
  onward = [(i, (i + 1) % shards) for i in range(shards)]

  def turn(carry, distance):
    share, total = carry
    # Sent first, so that it travels while the part is computed.
    following = lax.ppermute(share, axis_name, onward)
    part = function(share, (own - distance) % shards)
    return (following, jax.tree.map(jnp.add, total, part)), None

  following = lax.ppermute(share, axis_name, onward)
  first = function(share, own)
  distances = jnp.arange(1, shards)
  return lax.scan(turn, (following, first), distances)[0][1]


def is_split(axis_name: str | None) -> bool:
  """Returns whether there is an axis, over which the batch is split."""
  return axis_name is not None


def index(axis_name: str | None) -> Array | int:
  """Returns this shard's place on the axis: 0 when there is no axis."""
  return 0 if axis_name is None else lax.axis_index(axis_name)


def size(axis_name: str | None) -> int:
  """Returns how many shards the axis has: 1 when there is no axis."""
  return 1 if axis_name is None else lax.axis_size(axis_name)


def fold_in_index(rng: PRNGKey, axis_name: str | None) -> PRNGKey:
  """Returns a key of this shard's own.

  Raises:
    TypeError: the key is none.
  """
  checks.key(rng=rng)
  # Folded in without an axis too, so that one device alone has the key of a
  # shard 0.
  return jax.random.fold_in(rng, index(axis_name))


def match_varying(*arrays: Array) -> tuple[Array, ...]:
  """Returns the arrays, all typed as different from shard to shard if one is.

  `shard_map` asks for this where a function with a gradient of its own, or the carry of
  a loop, has one array that is replicated and another that is split.
  """
  axes = [jax.typeof(x).manual_axis_type.varying for x in arrays]
  every = frozenset().union(*axes)
  return tuple(
    lax.pcast(x, tuple(every - own), to='varying') if every - own else x
    for x, own in zip(arrays, axes, strict=True)
  )
