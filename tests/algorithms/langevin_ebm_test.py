"""Tests of energies learned from Langevin chains of their own."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
import optax
import pytest

from stein_jax import energies
from stein_jax import learners
from stein_jax import samplers
from stein_jax import stein
from stein_jax.algorithms import langevin_ebm
from tests import draws
from tests import literal
from tests import smoke


class StepTest(parameterized.TestCase):
  @parameterized.parameters(
    (literal.images(), dict(), dict()),
    (
      literal.images(conditional=True),
      dict(temperature=0.3),
      dict(energy_l2=0.2),
    ),
    (
      {'image': literal.normal(5)},
      dict(noise=False, clip=(-0.4, 0.3)),
      dict(start_scale=0.5),
    ),
  )
  def test_is_maximum_likelihood_by_chains(self, batch, options, hyper):
    vectors = batch['image'].ndim == 2
    energy = dict(name='MLP', widths=(4,)) if vectors else literal.CONV_NET
    config = ConfigDict(
      dict(energy=energy, optimizer=literal.SGD, num_chains=0)
    )
    chain = samplers.Langevin(0.4, num_steps=3, **options)
    state = langevin_ebm.init(jax.random.key(1), config, batch)
    self.enter_context(draws.fixed())
    step = functools.partial(langevin_ebm.step, chain=chain, **hyper)
    after, metrics = jax.jit(step)(state, batch, jax.random.key(0))
    data, *condition = batch.values()
    scale, energy_l2 = hyper.get('start_scale', 1.0), hyper.get('energy_l2', 0)
    start = scale * np.float32(2 * draws.uniforms(data.shape) - 1)
    samples = literal.chain(state.energy, chain, start, *condition)
    params, expected = literal.descended(
      state.energy.params,
      literal.contrast(
        state.energy, data, samples, *condition, energy_l2=energy_l2
      ),
    )
    close = functools.partial(chex.assert_trees_all_close, rtol=1e-4, atol=1e-5)
    close(after.energy.params, params)
    way = np.asarray(samples - start).reshape(len(data), -1)
    expected |= literal.watch(state.energy, chain, start, *condition)
    expected['chain/move'] = np.mean(np.sqrt(np.sum(way**2, 1)))
    close(metrics, expected)
    self.assertIsNone(after.chains)
    self.assertEqual(after.step, 1)

  def test_logs_the_discrepancy_of_its_chains(self):
    energy = literal.quadratic(literal.MEAN, np.log([1.0, 4.0]))
    chains = np.random.default_rng(1).normal(0, 3, (5, 2)).astype(np.float32)
    state = langevin_ebm.State(jnp.zeros((), int), energy, jnp.array(chains))
    step = functools.partial(
      langevin_ebm.step, ksd=stein.KSD(max_points=5), restart=0.0
    )
    batch = {'image': jnp.zeros((5, 2))}
    after, metrics = jax.jit(step)(state, batch, jax.random.key(0))
    ends = np.asarray(after.chains)
    score = np.array([1.0, 4.0]) * (literal.MEAN - ends)
    u = literal.imq_stein_matrix(ends, score, 1.0)
    expected = (u.sum() - np.trace(u)) / 5 / 4
    np.testing.assert_allclose(metrics['chain/ksd'], expected, rtol=1e-4)

  @parameterized.parameters(
    (dict(restart=1.5), 'restart=1.5'),
    (dict(restart=-0.1), 'restart=-0.1'),
    (dict(start_scale=0.0), 'start_scale=0.0'),
    (dict(energy_l2=-1.0), 'energy_l2=-1.0'),
    (dict(chain=samplers.MALA(0.1, 0)), 'chain.num_steps=0'),
    (dict(chain=samplers.Langevin(0.1, 0)), 'chain.num_steps=0'),
    (dict(chain=samplers.Langevin(0.0)), 'chain.step_size=0.0'),
    (dict(chain=samplers.Langevin(0.1, temperature=-1.0)), 'temperature=-1.0'),
    (
      dict(chain=samplers.Langevin(0.1, clip=(1.0, -1.0))),
      'clip=.*low < high',
    ),
    (dict(chain=lambda rng, x, target: x), 'chain: The chain returns'),
  )
  def test_bad_arguments(self, hyper, message):
    state = langevin_ebm.State(
      jnp.zeros((), int), literal.quadratic(literal.MEAN, 0), None
    )
    batch = {'image': jnp.zeros((4, 2))}
    with self.assertRaisesRegex(ValueError, message):
      jax.eval_shape(
        functools.partial(langevin_ebm.step, **hyper),
        state,
        batch,
        jax.random.key(0),
      )


class Mixture(nn.Module):
  """A classifier with logits w_y.x + b_y - |x|^2 / 2: classes N(w_y, I)."""

  means: tuple[tuple[float, ...], ...]

  @nn.compact
  def __call__(self, x):
    w = self.param('w', lambda _: jnp.asarray(self.means))
    b = self.param('b', lambda _: jnp.arange(len(self.means)) / 4)
    x = x.reshape(len(x), -1)
    return x, x @ w.T + b[None] - 0.5 * jnp.sum(x**2, 1, keepdims=True)


class JEMTest(parameterized.TestCase):
  """A classifier as an energy, whose density is a known mixture [G20]."""

  means = ((1.0, -0.5), (0.2, 1.5), (-1.2, 0.3))

  def begin(self):
    energy = learners.create(
      jax.random.key(0),
      energies.MarginalLabel(Mixture(self.means)),
      optax.sgd(1.0),
      jnp.zeros((40, 2)),
    )
    rng = np.random.default_rng(5)
    batch = {
      'image': rng.normal(size=(40, 2)).astype(np.float32),
      'label': rng.integers(0, 3, 40),
    }
    return langevin_ebm.State(jnp.zeros((), jnp.int32), energy, None), batch

  @staticmethod
  def exact(rng, x, target):
    """Returns draws of the mixture, in the place of a chain."""
    p = target.energy.params['params']['classifier']
    class_rng, rng = jax.random.split(rng)
    weights = p['b'] + 0.5 * jnp.sum(p['w'] ** 2, 1)
    label = jax.random.categorical(class_rng, weights, shape=(len(x),))
    return p['w'][label] + jax.random.normal(rng, x.shape), {}

  def test_has_the_gradient_of_the_joint_likelihood(self):
    """log p(x, y) = f_y(x) - log Z, log Z = logsumexp(b + |w|^2 / 2) + d/2 log 2 pi."""
    state, batch = self.begin()
    step = functools.partial(
      langevin_ebm.step, chain=self.exact, label_weight=1.0
    )

    def update(rng):
      after, metrics = step(state, batch, rng)
      change = lambda name: (
        after.energy.params['params']['classifier'][name]
        - state.energy.params['params']['classifier'][name]
      )
      return change('w'), change('b'), metrics

    keys = jax.random.split(jax.random.key(1), 2000)
    w_change, b_change, metrics = jax.jit(jax.vmap(update))(keys)
    w, b = np.array(self.means), np.arange(3) / 4
    share = np.exp(b + 0.5 * np.sum(w**2, 1))
    share /= share.sum()
    hot = np.eye(3)[batch['label']]
    exact_w = hot.T @ batch['image'] / 40 - share[:, None] * w
    exact_b = hot.mean(0) - share
    for found, exact in ((w_change, exact_w), (b_change, exact_b)):
      error = found.std(0) / len(found) ** 0.5
      self.assertLess(np.max(np.abs(found.mean(0) - exact) / error), 4.5)
      self.assertGreater(np.max(np.abs(exact) / error), 20)
    logits = batch['image'] @ w.T + b
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    loss = -np.mean(np.log(p[np.arange(40), batch['label']]))
    np.testing.assert_allclose(metrics['energy/cross_entropy'], loss, rtol=1e-4)
    hits = np.mean(p.argmax(1) == batch['label'])
    np.testing.assert_allclose(metrics['energy/accuracy'], hits, rtol=1e-5)

  def test_the_weight_is_that_of_the_labels_alone(self):
    state, batch = self.begin()
    chain = samplers.Langevin(0.3, 2)
    run = lambda weight: jax.jit(
      functools.partial(langevin_ebm.step, chain=chain, label_weight=weight)
    )(state, batch, jax.random.key(0))[0].energy.params['params']['classifier']
    none, half, one = map(run, (0.0, 0.5, 1.0))
    for name, value in none.items():
      np.testing.assert_allclose(
        half[name] - value, (one[name] - value) / 2, atol=1e-5
      )
      self.assertGreater(np.max(np.abs(one[name] - value)), 1e-2)

  def test_modes_agree(self):
    state, batch = self.begin()
    step = functools.partial(
      langevin_ebm.step, chain=samplers.Langevin(0.3, 2), label_weight=1.0
    )
    with draws.fixed():
      smoke.assert_modes_agree(step, state, batch)

  def test_refusals(self):
    state, batch = self.begin()
    run = lambda batch=batch, **hyper: langevin_ebm.step(
      state, batch, jax.random.key(0), **hyper
    )
    with self.assertRaisesRegex(ValueError, 'label_weight=1.0 needs data with'):
      run({'image': batch['image']}, label_weight=1.0)
    with self.assertRaisesRegex(ValueError, 'label.*must be in 0, ..., 2'):
      run(batch | {'label': batch['label'] + 1}, label_weight=1.0)
    with self.assertRaisesRegex(ValueError, 'label_weight=-1.0 must be zero'):
      run(label_weight=-1.0)
    wrapped = learners.wrap(
      lambda p, x: jnp.sum((x - p) ** 2, 1),
      jnp.ones(()),
      optax.sgd(1.0),
      batch['image'],
    )
    with self.assertRaisesRegex(ValueError, 'no method logits; allowed: Marg'):
      energies.cross_entropy(wrapped, batch['image'], batch['label'])


class ChainsTest(parameterized.TestCase):
  """Chains that go on, under an energy whose descent has a closed form."""

  def state(self, chains):
    energy = literal.quadratic(literal.MEAN, np.log([1.0, 4.0]))
    return langevin_ebm.State(
      jnp.zeros((), jnp.int32), energy, jnp.asarray(chains, jnp.float32)
    )

  def descent(self, params, x, num_steps, step_size):
    """Returns the ends: every step is a contraction to the mean."""
    values = {k: np.asarray(v) for k, v in params['params'].items()}
    shrink = 1 - step_size**2 / 2 * np.exp(values['log_precision'])
    return values['mean'] + shrink**num_steps * (x - values['mean'])

  def mean_energy(self, params, x):
    values = {k: np.asarray(v) for k, v in params['params'].items()}
    precision = np.exp(values['log_precision'])
    return np.mean(np.sum(precision * (x - values['mean']) ** 2, 1)) / 2

  def test_persistent_chains_start_where_the_last_ended(self):
    hyper = dict(num_steps=3, step_size=0.4)
    chain = samplers.Langevin(**hyper, noise=False)
    step = jax.jit(
      functools.partial(langevin_ebm.step, chain=chain, restart=0.0)
    )
    chains = np.random.default_rng(1).normal(0, 3, (5, 2))
    state = self.state(chains)
    for seed, data in enumerate(literal.normal(3, 5)):
      # The energy that moves them is the one before the step.
      chains = self.descent(state.energy.params, chains, **hyper)
      before = state.energy.params
      state, metrics = step(state, {'image': data}, jax.random.key(seed))
      np.testing.assert_allclose(state.chains, chains, rtol=1e-4, atol=1e-5)
      self.assertAlmostEqual(
        float(metrics['energy/samples']),
        self.mean_energy(before, chains),
        places=4,
      )
      # At rate 1/2 the means moved: the next step has another energy.
      shift = state.energy.params['params']['mean'] - before['params']['mean']
      self.assertGreater(np.max(np.abs(shift)), 0.05)

  def test_a_buffer_keeps_the_rows_that_were_not_drawn(self):
    """1000 steps from one buffer: rows are drawn and restarted by chance."""
    rows, drawn, restart = 10, 4, 0.3
    hyper = dict(num_steps=2, step_size=0.3)
    chains = 100 + np.random.default_rng(1).normal(size=(rows, 2))
    state = self.state(chains)
    batch = {'image': literal.normal(drawn)}
    keys = jax.random.split(jax.random.key(0), 1000)

    def ends(rng, restart):
      after, _ = langevin_ebm.step(
        state,
        batch,
        rng,
        chain=samplers.Langevin(**hyper, noise=False),
        restart=restart,
        start_scale=3.0,
      )
      return after.chains

    many = jax.jit(jax.vmap(ends, in_axes=(0, None)))
    after = np.asarray(many(keys, restart))
    moved = self.descent(state.energy.params, chains, **hyper)
    same = lambda x: np.all(np.isclose(after, x, rtol=1e-5), -1)
    stayed, went_on = same(np.float32(chains)), same(moved)
    # What started afresh ends within the contraction of [-3, 3].
    low, high = (
      self.descent(state.energy.params, np.full(2, end), **hyper)
      for end in (-3.0, 3.0)
    )
    fresh = np.all((after > low - 1e-5) & (after < high + 1e-5), -1)
    np.testing.assert_array_equal(1 * stayed + 1 * went_on + 1 * fresh, 1)
    np.testing.assert_array_equal(np.sum(stayed, 1), rows - drawn)
    # Standard errors: sqrt(0.4 0.6 / 1000) = 0.016 and sqrt(0.3 0.7 / 4000) =
    # 0.007; of the mean of 2400 uniforms (3 / sqrt(3)) / sqrt(1200) = 0.05.
    np.testing.assert_allclose(np.mean(~stayed, 0), drawn / rows, atol=0.065)
    self.assertAlmostEqual(np.sum(fresh) / 4000, restart, delta=0.03)
    # Each by its own chance: binomial numbers of four, 0.84 +- 0.04.
    self.assertAlmostEqual(np.var(np.sum(fresh, 1)), 4 * 0.3 * 0.7, delta=0.15)
    share = (after[fresh] - low) / (high - low)
    np.testing.assert_allclose(np.mean(share, 0), 0.5, atol=0.04)
    np.testing.assert_allclose(np.min(share, 0), 0, atol=0.03)
    np.testing.assert_allclose(np.max(share, 0), 1, atol=0.03)
    # Of the same draws, all and none start afresh.
    after = np.asarray(many(keys, 1.0))
    drawn_to_noise = np.all(after < high + 1e-5, -1)
    np.testing.assert_array_equal(drawn_to_noise, ~stayed)
    after = np.asarray(many(keys, 0.0))
    np.testing.assert_array_equal(same(moved), ~stayed)

  @parameterized.parameters(0, 4, 9)
  def test_first_chains(self, num_chains):
    config = ConfigDict(
      dict(
        energy=dict(name='MLP', widths=(3,)),
        optimizer=literal.SGD,
        num_chains=num_chains,
        step=dict(start_scale=7.0),
      )
    )
    batch = {'image': jnp.zeros((4, 2))}
    state = langevin_ebm.init(jax.random.key(0), config, batch)
    if not num_chains:
      self.assertIsNone(state.chains)
      return
    self.assertEqual(state.chains.shape, (num_chains, 2))
    largest = np.max(np.abs(state.chains))
    self.assertLess(largest, 7)
    self.assertGreater(largest, 3.5)  # chance 2^-8 at most of failing

  @parameterized.parameters(
    (3, False, 'num_chains=3 must be 0 or at least batch_size=4'),
    (-1, False, 'num_chains=-1 must be at least 0'),
    (4.0, False, 'num_chains=4.0 must be an integer'),
    (4, True, 'num_chains=4 needs data without conditions.*allowed: 0'),
    (8, True, 'num_chains=8 needs data without conditions.*allowed: 0'),
  )
  def test_bad_numbers_of_chains(self, num_chains, conditional, message):
    config = ConfigDict(
      dict(
        energy=literal.CONV_NET,
        optimizer=literal.SGD,
        num_chains=num_chains,
        step=dict(start_scale=1.0),
      )
    )
    with self.assertRaisesRegex(ValueError, message):
      langevin_ebm.init(
        jax.random.key(0), config, literal.images(4, conditional)
      )


class SampleTest(absltest.TestCase):
  def test_has_the_stationary_law(self):
    """Blocks of chains, each with noise of its own, at temperature 1/2."""
    energy = literal.quadratic(
      literal.MEAN, -np.log(literal.VARIANCE), batch_size=700
    )
    state = langevin_ebm.State(jnp.zeros((), jnp.int32), energy, None)
    delta, temperature, num = 0.5, 0.5, 4000
    chain = samplers.Langevin(delta, 80, temperature=temperature)
    draw = functools.partial(langevin_ebm.sample, chain=chain)
    x = np.asarray(
      jax.jit(draw, static_argnums=2)(state, jax.random.key(0), num)
    )
    self.assertEqual(x.shape, (num, 2))
    self.assertLen(np.unique(x[:, 0]), num)
    # Of y' = c y + sqrt(T) delta xi, c = 1 - delta^2 precision / 2: the start is
    # forgotten to c^80 = (15/16)^80 = 0.006, the variance is T delta^2 / (1 - c^2).
    shrink = 1 - delta**2 / (2 * literal.VARIANCE)
    variance = temperature * delta**2 / (1 - shrink**2)
    error = np.abs(x.mean(0) - literal.MEAN) / (variance / num) ** 0.5
    self.assertLess(np.max(error), 4.5)  # and 0.006 x 1 of the start: 0.4
    error = np.abs(x.var(0) / variance - 1) / (2 / num) ** 0.5
    self.assertLess(np.max(error), 4)

  def test_persistent_chains_go_on(self):
    energy = literal.quadratic(literal.MEAN, [0.0, 0.0], batch_size=4)
    chains = np.arange(10.0).reshape(5, 2)
    state = langevin_ebm.State(
      jnp.zeros((), jnp.int32), energy, jnp.array(chains)
    )
    draw = functools.partial(
      langevin_ebm.sample, chain=samplers.Langevin(1.0, 1, noise=False)
    )
    rows = lambda x: {tuple(row) for row in np.asarray(x).tolist()}
    ends = rows((literal.MEAN + chains) / 2)  # halfway to the mean
    self.assertEqual(rows(draw(state, jax.random.key(0), 5)), ends)
    self.assertLess(rows(draw(state, jax.random.key(0), 3)), ends)
    many = draw(state, jax.random.key(0), 50)
    self.assertLen(many, 50)
    self.assertEqual(rows(many), ends)

  def test_without_noise_is_the_descent_from_uniform_noise(self):
    energy = literal.quadratic(literal.MEAN, [0.0, 0.0], batch_size=4)
    state = langevin_ebm.State(jnp.zeros((), jnp.int32), energy, None)
    x = langevin_ebm.sample(
      state,
      jax.random.key(3),
      6,
      chain=samplers.Langevin(
        1.0, 2, noise=False
      ),  # halves the way to the mean
      start_scale=2.0,
    )
    start = literal.MEAN + 4 * (np.asarray(x) - literal.MEAN)
    self.assertLess(np.max(np.abs(start)), 2)
    self.assertGreater(np.max(np.abs(start)), 1)
    self.assertLen(np.unique(x), 12)


class LearningTest(parameterized.TestCase):
  def fixed_point(self, delta, num_steps, restart):
    """Returns the mean and precision whose chains have the data's moments.

    A chain y' = c y + delta xi about the mean, c = 1 - delta^2 p / 2, starts at
    U(-1, 1) and ends after num_steps times n, where n is geometric with chance
    `restart`: E c^n in closed form. Its variance falls with p, on a grid.
    """
    precision = np.linspace(0.3, 2.5, 10_000)[:, None]
    shrink = 1 - delta**2 / 2 * precision
    power = lambda x: restart * x / (1 - (1 - restart) * x)
    once, twice = power(shrink**num_steps), power(shrink ** (2 * num_steps))
    mean = literal.MEAN / (1 - once)
    stationary = delta**2 / (1 - shrink**2)
    square = (1 - twice) * stationary + twice * (1 / 3 + mean**2)
    nearest = np.argmin(
      np.abs(square - (mean * once) ** 2 - literal.VARIANCE), 0
    )
    return mean[nearest, [0, 1]], precision[nearest, 0]

  @parameterized.parameters(
    dict(num_chains=0, num_steps=30),
    dict(num_chains=1000, num_steps=5),
  )
  @pytest.mark.slow
  def test_moments_of_a_normal_law(self, num_chains, num_steps):
    delta, restart = 0.5, 0.02
    energy = literal.quadratic([0.0, 0.0], [0.0, 0.0], optimizer=optax.sgd(0.1))
    chains = None
    if num_chains:
      chains = jax.random.uniform(jax.random.key(1), (num_chains, 2))
    state = langevin_ebm.State(jnp.zeros((), jnp.int32), energy, chains)
    step = functools.partial(
      langevin_ebm.step,
      chain=samplers.Langevin(delta, num_steps),
      restart=restart,
    )
    _, path = literal.learned(
      step, state, literal.normal(500, 200), jax.random.key(0)
    )
    found = literal.last_half(path[0].energy.params['params'])
    mean, precision = self.fixed_point(
      delta, num_steps, restart if num_chains else 1.0
    )
    # The largest errors in eight seeds: 0.02 and 0.04.
    np.testing.assert_allclose(found['mean'], mean, atol=0.05)
    np.testing.assert_allclose(
      found['log_precision'], np.log(precision), atol=0.08
    )

  def test_energy_l2_holds_energies_near_0(self):
    """The likelihood does not know the offset; with the penalty it falls."""
    energy = literal.quadratic(
      literal.MEAN,
      -np.log(literal.VARIANCE),
      offset=9.0,
      optimizer=optax.sgd(0.1),
    )
    state = langevin_ebm.State(jnp.zeros((), jnp.int32), energy, None)

    def run(weight):
      step = functools.partial(
        langevin_ebm.step, chain=samplers.Langevin(0.7, 10), energy_l2=weight
      )
      return literal.learned(
        step, state, literal.normal(300, 100), jax.random.key(0)
      )

    state, (_, metrics) = jax.vmap(run)(jnp.array([0.0, 0.05]))
    offset = state.energy.params['params']['offset']
    self.assertAlmostEqual(float(offset[0]), 9, places=3)
    without, penalised = np.mean(metrics['energy/data'][:, 150:], 1)
    # E - offset is near half a chi-square of two degrees: 1 on average. Penalised,
    # 0.09 to 0.10 in six seeds: shrunk as well as shifted.
    self.assertGreater(without, 9)
    self.assertLess(abs(penalised), 0.2)


if __name__ == '__main__':
  absltest.main()
