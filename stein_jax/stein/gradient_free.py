"""SVGD on densities whose scores are not known."""

from collections.abc import Callable

from flax import struct
import jax
from jax import lax
import jax.numpy as jnp

from stein_jax import build
from stein_jax import checks
from stein_jax import collectives
from stein_jax import dtypes
from stein_jax import kernels
from stein_jax.stein import _particles
from stein_jax.stein import _weighted
from stein_jax.stein import whitening
from stein_jax.types import Array, Kernel, Tree


@struct.dataclass
class FittedGaussian:
  """A Gaussian with the particles' mean and covariance, up to a factor.

  Attributes:
    scale: factor on the covariance. A surrogate should be narrower than the density,
      or the few particles in its tails weigh more than all others.
    ridge: share of each variance that is added to it.
  """

  scale: Array | float = 1.0
  ridge: Array | float = 1e-3

  def __call__(
    self, x: Array, *, axis_name: str | None = None
  ) -> Callable[[Array], Array]:
    """Returns the log density of points [m, d], up to a constant, fitted to x [n, d].

    Its parameters have no gradient.
    """
    checks.positive(scale=self.scale)
    x = lax.stop_gradient(x)
    units = whitening.Covariance(self.ridge)(x, axis_name=axis_name)

    def log_density(points):
      _, points = _particles.centred(x, points, axis_name=axis_name)
      white = jnp.dot(points, units.inverse.T, precision=lax.Precision.HIGHEST)
      return -0.5 / self.scale * jnp.sum(white**2, 1)

    return log_density


@struct.dataclass
class GradientFreeSVGD:
  """The direction of SVGD by a surrogate's score in place of the density's [HL18].

  With the surrogate rho and its score s, phi(y) is the mean of k(x_j, y) s(x_j) +
  grad_{x_j} k(x_j, y) under weights rho(x_j) / p(x_j). It takes values of log p alone,
  one a particle, and is SVGD itself where rho is p. A surrogate far from the density
  leaves few particles with weight.

  Attributes:
    kernel: radial profile; a rule for its bandwidth is applied to the particles.
    surrogate: a function of points [n, d], which are split over `axis_name`, to a log
      density of points [m, d], as `FittedGaussian` is.
    block_size: rows of the kernel matrix held at a time; 0 keeps memory bounded.

  Examples:
    >>> x = jax.random.normal(jax.random.key(0), (20, 3))
    >>> log_density = lambda position: -0.5 * jnp.sum(jnp.abs(jnp.round(position, 1)))
    >>> direction = GradientFreeSVGD(surrogate=FittedGaussian(scale=0.5))
    >>> print(direction(x, None, log_density=log_density).shape)
    (20, 3)
  """

  kernel: Kernel = kernels.RBF()
  surrogate: Callable[..., Callable[[Array], Array]] = FittedGaussian()
  block_size: int = struct.field(pytree_node=False, default=0)

  needs_log_density = True
  needs_score = False

  def __call__(
    self,
    x: Tree,
    score: Tree | None = None,
    *,
    log_density: Callable[[Tree], Array],
    at: Tree | None = None,
    axis_name: str | None = None,
  ) -> Tree:
    """Returns phi at the particles, like x, or like `at` if that is given.

    Args:
      x: particles, a tree with leaves [n, ...].
      score: not used.
      log_density: log p [] of one position, up to a constant.
      at: other points, a tree like x with leaves [m, ...].
      axis_name: the mapped axis over which the particles, and `at`, are split.

    Raises:
      ValueError: leaves of different n, an option out of range, or a log density that
        is not [].
    """
    del score
    checks.count(minimum=0, block_size=self.block_size)
    value = jax.vmap(log_density)(jax.tree.map(dtypes.at_least_float32, x))
    checks.per_example(jax.tree.leaves(x)[0].shape[0], log_density=value)

    def on_points(x, _, at):
      kernel = kernels.resolved(self.kernel, x, axis_name)
      with build.section('surrogate'):
        surrogate = self.surrogate(x, axis_name=axis_name)
      log_weight, pull = jax.vjp(surrogate, x)
      score = pull(jnp.ones_like(log_weight))[0]
      log_weight -= value
      # A common factor is lost in the mean, and the largest would overflow.
      largest = collectives.pmax(
        jnp.max(lax.stop_gradient(log_weight)), axis_name
      )
      weight = jnp.exp(log_weight - largest)
      phi = _weighted.direction_sums(
        x,
        score,
        weight,
        kernel,
        x if at is None else at,
        block_size=self.block_size or None,
        axis_name=axis_name,
      )
      return phi / collectives.psum(jnp.sum(weight), axis_name)

    return _particles.on_points(on_points, x, x, at)
