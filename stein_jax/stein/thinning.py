"""Few points that stand for many: which of a chain's states to keep."""

import jax
from jax import lax
import jax.numpy as jnp

from stein_jax import _sums
from stein_jax import checks
from stein_jax import dtypes
from stein_jax import kernels
from stein_jax.stein import _particles
from stein_jax.stein import _subsets
from stein_jax.types import Array, Kernel

_HIGHEST = lax.Precision.HIGHEST  # TPU and GPU products are half precision
# Logarithm of the largest weight: float32 holds its square many times over.
_LARGEST = 20.0


def thin(
  x: Array,
  score: Array,
  num: int,
  kernel: Kernel = kernels.IMQ(kernels.Median(diagonal=False, log='none')),
  *,
  standardize: bool = True,
  covariance: bool = False,
  log_density: Array | None = None,
  laplacian: Array | None = None,
  entropy: Array | float | None = None,
  log_ratio: Array | None = None,
) -> tuple[Array, Array]:
  """Returns the indices [num] of points to keep, and their squared KSDs [num].

  Stein thinning [RCCSNMO22 alg 1] takes, one after the other, the point that makes the
  KSD of those taken so far least. It leaves out a chain's burn-in, and mends some of
  its bias. Given candidates in place of a chain's states, it returns Stein points. A
  point may be taken again, and of equal ones the first is. The KSDs are of the first,
  the first two, ... points. Beside the points memory is O(n), and the time
  is that of n num d numbers.

  A score does not say how much mass lies in modes far apart, and is as flat between
  them as in them. With `log_density` a point also pays for being unlikely, and for
  lying in a dip [BSD23]: the regularised form.

  With `log_ratio` nobody needs the score of p. The score of any density q near p takes
  its place, and pairs are weighted by q / p [FO22]; their KSDs are up to a constant.

  Args:
    x: points [n, d].
    score: grad_x log p at the points [n, d]; grad_x log q with `log_ratio`.
    num: how many to take.
    kernel: radial profile; a rule for its bandwidth is applied to 1,000 of the points,
      evenly spaced.
    standardize: whether each coordinate is divided by its mean absolute deviation;
      one in which all points are equal then has no say.
    covariance: whether the squared distance that the kernel sees is
      (x - y)' C^-1 (x - y), C the covariance of the points. Where C is singular, as
      that of d points or fewer, the KSDs are nan.
    log_density: log p at the points [n], up to a constant.
    laplacian: the sum of the positive parts of the second derivatives of log p along
      each coordinate [n]; None leaves it out.
    entropy: weight of log p; None for 1 / num.
    log_ratio: log q - log p at the points [n], up to a constant. Where it varies by
      more than 10 few points carry everything; more than 20 above its least it counts
      as 20.

  Raises:
    ValueError: arrays that do not belong to n points, or `laplacian` and `entropy`
      without `log_density`.

  Examples:
    The states of a chain before it has reached N(0, 1) are not among the ten kept:

    >>> x = jax.random.normal(jax.random.key(0), (500, 1))
    >>> x = x.at[:50].add(jnp.linspace(20, 1, 50)[:, None])
    >>> indices, ksd = jax.jit(thin, static_argnums=2)(x, -x, 10)
    >>> bool(indices.min() >= 50), bool(ksd[9] < ksd[0] / 10)
    (True, True)
  """
  checks.count(num=num)
  checks.flag(standardize=standardize, covariance=covariance)
  x, score = _particles.points(x, score)
  if log_density is None and not (laplacian is None and entropy is None):
    raise ValueError(
      'laplacian and entropy are of use beside log_density alone.'
    )
  given = dict(
    log_density=log_density, laplacian=laplacian, log_ratio=log_ratio
  )
  checks.per_example(
    len(x), **{name: a for name, a in given.items() if a is not None}
  )
  of_points = lambda a: 0 if a is None else dtypes.floating(a).astype(x.dtype)
  if standardize:
    scale = jnp.mean(
      jnp.abs(x - jnp.mean(x, 0, keepdims=True)), 0, keepdims=True
    )
    # Coordinates in which no points differ have no say.
    x, score = x / jnp.where(scale == 0, 1, scale), score * scale
  row, own = _stein_rows(x, score, kernel, covariance)
  weight = jnp.ones_like(own)
  if log_ratio is not None:
    log_weight = of_points(log_ratio) - jnp.min(of_points(log_ratio))
    # The largest would overflow, and such points are not taken in any case.
    weight = jnp.exp(jnp.minimum(log_weight, _LARGEST))
  reward = (1 / num if entropy is None else entropy) * of_points(log_density)

  def take(state, count):
    total, objective = state
    chosen = jnp.argmin(objective + of_points(laplacian) - count * reward)
    total += objective[chosen]
    objective += 2 * weight * weight[chosen] * row(chosen)
    return (total, objective), (chosen, total / count**2)

  start = jnp.zeros((), x.dtype), weight**2 * own
  counts = jnp.arange(1, num + 1, dtype=x.dtype)
  return lax.scan(take, start, counts)[1]


def _stein_rows(x, score, kernel, covariance):
  """Returns u(x_i, x_j) [n] as a function of i, and u(x_j, x_j) [n].

  Points are subtracted: those of a chain may come from far away.
  """
  metric = jnp.eye(x.shape[1], dtype=x.dtype)
  pulled, root = x, metric
  if covariance:
    metric = jnp.linalg.inv(jnp.cov(x, rowvar=False).reshape(metric.shape))
    root = jnp.linalg.cholesky(metric)
    pulled = jnp.dot(x, metric, precision=_HIGHEST)
  subset = jnp.dot(_subsets.for_rules(x), root, precision=_HIGHEST)
  kernel = kernels.resolved(kernel, subset)
  slope_of = lambda v: _sums.with_slope(kernel)(v)[1]
  trace = jnp.trace(metric)
  # Going by coordinates is many times as fast on a CPU as sums over them.
  coordinates = x.T, pulled.T, score.T

  def row(i):
    def add(sums, coordinate):
      (x, pulled, score), (x_i, pulled_i, score_i) = coordinate
      pull = pulled - pulled_i
      terms = (
        (x - x_i) * pull,
        pull * pull,
        (score_i - score) * pull,
        score_i * score,
      )
      return jax.tree.map(jnp.add, sums, terms), None

    of_point = jax.tree.map(lambda each: each[:, i], coordinates)
    start = (jnp.zeros_like(x[:, 0]),) * 4
    sums, _ = lax.scan(add, start, (coordinates, of_point), unroll=16)
    sq_dist, sq_pull, change, product = sums
    k, slope = _sums.with_slope(kernel)(sq_dist)
    curve = jax.jvp(slope_of, (sq_dist,), (sq_pull,))[1]
    return k * product + 2 * slope * (change - trace) - 4 * curve

  k, slope = _sums.with_slope(kernel)(jnp.zeros((), x.dtype))
  return row, k * jnp.sum(score * score, 1) - 2 * trace * slope
