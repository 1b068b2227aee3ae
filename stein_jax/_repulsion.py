"""How a kernel on features keeps particles apart, in the forms of `FORMS`."""

from collections.abc import Callable
import functools

import jax
from jax import lax
import jax.numpy as jnp

from stein_jax import _distances
from stein_jax import _sums
from stein_jax import collectives
from stein_jax import dtypes
from stein_jax import kernels
from stein_jax.types import Array, Kernel

_HIGHEST = lax.Precision.HIGHEST  # TPU and GPU products are half precision
FORMS = ('exact', 'swapped', 'nearest')  # see `stein.feature_repulsion`


def by_features(
  xs: Array,
  feature_fn: Callable[[Array], Array],
  kernel: Kernel,
  form: str,
  rows: Array,
) -> tuple[Array, Kernel, Array]:
  """Returns the features [N, f], the kernel, and the repulsion of some particles.

  Args:
    xs: the particles of all devices [N, ...].
    feature_fn: a function of these to their features [N, f]. If it has an attribute
      `mixes` that is False, no particle's features depend on another particle.
    kernel: radial profile. The one that is returned has its rule applied to the
      features.
    form: how the repulsion is computed, one of `FORMS`.
    rows: the particles [n] whose repulsion is returned [n, ...].
  """
  mixes = getattr(feature_fn, 'mixes', True)
  feature_fn = functools.partial(_features, feature_fn)
  features, pullback = jax.vjp(feature_fn, xs)
  kernel = kernels.resolved(kernel, features)
  sq_dist = kernels.squared_distance(features, features)
  # The gradient of k in e_j is slope (e_j - e_i).
  slope = 2 * _sums.with_slope(kernel)(sq_dist)[1]
  if form == 'exact' and (mixes or features.shape[1] >= len(features)):
    repulsion = _exact_repulsion(features, pullback, slope, rows)
  elif form == 'exact':
    repulsion = _exact_by_features(features, pullback, slope, rows)
  elif form == 'swapped':
    cotangent = _distances.weighted_differences(slope, features, features)
    repulsion = pullback(cotangent)[0][rows]
  else:
    nearest = _nearest_other(sq_dist)
    cotangent = features[nearest] - features
    cotangent *= jnp.take_along_axis(slope, nearest[:, None], 1)
    # Neighbours make a batch of their own, since two particles may share one.
    repulsion = jax.vjp(feature_fn, xs[nearest])[1](cotangent)[0][rows]
  return features, kernel, repulsion


def _exact_repulsion(features, pullback, slope, rows):
  """Returns sum_j slope_ij (e_j - e_i) through the Jacobian at every x_j."""

  def at(row):
    slope, feature = row
    change = features - feature[None]
    return jnp.sum(pullback(slope[:, None] * change)[0], 0)

  return lax.map(at, (slope[rows], features[rows]))


def _exact_by_features(features, pullback, slope, rows):
  """Returns what `_exact_repulsion` does where no e_j depends on another particle.

  One pass back then has the gradient of a feature at every particle.
  """

  def add(total, feature):
    gradients = pullback(jnp.zeros_like(features).at[:, feature].set(1))[0]
    values = features[:, feature]
    weights = slope[rows] * _distances.outer_sum(-values[rows], values)
    return total + jnp.tensordot(
      weights, gradients, 1, precision=_HIGHEST
    ), None

  like_x = jax.eval_shape(pullback, features)[0]
  start = jnp.zeros((len(rows), *like_x.shape[1:]), like_x.dtype)
  start, *_ = collectives.match_varying(start, features, rows)
  return lax.scan(add, start, jnp.arange(features.shape[1]))[0]


def _nearest_other(sq_dist):
  """Returns which other point [n] is nearest to each."""
  itself = jnp.eye(len(sq_dist), dtype=bool)
  furthest = jnp.finfo(sq_dist.dtype).max
  return jnp.argmin(jnp.where(itself, furthest, sq_dist), 1)


def _features(feature_fn, x):
  """Returns the features [n, f] of x in the dtype that they are summed in."""
  features = feature_fn(x)
  if not hasattr(features, 'ndim'):
    raise ValueError(
      f'feature_fn is a {type(features).__name__}; wanted: an array ({len(x)}, f).'
    )
  if features.ndim != 2 or len(features) != len(x):
    raise ValueError(
      f'feature_fn has shape {features.shape}; wanted: ({len(x)}, f), a row for each '
      'particle.'
    )
  return dtypes.at_least_float32(features)
