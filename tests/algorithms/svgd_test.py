"""Tests of SVGD on targets whose moments are known, or sampled at length."""

import functools
import warnings

from absl.testing import absltest
from absl.testing import parameterized
import jax
from jax import lax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from stein_jax import datasets
from stein_jax import densities
from stein_jax import kernels
from stein_jax import parallel
from stein_jax import samplers
from stein_jax import stein
from stein_jax.algorithms import svgd
from stein_jax.runs import configs
from tests import literal


def _run(
  log_density, particles, *, num_steps=1000, rate=0.1, batch=None, **hyper
):
  """Returns the particles after Adam, its rate falling to zero."""
  optimizer = optax.adam(optax.linear_schedule(rate, 0.0, num_steps))
  state = svgd.create(log_density, particles, optimizer)
  step = lambda state, _: (svgd.step(state, batch, None, **hyper)[0], None)
  run = jax.jit(lambda state: lax.scan(step, state, length=num_steps)[0])
  return _particles(run(state))


def _particles(state):
  return state.particles.params['particles']


def _gaussian(mean, precision):
  return lambda x: -0.5 * (x - mean) @ precision @ (x - mean)


def _wide(log_density):
  """Returns a log density of {'first': [2], 'second': []} as one of [3]."""
  return lambda tree: log_density(
    jnp.concatenate([tree['first'], tree['second'][None]])
  )


def _logistic(num=24, d=3):
  rng = np.random.default_rng(0)
  batch = {
    'image': rng.normal(size=(num, d)).astype(np.float32),
    'label': rng.integers(0, 2, size=num),
  }
  density = densities.logistic_regression(num)
  return density, batch, density.start(jax.random.key(0), 16, batch)


def _table(split, stride):
  """Returns all rows of the breast-cancer table, and every stride-th column."""
  source = datasets.breast_cancer(split)
  rows = source[np.arange(len(source))]
  return {'image': rows['image'][:, ::stride], 'label': rows['label']}


class StepTest(parameterized.TestCase):
  @parameterized.product(
    kernel=(kernels.RBF, kernels.IMQ), normalize=('count', 'row_sum')
  )
  def test_step_by_definition(self, kernel, normalize):
    x = jax.random.normal(jax.random.key(0), (6, 3))
    log_density = _gaussian(jnp.ones(3), jnp.diag(jnp.array([1.0, 2.0, 3.0])))
    bandwidth = kernels.median_bandwidth(x, scale=2.0)
    profile = kernel(bandwidth)
    k = lambda a, b: profile(jnp.sum((a - b) ** 2))

    term = lambda y, at: (
      k(y, at) * jax.grad(log_density)(y) + jax.grad(k)(y, at)
    )
    pairs = lambda f: jax.jit(jax.vmap(jax.vmap(f, (0, None)), (None, 0)))(x, x)
    total = np.sum(pairs(k), 1)[:, None] if normalize == 'row_sum' else len(x)
    direction = np.sum(pairs(term), 1) / total
    same = [kernel(kernels.Median(2.0))]
    if (kernel, normalize) == (kernels.RBF, 'count'):
      same += [
        kernel(kernels.Median(2 / np.log(7), log='none')),
        profile,
        lambda sq_dist: profile(sq_dist),  # a plain function is a kernel too
      ]
    for given in same:
      direction_of = stein.SVGD(given, normalize=normalize)
      state, metrics = jax.jit(
        functools.partial(svgd.step, direction=direction_of)
      )(svgd.create(log_density, x, optax.sgd(0.1)), None, None)
      np.testing.assert_allclose(
        _particles(state), x + 0.1 * direction, atol=1e-6
      )
      self.assertAlmostEqual(
        metrics['particles/move'], np.mean(np.sum(direction**2, 1)), places=5
      )
      self.assertEqual(state.step, 1)

  @parameterized.parameters(
    (stein.SVGD(),),
    (stein.GradientFreeSVGD(),),  # which needs no score
  )
  def test_logs_a_discrepancy_of_some_particles(self, direction):
    x = np.random.default_rng(0).normal(1, 2, (9, 3)).astype(np.float32)
    log_density = _gaussian(jnp.ones(3), jnp.diag(jnp.array([1.0, 2.0, 3.0])))
    state = svgd.create(log_density, x, optax.sgd(0.1))
    ksd = stein.KSD(kernels.IMQ(2.0), max_points=5)
    step = functools.partial(svgd.step, direction=direction)
    _, metrics = jax.jit(functools.partial(step, ksd=ksd))(state, None, None)
    u = literal.imq_stein_matrix(x[:5], (1 - x[:5]) * [1.0, 2.0, 3.0], 2.0)
    expected = (u.sum() - np.trace(u)) / 5 / 4
    np.testing.assert_allclose(metrics['particles/ksd'], expected, rtol=1e-5)
    # By default nothing more is logged, or computed.
    _, before = jax.jit(step)(state, None, None)
    self.assertEqual(metrics.keys() - before.keys(), {'particles/ksd'})

  def test_a_flag_logs_the_discrepancy(self):
    config = configs.complete(
      dict(algorithm='svgd', step=dict(ksd=dict(max_points=4)))
    )
    self.assertEqual(config.step.ksd.kernel.bandwidth, 1.0)
    x = jnp.arange(8.0).reshape(8, 1)
    state = svgd.create(lambda x: -jnp.sum(x**2), x, optax.sgd(0.1))
    _, metrics = configs.step(config)(state, None, None)
    expected = stein.KSD(max_points=4)(x, -2 * x)
    np.testing.assert_allclose(metrics['particles/ksd'], expected, rtol=1e-6)

  @parameterized.parameters(
    (stein.KSD(max_points=1), ValueError, r'ksd\.max_points=1 must be'),
    (stein.KSD(kernels.IMQ(), 4), ValueError, 'ksd.* is a rule'),
    (True, TypeError, 'ksd is the bool True; allowed: a value, such as'),
  )
  def test_refuses_what_is_no_discrepancy(self, ksd, error, message):
    state = svgd.create(lambda x: jnp.sum(x), jnp.ones((4, 3)), optax.sgd(0.1))
    with self.assertRaisesRegex(error, message):
      svgd.step(state, None, None, ksd=ksd)

  def test_particles_may_be_trees(self):
    x = jax.random.normal(jax.random.key(0), (8, 3))
    log_density = _gaussian(
      jnp.arange(3.0), jnp.diag(jnp.array([1.0, 2.0, 3.0]))
    )
    flat = _run(log_density, x, num_steps=5)
    tree = _run(
      _wide(log_density), {'first': x[:, :2], 'second': x[:, 2]}, num_steps=5
    )
    np.testing.assert_allclose(tree['first'], flat[:, :2], atol=1e-5)
    np.testing.assert_allclose(tree['second'], flat[:, 2], atol=1e-5)
    self.assertGreater(np.max(np.abs(flat - x)), 0.1)

  def test_minibatches_are_unbiased(self):
    density, batch, start = _logistic()
    state = svgd.create(density.log_density, start, optax.sgd(1e-2))
    step = jax.jit(svgd.step)
    move = lambda batch: jax.tree.map(
      jnp.subtract, _particles(step(state, batch, None)[0]), start
    )
    # phi is linear in the scores; the kernel does not see the data.
    parts = [
      move({name: rows[i::3] for name, rows in batch.items()}) for i in range(3)
    ]
    mean = jax.tree.map(lambda *p: sum(p) / 3, *parts)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
      mean,
      move(batch),
    )
    self.assertGreater(
      np.max(np.abs(parts[0]['weights'] - mean['weights'])), 1e-3
    )

  @parameterized.parameters(True, False)
  def test_particles_split_over_devices(self, data):
    self._assert_split('shard_map', data)

  @parameterized.parameters(True, False)
  @pytest.mark.slow
  def test_particles_split_by_pmap(self, data):
    self._assert_split('pmap', data)

  def test_noise_is_one_over_devices(self):
    direction = stein.NoisySVGD(kernels.RBF(2.0), step_size=1e-2)
    self._assert_split('shard_map', True, direction=direction)

  def test_discrepancy_is_of_all_devices(self):
    # Of all 16 particles, of which each of the devices has 4.
    self._assert_split('shard_map', True, ksd=stein.KSD(max_points=16))

  def _assert_split(self, mode, data, **options):
    density, batch, start = _logistic()
    if not data:
      density, batch = densities.two_modes(), None
      start = density.start(jax.random.key(0), 16, None)

    def run(mode):
      state = svgd.create(
        density.log_density,
        jax.tree.map(jnp.copy, start),
        optax.sgd(1e-2, momentum=0.9),
      )
      spec = parallel.partition(state, svgd.SPLIT)
      state = parallel.replicate(state, spec)
      step = functools.partial(svgd.step, **options)
      step = parallel.compile_step(step, mode, spec=spec)
      for _ in range(3):
        state, metrics = step(state, batch, jax.random.key(0))
      return jax.tree.map(np.asarray, (_particles(state), metrics, state.step))

    actual, expected = run(mode), run('jit')
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
      actual,
      expected,
    )

  @parameterized.parameters(
    np.uint8, np.int8, np.int32, bool, np.float16, jnp.bfloat16, np.float64
  )
  def test_particles_of_any_dtype(self, dtype):
    numbers = np.array([[0, 1], [1, 1], [0, 0], [1, 0], [1, 1]], dtype)
    log_density = lambda x: -0.5 * jnp.sum((x - 3) ** 2)

    def run(particles):
      state = svgd.create(log_density, particles, optax.adam(0.1))
      step = lambda state, _: (svgd.step(state, None, None)[0], None)
      return _particles(lax.scan(step, state, length=2)[0])

    with warnings.catch_warnings():
      warnings.simplefilter('error')
      end, expected = run(numbers), run(np.float32(numbers))
    floating = jnp.issubdtype(dtype, jnp.floating) and dtype != np.float64
    self.assertEqual(end.dtype, dtype if floating else np.float32)
    eps = float(jnp.finfo(end.dtype).eps)
    np.testing.assert_allclose(np.float32(end), expected, rtol=0, atol=4 * eps)

  def test_refuses_what_is_no_density_of_a_particle(self):
    x, adam = jnp.ones((4, 3)), optax.adam(0.1)
    with self.assertRaisesRegex(
      ValueError, r'log_density has shape \(3,\).*\(\)'
    ):
      svgd.create(lambda x: -x, x, adam)
    # Of one that takes a batch, at the step.
    state = svgd.create(lambda x, batch: -x[:1], x, adam)
    with self.assertRaisesRegex(
      ValueError, r'log_density has shape \(1,\).*\(\)'
    ):
      svgd.step(state, {'image': x}, None)
    # An integer has no gradient. Where no score is asked for it is a value.
    state = svgd.create(lambda x: 0, x, adam)
    with self.assertRaisesRegex(TypeError, 'log_density is the int 0; allowed'):
      svgd.step(state, None, None)
    svgd.step(state, None, None, direction=stein.GradientFreeSVGD())

  @parameterized.parameters(
    ({'a': np.ones((4, 2)), 'b': np.ones(3)},),
    ({},),
    (np.ones((0, 2)),),
    (1.0,),
  )
  def test_refuses_what_are_no_particles(self, particles):
    with self.assertRaisesRegex(ValueError, r'particles.*\[n, ...\]'):
      svgd.create(lambda x: 0.0, particles, optax.adam(0.1))

  def test_a_density_of_many_points_is_told_of_one(self):
    of_many = lambda x, *batch: -jnp.sum(x**2, 1)
    x, adam = jnp.ones((4, 3)), optax.adam(0.1)
    message = r'called with one position, of shape \(3,\).*axis 1 is out'
    with self.assertRaisesRegex(ValueError, message) as caught:
      svgd.create(lambda x: of_many(x), x, adam)
    self.assertIsNotNone(caught.exception.__cause__)
    state = svgd.create(of_many, x, adam)
    with self.assertRaisesRegex(ValueError, message):
      svgd.step(state, {'image': x}, None)

  @parameterized.parameters(
    (dict(optimizer=0.1), 'optimizer is the float 0.1; allowed: one of optax'),
    (dict(optimizer=optax.adam), 'optimizer is the function adam'),
    (dict(optimizer=dict(name='adam')), 'optimizer is of the class dict'),
    (dict(log_density_fn=3), 'log_density is the int 3; allowed: a function'),
  )
  def test_refuses_what_are_no_parts(self, parts, message):
    parts = dict(log_density_fn=jnp.sum, optimizer=optax.sgd(0.1)) | parts
    with self.assertRaisesRegex(TypeError, message):
      svgd.create(particles=jnp.ones((4, 3)), **parts)

  def test_refuses_a_class_as_direction_and_a_number_as_key(self):
    state = svgd.create(lambda x: jnp.sum(x), jnp.ones((4, 3)), optax.sgd(0.1))
    with self.assertRaisesRegex(TypeError, 'direction is the class SVGD'):
      svgd.step(state, None, None, direction=stein.SVGD)
    with self.assertRaisesRegex(TypeError, 'rng is the int 0'):
      svgd.sample(state, 0, 3)

  def test_complex_particles_are_refused(self):
    with self.assertRaisesRegex(TypeError, 'complex'):
      svgd.create(lambda x: 0.0, np.ones((4, 2), complex), optax.adam(0.1))

  def test_nan_stays_nan(self):
    x = jnp.ones((4, 2)).at[1, 0].set(jnp.nan)
    state = svgd.create(lambda x: -jnp.sum(x**2), x, optax.sgd(0.1))
    after, metrics = jax.jit(svgd.step)(state, None, None)
    self.assertTrue(np.all(np.isnan(_particles(after))))
    self.assertTrue(np.isnan(metrics['particles/move']))

  def test_init_and_sample(self):
    config = ml_collections.ConfigDict(
      dict(
        density=dict(name='two_modes'),
        num_particles=10,
        optimizer=dict(name='sgd', learning_rate=0.1),
      )
    )
    state = svgd.init(jax.random.key(0), config, None)
    particles = _particles(state)
    self.assertEqual(particles.shape, (10, 1))
    for num in (1, 7, 10):
      drawn = svgd.sample(state, jax.random.key(1), num)
      self.assertEqual(drawn.shape, (num, 1))
      self.assertLen(np.unique(drawn), num)
      self.assertContainsSubset(np.ravel(drawn), np.ravel(particles))
    self.assertEqual(svgd.sample(state, jax.random.key(1), 25).shape, (25, 1))
    with self.assertRaisesRegex(ValueError, 'condition'):
      svgd.sample(state, jax.random.key(1), 1, condition=jnp.zeros((1, 2)))


class PosteriorTest(parameterized.TestCase):
  def test_two_modes(self):
    density, num = densities.two_modes(), 50
    x = np.ravel(
      _run(
        density.log_density,
        density.start(jax.random.key(0), num, None),
        num_steps=2000,
        rate=0.4,
      )
    )
    # E x = 2/3, E x^2 = 5; E cos(wx + b) = exp(-w^2 / 2) cos(wm + b) in each mode.
    w, b = np.random.default_rng(0).uniform([0, 0], [2, 2 * np.pi], (20, 2)).T
    cosines = (
      np.exp(-0.5 * w**2) * (np.cos(b - 2 * w) + 2 * np.cos(b + 2 * w)) / 3
    )
    # Better than independent draws [LW16 fig 2]: within half their standard error,
    # Var x^2 = E x^4 - 25 = (16 + 24 + 3) - 25.
    error = 0.5 / np.sqrt(num)
    self.assertAlmostEqual(np.mean(x), 2 / 3, delta=error * (5 - 4 / 9) ** 0.5)
    self.assertAlmostEqual(np.mean(x**2), 5, delta=error * 18**0.5)
    np.testing.assert_allclose(
      np.mean(np.cos(x[:, None] * w + b), 0), cosines, atol=error * 0.5**0.5
    )

  def test_authors_gaussian(self):
    mean = np.array([-0.6871, 0.8010])
    precision = np.array([[0.2260, 0.1652], [0.1652, 0.6779]])
    start = jax.random.normal(jax.random.key(0), (10, 2))
    x = _run(_gaussian(jnp.asarray(mean), jnp.asarray(precision)), start)
    np.testing.assert_allclose(np.mean(x, 0), mean, atol=1e-3)

  @pytest.mark.slow
  def test_fifty_dimensions(self):
    d, num = 50, 50
    mean = jnp.linspace(-2, 2, d)
    start = jax.random.normal(jax.random.key(0), (num, d))
    x = _run(_gaussian(mean, jnp.eye(d)), start)
    np.testing.assert_allclose(np.mean(x, 0), mean, atol=1e-3)
    # The variance v is far below 1. Between any two particles |x - y|^2 = 2 d v
    # nearly, so h = 2 d v / log(n + 1), k = 1 / (n + 1), and at a distance r from
    # the mean the repulsion (2 / h) k n r = r log(n + 1) / (d v), up to
    # n / (n + 1), balances the drive r of the particle's own score.
    expected = np.log(num + 1) / d
    np.testing.assert_allclose(np.mean(np.var(x, 0)), expected, rtol=0.1)

  def _agreement(self, stride, num_particles, num_blocks):
    """Returns SVGD against long MALA chains on every stride-th feature.

    The largest distances of the means of the weights and of the predictions, in
    posterior standard deviations; the mean distance of the predictions; and the
    ratios of the weights' standard deviations.
    """
    train, test = _table('train', stride), _table('test', stride)
    density = densities.logistic_regression(len(train['label']))
    log_density = jax.vmap(
      lambda position: density.log_density(position, train)
    )

    def predict(position):
      logits = (
        test['image'] @ position['weights'][:-1] + position['weights'][-1]
      )
      return jax.nn.sigmoid(logits)

    @jax.jit
    def mala(rng):
      x = density.start(rng, 16, train)
      for i, step_size in enumerate((0.03, 0.06)):  # steep at the start
        x, _ = samplers.mala(
          jax.random.fold_in(rng, i),
          x,
          log_density,
          step_size=step_size,
          num_steps=1000,
        )

      def block(x, rng):
        x, accept = samplers.mala(
          rng, x, log_density, step_size=0.2, num_steps=20
        )
        return x, (x, accept)

      _, (draws, accepts) = lax.scan(
        block, x, jax.random.split(rng, num_blocks)
      )
      join = lambda leaf: leaf.reshape(-1, *leaf.shape[2:])
      return jax.tree.map(join, draws), jnp.mean(accepts)

    draws, accepts = mala(jax.random.key(0))
    self.assertBetween(accepts, 0.5, 0.95)
    particles = _run(
      density.log_density,
      density.start(jax.random.key(1), num_particles, train),
      batch=train,
    )
    ours, long = (
      {'weights': x['weights'], 'predictions': jax.vmap(predict)(x)}
      for x in (particles, draws)
    )
    distance = {
      name: np.abs(np.mean(ours[name], 0) - np.mean(long[name], 0))
      for name in ours
    }
    farthest = [np.max(distance[name] / np.std(long[name], 0)) for name in ours]
    ratio = np.std(ours['weights'], 0) / np.std(long['weights'], 0)
    return *farthest, np.mean(distance['predictions']), ratio

  @pytest.mark.slow
  def test_logistic_regression(self):
    weights, predictions, _, ratio = self._agreement(
      stride=8, num_particles=50, num_blocks=200
    )
    # Means are at least as good as those of independent draws: two of their
    # standard errors. Six dimensions already cost some of the spread.
    self.assertLess(weights, 2 / 50**0.5)
    self.assertLess(predictions, 2 / 50**0.5)
    self.assertBetween(np.min(ratio), 0.7, 1)

  @pytest.mark.slow
  def test_logistic_regression_on_all_features(self):
    weights, _, mean_distance, ratio = self._agreement(
      stride=1, num_particles=100, num_blocks=400
    )
    # In 32 dimensions the particles huddle, as above; without the weights'
    # variance |w|^2 is too small, the precision too large, the mean shrunk.
    self.assertLess(weights, 1.5)
    self.assertLess(mean_distance, 0.05)
    self.assertLess(np.max(ratio), 0.5)


class NumPyroTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.numpyro = pytest.importorskip('numpyro')
    # NumPyro itself promotes ranks.
    self.enter_context(jax.numpy_rank_promotion('allow'))

  def test_model_log_density(self):
    numpyro, dist = self.numpyro, self.numpyro.distributions
    data = (
      np.random.default_rng(0).normal([1.0, -2.0], size=(20, 2)).astype('f')
    )

    def model(batch):
      location = numpyro.sample(
        'location', dist.Normal(0, 3).expand([2]).to_event(1)
      )
      numpyro.sample('y', dist.Normal(location, 1).to_event(1), obs=batch)

    def log_density(position, batch):
      return numpyro.infer.util.log_density(model, (batch,), {}, position)[0]

    start = {'location': jax.random.normal(jax.random.key(0), (50, 2))}
    x = _run(log_density, start, num_steps=500, batch=data)['location']
    # Conjugate: precision n + 1 / 9, mean sum y / precision.
    precision = 20 + 1 / 9
    error = 1 / np.sqrt(50 * precision)  # of independent draws
    np.testing.assert_allclose(
      np.mean(x, 0), np.sum(data, 0) / precision, atol=0.5 * error
    )
    np.testing.assert_allclose(
      np.var(x, 0) * precision, 1, atol=4 * (2 / 50) ** 0.5
    )

  def test_constrained_model(self):
    numpyro, dist = self.numpyro, self.numpyro.distributions
    counts = np.array([3, 1, 4, 1, 5])

    def model():
      rate = numpyro.sample('rate', dist.Gamma(2.0, 1.0))
      numpyro.sample('counts', dist.Poisson(rate), obs=counts)

    info = numpyro.infer.util.initialize_model(jax.random.key(0), model)
    start = jax.tree.map(
      lambda z: z + jax.random.normal(jax.random.key(1), (50, *jnp.shape(z))),
      info.param_info.z,
    )
    x = _run(lambda z: -info.potential_fn(z), start, num_steps=500)
    rate = np.asarray(jax.vmap(info.postprocess_fn)(x)['rate'])
    # Conjugate: Gamma(2 + sum, 1 + n) = Gamma(16, 6), of mean 16/6, spread 4/6.
    # Half the standard error of independent draws; the spread's is 1 / sqrt(2 n).
    self.assertAlmostEqual(np.mean(rate), 16 / 6, delta=0.5 * (4 / 6) / 50**0.5)
    self.assertAlmostEqual(np.std(rate) / (4 / 6), 1, delta=1 / 100**0.5)


if __name__ == '__main__':
  absltest.main()
