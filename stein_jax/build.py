"""A config section is a call: `name` plus keyword arguments."""

from collections.abc import Mapping
import inspect
import types
from typing import Any


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
      f'{where} has no {name!r}; it has: {", ".join(factories)}.'
    )
  factory = factories[name]
  kwargs = {
    key: build(namespace, **value)
    if hasattr(value, 'keys') and 'name' in value
    else value
    for key, value in kwargs.items()
  }
  check_call(factory, kwargs, f'{where}.{name}')
  return factory(**kwargs)


def check_call(function, kwargs: Mapping[str, Any], label: str, *args) -> None:
  """Raises TypeError unless `function(*args, **kwargs)` fits its signature."""
  signature = inspect.signature(function)
  try:
    signature.bind(*args, **kwargs)
  except TypeError as error:
    allowed = ', '.join(
      p.name
      for p in signature.parameters.values()
      if p.name not in ('parent', 'name', 'axis_name')
    )
    raise TypeError(f'{label}: {error}; it takes: {allowed}.') from None


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
