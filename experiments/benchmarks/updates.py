"""Cost of one update of an energy by each way of learning, against CD-1's.

An RBM of ten hidden units on batches of 28x28 images; every update is compiled whole.
Exact score matching takes a derivative for every pixel, or the RBM's closed form.

Example:
  python -m experiments.benchmarks.updates --num=100
"""

import functools

from absl import flags
import jax
from ml_collections import ConfigDict

from experiments.benchmarks import report
from stein_jax import algorithms
from stein_jax import samplers
from stein_jax.runs import reporting

_NUM = flags.DEFINE_integer('num', 100, 'Images in a batch.', lower_bound=2)

CD = 'contrastive_divergence'
UPDATES = {
  'CD-1': (CD, {}),
  'CD-10': (CD, dict(chain=samplers.Langevin(0.1, 10))),
  'CD-1 Gibbs': (CD, dict(chain=samplers.Gibbs())),
  'SteinCD': ('stein_cd', {}),
  'Stein score matching': ('score_matching', dict(objective='stein')),
  'sliced score matching': ('score_matching', dict(objective='sliced')),
  'denoising score matching': ('score_matching', dict(objective='denoising')),
  'exact score matching, autodiff': (
    'score_matching',
    dict(objective='exact'),
  ),
  'exact score matching, closed form': (
    'score_matching',
    dict(objective='closed_form'),
  ),
  'exact maximum likelihood': ('maximum_likelihood', {}),
}


def measure():
  """Returns the text, lines and pictures that `report.run` takes."""
  rng = jax.random.key(0)
  batch = {'image': jax.random.uniform(rng, (_NUM.value, 28, 28, 1))}
  config = ConfigDict(
    dict(
      energy=dict(name='RBM', num_hidden=10),
      optimizer=dict(name='adam', learning_rate=1e-3),
      persistent=False,
    )
  )
  # From one first state, so that rows differ in the step alone.
  updates = {
    name: compiled(algorithms.get(algorithm), keywords, config, batch)
    for name, (algorithm, keywords) in UPDATES.items()
  }
  times = report.medians(updates, batch, rng)
  rows = [
    {
      'update by': name,
      'milliseconds': f'{1e3 * taken:.2f}',
      'times CD-1': f'{taken / times["CD-1"]:.2f}',
    }
    for name, taken in times.items()
  ]
  lines = [
    report.line(f'update by {name}', taken, 'CD-1', times['CD-1'])
    for name, taken in times.items()
    if name != 'CD-1'
  ]
  device = jax.devices()[0].device_kind
  title = f'RBM 784-10, {_NUM.value} images, on {device}'
  return f'{title}\n\n{reporting.table(rows)}', lines, {}


def compiled(algorithm, keywords, config, batch):
  """Returns a compiled step (batch, key) -> (state, metrics) from a fresh state."""
  state = algorithm.init(jax.random.key(1), config, batch)
  # Without donating the state, which every call begins from again.
  step = jax.jit(functools.partial(algorithm.step, **keywords))
  return functools.partial(step, state)


if __name__ == '__main__':
  report.run('updates', measure)
