"""Squared distances of pairs that keep their digits, as matrix products.

|x - y|^2 = |x|^2 + |y|^2 - 2 x.y rounds to the precision of |x|^2: of two points that
are near each other and far from the origin nothing is left. So points are taken from a
middle and, where they lie in groups far apart, each from the middle of its own group.
"""

import functools
from typing import NamedTuple

import jax
from jax import lax
from jax.custom_batching import custom_vmap
import jax.numpy as jnp

from stein_jax import collectives
from stein_jax.types import Array

FEW = 5  # dimensions, up to which to subtract costs no more than a product
_GROUPS = 16  # that are told apart
_GAP = 3  # between any two groups, in sizes of a group
_SKETCH = 8  # dimensions that groups are looked for in
_SHIFTS = 16  # in order, to where a neighbour is looked for
_NEAR = 4e-3  # of the largest squared distance from the middle
_LOST = 0.02  # of both squared norms, below which a distance lacks digits
_LARGE = 64  # bandwidths, squared distance from a middle that one is enough for
_HIGHEST = lax.Precision.HIGHEST  # TPU and GPU products are half precision


class Placed(NamedTuple):
  """Points as differences from the middle of their group.

  Attributes:
    residual: the differences [n, d].
    norm: their squared lengths [n].
    member: which group, as ones and zeros [n, k]; k = 0 of a single group.
    left: factors of the product that a squared distance has [n, p].
    right: the factors of its other side [n, p].
  """

  residual: Array
  norm: Array
  member: Array
  left: Array
  right: Array


def prepare(x: Array, y: Array):
  """Returns trees of arrays [n, ...] and [m, ...] of points [n, d] and [m, d].

  And a function of the two to squared distances [n, m]; of one row of the first to [m].
  """
  if x.shape[1] <= FEW:
    return coordinates(x), coordinates(y), subtracted
  both = x if y is x else jnp.concatenate([x, y])
  middle = center_of(y)
  found = lax.cond(
    has_groups(both, middle),
    lambda: middles(both),
    lambda: jnp.repeat(middle, _GROUPS + 1, 0),
  )
  return place(x, found), place(y, found), squared


def place(x: Array, middles: Array) -> Placed:
  """Returns points [n, d], each placed by the nearest of the middles [k, d].

  With residuals r, s from middles a, b the squared distance is |r|^2 + |s|^2 - 2 r.s +
  |a - b|^2 + 2 (a - b).r + 2 (b - a).s. The last three terms, which are exactly 0
  within a group, join the product: one side has them for every group, the other says
  which group it is in.
  """
  if len(middles) == 1:
    residual = x - middles
    norm = jnp.sum(residual * residual, 1)
    nothing = jnp.zeros((len(x), 0), x.dtype)
    return Placed(residual, norm, nothing, -2 * residual, residual)
  first = middles[:1]
  group = jnp.argmin(squared(place(x, first), place(middles, first)), 1)
  member = (group[:, None] == jnp.arange(len(middles))[None]).astype(x.dtype)
  residual = x - middles[group]
  gaps = jnp.sum((middles[:, None] - middles[None]) ** 2, -1)
  lean = 2 * leaning(residual, member, middles)
  return Placed(
    residual,
    jnp.sum(residual * residual, 1),
    member,
    jnp.concatenate([-2 * residual, gaps[group] + lean, member], 1),
    jnp.concatenate([residual, member, lean], 1),
  )


def leaning(vectors: Array, member: Array, middles: Array) -> Array:
  """Returns v . (own middle - each middle) [n, k] of vectors [n, d].

  `member` [n, k] is that of `place`, and so is the result's k = 0 of a single group.
  """
  if not member.shape[1]:
    return member
  along = jnp.dot(vectors, (middles - middles[:1]).T, precision=_HIGHEST)
  return jnp.sum(member * along, 1, keepdims=True) - along


def squared(x: Placed, y: Placed) -> Array:
  """Returns |x_i - y_j|^2 [n, m], never negative; [m] of one point x."""
  inner = jnp.dot(x.left, y.right.T, precision=_HIGHEST)
  sq_dist = outer_sum(x.norm, y.norm) + inner
  # Cut where it is negative by rounding; its derivatives are not.
  return jnp.where(sq_dist < 0, sq_dist - lax.stop_gradient(sq_dist), sq_dist)


def is_lost(
  sq_dist: Array, x: Placed, y: Placed, counts: Array | bool
) -> Array:
  """Returns whether some squared distance [n, m] that counts lacks digits [].

  Those of points near each other, far from the middle of their group: groups in
  groups, or more groups than are told apart. As `is_far`, for any of many sets.
  """
  lost = sq_dist < _LOST * outer_sum(x.norm, y.norm)
  return _in_any_set(jnp.any(lost & counts))


def exactly(x: Array, y: Array) -> Array:
  """Returns |x_i - y_j|^2 [n, m] by subtraction, an axis after another.

  Of one point x [d] it is [m]. It takes many times as long as a product.
  """
  add = lambda total, axis: (total + outer_sum(axis[0], -axis[1]) ** 2, None)
  start = jnp.zeros_like(outer_sum(x[..., 0], y[:, 0]))
  return lax.scan(add, start, (jnp.moveaxis(x, -1, 0), y.T))[0]


def exactly_summed(weights: Array, x: Array, y: Array) -> Array:
  """Returns sum_j weights_j (y_j - x) [d] of one point x [d], as `exactly` does."""
  return lax.map(lambda axis: weights @ (axis[1] - axis[0]), (x, y.T))


def exact_change(x: Array, s: Array, y: Array, t: Array) -> Array:
  """Returns (t_j - s_i).(x_i - y_j) [n, m], as `exactly` does."""
  add = lambda total, axis: (
    total + outer_sum(-axis[1], axis[3]) * outer_sum(axis[0], -axis[2]),
    None,
  )
  start = jnp.zeros_like(outer_sum(x[..., 0], y[:, 0]))
  axes = [jnp.moveaxis(each, -1, 0) for each in (x, s, y, t)]
  return lax.scan(add, start, tuple(axes))[0]


def across(sums: Array, x: Placed, middles: Array) -> Array | float:
  """Returns sum_b sums_b (middle b - own middle) [n, d], of sums [n, k] over groups."""
  if len(middles) == 1:
    return 0.0
  others = sums * (1 - x.member)
  middles = middles - middles[:1]
  own = jnp.dot(x.member, middles, precision=_HIGHEST)
  total = jnp.sum(others, 1, keepdims=True)
  return jnp.dot(others, middles, precision=_HIGHEST) - total * own


def drawn(weights: Array, x: Array, y: Array) -> Array:
  """Returns sum_j weights_ij (y_j - x_i) [n, d] of weights [n, m]."""
  if x.shape[1] <= FEW:
    axes = zip(coordinates(x), coordinates(y), strict=True)
    return jnp.stack(
      [jnp.sum(weights * outer_sum(-a, b), 1) for a, b in axes], 1
    )
  groups = middles(jnp.concatenate([x, y]))
  x, y = place(x, groups), place(y, groups)
  inner = jnp.dot(weights, y.residual, precision=_HIGHEST)
  sums = jnp.dot(weights, y.member, precision=_HIGHEST)
  total = jnp.sum(weights, 1, keepdims=True)
  return inner - total * x.residual + across(sums, x, groups)


def subtracted(x: tuple[Array, ...], y: tuple[Array, ...]) -> Array:
  """Returns |x_i - y_j|^2 [n, m], exactly, of coordinates [n] and [m] along each axis.

  Of one point's coordinates [] it is [m].
  """
  return sum(outer_sum(a, -b) ** 2 for a, b in zip(x, y, strict=True))


def coordinates(x: Array) -> tuple[Array, ...]:
  """Returns points [n, d] as d arrays [n]: of rows, XLA's loops read them slowly."""
  return tuple(x.T)


def outer_sum(x: Array, y: Array) -> Array:
  """Returns x_i + y_j [n, m]; [m] of one number x."""
  return x[..., None] + y.reshape(*(1,) * x.ndim, -1)


def is_far(norm: Array, curvature: Array, axis_name: str | None) -> Array:
  """Returns whether one middle is too few for a kernel [].

  Squared distances from it are right to some 1e-7 of the largest norm: that is to be
  little in units of the kernel's bandwidth. Among sets that `vmap` maps over, and over
  the axis, whether it is so for any: then `lax.cond` on it stays one.

  Args:
    norm: squared distances of points from their middle [n].
    curvature: 1 / bandwidth [].
    axis_name: the mapped axis over which the points are split.
  """
  furthest = collectives.pmax(jnp.max(lax.stop_gradient(norm)), axis_name)
  return _in_any_set(furthest * lax.stop_gradient(curvature) > _LARGE)


def has_groups(x: Array, middle: Array) -> Array:
  """Returns whether some points [n, d] lie in groups far apart [].

  Looked for among neighbours in their order, and those of the point that is furthest
  from the middle: in a group there are some, but for one of very few points.
  """
  sketch = _sketch(lax.stop_gradient(x) - middle)
  norm = _sum_of_squares(sketch, 0)
  largest = jnp.max(norm)
  columns = jnp.arange(len(x) + _SHIFTS) % len(x)
  around = sketch[:, columns]
  others = [sketch[:, _first(norm == largest), None]]
  others += [around[:, i : i + len(x)] for i in range(1, _SHIFTS + 1)]
  nearest = [_sum_of_squares(sketch, other) for other in others]
  # Copies are no neighbours.
  most = jnp.finfo(x.dtype).max
  nearest = [jnp.where(each > 0, each, most) for each in nearest]
  near = jnp.min(functools.reduce(jnp.minimum, nearest))
  return _in_any_set(near < _NEAR * largest)


def middles(x: Array, *, axis_name: str | None = None) -> Array:
  """Returns the middle of all points [n, d] and of their groups [k, d].

  Points far apart are found one after the other; where the next one would be much
  nearer than the last, what is found is one of each group. What is left over, or all
  but the first where there are no groups, repeats the first.

  Args:
    x: the points.
    axis_name: the mapped axis over which they are split.
  """
  x = lax.stop_gradient(x)
  middle = center_of(x, axis_name=axis_name)
  some, sq_dist = _far_apart(x - middle)
  if collectives.size(axis_name) > 1:
    some, sq_dist = _far_apart(collectives.all_gather(some, axis_name))
  number, following = jnp.arange(_GROUPS), sq_dist[1:]
  last_where = lambda holds: jnp.max(jnp.where(holds, number, -1))
  gap = (following > 0) & (sq_dist[:-1] >= _GAP**2 * following)
  last = last_where(gap)
  # Groups may be copies of one point each.
  copies = (following == 0) & (sq_dist[:-1] > 0)
  last = jnp.where(last < 0, last_where(copies), last)
  groups = jnp.where((number <= last)[:, None], some[:-1], 0)
  return middle + jnp.concatenate([jnp.zeros_like(middle), groups])


def _far_apart(x):
  """Returns points [_GROUPS + 1, d], each furthest from 0 and those before it.

  And that squared distance [_GROUPS + 1]; both of what `_sketch` sees.
  """
  sketch = _sketch(x)

  def find(nearest, _):
    far = jnp.max(nearest)
    row = _first(nearest == far)
    sq_dist = _sum_of_squares(sketch, sketch[:, row, None])
    return jnp.minimum(nearest, sq_dist), (row, far)

  start = _sum_of_squares(sketch, 0)
  rows, sq_dist = lax.scan(find, start, length=_GROUPS + 1)[1]
  return x[rows], sq_dist


def _first(holds):
  """Returns where it first holds [n], or the last place."""
  # As an argmax, which XLA's CPU back end does not vectorise.
  last = len(holds) - 1
  return jnp.min(jnp.where(holds, jnp.arange(len(holds)), last))


def _sum_of_squares(x, y):
  """Returns |x - y|^2 [n] of few rows of coordinates, as one loop over the columns."""
  return sum((x - y) ** 2)


def _sketch(x):
  """Returns points [n, d] along some random directions [_SKETCH, n]."""
  shape = (x.shape[1], min(x.shape[1], _SKETCH))
  directions = jax.random.rademacher(jax.random.key(0), shape, x.dtype)
  return jnp.dot(x, directions).T


def center_of(x: Array, *, axis_name: str | None = None) -> Array:
  """Returns the middle [1, d] of x [n, d], without gradient.

  That of the means of nine groups of rows, the median of three medians: near the
  mean, and a row that is far from all others does not move it. Exact where all rows
  are equal.

  Args:
    x: the points [n, d].
    axis_name: the mapped axis over which they are split: the middle of the middles.
  """
  center = _middle(lax.stop_gradient(x))
  return _middle(collectives.all_gather(center, axis_name))


def _middle(x):
  n, d = x.shape
  # A product, so that rows may be split over devices; of fewer than nine some twice.
  member = jnp.arange(n)[None] % 9 == jnp.arange(9)[:, None] % n
  member = member.astype(x.dtype)
  share = member / jnp.sum(member, 1, keepdims=True)
  means = jnp.dot(share, x - x[:1], precision=_HIGHEST)
  between = lambda a, b, c: jnp.maximum(
    jnp.minimum(a, b), jnp.minimum(jnp.maximum(a, b), c)
  )
  return x[:1] + between(*between(*means.reshape(3, 3, d)))[None]


@custom_vmap
def _in_any_set(flag):
  return flag


@_in_any_set.def_vmap
def _(axis_size, in_batched, flag):
  del axis_size
  return _in_any_set(jnp.any(flag) if in_batched[0] else flag), False
