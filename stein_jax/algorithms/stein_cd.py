"""Stein contrastive divergence: CD whose chain is a step of SVGD [LW17]."""

from collections.abc import Callable
from typing import NamedTuple

from jax import lax
import jax.numpy as jnp

from stein_jax import build
from stein_jax import checks
from stein_jax import dtypes
from stein_jax import energies
from stein_jax import learners
from stein_jax import stein
from stein_jax.types import Array, Batch, Metrics, PRNGKey


class State(NamedTuple):
  step: Array
  energy: learners.Learner


def init(rng: PRNGKey, config, batch: Batch) -> State:
  """Returns the first state, conditional where the batch has a condition."""
  energy = learners.create(
    rng,
    build.build(energies, **config.energy),
    config.optimizer,
    batch['image'],
    *energies.conditions(batch),
  )
  return State(jnp.zeros((), jnp.int32), energy)


def step(
  state: State,
  batch: Batch,
  rng: PRNGKey,
  *,
  direction: Callable[..., Array] = stein.SVGD(),
  epsilon: float = 0.1,
  num_steps: int = 1,
  symmetric: bool = False,
  axis_name: str | None = None,
) -> tuple[State, Metrics]:
  """Returns the state after one SteinCD update [LW17 alg 1] and its metrics.

  The energy descends mean E(x) - mean E(x + epsilon phi(x)), with phi held fixed
  [LW17 eq 13]. An energy that mixes its batch sees data and samples as a batch each.

  Args:
    state: the energy.
    batch: 'image' [n, ...], which are the particles, and 'condition' [n, ...] if the
      energy is E(x, y) [LW17 eq 25]; images then move under their labels.
    rng: key of the energy's dropout, and of a direction that asks for one.
    direction: rule of points and scores to phi; see `energies.direction`. Its number of
      steps is that of the updates. With the default the truth is not a fixed point; it
      is with `stein.SVGD(diagonal=False)`.
    epsilon: size of a step along phi.
    num_steps: number of SVGD steps that make the negatives.
    symmetric: whether x - epsilon phi takes the place of x in the contrast, which is
      then halved [LW17 eq 17].
    axis_name: the mapped axis over which the batch is split.

  Raises:
    ValueError: an argument is out of its range.
  """
  checks.positive(epsilon=epsilon)
  checks.count(num_steps=num_steps)
  data, condition = batch['image'], energies.conditions(batch)
  context = dict(
    axis_name=axis_name,
    rng=learners.dropout_key(state.energy, rng, axis_name=axis_name),
  )

  # Where the data are both particles and positives, one pass of the energy gives
  # their score and its part of the contrast.
  is_short = num_steps <= learners.UNROLLED and not symmetric
  score, positives = None, data
  if is_short and energies.has_one_pass(state.energy):
    score, positives = energies.score_and_mean(
      state.energy, data, *condition, rng=context['rng']
    )

  # The data move along phi [alg 1, the negative phase].
  def move(x, epsilon):
    def along(i, x):
      phi = energies.direction(
        state.energy,
        direction,
        x,
        *condition,
        score=score if x is data else None,
        noise_rng=stein.own_key(direction, rng, i),
        step=state.step,
        **context,
      )
      return x + epsilon * phi

    # Python's loop for a few: a loop of XLA slows convolutions down on a CPU.
    if num_steps > learners.UNROLLED:
      return lax.fori_loop(0, num_steps, along, dtypes.at_least_float32(x))
    for i in range(num_steps):
      x = along(i, x)
    return x

  samples = move(data, epsilon)
  if symmetric:
    positives = move(data, -epsilon)

  # The energy descends the contrast with them [alg 1, the update]. phi took
  # each batch by itself, and so does the contrast (joint=False).
  contrast = energies.contrast(
    state.energy, positives, samples, *condition, joint=False, **context
  )

  def energy_loss(params):
    loss, metrics = contrast(params)
    # The central difference spans 2 epsilon. The paper leaves the 1/2 out.
    return (0.5 if symmetric else 1.0) * loss, metrics

  energy, metrics = learners.descend(
    state.energy, energy_loss, axis_name=axis_name
  )
  metrics['samples/move'] = energies.distance_moved(
    data, samples, axis_name=axis_name
  )
  return State(state.step + 1, energy), metrics


# A few SVGD steps from the data do not sample the model, so this is a chain.
sample = energies.sample_state
