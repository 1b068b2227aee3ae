"""The commands of an installed package: each is `python -m` of a module here."""

import functools
import runpy


def _run(module):
  # The module must be the main one: `--help` shows its docstring and its flags.
  runpy.run_module(
    f'{__package__}.{module}', run_name='__main__', alter_sys=True
  )


train = functools.partial(_run, 'train')
evaluate = functools.partial(_run, 'evaluate')
sweep = functools.partial(_run, 'sweep')
compare = functools.partial(_run, 'compare')
export = functools.partial(_run, 'export')
demo = functools.partial(_run, 'demo')
