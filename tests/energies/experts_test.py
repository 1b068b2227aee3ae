"""Tests of energies of experts, and of the entropies that train them."""

import functools
import itertools

from absl.testing import absltest
from absl.testing import parameterized
import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from stein_jax import energies
from stein_jax import learners

_LOGITS = np.random.default_rng(0).normal(0, 3, size=(6, 4))


def entropy(p):
  """Returns H of a bit, literally, in nats."""
  return -p * np.log(p) - (1 - p) * np.log(1 - p)


def sigmoid(a):
  return 1 / (1 + np.exp(-a))


class ExpertsTest(parameterized.TestCase):
  def test_energy_is_the_sum_of_entropies(self):
    expected = entropy(sigmoid(_LOGITS)).sum(1)
    found = energies.expert_energy(jnp.asarray(_LOGITS, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-5)

  @parameterized.parameters(0.0, 20.0, -20.0, 60.0, -500.0)
  def test_energy_of_sure_experts_keeps_its_digits(self, a):
    # For large |a|, H = (|a| + 1) e^-|a| to first order in e^-|a|.
    expected = np.log(2) if a == 0 else (abs(a) + 1) * np.exp(-abs(a))
    value, slope = jax.value_and_grad(
      lambda a: energies.expert_energy(a[None, None])[0]
    )(jnp.float32(a))
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-37)
    # dH/da = -a sigmoid(a) sigmoid(-a).
    expected = -a * np.exp(-abs(a)) / (1 + np.exp(-abs(a))) ** 2
    np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-37)

  def test_entropy_of_the_mean_less_mean_energy_is_mutual_information(self):
    p = sigmoid(_LOGITS)
    # I(example; bit) = sum over both of p(i, b) log [p(i, b) / p(i) p(b)].
    information = 0.0
    for i, j in itertools.product(*map(range, p.shape)):
      for bit, total in ((p[i, j], p[:, j]), (1 - p[i, j], 1 - p[:, j])):
        information += bit / len(p) * np.log(bit / total.mean())
    logits = jnp.asarray(_LOGITS, jnp.float32)
    found = energies.expert_entropy(logits) - jnp.mean(
      energies.expert_energy(logits)
    )
    np.testing.assert_allclose(found, information, rtol=1e-5)

  def test_of_one_example_repeated_they_are_equal(self):
    logits = jnp.repeat(jnp.asarray(_LOGITS[:1], jnp.float32), 5, 0)
    np.testing.assert_allclose(
      energies.expert_entropy(logits),
      energies.expert_energy(logits)[0],
      rtol=1e-6,
    )

  @parameterized.parameters(1e3, 1e5)
  def test_entropy_where_all_agree_has_finite_slopes(self, size):
    logits = jnp.full((3, 2), size)
    value, slope = jax.value_and_grad(energies.expert_entropy)(logits)
    self.assertEqual(float(value), 0)
    chex.assert_tree_all_finite(slope)

  def test_entropy_is_of_the_whole_batch_over_devices(self):
    logits = jnp.asarray(_LOGITS, jnp.float32)
    shards = jax.vmap(
      functools.partial(energies.expert_entropy, axis_name='i'), axis_name='i'
    )(logits.reshape(3, 2, 4))
    np.testing.assert_allclose(
      shards, np.full(3, energies.expert_entropy(logits)), rtol=1e-6
    )


class MultiModalTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.x = jax.random.uniform(jax.random.key(0), (5, 8, 8, 1))
    self.module = energies.MultiModal(widths=(2, 3), dense=4, num_experts=6)
    self.energy = learners.create(
      jax.random.key(1),
      self.module,
      dict(name='sgd', learning_rate=1.0),
      self.x,
    )

  def call(self, x, method=None):
    return learners.call(self.energy, self.energy.params, x, method=method)

  def test_is_bounded_however_large_its_parameters(self):
    for factor in (1.0, 1e3):
      params = jax.tree.map(lambda leaf: factor * leaf, self.energy.params)
      values = self.module.apply(params, self.x)
      self.assertTrue(np.all(values >= 0))
      self.assertTrue(np.all(values <= 6 * np.log(2) + 1e-5))

  def test_is_the_entropy_of_its_experts(self):
    logits = self.call(self.x, 'expert_logits')
    self.assertEqual(logits.shape, (5, 6))
    self.assertEqual(self.call(self.x, 'features').shape, (5, 4))
    np.testing.assert_allclose(
      self.call(self.x), energies.expert_energy(logits), rtol=1e-6
    )

  def test_network_layer_by_layer(self):
    def forward(p, x):
      for name in ('Conv_0', 'Conv_1'):
        layer = p['trunk'][name]
        x = jax.lax.conv_general_dilated(
          x,
          layer['kernel'],
          (1, 1),
          'SAME',
          dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        )
        x = nn.max_pool(
          nn.relu(x + layer['bias'].reshape(1, 1, 1, -1)), (2, 2), (2, 2)
        )
      x = x.reshape(len(x), -1)
      dense, top = p['trunk']['Dense_0'], p['experts']
      x = nn.relu(x @ dense['kernel'] + dense['bias'][None])
      return x @ top['kernel'] + top['bias'][None]

    np.testing.assert_allclose(
      self.call(self.x, 'expert_logits'),
      forward(self.energy.params['params'], self.x),
      rtol=1e-4,
      atol=1e-6,
    )

  @parameterized.parameters(
    # The counts of the authors' networks: 3.45 million on MNIST, 8.94 million on
    # SVHN and CIFAR-10.
    (64, (28, 28, 1), 3_447_616),
    (128, (32, 32, 3), 8_940_032),
  )
  def test_numbers_of_parameters(self, width, shape, expected):
    module = energies.MultiModal(widths=(width, width))
    params = jax.eval_shape(
      module.init, jax.random.key(0), jnp.zeros((1, *shape))
    )
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    h, w, c = shape
    by_hand = (25 * c + 1) * width + (25 * width + 1) * width
    by_hand += (h * w // 16 * width + 1) * 1024 + 1025 * 128
    self.assertEqual(count, by_hand)
    self.assertEqual(round(count, -4), round(expected, -4))

  def test_unimodal_forms(self):
    rng = jax.random.key(2)
    logit, log = (
      energies.Unimodal(form=form, widths=(2,), dense=3)
      for form in ('logit', 'log')
    )
    params = logit.init(rng, self.x)
    a = -logit.apply(params, self.x)
    np.testing.assert_allclose(
      log.apply(params, self.x), -np.log(sigmoid(a)), rtol=1e-5
    )
    with self.assertRaisesRegex(ValueError, 'form.*square.*logit'):
      energies.Unimodal(form='square')


if __name__ == '__main__':
  absltest.main()
