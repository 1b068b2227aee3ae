"""Samples against their company, labels and conditions."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from stein_jax import generators
from stein_jax import revision
from tests.generators import networks

_AXIS = 'batch'


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
    learner = networks.create(networks.Plain(num_classes=3))
    self.enter_context(jax.debug_nans(True))
    x = generators.sample(learner, jax.random.key(0), 4)
    np.testing.assert_array_equal(x[:, 3], [0, 1, 2, 0])

  @parameterized.parameters(np.uint8, np.int8, np.int64)
  def test_labels_of_any_integers(self, dtype):
    learner = networks.create(networks.Plain(num_classes=3))
    label = np.array([2, 0, 1]).astype(dtype)
    x = generators.sample(learner, jax.random.key(0), 3, label=label)
    np.testing.assert_array_equal(x[:, 3], [2, 0, 1])

  def test_refuses_conditions_of_another_length(self):
    condition = networks.rows(networks.SIZE, 2)
    learner, rng = networks.beside(condition), jax.random.key(0)
    create = functools.partial(
      generators.create, rng, networks.Beside(), optax.sgd(1.0)
    )
    for call in (
      lambda: create(4, condition=condition[:3]),
      lambda: generators.generate(
        learner, learner.params, rng, 4, condition=condition[:3]
      ),
      lambda: revision.revise(
        None, rng, networks.rows(4, 7), condition=condition[:3]
      ),
      lambda: generators.MLP().apply(
        {}, networks.rows(4, 2), networks.rows(3, 2), method='decode'
      ),
    ):
      with self.assertRaisesRegex(ValueError, r'condition.*\(3, 2\).*\(4, '):
        call()
    pair = generators.ImageToImage(**networks.PAIR)
    with self.assertRaisesRegex(ValueError, r'condition.*\(8, 2, 6, 1\)'):
      pair.apply(
        {}, networks.rows(8, 3), jnp.ones((8, 2, 6, 1)), method='decode'
      )

  def test_refuses_latents_of_another_length(self):
    learner = networks.create(networks.Plain())
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


class DecodeBatchTest(parameterized.TestCase):
  def test_four_devices_are_one_batch(self):
    learner, z = networks.vae(), networks.rows(networks.SIZE, 3)
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
    self.assertEqual(whole.shape, (networks.SIZE, *learner.input_shape))
    np.testing.assert_allclose(
      split.reshape(whole.shape), whole, rtol=1e-4, atol=1e-4
    )

  def test_condition(self):
    z, condition = networks.rows(5, 1), networks.rows(5, 2, seed=1)
    learner = networks.affine()
    of = learner.params['params']
    np.testing.assert_allclose(
      generators.decode_batch(learner, learner.params, z, condition),
      z * of['a'] + of['b'] + condition,
      rtol=1e-5,
      atol=1e-6,
    )


class SampleTest(parameterized.TestCase):
  def test_fewer_samples_are_the_first_of_more(self):
    learner = networks.with_options(networks.tiny(), output_noise=0.1)
    rng = jax.random.key(1)
    draw = jax.jit(generators.sample, static_argnums=2)
    most = draw(learner, rng, 2 * networks.SIZE + 3)
    self.assertEqual(most.shape, (2 * networks.SIZE + 3, 4, 8, 2))
    self.assertLen(np.unique(most.reshape(len(most), -1), axis=0), len(most))
    np.testing.assert_array_equal(draw(learner, rng, 1), most[:1])

  def test_samples_are_rows_of_whole_batches(self):
    # Each batch tells its own mean: eight rows share one, and it is theirs.
    learner = networks.create(networks.Plain())
    x = generators.sample(learner, jax.random.key(1), 3 * networks.SIZE)
    batches = np.asarray(x).reshape(3, networks.SIZE, 7)
    np.testing.assert_allclose(
      batches[:, :, 4:],
      np.broadcast_to(
        batches[:, :, :3].mean(1)[:, None], (3, networks.SIZE, 3)
      ),
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
    learner = networks.create(networks.Plain(num_classes=3))
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
    condition = networks.rows(11, 2)
    learner = networks.beside(condition[: networks.SIZE])
    rng = jax.random.key(1)
    draw = jax.jit(
      lambda condition: generators.sample(
        learner, rng, len(condition), condition=condition
      )
    )
    x = draw(condition)
    z = x[:, :3]
    self.assertLen(np.unique(z), 33)
    # Each is a batch by itself, whose mean it is.
    np.testing.assert_allclose(
      x, np.concatenate([z, condition, z], 1), atol=1e-6
    )
    np.testing.assert_array_equal(draw(condition[:3]), x[:3])
    others = draw(condition.at[1:].add(1))
    np.testing.assert_array_equal(others[0], x[0])
    np.testing.assert_allclose(others[1:, 3:5], condition[1:] + 1, atol=1e-6)

  def test_as_many_conditions_as_samples(self):
    learner = networks.beside(networks.rows(networks.SIZE, 2))
    with self.assertRaisesRegex(ValueError, '3 conditions for num=4'):
      generators.sample(
        learner, jax.random.key(0), 4, condition=jnp.zeros((3, 2))
      )

  def test_bad_labels(self):
    with self.assertRaisesRegex(ValueError, 'unconditional'):
      generators.sample(
        networks.create(networks.Plain()),
        jax.random.key(0),
        2,
        label=jnp.zeros(2, int),
      )
    plain = networks.create(networks.Plain())
    with self.assertRaisesRegex(ValueError, 'unconditional'):
      generators.decode(
        plain, jax.random.key(0), jnp.zeros((2, 3)), label=jnp.zeros(2, int)
      )
    full = networks.create(networks.Plain(num_classes=8))
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
    learner = networks.create(networks.Plain())
    z = jax.random.normal(jax.random.key(1), (5, 3))
    x = generators.decode(learner, jax.random.key(2), z)
    np.testing.assert_array_equal(x[:, :3], z)
    # The mean of eight, times eight, less z: the same seven draws each time.
    others = networks.SIZE * x[:, 4:] - z
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


if __name__ == '__main__':
  absltest.main()
