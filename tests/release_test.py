"""What is released: its metadata agree, and a wheel works without the clone."""

import ast
import os
import pathlib
import re
import shutil
import subprocess
import sys
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import pytest

import stein_jax
from stein_jax import locations
from stein_jax.runs import config_files
from tests import environments
from tests import smoke

_ROOT = pathlib.Path(__file__).parent.parent
# What a wheel is made of, or says.
_SOURCES = (
  'CITATION.cff',
  'LICENSE',
  'MANIFEST.in',
  'README.md',
  'configs',
  'experiments',
  'pyproject.toml',
  'setup.py',
  'stein_jax',
)


def imported(file):
  """Returns the names of the modules that a file imports."""
  names = set()
  for node in ast.walk(ast.parse(file.read_text('utf-8'))):
    if isinstance(node, ast.Import):
      names.update(alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      module = '.' * node.level + (node.module or '')
      names.update(f'{module}.{alias.name}' for alias in node.names)
  return names


class MetadataTest(parameterized.TestCase):
  @parameterized.parameters(
    ('CITATION.cff', r'^version: (\S+)$'),
    ('CHANGELOG.md', r'^## (\S+)'),  # the newest comes first
  )
  def test_the_version_is_the_packages(self, file, pattern):
    said = re.search(pattern, (_ROOT / file).read_text('utf-8'), re.M)
    self.assertEqual(said[1], stein_jax.__version__)

  def test_lower_bounds_as_versions(self):
    said = ['a-b>=1.2,<2', 'c>=0.3; extra == "test"', 'd[e]>=4', 'f']
    self.assertEqual(environments.pins(said), ['a-b==1.2', 'c==0.3'])

  def test_a_missing_interpreter_is_none(self):
    self.assertIsNone(environments.interpreter('3.0'))

  def test_what_is_in_the_wheel_needs_no_folder_of_the_clone(self):
    for folder in ('configs', 'experiments'):
      for file in (_ROOT / folder).glob('*.py'):
        tops = {name.split('.')[0] for name in imported(file)}
        self.assertEmpty(tops & {'configs', 'experiments', 'tests'}, file)

  def test_nothing_loads_configs_in_the_way_that_python_3_15_lacks(self):
    for file in (_ROOT / 'stein_jax').rglob('*.py'):
      flags = {name for name in imported(file) if 'config_flags' in name}
      self.assertEmpty(flags, file)


class ShippedTest(absltest.TestCase):
  def test_a_config_by_its_name_is_that_of_its_file(self):
    by_name = config_files.read('svgd_toy:smoke', {})
    by_file = config_files.read(f'{_ROOT}/configs/svgd_toy.py:smoke', {})
    self.assertEqual(by_name.to_dict(), by_file.to_dict())

  def test_what_else_has_the_name_does_not_hide_it(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    (folder / 'svgd_toy').mkdir()
    (folder / 'gan_mnist').write_text('')
    self.addCleanup(os.chdir, os.getcwd())
    os.chdir(folder)
    for name, algorithm in (('svgd_toy', 'svgd'), ('gan_mnist', 'gan')):
      self.assertEqual(config_files.read(name, {}).algorithm, algorithm)

  def test_a_file_that_is_no_python_is_refused(self):
    file = self.create_tempfile('config.txt').full_path
    with self.assertRaisesRegex(FileNotFoundError, 'config.txt'):
      config_files.read(file, {})

  def test_a_wrong_name_lists_those_like_it(self):
    with self.assertRaisesRegex(FileNotFoundError, 'gan_mnits;.* gan_mnist,'):
      config_files.read('gan_mnits', {})
    with self.assertRaisesRegex(FileNotFoundError, ', '.join(smoke.NAMES)):
      config_files.read('/nowhere/q.py', {})

  def test_an_installed_package_has_folders_of_its_own(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    (folder / 'configs').mkdir()
    with mock.patch.object(locations, '__file__', str(folder / 'locations.py')):
      self.assertEqual(locations.packaged_configs(), folder / 'configs')
    self.assertEqual(locations.packaged_configs(), _ROOT / 'configs')


@pytest.mark.slow
class WheelTest(absltest.TestCase):
  def test_it_works_in_another_folder(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    (folder / 'source').mkdir()
    # A copy: a build leaves files behind, and takes up those of an earlier one.
    for name in _SOURCES:
      copy = shutil.copytree if (_ROOT / name).is_dir() else shutil.copy
      copy(_ROOT / name, folder / 'source' / name)
    pip = [sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps']
    target = f'--target={folder}/installed'
    subprocess.run([*pip, target, folder / 'source'], check=True)
    shutil.rmtree(folder / 'source')
    top = {path.name for path in (folder / 'installed').iterdir()}
    self.assertEqual({'bin', 'stein_jax'}, {n for n in top if 'info' not in n})
    self.assertTrue((folder / 'installed/stein_jax/py.typed').exists())
    said = self.run_command(
      folder, 'train', '--config=stein_cd_mnist:smoke', '--workdir=run'
    )
    self.assertIn(f'Report: {folder}/run/report.html', said)
    said = self.run_command(folder, 'evaluate', '--workdir=run')
    self.assertIn(f'Report: {folder}/run/report.html', said)
    self.assertIn(
      '--num_samples', self.run_command(folder, 'evaluate', '--help')
    )

  def run_command(self, folder, name, *flags):
    """Returns what a command of the wheel prints."""
    installed = folder / 'installed'
    finished = subprocess.run(
      [sys.executable, installed / f'bin/stein-{name}', *flags],
      cwd=folder,
      env={
        **os.environ,
        'JAX_PLATFORMS': 'cpu',
        'JAX_COMPILATION_CACHE_DIR': jax.config.jax_compilation_cache_dir,
        'PYTHONPATH': str(installed),
      },
      capture_output=True,
      text=True,
      check=False,
      timeout=600,
    )
    # absl answers --help with 1.
    self.assertEqual(finished.returncode, '--help' in flags, finished.stderr)
    return finished.stdout


if __name__ == '__main__':
  absltest.main()
