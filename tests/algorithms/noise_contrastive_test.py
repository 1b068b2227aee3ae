"""Tests of learning from noise against literal losses, limits and population optima."""

import functools
import itertools
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from stein_jax import energies
from stein_jax import learners
from stein_jax import parallel
from stein_jax.algorithms import noise_contrastive
from tests import draws
from tests import literal

_VARIANCE = 1.6  # of the Gaussian that is learned, in one dimension
_TRUE_LOG_Z = 0.5 * np.log(2 * np.pi * _VARIANCE)
_KEY = jax.random.key(0)


def _state(energy, noise=None, log_partition=None):
  return noise_contrastive.State(
    jnp.zeros((), jnp.int32), energy, noise, log_partition
  )


def _rbm(x, **fields):
  """Returns a state at the true parameters, whose step adds -gradient."""
  fields = dict(noise=None, log_partition=None) | fields
  return literal.at_truth(noise_contrastive, x, **fields)


def _gaussian(precision):
  """Returns a learner of E = precision x^2 / 2 in one dimension."""
  return literal.quadratic([0.0], np.log([precision]))


def _normal(variance, mean=0.0):
  """Returns a law of noise in one dimension."""
  return noise_contrastive.Noise(jnp.array([mean]), jnp.array([variance**0.5]))


def _energy(params, x):
  """Returns E(x) [n] of the RBM, by its formula in NumPy."""
  logits = x @ params['weight'] + params['hidden_bias']
  hidden = np.sum(np.log(2 * np.cosh(logits)), 1)
  return 0.5 * np.sum(x**2, 1) - x @ params['bias'] - hidden


def _slopes(loss):
  """Returns central differences of a loss at the true RBM."""
  found = {}
  for name, value in literal.RBM_TRUTH.items():
    found[name] = np.zeros(value.shape)
    for index in np.ndindex(value.shape):
      step = np.zeros(value.shape)
      step[index] = 1e-5
      ends = (
        loss(literal.RBM_TRUTH | {name: value + sign * step})
        for sign in (1, -1)
      )
      found[name][index] = np.subtract(*ends) / 2e-5
  return found


def _literal_loss(objective, x, options, noise=None, log_partition=0.0):
  """Returns the loss as a function of an RBM's parameters, a loop over noises."""
  eps, num = options.get('noise_scale', 0.3), options['num_noise']
  if objective == 'discrepancy':
    unit = draws.normals((len(x), num + 1, 4))
    shifts = [(unit[:, 0] + unit[:, j]) / 2**0.5 for j in range(1, num + 1)]
  elif objective == 'conditional':
    unit = draws.normals((len(x), num, 4))
    shifts = [unit[:, j] for j in range(num)]
  else:
    unit = draws.normals((num * len(x), 4)) @ np.asarray(noise.root).T
    around = np.asarray(noise.mean) + unit

  def of(params):
    own = _energy(params, x)
    if objective == 'fixed':
      law = stats.multivariate_normal(noise.mean, noise.root @ noise.root.T)
      ratio = lambda y: -_energy(params, y) - log_partition - law.logpdf(y)
      as_noise = 1 / (1 + num * np.exp(-ratio(around)))
      as_data = 1 / (1 + num * np.exp(-ratio(x)))
      return -np.mean(np.log(as_data)) - num * np.mean(np.log(1 - as_noise))
    gaps = [own - _energy(params, x + eps * shift) for shift in shifts]
    if objective == 'conditional':
      loss = np.mean([np.log(1 + np.exp(gap)) for gap in gaps])
      return 4 / eps**2 * (loss - np.log(2))
    loss = np.mean(np.log(1 + sum(map(np.exp, gaps)))) - np.log(num + 1)
    return loss * (num + 1) / (num * eps**2 / 2)

  return of


def _standard_errors(updates):
  """Returns |mean| over the leading axis in standard errors, of all leaves."""
  leaves = [leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(updates)]
  flat = np.concatenate(leaves, 1)
  return np.abs(flat.mean(0)) / (flat.std(0) / len(flat) ** 0.5)


class ObjectiveTest(parameterized.TestCase):
  @parameterized.parameters(
    ('discrepancy', dict(num_noise=1, noise_scale=0.7)),
    ('discrepancy', dict(num_noise=3, noise_scale=0.7)),
    ('conditional', dict(num_noise=1, noise_scale=0.2)),
    ('conditional', dict(num_noise=3, noise_scale=0.7)),
    ('fixed', dict(num_noise=1)),
    ('fixed', dict(num_noise=3)),
  )
  def test_step_by_hand(self, objective, options):
    self.enter_context(jax.enable_x64(True))
    x = literal.rbm_data(6) + 0.3
    fields = {}
    if objective == 'fixed':
      noise = noise_contrastive.fit(jnp.asarray(x) + 0.5)
      fields = dict(noise=noise, log_partition=jnp.asarray(3.0))
    loss = _literal_loss(objective, x, options, **fields)
    state = _rbm(jnp.asarray(x), **fields)
    with draws.fixed():
      step = functools.partial(
        noise_contrastive.step, objective=objective, **options
      )
      after, metrics = jax.jit(step)(state, {'image': jnp.asarray(x)}, _KEY)
    found = loss(literal.RBM_TRUTH)
    self.assertAlmostEqual(metrics['energy/loss'], found, places=9)
    for name, slope in _slopes(loss).items():
      moved = after.energy.params['params'][name] - literal.RBM_TRUTH[name]
      np.testing.assert_allclose(moved, -slope, atol=1e-8)
    # The share of the loss where nothing can be told.
    num = options['num_noise']
    if objective == 'fixed':
      unknown = np.log(1 + num) + num * np.log(1 + 1 / num)
    else:
      num = num if objective == 'discrepancy' else 1
      unit = num * options['noise_scale'] ** 2 / 2 / (num + 1)
      unknown = np.log(num + 1)
      found = unit * found + unknown
    self.assertAlmostEqual(
      metrics['energy/confusion'], found / unknown, places=9
    )

  @parameterized.parameters(1, 2, 3)
  def test_little_noise_is_score_matching(self, num_noise):
    # Signs have the second moments of a normal law, which the limit asks for; so the
    # sum over all of them and over x = -1, 1 is the mean.
    self.enter_context(jax.enable_x64(True))
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=num_noise + 1)))
    x = np.repeat([1.0, -1.0], len(signs))[:, None] * _VARIANCE**0.5
    precision = 0.8
    energy = _gaussian(precision)
    # mean |s|^2 / 2 + tr grad s
    expected = 0.5 * precision**2 * _VARIANCE - precision
    noises = np.tile(signs, (2, 1))[..., None]
    for objective, noises_of in (
      (noise_contrastive.discrepancy_objective, noises),
      (noise_contrastive.conditional_objective, noises[:, 1:]),
    ):
      with mock.patch.object(
        jax.random, 'normal', lambda *_, of=noises_of: jnp.asarray(of)
      ):
        loss_fn = objective(energy, jnp.asarray(x), _KEY, 1e-3, num_noise)
      loss, metrics = jax.jit(loss_fn)(energy.params)
      np.testing.assert_allclose(loss, expected, atol=1e-5)
      self.assertEqual(metrics['energy/loss'], loss)

  def test_many_noises_are_the_discrepancy_of_a_gaussian(self):
    """lam v / 2 - log(1 + lam t) / 2 - lam (v + t) / (2 (1 + lam t))."""
    lam, t, num = 0.8, 0.5, 300
    energy = _gaussian(lam)
    rate = (num + 1) / (num * t)

    @jax.jit
    @jax.vmap
    def losses(rng):
      data_rng, rng = jax.random.split(rng)
      x = _VARIANCE**0.5 * jax.random.normal(data_rng, (100, 1))
      loss_fn = noise_contrastive.discrepancy_objective(
        energy, x, rng, (2 * t) ** 0.5, num
      )
      return loss_fn(energy.params)[0] / rate + np.log1p(1 / num)

    found = losses(jax.random.split(_KEY, 100))
    expected = 0.5 * lam * _VARIANCE - 0.5 * np.log(1 + lam * t)
    expected -= lam * (_VARIANCE + t) / (2 * (1 + lam * t))
    # The mean of exp(-E) over noises is off by some 1 / num.
    error = 4 * np.std(found) / 10 + 3 / num
    self.assertLess(error, abs(expected) / 3)
    np.testing.assert_allclose(np.mean(found), expected, atol=error)

  @parameterized.parameters(1, 3)
  def test_noise_that_is_the_model_tells_nothing(self, num_noise):
    # G = 0 at every point, so that each term is known.
    energy = _gaussian(1 / _VARIANCE)
    loss_fn = noise_contrastive.fixed_objective(
      energy,
      jnp.array([[0.3], [-2.0]]),
      _KEY,
      num_noise,
      noise=_normal(_VARIANCE),
      log_partition=_TRUE_LOG_Z,
    )
    loss, metrics, ratios = jax.jit(loss_fn)(energy.params)
    share = 1 / (1 + num_noise)
    expected = -np.log(share) - num_noise * np.log(1 - share)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics['energy/confusion'], 1, rtol=1e-5)
    self.assertEqual([r.shape for r in ratios], [(2,), (num_noise, 2)])
    for ratio in ratios:
      np.testing.assert_allclose(ratio, 0 * ratio + _TRUE_LOG_Z, rtol=1e-5)

  def test_self_is_half_of_maximum_likelihood(self):
    self.enter_context(jax.enable_x64(True))
    x, samples = jnp.asarray(np.split(literal.rbm_data(20), 2)) + 0.3
    energy = _rbm(x).energy
    contrast = energies.contrast(energy, x, samples)
    loss_fn = noise_contrastive.self_objective(energy, x, samples)
    grad = lambda f: jax.jit(jax.grad(f, has_aux=True))(energy.params)
    half, metrics = grad(loss_fn)
    whole, _ = grad(contrast)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b / 2, atol=1e-14), half, whole
    )
    self.assertAlmostEqual(metrics['energy/loss'], 2 * np.log(2), places=14)

  def test_a_constant_of_the_energy_is_not_seen(self):
    self.enter_context(jax.enable_x64(True))
    x = jnp.asarray(literal.normal(5), float)
    one, other = (
      literal.quadratic(literal.MEAN, [0.3, -0.2], offset=offset)
      for offset in (0.0, 1e4)
    )

    def slopes(energy, shift):
      fixed = functools.partial(
        noise_contrastive.fixed_objective,
        noise=noise_contrastive.fit(x),
        log_partition=1.0 - shift,
      )
      of = lambda make: jax.grad(lambda p: make(energy, x, _KEY)(p)[0])(
        jax.tree.map(lambda leaf: leaf.astype(float), energy.params)
      )
      makes = (
        noise_contrastive.discrepancy_objective,
        noise_contrastive.conditional_objective,
        fixed,
      )
      return jax.jit(lambda: list(map(of, makes)))()

    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7),
      slopes(one, 0.0),
      slopes(other, 1e4),
    )

  def test_dropout_takes_the_same_from_a_datum_and_its_noises(self):
    class Dropping(nn.Module):
      @nn.compact
      def __call__(self, x, *, rng=None):
        scale = self.param('scale', nn.initializers.ones, (x.shape[1],))
        drop = nn.Dropout(0.5, deterministic=rng is None)
        return jnp.sum(scale[None] * drop(100.0 * x, rng=rng), 1)

    x = jnp.ones((3, 6))
    energy = learners.create(_KEY, Dropping(), optax.sgd(0.1), x)
    step = functools.partial(noise_contrastive.step, noise_scale=1e-5)
    state = _state(energy)
    for objective in ('discrepancy', 'conditional'):
      _, metrics = jax.jit(functools.partial(step, objective=objective))(
        state, {'image': x}, _KEY
      )
      # Another mask would be a gap of some hundreds.
      np.testing.assert_allclose(metrics['energy/confusion'], 1, atol=1e-2)

  def test_scales_may_be_swept(self):
    x = jnp.asarray(literal.normal(5))
    energy = literal.quadratic(literal.MEAN, [0.3, -0.2])
    loss = lambda scale: noise_contrastive.discrepancy_objective(
      energy, x, _KEY, scale
    )(energy.params)[0]
    found = jax.jit(jax.vmap(loss))(jnp.array([0.3, 1.0]))
    np.testing.assert_allclose(found, [loss(0.3), loss(1.0)], rtol=1e-4)


class NoiseTest(parameterized.TestCase):
  @parameterized.parameters('full', 'diagonal')
  def test_is_the_normal_law_of_the_data(self, covariance):
    x = np.random.default_rng(0).normal(size=(7, 2, 2)) * [1.0, 3.0]
    flat = x.reshape(7, 4)
    matrix = np.cov(flat.T, ddof=0)
    expected = matrix + 0.2 * np.mean(np.diag(matrix)) * np.eye(4)
    if covariance == 'diagonal':
      expected = np.diag(np.diag(expected))
    noise = noise_contrastive.fit(x, covariance=covariance, ridge=0.2)
    law = stats.multivariate_normal(flat.mean(0), expected)
    np.testing.assert_allclose(
      jax.jit(noise.log_density)(jnp.asarray(flat)), law.logpdf(flat), rtol=1e-5
    )
    found = noise.sample(_KEY, 20_000)
    self.assertEqual(found.shape, (20_000, 4))
    error = 4 * np.max(expected) * (2 / 20_000) ** 0.5
    np.testing.assert_allclose(np.cov(found.T), expected, atol=error)
    np.testing.assert_allclose(found.mean(0), flat.mean(0), atol=error)

  @parameterized.parameters('full', 'diagonal')
  def test_of_constant_data_is_a_law(self, covariance):
    noise = noise_contrastive.fit(np.ones((3, 2), int), covariance=covariance)
    law = stats.multivariate_normal([1, 1], 0.1 * np.eye(2))
    np.testing.assert_allclose(
      noise.log_density(jnp.zeros((1, 2))), [law.logpdf([0, 0])], rtol=1e-5
    )

  def test_log_partition_begins_at_the_importance_estimate(self):
    # With noise of the model every weight is Z.
    energy = _gaussian(1 / _VARIANCE)
    state = noise_contrastive.create(_KEY, energy, _normal(_VARIANCE))
    np.testing.assert_allclose(state.log_partition, _TRUE_LOG_Z, rtol=1e-5)
    # With wider noise of variance u the weights have the relative variance
    # u / sqrt(v (2 u - v)) - 1.
    wide = noise_contrastive.create(_KEY, energy, _normal(4.0), num=20_000)
    spread = 4 / (_VARIANCE * (8 - _VARIANCE)) ** 0.5 - 1
    self.assertAlmostEqual(
      wide.log_partition, _TRUE_LOG_Z, delta=4 * (spread / 20_000) ** 0.5
    )


class StepTest(parameterized.TestCase):
  @parameterized.parameters(
    ('discrepancy', dict(num_noise=1, noise_scale=1.0)),
    ('discrepancy', dict(num_noise=4, noise_scale=0.3)),
    ('discrepancy', dict(num_noise=4, noise_scale=1.5)),
    ('conditional', dict(num_noise=2, noise_scale=1.0)),
    ('fixed', dict(num_noise=2)),
    ('self', dict()),
  )
  def test_no_drift_at_the_truth(self, objective, hyper):
    x = jnp.asarray(literal.rbm_data(64 * 200), jnp.float32).reshape(64, 200, 4)
    known = jnp.asarray(literal.rbm_log_partition(literal.RBM_TRUTH))
    fields = dict(noise=noise_contrastive.fit(x[0]), log_partition=known)
    state = _rbm(x[0], **fields)

    @jax.jit
    @jax.vmap
    def updates(x, rng):
      return literal.ascent(
        noise_contrastive, state, x, rng, objective=objective, **hyper
      )

    keys = jax.random.split(_KEY, 64)
    self.assertLess(np.max(_standard_errors(updates(x, keys))), 4)
    self.assertGreater(np.max(_standard_errors(updates(1.2 * x, keys))), 8)

  @parameterized.parameters(1, 5)
  def test_log_partition_is_learned(self, num_noise):
    """c = log Z is where the loss has no slope along it, and is found from afar."""
    energy = _gaussian(1 / _VARIANCE).replace(tx=optax.set_to_zero())
    start = _state(energy, _normal(4.0), jnp.asarray(200.0))

    def step(state, rng):
      data_rng, rng = jax.random.split(rng)
      x = _VARIANCE**0.5 * jax.random.normal(data_rng, (1000, 1))
      options = dict(objective='fixed', num_noise=num_noise, partition_rate=0.2)
      state, metrics = noise_contrastive.step(
        state, {'image': x}, rng, **options
      )
      return state, metrics

    run = jax.jit(
      lambda state: jax.lax.scan(step, state, jax.random.split(_KEY, 400))
    )
    _, metrics = run(start)
    found = metrics['energy/log_partition']
    self.assertEqual(found[0], 200)
    # A batch knows it to 0.05 or so, and there are 60 that are independent.
    np.testing.assert_allclose(found[100:].mean(), _TRUE_LOG_Z, atol=0.03)

  def test_log_partition_by_finite_differences(self):
    """Where log Z stays, the loss has no slope along it."""
    self.enter_context(jax.enable_x64(True))
    x = jnp.asarray(literal.rbm_data(50))
    noise = noise_contrastive.fit(x)
    state = _rbm(x, noise=noise, log_partition=jnp.asarray(0.0))
    stay = state.energy.replace(tx=optax.set_to_zero())
    options = dict(objective='fixed', num_noise=3, partition_rate=1.0)

    @jax.jit
    def run(state):
      again = lambda state, _: noise_contrastive.step(
        state, {'image': x}, _KEY, **options
      )
      return jax.lax.scan(again, state, length=100)[0].log_partition

    end = run(state._replace(energy=stay))
    loss = lambda c: noise_contrastive.step(
      state._replace(log_partition=c), {'image': x}, _KEY, **options
    )[1]['energy/loss']
    at = [float(jax.jit(loss)(end + by)) for by in (-1e-3, 0.0, 1e-3)]
    self.assertLess(at[1], min(at[0], at[2]))
    np.testing.assert_allclose(at[2] - at[0], 0, atol=1e-9)

  def test_what_is_known_of_log_partition_is_logged(self):
    x = jnp.asarray(literal.rbm_data(8), jnp.float32)
    state = _rbm(
      x, noise=noise_contrastive.fit(x), log_partition=jnp.asarray(2.0)
    )
    step = functools.partial(
      noise_contrastive.step, objective='fixed', known_partition=True
    )
    _, metrics = jax.jit(step)(state, {'image': x}, _KEY)
    known = literal.rbm_log_partition(literal.RBM_TRUTH)
    self.assertAlmostEqual(
      metrics['energy/log_partition_error'], 2 - known, places=4
    )

  @parameterized.parameters('discrepancy', 'conditional', 'fixed')
  def test_devices(self, objective):
    self.check_devices('shard_map', objective)

  @parameterized.parameters('discrepancy', 'conditional', 'fixed')
  @pytest.mark.slow
  def test_pmap(self, objective):
    self.check_devices('pmap', objective)

  def check_devices(self, mode, objective):
    x = np.float32(literal.rbm_data(16))
    noise = noise_contrastive.fit(x)
    options = dict(objective=objective, num_noise=3)

    def step(state, batch, rng, axis_name=None):
      return noise_contrastive.step(
        state, batch, rng, **options, axis_name=axis_name
      )

    def run(mode):
      fields = dict(noise=noise, log_partition=jnp.asarray(3.0))
      state = parallel.replicate(_rbm(x, **jax.tree.map(jnp.copy, fields)))
      with draws.fixed():
        compiled = parallel.compile_step(step, mode)
        after, metrics = compiled(state, {'image': x}, _KEY)
      return after.energy.params, after.log_partition, metrics

    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5),
      run(mode),
      run('jit'),
    )

  @parameterized.parameters('shard_map', 'pmap')
  def test_exact_samples_on_devices(self, mode):
    x = np.float32(literal.rbm_data(16)).reshape(16, 2, 2, 1)

    def step(state, batch, rng, axis_name=None):
      return noise_contrastive.step(
        state, batch, rng, objective='self', axis_name=axis_name
      )

    state = parallel.replicate(_rbm(x))
    _, metrics = parallel.compile_step(step, mode)(state, {'image': x}, _KEY)
    np.testing.assert_allclose(metrics['energy/loss'], 2 * np.log(2), rtol=1e-5)

  @parameterized.parameters(
    (dict(objective='nce'), "objective='nce'.*'conditional'"),
    (dict(noise_scale=0.0), 'noise_scale=0.0 must be a positive'),
    (dict(num_noise=0), 'num_noise=0 must be at least 1'),
    (dict(partition_rate=1.5), 'partition_rate=1.5 must be at most 1'),
    (dict(known_partition=1), 'known_partition=1 must be True or False'),
    (dict(objective='fixed'), "objective='fixed' needs a state with noise"),
  )
  def test_refuses(self, hyper, message):
    x = literal.rbm_data(3)
    with self.assertRaisesRegex(ValueError, message):
      literal.ascent(noise_contrastive, _rbm(x), x, **hyper)

  def test_refuses_energies_that_lack_something(self):
    x = literal.images()
    state = lambda module: _state(
      learners.create(_KEY, module, optax.sgd(0.1), x['image'])
    )
    with self.assertRaisesRegex(ValueError, 'mixes its batch'):
      noise_contrastive.step(state(energies.Discriminator((2, 2))), x, _KEY)
    with self.assertRaisesRegex(ValueError, 'no method sample'):
      noise_contrastive.step(
        state(energies.MLP((2,))), x, _KEY, objective='self'
      )
    with self.assertRaisesRegex(ValueError, "covariance='none'.*'full'"):
      noise_contrastive.fit(x['image'], covariance='none')
    with self.assertRaisesRegex(ValueError, 'ridge=0'):
      noise_contrastive.fit(x['image'], ridge=0)

  def test_learning(self):
    self.check_learning(objective='discrepancy', noise_scale=1.0)

  @parameterized.parameters(
    dict(objective='conditional', noise_scale=1.0),
    dict(objective='fixed', num_noise=10),
  )
  @pytest.mark.slow
  def test_learning_by_others(self, **hyper):
    self.check_learning(**hyper)

  def check_learning(self, objective, **hyper):
    x = literal.rbm_data(literal.NUM_DATA)
    config = dict(step=dict(objective=objective), **noise_contrastive.FIELDS)
    for params in literal.fit_rbm(
      noise_contrastive,
      x,
      num_train_steps=600,
      config=config,
      objective=objective,
      **hyper,
    ):
      self.assertGreater(
        literal.rbm_log_likelihood(params, x),
        literal.rbm_log_likelihood(literal.RBM_TRUTH, x) - literal.SLACK,
      )


if __name__ == '__main__':
  absltest.main()
