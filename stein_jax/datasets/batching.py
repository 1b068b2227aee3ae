"""Batches of a source as a function of the seed and the step."""

from collections.abc import Iterator
import functools

import jax
import numpy as np

from stein_jax import checks


def batches(
  source, batch_size: int, *, seed: int, start: int = 0, whole: bool = False
) -> Iterator[dict[str, np.ndarray]]:
  """Yields this process's rows of the batches from step `start` on, for ever.

  The batch of a step is a pure function of (seed, step): epochs are seeded
  permutations, and the rows left over at an epoch's end are dropped.

  Args:
    source: what to read.
    batch_size: rows over all processes.
    seed: of the permutations.
    start: first step.
    whole: whether every process gets all rows.

  Raises:
    ValueError: a batch is larger than the source, or its rows do not divide over the
      processes.
  """
  rows = indices(source, batch_size, seed=seed, start=start, whole=whole)
  return (source[each] for each in rows)


def indices(
  source, batch_size: int, *, seed: int, start: int = 0, whole: bool = False
) -> Iterator[np.ndarray]:
  """Yields where in the source the rows are that `batches` of the same have."""
  checks.count(batch_size=batch_size)
  processes = jax.process_count()
  if batch_size > len(source):
    raise ValueError(
      f'batch_size={batch_size} is more than the {len(source)} examples.'
    )
  # Each process reads its own rows alone, and all as many.
  if batch_size % processes:
    raise ValueError(
      f'batch_size={batch_size} must be divisible by the {processes} processes.'
    )
  rows = slice(0, batch_size)
  if not whole:
    share = batch_size // processes
    rows = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
  return _indices(len(source), batch_size, seed, start, rows)


def _indices(length, batch_size, seed, step, rows):
  """Yields those rows of each batch; apart, so that `indices` refuses when called."""
  per_epoch = length // batch_size

  # Batches go through an epoch in turn, so that one permutation is kept.
  @functools.lru_cache(maxsize=1)
  def order(epoch):
    return np.random.default_rng((seed, epoch)).permutation(length)

  while True:
    epoch, place = divmod(step, per_epoch)
    begin = place * batch_size
    # All processes have the same permutation, and each takes its rows of the
    # batch.
    yield order(epoch)[begin : begin + batch_size][rows]
    step += 1
