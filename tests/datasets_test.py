"""Sources have real data in the stated range; batches are a function of the step."""

import io
import itertools
import os
import pathlib
import struct
import types
import unittest
from unittest import mock
import zipfile
import zlib

from absl import logging
from absl.testing import absltest
from absl.testing import parameterized
import jax
import ml_dtypes
import numpy as np
from PIL import Image
import pytest

from stein_jax import datasets
from stein_jax.datasets import _tfds
from stein_jax.datasets import sets
from stein_jax.datasets import sources

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

  def test_no_draw_depends_on_jaxs_default_generator(self):
    expected = datasets.load('toy', num_examples=5)[:]['image']
    with jax.default_prng_impl('rbg'):
      found = datasets.load('toy', num_examples=5)[:]['image']
    np.testing.assert_array_equal(found, expected)

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
    self.assertLen(_tfds.data_source('mnist', 'train[:50000]'), 50_000)

  @TFDS_MNIST
  def test_records_are_read_on_demand_and_resized(self):
    records = _tfds.data_source('mnist', 'test')
    source = datasets.Records(records, size=14)
    whole = datasets.load('mnist', split='test')[np.array([5, 3])]['image']
    small = source[np.array([5, 3])]['image']
    # A box filter at half the size is the mean of 2 x 2 pixels, rounded.
    expected = whole.reshape(2, 14, 2, 14, 2, 1).mean((2, 4))
    np.testing.assert_allclose(small, expected, atol=1 / 255)

  def test_noise_to_condition_on(self):
    plain = datasets.load('synthetic')[:]
    rows = datasets.load('synthetic', pairs=True)[:]
    self.assertEqual(rows.keys(), {'image', 'label', 'condition'})
    for name in plain:
      np.testing.assert_array_equal(rows[name], plain[name])
    self.assertEqual(rows['condition'].shape, rows['image'].shape)
    self.assertEqual(rows['condition'].dtype, np.float32)
    self.assertBetween(rows['condition'].max(), 0.9, 1)
    self.assertFalse(np.array_equal(rows['condition'], rows['image']))

  def test_labels_as_a_condition(self):
    plain = datasets.load('digits')
    source = datasets.load('digits', condition='label')
    self.assertEqual(source.num_classes, 10)
    self.assertLen(source, len(plain))
    batch, expected = source[np.array([4, 0])], plain[np.array([4, 0])]
    self.assertEqual(batch.keys(), {'image', 'label', 'condition'})
    self.assertNotIn('condition', expected)
    for name in expected:
      np.testing.assert_array_equal(batch[name], expected[name])
    np.testing.assert_array_equal(batch['condition'], expected['label'])
    self.assertEqual(batch['condition'].dtype, np.int32)
    batch['condition'][:] = 7  # neither the labels nor the source change
    np.testing.assert_array_equal(batch['label'], expected['label'])
    again = source[np.array([4, 0])]
    np.testing.assert_array_equal(again['condition'], expected['label'])

  def test_labels_in_bytes_as_a_condition(self):
    # Bytes would be pixels, if they were no labels.
    path = self.create_tempdir().full_path + '/images.npz'
    np.savez(path, image=np.zeros((3, 2)), label=np.uint8([0, 255, 3]))
    source = datasets.load('npz', path=path, condition='label')
    np.testing.assert_array_equal(source[:]['condition'], [0, 255, 3])
    self.assertEqual(source.num_classes, 256)

  @parameterized.parameters(
    (dict(name='toy'), "condition='label'.*'toy' has no labels"),
    (dict(name='synthetic', pairs=True), r'has a condition.*\(8, 8, 1\)'),
    (dict(name='mnits'), "name='mnits'"),
  )
  def test_a_condition_that_is_refused(self, section, message):
    with self.assertRaisesRegex(ValueError, message):
      datasets.load(**section, condition='label')

  def test_a_data_set_is_a_function_of_one_file(self):
    def ones(split: str = 'train'):
      del split
      return datasets.Arrays({'image': np.ones((2, 3))})

    ones.__module__ = sets.__name__
    with mock.patch.object(sets, 'ones', ones, create=True):
      self.assertLen(datasets.load('ones', split='test'), 2)
      self.assertIs(datasets.ones, ones)
      with self.assertRaisesRegex(TypeError, 'takes: split'):
        datasets.load('ones', size=3)
      with self.assertRaisesRegex(ValueError, 'allowed: .*ones'):
        datasets.load('twos')
    with self.assertRaises(AttributeError):
      _ = datasets.ones

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
    (dict(name='mnits'), ValueError, "name='mnits'.*allowed: .*mnist"),
    (dict(name='digits', splt='train'), TypeError, 'splt.*split'),
    (dict(name='digits', split='valid'), ValueError, "'valid'.*'test'"),
    (dict(name='toy', density='logistic'), ValueError, 'logistic.*banana'),
    (dict(name='toy', num_examples=0), ValueError, '0.*at least 1'),
    (dict(name='synthetic', pixels='bytes'), ValueError, "'bytes'.*'unit'"),
    (dict(name='digits', condition=True), ValueError, "True.*'none', 'label'"),
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
    self.write('val/2.png', np.stack([grey, grey, grey, grey], -1))
    self.write('val/3.JPG', grey)
    self.write('val/4.jpeg', grey)
    rows = self.load(split='val', mask='half', pixels='unit')[:]
    self.assertEqual(rows['image'].shape, (4, 8, 8, 3))
    # JPEG keeps a constant to a rounding; 77 of 255 of the second is opaque.
    np.testing.assert_allclose(
      rows['image'][[0, 2, 3]], 77 / 255, atol=1.01 / 255
    )
    over_white = (77 * 77 + 178 * 255) / 255
    np.testing.assert_allclose(
      rows['image'][1], over_white / 255, atol=1.01 / 255
    )

  def test_files_are_decoded_once(self):
    self.load(side='left')
    with mock.patch.object(sources, 'square') as square:
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
    with self.assertRaisesRegex(FileNotFoundError, "'valid'; it has: none"):
      self.load(flat, side='left', split='valid')

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
    (dict(channels=2), 'channels=2.*1, 3'),
  )
  def test_bad_options_are_refused_before_anything_is_read(self, kwargs, error):
    with self.assertRaisesRegex((ValueError, TypeError), error):
      self.load('/nowhere.zip', **kwargs)


def png_file(rows, depth, colour, *chunks):
  """Returns a PNG file of raw rows, as Pillow cannot write each of them."""

  def chunk(kind, content):
    body = kind + content
    return (
      struct.pack('>I', len(content))
      + body
      + struct.pack('>I', zlib.crc32(body))
    )

  channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
  width = len(rows[0]) * 8 // depth // channels
  head = struct.pack('>IIBBBBB', width, len(rows), depth, colour, 0, 0, 0)
  pixels = zlib.compress(b''.join(b'\0' + bytes(row) for row in rows))
  parts = (b'IHDR', head), *chunks, (b'IDAT', pixels), (b'IEND', b'')
  return b'\x89PNG\r\n\x1a\n' + b''.join(chunk(*part) for part in parts)


class PicturesTest(parameterized.TestCase):
  """Files of every kind are what a viewer shows on a white page."""

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    (self.folder / 'train').mkdir()

  def seen(self, picture, name='1.png', **options):
    """Returns the file as it is read, [h, w, 3] of 0 to 255."""
    path = self.folder / 'train' / name
    if isinstance(picture, bytes):
      path.write_bytes(picture)
    else:
      picture.save(path, **options)
    return self.read(min(Image.open(path).size))[0]

  def read(self, size, path=None):
    source = datasets.load(
      'folder',
      path=str(path or self.folder),
      size=size,
      mask='half',
      pixels='unit',
    )
    return 255 * source[:]['image']

  def test_16_bits_of_grey_are_a_ramp(self):
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    seen = self.seen(Image.fromarray(ramp))
    expected = np.repeat(np.round(ramp / 257)[..., None], 3, -1)
    np.testing.assert_allclose(seen, expected, atol=1e-3)

  def test_16_bits_of_colour(self):
    rows = [[0, 9, 128, 9, 255, 255], [1, 0, 2, 0, 3, 0]]
    # One pixel each of two rows; Pillow keeps the high byte, of rounding 1.
    seen = self.seen(png_file([row * 2 for row in rows], 16, 2))
    expected = np.array([[[0, 128, 255]] * 2, [[1, 2, 3]] * 2])
    np.testing.assert_allclose(seen, expected, atol=1.01)

  @parameterized.parameters(
    (1, lambda x: x),
    (2, lambda x: x[:, ::-1]),
    (3, lambda x: x[::-1, ::-1]),
    (4, lambda x: x[::-1]),
    # Rows are columns: the first row is the visual left, or the right.
    (5, lambda x: x.swapaxes(0, 1)),
    (6, lambda x: x[::-1].swapaxes(0, 1)),
    (7, lambda x: x[::-1, ::-1].swapaxes(0, 1)),
    (8, lambda x: x[:, ::-1].swapaxes(0, 1)),
  )
  def test_turned_as_exif_says(self, orientation, turned):
    stored = np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for picture in (stored, stored[..., 0]):
      seen = self.seen(Image.fromarray(picture), exif=exif)
      expected = turned(picture.reshape(6, 6, -1))
      np.testing.assert_allclose(
        seen, expected * np.ones(3), atol=1e-3, err_msg=picture.shape
      )

  def test_exif_of_a_jpeg_and_a_damaged_one(self):
    stored = np.zeros((8, 8, 3), np.uint8)
    stored[:, 4:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    seen = self.seen(Image.fromarray(stored), '1.jpg', exif=exif)
    np.testing.assert_allclose(
      seen[..., 0], stored[..., 0].T, atol=2, err_msg='turned'
    )
    damaged = b'Exif\0\0MM\0*\0\0\0'
    seen = self.seen(Image.fromarray(stored), '1.jpg', exif=damaged)
    np.testing.assert_allclose(seen, stored, atol=2, err_msg='left alone')

  def test_what_is_transparent_is_the_page(self):
    rng = np.random.default_rng(0)
    rgba = rng.integers(0, 256, (4, 4, 4), np.uint8)
    rgba[0, 0] = 0, 0, 0, 0
    for mode, picture in (
      ('RGBA', rgba),
      ('LA', rgba[..., 2:]),
    ):
      seen = self.seen(Image.fromarray(picture, mode))
      colour, alpha = picture[..., :-1].astype(float), picture[..., -1:] / 255
      expected = (alpha * colour + (1 - alpha) * 255) * np.ones(3)
      np.testing.assert_allclose(seen, expected, atol=1.01, err_msg=mode)

  def test_transparent_colours_of_a_palette_and_without(self):
    palette = (b'PLTE', bytes([9, 8, 7, 255, 0, 1, 40, 40, 40]))
    rows = [[0, 1, 2], [2, 1, 0], [0, 0, 0]]
    colours = np.array([[9, 8, 7], [255, 0, 1], [40, 40, 40]])
    plain = colours[np.array(rows)]
    seen = self.seen(png_file(rows, 8, 3, palette))
    np.testing.assert_allclose(seen, plain, atol=1e-3)
    seen = self.seen(png_file(rows, 8, 3, palette, (b'tRNS', b'\xff\x00\x80')))
    opacity = np.array([255, 0, 128])[np.array(rows)][..., None] / 255
    expected = opacity * plain + (1 - opacity) * 255
    np.testing.assert_allclose(seen, expected, atol=1.01)
    grey = png_file([[7, 8], [8, 9]], 8, 0, (b'tRNS', b'\0\x08'))
    np.testing.assert_allclose(self.seen(grey)[..., 0], [[7, 255], [255, 9]])
    bits = png_file([[0b10000000], [0b01000000]] * 4, 1, 0)
    seen = self.seen(bits)[:2, :, 1]
    np.testing.assert_allclose(seen, 255 * np.eye(8)[:2], atol=1e-3)

  def test_inks_are_what_they_leave_of_white(self):
    # Every kind of JPEG; that of inks is stored upside down, as Adobe has it.
    inks = np.full((8, 8, 4), (51, 102, 0, 128), np.uint8)
    seen = self.seen(Image.fromarray(inks, 'CMYK'), '1.jpg', quality=100)
    expected = (255 - inks[..., :3]) * (1 - 128 / 255)
    np.testing.assert_allclose(seen, expected, atol=3)
    grey = Image.fromarray(inks[..., 0])
    seen = self.seen(grey, '1.jpg', quality=100, progressive=True)
    np.testing.assert_allclose(seen, 51, atol=1)

  def test_what_no_one_can_show_is_refused_by_name(self):
    frames = [Image.new('RGB', (4, 4), colour) for colour in ('red', 'blue')]
    animation = io.BytesIO()
    frames[0].save(animation, 'PNG', save_all=True, append_images=frames[1:])
    tiff = io.BytesIO()
    Image.new('F', (4, 4)).save(tiff, 'TIFF')
    for content, message in (
      (animation.getvalue(), 'animation of 2 pictures'),
      (png_file([[0b00011011]] * 4, 2, 0, (b'tRNS', b'\0\1')), '8 bits'),
      (png_file([[0, 1] * 2] * 2, 16, 0, (b'tRNS', b'\0\1')), '8 bits'),
      (png_file([[0, 1] * 6] * 2, 16, 2, (b'tRNS', b'\0\1' * 3)), '8 bits'),
      (tiff.getvalue(), 'it is no JPEG or PNG file'),
    ):
      with self.assertRaisesRegex(ValueError, f'train/1.png.*{message}'):
        self.seen(content)

  def test_of_several_pictures_in_a_jpeg_the_first(self):
    first, second = (Image.new('RGB', (8, 8), c) for c in ('white', 'black'))
    buffer = io.BytesIO()
    first.save(buffer, 'MPO', save_all=True, append_images=[second])
    np.testing.assert_allclose(self.seen(buffer.getvalue(), '1.jpg'), 255)

  def test_a_picture_too_narrow_for_halves_is_named(self):
    Image.new('RGB', (1, 4)).save(self.folder / 'train' / '1.png')
    with self.assertRaisesRegex(ValueError, 'train/1.png.*uint8'):
      datasets.load('folder', path=str(self.folder), side='left')

  def test_what_is_left_out_is_told(self):
    for name in ('2.webp', '.DS_Store'):
      (self.folder / 'train' / name).write_bytes(b'')
    with mock.patch.object(logging, 'warning') as warning:
      self.seen(Image.new('L', (4, 4)))
    (call,) = warning.mock_calls
    self.assertEqual(call.args[2:], (1, 2, 'train', '2.webp'))

  @parameterized.parameters(False, True)
  def test_a_picture_that_changed_is_read_anew(self, zipped):
    file, archive = self.folder / 'train' / '1.png', self.folder / 'all.zip'
    seen = []
    for colour in (10, 200, 10):
      # Neither its name nor its length, its time and its place tell.
      file.touch()
      file.write_bytes(png_file([[colour] * 4] * 4, 8, 0))
      os.utime(file, ns=(10**18, 10**18))
      if zipped:
        with zipfile.ZipFile(archive, 'w') as writer:
          writer.write(file, 'train/1.png')
        os.utime(archive, ns=(10**18, 10**18))
      seen.append(self.read(4, archive if zipped else None)[0, 0, 0, 0])
    np.testing.assert_allclose(seen, [10, 200, 10], atol=1e-3)

  def test_a_prepared_set_that_changed_is_read_anew(self):
    shard = self.folder / 'mnist-train.array_record'
    row = dict(image=np.zeros((2, 2, 1), np.uint8), label=3)
    records = mock.Mock()
    records.__len__ = lambda _: 1
    records.__getitems__ = mock.Mock(return_value=[row])
    with (
      mock.patch.object(
        _tfds,
        '_builder',
        return_value=types.SimpleNamespace(data_path=self.folder),
      ),
      mock.patch.object(_tfds, 'data_source', return_value=records),
    ):
      for content, reads in ((b'a', 1), (b'a', 1), (b'b', 2)):
        shard.write_bytes(content)
        os.utime(shard, ns=(10**18, 10**18))
        datasets.load('mnist')[:]['image'][:] = 7  # changes no later load
        self.assertEqual(records.__getitems__.call_count, reads)
      self.assertEqual(datasets.load('mnist')[:]['image'].max(), 0)


class ArraysTest(parameterized.TestCase):
  @parameterized.parameters(
    (slice(None),), (slice(1, 3),), (np.array([2, 0]),), (1,)
  )
  def test_no_batch_shares_memory_with_its_source(self, indices):
    images = np.random.default_rng(0).uniform(size=(3, 2, 2, 1))
    mask = (images > 0.5).astype(np.float32)
    path = self.create_tempdir().full_path + '/images.npz'
    np.savez(path, image=images.astype(np.float32), label=np.arange(3))
    for source in (
      datasets.Arrays(
        {
          'image': images.astype(np.float32),
          'condition': images.astype(np.float16),
          'label': np.arange(3, dtype=np.int32),
          'mask': mask,
        }
      ),
      datasets.Arrays({'image': np.uint8(255 * images)}, pixels='symmetric'),
      datasets.load('npz', path=path),
      datasets.load('toy', num_examples=3),
      datasets.load('breast_cancer'),
      datasets.load('synthetic', num_examples=3, pairs=True),
    ):
      before = source[:]
      for batch in (source[indices], source[:]):
        for value in batch.values():
          value[...] = 1 - value
      for name, value in source[:].items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)

  def test_the_callers_arrays_are_the_callers(self):
    image, label = np.zeros((3, 2), np.float32), np.arange(3)
    arrays = {'image': image, 'label': label}
    source = datasets.Arrays(arrays)
    image[:], label[:] = 7, 7
    arrays['label'] = None
    np.testing.assert_array_equal(source[:]['image'], np.zeros((3, 2)))
    np.testing.assert_array_equal(source[:]['label'], np.arange(3))
    self.assertTrue(image.flags.writeable)
    image.flags.writeable = False  # what nobody writes to is not copied
    shared = datasets.Arrays({'image': image})
    self.assertTrue(np.shares_memory(shared._arrays['image'], image))

  def test_scale_multiplies_floats_as_it_does_bytes(self):
    images = np.array([0, 51, 255], np.uint8).reshape(3, 1, 1, 1)
    rows = [
      datasets.Arrays({'image': x}, scale=4.0)[:]['image']
      for x in (images, images / 255)
    ]
    np.testing.assert_allclose(rows[1], rows[0], rtol=1e-6)

  @parameterized.parameters(
    np.float16, np.float32, np.float64, '>f4', np.longdouble, ml_dtypes.bfloat16
  )
  def test_floats_of_every_kind(self, dtype):
    images = np.array([0, 0.25, 1]).reshape(3, 1, 1, 1).astype(dtype)
    rows = datasets.Arrays({'image': images})[:]['image']
    self.assertEqual(rows.dtype, np.float32)
    np.testing.assert_array_equal(rows.ravel(), [0, 0.25, 1])

  @parameterized.parameters(
    (np.float64(3), 'image is one float64'),
    (np.zeros((3, 0)), r'image is float64 \(3, 0\)'),
    (np.zeros((3, 2, 2), bool), 'image is bool.*uint8 or floating'),
    (np.zeros((3, 2, 2), np.int16), 'image is int16.*uint8 or floating'),
    (np.zeros((3, 2, 2), np.uint16), 'image is uint16.*uint8 or floating'),
    (np.zeros((3, 2, 2), object), 'image is object'),
    (np.zeros((3, 2, 2), np.complex64), 'image is complex64'),
    # Finite in float64, and not in what a batch is.
    (np.full((3, 2), 1e300), 'must be finite'),
  )
  def test_what_is_no_image_is_refused(self, image, message):
    with self.assertRaisesRegex(ValueError, message):
      datasets.Arrays({'image': image})

  @parameterized.parameters(
    ([0.0, 1.0, 2.0], 'label is float64.*integers'),
    ([True, False, True], 'label is bool'),
    ([0, -1, 2], 'label=-1 must be at least 0'),
    (np.array([0, 2**31, 1]), 'label=2147483648 must be .*below 2147483647'),
    (np.array([0, 2**64 - 1, 1], np.uint64), 'label=18446744073709551615'),
    ([[0], [1], [2]], r'label is int64 \(3, 1\)'),
    ([0, 1], "'label': 2"),
    (2, 'label is one int64'),
    (['a', 'b', 'c'], 'label is <U1'),
    (np.array([0, 1, 2], object), 'label is object'),
  )
  def test_what_are_no_labels_is_refused(self, label, message):
    with self.assertRaisesRegex(ValueError, message):
      datasets.Arrays({'image': np.zeros((3, 2)), 'label': label})

  @parameterized.parameters(
    (np.full((3, 2, 2, 1), 255, np.uint8), 'mask has values from 255 to 255'),
    (np.full((3, 2, 2, 1), 0.5), 'mask has values from 0.5'),
    (np.ones((3, 2, 2)), r'mask is float64 \(3, 2, 2\).*\[n, h, w, 1\]'),
  )
  def test_what_is_no_mask_is_refused(self, mask, message):
    images = np.zeros((3, 2, 2, 1))
    with self.assertRaisesRegex(ValueError, message):
      datasets.Arrays({'image': images, 'mask': mask})

  def test_an_image_is_needed(self):
    with self.assertRaisesRegex(ValueError, 'need an image; got label'):
      datasets.Arrays({'label': [1]})


class SharedTest(absltest.TestCase):
  def test_a_view_that_is_read_only_of_an_array_that_is_not(self):
    array = np.ones((3, 4, 4, 1), np.float32)
    view = array[:]
    view.flags.writeable = False
    source = datasets.Arrays({'image': view})
    array[:] = 0.5
    np.testing.assert_array_equal(source[:]['image'], 1)


class DeclaredRangeTest(parameterized.TestCase):
  def load(self, images, **section):
    path = self.create_tempdir().full_path + '/images.npz'
    np.savez(path, image=images)
    return datasets.load('npz', path=path, **section)

  def images(self, low, high):
    both_ends = np.linspace(low, high, 12).reshape(1, 2, 2, 3)
    return np.concatenate([both_ends, both_ends])

  @parameterized.parameters(
    ('unit', 0, 255, 'from 0 to 255, and .* from 0 to 1: save them as uint8'),
    ('unit', -1, 1, "from -1 to 1, .*-1 to 1 .pixels='symmetric'"),
    ('unit', 0, 1.01, 'from 0 to 1.01'),
    ('unit', -0.01, 1, 'from -0.01 to 1'),
    ('symmetric', 0, 255, 'from 0 to 255, and .* are from -1 to 1'),
    ('symmetric', -127.5, 127.5, 'from -127.5 to 127.5'),
  )
  def test_floats_outside_are_refused(self, pixels, low, high, message):
    images = self.images(low, high)
    for each in (images, images[0], images.astype(np.float32)):
      with self.assertRaisesRegex(ValueError, message, msg=each.shape):
        self.load(each, pixels=pixels)
    with self.assertRaisesRegex(ValueError, 'condition has float64'):
      arrays = {'image': np.ones_like(images), 'condition': images}
      datasets.Arrays(arrays, pixels=pixels)

  @parameterized.parameters(
    ('unit', 0, 1), ('unit', -1e-4, 1.0004), ('symmetric', -1, 1)
  )
  def test_floats_within_and_their_rounding_are_not(self, pixels, low, high):
    images = self.images(low, high)
    with mock.patch.object(logging, 'warning') as warning:
      rows = self.load(images, pixels=pixels)[:]['image']
    np.testing.assert_allclose(rows, images, atol=1e-6)
    warning.assert_not_called()

  def test_a_table_has_no_range(self):
    table = np.array([[-3.0, 400.0], [2.0, 1e6]])
    np.testing.assert_allclose(self.load(table)[:]['image'], table, rtol=1e-6)

  @parameterized.parameters(
    (np.linspace(0, 1, 8).reshape(2, 2, 2), 'symmetric'),
    (np.array([0, 1] * 4, np.uint8).reshape(2, 2, 2), 'unit'),
  )
  def test_an_unlikely_range_is_told(self, images, pixels):
    with mock.patch.object(logging, 'warning') as warning:
      self.load(images, pixels=pixels)
    warning.assert_called_once()

  @parameterized.parameters(
    (dict(name='cifar10'), dict(split='train', pixels='symmetric')),
    (dict(name='mnist', split='test'), dict(split='test', pixels='unit')),
    (
      dict(name='digits', scale=4.0),
      dict(split='train', pixels='unit', scale=4.0),
    ),
    (dict(name='toy'), dict(split='train')),
    (
      dict(name='mnist', condition='label'),
      dict(split='train', pixels='unit', condition='label'),
    ),
  )
  def test_a_file_has_the_range_of_what_it_stands_for(self, section, kept):
    found = datasets.from_file(section, 'x.npz')
    self.assertEqual(found, dict(name='npz', path='x.npz', **kept))


class OwnImagesTest(parameterized.TestCase):
  """Folders and files that were made for nothing of this package."""

  def setUp(self):
    super().setUp()
    self.path = self.create_tempdir().full_path

  def write(self, *names):
    """Writes pictures whose red is their place among the names."""
    for i, name in enumerate(names):
      path = os.path.join(self.path, name)
      os.makedirs(os.path.dirname(path), exist_ok=True)
      pixels = np.full((6, 4, 3), (i, 0, 0), np.uint8)
      Image.fromarray(pixels).save(path)

  def reds(self, split, path=None, **kwargs):
    path = path or self.path
    source = datasets.load(
      'folder', path=path, split=split, size=2, pixels='unit', **kwargs
    )
    batch = source[:]
    red = np.round(255 * batch['image'][:, 0, 0, 0]).astype(int)
    return red.tolist(), batch

  @parameterized.parameters(False, True)
  def test_every_tenth_of_a_flat_folder_is_a_test_image(self, zipped):
    names = [f'{i}.png' for i in range(21)]
    self.write(*names)
    path = self.path
    if zipped:  # as it is made of a folder: with the folder in it
      path = os.path.join(self.create_tempdir().full_path, 'photos.zip')
      with zipfile.ZipFile(path, 'w') as archive:
        for name in names:
          archive.write(os.path.join(self.path, name), f'photos/{name}')
        archive.writestr('__MACOSX/photos/._0.png', b'')
    train, batch = self.reds('train', path)
    self.assertEqual(train, [i for i in range(21) if i not in (9, 19)])
    self.assertEqual(set(batch), {'image'})
    self.assertEqual(self.reds('test', path)[0], [9, 19])
    self.assertEqual(self.reds('all', path)[0], list(range(21)))
    self.assertEqual(self.reds('train[:2]', path)[0], [0, 1])

  def test_folders_of_classes_are_labels(self):
    self.write('cat/1.png', 'cat/2.png', 'dog/1.png')
    red, batch = self.reds('all')
    self.assertEqual(red, [0, 1, 2])
    self.assertEqual(batch['label'].tolist(), [0, 0, 1])

  def test_splits_may_have_folders_of_classes(self):
    self.write('train/a/1.png', 'train/b/1.png', 'test/b/1.png', 'test/a/1.png')
    for split, reds in (('train', [0, 1]), ('test', [3, 2])):
      red, batch = self.reds(split)
      self.assertEqual(red, reds)
      self.assertEqual(batch['label'].tolist(), [0, 1])

  def test_a_class_has_one_label_in_all_splits(self):
    # The order of 'train' holds, also for what comes before it in the alphabet.
    self.write('train/b/1.png', 'train/d/1.png', 'train/e/1.png')
    self.write('val/a/1.png', 'val/d/1.png', 'Test/e/1.png', 'Test/b/1.png')
    for split, labels in (
      ('train', [0, 1, 2]), ('val', [3, 1]), ('test', [0, 2]), ('Test', [0, 2]),
    ):  # fmt: skip
      self.assertEqual(self.reds(split)[1]['label'].tolist(), labels)

  @parameterized.parameters('Train', 'TRAIN')
  def test_splits_in_capital_letters_are_no_classes(self, train):
    self.write(f'images/{train}/1.png', 'images/Test/1.png')
    for split, red in (('train', 0), ('test', 1)):
      found, batch = self.reds(split)
      self.assertEqual(found, [red])
      self.assertNotIn('label', batch)

  def test_a_split_that_is_not_there_says_what_to_write(self):
    self.write('train/1.png')
    with self.assertRaisesRegex(
      FileNotFoundError, "'test'; it has: train. Allowed: split=NAME"
    ):
      self.reds('test')

  def test_one_channel_is_the_luminance(self):
    self.write('0.png')
    pixels = np.full((4, 4, 3), (10, 200, 30), np.uint8)
    Image.fromarray(pixels).save(os.path.join(self.path, '0.png'))
    grey = self.reds('all', channels=1)[1]['image']
    # ITU-R 601: 0.299 R + 0.587 G + 0.114 B.
    expected = round(0.299 * 10 + 0.587 * 200 + 0.114 * 30) / 255
    self.assertEqual(grey.shape, (1, 2, 2, 1))
    np.testing.assert_allclose(grey, expected, atol=1e-6)

  @parameterized.parameters('train_', '')
  def test_a_file_with_one_array_of_images_is_split(self, prefix):
    path = os.path.join(self.path, 'x.npz')
    image = np.arange(20, dtype=np.uint8).reshape(20, 1, 1, 1)
    np.savez(path, **{f'{prefix}image': image, f'{prefix}label': np.arange(20)})
    for split, rows in (
      ('train', [i for i in range(20) if i % 10 != 9]),
      ('test', [9, 19]),
    ):
      batch = datasets.load('npz', path=path, split=split)[:]
      self.assertEqual(batch['label'].tolist(), rows)
      np.testing.assert_allclose(
        batch['image'].ravel(), np.array(rows) / 255, atol=1e-6
      )

  def test_a_folder_is_no_npz_file(self):
    with self.assertRaisesRegex(FileNotFoundError, '--path=FOLDER'):
      datasets.load('npz', path=self.path)

  @parameterized.parameters(
    (
      dict(name='mnist', split='train[:50000]'),
      dict(size=28, channels=1, split='train', pixels='unit'),
    ),
    (
      dict(name='lsun', split='validation'),
      dict(size=64, channels=3, split='test', pixels='symmetric'),
    ),
    (
      dict(name='synthetic', shape=(12, 12, 1)),
      dict(size=12, channels=1, split='train', pixels='unit'),
    ),
  )
  def test_a_folder_has_the_size_of_what_it_stands_for(self, section, kept):
    found = datasets.from_folder(section, 'photos')
    self.assertEqual(found, dict(name='folder', path='photos', **kept))

  def test_a_section_with_a_path_keeps_the_rest(self):
    section = dict(name='folder', path='a', side='left', size=8)
    found = datasets.from_folder(section, 'b')
    self.assertEqual(found, {**section, 'path': 'b'})


class ItemsTest(parameterized.TestCase):
  """Anything with a length and items is a source."""

  @parameterized.parameters(
    lambda pixels, label: pixels,
    lambda pixels, label: (pixels, label),
    lambda pixels, label: {'image': pixels, 'label': label},
    lambda pixels, label: {'image': Image.fromarray(pixels), 'label': label},
    lambda pixels, label: (np.moveaxis(pixels, -1, 0), label),
    lambda pixels, label: {'image': np.float64(pixels / 255)},
  )
  def test_items_of_every_kind(self, make):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), np.uint8)
    items = [make(image, 7 - i) for i, image in enumerate(pixels)]
    source = datasets.Items(items)
    self.assertLen(source, 5)
    batch = source[np.array([3, 1])]
    np.testing.assert_allclose(batch['image'], pixels[[3, 1]] / 255, atol=1e-6)
    if 'label' in batch:
      self.assertEqual(batch['label'].tolist(), [4, 6])

  def test_labels_may_be_the_condition(self):
    items = [(np.zeros((2, 2)), i) for i in range(3)]
    source = datasets.Items(items, num_classes=3).conditioned_on_labels()
    self.assertEqual(source[:]['condition'].tolist(), [0, 1, 2])
    with self.assertRaisesRegex(ValueError, 'num_classes='):
      datasets.Items(items).conditioned_on_labels()

  @parameterized.parameters(
    (3, TypeError, 'int is no source'),
    ([], ValueError, 'no items'),
    ([{'img': np.zeros((2, 2))}], ValueError, "'image'; it has: img"),
    ([np.full((2, 2), 7.0)], ValueError, 'from 7 to 7'),
    ([np.full((2, 2), np.nan)], ValueError, 'finite'),
    (['cat'], ValueError, 'image is'),
    ({'train': [np.zeros((2, 2))]}, TypeError, 'one of its values'),
    ([(np.zeros((2, 2)), [1, 2])], ValueError, r'label has the shape \(2,\)'),
  )
  def test_refuses(self, items, error, message):
    with self.assertRaisesRegex(error, message):
      datasets.Items(items)

  def test_refuses_images_of_several_shapes_by_name(self):
    source = datasets.Items([np.zeros((2, 2)), np.zeros((3, 2))])
    with self.assertRaisesRegex(ValueError, r'\(2, 2, 1\), \(3, 2, 1\)'):
      source[:]

  def test_a_data_section_may_name_one(self):
    found = datasets.load('tests.datasets_test:squares', num=4)
    np.testing.assert_allclose(
      found[:]['image'][:, 0, 0, 0], [0, 0.1, 0.2, 0.3]
    )


@pytest.mark.slow
class ItemsOfOthersTest(absltest.TestCase):
  """The data sets of other packages are sources, by the real packages."""

  def setUp(self):
    super().setUp()
    random = np.random.default_rng(0)
    self.pixels = random.integers(0, 256, (5, 4, 6, 3), np.uint8)
    self.pairs = [(pixels, i) for i, pixels in enumerate(self.pixels)]

  def check(self, items, label=True, **kwargs):
    batch = datasets.Items(items, **kwargs)[np.array([3, 1])]
    expected = self.pixels[[3, 1]] / 255
    np.testing.assert_allclose(batch['image'], expected, atol=1e-6)
    if label:
      self.assertEqual(batch['label'].tolist(), [3, 1])

  def test_hugging_face(self):
    hugging_face = pytest.importorskip('datasets')
    features = hugging_face.Features(
      img=hugging_face.Image(), label=hugging_face.ClassLabel(num_classes=5)
    )
    columns = {
      'img': list(map(Image.fromarray, self.pixels)),
      'label': list(range(5)),
    }
    items = hugging_face.Dataset.from_dict(columns, features=features)
    self.check(items, image='img')
    self.check(items['img'], label=False)
    for name in ('numpy', 'jax'):
      self.check(items.with_format(name), image='img')
    with self.assertRaisesRegex(TypeError, 'one of its values'):
      datasets.Items(hugging_face.DatasetDict(train=items))
    with self.assertRaisesRegex(TypeError, '__len__'):
      datasets.Items(items.to_iterable_dataset())

  def test_torch(self):
    data = pytest.importorskip('torch.utils.data')
    torch = pytest.importorskip('torch')

    class Photos(data.Dataset):
      def __len__(this):
        return len(self.pairs)

      def __getitem__(this, index):
        return Image.fromarray(self.pixels[index]), index

    self.check(Photos())
    self.check(data.Subset(Photos(), range(4)))
    images = torch.tensor(self.pixels).movedim(-1, 1)
    self.check(data.TensorDataset(images, torch.arange(5)))
    self.check(data.TensorDataset(images / 255), label=False)
    with self.assertRaisesRegex(TypeError, 'DataLoader is no source'):
      datasets.Items(data.DataLoader(Photos()))

  def test_grain(self):
    grain = pytest.importorskip('grain')
    items = grain.MapDataset.source(self.pairs)
    self.check(items)
    self.check(items.map(lambda pair: {'image': pair[0], 'label': pair[1]}))
    with self.assertRaisesRegex(ValueError, 'label has the shape'):
      datasets.Items(items.batch(2))
    with self.assertRaisesRegex(ValueError, 'no end'):
      datasets.Items(items.repeat())
    with self.assertRaisesRegex(TypeError, '__len__'):
      datasets.Items(items.to_iter_dataset())


def squares(num):
  """Returns items of a user's own."""
  return [np.full((3, 3), i / 10) for i in range(num)]


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
