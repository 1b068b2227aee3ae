"""Runs as things to work with: loaded, extended, begun at, and logged elsewhere."""

import contextlib
import os
import pathlib
import sys
import tempfile
from unittest import mock

from absl import logging
from absl.testing import absltest
from absl.testing import parameterized
import chex
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
from PIL import Image
import pytest

from stein_jax import datasets
from stein_jax import runs
from stein_jax.runs import configs
from stein_jax.runs import evaluation
from stein_jax.runs import loggers
from stein_jax.runs import training
from tests import smoke

_NAME = 'steingan_toy'


def _config(**fields):
  config = smoke.get_config(_NAME)
  config.energy_optimizer.ema_decay = 0.5
  config.update(fields)
  return config


class LoadTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.folder = cls.enterClassContext(tempfile.TemporaryDirectory())
    cls.workdir = pathlib.Path(cls.folder) / 'run'
    cls.state = training.train(_config(), cls.workdir)

  def test_needs_no_data_and_no_folder(self):
    with (
      mock.patch.object(datasets, 'load', side_effect=AssertionError),
      contextlib.chdir('/'),
      self.assertNoLogs(logging.get_absl_logger(), 'WARNING'),  # is quiet
    ):
      run = runs.load(self.workdir)
    chex.assert_trees_all_equal(
      jax.tree.leaves(run.state), jax.tree.leaves(self.state)
    )
    self.assertEqual(run.config.num_steps, 4)
    self.assertEqual(run.metrics()[-1]['step'], 4)

  def test_energy_and_score_are_those_of_the_network(self):
    run = runs.load(self.workdir)
    x = jax.random.normal(jax.random.key(0), (3, 2))
    energy = self.state.energy
    apply = lambda x: energy.apply_fn(energy.params, x)
    np.testing.assert_allclose(run.energy(x), apply(x), rtol=1e-5)
    slope = jax.grad(lambda x: jnp.sum(apply(x)))(x)
    np.testing.assert_allclose(run.score(x), -slope, rtol=1e-4, atol=1e-7)

  def test_samples_are_those_of_the_report(self):
    evaluation.evaluate(_config(), self.workdir)
    expected = np.load(self.workdir / 'samples.npy')
    run = runs.load(self.workdir)
    rng = jax.random.key(run.config.seed + 1)
    found = run.sample(len(expected), rng)
    np.testing.assert_allclose(found, expected, atol=1e-6)

  def test_a_step_and_the_averages(self):
    run = runs.load(self.workdir, step=2, parameters='average')
    self.assertEqual(run.state.step, 2)
    energy = run.state.energy
    jax.tree.map(np.testing.assert_array_equal, energy.params, energy.average)

  @parameterized.parameters(
    (lambda run: run.energy(np.ones((3, 5))), r'\(3, 5\); wanted: \(n, 2\)'),
    (lambda run: run.score(np.ones((0, 2))), r'\(0, 2\); wanted'),
    (lambda run: run.energy(np.ones((3, 2)), np.arange(3)), 'without any'),
    (lambda run: run.sample(3, condition=[0, 1, 2]), 'without any'),
    (lambda run: run.sample(0), 'num=0 must be'),
  )
  def test_refuses_what_is_not_like_the_runs(self, call, message):
    with self.assertRaisesRegex(ValueError, message):
      call(runs.load(self.workdir))

  def test_is_shown_in_a_line(self):
    self.assertLess(len(repr(runs.load(self.workdir))), 300)

  @parameterized.parameters(
    (dict(parameters='averag'), ValueError, "parameters='averag' is unknown"),
    (dict(step=3), FileNotFoundError, 'no checkpoint of step 3; it has: 2, 4'),
    (dict(workdir='/nowhere'), FileNotFoundError, 'no config.json'),
  )
  def test_refuses(self, options, error, message):
    with self.assertRaisesRegex(error, message):
      runs.load(**{'workdir': self.workdir, **options})

  def test_a_run_that_starts_there_has_its_parameters_and_nothing_else(self):
    config = _config(start=f'{self.workdir}:4', seed=1)
    config, _, source, _ = training.check(config)
    first = training.first_batch(config, source)
    state = training.initial_state(config, first)
    for name in ('energy', 'generator'):
      ours, theirs = getattr(state, name), getattr(self.state, name)
      jax.tree.map(np.testing.assert_array_equal, ours.params, theirs.params)
      self.assertEqual(ours.step, 0)
    self.assertEqual(state.step, 0)

  def test_a_start_is_refused_before_anything_is_written(self):
    new = self.workdir.with_name('new')
    with self.assertRaisesRegex(FileNotFoundError, 'start: .*no config.json'):
      training.train(_config(start='/nowhere'), new)
    config = smoke.get_config('contrastive_divergence_mnist')
    config.start = str(self.workdir)
    with self.assertRaisesRegex(ValueError, 'start: .*no network like'):
      training.train(config, new)
    self.assertFalse(new.exists())


class LabelsTest(absltest.TestCase):
  def test_labels_are_asked_for_and_checked_and_bytes_are_in_range(self):
    workdir = pathlib.Path(self.create_tempdir().full_path)
    config = smoke.get_config('steingan_mnist_joint')
    training.train(config, workdir)
    run = runs.load(workdir)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
    labels = np.array([0, 1, 2])
    unit = datasets.from_unit(pixels / 255, config.data)
    np.testing.assert_allclose(
      run.energy(pixels, labels), run.energy(unit, labels), rtol=1e-5
    )
    for condition, message in (
      (None, 'trained with labels'),
      (np.array([0, 1, 99]), '99'),
      (np.array([0]), r'\(1,\); wanted: \(3,\)'),
    ):
      with self.assertRaisesRegex(ValueError, message):
        run.energy(unit, condition)


class ExtendTest(absltest.TestCase):
  def test_data_may_have_moved(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    for name in ('old', 'new'):
      (folder / name).mkdir()
      for i in range(20):
        pixels = np.full((8, 8), 12 * i, np.uint8)
        Image.fromarray(pixels).save(folder / name / f'{i}.png')
    config = smoke.get_config('stein_cd_mnist')
    given = lambda name: configs.with_files(config, path=str(folder / name))
    training.train(given('old'), folder / 'run')
    longer = given('new')
    longer.num_steps += 2
    state = training.train(longer, folder / 'run', extends=True)
    self.assertEqual(state.step, longer.num_steps)

  def test_ends_where_a_longer_run_does(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    config = smoke.get_config('svgd_toy')
    short, long = (
      ConfigDict({**config, 'num_steps': num_steps}) for num_steps in (4, 6)
    )
    longer = training.train(long, folder / 'longer')
    training.train(short, folder / 'run')
    with self.assertRaisesRegex(
      ValueError, '--extend=6. Different: num_steps: 4 there, 6 here'
    ):
      training.train(long, folder / 'run')
    found = training.train(long, folder / 'run', extends=True)
    chex.assert_trees_all_equal(jax.tree.leaves(found), jax.tree.leaves(longer))
    self.assertEqual(runs.load(folder / 'run').config.num_steps, 6)
    with self.assertRaisesRegex(ValueError, 'num_steps: 6 there, 4 here'):
      training.train(short, folder / 'run', extends=True)


class LoggerTest(parameterized.TestCase):
  def test_a_function_is_given_what_is_written(self):
    workdir, found = self.create_tempdir().full_path, []
    training.train(
      smoke.get_config('svgd_toy'),
      workdir,
      on_metrics=lambda *line: found.append(line),
    )
    written = runs.load(workdir).metrics()
    self.assertEqual(
      [{'step': step, **metrics} for step, metrics in found], written
    )

  def test_a_package_that_is_not_there_is_named(self):
    with (
      mock.patch.dict(sys.modules, {'wandb': None}),
      self.assertRaisesRegex(ModuleNotFoundError, 'pip install wandb'),
      loggers.logger('wandb', {}, pathlib.Path('run')),
    ):
      pass

  def test_nothing_is_opened_before_the_first_metrics(self):
    fake = mock.Mock()
    fake.init.side_effect = AssertionError
    with (
      mock.patch.dict(sys.modules, {'wandb': fake}),
      loggers.logger('wandb', {}, pathlib.Path('run')),
    ):
      pass

  def test_without_an_account_nothing_begins(self):
    fake = mock.Mock()
    fake.login.return_value = False
    with mock.patch.dict(sys.modules, {'wandb': fake}):
      with self.assertRaisesRegex(RuntimeError, 'no API key.*WANDB_MODE'):
        with loggers.logger('wandb', {}, pathlib.Path('run')):
          self.fail('It must not begin.')

  @pytest.mark.slow
  def test_weights_and_biases_offline(self):
    pytest.importorskip('wandb')
    workdir = pathlib.Path(self.create_tempdir().full_path) / 'run'
    environment = {'WANDB_MODE': 'offline', 'WANDB_SILENT': 'true'}
    with (
      mock.patch.dict(os.environ, environment),
      loggers.logger('wandb', _config(), workdir) as send,
    ):
      training.train(_config(), workdir, on_metrics=send)
    (file,) = workdir.glob('wandb/offline-run-*/*.wandb')
    self.assertIn(b'energy/gap', file.read_bytes())

  @pytest.mark.slow
  def test_mlflow_in_a_folder(self):
    mlflow = pytest.importorskip('mlflow')
    folder = pathlib.Path(self.create_tempdir().full_path)
    environment = {'MLFLOW_ALLOW_FILE_STORE': 'true'}
    with mock.patch.dict(os.environ, environment):
      mlflow.set_tracking_uri(f'file://{folder}/mlflow')
      for _ in range(2):  # a run that is continued stays one run
        with loggers.logger('mlflow', _config(), folder / 'run') as send:
          send(2, {'energy/gap': 1.5})
      (found,) = mlflow.search_runs(
        search_all_experiments=True, output_format='list'
      )
      self.assertEqual(found.data.metrics['energy/gap'], 1.5)
      self.assertEqual(found.data.params['algorithm'], 'steingan')


if __name__ == '__main__':
  absltest.main()
