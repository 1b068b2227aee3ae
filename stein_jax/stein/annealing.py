"""A score whose weight rises from step to step, so that particles explore at first.

A schedule is a function of the number of steps [] to the weight [], as those of optax
are; any of these will do.
"""

from collections.abc import Callable
import numbers

from flax import struct
import jax
import jax.numpy as jnp

from stein_jax import build
from stein_jax import checks
from stein_jax.stein import _balance
from stein_jax.stein import calling
from stein_jax.stein import directions
from stein_jax.types import Array, Tree


@struct.dataclass
class LinearRise:
  """A weight that rises in a line, and is 1 from `num_steps` on [DF21].

  Attributes:
    num_steps: length of the rise.
    floor: weight that is not gone below. At 0 particles would only repel each other,
      without end.
  """

  num_steps: int = struct.field(pytree_node=False, default=1000)
  floor: Array | float = 0.01

  def __call__(self, step: Array) -> Array:
    """Returns the weight [] at a step."""
    share, floor = _share(self.num_steps, step), _floor(self.floor)
    return jnp.maximum(share, floor)


@struct.dataclass
class TanhRise:
  """A weight tanh((1.3 t / num_steps)^power), and 1 from `num_steps` on [DF21].

  Attributes:
    num_steps: length of the rise.
    power: how long it stays near 0; 4 or less for a run of some thousand steps.
    floor: weight that is not gone below.

  Examples:
    >>> print(TanhRise(num_steps=100)(jnp.array([0, 50, 100])).round(1))
    [0.  0.2 1. ]
  """

  num_steps: int = struct.field(pytree_node=False, default=1000)
  power: Array | float = 4.0
  floor: Array | float = 0.01

  def __call__(self, step: Array) -> Array:
    """Returns the weight [] at a step."""
    checks.positive(power=self.power)
    share, floor = _share(self.num_steps, step), _floor(self.floor)
    weight = jnp.where(share < 1, jnp.tanh((1.3 * share) ** self.power), 1)
    return jnp.maximum(weight, floor)


@struct.dataclass
class CyclicRise:
  """A weight that rises again and again, and is 1 from `num_steps` on [DF21 eq 4].

  Within a cycle of length L it is (t / L)^power. A run must go on after the cycles, or
  it ends in another density, and with steps that are still large.

  Attributes:
    num_steps: length of all cycles together.
    num_cycles: how many there are.
    power: how long each stays near 0; 4 or less for a run of some thousand steps.
    floor: weight that is not gone below.

  Examples:
    >>> rise = CyclicRise(num_steps=100, num_cycles=5, power=1.0)
    >>> print(rise(jnp.array([10, 19, 20, 100])).round(2))
    [0.5  0.95 0.01 1.  ]
  """

  num_steps: int = struct.field(pytree_node=False, default=1000)
  num_cycles: int = struct.field(pytree_node=False, default=5)
  power: Array | float = 4.0
  floor: Array | float = 0.01

  def __call__(self, step: Array) -> Array:
    """Returns the weight [] at a step."""
    checks.count(num_cycles=self.num_cycles)
    checks.positive(power=self.power)
    share, floor = _share(self.num_steps, step), _floor(self.floor)
    # Whole numbers, since a share that is rounded may end a cycle late.
    within = step * self.num_cycles % self.num_steps / self.num_steps
    return jnp.maximum(jnp.where(share < 1, within, 1) ** self.power, floor)


@struct.dataclass
class Annealed:
  """A direction whose score is weighted by a schedule [DF21].

  Where the weight is small, repulsion spreads the particles over the modes; where it is
  1, the direction is as without annealing. It finds modes, and does not mend how many
  particles each has, nor a spread that collapses in many dimensions.

  Attributes:
    direction: one that is linear in the score, such as `SVGD`.
    schedule: weight of the score at a step.
    temperature: weight of the repulsion. Other than 1 it changes the density, about to
      p^(1 / temperature) for many particles.

  Examples:
    >>> x = jnp.array([[-1.0], [1.0]])
    >>> annealed = Annealed(schedule=LinearRise(num_steps=10))
    >>> at_half = annealed(x, -2 * x, step=5)
    >>> print(at_half - directions.SVGD()(x, -x))
    [[0.]
     [0.]]
  """

  direction: Callable[..., Tree] = directions.SVGD()
  schedule: Callable[[Array], Array] = CyclicRise()
  temperature: Array | float = 1.0

  needs_features = property(
    lambda self: calling.needs('features', self.direction)
  )
  needs_log_density = property(
    lambda self: calling.needs('log_density', self.direction)
  )
  needs_rng = property(lambda self: calling.needs('rng', self.direction))
  needs_score = property(lambda self: calling.needs_score(self.direction))
  needs_step = True

  def __call__(self, x: Tree, score: Tree, *, step: Array, **options) -> Tree:
    """Returns phi at the particles, like x, or like `at` if that is given.

    Args:
      x: particles, a tree with leaves [n, ...].
      score: grad_x log p at the particles, like x.
      step: the number of steps before this one [].
      **options: `at`, `axis_name` and what the direction asks for; see `call`.

    Raises:
      ValueError: an option out of range.
    """
    checks.positive(temperature=self.temperature)
    checks.function(
      'a schedule, such as stein.LinearRise()', schedule=self.schedule
    )
    with build.section('schedule'):
      weight = self.schedule(jnp.asarray(step)) / self.temperature
    scaled = lambda tree, by: jax.tree.map(
      lambda leaf: (by * leaf).astype(leaf.dtype), tree
    )
    if 'log_density' in options:
      log_density = options['log_density']
      options['log_density'] = lambda position: weight * log_density(position)
    with build.section('direction'):
      phi = calling.call(
        self.direction, x, scaled(score, weight), step=step, **options
      )
    return scaled(phi, self.temperature)

  def balance(self, variance: Array, num_particles: int, dim: int):
    """Returns the `Balance` of particles on N(0, I); see `predicted_variance`."""
    # Another temperature has another density at its end.
    is_one = (
      isinstance(self.temperature, numbers.Real) and self.temperature == 1
    )
    if not is_one:
      return None
    return _balance.of(self.direction, variance, num_particles, dim)


def _share(num_steps, step):
  """Returns which share of a rise is over at a step, at most 1."""
  checks.count(num_steps=num_steps)
  return jnp.minimum(step / num_steps, 1.0)


def _floor(floor):
  checks.non_negative(floor=floor)
  checks.at_most(1, floor=floor)
  return floor
