"""Chains of Langevin steps that are accepted or not."""

import functools

from flax import struct
import jax
from jax import lax
import jax.numpy as jnp
import optax

from stein_jax import checks
from stein_jax.samplers import _steps
from stein_jax.samplers import _watch
from stein_jax.samplers import targets
from stein_jax.types import Array, LogDensityFn, Metrics, PRNGKey, Target, Tree


@struct.dataclass
class MALA:
  """A chain of Metropolis-adjusted Langevin steps; see `mala`.

  Attributes:
    step_size: delta.
    num_steps: length of the chain, at least 1.
  """

  step_size: float
  num_steps: int = struct.field(pytree_node=False, default=1)

  def __call__(
    self, rng: PRNGKey, x: Tree, target: Target
  ) -> tuple[Tree, Metrics]:
    """Returns x after the steps, like x, and metrics [].

    They are the 'acceptance' rate and, of the ends, the 'score_norm' and the
    'virial_temperature' that `Langevin` has too; the latter is 1 at rest.

    Raises:
      ValueError: an option out of range, or a log density that is not [n].
    """
    checks.has(('log_density',), targets.TARGETS, target=target)
    moved, acceptance, end = _mala(rng, x, target.log_density, **vars(self))
    return moved, {'acceptance': acceptance, **_watch.of(*end, target)}


def mala(
  rng: PRNGKey,
  x: Tree,
  log_density_fn: LogDensityFn,
  *,
  step_size: float,
  num_steps: int,
) -> tuple[Tree, Array]:
  """Returns (x after Metropolis-adjusted Langevin steps, acceptance rate []).

  Proposes as `langevin` does and accepts each chain by itself, which leaves p
  exactly invariant; a proposal whose density is not a number is rejected. A chain
  that starts at such a point could never leave it: its end is nan. One that starts
  where p is 0 stays until it proposes a point where it is not.

  Args:
    rng: key of the chains.
    x: where the chains start, leaves [n, ...].
    log_density_fn: x to unnormalised log p [n].
    step_size: delta.
    num_steps: length of the chains, at least 1.

  Raises:
    ValueError: an option out of range, x without a chain axis, or a log density
      that is not [n].

  Examples:
    >>> x = jnp.zeros((1000, 1))  # a thousand chains
    >>> log_density = lambda x: -0.5 * jnp.sum((x - 3) ** 2, -1)
    >>> run = lambda rng, x: mala(rng, x, log_density, step_size=1.0, num_steps=50)
    >>> x, acceptance = jax.jit(run)(jax.random.key(0), x)
    >>> bool(abs(x.mean() - 3) < 0.2), bool(0.8 < acceptance < 1)
    (True, True)
  """
  return _mala(
    rng, x, log_density_fn, step_size=step_size, num_steps=num_steps
  )[:2]


def _mala(rng, x, log_density_fn, *, step_size, num_steps):
  """Returns what `mala` does, and (points, scores) at the end."""
  checks.key(rng=rng)
  checks.function('a function of points', log_density_fn=log_density_fn)
  checks.positive(step_size=step_size)
  checks.count(num_steps=num_steps)
  start, num_chains = _steps.chains(x)
  density_fn = _steps.per_chain(log_density_fn, num_chains)

  evaluate = functools.partial(_steps.evaluate, density_fn)

  def step(here, rng):
    return _steps.mala_step(rng, here, evaluate, step_size)[:2]

  # The density and the score of a point are kept, so that a step evaluates
  # once.
  here = evaluate(_steps.accumulated(start))
  keys = jax.random.split(rng, num_steps)
  (end, log_density, score), accepts = lax.scan(step, here, keys)
  lost = functools.partial(_steps.select, jnp.isnan(log_density), jnp.nan)
  end = jax.tree.map(lost, end)
  acceptance = jnp.mean(accepts, dtype=jnp.float32)
  return optax.tree.cast_like(end, start), acceptance, (end, score)
