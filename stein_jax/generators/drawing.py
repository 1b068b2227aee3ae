"""Learners of generators, and samples drawn in batches of the training size."""

from collections.abc import Callable, Mapping
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
from stein_jax.types import Array, Batch, Params, PRNGKey, Tree


def create(
  rng: PRNGKey,
  module: nn.Module,
  optimizer: Mapping | optax.GradientTransformation,
  num: int,
  label: Array | None = None,
  condition: Array | None = None,
) -> Learner:
  """Returns a learner of the generator that trains on batches of `num` samples.

  Args:
    rng: key of the initial parameters.
    module: the generator.
    optimizer: a config section that names an optax function, or its result.
    num: number of samples in a batch.
    label: labels [num] of a batch, for a generator with classes.
    condition: other conditions [num, ...] of a batch.

  Raises:
    ValueError: the labels are not [num] or not among the classes, the conditions are
      not [num, ...], or the generator does not make `num` samples.
  """
  context = _checked_context(
    num, learners.attribute(module, 'num_classes', 0), label, condition
  )
  checks.key(rng=rng)
  init_rng, rng = jax.random.split(rng)
  learner = learners.create(init_rng, module, optimizer, rng, num, **context)
  return _of_samples(learner, rng, num, context)


def wrap(
  function: Callable[..., Array],
  params: Tree,
  optimizer: optax.GradientTransformation,
  num: int,
  label: Array | None = None,
  condition: Array | None = None,
  num_classes: int = 0,
) -> Learner:
  """Returns a learner of a generator that is a function, of whatever library.

  Args:
    function: called as `function(params, rng, num)` for samples [num, ...]; it may
      have keyword-only arguments `label`, `condition` and `axis_name`, as networks of
      this package do.
    params: the initial parameters: a tree of floating arrays.
    optimizer: an optax transformation.
    num: number of samples in a batch.
    label: labels [num] of a batch, for a generator with classes.
    condition: other conditions [num, ...] of a batch.
    num_classes: number of classes of the labels.

  Raises:
    TypeError, ValueError: see `create` and `learners.wrap`.
  """
  context = _checked_context(num, num_classes, label, condition)
  rng = jax.random.key(0)  # nothing is drawn with it
  learner = learners.wrap(
    lambda params, rng: function(params, rng, num, **context),
    params,
    optimizer,
    rng,
  )
  learner = learner.replace(
    apply_fn=function,
    module=learners.Function(function),
    num_classes=num_classes,
  )
  return _of_samples(learner, rng, num, context)


def _checked_context(num, classes, label, condition):
  """Returns the conditions that are given as a generator's keyword arguments."""
  checks.count(num=num)
  check_label(label, classes or None, num)
  checks.num_rows(num, condition=condition)
  return _without_none(label=label, condition=condition)


def _of_samples(learner, rng, num, context):
  """Returns the learner with the shape of its samples, which is traced for it."""
  shape = jax.eval_shape(
    lambda params: generate(learner, params, rng, num, **context),
    learner.params,
  ).shape
  # `learners.create` reads these from the first input, which is a key here.
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
  """Returns learners of an energy of the data and of a generator of such data.

  Labels or images condition both networks if they are given.

  Raises:
    ValueError: the generator's samples have another shape than the data, or the labels
      or conditions are not those of the data; see `create`.
  """
  checks.key(rng=rng)
  data = dtypes.floating(data)
  energy_rng, generator_rng = jax.random.split(rng)
  given = _without_none(label=label, condition=condition)
  generator = create(
    generator_rng, generator, generator_optimizer, len(data), **given
  )
  checks.same_shape(data=data.shape[1:], samples=generator.input_shape)
  # An energy takes by position what a generator takes by name.
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
    ValueError: the generator takes no label or no condition and is given one, the
      labels are not [num] or not among the classes, or conditions or samples are not
      `num`.
  """
  checks.key(rng=rng)
  context = _without_none(label=label, condition=condition)
  for name in context:
    if name not in learners.keywords(generator):
      raise ValueError(f'This generator is unconditional: it takes no {name}.')
  if label is not None:
    # A network that takes labels need not say how many classes it has.
    check_label(label, generator.num_classes or None, num)
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
  """Returns samples [num, ...], taken from whole batches of the training size.

  A generator with classes fills its batches with all classes in turn, whatever labels
  are asked for, so that no sample depends on the number or the labels of the others.
  With images as conditions every image has a sample that is made by itself.

  Args:
    generator: the learner.
    rng: key of the samples.
    num: number of samples.
    label: labels [num]; 0, 1, ... in turn if None and there are classes. A traced
      label that is not a class gives a sample of nan.
    condition: images [num, ...].

  Raises:
    ValueError: the generator is unconditional and is given labels or conditions, there
      are not `num` of them, labels are not among the classes, or there are more
      classes than rows of a batch.
  """
  checks.key(rng=rng)
  checks.count(minimum=0, num=num)
  check_label(label, generator.num_classes, num)
  if condition is not None:
    return _sample_conditions(generator, rng, num, jnp.asarray(condition))
  if generator.num_classes:
    return _sample_classes(generator, rng, num, label)
  size = generator.batch_size
  keys = jax.random.split(rng, -(-num // size))
  draw = lambda rng: generate(generator, generator.params, rng, size)
  # One batch after another, so that memory does not grow with num.
  return lax.map(draw, keys).reshape(-1, *generator.input_shape)[:num]


def _sample_conditions(generator, rng, num, condition):
  """Returns a sample of each condition, with a key of its own."""
  if condition.shape[:1] != (num,):
    raise ValueError(f'{len(condition)} conditions for num={num} samples.')
  # A batch of one: no image shares its statistics with another.
  one = lambda rng, image: generate(
    generator, generator.params, rng, 1, condition=image[None]
  )[0]
  # The key of a sample depends on its place alone.
  keys = jax.vmap(functools.partial(jax.random.fold_in, rng))
  arguments = (keys(jnp.arange(num)), condition)
  return lax.map(
    lambda each: one(*each), arguments, batch_size=generator.batch_size
  )


def _sample_classes(generator, rng, num, label):
  """Returns samples of the labels, picked from batches of all classes in turn."""
  size, classes = generator.batch_size, generator.num_classes
  if classes > size:
    raise ValueError(
      f'{classes} classes do not fit in batches of {size} to sample from.'
    )
  label = jnp.arange(num) % classes if label is None else jnp.asarray(label)
  # Rows and batches are computed from labels, and may not fit into their bytes.
  label = label.astype(jnp.int32)
  known = (label >= 0) & (label < classes)
  batch, row = _places(label, classes, size // classes)
  row = jnp.where(known, row, size)  # no row, so that mode='drop' leaves it out
  # request[i, r] is the sample that is row r of batch i, or num, which is not a
  # sample, if nobody asked for it. There are as many batches as labels of a
  # single class would need.
  request = jnp.full((max(1, -(-num // (size // classes))), size), num)
  request = request.at[batch, row].set(jnp.arange(num), mode='drop')

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

  # Only batches up to the last that is asked for are drawn. The samples begin
  # at 0, since nan that is overwritten would stop a run under jax_debug_nans.
  shape = (num, *generator.input_shape)
  samples = lax.fori_loop(
    0,
    jnp.max(batch, initial=-1) + 1,
    fill,
    jnp.zeros(shape, jax.eval_shape(draw, 0).dtype),
  )
  known = known.reshape(num, *(1,) * (len(shape) - 1))
  return jnp.where(known, samples, jnp.nan)


def _places(label, classes, share):
  """Returns the batch and the row where each request for a class is answered.

  A batch has `share` rows of every class: its row r is of class r % classes. So the
  i-th request for a class is answered by batch i // share.
  """
  asked = jax.nn.one_hot(label, classes, dtype=jnp.int32)
  rank = jnp.sum((jnp.cumsum(asked, 0) - 1) * asked, 1)
  return rank // share, label + classes * (rank % share)


def decode(
  generator: Learner, rng: PRNGKey, z: Array, *, label: Array | None = None
) -> Array:
  """Returns the noise-free sample [m, ...] of each latent [m, k].

  Each latent is decoded as one row of a training-size batch whose other rows depend on
  the key alone. So neighbours in latent space are neighbours in the result.

  Args:
    generator: the learner.
    rng: key of the other rows.
    z: latents.
    label: labels [m]; 0 for all if None and there are classes. A traced label that is
      not a class gives a sample of nan.

  Raises:
    ValueError: the latents are not [m, k], the generator is unconditional and is given
      labels, or the labels are not [m] or not among the classes.
  """
  size, classes = generator.batch_size, generator.num_classes
  # The other rows are the same for all latents, so that they move no sample.
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
    x = learners.call(
      generator, generator.params, batch, method='decode', **context
    )[0]
    known = (label >= 0) & (label < max(classes, 1))
    return jnp.where(known, x, jnp.nan)

  # Without classes a label of 0 stands for all, and is not passed on.
  label = jnp.zeros(len(z)) if label is None else jnp.asarray(label)
  return lax.map(one, (z, label.astype(jnp.int32)))


def latent(generator: Learner, rng: PRNGKey, num: int) -> Array:
  """Returns draws of the generator's prior [num, k].

  Raises:
    TypeError: the key is none.
  """
  checks.key(rng=rng)
  return learners.call(generator, generator.params, rng, num, method='latent')


def drawer(
  generator: Learner, batch: Batch, *, axis_name: str | None = None
) -> Callable[[Params, PRNGKey], Array]:
  """Returns a function of parameters and a key to samples [n, ...] for a batch.

  There are as many samples as images, each under the condition of its image.

  Args:
    generator: the learner.
    batch: 'image' [n, ...], and 'condition' [n, ...] where there is one.
    axis_name: the mapped axis over which the batch is split.
  """

  def draw(params, rng):
    return generate(
      generator,
      params,
      rng,
      len(batch['image']),
      **given(batch.get('condition')),
      axis_name=axis_name,
    )

  return draw


def given(condition: Array | None) -> dict[str, Array]:
  """Returns the keyword argument as which a generator takes a condition.

  A condition [n] is `label` and any other is `condition`; None gives no argument.
  """
  if condition is None:
    return {}
  return {'label' if np.ndim(condition) == 1 else 'condition': condition}


def check_label(label: Array | None, classes: int | None, num: int) -> None:
  """Raises ValueError unless labels that are given are [num] and of the classes.

  Args:
    label: the labels, or None.
    classes: number of classes; None if it is unknown, for which any integers of 0 or
      more pass.
    num: wanted number of labels.
  """
  if label is None:
    return
  if classes == 0:
    raise ValueError('This generator is unconditional: it takes no label.')
  checks.labels(np.inf if classes is None else classes, label=label)
  checks.per_example(num, label=label)


def _without_none(**conditions):
  return {name: c for name, c in conditions.items() if c is not None}
