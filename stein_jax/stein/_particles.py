"""Particles of any shape [n, ...] as points [n, d], and back."""

import functools
from typing import Any

import jax
from jax import flatten_util
from jax import lax
import jax.numpy as jnp
import numpy as np

from stein_jax import _distances
from stein_jax import checks
from stein_jax import collectives
from stein_jax import dtypes
from stein_jax.types import Tree


def check(x, score, at):
  """Raises ValueError unless x and `at` are particles, and the score is like x."""
  for name, tree in {'x': x, 'at': at}.items():
    shapes = list(map(np.shape, jax.tree.leaves(tree)))
    counts = {shape[:1] for shape in shapes}
    if len(counts) != 1 or counts & {(), (0,)}:
      raise ValueError(
        f'{name} has leaves of shapes {shapes}; wanted: leaves [n, ...] of one n.'
      )
  checks.like(x, score=score)
  # The number of other points may differ, their shape may not.
  checks.like(_first(x), at=_first(at))


def called(
  self,
  x: Tree,
  score: Tree,
  *,
  at: Tree | None = None,
  axis_name: str | None = None,
  **asked: Any,
) -> Tree:
  """Returns phi at the particles, like x, or like `at` if that is given.

  Args:
    x: particles, a tree with leaves [n, ...].
    score: grad_x log p at the particles, like x.
    at: other points, a tree like x with leaves [m, ...].
    axis_name: the mapped axis over which the particles, and `at`, are split.
    **asked: what the direction asks for; see `call`.

  Raises:
    ValueError: leaves of different n, a score unlike x, or an option out of range.
  """
  # This is the `__call__` of directions that have a method `_phi`: of points x and
  # scores [n, d], of others [m, d] or None, and of these keywords, to phi.
  if 'log_density' in asked:
    asked['log_density'] = of_points(asked['log_density'], x)
  phi = functools.partial(self._phi, axis_name=axis_name, **asked)
  return on_points(phi, x, score, at)


def on_points(function, x, score, at=None):
  """Returns what a function makes of particles as points, like x or like `at`.

  Args:
    function: of points [n, d], their scores [n, d] and the other points [m, d], or
      None, to phi at these or at x.
    x: particles, a tree with leaves [n, ...].
    score: a tree like x.
    at: other points, a tree with leaves [m, ...], or None.
  """
  y = x if at is None else at
  check(x, score, y)
  # One dtype, or loops would begin with one and end with another.
  sets = dtypes.promoted(
    *map(flattened, (x, score) if at is None else (x, score, at))
  )
  phi = function(*sets, *([None] if at is None else []))
  return shaped(phi, y)


def centred(x, *others, axis_name=None):
  """Returns points [n, d], and others [m, d] or None, less the mean of x.

  The mean has no gradient, being a constant to a direction. It is subtracted in two
  parts, since far from 0 it has few digits.
  """
  middle = lax.stop_gradient(_distances.center_of(x, axis_name=axis_name))
  rest = jnp.mean(lax.stop_gradient(x) - middle, 0, keepdims=True)
  rest = collectives.pmean(rest, axis_name)
  less = lambda each: None if each is None else each - middle - rest
  return [less(each) for each in (x, *others)]


def times(matrix, rows):
  """Returns the matrix [d, d], or diagonal [d], times each of the rows [n, d]."""
  if matrix.ndim == 1:
    return rows * matrix[None]
  # TPU and GPU products are half precision.
  return jnp.dot(rows, matrix.T, precision=lax.Precision.HIGHEST)


def of_points(log_density, x):
  """Returns a log density of particles as one of points [d]; None of None."""
  if log_density is None:
    return None
  unravel = flatten_util.ravel_pytree(_first(x))[1]
  return lambda point: log_density(unravel(point))


def own_rows(gathered, x, axis_name):
  """Returns this device's rows, as many as x has, of an array of all [N, ...]."""
  first = collectives.index(axis_name) * len(x)
  return lax.dynamic_slice_in_dim(gathered, first, len(x))


def flattened(tree):
  """Returns particles with leaves [n, ...] as points [n, d]."""
  tree = jax.tree.map(dtypes.at_least_float32, tree)
  return jax.vmap(lambda one: flatten_util.ravel_pytree(one)[0])(tree)


def shaped(points, tree):
  """Returns points [n, d] as particles of the shapes and dtypes of a tree."""
  found = jax.vmap(flatten_util.ravel_pytree(_first(tree))[1])(points)
  return jax.tree.map(
    lambda new, old: new.astype(dtypes.floating(old).dtype), found, tree
  )


def points(x, score):
  """Returns points and scores [n, d] in the one dtype that they are summed in."""
  if np.ndim(x) != 2 or np.shape(x) != np.shape(score) or 0 in np.shape(x):
    raise ValueError(
      'Points and scores must be [n, d] alike, n and d at least 1; got '
      f'{np.shape(x)} and {np.shape(score)}.'
    )
  return dtypes.promoted(x, score)


def _first(tree):
  """Returns the first of particles with leaves [n, ...]."""
  return jax.tree.map(lambda leaf: dtypes.at_least_float32(leaf)[0], tree)
