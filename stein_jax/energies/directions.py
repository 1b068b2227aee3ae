"""Directions in which samples of an energy move, such as its score after a kernel."""

from collections.abc import Callable
import functools

import jax.numpy as jnp

from stein_jax import build
from stein_jax import checks
from stein_jax import collectives
from stein_jax import dtypes
from stein_jax import learners
from stein_jax import stein
from stein_jax.energies import values
from stein_jax.learners import Learner
from stein_jax.types import Array, PRNGKey


def direction(
  energy: Learner,
  rule: Callable[..., Array],
  x: Array,
  *condition: Array,
  score: Array | None = None,
  normalized_with: Array | None = None,
  features_of: Learner | None = None,
  noise_rng: PRNGKey | None = None,
  step: Array | int | None = None,
  axis_name: str | None = None,
  rng: PRNGKey | None = None,
) -> Array:
  """Returns phi at x, like x, by a rule such as `stein.SVGD` on the energy's score.

  Args:
    energy: the learner.
    rule: function of points and scores to phi, which is given what it asks for; see
      `stein.call`. Features, of the points of all devices, and log p, which is -E, are
      taken without dropout.
    x: [n, ...].
    *condition: what else the energy takes, [n, ...] each.
    score: the energy's score at x; None where it is yet to be taken.
    normalized_with: further examples of the batch; see `score`.
    features_of: the energy whose features the rule is given; None for the same one.
    noise_rng: the rule's own key, the same on every device; see `stein.own_key`.
    step: the number of steps before this one [].
    axis_name: the mapped axis over which x is split.
    rng: key of the energy's dropout.

  Raises:
    ValueError: the rule asks for what is not given, or for log p of an energy that
      mixes its batch or takes a condition.
  """
  checks.function(stein.WANTED, direction=rule)
  if score is None and stein.needs_score(rule):
    score = values.score(
      energy,
      x,
      *condition,
      normalized_with=normalized_with,
      axis_name=axis_name,
      rng=rng,
    )
  given = dict(rng=noise_rng, step=step)
  given = {name: each for name, each in given.items() if each is not None}
  # An energy need not have features, unless the rule asks for them.
  if stein.needs('features', rule):
    # The kernel compares samples of all devices, so that each holds all
    # features. They are taken of gathered batches, whose norms need no axis.
    given['features'] = features(
      features_of or energy, collectives.all_gather(normalized_with, axis_name)
    )
  with build.section('direction'):
    if stein.needs('log_density', rule):
      given['log_density'] = _log_density(energy, rule, *condition)
    return stein.call(rule, x, score, axis_name=axis_name, **given)


def _log_density(energy, rule, *condition):
  """Returns the function of one example to -E [] that a rule asks for."""
  if condition or learners.mixes(energy):
    raise ValueError(
      f'{type(rule).__name__} needs log_density, of one example alone; allowed: an '
      'energy that neither mixes its batch nor takes a condition.'
    )
  return lambda x: -values.value(energy, energy.params, x[None])[0]


def features(
  energy: Learner,
  normalized_with: Array | None = None,
  *,
  axis_name: str | None = None,
) -> Callable[[Array], Array]:
  """Returns a function of x [n, ...] to the energy's features [n, f].

  Its attribute `mixes` says whether an example's features depend on the others.

  Args:
    energy: the learner of a network with a method `features`.
    normalized_with: further examples that an energy which mixes its batch normalises
      together with x.
    axis_name: the mapped axis over which x is split.
  """
  context = dict(method='features', axis_name=axis_name)
  if normalized_with is None:
    of_x = functools.partial(learners.call, energy, energy.params, **context)
  else:
    of_x = lambda x: values.pair(
      energy, energy.params, normalized_with, x, **context
    )[1]
  # Repulsions are cheaper to compute where it does not.
  of_x.mixes = learners.mixes(energy)
  return of_x


def distance_moved(
  start: Array, end: Array, *, axis_name: str | None = None
) -> Array:
  """Returns the root of the mean squared distance [] from examples to others.

  Args:
    start: examples [n, ...].
    end: where each has moved, like them.
    axis_name: the mapped axis over which they are split.

  Examples:
    >>> x = jnp.zeros((2, 2, 1))
    >>> print(distance_moved(x, x.at[0].set(2.0)))
    2.0
  """
  checks.like(start, end=end)
  start, end = map(dtypes.at_least_float32, (start, end))
  squares = jnp.sum((end - start).reshape(len(start), -1) ** 2, 1)
  # A mean of roots would depend on the number of devices.
  return jnp.sqrt(collectives.pmean(jnp.mean(squares), axis_name))
