"""Paths that a person wrote are found where that person means."""

import os
import pathlib
from unittest import mock

from absl.testing import absltest
import numpy as np

from stein_jax import datasets
from stein_jax import inception
from stein_jax import locations
from stein_jax.runs import checkpoints
from stein_jax.runs import reporting
from stein_jax.runs import training
from stein_jax.runs import workdirs


class LocationsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.home = pathlib.Path(self.create_tempdir().full_path)
    self.enter_context(mock.patch.dict(os.environ, HOME=str(self.home)))

  def test_a_tilde_is_the_home_folder_and_only_in_front(self):
    self.assertEqual(locations.absolute('~/a'), self.home / 'a')
    self.assertEqual(locations.absolute('~'), self.home)
    self.assertEqual(locations.absolute('/a/~/b'), pathlib.Path('/a/~/b'))
    self.assertEqual(locations.absolute('./~'), pathlib.Path.cwd() / '~')
    self.assertEqual(locations.expand('gs://a/b'), 'gs://a/b')

  def test_without_a_home_it_is_refused(self):
    with mock.patch.dict(os.environ, HOME=''):
      with self.assertRaisesRegex(ValueError, "'~/a'.*no such home folder"):
        locations.absolute('~/a')
    del os.environ['HOME']
    with mock.patch('pwd.getpwuid', side_effect=KeyError):
      with self.assertRaisesRegex(ValueError, "'~/a'.*no such home folder"):
        locations.absolute('~/a')
    with self.assertRaisesRegex(ValueError, "'~nobody_at_all'.*no such"):
      locations.absolute('~nobody_at_all')

  def test_what_the_locale_cannot_read_is_refused(self):
    with self.assertRaisesRegex(ValueError, 'is no text.*PYTHONUTF8=1'):
      locations.absolute('a\udcc3')

  def test_everything_that_takes_a_path_takes_a_tilde(self):
    np.savez(self.home / 'images.npz', image=np.zeros((2, 3)))
    self.assertLen(datasets.load('npz', path='~/images.npz'), 2)
    for call in (
      lambda: datasets.load('npz', path='~/none'),
      lambda: datasets.load('folder', path='~/none', mask='box'),
      lambda: inception.load('~/none'),
      lambda: training.read_config('~/none'),
    ):
      with self.assertRaisesRegex(FileNotFoundError, f'{self.home}/none'):
        call()
    with mock.patch.dict(os.environ, TFDS_DATA_DIR='~/none'):
      with self.assertRaisesRegex(FileNotFoundError, f'{self.home}/none/mnist'):
        datasets.load('mnist')
    reporting.write_json('~/new/a.json', [1])
    self.assertEqual(reporting.read_json('~/new/a.json'), [1])
    reporting.write_page('~/new/page.html', 'title', [])
    reporting.claim('~/new', {})
    (self.home / 'new/metrics.jsonl').write_text('{"step": 1}\n')
    self.assertEqual(reporting.read_metrics('~/new'), [{'step': 1}])
    with checkpoints.manager('~/kept') as manager:
      self.assertEqual(str(manager.directory), f'{self.home}/kept')
    config = dict(algorithm='svgd', density='banana', data='toy')
    with self.assertRaisesRegex(FileNotFoundError, f'in {self.home}/new;'):
      workdirs.restore(config, '~/new')
    self.assertFalse(pathlib.Path('~').exists())

  def test_where_a_relative_path_begins_is_kept(self):
    before = pathlib.Path.cwd()
    self.addCleanup(os.chdir, before)
    os.chdir(self.home)
    path = locations.absolute('runs')
    os.chdir(before)
    self.assertEqual(path, self.home / 'runs')


if __name__ == '__main__':
  absltest.main()
