"""Cost of the three repulsions of a feature kernel, against one pass back.

The lower bound is one vector-Jacobian product of the features of the batch: no
form can do with less. The features are those of the MNIST autoencoder energy, at a
quarter of its width, normalised together with as many data, and of an RBM.

Example:
  python -m experiments.benchmarks.repulsion --num=50
"""

import functools

from absl import flags
import jax

from experiments.benchmarks import report
from stein_jax import energies
from stein_jax import kernels
from stein_jax import learners
from stein_jax import stein
from stein_jax.runs import reporting

_NUM = flags.DEFINE_integer('num', 50, 'Particles.', lower_bound=2)


def measure():
  """Returns the text, lines and pictures that `report.run` takes."""
  num = _NUM.value
  x, data = jax.random.uniform(jax.random.key(0), (2, num, 28, 28, 1))
  rows, lines = [], []
  for name, feature_fn in feature_functions(data).items():
    features = feature_fn(x)
    kernel = kernels.RBF().at(features)
    forms = {
      form: functools.partial(
        stein.feature_repulsion, feature_fn=feature_fn, kernel=kernel, form=form
      )
      for form in ('nearest', 'swapped', 'exact')
    }
    # What every form has to do at least once: pull a row of features back to
    # pixels.
    pull = lambda x, f=feature_fn, e=features: jax.vjp(f, x)[1](e)[0]
    times = report.medians(
      {n: jax.jit(f) for n, f in {'one pass back': pull, **forms}.items()}, x
    )
    bound = times['one pass back']
    rows += [row(name, form, taken, bound) for form, taken in times.items()]
    lines += [
      report.line(
        f'{form} repulsion, features of the {name}',
        taken,
        'one pass back',
        bound,
      )
      for form, taken in times.items()
      if form != 'one pass back'
    ]
  title = f'{num} particles on {jax.devices()[0].device_kind}'
  return f'{title}\n\n{reporting.table(rows)}', lines, {}


def feature_functions(data):
  """Returns {name: particles to features} of networks at their start."""
  # A quarter of the paper's widths, so that 'exact', which takes a pass a
  # particle, ends on two cores.
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
    # As in SteinGAN, whose samples are normalised together with data.
    functions[name] = lambda x, energy=energy: energies.pair(
      energy, energy.params, data, x, method='features'
    )[1]
  return functions


def row(name, form, taken, bound):
  return {
    'features': name,
    'form': form,
    'milliseconds': f'{1e3 * taken:.2f}',
    'times one pass back': f'{taken / bound:.1f}',
  }


if __name__ == '__main__':
  report.run('repulsion', measure)
