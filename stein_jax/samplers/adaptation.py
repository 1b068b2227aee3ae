"""Step sizes found in a warm-up, by dual averaging of acceptance rates.

HG14: Hoffman, Gelman. The No-U-Turn Sampler: Adaptively Setting Path Lengths in
Hamiltonian Monte Carlo. JMLR 15, 2014. arXiv 1111.4246.
"""

from flax import struct
import jax
from jax import lax
import jax.numpy as jnp
import optax

from stein_jax import checks
from stein_jax import collectives
from stein_jax.samplers import _steps
from stein_jax.samplers import targets
from stein_jax.types import Array, Metrics, PRNGKey, Target, Tree

# Of HG14: how strongly steps shrink towards ten times the first one, how many
# iterations count for little, and how fast the average forgets.
_SHRINKAGE = 0.05
_OFFSET = 10
_FORGETTING = 0.75
_WANTED = 'a chain whose step_size can be replaced, such as samplers.MALA(0.3)'


@struct.dataclass
class Adapted:
  """A chain whose step size is found in a warm-up, anew at every call; see `adapt`.

  The steps after the warm-up have one size, and start where the warm-up has ended.

  Attributes:
    chain: it has a `step_size`, where the search begins, and an 'acceptance' among its
      metrics, as MALA does.
    num_warmup: steps of the warm-up, at least 1. On a Gaussian 64 chains end 7 % below
      the best size after 100, and within 1 % of it after 500.
    acceptance: rate that is aimed at: 0.574 is best for MALA and 0.651 for HMC, in
      many dimensions.

  Examples:
    >>> from stein_jax import samplers
    >>> normal = samplers.target(lambda x: -0.5 * jnp.sum(x**2, -1))
    >>> chain = Adapted(samplers.MALA(0.01, num_steps=100))
    >>> start = jnp.zeros((64, 100))
    >>> x, found = jax.jit(lambda rng: chain(rng, start, normal))(jax.random.key(0))
    >>> bool(abs(found['step_size'] - 0.766) < 0.05)  # 1.651 * 100 ** (-1 / 6)
    True
  """

  chain: targets.Chain
  num_warmup: int = struct.field(pytree_node=False, default=500)
  acceptance: float = _steps.BEST_RATE

  def __call__(
    self, rng: PRNGKey, x: Tree, target: Target
  ) -> tuple[Tree, Metrics]:
    """Returns x after warm-up and chain, like x, and the chain's metrics [].

    With them comes the 'step_size' [] that was found.

    Raises:
      ValueError, TypeError: those of `adapt` and of the chain.
    """
    checks.key(rng=rng)
    warmup_rng, rng = jax.random.split(rng)
    chain, x = adapt(
      warmup_rng,
      x,
      target,
      self.chain,
      num_warmup=self.num_warmup,
      acceptance=self.acceptance,
    )
    moved, metrics = chain(rng, x, target)
    return moved, {**metrics, 'step_size': chain.step_size}


def adapt(
  rng: PRNGKey,
  x: Tree,
  target: Target,
  chain: targets.Chain,
  *,
  num_warmup: int = 500,
  acceptance: float = _steps.BEST_RATE,
) -> tuple[targets.Chain, Tree]:
  """Returns (the chain with the step size found [], x after the warm-up) [HG14 alg 5].

  The logarithm of the step follows the mean difference of rates, and what is returned
  is its weighted average, in which late iterations count most. Points of a warm-up have
  no exact law; the chain that is returned leaves its target's law alone if it does so
  at every step size. Where the target has an `axis_name`, rates are means over it.

  Args:
    rng: key of the warm-up.
    x: where the chains start, leaves [n, ...].
    target: what the chain moves under.
    chain: it has a `step_size`, where the search begins, and an 'acceptance' among its
      metrics.
    num_warmup: calls of the chain, each of one step where it has `num_steps`; at least
      1.
    acceptance: rate that is aimed at, between 0 and 1.

  Raises:
    ValueError: an option out of range, or a chain without an acceptance rate.
    TypeError: the chain has no step size to replace.

  Examples:
    >>> from stein_jax import samplers
    >>> normal = samplers.target(lambda x: -0.5 * jnp.sum(x**2, -1))
    >>> start = jnp.zeros((64, 100))
    >>> warm_up = jax.jit(lambda rng: adapt(rng, start, normal, samplers.MALA(0.01)))
    >>> chain, x = warm_up(jax.random.key(0))
    >>> type(chain).__name__, bool(abs(chain.step_size - 0.766) < 0.05)
    ('MALA', True)
  """
  checks.key(rng=rng)
  checks.function(targets.WANTED, chain=chain)
  checks.has(('step_size', 'replace'), _WANTED, chain=chain)
  checks.moves(chain=chain)
  checks.positive(**{'chain.step_size': chain.step_size})
  checks.count(num_warmup=num_warmup)
  checks.positive(acceptance=acceptance)
  checks.below(1, acceptance=acceptance)
  axis_name = getattr(target, 'axis_name', None)
  start, _ = _steps.chains(x)
  one_step = {'num_steps': 1} if hasattr(chain, 'num_steps') else {}
  first = jnp.log(jnp.asarray(chain.step_size, jnp.float32))

  def iterate(carry, inputs):
    x, log_step, average, gap = carry
    rng, i = inputs
    moving = chain.replace(step_size=jnp.exp(log_step), **one_step)
    moved, metrics = moving(rng, x, target)
    checks.like(x, moved=moved)
    rate = collectives.pmean(_acceptance(metrics), axis_name)
    gap += (acceptance - rate - gap) / (i + _OFFSET)
    log_step = first + jnp.log(10.0) - jnp.sqrt(i) / _SHRINKAGE * gap
    # A flat density accepts every step.
    log_step = jnp.clip(
      log_step, first - _steps.FURTHEST, first + _steps.FURTHEST
    )
    average += i**-_FORGETTING * (log_step - average)
    return (optax.tree.cast_like(moved, x), log_step, average, gap), None

  # The first average has the weight 0, and the first difference too.
  carry = _steps.accumulated(start), first, first, jnp.zeros_like(first)
  counts = jnp.arange(1, num_warmup + 1, dtype=first.dtype)
  keys = jax.random.split(rng, num_warmup)
  (end, _, average, _), _ = lax.scan(iterate, carry, (keys, counts))
  return (
    chain.replace(step_size=jnp.exp(average)),
    optax.tree.cast_like(end, start),
  )


def _acceptance(metrics: Metrics) -> Array:
  """Returns the acceptance rate [] among a chain's metrics."""
  if 'acceptance' not in metrics:
    raise ValueError(
      f'The metrics of the chain are {sorted(metrics)}; wanted: an acceptance among '
      'them, as of samplers.MALA.'
    )
  rate = jnp.asarray(metrics['acceptance'], jnp.float32)
  checks.shape((), acceptance=rate)
  return rate
