"""VGAN: a GAN that trains an energy of experts variationally [Z16]."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from stein_jax import build
from stein_jax import checks
from stein_jax import collectives
from stein_jax import energies
from stein_jax import generators
from stein_jax import learners
from stein_jax.types import Array, Batch, Metrics, PRNGKey


class State(NamedTuple):
  step: Array
  energy: learners.Learner
  generator: learners.Learner


def init(rng: PRNGKey, config, batch: Batch) -> State:
  """Returns the first state."""
  energy, generator = generators.create_pair(
    rng,
    build.build(energies, **config.energy),
    config.energy_optimizer,
    build.build(generators, **config.generator),
    config.generator_optimizer,
    batch['image'],
  )
  return State(jnp.zeros((), jnp.int32), energy, generator)


def step(
  state: State,
  batch: Batch,
  rng: PRNGKey,
  *,
  num_generator_steps: int = 1,
  generator_entropy: float = 1.0,
  data_entropy: float = 1.0,
  axis_name: str | None = None,
) -> tuple[State, Metrics]:
  """Returns the state after one step of VGAN [Z16 alg 1].

  The generator descends mean E(samples) - H(samples), where H is the entropy of the
  experts' mean bits, in place of that of the samples. Then the energy descends
  mean E(data) - mean E(samples) - H(data), on samples of the new generator.

  Args:
    state: the networks.
    batch: 'image' [n, ...].
    rng: key of the step.
    num_generator_steps: k, each with noise of its own.
    generator_entropy: weight of H(samples).
    data_entropy: weight of H(data). If both weights are 0 the energy needs no experts;
      an unbounded energy then grows without limit.
    axis_name: the mapped axis over which the batch is split.

  Raises:
    ValueError: an argument is out of its range.
  """
  checks.count(
    maximum=learners.MAX_REPEATED, num_generator_steps=num_generator_steps
  )
  checks.non_negative(
    generator_entropy=generator_entropy, data_entropy=data_entropy
  )
  context = dict(
    axis_name=axis_name,
    rng=learners.dropout_key(state.energy, rng, axis_name=axis_name),
  )
  rng = collectives.fold_in_index(rng, axis_name)
  data = batch['image']
  draw = generators.drawer(state.generator, batch, axis_name=axis_name)

  def generator_loss(params, rng):
    value, mean, entropy = energies.free_energy(
      state.energy,
      state.energy.params,
      draw(params, rng),
      entropy=generator_entropy,
      **context,
    )
    return value, {'generator/energy': mean, 'generator/entropy': entropy}

  # The generator moves to low energies, and keeps the experts' entropy [alg 1].
  # k steps come first, since with a loose generator the energy's bound means
  # nothing.
  *keys, last_rng = jax.random.split(rng, num_generator_steps + 1)
  generator, generator_metrics = learners.repeated(
    lambda generator, draw_rng: learners.descend(
      generator,
      functools.partial(generator_loss, rng=draw_rng),
      axis_name=axis_name,
    ),
    state.generator,
    keys,
  )

  # The energy learns to tell data from new samples [alg 1, eq 5].
  samples = draw(generator.params, last_rng)
  energy, energy_metrics = learners.descend(
    state.energy,
    energies.variational_contrast(
      state.energy, data, samples, entropy=data_entropy, **context
    ),
    axis_name=axis_name,
  )
  metrics = {**generator_metrics, **energy_metrics}
  return State(state.step + 1, energy, generator), metrics


def sample(
  state: State, rng: PRNGKey, num: int, *, condition: Array | None = None
) -> Array:
  """Returns samples [num, ...] of the generator."""
  return generators.sample(state.generator, rng, num, label=condition)
