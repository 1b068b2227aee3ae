"""What tests share: random signs, quadratic forms of the draws, ranks, results."""

import numbers

import jax
from jax import lax
import jax.numpy as jnp

from stein_jax import _sums
from stein_jax import checks
from stein_jax import kernels
from stein_jax.stein import results
from stein_jax.types import Array, Kernel, PRNGKey

_HIGHEST = lax.Precision.HIGHEST  # TPU and GPU products are half precision


def signs(
  rng: PRNGKey, num: int, n: int, flip_probability: Array | float, dtype
) -> Array:
  """Returns ones and `num` rows of random signs [num + 1, n].

  A sign stays the same from point to point unless it flips, and the first is random.
  """
  checks.key(rng=rng)
  checks.count(num_bootstrap=num)
  checks.positive(flip_probability=flip_probability)
  checks.at_most(0.5, flip_probability=flip_probability)
  flips = jax.random.bernoulli(rng, flip_probability, (num, n))
  first = jax.random.rademacher(jax.random.fold_in(rng, 1), (num, 1), dtype)
  drawn = first * jnp.cumprod(jnp.where(flips, -1, 1), 1).astype(dtype)
  return jnp.concatenate([jnp.ones((1, n), dtype), drawn])


def stein_forms(
  weights: Array,
  x: Array,
  score: Array,
  kernel: Kernel,
  own: Array,
  block_size: int | None,
) -> Array:
  """Returns sum_ij w_i w_j u(x_i, x_j) [k] of weights w [k, n].

  Args:
    weights: a row for each form.
    x: points [n, d].
    score: their scores [n, d].
    kernel: radial profile.
    own: what stands for u(x_i, x_i) [n]; zeros leave the diagonal out.
    block_size: rows of the Stein matrix held at a time; None keeps memory bounded.
  """

  def of_block(u, rows, columns):
    return jnp.sum(rows * jnp.dot(u, columns, precision=_HIGHEST), 0)

  # The kernel is symmetric, and the sums over pairs cost more than the kernel.
  pairs = _sums.sum_in_windows(
    x, score, kernel, of_block, weights.T, block_size
  )
  return 2 * pairs + jnp.dot(weights**2, own, precision=_HIGHEST)


def p_value(values: Array, slack: Array | float = 0.0) -> Array:
  """Returns the share of values [b] that reach the first, which is among them [].

  Args:
    values: the statistic, and then its draws.
    slack: by how much a draw may fall short of the statistic.
  """
  share = jnp.mean(values >= values[0] - slack)
  # No comparison with a nan holds: it would be the strongest rejection.
  return jnp.where(jnp.all(jnp.isfinite(values)), share, jnp.nan)


def aggregated(
  values: Array, slack: Array | float = 0.0
) -> tuple[Array, Array, Array]:
  """Returns p-values of k tests [k], the smallest [], and what it is worth [].

  Every draw is ranked among all draws of its test, the statistic with them. The
  smallest p-value is as good as the share of draws whose own smallest is no larger:
  this is the least level at which [SGG22 alg 1] rejects.

  Args:
    values: the statistic, and then its draws, of each test [k, b].
    slack: by how much a value may fall short of another that it ties with.
  """
  of_tests = jax.vmap(p_value, (0, None))(values, slack)
  num = values.shape[1]

  def reached_by(values):
    return num - jnp.searchsorted(jnp.sort(values), values - slack)

  best = jnp.min(jax.vmap(reached_by)(values), 0)
  worth = jnp.mean(best <= best[0])
  smallest = jnp.min(of_tests)  # nan where one of them is
  return of_tests, smallest, jnp.where(jnp.isnan(smallest), smallest, worth)


def with_bandwidth(kernel: Kernel, x: Array) -> Kernel:
  """Returns a kernel whose bandwidth is a number, found on points x by its rule.

  Raises:
    TypeError: the kernel has no bandwidth, so that there is nothing to scale.
  """
  checks.has(
    ('bandwidth', 'replace'),
    'a kernel with a bandwidth, such as kernels.IMQ()',
    kernel=kernel,
  )
  return kernels.resolved(kernel, x)


def positive_row(dtype, **values) -> Array:
  """Returns the one value as an array [k] of positive numbers.

  Raises:
    ValueError: it is none. Traced numbers pass.
  """
  ((name, value),) = values.items()
  row = jnp.asarray(value, dtype)
  if row.ndim != 1 or not row.size:
    raise ValueError(f'{name} has shape {row.shape}; wanted: [k] numbers.')
  if not isinstance(row, jax.core.Tracer):
    checks.positive(**{f'{name}[{i}]': number for i, number in enumerate(row)})
  return row


def result(
  statistic: Array,
  p_value: Array,
  *,
  title: str,
  x: Array,
  kernel: Kernel,
  rng: PRNGKey | None,
  rows: dict[str, Array] | None = None,
  **facts,
) -> results.TestResult:
  """Returns a result that says what it depends on.

  Args:
    statistic: the statistic [].
    p_value: its p-value [].
    title: the name of the test.
    x: the points [n, d].
    kernel: the kernel, as it was called.
    rng: the key of the draws; None of a test without any.
    rows: columns [k] of numbers; None for the bandwidth alone, if there is one.
    **facts: what else was fixed; a traced number is said to be one.
  """
  if rows is None:
    has_one = hasattr(kernel, 'bandwidth')
    rows = dict(bandwidth=jnp.reshape(kernel.bandwidth, 1)) if has_one else {}
  facts = dict(
    points=f'{len(x)} in {x.shape[1]} dimensions', kernel=_name(kernel), **facts
  )
  traced = lambda value: isinstance(value, jax.core.Tracer)
  return results.TestResult(
    statistic=statistic,
    p_value=p_value,
    rows=rows,
    seed=None if rng is None else _words(rng),
    title=title,
    facts=tuple(
      (name.replace('_', ' '), 'traced' if traced(value) else f'{value}')
      for name, value in facts.items()
    ),
  )


def _words(rng):
  """Returns the words of a key, new or old."""
  is_new = jnp.issubdtype(rng.dtype, jax.dtypes.prng_key)
  return jax.random.key_data(rng) if is_new else rng


def _name(kernel):
  """Returns a kernel's name, with its numbers but for the bandwidth."""
  numbers_of = {
    name: value
    for name, value in getattr(kernel, '__dict__', {}).items()
    if name != 'bandwidth' and isinstance(value, numbers.Real)
  }
  said = ', '.join(f'{name}={value}' for name, value in numbers_of.items())
  name = getattr(kernel, '__name__', type(kernel).__name__)
  return f'{name}({said})' if said else name
