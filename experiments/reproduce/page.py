"""One page of what has been run here: the papers' claims, then every table and figure.

A claim is an order of two rows in some number. It is reproduced where the difference
has a 95 % interval above zero, over seeds (Welch), refuted where it has one below, and
open where zero is in it, with what would settle it. A second column has the same with
all claims of the page as one family (Holm). A run that is shorter or narrower than the
paper's refutes at its own scale only, and one whose model failed decides nothing.
Numbers are those of the finished runs in the folders that the other scripts of
`experiments.reproduce` left.

Example:
  python -m experiments.reproduce.page --results=results
"""

from collections.abc import Callable, Mapping, Sequence
import functools
import importlib
import pathlib
from typing import NamedTuple

from absl import app
from absl import flags
import numpy as np

from experiments.reproduce import budgets
from experiments.reproduce import claims
from experiments.reproduce import rows
from experiments.reproduce import scripts
from experiments.reproduce import verdicts
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
  runs = [runs_of(folder / name, settings) for name, settings in found.items()]
  # The claims come first: they are what a reader wants to know.
  lines = claim_lines(claims.CLAIMS, runs)
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
  """The finished runs of one setting of a script.

  Attributes:
    script: whose they are.
    setting: what the page calls it.
    sample: function of a row's id and the name of a number to its sample, or None.
    reduced: whether they are shorter or narrower than the paper's.
    command: that makes them.
    cost: what one more run costs, in words.
    budget: function of a row's id to what it spends, in words.
    failed: id of a row to what went wrong with its model.
  """

  script: str
  setting: str
  sample: Callable[[str, str], verdicts.Sample | None]
  reduced: bool = True
  command: str = ''
  cost: str = ''
  budget: Callable[[str], str] = lambda row: ''
  failed: Mapping[str, str] = {}


def runs_of(folder: pathlib.Path, settings: Mapping) -> Runs:
  """Returns the finished runs of a folder with those settings."""
  found = {}
  for path in sorted((folder / 'runs').glob('*.json')):
    run = reporting.read_json(path)
    # Runs of older versions have names alone: no claim can find them.
    if 'id' in run:
      found.setdefault(run['id'], []).append(run)

  def sample(row, key):
    values = [run[key] for run in found.get(row, []) if key in run]
    return verdicts.sample(values) if values else None

  script = settings.get('script', '')
  values = {k: v for k, v in settings.items() if k != 'script'}
  return Runs(
    script,
    folder.name,
    sample,
    is_reduced(script, settings),
    command(script, values),
    budget=functools.partial(budget, script, values),
  )


def is_reduced(script: str, settings: Mapping) -> bool:
  """Returns whether runs with those settings are smaller than the paper's."""
  full = claims.FULL.get(script)
  return full is None or any(
    settings.get(name) != value for name, value in full.items()
  )


def command(script: str, settings: Mapping) -> str:
  """Returns the command that runs a script with those settings."""
  given = ''.join(
    f' --{name}' if value is True else f' --{name}={value}'
    for name, value in settings.items()
    if value is not None and value is not False
  )
  return f'python -m experiments.reproduce.{script}{given}'


def budget(script: str, settings: Mapping, row: str) -> str:
  """Returns what a row spends: 'updates × evaluations; energy + generator'.

  It is '' of a row that is not trained, or of settings that the script no longer has.
  """
  if script not in scripts.NAMES:
    return ''
  module = importlib.import_module(f'experiments.reproduce.{script}').SCRIPT
  # Which part of a script ran is no option of its plan.
  options = {k: v for k, v in settings.items() if k not in ('smoke', 'part')}
  smoke = settings.get('smoke', False)
  try:
    plan = scripts.plan_of(module, '', smoke=smoke, **options)
  except TypeError:
    return ''
  return budgets.words(script, plan, row)


def claim_lines(
  stated: Sequence[claims.Claim], runs: Sequence[Runs]
) -> list[dict[str, str]]:
  """Returns the page's lines: of a claim one for each setting that has rows of it."""
  pairs = []
  for claim in stated:
    there = [(claim, found) for found in runs if _has(claim, found)]
    # A claim that nothing here decides is shown as such.
    nothing = Runs(claim.script, '', lambda row, key: None)
    pairs += there or [(claim, nothing)]
  differences = [difference(claim, found) for claim, found in pairs]
  tested = [each.p for each in differences if not isinstance(each, str)]
  adjusted = iter(verdicts.holm(tested))
  return [
    line(claim, found, each, each if isinstance(each, str) else next(adjusted))
    for (claim, found), each in zip(pairs, differences, strict=True)
  ]


def _has(claim, found):
  """Returns whether runs have a number of one of a claim's rows."""
  return found.script == claim.script and any(
    found.sample(row, key)
    for row, key in zip(claim.order, keys(claim), strict=True)
  )


def keys(claim: claims.Claim) -> tuple[str, str]:
  """Returns the names of a claim's two numbers."""
  return (claim.key,) * 2 if isinstance(claim.key, str) else claim.key


def difference(claim: claims.Claim, found: Runs) -> verdicts.Difference | str:
  """Returns what runs say of a claim, or in words why nothing was tested."""
  samples = [
    found.sample(row, key)
    for row, key in zip(claim.order, keys(claim), strict=True)
  ]
  for row in claim.order:
    if row in found.failed:
      return f'not testable: {found.failed[row]}'
  missing = [
    row for row, each in zip(claim.order, samples, strict=True) if not each
  ]
  if missing:
    rows_missing = ' and '.join(dict.fromkeys(missing))
    settles = claim.settles or f'`make reproduce-{claim.script}` runs it'
    return f'open: {rows_missing} not run; {settles}'
  if failed := missed(claim.bar, found):
    return f'not testable: {failed}'
  # A run that diverged is a finding, but no number to compare.
  if not all(np.isfinite(each.mean) for each in samples):
    return 'open: a run ended with numbers that are not finite'
  larger, smaller = samples
  if claim.exact:
    holds = larger.mean > smaller.mean
    return (
      f'{"reproduced" if holds else "refuted"}: a count, which needs no test'
    )
  # A single run has no interval.
  if min(larger.num, smaller.num) < 2:
    return f'open: one seed; two more would give an interval; {found.cost}'
  return verdicts.welch(larger, smaller)


def missed(bar: claims.Bar | None, found: Runs) -> str:
  """Returns in words how runs miss a bar, or ''; so where a row of it has not run."""
  if bar is None:
    return ''
  above, below = (
    found.sample(end, bar.key) if isinstance(end, str) else end
    for end in (bar.above, bar.below)
  )
  if above is None or below is None:
    return ''
  below = below if isinstance(below, float) else below.mean
  if above.mean > below:
    return ''
  return f'{bar.says} ({above.mean:.5g} is not above {below:.5g})'


def line(claim: claims.Claim, found: Runs, said, p) -> dict[str, str]:
  """Returns the line of a claim.

  Args:
    claim: the claim.
    found: the runs that it is held against.
    said: their difference, or in words why nothing was tested.
    p: the difference's p-value under Holm, or the same words.
  """
  pair = list(zip(claim.order, keys(claim), strict=True))
  samples = [found.sample(row, key) for row, key in pair]
  shown = [
    cell(each, exact=claim.exact) if each else 'not run' for each in samples
  ]
  values = {'difference': '', 'p (Welch)': ''}
  alone = under = said
  if not isinstance(said, str):
    values = {
      'difference': f'[{said.low:.3g}, {said.high:.3g}]',
      'p (Welch)': f'{said.p:.2g}',
    }
    reduced = found.reduced and not claim.full
    alone, under = (
      verdicts.verdict(said.mean, each, reduced=reduced) for each in (said.p, p)
    )
    if alone == 'open':
      alone = f'open: {settling(*samples, found.cost)}'
  join = ' > '.join
  return {
    'source': claim.source,
    'claim': claim.says,
    'setting': found.setting,
    'order': join(claim.order),
    'here': join(shown),
    'printed': join(value or '?' for value in claim.printed),
    'seeds': ', '.join(str(each.num) if each else '0' for each in samples),
    **values,
    'by itself': alone,
    'under Holm': under.partition(':')[0],
    'budget': ' against '.join(found.budget(row) or '-' for row in claim.order),
    'command': found.command,
  }


def cell(sample: verdicts.Sample, *, exact: bool = False) -> str:
  """Returns mean ± 95 % interval, to the interval's second digit; or a whole count."""
  if exact:
    return f'{sample.mean:,.0f}'
  return rows.mean_and_half(sample.mean, verdicts.interval(sample))


def settling(larger, smaller, cost: str) -> str:
  """Returns how many runs would decide between two samples, and their cost."""
  num = verdicts.runs_needed(larger, smaller)
  if num is None:
    return 'more than 1,000 seeds of each would be needed'
  return '; '.join(
    part
    for part in (f'{num} seeds of each if means and deviations stay', cost)
    if part
  )


if __name__ == '__main__':
  flags.DEFINE_string(
    'results', 'results', 'Folder with a folder of each script.'
  )
  launch.run(main)
