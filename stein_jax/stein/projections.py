"""Directions that see particles in few dimensions at a time.

A basis is called as `basis(x, score, size, *, rng=None)` on points [n, d] of all
devices and returns an orthonormal matrix [d, d], whose columns are taken in blocks of
`size`. It has `needs_rng` where it draws.
"""

from collections.abc import Callable, Sequence

from flax import struct
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from stein_jax import build
from stein_jax import checks
from stein_jax import collectives
from stein_jax import dtypes
from stein_jax import kernels
from stein_jax.stein import _particles
from stein_jax.stein import calling
from stein_jax.stein import directions
from stein_jax.stein import discrepancies
from stein_jax.stein import whitening
from stein_jax.types import Array, Kernel, PRNGKey, Tree

_HIGHEST = lax.Precision.HIGHEST  # TPU and GPU products are half precision


@struct.dataclass
class RandomBasis:
  """A basis that is drawn anew at each call, every rotation as likely as another."""

  needs_rng = True

  def __call__(
    self, x: Array, score: Array, size: int, *, rng: PRNGKey
  ) -> Array:
    """Returns a basis [d, d] for points x [n, d]."""
    del score, size
    dim = x.shape[1]
    dtype = dtypes.at_least_float32(x).dtype
    normal = jax.random.normal(rng, (dim, dim), dtype)
    q, r = jnp.linalg.qr(normal)
    # With the signs of the triangle the law is that of no direction.
    return q * jnp.sign(jnp.diag(r))[None]


@struct.dataclass
class LearnedBasis:
  """A random basis that climbs the discrepancy that its blocks see [LZTWD22].

  The sum of `ksd` over the blocks grows by steps on the Grassmann manifold of each, and
  the blocks are made orthonormal to each other after every step.

  Attributes:
    kernel: radial profile; a rule for its bandwidth is applied in each block.
    num_steps: how many steps are taken at each call.
    step_size: their size, in units of the gradient's length in each block.
  """

  kernel: Kernel = kernels.RBF()
  num_steps: int = struct.field(pytree_node=False, default=5)
  step_size: Array | float = 0.1

  needs_rng = True

  def __call__(
    self, x: Array, score: Array, size: int, *, rng: PRNGKey
  ) -> Array:
    """Returns a basis [d, d] for points x [n, d] with scores [n, d]."""
    checks.count(minimum=0, num_steps=self.num_steps)
    checks.positive(step_size=self.step_size)
    x, score = _particles.points(x, score)
    slope = jax.grad(lambda basis: self.objective(basis, x, score, size))

    def climb(basis, _):
      step = slope(basis)
      # What stays within a block turns it, and changes nothing.
      block = jnp.arange(x.shape[1]) // size
      inner = _dot(basis.T, step)
      inner = jnp.where(block[:, None] == block[None], inner, 0)
      step -= _dot(basis, inner)
      length = jnp.sqrt(jnp.mean(step * step))
      step *= self.step_size / jnp.where(length > 0, length, 1)
      left, _, right = jnp.linalg.svd(basis + step)
      return _dot(left, right), None

    start = RandomBasis()(x, score, size, rng=rng)
    return lax.scan(climb, start, length=self.num_steps)[0]

  def objective(self, basis: Array, x: Array, score: Array, size: int) -> Array:
    """Returns the sum over blocks of their discrepancy [], which the basis climbs."""

    def of_block(columns, _):
      return discrepancies.ksd(
        _dot(x, columns), _dot(score, columns), self.kernel
      )

    return jnp.sum(jnp.stack(_over_blocks(of_block, basis, size)))


@struct.dataclass
class ProjectedSVGD:
  """The sum over blocks A of an orthonormal basis of A phi(A'x, A's) [LZTWD22] [GLH21].

  Each block has a kernel on its own few dimensions, in which the spread does not
  collapse. A block of one dimension is a slice. With fresh bases the direction is
  noisy: let the optimizer's rate fall, and take plain steps or `Whitened`, since Adam
  makes the noise larger where the density is narrow.

  Attributes:
    direction: that in a block, such as `SVGD`.
    size: dimensions of a block; the last may have fewer.
    basis: where the blocks come from, `RandomBasis` or `LearnedBasis`.

  Examples:
    >>> x = jax.random.normal(jax.random.key(0), (20, 5))
    >>> sliced = ProjectedSVGD()
    >>> print(jax.jit(sliced)(x, -x, rng=jax.random.key(1)).shape)
    (20, 5)
    >>> learned = ProjectedSVGD(size=2, basis=LearnedBasis())
    >>> print(jax.jit(learned)(x, -x, rng=jax.random.key(1)).shape)
    (20, 5)
  """

  direction: Callable[..., Tree] = directions.SVGD()
  size: int = struct.field(pytree_node=False, default=1)
  basis: Callable[..., Array] = RandomBasis()

  needs_rng = property(
    lambda self: calling.needs('rng', self.direction, self.basis)
  )
  needs_step = property(lambda self: calling.needs('step', self.direction))

  __call__ = _particles.called

  def _phi(self, x, score, at, *, axis_name, **available):
    checks.count(size=self.size)
    x, at = _particles.centred(x, at, axis_name=axis_name)
    everywhere = collectives.all_gather((x, score), axis_name)
    given = {}
    if calling.needs('rng', self.basis):
      given['rng'] = available['rng']
    with build.section('basis'):
      basis = self.basis(*lax.stop_gradient(everywhere), self.size, **given)
    basis = lax.stop_gradient(basis)
    checks.shape((x.shape[1],) * 2, basis=basis)

    def in_block(columns, block):
      options = dict(available)
      if 'rng' in options:
        # No two blocks share their noise, and none has the basis's key.
        options['rng'] = jax.random.fold_in(options['rng'], block)
      phi = calling.call(
        self.direction,
        _dot(x, columns),
        _dot(score, columns),
        at=None if at is None else _dot(at, columns),
        axis_name=axis_name,
        **options,
      )
      return _dot(phi, columns.T)

    with build.section('direction'):
      return sum(_over_blocks(in_block, basis, self.size))


@struct.dataclass
class SlicedSVGD:
  """SVGD of every coordinate of the score along a learned slice [GLH21].

  Coordinate a moves by the mean of s_a k(g.x_j, g.y) and of the derivative of k along
  x_a, with a unit vector g for each a. The slices climb the discrepancy that they see,
  by some steps from the coordinates themselves at each call.

  Attributes:
    kernel: radial profile; a rule for its bandwidth is applied along each slice.
    num_steps: how many steps are taken at each call; 0 is `CoordinateSVGD`.
    step_size: their size, an angle in radians.

  Examples:
    >>> x = jax.random.normal(jax.random.key(0), (20, 3))
    >>> print(jax.jit(SlicedSVGD())(x, -x).shape)
    (20, 3)
  """

  kernel: Kernel = kernels.RBF(bandwidth=kernels.Median(scale=2.0, log='none'))
  num_steps: int = struct.field(pytree_node=False, default=5)
  step_size: Array | float = 0.1

  __call__ = _particles.called

  def _phi(self, x, score, at, *, axis_name):
    x, at = _particles.centred(x, at, axis_name=axis_name)
    slices = self.slices(*collectives.all_gather((x, score), axis_name))

    def along(row):
      a, slice_, score = row
      # In a plane of which one axis is the slice and the other has the score, the
      # direction's parts are the repulsion and the drive.
      plane = lambda points: jnp.stack(
        [_dot(points, slice_), jnp.zeros(len(points), points.dtype)], 1
      )
      repulsion, drive = directions.svgd_direction(
        plane(x),
        jnp.stack([jnp.zeros_like(score), score], 1),
        self.kernel,
        at=None if at is None else plane(at),
        axis_name=axis_name,
      ).T
      return drive + slice_[a] * repulsion

    return lax.map(along, (jnp.arange(x.shape[1]), slices, score.T)).T

  def slices(self, x: Array, score: Array) -> Array:
    """Returns a unit vector [d] for each coordinate [d, d], constants to a direction.

    Args:
      x: the particles of all devices [n, d].
      score: their scores [n, d].
    """
    checks.count(minimum=0, num_steps=self.num_steps)
    checks.positive(step_size=self.step_size)
    x, score = lax.stop_gradient((x, score))

    def learned(row):
      a, start, score = row

      def climb(slice_, _):
        slope = jax.grad(lambda g: self.objective(g, a, x, score))(slice_)
        slope -= jnp.sum(slope * slice_) * slice_
        length = jnp.sqrt(jnp.sum(slope * slope))
        slope /= jnp.where(length > 0, length, 1)
        angle = jnp.asarray(self.step_size, x.dtype)
        return jnp.cos(angle) * slice_ + jnp.sin(angle) * slope, None

      # A start that depends on the score lets the loop's carry keep one type.
      return lax.scan(climb, start + 0 * score[0], length=self.num_steps)[0]

    dim = x.shape[1]
    return lax.map(
      learned, (jnp.arange(dim), jnp.eye(dim, dtype=x.dtype), score.T)
    )

  def objective(self, slice_: Array, a: Array, x: Array, score: Array) -> Array:
    """Returns the discrepancy [] that a slice [d] sees, which it climbs.

    Args:
      slice_: g, for the coordinate a.
      a: the coordinate [].
      x: particles [n, d].
      score: s_a at the particles [n].
    """
    along = _dot(x, slice_)[:, None]
    seen = lambda score: discrepancies.ksd(along, score[:, None], self.kernel)
    ahead, none, back = seen(score), seen(0 * score), seen(-score)
    # A polynomial of g_a, which multiplies each derivative. Discrepancies are its value
    # at 1, that at -1 and its last term.
    odd, even = (ahead - back) / 2, (ahead + back) / 2 - none
    return even + slice_[a] * odd + slice_[a] ** 2 * none


@struct.dataclass
class CoordinateSVGD:
  """SVGD with a kernel for each coordinate, on it and its neighbours [Z18].

  Coordinate a moves by the mean of k_a s_a + d k_a / dx_a, where k_a sees a and the
  coordinates that p ties it to (its Markov blanket). Without a graph k_a sees a alone:
  right for densities whose coordinates are independent, and for no other.

  Attributes:
    kernel: radial profile; a rule for its bandwidth is applied to what each sees.
    neighbours: for each coordinate of a particle, as a point [d], the others that its
      kernel sees; () for none.

  Examples:
    A chain of three:

    >>> direction = CoordinateSVGD(neighbours=((1,), (0, 2), (1,)))
    >>> x = jax.random.normal(jax.random.key(0), (20, 3))
    >>> print(jax.jit(direction)(x, -x).shape)
    (20, 3)
  """

  kernel: Kernel = kernels.RBF()
  neighbours: Sequence[Sequence[int]] = struct.field(
    pytree_node=False, default=()
  )

  __call__ = _particles.called

  def _phi(self, x, score, at, *, axis_name):
    seen, counts = self._seen(x.shape[1])

    def along(row):
      seen, counts, score = row
      near = lambda points: points[:, seen] * counts[None].astype(points.dtype)
      # The coordinate itself is the first, and no other moves.
      own = jnp.pad(score[:, None], ((0, 0), (0, len(seen) - 1)))
      phi = directions.svgd_direction(
        near(x),
        own,
        self.kernel,
        at=None if at is None else near(at),
        axis_name=axis_name,
      )
      return phi[:, 0]

    return lax.map(along, (seen, counts, score.T)).T

  def _seen(self, dim):
    """Returns the coordinates that each kernel sees [d, k], and which count [d, k]."""
    near = self.neighbours or ((),) * dim
    if len(near) != dim:
      raise ValueError(
        f'neighbours={checks.shown(near)} must be as many as the coordinates: {dim}.'
      )
    for a, others in enumerate(near):
      name = f'neighbours[{a}]'
      checks.count(
        minimum=0,
        maximum=dim - 1,
        **{f'{name}[{i}]': other for i, other in enumerate(others)},
      )
      if len({a, *others}) != len(others) + 1:
        raise ValueError(
          f'{name}={others} must be other coordinates, each once.'
        )
    size = 1 + max(map(len, near))
    # Those that see less repeat themselves, which does not count.
    padded = lambda a, others: (a, *others, *(a,) * (size - 1 - len(others)))
    rows = [padded(a, others) for a, others in enumerate(near)]
    counts = [np.arange(size) <= len(others) for others in near]
    return jnp.array(rows), jnp.array(counts)


@struct.dataclass
class InformedSVGD:
  """SVGD in the subspace that the likelihood informs; the rest stays prior [CG20].

  For a posterior with a Gaussian prior N(mean, C). In units of C the subspace is that
  of the leading eigenvectors of the particles' mean of g g', g being the score of the
  likelihood. The direction moves particles within it alone: begin at draws of the
  prior, which are right where the likelihood is flat.

  Attributes:
    prior: the prior's units, as `Given(covariance)`.
    mean: the prior's mean [d] or [].
    direction: that in the subspace, such as `SVGD`.
    rank: dimensions of the subspace, at most.
    tolerance: eigenvalue below which a direction is not informed.

  Examples:
    >>> x = jax.random.normal(jax.random.key(0), (20, 5))  # of the prior
    >>> score = -x.at[:, 0].multiply(10.0)  # the first coordinate is observed
    >>> direction = InformedSVGD(whitening.Given(jnp.ones(5)), rank=2)
    >>> print(jnp.abs(direction(x, score)).max(0) > 0)
    [ True False False False False]
  """

  prior: Callable[..., whitening.Units]
  mean: Array | float = 0.0
  direction: Callable[..., Tree] = directions.SVGD()
  rank: int = struct.field(pytree_node=False, default=10)
  tolerance: Array | float = 1e-4

  needs_rng = property(lambda self: calling.needs('rng', self.direction))
  needs_step = property(lambda self: calling.needs('step', self.direction))

  __call__ = _particles.called

  def _phi(self, x, score, at, *, axis_name, **available):
    checks.count(rank=self.rank)
    checks.non_negative(tolerance=self.tolerance)
    with build.section('prior'):
      units = self.prior(x, axis_name=axis_name)
    mean = jnp.broadcast_to(jnp.asarray(self.mean, x.dtype), x.shape[1:])[None]
    z = _particles.times(units.inverse, x - mean)
    score = _particles.times(units.root.T, score)
    columns = self._informed(score + z, axis_name)
    with build.section('direction'):
      phi = calling.call(
        self.direction,
        _dot(z, columns),
        _dot(score, columns),
        at=None
        if at is None
        else _dot(_particles.times(units.inverse, at - mean), columns),
        axis_name=axis_name,
        **available,
      )
    return _particles.times(units.root, _dot(phi, columns.T))

  def _informed(self, score, axis_name):
    """Returns the subspace's orthonormal columns [d, rank], 0 where there is none."""
    score = lax.stop_gradient(score)
    products = collectives.pmean(_dot(score.T, score) / len(score), axis_name)
    values, vectors = jnp.linalg.eigh(products)
    # Eigenvalues of 0 are as large as the largest one's rounding.
    noise = len(values) * jnp.finfo(values.dtype).eps * values[-1]
    leads = ~(values <= jnp.maximum(self.tolerance, noise))
    return (vectors * leads[None])[:, ::-1][:, : self.rank]


def _dot(a, b):
  return jnp.dot(a, b, precision=_HIGHEST)


def _over_blocks(function, basis, size):
  """Returns the results of a function of each block of a basis [d, d] and its number.

  The results of whole blocks are summed, and come first.
  """
  dim = len(basis)
  whole = dim - dim % size
  found = []
  if whole:
    blocks = basis[:, :whole].T.reshape(-1, size, dim)
    numbered = blocks, jnp.arange(len(blocks))
    of_blocks = lax.map(lambda row: function(row[0].T, row[1]), numbered)
    found.append(jnp.sum(of_blocks, 0))
  if whole < dim:
    found.append(function(basis[:, whole:], whole // size))
  return found
