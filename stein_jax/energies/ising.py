"""The Ising model."""

from flax import linen as nn
import jax
import jax.numpy as jnp

from stein_jax import dtypes
from stein_jax import layers
from stein_jax.energies import _enumeration
from stein_jax.types import Array


class Ising(nn.Module):
  """Ising model of spins in {-1, 1}, E(x) = -x.Jx / 2 - h.x.

  J is the symmetric part of the parameter 'coupling' [d, d] without its diagonal, which
  would add a constant, and h is the parameter 'field' [d]. Both are zero at first.

  Examples:
    >>> pair = {'coupling': jnp.array([[0.0, 1.0], [1.0, 0.0]]), 'field': jnp.zeros(2)}
    >>> mean, pairs = Ising().apply({'params': pair}, method='moments')
    >>> print(mean, f'{pairs[0, 1]:.4f}')  # tanh 1
    [0. 0.] 0.7616
  """

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns E(x) [n]."""
    x = layers.flat(dtypes.at_least_float32(x))
    d = x.shape[1]
    self.param('field', nn.initializers.zeros, (d,))
    self.param('coupling', nn.initializers.zeros, (d, d))
    field, coupling = self._parameters()
    return -0.5 * jnp.sum(x @ coupling * x, -1) - x @ field

  def log_partition(self) -> Array:
    """Returns the exact log Z [], a sum over all 2^d states.

    Raises:
      ValueError: there are more than 30 spins.
    """
    return _enumeration.log_sum(*self._limited(_enumeration.MAX_SUMMED))

  def moments(self) -> tuple[Array, Array]:
    """Returns the exact means E[x] [d] and E[x x'] [d, d].

    Raises:
      ValueError: there are more than 30 spins.
    """
    parameters = self._limited(_enumeration.MAX_SUMMED)
    # The derivatives of log Z are moments. That by J has a half of each pair, or all of
    # it on one side of the diagonal.
    mean, pairs = jax.grad(_enumeration.log_sum, (0, 1))(*parameters)
    return mean, pairs + pairs.T

  def sample(self, rng: jax.Array, num: int) -> Array:
    """Returns independent exact samples [num, d].

    Raises:
      ValueError: there are more than 20 spins.
    """
    field, coupling = self._limited(_enumeration.MAX_LISTED)
    weights = _enumeration.log_weights(field, coupling)
    index = jax.random.categorical(rng, weights, shape=(num,))
    return _enumeration.signs(index, len(field)).astype(field.dtype)

  def _parameters(self):
    """Returns h [d] and J [d, d]."""
    field, coupling = (
      dtypes.at_least_float32(self.get_variable('params', name))
      for name in ('field', 'coupling')
    )
    off = 1 - jnp.eye(len(field), dtype=coupling.dtype)
    return field, 0.5 * (coupling + coupling.T) * off

  def _limited(self, limit):
    field, coupling = self._parameters()
    if len(field) > limit:
      raise ValueError(
        f'{len(field)} spins: the sum over states stops at {limit}.'
      )
    return field, coupling
