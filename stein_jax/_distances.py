"""Squared distances of pairs that keep their digits, as products of matrices.

|x - y|^2 = |x|^2 + |y|^2 - 2 x.y is right to some roundings of |x|^2. Where two points
are near each other and far from the origin, that error is larger than the distance. So
points are measured from a middle instead of the origin and, where they lie in groups
far apart, each from the middle of its own group.

Three functions find squared distances. `squared_by_product` is the fast one.
`squared_by_coordinates` is exact, and as fast in few dimensions.
`squared_by_subtraction` is exact, and slow in many dimensions.
"""

import math
from typing import NamedTuple

from jax import lax
from jax.custom_batching import custom_vmap
import jax.numpy as jnp
import numpy as np

from stein_jax import collectives
from stein_jax import dtypes
from stein_jax.types import Array

FEW_DIMENSIONS = 5  # up to here subtraction costs no more than a product
_NUM_GROUPS = 16  # that are told apart
_GAP = 3  # between any two groups, in sizes of a group
_SKETCH_DIMENSIONS = 8  # in which groups are looked for
_NUM_NEIGHBOURS = 16  # following rows, among which a near point is looked for
_NEAR = 4e-3  # of the largest squared distance from the middle
_CANCELLED = 0.02  # of both squared norms; a smaller distance has lost digits
_WIDE = 64  # bandwidths, the squared distance from which one middle is too few
_HIGHEST = lax.Precision.HIGHEST  # TPU and GPU products are half precision


class Grouped(NamedTuple):
  """Points as differences from the middle of their group.

  Attributes:
    residual: the differences [n, d].
    sq_norm: their squared lengths [n].
    membership: the group of each point as ones and zeros [n, k]; k = 0 where there is
      a single group.
    left: factors of the product that a squared distance has [n, p].
    right: factors of the product's other side [n, p].
  """

  residual: Array
  sq_norm: Array
  membership: Array
  left: Array
  right: Array


def prepare(x: Array, y: Array):
  """Returns two trees made of points [n, d] and [m, d], and a function of the trees.

  The leaves of the trees are [n, ...] and [m, ...]. The function returns the squared
  distances [n, m], or [m] of one row of the first tree.
  """
  if y is not x:  # samples may be of float64 beside data of float32
    x, y = dtypes.promoted(x, y)
  if x.shape[1] <= FEW_DIMENSIONS:
    return coordinates(x), coordinates(y), squared_by_coordinates
  both = x if y is x else jnp.concatenate([x, y])
  middle = center_of(y)
  middles = lax.cond(
    has_groups(both, middle),
    lambda: group_middles(both, middle if y is x else None),
    lambda: jnp.repeat(middle, _NUM_GROUPS + 1, 0),
  )
  return grouped(x, middles), grouped(y, middles), squared_by_product


def grouped(x: Array, middles: Array) -> Grouped:
  """Returns points [n, d] as differences from the nearest of the middles [k, d].

  With residuals r, s from middles a, b the squared distance is |r|^2 + |s|^2 - 2 r.s +
  |a - b|^2 + 2 (a - b).r + 2 (b - a).s. The last three terms are exactly 0 within a
  group. They join the product: one side has their values for every group, and the
  other side has a one for the group that it is in.
  """
  if len(middles) == 1:
    residual = x - middles
    sq_norm = jnp.sum(residual * residual, 1)
    membership = jnp.zeros((len(x), 0), x.dtype)
    return Grouped(residual, sq_norm, membership, -2 * residual, residual)
  first = middles[:1]
  sq_dist = squared_by_product(grouped(x, first), grouped(middles, first))
  group = jnp.argmin(sq_dist, 1)
  is_member = group[:, None] == jnp.arange(len(middles))[None]
  membership = is_member.astype(x.dtype)
  residual = x - middles[group]
  gaps = jnp.sum((middles[:, None] - middles[None]) ** 2, -1)
  along_gaps = 2 * products_with_gaps(residual, membership, middles)
  return Grouped(
    residual,
    jnp.sum(residual * residual, 1),
    membership,
    jnp.concatenate([-2 * residual, gaps[group] + along_gaps, membership], 1),
    jnp.concatenate([residual, membership, along_gaps], 1),
  )


def products_with_gaps(
  vectors: Array, membership: Array, middles: Array
) -> Array:
  """Returns v . (own middle - each middle) [n, k] of vectors [n, d].

  `membership` [n, k] is that of `Grouped`. With a single group k is 0 there and here.
  """
  if not membership.shape[1]:
    return membership
  along = jnp.dot(vectors, (middles - middles[:1]).T, precision=_HIGHEST)
  return jnp.sum(membership * along, 1, keepdims=True) - along


def squared_by_product(x: Grouped, y: Grouped) -> Array:
  """Returns |x_i - y_j|^2 [n, m], never negative; [m] of one point x."""
  inner = jnp.dot(x.left, y.right.T, precision=_HIGHEST)
  sq_dist = outer_sum(x.sq_norm, y.sq_norm) + inner
  # Rounding may make it negative, which is cut; its derivatives are right and stay.
  return jnp.where(sq_dist < 0, sq_dist - lax.stop_gradient(sq_dist), sq_dist)


def has_cancellation(
  sq_dist: Array, x: Grouped, y: Grouped, counts: Array | bool
) -> Array:
  """Returns whether some squared distance that counts lost digits in its product [].

  This happens to points that are near each other and far from the middle of their
  group: in groups of groups, or where there are more groups than are told apart. Among
  sets that `vmap` maps over, the result is whether it happens in any.

  Args:
    sq_dist: what `squared_by_product` made of the points [n, m].
    x: points [n, ...].
    y: points [m, ...].
    counts: which pairs count [n, m].
  """
  cancelled = sq_dist < _CANCELLED * outer_sum(x.sq_norm, y.sq_norm)
  return _in_any_set(jnp.any(cancelled & counts))


def squared_by_subtraction(x: Array, y: Array) -> Array:
  """Returns |x_i - y_j|^2 [n, m], or [m] of one point x [d], one axis after another.

  It takes many times as long as a product.
  """
  add = lambda total, axis: (total + outer_sum(axis[0], -axis[1]) ** 2, None)
  start = jnp.zeros_like(outer_sum(x[..., 0], y[:, 0]))
  return lax.scan(add, start, (jnp.moveaxis(x, -1, 0), y.T))[0]


def differences_by_subtraction(weights: Array, x: Array, y: Array) -> Array:
  """Returns sum_j weights_j (y_j - x) [d] of one point x [d], axis after axis."""
  return lax.map(lambda axis: weights @ (axis[1] - axis[0]), (x, y.T))


def score_change_by_subtraction(
  x: Array, s: Array, y: Array, t: Array
) -> Array:
  """Returns (t_j - s_i).(x_i - y_j) [n, m], one axis after another.

  Args:
    x: points [n, d], or one [d].
    s: their scores, like x.
    y: points [m, d].
    t: their scores, like y.
  """
  add = lambda total, axis: (
    total + outer_sum(-axis[1], axis[3]) * outer_sum(axis[0], -axis[2]),
    None,
  )
  start = jnp.zeros_like(outer_sum(x[..., 0], y[:, 0]))
  axes = [jnp.moveaxis(each, -1, 0) for each in (x, s, y, t)]
  return lax.scan(add, start, tuple(axes))[0]


def sum_of_gaps(weights: Array, x: Grouped, middles: Array) -> Array | float:
  """Returns sum_b weights_b (middle b - own middle) [n, d], over the groups b.

  Args:
    weights: [n, k], for each point and each group.
    x: the points.
    middles: those of the groups [k, d].
  """
  if len(middles) == 1:
    return 0.0
  others = weights * (1 - x.membership)
  middles = middles - middles[:1]
  own = jnp.dot(x.membership, middles, precision=_HIGHEST)
  total = jnp.sum(others, 1, keepdims=True)
  return jnp.dot(others, middles, precision=_HIGHEST) - total * own


def weighted_differences(weights: Array, x: Array, y: Array) -> Array:
  """Returns sum_j weights_ij (y_j - x_i) [n, d] of weights [n, m]."""
  if x.shape[1] <= FEW_DIMENSIONS:
    axes = zip(coordinates(x), coordinates(y), strict=True)
    return jnp.stack(
      [jnp.sum(weights * outer_sum(-a, b), 1) for a, b in axes], 1
    )
  middles = group_middles(jnp.concatenate([x, y]))
  x, y = grouped(x, middles), grouped(y, middles)
  inner = jnp.dot(weights, y.residual, precision=_HIGHEST)
  of_groups = jnp.dot(weights, y.membership, precision=_HIGHEST)
  total = jnp.sum(weights, 1, keepdims=True)
  return inner - total * x.residual + sum_of_gaps(of_groups, x, middles)


def squared_by_coordinates(x: tuple[Array, ...], y: tuple[Array, ...]) -> Array:
  """Returns |x_i - y_j|^2 [n, m] of coordinates [n] and [m] along each axis.

  It is [m] of one point's coordinates [], and exact.
  """
  return sum(outer_sum(a, -b) ** 2 for a, b in zip(x, y, strict=True))


def coordinates(x: Array) -> tuple[Array, ...]:
  """Returns points [n, d] as d arrays [n], which XLA's loops read faster than rows."""
  return tuple(x.T)


def outer_sum(x: Array, y: Array) -> Array:
  """Returns x_i + y_j [n, m]; [m] of one number x."""
  return x[..., None] + y.reshape(*(1,) * x.ndim, -1)


def needs_groups(
  sq_norm: Array, curvature: Array, axis_name: str | None
) -> Array:
  """Returns whether one middle is too few for a kernel's squared distances [].

  Measured from one middle, squared distances are right to some 1e-7 of the largest
  squared norm. This error must be small in units of the bandwidth. The result is one
  for all sets that `vmap` maps over, and for the whole axis, so that a `lax.cond` on it
  runs one of its branches.

  Args:
    sq_norm: squared distances of points from their middle [n].
    curvature: 1 / bandwidth [].
    axis_name: the mapped axis over which the points are split.
  """
  furthest = collectives.pmax(jnp.max(lax.stop_gradient(sq_norm)), axis_name)
  return _in_any_set(furthest * lax.stop_gradient(curvature) > _WIDE)


def has_groups(x: Array, middle: Array) -> Array:
  """Returns whether some points [n, d] lie in groups far apart [].

  A point in a group has a neighbour that is much nearer to it than the middle is. One
  is looked for among the rows that follow each point, and among all points for the one
  that is furthest from the middle. Groups of very few points may be missed.
  """
  sketch = _sketch(lax.stop_gradient(x) - middle)
  sq_norm = _sum_of_squares(sketch, 0)
  largest = jnp.max(sq_norm)
  row = jnp.arange(len(x))[None]
  following = (row + np.arange(1, _NUM_NEIGHBOURS + 1)[:, None]) % len(x)
  furthest = jnp.full_like(row, _first(sq_norm == largest))
  others = sketch[:, jnp.concatenate([furthest, following])]
  nearest = _sum_of_squares(sketch[:, None], others)
  # Copies of a point need no digits, so that they are not counted as neighbours.
  near = jnp.min(jnp.where(nearest > 0, nearest, jnp.finfo(x.dtype).max))
  return _in_any_set(near < _NEAR * largest)


def group_middles(
  x: Array, middle: Array | None = None, *, axis_name: str | None = None
) -> Array:
  """Returns the middle of all points [n, d] and one point of each group [k, d].

  Points far apart are found one after the other. If the distance of the next one from
  those before drops much at some place, the points up to there are one of each group.
  The remaining rows repeat the first, and all do where there are no groups.

  Args:
    x: the points.
    middle: their middle [1, d]; None where it is yet to be found.
    axis_name: the mapped axis over which they are split.
  """
  x = lax.stop_gradient(x)
  if middle is None:
    middle = center_of(x, axis_name=axis_name)
  some, sq_dist = _far_apart(x - middle)
  if collectives.size(axis_name) > 1:
    some, sq_dist = _far_apart(collectives.all_gather(some, axis_name))
  number, following = jnp.arange(_NUM_GROUPS), sq_dist[1:]
  last_where = lambda holds: jnp.max(jnp.where(holds, number, -1))
  gap = (following > 0) & (sq_dist[:-1] >= _GAP**2 * following)
  last = last_where(gap)
  # Groups of copies of one point have no size, with which a gap could be compared.
  copies = (following == 0) & (sq_dist[:-1] > 0)
  last = jnp.where(last < 0, last_where(copies), last)
  groups = jnp.where((number <= last)[:, None], some[:-1], 0)
  return middle + jnp.concatenate([jnp.zeros_like(middle), groups])


def _far_apart(x):
  """Returns points [_NUM_GROUPS + 1, d], each the furthest from 0 and those before it.

  The second result is that squared distance [_NUM_GROUPS + 1]. Both are of the points
  as `_sketch` shows them.
  """
  sketch = _sketch(x)

  def find(nearest, _):
    far = jnp.max(nearest)
    row = _first(nearest == far)
    sq_dist = _sum_of_squares(sketch, sketch[:, row, None])
    return jnp.minimum(nearest, sq_dist), (row, far)

  start = _sum_of_squares(sketch, 0)
  rows, sq_dist = lax.scan(find, start, length=_NUM_GROUPS + 1)[1]
  # A processor may round the products of two equal rows differently. Such copies are
  # at distance 0, or their rounding would look like a gap before it.
  rounding = x.shape[1] * jnp.finfo(x.dtype).eps * jnp.max(jnp.abs(x))
  is_copy = sq_dist <= len(sketch) * rounding**2
  return x[rows], jnp.where(is_copy, 0, sq_dist)


def _first(holds):
  """Returns the first index where a condition [n] holds, or the last index."""
  # XLA's CPU back end does not vectorise an argmax.
  last = len(holds) - 1
  return jnp.min(jnp.where(holds, jnp.arange(len(holds)), last))


def _sum_of_squares(x, y):
  """Returns |x - y|^2 [n] of coordinates [d, n], which XLA fuses into one loop."""
  return sum((x - y) ** 2)


def _sketch(x):
  """Returns the products of points [n, d] with a few random directions [k, n].

  In as few dimensions it returns the coordinates.
  """
  if x.shape[1] <= _SKETCH_DIMENSIONS:
    return x.T
  signs = _signs((x.shape[1], _SKETCH_DIMENSIONS))
  return jnp.dot(x, signs.astype(x.dtype)).T


def _signs(shape):
  """Returns signs that look random, which compile faster than a generator's."""
  bits = lax.iota(jnp.uint32, math.prod(shape)).reshape(shape) + 1
  # The finalizer of MurmurHash3.
  for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
    bits = (bits ^ (bits >> shift)) * jnp.uint32(factor)
  return 1 - 2 * (bits >> 31).astype(jnp.int32)


def center_of(x: Array, *, axis_name: str | None = None) -> Array:
  """Returns the middle [1, d] of points [n, d], without gradient.

  The rows make nine means, these make three medians, and the median of those is the
  result. It is near the mean, is not moved by a row that is far from all others, and is
  exact where all rows are equal.

  Args:
    x: the points [n, d].
    axis_name: the mapped axis over which they are split; the result is then the
      middle of the devices' middles.
  """
  center = _median_of_means(lax.stop_gradient(x))
  return _median_of_means(collectives.all_gather(center, axis_name))


def _median_of_means(x):
  n, d = x.shape
  # A product lets the compiler split rows over devices. Fewer than nine rows are
  # repeated.
  mean = np.arange(9)[:, None] % n
  sizes = (n - 1 - mean) // 9 + 1
  member = jnp.arange(n)[None] % 9 == mean
  share = jnp.where(member, (1 / sizes).astype(x.dtype), 0)
  means = jnp.dot(share, x - x[:1], precision=_HIGHEST)
  median = lambda a, b, c: jnp.maximum(
    jnp.minimum(a, b), jnp.minimum(jnp.maximum(a, b), c)
  )
  return x[:1] + median(*median(*means.reshape(3, 3, d)))[None]


@custom_vmap
def _in_any_set(flag):
  return flag


@_in_any_set.def_vmap
def _(axis_size, in_batched, flag):
  # A predicate that is batched would turn `lax.cond` into a select of both branches.
  del axis_size
  return _in_any_set(jnp.any(flag) if in_batched[0] else flag), False
