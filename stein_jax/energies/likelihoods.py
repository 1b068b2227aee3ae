"""Likelihoods of an energy, with an exact or an estimated log Z."""

from stein_jax import checks
from stein_jax import learners
from stein_jax import samplers
from stein_jax.energies import values
from stein_jax.learners import Learner
from stein_jax.types import Array, Params, PRNGKey


def check_density(energy: Learner) -> None:
  """Raises ValueError if the energy mixes its batch and has no density exp(-E)."""
  if learners.mixes(energy):
    raise ValueError(
      'This energy mixes its batch, so that a single example has no density exp(-E) '
      "and no likelihood; allowed: an energy with norm='layer' or 'none'."
    )


def log_partition(energy: Learner, params: Params) -> Array:
  """Returns log Z [] of the energy without dropout, by the energy's own method.

  Raises:
    ValueError: the energy mixes its batch or has no such method, or the method's
      result is not [].
  """
  check_density(energy)
  if not learners.has_method(energy, 'log_partition'):
    raise ValueError(
      'This energy has no method log_partition, as RBM has; '
      'energies.ais_log_partition estimates log Z.'
    )
  found = learners.call(energy, params, method='log_partition')
  checks.shape((), **{"The energy's log_partition": found})
  return found


def log_likelihood(energy: Learner, x: Array, log_partition: Array) -> Array:
  """Returns log p(x) = -E(x) - log Z [n], in nats.

  Raises:
    ValueError: the energy mixes its batch, or E is not [n].
  """
  check_density(energy)
  return -values.value(energy, energy.params, x) - log_partition


def exact_log_partition(energy: Learner) -> Array:
  """Returns log Z [] from the energy's own method; see `log_partition`."""
  return log_partition(energy, energy.params)


def ais_log_partition(
  energy: Learner,
  rng: PRNGKey,
  *,
  num_chains: int = 100,
  num_temperatures: int = 1000,
  step_size: float | None = None,
  init: Array | None = None,
  base_mean: Array | float | None = None,
  base_scale: Array | float = 1.0,
  resample: bool = False,
) -> Array:
  """Returns the estimate of log Z [] of `ais_estimate`, without its error.

  From N(base_mean, base_scale^2) the estimate is a lower bound in expectation. From
  exact samples `init` it is an upper bound.

  Args:
    energy: the learner.
    rng: key of the chains.
    num_chains: independent chains.
    num_temperatures: intermediate densities.
    step_size: delta of the MALA steps; None adapts one for each temperature.
    init: exact samples [num_chains, ...], which run the chains backwards.
    base_mean: where the chains start; it broadcasts to an example. None is 0. The mean
      of the data takes far fewer temperatures.
    base_scale: standard deviation there.
    resample: whether chains are drawn anew by their weights where few count, as
      `samplers.annealed_resampling` does; not backwards.

  Raises:
    ValueError: the energy mixes its batch, E is not [n], or an option is out of range.
  """
  found = ais_estimate(
    energy,
    rng,
    num_chains=num_chains,
    num_temperatures=num_temperatures,
    step_size=step_size,
    init=init,
    base_mean=base_mean,
    base_scale=base_scale,
    resample=resample,
  )
  return found['log_partition']


def ais_estimate(
  energy: Learner,
  rng: PRNGKey,
  *,
  num_chains: int = 100,
  num_temperatures: int = 1000,
  step_size: float | None = None,
  init: Array | None = None,
  base_mean: Array | float | None = None,
  base_scale: Array | float = 1.0,
  resample: bool = False,
) -> dict[str, Array]:
  """Returns log Z by annealed importance sampling and how far it is to be trusted, [].

  They are 'log_partition', its standard error 'log_partition_error', the effective
  number of chains 'log_partition_ess' and the 'log_partition_acceptance' of the steps;
  of chains that are resampled also 'log_partition_smallest_ess', on the way. The
  arguments are those of `ais_log_partition`. The error holds where it is below 0.3 or
  so: larger ones are too small, and no chain knows of a mode that none has met.

  Raises:
    ValueError: the energy mixes its batch, E is not [n], or an option is out of range.
  """
  check_density(energy)
  checks.flag(resample=resample)
  log_density = lambda x: -values.value(energy, energy.params, x)
  options = dict(
    num_chains=num_chains,
    num_temperatures=num_temperatures,
    step_size=step_size,
    base_mean=0.0 if base_mean is None else base_mean,
    base_scale=base_scale,
  )
  if resample:
    if init is not None:
      raise ValueError('resample=True goes forwards only; allowed: no init.')
    found = samplers.annealed_resampling(
      rng, log_density, energy.input_shape, **options
    )
    return {
      'log_partition': found.log_partition,
      'log_partition_error': found.error,
      'log_partition_ess': found.ess,
      'log_partition_smallest_ess': found.smallest_ess,
      'log_partition_acceptance': found.acceptance,
    }
  log_weights, acceptance = samplers.annealed(
    rng, log_density, energy.input_shape, init=init, **options
  )
  # Backwards the weights estimate 1 / Z without bias, hence the upper bound.
  sign = 1 if init is None else -1
  return {
    'log_partition': sign * samplers.log_mean_exp(sign * log_weights),
    'log_partition_error': samplers.log_mean_exp_error(sign * log_weights),
    'log_partition_ess': samplers.effective_sample_size(sign * log_weights),
    'log_partition_acceptance': acceptance,
  }
