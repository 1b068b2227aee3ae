"""Contrastive divergence: CD-k and persistent chains [H02] [T08]."""

from typing import NamedTuple

import jax.numpy as jnp

from stein_jax import build
from stein_jax import checks
from stein_jax import collectives
from stein_jax import energies
from stein_jax import learners
from stein_jax import samplers
from stein_jax.types import Array, Batch, Metrics, PRNGKey

SPLIT = ('chains',)
FIELDS = dict(persistent=False)


class State(NamedTuple):
  step: Array
  energy: learners.Learner
  chains: Array | None  # [n, ...] where the chains persist (PCD), else None


def init(rng: PRNGKey, config, batch: Batch) -> State:
  """Returns the first state; persistent chains start at the batch.

  The energy is conditional where the batch has a condition.

  Raises:
    ValueError: persistent chains of a condition, which do not go on under another.
  """
  checks.flag(persistent=config.persistent)
  condition = energies.conditions(batch)
  if condition and config.persistent:
    raise ValueError(
      'persistent=True: chains of one condition do not go on under another; '
      'allowed: False.'
    )
  energy = learners.create(
    rng,
    build.build(energies, **config.energy),
    config.optimizer,
    batch['image'],
    *condition,
  )
  chains = jnp.array(batch['image']) if config.persistent else None
  return State(jnp.zeros((), jnp.int32), energy, chains)


def step(
  state: State,
  batch: Batch,
  rng: PRNGKey,
  *,
  chain: samplers.Chain = samplers.Langevin(0.1),
  axis_name: str | None = None,
) -> tuple[State, Metrics]:
  """Returns the state after one CD-k update [LW17 eq 10] and its metrics.

  To an energy that mixes its batch data and samples are a batch each.

  Args:
    state: with `chains` for PCD: they are where the chains start and stay.
    batch: 'image' [n, ...], and 'condition' [n, ...] where the energy is E(x, y)
      [LW17 eq 25]; chains keep the data's.
    rng: key of the step.
    chain: what makes the negatives, in k steps; LW17's is Langevin [LW17 eq 11].
    axis_name: the mapped axis over which the batch, and the chains, are split.
  """
  checks.moves(chain=chain)
  dropout_rng = learners.dropout_key(state.energy, rng, axis_name=axis_name)
  rng = collectives.fold_in_index(rng, axis_name)
  data, condition = batch['image'], energies.conditions(batch)
  context = dict(axis_name=axis_name, dropout_rng=dropout_rng)

  # Negatives: k steps of the chain, from the data or from where the last ones ended.
  start = data if state.chains is None else state.chains
  samples, chain_metrics = energies.run_chain(
    state.energy, chain, rng, start, *condition, **context
  )

  # The update of equation 10: the energy falls at the data and rises at the negatives.
  energy, metrics = energies.ascend_likelihood(
    state.energy, data, samples, *condition, **context
  )
  chains = None if state.chains is None else samples
  return State(state.step + 1, energy, chains), {**metrics, **chain_metrics}


sample = energies.sample_state  # a chain of the energy
