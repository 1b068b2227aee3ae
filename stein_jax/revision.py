"""Chains of an energy that begin at the samples of a generator [X21]."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from stein_jax import checks
from stein_jax import collectives
from stein_jax import dtypes
from stein_jax import energies
from stein_jax import generators
from stein_jax.types import Array, Metrics, PRNGKey


def moved(
  start: Array, revised: Array, *, axis_name: str | None = None
) -> Metrics:
  """Returns how far a chain took the samples of a generator, and their spread.

  Of [n, ...] the mean distance from start to end, which falls as the generator
  learns what the chain does, and the total variance of the ends.

  Raises:
    ValueError: the two have different shapes.
  """
  checks.same_shape(start=np.shape(start), revised=np.shape(revised))
  start, revised = map(dtypes.at_least_float32, (start, revised))
  rows = lambda x: x.reshape(len(x), -1)
  mean = collectives.pmean(jnp.mean(revised, 0, keepdims=True), axis_name)
  metrics = {
    'samples/revision': jnp.mean(
      jnp.linalg.norm(rows(revised - start), axis=1)
    ),
    'samples/variance': jnp.mean(jnp.sum(rows(revised - mean) ** 2, 1)),
  }
  return collectives.pmean(metrics, axis_name)


def revise(
  state,
  rng: PRNGKey,
  x: Array,
  *,
  condition: Array | None = None,
  num_steps: int = 15,
  step_size: float = 0.002,
  noise: bool = True,
  temperature: float = 1.0,
  clip: Sequence[float] = (),
) -> Array:
  """Returns x [n, ...] after Langevin steps on `state.energy`; see `energies.chain`.

  Raises:
    ValueError: the condition is not as long as x.
  """
  checks.num_rows(len(x), condition=condition)
  return energies.chain(
    state.energy,
    rng,
    x,
    *(() if condition is None else (condition,)),
    num_steps=num_steps,
    step_size=step_size,
    noise=noise,
    temperature=temperature,
    clip=clip,
    block_size=state.generator.batch_size,
  )


def sample(
  state,
  rng: PRNGKey,
  num: int,
  *,
  condition: Array | None = None,
  num_steps: int = 15,
  step_size: float = 0.002,
  noise: bool = True,
  temperature: float = 1.0,
  clip: Sequence[float] = (),
) -> Array:
  """Returns samples [num, ...] of `state.generator`, revised [X21 panel 4].

  The `sample` of algorithms whose chains start at a generator; `num_steps=0` leaves
  the samples as they are. Of an energy that mixes its batch whole batches of the
  training size are revised; see `energies.whole`. Further arguments are those of
  `energies.chain`.
  """
  draw_rng, chain_rng = jax.random.split(rng)
  if num_steps == 0:
    return generators.sample(
      state.generator, draw_rng, num, condition=condition
    )
  rows, given = energies.whole(state.energy, num, condition)
  condition = given[0] if given else None
  return revise(
    state,
    chain_rng,
    generators.sample(state.generator, draw_rng, rows, condition=condition),
    condition=condition,
    num_steps=num_steps,
    step_size=step_size,
    noise=noise,
    temperature=temperature,
    clip=clip,
  )[:num]
