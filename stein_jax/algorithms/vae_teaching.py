"""Variational MCMC teaching: an EBM with a VAE as its amortised sampler [X21].

The generator of the state has an encoder.
"""

import jax
import jax.numpy as jnp

from stein_jax import checks
from stein_jax import collectives
from stein_jax import energies
from stein_jax import generators
from stein_jax import learners
from stein_jax import revision
from stein_jax import samplers
from stein_jax.types import Batch, Metrics, PRNGKey

State = revision.State
SPLIT = ('chains',)
FIELDS = dict(num_chains=0)


def init(rng: PRNGKey, config, batch: Batch) -> State:
  """Returns the first state, conditional if the batch has a condition.

  `config.num_chains` is 0 where all chains begin at images of the generator. Else that
  many persist, as many as the batch has images or more.

  Raises:
    ValueError: see `energies.check_num_chains`.
  """
  num = getattr(config, 'num_chains', 0)
  rng, chain_rng = jax.random.split(rng) if num else (rng, None)
  state = revision.init(rng, config, batch)
  chains = revision.first_chains(chain_rng, state.generator, num, batch)
  return state._replace(chains=chains)


def step(
  state: State,
  batch: Batch,
  rng: PRNGKey,
  *,
  chain: samplers.Chain = samplers.Langevin(0.002, 15),
  restart: float = 0.05,
  kl_weight: float = 2.0,
  kl: str = 'prior',
  num_importance: int = 10,
  data_weight: float = 0.0,
  energy_l2: float = 0.0,
  axis_name: str | None = None,
) -> tuple[State, Metrics]:
  """Returns the state after one step of variational MCMC teaching [X21 panel 4].

  In ancestral Langevin sampling a latent is drawn and decoded, and Langevin dynamics
  revise the image. The energy descends mean E(data) - mean E(revised). The autoencoder
  learns the revised images, and with data_weight 0 never sees the data. If the state
  has chains, as many of these as the batch has images are revised further. Some begin
  at new images instead, and all are put back where they end.

  Args:
    state: the networks, and the chains that persist.
    batch: 'image' [n, ...], and 'condition' [n, ...] if conditional.
    rng: key of the step.
    chain: the chain that revises. The paper prints Langevin dynamics with noise; the
      authors' code has none.
    restart: chance that a persistent chain begins at an image of the generator.
    kl_weight: gamma; see `generators.variational_loss`.
    kl: the distribution that codes are held to, 'prior' or, as printed, 'posterior'.
    num_importance: number of draws that estimate the evidence for 'posterior'.
    data_weight: weight of the sum over pixels of |G(z) - data|, z from the prior, for
      conditional generators, whose condition says which image is meant; the rest of
      the loss has weight 1 - data_weight, as in `coopnets`.
    energy_l2: weight of the mean squared energies; see `energies.contrast`.
    axis_name: the mapped axis over which the batch, and the chains, are split.

  Raises:
    ValueError: an argument is out of its range, or the chain takes no step.
  """
  checks.moves(chain=chain)
  checks.non_negative(data_weight=data_weight)
  checks.at_most(1, data_weight=data_weight)
  dropout_rng = learners.dropout_key(state.energy, rng, axis_name=axis_name)
  rng = collectives.fold_in_index(rng, axis_name)
  latent_rng, chain_rng, code_rng = jax.random.split(rng, 3)
  data, condition = batch['image'], energies.conditions(batch)
  context = dict(axis_name=axis_name, dropout_rng=dropout_rng)

  # Latents are decoded without observation noise, and the energy's dynamics
  # revise the images (ancestral Langevin sampling).
  propose, revised, chains, chain_metrics = revision.propose_and_revise(
    state,
    latent_rng,
    chain_rng,
    data,
    *condition,
    chain=chain,
    restart=restart,
    **context,
  )

  # The EBM's update: it follows the data, and its samples are the revised
  # images.
  energy, energy_metrics = energies.ascend_likelihood(
    state.energy, data, revised, *condition, energy_l2=energy_l2, **context
  )

  # The VAE's update: it follows the EBM, by the revised images' evidence bound.
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
    if not checks.is_zero(data_weight):  # a known 0 spares a second decoding
      error = jnp.sum(jnp.abs(propose(params) - data)) / len(data)
      loss = (1 - data_weight) * loss + data_weight * error
    return loss, metrics

  generator, generator_metrics = learners.descend(
    state.generator, generator_loss, axis_name=axis_name
  )
  metrics = {**energy_metrics, **generator_metrics, **chain_metrics}
  return State(state.step + 1, energy, generator, chains), metrics


sample = revision.sample
revise = revision.revise
