"""Tests of recovery likelihood against exact laws of noisy Gaussians and RBMs."""

import functools
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
import optax

from stein_jax import learners
from stein_jax import samplers
from stein_jax import stein
from stein_jax.algorithms import maximum_likelihood
from stein_jax.algorithms import recovery_likelihood
from tests import draws
from tests import literal
from tests import smoke

_KEY = jax.random.key(0)
_ZERO = jnp.zeros((), jnp.int32)


def _noisy(points, scale, tied=1.0, level=()):
  """Returns noisy examples of one scale."""
  ones = jnp.ones((len(points), 1))
  return recovery_likelihood.Noisy(
    jnp.asarray(points), scale * ones, tied * ones, level
  )


def _blurred(x, noisy):
  """Returns a patch by which every step has these examples and their noise."""
  return mock.patch.object(
    recovery_likelihood, 'blur', lambda rng, data, scales: (x, noisy)
  )


def both_ends(rng, u, target):
  """Returns mean + sd and mean - sd, in turn, of a quadratic energy's law.

  Means of squares over pairs of equal rows are then exact.
  """
  del rng
  drift = target.score(jnp.zeros_like(u))
  precision = drift - target.score(jnp.ones_like(u))
  sign = jnp.where(jnp.arange(len(u)) % 2, 1.0, -1.0)[:, None]
  return drift / precision + sign / jnp.sqrt(precision), {}


def conditional_moments(params, points, scale):
  """Returns means of (x, x h', h) under p(x, h) N(points; x, scale^2), by states."""
  states = np.array([[-1.0, -1], [-1, 1], [1, -1], [1, 1]])
  precision = 1 + 1 / scale**2
  pulls = params['bias'] + states @ params['weight'].T
  pulls = pulls[None] + points[:, None] / scale**2  # [n, 4, d]
  log_weights = states @ params['hidden_bias'] + np.sum(pulls**2, -1) / (
    2 * precision
  )
  weights = np.exp(log_weights - log_weights.max(1, keepdims=True))
  weights /= weights.sum(1, keepdims=True)
  of_data = lambda f: np.einsum('ns,ns...->...', weights, f) / len(points)
  means = pulls / precision
  hidden = np.broadcast_to(states, (len(points), 4, 2))
  return {
    'bias': of_data(means),
    'weight': of_data(means[..., None] * hidden[:, :, None]),
    'hidden_bias': of_data(hidden),
  }


class GaussianTest(parameterized.TestCase):
  """E = lam x^2 / 2 on data of variance v, of which all is known."""

  def slope(self, lam, v, sigma):
    """Returns the step's gradient by log lam, exact in the noise."""
    shrink = (1 - sigma**2) ** 0.5
    scale, tied = (sigma / shrink, 1.0) if sigma < 1 else (1.0, 0.0)
    # Data, noise and the ends of chains of two values each have the right squares.
    signs = np.array([(a, b) for a in (-1, 1) for b in (-1, 1) for _ in (0, 1)])
    x = jnp.asarray(signs[:, :1] * v**0.5, jnp.float32)
    points = tied * x + scale * signs[:, 1:]
    energy = literal.quadratic([0.0], np.log([lam]), optimizer=optax.sgd(1.0))
    state = recovery_likelihood.State(_ZERO, energy)
    noisy = _noisy(points.astype(jnp.float32), scale, tied)
    with _blurred(x, noisy):
      step = functools.partial(
        recovery_likelihood.step, noise_scales=(sigma,), chain=both_ends
      )
      after, _ = jax.jit(step)(state, {'image': x}, _KEY)
    moved = after.energy.params['params']['log_precision'] - np.log(lam)
    return -float(moved[0])

  @parameterized.product(sigma=(0.1, 0.5, 0.9, 1.0), v=(0.5, 1.6))
  def test_the_truth_is_the_fixed_point_at_every_sigma(self, sigma, v):
    self.assertAlmostEqual(self.slope(1 / v, v, sigma), 0.0, places=5)
    self.assertGreater(self.slope(1.4 / v, v, sigma), 1e-3)
    self.assertLess(self.slope(0.7 / v, v, sigma), -1e-3)

  @parameterized.parameters(0.2, 0.5, 0.9)
  def test_is_the_gradient_of_the_recovery_likelihood(self, sigma):
    """It is E log p(x | x~) of the normal laws, by central differences."""
    lam, v = 0.9, 1.6
    s = sigma**2 / (1 - sigma**2)
    loss = lambda lam: (
      -0.5 * np.log((1 + lam * s) / s)
      + (1 + lam**2 * s * v) / (2 * (1 + lam * s))
    )
    slope = lam * (loss(lam + 1e-5) - loss(lam - 1e-5)) / 2e-5
    self.assertAlmostEqual(self.slope(lam, v, sigma), slope, places=5)

  def test_limits(self):
    lam, v = 0.9, 1.6
    # At 1 that of -log p(x) = lam v / 2 - log(lam) / 2.
    self.assertAlmostEqual(self.slope(lam, v, 1.0), (lam * v - 1) / 2, places=5)
    self.assertAlmostEqual(
      self.slope(lam, v, 0.9999), (lam * v - 1) / 2, places=3
    )
    # Near 0 that of s times score matching's lam^2 v / 2 - lam.
    sigma = 0.05
    s = sigma**2 / (1 - sigma**2)
    found = self.slope(lam, v, sigma) / s
    self.assertAlmostEqual(found, lam * (lam * v - 1), delta=0.01)


class RBMTest(parameterized.TestCase):
  def test_moments_by_states_are_integrals(self):
    """The sum over h is that over a grid of x, of one visible unit."""
    points, scale = np.array([[0.7]]), 0.8
    params = dict(bias=np.array([0.4]), weight=np.array([[1.5, -0.8]]))
    params['hidden_bias'] = np.array([0.3, -0.2])
    x = np.linspace(-12, 12, 20001)[:, None]
    energy = 0.5 * x[:, 0] ** 2 - x @ params['bias']
    logits = x @ params['weight'] + params['hidden_bias']
    energy -= np.sum(np.log(2 * np.cosh(logits)), 1)
    p = np.exp(-energy - (x - points)[:, 0] ** 2 / (2 * scale**2))
    p /= p.sum()
    found = conditional_moments(params, points, scale)
    self.assertAlmostEqual(found['bias'][0], p @ x[:, 0], places=6)
    np.testing.assert_allclose(found['hidden_bias'], p @ np.tanh(logits), 1e-6)

  @parameterized.parameters(0.4, 0.8)
  def test_gibbs_gives_the_exact_gradient(self, sigma):
    """Updates of many keys are on average that of log p(x | x~)."""
    x = jnp.asarray(literal.rbm_data(50) + 0.5, jnp.float32)
    scale = sigma / (1 - sigma**2) ** 0.5
    points = x + scale * np.float32(draws.normals(x.shape))
    state = literal.at_truth(recovery_likelihood, x)
    step = functools.partial(
      recovery_likelihood.step, noise_scales=(sigma,), chain=samplers.Gibbs(30)
    )

    def update(rng):
      after, _ = step(state, {'image': x}, rng)
      return jax.tree.map(
        jnp.subtract,
        after.energy.params['params'],
        state.energy.params['params'],
      )

    with _blurred(x, _noisy(points, scale)):
      updates = jax.jit(jax.vmap(update))(jax.random.split(_KEY, 300))
    positive = literal.rbm_statistics(literal.RBM_TRUTH, x)
    negative = conditional_moments(
      literal.RBM_TRUTH, np.asarray(points, np.float64), scale
    )
    sizes = []
    for name, each in updates.items():
      exact = positive[name] - negative[name]
      error = each.std(0) / len(each) ** 0.5
      self.assertLess(np.max(np.abs(each.mean(0) - exact) / error), 4.5)
      sizes.append(np.max(np.abs(exact) / error))
    # The data are not the model's, so that there is something to find.
    self.assertGreater(max(sizes), 30)

  def test_the_highest_level_is_maximum_likelihood(self):
    x = jnp.asarray(literal.rbm_data(50) + 0.5, jnp.float32)
    likelihood = literal.ascent(
      maximum_likelihood, literal.at_truth(maximum_likelihood, x), x
    )
    state = literal.at_truth(recovery_likelihood, x)
    long = samplers.Gibbs(500)
    update = lambda rng: literal.ascent(
      recovery_likelihood, state, x, rng, noise_scales=(1.0,), chain=long
    )
    updates = jax.vmap(update)(jax.random.split(_KEY, 200))
    for name, each in updates.items():
      error = each.std(0) / len(each) ** 0.5
      distance = np.abs(each.mean(0) - likelihood[name]) / error
      self.assertLess(np.max(distance), 4.5)

  def test_learning(self):
    x = literal.rbm_data(literal.NUM_DATA)
    for params in literal.fit_rbm(
      recovery_likelihood,
      x,
      num_train_steps=600,
      config=dict(step=dict(noise_scales=(0.7,))),
      noise_scales=(0.7,),
      chain=samplers.Gibbs(5),
    ):
      self.assertGreater(
        literal.rbm_log_likelihood(params, x),
        literal.rbm_log_likelihood(literal.RBM_TRUTH, x) - literal.SLACK,
      )


class LevelsTest(parameterized.TestCase):
  scales = (0.6, 0.8, 1.0)

  def test_blur_has_the_law_of_each_level(self):
    num = 60_000
    x = np.full((num, 1), 3.0, np.float32)
    data, noisy = recovery_likelihood.blur(_KEY, x, self.scales)
    data, points = data[:, 0], noisy.points[:, 0]
    level = np.asarray(noisy.level[0])
    np.testing.assert_allclose(
      np.bincount(level) / num, np.full(3, 1 / 3), atol=0.01
    )
    # a is 0.8, 0.6 and 0: data are left with 1, 0.64 and 0.64 0.36 of their variance.
    for t, (kept, a) in enumerate(((1, 0.8), (0.64, 0.6), (0.2304, 0))):
      own, back = np.float64(data[level == t]), np.float64(points[level == t])
      self.assertAlmostEqual(own.mean(), 3 * kept**0.5, delta=0.03)
      self.assertAlmostEqual(own.var(), 1 - kept, delta=0.03)
      # x_{t+1} = a x_t + sigma xi, with all that was lost before.
      later = a * back if a else back
      left = kept * a**2
      self.assertAlmostEqual(later.mean(), 3 * left**0.5, delta=0.03)
      self.assertAlmostEqual(later.var(), 1 - left, delta=0.03)
      scale = np.unique(noisy.scale[level == t])
      expected = self.scales[t] / a if a else 1.0
      np.testing.assert_allclose(scale, [expected], rtol=1e-6)
      self.assertEqual(set(np.unique(noisy.tied[level == t])), {float(a > 0)})
      noise = (back - (a > 0) * own) / expected
      self.assertAlmostEqual(noise.std(), 1, delta=0.03)
      # It is drawn apart from the level's own.
      self.assertAlmostEqual(np.mean(noise * (own - own.mean())), 0, delta=0.03)

  def test_step_by_hand(self):
    """Two Langevin steps in units of the noise, and the contrast of level by level."""
    x = np.float32(literal.rbm_data(8))
    means = np.random.default_rng(3).normal(size=(3, 4))
    energy = learners.create(
      _KEY,
      literal.ByLabel(means),
      optax.sgd(1.0),
      jnp.asarray(x),
      np.arange(8) % 3,
    )
    state = recovery_likelihood.State(_ZERO, energy)
    step = functools.partial(
      recovery_likelihood.step,
      noise_scales=self.scales,
      chain=samplers.Langevin(0.5, 2),
      ksd=stein.KSD(max_points=4),
    )
    with draws.fixed():
      after, metrics = jax.jit(step)(state, {'image': x}, _KEY)
    noise = draws.normals(x.shape)
    level = np.int32(draws.uniforms(8) * 3)
    self.assertEqual(set(level), {0, 1, 2})
    sigma = np.array(self.scales)[level][:, None]
    kept = np.array([1, 0.64, 0.64 * 0.36])[level][:, None]
    a = (1 - sigma**2) ** 0.5
    tied, scale = a > 0, np.where(a > 0, sigma / np.where(a > 0, a, 1), 1)
    own = kept**0.5 * x + (1 - kept) ** 0.5 * noise
    points = tied * own + scale * noise
    u = np.zeros_like(points)
    for _ in range(2):
      slope = scale * (points + scale * u - means[level]) + tied * u
      u = u - 0.5**2 / 2 * slope + 0.5 * noise
    ends = points + scale * u
    expected = means + np.eye(3)[level].T @ (own - ends) / len(x)
    found = after.energy.params['params']['means']
    np.testing.assert_allclose(found, expected, atol=1e-5)
    move = np.mean(np.linalg.norm(u, axis=1))
    self.assertAlmostEqual(float(metrics['chain/move']), move, places=4)
    score = -scale * (ends - means[level]) - tied * u
    matrix = literal.imq_stein_matrix(u[:4], score[:4], 1.0)
    ksd = (matrix.sum() - np.trace(matrix)) / 12
    np.testing.assert_allclose(metrics['chain/ksd'], ksd, rtol=1e-3)

  def test_samples_go_down_the_levels(self):
    """With exact chains they have the data's law, here a normal one that is blurred."""
    mean, variance = 0.8, 0.3
    kept = np.array([1, 0.64, 0.2304])
    law = learners.wrap(
      lambda p, x, t: (
        0.5 * jnp.sum((x - p['mean'][t][:, None]) ** 2, 1) / p['variance'][t]
      ),
      dict(
        mean=jnp.asarray(mean * kept**0.5),
        variance=jnp.asarray(variance * kept + 1 - kept),
      ),
      optax.sgd(1.0),
      jax.ShapeDtypeStruct((5, 1), jnp.float32),
      jax.ShapeDtypeStruct((5,), jnp.int32),
    )

    def exact(rng, u, target):
      drift = target.score(jnp.zeros_like(u))
      precision = drift - target.score(jnp.ones_like(u))
      noise = jax.random.normal(rng, u.shape)
      return drift / precision + noise / jnp.sqrt(precision), {}

    num = 20_000
    draw = functools.partial(
      recovery_likelihood.sample, noise_scales=self.scales, chain=exact
    )
    state = recovery_likelihood.State(_ZERO, law)
    x = np.asarray(jax.jit(draw, static_argnums=2)(state, _KEY, num))
    self.assertEqual(x.shape, (num, 1))
    self.assertLess(abs(x.mean() - mean), 4 * (variance / num) ** 0.5)
    self.assertLess(abs(x.var() / variance - 1), 4 * (2 / num) ** 0.5)

  def test_modes_agree(self):
    config = smoke.get_config('recovery_likelihood_mnist')
    algorithm, state, batch = smoke.begin(config)
    batch['image'] = np.tile(batch['image'], (2, 1, 1, 1))
    step = functools.partial(
      algorithm.step, noise_scales=(0.6, 1.0), chain=samplers.Langevin(0.5, 2)
    )
    with draws.fixed():
      smoke.assert_modes_agree(step, state, batch)


class RefusalsTest(parameterized.TestCase):
  def begin(self, num_levels=1, **energy):
    energy = energy or dict(name='RBM', num_hidden=2)
    config = ConfigDict(
      dict(
        energy=energy,
        optimizer=literal.SGD,
        step=dict(noise_scales=(0.5,) * num_levels),
      )
    )
    batch = {'image': jnp.zeros((4, 8, 8, 1))}
    return recovery_likelihood.init(_KEY, config, batch), batch

  @parameterized.parameters(
    ((), r'noise_scales=\(\) must be a sequence of one or more'),
    ((0.0,), r'noise_scales\[0\]=0.0 must be a positive number'),
    ((0.5, 1.1), r'noise_scales\[1\]=1.1 must be at most 1'),
    ((1.0, 0.5), r'noise_scales\[0\]=1.0 must be below 1'),
    ((float('nan'),), r'noise_scales\[0\]=nan must be a positive number'),
  )
  def test_scales(self, scales, message):
    state, batch = self.begin()
    with self.assertRaisesRegex(ValueError, message):
      recovery_likelihood.step(state, batch, _KEY, noise_scales=scales)
    with self.assertRaisesRegex(ValueError, message):
      recovery_likelihood.sample(state, _KEY, 3, noise_scales=scales)

  def test_other_levels_a_condition_and_a_mixed_batch(self):
    state, batch = self.begin(
      3, name='Discriminator', widths=(2,), num_classes=0, norm='none'
    )
    self.assertEqual(state.energy.num_classes, 3)
    with self.assertRaisesRegex(ValueError, '2 levels.*num_classes=3; allowed'):
      recovery_likelihood.step(state, batch, _KEY, noise_scales=(0.5, 1.0))
    with self.assertRaisesRegex(ValueError, 'condition is given'):
      recovery_likelihood.sample(
        state, _KEY, 3, condition=jnp.zeros(3), noise_scales=(0.5, 0.5, 1.0)
      )
    with self.assertRaisesRegex(
      ValueError, 'Gibbs needs .* one level.*Langevin'
    ):
      recovery_likelihood.step(
        state,
        batch,
        _KEY,
        noise_scales=(0.5, 0.5, 1.0),
        chain=samplers.Gibbs(),
      )
    state, batch = self.begin(name='Discriminator', widths=(2,))
    with self.assertRaisesRegex(ValueError, 'mixes its batch'):
      recovery_likelihood.step(state, batch, _KEY, noise_scales=(0.5,))


if __name__ == '__main__':
  absltest.main()
