"""Pseudo-likelihood and ratio matching, for energies of binary units [B75] [H07]."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from stein_jax import build
from stein_jax import checks
from stein_jax import collectives
from stein_jax import dtypes
from stein_jax import energies
from stein_jax import learners
from stein_jax.types import Array, Batch, Metrics, Params, PRNGKey

_OBJECTIVES = ('pseudo_likelihood', 'ratio_matching')
_SLACK = 1e-6  # of a value, by which a scaled byte may miss it
_ENTRIES = 2**20  # of the points that are evaluated at a time


class State(NamedTuple):
  step: Array
  energy: learners.Learner


def init(rng: PRNGKey, config, batch: Batch) -> State:
  """Returns the first state.

  Raises:
    ValueError: a unit of the batch has neither value, as gray pixels have.
  """
  states = getattr(getattr(config, 'step', None), 'states', (0.0, 1.0))
  check_binary(batch['image'], states)
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
  objective: str = 'pseudo_likelihood',
  num_units: int = 0,
  states: Sequence[float] = (0.0, 1.0),
  axis_name: str | None = None,
) -> tuple[State, Metrics]:
  """Returns the state after one step of an objective of single units, and its metrics.

  Args:
    state: the energy.
    batch: 'image' [n, ...], each number of which is one of the two states.
    rng: key of the units that are chosen.
    objective: 'pseudo_likelihood' or 'ratio_matching', for
      `pseudo_likelihood_objective` and `ratio_matching_objective`.
    num_units: number of units of each example that are taken, chosen anew at each step,
      for an unbiased estimate; 0 for the sum over all.
    states: the two numbers that a unit can be, the lower one first.
    axis_name: the mapped axis over which the batch is split.

  Raises:
    ValueError: an argument is out of its range, the energy mixes its batch, or a unit
      whose value is known has neither.
  """
  checks.choice(_OBJECTIVES, objective=objective)
  checks.count(minimum=0, num_units=num_units)
  rng = collectives.fold_in_index(rng, axis_name)
  of = (
    pseudo_likelihood_objective
    if objective == 'pseudo_likelihood'
    else ratio_matching_objective
  )
  loss_fn = of(
    state.energy, batch['image'], rng, num_units=num_units, states=states
  )

  def with_metrics(params):
    loss = loss_fn(params)
    return loss, {'energy/loss': loss}

  energy, metrics = learners.descend(
    state.energy, with_metrics, axis_name=axis_name
  )
  return State(state.step + 1, energy), metrics


def pseudo_likelihood_objective(
  energy: learners.Learner,
  x: Array,
  rng: PRNGKey | None = None,
  *,
  num_units: int = 0,
  states: Sequence[float] = (0.0, 1.0),
) -> Callable[[Params], Array]:
  """Returns the loss -mean sum_i log p(x_i | the others), of parameters [B75].

  Each term is log(1 + exp(gap)), with gap the energy of x less that of x whose unit i
  has the other value. The truth is the optimum, and log Z is in no term.

  Args:
    energy: the learner, of an energy that does not mix its batch.
    x: data [n, ...] of two states.
    rng: key of the units that are chosen; None for all.
    num_units: number of units of each example that are taken; 0 for all.
    states: the two numbers that a unit can be, the lower one first.
  """
  return _mean_of(jax.nn.softplus, energy, x, rng, num_units, states)


def ratio_matching_objective(
  energy: learners.Learner,
  x: Array,
  rng: PRNGKey | None = None,
  *,
  num_units: int = 0,
  states: Sequence[float] = (0.0, 1.0),
) -> Callable[[Params], Array]:
  """Returns the loss mean sum_i (1 - p(x_i | the others))^2, of parameters [H07].

  No term is above 1, so that a few odd examples do not decide. The arguments are those
  of `pseudo_likelihood_objective`.
  """
  square = lambda gap: jax.nn.sigmoid(gap) ** 2
  return _mean_of(square, energy, x, rng, num_units, states)


def unit_gaps(
  energy: learners.Learner,
  params: Params,
  x: Array,
  index: Array | None = None,
  *,
  states: Sequence[float] = (0.0, 1.0),
) -> Array:
  """Returns E(x) less E of x with one unit at its other value [k, n], nan for gray x.

  An energy with a method `change_gaps`, as `BinaryRBM` has it, is asked for them. Of
  another one each costs an evaluation, and memory is bounded.

  Args:
    energy: the learner, of an energy that does not mix its batch.
    params: parameters of the energy.
    x: [n, ...] of two states.
    index: which units, [k, n], or [k, 1] for the same ones of all x; None for all.
    states: the two numbers that a unit can be, the lower one first.
  """
  energies.check_density(energy)
  check_binary(x, states)
  x = dtypes.at_least_float32(x)
  flat = x.reshape(len(x), -1)
  # What is gray is nan where it is traced, and its gradient too.
  known = jnp.where(jnp.all(_is_binary(flat, states), 1), 1.0, jnp.nan)
  if index is None:
    index = jnp.arange(flat.shape[1])[:, None]
  rows = jnp.arange(len(x))[None]
  change = sum(states) - 2 * flat[rows, index]
  module = getattr(energy, 'module', None)
  if module is not None and learners.has_method(energy, 'change_gaps'):
    gaps = learners.call(energy, params, x, index, change, method='change_gaps')
  else:
    own = energies.value(energy, params, x)

    # For the gradient a change is made anew, or all would be held at once.
    @jax.checkpoint
    def gap(index, change):
      moved = flat.at[rows[0], index].add(change)
      return own - energies.value(energy, params, moved.reshape(x.shape))

    size = max(1, _ENTRIES // flat.size)
    gaps = lax.map(
      lambda each: gap(*each), (index, change), batch_size=min(size, len(index))
    )
  return gaps * known[None].astype(gaps.dtype)


def check_binary(x: Array, states: Sequence[float] = (0.0, 1.0)) -> None:
  """Raises ValueError if a unit has neither value. Traced ones and nan pass."""
  if not isinstance(states, (tuple, list)) or len(states) != 2:
    raise ValueError(
      f'states={checks.shown(states)} must be two numbers, the lower one first.'
    )
  low, high = states
  checks.finite(**{'states[0]': low, 'states[1]': high})
  if not low < high:
    raise ValueError(
      f'states={checks.shown(states)} must be two numbers, the lower one first.'
    )
  if isinstance(x, jax.core.Tracer):
    return
  known = dtypes.on_host(x)
  gray = known[~_is_binary(known, states) & ~np.isnan(known)]
  if gray.size:
    raise ValueError(
      f'x has a unit that is {gray[0]:g}; allowed: {low:g} and {high:g} alone, as '
      'data.binarize=True makes of gray pixels.'
    )


# Neither objective draws samples, so these are the ends of a separate chain.
sample = energies.sample_state


def _is_binary(x, states):
  """Returns which numbers are one of the two states."""
  low, high = states
  slack = _SLACK * (high - low)
  return (abs(x - low) <= slack) | (abs(x - high) <= slack)


def _mean_of(function, energy, x, rng, num_units, states):
  """Returns the mean over x of the sum over units of a function of their gaps."""
  checks.count(minimum=0, num_units=num_units)
  num, dim = len(x), int(np.prod(np.shape(x)[1:]))
  index = None
  if num_units:
    checks.key(rng=rng)
    # A row for each example, as devices have them.
    index = jax.random.randint(rng, (num, num_units), 0, dim).T

  def loss_fn(params):
    gaps = unit_gaps(energy, params, x, index, states=states)
    return dim * jnp.mean(function(gaps))

  return loss_fn
