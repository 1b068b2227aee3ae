"""What a chain tells of itself by scores that it has evaluated already."""

import jax
import jax.numpy as jnp

from stein_jax import collectives
from stein_jax.samplers import _steps


def of(x, score, target):
  """Returns what scores at points, leaves [n, ...] each, say of a chain there, [].

  'score_norm' is the root mean square of the score, and 'virial_temperature' the mean
  of -(x - mean x) s(x), both over all numbers: at rest under p^(1 / T) that is T.
  """
  axis_name = getattr(target, 'axis_name', None)
  x, score = map(_steps.accumulated, (x, score))
  count = sum(leaf.size for leaf in jax.tree.leaves(x))
  total = lambda tree: sum(map(jnp.sum, jax.tree.leaves(tree))) / count
  # The middle is that of all devices, since a share's own is nearer to its points.
  middle = jax.tree.map(lambda leaf: jnp.mean(leaf, 0, keepdims=True), x)
  middle = collectives.pmean(middle, axis_name)
  virial = jax.tree.map(lambda x, m, s: (x - m) * s, x, middle, score)
  # The root of a mean of all devices is no mean of roots.
  square = collectives.pmean(total(jax.tree.map(jnp.square, score)), axis_name)
  return {
    'score_norm': jnp.sqrt(square).astype(jnp.float32),
    'virial_temperature': -total(virial).astype(jnp.float32),
  }
