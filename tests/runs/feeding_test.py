"""Data that a device holds give the batches, states and metrics of the host's."""

import contextlib
import pathlib
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import chex
import jax
import numpy as np

from stein_jax import datasets
from stein_jax import parallel
from stein_jax.runs import feeding
from stein_jax.runs import training
from tests import smoke

# An energy of images alone, a classifier that reads labels, and networks that are
# conditioned on them.
_NAMES = ('contrastive_divergence_mnist', 'classification_mnist', 'gan_mnist')
_EVERY_BYTE = np.arange(256, dtype=np.uint8).reshape(64, 2, 2, 1)


@contextlib.contextmanager
def one_device():
  """Lets a run have the first of the simulated devices alone."""
  devices = jax.devices()[:1]
  with (
    mock.patch('jax.devices', lambda: devices),
    mock.patch('jax.device_count', lambda: 1),
  ):
    yield


def bits(tree):
  """Returns the bytes of every leaf, keys of random numbers as integers."""
  data = jax.tree.map(
    lambda leaf: (
      jax.random.key_data(leaf)
      if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
      else leaf
    ),
    tree,
  )
  return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(data)]


class HeldTest(parameterized.TestCase):
  @parameterized.product(
    pixels=('unit', 'symmetric'),
    scale=(1.0, 0.3),
    beside=('nothing', 'labels', 'condition'),
  )
  def test_gives_the_batches_of_its_source(self, pixels, scale, beside):
    arrays = {'image': _EVERY_BYTE}
    if beside != 'nothing':
      arrays['label'] = np.arange(64) % 7
    source = datasets.Arrays(arrays, pixels=pixels, scale=scale)
    if beside == 'condition':
      source = source.conditioned_on_labels()
    indices = np.random.default_rng(0).permutation(64)
    expected = source[indices]
    actual = jax.jit(lambda held, i: held[i])(source.held(), indices)
    self.assertEqual(actual.keys(), expected.keys())
    for name, rows in expected.items():
      self.assertEqual(actual[name].dtype, rows.dtype)
      np.testing.assert_array_equal(actual[name], rows)

  def test_has_the_levels_of_binary_images(self):
    source = datasets.Arrays({'image': _EVERY_BYTE}).binarized()
    batch = source.held()[np.arange(64)]
    np.testing.assert_array_equal(
      np.ravel(batch['image']), np.repeat([0.0, 1.0], 128)
    )

  @parameterized.parameters('dequantized', 'floats', 'condition', 'mask')
  def test_there_is_none_of_what_only_the_host_makes(self, what):
    image = np.zeros((4, 2, 2, 1), np.uint8)
    arrays = {
      'dequantized': {'image': image},
      'floats': {'image': image.astype(np.float32)},
      'condition': {'image': image, 'condition': image},
      'mask': {'image': image, 'condition': image, 'mask': image},
    }[what]
    source = datasets.Arrays(arrays)
    if what == 'dequantized':
      source = source.dequantized()
    self.assertIsNone(source.held())


class StepsTest(parameterized.TestCase):
  @parameterized.product(name=_NAMES, steps_per_call=(1, 2))
  def test_of_both_are_equal_bit_for_bit(self, name, steps_per_call):
    config = smoke.get_config(name)
    config.steps_per_call = steps_per_call
    ends = []
    with one_device():
      for config.feed in ('host', 'device'):
        whole, _, source, _ = training.check(config)
        first = training.first_batch(whole, source)
        state = training.initial_state(whole, first)
        calls = training.steps(whole, source, state)
        ends.append([bits(each) for _, *each in calls])
    self.assertLen(ends[0], 4 // steps_per_call)
    self.assertEqual(*ends)

  def test_a_run_goes_on_from_either_with_the_numbers_of_one(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    config = smoke.get_config('classification_mnist')
    with one_device():
      config.feed = 'host'
      expected = training.train(config, folder / 'whole')
      config.feed = 'device'
      with smoke.stop_after(1):
        training.train(config, folder / 'device')
      device = training.train(config, folder / 'device')
      with smoke.stop_after(3):
        training.train(config, folder / 'mixed')
      config.feed = 'host'
      mixed = training.train(config, folder / 'mixed')
    for state in (device, mixed):
      self.assertEqual(bits(state), bits(expected))
    lines = smoke.metric_lines(folder / 'whole')
    self.assertEqual(smoke.metric_lines(folder / 'device'), lines)

  def test_several_devices_can_hold_the_same(self):
    source = datasets.Arrays({'image': _EVERY_BYTE})
    step = lambda state, batch, rng: (state + batch['image'].sum(), {})
    indices = np.arange(8)
    held = parallel.compile_step(step, 'jit', held=source.held())
    host = parallel.compile_step(step, 'jit')
    rng = jax.random.key(0)
    chex.assert_trees_all_close(
      held(0.0, indices, rng), host(0.0, source[indices], rng)
    )
    with self.assertRaisesRegex(ValueError, "parallel='pmap'.*'jit'"):
      parallel.compile_step(step, 'pmap', held=source.held())


class ChoiceTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.config = smoke.get_config('contrastive_divergence_mnist')
    self.source = datasets.load(**self.config.data)

  def held(self, **changes):
    self.config.update(changes)
    return feeding.held(self.config, self.source)

  def test_an_accelerator_holds_what_is_small(self):
    with one_device(), mock.patch('jax.default_backend', lambda: 'gpu'):
      self.assertIsNotNone(self.held())
      self.assertIsNone(self.held(feed='host'))
      # There are 64 images of 4x4.
      with mock.patch.object(feeding, 'MAX_BYTES', 64 * 16):
        self.assertIsNotNone(self.held(feed='auto'))
      with mock.patch.object(feeding, 'MAX_BYTES', 64 * 16 - 1):
        self.assertIsNone(self.held())
        self.assertIsNotNone(self.held(feed='device'))
      self.assertIsNone(self.held(feed='auto', parallel='shard_map'))

  def test_a_cpu_does_where_it_is_asked_to(self):
    with one_device():
      self.assertIsNone(self.held())
      self.assertIsNotNone(self.held(feed='device'))

  def test_several_devices_do_not(self):
    with mock.patch('jax.default_backend', lambda: 'gpu'):
      self.assertIsNone(self.held())

  def test_nor_is_a_source_held_that_reads_its_own_way(self):
    class Mirrored(datasets.Arrays):
      def __getitem__(self, indices):
        return {'image': super().__getitem__(indices)['image'][:, :, ::-1]}

    self.source = Mirrored({'image': _EVERY_BYTE})
    with one_device(), mock.patch('jax.default_backend', lambda: 'gpu'):
      self.assertIsNone(self.held())

  def test_what_cannot_be_is_refused_before_a_run(self):
    self.config.feed = 'device'
    with self.assertRaisesRegex(ValueError, "feed='device' needs.*one device"):
      training.check(self.config)
    self.config.feed = 'gpu'
    with self.assertRaisesRegex(ValueError, "feed='gpu'.*'auto', 'host'"):
      training.check(self.config)


if __name__ == '__main__':
  absltest.main()
