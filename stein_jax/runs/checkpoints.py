"""Checkpoints: Orbax, with a digest of every array.

Orbax notices a torn file but not a flipped bit, casts dtypes in silence, and
nothing falls back by itself. Here each leaf's type and CRC-32 are stored beside it
and compared on restore, and the newest checkpoint that is whole is taken.
"""

from collections.abc import Iterator, Sequence
import contextlib
import textwrap
import zlib

from absl import logging
import jax
from jax import dtypes
from jax.experimental import multihost_utils
import numpy as np
import orbax.checkpoint as ocp

from stein_jax import locations
from stein_jax.runs import stopping
from stein_jax.types import Tree


class NotFinite(FloatingPointError):
  """Numbers have gone bad.

  Attributes:
    bad: the step at which it was noticed.
    good: the step of the newest checkpoint; 0, the start, without one.
  """

  def __init__(self, what: str, bad: int, manager: ocp.CheckpointManager):
    good = manager.latest_step()
    super().__init__(
      f'{what} '
      + (
        'No checkpoint was saved before.'
        if good is None
        else f'Last good checkpoint: step {good} in {manager.directory}.'
      )
    )
    self.bad, self.good = bad, good or 0


def manager(
  directory, max_to_keep: int = 3, *, read_only: bool = False
) -> ocp.CheckpointManager:
  """Returns the manager of a folder, which is made if it is missing.

  One that is `read_only` changes nothing: the unfinished checkpoint that another
  clears away may be one that a run is writing.
  """
  if read_only:
    # Orbax clears unfinished checkpoints away even when nothing is saved.
    options = dict(read_only=True, save_interval_steps=0, create=False)
  else:
    options = dict(
      preservation_policy=ocp.checkpoint_managers.LatestN(max_to_keep),
      cleanup_tmp_directories=True,
    )
  # Orbax warns of what is asked of it: to read and not to write.
  asked = lambda record: 'read only' not in record.getMessage()
  logger = logging.get_absl_logger()
  logger.addFilter(asked)
  try:
    return ocp.CheckpointManager(
      locations.absolute(directory),
      options=ocp.CheckpointManagerOptions(**options),
    )
  finally:
    logger.removeFilter(asked)


@contextlib.contextmanager
def closing(manager: ocp.CheckpointManager) -> Iterator[None]:
  """Closes a manager at the end, when what was saved is on disk.

  An error from within is raised as it is, whatever else fails then.

  Raises:
    OSError: what was saved could not be written.
  """
  try:
    yield
  except BaseException as error:
    # Several processes wait for each other here, but are alone with their troubles.
    if jax.process_count() > 1 and not isinstance(error, FloatingPointError):
      raise
    with contextlib.suppress(Exception):
      manager.close()
    raise
  with _as_os_error(manager):
    manager.close()


def save(manager: ocp.CheckpointManager, state: Tree) -> None:
  """Starts writing the state under its step; see `wait`.

  Raises:
    NotFinite: the state is not finite; nothing is written.
    OSError: this one, or the one before, could not be written.
  """
  step = int(state.step)
  # A checkpoint of nan would be the newest one, and the run would go on from
  # it.
  bad = not_finite(state)
  if bad:
    raise NotFinite(
      f'The state of step {step} is not finite in: {", ".join(bad)}; not saved.',
      step,
      manager,
    )
  # The digest is of what is in memory now, before Orbax writes it.
  arrays = _host(state)
  digest = {path: [_kind(array), _crc(array)] for path, array in arrays.items()}
  stopping.step(saves_to=manager.directory)
  with _as_os_error(manager):
    saved = manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(state), digest=ocp.args.JsonSave(digest)
      ),
    )
  # Orbax declines in silence a step that is not above its newest.
  if not saved:
    raise OSError(
      f'Step {step} was not saved: {manager.directory} holds step '
      f'{manager.latest_step()}.'
    )


def wait(manager: ocp.CheckpointManager) -> None:
  """Returns when what was saved is on disk; OSError if it could not be written."""
  with _as_os_error(manager):
    manager.wait_until_finished()


def check(manager: ocp.CheckpointManager) -> None:
  """Raises OSError if by now it is known that a checkpoint could not be written."""
  # A write that goes on is not waited for; a later call finds its error.
  if not manager.is_saving_in_progress():
    wait(manager)


def restore(
  manager: ocp.CheckpointManager, state: Tree, *, step: int | None = None
) -> Tree:
  """Returns the newest whole checkpoint, placed like `state`; `state` if none.

  Args:
    manager: of the checkpoints.
    state: one like those that are there.
    step: that of the only checkpoint which will do; None for any.

  Raises:
    RuntimeError: there are checkpoints, and none of them can be restored; says
      what each lacks, also where they are of a state of other arrays.
  """
  problems = []
  # The newest one that is whole is taken.
  steps = manager.all_steps() if step is None else [step]
  for step in sorted(steps, reverse=True):
    folder = manager.directory / str(step)
    problem, restored, digest = _read(folder, state)
    # Each process reads its own part, and all go on with the same step.
    if _everywhere(problem is None):
      problem = _damage(folder, restored, digest)
      if _everywhere(problem is None):
        return restored
    problem = problem or f'{folder} cannot be read by another process'
    problems.append(f'step {step}: {problem}')
    logging.error('Checkpoint %d is not whole: %s', step, problem)
  if problems:
    raise RuntimeError(
      f'None of the checkpoints in {manager.directory} is whole and of a state '
      f"like this run's; they are left as they are. {'; '.join(problems)}."
    )
  return state


def drop_later(manager: ocp.CheckpointManager, step: int) -> None:
  """Deletes the checkpoints after a step.

  They are what `restore` found damaged, and in the way: Orbax saves no step twice,
  and counts them among those to keep.
  """
  for later in manager.all_steps():
    if later > step:
      logging.error(
        'Deleting checkpoint %d in %s; the run goes on from step %d.',
        later,
        manager.directory,
        step,
      )
      manager.delete(later)


def not_finite(state: Tree) -> Sequence[str]:
  """Returns the fields of a NamedTuple state that hold a nan or an infinity."""
  return [
    field
    for field, value in state._asdict().items()
    if not all(
      np.all(np.isfinite(array))
      for array in _host(value).values()
      if dtypes.issubdtype(array.dtype, np.floating)  # of bfloat16 too
    )
  ]


@contextlib.contextmanager
def _as_os_error(manager):
  """Makes OSError of whatever the writing threads raise: a full disk is ValueError."""
  try:
    yield
  except Exception as error:
    raise OSError(
      f'A checkpoint could not be written to {manager.directory}: '
      f'{textwrap.shorten(str(error), 2000)}'
    ) from error


def _read(folder, state):
  """Returns what is wrong with a checkpoint, or None, its state and its digest.

  By Orbax's handlers: its manager waits for the other processes at the end, and of
  one that cannot read its part they would wait for ever.
  """
  template = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
  kinds = {
    jax.tree_util.keystr(path): _kind(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(template)
  }
  item = 'digest'
  # What a damaged file raises depends on the file: ValueError, FileNotFoundError,
  # KeyError, JSON errors.
  try:
    with (
      contextlib.closing(ocp.JsonCheckpointHandler()) as digests,
      contextlib.closing(ocp.StandardCheckpointHandler()) as states,
    ):
      digest = digests.restore(folder / item, args=ocp.args.JsonRestore())
      found = {path: kind for path, (kind, _) in digest.items()}
      # Orbax would cast another dtype without a word.
      if found != kinds:
        of = f'{folder} is of another state: {_differences(found, kinds)}'
        return of, None, None
      item = 'state'
      restored = states.restore(
        folder / item, args=ocp.args.StandardRestore(template)
      )
  except Exception as error:  # pylint: disable=broad-exception-caught
    said = textwrap.shorten(repr(error), 400)
    return f'{folder}/{item} cannot be read: {said}', None, None
  return None, restored, digest


def _damage(folder, restored, digest):
  """Returns which leaves are not what was saved, or None; all processes take part."""
  damaged = [
    path for path, x in _host(restored).items() if digest[path][1] != _crc(x)
  ]
  return f'{folder} is damaged in: {", ".join(damaged)}' if damaged else None


def _differences(there, here):
  return ', '.join(
    f'{path} is {there.get(path, "absent")} there and {here.get(path, "absent")} here'
    for path in sorted(there.keys() | here.keys())
    if there.get(path) != here.get(path)
  )


def _kind(leaf):
  return f'{leaf.dtype}{list(leaf.shape)}'


def _crc(array):
  # A CRC-32 finds any flipped bit; it is no guard against forgery.
  return zlib.crc32(np.ascontiguousarray(array))


def _everywhere(holds):
  """Returns whether something holds in every process; all take part."""
  stopping.step()
  return bool(np.all(multihost_utils.process_allgather(np.array(holds))))


def _host(tree):
  """Returns every leaf on the host, by path; all processes take part."""
  return {
    jax.tree_util.keystr(path): _whole(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def _whole(leaf):
  # Leaves that are split over processes are gathered, the others are read here.
  if leaf.is_fully_addressable or leaf.is_fully_replicated:
    return np.asarray(leaf)
  stopping.step()
  return multihost_utils.process_allgather(leaf, tiled=True)
