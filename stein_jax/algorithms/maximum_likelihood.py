"""Exact maximum likelihood, for energies that know their log Z."""

from typing import NamedTuple

import jax.numpy as jnp

from stein_jax import build
from stein_jax import energies
from stein_jax import learners
from stein_jax.types import Array, Batch, Metrics, PRNGKey


class State(NamedTuple):
  step: Array
  energy: learners.Learner


def init(rng: PRNGKey, config, batch: Batch) -> State:
  """Returns the first state."""
  energy = learners.create(
    rng,
    build.build(energies, **config.energy),
    config.optimizer,
    batch['image'],
  )
  return State(jnp.zeros((), jnp.int32), energy)


def step(
  state: State,
  batch: Batch,
  rng: PRNGKey,
  *,
  axis_name: str | None = None,
) -> tuple[State, Metrics]:
  """Returns the state after one exact gradient step [LW17 eq 7] and its metrics.

  The loss is the negative log likelihood mean E(data) + log Z.
  """
  del rng
  apply_fn = state.energy.apply_fn

  def negative_log_likelihood(params):
    energy = jnp.mean(apply_fn(params, batch['image']))
    log_partition = apply_fn(params, method='log_partition')
    return energy + log_partition, {
      'energy/data': energy,
      'energy/log_partition': log_partition,
    }

  energy, metrics = learners.descend(
    state.energy, negative_log_likelihood, axis_name=axis_name
  )
  return State(state.step + 1, energy), metrics


sample = energies.sample_state  # a chain of the energy
