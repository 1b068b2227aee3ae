"""Rows of a table: a run for each seed, and each finished run a file.

A call that is interrupted goes on with the first run that has no file, and a table
shows what has been run. The runs here keep no checkpoints: they take minutes, they
collect what is measured on the way, and one whose numbers go bad is a finding, where
`train` would end with an error.
"""

from collections.abc import Callable, Mapping, Sequence
import importlib
import pathlib
import time
from typing import Any, NamedTuple

from absl import logging
import jax
from ml_collections import ConfigDict
import numpy as np
import tqdm

from stein_jax import datasets
from stein_jax import generators
from stein_jax.runs import configs
from stein_jax.runs import evaluation
from stein_jax.runs import judges
from stein_jax.runs import reporting
from stein_jax.runs import training


class Row(NamedTuple):
  """One line of a table; a run for every seed.

  Attributes:
    id: what files and claims call it; it stays when the name changes.
    name: what the table says.
    config: its file in configs/ and scale.
    changes: values for fields of the config, by dotted name; a mapping stands for a
      whole section.
    single: whether one run is enough, as for a row of comparison.
  """

  id: str
  name: str
  config: tuple[str, str] = ('', '')
  changes: Mapping[str, Any] = {}
  single: bool = False


def get_config(row: Row, seed: int):
  """Returns the row's config, as flags would make it of its file and changes.

  Raises:
    KeyError: a change is of a section that the config does not have.
    TypeError, ValueError: a change is of an argument that `step` does not take.
  """
  name, scale = row.config
  module = importlib.import_module(f'configs.{name}')
  # A change of a section that does not exist would make a new one and change
  # nothing.
  sections = set(module.get_config(scale))
  fields = module.get_config.given(scale)
  for field, value in {**row.changes, 'seed': seed}.items():
    if field.split('.')[0] not in sections:
      raise KeyError(f'{row.id}: the config {name} has no {field}.')
    fields = configs.with_field(fields, field, value)
  config = configs.complete(fields)
  configs.step(config)  # A wrong name would otherwise be found after hours.
  return config


def on_data(config, dataset: str, npz: str | None):
  """Returns the config with a data set in place of its own, from a file if named."""
  for section in (config, config.evaluation):
    section.data.name = dataset
    if npz:
      section.data = ConfigDict(datasets.from_file(section.data, npz))
  return config


def with_length(config, num_steps: int):
  """Returns the config with that length, and its schedules stretched to it."""
  # Every part of a schedule keeps its share of the run.
  share = num_steps / config.num_steps
  for name in config:
    rate = name.endswith('optimizer') and config[name].get('learning_rate')
    if isinstance(rate, ConfigDict):
      for key in ('transition_begin', 'transition_steps', 'decay_steps'):
        if key in rate:
          rate[key] = max(1, round(share * rate[key]))
  config.num_steps = num_steps
  return config


def train(
  config,
  num_steps: int,
  label: str,
  *,
  source=None,
  state=None,
  every: int = 500,
  look: Callable | None = None,
):
  """Returns the state after `train`'s steps, and what `look` saw on the way.

  Args:
    config: of the run; its schedules stay as they are.
    num_steps: steps of training.
    label: text of the progress bar.
    source: where the batches come from; None for the config's data.
    state: where training begins; None for what the algorithm makes of the config.
    every: steps between looks.
    look: function of the state to something JSON can hold.
  """
  # Set before the networks are built, since schedules may follow it.
  config.num_steps = num_steps
  source = source or datasets.load(**config.data)
  config = configs.fitted(config, source)
  if state is None:
    batch = training.first_batch(config, source)
    state = training.initial_state(config, batch)
  calls = training.steps(config, source, state)
  seen, last = [], {}
  with tqdm.tqdm(
    total=num_steps, desc=label, unit='step', disable=None
  ) as progress:
    for done, state, metrics in calls:
      progress.update(done - progress.n)
      if look and done % every == 0:
        seen.append(look(state))
      last = metrics
  # The table shows what such a run has come to, and so does not stop it.
  bad = [name for name, value in last.items() if not np.isfinite(value)]
  if bad:
    logging.warning('%s diverged: %s not finite.', label, ', '.join(bad))
  return state, seen


def sampled(config, state) -> np.ndarray:
  """Returns the samples [num, ...] of a state that its config's evaluation asks for."""
  # Samples are made on conditions of test data, where there are any.
  test = datasets.load(**config.evaluation.data)
  draw = evaluation.sampler(config, test)
  return np.asarray(draw(state))


def drawn(generator, num: int, seed: int) -> np.ndarray:
  """Returns samples [num, ...] of a generator without its output noise."""
  # Judges would take the noise of an RBM's model for a fault of the images.
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
  # One judge a folder of results: all rows are judged by the same network.
  workdir = folder / 'classifier'
  accuracy = _trained_classifier(workdir, config, num_steps)
  logging.info('The judge: %.2f %% of the test images.', 100 * accuracy)
  return judges.judge(config, workdir), accuracy


def accuracy_from(
  workdir: pathlib.Path, config, num_steps: int, pictures, labels
) -> float:
  """Returns the test accuracy of a classifier that learned from these images.

  Args:
    workdir: folder of its run; the images are kept beside it.
    config: the classifier's; its training data are not read.
    num_steps: steps of training.
    pictures: images [n, h, w, c] in [0, 1].
    labels: their labels [n].
  """
  path = workdir.with_name(f'{workdir.name}.npz')
  path.parent.mkdir(parents=True, exist_ok=True)
  # Bytes, as real images are: no classifier can tell the two by their precision.
  pixels = np.round(255 * np.clip(pictures, 0, 1)).astype(np.uint8)
  np.savez(path, image=pixels, label=labels)
  section = {**config.data, 'split': 'all'}
  config.data = ConfigDict(datasets.from_file(section, str(path)))
  return _trained_classifier(workdir, config, num_steps)


def _trained_classifier(workdir, config, num_steps):
  """Returns the test accuracy of a classifier, trained or gone on with."""
  config = with_length(config, num_steps)
  training.train(config, workdir)
  return evaluation.evaluate(config, workdir)['test/accuracy']


def result_path(folder: pathlib.Path, row: Row, seed: int) -> pathlib.Path:
  """Returns where a run's result is kept; its images are beside it, as .npy."""
  return folder / 'runs' / f'{row.id}_{seed}.json'


def keep(
  folder: pathlib.Path,
  row: Row,
  seed: int,
  result: Mapping[str, Any],
  images: np.ndarray | None,
) -> None:
  """Writes what was found of a run, and its images if there are any."""
  path = result_path(folder, row, seed)
  path.parent.mkdir(parents=True, exist_ok=True)
  if images is not None:
    np.save(path.with_suffix('.npy'), images)
  # The result comes last: where it is, the run is finished.
  reporting.write_json(
    path, dict(id=row.id, name=row.name, seed=seed, **result)
  )
  shown = {k: v for k, v in result.items() if isinstance(v, (int, float))}
  logging.info('%s: %s', row.name, shown)


def finish(folder: pathlib.Path, row: Row, seed: int, run: Callable) -> None:
  """Runs one seed of a row, unless an earlier call finished it.

  Args:
    folder: of the results.
    row: what is run.
    seed: number of the run.
    run: function of row and seed to the result and to images, or None for them.
  """
  # A result that is there is finished, since it is written last.
  if result_path(folder, row, seed).exists():
    return
  begin = time.monotonic()
  result, images = run(row, seed)
  seconds = time.monotonic() - begin
  keep(folder, row, seed, {'seconds': seconds, **result}, images)


def results(folder: pathlib.Path, row: Row, seeds: int) -> list[dict]:
  """Returns the results of the row's seeds that are finished."""
  paths = [result_path(folder, row, seed) for seed in range(seeds)]
  return [reporting.read_json(path) for path in paths if path.exists()]


def images_of(folder: pathlib.Path, row: Row) -> np.ndarray | None:
  """Returns the images of a row's first run, or None where there are none yet."""
  path = result_path(folder, row, 0).with_suffix('.npy')
  return np.load(path, allow_pickle=False) if path.exists() else None


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
      # A row may lack what others have: a single run for comparison has no
      # samples.
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


def cell(key: str, values: Sequence[float]) -> str:
  """Returns mean ± 95 % interval, to the interval's second digit."""
  mean, half = reporting.mean_interval(np.array(values))
  return mean_and_half(mean, np.nan if key == 'seconds' else half)


def mean_and_half(mean: float, half: float) -> str:
  """Returns 'mean ± half' to the second digit of half, or the mean where it is nan."""
  if not half > 0:  # or nan
    return f'{mean:.4g}'
  # More digits than the interval's second say nothing.
  digits = max(0, 1 - int(np.floor(np.log10(half))))
  return f'{mean:.{digits}f} ± {half:.{digits}f}'
