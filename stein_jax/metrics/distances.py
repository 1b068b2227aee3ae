"""How far rows are from each other and from the training data, in their units."""

import jax
import jax.numpy as jnp
import numpy as np

from stein_jax import _distances
from stein_jax import kernels
from stein_jax.metrics import _rows
from stein_jax.types import Array


def pairwise_distance(x: Array, *, block_size: int | None = None) -> float:
  """Returns the mean Euclidean distance over the pairs i < j of x [n, ...].

  In more than 4 dimensions a pair of copies may read 1e-3 of their distance from the
  middle of their group instead of 0; see `kernels.squared_distance`.

  Args:
    x: at least 2 rows, of any shape.
    block_size: rows of the distance matrix held at a time; None keeps memory
      bounded.
  """
  x = _rows.flat(x, 2)
  sums = np.asarray(_distance_sums(x, block_size), np.float64)
  return float(np.sum(sums) / (len(x) * (len(x) - 1)))


def nearest_neighbour_distance(
  x: Array, *, block_size: int | None = None
) -> float:
  """Returns the mean over rows of x [n, ...] of the distance to the nearest other.

  Arguments and accuracy as in `pairwise_distance` and `nearest_training`.
  """
  x = _rows.flat(x, 2)
  lengths, _ = _nearest(x, x, jnp.arange(len(x)), block_size)
  return float(np.mean(np.asarray(lengths, np.float64)))


def nearest_training(
  x: Array, train: Array, *, block_size: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """Returns each sample's distance to the nearest training row, and that row.

  Distances [n] of memorised samples are 0; indices [n] are into `train`. The distance
  is exact for the row found. That row is the nearest but for rounding: another may be
  taken for it that is further by less than 1e-3 of the distance from the middle of its
  group. A row of `train` that is nan makes all distances nan; a sample that is nan
  makes its own nan.

  Args:
    x: samples [n, ...].
    train: training data [m, ...], of the same shape but for m.
    block_size: rows of the distance matrix held at a time; None keeps memory
      bounded.
  """
  if np.shape(x)[1:] != np.shape(train)[1:]:
    raise ValueError(
      f'Samples {np.shape(x)} and training data {np.shape(train)} differ in '
      'more than their number.'
    )
  x, train = _rows.flat(x, 1), _rows.flat(train, 1)
  # No row of `train` is the sample itself; an index past the end leaves all in.
  own = jnp.full(len(x), len(train))
  lengths, indices = _nearest(x, train, own, block_size)
  return np.asarray(lengths), np.asarray(indices)


def diversity(samples, data, training=None) -> dict[str, float]:
  """Returns distances among samples [n, ...] and data [m, ...], in their units.

  They are the mean pairwise and nearest-neighbour distances of both and, with training
  images, the mean distance of a sample, and of a datum, to the nearest of them. Samples
  that are copies are nearer to them than data are.
  """
  found = {
    'samples/pairwise_distance': pairwise_distance(samples),
    'data/pairwise_distance': pairwise_distance(data),
    'samples/nearest_distance': nearest_neighbour_distance(samples),
    'data/nearest_distance': nearest_neighbour_distance(data),
  }
  if training is not None:
    for name, rows in (('samples', samples), ('data', data)):
      distance, _ = nearest_training(rows, training)
      found[f'{name}/nearest_training'] = float(np.mean(distance))
  return found


@jax.jit(static_argnames='block_size')
def _distance_sums(x, block_size):
  """Returns the sum of distances from each row of x [n, d] to the others [n]."""
  points, others, squared = _distances.prepare(x, x)

  def row_sum(row):
    point, i = row
    return jnp.sum(jnp.sqrt(squared(point, others).at[i].set(0)))

  rows = (points, jnp.arange(len(x)))
  return kernels.map_rows(row_sum, rows, len(x), block_size)


@jax.jit(static_argnames='block_size')
def _nearest(x, others, own, block_size):
  """Returns distance [n] and index [n] of the nearest of `others`, but for own [n]."""
  placed, placed_others, squared = _distances.prepare(x, others)

  def nearest(row):
    point, placed, i = row
    sq_dist = squared(placed, placed_others)
    # Where a set repeats a row, its copy is at 0 all the same.
    sq_dist = sq_dist.at[i].set(jnp.inf, mode='drop')
    index = jnp.argmin(sq_dist)
    # The expansion of the square loses small distances; subtraction does not.
    distance = jnp.linalg.norm(point - others[index])
    # Where a row may be anywhere, nobody knows the nearest.
    return jnp.where(jnp.isnan(sq_dist).any(), jnp.nan, distance), index

  return kernels.map_rows(nearest, (x, placed, own), len(others), block_size)
