"""Drawing from a generator: learners of it, batches, samples."""

from collections.abc import Mapping
import functools

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax

from stein_jax import checks
from stein_jax import dtypes
from stein_jax import learners
from stein_jax.learners import Learner
from stein_jax.types import Array, Params, PRNGKey


def create(
  rng: PRNGKey,
  module: nn.Module,
  optimizer: Mapping | optax.GradientTransformation,
  num: int,
  label: Array | None = None,
  condition: Array | None = None,
) -> Learner:
  """Returns a learner of the generator that trains on batches of `num`.

  Args:
    rng: key of the first parameters.
    module: the generator.
    optimizer: a config section, or what optax makes of it.
    num: rows of a batch.
    label: labels [num], of a generator with classes.
    condition: what else it is conditioned on [num, ...].

  Raises:
    ValueError: labels that are no class or not [num], or as many conditions as no
      batch has; or the generator makes other than `num` samples.
  """
  checks.count(num=num)
  check_label(label, getattr(module, 'num_classes', 0) or None, num)
  checks.num_rows(num, condition=condition)
  context = _given(label=label, condition=condition)
  init_rng, rng = jax.random.split(rng)
  learner = learners.create(init_rng, module, optimizer, rng, num, **context)
  shape = jax.eval_shape(
    lambda params: generate(learner, params, rng, num, **context),
    learner.params,
  ).shape
  return learner.replace(input_shape=shape[1:], batch_size=num)


def create_pair(
  rng: PRNGKey,
  energy: nn.Module,
  energy_optimizer: Mapping | optax.GradientTransformation,
  generator: nn.Module,
  generator_optimizer: Mapping | optax.GradientTransformation,
  data: Array,
  label: Array | None = None,
  condition: Array | None = None,
) -> tuple[Learner, Learner]:
  """Returns learners of an energy of the data and of a generator like them.

  Both are conditioned on labels, or images, that are given.

  Raises:
    ValueError: the generator's samples have another shape than the data, or
      labels or conditions are not those of the data; see `create`.
  """
  data = dtypes.floating(data)
  energy_rng, generator_rng = jax.random.split(rng)
  given = _given(label=label, condition=condition)
  generator = create(
    generator_rng, generator, generator_optimizer, len(data), **given
  )
  checks.same_shape(data=data.shape[1:], samples=generator.input_shape)
  energy = learners.create(
    energy_rng, energy, energy_optimizer, data, *given.values()
  )
  return energy, generator


def generate(
  generator: Learner,
  params: Params,
  rng: PRNGKey,
  num: int,
  *,
  label: Array | None = None,
  condition: Array | None = None,
  axis_name: str | None = None,
) -> Array:
  """Returns one batch of samples [num, ...] at the given parameters.

  Raises:
    ValueError: a label or a condition for a generator that takes none, labels that
      are no class or not [num], other than `num` conditions, or other than `num`
      samples.
  """
  context = _given(label=label, condition=condition)
  for name in context:
    if name not in generator.takes:
      raise ValueError(f'This generator is unconditional: it takes no {name}.')
  if label is not None:
    check_label(label, num_classes(generator) or None, num)
  checks.num_rows(num, condition=condition)
  samples = learners.call(
    generator, params, rng, num, axis_name=axis_name, **context
  )
  checks.num_rows(num, samples=samples)
  return samples


def decode_batch(
  generator: Learner,
  params: Params,
  z: Array,
  *condition: Array,
  axis_name: str | None = None,
) -> Array:
  """Returns one batch of noise-free samples [n, ...] of latents [n, k].

  Raises:
    ValueError: a condition is not as long as the latents, or the samples are not.
  """
  for each in condition:
    checks.num_rows(len(z), condition=each)
  samples = learners.call(
    generator, params, z, *condition, method='decode', axis_name=axis_name
  )
  checks.num_rows(len(z), samples=samples)
  return samples


def sample(
  generator: Learner,
  rng: PRNGKey,
  num: int,
  *,
  label: Array | None = None,
  condition: Array | None = None,
) -> Array:
  """Returns samples [num, ...], cut from whole batches of the training size.

  A conditional generator fills its batches with the classes in turn, and
  of these the labels [num] asked for are taken; without labels they are 0, 1, ...
  in turn. So no sample depends on the number or the labels of its company. Of images
  [num, ...] given as the condition each has a sample of its own.

  Raises:
    ValueError: labels or a condition for an unconditional generator, other than
      `num` of them, labels that are no class, or more classes than a batch has
      rows. Traced labels have no value yet: the sample of what is no class is nan.
  """
  checks.count(minimum=0, num=num)
  size, classes = generator.batch_size, num_classes(generator)
  check_label(label, classes, num)
  if condition is not None:
    condition = jnp.asarray(condition)
    if condition.shape[:1] != (num,):
      raise ValueError(f'{len(condition)} conditions for num={num} samples.')
    one = lambda rng, image: generate(
      generator, generator.params, rng, 1, condition=image[None]
    )[0]
    keys = jax.vmap(functools.partial(jax.random.fold_in, rng))
    arguments = (keys(jnp.arange(num)), condition)
    return lax.map(lambda each: one(*each), arguments, batch_size=size)
  if not classes:
    keys = jax.random.split(rng, -(-num // size))
    draw = lambda rng: generate(generator, generator.params, rng, size)
    return lax.map(draw, keys).reshape(-1, *generator.input_shape)[:num]
  if classes > size:
    raise ValueError(
      f'{classes} classes do not fit in batches of {size} to sample from.'
    )
  label = jnp.arange(num) % classes if label is None else jnp.asarray(label)
  label = label.astype(jnp.int32)
  each = size // classes  # rows of a batch that are of one class
  # The i-th request for its class is answered by batch i // each.
  asked = jax.nn.one_hot(label, classes, dtype=jnp.int32)
  rank = jnp.sum((jnp.cumsum(asked, 0) - 1) * asked, 1)
  batch, slot = rank // each, label + classes * (rank % each)
  known = _is_class(label, classes)
  slot = jnp.where(known, slot, size)  # no row
  request = jnp.full((max(1, -(-num // each)), size), num)
  request = request.at[batch, slot].set(jnp.arange(num), mode='drop')

  def draw(i):
    return generate(
      generator,
      generator.params,
      jax.random.fold_in(rng, i),
      size,
      label=jnp.arange(size) % classes,
    )

  def fill(i, samples):
    return samples.at[request[i]].set(draw(i), mode='drop')

  shape = (num, *generator.input_shape)
  samples = lax.fori_loop(
    0,
    jnp.max(batch, initial=-1) + 1,
    fill,
    jnp.zeros(shape, jax.eval_shape(draw, 0).dtype),
  )
  known = known.reshape(num, *(1,) * (len(shape) - 1))
  return jnp.where(known, samples, jnp.nan)


def decode(
  generator: Learner, rng: PRNGKey, z: Array, *, label: Array | None = None
) -> Array:
  """Returns the noise-free sample [m, ...] of each latent [m, k].

  Each is decoded as one row of a training-size batch, beside draws that depend
  on the key alone: neighbours in latent space are neighbours in the result. Without
  labels [m] all are of the first class, if there are classes.

  Raises:
    ValueError: latents that are not [m, k], labels for an unconditional generator,
      or that are no class or not [m]. Of traced labels what is no class gives nan.
  """
  size, classes = generator.batch_size, num_classes(generator)
  others = latent(generator, rng, size)
  checks.shape((*np.shape(z)[:1], *others.shape[1:]), z=z)
  check_label(label, classes, len(z))
  z = dtypes.floating(z)

  def one(row):
    z, label = row
    context = {}
    if classes:
      context['label'] = (jnp.arange(size) % classes).at[0].set(label)
    batch = others.at[0].set(z.astype(others.dtype))
    x = generator.apply_fn(generator.params, batch, method='decode', **context)[
      0
    ]
    return jnp.where(_is_class(label, max(classes, 1)), x, jnp.nan)

  label = jnp.zeros(len(z)) if label is None else jnp.asarray(label)
  return lax.map(one, (z, label.astype(jnp.int32)))


def latent(generator: Learner, rng: PRNGKey, num: int) -> Array:
  """Returns draws of the generator's prior [num, k]."""
  return generator.apply_fn(generator.params, rng, num, method='latent')


def num_classes(generator: Learner) -> int:
  """Returns how many classes the generator is conditioned on: 0 for none."""
  return generator.apply_fn(
    generator.params, method=lambda module: getattr(module, 'num_classes', 0)
  )


def given(condition: Array | None) -> dict[str, Array]:
  """Returns a condition as the keyword that a generator takes it by.

  One that is [n] is 'label', others are 'condition'; without one there is none.
  """
  if condition is None:
    return {}
  return {'label' if np.ndim(condition) == 1 else 'condition': condition}


def _given(**conditions):
  """Returns those that are not None."""
  return {name: c for name, c in conditions.items() if c is not None}


def check_label(label: Array | None, classes: int | None, num: int) -> None:
  """Raises ValueError unless labels, if given, are [num] and of the classes.

  A generator that does not say how many it has, None, may take any integers.
  """
  if label is None:
    return
  if classes == 0:
    raise ValueError('This generator is unconditional: it takes no label.')
  checks.labels(np.inf if classes is None else classes, label=label)
  checks.per_example(num, label=label)


def _is_class(label, classes):
  return (label >= 0) & (label < classes)
