"""Energies that are networks."""

from collections.abc import Callable, Sequence
import inspect

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from stein_jax import checks
from stein_jax import classifiers
from stein_jax import collectives
from stein_jax import dtypes
from stein_jax import layers
from stein_jax.types import Array, PRNGKey


class MLP(nn.Module):
  """Fully connected energy for low dimensions: dense layers and one output.

  Attributes:
    widths: widths of the hidden layers.
    confinement: weight of the term |x|^2 / 2, with which exp(-E) can be normalised
      whatever the network does far from the data.
    activation: activation function of the hidden layers.
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
  """Deep autoencoder whose reconstruction error is the energy [LW17 eq 24].

  The decoder mirrors the encoder: it has the same kernels, transposed, and norms of
  its own [WL16 eq 14]. ReLU follows all layers but the last, and a norm all layers but
  the first and the last.

  Attributes:
    convs: (width, kernel size, stride, padding) of each layer of the encoder. A layer
      whose kernel and stride cover the image is a dense layer.
    output: activation of the last layer, which must fit the range of the images:
      'sigmoid', 'tanh' or 'linear'.
    residual: size of x - reconstruction. 'l2' is its L2 norm, 'l1_l2' the L2 norm plus
      the square root of the L1 norm, which the authors chose for faces and bedrooms,
      and 'squared' the square of the L2 norm.
    norm: kind of the norms. 'batch' normalises by the statistics of the batch at hand,
      'layer' normalises each example by itself, and 'none' leaves them out.
    dropout: share of inputs that are set to 0 if a key is given.
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

  @property
  def drops(self) -> bool:
    """Whether it hides inputs if it is given a key."""
    return self.dropout > 0

  # Linen allows one compact method, so that all others share its parameters.
  @nn.compact
  def _encode_and_decode(self, x, *, axis_name=None, rng=None):
    """Returns the features [n, f] and the reconstruction, like x."""

    def active(y):
      return nn.relu(layers.normalized(self.norm, y, axis_name=axis_name))

    x = _dropout(dtypes.at_least_float32(x), self.dropout, rng)
    # The decoder shares the kernels. A stride need not divide the sizes.
    kernels, sizes = [], []
    for i, (width, size, stride, padding) in enumerate(self.convs):
      kernel = self.param(
        f'kernel_{i}', layers.normal(), (size, size, x.shape[-1], width)
      )
      kernels.append(kernel)
      sizes.append(x.shape[1:3])
      x = layers.conv(x, kernel, stride=stride, padding=padding)
      # As in DCGAN, no norm follows the first layer, or the last of the
      # decoder.
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
    return self._encode_and_decode(x, **context)[0]

  def reconstruct(self, x: Array, **context) -> Array:
    """Returns the reconstruction, like x."""
    return self._encode_and_decode(x, **context)[1]

  def reconstruction_error(self, x: Array, **context) -> Array:
    """Returns the size of the residual [n], which is the energy."""
    return self.features_and_error(x, **context)[1]

  def features_and_error(self, x: Array, **context) -> tuple[Array, Array]:
    """Returns the features [n, f] and the size of the residual [n] from one pass."""
    features, reconstruction = self._encode_and_decode(x, **context)
    # x is whole here, since dropout hides pixels from the encoder alone.
    return features, _RESIDUALS[self.residual](layers.flat(x - reconstruction))


class JointLabel(nn.Module):
  """Energy of an image and its label [LW17 eq 25] [WL16 eq 15].

  E(x, y) = autoencoder's E(x) + max(margin, cross entropy of y given x). The margin
  bounds what the energy can gain from more confidence in the label.

  Attributes:
    autoencoder: the energy of the image, whose features the classifier takes.
    num_classes: number of classes, which are labelled 0, ..., num_classes - 1.
    margin: m, in nats.
    dropout: share of features that are set to 0 before the classifier if a key is
      given.
  """

  autoencoder: Autoencoder
  num_classes: int = 0
  margin: float = 1.0
  dropout: float = 0.0

  def __post_init__(self):
    checks.count(minimum=0, num_classes=self.num_classes)
    checks.non_negative(margin=self.margin, dropout=self.dropout)
    checks.at_most(0.99, dropout=self.dropout)
    super().__post_init__()

  @property
  def mixes(self) -> bool:
    """Whether the energy of one example depends on the others of its batch."""
    return self.autoencoder.mixes

  @property
  def drops(self) -> bool:
    """Whether it hides inputs or features if it is given a key."""
    return self.autoencoder.drops or self.dropout > 0

  # The classifier is made in setup, since several methods share it.
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
    """Returns E(x, y) [n] of images x and labels y [n].

    The energy of a traced label that is not a class is nan.

    Raises:
      ValueError: there are no classes, the labels are not integers [n], or labels whose
        values are known are out of range.
    """
    # With one key the units that the two parts drop would depend on each other.
    rng, classifier_rng = _two_keys(rng)
    features, error = self.autoencoder.features_and_error(
      x, axis_name=axis_name, rng=rng
    )
    log_probability = nn.log_softmax(self._classify(features, classifier_rng))
    hot = layers.one_hot(y, self.num_classes)
    checks.rows(x.shape[0], label=hot)
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
    """Returns the autoencoder's energy [n], without the term of the label."""
    return self.autoencoder.reconstruction_error(x, **context)

  def _classify(self, features, rng):
    return self.classifier(_dropout(features, self.dropout, rng))


class MarginalLabel(nn.Module):
  """Energy of an image by a classifier, E(x) = -log sum_y exp f_y(x) [G20].

  With E(x, y) = -f_y(x) this is the energy of x whatever its label, and p(y | x) is the
  softmax of the logits f.

  Attributes:
    classifier: a network of `classifiers`, or another that returns features and logits.
      It is named by a section; smooth activations suit chains best.
  """

  classifier: nn.Module = classifiers.CNN(dropout=0.0)

  @property
  def mixes(self) -> bool:
    """Whether the energy of one example depends on the others of its batch."""
    return self._takes('axis_name')

  @property
  def drops(self) -> bool:
    """Whether the classifier has dropout, or noise, if it is given a key."""
    return self._takes('rng')

  def __call__(
    self, x: Array, *, axis_name: str | None = None, rng: PRNGKey | None = None
  ) -> Array:
    """Returns E(x) [n]."""
    logits = self.logits(x, axis_name=axis_name, rng=rng)
    return -nn.logsumexp(dtypes.at_least_float32(logits), -1)

  def logits(
    self, x: Array, *, axis_name: str | None = None, rng: PRNGKey | None = None
  ) -> Array:
    """Returns f(x) [n, k]."""
    return self._run(x, axis_name, rng)[1]

  def features(
    self, x: Array, *, axis_name: str | None = None, rng: PRNGKey | None = None
  ) -> Array:
    """Returns the classifier's features [n, f]."""
    return self._run(x, axis_name, rng)[0]

  def _run(self, x, axis_name, rng):
    given = dict(axis_name=axis_name, rng=rng)
    given = {name: v for name, v in given.items() if self._takes(name)}
    outputs = self.classifier(x, **given)
    # Of an array the second row would pass for the logits.
    if not isinstance(outputs, tuple) or len(outputs) != 2:
      raise ValueError(
        f'The classifier returns {jax.tree.map(jnp.shape, outputs)}; wanted: '
        'features [n, f] and logits [n, k].'
      )
    return outputs

  def _takes(self, name):
    call = type(self.classifier).__call__
    return name in inspect.signature(call).parameters


class Discriminator(nn.Module):
  """DCGAN's discriminator as an energy: minus the logit that x is real.

  It has strided 5x5 convolutions with LeakyReLU(0.2), norms after all of them but the
  first, and a dense layer. A label enters every layer as further channels.

  Attributes:
    widths: widths of the convolutions.
    num_classes: number of classes of the labels; 0 for an unconditional energy.
    norm: kind of the norms, 'batch', 'layer' or 'none'. 'layer' normalises each example
      by itself, as WGAN-GP needs.
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
    """Returns E(x) [n], or E(x, y) [n] of labels y [n].

    The energy of a traced label that is not a class is nan.

    Raises:
      ValueError: there are labels without classes or classes without labels, the labels
        are not integers [n], or labels whose values are known are out of range.
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
      if i:  # DCGAN has no norm after the first convolution
        x = layers.normalized(self.norm, x, axis_name=axis_name)
      x = nn.leaky_relu(x, 0.2)
    x = layers.with_label(layers.flat(x), y)
    logit = nn.Dense(1, use_bias=False, kernel_init=layers.normal())(x)
    return -logit[:, 0]


class ConvNet(nn.Module):
  """Convolutional energy, with or without a Gaussian reference [X21].

  The energy is E(x) = |x|^2 / (2 sigma^2) - f(x), where f sums the outputs of a dense
  layer after convolutions. Images that condition the energy are further channels of the
  input of f, and do not enter the reference.

  Attributes:
    widths: widths of the convolutions, which have padding 'same'.
    kernels: sides of their kernels.
    strides: their strides.
    outputs: outputs of the dense layer.
    reference_sigma: sigma, in units of the images; 0 for no reference.
    activation: 'leaky_relu', with slope 0.2 below 0; or 'swish', which is smooth.
    spectral_norm: whether each layer is divided by its largest singular value; see
      `layers.spectral_normalized`.
    scale: standard deviation of the initial weights.
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
    checks.same_length(
      widths=self.widths, kernels=self.kernels, strides=self.strides
    )
    super().__post_init__()

  @nn.compact
  def __call__(self, x: Array, *condition: Array) -> Array:
    """Returns E(x) [n] of images x, conditioned on images [n, h, w, c] if given."""
    start, zeros = layers.normal(self.scale), nn.initializers.zeros

    def weights(name, shape):
      kernel = self.param(name, start, shape)
      if not self.spectral_norm:
        return kernel
      return layers.spectral_normalized(kernel)

    x, *condition = dtypes.promoted(x, *condition)
    hidden = jnp.concatenate([x, *condition], -1)
    for i, (width, size, stride) in enumerate(
      zip(self.widths, self.kernels, self.strides, strict=True)
    ):
      shape = (size, size, hidden.shape[-1], width)
      kernel = weights(f'kernel_{i}', shape)
      hidden = layers.conv(hidden, kernel, stride=stride, padding='same')
      bias = self.param(f'bias_{i}', zeros, (width,))
      # Ranks are made equal by hand, since the tests let none be promoted.
      hidden = _ACTIVATIONS[self.activation](hidden + bias[None, None, None])
    hidden = layers.flat(hidden)
    output = hidden @ weights('kernel', (hidden.shape[-1], self.outputs))
    output = output + self.param('bias', zeros, (self.outputs,))[None]
    # The authors' code takes the mean from image to image. That factor is left
    # to the learning rate.
    total = jnp.sum(output, -1)
    if not self.reference_sigma:
      return -total
    squares = jnp.sum(layers.flat(x) ** 2, -1)
    return squares / (2 * self.reference_sigma**2) - total


class Levels(nn.Module):
  """Energy of data under noise of several levels, by one network [SE19] [SE20].

  E(x, sigma) = e(x, log sigma) / sigma, where the network e sees log sigma as a further
  channel of x, and the division gives its score the size of that of noise. Without a
  sigma it is the energy at the lowest level, which stands for that of the data.

  Attributes:
    energy: the network e of [n, ..., c + 1], which must be smooth, as 'swish' is, and
      neither mix its batch nor drop.
    lowest: the lowest level, sigma.
  """

  energy: nn.Module
  lowest: float = 0.01

  def __post_init__(self):
    checks.positive(lowest=self.lowest)
    super().__post_init__()

  def __call__(self, x: Array, sigma: Array | None = None) -> Array:
    """Returns E(x, sigma) [n] of x [n, ..., c] and of levels [n]."""
    x = dtypes.at_least_float32(x)
    if sigma is None:
      sigma = jnp.full(len(x), self.lowest, x.dtype)
    sigma = jnp.asarray(sigma, x.dtype)
    channel = jnp.log(sigma).reshape(-1, *(1,) * (x.ndim - 1))
    channel = jnp.broadcast_to(channel, (*x.shape[:-1], 1))
    return self.energy(jnp.concatenate([x, channel], -1)) / sigma


class MultiModal(nn.Module):
  """Bounded energy of experts, each of which says one bit about the image [Z16 eq 8].

  The energy is E = sum_j H(sigmoid(a_j)), from 0 to num_experts log 2, with entropies H
  in nats. It is low where every expert is sure, so each code of bits can be a mode.

  The network has 5x5 convolutions with ReLU and 2x2 max pooling, a dense layer with
  ReLU, and a dense layer of the logits a.

  Attributes:
    widths: widths of the convolutions.
    dense: features before the experts.
    num_experts: number of experts, K.
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
  """Energy of one logit a on the network of `MultiModal`, as in a GAN.

  Attributes:
    form: 'logit' for E = -a, so that D = sigmoid(-E); or 'log' for E = -log D, which is
      bounded below but not above [Z16 eq 7].
    widths: widths of the convolutions.
    dense: features before the logit.
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
    # softplus(-a) is -log sigmoid(a), but finite where the sigmoid rounds to 0.
    return -logit if self.form == 'logit' else nn.softplus(-logit)

  def features(self, x: Array) -> Array:
    """Returns the layer before the logit [n, dense]."""
    return self.trunk(x)


class _Trunk(nn.Module):
  """Convolutions with pooling and a dense layer, the authors' network for digits."""

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
  # H is even in a. At -|a| it is a sum of positive terms, so no digits cancel.
  size = jnp.abs(dtypes.at_least_float32(logits))
  return jnp.sum(nn.softplus(-size) + size * nn.sigmoid(-size), -1)


def expert_entropy(logits: Array, *, axis_name: str | None = None) -> Array:
  """Returns sum_j H(mean_i sigmoid(a_ij)) [] in nats, of logits [n, k] [Z16 eq 9].

  This is the entropy of the experts' mean bits. Minus the mean of `expert_energy` it is
  their mutual information with the example, which is 0 if all examples are equal.
  """
  logits = dtypes.at_least_float32(logits)
  # 1 - p is averaged too, since 1 minus the mean of p would round. Means are
  # over all devices, since H of a mean is not the mean of H.
  means = [
    collectives.pmean(jnp.mean(nn.sigmoid(a), 0), axis_name)
    for a in (logits, -logits)
  ]
  least = jnp.finfo(logits.dtype).tiny  # keeps the logarithm finite
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
  """Returns x with a share `rate` of its entries 0, and the others scaled up."""
  if rng is None or rate == 0:
    return x
  keep = jax.random.bernoulli(rng, 1 - rate, x.shape)
  return jnp.where(keep, x / (1 - rate), 0)


def _root(x):
  """Returns sqrt(x), with a finite slope at 0."""
  return jnp.sqrt(x + _TINY)


# This rounds the norm at a perfect reconstruction, where it has no slope.
_TINY = 1e-12


def _l1(r):
  """Returns sum |r| [n], with slope 0 at 0.

  Autodiff's slope there is 1, which the square root after it would magnify.
  """
  return jnp.sum(r * lax.stop_gradient(jnp.sign(r)), -1)


_RESIDUALS = {
  'l2': lambda r: _root(jnp.sum(r**2, -1)),
  'l1_l2': lambda r: _root(_l1(r)) + _root(jnp.sum(r**2, -1)),
  'squared': lambda r: jnp.sum(r**2, -1),
}
