"""Generators with an encoder whose codes are Gaussian."""

from collections.abc import Sequence
import itertools

from flax import linen as nn
import jax
import jax.numpy as jnp

from stein_jax import checks
from stein_jax import dtypes
from stein_jax import layers
from stein_jax.generators.networks import PRIORS
from stein_jax.types import Array, PRNGKey


class VAE(nn.Module):
  """A decoder of latent vectors and an encoder of images, with Gaussian codes [X21].

  The decoder has a dense layer and transposed convolutions, each but the last followed
  by batch norm without gain and by LeakyReLU(0.2). The encoder has convolutions with
  LeakyReLU(0.2), and dense layers for mean and log variance. All convolutions have
  padding 'same'.

  Attributes:
    shape: (height, width, channels) of an image.
    latent_dim: size of the latent vector.
    base: number of maps at the lowest resolution.
    widths: numbers of maps of all transposed convolutions but the last.
    strides: strides of all transposed convolutions.
    kernels: sides of their kernels.
    last_norm: whether a norm follows the last of `widths` too; without it, and with no
      widths, there is no norm, and no image depends on others.
    encoder_widths: numbers of maps of the encoder's convolutions; empty for a network
      without an encoder.
    encoder_strides: strides of the encoder's convolutions.
    encoder_kernels: sides of their kernels.
    dropout: share of each result of the encoder's convolutions that is set to 0 if a
      key is given.
    output: activation of the last layer: 'sigmoid', 'tanh' or 'linear'.
    scale: standard deviation of the initial weights.
    prior: distribution of the latent vector, always 'normal'.
  """

  shape: Sequence[int] = (28, 28, 1)
  latent_dim: int = 100
  base: int = 256
  widths: Sequence[int] = (128, 64)
  strides: Sequence[int] = (2, 2, 2)
  kernels: Sequence[int] = (4, 4, 4)
  last_norm: bool = True
  encoder_widths: Sequence[int] = (64, 64, 64)
  encoder_strides: Sequence[int] = (2, 2, 1)
  encoder_kernels: Sequence[int] = (4, 4, 4)
  dropout: float = 0.0
  output: str = 'tanh'
  scale: float = 0.02

  # This is not a field, since the divergence of codes is taken from N(0, I).
  prior = 'normal'

  def __post_init__(self):
    checks.image_shape(shape=self.shape)
    checks.counts(strides=self.strides, kernels=self.kernels)
    checks.counts(empty=True, widths=self.widths)
    checks.count(latent_dim=self.latent_dim, base=self.base)
    checks.choice(layers.ACTIVATIONS, output=self.output)
    checks.non_negative(dropout=self.dropout)
    checks.at_most(0.99, dropout=self.dropout)
    checks.positive(scale=self.scale)
    if not len(self.strides) == len(self.kernels) == len(self.widths) + 1:
      raise ValueError(
        f'strides={self.strides} and kernels={self.kernels} must have one entry '
        f'more than widths={self.widths}.'
      )
    if self.encoder_widths:
      _check_convolutions(
        self.encoder_widths, self.encoder_kernels, self.encoder_strides
      )
    super().__post_init__()

  def setup(self):
    if self.encoder_widths:
      self.encoder = _GaussianEncoder(
        self.latent_dim,
        self.encoder_widths,
        self.encoder_kernels,
        self.encoder_strides,
        self.dropout,
        self.scale,
      )
    self.sizes = _map_sizes(self.shape[:2], self.strides)
    start = layers.normal(self.scale)
    height, width = self.sizes[0]
    self.first = nn.Dense(
      height * width * self.base, use_bias=False, kernel_init=start
    )
    # The authors' code has these norms, with an offset alone and this epsilon.
    self.norms = [
      layers.BatchNorm(gain=False, epsilon=1e-3)
      for _ in range(len(self.widths) + self.last_norm)
    ]
    self.rises = [
      layers.ConvTranspose(maps, kernel, stride, size, self.scale)
      for maps, kernel, stride, size in zip(
        (*self.widths, self.shape[2]),
        self.kernels,
        self.strides,
        self.sizes[1:],
        strict=True,
      )
    ]
    # The norms have the offsets of all layers but the last.
    self.bias = self.param('bias', nn.initializers.zeros, (self.shape[2],))

  @property
  def mixes(self) -> bool:
    """Whether the image of one latent depends on the others, as norms make it."""
    return self.last_norm or len(self.widths) > 0

  def encode(
    self, x: Array, *, key: PRNGKey | None = None
  ) -> tuple[Array, Array]:
    """Returns mean and log variance of the codes [n, latent_dim] of images.

    Raises:
      ValueError: there is no encoder.
    """
    if not self.encoder_widths:
      raise ValueError('encoder_widths=() must have one or more widths.')
    return self.encoder(x, key)

  def decode(self, z: Array, *, axis_name: str | None = None) -> Array:
    """Returns images [n, *shape] of latents [n, latent_dim]."""
    x = self.first(z).reshape(len(z), *self.sizes[0], self.base)
    for i, rise in enumerate(self.rises):
      if i < len(self.norms):  # the last may have none
        x = self.norms[i](x, axis_name=axis_name)
      x = rise(nn.leaky_relu(x, 0.2))
    return layers.ACTIVATIONS[self.output](x + self.bias[None, None, None])

  def latent(self, rng: PRNGKey, num: int) -> Array:
    """Returns draws of the prior [num, latent_dim]."""
    return PRIORS[self.prior](rng, (num, self.latent_dim))

  def __call__(
    self, rng: PRNGKey, num: int, *, axis_name: str | None = None
  ) -> Array:
    """Returns samples [num, *shape]."""
    x = self.decode(self.latent(rng, num), axis_name=axis_name)
    # Sampling alone would leave the encoder without parameters.
    if self.is_initializing() and self.encoder_widths:
      self.encode(x)
    return x


class ImageToImage(nn.Module):
  """Generator of images from images and noise, with an encoder of both [X21].

  It has a 7x7 convolution, strided 3x3 convolutions, residual blocks at the lowest
  resolution, and transposed convolutions. The latent vector adds an offset to all
  pixels before the blocks. Each image is normalised by itself (instance norm), so no
  image depends on the others. The encoder is given the target beside the condition, as
  in a conditional variational autoencoder.

  Attributes:
    shape: (height, width, channels) of an image.
    latent_dim: size of the latent vector.
    widths: numbers of maps at each resolution, which halves from one to the next.
    num_blocks: number of residual blocks.
    encoder_widths: numbers of maps of the encoder's strided 4x4 convolutions.
    output: activation of the last layer: 'sigmoid', 'tanh' or 'linear'.
    scale: standard deviation of the initial weights.
    prior: distribution of the latent vector, always 'normal'.
    mixes: whether the image of one example depends on its batch; see `learners.call`.
  """

  shape: Sequence[int] = (64, 64, 3)
  latent_dim: int = 128
  widths: Sequence[int] = (32, 64, 128)
  num_blocks: int = 6
  encoder_widths: Sequence[int] = (64, 128, 256)
  output: str = 'tanh'
  scale: float = 0.02

  # As in `VAE` these are not fields.
  prior = 'normal'
  mixes = False

  def __post_init__(self):
    checks.image_shape(shape=self.shape)
    checks.counts(widths=self.widths, encoder_widths=self.encoder_widths)
    checks.count(latent_dim=self.latent_dim)
    checks.count(0, 20, num_blocks=self.num_blocks)  # traced one by one
    checks.choice(layers.ACTIVATIONS, output=self.output)
    checks.positive(scale=self.scale)
    factor = 2 ** (len(self.widths) - 1)
    if self.shape[0] % factor or self.shape[1] % factor:
      raise ValueError(
        f'shape={self.shape} must be divisible by {factor}, as {len(self.widths)} '
        'resolutions need.'
      )
    super().__post_init__()

  def setup(self):
    self.encoder = _GaussianEncoder(
      self.latent_dim,
      self.encoder_widths,
      (4,) * len(self.encoder_widths),
      (2,) * len(self.encoder_widths),
      0.0,
      self.scale,
    )

  def encode(
    self, x: Array, condition: Array, *, key: PRNGKey | None = None
  ) -> tuple[Array, Array]:
    """Returns mean and log variance of the codes [n, latent_dim] of images."""
    x, condition = map(dtypes.at_least_float32, (x, condition))
    checks.shape((*x.shape[:-1], *condition.shape[-1:]), condition=condition)
    return self.encoder(jnp.concatenate([x, condition], -1), key)

  @nn.compact
  def decode(self, z: Array, condition: Array) -> Array:
    """Returns images [n, *shape] of latents [n, latent_dim] and conditions."""
    z, condition = map(dtypes.at_least_float32, (z, condition))
    wanted = (len(z), *self.shape[:2], *condition.shape[-1:])
    checks.shape(wanted, condition=condition)
    start = layers.normal(self.scale)
    norm = lambda x: nn.InstanceNorm(epsilon=1e-5)(x)

    def conv(x, maps, size, stride=1):
      kernel = self.param(
        f'kernel_{next(numbers)}', start, (size, size, x.shape[-1], maps)
      )
      return layers.conv(x, kernel, stride=stride, padding='same')

    # A compact method names kernels by the order of their use.
    numbers = itertools.count()
    x = nn.relu(norm(conv(condition, self.widths[0], 7)))
    for maps in self.widths[1:]:
      x = nn.relu(norm(conv(x, maps, 3, stride=2)))
    offset = nn.Dense(x.shape[-1], kernel_init=start)(z)
    x = x + offset[:, None, None]
    for _ in range(self.num_blocks):
      y = nn.relu(norm(conv(x, x.shape[-1], 3)))
      x = x + norm(conv(y, x.shape[-1], 3))
    for maps in self.widths[-2::-1]:
      # Both 2 n and 2 n - 1 pixels are halved to n. The even number is meant.
      size = (2 * x.shape[1], 2 * x.shape[2])
      x = layers.ConvTranspose(maps, 3, 2, size, self.scale)(x)
      x = nn.relu(norm(x))
    x = conv(x, self.shape[2], 7)
    bias = self.param('bias', nn.initializers.zeros, (self.shape[2],))
    return layers.ACTIVATIONS[self.output](x + bias[None, None, None])

  def latent(self, rng: PRNGKey, num: int) -> Array:
    """Returns draws of the prior [num, latent_dim]."""
    return PRIORS[self.prior](rng, (num, self.latent_dim))

  def __call__(self, rng: PRNGKey, num: int, *, condition: Array) -> Array:
    """Returns samples [num, *shape], given the conditions [num, h, w, c]."""
    x = self.decode(self.latent(rng, num), condition)
    # Sampling alone would leave the encoder without parameters.
    if self.is_initializing():
      self.encode(x, condition)
    return x


class _GaussianEncoder(nn.Module):
  """Convolutions with LeakyReLU, and dense layers for mean and log variance."""

  latent_dim: int
  widths: Sequence[int]
  kernels: Sequence[int]
  strides: Sequence[int]
  dropout: float
  scale: float

  @nn.compact
  def __call__(self, x, key=None):
    x = dtypes.at_least_float32(x)
    start = layers.normal(self.scale)
    for i, (maps, size, stride) in enumerate(
      zip(self.widths, self.kernels, self.strides, strict=True)
    ):
      shape = (size, size, x.shape[-1], maps)
      kernel = self.param(f'kernel_{i}', start, shape)
      x = layers.conv(x, kernel, stride=stride, padding='same')
      bias = self.param(f'bias_{i}', nn.initializers.zeros, (maps,))
      x = nn.leaky_relu(x + bias[None, None, None], 0.2)
      # With one key for all, what layers drop would be correlated.
      layer_key = None if key is None else jax.random.fold_in(key, i)
      x = nn.Dropout(self.dropout)(x, deterministic=key is None, rng=layer_key)
    dense = lambda name: nn.Dense(
      self.latent_dim, kernel_init=start, name=name
    )(layers.flat(x))
    return dense('mean'), dense('log_variance')


def _map_sizes(size, strides):
  """Returns the sizes of the maps before, between and after the strides."""
  # Sizes follow from the image back, since a convolution 'same' rounds them up.
  sizes = [tuple(size)]
  for stride in strides[::-1]:
    sizes.append(tuple(-(-extent // stride) for extent in sizes[-1]))
  return sizes[::-1]


def _check_convolutions(widths, kernels, strides):
  checks.counts(
    encoder_widths=widths, encoder_kernels=kernels, encoder_strides=strides
  )
  checks.same_length(
    encoder_widths=widths, encoder_kernels=kernels, encoder_strides=strides
  )
