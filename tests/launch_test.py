"""Where compiled programs are kept."""

import os
import pathlib
from unittest import mock

from absl.testing import absltest
import jax

from stein_jax import launch


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

  def test_nowhere_if_that_cannot_be_made(self):
    (self.folder / 'file').touch()
    self.assertIsNone(self.kept(self.folder / 'file'))


if __name__ == '__main__':
  absltest.main()
