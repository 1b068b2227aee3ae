"""Clear refusals of bad arguments.

A number may be one of Python, or an array [] of NumPy or JAX. Traced values pass
unchecked, since a step size that `vmap` sweeps has no value yet. Their shapes and
dtypes are known, and are checked.
"""

from collections.abc import Iterator, Sequence
import contextlib
import inspect
import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

MAX_COUNT = 2**31 - 1  # shapes and the lengths of loops are int32 on devices


def positive(**values) -> None:
  """Raises ValueError unless every number is finite and above zero."""
  _require(lambda v: _is_finite(v) and v > 0, 'a positive number', values)


def non_negative(**values) -> None:
  """Raises ValueError unless every number is finite and at least zero."""
  _require(lambda v: _is_finite(v) and v >= 0, 'zero or more', values)


def finite(**values) -> None:
  """Raises ValueError unless every number is finite."""
  _require(_is_finite, 'a finite number', values)


def at_most(limit: float, **values) -> None:
  """Raises ValueError unless every number is at most the limit."""
  _require(lambda v: v <= limit, f'at most {limit}', values)


def below(limit: float, **values) -> None:
  """Raises ValueError unless every number is below the limit."""
  _require(lambda v: v < limit, f'below {limit}', values)


def count(minimum: int = 1, maximum: int = MAX_COUNT, **values) -> None:
  """Raises ValueError unless every value is an integer from `minimum` to `maximum`."""
  wanted = f'an integer of at least {minimum}'
  for name, value in values.items():
    _check_scalar(name, value)
    if _is_number(value) and not isinstance(value, jax.core.Tracer):
      value = _known(value)
    # A tracer is refused, since a count is a shape or the length of a loop.
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
      raise ValueError(f'{name}={shown(value)} must be {wanted}.')
    if value < minimum:
      raise ValueError(f'{name}={_written(value)} must be at least {minimum}.')
    if value > maximum:
      raise ValueError(f'{name}={shown(value)} must be at most {maximum}.')


def moves(**chains) -> None:
  """Raises ValueError if a chain that counts its steps takes none.

  Chains of length 0 return their starts, which are no samples to learn from.
  """
  for name, chain in chains.items():
    if hasattr(chain, 'num_steps'):
      count(**{f'{name}.num_steps': chain.num_steps})


def counts(empty: bool = False, **values) -> None:
  """Raises ValueError unless every value is a sequence of integers of at least 1.

  The sequence must have at least one, unless it may be `empty`.
  """
  for name, value in values.items():
    if not isinstance(value, (tuple, list)) or not (value or empty):
      some = 'integers' if empty else 'one or more integers'
      raise ValueError(f'{name}={shown(value)} must be {some} of at least 1.')
    count(**{f'{name}[{i}]': each for i, each in enumerate(value)})


def same_length(**sequences) -> None:
  """Raises ValueError unless all sequences have as many entries."""
  if len(set(map(len, sequences.values()))) > 1:
    *others, last = (f'{name}={shown(of)}' for name, of in sequences.items())
    raise ValueError(
      f'{", ".join(others)} and {last} must have the same length.'
    )


def parts(weights: Sequence = (), **values) -> None:
  """Raises ValueError unless every value is a sequence of at least one part.

  The weights must be as many, none of them below 0, or there are none.
  """
  for name, value in values.items():
    if not isinstance(value, (tuple, list)) or not value:
      raise ValueError(
        f'{name}={shown(value)} must be a sequence of one or more.'
      )
    if len(weights) not in (0, len(value)):
      raise ValueError(
        f'weights={shown(weights)} must be as many as {name}: {len(value)}.'
      )
  non_negative(**{f'weights[{i}]': each for i, each in enumerate(weights)})


def image_shape(**values) -> None:
  """Raises ValueError unless every value is a height, a width and channels."""
  counts(**values)
  for name, value in values.items():
    if len(value) != 3:
      raise ValueError(
        f'{name}={shown(value)} must be (height, width, channels).'
      )


def flag(**values) -> None:
  """Raises ValueError unless every value is True or False."""
  for name, value in values.items():
    if not isinstance(value, bool):
      raise ValueError(f'{name}={shown(value)} must be True or False.')


def section(**values) -> None:
  """Raises ValueError unless every value has named fields."""
  for name, value in values.items():
    if not hasattr(value, 'keys'):
      raise ValueError(f'{name}={shown(value)} must be a section of fields.')


def choice(allowed, **values) -> None:
  """Raises ValueError unless every value is among the allowed names or numbers."""
  for name, value in values.items():
    # True would count as 1, an array as none, and a list has no hash.
    plain = type(value) in (str, int)
    if not plain or value not in allowed:
      raise ValueError(
        f'{name}={shown(value)} is unknown; allowed: '
        f'{", ".join(map(repr, allowed))}.'
      )


def shown(value: Any) -> str:
  """Returns how a message shows a value: as Python writes it, cut if it is long."""
  if hasattr(value, 'keys'):
    value = dict(value)  # a config's section prints itself over lines
  try:
    return shortened(repr(value))
  except ValueError:  # Python does not write integers of thousands of digits
    return f'an integer of {value.bit_length()} bits'


def shortened(text: str, limit: int = 100) -> str:
  """Returns a text in one line, cut in its middle where it is longer than `limit`."""
  text = ' '.join(text.split())
  if len(text) <= limit:
    return text
  return f'{text[: limit - 20]}...{text[-15:]}'


def same_shape(**shapes: tuple[int, ...]) -> None:
  """Raises ValueError unless all shapes are one."""
  if len(set(shapes.values())) > 1:
    said = ', '.join(f'{name} {shape}' for name, shape in shapes.items())
    raise ValueError(f'Shapes differ: {said}.')


def shape(wanted: tuple[int, ...], **values) -> None:
  """Raises ValueError unless every array has that shape."""
  for name, value in values.items():
    if np.shape(value) != tuple(wanted):
      raise ValueError(
        f'{name} has shape {np.shape(value)}; wanted: {tuple(wanted)}.'
      )


def per_example(count: int, **values) -> None:
  """Raises ValueError unless every array has one number for each example: [count]."""
  for name, value in values.items():
    if np.shape(value) != (count,):
      raise ValueError(
        f'{name} has shape {np.shape(value)}; wanted: ({count},), one number for each '
        f'of {count} examples.'
      )


def rows(count: int, **values) -> None:
  """Raises ValueError unless every array has one row for each example: [count, k]."""
  for name, value in values.items():
    # The number of columns is the network's to choose.
    if np.ndim(value) != 2 or np.shape(value)[0] != count:
      raise ValueError(
        f'{name} has shape {np.shape(value)}; wanted: ({count}, k), one row for '
        f'each of {count} examples.'
      )


def num_rows(num: int, **arrays) -> None:
  """Raises ValueError unless every array has `num` rows; None passes."""
  for name, array in arrays.items():
    if array is not None and np.shape(array)[:1] != (num,):
      raise ValueError(
        f'{name} has shape {np.shape(array)}; wanted: ({num}, ...), a row for each '
        f'of {num} samples.'
      )


def like(x, **trees) -> None:
  """Raises ValueError unless every tree has the structure and the shapes of x."""
  shapes = lambda tree: jax.tree.map(np.shape, tree)
  leaves = lambda tree: list(map(np.shape, jax.tree.leaves(tree)))
  for name, tree in trees.items():
    # Structures come first, since trees of another structure cannot be compared
    # leaf by leaf.
    if jax.tree.structure(tree) != jax.tree.structure(x) or (
      leaves(tree) != leaves(x)
    ):
      raise ValueError(
        f'{name} has shape {shapes(tree)}; wanted: {shapes(x)}, that of the points.'
      )


def log_density(log_density_fn, position) -> None:
  """Raises ValueError unless log p of one position is a single number [].

  A function of more than the position passes, since only a call could check it.

  Raises:
    TypeError: it is no function.
  """
  function('a function', log_density=log_density_fn)
  parameters = list(inspect.signature(log_density_fn).parameters.values())
  if (
    len(parameters) == 1 and parameters[0].kind != parameters[0].VAR_POSITIONAL
  ):
    with at_one_position(position):
      value = jax.eval_shape(log_density_fn, position)
    shape((), log_density=value)


@contextlib.contextmanager
def at_one_position(position) -> Iterator[None]:
  """Says of whatever a log density raises that it is called with one position."""
  try:
    yield
  except Exception as error:  # it is anybody's function
    shapes = jax.tree.map(np.shape, position)
    raise ValueError(
      f'log_density is called with one position, of shape {shapes}, and must return '
      f'a number []; it raised {type(error).__name__}: {error}'
    ) from error


def has_slope(**values) -> None:
  """Raises TypeError unless every value is of floating numbers, not of integers."""
  for name, value in values.items():
    dtype = getattr(value, 'dtype', bool)
    if not isinstance(value, float) and not jnp.issubdtype(dtype, jnp.floating):
      raise TypeError(
        f'{name} is {_kind(value)}; allowed: a floating number, which has a gradient.'
      )


def instance(**values) -> None:
  """Raises TypeError if a class stands where a value of it is meant."""
  for name, value in values.items():
    if isinstance(value, type):
      raise TypeError(
        f'{name} is {_kind(value)}; allowed: a value, such as {_example(value)}.'
      )


def function(wanted: str, **values) -> None:
  """Raises TypeError unless every value can be called and is no class.

  Args:
    wanted: what is allowed, for the message.
    **values: the functions.
  """
  instance(**values)
  for name, value in values.items():
    if not callable(value):
      raise TypeError(f'{name} is {_kind(value)}; allowed: {wanted}.')


def has(attributes: tuple[str, ...], wanted: str, **values) -> None:
  """Raises TypeError unless every value is no class and has all the attributes.

  Args:
    attributes: names.
    wanted: what is allowed, for the message.
    **values: what must have them.
  """
  instance(**values)
  for name, value in values.items():
    if not all(hasattr(value, each) for each in attributes):
      raise TypeError(f'{name} is {_kind(value)}; allowed: {wanted}.')


def key(several: bool = False, **values) -> None:
  """Raises TypeError unless every value is one key, of `jax.random.key` or old.

  It may be an array of `several`.
  """
  for name, value in values.items():
    dtype = getattr(value, 'dtype', np.dtype(bool))
    # An old key is its two or four words.
    words = 0 if jnp.issubdtype(dtype, jax.dtypes.prng_key) else 1
    fits = np.ndim(value) >= words if several else np.ndim(value) == words
    if not fits or (words and dtype != jnp.uint32):
      raise TypeError(
        f'{name} is {_kind(value)}; allowed: a key, such as jax.random.key(0).'
      )


def labels(num_classes: int, **values) -> None:
  """Raises ValueError unless labels are integers [n] of 0, ..., num_classes - 1.

  The values of traced labels are not known and pass.
  """
  for name, value in values.items():
    if not hasattr(value, 'dtype'):
      value = np.asarray(value)
    # Floating labels would index, truncated, another class.
    if value.ndim != 1 or not np.issubdtype(value.dtype, np.integer):
      raise ValueError(
        f'{name} is {value.dtype} {value.shape}; allowed: integers [n].'
      )
    if isinstance(value, jax.core.Tracer):
      continue
    value = np.asarray(value)  # indexing by a mask is slow in JAX, and compiles
    wrong = value[(value < 0) | (value >= num_classes)]
    if wrong.size:
      raise ValueError(
        f'{name}={wrong[0]} must be in 0, ..., {num_classes - 1}.'
      )


def _kind(value):
  """Returns what a value is, for a message."""
  if isinstance(value, type):
    return f'the class {value.__name__}'
  if value is None:
    return 'None'
  if isinstance(value, (bool, int, float, str)):
    return f'the {type(value).__name__} {value!r}'
  if hasattr(value, 'dtype') and hasattr(value, 'shape'):
    return f'an array {value.dtype} {value.shape}'
  if inspect.isroutine(value) and hasattr(value, '__name__'):
    # Only a function of `def` has a name that tells which it is.
    name = value.__name__
    return f'the function {name}' if name.isidentifier() else 'a function'
  return f'of the class {type(value).__name__}'


def _example(cls):
  """Returns how a value of a class is written, with what it cannot be without."""
  try:
    parameters = inspect.signature(cls).parameters.values()
  except ValueError:  # of some classes that are written in C
    return f'{cls.__name__}(...)'
  required = [
    f'{p.name}=...'
    for p in parameters
    if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
  ]
  return f'{cls.__name__}({", ".join(required)})'


def is_zero(weight) -> bool:
  """Returns whether a weight is the number 0, so that its term need not exist.

  A traced weight has no value yet: its term stays.
  """
  return isinstance(weight, numbers.Number) and not weight


def _is_finite(value):
  """Returns whether a number is finite; one of Python too that no float can hold."""
  return isinstance(value, numbers.Rational) or np.isfinite(value)


def _require(holds, wanted, values):
  for name, value in values.items():
    _check_scalar(name, value)
    if not _is_number(value):
      raise ValueError(f'{name}={shown(value)} must be {wanted}.')
    if not isinstance(value, jax.core.Tracer) and not holds(_known(value)):
      raise ValueError(f'{name}={_written(value)} must be {wanted}.')


def _written(value):
  """Returns a known number for a message, as `print` writes it."""
  return f'{value}' if not isinstance(value, int) else shown(value)


def _check_scalar(name, value):
  # A config may have a field of that name.
  if hasattr(value, 'shape') and not hasattr(value, 'keys'):
    shape((), **{name: value})


def _is_number(value):
  """Returns whether a value is one real number, of Python or in an array []."""
  if isinstance(value, numbers.Real):
    return not isinstance(value, bool)
  # An array of booleans counts as none, as True does; so does what has no dtype.
  kinds = (jnp.floating, jnp.integer)
  dtype = getattr(value, 'dtype', bool)
  return any(jnp.issubdtype(dtype, kind) for kind in kinds)


def _known(value):
  """Returns a number that is not traced as a scalar, without its array."""
  return value if isinstance(value, numbers.Real) else np.asarray(value)[()]
