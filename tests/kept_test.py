"""Decoded arrays that later launches find, or do not."""

import os
import pathlib
from unittest import mock

from absl.testing import absltest
import numpy as np

from stein_jax import datasets
from stein_jax.datasets import _kept
from stein_jax.runs import compiled

_KEY = ('tfds', 'mnist', 'train', 'digest')


class KeptTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.addCleanup(datasets.keep_in, None)
    datasets.keep_in(self.folder)
    self.decode = mock.Mock(side_effect=self.decoded)

  def decoded(self):
    image = np.arange(24, dtype=np.uint8).reshape(2, 3, 4, 1)
    return {'image': image, 'label': np.array([1, 2])}

  def arrays(self, key=_KEY, times=1):
    """Returns the arrays, which have been decoded so many times by now."""
    found = _kept.arrays(key, self.decode)
    expected = self.decoded()
    self.assertEqual(set(found), set(expected))
    for name, array in expected.items():
      np.testing.assert_array_equal(found[name], array)
      self.assertEqual(found[name].dtype, array.dtype)
    self.assertEqual(self.decode.call_count, times)

  def test_decoded_once_for_each_key(self):
    self.arrays()
    self.arrays()
    self.arrays((*_KEY[:-1], 'another digest'), times=2)
    self.arrays(times=2)

  def test_a_flipped_bit_or_a_short_file_is_decoded_anew(self):
    self.arrays()
    (file,) = self.folder.iterdir()
    whole = file.read_bytes()
    middle = len(whole) // 2
    flipped = bytes([whole[middle] ^ 1])
    for times, content in enumerate(
      (whole[:middle] + flipped + whole[middle + 1 :], whole[:40], b''), 2
    ):
      file.write_bytes(content)
      with self.assertLogs(level='WARNING') as logs:
        self.arrays(times=times)
      self.assertIn(f'{file} is damaged', logs.output[0])
      self.assertEqual(file.read_bytes(), whole)

  def test_the_last_used_are_kept(self):
    for i in range(_kept._MOST):
      self.arrays(('key', str(i)), times=i + 1)
    for age, file in enumerate(sorted(self.folder.iterdir())):
      os.utime(file, (10**9 + age, 10**9 + age))
    oldest = min(self.folder.iterdir())
    self.arrays(('one', 'more'), times=_kept._MOST + 1)
    self.assertLen(list(self.folder.iterdir()), _kept._MOST)
    self.assertFalse(oldest.exists())

  def test_a_disk_that_refuses_keeps_nothing(self):
    with mock.patch.object(
      _kept.os, 'replace', side_effect=OSError('disk full')
    ):
      self.arrays()
    self.assertEmpty(list(self.folder.iterdir()))

  def test_without_a_folder(self):
    datasets.keep_in(None)
    self.arrays()
    self.arrays(times=2)


class FolderTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.home = pathlib.Path(self.create_tempdir().full_path)
    self.addCleanup(datasets.keep_in, None)

  def kept(self):
    """Returns the folder that is used where the user's cache is `home`."""
    with mock.patch.dict(os.environ, XDG_CACHE_HOME=str(self.home)):
      compiled.keep_data()
    return _kept._folder

  def test_in_the_users_cache_alone(self):
    folder = self.home / 'stein_jax' / 'decoded'
    for _ in range(2):
      self.assertEqual(self.kept(), folder)
      self.assertEqual(folder.stat().st_mode & 0o777, 0o700)
      folder.chmod(0o777)  # as an older version might have left it

  def test_nowhere_where_it_cannot_be_made(self):
    (self.home / 'stein_jax').write_text('a file')
    datasets.keep_in(self.home)
    self.assertIsNone(self.kept())


if __name__ == '__main__':
  absltest.main()
