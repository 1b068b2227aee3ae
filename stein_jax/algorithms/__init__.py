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
import types


def get(name: str) -> types.ModuleType:
  """Returns the algorithm's module.

  Raises:
    ValueError: there is none of that name; the message lists those there are.
  """
  # The name is looked up before the import, so that an ImportError inside an
  # algorithm is not taken for an unknown name.
  names = sorted(module.name for module in pkgutil.iter_modules(__path__))
  if name not in names:
    raise ValueError(
      f'algorithm={name!r} is unknown; allowed: {", ".join(names)}.'
    )
  return importlib.import_module(f'{__name__}.{name}')
