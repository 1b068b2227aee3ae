"""Directions that know the curvature of a log density, Newton's among them.

A curvature is a function of one particle, as a point [d], to a matrix [d, d]: a Gauss-
Newton or Fisher matrix, say, of a tree's leaves in the order of
`jax.flatten_util.ravel_pytree`. Without one the Hessian of -log p is taken, for which
the log density is asked for. Where log p is not concave eigenvalues may be negative:
their absolute values are taken.
"""

from collections.abc import Callable

from flax import struct
import jax
from jax import lax
import jax.numpy as jnp

from stein_jax import build
from stein_jax import checks
from stein_jax import collectives
from stein_jax import kernels
from stein_jax.stein import _particles
from stein_jax.stein import _weighted
from stein_jax.stein import directions
from stein_jax.stein import variances
from stein_jax.stein import whitening
from stein_jax.types import Array, Kernel, Tree

_HIGHEST = lax.Precision.HIGHEST  # TPU and GPU products are half precision
Matrix = Callable[[Array], Array]  # of a point [d] to [d, d]


@struct.dataclass
class Curvature:
  """Units in which the particles' mean curvature of -log p is the identity [WTBL19].

  Attributes:
    matrix: the curvature at a point; None for the Hessian of -log p.
    floor: share of the mean absolute eigenvalue that smaller ones are raised to.

  Examples:
    >>> x = jax.random.normal(jax.random.key(0), (20, 2))
    >>> metric = Curvature(matrix=lambda x: jnp.diag(jnp.array([1.0, 100.0])))
    >>> direction = whitening.Whitened(metric=metric)
    >>> print(direction(x, -x * jnp.array([[1.0, 100.0]])).shape)
    (20, 2)
  """

  matrix: Matrix | None = None
  floor: Array | float = 1e-6

  needs_log_density = property(lambda self: self.matrix is None)

  def __call__(
    self,
    x: Array,
    *,
    log_density: Callable[[Array], Array] | None = None,
    axis_name: str | None = None,
  ) -> whitening.Units:
    """Returns the units [d, d] of points [n, d] that the axis may split.

    Args:
      x: the points.
      log_density: log p [] of one point [d], if there is no `matrix`.
      axis_name: the mapped axis over which the points are split.
    """
    of = _at_points(self.matrix, log_density, x)
    return _units(_mean(of, axis_name), self.floor)

  def white_variance(self, variance: Array, dim: int) -> None:
    """Returns None: the units are the density's, not the particles'."""
    del variance, dim


@struct.dataclass
class NewtonSVGD:
  """Stein variational Newton's step, each particle with its own [DCMSS18].

  H_i^-1 phi_i, with the curvature H_i = mean_j k_ij^2 N_j + grad_j k_ij (grad_j k_ij)'
  at a particle and the kernel exp(-|x - y|^2 / 2) in units of the mean curvature over
  d. It is for plain steps of 1 or a little less, some tens of them. It is 0 where SVGD
  with that wide kernel is. Its cost is n^2 d^2 + n d^3.

  Attributes:
    matrix: the curvature N at a point; None for the Hessian of -log p.
    floor: share of the mean absolute eigenvalue that smaller ones are raised to.

  Examples:
    One particle on a Gaussian takes one step to the mean:

    >>> x, precision = jnp.ones((1, 2)), jnp.array([4.0, 0.5])
    >>> log_density = lambda x: -0.5 * jnp.sum(precision * (x - 3) ** 2)
    >>> score = jax.vmap(jax.grad(log_density))(x)
    >>> step = NewtonSVGD()(x, score, log_density=log_density)
    >>> print(jnp.allclose(x + step, 3))
    True
  """

  matrix: Matrix | None = None
  floor: Array | float = 1e-6

  needs_log_density = property(lambda self: self.matrix is None)

  def __call__(
    self,
    x: Tree,
    score: Tree,
    *,
    log_density: Callable[[Tree], Array] | None = None,
    axis_name: str | None = None,
  ) -> Tree:
    """Returns the step of each particle, like x.

    Args:
      x: particles, a tree with leaves [n, ...].
      score: grad_x log p at the particles, like x.
      log_density: log p [] of one position, if there is no `matrix`.
      axis_name: the mapped axis over which the particles are split.

    Raises:
      ValueError: leaves of different n, a score unlike x, or a curvature that is not
        [d, d].
    """
    of_point = _particles.of_points(log_density, x)

    def on_points(x, score, _):
      dim = x.shape[1]
      curvature = _at_points(self.matrix, of_point, x)
      units = _units(_mean(curvature, axis_name), self.floor)
      # In these units the mean curvature is the identity and the kernel has 2 d.
      curvature = _congruent(curvature, units.root)
      curvature = jax.vmap(lambda n: _positive(n, self.floor))(curvature)
      (x,) = _particles.centred(x, axis_name=axis_name)
      z, score = (
        _particles.times(units.inverse, x),
        _particles.times(units.root.T, score),
      )
      kernel = kernels.RBF(2.0 * dim)
      phi = directions.svgd_direction(z, score, kernel, axis_name=axis_name)
      zs, curvatures = collectives.all_gather((z, curvature), axis_name)

      def newton(point, phi):
        away = zs - point[None]
        weight = kernel(jnp.sum(away * away, 1)) ** 2 / len(zs)
        matrix = jnp.tensordot(weight, curvatures, 1, precision=_HIGHEST)
        # The slope of the kernel is itself times the distance, over d.
        slopes = weight[:, None] / dim**2 * away
        matrix += jnp.dot(away.T, slopes, precision=_HIGHEST)
        return jnp.linalg.solve(matrix, phi)

      step = kernels.map_rows(
        lambda row: newton(*row), (z, phi), len(zs) * dim, None
      )
      return _particles.times(units.root, step)

    return _particles.on_points(on_points, x, score)

  def balance(self, variance: Array, num_particles: int, dim: int):
    """Returns the `Balance` of particles on N(0, I); see `predicted_variance`."""
    del variance
    # Its own units make the density's variance 1, whatever it is.
    direction = directions.SVGD(kernels.RBF(2.0 * dim))
    share = variances.predicted_variance(direction, num_particles, dim)
    return direction.balance(share, num_particles, dim)


@struct.dataclass
class MixtureSVGD:
  """The direction of a mixture of kernels, each with a curvature of its own [WTBL19].

  K(x, y) = sum_l w_l(x) w_l(y) Q_l^-1 k(|x - y|_Q_l), over anchors z_l that are some of
  the particles, with the weights of N(z_l, Q_l^-1) among these at a point. Q_l is half
  the curvature there and half the mean of all anchors'. It is for densities whose
  curvature differs from place to place. Its cost is that of SVGD for each anchor.

  Attributes:
    kernel: radial profile; a rule for its bandwidth is applied in each metric.
    num_anchors: how many particles, in equal distances of their rows, are anchors.
    matrix: the curvature at a point; None for the Hessian of -log p.
    floor: share of the mean absolute eigenvalue that smaller ones are raised to.

  Examples:
    >>> x = jax.random.normal(jax.random.key(0), (20, 2))
    >>> log_density = lambda x: -jnp.sum(x**4)
    >>> score = jax.vmap(jax.grad(log_density))(x)
    >>> direction = MixtureSVGD(num_anchors=4)
    >>> print(direction(x, score, log_density=log_density).shape)
    (20, 2)
  """

  kernel: Kernel = kernels.RBF()
  num_anchors: int = struct.field(pytree_node=False, default=10)
  matrix: Matrix | None = None
  floor: Array | float = 1e-6

  needs_log_density = property(lambda self: self.matrix is None)

  __call__ = _particles.called

  def _phi(self, x, score, at, *, axis_name, log_density=None):
    checks.count(num_anchors=self.num_anchors)
    xs = lax.stop_gradient(collectives.all_gather(x, axis_name))
    rows = jnp.linspace(0, len(xs) - 1, min(self.num_anchors, len(xs)))
    anchors = xs[jnp.round(rows).astype(int)]
    of = _at_points(self.matrix, log_density, anchors)
    of = 0.5 * (of + jnp.mean(of, 0, keepdims=True))
    units = jax.vmap(lambda n: _units(n, self.floor))(of)
    log_weights = lambda point: _log_weights(point, anchors, units)
    y = x if at is None else at
    x, y, anchors = _particles.centred(x, y, anchors, axis_name=axis_name)
    # Both are of the mixture, and enter each of its kernels.
    weights, slopes = (
      jax.vmap(log_weights)(x),
      jax.vmap(jax.jacrev(log_weights))(x),
    )
    at_points = jax.vmap(log_weights)(y)

    def of_anchor(anchor):
      units, weights, slopes, at_points = anchor
      z, z_at = (
        _particles.times(units.inverse, x),
        _particles.times(units.inverse, y),
      )
      with build.section('metric'):
        kernel = kernels.resolved(self.kernel, z, axis_name)
      phi = _weighted.direction_sums(
        z,
        _particles.times(units.root.T, score + slopes),
        jnp.exp(weights),
        kernel,
        z_at,
        axis_name=axis_name,
      )
      return jnp.exp(at_points)[:, None] * _particles.times(units.root, phi)

    parts = units, weights.T, jnp.moveaxis(slopes, 1, 0), at_points.T
    total = jnp.sum(lax.map(of_anchor, parts), 0)
    return total / (len(x) * collectives.size(axis_name))


def _at_points(matrix, log_density, x):
  """Returns curvatures [n, d, d] at points [n, d], constants to a direction."""
  if matrix is None:
    matrix = lambda point: -jax.hessian(log_density)(point)
  found = jax.vmap(matrix)(lax.stop_gradient(x))
  checks.shape((*x.shape, x.shape[1]), matrix=found)
  return lax.stop_gradient(found.astype(x.dtype))


def _mean(matrices, axis_name):
  return collectives.pmean(jnp.mean(matrices, 0), axis_name)


def _spectrum(matrix, floor):
  """Returns eigenvalues [d], made positive, and eigenvectors [d, d]."""
  checks.positive(floor=floor)
  values, vectors = jnp.linalg.eigh(matrix)
  values = jnp.abs(values)
  return jnp.maximum(values, floor * jnp.mean(values)), vectors


def _positive(matrix, floor):
  """Returns a symmetric matrix with its eigenvalues made positive."""
  values, vectors = _spectrum(matrix, floor)
  return jnp.dot(vectors * values[None], vectors.T, precision=_HIGHEST)


def _congruent(matrices, root):
  """Returns root' N root of each of the matrices N [n, d, d]."""
  return jnp.einsum('ji,njk,kl->nil', root, matrices, root, precision=_HIGHEST)


def _units(curvature, floor):
  """Returns the units in which a curvature [d, d] is the identity."""
  values, vectors = _spectrum(curvature, floor)
  root = jnp.sqrt(values)[None]
  return whitening.Units(vectors / root, (vectors * root).T)


def _log_weights(point, anchors, units):
  """Returns the logarithms [l] of the anchors' shares in their Gaussians at a point."""
  away = point[None] - anchors
  white = jnp.einsum('lij,lj->li', units.inverse, away, precision=_HIGHEST)
  # The determinant of Q^-1's root is the inverse of that of Q's.
  log_det = jnp.linalg.slogdet(units.inverse)[1]
  return jax.nn.log_softmax(log_det - 0.5 * jnp.sum(white**2, 1))
