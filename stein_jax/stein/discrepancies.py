"""The Stein operator, and kernel discrepancies from it."""

from flax import struct
import jax
import jax.numpy as jnp

from stein_jax import _sums
from stein_jax import checks
from stein_jax import collectives
from stein_jax import dtypes
from stein_jax import kernels
from stein_jax.stein import _particles
from stein_jax.types import Array, Kernel, ScoreFn, Tree


def stein_operator(score_fn: ScoreFn, test_fn: ScoreFn, x: Array) -> Array:
  """Returns s(x).phi(x) + div phi(x) [n], of mean zero under p [WL16 eq 4].

  It is computed by its definition, with one Jacobian for each point.

  Args:
    score_fn: the score s, a function of points [n, d] to [n, d].
    test_fn: phi, a function of points [n, d] to [n, d].
    x: points [n, d].

  Raises:
    ValueError: a function that does not return points like those it is given.

  Examples:
    >>> score = lambda x: -x  # of N(0, 1); with phi(x) = x the value is 1 - x^2
    >>> print(stein_operator(score, lambda x: x, jnp.array([[0.0], [2.0]])))
    [ 1. -3.]
  """
  (x,) = kernels.points(x=x)

  def at(point):
    # The functions take batches; a batch of one point shows its own Jacobian.
    single = lambda y: test_fn(y[None])[0]
    score = score_fn(point[None])
    checks.shape((1, len(point)), score_fn=score, test_fn=test_fn(point[None]))
    divergence = jnp.trace(jax.jacfwd(single)(point))
    return dtypes.floating(score[0]) @ single(point) + divergence

  return jax.vmap(at)(x)


def stein_matrix(
  x: Array, score_x: Array, y: Array, score_y: Array, kernel: Kernel
) -> Array:
  """Returns the Stein kernel u(x_i, y_j) [n, m] [WL16 eq 6].

  u(x, y) = s(x).s(y) k + s(x).grad_y k + s(y).grad_x k + tr grad_x grad_y k,
  of mean zero under p in either argument.

  Args:
    x: points [n, d].
    score_x: grad_x log p at x [n, d].
    y: points [m, d].
    score_y: grad_x log p at y [m, d].
    kernel: radial profile; a rule for its bandwidth is applied to x alone.
  """
  x, score_x = _particles.points(x, score_x)
  y, score_y = _particles.points(y, score_y)
  kernels.points(x=x, y=y)
  kernel = kernels.resolved(kernel, x)

  def whole(form):
    return form.matrix(form.prepare(x, score_x), form.prepare(y, score_y), True)

  return _sums.with_stein_kernel(whole, kernel, (x, y))


def ksd(
  x: Array,
  score: Array,
  kernel: Kernel,
  *,
  unbiased: bool = False,
  block_size: int | None = None,
  axis_name: str | None = None,
) -> Array:
  """Returns the squared kernelised Stein discrepancy [] [LW17 eq 14] [WL16 eq 6].

  Args:
    x: points [n, d].
    score: grad_x log p at the points [n, d].
    kernel: radial profile; a rule for its bandwidth is applied to the points.
    unbiased: whether it is the U-statistic, without the diagonal, which may fall below
      zero. The V-statistic is never negative beyond rounding.
    block_size: rows of the Stein matrix held at a time; None keeps memory
      bounded.
    axis_name: the mapped axis over which the points are split.

  Raises:
    ValueError: the U-statistic of one point.

  Examples:
    Draws of N(0, 1) are near it; the same draws moved by 1 are not:

    >>> x = jax.random.normal(jax.random.key(0), (200, 1))
    >>> to_normal = jax.jit(lambda x: ksd(x, -x, kernels.IMQ(bandwidth=1.0)))
    >>> bool(to_normal(x) < 0.1 < to_normal(x + 1))
    True
  """
  x, score = _particles.points(x, score)
  kernel = kernels.resolved(kernel, x, axis_name)
  n = len(x)
  count = n * collectives.size(axis_name)
  if unbiased and count < 2:
    raise ValueError('The U-statistic needs at least 2 points, got 1.')
  total = _sums.stein_sum(
    x, score, kernel, block_size=block_size, axis_name=axis_name
  )
  # Integers of more than 32 bits, which the number of pairs may be, are refused.
  if unbiased:
    return collectives.psum(total, axis_name) / float(count * (count - 1))
  total += jnp.sum(_sums.own_terms(score, kernel))
  return collectives.psum(total, axis_name) / float(count**2)


@struct.dataclass
class KSD:
  """The squared KSD of a run's points, to be logged: it costs the same at every step.

  It is called like a direction, and its numbers compare from step to step and from run
  to run, since they are U-statistics of one kernel.

  Attributes:
    kernel: radial profile, whose bandwidth is a number; `kernel.at(x)` finds one by
      its rule, which is kept.
    max_points: how many points it is of, the first ones. Where it is an option of a
      step, 0 logs nothing.

  Examples:
    >>> x = jax.random.normal(jax.random.key(0), (10_000, 2))
    >>> metric = jax.jit(KSD(max_points=300))  # of 300 points, whatever n is
    >>> bool(jnp.abs(metric(x, -x)) < 0.05 < metric(2 * x, -2 * x))
    True
  """

  kernel: Kernel = kernels.IMQ(bandwidth=1.0)
  max_points: int = struct.field(pytree_node=False, default=512)

  def __call__(
    self, x: Tree, score: Tree, *, axis_name: str | None = None
  ) -> Array:
    """Returns the squared KSD [], without bias.

    Args:
      x: particles, leaves [n, ...].
      score: grad_x log p at the particles, like x.
      axis_name: the mapped axis over which the particles are split; each device gives
        an equal share of the points.

    Raises:
      ValueError: a bandwidth by a rule, which would be another at each step, or fewer
        than 2 points.
    """
    checks.count(minimum=2, max_points=self.max_points)
    self.kernel(jnp.zeros(()))  # refuses a rule
    _particles.check(x, score, x)
    of = lambda tree: _particles.flattened(
      self.first(tree, axis_name=axis_name)
    )
    return ksd(
      of(x), of(score), self.kernel, unbiased=True, axis_name=axis_name
    )

  def first(self, tree: Tree, *, axis_name: str | None = None) -> Tree:
    """Returns the rows that it is of, so that no other score need be known.

    Args:
      tree: particles, or what belongs to them: leaves [n, ...].
      axis_name: the mapped axis over which the particles are split.
    """
    share = max(1, self.max_points // collectives.size(axis_name))
    return jax.tree.map(lambda leaf: leaf[:share], tree)
