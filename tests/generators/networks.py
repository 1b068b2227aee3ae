"""Learners of small generators, for tests."""

import functools

from flax import linen as nn
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


class Plain(nn.Module):
  """A sample is its latent vector, its label, and the mean of its batch."""

  prior: str = 'uniform'
  num_classes: int = 0

  @nn.compact
  def decode(self, z, *, label=None):
    self.param('unused', nn.initializers.zeros, ())
    label = jnp.zeros(len(z)) if label is None else label
    mean = jnp.broadcast_to(jnp.mean(z, 0, keepdims=True), z.shape)
    return jnp.concatenate([z, label.astype(z.dtype)[:, None], mean], 1)

  def latent(self, rng, num):
    return generators.PRIORS[self.prior](rng, (num, 3))

  def __call__(self, rng, num, *, label=None):
    return self.decode(self.latent(rng, num), label=label)


class Beside(nn.Module):
  """A sample is its latent vector, its condition, and the mean of its batch."""

  def latent(self, rng, num):
    return jax.random.normal(rng, (num, 3))

  @nn.compact
  def __call__(self, rng, num, *, condition):
    self.param('unused', nn.initializers.zeros, ())
    z = self.latent(rng, num)
    mean = jnp.broadcast_to(jnp.mean(z, 0, keepdims=True), z.shape)
    return jnp.concatenate([z, condition, mean], 1)


class Affine(nn.Module):
  """A decoder z a + b of numbers z, an affine encoder with noise of its key.

  What both are conditioned on is added, and subtracted.
  """

  noise: float = 1.0

  def setup(self):
    normal = nn.initializers.normal(1.0)
    self.a = self.param('a', normal, (1, 2))
    self.b = self.param('b', normal, (1, 2))
    self.m = self.param('m', normal, (2, 1))
    self.c = self.param('c', normal, (1, 1))
    self.s = self.param('s', normal, (1, 1))

  def decode(self, z, *condition):
    return z @ self.a + self.b + sum(condition)

  def encode(self, x, *condition, key=None):
    shift = self.noise * jax.random.normal(key, (len(x), 1))
    mean = (x - sum(condition)) @ self.m + self.c + shift
    return mean, jnp.broadcast_to(self.s, mean.shape)

  def latent(self, rng, num):
    return jax.random.normal(rng, (num, 1))

  def __call__(self, rng, num):
    return self.decode(self.latent(rng, num))


def rows(*shape, seed=0):
  x = np.random.default_rng(seed).normal(size=shape)
  return jnp.asarray(x, jnp.float32)


def affine(noise=1.0):
  """Returns a learner of the affine module, with fixed parameters."""
  learner = create(Affine())
  values = {
    'a': [[0.8, -0.5]],
    'b': [[0.3, 1.0]],
    'm': [[0.4], [-0.6]],
    'c': [[0.2]],
    's': [[-0.7]],
  }
  params = {'params': {name: jnp.array(v) for name, v in values.items()}}
  return learner.replace(params=params, apply_fn=Affine(noise).apply)


def beside(condition):
  """Returns a learner of `Beside`, begun on that condition."""
  return generators.create(
    jax.random.key(0),
    Beside(),
    optax.sgd(1.0),
    len(condition),
    condition=condition,
  )
