"""Tests of SteinCD against its limit in epsilon and a literal SVGD step."""

import functools
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stein_jax import energies
from stein_jax import kernels
from stein_jax import learners
from stein_jax import parallel
from stein_jax import stein
from stein_jax.algorithms import score_matching
from stein_jax.algorithms import stein_cd
from tests import literal
from tests.energies import models


def _true_score(x):
  """Returns the score of the true RBM."""
  b, weight, c = (
    literal.RBM_TRUTH[name] for name in ('bias', 'weight', 'hidden_bias')
  )
  return b - x + np.tanh(x @ weight + c) @ weight.T


def _literal_move(
  x,
  epsilon,
  num_steps,
  normalize='count',
  bandwidth_scale=1.0,
  bandwidth_log='n+1',
  score_fn=_true_score,
):
  """Returns x after steps of x_i += epsilon phi(x_i), under the true RBM."""
  n = len(x)
  divisor = {'n+1': np.log(n + 1), 'n': np.log(n), 'none': 1}[bandwidth_log]
  for _ in range(num_steps):
    score = score_fn(x)
    difference = x[:, None] - x[None]  # [i, j, d]
    sq_dist = np.sum(difference**2, -1)
    bandwidth = bandwidth_scale * np.median(sq_dist) / divisor
    k = np.exp(-sq_dist / bandwidth)
    # grad_{x_j} k(x_j, x_i) = (2 / h) (x_i - x_j) k.
    phi = k @ score + np.sum(2 / bandwidth * difference * k[..., None], 1)
    weights = np.sum(k, 1, keepdims=True) if normalize == 'row_sum' else n
    x = x + epsilon * phi / weights
  return x


def _distance(actual, expected):
  """Returns |actual - expected| / |expected| of two trees."""
  gap = sum(np.sum((actual[name] - expected[name]) ** 2) for name in expected)
  return np.sqrt(gap / sum(np.sum(leaf**2) for leaf in expected.values()))


class SteinCDTest(parameterized.TestCase):
  @parameterized.parameters(
    (False, 'count'), (True, 'count'), (True, 'row_sum')
  )
  def test_limit_is_stein_score_matching(self, symmetric, normalize):
    self.enter_context(jax.enable_x64(True))
    x = literal.rbm_data(12) + 0.5
    state = literal.at_truth(stein_cd, x)
    direction = stein.SVGD(normalize=normalize)
    limit = literal.ascent(score_matching, state, x, direction=direction)

    @jax.jit
    def update(epsilon):
      moved = literal.ascent(
        stein_cd,
        state,
        x,
        epsilon=epsilon,
        symmetric=symmetric,
        direction=direction,
      )
      return jax.tree.map(lambda leaf: leaf / epsilon, moved)

    far, near = (_distance(update(epsilon), limit) for epsilon in (0.02, 0.01))
    # Forward differences err by O(eps) [LW17 eq 16], central ones by O(eps^2).
    self.assertAlmostEqual(
      np.log2(far / near), 2 if symmetric else 1, delta=0.1
    )
    self.assertLess(near, 1e-3 if symmetric else 0.05)

  @parameterized.parameters(
    dict(),
    dict(num_steps=3),
    dict(num_steps=2, normalize='row_sum'),
    dict(num_steps=2, symmetric=True),
    dict(bandwidth_scale=3.0, normalize='row_sum', symmetric=True),
    dict(bandwidth_log='n'),
    dict(bandwidth_log='none'),
  )
  def test_update_by_hand(self, symmetric=False, **hyper):
    self.enter_context(jax.enable_x64(True))
    x, epsilon = literal.rbm_data(12) + 0.5, 0.3
    options = {'num_steps': 1} | hyper
    rule = kernels.Median(
      hyper.pop('bandwidth_scale', 1.0), log=hyper.pop('bandwidth_log', 'n+1')
    )
    hyper['direction'] = stein.SVGD(
      kernels.RBF(rule), normalize=hyper.pop('normalize', 'count')
    )
    samples = _literal_move(x, epsilon, **options)
    positives = _literal_move(x, -epsilon, **options) if symmetric else x
    ends = [
      literal.rbm_statistics(literal.RBM_TRUTH, x) for x in (positives, samples)
    ]
    state = literal.at_truth(stein_cd, x)
    step = functools.partial(
      stein_cd.step, epsilon=epsilon, symmetric=symmetric, **hyper
    )
    after, metrics = jax.jit(step)(state, {'image': x}, None)
    for name, value in after.energy.params['params'].items():
      moved = (ends[0][name] - ends[1][name]) / (2 if symmetric else 1)
      expected = literal.RBM_TRUTH[name] + moved
      np.testing.assert_allclose(value, expected, atol=1e-12)
    self.assertAlmostEqual(
      metrics['samples/move'], np.sqrt(np.mean(np.sum((samples - x) ** 2, 1)))
    )

  @parameterized.parameters((2, False), (9, False), (2, True))
  def test_a_direction_with_noise(self, num_steps, symmetric):
    x, rng = np.float32(literal.rbm_data(8)), jax.random.key(5)
    state, noise = literal.at_truth(stein_cd, x), literal.Noise()
    options = dict(num_steps=num_steps, symmetric=symmetric, epsilon=0.3)
    step = functools.partial(stein_cd.step, direction=noise, **options)
    after, metrics = jax.jit(step)(state, {'image': x}, rng)
    # Each step has noise of its own, which is that of both ways.
    each = [noise.at(rng, i) for i in range(num_steps)]
    self.assertLen(set(each), num_steps)
    way = 0.3 * sum(each)
    ends = [
      literal.rbm_statistics(literal.RBM_TRUTH, x + by)
      for by in (-way if symmetric else 0, way)
    ]
    for name, value in after.energy.params['params'].items():
      moved = (ends[0][name] - ends[1][name]) / (2 if symmetric else 1)
      expected = literal.RBM_TRUTH[name] + moved
      np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(metrics['samples/move'], 2 * way, rtol=1e-5)
    # And that of all devices.
    mapped = jax.vmap(
      functools.partial(step, axis_name='batch'),
      (None, 0, None),
      axis_name='batch',
    )
    _, shared = jax.jit(mapped)(state, {'image': x.reshape(4, 2, 4)}, rng)
    np.testing.assert_allclose(shared['samples/move'], [2 * way] * 4, rtol=1e-5)

  def test_a_direction_that_asks_for_more(self):
    energy = literal.quadratic(literal.MEAN, np.log([1.0, 4.0]))
    state, x = stein_cd.State(jnp.array(5), energy), np.array([[2.0, 3.0]])
    half = stein.Annealed(stein.Score(), stein.LinearRise(num_steps=10))
    # Half the score after 5 of 10 steps, and one of Newton's to the mean.
    for direction, expected in (
      (half, (literal.MEAN - x) * [1.0, 4.0] / 2),
      (stein.NewtonSVGD(), literal.MEAN - x),
    ):
      step = functools.partial(stein_cd.step, direction=direction, epsilon=1.0)
      _, metrics = jax.jit(step)(state, {'image': np.float32(x)}, None)
      np.testing.assert_allclose(
        metrics['samples/move'], np.linalg.norm(expected), rtol=1e-5
      )

  @parameterized.parameters(1, 3)
  def test_one_pass_gives_what_two_do(self, num_steps):
    network = energies.Autoencoder(models.CONVS, norm='none', dropout=0.0)
    energy = models.learner(network, optax.sgd(0.1))
    state = stein_cd.State(jnp.zeros((), jnp.int32), energy)
    arguments = state, {'image': models.images()}, jax.random.key(0)

    def results():
      step = functools.partial(stein_cd.step, num_steps=num_steps)
      compiled = jax.jit(step).lower(*arguments).compile()
      return compiled(*arguments), compiled.cost_analysis()['flops']

    ours, flops = results()
    with mock.patch.object(energies, 'has_one_pass', return_value=False):
      theirs, more_flops = results()
    chex.assert_trees_all_close(ours, theirs, rtol=1e-5, atol=1e-6)
    self.assertLess(flops, more_flops)

  def test_images_move_under_their_labels(self):
    """E(x, y) = |x - m_y|^2 / 2 learns m_k from what left it [LW17 eq 25]."""
    self.enter_context(jax.enable_x64(True))
    x, y = literal.rbm_data(9), np.arange(9) % 3
    means = np.random.default_rng(3).normal(size=(3, 4))
    energy = learners.create(
      jax.random.key(0),
      literal.ByLabel(means),
      optax.sgd(1.0),
      jnp.asarray(x),
      y,
    )
    self.assertEqual(energy.num_classes, 3)
    step = functools.partial(stein_cd.step, epsilon=0.3)
    state = stein_cd.State(jnp.zeros((), jnp.int32), energy)
    batch = {'image': x, 'condition': y}
    after, _ = jax.jit(step)(state, batch, None)
    moved = _literal_move(x, 0.3, 1, score_fn=lambda x: means[y] - x)
    expected = means + np.eye(3)[y].T @ (x - moved) / len(x)
    found = after.energy.params['params']['means']
    np.testing.assert_allclose(found, expected, atol=1e-12)
    # A label that is no class is not silent.
    batch['condition'] = y + 1
    after, metrics = jax.jit(step)(state, batch, None)
    self.assertTrue(np.isnan(metrics['energy/data']))

  def test_images_are_vectors(self):
    x = jnp.asarray(literal.rbm_data(6), jnp.float32)
    flat, images = (
      literal.ascent(stein_cd, literal.at_truth(stein_cd, x), x)
      for x in (x, x.reshape(6, 2, 2, 1))
    )
    jax.tree.map(np.testing.assert_array_equal, flat, images)

  def test_devices_share_their_particles(self):
    self._assert_devices_share('shard_map', symmetric=False)

  @parameterized.parameters('pmap', 'shard_map')
  @pytest.mark.slow
  def test_so_they_do_both_ways(self, mode):
    self._assert_devices_share(mode, symmetric=True)

  def _assert_devices_share(self, mode, symmetric):
    x = np.float32(literal.rbm_data(16))

    def run(mode):
      def step(state, batch, rng, axis_name=None):
        return stein_cd.step(
          state,
          batch,
          rng,
          num_steps=2,
          symmetric=symmetric,
          axis_name=axis_name,
        )

      state = parallel.replicate(literal.at_truth(stein_cd, x))
      compiled = parallel.compile_step(step, mode)
      return compiled(state, {'image': x}, jax.random.key(0))[0].energy.params

    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
      run(mode),
      run('jit'),
    )

  @pytest.mark.slow
  def test_the_truth_is_at_rest_without_the_own_term(self):
    """In the mean phi of draws of p is 0 but for the own term, k(0) s(x) / n.

    With the bandwidth median / log(n + 1) a pair has k of about 1 / (n + 1), so that
    the n - 1 others weigh no more than the own term, however large the batch is.
    """
    truth, draws, test = literal.overlapping_rbm(100_000)
    rate = optax.linear_schedule(5e-3, 0.0, 2000)
    adam = optax.adam(rate, b1=0.9)
    start = truth.replace(tx=adam, opt_state=adam.init(truth.params))

    @functools.partial(jax.jit, static_argnums=0)
    def lost(direction):
      """Returns by how many nats a model that began at the truth is worse."""

      def step(state, rng):
        index = jax.random.randint(rng, (200,), 0, len(draws))
        batch = {'image': draws[index]}
        return stein_cd.step(state, batch, rng, direction=direction)[0], None

      state = stein_cd.State(jnp.zeros((), jnp.int32), start)
      keys = jax.random.split(jax.random.key(3), 2000)
      state, _ = jax.lax.scan(step, state, keys)
      return literal.nats_lost(truth, state.energy, test)

    # In a run of 5,000 updates they were 0.80 and 0.002.
    self.assertGreater(lost(stein.SVGD()), 0.3)
    self.assertLess(lost(stein.SVGD(diagonal=False)), 0.02)

  @parameterized.parameters(
    dict(epsilon=0.0),
    dict(num_steps=0),
    dict(epsilon=-1.0),
  )
  def test_bad_arguments(self, **hyper):
    ((name, value),) = hyper.items()
    x = literal.rbm_data(3)
    with self.assertRaisesRegex(ValueError, f'{name}={value!r}'):
      literal.ascent(stein_cd, literal.at_truth(stein_cd, x), x, **hyper)

  def _assert_learns(self, **hyper):
    x = literal.rbm_data(literal.NUM_DATA)
    for params in literal.fit_rbm(stein_cd, x, num_train_steps=200, **hyper):
      self.assertGreater(
        literal.rbm_log_likelihood(params, x),
        literal.rbm_log_likelihood(literal.RBM_TRUTH, x) - literal.SLACK,
      )

  def test_learning(self):
    self._assert_learns()

  @pytest.mark.slow
  def test_learning_with_more_steps(self):
    self._assert_learns(symmetric=True, num_steps=2, epsilon=0.3)


if __name__ == '__main__':
  absltest.main()
