"""Going back to the last good checkpoint with other random numbers.

A rollback is a restart: the loop begins anew from the newest checkpoint, as after a
kill. What differs is the key of each step, a function of the step and of the
rollbacks in the workdir: so a run that is killed goes on as one that is not.
"""

from absl import logging
import jax
import jax.numpy as jnp

from stein_jax import locations
from stein_jax.runs import checkpoints
from stein_jax.runs import reporting
from stein_jax.types import Array, PRNGKey

FILE = 'rollbacks.json'
ACTIONS = ('stop', 'rollback')
_LIMIT = 3  # in a row, none of which gets past the bad step


def read(workdir) -> list[dict[str, int]]:
  """Returns a run's rollbacks, oldest first: which step was bad, which one good.

  Raises:
    ValueError: the file that lists them is damaged.
  """
  path = locations.absolute(workdir) / FILE
  if not path.exists():
    return []
  past = reporting.read_json(path)
  try:
    return [
      {name: int(each[name]) for name in ('bad', 'good')} for each in past
    ]
  except (TypeError, ValueError, LookupError) as error:
    raise ValueError(f'{path} is damaged: it lists no rollbacks.') from error


def go_back(
  workdir, past: list[dict[str, int]], error: checkpoints.NotFinite
) -> list[dict[str, int]]:
  """Returns the rollbacks with one more, and remembers them in the workdir.

  Raises:
    NotFinite: the error, if as many as are allowed have not got further.
  """
  bad = [each['bad'] for each in past] + [error.bad]
  # Only rollbacks since the furthest step that was ever reached count.
  if len(bad) - bad.index(max(bad)) > _LIMIT:
    error.add_note(
      f'Given up after {_LIMIT} rollbacks that did not get past it; '
      f'{locations.absolute(workdir) / FILE} lists them.'
    )
    raise error
  logging.error(
    '%s Rollback %d: going on from step %d with other random numbers.',
    error,
    len(past) + 1,
    error.good,
  )
  past = [*past, {'bad': error.bad, 'good': error.good}]
  if jax.process_index() == 0:
    reporting.write_json(locations.absolute(workdir) / FILE, past)
  return past


def key(rng: PRNGKey, step: Array, past: list[dict[str, int]]) -> PRNGKey:
  """Returns the key of a step: another one after each rollback to before it."""
  rng = jax.random.fold_in(rng, step)
  if not past:
    return rng
  good = jnp.array([each['good'] for each in past])
  count = jnp.sum(step >= good)
  return jnp.where(count > 0, jax.random.fold_in(rng, count), rng)
