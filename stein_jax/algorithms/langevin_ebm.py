"""Langevin EBM: an energy network learns from its own Langevin chains [X21] [DM19]."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from stein_jax import build
from stein_jax import checks
from stein_jax import collectives
from stein_jax import energies
from stein_jax import learners
from stein_jax import samplers
from stein_jax import stein
from stein_jax.types import Array, Batch, Metrics, PRNGKey

SPLIT = ('chains',)
FIELDS = dict(num_chains=0)


class State(NamedTuple):
  step: Array
  energy: learners.Learner
  chains: Array | None  # [m, ...] if chains go on from step to step, else None


def init(rng: PRNGKey, config, batch: Batch) -> State:
  """Returns the first state.

  `config.num_chains` is 0 for chains from noise at every step, the size of the
  batch for persistent ones, more for a replay buffer.

  Raises:
    ValueError: there are fewer chains than images in the batch, or chains are to
      persist under conditions.
  """
  energy_rng, chain_rng = jax.random.split(rng)
  data = batch['image']
  energies.check_num_chains(config.num_chains, batch)
  energy = learners.create(
    energy_rng,
    build.build(energies, **config.energy),
    config.optimizer,
    data,
    *energies.conditions(batch),
  )
  chains = None
  if config.num_chains:
    # Chains begin at the noise at which a step restarts them.
    chains = _noise(
      chain_rng, (config.num_chains, *data.shape[1:]), config.step.start_scale
    )
  return State(jnp.zeros((), jnp.int32), energy, chains)


def step(
  state: State,
  batch: Batch,
  rng: PRNGKey,
  *,
  chain: samplers.Chain = samplers.Langevin(0.01, 60),
  ksd: stein.KSD = stein.KSD(max_points=0),
  minus_kl: float = 0.0,
  plus_kl: float = 0.0,
  start_scale: float = 1.0,
  restart: float = 0.05,
  energy_l2: float = 0.0,
  label_weight: float = 0.0,
  axis_name: str | None = None,
) -> tuple[State, Metrics]:
  """Returns the state after one step of maximum likelihood by chains [X21 panel 3].

  Chains start at noise. If the state has chains, as many of these as the batch has
  images go on instead. Some of them start afresh, and all are put back where they end
  [DM19].

  Args:
    state: the energy, and the chains that persist.
    batch: 'image' [n, ...], and 'condition' [n, ...] if conditional.
    rng: key of the step.
    chain: the chain that samples the energy, a value of `samplers`.
    start_scale: half the width of the noise, start_scale U(-1, 1).
    restart: chance that a persistent chain starts at noise again.
    energy_l2: weight of the mean squared energies; see `energies.contrast`.
    label_weight: weight of the cross entropy of the batch's 'label' [n] by the energy's
      own `logits`. It is 1 in JEM, whose energy is `energies.MarginalLabel` [G20].
    ksd: what is logged as 'chain/ksd', of the ends of the chains: with a `max_points`
      above 0 their squared discrepancy to the energy that they ran under.
    minus_kl: weight of minus the divergence of the ends of the chains, through their
      last step, of Langevin chains; see `energies.run_with_divergence`.
    plus_kl: weight of it with the sign of the authors' code [DLTM21], by which the
      energy learns something else than the density of the data.
    axis_name: the mapped axis over which the batch, and the chains, are split.

  Raises:
    ValueError: an argument is out of its range, or the chain takes no step.
  """
  checks.moves(chain=chain)
  checks.positive(start_scale=start_scale)
  dropout_rng = learners.dropout_key(state.energy, rng, axis_name=axis_name)
  rng = collectives.fold_in_index(rng, axis_name)
  start_rng, choice_rng, restart_rng, chain_rng = jax.random.split(rng, 4)
  data, condition = batch['image'], energies.conditions(batch)
  context = dict(axis_name=axis_name, dropout_rng=dropout_rng)

  # Starts are noise, or rows of the buffer with noise in the place of a few
  # [DM19].
  noise = _noise(start_rng, data.shape, start_scale)
  start, keep = energies.continued(
    choice_rng, restart_rng, state.chains, noise, restart=restart
  )

  # A short run of the energy's dynamics stands for its samples.
  samples, chain_metrics, terms = energies.run_with_divergence(
    state.energy,
    chain,
    chain_rng,
    start,
    *condition,
    minus_kl=minus_kl,
    plus_kl=plus_kl,
    ksd=ksd,
    **context,
  )

  # The energy falls at the data and rises at the samples. One that classifies learns
  # the labels of the data beside it.
  if not checks.is_zero(label_weight):
    terms = (*terms, _of_labels(state.energy, batch, label_weight, **context))
  energy, metrics = energies.ascend_likelihood(
    state.energy,
    data,
    samples,
    *condition,
    energy_l2=energy_l2,
    terms=terms,
    **context,
  )

  # The buffer keeps where the chains ended.
  metrics = {**metrics, **chain_metrics}
  return State(state.step + 1, energy, keep(samples)), metrics


def sample(
  state: State,
  rng: PRNGKey,
  num: int,
  *,
  condition: Array | None = None,
  chain: samplers.Chain = samplers.Langevin(0.01, 60),
  start_scale: float = 1.0,
) -> Array:
  """Returns the ends [num, ...] of chains from noise; see `step`.

  If the state has chains, num of these go on instead, none twice unless they are fewer.
  An energy that mixes its batch runs whole batches of the training size.
  """
  checks.key(rng=rng)
  checks.positive(start_scale=start_scale)
  start_rng, chain_rng = jax.random.split(rng)
  rows, given = energies.in_whole_batches(state.energy, num, condition)
  if state.chains is None:
    start = _noise(start_rng, (rows, *state.energy.input_shape), start_scale)
  else:
    repeated = rows > len(state.chains)
    start = jax.random.choice(start_rng, state.chains, (rows,), repeated)
  # An energy that mixes its batch has learned from blocks of this size, which
  # also bound the memory that many samples take at a time.
  moved, _ = energies.run_chain(
    state.energy,
    chain,
    chain_rng,
    start,
    *given,
    block_size=state.energy.batch_size,
  )
  return moved[:num]


def _of_labels(energy, batch, weight, *, axis_name, dropout_rng):
  if 'label' not in batch:
    raise ValueError(
      f'label_weight={weight} needs data with labels; allowed: 0.'
    )
  return energies.cross_entropy(
    energy,
    batch['image'],
    batch['label'],
    weight=weight,
    axis_name=axis_name,
    rng=dropout_rng,
  )


def _noise(rng, shape, scale):
  return scale * jax.random.uniform(rng, shape, minval=-1.0)
