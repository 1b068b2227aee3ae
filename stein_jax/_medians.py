"""The exact median of all squared distances, by counting instead of sorting.

The bits of floats that are not negative, read as integers, are ordered as the floats
are. So a bracket of integers is narrowed by counting, in one pass over all pairs, how
many are up to each of a few probes, until it holds the median alone. A sort of n^2
keys takes a hundred times as long on XLA's CPU back end.
"""

import functools

import jax
from jax import lax
import jax.numpy as jnp

from stein_jax import _distances
from stein_jax import _windows
from stein_jax import checks
from stein_jax import collectives
from stein_jax import dtypes
from stein_jax.types import Array

_FEW = 64  # points, whose pairs are one block
_BLOCK_ENTRIES = 2**18  # pairs looked at together: what a core's cache holds
_AT_ONCE = 2**21  # where a loop over blocks costs more than a cache too small
_STORED_ENTRIES = 2**26  # up to here pairs are kept from pass to pass: 256 MB
_SAMPLE = 256  # pairs, for a first bracket
# Counts are of elementwise sums of so many slices: XLA's CPU back end vectorises
# those, but no reduction.
_LANES = 16
# Counts of pairs are kept as two unsigned numbers to this base: n up to 10^6.
_LIMB = 2**12


def median_squared_distance(
  x: Array,
  *,
  diagonal: bool = True,
  block_size: int | None = None,
  rows: int | None = None,
  axis_name: str | None = None,
) -> Array:
  """Returns the median of |x_i - x_j|^2 [] over all i, j, without gradient.

  That of `numpy.median`: of an even count the mean of the middle two; nan where a
  point is not finite.

  Args:
    x: all points [n, d], n at least 2 without the diagonal.
    diagonal: whether the n zeros of the pairs (i, i) take part.
    block_size: rows of pairs held at a time; None keeps memory bounded, and pairs
      from pass to pass where that is not much.
    rows: how many of the points are this device's to pair; all of them without.
    axis_name: the mapped axis over which these are split.
  """
  x = lax.stop_gradient(dtypes.at_least_float32(x))
  n = x.shape[0]
  bits = jnp.int64 if x.dtype == jnp.float64 else jnp.int32
  infinity = lax.bitcast_convert_type(jnp.array(jnp.inf, x.dtype), bits)
  over_pairs, num_probes = _pairs(x, rows, block_size, axis_name, infinity)

  def reaches(rank, probes):
    """Whether at least `rank` pairs are up to each probe; n^2 passes 32 bits."""
    counts = over_pairs(functools.partial(_count, probes))
    low = collectives.psum(jnp.sum(counts % _LIMB, 0), axis_name)
    high = collectives.psum(jnp.sum(counts // _LIMB, 0), axis_name)
    high += low // _LIMB
    rank_high, rank_low = divmod(rank, _LIMB)
    return (high > rank_high) | (
      (high == rank_high) & (low % _LIMB >= rank_low)
    )

  # Of all entries n are the diagonal's zeros, and the others are every pair twice.
  zeros = n if diagonal else 0
  total = n * (n - 1) + zeros
  rank, next_rank = (
    max(0, -(-(r - zeros) // 2)) for r in ((total + 1) // 2, total // 2 + 1)
  )

  def narrowed(bracket, probes):
    low, high = bracket
    enough = reaches(rank, probes)
    low = jnp.maximum(low, jnp.max(jnp.where(enough, low, probes + 1)))
    return low, jnp.minimum(high, jnp.min(jnp.where(enough, probes, high)))

  steps = jnp.arange(num_probes, dtype=bits)

  def divided(bracket):
    low, high = bracket
    step = (high - low) // (num_probes + 1) + 1
    return narrowed(bracket, jnp.minimum(low + (steps + 1) * step - 1, high))

  bracket = jnp.zeros((), bits), infinity
  if (
    axis_name is None
  ):  # as the counts are, of points that a shard has to itself
    bracket = collectives.match_varying(*bracket, x[0, 0])[:2]
  if n > _FEW:
    low, high = lax.bitcast_convert_type(_sampled(x), bits)
    low, high = collectives.pmax((low, high), axis_name)
    bracket = narrowed(bracket, low + steps * ((high - low) // num_probes + 1))
  lower, _ = lax.while_loop(lambda b: b[0] < b[1], divided, bracket)
  upper = lower
  if next_rank > rank:
    # The next value is the same one if it repeats, else the smallest above it.
    above = over_pairs(functools.partial(_smallest_above, lower, infinity))
    above = collectives.pmin(jnp.min(above), axis_name)
    upper = jnp.where(reaches(next_rank, lower[None])[0], lower, above)
  lower, upper = (lax.bitcast_convert_type(v, x.dtype) for v in (lower, upper))
  median = lower + (upper - lower) / 2
  return jnp.where(jnp.all(jnp.isfinite(x)), median, jnp.nan)


def _pairs(x, rows, block_size, axis_name, infinity):
  """Returns a map over blocks of the bits of every pair's distance, and a probe count.

  A block is flat, and filled up with `infinity`.
  """
  n = x.shape[0]
  rows = rows or n
  half = n // 2
  size = block_size
  if size is None:
    size = rows if n <= _FEW else max(1, min(rows // 8, _BLOCK_ENTRIES // half))
  checks.count(block_size=size)
  size = min(size, rows)
  blocks = -(-rows // size)
  width = -(-(size + half) // _LANES) * _LANES
  first = collectives.index(axis_name) * rows
  points, _, squared = _distances.prepare(x, x)
  cyclic = _windows.cyclic(points, n + blocks * size + width)

  def block(start):
    def window(count):
      return jax.tree.map(
        lambda a: lax.dynamic_slice_in_dim(a, first + start, count), cyclic
      )

    sq_dist = squared(window(size), window(width))
    # Of -0.0 the integer is negative.
    found = jnp.maximum(lax.bitcast_convert_type(sq_dist, infinity.dtype), 0)
    row = start + jnp.arange(size)
    counts = _windows.once(n, first + row, width) & (row < rows)[:, None]
    found = jnp.where(counts, found, infinity)
    # Counted many times: not to be computed anew for each.
    return lax.optimization_barrier(found.reshape(-1))

  starts = size * jnp.arange(blocks)
  if blocks == 1:
    one = block(0)
    return lambda function: function(one)[None], 15
  if block_size is None and blocks * size * width <= _STORED_ENTRIES:
    stored = lax.map(block, starts)
    if stored.size <= _AT_ONCE:
      stored = stored.reshape(1, -1)
    return lambda function: lax.map(function, stored), 7
  return lambda function: lax.map(lambda s: function(block(s)), starts), 31


def _lanes(pairs):
  return jnp.split(pairs, _LANES)


def _count(probes, pairs):
  """Returns how many of the pairs are up to each probe [probes]."""
  found = sum(
    (lane[None] <= probes[:, None]).astype(jnp.uint8) for lane in _lanes(pairs)
  )
  return jnp.sum(found, 1, dtype=jnp.uint32)


def _smallest_above(value, infinity, pairs):
  """Returns the smallest of the pairs above a value [], or infinity."""
  above = [jnp.where(lane > value, lane, infinity) for lane in _lanes(pairs)]
  return jnp.min(functools.reduce(jnp.minimum, above))


def _sampled(x):
  """Returns what most likely is just below and above the median [2]."""
  n = x.shape[0]
  i = jnp.arange(_SAMPLE) * n // _SAMPLE
  j = (i + 1 + jnp.arange(_SAMPLE) * 7919 % (n - 1)) % n
  sample = jnp.sort(jnp.sum((x[i] - x[j]) ** 2, 1))
  # Three standard deviations of its rank, which is binomial.
  reach = int(1.5 * _SAMPLE**0.5)
  return sample[_SAMPLE // 2 + jnp.array([-reach, reach])]
