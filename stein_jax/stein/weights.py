"""Weights and control variates: better averages from the points that are there.

What is averaged are values f(x_i) at points whose density p is known by its score. The
points need not be draws of p.
"""

import itertools

from jax import lax
import jax.numpy as jnp
from jax.scipy import linalg

from stein_jax import _sums
from stein_jax import checks
from stein_jax import dtypes
from stein_jax import kernels
from stein_jax.stein import _particles
from stein_jax.stein import discrepancies
from stein_jax.types import Array, Kernel

_MEDIAN = kernels.Median(diagonal=False, log='none')
_WIDE = kernels.Median(scale=4.0, diagonal=False, log='none')


def importance_weights(
  x: Array,
  score: Array,
  kernel: Kernel = kernels.IMQ(_MEDIAN),
  *,
  tolerance: float = 1e-3,
  max_steps: int = 100_000,
) -> tuple[Array, Array]:
  """Returns weights [n] that make the KSD least, and how far from it they are [].

  Black-box importance weights [LL17] are at least zero and sum to one; the law
  that the points were drawn from plays no part. w'Uw is made least by moving weight
  from the worst point to the best one, and each step costs n numbers. The second
  number is w'Uw - min_i (Uw)_i, the duality gap: w'Uw is above the least by no more
  than twice this. The Stein matrix U [n, n] is held, so thin more than some thousand
  points first.

  Args:
    x: points [n, d].
    score: grad_x log p at the points [n, d].
    kernel: radial profile; a rule for its bandwidth is applied to the points.
    tolerance: the gap at which it ends, as a share of w'Uw, unless rounding ends it.
    max_steps: steps after which it ends in any case.

  Examples:
    The points are of N(1, 1), and their weighted mean is nearly that of N(0, 1):

    >>> x = 1 + jax.random.normal(jax.random.key(0), (200, 1))
    >>> weights, gap = jax.jit(importance_weights)(x, -x)
    >>> bool(jnp.abs(weights @ x)[0] < 0.1 < jnp.abs(x.mean()))
    True
  """
  checks.positive(tolerance=tolerance)
  checks.count(max_steps=max_steps)
  u = _stein_matrix(x, score, kernel)
  n = len(u)
  own = jnp.diagonal(u)

  def gap_of(weights, products):
    return jnp.dot(weights, products) - jnp.min(products)

  # Smaller gaps than this are rounding.
  least = 8 * jnp.finfo(u.dtype).eps * jnp.mean(own)

  def goes_on(state):
    weights, products, step = state
    enough = jnp.maximum(tolerance * jnp.dot(weights, products), least)
    return (step < max_steps) & (gap_of(weights, products) > enough)

  def move(state):
    weights, products, step = state
    to = jnp.argmin(products)
    # Weight comes from that point which has some and from which a step gains most.
    drop = products - products[to]
    curve = jnp.maximum(own + own[to] - 2 * u[to], jnp.finfo(u.dtype).tiny)
    gain = jnp.where((weights > 0) & (drop > 0), drop**2 / curve, -jnp.inf)
    of = jnp.argmax(gain)
    amount = jnp.minimum(drop[of] / curve[of], weights[of])
    amount = jnp.maximum(amount, 0)
    weights = weights.at[of].add(-amount).at[to].add(amount)
    products += amount * (u[to] - u[of])
    return weights, products, step + 1

  weights = jnp.full(n, 1 / n, u.dtype)
  state = weights, jnp.dot(u, weights, precision=lax.Precision.HIGHEST), 0
  weights, *_ = lax.while_loop(goes_on, move, state)
  weights = jnp.maximum(weights, 0) / jnp.sum(weights)
  # The products of many steps have their roundings.
  products = jnp.dot(u, weights, precision=lax.Precision.HIGHEST)
  gap = gap_of(weights, products)
  return jnp.where(jnp.isfinite(gap), weights, jnp.nan), gap


def control_functional(
  values: Array,
  x: Array,
  score: Array,
  kernel: Kernel = kernels.RBF(_WIDE),
  *,
  regularization: float | None = None,
) -> Array:
  """Returns the mean of f under p [], by a control functional [OGC17].

  A function of mean zero under p and a constant interpolate the values; the constant
  is the mean. It is exact for f = c + sum_j a_j u(x_j, .), the a_j summing to zero. For
  smooth f in a few dimensions its error falls faster than that of the average; in more
  than about five take `polynomial_control_variates`. Equal points, such as a chain has
  after rejections, count once. It costs n^3 numbers, so thin more than some thousand
  points.

  Args:
    values: f at the points [n].
    x: points [n, d].
    score: grad_x log p at the points [n, d].
    kernel: radial profile; a rule for its bandwidth is applied to the points.
    regularization: what is added to the diagonal of the Stein matrix, as a share of
      its mean; None for n times machine epsilon. Less than this gives nan, as points
      much closer to each other than the bandwidth make the matrix singular.

  Examples:
    >>> x = jax.random.normal(jax.random.key(0), (100, 1))
    >>> values = jnp.sin(x[:, 0]) + x[:, 0] ** 2
    >>> found = control_functional(values, x, -x)
    >>> bool(abs(found - 1) < 0.5 * abs(values.mean() - 1))
    True
  """
  values = _values(values, x)
  u = _stein_matrix(x, score, kernel)
  if regularization is None:
    regularization = len(u) * float(jnp.finfo(u.dtype).eps)
  checks.positive(regularization=regularization)
  # A copy of an earlier point is left out: it gets no weight, and gives none.
  x = kernels.points(x=x)[0]
  first = jnp.unique(x, axis=0, return_index=True, size=len(x))[1]
  is_new = jnp.zeros(len(x), bool).at[first].set(True)
  pairs = is_new[:, None] & is_new[None]
  scale = jnp.mean(jnp.diagonal(u))
  u = jnp.where(pairs, u, 0) + scale * jnp.diag(
    jnp.where(is_new, regularization, 1)
  )
  ones = is_new.astype(u.dtype)
  solved = linalg.cho_solve(linalg.cho_factor(u, lower=True), ones)
  return jnp.dot(solved, values) / jnp.dot(solved, ones)


def polynomial_control_variates(
  values: Array, x: Array, score: Array, *, order: int = 1
) -> Array:
  """Returns the mean of f under p [], by polynomial control variates [MSI13].

  f is regressed on a constant and Lap q + grad q . score for the monomials q up to the
  order, all of mean zero under p; the constant is the mean. The coordinates are
  centred and scaled to variance 1 first, so that no unit matters. It is
  exact for polynomials up to the order where p is Gaussian, and near a Gaussian the
  variance falls by orders of magnitude. In d dimensions there are d columns of order 1
  and d (d + 3) / 2 of order 2, and more points are needed than columns.

  Args:
    values: f at the points [n].
    x: points [n, d], of p or nearly so, such as a chain's.
    score: grad_x log p at the points [n, d].
    order: 1 or 2.

  Raises:
    ValueError: there are no more points than columns and the constant.

  Examples:
    >>> x = jax.random.normal(jax.random.key(0), (100, 3))
    >>> found = polynomial_control_variates(x[:, 0] * x[:, 1] + 2, x, -x, order=2)
    >>> print(found.round(4))
    2.0
  """
  checks.choice((1, 2), order=order)
  values = _values(values, x)
  x, score = _particles.points(x, score)
  n, dim = x.shape
  num = dim if order == 1 else dim * (dim + 3) // 2
  if n <= num + 1:
    raise ValueError(
      f'order={order} has {num} columns in {dim} dimensions; {n} points are too few.'
    )
  # Columns of one scale lose no digits, and the constant is the same.
  scale = jnp.std(x, 0, keepdims=True)
  scale = jnp.where(scale == 0, 1, scale)  # of a coordinate that never moved
  z, slope = (x - jnp.mean(x, 0, keepdims=True)) / scale, score * scale
  columns = [slope]
  if order == 2:
    columns.append(2 + 2 * z * slope)
    columns += [
      (z[:, a] * slope[:, b] + z[:, b] * slope[:, a])[:, None]
      for a, b in itertools.combinations(range(dim), 2)
    ]
  design = jnp.concatenate([jnp.ones((n, 1), x.dtype), *columns], 1)
  q, r = jnp.linalg.qr(design)
  return linalg.solve_triangular(r, q.T @ values)[0]


def _stein_matrix(x, score, kernel):
  """Returns the Stein kernel of all pairs [n, n], exact on its diagonal."""
  x, score = _particles.points(x, score)
  kernel = kernels.resolved(kernel, x)
  u = discrepancies.stein_matrix(x, score, x, score, kernel)
  own = jnp.diag(_sums.own_terms(score, kernel))
  return jnp.where(jnp.eye(len(x), dtype=bool), own, u)


def _values(values, x):
  """Returns the values of f [n] as numbers, one for each point."""
  values = dtypes.at_least_float32(values)
  checks.per_example(len(x), values=values)
  return values
