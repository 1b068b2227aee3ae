"""A config section is a call: `name` plus keyword arguments.

A section inside a section names a value: one of the module that the default's class is
from, where the argument has such a default (`chain` of `step`: `samplers`); else one of
the same namespace (a learning rate of an optimizer: an optax schedule). A name with a
colon, 'package.module:Name', is that of anybody's: it is imported from the current
folder or from what is installed.
"""

import collections.abc
from collections.abc import Callable, Iterator, Mapping
import contextlib
import dataclasses
import difflib
import functools
import importlib
import inspect
import os
import pkgutil
import re
import sys
import types
import typing
from typing import Any

from stein_jax import checks

# How what is said of a field begins: with its value, or that it has none.
FIELD = re.compile(r'[\w.\[\]]+(=| is missing)')
_SHOWN = 32  # names in a message; optax begins with as many optimizers
# No section holds these: flax gives modules the first two, a mapped step the third, and
# the bridge of NNX the last.
_NOT_FIELDS = ('parent', 'name', 'axis_name', 'rngs')


def build(namespace: types.ModuleType, /, name: str, **kwargs) -> Any:
  """Returns `namespace.name(**kwargs)`; arguments that are sections are built first.

  The argument `args`, where the callable has none of that name, is the sequence of its
  positional arguments. A class of NNX becomes a Linen module of its bridge.

  Raises:
    ValueError: `namespace` has no public callable of that name.
    TypeError: an argument is unknown or missing; the message has the signature.
  """
  factory = named(namespace, name)
  kwargs = values(factory, kwargs, namespace)
  label = name if ':' in name else f'{namespace.__name__}.{name}'
  if isinstance(factory, type) and is_nnx(factory):
    check_takes_rngs(factory)
    # The signature of the class is that of its metaclass, which takes anything.
    called = functools.partial(factory.__init__, None)
    check_call(called, kwargs | {'rngs': ...}, label)
    return sys.modules['flax.nnx'].bridge.to_linen(factory, **kwargs)
  args = () if _takes(factory, 'args') else kwargs.pop('args', ())
  check_call(factory, kwargs, label, *args)
  return factory(*args, **kwargs)


def is_nnx(kind: type) -> bool:
  """Returns whether a class is one of flax.nnx.

  It is not imported to find out, which takes a quarter of a second: nobody has such a
  class who has not imported it.
  """
  nnx = sys.modules.get('flax.nnx')
  return nnx is not None and issubclass(kind, nnx.Module)


def is_bridge(module: Any) -> bool:
  """Returns whether a module is a Linen module around a class of flax.nnx."""
  nnx = sys.modules.get('flax.nnx')
  return nnx is not None and isinstance(module, nnx.bridge.ToLinen)


def check_takes_rngs(nnx_class: type) -> None:
  """Raises TypeError unless a class of NNX takes the keys of its parameters."""
  parameters = inspect.signature(nnx_class.__init__).parameters
  forwards = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
  if 'rngs' not in parameters and not forwards:
    name = nnx_class.__name__
    raise TypeError(
      f'{name} takes no rngs; allowed: a class of NNX that is called as '
      f'{name}(**fields, rngs=nnx.Rngs(...)).'
    )


def _takes(function, name):
  """Returns whether a function has a parameter of that name, to be given by name."""
  parameter = inspect.signature(function).parameters.get(name)
  return (
    parameter is not None and parameter.kind is not parameter.VAR_POSITIONAL
  )


def named(namespace: types.ModuleType, name: str) -> Callable:
  """Returns the public callable of that name, or what 'package.module:Name' names.

  Raises:
    ValueError: there is none; the message has those there are, the nearest first.
  """
  if not isinstance(name, str):
    raise ValueError(f'name={checks.shown(name)} must be a string.')
  if ':' in name:
    with section('name'):
      return imported(name)
  factories = _factories(namespace)
  if name not in factories:
    near = difflib.get_close_matches(name[:_SHOWN], factories, 3)
    names = near + [each for each in factories if each not in near]
    more = len(names) - _SHOWN
    rest = f' and {more} more,' if more > 0 else ''
    raise ValueError(
      f'name={checks.shown(name)} is not in {namespace.__name__}; allowed: '
      f"{', '.join(names[:_SHOWN])},{rest} or 'package.module:Name'."
    )
  return factories[name]


def imported(name: str) -> Callable:
  """Returns the callable that 'package.module:Name' names.

  Raises:
    ValueError: there is no such module, or it has no such callable.
  """
  path, _, attribute = name.partition(':')
  if not path or not attribute:
    raise ValueError(
      f"name={checks.shown(name)} must be 'package.module:Name'."
    )
  found = getattr(import_module(path), attribute, None)
  if not callable(found):
    raise ValueError(
      f'name={checks.shown(name)}: {path} has no callable {attribute}.'
    )
  return found


def import_module(path: str) -> types.ModuleType:
  """Returns the module of a dotted path, in the current folder or installed.

  Raises:
    ValueError: there is none. What the module itself raises is passed on.
  """
  # A console script's path begins with its own folder, not with the current one.
  if '' not in sys.path and os.getcwd() not in sys.path:
    sys.path.append(os.getcwd())
  try:
    return importlib.import_module(path)
  except ModuleNotFoundError as error:
    # A module that is found and imports another that is not has its own message.
    if error.name is None or not f'{path}.'.startswith(f'{error.name}.'):
      raise
  raise ValueError(
    f'There is no module {path!r}, neither in {os.getcwd()} nor installed.'
  )


def values(
  function: Callable,
  fields: Mapping[str, Any],
  namespace: types.ModuleType | None = None,
) -> dict[str, Any]:
  """Returns the section as keyword arguments of a function, its sections built.

  Args:
    function: whose defaults say where an inner section's name is looked up.
    fields: the arguments.
    namespace: where it is looked up for arguments whose default is no value.

  Raises:
    ValueError, TypeError: an inner section is wrong; the message begins with its name.
  """
  families = _families(function)
  found = dict(fields)
  for key, value in found.items():
    family = families.get(key, namespace)
    if family is not None:
      with section(key, value):
        found[key] = _built(family, value)
  return found


def _built(family, value):
  """Returns what a section or each of a sequence of them builds, else the value."""
  if is_section(value):
    return build(family, **value)
  if isinstance(value, (tuple, list)) and any(map(is_section, value)):
    return tuple(_built(family, each) for each in value)
  return value


def complete(
  function: Callable,
  fields: Mapping[str, Any],
  namespace: types.ModuleType | None = None,
) -> dict[str, Any]:
  """Returns a section with every keyword of the function: given, or its default.

  Defaults that are values become sections, and inner sections are completed too; a
  string in place of such a section is its name. What the function does not take is
  kept, for `check_call` to refuse; a default that no config can hold is left out.

  Args:
    function: whose signature has the defaults.
    fields: what is given, without a name.
    namespace: of inner sections whose default is no value.

  Raises:
    ValueError: an inner section names what its family does not have.
  """
  families, own = _families(function), defaults(function)
  found = {
    name: as_section(default) if name in families else default
    for name, default in own.items()
    if name in families or _is_plain(default)
  }
  for key, value in fields.items():
    if key in families and isinstance(value, str):
      value = {'name': value}  # a name alone
    found[key] = value
    family = families.get(key, namespace)
    if family is not None:
      with section(key, value):
        found[key] = _completed(value, own.get(key), family)
  return found


def _completed(value, default, family):
  """Returns a value whose sections are completed, if it is or holds such."""
  if hasattr(value, 'keys'):
    return _complete_inner(value, default, family)
  if isinstance(value, (tuple, list)):
    return tuple(_completed(each, None, family) for each in value)
  return value


def _complete_inner(fields, default, family):
  """Returns a section that names a value, completed; the default's name without one."""
  fields = dict(fields)
  own = as_section(default) if _is_value(default) else {}
  if not own and 'name' not in fields:
    return fields
  name = fields.pop('name', own.get('name'))
  if own.pop('name', None) == name:
    fields = own | fields
  return {'name': name, **complete(named(family, name), fields, family)}


def as_section(value: Any) -> dict[str, Any]:
  """Returns the section that builds a value: its class's name and its fields."""
  fields = {
    field.name: getattr(value, field.name)
    for field in dataclasses.fields(value)
    if field.init and field.name not in _NOT_FIELDS
  }
  return {'name': type(value).__name__} | {
    name: as_section(each) if _is_value(each) else each
    for name, each in fields.items()
  }


def is_section(value: Any) -> bool:
  """Returns whether a value is a mapping that names something."""
  return hasattr(value, 'keys') and 'name' in value


def defaults(function: Callable) -> dict[str, Any]:
  """Returns the defaults of a function's arguments, by name."""
  return {
    name: parameter.default
    for name, parameter in inspect.signature(function).parameters.items()
    if parameter.default is not parameter.empty and name not in _NOT_FIELDS
  }


def check_call(function, kwargs: Mapping[str, Any], label: str, *args) -> None:
  """Raises TypeError unless `function(*args, **kwargs)` fits its signature.

  That is, its parameters and, of what a config can hold, their annotations.
  """
  signature = inspect.signature(function)
  parameters = signature.parameters
  fields = [name for name in parameters if name not in _NOT_FIELDS]
  takes = f'{label} takes: {", ".join(fields) or "nothing"}'
  try:
    signature.bind(*args, **kwargs)
  except TypeError as error:
    unknown = sorted(kwargs.keys() - parameters.keys(), key=str)
    if unknown:
      near = difflib.get_close_matches(str(unknown[0]), fields, 1)
      meant = f'; perhaps {near[0]}' if near else ''
      value = checks.shown(kwargs[unknown[0]])
      raise TypeError(
        f'{unknown[0]}={value} is no argument{meant}; {takes}.'
      ) from None
    missing = re.search(
      r"missing a required (?:\w+-only )?argument: '(\w+)'", str(error)
    )
    if missing:
      raise TypeError(f'{missing[1]} is missing; {takes}.') from None
    raise TypeError(f'{label}: {error}; {takes}.') from None
  for name, value in kwargs.items():
    parameter = parameters.get(name)
    if parameter is not None:
      _check_value(name, value, parameter)


def _check_value(name, value, parameter):
  """Raises TypeError unless a config's value fits a parameter.

  That is, its annotation or, where this says nothing, the kind of its default.
  """
  wanted, default = parameter.annotation, parameter.default
  if _says_nothing(wanted) and type(default) in _DEFAULTS:
    wanted = _DEFAULTS[type(default)]
  if not _fits(value, wanted):
    kinds = (kind for kind, of in _EXAMPLES if _fits(of, wanted))
    kind = next(kinds, 'a section')
    raise TypeError(f'{name}={checks.shown(value)} must be {kind}.')


# What a parameter takes whose annotation says nothing, by the type of its default. The
# libraries that have such write 0 for 0.0, and take schedules in place of numbers.
_NUMBER_OR_SCHEDULE = float | Callable
_DEFAULTS = {
  bool: bool,
  str: str,
  int: _NUMBER_OR_SCHEDULE,
  float: _NUMBER_OR_SCHEDULE,
}


def _says_nothing(wanted):
  """Returns whether an annotation allows whatever a config can hold."""
  return all(_fits(of, wanted) for _, of in _EXAMPLES)


@contextlib.contextmanager
def section(name: str, fields: Any = ()) -> Iterator[None]:
  """Puts a section's name before what is refused inside: as its flag has it.

  Args:
    name: of the section.
    fields: names of its fields; where they come with their values, they get the
      section's name too.
  """
  try:
    yield
  except (ValueError, TypeError, FileNotFoundError) as error:
    text = str(error)
    # What an inner section has refused already begins with that one's name.
    begins = getattr(error, '_in_section', False) or FIELD.match(text)
    if begins and hasattr(fields, 'keys') and fields:
      own = '|'.join(map(re.escape, map(str, fields)))
      text = re.sub(rf'(?<= )(?=({own})=)', f'{name}.', text)
    # Other exceptions, and subclasses of these, take other arguments.
    kinds = (FileNotFoundError, TypeError, ValueError)
    kind = next(kind for kind in kinds if isinstance(error, kind))
    named_error = kind(f'{name}{"." if begins else ": "}{text}')
    named_error._in_section = True
    raise named_error from error


# A config can hold these; the widest come first.
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
  kind = typing.get_origin(wanted) or wanted
  if (
    hasattr(value, 'dtype')
    or kind in (Any, inspect.Parameter.empty)
    or not isinstance(kind, type)
  ):
    return True
  if isinstance(value, (bool, str)):
    return kind is type(value)
  if kind in (bool, int, float, str):
    return isinstance(value, (int, float) if kind is float else kind)
  if type(value) in (tuple, list):  # an optimizer is a tuple too
    of = typing.get_args(wanted)
    sequence = kind in (tuple, list, collections.abc.Sequence)
    return sequence and (not of or all(_fits(each, of[0]) for each in value))
  if kind in (tuple, list, collections.abc.Sequence):
    return False
  plain = value is None or isinstance(value, (int, float))
  # What a section has built has its own checks; one without a name built nothing.
  return isinstance(value, kind) if plain or hasattr(value, 'keys') else True


def _factories(namespace):
  """Returns what a section may name, by name.

  A namespace of ours with dataclasses, as networks and values are, offers these and the
  functions that are written like a class. Any other one offers all public functions.
  What its modules define is its own, exported or not; what it imports is not.
  """
  home = namespace.__name__
  own = {
    name: value
    for place in (*_modules(namespace), namespace)
    for name, value in vars(place).items()
    if not name.startswith('_')
    and callable(value)
    and _lies_in(home, getattr(value, '__module__', None))
  }
  if not home.startswith(__package__) or not any(
    map(dataclasses.is_dataclass, own.values())
  ):
    return own
  return {
    name: value
    for name, value in own.items()
    if name[0].isupper()
    and (dataclasses.is_dataclass(value) or not isinstance(value, type))
  }


def _modules(namespace):
  """Yields the modules of a package of ours; none of a module, or of others'."""
  if namespace.__name__.startswith(__package__):
    for module in pkgutil.iter_modules(getattr(namespace, '__path__', ())):
      yield importlib.import_module(f'{namespace.__name__}.{module.name}')


def _lies_in(home, module):
  return module == home or (module or '').startswith(f'{home}.')


def _families(function):
  """Returns the module of each argument's values, where the default is a value."""
  return {
    name: family(default)
    for name, default in defaults(function).items()
    if _is_value(default)
  }


def family(default: Any) -> types.ModuleType:
  """Returns the module of a value's class; of ours the whole room, `stein` say."""
  module = type(default).__module__
  if _lies_in(__package__, module):
    module = '.'.join(module.split('.')[:2])
  return sys.modules[module]


def _is_value(default):
  """Returns whether a default has options of its own: it is of a dataclass."""
  return dataclasses.is_dataclass(default) and not isinstance(default, type)


def _is_plain(value):
  """Returns whether a config can hold a value."""
  if isinstance(value, (tuple, list)):
    return all(map(_is_plain, value))
  return isinstance(value, (bool, int, float, str))
