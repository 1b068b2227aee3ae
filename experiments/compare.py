"""Compares runs on one page: table, differing fields, curves, samples.

Runs that differ in their seed alone are one line, with a mean and a 95 % interval.

Example:
  python -m experiments.compare runs/a runs/b runs/c --output=runs/compare.html
  python -m experiments.compare runs/sweep/*
"""

from absl import app
from absl import flags

from stein_jax import locations
from stein_jax.runs import comparing
from stein_jax.runs import launch
from stein_jax.runs import reporting

_OUTPUT = flags.DEFINE_string('output', 'compare.html', 'The page.')
_DEBUG = flags.DEFINE_bool('debug', False, 'Show where an error comes from.')


def main(argv):
  launch.set_up(debug=_DEBUG.value)
  # A pattern of the shell may name files beside the runs, such as an older page.
  runs = [each for each in argv[1:] if locations.absolute(each).is_dir()]
  if not runs:
    named = f'No folder: {", ".join(argv[1:])}. ' if argv[1:] else ''
    raise app.UsageError(f'{named}Name the workdirs of one or more runs.')
  lines = comparing.write(_OUTPUT.value, runs)
  print(reporting.table(lines))
  print(f'Page: {locations.absolute(_OUTPUT.value)}')


if __name__ == '__main__':
  launch.run(main)
