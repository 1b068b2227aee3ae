"""Sources have real data in the stated range; batches are a function of the step."""

import itertools
import os
import unittest
from unittest import mock
import zipfile

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
from PIL import Image

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

  def test_noise_to_condition_on(self):
    plain = datasets.load('synthetic')[:]
    rows = datasets.load('synthetic', condition=True)[:]
    self.assertEqual(rows.keys(), {'image', 'label', 'condition'})
    for name in plain:
      np.testing.assert_array_equal(rows[name], plain[name])
    self.assertEqual(rows['condition'].shape, rows['image'].shape)
    self.assertEqual(rows['condition'].dtype, np.float32)
    self.assertBetween(rows['condition'].max(), 0.9, 1)
    self.assertFalse(np.array_equal(rows['condition'], rows['image']))

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


def pairs(num, seed):
  """Returns uint8 [num, 8, 16, 3]: two images of 8 x 8 side by side."""
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (num, 8, 16, 3), np.uint8)


def symmetric(images):
  return images / np.float32(127.5) - 1


class FolderTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.path = self.create_tempdir().full_path
    self.train, self.test = pairs(3, seed=0), pairs(1, seed=1)
    for name, image in zip(('1', '2', '10'), self.train, strict=True):
      self.write(f'train/{name}.png', image)
    self.write('test/7.PNG', self.test[0])
    self.write_bytes('train/0.txt', b'no image')
    self.write_bytes('notes.txt', b'no image')

  def write(self, name, pixels):
    path = os.path.join(self.path, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Image.fromarray(pixels).save(path)

  def write_bytes(self, name, content):
    with open(os.path.join(self.path, name), 'wb') as file:
      file.write(content)

  def zipped(self):
    path = os.path.join(self.create_tempdir().full_path, 'images.zip')
    with zipfile.ZipFile(path, 'w') as archive:
      for folder, _, names in os.walk(self.path):
        for name in names:
          file = os.path.join(folder, name)
          archive.write(file, os.path.relpath(file, self.path))
    return path

  def load(self, path=None, **kwargs):
    path = path or self.path
    return datasets.load('folder', path=path, **{'size': 8, **kwargs})

  @parameterized.parameters(False, True)
  def test_halves_of_pairs_in_natural_order(self, zipped):
    path = self.zipped() if zipped else self.path
    halves = self.train[:, :, :8], self.train[:, :, 8:]
    for side, (image, condition) in (
      ('left', halves),
      ('right', halves[::-1]),
    ):
      rows = self.load(path, side=side)[:]
      self.assertEqual(rows.keys(), {'image', 'condition'})
      for name, expected in (('image', image), ('condition', condition)):
        self.assertEqual(rows[name].dtype, np.float32)
        np.testing.assert_allclose(rows[name], symmetric(expected), atol=1e-6)
    test = self.load(path, split='test', side='left', pixels='unit')[:]
    np.testing.assert_allclose(
      test['image'], self.test[:, :, :8] / 255, atol=1e-6
    )

  def test_the_whole_is_its_central_square_resized(self):
    # A box filter at half the size is the mean of 2 x 2 pixels, rounded after
    # rows and after columns.
    rows = self.load(size=4, mask='half', pixels='unit')[:]
    middle = self.train[:, :, 4:12].reshape(3, 4, 2, 4, 2, 3).mean((2, 4))
    np.testing.assert_allclose(rows['image'], middle / 255, atol=1.01 / 255)

  @parameterized.parameters(
    ('centre', 8, slice(2, 6), slice(2, 6)),
    ('half', 8, slice(4, 8), slice(0, 8)),
    # Of 5 pixels half is 2; beside the middle there are 1 and 2.
    ('centre', 5, slice(1, 3), slice(1, 3)),
    ('half', 5, slice(3, 5), slice(0, 5)),
  )
  def test_masks_hide_what_they_say(self, mask, size, rows, columns):
    batch = self.load(side='right', mask=mask, size=size)[np.array([2, 0])]
    known = np.ones((2, size, size, 1), np.float32)
    known[:, rows, columns] = 0
    self.assertEqual(batch['mask'].dtype, np.float32)
    np.testing.assert_array_equal(batch['mask'], known)
    # 128 is 2 * 128 / 255 - 1.
    expected = np.where(known, batch['image'], 1 / 255)
    np.testing.assert_allclose(batch['condition'], expected, atol=1e-6)

  def test_boxes_differ_by_index_and_folder_and_never_change(self):
    for split in ('train', 'test'):
      for i in range(20):
        self.write(f'{split}/{100 + i}.png', self.test[0])
    masks = self.load(mask='box')[:]['mask']
    self.assertLen(masks, 23)
    for mask in masks[..., 0]:
      rows, columns = np.nonzero(mask == 0)
      self.assertLen(rows, 16)
      self.assertEqual((np.ptp(rows), np.ptp(columns)), (3, 3))
    # 25 places: that 23 draws hit fewer than 8 has a chance below 1e-7.
    self.assertGreater(len({mask.tobytes() for mask in masks}), 7)
    part = self.load(self.zipped(), mask='box', split='train[5:9]')[:]['mask']
    np.testing.assert_array_equal(part, masks[5:9])
    test = self.load(mask='box', split='test')[:]['mask']
    self.assertFalse(np.array_equal(test, masks[: len(test)]))

  @parameterized.parameters('none', 'box')
  def test_mirror_images_follow_the_originals(self, mask):
    plain = self.load(side='left', mask=mask)[:]
    both = self.load(side='left', mask=mask, mirrored=True)[:]
    self.assertEqual(both.keys(), plain.keys())
    for name in plain:
      np.testing.assert_array_equal(both[name][:3], plain[name])
      for column in range(8):
        np.testing.assert_array_equal(
          both[name][3:, :, column], plain[name][:, :, 7 - column]
        )

  def test_slices(self):
    whole = self.load(side='left')[:]['image']
    for split, rows in (
      ('train[:2]', slice(0, 2)),
      ('train[1:]', slice(1, 3)),
      ('train[1:2]', slice(1, 2)),
    ):
      part = self.load(side='left', split=split)[:]['image']
      np.testing.assert_array_equal(part, whole[rows])
    with self.assertRaisesRegex(ValueError, r"'train\[3:\]'.*none of 3"):
      self.load(side='left', split='train[3:]')
    with self.assertRaisesRegex(ValueError, r'like train or train\[:5000\]'):
      self.load(side='left', split='train[:1%]')

  def test_grey_transparent_and_jpeg_files_become_rgb(self):
    grey = np.full((8, 8), 77, np.uint8)
    self.write('val/1.png', grey)
    self.write('val/2.png', np.stack([grey, grey, grey, grey // 2], -1))
    self.write('val/3.JPG', grey)
    self.write('val/4.jpeg', grey)
    rows = self.load(split='val', mask='half', pixels='unit')[:]
    self.assertEqual(rows['image'].shape, (4, 8, 8, 3))
    # JPEG keeps a constant to a rounding.
    np.testing.assert_allclose(rows['image'], 77 / 255, atol=1.01 / 255)

  def test_files_are_decoded_once(self):
    self.load(side='left')
    with mock.patch.object(datasets, 'square') as square:
      self.load(side='right', mirrored=True)
      self.load(side='left', mask='box')
    square.assert_not_called()

  @parameterized.parameters(False, True)
  def test_missing_files_are_named(self, zipped):
    os.makedirs(os.path.join(self.path, 'empty'))
    self.write_bytes('empty/notes.txt', b'')
    path = self.zipped() if zipped else self.path
    for split, message in (
      ('valid', f'{path}.*valid.*has: empty, test, train'),
      ('empty', f"{path}.*no .jpg.*'empty'"),
    ):
      with self.assertRaisesRegex(FileNotFoundError, message):
        self.load(path, split=split, side='left')

  def test_a_path_that_is_neither_is_refused(self):
    for path in ('/nowhere.zip', os.path.join(self.path, 'notes.txt')):
      with self.assertRaisesRegex(FileNotFoundError, f'{path}.*no folder'):
        self.load(path, side='left')
    flat = os.path.join(self.path, 'train')
    with self.assertRaisesRegex(FileNotFoundError, "'train'; it has: none"):
      self.load(flat, side='left')

  @parameterized.parameters(False, True)
  def test_a_damaged_file_is_named(self, zipped):
    with open(os.path.join(self.path, 'train/2.png'), 'rb') as file:
      content = file.read()
    for damaged in (content[:-60], b'', b'no image'):
      self.write_bytes('train/3.png', damaged)
      path = self.zipped() if zipped else self.path
      with self.assertRaisesRegex(ValueError, r'train/3\.png'):
        self.load(path, side='left')

  @parameterized.parameters(
    (dict(side='top'), "side='top'.*'left'"),
    (dict(mask='hole'), "mask='hole'.*'centre'"),
    (dict(side='left', pixels='bytes'), "'bytes'.*'unit'"),
    (dict(size=1), 'size=1.*at least 2'),
    (dict(size=8.5), 'size=8.5.*integer'),
    (dict(), "mask='none'.*'left' or 'right', not 'all'"),
  )
  def test_bad_options_are_refused_before_anything_is_read(self, kwargs, error):
    with self.assertRaisesRegex((ValueError, TypeError), error):
      self.load('/nowhere.zip', **kwargs)


class RangeTest(parameterized.TestCase):
  @parameterized.parameters(
    dict(name='mnist'),
    dict(name='cifar10'),
    dict(name='folder', path='facades.zip', mask='centre'),
    dict(name='folder', path='facades.zip', pixels='unit'),
    dict(name='mnist', pixels='symmetric'),
    dict(name='digits', scale=4.0),
    dict(name='digits', scale=4.0, pixels='symmetric'),
  )
  def test_unit_range_is_what_uint8_images_are_over_255(self, **section):
    image = np.array([0, 51, 255], np.uint8).reshape(1, 3, 1, 1)
    symmetric = section['name'] in ('cifar10', 'folder')
    pixels = section.get('pixels', 'symmetric' if symmetric else 'unit')
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
