"""The Python blocks of README.md run as they stand, and its flags are fields."""

import contextlib
import importlib
import io
import pathlib
import re
import shlex
import types
import unittest
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np
import pytest

from stein_jax import build
from stein_jax import datasets
from stein_jax import energies
from stein_jax.algorithms import contrastive_divergence
from stein_jax.runs import config_files
from stein_jax.runs import configs

_ROOT = pathlib.Path(__file__).parent.parent
_TEXT = (_ROOT / 'README.md').read_text('utf-8')
_BLOCKS = re.findall(r'```python\n(.*?)```', _TEXT, re.S)
_OUTPUTS = re.findall(r'```python\n[^`]*```\n\n```text\n(.*?)```', _TEXT, re.S)
_COMMANDS = re.findall(
  r'python -m experiments\.(?:train|sweep) --config.*',
  _TEXT.replace('\\\n', ' ').replace('"\n', '\n'),
)
# Flags of the prose, with a config that has the field.
_OPTIONS = (
  ('stein_cd_mnist', '--config.data.condition=label'),
  ('stein_cd_mnist', '--config.energy=\'{"name": "Discriminator"}\''),
  ('stein_cd_mnist', '--config.energy.num_hidden=20'),
  ('stein_cd_mnist', '--config.step.direction.kernel.name=IMQ'),
  ('stein_cd_mnist', '--config.step.direction.kernel.bandwidth.log=n'),
  ('stein_cd_mnist', '--config.step.direction.kernel.bandwidth=2.0'),
  ('steingan_mnist', '--config.step.direction=Score'),
  ('steingan_mnist', '--config.step.negatives=fresh'),
  (
    'steingan_mnist',
    '--config.step.controller=\'{"name": "Discount", "when": "behind"}\'',
  ),
  ('gan_mnist', '--config.step.loss=margin'),
  (
    'stein_cd_mnist',
    '--config.sample.chain=\'{"name": "Langevin", "step_size": 0.3, '
    '"num_steps": 1000}\' --config.evaluation.log_likelihood=none',
  ),
  ('vae_teaching_facades', '--config.data.side=all'),
  ('vae_teaching_facades', '--config.data.limits=4'),
  ('vgan_mnist', '--config.on_nonfinite=rollback'),
  ('vgan_mnist', '--config.parallel=jit'),
  ('vgan_mnist', '--config.steps_per_call=50'),
  ('vgan_mnist', '--config.prng_impl=hashed'),
  ('vgan_mnist', '--config.matmul_precision=tensorfloat32'),
  ('stein_cd_mnist', '--config.optimizer.ema_decay=0.999'),
  (
    'stein_cd_mnist',
    '--config.optimizer=\'{"name": "chain", "args": [{"name": "clip", '
    '"max_delta": 1.0}, {"name": "adam", "learning_rate": 0.001}]}\'',
  ),
  ('stein_cd_mnist', '--config.data=my_data:load'),
  (
    'contrastive_divergence_mnist',
    '--config.algorithm=package.module:name',
  ),
)


def _read(command):
  """Returns the config that a command's flags make."""
  flags = dict(
    word.removeprefix('--').split('=', 1)
    for word in shlex.split(command)
    if word.startswith('--config')
  )
  fields = {
    name.removeprefix('config.'): text
    for name, text in flags.items()
    if name != 'config'
  }
  return config_files.read(str(_ROOT / flags['config']), fields)


def _import(path, real=build.import_module):
  """Returns a module, also one that commands name and that only a reader has."""
  of_a_reader = {
    'my_networks': types.SimpleNamespace(Energy=energies.MLP),
    'my_data': types.SimpleNamespace(load=datasets.digits),
    'package.module': types.SimpleNamespace(name=contrastive_divergence),
  }
  return of_a_reader.get(path) or real(path)


def numbers(text):
  """Returns the numbers of a printed text."""
  return [float(each) for each in re.findall(r'-?\d[\d.]*(?:e[+-]?\d+)?', text)]


class CommandsTest(parameterized.TestCase):
  """Configs that commands name are read, without their data."""

  def setUp(self):
    super().setUp()
    self.enter_context(mock.patch.object(build, 'import_module', _import))

  @parameterized.parameters(*_COMMANDS)
  def test_command(self, command):
    configs.step(_read(command))

  @parameterized.parameters(*_OPTIONS)
  def test_option(self, name, flags):
    self.assertIn(flags, ' '.join(_TEXT.split()))
    plain = _read(f'--config=configs/{name}.py')
    config = _read(f'--config=configs/{name}.py {flags}')
    configs.step(config)
    if flags != '--config.parallel=jit':  # the default
      self.assertNotEqual(config, plain)

  def test_no_other_flag_is_named(self):
    named = set(re.findall(r'--config\.[\w.]+', _TEXT))
    known = ' '.join([*_COMMANDS, *(flags for _, flags in _OPTIONS)])
    self.assertEmpty(named - set(re.findall(r'--config\.[\w.]+', known)))


class ReadmeTest(parameterized.TestCase):
  @parameterized.parameters(i for i in range(len(_BLOCKS)) if i != 2)
  def test_block_runs(self, i):
    self.check(i)

  @pytest.mark.slow
  def test_block_of_several_devices_runs(self):
    self.check(2)

  def check(self, i):
    for package in ('numpyro', 'blackjax'):
      if f'import {package}' in _BLOCKS[i]:
        try:
          importlib.import_module(package)
        except ImportError:
          raise unittest.SkipTest(f'{package} is not installed') from None
    names, printed = {}, io.StringIO()
    # Readers do not raise on rank promotion.
    with (
      jax.numpy_rank_promotion('allow'),
      contextlib.redirect_stdout(printed),
    ):
      exec(_BLOCKS[i], names)  # pylint: disable=exec-used
    # Other machines and devices round differently, and training amplifies that.
    found, shown = numbers(printed.getvalue()), numbers(_OUTPUTS[i])
    np.testing.assert_allclose(found, shown, rtol=0.05, atol=0.05)
    checks = {
      # The ring has radius 2 and a width of 1/4, and is open on the right.
      0: lambda: (
        abs(np.linalg.norm(names['particles'], axis=1).mean() - 2) < 0.15
        and names['particles'][:, 0].mean() < -1
      ),
      1: lambda: abs(names['x'].mean() - 3.0) < 0.05,
      2: lambda: (
        abs(names['by_pmap'].reshape(-1, 2) - names['each'][0]).max() < 1e-5
        and abs(names['by_shard_map'] - names['each'][0]).max() < 1e-5
      ),
      # The prior of scale 10 hardly moves the mean of thirty numbers.
      3: lambda: (
        abs(names['posterior']['mean'].mean() - names['y'].mean()) < 0.02
      ),
      4: lambda: (
        abs(names['samples'].mean() - 3.0) < 0.1
        and abs(names['samples'].std() - 1.0) < 0.1
      ),
      5: lambda: names['metrics']['energy/data'] < 0,
      6: lambda: (
        abs(names['state'].chains.mean(0) - names['data'].mean(0)).max() < 0.2
      ),
      7: lambda: 0.5 < names['metrics']['chain/acceptance'] < 1,
    }
    self.assertTrue(checks[i]())


if __name__ == '__main__':
  absltest.main()
