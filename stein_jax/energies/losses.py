"""Losses of an energy: contrasts of data with samples."""

from collections.abc import Callable, Sequence
import functools

from jax import lax
import jax.numpy as jnp
import optax

from stein_jax import checks
from stein_jax import layers
from stein_jax import learners
from stein_jax.energies import networks
from stein_jax.energies import values
from stein_jax.learners import Learner
from stein_jax.types import Array, Metrics, Params, PRNGKey


def contrast(
  energy: Learner,
  data: Array | values.KnownMean,
  samples: Array | values.KnownMean,
  *condition: Array,
  negative_weight: Array | float = 1.0,
  energy_l2: float = 0.0,
  joint: bool = True,
  axis_name: str | None = None,
  rng: PRNGKey | None = None,
) -> Callable[[Params], tuple[Array, Metrics]]:
  """Returns the loss mean E(data) - negative_weight * mean E(samples).

  The loss is a function of the energy's parameters, with the samples as constants. If
  the samples come from p, its gradient is minus that of the log likelihood
  [LW17 eq 7]; with negative_weight = 1 - gamma, minus that of the log likelihood plus
  gamma log Z [LW17 sec 5.2].

  Args:
    energy: the learner.
    data: examples of the data [n, ...], or the mean of their energies.
    samples: examples to compare with [n, ...], or such a mean; see `score_and_mean`.
    *condition: further inputs of the energy, the same for data and samples.
    negative_weight: weight of the samples.
    energy_l2: weight of mean E(data)^2 + mean E(samples)^2, which keeps energies near
      0 [DM19].
    joint: whether data and samples are one batch; see `pair`.
    axis_name: the mapped axis over which data and samples are split.
    rng: key of the energy's dropout.

  Raises:
    ValueError: a weight is negative, or squares are asked for of a mean.
  """
  checks.non_negative(energy_l2=energy_l2)
  # In [LW17 eq 7] samples are draws, so their own dependence on params is cut.
  samples = lax.stop_gradient(samples)
  is_known = lambda half: isinstance(half, values.KnownMean)
  any_known = is_known(data) or is_known(samples)
  if any_known and not checks.is_zero(energy_l2):
    raise ValueError(
      'energy_l2 is of energies one by one, and their mean is given; allowed: 0.'
    )
  context = dict(axis_name=axis_name, rng=rng)

  def mean_of(half, params):
    if is_known(half):
      return half(params)
    return jnp.mean(values.value(energy, params, half, *condition, **context))

  def loss_fn(params):
    if any_known:
      positive, negative = mean_of(data, params), mean_of(samples, params)
    else:
      both = values.pair(
        energy, params, data, samples, *condition, joint=joint, **context
      )
      positive, negative = map(jnp.mean, both)
    loss = positive - negative_weight * negative
    if not checks.is_zero(energy_l2):  # a traced weight keeps the term
      loss += energy_l2 * sum(jnp.mean(value**2) for value in both)
    return loss, {
      'energy/data': positive,
      'energy/samples': negative,
      'energy/gap': positive - negative,
    }

  return loss_fn


def ascend_likelihood(
  energy: Learner,
  data: Array,
  samples: Array,
  *condition: Array,
  energy_l2: float = 0.0,
  terms: Sequence[Callable[[Params], tuple[Array, Metrics]]] = (),
  axis_name: str | None = None,
  dropout_rng: PRNGKey | None = None,
) -> tuple[Learner, Metrics]:
  """Returns the energy after one step that descends `contrast`, and its metrics.

  An energy that mixes its batch sees data and samples as a batch each.

  Args:
    energy: the learner.
    data: [n, ...].
    samples: the ends of chains [m, ...], which are constants.
    *condition: what else the energy takes, the same for both.
    energy_l2: weight of the mean squared energies.
    terms: what else is in the loss, as `cross_entropy` is: functions of the parameters
      to a number [] and its metrics.
    axis_name: the mapped axis over which both are split.
    dropout_rng: key of the energy's dropout.
  """
  # The chain ran under the energy of its own batch, so that the samples are a
  # batch of their own in the loss too.
  loss_fn = contrast(
    energy,
    data,
    samples,
    *condition,
    energy_l2=energy_l2,
    joint=False,
    axis_name=axis_name,
    rng=dropout_rng,
  )

  def total(params):
    found = [term(params) for term in (loss_fn, *terms)]
    losses, metrics = zip(*found, strict=True)
    return sum(losses), {
      name: v for each in metrics for name, v in each.items()
    }

  return learners.descend(energy, total, axis_name=axis_name)


def cross_entropy(
  energy: Learner,
  x: Array,
  label: Array,
  *,
  weight: float = 1.0,
  axis_name: str | None = None,
  rng: PRNGKey | None = None,
) -> Callable[[Params], tuple[Array, Metrics]]:
  """Returns weight * mean -log p(y | x) and its metrics, of parameters.

  p(y | x) is the softmax of the energy's `logits`. If the energy is `MarginalLabel` and
  the weight is 1, this and `contrast` with samples of p(x) have the gradient of
  -log p(x, y) [G20].

  Args:
    energy: the learner.
    x: examples [n, ...].
    label: their classes, integers [n]. One that is traced and no class gives nan.
    weight: of the mean.
    axis_name: the mapped axis over which the examples are split.
    rng: key of the energy's dropout.

  Raises:
    ValueError: the weight is below 0, the energy has no `logits`, or the labels are
      not those of the classes.
  """
  checks.non_negative(label_weight=weight)
  if not learners.has_method(energy, 'logits'):
    raise ValueError(
      'Labels ask for logits, and this energy has no method logits; allowed: '
      'MarginalLabel.'
    )

  def loss_fn(params):
    logits = learners.call(
      energy, params, x, method='logits', axis_name=axis_name, rng=rng
    )
    checks.rows(len(x), **{"The energy's logits": logits})
    hot = layers.one_hot(label, logits.shape[-1]).astype(logits.dtype)
    checks.rows(len(x), label=hot)
    losses = optax.softmax_cross_entropy(logits, hot)
    # argmax answers at nan too, which would count as a hit or a miss.
    hits = (jnp.argmax(logits, -1) == label).astype(logits.dtype)
    hits = jnp.where(jnp.isnan(losses), jnp.nan, hits)
    loss = jnp.mean(losses)
    return weight * loss, {
      'energy/cross_entropy': loss,
      'energy/accuracy': jnp.mean(hits),
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

  H is `expert_entropy`. If its weight is 0, H is returned as 0, and the energy needs no
  experts.

  Args:
    energy: the learner.
    params: parameters of the energy.
    x: examples [n, ...].
    entropy: weight of H.
    axis_name: the mapped axis over which x is split.
    rng: key of the energy's dropout.
  """
  context = dict(axis_name=axis_name, rng=rng)
  if checks.is_zero(entropy):  # an energy without experts has no logits
    mean = jnp.mean(values.value(energy, params, x, **context))
    return mean, mean, jnp.zeros(())
  logits = learners.call(energy, params, x, method='expert_logits', **context)
  checks.rows(x.shape[0], **{"The energy's expert_logits": logits})
  # One pass gives both, since the energy is a function of the experts' logits.
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

  The loss is a function of the energy's parameters, with the samples as constants. Its
  first two terms are `free_energy`.
  """
  samples = lax.stop_gradient(samples)
  value_of = functools.partial(
    free_energy, energy, axis_name=axis_name, rng=rng
  )

  def loss_fn(params):
    value, positive, total = value_of(params, data, entropy=entropy)
    # The entropy of the samples is the generator's to keep up.
    negative = value_of(params, samples, entropy=0.0)[1]
    return value - negative, {
      'energy/data': positive,
      'energy/samples': negative,
      'energy/entropy': total,
    }

  return loss_fn
