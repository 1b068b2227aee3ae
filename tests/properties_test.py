"""Properties of the primitives on drawn points, extremes among them.

Hypothesis draws a seed, a shape and an extreme; NumPy draws the values, so that few
programs are compiled. The draws are the same in every run.
"""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np

from stein_jax import _distances
from stein_jax import datasets
from stein_jax import kernels
from stein_jax import metrics
from stein_jax import samplers
from stein_jax import stein
from stein_jax.runs import evaluation

_PROFILE = hypothesis.settings(
  max_examples=25,
  derandomize=True,
  deadline=None,
  database=None,
  suppress_health_check=list(hypothesis.HealthCheck),
)
_SHAPES = ((1, 1), (7, 2))
_DTYPES = (jnp.float16, jnp.bfloat16, jnp.float32)
# What is done to unit normal points; float32 keeps all of them.
_EXTREMES = {
  'plain': lambda x: x,
  'duplicates': lambda x: x[np.arange(len(x)) // 2],
  'one point': lambda x: np.broadcast_to(x[:1], x.shape),
  'offset': lambda x: x + 1e4,
  'narrow': lambda x: 1e-6 * x,
  'wide': lambda x: 1e6 * x,
  'zeros': lambda x: 0 * x,
  'grid': lambda x: np.round(8 * x) / 8,  # an offset of 1e4 rounds none of it
}
_KERNELS = (kernels.RBF, kernels.IMQ, kernels.RationalQuadratic)
_eps = float(np.finfo(np.float32).eps)


@st.composite
def points(draw, shapes=_SHAPES, extremes=tuple(_EXTREMES)):
  """Draws points [n, d], scores like them and a generator, in float32."""
  rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
  shape = draw(st.sampled_from(shapes))
  x = _EXTREMES[draw(st.sampled_from(extremes))](rng.standard_normal(shape))
  size = draw(st.sampled_from((0.0, 1.0, 1e6)))
  score = size * rng.standard_normal(shape)
  return np.float32(x), np.float32(score), rng


@jax.jit
def bandwidth(x):
  return kernels.median_bandwidth(x)


@jax.jit(static_argnames='diagonal')
def median(x, diagonal):
  return kernels.median_bandwidth(x, diagonal=diagonal, log='none')


@jax.jit(static_argnames='kernel')
def directions(x, score, kernel):
  """Returns the direction, divided by the count and by the sum of rows."""
  profile = kernel().at(x)
  return [
    stein.svgd_direction(x, score, profile, normalize=normalize)
    for normalize in ('count', 'row_sum')
  ]


@jax.jit(static_argnames='kernel')
def discrepancies(x, score, kernel):
  """Returns the V-statistic, the U-statistic where there is one, and the matrix."""
  profile = kernel().at(x)
  return (
    stein.ksd(x, score, profile),
    stein.ksd(x, score, profile, unbiased=True) if len(x) > 1 else 0.0,
    stein.stein_matrix(x, score, x, score, profile),
  )


class DistanceTest(absltest.TestCase):
  @_PROFILE
  @hypothesis.given(points())
  def test_squared_distance(self, drawn):
    x, _, _ = drawn
    found = np.asarray(jax.jit(kernels.squared_distance)(x, x))
    exact = x.astype(np.float64)
    exact = np.sum((exact[:, None] - exact[None]) ** 2, -1)
    # The expansion of the square is exact to the largest of the centred norms.
    largest = np.max(np.sum((x - x.mean(0, dtype=np.float64)) ** 2, 1))
    slack = 16 * _eps * max(largest, np.max(exact))
    np.testing.assert_allclose(found, exact, rtol=0, atol=slack)
    self.assertTrue(np.all(found >= 0))

  @_PROFILE
  @hypothesis.given(points(), st.sampled_from(_KERNELS))
  def test_kernels_fall_from_one_to_zero(self, drawn, kernel):
    x, _, _ = drawn
    sq_dist = np.sort(np.sum(x**2, 1))
    k = np.asarray(kernel(1.0)(sq_dist))
    self.assertTrue(np.all((k >= 0) & (k <= 1)))
    self.assertTrue(np.all(np.diff(k) <= 0))
    self.assertEqual(float(kernel(1.0)(jnp.zeros(()))), 1)


class MedianTest(absltest.TestCase):
  @_PROFILE
  @hypothesis.given(points(), st.booleans())
  def test_is_that_of_numpy(self, drawn, diagonal):
    x, _, _ = drawn
    hypothesis.assume(diagonal or len(x) > 1)
    centred = jnp.asarray(x) - _distances.center_of(jnp.asarray(x))
    sq_dist = np.asarray(kernels.squared_distance(centred, centred), np.float64)
    sq_dist[np.diag_indices(len(x))] = 0
    kept = np.ones_like(sq_dist, bool)
    np.fill_diagonal(kept, diagonal)
    expected = np.median(sq_dist[kept])
    found = float(median(x, diagonal))
    if expected > 0:
      # The distances themselves are rounded by the size of the largest.
      slack = 16 * _eps * np.max(sq_dist)
      np.testing.assert_allclose(found, expected, rtol=8 * _eps, atol=slack)
    self.assertGreater(found, 0)

  @_PROFILE
  @hypothesis.given(
    points(extremes=('plain', 'duplicates')), st.integers(-20, 20)
  )
  def test_scales_with_the_square(self, drawn, power):
    x, _, _ = drawn
    hypothesis.assume(float(bandwidth(x)) > 1e-10)
    factor = 2.0**power  # exact in floats
    np.testing.assert_allclose(
      bandwidth(np.float32(factor * x)), factor**2 * bandwidth(x), rtol=8 * _eps
    )

  @_PROFILE
  @hypothesis.given(points(extremes=('grid',)))
  def test_order_and_place_do_not_matter(self, drawn):
    x, _, rng = drawn
    shuffled = x[rng.permutation(len(x))]
    for other in (shuffled, x + np.float32(1e4)):
      np.testing.assert_allclose(bandwidth(other), bandwidth(x), rtol=64 * _eps)


class DirectionTest(absltest.TestCase):
  @_PROFILE
  @hypothesis.given(points(), st.sampled_from(_KERNELS))
  def test_is_finite_and_follows_the_particles(self, drawn, kernel):
    x, score, rng = drawn
    order = rng.permutation(len(x))
    phis = directions(x, score, kernel)
    for phi, moved in zip(
      phis, directions(x[order], score[order], kernel), strict=True
    ):
      self.assertEqual(phi.shape, x.shape)
      self.assertTrue(np.all(np.isfinite(phi)))
      # The repulsion sums terms up to |x| / bandwidth, each to its own rounding.
      reach = np.max(np.abs(x - x.mean(0))) / float(bandwidth(x))
      slack = 64 * _eps * (np.max(np.abs(score)) + reach)
      np.testing.assert_allclose(moved, phi[order], rtol=64 * _eps, atol=slack)

  @_PROFILE
  @hypothesis.given(points(extremes=('grid',)), st.sampled_from(_KERNELS))
  def test_place_does_not_matter(self, drawn, kernel):
    x, score, _ = drawn
    hypothesis.assume(len(np.unique(x, axis=0)) == len(x))
    here = directions(x, score, kernel)
    there = directions(x + np.float32(1e4), score, kernel)
    slack = 256 * _eps * (1 + np.max(np.abs(score)))
    for phi, moved in zip(here, there, strict=True):
      np.testing.assert_allclose(moved, phi, rtol=0, atol=slack)

  @_PROFILE
  @hypothesis.given(
    points(shapes=((7, 2),), extremes=('plain',)), st.sampled_from(_DTYPES)
  )
  def test_keeps_the_dtype(self, drawn, dtype):
    x, score, _ = drawn
    x, score = jnp.asarray(x, dtype), jnp.asarray(np.tanh(score), dtype)
    phi = directions(x, score, kernels.RBF)[0]
    self.assertEqual(phi.dtype, dtype)
    # Half precision goes in and out; what is between is float32.
    wide = [array.astype(jnp.float32) for array in (x, score)]
    np.testing.assert_allclose(
      phi.astype(jnp.float32),
      directions(*wide, kernels.RBF)[0],
      rtol=float(jnp.finfo(dtype).eps),
      atol=1e-6,
    )

  def test_is_float64_where_that_is_on(self):
    x, score = np.random.default_rng(0).standard_normal((2, 7, 2))
    with jax.enable_x64(True):
      phi = directions(x, score, kernels.IMQ)[0]
      moved = directions(x + 1e4, score, kernels.IMQ)[0]
      self.assertEqual(phi.dtype, np.float64)
      # Of sixteen digits an offset of 1e4 costs four.
      np.testing.assert_allclose(moved, phi, rtol=0, atol=1e-10)


class DiscrepancyTest(absltest.TestCase):
  @_PROFILE
  @hypothesis.given(points(), st.sampled_from(_KERNELS))
  def test_statistics_are_means_of_the_matrix(self, drawn, kernel):
    x, score, rng = drawn
    n = len(x)
    biased, unbiased, u = map(np.float64, discrepancies(x, score, kernel))
    self.assertTrue(np.all(np.isfinite(u)))
    # Its terms are up to |score|^2, and d / bandwidth, each to its own rounding.
    terms = np.max(np.abs(u)) + np.max(np.sum(score.astype(np.float64) ** 2, 1))
    slack = 64 * _eps * terms
    self.assertGreaterEqual(biased, -slack)
    self.assertAlmostEqual(biased, u.mean(), delta=slack)
    if n > 1:  # n^2 V = n (n - 1) U + trace
      of_both = (n - 1) / n * unbiased + np.trace(u) / n**2
      self.assertAlmostEqual(biased, of_both, delta=slack)
    order = rng.permutation(n)
    shuffled = discrepancies(x[order], score[order], kernel)[0]
    self.assertAlmostEqual(float(shuffled), biased, delta=slack)


@jax.jit
def chains(rng, x, step_size):
  options = dict(step_size=step_size, num_steps=3)
  log_density = lambda x: -0.5 * jnp.sum(x**2, -1)
  end = samplers.langevin(rng, x, lambda x: -x, **options)
  return end, *samplers.mala(rng, x, log_density, **options)


@jax.jit
def still_and_down(rng, x):
  """Returns the ends of a chain of no steps, and of one step without noise."""
  run = functools.partial(
    samplers.langevin, rng, x, lambda x: -x, step_size=1.0
  )
  return run(num_steps=0), run(num_steps=1, noise=False)


class SamplersTest(absltest.TestCase):
  @_PROFILE
  @hypothesis.given(
    points(shapes=((7, 2),)),
    st.sampled_from(_DTYPES),
    st.sampled_from((1e-3, 1.0)),
  )
  def test_chains_keep_shape_and_dtype_and_stay_finite(
    self, drawn, dtype, step_size
  ):
    x, _, _ = drawn
    x = jnp.asarray(np.clip(x, -1e4, 1e4), dtype)  # that float16 has
    *ends, accepted = chains(jax.random.key(0), x, step_size)
    for end in ends:
      self.assertEqual((end.shape, end.dtype), (x.shape, x.dtype))
      self.assertTrue(np.all(np.isfinite(end.astype(jnp.float32))))
    self.assertBetween(float(accepted), 0, 1)

  @_PROFILE
  @hypothesis.given(points(shapes=((7, 2),)))
  def test_no_noise_and_no_steps(self, drawn):
    x, _, _ = drawn
    still, down = still_and_down(jax.random.key(0), x)
    np.testing.assert_array_equal(still, x)
    np.testing.assert_allclose(down, x / 2, rtol=2 * _eps)  # x - x / 2


class MetricsTest(absltest.TestCase):
  @_PROFILE
  @hypothesis.given(points(shapes=_SHAPES[1:]))
  def test_inception_score_is_from_one_to_the_classes(self, drawn):
    logits, _, rng = drawn
    score, spread = metrics.inception_score(logits, num_splits=1)
    self.assertBetween(score, 1 - 1e-9, logits.shape[1] * (1 + 1e-9))
    self.assertEqual(spread, 0)
    # Neither the order of the rows nor a constant on a row's logits matters.
    other = logits[rng.permutation(len(logits))].astype(np.float64)
    other += rng.standard_normal((len(logits), 1))
    np.testing.assert_allclose(
      metrics.inception_score(other, num_splits=1)[0], score, rtol=1e-6
    )

  @_PROFILE
  @hypothesis.given(points(shapes=_SHAPES[1:]))
  def test_frechet_distance_is_a_distance(self, drawn):
    x, y, rng = drawn
    scale = 1 + max(np.max(np.abs(x)), np.max(np.abs(y))) ** 2
    distance = metrics.frechet_distance(x, y)
    self.assertTrue(np.isfinite(distance))
    self.assertGreaterEqual(distance, 0)
    slack = (
      1e-6 * scale
    )  # the root of a rounding in float64, in the units of x^2
    self.assertAlmostEqual(
      metrics.frechet_distance(y, x), distance, delta=slack
    )
    self.assertAlmostEqual(metrics.frechet_distance(x, x), 0, delta=slack)
    shuffled = x[rng.permutation(len(x))]
    self.assertAlmostEqual(
      metrics.frechet_distance(x, shuffled), 0, delta=slack
    )
    # Of a shifted copy it is the square of the shift.
    shifted = x.astype(np.float64) + 3
    self.assertAlmostEqual(
      metrics.frechet_distance(x, shifted), 9 * x.shape[1], delta=slack
    )


# Exact in floats, so that the same points in another unit are the same to the last
# digit: about 1e-12, 1e-6, 1e6 and 1e12.
_UNITS = (2.0**-40, 2.0**-20, 2.0**20, 2.0**40)
# Eighths below 4 in size, which an offset of 2^14 does not round.
_CLOUDS = np.round(
  8 * np.clip(np.random.default_rng(0).standard_normal((3, 12, 3)), -3, 3)
).astype(np.float32) / np.float32(8)
_CLOUD, _CLOUD_SCORE, _OTHER_CLOUD = _CLOUDS
_ORDER = np.random.default_rng(1).permutation(12)


@jax.jit(static_argnames='kernel')
def at_median(x, score, kernel):
  """Returns what has a unit, in powers of it, of a kernel at the median."""
  profile = kernel().at(x)
  test = functools.partial(stein.ksd_test, jax.random.key(0), num_bootstrap=99)
  statistic, p_value = test(x, score, profile)
  directions = [
    stein.svgd_direction(x, score, profile, normalize=normalize)
    for normalize in ('count', 'row_sum')
  ]
  discrepancies = [
    stein.ksd(x, score, profile, unbiased=unbiased)
    for unbiased in (False, True)
  ]
  return {
    2: [kernels.median_bandwidth(x), kernels.squared_distance(x, x)],
    -1: directions,
    -2: [*discrepancies, statistic],
    0: [p_value],
  }


@jax.jit
def in_unit(x, unit):
  """Returns the ends of chains on a normal law as wide as the unit, and a rate."""
  options = dict(step_size=0.8, num_steps=5)
  options['step_size'] *= unit
  rng = jax.random.key(0)
  score = lambda x: -x / unit / unit
  log_density = lambda x: -0.5 * jnp.sum((x / unit) ** 2, -1)
  end, rate = samplers.mala(rng, x, log_density, **options)
  return {1: [samplers.langevin(rng, x, score, **options), end], 0: [rate]}


@jax.jit
def two_samples(x, y):
  """Returns distances of two sets, in powers of their unit, and a p-value."""
  rng = jax.random.key(0)
  statistic, p_value = metrics.two_sample_test(rng, x, y, num_permutations=99)
  return {1: [metrics.energy_distance(x, y), statistic], 0: [p_value]}


def on_host(x, y):
  """Returns the metrics of two sets, in powers of their unit."""
  manifold = metrics.manifold_metrics(y, x, nearest_k=3)
  distances, indices = metrics.nearest_training(x, y)
  half, labels = len(x) // 2, np.arange(len(x)) % 2
  accuracy = metrics.linear_probe(
    x[:half], labels[:half], x[half:], labels[half:]
  )
  return {
    2: [metrics.frechet_distance(x, y)],
    1: [
      metrics.pairwise_distance(x),
      metrics.nearest_neighbour_distance(x),
      distances,
    ],
    0: [*manifold.values(), indices, accuracy],
  }


class LawsTest(parameterized.TestCase):
  """The same points in another unit, place or order, or each of them twice."""

  def assert_follow(self, found, expected, unit=1.0, digits=1e-5):
    """Asserts that results are the expected ones times powers of the unit."""
    for power, values in expected.items():
      for value, wanted in zip(found[power], values, strict=True):
        wanted = np.float64(unit) ** power * np.float64(wanted)
        slack = digits * np.max(np.abs(wanted))
        np.testing.assert_allclose(np.float64(value), wanted, 0, slack)

  @parameterized.product(kernel=_KERNELS, unit=_UNITS)
  def test_unit_of_kernels_at_the_median(self, kernel, unit):
    unit = np.float32(unit)
    expected = at_median(_CLOUD, _CLOUD_SCORE, kernel)
    found = at_median(unit * _CLOUD, _CLOUD_SCORE / unit, kernel)
    self.assert_follow(found, expected, unit)

  @parameterized.parameters(*_UNITS)
  def test_unit_of_chains(self, unit):
    unit = np.float32(unit)
    expected = in_unit(_CLOUD, np.float32(1))
    self.assert_follow(in_unit(unit * _CLOUD, unit), expected, unit)

  @parameterized.product(run=[two_samples, on_host], unit=_UNITS)
  def test_unit_of_distances(self, run, unit):
    unit = np.float32(unit)
    expected = run(_CLOUD, _OTHER_CLOUD)
    found = run(unit * _CLOUD, unit * _OTHER_CLOUD)
    self.assert_follow(found, expected, unit)

  @parameterized.parameters(2.0**14, -(2.0**14))
  def test_place(self, offset):
    move = lambda x: x + np.float32(offset)
    for kernel in _KERNELS:
      expected = at_median(_CLOUD, _CLOUD_SCORE, kernel)
      found = at_median(move(_CLOUD), _CLOUD_SCORE, kernel)
      self.assert_follow(found, expected)
    for run in two_samples, on_host:
      expected = run(_CLOUD, _OTHER_CLOUD)
      found = run(move(_CLOUD), move(_OTHER_CLOUD))
      self.assert_follow(found, expected)

  def test_order(self):
    for kernel in _KERNELS:
      expected = at_median(_CLOUD, _CLOUD_SCORE, kernel)
      found = at_median(_CLOUD[_ORDER], _CLOUD_SCORE[_ORDER], kernel)
      # Signs are drawn by place; a matrix is in order both ways.
      del expected[0], expected[2][1], found[2][1]
      expected[-1] = [phi[_ORDER] for phi in expected[-1]]
      self.assert_follow(found, expected)
    expected = two_samples(_CLOUD, _OTHER_CLOUD)
    del expected[0]  # the permutations are drawn by place
    self.assert_follow(two_samples(_CLOUD[_ORDER], _OTHER_CLOUD), expected)
    expected = on_host(_CLOUD, _OTHER_CLOUD)
    found = on_host(_CLOUD[_ORDER], _OTHER_CLOUD)
    expected[0][4], expected[1][2] = (
      expected[part][i][_ORDER] for part, i in ((0, 4), (1, 2))
    )
    del expected[0][5], found[0][5]  # which rows are learned from
    self.assert_follow(found, expected)

  def test_every_point_twice(self):
    # Means over all pairs do not change; those without i = j do.
    twice = lambda x: np.concatenate([x, x])
    n = len(_CLOUD)
    kernel = functools.partial(kernels.rbf, bandwidth=2.0)

    @jax.jit
    def run(x, score, y):
      rng = jax.random.key(0)
      return [
        stein.svgd_direction(x, score, kernel)[:n],
        stein.svgd_direction(x, score, kernel, normalize='row_sum')[:n],
        stein.ksd(x, score, kernel),
        metrics.two_sample_test(rng, x, y, num_permutations=1)[0],
      ]

    points = _CLOUD, _CLOUD_SCORE, _OTHER_CLOUD
    found = run(*map(twice, points))
    self.assert_follow({0: found}, {0: run(*points)})
    pairwise = metrics.pairwise_distance(_CLOUD) * 2 * (n - 1) / (2 * n - 1)
    self.assertAlmostEqual(
      metrics.pairwise_distance(twice(_CLOUD)), pairwise, 5
    )
    self.assertEqual(metrics.nearest_neighbour_distance(twice(_CLOUD)), 0)
    logits = _CLOUD
    for metric in (
      lambda x: metrics.inception_score(x, 1)[0],
      metrics.class_histogram,
    ):
      np.testing.assert_allclose(metric(twice(logits)), metric(logits), 1e-12)

  @parameterized.parameters(
    {'pixels': 'symmetric'}, {'pixels': 'unit', 'scale': 2.0}
  )
  def test_range_of_images(self, **options):
    unit = np.random.default_rng(0).random((3, 2, 12, 12, 1))
    samples, image, mask = unit.astype(np.float32)
    recovered = []
    for section in (
      dict(name='digits', pixels='unit'),
      dict(name='digits', **options),
    ):
      make = functools.partial(datasets.from_unit, section=section)
      batch = {'image': make(image), 'mask': np.round(mask)}
      recovered.append(evaluation.recovered(make(samples), batch, section))
    for name, value in recovered[0].items():
      self.assertAlmostEqual(recovered[1][name], value, 4, name)


class BatchesTest(absltest.TestCase):
  @_PROFILE
  @hypothesis.given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 2**32 - 1),
    st.integers(0, 10**6),
  )
  def test_are_a_function_of_seed_and_step(self, n, size, seed, start):
    source = datasets.Arrays({'image': np.arange(n, dtype=np.float32)})
    if size > n:
      with self.assertRaisesRegex(ValueError, f'{size} is more than the {n}'):
        datasets.batches(source, size, seed=seed)
      return
    per_epoch = n // size
    start -= start % per_epoch  # an epoch's first step
    whole = datasets.batches(source, size, seed=seed, start=start)
    epoch = [next(whole)['image'] for _ in range(per_epoch)]
    rows = np.concatenate(epoch)
    self.assertLen(np.unique(rows), per_epoch * size)
    self.assertEqual(rows.dtype, np.float32)
    last = datasets.batches(
      source, size, seed=seed, start=start + per_epoch - 1
    )
    np.testing.assert_array_equal(next(last)['image'], epoch[-1])


if __name__ == '__main__':
  absltest.main()
