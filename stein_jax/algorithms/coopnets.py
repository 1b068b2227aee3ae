"""Cooperative networks: a generator learns what Langevin makes of its samples [X20]."""

import jax
import jax.numpy as jnp

from stein_jax import checks
from stein_jax import collectives
from stein_jax import energies
from stein_jax import learners
from stein_jax import revision
from stein_jax import samplers
from stein_jax.types import Batch, Metrics, PRNGKey

State = revision.State
init = revision.init


def step(
  state: State,
  batch: Batch,
  rng: PRNGKey,
  *,
  chain: samplers.Chain = samplers.Langevin(0.002, 15),
  generator_sigma: float = 0.3,
  data_weight: float = 0.0,
  energy_l2: float = 0.0,
  axis_name: str | None = None,
) -> tuple[State, Metrics]:
  """Returns the state after one step of cooperative learning [X20].

  The generator proposes images, and Langevin dynamics revise them. The energy descends
  mean E(data) - mean E(revised). The generator moves towards the revised images, at the
  latents that it proposed them from.

  Args:
    state: the networks.
    batch: 'image' [n, ...], and 'condition' [n, ...] if conditional.
    rng: key of the step.
    chain: the chain that revises, a value of `samplers`.
    generator_sigma: sigma in the generator's loss, the mean over images of
      |G(z) - revised|^2 / (2 sigma^2), which has weight 1 - data_weight.
    data_weight: weight of the sum over pixels of |G(z) - data|, for conditional
      generators, whose condition says which image is meant.
    energy_l2: weight of the mean squared energies; see `energies.contrast`.
    axis_name: the mapped axis over which the batch is split.

  Raises:
    ValueError: an argument is out of its range, or the chain takes no step.
  """
  # Without a step the generator would learn its own images.
  checks.moves(chain=chain)
  checks.positive(generator_sigma=generator_sigma)
  checks.non_negative(data_weight=data_weight)
  checks.at_most(1, data_weight=data_weight)
  dropout_rng = learners.dropout_key(state.energy, rng, axis_name=axis_name)
  rng = collectives.fold_in_index(rng, axis_name)
  latent_rng, chain_rng = jax.random.split(rng)
  data, condition = batch['image'], energies.conditions(batch)
  context = dict(axis_name=axis_name, dropout_rng=dropout_rng)

  # Steps G0 and D1 of the box: latents are decoded, and the energy revises the
  # images. X20 takes no step of G1, which would revise the latents.
  propose, revised, _, chain_metrics = revision.propose_and_revise(
    state, latent_rng, chain_rng, data, *condition, chain=chain, **context
  )

  # Step D2: the energy falls at the data and rises at the revised images.
  energy, energy_metrics = energies.ascend_likelihood(
    state.energy,
    data,
    revised,
    *condition,
    energy_l2=energy_l2,
    **context,
  )

  # Step G2: the generator regresses the revised images on its own latents.
  def generator_loss(params):
    samples = propose(params)
    total = lambda x: jnp.mean(jnp.sum(x, range(1, x.ndim)))
    # Up to a constant this is minus the log density of the revised images under
    # a decoder with Gaussian noise.
    error = total((samples - revised) ** 2)
    loss = (1 - data_weight) * error / (2 * generator_sigma**2)
    loss += data_weight * total(jnp.abs(samples - data))
    return loss, {'generator/error': error}

  generator, generator_metrics = learners.descend(
    state.generator, generator_loss, axis_name=axis_name
  )
  metrics = {**energy_metrics, **generator_metrics, **chain_metrics}
  return State(state.step + 1, energy, generator), metrics


sample = revision.sample
revise = revision.revise
