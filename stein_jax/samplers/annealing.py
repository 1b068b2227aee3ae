"""Annealed importance sampling."""

import math

from flax import struct
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from stein_jax import checks
from stein_jax import dtypes
from stein_jax.samplers import _steps
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
  evaluate = _evaluate_both(base, log_density_fn, num_chains)

  def step(carry, inputs):
    here, log_weight = carry
    rng, now, then, step_size = inputs
    # The weight grows before the move [N01], by the ratio of two bridges at x.
    of_base, of_target = here[1]
    change = (then - now) * (of_target - of_base)
    log_weight += change.astype(log_weight.dtype)
    here, accept, _ = _steps.mala_step(
      rng, here, evaluate, step_size, _bridge(then)
    )
    return (here, log_weight), accept

  keys = jax.random.split(chain_rng, num_temperatures)
  inputs = inverse_temperatures[:-1], inverse_temperatures[1:], step_sizes[1:]
  start = evaluate(x), jnp.zeros(num_chains, x.dtype)
  (_, log_weights), accepts = lax.scan(step, start, (keys, *inputs))
  # Backwards, the weights estimate -log Z: the base is normalised.
  log_weights = log_weights if init is None else -log_weights
  return log_weights, jnp.mean(accepts, dtype=jnp.float32)


@struct.dataclass
class _Gaussian:
  """The base of annealing, N(mean, diag scale^2), both like an example."""

  mean: Array
  scale: Array

  @classmethod
  def of(cls, shape, mean, scale):
    for name, value in dict(base_mean=mean, base_scale=scale).items():
      if np.broadcast_shapes(np.shape(value), shape) != tuple(shape):
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
