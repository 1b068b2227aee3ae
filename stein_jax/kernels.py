"""Radial kernels, as elementwise functions of the squared distance.

A kernel k(x, y) = profile(|x - y|^2) is given by its profile alone. Any function of
squared distances will do: `lambda sq_dist: 1 / (1 + sq_dist)`, one of the functions
below, or a value (`RBF`, `IMQ`, `RationalQuadratic`), whose bandwidth may be a rule
that is applied to the points at hand. `Sum` and `Product` are made of such kernels.
Directions and discrepancies are then matrix products, and derivatives come from
`jax.jvp`.
"""

from collections.abc import Sequence
import math
import numbers

from flax import struct
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from stein_jax import _distances
from stein_jax import _medians
from stein_jax import build
from stein_jax import checks
from stein_jax import collectives
from stein_jax import dtypes
from stein_jax.types import Array, Kernel, PRNGKey

# Blocks of rows are chosen so that one [block, n] matrix has this many entries. A CPU
# is fastest where they stay in its cache, other devices where there is work for all.
_BLOCK_ENTRIES = {'cpu': 2**21}
_BLOCK_ENTRIES_ELSEWHERE = 2**26
_LOGS = ('n+1', 'n', 'none')  # of the median rule


def rbf(sq_dist: Array, bandwidth: Array | float = 1.0) -> Array:
  """Returns exp(-sq_dist / bandwidth), like `sq_dist`.

  Examples:
    >>> x = jnp.array([[0.0, 0.0], [1.0, 1.0]])
    >>> print(rbf(squared_distance(x, x), bandwidth=2.0).round(2))
    [[1.   0.37]
     [0.37 1.  ]]
  """
  return jnp.exp(-dtypes.floating(sq_dist) / bandwidth)


def imq(
  sq_dist: Array,
  bandwidth: Array | float = 1.0,
  exponent: Array | float = -0.5,
) -> Array:
  """Returns the inverse multiquadric (1 + sq_dist / bandwidth)^exponent."""
  base = 1 + dtypes.floating(sq_dist) / bandwidth
  # Inverse roots are much cheaper than powers. A traced exponent has no value to be
  # compared.
  if isinstance(exponent, numbers.Real) and exponent == -0.5:
    return lax.rsqrt(base)
  return base**exponent


def rational_quadratic(
  sq_dist: Array,
  bandwidth: Array | float = 1.0,
  mixture: Array | float = 1.0,
) -> Array:
  """Returns (1 + sq_dist / (mixture bandwidth))^-mixture.

  This is a mixture of `rbf` kernels over bandwidths, and `rbf` itself in the limit of
  large `mixture`.

  Examples:
    >>> print(rational_quadratic(jnp.array([0.0, 1.0, 3.0])))
    [1.   0.5  0.25]
  """
  base = 1 + dtypes.floating(sq_dist) / bandwidth / mixture
  return base**-mixture


@struct.dataclass
class Median:
  """The median rule, which finds a bandwidth from points; see `median_bandwidth`.

  Attributes:
    scale: factor on the median.
    diagonal: whether the n zeros of the pairs (i, i) take part in the median.
    log: divisor of the median: the logarithm of 'n+1' or of 'n', or 'none'.
  """

  scale: Array | float = 1.0
  diagonal: bool = struct.field(pytree_node=False, default=True)
  log: str = struct.field(pytree_node=False, default='n+1')

  def at(self, x: Array, axis_name: str | None = None) -> Array:
    """Returns the bandwidth [] of points x [n, d] that the axis may split."""
    return median_bandwidth(
      x,
      scale=self.scale,
      diagonal=self.diagonal,
      log=self.log,
      axis_name=axis_name,
    )

  def of(self, sq_dist: Array, num_points: int) -> Array:
    """Returns the bandwidth [] of n points whose median squared distance is known."""
    checks.positive(scale=self.scale)
    return self.scale * sq_dist / _divisor(self.log, num_points)


@struct.dataclass
class RBF:
  """The Gaussian kernel exp(-sq_dist / bandwidth).

  Attributes:
    bandwidth: a positive number [], or a rule such as `Median`.
  """

  bandwidth: Array | float | Median = Median()

  def __call__(self, sq_dist: Array) -> Array:
    """Returns the kernel of squared distances, like `sq_dist`."""
    return rbf(sq_dist, _bandwidth(self))

  @property
  def slope_ratio(self) -> Array | float:
    """Returns c [] where the derivative is c times the kernel: -1 / bandwidth."""
    return -1 / _bandwidth(self)

  def rates(self, rng: PRNGKey, num: int) -> Array:
    """Returns 1 / bandwidth [num]: the kernel is the mean of exp(-rate sq_dist)."""
    del rng
    return jnp.broadcast_to(1 / jnp.asarray(_bandwidth(self), float), num)

  def at(self, x: Array, axis_name: str | None = None) -> 'RBF':
    """Returns the kernel with its rule applied to points x [n, d]."""
    return _with_number(self, x, axis_name)


@struct.dataclass
class IMQ:
  """The inverse multiquadric (1 + sq_dist / bandwidth)^exponent.

  Attributes:
    bandwidth: a positive number [], or a rule such as `Median`.
    exponent: a number [] of at most 0.
  """

  bandwidth: Array | float | Median = Median()
  exponent: Array | float = -0.5

  slope_ratio = None  # the derivative is no multiple of the kernel

  def __call__(self, sq_dist: Array) -> Array:
    """Returns the kernel of squared distances, like `sq_dist`."""
    checks.finite(exponent=self.exponent)
    checks.at_most(0, exponent=self.exponent)
    return imq(sq_dist, _bandwidth(self), _weakly_typed(self.exponent))

  def rates(self, rng: PRNGKey, num: int) -> Array:
    """Returns draws [num]: the kernel is the mean of exp(-rate sq_dist) over them."""
    return jax.random.gamma(rng, -self.exponent, (num,)) / _bandwidth(self)

  def at(self, x: Array, axis_name: str | None = None) -> 'IMQ':
    """Returns the kernel with its rule applied to points x [n, d]."""
    return _with_number(self, x, axis_name)


@struct.dataclass
class RationalQuadratic:
  """The kernel (1 + sq_dist / (mixture bandwidth))^-mixture.

  Attributes:
    bandwidth: a positive number [], or a rule such as `Median`.
    mixture: a positive number []; the larger, the nearer to `RBF`.

  Examples:
    >>> print(RationalQuadratic(bandwidth=2.0, mixture=3.0)(jnp.array(6.0)))
    0.125
  """

  bandwidth: Array | float | Median = Median()
  mixture: Array | float = 1.0

  slope_ratio = None  # the derivative is no multiple of the kernel

  def __call__(self, sq_dist: Array) -> Array:
    """Returns the kernel of squared distances, like `sq_dist`."""
    checks.positive(mixture=self.mixture)
    return rational_quadratic(
      sq_dist, _bandwidth(self), _weakly_typed(self.mixture)
    )

  def rates(self, rng: PRNGKey, num: int) -> Array:
    """Returns draws [num]: the kernel is the mean of exp(-rate sq_dist) over them."""
    drawn = jax.random.gamma(rng, self.mixture, (num,))
    return drawn / (_bandwidth(self) * self.mixture)

  def at(self, x: Array, axis_name: str | None = None) -> 'RationalQuadratic':
    """Returns the kernel with its rule applied to points x [n, d]."""
    return _with_number(self, x, axis_name)


@struct.dataclass
class Sum:
  """The sum of kernels, each times a weight.

  Attributes:
    kernels: values such as `RBF`, or functions of squared distances; each rule for a
      bandwidth is applied to the points by itself.
    weights: numbers of at least 0, one for each kernel; all are 1 if there are none.

  Examples:
    >>> kernel = Sum((RBF(bandwidth=4.0), IMQ(bandwidth=1.0)), weights=(1.0, 0.5))
    >>> print(kernel(jnp.array([0.0, 3.0])).round(1))
    [1.5 0.7]
  """

  kernels: Sequence[Kernel]
  weights: Sequence[Array | float] = ()

  slope_ratio = None  # the derivative is no multiple of the kernel

  def __call__(self, sq_dist: Array) -> Array:
    """Returns the kernel of squared distances, like `sq_dist`."""
    checks.parts(self.weights, kernels=self.kernels)
    weights = tuple(self.weights) or (1.0,) * len(self.kernels)
    pairs = zip(weights, self.kernels, strict=True)
    return sum(
      _weakly_typed(weight) * kernel(sq_dist) for weight, kernel in pairs
    )

  def at(self, x: Array, axis_name: str | None = None) -> 'Sum':
    """Returns the sum of kernels whose rules are applied to points x [n, d]."""
    return self.replace(kernels=_each_resolved(self.kernels, x, axis_name))


@struct.dataclass
class Product:
  """The product of kernels.

  Attributes:
    kernels: values such as `RBF`, or functions of squared distances; each rule for a
      bandwidth is applied to the points by itself.

  Examples:
    >>> kernel = Product((RBF(bandwidth=2.0), RBF(bandwidth=2.0)))  # as RBF(1.0)
    >>> print(kernel(jnp.array([0.0, 1.0])).round(2))
    [1.   0.37]
  """

  kernels: Sequence[Kernel]

  def __call__(self, sq_dist: Array) -> Array:
    """Returns the kernel of squared distances, like `sq_dist`."""
    return math.prod(kernel(sq_dist) for kernel in self.kernels)

  @property
  def slope_ratio(self) -> Array | float | None:
    """Returns the sum of the kernels' ratios [], or None where one has none."""
    ratios = [getattr(each, 'slope_ratio', None) for each in self.kernels]
    return None if None in ratios else sum(ratios)

  def at(self, x: Array, axis_name: str | None = None) -> 'Product':
    """Returns the product of kernels whose rules are applied to points x [n, d]."""
    return self.replace(kernels=_each_resolved(self.kernels, x, axis_name))


def resolved(kernel: Kernel, x: Array, axis_name: str | None = None) -> Kernel:
  """Returns a kernel that may be called, in which a rule has been applied to points.

  Args:
    kernel: a value such as `RBF`, or a plain function, which is returned as it is.
    x: the points [n, d] that a rule for the bandwidth is applied to.
    axis_name: the mapped axis over which the points are split.

  Raises:
    ValueError: the kernel is not elementwise, as far as its shape shows, or its
      bandwidth is not positive.
    TypeError: the kernel, or the rule of its bandwidth, is a class.
  """
  return _resolved('kernel', kernel, x, axis_name)


def _resolved(name, kernel, x, axis_name):
  """Returns what `resolved` does of the kernel that a message calls `name`."""
  checks.instance(**{name: kernel})
  if not callable(kernel):
    raise ValueError(
      f'{name}={kernel!r} must be a function of squared distances.'
    )
  wanted = jax.ShapeDtypeStruct((2, 3), jnp.float32)
  # What is refused inside a value is named as its flag is.
  with build.section(name):
    if hasattr(kernel, 'at'):
      kernel = kernel.at(x, axis_name)
    found = jax.eval_shape(kernel, wanted)
  # Without this a kernel that sums over pairs would give a number without a sense.
  if getattr(found, 'shape', None) != wanted.shape:
    raise ValueError(
      f'{name} has shape {getattr(found, "shape", found)} at squared distances of '
      f'shape {wanted.shape}; wanted: a function of each of them.'
    )
  return kernel


def _each_resolved(kernels, x, axis_name):
  """Returns kernels that may be called, in which rules are applied to points."""
  checks.parts(kernels=kernels)
  return tuple(
    _resolved(f'kernels[{i}]', kernel, x, axis_name)
    for i, kernel in enumerate(kernels)
  )


def is_fixed(kernel: Kernel) -> bool:
  """Returns whether a kernel is the same for all points, having no rule."""
  if hasattr(kernel, 'kernels'):
    return all(map(is_fixed, kernel.kernels))
  return not _is_rule(getattr(kernel, 'bandwidth', 1.0))


def at_distance(
  kernel: Kernel, sq_dist: Array, num_points: int
) -> Kernel | None:
  """Returns what `resolved` does for points that are all equally far apart.

  Args:
    kernel: radial profile.
    sq_dist: the squared distance [] of any two points.
    num_points: how many points there are.

  Returns:
    The kernel; None where it has a rule that says nothing of distances, as `Median.of`
    does.
  """
  if hasattr(kernel, 'kernels'):
    parts = [at_distance(each, sq_dist, num_points) for each in kernel.kernels]
    return None if None in parts else kernel.replace(kernels=tuple(parts))
  if is_fixed(kernel):
    return kernel
  if not hasattr(kernel.bandwidth, 'of'):
    return None
  return kernel.replace(bandwidth=kernel.bandwidth.of(sq_dist, num_points))


def _with_number(kernel, x, axis_name):
  """Returns a kernel value whose bandwidth is a number, found on x if it is a rule."""
  if _is_rule(kernel.bandwidth):
    with build.section('bandwidth'):
      return kernel.replace(bandwidth=kernel.bandwidth.at(x, axis_name))
  _bandwidth(kernel)
  return kernel


def _bandwidth(kernel):
  """Returns the bandwidth of a kernel value, which is checked to be a number."""
  bandwidth = kernel.bandwidth
  if _is_rule(bandwidth):
    raise ValueError(
      f'bandwidth={bandwidth} is a rule, which needs points to become a number: '
      f'call `{type(kernel).__name__}(...).at(x)` first.'
    )
  # The median of points with a nan is nan, and so is all that follows from it.
  if not _is_computed_nan(bandwidth):
    checks.positive(bandwidth=bandwidth)
  return _weakly_typed(bandwidth)


def _is_rule(bandwidth):
  """Returns whether a bandwidth is a value with an `at` that finds a number.

  A class, which has it too, is refused.
  """
  checks.instance(bandwidth=bandwidth)
  # Arrays of JAX have another `at`.
  return hasattr(bandwidth, 'at') and not isinstance(bandwidth, jax.Array)


def _is_computed_nan(bandwidth):
  """Returns whether a bandwidth is nan, and was computed by JAX."""
  traced = isinstance(bandwidth, jax.core.Tracer)
  if traced or not isinstance(bandwidth, jax.Array):
    return False
  return np.all(np.isnan(np.asarray(bandwidth)))


def _weakly_typed(number):
  """Returns a number such that it leaves the dtype of arrays that it meets."""
  # NumPy's float64 would widen them; a number of Python does not.
  return float(number) if isinstance(number, numbers.Real) else number


def squared_distance(x: Array, y: Array) -> Array:
  """Returns |x_i - y_j|^2 [n, m] of x [n, d] and y [m, d], never negative.

  In float32 each is right to 1e-5 of itself. It takes twice as long where points lie in
  up to 16 groups far apart, and many times as long where some pairs are much nearer to
  each other than to the middle of their group. Half precision is computed, and
  returned, in float32.

  Raises:
    ValueError: points that are not [n, d] and [m, d].
  """
  x, y = points(x=x, y=y)
  if x.shape[1] <= _distances.FEW_DIMENSIONS:
    coordinates = map(_distances.coordinates, (x, y))
    return _distances.squared_by_coordinates(*coordinates)

  # Where the sets are one, points are exactly 0 from themselves and need no digits.
  copies = jnp.zeros((), bool)
  if x.shape == y.shape:
    copies = jnp.eye(len(x), dtype=bool) & jnp.all(x == y, 1)[None]

  def by_products(middles):
    """Returns the squared distances, and whether some of them have lost digits."""
    sets = [_distances.grouped(each, middles) for each in (x, y)]
    sq_dist = _distances.squared_by_product(*sets)
    sq_dist = jnp.where(copies, sq_dist - lax.stop_gradient(sq_dist), sq_dist)
    return sq_dist, _distances.has_cancellation(sq_dist, *sets, ~copies)

  def in_groups():
    middles = _distances.group_middles(jnp.concatenate([x, y]))
    sq_dist, cancelled = by_products(middles)
    exactly = lambda: _distances.squared_by_subtraction(x, y)
    return lax.cond(cancelled, exactly, lambda: sq_dist)

  sq_dist, cancelled = by_products(_distances.center_of(y))
  return lax.cond(cancelled, in_groups, lambda: sq_dist)


def points(**arrays: Array) -> list[Array]:
  """Returns arrays of points in the one dtype that they are summed in.

  Raises:
    ValueError: one is not [n, d], n and d at least 1, or they differ in d.
  """
  found = [dtypes.at_least_float32(array) for array in arrays.values()]
  shapes = [array.shape for array in found]
  got = ', '.join(map('{} {}'.format, arrays, shapes))
  if {len(shape) for shape in shapes} != {2} or 0 in sum(shapes, ()):
    raise ValueError(f'Points must be [n, d], n and d at least 1; got {got}.')
  if len({shape[1] for shape in shapes}) > 1:
    raise ValueError(f'Points must have as many dimensions; got {got}.')
  return dtypes.promoted(*found)


def median_bandwidth(
  x: Array,
  *,
  scale: Array | float = 1.0,
  diagonal: bool = True,
  log: str = 'n+1',
  block_size: int | None = None,
  axis_name: str | None = None,
) -> Array:
  """Returns scale * median_ij |x_i - x_j|^2 / log(n + 1) [], without gradient.

  The median is exact, as `numpy.median` has it, and is found by counting instead of
  sorting. Where it is 0 (most points coincide, or n = 1), machine epsilon times the
  mean squared distance takes its place, and a floor keeps the result above zero. A
  point that is not finite makes it nan.

  Args:
    x: the points [n, d].
    scale: factor on the result.
    diagonal: whether the n zeros of the pairs (i, i) take part in the median.
    log: what the median is divided by: the logarithm of 'n+1', or of 'n' (of 2 if n
      is 1), or 'none', which divides by 1.
    block_size: rows of the distance matrix held at a time; None keeps memory
      bounded.
    axis_name: the mapped axis over which the points are split.
  """
  checks.positive(scale=scale)
  checks.choice(_LOGS, log=log)
  x = lax.stop_gradient(points(x=x)[0])
  rows = len(x)
  x = collectives.all_gather(x, axis_name)
  n = x.shape[0]
  median = jnp.zeros((), x.dtype)
  if diagonal or n > 1:
    median = _medians.median_squared_distance(
      x,
      diagonal=diagonal,
      block_size=block_size,
      rows=rows,
      axis_name=axis_name,
    )
  eps, tiny = jnp.finfo(x.dtype).eps, jnp.finfo(x.dtype).tiny
  # Points are taken from a middle first, since a mean far from 0 loses digits.
  spread = x - _distances.center_of(x)
  spread -= jnp.mean(spread, 0, keepdims=True)
  mean = 2 * jnp.mean(jnp.sum(spread * spread, 1))
  median = jnp.where(median > 0, median, eps * mean)
  median = jnp.where(jnp.isfinite(mean), median, jnp.nan)
  bandwidth = scale * median / _divisor(log, n)
  # All points may be equal.
  bandwidth = jnp.where(bandwidth == 0, tiny**0.5, bandwidth)
  # It is the same on every device, which the mean tells shard_map.
  return collectives.pmean(bandwidth.astype(x.dtype), axis_name)


def _divisor(log, num_points):
  """Returns what the rule of that name divides a median of n points by."""
  checks.choice(_LOGS, log=log)
  if log == 'none':
    return 1.0
  return jnp.log(num_points + 1.0 if log == 'n+1' else max(num_points, 2))


def block_rows(num_columns: int, block_size: int | None = None) -> int:
  """Returns how many rows a block has: `block_size`, or what bounds memory for None."""
  if block_size is None:
    entries = _BLOCK_ENTRIES.get(
      jax.default_backend(), _BLOCK_ENTRIES_ELSEWHERE
    )
    block_size = max(1, entries // num_columns)
  checks.count(block_size=block_size)
  return block_size


def map_rows(function, rows, num_columns: int, block_size: int | None):
  """Returns `function` mapped over the leading axis of `rows`, by blocks.

  Args:
    function: a function of one row of every leaf of `rows` to a tree of arrays.
    rows: a tree with leaves [n, ...].
    num_columns: the size of what one row makes, which chooses the block when
      `block_size` is None.
    block_size: rows taken at a time.
  """
  num_rows = jax.tree.leaves(rows)[0].shape[0]
  block_size = block_rows(num_columns, block_size)
  if num_rows <= block_size:
    return jax.vmap(function)(rows)
  # Blocks of nearly equal size leave a small remainder to a program of its own.
  num_blocks = -(-num_rows // block_size)
  block_size = -(-num_rows // num_blocks)
  return lax.map(function, rows, batch_size=block_size)
