"""Replicas of chains at several temperatures, and their swaps."""

from flax import struct
import jax
import jax.numpy as jnp

from stein_jax.types import Array, Target, Tree


@struct.dataclass
class Warmed:
  """The law p^b of a target's p, for b an inverse temperature []."""

  target: Target
  inverse_temperature: Array

  def log_density(self, x: Tree) -> Array:
    return self.inverse_temperature * self.target.log_density(x)

  def score(self, x: Tree) -> Tree:
    scale = lambda leaf: (self.inverse_temperature * leaf).astype(leaf.dtype)
    return jax.tree.map(scale, self.target.score(x))


def swap(
  uniform: Array,
  replicas: Tree,
  log_densities: Array,
  inverse_temperatures: Array,
  odd: Array,
) -> tuple[Tree, Array]:
  """Returns replicas [r, n, ...] swapped with neighbours, and probabilities [r - 1, n].

  The pairs are (0, 1), (2, 3) and so on, or (1, 2), (3, 4) and so on where `odd`;
  each chain swaps by itself. Probabilities are of all pairs, whether due or not.

  Args:
    uniform: draws from [0, 1) that decide [r - 1, n].
    replicas: leaves [r, n, ...].
    log_densities: log p of each, at temperature 1 [r, n].
    inverse_temperatures: of the replicas [r].
    odd: 0 or 1.
  """
  num = len(log_densities)
  gaps = inverse_temperatures[:-1] - inverse_temperatures[1:]
  log_ratio = gaps[:, None] * (log_densities[1:] - log_densities[:-1])
  # A ratio of no number is that of points without a density: they stay.
  probability = jnp.exp(jnp.minimum(log_ratio, 0))
  probability = jnp.where(jnp.isnan(log_ratio), 0, probability)
  due = jnp.arange(num - 1) % 2 == odd
  accept = (due[:, None] & (uniform < probability)).astype(int)
  # Of two pairs that share a replica one is due: it goes up, down or nowhere.
  up = jnp.pad(accept, ((0, 1), (0, 0)))
  down = jnp.pad(accept, ((1, 0), (0, 0)))
  source = jnp.arange(num)[:, None] + up - down
  chain = jnp.arange(source.shape[1])
  return jax.tree.map(lambda leaf: leaf[source, chain], replicas), probability
