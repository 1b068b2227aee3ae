"""Contrastive divergence: CD-k and persistent chains [H02] [T08]."""

from typing import NamedTuple

import jax.numpy as jnp

from stein_jax import build
from stein_jax import checks
from stein_jax import collectives
from stein_jax import dtypes
from stein_jax import energies
from stein_jax import learners
from stein_jax import samplers
from stein_jax import stein
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
    ValueError: persistent chains are asked for under a condition; the next batch has
      other conditions, under which they cannot go on.
  """
  checks.flag(persistent=config.persistent)
  condition = energies.conditions(batch)
  if condition and config.persistent:
    raise ValueError(
      'persistent=True needs data without conditions, since the next batch has other '
      'ones than its chains; allowed: False.'
    )
  energy = learners.create(
    rng,
    build.build(energies, **config.energy),
    config.optimizer,
    batch['image'],
    *condition,
  )
  chains = None
  if config.persistent:
    # A copy, since the step donates its state, and the batch is the caller's. It is
    # floating, or integer chains would change their type in the first step.
    chains = jnp.array(dtypes.floating(batch['image']))
  return State(jnp.zeros((), jnp.int32), energy, chains)


def step(
  state: State,
  batch: Batch,
  rng: PRNGKey,
  *,
  chain: samplers.Chain = samplers.Langevin(0.1),
  ksd: stein.KSD = stein.KSD(max_points=0),
  minus_kl: float = 0.0,
  plus_kl: float = 0.0,
  axis_name: str | None = None,
) -> tuple[State, Metrics]:
  """Returns the state after one CD-k update [LW17 eq 10] and its metrics.

  An energy that mixes its batch sees data and samples as a batch each.

  Args:
    state: the energy, and for PCD the chains, which start where they ended last.
    batch: 'image' [n, ...], and 'condition' [n, ...] if the energy is E(x, y)
      [LW17 eq 25]; a chain keeps the condition of the image that it starts at.
    rng: key of the step.
    chain: the chain of k steps that makes the negatives; in LW17 it is Langevin
      dynamics [LW17 eq 11].
    ksd: what is logged as 'chain/ksd', of the ends of the chains: with a `max_points`
      above 0 their squared discrepancy to the energy that they ran under.
    minus_kl: weight of minus the divergence of the ends of the chains, through their
      last step, of Langevin chains; see `energies.run_with_divergence`.
    plus_kl: weight of it with the sign of the authors' code [DLTM21], by which the
      energy learns something else than the density of the data.
    axis_name: the mapped axis over which the batch, and the chains, are split.
  """
  checks.moves(chain=chain)
  # `dropout_key` folds in the index of the device itself, so it comes first.
  dropout_rng = learners.dropout_key(state.energy, rng, axis_name=axis_name)
  rng = collectives.fold_in_index(rng, axis_name)
  data, condition = batch['image'], energies.conditions(batch)
  context = dict(axis_name=axis_name, dropout_rng=dropout_rng)

  # CD starts its negatives at the data, and PCD where the last ones ended.
  start = data if state.chains is None else state.chains
  samples, chain_metrics, terms = energies.run_with_divergence(
    state.energy,
    chain,
    rng,
    start,
    *condition,
    minus_kl=minus_kl,
    plus_kl=plus_kl,
    ksd=ksd,
    **context,
  )

  # In equation 10 the energy falls at the data and rises at the negatives.
  energy, metrics = energies.ascend_likelihood(
    state.energy, data, samples, *condition, terms=terms, **context
  )
  chains = None if state.chains is None else samples
  return State(state.step + 1, energy, chains), {**metrics, **chain_metrics}


# The chain of a step is too short to sample by; this one is long by default.
sample = energies.sample_state
