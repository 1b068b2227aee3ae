"""Learning with a generator that proposes and a chain of an energy that revises [X21].

`algorithms.coopnets` and `algorithms.vae_teaching` share what is here: their state, the
proposals and revisions of a step, and samples, which are revised too.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stein_jax import build
from stein_jax import checks
from stein_jax import collectives
from stein_jax import dtypes
from stein_jax import energies
from stein_jax import generators
from stein_jax import learners
from stein_jax import samplers
from stein_jax.types import Array, Batch, Metrics, Params, PRNGKey


class State(NamedTuple):
  step: Array
  energy: learners.Learner
  generator: learners.Learner
  chains: Array | None = None  # [m, ...] if they go on from step to step


def init(rng: PRNGKey, config, batch: Batch) -> State:
  """Returns the first state, conditional if the batch has a condition."""
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


def first_chains(
  rng: PRNGKey, generator: learners.Learner, num_chains: int, batch: Batch
) -> Array | None:
  """Returns samples [num_chains, ...], where chains that persist begin; None for 0.

  Raises:
    ValueError: there cannot be that many; see `energies.check_num_chains`.
  """
  energies.check_num_chains(num_chains, batch)
  if not num_chains:
    return None
  return generators.sample(generator, rng, num_chains)


def propose_and_revise(
  state: State,
  latent_rng: PRNGKey,
  chain_rng: PRNGKey,
  data: Array,
  *condition: Array,
  chain: samplers.Chain,
  restart: float = 1.0,
  axis_name: str | None = None,
  dropout_rng: PRNGKey | None = None,
) -> tuple[Callable[[Params], Array], Array, Array | None, Metrics]:
  """Returns a function that proposes, revised images [n, ...], chains and metrics.

  The function takes the generator's parameters and has fixed latents, so that its loss
  is at the latents that were proposed from. What is revised are the proposals or, if
  the state has chains, rows of these with proposals in the place of some; the chains
  [m, ...] that are returned keep the ends. The metrics are those of the chain and of
  `moved`.

  Args:
    state: a state with learners `energy` and `generator`, and with `chains`.
    latent_rng: key of the latents.
    chain_rng: key of the chain.
    data: images [n, ...], whose shape the samples must have.
    *condition: what both networks are conditioned on [n, ...].
    chain: the chain that revises; see `energies.run_chain`.
    restart: chance that a chain begins at a proposal; see `energies.continued`.
    axis_name: the mapped axis over which the batch is split.
    dropout_rng: key of the energy's dropout.

  Raises:
    ValueError: the samples have another shape than the data.
  """
  z = generators.latent(state.generator, latent_rng, len(data))

  def propose(params):
    samples = generators.decode_batch(
      state.generator, params, z, *condition, axis_name=axis_name
    )
    # Otherwise a loss of samples and data might broadcast.
    checks.shape(data.shape, samples=samples)
    return samples

  start = propose(state.generator.params)
  chain_rng, *rngs = (
    (chain_rng, None, None)
    if state.chains is None
    else jax.random.split(chain_rng, 3)
  )
  start, keep = energies.continued(*rngs, state.chains, start, restart=restart)
  revised, metrics = energies.run_chain(
    state.energy,
    chain,
    chain_rng,
    start,
    *condition,
    axis_name=axis_name,
    dropout_rng=dropout_rng,
  )
  metrics.pop('chain/move')  # that of samples is called 'samples/revision'
  metrics = {**metrics, **moved(start, revised, axis_name=axis_name)}
  return propose, revised, keep(revised), metrics


def moved(
  start: Array, revised: Array, *, axis_name: str | None = None
) -> Metrics:
  """Returns how far a chain took samples, such as a generator's, and their spread.

  'samples/revision' is the mean distance from start to end [n, ...], which falls as
  the generator learns what the chain does; 'samples/variance' is the total variance
  of the ends.

  Raises:
    ValueError: the two have different shapes.
  """
  checks.same_shape(start=np.shape(start), revised=np.shape(revised))
  start, revised = map(dtypes.at_least_float32, (start, revised))
  rows = lambda x: x.reshape(len(x), -1)
  # The variance is about the mean over all devices, not about a share's own.
  mean = collectives.pmean(jnp.mean(revised, 0, keepdims=True), axis_name)
  metrics = {
    'samples/revision': jnp.mean(
      jnp.linalg.norm(rows(revised - start), axis=1)
    ),
    'samples/variance': jnp.mean(jnp.sum(rows(revised - mean) ** 2, 1)),
  }
  return collectives.pmean(metrics, axis_name)


def revise(
  state: State,
  rng: PRNGKey,
  x: Array,
  *,
  condition: Array | None = None,
  chain: samplers.Chain = samplers.Langevin(0.002, 15),
) -> Array:
  """Returns x [n, ...] after a chain of `state.energy`; see `energies.run_chain`.

  Raises:
    ValueError: the condition is not as long as x.
  """
  checks.num_rows(len(x), condition=condition)
  given = () if condition is None else (condition,)
  # An energy that mixes its batch has learned from blocks of this size, which
  # also bound the memory that many samples take at a time.
  revised, _ = energies.run_chain(
    state.energy, chain, rng, x, *given, block_size=state.generator.batch_size
  )
  return revised


def sample(
  state: State,
  rng: PRNGKey,
  num: int,
  *,
  condition: Array | None = None,
  chain: samplers.Chain = samplers.Langevin(0.002, 15),
) -> Array:
  """Returns samples [num, ...] of `state.generator`, revised [X21 panel 4].

  A chain of no steps, Langevin(0.002, 0), leaves them as they are. An energy that
  mixes its batch revises whole batches of the training size; see
  `energies.in_whole_batches`.

  Args:
    state: a state with learners `energy` and `generator`.
    rng: key of the samples and of the chain.
    num: number of samples.
    condition: what both networks are conditioned on [num, ...].
    chain: the chain that revises; see `energies.run_chain`.
  """
  checks.key(rng=rng)
  draw_rng, chain_rng = jax.random.split(rng)
  rows, given = energies.in_whole_batches(state.energy, num, condition)
  condition = given[0] if given else None
  proposed = generators.sample(
    state.generator, draw_rng, rows, condition=condition
  )
  return revise(state, chain_rng, proposed, condition=condition, chain=chain)[
    :num
  ]
