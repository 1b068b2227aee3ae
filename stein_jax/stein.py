"""Stein primitives: the operator, the SVGD direction, the kernel discrepancy.

All take points x [n, d], scores [n, d] (grad_x log p) and a radial kernel, and
nothing else: any density will do. They are pure and may be jitted, vmapped,
mapped over devices (`axis_name`) and differentiated.
"""

from collections.abc import Callable
import functools

from flax import struct
import jax
from jax import flatten_util
from jax import lax
import jax.numpy as jnp
import numpy as np

from stein_jax import _distances
from stein_jax import _windows
from stein_jax import checks
from stein_jax import collectives
from stein_jax import dtypes
from stein_jax import kernels
from stein_jax.types import Array, Kernel, PRNGKey, ScoreFn, Tree

NORMALIZATIONS = ('count', 'row_sum', 'unit_ball')
_FORMS = ('exact', 'swapped', 'nearest')
_PAIRS_ONCE = 2000  # points, from which each pair once, in windows, costs less
_HIGHEST = lax.Precision.HIGHEST  # TPU and GPU products are half precision


def stein_operator(score_fn: ScoreFn, test_fn: ScoreFn, x: Array) -> Array:
  """Returns s(x).phi(x) + div phi(x) [n], of mean zero under p [WL16 eq 4].

  The literal definition, one Jacobian per point; both functions take [n, d].

  Raises:
    ValueError: a function that does not return points like those it is given.
  """
  (x,) = kernels.points(x=x)

  def at(point):
    single = lambda y: test_fn(y[None])[0]
    score = score_fn(point[None])
    checks.shape((1, len(point)), score_fn=score, test_fn=test_fn(point[None]))
    divergence = jnp.trace(jax.jacfwd(single)(point))
    return dtypes.floating(score[0]) @ single(point) + divergence

  return jax.vmap(at)(x)


def svgd_direction(
  x: Array,
  score: Array,
  kernel: Kernel,
  *,
  at: Array | None = None,
  normalize: str = 'count',
  block_size: int | None = None,
  fused: bool = False,
  axis_name: str | None = None,
) -> Array:
  """Returns phi, the steepest descent on KL, at the particles [n, d] [LW17 eq 5].

  phi(y) = (1/n) sum_j k(x_j, y) s(x_j) + grad_{x_j} k(x_j, y) [LW17 eq 4] [WL16 eq 7].

  Args:
    x: particles [n, d].
    score: grad_x log p at the particles [n, d].
    kernel: radial profile; a bandwidth inside it is a constant.
    at: other points y [m, d] to take phi at, for a result [m, d].
    normalize: divide by the 'count' n, as printed, or by the 'row_sum' of the kernel,
      as the authors' code does. 'unit_ball': by the norm of phi too, the square root
      of `ksd`, for the steepest of all directions of norm 1 [LW17 eq 12]; 0 where
      phi is.
    block_size: rows of the kernel matrix held at a time, memory O(n block); None
      keeps memory bounded.
    fused: for a GPU, one Pallas kernel that keeps the matrix on the chip: of
      `kernels.rbf`, in at most 256 dimensions, on one device, at the particles, which
      are to be within some bandwidths of their middle.
    axis_name: the mapped axis over which the particles, and `at`, are split; all
      particles act on each.

  Raises:
    ValueError: on an unknown `normalize`, a block size below 1, shapes other than
      [n, d] twice, or what cannot be fused.
  """
  checks.choice(NORMALIZATIONS, normalize=normalize)
  dtype = dtypes.floating(x if at is None else at).dtype
  x, score = _points(x, score)
  kernel = kernels.resolved(kernel, x, axis_name)
  kernels.check(kernel)
  count = len(x) * collectives.size(axis_name)
  if fused:
    drive, total = _fused_direction(x, score, kernel, at, axis_name)
  else:
    y = None if at is None else kernels.points(x=x, at=at)[1]
    drive, total = _direction(x, score, kernel, y, block_size, axis_name)
  if at is None:
    at_zero = kernel(jnp.zeros((), x.dtype))
    drive, total = drive + at_zero * score, total + at_zero
  phi = drive / (total[:, None] if normalize == 'row_sum' else count)
  if normalize == 'unit_ball':
    square = ksd(x, score, kernel, block_size=block_size, axis_name=axis_name)
    phi = jnp.where(square == 0, 0, phi * lax.rsqrt(square))
  return phi.astype(dtype)


def _direction(x, score, kernel, at, block_size, axis_name):
  """Returns sum_j k s_j + grad_j k [n, d] and sum_j k [n] at x, over all others.

  Or at other points, over all.
  """
  dim, ratio = x.shape[1], _slope_ratio(kernel)
  y = x if at is None else at
  own_rows = jnp.arange(len(y))

  def weighed(sq_dist, other):
    """Returns the kernel and its derivative of one row, 0 for itself [n]."""
    if ratio is None:
      k, slope = _with_slope(kernel)(sq_dist)
      return jnp.where(other, k, 0), jnp.where(other, slope, 0)
    k = jnp.where(other, kernel(sq_dist), 0)
    return k, ratio * k

  def over_pairs(pull, points, share, matrices=1):
    """Returns the sums over all shares of what `pull` finds for each point.

    It makes so many numbers of each pair, which chooses the block.
    """

    def from_share(share, owner):
      mine = (owner == collectives.index(axis_name)) & (at is None)

      def on_row(own):
        row, point = own
        # Its own term is the score alone, and would drown in 1 / bandwidth.
        return pull(point, share, ~(mine & (row == jnp.arange(len(x)))))

      rows, made = (own_rows, points), matrices * len(x)
      return kernels.map_rows(on_row, rows, made, block_size)

    return collectives.ring_sum(from_share, share, axis_name)

  def by_product(middles, mend=False):
    """Returns the sums by products, of rows that need it by subtraction."""
    others = _distances.place(x, middles)
    own = others if at is None else _distances.place(at, middles)
    moves = 2 * jnp.concatenate([others.residual, others.member], 1)
    scores = jnp.pad(score, ((0, 0), (0, moves.shape[1] - dim)))
    # Where the slope is a multiple of the kernel one product serves both terms.
    drives = (scores, moves) if ratio is None else (scores + ratio * moves,)

    def pull(points, share, other):
      (point, y), (others, drives, itself) = points, share
      sq_dist = _distances.squared(point, others)

      def simply():
        weights = weighed(sq_dist, other)
        sums = sum(
          jnp.dot(weight, drive, precision=_HIGHEST)
          for weight, drive in zip(weights, drives, strict=False)
        )
        total, slope = map(jnp.sum, weights)
        return sums.at[:dim].add(-2 * slope * point.residual), total

      def exactly():
        x, score = itself
        k, slope = weighed(_distances.exactly(y, x), other)
        drive = jnp.dot(k, score, precision=_HIGHEST)
        drive += 2 * _distances.exactly_summed(slope, y, x)
        return jnp.pad(drive, (0, len(point.member))), jnp.sum(k)

      if not mend:
        return simply()
      lost = _distances.is_lost(sq_dist, point, others, other)
      return lax.cond(lost, exactly, simply)

    share = others, drives, (x, score) if mend else ()
    drive, total = over_pairs(pull, (own, y), share, matrices=4 if mend else 1)
    drive, sums = drive[:, :dim], drive[:, dim:]
    return drive + _distances.across(sums, own, middles), total

  def by_subtraction():
    def pull(point, share, other):
      others, scores = share
      weights = weighed(_distances.subtracted(point, others), other)
      k, slope = lax.optimization_barrier(weights)  # each sum would redo them
      moves = [
        jnp.sum(slope * (along - own))
        for own, along in zip(point, others, strict=True)
      ]
      drive = jnp.dot(k, scores, precision=_HIGHEST) + 2 * jnp.stack(moves)
      return drive, jnp.sum(k)

    own, others = map(_distances.coordinates, (y, x))
    return over_pairs(pull, own, (others, score), matrices=dim + 3)

  def precisely():
    if dim <= _distances.FEW:
      return by_subtraction()
    points = x if at is None else jnp.concatenate([x, at])
    middles = _distances.middles(points, axis_name=axis_name)
    return by_product(middles, mend=True)

  middle, far = _middle(kernel, (x, y), axis_name)
  return lax.cond(far, precisely, lambda: by_product(middle))


def _middle(kernel, sets, axis_name=None):
  """Returns the first set's middle [1, d], and whether it is too far for any point."""
  middle = _distances.center_of(sets[0], axis_name=axis_name)
  norms = [_distances.place(points, middle).norm for points in sets]
  curvature = kernels.curvature(kernel, middle.dtype)
  return middle, _distances.is_far(jnp.concatenate(norms), curvature, axis_name)


def _fused_direction(x, score, kernel, at, axis_name):
  """Returns what `_direction` does, by the fused sums."""
  ratio = _slope_ratio(kernel)
  fused = _fused_sums(x, ratio, axis_name, at)
  x = x - _distances.center_of(x)
  drive, total = fused.direction_sums(
    jnp.sqrt(-ratio) * x, score + 2 * ratio * x
  )
  return drive - 2 * ratio * total[:, None] * x, total


def feature_svgd_direction(
  x: Array,
  score: Array,
  feature_fn: Callable[[Array], Array],
  kernel: Kernel,
  *,
  form: str = 'exact',
  normalize: str = 'count',
  axis_name: str | None = None,
) -> Array:
  """Returns the SVGD direction, like x, of a kernel k(F(x), F(x')) on features.

  Args:
    x: particles [n, ...].
    score: grad_x log p at the particles, like x.
    feature_fn: F, particles [N, ...] of all devices to features [N, f].
    kernel: radial profile on the features.
    form: of the repulsion; see `feature_repulsion`. With 'nearest' the direction
      is the authors' of LW17: s(x_i), not smoothed by the kernel, plus half the
      repulsion, divided by nothing.
    normalize: divide by the 'count' n or the 'row_sum' of the kernel.
    axis_name: the mapped axis over which the particles are split.
  """
  checks.choice(('count', 'row_sum'), normalize=normalize)
  checks.choice(_FORMS, form=form)
  dtype, x = dtypes.floating(x).dtype, dtypes.at_least_float32(x)
  score = dtypes.at_least_float32(score)
  checks.like(x, score=score)
  xs, scores = collectives.all_gather((x, score), axis_name)
  rows = _own_rows(x, axis_name)
  features, kernel, repulsion = _repelled(xs, feature_fn, kernel, form, rows)
  if form == 'nearest':
    return (score + 0.5 * repulsion).astype(dtype)
  k = kernel(kernels.squared_distance(features[rows], features))
  drive = jnp.tensordot(k, scores, 1, precision=_HIGHEST)
  weight = len(xs) if normalize == 'count' else jnp.sum(k, 1)
  weight = jnp.reshape(weight, (-1,) + (1,) * (x.ndim - 1))
  return ((drive + repulsion) / weight).astype(dtype)


def feature_repulsion(
  x: Array,
  feature_fn: Callable[[Array], Array],
  kernel: Kernel,
  *,
  form: str = 'exact',
  axis_name: str | None = None,
) -> Array:
  """Returns sum_j grad_{x_j} k(F(x_j), F(x_i)), or a cheaper stand-in, like x.

  Args:
    x: particles [n, ...].
    feature_fn: F, particles [N, ...] of all devices to features [N, f].
    kernel: radial profile on the features.
    form: 'exact': through the Jacobian at every x_j, one vector-Jacobian product
      of the batch for each i; 'swapped': through the Jacobian at x_i instead, one
      for all, equal where F is an isometry; 'nearest': the nearest other particle
      is the only j.
    axis_name: the mapped axis over which the particles are split.
  """
  checks.choice(_FORMS, form=form)
  dtype, x = dtypes.floating(x).dtype, dtypes.at_least_float32(x)
  xs, rows = collectives.all_gather(x, axis_name), _own_rows(x, axis_name)
  return _repelled(xs, feature_fn, kernel, form, rows)[2].astype(dtype)


def _repelled(xs, feature_fn, kernel, form, rows):
  """Returns the features [N, f], the kernel on them, and the repulsion of some rows.

  A rule in the kernel is applied to the features of all particles xs [N, ...].
  """
  feature_fn = functools.partial(_features, feature_fn)
  features, pullback = jax.vjp(feature_fn, xs)
  kernel = kernels.resolved(kernel, features)
  kernels.check(kernel)
  sq_dist = kernels.squared_distance(features, features)
  # grad_{e_j} k = slope (e_j - e_i)
  slope = 2 * _with_slope(kernel)(sq_dist)[1]
  if form == 'exact':
    repulsion = _exact_repulsion(features, pullback, slope, rows)
  elif form == 'swapped':
    cotangent = _distances.drawn(slope, features, features)
    repulsion = pullback(cotangent)[0][rows]
  else:
    nearest = _nearest_other(sq_dist)
    cotangent = features[nearest] - features
    cotangent *= jnp.take_along_axis(slope, nearest[:, None], 1)
    # As a batch of their own: two particles may share their neighbour.
    repulsion = jax.vjp(feature_fn, xs[nearest])[1](cotangent)[0][rows]
  return features, kernel, repulsion


def _exact_repulsion(features, pullback, slope, rows):
  """Returns sum_j slope_ij (e_j - e_i) through the Jacobian at every x_j."""

  def at(row):
    slope, feature = row
    change = features - feature[None]
    return jnp.sum(pullback(slope[:, None] * change)[0], 0)

  return lax.map(at, (slope[rows], features[rows]))


def _nearest_other(sq_dist):
  """Returns which other point [n] is nearest to each."""
  itself = jnp.eye(len(sq_dist), dtype=bool)
  furthest = jnp.finfo(sq_dist.dtype).max
  return jnp.argmin(jnp.where(itself, furthest, sq_dist), 1)


def _features(feature_fn, x):
  """Returns the features [n, f] of x in the dtype that they are summed in."""
  features = feature_fn(x)
  if not hasattr(features, 'ndim'):
    raise ValueError(
      f'feature_fn is a {type(features).__name__}; wanted: an array ({len(x)}, f).'
    )
  if features.ndim != 2 or len(features) != len(x):
    raise ValueError(
      f'feature_fn has shape {features.shape}; wanted: ({len(x)}, f), a row for each '
      'particle.'
    )
  return dtypes.at_least_float32(features)


def stein_matrix(
  x: Array, score_x: Array, y: Array, score_y: Array, kernel: Kernel
) -> Array:
  """Returns the Stein kernel u(x_i, y_j) [n, m] [WL16 eq 6].

  u(x, y) = s(x).s(y) k + s(x).grad_y k + s(y).grad_x k + tr grad_x grad_y k,
  of mean zero under p in either argument.
  """
  x, score_x = _points(x, score_x)
  y, score_y = _points(y, score_y)
  kernels.points(x=x, y=y)
  kernel = kernels.resolved(kernel, x)

  def whole(prepare, stein_kernel):
    return stein_kernel(prepare(x, score_x), prepare(y, score_y), True)

  return _precise(whole, kernel, (x, y))


def _precise(function, kernel, sets, axis_name=None):
  """Returns function(prepare, stein_kernel), of the two that are right for the points.

  `prepare` makes of points and scores [n, d] a tree of arrays [n, ...], `stein_kernel`
  of two such trees, and of which pairs count [n, m], u [n, m]; of one row of the first
  [m].
  """
  kernels.check(kernel)
  middle, far = _middle(kernel, sets, axis_name)

  def precisely():
    if middle.shape[1] <= _distances.FEW:
      return function(*_by_subtraction(kernel))
    points = jnp.concatenate(sets)
    middles = _distances.middles(points, axis_name=axis_name)
    return function(*_by_products(kernel, middles, mend=True))

  def simply():
    if _slope_ratio(kernel) is None:
      return function(*_by_products(kernel, middle))
    return function(*_by_one_product(kernel, middle))

  return lax.cond(far, precisely, simply)


def _by_one_product(kernel, middle):
  """As in `_precise`, of a kernel whose slope is a multiple of it.

  With derivatives c k and c^2 k all products of points and scores are one.
  """
  dim = middle.shape[1]
  # Multiplied from small to large, which a compiler may undo for constants: its square
  # may be no number of this dtype.
  ratio = jnp.asarray(_slope_ratio(kernel), middle.dtype)
  ratio = lax.optimization_barrier(ratio)

  def prepare(x, score):
    x = _distances.place(x, middle)
    own = jnp.sum(x.residual * score, 1) + ratio * x.norm + dim / 2
    return x, score + 2 * ratio * x.residual, -2 * ratio * own

  def stein_kernel(first, second, counts):
    del counts
    (x, slope_x, own_x), (y, slope_y, own_y) = first, second
    sq_dist = _distances.squared(x, y)
    cross = jnp.dot(slope_x, slope_y.T, precision=_HIGHEST)
    cross += _distances.outer_sum(own_x, own_y) - 2 * ratio * (ratio * sq_dist)
    return kernel(sq_dist) * cross

  return prepare, stein_kernel


def _by_products(kernel, middles, mend=False):
  """As in `_precise`, of any kernel and of groups of points far apart.

  By subtraction, if it is to `mend`, of blocks of pairs that need it.
  """

  def prepare(x, score):
    placed = _distances.place(x, middles)
    lean = _distances.leaning(score, placed.member, middles)
    left = jnp.concatenate([placed.residual, score, placed.member, -lean], 1)
    right = jnp.concatenate([score, placed.residual, -lean, placed.member], 1)
    drive = jnp.sum(placed.residual * score, 1)
    return placed, (left, right, drive), (x if mend else (), score)

  def stein_kernel(first, second, counts):
    x, (left, _, drive_x), (exact_x, score_x) = first
    y, (_, right, drive_y), (exact_y, score_y) = second
    dot = lambda a, b: jnp.dot(a, b.T, precision=_HIGHEST)
    sq_dist = _distances.squared(x, y)

    def by_products():
      drives = _distances.outer_sum(drive_x, drive_y)
      return sq_dist, dot(left, right) - drives

    def by_subtraction():
      return _distances.exactly(exact_x, exact_y), _distances.exact_change(
        exact_x, score_x, exact_y, score_y
      )

    pair = by_products
    if mend:
      lost = _distances.is_lost(sq_dist, x, y, counts)
      pair = lambda: lax.cond(lost, by_subtraction, by_products)
    product = dot(score_x, score_y)
    return _stein_kernel(kernel, product, middles.shape[1], *pair())

  return prepare, stein_kernel


def _by_subtraction(kernel):
  """As in `_precise`, of few dimensions."""

  def prepare(x, score):
    return *map(_distances.coordinates, (x, score)), score

  def stein_kernel(first, second, counts):
    del counts
    (x, slope_x, score_x), (y, slope_y, score_y) = first, second
    axes = zip(x, y, slope_x, slope_y, strict=True)
    outer = _distances.outer_sum
    change = sum(outer(-s, t) * outer(a, -b) for a, b, s, t in axes)
    product = jnp.dot(score_x, score_y.T, precision=_HIGHEST)
    sq_dist = _distances.subtracted(x, y)
    return _stein_kernel(kernel, product, len(x), sq_dist, change)

  return prepare, stein_kernel


def _stein_kernel(kernel, product, dim, sq_dist, change):
  """Returns u, of s(x).s(y), |x - y|^2 and (s(y) - s(x)).(x - y)."""
  k, slope = _with_slope(kernel)(sq_dist)
  # The second derivative alone may be too large for a number; times sq_dist it is not.
  curve = jax.jvp(lambda v: _with_slope(kernel)(v)[1], (sq_dist,), (sq_dist,))[
    1
  ]
  return k * product + 2 * slope * (change - dim) - 4 * curve


def ksd(
  x: Array,
  score: Array,
  kernel: Kernel,
  *,
  unbiased: bool = False,
  block_size: int | None = None,
  fused: bool = False,
  axis_name: str | None = None,
) -> Array:
  """Returns the squared kernelised Stein discrepancy [] [LW17 eq 14] [WL16 eq 6].

  Args:
    x: points [n, d].
    score: grad_x log p at the points [n, d].
    kernel: radial profile.
    unbiased: the U-statistic, without the diagonal, which may fall below zero;
      otherwise the V-statistic, which is never negative beyond rounding.
    block_size: rows of the Stein matrix held at a time; None keeps memory
      bounded.
    fused: for a GPU; as in `svgd_direction`.
    axis_name: the mapped axis over which the points are split.

  Raises:
    ValueError: the U-statistic of one point, or what cannot be fused.
  """
  x, score = _points(x, score)
  kernel = kernels.resolved(kernel, x, axis_name)
  n = len(x)
  count = n * collectives.size(axis_name)
  if unbiased and count < 2:
    raise ValueError('The U-statistic needs at least 2 points, got 1.')
  if fused:
    total = _fused_sum(x, score, kernel, axis_name)
  elif axis_name is None and n >= _PAIRS_ONCE:
    total = 2 * _sum_over_pairs(x, score, kernel, block_size)
  else:
    total = _sum_over_others(x, score, kernel, block_size, axis_name)
  if unbiased:
    return collectives.psum(total, axis_name) / float(count * (count - 1))
  total += jnp.sum(_with_itself(score, kernel))
  return collectives.psum(total, axis_name) / float(count**2)  # past 32 bits


def _with_itself(score, kernel):
  """Returns the Stein kernel of each point with itself [n].

  Which the matrix has too, but for a point that is far from the others to the
  rounding of that distance.
  """
  k, slope = _with_slope(kernel)(jnp.zeros((), score.dtype))
  return k * jnp.sum(score * score, 1) - 2 * score.shape[1] * slope


def _sum_over_others(x, score, kernel, block_size, axis_name):
  """Returns the sum of the Stein kernel over own points and all others []."""
  row = jnp.arange(len(x))

  def over_pairs(prepare, stein_kernel):
    points = prepare(x, score)

    def from_share(share, owner):
      mine = owner == collectives.index(axis_name)

      def on_row(own):
        i, point = own
        other = ~(mine & (row == i))
        return jnp.sum(jnp.where(other, stein_kernel(point, share, other), 0))

      sums = kernels.map_rows(on_row, (row, points), len(x), block_size)
      return jnp.sum(sums)

    return collectives.ring_sum(from_share, points, axis_name)

  return _precise(over_pairs, kernel, (x,), axis_name)


def _fused_sum(x, score, kernel, axis_name):
  """Returns the sum of the Stein kernel over pairs of points, both ways []."""
  ratio = _slope_ratio(kernel)
  fused = _fused_sums(x, ratio, axis_name)
  x = x - _distances.center_of(x)
  # As in `_by_one_product`, its trace term shared by both points.
  drive = jnp.sum(x * score, 1) + ratio * jnp.sum(x * x, 1) + x.shape[1] / 2
  slope = score + 2 * ratio * x
  terms = jnp.sqrt(-ratio) * x, slope, -2 * ratio * drive, 2 * ratio
  return jnp.sum(fused.stein_sums(*terms))


def _fused_sums(x, ratio, axis_name, at=None):
  """Returns the module that has the fused sums, if they are for such points."""
  # It is slow to import.
  from stein_jax import _fused  # pylint: disable=g-import-not-at-top

  wrong = {
    'is for `kernels.rbf`, not for another kernel': ratio is None,
    f'is for at most {_fused.MAX_DIM} dimensions, not {x.shape[1]}': (
      x.shape[1] > _fused.MAX_DIM
    ),
    f'is for one device, not for axis_name={axis_name!r}': axis_name
    is not None,
    'is for the particles, not for other points `at`': at is not None,
  }
  for reason, found in wrong.items():
    if found:
      raise ValueError(f'fused=True {reason}.')
  return _fused


def _sum_over_pairs(x, score, kernel, block_size):
  """Returns the sum of the Stein kernel over pairs of points []."""
  n, half = len(x), len(x) // 2
  size = kernels.block_rows(half, block_size)
  if block_size is None:
    size = min(size, n // 8)  # a window is as much wider than half
  size = min(size, n)
  blocks, width = -(-n // size), size + half
  points = _windows.cyclic((x, score), blocks * size + width)

  def over_pairs(prepare, stein_kernel):
    def block(start):
      window = lambda length: prepare(
        *(lax.dynamic_slice_in_dim(array, start, length) for array in points)
      )
      row = start + jnp.arange(size)
      counts = _windows.once(n, row, width) & (row < n)[:, None]
      u = stein_kernel(window(size), window(width), counts)
      return jnp.sum(jnp.where(counts, u, 0))

    return jnp.sum(lax.map(block, size * jnp.arange(blocks)))

  return _precise(over_pairs, kernel, (x,))


def ksd_test(
  rng: PRNGKey,
  x: Array,
  score: Array,
  kernel: Kernel,
  *,
  num_bootstrap: int = 1000,
  flip_probability: float = 0.5,
  block_size: int | None = None,
) -> tuple[Array, Array]:
  """Returns n KSD^2 (V-statistic) [] and its p-value [] under x ~ p.

  The wild bootstrap of [CSG16]: u(x_i, x_j) is reweighted by random signs
  w_i w_j. The p-value counts the statistic among the draws, so it lies in
  [1 / (num_bootstrap + 1), 1].

  Args:
    rng: key of the signs.
    x: points [n, d].
    score: grad_x log p at the points [n, d].
    kernel: radial profile.
    num_bootstrap: draws.
    flip_probability: chance that the sign changes from one point to the next:
      0.5 for independent points, less for a Markov chain in its order.
    block_size: as in `ksd`.
  """
  checks.count(num_bootstrap=num_bootstrap)
  checks.positive(flip_probability=flip_probability)
  checks.at_most(0.5, flip_probability=flip_probability)
  x, score = _points(x, score)
  kernel = kernels.resolved(kernel, x)
  n = x.shape[0]
  flips = jax.random.bernoulli(rng, flip_probability, (num_bootstrap, n))
  first = jax.random.rademacher(
    jax.random.fold_in(rng, 1), (num_bootstrap, 1), x.dtype
  )
  signs = first * jnp.cumprod(jnp.where(flips, -1, 1), 1).astype(x.dtype)
  weights = jnp.concatenate([jnp.ones((1, n), x.dtype), signs])

  own = _with_itself(score, kernel)

  def over_pairs(prepare, stein_kernel):
    points = prepare(x, score)

    def on_row(row):
      i, own, point, weight = row
      u = stein_kernel(point, points, i != jnp.arange(n)).at[i].set(own)
      return weight * jnp.dot(weights, u, precision=_HIGHEST)

    rows = (jnp.arange(n), own, points, weights.T)
    return jnp.sum(kernels.map_rows(on_row, rows, n, block_size), 0)

  statistic, draws = jnp.split(_precise(over_pairs, kernel, (x,)) / n, [1])
  exceed = jnp.sum(draws >= statistic)
  p_value = (1 + exceed) / (1 + num_bootstrap)
  # No comparison with a nan holds: it would be the strongest rejection.
  return statistic[0], jnp.where(jnp.isfinite(statistic[0]), p_value, jnp.nan)


@struct.dataclass
class SVGD:
  """The direction of SVGD for particles of any shape; see `svgd_direction`.

  Attributes:
    kernel: radial profile, whose rule is applied to the particles, each flattened.
    normalize: 'count', 'row_sum' or 'unit_ball'.
    block_size: rows of the kernel matrix held at a time; 0 keeps memory bounded.
    fused: whether one Pallas kernel does it, for a GPU.
  """

  kernel: Kernel = kernels.RBF()
  normalize: str = struct.field(pytree_node=False, default='count')
  block_size: int = struct.field(pytree_node=False, default=0)
  fused: bool = struct.field(pytree_node=False, default=False)

  def __call__(
    self,
    x: Tree,
    score: Tree,
    *,
    at: Tree | None = None,
    axis_name: str | None = None,
  ) -> Tree:
    """Returns phi at the particles, like x, or like `at` if that is given.

    Args:
      x: particles, a tree with leaves [n, ...].
      score: grad_x log p at the particles, like x.
      at: other points, a tree like x with leaves [m, ...].
      axis_name: the mapped axis over which the particles, and `at`, are split.

    Raises:
      ValueError: leaves of different n, a score unlike x, or an unknown option.
    """
    checks.count(minimum=0, block_size=self.block_size)
    y = x if at is None else at
    _check_particles(x, score, y)
    phi = svgd_direction(
      _flattened(x),
      _flattened(score),
      self.kernel,
      at=None if at is None else _flattened(at),
      normalize=self.normalize,
      block_size=self.block_size or None,
      fused=self.fused,
      axis_name=axis_name,
    )
    return _shaped(phi, y)


@struct.dataclass
class FeatureSVGD:
  """The direction of SVGD by features; see `feature_svgd_direction`.

  Attributes:
    kernel: radial profile, whose rule is applied to the features of all particles.
    form: of the repulsion: 'exact', 'swapped' or 'nearest'.
    normalize: 'count' or 'row_sum'.
  """

  kernel: Kernel = kernels.RBF()
  form: str = struct.field(pytree_node=False, default='exact')
  normalize: str = struct.field(pytree_node=False, default='count')

  needs_features = True  # `energies.direction` gives them

  def __call__(
    self,
    x: Array,
    score: Array,
    *,
    features: Callable[[Array], Array],
    axis_name: str | None = None,
  ) -> Array:
    """Returns the direction at the particles, like x.

    Args:
      x: particles [n, ...].
      score: grad_x log p at the particles, like x.
      features: a function of the particles [N, ...] of all devices to [N, f].
      axis_name: the mapped axis over which the particles are split.
    """
    return feature_svgd_direction(
      x,
      score,
      features,
      self.kernel,
      form=self.form,
      normalize=self.normalize,
      axis_name=axis_name,
    )


@struct.dataclass
class Score:
  """The direction without a kernel: every particle follows its own score."""

  def __call__(
    self,
    x: Tree,
    score: Tree,
    *,
    at: Tree | None = None,
    axis_name: str | None = None,
  ) -> Tree:
    """Returns the score, which is to be like x.

    Raises:
      ValueError: a score unlike x, or other points `at`, whose score is not known.
    """
    del axis_name
    if at is not None:
      raise ValueError(
        'Score() has no direction at other points: it has no kernel.'
      )
    checks.like(x, score=score)
    return score


def _check_particles(x, score, at):
  """Raises ValueError unless x and `at` are such particles, with a score like x."""
  for name, tree in {'x': x, 'at': at}.items():
    shapes = list(map(np.shape, jax.tree.leaves(tree)))
    counts = {shape[:1] for shape in shapes}
    if len(counts) != 1 or counts & {(), (0,)}:
      raise ValueError(
        f'{name} has leaves of shapes {shapes}; wanted: leaves [n, ...] of one n.'
      )
  checks.like(x, score=score)
  checks.like(_first(x), at=_first(at))


def _first(tree):
  """Returns the first of particles with leaves [n, ...]."""
  return jax.tree.map(lambda leaf: dtypes.at_least_float32(leaf)[0], tree)


def _flattened(tree):
  """Returns particles with leaves [n, ...] as points [n, d]."""
  tree = jax.tree.map(dtypes.at_least_float32, tree)
  return jax.vmap(lambda one: flatten_util.ravel_pytree(one)[0])(tree)


def _shaped(points, tree):
  """Returns points [n, d] as particles of the shapes and dtypes of a tree."""
  found = jax.vmap(flatten_util.ravel_pytree(_first(tree))[1])(points)
  return jax.tree.map(
    lambda new, old: new.astype(dtypes.floating(old).dtype), found, tree
  )


def _own_rows(x, axis_name):
  """Returns which rows of the gathered particles are this device's [n]."""
  return collectives.index(axis_name) * len(x) + jnp.arange(len(x))


def _points(x, score):
  """Returns points and scores [n, d] in the dtype that they are summed in."""
  if np.ndim(x) != 2 or np.shape(x) != np.shape(score) or 0 in np.shape(x):
    raise ValueError(
      'Points and scores must be [n, d] alike, n and d at least 1; got '
      f'{np.shape(x)} and {np.shape(score)}.'
    )
  return dtypes.at_least_float32(x), dtypes.at_least_float32(score)


def _slope_ratio(kernel):
  """Returns c where a kernel's derivative is c times itself, None where not known.

  A kernel may say so by an attribute; `kernels.rbf` and its partials cannot.
  """
  if kernel is kernels.rbf:
    return -1.0
  if isinstance(kernel, functools.partial) and kernel.func is kernels.rbf:
    if not kernel.args and set(kernel.keywords) <= {'bandwidth'}:
      return -1 / kernel.keywords.get('bandwidth', 1.0)
  return getattr(kernel, 'slope_ratio', None)


def _with_slope(function):
  """Returns an elementwise function's value and derivative, as a function."""
  return lambda v: jax.jvp(function, (v,), (jnp.ones_like(v),))
