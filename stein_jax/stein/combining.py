"""Directions that are made of others."""

from collections.abc import Callable, Sequence

from flax import struct
import jax

from stein_jax import build
from stein_jax import checks
from stein_jax.stein import _balance
from stein_jax.stein import calling
from stein_jax.types import Array, Tree


@struct.dataclass
class Sum:
  """The sum of directions, each times a weight.

  It is the direction of the sum of their kernels.

  Attributes:
    directions: values such as `SVGD`.
    weights: numbers of at least 0, one for each direction; all are 1 if there are none.

  Examples:
    >>> from stein_jax import stein
    >>> direction = Sum((stein.SVGD(), stein.PolynomialSVGD()), weights=(1.0, 0.5))
    >>> x = jnp.array([[-1.0], [1.0]])  # at rest for the linear kernel on N(0, 1)
    >>> print(direction(x, -x) - stein.SVGD()(x, -x))
    [[0.]
     [0.]]
  """

  directions: Sequence[Callable[..., Tree]]
  weights: Sequence[Array | float] = ()

  needs_features = property(
    lambda self: calling.needs('features', *self.directions)
  )
  needs_log_density = property(
    lambda self: calling.needs('log_density', *self.directions)
  )
  needs_rng = property(lambda self: calling.needs('rng', *self.directions))
  needs_score = property(lambda self: calling.needs_score(*self.directions))
  needs_step = property(lambda self: calling.needs('step', *self.directions))

  def __call__(self, x: Tree, score: Tree, **options) -> Tree:
    """Returns the sum at the particles, like x, or like `at` if that is given.

    Args:
      x: particles, a tree with leaves [n, ...].
      score: grad_x log p at the particles, like x.
      **options: `at`, `axis_name` and what the directions ask for; see `call`.

    Raises:
      ValueError: no directions, or weights that do not fit them.
    """
    checks.parts(self.weights, directions=self.directions)
    terms = []
    rng = options.get('rng')
    for i, (weight, direction) in enumerate(self._pairs()):
      if rng is not None:
        options['rng'] = jax.random.fold_in(rng, i)  # no two share their noise
      with build.section(f'directions[{i}]'):
        phi = calling.call(direction, x, score, **options)
      scale = lambda leaf: (weight * leaf).astype(leaf.dtype)
      terms.append(jax.tree.map(scale, phi))
    return jax.tree.map(lambda *leaves: sum(leaves), *terms)

  def _pairs(self):
    weights = tuple(self.weights) or (1.0,) * len(self.directions)
    return list(zip(weights, self.directions, strict=True))

  def balance(self, variance: Array, num_particles: int, dim: int):
    """Returns the `Balance` of particles on N(0, I); see `predicted_variance`."""
    return _balance.of_sum(self._pairs(), variance, num_particles, dim)
