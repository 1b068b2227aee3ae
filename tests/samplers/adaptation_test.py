"""Tests of steps found in a warm-up, against laws of acceptance that are known."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
from flax import struct
import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from stein_jax import build
from stein_jax import samplers
from stein_jax.samplers import _steps
from tests.samplers import literal


def _log_density(x):
  return -0.5 * jnp.sum(x**2, -1)


_NORMAL = samplers.target(_log_density)


@struct.dataclass
class Falling:
  """A chain that accepts at exp(-step_size) times the mean of its points."""

  step_size: float

  def __call__(self, rng, x, target):
    del rng, target
    return x, {'acceptance': jnp.mean(x) * jnp.exp(-self.step_size)}


def dual_averaging(step_size, rate_of, num, wanted):
  """Returns what Hoffman and Gelman's recursion finds, in their symbols."""
  mu, gap, log_step, log_average = (
    np.log(10 * step_size),
    0,
    np.log(step_size),
    0,
  )
  for t in range(1, num + 1):
    a = rate_of(np.exp(log_step))
    gap = (1 - 1 / (t + 10)) * gap + (wanted - a) / (t + 10)
    log_step = mu - np.sqrt(t) / 0.05 * gap
    log_average = t**-0.75 * log_step + (1 - t**-0.75) * log_average
  return np.exp(log_average)


class LawsTest(parameterized.TestCase):
  def test_the_ratio_on_a_gaussian_is_that_of_squared_scores(self):
    # log p(y) q(y, x) / (p(x) q(x, y)) = (delta^2 / 8) (|s(x)|^2 - |s(y)|^2) for any
    # precision: of a step that is accepted both ends are known.
    root = jax.random.normal(jax.random.key(0), (3, 3))
    precision = root @ root.T
    score = lambda x: -x @ precision
    evaluate = functools.partial(
      _steps.evaluate, lambda x: 0.5 * jnp.sum(x * score(x), -1)
    )
    x = 2 * jax.random.normal(jax.random.key(1), (200, 3))
    there, accept, rate = _steps.mala_step(
      jax.random.key(2), evaluate(x), evaluate, 0.8
    )
    square = lambda x: jnp.sum(score(x) ** 2, -1)
    expected = jnp.exp(0.8**2 / 8 * (square(x) - square(there[0])))
    moved = np.asarray(accept)
    self.assertBetween(moved.mean(), 0.2, 0.9)
    np.testing.assert_allclose(
      rate[moved], np.minimum(expected, 1)[moved], rtol=1e-4
    )

  @parameterized.parameters((1.125, 10), (0.766, 100), (0.544, 784))
  def test_the_rate_on_a_normal_is_exact(self, step_size, dims):
    num = 5000 if dims < 784 else 2000
    x = jax.random.normal(jax.random.key(0), (num, dims))
    chain = samplers.MALA(step_size)
    run = jax.jit(lambda x: chain(jax.random.key(1), x, _NORMAL))
    _, found = run(x)
    exact = literal.mala_acceptance(step_size, dims)
    np.testing.assert_allclose(
      found['acceptance'], exact, rtol=0, atol=4 * (0.25 / num) ** 0.5
    )
    # In many dimensions the rate is 2 Phi(-delta^3 sqrt(d) / 8).
    limit = 2 * special.ndtr(-(step_size**3) * dims**0.5 / 8)
    self.assertAlmostEqual(exact, limit, delta=0.5 * dims ** (-1 / 3))


class AdaptTest(parameterized.TestCase):
  @parameterized.parameters((0.1, 0.574), (3.0, 0.574), (0.5, 0.8))
  def test_the_recursion_is_that_of_the_paper(self, step_size, rate):
    chain, x = samplers.adapt(
      jax.random.key(0),
      jnp.ones((2, 1)),
      _NORMAL,
      Falling(step_size),
      num_warmup=30,
      acceptance=rate,
    )
    expected = dual_averaging(step_size, lambda d: np.exp(-d), 30, rate)
    np.testing.assert_allclose(chain.step_size, expected, rtol=1e-4)
    np.testing.assert_array_equal(x, np.ones((2, 1)))

  @parameterized.parameters(
    (0.02, 100, 0.574), (5.0, 100, 0.574), (0.1, 10, 0.574), (0.1, 100, 0.8)
  )
  def test_mala_accepts_as_it_should(self, first, dims, rate):
    chain = samplers.Adapted(
      samplers.MALA(first, num_steps=20), acceptance=rate
    )
    x = jax.random.normal(jax.random.key(0), (64, dims))
    run = jax.jit(lambda x: chain(jax.random.key(1), x, _NORMAL))
    _, found = run(x)
    self.assertContainsSubset({'acceptance', 'step_size'}, found)
    np.testing.assert_allclose(
      found['step_size'], literal.best_mala_step(dims, rate), rtol=0.05
    )
    # A step 5 % off changes the rate by 0.06 at most; 1280 coins have error 0.014.
    self.assertAlmostEqual(float(found['acceptance']), rate, delta=0.08)

  def test_the_best_step_falls_as_the_sixth_root(self):
    for dims in (10**4, 10**6):
      self.assertAlmostEqual(
        literal.best_mala_step(dims) * dims ** (1 / 6), 1.651, delta=0.01
      )

  def test_the_chain_that_follows_is_frozen(self):
    # It is the chain that `adapt` returns, from the points that it returns.
    rng, x = jax.random.key(0), jnp.ones((20, 3))
    chain = samplers.MALA(0.1, num_steps=5)
    found, metrics = samplers.Adapted(chain, 10)(rng, x, _NORMAL)
    warmup_rng, rng = jax.random.split(rng)
    frozen, start = samplers.adapt(warmup_rng, x, _NORMAL, chain, num_warmup=10)
    self.assertEqual((frozen.num_steps, chain.step_size), (5, 0.1))
    expected, rates = frozen(rng, start, _NORMAL)
    np.testing.assert_array_equal(found, expected)
    self.assertEqual(metrics, {**rates, 'step_size': frozen.step_size})

  def test_a_flat_density_has_no_best_step(self):
    flat = samplers.target(lambda x: jnp.zeros(len(x)))
    chain, _ = samplers.adapt(
      jax.random.key(0), jnp.ones((4, 2)), flat, samplers.MALA(1.0)
    )
    self.assertTrue(np.isfinite(chain.step_size))

  def test_first_steps_under_vmap(self):
    x = jnp.ones((20, 3))
    warm_up = lambda step: (
      samplers.adapt(
        jax.random.key(0), x, _NORMAL, samplers.MALA(step), num_warmup=10
      )[0].step_size
    )
    steps = jnp.array([0.1, 1.0])
    np.testing.assert_allclose(
      jax.vmap(warm_up)(steps), list(map(warm_up, steps)), rtol=1e-5
    )

  def test_devices_find_one_step(self):
    # Points of four devices whose rates differ: their mean is that of all points.
    x = jnp.arange(8.0).reshape(4, 2, 1) / 8
    target = samplers.target(_log_density, axis_name='i')

    def warm_up(x, target=target):
      chain, _ = samplers.adapt(
        jax.random.key(0),
        x,
        target,
        Falling(0.5),
        num_warmup=20,
        acceptance=0.3,
      )
      return chain.step_size

    whole = warm_up(x.reshape(8, 1), _NORMAL)
    alone = [float(warm_up(each, _NORMAL)) for each in x]
    self.assertGreater(np.ptp(alone), 0.1)
    for mapped in (jax.vmap, jax.pmap):
      found = mapped(warm_up, axis_name='i')(x)
      np.testing.assert_allclose(found, np.full(4, whole), rtol=1e-5)
    # Its check of types holds the step to be the same on all devices.
    mesh = jax.make_mesh((4,), ('i',), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec
    found = jax.jit(
      jax.shard_map(warm_up, mesh=mesh, in_specs=spec('i'), out_specs=spec())
    )(x.reshape(8, 1))
    np.testing.assert_allclose(found, whole, rtol=1e-5)

  @parameterized.parameters(
    (jnp.bfloat16, jnp.bfloat16), (jnp.int32, jnp.float32)
  )
  def test_points_of_other_dtypes(self, dtype, expected):
    x = jnp.zeros((50, 4), dtype)
    chain = samplers.Adapted(samplers.MALA(0.1), 100)
    found, metrics = chain(jax.random.key(0), x, _NORMAL)
    self.assertEqual(found.dtype, expected)
    self.assertGreater(metrics['step_size'], 0.5)  # the best is near 1.3

  def test_a_config_names_it(self):
    chain = build.build(
      samplers, 'Adapted', chain=dict(name='MALA', step_size=0.3), num_warmup=7
    )
    self.assertEqual(chain, samplers.Adapted(samplers.MALA(0.3), 7))

  @parameterized.parameters(
    (
      samplers.Langevin(0.1),
      {},
      ValueError,
      'metrics of the chain are .*acceptance',
    ),
    (samplers.Gibbs(), {}, TypeError, 'chain is of the class Gibbs; allowed'),
    (lambda *args: args, {}, TypeError, 'chain is a function; allowed'),
    (samplers.MALA, {}, TypeError, 'chain is the class MALA'),
    (samplers.MALA(0.0), {}, ValueError, 'chain.step_size=0.0'),
    (samplers.MALA(1.0, 0), {}, ValueError, 'chain.num_steps=0'),
    (samplers.MALA(1.0), {'num_warmup': 0}, ValueError, 'num_warmup=0'),
    (samplers.MALA(1.0), {'acceptance': 1.0}, ValueError, 'acceptance=1.0'),
    (samplers.MALA(1.0), {'acceptance': 0.0}, ValueError, 'acceptance=0.0'),
  )
  def test_what_is_refused(self, chain, options, error, message):
    with self.assertRaisesRegex(error, message):
      samplers.Adapted(chain, **options)(
        jax.random.key(0), jnp.ones((3, 1)), _NORMAL
      )


if __name__ == '__main__':
  absltest.main()
