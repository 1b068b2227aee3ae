"""SVGD of very many particles, by random features."""

from flax import struct
from jax import lax
import jax.numpy as jnp

from stein_jax import collectives
from stein_jax import kernels
from stein_jax.stein import _balance
from stein_jax.stein import _particles
from stein_jax.stein import _spectrum
from stein_jax.types import Array, Kernel

_HIGHEST = lax.Precision.HIGHEST  # TPU and GPU products are half precision


@struct.dataclass
class RandomFeatureSVGD:
  """An unbiased estimate of SVGD's direction at a cost linear in n [RR07].

  The kernel is the mean of cos(w.(x - y)) over frequencies w, `num_features` of which
  are drawn anew at each call: n m d operations for m of them, and no kernel matrix. The
  error falls as 1 / sqrt(m). It must be below the kernel at the median distance, which
  for the usual rule is 1 / n: take a wide kernel, and let the optimizer's rate fall.

  Attributes:
    kernel: `kernels.RBF`, `IMQ`, `RationalQuadratic`, or one that has `rates` as these;
      a rule for its bandwidth is applied to the particles.
    num_features: m.

  Examples:
    >>> x = jax.random.normal(jax.random.key(0), (1000, 3))
    >>> direction = RandomFeatureSVGD(num_features=100)
    >>> print(jax.jit(direction)(x, -x, rng=jax.random.key(1)).shape)
    (1000, 3)
  """

  kernel: Kernel = kernels.RBF(bandwidth=kernels.Median(log='none'))
  num_features: int = struct.field(pytree_node=False, default=1000)

  needs_rng = True

  __call__ = _particles.called

  def _phi(self, x, score, at, *, axis_name, rng):
    kernel = kernels.resolved(self.kernel, x, axis_name)
    frequencies = _spectrum.frequencies(rng, self.num_features, kernel, x)
    y = x if at is None else at
    x, y = _particles.centred(x, y, axis_name=axis_name)
    total = _sum_over_features(x, score, y, frequencies, axis_name)
    count = len(x) * collectives.size(axis_name)
    return total / (count * self.num_features)

  def balance(self, variance: Array, num_particles: int, dim: int):
    """Returns the `Balance` of particles on N(0, I); see `predicted_variance`."""
    return _balance.of_kernel(self.kernel, variance, num_particles, dim)


def _sum_over_features(x, score, y, frequencies, axis_name):
  """Returns sum_jw cos(w.(x_j - y)) s_j - sin(w.(x_j - y)) w [m, d], by blocks of w."""
  dot = lambda a, b: jnp.dot(a, b, precision=_HIGHEST)

  def add(total, block):
    w, counts = block
    angle = dot(x, w.T)
    even, odd = jnp.cos(angle), jnp.sin(angle)
    # The sum over the particles is made of sums of one factor of each product.
    sums = (
      dot(even.T, score) - jnp.sum(odd, 0)[:, None] * w,
      dot(odd.T, score) + jnp.sum(even, 0)[:, None] * w,
    )
    of_even, of_odd = collectives.psum(sums, axis_name)
    at = dot(y, w.T)
    even, odd = jnp.cos(at) * counts, jnp.sin(at) * counts
    return total + dot(even, of_even) + dot(odd, of_odd), None

  num, dim = frequencies.shape
  size = min(num, kernels.block_rows(max(len(x), len(y))))
  padding = -num % size
  blocks = jnp.pad(frequencies, ((0, padding), (0, 0))).reshape(-1, size, dim)
  counts = (jnp.arange(num + padding) < num).astype(x.dtype)
  start = jnp.zeros_like(y)
  return lax.scan(add, start, (blocks, counts.reshape(-1, 1, size)))[0]
