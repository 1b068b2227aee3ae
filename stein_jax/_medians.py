"""The exact median of all squared distances, by counting instead of sorting.

The bits of floats that are not negative, read as integers, are ordered as the floats
are. So a bracket of integers is narrowed until it holds the median alone: one pass over
all pairs counts how many are up to each of a few probes. A sort of n^2 keys takes a
hundred times as long on XLA's CPU back end.
"""

import functools

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from stein_jax import _distances
from stein_jax import _windows
from stein_jax import checks
from stein_jax import collectives
from stein_jax import dtypes
from stein_jax.types import Array

_FEW_POINTS = 16  # up to which a loop costs more than comparing all pairs
_ONE_BLOCK = 64  # points, up to which all pairs are one block
_BLOCK_ENTRIES = 2**18  # pairs looked at together: what a core's cache holds
# Up to so many stored pairs are counted at once: a loop over their blocks would cost
# more than the misses of the cache.
_UNLOOPED_ENTRIES = 2**21
_STORED_ENTRIES = 2**26  # up to here pairs are kept from pass to pass: 256 MB
_SAMPLE = 256  # pairs, for a first bracket
# XLA's CPU back end vectorises elementwise sums but no reductions. So pairs are split
# into so many slices, which are added up.
_LANES = 16
# Counts of pairs are two unsigned numbers to this base, for n up to 10^6.
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

  As with `numpy.median`, the median of an even count is the mean of the middle two, and
  a point that is not finite makes it nan.

  Args:
    x: all points [n, d], n at least 2 without the diagonal.
    diagonal: whether the n zeros of the pairs (i, i) take part.
    block_size: rows of pairs held at a time; None keeps memory bounded, and keeps pairs
      from pass to pass where these are not many.
    rows: how many of the points this device pairs with all; None for all of them.
    axis_name: the mapped axis over which the rows are split.
  """
  x = lax.stop_gradient(dtypes.at_least_float32(x))
  n = x.shape[0]
  is_split = collectives.is_split(axis_name)
  if n <= _FEW_POINTS and block_size is None and not is_split:
    return _median_of_few(x, diagonal)
  bits = jnp.int64 if x.dtype == jnp.float64 else jnp.int32
  infinity = lax.bitcast_convert_type(jnp.array(jnp.inf, x.dtype), bits)
  over_pairs, num_probes = _pairs(x, rows, block_size, axis_name, infinity)
  rank, next_rank = _middle_ranks(n, diagonal)
  steps = jnp.arange(num_probes, dtype=bits)

  def divided(low, high):
    step = (high - low) // (num_probes + 1) + 1
    return low, high, jnp.minimum(low + (steps + 1) * step - 1, high)

  def narrowed(bracket):
    low, high, probes = bracket
    counts = over_pairs(functools.partial(_count, probes))
    enough = _reaches(counts, axis_name, rank)
    low = jnp.maximum(low, jnp.max(jnp.where(enough, low, probes + 1)))
    high = jnp.minimum(high, jnp.min(jnp.where(enough, probes, high)))
    return divided(low, high)

  bracket = divided(jnp.zeros((), bits), infinity)
  if n > _ONE_BLOCK:
    low, high = lax.bitcast_convert_type(_sampled(x), bits)
    low, high = collectives.pmax((low, high), axis_name)
    probes = low + steps * ((high - low) // num_probes + 1)
    bracket = *bracket[:2], probes
  if not is_split:
    # Under shard_map points without an axis name may still be a shard's own. Their
    # counts then differ from shard to shard, and so does what the loop carries.
    bracket = collectives.match_varying(*bracket, x[0, 0])[:3]
  lower = upper = lax.while_loop(lambda b: b[0] < b[1], narrowed, bracket)[0]
  if next_rank > rank:
    # The next value is the same one if it repeats, else the smallest above it.
    counts, above = over_pairs(
      lambda pairs: (
        _count(lower[None], pairs),
        _smallest_above(lower, infinity, pairs),
      )
    )
    above = collectives.pmin(jnp.min(above), axis_name)
    repeats = _reaches(counts, axis_name, next_rank)[0]
    upper = jnp.where(repeats, lower, above)
  lower, upper = (lax.bitcast_convert_type(v, x.dtype) for v in (lower, upper))
  return _between(lower, upper, x)


def _median_of_few(x, diagonal):
  """Returns what `median_squared_distance` does, where every pair is a probe."""
  first, second = np.triu_indices(len(x), 1)
  pairs = jnp.sum((x[first] - x[second]) ** 2, 1)
  counts = jnp.sum(pairs[:, None] <= pairs[None], 0)
  reached = lambda rank: jnp.min(
    jnp.where(counts >= rank, pairs, jnp.inf), initial=jnp.inf
  )
  # The zeros of the diagonal come before all pairs.
  lower, upper = (
    reached(rank) if rank else jnp.zeros((), x.dtype)
    for rank in _middle_ranks(len(x), diagonal)
  )
  return _between(lower, upper, x)


def _between(lower, upper, x):
  """Returns the mean of the middle two, nan where a point is not finite."""
  median = lower + (upper - lower) / 2
  return jnp.where(jnp.all(jnp.isfinite(x)), median, jnp.nan)


def _middle_ranks(n, diagonal):
  """Returns the ranks of the middle two of all entries, among pairs seen once.

  The entries are every pair twice and, with the `diagonal`, its n zeros before them.
  """
  zeros = n if diagonal else 0
  total = n * (n - 1) + zeros
  middle = (total + 1) // 2, total // 2 + 1
  return [max(0, -(-(rank - zeros) // 2)) for rank in middle]


def _reaches(counts, axis_name, rank):
  """Returns whether counts [blocks, probes] add up to at least `rank` [probes]."""
  # Counts of n^2 pass 32 bits.
  low = collectives.psum(jnp.sum(counts % _LIMB, 0), axis_name)
  high = collectives.psum(jnp.sum(counts // _LIMB, 0), axis_name)
  high += low // _LIMB
  rank_high, rank_low = divmod(rank, _LIMB)
  ties = (high == rank_high) & (low % _LIMB >= rank_low)
  return (high > rank_high) | ties


def _pairs(x, rows, block_size, axis_name, infinity):
  """Returns a map over blocks of pairs' squared distances, and how many probes to take.

  A block is flat, holds the bits as integers, and is filled up with `infinity`.
  """
  n = x.shape[0]
  rows = rows or n
  size = _block_size(n, rows, block_size)
  blocks = -(-rows // size)
  width = -(-(size + n // 2) // _LANES) * _LANES
  first = collectives.index(axis_name) * rows
  points, _, squared = _distances.prepare(x, x)
  repeated = _windows.repeat_rows(points, n + blocks * size + width)

  def block(start):
    def window(count):
      return jax.tree.map(
        lambda a: lax.dynamic_slice_in_dim(a, first + start, count), repeated
      )

    sq_dist = squared(window(size), window(width))
    # The integer of -0.0 is negative.
    found = jnp.maximum(lax.bitcast_convert_type(sq_dist, infinity.dtype), 0)
    row = start + jnp.arange(size)
    counts = _windows.pair_mask(n, first + row, width) & (row < rows)[:, None]
    found = jnp.where(counts, found, infinity)
    # Each pair is counted once a probe, and should not be computed anew for each.
    return lax.optimization_barrier(found.reshape(-1))

  # Where each pass computes the distances anew, more probes save more passes.
  starts = size * jnp.arange(blocks)
  if blocks == 1:
    one = block(0)
    return lambda function: jax.tree.map(lambda a: a[None], function(one)), 15
  if block_size is None and blocks * size * width <= _STORED_ENTRIES:
    stored = lax.map(block, starts)
    if stored.size <= _UNLOOPED_ENTRIES:
      stored = stored.reshape(1, -1)
    return lambda function: lax.map(function, stored), 7
  return lambda function: lax.map(lambda s: function(block(s)), starts), 31


def _block_size(n, rows, block_size):
  """Returns how many rows of pairs are looked at together."""
  if block_size is None:
    block_size = rows
    if n > _ONE_BLOCK:
      block_size = max(1, min(rows // 8, _BLOCK_ENTRIES // (n // 2)))
  checks.count(block_size=block_size)
  return min(block_size, rows)


def _lanes(pairs):
  """Returns a block's pairs in slices of equal length."""
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
  """Returns two squared distances [2] that the median most likely is between."""
  n = x.shape[0]
  i = jnp.arange(_SAMPLE) * n // _SAMPLE
  j = (i + 1 + jnp.arange(_SAMPLE) * 7919 % (n - 1)) % n
  sample = jnp.sort(jnp.sum((x[i] - x[j]) ** 2, 1))
  # The rank of the median in the sample is binomial: three standard deviations of it.
  reach = int(1.5 * _SAMPLE**0.5)
  return sample[_SAMPLE // 2 + jnp.array([-reach, reach])]
