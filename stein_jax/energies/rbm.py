"""Restricted Boltzmann machines."""

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from stein_jax import checks
from stein_jax import dtypes
from stein_jax import layers
from stein_jax.energies import _enumeration
from stein_jax.types import Array, PRNGKey

_CHUNK = 2**12  # hidden states at a time, which bounds the memory


class RBM(nn.Module):
  """Gaussian-Bernoulli restricted Boltzmann machine [LW17 sec 5.1].

  It has -E(x) = b.x - x.x / 2 + sum_i log 2 cosh((B'x + c)_i), in which hidden units h
  in {-1, 1} are summed out. So p is a mixture of 2^num_hidden Gaussians N(b + Bh, I).

  Attributes:
    num_hidden: number of hidden units.
    centered: whether x is replaced by x - mean, where the mean is that of the images
      given to `init` and stays constant. The family of densities is the same, but its
      parameters are easier to learn.
  """

  num_hidden: int
  centered: bool = False

  def __post_init__(self):
    checks.count(num_hidden=self.num_hidden)
    super().__post_init__()

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns E(x) [n]."""
    x = layers.flat(dtypes.at_least_float32(x))
    d = x.shape[1]
    bias = self.param('bias', nn.initializers.zeros, (d,))
    # The authors' initialiser draws from this range, whatever width it is asked
    # for. The methods look the parameters up by name, so no result is kept.
    self.param('weight', _uniform(0.05), (d, self.num_hidden))
    self.param('hidden_bias', nn.initializers.zeros, (self.num_hidden,))
    if self.centered:  # no optimizer moves this collection
      self.variable('constants', 'mean', lambda: jnp.mean(x, 0))
    x = self._centre(x)
    hidden = _log_two_cosh(self._logits(x))
    return 0.5 * jnp.sum(x * x, -1) - x @ bias - jnp.sum(hidden, -1)

  def features(self, x: Array) -> Array:
    """Returns E[h | x] = tanh(B'x + c) [n, num_hidden]."""
    x = layers.flat(dtypes.at_least_float32(x))
    return jnp.tanh(self._logits(self._centre(x)))

  def laplacian(self, x: Array) -> Array:
    """Returns the trace of the second derivative of E at x, [n]."""
    weight = self._get('weight')
    # log 2 cosh has the slope tanh and the second derivative 1 - tanh^2.
    slope = 1 - self.features(x) ** 2
    return weight.shape[0] - slope @ jnp.sum(weight**2, 0)

  def log_partition(self) -> Array:
    """Returns the exact log Z [], a sum over all 2^num_hidden hidden states.

    log Z = (d/2) log 2 pi + logsumexp_h [c.h + |b + Bh|^2 / 2].

    Raises:
      ValueError: there are more than 30 hidden units. `samplers.annealed_importance`
        estimates log Z then.
    """
    bias = self._get('bias')
    return _enumeration.log_sum(
      *self._states(_enumeration.MAX_SUMMED)
    ) + 0.5 * (bias @ bias + len(bias) * jnp.log(2 * jnp.pi))

  def sample(self, rng: PRNGKey, num: int) -> Array:
    """Returns independent exact samples [num, d], by enumeration of h."""
    hidden_rng, noise_rng = jax.random.split(rng)
    return _add_noise(noise_rng, self.means(hidden_rng, num))

  def means(self, rng: PRNGKey, num: int) -> Array:
    """Returns means b + Bh [num, d] of the mixture, with h drawn from p(h)."""
    weights = _enumeration.log_weights(*self._states(_enumeration.MAX_LISTED))
    index = jax.random.categorical(rng, weights, shape=(num,))
    return self._mean(self._hidden(index))

  def gibbs(
    self,
    rng: PRNGKey,
    x: Array,
    num_steps: int,
    *,
    noisy: Array | None = None,
    noise_scale: Array | float = 1.0,
  ) -> Array:
    """Returns x after block Gibbs steps, like x.

    Each step draws h from p(h_i = 1 | x) = sigmoid(2 (B'x + c)_i), then x from
    N(b + Bh, I).

    Args:
      rng: key of the steps.
      x: where they start [n, ...].
      num_steps: number of steps.
      noisy: points like x, if the law is p(x) N(noisy; x, s^2), that of x before it had
        noise. x is then drawn from N((b + Bh + noisy / s^2) / a, 1 / a), with
        a = 1 + 1 / s^2.
      noise_scale: s [], or [n]; infinite where nothing of x is left.
    """
    flat = layers.flat(dtypes.at_least_float32(x))
    known, pull = jnp.zeros((), flat.dtype), jnp.zeros_like(flat)
    if noisy is not None:
      checks.like(x, noisy=noisy)
      known = jnp.reshape(jnp.asarray(noise_scale, flat.dtype), (-1, 1)) ** -2
      pull = known * layers.flat(dtypes.at_least_float32(noisy))

    def step(flat, rng):
      hidden_rng, noise_rng = jax.random.split(rng)
      probability = nn.sigmoid(2 * self._logits(self._centre(flat)))
      up = jax.random.bernoulli(hidden_rng, probability).astype(flat.dtype)
      # h is in {-1, 1}, which is also why its logit has a factor of 2.
      mean = (self._mean(2.0 * up - 1.0) + pull) / (1 + known)
      return _add_noise(noise_rng, mean, 1 / jnp.sqrt(1 + known)), None

    keys = jax.random.split(rng, num_steps)
    return lax.scan(step, flat, keys)[0].reshape(x.shape)

  def _states(self, limit):
    """Returns linear and quadratic terms of c.h + (|b + Bh|^2 - b.b) / 2 in h."""
    if self.num_hidden > limit:
      raise ValueError(
        f'num_hidden={self.num_hidden}: enumeration stops at {limit}; use '
        'samplers.annealed_importance.'
      )
    bias, weight = self._get('bias'), self._get('weight')
    return weight.T @ bias + self._get('hidden_bias'), weight.T @ weight

  def _hidden(self, index):
    """Returns hidden states [..., num_hidden] whose bits are those of the index."""
    return _enumeration.signs(index, self.num_hidden).astype(
      self._get('weight').dtype
    )

  def _mean(self, hidden):
    mean = hidden @ self._get('weight').T + self._get('bias')[None]
    if self.centered:
      mean = mean + self._get_mean()[None]
    return mean

  def _logits(self, x):
    return x @ self._get('weight') + self._get('hidden_bias')[None]

  def _centre(self, x):
    return x - self._get_mean()[None] if self.centered else x

  def _get(self, name):
    # Their products are summed, in no half precision.
    return dtypes.at_least_float32(self.get_variable('params', name))

  def _get_mean(self):
    # Variables outside 'params' are differentiated too, but the mean is a
    # constant.
    return lax.stop_gradient(self.get_variable('constants', 'mean'))


def _add_noise(rng, mean, scale=1.0):
  return mean + scale * jax.random.normal(rng, mean.shape, mean.dtype)


def _log_two_cosh(x):
  # cosh itself overflows above 89 in float32.
  return jnp.logaddexp(x, -x)


def _uniform(limit):
  def init(rng, shape, dtype=jnp.float32):
    return jax.random.uniform(rng, shape, dtype, -limit, limit)

  return init


class BinaryRBM(nn.Module):
  """Restricted Boltzmann machine of units in {0, 1} [Z16 sec 4].

  The energy is E(x) = -b.x - sum_i log(1 + exp((W'x + c)_i)), in which the hidden units
  are summed out. It is unbounded against a generator, since larger weights make every
  difference of energies larger.

  Attributes:
    num_hidden: number of hidden units.
  """

  num_hidden: int

  def __post_init__(self):
    checks.count(num_hidden=self.num_hidden)
    super().__post_init__()

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns E(x) [n]."""
    x = layers.flat(dtypes.at_least_float32(x))
    bias = self.param('bias', nn.initializers.zeros, (x.shape[1],))
    logits = nn.Dense(self.num_hidden, kernel_init=_uniform(0.05))(x)
    return -x @ bias - jnp.sum(nn.softplus(logits), -1)

  def gibbs(self, rng: PRNGKey, x: Array, num_steps: int) -> Array:
    """Returns x after block Gibbs steps, like x: h is drawn given x, then x given h."""
    weight, bias, hidden_bias = self._parameters()

    def step(flat, rng):
      hidden_rng, rng = jax.random.split(rng)
      up = nn.sigmoid(flat @ weight + hidden_bias[None])
      h = jax.random.bernoulli(hidden_rng, up).astype(flat.dtype)
      up = nn.sigmoid(h @ weight.T + bias[None])
      return jax.random.bernoulli(rng, up).astype(flat.dtype), None

    flat = layers.flat(dtypes.at_least_float32(x)).astype(weight.dtype)
    keys = jax.random.split(rng, num_steps)
    return lax.scan(step, flat, keys)[0].reshape(x.shape)

  def change_gaps(self, x: Array, index: Array, change: Array) -> Array:
    """Returns E(x) - E(x + change e_index) [k, n], by `num_hidden` numbers each.

    Args:
      x: [n, ...].
      index: units [k, n], or [k, 1] for the same ones of all x.
      change: what is added to each [k, n].
    """
    weight, bias, hidden_bias = self._parameters()
    logits = layers.flat(dtypes.at_least_float32(x)) @ weight
    logits = logits + hidden_bias[None]

    # For the gradient a change is made anew, or all would be held at once.
    @jax.checkpoint
    def gap(index, change):
      moved = logits + change[:, None] * weight[index]
      hidden = jnp.sum(nn.softplus(moved) - nn.softplus(logits), -1)
      return change * bias[index] + hidden

    size = max(1, _enumeration.ENTRIES // logits.size)
    return lax.map(
      lambda each: gap(*each), (index, change), batch_size=min(size, len(index))
    )

  def log_partition(self) -> Array:
    """Returns the exact log Z [], of a sum over all x in {0, 1}^d.

    Either layer is summed out in closed form, and the smaller one is enumerated: over h
    log Z = logsumexp_h [c.h + sum_j log(1 + exp((b + Wh)_j))].

    Raises:
      ValueError: both layers have more than 20 units.
    """
    weight, bias, hidden_bias = self._parameters()
    if len(weight) < self.num_hidden:
      weight, bias, hidden_bias = weight.T, hidden_bias, bias
    num = len(hidden_bias)
    if num > _enumeration.MAX_LISTED:
      raise ValueError(
        f'num_hidden={self.num_hidden} and {weight.shape[0]} visible units: the sum '
        f'over the states of a layer stops at {_enumeration.MAX_LISTED} units.'
      )

    def log_state(index):
      state = ((index >> jnp.arange(num)) & 1).astype(weight.dtype)
      return hidden_bias @ state + jnp.sum(nn.softplus(bias + weight @ state))

    # Blocks bound memory: a state has as many numbers as the other layer has units.
    indices = jnp.arange(2**num)
    return jax.nn.logsumexp(
      lax.map(log_state, indices, batch_size=min(_CHUNK, len(indices)))
    )

  def _parameters(self):
    """Returns W [d, num_hidden], b [d] and c [num_hidden]."""
    params = jax.tree.map(dtypes.at_least_float32, self.variables['params'])
    dense = params['Dense_0']
    return dense['kernel'], params['bias'], dense['bias']
