"""A config section is a call: `name` plus keyword arguments."""

import collections.abc
from collections.abc import Iterator, Mapping
import contextlib
import inspect
import re
import types
import typing
from typing import Any

FIELD = re.compile(r'[\w.\[\]]+=')  # how what is said of a field's value begins


def build(namespace: types.ModuleType, /, name: str, **kwargs) -> Any:
  """Returns `namespace.name(**kwargs)`.

  An argument that is itself a section (a mapping with a `name`) is built first,
  from the same namespace: a learning rate may be an optax schedule.

  Raises:
    ValueError: `namespace` has no public callable of that name.
    TypeError: an argument is unknown or missing; the message has the signature.
  """
  where = namespace.__name__
  factories = _factories(namespace)
  if name not in factories:
    raise ValueError(
      f'name={name!r} is not in {where}; allowed: {", ".join(factories)}.'
    )
  factory = factories[name]
  for key, value in kwargs.items():
    if hasattr(value, 'keys') and 'name' in value:
      with section(key):
        kwargs[key] = build(namespace, **value)
  check_call(factory, kwargs, f'{where}.{name}')
  return factory(**kwargs)


def check_call(function, kwargs: Mapping[str, Any], label: str, *args) -> None:
  """Raises TypeError unless `function(*args, **kwargs)` fits its signature.

  That is, its parameters and, of what a config can hold, their annotations.
  """
  parameters = inspect.signature(function).parameters
  try:
    inspect.signature(function).bind(*args, **kwargs)
  except TypeError as error:
    allowed = ', '.join(
      name for name in parameters if name not in ('parent', 'name', 'axis_name')
    )
    raise TypeError(f'{label}: {error}; it takes: {allowed}.') from None
  for name, value in kwargs.items():
    wanted = parameters[name].annotation if name in parameters else Any
    if not _fits(value, wanted):
      kinds = (kind for kind, of in _EXAMPLES if _fits(of, wanted))
      raise TypeError(f'{name}={value!r} must be {next(kinds, "a section")}.')


@contextlib.contextmanager
def section(name: str) -> Iterator[None]:
  """Puts a section's name before what is refused inside: as its flag has it."""
  try:
    yield
  except (ValueError, TypeError, FileNotFoundError) as error:
    joint = '.' if FIELD.match(str(error)) else ': '
    # Of these three alone: others' subclasses take other arguments.
    kinds = (FileNotFoundError, TypeError, ValueError)
    kind = next(kind for kind in kinds if isinstance(error, kind))
    raise kind(f'{name}{joint}{error}') from error


# What a config can hold, the widest first.
_EXAMPLES = (
  ('a number', 0.5),
  ('an integer', 1),
  ('True or False', True),
  ('a string', ''),
  ('a sequence of numbers', (0.5,)),
  ('a sequence of integers', (1,)),
  ('a sequence of sequences of integers', ((1,),)),
  ('a sequence of pairs of integers for each block', (((1,),),)),
)


def _fits(value, wanted):
  """Returns whether a config's value is what an annotation asks for.

  Arrays and traced values are: what they are compared with has its own checks.
  """
  if isinstance(wanted, types.UnionType) or (
    typing.get_origin(wanted) is typing.Union
  ):
    return any(_fits(value, one) for one in typing.get_args(wanted))
  plain = (bool, int, float, str, tuple, list, types.NoneType)
  kind = typing.get_origin(wanted) or wanted
  unknown = kind in (Any, inspect.Parameter.empty) or not isinstance(kind, type)
  if unknown or type(value) not in plain:  # an optimizer is a tuple too
    return True
  if isinstance(value, (tuple, list)):
    of = typing.get_args(wanted)
    sequence = kind in (tuple, list, collections.abc.Sequence)
    return sequence and (not of or all(_fits(each, of[0]) for each in value))
  if isinstance(value, (bool, str)):
    return kind is type(value)
  return isinstance(value, (int, float) if kind is float else kind)


def _factories(namespace):
  """Returns what a section may name: a package's public callables, a module's own."""
  home = namespace.__name__
  if not hasattr(namespace, '__path__'):
    belongs = lambda value: value.__module__ == home
  else:
    belongs = lambda value: (value.__module__ or '').startswith(home)
  return {
    name: value
    for name, value in vars(namespace).items()
    if not name.startswith('_')
    and callable(value)
    and hasattr(value, '__module__')
    and belongs(value)
  }
