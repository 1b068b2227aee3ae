"""Networks of another shape, and labels that are none, are refused in words.

By every algorithm, before anything is compiled.
"""

import functools
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
from flax import linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
import optax

from stein_jax import energies
from stein_jax import learners
from stein_jax import samplers
from stein_jax.algorithms import amortized_svgd
from stein_jax.algorithms import classification
from stein_jax.runs import configs
from stein_jax.runs import evaluation
from stein_jax.runs import training
from tests import mixing
from tests import smoke

_SHAPES = {
  'a_column': lambda values: values[:, None],
  'a_sum': jnp.sum,
  'a_matrix': lambda values: jnp.tile(values[:, None], (1, 3)),
  'one_less': lambda values: values[1:],
}
_MESSAGES = {
  'a_column': r'The energy has shape \((\d+), 1\); wanted: \(\1,\), one number',
  'a_sum': r'The energy has shape \(\); wanted: \((\d+),\), one number',
  'a_matrix': r'The energy has shape \((\d+), 3\); wanted: \(\1,\), one number',
  'one_less': r'The energy has shape \(\d+,\); wanted: \((\d+),\), one number',
}


class Misshapen(nn.Module):
  """An energy of anything, and of conditions, in another shape than [n]."""

  shape: str

  @nn.compact
  def __call__(self, x, *condition):
    values = nn.Dense(1)(x.reshape(len(x), -1))[:, 0]
    return _SHAPES[self.shape](values)

  def log_partition(self):
    return jnp.zeros(())

  def laplacian(self, x):
    return _SHAPES[self.shape](jnp.zeros(len(x)))

  def expert_logits(self, x):
    return _SHAPES[self.shape](jnp.zeros(len(x)))


Misshapen.__module__ = energies.__name__  # what a config may name


_CONFIG = ConfigDict(dict(evaluation=dict(parameters='last')))


def _energy(shape, x=None):
  return learners.create(
    jax.random.key(0), Misshapen(shape), optax.sgd(1.0), _points(x)
  )


def _points(x=None):
  return jnp.ones((6, 2)) if x is None else x


class EnergyTest(parameterized.TestCase):
  def refused(self, shape='a_column'):
    return self.assertRaisesRegex(ValueError, _MESSAGES[shape])

  def check(self, name, shape, **step):
    self.enter_context(
      mock.patch.object(energies, 'Misshapen', Misshapen, create=True)
    )
    config = mixing.get_config(name, 'autoencoder', **step)
    config.energy = dict(name='Misshapen', shape=shape)
    training.check(config)

  @parameterized.parameters(mixing.NAMES)
  def test_by_every_algorithm(self, name):
    with self.refused():
      self.check(name, 'a_column')

  @parameterized.parameters('a_sum', 'a_matrix', 'one_less')
  def test_in_any_other_shape(self, shape):
    with self.refused(shape):
      self.check('stein_cd', shape)

  @parameterized.parameters('exact', 'sliced', 'denoising')
  def test_by_every_objective(self, objective):
    with self.refused():
      self.check('score_matching', 'a_column', objective=objective)

  def test_a_laplacian(self):
    with self.assertRaisesRegex(
      ValueError, 'laplacian has shape .8, 1.; wanted'
    ):
      self.check('score_matching', 'a_column', objective='closed_form')

  @parameterized.parameters('vgan', 'vcd')
  def test_experts(self, name):
    with self.assertRaisesRegex(ValueError, 'expert_logits has shape .*, k.'):
      self.check(name, 'one_less', generator_entropy=1.0)

  def test_by_amortized_svgd(self):
    config = mixing.get_config('gan', 'discriminator')
    generator = _shapes(config)[0].generator
    state = amortized_svgd.create(
      _energy('a_column', jnp.ones((8, *generator.input_shape))), generator
    )
    with self.refused():
      jax.eval_shape(amortized_svgd.step, state, None, jax.random.key(0))

  @parameterized.parameters(sorted(_SHAPES))
  def test_by_every_function(self, shape):
    energy, x, rng = _energy(shape), _points(), jax.random.key(0)
    asks = dict(
      value=lambda: energies.value(energy, energy.params, x),
      score=lambda: energies.score(energy, x),
      normalized_with=lambda: energies.score(energy, x, normalized_with=x),
      pair=lambda: energies.pair(energy, energy.params, x, x),
      apart=lambda: energies.pair(energy, energy.params, x, x, joint=False),
      contrast=lambda: energies.contrast(energy, x, x)(energy.params),
      langevin=lambda: energies.run_chain(
        energy, samplers.Langevin(0.1), rng, x
      ),
      mala=lambda: energies.run_chain(energy, samplers.MALA(0.1), rng, x),
      log_density=lambda: energies.target(energy).log_density(x),
      ascent=lambda: energies.ascend_likelihood(energy, x, x),
      free=lambda: energies.free_energy(energy, energy.params, x, entropy=0.0),
      likelihood=lambda: evaluation.log_likelihood(energy, x, 0.0),
      partition=lambda: energies.ais_log_partition(energy, rng),
    )
    for name, ask in asks.items():
      with self.subTest(name), self.refused(shape):
        jax.eval_shape(ask)

  def test_what_is_no_array(self):
    energy = _energy('a_column').replace(apply_fn=lambda params, x: (x, x))
    with self.assertRaisesRegex(
      ValueError, 'The energy is a tuple; wanted: an'
    ):
      energies.score(energy, _points())

  def test_other_methods(self):
    class Odd(nn.Module):
      @nn.compact
      def __call__(self, x):
        return nn.Dense(1)(x)[:, 0]

      def log_partition(self):
        return jnp.zeros(1)

      def gibbs(self, rng, x, num_steps):
        return x[:, :1]

    x = _points()
    energy = learners.create(jax.random.key(0), Odd(), optax.sgd(1.0), x)
    with self.assertRaisesRegex(ValueError, r'log_partition has shape \(1,\)'):
      energies.exact_log_partition(energy)
    with self.assertRaisesRegex(
      ValueError, r'gibbs has shape \(6, 1\); wanted'
    ):
      energies.run_chain(energy, samplers.Gibbs(), jax.random.key(0), x)


class Judge(nn.Module):
  """What should be a classifier."""

  returns: str

  @nn.compact
  def __call__(self, x):
    features = x.reshape(len(x), -1)
    logits = nn.Dense(3)(features)
    return {
      'logits': logits,
      'three': (features, logits, logits),
      'vectors': (features, logits[:, 0]),
      'one_less': (features, logits[1:]),
      'images': (x, logits),
      'both': (features, logits),
    }[self.returns]


class ClassifierTest(parameterized.TestCase):
  def step(self, returns, label=(0, 1, 2, 1)):
    batch = dict(
      image=np.random.default_rng(0).random((4, 6, 6, 1), np.float32),
      label=np.asarray(label),
    )
    state = classification.State(
      0,
      learners.create(
        jax.random.key(0), Judge(returns), optax.sgd(1.0), batch['image']
      ),
    )
    step = functools.partial(classification.step, shift=0)
    return step, (state, batch, jax.random.key(0))

  @parameterized.parameters(
    (
      'logits',
      r'The classifier returns \(4, 3\); wanted: features \[n, f\] and',
    ),
    ('three', 'The classifier returns .*; wanted: features'),
    ('vectors', r'logits has shape \(4,\); wanted: \(4, k\)'),
    ('one_less', r'logits has shape \(3, 3\); wanted: \(4, k\)'),
    ('images', r'features has shape \(4, 6, 6, 1\); wanted: \(4, k\)'),
  )
  def test_another_shape(self, returns, message):
    step, inputs = self.step(returns)
    with self.assertRaisesRegex(ValueError, message):
      jax.eval_shape(step, *inputs)

  @parameterized.parameters(
    ((0.0, 1.0, 2.0, 1.0), 'label is float.*allowed: integers'),
    ([[0], [1], [2], [1]], r'label is int.* \(4, 1\); allowed: integers \[n\]'),
    ((0, 1), r'label has shape \(2, 3\); wanted: \(4, k\)'),
  )
  def test_no_labels(self, label, message):
    step, inputs = self.step('both', label)
    with self.assertRaisesRegex(ValueError, message):
      jax.eval_shape(step, *inputs)

  def test_a_label_that_is_no_class(self):
    step, (state, batch, rng) = self.step('both')
    step = jax.jit(step)
    for label, known in (
      ((0, 1, 2, 1), True),
      ((0, 1, 3, 1), False),
      ((0, -1, 2, 1), False),
    ):
      _, metrics = step(state, dict(batch, label=np.asarray(label)), rng)
      for value in metrics.values():
        self.assertEqual(np.isfinite(value), known)

  def test_the_loss_is_the_cross_entropy(self):
    step, (state, batch, rng) = self.step('both')
    _, metrics = jax.jit(step)(state, batch, rng)
    _, logits = state.classifier.apply_fn(
      state.classifier.params, batch['image']
    )
    logits = np.asarray(logits, float)
    log_p = logits - np.log(np.sum(np.exp(logits), 1, keepdims=True))
    expected = -np.mean(log_p[np.arange(4), batch['label']])
    np.testing.assert_allclose(metrics['classifier/loss'], expected, rtol=1e-5)
    hits = np.argmax(logits, 1) == batch['label']
    self.assertEqual(metrics['classifier/accuracy'], np.mean(hits))


class GeneratorTest(parameterized.TestCase):
  """Samples that are not like the data would broadcast."""

  @parameterized.parameters(
    ('bicycle_gan', 'of_pairs', 'samples'),
    ('coopnets', 'autoencoder', 'samples'),
    ('vae_teaching', 'autoencoder', 'samples'),
    ('vcd', 'autoencoder', 'moved'),
  )
  def test_is_refused(self, name, kind, what):
    self.enter_context(
      mock.patch.object(energies, 'OfPairs', mixing.OfPairs, create=True)
    )
    state, batch, step = _shapes(mixing.get_config(name, kind))
    generator = state.generator
    apply = generator.apply_fn

    def narrow(*args, method=None, **kwargs):
      made = apply(*args, method=method, **kwargs)
      return made[:, :1] if method in (None, 'decode') else made

    state = state._replace(generator=generator.replace(apply_fn=narrow))
    with self.assertRaisesRegex(
      ValueError, rf'{what} has shape \(\d, 1, \d+, \d\); wanted: \(\d, '
    ):
      jax.eval_shape(step, state, batch, jax.random.key(0))


def _shapes(config):
  """Returns the shapes of a first state, a batch, and the step."""
  _, init, batch = smoke.uninitialised(config)
  state = jax.eval_shape(init, jax.random.key(0))
  return state, batch, configs.step(config)


class LabelTest(parameterized.TestCase):
  """Of energies."""

  def energy(self, kind):
    module = {
      'joint': energies.JointLabel(
        energies.Autoencoder(((2, 3, 2, 1),), norm='none'), 3, margin=0.0
      ),
      'discriminator': energies.Discriminator((2,), 3, 'none'),
    }[kind]
    x, y = jnp.ones((4, 4, 4, 1)), jnp.arange(4) % 3
    return learners.create(jax.random.key(0), module, optax.sgd(1.0), x, y), x

  @parameterized.product(
    kind=('joint', 'discriminator'),
    case=(
      ((0, 1, 2, 3), 'label=3 must be in 0, ..., 2'),
      ((0, -1, 2, 0), 'label=-1 must be in 0, ..., 2'),
      ((0.0, 1.0, 2.0, 0.0), 'label is float.*allowed: integers'),
      ([[0], [1], [2], [0]], r'label is int.* \(4, 1\); allowed: integers'),
      ((1,), r'label has shape \(1, 3\); wanted: \(4, '),
    ),
  )
  def test_no_labels(self, kind, case):
    (energy, x), (label, message) = self.energy(kind), case
    with self.assertRaisesRegex(ValueError, message):
      energy.apply_fn(energy.params, x, np.asarray(label))

  @parameterized.parameters('joint', 'discriminator')
  def test_a_label_that_is_no_class(self, kind):
    energy, x = self.energy(kind)
    found = jax.jit(lambda y: energies.value(energy, energy.params, x, y))(
      jnp.array([0, 3, -1, 2])
    )
    np.testing.assert_array_equal(np.isnan(found), [False, True, True, False])


class AccuracyTest(absltest.TestCase):
  def state(self, logits):
    def apply(params, x):
      return x.reshape(len(x), -1), logits

    learner = learners.Learner.create(
      apply_fn=apply, params={}, tx=optax.identity()
    )
    return classification.State(0, learner)

  def test_it_is_not_a_number_where_logits_are_not(self):
    logits = jnp.eye(3).at[1, 2].set(jnp.nan)
    rows = dict(image=np.ones((3, 2, 2, 1)), label=np.array([0, 2, 2]))
    source = type('Source', (), {'__getitem__': lambda _, key: rows})()
    found = evaluation.test_metrics(_CONFIG, self.state(logits), source)
    self.assertTrue(np.isnan(found['test/accuracy']))
    found = evaluation.test_metrics(_CONFIG, self.state(jnp.eye(3)), source)
    self.assertAlmostEqual(found['test/accuracy'], 2 / 3)

  def test_labels_that_are_no_class_are_refused(self):
    rows = dict(image=np.ones((3, 2, 2, 1)), label=np.array([0, 3, 2]))
    source = type('Source', (), {'__getitem__': lambda _, key: rows})()
    with self.assertRaisesRegex(ValueError, 'label.*=3 must be in 0, ..., 2'):
      evaluation.test_metrics(_CONFIG, self.state(jnp.eye(3)), source)


if __name__ == '__main__':
  absltest.main()
