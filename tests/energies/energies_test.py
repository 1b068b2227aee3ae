"""Energies against sums over every hidden state and literal networks."""

import functools
import itertools
import types

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
import numpy as np
import optax

from stein_jax import dtypes
from stein_jax import energies
from stein_jax import layers
from stein_jax import learners

_AXIS = 'batch'
_CONVS = ((3, 3, 2, 1), (5, 4, 4, 0))  # 8 x 8 pixels, then 4 x 4, then 1
_MNIST = ((64, 5, 2, 2), (128, 5, 2, 2), (512, 7, 7, 0))
_CIFAR10 = (
  (128, 3, 1, 1),
  (128, 2, 2, 0),
  (256, 3, 1, 1),
  (256, 4, 4, 0),
  (512, 3, 1, 1),
  (512, 4, 4, 0),
)
_FACES_2016 = (
  (128, 3, 1, 1),
  (128, 4, 4, 0),
  (256, 3, 1, 1),
  (256, 4, 4, 0),
  (512, 3, 1, 1),
  (512, 4, 4, 0),
)
_FACES_2017 = (
  (64, 3, 1, 1),
  (128, 5, 4, 2),
  (128, 3, 1, 1),
  (256, 5, 4, 2),
  (256, 3, 1, 1),
  (256, 4, 4, 0),
)


def _rbm(
  d=3, num_hidden=2, *, shape=None, centered=False, scale=0.7, dtype=None
):
  """Returns (learner, b, B, c) with random parameters, as NumPy float64."""
  rng = np.random.default_rng(d + num_hidden)
  b, c = rng.normal(size=d), 0.5 * rng.normal(size=num_hidden)
  weight = scale * rng.normal(size=(d, num_hidden))
  x = 1 + rng.normal(size=(5, *(shape or (d,))))
  energy = learners.create(
    jax.random.key(0),
    energies.RBM(num_hidden, centered),
    optax.sgd(1.0),
    jnp.asarray(x, dtype),
  )
  return _with_params(energy, b, weight, c), b, weight, c


def _with_params(energy, b, weight, c):
  trained = {'bias': b, 'weight': weight, 'hidden_bias': c}
  return energy.replace(
    params={**energy.params, 'params': jax.tree.map(jnp.asarray, trained)}
  )


def _state(energy):
  return types.SimpleNamespace(energy=energy)


def _points(num=7, d=3):
  return 2 * np.random.default_rng(1).normal(size=(num, d))


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


def _call(energy, *args, **kwargs):
  call = jax.jit(lambda params: energy.apply_fn(params, *args, **kwargs))
  return call(energy.params)


class RBMTest(parameterized.TestCase):
  def test_energy_is_the_sum_over_hidden_states(self):
    energy, *params = _rbm()
    np.testing.assert_allclose(
      _call(energy, _points()), _literal_energy(_points(), *params), rtol=2e-6
    )

  def test_score_and_features(self):
    energy, b, weight, c = _rbm()
    x = _points()
    hidden = np.tanh(x @ weight + c)
    np.testing.assert_allclose(
      energies.score(energy, jnp.asarray(x)),
      b - x + hidden @ weight.T,
      atol=2e-6,
    )
    np.testing.assert_allclose(
      _call(energy, x, method='features'), hidden, atol=1e-6
    )

  @parameterized.parameters((1, 3), (2, 2))
  def test_log_partition_by_quadrature(self, d, num_hidden):
    self.enter_context(jax.enable_x64(True))
    energy, *_ = _rbm(d, num_hidden)
    # The trapezoid rule on a Gaussian errs by exp(-2 pi^2 / spacing^2).
    axis = np.arange(-14, 14, 0.2)
    grid = np.stack(np.meshgrid(*[axis] * d), -1).reshape(-1, d)
    total = np.sum(np.exp(-np.asarray(_call(energy, grid)))) * 0.2**d
    np.testing.assert_allclose(
      _call(energy, method='log_partition'), np.log(total), rtol=1e-12
    )

  @parameterized.parameters(1, 5, 13)  # 2^13 states are two chunks
  def test_log_partition_by_enumeration(self, num_hidden):
    self.enter_context(jax.enable_x64(True))
    energy, *params = _rbm(6, num_hidden, scale=0.3)
    np.testing.assert_allclose(
      _call(energy, method='log_partition'),
      np.log(np.sum(_literal_state_weights(*params))),
      rtol=1e-13,
    )

  def test_enumeration_has_a_limit(self):
    energy, *_ = _rbm(2, 21)
    for call in (('log_partition',), ('sample', jax.random.key(0), 2)):
      with self.assertRaisesRegex(
        ValueError, 'num_hidden=21.*annealed_importance'
      ):
        _call(energy, *call[1:], method=call[0])

  def test_num_hidden_is_a_count(self):
    with self.assertRaisesRegex(ValueError, 'num_hidden=0'):
      energies.RBM(0)

  def test_large_logits(self):
    energy, *_ = _rbm(2, 2)
    b = np.array([1.0, -1.0])
    energy = _with_params(energy, b, np.eye(2), np.zeros(2))
    x = np.array([[200.0, -200.0], [-200.0, 200.0]])
    # log 2 cosh(a) = |a| and tanh(a) = sign(a) up to exp(-400).
    np.testing.assert_allclose(_call(energy, x), 40000 - x @ b - 400, rtol=1e-6)
    np.testing.assert_allclose(
      energies.score(energy, jnp.asarray(x)), b - x + np.sign(x), rtol=1e-6
    )

  @parameterized.parameters(1.0, 0.0)
  def test_laplacian_is_the_trace_of_the_hessian(self, scale):
    energy, b, weight, c = _rbm(3, 4)
    energy = _with_params(energy, b, weight, scale * c)
    x = jnp.asarray(scale * _points(), jnp.float32)  # scale 0: the logits are 0
    at = lambda x: energy.apply_fn(energy.params, x[None])[0]
    hessian = jax.jit(jax.vmap(jax.hessian(at)))(x)
    np.testing.assert_allclose(
      _call(energy, x, method='laplacian'),
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
    energy, *params = _rbm()
    num = 20_000
    if start == 'chain':
      sample = jax.jit(
        lambda rng: energies.sample_state(
          _state(energy), rng, num, sampler='gibbs', num_steps=num_steps
        )
      )
    else:

      def sample(rng):
        x = _call(energy, rng, num, method='sample')
        return _call(energy, jax.random.key(2), x, num_steps, method='gibbs')

    x = np.asarray(sample(jax.random.key(1)), np.float64)
    mean, covariance = _literal_moments(*params)
    self.assert_mean(x, mean)
    deviation = x - mean
    self.assert_mean(deviation[:, :, None] * deviation[:, None, :], covariance)

  def test_means_are_those_of_the_mixture(self):
    energy, *params = _rbm()
    x = np.asarray(
      _call(energy, jax.random.key(1), 20_000, method='means'), np.float64
    )
    mean, covariance = _literal_moments(*params)
    self.assert_mean(x, mean)
    deviation = x - mean
    # Each component of the mixture adds I to the means' covariance.
    self.assert_mean(
      deviation[:, :, None] * deviation[:, None, :], covariance - np.eye(3)
    )

  def test_one_gibbs_step_by_hand(self):
    energy, b, weight, c = _rbm()
    x = np.array([0.3, -1.0, 0.5])
    # p(h_i = 1 | x) = sigmoid(2 a_i) makes E[h_i] = tanh(a_i), independently.
    hidden = np.tanh(x @ weight + c)
    start = jnp.tile(jnp.asarray(x, jnp.float32), (20_000, 1))
    after = _call(energy, jax.random.key(0), start, 1, method='gibbs')
    mean = b + weight @ hidden
    covariance = np.eye(3) + weight @ np.diag(1 - hidden**2) @ weight.T
    deviation = np.asarray(after, np.float64) - mean
    self.assert_mean(deviation, 0)
    self.assert_mean(deviation[:, :, None] * deviation[:, None, :], covariance)

  def test_centering_is_a_change_of_parameters(self):
    centered, b, weight, c = _rbm(centered=True)
    m = np.asarray(centered.params['constants']['mean'])
    # b.(x - m) - |x - m|^2 / 2 is (b + m).x - |x|^2 / 2 less b.m + |m|^2 / 2.
    plain = _with_params(_rbm()[0], b + m, weight, c - weight.T @ m)
    shift = b @ m + m @ m / 2
    x, rng = jnp.asarray(_points(), jnp.float32), jax.random.key(3)
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
          _call(centered, *args, method=method),
          _call(plain, *args, method=method) + change,
          rtol=1e-5,
          atol=2e-5,
        )
    np.testing.assert_allclose(
      energies.score(centered, x), energies.score(plain, x), atol=1e-5
    )

  def test_the_mean_of_the_images_is_constant(self):
    x = jnp.asarray(_points(), jnp.float32)
    energy = learners.create(
      jax.random.key(0), energies.RBM(2, centered=True), optax.adam(0.1), x
    )
    mean = energy.params['constants']['mean']
    np.testing.assert_allclose(mean, _points().mean(0), atol=1e-6)
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
    images, *_ = _rbm(6, shape=(2, 3, 1), centered=centered)
    vectors, *_ = _rbm(6, centered=centered)
    x = jnp.asarray(_points(4, 6), jnp.float32)
    image = x.reshape(4, 2, 3, 1)
    np.testing.assert_array_equal(_call(images, image), _call(vectors, x))
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


class MLPTest(absltest.TestCase):
  def test_confinement_is_a_parabola(self):
    x = jnp.asarray(_points(4, 6), jnp.float32).reshape(4, 2, 3, 1)
    loose = energies.MLP((5, 4), confinement=0.0)
    tight = energies.MLP((5, 4), confinement=0.3)
    params = loose.init(jax.random.key(0), x)
    values = loose.apply(params, x)
    self.assertEqual(values.shape, (4,))
    self.assertGreater(np.ptp(values), 0)
    np.testing.assert_allclose(
      tight.apply(params, x) - values, 0.15 * np.sum(x**2, (1, 2, 3)), rtol=1e-5
    )


class ChainTest(parameterized.TestCase):
  @parameterized.parameters(1.0, 0.3)
  def test_contrast_gradient_by_hand(self, weight):
    energy, _, matrix, c = _rbm()
    data, samples = _points(4), _points(7)[4:] + 1  # unequal in number
    loss = energies.contrast(
      energy, jnp.asarray(data), jnp.asarray(samples), negative_weight=weight
    )
    gradient, metrics = jax.grad(loss, has_aux=True)(energy.params)

    def expectations(x):  # -dE / d(b, B, c) = (x, x h', h) at h = tanh(B'x + c)
      h = np.tanh(x @ matrix + c)
      return {
        'bias': x.mean(0),
        'weight': x.T @ h / len(x),
        'hidden_bias': h.mean(0),
      }

    positive, negative = expectations(data), expectations(samples)
    for name, value in gradient['params'].items():
      np.testing.assert_allclose(
        value, weight * negative[name] - positive[name], atol=2e-6
      )
    np.testing.assert_allclose(
      metrics['energy/data'], jnp.mean(_call(energy, data)), rtol=1e-6
    )
    np.testing.assert_allclose(
      metrics['energy/samples'], jnp.mean(_call(energy, samples)), rtol=1e-6
    )

  @parameterized.parameters(0.0, 0.3)
  def test_squared_energies_by_hand(self, energy_l2):
    # Of E = a.x the loss is a.(mean data - w mean samples) and the squares of each.
    energy = self.linear()
    data, samples = _points(4), _points(7)[4:] + 1
    a = np.array([0.5, -1.0, 0.25])
    loss = energies.contrast(
      energy,
      jnp.asarray(data),
      jnp.asarray(samples),
      negative_weight=0.6,
      energy_l2=energy_l2,
    )
    (value, metrics), slope = jax.value_and_grad(loss, has_aux=True)(
      jnp.float32(a)
    )
    expected = a @ (data.mean(0) - 0.6 * samples.mean(0))
    of_a = data.mean(0) - 0.6 * samples.mean(0)
    for x in (data, samples):
      expected += energy_l2 * np.mean((x @ a) ** 2)
      of_a = of_a + 2 * energy_l2 * x.T @ (x @ a) / len(x)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(slope, of_a, rtol=1e-5)
    # The gap is without the weight.
    gap = a @ (data.mean(0) - samples.mean(0))
    np.testing.assert_allclose(metrics['energy/gap'], gap, rtol=1e-5)

  def test_negative_energy_l2(self):
    with self.assertRaisesRegex(ValueError, 'energy_l2=-0.1'):
      energies.contrast(self.linear(), _points(), _points(), energy_l2=-0.1)

  def test_conditions_of_a_batch(self):
    batch = {'image': 1, 'label': 2}
    self.assertEqual(energies.conditions(batch), ())
    self.assertEqual(energies.conditions({**batch, 'condition': 3}), (3,))

  def test_without_noise_it_is_gradient_descent(self):
    # On E = |x|^2 / (2 sigma^2) a step multiplies by 1 - delta^2 / (2 sigma^2):
    # by 0.9921875 at X21's delta 0.002 and sigma 0.016.
    energy = self.linear().replace(
      apply_fn=lambda params, x: jnp.sum(x**2, -1) / (2 * 0.016**2)
    )
    x = jnp.asarray(_points(), jnp.float32)
    chain = functools.partial(
      energies.chain, energy, step_size=0.002, num_steps=3
    )
    after = chain(jax.random.key(0), x, noise=False)
    np.testing.assert_allclose(after, 0.9921875**3 * x, rtol=1e-5)
    np.testing.assert_array_equal(
      chain(jax.random.key(1), x, noise=False), after
    )
    self.assertGreater(
      np.max(np.abs(chain(jax.random.key(0), x) - after)), 0.001
    )

  def test_temperature_is_of_the_noise(self):
    # E = a.x: two steps of -a delta^2 / 2, and 2 T delta^2 of variance.
    energy, x = self.linear(), jnp.zeros((3000, 3))
    a, delta = np.array([0.5, -1.0, 0.25]), 0.4
    run = lambda temperature: energies.chain(
      energy,
      jax.random.key(0),
      x,
      step_size=delta,
      num_steps=2,
      temperature=temperature,
    )
    ends = {t: np.asarray(run(t) + delta**2 * a[None]) for t in (0.0, 1.0, 4.0)}
    np.testing.assert_allclose(ends[0.0], 0, atol=1e-6)
    np.testing.assert_allclose(ends[4.0], 2 * ends[1.0], atol=1e-5)
    # 4 standard errors of the mean square of 9000 normals.
    self.assertAlmostEqual(
      np.mean(ends[1.0] ** 2) / (2 * delta**2), 1, delta=4 * (2 / 9000) ** 0.5
    )

  def test_every_step_is_cut(self):
    # On E = 2.5 x^2 steps of delta^2 / 2 = 1/2 go to -1.5 x: from 1 to -1.5, cut to
    # -1; to 1.5, cut to 0.4; to -0.6. Cut at the end alone, -3.375 would be -1.
    energy = self.linear().replace(
      apply_fn=lambda params, x: 2.5 * jnp.sum(x**2, -1)
    )
    after = energies.chain(
      energy,
      jax.random.key(0),
      jnp.ones((2, 1)),
      step_size=1.0,
      num_steps=3,
      noise=False,
      clip=(-1.0, 0.4),
    )
    np.testing.assert_allclose(after, 0.4 * -1.5 * np.ones((2, 1)), rtol=1e-6)

  @parameterized.parameters('langevin', 'mala')
  def test_blocks_have_keys_of_their_own(self, sampler):
    energy = self.linear().replace(
      apply_fn=lambda params, x, y: 0.5 * jnp.sum((x - y) ** 2, -1)
    )
    x, y = jnp.asarray(np.stack([_points(), _points() + 1]), jnp.float32)
    rng = jax.random.key(4)
    run = jax.jit(
      functools.partial(
        energies.chain, energy, sampler=sampler, step_size=0.7, num_steps=4
      ),
      static_argnames='block_size',
    )
    whole = run(rng, x, y, block_size=3)
    for i, first in enumerate((0, 3)):
      rows = slice(first, first + 3)
      alone = run(jax.random.fold_in(rng, i), x[rows], y[rows])
      np.testing.assert_allclose(whole[rows], alone, atol=1e-6)
    # The last block has one row, beside which there are others or none.
    last = jnp.array([6, 0, 0])
    alone = run(jax.random.fold_in(rng, 2), x[last], y[last])
    np.testing.assert_allclose(whole[6:], alone[:1], atol=1e-6)
    self.assertEqual(whole.shape, x.shape)
    fewer = run(rng, x[:4], y[:4], block_size=3)
    np.testing.assert_allclose(fewer, whole[:4], atol=1e-6)
    with self.assertRaisesRegex(ValueError, 'block_size=-1'):
      energies.chain(energy, rng, x, y, block_size=-1)

  def linear(self):
    """Returns a learner of E = a.x, whose parameters are a."""
    energy, *_ = _rbm()
    return energy.replace(
      params=jnp.array([0.5, -1.0, 0.25]),
      apply_fn=lambda params, x: x @ params,
    )

  def test_samples_are_constants(self):
    energy, *_ = _rbm()
    data = jnp.asarray(_points(), jnp.float32)
    loss = lambda shift: energies.contrast(energy, data, data + shift)(
      energy.params
    )[0]
    self.assertEqual(jax.grad(loss)(0.5), 0)
    self.assertNotAlmostEqual(loss(0.5), 0)

  @parameterized.parameters('langevin', 'mala', 'gibbs')
  def test_chains_keep_the_shape(self, sampler):
    energy, *_ = _rbm(4, shape=(2, 2, 1))
    x = jnp.asarray(_points(5, 4), jnp.float32).reshape(5, 2, 2, 1)
    rng = jax.random.key(0)
    chain = functools.partial(
      energies.chain, energy, sampler=sampler, num_steps=3
    )
    moved = jax.jit(chain)(rng, x)
    self.assertEqual((moved.shape, moved.dtype), (x.shape, x.dtype))
    self.assertFalse(np.array_equal(moved, x))
    sample = lambda num: functools.partial(
      energies.sample_state,
      _state(energy),
      num=num,
      sampler=sampler,
      num_steps=2,
    )
    self.assertEqual(jax.eval_shape(sample(1), rng).shape, (1, 2, 2, 1))
    samples = jax.jit(sample(6))(rng)
    self.assertEqual(samples.shape, (6, 2, 2, 1))
    self.assertLen(np.unique(samples.reshape(6, -1), axis=0), 6)

  def test_bad_arguments(self):
    energy, *_ = _rbm()
    with self.assertRaisesRegex(
      ValueError, "sampler='gibbs' takes no condition"
    ):
      energies.chain(
        energy, jax.random.key(0), _points(), _points(), sampler='gibbs'
      )
    with self.assertRaisesRegex(
      ValueError, "sampler='hmc'.*'langevin'.*'gibbs'"
    ):
      energies.chain(energy, jax.random.key(0), _points(), sampler='hmc')
    with self.assertRaisesRegex(ValueError, 'num_steps=0'):
      energies.chain(energy, jax.random.key(0), _points(), num_steps=0)

  def test_condition_reaches_the_energy(self):
    # E(x, y) = |x - y|^2 / 2 has score y - x, and p(x | y) = N(y, I).
    energy, *_ = _rbm()
    energy = energy.replace(
      apply_fn=lambda params, x, y: 0.5 * jnp.sum((x - y) ** 2, -1)
    )
    y = jnp.full((4000, 3), 5.0)
    np.testing.assert_allclose(
      energies.score(energy, y + 1, y), -np.ones_like(y)
    )
    for sampler in ('langevin', 'mala'):
      sample = lambda rng: energies.sample_state(
        _state(energy),
        rng,
        4000,
        condition=y,
        sampler=sampler,
        step_size=0.5,
        num_steps=60,
      )
      x = jax.jit(sample)(jax.random.key(0))
      # Left of the start: 5 (1 - delta^2 / 2)^60 < 0.002; 4 / sqrt(12000) of noise,
      # times the spread of unadjusted Langevin, 1 / sqrt(1 - delta^2 / 4).
      self.assertAlmostEqual(jnp.mean(x), 5, delta=0.002 + 0.0365 * 1.04)


@functools.cache
def _energy(kind, norm='batch', num_classes=3):
  """Returns a small learner, with parameters that are not small."""
  if kind == 'discriminator':
    module = energies.Discriminator((3, 4), num_classes, norm)
  else:
    module = energies.Autoencoder(_CONVS, norm=norm)
    if kind == 'joint':
      module = energies.JointLabel(module, num_classes, margin=1.1)
  y = () if kind == 'autoencoder' or not num_classes else (_labels(),)
  # Shapes alone: compiling the start would take most of the time.
  energy = jax.eval_shape(
    lambda rng: learners.create(rng, module, optax.sgd(1.0), _images(), *y),
    jax.random.key(0),
  )
  rng = np.random.default_rng(1)
  draw = lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), leaf.dtype)
  params = jax.tree.map(draw, energy.params)
  return energy.replace(step=0, params=params, opt_state=energy.tx.init(params))


def _images(num=8, seed=0):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.normal(size=(num, 8, 8, 2)), jnp.float32)


def _labels(num=8):
  return jnp.arange(num) % 3


def _shapes(module, x, *inputs):
  """Returns the shapes of the parameters and of what the norms return."""

  def run(rng):
    params = module.init(rng, x, *inputs)
    _, variables = module.apply(
      params,
      x,
      *inputs,
      capture_intermediates=lambda module, _: 'Norm' in (module.name or ''),
      mutable=['intermediates'],
    )
    return params['params'], variables['intermediates']

  return jax.tree.map(
    lambda leaf: leaf.shape, jax.eval_shape(run, jax.random.key(0))
  )


def _weights(params):
  """Returns how many weights there are, and how many parameters of norms."""
  weights = others = 0
  is_shape = lambda node: isinstance(node, tuple)
  for path, shape in jax.tree.leaves_with_path(params, is_leaf=is_shape):
    if path[-1].key.startswith('kernel'):
      weights += np.prod(shape)
    else:
      others += np.prod(shape)
  return weights, others


def _normed(x, norm, parameters):
  """Returns x after the literal norm, given (factor, offset)."""
  if norm == 'none':
    return x
  x = np.asarray(x)
  axes = tuple(range(x.ndim - 1) if norm == 'batch' else range(1, x.ndim))
  x = x - x.mean(axes, keepdims=True)
  epsilon = {'batch': 1e-5, 'layer': 1e-6}[norm]
  factor, offset = map(np.asarray, parameters)
  return (
    x / np.sqrt((x**2).mean(axes, keepdims=True) + epsilon) * factor + offset
  )


def _literal_conv(x, kernel, *, stride, padding):
  """Returns XLA's own convolution, with its own derivatives."""
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    [(padding, padding)] * 2,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def _norms(energy):
  """Yields (factor, offset) of each norm, in the order of their making."""
  of = energy.params['params']
  for i in range(len(of)):
    if f'BatchNorm_{i}' in of:
      yield of[f'BatchNorm_{i}']['gain'], of[f'BatchNorm_{i}']['bias']
    if f'LayerNorm_{i}' in of:
      yield of[f'LayerNorm_{i}']['scale'], of[f'LayerNorm_{i}']['bias']


class AutoencoderTest(parameterized.TestCase):
  # Counted are the weights of the layers, once for encoder and decoder, as the
  # papers do; gains and biases of the norms are apart. Sizes are of each layer.
  @parameterized.named_parameters(
    ('mnist', _MNIST, (28, 28, 1), 3.42, (14, 7, 1), 5120),
    ('cifar10', _CIFAR10, (32, 32, 3), 6.79, (32, 16, 16, 4, 4, 1), 0),
    ('faces_2016', _FACES_2016, (64, 64, 3), 6.98, (64, 16, 16, 4, 4, 1), 0),
    ('faces_2017', _FACES_2017, (64, 64, 3), 2.81, (64, 16, 16, 4, 4, 1), 0),
  )
  def test_networks_of_the_papers(self, convs, shape, millions, sizes, head):
    module, y = energies.Autoencoder(convs), ()
    if head:  # the linear classifier of the features, 512 x 10
      module, y = energies.JointLabel(module, 10), (jnp.zeros(2, jnp.int32),)
    params, norms = _shapes(module, jnp.zeros((2, *shape)), *y)
    if head:
      self.assertEqual(params['classifier'], {'kernel': (512, 10)})
      norms = norms['autoencoder']
    else:  # the decoder has no kernels of its own
      self.assertEqual(
        {name for name in params if 'Norm' not in name},
        {f'kernel_{i}' for i in range(len(convs))},
      )
    widths = [width for width, *_ in convs]
    expected = head + sum(
      size**2 * before * width
      for before, (width, size, _, _) in zip(
        [shape[-1], *widths[:-1]], convs, strict=True
      )
    )
    weights, others = _weights(params)
    self.assertEqual(weights, expected)
    self.assertAlmostEqual(weights / 1e6, millions, delta=0.005)
    # All layers but the first are normed on the way in, and on the way out.
    self.assertEqual(others, 2 * (sum(widths[1:]) + sum(widths[:-1])))
    maps = [
      (2, size, size, width) for size, width in zip(sizes, widths, strict=True)
    ]
    self.assertEqual(
      [norms[f'BatchNorm_{i}']['__call__'][0] for i in range(len(norms))],
      [*maps[1:], *maps[-2::-1]],
    )

  @parameterized.parameters(
    ('none', 'sigmoid', 'l2'),
    ('batch', 'tanh', 'l1_l2'),
    ('layer', 'linear', 'squared'),
  )
  def test_is_the_literal_network(self, norm, output, residual):
    energy = _energy('autoencoder', norm)
    module = energies.Autoencoder(_CONVS, output, residual, norm)
    inputs = x = _images(4, seed=1)
    kernels = [energy.params['params'][f'kernel_{i}'] for i in range(2)]
    norms, shapes = _norms(energy), []
    for i, (_, _, stride, padding) in enumerate(_CONVS):
      shapes.append(x.shape)
      x = layers.conv(x, kernels[i], stride=stride, padding=padding)
      x = np.maximum(_normed(x, norm, next(norms, None)) if i else x, 0)
    features = np.reshape(x, (4, -1))
    for i in (1, 0):
      _, _, stride, padding = _CONVS[i]
      up = jax.linear_transpose(
        functools.partial(
          _literal_conv, kernel=kernels[i], stride=stride, padding=padding
        ),
        jax.ShapeDtypeStruct(shapes[i], jnp.float32),
      )
      x = np.asarray(up(jnp.asarray(x))[0])
      x = np.maximum(_normed(x, norm, next(norms, None)), 0) if i else x
    if output != 'linear':
      x = np.tanh(x) if output == 'tanh' else 1 / (1 + np.exp(-x))
    error = np.reshape(np.asarray(inputs) - x, (4, -1))
    squares = np.sum(error**2, 1)
    expected = {
      'l2': np.sqrt(squares),
      'l1_l2': np.sqrt(np.sum(np.abs(error), 1)) + np.sqrt(squares),
      'squared': squares,
    }[residual]

    @jax.jit
    def results(params):
      run = lambda method: module.apply(params, inputs, method=method)
      names = ('features', 'reconstruct', 'reconstruction_error')
      return module.apply(params, inputs), *map(run, names)

    actual = results(energy.params)
    for value, wanted in zip(
      actual, (expected, features, x, expected), strict=True
    ):
      np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-4)

  def test_weights_start_at_a_standard_deviation_of_2_percent(self):
    module = energies.Autoencoder(((40, 5, 5, 0),), norm='none')
    params = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 5, 5, 10)))
    kernel = np.asarray(params['params']['kernel_0'])  # 10,000 draws
    self.assertAlmostEqual(np.mean(kernel), 0, delta=4 * 0.02 / 100)
    self.assertAlmostEqual(np.std(kernel), 0.02, delta=3 * 0.02 / 100)

  @parameterized.parameters('l2', 'l1_l2', 'squared')
  def test_a_perfect_reconstruction_has_a_slope(self, residual):
    # Without biases and norms the image of zeros is reconstructed as it is.
    module = energies.Autoencoder(_CONVS, 'linear', residual, 'none')
    total = lambda x, params: jnp.sum(module.apply(params, x))
    value, (of_image, of_params) = jax.jit(jax.value_and_grad(total, (0, 1)))(
      jnp.zeros((2, 8, 8, 2)), _energy('autoencoder', 'none').params
    )
    for leaf in (of_image, *jax.tree.leaves(of_params)):
      self.assertTrue(np.all(np.isfinite(leaf)))
      if residual != 'l1_l2':  # its root of |r| is steep there
        np.testing.assert_array_equal(leaf, 0)
    self.assertAlmostEqual(value, 0, delta=1e-5)

  def test_dropout(self):
    # One kernel of one weight, 1: the reconstruction is what dropout leaves.
    rate, x = 0.2, 1 + jnp.abs(_images(2)[..., :1])
    module = energies.Autoencoder(
      ((1, 1, 1, 0),), 'linear', 'squared', 'none', dropout=rate
    )
    energy = learners.create(jax.random.key(0), module, optax.sgd(1.0), x)
    energy = energy.replace(params=jax.tree.map(jnp.ones_like, energy.params))
    run = lambda rng, method=None: learners.call(
      energy, energy.params, x, rng=rng, method=method
    )
    keys = jax.random.split(jax.random.key(1), 3000)
    values = jax.jit(jax.vmap(run))(keys)
    kept = jax.jit(jax.vmap(lambda rng: run(rng, 'reconstruct')))(keys)
    wholes = jnp.broadcast_to(x / (1 - rate), kept.shape)
    np.testing.assert_allclose(kept, jnp.where(kept == 0, 0, wholes), rtol=1e-6)
    share = np.mean(kept == 0)
    self.assertAlmostEqual(
      share, rate, delta=4 * np.sqrt(rate * (1 - rate) / kept.size)
    )
    # x^2 with chance r, (x r / (1 - r))^2 otherwise: r / (1 - r) x^2.
    expected = rate / (1 - rate) * np.sum(x**2, (1, 2, 3))
    error = np.std(values, 0) / np.sqrt(len(keys))
    np.testing.assert_array_less(
      np.abs(np.mean(values, 0) - expected), 4 * error
    )
    np.testing.assert_array_equal(run(keys[0]), run(keys[0]))
    np.testing.assert_array_equal(run(None), 0)

  @parameterized.parameters(
    (dict(output='relu'), "output='relu'.*'sigmoid', 'tanh'"),
    (dict(residual='l1'), "residual='l1'.*'l2', 'l1_l2', 'squared'"),
    (dict(norm='group'), "norm='group'.*'batch', 'layer', 'none'"),
    (dict(dropout=-0.1), 'dropout=-0.1'),
    (dict(dropout=1.0), 'dropout=1.0'),
  )
  def test_bad_arguments(self, kwargs, message):
    with self.assertRaisesRegex(ValueError, message):
      energies.Autoencoder(**kwargs)


class JointLabelTest(parameterized.TestCase):
  def test_energy_and_its_slope_by_hand(self):
    energy, x = _energy('joint', 'none'), _images(seed=1)

    @jax.jit
    def results(params, x):
      run = lambda method, x: energy.apply_fn(params, x, method=method)
      # The likeliest label has a cross entropy of at most log 3, which is below
      # the margin 1.1, and the least likely one of at least that.
      logits = run('logits', x)
      y = jnp.where(
        jnp.arange(8) < 4, jnp.argmax(logits, 1), jnp.argmin(logits, 1)
      )
      error = lambda x: jnp.sum(run('reconstruction_error', x))
      both = lambda params, x: energy.apply_fn(params, x, y)
      of_params, of_x = jax.jacrev(both, (0, 1))(params, x)
      of_x = jnp.sum(of_x, 1)  # no example's energy is of another
      return (
        both(params, x),
        y,
        logits,
        run('reconstruction_error', x),
        of_x - jax.grad(error)(x),
        of_params['params']['classifier']['kernel'],
      )

    value, y, logits, error, slope, of_classifier = map(
      np.asarray, results(energy.params, x)
    )
    self.assertEqual(logits.shape, (8, 3))
    logits = logits.astype(np.float64)
    cross_entropy = np.log(np.sum(np.exp(logits), 1)) - logits[range(8), y]
    below = cross_entropy < 1.1
    np.testing.assert_array_equal(below, np.arange(8) < 4)
    np.testing.assert_allclose(
      value, error + np.where(below, 1.1, cross_entropy), rtol=1e-5
    )
    for of_label in (slope, of_classifier):
      largest = np.max(np.abs(of_label.reshape(8, -1)), 1)
      np.testing.assert_array_less(largest[below], 1e-5)
      np.testing.assert_array_less(1e-3, largest[~below])
    np.testing.assert_array_equal(of_classifier[below], 0)

  def test_methods_are_those_of_the_autoencoder(self):
    joint, x = _energy('joint'), _images(seed=1)
    inner = {'params': joint.params['params']['autoencoder']}
    module = energies.Autoencoder(_CONVS)
    names = ('features', 'reconstruct', 'reconstruction_error')

    def values(apply, params, names):
      return [apply(params, x, method=name) for name in names]

    values = jax.jit(values, static_argnums=(0, 2))
    *actual, logits = values(joint.apply_fn, joint.params, (*names, 'logits'))
    expected = values(module.apply, inner, names)
    for value, of_inner in zip(actual, expected, strict=True):
      np.testing.assert_allclose(value, of_inner, atol=1e-6)
    kernel = joint.params['params']['classifier']['kernel']
    np.testing.assert_allclose(
      logits, expected[0] @ kernel, rtol=1e-4, atol=1e-4
    )

  def test_dropout_of_features(self):
    module = energies.JointLabel(
      energies.Autoencoder(_CONVS, norm='none', dropout=0.0), 3, dropout=0.5
    )
    plain, x = _energy('joint', 'none'), _images(2, seed=1)
    energy = plain.replace(apply_fn=module.apply)
    run = lambda rng: learners.call(
      energy, energy.params, x, rng=rng, method='logits'
    )
    keys = jax.random.split(jax.random.key(1), 3000)
    logits = np.asarray(jax.jit(jax.vmap(run))(keys), np.float64)
    # Logits are linear in the features: dropout leaves their mean.
    error = np.std(logits, 0) / np.sqrt(len(keys))
    self.assertGreater(np.min(error), 1e-3)
    np.testing.assert_array_less(
      np.abs(np.mean(logits, 0) - jax.jit(run)(None)), 4 * error
    )

  @parameterized.parameters(
    (dict(num_classes=-1), 'num_classes=-1'),
    (dict(margin=-1.0), 'margin=-1.0'),
    (dict(dropout=-0.5), 'dropout=-0.5'),
    (dict(dropout=1.0), 'dropout=1.0'),
  )
  def test_bad_arguments(self, kwargs, message):
    with self.assertRaisesRegex(ValueError, message):
      energies.JointLabel(energies.Autoencoder(_CONVS), **kwargs)


class DiscriminatorTest(parameterized.TestCase):
  @parameterized.parameters(('batch', 3), ('layer', 0), ('none', 3))
  def test_is_the_literal_network(self, norm, num_classes):
    energy = _energy('discriminator', norm, num_classes)
    x, y = _images(4, seed=1), _labels(4)
    label = (y,) if num_classes else ()
    actual = _call(energy, x, *label)
    one_hot = np.eye(3)[y] if num_classes else np.zeros((4, 0))
    norms, of = _norms(energy), energy.params['params']
    for i in (0, 1):
      maps = np.broadcast_to(
        one_hot[:, None, None], (*x.shape[:3], one_hot.shape[-1])
      )
      x = jnp.concatenate([x, jnp.asarray(maps, x.dtype)], -1)
      x = layers.conv(x, of[f'kernel_{i}'], stride=2, padding=2)
      x = (
        _normed(np.asarray(x), norm, next(norms, None)) if i else np.asarray(x)
      )
      x = np.where(x > 0, x, 0.2 * x)
    x = np.concatenate([x.reshape(4, -1), one_hot], 1)
    # The energy is minus the logit that x is real.
    np.testing.assert_allclose(
      actual, -(x @ of['Dense_0']['kernel'])[:, 0], rtol=1e-4, atol=1e-4
    )

  def test_network_of_the_paper(self):
    module = energies.Discriminator((128, 256, 512, 1024))
    params, norms = _shapes(module, jnp.zeros((2, 64, 64, 3)))
    weights, others = _weights(params)
    kernels = 25 * (3 * 128 + 128 * 256 + 256 * 512 + 512 * 1024)
    self.assertEqual(weights, kernels + 4 * 4 * 1024)
    self.assertAlmostEqual(weights / 1e6, 17.2, delta=0.05)
    self.assertEqual(others, 2 * (256 + 512 + 1024))
    self.assertEqual(norms['BatchNorm_2']['__call__'][0], (2, 4, 4, 1024))

  def test_bad_arguments(self):
    with self.assertRaisesRegex(ValueError, "norm='group'"):
      energies.Discriminator(norm='group')
    with self.assertRaisesRegex(ValueError, 'num_classes=-1'):
      energies.Discriminator(num_classes=-1)
    for classes, label, message in ((3, (), 'missing'), (0, (0,), 'given')):
      module = energies.Discriminator((2,), classes)
      with self.assertRaisesRegex(
        ValueError, f'num_classes={classes}, but label is {message}'
      ):
        _shapes(module, _images(), *[_labels() for _ in label])


class DtypeTest(parameterized.TestCase):
  """Bytes and halves are numbers: sums neither wrap nor overflow."""

  @parameterized.parameters(
    (energies.RBM(3, centered=True), np.uint8),
    (energies.RBM(3), np.float16),
    (energies.BinaryRBM(3), np.uint8),
    (energies.MLP((3,), confinement=0.5), np.uint8),
    (energies.MLP((3,), confinement=0.5), np.float16),
    (energies.ConvNet((2,), (3,), (2,), reference_sigma=9.0), np.uint8),
    (energies.ConvNet((2,), (3,), (2,), reference_sigma=9.0), np.float16),
    (energies.Autoencoder(((2, 3, 2, 1),), norm='none'), np.uint8),
    (energies.Discriminator((2,), norm='none'), np.float16),
    (energies.MultiModal((2,), 3, 2), np.uint8),
  )
  def test_the_answer_is_that_of_floats(self, module, dtype):
    # |x|^2 is beyond both a byte and a half.
    x = np.random.default_rng(0).integers(150, 256, (2, 4, 4, 1)).astype(dtype)
    exact = jnp.asarray(x, jnp.float32)
    energy = learners.create(
      jax.random.key(0), module, optax.sgd(1.0), 0.5 * exact
    )
    evaluate = lambda x: (
      energies.value(energy, energy.params, x),
      module.apply(energy.params, x),
      energies.score(energy, x),
    )
    value, called, score = jax.jit(evaluate)(x)
    expected, _, expected_score = jax.jit(evaluate)(exact)
    self.assertEqual(value.dtype, jnp.float32)
    for found in (value, called):
      np.testing.assert_allclose(found, expected, rtol=1e-5)
    # Like the points, in whose dtype it is rounded.
    self.assertEqual(score.dtype, dtypes.floating(x).dtype)
    rtol = max(1e-4, jnp.finfo(score.dtype).eps)
    np.testing.assert_allclose(score, expected_score, rtol=rtol, atol=1e-5)
    if hasattr(module, 'gibbs'):
      moved = energy.apply_fn(
        energy.params, jax.random.key(1), x, 1, method='gibbs'
      )
      self.assertEqual((moved.shape, moved.dtype), (x.shape, jnp.float32))

  @parameterized.parameters(np.int8, np.float16, bool)
  def test_experts(self, dtype):
    logits = np.array([[-128, 3], [100, 0]]).astype(dtype)
    exact = jnp.asarray(logits, jnp.float32)
    for function in (energies.expert_energy, energies.expert_entropy):
      np.testing.assert_allclose(
        function(logits), function(exact), rtol=1e-6, atol=1e-7
      )

  def test_chains_of_bytes_move(self):
    energy = learners.create(
      jax.random.key(0), energies.MLP((3,)), optax.sgd(1.0), jnp.ones((2, 3))
    )
    x = np.array([[0, 1, 3], [2, 5, 250]], np.uint8)
    run = lambda x: energies.chain(energy, jax.random.key(1), x, num_steps=2)
    found, expected = run(x), run(x.astype(np.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


class BatchTest(parameterized.TestCase):
  @parameterized.parameters(
    ('autoencoder', 'batch', ('axis_name', 'rng')),
    ('autoencoder', 'layer', ('rng',)),
    ('autoencoder', 'none', ('rng',)),
    ('joint', 'batch', ('axis_name', 'rng')),
    ('joint', 'none', ('rng',)),
    ('discriminator', 'batch', ('axis_name',)),
    ('discriminator', 'layer', ()),
  )
  def test_takes_what_it_needs(self, kind, norm, takes):
    energy = _energy(kind, norm)
    self.assertEqual(learners.keywords(energy), takes)
    self.assertEqual((energy.input_shape, energy.batch_size), ((8, 8, 2), 8))
    x, condition = _images(), () if kind == 'autoencoder' else (_labels(),)
    changed = x.at[1:].add(_images(7, seed=1))
    call = jax.jit(lambda x: energy.apply_fn(energy.params, x, *condition))
    self.assertEqual(learners.mixes(energy), 'axis_name' in takes)
    self.assertEqual(call(x)[0] != call(changed)[0], learners.mixes(energy))

  def test_other_energies_take_nothing(self):
    self.assertEqual(learners.keywords(_rbm()[0]), ())

  @parameterized.parameters('batch', 'layer', 'none')
  def test_pairs(self, norm):
    energy = _energy('discriminator', norm)
    data, samples, y = _images(seed=1), 2 * _images(seed=2) + 1, _labels()
    run = lambda joint: jax.jit(
      lambda params: energies.pair(
        energy, params, data, samples, y, joint=joint
      )
    )(energy.params)
    joint, apart = np.concatenate(run(True)), np.concatenate(run(False))
    whole = _call(
      energy, np.concatenate([data, samples]), np.concatenate([y, y])
    )
    np.testing.assert_allclose(joint, whole, rtol=1e-5, atol=1e-5)
    halves = [_call(energy, half, y) for half in (data, samples)]
    np.testing.assert_allclose(
      apart, np.concatenate(halves), rtol=1e-5, atol=1e-5
    )
    difference = np.min(np.abs(joint - apart))
    if norm == 'batch':
      self.assertGreater(difference, 1e-3)
    else:
      np.testing.assert_allclose(joint, apart, rtol=1e-5, atol=1e-5)

  @parameterized.parameters(True, False)
  def test_pairs_of_a_method_and_their_masks(self, joint):
    energy, x = _energy('joint', 'none'), _images(seed=1)
    run = lambda rng, method: energies.pair(
      energy, energy.params, x, x, joint=joint, rng=rng, method=method
    )
    run = jax.jit(run, static_argnums=1)
    first, second = run(None, 'logits')
    np.testing.assert_allclose(first, second, atol=1e-6)
    np.testing.assert_allclose(
      first, _call(energy, x, method='logits'), atol=1e-6
    )
    # The two halves are the same images: rows of one batch under masks of their own,
    # or two batches of one function.
    first, second = run(jax.random.key(1), 'reconstruction_error')
    dropped = np.min(np.abs(first - run(None, 'reconstruction_error')[0]))
    self.assertGreater(dropped, 1e-5)
    if joint:
      self.assertGreater(np.min(np.abs(first - second)), 1e-5)
    else:
      np.testing.assert_array_equal(first, second)

  @parameterized.parameters('batch', 'none')
  def test_score_in_company(self, norm):
    energy = _energy('discriminator', norm)
    x, normalized_with, y = _images(seed=1), 2 * _images(seed=2), _labels()

    @jax.jit
    def results(x):
      def literal(x):
        rows = jnp.concatenate([normalized_with, x])
        twice = jnp.concatenate([y, y])
        return jnp.sum(energy.apply_fn(energy.params, rows, twice)[8:])

      total = lambda x: jnp.sum(energy.apply_fn(energy.params, x, y))
      return (
        energies.score(energy, x, y, normalized_with=normalized_with),
        energies.score(energy, x, y),
        -jax.grad(literal)(x),
        -jax.grad(total)(x),
      )

    within, alone, expected_within, expected = results(x)
    np.testing.assert_allclose(within, expected_within, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(alone, expected, rtol=1e-4, atol=1e-5)
    if norm == 'batch':
      self.assertGreater(np.max(np.abs(within - alone)), 0.01)
    else:
      np.testing.assert_allclose(within, alone, rtol=1e-4, atol=1e-5)

  def test_score_under_dropout(self):
    energy, x = _energy('autoencoder', 'none'), _images(2)
    score = jax.jit(lambda rng: energies.score(energy, x, rng=rng))
    total = lambda x: (
      -jnp.sum(energy.apply_fn(energy.params, x, rng=jax.random.key(1)))
    )
    first = score(jax.random.key(1))
    np.testing.assert_allclose(first, jax.jit(jax.grad(total))(x), atol=1e-5)
    self.assertGreater(np.max(np.abs(first - score(jax.random.key(2)))), 0.01)

  @parameterized.parameters(True, False)
  def test_contrast_of_a_mixing_energy(self, joint):
    energy = _energy('discriminator')
    data, samples, y = _images(seed=1), 2 * _images(seed=2) + 1, _labels()

    def literal(params):
      run = lambda *args: energy.apply_fn(params, *args)
      if joint:
        both = run(jnp.concatenate([data, samples]), jnp.concatenate([y, y]))
        return jnp.mean(both[:8]) - 0.3 * jnp.mean(both[8:])
      return jnp.mean(run(data, y)) - 0.3 * jnp.mean(run(samples, y))

    loss_fn = energies.contrast(
      energy, data, samples, y, negative_weight=0.3, joint=joint
    )
    results = jax.jit(
      lambda params: (
        jax.value_and_grad(loss_fn, has_aux=True)(params),
        jax.value_and_grad(literal)(params),
      )
    )
    (((value, metrics), gradient), literals) = results(energy.params)
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
      (value, gradient),
      literals,
    )
    self.assertAlmostEqual(
      metrics['energy/data'] - 0.3 * metrics['energy/samples'], value, 5
    )

  @parameterized.parameters(
    ('vmap', 'discriminator'), ('pmap', 'discriminator'), ('shard_map', 'joint')
  )
  def test_four_devices_are_one_batch(self, mode, kind):
    energy = _energy(kind)
    rows = _images(seed=1), 2 * _images(seed=2) + 1, _labels()
    score, (params, metrics) = _over_devices(
      mode, _score_and_step, energy, *rows
    )
    expected_score, (expected, expected_metrics) = _JITTED(energy, *rows)
    scale = np.max(np.abs(expected_score))
    np.testing.assert_allclose(
      score, expected_score, rtol=1e-4, atol=1e-5 * scale
    )
    for name, value in expected_metrics.items():
      np.testing.assert_allclose(metrics[name], value, rtol=1e-5)
    # The ratio of the gradients, which sgd(1.0) subtracted, by least squares.
    for start, actual, whole in zip(
      *map(jax.tree.leaves, (energy.params, params, expected)), strict=True
    ):
      gradient = start - whole
      ratio = jnp.vdot(start - actual, gradient) / jnp.vdot(gradient, gradient)
      self.assertAlmostEqual(ratio, 1, delta=1e-4)
      np.testing.assert_allclose(
        start - actual, gradient, atol=1e-4 * np.max(np.abs(gradient))
      )


def _score_and_step(energy, data, samples, y, axis_name=None):
  score = energies.score(
    energy, samples, y, normalized_with=data, axis_name=axis_name
  )
  loss_fn = energies.contrast(
    energy, data, samples, y, negative_weight=0.3, axis_name=axis_name
  )
  moved, metrics = learners.descend(energy, loss_fn, axis_name=axis_name)
  return score, (moved.params, metrics)


_JITTED = jax.jit(_score_and_step)  # compiled once for the modes


def _over_devices(mode, body, learner, *rows):
  """Returns (split, whole) results of the body, over four devices, rejoined."""
  body = functools.partial(body, axis_name=_AXIS)
  if mode == 'shard_map':
    split, whole = PartitionSpec(_AXIS), PartitionSpec()
    run = jax.shard_map(
      body,
      mesh=Mesh(np.array(jax.devices()[:4]), (_AXIS,)),
      in_specs=(whole, *[split] * len(rows)),
      out_specs=(split, whole),
    )
    return jax.jit(run)(learner, *rows)
  mapped = jax.pmap if mode == 'pmap' else jax.vmap
  run = mapped(body, axis_name=_AXIS, in_axes=(None, *[0] * len(rows)))
  rows = [x.reshape(4, -1, *x.shape[1:]) for x in rows]
  split, whole = (jax.jit(run) if mode == 'vmap' else run)(learner, *rows)
  join = lambda x: x.reshape(-1, *x.shape[2:])
  return jax.tree.map(join, split), jax.tree.map(lambda x: x[0], whole)


if __name__ == '__main__':
  absltest.main()
