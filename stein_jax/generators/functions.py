"""What is done with a generator: its batches, its losses, its walks."""

from collections.abc import Callable, Mapping, Sequence
import functools

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax

from stein_jax import checks
from stein_jax import collectives
from stein_jax import dtypes
from stein_jax import energies
from stein_jax import learners
from stein_jax.learners import Learner
from stein_jax.types import Array, Metrics, Params, PRNGKey


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
  _check_label(label, getattr(module, 'num_classes', 0) or None, num)
  _check_count(num, condition=condition)
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
    _check_label(label, num_classes(generator) or None, num)
  _check_count(num, condition=condition)
  samples = learners.call(
    generator, params, rng, num, axis_name=axis_name, **context
  )
  _check_count(num, samples=samples)
  return samples


def follow(
  draw: Callable[[Params], Array],
  direction: Callable[[Array], Array],
  *,
  penalty: Callable[[Params, Array], Array] | None = None,
  axis_name: str | None = None,
) -> Callable[[Params], tuple[Array, Metrics, Array]]:
  """Returns the loss -mean G(xi).phi, phi held fixed [LW17 eq 21] [WL16 eq 10].

  Its gradient is minus the mean over the batch of (dG / d params)' phi: the chain
  rule. The samples come with it, so that they are made once.

  Args:
    draw: the generator's parameters to its samples [n, ...].
    direction: the samples to phi, like them.
    penalty: the parameters and the samples to what joins the loss [].
    axis_name: the mapped axis over which the samples are split.

  Raises:
    ValueError: phi has another shape than the samples, or the penalty has one.
  """
  dot = lambda a, b: jnp.mean(jnp.sum((a * b).reshape(len(a), -1), -1))

  def loss_fn(params):
    samples = draw(params)
    fixed = lax.stop_gradient(samples)
    phi = direction(fixed)
    checks.like(samples, direction=phi)
    phi = lax.stop_gradient(dtypes.accumulated(phi))
    spread = dtypes.accumulated(fixed)
    spread -= collectives.pmean(jnp.mean(spread, 0, keepdims=True), axis_name)
    metrics = {
      'generator/move': dot(phi, phi),
      'samples/variance': dot(spread, spread),
    }
    loss = -dot(dtypes.accumulated(samples), phi)
    if penalty:
      metrics['generator/penalty'] = penalty(params, samples)
      checks.shape((), penalty=metrics['generator/penalty'])
      loss += metrics['generator/penalty']
    return loss, metrics, fixed

  return loss_fn


def pulling_away(features: Array, *, axis_name: str | None = None) -> Array:
  """Returns the mean squared cosine of pairs of rows [] [ZML17 sec 2.4].

  Descended, it turns the features [n, f] of samples away from each other; of one
  sample it is 0.

  Args:
    features: of the samples.
    axis_name: the mapped axis over which they are split; the pairs are of all.

  Raises:
    ValueError: the features are not [n, f].
  """
  features = dtypes.accumulated(features)
  if features.ndim != 2:
    raise ValueError(f'features has shape {features.shape}; wanted: [n, f].')
  # In units of the row's largest, which no cosine depends on.
  largest = jnp.max(jnp.abs(features), 1, keepdims=True, initial=0)
  features /= lax.stop_gradient(jnp.where(largest > 0, largest, 1))
  size = jnp.sum(features**2, -1, keepdims=True)
  unit = collectives.all_gather(features * lax.rsqrt(size + 1e-12), axis_name)
  cosine = jnp.matmul(unit, unit.T, precision=lax.Precision.HIGHEST)
  n = len(unit)
  # By a product, not by a choice, which would hide a nan.
  others = cosine**2 * (1 - jnp.eye(n, dtype=cosine.dtype))
  return jnp.sum(others) / max(n * (n - 1), 1)


def batch_norm_entropy(params: Params) -> Array:
  """Returns the entropy of normal units, as wide as the norms' gains [] [KB16].

  sum log(2 pi e gain^2) / 2 over all gains of a generator: what a unit that is
  normal before its norm has after it, taken for the entropy of the samples.

  Raises:
    ValueError: no norm has a gain.
  """
  gains = [
    jnp.ravel(dtypes.accumulated(leaf))
    for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    if path and getattr(path[-1], 'key', None) == 'gain'
  ]
  if not gains:
    raise ValueError(
      'This generator has no batch norm with a gain: norm_gain must be True.'
    )
  square = jnp.concatenate(gains) ** 2
  tiny = jnp.finfo(square.dtype).tiny  # where the logarithm is finite
  return 0.5 * jnp.sum(jnp.log(2 * jnp.pi * jnp.e * (square + tiny)))


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
    _check_count(len(z), condition=each)
  samples = learners.call(
    generator, params, z, *condition, method='decode', axis_name=axis_name
  )
  _check_count(len(z), samples=samples)
  return samples


def divergence(mean: Array, log_variance: Array) -> Array:
  """Returns KL(N(mean, variance) | N(0, I)) of codes [n, k], [n] [KW14].

  Raises:
    ValueError: the two have different shapes.
  """
  checks.same_shape(mean=np.shape(mean), log_variance=np.shape(log_variance))
  mean, log_variance = map(dtypes.accumulated, (mean, log_variance))
  return 0.5 * jnp.sum(jnp.expm1(log_variance) - log_variance + mean**2, -1)


def variational(
  generator: Learner,
  rng: PRNGKey,
  x: Array,
  *condition: Array,
  kl_weight: float = 1.0,
  kl: str = 'prior',
  num_importance: int = 10,
  axis_name: str | None = None,
) -> Callable[[Params], tuple[Array, Metrics]]:
  """Returns the loss of a variational autoencoder of x, of its parameters [KW14].

  The mean over examples of |x - decoded code|^2 + kl_weight KL(code | prior): minus
  the evidence bound, up to constants, of a decoder with variance kl_weight / 2
  [X21 panel 4]. The printed objective has the KL to the decoder's posterior (`kl=
  'posterior'`), whose evidence log q(x) is then estimated from draws of the encoder;
  at weight 1 both are one.

  Args:
    generator: with an encoder.
    rng: key of the codes and of dropout.
    x: what is to be generated [n, ...].
    *condition: images that it is generated from.
    kl_weight: gamma.
    kl: 'prior', as the authors' code has it, or 'posterior', as printed.
    num_importance: draws for the evidence.
    axis_name: the mapped axis over which x is split.

  Raises:
    ValueError: an argument is out of its range, a condition is not as long as x, or
      what is decoded has another shape than x.
  """
  checks.non_negative(kl_weight=kl_weight)
  checks.choice(('prior', 'posterior'), kl=kl)
  checks.count(num_importance=num_importance)
  for each in condition:
    _check_count(len(x), condition=each)
  x = lax.stop_gradient(dtypes.accumulated(x))
  dropout_rng, code_rng = jax.random.split(rng)

  def loss_fn(params):
    mean, log_variance = learners.call(
      generator,
      params,
      x,
      *condition,
      method='encode',
      axis_name=axis_name,
      key=dropout_rng,
    )
    mean, log_variance = map(dtypes.accumulated, (mean, log_variance))
    apart = divergence(mean, log_variance)

    def draw(rng):
      unit = jax.random.normal(rng, mean.shape, mean.dtype)
      z = mean + jnp.exp(0.5 * log_variance) * unit
      back = decode_batch(generator, params, z, *condition, axis_name=axis_name)
      checks.shape(x.shape, decoded=back)
      error = jnp.sum((back - x) ** 2, range(1, x.ndim))
      # log q(x | z) + log p(z) - log q(z | x), at decoder variance 1 / 2.
      log_weight = 0.5 * jnp.sum(unit**2 + log_variance - z**2, -1) - error
      return error, log_weight

    if kl == 'prior':
      error, _ = draw(code_rng)
      values = error + kl_weight * apart
    else:
      errors, log_weights = jax.vmap(draw)(
        jax.random.split(code_rng, num_importance)
      )
      error = jnp.mean(errors, 0)
      evidence = jax.nn.logsumexp(log_weights, 0) - jnp.log(num_importance)
      values = (kl_weight - 1) * evidence + kl_weight * (error + apart)
    return jnp.mean(values), {
      'generator/reconstruction': jnp.mean(error),
      'generator/divergence': jnp.mean(apart),
    }

  return loss_fn


def revision(
  start: Array, revised: Array, *, axis_name: str | None = None
) -> Metrics:
  """Returns how far a chain took the samples of a generator, and their spread.

  Of [n, ...] the mean distance from start to end, which falls as the generator
  learns what the chain does, and the total variance of the ends.

  Raises:
    ValueError: the two have different shapes.
  """
  checks.same_shape(start=np.shape(start), revised=np.shape(revised))
  start, revised = map(dtypes.accumulated, (start, revised))
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
  _check_count(len(x), condition=condition)
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


def sample_revised(
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
    return sample(state.generator, draw_rng, num, condition=condition)
  rows, given = energies.whole(state.energy, num, condition)
  condition = given[0] if given else None
  return revise(
    state,
    chain_rng,
    sample(state.generator, draw_rng, rows, condition=condition),
    condition=condition,
    num_steps=num_steps,
    step_size=step_size,
    noise=noise,
    temperature=temperature,
    clip=clip,
  )[:num]


def num_classes(generator: Learner) -> int:
  """Returns how many classes the generator is conditioned on: 0 for none."""
  return generator.apply_fn(
    generator.params, method=lambda module: getattr(module, 'num_classes', 0)
  )


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
  _check_label(label, classes, num)
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
  _check_label(label, classes, len(z))
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


def random_walk(
  generator: Learner,
  rng: PRNGKey,
  *,
  num_walks: int,
  num_steps: int,
  step_size: float = 0.01,
  label: Array | None = None,
) -> Array:
  """Returns noise-free samples [num_walks, num_steps, ...] of latent walks.

  z moves by step_size U(-1, 1) in each coordinate [LW17 sec 5.2], and is cut to
  [-1, 1] where the prior is uniform. Labels [num_walks] are one for each walk.
  """
  checks.count(num_walks=num_walks, num_steps=num_steps)
  checks.finite(step_size=step_size)
  start_rng, step_rng, others_rng = jax.random.split(rng, 3)
  start = latent(generator, start_rng, num_walks)
  steps = step_size * jax.random.uniform(
    step_rng, (num_steps, *start.shape), minval=-1.0
  )
  bounded = generator.apply_fn(
    generator.params, method=lambda module: module.prior == 'uniform'
  )

  def move(z, step):
    following = z + step
    return jnp.clip(following, -1, 1) if bounded else following, z

  path = lax.scan(move, start, steps)[1].swapaxes(0, 1)
  return _decode_paths(generator, others_rng, path, label)


def interpolate(
  generator: Learner,
  rng: PRNGKey,
  *,
  num_pairs: int,
  num_points: int,
  label: Array | None = None,
) -> Array:
  """Returns noise-free samples [num_pairs, num_points, ...] on straight lines.

  Each line joins two draws of the prior. Labels [num_pairs] are one for each line.
  """
  checks.count(num_pairs=num_pairs, num_points=num_points)
  ends_rng, others_rng = jax.random.split(rng)
  first, last = jnp.split(latent(generator, ends_rng, 2 * num_pairs), 2)
  share = jnp.linspace(0, 1, num_points)[None, :, None]
  path = (1 - share) * first[:, None] + share * last[:, None]
  return _decode_paths(generator, others_rng, path, label)


def _given(**conditions):
  """Returns those that are not None."""
  return {name: c for name, c in conditions.items() if c is not None}


def _check_label(label, classes, num):
  """Raises ValueError unless labels, if given, are [num] and of the classes.

  A generator that does not say how many it has, None, may take any integers.
  """
  if label is None:
    return
  if classes == 0:
    raise ValueError('This generator is unconditional: it takes no label.')
  checks.labels(np.inf if classes is None else classes, label=label)
  checks.per_example(num, label=label)


def _check_count(num, **arrays):
  """Raises ValueError unless the arrays that are given have `num` rows."""
  for name, array in arrays.items():
    if array is not None and np.shape(array)[:1] != (num,):
      raise ValueError(
        f'{name} has shape {np.shape(array)}; wanted: ({num}, ...), a row for each '
        f'of {num} samples.'
      )


def _is_class(label, classes):
  return (label >= 0) & (label < classes)


def _decode_paths(generator, rng, path, label):
  paths, points, _ = path.shape
  classes = num_classes(generator)
  _check_label(label, classes, paths)
  if label is None and classes:
    label = jnp.arange(paths) % classes
  samples = decode(
    generator,
    rng,
    path.reshape(paths * points, -1),
    label=None if label is None else jnp.repeat(jnp.asarray(label), points),
  )
  return samples.reshape(paths, points, *samples.shape[1:])
