"""Frequencies of waves whose mean is a kernel."""

import jax
from jax import lax
import jax.numpy as jnp

from stein_jax import checks
from stein_jax.types import Array, Kernel, PRNGKey


def frequencies(rng: PRNGKey, num: int, kernel: Kernel, x: Array) -> Array:
  """Returns w [num, d]: the kernel is the mean of cos(w.(x - y)) over them [RR07].

  Args:
    rng: key of the frequencies.
    num: how many.
    kernel: `kernels.RBF` or another that has `rates`, with a number for bandwidth.
    x: points [n, d], for their dimension and dtype alone.

  Raises:
    ValueError: the kernel has no `rates`.
  """
  checks.key(rng=rng)
  checks.count(num_features=num)
  if not hasattr(kernel, 'rates'):
    raise ValueError(
      f'kernel={kernel} must have random features, as kernels.RBF() has.'
    )
  of_rates, of_normal = jax.random.split(rng)
  # A mixture of Gaussian kernels exp(-rate r) has one of these for each frequency.
  rates = lax.stop_gradient(kernel.rates(of_rates, num).astype(x.dtype))
  normal = jax.random.normal(of_normal, (num, x.shape[1]), x.dtype)
  return jnp.sqrt(2 * rates)[:, None] * normal
