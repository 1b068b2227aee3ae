"""Cooperative networks: a generator that learns what Langevin makes of it [X20]."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from stein_jax import build
from stein_jax import checks
from stein_jax import collectives
from stein_jax import energies
from stein_jax import generators
from stein_jax import learners
from stein_jax import revision
from stein_jax.types import Array, Batch, Metrics, PRNGKey


class State(NamedTuple):
  step: Array
  energy: learners.Learner
  generator: learners.Learner


def init(rng: PRNGKey, config, batch: Batch) -> State:
  """Returns the first state."""
  energy, generator = generators.create_pair(
    rng,
    build.build(energies, **config.energy),
    config.energy_optimizer,
    build.build(generators, **config.generator),
    config.generator_optimizer,
    batch['image'],
    condition=batch.get('condition'),
  )
  return State(jnp.zeros((), jnp.int32), energy, generator)


def step(
  state: State,
  batch: Batch,
  rng: PRNGKey,
  *,
  num_steps: int = 15,
  step_size: float = 0.002,
  noise: bool = True,
  temperature: float = 1.0,
  clip: Sequence[float] = (),
  generator_sigma: float = 0.3,
  data_weight: float = 0.0,
  energy_l2: float = 0.0,
  axis_name: str | None = None,
) -> tuple[State, Metrics]:
  """Returns the state after one step of cooperative learning [X20].

  The generator proposes, Langevin dynamics revise. The energy descends mean E(data)
  - mean E(revised); the generator moves, at the latents it proposed from, towards
  the revised images.

  Args:
    state: the networks.
    batch: 'image' [n, ...], and 'condition' [n, ...] if conditional.
    rng: key of the step.
    num_steps: of Langevin dynamics.
    step_size: delta.
    noise: of the dynamics.
    temperature: of that noise.
    clip: (low, high) that every step is cut to; empty for no cut.
    generator_sigma: the generator descends the mean over images of |G(z) - revised|^2
      / (2 sigma^2), times 1 - data_weight.
    data_weight: of the sum over pixels of |G(z) - data|, for conditional generators,
      whose condition says which image is meant.
    energy_l2: weight of the mean squared energies; see `energies.contrast`.
    axis_name: the mapped axis over which the batch is split.
  """
  checks.positive(generator_sigma=generator_sigma)
  checks.non_negative(data_weight=data_weight)
  checks.at_most(1, data_weight=data_weight)
  dropout_rng = learners.dropout_key(state.energy, rng, axis_name=axis_name)
  rng = collectives.fold_in_index(rng, axis_name)
  latent_rng, chain_rng = jax.random.split(rng)
  data, condition = batch['image'], energies.conditions(batch)
  z = generators.latent(state.generator, latent_rng, len(data))

  def propose(params):
    samples = generators.decode_batch(
      state.generator, params, z, *condition, axis_name=axis_name
    )
    checks.shape(data.shape, samples=samples)
    return samples

  start = propose(state.generator.params)
  revised = energies.chain(
    state.energy,
    chain_rng,
    start,
    *condition,
    num_steps=num_steps,
    step_size=step_size,
    noise=noise,
    temperature=temperature,
    clip=clip,
    axis_name=axis_name,
    dropout_rng=dropout_rng,
  )

  def generator_loss(params):
    samples = propose(params)
    total = lambda x: jnp.mean(jnp.sum(x, range(1, x.ndim)))
    error = total((samples - revised) ** 2)
    loss = (1 - data_weight) * error / (2 * generator_sigma**2)
    loss += data_weight * total(jnp.abs(samples - data))
    return loss, {'generator/error': error}

  energy, energy_metrics = learners.descend(
    state.energy,
    energies.contrast(
      state.energy,
      data,
      revised,
      *condition,
      energy_l2=energy_l2,
      joint=False,
      axis_name=axis_name,
      rng=dropout_rng,
    ),
    axis_name=axis_name,
  )
  generator, generator_metrics = learners.descend(
    state.generator, generator_loss, axis_name=axis_name
  )
  metrics = {
    **energy_metrics,
    **generator_metrics,
    **revision.moved(start, revised, axis_name=axis_name),
  }
  return State(state.step + 1, energy, generator), metrics


sample = revision.sample
revise = revision.revise
