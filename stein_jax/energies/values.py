"""Values of an energy: E, its score, and E of two batches that are compared."""

import functools

from flax import struct
import jax
import jax.numpy as jnp

from stein_jax import checks
from stein_jax import collectives
from stein_jax import dtypes
from stein_jax import learners
from stein_jax.learners import Learner
from stein_jax.types import Array, Batch, Params, PRNGKey


def conditions(batch: Batch) -> tuple[Array, ...]:
  """Returns (condition,) of a batch whose images have conditions, else ()."""
  return (batch['condition'],) if 'condition' in batch else ()


def value(
  energy: Learner,
  params: Params,
  x: Array,
  *condition: Array,
  axis_name: str | None = None,
  rng: PRNGKey | None = None,
) -> Array:
  """Returns E(x) [n] at the given parameters.

  If the energy mixes its batch, each value depends on all of x over all devices.

  Args:
    energy: the learner.
    params: parameters of the energy.
    x: examples [n, ...].
    *condition: further inputs of the energy, [n, ...] each.
    axis_name: the mapped axis over which the batch is split.
    rng: key of the energy's dropout.

  Raises:
    ValueError: the network's result is not [n].
  """
  # The cast is here, since a network of the user's own may have none.
  x = dtypes.at_least_float32(x)
  values = learners.call(
    energy, params, x, *condition, axis_name=axis_name, rng=rng
  )
  # A network that returns a tuple has no shape for the check below to name.
  if not hasattr(values, 'shape'):
    raise ValueError(
      f'The energy is a {type(values).__name__}; wanted: an array ({x.shape[0]},), one '
      f'number for each of {x.shape[0]} examples.'
    )
  checks.per_example(x.shape[0], **{'The energy': values})
  return values


def score(
  energy: Learner,
  x: Array,
  *condition: Array,
  normalized_with: Array | None = None,
  axis_name: str | None = None,
  rng: PRNGKey | None = None,
) -> Array:
  """Returns the score grad_x log p = -grad_x E at x, like x.

  If the energy mixes its batch this is the gradient of minus the sum of all energies,
  which includes what each example does to the energies of the others.

  Args:
    energy: the learner.
    x: examples [n, ...].
    *condition: further inputs of the energy, [n, ...] each.
    normalized_with: other examples [n, ...] with the same conditions, which an energy
      that mixes its batch normalises together with x.
    axis_name: the mapped axis over which the batch is split.
    rng: key of the energy's dropout.
  """

  def total(x):
    context = dict(axis_name=axis_name, rng=rng)
    if normalized_with is None:
      return -jnp.sum(value(energy, energy.params, x, *condition, **context))
    # Energies of the others depend on x too, but x descends its own alone.
    values = pair(
      energy, energy.params, normalized_with, x, *condition, **context
    )
    return -jnp.sum(values[1])

  # Half-precision points get a score like them, but it is computed in float32.
  x = dtypes.floating(x)
  return jax.grad(total)(dtypes.at_least_float32(x)).astype(x.dtype)


@struct.dataclass
class KnownMean:
  """The mean of E at some examples, whose value and gradient are known.

  It is a function of the energy's parameters, but right at those alone at which it was
  computed, where a step begins.

  Attributes:
    value: the mean [].
    slopes: gradient of the sum over the examples by the parameters, like these, of
      this device's examples alone.
    num: number of examples.
  """

  value: Array
  slopes: Params
  num: int = struct.field(pytree_node=False)

  def __call__(self, params: Params) -> Array:
    """Returns the mean [], with its gradient by the parameters."""
    params = _varying(params, self.value)
    return _known(params, self.value, self.slopes, self.num)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _known(params, value, slopes, num):
  """Returns the value, whose gradient by the parameters is slopes / num."""
  del params, slopes, num
  return value


def _known_forward(params, value, slopes, num):
  return _known(params, value, slopes, num), slopes


def _known_backward(num, slopes, factor):
  return jax.tree.map(lambda slope: factor / num * slope, slopes), None, None


_known.defvjp(_known_forward, _known_backward)


def _varying(params, x):
  """Returns parameters whose gradient is not yet summed over devices, as x is split."""
  return jax.tree.map(lambda p: collectives.match_varying(p, x)[0], params)


def has_one_pass(energy: Learner, *, joint: bool = False) -> bool:
  """Returns whether `score_and_mean` gives what a score and a contrast give apart.

  It does not where the energy mixes its batch, where a joint batch drops other units
  than each half of it would, and where the optimizer searches along a line, which
  asks for the loss at other parameters.

  Args:
    energy: the learner.
    joint: whether the contrast has data and samples in one batch; see `pair`.
  """
  apart = learners.mixes(energy) or (joint and learners.drops(energy))
  return not apart and not learners.searches(energy)


def score_and_mean(
  energy: Learner, x: Array, *condition: Array, rng: PRNGKey | None = None
) -> tuple[Array, KnownMean]:
  """Returns the score at x, like x, and the mean of E(x) for `contrast`.

  Apart they would take two forward and two backward passes of the network, and here
  they take one. `has_one_pass` says of which energies that is so.

  Args:
    energy: the learner.
    x: examples [n, ...].
    *condition: further inputs of the energy, [n, ...] each.
    rng: key of the energy's dropout.
  """

  def total(params, points):
    return jnp.sum(value(energy, params, points, *condition, rng=rng))

  x = dtypes.floating(x)
  points = dtypes.at_least_float32(x)
  params = _varying(energy.params, points)
  value_and_grad = jax.value_and_grad(total, (0, 1))
  energies, (slopes, slope) = value_and_grad(params, points)
  mean = KnownMean(energies / len(x), slopes, len(x))
  return -slope.astype(x.dtype), mean


def pair(
  energy: Learner,
  params: Params,
  data: Array,
  samples: Array,
  *condition: Array,
  joint: bool = True,
  axis_name: str | None = None,
  rng: PRNGKey | None = None,
  method: str | None = None,
) -> tuple[Array, Array]:
  """Returns E of data [n, ...] and E of samples [n, ...], or a method's values.

  Args:
    energy: the learner.
    params: parameters of the energy.
    data: one half of the examples.
    samples: the other half.
    *condition: further inputs of the energy, the same for both halves.
    joint: whether both halves are one batch, so that an energy that normalises its
      batch cannot tell them apart by their statistics. If they are two batches the key
      drops the same units from both.
    axis_name: the mapped axis over which both halves are split.
    rng: key of the energy's dropout.
    method: name of a method of the energy; None for E.
  """
  context = dict(axis_name=axis_name, rng=rng)
  if method is None:
    evaluate = functools.partial(value, energy, params, **context)
  else:
    evaluate = functools.partial(
      learners.call, energy, params, method=method, **context
    )
  # An energy that neither mixes nor drops has the same values in one batch,
  # which is faster than two.
  if not joint and (learners.mixes(energy) or rng is not None):
    return evaluate(data, *condition), evaluate(samples, *condition)
  twice = [jnp.concatenate([c, c]) for c in condition]
  # Images in bytes and samples in floats are joined in one dtype.
  values = evaluate(jnp.concatenate(dtypes.promoted(data, samples)), *twice)
  return values[: len(data)], values[len(data) :]
