"""Means of weights that are known by their logarithms."""

import jax
import jax.numpy as jnp
import numpy as np

from stein_jax import dtypes
from stein_jax.types import Array


def effective_sample_size(log_weights: Array) -> Array:
  """Returns (sum w)^2 / sum w^2 of the weights [n] given by their logarithms, [].

  It is n where all are equal, and 1 where one is all there is. It cannot count what
  no weight has met: a mode that no chain went to does not lower it.

  Examples:
    >>> print(f"{effective_sample_size(jnp.log(jnp.array([1.0, 1.0, 2.0]))):.4f}")
    2.6667
  """
  log_weights = dtypes.at_least_float32(log_weights)
  # The largest weight becomes 1, since logarithms of large sums have lost digits.
  weights = jnp.exp(log_weights - jnp.max(log_weights, initial=-jnp.inf))
  return jnp.sum(weights) ** 2 / jnp.sum(weights**2)


def log_mean_exp_error(log_weights: Array) -> Array:
  """Returns the standard error of `log_mean_exp` of the weights [n], [].

  It is the relative one of their mean, sqrt((n / ESS - 1) / (n - 1)), so that it is
  right where it is small. One weight has none: nan.

  Examples:
    >>> print(f"{log_mean_exp_error(jnp.log(jnp.array([1.0, 1.0, 2.0]))):.4f}")
    0.2500
  """
  num = np.size(log_weights)
  spread = num / effective_sample_size(log_weights) - 1
  # Rounding may leave equal weights a spread below 0.
  return jnp.sqrt(jnp.maximum(spread, 0) / (num - 1 or jnp.nan))


def log_mean_exp(log_weights: Array) -> Array:
  """Returns log mean exp of the weights [n], []."""
  log_weights = dtypes.at_least_float32(log_weights)
  if not log_weights.size:
    raise ValueError('There is no mean of no weights.')
  return jax.nn.logsumexp(log_weights) - jnp.log(float(log_weights.size))
