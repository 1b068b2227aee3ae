"""Tests of SteinGAN against steps by hand, SteinCD, and its own mapped forms."""

import functools
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import chex
from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import steingan_mnist
from stein_jax import controllers
from stein_jax import energies
from stein_jax import generators
from stein_jax import kernels
from stein_jax import learners
from stein_jax import parallel
from stein_jax import stein
from stein_jax.algorithms import maximum_likelihood
from stein_jax.algorithms import stein_cd
from stein_jax.algorithms import steingan
from stein_jax.energies import values
from stein_jax.generators import drawing
from stein_jax.runs import configs
from tests import literal
from tests import smoke
from tests.energies import models

_NO_KERNEL = dict(direction=stein.Score())
_FEATURES = dict(direction=stein.FeatureSVGD())


def _run(state, batch, rng=None, **hyper):
  """Returns the state after a compiled step."""
  rng = jax.random.key(0) if rng is None else rng
  step = jax.jit(functools.partial(steingan.step, **hyper))
  return step(state, batch, rng)[0]


def _moved(before, after):
  """Returns what a step added to a learner's trained parameters."""
  return jax.tree.map(
    np.subtract, after.params['params'], before.params['params']
  )


class StepTest(parameterized.TestCase):
  @parameterized.parameters(
    dict(kernel='none'),
    dict(normalize='row_sum', bandwidth_scale=3.0, num_generator_steps=3),
    dict(weight=0.3, bandwidth=2.5),
    dict(negatives='fresh', bandwidth_log='n', num_generator_steps=2),
    dict(bandwidth_log='none', kernel='imq'),
    dict(kernel_space='features', num_generator_steps=2, kernel='imq'),
    dict(
      kernel_space='features',
      repulsion='swapped',
      normalize='row_sum',
      bandwidth=0.7,
    ),
    dict(kernel_space='features', repulsion='nearest', bandwidth_scale=0.25),
  )
  def test_by_hand(self, weight=1.0, **hyper):
    # Covers that the energy sees the samples of before the last update, or of after
    # it [WL16 alg 2], that
    # without a kernel each sample has its own score, and that 1 - gamma scales
    # the negative phase alone.
    self.enter_context(jax.enable_x64(True))
    x = literal.rbm_data(7)
    state = literal.rbm_state(x)
    energy, generator = literal.steingan_step(state, x, weight=weight, **hyper)
    game = {
      name: hyper.pop(name)
      for name in ('num_generator_steps', 'negatives')
      if name in hyper
    }
    direction = literal.direction(**hyper)
    after = _run(
      state, {'image': x}, negative_weight=weight, direction=direction, **game
    )
    close = functools.partial(np.testing.assert_allclose, atol=1e-12)
    jax.tree.map(close, _moved(state.energy, after.energy), energy)
    jax.tree.map(close, _moved(state.generator, after.generator), generator)
    steps = game.get('num_generator_steps', 1)
    self.assertEqual(
      [int(s) for s in (after.step, after.energy.step, after.generator.step)],
      [1, 1, steps],
    )

  @parameterized.parameters(stein.SVGD(), stein.FeatureSVGD())
  def test_of_one_sample_the_kernel_is_nothing(self, direction):
    self.enter_context(jax.enable_x64(True))
    x = literal.rbm_data(1)
    state = literal.rbm_state(x)
    _, expected = literal.steingan_step(state, x, kernel='none')
    after = _run(state, {'image': x}, direction=direction)
    chex.assert_trees_all_close(
      _moved(state.generator, after.generator), expected, atol=1e-12
    )

  def test_a_direction_with_noise(self):
    x, noise, rng = literal.rbm_data(7), literal.Noise(), jax.random.key(5)
    state, batch = literal.rbm_state(np.float32(x)), {'image': np.float32(x)}
    step = functools.partial(
      steingan.step, direction=noise, num_generator_steps=2, alpha=1.0
    )
    after, metrics = jax.jit(step)(state, batch, rng)
    # The bias of the generator moves by the mean of phi in each of its steps, and the
    # data, which are the negatives, by another.
    data, *each = (noise.at(jax.random.split(rng)[0], i) for i in range(3))
    self.assertLen({data, *each}, 3)
    moved = _moved(state.generator, after.generator)['b']
    np.testing.assert_allclose(moved, np.full((1, 4), sum(each)), rtol=1e-5)
    np.testing.assert_allclose(
      metrics['samples/move'], 0.1 * data * 2, rtol=1e-4
    )

  def test_a_direction_that_asks_for_more(self):
    self.enter_context(jax.enable_x64(True))
    x = literal.rbm_data(1)
    state = literal.rbm_state(x)._replace(step=jnp.array(5))
    start = jax.tree.map(np.asarray, state.generator.params['params'])
    samples = np.tanh(literal.LATENT[:1] @ start['W']) @ start['V'] + start['b']
    score = literal.steingan_direction(samples, kernel='none')
    truth = literal.RBM_TRUTH
    log_density = lambda x: (
      -jnp.sum((x - truth['bias']) ** 2) / 2
      + jnp.sum(jnp.log(jnp.cosh(x @ truth['weight'] + truth['hidden_bias'])))
    )
    newton = stein.NewtonSVGD()
    half = stein.Annealed(stein.Score(), stein.LinearRise(num_steps=10))
    for direction, expected in (
      (half, score / 2),
      (newton, newton(samples, score, log_density=log_density)),
    ):
      after = _run(state, {'image': x}, direction=direction)
      np.testing.assert_allclose(
        _moved(state.generator, after.generator)['b'], expected, rtol=1e-6
      )

  def test_every_generator_step_has_noise_of_its_own(self):
    x = jnp.asarray(literal.rbm_data(4), jnp.float32)
    generator = generators.create(
      jax.random.key(1), generators.MLP(dim=4, widths=()), optax.sgd(1.0), 4
    )
    state = literal.rbm_state(x)._replace(generator=generator)
    generate, keys = drawing.generate, []

    def spy(generator, params, rng, num, **kwargs):
      keys.append(jax.random.key_data(rng))
      return generate(generator, params, rng, num, **kwargs)

    @jax.jit
    def seen(rng):
      with mock.patch.object(drawing, 'generate', spy):
        steingan.step(
          state, {'image': x}, rng, num_generator_steps=3, negatives='fresh'
        )
      return keys

    # The fourth are the energy's.
    self.assertLen(
      {tuple(np.asarray(key)) for key in seen(jax.random.key(0))}, 4
    )

  @parameterized.parameters(
    (True, 'pixels'), (True, 'features'), (False, 'features')
  )
  def test_an_energy_that_normalises_its_batch(self, joint, kernel_space):
    # Samples are scored, and have their features, in the batch in which they meet
    # the energy's loss.
    n = 6
    data = jax.random.normal(jax.random.key(0), (n, 2, 2, 1))
    state = literal.steingan_state(
      literal.encoder(n, (2, 2, 1), norm=True),
      literal.fixed_generator(n, (2, 2, 1)),
    )
    energy, generator = state.energy, state.generator
    draw = lambda params: generator.apply_fn(params, None, n)
    samples = draw(generator.params)

    def halves(params, x, method=None):
      call = functools.partial(energy.apply_fn, params, method=method)
      if not joint:
        return call(data), call(x)
      both = call(jnp.concatenate([data, x]))
      return both[:n], both[n:]

    @jax.jit
    def expected():
      score = -jax.grad(lambda x: jnp.sum(halves(energy.params, x)[1]))(samples)
      features = lambda x: halves(energy.params, x, 'features')[1]
      flat = samples.reshape(n, -1)
      if kernel_space == 'pixels':
        phi = stein.svgd_direction(flat, score.reshape(n, -1), kernels.RBF())
      else:
        phi = stein.feature_svgd_direction(
          samples, score, features, kernels.RBF()
        )
      mean = lambda pair: jnp.mean(pair[0]) - jnp.mean(pair[1])
      return (
        jax.grad(lambda p: mean(halves(p, samples)))(energy.params),
        jax.vjp(draw, generator.params)[1](phi.reshape(samples.shape) / n)[0],
      )

    loss_slope, pull = expected()
    after = _run(
      state,
      {'image': data},
      joint=joint,
      direction=literal.direction(kernel_space=kernel_space),
      controller=controllers.Speed(),
    )
    close = functools.partial(chex.assert_trees_all_close, rtol=1e-4, atol=1e-5)
    down = jax.tree.map(jnp.negative, loss_slope)
    close(_moved(energy, after.energy), down['params'])
    close(_moved(generator, after.generator), pull['params'])
    # The gap is of the updated energy, on the same samples.
    errors = halves(after.energy.params, samples, 'reconstruction_error')
    close(after.gap, jnp.mean(errors[0]) - jnp.mean(errors[1]))

  @parameterized.parameters(
    (dict(direction=stein.SVGD(kernels.RBF(-1.0))), 'bandwidth=-1'),
    (dict(direction=stein.FeatureSVGD(form='far')), "form='far'"),
    (dict(direction=stein.SVGD(normalize='sum')), "normalize='sum'"),
    (dict(first_features=True), 'first_features=True.*`init`'),
    (dict(diversity='push'), "diversity='push'.*'batch_norm_entropy'"),
    (dict(diversity='batch_norm_entropy'), 'norm_gain'),
    (dict(diversity_weight=-1.0), 'diversity_weight=-1'),
    (dict(controller=controllers.Speed(-1.0)), 'factor=-1.0'),
    (dict(num_generator_steps=0), 'num_generator_steps=0'),
    (dict(negative_weight=-0.1), 'negative_weight=-0.1'),
    (dict(alpha=1.5), 'alpha=1.5'),
    (dict(alpha=-0.5), 'alpha=-0.5'),
    (dict(negatives='after'), "negatives='after'.*'fresh'"),
    (
      dict(direction=literal.direction(bandwidth_log='n-1')),
      "log='n-1'.*'none'",
    ),
  )
  def test_bad_arguments(self, hyper, message):
    x = jnp.asarray(literal.rbm_data(4), jnp.float32)
    batch = {'image': x}
    step = functools.partial(steingan.step, **hyper)
    with self.assertRaisesRegex(ValueError, message):
      jax.eval_shape(step, literal.rbm_state(x), batch, jax.random.key(0))


class DiscountTest(parameterized.TestCase):
  @parameterized.parameters(0.0, 0.7)
  def test_is_a_regularised_likelihood(self, gamma):
    # With exact samples as the generator's, the energy's mean step is the gradient
    # of the log likelihood plus gamma log Z [LW17 sec 5.2].
    class Exact(nn.Module):
      @nn.compact
      def __call__(self, rng, num):
        self.param('unused', nn.initializers.zeros, ())
        return truth.apply_fn(truth.params, rng, num, method='sample')

    x, num = jnp.asarray(literal.rbm_data(16), jnp.float32), 2000
    truth = literal.rbm_state(x).energy
    generator = generators.create(
      jax.random.key(1), Exact(), optax.sgd(1.0), len(x)
    )
    start = literal.steingan_state(truth, generator)

    @jax.jit
    @jax.vmap
    def energy(rng):
      return steingan.step(
        start, {'image': x}, rng, negative_weight=1 - gamma, **_NO_KERNEL
      )[0].energy.params['params']

    ends = energy(jax.random.split(jax.random.key(0), num))
    expected = literal.ascent(
      maximum_likelihood,
      literal.at_truth(maximum_likelihood, x),
      x,
      negative_weight=1 - gamma,
    )
    for name, start in truth.params['params'].items():
      moved = np.asarray(ends[name] - start[None], np.float64)
      error = np.std(moved, 0) / num**0.5
      self.assertGreater(np.min(error), 0)
      # Of 14 parameters; and rounding.
      np.testing.assert_array_less(
        np.abs(np.mean(moved, 0) - expected[name]), 5 * error + 1e-6
      )


class FirstFeaturesTest(absltest.TestCase):
  def test_kernel_keeps_to_the_energy_of_the_start(self):
    # The energy has moved on from its first parameters: scores are its own, and the
    # kernel is of the first features.
    x = jnp.asarray(literal.rbm_data(6), jnp.float32)
    state = literal.rbm_state(x)
    first, generator = state.energy, state.generator
    moved = first.replace(params=jax.tree.map(lambda p: 0.5 * p, first.params))

    def expected():
      draw = lambda params: generator.apply_fn(params, None, len(x))
      samples, pull = jax.vjp(draw, generator.params)
      features = functools.partial(
        first.apply_fn, first.params, method='features'
      )
      phi = stein.feature_svgd_direction(
        samples,
        energies.score(moved, samples),
        features,
        kernels.RBF(),
      )
      return pull(phi / len(x))[0]['params']

    after = _run(
      state._replace(energy=moved, first=first.params),
      {'image': x},
      first_features=True,
      **_FEATURES,
    )
    close = functools.partial(chex.assert_trees_all_close, rtol=1e-4, atol=1e-6)
    close(_moved(generator, after.generator), jax.jit(expected)())
    close(after.first, first.params)
    other = _run(state._replace(energy=moved), {'image': x}, **_FEATURES)
    change = (
      after.generator.params['params']['V']
      - other.generator.params['params']['V']
    )
    self.assertGreater(np.max(np.abs(change)), 1e-3)

  def test_only_a_state_that_asks_for_them_holds_them(self):
    config = steingan_mnist.get_config('smoke')
    batch = {'image': jnp.zeros((8, 4, 4, 1))}
    start = lambda: steingan.init(jax.random.key(0), config, batch)
    self.assertIsNone(start().first)
    with self.assertRaisesRegex(ValueError, 'first_features.*`init`'):
      _run(start(), batch, first_features=True, **_FEATURES)
    config.step.first_features = True
    config.step.direction = dict(name='FeatureSVGD')
    state = start()
    chex.assert_trees_all_equal(state.first, state.energy.params)
    # Donation destroys a buffer once: they must not be shared.
    step = configs.step(config)
    after, _ = jax.jit(step, donate_argnums=0)(state, batch, jax.random.key(0))
    self.assertEqual(int(after.step), 1)


class DiversityTest(parameterized.TestCase):
  @parameterized.parameters(
    ('pulling_away', True), ('batch_norm_entropy', False)
  )
  def test_joins_the_generators_loss(self, diversity, joint):
    self.check(diversity, joint)

  @parameterized.parameters(
    ('pulling_away', False), ('batch_norm_entropy', True)
  )
  @pytest.mark.slow
  def test_it_does_in_the_other_company(self, diversity, joint):
    self.check(diversity, joint)

  def check(self, diversity, joint):
    # Without a kernel the loss is mean E(samples), and this.
    n, weight = 6, 0.7
    data = jax.random.normal(jax.random.key(0), (n, 2, 2, 1))
    generator = literal.fixed_generator(n, (2, 2, 1), norm=True, gain=True)
    energy = literal.encoder(n, (2, 2, 1), norm=True)

    def of_samples(samples, method):
      call = functools.partial(energy.apply_fn, energy.params, method=method)
      if not joint:
        return call(samples)
      return call(jnp.concatenate([data, samples]))[n:]

    def cosines(samples):
      e = of_samples(samples, 'features')
      square = lambda i, j: (e[i] @ e[j]) ** 2 / (e[i] @ e[i]) / (e[j] @ e[j])
      pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
      return sum(square(i, j) for i, j in pairs) / len(pairs)

    def loss(params):
      samples = generator.apply_fn(params, None, n)
      value = jnp.mean(of_samples(samples, '__call__'))
      if diversity == 'pulling_away':
        return value + weight * cosines(samples)
      gain = params['params']['BatchNorm_0']['gain']
      return value - weight * jnp.sum(jnp.log(jnp.abs(gain)))

    expected = jax.jit(jax.grad(loss))(generator.params)
    after = _run(
      literal.steingan_state(energy, generator),
      {'image': data},
      diversity=diversity,
      diversity_weight=weight,
      joint=joint,
      **_NO_KERNEL,
    )
    chex.assert_trees_all_close(
      _moved(generator, after.generator),
      jax.tree.map(jnp.negative, expected)['params'],
      rtol=1e-4,
      atol=1e-5,
    )

  def test_stands_beside_the_kernel(self):
    # What it adds to a step does not depend on the kernel's direction.
    x = jnp.asarray(literal.rbm_data(6), jnp.float32)
    state = literal.rbm_state(x)

    def added(direction):
      runs = [
        _run(state, {'image': x}, direction=direction, diversity=name).generator
        for name in ('pulling_away', 'none')
      ]
      return jax.tree.map(np.subtract, *(run.params for run in runs))

    alone, beside = added(stein.Score()), added(stein.SVGD())
    largest = max(np.max(np.abs(leaf)) for leaf in jax.tree.leaves(alone))
    self.assertGreater(largest, 1e-2)
    chex.assert_trees_all_close(alone, beside, atol=1e-5)


class ConditionalTest(absltest.TestCase):
  """Of E(x, y) = |x - m_y|^2 / 2 and G = g_y."""

  def _start(self, data, label):
    class Energy(nn.Module):
      @nn.compact
      def __call__(self, x, y):
        mean = self.param('m', nn.initializers.normal(), (3, 2))
        return 0.5 * jnp.sum((x - mean[y]) ** 2, -1)

    class Generator(nn.Module):
      @nn.compact
      def __call__(self, rng, num, *, label):
        chex.assert_shape(label, (num,))
        return self.param('g', nn.initializers.normal(), (3, 2))[label]

    sgd = optax.sgd(1.0)
    return literal.steingan_state(
      learners.create(jax.random.key(1), Energy(), sgd, data, label),
      generators.create(jax.random.key(2), Generator(), sgd, 5, label),
    )

  def test_steincd_negatives_keep_the_labels_of_data(self):
    label = np.array([0, 2, 2, 0, 2])
    data = np.random.default_rng(0).normal(size=(5, 2))
    state = self._start(jnp.float32(data), jnp.asarray(label))
    after = _run(
      state,
      {'image': jnp.float32(data), 'condition': label},
      alpha=1.0,
      epsilon=0.4,
    )
    m = np.float64(state.energy.params['params']['m'])
    sq_dist = [[np.sum((a - b) ** 2) for a in data] for b in data]
    h = np.median(sq_dist) / np.log(6)
    expected = np.zeros((3, 2))
    for i, y in enumerate(label):
      phi = np.zeros(2)
      for j, of_j in enumerate(label):
        k = np.exp(-sq_dist[i][j] / h)
        # The score of x_j is that of its own label, m - x.
        phi += k * (m[of_j] - data[j]) + 2 / h * k * (data[i] - data[j])
      # Of (x - m_y) of data, less that of what it moved to.
      expected[y] += -0.4 * phi / 5 / 5
    np.testing.assert_allclose(
      _moved(state.energy, after.energy)['m'], expected, atol=1e-6
    )

  def test_by_hand(self):
    # Labels are the batch's in both.
    label = jnp.array([0, 2, 2, 0, 2])  # none of class 1
    data = jax.random.normal(jax.random.key(0), (5, 2))
    state = self._start(data, label)
    after = _run(
      state,
      {'image': data, 'condition': label},
      negative_weight=0.3,
      **_NO_KERNEL,
    )
    m = state.energy.params['params']['m']
    g = state.generator.params['params']['g']
    share = jnp.array([2, 0, 3])[:, None] / 5
    of_class = jnp.zeros((3, 2)).at[label].add(data) / 5
    # The score m_y - g_y moves g_y; data pull m_y to them, samples push it off.
    np.testing.assert_allclose(
      _moved(state.generator, after.generator)['g'],
      share * (m - g),
      atol=1e-6,
    )
    np.testing.assert_allclose(
      _moved(state.energy, after.energy)['m'],
      of_class - share * m - 0.3 * share * (g - m),
      atol=1e-6,
    )


class SteinCDGANTest(parameterized.TestCase):
  def test_with_all_negatives_of_steincd(self):
    self.enter_context(jax.enable_x64(True))
    x = literal.rbm_data(7)
    hyper = dict(kernel='imq', normalize='row_sum', bandwidth_scale=3.0)
    state, direction = literal.rbm_state(x), literal.direction(**hyper)
    after = _run(
      state, {'image': x}, alpha=1.0, epsilon=0.3, direction=direction
    )
    close = functools.partial(chex.assert_trees_all_close, atol=1e-12)
    expected = literal.ascent(
      stein_cd,
      literal.at_truth(stein_cd, x),
      x,
      epsilon=0.3,
      direction=direction,
    )
    close(_moved(state.energy, after.energy), expected)
    # The generator goes on as without them.
    _, expected = literal.steingan_step(state, x, **hyper)
    close(_moved(state.generator, after.generator), expected)

  @parameterized.parameters((0.0, 0), (0, 0), (0.25, 2))
  def test_without_them_they_cost_nothing(self, alpha, num_scores):
    # Without them the score comes with the contrast, from one pass.
    x = jnp.asarray(literal.rbm_data(4), jnp.float32)
    step = functools.partial(steingan.step, alpha=alpha)
    with mock.patch.object(values, 'score', wraps=values.score) as score:
      jax.eval_shape(
        step, literal.rbm_state(x), {'image': x}, jax.random.key(0)
      )
    self.assertEqual(score.call_count, num_scores)

  def test_a_step_has_all_negatives_of_one_kind(self):
    x = jnp.asarray(literal.rbm_data(4), jnp.float32)
    state, num = literal.rbm_state(x), 400
    keys = jax.random.split(jax.random.key(0), num)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None))
    def bias(rng, alpha):  # a traced one, too
      after, _ = steingan.step(
        state, {'image': x}, rng, alpha=alpha, **_NO_KERNEL
      )
      return after.energy.params['params']['bias']

    from_generator, from_data = (bias(keys, alpha)[:1] for alpha in (0.0, 1.0))
    self.assertGreater(np.max(np.abs(from_generator - from_data)), 0.1)
    for alpha in (0.5, 0.1):
      mixed = bias(keys, alpha)
      chosen = np.max(np.abs(mixed - from_data), 1) < 1e-5
      np.testing.assert_array_equal(
        np.max(np.abs(mixed - from_generator), 1) < 1e-5, ~chosen
      )
      error = (alpha * (1 - alpha) / num) ** 0.5
      self.assertAlmostEqual(np.mean(chosen), alpha, delta=4 * error)

  def test_devices_choose_together(self):
    x = np.float32(literal.rbm_data(8))
    state = literal.rbm_state(jnp.asarray(x))
    keys = jax.random.split(jax.random.key(0), 8)
    hyper = dict(alpha=0.5, **_NO_KERNEL)
    one = lambda rng: steingan.step(state, {'image': x}, rng, **hyper)[0]
    whole = jax.jit(jax.vmap(one))(keys).energy.params
    rows = {'image': x.reshape(4, 2, 4)}
    step = functools.partial(steingan.step, axis_name='batch', **hyper)
    local = lambda rng: jax.vmap(step, (None, 0, None), axis_name='batch')(
      state, rows, rng
    )[0]
    shards = jax.jit(jax.vmap(local))(keys).energy.params
    # Both occur; a mixture over the devices would be neither.
    spread = np.ptp(whole['params']['bias'], axis=0)
    self.assertGreater(np.max(spread), 0.1)
    for device in range(4):
      chex.assert_trees_all_close(
        jax.tree.map(lambda leaf: leaf[:, device], shards),
        whole,
        atol=1e-5,
      )


@functools.lru_cache
def _phases():
  """Returns data, a state, what a step adds with data alone, and with samples."""
  data = jax.random.normal(jax.random.key(0), (4, 3))
  state = literal.steingan_state(
    literal.encoder(4, (3,)), literal.fixed_generator(4, (3,))
  )

  @jax.jit
  def energy(negative_weight):
    return steingan.step(
      state,
      {'image': data},
      jax.random.key(0),
      negative_weight=negative_weight,
      **_NO_KERNEL,
    )[0].energy

  pull, whole = (_moved(state.energy, energy(w)) for w in (0.0, 1.0))
  return data, state, pull, whole


_CONTROLLERS = {
  'none': controllers.Fixed(),
  'discount': controllers.Discount(),
  'discount_printed': controllers.Discount(when='behind'),
  'speed': controllers.Speed(),
  'freeze': controllers.Freeze(),
  'freeze_ahead': controllers.FreezeAhead(),
}


class ControllerTest(parameterized.TestCase):
  # By gap, error on data less that on samples: what the weight 0.3 is multiplied
  # by, the rate is multiplied by, and whether the energy stays as it is.
  _GAPS = (-0.7, -0.2, 0.0, 0.2, 0.7)
  _TABLE = {
    'none': [(1, 1, False)] * 5,
    'discount': [(1 / 3, 1, False)] * 3 + [(1, 1, False)] * 2,
    # Of 0.3 = 1 - 0.7 a third is 1 - 0.9.
    'discount_printed': [(1, 1, False)] * 3 + [(1 / 3, 1, False)] * 2,
    'speed': [(1, 1, False)] * 3 + [(1, 5, False)] * 2,
    'freeze': [
      (1, 1, True),
      (1, 1, False),
      (1, 1, False),
      (1, 5, False),
      (1, 5, True),
    ],
    'freeze_ahead': [
      (1 / 3, 1, True),
      (1 / 3, 1, False),
      (1 / 3, 1, False),
      (1, 5, False),
      (1, 5, False),
    ],
  }

  @parameterized.parameters(*_TABLE)
  def test_rules(self, controller):
    data, state, pull, whole = _phases()

    @jax.jit
    @jax.vmap
    def step(gap):
      return steingan.step(
        state._replace(gap=gap),
        {'image': data},
        jax.random.key(0),
        negative_weight=0.3,
        controller=_CONTROLLERS[controller],
        **_NO_KERNEL,
      )[0]

    after = step(jnp.array(self._GAPS))
    samples = state.generator.apply_fn(state.generator.params, None, 4)
    for i, (discount, rate, frozen) in enumerate(self._TABLE[controller]):
      with self.subTest(gap=self._GAPS[i]):
        end = jax.tree.map(lambda leaf: leaf[i], after)
        self.assertEqual(end.generator.step, 1)
        self.assertEqual(end.energy.step, 0 if frozen else 1)
        if frozen:
          chex.assert_trees_all_equal(
            (end.energy.params, end.energy.opt_state),
            (state.energy.params, state.energy.opt_state),
          )
        else:
          # The loss is linear in the weight.
          expected = jax.tree.map(
            lambda data, whole: rate * (data + 0.3 * discount * (whole - data)),
            pull,
            whole,
          )
          # Parameters are of order 1, and their changes not much smaller.
          chex.assert_trees_all_close(
            _moved(state.energy, end.energy), expected, rtol=1e-4, atol=1e-5
          )
        error = functools.partial(
          state.energy.apply_fn,
          end.energy.params,
          method='reconstruction_error',
        )
        gap = jnp.mean(error(data)) - jnp.mean(error(samples))
        if controller == 'none':
          gap = self._GAPS[i]  # nothing is measured
        np.testing.assert_allclose(end.gap, gap, rtol=1e-5)

  def test_one_of_ones_own_may_remember(self):
    class Patient:
      """Lets the energy learn in every third step; its state counts the steps."""

      needs_gap = False

      def init(self):
        return jnp.zeros((), jnp.int32)

      def update(self, gap, state):
        return controllers.Factors(frozen=state % 3 != 2), state + 1

    data, state, *_ = _phases()
    controller = Patient()
    state = state._replace(control=controller.init())
    learned = []
    for _ in range(6):
      after = _run(state, {'image': data}, controller=controller, **_NO_KERNEL)
      learned.append(int(after.energy.step) - int(state.energy.step))
      state = after
    self.assertEqual(learned, [0, 0, 1, 0, 0, 1])

  def test_needs_an_energy_that_reconstructs(self):
    x = jnp.asarray(literal.rbm_data(4), jnp.float32)
    step = functools.partial(steingan.step, controller=controllers.Discount())
    with self.assertRaisesRegex(AttributeError, 'reconstruction_error'):
      jax.eval_shape(
        step, literal.rbm_state(x), {'image': x}, jax.random.key(0)
      )


class DevicesTest(parameterized.TestCase):
  def test_updates_are_those_of_one_device(self):
    self.check('shard_map', _FEATURES)

  @parameterized.parameters(
    ('pmap', dict(joint=False, num_generator_steps=2)),
    ('shard_map', dict(diversity='pulling_away')),
    ('pmap', dict(diversity='pulling_away', joint=False)),
  )
  @pytest.mark.slow
  def test_so_are_those_of_others(self, mode, hyper):
    self.check(mode, hyper)

  def check(self, mode, hyper):
    # Both networks normalise over all devices.
    data = np.random.default_rng(0).normal(size=(8, 2, 2, 1))
    data = np.float32(data)
    state = literal.steingan_state(
      literal.encoder(8, (2, 2, 1), norm=True),
      literal.fixed_generator(8, (2, 2, 1), norm=True),
    )

    def run(mode):
      step = functools.partial(
        steingan.step, controller=controllers.Discount(), **hyper
      )
      compiled = parallel.compile_step(step, mode)
      start = parallel.replicate(jax.tree.map(jnp.copy, state))
      after, metrics = compiled(start, {'image': data}, jax.random.key(0))
      ends = after.energy.params, after.generator.params, after.gap, metrics
      return jax.tree.map(np.asarray, ends)

    chex.assert_trees_all_close(run(mode), run('jit'), rtol=1e-5, atol=1e-6)

  @parameterized.product(
    label=[False, True],
    hyper=[
      dict(alpha=1.0, controller=controllers.FreezeAhead()),
      dict(alpha=1.0, direction=stein.FeatureSVGD(form='nearest')),
      dict(
        alpha=1.0,
        joint=False,
        negatives='fresh',
        controller=controllers.Speed(),
      ),
      dict(negatives='fresh', num_generator_steps=2, **_FEATURES),
      dict(first_features=True, direction=stein.FeatureSVGD(form='swapped')),
      dict(
        diversity='pulling_away',
        controller=controllers.Freeze(),
        **_NO_KERNEL,
      ),
    ],
  )
  @pytest.mark.slow
  def test_of_the_papers_energies(self, label, hyper):
    energy = literal.mixing_energies()[
      'joint_label' if label else 'autoencoder'
    ]
    batch = {'image': literal.SMALL_IMAGES} | (
      {'condition': literal.SMALL_LABELS} if label else {}
    )
    step = functools.partial(steingan.step, **hyper)
    generator = literal.fixed_generator(
      8, literal.SMALL_IMAGES.shape[1:], norm=True
    )
    start = literal.steingan_state(energy, generator)
    if 'first_features' in hyper:
      first = jax.tree.map(lambda leaf: 0.5 * leaf, energy.params)
      start = start._replace(first=first)
    smoke.assert_modes_agree(step, start, batch)


class OnePassTest(parameterized.TestCase):
  """A pass of the energy serves phi and the contrast, where it does."""

  @parameterized.parameters(
    dict(),
    dict(num_generator_steps=2, negative_weight=0.3),
    dict(direction=stein.FeatureSVGD(), diversity='pulling_away'),
  )
  def test_so_do_two(self, **hyper):
    ours, flops = self.stepped(**hyper)
    with mock.patch.object(energies, 'has_one_pass', return_value=False):
      theirs, more_flops = self.stepped(**hyper)
    chex.assert_trees_all_close(ours, theirs, rtol=1e-5, atol=1e-6)
    self.assertLess(flops, more_flops)

  @parameterized.parameters(
    dict(negatives='fresh'), dict(alpha=0.5), dict(norm='batch')
  )
  def test_these_have_two(self, norm='none', **hyper):
    with mock.patch.object(
      energies, 'score_and_mean', side_effect=AssertionError
    ):
      self.stepped(norm, **hyper)

  def stepped(self, norm='none', **hyper):
    """Returns leaves of the state after a step and of its metrics, and its FLOPs."""
    data = models.images()
    energy = energies.Autoencoder(models.CONVS, norm=norm, dropout=0.0)
    start = literal.steingan_state(
      models.learner(energy, optax.sgd(1.0)),
      literal.fixed_generator(len(data), data.shape[1:]),
    )
    step = functools.partial(steingan.step, **hyper)
    arguments = start, {'image': data}, jax.random.key(0)
    compiled = jax.jit(step).lower(*arguments).compile()
    return jax.tree.leaves(compiled(*arguments)), compiled.cost_analysis()[
      'flops'
    ]


class LearningTest(parameterized.TestCase):
  # On eighteen seeds the likelihood ended 0.2 to 0.6 nats below the truth's, 0.34
  # +- 0.13, and without a kernel 7 to 83 below, where a start is 5 below. The
  # samples' variance, 10 for data and 4 for one of the model's Gaussians, was over
  # the last quarter never below 2.0, and without a kernel at times below 0.1.
  @parameterized.parameters(
    (stein.SVGD(normalize='row_sum'), (-1.0, np.inf), (1.0, np.inf)),
    (stein.Score(), (-np.inf, -5.0), (0.0, 0.25)),
  )
  @pytest.mark.slow
  def test_only_the_kernel_keeps_samples_apart(
    self, direction, likelihoods, variances
  ):
    x, num_steps = literal.rbm_data(100), 400
    data = jnp.asarray(x, jnp.float32)
    rate = optax.linear_schedule(0.02, 0.0, num_steps)

    @jax.jit
    @jax.vmap
    def train(rng):
      energy_rng, generator_rng, rng = jax.random.split(rng, 3)
      energy = learners.create(
        energy_rng, energies.RBM(2), optax.adam(rate), data
      )
      network = generators.MLP(latent_dim=4, dim=4, widths=(32,))
      generator = generators.create(
        generator_rng, network, optax.adam(1e-2, b1=0.5), len(x)
      )

      def step(state, rng):
        state, metrics = steingan.step(
          state, {'image': data}, rng, direction=direction
        )
        return state, metrics['samples/variance']

      state, variance = lax.scan(
        step,
        literal.steingan_state(energy, generator),
        jax.random.split(rng, num_steps),
      )
      return state.energy.params['params'], jnp.min(variance[-100:])

    num_seeds = 2
    params, lowest = train(jax.random.split(jax.random.key(0), num_seeds))
    for seed in range(num_seeds):
      learned = jax.tree.map(lambda leaf: np.asarray(leaf[seed], float), params)
      excess = literal.rbm_log_likelihood(
        learned, x
      ) - literal.rbm_log_likelihood(literal.RBM_TRUTH, x)
      self.assertBetween(excess, *likelihoods)
      self.assertBetween(lowest[seed], *variances)


if __name__ == '__main__':
  absltest.main()
