"""What a run needs of a device's memory at least, from shapes alone.

What is counted is there at one time however XLA orders and fuses a program: the state,
the batch, and the largest result of one product, convolution or sort, or of what a scan
reads and writes by rows. Elementwise results may never be stored, and do not count. So
nothing is refused that can run. What passes may still not fit, and `explained` says so.
"""

from collections.abc import Iterator, Mapping
import contextlib
import math
import os
import pathlib
from typing import Any

import jax
from jax.extend import core

from stein_jax import checks
from stein_jax.types import Tree

# The results of these are stored. A scan's carry and a scatter may be in place.
_STORED = (
  'dot_general',
  'conv_general_dilated',
  'sort',
  'fft',
  'cholesky',
  'triangular_solve',
)
# A cgroup's limit, of version 2 and 1.
_CGROUPS = (
  '/sys/fs/cgroup/memory.max',
  '/sys/fs/cgroup/memory/memory.limit_in_bytes',
)
_DATA = 'the data'
# Fields that are no sizes of arrays.
_NO_SIZES = (
  'seed',
  'num_steps',
  'log_every',
  'eval_every',
  'checkpoint_every',
)


def limit() -> int:
  """Returns the bytes of a device's memory; of a CPU what the process may have."""
  device = jax.local_devices()[0]
  stats = device.memory_stats() or {}
  if 'bytes_limit' in stats:
    return stats['bytes_limit']
  if device.platform != 'cpu':
    return 2**63  # it does not say
  found = [os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')]
  for path in map(pathlib.Path, _CGROUPS):
    with contextlib.suppress(OSError, ValueError):  # none, or 'max'
      found.append(int(path.read_text()))
  return min(found)


def check(
  config: Mapping[str, Any],
  state: Tree,
  batch: Tree,
  *programs: core.ClosedJaxpr,
  held: Tree = None,
) -> None:
  """Refuses a config whose run cannot fit into a device's memory.

  Args:
    config: the config, for the name of the field that is to blame.
    state: the state's shapes.
    batch: the arrays of one step.
    *programs: what is run with the state in memory, one after another: the step, and
      what draws samples.
    held: data that the device holds for the whole run; None where the host feeds it.

  Raises:
    ValueError: with the field, what is needed, the largest part, and what there is.
  """
  parts = {
    f'state{jax.tree_util.keystr(path)}': leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(state)
  }
  parts |= {f'batch[{name!r}]': leaf for name, leaf in batch.items()}
  if held is not None:
    parts[_DATA], *_ = jax.tree.leaves(held)
  needed = config.get('steps_per_call', 1) * sum(map(num_bytes, batch.values()))
  needed += sum(map(num_bytes, jax.tree.leaves((state, held))))
  results = [largest_result(program.jaxpr) for program in programs]
  result = max(results, key=num_bytes, default=None)
  if result is not None:
    parts['a result'] = result
    needed += num_bytes(result)
  if needed <= limit():
    return
  name, part = max(parts.items(), key=lambda item: num_bytes(item[1]))
  blamed = (
    f'feed={config["feed"]!r}' if name == _DATA else _blamed(config, part.shape)
  )
  raise ValueError(
    f'{blamed} needs {_gigabytes(needed)} of memory and more, and '
    f'a device has {_gigabytes(limit())}; the largest part is {name} '
    f'{tuple(part.shape)}, {_gigabytes(num_bytes(part))}.'
  )


@contextlib.contextmanager
def explained(config: Mapping[str, Any]) -> Iterator[None]:
  """Says of a device that has no memory left which sizes of the config are largest."""
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    said, *_ = str(error).splitlines()
    raise RuntimeError(
      f'The device has no memory left, of {_gigabytes(limit())}. The largest sizes '
      f'are {", ".join(largest_fields(config))}. {checks.shortened(said)}'
    ) from error


def largest_result(jaxpr: core.Jaxpr) -> Any:
  """Returns the largest array that a program has to store, or None without any.

  It is one of the program's own results, of the stored results in it, or of the rows
  that a loop in it reads or writes.
  """
  return max(_results(jaxpr), key=num_bytes, default=None)


def num_bytes(array: Any) -> int:
  """Returns the bytes of an array or of its shape; 0 of what is none."""
  shape, dtype = getattr(array, 'shape', None), getattr(array, 'dtype', None)
  if shape is None or dtype is None:
    return 0
  return math.prod(shape) * dtype.itemsize


def largest_fields(config: Mapping[str, Any], num: int = 3) -> list[str]:
  """Returns the fields of the largest sizes, 'generator.latent_dim=1000', in order."""
  fields = dict(_sizes(config))
  largest = sorted(fields, key=fields.get, reverse=True)[:num]
  return [f'{name}={fields[name]}' for name in largest]


def _results(jaxpr):
  """Yields what a program has to store, its inner programs' included."""
  for eqn in jaxpr.eqns:
    if eqn.primitive.name in _STORED:
      yield from (each.aval for each in eqn.outvars)
    if eqn.primitive.name == 'scan':
      first = eqn.params['num_consts'] + eqn.params['num_carry']
      yield from (each.aval for each in eqn.invars[first:])
      yield from (each.aval for each in eqn.outvars[eqn.params['num_carry'] :])
    for value in eqn.params.values():
      inner = value if isinstance(value, (tuple, list)) else [value]
      for each in inner:
        each = getattr(each, 'jaxpr', each)  # of a closed one
        if isinstance(each, core.Jaxpr):
          yield from _results(each)


def _blamed(config, shape):
  """Returns 'field=value' of the largest size that the largest dimension can be of."""
  sizes = dict(_sizes(config))
  fits = [name for name, size in sizes.items() if 1 < size <= max(shape)]
  name = max(fits or sizes, key=sizes.get)
  return f'{name}={sizes[name]}'


def _sizes(fields, place=''):
  """Yields (dotted name, value) of every size in a config."""
  items = fields.items() if hasattr(fields, 'items') else enumerate(fields)
  for key, value in items:
    name = f'{place}[{key}]' if isinstance(key, int) else f'{place}.{key}'
    name = name.removeprefix('.')
    if hasattr(value, 'items') or isinstance(value, (tuple, list)):
      yield from _sizes(value, name)
    elif type(value) is int and name not in _NO_SIZES:
      yield name, value


def _gigabytes(number):
  return f'{number / 1e9:.3g} GB'
