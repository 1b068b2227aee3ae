"""Restricted Boltzmann machines against sums over every hidden state."""

import itertools

from absl.testing import absltest
from absl.testing import parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from stein_jax import energies
from stein_jax import learners
from stein_jax import samplers
from tests.energies import models


def _states(num_hidden):
  return np.array(list(itertools.product([-1.0, 1.0], repeat=num_hidden)))


def _literal_energy(x, b, weight, c):
  """-log sum_h exp(b.x - x.x / 2 + x'Bh + c.h)."""
  total = 0
  for h in _states(len(c)):
    total += np.exp(x @ b - 0.5 * np.sum(x * x, 1) + x @ weight @ h + c @ h)
  return -np.log(total)


def _literal_state_weights(b, weight, c):
  """int exp(b.x - x.x / 2 + x'Bh + c.h) dx = (2 pi)^(d/2) exp(c.h + |b + Bh|^2 / 2)."""
  return np.array(
    [
      (2 * np.pi) ** (len(b) / 2)
      * np.exp(c @ h + 0.5 * np.sum((b + weight @ h) ** 2))
      for h in _states(len(c))
    ]
  )


def _literal_moments(b, weight, c):
  """Mean and covariance of the mixture of N(b + Bh, I)."""
  weights = _literal_state_weights(b, weight, c)
  means = b + _states(len(c)) @ weight.T
  mean = np.average(means, 0, weights)
  return mean, np.eye(len(b)) + np.cov(means.T, aweights=weights, ddof=0)


class RBMTest(parameterized.TestCase):
  def test_energy_is_the_sum_over_hidden_states(self):
    energy, *params = models.rbm()
    np.testing.assert_allclose(
      models.call(energy, models.points()),
      _literal_energy(models.points(), *params),
      rtol=2e-6,
    )

  def test_score_and_features(self):
    energy, b, weight, c = models.rbm()
    x = models.points()
    hidden = np.tanh(x @ weight + c)
    np.testing.assert_allclose(
      energies.score(energy, jnp.asarray(x)),
      b - x + hidden @ weight.T,
      atol=2e-6,
    )
    np.testing.assert_allclose(
      models.call(energy, x, method='features'), hidden, atol=1e-6
    )

  @parameterized.parameters((1, 3), (2, 2))
  def test_log_partition_by_quadrature(self, d, num_hidden):
    self.enter_context(jax.enable_x64(True))
    energy, *_ = models.rbm(d, num_hidden)
    # The trapezoid rule on a Gaussian errs by exp(-2 pi^2 / spacing^2).
    axis = np.arange(-14, 14, 0.2)
    grid = np.stack(np.meshgrid(*[axis] * d), -1).reshape(-1, d)
    total = np.sum(np.exp(-np.asarray(models.call(energy, grid)))) * 0.2**d
    np.testing.assert_allclose(
      models.call(energy, method='log_partition'), np.log(total), rtol=1e-12
    )

  @parameterized.parameters(1, 5, 12)  # halves are of no and of unequal sizes
  def test_log_partition_by_enumeration(self, num_hidden):
    self.enter_context(jax.enable_x64(True))
    energy, *params = models.rbm(6, num_hidden, scale=0.3)
    np.testing.assert_allclose(
      models.call(energy, method='log_partition'),
      np.log(np.sum(_literal_state_weights(*params))),
      rtol=1e-13,
    )

  def test_gradient_of_log_partition_is_the_enumerated_moments(self):
    self.enter_context(jax.enable_x64(True))
    energy, b, weight, c = models.rbm(4, 5, scale=0.3)
    states, weights = _states(5), _literal_state_weights(b, weight, c)
    means = b + states @ weight.T
    expected = {
      'bias': np.average(means, 0, weights),
      'weight': (weights * means.T) @ states / np.sum(weights),
      'hidden_bias': np.average(states, 0, weights),
    }
    exact = lambda params: energy.apply_fn(params, method='log_partition')
    found = jax.jit(jax.grad(exact))(energy.params)['params']
    chex.assert_trees_all_close(found, expected, rtol=1e-12)

  def test_log_partition_of_more_states_than_a_block(self):
    # Without weights hidden units are independent: 2 cosh c_i each, whose slope is
    # tanh c_i, and log 2 in the mean, so that float32 is within 1e-6 of 15.
    energy, *_ = models.rbm(2, 21)
    b, c = np.array([0.5, -2.0]), np.linspace(-1, 1, 21)
    energy = models.with_params(energy, b, np.zeros((2, 21)), c)
    exact = lambda params: energy.apply_fn(params, method='log_partition')
    value, grad = jax.jit(jax.value_and_grad(exact))(energy.params)
    expected = np.log(2 * np.pi) + b @ b / 2 + np.sum(np.log(2 * np.cosh(c)))
    np.testing.assert_allclose(value, expected, rtol=2e-6)
    np.testing.assert_allclose(
      grad['params']['hidden_bias'], np.tanh(c), atol=2e-6
    )

  @parameterized.parameters(
    ('log_partition', 31), ('sample', 21, jax.random.key(0), 2)
  )
  def test_enumeration_has_a_limit(self, method, num_hidden, *args):
    energy, *_ = models.rbm(2, num_hidden)
    with self.assertRaisesRegex(
      ValueError, f'num_hidden={num_hidden}.*annealed_importance'
    ):
      models.call(energy, *args, method=method)

  def test_log_partition_of_nan_is_nan(self):
    energy, b, weight, c = models.rbm(2, 3)
    for i, name in enumerate(('bias', 'weight', 'hidden_bias')):
      params = [b, weight, c]
      params[i] = np.full_like(params[i], np.nan)
      with self.subTest(name):
        spoilt = models.with_params(energy, *params)
        self.assertTrue(np.isnan(models.call(spoilt, method='log_partition')))

  def test_num_hidden_is_a_count(self):
    with self.assertRaisesRegex(ValueError, 'num_hidden=0'):
      energies.RBM(0)

  def test_large_logits(self):
    energy, *_ = models.rbm(2, 2)
    b = np.array([1.0, -1.0])
    energy = models.with_params(energy, b, np.eye(2), np.zeros(2))
    x = np.array([[200.0, -200.0], [-200.0, 200.0]])
    # log 2 cosh(a) = |a| and tanh(a) = sign(a) up to exp(-400).
    np.testing.assert_allclose(
      models.call(energy, x), 40000 - x @ b - 400, rtol=1e-6
    )
    np.testing.assert_allclose(
      energies.score(energy, jnp.asarray(x)), b - x + np.sign(x), rtol=1e-6
    )

  @parameterized.parameters(1.0, 0.0)
  def test_laplacian_is_the_trace_of_the_hessian(self, scale):
    energy, b, weight, c = models.rbm(3, 4)
    energy = models.with_params(energy, b, weight, scale * c)
    x = jnp.asarray(
      scale * models.points(), jnp.float32
    )  # scale 0: the logits are 0
    at = lambda x: energy.apply_fn(energy.params, x[None])[0]
    hessian = jax.jit(jax.vmap(jax.hessian(at)))(x)
    np.testing.assert_allclose(
      models.call(energy, x, method='laplacian'),
      np.trace(hessian, axis1=1, axis2=2),
      rtol=2e-5,
    )
    if not scale:  # log 2 cosh has second derivative 1 at 0
      np.testing.assert_allclose(
        np.trace(hessian, axis1=1, axis2=2), 3 - np.sum(weight**2), rtol=1e-5
      )

  @parameterized.named_parameters(
    ('exact', 'sample', 0),
    ('after_gibbs', 'sample', 3),
    ('from_afar', 'chain', 100),
  )
  def test_samples_have_the_enumerated_moments(self, start, num_steps):
    energy, *params = models.rbm()
    num = 20_000
    if start == 'chain':
      sample = jax.jit(
        lambda rng: energies.sample_state(
          models.state(energy), rng, num, chain=samplers.Gibbs(num_steps)
        )
      )
    else:

      def sample(rng):
        x = models.call(energy, rng, num, method='sample')
        return models.call(
          energy, jax.random.key(2), x, num_steps, method='gibbs'
        )

    x = np.asarray(sample(jax.random.key(1)), np.float64)
    mean, covariance = _literal_moments(*params)
    self.assert_mean(x, mean)
    deviation = x - mean
    self.assert_mean(deviation[:, :, None] * deviation[:, None, :], covariance)

  def test_means_are_those_of_the_mixture(self):
    energy, *params = models.rbm()
    x = np.asarray(
      models.call(energy, jax.random.key(1), 20_000, method='means'), np.float64
    )
    mean, covariance = _literal_moments(*params)
    self.assert_mean(x, mean)
    deviation = x - mean
    # Each component of the mixture adds I to the means' covariance.
    self.assert_mean(
      deviation[:, :, None] * deviation[:, None, :], covariance - np.eye(3)
    )

  def test_one_gibbs_step_by_hand(self):
    energy, b, weight, c = models.rbm()
    x = np.array([0.3, -1.0, 0.5])
    # p(h_i = 1 | x) = sigmoid(2 a_i) makes E[h_i] = tanh(a_i), independently.
    hidden = np.tanh(x @ weight + c)
    start = jnp.tile(jnp.asarray(x, jnp.float32), (20_000, 1))
    after = models.call(energy, jax.random.key(0), start, 1, method='gibbs')
    mean = b + weight @ hidden
    covariance = np.eye(3) + weight @ np.diag(1 - hidden**2) @ weight.T
    deviation = np.asarray(after, np.float64) - mean
    self.assert_mean(deviation, 0)
    self.assert_mean(deviation[:, :, None] * deviation[:, None, :], covariance)

  def test_one_gibbs_step_of_what_had_noise_by_hand(self):
    energy, b, weight, c = models.rbm()
    x, noisy = np.array([0.3, -1.0, 0.5]), np.array([1.0, 0.2, -0.6])
    hidden = np.tanh(x @ weight + c)
    tile = lambda x: jnp.tile(jnp.asarray(x, jnp.float32), (20_000, 1))
    gibbs = lambda scale: learners.call(
      energy,
      energy.params,
      jax.random.key(0),
      tile(x),
      1,
      method='gibbs',
      noisy=tile(noisy),
      noise_scale=scale,
    )
    # N(x; b + Bh, I) N(noisy; x, s^2) has the precision a = 1 + 1 / s^2.
    a = 1 + 1 / 0.7**2
    mean = (b + weight @ hidden + noisy / 0.7**2) / a
    covariance = weight @ np.diag(1 - hidden**2) @ weight.T / a**2
    deviation = np.asarray(gibbs(0.7), np.float64) - mean
    self.assert_mean(deviation, 0)
    self.assert_mean(
      deviation[:, :, None] * deviation[:, None, :],
      covariance + np.eye(3) / a,
    )
    # Of infinite noise nothing is known, of each row its own.
    scales = jnp.where(jnp.arange(20_000) % 2, 0.7, jnp.inf)
    without = models.call(energy, jax.random.key(0), tile(x), 1, method='gibbs')
    both = gibbs(scales)
    np.testing.assert_allclose(both[::2], without[::2], rtol=1e-6)
    np.testing.assert_allclose(both[1::2], gibbs(0.7)[1::2], rtol=1e-5)

  def test_noise_on_centred_points_is_noise_on_points(self):
    centered, b, weight, c = models.rbm(centered=True)
    m = centered.params['constants']['mean']
    plain = models.with_params(models.rbm()[0], b, weight, c)
    x = jnp.asarray(models.points(), jnp.float32)
    run = lambda energy, x, noisy: learners.call(
      energy,
      energy.params,
      jax.random.key(3),
      x,
      2,
      method='gibbs',
      noisy=noisy,
      noise_scale=0.7,
    )
    np.testing.assert_allclose(
      run(centered, x + m[None], x + 1 + m[None]),
      run(plain, x, x + 1) + m[None],
      atol=2e-5,
    )

  def test_centering_is_a_change_of_parameters(self):
    centered, b, weight, c = models.rbm(centered=True)
    m = np.asarray(centered.params['constants']['mean'])
    # b.(x - m) - |x - m|^2 / 2 is (b + m).x - |x|^2 / 2 less b.m + |m|^2 / 2.
    plain = models.with_params(models.rbm()[0], b + m, weight, c - weight.T @ m)
    shift = b @ m + m @ m / 2
    x, rng = jnp.asarray(models.points(), jnp.float32), jax.random.key(3)
    for method, args, change in (
      (None, (x,), shift),
      ('log_partition', (), -shift),
      ('features', (x,), 0),
      ('laplacian', (x,), 0),
      ('sample', (rng, 50), 0),
      ('gibbs', (rng, x, 2), 0),
    ):
      with self.subTest(method or 'energy'):
        np.testing.assert_allclose(
          models.call(centered, *args, method=method),
          models.call(plain, *args, method=method) + change,
          rtol=1e-5,
          atol=2e-5,
        )
    np.testing.assert_allclose(
      energies.score(centered, x), energies.score(plain, x), atol=1e-5
    )

  def test_the_mean_of_the_images_is_constant(self):
    x = jnp.asarray(models.points(), jnp.float32)
    energy = learners.create(
      jax.random.key(0), energies.RBM(2, centered=True), optax.adam(0.1), x
    )
    mean = energy.params['constants']['mean']
    np.testing.assert_allclose(mean, models.points().mean(0), atol=1e-6)
    loss = energies.contrast(energy, x, x[::-1] + 1)
    gradient = jax.grad(lambda params: loss(params)[0])(energy.params)
    np.testing.assert_array_equal(gradient['constants']['mean'], 0)
    moved, step = (
      energy,
      jax.jit(lambda energy: learners.descend(energy, loss)[0]),
    )
    for _ in range(3):
      moved = step(moved)
    np.testing.assert_array_equal(moved.params['constants']['mean'], mean)
    self.assertGreater(jnp.max(jnp.abs(moved.params['params']['bias'])), 0.1)

  @parameterized.parameters(False, True)
  def test_images_are_vectors(self, centered):
    images, *_ = models.rbm(6, shape=(2, 3, 1), centered=centered)
    vectors, *_ = models.rbm(6, centered=centered)
    x = jnp.asarray(models.points(4, 6), jnp.float32)
    image = x.reshape(4, 2, 3, 1)
    np.testing.assert_array_equal(
      models.call(images, image), models.call(vectors, x)
    )
    np.testing.assert_array_equal(
      energies.score(images, image),
      energies.score(vectors, x).reshape(image.shape),
    )
    self.assertEqual(images.input_shape, (2, 3, 1))

  def assert_mean(self, values, expected):
    """Asserts that the mean over the leading axis is within 4 standard errors."""
    error = np.std(values, 0) / np.sqrt(len(values))
    np.testing.assert_array_less(
      np.abs(np.mean(values, 0) - expected), 4 * error
    )


class BinaryRBMTest(parameterized.TestCase):
  def test_sums_out_the_hidden_units(self):
    module = energies.BinaryRBM(num_hidden=3)
    x = jnp.asarray(list(itertools.product((0.0, 1.0), repeat=4)))
    params = module.init(jax.random.key(0), x)
    params = jax.tree.map(lambda leaf: leaf + 0.3, params)
    dense = params['params']['Dense_0']
    weight, bias = dense['kernel'], dense['bias']
    states = np.asarray(list(itertools.product((0.0, 1.0), repeat=3)))
    joint = (
      np.asarray(x @ params['params']['bias'])[:, None]
      + (np.asarray(x @ weight) + np.asarray(bias)[None]) @ states.T
    )
    np.testing.assert_allclose(
      module.apply(params, x), -np.log(np.exp(joint).sum(1)), rtol=1e-5
    )

  @parameterized.parameters((4, 3), (3, 4), (1, 1), (2, 13))
  def test_log_partition_is_that_of_all_states(self, d, num_hidden):
    module = energies.BinaryRBM(num_hidden=num_hidden)
    params = module.init(jax.random.key(1), jnp.zeros((1, d)))
    noise = iter(range(10))
    params = jax.tree.map(
      lambda leaf: (
        leaf + jax.random.normal(jax.random.key(next(noise)), leaf.shape)
      ),
      params,
    )
    x = jnp.asarray(list(itertools.product((0.0, 1.0), repeat=d)))
    literal = lambda params: jax.nn.logsumexp(-module.apply(params, x))
    exact = lambda params: module.apply(params, method='log_partition')
    (one, grad), (other, expected) = (
      jax.jit(jax.value_and_grad(each))(params) for each in (exact, literal)
    )
    np.testing.assert_allclose(one, other, rtol=1e-5)
    chex.assert_trees_all_close(grad, expected, rtol=1e-4, atol=1e-5)

  def test_gibbs_leaves_the_law_of_all_states(self):
    module = energies.BinaryRBM(num_hidden=2)
    states = jnp.asarray(list(itertools.product((0.0, 1.0), repeat=3)))
    params = module.init(jax.random.key(0), states)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), params)
    params = jax.tree.map(jnp.float32, params)
    law = np.exp(-module.apply(params, states))
    law /= law.sum()
    num = 40_000
    # From exact draws after one step, and from one state after many.
    exact = states[rng.choice(8, num, p=law / law.sum())]
    for x, num_steps in ((exact, 1), (jnp.zeros((num, 3), int), 20)):
      found = jax.jit(
        lambda rng, x, k=num_steps: module.apply(
          params, rng, x, k, method='gibbs'
        )
      )(jax.random.key(1), x.reshape(num, 1, 3))
      self.assertEqual(found.shape, (num, 1, 3))
      index = np.asarray(found.reshape(num, 3) @ jnp.array([4.0, 2.0, 1.0]))
      shares = np.bincount(index.astype(int), minlength=8) / num
      np.testing.assert_array_less(
        np.abs(shares - law), 4.5 * (law * (1 - law) / num) ** 0.5
      )

  @parameterized.product(
    kind=[energies.RBM, energies.BinaryRBM], dtype=[jnp.float16, jnp.bfloat16]
  )
  def test_parameters_of_half_precision_are_summed_in_float32(
    self, kind, dtype
  ):
    module = kind(num_hidden=7)
    params = module.init(jax.random.key(1), jnp.zeros((1, 9)))
    params = jax.tree.map(lambda leaf: (30 * leaf + 3).astype(dtype), params)
    same = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    found, wanted = (
      module.apply(each, method='log_partition') for each in (params, same)
    )
    self.assertEqual(found.dtype, jnp.float32)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)

  def test_too_many_units_of_both_layers(self):
    module = energies.BinaryRBM(num_hidden=21)
    params = module.init(jax.random.key(1), jnp.zeros((1, 22)))
    with self.assertRaisesRegex(ValueError, 'num_hidden=21 and 22 .* 20 units'):
      module.apply(params, method='log_partition')
    few = module.init(jax.random.key(1), jnp.zeros((1, 3)))
    self.assertTrue(np.isfinite(module.apply(few, method='log_partition')))


if __name__ == '__main__':
  absltest.main()
