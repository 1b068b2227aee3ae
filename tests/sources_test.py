"""What a source is checked for is what a step receives."""

import pathlib
from unittest import mock

from absl import logging
from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from PIL import Image

from stein_jax import datasets

_IMAGE = np.full((2, 2, 1), 0.5)


class NumbersTest(parameterized.TestCase):
  @parameterized.parameters(
    1e39, -1e39, 3.5e38, np.inf, np.nan, np.longdouble('1e4000')
  )
  def test_what_is_not_finite_in_float32_is_refused(self, number):
    points = np.zeros((3, 2), np.longdouble)
    points[1, 0] = number
    for kind in (np.longdouble, np.float64, np.float32):
      with np.errstate(over='ignore'):
        found = points.astype(kind)
      with self.assertRaisesRegex(ValueError, r'finite: image\[1\].*1 rows'):
        datasets.Arrays({'image': found})
      with self.assertRaisesRegex(ValueError, r'finite: condition\[1\]'):
        datasets.Arrays({'image': np.zeros((3, 1)), 'condition': found})
      # An item is checked when it is read: the second is not the first.
      source = datasets.Items(list(found))
      self.assertEqual(source[np.array([0, 2])]['image'].shape, (2, 2))
      with self.assertRaisesRegex(ValueError, 'finite'):
        source[np.array([0, 1])]

  def test_the_largest_number_of_float32_is_taken(self):
    points = np.array([[3.4e38, -3.4e38]])
    for source in (datasets.Arrays({'image': points}), datasets.Items(points)):
      np.testing.assert_allclose(source[:]['image'], points, rtol=1e-6)

  def test_numbers_that_the_scale_makes_infinite(self):
    points = np.full((2, 2), 1e38)
    for make in (
      lambda x, **k: datasets.Arrays({'image': x}, **k),
      datasets.Items,
    ):
      make(points, scale=3.0)
      with self.assertRaisesRegex(ValueError, 'finite.*times scale=4.0'):
        make(points, scale=4.0)

  @parameterized.parameters(1e39, 1e41, 1e300, 1e-50, 0.0, -1.0, np.nan, np.inf)
  def test_scales_that_are_nothing_in_float32(self, scale):
    images = np.zeros((2, 2, 2, 1), np.uint8)
    for make in (lambda **k: datasets.Arrays({'image': images}, **k),
                 lambda **k: datasets.Items(images, **k)):  # fmt: skip
      with self.assertRaisesRegex(ValueError, 'scale='):
        make(scale=scale)

  @parameterized.parameters(
    ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, '>f8', '<f2', '>f2'
  )
  def test_floats_of_every_kind(self, dtype):
    images = np.array([0, 0.25, 1]).reshape(3, 1, 1, 1).astype(dtype)
    for source in (datasets.Arrays({'image': images}), datasets.Items(images)):
      rows = source[:]['image']
      self.assertEqual(rows.dtype, np.float32)
      self.assertTrue(rows.dtype.isnative)
      np.testing.assert_array_equal(rows.ravel(), [0, 0.25, 1])
    if np.isnan(np.array(np.nan).astype(dtype).astype(float)):
      images[1] = np.nan
      with self.assertRaisesRegex(ValueError, 'finite'):
        datasets.Arrays({'image': images})

  @parameterized.parameters(
    ('i8', 'int64'), ('u2', 'uint16'), ('?', 'bool'), ('c8', 'complex64'),
    ('O', 'object'), ('M8[s]', 'datetime64'), ('m8[s]', 'timedelta64'),
    ('U3', '<U3'), ('S3', r'\|S3'), ([('a', 'f4')], 'image is'),
  )  # fmt: skip
  def test_what_is_no_number_is_refused(self, dtype, message):
    images = np.zeros((3, 2, 2, 1), dtype)
    for make in (lambda x: datasets.Arrays({'image': x}), datasets.Items):
      with self.assertRaisesRegex(
        ValueError, f'{message}.*allowed: uint8 or floating'
      ):
        make(images)

  def test_what_is_no_array_is_refused_by_name(self):
    with self.assertRaisesRegex(ValueError, 'image is no array'):
      datasets.Arrays({'image': [[1.0, 2.0], [3.0]]})
    masked = np.ma.masked_greater(np.array([[0.5, 1e20]]), 1)
    for make in (lambda x: datasets.Arrays({'image': x}), datasets.Items):
      with self.assertRaisesRegex(ValueError, 'image has masked values'):
        make(masked)
    with self.assertRaisesRegex(ValueError, 'label is no array'):
      datasets.Arrays(
        {'image': np.ones((2, 2)), 'label': jax.random.split(jax.random.key(0))}
      )

  @parameterized.parameters(np.nan, np.inf, 2, -1, 0.5)
  def test_masks(self, number):
    images = np.zeros((2, 2, 2, 1))
    mask = np.ones_like(images)
    datasets.Arrays({'image': images, 'mask': mask.astype(bool)})
    mask[1, 0] = number
    with self.assertRaisesRegex(
      ValueError, 'mask has values.*allowed: 0 and 1'
    ):
      datasets.Arrays({'image': images, 'mask': mask})


class PillowTest(parameterized.TestCase):
  @parameterized.parameters(
    # 511 of 65535 is 1.99 of 255; cut at 255 it would be white.
    ('I;16', 511, [2]), ('I', 511, [2]), ('I', 65535, [255]), ('L', 7, [7]),
    ('1', 1, [255]), ('F', 0.5, [127.5]), ('RGB', (1, 2, 3), [1, 2, 3]),
    ('CMYK', (255, 0, 0, 0), [0, 255, 255]),
    # What is transparent is the page behind it, not the colour that it hides.
    ('LA', (10, 0), [255, 255, 255]), ('LA', (10, 255), [10, 10, 10]),
    ('RGBA', (10, 20, 30, 0), [255, 255, 255]),
  )  # fmt: skip
  def test_pictures_are_read_as_they_are_seen(self, mode, value, shown):
    (row,) = datasets.Items([Image.new(mode, (2, 1), value)])[:]['image']
    np.testing.assert_allclose(row, np.array([[shown, shown]]) / 255, rtol=1e-6)

  def test_a_colour_of_a_palette_that_is_transparent(self):
    picture = Image.new('P', (2, 1))
    picture.putpalette([1, 2, 3])
    picture.info['transparency'] = 0
    np.testing.assert_array_equal(datasets.Items([picture])[:]['image'], 1)

  @parameterized.parameters(-129, 65664)
  def test_numbers_of_more_than_16_bits(self, value):
    with self.assertRaisesRegex(ValueError, f'from {value} to .*0 to 65535'):
      datasets.Items([Image.new('I', (2, 1), value)])


class LabelsTest(parameterized.TestCase):
  # In 32 bits each would be another class without a word.
  @parameterized.parameters(
    2**32 + 3, 2**31, 2**31 - 1, 2**64, 2**70, -1, -(2**32), True, 1.0, 1.5, '1',
    np.uint64(2**32 + 3), np.int64(2**40), np.timedelta64(1), np.datetime64(1, 's'),
    np.nan, 1j, b'1',
  )  # fmt: skip
  def test_what_is_no_class_is_refused(self, label):
    images = np.zeros((2, 2, 2, 1))
    with self.assertRaisesRegex(ValueError, 'label.*(integers|at least 0)'):
      datasets.Arrays({'image': images, 'label': [label, label]})
    with self.assertRaisesRegex(ValueError, 'label.*(integers|at least 0)'):
      datasets.Items([(_IMAGE, label)])
    # The first item is one of those that are read later, too.
    source = datasets.Items([(_IMAGE, 3), (_IMAGE, label)])
    if not isinstance(label, bool):  # among integers it is one
      with self.assertRaises(ValueError):
        source[:]

  def test_classes_of_every_kind(self):
    kinds = (int, np.uint8, np.int64, np.uint64, jnp.array)
    for label in [*(kind(3) for kind in kinds), np.array(3, '>i8')]:
      items = [{'image': _IMAGE, 'label': label}] * 2
      source = datasets.Items(items, num_classes=4)
      labels = source.conditioned_on_labels()[:]
      for name in ('label', 'condition'):
        self.assertEqual(labels[name].dtype, np.int32)
        self.assertTrue(labels[name].dtype.isnative)
        self.assertEqual(labels[name].tolist(), [3, 3])

  def test_a_label_beyond_the_classes(self):
    source = datasets.Items([(_IMAGE, 3), (_IMAGE, 4)], num_classes=4)
    with self.assertRaisesRegex(ValueError, 'label=4 must be in 0, ..., 3'):
      source[:]

  def test_labels_of_some_items_alone(self):
    for items in ([(_IMAGE, 3), (_IMAGE,)], [_IMAGE, (_IMAGE, 3)]):
      source = datasets.Items(items)
      with self.assertRaisesRegex(ValueError, "1 of 2 items have no 'label'"):
        source[:]

  def test_labels_by_another_name_are_told(self):
    items = [{'image': _IMAGE, 'labels': 3, 'id': 7}]
    with mock.patch.object(logging, 'warning') as warning:
      self.assertNotIn('label', datasets.Items(items)[:])
      warning.assert_called_once()
      datasets.Items(items, label='labels')
    self.assertEqual(warning.call_args.args[1:], ('label', 'image, labels, id'))
    warning.assert_called_once()

  def test_bytes_and_floats_in_one_batch(self):
    source = datasets.Items([np.ones((2, 2)), np.ones((2, 2), np.uint8)])
    with self.assertRaisesRegex(ValueError, 'Some images are bytes'):
      source[:]


class DequantizedTest(parameterized.TestCase):
  def load(self, pixels='unit', scale=1.0, **options):
    folder = pathlib.Path(self.create_tempdir().full_path)
    levels = np.repeat(np.arange(256, dtype=np.uint8), 16).reshape(256, 4, 4, 1)
    np.savez(folder / 'a.npz', image=levels)
    options |= dict(pixels=pixels, scale=scale, dequantize=True)
    return datasets.load('npz', path=str(folder / 'a.npz'), **options)

  @parameterized.parameters(
    ('unit', 1.0, 0.0, 1.0), ('symmetric', 2.0, -2.0, 4.0)
  )
  def test_every_level_fills_its_256th_of_the_range(
    self, pixels, scale, begin, length
  ):
    source = self.load(pixels, scale)
    images = source[:]['image']
    place = 256 * (images - begin) / length
    noise = place - np.arange(256)[:, None, None, None]
    self.assertBetween(noise.min(), -1e-4, 0.01)
    self.assertBetween(noise.max(), 0.99, 1 + 1e-4)
    # 4,096 uniform numbers have a mean of 1/2 to a standard error of 0.0045.
    self.assertAlmostEqual(np.mean(noise), 0.5, delta=5 * 0.0045)
    self.assertLen(np.unique(np.round(noise, 5)[:2]), 32)

  def test_an_image_has_the_same_noise_whenever_it_is_read(self):
    source, other = self.load(), self.load()
    whole = source[:]['image']
    np.testing.assert_array_equal(source[[7, 3]]['image'], whole[[7, 3]])
    np.testing.assert_array_equal(other[-2:]['image'], whole[-2:])
    np.testing.assert_array_equal(source[5]['image'], whole[5])

  def test_a_uniform_density_needs_eight_bits(self):
    for pixels, scale, length in (('unit', 1.0, 1.0), ('symmetric', 3.0, 6.0)):
      section = dict(name='npz', pixels=pixels, scale=scale)
      log_p = -10 * np.log(length)
      bits = datasets.bits_per_dimension(log_p, 10, section)
      self.assertAlmostEqual(bits, 8.0, 6)
      # One that knows half of the levels of each number needs a bit less.
      bits = datasets.bits_per_dimension(log_p + 10 * np.log(2), 10, section)
      self.assertAlmostEqual(bits, 7.0, 6)

  def test_floats_are_not_dequantised(self):
    floats = datasets.Arrays({'image': np.zeros((3, 2, 2, 1), np.float32)})
    with self.assertRaisesRegex(ValueError, 'uint8 images, .* float32'):
      floats.dequantized()
    with self.assertRaisesRegex(ValueError, 'float32|bytes in memory'):
      datasets.load('breast_cancer', dequantize=True)


class BinarizedTest(parameterized.TestCase):
  @parameterized.parameters(
    ('unit', 1.0, 0.0, 1.0), ('symmetric', 2.0, -2.0, 2.0)
  )
  def test_levels_are_the_ends_of_the_range(self, pixels, scale, low, high):
    folder = pathlib.Path(self.create_tempdir().full_path)
    levels = np.arange(256, dtype=np.uint8).reshape(16, 4, 4, 1)
    np.savez(folder / 'a.npz', image=levels)
    options = dict(path=str(folder / 'a.npz'), pixels=pixels, scale=scale)
    source = datasets.load('npz', binarize=True, **options)
    expected = np.where(levels < 128, np.float32(low), np.float32(high))
    np.testing.assert_array_equal(source[:]['image'], expected)
    # The source that it is made of stays.
    plain = datasets.load('npz', **options)[:]['image']
    self.assertLen(np.unique(plain), 256)

  def test_what_has_no_levels_is_refused(self):
    with self.assertRaisesRegex(ValueError, 'binarize=True .* float32'):
      datasets.load('toy', binarize=True)
    with self.assertRaisesRegex(ValueError, 'binarize=True leaves two levels'):
      datasets.load('synthetic', binarize=True, dequantize=True)
    with self.assertRaisesRegex(ValueError, 'binarize=1 must be True or False'):
      datasets.load('synthetic', binarize=1)


if __name__ == '__main__':
  absltest.main()
