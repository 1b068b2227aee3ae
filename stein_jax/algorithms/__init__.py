"""A module is an algorithm.

Each defines, and the loop asks for nothing else:

  State(NamedTuple)                    arrays and learners; `step` is its first field
  init(rng, config, batch) -> State    the only function that sees the config
  step(state, batch, rng, *, <hyper-parameters>, axis_name=None)
      -> (State, metrics)              pure; state replicated, batch split
  sample(state, rng, num, *, condition=None, ...) -> [num, ...]

`sample` is absent where there is nothing to draw (`classification`). Optional too:

  FIELDS = dict(num_chains=0)          fields of the config that `init` reads, with
                                       their defaults, beside sections of networks
  SPLIT = ('chains',)                  the fields of State whose leading
                                       axis is split over devices like the batch
  revise(state, rng, x, *, condition=None, chain) -> like x
                                       what `sample` does to a generator's images,
                                       with its keywords; reports show every step

`step`'s keywords are the config's `step` section, `sample`'s its `sample`
section. There is nothing to inherit and nothing to register: a new file here is
a new algorithm.
"""

import importlib
import pkgutil
import types


def get(name: str) -> types.ModuleType:
  """Returns the algorithm's module; ValueError with the names if there is none."""
  names = sorted(module.name for module in pkgutil.iter_modules(__path__))
  if name not in names:
    raise ValueError(
      f'algorithm={name!r} is unknown; allowed: {", ".join(names)}.'
    )
  return importlib.import_module(f'{__name__}.{name}')
