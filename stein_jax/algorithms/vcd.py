"""Variational contrastive divergence: an energy and a transition operator [Z16]."""

import functools
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import optax

from stein_jax import build
from stein_jax import checks
from stein_jax import collectives
from stein_jax import dtypes
from stein_jax import energies
from stein_jax import generators
from stein_jax import learners
from stein_jax.types import Array, Batch, Metrics, PRNGKey


class State(NamedTuple):
  step: Array
  energy: learners.Learner
  generator: learners.Learner  # a transition operator


def init(rng: PRNGKey, config, batch: Batch) -> State:
  """Returns the first state, with learners of half-batches; see `step`."""
  energy_rng, generator_rng, call_rng = jax.random.split(rng, 3)
  # The networks normalise half-batches, which is what they will be given.
  data, start = _halves(batch['image'])
  energy = learners.create(
    energy_rng,
    build.build(energies, **config.energy),
    config.energy_optimizer,
    data,
  )
  # The operator's first input is a key, which shows neither shape nor batch.
  generator = learners.create(
    generator_rng,
    build.build(generators, **config.generator),
    config.generator_optimizer,
    call_rng,
    start,
  ).replace(input_shape=start.shape[1:], batch_size=len(start))
  return State(jnp.zeros((), jnp.int32), energy, generator)


def step(
  state: State,
  batch: Batch,
  rng: PRNGKey,
  *,
  rho: float = 0.01,
  reconstruction: str = 'cross_entropy',
  num_generator_steps: int = 1,
  generator_entropy: float = 1.0,
  data_entropy: float = 1.0,
  axis_name: str | None = None,
) -> tuple[State, Metrics]:
  """Returns the state after one step of variational CD [Z16 alg 2].

  Half of the batch is the energy's data, and transitions start at the other half. The
  operator descends rho (mean E(moved) - H(moved)) + (1 - rho) reconstruction
  [Z16 eq 10]; then the energy descends mean E(data) - mean E(moved) - H(data).

  Args:
    state: the networks.
    batch: 'image' [n, ...], n even.
    rng: key of the step.
    rho: weight in [0, 1]; 0 trains an autoencoder, and 1 has no reconstruction.
    reconstruction: error of the operator without its noise. 'cross_entropy' is a mean
      over pixels, as in the authors' code, and 'squared' a sum over pixels, as printed.
      One rho means different things for the two.
    num_generator_steps: k, each with noise of its own.
    generator_entropy: weight of H(moved), the entropy of the experts' mean bits.
    data_entropy: weight of H(data).
    axis_name: the mapped axis over which the batch is split.

  Raises:
    ValueError: an argument is out of its range, or the batch is odd.
  """
  checks.non_negative(
    rho=rho, generator_entropy=generator_entropy, data_entropy=data_entropy
  )
  checks.at_most(1, rho=rho)
  checks.choice(('cross_entropy', 'squared'), reconstruction=reconstruction)
  checks.count(
    maximum=learners.MAX_REPEATED, num_generator_steps=num_generator_steps
  )
  context = dict(
    axis_name=axis_name,
    rng=learners.dropout_key(state.energy, rng, axis_name=axis_name),
  )
  rng = collectives.fold_in_index(rng, axis_name)
  data, start = _halves(batch['image'])
  operate = functools.partial(
    learners.call, state.generator, axis_name=axis_name
  )
  free_energy = functools.partial(
    energies.free_energy,
    state.energy,
    state.energy.params,
    entropy=generator_entropy,
    **context,
  )
  loss = functools.partial(
    _operator_loss, operate, free_energy, start, rho, reconstruction
  )

  # The operator moves images to low energies and to themselves [alg 2, eq 10].
  *keys, last_rng = jax.random.split(rng, num_generator_steps + 1)
  generator, generator_metrics = learners.repeated(
    lambda generator, move_rng: learners.descend(
      generator, functools.partial(loss, move_rng), axis_name=axis_name
    ),
    state.generator,
    keys,
  )

  # The energy learns to tell data from images moved anew [alg 2, eq 5].
  moved = operate(generator.params, last_rng, start)
  energy, energy_metrics = learners.descend(
    state.energy,
    energies.variational_contrast(
      state.energy, data, moved, entropy=data_entropy, **context
    ),
    axis_name=axis_name,
  )
  metrics = {**generator_metrics, **energy_metrics}
  return State(state.step + 1, energy, generator), metrics


def _operator_loss(
  operate, free_energy, start, rho, reconstruction, rng, params
):
  """Returns rho (E - H) + (1 - rho) reconstruction [] and its parts."""
  moved = operate(params, rng, start)
  # A cross entropy of logits is finite where that of saturated pixels is not.
  logits = operate(params, start, method='reconstruction_logits')
  checks.shape(start.shape, moved=moved, reconstruction_logits=logits)
  value, mean, entropy = free_energy(moved)
  if reconstruction == 'cross_entropy':
    error = jnp.mean(optax.sigmoid_binary_cross_entropy(logits, start))
  else:
    error = jnp.sum((jax.nn.sigmoid(logits) - start) ** 2) / len(start)
  # One rho weighs both terms [eq 10].
  return rho * value + (1 - rho) * error, {
    'generator/energy': mean,
    'generator/entropy': entropy,
    'generator/reconstruction': error,
  }


def transitions(
  generator: learners.Learner, rng: PRNGKey, x: Array, *, num_steps: int
) -> Array:
  """Returns x and the images it moves to, [num_steps + 1, n, ...], in x's dtype.

  The operator normalises x [n, ...] as one batch, which should be about as large as
  those it trained on.
  """
  checks.key(rng=rng)
  checks.count(num_steps=num_steps)
  x = dtypes.floating(x)

  def move(x, rng):
    following = learners.call(generator, generator.params, rng, x)
    following = following.astype(x.dtype)  # a scan carries one dtype
    return following, following

  path = lax.scan(move, x, jax.random.split(rng, num_steps))[1]
  return jnp.concatenate([x[None], path])


def sample(
  state: State,
  rng: PRNGKey,
  num: int,
  *,
  condition: Array | None = None,
  num_steps: int = 9,
) -> Array:
  """Returns the ends [num, ...] of chains of the operator.

  They start at the images `condition` [num, ...], which are one batch. Without these
  they start at images decoded from drawn codes, in batches of the training size.
  """
  checks.key(rng=rng)
  if condition is not None:
    return transitions(state.generator, rng, condition, num_steps=num_steps)[-1]
  # The operator normalises its batch: in whole ones no sample depends on num.
  size = state.generator.batch_size

  def draw(rng):
    latent_rng, chain_rng = jax.random.split(rng)
    z = generators.latent(state.generator, latent_rng, size)
    start = learners.call(
      state.generator, state.generator.params, z, method='decode'
    )
    return transitions(state.generator, chain_rng, start, num_steps=num_steps)[
      -1
    ]

  ends = lax.map(draw, jax.random.split(rng, -(-num // size)))
  return ends.reshape(-1, *ends.shape[2:])[:num]


def _halves(x):
  """Returns the two halves of a batch, or refuses an odd one."""
  if len(x) % 2:
    raise ValueError(
      f'The batch has {len(x)} images; allowed: an even number, since each half has a '
      'part of its own.'
    )
  return x[: len(x) // 2], x[len(x) // 2 :]
