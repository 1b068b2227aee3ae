"""Sources have real data in the stated range; batches are a function of the step."""

import itertools
import os
import unittest
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from stein_jax import datasets

TFDS_MNIST = unittest.skipUnless(
  os.path.isdir(os.path.join(os.environ.get('TFDS_DATA_DIR', ''), 'mnist')),
  'real MNIST is not here: TFDS_DATA_DIR names no folder with a prepared mnist',
)


def first(batches, num):
  return list(itertools.islice(batches, num))


class SourcesTest(parameterized.TestCase):
  @parameterized.parameters(
    ('digits', 'train', 1437, (8, 8, 1)),
    ('digits', 'test', 360, (8, 8, 1)),
    ('breast_cancer', 'train', 455, (30,)),
    ('breast_cancer', 'test', 114, (30,)),
    ('toy', 'train', 10_000, (2,)),
    ('synthetic', 'train', 64, (8, 8, 1)),
  )
  def test_embedded_sets(self, name, split, size, shape):
    source = datasets.load(name, split=split)
    self.assertLen(source, size)
    batch = source[np.array([0, size - 1])]
    self.assertEqual(batch['image'].shape, (2, *shape))
    self.assertEqual(batch['image'].dtype, np.float32)
    if 'label' in batch:
      self.assertEqual(batch['label'].dtype, np.int32)

  def test_digits_are_the_real_ones(self):
    from sklearn import datasets as sklearn_datasets

    bunch = sklearn_datasets.load_digits()
    train = datasets.load('digits')[:]
    # Row 0 is test, so train begins with row 1; 16 grey levels survive 8 bits.
    np.testing.assert_allclose(
      train['image'][0, ..., 0], bunch.images[1] / 16, atol=0.5 / 255
    )
    self.assertEqual(train['label'][0], bunch.target[1])
    self.assertEqual(train['image'].max(), 1.0)

  def test_splits_share_no_row(self):
    train, test = (
      datasets.load('breast_cancer', split=s)[:]['image']
      for s in ('train', 'test')
    )
    rows = {row.tobytes() for row in train}
    self.assertFalse(any(row.tobytes() in rows for row in test))
    np.testing.assert_allclose(train.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(train.std(0), 1, atol=1e-5)

  def test_symmetric_pixels(self):
    unit, symmetric = (
      datasets.load('digits', pixels=pixels)[:10]['image']
      for pixels in ('unit', 'symmetric')
    )
    np.testing.assert_allclose(symmetric, 2 * unit - 1, atol=1e-6)

  @TFDS_MNIST
  def test_mnist_is_the_real_one(self):
    train, test = (datasets.load('mnist', split=s) for s in ('train', 'test'))
    self.assertEqual((len(train), len(test)), (60_000, 10_000))
    # The published class counts of the test set.
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    np.testing.assert_array_equal(np.bincount(test[:]['label']), counts)
    # The published mean and deviation of the training pixels.
    images = train[:]['image']
    np.testing.assert_allclose(
      [images.mean(), images.std()], [0.1307, 0.3081], atol=5e-5
    )
    self.assertLen(datasets._data_source('mnist', 'train[:50000]'), 50_000)

  @TFDS_MNIST
  def test_records_are_read_on_demand_and_resized(self):
    records = datasets._data_source('mnist', 'test')
    source = datasets.Records(records, size=14)
    whole = datasets.load('mnist', split='test')[np.array([5, 3])]['image']
    small = source[np.array([5, 3])]['image']
    # A box filter at half the size is the mean of 2 x 2 pixels, rounded.
    expected = whole.reshape(2, 14, 2, 14, 2, 1).mean((2, 4))
    np.testing.assert_allclose(small, expected, atol=1 / 255)

  def test_square_takes_the_centre(self):
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, 2:6] = 200
    np.testing.assert_array_equal(datasets.square(image, 2), 200)

  @parameterized.parameters(
    'mnist', 'cifar10', 'svhn_cropped', 'celeb_a', 'lsun'
  )
  def test_a_missing_set_names_the_command(self, name):
    folder = self.create_tempdir().full_path
    with mock.patch.dict(os.environ, TFDS_DATA_DIR=folder):
      with self.assertRaisesRegex(
        FileNotFoundError,
        rf'{name}(.|\n)*download_and_prepare(.|\n)*TFDS_DATA_DIR',
      ):
        datasets.load(name)

  @parameterized.parameters(
    (dict(name='mnits'), ValueError, "'mnits'.*'mnist'"),
    (dict(name='digits', splt='train'), TypeError, 'splt.*split'),
    (dict(name='digits', split='valid'), ValueError, "'valid'.*'test'"),
    (dict(name='toy', density='logistic'), ValueError, 'logistic.*banana'),
    (dict(name='toy', num_examples=0), ValueError, '0.*at least 1'),
    (dict(name='synthetic', pixels='bytes'), ValueError, "'bytes'.*'unit'"),
  )
  def test_bad_sections_are_refused(self, section, error, message):
    with self.assertRaisesRegex(error, message):
      datasets.load(**section)


class BatchesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.source = datasets.Arrays({'image': np.arange(10.0, dtype=np.float32)})

  def test_an_epoch_shows_every_example_once(self):
    rows = np.concatenate(
      [b['image'] for b in first(datasets.batches(self.source, 5, seed=0), 2)]
    )
    np.testing.assert_array_equal(np.sort(rows), np.arange(10))

  def test_epochs_and_seeds_differ(self):
    orders = [
      np.concatenate(
        [
          b['image']
          for b in first(
            datasets.batches(self.source, 5, seed=seed, start=start), 2
          )
        ]
      ).tolist()
      for seed, start in [(0, 0), (0, 2), (1, 0)]
    ]
    self.assertLen({tuple(order) for order in orders}, 3)

  @parameterized.parameters(0, 1, 3, 7)
  def test_starting_later_is_skipping(self, start):
    whole = first(datasets.batches(self.source, 3, seed=4), start + 2)[start:]
    later = first(datasets.batches(self.source, 3, seed=4, start=start), 2)
    np.testing.assert_array_equal(
      [b['image'] for b in whole], [b['image'] for b in later]
    )

  def test_processes_split_the_same_global_batch(self):
    (alone,) = first(datasets.batches(self.source, 6, seed=2), 1)
    parts = []
    for index in range(3):
      with (
        mock.patch('jax.process_count', return_value=3),
        mock.patch('jax.process_index', return_value=index),
      ):
        parts += first(datasets.batches(self.source, 6, seed=2), 1)
    np.testing.assert_array_equal(
      np.concatenate([p['image'] for p in parts]), alone['image']
    )

  @parameterized.parameters(
    (11, '11.*10 examples'), (0, '0.*at least 1'), (2.5, '2.5.*integer')
  )
  def test_bad_sizes_are_refused(self, size, message):
    with self.assertRaisesRegex(ValueError, message):
      datasets.batches(self.source, size, seed=0)

  def test_rows_must_divide_over_processes(self):
    with mock.patch('jax.process_count', return_value=4):
      with self.assertRaisesRegex(ValueError, '6.*4 processes'):
        datasets.batches(self.source, 6, seed=0)


class NpzTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.path = self.create_tempdir().full_path + '/images.npz'
    self.images = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3, 1)

  def test_reads_images_labels_and_splits(self):
    np.savez(self.path, image=self.images, label=[3, 4])
    source = datasets.load('npz', path=self.path)
    np.testing.assert_allclose(source[:]['image'], self.images / 255, rtol=1e-6)
    np.testing.assert_array_equal(source[:]['label'], [3, 4])
    np.savez(self.path, train_image=self.images[:1], test_image=self.images)
    self.assertLen(datasets.load('npz', path=self.path, split='train'), 1)
    self.assertLen(datasets.load('npz', path=self.path, split='test'), 2)
    part = datasets.load('npz', path=self.path, split='test[1:]')
    whole = datasets.load('npz', path=self.path, split='test')
    np.testing.assert_array_equal(part[:]['image'], whole[1:]['image'])
    with self.assertRaisesRegex(
      ValueError, r"split='test\[:1%\]'.*train\[:5000\]"
    ):
      datasets.load('npz', path=self.path, split='test[:1%]')

  def test_says_what_is_missing(self):
    with self.assertRaisesRegex(FileNotFoundError, 'nowhere'):
      datasets.load('npz', path='/nowhere.npz')
    np.savez(self.path, picture=self.images)
    with self.assertRaisesRegex(ValueError, 'has no image.*picture'):
      datasets.load('npz', path=self.path)

  def test_a_pickle_is_refused(self):
    np.savez(self.path, image=np.array([{}], object))
    with self.assertRaisesRegex(ValueError, 'allow_pickle'):
      datasets.load('npz', path=self.path)


class RangeTest(parameterized.TestCase):
  @parameterized.parameters(
    dict(name='mnist'),
    dict(name='cifar10'),
    dict(name='mnist', pixels='symmetric'),
    dict(name='digits', scale=4.0),
    dict(name='digits', scale=4.0, pixels='symmetric'),
  )
  def test_unit_range_is_what_uint8_images_are_over_255(self, **section):
    image = np.array([0, 51, 255], np.uint8).reshape(1, 3, 1, 1)
    pixels = section.get(
      'pixels', 'symmetric' if section['name'] == 'cifar10' else 'unit'
    )
    source = datasets.Arrays(
      {'image': image}, pixels=pixels, scale=section.get('scale', 1.0)
    )
    rows = source[:]['image']
    unit = datasets.to_unit(rows, section)
    np.testing.assert_allclose(unit.ravel(), [0, 0.2, 1], atol=1e-6)
    back = datasets.from_unit(unit, section)
    np.testing.assert_allclose(back, rows, atol=1e-5)


if __name__ == '__main__':
  absltest.main()
