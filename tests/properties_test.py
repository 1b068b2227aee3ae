"""Properties of the primitives on drawn points, extremes among them.

Hypothesis draws a seed, a shape and an extreme; NumPy draws the values, so that few
programs are compiled. The draws are the same in every run.
"""

from absl.testing import absltest
import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np

from stein_jax import datasets
from stein_jax import kernels
from stein_jax import metrics
from stein_jax import samplers
from stein_jax import stein

_PROFILE = hypothesis.settings(
  max_examples=25,
  derandomize=True,
  deadline=None,
  database=None,
  suppress_health_check=list(hypothesis.HealthCheck),
)
_SHAPES = ((1, 1), (2, 3), (7, 2))
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
_PROFILES = tuple(kernels.PROFILES)
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
  profile = kernels.at_median(kernel, x)
  return [
    stein.svgd_direction(x, score, profile, normalize=normalize)
    for normalize in ('count', 'row_sum')
  ]


@jax.jit(static_argnames='kernel')
def discrepancies(x, score, kernel):
  """Returns the V-statistic, the U-statistic where there is one, and the matrix."""
  profile = kernels.at_median(kernel, x)
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
  @hypothesis.given(points(), st.sampled_from(_PROFILES))
  def test_kernels_fall_from_one_to_zero(self, drawn, kernel):
    x, _, _ = drawn
    sq_dist = np.sort(np.sum(x**2, 1))
    k = np.asarray(kernels.PROFILES[kernel](sq_dist))
    self.assertTrue(np.all((k >= 0) & (k <= 1)))
    self.assertTrue(np.all(np.diff(k) <= 0))
    self.assertEqual(float(kernels.PROFILES[kernel](jnp.zeros(()))), 1)


class MedianTest(absltest.TestCase):
  @_PROFILE
  @hypothesis.given(points(), st.booleans())
  def test_is_that_of_numpy(self, drawn, diagonal):
    x, _, _ = drawn
    hypothesis.assume(diagonal or len(x) > 1)
    centred = jnp.asarray(x) - kernels.center_of(jnp.asarray(x))
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
  @hypothesis.given(points(), st.sampled_from(_PROFILES))
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
  @hypothesis.given(points(extremes=('grid',)), st.sampled_from(_PROFILES))
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
    phi = directions(x, score, 'rbf')[0]
    self.assertEqual(phi.dtype, dtype)
    # Half precision goes in and out; what is between is float32.
    wide = [array.astype(jnp.float32) for array in (x, score)]
    np.testing.assert_allclose(
      phi.astype(jnp.float32),
      directions(*wide, 'rbf')[0],
      rtol=float(jnp.finfo(dtype).eps),
      atol=1e-6,
    )

  def test_is_float64_where_that_is_on(self):
    x, score = np.random.default_rng(0).standard_normal((2, 7, 2))
    with jax.enable_x64(True):
      phi = directions(x, score, 'imq')[0]
      moved = directions(x + 1e4, score, 'imq')[0]
      self.assertEqual(phi.dtype, np.float64)
      # Of sixteen digits an offset of 1e4 costs four.
      np.testing.assert_allclose(moved, phi, rtol=0, atol=1e-10)


class DiscrepancyTest(absltest.TestCase):
  @_PROFILE
  @hypothesis.given(points(), st.sampled_from(_PROFILES))
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


class SamplersTest(absltest.TestCase):
  @_PROFILE
  @hypothesis.given(
    points(shapes=((1, 1), (7, 2))),
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
    still = samplers.langevin(
      jax.random.key(0), x, lambda x: -x, step_size=1.0, num_steps=0
    )
    np.testing.assert_array_equal(still, x)
    down = samplers.langevin(
      jax.random.key(0),
      x,
      lambda x: -x,
      step_size=1.0,
      num_steps=1,
      noise=False,
    )
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
