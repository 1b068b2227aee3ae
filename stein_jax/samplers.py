"""Markov chains on any unnormalised log density, as scans.

Points are a pytree whose leaves lead with the chain axis, [n, ...]; the chains
are independent. `step_size` is the papers' delta: a step adds delta^2 / 2 times
the score and delta times unit noise. Dtype and shape are kept, but that chains of
integers are of floats; those of half-precision points run in float32, in which a
small step is not lost. What a score or a density returns is checked as it is traced.

A chain with its options is a value, as `Langevin` or `MALA` is, which moves points
under a target: an object with `log_density` and `score`, as `target(log_density)` and
`energies.target(energy)` return. Any function of a key, points and a target that
returns the points moved and a dict of scalars is such a chain too.

  chain = samplers.MALA(step_size=0.3, num_steps=100)
  x, metrics = chain(rng, x, samplers.target(log_density))

LM13: Leimkuhler, Matthews. Rational Construction of Stochastic Numerical Methods for
Molecular Sampling. Applied Mathematics Research eXpress, 2013.
S22: Syed, Bouchard-Cote, Deligiannidis, Doucet. Non-Reversible Parallel Tempering: A
Scalable Highly Parallel MCMC Scheme. JRSS B 84, 2022. arXiv 1905.02939.
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

from stein_jax import _steps
from stein_jax import _tempering
from stein_jax import checks
from stein_jax import dtypes
from stein_jax._discrete import DiscreteLangevin as DiscreteLangevin
from stein_jax._discrete import GibbsWithGradients as GibbsWithGradients
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

# On a Gaussian in d dimensions, for large d, MALA moves furthest at a step of 1.651
# d^(-1/6) standard deviations, where it accepts 0.574.
_BEST_RATE = 0.574
_BEST_STEP = 1.651
_FURTHEST = 20.0  # logarithms between an adapted step and its first value
_MAX_WARMUP = 50  # chains that adapt steps: their rate is known to 0.05
_LOG_ROOT_TWO_PI = 0.5 * math.log(2 * math.pi)


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
    >>> normal = target(lambda x: -0.5 * jnp.sum(x**2, -1))
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
    """Returns x after the steps, like x, and the 'kinetic_temperature' [].

    This is the mean square of the momentum after a step, over all coordinates and
    steps. It is `temperature` for small steps: far above it the step is too large.

    Raises:
      ValueError: an option out of range, or a score that is not like x.
    """
    checks.has(('score',), _TARGETS, target=target)
    moved, kinetic = underdamped(
      rng,
      x,
      target.score,
      step_size=self.step_size,
      num_steps=self.num_steps,
      friction=self.friction,
      temperature=self.temperature,
    )
    return moved, {'kinetic_temperature': kinetic}


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
        'method gibbs(rng, x, num_steps); allowed: Langevin, Underdamped, MALA.'
      )
    return target.gibbs(rng, x, self.num_steps), {}


@struct.dataclass
class Tempered:
  """Parallel tempering: chains of flatter laws, which swap points with them [S22].

  Replica i moves under p^b_i, b_i an inverse temperature, and swaps its points with
  its neighbour's so that the product of all these laws stays as it is: even pairs in
  one round, odd ones in the next. The first replica, under p itself, is the result.
  All start at x, so that the flat ones need rounds to spread: until they have, even
  points of p are moved a little off it. The flattest law must be one that can be
  normalised, or its replica goes to infinity.

  Attributes:
    chain: what moves a replica in a round; it must leave its law invariant, as MALA
      does. A step_size that it has is delta / sqrt(b_i).
    inverse_temperatures: b_i, falling from 1 to above 0. Swaps are best accepted half
      of the time; a constant ratio of neighbours accepts evenly on a Gaussian.
    num_rounds: moves of all replicas, each followed by swaps, at least 2.

  Examples:
    >>> two = target(lambda x: jnp.logaddexp(-2 * (x - 4) ** 2, -2 * (x + 4) ** 2))
    >>> chain = Tempered(MALA(0.6), (1, 0.4, 0.15, 0.05), num_rounds=300)
    >>> start = jnp.full(500, -4.0)
    >>> x, metrics = jax.jit(lambda rng: chain(rng, start, two))(jax.random.key(0))
    >>> bool(abs(jnp.mean(x > 0) - 0.5) < 0.1), sorted(metrics)
    (True, ['acceptance', 'swap_0', 'swap_1', 'swap_2'])
  """

  chain: Chain
  inverse_temperatures: Sequence[float] = struct.field(
    pytree_node=False, default=(1.0, 0.5, 0.25, 0.125)
  )
  num_rounds: int = struct.field(pytree_node=False, default=10)

  def __call__(
    self, rng: PRNGKey, x: Tree, target: Target
  ) -> tuple[Tree, Metrics]:
    """Returns x after the rounds, like x, and metrics [].

    'swap_i' is the mean probability that replicas i and i + 1 swap when it is their
    turn; the rest are the metrics of the first replica's chain, means over rounds.

    Raises:
      ValueError: an option out of range, or a log density that is not [n].
    """
    checks.has(('log_density', 'score'), _TARGETS, target=target)
    checks.function(WANTED, chain=self.chain)
    checks.moves(chain=self.chain)
    if hasattr(self.chain, 'step_size'):
      checks.positive(**{'chain.step_size': self.chain.step_size})
    checks.key(rng=rng)
    checks.count(minimum=2, num_rounds=self.num_rounds)
    ladder = tuple(self.inverse_temperatures)
    falls = all(a > b for a, b in zip(ladder, ladder[1:], strict=False))
    if len(ladder) < 2 or ladder[0] != 1 or not (falls and ladder[-1] > 0):
      raise ValueError(
        f'inverse_temperatures={ladder} must be two or more that fall from 1 to '
        'above 0.'
      )
    start, num_chains = _steps.chains(x)
    density_fn = _steps.per_chain(target.log_density, num_chains)
    num, shape = len(ladder), (len(ladder) - 1, num_chains)
    inverses = jnp.array(ladder, jnp.float32)

    def move(rng, x, inverse):
      chain = self.chain
      if hasattr(chain, 'step_size'):
        # A law of b times the energy is wider by 1 / sqrt(b) about a minimum.
        chain = chain.replace(step_size=chain.step_size / jnp.sqrt(inverse))
      moved, metrics = chain(rng, x, _tempering.Warmed(target, inverse))
      checks.like(x, moved=moved)
      return optax.tree.cast_like(moved, x), metrics

    def one_round(replicas, inputs):
      rng, odd = inputs
      move_rng, swap_rng = jax.random.split(rng)
      keys = jax.random.split(move_rng, num)
      replicas, metrics = jax.vmap(move)(keys, replicas, inverses)
      replicas, swaps = _tempering.swap(
        jax.random.uniform(swap_rng, shape),
        replicas,
        jax.vmap(density_fn)(replicas),
        inverses,
        odd,
      )
      of_first = {name: value[0] for name, value in metrics.items()}
      return replicas, (of_first, jnp.mean(swaps, 1, dtype=jnp.float32))

    replicas = jax.tree.map(
      lambda leaf: jnp.broadcast_to(leaf, (num, *leaf.shape)),
      _steps.accumulated(start),
    )
    keys = jax.random.split(rng, self.num_rounds)
    odd = jnp.arange(self.num_rounds) % 2
    end, (metrics, swaps) = lax.scan(one_round, replicas, (keys, odd))
    metrics = {name: jnp.mean(value, 0) for name, value in metrics.items()}
    for i in range(num - 1):
      metrics[f'swap_{i}'] = jnp.mean(swaps[i % 2 :: 2, i])
    first = jax.tree.map(lambda leaf: leaf[0], end)
    return optax.tree.cast_like(first, start), metrics


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
    return _steps.per_chain(self.log_density_fn, _steps.chains(x)[1])(x)

  def score(self, x: Tree) -> Tree:
    # The density is differentiated in float32 and the score has the dtype of x.
    start, num_chains = _steps.chains(x)
    density_fn = _steps.per_chain(self.log_density_fn, num_chains)
    return optax.tree.cast_like(
      _steps.evaluate(density_fn, _steps.accumulated(start))[2], start
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
  start, _ = _steps.chains(x)

  def step(x, rng):
    score = jax.tree.map(dtypes.floating, score_fn(x))
    checks.like(x, score=score)
    x = _steps.drift(x, score, step_size)
    if noise:
      x = _steps.add(x, spread, optax.tree.random_like(rng, x))
    # Every step is cut, not the end alone: far outside a chain would not come back.
    if clip is not None:
      x = jax.tree.map(lambda leaf: jnp.clip(leaf, *clip), x)
    return x, None

  keys = jax.random.split(rng, num_steps)
  end, _ = lax.scan(step, _steps.accumulated(start), keys)
  return optax.tree.cast_like(end, start)


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
    >>> run = functools.partial(underdamped, step_size=1.0, num_steps=50)
    >>> x, kinetic = run(jax.random.key(0), x, score_fn)
    >>> bool(abs(x.std() - 1) < 0.1), bool(abs(kinetic - 0.75) < 0.05)
    (True, True)
  """
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

  def score(x):
    found = jax.tree.map(dtypes.floating, score_fn(x))
    checks.like(x, score=found)
    return found

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
  (end, *_), squares = lax.scan(
    step, here, jax.random.split(steps_rng, num_steps)
  )
  return optax.tree.cast_like(end, start), jnp.mean(squares, dtype=jnp.float32)


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
  start, num_chains = _steps.chains(x)
  density_fn = _steps.per_chain(log_density_fn, num_chains)

  evaluate = functools.partial(_steps.evaluate, density_fn)

  def step(here, rng):
    return _steps.mala_step(rng, here, evaluate, step_size)[:2]

  # The density and the score of a point are kept, so that a step evaluates
  # once.
  here = evaluate(_steps.accumulated(start))
  keys = jax.random.split(rng, num_steps)
  (end, log_density, _), accepts = lax.scan(step, here, keys)
  lost = functools.partial(_steps.select, jnp.isnan(log_density), jnp.nan)
  end = jax.tree.map(lost, end)
  return optax.tree.cast_like(end, start), jnp.mean(accepts, dtype=jnp.float32)


def annealed_importance(
  rng: PRNGKey,
  log_density_fn: LogDensityFn,
  shape: tuple[int, ...],
  *,
  num_chains: int,
  num_temperatures: int,
  step_size: float | None = None,
  init: Array | None = None,
  base_mean: Array | float = 0.0,
  base_scale: Array | float = 1.0,
) -> Array:
  """Returns log weights [num_chains], each an estimate of log Z = log int p.

  Chains go from a Gaussian p0 to p along p0^(1 - b) p^b, one MALA step at each of
  `num_temperatures` values of b on a sigmoid schedule. Their mean, and their
  `log_mean_exp`, are below log Z in expectation; backwards from exact samples
  the mean, and -log_mean_exp(-weights), are above it [N01] [GGA15].

  Args:
    rng: key of the chains.
    log_density_fn: x [n, *shape] to unnormalised log p [n].
    shape: of one example.
    num_chains: independent chains.
    num_temperatures: intermediate densities.
    step_size: delta of the MALA steps. None adapts one for each temperature, in a
      warm-up of at most 50 other chains.
    init: exact samples of p [num_chains, *shape], which run the chains backwards.
    base_mean: mean of p0; it broadcasts to the shape.
    base_scale: standard deviation of p0. Where p is wider than p0 the weights look
      equal, and are wrong.

  Raises:
    ValueError: an option out of range, samples of another shape, or a log density
      that is not [n].

  Examples:
    >>> log_density = lambda x: -jnp.sum(x**2, -1) / 8  # Z = (8 pi)^(3 / 2)
    >>> log_weights = annealed_importance(
    ...   jax.random.key(0), log_density, (3,), num_chains=200, num_temperatures=50)
    >>> bool(abs(log_mean_exp(log_weights) - 1.5 * np.log(8 * np.pi)) < 0.3)
    True
  """
  options = dict(step_size=step_size, init=init)
  options |= dict(base_mean=base_mean, base_scale=base_scale)
  sizes = dict(num_chains=num_chains, num_temperatures=num_temperatures)
  return annealed(rng, log_density_fn, shape, **sizes, **options)[0]


def annealed(
  rng: PRNGKey,
  log_density_fn: LogDensityFn,
  shape: tuple[int, ...],
  *,
  num_chains: int,
  num_temperatures: int,
  step_size: float | None = None,
  init: Array | None = None,
  base_mean: Array | float = 0.0,
  base_scale: Array | float = 1.0,
) -> tuple[Array, Array]:
  """Returns (`annealed_importance`'s weights [num_chains], acceptance rate [])."""
  checks.key(rng=rng)
  checks.function('a function of points', log_density_fn=log_density_fn)
  checks.count(num_chains=num_chains, num_temperatures=num_temperatures)
  checks.counts(empty=True, shape=shape)
  start_rng, chain_rng = jax.random.split(rng)
  # The temperatures lie close at both ends, where the densities change the
  # most.
  ramp = jax.nn.sigmoid(jnp.linspace(-4.0, 4.0, num_temperatures + 1))
  inverse_temperatures = (ramp - ramp[0]) / (ramp[-1] - ramp[0])
  base = _Gaussian.of(shape, base_mean, base_scale)
  if init is None:
    x = base.sample(start_rng, num_chains)
  else:
    if np.shape(init) != (num_chains, *shape):
      raise ValueError(
        f'init has shape {np.shape(init)}, not (num_chains, *shape) = '
        f'{(num_chains, *shape)}.'
      )
    x = dtypes.at_least_float32(init)
  inverse_temperatures = inverse_temperatures.astype(x.dtype)
  if step_size is not None:
    checks.positive(step_size=step_size)
    step_sizes = jnp.full(num_temperatures + 1, step_size, x.dtype)
  else:
    # Chains of their own find the steps, by another key than the two above. Given
    # them the steps are constants, so that the weights' mean is Z for any.
    step_sizes = _adapted_steps(
      jax.random.fold_in(rng, 2),
      base,
      log_density_fn,
      min(num_chains, _MAX_WARMUP),
      inverse_temperatures,
    )
  if init is not None:
    inverse_temperatures, step_sizes = (
      each[::-1] for each in (inverse_temperatures, step_sizes)
    )
  evaluate = _evaluate_both(base, log_density_fn, num_chains)

  def step(carry, inputs):
    here, log_weight = carry
    rng, now, then, step_size = inputs
    # The weight grows before the move [N01], by the ratio of two bridges at x.
    of_base, of_target = here[1]
    change = (then - now) * (of_target - of_base)
    log_weight += change.astype(log_weight.dtype)
    here, accept, _ = _steps.mala_step(
      rng, here, evaluate, step_size, _bridge(then)
    )
    return (here, log_weight), accept

  keys = jax.random.split(chain_rng, num_temperatures)
  inputs = inverse_temperatures[:-1], inverse_temperatures[1:], step_sizes[1:]
  start = evaluate(x), jnp.zeros(num_chains, x.dtype)
  (_, log_weights), accepts = lax.scan(step, start, (keys, *inputs))
  # Backwards, the weights estimate -log Z: the base is normalised.
  log_weights = log_weights if init is None else -log_weights
  return log_weights, jnp.mean(accepts, dtype=jnp.float32)


@struct.dataclass
class _Gaussian:
  """The base of annealing, N(mean, diag scale^2), both like an example."""

  mean: Array
  scale: Array

  @classmethod
  def of(cls, shape, mean, scale):
    for name, value in dict(base_mean=mean, base_scale=scale).items():
      if np.broadcast_shapes(np.shape(value), shape) != tuple(shape):
        raise ValueError(
          f'{name} has shape {np.shape(value)}, which does not broadcast to {shape}.'
        )
    checks.finite(base_mean=jnp.max(jnp.abs(jnp.asarray(mean))))
    checks.positive(base_scale=jnp.min(jnp.asarray(scale)))
    return cls(
      *(jnp.broadcast_to(v, shape).astype(float) for v in (mean, scale))
    )

  def sample(self, rng, num):
    noise = jax.random.normal(rng, (num, *self.mean.shape))
    return self.mean[None] + self.scale[None] * noise

  def log_density(self, x):
    # It is normalised, so that log Z of p is what the weights estimate.
    flat = (x - self.mean[None]) / self.scale[None]
    flat = flat.reshape(len(x), -1)
    volume = jnp.sum(jnp.log(self.scale)) + flat.shape[1] * _LOG_ROOT_TWO_PI
    return -0.5 * jnp.sum(flat**2, -1) - volume


def _evaluate_both(base, log_density_fn, num_chains):
  """Returns a function of x to (x, two log densities [n], two scores like x)."""
  density_fn = _steps.per_chain(log_density_fn, num_chains)

  def evaluate(x):
    pair = _steps.evaluate(base.log_density, x), _steps.evaluate(density_fn, x)
    _, log_densities, scores = zip(*pair, strict=True)
    return x, log_densities, scores

  return evaluate


def _bridge(inverse_temperature):
  """Returns the mix of a pair, of the base and of p, at that temperature."""
  return lambda pair: (
    (1 - inverse_temperature) * pair[0] + inverse_temperature * pair[1]
  )


def _adapted_steps(rng, base, log_density_fn, num_chains, inverse_temperatures):
  """Returns a step size for each temperature [num], found by chains going forwards."""
  evaluate = _evaluate_both(base, log_density_fn, num_chains)
  start_rng, chain_rng = jax.random.split(rng)
  here = evaluate(base.sample(start_rng, num_chains))
  # The best step of a Gaussian, in units of its scale, which the base is.
  scale = jnp.exp(jnp.mean(jnp.log(base.scale)))
  best = scale * _BEST_STEP * base.scale.size ** (-1 / 6)
  first = jnp.log(best).astype(inverse_temperatures.dtype)

  def step(carry, inputs):
    here, log_step = carry
    rng, inverse_temperature = inputs
    here, _, rate = _steps.mala_step(
      rng, here, evaluate, jnp.exp(log_step), _bridge(inverse_temperature)
    )
    # On a Gaussian the rate falls by 1.1 as the logarithm grows by 1, so that the
    # whole difference is about a Newton step. A flat density has no best step.
    log_step += (jnp.mean(rate) - _BEST_RATE).astype(log_step.dtype)
    log_step = jnp.clip(log_step, first - _FURTHEST, first + _FURTHEST)
    return (here, log_step), log_step

  keys = jax.random.split(chain_rng, len(inverse_temperatures) - 1)
  inputs = keys, inverse_temperatures[1:]
  _, log_steps = lax.scan(step, (here, first), inputs)
  return jnp.exp(jnp.concatenate([first[None], log_steps]))


def effective_sample_size(log_weights: Array) -> Array:
  """Returns (sum w)^2 / sum w^2 of the weights [n] given by their logarithms, [].

  It is n where all are equal, and 1 where one is all there is. It cannot count what
  no weight has met: a mode that no chain went to does not lower it.

  Examples:
    >>> print(f"{effective_sample_size(jnp.log(jnp.array([1.0, 1.0, 2.0]))):.4f}")
    2.6667
  """
  log_weights = dtypes.at_least_float32(log_weights)
  # The largest weight becomes 1, since logarithms of large sums have lost digits.
  weights = jnp.exp(log_weights - jnp.max(log_weights, initial=-jnp.inf))
  return jnp.sum(weights) ** 2 / jnp.sum(weights**2)


def log_mean_exp_error(log_weights: Array) -> Array:
  """Returns the standard error of `log_mean_exp` of the weights [n], [].

  It is the relative one of their mean, sqrt((n / ESS - 1) / (n - 1)), so that it is
  right where it is small. One weight has none: nan.

  Examples:
    >>> print(f"{log_mean_exp_error(jnp.log(jnp.array([1.0, 1.0, 2.0]))):.4f}")
    0.2500
  """
  num = np.size(log_weights)
  spread = num / effective_sample_size(log_weights) - 1
  # Rounding may leave equal weights a spread below 0.
  return jnp.sqrt(jnp.maximum(spread, 0) / (num - 1 or jnp.nan))


def log_mean_exp(log_weights: Array) -> Array:
  """Returns log mean exp of the weights [n], []."""
  log_weights = dtypes.at_least_float32(log_weights)
  if not log_weights.size:
    raise ValueError('There is no mean of no weights.')
  return jax.nn.logsumexp(log_weights) - jnp.log(float(log_weights.size))
