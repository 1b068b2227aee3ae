"""What energies learn from where likelihood is exact: draws of a truth, and images.

A truth is a Gaussian-Bernoulli RBM, so that it is among the models that are learned.
Its law is a mixture of 2^h unit Gaussians, one for each state of its hidden units.
Images have no truth; the best fit of such an RBM takes its place.
"""

from collections.abc import Callable
import functools
import itertools
import pathlib
from typing import NamedTuple

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
_FIT_BATCH = 2000  # of images, or all of fewer


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
    found = [self._log_likelihood(model, x) for model in models]
    return (self.log_likelihood(x) - np.array(found)).reshape(runs)

  def log_likelihood(self, x: np.ndarray) -> float:
    """Returns the mean of log p(x) over points [n, d], in float64 nats."""
    return self._log_likelihood(self.params(x.mean(0)), x)

  def _log_likelihood(self, params, x):
    one = jax.tree.map(lambda leaf: leaf[None], params)
    return float(likelihood.mean_log_likelihoods(self.module, one, x)[0])


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
  return fitted(
    np.concatenate([pixels('digits', split) for split in ('train', 'test')]), 0
  )


def fitted(x: np.ndarray, seed: int, num_steps: int = _FIT_STEPS) -> Truth:
  """Returns the RBM of 10 hidden units of the largest likelihood of x [n, d].

  Args:
    x: data.
    seed: of the start, and of the batches where data are many.
    num_steps: updates by exact gradients.
  """
  x, rng = jnp.asarray(x), jax.random.key(seed)
  rate = optax.linear_schedule(_FIT_RATE, 0.0, num_steps)
  energy = learners.create(
    rng, energies.RBM(10, centered=True), optax.adam(rate), x
  )

  def step(i, state):
    batch = x
    if len(x) > _FIT_BATCH:
      drawn = jax.random.fold_in(rng, i)
      batch = x[jax.random.randint(drawn, (_FIT_BATCH,), 0, len(x))]
    return maximum_likelihood.step(state, {'image': batch}, None)[0]

  @jax.jit
  def fit(state):
    return jax.lax.fori_loop(0, num_steps, step, state)

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


@functools.lru_cache
def pixels(dataset: str, split: str) -> np.ndarray:
  """Returns the images of a split as rows [n, d] of float32.

  MNIST's are in [0, 1], as in the papers, whose RBM has no strokes higher than its
  noise; those of the digits are `SCALE` high.
  """
  scale = {'scale': SCALE} if dataset == 'digits' else {}
  source = datasets.load(dataset, split=split, **scale)
  return np.asarray(source[:]['image']).reshape(len(source), -1)


TRUTHS = {
  'overlapping': overlapping,
  'separated': separated,
  'digits': digits,
}


@functools.lru_cache
def get(name: str, folder: pathlib.Path) -> Truth:
  """Returns a truth; one that is fitted is kept in the folder of results."""
  return _kept(folder / 'truth' / f'{name}.npz', TRUTHS[name])


def _kept(path: pathlib.Path, make: Callable[[], Truth]) -> Truth:
  """Returns the truth of a file, which is made where it is not there yet."""
  if not path.exists():
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **vars(make()))
  with np.load(path, allow_pickle=False) as kept:
    return Truth(**kept)


class Draws(NamedTuple):
  """Draws of a truth, as many for each seed.

  Attributes:
    truth: what is drawn.
    num: number of draws that are learned from.
  """

  truth: Truth
  num: int

  def train(self, seed: int) -> np.ndarray:
    """Returns what a seed learns from [n, d]."""
    return self.truth.draws(seed, self.num)

  def valid(self, seed: int) -> np.ndarray:
    """Returns what its trials are compared on [m, d]."""
    del seed
    return self.truth.draws(999, 10_000)

  def test(self) -> np.ndarray:
    """Returns what counts [k, d]."""
    return self.truth.draws(998, 20_000)

  def best(self, seed: int) -> Truth:
    """Returns what could be learned at best."""
    del seed
    return self.truth


class Images(NamedTuple):
  """Images, of which each seed holds out another sixth, as `Draws` has draws.

  Attributes:
    dataset: its name.
    folder: where fits are kept.
    fit_steps: updates of a fit.
  """

  dataset: str
  folder: pathlib.Path
  fit_steps: int = _FIT_STEPS

  def train(self, seed: int) -> np.ndarray:
    return self._parts(seed)[0]

  def valid(self, seed: int) -> np.ndarray:
    return self._parts(seed)[1]

  def test(self) -> np.ndarray:
    return pixels(self.dataset, 'test')

  def best(self, seed: int) -> Truth:
    """Returns the RBM of the largest likelihood of what the seed learns from."""
    path = self.folder / 'truth' / f'{self.dataset}-images-{seed}.npz'
    return _kept(path, lambda: fitted(self.train(seed), seed, self.fit_steps))

  def _parts(self, seed):
    """Returns the images that are learned from, and those that are held out."""
    images = pixels(self.dataset, 'train')
    order = np.random.default_rng(seed).permutation(len(images))
    # This leaves 50,000 of MNIST, as in the papers.
    cut = len(images) * 5 // 6
    return images[order[:cut]], images[order[cut:]]
