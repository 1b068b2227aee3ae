"""Contrastive divergence: CD-k and persistent chains [H02] [T08]."""

from typing import NamedTuple

import jax.numpy as jnp

from stein_jax import build
from stein_jax import checks
from stein_jax import collectives
from stein_jax import energies
from stein_jax import learners
from stein_jax.types import Array, Batch, Metrics, PRNGKey

SPLIT = ('chains',)


class State(NamedTuple):
  step: Array
  energy: learners.Learner
  chains: Array | None  # [n, ...] where the chains persist (PCD), else None


def init(rng: PRNGKey, config, batch: Batch) -> State:
  """Returns the first state; persistent chains start at the batch."""
  checks.flag(persistent=config.persistent)
  energy = learners.create(
    rng,
    build.build(energies, **config.energy),
    config.optimizer,
    batch['image'],
  )
  chains = jnp.array(batch['image']) if config.persistent else None
  return State(jnp.zeros((), jnp.int32), energy, chains)


def step(
  state: State,
  batch: Batch,
  rng: PRNGKey,
  *,
  sampler: str = 'langevin',
  num_steps: int = 1,
  step_size: float = 0.1,
  axis_name: str | None = None,
) -> tuple[State, Metrics]:
  """Returns the state after one CD-k update [LW17 eq 10] and its metrics.

  Args:
    state: with `chains` for PCD: they are where the chains start and stay.
    batch: 'image' [n, ...].
    rng: key of the step.
    sampler: 'langevin' [LW17 eq 11], 'mala' or 'gibbs'.
    num_steps: k.
    step_size: delta of Langevin and MALA.
    axis_name: the mapped axis over which the batch, and the chains, are split.
  """
  rng = collectives.fold_in_index(rng, axis_name)
  data = batch['image']
  start = data if state.chains is None else state.chains
  samples = energies.chain(
    state.energy,
    rng,
    start,
    sampler=sampler,
    num_steps=num_steps,
    step_size=step_size,
  )
  energy, metrics = learners.descend(
    state.energy,
    energies.contrast(state.energy, data, samples),
    axis_name=axis_name,
  )
  chains = None if state.chains is None else samples
  return State(state.step + 1, energy, chains), metrics


sample = energies.sample_state  # a chain of the energy
