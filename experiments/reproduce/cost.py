"""Whether amortising saves computation: what likelihood an RBM on MNIST costs.

Every way of learning has as many evaluations of the energy, or its gradient, on a
batch: one for each step of a chain or of SVGD, and two for an update. SteinGAN's
generator costs none of these, but it takes time: so the likelihood stands against both.
The RBM is centred, rates are constant, chains are Langevin's. Likelihoods are exact, in
float64; time is that of updates alone. Every finished run is a file: an interrupted
call continues.

Example:
  python -m experiments.reproduce.cost --results=results/cost
"""

import jax
import numpy as np

from experiments.benchmarks import timing
from experiments.reproduce import budgets
from experiments.reproduce import likelihood
from experiments.reproduce import rows
from experiments.reproduce import scripts
from stein_jax import build
from stein_jax import datasets
from stein_jax import energies
from stein_jax.runs import configs
from stein_jax.runs import launch
from stein_jax.runs import reporting

# An exact likelihood takes longer than many updates; twelve points make a
# curve.
LOOKS = 12  # at the likelihood of a run
# Langevin for all, since a Gibbs sweep has another cost.
CHAIN = {'step.chain.name': 'Langevin', 'step.chain.step_size': 1.0}
CD = ('contrastive_divergence_mnist', '')
RATE = 1e-3  # SteinGAN's: at 1e-3 its energy runs ahead of the sampler
SAMPLER_RATE = 3e-4
STEINGAN = rows.Row('steingan', 'SteinGAN', ('steingan_mnist', 'centred'))
ROWS = (
  rows.Row(
    'mcmc-mle',
    'MCMC-MLE, 100 steps from noise',
    ('langevin_ebm_mnist', ''),
    {'step.chain': dict(name='Langevin', step_size=1.0, num_steps=100)},
  ),
  rows.Row('cd-1', 'CD-1', CD, CHAIN),
  rows.Row('cd-10', 'CD-10', CD, {**CHAIN, 'step.chain.num_steps': 10}),
  rows.Row('pcd', 'PCD', CD, {**CHAIN, 'persistent': True}),
  rows.Row('stein-cd', 'SteinCD', ('stein_cd_mnist', '')),
  STEINGAN,
)
FEWEST = 3  # evaluations of an update


def get_config(row: rows.Row, seed: int):
  """Returns the row's config, with the energy, data and rates that all share."""
  config = rows.get_config(row, seed)
  shared = rows.get_config(STEINGAN, seed)
  # What rows share is set here and not in each: rows differ in how they learn
  # alone.
  config.energy, config.data = shared.energy, shared.data
  config.batch_size = shared.batch_size
  sampler = config.algorithm == 'steingan'
  config['energy_optimizer' if sampler else 'optimizer'] = dict(
    name='adam', b1=0.5, learning_rate=SAMPLER_RATE if sampler else RATE
  )
  return config


def run_row(plan: scripts.Plan, row: rows.Row, seed: int):
  """Returns the likelihoods of one run over evaluations and seconds; no images."""
  config = get_config(row, seed)
  data = images(plan)
  module = build.build(energies, **config.energy)

  def look(state):
    params = jax.tree.map(lambda leaf: leaf[None], state.energy.params)
    return float(likelihood.exact_log_likelihoods(module, params, data)[1][0])

  cost = budgets.evaluations(config)
  updates = trained(plan, row).num_steps
  every = max(1, updates // LOOKS)
  state, curve = rows.train(config, updates, row.name, every=every, look=look)
  # Measured apart, since the run also looks at likelihoods, reads data and
  # shows progress.
  taken = seconds_of_update(config, state, seed)
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
  }, None


def trained(plan: scripts.Plan, row: rows.Row):
  """Returns the row's config, with as many updates as its evaluations allow."""
  config = get_config(row, 0)
  # Equal evaluations: who spends more on an update makes fewer of them.
  config.num_steps = max(1, plan.steps * FEWEST // budgets.evaluations(config))
  return config


def seconds_of_update(config, state, seed: int) -> float:
  """Returns how long an update takes, apart from all that is measured."""
  step = jax.jit(configs.step(config))
  source = datasets.load(**config.data)
  batch = next(datasets.batches(source, config.batch_size, seed=seed))
  arguments = (state, batch, jax.random.key(seed))
  return timing.medians({'update': step}, *arguments, seconds=1.0)['update']


def images(plan: scripts.Plan) -> likelihood.Images:
  """Returns MNIST's images."""
  return likelihood.load('mnist', limit=1000 if plan.smoke else None)


def report(plan: scripts.Plan) -> scripts.Report:
  """Returns the table and the figures of what is there."""
  mean = 'N(training mean, I)'
  floor = {mean: likelihood.gaussian_floors(images(plan))[mean]}
  figures = {}
  for name, label in (
    ('evaluations', 'evaluations of the energy on a batch'),
    ('elapsed', 'seconds of updates'),
  ):
    series = {}
    for row in ROWS:
      found = rows.results(plan.results, row, plan.seeds)
      if found:
        # Seconds differ a little from seed to seed, evaluations do not.
        x = np.mean([result[name] for result in found], 0)
        series[row.name] = (x, np.array([r['curve'] for r in found]).T)
    png = reporting.curves(
      series, xlabel=label, ylabel='test log likelihood (nats)', floor=floor
    )
    figures[name] = (f'Test log likelihood against {label}', png)
  lines = rows.table(plan.results, ROWS, _COLUMNS, plan.seeds)
  return scripts.Report(
    'What the likelihood of an RBM on MNIST costs',
    {'Equal evaluations': lines},
    figures,
  )


_COLUMNS = {
  'test (nats)': 'test',
  'best on the way': 'best',
  'updates': 'updates',
  'milliseconds an update': 'milliseconds',
  'seconds of updates': 'in_all',
}


SCRIPT = scripts.Script(
  'cost',
  steps=scripts.Option(
    4000,
    'Updates of the rows whose update takes three evaluations of the energy; the '
    'others have as many evaluations.',
    smoke=68,
    minimum=1,
  ),
  seeds=3,
  parts={'rows': scripts.Part(lambda plan: ROWS, run_row)},
  report=report,
  trained=trained,
)


if __name__ == '__main__':
  launch.run(scripts.main(SCRIPT))
