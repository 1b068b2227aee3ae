"""The one rule of dtypes: in which an array is computed, whatever it comes in.

Integers and booleans become float32, or float64 under `jax_enable_x64`; half precision
is summed in float32. Complex numbers are refused.
"""

import jax.numpy as jnp
import numpy as np

from stein_jax.types import Array


def floating(x: Array) -> Array:
  """Returns x as a floating array; integers and booleans get the default float type.

  Raises:
    TypeError: x is complex, or does not hold numbers.
  """
  # JAX refuses arrays in the other byte order, which files may have.
  if isinstance(x, np.ndarray) and not x.dtype.isnative:
    x = x.astype(x.dtype.newbyteorder('='))
  x = jnp.asarray(x)
  if jnp.issubdtype(x.dtype, jnp.floating):
    return x
  if x.dtype == bool or jnp.issubdtype(x.dtype, jnp.integer):
    return x.astype(float)
  raise TypeError(f'An array of {x.dtype} is of no real numbers.')


def at_least_float32(x: Array) -> Array:
  """Returns x in the dtype its sums are taken in: float32 for half precision.

  Raises:
    TypeError: x is complex, or does not hold numbers.
  """
  x = floating(x)
  return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x


def promoted(*arrays: Array) -> list[Array]:
  """Returns arrays as `at_least_float32` has them, in the widest of their dtypes.

  Raises:
    TypeError: an array is complex, or does not hold numbers.
  """
  arrays = [at_least_float32(x) for x in arrays]
  widest = np.result_type(*(x.dtype for x in arrays))
  return [x.astype(widest) for x in arrays]


def on_host(x: Array) -> np.ndarray:
  """Returns x as a NumPy array in float64, whatever JAX's precision.

  Raises:
    TypeError: x is complex, or does not hold numbers.
  """
  x = np.asarray(x)
  kinds = (jnp.floating, jnp.integer, jnp.bool_)
  if any(jnp.issubdtype(x.dtype, kind) for kind in kinds):
    return x.astype(np.float64)
  raise TypeError(f'An array of {x.dtype} is of no real numbers.')
