"""Losses of an energy: contrasts of data with samples."""

from collections.abc import Callable
import functools

from jax import lax
import jax.numpy as jnp

from stein_jax import checks
from stein_jax import learners
from stein_jax.energies import networks
from stein_jax.energies import values
from stein_jax.learners import Learner
from stein_jax.types import Array, Metrics, Params, PRNGKey


def contrast(
  energy: Learner,
  data: Array,
  samples: Array,
  *condition: Array,
  negative_weight: Array | float = 1.0,
  energy_l2: float = 0.0,
  joint: bool = True,
  axis_name: str | None = None,
  rng: PRNGKey | None = None,
) -> Callable[[Params], tuple[Array, Metrics]]:
  """Returns the loss mean E(data) - weight mean E(samples) of the parameters.

  Its gradient is minus that of the log likelihood where the samples, which are
  constants, come from p [LW17 eq 7]; with a weight 1 - gamma, minus that of the log
  likelihood plus gamma log Z [LW17 sec 5.2]. With `energy_l2` that times mean
  E(data)^2 + mean E(samples)^2 is added, which holds energies near 0 [DM19]. Further
  arguments are those of `pair`.
  """
  checks.non_negative(energy_l2=energy_l2)
  samples = lax.stop_gradient(samples)

  def loss_fn(params):
    both = values.pair(
      energy,
      params,
      data,
      samples,
      *condition,
      joint=joint,
      axis_name=axis_name,
      rng=rng,
    )
    positive, negative = map(jnp.mean, both)
    loss = positive - negative_weight * negative
    if not checks.is_zero(energy_l2):
      loss += energy_l2 * sum(jnp.mean(value**2) for value in both)
    return loss, {
      'energy/data': positive,
      'energy/samples': negative,
      'energy/gap': positive - negative,
    }

  return loss_fn


def free_energy(
  energy: Learner,
  params: Params,
  x: Array,
  *,
  entropy: float = 1.0,
  axis_name: str | None = None,
  rng: PRNGKey | None = None,
) -> tuple[Array, Array, Array]:
  """Returns mean E(x) - entropy * H(x), mean E(x) and H(x), [] each [Z16 eq 5].

  H is `expert_entropy`; where its weight is 0 it is returned as 0, and the energy
  need not have experts.

  Args:
    energy: the learner.
    params: at which it is taken.
    x: [n, ...].
    entropy: weight of H.
    axis_name: the mapped axis over which x is split.
    rng: key of the energy's dropout.
  """
  context = dict(axis_name=axis_name, rng=rng)
  if checks.is_zero(entropy):
    mean = jnp.mean(values.value(energy, params, x, **context))
    return mean, mean, jnp.zeros(())
  logits = learners.call(energy, params, x, method='expert_logits', **context)
  checks.rows(len(x), **{"The energy's expert_logits": logits})
  mean = jnp.mean(networks.expert_energy(logits))
  total = networks.expert_entropy(logits, axis_name=axis_name)
  return mean - entropy * total, mean, total


def variational_contrast(
  energy: Learner,
  data: Array,
  samples: Array,
  *,
  entropy: float = 1.0,
  axis_name: str | None = None,
  rng: PRNGKey | None = None,
) -> Callable[[Params], tuple[Array, Metrics]]:
  """Returns the loss mean E(data) - entropy * H(data) - mean E(samples) [Z16 eq 5].

  A function of the parameters; the samples are constants. See `free_energy`.
  """
  samples = lax.stop_gradient(samples)
  value_of = functools.partial(
    free_energy, energy, axis_name=axis_name, rng=rng
  )

  def loss_fn(params):
    value, positive, total = value_of(params, data, entropy=entropy)
    negative = value_of(params, samples, entropy=0.0)[1]
    return value - negative, {
      'energy/data': positive,
      'energy/samples': negative,
      'energy/entropy': total,
    }

  return loss_fn
