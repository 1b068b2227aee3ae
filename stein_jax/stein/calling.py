"""How a direction is called: with what it asks for, besides particles and scores.

A direction says what it asks for by attributes, such as `needs_rng = True`. The names
are those of `NEEDS`: 'features', a function of particles; 'log_density', one of a
single particle; 'rng', a key that is the same on every device; and 'step', the number
of steps before this one []. One that does without scores says `needs_score = False`.
"""

from collections.abc import Callable
from typing import Any

import jax

from stein_jax import checks
from stein_jax.types import Array, PRNGKey, Tree

NEEDS = ('features', 'log_density', 'rng', 'step')
WANTED = 'a direction, such as stein.SVGD()'  # in place of what cannot be one
_OWN = 2**32 - 2  # no split has as many keys, and dropout's is the last


def needs(name: str, *directions: Callable[..., Tree]) -> bool:
  """Returns whether any of the directions asks for what has that name in `NEEDS`."""
  checks.choice(NEEDS, name=name)
  return any(getattr(each, f'needs_{name}', False) for each in directions)


def needs_score(*directions: Callable[..., Tree]) -> bool:
  """Returns whether any of the directions asks for scores, as most do."""
  return any(getattr(each, 'needs_score', True) for each in directions)


def own_key(
  direction: Callable[..., Tree], rng: PRNGKey, turn: Array | int = 0
) -> PRNGKey | None:
  """Returns a key for a direction that asks for one; None for others.

  Args:
    direction: the direction.
    rng: key of the algorithm's step, the same on every device. The result differs from
      all keys that the step splits off it.
    turn: tells the calls of one step apart.

  Raises:
    TypeError: the direction asks for a key, and rng is none.
  """
  if not needs('rng', direction):
    return None
  checks.key(rng=rng)
  return jax.random.fold_in(jax.random.fold_in(rng, _OWN), turn)


def call(
  direction: Callable[..., Tree],
  x: Tree,
  score: Tree,
  *,
  at: Tree | None = None,
  axis_name: str | None = None,
  **available: Any,
) -> Tree:
  """Returns a direction at particles, called with what it asks for.

  Args:
    direction: function of particles and scores.
    x: particles, a tree with leaves [n, ...].
    score: grad_x log p at the particles, like x; None where it needs none.
    at: other points to take the direction at, or None.
    axis_name: the mapped axis over which the particles are split.
    **available: what there is to be asked for, by its name in `NEEDS`.

  Raises:
    ValueError: the direction asks for what is not available.
    TypeError: the direction is a class, or cannot be called.
  """
  checks.function(WANTED, direction=direction)
  given = {} if at is None else {'at': at}
  for name in NEEDS:
    if needs(name, direction):
      if name not in available:
        raise ValueError(
          f'{type(direction).__name__} needs {name}, which is not given here.'
        )
      given[name] = available[name]
  return direction(x, score, axis_name=axis_name, **given)
