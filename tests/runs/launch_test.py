"""Where compiled programs are kept."""

import os
import pathlib
from unittest import mock

from absl.testing import absltest
import jax

from stein_jax.runs import launch


class KeepCompiledTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    for name in (
      'jax_compilation_cache_dir',
      'jax_persistent_cache_min_compile_time_secs',
    ):
      self.addCleanup(jax.config.update, name, getattr(jax.config, name))

  def kept(self, home, before=None):
    """Returns where programs are kept if the user's cache is `home`."""
    jax.config.update('jax_compilation_cache_dir', before)
    with mock.patch.dict(os.environ, XDG_CACHE_HOME=str(home)):
      launch.keep_compiled()
    return jax.config.jax_compilation_cache_dir

  def test_in_the_users_cache(self):
    kept = self.kept(self.folder / 'cache')
    self.assertEqual(kept, str(self.folder / 'cache/stein_jax/compiled'))
    self.assertTrue(os.path.isdir(kept))

  def test_where_the_user_says(self):
    self.assertEqual(self.kept(self.folder, before='elsewhere'), 'elsewhere')
    self.assertEmpty(os.listdir(self.folder))

  def test_a_tilde_is_the_home_folder(self):
    with mock.patch.dict(os.environ, HOME=str(self.folder)):
      self.assertEqual(self.kept('~/a'), f'{self.folder}/a/stein_jax/compiled')
      self.assertEqual(self.kept('', before='~/b'), f'{self.folder}/b')

  def test_nowhere_if_that_cannot_be_made(self):
    (self.folder / 'file').touch()
    self.assertIsNone(self.kept(self.folder / 'file'))

  def test_nowhere_if_that_cannot_be_written(self):
    with mock.patch.object(
      launch.tempfile, 'TemporaryFile', side_effect=PermissionError
    ):
      self.assertIsNone(self.kept(self.folder))

  def test_nowhere_without_a_home(self):
    with (
      mock.patch.dict(os.environ),
      mock.patch('pwd.getpwuid', side_effect=KeyError),
    ):
      os.environ.pop('HOME', None)
      self.assertIsNone(self.kept(''))


if __name__ == '__main__':
  absltest.main()
