"""SVGD whose kernel is partly undone, towards the Wasserstein gradient flow."""

from flax import struct
import jax
from jax import lax
import jax.numpy as jnp

from stein_jax import checks
from stein_jax import collectives
from stein_jax import kernels
from stein_jax.stein import _balance
from stein_jax.stein import _particles
from stein_jax.stein import directions
from stein_jax.types import Array, Kernel

_HIGHEST = lax.Precision.HIGHEST  # TPU and GPU products are half precision


@struct.dataclass
class RegularizedSVGD:
  """The direction ((1 - nu) K / n + nu I)^-1 phi, phi being that of SVGD [HBSL22].

  It is SVGD at nu = 1. Towards 0 it becomes the score less the kernel's estimate of the
  particles' own score, which is the Wasserstein flow. It is 0 where phi is, so that it
  mends no spread; it moves faster in what the kernel smooths away.

  Attributes:
    kernel: radial profile; a rule for its bandwidth is applied to the particles.
    nu: a number above 0 and at most 1. It counts against the eigenvalues of K / n: with
      a narrow kernel these are about 1 / n. At least 1e-5 in float32.

  Examples:
    >>> x = jax.random.normal(jax.random.key(0), (20, 3))
    >>> print(jax.jit(RegularizedSVGD(nu=0.05))(x, -x).shape)
    (20, 3)
  """

  kernel: Kernel = kernels.RBF()
  nu: Array | float = 0.1

  __call__ = _particles.called

  def _phi(self, x, score, at, *, axis_name):
    checks.positive(nu=self.nu)
    checks.at_most(1, nu=self.nu)
    kernel = kernels.resolved(self.kernel, x, axis_name)
    phi = directions.svgd_direction(x, score, kernel, axis_name=axis_name)
    xs, phis = collectives.all_gather((x, phi), axis_name)
    smooth = (1 - self.nu) / len(xs)
    matrix = smooth * kernel(kernels.squared_distance(xs, xs))
    matrix += self.nu * jnp.eye(len(xs), dtype=x.dtype)
    solved = jax.scipy.linalg.solve(matrix, phis, assume_a='pos')
    if at is None:
      return _particles.own_rows(solved, x, axis_name)
    # Off the particles the operator's equation gives it from its values on them.
    phi = directions.svgd_direction(
      x, score, kernel, at=at, axis_name=axis_name
    )
    across = smooth * kernel(kernels.squared_distance(at, xs))
    return (phi - jnp.dot(across, solved, precision=_HIGHEST)) / self.nu

  def balance(self, variance: Array, num_particles: int, dim: int):
    """Returns the `Balance` of particles on N(0, I); see `predicted_variance`."""
    return _balance.of_kernel(self.kernel, variance, num_particles, dim)
