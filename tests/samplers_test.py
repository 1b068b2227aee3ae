"""Tests of samplers on densities whose moments are known."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from stein_jax import build
from stein_jax import collectives
from stein_jax import parallel
from stein_jax import samplers
from stein_jax.samplers import tempering

_NUM = 20000
# The standard normal, on one array or on a tree of them.
_score = functools.partial(jax.tree.map, jnp.negative)


def _log_density(x):
  return sum(
    -0.5 * jnp.sum(leaf.reshape(len(leaf), -1) ** 2, 1)
    for leaf in jax.tree.leaves(x)
  )


def _assert_variance(x, variance):
  """Mean 0 and the variance, within 4 standard errors of independent normals."""
  x = np.asarray(x, np.float64)
  error = (variance / x.size) ** 0.5
  np.testing.assert_allclose(np.mean(x), 0, rtol=0, atol=4 * error)
  # The variance of n normals has standard error variance sqrt(2 / n).
  np.testing.assert_allclose(np.var(x), variance, rtol=4 * (2 / x.size) ** 0.5)


# Their numbers are arguments, so that one program serves many of them.
_long_langevin = jax.jit(
  functools.partial(samplers.langevin, score_fn=_score, num_steps=80)
)
_long_mala = jax.jit(
  functools.partial(samplers.mala, log_density_fn=_log_density, num_steps=80)
)


class LangevinTest(chex.TestCase):
  def test_of_a_step_size_of_8_bits(self):
    x = jnp.ones((2, 1))
    found = samplers.langevin(
      jax.random.key(0),
      x,
      jnp.negative,
      step_size=np.uint8(20),
      num_steps=1,
      noise=False,
    )
    np.testing.assert_array_equal(found, 1 - 200 * x)

  # x' = (1 - delta^2 / 2) x + sigma xi rests where v = (1 - delta^2 / 2)^2 v
  # + sigma^2: v = (sigma / delta)^2 / (1 - delta^2 / 4).
  @parameterized.named_parameters(
    ('small', 0.5, {}, 1 / (1 - 0.25 / 4)),
    ('large', 1.0, {}, 4 / 3),
    ('larger', 1.5, {}, 1 / (1 - 2.25 / 4)),
    ('temperature', 1.0, {'temperature': 0.25}, 1 / 3),
    ('decoupled', 1.0, {'noise_scale': 0.5}, 1 / 3),
    ('both', 1.0, {'noise_scale': 2.0, 'temperature': 0.25}, 4 / 3),
  )
  def test_stationary_variance(self, step_size, keywords, variance):
    x = _long_langevin(
      jax.random.key(0), jnp.ones(_NUM), step_size=step_size, **keywords
    )
    _assert_variance(x, variance)

  @chex.all_variants
  @parameterized.named_parameters(
    ('noiseless', {'noise': False}),
    ('cold', {'temperature': 0.0}),
    ('scaled', {'noise_scale': 0.0}),
  )
  def test_without_noise_halves(self, keywords):
    # delta = 1 on s(x) = -x: x - x / 2, exactly.
    run = self.variant(
      functools.partial(
        samplers.langevin,
        score_fn=_score,
        step_size=1.0,
        num_steps=3,
        **keywords,
      )
    )
    x = jnp.array([[8.0, -16.0]])
    np.testing.assert_array_equal(run(jax.random.key(0), x), [[1, -2]])

  def test_clips_every_step(self):
    # 8 -> 4, cut to 2 -> 1; cut at the end alone it were 2.
    x = samplers.langevin(
      jax.random.key(0),
      jnp.array([8.0, -8.0]),
      _score,
      step_size=1.0,
      num_steps=2,
      noise=False,
      clip=(-2.0, 1.5),
    )
    np.testing.assert_array_equal(x, [0.75, -1])

  def test_of_no_steps(self):
    x = {'a': jnp.arange(3.0), 'b': jnp.ones((3, 2, 2))}
    actual = samplers.langevin(
      jax.random.key(0), x, _score, step_size=1.0, num_steps=0
    )
    chex.assert_trees_all_equal(actual, x)

  def test_step_sizes_under_vmap(self):
    # Every step multiplies by 1 - delta^2 / 2.
    steps = jnp.array([0.5, 1.0, 1.5])
    run = lambda step_size: samplers.langevin(
      jax.random.key(0),
      jnp.ones(2),
      _score,
      step_size=step_size,
      num_steps=3,
      noise=False,
    )
    factors = (1 - np.float64(steps) ** 2 / 2) ** 3
    np.testing.assert_allclose(
      jax.jit(jax.vmap(run))(steps),
      np.column_stack([factors, factors]),
      rtol=1e-6,
    )


_underdamped = jax.jit(
  functools.partial(samplers.underdamped, score_fn=lambda x: -2 * x),
  static_argnames='num_steps',
)


def _moments(x, num_steps, delta, gamma, temperature):
  """Yields mean [2] and covariance [2, 2] of (x, v) after each step at precision 2.

  Each of the five parts of a step is a matrix of its own, and the third adds noise.
  """
  mean, cov = np.array([x, 0.0]), np.diag([0.0, temperature])
  kick = np.array([[1, 0], [-2 * delta / 2, 1]])
  move = np.array([[1, delta / 2], [0, 1]])
  kept = np.exp(-gamma * delta)
  damp = np.diag([1, kept])
  for _ in range(num_steps):
    for part in (kick, move, damp, move, kick):
      mean, cov = part @ mean, part @ cov @ part.T
      if part is damp:
        cov = cov + np.diag([0, temperature * (1 - kept**2)])
    yield mean, cov


class UnderdampedTest(parameterized.TestCase):
  """On the score -2 x, the variance 1 / 2."""

  @parameterized.product(
    num_steps=(1, 2, 5, 60),
    options=((0.5, 1.0, 1.0), (1.2, 0.3, 0.25), (0.8, 50.0, 2.0)),
  )
  def test_moments_are_those_of_the_recursion(self, num_steps, options):
    delta, gamma, temperature = options
    *_, (mean, cov) = each = list(_moments(1.5, num_steps, *options))
    x, kinetic = _underdamped(
      jax.random.key(num_steps),
      jnp.full(_NUM, 1.5),
      step_size=delta,
      num_steps=num_steps,
      friction=gamma,
      temperature=temperature,
    )
    _assert_variance(x - mean[0], cov[0, 0])
    squares = np.mean([mean[1] ** 2 + cov[1, 1] for mean, cov in each])
    np.testing.assert_allclose(kinetic, squares, rtol=4 * (2 / _NUM) ** 0.5)

  @parameterized.parameters(0.5, 1.0, 1.3)
  def test_the_stationary_variance_is_exact(self, delta):
    # Langevin's is 1 / (2 - delta^2), which is 2.2, 1 and 0.31 times 1 / 2 wrong.
    *_, (_, cov) = _moments(0.0, 400, delta, 1.0, 1.0)
    # T / lambda, and T (1 - delta^2 lambda / 4), for lambda 2.
    np.testing.assert_allclose(
      cov, np.diag([0.5, 1 - delta**2 / 2]), atol=1e-12
    )
    x, _ = _underdamped(
      jax.random.key(0), jnp.ones(_NUM), step_size=delta, num_steps=60
    )
    _assert_variance(x, 0.5)

  def test_a_config_names_it(self):
    fields = dict(step_size=0.2, num_steps=3, friction=2.0)
    self.assertEqual(
      build.build(samplers, 'Underdamped', **fields),
      samplers.Underdamped(0.2, 3, 2.0),
    )

  def test_a_cold_chain_by_hand(self):
    # exp(-gamma delta) = 1 / 2 on s(x) = -x, from 8 at rest: v = -4, x = 6, v = -2,
    # x = 5, v = -4.5; then v = -7, x = 1.5, v = -3.5, x = -0.25, v = -3.375.
    run = lambda num_steps: samplers.Underdamped(
      1.0, num_steps, friction=np.log(2), temperature=0.0
    )(jax.random.key(0), jnp.array([8.0]), samplers.target(_log_density))
    for num_steps, end, kinetic in ((1, 5, 4.5**2), (2, -0.25, 15.8203125)):
      x, metrics = run(num_steps)
      np.testing.assert_allclose(x, [end], rtol=1e-6)
      np.testing.assert_allclose(
        metrics['kinetic_temperature'], kinetic, rtol=1e-6
      )


def _exact(rng, x, target):
  """Draws anew from the law of a normal at any temperature, N(0, -1 / score(1))."""
  scale = (-target.score(jnp.ones_like(x))) ** -0.5
  return scale * jax.random.normal(rng, x.shape), {'scale': scale.mean()}


def _two_wells(x):
  """Mass 0.8 at -4 and 0.2 at 4, both of width 0.5."""
  wells = -2 * (x + 4) ** 2 + np.log(0.8), -2 * (x - 4) ** 2 + np.log(0.2)
  return jnp.logaddexp(*wells)


class TemperedTest(parameterized.TestCase):
  @parameterized.parameters(0, 1)
  def test_swaps_leave_the_joint_law_alone(self, odd):
    # All 4^3 joint states of three replicas on four points, each under a fine grid
    # of draws, which together are the matrix of the swaps.
    log_p = np.log([0.1, 0.2, 0.3, 0.4])
    inverses = np.array([1.0, 0.6, 0.1])
    laws = np.exp(np.outer(inverses, log_p))
    laws /= laws.sum(1, keepdims=True)
    states = np.stack(np.unravel_index(np.arange(64), (4, 4, 4)))
    joint = np.prod(laws[np.arange(3)[:, None], states], 0)
    num = 1000
    replicas = np.repeat(states, num, 1)
    draws = np.tile((np.arange(num) + 0.5) / num, 64)
    swapped, probability = tempering._swap(
      jnp.broadcast_to(draws, (2, 64 * num)),
      jnp.asarray(replicas),
      jnp.asarray(log_p[replicas]),
      jnp.asarray(inverses),
      odd,
    )
    ends = np.ravel_multi_index(np.asarray(swapped), (4, 4, 4))
    after = np.bincount(ends, np.repeat(joint / num, num), minlength=64)
    np.testing.assert_allclose(after, joint, rtol=0, atol=joint.max() / num)
    self.assertGreater(np.mean(ends != np.repeat(np.arange(64), num)), 0.2)
    # The ratio of the joint law after the swap and before it, pair by pair.
    for pair in range(2):
      order = np.arange(3)
      order[[pair, pair + 1]] = order[[pair + 1, pair]]
      then = np.prod(laws[np.arange(3)[:, None], states[order]], 0)
      np.testing.assert_allclose(
        probability[pair, ::num], np.minimum(1, then / joint), rtol=1e-5
      )
    # Whoever is not in the pair stays.
    alone = 2 * (1 - odd)
    np.testing.assert_array_equal(swapped[alone], replicas[alone])

  def test_rates_of_a_normal_are_exact(self):
    # In two dimensions neighbours swap at 2 b' / (b + b'): at 2 / 3 and 2 / 5.
    chain = samplers.Tempered(_exact, (1, 0.5, 0.125), 10)
    x, metrics = jax.jit(
      lambda rng, x: chain(rng, x, samplers.target(_log_density))
    )(jax.random.key(0), jnp.zeros((_NUM, 2)))
    # A mean of 5 _NUM numbers from [0, 1].
    error = 4 * 0.5 / (5 * _NUM) ** 0.5
    self.assertAlmostEqual(float(metrics['swap_0']), 2 / 3, delta=error)
    self.assertAlmostEqual(float(metrics['swap_1']), 2 / 5, delta=error)
    self.assertEqual(metrics['scale'], 1)
    _assert_variance(x, 1.0)

  def test_steps_are_longer_where_it_is_warm(self):
    # x - (delta^2 / 2 b) b x = x / 2 at every b: all replicas are equal.
    chain = samplers.Tempered(
      samplers.Langevin(1.0, noise=False), (1, 0.25), num_rounds=3
    )
    x, metrics = chain(
      jax.random.key(0), jnp.array([8.0]), samplers.target(_log_density)
    )
    np.testing.assert_array_equal(x, [1])
    self.assertEqual(metrics['swap_0'], 1)
    self.assertEqual(
      set(metrics), {'swap_0', 'barrier', 'round_trips', 'temperature'}
    )

  def test_rates_and_round_trips_are_the_laws_of_independent_draws(self):
    # In d dimensions neighbours swap at 2 I_x(d / 2, d / 2), x = b' / (b + b'), and
    # points come round 1 / (2 + 2 sum r / (1 - r)) times a round, r = 1 - rate [S22].
    self.check_laws((1, 0.7, 0.3), dim=10, num_rounds=400, error=0.02)

  @parameterized.parameters(
    ((1, 0.2), 2), (tuple(0.5 ** np.arange(8)), 2), ((1, 0.5, 0.3, 0.05), 3)
  )
  @pytest.mark.slow
  def test_so_are_those_of_other_ladders(self, ladder, dim):
    self.check_laws(ladder, dim, num_rounds=4000, error=0.01)

  def check_laws(self, ladder, dim, num_rounds, error):
    chain = samplers.Tempered(_exact, ladder, num_rounds)
    law, start = samplers.target(_log_density), jnp.zeros((200, dim))
    _, metrics = jax.jit(lambda rng: chain(rng, start, law))(jax.random.key(0))
    low, high = np.array(ladder[1:]), np.array(ladder[:-1])
    rates = 2 * special.betainc(dim / 2, dim / 2, low / (low + high))
    found = [metrics[f'swap_{i}'] for i in range(len(rates))]
    np.testing.assert_allclose(found, rates, atol=error)
    self.assertAlmostEqual(
      float(metrics['barrier']), np.sum(1 - rates), delta=len(rates) * error
    )
    trips = 1 / (2 + 2 * np.sum((1 - rates) / rates))
    # The first trips take some rounds: fewer than 2 in 100 here.
    np.testing.assert_allclose(metrics['round_trips'], trips, rtol=0.03)

  def test_trips_of_points_that_always_swap(self):
    # Of three replicas all go round: one arrives at every second round, the first of
    # them, which begins in the last, at the third.
    chain = samplers.Tempered(lambda rng, x, law: (x, {}), (1, 0.5, 0.1), 12)
    flat = samplers.target(lambda x: 0 * x)
    x, metrics = chain(jax.random.key(0), jnp.arange(3.0), flat)
    np.testing.assert_array_equal(x, jnp.arange(3.0))
    self.assertEqual(metrics['barrier'], 0)
    self.assertAlmostEqual(float(metrics['round_trips']), 5 / 12, 6)

  def test_a_base_is_what_flat_laws_tend_to(self):
    # From N(0, 4) to N(3, 1 / 4), all between are normal: b 4 + (1 - b) / 4 is their
    # precision, b 12 over that their mean.
    law = samplers.target(lambda x: -2 * (x - 3) ** 2)
    ladder = np.array([1, 0.2, 0])

    def exact(rng, x, target):
      at_0, at_1 = (target.score(jnp.full_like(x, v)) for v in (0.0, 1.0))
      precision = at_0 - at_1
      densities = [target.log_density(jnp.full_like(x, v)) for v in (0.0, 1.0)]
      # log p(0) - log p(1) is the mean of minus the score.
      gap = densities[0] - densities[1] + (at_0 + at_1) / 2
      noise = jax.random.normal(rng, x.shape)
      moved = at_0 / precision + noise / jnp.sqrt(precision)
      return moved, {'precision': precision[0], 'gap': jnp.max(jnp.abs(gap))}

    chain = samplers.Tempered(
      exact, tuple(ladder), 10, base=lambda x: -(x**2) / 8
    )
    x, metrics = jax.jit(lambda rng: chain(rng, jnp.zeros(_NUM), law))(
      jax.random.key(0)
    )
    self.assertLess(metrics['gap'], 1e-4)
    self.assertEqual(metrics['precision'], 4)
    _assert_variance(x - 3, 0.25)
    precision = ladder * 4 + (1 - ladder) / 4
    mean = 12 * ladder / precision
    grid = np.linspace(-12, 12, 2001)
    p = np.exp(-precision[:, None] * (grid - mean[:, None]) ** 2 / 2)
    p /= p.sum(1, keepdims=True)
    ratio = -2 * (grid - 3) ** 2 + grid**2 / 8
    for i in range(2):
      log_alpha = (ladder[i] - ladder[i + 1]) * (ratio[None] - ratio[:, None])
      expected = p[i] @ np.exp(np.minimum(log_alpha, 0)) @ p[i + 1]
      error = 4 * 0.5 / (5 * _NUM) ** 0.5
      self.assertAlmostEqual(float(metrics[f'swap_{i}']), expected, delta=error)

  def test_it_finds_the_well_that_mala_does_not(self):
    ladder = tuple(np.geomspace(1, 0.02, 8))
    law, x = samplers.target(_two_wells), jnp.full(500, -4.0)
    run = lambda chain: jax.jit(lambda rng: chain(rng, x, law))(
      jax.random.key(0)
    )[0]
    self.assertEqual(np.mean(run(samplers.MALA(0.6, 400)) > 0), 0)
    share = np.mean(run(samplers.Tempered(samplers.MALA(0.6), ladder, 400)) > 0)
    self.assertAlmostEqual(share, 0.2, delta=4 * (0.16 / 500) ** 0.5)

  def test_devices_hold_chains_with_all_their_replicas(self):
    # Two replicas of a flat law swap in rounds 0 and 2, when the first come back.
    chain = samplers.Tempered(lambda rng, x, law: (x, {}), (1, 0.5), 4)
    flat = samplers.target(lambda x: 0 * x)

    def body(rng, x):
      x, metrics = chain(collectives.fold_in_index(rng, 'batch'), x, flat)
      return x, collectives.pmean(metrics, 'batch')

    rows, whole = jax.P('batch'), jax.P()
    run = jax.shard_map(
      body,
      mesh=parallel.mesh(),
      in_specs=(whole, rows),
      out_specs=(rows, whole),
    )
    _, metrics = jax.jit(run)(jax.random.key(0), jnp.arange(8.0))
    self.assertEqual(metrics['round_trips'], 0.25)
    self.assertEqual(metrics['barrier'], 0)

  def test_trees_keep_their_dtypes(self):
    x = {
      'a': jnp.ones((4, 2), jnp.bfloat16),
      'b': jnp.array([0, 1, 2, jnp.nan]),
    }
    end, _ = samplers.Tempered(samplers.MALA(0.5))(
      jax.random.key(0), x, samplers.target(_log_density)
    )
    chex.assert_trees_all_equal_shapes_and_dtypes(end, x)
    np.testing.assert_array_equal(np.isnan(end['b']), [0, 0, 0, 1])

  def test_a_config_names_it(self):
    fields = dict(
      inverse_temperatures=(1, 0.3), chain={'name': 'MALA', 'step_size': 0.2}
    )
    self.assertEqual(
      build.build(samplers, 'Tempered', **fields),
      samplers.Tempered(samplers.MALA(0.2), (1, 0.3)),
    )

  def test_a_base_that_is_no_function_is_refused(self):
    chain = samplers.Tempered(samplers.MALA(0.1), base='normal')
    with self.assertRaisesRegex(TypeError, "base='normal'|base is the str"):
      chain(jax.random.key(0), jnp.ones(3), samplers.target(_log_density))

  @parameterized.parameters(
    (), (1,), (0.5, 0.1), (1, 1), (1, 0), (1, 0.2, 0.3), (1, np.nan)
  )
  def test_what_is_no_ladder_is_refused(self, *ladder):
    with self.assertRaisesRegex(
      ValueError, 'inverse_temperatures=.* fall from 1'
    ):
      samplers.Tempered(samplers.MALA(0.1), ladder)(
        jax.random.key(0), jnp.ones(3), samplers.target(_log_density)
      )

  @parameterized.parameters(
    (samplers.Tempered(samplers.MALA(0.1), num_rounds=1), 'num_rounds=1'),
    (samplers.Tempered(samplers.MALA(0.1, 0)), 'chain.num_steps=0'),
    (samplers.Tempered(samplers.MALA(-0.1)), 'chain.step_size=-0.1'),
    (samplers.Tempered(samplers.Gibbs()), 'no method gibbs.*Langevin'),
    (
      samplers.Tempered(samplers.MALA(0.1), base=lambda x: 0.0),
      r'log_density has shape \(\)',
    ),
  )
  def test_what_is_refused(self, chain, message):
    with self.assertRaisesRegex(ValueError, message):
      chain(jax.random.key(0), jnp.ones(3), samplers.target(_log_density))


class MalaTest(chex.TestCase):
  @parameterized.parameters(0.5, 1.0, 1.5)
  def test_stationary_variance(self, step_size):
    # Langevin's own are 16 / 15, 4 / 3 and 16 / 7.
    x, rate = _long_mala(jax.random.key(0), jnp.ones(_NUM), step_size=step_size)
    _assert_variance(x, 1.0)
    self.assertBetween(float(rate), 0.1, 1.0)

  def test_acceptance_nears_one(self):
    # The log ratio is O(delta^3) per step, for smooth densities.
    run = jax.jit(
      functools.partial(samplers.mala, log_density_fn=_log_density, num_steps=5)
    )
    x = jax.random.normal(jax.random.key(0), (1000, 3))
    rates = [run(jax.random.key(1), x, step_size=s)[1] for s in (3.0, 1.0, 0.1)]
    self.assertBetween(float(rates[0]), 0, 1)
    self.assertLess(rates[0], rates[1])
    self.assertLess(rates[1], rates[2])
    self.assertBetween(float(rates[2]), 1 - 0.1**2, 1)

  @parameterized.parameters(jnp.nan, -jnp.inf)
  def test_rejects_where_there_is_no_density(self, outside):
    # An exponential law, moments 1 and 2, whose log has no value below 0.
    log_density = lambda x: jnp.where(x > 0, -x, outside)
    x, rate = jax.jit(
      lambda rng, x: samplers.mala(
        rng, x, log_density, step_size=1.0, num_steps=10
      )
    )(jax.random.key(0), jax.random.exponential(jax.random.key(1), (_NUM,)))
    self.assertBetween(float(rate), 0.1, 0.9)
    self.assertGreater(np.min(x), 0)
    # Var x = 1 and Var x^2 = 4! - 2^2 = 20.
    np.testing.assert_allclose(np.mean(x), 1, atol=4 / _NUM**0.5)
    np.testing.assert_allclose(np.mean(x**2), 2, atol=4 * (20 / _NUM) ** 0.5)

  def test_rejects_every_nan(self):
    # Only the place where the chains start has a density.
    x = jnp.arange(3.0)[:, None]
    log_density = lambda y: jnp.where(jnp.all(x == y, 1), 0.0, jnp.nan)
    actual, rate = samplers.mala(
      jax.random.key(0), x, log_density, step_size=1.0, num_steps=3
    )
    np.testing.assert_array_equal(actual, x)
    self.assertEqual(rate, 0)


def _run_langevin(rng, x, **keywords):
  return samplers.langevin(rng, x, _score, **keywords)


def _run_mala(rng, x, **keywords):
  return samplers.mala(rng, x, _log_density, **keywords)[0]


def _run_underdamped(rng, x, **keywords):
  return samplers.underdamped(rng, x, _score, **keywords)[0]


class PositionsTest(chex.TestCase):
  @parameterized.product(
    run=[_run_langevin, _run_mala, _run_underdamped], traced=[False, True]
  )
  def test_keep_dtypes_and_shapes(self, run, traced):
    x = {
      'a': jnp.ones((4, 2, 3), jnp.bfloat16),
      'b': (jnp.ones(4), jnp.ones((4, 1), jnp.float16)),
    }
    run = functools.partial(run, jax.random.key(0), num_steps=2)
    if traced:
      actual = jax.eval_shape(run, x, step_size=jnp.float32(0.5))
    else:
      actual = jax.eval_shape(functools.partial(run, step_size=0.5), x)
    chex.assert_trees_all_equal_shapes_and_dtypes(actual, x)

  def test_small_steps_of_half_precision_add_up(self):
    # delta^2 / 2 = 1/800 of x is below half an ulp of bfloat16, 1/512: carried
    # in it, a noiseless chain would never move. 800 steps shrink x by about e.
    x = jnp.ones((1, 1), jnp.bfloat16)
    end = _run_langevin(
      jax.random.key(0), x, step_size=0.05, num_steps=800, noise=False
    )
    np.testing.assert_allclose(
      np.float32(end), (1 - 1 / 800) ** 800, rtol=2**-8
    )

  def test_half_precision_is_accepted_as_single_is(self):
    x = jnp.zeros((20, 3072), jnp.bfloat16)
    _, acceptance = samplers.mala(
      jax.random.key(0), x, _log_density, step_size=0.01, num_steps=5
    )
    # The proposal's error in the log ratio is below delta^3 d / 4 = 8e-4.
    self.assertGreater(acceptance, 0.95)

  @parameterized.parameters(_run_langevin, _run_mala, _run_underdamped)
  def test_float64_stays(self, run):
    with jax.enable_x64(True):
      x = run(jax.random.key(0), jnp.ones((4, 2)), step_size=0.5, num_steps=2)
      self.assertEqual(x.dtype, jnp.float64)

  @parameterized.parameters(
    (_run_langevin, 4 / 3), (_run_mala, 1.0), (_run_underdamped, 1.0)
  )
  def test_of_a_tree_are_independent(self, run, variance):
    x = {'a': jnp.zeros((_NUM, 2)), 'b': jnp.zeros(_NUM)}
    x = jax.jit(functools.partial(run, step_size=1.0, num_steps=60))(
      jax.random.key(0), x
    )
    columns = np.column_stack([x['a'], x['b']])
    for column in columns.T:
      _assert_variance(column, variance)
    correlations = np.corrcoef(columns.T)[np.triu_indices(3, 1)]
    # Independent columns: standard error 1 / sqrt(n).
    np.testing.assert_allclose(correlations, 0, atol=4 / _NUM**0.5)

  @parameterized.parameters(_run_langevin, _run_mala, _run_underdamped)
  def test_step_sizes_under_vmap(self, run):
    steps = jnp.array([0.5, 1.0])
    x = jnp.zeros((3, 2))
    run = jax.jit(functools.partial(run, jax.random.key(0), x, num_steps=4))
    actual = jax.vmap(lambda s: run(step_size=s))(steps)
    expected = [run(step_size=s) for s in steps]
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


class IntegersTest(parameterized.TestCase):
  @parameterized.product(
    run=[_run_langevin, _run_mala, _run_underdamped],
    dtype=[jnp.int8, jnp.uint8, jnp.bool_],
  )
  def test_start_chains_of_floats(self, run, dtype):
    x = {'a': jnp.array([[0, 1], [1, 0]], dtype), 'b': jnp.ones(2)}
    run = jax.jit(
      functools.partial(run, jax.random.key(0), step_size=1.0, num_steps=2)
    )
    expected = run(jax.tree.map(lambda leaf: leaf.astype(jnp.float32), x))
    chex.assert_trees_all_equal(run(x), expected)
    chex.assert_trees_all_equal_dtypes(run(x), expected)


class NotANumberTest(parameterized.TestCase):
  @parameterized.parameters(_run_langevin, _run_mala, _run_underdamped)
  def test_a_start_that_is_nan_ends_as_nan(self, run):
    x = jnp.array([[1.0, 2.0], [jnp.nan, 0.0]])
    end = run(jax.random.key(0), x, step_size=0.5, num_steps=3)
    self.assertTrue(np.isfinite(end[0]).all())
    self.assertTrue(np.isnan(end[1]).any())

  @parameterized.parameters(jnp.nan, -jnp.inf)
  def test_mala_from_where_there_is_no_density(self, outside):
    # The second chain starts outside of [-1, 1], and finds its way in from -inf.
    log_density = lambda x: jnp.where(jnp.abs(x) < 1, 0.0, outside)
    end, _ = samplers.mala(
      jax.random.key(0),
      jnp.array([0.5, 1.5]),
      log_density,
      step_size=0.5,
      num_steps=50,
    )
    self.assertLess(abs(end[0]), 1)
    if outside == -jnp.inf:
      self.assertLess(abs(end[1]), 1)
    else:
      self.assertTrue(np.isnan(end[1]))

  def test_a_weight_of_no_number_is_nan(self):
    # The chain that backwards starts in the half without a density is lost.
    log_density = lambda x: jnp.where(x[:, 0] > 0, -x[:, 0], jnp.nan)
    log_weights = samplers.annealed_importance(
      jax.random.key(0),
      log_density,
      (1,),
      num_chains=2,
      num_temperatures=3,
      step_size=0.5,
      init=jnp.array([[1.0], [-1.0]]),
    )
    np.testing.assert_array_equal(np.isnan(log_weights), [False, True])


def _normalized(x):
  """Returns log N(x; 0, I) [n]."""
  flat = x.reshape(len(x), -1)
  return jnp.sum(jax.scipy.stats.norm.logpdf(flat), 1)


class AnnealedImportanceTest(chex.TestCase):
  def test_brackets_log_z(self):
    # The integral of exp(-|x - m|^2 / 2 s^2) is (2 pi s^2)^(d / 2).
    shape, center, scale, num = (2, 2), 1.0, 0.5, 1000
    log_z = 2 * np.log(2 * np.pi * scale**2)
    exact = center + scale * jax.random.normal(jax.random.key(1), (num, *shape))
    log_density = lambda x: _log_density((x - center) / scale)

    @functools.partial(jax.jit, static_argnums=0)
    def run(num_temperatures, init):
      return samplers.annealed_importance(
        jax.random.key(0),
        log_density,
        shape,
        num_chains=num,
        num_temperatures=num_temperatures,
        step_size=0.5,
        init=init,
      )

    error = lambda values: np.std(values) / num**0.5
    gaps = []
    for num_temperatures in 10, 100:
      below, above = (
        np.asarray(run(num_temperatures, init), np.float64) - log_z
        for init in (None, exact)
      )
      self.assertEqual(below.shape, (num,))
      self.assertLess(np.mean(below), 4 * error(below))
      self.assertGreater(np.mean(above), -4 * error(above))
      gaps.append(np.mean(above) - np.mean(below))
    self.assertLess(gaps[1], gaps[0] / 2)
    # Forwards exp(w) has mean Z, backwards exp(-w) has mean 1 / Z.
    for ratio in np.exp(below), np.exp(-above):
      self.assertLess(error(ratio), 0.1)
      np.testing.assert_allclose(
        np.mean(ratio), 1, rtol=0, atol=4 * error(ratio)
      )

  @parameterized.product(backwards=[False, True], log_z=[0.0, 3.0])
  def test_of_the_base_is_exact(self, backwards, log_z):
    # Every weight is the telescoped sum of (b' - b) log_z, whatever the chain.
    x = jax.random.normal(jax.random.key(1), (8, 2, 3)) if backwards else None
    log_weights = jax.jit(
      lambda rng: samplers.annealed_importance(
        rng,
        lambda x: _normalized(x) + log_z,
        (2, 3),
        num_chains=8,
        num_temperatures=10,
        step_size=0.5,
        init=x,
      )
    )(jax.random.key(0))
    np.testing.assert_allclose(log_weights, np.full(8, log_z), atol=1e-5)

  def test_one_step_from_a_narrower_or_wider_gaussian(self):
    # exp(-a |x|^2 / 2) has ESS / n = (sqrt(2 a - 1) / a)^d from N(0, I), and the
    # weight's log is (1 - a) |x|^2 / 2 + (d / 2) log 2 pi.
    num, d, a = 20_000, 3, 1.5
    log_weights = jax.jit(
      lambda rng: samplers.annealed_importance(
        rng,
        lambda x: -0.5 * a * jnp.sum(x**2, -1),
        (d,),
        num_chains=num,
        num_temperatures=1,
      )
    )(jax.random.key(0))
    share = ((2 * a - 1) ** 0.5 / a) ** d
    found = samplers.effective_sample_size(log_weights) / num
    self.assertAlmostEqual(float(found), share, delta=0.02)
    error = float(samplers.log_mean_exp_error(log_weights))
    self.assertAlmostEqual(
      error, ((1 / share - 1) / num) ** 0.5, delta=0.05 * error
    )
    log_z = 0.5 * d * np.log(2 * np.pi / a)
    self.assertAlmostEqual(
      float(samplers.log_mean_exp(log_weights)), log_z, delta=5 * error
    )

  @parameterized.parameters(1, 2, 9)
  def test_error_of_a_mean_by_numpy(self, num):
    log_weights = np.random.default_rng(0).normal(size=num)
    weights = np.exp(log_weights)
    # The standard error of the mean by the mean, with n - 1 for n.
    expected = np.std(weights, ddof=min(num - 1, 1)) / np.mean(weights)
    found = samplers.log_mean_exp_error(log_weights + 500)
    if num == 1:
      self.assertTrue(np.isnan(found))
    else:
      self.assertAlmostEqual(float(found), expected / num**0.5, delta=1e-4)
    ess = np.sum(weights) ** 2 / np.sum(weights**2)
    self.assertAlmostEqual(
      float(samplers.effective_sample_size(log_weights + 500)), ess, delta=1e-3
    )

  @parameterized.parameters(-1e7, -3e4, 1e5, 1e30)
  def test_weights_of_any_size(self, level):
    # Powers of two, which stay what they are beside a large level.
    steps = np.float32(level) + np.float32([0, 0, 0, 2, 2])
    weights = np.exp(steps.astype(float) - steps.max())
    ess = np.sum(weights) ** 2 / np.sum(weights**2)
    self.assertAlmostEqual(
      float(samplers.effective_sample_size(steps)), ess, delta=1e-5
    )
    self.assertAlmostEqual(
      float(samplers.log_mean_exp_error(steps)),
      np.sqrt((5 / ess - 1) / 4),
      delta=1e-5,
    )

  def test_weights_that_are_none(self):
    self.assertTrue(np.isnan(samplers.effective_sample_size([np.nan, 0])))
    self.assertTrue(np.isnan(samplers.log_mean_exp_error([np.nan, 0])))
    self.assertEqual(float(samplers.effective_sample_size([-np.inf, 0])), 1)
    self.assertEqual(float(samplers.log_mean_exp_error(jnp.zeros(7))), 0)

  @parameterized.product(scale=[0.1, 1.0, 5.0], backwards=[False, True])
  def test_adapted_steps_accept_as_they_should(self, scale, backwards):
    d, num = 10, 200
    log_density = lambda x: -0.5 * jnp.sum((x / scale) ** 2, -1)
    init = scale * jax.random.normal(jax.random.key(1), (num, d))
    log_weights, acceptance = jax.jit(
      lambda rng: samplers.annealed(
        rng,
        log_density,
        (d,),
        num_chains=num,
        num_temperatures=100,
        init=init if backwards else None,
      )
    )(jax.random.key(0))
    # The chains lag behind their law, so that those that go backwards are narrower
    # than those that found the steps.
    self.assertAlmostEqual(float(acceptance), 0.574, delta=0.13)
    log_z = d * np.log(scale * (2 * np.pi) ** 0.5)
    sign = -1 if backwards else 1
    found = sign * samplers.log_mean_exp(sign * log_weights)
    error = float(samplers.log_mean_exp_error(sign * log_weights))
    self.assertAlmostEqual(float(found), log_z, delta=5 * error + 1e-4)
    self.assertLess(error, 0.5)

  def test_adapted_weights_have_the_mean_z(self):
    # Whatever the few warm-up chains find, for many keys: log Z = log 2 + log N's.
    def run(rng):
      log_weights = samplers.annealed_importance(
        rng,
        lambda x: _normalized(3 * x) + np.log(2),
        (2,),
        num_chains=2,
        num_temperatures=4,
      )
      return jnp.exp(log_weights)

    weights = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 4000))
    means = np.mean(weights, 1)
    error = np.std(means) / len(means) ** 0.5
    self.assertAlmostEqual(np.mean(means), 2 / 9, delta=5 * error)
    self.assertLess(error, 0.01)

  def test_flat_density_has_no_best_step(self):
    log_weights, acceptance = jax.jit(
      lambda rng: samplers.annealed(
        rng,
        lambda x: jnp.zeros(len(x)),
        (2,),
        num_chains=3,
        num_temperatures=200,
      )
    )(jax.random.key(0))
    self.assertTrue(np.all(np.isfinite(log_weights)))
    self.assertTrue(np.isfinite(acceptance))

  @parameterized.parameters(False, True)
  def test_from_the_target_itself_every_weight_is_z(self, backwards):
    mean, scale = np.float32([1, -2]), np.float32([0.5, 3])
    log_density = lambda x: _normalized((x - mean[None]) / scale[None]) + 2
    init = (
      mean + scale * np.random.default_rng(0).normal(size=(5, 2))
      if backwards
      else None
    )
    log_weights = samplers.annealed_importance(
      jax.random.key(0),
      log_density,
      (2,),
      num_chains=5,
      num_temperatures=9,
      init=init,
      base_mean=mean,
      base_scale=scale,
    )
    log_z = 2 + np.sum(np.log(scale))
    np.testing.assert_allclose(log_weights, np.full(5, log_z), atol=1e-4)


class Correlated:
  """Two standard normals of correlation rho, which Gibbs sweeps one by one."""

  def __init__(self, rho):
    self._rho = rho

  def gibbs(self, rng, x, num_steps):
    spread = (1 - self._rho**2) ** 0.5
    for key in jax.random.split(rng, num_steps):
      noise = spread * jax.random.normal(key, x.shape)
      first = self._rho * x[:, 1] + noise[:, 0]
      x = jnp.stack([first, self._rho * first + noise[:, 1]], 1)
    return x


@jax.jit
def _ends(chain, x):
  return chain(jax.random.key(0), x, samplers.target(_log_density))


class ValuesTest(parameterized.TestCase):
  """Chains as values, on the standard normal as a target."""

  target = samplers.target(_log_density)

  def ends(self, chain, x):
    return _ends(chain, x)

  # As in LangevinTest: v = T ratio^2 / (1 - delta^2 / 4).
  @parameterized.parameters(
    (dict(step_size=1.0), 4 / 3),
    (dict(step_size=1.0, temperature=0.25), 1 / 3),
    (dict(step_size=0.5, noise_ratio=2.0), 4 / (1 - 0.25 / 4)),
    (dict(step_size=0.5, noise_ratio=2.0, temperature=0.25), 16 / 15),
  )
  def test_langevin_has_its_stationary_variance(self, options, variance):
    chain = samplers.Langevin(num_steps=80, **options)
    x, metrics = self.ends(chain, jnp.ones(_NUM))
    _assert_variance(x, variance)
    # At rest the watch sees the variance: -x s(x) = s(x)^2 = x^2, up to 0.02 of it.
    temperature = options.get('noise_ratio', 1) ** 2
    temperature *= options.get('temperature', 1)
    self.assertAlmostEqual(float(metrics.pop('temperature')), temperature, 5)
    virial, norm = metrics.pop('virial_temperature'), metrics.pop('score_norm')
    np.testing.assert_allclose([virial, norm**2], variance, rtol=0.05)
    self.assertEqual(metrics, {})

  @parameterized.parameters(
    # delta = 1 halves x; 8 -> 4, cut to 2 -> 1, as in `test_clips_every_step`.
    (samplers.Langevin(1.0, 3, noise=False), [1.0, -1.0]),
    (samplers.Langevin(1.0, 2, False, clip=(-2.0, 1.5)), [0.75, -1.0]),
    (samplers.Langevin(1.0, 2, False, clip=[-2.0, 1.5]), [0.75, -1.0]),
    (samplers.Langevin(1.0), None),
    (samplers.Langevin(1.0, num_steps=0), [8.0, -8.0]),
  )
  def test_langevin_takes_its_steps(self, chain, expected):
    x = jnp.array([8.0, -8.0])
    found, _ = chain(jax.random.key(0), x, self.target)
    if expected is None:  # one step, of noise of size 1
      self.assertLess(np.max(np.abs(found - x / 2)), 5)
      self.assertGreater(np.min(np.abs(found - x / 2)), 0)
    else:
      np.testing.assert_array_equal(found, expected)

  def test_the_watch_by_hand(self):
    # From 1, 3 and -1, whose mean is 1, with scores -1, -3 and 1: the virial is
    # (0 + 6 + 2) / 3 and the mean square 11 / 3. The steps end at half of each, but for
    # next to no noise, cut to [-0.4, 1].
    x = jnp.array([1.0, 3.0, -1.0])
    chain = samplers.Langevin(1.0, noise_ratio=1e-9, clip=(-0.4, 1.0))
    for dtype in (jnp.float32, jnp.bfloat16, jnp.int32):
      _, found = self.ends(chain, x.astype(dtype))
      expected = {
        'temperature': 1e-18,
        'virial_temperature': 8 / 3,
        'score_norm': (11 / 3) ** 0.5,
        'clipped': 2 / 3,
      }
      chex.assert_trees_all_close(found, expected, rtol=1e-6)
    self.assertEqual(self.ends(chain.replace(num_steps=0), x)[1], {})
    _, found = self.ends(samplers.Langevin(1.0, noise=False), x)
    self.assertEqual(found, {'temperature': 0})

  def test_the_watch_of_chains_that_know_their_ends(self):
    # Halved by a step without noise or friction: 0.5 and 1.5, of scores -0.5 and -1.5.
    chain = samplers.Underdamped(1.0, friction=0.0, temperature=0.0)
    _, found = self.ends(chain, jnp.array([1.0, 3.0]))
    self.assertEqual(found['temperature'], 0)
    np.testing.assert_allclose(found['virial_temperature'], 0.25, rtol=1e-6)
    np.testing.assert_allclose(found['score_norm'], 1.25**0.5, rtol=1e-6)
    # Steps so large that none is accepted: MALA ends where it started.
    x = jnp.array([1.0, 3.0])
    moved, found = self.ends(samplers.MALA(100.0), x)
    np.testing.assert_array_equal(moved, x)
    np.testing.assert_allclose(found['virial_temperature'], 1, rtol=1e-6)
    np.testing.assert_allclose(found['score_norm'], 5**0.5, rtol=1e-6)

  def test_the_watch_is_that_of_all_devices(self):
    # The middle is that of all points, not of a device's own.
    x = jnp.arange(8.0)
    whole = self.ends(samplers.Langevin(0.3), x)[1]
    target = samplers.target(_log_density, axis_name='i')
    run = lambda x: samplers.Langevin(0.3)(jax.random.key(0), x, target)[1]
    for mapped in (jax.vmap, jax.pmap):
      found = mapped(run, axis_name='i')(x.reshape(4, 2))
      for name in ('virial_temperature', 'temperature'):
        np.testing.assert_allclose(np.mean(found[name]), whole[name], rtol=1e-5)

  def test_mala_leaves_the_normal_alone(self):
    # Without the accept step the variance would be 4 / 3.
    x, metrics = self.ends(samplers.MALA(1.0, num_steps=80), jnp.ones(_NUM))
    _assert_variance(x, 1.0)
    # At p itself -x s(x) = x^2 has the mean 1 and, of _NUM normals, the error 0.01.
    self.assertEqual(
      set(metrics), {'acceptance', 'score_norm', 'virial_temperature'}
    )
    self.assertAlmostEqual(float(metrics['virial_temperature']), 1, delta=0.05)
    self.assertAlmostEqual(float(metrics['score_norm']), 1, delta=0.03)

  def test_acceptance_is_the_share_that_moved(self):
    x = jax.random.normal(jax.random.key(1), (1000,))
    moved, metrics = self.ends(samplers.MALA(2.0), x)
    share = np.mean(np.asarray(moved) != np.asarray(x))
    self.assertBetween(share, 0.1, 0.9)
    self.assertAlmostEqual(float(metrics['acceptance']), share, places=6)

  def test_gibbs_runs_the_sweeps_of_its_target(self):
    # x' = rho y + N(0, 1 - rho^2) of one coordinate given the other, from 0: after k
    # sweeps the first has variance 1 - rho^(4k - 2), the second 1 - rho^(4k).
    rho, x = 0.8, jnp.zeros((_NUM, 2))
    for num_steps in (1, 10):
      chain = samplers.Gibbs(num_steps)
      found, metrics = chain(jax.random.key(0), x, Correlated(rho))
      self.assertEqual(metrics, {})
      for column, power in ((0, 4 * num_steps - 2), (1, 4 * num_steps)):
        _assert_variance(found[:, column], 1 - rho**power)

  def test_gibbs_of_a_density_alone_is_refused(self):
    with self.assertRaisesRegex(ValueError, 'no method gibbs.*allowed: Lang'):
      samplers.Gibbs()(jax.random.key(0), jnp.ones(3), self.target)

  @parameterized.parameters(
    (samplers.Langevin(0.0), 'step_size=0.0'),
    (samplers.Langevin(0.1, -1), 'num_steps=-1'),
    (samplers.Langevin(0.1, noise_ratio=-2.0), 'noise_ratio=-2.0'),
    (samplers.Langevin(0.1, temperature=-1.0), 'temperature=-1.0'),
    (samplers.Langevin(0.1, clip=(1.0, -1.0)), 'clip=.*low < high'),
    (samplers.Langevin(0.1, clip=(1.0,)), 'clip=.*low < high'),
    (samplers.Underdamped(0.0), 'step_size=0.0'),
    (samplers.Underdamped(0.1, 0), 'num_steps=0'),
    (samplers.Underdamped(0.1, friction=-1.0), 'friction=-1.0'),
    (samplers.Underdamped(0.1, temperature=-1.0), 'temperature=-1.0'),
    (samplers.MALA(-1.0), 'step_size=-1.0'),
    (samplers.MALA(1.0, 0), 'num_steps=0'),
    (samplers.Gibbs(0), 'num_steps=0'),
  )
  def test_options_are_checked_where_they_are_used(self, chain, message):
    with self.assertRaisesRegex(ValueError, message):
      chain(jax.random.key(0), jnp.ones(3), self.target)

  @parameterized.parameters(
    (_log_density, 'target is the function _log_density; .*a target, such as'),
    (lambda x: x, r'target is a function.*target\(jax.vmap\(log_density\)\)'),
    (Correlated, r'target is the class Correlated.*Correlated\(rho=...\)'),
  )
  def test_what_is_no_target_is_named(self, target, message):
    for chain in (
      samplers.Langevin(0.1),
      samplers.MALA(0.1),
      samplers.Underdamped(0.1),
      samplers.Tempered(samplers.MALA(0.1)),
    ):
      with self.assertRaisesRegex(TypeError, message):
        chain(jax.random.key(0), jnp.ones(3), target)

  def test_a_target_in_place_of_a_function_is_named(self):
    rng, x, options = jax.random.key(0), jnp.ones((3, 1)), dict(step_size=0.1)
    ais = dict(num_chains=2, num_temperatures=2)
    for call in (
      lambda: samplers.mala(rng, x, self.target, num_steps=1, **options),
      lambda: samplers.langevin(rng, x, self.target, num_steps=1, **options),
      lambda: samplers.target(self.target),
      lambda: samplers.annealed_importance(
        rng, self.target, (1,), **ais, **options
      ),
    ):
      with self.assertRaisesRegex(TypeError, '_fn is .* a function of points'):
        call()

  @parameterized.parameters(
    (samplers.Langevin(0.1), target),
    (samplers.MALA(0.1), target),
    (samplers.Underdamped(0.1), target),
    (samplers.Tempered(samplers.MALA(0.1)), target),
    (samplers.Gibbs(), Correlated(0.5)),
  )
  def test_what_is_no_key_is_named(self, chain, target):
    with self.assertRaisesRegex(TypeError, 'rng is the int 0; allowed: a key'):
      chain(0, jnp.ones((3, 2)), target)

  def test_numbers_are_leaves(self):
    # Every step multiplies by 1 - delta^2 / 2.
    steps = jnp.array([0.5, 1.0, 1.5])
    chains = samplers.Langevin(steps, 3, noise=False)
    axes = samplers.Langevin(0, 3, False, noise_ratio=None, temperature=None)
    run = lambda chain: chain(jax.random.key(0), jnp.ones(2), self.target)[0]
    found = jax.vmap(run, in_axes=(axes,))(chains)
    factors = (1 - np.float64(steps) ** 2 / 2) ** 3
    np.testing.assert_allclose(
      found, np.column_stack([factors, factors]), rtol=1e-6
    )
    found = jax.vmap(lambda s: run(samplers.MALA(s, 2)))(steps)
    alone = [run(samplers.MALA(s, 2)) for s in steps]
    np.testing.assert_allclose(found, alone, rtol=1e-5)

  def test_a_target_has_the_gradient_of_its_density(self):
    # log p = -(|a|^2 + b^2) / 2 of a tree, and the score is minus the points.
    x = {'a': jnp.arange(6.0).reshape(3, 2), 'b': jnp.array([1.0, -2.0, 3.0])}
    chex.assert_trees_all_equal(self.target.score(x), _score(x))
    np.testing.assert_array_equal(
      self.target.log_density(x), [-1.0, -8.5, -25.0]
    )
    half = jnp.ones((2, 3), jnp.float16)
    self.assertEqual(self.target.score(half).dtype, jnp.float16)
    whole = samplers.target(lambda x: jnp.sum(x))
    for ask in (whole.score, whole.log_density):
      with self.assertRaisesRegex(ValueError, r'log_density has shape \(\)'):
        ask(jnp.ones((2, 3)))


class CallablesTest(parameterized.TestCase):
  """What a user's function returns is refused in words where it is traced."""

  @parameterized.parameters(
    (lambda x: x[:, :1], r'score has shape \(2, 1\); wanted: \(2, 3\)'),
    (lambda x: jnp.sum(x), r'score has shape \(\); wanted: \(2, 3\)'),
    (lambda x: x[0], r'score has shape \(3,\); wanted: \(2, 3\)'),
    (lambda x: {'a': x}, r'score has shape'),
  )
  def test_scores(self, score_fn, message):
    for num_steps in (0, 2):
      with self.assertRaisesRegex(ValueError, message):
        samplers.langevin(
          jax.random.key(0),
          jnp.ones((2, 3)),
          score_fn,
          step_size=0.1,
          num_steps=num_steps,
        )

  def test_scores_of_a_tree(self):
    # Leaf by leaf: the numbers of both shapes in a row are the same.
    x = {'a': jnp.ones((4, 2)), 'b': jnp.ones(4)}
    score = lambda x: {'a': x['b'], 'b': x['a']}
    with self.assertRaisesRegex(ValueError, 'score has shape'):
      samplers.langevin(jax.random.key(0), x, score, step_size=0.1, num_steps=1)

  @parameterized.parameters(
    (lambda x: -0.5 * jnp.sum(x**2), r'\(\); wanted: \(2,\)'),
    (lambda x: -0.5 * x[:, :1] ** 2, r'\(2, 1\); wanted: \(2,\)'),
    (lambda x: -0.5 * jnp.sum(x**2, 0), r'\(3,\); wanted: \(2,\)'),
  )
  def test_log_densities(self, log_density, message):
    message = 'log_density has shape ' + message
    with self.assertRaisesRegex(ValueError, message):
      samplers.mala(
        jax.random.key(0),
        jnp.ones((2, 3)),
        log_density,
        step_size=0.1,
        num_steps=1,
      )
    with self.assertRaisesRegex(ValueError, message):
      samplers.annealed_importance(
        jax.random.key(0),
        log_density,
        (3,),
        num_chains=2,
        num_temperatures=2,
        step_size=0.1,
      )

  def test_a_density_of_integers_is_flat(self):
    # Every proposal is as good as the start: a uniform law accepts nearly all.
    x, rate = samplers.mala(
      jax.random.key(0),
      jnp.zeros((50, 1)),
      lambda x: jnp.zeros(len(x), jnp.int32),
      step_size=0.1,
      num_steps=1,
    )
    self.assertEqual(rate, 1)
    self.assertGreater(np.std(x), 0)

  @parameterized.product(
    run=[_run_langevin, _run_mala, _run_underdamped],
    bad=[
      (jnp.ones(()), 'chains'),
      ({'a': jnp.ones(2), 'b': jnp.ones(3)}, 'of one n'),
      ({}, 'chains'),
      (jnp.ones((0, 2)), 'no chain'),
    ],
  )
  def test_starts(self, run, bad):
    x, message = bad
    with self.assertRaisesRegex(ValueError, message):
      run(jax.random.key(0), x, step_size=0.1, num_steps=1)

  @parameterized.parameters(
    (_run_langevin, 'step_size'),
    (_run_langevin, 'temperature'),
    (_run_langevin, 'noise_scale'),
    (_run_mala, 'step_size'),
  )
  def test_a_step_for_each_chain(self, run, name):
    options = {'step_size': 0.1, 'num_steps': 1, name: jnp.ones((2, 1))}
    with self.assertRaisesRegex(ValueError, rf'{name}.*\(2, 1\); wanted: \(\)'):
      run(jax.random.key(0), jnp.ones((2, 1)), **options)


class ArgumentsTest(chex.TestCase):
  @parameterized.parameters(
    ('langevin', {'step_size': 0.0}, 'step_size=0.0'),
    ('langevin', {'step_size': -1}, 'step_size=-1'),
    ('langevin', {'step_size': np.inf}, 'step_size=inf'),
    ('langevin', {'num_steps': -1}, 'num_steps=-1'),
    ('langevin', {'temperature': -0.5}, 'temperature=-0.5'),
    ('langevin', {'noise_scale': -2.0}, 'noise_scale=-2.0'),
    ('mala', {'step_size': np.nan}, 'step_size=nan'),
    ('mala', {'num_steps': 0}, 'num_steps=0'),
    ('mala', {'num_steps': 1.5}, 'num_steps=1.5'),
    ('ais', {'step_size': 0}, 'step_size=0'),
    ('langevin', {'num_steps': 1.5}, 'num_steps=1.5'),
    ('langevin', {'clip': (2, -2)}, r'clip=\(2, -2\)'),
    ('ais', {'num_chains': 0}, 'num_chains=0'),
    ('ais', {'init': np.ones((1, 2))}, r'init.*\(1, 2\).*\(2, 1\)'),
    ('ais', {'num_temperatures': 0}, 'num_temperatures=0'),
    ('ais', {'step_size': np.ones(2)}, r'step_size.*\(2,\)'),
    ('ais', {'base_scale': 0}, 'base_scale=0'),
    ('ais', {'base_mean': np.inf}, 'base_mean=inf'),
    ('ais', {'base_mean': np.ones(3)}, r'base_mean has shape \(3,\).*\(1,\)'),
    ('ais', {'base_mean': np.ones((2, 1))}, r'base_mean has shape \(2, 1\)'),
  )
  def test_refuses(self, name, keywords, message):
    rng, x = jax.random.key(0), jnp.ones((2, 1))
    chain = {'step_size': 0.1, 'num_steps': 1}
    ais = {'step_size': 0.1, 'num_chains': 2, 'num_temperatures': 2}
    with self.assertRaisesRegex(ValueError, message):
      if name == 'ais':
        samplers.annealed_importance(
          rng, _log_density, (1,), **{**ais, **keywords}
        )
      else:
        run = {'langevin': _run_langevin, 'mala': _run_mala}[name]
        run(rng, x, **{**chain, **keywords})


class LogMeanExpTest(absltest.TestCase):
  def test_log_mean_exp_of_none(self):
    with self.assertRaisesRegex(ValueError, 'no weights'):
      samplers.log_mean_exp(np.zeros(0))

  def test_log_mean_exp_of_half_precision(self):
    # 70,000 is no float16.
    values = jnp.full(70000, 3.0, jnp.float16)
    self.assertAlmostEqual(float(samplers.log_mean_exp(values)), 3, 5)

  def test_log_mean_exp(self):
    values = np.array([0.3, -2.0, 1.5], np.float32)
    self.assertAlmostEqual(
      float(samplers.log_mean_exp(values)), np.log(np.exp(values).mean()), 6
    )


if __name__ == '__main__':
  absltest.main()
