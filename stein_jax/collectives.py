"""Reductions over the mapped axis that holds the batch.

Every function is the identity when `axis_name` is None, so that one body runs
alone, under `vmap(axis_name=...)`, `pmap` and `shard_map`. Nothing else in the
codebase tests `axis_name`.
"""

import jax
from jax import lax

from stein_jax.types import Array, PRNGKey, Tree


def pmean(tree: Tree, axis_name: str | None) -> Tree:
  """Returns the mean of every leaf over the axis."""
  return tree if axis_name is None else lax.pmean(tree, axis_name)


def psum(tree: Tree, axis_name: str | None) -> Tree:
  """Returns the sum of every leaf over the axis."""
  return tree if axis_name is None else lax.psum(tree, axis_name)


def all_gather(tree: Tree, axis_name: str | None) -> Tree:
  """Returns every leaf [n, ...] joined over the axis: [N, ...]."""
  if axis_name is None:
    return tree
  return jax.tree.map(
    lambda leaf: lax.all_gather(leaf, axis_name, tiled=True), tree
  )


def index(axis_name: str | None) -> Array | int:
  """Returns this shard's place on the axis: 0 when there is no axis."""
  return 0 if axis_name is None else lax.axis_index(axis_name)


def fold_in_index(rng: PRNGKey, axis_name: str | None) -> PRNGKey:
  """Returns a key of this shard's own."""
  return jax.random.fold_in(rng, index(axis_name))


def alike(*arrays: Array) -> tuple[Array, ...]:
  """Returns the arrays, all of them different from shard to shard if one is.

  What a function with a gradient of its own needs where one of its arguments is
  replicated and another split.
  """
  axes = [jax.typeof(x).manual_axis_type.varying for x in arrays]
  every = frozenset().union(*axes)
  return tuple(
    lax.pcast(x, tuple(every - own), to='varying') if every - own else x
    for x, own in zip(arrays, axes, strict=True)
  )
