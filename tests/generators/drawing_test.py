"""What is done with generators: samples against their company, losses by hand."""

import functools
import types
import warnings

from absl.testing import absltest
from absl.testing import parameterized
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import stats

from stein_jax import energies
from stein_jax import generators
from stein_jax import learners
from stein_jax import revision
from stein_jax import samplers
from tests.generators import networks_test as networks

_AXIS = 'batch'
_SIZE = networks.SIZE


class _Plain(nn.Module):
  """A sample is its latent vector, its label, and the mean of its batch."""

  prior: str = 'uniform'
  num_classes: int = 0

  @nn.compact
  def decode(self, z, *, label=None):
    self.param('unused', nn.initializers.zeros, ())
    label = jnp.zeros(len(z)) if label is None else label
    mean = jnp.broadcast_to(jnp.mean(z, 0, keepdims=True), z.shape)
    return jnp.concatenate([z, label.astype(z.dtype)[:, None], mean], 1)

  def latent(self, rng, num):
    return generators.PRIORS[self.prior](rng, (num, 3))

  def __call__(self, rng, num, *, label=None):
    return self.decode(self.latent(rng, num), label=label)


class _Beside(nn.Module):
  """A sample is its latent vector, its condition, and the mean of its batch."""

  def latent(self, rng, num):
    return jax.random.normal(rng, (num, 3))

  @nn.compact
  def __call__(self, rng, num, *, condition):
    self.param('unused', nn.initializers.zeros, ())
    z = self.latent(rng, num)
    mean = jnp.broadcast_to(jnp.mean(z, 0, keepdims=True), z.shape)
    return jnp.concatenate([z, condition, mean], 1)


class _Affine(nn.Module):
  """A decoder z a + b of numbers z, an affine encoder with noise of its key.

  What both are conditioned on is added, and subtracted.
  """

  noise: float = 1.0

  def setup(self):
    normal = nn.initializers.normal(1.0)
    self.a = self.param('a', normal, (1, 2))
    self.b = self.param('b', normal, (1, 2))
    self.m = self.param('m', normal, (2, 1))
    self.c = self.param('c', normal, (1, 1))
    self.s = self.param('s', normal, (1, 1))

  def decode(self, z, *condition):
    return z @ self.a + self.b + sum(condition)

  def encode(self, x, *condition, key=None):
    shift = self.noise * jax.random.normal(key, (len(x), 1))
    mean = (x - sum(condition)) @ self.m + self.c + shift
    return mean, jnp.broadcast_to(self.s, mean.shape)

  def latent(self, rng, num):
    return jax.random.normal(rng, (num, 1))

  def __call__(self, rng, num):
    return self.decode(self.latent(rng, num))


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
      _affine(), jax.random.key(0), x
    )(_affine().params),
  }

  @parameterized.product(
    name=list(_FUNCTIONS),
    dtype=[
      np.uint8,
      np.int8,
      np.int32,
      bool,
      np.float16,
      jnp.bfloat16,
      np.float64,
    ],
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
    x, learner, rng = jnp.ones((3, 2)), _affine(), jax.random.key(0)
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


class LabelsTest(parameterized.TestCase):
  """Labels and conditions, of which none is left unread."""

  @parameterized.parameters(
    (np.array([0.0, 1.0]), r'float.*\(2,\).*integers'),
    (np.array([True, False]), r'bool.*integers'),
    (np.array([[0], [1]]), r'\(2, 1\).*integers'),
    (np.array([0, 3]), 'label=3 .*0, ..., 2'),
    (np.array([-1, 0]), 'label=-1 .*0, ..., 2'),
    (np.array([0]), r'\(1,\).*\(2,\)'),
    ([0, 5], 'label=5'),
  )
  def test_refuses(self, label, message):
    module = generators.DCGAN(**_SMALL, num_classes=3)
    learner, rng = networks.create(module), jax.random.key(0)
    z = jnp.ones((2, 3))
    for call in (
      lambda: generators.create(rng, module, optax.sgd(1.0), 2, label),
      lambda: generators.generate(learner, learner.params, rng, 2, label=label),
      lambda: generators.sample(learner, rng, 2, label=label),
      lambda: generators.decode(learner, rng, z, label=label),
      lambda: module.apply(learner.params, z, label=label, method='decode'),
      lambda: generators.interpolate(
        learner, rng, num_pairs=2, num_points=3, label=label
      ),
      lambda: generators.random_walk(
        learner, rng, num_walks=2, num_steps=3, label=label
      ),
    ):
      with self.assertRaisesRegex(ValueError, message):
        call()

  def test_of_traced_labels_what_is_no_class_is_nan(self):
    learner = networks.create(generators.DCGAN(**_SMALL, num_classes=3))
    rng, z = jax.random.key(0), jnp.ones((5, 3))
    label, wrong = jnp.array([3, 0, -1, 0, 2]), jnp.array([0, 2])

    @jax.jit
    def run(label):
      batch = generators.generate(
        learner, learner.params, rng, len(label), label=label
      )
      return batch, (
        generators.sample(learner, rng, len(label), label=label),
        generators.decode(learner, rng, z, label=label),
      )

    batch, rows = run(label)
    self.assertTrue(np.all(np.isnan(batch)))  # normalised together
    _, of_classes = run(jnp.array([1, 0, 1, 0, 2]))
    for x, expected in zip(rows, of_classes, strict=True):
      expected = np.array(expected)
      expected[wrong] = np.nan
      np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-6)

  def test_of_classes_there_is_no_nan_on_the_way(self):
    learner = networks.create(_Plain(num_classes=3))
    self.enter_context(jax.debug_nans(True))
    x = generators.sample(learner, jax.random.key(0), 4)
    np.testing.assert_array_equal(x[:, 3], [0, 1, 2, 0])

  @parameterized.parameters(np.uint8, np.int8, np.int64)
  def test_labels_of_any_integers(self, dtype):
    learner = networks.create(_Plain(num_classes=3))
    label = np.array([2, 0, 1]).astype(dtype)
    x = generators.sample(learner, jax.random.key(0), 3, label=label)
    np.testing.assert_array_equal(x[:, 3], [2, 0, 1])

  def test_refuses_conditions_of_another_length(self):
    condition = _rows(_SIZE, 2)
    learner, rng = _beside(condition), jax.random.key(0)
    create = functools.partial(
      generators.create, rng, _Beside(), optax.sgd(1.0)
    )
    for call in (
      lambda: create(4, condition=condition[:3]),
      lambda: generators.generate(
        learner, learner.params, rng, 4, condition=condition[:3]
      ),
      lambda: revision.revise(None, rng, _rows(4, 7), condition=condition[:3]),
      lambda: generators.MLP().apply(
        {}, _rows(4, 2), _rows(3, 2), method='decode'
      ),
    ):
      with self.assertRaisesRegex(ValueError, r'condition.*\(3, 2\).*\(4, '):
        call()
    pair = generators.ImageToImage(**networks._PAIR)
    with self.assertRaisesRegex(ValueError, r'condition.*\(8, 2, 6, 1\)'):
      pair.apply({}, _rows(8, 3), jnp.ones((8, 2, 6, 1)), method='decode')

  def test_refuses_latents_of_another_length(self):
    learner = networks.create(_Plain())
    with self.assertRaisesRegex(ValueError, r'z .*\(2, 4\).*\(2, 3\)'):
      generators.decode(learner, jax.random.key(0), jnp.ones((2, 4)))

  def test_refuses_a_generator_of_other_than_num_samples(self):
    class One(nn.Module):
      @nn.compact
      def __call__(self, rng, num):
        return self.param('x', nn.initializers.ones, (1, 2))

    with self.assertRaisesRegex(ValueError, r'samples.*\(1, 2\).*\(4, ...\)'):
      generators.create(jax.random.key(0), One(), optax.sgd(1.0), 4)


_SMALL = dict(shape=(2, 2, 1), latent_dim=3, base=2, widths=(), strides=(2,))


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


class DecodeBatchTest(parameterized.TestCase):
  def test_four_devices_are_one_batch(self):
    learner, z = networks.vae(), _rows(_SIZE, 3)
    decode = lambda z, axis_name=None: generators.decode_batch(
      learner, learner.params, z, axis_name=axis_name
    )
    whole, split = jax.jit(
      lambda z: (
        decode(z),
        jax.vmap(lambda z: decode(z, _AXIS), axis_name=_AXIS)(
          z.reshape(4, 2, 3)
        ),
      )
    )(z)
    self.assertEqual(whole.shape, (_SIZE, *learner.input_shape))
    np.testing.assert_allclose(
      split.reshape(whole.shape), whole, rtol=1e-4, atol=1e-4
    )

  def test_condition(self):
    z, condition = _rows(5, 1), _rows(5, 2, seed=1)
    learner = _affine()
    of = learner.params['params']
    np.testing.assert_allclose(
      generators.decode_batch(learner, learner.params, z, condition),
      z * of['a'] + of['b'] + condition,
      rtol=1e-5,
      atol=1e-6,
    )


class VariationalTest(parameterized.TestCase):
  @parameterized.parameters(0, 1)
  def test_prior_is_the_literal_bound(self, num_conditions):
    x, condition = _rows(5, 2), (_rows(5, 2, seed=1),) * num_conditions
    learner, rng = _affine(), jax.random.key(3)

    def literal(params):
      of = params['params']
      dropout_rng, code_rng = jax.random.split(rng)
      rest = x - condition[0] if condition else x
      mean = rest @ of['m'] + of['c'] + jax.random.normal(dropout_rng, (5, 1))
      spread = jnp.exp(of['s'] / 2)
      z = mean + spread * jax.random.normal(code_rng, (5, 1))
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
    x, rng = np.asarray(_rows(5, 2)), jax.random.key(3)
    learner = _affine(noise=0.0)
    of = {k: np.float64(v) for k, v in learner.params['params'].items()}
    _, code_rng = jax.random.split(rng)
    unit = np.stack(
      [jax.random.normal(key, (5, 1)) for key in jax.random.split(code_rng, 4)]
    )
    mean, variance = x @ of['m'] + of['c'], np.exp(of['s'])
    z = mean + np.sqrt(variance) * unit
    errors = np.sum((z @ of['a'] + of['b'] - x) ** 2, -1)
    divergence = (variance + mean**2 - 1 - np.log(variance))[:, 0] / 2
    # q(x | z) is N(decoded, I / 2), of which the constant pi^(-d / 2) is left out.
    prior = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    code = np.exp(-(unit**2) / 2) / np.sqrt(2 * np.pi * variance)
    evidence = np.log(np.mean(np.exp(-errors) * (prior / code)[..., 0], 0))
    bound = errors.mean(0) + divergence
    # -log q(x) + weight KL(code | posterior), which is bound + log q(x).
    expected = np.mean(-evidence + weight * (bound + evidence))
    value, metrics = self.loss(
      learner, rng, x, kl_weight=weight, kl='posterior', num_importance=4
    )
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
    x = 2 * np.asarray(_rows(8, 2))
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
    x, learner = np.asarray(_rows(8, 2)), self.with_posterior(2.0)[0]
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
          _affine(), jax.random.key(0), _rows(5, 2), **wrong
        )

  def with_posterior(self, widening):
    """Returns (learner, a, b) that encodes the posterior, as much wider."""
    learner = _affine(noise=0.0)
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


class RevisionTest(parameterized.TestCase):
  def test_by_hand_alone_and_over_devices(self):
    start, revised = _rows(8, 3, 2), 3 + 2 * _rows(8, 3, 2, seed=1)
    expected = {
      'samples/revision': np.mean(
        np.sqrt(np.sum(np.square(revised - start), (1, 2)))
      ),
      'samples/variance': np.sum(np.var(revised, 0)),
    }
    shard = lambda x: x.reshape(4, 2, 3, 2)
    each = jax.vmap(
      lambda *x: revision.moved(*x, axis_name=_AXIS), axis_name=_AXIS
    )(shard(start), shard(revised))
    whole = revision.moved(start, revised)
    self.assertEqual(set(whole), set(expected))
    for name, value in expected.items():
      np.testing.assert_allclose(whole[name], value, rtol=1e-5)
      # Every shard says what the whole does.
      np.testing.assert_allclose(each[name], value, rtol=1e-5)

  @parameterized.parameters(False, True)
  def test_samples_are_drawn_then_led_down(self, conditional):
    state, condition = self.state(conditional)
    given = {'condition': condition} if conditional else {}
    chain = samplers.Langevin(0.5, 3, temperature=0.3, clip=(-1.5, 1.5))
    none = chain.replace(num_steps=0)
    rng = jax.random.key(5)
    draw_rng, chain_rng = jax.random.split(rng)

    @jax.jit
    def results():
      start = generators.sample(state.generator, draw_rng, 11, **given)
      end, _ = energies.run_chain(
        state.energy,
        chain,
        chain_rng,
        start,
        *given.values(),
        block_size=_SIZE,
      )
      few = {name: c[:3] for name, c in given.items()}
      return (
        start,
        end,
        (
          revision.sample(state, rng, 11, chain=none, **given),
          revision.sample(state, rng, 11, chain=chain, **given),
          revision.revise(state, chain_rng, start, chain=chain, **given),
          revision.sample(state, rng, 3, chain=chain, **few),
        ),
      )

    start, end, (left, revised, after, fewer) = results()
    self.assertGreater(np.max(np.abs(end - start)), 0.1)
    np.testing.assert_array_equal(left, start)
    np.testing.assert_allclose(revised, end, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(after, end, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(fewer, end[:3], rtol=1e-6, atol=1e-6)

  @parameterized.parameters(False, True)
  def test_a_batch_of_an_energy_that_mixes_is_whole(self, conditional):
    # On a sum of |x - mean|^2 / 2 a step leads to the mean of a training batch.
    state, condition = self.state(conditional)
    state.energy = state.energy.replace(
      apply_fn=lambda params, x, *c, **_: (
        0.5 * jnp.sum((x - jnp.mean(x, 0, keepdims=True)) ** 2, 1)
      ),
      takes=('axis_name',),
      batch_size=_SIZE,
    )
    rng = jax.random.key(5)
    first = jnp.broadcast_to(condition[:1], (_SIZE, 2))
    chain = samplers.Langevin(2**0.5, noise=False)
    one, most = (
      revision.sample(
        state,
        rng,
        num,
        condition=first[:num] if conditional else None,
        chain=chain,
      )
      for num in (1, _SIZE)
    )
    np.testing.assert_allclose(one, most[:1], rtol=1e-5, atol=1e-6)
    start = revision.sample(
      state,
      rng,
      _SIZE,
      condition=first if conditional else None,
      chain=chain.replace(num_steps=0),
    )
    mean = np.broadcast_to(np.mean(start, 0), most.shape)
    np.testing.assert_allclose(most, mean, rtol=1e-5, atol=1e-5)

  def test_without_noise(self):
    # On E = |x|^2 / 2 a step of 0.2 multiplies by 1 - 0.02.
    state, _ = self.state(False)
    chain = samplers.Langevin(0.2, 15, noise=False)
    revised = revision.revise(
      state, jax.random.key(0), jnp.ones((2, 7)), chain=chain
    )
    np.testing.assert_allclose(revised, 0.98**15, rtol=1e-5)

  def state(self, conditional):
    """Returns a state whose energy is |x - c|^2 / 2, and c for eleven samples."""
    condition = jnp.arange(22.0).reshape(11, 2) / 22
    generator = (
      _beside(condition[:_SIZE])
      if conditional
      else networks.create(_Plain('normal'))
    )
    energy = networks.create(generators.MLP(widths=())).replace(
      apply_fn=lambda params, x, *c: (
        0.5
        * jnp.sum((x - sum(jnp.sum(y, 1, keepdims=True) for y in c)) ** 2, 1)
      )
    )
    return types.SimpleNamespace(energy=energy, generator=generator), condition


class SampleTest(parameterized.TestCase):
  def test_fewer_samples_are_the_first_of_more(self):
    learner, rng = (
      networks.with_options(networks.tiny(), output_noise=0.1),
      jax.random.key(1),
    )
    draw = jax.jit(generators.sample, static_argnums=2)
    most = draw(learner, rng, 2 * _SIZE + 3)
    self.assertEqual(most.shape, (2 * _SIZE + 3, 4, 8, 2))
    self.assertLen(np.unique(most.reshape(len(most), -1), axis=0), len(most))
    np.testing.assert_array_equal(draw(learner, rng, 1), most[:1])

  def test_samples_are_rows_of_whole_batches(self):
    # Each batch tells its own mean: eight rows share one, and it is theirs.
    learner = networks.create(_Plain())
    x = generators.sample(learner, jax.random.key(1), 3 * _SIZE)
    batches = np.asarray(x).reshape(3, _SIZE, 7)
    np.testing.assert_allclose(
      batches[:, :, 4:],
      np.broadcast_to(batches[:, :, :3].mean(1)[:, None], (3, _SIZE, 3)),
      atol=1e-6,
    )
    alone = generators.sample(learner, jax.random.key(2), 1)
    self.assertGreater(np.max(np.abs(alone[0, :3] - alone[0, 4:])), 0.1)

  def test_one_sample_is_distributed_as_one_of_many(self):
    learner = networks.with_options(networks.tiny(), output='linear')
    # Normalised by itself a batch of one is its mean: nothing else is left.
    naive = jax.jit(
      jax.vmap(lambda rng: generators.generate(learner, learner.params, rng, 1))
    )(jax.random.split(jax.random.key(0), 2))
    self.assertGreater(np.max(np.abs(naive)), 0)
    np.testing.assert_allclose(naive[0], naive[1], atol=1e-5)

    def moments(seed, repeats, num):
      """Returns (mean, error) [2 * 16]: pixels and their squares."""
      keys = jax.random.split(jax.random.key(seed), repeats)
      draw = lambda rng: generators.sample(learner, rng, num)
      x = np.asarray(jax.jit(jax.vmap(draw))(keys), np.float64)
      x = x.reshape(repeats, num, -1)[..., :16]
      means = np.concatenate([x, x**2], 2).mean(1)
      return means.mean(0), means.std(0) / np.sqrt(repeats)

    one, error = moments(1, 600, 1)
    many, other = moments(2, 30, 100)
    self.assertGreater(np.min(one[16:]), 0.1)
    # 32 comparisons at 4 standard errors fail by chance once in 500 seeds.
    np.testing.assert_array_less(
      np.abs(one - many), 4 * np.sqrt(error**2 + other**2)
    )

  def test_every_request_gets_its_label_whatever_its_company(self):
    learner, rng = self.labelled(), jax.random.key(1)
    draw = jax.jit(
      lambda label: generators.sample(learner, rng, len(label), label=label)
    )
    label = np.array([2, 0, 2, 1, 2, 2, 0])
    mixed = np.asarray(draw(label))
    self.assertEqual(mixed.shape, (7, 4, 8, 2))
    np.testing.assert_array_equal(np.round(mixed.mean((1, 2, 3)) / 10), label)
    self.assertLen(np.unique(mixed.reshape(7, -1), axis=0), 7)
    # The four of label 2 take two batches, which hold two of each.
    np.testing.assert_array_equal(draw(label[label == 2]), mixed[label == 2])

  def test_a_batch_holds_all_classes(self):
    # Three classes in eight rows: 0, 1, 2, 0, 1, 2, and two more.
    learner = networks.create(_Plain(num_classes=3))
    draw = jax.jit(
      lambda label=None: generators.sample(
        learner, jax.random.key(1), 9, label=label
      )
    )
    x = np.asarray(draw())
    np.testing.assert_array_equal(x[:, 3], [0, 1, 2] * 3)
    # Two of a class to a batch: six rows share a mean, and three another.
    np.testing.assert_array_equal(x[:6, 4:], np.tile(x[:1, 4:], (6, 1)))
    np.testing.assert_array_equal(x[6:, 4:], np.tile(x[6:7, 4:], (3, 1)))
    self.assertFalse(np.array_equal(x[0, 4:], x[6, 4:]))
    # Labels that are not asked for take turns.
    np.testing.assert_array_equal(draw(jnp.arange(9) % 3), x)

  def test_every_condition_has_a_sample_of_its_own(self):
    condition = _rows(11, 2)
    learner, rng = _beside(condition[:_SIZE]), jax.random.key(1)
    draw = jax.jit(
      lambda condition: generators.sample(
        learner, rng, len(condition), condition=condition
      )
    )
    x = draw(condition)
    z = np.stack(
      [
        jax.random.normal(jax.random.fold_in(rng, i), (1, 3))[0]
        for i in range(11)
      ]
    )
    # Each is a batch by itself, whose mean it is.
    np.testing.assert_allclose(
      x, np.concatenate([z, condition, z], 1), atol=1e-6
    )
    np.testing.assert_array_equal(draw(condition[:3]), x[:3])
    others = draw(condition.at[1:].add(1))
    np.testing.assert_array_equal(others[0], x[0])
    np.testing.assert_allclose(others[1:, 3:5], condition[1:] + 1, atol=1e-6)

  def test_as_many_conditions_as_samples(self):
    learner = _beside(_rows(_SIZE, 2))
    with self.assertRaisesRegex(ValueError, '3 conditions for num=4'):
      generators.sample(
        learner, jax.random.key(0), 4, condition=jnp.zeros((3, 2))
      )

  def test_bad_labels(self):
    with self.assertRaisesRegex(ValueError, 'unconditional'):
      generators.sample(
        networks.create(_Plain()), jax.random.key(0), 2, label=jnp.zeros(2, int)
      )
    plain = networks.create(_Plain())
    with self.assertRaisesRegex(ValueError, 'unconditional'):
      generators.decode(
        plain, jax.random.key(0), jnp.zeros((2, 3)), label=jnp.zeros(2, int)
      )
    full = networks.create(_Plain(num_classes=8))
    for label in (-1, 8):
      with self.assertRaisesRegex(ValueError, f'label={label}.*0, ..., 7'):
        generators.sample(
          full, jax.random.key(0), 2, label=jnp.array([0, label])
        )
    self.assertEmpty(generators.sample(full, jax.random.key(0), 0))
    with self.assertRaisesRegex(ValueError, '8 classes.*batches of 7'):
      generators.sample(full.replace(batch_size=7), jax.random.key(0), 2)
    x = generators.sample(full, jax.random.key(0), 3, label=jnp.full(3, 7))
    np.testing.assert_array_equal(x[:, 3], 7)

  def labelled(self):
    """Returns a learner whose image of label y is 10 y, give or take 1."""
    learner = networks.tiny(num_classes=3)
    params = learner.params['params']
    last = params['ConvTranspose_1']['kernel']  # inputs: 3 maps, then the label
    # A map is at most its gain times 8, the root of its 8 * 8 values.
    last = 1e-3 * last / jnp.sum(jnp.abs(last))
    # Of a stride of 2 these four taps reach each pixel once.
    taps = jnp.broadcast_to(jnp.array([0.0, 10, 20]), (2, 2, 2, 3))
    last = last.at[2:4, 2:4, :, 3:].set(taps)
    params = {**params, 'ConvTranspose_1': {'kernel': last}}
    return networks.with_options(
      learner.replace(params={'params': params}),
      num_classes=3,
      output='linear',
      output_noise=0.1,
    )


class LatentTest(parameterized.TestCase):
  def test_decode_has_company_of_the_key_alone(self):
    learner = networks.create(_Plain())
    z = jax.random.normal(jax.random.key(1), (5, 3))
    x = generators.decode(learner, jax.random.key(2), z)
    np.testing.assert_array_equal(x[:, :3], z)
    # The mean of eight, times eight, less z: the same seven draws each time.
    others = _SIZE * x[:, 4:] - z
    np.testing.assert_allclose(others, np.tile(others[:1], (5, 1)), atol=1e-5)
    again = generators.decode(learner, jax.random.key(3), z)
    self.assertGreater(np.max(np.abs(again[:, 4:] - x[:, 4:])), 0.01)

  def test_decode_is_a_row_of_a_batch(self):
    learner = networks.tiny(num_classes=3)
    z = jax.random.normal(jax.random.key(1), (3, 3))
    label = jnp.array([2, 0, 2])
    decode = jax.jit(
      lambda z, label: generators.decode(
        learner, jax.random.key(2), z, label=label
      )
    )
    x = decode(z, label)
    self.assertEqual(x.shape, (3, 4, 8, 2))
    np.testing.assert_array_equal(decode(z[::-1], label[::-1]), x[::-1])
    changed = decode(z, jnp.array([2, 1, 2]))
    np.testing.assert_array_equal(changed[::2], x[::2])
    self.assertGreater(np.max(np.abs(changed[1] - x[1])), 0.01)

  @parameterized.parameters('uniform', 'normal')
  def test_interpolate_between_two_draws(self, prior):
    learner = networks.create(_Plain(prior))
    x = generators.interpolate(
      learner, jax.random.key(1), num_pairs=200, num_points=5
    )
    self.assertEqual(x.shape, (200, 5, 7))
    z = np.asarray(x[..., :3])
    share = np.linspace(0, 1, 5)[:, None]
    line = (1 - share) * z[:, :1] + share * z[:, -1:]
    np.testing.assert_allclose(z, line, atol=1e-6)
    ends = z[:, [0, -1]].reshape(-1, 3)
    self.assertLen(np.unique(ends, axis=0), 400)
    variance = {'uniform': 1 / 3, 'normal': 1.0}[prior]
    # 4 standard errors of 1200 draws of at most a normal's kurtosis.
    self.assertAlmostEqual(
      np.mean(ends**2), variance, delta=4 * variance * np.sqrt(2 / 1200)
    )
    self.assertAlmostEqual(np.mean(ends), 0, delta=4 * np.sqrt(variance / 1200))

  def test_ends_are_the_decoded_latents(self):
    # The plain generator shows the latents that this key draws.
    rng, lines = jax.random.key(1), dict(num_pairs=2, num_points=3)
    z = generators.interpolate(networks.create(_Plain()), rng, **lines)[..., :3]
    learner = networks.tiny()
    x = generators.interpolate(learner, rng, **lines)
    self.assertEqual(x.shape, (2, 3, 4, 8, 2))
    _, others_rng = jax.random.split(rng)
    ends = lambda path: path[:, jnp.array([0, -1])].reshape(-1, *path.shape[2:])
    np.testing.assert_allclose(
      generators.decode(learner, others_rng, ends(z)), ends(x), atol=1e-5
    )

  def test_neighbours_in_latent_space_are_neighbours(self):
    learner, rng = networks.tiny(), jax.random.key(3)
    paths = [
      np.asarray(
        generators.interpolate(learner, rng, num_pairs=2, num_points=num)
      )
      for num in (65, 257)
    ]
    np.testing.assert_allclose(paths[1][:, ::4], paths[0], atol=1e-5)
    coarse, fine = (np.max(np.abs(np.diff(path, axis=1))) for path in paths)
    # Steps a quarter as long move the images a quarter as far, once they are
    # short beside the bends; a jump would stay as it is.
    self.assertGreater(coarse, 0.01)
    self.assertLess(fine, coarse / 2)

  @parameterized.parameters('uniform', 'normal')
  def test_walk(self, prior):
    learner = networks.create(_Plain(prior))
    x = generators.random_walk(
      learner,
      jax.random.key(1),
      num_walks=4,
      num_steps=300,
      step_size=0.5,
    )
    self.assertEqual(x.shape, (4, 300, 7))
    z = np.asarray(x[..., :3], np.float64)
    steps = np.diff(z, axis=1)
    self.assertLessEqual(np.max(np.abs(steps)), 0.5 + 1e-6)
    if prior == 'uniform':
      self.assertEqual(np.max(np.abs(z)), 1)
      # A move that would leave ends at the wall; the others are U(-1, 1) / 2.
      free = steps[np.abs(z[:, 1:]) < 1]
      self.assertLess(len(free), steps.size)
    else:
      self.assertGreater(np.max(np.abs(z)), 3)
      # 4 standard errors of 3588 steps of variance 1/12, of kurtosis 9/5.
      self.assertAlmostEqual(np.mean(steps), 0, delta=4 / np.sqrt(12 * 3588))
      self.assertAlmostEqual(
        np.mean(steps**2), 1 / 12, delta=4 * np.sqrt(0.8 / 3588) / 12
      )
    others = _SIZE * x[..., 4:] - x[..., :3]
    np.testing.assert_allclose(
      others, np.broadcast_to(others[:1, :1], others.shape), atol=2e-4
    )

  def test_walks_start_from_the_prior_and_the_step_is_small(self):
    x = generators.random_walk(
      networks.create(_Plain('normal')),
      jax.random.key(1),
      num_walks=400,
      num_steps=2,
    )
    start, step = np.asarray(x[:, 0, :3]), np.diff(x[..., :3], axis=1)
    self.assertAlmostEqual(
      np.mean(start**2), 1, delta=4 * np.sqrt(2 / start.size)
    )
    self.assertBetween(np.max(np.abs(step)), 0.009, 0.01 + 1e-6)

  @parameterized.parameters((None,), ((2, 2, 0, 1),))
  def test_labels_of_paths(self, label):
    learner, rng = networks.create(_Plain(num_classes=3)), jax.random.key(1)
    given = None if label is None else jnp.array(label)
    walk = generators.random_walk(
      learner, rng, num_walks=4, num_steps=3, label=given
    )
    line = generators.interpolate(
      learner, rng, num_pairs=4, num_points=3, label=given
    )
    # Without labels the paths take turns.
    expected = np.repeat(np.array(label or (0, 1, 2, 0))[:, None], 3, 1)
    np.testing.assert_array_equal(walk[..., 3], expected)
    np.testing.assert_array_equal(line[..., 3], expected)


def _rows(*shape, seed=0):
  x = np.random.default_rng(seed).normal(size=shape)
  return jnp.asarray(x, jnp.float32)


def _affine(noise=1.0):
  """Returns a learner of the affine module, with fixed parameters."""
  learner = networks.create(_Affine())
  values = {
    'a': [[0.8, -0.5]],
    'b': [[0.3, 1.0]],
    'm': [[0.4], [-0.6]],
    'c': [[0.2]],
    's': [[-0.7]],
  }
  params = {'params': {name: jnp.array(v) for name, v in values.items()}}
  return learner.replace(params=params, apply_fn=_Affine(noise).apply)


def _beside(condition):
  """Returns a learner of `_Beside`, begun on that condition."""
  return generators.create(
    jax.random.key(0),
    _Beside(),
    optax.sgd(1.0),
    len(condition),
    condition=condition,
  )


if __name__ == '__main__':
  absltest.main()
