"""Stein primitives: the operator, the SVGD direction, the kernel discrepancy.

All take points x [n, d], scores [n, d] (grad_x log p) and a radial kernel, and
nothing else: any density will do. They are pure and may be jitted, vmapped,
mapped over devices (`axis_name`) and differentiated.
"""

from collections.abc import Callable

import jax
from jax import lax
import jax.numpy as jnp

from stein_jax import checks
from stein_jax import collectives
from stein_jax import dtypes
from stein_jax import kernels
from stein_jax import pairs
from stein_jax.types import Array, Kernel, PRNGKey, ScoreFn

_PAIRS_ONCE = 2000  # points, from which each pair once, in windows, costs less
_HIGHEST = lax.Precision.HIGHEST  # TPU and GPU products are half precision


def stein_operator(score_fn: ScoreFn, test_fn: ScoreFn, x: Array) -> Array:
  """Returns s(x).phi(x) + div phi(x) [n], of mean zero under p [WL16 eq 4].

  The literal definition, one Jacobian per point; both functions take [n, d].
  """

  def at(point):
    single = lambda y: test_fn(y[None])[0]
    divergence = jnp.trace(jax.jacfwd(single)(point))
    return score_fn(point[None])[0] @ single(point) + divergence

  return jax.vmap(at)(x)


def svgd_direction(
  x: Array,
  score: Array,
  kernel: Kernel,
  *,
  normalize: str = 'count',
  block_size: int | None = None,
  fused: bool = False,
  axis_name: str | None = None,
) -> Array:
  """Returns phi(x_i), the steepest descent on KL [n, d] [LW17 eq 5] [WL16 eq 7].

  phi(x_i) = (1/n) sum_j k(x_j, x_i) s(x_j) + grad_{x_j} k(x_j, x_i).

  Args:
    x: particles [n, d].
    score: grad_x log p at the particles [n, d].
    kernel: radial profile; a bandwidth inside it is a constant.
    normalize: divide by the 'count' n, as printed, or by the 'row_sum' of the
      kernel, as the authors' code does.
    block_size: rows of the kernel matrix held at a time, memory O(n block); None
      keeps memory bounded.
    fused: for a GPU, one Pallas kernel that keeps the matrix on the chip: of
      `kernels.rbf`, in at most 256 dimensions, on one device.
    axis_name: the mapped axis over which the particles are split; all of them
      act on each.

  Raises:
    ValueError: on an unknown `normalize`, a block size below 1, shapes other than
      [n, d] twice, or what cannot be fused.
  """
  checks.choice(('count', 'row_sum'), normalize=normalize)
  x, score, dtype = _points(x, score)
  n = len(x)
  count = n * collectives.size(axis_name)
  x = x - kernels.center_of(x, axis_name=axis_name)
  row, norm = jnp.arange(n), jnp.sum(x * x, 1)
  ratio = kernels.slope_ratio(kernel)
  # Where the slope is a multiple of the kernel one product serves both terms.
  pushed = score if ratio is None else score + 2 * ratio * x

  def from_share(share, owner):
    """Returns what the particles of one device add to every own one."""
    xs, pushed, norms = share
    same = owner == collectives.index(axis_name)

    def on_row(own):
      i, point, own_norm = own
      inner = jnp.dot(point, xs.T, precision=_HIGHEST)
      sq_dist = jnp.maximum(own_norm + norms - 2 * inner, 0)
      # Its own term is the score alone, and would drown in 1 / bandwidth.
      other = ~(same & (row == i))
      if ratio is None:
        k, slope = (
          jnp.where(other, v, 0) for v in _with_slope(kernel)(sq_dist)
        )
        drive = jnp.dot(k, pushed, precision=_HIGHEST)
        drive += 2 * jnp.dot(slope, xs, precision=_HIGHEST)
        return drive, jnp.sum(k), 2 * jnp.sum(slope)
      k = jnp.where(other, kernel(sq_dist), 0)
      total = jnp.sum(k)
      return jnp.dot(k, pushed, precision=_HIGHEST), total, 2 * ratio * total

    return kernels.map_rows(on_row, (row, x, norm), n, block_size)

  if fused:
    fusion = _fusion(x, ratio, axis_name)
    drive, total = fusion.direction_sums(jnp.sqrt(-ratio) * x, pushed)
    slope = 2 * ratio * total
  else:
    drive, total, slope = collectives.ring_sum(
      from_share, (x, pushed, norm), axis_name
    )
  at_zero = kernel(jnp.zeros((), x.dtype))
  phi = at_zero * score + drive - slope[:, None] * x
  weight = count if normalize == 'count' else (at_zero + total)[:, None]
  return (phi / weight).astype(dtype)


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
  repulsion = feature_repulsion(
    x, feature_fn, kernel, form=form, axis_name=axis_name
  )
  if form == 'nearest':
    return score + 0.5 * repulsion
  xs, scores = collectives.all_gather((x, score), axis_name)
  features = feature_fn(xs)
  own = features[_own_rows(x, axis_name)]
  k = kernel(kernels.squared_distance(own, features))
  drive = jnp.tensordot(k, scores, 1, precision=_HIGHEST)
  weight = len(xs) if normalize == 'count' else jnp.sum(k, 1)
  return (drive + repulsion) / jnp.reshape(weight, (-1,) + (1,) * (x.ndim - 1))


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
  checks.choice(('exact', 'swapped', 'nearest'), form=form)
  xs, rows = collectives.all_gather(x, axis_name), _own_rows(x, axis_name)
  features, pullback = jax.vjp(feature_fn, xs)
  sq_dist = kernels.squared_distance(features, features)
  slope = (
    2 * _with_slope(kernel)(sq_dist)[1]
  )  # grad_{e_j} k = slope (e_j - e_i)
  if form == 'exact':

    def row(row):
      slope, feature = row
      change = features - feature[None]
      return jnp.sum(pullback(slope[:, None] * change)[0], 0)

    return lax.map(row, (slope[rows], features[rows]))
  if form == 'swapped':
    centred = features - kernels.center_of(features)
    drawn = jnp.matmul(slope, centred, precision=_HIGHEST)
    cotangent = drawn - jnp.sum(slope, 1, keepdims=True) * centred
    return pullback(cotangent)[0][rows]
  diagonal = jnp.eye(len(xs), dtype=bool)
  nearest = jnp.argmin(jnp.where(diagonal, jnp.inf, sq_dist), 1)
  cotangent = features[nearest] - features
  cotangent *= jnp.take_along_axis(slope, nearest[:, None], 1)
  # As a batch of their own: two particles may share their neighbour.
  return jax.vjp(feature_fn, xs[nearest])[1](cotangent)[0][rows]


def stein_matrix(
  x: Array, score_x: Array, y: Array, score_y: Array, kernel: Kernel
) -> Array:
  """Returns the Stein kernel u(x_i, y_j) [n, m] [WL16 eq 6].

  u(x, y) = s(x).s(y) k + s(x).grad_y k + s(y).grad_x k + tr grad_x grad_y k,
  of mean zero under p in either argument.
  """
  x, score_x, _ = _points(x, score_x)
  y, score_y, _ = _points(y, score_y)
  center = kernels.center_of(y)
  x, y = x - center, y - center
  dot = lambda a, b: jnp.matmul(a, b.T, precision=_HIGHEST)
  sq_dist = kernels.squared_distance(x, y)
  dim, ratio = x.shape[1], kernels.slope_ratio(kernel)
  drive_x, drive_y = (
    jnp.sum(z * s, 1) for z, s in ((x, score_x), (y, score_y))
  )
  if ratio is not None:
    # With slopes ratio k and ratio^2 k all products of x and s are one.
    norm_x, norm_y = jnp.sum(x * x, 1), jnp.sum(y * y, 1)
    of_rows = -2 * ratio * (drive_x + ratio * norm_x + dim)
    of_columns = -2 * ratio * (drive_y + ratio * norm_y)
    cross = dot(score_x + 2 * ratio * x, score_y + 2 * ratio * y)
    cross += of_rows[:, None] + of_columns[None] - 2 * ratio**2 * sq_dist
    return kernel(sq_dist) * cross
  (k, _), (dk, ddk) = _with_slope(_with_slope(kernel))(sq_dist)
  # (s(y) - s(x)).(x - y), as matrix products.
  change = dot(x, score_y) + dot(score_x, y)
  change -= drive_x[:, None] + drive_y[None]
  # At the least bandwidth 4 ddk would be infinite, and times a distance of 0 nan.
  trace = -4 * (ddk * sq_dist) - 2 * dim * dk
  return k * dot(score_x, score_y) + 2 * dk * change + trace


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
  x, score, _ = _points(x, score)
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

  def from_share(share, owner):
    same = owner == collectives.index(axis_name)

    def on_row(own):
      i, point, score = own
      u = stein_matrix(point[None], score[None], *share, kernel)[0]
      return jnp.sum(jnp.where(same & (row == i), 0, u))

    rows = (row, x, score)
    return jnp.sum(kernels.map_rows(on_row, rows, len(x), block_size))

  return collectives.ring_sum(from_share, (x, score), axis_name)


def _fused_sum(x, score, kernel, axis_name):
  """Returns the sum of the Stein kernel over pairs of points, both ways []."""
  ratio = kernels.slope_ratio(kernel)
  fusion = _fusion(x, ratio, axis_name)
  x = x - kernels.center_of(x)
  # As in `stein_matrix`, its trace term shared by both points.
  drive = jnp.sum(x * score, 1) + ratio * jnp.sum(x * x, 1) + x.shape[1] / 2
  slope = score + 2 * ratio * x
  terms = jnp.sqrt(-ratio) * x, slope, -2 * ratio * drive, 2 * ratio
  return jnp.sum(fusion.stein_sums(*terms))


def _fusion(x, ratio, axis_name):
  """Returns the module that has the fused sums, if they are for such points."""
  # It is slow to import.
  from stein_jax import fusion  # pylint: disable=g-import-not-at-top

  wrong = {
    'is for `kernels.rbf`, not for another kernel': ratio is None,
    f'is for at most {fusion.MAX_DIM} dimensions, not {x.shape[1]}': (
      x.shape[1] > fusion.MAX_DIM
    ),
    f'is for one device, not for axis_name={axis_name!r}': axis_name
    is not None,
  }
  for reason, found in wrong.items():
    if found:
      raise ValueError(f'fused=True {reason}.')
  return fusion


def _sum_over_pairs(x, score, kernel, block_size):
  """Returns the sum of the Stein kernel over pairs of points []."""
  n, half = len(x), len(x) // 2
  size = kernels.block_rows(half, block_size)
  if block_size is None:
    size = min(size, n // 8)  # a window is as much wider than half
  size = min(size, n)
  blocks, width = -(-n // size), size + half
  points = pairs.cyclic((x, score), blocks * size + width)

  def block(start):
    window = lambda length: (
      lax.dynamic_slice_in_dim(array, start, length) for array in points
    )
    u = stein_matrix(*window(size), *window(width), kernel)
    row = start + jnp.arange(size)
    return jnp.sum(
      jnp.where(pairs.once(n, row, width) & (row < n)[:, None], u, 0)
    )

  return jnp.sum(lax.map(block, size * jnp.arange(blocks)))


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
  x, score, _ = _points(x, score)
  n = x.shape[0]
  flips = jax.random.bernoulli(rng, flip_probability, (num_bootstrap, n))
  first = jax.random.rademacher(
    jax.random.fold_in(rng, 1), (num_bootstrap, 1), x.dtype
  )
  signs = first * jnp.cumprod(jnp.where(flips, -1, 1), 1).astype(x.dtype)
  weights = jnp.concatenate([jnp.ones((1, n), x.dtype), signs])

  def row_terms(row):
    i, own, point, score_at, weight = row
    u = stein_matrix(point[None], score_at[None], x, score, kernel)[0]
    return weight * jnp.dot(weights, u.at[i].set(own), precision=_HIGHEST)

  own = _with_itself(score, kernel)
  rows = (jnp.arange(n), own, x, score, weights.T)
  terms = kernels.map_rows(row_terms, rows, n, block_size)
  statistic, *draws = jnp.split(jnp.sum(terms, 0) / n, [1])
  exceed = jnp.sum(draws[0] >= statistic)
  return statistic[0], (1 + exceed) / (1 + num_bootstrap)


def _own_rows(x, axis_name):
  """Returns which rows of the gathered particles are this device's [n]."""
  return collectives.index(axis_name) * len(x) + jnp.arange(len(x))


def _points(x, score):
  """Returns points and scores [n, d] in their accumulation dtype, and x's own."""
  if x.ndim != 2 or x.shape != score.shape or not x.shape[0]:
    raise ValueError(
      f'Points and scores must be [n, d] alike, n >= 1; got {x.shape} and '
      f'{score.shape}.'
    )
  return dtypes.accumulated(x), dtypes.accumulated(score), x.dtype


def _with_slope(function):
  """Returns an elementwise function's value and derivative, as a function."""
  return lambda v: jax.jvp(function, (v,), (jnp.ones_like(v),))
