"""Checkpoints: Orbax, with a digest of every array.

Orbax notices a torn file but not a flipped bit, and nothing falls back by
itself. Here each leaf's CRC-32 is stored beside it and compared on restore, and
the newest checkpoint that is whole is taken.
"""

import contextlib
import pathlib
import zlib

from absl import logging
import jax
from jax.experimental import multihost_utils
import numpy as np
import orbax.checkpoint as ocp

from stein_jax.types import Tree


def manager(directory, max_to_keep: int = 3) -> ocp.CheckpointManager:
  """Returns the manager of a folder, which is made if it is missing."""
  return ocp.CheckpointManager(
    pathlib.Path(directory).absolute(),
    item_names=('state', 'digest'),
    options=ocp.CheckpointManagerOptions(
      max_to_keep=max_to_keep, cleanup_tmp_directories=True, create=True
    ),
  )


def save(manager: ocp.CheckpointManager, state: Tree) -> None:
  """Starts writing the state under its step; `manager.wait_until_finished` waits.

  Raises:
    FloatingPointError: the state is not finite; nothing is written.
  """
  if not finite(state):
    raise FloatingPointError(
      f'The state of step {int(state.step)} is not finite; not saved.'
    )
  manager.save(
    int(state.step),
    args=ocp.args.Composite(
      state=ocp.args.StandardSave(state),
      digest=ocp.args.JsonSave(_digest(state)),
    ),
  )


def restore(manager: ocp.CheckpointManager, state: Tree) -> Tree:
  """Returns the newest whole checkpoint, placed like `state`; `state` if none.

  Raises:
    RuntimeError: there are checkpoints, and none of them is whole.
  """
  steps = sorted(manager.all_steps(), reverse=True)
  template = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
  for step in steps:
    # What a damaged file raises depends on the file: ValueError,
    # FileNotFoundError, KeyError, JSON errors.
    try:
      restored, digest = _read(manager.directory / str(step), template)
      readable = True
    except Exception as error:  # pylint: disable=broad-exception-caught
      logging.error('Checkpoint %d cannot be read: %s', step, error)
      readable = False
    # Each process reads its own part, and all go on with the same step.
    if not _everywhere(readable):
      logging.error('Checkpoint %d cannot be read by every process.', step)
      continue
    damaged = _differences(digest, _digest(restored))
    if _everywhere(not damaged):
      return restored
    logging.error('Checkpoint %d is damaged in: %s', step, ', '.join(damaged))
  if steps:
    raise RuntimeError(
      f'No checkpoint of {steps} in {manager.directory} is whole.'
    )
  return state


def finite(tree: Tree) -> bool:
  """Returns whether every floating-point number of the tree is finite."""
  return all(
    np.all(np.isfinite(array))
    for array in _host(tree).values()
    if np.issubdtype(array.dtype, np.floating)
  )


def _digest(state):
  """Returns the CRC-32 of every leaf, by its path."""
  return {
    path: zlib.crc32(np.ascontiguousarray(array))
    for path, array in _host(state).items()
  }


def _read(folder, template):
  """Returns the state of a checkpoint, placed like the template, and its digest.

  By Orbax's handlers: its manager waits for the other processes at the end, and of
  one that cannot read its part they would wait for ever.
  """
  with (
    contextlib.closing(ocp.StandardCheckpointHandler()) as states,
    contextlib.closing(ocp.JsonCheckpointHandler()) as digests,
  ):
    state = states.restore(
      folder / 'state', args=ocp.args.StandardRestore(template)
    )
    digest = digests.restore(folder / 'digest', args=ocp.args.JsonRestore())
  return state, digest


def _everywhere(holds):
  """Returns whether something holds in every process; all take part."""
  return bool(np.all(multihost_utils.process_allgather(np.array(holds))))


def _differences(expected, found):
  return [path for path in found if expected.get(path) != found[path]]


def _host(tree):
  """Returns every leaf on the host, by path; all processes take part."""
  return {
    jax.tree_util.keystr(path): _whole(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def _whole(leaf):
  if leaf.is_fully_addressable or leaf.is_fully_replicated:
    return np.asarray(leaf)
  return multihost_utils.process_allgather(leaf, tiled=True)
