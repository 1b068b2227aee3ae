"""Names for the types that travel between modules."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax

Array = jax.Array
PRNGKey = jax.Array
Tree = Any  # a pytree of arrays
Params = Tree
Batch = Mapping[str, Array]
Metrics = dict[str, Array]

# Elementwise on squared distances: [n, m] -> [n, m].
Kernel = Callable[[Array], Array]
# A batch of points to their scores, grad_x log p(x): [n, ...] -> [n, ...].
ScoreFn = Callable[[Tree], Tree]
# A batch of points to their unnormalised log densities: [n, ...] -> [n].
LogDensityFn = Callable[[Tree], Array]


class Target(Protocol):
  """A law of points, leaves [n, ...], up to a constant: what a chain moves under."""

  def log_density(self, x: Tree) -> Array:
    """Returns the unnormalised log density of each point [n]."""

  def score(self, x: Tree) -> Tree:
    """Returns grad_x log p, like x."""
