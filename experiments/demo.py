"""Learns an energy model five ways on real handwritten digits, and compares.

The model is an RBM whose likelihood is exact, so each way of learning it is
held against exact maximum likelihood: SteinCD, CD-1 and CD-10 (Langevin), and
SteinGAN, which learns a network that draws samples beside it.

Example:
  python -m experiments.demo --workdir=runs/demo
"""

from collections.abc import Mapping
import pathlib
import shutil
import time
from typing import NamedTuple

from absl import app
from absl import flags
from absl import logging
import jax
import numpy as np

from stein_jax import datasets
from stein_jax import energies
from stein_jax import locations
from stein_jax.runs import config_files
from stein_jax.runs import evaluation
from stein_jax.runs import images
from stein_jax.runs import launch
from stein_jax.runs import reporting
from stein_jax.runs import training

_WORKDIR = flags.DEFINE_string(
  'workdir', 'runs/demo', 'Where the runs and the report go.'
)
_FRESH = flags.DEFINE_bool('fresh', True, 'Start again; False continues.')


class Row(NamedTuple):
  """A line of the table, learned by a config of the package.

  Attributes:
    id: the name of its workdir.
    name: what the table says.
    config: the name of its config, with the scale.
    flags: texts for fields of the config, by dotted name.
  """

  id: str
  name: str
  config: str
  flags: Mapping[str, str] = {}


# Both CD rows share a config and differ in the length of the chain alone.
CD = 'contrastive_divergence_mnist:digits'
ROWS = (
  Row('exact', 'Exact maximum likelihood', 'maximum_likelihood_mnist:digits'),
  Row('stein-cd', 'SteinCD', 'stein_cd_mnist:digits'),
  Row('cd-1', 'CD-1 (Langevin)', CD),
  Row('cd-10', 'CD-10 (Langevin)', CD, {'step.chain.num_steps': '10'}),
  Row('steingan', 'SteinGAN', 'steingan_mnist:digits'),
)


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments: {argv[1:]}')
  launch.set_up()
  workdir = locations.absolute(_WORKDIR.value)
  # A demo shows itself from the beginning; a workdir of an earlier one would be
  # done at once.
  if _FRESH.value:
    for row in ROWS:
      shutil.rmtree(workdir / row.id, ignore_errors=True)
  lines, curves, shown = [], {}, []
  for row in ROWS:
    line, curves[row.name], png = learn(row, workdir / row.id)
    lines.append(line)
    shown.append((row.name, png))
  report(workdir, lines, curves, shown)


def learn(row: Row, run: pathlib.Path):
  """Returns a line of the table, the likelihood curve, and a PNG of samples."""
  logging.info('%s', row.name)
  # One seed: the demo shows that all work, and leaves intervals to the tables.
  config = config_files.read(row.config, row.flags)
  begin = time.monotonic()
  state = training.train(config, run)
  seconds = time.monotonic() - begin
  last = evaluation.evaluate(config, run)['test/log_likelihood']
  points = [
    (line['step'], line['test/log_likelihood'])
    for line in reporting.read_metrics(run)
    if 'test/log_likelihood' in line
  ]
  line = {
    'learned by': row.name,
    'test log likelihood (nats)': f'{last:.2f}',
    'best on the way': f'{max(value for _, value in points):.2f}',
    'seconds': f'{seconds:.0f}',
  }
  noisy = np.load(run / 'samples.npy', allow_pickle=False)[:20]
  # One more Gibbs step without its noise: the mean b + B tanh(B'x + c).
  clean = noisy + energies.score(state.energy, noisy)
  unit = datasets.to_unit(np.concatenate([clean, noisy]), config.data)
  return line, tuple(zip(*points, strict=True)), digits(unit)


def digits(unit: np.ndarray) -> bytes:
  """Returns a PNG of 20 digits without noise and the same with it, [40, 8, 8, 1]."""
  # Eight pixels a side are hard to read as digits; between them is interpolated.
  large = np.asarray(jax.image.resize(unit, (40, 32, 32, 1), 'cubic'))
  page = images.grid(large, columns=10)
  labels = ('noise off', ' ', 'samples', ' ')
  return reporting.Pixels(images.png(page, zoom=2, labels=labels))


def report(workdir: pathlib.Path, lines, curves, shown) -> None:
  """Writes the curves and the page, and prints the table."""
  # The first quarter of a curve is far below and would flatten all that
  # follows.
  low = min(min(values[len(values) // 4 :]) for _, values in curves.values())
  high = max(max(values) for _, values in curves.values())
  plot = reporting.curves(
    curves,
    xlabel='step',
    ylabel='test log likelihood (nats)',
    ylim=(low - 0.5, high + 0.5),
  )
  (workdir / 'curves.png').write_bytes(plot)
  about = (
    'A Gaussian-Bernoulli RBM with 10 hidden units on the 8x8 digits of '
    'scikit-learn, scaled to [0, 4] beside its unit noise; log Z is exact, by '
    'enumeration. Samples by 1,000 Gibbs steps from noise; of SteinGAN by its '
    'generator.'
  )
  reporting.write_page(
    workdir / 'report.html',
    'An energy model learned five ways',
    [
      ('', about),
      *shown,
      ('Test log likelihood', plot),
      ('At the last step', lines),
      ('Code', f'commit {reporting.commit()}'),
    ],
  )
  print(reporting.table(lines))
  print(f'Report: {(workdir / "report.html").absolute()}')


if __name__ == '__main__':
  launch.run(main)
