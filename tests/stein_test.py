"""Tests of the Stein primitives against literal definitions in float64."""

import functools
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import chex
import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType, Mesh, PartitionSpec
import numpy as np
import pytest
from scipy import stats

from stein_jax import _sums
from stein_jax import collectives
from stein_jax import kernels
from stein_jax import stein

# Sums of products, centred: a few roundings of the largest term.
_ROUNDINGS = 64
_AXIS = 'batch'
_KINDS = {
  'imq': kernels.IMQ,
  'rational_quadratic': kernels.RationalQuadratic,
  'rbf': kernels.RBF,
}
_PROFILES = tuple(_KINDS)


def _kernel(name, bandwidth):
  return _KINDS[name](bandwidth)


def _pair(name, bandwidth):
  """Returns k(x, y) [] of two points [d]."""
  kernel = _kernel(name, bandwidth)
  return lambda x, y: kernel(jnp.sum((x - y) ** 2))


def _in_float64(function, static=()):
  """Returns a function of a profile's name and arrays, computed in float64."""
  compiled = jax.jit(function, static_argnums=0, static_argnames=static)

  def wrapped(name, *arrays, **keywords):
    with jax.enable_x64(True):
      arrays = [jnp.asarray(np.asarray(a, np.float64)) for a in arrays]
      return np.asarray(compiled(name, *arrays, **keywords))

  return wrapped


def _at(name, bandwidth, x, score, y, normalize, block_size):
  return _compiled(stein.svgd_direction, 'normalize', 'block_size')(
    name, bandwidth, x, score, at=y, normalize=normalize, block_size=block_size
  )


@functools.partial(_in_float64, static='normalize')
def _direction_at(name, bandwidth, x, score, y, *, normalize):
  """The mean over j of k(x_j, y) s(x_j) + grad_{x_j} k(x_j, y) [d]."""

  def term(x_j, score_j):
    k, gradient = jax.value_and_grad(_pair(name, bandwidth))(x_j, y)
    return k * score_j + gradient, k

  terms, k = jax.vmap(term)(x, score)
  return jnp.sum(terms, 0) / (len(x) if normalize == 'count' else jnp.sum(k))


@functools.partial(_in_float64, static=('normalize', 'diagonal'))
def _direction(name, bandwidth, x, score, *, normalize='count', diagonal=True):
  """The mean over j, or j != i, of k(x_j, x_i) s(x_j) + grad_{x_j} k(x_j, x_i)."""

  def term(x_j, score_j, x_i):
    k, gradient = jax.value_and_grad(_pair(name, bandwidth))(x_j, x_i)
    return k * score_j + gradient, k

  over_j = jax.vmap(term, (0, 0, None))
  terms, k = jax.vmap(over_j, (None, None, 0))(x, score, x)
  counts = np.ones((len(x), len(x))) - (0 if diagonal else np.eye(len(x)))
  k, terms = counts * k, counts[..., None] * terms
  by = jnp.sum(counts if normalize == 'count' else k, 1, keepdims=True)
  return jnp.sum(terms, 1) / by


@_in_float64
def _stein_matrix(name, bandwidth, x, score_x, y, score_y):
  """s(x).s(y) k + s(x).grad_y k + s(y).grad_x k + tr grad_x grad_y k."""
  k = _pair(name, bandwidth)
  k_x, k_y = jax.grad(k, 0), jax.grad(k, 1)

  def at(x, s_x, y, s_y):
    trace = jnp.trace(jax.jacfwd(k_x, 1)(x, y))
    return s_x @ s_y * k(x, y) + s_x @ k_y(x, y) + s_y @ k_x(x, y) + trace

  over_y = jax.vmap(at, (None, None, 0, 0))
  return jax.vmap(over_y, (0, 0, None, None))(x, score_x, y, score_y)


def _ksd(u, unbiased):
  """Returns the mean of the Stein matrix [], with or without its diagonal."""
  return np.mean(u[~np.eye(len(u), dtype=bool)] if unbiased else u)


def _points(n, d, *, offset=0.0, spread=1.0, repeats=1, dtype=np.float32):
  """Returns points and scores [n repeats, d]."""
  x, score = np.random.default_rng((n, d)).normal(size=(2, n, d))
  x = np.repeat(offset + spread * x, repeats, 0)
  return x.astype(dtype), np.repeat(score, repeats, 0).astype(dtype)


def _with_two_far(n):
  """Returns points and scores [n, 3], two of which are far from all others."""
  x, score = _points(n, 3)
  x[0] += 1e6
  x[7, 1] -= 3e5
  return x, score


def _scale(x):
  """Returns a bandwidth on the scale of the points."""
  x = np.asarray(x, np.float64)
  return float(np.mean(np.sum((x - x.mean(0)) ** 2, -1))) or 1.0


def _assert_close(actual, expected, dtype=np.float32, largest=None):
  """Agreement to rounding of the largest entry."""
  expected = np.asarray(expected, np.float64)
  largest = np.max(np.abs(expected)) if largest is None else largest
  np.testing.assert_allclose(
    np.asarray(actual, np.float64),
    expected,
    rtol=0,
    atol=_ROUNDINGS * np.finfo(dtype).eps * largest,
  )


def _compiled(function, *static):
  """Returns a primitive with its kernel as (name, bandwidth), compiled."""

  def named(name, bandwidth, *arrays, **keywords):
    return function(*arrays, _kernel(name, bandwidth), **keywords)

  return jax.jit(named, static_argnums=0, static_argnames=static)


_actual_direction = _compiled(
  stein.svgd_direction, 'normalize', 'diagonal', 'block_size'
)
_actual_matrix = _compiled(stein.stein_matrix)
_actual_ksd = _compiled(stein.ksd, 'unbiased', 'block_size')

_HARD = (
  ('one', 1, 1, {}),
  ('two', 2, 3, {}),
  ('three', 3, 1, {}),
  ('offset', 6, 3, {'offset': 1e4}),
  ('spread', 6, 3, {'spread': 1e-6}),
  ('duplicates', 3, 3, {'repeats': 2}),
  ('offset_duplicates', 3, 3, {'repeats': 2, 'offset': 1e4}),
  ('same', 1, 3, {'repeats': 6, 'offset': 1e4}),
)
_WIDE = (
  ('one_wide', 1, 3072, {}),
  ('wide', 3, 3072, {}),
  ('wide_offset', 3, 3072, {'offset': 1e4}),
)


class OperatorTest(chex.TestCase):
  @chex.all_variants
  def test_by_hand(self):
    # For s(x) = -x and phi(x) = x: s.phi + div phi = d - |x|^2.
    x = jnp.array([[0.0, 0.0], [1.0, 2.0], [3.0, 0.0]])
    operator = self.variant(
      lambda x: stein.stein_operator(jnp.negative, lambda y: y, x)
    )
    np.testing.assert_array_equal(operator(x), [2, -3, -7])

  @parameterized.parameters((0.0, True), (0.5, False))
  def test_has_mean_zero_under_its_own_density(self, shift, is_zero):
    means = np.array([[-1.0, 0.0], [1.0, 0.5], [0.0, -1.5]])
    rng, num = np.random.default_rng(0), 20000
    x = means[rng.integers(3, size=num)] + rng.normal(size=(num, 2)) + shift

    def log_density(x):
      sq_dist = jnp.sum((x[None] - jnp.array(means)) ** 2, -1)
      return jax.nn.logsumexp(-0.5 * sq_dist)

    operator = jax.jit(
      functools.partial(
        stein.stein_operator,
        jax.vmap(jax.grad(log_density)),
        lambda x: jnp.sin(x) + x[:, ::-1] ** 2,
      )
    )
    values = np.asarray(operator(jnp.array(x, jnp.float32)), np.float64)
    errors = abs(np.mean(values)) / (np.std(values) / num**0.5)
    self.assertEqual(errors < 4, is_zero)


class DirectionTest(chex.TestCase):
  @parameterized.product(
    name=_PROFILES, normalize=['count', 'row_sum'], block_size=[None, 4]
  )
  def test_is_the_definition(self, name, normalize, block_size):
    x, score = _points(6, 3)
    arguments = name, 2.0, x, score
    _assert_close(
      _actual_direction(*arguments, normalize=normalize, block_size=block_size),
      _direction(*arguments, normalize=normalize),
    )

  @parameterized.named_parameters(*_HARD, *_WIDE)
  def test_on_hard_points(self, n, d, keywords):
    x, score = _points(n, d, **keywords)
    arguments = 'rbf', _scale(x), x, score
    _assert_close(_actual_direction(*arguments), _direction(*arguments))

  @parameterized.product(
    name=['rbf', 'imq'], normalize=['count', 'row_sum'], block_size=[None, 4]
  )
  def test_without_the_particles_own_term(self, name, normalize, block_size):
    options = dict(normalize=normalize, diagonal=False)
    # Few points, many, and two that are far, which take sums of other forms.
    for x, score in (_points(6, 3), _points(70, 9), _with_two_far(70)):
      arguments = name, 2.0, x, score
      # The far ones have no weights by which to divide.
      options['normalize'] = 'count' if np.max(np.abs(x)) > 1e3 else normalize
      _assert_close(
        _actual_direction(*arguments, block_size=block_size, **options),
        _direction(*arguments, **options),
      )

  def test_without_the_own_term_by_hand(self):
    # Of 1 and 3 with the score -x: k = 1/e, each moved by the other alone.
    x = np.array([[1.0], [3.0]])
    options = dict(diagonal=False, normalize='count')
    found = stein.svgd_direction(x, -x, kernels.RBF(4.0), **options)
    np.testing.assert_allclose(found, np.exp(-1) * np.array([[-4], [0]]))
    # Of nothing in reach there is no direction, by either divisor.
    for normalize in ('count', 'row_sum'):
      options['normalize'] = normalize
      far = stein.svgd_direction(100 * x, -x, kernels.RBF(4.0), **options)
      np.testing.assert_array_equal(far, 0 * x)
    x[0] = np.nan
    found = stein.svgd_direction(x, -x, kernels.RBF(4.0), **options)
    self.assertTrue(np.isnan(found).all())

  def test_without_the_own_term_draws_are_at_rest(self):
    # Its mean over draws of p is 0 at each of them; the own term is s(x) / n.
    n, x = 5, jax.random.normal(jax.random.key(0), (4000, 5, 2))
    phi = lambda x, diagonal: stein.svgd_direction(
      x, -x, kernels.RBF(2.0), diagonal=diagonal
    )
    along = lambda x, diagonal: -jnp.sum(x * phi(x, diagonal), (0, 1)) / n
    for diagonal, expected in ((False, 0), (True, 2 / n)):
      found = jax.jit(jax.vmap(lambda x, d=diagonal: along(x, d)))(x)
      error = np.std(found) / len(x) ** 0.5
      self.assertLess(4 * error, 0.2 / n)
      np.testing.assert_allclose(np.mean(found), expected, atol=4 * error)

  @parameterized.parameters(
    (3, dict(diagonal=0), 'diagonal=0 must be'),
    (1, dict(diagonal=False), 'diagonal=False needs at least 2 particles'),
    (3, dict(diagonal=False, normalize='unit_ball'), "normalize='unit_ball'"),
  )
  def test_without_the_own_term_refuses(self, n, options, message):
    x, score = _points(n, 3)
    with self.assertRaisesRegex(ValueError, message):
      stein.svgd_direction(x, score, kernels.RBF(), **options)

  @parameterized.parameters(*_PROFILES)
  def test_two_far_points_cost_the_others_no_digits(self, name):
    x, score = _with_two_far(20)
    arguments = name, 2.0, x, score
    _assert_close(_actual_direction(*arguments), _direction(*arguments))

  @parameterized.product(
    name=_PROFILES, normalize=['count', 'row_sum'], block_size=[2]
  )
  def test_at_other_points(self, name, normalize, block_size):
    x, score = _points(6, 3)
    y = np.concatenate([_points(3, 3, spread=2.0)[0], x[:1]])
    actual = _at(name, 2.0, x, score, y, normalize, block_size)
    expected = [
      _direction_at(name, 2.0, x, score, point, normalize=normalize)
      for point in y
    ]
    _assert_close(actual, expected)

  def test_at_a_point_of_another_dimension_is_refused(self):
    x, score = _points(6, 3)
    with self.assertRaisesRegex(ValueError, r'x \(6, 3\), at \(2, 4\)'):
      stein.svgd_direction(x, score, kernels.rbf, at=np.ones((2, 4)))

  @parameterized.parameters(*_PROFILES)
  def test_on_the_unit_ball(self, name):
    # <phi, phi> is the mean of the Stein operator on phi, over the particles.
    x, _ = _points(6, 3)
    kernel = _kernel(name, 2.0)
    y = _points(4, 3, spread=2.0)[0]

    @jax.jit
    def found(x):
      phi = functools.partial(stein.svgd_direction, x, -x, kernel)
      operator = stein.stein_operator(jnp.negative, lambda y: phi(at=y), x)
      pairs = [
        (phi(at=at, normalize='unit_ball'), phi(at=at)) for at in (None, y)
      ]
      return operator, pairs

    operator, pairs = found(x)
    norm = np.mean(np.asarray(operator, np.float64)) ** 0.5
    for unit, phi in pairs:
      _assert_close(unit, phi / norm)

  def test_on_the_unit_ball_of_no_discrepancy(self):
    x = np.zeros((1, 3))
    flat = lambda sq_dist: jnp.ones_like(sq_dist)
    unit = stein.svgd_direction(x, x, flat, normalize='unit_ball')
    np.testing.assert_array_equal(unit, x)

  def test_of_integers(self):
    # By hand, of 0, 1, 3 with score -0.3 x.
    x = np.array([[0], [1], [3]])
    k = np.exp(-((x - x.T) ** 2.0))
    phi = (k @ (-0.3 * x) + 2 * np.sum(k * (x - x.T), 1, keepdims=True)) / 3
    actual = stein.svgd_direction(x, -0.3 * x, kernels.rbf)
    self.assertEqual(actual.dtype, jnp.float32)
    np.testing.assert_allclose(actual, phi, rtol=1e-6)
    np.testing.assert_allclose(phi[:, 0], [-0.282, 0.115, -0.277], atol=1e-3)

  @parameterized.parameters('count', 'row_sum')
  def test_of_one_point_is_its_score(self, normalize):
    # k(x, x) = 1 and grad k(x, x) = 0 for every profile.
    x, score = _points(1, 1, offset=1e4)
    actual = _actual_direction('imq', 1.0, x, score, normalize=normalize)
    np.testing.assert_array_equal(actual, score)

  @parameterized.parameters(*_PROFILES)
  def test_repulsion_sums_to_zero(self, name):
    # grad_{x_j} k(x_j, x_i) is odd in (i, j).
    x, _ = _points(6, 3, offset=1e4)
    repulsion = _actual_direction(name, 2.0, x, np.zeros_like(x))
    repulsion = np.asarray(repulsion, np.float64)
    largest = np.max(np.abs(repulsion))
    self.assertGreater(largest, 0.1)
    _assert_close(repulsion.sum(0), np.zeros(3), largest=largest)

  def test_does_not_see_translation(self):
    # On multiples of 2^-10, the spacing of floats at 10^4, x + 10^4 is exact.
    x, score = _points(6, 3)
    x = np.round(x * 1024) / 1024
    moved = x + np.float32(1e4)
    np.testing.assert_array_equal(moved - np.float32(1e4), x)
    _assert_close(
      _actual_direction('rbf', 2.0, moved, score),
      _actual_direction('rbf', 2.0, x, score),
    )

  @parameterized.parameters('bfloat16', 'float16')
  def test_half_precision_is_summed_in_float32(self, dtype):
    x, score = (jnp.array(a, dtype) for a in _points(300, 8))
    actual = _actual_direction('rbf', 16.0, x, score)
    self.assertEqual(actual.dtype, x.dtype)
    expected = _direction('rbf', 16.0, x, score)
    # One rounding of the result to its dtype, above float32's own.
    np.testing.assert_allclose(
      np.asarray(actual, np.float64),
      expected,
      rtol=float(jnp.finfo(dtype).eps) / 2,
      atol=1e-5 * np.max(np.abs(expected)),
    )

  @parameterized.parameters(0.0, 1e4)
  def test_float64_stays(self, offset):
    x, score = _points(6, 3, dtype=np.float64)
    x = np.round(x * 2**30) / 2**30  # exact at either offset
    with jax.enable_x64(True):
      actual = _actual_direction('rbf', 2.0, x + offset, score)
      self.assertEqual(actual.dtype, jnp.float64)
    expected = _direction('rbf', 2.0, x, score)
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


_FEATURES = np.random.default_rng(7).normal(size=(2, 3, 4))


def _curved(x):
  """Returns features [n, 4] of x [n, 3], each of its own point."""
  tilt, bend = jnp.asarray(_FEATURES, x.dtype)
  return jnp.tanh(x @ tilt) + 0.3 * (x @ bend) ** 2


def _coupled(x):
  """Returns features [n, 4] of x [n, 3] that depend on all points."""
  centred = x - jnp.mean(x, 0, keepdims=True)
  spread = jnp.sqrt(jnp.mean(centred**2, 0, keepdims=True))
  return _curved(centred / spread)


def _similarity(name, bandwidth):
  """Returns k(F(x), F(y)) [] of two points [3]."""
  pair = _pair(name, bandwidth)
  return lambda x, y: pair(_curved(x[None])[0], _curved(y[None])[0])


@functools.partial(_in_float64, static=('normalize', 'diagonal'))
def _exact_direction(
  name, bandwidth, x, score, *, normalize='count', diagonal=True
):
  """The mean over j of k(F(x_j), F(x_i)) s(x_j) + grad_{x_j} k(F(x_j), F(x_i))."""

  def term(x_j, score_j, x_i):
    k, slope = jax.value_and_grad(_similarity(name, bandwidth))(x_j, x_i)
    return k * score_j + slope, k

  over_j = jax.vmap(term, (0, 0, None))
  terms, k = jax.vmap(over_j, (None, None, 0))(x, score, x)
  counts = np.ones((len(x), len(x))) - (0 if diagonal else np.eye(len(x)))
  weight = np.sum(counts, 1)[:, None]
  if normalize == 'row_sum':
    weight = jnp.sum(counts * k, 1)[:, None]
  return jnp.sum(counts[:, :, None] * terms, 1) / weight


@_in_float64
def _pulls(name, bandwidth, x):
  """grad_{x_j} k(F(x_j), F(x_i)) [i, j, 3]."""
  slope = jax.grad(_similarity(name, bandwidth))
  return jax.vmap(jax.vmap(slope, (0, None)), (None, 0))(x, x)


@_in_float64
def _pushes(name, bandwidth, x):
  """-grad_{x_i} k(F(x_j), F(x_i)) [i, j, 3]."""
  slope = jax.grad(_similarity(name, bandwidth), 1)
  return -jax.vmap(jax.vmap(slope, (0, None)), (None, 0))(x, x)


@_in_float64
def _nearest(_, x):
  """The nearest other point [n] in feature space."""
  features = _curved(x)
  sq_dist = jnp.sum((features[:, None] - features[None]) ** 2, -1)
  return jnp.argmin(jnp.where(jnp.eye(len(x), dtype=bool), jnp.inf, sq_dist), 1)


def _named_features(function, *static):
  """Returns a feature primitive with its kernel as (name, bandwidth)."""

  def named(name, bandwidth, *arrays, feature_fn=_curved, **keywords):
    return function(*arrays, feature_fn, _kernel(name, bandwidth), **keywords)

  return jax.jit(
    named, static_argnums=0, static_argnames=('feature_fn', 'form', *static)
  )


_feature_direction = _named_features(
  stein.feature_svgd_direction, 'normalize', 'diagonal'
)
_feature_repulsion = _named_features(stein.feature_repulsion)


class FeatureTest(chex.TestCase):
  @parameterized.product(
    name=_PROFILES, normalize=['count', 'row_sum'], diagonal=[True, False]
  )
  def test_exact_is_the_definition(self, name, normalize, diagonal):
    x, score = _points(6, 3)
    options = dict(normalize=normalize, diagonal=diagonal)
    _assert_close(
      _feature_direction(name, 2.0, x, score, **options),
      _exact_direction(name, 2.0, x, score, **options),
    )
    _assert_close(_feature_repulsion(name, 2.0, x), _pulls(name, 2.0, x).sum(1))

  def test_without_the_own_term_by_hand(self):
    # Of 1 and 3 with the score -x: k = 1/e, each moved by the other alone.
    x = np.array([[1.0], [3.0]])
    direction = stein.FeatureSVGD(kernels.RBF(4.0), diagonal=False)
    found = direction(x, -x, features=lambda x: x)
    np.testing.assert_allclose(found, np.exp(-1) * np.array([[-4], [0]]))
    # Of nothing in reach there is no direction, by either divisor.
    for normalize in ('count', 'row_sum'):
      far = direction.replace(normalize=normalize)
      found = far(100 * x, -x, features=lambda x: x)
      np.testing.assert_array_equal(found, 0 * x)

  @parameterized.parameters(
    (3, dict(diagonal=0), 'diagonal=0 must be'),
    (1, dict(diagonal=False), 'diagonal=False needs at least 2 particles'),
    (3, dict(diagonal=False, form='nearest'), "form='nearest'"),
  )
  def test_without_the_own_term_refuses(self, n, options, message):
    x, score = _points(n, 3)
    direction = stein.FeatureSVGD(**options)
    with self.assertRaisesRegex(ValueError, message):
      direction(x, score, features=lambda x: x)

  @parameterized.parameters(*_PROFILES)
  def test_swapped_descends_the_similarity(self, name):
    # What WL16 says of the repulsion: minus the slope at x_i of the similarity
    # to all others.
    x, _ = _points(6, 3)
    actual = _feature_repulsion(name, 2.0, x, form='swapped')
    _assert_close(actual, _pushes(name, 2.0, x).sum(1))
    exact = _pulls(name, 2.0, x).sum(1)
    _assert_close(_feature_repulsion(name, 2.0, x), exact)
    self.assertGreater(np.max(np.abs(actual - exact)), 0.1)

  def test_swapped_by_hand(self):
    # sum_j k_ij s_j + J(x_i)' sum_j (e_i - e_j) k_ij 2 / h, over sum_j k_ij.
    x, score = _points(6, 3, dtype=np.float64)
    with jax.enable_x64(True):
      e = np.asarray(_curved(jnp.asarray(x)))
      one = jax.jacfwd(lambda point: _curved(point[None])[0])
      jacobian = np.asarray(jax.vmap(one)(jnp.asarray(x)))  # [i, f, d]
    change = e[:, None] - e[None]
    k = np.exp(-np.sum(change**2, -1) / 2.0)
    cotangent = np.sum(change * k[..., None], 1) * 2 / 2.0
    phi = k @ score + np.einsum('ifd,if->id', jacobian, cotangent)
    _assert_close(
      _feature_direction(
        'rbf',
        2.0,
        np.float32(x),
        np.float32(score),
        form='swapped',
        normalize='row_sum',
      ),
      phi / k.sum(1, keepdims=True),
    )

  @parameterized.parameters(('rbf', 'count'), ('imq', 'row_sum'))
  def test_nearest_is_one_neighbour_and_an_unsmoothed_score(
    self, name, normalize
  ):
    x, score = _points(7, 3)
    nearest = _nearest(name, x)
    self.assertLess(len(set(nearest)), 7)  # two points share a neighbour
    repulsion = _pulls(name, 2.0, x)[np.arange(7), nearest]
    keywords = {'form': 'nearest', 'normalize': normalize}
    _assert_close(
      _feature_direction(name, 2.0, x, score, **keywords),
      score + 0.5 * repulsion,
    )
    _assert_close(_feature_repulsion(name, 2.0, x, form='nearest'), repulsion)

  def test_nearest_of_duplicates_is_the_other_copy(self):
    # Which is at distance 0, where no kernel has a slope.
    x, score = _points(3, 3, repeats=2)
    actual = _feature_direction('rbf', 2.0, x, score, form='nearest')
    np.testing.assert_array_equal(actual, score)

  @parameterized.parameters('exact', 'swapped')
  def test_duplicates(self, form):
    x, score = _points(3, 3, repeats=2)
    terms = _pulls if form == 'exact' else _pushes
    actual = _feature_repulsion('imq', 2.0, x, form=form)
    _assert_close(actual, terms('imq', 2.0, x).sum(1))
    np.testing.assert_array_equal(actual[::2], actual[1::2])

  @parameterized.parameters(
    ('exact', 'count'), ('swapped', 'row_sum'), ('nearest', 'count')
  )
  def test_of_one_point_is_its_score(self, form, normalize):
    x, score = _points(1, 3)
    keywords = {'form': form, 'normalize': normalize}
    np.testing.assert_array_equal(
      _feature_direction('imq', 1e-12, x, score, **keywords), score
    )

  @parameterized.parameters(
    ('exact', 'count', False),
    ('exact', 'row_sum', True),
    ('swapped', 'count', True),
    ('swapped', 'row_sum', False),
  )
  def test_of_an_isometry_is_the_direction(self, form, normalize, rotate):
    x, score = _points(6, 3)
    turn = np.linalg.qr(_FEATURES[0, :, :3])[0].astype(np.float32)
    feature_fn = (lambda x: x @ turn) if rotate else (lambda x: x)
    keywords = {'form': form, 'normalize': normalize}
    _assert_close(
      _feature_direction(
        'rbf', 2.0, x, score, feature_fn=feature_fn, **keywords
      ),
      _direction('rbf', 2.0, x, score, normalize=normalize),
    )

  @parameterized.parameters('exact', 'swapped', 'nearest')
  def test_images_keep_their_shape(self, form):
    x, score = _points(6, 12)
    turn = np.eye(12, 3, dtype=np.float32) + 0.1
    flat = _feature_direction(
      'imq', 2.0, x, score, feature_fn=lambda x: _curved(x @ turn), form=form
    )
    images = _feature_direction(
      'imq',
      2.0,
      x.reshape(6, 2, 3, 2),
      score.reshape(6, 2, 3, 2),
      feature_fn=lambda x: _curved(x.reshape(-1, 12) @ turn),
      form=form,
    )
    self.assertEqual(images.shape, (6, 2, 3, 2))
    _assert_close(images.reshape(6, 12), flat)

  @parameterized.parameters('exact', 'swapped', 'nearest')
  def test_features_far_from_zero(self, form):
    # Translating F changes nothing. On multiples of 2^-10 it is exact.
    x, _ = _points(6, 3)
    x = np.round(x * 1024) / 1024
    far = lambda x: x + jnp.float32(1e4)
    _assert_close(
      _feature_repulsion('imq', 2.0, x, feature_fn=far, form=form),
      _feature_repulsion('imq', 2.0, x, feature_fn=lambda x: x, form=form),
    )

  @parameterized.product(num=[3, 4, 5, 9], name=['rbf', 'imq'])
  def test_features_that_say_they_do_not_mix(self, num, name):
    # Of 4 features fewer than there are points have one pass each.
    x, _ = _points(num, 3)
    alone = functools.partial(_curved)
    alone.mixes = False
    _assert_close(
      _feature_repulsion(name, 2.0, x, feature_fn=alone),
      _pulls(name, 2.0, x).sum(1),
    )

  def test_a_pass_for_each_feature_where_these_are_fewer(self):
    passes = []

    @jax.custom_vjp
    def features(x):
      return x[:, :2]

    def backward(_, cotangent):
      jax.debug.callback(passes.append, jnp.zeros(()))
      return (jnp.pad(cotangent, ((0, 0), (0, 1))),)

    features.defvjp(lambda x: (features(x), None), backward)
    found = {}
    for mixes, wanted in ((True, 7), (False, 2)):
      feature_fn = functools.partial(features)
      feature_fn.mixes = mixes
      passes.clear()
      found[mixes] = stein.feature_repulsion(
        _points(7, 3)[0], feature_fn, kernels.RBF(2.0)
      )
      jax.effects_barrier()
      self.assertLen(passes, wanted)
    _assert_close(found[False], found[True])

  def test_coupled_features(self):
    # With e_i held, sum_j k(F_j(X), e_i) changes with every point; their moves
    # add up.
    x, _ = _points(6, 3)
    with jax.enable_x64(True):
      wide = jnp.asarray(x, jnp.float64)
      kernel = _kernel('rbf', 2.0)

      def similarity(xs, feature):
        change = _coupled(xs) - feature[None]
        return jnp.sum(kernel(jnp.sum(change**2, -1)))

      slope = jax.vmap(jax.grad(similarity), (None, 0))
      expected = np.asarray(jnp.sum(slope(wide, _coupled(wide)), 1))
    actual = _feature_repulsion('rbf', 2.0, x, feature_fn=_coupled)
    # Normalised points add up to zero slope: to rounding of the terms.
    _assert_close(
      actual, expected, largest=np.max(np.abs(_pulls('rbf', 2.0, x)))
    )

  @parameterized.parameters(
    ({'form': 'exakt'}, "form='exakt'.*'nearest'"),
    ({'normalize': 'sum'}, "normalize='sum'.*'row_sum'"),
  )
  def test_refuses(self, keywords, message):
    x = jnp.ones((3, 2))
    with self.assertRaisesRegex(ValueError, message):
      stein.feature_svgd_direction(x, x, lambda x: x, kernels.rbf, **keywords)


def _median(x):
  """Returns the median of |x_i - x_j|^2 over all i, j [] in float64."""
  x = np.asarray(x, np.float64)
  return np.median(np.sum((x[:, None] - x[None]) ** 2, -1))


def _images(x):
  """Returns points [n, 6] as a tree of images and numbers, and back."""
  return {
    'b': x[:, :1][:, 0],
    'images': x[:, 1:5].reshape(-1, 2, 2),
    'a': x[:, 5:],
  }


def _as_points(tree):
  """Returns what `_images` made of points [n, 6], in the order of the tree's leaves."""
  leaves = [np.reshape(leaf, (len(leaf), -1)) for leaf in jax.tree.leaves(tree)]
  return np.concatenate([np.asarray(leaf, np.float64) for leaf in leaves], 1)


class RulesTest(chex.TestCase):
  """A kernel's rule is applied to the points that a function is given."""

  @parameterized.parameters(*_PROFILES)
  def test_of_points(self, name):
    x, score = _points(6, 3)
    kernel = _KINDS[name](kernels.Median(scale=0.5, log='n'))
    bandwidth = 0.5 * _median(x) / np.log(6)

    @jax.jit
    def found(x, score):
      return (
        stein.svgd_direction(x, score, kernel),
        stein.svgd_direction(x, score, kernel, at=2 * x),
        stein.ksd(x, score, kernel),
        stein.ksd_test(jax.random.key(0), x, score, kernel, num_bootstrap=1)[0],
        stein.stein_matrix(x, score, 3 * x, score, kernel),
      )

    direction, elsewhere, ksd, statistic, matrix = found(x, score)
    _assert_close(direction, _direction(name, bandwidth, x, score))
    expected = [
      _direction_at(name, bandwidth, x, score, 2 * point, normalize='count')
      for point in x
    ]
    _assert_close(elsewhere, expected)
    u = _stein_matrix(name, bandwidth, x, score, x, score)
    _assert_close(ksd, np.mean(u), largest=np.max(np.abs(u)))
    _assert_close(statistic, 6 * np.mean(u), largest=6 * np.max(np.abs(u)))
    u = _stein_matrix(name, bandwidth, x, score, 3 * x, score)
    _assert_close(matrix, u)  # of the first points, whatever the second

  @parameterized.parameters(*_PROFILES)
  def test_of_features(self, name):
    x, score = _points(6, 3)
    with jax.enable_x64(True):
      bandwidth = _median(_curved(jnp.asarray(x, jnp.float64))) / np.log(7)

    @jax.jit
    def found(x, score):
      kernel = _KINDS[name]()
      return (
        stein.feature_svgd_direction(x, score, _curved, kernel),
        stein.feature_repulsion(x, _curved, kernel),
      )

    direction, repulsion = found(x, score)
    _assert_close(direction, _exact_direction(name, bandwidth, x, score))
    _assert_close(repulsion, _pulls(name, bandwidth, x).sum(1))

  @parameterized.parameters('rbf', 'imq')
  def test_numbers_may_be_swept_and_learned(self, name):
    x, score = _points(6, 3)
    bandwidths = np.array([0.7, 2.0])

    def both(kernel):
      direction = stein.svgd_direction(x, score, kernel)
      return jnp.sum(direction**2), stein.ksd(x, score, kernel)

    def literal(bandwidth):
      direction = _direction(name, bandwidth, x, score)
      u = _stein_matrix(name, bandwidth, x, score, x, score)
      return np.array([np.sum(direction**2), np.mean(u)])

    kernel = _KINDS[name]
    swept = jax.vmap(lambda bandwidth: both(kernel(bandwidth)))
    found = np.transpose(jax.jit(swept)(bandwidths))
    np.testing.assert_allclose(found, list(map(literal, bandwidths)), rtol=1e-5)
    step = 1e-5
    slopes = [
      (literal(bandwidth + step) - literal(bandwidth - step)) / (2 * step)
      for bandwidth in bandwidths
    ]
    learned = jax.jit(jax.jacrev(both))
    found = [
      [of.bandwidth for of in learned(kernel(float(bandwidth)))]
      for bandwidth in bandwidths
    ]
    np.testing.assert_allclose(found, slopes, rtol=1e-4)

  def test_one_product_serves_where_the_slope_is_a_multiple(self):
    class Gaussian:
      """A kernel of one's own, which says so."""

      slope_ratio = -1 / 3.0

      def __call__(self, sq_dist):
        return jnp.exp(-sq_dist / 3.0)

    x, score = _points(6, 8)
    expected = _direction('rbf', 3.0, x, score)
    plain = kernels.rbf
    recognised = (
      Gaussian(),
      kernels.RBF(3.0),
      functools.partial(plain, bandwidth=3.0),
    )
    unknown = (
      lambda sq_dist: plain(sq_dist, 3.0),
      functools.partial(
        lambda *args, **keywords: plain(*args, **keywords), bandwidth=3.0
      ),
    )

    def products(kernel):
      run = functools.partial(stein.svgd_direction, kernel=kernel)
      _assert_close(jax.jit(run)(x, score), expected)
      return str(jax.make_jaxpr(run)(x, score)).count('dot_general')

    (few,) = set(map(products, recognised))
    (many,) = set(map(products, unknown))
    self.assertLess(few, many)

  def test_bandwidths_that_are_not_positive_are_refused(self):
    x, score = _points(3, 2)
    for function in (stein.svgd_direction, stein.ksd):
      with self.assertRaisesRegex(
        ValueError, 'bandwidth=-1.0 must be a positive'
      ):
        function(x, score, kernels.RBF(-1.0))

  def test_nan_points_make_it_nan(self):
    x, score = _points(6, 3)
    x[2, 1] = np.nan
    direction = jax.jit(stein.SVGD(kernels.IMQ()))(x, score)
    self.assertTrue(np.all(np.isnan(direction)))
    ksd = jax.jit(lambda x: stein.ksd(x, score, kernels.RBF()))(x)
    self.assertTrue(np.isnan(ksd))


class DirectionValuesTest(chex.TestCase):
  @parameterized.parameters(('rbf', 'count'), ('imq', 'row_sum'))
  def test_of_a_tree(self, name, normalize):
    x, score = map(_images, _points(7, 6))
    flat, flat_score = map(_as_points, (x, score))
    expected = _direction(
      name, _median(flat) / np.log(8), flat, flat_score, normalize=normalize
    )
    direction = stein.SVGD(_KINDS[name](), normalize, block_size=3)
    found = jax.jit(direction)(x, score)
    chex.assert_trees_all_equal_shapes_and_dtypes(found, x)
    _assert_close(_as_points(found), expected)

  def test_without_the_own_term(self):
    x, score = map(_images, _points(7, 6))
    flat, flat_score = map(_as_points, (x, score))
    expected = _direction(
      'rbf', _median(flat) / np.log(8), flat, flat_score, diagonal=False
    )
    direction = stein.SVGD(diagonal=False)
    _assert_close(_as_points(jax.jit(direction)(x, score)), expected)
    # Other points have none, even where a particle is.
    chex.assert_trees_all_equal(
      direction(x, score, at=x), stein.SVGD()(x, score, at=x)
    )
    self.assertIsNone(stein.predicted_variance(direction, 200, 50))

  def test_of_a_plain_function(self):
    x, score = _points(6, 4)
    shape = lambda points: points.reshape(6, 2, 2)
    direction = stein.SVGD(lambda sq_dist: 1 / (1 + sq_dist / 2))
    found = jax.jit(direction)(shape(x), shape(score))
    expected = _direction('rational_quadratic', 2.0, x, score)
    _assert_close(found, shape(expected))

  def test_at_other_points(self):
    x, score = _points(6, 4)
    y = _points(3, 4, spread=2.0)[0]
    expected = [
      _direction_at('rbf', 2.0, x, score, point, normalize='count')
      for point in y
    ]
    shape = lambda points: points.reshape(-1, 2, 2)
    direction = stein.SVGD(kernels.RBF(2.0))
    found = jax.jit(lambda *of, at: direction(*of, at=at))(
      shape(x), shape(score), at=shape(y)
    )
    _assert_close(found, shape(np.array(expected)))

  def test_on_the_unit_ball(self):
    x, score = _points(6, 4)
    kernel = kernels.IMQ(2.0)
    norm = stein.ksd(x, score, kernel) ** 0.5
    found = stein.SVGD(kernel, normalize='unit_ball')(x, score)
    _assert_close(found, _direction('imq', 2.0, x, score) / norm)

  def test_leaves_keep_their_dtypes(self):
    x, score = _points(6, 2, spread=3.0)
    x = np.round(x)
    tree = {
      'half': jnp.array(x[:, :1], 'float16'),
      'whole': x[:, 1:].astype(int),
    }
    scores = {'half': score[:, :1], 'whole': score[:, 1:]}
    found = stein.SVGD(kernels.RBF(2.0))(tree, scores)
    self.assertEqual(found['half'].dtype, jnp.float16)
    self.assertEqual(found['whole'].dtype, jnp.float32)
    expected = _direction('rbf', 2.0, x, score)
    _assert_close(found['half'], expected[:, :1], jnp.float16)
    _assert_close(found['whole'], expected[:, 1:])

  def test_passes_through_jit_and_vmap(self):
    x, score = _points(6, 3)
    call = jax.jit(lambda direction: direction(x, score))
    _assert_close(
      call(stein.SVGD()), _direction('rbf', _median(x) / np.log(7), x, score)
    )
    swept = jax.vmap(call)(stein.SVGD(kernels.RBF(jnp.array([0.5, 2.0]))))
    for found, bandwidth in zip(swept, (0.5, 2.0), strict=True):
      _assert_close(found, _direction('rbf', bandwidth, x, score))

  @parameterized.parameters('exact', 'swapped', 'nearest')
  def test_by_features(self, form):
    x, score = _points(6, 3)
    kernel = kernels.IMQ(kernels.Median(log='none'))
    with jax.enable_x64(True):
      bandwidth = _median(_curved(jnp.asarray(x, jnp.float64)))
    found = jax.jit(
      lambda x, score: stein.FeatureSVGD(kernel, form)(
        x, score, features=_curved
      )
    )(x, score)
    expected = {
      'exact': lambda: _exact_direction('imq', bandwidth, x, score),
      'swapped': lambda: (
        _exact_direction('imq', bandwidth, x, score)
        - np.mean(_pulls('imq', bandwidth, x), 1)
        + np.mean(_pushes('imq', bandwidth, x), 1)
      ),
      'nearest': lambda: (
        score
        + 0.5 * _pulls('imq', bandwidth, x)[np.arange(6), _nearest('imq', x)]
      ),
    }[form]()
    _assert_close(found, expected)

  def test_without_a_kernel_is_the_score(self):
    x, score = map(_images, _points(4, 6))
    chex.assert_trees_all_equal(jax.jit(stein.Score())(x, score), score)

  @parameterized.parameters(
    (stein.SVGD(), {'score': {'a': 1.0}}, 'score has shape'),
    (stein.SVGD(), {'x': {}, 'score': {}}, r'x has leaves of shapes \[\]'),
    (
      stein.SVGD(),
      {'x': {'a': np.ones((3, 2)), 'b': np.ones((2, 2))}},
      r'x has leaves of shapes \[\(3, 2\), \(2, 2\)\]',
    ),
    (stein.SVGD(), {'x': np.ones(())}, r'x has leaves of shapes \[\(\)\]'),
    (
      stein.SVGD(),
      {'at': np.ones((2, 4))},
      r'at has shape \(4,\); wanted: \(2,',
    ),
    (stein.SVGD(), {'at': {'a': np.ones((2, 2))}}, 'at has shape'),
    (stein.SVGD(block_size=-1), {}, 'block_size=-1 must be at least 0'),
    (stein.SVGD(normalize='sum'), {}, "normalize='sum' is unknown"),
    (stein.SVGD('rbf'), {}, "kernel='rbf' must be a function"),
    (stein.Score(), {'at': np.ones((2, 2))}, 'no direction at other points'),
    (stein.Score(), {'score': np.ones((3, 1))}, 'score has shape'),
    (
      functools.partial(stein.FeatureSVGD(form='exakt'), features=_curved),
      {},
      "form='exakt' is unknown",
    ),
  )
  def test_refuses(self, direction, arguments, message):
    arguments = {'x': np.ones((3, 2)), 'score': np.ones((3, 2)), **arguments}
    with self.assertRaisesRegex(ValueError, message):
      direction(arguments.pop('x'), arguments.pop('score'), **arguments)


class DescentTest(parameterized.TestCase):
  """Directions that move q = N(m, v) to p = N(0, 1), in closed form [LW17 eq 1-3].

  With k(x, y) = exp(-(x - y)^2 / h), a = h + 2v and s(x) = -x, the best direction
  is phi(y) = E_q[k(x, y) s(x) + grad_x k(x, y)]. Under q the kernel's mean is
  c exp(-(y - m)^2 / a), c = sqrt(h / a), and the mean of x weighted by it
  (m h + 2 v y) / a, hence
  phi(y) = (c / a) exp(-(y - m)^2 / a) (2 (1 - v) y - m (h + 2)).
  """

  _MEAN, _VARIANCE, _BANDWIDTH = 0.7, 2.0, 1.5

  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))

  def best(self, y):
    """Returns phi at y, like y."""
    m, v, h = self._MEAN, self._VARIANCE, self._BANDWIDTH
    a = h + 2 * v
    weight = (h / a) ** 0.5 / a * jnp.exp(-((y - m) ** 2) / a)
    return weight * (2 * (1 - v) * y - m * (h + 2))

  def discrepancy(self):
    """Returns E_q[s phi + phi'] [], which is KSD^2 and phi's squared norm.

    Under q weighted by exp(-(y - m)^2 / a) y is N(m, t), t = v a / (a + 2v).
    """
    m, v, h = self._MEAN, self._VARIANCE, self._BANDWIDTH
    a = h + 2 * v
    t = v * a / (a + 2 * v)
    total = m**2 * (h + 2) - 2 * (1 - v) * (m**2 + t - 1 + 2 * t / a)
    return (h / (a + 2 * v)) ** 0.5 / a * total

  def fall(self, phi):
    """Returns -d/d eps KL(law of x + eps phi(x) | p) at 0 [], by quadrature.

    The density at x + eps phi(x) is q(x) / (1 + eps phi'(x)).
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    x = jnp.asarray(self._MEAN + self._VARIANCE**0.5 * nodes)
    weights = jnp.asarray(weights / np.sum(weights))

    def divergence(epsilon):
      moved = lambda y: y + epsilon * phi(y)
      log_slope = jnp.log(jax.vmap(jax.grad(moved))(x))
      log_q = -0.5 * (x - self._MEAN) ** 2 / self._VARIANCE
      return weights @ (log_q - log_slope + 0.5 * jax.vmap(moved)(x) ** 2)

    return -jax.jit(jax.grad(divergence))(0.0)

  def quantiles(self, num):
    """Returns points [num, 1] of q that stand for equal shares of it."""
    x = stats.norm.ppf((np.arange(num) + 0.5) / num)
    return jnp.asarray(self._MEAN + self._VARIANCE**0.5 * x)[:, None]

  def test_direction_and_discrepancy_of_many_points(self):
    x, kernel = self.quantiles(2000), _kernel('rbf', self._BANDWIDTH)
    direction = jax.jit(functools.partial(stein.svgd_direction, kernel=kernel))
    ksd = jax.jit(functools.partial(stein.ksd, kernel=kernel))
    phi = np.asarray(direction(x, -x))
    largest = np.max(np.abs(phi))
    # Tails beyond the last points hold 1 / 2000 of q.
    np.testing.assert_allclose(phi, self.best(x), atol=2e-3 * largest)
    np.testing.assert_allclose(ksd(x, -x), self.discrepancy(), rtol=2e-3)

  @parameterized.parameters((0.3, 0.0), (-0.4, 0.8), (0.0, -1.0))
  def test_of_an_affine_direction(self, shift, growth):
    # x + eps (shift + growth x) stays Gaussian: of N(m, v) to N(0, 1) it is
    # KL = (m^2 + v - 1 - log v) / 2, with dm = shift + growth m, dv = 2 growth v.
    m, v = self._MEAN, self._VARIANCE
    expected = -m * (shift + growth * m) - growth * (v - 1)
    phi = lambda y: shift + growth * y
    self.assertAlmostEqual(self.fall(phi), expected, places=10)

  def test_divergence_falls_by_the_stein_operator(self):
    x = self.quantiles(2000)
    operator = stein.stein_operator(jnp.negative, self.best, x)
    np.testing.assert_allclose(
      jnp.mean(operator), self.fall(self.best), rtol=2e-3
    )
    np.testing.assert_allclose(
      self.fall(self.best), self.discrepancy(), rtol=1e-9
    )

  def test_no_direction_of_unit_norm_is_steeper(self):
    # phi has norm KSD, and along phi / KSD the divergence falls by KSD.
    steepest = self.discrepancy() ** 0.5
    best = self.fall(lambda y: self.best(y) / steepest)
    self.assertAlmostEqual(best, steepest, places=9)
    kernel = _kernel('rbf', self._BANDWIDTH)

    @jax.vmap
    def other(z, weights):
      """Returns the fall along sum_j a_j k(z_j, .), scaled to norm^2 a'Ka = 1."""
      gram = kernel(kernels.squared_distance(z[:, None], z[:, None]))
      weights /= jnp.sqrt(weights @ gram @ weights)
      falls = self.fall(lambda y: weights @ kernel((z - y) ** 2))
      return falls, weights @ self.best(z)

    rng = np.random.default_rng(0)
    places = rng.normal(self._MEAN, 2.0, (50, 5))
    weights = rng.normal(size=(50, 5))
    falls, products = other(jnp.asarray(places), jnp.asarray(weights))
    # By the reproducing property it is the inner product with phi.
    np.testing.assert_allclose(falls, products, atol=1e-9)
    self.assertLess(np.max(np.abs(falls)), steepest)
    self.assertGreater(np.max(np.abs(falls)), 0.5 * steepest)  # some come near


class DiscrepancyTest(chex.TestCase):
  @parameterized.parameters(*_PROFILES)
  def test_matrix_is_the_definition(self, name):
    arguments = name, 2.0, *_points(4, 3), *_points(3, 3)
    _assert_close(_actual_matrix(*arguments), _stein_matrix(*arguments))

  @parameterized.named_parameters(*_HARD)
  def test_matrix_on_hard_points(self, n, d, keywords):
    x, score = _points(n, d, **keywords)
    arguments = 'rbf', _scale(x), x, score, x, score
    _assert_close(_actual_matrix(*arguments), _stein_matrix(*arguments))

  @parameterized.parameters(*_PROFILES)
  def test_two_far_points_cost_the_others_no_digits(self, name):
    x, score = _with_two_far(20)
    u = _stein_matrix(name, 2.0, x, score, x, score)
    for unbiased in (False, True):
      actual = _actual_ksd(name, 2.0, x, score, unbiased=unbiased)
      _assert_close(actual, _ksd(u, unbiased), largest=np.max(np.abs(u)))
    kernel = _kernel(name, 2.0)
    found = jax.jit(functools.partial(stein.ksd_test, kernel=kernel))(
      jax.random.key(0), x, score
    )
    _assert_close(found[0], np.sum(u) / len(x), largest=np.max(np.abs(u)))

  def test_matrix_in_float64(self):
    points = _points(6, 3, dtype=np.float64)
    arguments = 'rbf', 2.0, *points, *points
    with jax.enable_x64(True):
      actual = _actual_matrix(*arguments)
      self.assertEqual(actual.dtype, jnp.float64)
    np.testing.assert_allclose(
      actual, _stein_matrix(*arguments), rtol=1e-12, atol=1e-12
    )

  @parameterized.product(
    name=_PROFILES, unbiased=[False, True], block_size=[None, 4]
  )
  def test_ksd_is_the_mean(self, name, unbiased, block_size):
    x, score = _points(6, 3)
    actual = _actual_ksd(
      name, 2.0, x, score, unbiased=unbiased, block_size=block_size
    )
    self.assertEqual(actual.shape, ())
    u = _stein_matrix(name, 2.0, x, score, x, score)
    _assert_close(actual, _ksd(u, unbiased), largest=np.max(np.abs(u)))

  @parameterized.parameters(
    ('rbf', 20, None),
    ('rbf', 21, 7),
    ('rbf', 21, 1000),
    ('imq', 21, None),
    ('imq', 20, 7),
    ('imq', 20, 1),
  )
  def test_ksd_of_pairs_that_are_seen_once(self, name, n, block_size):
    x, score = _points(n, 3)
    u = _stein_matrix(name, 2.0, x, score, x, score)
    for unbiased in (False, True):
      with mock.patch.object(_sums, '_WINDOWED', n):
        actual = _compiled(stein.ksd, 'unbiased', 'block_size')(
          name, 2.0, x, score, unbiased=unbiased, block_size=block_size
        )
      _assert_close(actual, _ksd(u, unbiased), largest=np.mean(np.abs(u)))

  @parameterized.product(
    name=['rbf', 'imq'], n=[2, 3, 20, 21], block_size=[None, 1, 7]
  )
  def test_direction_of_pairs_that_are_seen_once(self, name, n, block_size):
    # In more dimensions than those where points are subtracted.
    x, score = _points(n, 20, spread=0.3)
    direction = _compiled(stein.svgd_direction, 'block_size')
    with mock.patch.object(_sums, '_WINDOWED_DIRECTION', 2):
      actual = direction(name, 2.0, x, score, block_size=block_size)
    expected = _direction(name, 2.0, x, score)
    _assert_close(actual, expected, largest=np.max(np.abs(expected)))

  @parameterized.parameters('bfloat16', 'float16')
  def test_ksd_sums_half_precision_in_float32(self, dtype):
    x, score = (jnp.array(a, dtype) for a in _points(300, 2))
    actual = _actual_ksd('rbf', 2.0, x, score)
    self.assertEqual(actual.dtype, jnp.float32)
    u = _stein_matrix('rbf', 2.0, x, score, x, score)
    _assert_close(actual, np.mean(u), largest=np.mean(np.abs(u)))

  @parameterized.parameters(*_PROFILES)
  def test_is_the_operator_on_the_direction(self, name):
    # With phi the direction of x as a function of its place, the operator at
    # x_i is the mean over j of u(x_j, x_i), term by term.
    x, _ = map(jnp.array, _points(6, 3))
    score_fn = lambda x: jnp.sin(2 * x) - x

    def direction_at(y):
      k, gradient = jax.vmap(jax.value_and_grad(_pair(name, 2.0)), (0, None))(
        x, y
      )
      return jnp.mean(k[:, None] * score_fn(x) + gradient, 0)

    operator = jax.jit(
      functools.partial(stein.stein_operator, score_fn, jax.vmap(direction_at))
    )(x)
    _assert_close(
      _actual_ksd(name, 2.0, x, score_fn(x)),
      np.mean(operator),
      largest=np.max(np.abs(operator)),
    )

  @parameterized.parameters((1, 0.5, 2.0), (2, 1.0, 3.0))
  def test_of_a_shifted_gaussian(self, d, shift, bandwidth):
    # For x ~ q = N(m, I) and p = N(0, I), KSD^2 = E k(x, x') (s_p - s_q)(x)
    # .(s_p - s_q)(x') = |m|^2 E k, since s_p - s_q = -m everywhere; and as
    # x - x' ~ N(0, 2 I), E exp(-|x - x'|^2 / h) = (1 + 4 / h)^(-d / 2).
    expected = shift**2 * d * (1 + 4 / bandwidth) ** (-d / 2)
    kernel = _kernel('rbf', bandwidth)
    x = shift + jax.random.normal(jax.random.key(0), (400, 50, d))
    draws = jax.jit(
      jax.vmap(lambda x: stein.ksd(x, -x, kernel, unbiased=True))
    )(x)
    error = np.std(draws) / len(draws) ** 0.5
    self.assertLess(4 * error, expected / 4)
    np.testing.assert_allclose(np.mean(draws), expected, rtol=0, atol=4 * error)


class VariantsTest(chex.TestCase):
  @chex.all_variants
  def test_direction_and_ksd(self):
    x, score = map(jnp.array, _points(6, 3))
    kernel = _kernel('rbf', 2.0)
    direction, ksd = self.variant(
      lambda x, score: (
        stein.svgd_direction(x, score, kernel),
        stein.ksd(x, score, kernel),
      )
    )(x, score)
    _assert_close(direction, _direction('rbf', 2.0, x, score))
    u = _stein_matrix('rbf', 2.0, x, score, x, score)
    _assert_close(ksd, np.mean(u), largest=np.max(np.abs(u)))


class KsdTestTest(chex.TestCase):
  def _percents(self, x, **keywords):
    """Returns p-values [m] of x [m, n, 1] against N(0, 1), 100 times."""

    def p_value(rng, x):
      return stein.ksd_test(
        rng, x, -x, kernels.rbf, num_bootstrap=99, **keywords
      )[1]

    keys = jax.random.split(jax.random.key(1), len(x))
    p_values = np.asarray(jax.jit(jax.vmap(p_value))(keys, x))
    # Multiples of 1 / (B + 1), from 1 up.
    ranks = np.round(100 * p_values).astype(int)
    np.testing.assert_allclose(p_values, ranks / 100, rtol=1e-6)
    self.assertBetween(np.min(ranks), 1, 100)
    self.assertBetween(np.max(ranks), 1, 100)
    return ranks

  @parameterized.parameters(None, 4)
  def test_statistic(self, block_size):
    x, score = _points(6, 3)
    statistic, _ = jax.jit(
      lambda x, score: stein.ksd_test(
        jax.random.key(0),
        x,
        score,
        _kernel('rbf', 2.0),
        num_bootstrap=9,
        block_size=block_size,
      )
    )(x, score)
    u = _stein_matrix('rbf', 2.0, x, score, x, score)
    _assert_close(statistic, 6 * np.mean(u), largest=6 * np.max(np.abs(u)))

  def test_of_nan_is_nan(self):
    x, score = _points(20, 2)
    for points, scores in ((x, score), (x.copy(), score.copy())):
      (points if points is not x else scores)[3, 1] = np.nan
      statistic, p_value = stein.ksd_test(
        jax.random.key(0), points, scores, kernels.rbf
      )
      self.assertTrue(np.isnan(statistic) and np.isnan(p_value))

  def test_size(self):
    # Under p the p-value is at most `level` with that probability.
    num, percents = 800, np.array([5, 10, 20, 50])
    draws = jax.random.normal(jax.random.key(1), (num, 50, 1))
    rates = np.mean(self._percents(draws)[:, None] <= percents[None], 0)
    levels = percents / 100
    errors = (levels * (1 - levels) / num) ** 0.5
    np.testing.assert_array_less(np.abs(rates - levels), 4 * errors)

  def test_power(self):
    x = 1 + jax.random.normal(jax.random.key(0), (100, 50, 1))
    self.assertGreater(np.mean(self._percents(x) <= 5), 0.95)

  @parameterized.parameters(0.5, 0.2, 0.05)
  def test_flip_probability_by_hand(self, flip_probability):
    # With k = 1 and s = 1, u = 1: a draw (sum_i w_i)^2 / n reaches n only where
    # all signs agree, so where none of n - 1 flips.
    n, num = 4, 20000
    statistic, p_value = jax.jit(
      lambda x: stein.ksd_test(
        jax.random.key(0),
        x,
        jnp.ones_like(x),
        jnp.ones_like,
        num_bootstrap=num,
        flip_probability=flip_probability,
      )
    )(jnp.zeros((n, 1)))
    self.assertEqual(statistic, n)
    expected = (1 - flip_probability) ** (n - 1)
    error = (expected * (1 - expected) / num) ** 0.5
    np.testing.assert_allclose(
      p_value, expected, rtol=0, atol=4 * error + 1 / num
    )

  def test_flip_probability_on_a_chain(self):
    # x_t = 0.8 x_{t-1} + 0.6 noise leaves N(0, 1) invariant; independent signs
    # reject it far too often, signs that persist as it does no longer.
    num, level = 200, 0.05
    noise = jax.random.normal(jax.random.key(0), (101, num, 1))
    _, x = jax.lax.scan(
      lambda x, noise: 2 * (0.8 * x + 0.6 * noise,), noise[0], noise[1:]
    )
    independent, persistent = (
      np.mean(self._percents(jnp.swapaxes(x, 0, 1), flip_probability=p) <= 5)
      for p in (0.5, 0.05)
    )
    bound = level + 4 * (level * (1 - level) / num) ** 0.5
    self.assertGreater(independent, 2 * bound)
    self.assertLess(persistent, bound)


def _all_forms(x, score, axis_name=None):
  """Returns what mixes points, by name: each array [n, ...] or [1]."""
  at = {'axis_name': axis_name}
  rule = kernels.IMQ(kernels.Median(diagonal=False))
  results = {
    'direction': stein.svgd_direction(
      x, score, kernels.rbf, normalize='row_sum', block_size=1, **at
    ),
    'elsewhere': stein.svgd_direction(
      x, score, kernels.imq, at=2 * x, normalize='unit_ball', **at
    ),
    'value': stein.SVGD(rule)({'x': x}, {'x': score}, **at)['x'],
    'without_own': stein.SVGD(rule, diagonal=False)(x, score, **at),
    'ksd_by_a_rule': stein.ksd(x, score, rule, **at),
    'ksd_v': stein.ksd(x, score, kernels.imq, **at),
    'ksd_u': stein.ksd(
      x, score, kernels.imq, unbiased=True, block_size=1, **at
    ),
    'median': kernels.median_bandwidth(x, block_size=3, **at),
    'median_of_gathered': kernels.median_bandwidth(
      collectives.all_gather(x, axis_name)
    ),
  }
  return jax.tree.map(jnp.atleast_1d, results)


def _all_feature_forms(x, score, axis_name=None):
  """Returns directions and repulsions like x, by feature map and form."""
  results = {}
  for feature_fn in (_curved, _coupled):
    for form in ('exact', 'swapped', 'nearest'):
      results[f'{feature_fn.__name__}_{form}'] = stein.feature_svgd_direction(
        x,
        score,
        feature_fn,
        kernels.imq,
        form=form,
        normalize='row_sum',
        axis_name=axis_name,
      )
  results['value'] = stein.FeatureSVGD()(
    x, score, features=_coupled, axis_name=axis_name
  )
  results['without_own'] = stein.FeatureSVGD(diagonal=False)(
    x, score, features=_curved, axis_name=axis_name
  )
  results['repulsion'] = stein.feature_repulsion(
    x, _curved, kernels.rbf, axis_name=axis_name
  )
  return results


_all_unsharded = jax.jit(_all_forms)


def _sharded(function, out_spec):
  rows = PartitionSpec(_AXIS)
  return jax.shard_map(
    function,
    mesh=Mesh(np.array(jax.devices()), (_AXIS,)),
    in_specs=(rows, rows),
    out_specs=out_spec,
    check_vma=True,
  )


def _mapped(mode, local, x, score):
  """Returns the rows of local(x, score), on four devices with a share each."""
  if mode == 'shard_map':
    return jax.jit(_sharded(local, PartitionSpec(_AXIS)))(x, score)
  mapped = (
    jax.pmap(local, axis_name=_AXIS)
    if mode == 'pmap'
    else jax.jit(jax.vmap(local, axis_name=_AXIS))
  )
  split = lambda a: a.reshape(4, -1, *a.shape[1:])
  return jax.tree.map(
    lambda a: a.reshape(-1, *a.shape[2:]), mapped(split(x), split(score))
  )


class ShardedTest(chex.TestCase):
  def test_equals_unsharded(self):
    self.check_forms('shard_map', 2)

  @parameterized.parameters(('vmap', 1), ('vmap', 2), ('pmap', 2))
  @pytest.mark.slow
  def test_so_it_does_elsewhere(self, mode, rows):
    self.check_forms(mode, rows)

  def check_forms(self, mode, rows):
    x, score = map(jnp.array, _points(4 * rows, 3))
    expected = _all_unsharded(x, score)
    actual = _mapped(
      mode, functools.partial(_all_forms, axis_name=_AXIS), x, score
    )
    for name, want in expected.items():
      with self.subTest(name):
        # A scalar comes back from every device.
        shape = (4,) if want.shape == (1,) else want.shape
        self.assertEqual(actual[name].shape, shape)
        _assert_close(actual[name], np.broadcast_to(want, shape))

  @parameterized.parameters('vmap', 'shard_map')
  def test_two_far_points_cost_the_others_no_digits(self, mode):
    x, score = _with_two_far(8)  # which share no device
    kernel = kernels.RBF(2.0)
    local = lambda x, score: stein.svgd_direction(
      x, score, kernel, axis_name=_AXIS
    )
    _assert_close(
      _mapped(mode, local, jnp.array(x), jnp.array(score)),
      _direction('rbf', 2.0, x, score),
    )

  def test_feature_forms_equal_unsharded(self):
    self.check_feature_forms('shard_map', 2)

  @parameterized.parameters(('vmap', 1), ('pmap', 2))
  @pytest.mark.slow
  def test_so_they_do_elsewhere(self, mode, rows):
    self.check_feature_forms(mode, rows)

  def check_feature_forms(self, mode, rows):
    x, score = map(jnp.array, _points(4 * rows, 3))
    expected = jax.jit(_all_feature_forms)(x, score)
    actual = _mapped(
      mode, functools.partial(_all_feature_forms, axis_name=_AXIS), x, score
    )
    for name, want in expected.items():
      with self.subTest(name):
        self.assertGreater(np.max(np.abs(want)), 0.1)
        _assert_close(actual[name], want)

  @parameterized.parameters('shard_map', 'vmap')
  def test_features_that_do_not_mix(self, mode):
    x, score = map(jnp.array, _points(8, 3))
    alone = functools.partial(_curved)
    alone.mixes = False
    local = lambda x, score: stein.feature_svgd_direction(
      x, score, alone, _kernel('imq', 2.0), axis_name=_AXIS
    )
    _assert_close(
      _mapped(mode, local, x, score), _exact_direction('imq', 2.0, x, score)
    )

  @parameterized.parameters(False, True)
  def test_ksd_is_replicated(self, unbiased):
    x, score = map(jnp.array, _points(8, 3))
    local = lambda x, score: stein.ksd(
      x, score, kernels.imq, unbiased=unbiased, axis_name=_AXIS
    )
    actual = jax.jit(_sharded(local, PartitionSpec()))(x, score)
    u = _stein_matrix('imq', 1.0, x, score, x, score)
    _assert_close(actual, _ksd(u, unbiased), largest=np.max(np.abs(u)))


class MemoryTest(chex.TestCase):
  @parameterized.named_parameters(
    ('direction', stein.svgd_direction), ('ksd', stein.ksd)
  )
  def test_blocks_bound_it(self, function):
    n, block_size = 4096, 32
    points = jax.ShapeDtypeStruct((n, 2), jnp.float32)

    def largest(block_size):
      call = functools.partial(
        function, kernel=kernels.rbf, block_size=block_size
      )
      return _largest_array(jax.make_jaxpr(call)(points, points).jaxpr)

    self.assertGreaterEqual(largest(n), n * n)
    self.assertLessEqual(largest(block_size), n * block_size)

  @parameterized.parameters(
    lambda x: stein.svgd_direction(x, x, kernels.RBF()),
    lambda x: stein.ksd(x, x, kernels.rbf),
    lambda x: stein.ksd(x, x, kernels.imq, unbiased=True),
  )
  def test_a_hundred_thousand_points(self, function):
    # Pairs pass 32 bits. The compiler's count of what is set aside is of its own
    # buffers, without those of the libraries it calls; hence the program's values.
    points = jax.ShapeDtypeStruct((100_000, 64), jnp.float32)
    self.assertLessEqual(
      _largest_array(jax.make_jaxpr(function)(points).jaxpr),
      4 * points.size,  # longer where pairs are seen once, wider of groups
    )
    found = jax.jit(function).lower(points).compile().memory_analysis()
    self.assertLess(found.temp_size_in_bytes, 300 * 2**20)

  @parameterized.named_parameters(
    ('direction', stein.svgd_direction), ('ksd', stein.ksd)
  )
  def test_a_device_holds_a_share_of_the_points_and_a_block(self, function):
    devices, share, block_size = 64, 512, 16
    local = lambda x: jnp.sum(
      function(x, x, kernels.rbf, block_size=block_size, axis_name=_AXIS)
    ).reshape(1)

    def largest(local):
      mapped = jax.shard_map(
        local,
        mesh=AbstractMesh((devices,), (_AXIS,), axis_types=(AxisType.Auto,)),
        in_specs=PartitionSpec(_AXIS),
        out_specs=PartitionSpec(_AXIS),
        check_vma=False,
      )
      points = jax.ShapeDtypeStruct((devices * share, 4), jnp.float32)
      (equation,) = jax.make_jaxpr(mapped)(points).jaxpr.eqns
      return _largest_array(equation.params['jaxpr'])

    gathered = lambda x: local(collectives.all_gather(x, _AXIS))
    self.assertLessEqual(largest(local), share * block_size)
    self.assertGreater(largest(gathered), devices * share * block_size - 1)


def _largest_array(jaxpr):
  """Returns the most entries that any value in the program has."""
  sizes = [var.aval.size for eqn in jaxpr.eqns for var in eqn.outvars]
  for eqn in jaxpr.eqns:
    for value in jax.tree.leaves(list(eqn.params.values())):
      inner = getattr(value, 'jaxpr', value)
      if hasattr(inner, 'eqns'):
        sizes.append(_largest_array(inner))
  return max(sizes, default=0)


_OLD_KEY = jax.random.PRNGKey


class ArgumentsTest(chex.TestCase):
  @parameterized.parameters(
    (stein.svgd_direction, (3, 2), {'normalize': 'sum'}, "normalize='sum'"),
    (stein.svgd_direction, (3, 2), {'block_size': 0}, 'block_size=0'),
    (stein.svgd_direction, (3,), {}, r'got \(3,\)'),
    (stein.svgd_direction, (0, 2), {}, r'got \(0, 2\)'),
    (stein.ksd, (3, 2), {'block_size': -1}, 'block_size=-1'),
    (stein.ksd, (1, 2), {'unbiased': True}, 'got 1'),
    (stein.ksd, (3, 2, 2), {}, r'got \(3, 2, 2\)'),
    (
      functools.partial(stein.ksd_test, jax.random.key(0)),
      (3, 2),
      {'num_bootstrap': 0},
      'num_bootstrap=0',
    ),
    (
      functools.partial(stein.ksd_test, jax.random.key(0)),
      (3, 2),
      {'flip_probability': 0.7},
      'flip_probability=0.7',
    ),
    (
      functools.partial(stein.ksd_test, jax.random.key(0)),
      (3, 2),
      {'flip_probability': 0},
      'flip_probability=0 ',
    ),
  )
  def test_refuses(self, function, shape, keywords, message):
    with self.assertRaisesRegex(ValueError, message):
      function(jnp.ones(shape), jnp.ones(shape), kernels.rbf, **keywords)

  @parameterized.parameters(
    (
      kernels.IMQ,
      r'kernel is the class IMQ; allowed: a value, such as IMQ\(\)',
    ),
    (kernels.RBF(kernels.Median), 'bandwidth is the class Median; allowed: .*'),
    (kernels.IMQ(bandwidth=kernels.Median), 'bandwidth is the class Median'),
  )
  def test_a_class_in_place_of_a_value_is_named(self, kernel, message):
    x, rng = jnp.ones((3, 2)), jax.random.key(0)
    identity = lambda x: x
    for call in (
      lambda: stein.svgd_direction(x, x, kernel),
      lambda: stein.ksd(x, x, kernel),
      lambda: stein.ksd_test(rng, x, x, kernel),
      lambda: stein.stein_matrix(x, x, x, x, kernel),
      lambda: stein.feature_repulsion(x, identity, kernel),
      lambda: stein.SVGD(kernel)(x, x),
      lambda: stein.FeatureSVGD(kernel)(x, x, features=identity),
    ):
      with self.assertRaisesRegex(TypeError, message):
        call()

  def test_a_rule_that_is_a_class_has_no_kernel(self):
    with self.assertRaisesRegex(TypeError, 'bandwidth is the class Median'):
      kernels.RBF(kernels.Median)(jnp.ones(3))

  @parameterized.parameters(
    (0, 'rng is the int 0; allowed: a key, such as jax.random.key'),
    (None, 'rng is None'),
    (np.int32(3), r'rng is an array int32 \(\)'),
    (jnp.ones((3, 2)), r'rng is an array float32 \(3, 2\)'),
    (jax.random.split(jax.random.key(0)), r'rng is an array key<fry> \(2,\)'),
    (jax.random.key, 'rng is the function key'),
  )
  def test_what_is_no_key_is_named(self, rng, message):
    x = jnp.ones((3, 2))
    with self.assertRaisesRegex(TypeError, message):
      stein.ksd_test(rng, x, x, kernels.rbf)

  def test_keys_of_both_kinds_are_taken(self):
    x = jnp.arange(6.0).reshape(3, 2)
    test = lambda rng: stein.ksd_test(rng, x, -x, kernels.rbf, num_bootstrap=3)
    found = [jax.jit(test)(make(3)) for make in (jax.random.key, _OLD_KEY)]
    np.testing.assert_array_equal(*found)
    keys = jax.random.split(jax.random.key(0))
    self.assertEqual(jax.vmap(test)(keys)[1].shape, (2,))

  def test_refuses_unlike_shapes(self):
    x = jnp.ones((3, 2))
    with self.assertRaisesRegex(ValueError, r'\(3, 2\) and \(3, 1\)'):
      stein.ksd(x, x[:, :1], kernels.rbf)


if __name__ == '__main__':
  absltest.main()
