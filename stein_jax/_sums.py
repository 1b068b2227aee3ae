"""Sums over pairs of points, which directions and discrepancies are made of.

A sum leaves out the pair of a point with itself. Its term is known exactly; among the
others it would drown in the rounding of a distance, divided by the bandwidth. Each sum
comes in several forms. Products of matrices are fast, and right where all points are
within some bandwidths of one middle. Points further away are measured from the middles
of their groups or, in few dimensions and where that is not enough, by subtraction; see
`_distances`.
"""

from collections.abc import Callable
import functools
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from stein_jax import _distances
from stein_jax import _windows
from stein_jax import collectives
from stein_jax import kernels
from stein_jax.types import Array, Kernel, Tree

# Points in few dimensions, up to which subtraction is the fastest form, too: 10 in two
# dimensions take 1.0 us for 2.3, 30 take 3.1 for 7.3; 100 take 29 for 28.
_FEW_POINTS = 64
_ONE_BLOCK = 64  # points, up to which all pairs are one block
_WINDOWED = 2000  # points, from which each pair once, in windows, costs less
# The same of a direction, whose windows are of so many rows on a CPU, for its cache.
_WINDOWED_DIRECTION, _CACHED_ROWS = 3000, 128
_HIGHEST = lax.Precision.HIGHEST  # TPU and GPU products are half precision


def slope_ratio(kernel: Kernel) -> Array | float | None:
  """Returns c where a kernel's derivative is c times itself, None where not known.

  A kernel says so by an attribute `slope_ratio`. Only `kernels.rbf` and its partials,
  which have none, are recognised as they are.
  """
  # A function that the user passes as it is has no attributes to ask.
  if kernel is kernels.rbf:
    return -1.0
  if isinstance(kernel, functools.partial) and kernel.func is kernels.rbf:
    if not kernel.args and set(kernel.keywords) <= {'bandwidth'}:
      return -1 / kernel.keywords.get('bandwidth', 1.0)
  return getattr(kernel, 'slope_ratio', None)


def with_slope(function):
  """Returns an elementwise function's value and derivative, as a function."""
  return lambda v: jax.jvp(function, (v,), (jnp.ones_like(v),))


def _curvature(kernel, dtype):
  """Returns how fast a kernel falls at 0, in units of its value [].

  It is 1 / bandwidth for `rbf`, and infinite for a kernel with a kink.
  """
  value, slope = with_slope(kernel)(jnp.zeros((), dtype))
  return jnp.abs(slope / value)


def _middle_of(kernel, sets, axis_name=None):
  """Returns the first set's middle [1, d], and whether it is too far for any point."""
  middle = _distances.center_of(sets[0], axis_name=axis_name)
  sq_norms = [_distances.grouped(points, middle).sq_norm for points in sets]
  curvature = _curvature(kernel, middle.dtype)
  return middle, _distances.needs_groups(
    jnp.concatenate(sq_norms), curvature, axis_name
  )


class _Loop(NamedTuple):
  """How a sum over all particles runs through them.

  Attributes:
    rows: the numbers of the points at which sums are taken, 0, ..., m - 1.
    num_particles: n, those of one device.
    is_self: whether the points at which sums are taken are these particles.
    block_size: how many points are summed at a time; None bounds memory.
    axis_name: the mapped axis over which particles and points are split.
  """

  rows: Array
  num_particles: int
  is_self: bool
  block_size: int | None
  axis_name: str | None

  @property
  def is_split(self) -> bool:
    """Whether other devices have particles, too."""
    return collectives.is_split(self.axis_name)

  def sums(
    self,
    at_point: Callable[..., Tree],
    points: Tree,
    particles: Tree,
    numbers_per_pair: int = 1,
    reduce: Callable[[Tree], Tree] = lambda sums: sums,
  ) -> Tree:
    """Returns the sums over the particles of all devices at each point, reduced.

    Args:
      at_point: a function of a point, of one device's particles, and of which of these
        count [n], to the point's sums.
      points: the points, a tree with leaves [m, ...].
      particles: this device's particles, a tree with leaves [n, ...].
      numbers_per_pair: how many numbers `at_point` makes of each pair, which chooses
        the block.
      reduce: a function of the sums of all points over one device's particles.
    """

    def over_share(particles, owner):
      is_own = (owner == collectives.index(self.axis_name)) & self.is_self

      def on_row(numbered):
        row, point = numbered
        itself = is_own & (row == jnp.arange(self.num_particles))
        return at_point(point, particles, ~itself)

      made = numbers_per_pair * self.num_particles
      return reduce(
        kernels.map_rows(on_row, (self.rows, points), made, self.block_size)
      )

    return collectives.ring_sum(over_share, particles, self.axis_name)


def direction_sums(
  x: Array,
  score: Array,
  kernel: Kernel,
  *,
  at: Array | None = None,
  block_size: int | None = None,
  axis_name: str | None = None,
) -> tuple[Array, Array]:
  """Returns sum_j k s_j + grad_j k [m, d] and sum_j k [m], j != i where points are x.

  Args:
    x: particles [n, d].
    score: their scores [n, d].
    kernel: radial profile.
    at: the points [m, d] at which the sums are taken; None for the particles.
    block_size: how many points are summed at a time; None bounds memory.
    axis_name: the mapped axis over which particles and points are split.
  """
  y = x if at is None else at
  # What both branches below need is computed outside of them.
  profile = _Profile(kernel, slope_ratio(kernel))
  loop = _Loop(jnp.arange(len(y)), len(x), at is None, block_size, axis_name)

  few_dimensions = x.shape[1] <= _distances.FEW_DIMENSIONS
  if few_dimensions and max(len(x), len(y)) <= _FEW_POINTS:
    return _direction_by_coordinates(x, score, y, profile, loop)

  def precisely():
    if few_dimensions:
      return _direction_by_coordinates(x, score, y, profile, loop)
    if at is None:
      middles = _distances.group_middles(x, middle, axis_name=axis_name)
    else:
      both = jnp.concatenate([x, at])
      middles = _distances.group_middles(both, axis_name=axis_name)
    return _direction_by_products(
      x, score, y, profile, loop, middles, may_subtract=True
    )

  def simply():
    if loop.is_self and len(x) >= _WINDOWED_DIRECTION and not loop.is_split:
      return _direction_in_windows(x, score, profile, middle, block_size)
    return _direction_by_products(x, score, y, profile, loop, middle)

  middle, is_far = _middle_of(kernel, (x, y), axis_name)
  # Both are compiled, one runs: how far points lie is known on the device
  # alone.
  return lax.cond(is_far, precisely, simply)


class _Profile(NamedTuple):
  """A kernel, and its derivative over its value where that is a constant."""

  kernel: Kernel
  ratio: Array | float | None

  def weights(self, sq_dist, counts):
    """Returns the kernel and its derivative of a row [n], 0 for what does not count."""
    if self.ratio is None:
      k, slope = with_slope(self.kernel)(sq_dist)
      return jnp.where(counts, k, 0), jnp.where(counts, slope, 0)
    k = jnp.where(counts, self.kernel(sq_dist), 0)
    return k, self.ratio * k


def _direction_by_products(
  x, score, y, profile, loop, middles, may_subtract=False
):
  """Returns what `direction_sums` does, by products of matrices.

  If it `may_subtract`, it does so for blocks of rows that would lose digits.
  """
  dim, ratio = x.shape[1], profile.ratio
  others = _distances.grouped(x, middles)
  own = others if y is x else _distances.grouped(y, middles)
  moves = 2 * jnp.concatenate([others.residual, others.membership], 1)
  scores = jnp.pad(score, ((0, 0), (0, moves.shape[1] - dim)))
  # Where the slope is a multiple of the kernel one product serves both terms.
  drives = (scores, moves) if ratio is None else (scores + ratio * moves,)

  def at_point(points, particles, counts):
    (point, y), (others, drives, exact) = points, particles
    sq_dist = _distances.squared_by_product(point, others)
    by_product = lambda: _row_by_product(
      profile, sq_dist, point, drives, counts
    )
    if not may_subtract:
      return by_product()
    num_groups = len(point.membership)
    return lax.cond(
      _distances.has_cancellation(sq_dist, point, others, counts),
      lambda: _row_by_subtraction(profile, y, *exact, counts, num_groups),
      by_product,
    )

  # What travels round the ring holds the points themselves only if they are needed.
  particles = others, drives, (x, score) if may_subtract else ()
  numbers = 4 if may_subtract else 1
  drive, total = loop.sums(at_point, (own, y), particles, numbers)
  drive, of_groups = drive[:, :dim], drive[:, dim:]
  return drive + _distances.sum_of_gaps(of_groups, own, middles), total


def _row_by_product(profile, sq_dist, point, drives, counts):
  """Returns one point's sums, in coordinates and groups [d + groups], and of k []."""
  weights = profile.weights(sq_dist, counts)
  # A single drive is weighted by the kernel alone.
  # Weights of a kernel and its slope, each with its drive.
  sums = sum(
    jnp.dot(weight, drive, precision=_HIGHEST)
    for weight, drive in zip(weights, drives, strict=False)
  )
  total, slope = map(jnp.sum, weights)
  dim = len(point.residual)
  return sums.at[:dim].add(-2 * slope * point.residual), total


def _row_by_subtraction(profile, y, x, score, counts, num_groups):
  """Returns what `_row_by_product` does of one point y [d], with zeros for groups."""
  sq_dist = _distances.squared_by_subtraction(y, x)
  k, slope = profile.weights(sq_dist, counts)
  drive = jnp.dot(k, score, precision=_HIGHEST)
  drive += 2 * _distances.differences_by_subtraction(slope, y, x)
  return jnp.pad(drive, (0, num_groups)), jnp.sum(k)


def _direction_in_windows(x, score, profile, middle, block_size):
  """Returns what `_direction_by_products` does of particles, each pair once."""
  n, dim = x.shape
  points = _distances.grouped(x, middle)
  # A column of ones sums the weights themselves.
  with_ones = lambda drive: jnp.pad(drive, ((0, 0), (0, 1)), constant_values=1)
  moves, ratio = 2 * points.residual, profile.ratio
  drives = (score, moves) if ratio is None else (score + ratio * moves,)
  drives = tuple(map(with_ones, drives))
  size = _window_rows(n, block_size)
  if block_size is None and jax.default_backend() == 'cpu':
    size = min(size, _CACHED_ROWS)
  windows = _windows.Windows.of((points, drives), size)
  dot = functools.partial(jnp.dot, precision=_HIGHEST)

  def add(total, start, part):
    old = lax.dynamic_slice_in_dim(total, start, len(part))
    return lax.dynamic_update_slice_in_dim(total, old + part, start, 0)

  def over_block(totals, start):
    (own, of_own), (others, of_others), counts = windows.block(start)
    sq_dist = _distances.squared_by_product(own, others)
    # Without a barrier the compiler computes the weights anew for each product.
    weights = lax.optimization_barrier(profile.weights(sq_dist, counts))
    found = []
    for weight, total, row, column in zip(
      weights, totals, of_own, of_others, strict=False
    ):
      total = add(total, start, dot(weight, column))
      found.append(add(total, start, dot(weight.T, row)))
    return tuple(found), None

  totals = [jnp.zeros_like(drive) for drive in windows.points[1]]
  value = profile.kernel(jnp.zeros((), x.dtype))
  totals = collectives.match_varying(*totals, *drives, value)[: len(drives)]
  totals, _ = lax.scan(over_block, totals, windows.starts)
  # A row of a window stands for a point once, twice or more often.
  fold = lambda total: jnp.sum(
    jnp.pad(total, ((0, -len(total) % n), (0, 0))).reshape(-1, n, dim + 1), 0
  )
  sums = tuple(map(fold, totals))
  total = sums[0][:, dim]
  slope = sums[1][:, dim] if ratio is None else ratio * total
  return sum(sums)[:, :dim] - 2 * slope[:, None] * points.residual, total


def _direction_by_coordinates(x, score, y, profile, loop):
  """Returns what `direction_sums` does, exactly, of points of few dimensions."""

  def at_point(point, particles, counts):
    others, scores = particles
    sq_dist = _distances.squared_by_coordinates(point, others)
    weights = profile.weights(sq_dist, counts)
    # Without a barrier the compiler computes the weights anew for each sum.
    k, slope = lax.optimization_barrier(weights)
    moves = [
      jnp.sum(slope * (along - own))
      for own, along in zip(point, others, strict=True)
    ]
    drive = jnp.dot(k, scores, precision=_HIGHEST) + 2 * jnp.stack(moves)
    return drive, jnp.sum(k)

  own, others = map(_distances.coordinates, (y, x))
  return loop.sums(at_point, own, (others, score), x.shape[1] + 3)


class SteinKernel(NamedTuple):
  """A form of the Stein kernel u [WL16 eq 6].

  Attributes:
    prepare: a function of points [n, d] and scores [n, d] to a tree with leaves
      [n, ...].
    matrix: a function of two such trees and of which pairs count [n, m] to u [n, m];
      of one row of the first tree, to [m].
  """

  prepare: Callable[[Array, Array], Tree]
  matrix: Callable[[Tree, Tree, Array | bool], Array]


def with_stein_kernel(
  function: Callable[[SteinKernel], Tree],
  kernel: Kernel,
  sets: tuple[Array, ...],
  axis_name: str | None = None,
) -> Tree:
  """Returns `function` of the form of the Stein kernel that is right for the points.

  Args:
    function: what is called with the form. It is traced with several.
    kernel: radial profile.
    sets: the points, one or two arrays [n, d].
    axis_name: the mapped axis over which the points are split.
  """
  middle, is_far = _middle_of(kernel, sets, axis_name)

  def precisely():
    if middle.shape[1] <= _distances.FEW_DIMENSIONS:
      return function(_by_coordinates(kernel))
    middles = _distances.group_middles(
      jnp.concatenate(sets),
      middle if len(sets) == 1 else None,
      axis_name=axis_name,
    )
    return function(_by_products(kernel, middles, may_subtract=True))

  def simply():
    if slope_ratio(kernel) is None:
      return function(_by_products(kernel, middle))
    return function(_by_one_product(kernel, middle))

  return lax.cond(is_far, precisely, simply)


def _by_one_product(kernel, middle):
  """Returns the form for a kernel whose slope is a multiple of it.

  The derivatives are c k and c^2 k, so that one product has those of points and scores.
  """
  dim = middle.shape[1]
  # The square of the ratio may overflow. The order of the products below avoids it, and
  # the barrier keeps the compiler from another order where the ratio is a constant.
  ratio = jnp.asarray(slope_ratio(kernel), middle.dtype)
  ratio = lax.optimization_barrier(ratio)

  def prepare(x, score):
    x = _distances.grouped(x, middle)
    own = jnp.sum(x.residual * score, 1) + ratio * x.sq_norm + dim / 2
    return x, score + 2 * ratio * x.residual, -2 * ratio * own

  def matrix(first, second, counts):
    del counts
    (x, slope_x, own_x), (y, slope_y, own_y) = first, second
    sq_dist = _distances.squared_by_product(x, y)
    cross = jnp.dot(slope_x, slope_y.T, precision=_HIGHEST)
    cross += _distances.outer_sum(own_x, own_y) - 2 * ratio * (ratio * sq_dist)
    return kernel(sq_dist) * cross

  return SteinKernel(prepare, matrix)


def _by_products(kernel, middles, may_subtract=False):
  """Returns the form for any kernel, and for groups of points far apart.

  If it `may_subtract`, it does so for blocks of pairs that would lose digits.
  """

  def prepare(x, score):
    points = _distances.grouped(x, middles)
    residual, member = points.residual, points.membership
    along_gaps = _distances.products_with_gaps(score, member, middles)
    left = jnp.concatenate([residual, score, member, -along_gaps], 1)
    right = jnp.concatenate([score, residual, -along_gaps, member], 1)
    drive = jnp.sum(residual * score, 1)
    return points, (left, right, drive), (x if may_subtract else (), score)

  def matrix(first, second, counts):
    x, (left, _, drive_x), (exact_x, score_x) = first
    y, (_, right, drive_y), (exact_y, score_y) = second
    dot = lambda a, b: jnp.dot(a, b.T, precision=_HIGHEST)
    sq_dist = _distances.squared_by_product(x, y)

    def by_products():
      return sq_dist, dot(left, right) - _distances.outer_sum(drive_x, drive_y)

    def by_subtraction():
      points = exact_x, score_x, exact_y, score_y
      return (
        _distances.squared_by_subtraction(exact_x, exact_y),
        _distances.score_change_by_subtraction(*points),
      )

    if may_subtract:
      cancelled = _distances.has_cancellation(sq_dist, x, y, counts)
      pair = lambda: lax.cond(cancelled, by_subtraction, by_products)
    else:
      pair = by_products
    product = dot(score_x, score_y)
    return _stein_kernel(kernel, product, middles.shape[1], *pair())

  return SteinKernel(prepare, matrix)


def _by_coordinates(kernel):
  """Returns the form that is exact, for points of few dimensions."""

  def prepare(x, score):
    return *map(_distances.coordinates, (x, score)), score

  def matrix(first, second, counts):
    del counts
    (x, slope_x, score_x), (y, slope_y, score_y) = first, second
    axes = zip(x, y, slope_x, slope_y, strict=True)
    # Coordinate by coordinate, so that no difference of large products is
    # taken.
    outer = _distances.outer_sum
    change = sum(outer(-s, t) * outer(a, -b) for a, b, s, t in axes)
    product = jnp.dot(score_x, score_y.T, precision=_HIGHEST)
    sq_dist = _distances.squared_by_coordinates(x, y)
    return _stein_kernel(kernel, product, len(x), sq_dist, change)

  return SteinKernel(prepare, matrix)


def _stein_kernel(kernel, product, dim, sq_dist, change):
  """Returns u, from s(x).s(y), |x - y|^2 and (s(y) - s(x)).(x - y)."""
  k, slope = with_slope(kernel)(sq_dist)
  # The second derivative alone may overflow; times the squared distance it does not.
  slope_of = lambda v: with_slope(kernel)(v)[1]
  curve = jax.jvp(slope_of, (sq_dist,), (sq_dist,))[1]
  return k * product + 2 * slope * (change - dim) - 4 * curve


def stein_sum(
  x: Array,
  score: Array,
  kernel: Kernel,
  *,
  block_size: int | None = None,
  axis_name: str | None = None,
) -> Array:
  """Returns the sum of u(x_i, x_j) over own points i and all others j != i [].

  Args:
    x: own points [n, d].
    score: their scores [n, d].
    kernel: radial profile.
    block_size: how many points are summed at a time; None bounds memory.
    axis_name: the mapped axis over which the points are split.
  """
  if len(x) >= _WINDOWED and not collectives.is_split(axis_name):
    # The kernel is symmetric. On a ring each pair is seen twice, by its two devices.
    of_block = lambda u, rows, columns: jnp.sum(u)
    return 2 * sum_in_windows(x, score, kernel, of_block, (), block_size)
  loop = _Loop(jnp.arange(len(x)), len(x), True, block_size, axis_name)

  def over_pairs(form):
    points = form.prepare(x, score)
    at_point = lambda point, points, counts: jnp.sum(
      jnp.where(counts, form.matrix(point, points, counts), 0)
    )
    return loop.sums(at_point, points, points, reduce=jnp.sum)

  return with_stein_kernel(over_pairs, kernel, (x,), axis_name)


def sum_in_windows(
  x: Array,
  score: Array,
  kernel: Kernel,
  of_block: Callable[[Array, Tree, Tree], Array],
  beside: Tree,
  block_size: int | None,
) -> Array:
  """Returns the sum over blocks of what a function makes of u, each pair once.

  Args:
    x: points [n, d].
    score: their scores [n, d].
    kernel: radial profile.
    of_block: a function of u [rows, columns], which is 0 for pairs that other entries
      stand for, and of what lies beside its rows and its columns.
    beside: a tree with leaves [n, ...].
    block_size: rows of u held at a time; None bounds memory.
  """
  size = _window_rows(len(x), block_size)
  windows = _windows.Windows.of((x, score, beside), size)

  def over_pairs(form):
    def of_start(start):
      (*points, rows), (*others, columns), counts = windows.block(start)
      u = form.matrix(form.prepare(*points), form.prepare(*others), counts)
      return of_block(jnp.where(counts, u, 0), rows, columns)

    return jnp.sum(lax.map(of_start, windows.starts), 0)

  return with_stein_kernel(over_pairs, kernel, (x,))


def _window_rows(n, block_size):
  """Returns how many rows a block of pairs of n points has."""
  half = n // 2
  size = kernels.block_rows(max(1, half), block_size)
  if block_size is None:
    # A window is half of all points and a block: it should not be much more than half.
    size = min(size, max(_ONE_BLOCK, n // 16))
  return min(size, n)


def own_terms(score: Array, kernel: Kernel) -> Array:
  """Returns u(x_i, x_i) [n].

  In the matrix the distance of a point from itself is rounded, and with it this term,
  where the point is far from the others.
  """
  k, slope = with_slope(kernel)(jnp.zeros((), score.dtype))
  return k * jnp.sum(score * score, 1) - 2 * score.shape[1] * slope
