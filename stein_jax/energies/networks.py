"""Energies that are networks."""

from collections.abc import Callable, Sequence

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from stein_jax import checks
from stein_jax import collectives
from stein_jax import dtypes
from stein_jax import layers
from stein_jax.types import Array, PRNGKey


class MLP(nn.Module):
  """Fully connected energy for low dimensions: dense layers, one output.

  Attributes:
    widths: of the hidden layers.
    confinement: E carries confinement |x|^2 / 2, so that exp(-E) can be
      normalised whatever the network does far out.
  """

  widths: Sequence[int] = (128, 128)
  confinement: float = 0.01
  activation: Callable[[Array], Array] = nn.swish

  def __post_init__(self):
    checks.counts(empty=True, widths=self.widths)
    checks.non_negative(confinement=self.confinement)
    super().__post_init__()

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns E(x) [n]."""
    x = layers.flat(dtypes.at_least_float32(x))
    hidden = x
    for width in self.widths:
      hidden = self.activation(nn.Dense(width)(hidden))
    output = nn.Dense(1)(hidden)[:, 0]
    return output + 0.5 * self.confinement * jnp.sum(x * x, -1)


class Autoencoder(nn.Module):
  """Deep autoencoder energy: how badly an image is reconstructed [LW17 eq 24].

  The decoder is the encoder's mirror with the same kernels, transposed, and norms
  of its own [WL16 eq 14]. All layers but the last are followed by ReLU, and all but
  the first and the last by a norm.

  Attributes:
    convs: (width, kernel size, stride, padding) of each layer of the encoder; a
      dense layer is one whose kernel and stride cover the image.
    output: 'sigmoid', 'tanh' or 'linear', after the range of the images.
    residual: of x - reconstruction: its 'l2' norm, 'l1_l2' (that plus the square
      root of its L1 norm, the authors' choice for faces and bedrooms) or 'squared'.
    norm: 'batch', by the statistics of the batch at hand; 'layer'; or 'none', each
      example by itself.
    dropout: share of inputs set to 0 where a key is given.
  """

  convs: Sequence[Sequence[int]] = (
    (64, 5, 2, 2),
    (128, 5, 2, 2),
    (512, 7, 7, 0),
  )
  output: str = 'sigmoid'
  residual: str = 'l2'
  norm: str = 'batch'
  dropout: float = 0.3

  def __post_init__(self):
    _check_convs(self.convs)
    checks.choice(layers.ACTIVATIONS, output=self.output)
    checks.choice(_RESIDUALS, residual=self.residual)
    checks.choice(layers.NORMS, norm=self.norm)
    checks.non_negative(dropout=self.dropout)
    checks.at_most(0.99, dropout=self.dropout)
    super().__post_init__()

  @property
  def mixes(self) -> bool:
    """Whether the energy of one example depends on the others of its batch."""
    return self.norm == 'batch'

  @nn.compact
  def _run(self, x, *, axis_name=None, rng=None):
    """Returns the features [n, f] and the reconstruction, like x."""

    def active(y):
      return nn.relu(layers.normalized(self.norm, y, axis_name=axis_name))

    x = _dropout(dtypes.at_least_float32(x), self.dropout, rng)
    kernels, sizes = [], []
    for i, (width, size, stride, padding) in enumerate(self.convs):
      kernel = self.param(
        f'kernel_{i}', layers.normal(), (size, size, x.shape[-1], width)
      )
      kernels.append(kernel)
      sizes.append(x.shape[1:3])
      x = layers.conv(x, kernel, stride=stride, padding=padding)
      x = active(x) if i else nn.relu(x)
    features = layers.flat(x)
    for i, (_, _, stride, padding) in reversed(list(enumerate(self.convs))):
      x = layers.conv_transpose(
        x, kernels[i], stride=stride, padding=padding, size=sizes[i]
      )
      x = active(x) if i else layers.ACTIVATIONS[self.output](x)
    return features, x

  def __call__(
    self, x: Array, *, axis_name: str | None = None, rng: PRNGKey | None = None
  ) -> Array:
    """Returns E(x) [n]."""
    return self.reconstruction_error(x, axis_name=axis_name, rng=rng)

  def features(self, x: Array, **context) -> Array:
    """Returns the bottleneck [n, f], after its norm and ReLU."""
    return self._run(x, **context)[0]

  def reconstruct(self, x: Array, **context) -> Array:
    """Returns the reconstruction, like x."""
    return self._run(x, **context)[1]

  def reconstruction_error(self, x: Array, **context) -> Array:
    """Returns the residual's size [n]: the energy."""
    return self.both(x, **context)[1]

  def both(self, x: Array, **context) -> tuple[Array, Array]:
    """Returns the features [n, f] and the residual's size [n], of one pass."""
    features, reconstruction = self._run(x, **context)
    return features, _RESIDUALS[self.residual](layers.flat(x - reconstruction))


class JointLabel(nn.Module):
  """Energy of an image and its label [LW17 eq 25] [WL16 eq 15].

  E(x, y) = autoencoder's E(x) + max(margin, cross entropy of y given x). Below the
  margin the label asks for no more, so that confidence is not rewarded for ever.

  Attributes:
    autoencoder: the energy of the image; its features classify.
    num_classes: labels y are 0, ..., num_classes - 1.
    margin: m, in nats.
    dropout: share of features set to 0 before they classify, where a key is given.
  """

  autoencoder: Autoencoder
  num_classes: int = 10
  margin: float = 1.0
  dropout: float = 0.0

  def __post_init__(self):
    checks.count(num_classes=self.num_classes)
    checks.non_negative(margin=self.margin, dropout=self.dropout)
    checks.at_most(0.99, dropout=self.dropout)
    super().__post_init__()

  @property
  def mixes(self) -> bool:
    """Whether the energy of one example depends on the others of its batch."""
    return self.autoencoder.mixes

  def setup(self):
    self.classifier = nn.Dense(
      self.num_classes, use_bias=False, kernel_init=layers.normal()
    )

  def __call__(
    self,
    x: Array,
    y: Array,
    *,
    axis_name: str | None = None,
    rng: PRNGKey | None = None,
  ) -> Array:
    """Returns E(x, y) [n] of images and labels [n]; nan of one that is no class.

    Raises:
      ValueError: the labels are no integers [n], or are known and out of range.
    """
    rng, classifier_rng = _two_keys(rng)
    features, error = self.autoencoder.both(x, axis_name=axis_name, rng=rng)
    log_probability = nn.log_softmax(self._classify(features, classifier_rng))
    hot = layers.one_hot(y, self.num_classes)
    checks.rows(len(x), label=hot)
    hot = hot.astype(log_probability.dtype)
    likelihood = jnp.sum(hot * log_probability, -1)
    return error + jnp.maximum(self.margin, -likelihood)

  def logits(self, x: Array, *, axis_name=None, rng=None) -> Array:
    """Returns the classifier's logits [n, num_classes]."""
    rng, classifier_rng = _two_keys(rng)
    features = self.autoencoder.features(x, axis_name=axis_name, rng=rng)
    return self._classify(features, classifier_rng)

  def features(self, x: Array, **context) -> Array:
    """Returns the autoencoder's features [n, f]."""
    return self.autoencoder.features(x, **context)

  def reconstruct(self, x: Array, **context) -> Array:
    """Returns the reconstruction, like x."""
    return self.autoencoder.reconstruct(x, **context)

  def reconstruction_error(self, x: Array, **context) -> Array:
    """Returns the autoencoder's energy [n], without the label's."""
    return self.autoencoder.reconstruction_error(x, **context)

  def _classify(self, features, rng):
    return self.classifier(_dropout(features, self.dropout, rng))


class Discriminator(nn.Module):
  """DCGAN's discriminator as an energy: E = -logit that x is real.

  Strided 5x5 convolutions with LeakyReLU(0.2), norms after all but the first, and a
  dense layer. A label enters every layer as further maps.

  Attributes:
    widths: of the convolutions.
    num_classes: 0: unconditional.
    norm: 'batch', 'layer' (each example by itself, for WGAN-GP) or 'none'.
  """

  widths: Sequence[int] = (64, 128)
  num_classes: int = 0
  norm: str = 'batch'

  def __post_init__(self):
    checks.counts(widths=self.widths)
    checks.count(minimum=0, num_classes=self.num_classes)
    checks.choice(layers.NORMS, norm=self.norm)
    super().__post_init__()

  @property
  def mixes(self) -> bool:
    """Whether the energy of one example depends on the others of its batch."""
    return self.norm == 'batch'

  @nn.compact
  def __call__(
    self, x: Array, *label: Array, axis_name: str | None = None
  ) -> Array:
    """Returns E(x) or E(x, y) [n]; nan of a label that is no class.

    Raises:
      ValueError: a label is missing, or not asked for; the labels are no integers
        [n], or are known and out of range.
    """
    if len(label) != (self.num_classes > 0):
      raise ValueError(
        f'num_classes={self.num_classes}, but label is '
        f'{"given" if label else "missing"}.'
      )
    x = dtypes.at_least_float32(x)
    y = layers.one_hot(label[0], self.num_classes) if label else None
    for i, width in enumerate(self.widths):
      x = layers.with_label(x, y)
      kernel = self.param(
        f'kernel_{i}', layers.normal(), (5, 5, x.shape[-1], width)
      )
      x = layers.conv(x, kernel, stride=2, padding=2)
      if i:
        x = layers.normalized(self.norm, x, axis_name=axis_name)
      x = nn.leaky_relu(x, 0.2)
    x = layers.with_label(layers.flat(x), y)
    logit = nn.Dense(1, use_bias=False, kernel_init=layers.normal())(x)
    return -logit[:, 0]


class ConvNet(nn.Module):
  """Convolutional energy, with or without a Gaussian reference [X21].

  E(x) = |x|^2 / (2 sigma^2) - f(x); f is the sum of the outputs of convolutions with
  LeakyReLU(0.2) and a dense layer. Images that condition it are further channels,
  of which the reference is not.

  Attributes:
    widths: of the convolutions, padded 'same'.
    kernels: their sides.
    strides: of each.
    outputs: of the dense layer.
    reference_sigma: sigma, in units of the images; 0 for no reference.
    activation: 'leaky_relu' or 'swish', which has slopes of its own everywhere.
    spectral_norm: every layer's largest singular value is about 1; see
      `layers.spectral_normalized`.
    scale: standard deviation of the first weights.
  """

  widths: Sequence[int] = (64, 128, 256)
  kernels: Sequence[int] = (5, 3, 3)
  strides: Sequence[int] = (2, 2, 1)
  outputs: int = 1
  reference_sigma: float = 0.0
  activation: str = 'leaky_relu'
  spectral_norm: bool = False
  scale: float = 0.005

  def __post_init__(self):
    checks.counts(
      widths=self.widths, kernels=self.kernels, strides=self.strides
    )
    checks.count(outputs=self.outputs)
    checks.non_negative(reference_sigma=self.reference_sigma)
    checks.choice(_ACTIVATIONS, activation=self.activation)
    checks.positive(scale=self.scale)
    if not len(self.widths) == len(self.kernels) == len(self.strides):
      raise ValueError(
        f'widths={self.widths}, kernels={self.kernels} and '
        f'strides={self.strides} must be as many.'
      )
    super().__post_init__()

  @nn.compact
  def __call__(self, x: Array, *condition: Array) -> Array:
    """Returns E(x) [n], of images and, where conditional, images [n, h, w, c]."""
    normed = (
      layers.spectral_normalized
      if self.spectral_norm
      else lambda kernel: kernel
    )
    start, zeros = layers.normal(self.scale), nn.initializers.zeros
    x, *condition = dtypes.promoted(x, *condition)
    hidden = jnp.concatenate([x, *condition], -1)
    for i, (width, size, stride) in enumerate(
      zip(self.widths, self.kernels, self.strides, strict=True)
    ):
      shape = (size, size, hidden.shape[-1], width)
      kernel = normed(self.param(f'kernel_{i}', start, shape))
      hidden = layers.conv(hidden, kernel, stride=stride, padding='same')
      bias = self.param(f'bias_{i}', zeros, (width,))
      hidden = _ACTIVATIONS[self.activation](hidden + bias[None, None, None])
    hidden = layers.flat(hidden)
    shape = (hidden.shape[-1], self.outputs)
    output = hidden @ normed(self.param('kernel', start, shape))
    output = output + self.param('bias', zeros, (self.outputs,))[None]
    total = jnp.sum(output, -1)
    if not self.reference_sigma:
      return -total
    return (
      jnp.sum(layers.flat(x) ** 2, -1) / (2 * self.reference_sigma**2) - total
    )


class MultiModal(nn.Module):
  """Bounded energy of experts, each a bit about the image [Z16 eq 8].

  E = sum_j H(sigmoid(a_j)), the entropies in nats, from 0 to num_experts log 2: low
  where every expert is sure. So a mode is a code of bits, and there can be many.

  5x5 convolutions with ReLU and 2x2 max pooling, a dense layer with ReLU, and a
  dense layer of the logits a.

  Attributes:
    widths: of the convolutions.
    dense: features before the experts.
    num_experts: K.
  """

  widths: Sequence[int] = (64, 64)
  dense: int = 1024
  num_experts: int = 128

  def __post_init__(self):
    checks.counts(widths=self.widths)
    checks.count(dense=self.dense, num_experts=self.num_experts)
    super().__post_init__()

  def setup(self):
    self.trunk = _Trunk(self.widths, self.dense)
    self.experts = nn.Dense(self.num_experts, kernel_init=_glorot())

  def __call__(self, x: Array) -> Array:
    """Returns E(x) [n]."""
    return expert_energy(self.expert_logits(x))

  def expert_logits(self, x: Array) -> Array:
    """Returns the experts' logits a [n, num_experts]."""
    return self.experts(self.trunk(x))

  def features(self, x: Array) -> Array:
    """Returns the layer before the experts [n, dense]."""
    return self.trunk(x)


class Unimodal(nn.Module):
  """One logit a on the network of `MultiModal`, for the GAN beside it.

  Attributes:
    form: 'logit', E = -a, by which D = sigmoid(-E); or 'log', E = -log D, bounded
      below and not above [Z16 eq 7].
    widths: as in `MultiModal`.
    dense: as in `MultiModal`.
  """

  form: str = 'logit'
  widths: Sequence[int] = (64, 64)
  dense: int = 1024

  def __post_init__(self):
    checks.choice(('logit', 'log'), form=self.form)
    checks.counts(widths=self.widths)
    checks.count(dense=self.dense)
    super().__post_init__()

  def setup(self):
    self.trunk = _Trunk(self.widths, self.dense)
    self.logit = nn.Dense(1, kernel_init=_glorot())

  def __call__(self, x: Array) -> Array:
    """Returns E(x) [n]."""
    logit = self.logit(self.trunk(x))[:, 0]
    return -logit if self.form == 'logit' else nn.softplus(-logit)

  def features(self, x: Array) -> Array:
    """Returns the layer before the logit [n, dense]."""
    return self.trunk(x)


class _Trunk(nn.Module):
  """Convolutions with pooling and a dense layer, the authors' for digits."""

  widths: Sequence[int]
  dense: int

  @nn.compact
  def __call__(self, x):
    x = dtypes.at_least_float32(x)
    for width in self.widths:
      x = nn.relu(nn.Conv(width, (5, 5), kernel_init=_glorot())(x))
      x = layers.max_pool(x)
    return nn.relu(nn.Dense(self.dense, kernel_init=_glorot())(layers.flat(x)))


def expert_energy(logits: Array) -> Array:
  """Returns sum_j H(sigmoid(a_j)) [n] in nats, of logits [n, k] [Z16 eq 8]."""
  size = jnp.abs(
    dtypes.at_least_float32(logits)
  )  # H is even; at -|a| it is a sum of positive terms
  return jnp.sum(nn.softplus(-size) + size * nn.sigmoid(-size), -1)


def expert_entropy(logits: Array, *, axis_name: str | None = None) -> Array:
  """Returns the entropy of the experts' mean bits [] in nats [Z16 eq 9].

  sum_j H(mean_i sigmoid(a_ij)), of logits [n, k]. Less the mean of
  `expert_energy`, it is the experts' mutual information with the example: 0 where
  all examples are one.
  """
  logits = dtypes.at_least_float32(logits)
  # Each probability from its own side: one less the other would round.
  means = [
    collectives.pmean(jnp.mean(nn.sigmoid(a), 0), axis_name)
    for a in (logits, -logits)
  ]
  least = jnp.finfo(logits.dtype).tiny  # where the logarithm is finite
  return sum(
    -jnp.sum(mean * jnp.log(jnp.maximum(mean, least))) for mean in means
  )


_ACTIVATIONS = {
  'leaky_relu': lambda x: nn.leaky_relu(x, 0.2),
  'swish': nn.swish,
}


def _check_convs(convs):
  if not convs:
    raise ValueError(f'convs={convs!r} must be one layer or more.')
  for i, layer in enumerate(convs):
    name = f'convs[{i}]'
    if len(layer) != 4:
      raise ValueError(
        f'{name}={layer!r} must be (width, kernel size, stride, padding).'
      )
    checks.counts(**{name: layer[:3]})
    checks.count(minimum=0, **{f'{name}[3]': layer[3]})


def _glorot():
  return nn.initializers.glorot_uniform()


def _two_keys(rng):
  return (None, None) if rng is None else jax.random.split(rng)


def _dropout(x, rate, rng):
  """Returns x with that share of its entries 0 and the rest scaled up."""
  if rng is None or rate == 0:
    return x
  keep = jax.random.bernoulli(rng, 1 - rate, x.shape)
  return jnp.where(keep, x / (1 - rate), 0)


def _root(x):
  """Returns sqrt(x), with a finite slope at 0."""
  return jnp.sqrt(x + _TINY)


# Where a reconstruction is perfect the norm has no slope; this rounds the kink.
_TINY = 1e-12


def _l1(r):
  """Returns sum |r|, with slope 0 at 0: autodiff's is 1, which the root magnifies."""
  return jnp.sum(r * lax.stop_gradient(jnp.sign(r)), -1)


_RESIDUALS = {
  'l2': lambda r: _root(jnp.sum(r**2, -1)),
  'l1_l2': lambda r: _root(_l1(r)) + _root(jnp.sum(r**2, -1)),
  'squared': lambda r: jnp.sum(r**2, -1),
}
