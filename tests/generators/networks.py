"""Learners of small generators, for tests."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stein_jax import generators

SIZE = 8  # rows of a training batch
TINY = dict(shape=(4, 8, 2), latent_dim=3, base=4, widths=(3,), strides=(2, 2))
# Maps of 2 x 2, 3 x 3 and 5 x 6 pixels.
VAE = dict(
  shape=(5, 6, 2),
  latent_dim=3,
  base=4,
  widths=(3,),
  strides=(2, 2),
  kernels=(4, 3),
  encoder_widths=(3, 2),
  encoder_kernels=(3, 4),
  encoder_strides=(1, 2),
)
PAIR = dict(
  shape=(4, 6, 2),
  latent_dim=3,
  widths=(2, 3),
  num_blocks=1,
  encoder_widths=(2,),
)


@functools.cache
def create(module, num=SIZE, condition=None):
  """Returns a learner of the module, conditional if the module is."""
  classes = getattr(module, 'num_classes', 0)
  label = jnp.arange(num) % classes if classes else None
  return generators.create(
    jax.random.key(0), module, optax.sgd(1.0), num, label, condition
  )


def drawn(module, scale=1.0, condition=None):
  """Returns a learner of the module with parameters from N(0, scale^2)."""
  # Shapes alone: compiling the start would take most of the time.
  learner = jax.eval_shape(
    lambda: create.__wrapped__(module, condition=condition)
  )
  rng = np.random.default_rng(0)
  draw = lambda leaf: jnp.asarray(
    scale * rng.normal(size=leaf.shape), leaf.dtype
  )
  params = jax.tree.map(draw, learner.params)
  return learner.replace(
    step=0, params=params, opt_state=learner.tx.init(params)
  )


@functools.cache
def tiny(scale=1.0, **kwargs):
  """Returns a learner of a small DCGAN with parameters from N(0, scale^2)."""
  return drawn(generators.DCGAN(**TINY, **kwargs), scale)


@functools.cache
def vae(**kwargs):
  """Returns a learner of a small VAE with parameters from N(0, 1)."""
  return drawn(generators.VAE(**{**VAE, **kwargs}))


def with_options(learner, **kwargs):
  """Returns the learner with options on which its parameters do not depend."""
  return learner.replace(apply_fn=generators.DCGAN(**TINY, **kwargs).apply)
