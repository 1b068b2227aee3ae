"""Losses of generators by hand and over devices."""

import functools
import warnings

from absl.testing import absltest
from absl.testing import parameterized
import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import stats

from stein_jax import generators
from stein_jax import learners
from stein_jax import revision
from tests import draws
from tests.generators import networks

_AXIS = 'batch'


class FollowTest(absltest.TestCase):
  def test_gradient_is_minus_the_mean_pullback(self):
    learner = networks.tiny()
    draw = lambda params: generators.generate(
      learner, params, jax.random.key(1), 3
    )
    phi = jax.random.normal(jax.random.key(2), (3, 4, 8, 2))

    @jax.jit
    def results(params):
      def loss_fn(params):
        loss, *beside = generators.chain_rule_loss(draw, lambda _: phi)(params)
        return loss, beside

      gradient, beside = jax.grad(loss_fn, has_aux=True)(params)
      return gradient, *beside, draw(params), jax.jacrev(draw)(params)

    gradient, metrics, moved, samples, jacobian = results(learner.params)
    np.testing.assert_allclose(moved, samples, rtol=1e-6)
    for actual, of_leaf in zip(
      jax.tree.leaves(gradient), jax.tree.leaves(jacobian), strict=True
    ):
      expected = -np.tensordot(phi, of_leaf, 4) / 3
      np.testing.assert_allclose(
        actual, expected, atol=1e-5 * np.max(np.abs(expected)), rtol=1e-5
      )
    np.testing.assert_allclose(
      metrics['generator/move'], np.sum(np.square(phi)) / 3, rtol=1e-5
    )
    np.testing.assert_allclose(
      metrics['samples/variance'], np.sum(np.var(samples, 0)), rtol=1e-5
    )

  def test_what_comes_beside_phi_comes_after_the_samples(self):
    x = jnp.arange(3.0)[:, None]
    loss = lambda direction: generators.chain_rule_loss(
      lambda t: t * x, direction
    )
    *alone, samples = loss(jnp.sin)(2.0)
    *paired, moved, beside = loss(lambda x: (jnp.sin(x), x + 1))(2.0)
    chex.assert_trees_all_equal((alone, samples), (paired, moved))
    np.testing.assert_array_equal(beside, 2 * x + 1)

  def test_the_direction_is_constant(self):
    phi = jnp.arange(6.0).reshape(3, 2)
    # G = t (1, 1): -mean t (phi_1 + phi_2) = -5 t, at t = 2 and phi times s t.
    draw = lambda t: t * jnp.ones((3, 2))
    loss = lambda t, s: generators.chain_rule_loss(draw, lambda x: s * x * phi)(
      t
    )[0]
    value, slopes = jax.value_and_grad(loss, (0, 1))(2.0, 1.0)
    self.assertEqual((value, *slopes), (-20.0, -10.0, 0.0))

  def test_metrics_over_devices_are_those_of_the_whole(self):
    class Constant(nn.Module):
      @nn.compact
      def __call__(self, x):
        return x + self.param('shift', nn.initializers.zeros, (1, 2))

    x, phi = jax.random.normal(jax.random.key(0), (2, 8, 2))
    learner = learners.create(jax.random.key(0), Constant(), optax.sgd(1.0), x)

    def step(x, phi, axis_name=None):
      draw = lambda params: learner.apply_fn(params, x)
      loss_fn = generators.chain_rule_loss(
        draw, lambda _: phi, axis_name=axis_name
      )
      moved, metrics, _ = learners.descend(
        learner, loss_fn, axis_name=axis_name
      )
      return moved.params, metrics

    shard = lambda x: x.reshape(4, 2, 2)
    run = jax.vmap(lambda x, phi: step(x, phi, _AXIS), axis_name=_AXIS)
    params, metrics = jax.jit(run)(shard(x), shard(phi))
    # The shift goes along the mean of phi.
    for shift in params['params']['shift'][:, 0]:
      np.testing.assert_allclose(shift, np.mean(phi, 0), atol=1e-6)
    np.testing.assert_allclose(
      metrics['samples/variance'], np.sum(np.var(x, 0)), rtol=1e-5
    )
    np.testing.assert_allclose(
      metrics['generator/move'], np.mean(np.sum(np.square(phi), 1)), rtol=1e-5
    )


class ArraysTest(parameterized.TestCase):
  """What comes in may be of any real dtype, and is of one shape alone."""

  _FUNCTIONS = {
    'pulling_away': generators.pulling_away,
    'batch_norm_entropy': lambda x: generators.batch_norm_entropy({'gain': x}),
    'divergence': lambda x: generators.kl_divergence(x, x[::-1]),
    'revision': lambda x: revision.moved(x, x[::-1]),
    'follow': lambda x: generators.chain_rule_loss(
      lambda p: p * x, lambda _: x[::-1]
    )(1.0)[:2],
    'variational': lambda x: generators.variational_loss(
      networks.affine(), jax.random.key(0), x
    )(networks.affine().params),
  }

  @parameterized.product(
    name=list(_FUNCTIONS),
    dtype=[np.uint8, jnp.bfloat16, np.float64],
  )
  def test_any_dtype_is_taken_as_float32(self, name, dtype):
    # Differences of bytes would wrap, as 1 - 3 does.
    x = np.array([[1, 3], [2, 1], [3, 2]]).astype(dtype)
    function = self._FUNCTIONS[name]
    with warnings.catch_warnings():
      warnings.simplefilter('error')
      actual, expected = function(x), function(np.float32(x))
    self.assertEqual(
      {leaf.dtype for leaf in jax.tree.leaves(actual)}, {np.dtype('float32')}
    )
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), actual, expected
    )

  @parameterized.parameters(*_FUNCTIONS)
  def test_nan_stays_nan(self, name):
    x = np.float32([[1, 3], [np.nan, 1], [3, 2]])
    for leaf in jax.tree.leaves(self._FUNCTIONS[name](x)):
      self.assertTrue(np.any(np.isnan(leaf)))

  def test_one_sample_of_nan_is_nan(self):
    row = jnp.array([[1.0, np.nan]])
    self.assertTrue(np.isnan(generators.pulling_away(row)))

  @parameterized.parameters(1e-18, 1e-6, 1e18, 1e30)
  def test_pulling_away_has_no_unit(self, unit):
    rows = np.float32([[2.0, 0.0], [0.0, 0.1], [3.0, 3.0]])
    value, slope = jax.value_and_grad(generators.pulling_away)(unit * rows)
    whole, of_whole = jax.value_and_grad(generators.pulling_away)(rows)
    np.testing.assert_allclose(value, whole, rtol=1e-5)
    np.testing.assert_allclose(unit * slope, of_whole, rtol=1e-4, atol=1e-6)

  def test_refuses_other_shapes(self):
    x, learner, rng = jnp.ones((3, 2)), networks.affine(), jax.random.key(0)
    column = x[:, :1]
    narrow = learner.replace(
      apply_fn=lambda params, x, method, **_: (
        (column, column) if method == 'encode' else column
      )
    )
    draw = lambda params: params * x
    follow = lambda *args, **kwargs: generators.chain_rule_loss(
      draw, *args, **kwargs
    )(1.0)
    for call, message in (
      (lambda: follow(lambda _: column), r'direction.*\(3, 1\).*\(3, 2\)'),
      (
        lambda: follow(lambda x: x, penalty=lambda *_: x[0]),
        r'penalty.*\(2,\).*\(\)',
      ),
      (lambda: generators.pulling_away(x[0]), r'features.*\(2,\).*\[n, f\]'),
      (lambda: generators.kl_divergence(x, column), r'log_variance \(3, 1\)'),
      (lambda: revision.moved(x, x[:1]), r'revised \(1, 2\)'),
      (
        lambda: generators.variational_loss(narrow, rng, x)(learner.params),
        r'decoded.*\(3, 1\).*\(3, 2\)',
      ),
      (
        lambda: generators.variational_loss(learner, rng, x, x[:1]),
        r'condition.*\(1, 2\).*\(3, ...\)',
      ),
      (
        lambda: generators.decode_batch(learner, learner.params, column, x[:1]),
        r'condition.*\(1, 2\).*\(3, ...\)',
      ),
    ):
      with self.assertRaisesRegex(ValueError, message):
        call()


class DiversityTest(parameterized.TestCase):
  # The squared cosines of the pairs are 0, 1/2 and 1/2, whatever the lengths.
  _ROWS = jnp.array([[2.0, 0.0], [0.0, 0.1], [3.0, 3.0]])

  def test_pulling_away_by_hand(self):
    pulling_away = jax.jit(generators.pulling_away)
    self.assertAlmostEqual(pulling_away(self._ROWS), 1 / 3, places=6)
    same = jnp.array([[1.0, 2.0], [-2.0, -4.0]])  # either way along one line
    self.assertAlmostEqual(pulling_away(same), 1.0, places=6)
    self.assertEqual(pulling_away(self._ROWS[:1]), 0)

  def test_pulling_away_turns_rows_apart(self):
    # d cos^2(t) / dt = -sin(2t), t the angle of two rows of length 1.
    rows = lambda t: jnp.stack(
      [jnp.stack([1.0, 0.0]), jnp.stack([jnp.cos(t), jnp.sin(t)])]
    )
    slope = jax.grad(lambda t: generators.pulling_away(rows(t)))(0.4)
    self.assertAlmostEqual(slope, -np.sin(0.8), places=5)

  def test_pulling_away_of_no_features_has_a_slope(self):
    rows = self._ROWS.at[0].set(0.0)  # as of a layer whose units are all off
    value, slope = jax.value_and_grad(generators.pulling_away)(rows)
    self.assertAlmostEqual(value, 2 / 6 * 0.5, places=6)
    self.assertTrue(np.all(np.isfinite(slope)))

  def test_pulling_away_over_devices_is_of_all_pairs(self):
    rows = jax.random.normal(jax.random.key(0), (8, 3))
    pulling_away = functools.partial(generators.pulling_away, axis_name=_AXIS)
    shards = jax.vmap(pulling_away, axis_name=_AXIS)(rows.reshape(4, 2, 3))
    whole = generators.pulling_away(rows)
    np.testing.assert_allclose(shards, np.full(4, whole), rtol=1e-5)

  def test_batch_norm_entropy_is_that_of_normals(self):
    gains = {'first': np.array([1.0, -2.0, 0.1]), 'second': np.array([3.0])}
    params = {
      name: {'gain': jnp.array(gain), 'bias': jnp.full(len(gain), 7.0)}
      for name, gain in gains.items()
    }
    entropy, slope = jax.value_and_grad(generators.batch_norm_entropy)(params)
    expected = sum(
      np.sum(stats.norm(scale=np.abs(gain)).entropy())
      for gain in gains.values()
    )
    np.testing.assert_allclose(entropy, expected, rtol=1e-6)
    for name, gain in gains.items():
      np.testing.assert_allclose(slope[name]['gain'], 1 / gain, rtol=1e-5)
      np.testing.assert_array_equal(slope[name]['bias'], 0)

  def test_batch_norm_entropy_needs_gains(self):
    with self.assertRaisesRegex(ValueError, 'norm_gain'):
      generators.batch_norm_entropy(
        {'params': {'Dense': {'bias': jnp.ones(3)}}}
      )


class VariationalTest(parameterized.TestCase):
  @parameterized.parameters(0, 1)
  def test_prior_is_the_literal_bound(self, num_conditions):
    x = networks.rows(5, 2)
    condition = (networks.rows(5, 2, seed=1),) * num_conditions
    learner, rng = networks.affine(), jax.random.key(3)
    self.enter_context(draws.fixed())

    def literal(params):
      of = params['params']
      rest = x - condition[0] if condition else x
      mean = rest @ of['m'] + of['c'] + draws.normals((5, 1))
      spread = jnp.exp(of['s'] / 2)
      z = mean + spread * draws.normals((5, 1))
      error = jnp.sum((z @ of['a'] + of['b'] - rest) ** 2, 1)
      # Of N(m, s^2) and N(0, 1): (s^2 + m^2 - 1) / 2 - log s.
      divergence = (spread**2 + mean**2 - 1) / 2 - jnp.log(spread)
      error, divergence = jnp.mean(error), jnp.mean(divergence)
      return error + 0.7 * divergence, {
        'generator/reconstruction': error,
        'generator/divergence': divergence,
      }

    loss_fn = generators.variational_loss(
      learner, rng, x, *condition, kl_weight=0.7
    )
    run = lambda f: jax.value_and_grad(f, has_aux=True)(learner.params)
    actual, expected = jax.jit(lambda: (run(loss_fn), run(literal)))()
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
      actual,
      expected,
    )

  @parameterized.parameters(0.0, 1.0, 2.5)
  def test_posterior_is_the_literal_objective(self, weight):
    x, codes = np.asarray(networks.rows(5, 2)), []
    learner = networks.affine(noise=0.0)

    def noting(params, x, *args, method=None, **kwargs):
      if method == 'decode':
        jax.debug.callback(codes.append, x)
      return learner.apply_fn(params, x, *args, method=method, **kwargs)

    value, metrics = self.loss(
      learner.replace(apply_fn=noting),
      jax.random.key(3),
      x,
      kl_weight=weight,
      kl='posterior',
      num_importance=4,
    )
    jax.effects_barrier()
    z = np.stack(codes)
    self.assertEqual(z.shape, (4, 5, 1))
    self.assertLen(np.unique(z), 20)
    of = {k: np.float64(v) for k, v in learner.params['params'].items()}
    mean, variance = x @ of['m'] + of['c'], np.exp(of['s'])
    unit = (z - mean) / np.sqrt(variance)
    errors = np.sum((z @ of['a'] + of['b'] - x) ** 2, -1)
    divergence = (variance + mean**2 - 1 - np.log(variance))[:, 0] / 2
    # q(x | z) is N(decoded, I / 2), of which the constant pi^(-d / 2) is left out.
    prior = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    code = np.exp(-(unit**2) / 2) / np.sqrt(2 * np.pi * variance)
    evidence = np.log(np.mean(np.exp(-errors) * (prior / code)[..., 0], 0))
    bound = errors.mean(0) + divergence
    # -log q(x) + weight KL(code | posterior), which is bound + log q(x).
    expected = np.mean(-evidence + weight * (bound + evidence))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(
      metrics['generator/reconstruction'], errors.mean(), rtol=1e-5
    )
    np.testing.assert_allclose(
      metrics['generator/divergence'], divergence.mean(), rtol=1e-5
    )
    if weight == 1:  # the evidence has dropped out
      np.testing.assert_allclose(value, np.mean(bound), rtol=1e-5)

  @parameterized.parameters((1.0, 1), (2.0, 4000))
  def test_evidence_of_a_gaussian(self, widening, num_importance):
    # x = a'z + b + noise of variance 1 / 2 is N(b, I / 2 + a'a), and z given x has
    # the precision 1 + 2 |a|^2 and the mean 2 a.(x - b) over that.
    x = 2 * np.asarray(networks.rows(8, 2))
    learner, a, b = self.with_posterior(widening)
    covariance = np.eye(2) / 2 + a.T @ a
    far = np.sum((x - b) @ np.linalg.inv(covariance) * (x - b), 1)
    evidence = -far / 2 - np.log(2 * np.pi * np.sqrt(np.linalg.det(covariance)))
    expected = -np.mean(evidence + np.log(np.pi))
    value, _ = self.loss(
      learner,
      jax.random.key(0),
      jnp.float32(x),
      kl_weight=0.0,
      kl='posterior',
      num_importance=num_importance,
    )
    # Drawn from the posterior every weight is the evidence. Of twice its variance
    # weights are at most sqrt(2) of it, so their relative variance at most 0.42.
    error = 4 * (0.42 / num_importance) ** 0.5 if widening > 1 else 1e-5
    self.assertAlmostEqual(value, expected, delta=error)

  def test_both_kinds_are_one_at_weight_1(self):
    x, learner = np.asarray(networks.rows(8, 2)), self.with_posterior(2.0)[0]
    of = {k: np.float64(v) for k, v in learner.params['params'].items()}
    mean, variance = x @ of['m'] + of['c'], np.exp(of['s'])
    # E|decoded - x|^2 is that at the mean and |a|^2 of the code's variance.
    error = np.sum((mean @ of['a'] + of['b'] - x) ** 2, 1)
    error = error + variance * np.sum(of['a'] ** 2)
    divergence = (variance + mean**2 - 1 - np.log(variance))[:, 0] / 2
    expected = np.mean(error + divergence)
    keys = jax.random.split(jax.random.key(0), 1000)
    for kl in ('prior', 'posterior'):
      losses = jax.jit(
        jax.vmap(
          lambda rng, kl=kl: generators.variational_loss(
            learner, rng, x, kl=kl, num_importance=3
          )(learner.params)[0]
        )
      )(keys)
      self.assertAlmostEqual(
        np.mean(losses), expected, delta=4 * np.std(losses) / 1000**0.5
      )

  def test_bad_arguments(self):
    for wrong, message in (
      (dict(kl='evidence'), "kl='evidence'.*'prior', 'posterior'"),
      (dict(kl_weight=-1.0), 'kl_weight=-1.0'),
      (dict(num_importance=0), 'num_importance=0'),
    ):
      with self.assertRaisesRegex(ValueError, message):
        generators.variational_loss(
          networks.affine(), jax.random.key(0), networks.rows(5, 2), **wrong
        )

  def with_posterior(self, widening):
    """Returns (learner, a, b) that encodes the posterior, as much wider."""
    learner = networks.affine(noise=0.0)
    of = {k: np.float64(v) for k, v in learner.params['params'].items()}
    a, b = of['a'], of['b']
    precision = 1 + 2 * np.sum(a**2)
    of['m'], of['c'] = 2 * a.T / precision, -2 * a @ b.T / precision
    of['s'] = np.log(widening / precision).reshape(1, 1)
    params = {'params': jax.tree.map(jnp.float32, of)}
    return learner.replace(params=params), a, b

  def loss(self, learner, *args, **kwargs):
    return jax.jit(
      lambda params: generators.variational_loss(learner, *args, **kwargs)(
        params
      )
    )(learner.params)


if __name__ == '__main__':
  absltest.main()
