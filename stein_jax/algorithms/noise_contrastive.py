"""Learning by telling data from noise: NCE, its conditional form, energy discrepancy.

No chain is run, no derivative by x is taken, and no log Z is needed.
"""

from collections.abc import Callable
import math
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
from jax.scipy import linalg

from stein_jax import build
from stein_jax import checks
from stein_jax import collectives
from stein_jax import dtypes
from stein_jax import energies
from stein_jax import learners
from stein_jax import samplers
from stein_jax.types import Array, Batch, Metrics, Params, PRNGKey

FIELDS = dict(covariance='full', ridge=0.1)
_HIGHEST = lax.Precision.HIGHEST  # TPU and GPU products are half precision
_OBJECTIVES = ('discrepancy', 'conditional', 'fixed', 'self')


class Noise(NamedTuple):
  """A normal law, which data are told from.

  Attributes:
    mean: its mean [d].
    root: the lower root of its covariance [d, d], or standard deviations [d].
  """

  mean: Array
  root: Array

  def sample(self, rng: PRNGKey, num: int) -> Array:
    """Returns draws [num, d]."""
    unit = jax.random.normal(rng, (num, len(self.mean)), self.mean.dtype)
    if self.root.ndim == 1:
      return self.mean[None] + self.root[None] * unit
    return self.mean[None] + jnp.dot(unit, self.root.T, precision=_HIGHEST)

  def log_density(self, x: Array) -> Array:
    """Returns log p(x) [n] of points [n, d], which is normalised."""
    rest = x - self.mean[None]
    if self.root.ndim == 1:
      unit, scales = rest / self.root[None], self.root
    else:
      # The inverse first: to solve for all points takes a CPU a hundred times as long.
      one = jnp.eye(len(self.mean), dtype=self.root.dtype)
      inverse = linalg.solve_triangular(self.root, one, lower=True)
      unit = jnp.dot(rest, inverse.T, precision=_HIGHEST)
      scales = jnp.diagonal(self.root)
    volume = jnp.sum(jnp.log(scales)) + 0.5 * len(scales) * math.log(
      2 * math.pi
    )
    return -0.5 * jnp.sum(unit**2, 1) - volume


class State(NamedTuple):
  step: Array
  energy: learners.Learner
  noise: Noise | None  # of 'fixed', else None
  log_partition: Array | None  # what 'fixed' has learned of log Z []


def init(rng: PRNGKey, config, batch: Batch) -> State:
  """Returns the first state; noise that is fixed is fitted to the first batch."""
  energy_rng, noise_rng = jax.random.split(rng)
  law = dict(covariance=config.covariance, ridge=config.ridge)
  _check_law(**law)
  energy = learners.create(
    energy_rng,
    build.build(energies, **config.energy),
    config.optimizer,
    batch['image'],
  )
  if getattr(getattr(config, 'step', None), 'objective', None) != 'fixed':
    return State(jnp.zeros((), jnp.int32), energy, None, None)
  return create(noise_rng, energy, fit(batch['image'], **law))


def create(
  rng: PRNGKey, energy: learners.Learner, noise: Noise, num: int = 1000
) -> State:
  """Returns the first state of an energy that is told from noise of a fixed law.

  Args:
    rng: key of the noise.
    energy: the learner.
    noise: the law; see `fit`.
    num: number of draws for the first log Z, which is that of importance sampling.
  """
  checks.count(num=num)
  draws = noise.sample(rng, num)
  shaped = draws.reshape(num, *(energy.input_shape or (-1,)))
  log_weights = -energies.value(energy, energy.params, shaped)
  log_partition = samplers.log_mean_exp(log_weights - noise.log_density(draws))
  return State(jnp.zeros((), jnp.int32), energy, noise, log_partition)


def fit(x: Array, *, covariance: str = 'full', ridge: float = 0.1) -> Noise:
  """Returns the normal law of data's mean and covariance.

  Args:
    x: data [n, ...].
    covariance: 'full', or 'diagonal' for the variances alone, which is a noise that is
      told from the data more easily, and teaches less.
    ridge: share of the mean variance that is added to each, so that pixels which never
      change, and fewer data than numbers of one, have a density too.
  """
  _check_law(covariance, ridge)
  x = _flat(dtypes.at_least_float32(x))
  mean = jnp.mean(x, 0)
  rest = x - mean[None]
  variance = jnp.mean(rest**2, 0)
  scale = jnp.mean(variance)
  floor = ridge * jnp.where(scale > 0, scale, 1)
  if covariance == 'diagonal':
    return Noise(mean, jnp.sqrt(variance + floor))
  matrix = jnp.dot(rest.T, rest, precision=_HIGHEST) / len(x)
  matrix += floor * jnp.eye(len(mean), dtype=x.dtype)
  return Noise(mean, jnp.linalg.cholesky(matrix))


def step(
  state: State,
  batch: Batch,
  rng: PRNGKey,
  *,
  objective: str = 'discrepancy',
  noise_scale: float = 0.3,
  num_noise: int = 4,
  partition_rate: float = 0.1,
  known_partition: bool = False,
  axis_name: str | None = None,
) -> tuple[State, Metrics]:
  """Returns the state after one step that tells data from noise, and its metrics.

  'energy/confusion' is the classifier's loss as a share of what it is where nothing can
  be told apart. Near 1 noise is too near to the data, and near 0 too far: little is
  learned then, and in float32 nothing. From 0.2 to 0.95 is well [CG18].

  Args:
    state: the energy, and for 'fixed' the noise and log Z.
    batch: 'image' [n, ...].
    rng: key of the noise and of the energy's dropout.
    objective: 'discrepancy', 'conditional', 'fixed' or 'self', for
      `discrepancy_objective` and so on. The last asks for an energy with exact samples,
      as `RBM` has them.
    noise_scale: how far noise lies from its datum, in units of x, for 'discrepancy' and
      'conditional'. In d dimensions 2 / sqrt(d) to 3.5 / sqrt(d) of the spread that the
      energy has around a datum is well.
    num_noise: number of noises for each datum; 'self' has one.
    partition_rate: share of the way that the learned log Z goes at a step, for 'fixed'.
    known_partition: whether 'energy/log_partition_error' is logged for 'fixed', the
      learned log Z less the energy's own, which is then summed at every step.
    axis_name: the mapped axis over which the batch is split.

  Raises:
    ValueError: an argument is out of its range, the energy mixes its batch, or the
      state or the energy lacks what the objective needs.
  """
  checks.choice(_OBJECTIVES, objective=objective)
  checks.positive(noise_scale=noise_scale, partition_rate=partition_rate)
  checks.at_most(1, partition_rate=partition_rate)
  checks.count(num_noise=num_noise)
  checks.flag(known_partition=known_partition)
  data, energy, log_partition = (
    batch['image'],
    state.energy,
    state.log_partition,
  )
  dropout_rng = learners.dropout_key(energy, rng, axis_name=axis_name)
  rng = collectives.fold_in_index(rng, axis_name)

  if objective == 'fixed':
    if state.noise is None:
      raise ValueError(
        "objective='fixed' needs a state with noise, as `create` returns it."
      )
    of_noise = dict(noise=state.noise, log_partition=log_partition)
    loss_fn = fixed_objective(energy, data, rng, num_noise, **of_noise)
  elif objective == 'self':
    samples = _exact_samples(energy, rng, data)
    loss_fn = self_objective(energy, data, samples)
  else:
    of = (
      discrepancy_objective
      if objective == 'discrepancy'
      else conditional_objective
    )
    loss_fn = of(
      energy, data, rng, noise_scale, num_noise, dropout_rng=dropout_rng
    )
  energy, metrics, *ratios = learners.descend(
    energy, loss_fn, axis_name=axis_name
  )

  if objective == 'fixed':
    metrics['energy/log_partition'] = log_partition
    if known_partition:
      known = energies.log_partition(state.energy, state.energy.params)
      metrics['energy/log_partition_error'] = log_partition - known
    way = _way_to_log_partition(*ratios[0], log_partition, num_noise, axis_name)
    log_partition = log_partition + partition_rate * way
  return State(state.step + 1, energy, state.noise, log_partition), metrics


def discrepancy_objective(
  energy: learners.Learner,
  x: Array,
  rng: PRNGKey,
  noise_scale: float = 0.3,
  num_noise: int = 4,
  *,
  dropout_rng: PRNGKey | None = None,
) -> Callable[[Params], tuple[Array, Metrics]]:
  """Returns the energy discrepancy, a loss and its metrics, of parameters [S23].

  A datum x is blurred, and M noises x_j are drawn around what came out; all of this has
  the variance `noise_scale`^2 = 2t. The loss is mean log(w + sum_j exp(E(x) - E(x_j)))
  with w = 1, less log(M + 1) and times (M + 1) / (M t). So it tends to that of score
  matching as t goes to 0, and a learning rate means the same at any t and M.

  There is no other w. With w = 1 the loss is minus the log of the probability with
  which the datum is found among the M + 1 points, which given the blurred one are
  alike; so it has the truth as its optimum at every t and M [MC18]. With less it makes
  energies too sharp, and without an end at 0; and with more too flat. At M = 1 it is
  `conditional_objective`.

  Args:
    energy: the learner, of an energy that does not mix its batch.
    x: data [n, ...].
    rng: key of the noise.
    noise_scale: standard deviation of x_j - x in every coordinate.
    num_noise: M.
    dropout_rng: key of the energy's dropout.
  """
  gaps_fn = _gaps(
    energy, x, rng, noise_scale, num_noise, dropout_rng, shared=True
  )

  def loss_fn(params):
    gaps = gaps_fn(params)
    # The datum among its noises: w is the 1 of exp(0).
    among = jnp.concatenate([jnp.zeros_like(gaps[:1]), gaps])
    loss = jnp.mean(jax.nn.logsumexp(among, 0))
    return _rescaled(loss, noise_scale, num_noise)

  return loss_fn


def conditional_objective(
  energy: learners.Learner,
  x: Array,
  rng: PRNGKey,
  noise_scale: float = 0.3,
  num_noise: int = 4,
  *,
  dropout_rng: PRNGKey | None = None,
) -> Callable[[Params], tuple[Array, Metrics]]:
  """Returns the loss of conditional NCE and its metrics, of parameters [CG18].

  The loss is mean log(1 + exp(E(x) - E(x + eps xi))), less log 2 and times 4 / eps^2,
  which tends to that of score matching as eps goes to 0. The truth is its optimum at
  every eps.

  Args:
    energy: the learner, of an energy that does not mix its batch.
    x: data [n, ...].
    rng: key of the noise.
    noise_scale: eps.
    num_noise: number of xi for each datum.
    dropout_rng: key of the energy's dropout.
  """
  gaps_fn = _gaps(
    energy, x, rng, noise_scale, num_noise, dropout_rng, shared=False
  )

  def loss_fn(params):
    loss = jnp.mean(jax.nn.softplus(gaps_fn(params)))
    return _rescaled(loss, noise_scale, 1)

  return loss_fn


def fixed_objective(
  energy: learners.Learner,
  x: Array,
  rng: PRNGKey,
  num_noise: int = 1,
  *,
  noise: Noise,
  log_partition: Array | float,
) -> Callable[[Params], tuple[Array, Metrics, tuple[Array, Array]]]:
  """Returns the loss of NCE, its metrics and log ratios, of parameters [GH10].

  With G(x) = -E(x) - c - log p_n(x), the density's log ratio to that of the noise, and
  nu noises for each datum, the loss is mean log(1 + exp(log nu - G)) over data plus
  nu mean log(1 + exp(G - log nu)) over noise. Its optimum is the truth, with c its
  log Z.

  Args:
    energy: the learner, of an energy that does not mix its batch.
    x: data [n, ...].
    rng: key of the noise.
    num_noise: nu.
    noise: the law p_n of the noise.
    log_partition: c.

  Returns:
    A function of parameters to the loss [], metrics, and G + c of the data [n] and of
    the noise [nu, n].
  """
  checks.key(rng=rng)
  checks.count(num_noise=num_noise)
  x = dtypes.at_least_float32(x)
  # A row for each datum, as devices have them.
  draws = noise.sample(rng, len(x) * num_noise).astype(x.dtype)
  draws = jnp.moveaxis(draws.reshape(len(x), num_noise, -1), 1, 0)
  points = jnp.concatenate([_flat(x)[None], draws])
  log_density = noise.log_density(points.reshape(-1, points.shape[-1]))
  log_density = log_density.reshape(num_noise + 1, len(x))
  points = points.reshape(num_noise + 1, *x.shape)
  values_fn = _values(energy, points)
  unknown = math.log1p(num_noise) + num_noise * math.log1p(1 / num_noise)

  def loss_fn(params):
    of_data, *of_noise = -values_fn(params) - log_density
    ratios = of_data, jnp.stack(of_noise)
    loss = _logistic(*ratios, log_partition, num_noise)
    metrics = {'energy/loss': loss, 'energy/confusion': loss / unknown}
    return loss, metrics, ratios

  return loss_fn


def self_objective(
  energy: learners.Learner,
  x: Array,
  samples: Array,
) -> Callable[[Params], tuple[Array, Metrics]]:
  """Returns the loss of self-contrastive estimation and its metrics [G14].

  The noise is of the energy as it is, so that log Z is on both sides. Where the loss is
  taken it is 2 log 2, whatever the parameters are, and its gradient is half of that of
  maximum likelihood by these samples.

  Args:
    energy: the learner, of an energy that does not mix its batch.
    x: data [n, ...].
    samples: exact samples of the energy, like the data.
  """
  checks.like(x, samples=samples)
  points = jnp.stack([dtypes.at_least_float32(each) for each in (x, samples)])
  values_fn = _values(energy, points)
  frozen = values_fn(lax.stop_gradient(energy.params))

  def loss_fn(params):
    of_data, of_samples = frozen - values_fn(params)
    loss = _logistic(of_data, of_samples, 0.0, 1)
    confusion = loss / (2 * math.log(2))
    return loss, {'energy/loss': loss, 'energy/confusion': confusion}

  return loss_fn


# None of these objectives runs a chain, so samples are the ends of a separate one.
sample = energies.sample_state


def _check_law(covariance, ridge):
  checks.choice(('full', 'diagonal'), covariance=covariance)
  checks.positive(ridge=ridge)


def _values(energy, points, dropout_rng=None):
  """Returns a function of parameters to E [k, n] of points [k, n, ...]."""
  energies.check_density(energy)

  def of(params):
    # Each n by itself under the one key, so that dropout takes from a datum and from
    # its noises the same units: another mask is a gap of its own.
    value = lambda x: energies.value(energy, params, x, rng=dropout_rng)
    return jax.vmap(value)(points)

  return of


def _gaps(energy, x, rng, noise_scale, num_noise, dropout_rng, *, shared):
  """Returns a function of parameters to E(x) - E(x_j) [num_noise, n].

  The noises of a datum have half of their variance in common if they are `shared`.
  """
  checks.key(rng=rng)
  checks.positive(noise_scale=noise_scale)
  checks.count(num_noise=num_noise)
  x = dtypes.at_least_float32(x)
  # A row for each datum, as devices have them.
  shape = (len(x), num_noise + shared, *x.shape[1:])
  noise = jnp.moveaxis(jax.random.normal(rng, shape, x.dtype), 1, 0)
  if shared:
    noise = (noise[:1] + noise[1:]) / math.sqrt(2)
  points = jnp.concatenate([x[None], x[None] + noise_scale * noise])
  values_fn = _values(energy, points, dropout_rng)

  def of(params):
    values = values_fn(params)
    return values[:1] - values[1:]

  return of


def _rescaled(loss, noise_scale, num_noise):
  """Returns a loss in units of score matching's, and metrics."""
  unknown = math.log1p(num_noise)  # what it is where noise is like data
  unit = num_noise * noise_scale**2 / (2 * (num_noise + 1))
  scaled = (loss - unknown) / unit
  return scaled, {'energy/loss': scaled, 'energy/confusion': loss / unknown}


def _logistic(of_data, of_noise, log_partition, num_noise):
  """Returns the loss [] of a logistic regression of data against noise."""
  shift = log_partition + math.log(num_noise)
  positive = jnp.mean(jax.nn.softplus(shift - of_data))
  return positive + num_noise * jnp.mean(jax.nn.softplus(of_noise - shift))


def _way_to_log_partition(
  of_data, of_noise, log_partition, num_noise, axis_name
):
  """Returns how far log Z is from where the loss has no slope along it [].

  There the mean share of data that are taken for noise is nu times that of noise taken
  for data. The difference of their logarithms is a step of bridge sampling [MW96]. It
  cannot overshoot, as Newton's does where the two are far apart.
  """
  log_num = math.log(num_noise)
  shift = log_partition + log_num
  as_noise = jax.nn.log_sigmoid(shift - of_data)
  as_data = jax.nn.log_sigmoid(of_noise - shift)
  return (
    _log_mean_exp(as_data, axis_name)
    + log_num
    - _log_mean_exp(as_noise, axis_name)
  )


def _log_mean_exp(values, axis_name):
  """Returns the log of the mean over all devices []."""
  largest = collectives.pmax(jnp.max(values), axis_name)
  mean = collectives.pmean(jnp.mean(jnp.exp(values - largest)), axis_name)
  return largest + jnp.log(mean)


def _exact_samples(energy, rng, data):
  """Returns exact samples of the energy, shaped like the data."""
  if not learners.has_method(energy, 'sample'):
    raise ValueError(
      "objective='self' needs exact samples, and this energy has no method sample; "
      "allowed: 'discrepancy', 'conditional', 'fixed'."
    )
  samples = learners.call(
    energy, energy.params, rng, len(data), method='sample'
  )
  return samples.reshape(data.shape)


def _flat(x):
  return x.reshape(len(x), -1)
