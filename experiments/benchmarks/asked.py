"""What one step of every config asks of a GPU, read without one.

Each step is traced and lowered as on a GPU, and its text is counted: what the program
says, before the compiler fuses it. So it says at once whether a step waits for the
host, and what the time of a first run is to be held against.

Example:
  python -m experiments.benchmarks.asked
"""

import importlib
import pathlib

from experiments.benchmarks import counting
from experiments.benchmarks import report
from stein_jax.runs import reporting

_CONFIGS = pathlib.Path(__file__).parents[2] / 'configs'


def measure():
  """Returns the text, lines and pictures that `report.run` takes."""
  rows = []
  for path in sorted(_CONFIGS.glob('*.py')):
    config = importlib.import_module(f'configs.{path.stem}').get_config()
    found = counting.step_of(config)
    rows.append(
      {'config': path.stem, **{k: f'{v:.3g}' for k, v in found.items()}}
    )
  return reporting.table(rows), [], {}


if __name__ == '__main__':
  report.run('asked', measure)
