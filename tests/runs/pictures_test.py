"""Pictures of samples, pixel by pixel."""

import warnings

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from stein_jax import datasets
from stein_jax.runs import images
from stein_jax.runs import pictures


class PicturesTest(parameterized.TestCase):
  def test_labels_are_not_what_samples_are_made_of(self):
    source = datasets.load('digits', condition='label')
    self.assertIsNone(pictures.image_condition(source[:3]))
    self.assertIsNone(pictures.image_condition({'image': np.zeros((3, 2))}))
    batch = datasets.load('synthetic', pairs=True)[:3]
    self.assertIs(pictures.image_condition(batch), batch['condition'])

  def test_of_data_of_one_value(self):
    data = np.zeros((2, 3, 3, 1), np.float32)
    with warnings.catch_warnings():
      warnings.simplefilter('error')
      picture = pictures.picture(data, {'image': data})
    self.assertEqual(images.read_png(picture).min(), 0)

  def test_strips_have_a_row_each(self):
    # Two paths of three images of 2 x 1 pixels, with 2 pixels around each.
    paths = np.arange(12).reshape(2, 3, 2, 1, 1) / 51  # 5 levels of grey apart
    page = images.strips(paths)
    expected = np.full((2 * 4 + 2, 3 * 3 + 2), 255)
    for path in range(2):
      for time in range(3):
        first = 10 * (3 * path + time)
        top, left = 2 + 4 * path, 2 + 3 * time
        expected[top : top + 2, left] = [first, first + 5]
    self.assertEqual(page.dtype, np.uint8)
    np.testing.assert_array_equal(page, np.stack([expected] * 3, -1))

  def test_labels_lie_beside_their_rows(self):
    page = np.full((90, 20, 3), 200, np.uint8)
    labelled = images.read_png(images.png(page, labels=('one', '', 'three')))
    np.testing.assert_array_equal(labelled[:, -20:], page)
    ink = (labelled[:, :-20] < 128).any(-1).any(-1).reshape(3, 30).any(-1)
    self.assertEqual(ink.tolist(), [True, False, True])

  @parameterized.parameters((5, 5), (10, 8))
  def test_recovery_page(self, num, shown):
    # Rows of conditions, samples and true images, each pixel twice.
    value = lambda base: np.broadcast_to(
      base + np.arange(num, dtype=np.float32).reshape(-1, 1, 1, 1) / 50,
      (num, 4, 3, 3),
    )
    batch = {'condition': value(0.0), 'image': value(0.8)}
    page = images.read_png(
      pictures.recovery_page(value(0.4), batch, dict(name='synthetic'))
    )
    width = 2 * (shown * 5 + 2)  # right of the labels
    self.assertGreater(page.shape[1], width)
    page = page[:, -width:]
    self.assertEqual(page.shape, (2 * (3 * 6 + 2), width, 3))
    for row, base in enumerate((0.0, 0.4, 0.8)):
      corner = 2 * (2 + 6 * row)
      greys = np.round(255 * (base + np.arange(shown) / 50))
      np.testing.assert_array_equal(page[corner, 4::10, 0][:shown], greys)


if __name__ == '__main__':
  absltest.main()
