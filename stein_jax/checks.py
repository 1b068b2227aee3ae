"""Clear refusals of bad arguments.

A number may be one of Python, or an array [] of NumPy or JAX. Traced values pass
unchecked, since a step size that `vmap` sweeps has no value yet. Their shapes and
dtypes are known, and are checked.
"""

import inspect
import numbers

import jax
import jax.numpy as jnp
import numpy as np


def positive(**values) -> None:
  """Raises ValueError unless every number is finite and above zero."""
  _require(lambda v: np.isfinite(v) and v > 0, 'a positive number', values)


def non_negative(**values) -> None:
  """Raises ValueError unless every number is finite and at least zero."""
  _require(lambda v: np.isfinite(v) and v >= 0, 'zero or more', values)


def finite(**values) -> None:
  """Raises ValueError unless every number is finite."""
  _require(np.isfinite, 'a finite number', values)


def at_most(limit: float, **values) -> None:
  """Raises ValueError unless every number is at most the limit."""
  _require(lambda v: v <= limit, f'at most {limit}', values)


def below(limit: float, **values) -> None:
  """Raises ValueError unless every number is below the limit."""
  _require(lambda v: v < limit, f'below {limit}', values)


def count(minimum: int = 1, **values) -> None:
  """Raises ValueError unless every value is an integer of at least `minimum`."""
  wanted = f'an integer of at least {minimum}'
  for name, value in values.items():
    _check_scalar(name, value)
    if _is_number(value) and not isinstance(value, jax.core.Tracer):
      value = _known(value)
    # A tracer is refused, since a count is a shape or the length of a loop.
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
      raise ValueError(f'{name}={value!r} must be {wanted}.')
    if value < minimum:
      raise ValueError(f'{name}={value} must be at least {minimum}.')


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
      raise ValueError(f'{name}={value!r} must be {some} of at least 1.')
    count(**{f'{name}[{i}]': each for i, each in enumerate(value)})


def image_shape(**values) -> None:
  """Raises ValueError unless every value is a height, a width and channels."""
  counts(**values)
  for name, value in values.items():
    if len(value) != 3:
      raise ValueError(f'{name}={value!r} must be (height, width, channels).')


def flag(**values) -> None:
  """Raises ValueError unless every value is True or False."""
  for name, value in values.items():
    if not isinstance(value, bool):
      raise ValueError(f'{name}={value!r} must be True or False.')


def section(**values) -> None:
  """Raises ValueError unless every value has named fields."""
  for name, value in values.items():
    if not hasattr(value, 'keys'):
      raise ValueError(f'{name}={value!r} must be a section of fields.')


def choice(allowed, **values) -> None:
  """Raises ValueError unless every value is among the allowed names."""
  for name, value in values.items():
    if value not in allowed:
      raise ValueError(
        f'{name}={value!r} is unknown; allowed: {", ".join(map(repr, allowed))}.'
      )


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


def log_density(function, position) -> None:
  """Raises ValueError unless log p of one position is a single number [].

  A function of more than the position passes, since only a call could check it.
  """
  parameters = list(inspect.signature(function).parameters.values())
  if (
    len(parameters) == 1 and parameters[0].kind != parameters[0].VAR_POSITIONAL
  ):
    shape((), log_density=jax.eval_shape(function, position))


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


def is_zero(weight) -> bool:
  """Returns whether a weight is the number 0, so that its term need not exist.

  A traced weight has no value yet: its term stays.
  """
  return isinstance(weight, numbers.Number) and not weight


def _require(holds, wanted, values):
  for name, value in values.items():
    _check_scalar(name, value)
    if not _is_number(value):
      raise ValueError(f'{name}={value!r} must be {wanted}.')
    if not isinstance(value, jax.core.Tracer) and not holds(_known(value)):
      raise ValueError(f'{name}={value} must be {wanted}.')


def _check_scalar(name, value):
  if hasattr(value, 'shape'):
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
