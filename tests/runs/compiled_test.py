"""Where compiled programs are kept."""

import errno
import os
import pathlib
import subprocess
import sys
from unittest import mock

from absl.testing import absltest
import jax
from jax._src import compilation_cache

from stein_jax.runs import compiled


class KeepTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    for name in (
      'jax_compilation_cache_dir',
      'jax_persistent_cache_min_compile_time_secs',
      'jax_compilation_cache_max_size',
    ):
      self.addCleanup(jax.config.update, name, getattr(jax.config, name))

  def kept(self, home, before=None):
    """Returns where programs are kept if the user's cache is `home`."""
    jax.config.update('jax_compilation_cache_dir', before)
    with mock.patch.dict(os.environ, XDG_CACHE_HOME=str(home)):
      compiled.keep()
    return jax.config.jax_compilation_cache_dir

  def test_in_the_users_cache(self):
    kept = self.kept(self.folder / 'cache')
    self.assertEqual(kept, str(self.folder / 'cache/stein_jax/compiled'))
    self.assertTrue(os.path.isdir(kept))

  def test_where_the_user_says(self):
    there = str(self.folder / 'elsewhere')
    self.assertEqual(self.kept(self.folder / 'cache', before=there), there)
    self.assertEqual(os.listdir(self.folder), ['elsewhere'])
    bucket = 'gs://bucket/compiled'
    self.assertEqual(self.kept(self.folder / 'cache', before=bucket), bucket)

  def test_a_tilde_is_the_home_folder(self):
    with mock.patch.dict(os.environ, HOME=str(self.folder)):
      self.assertEqual(self.kept('~/a'), f'{self.folder}/a/stein_jax/compiled')
      self.assertEqual(self.kept('', before='~/b'), f'{self.folder}/b')

  def test_nowhere_if_that_cannot_be_made(self):
    (self.folder / 'file').touch()
    self.assertIsNone(self.kept(self.folder / 'file'))

  def test_nowhere_if_that_cannot_be_written(self):
    with mock.patch.object(
      compiled.tempfile, 'TemporaryFile', side_effect=PermissionError
    ):
      self.assertIsNone(self.kept(self.folder))

  def test_nowhere_that_others_may_write_to(self):
    open_to_all = self.folder / 'open'
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    self.assertIsNone(self.kept(self.folder, before=str(open_to_all)))
    # The folder of one's own is closed, and one of somebody else's is not used.
    ours = self.folder / 'stein_jax' / 'compiled'
    ours.mkdir(parents=True)
    ours.chmod(0o775)
    self.assertEqual(self.kept(self.folder), str(ours))
    self.assertEqual(ours.stat().st_mode & 0o777, 0o700)
    with mock.patch('os.getuid', return_value=os.getuid() + 1):
      self.assertIsNone(self.kept(self.folder))

  def test_those_used_longest_ago_are_deleted_above_the_limit(self):
    folder = self.folder / 'stein_jax' / 'compiled'
    folder.mkdir(parents=True)
    for age in range(5):
      path = folder / f'{age}-cache'
      path.write_bytes(bytes(1000))
      os.utime(path, (1e9 - age, 1e9 - age))
    thesis = folder / 'thesis.tex'  # older and larger, and no program
    thesis.write_bytes(bytes(10_000))
    os.utime(thesis, (1e8, 1e8))
    self.kept(self.folder)
    self.assertLen(os.listdir(folder), 6)
    jax.config.update('jax_compilation_cache_max_size', 2500)
    self.kept(self.folder)
    left = ['0-cache', '1-cache', 'thesis.tex']
    self.assertEqual(sorted(os.listdir(folder)), left)

  def test_a_full_disk_leaves_no_half_of_a_program(self):
    programs = compiled._Programs(str(self.folder))
    error = OSError(errno.ENOSPC, 'No space left on device')
    with (
      mock.patch.object(os, 'replace', side_effect=error),
      self.assertRaises(OSError),
    ):
      programs.put('a', bytes(1000))
    self.assertEmpty(os.listdir(self.folder))

  def test_a_damaged_program_is_replaced(self):
    whole = compilation_cache.compress_executable(bytes(1000))
    programs = compiled._Programs(str(self.folder))
    programs.put('a', whole)
    self.assertEqual(programs.get('a'), whole)
    self.assertEqual(os.listdir(self.folder), ['a-cache'])
    path = self.folder / 'a-cache'
    flipped = bytearray(whole)
    flipped[-1] ^= 1  # of the checksum of zlib
    for damaged in (whole[:-1], bytes(flipped), b''):
      path.write_bytes(damaged)
      with self.assertLogs('absl', 'WARNING') as logged:
        self.assertIsNone(programs.get('a'))
      self.assertIn(f'{path} is damaged', logged.output[0])
      programs.put('a', whole)
      self.assertEqual(programs.get('a'), whole)
    self.assertIsNone(programs.get('b'))

  def test_a_launch_takes_what_another_kept(self):
    program = (
      'import jax; from stein_jax.runs import compiled; compiled.keep();'
      'jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0);'
      'print(jax.jit(lambda x: 3 * x)(2.0))'
    )
    env = {**os.environ, 'JAX_COMPILATION_CACHE_DIR': str(self.folder)}
    env.pop('JAX_ENABLE_COMPILATION_CACHE', None)
    run = lambda: subprocess.run(
      [sys.executable, '-c', program],
      env=env,
      check=True,
      capture_output=True,
      text=True,
    )
    run()
    files = sorted(self.folder.glob('*-cache'))
    self.assertNotEmpty(files)
    for path in files:
      path.write_bytes(path.read_bytes()[:-3])
    again = run()
    self.assertEqual(again.stdout, '6.0\n')
    self.assertIn('is damaged', again.stderr)
    self.assertNotIn('is damaged', run().stderr)

  def test_nowhere_without_a_home(self):
    with (
      mock.patch.dict(os.environ),
      mock.patch('pwd.getpwuid', side_effect=KeyError),
    ):
      os.environ.pop('HOME', None)
      self.assertIsNone(self.kept(''))


if __name__ == '__main__':
  absltest.main()
