"""Sums over pairs of particles that weigh differently."""

from jax import lax
import jax.numpy as jnp

from stein_jax import _distances
from stein_jax import _sums
from stein_jax import collectives
from stein_jax import kernels
from stein_jax.types import Array, Kernel

_HIGHEST = lax.Precision.HIGHEST  # TPU and GPU products are half precision


def direction_sums(
  x: Array,
  vectors: Array,
  weights: Array,
  kernel: Kernel,
  y: Array,
  *,
  block_size: int | None = None,
  axis_name: str | None = None,
) -> Array:
  """Returns sum_j w_j (k(x_j, y) v_j + grad_{x_j} k(x_j, y)) [m, d].

  Args:
    x: particles [n, d].
    vectors: v [n, d].
    weights: w [n].
    kernel: radial profile of a fixed bandwidth.
    y: the points [m, d] at which the sums are taken.
    block_size: how many points are summed at a time; None bounds memory.
    axis_name: the mapped axis over which particles and points are split.
  """
  x, vectors, weights = collectives.all_gather((x, vectors, weights), axis_name)
  x, y = x - _distances.center_of(x), y - _distances.center_of(x)
  own, others, squared = _distances.prepare(y, x)
  profile = _sums.with_slope(kernel)
  weighted = weights[:, None] * vectors
  moves = 2 * weights[:, None] * x

  def at_point(point_and_form):
    point, form = point_and_form
    k, slope = profile(squared(form, others))
    drive = jnp.dot(k, weighted, precision=_HIGHEST)
    drive += jnp.dot(slope, moves, precision=_HIGHEST)
    return drive - 2 * jnp.dot(slope, weights, precision=_HIGHEST) * point

  return kernels.map_rows(at_point, (y, own), len(x), block_size)
