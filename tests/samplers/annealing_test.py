"""Tests of annealing with resampling, against exact values of log Z."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from stein_jax import samplers
from stein_jax.samplers import annealing


def _wide(x):
  return -0.5 * jnp.sum(x**2, -1) / 4


class ResamplingTest(parameterized.TestCase):
  def test_one_temperature_on_a_narrower_gaussian(self):
    # Weights exp(-(l - 1) |x|^2 / 2) of N(0, I): ESS / n = (sqrt(2 l - 1) / l)^d.
    precision, dims, num = 2.0, 4, 20_000
    found = samplers.annealed_resampling(
      jax.random.key(0),
      lambda x: -0.5 * precision * jnp.sum(x**2, -1),
      (dims,),
      num_chains=num,
      num_temperatures=1,
      step_size=0.5,
    )
    share = ((2 * precision - 1) ** 0.5 / precision) ** dims
    self.assertAlmostEqual(float(found.ess) / num, share, delta=0.02)
    self.assertEqual(found.ess, found.smallest_ess)
    self.assertEqual(found.num_resamplings, 0)
    np.testing.assert_allclose(
      found.error, samplers.log_mean_exp_error(found.log_weights), rtol=1e-4
    )
    exact = 0.5 * dims * np.log(2 * np.pi / precision)
    self.assertLess(abs(found.log_partition - exact), 4 * found.error)

  def test_without_resampling_it_is_annealed_importance(self):
    options = dict(num_chains=30, num_temperatures=20)
    found = samplers.annealed_resampling(
      jax.random.key(0), _wide, (3,), threshold=0.0, **options
    )
    expected, acceptance = samplers.annealed(
      jax.random.key(0), _wide, (3,), **options
    )
    np.testing.assert_allclose(found.log_weights, expected, rtol=1e-5)
    np.testing.assert_allclose(
      found.log_partition, samplers.log_mean_exp(expected), rtol=1e-6
    )
    self.assertAlmostEqual(float(found.acceptance), float(acceptance), places=6)
    self.assertEqual(found.num_resamplings, 0)

  def test_the_mean_of_z_and_the_error_of_its_logarithm(self):
    # From N(0, I) to N(1, I / 2), in so few temperatures that chains are resampled: the
    # spread of the estimates over keys is what each says of itself.
    run = functools.partial(
      samplers.annealed_resampling,
      log_density_fn=lambda x: -jnp.sum((x - 1) ** 2, -1),
      shape=(5,),
      num_chains=200,
      num_temperatures=8,
      step_size=0.8,
    )
    found = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 400))
    ratio = np.exp(np.float64(found.log_partition) - 2.5 * np.log(np.pi))
    self.assertGreater(np.min(found.num_resamplings), 0)
    np.testing.assert_array_less(found.smallest_ess, 100)
    spread = np.std(ratio)
    self.assertLess(spread, 0.3)
    self.assertAlmostEqual(np.mean(ratio), 1, delta=4 * spread / 20)
    estimated = np.mean(np.float64(found.error) ** 2) ** 0.5
    # 400 estimates know their spread to 4 %, and a comb rounds.
    self.assertBetween(estimated / spread, 0.9, 1.2)

  def test_the_mean_of_the_data_is_a_better_base(self):
    # An RBM whose log Z is a sum over 2^5 Gaussians, from N(0, I) and N(mean, I).
    rng = np.random.RandomState(0)
    weight = rng.randn(20, 5)
    weight *= 1.5 / np.linalg.norm(weight, axis=0)
    bias, hidden = 0.5 * rng.randn(20), 0.3 * rng.randn(5)
    exact, mean = moments(weight, bias, hidden)
    weight, bias, hidden = map(jnp.float32, (weight, bias, hidden))

    def log_density(x):
      field = x @ weight + hidden[None]
      log_cosh = jnp.sum(jnp.logaddexp(field, -field), -1)
      return x @ bias - 0.5 * jnp.sum(x**2, -1) + log_cosh

    def estimate(rng, base_mean):
      return samplers.annealed_resampling(
        rng,
        log_density,
        (20,),
        num_chains=200,
        num_temperatures=20,
        step_size=0.8,
        base_mean=base_mean,
      ).log_partition

    keys = jax.random.split(jax.random.key(0), 50)
    run = jax.jit(jax.vmap(estimate, (0, None)))
    far, near = (
      np.mean((np.float64(run(keys, base)) - exact) ** 2) ** 0.5
      for base in (jnp.zeros(20), jnp.float32(mean))
    )
    self.assertLess(near, 0.3)
    self.assertGreater(far / near, 2)

  def test_what_is_resampled_stays_in_its_law(self):
    # The points at the end, with their weights, have the second moment of p.
    found = jax.jit(
      lambda rng: samplers.annealed_resampling(
        rng, _wide, (2,), num_chains=5000, num_temperatures=20, threshold=1.0
      )
    )(jax.random.key(0))
    self.assertEqual(found.num_resamplings, 19)  # all but the last
    weights = np.asarray(jax.nn.softmax(found.log_weights), np.float64)
    second = np.sum(weights[:, None] * np.float64(found.x) ** 2, 0)
    # Of 5,000 points the error is 4 sqrt(2 / 5,000), more by what they share.
    np.testing.assert_allclose(second, 4, atol=8 * 4 * (2 / 5000) ** 0.5)

  def test_nan_is_not_lost(self):
    found = samplers.annealed_resampling(
      jax.random.key(0),
      lambda x: jnp.where(x[:, 0] > 0, jnp.nan, 0.0),
      (1,),
      num_chains=8,
      num_temperatures=3,
      step_size=0.1,
    )
    self.assertTrue(np.isnan(found.log_partition))
    self.assertTrue(np.isnan(found.error))

  @parameterized.parameters(
    (dict(threshold=1.5), 'threshold=1.5 must be at most 1'),
    (dict(threshold=-0.5), 'threshold=-0.5'),
    (dict(num_chains=0), 'num_chains=0'),
    (dict(base_mean=np.ones(3)), r'base_mean has shape \(3,\)'),
    (dict(step_size=0.0), 'step_size=0.0'),
  )
  def test_what_is_refused(self, options, message):
    sizes = dict(num_chains=4, num_temperatures=2)
    with self.assertRaisesRegex(ValueError, message):
      samplers.annealed_resampling(
        jax.random.key(0), _wide, (2,), **{**sizes, **options}
      )


class PartsTest(parameterized.TestCase):
  @parameterized.parameters(0, 1, 2, 3)
  def test_chains_are_drawn_as_often_as_due(self, seed):
    # n w = 2.5, 0, 1, 0.25, 0.25: rounded up or down, and none without weight.
    weights = np.array([2.5, 0.0, 1.0, 0.25, 0.25]) / 4
    weights = np.append(weights, np.zeros(11))
    found = annealing._systematic(
      jax.random.key(seed), jnp.log(jnp.asarray(weights))
    )
    counts = np.bincount(found, minlength=16)
    self.assertLen(found, 16)
    np.testing.assert_array_less(counts - 16 * weights, 1)
    np.testing.assert_array_less(16 * weights - counts, 1)
    np.testing.assert_array_equal(counts[weights == 0], 0)

  def test_each_is_drawn_by_its_weight_on_average(self):
    weights = jnp.array([0.5, 0.2, 0.3])
    draw = lambda rng: annealing._systematic(rng, jnp.log(weights))
    found = jax.vmap(draw)(jax.random.split(jax.random.key(0), 4000))
    share = np.bincount(found.ravel(), minlength=3) / found.size
    np.testing.assert_allclose(share, weights, atol=0.02)

  def test_the_error_by_hand(self):
    # Weights 1/2, 1/4, 1/4 of n = 3: (3 (3 / 8) - 1) / 2 = 1 / 16.
    log_weights = jnp.log(jnp.array([2.0, 1.0, 1.0]))
    error = lambda *origin: float(
      annealing._descent_error(log_weights, jnp.array(origin))
    )
    self.assertAlmostEqual(error(0, 1, 2), 0.25, places=6)
    # The first two of one origin: W = 3/4, 1/4, (3 (5 / 8) - 1) / 2 = 7 / 16.
    self.assertAlmostEqual(error(0, 0, 2), 7**0.5 / 4, places=6)
    self.assertAlmostEqual(error(2, 2, 2), 1, places=6)
    one = annealing._descent_error(jnp.zeros(1), jnp.zeros(1, int))
    self.assertTrue(np.isnan(one))


def moments(weight, bias, hidden):
  """Returns log Z and the mean of the RBM by its 2^k Gaussians, of mean b + B h."""
  states = np.array(np.meshgrid(*[[-1, 1]] * len(hidden)))
  states = states.reshape(len(hidden), -1)
  means = bias[:, None] + weight @ states
  logs = hidden @ states + 0.5 * np.sum(means**2, 0)
  top = np.max(logs)
  shares = np.exp(logs - top)
  log_sum = top + np.log(np.sum(shares))
  return (
    log_sum + 0.5 * len(bias) * np.log(2 * np.pi),
    means @ shares / np.sum(shares),
  )


if __name__ == '__main__':
  absltest.main()
