"""Directions with polynomial kernels, which fit moments."""

from flax import struct
from jax import lax
import jax.numpy as jnp

from stein_jax import checks
from stein_jax import collectives
from stein_jax import kernels
from stein_jax.stein import _balance
from stein_jax.stein import _particles
from stein_jax.types import Array

_HIGHEST = lax.Precision.HIGHEST  # TPU and GPU products are half precision


@struct.dataclass
class PolynomialSVGD:
  """The direction of SVGD with the kernel (1 + x.y / bandwidth)^degree [LW18].

  Points are taken from the mean of the particles, which is held constant. Degree 1, the
  linear kernel, is 0 where the mean score is 0 and mean s_i x_i' = -I. On a Gaussian
  more particles than dimensions then have its mean and covariance, whatever they were
  before. They stay an affine image of their start, so that their shape is the start's:
  use it beside another kernel in a `Sum`, after `Whitened`.

  Such kernels grow without bound: begin near the density, or bound the steps.

  Attributes:
    degree: a count. Degree 1 takes n d^2 operations and no kernel matrix.
    bandwidth: a positive number []; for degrees above 1 the number of dimensions keeps
      the kernel of order 1.
    block_size: rows of the kernel matrix held at a time; 0 keeps memory bounded.

  Examples:
    >>> x = jnp.array([[-1.0], [3.0]])  # of N(0, 1), whose score is -x
    >>> print(PolynomialSVGD()(x, -x))  # the mean is 1, the variance 4
    [[ 5.]
     [-7.]]
  """

  degree: int = struct.field(pytree_node=False, default=1)
  bandwidth: Array | float = 1.0
  block_size: int = struct.field(pytree_node=False, default=0)

  __call__ = _particles.called

  def _phi(self, x, score, at, *, axis_name):
    checks.count(degree=self.degree)
    checks.count(minimum=0, block_size=self.block_size)
    checks.positive(bandwidth=self.bandwidth)
    y = x if at is None else at
    x, y = _particles.centred(x, y, axis_name=axis_name)
    few = x.shape[1] <= len(x) * collectives.size(axis_name)
    direction = self._by_moments if self.degree == 1 and few else self._by_pairs
    return direction(x, score, y, axis_name)

  def _by_moments(self, x, score, y, axis_name):
    """Returns phi of the linear kernel, from the mean of s and of s x'."""
    moment = jnp.dot(score.T, x, precision=_HIGHEST) / len(x)
    mean, moment = collectives.pmean((jnp.mean(score, 0), moment), axis_name)
    moved = jnp.dot(y, moment.T, precision=_HIGHEST) + y
    return mean[None] + moved / self.bandwidth

  def _by_pairs(self, x, score, y, axis_name):
    """Returns phi as sums over the particles, for a block of rows at a time."""
    xs, scores = collectives.all_gather((x, score), axis_name)

    def on_row(point):
      base = 1 + jnp.dot(xs, point, precision=_HIGHEST) / self.bandwidth
      slope = self.degree / self.bandwidth * jnp.sum(base ** (self.degree - 1))
      drive = jnp.dot(base**self.degree, scores, precision=_HIGHEST)
      return (drive + slope * point) / len(xs)

    return kernels.map_rows(on_row, y, len(xs), self.block_size or None)

  def balance(self, variance: Array, num_particles: int, dim: int):
    """Returns the `Balance` of particles on N(0, I); see `predicted_variance`."""
    del num_particles, dim
    # A linear kernel leaves nothing to the particle itself.
    return (
      _balance.Balance(0.0, variance / self.bandwidth)
      if self.degree == 1
      else None
    )
