"""An EBM with a VAE as its amortised sampler: variational MCMC teaching [X21]."""

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
  generator: learners.Learner  # with an encoder


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
  kl_weight: float = 2.0,
  kl: str = 'prior',
  num_importance: int = 10,
  data_weight: float = 0.0,
  energy_l2: float = 0.0,
  axis_name: str | None = None,
) -> tuple[State, Metrics]:
  """Returns the state after one step of variational MCMC teaching [X21 panel 4].

  A latent is drawn and decoded, and Langevin dynamics revise the image: ancestral
  Langevin sampling. The energy descends mean E(data) - mean E(revised); the
  autoencoder learns the revised images, and with data_weight 0 never sees the data.

  Args:
    state: the networks.
    batch: 'image' [n, ...], and 'condition' [n, ...] if conditional.
    rng: key of the step.
    num_steps: of Langevin dynamics.
    step_size: delta.
    noise: of the dynamics, as printed; the authors' code is without.
    temperature: of that noise.
    clip: (low, high) that every step is cut to; empty for no cut.
    kl_weight: gamma; see `generators.variational_loss`.
    kl: of codes to the 'prior', or as printed the 'posterior'.
    num_importance: draws for the evidence of 'posterior'.
    data_weight: of the sum over pixels of |G(z) - data|, z from the prior, for
      conditional generators, whose condition says which image is meant; the rest of
      the loss has weight 1 - data_weight, as in `coopnets`.
    energy_l2: weight of the mean squared energies; see `energies.contrast`.
    axis_name: the mapped axis over which the batch is split.
  """
  checks.non_negative(data_weight=data_weight)
  checks.at_most(1, data_weight=data_weight)
  dropout_rng = learners.dropout_key(state.energy, rng, axis_name=axis_name)
  rng = collectives.fold_in_index(rng, axis_name)
  latent_rng, chain_rng, code_rng = jax.random.split(rng, 3)
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
  bound = generators.variational_loss(
    state.generator,
    code_rng,
    revised,
    *condition,
    kl_weight=kl_weight,
    kl=kl,
    num_importance=num_importance,
    axis_name=axis_name,
  )

  def generator_loss(params):
    loss, metrics = bound(params)
    if not checks.is_zero(data_weight):
      error = jnp.sum(jnp.abs(propose(params) - data)) / len(data)
      loss = (1 - data_weight) * loss + data_weight * error
    return loss, metrics

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
