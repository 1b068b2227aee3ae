"""Chains of units that have one of two values each: pixels in {0, 1}, spins in {-1, 1}.

Both follow the score of a density that is smooth between the values. The first order
of its logarithm says what a unit's change comes to, for all units at once.
"""

from collections.abc import Sequence
from typing import NamedTuple

from flax import struct
import jax
from jax import flatten_util
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax

from stein_jax import checks
from stein_jax import dtypes
from stein_jax.samplers import _steps
from stein_jax.samplers import targets
from stein_jax.types import Array, Metrics, PRNGKey, Target, Tree


@struct.dataclass
class GibbsWithGradients:
  """A chain that changes one unit a step, chosen by the score [GSHDM21].

  A unit is drawn with a probability proportional to exp(gap / 2), where the gap is what
  its change adds to log p by first order, and an accept step leaves p invariant. The
  gap is exact where log p is linear in every unit, as for `energies.Ising`.

  Attributes:
    num_steps: length of the chain, at least 1; a sweep has as many steps as units.
    values: the two numbers that a unit can be, the lower one first.

  Examples:
    >>> from stein_jax import samplers
    >>> equal = lambda x: x[:, 0] * x[:, 1]  # a share e / (e + 1 / e) is equal
    >>> spins = samplers.target(equal)
    >>> chain = GibbsWithGradients(num_steps=20, values=(-1, 1))
    >>> x, metrics = chain(jax.random.key(0), jnp.ones((5000, 2)), spins)
    >>> bool(abs(jnp.mean(x[:, 0] == x[:, 1]) - 0.881) < 0.02), sorted(metrics)
    (True, ['acceptance'])
  """

  num_steps: int = struct.field(pytree_node=False, default=1)
  values: Sequence[float] = struct.field(pytree_node=False, default=(0.0, 1.0))

  def __call__(
    self, rng: PRNGKey, x: Tree, target: Target
  ) -> tuple[Tree, Metrics]:
    """Returns x after the steps, like x, and the 'acceptance' rate [].

    A chain that starts where the density is nan, or at a unit of another value, ends
    as nan.

    Raises:
      ValueError: an option out of range, a log density that is not [n], or a start
        that is known and has a unit of another value.
    """
    checks.has(('log_density',), targets.TARGETS, target=target)
    return _accepted(self, rng, x, target)

  def start(self, rng: PRNGKey, shape: tuple[int, ...]) -> Array:
    """Returns units [*shape] that are either value with probability 1/2."""
    return _even(rng, shape, self.values)

  def logits(self, gap: Array) -> Array:
    """Returns log q [n, d] of changing each unit alone, for gaps [n, d]."""
    return jax.nn.log_softmax(gap / 2)

  def draw(self, rng: PRNGKey, logits: Array) -> Array:
    """Returns which units are changed [n, d]."""
    chosen = jax.random.categorical(rng, logits)
    return jax.nn.one_hot(chosen, logits.shape[1], dtype=bool)

  def log_prob(self, logits: Array, changed: Array) -> Array:
    """Returns log q [n] of such a change."""
    return jnp.sum(jnp.where(changed, logits, 0), -1)


@struct.dataclass
class DiscreteLangevin:
  """A chain that changes every unit by a coin of its own in each step [ZLL22].

  It is Langevin's proposal, restricted to the two values: with h their distance, a unit
  changes with probability sigmoid(gap / 2 - h^2 / (2 delta^2)), where the gap is what
  the change adds to log p by first order. The paper's alpha is delta^2.

  Attributes:
    step_size: delta. With the accept step 0.7 to 1.4 is good for {0, 1}, and twice that
      for {-1, 1}.
    num_steps: length of the chain, at least 1.
    values: the two numbers that a unit can be, the lower one first.
    accept: whether an accept step leaves p invariant. Without it the law is biased,
      little for steps below 0.3 distances, and the score alone is asked for.

  Examples:
    >>> from stein_jax import samplers
    >>> equal = lambda x: x[:, 0] * x[:, 1]  # a share e / (e + 1 / e) is equal
    >>> spins = samplers.target(equal)
    >>> chain = DiscreteLangevin(step_size=2.0, num_steps=20, values=(-1, 1))
    >>> x, metrics = chain(jax.random.key(0), jnp.ones((5000, 2)), spins)
    >>> bool(abs(jnp.mean(x[:, 0] == x[:, 1]) - 0.881) < 0.02), sorted(metrics)
    (True, ['acceptance'])
  """

  step_size: float
  num_steps: int = struct.field(pytree_node=False, default=1)
  values: Sequence[float] = struct.field(pytree_node=False, default=(0.0, 1.0))
  accept: bool = struct.field(pytree_node=False, default=True)

  def __call__(
    self, rng: PRNGKey, x: Tree, target: Target
  ) -> tuple[Tree, Metrics]:
    """Returns x after the steps, like x, and the 'acceptance' rate [] if there is one.

    A chain that starts where the density is nan, or at a unit of another value, ends
    as nan.

    Raises:
      ValueError: an option out of range, a log density that is not [n], a score that is
        not like x, or a start that is known and has a unit of another value.
    """
    checks.positive(step_size=self.step_size)
    checks.flag(accept=self.accept)
    if self.accept:
      checks.has(('log_density',), targets.TARGETS, target=target)
      return _accepted(self, rng, x, target)
    checks.has(('score',), targets.TARGETS, target=target)
    return _unadjusted(self, rng, x, target)

  def start(self, rng: PRNGKey, shape: tuple[int, ...]) -> Array:
    """Returns units [*shape] that are either value with probability 1/2."""
    return _even(rng, shape, self.values)

  def logits(self, gap: Array) -> Array:
    """Returns the logits [n, d] of changing each unit, for gaps [n, d]."""
    low, high = self.values
    # An integer of 8 bits has no square.
    ratio = (high - low) / (1.0 * self.step_size)
    return gap / 2 - jnp.asarray(ratio**2 / 2, gap.dtype)

  def draw(self, rng: PRNGKey, logits: Array) -> Array:
    """Returns which units are changed [n, d]."""
    return jax.random.bernoulli(rng, jax.nn.sigmoid(logits))

  def log_prob(self, logits: Array, changed: Array) -> Array:
    """Returns log q [n] of such a change."""
    # Logarithms of probabilities themselves would lose those near 0.
    return jnp.sum(jax.nn.log_sigmoid(jnp.where(changed, logits, -logits)), -1)


def _accepted(chain, rng, x, target):
  """Returns (x after steps, each accepted or not, and metrics) of a chain."""
  units = _Units.of(chain, rng, x)
  density_fn = _steps.per_chain(target.log_density, len(units.flat))

  def evaluate(flat):
    return _steps.evaluate(lambda flat: density_fn(units.points(flat)), flat)

  def moves(flat, score):
    return chain.logits(units.gap(flat, score))

  def step(here, rng):
    flat, log_density, score = here
    draw_rng, accept_rng = jax.random.split(rng)
    forth = moves(flat, score)
    changed = chain.draw(draw_rng, forth)
    there = evaluate(units.change(flat, changed))
    back = moves(there[0], there[2])
    log_ratio = (
      there[1]
      - log_density
      + chain.log_prob(back, changed)
      - chain.log_prob(forth, changed)
    )
    uniform = jax.random.uniform(accept_rng, log_ratio.shape)
    accept = jnp.log(uniform) < log_ratio  # False where the ratio is nan
    select = lambda new, old: _steps.select(accept, new, old)
    return jax.tree.map(select, there, here), accept

  keys = jax.random.split(rng, chain.num_steps)
  end, accepts = lax.scan(step, evaluate(units.flat), keys)
  flat, log_density, score = end
  # Nothing is accepted where these are no numbers: the start would read as a sample.
  lost = jnp.isnan(log_density) | jnp.any(jnp.isnan(moves(flat, score)), -1)
  flat = _steps.select(lost, jnp.nan, flat)
  acceptance = jnp.mean(accepts, dtype=jnp.float32)
  return units.like_start(flat), {'acceptance': acceptance}


def _unadjusted(chain, rng, x, target):
  """Returns (x after steps that are all taken, {}) of a chain."""
  units = _Units.of(chain, rng, x)

  def step(flat, rng):
    points = units.points(flat)
    score = jax.tree.map(dtypes.floating, target.score(points))
    checks.like(points, score=score)
    logits = chain.logits(units.gap(flat, _flattened(score)))
    moved = units.change(flat, chain.draw(rng, logits))
    return jnp.where(jnp.isnan(logits), jnp.nan, moved), None

  keys = jax.random.split(rng, chain.num_steps)
  return units.like_start(lax.scan(step, units.flat, keys)[0]), {}


class _Units(NamedTuple):
  """Points of two values as rows [n, d], whatever their tree and their dtypes.

  Attributes:
    flat: where they start [n, d]; nan where a unit has another value.
    begun: the start, like the points.
    values: the two numbers.
  """

  flat: Array
  begun: Tree
  values: tuple[float, float]

  @classmethod
  def of(cls, chain, rng, x):
    """Returns the units of points that a chain is given, and checks its options."""
    checks.key(rng=rng)
    checks.count(num_steps=chain.num_steps)
    low, high = _checked(chain.values)
    x, _ = _steps.chains(x)

    def exact(leaf):
      # The values are rounded as the points were.
      low_here, high_here = (np.array(v, leaf.dtype) for v in (low, high))
      if not isinstance(leaf, jax.core.Tracer):
        known = np.asarray(leaf)
        ours = (known == low_here) | (known == high_here) | np.isnan(known)
        if not np.all(ours):
          raise ValueError(
            f'x has a unit of {known[~ours][0]}, and values={chain.values} are the two '
            'that a unit can be.'
          )
      clean = jnp.where(leaf == high_here, high, jnp.nan)
      clean = jnp.where(leaf == low_here, low, clean)
      return clean.astype(dtypes.at_least_float32(leaf).dtype)

    return cls(_flattened(jax.tree.map(exact, x)), x, (low, high))

  def points(self, flat):
    """Returns rows [n, d] as points, none in half precision."""
    first = lambda leaf: dtypes.at_least_float32(leaf)[0]
    _, unravel = flatten_util.ravel_pytree(jax.tree.map(first, self.begun))
    return jax.vmap(unravel)(flat)

  def gap(self, flat, score):
    """Returns what the change of each unit adds to log p, by first order [n, d]."""
    return (self._others(flat) - flat) * score

  def change(self, flat, changed):
    """Returns rows [n, d] some of whose units have the other value."""
    return jnp.where(changed, self._others(flat), flat)

  def like_start(self, flat):
    """Returns rows [n, d] in the tree and the dtypes of the start."""
    return optax.tree.cast_like(self.points(flat), self.begun)

  def _others(self, flat):
    # Exactly one of the two values: a sum of both less x would round.
    low, high = (jnp.asarray(value, flat.dtype) for value in self.values)
    other = jnp.where(flat == low, high, low)
    return jnp.where(jnp.isnan(flat), flat, other)


def _flattened(x):
  """Returns points with leaves [n, ...] as rows [n, d]."""
  return jax.vmap(lambda x: flatten_util.ravel_pytree(x)[0])(x)


def _even(rng, shape, values):
  return jnp.where(
    jax.random.bernoulli(rng, shape=shape), *_checked(values)[::-1]
  )


def _checked(values):
  """Returns the two values; refuses what is no pair of finite numbers that rise."""
  message = (
    f'values={checks.shown(values)} must be two numbers, the lower one first.'
  )
  if np.ndim(values) != 1 or len(values) != 2:
    raise ValueError(message)
  low, high = values
  checks.finite(**{'values[0]': low, 'values[1]': high})
  if not low < high:
    raise ValueError(message)
  return float(low), float(high)
