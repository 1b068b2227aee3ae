"""Energy-based models and Stein variational methods in JAX.

Import the modules: `from stein_jax import kernels, stein, samplers`.
"""

import importlib

__version__ = '0.2.0'

# They lie in `runs`, and stay importable from here too.
_RUNS = ('checkpoints', 'evaluation', 'training')


def __getattr__(name):
  if name in _RUNS:
    return importlib.import_module(f'stein_jax.runs.{name}')
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
