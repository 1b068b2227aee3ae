"""Markov chains on any unnormalised log density, as scans.

Points are a pytree whose leaves lead with the chain axis, [n, ...]; the chains
are independent. `step_size` is the papers' delta: a step adds delta^2 / 2 times
the score and delta times unit noise. Dtype and shape are kept, but that chains of
integers are of floats; those of half-precision points run in float32, in which a
small step is not lost. What a score or a density returns is checked as it is traced.

A chain with its options is a value, `Langevin`, `MALA` or `Gibbs`, which moves points
under a target: an object with `log_density` and `score`, as `target(log_density)` and
`energies.target(energy)` return. Any function of a key, points and a target that
returns the points moved and a dict of scalars is such a chain too.

  chain = samplers.MALA(step_size=0.3, num_steps=100)
  x, metrics = chain(rng, x, samplers.target(log_density))
"""

from collections.abc import Callable, Sequence
import functools
import math

from flax import struct
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax

from stein_jax import checks
from stein_jax import dtypes
from stein_jax.types import (
  Array,
  LogDensityFn,
  Metrics,
  PRNGKey,
  ScoreFn,
  Target,
  Tree,
)

# A key, points and a target to points like them and a dict of scalars [].
Chain = Callable[[PRNGKey, Tree, Target], tuple[Tree, Metrics]]

# What is allowed in place of what cannot be a chain, or a target.
WANTED = 'a chain, such as samplers.Langevin(0.1)'
_TARGETS = (
  'a target, such as samplers.target(jax.vmap(log_density)) or '
  'energies.target(energy)'
)


@struct.dataclass
class Langevin:
  """A chain of unadjusted Langevin steps, without metrics; see `langevin`.

  Attributes:
    step_size: delta.
    num_steps: length of the chain; 0 returns the points as they are.
    noise: False descends the energy.
    noise_ratio: standard deviation of a step's noise, in units of `step_size`.
    temperature: of the noise alone; 0 is `noise=False`.
    clip: (low, high) that every step is cut to; empty for no cut.

  Examples:
    >>> chain = Langevin(step_size=1.0, num_steps=1, noise=False)
    >>> normal = target(lambda x: -0.5 * jnp.sum(x**2, -1))
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
    """Returns x after the steps, like x, and {}.

    Raises:
      ValueError: an option out of range, or a score that is not like x.
    """
    checks.has(('score',), _TARGETS, target=target)
    checks.positive(step_size=self.step_size)
    checks.non_negative(noise_ratio=self.noise_ratio)
    moved = langevin(
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
    return moved, {}


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
    """Returns x after the steps, like x, and the 'acceptance' rate [].

    Raises:
      ValueError: an option out of range, or a log density that is not [n].
    """
    checks.has(('log_density',), _TARGETS, target=target)
    moved, acceptance = mala(
      rng,
      x,
      target.log_density,
      step_size=self.step_size,
      num_steps=self.num_steps,
    )
    return moved, {'acceptance': acceptance}


@struct.dataclass
class Gibbs:
  """A chain of Gibbs sweeps, without metrics, of targets that have them.

  Such a target has the method `gibbs(rng, x, num_steps)`, which returns x moved.

  Attributes:
    num_steps: sweeps over the variables, at least 1.
  """

  num_steps: int = struct.field(pytree_node=False, default=1)

  def __call__(
    self, rng: PRNGKey, x: Tree, target: Target
  ) -> tuple[Tree, Metrics]:
    """Returns x after the sweeps, like x, and {}.

    Raises:
      ValueError: an option out of range, or a target without the method.
    """
    checks.instance(target=target)
    checks.key(rng=rng)
    checks.count(num_steps=self.num_steps)
    # A score is not enough: the energy itself must know its conditional laws.
    if not hasattr(target, 'gibbs'):
      raise ValueError(
        'Gibbs needs conditional laws that can be sampled, and this target has no '
        'method gibbs(rng, x, num_steps); allowed: Langevin, MALA.'
      )
    return target.gibbs(rng, x, self.num_steps), {}


def target(log_density_fn: LogDensityFn) -> Target:
  """Returns the target of a log density, whose score is its gradient.

  Args:
    log_density_fn: x, leaves [n, ...], to unnormalised log p [n].

  Raises:
    TypeError: it is no function.
  """
  checks.function('a function of points', log_density_fn=log_density_fn)
  return _DensityTarget(log_density_fn)


@struct.dataclass
class _DensityTarget:
  """See `target`."""

  log_density_fn: LogDensityFn = struct.field(pytree_node=False)

  def log_density(self, x: Tree) -> Array:
    return _per_chain(self.log_density_fn, _chains(x)[1])(x)

  def score(self, x: Tree) -> Tree:
    # The density is differentiated in float32 and the score has the dtype of x.
    start, num_chains = _chains(x)
    density_fn = _per_chain(self.log_density_fn, num_chains)
    return optax.tree.cast_like(
      _evaluate(density_fn, _accumulated(start))[2], start
    )


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
  start, _ = _chains(x)

  def step(x, rng):
    score = jax.tree.map(dtypes.floating, score_fn(x))
    checks.like(x, score=score)
    x = _drift(x, score, step_size)
    if noise:
      x = _add(x, spread, optax.tree.random_like(rng, x))
    # Every step is cut, not the end alone: far outside a chain would not come back.
    if clip is not None:
      x = jax.tree.map(lambda leaf: jnp.clip(leaf, *clip), x)
    return x, None

  keys = jax.random.split(rng, num_steps)
  end, _ = lax.scan(step, _accumulated(start), keys)
  return optax.tree.cast_like(end, start)


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
  checks.key(rng=rng)
  checks.function('a function of points', log_density_fn=log_density_fn)
  checks.positive(step_size=step_size)
  checks.count(num_steps=num_steps)
  start, num_chains = _chains(x)
  density_fn = _per_chain(log_density_fn, num_chains)

  def step(here, rng):
    return _mala_step(rng, here, density_fn, step_size)

  # The density and the score of a point are kept, so that a step evaluates
  # once.
  here = _evaluate(density_fn, _accumulated(start))
  keys = jax.random.split(rng, num_steps)
  (end, log_density, _), accepts = lax.scan(step, here, keys)
  lost = functools.partial(_select, jnp.isnan(log_density), jnp.nan)
  end = jax.tree.map(lost, end)
  return optax.tree.cast_like(end, start), jnp.mean(accepts, dtype=jnp.float32)


def annealed_importance(
  rng: PRNGKey,
  log_density_fn: LogDensityFn,
  shape: tuple[int, ...],
  *,
  num_chains: int,
  num_temperatures: int,
  step_size: float,
  init: Array | None = None,
) -> Array:
  """Returns log weights [num_chains], each an estimate of log Z = log int p.

  Chains go from N(0, I) to p along p0^(1 - b) p^b, one MALA step at each of
  `num_temperatures` values of b on a sigmoid schedule. Their mean, and their
  `log_mean_exp`, are below log Z in expectation; backwards from exact samples
  the mean, and -log_mean_exp(-weights), are above it [N01] [GGA15].

  Args:
    rng: key of the chains.
    log_density_fn: x [n, *shape] to unnormalised log p [n].
    shape: of one example.
    num_chains: independent chains.
    num_temperatures: intermediate densities.
    step_size: delta of the MALA steps.
    init: exact samples of p [num_chains, *shape], which run the chains backwards.

  Raises:
    ValueError: an option out of range, samples of another shape, or a log density
      that is not [n].
  """
  checks.key(rng=rng)
  checks.function('a function of points', log_density_fn=log_density_fn)
  checks.count(num_chains=num_chains, num_temperatures=num_temperatures)
  checks.counts(empty=True, shape=shape)
  checks.positive(step_size=step_size)
  log_density_fn = _per_chain(log_density_fn, num_chains)
  size = math.prod(shape)
  start_rng, chain_rng = jax.random.split(rng)
  # The temperatures lie close at both ends, where the densities change the
  # most.
  ramp = jax.nn.sigmoid(jnp.linspace(-4.0, 4.0, num_temperatures + 1))
  inverse_temperatures = (ramp - ramp[0]) / (ramp[-1] - ramp[0])
  if init is None:
    x = jax.random.normal(start_rng, (num_chains, *shape))
  else:
    if np.shape(init) != (num_chains, *shape):
      raise ValueError(
        f'init has shape {np.shape(init)}, not (num_chains, *shape) = '
        f'{(num_chains, *shape)}.'
      )
    x = dtypes.at_least_float32(init)
    inverse_temperatures = inverse_temperatures[::-1]

  def base(x):
    flat = x.reshape(len(x), -1)
    # The base is normalised, so that log Z of p is what the weights estimate.
    return -0.5 * (jnp.sum(flat**2, -1) + size * jnp.log(2 * jnp.pi))

  def step(carry, inputs):
    x, log_weight = carry
    rng, now, then = inputs
    # The weight grows before the move [N01], by the ratio of two bridges at x.
    change = (then - now) * (log_density_fn(x) - base(x))
    log_weight += change.astype(log_weight.dtype)
    bridge = lambda x: (1 - then) * base(x) + then * log_density_fn(x)
    (x, *_), _ = _mala_step(rng, _evaluate(bridge, x), bridge, step_size)
    return (x, log_weight), None

  keys = jax.random.split(chain_rng, num_temperatures)
  inverse_temperatures = inverse_temperatures.astype(x.dtype)
  inputs = (keys, inverse_temperatures[:-1], inverse_temperatures[1:])
  start = x, jnp.zeros(num_chains, x.dtype)
  (_, log_weights), _ = lax.scan(step, start, inputs)
  # Backwards, the weights estimate -log Z: the base is normalised.
  return log_weights if init is None else -log_weights


def log_mean_exp(log_weights: Array) -> Array:
  """Returns log mean exp of the weights [n], []."""
  log_weights = dtypes.at_least_float32(log_weights)
  if not log_weights.size:
    raise ValueError('There is no mean of no weights.')
  return jax.nn.logsumexp(log_weights) - jnp.log(float(log_weights.size))


def _chains(x):
  """Returns floating points with leaves [n, ...], and n; refuses what has no n."""
  x = jax.tree.map(dtypes.floating, x)
  shapes = [leaf.shape for leaf in jax.tree.leaves(x)]
  if not shapes or not all(shapes) or len({shape[0] for shape in shapes}) > 1:
    raise ValueError(
      f'x has shapes {shapes}; wanted: [n, ...] each, of one n, the chains.'
    )
  if not shapes[0][0]:
    raise ValueError(f'x has shapes {shapes}: there is no chain.')
  return x, shapes[0][0]


def _per_chain(log_density_fn, num_chains):
  """Returns the log density as a function that refuses values other than [n]."""

  def checked(x):
    log_density = dtypes.at_least_float32(log_density_fn(x))
    checks.per_example(num_chains, log_density=log_density)
    return log_density

  return checked


def _accumulated(x):
  """Returns x with half-precision leaves in float32: small steps add up."""
  return jax.tree.map(dtypes.at_least_float32, x)


def _evaluate(log_density_fn, x):
  """Returns (x, log density [n], score like x)."""
  log_density, pullback = jax.vjp(log_density_fn, x)
  (score,) = pullback(jnp.ones_like(log_density))
  return x, log_density, score


def _mala_step(rng, here, log_density_fn, step_size):
  """Returns the evaluated points after one step, and who moved [n]."""
  noise_rng, accept_rng = jax.random.split(rng)
  x, log_density, score = here
  noise = optax.tree.random_like(noise_rng, x)
  proposal = _add(_drift(x, score, step_size), step_size, noise)
  there = _evaluate(log_density_fn, proposal)
  # The noise that the way back would need, in the same units.
  back = jax.tree.map(
    lambda x, mean: (x - mean) / step_size,
    x,
    _drift(proposal, there[2], step_size),
  )
  log_ratio = (
    there[1]
    - log_density
    + 0.5 * _per_chain_sum_of_squares(noise)
    - 0.5 * _per_chain_sum_of_squares(back)
  )
  uniform = jax.random.uniform(accept_rng, log_ratio.shape)
  accept = jnp.log(uniform) < log_ratio  # False where the ratio is nan
  return jax.tree.map(functools.partial(_select, accept), there, here), accept


def _select(accept, new, old):
  return jnp.where(accept.reshape(-1, *[1] * (old.ndim - 1)), new, old)


def _drift(x, score, step_size):
  step_size = 1.0 * step_size  # an integer of 8 bits has no square
  return _add(x, step_size**2 / 2, score)


def _add(x, scale, direction):
  """Returns x + scale * direction, in the dtypes of x."""
  return jax.tree.map(
    lambda x, d: x + (scale * d).astype(x.dtype), x, direction
  )


def _per_chain_sum_of_squares(tree):
  return sum(
    jnp.sum(leaf.reshape(len(leaf), -1) ** 2, -1)
    for leaf in jax.tree.leaves(tree)
  )
