"""The direction of a matrix-valued kernel by its definition, and maps over devices."""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
import numpy as np

AXIS = 'batch'


def points(n, d, seed=0):
  """Returns particles [n, d] of no special place or scale, and scores like them."""
  x, score = np.random.default_rng((n, d, seed)).normal(size=(2, n, d))
  return np.float32(0.5 + 1.5 * x), np.float32(score)


def in_float64(function):
  """Returns a function of arrays, computed and returned in float64."""

  def wrapped(*arrays):
    with jax.enable_x64(True):
      arrays = [jnp.asarray(np.asarray(each, np.float64)) for each in arrays]
      found = jax.jit(function)(*arrays)
      return jax.tree.map(np.asarray, found)

  return wrapped


def direction(kernel, x, score, at):
  """Returns the mean over j of K(y, x_j) s_j + div_{x_j} K(y, x_j) [m, d], y in `at`.

  Args:
    kernel: K, a function of two points [d] to a matrix [d, d].
    x: particles [n, d].
    score: their scores [n, d].
    at: the points y [m, d].
  """

  def term(y, x_j, score_j):
    slope = jax.jacfwd(kernel, 1)(y, x_j)
    return kernel(y, x_j) @ score_j + jnp.trace(slope, axis1=1, axis2=2)

  over_j = jax.vmap(term, (None, 0, 0))
  return jax.vmap(lambda y: jnp.mean(over_j(y, x, score), 0))(at)


def mapped(mode, local, x, score):
  """Returns the rows of local(x, score), on four devices with a share each."""
  if mode == 'shard_map':
    rows = PartitionSpec(AXIS)
    mesh = Mesh(np.array(jax.devices()), (AXIS,))
    return jax.jit(
      jax.shard_map(local, mesh=mesh, in_specs=(rows, rows), out_specs=rows)
    )(x, score)
  of_shares = (
    jax.pmap(local, axis_name=AXIS)
    if mode == 'pmap'
    else jax.jit(jax.vmap(local, axis_name=AXIS))
  )
  split = lambda leaf: leaf.reshape(4, -1, *leaf.shape[1:])
  join = lambda leaf: leaf.reshape(-1, *leaf.shape[2:])
  found = of_shares(jax.tree.map(split, x), jax.tree.map(split, score))
  return jax.tree.map(join, found)


def assert_close(actual, expected, roundings=64):
  """Agreement to roundings of the largest entry."""
  expected = np.asarray(expected, np.float64)
  eps = float(jnp.finfo(jnp.asarray(actual).dtype).eps)
  np.testing.assert_allclose(
    np.asarray(actual, np.float64),
    expected,
    rtol=0,
    atol=roundings * eps * np.max(np.abs(expected)),
  )
