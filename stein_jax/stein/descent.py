"""Points made for a density: moved, or placed one by one, to a small KSD."""

from collections.abc import Callable

import jax
from jax import lax
import jax.numpy as jnp
import optax

from stein_jax import _sums
from stein_jax import checks
from stein_jax import kernels
from stein_jax.stein import discrepancies
from stein_jax.types import Array, Kernel, PRNGKey, ScoreFn


def ksd_descent(
  x: Array,
  score_fn: ScoreFn,
  kernel: Kernel = kernels.IMQ(kernels.Median(diagonal=False, log='none')),
  *,
  num_steps: int = 100,
  memory_size: int = 10,
) -> tuple[Array, Array]:
  """Returns points [n, d] of least KSD near a start, and the path of KSDs [num_steps].

  This is KSD descent [KAMA21 alg 2]: L-BFGS on the squared KSD of all points at once,
  without a step size to choose. The gradient goes through the score, so each step costs
  products with the Hessian of log p. Compared with SVGD it ends sooner, and nearer to
  where it began: it has minima of its own. Points that start on an axis of symmetry
  stay on it, and a point may rest at a saddle of log p or between modes. Start from
  points without a symmetry, on a density without far modes.

  Args:
    x: start [n, d].
    score_fn: grad_x log p, a function of points [n, d] to [n, d].
    kernel: radial profile, smooth at 0; a rule for its bandwidth is applied to the
      start.
    num_steps: steps of L-BFGS, each with a line search.
    memory_size: how many steps L-BFGS remembers.

  Examples:
    >>> start = 3 + jax.random.normal(jax.random.key(0), (30, 1))
    >>> to_normal = jax.jit(lambda x: ksd_descent(x, lambda x: -x))
    >>> points, ksds = to_normal(start)
    >>> bool(abs(points.mean()) < 0.01), bool(ksds[-1] < ksds[0] / 1000)
    (True, True)
  """
  checks.count(num_steps=num_steps, memory_size=memory_size)
  checks.function('a function of points to scores', score_fn=score_fn)
  (x,) = kernels.points(x=x)
  kernel = kernels.resolved(kernel, x)
  loss = lambda x: discrepancies.ksd(x, score_fn(x), kernel)
  solver = optax.lbfgs(memory_size=memory_size)
  value_and_grad = optax.value_and_grad_from_state(loss)

  def step(carry, _):
    x, state = carry
    value, slope = value_and_grad(x, state=state)
    move, state = solver.update(
      slope, state, x, value=value, grad=slope, value_fn=loss
    )
    return (optax.apply_updates(x, move), state), value

  (x, _), ksds = lax.scan(step, (x, solver.init(x)), length=num_steps)
  return x, ksds


def stein_points(
  rng: PRNGKey,
  num: int,
  score_fn: ScoreFn,
  propose: Callable[[PRNGKey, int], Array],
  kernel: Kernel = kernels.IMQ(bandwidth=1.0),
  *,
  num_candidates: int = 1000,
) -> tuple[Array, Array]:
  """Returns points [num, d] placed one by one, and the squared KSDs of the first [num].

  Greedy Stein points [CMGBO18] by random search: each point is, of new candidates, the
  one that makes the KSD of those placed so far least. It is for few dimensions, where
  candidates come near everywhere, and costs num^2 num_candidates d numbers.

  Args:
    rng: key of the candidates.
    num: how many to place.
    score_fn: grad_x log p, a function of points [n, d] to [n, d].
    propose: a function of a key and a number c to candidates [c, d], which should be
      wherever the density is.
    kernel: radial profile; a rule for its bandwidth is applied to first candidates.
    num_candidates: how many are tried for each point.

  Examples:
    >>> propose = lambda rng, n: 2 * jax.random.normal(rng, (n, 1))
    >>> points, ksds = stein_points(jax.random.key(0), 20, lambda x: -x, propose)
    >>> bool(abs(points.mean()) < 0.1), bool(ksds[19] < ksds[0] / 50)
    (True, True)
  """
  checks.key(rng=rng)
  checks.count(num=num, num_candidates=num_candidates)
  checks.function('a function of points to scores', score_fn=score_fn)
  checks.function('a function of a key and a number to points', propose=propose)
  of_rule, of_steps = jax.random.split(rng)

  def candidates(rng):
    (x,) = kernels.points(candidates=propose(rng, num_candidates))
    score = score_fn(x)
    checks.shape(x.shape, score_fn=score)
    return x, score

  first, _ = candidates(of_rule)
  kernel = kernels.resolved(kernel, first)

  def place(state, step):
    total, points, scores = state
    x, score = candidates(jax.random.fold_in(of_steps, step))
    u = discrepancies.stein_matrix(x, score, points, scores, kernel)
    placed = jnp.where((jnp.arange(num) < step)[None], u, 0)
    added = _sums.own_terms(score, kernel) + 2 * jnp.sum(placed, 1)
    best = jnp.argmin(added)
    total += added[best]
    points, scores = (
      points.at[step].set(x[best]),
      scores.at[step].set(score[best]),
    )
    return (total, points, scores), total / (step + 1.0) ** 2

  zeros = jnp.zeros((num, first.shape[1]), first.dtype)
  start = jnp.zeros((), first.dtype), zeros, zeros
  (_, points, _), ksds = lax.scan(place, start, jnp.arange(num))
  return points, ksds
