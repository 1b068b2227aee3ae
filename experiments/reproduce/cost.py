"""Whether amortising saves computation: what likelihood an RBM on MNIST costs.

Every way of learning has as many evaluations of the energy, or its gradient, on a
batch: one for each step of a chain or of SVGD, and two for an update. SteinGAN's
generator costs none of these, but time: so the likelihood stands against both. The
RBM is centred, rates are constant, chains are Langevin's. Likelihoods are exact, in
float64; time is that of updates alone. Every finished run is a file: an interrupted
call continues.

Example:
  python -m experiments.reproduce.cost --results=results/cost
"""

import functools
import pathlib
from typing import NamedTuple

from absl import app
from absl import flags
import jax
import numpy as np

from experiments.benchmarks import timing
from experiments.reproduce import likelihood
from experiments.reproduce import rows
from stein_jax import algorithms
from stein_jax import build
from stein_jax import datasets
from stein_jax import energies
from stein_jax import locations
from stein_jax.runs import launch
from stein_jax.runs import reporting

_RESULTS = flags.DEFINE_string(
  'results', 'results/cost', 'Folder of the results.'
)
_EVALUATIONS = flags.DEFINE_integer(
  'evaluations', 12_000, 'Of the energy on a batch, in each run.', lower_bound=1
)
_SEEDS = flags.DEFINE_integer('seeds', 3, 'Runs of every row.', lower_bound=2)
_SMOKE = flags.DEFINE_bool(
  'smoke', False, 'A few updates of two seeds of every row: a minute.'
)

LOOKS = 12  # at the likelihood of a run
CHAIN = {'step.sampler': 'langevin', 'step.step_size': 1.0}
CD = ('contrastive_divergence_mnist', '')
RATE = 1e-3  # SteinGAN's: at 1e-3 its energy runs ahead of the sampler
SAMPLER_RATE = 3e-4


class Plan(NamedTuple):
  """What one call is to do."""

  results: pathlib.Path
  evaluations: int
  seeds: int
  smoke: bool


# (row, evaluations of an update).
ROWS = (
  (
    rows.Row(
      'MCMC-MLE, 100 steps from noise',
      ('langevin_ebm_mnist', ''),
      {'step.num_steps': 100, 'step.step_size': 1.0, 'step.clip': ()},
    ),
    102,
  ),
  (rows.Row('CD-1', CD, CHAIN), 3),
  (rows.Row('CD-10', CD, {**CHAIN, 'step.num_steps': 10}), 12),
  (rows.Row('PCD', CD, {**CHAIN, 'persistent': True}), 3),
  (rows.Row('SteinCD', ('stein_cd_mnist', '')), 3),
  (rows.Row('SteinGAN', ('steingan_mnist', 'centred')), 3),
)


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments: {argv[1:]}')
  launch.set_up()
  smoke = _SMOKE.value
  if smoke:  # compiling is nearly all of its time
    jax.config.update('jax_disable_most_optimizations', True)
  plan = Plan(
    locations.absolute(_RESULTS.value),
    evaluations=204 if smoke else _EVALUATIONS.value,
    seeds=2 if smoke else _SEEDS.value,
    smoke=smoke,
  )
  settings = rows.claim(plan)
  costs = {row.name: cost for row, cost in ROWS}
  rows.run_all(
    plan.results,
    [row for row, _ in ROWS],
    plan.seeds,
    lambda row, seed: run(plan, row, costs[row.name], seed),
  )
  report(plan, settings)


def get_config(row: rows.Row, seed: int):
  """Returns the row's config, with the energy, data and rates that all share."""
  config = rows.get_config(row, seed)
  shared = rows.get_config(ROWS[-1][0], seed)
  config.energy, config.data = shared.energy, shared.data
  config.batch_size = shared.batch_size
  sampler = config.algorithm == 'steingan'
  config['energy_optimizer' if sampler else 'optimizer'] = dict(
    name='adam', b1=0.5, learning_rate=SAMPLER_RATE if sampler else RATE
  )
  return config


def run(plan: Plan, row: rows.Row, cost: int, seed: int):
  """Returns the likelihoods of one run over evaluations and seconds; no images."""
  config = get_config(row, seed)
  data = images(plan.smoke)
  module = build.build(energies, **config.energy)

  def look(state, _):
    params = jax.tree.map(lambda leaf: leaf[None], state.energy.params)
    return float(likelihood.exact_log_likelihoods(module, params, data)[1][0])

  updates = plan.evaluations // cost
  every = max(1, updates // LOOKS)
  state, curve = rows.train(config, updates, row.name, every=every, look=look)
  step = jax.jit(
    functools.partial(algorithms.get(config.algorithm).step, **config.step)
  )
  source = datasets.load(**config.data)
  batch = next(datasets.batches(source, config.batch_size, seed=seed))
  arguments = (state, batch, jax.random.key(seed))
  taken = timing.medians({'update': step}, *arguments, seconds=1.0)['update']
  done = every * np.arange(1, len(curve) + 1)
  return {
    'curve': curve,
    'evaluations': (cost * done).tolist(),
    'elapsed': (taken * done).tolist(),
    'test': curve[-1],
    'best': max(curve),
    'updates': updates,
    'milliseconds': 1e3 * taken,
    'in_all': taken * updates,
  }, np.zeros((0,))


@functools.lru_cache(maxsize=1)
def images(smoke: bool) -> likelihood.Images:
  """Returns MNIST's images."""
  return likelihood.load('mnist', limit=1000 if smoke else None)


def report(plan: Plan, settings) -> None:
  """Writes table.md, the figures and report.html of what is there; prints tables."""
  kept = [row for row, _ in ROWS]
  lines = rows.table(plan.results, kept, _COLUMNS, plan.seeds)
  floor = {
    'N(training mean, I)': likelihood.gaussian_floors(images(plan.smoke))[
      'N(training mean, I)'
    ]
  }
  sections = []
  for name, label in (
    ('evaluations', 'evaluations of the energy on a batch'),
    ('elapsed', 'seconds of updates'),
  ):
    series = {}
    for row in kept:
      found = rows.results(plan.results, row, plan.seeds)
      x = np.mean([result[name] for result in found], 0)
      series[row.name] = (x, np.array([r['curve'] for r in found]).T)
    png = reporting.curves(
      series, xlabel=label, ylabel='test log likelihood (nats)', floor=floor
    )
    (plan.results / f'{name}.png').write_bytes(png)
    sections.append((f'Test log likelihood against {label}', png))
  title = 'What the likelihood of an RBM on MNIST costs'
  rows.write_report(
    plan.results, title, {'Equal evaluations': lines}, sections, settings
  )


_COLUMNS = {
  'test (nats)': 'test',
  'best on the way': 'best',
  'updates': 'updates',
  'milliseconds an update': 'milliseconds',
  'seconds of updates': 'in_all',
}


if __name__ == '__main__':
  app.run(main)
