"""Chains of flatter laws, which swap points with those of the law itself.

S22: Syed, Bouchard-Cote, Deligiannidis, Doucet. Non-Reversible Parallel Tempering: A
Scalable Highly Parallel MCMC Scheme. JRSS B 84, 2022. arXiv 1905.02939.
"""

from collections.abc import Sequence

from flax import struct
import jax
from jax import lax
import jax.numpy as jnp
import optax

from stein_jax import checks
from stein_jax import collectives
from stein_jax.samplers import _steps
from stein_jax.samplers import targets
from stein_jax.types import Array, LogDensityFn, Metrics, PRNGKey, Target, Tree


@struct.dataclass
class Tempered:
  """Parallel tempering: chains of flatter laws, which swap points with them [S22].

  Replica i moves under p^b_i, b_i an inverse temperature, and swaps its points with
  its neighbour's so that the product of all these laws stays as it is: even pairs in
  one round, odd ones in the next. The first replica, under p itself, is the result.
  All start at x, so that the flat ones need rounds to spread: until they have, even
  points of p are moved a little off it. The flattest law must be one that can be
  normalised, or its replica goes to infinity: a `base` p_0 makes sure of that, with the
  laws p^b_i p_0^(1 - b_i).

  Where chains are split over devices, each has all replicas of its own.

  Attributes:
    chain: what moves a replica in a round; it must leave its law invariant, as MALA
      does. A step_size that it has is delta / sqrt(b_i), or delta with a base.
    inverse_temperatures: b_i, falling from 1 to above 0, or to 0 with a base. Swaps are
      best accepted half of the time; a constant ratio of neighbours accepts evenly on a
      Gaussian.
    num_rounds: moves of all replicas, each followed by swaps, at least 2.
    base: log p_0, a function of x, leaves [n, ...], to [n]; None for no base.

  Examples:
    >>> from stein_jax import samplers
    >>> two_modes = lambda x: jnp.logaddexp(-2 * (x - 4) ** 2, -2 * (x + 4) ** 2)
    >>> two = samplers.target(two_modes)
    >>> chain = Tempered(samplers.MALA(0.6), (1, 0.4, 0.15, 0.05), num_rounds=300)
    >>> start = jnp.full(500, -4.0)
    >>> x, metrics = jax.jit(lambda rng: chain(rng, start, two))(jax.random.key(0))
    >>> bool(abs(jnp.mean(x > 0) - 0.5) < 0.1)
    True
    >>> sorted(name for name in metrics if name.startswith('swap'))
    ['swap_0', 'swap_1', 'swap_2']
    >>> bool(metrics['round_trips'] > 0.05)
    True
  """

  chain: targets.Chain
  inverse_temperatures: Sequence[float] = struct.field(
    pytree_node=False, default=(1.0, 0.5, 0.25, 0.125)
  )
  num_rounds: int = struct.field(pytree_node=False, default=10)
  base: LogDensityFn | None = struct.field(pytree_node=False, default=None)

  def __call__(
    self, rng: PRNGKey, x: Tree, target: Target
  ) -> tuple[Tree, Metrics]:
    """Returns x after the rounds, like x, and metrics [].

    'swap_i' is the mean probability that replicas i and i + 1 swap when it is their
    turn. 'barrier' is the sum of what these lack to 1, which hardly depends on the
    number of replicas; twice that and one is a good number [S22]. 'round_trips' is how
    often, in a round, points reach the first replica that have been in the last one
    since they left the first. The rest are the metrics of the first replica's chain,
    means over rounds.

    Raises:
      ValueError: an option out of range, or a log density that is not [n].
    """
    ladder = self._checked(rng, target)
    start, num_chains = _steps.chains(x)
    base = None
    if self.base is not None:
      base = targets.target(self.base)
    density_fn = _steps.per_chain(target.log_density, num_chains)

    def swapped_density(x):
      # What a law has b times of.
      log_density = density_fn(x)
      return log_density if base is None else log_density - base.log_density(x)

    num, shape = len(ladder), (len(ladder) - 1, num_chains)
    inverses = jnp.array(ladder, jnp.float32)

    def move(rng, x, inverse):
      chain = self.chain
      if hasattr(chain, 'step_size') and base is None:
        # A law of b times the energy is wider by 1 / sqrt(b) about a minimum.
        chain = chain.replace(step_size=chain.step_size / jnp.sqrt(inverse))
      moved, metrics = chain(rng, x, _Warmed(target, inverse, base))
      checks.like(x, moved=moved)
      return optax.tree.cast_like(moved, x), metrics

    def one_round(carry, inputs):
      replicas, came = carry
      rng, odd = inputs
      move_rng, swap_rng = jax.random.split(rng)
      keys = jax.random.split(move_rng, num)
      replicas, metrics = jax.vmap(move)(keys, replicas, inverses)
      (replicas, came), swaps = _swap(
        jax.random.uniform(swap_rng, shape),
        (replicas, came),
        jax.vmap(swapped_density)(replicas),
        inverses,
        odd,
      )
      of_first = {name: value[0] for name, value in metrics.items()}
      of_first['round_trips'] = jnp.mean(came[0], dtype=jnp.float32)
      came = came.at[0].set(False).at[-1].set(True)
      swaps = jnp.mean(swaps, 1, dtype=jnp.float32)
      return (replicas, came), (of_first, swaps)

    replicas = jax.tree.map(
      lambda leaf: jnp.broadcast_to(leaf, (num, *leaf.shape)),
      _steps.accumulated(start),
    )
    # This says whose points have been in the last replica since they left the first.
    came, *_ = collectives.match_varying(
      jnp.zeros((num, num_chains), bool), *jax.tree.leaves(replicas)
    )
    keys = jax.random.split(rng, self.num_rounds)
    odd = jnp.arange(self.num_rounds) % 2
    (end, _), (metrics, swaps) = lax.scan(
      one_round, (replicas, came), (keys, odd)
    )
    metrics = {name: jnp.mean(value, 0) for name, value in metrics.items()}
    rates = [jnp.mean(swaps[i % 2 :: 2, i]) for i in range(num - 1)]
    metrics |= {f'swap_{i}': rate for i, rate in enumerate(rates)}
    metrics['barrier'] = sum(1 - rate for rate in rates)
    first = jax.tree.map(lambda leaf: leaf[0], end)
    return optax.tree.cast_like(first, start), metrics

  def _checked(self, rng, target):
    """Returns the inverse temperatures, once all options and arguments are right."""
    checks.has(('log_density', 'score'), targets.TARGETS, target=target)
    checks.function(targets.WANTED, chain=self.chain)
    checks.moves(chain=self.chain)
    if hasattr(self.chain, 'step_size'):
      checks.positive(**{'chain.step_size': self.chain.step_size})
    checks.key(rng=rng)
    checks.count(minimum=2, num_rounds=self.num_rounds)
    ladder = tuple(self.inverse_temperatures)
    falls = all(a > b for a, b in zip(ladder, ladder[1:], strict=False))
    lowest = min(ladder, default=1)
    ends = lowest > 0 or (lowest == 0 and self.base is not None)
    if len(ladder) < 2 or ladder[0] != 1 or not (falls and ends):
      raise ValueError(
        f'inverse_temperatures={ladder} must be two or more that fall from 1 to '
        'above 0, or to 0 with a base.'
      )
    if self.base is not None:
      checks.function('a function of points', base=self.base)
    return ladder


@struct.dataclass
class _Warmed:
  """The law p^b of a target's p, for b an inverse temperature []; see `Tempered`."""

  target: Target
  inverse_temperature: Array
  base: Target | None = None

  @property
  def axis_name(self):
    return getattr(self.target, 'axis_name', None)

  def log_density(self, x: Tree) -> Array:
    scaled = self.inverse_temperature * self.target.log_density(x)
    if self.base is None:
      return scaled
    return scaled + (1 - self.inverse_temperature) * self.base.log_density(x)

  def score(self, x: Tree) -> Tree:
    times = lambda b, tree: jax.tree.map(
      lambda leaf: (b * leaf).astype(leaf.dtype), tree
    )
    scaled = times(self.inverse_temperature, self.target.score(x))
    if self.base is None:
      return scaled
    of_base = times(1 - self.inverse_temperature, self.base.score(x))
    return jax.tree.map(jnp.add, scaled, of_base)


def _swap(
  uniform: Array,
  replicas: Tree,
  log_densities: Array,
  inverse_temperatures: Array,
  odd: Array,
) -> tuple[Tree, Array]:
  """Returns replicas [r, n, ...] swapped with neighbours, and probabilities [r - 1, n].

  The pairs are (0, 1), (2, 3) and so on, or (1, 2), (3, 4) and so on where `odd`;
  each chain swaps by itself. Probabilities are of all pairs, whether due or not.

  Args:
    uniform: draws from [0, 1) that decide [r - 1, n].
    replicas: leaves [r, n, ...].
    log_densities: log p of each, at temperature 1 [r, n].
    inverse_temperatures: of the replicas [r].
    odd: 0 or 1.
  """
  num = len(log_densities)
  gaps = inverse_temperatures[:-1] - inverse_temperatures[1:]
  log_ratio = gaps[:, None] * (log_densities[1:] - log_densities[:-1])
  # A ratio of no number is that of points without a density: they stay.
  probability = jnp.exp(jnp.minimum(log_ratio, 0))
  probability = jnp.where(jnp.isnan(log_ratio), 0, probability)
  due = jnp.arange(num - 1) % 2 == odd
  accept = (due[:, None] & (uniform < probability)).astype(int)
  # Of two pairs that share a replica one is due: it goes up, down or nowhere.
  up = jnp.pad(accept, ((0, 1), (0, 0)))
  down = jnp.pad(accept, ((1, 0), (0, 0)))
  source = jnp.arange(num)[:, None] + up - down
  chain = jnp.arange(source.shape[1])
  return jax.tree.map(lambda leaf: leaf[source, chain], replicas), probability
