"""Directions that move particles to a density: SVGD's, on points or on features.

The functions take points [n, d]. The values `SVGD`, `FeatureSVGD` and `Score` take
particles of any shape, and are what an algorithm is given.
"""

from collections.abc import Callable

from flax import struct
from jax import lax
import jax.numpy as jnp

from stein_jax import _repulsion
from stein_jax import _sums
from stein_jax import checks
from stein_jax import collectives
from stein_jax import dtypes
from stein_jax import kernels
from stein_jax.stein import _balance
from stein_jax.stein import _particles
from stein_jax.stein import discrepancies
from stein_jax.types import Array, Kernel, Tree

NORMALIZATIONS = ('count', 'row_sum', 'unit_ball')
_HIGHEST = lax.Precision.HIGHEST  # TPU and GPU products are half precision


def svgd_direction(
  x: Array,
  score: Array,
  kernel: Kernel,
  *,
  at: Array | None = None,
  normalize: str = 'count',
  diagonal: bool = True,
  block_size: int | None = None,
  axis_name: str | None = None,
) -> Array:
  """Returns phi, the steepest descent on KL, at the particles [n, d] [LW17 eq 5].

  phi(y) = (1/n) sum_j k(x_j, y) s(x_j) + grad_{x_j} k(x_j, y) [LW17 eq 4] [WL16 eq 7].

  Args:
    x: particles [n, d].
    score: grad_x log p at the particles [n, d].
    kernel: radial profile; a rule for its bandwidth is applied to the particles.
    at: other points y [m, d] to take phi at, for a result [m, d].
    normalize: divisor of the sum: the 'count' n, as printed; the 'row_sum' of the
      kernel, as in the authors' code; or, with 'unit_ball', n times the norm of phi,
      which is the square root of `ksd`. The last gives the steepest of all directions
      of norm 1 [LW17 eq 12], and 0 where phi is 0.
    diagonal: whether the sum at a particle has the particle's own term, k(x, x) s(x).
      Without it phi is a U-statistic, over the n - 1 others, and at a particle of p its
      mean is 0. Where nothing is in a kernel's reach it is 0. Points `at` have no such
      term.
    block_size: rows of the kernel matrix held at a time, memory O(n block); None
      keeps memory bounded.
    axis_name: the mapped axis over which the particles, and `at`, are split; all
      particles act on each.

  Raises:
    ValueError: an unknown `normalize`, a block size below 1, shapes other than [n, d]
      twice, or, without the diagonal, one particle alone or the
      unit ball, whose norm has the diagonal.

  Examples:
    Two particles at 1 and 3 of N(0, 1), whose score is -x:

    >>> x = jnp.array([[1.0], [3.0]])
    >>> print(jax.jit(svgd_direction)(x, -x, kernels.RBF(bandwidth=4.0)).round(2))
    [[-1.24]
     [-1.5 ]]
  """
  checks.choice(NORMALIZATIONS, normalize=normalize)
  checks.flag(diagonal=diagonal)
  if not diagonal:
    checks.choice(NORMALIZATIONS[:2], normalize=normalize)
  # The result has the dtype of the points, while sums are of float32 or wider.
  dtype = dtypes.floating(x if at is None else at).dtype
  x, score = _particles.points(x, score)
  kernel = kernels.resolved(kernel, x, axis_name)
  # Points and particles become one dtype and are checked for one dimension.
  if at is not None:
    at = kernels.points(x=x, at=at)[1]
  drive, total = _sums.direction_sums(
    x, score, kernel, at=at, block_size=block_size, axis_name=axis_name
  )
  # The mean is over the particles of all devices.
  count = len(x) * collectives.size(axis_name)
  if at is None and diagonal:
    # The sums leave out the particle itself, at which a kernel has no slope.
    at_zero = kernel(jnp.zeros((), x.dtype))
    drive, total = drive + at_zero * score, total + at_zero
  elif at is None:
    count, total = _others(count), _nonzero(total)
  phi = drive / (total[:, None] if normalize == 'row_sum' else count)
  if normalize == 'unit_ball':
    # The mean of the Stein operator on phi is phi's squared norm.
    square = discrepancies.ksd(
      x, score, kernel, block_size=block_size, axis_name=axis_name
    )
    phi = jnp.where(square == 0, 0, phi * lax.rsqrt(square))
  return phi.astype(dtype)


def _others(count):
  """Returns the number of a particle's others, and refuses a particle alone."""
  if count < 2:
    raise ValueError('diagonal=False needs at least 2 particles, got 1.')
  return count - 1


def _nonzero(total):
  """Returns the divisors of sums, which are 0 where nothing is in a kernel's reach."""
  return jnp.where(total == 0, 1, total)


def feature_svgd_direction(
  x: Array,
  score: Array,
  feature_fn: Callable[[Array], Array],
  kernel: Kernel,
  *,
  form: str = 'exact',
  normalize: str = 'count',
  diagonal: bool = True,
  axis_name: str | None = None,
) -> Array:
  """Returns the SVGD direction, like x, of a kernel k(F(x), F(x')) on features.

  Args:
    x: particles [n, ...].
    score: grad_x log p at the particles, like x.
    feature_fn: F, a function of the particles [N, ...] of all devices to features
      [N, f].
    kernel: radial profile; a rule for its bandwidth is applied to all features.
    form: that of the repulsion; see `feature_repulsion`. With 'nearest' the direction
      is that of LW17's authors: s(x_i), not smoothed by the kernel, plus half the
      repulsion, without a divisor.
    normalize: divisor, the 'count' n or the 'row_sum' of the kernel.
    diagonal: whether a particle has its own term; see `svgd_direction`. The form
      'nearest' has it alone.
    axis_name: the mapped axis over which the particles are split.

  Raises:
    ValueError: an unknown `normalize` or `form`, a score unlike x, or, without the
      diagonal, the form 'nearest' or one particle alone.
  """
  checks.choice(('count', 'row_sum'), normalize=normalize)
  checks.choice(_repulsion.FORMS, form=form)
  checks.flag(diagonal=diagonal)
  if not diagonal:
    # The score that is not smoothed is a particle's own.
    checks.choice(('exact', 'swapped'), form=form)
  dtype, x = dtypes.floating(x).dtype, dtypes.at_least_float32(x)
  score = dtypes.at_least_float32(score)
  checks.like(x, score=score)
  # Features may depend on all particles, so that every device holds all of them.
  xs, scores = collectives.all_gather((x, score), axis_name)
  rows = _own_rows(x, axis_name)
  features, kernel, repulsion = _repulsion.by_features(
    xs, feature_fn, kernel, form, rows
  )
  if form == 'nearest':
    # The half is that of the authors' code, as is the score without a kernel.
    return (score + 0.5 * repulsion).astype(dtype)
  k, count = kernel(kernels.squared_distance(features[rows], features)), len(xs)
  if not diagonal:
    count = _others(count)
    k = jnp.where(rows[:, None] == jnp.arange(len(xs))[None], 0, k)
  drive = jnp.tensordot(k, scores, 1, precision=_HIGHEST)
  weight = count if normalize == 'count' else _nonzero(jnp.sum(k, 1))
  # One weight a particle, against particles of any shape.
  weight = jnp.reshape(weight, (-1,) + (1,) * (x.ndim - 1))
  return ((drive + repulsion) / weight).astype(dtype)


def feature_repulsion(
  x: Array,
  feature_fn: Callable[[Array], Array],
  kernel: Kernel,
  *,
  form: str = 'exact',
  axis_name: str | None = None,
) -> Array:
  """Returns sum_j grad_{x_j} k(F(x_j), F(x_i)), or a cheaper stand-in, like x.

  Args:
    x: particles [n, ...].
    feature_fn: F, a function of the particles [N, ...] of all devices to features
      [N, f].
    kernel: radial profile; a rule for its bandwidth is applied to all features.
    form: how it is computed. 'exact' goes through the Jacobian at every x_j, with one
      vector-Jacobian product of the batch for each i; or for each feature, where F has
      an attribute `mixes` that is False, which says that the features of a particle
      depend on no other, and f is less than N. 'swapped' goes through the
      Jacobian at x_i instead, with one product in all; the two are equal where F is an
      isometry. With 'nearest' the nearest other particle is the only j.
    axis_name: the mapped axis over which the particles are split.

  Examples:
    >>> x = jnp.array([[0.0], [2.0]])
    >>> print(feature_repulsion(x, lambda x: x, kernels.RBF(bandwidth=4.0)))
    [[-0.36787945]
     [ 0.36787945]]
  """
  checks.choice(_repulsion.FORMS, form=form)
  dtype, x = dtypes.floating(x).dtype, dtypes.at_least_float32(x)
  xs, rows = collectives.all_gather(x, axis_name), _own_rows(x, axis_name)
  _, _, repulsion = _repulsion.by_features(xs, feature_fn, kernel, form, rows)
  return repulsion.astype(dtype)


@struct.dataclass
class SVGD:
  """The direction of SVGD for particles of any shape; see `svgd_direction`.

  Particles are flattened to points and the result is shaped like them.

  Attributes:
    kernel: radial profile; a rule for its bandwidth is applied to the particles.
    normalize: divisor, 'count', 'row_sum' or 'unit_ball'.
    block_size: rows of the kernel matrix held at a time; 0 keeps memory bounded.
    diagonal: whether a particle has its own term. Particles need it to come to rest;
      where an energy learns by them, as in SteinCD, it keeps the energy from the truth.

  Examples:
    Particles may be a tree of arrays:

    >>> x = {'mean': jnp.zeros(5), 'weights': jnp.ones((5, 3))}
    >>> score = jax.tree.map(lambda leaf: -leaf, x)
    >>> phi = jax.jit(SVGD(kernels.RBF(bandwidth=1.0)))(x, score)
    >>> print(phi['weights'].shape, phi['weights'][0])
    (5, 3) [-1. -1. -1.]
  """

  kernel: Kernel = kernels.RBF()
  normalize: str = struct.field(pytree_node=False, default='count')
  block_size: int = struct.field(pytree_node=False, default=0)
  diagonal: bool = struct.field(pytree_node=False, default=True)

  __call__ = _particles.called

  def _phi(self, x, score, at, *, axis_name):
    checks.count(minimum=0, block_size=self.block_size)
    return svgd_direction(
      x,
      score,
      self.kernel,
      at=at,
      normalize=self.normalize,
      diagonal=self.diagonal,
      # A config, which holds no None, has 0 for it.
      block_size=self.block_size or None,
      axis_name=axis_name,
    )

  def balance(self, variance: Array, num_particles: int, dim: int):
    """Returns the `Balance` of particles on N(0, I); see `predicted_variance`."""
    if not self.diagonal:  # nothing pulls inwards: v is above 1 or has no end
      return None
    return _balance.of_kernel(self.kernel, variance, num_particles, dim)


@struct.dataclass
class FeatureSVGD:
  """The direction of SVGD with a kernel on features; see `feature_svgd_direction`.

  Attributes:
    kernel: radial profile; a rule for its bandwidth is applied to all features.
    form: how the repulsion is computed, 'exact', 'swapped' or 'nearest'.
    normalize: divisor, 'count' or 'row_sum'.
    diagonal: whether a particle has its own term; see `SVGD`.
  """

  kernel: Kernel = kernels.RBF()
  form: str = struct.field(pytree_node=False, default='exact')
  normalize: str = struct.field(pytree_node=False, default='count')
  diagonal: bool = struct.field(pytree_node=False, default=True)

  # A caller asks for this to know that it has features to give.
  needs_features = True

  def __call__(
    self,
    x: Array,
    score: Array,
    *,
    features: Callable[[Array], Array],
    axis_name: str | None = None,
  ) -> Array:
    """Returns the direction at the particles, like x.

    Args:
      x: particles [n, ...].
      score: grad_x log p at the particles, like x.
      features: a function of the particles [N, ...] of all devices to [N, f].
      axis_name: the mapped axis over which the particles are split.
    """
    return feature_svgd_direction(
      x,
      score,
      features,
      self.kernel,
      form=self.form,
      normalize=self.normalize,
      diagonal=self.diagonal,
      axis_name=axis_name,
    )


@struct.dataclass
class Score:
  """The direction without a kernel, where every particle follows its own score."""

  def __call__(
    self,
    x: Tree,
    score: Tree,
    *,
    at: Tree | None = None,
    axis_name: str | None = None,
  ) -> Tree:
    """Returns the score as it is.

    Args:
      x: particles, a tree with leaves [n, ...].
      score: grad_x log p at the particles, like x.
      at: None; without a kernel nothing is known of other points.
      axis_name: not used, as no particle acts on another.

    Raises:
      ValueError: a score unlike x, or other points `at`.
    """
    del axis_name
    if at is not None:
      raise ValueError(
        'Score() has no direction at other points: it has no kernel.'
      )
    checks.like(x, score=score)
    return score


def _own_rows(x, axis_name):
  """Returns which rows of the gathered particles are this device's [n]."""
  return collectives.index(axis_name) * len(x) + jnp.arange(len(x))
