"""Markov chains of an energy."""

from collections.abc import Sequence
import functools

import jax
from jax import lax
import jax.numpy as jnp

from stein_jax import checks
from stein_jax import dtypes
from stein_jax import learners
from stein_jax import samplers
from stein_jax.energies import values
from stein_jax.learners import Learner
from stein_jax.types import Array, PRNGKey


def chain(
  energy: Learner,
  rng: PRNGKey,
  x: Array,
  *condition: Array,
  sampler: str = 'langevin',
  step_size: float = 0.1,
  num_steps: int = 1,
  noise: bool = True,
  temperature: float = 1.0,
  clip: Sequence[float] = (),
  block_size: int = 0,
  axis_name: str | None = None,
  dropout_rng: PRNGKey | None = None,
) -> Array:
  """Returns x after a Markov chain of the energy, like x.

  An energy that mixes its batch has one chain, of the whole batch over all devices:
  Langevin dynamics on the joint density prod_i exp(-E(x_i; batch)).

  Args:
    energy: the learner.
    rng: key of the chain.
    x: its start [n, ...].
    *condition: what else the energy takes.
    sampler: 'langevin' or 'mala' with `step_size`, or 'gibbs' where the energy
      has that method.
    step_size: delta.
    num_steps: length of the chain.
    noise: of 'langevin'; False descends the energy.
    temperature: of that noise.
    clip: (low, high) that every step of 'langevin' is cut to; empty for no cut.
    block_size: examples at a time, with a key for each block; 0 for all at once. The
      last block is filled with rows of the others.
    axis_name: the mapped axis over which x is split.
    dropout_rng: key of the energy's dropout, the same in all steps of the chain.

  Raises:
    ValueError: an energy that mixes its batch, for a sampler of one example; or a
      condition for 'gibbs'.
  """
  checks.choice(('langevin', 'mala', 'gibbs'), sampler=sampler)
  checks.positive(step_size=step_size)
  checks.count(num_steps=num_steps)
  checks.count(minimum=0, block_size=block_size)
  x = dtypes.floating(x)
  if sampler != 'langevin' and learners.mixes(energy):
    raise ValueError(
      f'sampler={sampler!r} moves each example by itself, and this energy mixes its '
      "batch; allowed: 'langevin'."
    )
  if sampler == 'gibbs' and condition:
    raise ValueError(
      "sampler='gibbs' takes no condition; allowed: 'langevin', 'mala'."
    )
  context = dict(axis_name=axis_name, rng=dropout_rng)

  def run(rng, x, *condition):
    if sampler == 'langevin':
      return samplers.langevin(
        rng,
        x,
        lambda x: values.score(energy, x, *condition, **context),
        step_size=step_size,
        num_steps=num_steps,
        noise=noise,
        temperature=temperature,
        clip=tuple(clip) or None,
      )
    if sampler == 'mala':
      return samplers.mala(
        rng,
        x,
        lambda x: (
          -values.value(energy, energy.params, x, *condition, **context)
        ),
        step_size=step_size,
        num_steps=num_steps,
      )[0]
    moved = learners.call(
      energy, energy.params, rng, x, num_steps, method='gibbs', **context
    )
    checks.shape(x.shape, **{"The energy's gibbs": moved})
    return moved

  if not block_size:
    return run(rng, x, *condition)
  blocks = -(-len(x) // block_size)
  filled = jnp.arange(blocks * block_size) % len(x)
  split = lambda array: jnp.asarray(array)[filled].reshape(
    blocks, block_size, *array.shape[1:]
  )
  keys = jax.vmap(functools.partial(jax.random.fold_in, rng))
  arguments = (keys(jnp.arange(blocks)), *map(split, (x, *condition)))
  ends = lax.map(lambda block: run(*block), arguments)
  return ends.reshape(-1, *x.shape[1:])[: len(x)]


def whole(
  energy: Learner, num: int, condition: Array | None = None
) -> tuple[int, tuple[Array, ...]]:
  """Returns how many chains are run for num samples, and the conditions of each.

  For an energy that mixes its batch they are whole batches of the training size, in
  which conditions repeat: so no sample depends on how many are asked for, and what is
  too many is cut off.

  Raises:
    ValueError: there are not num conditions.
  """
  size = energy.batch_size
  rows = -(-num // size) * size if learners.mixes(energy) and size else num
  if condition is None:
    return rows, ()
  condition = jnp.asarray(condition)
  checks.shape((num, *condition.shape[1:]), condition=condition)
  return rows, (condition[jnp.arange(rows) % num],)


def sample_state(
  state,
  rng: PRNGKey,
  num: int,
  *,
  condition: Array | None = None,
  sampler: str = 'mala',
  step_size: float = 0.3,
  num_steps: int = 1000,
) -> Array:
  """Returns the ends [num, ...] of chains of `state.energy` started at N(0, I).

  The `sample` of every algorithm that learns an energy alone; further arguments
  are those of `chain`. Of an energy that knows labels the condition is labels [num];
  without, they are 0, 1, ... in turn. An energy that mixes its batch has chains of
  whole batches of the training size.
  """
  energy = state.energy
  if condition is None and energy.num_classes:
    condition = jnp.arange(num) % energy.num_classes
  rows, given = whole(energy, num, condition)
  start_rng, chain_rng = jax.random.split(rng)
  x = jax.random.normal(start_rng, (rows, *energy.input_shape))
  return chain(
    energy,
    chain_rng,
    x,
    *given,
    sampler=sampler,
    step_size=step_size,
    num_steps=num_steps,
    block_size=energy.batch_size if learners.mixes(energy) else 0,
  )[:num]
