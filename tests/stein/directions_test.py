"""Every direction against its definition, in one table.

A row has a value and its definition, mostly by a matrix-valued kernel K(y, x_j), as a
function of the particles. Whatever the particles decide (middles, metrics, bandwidths)
is a number there, so that derivatives of the definition take it for a constant, as
those of the value must.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stein_jax import kernels
from stein_jax import stein
from tests.stein import literal

_N, _D = 8, 3
_RNG = jax.random.key(5)
_COVARIANCE = np.array([[2.0, 0.3, 0.0], [0.3, 0.5, -0.2], [0.0, -0.2, 1.0]])


class Row(NamedTuple):
  """A row of the table.

  Attributes:
    direction: the value.
    define: a function of the particles [n, d], in float64, to one of particles, scores
      and other points [m, d] to the direction [m, d].
    given: what the direction asks for.
    has_at: whether it has a direction at other points.
    has_score: whether it depends on the scores.
    shifts: whether a translation of the particles changes nothing.
  """

  direction: Any
  define: Callable
  given: dict = {}
  has_at: bool = True
  has_score: bool = True
  shifts: bool = True


def by(make):
  """Returns the definition by a kernel that is a function of the particles."""
  return lambda x: functools.partial(literal.direction, make(x))


def _squared(y, x):
  return jnp.sum((y - x) ** 2)


def _median(x):
  sq_dist = np.sum((x[:, None] - x[None]) ** 2, -1)
  return np.median(sq_dist)


def _scalar(kernel):
  """Returns K = k I of a function of two points to a number."""
  return lambda y, x: kernel(y, x) * jnp.eye(len(x))


def _rbf(x):
  return _scalar(lambda y, z: jnp.exp(-_squared(y, z) / 2.0))


def _imq_by_rule(x):
  bandwidth = _median(x) / np.log(len(x) + 1)
  return _scalar(lambda y, z: (1 + _squared(y, z) / bandwidth) ** -0.5)


def _polynomial(degree, bandwidth):
  def kernel(x):
    mean = x.mean(0)
    inner = lambda y, z: (y - mean) @ (z - mean)
    return _scalar(lambda y, z: (1 + inner(y, z) / bandwidth) ** degree)

  return kernel


def _sum(*weighted):
  def kernel(x):
    parts = [(weight, make(x)) for weight, make in weighted]
    return lambda y, z: sum(weight * part(y, z) for weight, part in parts)

  return kernel


def _white(make, covariance, precondition):
  """The kernel in coordinates z, x = L z, times C = L L' or not [WTBL19]."""

  def kernel(x):
    c, mean = covariance(x), x.mean(0)
    inverse = np.linalg.inv(np.linalg.cholesky(c))
    inner = make((x - mean) @ inverse.T)
    of_white = lambda y, z: inner(inverse @ (y - mean), inverse @ (z - mean))
    left = c if precondition else np.eye(len(c))
    return lambda y, z: left @ of_white(y, z)

  return kernel


def _ridged(x):
  c = np.cov(x.T, ddof=0)
  return c + 0.1 * np.diag(np.diag(c))


def _annealed(x):
  """The direction at a quarter of the score, with half the repulsion.

  That is half of it at half the score.
  """
  phi = by(_rbf)(x)
  return lambda x, score, at: 0.5 * phi(x, 0.5 * score, at)


def _matrix(kernel, x, y):
  return jax.vmap(lambda a: jax.vmap(lambda b: kernel(a, b)[0, 0])(y))(x)


def _noisy(x):
  """Drift, Langevin's part, and sqrt(2 / step_size) C z with C C' = (K + 0.3 I) / n."""

  def phi(x, score, at):
    drift = literal.direction(_rbf(x), x, score, at)
    spread = (_matrix(_rbf(x), x, x) + 0.3 * jnp.eye(len(x))) / len(x)
    z = jax.random.normal(_RNG, x.shape, 'float32').astype(x.dtype)
    noise = jnp.linalg.cholesky(spread) @ z
    return drift + 0.3 / len(x) * score + (2 / 0.5) ** 0.5 * noise

  return phi


def _regularized(x):
  """(1 - nu) mean_j k(y, x_j) f(x_j) + nu f(y) = phi(y), first at the particles."""

  def phi(x, score, at):
    kernel, nu = _rbf(x), 0.2
    smooth = (1 - nu) / len(x) * _matrix(kernel, x, x)
    of = literal.direction(kernel, x, score, x)
    f = jnp.linalg.solve(smooth + nu * jnp.eye(len(x)), of)
    across = (1 - nu) / len(x) * _matrix(kernel, at, x)
    return (literal.direction(kernel, x, score, at) - across @ f) / nu

  return phi


def _log_density(position):
  x = jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(position)])
  return -jnp.sum(jnp.abs(x) ** 3) / 3


def _gradient_free(x):
  """Means under rho / p of the terms with rho's score, rho fitted to the particles."""
  inverse = np.linalg.inv(_ridged(x) * 0.5)
  mean = x.mean(0)
  log_rho = lambda y: -0.5 * (y - mean) @ inverse @ (y - mean)

  def phi(x, score, at):
    del score
    weight = jax.nn.softmax(jax.vmap(log_rho)(x) - jax.vmap(_log_density)(x))
    score = jax.vmap(jax.grad(log_rho))(x)

    def term(y, x_j, s_j, w_j):
      k = lambda x_j: jnp.exp(-_squared(y, x_j) / 2.0)
      return w_j * (k(x_j) * s_j + jax.grad(k)(x_j))

    over_j = jax.vmap(term, (None, 0, 0, 0))
    return jax.vmap(lambda y: jnp.sum(over_j(y, x, score, weight), 0))(at)

  return phi


def _features(x):
  """The kernel that is the mean of cos(w.(x - y)), w ~ N(0, (2 / h) I)."""
  del x
  normal = jax.random.normal(jax.random.split(_RNG)[1], (7, _D))
  w = np.asarray(normal, np.float64)  # h = 2
  return _scalar(lambda y, z: jnp.mean(jnp.cos(w @ (y - z))))


def _hessians(x):
  return np.array([np.diag(2 * np.abs(x_j)) for x_j in x])


def _by_curvature(x):
  """The kernel times the inverse mean Hessian, in its units."""
  return _white(_rbf, lambda x: np.linalg.inv(_hessians(x).mean(0)), True)(x)


def _newton(x):
  """H_i^-1 phi(x_i) with k = exp(-|x - y|_M^2 / 2), M the mean Hessian over d."""
  curvatures = _hessians(x)
  metric = curvatures.mean(0) / x.shape[1]
  k = lambda y, z: jnp.exp(-0.5 * (y - z) @ metric @ (y - z))

  def phi(x, score, at):
    def matrix(x_i):
      values = jax.vmap(lambda x_j: k(x_i, x_j))(x)
      slopes = jax.vmap(lambda x_j: jax.grad(k, 1)(x_i, x_j))(x)
      total = jnp.einsum('j,jab->ab', values**2, curvatures)
      return (total + jnp.einsum('ja,jb->ab', slopes, slopes)) / len(x)

    of = literal.direction(_scalar(k), x, score, at)
    return jnp.linalg.solve(jax.vmap(matrix)(x), of[..., None])[..., 0]

  return phi


def _mixture(x):
  """sum_l w_l(y) w_l(z) Q_l^-1 exp(-|y - z|_Q^2 / 2), anchors rows 0, 4, 7 of eight."""
  anchors = x[np.array([0, 4, 7]) if len(x) == 8 else np.arange(len(x))]
  q = _hessians(anchors)
  q = (q + q.mean(0)) / 2
  inverses = np.linalg.inv(q)

  def weights(y):
    density = lambda a, q: (
      0.5 * jnp.linalg.slogdet(q)[1] - 0.5 * (y - a) @ q @ (y - a)
    )
    return jax.nn.softmax(
      jax.vmap(density)(jnp.asarray(anchors), jnp.asarray(q))
    )

  def kernel(y, z):
    distance = jnp.einsum('a,lab,b->l', y - z, q, y - z)
    each = weights(y) * weights(z) * jnp.exp(-distance / 2)
    return jnp.einsum('l,lab->ab', each, inverses)

  return kernel


def _blocks(make, size):
  """sum_b A_b k_b(A_b' y, A_b' z) A_b' over blocks of a random basis's columns."""
  normal = np.float64(jax.random.normal(_RNG, (_D, _D)))
  q, r = np.linalg.qr(normal)
  basis = q * np.sign(np.diag(r))

  def kernel(x):
    parts = [basis[:, i : i + size] for i in range(0, _D, size)]
    inner = [(columns, make(x @ columns)) for columns in parts]
    return lambda y, z: sum(
      columns @ of(y @ columns, z @ columns) @ columns.T
      for columns, of in inner
    )

  return kernel


def _coordinates(*seen):
  """The diagonal of kernels k_a, each of the coordinates that it sees."""

  def kernel(x):
    inner = [_imq_by_rule(x[:, list(each)]) for each in seen]
    return lambda y, z: jnp.diag(
      jnp.stack(
        [
          of(y[jnp.array(each)], z[jnp.array(each)])[0, 0]
          for of, each in zip(inner, seen, strict=True)
        ]
      )
    )

  return kernel


_LEARNED = stein.SlicedSVGD(kernels.RBF(2.0), num_steps=4, step_size=0.2)


def _slices(x):
  """The diagonal of kernels, each along the slice that is learned at these points."""
  score = literal.points(len(x), _D)[1]
  learn = jax.jit(_LEARNED.slices)
  slices = np.float64(learn(np.float32(x - x.mean(0)), score))
  return lambda y, z: jnp.diag(jnp.exp(-((slices @ (y - z)) ** 2) / 2.0))


def _informed(x):
  """SVGD in the two leading eigenvectors V of the likelihood's part, in prior units."""
  root = np.linalg.cholesky(_COVARIANCE)
  inverse = np.linalg.inv(root)

  def phi(x_now, score, at):
    white = lambda x: (x - 0.5) @ inverse.T
    likelihood = score @ root + white(x)
    vectors = jnp.linalg.eigh(likelihood.T @ likelihood)[1][:, 1:]
    inner = literal.direction(
      _scalar(lambda y, z: jnp.exp(-_squared(y, z) / 2.0)),
      white(x_now) @ vectors,
      score @ root @ vectors,
      white(at) @ vectors,
    )
    return inner @ vectors.T @ root.T

  return phi


_GIVEN = dict(rng=_RNG, step=jnp.asarray(250), log_density=_log_density)
_SVGD = stein.SVGD(kernels.RBF(2.0))
ROWS = {
  'svgd': Row(stein.SVGD(kernels.IMQ()), by(_imq_by_rule)),
  'sum of kernels': Row(
    stein.SVGD(kernels.Sum((kernels.RBF(2.0), kernels.IMQ()), (0.5, 2.0))),
    by(_sum((0.5, _rbf), (2.0, _imq_by_rule))),
  ),
  'product': Row(
    stein.SVGD(kernels.Product((kernels.RBF(4.0), kernels.RBF(4.0)))),
    by(_rbf),
  ),
  'linear': Row(stein.PolynomialSVGD(bandwidth=2.0), by(_polynomial(1, 2.0))),
  'quadratic': Row(
    stein.PolynomialSVGD(2, 3.0, block_size=3), by(_polynomial(2, 3.0))
  ),
  'sum': Row(
    stein.Sum((_SVGD, stein.PolynomialSVGD(bandwidth=2.0)), (0.5, 2.0)),
    by(_sum((0.5, _rbf), (2.0, _polynomial(1, 2.0)))),
  ),
  'whitened': Row(
    stein.Whitened(stein.SVGD(kernels.IMQ()), stein.Covariance(0.1), clip=0.0),
    by(_white(_imq_by_rule, _ridged, True)),
  ),
  'linear, whitened': Row(
    stein.Whitened(
      stein.PolynomialSVGD(), stein.Covariance(0.1), False, clip=0.0
    ),
    by(_white(_polynomial(1, 1.0), _ridged, False)),
  ),
  'bandwidths': Row(
    stein.Whitened(_SVGD, stein.Variances(), False, clip=0.0),
    by(_white(_rbf, lambda x: np.diag(np.var(x, 0)), False)),
  ),
  'given': Row(
    stein.Whitened(_SVGD, stein.Given(_COVARIANCE), clip=0.0),
    by(_white(_rbf, lambda x: _COVARIANCE, True)),
  ),
  'annealed': Row(
    stein.Annealed(_SVGD, stein.LinearRise(1000), temperature=0.5),
    _annealed,
    _GIVEN,
  ),
  'noisy': Row(
    stein.NoisySVGD(kernels.RBF(2.0), step_size=0.5, langevin=0.3),
    _noisy,
    _GIVEN,
    has_at=False,
  ),
  'regularized': Row(
    stein.RegularizedSVGD(kernels.RBF(2.0), nu=0.2), _regularized
  ),
  'gradient-free': Row(
    stein.GradientFreeSVGD(
      kernels.RBF(2.0), stein.FittedGaussian(0.5, ridge=0.1), block_size=3
    ),
    _gradient_free,
    _GIVEN,
    has_score=False,
    shifts=False,
  ),
  'curvature': Row(
    stein.Whitened(_SVGD, stein.Curvature(), clip=0.0),
    by(_by_curvature),
    _GIVEN,
    shifts=False,
  ),
  'newton': Row(
    stein.NewtonSVGD(), _newton, _GIVEN, has_at=False, shifts=False
  ),
  'mixture': Row(
    stein.MixtureSVGD(kernels.RBF(2.0), num_anchors=3),
    by(_mixture),
    _GIVEN,
    shifts=False,
  ),
  'sliced': Row(
    stein.ProjectedSVGD(stein.SVGD(kernels.IMQ())),
    by(_blocks(_imq_by_rule, 1)),
    _GIVEN,
  ),
  'projected': Row(
    stein.ProjectedSVGD(_SVGD, size=2), by(_blocks(_rbf, 2)), _GIVEN
  ),
  'learned slices': Row(_LEARNED, by(_slices)),
  'coordinates': Row(
    stein.CoordinateSVGD(kernels.IMQ()), by(_coordinates((0,), (1,), (2,)))
  ),
  'neighbours': Row(
    stein.CoordinateSVGD(kernels.IMQ(), ((2,), (), (0, 1))),
    by(_coordinates((0, 2), (1,), (2, 0, 1))),
  ),
  'informed': Row(
    stein.InformedSVGD(stein.Given(_COVARIANCE), 0.5, _SVGD, rank=2),
    _informed,
    shifts=False,
  ),
  'random features': Row(
    stein.RandomFeatureSVGD(kernels.RBF(2.0), num_features=7),
    by(_features),
    _GIVEN,
  ),
}
_NAMES = tuple(ROWS)


@functools.cache
def _compiled(name):
  call = functools.partial(stein.call, ROWS[name].direction, **ROWS[name].given)
  return jax.jit(lambda x, score, options: call(x, score, **options))


def called(name, x, score, **options):
  """Returns the direction of a row, compiled once for each shape."""
  return _compiled(name)(x, score, options)


def defined(row, x, score, at):
  """Returns the direction by its definition, in float64."""
  x = np.asarray(x, np.float64)
  return literal.in_float64(row.define(x))(x, score, at)


class DirectionsTest(parameterized.TestCase):
  @parameterized.parameters(*_NAMES)
  def test_is_the_definition(self, name):
    x, score = literal.points(_N, _D)
    expected = defined(ROWS[name], x, score, x)
    literal.assert_close(called(name, x, score), expected)
    if ROWS[name].has_at:
      at = literal.points(3, _D, seed=1)[0]
      expected = defined(ROWS[name], x, score, at)
      literal.assert_close(called(name, x, score, at=at), expected)

  @parameterized.parameters(*_NAMES)
  def test_more_dimensions_than_particles(self, name):
    # Metrics are made positive definite, and the linear kernel is of pairs.
    x, score = literal.points(2, _D)
    expected = defined(ROWS[name], x, score, x)
    literal.assert_close(called(name, x, score), expected, 512)

  @parameterized.parameters(*_NAMES)
  def test_of_a_tree(self, name):
    x, score = literal.points(_N, _D)
    shape = lambda a: {'a': a[:, 0], 'b': a[:, 1:].reshape(-1, 2, 1)}
    found = called(name, shape(x), shape(score))
    expected = shape(called(name, x, score))
    jax.tree.map(literal.assert_close, found, expected)
    half = called(name, jnp.asarray(x, 'bfloat16'), jnp.asarray(score))
    self.assertEqual(half.dtype, jnp.bfloat16)

  @parameterized.parameters(*_NAMES)
  def test_what_follows_from_the_particles_has_no_gradient(self, name):
    row, (x, score) = ROWS[name], literal.points(_N, _D)
    move = literal.points(_N, _D, seed=1)[0]
    call = functools.partial(stein.call, row.direction, **row.given)
    slope = jax.jit(
      lambda x: jax.jvp(lambda x: call(x, score), (x,), (move,))[1]
    )
    phi = row.define(np.asarray(x, np.float64))

    @literal.in_float64
    def expected(x, score, move):
      return jax.jvp(lambda x: phi(x, score, x), (x,), (move,))[1]

    literal.assert_close(slope(x), expected(x, score, move), 256)

  @parameterized.parameters(*(n for n, row in ROWS.items() if row.shifts))
  def test_far_from_zero(self, name):
    # On multiples of 2^-10, the spacing of floats at 10^4, x + 10^4 is exact.
    x, score = literal.points(_N, _D)
    x = np.round(x * 1024) / 1024
    far = called(name, x + np.float32(1e4), score)
    literal.assert_close(far, called(name, x, score), 256)

  @parameterized.parameters(*_NAMES)
  def test_nan_is_not_swallowed(self, name):
    for i in range(1 + ROWS[name].has_score):
      arrays = list(literal.points(_N, _D))
      arrays[i][-1, -1] = np.nan
      found = called(name, *arrays)
      self.assertTrue(np.all(np.any(np.isnan(found), 1)))

  @parameterized.parameters(*_NAMES)
  def test_particles_split_over_devices(self, name):
    self.check_split(name, 'shard_map')

  @parameterized.product(name=_NAMES, mode=['vmap', 'pmap'])
  @pytest.mark.slow
  def test_particles_split_otherwise(self, name, mode):
    self.check_split(name, mode)

  def check_split(self, name, mode):
    row, (x, score) = ROWS[name], literal.points(_N, _D)
    local = functools.partial(
      stein.call, row.direction, axis_name=literal.AXIS, **row.given
    )
    found = literal.mapped(mode, local, jnp.array(x), jnp.array(score))
    literal.assert_close(found, called(name, x, score), 256)

  @parameterized.parameters(*(n for n, row in ROWS.items() if row.has_score))
  def test_refuses_scores_unlike_the_particles(self, name):
    x, score = literal.points(_N, _D)
    with self.assertRaisesRegex(ValueError, 'score has shape'):
      stein.call(ROWS[name].direction, x, score[:, :1], **ROWS[name].given)


if __name__ == '__main__':
  absltest.main()
