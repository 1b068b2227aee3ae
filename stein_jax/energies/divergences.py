"""The divergence of chains from their energy, through what their last step does."""

from collections.abc import Callable

import jax
from jax import lax
import jax.numpy as jnp

from stein_jax import checks
from stein_jax import collectives
from stein_jax import dtypes
from stein_jax import kernels
from stein_jax import layers
from stein_jax import samplers
from stein_jax import stein
from stein_jax.energies import chains
from stein_jax.energies import values
from stein_jax.learners import Learner
from stein_jax.types import Array, Metrics, Params, PRNGKey


def run_with_divergence(
  energy: Learner,
  chain: samplers.Chain,
  rng: PRNGKey,
  x: Array,
  *condition: Array,
  minus_kl: float = 0.0,
  plus_kl: float = 0.0,
  ksd: stein.KSD = stein.KSD(max_points=0),
  axis_name: str | None = None,
  dropout_rng: PRNGKey | None = None,
) -> tuple[
  Array, Metrics, tuple[Callable[[Params], tuple[Array, Metrics]], ...]
]:
  """Returns what `run_chain` does, and terms for the energy's loss [DLTM21].

  There is one, (plus_kl - minus_kl) KL(q || p), up to a constant, with q the law of the
  ends: a function of the parameters under which the last step goes. All steps before
  it, and p, are constants. KL is mean E - H(q), with H by distances of nearest
  neighbours. Without a weight there is none.

  Contrastive divergence is KL(data || p) - KL(q || p), and the contrast leaves out that
  the parameters move q. So the term belongs to its gradient with a minus: `minus_kl=1`
  halves the bias of one step on a Gaussian. The authors' code has a plus, by which
  chains are trained to end low and apart. At `plus_kl=1` and one step it cancels the
  contrast to leading order: the precision of a Gaussian comes out 24 % too large,
  however small the step.

  Args:
    energy: the learner.
    chain: the chain; with a weight it is one of Langevin steps, which have a gradient.
    rng: key of the chain.
    x: where it starts [n, ...].
    *condition: what else the energy takes, [n, ...] each.
    minus_kl: weight with which KL is taken off the loss.
    plus_kl: weight with which it is added to it.
    ksd: see `run_chain`.
    axis_name: the mapped axis over which x is split.
    dropout_rng: key of the energy's dropout.

  Raises:
    ValueError: a weight is below 0, or there is one and the chain has no gradient.
  """
  checks.non_negative(minus_kl=minus_kl, plus_kl=plus_kl)
  context = dict(axis_name=axis_name, dropout_rng=dropout_rng)
  if checks.is_zero(minus_kl) and checks.is_zero(plus_kl):
    moved, metrics = chains.run_chain(
      energy, chain, rng, x, *condition, ksd=ksd, **context
    )
    return moved, metrics, ()
  if not isinstance(chain, samplers.Langevin):
    raise ValueError(
      f'minus_kl={minus_kl} and plus_kl={plus_kl} ask for the gradient of the last '
      'step, which Langevin alone has; allowed: 0 for both.'
    )
  checks.moves(chain=chain)

  # All but the last step are one chain, and the last is another. Between them half
  # precision would lose what small steps add.
  early_rng, rng = jax.random.split(rng)
  start = dtypes.at_least_float32(x)
  early, last = (chain.replace(num_steps=k) for k in (chain.num_steps - 1, 1))
  before, _ = chains.run_chain(
    energy, early, early_rng, start, *condition, **context
  )
  moved, metrics = chains.run_chain(
    energy, last, rng, before, *condition, ksd=ksd, **context
  )
  metrics |= collectives.pmean(chains.move(start, moved), axis_name)
  moved = moved.astype(dtypes.floating(x).dtype)
  own = lax.stop_gradient(energy.params)

  def term(params):
    law = chains.target(energy.replace(params=params), *condition, **context)
    ends, _ = last(rng, before, law)
    low = values.value(
      energy, own, ends, *condition, axis_name=axis_name, rng=dropout_rng
    )
    divergence = jnp.mean(low) - _entropy(ends, axis_name)
    return (plus_kl - minus_kl) * divergence, {}

  return moved, metrics, (term,)


def _entropy(x, axis_name):
  """Returns the entropy [] of the law of x [n, ...] and a constant, by neighbours.

  It is d times the mean logarithm of the distance to the nearest point on all devices.
  A point at 0 is taken to be at 1.
  """
  x = layers.flat(dtypes.at_least_float32(x))
  others = collectives.all_gather(x, axis_name)
  sq_dist = kernels.squared_distance(*map(lax.stop_gradient, (x, others)))
  row = jnp.arange(len(x))
  own = collectives.index(axis_name) * len(x) + row
  nearest = jnp.argmin(sq_dist.at[row, own].set(jnp.inf), 1)
  # A distance from the expansion of the square has no exact gradient.
  square = jnp.sum((x - others[nearest]) ** 2, 1)
  # The logarithm of 0 would make a gradient of nan of two chains that are one.
  return 0.5 * x.shape[1] * jnp.mean(jnp.log(jnp.where(square == 0, 1, square)))
