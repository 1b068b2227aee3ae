"""How far the laws of two sets are from each other: of points, or of features."""

import contextlib
import io

import jax
import jax.numpy as jnp
import numpy as np

from stein_jax import checks
from stein_jax import dtypes
from stein_jax import kernels
from stein_jax.metrics import _rows
from stein_jax.types import Array, PRNGKey

_ROOT_ERROR = (
  1e-8  # of both covariances' traces: a bound that a fast root must keep
)


def frechet_distance(x: Array, y: Array) -> float:
  """Returns the squared Frechet distance of Gaussians fitted to x, y [HRUNH17].

  It is |mu_x - mu_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2)) in float64, with divisor
  n - 1 in the covariances, which may be singular. A feature that is not finite makes it
  nan. Few rows make it larger, so that only sets of one size compare.

  Args:
    x: features [n, f].
    y: features [m, f].

  Raises:
    ValueError: there are fewer than 2 rows, or not as many features in both.
  """
  x, y = _rows.matrix(x=x), _rows.matrix(y=y)
  _rows.check_same_width(x, y)
  for rows in (x, y):
    if len(rows) < 2:
      raise ValueError(f'A covariance needs 2 rows; got {len(rows)}.')
  x, y = dtypes.on_host(x), dtypes.on_host(y)
  if not _rows.all_finite(x, y):
    return float('nan')

  mean_x, mean_y = np.mean(x, 0), np.mean(y, 0)
  # With these rows a covariance is C = X'X.
  x, y = (x - mean_x) / (len(x) - 1) ** 0.5, (y - mean_y) / (len(y) - 1) ** 0.5
  spread = np.sum(x**2) + np.sum(y**2) - 2 * _trace_of_root(x, y)
  # Rounding alone makes the spread negative.
  return float(np.sum((mean_x - mean_y) ** 2) + np.maximum(spread, 0))


def _trace_of_root(x, y):
  """Returns tr (C_x C_y)^(1/2) of C = X'X, for rows X [n, f] and Y [m, f] in float64.

  It is nan where numbers overflow.
  """
  if min(len(x), len(y)) > x.shape[1]:
    trace, error = _trace_by_cholesky(x, y)
    if error <= _ROOT_ERROR * (np.sum(x**2) + np.sum(y**2)):
      return trace
  # With C = R'R the eigenvalues of (C_x C_y)^(1/2) are the singular values of
  # R_x R_y': no root is taken of an eigenvalue that is rounding about zero. It takes
  # four times as long (10,000 rows of 1,024 features).
  product = np.linalg.qr(x, mode='r') @ np.linalg.qr(y, mode='r').T
  if not _rows.all_finite(product):
    return np.nan
  return np.linalg.svd(product, compute_uv=False).sum()


def _trace_by_cholesky(x, y):
  """Returns what `_trace_of_root` does, and a bound of its error.

  The bound is infinite or nan where a covariance is singular or overflows.
  """
  cov_x, cov_y = x.T @ x, y.T @ y
  try:
    factor = np.linalg.cholesky(cov_x)
    values = np.linalg.eigvalsh(factor.T @ cov_y @ factor)
  except np.linalg.LinAlgError:
    return np.nan, np.inf
  rounding = np.finfo(values.dtype).eps
  rounding *= np.linalg.norm(cov_x) * np.linalg.norm(cov_y)
  if not values[0] > rounding:
    return np.nan, np.inf
  # An eigenvalue is right to roundings of the largest, and so has a root that is less
  # right the smaller it is. Actual errors were a thousandth of the bound and less.
  roots = np.sqrt(values)
  return np.sum(roots), np.sum(rounding / (2 * roots))


def manifold_metrics(
  real: Array, fake: Array, *, nearest_k: int = 5
) -> dict[str, float]:
  """Returns 'precision', 'recall' [KKLLA19], 'density', 'coverage' [N20].

  A ball about each point of a set reaches just short of its `nearest_k`-th neighbour.
  Precision is the share of fake points in a ball of a real one, and recall is the
  reverse. Density is the mean number of real balls that a fake point is in, over
  `nearest_k`, and coverage the share of real balls with a fake point. Density is about
  1 for equal laws, and can be more; the others are at most 1. A feature that is not
  finite makes all four nan. Matrices [n, n], [m, m] and [n, m] are held, which are
  2.5 GB for 10,000 points of each.

  Args:
    real: features of data [n, f].
    fake: features of samples [m, f].
    nearest_k: which neighbour sets the radius of a ball.

  Raises:
    ValueError: there are fewer than `nearest_k` + 2 rows, or not as many features in
      both.
  """
  import prdc  # pylint: disable=g-import-not-at-top

  real, fake = _rows.matrix(real=real), _rows.matrix(fake=fake)
  _rows.check_same_width(real, fake)
  checks.count(nearest_k=nearest_k)
  if min(len(real), len(fake)) < nearest_k + 2:
    raise ValueError(
      f'nearest_k={nearest_k} needs {nearest_k + 2} rows; got {len(real)} '
      f'and {len(fake)}.'
    )
  real, fake = dtypes.on_host(real), dtypes.on_host(fake)
  if not _rows.all_finite(real, fake):
    return dict.fromkeys(
      ('precision', 'recall', 'density', 'coverage'), float('nan')
    )
  # The package prints the two counts.
  with contextlib.redirect_stdout(io.StringIO()):
    values = prdc.compute_prdc(real, fake, nearest_k)
  return {name: float(value) for name, value in values.items()}


def energy_distance(x: Array, y: Array) -> Array:
  """Returns the energy distance 2 E|x - y| - E|x - x'| - E|y - y'| [] [SR13].

  It is zero in the mean only where two samples [n, d], [m, d] have one law. The means
  over pairs leave out those of a point with itself, so it can be below zero. It is
  differentiable, with slope 0 where points coincide, and its memory is bounded.

  Raises:
    ValueError: the points are not [n, d] and [m, d], or there are fewer than 2 of
      either, which have no pair.
  """
  x, y = _two_sets(x, y)
  if min(len(x), len(y)) < 2:
    raise ValueError(f'{len(x)} and {len(y)} points: each needs 2 for a pair.')

  def total(a, b):
    return jnp.sum(_weighted_distances(a, b, jnp.ones((1, len(b)), b.dtype)))

  n, m = len(x), len(y)
  between = total(x, y) / (n * m)
  within = total(x, x) / (n * (n - 1)) + total(y, y) / (m * (m - 1))
  return 2 * between - within


def sliced_wasserstein(
  rng: PRNGKey, x: Array, y: Array, *, num_slices: int = 100
) -> Array:
  """Returns the sliced Wasserstein distance of two sets of points [].

  It is the root of the mean, over directions drawn uniformly, of the squared distance
  W_2 of the points' projections, which is that of their sorted values. It is in the
  units of the points. Memory is O((n + m) num_slices).

  Args:
    rng: key of the directions.
    x: points [n, d].
    y: points [m, d].
    num_slices: directions.

  Raises:
    ValueError: the points are not [n, d] and [m, d], one of the sets is empty, or
      `num_slices` is below 1.

  Examples:
    A set that is moved by 2 in one dimension:

    >>> x = jnp.array([[0.0], [1.0], [5.0]])
    >>> print(sliced_wasserstein(jax.random.key(0), x, x + 2).round(3))
    2.0
  """
  checks.key(rng=rng)
  checks.count(num_slices=num_slices)
  x, y = _two_sets(x, y)
  n, m = len(x), len(y)
  if not n or not m:
    raise ValueError(f'Each set needs a point; got {n} and {m}.')
  slices = jax.random.normal(rng, (x.shape[1], num_slices), x.dtype)
  slices /= jnp.linalg.norm(slices, axis=0, keepdims=True)
  project = lambda points: jnp.sort(
    jnp.dot(points, slices, precision=jax.lax.Precision.HIGHEST), 0
  )
  # The i-th of n values is the quantile of (i, i + 1] / n. In units of 1 / (n m) both
  # sets' quantiles change at whole numbers.
  ends = np.union1d(m * np.arange(1, n + 1), n * np.arange(1, m + 1))
  widths = jnp.asarray(np.diff(ends, prepend=0) / (n * m), x.dtype)
  apart = project(x)[(ends - 1) // m] - project(y)[(ends - 1) // n]
  return jnp.sqrt(jnp.mean(jnp.sum(widths[:, None] * apart**2, 0)))


def two_sample_test(
  rng: PRNGKey,
  x: Array,
  y: Array,
  *,
  num_permutations: int = 500,
  block_size: int | None = None,
) -> tuple[Array, Array]:
  """Returns the energy distance of x and y [] and its p-value [] under one law.

  The distance is 2 E|x - y| - E|x - x'| - E|y - y'| with plain means over all pairs,
  which is zero or more [SR13]; `energy_distance` leaves out the pairs (i, i). Under one
  law any split of the pooled rows is as likely as the one seen, so the test is exact.
  The p-value counts the statistic among the draws, and lies in
  [1 / (num_permutations + 1), 1].

  Args:
    rng: key of the permutations.
    x: points [n, d].
    y: points [m, d].
    num_permutations: draws.
    block_size: rows of the distance matrix held at a time; None keeps memory
      bounded.

  Raises:
    ValueError: the points are not [n, d] and [m, d], or an option is below 1.
  """
  checks.key(rng=rng)
  checks.count(num_permutations=num_permutations)
  x, y = _two_sets(x, y)
  n, m = len(x), len(y)
  if not n or not m:
    raise ValueError(f'Each set needs a point; got {n} and {m}.')
  pool = jnp.concatenate([x, y])
  # With weights 1 / n and -1 / m the statistic is -w' D w.
  weights = jnp.concatenate([jnp.full(n, 1 / n), jnp.full(m, -1 / m)])
  weights = weights.astype(pool.dtype)[None]
  draws = jax.random.permutation(
    rng,
    jnp.repeat(weights, num_permutations, 0),
    axis=1,
    independent=True,
  )
  weights = jnp.concatenate([weights, draws])
  uniform = jnp.full((1, n + m), 1 / (n + m), pool.dtype)
  products = _weighted_distances(
    pool, pool, jnp.concatenate([weights, uniform]), block_size
  )
  statistics = -jnp.sum(weights.T * products[:, :-1], 0)
  # Splits that differ by rows that are copies tie. Rounding must not break that,
  # or data that repeat themselves would be rejected too often.
  slack = 16 * jnp.finfo(pool.dtype).eps * jnp.mean(products[:, -1])
  exceed = jnp.sum(statistics[1:] >= statistics[0] - slack)
  p_value = (1 + exceed) / (1 + num_permutations)
  # A comparison with nan is False, which would read as evidence.
  p_value = jnp.where(jnp.isnan(statistics).any(), jnp.nan, p_value)
  return statistics[0], p_value


def _two_sets(x, y):
  """Returns points [n, d] and [m, d] in the dtype that sums are taken in."""
  x, y = dtypes.at_least_float32(x), dtypes.at_least_float32(y)
  if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
    raise ValueError(
      f'Points must be [n, d] and [m, d]; got {x.shape} and {y.shape}.'
    )
  return x, y


def _weighted_distances(x, y, weights, block_size=None):
  """Returns sums of distances [n, k], from x [n, d] to y [m, d] by weights [k, m].

  Points are subtracted, which costs n m d and loses no digit of a small distance.
  """

  def from_row(row):
    square = jnp.sum((row[None] - y) ** 2, 1)
    apart = square != 0
    root = jnp.sqrt(jnp.where(apart, square, 1))  # which has no slope at 0
    distance = jnp.where(apart, root, 0)
    return jnp.dot(weights, distance, precision=jax.lax.Precision.HIGHEST)

  return kernels.map_rows(from_row, x, y.size, block_size)
