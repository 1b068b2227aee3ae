"""Cost of the three repulsions of a feature kernel, against one pass back.

The lower bound is one vector-Jacobian product of the features of the batch: no
form can do with less. The features are those of the MNIST autoencoder energy, at a
quarter of its width, normalised together with as many data, and of an RBM.

Example:
  python -m experiments.benchmarks.repulsion --num=50
"""

import statistics
import time

from absl import app
from absl import flags
import jax

from stein_jax import energies
from stein_jax import kernels
from stein_jax import learners
from stein_jax import reporting
from stein_jax import stein

_NUM = flags.DEFINE_integer('num', 50, 'Particles.', lower_bound=2)
_REPEATS = flags.DEFINE_integer(
  'repeats', 5, 'Timings, of which the median counts.', lower_bound=1
)


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments: {argv[1:]}')
  num = _NUM.value
  x, data = jax.random.uniform(jax.random.key(0), (2, num, 28, 28, 1))
  rows = []
  for name, feature_fn in feature_functions(data).items():
    features = feature_fn(x)
    kernel = kernels.at_median('rbf', features)
    bound = seconds(
      lambda x, f=feature_fn, e=features: jax.vjp(f, x)[1](e)[0], x
    )
    rows.append(row(name, 'one pass back', bound, bound))
    for form in ('nearest', 'swapped', 'exact'):
      taken = seconds(
        lambda x, f=feature_fn, k=kernel, form=form: stein.feature_repulsion(
          x, f, k, form=form
        ),
        x,
      )
      rows.append(row(name, form, taken, bound))
  print(f'{num} particles on {jax.devices()[0].device_kind}')
  print(reporting.table(rows))


def feature_functions(data):
  """Returns {name: particles to features} of networks at their start."""
  convs = ((16, 5, 2, 2), (32, 5, 2, 2), (128, 7, 7, 0))
  modules = {
    'autoencoder': energies.Autoencoder(convs=convs),
    'RBM': energies.RBM(num_hidden=10),
  }
  functions = {}
  for name, module in modules.items():
    energy = learners.create(
      jax.random.key(1), module, dict(name='sgd', learning_rate=0.1), data
    )
    functions[name] = lambda x, energy=energy: energies.pair(
      energy, energy.params, data, x, method='features'
    )[1]
  return functions


def seconds(function, x) -> float:
  """Returns the median time of a compiled call."""
  compiled = jax.jit(function)
  jax.block_until_ready(compiled(x))
  times = []
  for _ in range(_REPEATS.value):
    begin = time.monotonic()
    jax.block_until_ready(compiled(x))
    times.append(time.monotonic() - begin)
  return statistics.median(times)


def row(name, form, taken, bound):
  return {
    'features': name,
    'form': form,
    'milliseconds': f'{1e3 * taken:.2f}',
    'times one pass back': f'{taken / bound:.1f}',
  }


if __name__ == '__main__':
  app.run(main)
