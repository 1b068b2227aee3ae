"""Whether points are draws of a density, which is known by its score."""

from collections.abc import Callable
import math

import jax
from jax import lax
import jax.numpy as jnp
from jax.scipy import stats

from stein_jax import _sums
from stein_jax import checks
from stein_jax import kernels
from stein_jax.stein import _draws
from stein_jax.stein import _particles
from stein_jax.stein import _subsets
from stein_jax.stein import discrepancies
from stein_jax.stein import results
from stein_jax.types import Array, Kernel, Params, PRNGKey

# A difference of two laws shows at bandwidths from about the median squared distance in
# one dimension to a hundredth of it and less in five.
SCALES = tuple(10 ** (-3 + 4 * i / 9) for i in range(10))


def ksd_test(
  rng: PRNGKey,
  x: Array,
  score: Array,
  kernel: Kernel,
  *,
  num_bootstrap: int = 1000,
  flip_probability: float = 0.5,
  block_size: int | None = None,
) -> results.TestResult:
  """Returns n KSD^2 (V-statistic) [] and its p-value [] under x ~ p.

  This is the wild bootstrap of [CSG16], in which random signs w_i w_j reweight
  u(x_i, x_j). The p-value counts the statistic among the draws, so that it lies in
  [1 / (num_bootstrap + 1), 1]. It is large too where one or two points with huge scores
  carry the whole statistic, since signs do not change what a point adds to itself.

  Args:
    rng: key of the signs.
    x: points [n, d].
    score: grad_x log p at the points [n, d].
    kernel: radial profile; a rule for its bandwidth is applied to the points.
    num_bootstrap: number of draws.
    flip_probability: chance that the sign changes from one point to the next:
      0.5 for independent points, less for a Markov chain in its order.
    block_size: rows of the Stein matrix held at a time; None keeps memory bounded.

  Examples:
    >>> x = 1 + jax.random.normal(jax.random.key(0), (200, 1))  # not of N(0, 1)
    >>> kernel = kernels.IMQ(bandwidth=1.0)
    >>> _, p_value = jax.jit(ksd_test)(jax.random.key(1), x, -x, kernel)
    >>> bool(p_value < 0.01)
    True
  """
  x, score = _particles.points(x, score)
  kernel = kernels.resolved(kernel, x)
  weights = _draws.signs(rng, num_bootstrap, len(x), flip_probability, x.dtype)
  # With signs that are all 1 the sum is the statistic itself, which comes first.
  own = _sums.own_terms(score, kernel)
  sums = _draws.stein_forms(weights, x, score, kernel, own, block_size)
  values = sums / len(x)
  return _draws.result(
    values[0],
    _draws.p_value(values),
    title='KSD test of goodness of fit',
    x=x,
    kernel=kernel,
    rng=rng,
    draws=num_bootstrap,
    flip_probability=flip_probability,
  )


def aggregated_ksd_test(
  rng: PRNGKey,
  x: Array,
  score: Array,
  kernel: Kernel = kernels.IMQ(kernels.Median(diagonal=False, log='none')),
  *,
  scales: Array | tuple[float, ...] = SCALES,
  num_bootstrap: int = 1000,
  flip_probability: float = 0.5,
  block_size: int | None = None,
) -> results.TestResult:
  """Returns a KSD test over several bandwidths, of which nobody has to choose one.

  This is [SGG22 alg 1] with equal weights. The statistic is the smallest of the
  p-values of the bandwidths, each of a U-statistic under the signs of `ksd_test`, and
  the p-value is the share of draws whose own smallest is no larger. It is at most
  `level` where the paper's test rejects at this level. `rows` has the bandwidths, with
  the U-statistic and the p-value of each.

  The tails of few draws are coarse: the p-value of k bandwidths is seldom less than k
  times 1 / (num_bootstrap + 1).

  Args:
    rng: key of the signs, which all bandwidths share.
    x: points [n, d].
    score: grad_x log p at the points [n, d].
    kernel: radial profile with a bandwidth; a rule is applied to the points.
    scales: factors on the bandwidth [k].
    num_bootstrap: number of draws.
    flip_probability: as in `ksd_test`.
    block_size: rows of the Stein matrix held at a time; None keeps memory bounded.

  Raises:
    ValueError: fewer than 2 points, or scales that are not positive numbers [k].
    TypeError: a kernel without a bandwidth.

  Examples:
    >>> x = jax.random.laplace(jax.random.key(0), (500, 1)) / 2**0.5  # variance 1
    >>> found = jax.jit(aggregated_ksd_test)(jax.random.key(1), x, -x)  # of N(0, 1)
    >>> bool(found.p_value < 0.01)
    True
    >>> print(found.report().splitlines()[1])
      points            500 in 1 dimensions
  """
  x, score = _particles.points(x, score)
  n = len(x)
  checks.count(minimum=2, **{'len(x)': n})
  weights = _draws.signs(rng, num_bootstrap, n, flip_probability, x.dtype)
  kernel = _draws.with_bandwidth(kernel, x)
  bandwidths = kernel.bandwidth * _draws.positive_row(x.dtype, scales=scales)

  def u_statistics(bandwidth):
    one, no_pair = kernel.replace(bandwidth=bandwidth), jnp.zeros_like(x[:, 0])
    sums = _draws.stein_forms(weights, x, score, one, no_pair, block_size)
    return sums / n / (n - 1)

  values = lax.map(u_statistics, bandwidths)
  p_values, smallest, p_value = _draws.aggregated(values)
  return _draws.result(
    smallest,
    p_value,
    title='KSD test of goodness of fit, aggregated over bandwidths',
    x=x,
    kernel=kernel,
    rng=rng,
    rows=dict(bandwidth=bandwidths, p_value=p_values, statistic=values[:, 0]),
    draws=num_bootstrap,
    flip_probability=flip_probability,
  )


def block_ksd_test(
  x: Array,
  score: Array,
  kernel: Kernel = kernels.IMQ(kernels.Median(diagonal=False, log='none')),
  *,
  points_per_block: int | None = None,
) -> results.TestResult:
  """Returns a KSD test of blocks of points, for a million of them.

  Blocks are consecutive, and points that fill none are left out. U-statistics of k
  blocks are independent and alike, so that their mean over its standard error is the
  statistic, which is N(0, 1) under x ~ p; large ones count. It takes n times
  `points_per_block` pairs, and no draws. With blocks of two it is the linear test of
  [LLJ16]; larger ones see more. Neighbours in a chain would be in one block, so thin
  it first.

  Args:
    x: points [n, d], independent.
    score: grad_x log p at the points [n, d].
    kernel: radial profile; a rule for its bandwidth is applied to 1,000 of the points,
      evenly spaced.
    points_per_block: their number, at least 2; None for the root of n. The normal law
      of the statistic needs some thirty blocks. Blocks of the same points give nan.

  Raises:
    ValueError: there are fewer than two blocks.

  Examples:
    >>> x = 0.2 + jax.random.normal(jax.random.key(0), (10_000, 2))  # not of N(0, I)
    >>> statistic, p_value = jax.jit(block_ksd_test)(x, -x)
    >>> bool(p_value < 0.01)
    True
  """
  x, score = _particles.points(x, score)
  size = points_per_block
  if size is None:
    size = max(2, math.isqrt(len(x)))
  checks.count(minimum=2, points_per_block=size)
  num = len(x) // size
  if num < 2:
    raise ValueError(
      f'points_per_block={size} makes {num} blocks of {len(x)} points; two are needed.'
    )
  kernel = kernels.resolved(kernel, _subsets.for_rules(x))
  x, score = x[: num * size], score[: num * size]

  def u_statistics(form):
    in_blocks = lambda leaf: leaf.reshape(num, size, *leaf.shape[1:])
    pairs = ~jnp.eye(size, dtype=bool)

    def of_block(block):
      points = form.prepare(*block)
      return jnp.sum(jnp.where(pairs, form.matrix(points, points, pairs), 0))

    blocks = jax.tree.map(in_blocks, (x, score))
    return kernels.map_rows(of_block, blocks, size * size, None)

  values = _sums.with_stein_kernel(u_statistics, kernel, (x,))
  values = values / size / (size - 1)
  mean, error = jnp.mean(values), jnp.std(values, ddof=1) / num**0.5
  # Blocks that are all alike differ by rounding, and have no standard error.
  rounding = 8 * jnp.finfo(x.dtype).eps * jnp.abs(mean)
  statistic = mean / jnp.where(error > rounding, error, jnp.nan)
  # Far out the normal law's tail is below all floats, and no p-value is 0.
  p_value = jnp.maximum(stats.norm.sf(statistic), jnp.finfo(x.dtype).tiny)
  return _draws.result(
    statistic,
    p_value,
    title='KSD test of goodness of fit, by blocks',
    x=x,
    kernel=kernel,
    rng=None,
    blocks=f'{num} of {size} points',
  )


def composite_ksd_test(
  rng: PRNGKey,
  x: Array,
  fit: Callable[[Array], Params],
  score: Callable[[Params, Array], Array],
  sample: Callable[[PRNGKey, Params, int], Array],
  kernel: Kernel = kernels.IMQ(kernels.Median(diagonal=False, log='none')),
  *,
  num_bootstrap: int = 200,
) -> results.TestResult:
  """Returns n KSD^2 of a fitted model [] and its p-value [] [KFBG25].

  The null is that x are draws of some member of a family. Points nearer to the member
  that was fitted to them than to any other are no draws of it, so that `ksd_test` would
  hardly ever reject. Here sets of n draws of the fitted member are fitted anew, and
  their statistics make the p-value (parametric bootstrap).

  Args:
    rng: key of the draws.
    x: points [n, d], independent.
    fit: a function of points [n, d] to parameters, an array or a tree.
    score: a function of parameters and points [n, d] to grad_x log p [n, d].
    sample: a function of a key, parameters and n to draws [n, d]. Draws that are no
      more than nearly so, such as ends of chains, make the level so too.
    kernel: radial profile; a rule for its bandwidth is applied to x, and what it gives
      is kept for the draws.
    num_bootstrap: number of sets.

  Examples:
    Normal numbers of any mean, with variance 1; the points have variance 2:

    >>> x = 5 + 2**0.5 * jax.random.normal(jax.random.key(0), (200, 1))
    >>> result = composite_ksd_test(
    ...   jax.random.key(1),
    ...   x,
    ...   fit=lambda x: x.mean(0, keepdims=True),
    ...   score=lambda mean, x: mean - x,
    ...   sample=lambda rng, mean, n: mean + jax.random.normal(rng, (n, 1)),
    ... )
    >>> bool(result.p_value < 0.01)
    True
  """
  checks.key(rng=rng)
  checks.count(num_bootstrap=num_bootstrap)
  (x,) = kernels.points(x=x)
  kernel = kernels.resolved(kernel, x)

  def statistic(x):
    found = fit(x)
    return found, len(x) * discrepancies.ksd(x, score(found, x), kernel)

  found, seen = statistic(x)

  def draw(rng):
    drawn = sample(rng, found, len(x))
    checks.shape(x.shape, sample=drawn)
    return statistic(drawn.astype(x.dtype))[1]

  draws = lax.map(draw, jax.random.split(rng, num_bootstrap))
  return _draws.result(
    seen,
    _draws.p_value(jnp.concatenate([seen[None], draws])),
    title='KSD test of a fitted model, by parametric bootstrap',
    x=x,
    kernel=kernel,
    rng=rng,
    draws=num_bootstrap,
  )
