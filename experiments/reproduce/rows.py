"""Rows of a table: a run for each seed, each finished run a file.

A call that is interrupted goes on where it was, and a table shows what has been run.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
import importlib
import pathlib
import time
from typing import Any, NamedTuple

from absl import logging
import jax
from ml_collections import ConfigDict
import numpy as np
import tqdm

from stein_jax import algorithms
from stein_jax import datasets
from stein_jax import generators
from stein_jax.runs import evaluation
from stein_jax.runs import judges
from stein_jax.runs import reporting
from stein_jax.runs import training


class Row(NamedTuple):
  """One line of a table; a run for every seed.

  Attributes:
    name: what the table says.
    config: its file in configs/ and scale.
    changes: to the config's fields, by dotted name.
    single: one run is enough: a row for comparison.
  """

  name: str
  config: tuple[str, str]
  changes: Mapping[str, Any] = {}
  single: bool = False


def get_config(row: Row, seed: int):
  """Returns the row's config; KeyError where it changes what is not there."""
  name, scale = row.config
  config = importlib.import_module(f'configs.{name}').get_config(scale)
  config.lock()
  config.update_from_flattened_dict(dict(row.changes))
  config.unlock()
  config.seed = seed
  return config


def on_data(config, dataset: str, npz: str | None):
  """Returns the config with a data set in place of its own, from a file if named."""
  for section in (config, config.evaluation):
    section.data.name = dataset
    if npz:
      section.data = ConfigDict(datasets.from_file(section.data, npz))
  return config


def lasting(config, num_steps: int):
  """Returns the config with that length, and its schedules stretched to it."""
  share = num_steps / config.num_steps
  for name in config:
    rate = name.endswith('optimizer') and config[name].get('learning_rate')
    if isinstance(rate, ConfigDict):
      for key in ('transition_begin', 'transition_steps', 'decay_steps'):
        if key in rate:
          rate[key] = max(1, round(share * rate[key]))
  config.num_steps = num_steps
  return config


def claim(plan: NamedTuple) -> dict[str, Any]:
  """Returns the settings of a plan, whose folder of `results` is made theirs.

  But for how many `seeds`: each has files of its own, and a later call may add some.

  Raises:
    ValueError: the folder holds the results of other settings.
  """
  settings = plan._asdict()
  folder = settings.pop('results')
  reporting.claim(folder, {k: v for k, v in settings.items() if k != 'seeds'})
  return settings


def run_all(
  folder: pathlib.Path, rows: Sequence[Row], seeds: int, run: Callable
) -> None:
  """Runs what is not finished yet, one seed of every row after another.

  So a call that is interrupted leaves as many seeds of each; see `finished`.
  """
  for seed in range(seeds):
    for row in rows:
      if seed == 0 or not row.single:
        finished(folder, row, seed, run)


def finished(
  folder: pathlib.Path,
  row: Row,
  seed: int,
  run: Callable[[Row, int], tuple[dict[str, Any], np.ndarray]],
) -> dict[str, Any]:
  """Returns a run's result, from its file if an earlier call finished it.

  Args:
    folder: of the results.
    row: what is run.
    seed: of the run.
    run: row and seed to what is found and images, which are saved beside it.
  """
  path = result_path(folder, row, seed)
  if path.exists():
    return reporting.read_json(path)
  begin = time.monotonic()
  result, samples = run(row, seed)
  seconds = time.monotonic() - begin
  result = dict(name=row.name, seed=seed, seconds=seconds, **result)
  path.parent.mkdir(parents=True, exist_ok=True)
  np.save(path.with_suffix('.npy'), samples)
  reporting.write_json(path, result)
  shown = {k: v for k, v in result.items() if isinstance(v, (int, float))}
  logging.info('%s: %s', row.name, shown)
  return result


def result_path(folder: pathlib.Path, row: Row, seed: int) -> pathlib.Path:
  """Returns where a run's result is kept; its images are beside it, as .npy."""
  slug = ''.join(c if c.isalnum() else '_' for c in row.name.lower())
  return folder / 'runs' / f'{slug}_{seed}.json'


def results(folder: pathlib.Path, row: Row, seeds: int) -> list[dict]:
  """Returns the results of the row's seeds that are finished."""
  paths = [result_path(folder, row, seed) for seed in range(seeds)]
  return [reporting.read_json(path) for path in paths if path.exists()]


def train(
  config,
  num_steps: int,
  label: str,
  *,
  source=None,
  every: int = 500,
  look: Callable | None = None,
  prepare: Callable | None = None,
):
  """Returns the state after so many steps, and what `look` saw on the way.

  Args:
    config: of the algorithm.
    num_steps: of training.
    label: of the progress bar.
    source: of the batches; the config's without.
    every: steps between looks.
    look: state and batch to something JSON can hold.
    prepare: batch and key to the batch that is trained on.
  """
  algorithm = algorithms.get(config.algorithm)
  source = source or datasets.load(**config.data)
  batches = datasets.batches(source, config.batch_size, seed=config.seed)
  init_rng, step_rng = jax.random.split(jax.random.key(config.seed))
  state = algorithm.init(init_rng, config, next(batches))
  step = jax.jit(
    functools.partial(algorithm.step, **config.step), donate_argnums=0
  )
  seen, metrics = [], {}
  for i in tqdm.trange(num_steps, desc=label, unit='step', disable=None):
    batch, rng = next(batches), jax.random.fold_in(step_rng, i)
    if prepare:
      batch = prepare(batch, jax.random.fold_in(rng, 1))
    state, metrics = step(state, batch, rng)
    if look and (i + 1) % every == 0:
      seen.append(look(state, batch))
  bad = [name for name, value in metrics.items() if not np.isfinite(value)]
  if bad:
    logging.warning('%s diverged: %s not finite.', label, ', '.join(bad))
  return state, seen


def drawn(generator, num: int, seed: int) -> np.ndarray:
  """Returns samples [num, ...] of a generator, its output noise left out."""
  module = generator.module.clone(output_noise=0.0)
  draw = jax.jit(generators.sample, static_argnames='num')
  generator = generator.replace(module=module, apply_fn=module.apply)
  return np.asarray(draw(generator, jax.random.key(seed), num=num))


def trained_judge(
  folder: pathlib.Path, config, num_steps: int
) -> tuple[judges.Judge, float]:
  """Returns the classifier of a config, which judges samples, and its test accuracy.

  It is trained once; a call that is interrupted goes on.
  """
  workdir = folder / 'classifier'
  accuracy = _trained(workdir, config, num_steps)
  logging.info('The judge: %.2f %% of the test images.', 100 * accuracy)
  return judges.judge(config, workdir), accuracy


def accuracy_from(
  workdir: pathlib.Path, config, num_steps: int, pictures, labels
) -> float:
  """Returns the test accuracy of a classifier that learned from these images.

  Args:
    workdir: of its run; the images are kept beside it.
    config: of the classifier; its training data are not read.
    num_steps: of training.
    pictures: [n, h, w, c] in [0, 1].
    labels: [n].
  """
  path = workdir.with_suffix('.npz')
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = np.round(255 * np.clip(pictures, 0, 1)).astype(np.uint8)
  np.savez(path, train_image=pixels, train_label=labels)
  config.data = ConfigDict(datasets.from_file(config.data, str(path)))
  return _trained(workdir, config, num_steps)


def _trained(workdir, config, num_steps):
  """Returns the test accuracy of a classifier, trained or gone on with."""
  config = lasting(config, num_steps)
  training.train(config, workdir)
  return evaluation.evaluate(config, workdir)['test/accuracy']


def table(
  folder: pathlib.Path,
  rows: Sequence[Row],
  columns: Mapping[str, str],
  seeds: int,
) -> list[dict[str, Any]]:
  """Returns a line for each row that has results: mean ± 95 % interval over seeds.

  Args:
    folder: of the results.
    rows: in their order.
    columns: title to name of the result.
    seeds: how many to look for.
  """
  lines = []
  for row in rows:
    found = results(folder, row, seeds)
    if not found:
      continue
    line = {'': row.name}
    for title, key in columns.items():
      values = [r[key] for r in found if key in r]
      line[title] = cell(key, values) if values else ''
    lines.append({**line, 'seeds': len(found)})
  return lines


def printed(
  columns: Sequence[str], values: Mapping[str, Sequence[str]]
) -> list[dict[str, str]]:
  """Returns the lines of a table quoted from a paper, of what its rows have."""
  return [
    dict(zip(('', *columns), (name, *cells), strict=True))
    for name, cells in values.items()
  ]


def write_report(
  folder: pathlib.Path,
  title: str,
  tables: Mapping[str, list[dict[str, Any]]],
  sections: Sequence[tuple[str, Any]],
  settings: Mapping[str, Any],
) -> None:
  """Writes table.md and report.html, and prints the tables that are not empty.

  Args:
    folder: of the results.
    title: of the page.
    tables: title to lines.
    sections: of the page, after the tables; see `reporting.write_page`.
    settings: of the call.
  """
  tables = {name: lines for name, lines in tables.items() if lines}
  text = '\n'.join(
    f'{name}\n\n{reporting.table(lines)}' for name, lines in tables.items()
  )
  (folder / 'table.md').write_text(text, 'utf-8')
  page = folder / 'report.html'
  about = [
    ('Settings', {key: str(value) for key, value in settings.items()}),
    ('Code', f'commit {reporting.commit()}'),
  ]
  reporting.write_page(page, title, [*tables.items(), *sections, *about])
  print(text)
  print(f'Report: {page.absolute()}')


def cell(key: str, values: Sequence[float]) -> str:
  """Returns mean ± 95 % interval, to the interval's second digit."""
  mean, half = reporting.mean_interval(np.array(values))
  if len(values) == 1 or key == 'seconds' or not half > 0:  # or nan
    return f'{mean:.4g}'
  digits = max(0, 1 - int(np.floor(np.log10(half))))
  return f'{mean:.{digits}f} ± {half:.{digits}f}'
