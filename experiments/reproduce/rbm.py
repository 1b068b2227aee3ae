"""LW17 Figure 1(a): an RBM on MNIST by exact likelihood, SteinCD, CD and others.

Every way of learning starts at each of `RATES`, annealed linearly to 0. The rate
is chosen on 10,000 validation images, and so is the Langevin step size of CD, in
a sweep at the first rate. The last epoch is reported, on the test images, with an
exact log Z in float64. Beside it stands KSD^2 on test batches: what the Stein
methods descend. Each finished row is a file: an interrupted run continues.

Example:
  python -m experiments.reproduce.rbm --results=results/rbm
"""

import functools
import time
from typing import Any, NamedTuple

from absl import app
from absl import flags
from absl import logging
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
import tqdm

from experiments.reproduce import likelihood
from stein_jax import algorithms
from stein_jax import energies
from stein_jax import kernels
from stein_jax import locations
from stein_jax import stein
from stein_jax.runs import launch
from stein_jax.runs import reporting

_RESULTS = flags.DEFINE_string(
  'results', 'results/rbm', 'Folder of the results.'
)
_DATASET = flags.DEFINE_enum(
  'dataset', 'mnist', ['mnist', 'fashion_mnist', 'digits'], 'Which images.'
)
_EPOCHS = flags.DEFINE_integer(
  'epochs', 20, 'Epochs of every row.', lower_bound=1
)
_SEEDS = flags.DEFINE_integer(
  'seeds', 5, 'Runs of every main row.', lower_bound=2
)
_SMOKE = flags.DEFINE_bool(
  'smoke', False, 'One epoch of 20 steps on 5,000 images, two seeds: a minute.'
)

BATCH_SIZE = 100
RATES = (2e-3, 3e-4)
STEP_SIZES = (0.1, 0.3, 0.6, 1.0, 1.4)


class Row(NamedTuple):
  """One way of learning, at one learning rate; a run for every seed and size.

  Attributes:
    name: what the table says.
    algorithm: its module.
    rate: the first learning rate.
    step: keywords of its step.
    sizes: Langevin step sizes, each run with all seeds; () without.
    seeds: runs of each.
    config: further fields of the config.
  """

  name: str
  algorithm: str
  rate: float
  step: dict[str, Any]
  sizes: tuple[float, ...] = ()
  seeds: int = 5
  config: dict[str, Any] = {}


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments: {argv[1:]}')
  launch.set_up()
  results = locations.absolute(_RESULTS.value)
  smoke = _SMOKE.value
  if smoke:  # compiling is nearly all of its time
    jax.config.update('jax_disable_most_optimizations', True)
  settings = dict(
    dataset=_DATASET.value,
    epochs=1 if smoke else _EPOCHS.value,
    seeds=2 if smoke else _SEEDS.value,
    steps=20 if smoke else None,
    sizes=STEP_SIZES[::2] if smoke else STEP_SIZES,
    rates=RATES[:1] if smoke else RATES,
  )
  reporting.claim(results, settings)
  data = likelihood.load(_DATASET.value, limit=1000 if smoke else None)
  begin = time.monotonic()
  train = functools.partial(finished, results, data=data, settings=settings)

  sweep = [train(row) for row in sweep_rows(settings['sizes'])]
  best = {
    name: best_size(sweep, name) for name in ('CD-1 Langevin', 'CD-10 Langevin')
  }
  rows = main_rows(settings['seeds'], settings['rates'], best)
  main_results = [train(row) for row in rows]
  logging.info('All rows took %.0f s of this call.', time.monotonic() - begin)
  report(
    results, settings, main_results, sweep, likelihood.gaussian_floors(data)
  )


def main_rows(
  seeds: int, rates: tuple[float, ...], sizes: dict[str, float]
) -> list[Row]:
  """Returns the rows of the table; `sizes` are those the sweep chose for CD."""
  cd = 'contrastive_divergence'
  gibbs = dict(sampler='gibbs')
  centred = dict(centered=True)
  methods = [
    ('Exact maximum likelihood', 'maximum_likelihood', {}, {}),
    ('SteinCD, phi / n', 'stein_cd', {}, {}),
    ('SteinCD, phi / row sum', 'stein_cd', dict(normalize='row_sum'), {}),
    ('SteinCD, symmetric', 'stein_cd', dict(symmetric=True), {}),
    ('SteinCD, bandwidth / 4', 'stein_cd', dict(bandwidth_scale=0.25), {}),
    (
      'SteinCD, phi / row sum, bandwidth / 4, 5 steps of 0.3',
      'stein_cd',
      dict(normalize='row_sum', bandwidth_scale=0.25, num_steps=5, epsilon=0.3),
      {},
    ),
    ('Stein score matching', 'score_matching', dict(objective='stein'), {}),
    ('Score matching', 'score_matching', dict(objective='closed_form'), {}),
    *(
      (name, cd, dict(num_steps=int(name[3:5]), step_size=size), {})
      for name, size in sizes.items()
    ),
    ('CD-1 Gibbs', cd, gibbs, {}),
    ('CD-10 Gibbs', cd, dict(num_steps=10, **gibbs), {}),
    ('PCD (1 Gibbs step)', cd, gibbs, dict(persistent=True)),
    ('Exact maximum likelihood, centred', 'maximum_likelihood', {}, centred),
    ('SteinCD, phi / n, centred', 'stein_cd', {}, centred),
    ('CD-1 Gibbs, centred', cd, gibbs, centred),
  ]
  return [
    Row(name, algorithm, rate, step, seeds=seeds, config=config)
    for name, algorithm, step, config in methods
    for rate in rates
  ]


def sweep_rows(sizes: tuple[float, ...]) -> list[Row]:
  """Returns CD-1 and CD-10 with Langevin steps of several sizes, two seeds each."""
  return [
    Row(
      f'CD-{k} Langevin',
      'contrastive_divergence',
      RATES[0],
      dict(num_steps=k),
      sizes=sizes,
      seeds=2,
    )
    for k in (1, 10)
  ]


def finished(
  results, row: Row, *, data: likelihood.Images, settings
) -> dict[str, Any]:
  """Returns the row's result, from its file if an earlier call finished it."""
  slug = ''.join(c if c.isalnum() else '_' for c in row.name.lower())
  kind = 'sweep' if row.sizes else 'main'
  path = results / 'rows' / f'{kind}_{slug}_{row.rate:g}.json'
  if path.exists():
    return reporting.read_json(path)
  result = train_row(row, data, settings['epochs'], settings['steps'])
  reporting.write_json(path, result)
  return result


def train_row(
  row: Row, data: likelihood.Images, epochs: int, steps: int | None
) -> dict[str, Any]:
  """Returns log likelihoods [epochs + 1, runs] of runs trained together by vmap."""
  algorithm = algorithms.get(row.algorithm)
  train = data.train
  steps = steps or len(train) // BATCH_SIZE
  runs = [
    (seed, size) for size in row.sizes or (None,) for seed in range(row.seeds)
  ]
  config = config_of(row, epochs * steps)
  module = energies.RBM(num_hidden=10, centered=config.energy.centered)
  # The constant mean of a centred RBM comes from what `init` is shown.
  first = train[: 5000 if module.centered else BATCH_SIZE]
  # One key per seed: runs of two step sizes differ in nothing else.
  keys = jnp.stack([jax.random.key(seed) for seed, _ in runs])
  sizes = {'step_size': jnp.array([s for _, s in runs])} if row.sizes else {}

  @jax.jit
  @jax.vmap
  def start(key):
    return algorithm.init(jax.random.fold_in(key, 0), config, {'image': first})

  @functools.partial(jax.jit, donate_argnums=0)
  @functools.partial(jax.vmap, in_axes=(0, 0, 0, None))
  def run_epoch(state, key, sizes, epoch):
    order_key, step_key = jax.random.split(jax.random.fold_in(key, 1 + epoch))
    order = jax.random.permutation(order_key, len(train))

    def step(state, i):
      rows = jax.lax.dynamic_slice(order, (i * BATCH_SIZE,), (BATCH_SIZE,))
      rng = jax.random.fold_in(step_key, i)
      return algorithm.step(
        state, {'image': train[rows]}, rng, **row.step, **sizes
      )[0], None

    return jax.lax.scan(step, state, jnp.arange(steps))[0]

  begin = time.monotonic()
  state = start(keys)
  curves = [likelihood.exact_log_likelihoods(module, state.energy.params, data)]
  label = f'{row.name}, rate {row.rate:g}'
  with tqdm.tqdm(total=epochs, desc=label, unit='epoch', disable=None) as bar:
    for epoch in range(epochs):
      state = run_epoch(state, keys, sizes, epoch)
      curves.append(
        likelihood.exact_log_likelihoods(module, state.energy.params, data)
      )
      bar.update()
      bar.set_postfix_str(f'test {curves[-1][1].mean():.2f} nats')
  seconds = time.monotonic() - begin
  whole = len(data.test) // BATCH_SIZE * BATCH_SIZE
  test_batches = np.asarray(data.test, np.float32)[:whole].reshape(
    -1, BATCH_SIZE, data.test.shape[1]
  )
  ksd = _batch_ksd(module, state.energy.params, test_batches)
  logging.info(
    '%s: test %.2f nats, %d runs, %.0f s',
    label,
    curves[-1][1].mean(),
    len(runs),
    seconds,
  )
  return dict(
    name=row.name,
    rate=row.rate,
    seconds=seconds,
    sizes=[size for _, size in runs],
    valid=[valid.tolist() for valid, _ in curves],
    test=[test.tolist() for _, test in curves],
    ksd=np.asarray(ksd, float).tolist(),
  )


def config_of(row: Row, num_steps: int) -> ConfigDict:
  """Returns what the algorithm's `init` reads."""
  rate = dict(
    name='linear_schedule',
    init_value=row.rate,
    end_value=0.0,
    transition_steps=num_steps,
  )
  centered = row.config.get('centered', False)
  return ConfigDict(
    dict(
      energy=dict(name='RBM', num_hidden=10, centered=centered),
      optimizer=dict(name='adam', b1=0.5, learning_rate=rate),
      persistent=row.config.get('persistent', False),
    )
  )


@functools.partial(jax.jit, static_argnums=0)
@functools.partial(jax.vmap, in_axes=(None, 0, None))
def _batch_ksd(module, params, x):
  """Returns KSD^2 over batches [num, n, d]: what SteinCD descends, on test data."""

  def of_batch(x):
    score = -jax.grad(lambda x: jnp.sum(module.apply(params, x)))(x)
    return stein.ksd(x, score, kernels.at_median('rbf', x))

  return jnp.mean(jax.lax.map(of_batch, x))


def best_size(sweep, name: str) -> float:
  """Returns the step size with the best last validation likelihood."""
  (result,) = (result for result in sweep if result['name'] == name)
  sizes, valid = np.array(result['sizes']), np.array(result['valid'][-1])
  return max(result['sizes'], key=lambda size: valid[sizes == size].mean())


def report(results, settings, main_results, sweep, floors) -> None:
  """Writes table.md, results.json, the figures and report.html; prints the table."""
  chosen = {}
  for result in main_results:
    kept = chosen.get(result['name'])
    if not kept or np.mean(result['valid'][-1]) > np.mean(kept['valid'][-1]):
      chosen[result['name']] = result
  ranked = sorted(chosen.values(), key=lambda r: -np.mean(r['test'][-1]))
  rows = [_table_row(result) for result in ranked]
  rows += [
    {
      **dict.fromkeys(rows[0], ''),
      'learned by': name,
      'test (nats)': f'{value:.2f}',
    }
    for name, value in floors.items()
  ]
  others = [_table_row(result) for result in main_results]
  sizes = [_sweep_row(*point) for result in sweep for point in _points(result)]

  epochs = np.arange(settings['epochs'] + 1)
  floor = {'N(training mean, I)': floors['N(training mean, I)']}
  figure = lambda kept: reporting.curves(
    {r['name']: (epochs, r['test']) for r in kept},
    xlabel='epoch',
    ylabel='test log likelihood (nats)',
    floor=floor,
    ylim=(
      floor['N(training mean, I)'] - 2,
      max(np.max(r['test']) for r in ranked) + 0.5,
    ),
  )
  centred = [r for r in ranked if 'centred' in r['name']]
  uncentred = [r for r in ranked if 'centred' not in r['name']]
  figures = {
    'Figure 1(a): test log likelihood, mean and 95 % interval': figure(
      uncentred
    ),
    'The same family with centred inputs': figure(centred),
    'Langevin step size of CD': _sweep_figure(sweep, floor),
  }
  for name, png in zip(
    ('figure', 'centred', 'sweep'), figures.values(), strict=True
  ):
    (results / f'{name}.png').write_bytes(png)
  (results / 'table.md').write_text(reporting.table(rows), 'utf-8')
  reporting.write_json(
    results / 'results.json',
    dict(settings=settings, floors=floors, main=main_results, sweep=sweep),
  )
  reporting.write_page(
    results / 'report.html',
    'LW17 Figure 1(a): learning an RBM',
    [
      ('Last epoch, rate chosen on validation images', rows),
      *figures.items(),
      ('Every rate', others),
      ('Step sizes of CD, two seeds each', sizes),
      ('Settings', {k: str(v) for k, v in settings.items()}),
      ('Code', f'commit {reporting.commit()}'),
    ],
  )
  print(reporting.table(rows))
  print(f'Report: {(results / "report.html").absolute()}')


def _table_row(result):
  mean, half = reporting.mean_interval(result['test'][-1])
  curve = np.mean(result['test'], 1)
  return {
    'learned by': result['name'],
    'test (nats)': f'{mean:.2f} ± {half:.2f}',
    'test KSD²': f'{np.mean(result["ksd"]):.4g}',
    'best epoch': f'{curve.max():.2f} at {curve.argmax()}',
    'rate': f'{result["rate"]:g}',
    'seeds': len(result['sizes']),
    'seconds': f'{result["seconds"]:.0f}',
  }


def _points(result):
  """Yields (result, step size, last test likelihoods) of a sweep."""
  sizes, last = np.array(result['sizes']), np.array(result['test'][-1])
  for size in dict.fromkeys(result['sizes']):
    yield result, size, last[sizes == size]


def _sweep_row(result, size, values):
  return {
    'learned by': result['name'],
    'rate': f'{result["rate"]:g}',
    'step size': f'{size:g}',
    'test (nats)': f'{values.mean():.2f}',
    'runs': ', '.join(f'{value:.2f}' for value in values),
  }


def _sweep_figure(sweep, floor):
  series = {}
  for result in sweep:
    points = [(size, values.mean()) for _, size, values in _points(result)]
    series[f'{result["name"]}, rate {result["rate"]:g}'] = tuple(
      zip(*points, strict=True)
    )
  return reporting.curves(
    series,
    xlabel='Langevin step size (delta)',
    ylabel='test log likelihood (nats)',
    floor=floor,
  )


if __name__ == '__main__':
  app.run(main)
