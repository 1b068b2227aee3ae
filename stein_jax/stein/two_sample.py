"""Whether two sets of points have one law: the maximum mean discrepancy."""

import jax
from jax import lax
import jax.numpy as jnp

from stein_jax import checks
from stein_jax import kernels
from stein_jax.stein import _draws
from stein_jax.stein import goodness_of_fit
from stein_jax.stein import results
from stein_jax.types import Array, Kernel, PRNGKey

_HIGHEST = lax.Precision.HIGHEST  # TPU and GPU products are half precision
_MEDIAN = kernels.Median(diagonal=False, log='none')


def mmd(
  x: Array, y: Array, kernel: Kernel, *, block_size: int | None = None
) -> Array:
  """Returns the squared maximum mean discrepancy [] [GBRSS12], without bias.

  It is E k(x, x') + E k(y, y') - 2 E k(x, y) over pairs of different points, and can be
  below zero. Its mean is zero where x and y have one law.

  Args:
    x: points [n, d], n at least 2.
    y: points [m, d], m at least 2.
    kernel: radial profile; a rule for its bandwidth is applied to all n + m points.
    block_size: rows of the kernel matrix held at a time; None keeps memory bounded.

  Examples:
    The pairs within x, within y, and across have the squared distances 1, 4 and
    1, 9, 0, 4; of the kernel 1 - r that makes (1 - 1) + (1 - 4) - 2 (1 - 3.5):

    >>> x, y = jnp.array([[0.0], [1.0]]), jnp.array([[1.0], [3.0]])
    >>> print(mmd(x, y, lambda sq_dist: 1 - sq_dist))
    2.0
  """
  pool, is_first = _pooled(x, y)
  kernel = kernels.resolved(kernel, pool)
  return _statistics(pool, is_first[None], kernel, block_size)[0]


def mmd_test(
  rng: PRNGKey,
  x: Array,
  y: Array,
  kernel: Kernel = kernels.RBF(_MEDIAN),
  *,
  num_permutations: int = 1000,
  block_size: int | None = None,
) -> results.TestResult:
  """Returns `mmd` [] and its p-value [] under one law, by permutations [GBRSS12].

  Under one law any split of all points is as likely as the one seen, so that the test
  is exact for any number of points; they must be independent. The p-value counts the
  statistic among the draws, and lies in [1 / (num_permutations + 1), 1].

  Args:
    rng: key of the permutations.
    x: points [n, d], n at least 2.
    y: points [m, d], m at least 2.
    kernel: radial profile; a rule for its bandwidth is applied to all n + m points.
    num_permutations: number of draws.
    block_size: rows of the kernel matrix held at a time; None keeps memory bounded.

  Examples:
    >>> x, y = jax.random.normal(jax.random.key(0), (2, 200, 2))
    >>> _, p_value = jax.jit(mmd_test)(jax.random.key(1), x, 1.5 * y)
    >>> bool(p_value < 0.01)
    True
  """
  pool, is_first = _pooled(x, y)
  kernel = kernels.resolved(kernel, pool)
  splits = _splits(rng, is_first, num_permutations)
  values = _statistics(pool, splits, kernel, block_size)
  return _draws.result(
    values[0],
    _draws.p_value(values, _slack(kernel, pool)),
    title='MMD test of two samples',
    x=pool,
    kernel=kernel,
    rng=rng,
    samples=f'{len(x)} and {len(y)}',
    draws=num_permutations,
  )


def aggregated_mmd_test(
  rng: PRNGKey,
  x: Array,
  y: Array,
  kernel: Kernel = kernels.RBF(_MEDIAN),
  *,
  scales: Array | tuple[float, ...] = goodness_of_fit.SCALES,
  num_permutations: int = 1000,
  block_size: int | None = None,
) -> results.TestResult:
  """Returns an MMD test over several bandwidths, of which nobody has to choose one.

  The statistic is the smallest p-value of all bandwidths, and its p-value the share of
  permutations whose own smallest is no larger, as in `aggregated_ksd_test`
  [SKAGG23 alg 1]. It is exact for any number of points. `rows` has the bandwidths, with
  `mmd` and the p-value of each.

  Args:
    rng: key of the permutations, which all bandwidths share.
    x: points [n, d], n at least 2.
    y: points [m, d], m at least 2.
    kernel: radial profile with a bandwidth; a rule is applied to all n + m points.
    scales: factors on the bandwidth [k].
    num_permutations: number of draws.
    block_size: rows of the kernel matrix held at a time; None keeps memory bounded.

  Raises:
    ValueError: scales that are not positive numbers [k].
    TypeError: a kernel without a bandwidth.

  Examples:
    >>> x = jax.random.normal(jax.random.key(0), (300, 5))
    >>> y = jax.random.laplace(jax.random.key(1), (300, 5)) / 2**0.5  # of variance 1
    >>> _, p_value = jax.jit(aggregated_mmd_test)(jax.random.key(2), x, y)
    >>> bool(p_value < 0.05)
    True
  """
  pool, is_first = _pooled(x, y)
  kernel = _draws.with_bandwidth(kernel, pool)
  bandwidths = kernel.bandwidth * _draws.positive_row(pool.dtype, scales=scales)
  splits = _splits(rng, is_first, num_permutations)
  values = lax.map(
    lambda bandwidth: _statistics(
      pool, splits, kernel.replace(bandwidth=bandwidth), block_size
    ),
    bandwidths,
  )
  p_values, smallest, p_value = _draws.aggregated(values, _slack(kernel, pool))
  return _draws.result(
    smallest,
    p_value,
    title='MMD test of two samples, aggregated over bandwidths',
    x=pool,
    kernel=kernel,
    rng=rng,
    rows=dict(bandwidth=bandwidths, p_value=p_values, statistic=values[:, 0]),
    samples=f'{len(x)} and {len(y)}',
    draws=num_permutations,
  )


def _pooled(x, y):
  """Returns all points [n + m, d], and whether each is of the first set, as numbers."""
  pool = jnp.concatenate(kernels.points(x=x, y=y))
  checks.count(minimum=2, **{'len(x)': len(x), 'len(y)': len(y)})
  return pool, (jnp.arange(len(pool)) < len(x)).astype(pool.dtype)


def _splits(rng, is_first, num):
  """Returns the split seen, and `num` random ones, one a row [num + 1, n + m]."""
  checks.key(rng=rng)
  checks.count(num_permutations=num)
  rows = jnp.tile(is_first[None], (num, 1))
  drawn = jax.random.permutation(rng, rows, axis=1, independent=True)
  return jnp.concatenate([is_first[None], drawn])


def _statistics(pool, splits, kernel, block_size):
  """Returns `mmd` of each split [k]."""
  total = len(pool)
  n = jnp.sum(splits[0])
  m = total - n
  # With weights 1 / n and -1 / m the form is the discrepancy over n^2 and m^2 pairs.
  # The two inner sums turn these numbers into n (n - 1) and m (m - 1).
  weights = splits / n - (1 - splits) / m

  both = jnp.concatenate([weights, splits])
  size = min(total, kernels.block_rows(total, block_size))
  blocks = -(-total // size)

  def add(sums, block):
    # Rows past the last are the last one again, with weights of 0.
    places = block * size + jnp.arange(size)
    counts, places = places < total, jnp.minimum(places, total - 1)
    k = kernel(kernels.squared_distance(pool[places], pool))
    # No point is its own neighbour: k(x, x) would be the largest term of all.
    k = jnp.where(
      counts[:, None] & (places[:, None] != jnp.arange(total)[None]), k, 0
    )
    by_weight, by_split = jnp.split(jnp.dot(both, k.T, precision=_HIGHEST), 2)
    of_rest = jnp.sum(k, 1)[None] - by_split
    weight, split = weights[:, places], splits[:, places]
    terms = weight * by_weight, split * by_split, (1 - split) * of_rest
    return jax.tree.map(
      lambda sum, new: sum + jnp.sum(new, 1), sums, terms
    ), None

  start = (jnp.zeros(len(splits), pool.dtype),) * 3
  sums, _ = lax.scan(add, start, jnp.arange(blocks))
  form, first, second = sums
  return form + first / (n * n * (n - 1)) + second / (m * m * (m - 1))


def _slack(kernel, pool):
  """Returns what rounding may part two splits by that differ in equal points [].

  Data that repeat themselves would be rejected too often without it.
  """
  eps = jnp.finfo(pool.dtype).eps
  return 16 * eps * jnp.abs(kernel(jnp.zeros((), pool.dtype)))
