"""Directions in which an energy's samples move: its score, smoothed by a kernel."""

from collections.abc import Callable
import functools

from stein_jax import collectives
from stein_jax import learners
from stein_jax.energies import values
from stein_jax.learners import Learner
from stein_jax.types import Array, PRNGKey


def direction(
  energy: Learner,
  rule: Callable[..., Array],
  x: Array,
  *condition: Array,
  normalized_with: Array | None = None,
  features_of: Learner | None = None,
  axis_name: str | None = None,
  rng: PRNGKey | None = None,
) -> Array:
  """Returns phi at x, like x, by a rule such as `stein.SVGD` on the energy's score.

  Args:
    energy: the learner.
    rule: of points and scores to phi; one with `needs_features` is also given the
      function of all devices' points to their features, which are taken without
      dropout.
    x: [n, ...].
    *condition: what else the energy takes, [n, ...] each.
    normalized_with: further examples of the batch; see `score`.
    features_of: the energy whose features these are; the same one without.
    axis_name: the mapped axis over which x is split.
    rng: key of the energy's dropout.
  """
  score = values.score(
    energy,
    x,
    *condition,
    normalized_with=normalized_with,
    axis_name=axis_name,
    rng=rng,
  )
  if not getattr(rule, 'needs_features', False):
    return rule(x, score, axis_name=axis_name)
  # Every device holds all features: the kernel is one for all.
  see = features(
    features_of or energy, collectives.all_gather(normalized_with, axis_name)
  )
  return rule(x, score, features=see, axis_name=axis_name)


def features(
  energy: Learner,
  normalized_with: Array | None = None,
  *,
  axis_name: str | None = None,
) -> Callable[[Array], Array]:
  """Returns a function of x [n, ...] to the energy's features [n, f].

  Args:
    energy: the learner, with a method `features`.
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
