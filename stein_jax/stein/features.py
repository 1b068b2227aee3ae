"""Discrepancies and tests by few features, at a cost linear in n.

A feature is what the Stein operator makes of a function, so that its mean under p is
zero: of the kernel at one location, chosen where the mean is not zero, or of a wave
whose frequency is drawn from the kernel's spectrum.
"""

from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import optax

from stein_jax import _sums
from stein_jax import checks
from stein_jax import kernels
from stein_jax.stein import _draws
from stein_jax.stein import _particles
from stein_jax.stein import _spectrum
from stein_jax.stein import _subsets
from stein_jax.stein import results
from stein_jax.types import Array, Kernel, PRNGKey

_HIGHEST = lax.Precision.HIGHEST  # TPU and GPU products are half precision
_WIDEST = 100.0  # times, or by, which an optimized bandwidth may leave its rule


class _Moments(NamedTuple):
  """What features of points come to.

  Attributes:
    mean: their mean [f].
    square: the mean of their squared norm [].
    second: their second moments [f, f], where they were asked for.
    n: number of points.
  """

  mean: Array
  square: Array
  second: Array | None
  n: int


def fssd(x: Array, score: Array, locations: Array, kernel: Kernel) -> Array:
  """Returns the finite-set Stein discrepancy [] [JXSFG17], without bias.

  It is the mean over J locations and d coordinates of the squares of
  E[s(x) k(x, v) + grad_x k(x, v)], estimated over pairs of different points, so that
  it can be below zero.

  Args:
    x: points [n, d].
    score: grad_x log p at the points [n, d].
    locations: the locations v [J, d].
    kernel: radial profile; a rule for its bandwidth is applied to 1,000 of the points,
      evenly spaced.

  Examples:
    At v = 0 with k = 1 a feature is the score; of N(0, 1) and the points 1 and 3 the
    one pair has the product 3:

    >>> x, at = jnp.array([[1.0], [3.0]]), jnp.zeros((1, 1))
    >>> print(fssd(x, -x, at, lambda sq_dist: jnp.ones_like(sq_dist)))
    3.0
  """
  x, score, kernel = _ruled(x, score, kernel)
  x, locations = kernels.points(x=x, locations=locations)
  return _unbiased(_moments(_at_locations(locations, kernel), x, score))


def fssd_locations(
  rng: PRNGKey,
  x: Array,
  score: Array,
  kernel: Kernel,
  *,
  num_locations: int = 5,
  num_steps: int = 50,
  regularization: float = 1e-2,
) -> tuple[Array, Kernel]:
  """Returns locations [J, d] that show a difference well, and the kernel for them.

  They maximise the power criterion of [JXSFG17], the FSSD over its standard
  deviation, together with the bandwidth, by L-BFGS from draws of the Gaussian that fits
  the points. A test must be of other points than these.

  Args:
    rng: key of the first locations.
    x: points [n, d] to learn from.
    score: grad_x log p at the points [n, d].
    kernel: radial profile with a bandwidth; a rule is applied to 1,000 of the points.
    num_locations: J.
    num_steps: steps of L-BFGS.
    regularization: what is added to the variance.

  Raises:
    TypeError: a kernel without a bandwidth.
  """
  checks.key(rng=rng)
  checks.count(num_locations=num_locations, num_steps=num_steps)
  checks.positive(regularization=regularization)
  x, score = _particles.points(x, score)
  checks.count(minimum=2, **{'len(x)': len(x)})
  ruled = _draws.with_bandwidth(kernel, _subsets.for_rules(x))
  middle = jnp.mean(x, 0, keepdims=True)
  # Weights of the points draw from the Gaussian, where C may be singular too.
  weights = jax.random.normal(rng, (num_locations, len(x)), x.dtype)
  spread = jnp.dot(weights, x - middle, precision=_HIGHEST)
  start = middle + spread / (len(x) - 1) ** 0.5

  def scaled(log_scale):
    limit = jnp.log(_WIDEST)
    factor = jnp.exp(jnp.clip(log_scale, -limit, limit))
    return ruled.replace(bandwidth=ruled.bandwidth * factor)

  def loss(chosen):
    locations, log_scale = chosen
    features = _at_locations(locations, scaled(log_scale))
    moments = _moments(features, x, score, products=True)
    along = jnp.dot(moments.second, moments.mean, precision=_HIGHEST)
    norm = jnp.sum(moments.mean**2)
    variance = 4 * (jnp.dot(moments.mean, along, precision=_HIGHEST) - norm**2)
    # Rounding alone makes the variance negative.
    spread = jnp.sqrt(jnp.maximum(variance, 0) + regularization)
    return -_unbiased(moments) / spread

  grid = jnp.log(2.0) * jnp.linspace(-3, 3, 5, dtype=x.dtype)
  losses = lax.map(lambda log_scale: loss((start, log_scale)), grid)
  chosen = start, grid[jnp.argmin(losses)]
  solver = optax.lbfgs()
  value_and_grad = optax.value_and_grad_from_state(loss)

  def descend(carry, _):
    chosen, state = carry
    value, slope = value_and_grad(chosen, state=state)
    step, state = solver.update(
      slope, state, chosen, value=value, grad=slope, value_fn=loss
    )
    return (optax.apply_updates(chosen, step), state), None

  carry = chosen, solver.init(chosen)
  ((locations, log_scale), _), _ = lax.scan(descend, carry, length=num_steps)
  return locations, scaled(log_scale)


def fssd_test(
  rng: PRNGKey,
  x: Array,
  score: Array,
  kernel: Kernel = kernels.RBF(kernels.Median(diagonal=False, log='none')),
  *,
  locations: Array | None = None,
  num_locations: int = 5,
  num_steps: int = 50,
  train_share: float = 0.2,
  num_draws: int = 3000,
) -> results.TestResult:
  """Returns a test of goodness of fit at few locations [JXSFG17], linear in n.

  The statistic is n FSSD. Under x ~ p it is, for many points, a sum of centred squares
  of normal numbers, weighted by the eigenvalues of the features' covariance; draws of
  this law give the p-value. Without `locations` a random share of the points chooses
  them, as `fssd_locations` does, and the test is of the others.

  Args:
    rng: key of the split, of the locations and of the draws.
    x: points [n, d], independent.
    score: grad_x log p at the points [n, d].
    kernel: radial profile; a rule for its bandwidth is applied to 1,000 of the points.
    locations: locations [J, d] that were not chosen by these points; None to choose.
    num_locations: J, if they are chosen. All matrices are of J d rows, so that J d
      should stay below some hundreds.
    num_steps: steps of L-BFGS, if they are chosen.
    train_share: the share of points that chooses.
    num_draws: draws of the law under x ~ p.

  Raises:
    ValueError: the share leaves fewer than 2 points to choose or to test.

  Examples:
    >>> x = jax.random.laplace(jax.random.key(0), (2000, 1)) / 2**0.5  # variance 1
    >>> _, p_value = jax.jit(fssd_test)(jax.random.key(1), x, -x)
    >>> bool(p_value < 0.01)
    True
  """
  checks.key(rng=rng)
  checks.count(num_draws=num_draws)
  x, score = _particles.points(x, score)
  of_split, of_locations, of_draws = jax.random.split(rng, 3)
  if locations is None:
    num_train = _train(len(x), train_share)
    order = jax.random.permutation(of_split, len(x))
    x, score = x[order], score[order]
    locations, kernel = fssd_locations(
      of_locations,
      x[:num_train],
      score[:num_train],
      kernel,
      num_locations=num_locations,
      num_steps=num_steps,
    )
    x, score = x[num_train:], score[num_train:]
  x, locations = kernels.points(x=x, locations=locations)
  x, score, kernel = _ruled(x, score, kernel)
  return _tested(
    of_draws,
    _moments(_at_locations(locations, kernel), x, score, products=True),
    num_draws,
    title='FSSD test of goodness of fit',
    x=x,
    kernel=kernel,
    rng=rng,
    locations=len(locations),
  )


def random_feature_ksd(
  rng: PRNGKey,
  x: Array,
  score: Array,
  kernel: Kernel,
  *,
  num_features: int = 100,
) -> Array:
  """Returns an unbiased estimate [] of the squared `ksd`, linear in n [HM18] [RR07].

  The kernel is the mean of cos(w.(x - y)) over frequencies w. The estimate is the mean
  over `num_features` of them of |E[s(x) e^(i w.x) + i w e^(i w.x)]|^2, over pairs of
  different points, so that it can be below zero. For few frequencies it scatters about
  the KSD of these points, and sees no difference that lies at none of them.

  Args:
    rng: key of the frequencies.
    x: points [n, d].
    score: grad_x log p at the points [n, d].
    kernel: `kernels.RBF`, `IMQ`, `RationalQuadratic`, or one that has `rates` as these;
      a rule for its bandwidth is applied to 1,000 of the points.
    num_features: number of frequencies, m. Time is n m d, and n (m d)^2 in the test.

  Raises:
    ValueError: the kernel has no random features.

  Examples:
    At a frequency near 0 both features are the score, and the product of -1 and -3
    with themselves, over pairs, is 3:

    >>> x, flat = jnp.array([[1.0], [3.0]]), kernels.RBF(1e12)
    >>> print(round(float(random_feature_ksd(jax.random.key(0), x, -x, flat)), 3))
    3.0
  """
  x, score, kernel = _ruled(x, score, kernel)
  x = x - jnp.mean(
    x, 0, keepdims=True
  )  # what large angles would lose in digits
  waves = _waves(_spectrum.frequencies(rng, num_features, kernel, x))
  return _unbiased(_moments(waves, x, score))


def random_feature_ksd_test(
  rng: PRNGKey,
  x: Array,
  score: Array,
  kernel: Kernel = kernels.IMQ(kernels.Median(diagonal=False, log='none')),
  *,
  num_features: int = 10,
  num_draws: int = 3000,
) -> results.TestResult:
  """Returns a test of goodness of fit by random features [HM18], linear in n.

  The statistic is n `random_feature_ksd`. Its law under x ~ p is found as that of
  `fssd_test` is. That one learns where to look, at the price of a share of the points;
  this one learns nothing, and takes a tenth of its time.

  The features of [HM18] are bumps at random places, which points in many dimensions
  seldom meet: as we tried them, as wide as the median distance has it, a thousand
  points in five dimensions were never rejected. Waves see all points.

  Args:
    rng: key of the frequencies and of the draws.
    x: points [n, d], independent.
    score: grad_x log p at the points [n, d].
    kernel: as for `random_feature_ksd`.
    num_features: number of frequencies, m. All matrices are of 2 m d rows, so that m d
      should stay below some hundreds.
    num_draws: draws of the law under x ~ p.

  Raises:
    ValueError: the kernel has no random features.

  Examples:
    >>> x = jax.random.laplace(jax.random.key(0), (2000, 1)) / 2**0.5  # variance 1
    >>> test = jax.jit(random_feature_ksd_test)
    >>> bool(test(jax.random.key(1), x, -x).p_value < 0.01)
    True
  """
  checks.key(rng=rng)
  checks.count(num_draws=num_draws)
  of_waves, of_draws = jax.random.split(rng)
  x, score, kernel = _ruled(x, score, kernel)
  x = x - jnp.mean(
    x, 0, keepdims=True
  )  # what large angles would lose in digits
  waves = _waves(_spectrum.frequencies(of_waves, num_features, kernel, x))
  return _tested(
    of_draws,
    _moments(waves, x, score, products=True),
    num_draws,
    title='random-feature KSD test of goodness of fit',
    x=x,
    kernel=kernel,
    rng=rng,
    features=num_features,
  )


def _tested(of_draws, moments, num_draws, **what):
  """Returns the test that the features' mean is zero, by draws of its law if it is."""
  covariance = moments.second - jnp.outer(moments.mean, moments.mean)
  weights = jnp.linalg.eigvalsh(covariance)
  normal = jax.random.normal(of_draws, (num_draws, len(weights)), weights.dtype)
  draws = jnp.dot(normal**2 - 1, weights, precision=_HIGHEST)
  statistic = moments.n * _unbiased(moments)
  p_value = _draws.p_value(jnp.concatenate([statistic[None], draws]))
  return _draws.result(statistic, p_value, draws=num_draws, **what)


def _train(n, share):
  """Returns how many of n points choose the locations."""
  checks.positive(train_share=share)
  checks.below(1, train_share=share)
  num = round(n * share)
  if min(num, n - num) < 2:
    raise ValueError(
      f'train_share={share} of {n} points leaves {num} to choose locations and '
      f'{n - num} to test; each needs 2.'
    )
  return num


def _ruled(x, score, kernel):
  """Returns points and scores [n, d], and a kernel whose rules were applied to some."""
  x, score = _particles.points(x, score)
  checks.count(minimum=2, **{'len(x)': len(x)})
  return x, score, kernels.resolved(kernel, _subsets.for_rules(x))


def _unbiased(moments):
  """Returns the estimate without bias [] of the square of the features' mean."""
  squares = moments.n * jnp.sum(moments.mean**2) - moments.square
  return squares / (moments.n - 1)


def _at_locations(locations, kernel):
  """Returns the features [J d] as a function of one point and its score [d]."""

  def features(x, score):
    gap = x[None] - locations
    sq_dist = jnp.sum(gap * gap, 1)
    k, slope = _sums.with_slope(kernel)(sq_dist)
    values = k[:, None] * score[None] + 2 * slope[:, None] * gap
    return values.ravel() / locations.size**0.5

  return features


def _waves(frequencies):
  """Returns the features [2 m d] as a function of one point and its score [d]."""

  def features(x, score):
    angle = jnp.dot(frequencies, x, precision=_HIGHEST)
    even, odd = jnp.cos(angle)[:, None], jnp.sin(angle)[:, None]
    # The two parts of e^(i w.x) (s + i w).
    values = (
      even * score[None] - odd * frequencies,
      odd * score[None] + even * frequencies,
    )
    return jnp.concatenate(values).ravel() / len(frequencies) ** 0.5

  return features


def _moments(features, x, score, *, products=False):
  """Returns the moments of features of points, by blocks of them."""
  n = len(x)
  num = jax.eval_shape(features, x[0], score[0]).size
  size = min(n, kernels.block_rows(num))
  blocks = -(-n // size)
  filled = lambda leaf: jnp.pad(leaf, ((0, blocks * size - n), (0, 0)))
  cut = lambda leaf: filled(leaf).reshape(blocks, size, leaf.shape[1])
  counts = (jnp.arange(blocks * size) < n).reshape(blocks, size)

  def add(sums, block):
    x, score, counts = block
    values = jnp.where(counts[:, None], jax.vmap(features)(x, score), 0)
    found = jnp.sum(values, 0), jnp.sum(values * values)
    if products:
      found = *found, jnp.dot(values.T, values, precision=_HIGHEST)
    return jax.tree.map(jnp.add, sums, found), None

  start = jnp.zeros(num, x.dtype), jnp.zeros((), x.dtype)
  if products:
    start = *start, jnp.zeros((num, num), x.dtype)
  sums, _ = lax.scan(add, start, (cut(x), cut(score), counts))
  mean, square, *second = (total / n for total in sums)
  return _Moments(mean, square, second[0] if second else None, n)
