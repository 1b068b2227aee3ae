"""Tests of score matching: its objectives against KSD, traces and one another."""

import functools
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import linalg

from stein_jax import energies
from stein_jax import kernels
from stein_jax import learners
from stein_jax import parallel
from stein_jax import samplers
from stein_jax import stein
from stein_jax.algorithms import score_matching
from stein_jax.runs import configs
from stein_jax.runs import training
from tests import draws
from tests import literal


def _mlp(x):
  return learners.create(
    jax.random.key(0), energies.MLP((6,), confinement=0.5), optax.sgd(1.0), x
  )


def _assert_trees_close(actual, expected, **tolerance):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, **tolerance), actual, expected
  )


def _standard_errors(updates):
  """Returns |mean| over the leading axis in standard errors, of all leaves."""
  leaves = [leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(updates)]
  flat = np.concatenate(leaves, 1)
  return np.abs(flat.mean(0)) / (flat.std(0) / len(flat) ** 0.5)


class ObjectiveTest(parameterized.TestCase):
  @parameterized.parameters(
    (kernels.RBF(),),
    (kernels.IMQ(kernels.Median(0.5, log='n')),),
    (kernels.RBF(kernels.Median(0.7, log='none')),),
    (kernels.RBF(), False),
    (kernels.IMQ(), False),
  )
  def test_stein_is_half_the_gradient_of_ksd(self, kernel, diagonal=True):
    self.enter_context(jax.enable_x64(True))
    x = jnp.asarray(literal.rbm_data(10) + 0.3)
    energy = literal.at_truth(score_matching, x).energy

    def ksd(params):
      score = energies.score(energy.replace(params=params), x)
      return stein.ksd(x, score, kernel, unbiased=not diagonal)

    update = literal.ascent(
      score_matching,
      literal.at_truth(score_matching, x),
      x,
      direction=stein.SVGD(kernel, diagonal=diagonal),
    )
    _assert_trees_close(
      update,
      jax.tree.map(lambda g: -0.5 * g, jax.jit(jax.grad(ksd))(energy.params))[
        'params'
      ],
      atol=1e-12,
    )

  def test_exact_by_hand(self):
    self.enter_context(jax.enable_x64(True))
    x = jnp.asarray(literal.rbm_data(10))
    energy = literal.at_truth(score_matching, x).energy
    b, weight, c = (
      literal.RBM_TRUTH[name] for name in ('bias', 'weight', 'hidden_bias')
    )
    h = np.tanh(np.asarray(x) @ weight + c)
    score = b - np.asarray(x) + h @ weight.T
    # grad s = -I + B diag(1 - h^2) B'.
    trace = -4 + (1 - h**2) @ np.sum(weight**2, 0)
    expected = np.mean(0.5 * np.sum(score**2, 1) + trace)
    losses = [
      score_matching.exact_objective(energy, x, closed_form=closed_form)
      for closed_form in (False, True)
    ]
    for loss in losses:
      self.assertAlmostEqual(jax.jit(loss)(energy.params), expected, places=12)
    gradients = [jax.jit(jax.grad(loss))(energy.params) for loss in losses]
    _assert_trees_close(*gradients, atol=1e-12)

  def test_exact_on_images_by_hessians(self):
    self.enter_context(jax.enable_x64(True))
    # More coordinates than one batch of second derivatives, 16.
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, 3, 2)))
    energy = _mlp(x)

    def at(x):
      log_density = lambda flat: (
        -energy.apply_fn(energy.params, flat.reshape(1, 3, 3, 2))[0]
      )
      score, hessian = jax.grad(log_density)(x), jax.hessian(log_density)(x)
      return 0.5 * score @ score + jnp.trace(hessian)

    self.assertAlmostEqual(
      jax.jit(score_matching.exact_objective(energy, x))(energy.params),
      jnp.mean(jax.jit(jax.vmap(at))(x.reshape(3, -1))),
      places=12,
    )

  def test_sliced_is_exact_in_the_mean(self):
    x = jnp.asarray(literal.rbm_data(10), jnp.float32)
    energy = literal.at_truth(score_matching, x).energy
    grad = jax.value_and_grad
    expected = jax.jit(grad(score_matching.exact_objective(energy, x)))(
      energy.params
    )

    @jax.jit
    @jax.vmap
    def gaps(rng):
      loss = score_matching.sliced_objective(energy, x, rng)
      return jax.tree.map(jnp.subtract, grad(loss)(energy.params), expected)

    gap = gaps(jax.random.split(jax.random.key(0), 2000))
    gap[1]['params'].pop(
      'bias'
    )  # v' (grad s) v does not have it: exact each time
    self.assertLess(np.max(_standard_errors(gap)), 4)
    self.assertGreater(np.std(gap[0]), 0.1)

  def test_sliced_is_exact_for_the_joint_density_of_a_batch(self):
    """By rows of a Hadamard matrix, whose outer products have the mean I."""
    self.enter_context(jax.enable_x64(True))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4, 4, 1)))
    energy = learners.create(
      jax.random.key(0),
      energies.Autoencoder(((2, 3, 2, 1), (2, 2, 2, 0)), output='linear'),
      optax.sgd(1.0),
      x,
    )
    params = jax.tree.map(lambda leaf: leaf + 0.3, energy.params)
    rng = jax.random.key(3)
    signs = jnp.asarray(linalg.hadamard(64), float).reshape(64, *x.shape)
    with mock.patch.object(jax.random, 'rademacher', lambda *args: signs):
      loss = score_matching.sliced_objective(
        energy, x, rng, 64, dropout_rng=rng
      )

    def log_density(flat):
      rows = flat.reshape(x.shape)
      return -jnp.sum(energy.apply_fn(params, rows, rng=rng))

    @jax.jit
    def values(flat):
      score, hessian = (
        jax.grad(log_density)(flat),
        jax.hessian(log_density)(flat),
      )
      return loss(params), 0.5 * score @ score + jnp.trace(hessian), hessian

    found, expected, hessian = values(x.ravel())
    np.testing.assert_allclose(found, expected / len(x), rtol=1e-9)
    # Rows do act on each other.
    self.assertGreater(np.max(np.abs(hessian[:16, 16:])), 1e-3)

  def test_sliced_averages_projections(self):
    x = jnp.asarray(literal.rbm_data(10), jnp.float32)
    energy = literal.at_truth(score_matching, x).energy
    spread = [
      np.std(
        jax.jit(
          jax.vmap(
            lambda rng: score_matching.sliced_objective(energy, x, rng, num)(
              energy.params
            )
          )
        )(jax.random.split(jax.random.key(0), 500))
      )
      for num in (1, 16)
    ]
    # 1 / sqrt(16), each to 1 / sqrt(1000).
    self.assertAlmostEqual(
      spread[0] / spread[1], 4, delta=4 * 4 * 2**0.5 / 1000**0.5
    )
    with self.assertRaisesRegex(ValueError, 'num_projections=0'):
      score_matching.sliced_objective(energy, x, jax.random.key(0), 0)

  def test_denoising_by_hand(self):
    x, rng, sigma = (
      jnp.asarray(literal.rbm_data(10), jnp.float32),
      jax.random.key(0),
      0.7,
    )
    energy = literal.at_truth(score_matching, x).energy
    noise = jax.random.normal(rng, x.shape)
    residual = energies.score(energy, x + sigma * noise) + noise / sigma
    loss = score_matching.denoising_objective(energy, x, rng, sigma)
    np.testing.assert_allclose(
      jax.jit(loss)(energy.params),
      sigma**2 * np.mean(0.5 * np.sum(residual**2, 1)),
      rtol=1e-5,
    )


def _blurred(variance):
  """Returns a learner of N(0, v) under noise, E = x^2 / (2 (v + sigma^2))."""

  def energy(params, x, sigma):
    return 0.5 * x[:, 0] ** 2 / (jnp.exp(params['log_variance']) + sigma**2)

  return learners.wrap(
    energy,
    {'log_variance': jnp.log(jnp.asarray(variance, float))},
    optax.sgd(1.0),
    jnp.ones((4, 1)),
    jnp.ones(4),
  )


def _state(energy):
  return score_matching.State(jnp.zeros((), jnp.int32), energy)


class LevelsTest(parameterized.TestCase):
  """Denoising of small noise and of several levels, and samples by annealing."""

  _LEVELS = (2.0, 0.7, 0.2)

  @parameterized.parameters(False, True)
  def test_by_hand(self, control_variate):
    self.enter_context(jax.enable_x64(True))
    v, rng = 1.3, jax.random.key(4)
    x = np.random.default_rng(0).normal(size=(7, 1))
    noise_rng, level_rng = jax.random.split(rng)
    index = jax.random.randint(level_rng, (7,), 0, 3)
    sigma = np.array(self._LEVELS)[index][:, None]
    self.assertLen(np.unique(sigma), 3)
    noise = np.asarray(jax.random.normal(noise_rng, x.shape, float))

    def expected(log_variance):
      score = lambda x: -x / (np.exp(log_variance) + sigma**2)
      loss = 0.5 * (sigma * score(x + sigma * noise) + noise) ** 2
      if control_variate:
        loss = loss - sigma * score(x) * noise
      return np.mean(loss)

    loss_fn = score_matching.denoising_objective(
      _blurred(v),
      jnp.asarray(x),
      rng,
      self._LEVELS,
      control_variate=control_variate,
    )
    params = {'log_variance': jnp.log(jnp.asarray(v, float))}
    loss, grads = jax.jit(jax.value_and_grad(loss_fn))(params)
    self.assertAlmostEqual(loss, expected(np.log(v)), places=12)
    ends = expected(np.log(v) + 1e-5), expected(np.log(v) - 1e-5)
    slope = (ends[0] - ends[1]) / 2e-5
    self.assertAlmostEqual(grads['log_variance'], slope, places=9)

  @parameterized.parameters(False, True)
  def test_truth_is_the_optimum_at_all_levels(self, control_variate):
    v = 1.5
    rng = np.random.default_rng(0)
    x = jnp.asarray(v**0.5 * rng.normal(size=(64, 400, 1)), jnp.float32)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, 0, None))
    def slopes(x, rng, params):
      loss_fn = score_matching.denoising_objective(
        _blurred(v), x, rng, self._LEVELS, control_variate=control_variate
      )
      return jax.grad(loss_fn)(params)

    keys = jax.random.split(jax.random.key(0), 64)
    of = lambda v: slopes(x, keys, {'log_variance': jnp.log(v)})
    self.assertLess(np.max(_standard_errors(of(v))), 4)
    self.assertGreater(np.max(_standard_errors(of(1.5 * v))), 8)

  def test_control_variate_keeps_the_variance(self):
    """By hand, of E = lam x^2 / 2 on N(0, v), noise sigma, over sigma^2.

    The slope by lam of a term is lam y^2 - y xi / sigma, y = x + sigma xi; with the
    control variate lam y^2 - xi^2. Of the first - x xi / sigma has the variance
    v / sigma^2; the second tends to lam x^2 - xi^2, of the variance 2 lam^2 v^2 + 2.
    """
    lam, v, num = 0.8, 1.5, 20_000
    energy = literal.quadratic([0.0], np.log([lam]))
    x = v**0.5 * jax.random.normal(jax.random.key(1), (num, 1))

    def spread(sigma, control_variate):
      @jax.jit
      @jax.vmap
      def slopes(x, rng):
        loss_fn = score_matching.denoising_objective(
          energy, x[None], rng, sigma, control_variate=control_variate
        )
        grads = jax.grad(loss_fn)(energy.params)['params']
        return grads['log_precision'][0] / (lam * sigma**2)

      return np.std(slopes(x, jax.random.split(jax.random.key(0), num)))

    limit = (2 * lam**2 * v**2 + 2) ** 0.5
    for sigma in (0.1, 0.01):
      # Fourth moments of squares leave a standard error of 1 / sqrt(num / 15) or less.
      np.testing.assert_allclose(spread(sigma, True), limit, rtol=0.08)
      np.testing.assert_allclose(
        spread(sigma, False), v**0.5 / sigma, rtol=0.08
      )

  @pytest.mark.slow
  def test_small_noise_fails_by_variance(self):
    """At a noise of 0.1 the control variate does what maximum likelihood does."""
    truth, x, test = literal.overlapping_rbm(10_000)
    rate = optax.linear_schedule(1e-2, 0.0, 5000)
    adam = optax.adam(rate, b1=0.9)

    @functools.partial(jax.jit, static_argnums=0)
    def lost(control_variate):
      energy = learners.create(
        jax.random.key(0), energies.RBM(5, centered=True), adam, x
      )

      def step(state, rng):
        index_rng, rng = jax.random.split(rng)
        index = jax.random.randint(index_rng, (200,), 0, len(x))
        options = dict(objective='denoising', control_variate=control_variate)
        batch = {'image': x[index]}
        return score_matching.step(state, batch, rng, **options)[0], None

      keys = jax.random.split(jax.random.key(3), 5000)
      state, _ = jax.lax.scan(step, _state(energy), keys)
      return literal.nats_lost(truth, state.energy, test)

    best = 125 / (2 * 10_000)  # of maximum likelihood, 0.00625 nats
    self.assertLess(lost(True), 4 * best)
    self.assertGreater(lost(False), 8 * best)

  def test_samples_by_annealing(self):
    """The variance of unadjusted steps of a Gaussian's true scores is a recursion."""
    v, step, num_steps, num = 1.5, 0.6, 3, 40_000
    state = _state(_blurred(v))
    expected = self._LEVELS[0] ** 2
    for sigma in self._LEVELS:
      delta = step * sigma
      keep = 1 - delta**2 / 2 / (v + sigma**2)
      for _ in range(num_steps):
        expected = keep**2 * expected + delta**2
    self.assertGreater(abs(expected - v - sigma**2), 0.1)  # not at its end
    options = dict(
      chain=samplers.Langevin(step, num_steps), noise_levels=self._LEVELS
    )
    draw = jax.jit(
      functools.partial(score_matching.sample, num=num, **options),
      static_argnames='denoise',
    )
    x = draw(state, jax.random.key(0))
    self.assertEqual(x.shape, (num, 1))
    np.testing.assert_allclose(np.var(x), expected, rtol=4 * (2 / num) ** 0.5)
    # x + sigma^2 s(x) is x v / (v + sigma^2).
    np.testing.assert_allclose(
      draw(state, jax.random.key(0), denoise=True),
      x * v / (v + sigma**2),
      rtol=1e-5,
    )

  def test_devices_draw_levels_of_their_own(self):
    x, rng = np.random.default_rng(0).normal(size=(16, 1)), jax.random.key(0)

    def randint(rng, shape, low, high):
      uniform = jax.random.uniform(rng, shape)
      return jnp.floor(low + (high - low) * uniform).astype(jnp.int32)

    def step(state, batch, rng, axis_name=None):
      return score_matching.step(
        state,
        batch,
        rng,
        objective='denoising',
        noise_levels=self._LEVELS,
        control_variate=True,
        axis_name=axis_name,
      )

    ends = {}
    self.enter_context(draws.fixed())
    with mock.patch.object(jax.random, 'randint', randint):
      for mode in parallel.MODES:
        state = parallel.replicate(_state(_blurred(1.2)))
        batch = {'image': np.float32(x)}
        after, metrics = parallel.compile_step(step, mode)(state, batch, rng)
        ends[mode] = after.energy.params, metrics
    for mode in ('pmap', 'shard_map'):
      _assert_trees_close(ends[mode], ends['jit'], rtol=1e-5, atol=1e-6)

  def test_one_network_for_all_levels(self):
    module = energies.Levels(energies.MLP((5,)), lowest=0.2)
    x, sigma = np.float32(literal.normal(4)), np.float32([2.0, 0.7, 0.2, 0.2])
    params = module.init(jax.random.key(0), x, sigma)
    inner = {'params': params['params']['energy']}
    wide = np.concatenate([x, np.log(sigma)[:, None]], 1)
    expected = energies.MLP((5,)).apply(inner, wide) / sigma
    found = module.apply(params, x, sigma)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(module.apply(params, x)[2:], found[2:])
    with self.assertRaisesRegex(ValueError, 'lowest=0.0 must be a positive'):
      energies.Levels(energies.MLP((5,)), lowest=0.0)
    with self.assertRaisesRegex(ValueError, 'layers that take axis_name'):
      learners.create(
        jax.random.key(0),
        energies.Levels(energies.Discriminator((2, 2))),
        optax.sgd(0.1),
        *(jnp.ones((4, 8, 8, 1)), jnp.ones(4)),
      )

  def test_a_config(self):
    conv_net = dict(
      name='ConvNet', widths=(2,), kernels=(3,), strides=(2,), scale=0.3
    )
    config = configs.complete(
      dict(
        algorithm='score_matching',
        energy=dict(name='Levels', energy=conv_net | dict(activation='swish')),
        optimizer=dict(name='sgd', learning_rate=0.01),
        step=dict(objective='denoising', noise_levels=(1.0, 0.1)),
        sample=dict(chain=dict(name='Langevin', step_size=0.6, num_steps=2)),
        data=dict(name='synthetic', shape=(4, 4, 1)),
        evaluation=dict(log_likelihood='none'),
        batch_size=8,
      )
    )
    self.assertEqual(config.sample.noise_levels, (1.0, 0.1))
    training.check(config)

  @parameterized.parameters(
    (dict(noise_levels=(1.0, 0.5)), r"noise_levels=.*objective='denoising'"),
    (dict(noise_levels=(1.0, 2.0)), r'noise_levels=\(1.0, 2.0\) must fall'),
    (dict(noise_levels=(1.0, -2.0)), r'noise_levels\[1\]=-2.0 must be a pos'),
    (dict(noise_levels=1.0), 'noise_levels=1.0 must be a sequence'),
    (dict(control_variate=1), 'control_variate=1 must be True or False'),
  )
  def test_refuses(self, hyper, message):
    x = literal.rbm_data(3)
    state = literal.at_truth(score_matching, x)
    with self.assertRaisesRegex(ValueError, message):
      score_matching.step(state, {'image': x}, jax.random.key(0), **hyper)

  def test_samples_refuse(self):
    state, rng = _state(_blurred(1.0)), jax.random.key(0)
    options = dict(noise_levels=(1.0, 0.1))
    with self.assertRaisesRegex(ValueError, 'as its condition; allowed: None'):
      score_matching.sample(state, rng, 3, condition=jnp.ones(3), **options)
    with self.assertRaisesRegex(TypeError, 'chain is .*Langevin'):
      score_matching.sample(state, rng, 3, chain=samplers.Gibbs(1), **options)
    with self.assertRaisesRegex(ValueError, 'denoise=True needs noise_levels'):
      score_matching.sample(state, rng, 3, denoise=True)


class StepTest(parameterized.TestCase):
  # Blurred by 0.6, Gaussians of spread 0.8 are the truth's unit ones.
  @parameterized.parameters(
    (dict(objective='exact'), 1.0),
    (dict(objective='closed_form'), 1.0),
    (dict(objective='sliced'), 1.0),
    (dict(objective='denoising', noise_scale=0.6), 0.8),
    (dict(objective='denoising', noise_scale=0.6, control_variate=True), 0.8),
  )
  def test_no_drift_at_the_truth(self, hyper, spread):
    x = jnp.asarray(literal.rbm_data(64 * 200, spread), jnp.float32).reshape(
      64, 200, 4
    )
    state = literal.at_truth(score_matching, x[0])

    @jax.jit
    @jax.vmap
    def updates(x, rng):
      return literal.ascent(score_matching, state, x, rng, **hyper)

    keys = jax.random.split(jax.random.key(0), 64)
    self.assertLess(np.max(_standard_errors(updates(x, keys))), 4)
    self.assertGreater(np.max(_standard_errors(updates(1.2 * x, keys))), 8)

  @parameterized.parameters('stein', 'exact', 'sliced', 'denoising')
  def test_devices(self, objective):
    self.check_devices('shard_map', objective)

  @parameterized.parameters('stein', 'exact')
  @pytest.mark.slow
  def test_pmap(self, objective):
    self.check_devices('pmap', objective)

  def check_devices(self, mode, objective):
    x, rng = np.float32(literal.rbm_data(16)), jax.random.key(0)
    state = literal.at_truth(score_matching, x)
    self.enter_context(draws.fixed())

    @jax.jit
    def gradient(x):
      loss = {
        'sliced': lambda *args: score_matching.sliced_objective(*args, rng),
        'denoising': lambda *args: score_matching.denoising_objective(
          *args, rng
        ),
        'stein': score_matching.stein_objective,
      }.get(objective, score_matching.exact_objective)(state.energy, x)
      return jax.grad(loss)(state.energy.params)['params']

    expected = gradient(jnp.asarray(x))

    def step(state, batch, rng, axis_name=None):
      return score_matching.step(
        state, batch, rng, objective=objective, axis_name=axis_name
      )

    moved, _ = parallel.compile_step(step, mode)(
      parallel.replicate(state), {'image': x}, rng
    )
    _assert_trees_close(
      moved.energy.params['params'],
      jax.tree.map(lambda p, g: p - g, literal.RBM_TRUTH, expected),
      atol=2e-5,
    )

  def test_unknown_objective(self):
    x = literal.rbm_data(3)
    with self.assertRaisesRegex(
      ValueError, "objective='ssm'.*'stein'.*'denoising'"
    ):
      literal.ascent(
        score_matching, literal.at_truth(score_matching, x), x, objective='ssm'
      )

  @parameterized.parameters('stein', 'denoising')
  def test_learning(self, objective):
    self.check_learning(objective)

  @parameterized.parameters('closed_form', 'sliced')
  @pytest.mark.slow
  def test_learning_by_others(self, objective):
    self.check_learning(objective)

  def check_learning(self, objective):
    x = literal.rbm_data(literal.NUM_DATA)
    num_steps = 200 if objective == 'stein' else 600
    for params in literal.fit_rbm(
      score_matching, x, num_train_steps=num_steps, objective=objective
    ):
      self.assertGreater(
        literal.rbm_log_likelihood(params, x),
        literal.rbm_log_likelihood(literal.RBM_TRUTH, x) - literal.SLACK,
      )


if __name__ == '__main__':
  absltest.main()
