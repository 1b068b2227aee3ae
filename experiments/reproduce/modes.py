"""X21, the need of an ancestral start: a Langevin chain stays in one mode.

The density is known: four Gaussians, each farther out than the last. Chains start at
noise, at data, or ancestrally, at what a sampler draws: a flow that has learned from
data by its likelihood, or a network that has learned the density by amortised SVGD.
Over the chains' length: how far the shares of the modes among all of them are from
the true ones, and how many modes a chain has been in by then.

Example:
  python -m experiments.reproduce.modes --results=results/modes
"""

from absl import app
from absl import flags
import numpy as np

from experiments.reproduce import chains
from experiments.reproduce import rows
from stein_jax import locations
from stein_jax.runs import launch
from stein_jax.runs import reporting

_RESULTS = flags.DEFINE_string(
  'results', 'results/modes', 'Folder of the results.'
)
_SEEDS = flags.DEFINE_integer('seeds', 3, 'Of every start.', lower_bound=2)
_SMOKE = flags.DEFINE_bool('smoke', False, 'Short chains: half a minute.')


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments: {argv[1:]}')
  launch.set_up()
  results = locations.absolute(_RESULTS.value)
  looks, learning = (10, 20) if _SMOKE.value else (1000, 2000)
  settings = dict(looks=looks, learning=learning, seeds=_SEEDS.value)
  reporting.claim(results, settings)
  density = chains.density()
  paths = {
    name: np.stack(
      [
        chains.modes_of(density, start, seed, looks)
        for seed in range(_SEEDS.value)
      ]
    )
    for name, start in chains.starts(density, learning).items()
  }
  report(results, settings, paths)


def report(results, settings, paths) -> None:
  """Writes table.md, two figures and report.html; prints the table."""
  looks = settings['looks']
  length = chains.STRIDE * np.arange(looks + 1)
  measures = {
    'error of the shares': ('shares', chains.share_error),
    'modes that a chain has been in': ('visited', chains.visited),
  }
  sections, lines = [], []
  for title, (name, measure) in measures.items():
    series = {
      start: (length[1:], np.stack([measure(m)[1:] for m in modes], 1))
      for start, modes in paths.items()
    }
    png = reporting.curves(series, xlabel='steps of a chain', ylabel=title)
    (results / f'{name}.png').write_bytes(png)
    sections.append((title, png))
  for start, modes in paths.items():
    for i in sorted({0, looks // 100, looks}):
      line = {'start': start, 'steps': length[i]}
      for title, (_, measure) in measures.items():
        mean, half = reporting.mean_interval([measure(m)[i] for m in modes])
        line[title] = f'{mean:.3f} ± {half:.3f}'
      lines.append(line)
  rows.write_report(
    results, 'Chains and modes', {'Modes': lines}, sections, settings
  )


if __name__ == '__main__':
  app.run(main)
