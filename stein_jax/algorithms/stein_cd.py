"""Stein contrastive divergence: CD whose chain is a step of SVGD [LW17]."""

from typing import NamedTuple

import jax.numpy as jnp

from stein_jax import build
from stein_jax import checks
from stein_jax import collectives
from stein_jax import energies
from stein_jax import kernels
from stein_jax import learners
from stein_jax import stein
from stein_jax.types import Array, Batch, Metrics, PRNGKey


class State(NamedTuple):
  step: Array
  energy: learners.Learner


def init(rng: PRNGKey, config, batch: Batch) -> State:
  """Returns the first state; conditional where `config.step` says so."""
  conditional = config.get('step', {}).get('conditional', False)
  energy = learners.create(
    rng,
    build.build(energies, **config.energy),
    config.optimizer,
    batch['image'],
    *([batch['label']] if conditional else []),
  )
  return State(jnp.zeros((), jnp.int32), energy)


def step(
  state: State,
  batch: Batch,
  rng: PRNGKey,
  *,
  epsilon: float = 0.1,
  num_steps: int = 1,
  symmetric: bool = False,
  normalize: str = 'count',
  kernel: str = 'rbf',
  bandwidth_scale: float = 1.0,
  bandwidth_log: str = 'n+1',
  conditional: bool = False,
  axis_name: str | None = None,
) -> tuple[State, Metrics]:
  """Returns the state after one SteinCD update [LW17 alg 1] and its metrics.

  Descends mean E(x) - mean E(x + epsilon phi(x)), phi held fixed [LW17 eq 13]. To an
  energy that mixes its batch data and samples are a batch each.

  Args:
    state: the energy.
    batch: 'image' [n, ...], and 'label' [n] if conditional; the minibatch is its own
      set of particles.
    rng: key of the energy's dropout; all else is deterministic.
    epsilon: size of a step along the direction.
    num_steps: SVGD steps that make the negatives.
    symmetric: contrast x + eps phi with x - eps phi, halved, in place of x
      [LW17 eq 17].
    normalize: of the direction: 'count' as printed, 'row_sum' or 'unit_ball'; see
      `stein.svgd_direction`.
    kernel: a name in `kernels.PROFILES`, at its median bandwidth.
    bandwidth_scale: factor on the median bandwidth.
    bandwidth_log: of the median rule: its divisor, see `kernels.median_bandwidth`.
    conditional: the energy is E(x, y) [LW17 eq 25]; images move, under their labels.
    axis_name: the mapped axis over which the batch is split.
  """
  checks.positive(epsilon=epsilon, bandwidth_scale=bandwidth_scale)
  checks.choice(('n+1', 'n', 'none'), bandwidth_log=bandwidth_log)
  checks.count(num_steps=num_steps)
  data = batch['image']
  label = (batch['label'],) if conditional else ()
  context = dict(
    axis_name=axis_name,
    rng=learners.dropout_key(state.energy, rng, axis_name=axis_name),
  )

  def move(x, epsilon):
    for _ in range(num_steps):
      flat = x.reshape(len(x), -1)
      direction = stein.svgd_direction(
        flat,
        energies.score(state.energy, x, *label, **context).reshape(flat.shape),
        kernels.at_median(
          kernel,
          flat,
          scale=bandwidth_scale,
          log=bandwidth_log,
          axis_name=axis_name,
        ),
        normalize=normalize,
        axis_name=axis_name,
      )
      x = x + epsilon * direction.reshape(x.shape)
    return x

  samples = move(data, epsilon)
  positives = move(data, -epsilon) if symmetric else data
  contrast = energies.contrast(
    state.energy, positives, samples, *label, joint=False, **context
  )

  def energy_loss(params):
    loss, metrics = contrast(params)
    return (0.5 if symmetric else 1.0) * loss, metrics

  energy, metrics = learners.descend(
    state.energy, energy_loss, axis_name=axis_name
  )
  moved = jnp.sum((samples - data).reshape(len(data), -1) ** 2, 1)
  metrics['samples/move'] = jnp.sqrt(
    collectives.pmean(jnp.mean(moved), axis_name)
  )
  return State(state.step + 1, energy), metrics


sample = energies.sample_state  # a chain of the energy
