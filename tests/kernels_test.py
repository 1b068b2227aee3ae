"""Tests of kernels against literal definitions in NumPy float64."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import chex
import hypothesis
from hypothesis import strategies
from hypothesis.extra import numpy as arrays
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
import numpy as np

from stein_jax import collectives
from stein_jax import kernels

# Sums of squares in any order, centred: a few roundings of the largest term.
_ROUNDINGS = 16


def _pairwise(x, y):
  x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
  return np.stack([np.sum((point - y) ** 2, -1) for point in x])


def _tolerance(x, y, dtype=np.float32):
  """Returns the rounding error of distances whose terms are |x - center|^2."""
  x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
  largest = max(np.max(np.sum((z - y.mean(0)) ** 2, -1)) for z in (x, y))
  return _ROUNDINGS * np.finfo(dtype).eps * largest


def _median(x, diagonal=True):
  n = len(x)
  keep = np.ones((n, n), bool) if diagonal else ~np.eye(n, dtype=bool)
  return np.median(_pairwise(x, x)[keep])


def _normal(*shape, offset=0.0, spread=1.0, dtype=np.float32):
  draws = np.random.default_rng(shape).normal(size=shape)
  return np.asarray(offset + spread * draws, dtype)


_distance = jax.jit(kernels.squared_distance)


@functools.partial(
  jax.jit, static_argnames=('scale', 'diagonal', 'log', 'block_size')
)
def _bandwidth(x, **rule):
  return kernels.median_bandwidth(x, **rule)


class ProfilesTest(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.named_parameters(
    ('rbf_unit', kernels.rbf, {}, 2.0, np.exp(-2)),
    ('rbf', kernels.rbf, {'bandwidth': 4.0}, 2.0, np.exp(-0.5)),
    ('imq_unit', kernels.imq, {}, 3.0, 1 / 2),
    ('imq', kernels.imq, {'bandwidth': 2.0, 'exponent': -1.0}, 6.0, 1 / 4),
    ('quadratic_unit', kernels.rational_quadratic, {}, 3.0, 1 / 4),
    (
      'quadratic',
      kernels.rational_quadratic,
      {'bandwidth': 2.0, 'mixture': 2.0},
      4.0,
      1 / 4,
    ),
  )
  def test_by_hand(self, profile, keywords, sq_dist, expected):
    profile = self.variant(functools.partial(profile, **keywords))
    sq_dist = jnp.array([[0.0, sq_dist]])
    np.testing.assert_allclose(profile(sq_dist), [[1, expected]], rtol=1e-6)

  def test_rational_quadratic_grows_into_rbf(self):
    # (1 + t / m)^-m = exp(-t + t^2 / 2m - ...): relative error below t^2 / m.
    sq_dist, mixture = jnp.linspace(0.0, 2.0, 5), 1000.0
    np.testing.assert_allclose(
      kernels.rational_quadratic(sq_dist, 1.0, mixture),
      kernels.rbf(sq_dist),
      rtol=2.0**2 / mixture,
    )

  @parameterized.product(
    profile=[kernels.rbf, kernels.imq, kernels.rational_quadratic],
    dtype=['bfloat16', 'float16', 'float32'],
  )
  def test_keeps_dtype(self, profile, dtype):
    self.assertEqual(profile(jnp.ones(3, dtype), 2.0).dtype, dtype)


# Every kernel value with numbers of its own, and its formula.
_VALUES = (
  ('rbf', kernels.RBF, {'bandwidth': 1.7}),
  ('imq', kernels.IMQ, {'bandwidth': 1.7}),
  ('imq_steep', kernels.IMQ, {'bandwidth': 1.7, 'exponent': -1.3}),
  ('quadratic', kernels.RationalQuadratic, {'bandwidth': 1.7}),
  (
    'quadratic_of_its_own',
    kernels.RationalQuadratic,
    {'bandwidth': 1.7, 'mixture': 0.6},
  ),
)
_SWEPT = {
  kernels.RBF: {'bandwidth': [0.5, 2.0, 3.0]},
  kernels.IMQ: {'bandwidth': [0.5, 2.0, 3.0], 'exponent': [-2.0, -0.5, -0.1]},
  kernels.RationalQuadratic: {
    'bandwidth': [0.5, 2.0, 3.0],
    'mixture': [0.4, 1.0, 5.0],
  },
}
_SQ_DIST = np.array([[0.0, 0.3], [2.0, 11.0]])


def _definition(kind, sq_dist, bandwidth, **more):
  """Returns a kernel of squared distances in float64."""
  sq_dist = np.asarray(sq_dist, np.float64)
  if kind is kernels.RBF:
    return np.exp(-sq_dist / bandwidth)
  if kind is kernels.IMQ:
    return (1 + sq_dist / bandwidth) ** more.get('exponent', -0.5)
  mixture = more.get('mixture', 1.0)
  return (1 + sq_dist / bandwidth / mixture) ** -mixture


class ValuesTest(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.named_parameters(*_VALUES)
  def test_is_the_definition(self, kind, numbers):
    found = self.variant(kind(**numbers))(jnp.array(_SQ_DIST))
    np.testing.assert_allclose(
      found, _definition(kind, _SQ_DIST, **numbers), rtol=1e-6
    )

  @parameterized.named_parameters(*_VALUES)
  def test_in_float64(self, kind, numbers):
    with jax.enable_x64(True):
      found = kind(**numbers)(jnp.array(_SQ_DIST))
    np.testing.assert_allclose(
      found, _definition(kind, _SQ_DIST, **numbers), rtol=1e-14
    )

  @parameterized.product(
    value=_VALUES, dtype=['bfloat16', 'float16', 'float32']
  )
  def test_numbers_of_numpy_leave_the_dtype(self, value, dtype):
    _, kind, numbers = value
    numbers = {name: np.float64(number) for name, number in numbers.items()}
    self.assertEqual(kind(**numbers)(jnp.ones(3, dtype)).dtype, dtype)

  @parameterized.named_parameters(
    (f'{kind.__name__}_{name}', kind, name)
    for kind, names in _SWEPT.items()
    for name in names
  )
  def test_numbers_may_be_swept_and_learned(self, kind, name):
    numbers = {'bandwidth': 1.7}
    swept = _SWEPT[kind][name]
    of = lambda number: kind(**numbers | {name: number})
    literal = lambda number: _definition(
      kind, _SQ_DIST, **numbers | {name: number}
    )
    sq_dist = jnp.array(_SQ_DIST)
    call = lambda number: of(number)(sq_dist)
    found = jax.jit(jax.vmap(call))(jnp.array(swept))
    np.testing.assert_allclose(found, list(map(literal, swept)), rtol=1e-5)
    # Differences of the definition in float64 are right to the square of the step.
    step = 1e-4
    slopes = [
      np.sum(literal(number + step) - literal(number - step)) / (2 * step)
      for number in swept
    ]
    slope = jax.grad(lambda number: jnp.sum(call(number)))
    np.testing.assert_allclose(
      jax.vmap(slope)(jnp.array(swept)), slopes, rtol=1e-4
    )

  def test_of_the_gaussian_the_slope_is_a_multiple(self):
    kernel = kernels.RBF(1.7)
    for sq_dist in (0.0, 0.4, 3.0):
      slope = jax.grad(kernel)(sq_dist)
      np.testing.assert_allclose(
        slope, kernel.slope_ratio * kernel(sq_dist), rtol=1e-6
      )
    self.assertIsNone(kernels.IMQ(1.7).slope_ratio)
    self.assertIsNone(kernels.RationalQuadratic(1.7).slope_ratio)

  @parameterized.named_parameters(*_VALUES)
  def test_at_points_has_the_median(self, kind, numbers):
    x = jnp.array(_normal(7, 3))
    numbers = {k: v for k, v in numbers.items() if k != 'bandwidth'}
    kernel = kind(**numbers)
    found = jax.jit(lambda x: kernel.at(x)(_SQ_DIST))(x)
    bandwidth = _median(x) / np.log(8)
    expected = _definition(kind, _SQ_DIST, bandwidth, **numbers)
    np.testing.assert_allclose(found, expected, rtol=1e-5)

  def test_has_the_bits_of_the_function(self):
    x, sq_dist = jnp.array(_normal(7, 3)), jnp.array(_SQ_DIST)
    expected = kernels.rbf(sq_dist, _bandwidth(x))
    kernel = jax.jit(kernels.RBF().at)(x)
    np.testing.assert_array_equal(kernel(sq_dist), expected)

  def test_at_points_of_a_number_is_itself(self):
    for bandwidth in (2, np.float32(2), jnp.array(2.0)):
      kernel = kernels.IMQ(bandwidth)
      self.assertIs(kernel.at(jnp.ones((3, 2))), kernel)

  def test_a_rule_of_ones_own(self):
    class Mean:
      def at(self, x, axis_name=None):
        mean = collectives.pmean(jnp.mean(x, 0), axis_name)
        change = jnp.sum((x - mean[None]) ** 2, 1)
        return collectives.pmean(jnp.mean(change), axis_name)

    x = _normal(7, 3)
    kernel = kernels.RBF(Mean()).at(jnp.array(x))
    np.testing.assert_allclose(
      kernel.bandwidth, np.sum(np.var(x, 0)), rtol=1e-5
    )

  @parameterized.parameters(kernels.RBF, kernels.IMQ, kernels.RationalQuadratic)
  def test_nan_points_make_it_nan(self, kind):
    x = jnp.ones((4, 2)).at[1, 1].set(jnp.nan)
    kernel = jax.jit(kind().at)(x)
    for found in (kernel(_SQ_DIST), kind(1.0)(_SQ_DIST * np.nan)):
      self.assertTrue(np.all(np.isnan(found)))

  @parameterized.product(
    kind=[kernels.RBF, kernels.IMQ, kernels.RationalQuadratic],
    bandwidth=[0, -1.5, np.float32(-1), np.nan, np.inf, 'median', True, None],
  )
  def test_a_bandwidth_is_positive(self, kind, bandwidth):
    kernel = kind(bandwidth)
    message = 'bandwidth=.* must be a positive number'
    with self.assertRaisesRegex(ValueError, message):
      kernel(_SQ_DIST)
    with self.assertRaisesRegex(ValueError, message):
      kernels.resolved(kernel, jnp.ones((3, 2)))

  @parameterized.parameters(
    (kernels.IMQ(1.0, 0.5), 'exponent=0.5 must be at most 0'),
    (kernels.IMQ(1.0, -np.inf), 'exponent=-inf must be a finite number'),
    (kernels.RationalQuadratic(1.0, 0.0), 'mixture=0.0 must be a positive'),
    (kernels.RBF(jnp.ones(3)), r'bandwidth has shape \(3,\)'),
    (kernels.RBF(jnp.array(-2.0)), 'bandwidth=-2.0 must be a positive'),
    (kernels.RBF(), r'is a rule.*call `RBF\(...\).at\(x\)` first'),
    (kernels.IMQ(kernels.Median(2.0)), r'scale=2.0.*call `IMQ\(...\).at'),
  )
  def test_refuses(self, kernel, message):
    with self.assertRaisesRegex(ValueError, message):
      kernel(_SQ_DIST)

  def test_a_rule_has_no_slope(self):
    with self.assertRaisesRegex(ValueError, 'is a rule'):
      _ = kernels.RBF().slope_ratio

  def test_traced_numbers_pass(self):
    # (1 - 3)^2 is a number, whatever sense it makes.
    call = jax.jit(lambda b, e: kernels.IMQ(b, e)(3.0))
    np.testing.assert_allclose(call(-1.0, 2.0), 4, rtol=1e-6)


class CombinedTest(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True)
  def test_are_the_definitions(self):
    two = kernels.RBF(2.0), kernels.IMQ(3.0)
    rbf, imq = np.exp(-_SQ_DIST / 2), (1 + _SQ_DIST / 3) ** -0.5
    for kernel, expected in (
      (kernels.Sum(two), rbf + imq),
      (kernels.Sum(two, (0.5, 2.0)), 0.5 * rbf + 2 * imq),
      (kernels.Product(two), rbf * imq),
      (
        kernels.Product((kernels.Sum(two), jnp.sqrt)),
        (rbf + imq) * _SQ_DIST**0.5,
      ),
    ):
      found = self.variant(kernel)(jnp.array(_SQ_DIST))
      np.testing.assert_allclose(found, expected, rtol=1e-6)

  def test_each_rule_is_applied_to_the_points(self):
    x = jnp.array(_normal(7, 3))
    two = kernels.RBF(), kernels.IMQ(kernels.Median(2.0, log='none'))
    rbf = np.exp(-_SQ_DIST * np.log(8) / _median(x))
    imq = (1 + _SQ_DIST / _median(x) / 2) ** -0.5
    for kernel, expected in (
      (kernels.Sum(two), rbf + imq),
      (kernels.Product(two), rbf * imq),
    ):
      found = jax.jit(lambda x: kernels.resolved(kernel, x)(_SQ_DIST))(x)
      np.testing.assert_allclose(found, expected, rtol=1e-5)

  def test_the_product_of_gaussians_is_one(self):
    # exp(-r / 2) exp(-r / 3) = exp(-5 r / 6), whose slope is -5/6 of it.
    kernel = kernels.Product((kernels.RBF(2.0), kernels.RBF(3.0)))
    np.testing.assert_allclose(
      kernel(_SQ_DIST), np.exp(-5 * _SQ_DIST / 6), rtol=1e-6
    )
    np.testing.assert_allclose(kernel.slope_ratio, -5 / 6, rtol=1e-6)
    mixed = kernels.Product((kernels.RBF(2.0), kernels.IMQ(2.0)))
    self.assertIsNone(mixed.slope_ratio)
    self.assertIsNone(kernels.Sum((kernels.RBF(2.0),)).slope_ratio)

  def test_weights_may_be_swept(self):
    two = kernels.RBF(2.0), kernels.IMQ(3.0)
    call = lambda weight: kernels.Sum(two, (1.0, weight))(1.0)
    found = jax.jit(jax.vmap(call))(jnp.array([0.0, 2.0]))
    expected = np.exp(-0.5) + np.array([0, 2]) * (4 / 3) ** -0.5
    np.testing.assert_allclose(found, expected, rtol=1e-6)

  @parameterized.parameters(
    (kernels.Sum(()), r'kernels=\(\) must be a sequence of one or more'),
    (kernels.Product(kernels.RBF()), 'kernels=RBF.* must be a sequence'),
    (kernels.Sum((kernels.RBF(), 3)), r'kernels\[1\]=3 must be a function'),
    (kernels.Sum((kernels.RBF(-1.0),)), r'kernels\[0\].bandwidth=-1.0 must be'),
    (
      kernels.Sum((kernels.RBF(),), (1, 2)),
      r'weights=\(1, 2\) must be as many',
    ),
    (kernels.Sum((kernels.RBF(),), (-1,)), r'weights\[0\]=-1 must be zero or'),
    (kernels.Product((jnp.sum,)), r'kernels\[0\] has shape \(\)'),
  )
  def test_refuses(self, kernel, message):
    with self.assertRaisesRegex(ValueError, message):
      kernels.resolved(kernel, jnp.ones((3, 2)))(_SQ_DIST)


class MedianTest(chex.TestCase):
  def test_is_that_of_numpy(self):
    x = _normal(6, 2)
    expected = {
      kernels.Median(scale, diagonal, log): scale
      * _median(x, diagonal)
      / divisor
      for scale in (1.0, 0.25)
      for diagonal in (True, False)
      for log, divisor in (('n+1', np.log(7)), ('n', np.log(6)), ('none', 1))
    }
    found = jax.jit(lambda x: [rule.at(x) for rule in expected])(x)
    np.testing.assert_allclose(found, list(expected.values()), rtol=1e-6)

  def test_the_factor_may_be_swept_and_learned(self):
    x, scales = _normal(6, 2), jnp.array([0.5, 1.0, 3.0])
    bandwidth = lambda rule: rule.at(x)
    found = jax.jit(jax.vmap(bandwidth))(kernels.Median(scales))
    unit = _median(x) / np.log(7)
    np.testing.assert_allclose(found, scales * unit, rtol=1e-6)
    slope = jax.jit(jax.grad(bandwidth))(kernels.Median(2.0)).scale
    np.testing.assert_allclose(slope, unit, rtol=1e-6)

  @parameterized.parameters('vmap', 'pmap', 'shard_map')
  def test_of_points_on_several_devices(self, mode):
    x = _normal(8, 3)
    local = lambda x: kernels.resolved(kernels.RBF(), x, 'batch').bandwidth
    shares = jnp.array(x.reshape(4, 2, 3))
    if mode == 'shard_map':
      found = jax.jit(
        jax.shard_map(
          local,
          mesh=Mesh(np.array(jax.devices()[:4]), ('batch',)),
          in_specs=PartitionSpec('batch'),
          out_specs=PartitionSpec(),
        )
      )(jnp.array(x))
    else:
      mapped = {'vmap': jax.vmap, 'pmap': jax.pmap}[mode]
      found = jax.jit(mapped(local, axis_name='batch'))(shares)
    np.testing.assert_allclose(found, _median(x) / np.log(9), rtol=1e-6)

  @parameterized.parameters(
    (kernels.Median(scale=-1.0), 'scale=-1.0 must be a positive number'),
    (
      kernels.Median(log='2'),
      "log='2' is unknown; allowed: 'n.1', 'n', 'none'",
    ),
  )
  def test_refuses(self, rule, message):
    with self.assertRaisesRegex(ValueError, message):
      kernels.RBF(rule).at(jnp.ones((3, 2)))


class ResolvedTest(parameterized.TestCase):
  def test_a_plain_function_stays(self):
    for kernel in (kernels.imq, lambda sq_dist: 1 / (1 + sq_dist)):
      self.assertIs(kernels.resolved(kernel, jnp.ones((2, 1))), kernel)

  def test_refuses_what_cannot_be_called(self):
    with self.assertRaisesRegex(ValueError, "kernel='rbf' must be a function"):
      kernels.resolved('rbf', jnp.ones((2, 1)))


class SquaredDistanceTest(chex.TestCase):
  @parameterized.named_parameters(
    ('plain', (7, 3), (5, 3), {}),
    ('one', (1, 1), (1, 1), {}),
    ('two', (2, 3), (1, 3), {}),
    ('three', (3, 1), (3, 1), {}),
    ('wide', (3, 3072), (2, 3072), {}),
    ('offset', (7, 3), (5, 3), {'offset': 1e4}),
    ('wide_offset', (3, 3072), (2, 3072), {'offset': 1e4}),
    ('spread', (7, 3), (5, 3), {'spread': 1e-6}),
    ('offset_spread', (7, 3), (5, 3), {'offset': 1.0, 'spread': 1e-6}),
  )
  def test_is_the_sum_of_squared_differences(self, x_shape, y_shape, keywords):
    x, y = _normal(*x_shape, **keywords), _normal(*y_shape, **keywords)
    actual = _distance(jnp.array(x), jnp.array(y))
    self.assertEqual(actual.dtype, jnp.float32)
    np.testing.assert_allclose(
      actual, _pairwise(x, y), rtol=0, atol=_tolerance(x, y)
    )

  @parameterized.parameters(0.0, 1e4)
  def test_of_duplicates(self, offset):
    x = _normal(50, 30, offset=offset)
    pairs = np.repeat(x, 2, 0)
    actual = _distance(jnp.array(pairs), jnp.array(pairs))
    np.testing.assert_allclose(
      actual, _pairwise(pairs, pairs), rtol=0, atol=_tolerance(x, x)
    )
    self.assertGreaterEqual(jnp.min(actual), 0)
    same = jnp.array(np.repeat(x[:1], 5, 0))
    np.testing.assert_array_equal(_distance(same, same), 0)

  @parameterized.parameters('bfloat16', 'float16')
  def test_half_precision_is_summed_in_float32(self, dtype):
    # Distances near 10^6 pass the largest float16, 65504.
    x = jnp.array(_normal(64, 8, spread=300.0), dtype)
    actual = _distance(x, x)
    self.assertEqual(actual.dtype, jnp.float32)
    np.testing.assert_allclose(
      actual, _pairwise(x, x), rtol=0, atol=_tolerance(x, x)
    )

  def test_float64_stays(self):
    with jax.enable_x64(True):
      x = _normal(7, 3, offset=1e4, dtype=np.float64)
      actual = _distance(jnp.array(x), jnp.array(x))
      self.assertEqual(actual.dtype, jnp.float64)
    np.testing.assert_allclose(
      actual, _pairwise(x, x), rtol=0, atol=_tolerance(x, x, np.float64)
    )


class MedianBandwidthTest(chex.TestCase):
  @parameterized.parameters(np.nan, -np.nan, np.inf)
  def test_of_a_point_that_is_not_finite(self, value):
    # As integers, the bits of -nan are negative: the search must still end.
    x = jnp.arange(12.0).reshape(6, 2).at[2, 1].set(value)
    self.assertTrue(np.isnan(_bandwidth(x)))

  def assert_median(self, actual, x, expected):
    """The median moves by no more than the distances do."""
    np.testing.assert_allclose(
      actual, expected, rtol=1e-6, atol=_tolerance(x, x)
    )

  @parameterized.product(n=[2, 5, 90], diagonal=[True, False])
  def test_is_that_of_numpy(self, n, diagonal):
    x = _normal(n, 2)
    actual = _bandwidth(jnp.array(x), diagonal=diagonal, log='none')
    self.assertEqual(actual.shape, ())
    self.assertGreater(_median(x, diagonal), 2 * _tolerance(x, x))
    self.assert_median(actual, x, _median(x, diagonal))

  def test_two_far_points_cost_the_others_no_digits(self):
    x = _normal(20, 3)
    x[0] += 1e6
    x[7, 1] -= 3e5
    actual = _bandwidth(jnp.array(x), log='none')
    np.testing.assert_allclose(actual, _median(x), rtol=1e-6)

  @parameterized.parameters(1, 4, 100)
  def test_blocks(self, block_size):
    x = _normal(10, 2, offset=1e4)
    actual = _bandwidth(jnp.array(x), log='none', block_size=block_size)
    self.assert_median(actual, x, _median(x))

  @chex.variants(with_jit=True, without_jit=True, with_pmap=True)
  def test_variants(self):
    x = _normal(6, 3)
    self.assert_median(
      self.variant(kernels.median_bandwidth)(jnp.array(x)),
      x,
      _median(x) / np.log(7),
    )

  @parameterized.parameters('bfloat16', 'float16', 'float32', 'float64')
  def test_dtype(self, dtype):
    with jax.enable_x64(dtype == 'float64'):
      x = jnp.array(_normal(8, 3, dtype=np.float64), dtype)
      actual = _bandwidth(x, log='none')
    wide = np.promote_types(np.float32, 'float32' if '16' in dtype else dtype)
    self.assertEqual(actual.dtype, wide)
    np.testing.assert_allclose(actual, _median(x), atol=_tolerance(x, x, wide))

  @parameterized.named_parameters(
    ('one', np.full((1, 3), 7.0), {}),
    ('one_without_diagonal', np.full((1, 3), 7.0), {'diagonal': False}),
    ('one_log_n', np.full((1, 3), 7.0), {'log': 'n'}),
    ('same', np.full((5, 3), 1e4), {}),
    ('majority', np.eye(6)[[0, 0, 0, 0, 0, 1]], {}),
    ('majority_offset', 1e4 + np.eye(6)[[0, 0, 0, 0, 0, 1]], {}),
  )
  def test_of_zero_is_replaced(self, x, keywords):
    x = np.float32(x)
    actual = _bandwidth(jnp.array(x), **keywords)
    self.assertGreater(actual, 0)
    # Epsilon times the mean squared distance, above a floor; at 1e4 the centre
    # is rounded to about 1e-3.
    expected = np.finfo(np.float32).eps * np.mean(_pairwise(x, x))
    expected = max(
      expected / np.log(len(x) + 1), np.finfo(np.float32).tiny ** 0.5
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-3)

  @parameterized.named_parameters(
    ('distinct', _normal(6, 3)), ('majority', np.eye(6)[[0, 0, 0, 0, 0, 1]])
  )
  def test_has_no_gradient(self, x):
    gradient = jax.grad(_bandwidth)(jnp.array(x, jnp.float32))
    np.testing.assert_array_equal(gradient, 0)

  def test_does_not_sort(self):
    traced = lambda f: str(jax.make_jaxpr(f)(jnp.ones((5, 2))))
    self.assertIn(' sort[', traced(jnp.median))
    self.assertNotIn(' sort[', traced(kernels.median_bandwidth))

  @hypothesis.settings(
    deadline=None, max_examples=25, database=None, derandomize=True
  )
  @hypothesis.given(
    arrays.arrays(
      np.float32,
      (6, 2),
      elements=strategies.integers(-4, 4)
      | strategies.floats(-100, 100, width=32),
    )
  )
  def test_of_any_points(self, x):
    actual = _bandwidth(x, log='none')
    self.assertGreater(actual, 0)
    floor = np.finfo(np.float32).tiny ** 0.5
    np.testing.assert_allclose(
      actual, _median(x), rtol=1e-6, atol=_tolerance(x, x) + floor
    )


class MapRowsTest(chex.TestCase):
  @parameterized.parameters(1, 3, 7, 100, None)
  def test_is_a_loop(self, block_size):
    rows = np.arange(14.0).reshape(7, 2), np.arange(7)
    shifted, total = kernels.map_rows(
      lambda row: (row[0] + row[1], jnp.sum(row[0])),
      jax.tree.map(jnp.array, rows),
      2,
      block_size,
    )
    np.testing.assert_array_equal(
      shifted, [x + i for x, i in zip(*rows, strict=True)]
    )
    np.testing.assert_array_equal(total, [1, 5, 9, 13, 17, 21, 25])

  @parameterized.parameters((7, False), (2**22, True), (2**23, True))
  def test_chooses_blocks_by_columns(self, num_columns, loops):
    traced = jax.make_jaxpr(
      lambda x: kernels.map_rows(jnp.sum, x, num_columns, None)
    )(jnp.ones((7, 2)))
    self.assertEqual('scan' in str(traced), loops)


class ArgumentsTest(chex.TestCase):
  @parameterized.parameters(
    (kernels.median_bandwidth, {'scale': 0.0}, 'scale=0.0'),
    (kernels.median_bandwidth, {'scale': -1.5}, 'scale=-1.5'),
    (kernels.median_bandwidth, {'scale': np.nan}, 'scale=nan'),
    (kernels.median_bandwidth, {'log': 'n+2'}, "log='n+2'"),
    (kernels.median_bandwidth, {'log': None}, 'log=None'),
    (kernels.median_bandwidth, {'block_size': 0}, 'block_size=0'),
    (kernels.median_bandwidth, {'block_size': 1.5}, 'block_size=1.5'),
  )
  def test_refuses(self, function, keywords, message):
    with self.assertRaisesRegex(ValueError, message.replace('+', r'\+')):
      function(jnp.ones((3, 2)), **keywords)


if __name__ == '__main__':
  absltest.main()
