"""Generators that are networks."""

from collections.abc import Sequence
import math

from flax import linen as nn
import jax
import jax.numpy as jnp

from stein_jax import checks
from stein_jax import dtypes
from stein_jax import layers
from stein_jax.types import Array, PRNGKey

PRIORS = {
  'uniform': lambda rng, shape: jax.random.uniform(rng, shape, minval=-1.0),
  'normal': jax.random.normal,
}


class MLP(nn.Module):
  """Generator of vectors by dense layers, from a latent vector and maybe a condition.

  Attributes:
    latent_dim: size of the latent vector.
    dim: size of a sample.
    widths: widths of the hidden layers.
    prior: distribution of the latent vector, 'normal' or 'uniform' on [-1, 1].
  """

  latent_dim: int = 2
  dim: int = 2
  widths: Sequence[int] = (128, 128)
  prior: str = 'normal'

  def __post_init__(self):
    checks.count(latent_dim=self.latent_dim, dim=self.dim)
    checks.counts(empty=True, widths=self.widths)
    checks.choice(PRIORS, prior=self.prior)
    super().__post_init__()

  @nn.compact
  def decode(self, z: Array, condition: Array | None = None) -> Array:
    """Returns samples [n, dim] of latents [n, latent_dim] and a condition [n, k]."""
    z = dtypes.floating(z)
    if condition is not None:
      condition = dtypes.floating(condition)
      checks.shape((len(z), *condition.shape[-1:]), condition=condition)
      z = jnp.concatenate([z, condition], 1)
    for width in self.widths:
      z = nn.swish(nn.Dense(width)(z))
    return nn.Dense(self.dim)(z)

  def latent(self, rng: PRNGKey, num: int) -> Array:
    """Returns draws of the prior [num, latent_dim]."""
    return PRIORS[self.prior](rng, (num, self.latent_dim))

  def __call__(
    self, rng: PRNGKey, num: int, *, condition: Array | None = None
  ) -> Array:
    """Returns samples [num, dim]."""
    return self.decode(self.latent(rng, num), condition)


class Coupling(nn.Module):
  """Generator of vectors by coupling layers, so that its density is known [DSB17].

  Each layer scales and shifts half of the coordinates by a network of the other half,
  which it leaves as it is. So a layer can be inverted, and the logarithm of its
  determinant is the sum of the log scales, each of which lies between -1 and 1.

  Attributes:
    dim: size of a sample, and of the latent vector.
    widths: widths of the hidden layers of each network.
    num_layers: number of layers, which move the two halves in turn.
    prior: distribution of the latent vector, always 'normal'.

  Examples:
    >>> network = Coupling(dim=2)
    >>> params = network.init(jax.random.key(0), jax.random.key(1), 3)
    >>> x = jnp.ones((3, 2))
    >>> print(network.apply(params, x, method='log_density').shape)
    (3,)
  """

  dim: int = 2
  widths: Sequence[int] = (64,)
  num_layers: int = 8
  prior = 'normal'  # `log_density` knows no other

  def __post_init__(self):
    checks.count(minimum=2, dim=self.dim)
    checks.count(1, 100, num_layers=self.num_layers)  # traced one by one
    super().__post_init__()

  # The networks are made in setup, since both directions share them.
  def setup(self):
    half = self.dim // 2
    moved = [
      self.dim - half if i % 2 == 0 else half for i in range(self.num_layers)
    ]
    self.networks = [_Dense(self.widths, 2 * size) for size in moved]

  def decode(self, z: Array) -> Array:
    """Returns samples [n, dim] of latents [n, dim]."""
    z = dtypes.at_least_float32(z)
    checks.shape((len(z), self.dim), z=z)
    for i, network in enumerate(self.networks):
      kept, moved = self._halves(z, i)
      shift, log_scale = _shift_and_scale(network(kept))
      z = self._whole(kept, moved * jnp.exp(log_scale) + shift, i)
    return z

  def log_density(self, x: Array) -> Array:
    """Returns the log density [n] of the samples' distribution at x [n, dim]."""
    x = dtypes.at_least_float32(x)
    checks.shape((len(x), self.dim), x=x)
    # The layers are undone from the last. x = T(z) has log density log p(z)
    # minus the log determinants of the layers.
    log_scales = 0.0
    for i, network in reversed(list(enumerate(self.networks))):
      kept, moved = self._halves(x, i)
      shift, log_scale = _shift_and_scale(network(kept))
      x = self._whole(kept, (moved - shift) * jnp.exp(-log_scale), i)
      log_scales += jnp.sum(log_scale, -1)
    constant = 0.5 * self.dim * math.log(2 * math.pi)
    return -0.5 * jnp.sum(x * x, -1) - constant - log_scales

  def latent(self, rng: PRNGKey, num: int) -> Array:
    """Returns draws of the prior [num, dim]."""
    return PRIORS[self.prior](rng, (num, self.dim))

  def __call__(self, rng: PRNGKey, num: int) -> Array:
    """Returns samples [num, dim]."""
    return self.decode(self.latent(rng, num))

  def _halves(self, x, i):
    # Both are moved in turn, since one that never is would keep the prior's
    # law.
    halves = jnp.split(x, [self.dim // 2], -1)
    return halves[:: -1 if i % 2 else 1]

  def _whole(self, kept, moved, i):
    return jnp.concatenate([moved, kept] if i % 2 else [kept, moved], -1)


class _Dense(nn.Module):
  """Dense layers with tanh, and a linear one whose weights are 0 at first."""

  widths: Sequence[int]
  outputs: int

  @nn.compact
  def __call__(self, x):
    for width in self.widths:
      x = jnp.tanh(nn.Dense(width)(x))
    # Zeros make each coupling the identity at first, so that training starts
    # from the prior.
    return nn.Dense(self.outputs, kernel_init=nn.initializers.zeros)(x)


def _shift_and_scale(outputs):
  shift, log_scale = jnp.split(outputs, 2, -1)
  # A bounded scale can neither overflow nor vanish in a product of many layers.
  return shift, jnp.tanh(log_scale)


class DCGAN(nn.Module):
  """Deep convolutional generator of dense layers and transposed convolutions.

  Batch normalisation and ReLU follow all layers but the last. The initial weights are
  N(0, 0.02^2), and only the norms have biases. A label enters every layer as further
  channels.

  Attributes:
    shape: (height, width, channels) of a sample.
    latent_dim: size of the latent vector.
    dense: widths of dense layers before the one that makes the first maps.
    base: number of maps at the lowest resolution.
    widths: numbers of maps of all transposed convolutions but the last, which makes the
      channels of the image.
    strides: strides of all transposed convolutions, whose product divides height and
      width.
    kernel_size: side of all their kernels.
    num_classes: number of classes of the labels; 0 for an unconditional generator.
    output: activation of the last layer: 'sigmoid', 'tanh' or 'linear'.
    norm_gain: whether the norms learn gain and bias.
    output_noise: standard deviation of Gaussian noise that is added to the output, by
      which samples have a density everywhere.
    prior: distribution of the latent vector, 'uniform' on [-1, 1] or 'normal'.
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
    checks.image_shape(shape=self.shape)
    checks.counts(strides=self.strides)
    checks.counts(empty=True, dense=self.dense, widths=self.widths)
    checks.count(
      latent_dim=self.latent_dim, base=self.base, kernel_size=self.kernel_size
    )
    checks.count(minimum=0, num_classes=self.num_classes)
    checks.choice(layers.ACTIVATIONS, output=self.output)
    checks.choice(PRIORS, prior=self.prior)
    checks.non_negative(output_noise=self.output_noise)
    if self.kernel_size % 2 == 0:  # an even kernel has unequal padding
      raise ValueError(f'kernel_size={self.kernel_size} must be odd.')
    if len(self.strides) != len(self.widths) + 1:
      raise ValueError(
        f'strides={self.strides} must have one entry more than '
        f'widths={self.widths}.'
      )
    factor = math.prod(self.strides)
    if self.shape[0] % factor or self.shape[1] % factor:
      raise ValueError(
        f'shape={self.shape} must be divisible by {factor}, the product of '
        f'strides={self.strides}.'
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

    The sample of a traced label that is not a class is nan.

    Raises:
      ValueError: there are labels without classes or classes without labels, or the
        labels are not [n] or not among the classes.
    """
    y = self._one_hot(label, len(z))
    options = dict(
      axis_name=axis_name, gain=self.norm_gain, bias=self.norm_gain
    )
    active = lambda x: nn.relu(layers.normalized('batch', x, **options))

    def dense(x, width):
      layer = nn.Dense(width, use_bias=False, kernel_init=layers.normal())
      return layer(layers.with_label(x, y))

    def conv_transpose(x, maps, stride):
      layer = layers.ConvTranspose(maps, self.kernel_size, stride)
      return layer(layers.with_label(x, y))

    x = z
    for width in self.dense:
      x = active(dense(x, width))
    factor = math.prod(self.strides)
    height, width = self.shape[0] // factor, self.shape[1] // factor
    # As in the authors' network the norm is of units, and not of whole maps.
    x = active(dense(x, height * width * self.base))
    x = x.reshape(len(x), height, width, self.base)
    for maps, stride in zip(self.widths, self.strides[:-1], strict=True):
      x = active(conv_transpose(x, maps, stride))
    x = conv_transpose(x, self.shape[2], self.strides[-1])
    return layers.ACTIVATIONS[self.output](x)

  def _one_hot(self, label, num):
    if (label is None) != (self.num_classes == 0):
      raise ValueError(
        f'num_classes={self.num_classes}, but label is '
        f'{"missing" if label is None else "given"}.'
      )
    if label is None:
      return None
    checks.labels(self.num_classes, label=label)
    checks.per_example(num, label=label)
    return layers.one_hot(label, self.num_classes)

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
    """Returns samples [num, *shape], of the labels [num] if there are classes."""
    # The key is split without noise too, so that noise does not change latents.
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
  norm_gain: bool = False,
) -> DCGAN:
  """Returns the generator of the RBM experiment [LW17 sec 5.1].

  It has two dense layers and two transposed convolutions, with `width` maps between
  these, 64 in the paper. The other arguments are those of `DCGAN`.
  """
  checks.count(width=width)
  return DCGAN(
    shape=shape,
    latent_dim=latent_dim,
    dense=(16 * width,),
    base=2 * width,
    widths=(width,),
    strides=(2, 2),
    output=output,
    norm_gain=norm_gain,
    output_noise=output_noise,
  )


class TransitionOperator(nn.Module):
  """Autoencoder with a noisy code, which moves images to images [Z16 sec 6].

  Each entry of the code is kept with probability `keep`, and otherwise replaced by a
  draw from U(-1, 1). The encoder has 5x5 convolutions with 2x2 max pooling and a dense
  layer with tanh. The decoder is a `DCGAN` of the same widths. Batch normalisation
  follows all layers but the last.

  Attributes:
    shape: (height, width, channels) of an image.
    latent_dim: size of the code.
    widths: numbers of maps of the convolutions.
    keep: probability that an entry of the code is kept.
    prior: distribution of the entries that replace others, always 'uniform'.
  """

  shape: Sequence[int] = (28, 28, 1)
  latent_dim: int = 256
  widths: Sequence[int] = (64, 64)
  keep: float = 0.5

  prior = 'uniform'  # a code's tanh has the same range

  def __post_init__(self):
    checks.image_shape(shape=self.shape)
    checks.counts(widths=self.widths)
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
      output='linear',  # logits, of which a cross entropy cannot overflow
    )

  def encode(self, x: Array, *, axis_name: str | None = None) -> Array:
    """Returns codes [n, latent_dim] in (-1, 1)."""
    return self.encoder(dtypes.at_least_float32(x), axis_name=axis_name)

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
    """Returns draws [num, latent_dim] of the entries that replace those of codes."""
    return PRIORS[self.prior](rng, (num, self.latent_dim))

  def reconstruct(self, x: Array, *, axis_name: str | None = None) -> Array:
    """Returns images like x, decoded from codes without noise."""
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
  """Convolutions with pooling, and a dense layer with tanh, all with batch norm."""

  widths: Sequence[int]
  latent_dim: int

  @nn.compact
  def __call__(self, x, *, axis_name=None):
    norm = lambda x: layers.normalized('batch', x, axis_name=axis_name)
    glorot = nn.initializers.glorot_uniform()
    for width in self.widths:
      # The norm would subtract a bias, and adds one of its own.
      x = nn.Conv(width, (5, 5), use_bias=False, kernel_init=glorot)(x)
      x = layers.max_pool(nn.relu(norm(x)))
    x = layers.flat(x)
    x = nn.Dense(self.latent_dim, use_bias=False, kernel_init=glorot)(x)
    return jnp.tanh(norm(x))
