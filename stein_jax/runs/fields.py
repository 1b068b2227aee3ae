"""What the fields of a config mean, in the words of the docstrings they are from."""

from collections.abc import Callable, Iterator, Mapping
import inspect
import re
from typing import Any

from ml_collections import ConfigDict
import optax

from stein_jax import algorithms
from stein_jax import build
from stein_jax import datasets
from stein_jax import energies
from stein_jax.runs import configs

# The loop's fields have no docstring of their own.
_LOOP = dict(
  algorithm='name of the algorithm, or package.module:name',
  seed='number that all random numbers of the run follow from',
  batch_size='examples of a step, over all devices',
  num_steps='length of the run',
  parallel="how devices share a step: 'jit', 'pmap' or 'shard_map'",
  steps_per_call='steps of one compiled call',
  feed="what holds the data: 'host', 'device', or 'auto' for a GPU or TPU if small",
  prng_impl="generator of random numbers: 'threefry2x32', 'rbg' or 'hashed'",
  on_nonfinite="what is done where numbers go bad: 'stop' or 'rollback'",
  matmul_precision="precision of networks' products; 'auto': TF32 in a GPU's steps",
  log_every='steps between lines of metrics',
  eval_every='steps between looks at test data and samples; 0 for none',
  checkpoint_every='steps between checkpoints; 0 for one at the end',
  start="run whose networks' parameters a new one begins with",
  log_likelihood="how log Z is found: 'exact', 'ais' or 'none'",
  num_samples='samples that are drawn and shown',
  parameters="parameters that are evaluated: 'last' or 'average'",
  l2='factor of the parameters that is added to their gradient',
  max_norm='norm to which a larger gradient is scaled down; 0 for no limit',
  ema_decay="weight of the past in the parameters' moving average; 0 for none",
)


def described(config: ConfigDict) -> Iterator[tuple[str, Any, str]]:
  """Yields (dotted name, value, meaning) of every field of a whole config."""
  fields = configs.plain(config)
  algorithm = algorithms.get(fields['algorithm'])
  called = {
    'step': algorithm.step,
    'sample': getattr(algorithm, 'sample', None),
  }
  for name, value in fields.items():
    if name in called:
      yield from _of_call(name, called[name], value, None)
    elif name in ('data', 'evaluation') or _names(value):
      yield from _of_section(name, value)
    else:
      yield name, value, _LOOP.get(name, '')


def _of_section(place, value):
  """Yields the fields of a section that names something, or of `evaluation`."""
  if place == 'evaluation':
    yield from _of_section('evaluation.data', value['data'])
    yield from _of_call(
      'evaluation.ais', energies.ais_log_partition, value['ais'], None
    )
    for name in value.keys() - {'data', 'ais'}:
      yield f'{place}.{name}', value[name], _LOOP.get(name, '')
    return
  family = optax if place.endswith('optimizer') else configs.FAMILIES.get(place)
  family = family or datasets.sets
  yield from _of_name(place, family, value)


def _of_name(place, family, value):
  """Yields the fields of a section that names a member of a family."""
  function = build.named(family, value['name'])
  first = (inspect.getdoc(function) or '').partition('\n')[0]
  yield f'{place}.name', value['name'], first
  rest = {name: each for name, each in value.items() if name != 'name'}
  yield from _of_call(place, function, rest, family)


def _of_call(place, function, fields, family):
  """Yields the fields of a section that has a function's keywords."""
  meanings = _meanings(function) if function else {}
  defaults = build.defaults(function) if function else {}
  for name, value in fields.items():
    if _names(value):
      default = defaults.get(name)
      home = build.family(default) if default else family
      inner = home if hasattr(home, value['name']) else family
      yield from _of_name(f'{place}.{name}', inner or home, value)
    else:
      meaning = meanings.get(name, _LOOP.get(name, ''))
      yield f'{place}.{name}', value, meaning


def _names(value):
  return isinstance(value, Mapping) and 'name' in value


def _meanings(function: Callable) -> dict[str, str]:
  """Returns what a docstring says of each argument or attribute."""
  text = inspect.getdoc(function) or ''
  found = re.findall(r'^  (\w+): (.*(?:\n {4,}.*)*)', text, re.MULTILINE)
  return {name: ' '.join(words.split()) for name, words in found}
