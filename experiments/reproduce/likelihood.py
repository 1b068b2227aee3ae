"""Exact test log likelihoods of an RBM on images, in float64."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stein_jax import datasets


class Images(NamedTuple):
  train: (
    jax.Array | None
  )  # [n, d] float32; None where only likelihoods are asked for
  valid: jax.Array  # [n, d] float64, as likelihoods are measured in it
  test: jax.Array


@functools.lru_cache(maxsize=1)
def load(name: str, limit: int | None = None) -> Images:
  """Returns the images: of 60,000 a random 50,000 train and 10,000 validate.

  With a limit, so many validate and test, and five times as many train.
  """
  images = _rows(name, 'train')
  order = np.random.default_rng(0).permutation(len(images))
  # This leaves 50,000 of MNIST, as in the papers.
  cut = len(images) * 5 // 6
  return Images(
    jnp.asarray(images[order[:cut][: limit and 5 * limit]]),
    _double(images[order[cut:][:limit]]),
    _double(_rows(name, 'test')[:limit]),
  )


@functools.lru_cache(maxsize=1)
def held_out(limit: int | None = None) -> Images:
  """Returns what the RBMs' configs leave of MNIST, the last 10,000 to validate.

  With a limit, so many validate and test.
  """
  # The part that the configs' own split, train[:50000], leaves.
  valid, test = _rows('mnist', 'train[50000:]'), _rows('mnist', 'test')
  return Images(None, _double(valid[:limit]), _double(test[:limit]))


def _rows(name, split):
  """Returns the images [n, d] of a split."""
  source = datasets.load(name, split=split)
  return source[:]['image'].reshape(len(source), -1)


def _double(x):
  with jax.enable_x64(True):
    return jnp.asarray(x, jnp.float64)


def exact_log_likelihoods(
  module, params, data
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the mean validation and test log likelihood [runs], in float64 nats."""
  return tuple(
    mean_log_likelihoods(module, params, x) for x in (data.valid, data.test)
  )


def mean_log_likelihoods(module, params, x) -> np.ndarray:
  """Returns the mean log likelihood of x [n, d] for each run [runs], in float64."""
  with jax.enable_x64(True):
    # Rows differ by tenths of a nat among hundreds.
    double = lambda leaf: np.asarray(leaf, np.float64)
    params, x = jax.tree.map(double, params), jnp.asarray(x, jnp.float64)
    return np.asarray(_mean_log_likelihood(module, params, x))


@functools.partial(jax.jit, static_argnums=0)
@functools.partial(jax.vmap, in_axes=(None, 0, None))
def _mean_log_likelihood(module, params, x):
  log_partition = module.apply(params, method='log_partition')
  return jnp.mean(-module.apply(params, x)) - log_partition


def gaussian_floors(data: Images) -> dict[str, float]:
  """Returns test log likelihoods of unit Gaussians, which have no hidden units."""
  test = np.asarray(data.test)
  constant = -0.5 * test.shape[1] * np.log(2 * np.pi)
  # The best that a model without hidden units can do, at its own mean.
  of_mean = lambda mean: constant - 0.5 * np.mean(np.sum((test - mean) ** 2, 1))
  return {
    'N(training mean, I)': of_mean(
      np.asarray(data.train).mean(0, dtype=np.float64)
    ),
    'N(0, I)': of_mean(0.0),
  }
