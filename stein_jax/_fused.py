"""Sums over pairs of points under the kernel exp(-|x - y|^2), for GPUs.

In these Pallas kernels the matrix of pairs never leaves a core, where a block of rows
meets one block of columns after another. They are written for Triton; on a CPU they are
interpreted, for tests. Not yet measured on a GPU, they are never chosen by themselves.
"""

import functools

import jax
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
import jax.numpy as jnp

from stein_jax import dtypes
from stein_jax.types import Array

MAX_DIM = 256  # a core holds whole points
_ROWS, _COLUMNS = 64, 32
_dot = functools.partial(jnp.dot, precision=lax.Precision.HIGHEST)


def direction_sums(x: Array, pushed: Array) -> tuple[Array, Array]:
  """Returns sum_j k(x_i, x_j) pushed_j [n, d] and sum_j k(x_i, x_j) [n], j != i.

  Args:
    x: points [n, d], d at most `MAX_DIM`; k(x, y) = exp(-|x - y|^2).
    pushed: rows to be summed [n, d].
  """
  x, pushed = dtypes.at_least_float32(x), dtypes.at_least_float32(pushed)

  def body(other, x, _, y, pushed):
    k = jnp.where(other, jnp.exp(-_sq_dist(x, y)), 0)
    return _dot(k, pushed), jnp.sum(k, 1)

  drive, total = _over_pairs(body, (_padded(x), _padded(pushed)), (True, False))
  return drive[:, : x.shape[1]], total


def stein_sums(x: Array, slope: Array, own: Array, factor: Array) -> Array:
  """Returns sum_j u_ij [n], j != i, of a Stein kernel u that has this form:

  u_ij = k(x_i, x_j) (slope_i . slope_j + own_i + own_j + factor |x_i - x_j|^2).

  Args:
    x: points [n, d], d at most `MAX_DIM`; k(x, y) = exp(-|x - y|^2).
    slope: vectors of the points [n, d].
    own: numbers of the points [n].
    factor: the number [] that multiplies squared distances.
  """
  x, slope, own, factor = map(dtypes.at_least_float32, (x, slope, own, factor))

  def body(other, x, slope, own, factor, y, y_slope, y_own, _):
    sq_dist = _sq_dist(x, y)
    u = _dot(slope, y_slope.T) + own[:, None] + y_own[None]
    u = jnp.exp(-sq_dist) * (u + factor[:, None] * sq_dist)
    return (jnp.sum(jnp.where(other, u, 0), 1),)

  factor = jnp.broadcast_to(factor, own.shape)
  arrays = _padded(x), _padded(slope), own, factor
  return _over_pairs(body, arrays, (False,))[0]


def _over_pairs(body, arrays, is_matrix):
  """Returns the sums over all blocks of columns of what `body` finds in a block.

  Args:
    body: a function of which pairs of a block count, every array's rows and every
      array's columns, to rows of the results.
    arrays: the points' arrays, [n, d] or [n].
    is_matrix: whether each result is [n, d] instead of [n].
  """
  n = len(arrays[0])
  # The number of rows fills blocks of columns too, since _COLUMNS divides _ROWS.
  filled = (0, -n % _ROWS)
  arrays = [jnp.pad(a, (filled,) + ((0, 0),) * (a.ndim - 1)) for a in arrays]
  outs = [
    jax.ShapeDtypeStruct(arrays[0].shape[: 1 + each], arrays[0].dtype)
    for each in is_matrix
  ]
  # Columns are read block by block from the whole array, rows are given as a block.
  whole = lambda a: pl.BlockSpec(a.shape, lambda i: (0,) * a.ndim)
  block = lambda a: pl.BlockSpec(
    (_ROWS, *a.shape[1:]), lambda i: (i,) + (0,) * (a.ndim - 1)
  )

  # Pallas hands on all references in one list: rows, columns, results.
  def kernel(*refs):
    num = len(arrays)
    ours, theirs, results = refs[:num], refs[num : 2 * num], refs[2 * num :]
    rows = [ref[...] for ref in ours]
    row = pl.program_id(0) * _ROWS + jnp.arange(_ROWS)

    def add(i, totals):
      here = pl.ds(i * _COLUMNS, _COLUMNS)
      column = i * _COLUMNS + jnp.arange(_COLUMNS)
      other = (row[:, None] != column[None]) & (column < n)[None]
      found = body(other, *rows, *(ref[here] for ref in theirs))
      return tuple(map(jnp.add, totals, found))

    start = tuple(jnp.zeros(ref.shape, ref.dtype) for ref in results)
    totals = lax.fori_loop(0, len(arrays[0]) // _COLUMNS, add, start)
    for ref, total in zip(results, totals, strict=True):
      ref[...] = total

  sums = pl.pallas_call(
    kernel,
    grid=(len(arrays[0]) // _ROWS,),
    in_specs=[*map(block, arrays), *map(whole, arrays)],
    out_specs=[block(out) for out in outs],
    out_shape=outs,
    interpret=jax.default_backend() == 'cpu',
    compiler_params=triton.CompilerParams(num_warps=4, num_stages=2),
  )(*arrays, *arrays)
  return [array[:n] for array in sums]


def _padded(x):
  """Returns points with zeros up to a power of two, which Triton asks for."""
  width = max(16, pl.next_power_of_2(x.shape[1]))
  return jnp.pad(x, ((0, 0), (0, width - x.shape[1])))


def _sq_dist(x, y):
  """Returns |x_i - y_j|^2 of a block of rows and one of columns."""
  norms = jnp.sum(x * x, 1)[:, None] + jnp.sum(y * y, 1)[None]
  return jnp.maximum(norms - 2 * _dot(x, y.T), 0)
