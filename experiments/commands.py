"""The commands of an installed package: each is `python -m` of a module here."""

import pathlib
import runpy
import sys


def main():
  """Runs the module that the started script is named after."""
  name = pathlib.Path(sys.argv[0]).stem.removeprefix('stein-')
  # It must be the main module: --help shows that one's docstring and flags.
  runpy.run_module(f'{__package__}.{name}', run_name='__main__', alter_sys=True)
