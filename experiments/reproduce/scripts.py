"""What the scripts of this folder have in common: flags, folder, runs, report.

A script is a value: its options, its rows and what runs them, and what it shows. From
these follow its flags, the folder of its results, which belongs to one set of
options, and a page that shows what has been run by now.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
import pathlib
from typing import Any, NamedTuple

from absl import app
from absl import flags
import jax
from ml_collections import config_dict
import numpy as np

from experiments.reproduce import rows
from stein_jax import locations
from stein_jax.runs import images
from stein_jax.runs import launch
from stein_jax.runs import reporting

# The modules of this folder that hold a script; the results of one are in a folder of
# that name.
NAMES = (
  'amortized_svgd',
  'cifar10',
  'cost',
  'image_energies',
  'modes',
  'objectives',
  'particles',
  'rbm',
  'recovery',
  'steingan',
  'vae_teaching',
  'vgan',
)

# The flags defined below count as the calling script's: its --help lists them.
flags.disclaim_key_flags()


class Option(NamedTuple):
  """A flag of a script.

  Attributes:
    default: its value without the flag.
    help: what it is.
    smoke: its value in a smoke run; None for the same as in any other.
    choices: the values it may have; () for any.
    minimum: the least it may be, which makes it a whole number; None for a text, or a
      switch where the default is one.
  """

  default: Any
  help: str
  smoke: Any = None
  choices: Sequence[str] = ()
  minimum: int | None = None

  def define(self, name: str) -> None:
    """Makes it a flag of the command."""
    # The kind of flag follows from what the option may be.
    if self.choices:
      flags.DEFINE_enum(name, self.default, self.choices, self.help)
    elif self.minimum is not None:
      flags.DEFINE_integer(
        name, self.default, self.help, lower_bound=self.minimum
      )
    elif isinstance(self.default, bool):
      flags.DEFINE_bool(name, self.default, self.help)
    else:
      flags.DEFINE_string(name, self.default, self.help)


# Several scripts take this option.
NPZ = Option(None, 'Images in place of the data set, as `train` takes them.')


class Plan(NamedTuple):
  """What one call is to do.

  Attributes:
    results: folder of the results.
    steps: length of every run; None for the configs' own.
    seeds: runs of every row.
    smoke: whether the call is only to see that everything runs.
    options: values of the script's own options.
  """

  results: pathlib.Path
  steps: int | None
  seeds: int
  smoke: bool
  options: config_dict.FrozenConfigDict


class Part(NamedTuple):
  """Rows, and what runs them.

  Attributes:
    rows: function of the plan to its rows.
    run: function of plan, row and seed to a run's result, a mapping, and its images or
      None. With `together` it is a function of plan and row to a list of such pairs,
      one for each seed.
    together: whether all seeds of a row are trained in one go.
    asked: whether it runs only where the flag names it, as what takes a day does.
  """

  rows: Callable[[Plan], Sequence[rows.Row]]
  run: Callable
  together: bool = False
  asked: bool = False


class Report(NamedTuple):
  """What a script shows of the runs that are finished.

  Attributes:
    title: of the page.
    tables: title to lines.
    figures: name of a file, without .png, to title and PNG.
  """

  title: str
  tables: Mapping[str, list[dict[str, Any]]]
  figures: Mapping[str, tuple[str, bytes]]


class Script(NamedTuple):
  """A table or figure of a paper, reproduced.

  Attributes:
    name: of its module, and of the folder of its results.
    steps: the flag of that name.
    seeds: runs of every row without the flag of that name.
    parts: name to rows and what runs them; where there are several a flag chooses.
    report: function of the plan to what is shown.
    options: the script's own flags by name.
    trained: function of the plan and a row to the config that is trained, whose length
      is that of the run, or None for a row that is not trained.
  """

  name: str
  steps: Option
  seeds: int
  parts: Mapping[str, Part]
  report: Callable[[Plan], Report]
  options: Mapping[str, Option] = {}
  trained: Callable[[Plan, rows.Row], Any] = lambda plan, row: None


def plan_of(script: Script, results, *, smoke: bool = False, **values) -> Plan:
  """Returns what a call does whose flags have these values, else their defaults.

  Raises:
    TypeError: a value of a flag that the script does not have.
  """
  # The length, the seeds, and the script's own: all may have a smoke value.
  options = _options(script)
  if unknown := values.keys() - options.keys():
    raise TypeError(f'{script.name} has no {", ".join(sorted(unknown))}.')
  found = {name: option.default for name, option in options.items()} | values
  if smoke:
    found |= {
      name: option.smoke
      for name, option in options.items()
      if option.smoke is not None
    }
  return Plan(
    locations.absolute(results),
    found.pop('steps'),
    found.pop('seeds'),
    smoke,
    config_dict.FrozenConfigDict(found),
  )


def main(script: Script) -> Callable[[Sequence[str]], None]:
  """Defines the script's flags, and returns its main function for `launch.run`."""
  flags.DEFINE_string(
    'results', f'results/{script.name}', 'Folder of the results.'
  )
  options = _options(script)
  for name, option in options.items():
    option.define(name)
  parts = list(script.parts)
  usual = [name for name in parts if not script.parts[name].asked]
  if len(parts) > 1:
    flags.DEFINE_multi_enum(
      'part', usual, parts, 'What to run; the report shows what has been run.'
    )
  flags.DEFINE_bool(
    'smoke', False, 'Run a few steps of two seeds of every row: some minutes.'
  )

  def call(argv):
    if len(argv) > 1:
      raise app.UsageError(f'Unknown arguments: {argv[1:]}')
    launch.set_up()
    given = {name: flags.FLAGS[name].value for name in options}
    smoke = flags.FLAGS['smoke'].value
    # Numbers of a smoke run are looked at by nobody.
    if smoke:  # compiling is nearly all of its time
      jax.config.update('jax_disable_most_optimizations', True)
    plan = plan_of(script, flags.FLAGS['results'].value, smoke=smoke, **given)
    # Before anything runs: results of other options would stand in one table.
    settings = claim(script, plan)
    for name in flags.FLAGS['part'].value if len(parts) > 1 else parts:
      run_all(plan, script.parts[name])
    write_report(plan.results, script.report(plan), settings)

  return call


def _options(script):
  """Returns all flags of a script that are options of its runs."""
  seeds = Option(script.seeds, 'Runs of every row.', smoke=2, minimum=1)
  return {'steps': script.steps, 'seeds': seeds, **script.options}


def claim(script: Script, plan: Plan) -> dict[str, Any]:
  """Returns the settings of a plan, whose folder is made theirs.

  The number of seeds does not count: each has files of its own, and a later call may
  add some. It does count where the seeds of a row are trained together.

  Raises:
    ValueError: the folder holds the results of other settings.
  """
  settings = {'script': script.name, 'steps': plan.steps, 'smoke': plan.smoke}
  settings |= plan.options.to_dict()
  seeds = {'seeds': plan.seeds}
  together = any(part.together for part in script.parts.values())
  reporting.claim(plan.results, settings | seeds if together else settings)
  return settings | seeds


def run_all(plan: Plan, part: Part) -> None:
  """Runs what is not finished yet, one seed of every row after another.

  So a call that is interrupted leaves as many seeds of each row. Rows whose seeds are
  trained together come one after another.
  """
  found = part.rows(plan)
  if part.together:
    for row in found:
      # Seeds that are trained together are finished together.
      if len(rows.results(plan.results, row, plan.seeds)) < plan.seeds:
        for seed, run in enumerate(part.run(plan, row)):
          rows.keep(plan.results, row, seed, *run)
    return
  run = functools.partial(part.run, plan)
  for seed in range(plan.seeds):
    for row in found:
      # The first seed of all rows comes before the second of any.
      if seed == 0 or not row.single:
        rows.finish(plan.results, row, seed, run)


def row_figures(
  plan: Plan,
  shown: Sequence[rows.Row],
  draw: Callable[[np.ndarray], bytes] | None = None,
) -> dict[str, tuple[str, bytes]]:
  """Returns a figure, as in `Report`, of the first run of each row that has images.

  Args:
    plan: of the call.
    shown: the rows.
    draw: function of a row's images to a PNG; None for a grid of the first 100.
  """
  if draw is None:
    # A hundred fill a square.
    draw = lambda x: images.png(images.grid(x[:100], columns=10), zoom=2)
  figures = {}
  for row in shown:
    found = rows.images_of(plan.results, row)
    if found is not None:
      figures[f'runs/{row.id}_0'] = (row.name, draw(found))
  return figures


def write_report(
  folder: pathlib.Path, report: Report, settings: Mapping[str, Any]
) -> None:
  """Writes table.md, the figures and report.html; prints the tables.

  Args:
    folder: of the results.
    report: what is shown; a table without lines is left out.
    settings: of the call.
  """
  # A part that has not been run has no lines yet.
  tables = {name: lines for name, lines in report.tables.items() if lines}
  text = '\n'.join(
    f'{name}\n\n{reporting.table(lines)}' for name, lines in tables.items()
  )
  (folder / 'table.md').write_text(text, 'utf-8')
  for name, (_, png) in report.figures.items():
    (folder / f'{name}.png').write_bytes(png)
  page = folder / 'report.html'
  about = [
    ('Settings', {key: str(value) for key, value in settings.items()}),
    ('Code', f'commit {reporting.commit()}'),
  ]
  sections = [*tables.items(), *report.figures.values(), *about]
  reporting.write_page(page, report.title, sections)
  print(text)
  print(f'Report: {page.absolute()}')
