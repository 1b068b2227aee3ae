"""Stein primitives: the operator, directions of SVGD, kernel discrepancies.

All of them take points, scores at the points (grad_x log p) and a radial kernel, and
nothing else, so that any density will do. The functions take points [n, d]; the values
`SVGD`, `FeatureSVGD` and `Score` take particles of any shape, and are what an algorithm
is given. A kernel may hold a rule in place of its bandwidth, such as `kernels.Median`,
which is applied to the points. Everything is pure and may be jitted, vmapped, mapped
over devices (`axis_name`) and differentiated.
"""

from collections.abc import Callable

from flax import struct
import jax
from jax import flatten_util
from jax import lax
import jax.numpy as jnp
import numpy as np

from stein_jax import _repulsion
from stein_jax import _sums
from stein_jax import checks
from stein_jax import collectives
from stein_jax import dtypes
from stein_jax import kernels
from stein_jax.types import Array, Kernel, PRNGKey, ScoreFn, Tree

NORMALIZATIONS = ('count', 'row_sum', 'unit_ball')
WANTED = 'a direction, such as stein.SVGD()'  # in place of what cannot be one
_HIGHEST = lax.Precision.HIGHEST  # TPU and GPU products are half precision


def stein_operator(score_fn: ScoreFn, test_fn: ScoreFn, x: Array) -> Array:
  """Returns s(x).phi(x) + div phi(x) [n], of mean zero under p [WL16 eq 4].

  It is computed by its definition, with one Jacobian for each point.

  Args:
    score_fn: the score s, a function of points [n, d] to [n, d].
    test_fn: phi, a function of points [n, d] to [n, d].
    x: points [n, d].

  Raises:
    ValueError: a function that does not return points like those it is given.

  Examples:
    >>> score = lambda x: -x  # of N(0, 1); with phi(x) = x the value is 1 - x^2
    >>> print(stein_operator(score, lambda x: x, jnp.array([[0.0], [2.0]])))
    [ 1. -3.]
  """
  (x,) = kernels.points(x=x)

  def at(point):
    # The functions take batches; a batch of one point shows its own Jacobian.
    single = lambda y: test_fn(y[None])[0]
    score = score_fn(point[None])
    checks.shape((1, len(point)), score_fn=score, test_fn=test_fn(point[None]))
    divergence = jnp.trace(jax.jacfwd(single)(point))
    return dtypes.floating(score[0]) @ single(point) + divergence

  return jax.vmap(at)(x)


def svgd_direction(
  x: Array,
  score: Array,
  kernel: Kernel,
  *,
  at: Array | None = None,
  normalize: str = 'count',
  block_size: int | None = None,
  fused: bool = False,
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
    block_size: rows of the kernel matrix held at a time, memory O(n block); None
      keeps memory bounded.
    fused: whether one Pallas kernel does it, which keeps the matrix on a GPU's chip.
      It is for the Gaussian kernel in at most 256 dimensions, on one device, at the
      particles. These should lie within some bandwidths of their middle.
    axis_name: the mapped axis over which the particles, and `at`, are split; all
      particles act on each.

  Raises:
    ValueError: an unknown `normalize`, a block size below 1, shapes other than [n, d]
      twice, or what cannot be fused.

  Examples:
    Two particles at 1 and 3 of N(0, 1), whose score is -x:

    >>> x = jnp.array([[1.0], [3.0]])
    >>> print(jax.jit(svgd_direction)(x, -x, kernels.RBF(bandwidth=4.0)).round(2))
    [[-1.24]
     [-1.5 ]]
  """
  checks.choice(NORMALIZATIONS, normalize=normalize)
  # The result has the dtype of the points, while sums are of float32 or wider.
  dtype = dtypes.floating(x if at is None else at).dtype
  x, score = _points(x, score)
  kernel = kernels.resolved(kernel, x, axis_name)
  # Points and particles become one dtype and are checked for one dimension.
  if at is not None:
    at = kernels.points(x=x, at=at)[1]
  where = dict(at=at, axis_name=axis_name)
  if fused:
    drive, total = _sums.fused_direction_sums(x, score, kernel, **where)
  else:
    drive, total = _sums.direction_sums(
      x, score, kernel, block_size=block_size, **where
    )
  if at is None:
    # The sums leave out the particle itself, at which a kernel has no slope.
    at_zero = kernel(jnp.zeros((), x.dtype))
    drive, total = drive + at_zero * score, total + at_zero
  # The mean is over the particles of all devices.
  count = len(x) * collectives.size(axis_name)
  phi = drive / (total[:, None] if normalize == 'row_sum' else count)
  if normalize == 'unit_ball':
    # The mean of the Stein operator on phi is phi's squared norm.
    square = ksd(x, score, kernel, block_size=block_size, axis_name=axis_name)
    phi = jnp.where(square == 0, 0, phi * lax.rsqrt(square))
  return phi.astype(dtype)


def feature_svgd_direction(
  x: Array,
  score: Array,
  feature_fn: Callable[[Array], Array],
  kernel: Kernel,
  *,
  form: str = 'exact',
  normalize: str = 'count',
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
    axis_name: the mapped axis over which the particles are split.
  """
  checks.choice(('count', 'row_sum'), normalize=normalize)
  checks.choice(_repulsion.FORMS, form=form)
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
  k = kernel(kernels.squared_distance(features[rows], features))
  drive = jnp.tensordot(k, scores, 1, precision=_HIGHEST)
  weight = len(xs) if normalize == 'count' else jnp.sum(k, 1)
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
      vector-Jacobian product of the batch for each i. 'swapped' goes through the
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


def stein_matrix(
  x: Array, score_x: Array, y: Array, score_y: Array, kernel: Kernel
) -> Array:
  """Returns the Stein kernel u(x_i, y_j) [n, m] [WL16 eq 6].

  u(x, y) = s(x).s(y) k + s(x).grad_y k + s(y).grad_x k + tr grad_x grad_y k,
  of mean zero under p in either argument.

  Args:
    x: points [n, d].
    score_x: grad_x log p at x [n, d].
    y: points [m, d].
    score_y: grad_x log p at y [m, d].
    kernel: radial profile; a rule for its bandwidth is applied to x alone.
  """
  x, score_x = _points(x, score_x)
  y, score_y = _points(y, score_y)
  kernels.points(x=x, y=y)
  kernel = kernels.resolved(kernel, x)

  def whole(form):
    return form.matrix(form.prepare(x, score_x), form.prepare(y, score_y), True)

  return _sums.with_stein_kernel(whole, kernel, (x, y))


def ksd(
  x: Array,
  score: Array,
  kernel: Kernel,
  *,
  unbiased: bool = False,
  block_size: int | None = None,
  fused: bool = False,
  axis_name: str | None = None,
) -> Array:
  """Returns the squared kernelised Stein discrepancy [] [LW17 eq 14] [WL16 eq 6].

  Args:
    x: points [n, d].
    score: grad_x log p at the points [n, d].
    kernel: radial profile; a rule for its bandwidth is applied to the points.
    unbiased: whether it is the U-statistic, without the diagonal, which may fall below
      zero. The V-statistic is never negative beyond rounding.
    block_size: rows of the Stein matrix held at a time; None keeps memory
      bounded.
    fused: whether one Pallas kernel does it, for a GPU; see `svgd_direction`.
    axis_name: the mapped axis over which the points are split.

  Raises:
    ValueError: the U-statistic of one point, or what cannot be fused.

  Examples:
    Draws of N(0, 1) are near it; the same draws moved by 1 are not:

    >>> x = jax.random.normal(jax.random.key(0), (200, 1))
    >>> to_normal = jax.jit(lambda x: ksd(x, -x, kernels.IMQ(bandwidth=1.0)))
    >>> bool(to_normal(x) < 0.1 < to_normal(x + 1))
    True
  """
  x, score = _points(x, score)
  kernel = kernels.resolved(kernel, x, axis_name)
  n = len(x)
  count = n * collectives.size(axis_name)
  if unbiased and count < 2:
    raise ValueError('The U-statistic needs at least 2 points, got 1.')
  if fused:
    total = _sums.fused_stein_sum(x, score, kernel, axis_name=axis_name)
  else:
    total = _sums.stein_sum(
      x, score, kernel, block_size=block_size, axis_name=axis_name
    )
  # Integers of more than 32 bits, which the number of pairs may be, are refused.
  if unbiased:
    return collectives.psum(total, axis_name) / float(count * (count - 1))
  total += jnp.sum(_sums.own_terms(score, kernel))
  return collectives.psum(total, axis_name) / float(count**2)


def ksd_test(
  rng: PRNGKey,
  x: Array,
  score: Array,
  kernel: Kernel,
  *,
  num_bootstrap: int = 1000,
  flip_probability: float = 0.5,
  block_size: int | None = None,
) -> tuple[Array, Array]:
  """Returns n KSD^2 (V-statistic) [] and its p-value [] under x ~ p.

  This is the wild bootstrap of [CSG16], in which random signs w_i w_j reweight
  u(x_i, x_j). The p-value counts the statistic among the draws, so that it lies in
  [1 / (num_bootstrap + 1), 1]. It is large too where one or two points with huge scores
  carry the whole statistic, since signs do not change what a point adds to itself.

  Args:
    rng: key of the signs.
    x: points [n, d].
    score: grad_x log p at the points [n, d].
    kernel: radial profile; a rule for its bandwidth is applied to the points.
    num_bootstrap: number of draws.
    flip_probability: chance that the sign changes from one point to the next:
      0.5 for independent points, less for a Markov chain in its order.
    block_size: rows of the Stein matrix held at a time; None keeps memory bounded.

  Examples:
    >>> x = 1 + jax.random.normal(jax.random.key(0), (200, 1))  # not of N(0, 1)
    >>> kernel = kernels.IMQ(bandwidth=1.0)
    >>> _, p_value = jax.jit(ksd_test)(jax.random.key(1), x, -x, kernel)
    >>> bool(p_value < 0.01)
    True
  """
  checks.key(rng=rng)
  checks.count(num_bootstrap=num_bootstrap)
  checks.positive(flip_probability=flip_probability)
  checks.at_most(0.5, flip_probability=flip_probability)
  x, score = _points(x, score)
  kernel = kernels.resolved(kernel, x)
  n = x.shape[0]
  # A sign stays the same from point to point unless it flips, and the first is random.
  flips = jax.random.bernoulli(rng, flip_probability, (num_bootstrap, n))
  first = jax.random.rademacher(
    jax.random.fold_in(rng, 1), (num_bootstrap, 1), x.dtype
  )
  signs = first * jnp.cumprod(jnp.where(flips, -1, 1), 1).astype(x.dtype)
  # With signs that are all 1 the sum is the statistic itself, which comes first.
  weights = jnp.concatenate([jnp.ones((1, n), x.dtype), signs])
  own = _sums.own_terms(score, kernel)

  def over_pairs(form):
    points = form.prepare(x, score)

    def on_row(row):
      i, own, point, weight = row
      u = form.matrix(point, points, i != jnp.arange(n)).at[i].set(own)
      return weight * jnp.dot(weights, u, precision=_HIGHEST)

    rows = (jnp.arange(n), own, points, weights.T)
    return jnp.sum(kernels.map_rows(on_row, rows, n, block_size), 0)

  sums = _sums.with_stein_kernel(over_pairs, kernel, (x,))
  statistic, draws = jnp.split(sums / n, [1])
  exceed = jnp.sum(draws >= statistic)
  p_value = (1 + exceed) / (1 + num_bootstrap)
  # No comparison with a nan holds: it would be the strongest rejection.
  return statistic[0], jnp.where(jnp.isfinite(statistic[0]), p_value, jnp.nan)


@struct.dataclass
class SVGD:
  """The direction of SVGD for particles of any shape; see `svgd_direction`.

  Particles are flattened to points and the result is shaped like them.

  Attributes:
    kernel: radial profile; a rule for its bandwidth is applied to the particles.
    normalize: divisor, 'count', 'row_sum' or 'unit_ball'.
    block_size: rows of the kernel matrix held at a time; 0 keeps memory bounded.
    fused: whether one Pallas kernel does it, for a GPU.

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
  fused: bool = struct.field(pytree_node=False, default=False)

  def __call__(
    self,
    x: Tree,
    score: Tree,
    *,
    at: Tree | None = None,
    axis_name: str | None = None,
  ) -> Tree:
    """Returns phi at the particles, like x, or like `at` if that is given.

    Args:
      x: particles, a tree with leaves [n, ...].
      score: grad_x log p at the particles, like x.
      at: other points, a tree like x with leaves [m, ...].
      axis_name: the mapped axis over which the particles, and `at`, are split.

    Raises:
      ValueError: leaves of different n, a score unlike x, or an unknown option.
    """
    checks.count(minimum=0, block_size=self.block_size)
    y = x if at is None else at
    _check_particles(x, score, y)
    phi = svgd_direction(
      _flattened(x),
      _flattened(score),
      self.kernel,
      at=None if at is None else _flattened(at),
      normalize=self.normalize,
      # A config, which holds no None, has 0 for it.
      block_size=self.block_size or None,
      fused=self.fused,
      axis_name=axis_name,
    )
    return _shaped(phi, y)


@struct.dataclass
class FeatureSVGD:
  """The direction of SVGD with a kernel on features; see `feature_svgd_direction`.

  Attributes:
    kernel: radial profile; a rule for its bandwidth is applied to all features.
    form: how the repulsion is computed, 'exact', 'swapped' or 'nearest'.
    normalize: divisor, 'count' or 'row_sum'.
  """

  kernel: Kernel = kernels.RBF()
  form: str = struct.field(pytree_node=False, default='exact')
  normalize: str = struct.field(pytree_node=False, default='count')

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


def _check_particles(x, score, at):
  """Raises ValueError unless x and `at` are particles, and the score is like x."""
  for name, tree in {'x': x, 'at': at}.items():
    shapes = list(map(np.shape, jax.tree.leaves(tree)))
    counts = {shape[:1] for shape in shapes}
    if len(counts) != 1 or counts & {(), (0,)}:
      raise ValueError(
        f'{name} has leaves of shapes {shapes}; wanted: leaves [n, ...] of one n.'
      )
  checks.like(x, score=score)
  # The number of other points may differ, their shape may not.
  checks.like(_first(x), at=_first(at))


def _first(tree):
  """Returns the first of particles with leaves [n, ...]."""
  return jax.tree.map(lambda leaf: dtypes.at_least_float32(leaf)[0], tree)


def _flattened(tree):
  """Returns particles with leaves [n, ...] as points [n, d]."""
  tree = jax.tree.map(dtypes.at_least_float32, tree)
  return jax.vmap(lambda one: flatten_util.ravel_pytree(one)[0])(tree)


def _shaped(points, tree):
  """Returns points [n, d] as particles of the shapes and dtypes of a tree."""
  found = jax.vmap(flatten_util.ravel_pytree(_first(tree))[1])(points)
  return jax.tree.map(
    lambda new, old: new.astype(dtypes.floating(old).dtype), found, tree
  )


def _own_rows(x, axis_name):
  """Returns which rows of the gathered particles are this device's [n]."""
  return collectives.index(axis_name) * len(x) + jnp.arange(len(x))


def _points(x, score):
  """Returns points and scores [n, d] in the dtype that they are summed in."""
  if np.ndim(x) != 2 or np.shape(x) != np.shape(score) or 0 in np.shape(x):
    raise ValueError(
      'Points and scores must be [n, d] alike, n and d at least 1; got '
      f'{np.shape(x)} and {np.shape(score)}.'
    )
  return dtypes.at_least_float32(x), dtypes.at_least_float32(score)
