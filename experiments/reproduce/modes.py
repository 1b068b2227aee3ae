"""X21, the need of an ancestral start: a Langevin chain stays in one mode.

The density is known: four Gaussians, each farther out than the last. Chains start at
noise, at data, or ancestrally, at what a sampler draws: a flow that has learned from
data by its likelihood, or a network that has learned the density by amortised SVGD.
The table has, over the chains' length, how far the modes' shares of all chains are from
the true ones, and how many modes a chain has been in by then. Every finished run is a
file: an interrupted call continues.

Example:
  python -m experiments.reproduce.modes --results=results/modes
"""

import numpy as np

from experiments.reproduce import chains
from experiments.reproduce import rows
from experiments.reproduce import scripts
from stein_jax.runs import launch
from stein_jax.runs import reporting

ROWS = (
  rows.Row('noise', 'noise'),
  rows.Row('data', 'data'),
  rows.Row('learned-from-data', 'sampler that learned from data'),
  rows.Row('learned-from-density', 'sampler that learned from the density'),
)
# What is measured of chains at each look: its title, and the function of their modes.
MEASURES = {
  'shares': ('error of the shares', chains.share_error),
  'visited': ('modes that a chain has been in', chains.visited),
}


def looks_of(plan: scripts.Plan) -> int:
  """Returns how often chains of the plan's length are looked at."""
  return max(1, plan.steps // chains.STRIDE)


def run_row(plan: scripts.Plan, row: rows.Row, seed: int):
  """Returns the measures [looks + 1] of the chains of one start; no images."""
  density = chains.density()
  # A sampler learns anew for each seed, so that intervals have its luck in
  # them.
  start = chains.starts(density, plan.options.learning_steps)[row.id]
  modes = chains.modes_of(density, start, seed, looks_of(plan))
  found = {
    name: measure(modes).tolist() for name, (_, measure) in MEASURES.items()
  }
  return found, None


def report(plan: scripts.Plan) -> scripts.Report:
  """Returns the table and the figures of what is there."""
  runs = {
    row.name: found
    for row in ROWS
    if (found := rows.results(plan.results, row, plan.seeds))
  }
  length = chains.STRIDE * np.arange(looks_of(plan) + 1)
  figures = {}
  for name, (title, _) in MEASURES.items():
    series = {
      start: (length[1:], np.stack([run[name][1:] for run in found], 1))
      for start, found in runs.items()
    }
    png = reporting.curves(series, xlabel='steps of a chain', ylabel=title)
    figures[name] = (title, png)
  lines = []
  for start, found in runs.items():
    # At the start, early, and at the end.
    for i in sorted({0, looks_of(plan) // 100, looks_of(plan)}):
      line = {'start': start, 'steps': length[i]}
      for name, (title, _) in MEASURES.items():
        mean, half = reporting.mean_interval([run[name][i] for run in found])
        line[title] = f'{mean:.3f} ± {half:.3f}'
      lines.append(line)
  return scripts.Report('Chains and modes', {'Modes': lines}, figures)


SCRIPT = scripts.Script(
  'modes',
  steps=scripts.Option(
    10_000, 'Langevin steps of every chain.', smoke=100, minimum=1
  ),
  seeds=3,
  parts={'rows': scripts.Part(lambda plan: ROWS, run_row)},
  report=report,
  options={
    'learning_steps': scripts.Option(
      2000, 'Steps of a sampler that learns.', smoke=20, minimum=1
    ),
  },
)


if __name__ == '__main__':
  launch.run(scripts.main(SCRIPT))
