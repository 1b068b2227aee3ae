"""Radial kernels, as elementwise functions of squared distance.

A kernel k(x, y) = profile(|x - y|^2) is given by its profile alone. Directions
and discrepancies then are matrix products, with derivatives from `jax.jvp`.
"""

import functools

import jax
from jax import lax
import jax.numpy as jnp

from stein_jax import checks
from stein_jax import collectives
from stein_jax.types import Array, Kernel

# Blocks of rows are chosen so that one [block, n] matrix has this many entries.
_BLOCK_ENTRIES = 2**22
# Counts of pairs are kept as two unsigned numbers to this base: n up to 10^6.
_LIMB = 2**12


def rbf(sq_dist: Array, bandwidth: Array | float = 1.0) -> Array:
  """Returns exp(-sq_dist / bandwidth), like `sq_dist`."""
  return jnp.exp(-sq_dist / bandwidth)


def imq(
  sq_dist: Array, bandwidth: Array | float = 1.0, exponent: float = -0.5
) -> Array:
  """Returns the inverse multiquadric (1 + sq_dist / bandwidth)^exponent."""
  return (1 + sq_dist / bandwidth) ** exponent


def rational_quadratic(
  sq_dist: Array, bandwidth: Array | float = 1.0, mixture: float = 1.0
) -> Array:
  """Returns (1 + sq_dist / (mixture bandwidth))^-mixture.

  A mixture of `rbf` kernels over bandwidths; `rbf` itself as `mixture` grows.
  """
  return (1 + sq_dist / (mixture * bandwidth)) ** -mixture


PROFILES = {'rbf': rbf, 'imq': imq, 'rational_quadratic': rational_quadratic}


def at_median(
  kernel: str | Kernel, x: Array, *, axis_name: str | None = None, **rule
) -> Kernel:
  """Returns the named profile with its median bandwidth on x [n, d].

  Args:
    kernel: a name in `PROFILES`, or a finished kernel, which is returned as is.
    x: the points [n, d].
    axis_name: the mapped axis over which the points are split.
    **rule: keywords of `median_bandwidth`.
  """
  if callable(kernel):
    return kernel
  checks.choice(PROFILES, kernel=kernel)
  bandwidth = median_bandwidth(x, axis_name=axis_name, **rule)
  return functools.partial(PROFILES[kernel], bandwidth=bandwidth)


def squared_distance(x: Array, y: Array) -> Array:
  """Returns |x_i - y_j|^2 [n, m] of x [n, d] and y [m, d], never negative.

  Half-precision input is taken, and the result returned, in float32.
  """
  x, y = accumulated(x), accumulated(y)
  # Distances do not change under translation, but the rounding of |x|^2 does.
  center = center_of(y)
  x, y = x - center, y - center
  inner = jnp.matmul(x, y.T, precision=lax.Precision.HIGHEST)
  norms = jnp.sum(x * x, 1)[:, None] + jnp.sum(y * y, 1)[None, :]
  return jnp.maximum(norms - 2 * inner, 0)


def median_bandwidth(
  x: Array,
  *,
  scale: float = 1.0,
  diagonal: bool = True,
  log: str = 'n+1',
  block_size: int | None = None,
  axis_name: str | None = None,
) -> Array:
  """Returns scale * median_ij |x_i - x_j|^2 / log(n + 1) [], without gradient.

  The median is exact: that of `numpy.median`, found by counting, not sorting.
  Where it is 0 (most points coincide, or n = 1), machine epsilon times the mean
  squared distance takes its place, and a floor keeps the result above zero. A
  point that is not finite makes it nan.

  Args:
    x: the points [n, d].
    scale: factor on the result.
    diagonal: whether the n zeros of the pairs (i, i) take part in the median.
    log: 'n+1', 'n' (with n at least 2) or 'none', which divides by 1.
    block_size: rows of the distance matrix held at a time; None keeps memory
      bounded.
    axis_name: the mapped axis over which the points are split.
  """
  checks.positive(scale=scale)
  checks.choice(('n+1', 'n', 'none'), log=log)
  x = accumulated(lax.stop_gradient(collectives.all_gather(x, axis_name)))
  x = x - center_of(x)
  n = x.shape[0]
  median = _median(x, diagonal, block_size) if diagonal or n > 1 else 0.0
  eps, tiny = jnp.finfo(x.dtype).eps, jnp.finfo(x.dtype).tiny
  mean = 2 * jnp.mean(jnp.sum(x * x, 1))
  median = jnp.where(median > 0, median, eps * mean)
  median = jnp.where(jnp.isfinite(mean), median, jnp.nan)
  divisor = {'n+1': jnp.log(n + 1.0), 'n': jnp.log(max(n, 2)), 'none': 1.0}[log]
  bandwidth = jnp.maximum(scale * median / divisor, tiny**0.5)
  # The same on every device; the mean tells shard_map so.
  return collectives.pmean(bandwidth.astype(x.dtype), axis_name)


def accumulated(x: Array) -> Array:
  """Returns x in the dtype its sums are taken in: float32 for half precision."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def center_of(x: Array) -> Array:
  """Returns the mean [1, d] of x [n, d], exact where all rows are equal."""
  first = x[:1]
  return first + jnp.mean(x - first, 0, keepdims=True)


def map_rows(function, rows, num_columns: int, block_size: int | None):
  """Returns `function` mapped over the leading axis of `rows`, by blocks.

  Args:
    function: one row of every leaf of `rows` to a tree of arrays.
    rows: a tree of arrays [n, ...].
    num_columns: the size of what one row makes, which chooses the block when
      `block_size` is None.
    block_size: rows taken at a time.
  """
  num_rows = jax.tree.leaves(rows)[0].shape[0]
  if block_size is None:
    block_size = max(1, _BLOCK_ENTRIES // num_columns)
  checks.count(block_size=block_size)
  if num_rows <= block_size:
    return jax.vmap(function)(rows)
  return lax.map(function, rows, batch_size=block_size)


def _median(x, diagonal, block_size):
  """Returns the median of the squared distances [] of centred x [n, d]."""
  n = x.shape[0]
  total = n * n if diagonal else n * (n - 1)
  # The order of non-negative floats is that of their bits read as integers.
  bits = jnp.int64 if x.dtype == jnp.float64 else jnp.int32
  infinity = lax.bitcast_convert_type(jnp.array(jnp.inf, x.dtype), bits)
  whole = n * n <= _BLOCK_ENTRIES and block_size is None

  def row_bits(point, i):
    sq_dist = squared_distance(point[None], x)[0]
    # A point is at 0 from itself, whatever rounding says; +inf sorts last.
    sq_dist = sq_dist.at[i].set(0 if diagonal else jnp.inf)
    sq_dist = jnp.where(jnp.isnan(sq_dist), jnp.inf, sq_dist)
    # The sign bit, of -0.0, would make a negative integer.
    return jnp.maximum(lax.bitcast_convert_type(sq_dist, bits), 0)

  rows = (x, jnp.arange(n))
  matrix = jax.vmap(row_bits)(*rows) if whole else None

  def over_pairs(reduce_row, combine):
    if whole:
      return combine(jax.vmap(reduce_row)(matrix))
    return combine(
      map_rows(lambda r: reduce_row(row_bits(*r)), rows, n, block_size)
    )

  def reaches(rank, value):
    """Whether at least `rank` pairs are up to `value`; n^2 passes 32 bits."""
    counts = over_pairs(
      lambda row: jnp.sum(row <= value, dtype=jnp.uint32), lambda rows: rows
    )
    low = jnp.sum(counts % _LIMB)
    high = jnp.sum(counts // _LIMB) + low // _LIMB
    rank_high, rank_low = divmod(rank, _LIMB)
    return (high > rank_high) | (
      (high == rank_high) & (low % _LIMB >= rank_low)
    )

  def halve(bracket):
    low, high = bracket
    middle = low + (high - low) // 2
    enough = reaches((total + 1) // 2, middle)
    return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

  bracket = over_pairs(jnp.min, jnp.min), over_pairs(jnp.max, jnp.max)
  lower, _ = lax.while_loop(lambda b: b[0] < b[1], halve, bracket)
  # The middle pair of an even count: the next value is the same one if it
  # repeats, else the smallest above it.
  above = over_pairs(
    lambda row: jnp.min(jnp.where(row > lower, row, infinity)), jnp.min
  )
  upper = jnp.where(reaches(total // 2 + 1, lower), lower, above)
  lower, upper = (lax.bitcast_convert_type(v, x.dtype) for v in (lower, upper))
  return lower if total % 2 else lower + (upper - lower) / 2
