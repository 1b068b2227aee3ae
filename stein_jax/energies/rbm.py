"""Restricted Boltzmann machines."""

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from stein_jax import checks
from stein_jax import dtypes
from stein_jax import layers
from stein_jax.types import Array, PRNGKey

_MAX_ENUMERATED = 20
_MAX_SUMMED = 30  # where a state costs one exponential: seconds on two cores
_CHUNK = 2**12  # hidden states at a time, which bounds the memory
_ENTRIES = 2**20  # of a block of states by halves


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
    rows, to_states = self._halves(_MAX_SUMMED)
    # In blocks, whose states are made anew for the gradient.
    sums = lax.map(
      jax.checkpoint(lambda row: jax.nn.logsumexp(to_states(row))),
      rows,
      batch_size=max(1, min(len(rows[0]), _ENTRIES // len(rows[0]))),
    )
    bias = self._get('bias')
    return jax.nn.logsumexp(sums) + 0.5 * (
      bias @ bias + len(bias) * jnp.log(2 * jnp.pi)
    )

  def sample(self, rng: PRNGKey, num: int) -> Array:
    """Returns independent exact samples [num, d], by enumeration of h."""
    hidden_rng, noise_rng = jax.random.split(rng)
    return _add_noise(noise_rng, self.means(hidden_rng, num))

  def means(self, rng: PRNGKey, num: int) -> Array:
    """Returns means b + Bh [num, d] of the mixture, with h drawn from p(h)."""
    index = jax.random.categorical(rng, self._log_states(), shape=(num,))
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

  def _log_states(self):
    """Returns c.h + (|b + Bh|^2 - b.b) / 2 of all hidden states [2^num_hidden]."""
    rows, to_states = self._halves(_MAX_ENUMERATED)
    return jax.vmap(to_states)(rows).reshape(-1)

  def _halves(self, limit):
    """Returns rows, and a function of a row to c.h + (|b + Bh|^2 - b.b) / 2.

    |b + Bh|^2 is taken by B'B and B'b, which is a term for each half of h = (v, u) and
    a product of the two. So the states are a matrix: a row is one u, and the function
    returns the values of every v [2^(num_hidden // 2)] with it.
    """
    if self.num_hidden > limit:
      raise ValueError(
        f'num_hidden={self.num_hidden}: enumeration stops at {limit}; use '
        'samplers.annealed_importance.'
      )
    bias, weight = self._get('bias'), self._get('weight')
    gram, linear = weight.T @ weight, weight.T @ bias + self._get('hidden_bias')
    half = self.num_hidden // 2

    def states_of(part):
      size = len(linear[part])
      h = _signs(jnp.arange(2**size), size).astype(linear.dtype)
      return h, h @ linear[part] + 0.5 * jnp.sum(h @ gram[part, part] * h, 1)

    low, high = slice(half), slice(half, None)
    (v, own_v), (u, own_u) = states_of(low), states_of(high)

    def to_states(row):
      along, own = row
      return v @ along + own_v + own

    return (u @ gram[high, low], own_u), to_states

  def _hidden(self, index):
    """Returns hidden states [..., num_hidden] whose bits are those of the index."""
    return _signs(index, self.num_hidden).astype(self._get('weight').dtype)

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


def _signs(index, num):
  """Returns the lowest bits [..., num] of an index as -1 and 1."""
  bit = jnp.expand_dims(jnp.arange(num), range(index.ndim))
  return 2 * ((index[..., None] >> bit) & 1) - 1


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

  def log_partition(self) -> Array:
    """Returns the exact log Z [], of a sum over all x in {0, 1}^d.

    Either layer is summed out in closed form, and the smaller one is enumerated: over h
    log Z = logsumexp_h [c.h + sum_j log(1 + exp((b + Wh)_j))].

    Raises:
      ValueError: both layers have more than 20 units.
    """
    params = jax.tree.map(dtypes.at_least_float32, self.variables['params'])
    weight, bias = params['Dense_0']['kernel'], params['bias']
    hidden_bias = params['Dense_0']['bias']
    if len(weight) < self.num_hidden:
      weight, bias, hidden_bias = weight.T, hidden_bias, bias
    num = len(hidden_bias)
    if num > _MAX_ENUMERATED:
      raise ValueError(
        f'num_hidden={self.num_hidden} and {weight.shape[0]} visible units: the sum '
        f'over the states of a layer stops at {_MAX_ENUMERATED} units.'
      )

    def log_state(index):
      state = ((index >> jnp.arange(num)) & 1).astype(weight.dtype)
      return hidden_bias @ state + jnp.sum(nn.softplus(bias + weight @ state))

    # Blocks bound memory: a state has as many numbers as the other layer has units.
    indices = jnp.arange(2**num)
    return jax.nn.logsumexp(
      lax.map(log_state, indices, batch_size=min(_CHUNK, len(indices)))
    )
