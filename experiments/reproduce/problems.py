"""Densities that particles are held against, with draws that are the truth of each.

Where exact draws cannot be made, four long chains of NUTS make them, once for a folder
of results. Positions are points [d].
"""

from collections.abc import Callable, Sequence
import functools
import pathlib
from typing import NamedTuple

import jax
from jax import flatten_util
import jax.numpy as jnp
import numpy as np
from sklearn import datasets as sklearn_datasets
from sklearn import model_selection

from stein_jax import densities
from stein_jax.types import Array, PRNGKey

HELD_OUT = 0.2  # of a data set, on which predictions are scored
_CHAINS = 4
_DEGREES = 5  # of the heavy tails, whose variance is 5 / 3
_HIDDEN = 5  # units of the networks


class Problem(NamedTuple):
  """A density, and what is asked of particles on it.

  Attributes:
    log_density: function of a position [d] to log p [], up to a constant.
    start: function of a key and n to particles [n, d] to begin from.
    sample: function of a key and n to exact draws [n, d]; None where NUTS makes them.
    summary: function of a position to the numbers [m] that are compared.
    predict: function of positions [n, d] to the mean log likelihood [] of data that
      were held out, under the mixture of them; None where there are no data.
    centres: of the modes [k, m], for spreads within each; None where there is one.
    prior: variances [d] of a Gaussian prior, from which particles start; None where
      there is no such prior.
  """

  log_density: Callable[[Array], Array]
  start: Callable[[PRNGKey, int], Array]
  sample: Callable[[PRNGKey, int], Array] | None = None
  summary: Callable[[Array], Array] = lambda position: position
  predict: Callable[[Array], Array] | None = None
  centres: Array | None = None
  prior: Array | None = None


def split(bunch):
  """Returns (features, targets) of a data set for learning, and those held out.

  Features have mean 0 and variance 1 in what is learned from.
  """
  x, test_x, y, test_y = model_selection.train_test_split(
    bunch.data, bunch.target, test_size=HELD_OUT, random_state=0
  )
  mean, scale = x.mean(0), x.std(0)
  x, test_x = (
    ((each - mean) / scale).astype(np.float32) for each in (x, test_x)
  )
  as_type = np.int32 if np.issubdtype(y.dtype, np.integer) else np.float32
  return (x, y.astype(as_type)), (test_x, test_y.astype(as_type))


def broad(dim: int, mean: float = 1.0, scale: float = 1.5):
  """Returns a start at N(mean, scale^2 I)."""
  return lambda rng, num: mean + scale * jax.random.normal(rng, (num, dim))


def gaussian(dim: int) -> Problem:
  """Returns N(0, I)."""
  return Problem(
    lambda x: -0.5 * jnp.sum(x**2),
    broad(dim),
    lambda rng, num: jax.random.normal(rng, (num, dim)),
  )


def correlated(dim: int) -> Problem:
  """Returns a Gaussian of eigenvalues 0.1 to 10 in axes of no coordinate."""
  normal = np.random.default_rng(0).normal(size=(dim, dim))
  rotation = np.linalg.qr(normal)[0]
  eigenvalues = np.geomspace(0.1, 10, dim)
  root = jnp.asarray(rotation * eigenvalues**0.5, jnp.float32)
  precision = jnp.asarray(rotation / eigenvalues @ rotation.T, jnp.float32)
  return Problem(
    lambda x: -0.5 * x @ precision @ x,
    broad(dim),
    lambda rng, num: jax.random.normal(rng, (num, dim)) @ root.T,
  )


def heavy(dim: int) -> Problem:
  """Returns Student's t in `dim` dimensions with 5 degrees of freedom."""

  def sample(rng, num):
    normal_rng, chi_rng = jax.random.split(rng)
    chi = jax.random.chisquare(chi_rng, _DEGREES, shape=(num, 1))
    normal = jax.random.normal(normal_rng, (num, dim))
    return normal * jnp.sqrt(_DEGREES / chi)

  return Problem(
    lambda x: -0.5 * (_DEGREES + dim) * jnp.log1p(jnp.sum(x**2) / _DEGREES),
    broad(dim),
    sample,
  )


def mixture(dim: int) -> Problem:
  """Returns a third at -2 and two thirds at 2, of scale 0.7 there and 1 elsewhere."""
  scale = jnp.ones(dim).at[0].set(0.7)
  centres = jnp.zeros((2, dim)).at[:, 0].set(jnp.array([-2.0, 2.0]))
  weights = jnp.array([1 / 3, 2 / 3])

  def log_density(x):
    logits = -0.5 * jnp.sum(((x - centres) / scale) ** 2, 1)
    return jax.nn.logsumexp(logits, b=weights)

  def sample(rng, num):
    which_rng, normal_rng = jax.random.split(rng)
    which = jax.random.choice(which_rng, 2, (num,), p=weights)
    return centres[which] + scale * jax.random.normal(normal_rng, (num, dim))

  return Problem(
    log_density, broad(dim, 0.0, 3.0), sample, centres=jax.device_get(centres)
  )


def known(density: densities.Density) -> Problem:
  """Returns one of the package's densities."""
  return Problem(
    density.log_density,
    lambda rng, num: density.start(rng, num, None),
    density.sample,
  )


def logistic() -> Problem:
  """Returns logistic regression of breast cancer under weights ~ N(0, I)."""
  (x, y), (test_x, test_y) = split(sklearn_datasets.load_breast_cancer())
  x, test_x = (np.insert(each, 0, 1.0, axis=1) for each in (x, test_x))
  dim = x.shape[1]

  def log_likelihoods(weights, x, y):
    return jax.nn.log_sigmoid((2 * y - 1) * (x @ weights))

  return Problem(
    lambda w: jnp.sum(log_likelihoods(w, x, y)) - 0.5 * jnp.sum(w**2),
    broad(dim, 0.0, 1.0),
    predict=_predicted(lambda w: log_likelihoods(w, test_x, test_y)),
    prior=jnp.ones(dim),
  )


def network(bunch, num_classes: int = 0) -> Problem:
  """Returns a network of 5 tanh units, whose weights and biases are N(0, I).

  With classes its outputs are their logits; otherwise it tells the mean of a number
  that is standardised, and the logarithm of the noise's scale is N(-0.5, 0.25).
  Particles are compared by what the network says of data held out.
  """
  (x, y), (test_x, test_y) = split(bunch)
  outputs = num_classes or 1
  if not num_classes:
    mean, scale = y.mean(), y.std()
    y, test_y = ((each - mean) / scale for each in (y, test_y))
  weights = {
    'hidden': jnp.zeros((x.shape[1], _HIDDEN)),
    'hidden_bias': jnp.zeros(_HIDDEN),
    'out': jnp.zeros((_HIDDEN, outputs)),
    'out_bias': jnp.zeros(outputs),
  }
  flat, unravel = flatten_util.ravel_pytree(
    {'weights': weights, 'log_noise': jnp.zeros(())}
  )
  is_noise = flatten_util.ravel_pytree(
    {'weights': jax.tree.map(jnp.zeros_like, weights), 'log_noise': 1.0}
  )[0]
  prior_mean, prior_scale = -0.5 * is_noise, jnp.where(is_noise > 0, 0.5, 1.0)

  def forward(position, x):
    w = unravel(position)['weights']
    hidden = jnp.tanh(x @ w['hidden'] + w['hidden_bias'])
    return hidden @ w['out'] + w['out_bias']

  def log_likelihoods(position, x, y):
    out = forward(position, x)
    if num_classes:
      return jnp.take_along_axis(jax.nn.log_softmax(out), y[:, None], 1)[:, 0]
    log_noise = unravel(position)['log_noise']
    residual = (y - out[:, 0]) / jnp.exp(log_noise)
    return -0.5 * residual**2 - log_noise - 0.5 * jnp.log(2 * jnp.pi)

  def log_density(position):
    log_prior = -0.5 * jnp.sum(((position - prior_mean) / prior_scale) ** 2)
    return log_prior + jnp.sum(log_likelihoods(position, x, y))

  def summary(position):
    out = forward(position, test_x)
    # A number that is added to all logits changes nothing.
    return jnp.ravel(
      out - jnp.mean(out, 1, keepdims=True) if num_classes else out
    )

  def start(rng, num):
    normal = jax.random.normal(rng, (num, len(flat)))
    return prior_mean[None] + prior_scale[None] * normal

  return Problem(
    log_density,
    start,
    summary=summary,
    predict=_predicted(lambda w: log_likelihoods(w, test_x, test_y)),
    prior=prior_scale**2,
  )


def eight_schools(centred: bool) -> Problem:
  """Returns Rubin's eight schools, by effects or by effects in units of their scale.

  The mean is N(0, 100), the scale half normal of scale 10. Whatever the positions are,
  mean, log scale and the eight effects are compared.
  """
  y = jnp.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
  error = jnp.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])

  def log_density(position):
    mean, log_scale, rest = position[0], position[1], position[2:]
    scale = jnp.exp(log_scale)
    raw = (rest - mean) / scale if centred else rest
    effects = mean + scale * raw
    # The density of the scale is that of its logarithm times the scale; that of the
    # effects is that of `raw` over the scale, for each school.
    jacobian = (1 - len(y) if centred else 1) * log_scale
    log_prior = -0.5 * ((mean / 10) ** 2 + (scale / 10) ** 2 + jnp.sum(raw**2))
    return log_prior + jacobian - 0.5 * jnp.sum(((y - effects) / error) ** 2)

  def summary(position):
    mean, log_scale, rest = position[0], position[1], position[2:]
    effects = rest if centred else mean + jnp.exp(log_scale) * rest
    return jnp.concatenate([position[:2], effects])

  def start(rng, num):
    centre = jnp.array([5.0, 1.5] + [5.0 if centred else 0.0] * 8)
    scale = jnp.array([5.0, 0.5] + [5.0 if centred else 1.0] * 8)
    return centre[None] + scale[None] * jax.random.normal(rng, (num, 10))

  return Problem(log_density, start, summary=summary)


_GAUSSIANS = {'gaussian': gaussian, 'correlated': correlated, 'heavy': heavy}
# A problem's name to what makes it, in the order in which they are run.
PROBLEMS: dict[str, Callable[[], Problem]] = {
  'gaussian-50': lambda: gaussian(50),
  'logistic': logistic,
  'mixture-10': lambda: mixture(10),
  'correlated-50': lambda: correlated(50),
  'heavy-50': lambda: heavy(50),
  'schools': lambda: eight_schools(False),
  'schools-centred': lambda: eight_schools(True),
  'network-diabetes': lambda: network(sklearn_datasets.load_diabetes()),
  'network-wine': lambda: network(sklearn_datasets.load_wine(), 3),
  'banana': lambda: known(densities.banana()),
  'mixture-2': lambda: mixture(2),
  **{
    f'{name}-{dim}': functools.partial(make, dim)
    for dim in (2, 10, 200)
    for name, make in _GAUSSIANS.items()
  },
}
# Chains have trouble with the neck of this one: its truth is another's, which has the
# same law.
_TRUTH_OF = {'schools-centred': 'schools'}


@functools.cache
def get(name: str) -> Problem:
  """Returns a problem by its name."""
  return PROBLEMS[name]()


def truth(name: str, folder: pathlib.Path, num: int) -> np.ndarray:
  """Returns summaries [4 num, m] of draws that are the truth, in no order.

  Args:
    name: of a problem.
    folder: where the draws of chains are kept.
    num: draws of each of four chains.
  """
  name = _TRUTH_OF.get(name, name)
  path = folder / 'truth' / f'{name}_{num}.npy'
  if not path.exists():
    problem = get(name)
    if problem.sample is None:
      draws = _chains(problem, num)
    else:
      draws = problem.sample(jax.random.key(1000), _CHAINS * num)
    found = np.asarray(jax.lax.map(problem.summary, draws))
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.random.default_rng(0).permutation(found))
  return np.load(path, allow_pickle=False)


def check_chains(names: Sequence[str]) -> None:
  """Raises ValueError where a truth is made by chains, and BlackJAX is missing."""
  if any(get(name).sample is None for name in names):
    _blackjax()


def _blackjax():
  try:
    import blackjax  # pylint: disable=g-import-not-at-top
  except ImportError as error:
    raise ValueError(
      "The truth of a posterior is made by BlackJAX: pip install -e '.[bench]'."
    ) from error
  return blackjax


def _chains(problem: Problem, num: int) -> Array:
  """Returns the draws [4 num, d] of four chains of NUTS.

  Raises:
    ValueError: BlackJAX is not installed, or a summary's R-hat is not below 1.05.
  """
  blackjax = _blackjax()

  def chain(rng):
    warm_rng, rng = jax.random.split(rng)
    start = problem.start(rng, 1)[0]
    warm_up = blackjax.window_adaptation(blackjax.nuts, problem.log_density)
    (state, parameters), _ = warm_up.run(warm_rng, start, num_steps=1000)
    kernel = blackjax.nuts(problem.log_density, **parameters)

    def step(state, rng):
      state, _ = kernel.step(rng, state)
      return state, state.position

    return jax.lax.scan(step, state, jax.random.split(rng, num))[1]

  # One chain after another: in step, each would wait for the longest path of all.
  keys = jax.random.split(jax.random.key(1000), _CHAINS)
  draws = jax.jit(lambda keys: jax.lax.map(chain, keys))(keys)
  summaries = jax.lax.map(jax.vmap(problem.summary), draws)
  r_hat = jnp.max(blackjax.diagnostics.potential_scale_reduction(summaries))
  if not r_hat < 1.05:
    raise ValueError(f'Chains of NUTS disagree: R-hat is {r_hat:.3f}.')
  return jnp.reshape(draws, (-1, draws.shape[-1]))


def _predicted(log_likelihoods):
  """Returns the function of positions [n, d] to the mean log of a mean likelihood."""

  def predict(positions):
    each = jax.vmap(log_likelihoods)(positions)
    return jnp.mean(jax.nn.logsumexp(each, 0) - jnp.log(len(positions)))

  return predict
