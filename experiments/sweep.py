r"""Trains a config at every value of a grid of fields, with several seeds each.

A run for each value and seed lies in --workdir under their names. A sweep that was
interrupted goes on: what has finished is not run again. At the end all runs are
compared on one page. A run that fails does not stop the others; it is named at the end.

Example:
  python -m experiments.sweep --config=configs/stein_cd_mnist.py:digits \
    --workdir=runs/sweep --grid=optimizer.learning_rate.init_value=0.01,0.003 --seeds=3
  python -m experiments.sweep --config=configs/svgd_toy.py --workdir=runs/kernels \
    --grid=step.direction.kernel=RBF,IMQ --grid=num_particles=50,200 --processes=2
"""

from concurrent import futures
import itertools
import subprocess
import sys

from absl import app
from absl import flags
from absl import logging

from stein_jax import locations
from stein_jax.runs import comparing
from stein_jax.runs import config_files
from stein_jax.runs import launch
from stein_jax.runs import reporting

_CONFIG = config_files.ConfigFile('config')
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of all runs.')
_GRID = flags.DEFINE_multi_string(
  'grid', [], 'FIELD=VALUE,VALUE,...; several make all combinations.'
)
_SEEDS = flags.DEFINE_integer('seeds', 1, 'Seeds of each.', lower_bound=1)
_PROCESSES = flags.DEFINE_integer(
  'processes', 1, 'Runs at a time.', lower_bound=1
)
_ARGUMENTS = flags.DEFINE_multi_string(
  'argument',
  [],
  'Passed on to every run, as in --argument=--npz=images.npz; fields of the config '
  'need no more than their own flags.',
)
_DEBUG = flags.DEFINE_bool('debug', False, 'Show where an error comes from.')
flags.mark_flag_as_required('workdir')


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments: {argv[1:]}')
  launch.set_up(debug=_DEBUG.value)
  folder = locations.absolute(_WORKDIR.value)
  runs = [(folder / name, texts) for name, texts in combinations(_GRID.value)]
  for _, texts in runs:  # before any of them is trained
    config_files.read(flags.FLAGS['config'].value, texts)
  with futures.ThreadPoolExecutor(_PROCESSES.value) as pool:
    codes = list(pool.map(lambda run: train(*run), runs))
  finished = [
    path for (path, _), code in zip(runs, codes, strict=True) if not code
  ]
  if finished:
    lines = comparing.write(folder / 'compare.html', finished)
    print(reporting.table(lines))
    print(f'Page: {folder / "compare.html"}')
  failed = [
    path.name for (path, _), code in zip(runs, codes, strict=True) if code
  ]
  if failed:
    sys.exit(f'{len(failed)} of {len(runs)} runs failed: {", ".join(failed)}.')


def combinations(grid):
  """Yields the name of every run, and the texts of its fields by their names."""
  axes = [[('seed', str(seed)) for seed in range(_SEEDS.value)]]
  for text in grid:
    field, equals, values = text.partition('=')
    if not (field and equals and values):
      raise app.UsageError(f'--grid={text} must be FIELD=VALUE,VALUE,...')
    axes.insert(-1, [(field, value) for value in values.split(',')])
  for chosen in itertools.product(*axes):
    name = ','.join('='.join(pair) for pair in chosen).replace('/', '_')
    yield name, {**_CONFIG.texts, **dict(chosen)}


def train(workdir, texts):
  """Returns the code with which a run ends; 0 at once where it has finished."""
  if (workdir / reporting.EVALUATION_FILE).exists():
    logging.info('%s has finished already.', workdir.name)
    return 0
  # The module beside this one, which an installed package has elsewhere.
  command = [sys.executable, '-m', f'{__spec__.parent}.train']
  command += [f'--config={flags.FLAGS["config"].value}']
  command += [f'--config.{field}={text}' for field, text in texts.items()]
  command += [f'--workdir={workdir}', *_ARGUMENTS.value]
  logging.info('%s begins.', workdir.name)
  workdir.parent.mkdir(parents=True, exist_ok=True)
  with open(f'{workdir}.log', 'a', encoding='utf-8') as log:
    code = subprocess.run(command, stdout=log, stderr=log).returncode
  logging.info('%s ends with code %d.', workdir.name, code)
  if code:
    last = locations.absolute(f'{workdir}.log').read_text('utf-8').split('\n')
    logging.error('%s: %s', workdir.name, ' '.join(last[-4:]).strip())
  return code


if __name__ == '__main__':
  launch.run(main, parse=_CONFIG.parse)
