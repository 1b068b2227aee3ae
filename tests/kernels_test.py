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
import numpy as np

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
    name=sorted(kernels.PROFILES), dtype=['bfloat16', 'float16', 'float32']
  )
  def test_keeps_dtype(self, name, dtype):
    self.assertEqual(
      kernels.PROFILES[name](jnp.ones(3, dtype), 2.0).dtype, dtype
    )


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
    self.assertTrue(np.isnan(kernels.median_bandwidth(x)))

  def assert_median(self, actual, x, expected):
    """The median moves by no more than the distances do."""
    np.testing.assert_allclose(
      actual, expected, rtol=1e-6, atol=_tolerance(x, x)
    )

  @parameterized.product(n=[2, 3, 4, 5, 90], diagonal=[True, False])
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

  @parameterized.product(
    log=[('n+1', np.log(6)), ('n', np.log(5)), ('none', 1)], scale=[1.0, 0.25]
  )
  def test_scale_and_logarithm(self, log, scale):
    x, (log, divisor) = _normal(5, 2), log
    actual = _bandwidth(jnp.array(x), scale=scale, log=log)
    self.assert_median(actual, x, scale * _median(x) / divisor)

  @parameterized.parameters(1, 4, 10, 100)
  def test_blocks(self, block_size):
    x = _normal(10, 2, offset=1e4)
    actual = _bandwidth(jnp.array(x), log='none', block_size=block_size)
    self.assert_median(actual, x, _median(x))

  @chex.all_variants
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


class AtMedianTest(chex.TestCase):
  @parameterized.parameters(*sorted(kernels.PROFILES))
  def test_of_a_name(self, name):
    x = _normal(4, 2)
    bandwidth = 2 * _median(x, diagonal=False) / np.log(5)
    sq_dist = jnp.array([0.0, 1.0, 4.0])
    actual = jax.jit(
      lambda x: kernels.at_median(name, x, scale=2.0, diagonal=False)(sq_dist)
    )(x)
    expected = kernels.PROFILES[name](sq_dist, bandwidth)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)

  def test_of_a_kernel(self):
    self.assertIs(kernels.at_median(kernels.imq, jnp.ones((2, 1))), kernels.imq)


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
    (functools.partial(kernels.at_median, 'gauss'), {}, "kernel='gauss'"),
    (functools.partial(kernels.at_median, 'rbf'), {'scale': -2}, 'scale=-2'),
  )
  def test_refuses(self, function, keywords, message):
    with self.assertRaisesRegex(ValueError, message.replace('+', r'\+')):
      function(jnp.ones((3, 2)), **keywords)


if __name__ == '__main__':
  absltest.main()
