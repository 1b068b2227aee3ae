"""What pulls particles together and what spreads them, at rest on a Gaussian.

In many dimensions particles on N(0, I) with variance v are all at squared distance
r = 2 d v of each other. To first order in their products a direction is then
x (n (1 - v) spread / v - drive) / n at a particle x, where `spread` comes from all
particles together and `drive` from the particle itself, which is not balanced by any
other. It is 0 at v = 1 / (1 + drive / (n spread)). All of this scales with the target,
so that v is a share of its variance.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp

from stein_jax import _sums
from stein_jax import kernels
from stein_jax.types import Array, Kernel, Tree


class Balance(NamedTuple):
  """The two sides of a direction, for particles of some variance.

  Attributes:
    drive: what a particle does to itself [].
    spread: what each of the others does to it, as a multiple of 1 - v [].
  """

  drive: Array | float
  spread: Array | float


def of_kernel(
  kernel: Kernel, variance: Array, num_particles: int, dim: int
) -> Balance | None:
  """Returns the balance of a radial kernel; None if its rule cannot tell.

  Args:
    kernel: profile f; a rule for its bandwidth is applied to a distance.
    variance: v [], that of the particles in each coordinate.
    num_particles: n.
    dim: d.
  """
  sq_dist = 2 * dim * jnp.asarray(variance, float)
  # Particles that all coincide have no distance, and no bandwidth is 0.
  sq_dist = jnp.maximum(sq_dist, jnp.finfo(sq_dist.dtype).tiny ** 0.5)
  kernel = kernels.at_distance(kernel, sq_dist, num_particles)
  if kernel is None:
    return None
  value, slope = _sums.with_slope(kernel)(sq_dist)
  fall = -sq_dist * slope
  return Balance(kernel(jnp.zeros_like(sq_dist)) - value - fall, fall / dim)


def of(
  direction: Callable[..., Tree],
  variance: Array,
  num_particles: int,
  dim: int,
) -> Balance | None:
  """Returns the balance of a direction; None if it does not tell."""
  if not hasattr(direction, 'balance'):
    return None
  return direction.balance(variance, num_particles, dim)


def of_sum(
  weighted: Sequence[tuple[Array | float, Callable[..., Tree]]],
  variance: Array,
  num_particles: int,
  dim: int,
) -> Balance | None:
  """Returns the balance of a sum of (weight, direction); None if one does not tell."""
  parts = [(w, of(each, variance, num_particles, dim)) for w, each in weighted]
  if any(part is None for _, part in parts):
    return None
  return Balance(
    sum(weight * part.drive for weight, part in parts),
    sum(weight * part.spread for weight, part in parts),
  )
