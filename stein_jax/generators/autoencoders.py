"""Generators with an encoder, whose codes are Gaussian."""

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
  """A decoder of latents and an encoder of images, for Gaussian codes [X21].

  The decoder is a dense layer and transposed convolutions, with batch norm (offsets
  alone) and LeakyReLU(0.2) after each but the last; the encoder convolutions with
  LeakyReLU, and dense layers of mean and log variance. Convolutions are 'same'.

  Attributes:
    shape: of an image, (height, width, channels).
    latent_dim: size of the latent vector.
    base: maps at the lowest resolution.
    widths: maps of the transposed convolutions but the last.
    strides: of all of them.
    kernels: their sides.
    last_norm: whether the last of `widths` is normalised too.
    encoder_widths: maps of the encoder's convolutions; empty: there is no encoder.
    encoder_strides: of each.
    encoder_kernels: their sides.
    dropout: share of what each encoder's convolution gives set to 0, where a key is
      given.
    output: 'sigmoid', 'tanh' or 'linear'.
    scale: standard deviation of the first weights.
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
        f'strides={self.strides} and kernels={self.kernels} must be one more '
        f'than widths={self.widths}.'
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
    sizes = [tuple(self.shape[:2])]
    for stride in self.strides[::-1]:
      sizes.append(tuple(-(-extent // stride) for extent in sizes[-1]))
    self.sizes = sizes[::-1]  # of the maps, lowest resolution first
    start = layers.normal(self.scale)
    height, width = self.sizes[0]
    self.first = nn.Dense(
      height * width * self.base, use_bias=False, kernel_init=start
    )
    self.norms = [
      layers.BatchNorm(gain=False, epsilon=1e-3)
      for _ in range(len(self.widths) + self.last_norm)
    ]
    self.rises = [
      layers.ConvTranspose(maps, size, stride, onto, self.scale)
      for maps, size, stride, onto in zip(
        (*self.widths, self.shape[2]),
        self.kernels,
        self.strides,
        self.sizes[1:],
        strict=True,
      )
    ]
    self.bias = self.param('bias', nn.initializers.zeros, (self.shape[2],))

  def encode(
    self, x: Array, *, axis_name: str | None = None, key: PRNGKey | None = None
  ) -> tuple[Array, Array]:
    """Returns mean and log variance of the code [n, latent_dim] of images.

    Raises:
      ValueError: there is no encoder.
    """
    del axis_name  # no example of the encoder sees another
    if not self.encoder_widths:
      raise ValueError('encoder_widths=() leaves no encoder.')
    return self.encoder(x, key)

  def decode(self, z: Array, *, axis_name: str | None = None) -> Array:
    """Returns images [n, *shape] of latents [n, latent_dim]."""
    x = self.first(z).reshape(len(z), *self.sizes[0], self.base)
    for i, rise in enumerate(self.rises):
      if i < len(self.norms):
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
    if self.is_initializing() and self.encoder_widths:
      self.encode(x)
    return x


class ImageToImage(nn.Module):
  """A generator of images from images and noise, with an encoder of both [X21].

  A 7x7 and strided 3x3 convolutions, residual blocks at the lowest resolution,
  where the latent vector joins as an offset of every pixel, and the way back up.
  Norms are each image's own (instance norm), so no image depends on the others. The
  encoder sees the target beside the condition, as the first half of a conditional
  variational autoencoder.

  Attributes:
    shape: of an image, (height, width, channels).
    latent_dim: size of the latent vector.
    widths: maps at each resolution, halved from one to the next.
    num_blocks: residual blocks.
    encoder_widths: maps of the encoder's strided 4x4 convolutions.
    output: 'sigmoid', 'tanh' or 'linear'.
    scale: standard deviation of the first weights.
  """

  shape: Sequence[int] = (64, 64, 3)
  latent_dim: int = 128
  widths: Sequence[int] = (32, 64, 128)
  num_blocks: int = 6
  encoder_widths: Sequence[int] = (64, 128, 256)
  output: str = 'tanh'
  scale: float = 0.02

  prior = 'normal'
  mixes = False

  def __post_init__(self):
    checks.image_shape(shape=self.shape)
    checks.counts(widths=self.widths, encoder_widths=self.encoder_widths)
    checks.count(latent_dim=self.latent_dim)
    checks.count(minimum=0, num_blocks=self.num_blocks)
    checks.choice(layers.ACTIVATIONS, output=self.output)
    checks.positive(scale=self.scale)
    factor = 2 ** (len(self.widths) - 1)
    if self.shape[0] % factor or self.shape[1] % factor:
      raise ValueError(
        f'shape={self.shape} must divide by {factor}, as {len(self.widths)} '
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
    """Returns mean and log variance of the code [n, latent_dim] of images."""
    x, condition = map(dtypes.at_least_float32, (x, condition))
    checks.shape((*x.shape[:-1], *condition.shape[-1:]), condition=condition)
    return self.encoder(jnp.concatenate([x, condition], -1), key)

  @nn.compact
  def decode(self, z: Array, condition: Array) -> Array:
    """Returns images [n, *shape] of latents [n, latent_dim] and images."""
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
    """Returns samples [num, *shape], of the images [num, h, w, c]."""
    x = self.decode(self.latent(rng, num), condition)
    if self.is_initializing():
      self.encode(x, condition)
    return x


class _GaussianEncoder(nn.Module):
  """Convolutions with LeakyReLU, and dense layers of mean and log variance."""

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
      x = nn.Dropout(self.dropout)(
        x,
        deterministic=key is None,
        rng=None if key is None else jax.random.fold_in(key, i),
      )
    dense = lambda name: nn.Dense(
      self.latent_dim, kernel_init=start, name=name
    )(layers.flat(x))
    return dense('mean'), dense('log_variance')


def _check_convolutions(widths, kernels, strides):
  checks.counts(
    encoder_widths=widths, encoder_kernels=kernels, encoder_strides=strides
  )
  if not len(widths) == len(kernels) == len(strides):
    raise ValueError(
      f'encoder_widths={widths}, encoder_kernels={kernels} and '
      f'encoder_strides={strides} must be as many.'
    )
