"""The same right numbers in whatever environment a process is started."""

import os
import pathlib
import re
import subprocess
import sys

from absl.testing import absltest
from absl.testing import parameterized
import jax
import pytest

from stein_jax.runs import training
from tests import smoke

_ROOT = pathlib.Path(__file__).parent.parent
_GONE = '/proc/nowhere'  # no folder can be made there, whoever one is

# Of JAX; the numbers are checked, not compared: precision and keys differ.
_JAX = {
  'plain': {},
  'x64': {'JAX_ENABLE_X64': '1'},
  'rbg': {'JAX_DEFAULT_PRNG_IMPL': 'rbg'},
  'unsafe_rbg': {'JAX_DEFAULT_PRNG_IMPL': 'unsafe_rbg'},
  'strict_promotion': {'JAX_NUMPY_DTYPE_PROMOTION': 'strict'},
  'rank_promotion': {'JAX_NUMPY_RANK_PROMOTION': 'raise'},
  'debug_nans': {'JAX_DEBUG_NANS': '1'},
  'debug_infs': {'JAX_DEBUG_INFS': '1'},
}
# Of the machine, which changes no number; None takes a variable away.
_MACHINE = {
  'no_home': {
    'HOME': None,
    'USER': None,
    'LOGNAME': None,
    'XDG_CACHE_HOME': None,
  },
  'home_read_only': {'HOME': _GONE, 'XDG_CACHE_HOME': None},
  'cache_read_only': {'XDG_CACHE_HOME': _GONE, 'MPLCONFIGDIR': _GONE},
  'ascii': {'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'},
  'time_zone': {'TZ': 'Pacific/Kiritimati'},
}
_NO_PASSWD = """
import pwd

def getpwuid(uid):
  raise KeyError(f'getpwuid(): uid not found: {uid}')

pwd.getpwuid = getpwuid
"""


def run(*command, changes=None, cwd=_ROOT, path=(), umask=-1):
  """Returns what `python -m command` prints in a changed environment.

  Raises:
    AssertionError: it failed.
  """
  environment = {
    **os.environ,
    'JAX_PLATFORMS': 'cpu',
    'JAX_COMPILATION_CACHE_DIR': jax.config.jax_compilation_cache_dir,
    'PYTHONPATH': os.pathsep.join([*map(str, path), str(_ROOT)]),
    **(changes or {}),
  }
  finished = subprocess.run(
    [sys.executable, '-m', *command],
    cwd=cwd,
    env={key: value for key, value in environment.items() if value is not None},
    umask=umask,
    capture_output=True,
    text=True,
    check=False,
    timeout=600,
  )
  said = finished.stdout + finished.stderr
  assert finished.returncode == 0, said
  return said


@pytest.mark.slow
class PrimitivesTest(parameterized.TestCase):
  @parameterized.parameters(*_JAX)
  def test_numbers_are_those_of_float64(self, name):
    run('tests.primitives', changes=_JAX[name])


@pytest.mark.slow
class StrictTest(parameterized.TestCase):
  @parameterized.parameters(smoke.NAMES)
  def test_every_config_is_traced(self, name):
    config = smoke.get_config(name)
    for field, value in smoke.get_config(name, '').items():
      if field.endswith('optimizer'):
        config[field] = value
    with jax.numpy_dtype_promotion('strict'):
      training.check(config)


@pytest.mark.slow
class RunsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def logged(self, workdir=None, name='stein_cd_mnist', **options):
    """Returns the metrics of a run that was stopped, continued and evaluated."""
    said = run('tests.resumed', str(workdir or self.folder), name, **options)
    return re.search('logged: (.*)', said)[1]

  @parameterized.product(
    environment=tuple(_JAX),
    name=('stein_cd_mnist', 'steingan_mnist', 'svgd_toy'),
  )
  def test_of_jax(self, environment, name):
    self.logged(name=name, changes=_JAX[environment])

  @parameterized.parameters('rbg', 'unsafe_rbg', 'strict_promotion')
  def test_a_runs_numbers_are_the_configs(self, environment):
    plain = self.logged(self.folder / 'plain')
    other = self.logged(self.folder / 'other', changes=_JAX[environment])
    self.assertEqual(other, plain)

  @parameterized.parameters(*_MACHINE)
  def test_of_the_machine(self, environment):
    path = ()
    if environment == 'no_home':
      (self.folder / 'sitecustomize.py').write_text(_NO_PASSWD)
      path = (self.folder,)
    changes = _MACHINE[environment]
    if 'XDG_CACHE_HOME' in changes:
      changes = {'JAX_COMPILATION_CACHE_DIR': None, **changes}
    self.logged(self.folder / 'runs', changes=changes, path=path)

  def test_a_umask_that_shuts_others_out(self):
    self.logged(umask=0o077)
    self.assertEqual((self.folder / 'whole').stat().st_mode & 0o777, 0o700)

  def test_elsewhere_a_relative_path_begins_there(self):
    self.logged('runs', cwd=self.folder)
    self.assertTrue((self.folder / 'runs/halved/report.html').exists())

  def test_a_tilde_is_the_home_folder(self):
    home = self.folder / 'home'
    home.mkdir()
    self.logged('~/runs', cwd=self.folder, changes={'HOME': str(home)})
    self.assertTrue((home / 'runs/halved/report.html').exists())
    self.assertFalse((self.folder / '~').exists())

  def test_commands_take_a_tilde(self):
    home = self.folder / 'home'
    home.mkdir()
    options = dict(cwd=self.folder, changes={'HOME': str(home)})
    said = run(
      'experiments.train',
      f'--config={_ROOT}/configs/stein_cd_mnist.py:smoke',
      '--workdir=~/run',
      **options,
    )
    self.assertIn(f'Report: {home}/run/report.html', said)
    said = run('experiments.evaluate', '--workdir=~/run', **options)
    self.assertIn(f'Report: {home}/run/report.html', said)
    self.assertEqual(list(self.folder.iterdir()), [home])


if __name__ == '__main__':
  absltest.main()
