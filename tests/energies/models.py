"""Learners of small energies, and points for them, for tests."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stein_jax import energies
from stein_jax import learners

CONVS = ((3, 3, 2, 1), (5, 4, 4, 0))  # 8 x 8 pixels, then 4 x 4, then 1


def rbm(
  d=3, num_hidden=2, *, shape=None, centered=False, scale=0.7, dtype=None
):
  """Returns (learner, b, B, c) with random parameters, as NumPy float64."""
  rng = np.random.default_rng(d + num_hidden)
  b, c = rng.normal(size=d), 0.5 * rng.normal(size=num_hidden)
  weight = scale * rng.normal(size=(d, num_hidden))
  x = 1 + rng.normal(size=(5, *(shape or (d,))))
  energy = learners.create(
    jax.random.key(0),
    energies.RBM(num_hidden, centered),
    optax.sgd(1.0),
    jnp.asarray(x, dtype),
  )
  return with_params(energy, b, weight, c), b, weight, c


def with_params(energy, b, weight, c):
  trained = {'bias': b, 'weight': weight, 'hidden_bias': c}
  return energy.replace(
    params={**energy.params, 'params': jax.tree.map(jnp.asarray, trained)}
  )


def state(energy):
  return types.SimpleNamespace(energy=energy)


def points(num=7, d=3):
  return 2 * np.random.default_rng(1).normal(size=(num, d))


def call(energy, *args, **kwargs):
  call = jax.jit(lambda params: energy.apply_fn(params, *args, **kwargs))
  return call(energy.params)


@functools.cache
def energy(kind, norm='batch', num_classes=3):
  """Returns a small learner, with parameters that are not small."""
  if kind == 'discriminator':
    module = energies.Discriminator((3, 4), num_classes, norm)
  else:
    module = energies.Autoencoder(CONVS, norm=norm)
    if kind == 'joint':
      module = energies.JointLabel(module, num_classes, margin=1.1)
  y = () if kind == 'autoencoder' or not num_classes else (labels(),)
  # Shapes alone: compiling the start would take most of the time.
  energy = jax.eval_shape(
    lambda rng: learners.create(rng, module, optax.sgd(1.0), images(), *y),
    jax.random.key(0),
  )
  rng = np.random.default_rng(1)
  draw = lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), leaf.dtype)
  params = jax.tree.map(draw, energy.params)
  return energy.replace(step=0, params=params, opt_state=energy.tx.init(params))


def learner(module, optimizer):
  """Returns a learner of an energy of `images`."""
  return learners.create(jax.random.key(0), module, optimizer, images())


def images(num=8, seed=0):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.normal(size=(num, 8, 8, 2)), jnp.float32)


def labels(num=8):
  return jnp.arange(num) % 3


def linear():
  """Returns a learner of E = a.x, whose parameters are a."""
  energy, *_ = rbm()
  return energy.replace(
    params=jnp.array([0.5, -1.0, 0.25]),
    apply_fn=lambda params, x: x @ params,
  )
