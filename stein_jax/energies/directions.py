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
  axis_name: str | None = None,
  rng: PRNGKey | None = None,
) -> Array:
  """Returns phi at x, like x, by a rule such as `stein.SVGD` on the energy's score.

  Args:
    energy: the learner.
    rule: function of points and scores to phi. If it asks for features it is also given
      a function of the points of all devices to them, taken without dropout.
    x: [n, ...].
    *condition: what else the energy takes, [n, ...] each.
    score: the energy's score at x; None if it is not yet known.
    normalized_with: further examples of the batch; see `score`.
    features_of: the energy whose features the rule is given; None for the same one.
    axis_name: the mapped axis over which x is split.
    rng: key of the energy's dropout.
  """
  checks.function(stein.WANTED, direction=rule)
  if score is None:
    score = values.score(
      energy,
      x,
      *condition,
      normalized_with=normalized_with,
      axis_name=axis_name,
      rng=rng,
    )
  # An energy need not have features, unless the rule asks for them.
  given = {}
  if stein.needs('features', rule):
    # The kernel compares samples of all devices, so that each holds all
    # features. They are taken of gathered batches, whose norms need no axis.
    given['features'] = features(
      features_of or energy, collectives.all_gather(normalized_with, axis_name)
    )
  with build.section('direction'):
    return stein.call(rule, x, score, axis_name=axis_name, **given)


def features(
  energy: Learner,
  normalized_with: Array | None = None,
  *,
  axis_name: str | None = None,
) -> Callable[[Array], Array]:
  """Returns a function of x [n, ...] to the energy's features [n, f].

  Args:
    energy: the learner of a network with a method `features`.
    normalized_with: further examples that an energy which mixes its batch normalises
      together with x.
    axis_name: the mapped axis over which x is split.
  """
  context = dict(method='features', axis_name=axis_name)
  if normalized_with is None:
    return functools.partial(learners.call, energy, energy.params, **context)
  return lambda x: values.pair(
    energy, energy.params, normalized_with, x, **context
  )[1]


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
