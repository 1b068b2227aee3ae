"""Chains of Langevin steps without an accept step.

LM13: Leimkuhler, Matthews. Rational Construction of Stochastic Numerical Methods for
Molecular Sampling. Applied Mathematics Research eXpress, 2013.
"""

from collections.abc import Sequence

from flax import struct
import jax
from jax import lax
import jax.numpy as jnp
import optax

from stein_jax import checks
from stein_jax.samplers import _steps
from stein_jax.samplers import _watch
from stein_jax.samplers import targets
from stein_jax.types import Array, Metrics, PRNGKey, ScoreFn, Target, Tree


@struct.dataclass
class Langevin:
  """A chain of unadjusted Langevin steps; see `langevin`.

  Attributes:
    step_size: delta.
    num_steps: length of the chain; 0 returns the points as they are.
    noise: False descends the energy.
    noise_ratio: standard deviation of a step's noise, in units of `step_size`.
    temperature: of the noise alone; 0 is `noise=False`.
    clip: (low, high) that every step is cut to; empty for no cut.

  Examples:
    >>> chain = Langevin(step_size=1.0, num_steps=1, noise=False)
    >>> normal = targets.target(lambda x: -0.5 * jnp.sum(x**2, -1))
    >>> x, _ = chain(jax.random.key(0), jnp.ones((2, 1)), normal)
    >>> print(x[:, 0])
    [0.5 0.5]
  """

  step_size: float
  num_steps: int = struct.field(pytree_node=False, default=1)
  noise: bool = struct.field(pytree_node=False, default=True)
  noise_ratio: float = 1.0
  temperature: float = 1.0
  clip: Sequence[float] = struct.field(pytree_node=False, default=())

  def __call__(
    self, rng: PRNGKey, x: Tree, target: Target
  ) -> tuple[Tree, Metrics]:
    """Returns x after the steps, like x, and metrics [] of one step or more.

    They are the 'temperature' of the noise, noise_ratio^2 temperature, and, where there
    is noise, of the last step the 'score_norm', the root mean square of the score, and
    the 'virial_temperature', the mean of -(x - mean x) s(x), which is the temperature
    of a chain at rest. With a `clip` there is 'clipped', the share of numbers on it.

    Raises:
      ValueError: an option out of range, or a score that is not like x.
    """
    checks.has(('score',), targets.TARGETS, target=target)
    checks.positive(step_size=self.step_size)
    checks.non_negative(noise_ratio=self.noise_ratio)
    moved, last = _langevin(
      rng,
      x,
      target.score,
      step_size=self.step_size,
      num_steps=self.num_steps,
      noise=self.noise,
      # A ratio, so that one flag changes the step and its noise stays in
      # proportion.
      noise_scale=self.noise_ratio * self.step_size,
      temperature=self.temperature,
      clip=tuple(self.clip) or None,
    )
    if not self.num_steps:
      return moved, {}
    temperature = self.noise * self.noise_ratio**2 * self.temperature
    metrics = {'temperature': jnp.asarray(temperature, jnp.float32)}
    # A descent has no law to measure.
    if self.noise:
      metrics |= _watch.of(*last, target)
    if self.clip:
      metrics['clipped'] = _clipped(moved, *self.clip)
    return moved, metrics


@struct.dataclass
class Underdamped:
  """A chain of Langevin steps with momentum, drawn anew at every call.

  See `underdamped`.

  Attributes:
    step_size: delta.
    num_steps: length of the chain, at least 1.
    friction: rate at which momentum is forgotten, per unit of `step_size`.
    temperature: of the noise and of the first momentum; 0 is a descent with momentum.

  Examples:
    >>> chain = Underdamped(step_size=1.0, friction=0.0, temperature=0.0)
    >>> normal = targets.target(lambda x: -0.5 * jnp.sum(x**2, -1))
    >>> x, _ = chain(jax.random.key(0), jnp.ones((2, 1)), normal)
    >>> print(x[:, 0])
    [0.5 0.5]
  """

  step_size: float
  num_steps: int = struct.field(pytree_node=False, default=1)
  friction: float = 1.0
  temperature: float = 1.0

  def __call__(
    self, rng: PRNGKey, x: Tree, target: Target
  ) -> tuple[Tree, Metrics]:
    """Returns x after the steps, like x, and metrics [].

    The 'kinetic_temperature' is the mean square of the momentum after a step, over all
    coordinates and steps. It is `temperature` for small steps: far above it the step is
    too large. 'temperature', 'score_norm' and 'virial_temperature' are those of
    `Langevin`, at the ends.

    Raises:
      ValueError: an option out of range, or a score that is not like x.
    """
    checks.has(('score',), targets.TARGETS, target=target)
    moved, kinetic, end = _underdamped(rng, x, target.score, **vars(self))
    return moved, {
      'kinetic_temperature': kinetic,
      'temperature': jnp.asarray(self.temperature, jnp.float32),
      **_watch.of(*end, target),
    }


def langevin(
  rng: PRNGKey,
  x: Tree,
  score_fn: ScoreFn,
  *,
  step_size: float,
  num_steps: int,
  noise: bool = True,
  noise_scale: float | None = None,
  temperature: float = 1.0,
  clip: tuple[float, float] | None = None,
) -> Tree:
  """Returns x after unadjusted Langevin steps, like x [LW17 eq 11].

  x + (delta^2 / 2) s(x) + sqrt(temperature) delta xi, xi ~ N(0, I). Without the
  accept step its stationary law is biased by O(delta^2).

  Args:
    rng: key of the noise.
    x: where the chains start, leaves [n, ...].
    score_fn: grad_x log p, like x.
    step_size: delta.
    num_steps: length of the chains; 0 returns x.
    noise: False descends the energy.
    noise_scale: in place of delta before xi, where the two are decoupled.
    temperature: of the noise alone; 0 is `noise=False`.
    clip: (low, high) that every step is cut to.

  Raises:
    ValueError: an option out of range, x without a chain axis, or a score that is
      not like x.

  Examples:
    >>> x = jnp.zeros((1000, 1))  # a thousand chains
    >>> score_fn = lambda x: -x  # of N(0, 1)
    >>> x = langevin(jax.random.key(0), x, score_fn, step_size=0.5, num_steps=50)
    >>> bool(abs(x.std() - 1) < 0.1)
    True
  """
  return _langevin(
    rng,
    x,
    score_fn,
    step_size=step_size,
    num_steps=num_steps,
    noise=noise,
    noise_scale=noise_scale,
    temperature=temperature,
    clip=clip,
  )[0]


def _langevin(
  rng,
  x,
  score_fn,
  *,
  step_size,
  num_steps,
  noise,
  noise_scale,
  temperature,
  clip,
):
  """Returns what `langevin` does, and (points, scores) before the last noisy step."""
  checks.key(rng=rng)
  checks.function('a function of points', score_fn=score_fn)
  checks.positive(step_size=step_size)
  checks.count(minimum=0, num_steps=num_steps)
  if noise_scale is None:
    noise_scale = step_size
  checks.non_negative(noise_scale=noise_scale, temperature=temperature)
  if clip is not None and not (len(clip) == 2 and clip[0] < clip[1]):
    raise ValueError(f'clip={clip} must be (low, high) with low < high.')
  # A temperature T scales the variance of the noise, hence its root.
  spread = noise_scale * temperature**0.5
  start, _ = _steps.chains(x)
  score = _steps.like_points(score_fn)

  def step(carry, rng):
    x, last = carry
    found = score(x)
    if noise:
      last = x, optax.tree.cast_like(found, x)
    x = _steps.drift(x, found, step_size)
    if noise:
      x = _steps.add(x, spread, optax.tree.random_like(rng, x))
    # Every step is cut, not the end alone: far outside a chain would not come back.
    if clip is not None:
      x = jax.tree.map(lambda leaf: jnp.clip(leaf, *clip), x)
    return (x, last), None

  keys = jax.random.split(rng, num_steps)
  x = _steps.accumulated(start)
  (end, last), _ = lax.scan(step, (x, (x, x) if noise else ()), keys)
  return optax.tree.cast_like(end, start), last


def _clipped(x, low, high):
  """Returns the share of numbers [] that lie on a bound."""
  outside = [
    (leaf <= jnp.asarray(low, leaf.dtype))
    | (leaf >= jnp.asarray(high, leaf.dtype))
    for leaf in jax.tree.leaves(x)
  ]
  return sum(map(jnp.sum, outside)) / sum(each.size for each in outside)


def underdamped(
  rng: PRNGKey,
  x: Tree,
  score_fn: ScoreFn,
  *,
  step_size: float,
  num_steps: int,
  friction: float = 1.0,
  temperature: float = 1.0,
) -> tuple[Tree, Array]:
  """Returns (x after underdamped Langevin steps, kinetic temperature []) [LM13].

  A step is BAOAB: a half kick by the score, a half drift by the momentum, friction and
  noise, and both halves again in the other order. On a Gaussian the stationary
  variance of x is exact at every stable step, below 2 of its standard deviations; on
  others it is biased by O(delta^2). A step costs one score, and a call one more.

  Args:
    rng: key of the momentum and the noise.
    x: where the chains start, leaves [n, ...].
    score_fn: grad_x log p, like x.
    step_size: delta.
    num_steps: length of the chains, at least 1.
    friction: gamma; the momentum keeps exp(-gamma delta) of itself.
    temperature: of the noise and of the first momentum; 0 leaves out both.

  Raises:
    ValueError: an option out of range, x without a chain axis, or a score that is
      not like x.

  Examples:
    >>> x = jnp.zeros((1000, 1))  # a thousand chains
    >>> score_fn = lambda x: -x  # of N(0, 1)
    >>> options = dict(step_size=1.0, num_steps=50)
    >>> x, kinetic = underdamped(jax.random.key(0), x, score_fn, **options)
    >>> bool(abs(x.std() - 1) < 0.1), bool(abs(kinetic - 0.75) < 0.05)
    (True, True)
  """
  return _underdamped(
    rng,
    x,
    score_fn,
    step_size=step_size,
    num_steps=num_steps,
    friction=friction,
    temperature=temperature,
  )[:2]


def _underdamped(
  rng, x, score_fn, *, step_size, num_steps, friction, temperature
):
  """Returns what `underdamped` does, and (points, scores) at the end."""
  checks.key(rng=rng)
  checks.function('a function of points', score_fn=score_fn)
  checks.positive(step_size=step_size)
  checks.count(num_steps=num_steps)
  checks.non_negative(friction=friction, temperature=temperature)
  start, _ = _steps.chains(x)
  half = step_size / 2
  kept = jnp.exp(-1.0 * friction * step_size)
  # The momentum has unit mass: its law at rest is N(0, temperature).
  spread = temperature**0.5
  size = sum(leaf.size for leaf in jax.tree.leaves(start))

  score = _steps.like_points(score_fn)

  def step(carry, rng):
    x, momentum, force = carry
    momentum = _steps.add(momentum, half, force)
    x = _steps.add(x, half, momentum)
    noise = optax.tree.random_like(rng, x)
    momentum = jax.tree.map(
      lambda leaf: (kept * leaf).astype(leaf.dtype), momentum
    )
    momentum = _steps.add(momentum, spread * jnp.sqrt(1 - kept**2), noise)
    x = _steps.add(x, half, momentum)
    # The last score of a step is the first one of the next.
    force = optax.tree.cast_like(score(x), x)
    momentum = _steps.add(momentum, half, force)
    square = jnp.sum(_steps.per_chain_sum_of_squares(momentum)) / size
    return (x, momentum, force), square

  first_rng, steps_rng = jax.random.split(rng)
  x = _steps.accumulated(start)
  still = jax.tree.map(jnp.zeros_like, x)
  momentum = _steps.add(still, spread, optax.tree.random_like(first_rng, x))
  here = x, momentum, optax.tree.cast_like(score(x), x)
  (end, _, force), squares = lax.scan(
    step, here, jax.random.split(steps_rng, num_steps)
  )
  kinetic = jnp.mean(squares, dtype=jnp.float32)
  return optax.tree.cast_like(end, start), kinetic, (end, force)
