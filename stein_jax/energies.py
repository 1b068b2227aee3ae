"""Energies E(x) [n], with p(x) proportional to exp(-E(x)).

Modules of flax.linen without mutable state; images [n, h, w, c] or vectors
[n, d] come in. What a module offers beyond E is a method, called as
`energy.apply_fn(energy.params, ..., method='log_partition')`.
"""

from collections.abc import Callable, Sequence

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from stein_jax import checks
from stein_jax import layers
from stein_jax import learners
from stein_jax import samplers
from stein_jax.learners import Learner
from stein_jax.types import Array, Metrics, Params, PRNGKey

_MAX_ENUMERATED = 20
_CHUNK = 2**12  # hidden states enumerated at a time


class RBM(nn.Module):
  """Gaussian-Bernoulli restricted Boltzmann machine [LW17 sec 5.1].

  -E(x) = b.x - x.x / 2 + sum_i log 2 cosh((B'x + c)_i), hidden units in {-1, 1}
  summed out: p(x) is a mixture of 2^num_hidden unit Gaussians N(b + Bh, I).

  Attributes:
    num_hidden: hidden units.
    centered: replace x by x less a constant mean, that of the images given to
      `init`. The family is the same, its parameters easier to learn.
  """

  num_hidden: int
  centered: bool = False

  def __post_init__(self):
    checks.count(num_hidden=self.num_hidden)
    super().__post_init__()

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns E(x) [n]."""
    x = _flat(x)
    d = x.shape[1]
    bias = self.param('bias', nn.initializers.zeros, (d,))
    # Rows are pixels. The range is what the authors' initialiser used.
    self.param('weight', _uniform(0.05), (d, self.num_hidden))
    self.param('hidden_bias', nn.initializers.zeros, (self.num_hidden,))
    if self.centered:
      self.variable('constants', 'mean', lambda: jnp.mean(x, 0))
    x = self._centre(x)
    hidden = _log_two_cosh(self._logits(x))
    return 0.5 * jnp.sum(x * x, -1) - x @ bias - jnp.sum(hidden, -1)

  def features(self, x: Array) -> Array:
    """Returns E[h | x] = tanh(B'x + c) [n, num_hidden]."""
    return jnp.tanh(self._logits(self._centre(_flat(x))))

  def laplacian(self, x: Array) -> Array:
    """Returns the trace of E's second derivative at x [n]."""
    weight = self._get('weight')
    slope = 1 - self.features(x) ** 2
    return weight.shape[0] - slope @ jnp.sum(weight**2, 0)

  def log_partition(self) -> Array:
    """Returns log Z [], exactly, from all 2^num_hidden hidden states.

    log Z = (d/2) log 2 pi + logsumexp_h [c.h + |b + Bh|^2 / 2].

    Raises:
      ValueError: above 20 hidden units; use `samplers.annealed_importance`.
    """
    log_states = self._log_states()
    return jax.nn.logsumexp(log_states) + (
      0.5 * self._get('bias').shape[0] * jnp.log(2 * jnp.pi)
    )

  def sample(self, rng: PRNGKey, num: int) -> Array:
    """Returns independent exact samples [num, d], by enumeration of h."""
    hidden_rng, noise_rng = jax.random.split(rng)
    index = jax.random.categorical(hidden_rng, self._log_states(), shape=(num,))
    return self._visible(noise_rng, self._hidden(index))

  def gibbs(self, rng: PRNGKey, x: Array, num_steps: int) -> Array:
    """Returns x after block Gibbs steps, like x.

    p(h_i = 1 | x) = sigmoid(2 (B'x + c)_i), then x ~ N(b + Bh, I).
    """

    def step(flat, rng):
      hidden_rng, noise_rng = jax.random.split(rng)
      probability = nn.sigmoid(2 * self._logits(self._centre(flat)))
      up = jax.random.bernoulli(hidden_rng, probability)
      return self._visible(noise_rng, 2.0 * up - 1.0), None

    keys = jax.random.split(rng, num_steps)
    return lax.scan(step, _flat(x), keys)[0].reshape(x.shape)

  def _log_states(self):
    """Returns c.h + |b + Bh|^2 / 2 [2^num_hidden], in chunks."""
    if self.num_hidden > _MAX_ENUMERATED:
      raise ValueError(
        f'num_hidden={self.num_hidden}: enumeration stops at '
        f'{_MAX_ENUMERATED}; use samplers.annealed_importance.'
      )
    bias, weight = self._get('bias'), self._get('weight')
    gram, linear = weight.T @ weight, weight.T @ bias + self._get('hidden_bias')

    def log_state(index):
      h = self._hidden(index)
      return h @ linear + 0.5 * h @ gram @ h

    indices = jnp.arange(2**self.num_hidden)
    states = lax.map(log_state, indices, batch_size=min(_CHUNK, len(indices)))
    return states + 0.5 * bias @ bias

  def _hidden(self, index):
    """Returns the hidden state in {-1, 1} [..., num_hidden] of that number."""
    bits = jnp.stack([(index >> i) & 1 for i in range(self.num_hidden)], -1)
    return (2 * bits - 1).astype(self._get('weight').dtype)

  def _visible(self, rng, hidden):
    mean = hidden @ self._get('weight').T + self._get('bias')[None]
    if self.centered:
      mean = mean + self._get_mean()[None]
    return mean + jax.random.normal(rng, mean.shape, mean.dtype)

  def _logits(self, x):
    return x @ self._get('weight') + self._get('hidden_bias')[None]

  def _centre(self, x):
    return x - self._get_mean()[None] if self.centered else x

  def _get(self, name):
    return self.get_variable('params', name)

  def _get_mean(self):
    return lax.stop_gradient(self.get_variable('constants', 'mean'))


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

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns E(x) [n]."""
    x = _flat(x)
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

    x = _dropout(x, self.dropout, rng)
    kernels, sizes = [], []
    for i, (width, size, stride, padding) in enumerate(self.convs):
      kernel = self.param(
        f'kernel_{i}', layers.normal(), (size, size, x.shape[-1], width)
      )
      kernels.append(kernel)
      sizes.append(x.shape[1:3])
      x = layers.conv(x, kernel, stride=stride, padding=padding)
      x = active(x) if i else nn.relu(x)
    features = _flat(x)
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
    return features, _RESIDUALS[self.residual](_flat(x - reconstruction))


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
    """Returns E(x, y) [n] of images and labels [n]."""
    rng, classifier_rng = _two_keys(rng)
    features, error = self.autoencoder.both(x, axis_name=axis_name, rng=rng)
    log_probability = nn.log_softmax(self._classify(features, classifier_rng))
    likelihood = jnp.take_along_axis(log_probability, y[:, None], 1)[:, 0]
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
  """DCGAN's discriminator as an energy: E = -logit that x is real [Z16 eq 7].

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
    """Returns E(x) or E(x, y) [n]."""
    if len(label) != (self.num_classes > 0):
      raise ValueError(
        f'num_classes={self.num_classes}, but label is '
        f'{"given" if label else "missing"}.'
      )
    y = jax.nn.one_hot(label[0], self.num_classes) if label else None
    for i, width in enumerate(self.widths):
      x = layers.with_label(x, y)
      kernel = self.param(
        f'kernel_{i}', layers.normal(), (5, 5, x.shape[-1], width)
      )
      x = layers.conv(x, kernel, stride=2, padding=2)
      if i:
        x = layers.normalized(self.norm, x, axis_name=axis_name)
      x = nn.leaky_relu(x, 0.2)
    x = layers.with_label(_flat(x), y)
    logit = nn.Dense(1, use_bias=False, kernel_init=layers.normal())(x)
    return -logit[:, 0]


def score(
  energy: Learner,
  x: Array,
  *condition: Array,
  company: Array | None = None,
  axis_name: str | None = None,
  rng: PRNGKey | None = None,
) -> Array:
  """Returns grad_x log p = -grad_x E at x, like x.

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
      return -jnp.sum(
        learners.call(energy, energy.params, x, *condition, **context)
      )
    values = pair(energy, energy.params, company, x, *condition, **context)
    return -jnp.sum(values[1])

  return jax.grad(total)(x)


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
      tell them apart by their statistics; otherwise one after the other.
    axis_name: the mapped axis over which both are split.
    rng: key of the energy's dropout.
    method: of the energy; the energy itself without.
  """
  evaluate = lambda x, condition, rng: learners.call(
    energy, params, x, *condition, axis_name=axis_name, rng=rng, method=method
  )
  if not joint:
    keys = (None, None) if rng is None else jax.random.split(rng)
    return tuple(
      evaluate(x, condition, key)
      for x, key in zip((data, samples), keys, strict=True)
    )
  twice = [jnp.concatenate([c, c]) for c in condition]
  values = evaluate(jnp.concatenate([data, samples]), twice, rng)
  return values[: len(data)], values[len(data) :]


def contrast(
  energy: Learner,
  data: Array,
  samples: Array,
  *condition: Array,
  negative_weight: Array | float = 1.0,
  joint: bool = True,
  axis_name: str | None = None,
  rng: PRNGKey | None = None,
) -> Callable[[Params], tuple[Array, Metrics]]:
  """Returns the loss mean E(data) - weight mean E(samples) of the parameters.

  Its gradient is minus that of the log likelihood where the samples, which are
  constants, come from p [LW17 eq 7]. Further arguments are those of `pair`.
  """
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
    metrics = {'energy/data': positive, 'energy/samples': negative}
    return positive - negative_weight * negative, metrics

  return loss_fn


def chain(
  energy: Learner,
  rng: PRNGKey,
  x: Array,
  *condition: Array,
  sampler: str = 'langevin',
  step_size: float = 0.1,
  num_steps: int = 1,
) -> Array:
  """Returns x after a Markov chain of the energy, like x.

  Args:
    energy: the learner.
    rng: key of the chain.
    x: its start [n, ...].
    *condition: what else the energy takes.
    sampler: 'langevin' or 'mala' with `step_size`, or 'gibbs' where the energy
      has that method.
    step_size: delta.
    num_steps: length of the chain.
  """
  checks.choice(('langevin', 'mala', 'gibbs'), sampler=sampler)
  checks.count(num_steps=num_steps)
  if sampler == 'langevin':
    return samplers.langevin(
      rng,
      x,
      lambda x: score(energy, x, *condition),
      step_size=step_size,
      num_steps=num_steps,
    )
  if sampler == 'mala':
    return samplers.mala(
      rng,
      x,
      lambda x: -energy.apply_fn(energy.params, x, *condition),
      step_size=step_size,
      num_steps=num_steps,
    )[0]
  return energy.apply_fn(energy.params, rng, x, num_steps, method='gibbs')


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
  are those of `chain`.
  """
  start_rng, chain_rng = jax.random.split(rng)
  x = jax.random.normal(start_rng, (num, *state.energy.input_shape))
  condition = () if condition is None else (condition,)
  return chain(
    state.energy,
    chain_rng,
    x,
    *condition,
    sampler=sampler,
    step_size=step_size,
    num_steps=num_steps,
  )


def _flat(x):
  return x.reshape(len(x), -1)


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


def _log_two_cosh(x):
  return jnp.logaddexp(x, -x)


def _uniform(limit):
  def init(rng, shape, dtype=jnp.float32):
    return jax.random.uniform(rng, shape, dtype, -limit, limit)

  return init
