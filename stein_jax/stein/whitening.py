"""Directions in other units than the particles come in, and what the units are.

A metric is called as `metric(x, *, axis_name=None)` on points [n, d] and returns
`Units`, which are constants to a direction. Anybody's function of that kind will do. If
it has `needs_log_density` it is also given log p, as a function of one point [d].
"""

from collections.abc import Callable
from typing import NamedTuple

from flax import struct
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from stein_jax import build
from stein_jax import checks
from stein_jax import collectives
from stein_jax import dtypes
from stein_jax.stein import _balance
from stein_jax.stein import _particles
from stein_jax.stein import calling
from stein_jax.stein import directions
from stein_jax.stein import variances
from stein_jax.types import Array, Tree

_FLOOR = 1e-12  # of the mean variance, below which a coordinate has none
_HIGHEST = lax.Precision.HIGHEST  # TPU and GPU products are half precision


class Units(NamedTuple):
  """A linear map from white coordinates z to points, x = root z.

  Attributes:
    root: the map [d, d], or the diagonal of one [d].
    inverse: its inverse, of the same shape.
  """

  root: Array
  inverse: Array


def units_of(covariance: Array) -> Units:
  """Returns the units in which a covariance [d, d], or variances [d], are the identity.

  The root of a matrix is its Cholesky factor, nan where it is not positive definite.

  Examples:
    >>> print(units_of(jnp.array([4.0, 9.0])).root)
    [2. 3.]
  """
  covariance = dtypes.at_least_float32(covariance)
  if covariance.ndim == 1:
    root = jnp.sqrt(covariance)
    return Units(root, 1 / root)
  root = jnp.linalg.cholesky(covariance)
  one = jnp.eye(len(root), dtype=root.dtype)
  return Units(root, jax.scipy.linalg.solve_triangular(root, one, lower=True))


@struct.dataclass
class Variances:
  """The particles' own variance in each coordinate, which sets its scale."""

  def __call__(self, x: Array, *, axis_name: str | None = None) -> Units:
    """Returns the units [d] of points [n, d] that the axis may split."""
    (x,) = _particles.centred(lax.stop_gradient(x), axis_name=axis_name)
    variance = collectives.pmean(jnp.mean(x * x, 0), axis_name)
    return units_of(_raised(variance))

  def white_variance(self, variance: Array, dim: int) -> float:
    """Returns the variance of the particles in these units."""
    del variance, dim
    return 1.0


@struct.dataclass
class Covariance:
  """The particles' own covariance, a matrix [d, d].

  Attributes:
    ridge: share of each variance that is added to it, which makes the matrix positive
      definite where there are few particles.
  """

  ridge: Array | float = 1e-3

  def __call__(self, x: Array, *, axis_name: str | None = None) -> Units:
    """Returns the units [d, d] of points [n, d] that the axis may split."""
    checks.positive(ridge=self.ridge)
    (x,) = _particles.centred(lax.stop_gradient(x), axis_name=axis_name)
    covariance = jnp.dot(x.T, x, precision=_HIGHEST) / len(x)
    covariance = collectives.pmean(covariance, axis_name)
    ridge = self.ridge * _raised(jnp.diag(covariance))
    return units_of(covariance + jnp.diag(ridge))

  def white_variance(self, variance: Array, dim: int) -> float:
    """Returns the variance of the particles in these units."""
    del variance, dim
    return 1.0


@struct.dataclass
class Given:
  """A covariance that is known, as of a Laplace approximation.

  Attributes:
    covariance: the matrix [d, d], or variances [d]. The inverse of a Hessian is one.
  """

  covariance: Array

  def __call__(self, x: Array, *, axis_name: str | None = None) -> Units:
    """Returns the units, whatever the points [n, d] are.

    Raises:
      ValueError: the covariance is not of d dimensions.
    """
    del axis_name
    dim = x.shape[1]
    if np.shape(self.covariance) not in ((dim,), (dim, dim)):
      raise ValueError(
        f'covariance has shape {np.shape(self.covariance)}; wanted: ({dim},) or '
        f'({dim}, {dim}), as the particles have {dim} numbers.'
      )
    return units_of(lax.stop_gradient(self.covariance))

  def white_variance(self, variance: Array, dim: int) -> Array:
    """Returns the mean variance in these units of particles alike in all directions."""
    inverse = units_of(self.covariance).inverse
    return variance * jnp.sum(inverse**2) / dim


@struct.dataclass
class Whitened:
  """A direction that is taken in white coordinates z, in which a covariance C is I.

  With C = L L' points are x = L z, and scores there are L' s. A direction phi_z with a
  kernel k there gives L phi_z, which is the direction of the matrix-valued kernel
  C k(|L^-1 (x - y)|^2), a constant preconditioner [WTBL19]. It does not change with the
  units that x is in, so that ill-conditioned densities cost no more steps than round
  ones.

  Attributes:
    direction: one of points, such as `SVGD`.
    metric: what C is: `Covariance`, `Variances`, `Given`, `Curvature` or a function
      like these.
    precondition: whether the steps are preconditioned; False gives L'^-1 phi_z, the
      direction of the scalar kernel k, which is 0 where the other is. With `Variances`
      that is one bandwidth a coordinate.
    clip: length to which each row of phi_z is shortened, in units of sqrt(d); 0 for no
      limit. Polynomial kernels need one far from the density.

  Examples:
    A linear kernel for the moments, and another one for the shape:

    >>> from stein_jax import kernels, stein
    >>> kernel = kernels.RBF(kernels.Median(log='none'))
    >>> both = stein.Sum((stein.SVGD(kernel), stein.PolynomialSVGD()))
    >>> x = jax.random.normal(jax.random.key(0), (20, 3))
    >>> print(jax.jit(Whitened(both))(x, -x).shape)
    (20, 3)
  """

  direction: Callable[..., Tree] = directions.SVGD()
  metric: Callable[..., Units] = Covariance()
  precondition: bool = struct.field(pytree_node=False, default=True)
  clip: Array | float = 1.0

  needs_log_density = property(
    lambda self: calling.needs('log_density', self.metric)
  )
  needs_rng = property(lambda self: calling.needs('rng', self.direction))
  needs_step = property(lambda self: calling.needs('step', self.direction))

  __call__ = _particles.called

  def _phi(self, x, score, at, *, axis_name, log_density=None, **available):
    checks.flag(precondition=self.precondition)
    checks.non_negative(clip=self.clip)
    checks.function('a metric, such as stein.Covariance()', metric=self.metric)
    given = {}
    if self.needs_log_density:
      given['log_density'] = log_density
    with build.section('metric'):
      units = self.metric(x, axis_name=axis_name, **given)
    x, at = _particles.centred(x, at, axis_name=axis_name)
    with build.section('direction'):
      phi = calling.call(
        self.direction,
        _particles.times(units.inverse, x),
        _particles.times(units.root.T, score),
        at=None if at is None else _particles.times(units.inverse, at),
        axis_name=axis_name,
        **available,
      )
    phi = _clipped(phi, self.clip)
    if self.precondition:
      return _particles.times(units.root, phi)
    return _particles.times(units.inverse.T, phi)

  def balance(self, variance: Array, num_particles: int, dim: int):
    """Returns the `Balance` of particles on N(0, I); see `predicted_variance`."""
    if not hasattr(self.metric, 'white_variance'):
      return None
    white = self.metric.white_variance(variance, dim)
    if white is None:  # a Gaussian's is 1 there
      white = variances.predicted_variance(self.direction, num_particles, dim)
    return _balance.of(self.direction, white, num_particles, dim)


def _clipped(rows, clip):
  """Returns rows [n, d] no longer than clip * sqrt(d); 0 is no limit."""
  limit = jnp.asarray(clip**2 * rows.shape[1], rows.dtype)
  limit = jnp.where(limit > 0, limit, jnp.finfo(rows.dtype).max)
  square = jnp.sum(rows * rows, 1, keepdims=True)
  return rows * jnp.sqrt(limit / jnp.maximum(square, limit))


def _raised(variance):
  """Returns variances [d] above zero, for coordinates in which nothing differs."""
  tiny = jnp.finfo(variance.dtype).tiny ** 0.5
  return jnp.maximum(variance, _FLOOR * jnp.mean(variance) + tiny)
