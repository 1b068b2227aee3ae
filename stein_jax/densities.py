"""Known log densities: targets for particles, sources of toy data, tests.

Each public function returns a `Density`; to add one is to add a function.

Examples:
  >>> density = banana()
  >>> density.sample(jax.random.key(0), 100).shape
  (100, 2)
  >>> print(jax.jit(jax.grad(density.log_density))(jnp.array([0.0, 0.5])))
  [ 0. -4.]
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stein_jax import checks
from stein_jax import dtypes
from stein_jax.types import Array, Batch, PRNGKey, Tree


class Density(NamedTuple):
  """A log density over one position, and how to draw.

  Attributes:
    log_density: (position, *batch) -> log p [], up to a constant.
    start: (rng, num, batch) -> particles, leaves [num, ...], to begin from.
    sample: (rng, num) -> exact draws [num, d]; None where nobody knows how.
  """

  log_density: Callable[..., Array]
  start: Callable[[PRNGKey, int, Batch | None], Tree]
  sample: Callable[[PRNGKey, int], Array] | None


def mixture(
  means: Array, scale: float, weights: Array, start: float
) -> Density:
  """Returns a mixture of N(mean, scale^2 I); particles start at N(start, I).

  Args:
    means: of the parts [k, d].
    scale: their standard deviation.
    weights: of the parts [k], which need not add up to 1.
    start: mean of the particles' coordinates.

  Raises:
    ValueError: the means are not [k, d]; or the weights are not as many, not finite,
      below 0, or all 0.
  """
  checks.positive(scale=scale)
  checks.finite(start=start)
  # Traced weights have no values that could be refused.
  if not isinstance(weights, jax.core.Tracer):
    values = np.asarray(weights, float)
    for i, value in enumerate(values.ravel()):
      checks.non_negative(**{f'weights[{i}]': value})
    checks.positive(**{'sum(weights)': np.sum(values)})
  scale = 1.0 * scale  # the square of an integer may wrap
  means, weights = map(dtypes.at_least_float32, (means, weights))
  if means.ndim != 2:
    raise ValueError(f'means has shape {means.shape}; wanted: [k, d].')
  checks.shape(means.shape[:1], weights=weights)
  d = means.shape[1]

  def log_density(position, *batch):
    del batch
    position = dtypes.at_least_float32(position)
    checks.shape((d,), position=position)
    sq_dist = jnp.sum((position[None] - means) ** 2, -1)
    constant = -0.5 * d * jnp.log(2 * jnp.pi * scale**2)
    return (
      jax.nn.logsumexp(-0.5 * sq_dist / scale**2, b=weights / jnp.sum(weights))
      + constant
    )

  def sample(rng, num):
    which_rng, noise_rng = jax.random.split(rng)
    which = jax.random.categorical(which_rng, jnp.log(weights), shape=(num,))
    return means[which] + scale * jax.random.normal(noise_rng, (num, d))

  return Density(log_density, _normal_start(d, start), sample)


def two_modes() -> Density:
  """Returns N(-2, 1) / 3 + 2 N(2, 1) / 3, begun at N(-10, 1) [LW16 sec 5].

  Examples:
    >>> print(two_modes().sample(jax.random.key(0), 5).shape)
    (5, 1)
  """
  means, weights = jnp.array([[-2.0], [2.0]]), jnp.array([1.0, 2.0])
  return mixture(means, 1.0, weights, start=-10.0)


def eight_gaussians(radius: float = 4.0, scale: float = 0.5) -> Density:
  """Returns eight equal Gaussians on a circle in two dimensions."""
  checks.positive(radius=radius, scale=scale)
  # Eight modes at equal angles.
  angle = jnp.arange(8.0) * jnp.pi / 4
  means = radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)], 1)
  return mixture(means, scale, jnp.ones(8), start=0.0)


def banana(curvature: float = 0.5, scale: float = 0.5) -> Density:
  """Returns x ~ N(0, 1), y | x ~ N(curvature (x^2 - 1), scale^2)."""
  checks.finite(curvature=curvature)
  checks.positive(scale=scale)

  def log_density(position, *batch):
    del batch
    position = dtypes.at_least_float32(position)
    checks.shape((2,), position=position)
    x, y = position
    residual = (y - curvature * (x**2 - 1)) / scale
    return -0.5 * (x**2 + residual**2) - jnp.log(2 * jnp.pi * scale)

  def sample(rng, num):
    x, y = jax.random.normal(rng, (2, num))
    return jnp.stack([x, curvature * (x**2 - 1) + scale * y], 1)

  return Density(log_density, _normal_start(2, 0.0), sample)


def logistic_regression(num_examples: int) -> Density:
  """Returns Bayesian logistic regression on a batch [LW16 sec 5].

  The prior is weights ~ N(0, I / alpha), alpha ~ Gamma(1, rate 0.01), with the
  intercept among the weights. Positions are {'weights': [d + 1], 'log_precision': []};
  the batch has 'image' [n, d] and 'label' [n] in {0, 1}. The likelihood of a minibatch
  is scaled to `num_examples`.

  `start` and the density refuse labels other than integers [n] of 0 and 1. Traced
  labels have no value yet: other ones make the density nan.
  """
  checks.count(num_examples=num_examples)
  # The paper's hyper-prior on the precision [LW16 sec 5].
  rate = 0.01

  def log_density(position, batch):
    position = jax.tree.map(dtypes.at_least_float32, position)
    weights, log_precision = position['weights'], position['log_precision']
    x = dtypes.at_least_float32(batch['image'])
    label = batch['label']
    checks.labels(2, label=label)
    label = jnp.asarray(label)
    checks.shape((len(label), len(weights) - 1), image=x)
    checks.shape((), log_precision=log_precision)
    # The last weight is the intercept, and has the prior of the others.
    logits = x @ weights[:-1] + weights[-1]
    # A comparison alone would take every other label for 0.
    sign = jnp.where(label == 1, 1.0, jnp.where(label == 0, -1.0, jnp.nan))
    log_likelihood = num_examples * jnp.mean(jax.nn.log_sigmoid(sign * logits))
    precision = jnp.exp(log_precision)
    log_prior = 0.5 * (
      len(weights) * log_precision - precision * weights @ weights
    )
    # This is Gamma(1, rate) on the precision, as a density of its logarithm.
    log_hyperprior = log_precision - rate * precision
    return log_likelihood + log_prior + log_hyperprior

  def start(rng, num, batch):
    label = np.asarray(batch['label'])
    wrong = label[(label < 0) | (label > 1)]
    if wrong.size:
      raise ValueError(
        f'label={wrong[0]} must be 0 or 1: logistic regression has two classes.'
      )
    checks.labels(2, label=label)
    d = batch['image'].shape[1] + 1
    return {
      # Small, so that no logit begins where the sigmoid is flat.
      'weights': 0.1 * jax.random.normal(rng, (num, d)),
      'log_precision': 0.1
      * jax.random.normal(jax.random.fold_in(rng, 1), (num,)),
    }

  return Density(log_density, start, None)


def _normal_start(d, mean):
  return lambda rng, num, batch: mean + jax.random.normal(rng, (num, d))
