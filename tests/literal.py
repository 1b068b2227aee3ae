"""Literal definitions and small models that several tests share."""

import functools
import itertools

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from stein_jax import collectives
from stein_jax import energies
from stein_jax import generators
from stein_jax import kernels
from stein_jax import layers
from stein_jax import learners
from stein_jax import stein
from stein_jax.algorithms import maximum_likelihood
from stein_jax.algorithms import steingan
from tests import draws

RATE = 0.5  # of sgd, in all tests of one step
SGD = dict(name='sgd', learning_rate=RATE)
CONV_NET = dict(
  name='ConvNet',
  widths=(3,),
  kernels=(3,),
  strides=(2,),
  outputs=2,
  reference_sigma=2.0,
  activation='swish',
  scale=0.3,
)
MEAN, VARIANCE = np.array([1.0, -0.5]), np.array([0.5, 2.0])  # what is learned


class Quadratic(nn.Module):
  """E = sum precision (x - mean)^2 / 2 + offset: a normal law of any diagonal."""

  @nn.compact
  def __call__(self, x):
    zeros, shape = nn.initializers.zeros, (x.shape[-1],)
    mean = self.param('mean', zeros, shape)
    precision = jnp.exp(self.param('log_precision', zeros, shape))
    offset = self.param('offset', zeros, ())
    return 0.5 * jnp.sum(precision[None] * (x - mean[None]) ** 2, -1) + offset


# One of each, so that what is compiled for one learner serves the others.
_QUADRATIC = Quadratic()
_OPTIMIZER = optax.sgd(RATE)


def quadratic(mean, log_precision, *, offset=0.0, optimizer=None, batch_size=4):
  """Returns a learner of that energy at these parameters."""
  mean, log_precision = np.broadcast_arrays(mean, log_precision)
  values = dict(mean=mean, log_precision=log_precision, offset=offset)
  return learner(
    _QUADRATIC,
    values,
    optimizer,
    input_shape=mean.shape,
    batch_size=batch_size,
  )


def learner(module, values, optimizer=None, **shapes):
  """Returns a learner of the module at these parameters."""
  values = {k: jnp.asarray(v, jnp.float32) for k, v in values.items()}
  return learners.Learner.create(
    apply_fn=module.apply,
    params={'params': values},
    tx=optimizer or _OPTIMIZER,
    **shapes,
  ).replace(step=jnp.zeros((), jnp.int32))


def images(num=4, conditional=False, channels=1):
  """Returns a batch of noise [num, 8, 8, channels], and of conditions with 2."""
  rng = np.random.default_rng(0)
  draw = lambda c: rng.uniform(-1, 1, (num, 8, 8, c)).astype(np.float32)
  batch = {'image': draw(channels)}
  if conditional:
    batch['condition'] = draw(2)
  return batch


def normal(*shape, mean=MEAN, variance=VARIANCE, seed=2):
  """Returns draws [*shape, d] of a normal law."""
  unit = np.random.default_rng(seed).normal(size=(*shape, len(mean)))
  return np.asarray(mean + np.sqrt(variance) * unit, np.float32)


def learned(step, state, data, rng):
  """Returns the state after a step on each of data [t, n, ...], and its path."""

  def once(state, inputs):
    x, rng = inputs
    state, metrics = step(state, {'image': x}, rng)
    return state, (state, metrics)

  keys = jax.random.split(rng, len(data))
  return jax.jit(lambda *a: jax.lax.scan(once, a[0], a[1:]))(state, data, keys)


def last_half(tree):
  """Returns means over the second half of a path, leaves [t, ...]."""
  return jax.tree.map(lambda x: np.mean(x[len(x) // 2 :], 0), tree)


def chain(energy, langevin, x, *condition):
  """Returns x after a loop of NumPy over the steps of a Langevin [LW17 eq 11].

  The noise is that of `draws.fixed`.
  """
  total = lambda x: jnp.sum(energy.apply_fn(energy.params, x, *condition))
  gradient = jax.jit(jax.grad(total))
  x = np.asarray(x)
  step_size = langevin.step_size
  for _ in range(langevin.num_steps):
    x = x - step_size**2 / 2 * np.asarray(gradient(x))
    if langevin.noise:
      spread = langevin.temperature**0.5 * step_size
      x = x + spread * draws.normals(x.shape)
    if langevin.clip:
      x = np.clip(x, *langevin.clip)
    x = x.astype(np.float32)
  return x


def watch(energy, langevin, x, *condition):
  """Returns the metrics of the last step of `chain`, named as those of a run."""
  before = langevin.replace(num_steps=langevin.num_steps - 1)
  last, end = (
    chain(energy, each, x, *condition) for each in (before, langevin)
  )
  total = lambda x: jnp.sum(energy.apply_fn(energy.params, x, *condition))
  score = -np.asarray(jax.jit(jax.grad(total))(last), np.float64)
  found = {'temperature': langevin.temperature * langevin.noise}
  if langevin.noise:
    found['score_norm'] = np.mean(score**2) ** 0.5
    found['virial_temperature'] = -np.mean((last - np.mean(last, 0)) * score)
  if langevin.clip:
    low, high = langevin.clip
    found['clipped'] = np.mean((end <= low) | (end >= high))
  return {f'chain/{name}': value for name, value in found.items()}


def descended(params, loss):
  """Returns parameters after a step of sgd down the loss, and its aux."""
  gradient, aux = jax.jit(jax.grad(loss, has_aux=True))(params)
  params, gradient = jax.device_get((params, gradient))
  return jax.tree.map(lambda p, g: p - RATE * g, params, gradient), aux


def contrast(energy, data, samples, *condition, energy_l2=0.0):
  """Returns the loss of maximum likelihood with its metrics, literally."""

  def loss(params):
    positive = energy.apply_fn(params, data, *condition)
    negative = energy.apply_fn(params, samples, *condition)
    gap = jnp.mean(positive) - jnp.mean(negative)
    penalty = jnp.mean(positive**2) + jnp.mean(negative**2)
    return gap + energy_l2 * penalty, {
      'energy/data': jnp.mean(positive),
      'energy/samples': jnp.mean(negative),
      'energy/gap': gap,
    }

  return loss


VAE_NETWORK = dict(
  name='VAE',
  shape=(8, 8, 1),
  latent_dim=3,
  base=2,
  widths=(),
  strides=(2,),
  kernels=(4,),
  last_norm=False,
  encoder_widths=(2,),
  encoder_strides=(2,),
  encoder_kernels=(4,),
  scale=0.3,
)
IMAGE_TO_IMAGE = dict(
  name='ImageToImage',
  shape=(8, 8, 1),
  latent_dim=3,
  widths=(2,),
  num_blocks=0,
  encoder_widths=(2,),
  scale=0.3,
)


class LinearVAE(nn.Module):
  """x = scale z + shift, each coordinate from its own, with a Gaussian encoder."""

  prior = 'normal'

  def setup(self):
    value = lambda name: self.param(name, nn.initializers.ones, (2,))
    self.scale, self.shift = value('scale'), value('shift')
    self.slope, self.intercept = value('slope'), value('intercept')
    self.log_variance = value('log_variance')

  def latent(self, rng, num):
    return generators.PRIORS[self.prior](rng, (num, 2))

  def decode(self, z):
    return self.scale[None] * z + self.shift[None]

  def encode(self, x, *, key=None):
    del key
    mean = self.slope[None] * x + self.intercept[None]
    return mean, jnp.broadcast_to(self.log_variance[None], x.shape)

  def __call__(self, rng, num):
    return self.decode(self.latent(rng, num))


_LINEAR = LinearVAE()


def linear(scale, shift, *, encoder=None, optimizer=None, batch_size=4):
  """Returns a learner of that generator at these parameters."""
  scale, shift = np.broadcast_arrays(scale, shift)
  encoder = encoder or dict(slope=0.3, intercept=0.2, log_variance=-0.5)
  values = dict(scale=scale, shift=shift)
  values |= {k: np.broadcast_to(v, scale.shape) for k, v in encoder.items()}
  return learner(
    _LINEAR,
    values,
    optimizer,
    input_shape=scale.shape,
    batch_size=batch_size,
  )


def posterior(scale, shift, noise):
  """Returns the encoder p(z | x) of x = scale z + shift + N(0, noise), by Bayes."""
  scale, shift = np.broadcast_arrays(scale, shift)
  total = scale**2 + noise
  return dict(
    slope=scale / total,
    intercept=-scale * shift / total,
    log_variance=np.log(noise / total),
  )


def evidence_bound(generator, x, *condition, kl_weight=1.0, kl='prior'):
  """Returns the loss of an autoencoder with its metrics, from the densities.

  Its draws are those of `draws.fixed`: with 'posterior' all of them are the same.
  """
  normal = lambda x, mean, variance: jnp.sum(
    -0.5 * (x - mean) ** 2 / variance - 0.5 * jnp.log(2 * np.pi * variance),
    range(1, x.ndim),
  )

  def loss(params):
    mean, log_variance = generator.apply_fn(
      params, x, *condition, method='encode', key=jax.random.key(0)
    )
    variance = jnp.exp(log_variance)
    z = mean + variance**0.5 * draws.normals(mean.shape)
    back = generator.apply_fn(params, z, *condition, method='decode')
    error = jnp.sum((x - back) ** 2, range(1, x.ndim))
    divergence = jnp.sum(
      -jnp.log(variance**0.5) + (variance + mean**2) / 2 - 0.5, -1
    )
    values = error + kl_weight * divergence
    if kl == 'posterior':  # as X21 prints it, with p(z | x) by Bayes
      likelihood = normal(x, back, 0.5)
      evidence = likelihood + normal(z, 0.0, 1.0) - normal(z, mean, variance)
      to_posterior = divergence - likelihood + evidence
      values = kl_weight * to_posterior - evidence
    return jnp.mean(values), {
      'generator/reconstruction': jnp.mean(error),
      'generator/divergence': jnp.mean(divergence),
    }

  return loss


_STATES = np.array(list(itertools.product([-1.0, 1.0], repeat=2)))
RBM_TRUTH = {
  'bias': np.array([0.5, -0.5, 0.0, 1.0]),
  'weight': np.array([[1.5, 0.0], [0.0, 1.5], [1.0, -1.0], [-1.0, 0.5]]),
  'hidden_bias': np.array([0.3, -0.2]),
}
NUM_PARAMETERS = 4 + 8 + 2
NUM_DATA = 300
# The best fit is NUM_PARAMETERS / 2n nats above the truth on its own data (Wilks).
# An estimator of efficiency 1 / 10 is nine times that below; a start is 5 below.
SLACK = 9 * NUM_PARAMETERS / (2 * NUM_DATA)


def rbm_mixture(params):
  """Returns weights [4] and means [4, d]: p is their sum of N(b + Bh, I)."""
  params = jax.tree.map(np.asarray, params)
  means = params['bias'] + _STATES @ params['weight'].T
  weights = np.exp(_STATES @ params['hidden_bias'] + 0.5 * np.sum(means**2, 1))
  return weights / np.sum(weights), means


def rbm_log_likelihood(params, x):
  """Returns the mean of log p(x)."""
  weights, means = rbm_mixture(params)
  sq_dist = np.sum((x[:, None] - means) ** 2, -1)
  return np.mean(np.log(np.exp(-0.5 * sq_dist) @ weights)) - 2 * np.log(
    2 * np.pi
  )


def rbm_log_partition(params):
  """Returns log Z, a sum over the hidden states of unit Gaussians."""
  params = jax.tree.map(np.asarray, params)
  means = params['bias'] + _STATES @ params['weight'].T
  log_weights = _STATES @ params['hidden_bias'] + 0.5 * np.sum(means**2, 1)
  return np.log(np.sum(np.exp(log_weights))) + 2 * np.log(2 * np.pi)


def rbm_data(num, spread=1.0, seed=0):
  """Returns draws [num, 4] of the truth, its unit Gaussians given that spread."""
  rng = np.random.default_rng(seed)
  weights, means = rbm_mixture(RBM_TRUTH)
  return means[rng.choice(4, num, p=weights)] + spread * rng.normal(
    size=(num, 4)
  )


def rbm_statistics(params, x):
  """Returns the means of -dE / d(b, B, c) = (x, x h', h), h = tanh(B'x + c)."""
  params, x = jax.tree.map(np.asarray, (params, x))
  h = np.tanh(x @ params['weight'] + params['hidden_bias'])
  return {
    'bias': x.mean(0),
    'weight': x.T @ h / len(x),
    'hidden_bias': h.mean(0),
  }


def rbm_moments(params):
  """Returns the means under p of what `rbm_statistics` has, which are those with h."""
  weights, means = rbm_mixture(params)
  return {
    'bias': weights @ means,
    'weight': (weights * means.T) @ _STATES,
    'hidden_bias': weights @ _STATES,
  }


def init_rbm(algorithm, rng, x, optimizer, **config):
  energy = dict(name='RBM', num_hidden=2)
  config = ml_collections.ConfigDict(
    dict(energy=energy, optimizer=optimizer, **config)
  )
  return algorithm.init(rng, config, {'image': x})


def at_truth(algorithm, x, **fields):
  """Returns a state with the true parameters, whose step adds -gradient."""
  x = jnp.asarray(x)
  energy = _untrained(x.shape[1:], x.dtype.name)
  params = {
    'params': jax.tree.map(lambda p: jnp.asarray(p, x.dtype), RBM_TRUTH)
  }
  # Arrays of its own: a compiled step is given its state to destroy.
  zero = lambda: jnp.zeros((), jnp.int32)
  return algorithm.State(
    zero(), energy.replace(params=params, step=zero()), **fields
  )


@functools.lru_cache
def _untrained(shape, dtype):
  del dtype  # part of the cache key
  return init_rbm(
    maximum_likelihood,
    jax.random.key(0),
    jnp.zeros((1, *shape)),
    dict(name='sgd', learning_rate=1.0),
  ).energy


def ascent(algorithm, state, x, rng=None, **hyper):
  """Returns what one step adds to the parameters."""
  rng = jax.random.key(0) if rng is None else rng
  step = jax.jit(functools.partial(algorithm.step, **hyper))
  moved, _ = step(state, {'image': jnp.asarray(x)}, rng)
  return jax.tree.map(
    jnp.subtract, moved.energy.params['params'], state.energy.params['params']
  )


def fit_rbm(algorithm, x, *, num_train_steps, num_seeds=2, config=(), **hyper):
  """Returns the parameters after full-batch training, one tree per seed."""
  x = jnp.asarray(x, jnp.float32)
  rate = dict(
    name='linear_schedule',
    init_value=0.1,
    end_value=0.0,
    transition_steps=num_train_steps,
  )

  @jax.jit
  @jax.vmap
  def train(rng):
    state = init_rbm(
      algorithm, rng, x, dict(name='adam', learning_rate=rate), **dict(config)
    )

    def step(state, rng):
      return algorithm.step(state, {'image': x}, rng, **hyper)[0], None

    state, _ = lax.scan(step, state, jax.random.split(rng, num_train_steps))
    return state.energy.params['params']

  params = train(jax.random.split(jax.random.key(0), num_seeds))
  leaves = lambda seed: jax.tree.map(
    lambda p: np.asarray(p[seed], float), params
  )
  return [leaves(seed) for seed in range(num_seeds)]


LATENT = np.random.default_rng(3).normal(size=(16, 3))


def overlapping_rbm(num):
  """Returns a learner of 20 units and 5 hidden ones, draws [num, 20], and test draws.

  Its 32 Gaussians overlap. Maximum likelihood on `num` draws loses 125 / (2 num) nats.
  """
  rng = np.random.RandomState(0)
  weight = rng.randn(20, 5)
  weight *= 1.5 / np.linalg.norm(weight, axis=0)
  values = dict(
    weight=weight, bias=0.5 * rng.randn(20), hidden_bias=0.3 * rng.randn(5)
  )
  truth = learner(energies.RBM(5), values, input_shape=(20,))
  draw = lambda seed, num: learners.call(
    truth, truth.params, jax.random.key(seed), num, method='sample'
  )
  return truth, draw(1, num), draw(2, 20_000)


def nats_lost(truth, energy, test):
  """Returns by how much the mean log likelihood of `test` is below the truth's."""
  of_truth, of_model = (
    energies.log_likelihood(each, test, energies.exact_log_partition(each))
    for each in (truth, energy)
  )
  return jnp.mean(of_truth - of_model)


class FixedLatents(nn.Module):
  """A generator V' tanh(W'z) + b whose latents z do not depend on the key.

  Devices take their rows of one table, so that all modes draw the same samples.
  """

  shape: tuple[int, ...]
  norm: bool = False
  gain: bool = False
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, rng, num, *, label=None, axis_name=None):
    del rng
    first = collectives.index(axis_name) * num
    table = jnp.asarray(LATENT, self.dtype)
    z = lax.dynamic_slice_in_dim(table, first, num)
    size = int(np.prod(self.shape))
    weight = lambda name, *shape: self.param(
      name, lambda rng: jax.random.normal(rng, shape, self.dtype)
    )
    h = jnp.tanh(z @ weight('W', 3, 5))
    if self.norm:
      h = layers.BatchNorm(gain=self.gain)(h, axis_name=axis_name)
    x = h @ weight('V', 5, size) + weight('b', 1, size)
    if label is not None:
      x = x * (1 + label[:, None])
    return x.reshape(num, *self.shape)


class Encoder(nn.Module):
  """An energy that reconstructs, with a term of its own beside the error."""

  norm: bool = False

  @property
  def mixes(self):
    return self.norm

  @nn.compact
  def _run(self, x, axis_name=None):
    x = x.reshape(len(x), -1)
    weight = self.param('A', nn.initializers.normal(1.0), (x.shape[1], 3))
    h = x @ weight
    if self.norm:
      h = layers.BatchNorm()(h, axis_name=axis_name)
    h = jnp.tanh(h)
    error = jnp.mean((x - h @ weight.T) ** 2, -1)
    tilt = self.param('c', nn.initializers.normal(1.0), (x.shape[1],))
    return h, error, error + x @ tilt

  def features(self, x, *, axis_name=None):
    return self._run(x, axis_name)[0]

  def reconstruction_error(self, x, *, axis_name=None):
    return self._run(x, axis_name)[1]

  def __call__(self, x, *, axis_name=None):
    return self._run(x, axis_name)[2]


@functools.lru_cache  # making a learner compiles its initialisation
def fixed_generator(num, shape, **attributes):
  return generators.create(
    jax.random.key(1), FixedLatents(shape, **attributes), optax.sgd(1.0), num
  )


@functools.lru_cache
def encoder(num, shape, norm=False):
  return learners.create(
    jax.random.key(2),
    Encoder(norm),
    optax.sgd(1.0, momentum=0.9),
    jnp.zeros((num, *shape)),
  )


def steingan_state(energy, generator):
  return steingan.State(
    jnp.zeros((), jnp.int32), energy, generator, jnp.zeros(()), control=()
  )


def rbm_state(x, *, norm=False):
  """Returns a state of the true RBM in the dtype of x [n, 4]."""
  truth = at_truth(steingan, x, generator=None, gap=None, control=()).energy
  return steingan_state(
    truth, fixed_generator(len(x), x.shape[1:], norm=norm, dtype=x.dtype.name)
  )


def steingan_direction(
  x,
  *,
  kernel='rbf',
  kernel_space='pixels',
  repulsion='exact',
  normalize='count',
  bandwidth_scale=1.0,
  bandwidth_log='n+1',
  bandwidth=0.0,
):
  """Returns phi [n, 4] under the true RBM, pair by pair."""
  b, weight, c = (RBM_TRUTH[name] for name in ('bias', 'weight', 'hidden_bias'))
  n, hidden = len(x), np.tanh(x @ weight + c)
  score = b - x + hidden @ weight.T
  if kernel == 'none':
    return score
  e = x if kernel_space == 'pixels' else hidden
  sq_dist = np.sum((e[:, None] - e[None]) ** 2, -1)
  log = {'n+1': np.log(n + 1), 'n': np.log(n), 'none': 1.0}[bandwidth_log]
  h = bandwidth or bandwidth_scale * np.median(sq_dist) / log
  # The Jacobian of e at x_j, transposed, on a change of e.
  if kernel_space == 'pixels':
    pull = lambda j, change: change
  else:
    pull = lambda j, change: weight @ ((1 - hidden[j] ** 2) * change)
  phi = np.zeros_like(x)
  for i in range(n):
    others = [j for j in range(n) if j != i]
    nearest = min(others, key=lambda j: sq_dist[i, j])
    row_sum = 0.0
    for j in range(n):
      if kernel == 'rbf':
        k = np.exp(-sq_dist[i, j] / h)
        slope = k / h  # minus the derivative by the squared distance
      else:
        k = (1 + sq_dist[i, j] / h) ** -0.5
        slope = 0.5 / h * (1 + sq_dist[i, j] / h) ** -1.5
      row_sum += k
      # grad_{x_j} k(e_j, e_i) = 2 slope J(x_j)'(e_i - e_j).
      push = 2 * slope * pull(i if repulsion == 'swapped' else j, e[i] - e[j])
      if repulsion != 'nearest':
        phi[i] += k * score[j] + push
      elif j == nearest:
        phi[i] = score[i] + 0.5 * push
    if repulsion != 'nearest':
      phi[i] /= n if normalize == 'count' else row_sum
  return phi


def direction(
  kernel='rbf',
  kernel_space='pixels',
  repulsion='exact',
  normalize='count',
  bandwidth_scale=1.0,
  bandwidth_log='n+1',
  bandwidth=None,
):
  """Returns the value of the package that `steingan_direction` defines literally."""
  if kernel == 'none':
    return stein.Score()
  family = {'rbf': kernels.RBF, 'imq': kernels.IMQ}[kernel]
  rule = kernels.Median(bandwidth_scale, log=bandwidth_log)
  profile = family(rule if bandwidth is None else bandwidth)
  if kernel_space == 'pixels':
    return stein.SVGD(profile, normalize=normalize)
  return stein.FeatureSVGD(profile, form=repulsion, normalize=normalize)


def steingan_step(
  state, data, *, num_generator_steps=1, weight=1.0, negatives='before', **hyper
):
  """Returns what one step adds to the energy and to the generator, at rate 1."""
  start = jax.tree.map(np.asarray, state.generator.params['params'])
  params, z = dict(start), LATENT[: len(data)]
  for _ in range(num_generator_steps):
    h = np.tanh(z @ params['W'])
    samples = h @ params['V'] + params['b']
    phi = steingan_direction(samples, **hyper)
    # mean_i J_i' phi_i, of V'tanh(W'z) + b [LW17 eq 21].
    change = {
      'W': z.T @ ((phi @ params['V'].T) * (1 - h**2)),
      'V': h.T @ phi,
      'b': np.sum(phi, 0, keepdims=True),
    }
    params = {name: params[name] + change[name] / len(z) for name in params}
  if negatives == 'fresh':
    samples = np.tanh(z @ params['W']) @ params['V'] + params['b']
  ends = [rbm_statistics(RBM_TRUTH, x) for x in (data, samples)]
  energy = jax.tree.map(lambda data, fake: data - weight * fake, *ends)
  return energy, {name: params[name] - start[name] for name in params}


class Noise:
  """A direction that is one number of its key, for all particles."""

  needs_rng, needs_score = True, False

  def __call__(self, x, score, *, rng, axis_name=None):
    del score, axis_name
    return jnp.full_like(x, jax.random.uniform(rng))

  def at(self, rng, turn):
    """Returns the number in that turn of an algorithm's step with a key."""
    return float(jax.random.uniform(stein.own_key(self, rng, turn)))


SMALL_IMAGES = np.float32(np.random.default_rng(0).uniform(size=(8, 4, 4, 1)))
SMALL_LABELS = np.array([0, 2, 1, 1, 0, 2, 2, 1])


@functools.cache
def mixing_energies():
  """Returns learners of energies that normalise by the batch, of 4x4 images."""
  autoencoder = energies.Autoencoder(
    convs=((2, 3, 2, 1), (3, 2, 2, 0)), dropout=0.0
  )
  modules = {
    'autoencoder': autoencoder,
    'joint_label': energies.JointLabel(autoencoder, 3, margin=0.5),
    'discriminator': energies.Discriminator((2, 2), num_classes=3),
  }
  return {
    name: learners.create(
      jax.random.key(3),
      module,
      optax.sgd(0.1),
      SMALL_IMAGES,
      *(() if name == 'autoencoder' else (SMALL_LABELS,)),
    )
    for name, module in modules.items()
  }


class ByLabel(nn.Module):
  """E(x, y) = |x - m_y|^2 / 2, whose parameters are the means of the classes."""

  means: np.ndarray
  num_classes = 3

  @nn.compact
  def __call__(self, x, y):
    means = self.param('means', lambda _: jnp.asarray(self.means, x.dtype))
    mean = layers.one_hot(y, 3).astype(x.dtype) @ means
    return 0.5 * jnp.sum((x - mean) ** 2, -1)


def imq_stein_matrix(x, score, bandwidth):
  """Returns the Stein kernel of IMQ [n, n] in float64, its derivatives written out."""
  x, score = np.asarray(x, np.float64), np.asarray(score, np.float64)
  apart = x[:, None] - x[None]
  base = 1 + np.sum(apart**2, -1) / bandwidth
  k, slope = base**-0.5, -0.5 / bandwidth * base**-1.5
  curve = 0.75 / bandwidth**2 * base**-2.5
  drive = np.sum((score[None] - score[:, None]) * apart, -1)
  return (
    k * (score @ score.T)
    + 2 * slope * (drive - x.shape[1])
    - 4 * curve * np.sum(apart**2, -1)
  )
