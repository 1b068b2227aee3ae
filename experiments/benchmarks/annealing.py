"""Errors of annealed importance sampling where log Z is known: of an RBM's run.

Each of several keys estimates log Z with a step of 0.2 and with adapted ones, from
N(0, I) and from N(mean of the test data, I), at each number of temperatures. Beside
the true errors there is the standard error that an estimate gives of itself.

Example:
  python -m experiments.train --config=configs/contrastive_divergence_mnist.py:digits \
    --workdir=runs/cd_digits
  python -m experiments.benchmarks.annealing --workdir=runs/cd_digits
"""

from absl import app
from absl import flags
import jax
import numpy as np

from stein_jax import datasets
from stein_jax import energies
from stein_jax import samplers
from stein_jax.runs import configs
from stein_jax.runs import launch
from stein_jax.runs import reporting
from stein_jax.runs import training
from stein_jax.runs import workdirs

_WORKDIR = flags.DEFINE_string('workdir', None, 'A run of an energy RBM.')
_KEYS = flags.DEFINE_integer('keys', 10, 'Estimates of each.', lower_bound=2)
_CHAINS = flags.DEFINE_integer('chains', 100, 'Of an estimate.', lower_bound=2)
_TEMPERATURES = flags.DEFINE_multi_integer(
  'temperatures', [100, 1000], 'Intermediate densities.', lower_bound=1
)


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments: {argv[1:]}')
  launch.set_up()
  config = configs.complete(training.read_config(_WORKDIR.value))
  energy = workdirs.restore(config, _WORKDIR.value).energy
  mean = datasets.load(**config.evaluation.data)[:]['image'].mean(0)
  rows = [
    row(energy, num, base, center, step_size)
    for num in _TEMPERATURES.value
    for base, center in (('N(0, I)', 0.0), ('N(data mean, I)', mean))
    for step_size in (0.2, None)
  ]
  print(reporting.table(rows))


def row(energy, num_temperatures, base, base_mean, step_size) -> dict[str, str]:
  """Returns a line of the table: means over keys, and the spread of the errors."""

  @jax.jit
  def estimate(rng):
    log_weights, acceptance = samplers.annealed(
      rng,
      lambda x: -energies.value(energy, energy.params, x),
      energy.input_shape,
      num_chains=_CHAINS.value,
      num_temperatures=num_temperatures,
      step_size=step_size,
      base_mean=base_mean,
    )
    return (
      samplers.log_mean_exp(log_weights),
      samplers.log_mean_exp_error(log_weights),
      samplers.effective_sample_size(log_weights),
      acceptance,
    )

  keys = jax.random.split(jax.random.key(0), _KEYS.value)
  found = np.array([estimate(key) for key in keys], np.float64)
  errors = found[:, 0] - float(energies.exact_log_partition(energy))
  return {
    'temperatures': str(num_temperatures),
    'base': base,
    'step': 'adapted' if step_size is None else f'{step_size:g}',
    'error in nats': f'{errors.mean():.2f} ± {errors.std(ddof=1):.2f}',
    'root mean square': f'{np.mean(errors**2) ** 0.5:.2f}',
    'its own error': f'{found[:, 1].mean():.2f}',
    'ESS': f'{found[:, 2].mean():.1f}',
    'accepted': f'{found[:, 3].mean():.2f}',
  }


if __name__ == '__main__':
  flags.mark_flag_as_required('workdir')
  launch.run(main)
