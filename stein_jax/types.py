"""Names for the types that travel between modules."""

from collections.abc import Callable, Mapping
from typing import Any

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
