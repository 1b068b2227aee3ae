"""What is done with an energy: its score, its contrast, its chains."""

from collections.abc import Callable, Sequence
import functools

import jax
from jax import lax
import jax.numpy as jnp

from stein_jax import checks
from stein_jax import learners
from stein_jax import samplers
from stein_jax.energies import networks
from stein_jax.learners import Learner
from stein_jax.types import Array, Batch, Metrics, Params, PRNGKey


def conditions(batch: Batch) -> tuple[Array, ...]:
  """Returns what a batch conditions its images on: () or (condition,)."""
  return (batch['condition'],) if 'condition' in batch else ()


def score(
  energy: Learner,
  x: Array,
  *condition: Array,
  company: Array | None = None,
  axis_name: str | None = None,
  rng: PRNGKey | None = None,
) -> Array:
  """Returns grad_x log p = -grad_x E at x, like x.

  Args:
    energy: the learner.
    x: [n, ...].
    *condition: what else the energy takes, [n, ...] each.
    company: further examples [n, ...] of the same conditions that are normalised
      together with x, by an energy that mixes its batch.
    axis_name: the mapped axis over which the batch is split.
    rng: key of the energy's dropout.
  """

  def total(x):
    context = dict(axis_name=axis_name, rng=rng)
    if company is None:
      return -jnp.sum(
        learners.call(energy, energy.params, x, *condition, **context)
      )
    values = pair(energy, energy.params, company, x, *condition, **context)
    return -jnp.sum(values[1])

  return jax.grad(total)(x)


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
      tell them apart by their statistics; otherwise one after the other.
    axis_name: the mapped axis over which both are split.
    rng: key of the energy's dropout.
    method: of the energy; the energy itself without.
  """
  evaluate = lambda x, condition, rng: learners.call(
    energy, params, x, *condition, axis_name=axis_name, rng=rng, method=method
  )
  if not joint:
    keys = (None, None) if rng is None else jax.random.split(rng)
    return tuple(
      evaluate(x, condition, key)
      for x, key in zip((data, samples), keys, strict=True)
    )
  twice = [jnp.concatenate([c, c]) for c in condition]
  values = evaluate(jnp.concatenate([data, samples]), twice, rng)
  return values[: len(data)], values[len(data) :]


def contrast(
  energy: Learner,
  data: Array,
  samples: Array,
  *condition: Array,
  negative_weight: Array | float = 1.0,
  energy_l2: float = 0.0,
  joint: bool = True,
  axis_name: str | None = None,
  rng: PRNGKey | None = None,
) -> Callable[[Params], tuple[Array, Metrics]]:
  """Returns the loss mean E(data) - weight mean E(samples) of the parameters.

  Its gradient is minus that of the log likelihood where the samples, which are
  constants, come from p [LW17 eq 7]; with a weight 1 - gamma, minus that of the log
  likelihood plus gamma log Z [LW17 sec 5.2]. With `energy_l2` that times mean
  E(data)^2 + mean E(samples)^2 is added, which holds energies near 0 [DM19]. Further
  arguments are those of `pair`.
  """
  checks.non_negative(energy_l2=energy_l2)
  samples = lax.stop_gradient(samples)

  def loss_fn(params):
    values = pair(
      energy,
      params,
      data,
      samples,
      *condition,
      joint=joint,
      axis_name=axis_name,
      rng=rng,
    )
    positive, negative = map(jnp.mean, values)
    loss = positive - negative_weight * negative
    if not checks.absent(energy_l2):
      loss += energy_l2 * sum(jnp.mean(value**2) for value in values)
    return loss, {
      'energy/data': positive,
      'energy/samples': negative,
      'energy/gap': positive - negative,
    }

  return loss_fn


def free_energy(
  energy: Learner,
  params: Params,
  x: Array,
  *,
  entropy: float = 1.0,
  axis_name: str | None = None,
) -> tuple[Array, Array, Array]:
  """Returns mean E(x) - entropy * H(x), mean E(x) and H(x), [] each [Z16 eq 5].

  H is `expert_entropy`; where its weight is 0 it is returned as 0, and the energy
  need not have experts.

  Args:
    energy: the learner.
    params: at which it is taken.
    x: [n, ...].
    entropy: weight of H.
    axis_name: the mapped axis over which x is split.
  """
  if checks.absent(entropy):
    mean = jnp.mean(learners.call(energy, params, x, axis_name=axis_name))
    return mean, mean, jnp.zeros(())
  logits = learners.call(energy, params, x, method='expert_logits')
  mean = jnp.mean(networks.expert_energy(logits))
  total = networks.expert_entropy(logits, axis_name=axis_name)
  return mean - entropy * total, mean, total


def variational_contrast(
  energy: Learner,
  data: Array,
  samples: Array,
  *,
  entropy: float = 1.0,
  axis_name: str | None = None,
) -> Callable[[Params], tuple[Array, Metrics]]:
  """Returns the loss mean E(data) - entropy * H(data) - mean E(samples) [Z16 eq 5].

  A function of the parameters; the samples are constants. See `free_energy`.
  """
  samples = lax.stop_gradient(samples)
  value_of = functools.partial(free_energy, energy, axis_name=axis_name)

  def loss_fn(params):
    value, positive, total = value_of(params, data, entropy=entropy)
    negative = value_of(params, samples, entropy=0.0)[1]
    return value - negative, {
      'energy/data': positive,
      'energy/samples': negative,
      'energy/entropy': total,
    }

  return loss_fn


def chain(
  energy: Learner,
  rng: PRNGKey,
  x: Array,
  *condition: Array,
  sampler: str = 'langevin',
  step_size: float = 0.1,
  num_steps: int = 1,
  noise: bool = True,
  temperature: float = 1.0,
  clip: Sequence[float] = (),
  block_size: int = 0,
) -> Array:
  """Returns x after a Markov chain of the energy, like x.

  Args:
    energy: the learner.
    rng: key of the chain.
    x: its start [n, ...].
    *condition: what else the energy takes.
    sampler: 'langevin' or 'mala' with `step_size`, or 'gibbs' where the energy
      has that method.
    step_size: delta.
    num_steps: length of the chain.
    noise: of 'langevin'; False descends the energy.
    temperature: of that noise.
    clip: (low, high) that every step of 'langevin' is cut to; empty for no cut.
    block_size: examples at a time, with a key for each block; 0 for all at once.
  """
  checks.choice(('langevin', 'mala', 'gibbs'), sampler=sampler)
  checks.positive(step_size=step_size)
  checks.count(num_steps=num_steps)
  checks.count(minimum=0, block_size=block_size)

  def run(rng, x, *condition):
    if sampler == 'langevin':
      return samplers.langevin(
        rng,
        x,
        lambda x: score(energy, x, *condition),
        step_size=step_size,
        num_steps=num_steps,
        noise=noise,
        temperature=temperature,
        clip=tuple(clip) or None,
      )
    if sampler == 'mala':
      return samplers.mala(
        rng,
        x,
        lambda x: -energy.apply_fn(energy.params, x, *condition),
        step_size=step_size,
        num_steps=num_steps,
      )[0]
    return energy.apply_fn(energy.params, rng, x, num_steps, method='gibbs')

  if not block_size:
    return run(rng, x, *condition)
  blocks = -(-len(x) // block_size)

  def split(array):
    rows = [(0, blocks * block_size - len(array))]
    array = jnp.pad(array, rows + [(0, 0)] * (array.ndim - 1))
    return array.reshape(blocks, block_size, *array.shape[1:])

  keys = jax.vmap(functools.partial(jax.random.fold_in, rng))
  arguments = (keys(jnp.arange(blocks)), *map(split, (x, *condition)))
  ends = lax.map(lambda block: run(*block), arguments)
  return ends.reshape(-1, *x.shape[1:])[: len(x)]


def sample_state(
  state,
  rng: PRNGKey,
  num: int,
  *,
  condition: Array | None = None,
  sampler: str = 'mala',
  step_size: float = 0.3,
  num_steps: int = 1000,
) -> Array:
  """Returns the ends [num, ...] of chains of `state.energy` started at N(0, I).

  The `sample` of every algorithm that learns an energy alone; further arguments
  are those of `chain`.
  """
  start_rng, chain_rng = jax.random.split(rng)
  x = jax.random.normal(start_rng, (num, *state.energy.input_shape))
  condition = () if condition is None else (condition,)
  return chain(
    state.energy,
    chain_rng,
    x,
    *condition,
    sampler=sampler,
    step_size=step_size,
    num_steps=num_steps,
  )
