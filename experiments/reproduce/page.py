"""One page of what has been run here: the papers' claims, then every table and figure.

A claim is an order of rows in some number. It is reproduced where every difference in
that order has a 95 % interval above zero, over seeds (Welch); refuted where one of them
is below; open where an interval has zero in it, or a row one seed; not run where a row
has no result. Numbers are those of the finished runs in the folders that the other
scripts of `experiments.reproduce` left, whose settings, on the page, say what was
reduced.

Example:
  python -m experiments.reproduce.page --results=results
"""

from collections.abc import Mapping, Sequence
import pathlib
from typing import NamedTuple

from absl import app
from absl import flags
import numpy as np

from experiments.reproduce import claims
from experiments.reproduce import rows
from stein_jax import locations
from stein_jax.runs import launch
from stein_jax.runs import reporting

_SETTINGS = 'settings.json'


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments: {argv[1:]}')
  reporting.set_up_logging()
  folder = locations.absolute(flags.FLAGS['results'].value)
  if not list(folder.glob(f'*/{_SETTINGS}')):
    raise app.UsageError(
      f'{folder} holds no results; `make reproduce-rbm` and the like make them.'
    )
  print(f'{reporting.table(write(folder))}\n{folder}/results.html')


def write(folder: pathlib.Path) -> list[dict[str, str]]:
  """Writes results.md and results.html of all scripts' folders; returns the claims."""
  found = {
    path.parent.name: reporting.read_json(path)
    for path in sorted(folder.glob(f'*/{_SETTINGS}'))
  }
  runs = {
    name: Runs(settings.get('script', ''), results(folder / name))
    for name, settings in found.items()
  }
  # The claims come first: they are what a reader wants to know.
  lines = [each for claim in claims.CLAIMS for each in claim_lines(claim, runs)]
  sections = [('Claims', lines)]
  text = [f'# Results\n\n{reporting.table(lines)}']
  for name, settings in found.items():
    sections.append((name, settings))
    text.append(f'## {name}\n\n`{reporting.to_json(settings)}`\n')
    table = folder / name / 'table.md'
    if table.exists():
      text.append(table.read_text('utf-8'))
      sections += [
        (f'{name}: {title or "table"}', content)
        for title, content in tables(table.read_text('utf-8'))
      ]
    at = folder / name
    for png in sorted([*at.glob('*.png'), *at.glob('runs/*.png')]):
      sections.append((f'{name}: {png.stem}', png.read_bytes()))
      text.append(f'![{png.stem}]({png.relative_to(folder).as_posix()})\n')
  (folder / 'results.md').write_text('\n'.join(text), 'utf-8')
  reporting.write_page(folder / 'results.html', 'Results', sections)
  return lines


def tables(text: str) -> list[tuple[str, list[dict[str, str]]]]:
  """Returns the (title, lines) of each table of Markdown; titles stand before them."""
  found, title = [], ''
  # Tables are read back from Markdown, which is what a person may have edited.
  for block in text.strip().split('\n\n'):
    if not block.startswith('|'):
      title = block
      continue
    heads, _, *lines = (
      [cell.strip() for cell in line[1:-1].split('|')]
      for line in block.splitlines()
    )
    found.append(
      (title, [dict(zip(heads, cells, strict=True)) for cells in lines])
    )
  return found


class Runs(NamedTuple):
  """The finished runs of a folder.

  Attributes:
    script: whose they are.
    results: id of a row to the results of its runs.
  """

  script: str
  results: Mapping[str, list[dict]]


def results(folder: pathlib.Path) -> dict[str, list[dict]]:
  """Returns the results of a folder's finished runs by the id of their row."""
  found = {}
  for path in sorted((folder / 'runs').glob('*.json')):
    run = reporting.read_json(path)
    # Runs of older versions have names alone: no claim can find them.
    if 'id' in run:
      found.setdefault(run['id'], []).append(run)
  return found


def claim_lines(
  claim: claims.Claim, runs: Mapping[str, Runs]
) -> list[dict[str, str]]:
  """Returns the page's lines of a claim: one for each folder that has rows of it."""
  lines = [
    line(claim, name, found.results)
    for name, found in runs.items()
    if found.script == claim.script
    and not set(claim.order).isdisjoint(found.results)
  ]
  # A claim that nothing here decides is shown as such.
  return lines or [line(claim, '', {})]


def line(claim: claims.Claim, folder: str, found) -> dict[str, str]:
  """Returns the line of one claim, of the runs found in a folder."""
  keys = claim.key
  if isinstance(keys, str):
    keys = [keys] * len(claim.order)
  values = [
    [run[key] for run in found.get(row, []) if key in run]
    for key, row in zip(keys, claim.order, strict=True)
  ]
  shown = [
    rows.cell(key, v) if v else 'not run'
    for key, v in zip(keys, values, strict=True)
  ]
  join = ' > '.join
  return {
    'source': claim.source,
    'claim': claim.says,
    'order': join(claim.order),
    'here': join(shown),
    'printed': join(value or '?' for value in claim.printed),
    'verdict': verdict(values),
    'command': f'make reproduce-{claim.script}',
    'results': folder,
  }


def verdict(values: Sequence[Sequence[float]]) -> str:
  """Returns what the runs of rows, the largest first, say of that order."""
  if not all(values):
    return 'not run'
  # A run that diverged is a finding, but no number to compare.
  if not np.all(np.isfinite(np.concatenate(values))):
    return 'open: a run ended with numbers that are not finite'
  # A single run has no interval.
  if min(map(len, values)) < 2:
    return 'open: one seed'
  lows, highs = zip(*map(interval, values, values[1:]), strict=True)
  # One difference the wrong way refutes the whole order.
  if min(highs) < 0:
    return 'refuted'
  return 'reproduced' if min(lows) > 0 else 'open'


def interval(larger, smaller) -> tuple[float, float]:
  """Returns the 95 % interval of the difference of two means (Welch)."""
  from scipy import stats  # pylint: disable=g-import-not-at-top

  if not np.ptp(larger) and not np.ptp(smaller):  # nothing to estimate it from
    difference = float(larger[0] - smaller[0])
    return difference, difference
  test = stats.ttest_ind(larger, smaller, equal_var=False)
  return tuple(test.confidence_interval(0.95))


if __name__ == '__main__':
  flags.DEFINE_string(
    'results', 'results', 'Folder with a folder of each script.'
  )
  launch.run(main)
