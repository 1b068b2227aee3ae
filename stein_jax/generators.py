"""Generators: a key and a count in, samples [n, ...] out.

Modules of flax.linen that own their noise. `decode` is the network from a latent
vector on; what normalises by batch statistics is drawn in whole training-size
batches by `sample`, so that no sample depends on how many were asked for.
"""

from collections.abc import Callable, Mapping, Sequence
import math

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax

from stein_jax import checks
from stein_jax import collectives
from stein_jax import layers
from stein_jax import learners
from stein_jax.learners import Learner
from stein_jax.types import Array, Metrics, Params, PRNGKey

PRIORS = {
  'uniform': lambda rng, shape: jax.random.uniform(rng, shape, minval=-1.0),
  'normal': jax.random.normal,
}


class MLP(nn.Module):
  """A sampler of vectors: dense layers from a normal latent vector.

  Attributes:
    latent_dim: size of the latent vector.
    dim: size of a sample.
    widths: of the hidden layers.
  """

  latent_dim: int = 2
  dim: int = 2
  widths: Sequence[int] = (128, 128)
  prior: str = 'normal'

  def __post_init__(self):
    checks.count(latent_dim=self.latent_dim, dim=self.dim)
    checks.choice(PRIORS, prior=self.prior)
    super().__post_init__()

  @nn.compact
  def decode(self, z: Array) -> Array:
    """Returns samples [n, dim] of latents [n, latent_dim]."""
    for width in self.widths:
      z = nn.swish(nn.Dense(width)(z))
    return nn.Dense(self.dim)(z)

  def latent(self, rng: PRNGKey, num: int) -> Array:
    """Returns draws of the prior [num, latent_dim]."""
    return PRIORS[self.prior](rng, (num, self.latent_dim))

  def __call__(self, rng: PRNGKey, num: int) -> Array:
    """Returns samples [num, dim]."""
    return self.decode(self.latent(rng, num))


class DCGAN(nn.Module):
  """Deep convolutional generator: dense layers, then transposed convolutions.

  Batch normalisation and ReLU after all but the last layer, weights begun at
  N(0, 0.02^2), biases nowhere but in the norms. A label enters every layer, as
  further inputs or maps.

  Attributes:
    shape: of a sample, (height, width, channels).
    latent_dim: size of the latent vector.
    dense: widths of dense layers before the first map.
    base: maps at the lowest resolution.
    widths: maps of the transposed convolutions between the first and the last,
      whose maps are the image's channels.
    strides: of all transposed convolutions; their product divides the size.
    kernel_size: of all of them.
    num_classes: 0: unconditional.
    output: 'sigmoid', 'tanh' or 'linear'.
    norm_gain: whether the norms learn gain and bias.
    output_noise: standard deviation of Gaussian noise on the output, a constant:
      with it the sampler has a density everywhere.
    prior: of the latent vector: 'uniform' on [-1, 1] or 'normal'.
  """

  shape: Sequence[int] = (32, 32, 3)
  latent_dim: int = 100
  dense: Sequence[int] = ()
  base: int = 512
  widths: Sequence[int] = (256, 128)
  strides: Sequence[int] = (2, 2, 2)
  kernel_size: int = 5
  num_classes: int = 0
  output: str = 'tanh'
  norm_gain: bool = True
  output_noise: float = 0.0
  prior: str = 'uniform'

  def __post_init__(self):
    checks.count(latent_dim=self.latent_dim, base=self.base)
    checks.count(minimum=0, num_classes=self.num_classes)
    checks.choice(layers.ACTIVATIONS, output=self.output)
    checks.choice(PRIORS, prior=self.prior)
    checks.non_negative(output_noise=self.output_noise)
    if self.kernel_size % 2 == 0:
      raise ValueError(f'kernel_size={self.kernel_size} must be odd.')
    if len(self.strides) != len(self.widths) + 1:
      raise ValueError(
        f'strides={self.strides} must be one more than widths={self.widths}.'
      )
    factor = math.prod(self.strides)
    if self.shape[0] % factor or self.shape[1] % factor:
      raise ValueError(
        f'shape={self.shape} must divide by the product {factor} of strides.'
      )
    super().__post_init__()

  @nn.compact
  def decode(
    self,
    z: Array,
    *,
    label: Array | None = None,
    axis_name: str | None = None,
  ) -> Array:
    """Returns noise-free samples [n, *shape] of latents [n, latent_dim].

    Raises:
      ValueError: labels [n] without classes, or classes without labels.
    """
    if (label is None) != (self.num_classes == 0):
      raise ValueError(
        f'num_classes={self.num_classes}, but label is '
        f'{"missing" if label is None else "given"}.'
      )
    y = None if label is None else jax.nn.one_hot(label, self.num_classes)
    options = dict(
      axis_name=axis_name, gain=self.norm_gain, bias=self.norm_gain
    )
    active = lambda x: nn.relu(layers.normalized('batch', x, **options))
    dense = lambda x, width: nn.Dense(
      width, use_bias=False, kernel_init=layers.normal()
    )(layers.with_label(x, y))

    x = z
    for width in self.dense:
      x = active(dense(x, width))
    factor = math.prod(self.strides)
    height, width = self.shape[0] // factor, self.shape[1] // factor
    # Normalised unit by unit, as the authors do, not yet as maps.
    x = active(dense(x, height * width * self.base))
    x = x.reshape(len(x), height, width, self.base)
    for maps, stride in zip(self.widths, self.strides[:-1], strict=True):
      x = layers.with_label(x, y)
      x = active(layers.ConvTranspose(maps, self.kernel_size, stride)(x))
    x = layers.with_label(x, y)
    x = layers.ConvTranspose(self.shape[2], self.kernel_size, self.strides[-1])(
      x
    )
    return layers.ACTIVATIONS[self.output](x)

  def latent(self, rng: PRNGKey, num: int) -> Array:
    """Returns draws of the prior [num, latent_dim]."""
    return PRIORS[self.prior](rng, (num, self.latent_dim))

  def __call__(
    self,
    rng: PRNGKey,
    num: int,
    *,
    label: Array | None = None,
    axis_name: str | None = None,
  ) -> Array:
    """Returns samples [num, *shape], of the labels [num] where conditional."""
    latent_rng, noise_rng = jax.random.split(rng)
    z = self.latent(latent_rng, num)
    x = self.decode(z, label=label, axis_name=axis_name)
    if self.output_noise:
      x = x + self.output_noise * jax.random.normal(noise_rng, x.shape)
    return x


def Deconv(
  latent_dim: int = 100,
  width: int = 64,
  shape: Sequence[int] = (28, 28, 1),
  output: str = 'sigmoid',
  output_noise: float = 0.0,
) -> DCGAN:
  """Returns the generator of the RBM experiment [LW17 sec 5.1].

  Two dense and two transposed convolution layers, norms without gain and bias;
  `width` is the maps between the last two, 64 in the paper.
  """
  return DCGAN(
    shape=shape,
    latent_dim=latent_dim,
    dense=(16 * width,),
    base=2 * width,
    widths=(width,),
    strides=(2, 2),
    output=output,
    norm_gain=False,
    output_noise=output_noise,
  )


class TransitionOperator(nn.Module):
  """An autoencoder with noise at its bottleneck: images to images [Z16 sec 6].

  Each entry of the code is kept with chance `keep`, or else replaced by a draw from
  U(-1, 1). The encoder has 5x5 convolutions, each followed by 2x2 max pooling, and
  a dense layer with tanh; the decoder is a `DCGAN` of the same widths. Batch
  normalisation follows all layers but the last.

  Attributes:
    shape: of an image, (height, width, channels).
    latent_dim: size of the code.
    widths: maps of the convolutions.
    keep: chance that an entry of the code is kept.
  """

  shape: Sequence[int] = (28, 28, 1)
  latent_dim: int = 256
  widths: Sequence[int] = (64, 64)
  keep: float = 0.5

  prior = 'uniform'  # of the code

  def __post_init__(self):
    checks.count(latent_dim=self.latent_dim)
    checks.non_negative(keep=self.keep)
    checks.at_most(1, keep=self.keep)
    super().__post_init__()

  def setup(self):
    self.encoder = _Encoder(self.widths, self.latent_dim)
    self.decoder = DCGAN(
      shape=self.shape,
      latent_dim=self.latent_dim,
      base=self.widths[-1],
      widths=self.widths[-2::-1],
      strides=(2,) * len(self.widths),
      output='linear',
    )

  def encode(self, x: Array, *, axis_name: str | None = None) -> Array:
    """Returns codes [n, latent_dim] in (-1, 1)."""
    return self.encoder(x, axis_name=axis_name)

  def decode(
    self,
    z: Array,
    *,
    label: Array | None = None,
    axis_name: str | None = None,
  ) -> Array:
    """Returns images [n, *shape] in (0, 1) of codes [n, latent_dim]."""
    return nn.sigmoid(self.decoder.decode(z, label=label, axis_name=axis_name))

  def latent(self, rng: PRNGKey, num: int) -> Array:
    """Returns draws [num, latent_dim] of what replaces codes."""
    return PRIORS[self.prior](rng, (num, self.latent_dim))

  def reconstruct(self, x: Array, *, axis_name: str | None = None) -> Array:
    """Returns images like x, without noise."""
    return nn.sigmoid(self.reconstruction_logits(x, axis_name=axis_name))

  def reconstruction_logits(
    self, x: Array, *, axis_name: str | None = None
  ) -> Array:
    """Returns the logits of `reconstruct`, like x."""
    code = self.encode(x, axis_name=axis_name)
    return self.decoder.decode(code, axis_name=axis_name)

  def __call__(
    self, rng: PRNGKey, x: Array, *, axis_name: str | None = None
  ) -> Array:
    """Returns the images that x move to, like x."""
    keep_rng, latent_rng = jax.random.split(rng)
    code = self.encode(x, axis_name=axis_name)
    keep = jax.random.bernoulli(keep_rng, self.keep, code.shape)
    code = jnp.where(keep, code, self.latent(latent_rng, len(x)))
    return self.decode(code, axis_name=axis_name)


class _Encoder(nn.Module):
  """Convolutions with pooling, and a dense layer with tanh."""

  widths: Sequence[int]
  latent_dim: int

  @nn.compact
  def __call__(self, x, *, axis_name=None):
    norm = lambda x: layers.normalized('batch', x, axis_name=axis_name)
    glorot = nn.initializers.glorot_uniform()
    for width in self.widths:
      x = nn.Conv(width, (5, 5), use_bias=False, kernel_init=glorot)(x)
      x = layers.max_pool(nn.relu(norm(x)))
    x = layers.flat(x)
    x = nn.Dense(self.latent_dim, use_bias=False, kernel_init=glorot)(x)
    return jnp.tanh(norm(x))


def create(
  rng: PRNGKey,
  module: nn.Module,
  optimizer: Mapping | optax.GradientTransformation,
  num: int,
  label: Array | None = None,
) -> Learner:
  """Returns a learner of the generator that trains on batches of `num`."""
  context = {} if label is None else {'label': label}
  init_rng, rng = jax.random.split(rng)
  learner = learners.create(init_rng, module, optimizer, rng, num, **context)
  shape = jax.eval_shape(
    lambda params: generate(learner, params, rng, num, label=label),
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
) -> tuple[Learner, Learner]:
  """Returns learners of an energy of the data and of a generator like them.

  Raises:
    ValueError: the generator's samples have another shape than the data.
  """
  energy_rng, generator_rng = jax.random.split(rng)
  condition = () if label is None else (label,)
  generator = create(
    generator_rng, generator, generator_optimizer, len(data), label
  )
  checks.same_shape(data=data.shape[1:], samples=generator.input_shape)
  energy = learners.create(
    energy_rng, energy, energy_optimizer, data, *condition
  )
  return energy, generator


def generate(
  generator: Learner,
  params: Params,
  rng: PRNGKey,
  num: int,
  *,
  label: Array | None = None,
  axis_name: str | None = None,
) -> Array:
  """Returns one batch of samples [num, ...] at the given parameters."""
  context = {} if label is None else {'label': label}
  return learners.call(
    generator, params, rng, num, axis_name=axis_name, **context
  )


def follow(
  draw: Callable[[Params], Array],
  direction: Array,
  *,
  axis_name: str | None = None,
) -> Callable[[Params], tuple[Array, Metrics]]:
  """Returns the loss -mean G(xi).phi, phi held fixed [LW17 eq 21] [WL16 eq 10].

  Its gradient is minus the mean over the batch of (dG / d params)' phi: the chain
  rule.

  Args:
    draw: the generator's parameters to its samples [n, ...].
    direction: phi, like the samples.
    axis_name: the mapped axis over which the samples are split.
  """
  direction = lax.stop_gradient(direction)
  dot = lambda a, b: jnp.mean(jnp.sum((a * b).reshape(len(a), -1), -1))

  def loss_fn(params):
    samples = draw(params)
    mean = collectives.pmean(jnp.mean(samples, 0, keepdims=True), axis_name)
    metrics = {
      'generator/move': dot(direction, direction),
      'samples/variance': dot(samples - mean, samples - mean),
    }
    return -dot(samples, direction), metrics

  return loss_fn


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
) -> Array:
  """Returns samples [num, ...], cut from whole batches of the training size.

  A conditional generator fills its batches with the classes in turn, and
  of these the labels [num] asked for are taken; without labels they are 0, 1, ...
  in turn. So no sample depends on the number or the labels of its company.

  Raises:
    ValueError: labels for an unconditional generator, labels that are no class,
      or more classes than a batch has rows.
  """
  size, classes = generator.batch_size, num_classes(generator)
  _check_label(label, classes)
  if not classes:
    keys = jax.random.split(rng, -(-num // size))
    draw = lambda rng: generate(generator, generator.params, rng, size)
    return lax.map(draw, keys).reshape(-1, *generator.input_shape)[:num]
  if classes > size:
    raise ValueError(
      f'{classes} classes do not fit in batches of {size} to sample from.'
    )
  label = jnp.arange(num) % classes if label is None else jnp.asarray(label)
  each = size // classes  # rows of a batch that are of one class
  # The i-th request for its class is answered by batch i // each.
  asked = jax.nn.one_hot(label, classes, dtype=jnp.int32)
  rank = jnp.sum((jnp.cumsum(asked, 0) - 1) * asked, 1)
  batch, slot = rank // each, label + classes * (rank % each)
  request = jnp.full((max(1, -(-num // each)), size), num)
  request = request.at[batch, slot].set(jnp.arange(num))

  def fill(i, samples):
    rows = generate(
      generator,
      generator.params,
      jax.random.fold_in(rng, i),
      size,
      label=jnp.arange(size) % classes,
    )
    return samples.at[request[i]].set(rows, mode='drop')

  samples = jnp.zeros((num, *generator.input_shape))
  return lax.fori_loop(0, jnp.max(batch, initial=-1) + 1, fill, samples)


def decode(
  generator: Learner, rng: PRNGKey, z: Array, *, label: Array | None = None
) -> Array:
  """Returns the noise-free sample [m, ...] of each latent [m, k].

  Each is decoded as one row of a training-size batch, beside draws that depend
  on the key alone: neighbours in latent space are neighbours in the result.

  Raises:
    ValueError: labels for an unconditional generator, or that are no class.
  """
  size, classes = generator.batch_size, num_classes(generator)
  _check_label(label, classes)
  others = latent(generator, rng, size)

  def one(row):
    z, label = row
    context = {}
    if classes:
      context['label'] = (jnp.arange(size) % classes).at[0].set(label)
    batch = others.at[0].set(z)
    return generator.apply_fn(
      generator.params, batch, method='decode', **context
    )[0]

  if label is None:
    label = jnp.zeros(len(z), jnp.int32)
  return lax.map(one, (z, label))


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
  [-1, 1] where the prior is uniform.
  """
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

  Each line joins two draws of the prior.
  """
  ends_rng, others_rng = jax.random.split(rng)
  first, last = jnp.split(latent(generator, ends_rng, 2 * num_pairs), 2)
  share = jnp.linspace(0, 1, num_points)[None, :, None]
  path = (1 - share) * first[:, None] + share * last[:, None]
  return _decode_paths(generator, others_rng, path, label)


def _check_label(label, classes):
  """Raises ValueError unless labels, where their values are known, are classes."""
  if label is None:
    return
  if not classes:
    raise ValueError('This generator is unconditional: it takes no label.')
  if isinstance(label, jax.core.Tracer):
    return
  label = np.asarray(label)
  wrong = label[(label < 0) | (label >= classes)]
  if wrong.size:
    raise ValueError(f'label={wrong[0]} must be in 0, ..., {classes - 1}.')


def _decode_paths(generator, rng, path, label):
  paths, points, _ = path.shape
  classes = num_classes(generator)
  if label is None and classes:
    label = jnp.arange(paths) % classes
  samples = decode(
    generator,
    rng,
    path.reshape(paths * points, -1),
    label=None if label is None else jnp.repeat(jnp.asarray(label), points),
  )
  return samples.reshape(paths, points, *samples.shape[1:])
