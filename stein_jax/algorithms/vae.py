"""Variational autoencoders of images, with a condition or without [KW14]."""

from typing import NamedTuple

import jax.numpy as jnp

from stein_jax import build
from stein_jax import checks
from stein_jax import collectives
from stein_jax import energies
from stein_jax import generators
from stein_jax import learners
from stein_jax.types import Array, Batch, Metrics, PRNGKey


class State(NamedTuple):
  step: Array
  generator: learners.Learner  # with an encoder


def init(rng: PRNGKey, config, batch: Batch) -> State:
  """Returns the first state."""
  generator = generators.create(
    rng,
    build.build(generators, **config.generator),
    config.generator_optimizer,
    len(batch['image']),
    condition=batch.get('condition'),
  )
  # `generators.create_pair` checks this where an energy learns beside it.
  checks.same_shape(
    data=batch['image'].shape[1:], samples=generator.input_shape
  )
  return State(jnp.zeros((), jnp.int32), generator)


def step(
  state: State,
  batch: Batch,
  rng: PRNGKey,
  *,
  kl_weight: float = 1.0,
  axis_name: str | None = None,
) -> tuple[State, Metrics]:
  """Returns the state after one gradient step up the evidence bound of the data.

  Args:
    state: the network.
    batch: 'image' [n, ...], and 'condition' [n, ...] if conditional.
    rng: key of the step.
    kl_weight: weight of the divergence of codes from the prior; see
      `generators.variational_loss`.
    axis_name: the mapped axis over which the batch is split.
  """
  rng = collectives.fold_in_index(rng, axis_name)
  generator, metrics = learners.descend(
    state.generator,
    generators.variational_loss(
      state.generator,
      rng,
      batch['image'],
      *energies.conditions(batch),
      kl_weight=kl_weight,
      axis_name=axis_name,
    ),
    axis_name=axis_name,
  )
  return State(state.step + 1, generator), metrics


def sample(
  state: State, rng: PRNGKey, num: int, *, condition: Array | None = None
) -> Array:
  """Returns samples [num, ...], one for each image of a condition [num, ...]."""
  return generators.sample(state.generator, rng, num, condition=condition)
