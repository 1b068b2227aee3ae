"""Algorithms, one module each.

The training loop asks a module for these names and nothing else:

  State(NamedTuple)                    arrays and learners; `step` is its first field
  init(rng, config, batch) -> State    the only function that sees the config
  step(state, batch, rng, *, <hyper-parameters>, axis_name=None)
      -> (State, metrics)              pure; state replicated, batch split
  sample(state, rng, num, *, condition=None, ...) -> [num, ...]

`sample` is absent where there is nothing to draw (`classification`). These names are
optional too:

  FIELDS = dict(num_chains=0)          fields of the config that `init` reads, with
                                       their defaults, beside sections of networks
  SPLIT = ('chains',)                  the fields of State whose leading
                                       axis is split over devices like the batch
  revise(state, rng, x, *, condition=None, chain) -> like x
                                       what `sample` does to a generator's images,
                                       with its keywords; reports show every step

The config's `step` section has the keywords of `step`, and its `sample` section those
of `sample`. There is nothing to inherit and nothing to register: a new file here is a
new algorithm.
"""

import importlib
import pkgutil
import re
import types

from stein_jax import build

# 'package.module', 'module:' or 'package.module:name'
_PATH = re.compile(r'\w+(\.\w+)*:\w*|\w+(\.\w+)+')


def get(name: str) -> types.ModuleType:
  """Returns the module of an algorithm: one of these, or one to be imported.

  Args:
    name: of a module here; or 'package.module', 'module:' or 'package.module:name' of
      anybody's, in the current folder or installed.

  Raises:
    ValueError: there is no such module, or it has no `init` or no `step`.
  """
  # The name is looked up before the import, so that an ImportError inside an
  # algorithm is not taken for an unknown name.
  names = sorted(module.name for module in pkgutil.iter_modules(__path__))
  if name in names:
    return importlib.import_module(f'{__name__}.{name}')
  if not isinstance(name, str) or not _PATH.fullmatch(name):
    raise ValueError(
      f'algorithm={name!r} is unknown; allowed: {", ".join(names)}, or '
      "'package.module:name'."
    )
  path, _, attribute = name.partition(':')
  try:
    module = build.import_module(path)
  except ValueError as error:
    raise ValueError(f'algorithm={name!r}: {error}') from error
  if attribute:
    module = getattr(module, attribute, None)
  for function in ('init', 'step'):
    if not callable(getattr(module, function, None)):
      raise ValueError(f'algorithm={name!r} has no function {function}.')
  return module
