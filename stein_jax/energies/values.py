"""What an energy says: its values, its score, a batch beside another."""

import functools

import jax
import jax.numpy as jnp

from stein_jax import checks
from stein_jax import dtypes
from stein_jax import learners
from stein_jax.learners import Learner
from stein_jax.types import Array, Batch, Params, PRNGKey


def conditions(batch: Batch) -> tuple[Array, ...]:
  """Returns what a batch conditions its images on: () or (condition,)."""
  return (batch['condition'],) if 'condition' in batch else ()


def value(
  energy: Learner,
  params: Params,
  x: Array,
  *condition: Array,
  axis_name: str | None = None,
  rng: PRNGKey | None = None,
) -> Array:
  """Returns E(x) [n] at the given parameters.

  Of an energy that mixes its batch a number depends on all of x, over all devices.

  Args:
    energy: the learner.
    params: at which it is taken.
    x: [n, ...].
    *condition: what else the energy takes, [n, ...] each.
    axis_name: the mapped axis over which the batch is split.
    rng: key of the energy's dropout.

  Raises:
    ValueError: the energy has another shape.
  """
  x = dtypes.at_least_float32(x)
  values = learners.call(
    energy, params, x, *condition, axis_name=axis_name, rng=rng
  )
  if not hasattr(values, 'shape'):
    raise ValueError(
      f'The energy is a {type(values).__name__}; wanted: an array ({len(x)},), one '
      f'number for each of {len(x)} examples.'
    )
  checks.per_example(len(x), **{'The energy': values})
  return values


def score(
  energy: Learner,
  x: Array,
  *condition: Array,
  normalized_with: Array | None = None,
  axis_name: str | None = None,
  rng: PRNGKey | None = None,
) -> Array:
  """Returns grad_x log p = -grad_x E at x, like x.

  Of an energy that mixes its batch it is the gradient of minus the sum over the batch:
  with what each example does to the energies of the others.

  Args:
    energy: the learner.
    x: [n, ...].
    *condition: what else the energy takes, [n, ...] each.
    normalized_with: further examples [n, ...] of the same conditions, which an energy
      that mixes its batch normalises together with x.
    axis_name: the mapped axis over which the batch is split.
    rng: key of the energy's dropout.
  """

  def total(x):
    context = dict(axis_name=axis_name, rng=rng)
    if normalized_with is None:
      return -jnp.sum(value(energy, energy.params, x, *condition, **context))
    values = pair(
      energy, energy.params, normalized_with, x, *condition, **context
    )
    return -jnp.sum(values[1])

  x = dtypes.floating(x)
  return jax.grad(total)(dtypes.at_least_float32(x)).astype(x.dtype)


def pair(
  energy: Learner,
  params: Params,
  data: Array,
  samples: Array,
  *condition: Array,
  joint: bool = True,
  axis_name: str | None = None,
  rng: PRNGKey | None = None,
  method: str | None = None,
) -> tuple[Array, Array]:
  """Returns E, or a method's values, of data [n, ...] and of samples [n, ...].

  Args:
    energy: the learner.
    params: at which it is taken.
    data: one half of the batch.
    samples: the other.
    *condition: what else the energy takes, the same for both halves.
    joint: one batch of both, so that an energy that normalises by the batch cannot
      tell them apart by their statistics; otherwise each is a batch of its own, of
      one function: the key drops the same from both.
    axis_name: the mapped axis over which both are split.
    rng: key of the energy's dropout.
    method: of the energy; the energy itself without.
  """
  context = dict(axis_name=axis_name, rng=rng)
  if method is None:
    evaluate = functools.partial(value, energy, params, **context)
  else:
    evaluate = functools.partial(
      learners.call, energy, params, method=method, **context
    )
  # What neither mixes nor drops is the same function of each example either way.
  if not joint and (learners.mixes(energy) or rng is not None):
    return evaluate(data, *condition), evaluate(samples, *condition)
  twice = [jnp.concatenate([c, c]) for c in condition]
  values = evaluate(jnp.concatenate(dtypes.promoted(data, samples)), *twice)
  return values[: len(data)], values[len(data) :]
