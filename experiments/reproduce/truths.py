"""Truths to learn: models with exact draws, whose likelihood is exact.

Each is a Gaussian-Bernoulli RBM, so that it is among the models that are learned. Its
law is a mixture of 2^h unit Gaussians, one for each state of its hidden units.
"""

import functools
import itertools
import pathlib

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.reproduce import likelihood
from stein_jax import datasets
from stein_jax import energies
from stein_jax import learners
from stein_jax.algorithms import maximum_likelihood

SCALE = 4.0  # of the digits' strokes, in units of the model's noise
_FIT_STEPS = 4000
_FIT_RATE = 1e-2


@struct.dataclass
class Truth:
  """An RBM, p = sum_h exp(c.h + |b + Bh|^2 / 2) N(b + Bh, I) / Z', h in {-1, 1}.

  Attributes:
    bias: b [d], in float64 as the others are.
    weight: B [d, h].
    hidden_bias: c [h].
  """

  bias: np.ndarray
  weight: np.ndarray
  hidden_bias: np.ndarray

  @property
  def module(self) -> energies.RBM:
    """The energy that learns it."""
    return energies.RBM(len(self.hidden_bias), centered=True)

  @property
  def num_parameters(self) -> int:
    return sum(each.size for each in jax.tree.leaves(self))

  def draws(self, seed: int, num: int) -> np.ndarray:
    """Returns independent exact draws [num, d] in float32."""
    rng = np.random.default_rng([seed, num])
    signs = itertools.product((-1.0, 1.0), repeat=len(self.hidden_bias))
    states = np.array(list(signs))
    means = self.bias + states @ self.weight.T
    log_weights = states @ self.hidden_bias + 0.5 * np.sum(means**2, 1)
    weights = np.exp(log_weights - log_weights.max())
    chosen = rng.choice(len(states), num, p=weights / weights.sum())
    noise = rng.normal(size=(num, len(self.bias)))
    return (means[chosen] + noise).astype(np.float32)

  def params(self, mean):
    """Returns the parameters of `module` where the mean of its data is this [d]."""
    # b.x + |x|^2 / 2 and B'x + c, of x less the mean.
    trained = dict(
      bias=self.bias - mean,
      weight=self.weight,
      hidden_bias=self.hidden_bias + mean @ self.weight,
    )
    return {'params': trained, 'constants': {'mean': mean}}

  def gaps(self, params, x: np.ndarray) -> np.ndarray:
    """Returns the mean of log p(x) - log q(x) [...] over points, in float64 nats.

    Args:
      params: of models q of `module`, leaves [..., *shape].
      x: points [n, d].
    """
    runs = np.shape(params['params']['hidden_bias'])[:-1]
    params = jax.tree.map(np.asarray, params)
    # One model at a time: the points less its mean are as large as the points.
    models = [
      jax.tree.map(lambda leaf: leaf[i], params) for i in np.ndindex(runs)
    ]
    of_truth, *of_models = (
      likelihood.mean_log_likelihoods(
        self.module, jax.tree.map(lambda leaf: leaf[None], model), x
      )[0]
      for model in (self.params(x.mean(0)), *models)
    )
    return (of_truth - np.array(of_models)).reshape(runs)


def overlapping() -> Truth:
  """Returns 20 units over 5 hidden ones, whose components overlap."""
  rng = np.random.RandomState(0)
  weight = rng.randn(20, 5)
  weight *= 1.5 / np.linalg.norm(weight, axis=0)
  return Truth(0.5 * rng.randn(20), weight, 0.3 * rng.randn(5))


def separated() -> Truth:
  """Returns 20 units over 5 hidden ones, of 32 modes 6 apart and about as likely."""
  rng = np.random.RandomState(0)
  weight = 3 * np.linalg.qr(rng.randn(20, 5))[0]
  bias = 0.5 * rng.randn(20)
  # With -b'B all states would be equally likely.
  return Truth(bias, weight, -bias @ weight + 0.3 * rng.randn(5))


def digits() -> Truth:
  """Returns 64 units over 10 hidden ones, fitted to all 8x8 digits."""
  parts = (
    datasets.load('digits', split=split, scale=SCALE)[:]['image']
    for split in ('train', 'test')
  )
  x = jnp.concatenate(list(parts)).reshape(-1, 64)
  rate = optax.linear_schedule(_FIT_RATE, 0.0, _FIT_STEPS)
  energy = learners.create(
    jax.random.key(0), energies.RBM(10, centered=True), optax.adam(rate), x
  )

  @jax.jit
  def fit(state):
    step = lambda i, state: maximum_likelihood.step(state, {'image': x}, None)[
      0
    ]
    return jax.lax.fori_loop(0, _FIT_STEPS, step, state)

  params = fit(
    maximum_likelihood.State(jnp.zeros((), int), energy)
  ).energy.params
  (bias, weight, hidden_bias), mean = (
    [
      np.asarray(params['params'][k], np.float64) for k in Truth.__annotations__
    ],
    np.asarray(params['constants']['mean'], np.float64),
  )
  return Truth(bias + mean, weight, hidden_bias - mean @ weight)


TRUTHS = {
  'overlapping': overlapping,
  'separated': separated,
  'digits': digits,
}


@functools.lru_cache
def get(name: str, folder: pathlib.Path) -> Truth:
  """Returns a truth; one that is fitted is kept in the folder of results."""
  path = folder / 'truth' / f'{name}.npz'
  if not path.exists():
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **vars(TRUTHS[name]()))
  with np.load(path, allow_pickle=False) as kept:
    return Truth(**kept)
