"""SVGD with noise, which samples a density."""

from flax import struct
import jax
from jax import lax
import jax.numpy as jnp

from stein_jax import checks
from stein_jax import collectives
from stein_jax import kernels
from stein_jax.stein import _particles
from stein_jax.stein import directions
from stein_jax.types import Array, Kernel, PRNGKey, Tree

_HIGHEST = lax.Precision.HIGHEST  # TPU and GPU products are half precision


@struct.dataclass
class NoisySVGD:
  """The direction of SVGD with noise that makes it a sampler [GI18].

  With plain steps x + step_size phi particles are a Markov chain whose law is n
  independent draws, up to an error of order `step_size` / n: the drift is that of SVGD,
  and noise has the covariance 2 step_size K / n across particles. So the spread does
  not collapse in any number of dimensions, and scatters as that of draws does.

  Only `optax.sgd(step_size)` keeps the law. Take n times a stable step of Langevin
  dynamics for `step_size`, that is n / 10 or less over the largest curvature of log p.

  Attributes:
    kernel: radial profile of a fixed bandwidth. A rule would follow the particles and
      spoil the law: apply it once to particles near the density.
    step_size: that of the optimizer.
    langevin: weight of each particle's own Langevin dynamics, in units of k(x, x) / n.
      Above 0 the covariance is positive definite; 1 and more help to mix.

  Examples:
    >>> x = jax.random.normal(jax.random.key(0), (20, 3))
    >>> direction = NoisySVGD(kernels.RBF().at(x), step_size=0.5)
    >>> print(direction(x, -x, rng=jax.random.key(1)).shape)
    (20, 3)
  """

  kernel: Kernel = kernels.RBF(bandwidth=1.0)
  step_size: Array | float = 0.1
  langevin: Array | float = 0.01

  needs_rng = True

  def __call__(
    self,
    x: Tree,
    score: Tree,
    *,
    rng: PRNGKey,
    axis_name: str | None = None,
  ) -> Tree:
    """Returns phi at the particles, like x.

    Args:
      x: particles, a tree with leaves [n, ...].
      score: grad_x log p at the particles, like x.
      rng: key of the noise, the same on every device.
      axis_name: the mapped axis over which the particles are split. Each device holds
        the matrix of all pairs.

    Raises:
      ValueError: leaves of different n, a score unlike x, a bandwidth that is a rule,
        or an option out of range.
    """
    checks.key(rng=rng)
    checks.positive(step_size=self.step_size, langevin=self.langevin)
    if not kernels.is_fixed(self.kernel):
      raise ValueError(
        f'kernel={self.kernel} has a rule for its bandwidth, which must be fixed: '
        'call its `at(x)` first.'
      )

    def on_points(x, score, _):
      xs = collectives.all_gather(x, axis_name)
      n, zero = len(xs), jnp.zeros((), x.dtype)
      drift = directions.svgd_direction(
        x, score, self.kernel, axis_name=axis_name
      )
      alone = self.langevin * self.kernel(zero) / n
      pairs = self.kernel(kernels.squared_distance(xs, xs)) / n
      root = jnp.linalg.cholesky(pairs + alone * jnp.eye(n, dtype=x.dtype))
      normal = jax.random.normal(rng, xs.shape, x.dtype)
      own_root = _particles.own_rows(root, x, axis_name)
      noise = jnp.dot(own_root, normal, precision=_HIGHEST)
      return drift + alone * score + jnp.sqrt(2 / self.step_size) * noise

    return _particles.on_points(on_points, x, score)
