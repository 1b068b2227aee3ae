"""Several runs beside each other, those that differ in their seed alone as one."""

from collections.abc import Sequence
import pathlib
from typing import Any, NamedTuple

import numpy as np

from stein_jax import locations
from stein_jax.runs import reporting
from stein_jax.runs import workdirs

_NOT_COMPARED = ('step', 'steps_per_second')
# Fields that make no other experiment of one: who compares asks for the rest.
_REPEATS = ('seed',)


class Group(NamedTuple):
  """Runs of one experiment.

  Attributes:
    name: the fields in which it differs from the other groups, and their values.
    workdirs: of its runs, one for each seed.
    fields: the config without the seed, by dotted name.
  """

  name: str
  workdirs: list[pathlib.Path]
  fields: dict[str, Any]


def groups(runs: Sequence) -> list[Group]:
  """Returns the runs in these workdirs, grouped, in the order in which they come.

  Raises:
    FileNotFoundError: one is no workdir.
    ValueError: there is none.
  """
  if not runs:
    raise ValueError('There is nothing to compare: name one or more workdirs.')
  found = []
  for workdir in map(locations.absolute, runs):
    fields = reporting.flat_config(workdirs.read_fields(workdir))
    fields = {k: v for k, v in fields.items() if k not in _REPEATS}
    same = [group for group in found if group.fields == fields]
    if same:
      same[0].workdirs.append(workdir)
    else:
      found.append(Group('', [workdir], fields))
  differing = _differing([group.fields for group in found])
  named = [group._replace(name=_name(group, differing)) for group in found]
  return named


def _differing(configs):
  """Returns the names of fields that have more than one value."""
  names = dict.fromkeys(name for fields in configs for name in fields)
  return [
    name
    for name in names
    if any(each.get(name) != configs[0].get(name) for each in configs)
  ]


def _name(group, differing):
  said = [f'{name}={group.fields.get(name, "")}' for name in differing]
  return ', '.join(said) or group.workdirs[0].name


def table(found: Sequence[Group]) -> list[dict[str, str]]:
  """Returns a line for each group: mean ± 95 % interval over seeds of its evaluation.

  A run that has not been evaluated yet is not counted.
  """
  lines = []
  for group in found:
    numbers = [
      reporting.read_json(path)
      for workdir in group.workdirs
      if (path := workdir / reporting.EVALUATION_FILE).exists()
    ]
    line = {'run': group.name, 'seeds': str(len(numbers))}
    for name in dict.fromkeys(key for each in numbers for key in each):
      if name not in _NOT_COMPARED:
        values = [each[name] for each in numbers if name in each]
        line[name] = _cell(values)
    lines.append(line)
  columns = dict.fromkeys(key for line in lines for key in line)
  return [{key: line.get(key, '') for key in columns} for line in lines]


def _cell(values):
  if any(isinstance(value, str) for value in values):
    return '; '.join(dict.fromkeys(values))
  mean, half = reporting.mean_interval(np.array(values, float))
  return f'{mean:.4g}' + (f' ± {half:.2g}' if half > 0 else '')


def write(path, runs: Sequence) -> list[dict[str, str]]:
  """Writes a page of the runs in these workdirs, and returns its table.

  It has the table, the fields that differ, each metric's curves over each other, and
  the samples side by side.

  Raises:
    FileNotFoundError, ValueError: see `groups`.
  """
  found = groups(runs)
  lines = table(found)
  differing = _differing([group.fields for group in found])
  sections = [('At the end, mean ± 95 % interval over seeds', lines)]
  if differing:
    fields = [
      {
        'run': group.name,
        **{name: str(group.fields.get(name, '')) for name in differing},
      }
      for group in found
    ]
    sections.append(('Fields that differ', fields))
  if plots := reporting.Plots(_curves(found)):
    sections.append(('Over training', plots))
  for group in found:
    picture = group.workdirs[0] / 'samples.png'
    if picture.exists():
      png = reporting.Pixels(picture.read_bytes())
      sections.append((f'Samples: {group.name}', png))
  path = locations.absolute(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  reporting.write_page(path, 'Runs compared', sections)
  return lines


def _curves(found):
  """Yields each metric's name and its picture."""
  logged = {
    group.name: [reporting.read_metrics(each) for each in group.workdirs]
    for group in found
  }
  names = dict.fromkeys(
    name for runs in logged.values() for lines in runs for line in lines
    for name in line if name not in _NOT_COMPARED
  )  # fmt: skip
  for name in names:
    series = {}
    for group, runs in logged.items():
      steps, values = _common(runs, name)
      if len(steps) > 1:
        series[group] = steps, values
    if series:
      yield (
        name,
        reporting.curves(series, xlabel='step', ylabel='', size=(6, 3)),
      )


def _common(runs, name):
  """Returns the steps at which all runs have a metric, and its values [steps, runs]."""
  found = [
    {line['step']: line[name] for line in lines if name in line}
    for lines in runs
  ]
  steps = sorted(set.intersection(*map(set, found)))
  values = np.array([[each[step] for each in found] for step in steps])
  return steps, values[:, 0] if len(found) == 1 and len(steps) else values
