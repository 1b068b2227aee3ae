"""Exact maximum likelihood, for energies that know their log Z."""

from typing import NamedTuple

import jax.numpy as jnp

from stein_jax import build
from stein_jax import checks
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
  negative_weight: float = 1.0,
  axis_name: str | None = None,
) -> tuple[State, Metrics]:
  """Returns the state after one exact gradient step [LW17 eq 7] and its metrics.

  The loss is mean E(data) + log Z, the negative log likelihood, both without dropout.

  Args:
    state: the energy.
    batch: 'image' [n, ...].
    rng: unused, the update is deterministic.
    negative_weight: weight of log Z. At 1 - gamma the step ascends the log likelihood
      plus gamma log Z, as a discounted SteinGAN with exact samples does [LW17 sec 5.2].
      The model's moments are then those of the data times 1 / (1 - gamma).
    axis_name: the mapped axis over which the batch is split.

  Raises:
    ValueError: the weight is not positive, or the energy mixes its batch.
  """
  del rng
  checks.positive(negative_weight=negative_weight)

  def loss_fn(params):
    # Neither term has a dropout key: log Z is that of the energy without
    # dropout, and the two must be of one energy. One that mixes its batch is
    # refused here.
    log_partition = energies.log_partition(state.energy, params)
    energy = jnp.mean(energies.value(state.energy, params, batch['image']))
    return energy + negative_weight * log_partition, {
      'energy/data': energy,
      'energy/log_partition': log_partition,
    }

  energy, metrics = learners.descend(state.energy, loss_fn, axis_name=axis_name)
  return State(state.step + 1, energy), metrics


# Not every energy that knows log Z can be sampled exactly.
sample = energies.sample_state
