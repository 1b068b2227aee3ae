"""Values and scores of energies: alone, in a batch, of any dtype."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax

from stein_jax import dtypes
from stein_jax import energies
from stein_jax import kernels
from stein_jax import learners
from stein_jax import stein
from tests.energies import models


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
    energy = models.energy(kind, norm)
    self.assertEqual(learners.keywords(energy), takes)
    self.assertEqual((energy.input_shape, energy.batch_size), ((8, 8, 2), 8))
    x = models.images()
    condition = () if kind == 'autoencoder' else (models.labels(),)
    changed = x.at[1:].add(models.images(7, seed=1))
    call = jax.jit(lambda x: energy.apply_fn(energy.params, x, *condition))
    self.assertEqual(learners.mixes(energy), 'axis_name' in takes)
    self.assertEqual(call(x)[0] != call(changed)[0], learners.mixes(energy))

  def test_other_energies_take_nothing(self):
    self.assertEqual(learners.keywords(models.rbm()[0]), ())

  @parameterized.parameters('batch', 'layer', 'none')
  def test_pairs(self, norm):
    energy = models.energy('discriminator', norm)
    data, samples = models.images(seed=1), 2 * models.images(seed=2) + 1
    y = models.labels()
    run = lambda joint: jax.jit(
      lambda params: energies.pair(
        energy, params, data, samples, y, joint=joint
      )
    )(energy.params)
    joint, apart = np.concatenate(run(True)), np.concatenate(run(False))
    whole = models.call(
      energy, np.concatenate([data, samples]), np.concatenate([y, y])
    )
    np.testing.assert_allclose(joint, whole, rtol=1e-5, atol=1e-5)
    halves = [models.call(energy, half, y) for half in (data, samples)]
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
    energy, x = models.energy('joint', 'none'), models.images(seed=1)
    run = lambda rng, method: energies.pair(
      energy, energy.params, x, x, joint=joint, rng=rng, method=method
    )
    run = jax.jit(run, static_argnums=1)
    first, second = run(None, 'logits')
    np.testing.assert_allclose(first, second, atol=1e-6)
    np.testing.assert_allclose(
      first, models.call(energy, x, method='logits'), atol=1e-6
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
    energy = models.energy('discriminator', norm)
    x, normalized_with = models.images(seed=1), 2 * models.images(seed=2)
    y = models.labels()

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
    energy, x = models.energy('autoencoder', 'none'), models.images(2)
    score = jax.jit(lambda rng: energies.score(energy, x, rng=rng))
    total = lambda x: (
      -jnp.sum(energy.apply_fn(energy.params, x, rng=jax.random.key(1)))
    )
    first = score(jax.random.key(1))
    np.testing.assert_allclose(first, jax.jit(jax.grad(total))(x), atol=1e-5)
    self.assertGreater(np.max(np.abs(first - score(jax.random.key(2)))), 0.01)

  @parameterized.parameters(
    (energies.Autoencoder(models.CONVS, norm='none', dropout=0.0), True, True),
    # Two halves of one batch drop other units than a batch alone would.
    (energies.Autoencoder(models.CONVS, norm='none'), True, False),
    (energies.Autoencoder(models.CONVS, norm='layer'), False, True),
    (energies.Autoencoder(models.CONVS, dropout=0.0), False, False),
  )
  def test_whose_passes_are_one(self, module, joint, expected):
    energy = models.learner(module, optax.adam(0.1))
    self.assertEqual(energies.has_one_pass(energy, joint=joint), expected)

  @parameterized.parameters(
    (optax.lbfgs(), False),
    (
      optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(9)),
      False,
    ),
    (optax.chain(optax.clip(1.0), optax.adam(0.1)), True),
  )
  def test_a_line_search_asks_for_passes_of_its_own(self, optimizer, expected):
    energy = models.learner(energies.MLP((3,)), optimizer)
    self.assertEqual(energies.has_one_pass(energy), expected)

  def test_one_pass_under_dropout(self):
    energy, x = models.energy('autoencoder', 'none'), models.images(2)
    rng = jax.random.key(1)
    score, mean = energies.score_and_mean(energy, x, rng=rng)
    np.testing.assert_allclose(
      score, energies.score(energy, x, rng=rng), rtol=1e-5, atol=1e-6
    )
    expected = jnp.mean(energies.value(energy, energy.params, x, rng=rng))
    np.testing.assert_allclose(mean(energy.params), expected, rtol=1e-6)

  def test_conditions_of_a_batch(self):
    batch = {'image': 1, 'label': 2}
    self.assertEqual(energies.conditions(batch), ())
    self.assertEqual(energies.conditions({**batch, 'condition': 3}), (3,))


class FeaturesTest(parameterized.TestCase):
  @parameterized.product(norm=['batch', 'none'], together=[False, True])
  def test_say_whether_they_mix(self, norm, together):
    energy = models.energy('autoencoder', norm)
    x = models.images(6)
    data = models.images(6, seed=1) if together else None
    features = energies.features(energy, data)
    self.assertEqual(features.mixes, norm == 'batch')
    # They do where another image changes the first one's.
    changed = features(x.at[1:].add(1.0))[0] != features(x)[0]
    self.assertEqual(bool(jnp.any(changed)), features.mixes)

  def test_repulsion_is_that_of_a_plain_function(self):
    # With 3 features of 7 points it takes a pass for each feature.
    energy, *_ = models.rbm(5, 3)
    x = jnp.asarray(models.points(7, 5), jnp.float32)
    features = energies.features(energy)
    kernel = kernels.RBF(2.0)
    found = stein.feature_repulsion(x, features, kernel)
    plain = stein.feature_repulsion(x, lambda x: features(x), kernel)
    np.testing.assert_allclose(found, plain, rtol=1e-4, atol=1e-6)
    self.assertGreater(jnp.max(jnp.abs(plain)), 0.1)


if __name__ == '__main__':
  absltest.main()
