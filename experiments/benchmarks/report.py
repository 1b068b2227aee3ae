"""What every benchmark does with its figures, and the one table of all of them.

Example:
  python -m experiments.benchmarks.report --results=results/benchmarks
"""

from collections.abc import Callable, Mapping, Sequence

from absl import app
from absl import flags

from experiments.benchmarks import timing
from stein_jax import locations
from stein_jax.runs import launch
from stein_jax.runs import reporting

_RESULTS = flags.DEFINE_string(
  'results', 'results/benchmarks', 'Folder of the tables and figures.'
)
_SECONDS = flags.DEFINE_float(
  'seconds', 1.0, 'Spent on each function.', lower_bound=0.0
)


def run(
  name: str,
  measure: Callable[[], tuple[str, Sequence[Mapping], Mapping[str, bytes]]],
) -> None:
  """Runs a benchmark as a command.

  Args:
    name: of its files.
    measure: to the text that is shown, its lines of the table of all benchmarks, from
      `line`, and pictures in PNG, by name.
  """

  def main(argv):
    if len(argv) > 1:
      raise app.UsageError(f'Unknown arguments: {argv[1:]}')
    reporting.set_up_logging()
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    text, lines, pictures = measure()
    # Each benchmark leaves its figures, so that one of them can be run again
    # alone.
    (folder / f'{name}.md').write_text(text, 'utf-8')
    reporting.write_json(folder / f'{name}.json', lines)
    for picture, png in pictures.items():
      (folder / f'{picture}.png').write_bytes(png)
    print(text)

  launch.run(main)


def medians(functions: Mapping[str, Callable], *args) -> dict[str, float]:
  """Returns what `timing.medians` does, in `--seconds`."""
  return timing.medians(functions, *args, seconds=_SECONDS.value)


def line(what: str, ours: float, beside: str = '', theirs: float = 0.0) -> dict:
  """Returns a line of the table of all benchmarks, of times in seconds."""
  return {
    'what': what,
    'ours': _time(ours),
    'beside': beside,
    'theirs': _time(theirs) if beside else '',
    # A ratio of one run: seconds alone say as much of the machine as of the
    # code.
    'ours over theirs': f'{ours / theirs:.2f}' if beside else '',
  }


def _time(seconds):
  return f'{1e3 * seconds:.3g} ms' if seconds < 1 else f'{seconds:.3g} s'


def _folder():
  return locations.absolute(_RESULTS.value)


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments: {argv[1:]}')
  found = sorted(_folder().glob('*.json'))
  lines = [line for path in found for line in reporting.read_json(path)]
  if not lines:
    raise app.UsageError(
      f'{_folder()} holds no figures; `make bench` makes them.'
    )
  table = reporting.table(lines)
  (_folder() / 'all.md').write_text(table, 'utf-8')
  print(f'{table}\n{_folder()}/all.md')


if __name__ == '__main__':
  launch.run(main)
