"""LW17 Figure 1(a): an RBM on MNIST by exact likelihood, SteinCD, CD and others.

Every way of learning starts at each of `RATES`, annealed linearly to 0. The rate is
chosen on 10,000 validation images. So are the Langevin step of CD and the bandwidth of
a row of SteinCD, in sweeps of as many sizes at the first rate. The last epoch is
reported, on the test images, with an exact log Z in float64. Beside it stands KSD^2 on
test batches: what the Stein methods descend. All seeds of a row, and all sizes of a
sweep, are trained together by vmap, on data that stay on the device. Every finished run
is a file: an interrupted call continues.

Example:
  python -m experiments.reproduce.rbm --results=results/rbm
"""

import functools
import time
from typing import Any, NamedTuple

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from experiments.reproduce import likelihood
from experiments.reproduce import rows
from experiments.reproduce import scripts
from stein_jax import algorithms
from stein_jax import build
from stein_jax import energies
from stein_jax import kernels
from stein_jax import stein
from stein_jax.runs import configs
from stein_jax.runs import launch
from stein_jax.runs import reporting

# The paper names no rate, so validation chooses one.
RATES = (2e-3, 3e-4)
# Up to near sqrt(2), where a step adds the whole score.
STEP_SIZES = (0.1, 0.3, 0.6, 1.0, 1.4)
# As many trials for SteinCD, whose one free size is that of its kernel.
BANDWIDTHS = (0.05, 0.1, 0.25, 1.0, 4.0)
SWEEP_SEEDS = 2  # for every size
EXACT = ('maximum_likelihood_mnist', '')
STEIN_CD = ('stein_cd_mnist', '')
SCORE = ('score_matching_mnist', '')
CD = ('contrastive_divergence_mnist', '')
ROW_SUM = {'step.direction.normalize': 'row_sum'}
QUARTER = {'step.direction.kernel.bandwidth.scale': 0.25}
GIBBS = {'step.chain': 'Gibbs'}
CENTRED = {'energy.centered': True}
ROWS = (
  rows.Row('exact', 'Exact maximum likelihood', EXACT),
  rows.Row('stein-cd', 'SteinCD, phi / n', STEIN_CD),
  rows.Row('stein-cd-row-sum', 'SteinCD, phi / row sum', STEIN_CD, ROW_SUM),
  rows.Row(
    'stein-cd-symmetric',
    'SteinCD, symmetric',
    STEIN_CD,
    {'step.symmetric': True},
  ),
  rows.Row('stein-cd-quarter', 'SteinCD, bandwidth / 4', STEIN_CD, QUARTER),
  rows.Row('stein-cd-swept', 'SteinCD, bandwidth chosen', STEIN_CD),
  rows.Row(
    'stein-cd-five',
    'SteinCD, phi / row sum, bandwidth / 4, 5 steps of 0.3',
    STEIN_CD,
    {**ROW_SUM, **QUARTER, 'step.num_steps': 5, 'step.epsilon': 0.3},
  ),
  rows.Row('stein-score-matching', 'Stein score matching', SCORE),
  rows.Row(
    'score-matching',
    'Score matching',
    SCORE,
    {'step.objective': 'closed_form'},
  ),
  rows.Row('cd-1-langevin', 'CD-1 Langevin', CD),
  rows.Row(
    'cd-10-langevin', 'CD-10 Langevin', CD, {'step.chain.num_steps': 10}
  ),
  rows.Row('cd-1-gibbs', 'CD-1 Gibbs', CD, GIBBS),
  rows.Row(
    'cd-10-gibbs', 'CD-10 Gibbs', CD, {**GIBBS, 'step.chain.num_steps': 10}
  ),
  rows.Row('pcd', 'PCD (1 Gibbs step)', CD, {**GIBBS, 'persistent': True}),
  rows.Row(
    'exact-centred', 'Exact maximum likelihood, centred', EXACT, CENTRED
  ),
  rows.Row('stein-cd-centred', 'SteinCD, phi / n, centred', STEIN_CD, CENTRED),
  rows.Row(
    'cd-1-gibbs-centred', 'CD-1 Gibbs, centred', CD, {**GIBBS, **CENTRED}
  ),
  rows.Row('cd-1-langevin-centred', 'CD-1 Langevin, centred', CD, CENTRED),
  rows.Row(
    'cd-10-langevin-centred',
    'CD-10 Langevin, centred',
    CD,
    {**CENTRED, 'step.chain.num_steps': 10},
  ),
)
# In one plot the curves would hide each other. Exact maximum likelihood stands beside
# both kinds, for comparison.
PANELS = {
  'Chains': (
    'exact',
    'cd-1-langevin',
    'cd-10-langevin',
    'cd-1-gibbs',
    'cd-10-gibbs',
    'pcd',
  ),
  'Stein and score matching': (
    'exact',
    'stein-cd',
    'stein-cd-row-sum',
    'stein-cd-symmetric',
    'stein-cd-quarter',
    'stein-cd-swept',
    'stein-cd-five',
    'stein-score-matching',
    'score-matching',
  ),
  'Centred': (
    'exact-centred',
    'stein-cd-centred',
    'cd-1-gibbs-centred',
    'cd-1-langevin-centred',
    'cd-10-langevin-centred',
  ),
}
# The rows that choose a size, and the field that has it.
SWEPT = {
  'stein-cd-swept': ('step.direction.kernel.bandwidth.scale', BANDWIDTHS),
  **{
    f'cd-{k}-langevin{suffix}': ('step.chain.step_size', STEP_SIZES)
    for k in (1, 10)
    for suffix in ('', '-centred')
  },
}


class Curves(NamedTuple):
  """What is found of runs that were trained together."""

  valid: np.ndarray  # log likelihoods [epochs + 1, runs] in nats
  test: np.ndarray
  ksd: np.ndarray  # [runs], at the end


def images(plan: scripts.Plan) -> likelihood.Images:
  """Returns the plan's images."""
  return likelihood.load(plan.options.dataset, 1000 if plan.smoke else None)


def run_row(plan: scripts.Plan, row: rows.Row):
  """Returns the result of every seed of a row; no images."""
  begin = time.monotonic()
  swept = {}
  if row.id in SWEPT:
    swept = sweep(plan, row)
    # Chosen on validation images, like the rate below.
    size = {SWEPT[row.id][0]: swept['best']}
    row = row._replace(changes={**row.changes, **size})
  found = {
    rate: train(plan, row, rate, plan.seeds)
    for rate in (RATES[:1] if plan.smoke else RATES)
  }
  # The test images have no say in the choice.
  rate = max(found, key=lambda rate: found[rate].valid[-1].mean())
  curves, seconds = found[rate], time.monotonic() - begin
  return [
    (
      {
        'seconds': seconds,  # of all seeds
        'test': float(curves.test[-1, seed]),
        'valid': float(curves.valid[-1, seed]),
        'best': float(curves.test[:, seed].max()),
        'ksd': float(curves.ksd[seed]),
        'curve': curves.test[:, seed].tolist(),
        'rate': rate,
        **{_at(rate): float(c.test[-1, seed]) for rate, c in found.items()},
        'sweep': swept,
      },
      None,
    )
    for seed in range(plan.seeds)
  ]


def sweep(plan: scripts.Plan, row: rows.Row) -> dict[str, Any]:
  """Returns the test likelihoods [sizes, seeds] of the sizes that a row chooses from.

  'best' is the size with the best likelihood of validation images.
  """
  sizes = SWEPT[row.id][1][:: 2 if plan.smoke else 1]
  curves = train(plan, row, RATES[0], SWEEP_SEEDS, sizes)
  valid, test = (
    curve[-1].reshape(len(sizes), SWEEP_SEEDS)
    for curve in (curves.valid, curves.test)
  )
  # By the mean over seeds: one lucky run chooses nothing.
  best = sizes[int(np.argmax(valid.mean(1)))]
  return {'sizes': sizes, 'test': test.tolist(), 'best': best}


def _at(rate):
  """Returns what the likelihood at one of the rates is called."""
  return f'test_at_{rate:g}'


def train(
  plan: scripts.Plan,
  row: rows.Row,
  rate: float,
  seeds: int,
  sizes: tuple[float, ...] = (),
) -> Curves:
  """Returns what is found of runs trained together: of every seed at every size.

  Args:
    plan: of the call.
    row: whose config is trained.
    rate: the first learning rate.
    seeds: runs of every size, which come one after another.
    sizes: of the chain's step or of the kernel; () for the config's own.
  """
  data = images(plan)
  per_epoch, epochs = epochs_of(plan)
  config = rows.get_config(row, 0)
  # The rate falls to 0 at the end of the run, whatever its length is.
  config.optimizer.learning_rate.update(
    init_value=rate, transition_steps=per_epoch * epochs
  )
  module = build.build(energies, **config.energy)
  # One key per seed: runs of two sizes differ in nothing else.
  keys = jnp.stack(
    [jax.random.key(seed) for _ in sizes or (None,) for seed in range(seeds)]
  )
  swept = jnp.repeat(jnp.array(sizes), seeds) if sizes else None
  # All seeds at once: on two cores a single RBM leaves most of the time to
  # overhead.
  state, run_epoch = _compiled(config, data.train, per_epoch, keys)
  curves = [likelihood.exact_log_likelihoods(module, state.energy.params, data)]
  label = f'{row.name}, rate {rate:g}'
  with tqdm.tqdm(total=epochs, desc=label, unit='epoch', disable=None) as bar:
    for epoch in range(epochs):
      state = run_epoch(state, keys, swept, epoch)
      params = state.energy.params
      curves.append(likelihood.exact_log_likelihoods(module, params, data))
      bar.update()
      bar.set_postfix_str(f'test {curves[-1][1].mean():.2f} nats')
  logging.info('%s: test %.2f nats', label, curves[-1][1].mean())
  size = config.batch_size
  # In batches of the training size, since KSD depends on the number of points.
  test = np.asarray(data.test, np.float32)[: len(data.test) // size * size]
  batches = test.reshape(-1, size, test.shape[1])
  ksd = _batch_ksd(module, state.energy.params, batches)
  valid, test = (np.stack(curve) for curve in zip(*curves, strict=True))
  return Curves(valid, test, np.asarray(ksd))


def trained(plan: scripts.Plan, row: rows.Row):
  """Returns the row's config, with the length of the plan's runs."""
  config = rows.get_config(row, 0)
  config.num_steps = plan.steps
  return config


def epochs_of(plan: scripts.Plan) -> tuple[int, int]:
  """Returns the steps of an epoch, and how many epochs make the plan's steps."""
  batch_size = rows.get_config(ROWS[0], 0).batch_size
  per_epoch = min(plan.steps, len(images(plan).train) // batch_size)
  return per_epoch, plan.steps // per_epoch


def _compiled(config, train, per_epoch, keys):
  """Returns the first states of runs with those keys, and a function of an epoch."""
  algorithm, size = algorithms.get(config.algorithm), config.batch_size
  # The constant mean of a centred RBM comes from what `init` is shown.
  first = {'image': train[: 5000 if config.energy.centered else size]}

  @jax.jit
  @jax.vmap
  def start(key):
    return algorithm.init(jax.random.fold_in(key, 0), config, first)

  @functools.partial(jax.jit, donate_argnums=0)
  @functools.partial(jax.vmap, in_axes=(0, 0, 0, None))
  def run_epoch(state, key, size_tried, epoch):
    order_key, step_key = jax.random.split(jax.random.fold_in(key, 1 + epoch))
    # On the device, so that an epoch is one program.
    order = jax.random.permutation(order_key, len(train))
    advance = configs.step(config)
    if size_tried is not None:
      # A traced number: all sizes are one compiled program.
      advance = functools.partial(
        advance, **_at_size(advance.keywords, size_tried)
      )

    def step(state, i):
      chosen = jax.lax.dynamic_slice(order, (i * size,), (size,))
      rng = jax.random.fold_in(step_key, i)
      return advance(state, {'image': train[chosen]}, rng)[0], None

    return jax.lax.scan(step, state, jnp.arange(per_epoch))[0]

  return start(keys), run_epoch


def _at_size(arguments, size):
  """Returns the argument of a step that has a size: its chain, else its direction."""
  if 'chain' in arguments:
    return {'chain': arguments['chain'].replace(step_size=size)}
  direction = arguments['direction']
  kernel = direction.kernel
  kernel = kernel.replace(bandwidth=kernel.bandwidth.replace(scale=size))
  return {'direction': direction.replace(kernel=kernel)}


@functools.partial(jax.jit, static_argnums=0)
@functools.partial(jax.vmap, in_axes=(None, 0, None))
def _batch_ksd(module, params, x):
  """Returns KSD^2 over batches [num, n, d]: what SteinCD descends, on test data."""

  def of_batch(x):
    score = -jax.grad(lambda x: jnp.sum(module.apply(params, x)))(x)
    return stein.ksd(x, score, kernels.RBF())

  return jnp.mean(jax.lax.map(of_batch, x))


def report(plan: scripts.Plan) -> scripts.Report:
  """Returns the tables and the figures of what is there, the best rows first."""
  found = {row.id: rows.results(plan.results, row, plan.seeds) for row in ROWS}
  # The best row first, as in the figure's legend.
  ranked = sorted(
    (row for row in ROWS if found[row.id]),
    key=lambda row: -np.mean([run['test'] for run in found[row.id]]),
  )
  floors = likelihood.gaussian_floors(images(plan))
  lines = rows.table(plan.results, ranked, _COLUMNS, plan.seeds)
  lines += [
    {**dict.fromkeys(lines[0], ''), '': name, 'test (nats)': f'{value:.2f}'}
    for name, value in floors.items()
  ]
  rates = {f'rate {rate:g}': _at(rate) for rate in RATES}
  floor = {'N(training mean, I)': floors['N(training mean, I)']}
  sweeps = {
    row.name: found[row.id][0]['sweep'] for row in ranked if row.id in SWEPT
  }
  return scripts.Report(
    f'LW17 Figure 1(a): learning an RBM on {plan.options.dataset}',
    {
      'Last epoch, rate chosen on validation images': lines,
      'Every rate': rows.table(plan.results, ranked, rates, plan.seeds),
      'Sizes that were tried, in nats': _sweep_table(sweeps),
    },
    {
      'figure': (
        'Figure 1(a): test log likelihood, mean and 95 % interval',
        _curves(ranked, found, floor),
      ),
      'sweep': ('Sizes that were tried', _sweep_figure(sweeps, floor)),
    },
  )


def _curves(ranked, found, floor):
  """Returns a PNG of the rows' test likelihoods over the epochs."""
  series = {}
  for row in ranked:
    y = np.array([run['curve'] for run in found[row.id]]).T
    series[row.id] = row.name, (np.arange(len(y)), y)
  groups = {
    title: dict(series[id_] for id_ in series if id_ in ids)
    for title, ids in PANELS.items()
  }
  (low,) = floor.values()
  high = max(np.max(y) for _, (_, y) in series.values())
  return reporting.panels(
    {title: group for title, group in groups.items() if group},
    xlabel='epoch',
    ylabel='test log likelihood (nats)',
    floor=floor,
    ylim=(low - 2, high + 0.5),
  )


def _sweep_table(sweeps):
  """Returns a line for each size, of the first rate."""
  return [
    {
      '': name,
      'size': f'{size:g}',
      'test (nats)': f'{np.mean(values):.2f}',
      'runs': ', '.join(f'{value:.2f}' for value in values),
    }
    for name, sweep in sweeps.items()
    for size, values in zip(sweep['sizes'], sweep['test'], strict=True)
  ]


def _sweep_figure(sweeps, floor):
  """Returns a PNG of the test likelihood over the size."""
  return reporting.curves(
    {
      f'{name}, rate {RATES[0]:g}': (sweep['sizes'], np.mean(sweep['test'], 1))
      for name, sweep in sweeps.items()
    },
    xlabel="Langevin step (delta), or factor on SteinCD's bandwidth",
    ylabel='test log likelihood (nats)',
    floor=floor,
  )


_COLUMNS = {
  'test (nats)': 'test',
  'test KSD²': 'ksd',
  'best on the way': 'best',
  'rate': 'rate',
  'seconds of all seeds': 'seconds',
}

SCRIPT = scripts.Script(
  'rbm',
  steps=scripts.Option(
    10_000, 'Updates of every run, in whole epochs.', smoke=20, minimum=1
  ),
  seeds=5,
  parts={
    'rows': scripts.Part(lambda plan: ROWS, run_row, together=True),
  },
  report=report,
  trained=trained,
  options={
    'dataset': scripts.Option(
      'mnist', 'Which images.', choices=('mnist', 'fashion_mnist', 'digits')
    ),
  },
)


if __name__ == '__main__':
  launch.run(scripts.main(SCRIPT))
