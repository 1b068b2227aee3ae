"""What chains move under, and what is refused in its place."""

from collections.abc import Callable

from flax import struct
import optax

from stein_jax import checks
from stein_jax.samplers import _steps
from stein_jax.types import (
  Array,
  LogDensityFn,
  Metrics,
  PRNGKey,
  Target,
  Tree,
)

Chain = Callable[[PRNGKey, Tree, Target], tuple[Tree, Metrics]]
"""A function of a key, points and a target to points like them and scalars by name."""

# What is allowed in place of what cannot be a chain, or a target.
WANTED = 'a chain, such as samplers.Langevin(0.1)'
TARGETS = (
  'a target, such as samplers.target(jax.vmap(log_density)) or '
  'energies.target(energy)'
)


def target(
  log_density_fn: LogDensityFn, *, axis_name: str | None = None
) -> Target:
  """Returns the target of a log density, whose score is its gradient.

  Args:
    log_density_fn: x, leaves [n, ...], to unnormalised log p [n].
    axis_name: the mapped axis over which the chains are split, for those that share
      what they find, such as `adapt`.

  Raises:
    TypeError: it is no function.
  """
  checks.function('a function of points', log_density_fn=log_density_fn)
  return _DensityTarget(log_density_fn, axis_name)


@struct.dataclass
class _DensityTarget:
  """See `target`."""

  log_density_fn: LogDensityFn = struct.field(pytree_node=False)
  axis_name: str | None = struct.field(pytree_node=False, default=None)

  def log_density(self, x: Tree) -> Array:
    return _steps.per_chain(self.log_density_fn, _steps.chains(x)[1])(x)

  def score(self, x: Tree) -> Tree:
    # The density is differentiated in float32 and the score has the dtype of x.
    start, num_chains = _steps.chains(x)
    density_fn = _steps.per_chain(self.log_density_fn, num_chains)
    return optax.tree.cast_like(
      _steps.evaluate(density_fn, _steps.accumulated(start))[2], start
    )
