"""What is done with an energy: its score, its contrast, its chains."""

from collections.abc import Callable, Sequence
import functools

import jax
from jax import lax
import jax.numpy as jnp

from stein_jax import checks
from stein_jax import dtypes
from stein_jax import learners
from stein_jax import samplers
from stein_jax.energies import networks
from stein_jax.learners import Learner
from stein_jax.types import Array, Batch, Metrics, Params, PRNGKey


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
  x = dtypes.accumulated(x)
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
  company: Array | None = None,
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
    company: further examples [n, ...] of the same conditions that are normalised
      together with x, by an energy that mixes its batch.
    axis_name: the mapped axis over which the batch is split.
    rng: key of the energy's dropout.
  """

  def total(x):
    context = dict(axis_name=axis_name, rng=rng)
    if company is None:
      return -jnp.sum(value(energy, energy.params, x, *condition, **context))
    values = pair(energy, energy.params, company, x, *condition, **context)
    return -jnp.sum(values[1])

  x = dtypes.floating(x)
  return jax.grad(total)(dtypes.accumulated(x)).astype(x.dtype)


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
  values = evaluate(jnp.concatenate(dtypes.together(data, samples)), *twice)
  return values[: len(data)], values[len(data) :]


def log_partition(energy: Learner, params: Params) -> Array:
  """Returns log Z [] by the energy's own method, at the given parameters.

  Z is of the energy without dropout.

  Raises:
    ValueError: exp(-E) is no density of one example, or log Z has another shape.
  """
  check_density(energy)
  found = energy.apply_fn(params, method='log_partition')
  checks.shape((), **{"The energy's log_partition": found})
  return found


def check_density(energy: Learner) -> None:
  """Raises ValueError where exp(-E) is no density of one example."""
  if learners.mixes(energy):
    raise ValueError(
      'This energy mixes its batch: exp(-E) is no density of one example, and has no '
      "likelihood; allowed: an energy with norm='layer' or 'none'."
    )


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
  rng: PRNGKey | None = None,
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
    rng: key of the energy's dropout.
  """
  context = dict(axis_name=axis_name, rng=rng)
  if checks.absent(entropy):
    mean = jnp.mean(value(energy, params, x, **context))
    return mean, mean, jnp.zeros(())
  logits = learners.call(energy, params, x, method='expert_logits', **context)
  checks.rows(len(x), **{"The energy's expert_logits": logits})
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
  rng: PRNGKey | None = None,
) -> Callable[[Params], tuple[Array, Metrics]]:
  """Returns the loss mean E(data) - entropy * H(data) - mean E(samples) [Z16 eq 5].

  A function of the parameters; the samples are constants. See `free_energy`.
  """
  samples = lax.stop_gradient(samples)
  value_of = functools.partial(
    free_energy, energy, axis_name=axis_name, rng=rng
  )

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
  axis_name: str | None = None,
  dropout_rng: PRNGKey | None = None,
) -> Array:
  """Returns x after a Markov chain of the energy, like x.

  An energy that mixes its batch has one chain, of the whole batch over all devices:
  Langevin dynamics on the joint density prod_i exp(-E(x_i; batch)).

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
    block_size: examples at a time, with a key for each block; 0 for all at once. The
      last block is filled with rows of the others.
    axis_name: the mapped axis over which x is split.
    dropout_rng: key of the energy's dropout, the same in all steps of the chain.

  Raises:
    ValueError: an energy that mixes its batch, for a sampler of one example; or a
      condition for 'gibbs'.
  """
  checks.choice(('langevin', 'mala', 'gibbs'), sampler=sampler)
  checks.positive(step_size=step_size)
  checks.count(num_steps=num_steps)
  checks.count(minimum=0, block_size=block_size)
  x = dtypes.floating(x)
  if sampler != 'langevin' and learners.mixes(energy):
    raise ValueError(
      f'sampler={sampler!r} moves each example by itself, and this energy mixes its '
      "batch; allowed: 'langevin'."
    )
  if sampler == 'gibbs' and condition:
    raise ValueError(
      "sampler='gibbs' takes no condition; allowed: 'langevin', 'mala'."
    )
  context = dict(axis_name=axis_name, rng=dropout_rng)

  def run(rng, x, *condition):
    if sampler == 'langevin':
      return samplers.langevin(
        rng,
        x,
        lambda x: score(energy, x, *condition, **context),
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
        lambda x: -value(energy, energy.params, x, *condition, **context),
        step_size=step_size,
        num_steps=num_steps,
      )[0]
    moved = learners.call(
      energy, energy.params, rng, x, num_steps, method='gibbs', **context
    )
    checks.shape(x.shape, **{"The energy's gibbs": moved})
    return moved

  if not block_size:
    return run(rng, x, *condition)
  blocks = -(-len(x) // block_size)
  filled = jnp.arange(blocks * block_size) % len(x)
  split = lambda array: jnp.asarray(array)[filled].reshape(
    blocks, block_size, *array.shape[1:]
  )
  keys = jax.vmap(functools.partial(jax.random.fold_in, rng))
  arguments = (keys(jnp.arange(blocks)), *map(split, (x, *condition)))
  ends = lax.map(lambda block: run(*block), arguments)
  return ends.reshape(-1, *x.shape[1:])[: len(x)]


def whole(
  energy: Learner, num: int, condition: Array | None = None
) -> tuple[int, tuple[Array, ...]]:
  """Returns how many chains are run for num samples, and the conditions of each.

  For an energy that mixes its batch they are whole batches of the training size, in
  which conditions repeat: so no sample depends on how many are asked for, and what is
  too many is cut off.

  Raises:
    ValueError: there are not num conditions.
  """
  size = energy.batch_size
  rows = -(-num // size) * size if learners.mixes(energy) and size else num
  if condition is None:
    return rows, ()
  condition = jnp.asarray(condition)
  checks.shape((num, *condition.shape[1:]), condition=condition)
  return rows, (condition[jnp.arange(rows) % num],)


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
  are those of `chain`. Of an energy that knows labels the condition is labels [num];
  without, they are 0, 1, ... in turn. An energy that mixes its batch has chains of
  whole batches of the training size.
  """
  energy = state.energy
  if condition is None and energy.num_classes:
    condition = jnp.arange(num) % energy.num_classes
  rows, given = whole(energy, num, condition)
  start_rng, chain_rng = jax.random.split(rng)
  x = jax.random.normal(start_rng, (rows, *energy.input_shape))
  return chain(
    energy,
    chain_rng,
    x,
    *given,
    sampler=sampler,
    step_size=step_size,
    num_steps=num_steps,
    block_size=energy.batch_size if learners.mixes(energy) else 0,
  )[:num]
