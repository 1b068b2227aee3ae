"""Random numbers that depend on no key, for tests against literal definitions.

What is drawn is a function of its shape and of its row in the whole batch. So a test
need not know in which order a step splits its key, and all modes draw the same.
"""

import contextlib
from unittest import mock

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax

from stein_jax import parallel
from stein_jax.generators import networks


def uniforms(shape):
  """Returns what `jax.random.uniform` draws inside of `fixed`, in [0, 1)."""
  return np.random.default_rng(0).random(shape)


def normals(shape):
  """Returns what `jax.random.normal` draws inside of `fixed`."""
  return np.random.default_rng(1).normal(size=shape)


def latents(shape):
  """Returns what generators with a normal prior draw inside of `fixed`."""
  return np.random.default_rng(2).normal(size=shape)


@contextlib.contextmanager
def fixed(dropout=True):
  """Makes `jax.random` draw these numbers, and without `dropout` no other masks."""
  uniform, normal = _of_rows(uniforms), _of_rows(normals)
  signs = _of_rows(lambda shape: np.sign(normals(shape)), axis=1)
  patches = dict(
    normal=lambda rng, shape=(), dtype=float: normal(shape, dtype),
    uniform=lambda rng, shape=(), dtype=float, minval=0.0, maxval=1.0: (
      minval + (maxval - minval) * uniform(shape, dtype)
    ),
    # [projections, n, ...]
    rademacher=lambda rng, shape, dtype=int: signs(shape, dtype),
  )
  if dropout:
    patches['bernoulli'] = lambda rng, p=0.5, shape=None: (
      uniform(np.shape(p) if shape is None else shape, float) < p
    )
  with contextlib.ExitStack() as stack:
    for name, function in patches.items():
      stack.enter_context(mock.patch.object(jax.random, name, function))
    like = lambda rng, x: jax.tree.map(
      lambda leaf: normal(leaf.shape, leaf.dtype), x
    )
    stack.enter_context(mock.patch.object(optax.tree, 'random_like', like))
    priors = dict(
      normal=lambda rng, shape: _of_rows(latents)(shape, float),
      uniform=lambda rng, shape: _of_rows(lambda s: np.sin(latents(s)))(
        shape, float
      ),
    )
    stack.enter_context(mock.patch.dict(networks.PRIORS, priors))
    yield


def _of_rows(values, axis=0):
  """Returns a stand-in for a sampler, whose values depend on the row alone.

  Args:
    values: a shape to numbers.
    axis: that of the rows.
  """

  def sample(shape, dtype):
    if not shape:
      return jnp.asarray(values(()), dtype)
    try:
      index = lax.axis_index(parallel.AXIS)
    except NameError:  # no axis: these are all rows
      return jnp.asarray(values(shape), dtype)
    num = shape[axis]
    whole = (*shape[:axis], jax.device_count() * num, *shape[axis + 1 :])
    rows = jnp.asarray(values(whole), dtype)
    return lax.dynamic_slice_in_dim(rows, index * num, num, axis)

  return sample
