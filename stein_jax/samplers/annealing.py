"""Annealed importance sampling, with and without resampling.

DDJ06: Del Moral, Doucet, Jasra. Sequential Monte Carlo Samplers. JRSS B 68, 2006.
arXiv cond-mat/0212648.
LW18: Lee, Whiteley. Variance Estimation in the Particle Filter. Biometrika 105, 2018.
arXiv 1509.00394.
"""

from collections.abc import Callable
import math
from typing import NamedTuple

from flax import struct
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from stein_jax import checks
from stein_jax import dtypes
from stein_jax.samplers import _steps
from stein_jax.samplers import weights
from stein_jax.types import Array, LogDensityFn, PRNGKey

_MAX_WARMUP = 50  # chains that adapt steps: their rate is known to 0.05
_LOG_ROOT_TWO_PI = 0.5 * math.log(2 * math.pi)


def annealed_importance(
  rng: PRNGKey,
  log_density_fn: LogDensityFn,
  shape: tuple[int, ...],
  *,
  num_chains: int,
  num_temperatures: int,
  step_size: float | None = None,
  init: Array | None = None,
  base_mean: Array | float = 0.0,
  base_scale: Array | float = 1.0,
) -> Array:
  """Returns log weights [num_chains], each an estimate of log Z = log int p.

  Chains go from a Gaussian p0 to p along p0^(1 - b) p^b, one MALA step at each of
  `num_temperatures` values of b on a sigmoid schedule. Their mean, and their
  `log_mean_exp`, are below log Z in expectation; backwards from exact samples
  the mean, and -log_mean_exp(-weights), are above it [N01] [GGA15].

  Args:
    rng: key of the chains.
    log_density_fn: x [n, *shape] to unnormalised log p [n].
    shape: of one example.
    num_chains: independent chains.
    num_temperatures: intermediate densities.
    step_size: delta of the MALA steps. None adapts one for each temperature, in a
      warm-up of at most 50 other chains.
    init: exact samples of p [num_chains, *shape], which run the chains backwards.
    base_mean: mean of p0; it broadcasts to the shape.
    base_scale: standard deviation of p0. Where p is wider than p0 the weights look
      equal, and are wrong.

  Raises:
    ValueError: an option out of range, samples of another shape, or a log density
      that is not [n].

  Examples:
    >>> from stein_jax import samplers
    >>> log_density = lambda x: -jnp.sum(x**2, -1) / 8  # Z = (8 pi)^(3 / 2)
    >>> log_weights = annealed_importance(
    ...   jax.random.key(0), log_density, (3,), num_chains=200, num_temperatures=50)
    >>> error = samplers.log_mean_exp(log_weights) - 1.5 * np.log(8 * np.pi)
    >>> bool(abs(error) < 0.3)
    True
  """
  options = dict(step_size=step_size, init=init)
  options |= dict(base_mean=base_mean, base_scale=base_scale)
  sizes = dict(num_chains=num_chains, num_temperatures=num_temperatures)
  return annealed(rng, log_density_fn, shape, **sizes, **options)[0]


def annealed(
  rng: PRNGKey,
  log_density_fn: LogDensityFn,
  shape: tuple[int, ...],
  *,
  num_chains: int,
  num_temperatures: int,
  step_size: float | None = None,
  init: Array | None = None,
  base_mean: Array | float = 0.0,
  base_scale: Array | float = 1.0,
) -> tuple[Array, Array]:
  """Returns (`annealed_importance`'s weights [num_chains], acceptance rate [])."""
  path = _path(
    rng,
    log_density_fn,
    shape,
    num_chains=num_chains,
    num_temperatures=num_temperatures,
    step_size=step_size,
    init=init,
    base_mean=base_mean,
    base_scale=base_scale,
  )

  def step(carry, inputs):
    here, log_weight = carry
    rng, now, then, step_size = inputs
    log_weight += _log_ratio(here, now, then)
    here, accept, _ = _steps.mala_step(
      rng, here, path.evaluate, step_size, _bridge(then)
    )
    return (here, log_weight), accept

  start = path.start, jnp.zeros(num_chains, path.start[0].dtype)
  (_, log_weights), accepts = lax.scan(step, start, path.inputs)
  # Backwards, the weights estimate -log Z: the base is normalised.
  log_weights = log_weights if init is None else -log_weights
  return log_weights, jnp.mean(accepts, dtype=jnp.float32)


class Resampled(NamedTuple):
  """An estimate of log Z by chains that are resampled, and how far to trust it.

  Attributes:
    log_partition: log Z [].
    error: its standard error [], 1 where all chains descend from one, of which nothing
      can be said, and nan of a single chain.
    log_weights: of the chains at the end [n].
    x: where they are, which with these weights is a sample of p [n, ...].
    ess: effective number of chains at the end [].
    smallest_ess: the smallest on the way, just before chains are resampled [].
    num_resamplings: how often they were [].
    acceptance: of the steps [].
  """

  log_partition: Array
  error: Array
  log_weights: Array
  x: Array
  ess: Array
  smallest_ess: Array
  num_resamplings: Array
  acceptance: Array


def annealed_resampling(
  rng: PRNGKey,
  log_density_fn: LogDensityFn,
  shape: tuple[int, ...],
  *,
  num_chains: int,
  num_temperatures: int,
  step_size: float | None = None,
  base_mean: Array | float = 0.0,
  base_scale: Array | float = 1.0,
  threshold: float = 0.5,
) -> Resampled:
  """Returns log Z = log int p by sequential Monte Carlo, with its error [DDJ06] [LW18].

  The chains are those of `annealed_importance`. Where the effective number of them
  falls below the threshold's share, they are drawn anew by their weights, so that
  those that went astray do not use up the rest of the path. Z is estimated without
  bias, and log Z from below in expectation.

  The effective number at the end says nothing of what was lost before: the error,
  which knows from which start each chain descends, and the smallest number on the way
  do. The base matters more than resampling: mean and scale of data are a good one.

  Args:
    rng: key of the chains.
    log_density_fn: x [n, *shape] to unnormalised log p [n].
    shape: of one example.
    num_chains: chains, which depend on each other once they are resampled.
    num_temperatures: intermediate densities.
    step_size: delta of the MALA steps. None adapts one for each temperature, in a
      warm-up of at most 50 other chains.
    base_mean: mean of the Gaussian where they start; it broadcasts to the shape.
    base_scale: its standard deviation.
    threshold: effective share of the chains, from 0 to 1, below which they are
      resampled; 0 for never.

  Raises:
    ValueError: an option out of range, or a log density that is not [n].

  Examples:
    >>> log_density = lambda x: -jnp.sum(x**2, -1) / 8  # Z = (8 pi)^(3 / 2)
    >>> found = annealed_resampling(
    ...   jax.random.key(0), log_density, (3,), num_chains=200, num_temperatures=50)
    >>> bool(abs(found.log_partition - 1.5 * np.log(8 * np.pi)) < 0.3)
    True
  """
  checks.non_negative(threshold=threshold)
  checks.at_most(1, threshold=threshold)
  path = _path(
    rng,
    log_density_fn,
    shape,
    num_chains=num_chains,
    num_temperatures=num_temperatures,
    step_size=step_size,
    base_mean=base_mean,
    base_scale=base_scale,
  )
  dtype = path.start[0].dtype

  def step(carry, inputs):
    here, log_weight, log_z, origin, count = carry
    rng, now, then, step_size = inputs
    log_weight += _log_ratio(here, now, then)
    ess = weights.effective_sample_size(log_weight)
    # Equal weights at the end would hide what the last ones were.
    due = (ess < threshold * num_chains) & (then < 1)
    log_z += jnp.where(due, weights.log_mean_exp(log_weight), 0)
    draw = _systematic(jax.random.fold_in(rng, 2), log_weight)
    source = jnp.where(due, draw, jnp.arange(num_chains))
    here, origin = jax.tree.map(lambda leaf: leaf[source], (here, origin))
    log_weight = jnp.where(due, 0, log_weight)
    here, accept, _ = _steps.mala_step(
      rng, here, path.evaluate, step_size, _bridge(then)
    )
    carry = here, log_weight, log_z, origin, count + due
    return carry, (accept, ess)

  start = (
    path.start,
    jnp.zeros(num_chains, dtype),
    jnp.zeros((), dtype),
    jnp.arange(num_chains),
    jnp.zeros((), int),
  )
  end, (accepts, ess) = lax.scan(step, start, path.inputs)
  (x, *_), log_weights, log_z, origin, count = end
  return Resampled(
    log_partition=log_z + weights.log_mean_exp(log_weights),
    error=_descent_error(log_weights, origin),
    log_weights=log_weights,
    x=x,
    ess=ess[-1],
    smallest_ess=jnp.min(ess),
    num_resamplings=count.astype(jnp.float32),
    acceptance=jnp.mean(accepts, dtype=jnp.float32),
  )


def _systematic(rng, log_weights):
  """Returns the numbers [n] of chains drawn by their weights, each as often as due.

  A chain of weight w is drawn n w times, rounded up or down: one uniform number shifts
  a comb of n teeth over the weights side by side.
  """
  num = len(log_weights)
  edges = jnp.cumsum(jax.nn.softmax(log_weights))
  comb = (jnp.arange(num) + jax.random.uniform(rng)) / num
  # Sums of floats do not end at 1 exactly, and chains of no weight must not be drawn.
  comb = jnp.minimum(comb, 1 - jnp.finfo(comb.dtype).epsneg) * edges[-1]
  return jnp.searchsorted(edges, comb.astype(edges.dtype), side='right')


def _descent_error(log_weights, origin):
  """Returns the standard error [] of log Z by who descends from whom [LW18].

  Chains of one origin count as one draw, of their weights' sum. The paper takes 1 / n
  off the relative variance for every resampling, since its draws are independent; a
  comb's are not, and without that term the error is right (tests/samplers).

  Args:
    log_weights: of the chains at the end [n].
    origin: from which chain of the start each descends [n].
  """
  shares = jax.nn.softmax(log_weights)
  of_origin = jnp.zeros_like(shares).at[origin].add(shares)
  return weights.log_mean_exp_error(jnp.log(of_origin))


class _Path(NamedTuple):
  """What chains do on their way from the base to p, or back.

  Attributes:
    start: (x, two log densities [n], two scores like x) of base and p.
    evaluate: function of x to these.
    inputs: of each temperature: key, inverse temperature before and after, step size.
  """

  start: tuple
  evaluate: Callable
  inputs: tuple


def _path(
  rng,
  log_density_fn,
  shape,
  *,
  num_chains,
  num_temperatures,
  step_size,
  base_mean,
  base_scale,
  init=None,
):
  """Returns the checked `_Path`; see `annealed_importance`."""
  checks.key(rng=rng)
  checks.function('a function of points', log_density_fn=log_density_fn)
  checks.count(num_chains=num_chains, num_temperatures=num_temperatures)
  checks.counts(empty=True, shape=shape)
  start_rng, chain_rng = jax.random.split(rng)
  base = _Gaussian.of(shape, base_mean, base_scale)
  if init is None:
    x = base.sample(start_rng, num_chains)
  elif np.shape(init) != (num_chains, *shape):
    raise ValueError(
      f'init has shape {np.shape(init)}, not (num_chains, *shape) = '
      f'{(num_chains, *shape)}.'
    )
  else:
    x = dtypes.at_least_float32(init)
  inverse_temperatures = _sigmoid(num_temperatures).astype(x.dtype)
  step_sizes = _step_sizes(
    rng, step_size, base, log_density_fn, num_chains, inverse_temperatures
  )
  if init is not None:
    inverse_temperatures, step_sizes = (
      each[::-1] for each in (inverse_temperatures, step_sizes)
    )
  keys = jax.random.split(chain_rng, num_temperatures)
  ends = inverse_temperatures[:-1], inverse_temperatures[1:]
  evaluate = _evaluate_both(base, log_density_fn, num_chains)
  return _Path(evaluate(x), evaluate, (keys, *ends, step_sizes[1:]))


def _log_ratio(here, now, then):
  """Returns the log ratio [n] of two bridges at points, before they move [N01]."""
  x, (of_base, of_target), _ = here
  return ((then - now) * (of_target - of_base)).astype(x.dtype)


@struct.dataclass
class _Gaussian:
  """The base of annealing, N(mean, diag scale^2), both like an example."""

  mean: Array
  scale: Array

  @classmethod
  def of(cls, shape, mean, scale):
    for name, value in dict(base_mean=mean, base_scale=scale).items():
      if not _broadcasts(np.shape(value), shape):
        raise ValueError(
          f'{name} has shape {np.shape(value)}, which does not broadcast to {shape}.'
        )
    checks.finite(base_mean=jnp.max(jnp.abs(jnp.asarray(mean))))
    checks.positive(base_scale=jnp.min(jnp.asarray(scale)))
    return cls(
      *(jnp.broadcast_to(v, shape).astype(float) for v in (mean, scale))
    )

  def sample(self, rng, num):
    noise = jax.random.normal(rng, (num, *self.mean.shape))
    return self.mean[None] + self.scale[None] * noise

  def log_density(self, x):
    # It is normalised, so that log Z of p is what the weights estimate.
    flat = (x - self.mean[None]) / self.scale[None]
    flat = flat.reshape(len(x), -1)
    volume = jnp.sum(jnp.log(self.scale)) + flat.shape[1] * _LOG_ROOT_TWO_PI
    return -0.5 * jnp.sum(flat**2, -1) - volume


def _broadcasts(shape, to):
  """Returns whether arrays of a shape broadcast to another one."""
  pairs = zip(shape[::-1], to[::-1], strict=False)
  return len(shape) <= len(to) and all(a in (1, b) for a, b in pairs)


def _sigmoid(num_temperatures):
  """Returns inverse temperatures [num_temperatures + 1] from 0 to 1."""
  # They lie close at both ends, where the densities change the most.
  ramp = jax.nn.sigmoid(jnp.linspace(-4.0, 4.0, num_temperatures + 1))
  return (ramp - ramp[0]) / (ramp[-1] - ramp[0])


def _evaluate_both(base, log_density_fn, num_chains):
  """Returns a function of x to (x, two log densities [n], two scores like x)."""
  density_fn = _steps.per_chain(log_density_fn, num_chains)

  def evaluate(x):
    pair = _steps.evaluate(base.log_density, x), _steps.evaluate(density_fn, x)
    _, log_densities, scores = zip(*pair, strict=True)
    return x, log_densities, scores

  return evaluate


def _bridge(inverse_temperature):
  """Returns the mix of a pair, of the base and of p, at that temperature."""
  return lambda pair: (
    (1 - inverse_temperature) * pair[0] + inverse_temperature * pair[1]
  )


def _step_sizes(
  rng, step_size, base, log_density_fn, num_chains, inverse_temperatures
):
  """Returns delta for each temperature [num]: the given one, or adapted ones."""
  if step_size is not None:
    checks.positive(step_size=step_size)
    return jnp.full(
      len(inverse_temperatures), step_size, inverse_temperatures.dtype
    )
  # Chains of their own find the steps, by a key of their own. Given them the steps
  # are constants, so that the weights' mean is Z for any.
  return _adapted_steps(
    jax.random.fold_in(rng, 2),
    base,
    log_density_fn,
    min(num_chains, _MAX_WARMUP),
    inverse_temperatures,
  )


def _adapted_steps(rng, base, log_density_fn, num_chains, inverse_temperatures):
  """Returns a step size for each temperature [num], found by chains going forwards."""
  evaluate = _evaluate_both(base, log_density_fn, num_chains)
  start_rng, chain_rng = jax.random.split(rng)
  here = evaluate(base.sample(start_rng, num_chains))
  # The best step of a Gaussian, in units of its scale, which the base is.
  scale = jnp.exp(jnp.mean(jnp.log(base.scale)))
  best = scale * _steps.BEST_STEP * base.scale.size ** (-1 / 6)
  first = jnp.log(best).astype(inverse_temperatures.dtype)

  def step(carry, inputs):
    here, log_step = carry
    rng, inverse_temperature = inputs
    here, _, rate = _steps.mala_step(
      rng, here, evaluate, jnp.exp(log_step), _bridge(inverse_temperature)
    )
    # On a Gaussian the rate falls by 1.1 as the logarithm grows by 1, so that the
    # whole difference is about a Newton step. A flat density has no best step.
    log_step += (jnp.mean(rate) - _steps.BEST_RATE).astype(log_step.dtype)
    log_step = jnp.clip(
      log_step, first - _steps.FURTHEST, first + _steps.FURTHEST
    )
    return (here, log_step), log_step

  keys = jax.random.split(chain_rng, len(inverse_temperatures) - 1)
  inputs = keys, inverse_temperatures[1:]
  _, log_steps = lax.scan(step, (here, first), inputs)
  return jnp.exp(jnp.concatenate([first[None], log_steps]))
