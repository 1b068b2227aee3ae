"""Whether points are draws of a density, which is known by its score."""

import jax
from jax import lax
import jax.numpy as jnp

from stein_jax import _sums
from stein_jax import checks
from stein_jax import kernels
from stein_jax.stein import _particles
from stein_jax.types import Array, Kernel, PRNGKey

_HIGHEST = lax.Precision.HIGHEST  # TPU and GPU products are half precision


def ksd_test(
  rng: PRNGKey,
  x: Array,
  score: Array,
  kernel: Kernel,
  *,
  num_bootstrap: int = 1000,
  flip_probability: float = 0.5,
  block_size: int | None = None,
) -> tuple[Array, Array]:
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
  checks.key(rng=rng)
  checks.count(num_bootstrap=num_bootstrap)
  checks.positive(flip_probability=flip_probability)
  checks.at_most(0.5, flip_probability=flip_probability)
  x, score = _particles.points(x, score)
  kernel = kernels.resolved(kernel, x)
  n = x.shape[0]
  # A sign stays the same from point to point unless it flips, and the first is random.
  flips = jax.random.bernoulli(rng, flip_probability, (num_bootstrap, n))
  first = jax.random.rademacher(
    jax.random.fold_in(rng, 1), (num_bootstrap, 1), x.dtype
  )
  signs = first * jnp.cumprod(jnp.where(flips, -1, 1), 1).astype(x.dtype)
  # With signs that are all 1 the sum is the statistic itself, which comes first.
  weights = jnp.concatenate([jnp.ones((1, n), x.dtype), signs])
  own = _sums.own_terms(score, kernel)

  def over_pairs(form):
    points = form.prepare(x, score)

    def on_row(row):
      i, own, point, weight = row
      u = form.matrix(point, points, i != jnp.arange(n)).at[i].set(own)
      return weight * jnp.dot(weights, u, precision=_HIGHEST)

    rows = (jnp.arange(n), own, points, weights.T)
    return jnp.sum(kernels.map_rows(on_row, rows, n, block_size), 0)

  sums = _sums.with_stein_kernel(over_pairs, kernel, (x,))
  statistic, draws = jnp.split(sums / n, [1])
  exceed = jnp.sum(draws >= statistic)
  p_value = (1 + exceed) / (1 + num_bootstrap)
  # No comparison with a nan holds: it would be the strongest rejection.
  return statistic[0], jnp.where(jnp.isfinite(statistic[0]), p_value, jnp.nan)
