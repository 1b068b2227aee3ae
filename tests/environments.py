"""The fast core in three environments: `make environments`.

python -m tests.environments [NAME ...]

Each environment has a folder .venv-NAME. One whose interpreter is not on this machine
is skipped with a loud line. The core is a few test files, and three configs that are
trained and evaluated by the installed command, in a folder outside of the clone.
"""

from collections.abc import Sequence
import glob
from importlib import metadata
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from typing import NamedTuple

_ROOT = pathlib.Path(__file__).parent.parent
_TESTS = (
  'tests/algorithms/svgd_test.py',
  'tests/export_test.py',
  'tests/kernels_test.py',
  'tests/runs/training_test.py',
  'tests/stein_test.py',
)
_CONFIGS = ('stein_cd_mnist', 'steingan_mnist', 'svgd_toy')
_TOOLS = ('hypothesis', 'pytest', 'tensorboard')


class Environment(NamedTuple):
  """What an environment consists of.

  Attributes:
    python: its version of Python; packages are the newest ones for it.
    lowest: whether packages are the lower bounds of setup.py instead.
  """

  python: str
  lowest: bool = False


ENVIRONMENTS = {
  '3.11': Environment('3.11'),
  '3.13': Environment('3.13'),
  'lowest': Environment('3.11', lowest=True),
}


def interpreter(version: str) -> str | None:
  """Returns an interpreter of that version of Python, or None where there is none."""
  root = os.environ.get('PYENV_ROOT', os.path.expanduser('~/.pyenv'))
  found = glob.glob(f'{root}/versions/{version}.*/bin/python')
  # pyenv's own python3.13 is there for versions that it refuses to start.
  for path in (shutil.which(f'python{version}'), *sorted(found)):
    if (
      path
      and subprocess.run([path, '-c', ''], capture_output=True).returncode == 0
    ):
      return path
  return None


def pins(requirements: Sequence[str]) -> list[str]:
  """Returns the lower bounds of requirements as versions: 'a==1' for 'a>=1,<2'."""
  found = (re.match(r'([\w-]+)>=([\d.]+)', each) for each in requirements)
  return sorted({f'{match[1]}=={match[2]}' for match in found if match})


def install(python: str, lowest: bool, folder: pathlib.Path) -> None:
  """Makes a virtual environment with the package, and the tools of the tests."""
  subprocess.run([python, '-m', 'venv', folder], check=True)
  command = [folder / 'bin/python', '-m', 'pip', 'install', '--quiet']
  command += [
    '--upgrade',
    '--upgrade-strategy=eager',
    '--editable',
    '.',
    *_TOOLS,
  ]
  if lowest:
    bounds = folder / 'lowest.txt'
    bounds.write_text('\n'.join(pins(metadata.requires('stein_jax'))))
    command += ['--constraint', bounds]
  subprocess.run(command, cwd=_ROOT, check=True)


def core(folder: pathlib.Path) -> bool:
  """Returns whether the fast core passes in an environment."""
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
  environment.pop('PYTHONPATH', None)
  commands = [(_ROOT, [folder / 'bin/python', '-m', 'pytest', *_TESTS])]
  with tempfile.TemporaryDirectory() as elsewhere:
    for name in _CONFIGS:
      flags = (f'--config={name}:smoke', f'--workdir={name}')
      commands.append((elsewhere, [folder / 'bin/stein-train', *flags]))
    # All of them run, so that one failure does not hide another.
    codes = [
      subprocess.run(command, cwd=cwd, env=environment).returncode
      for cwd, command in commands
    ]
  return not any(codes)


def main(names):
  outcomes = {}
  for name in names or ENVIRONMENTS:
    version, lowest = ENVIRONMENTS[name]
    python = interpreter(version)
    if python is None:
      outcomes[name] = f'SKIPPED: THERE IS NO PYTHON {version} ON THIS MACHINE'
      continue
    folder = _ROOT / f'.venv-{name}'
    print(f'{name}: {python} in {folder.name}', flush=True)
    install(python, lowest, folder)
    outcomes[name] = 'passed' if core(folder) else 'FAILED'
  for name, outcome in outcomes.items():
    print(f'environment {name}: {outcome}')
  return 'FAILED' in outcomes.values()


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
