"""Workdirs that are full, read-only, or another run's: nothing there is lost."""

import errno
import fcntl
import functools
import os
import pathlib
import subprocess
import time
import unittest
from unittest import mock

from absl import logging
from absl.testing import absltest
from absl.testing import parameterized
import pytest
from tensorboard.backend.event_processing import event_accumulator

from stein_jax.runs import evaluation
from stein_jax.runs import reporting
from stein_jax.runs import training
from tests import smoke
from tests.faults import runs

_FLAGS = (
  '--config.num_steps=200',
  '--config.log_every=5',
  '--config.eval_every=40',
  '--config.checkpoint_every=10',
  '--noevaluate',
)
_needs_root = unittest.skipIf(os.getuid(), 'only root can mount')


def everything(folder):
  """Returns every file of a folder, with its bytes."""
  return {
    path: path.read_bytes() for path in folder.rglob('*') if path.is_file()
  }


class WorkdirTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.workdir = self.folder / 'run'

  def mount(self, *options):
    """Mounts what the options say on a folder, for this test."""
    folder = self.folder / 'mounted'
    folder.mkdir(exist_ok=True)
    subprocess.run(['mount', *options, folder], check=True)
    self.addCleanup(subprocess.run, ['umount', '--lazy', folder], check=True)
    return folder

  def refused(self, run, message):
    """Waits for the end of a run, which is to fail and say so."""
    self.assertNotIn(run.end(), (0, None), run.printed()[-4000:])
    self.assertRegex(run.printed(), message)

  @_needs_root
  @pytest.mark.slow
  def test_a_full_disk_stops_a_run_that_goes_on_when_there_is_space(self):
    alone = runs.Run('stein_cd_mnist', *_FLAGS, workdir=self.folder / 'alone')
    alone.finish()
    disk = self.mount('-t', 'tmpfs', '-o', 'size=4m', 'none')
    workdir, filler = disk / 'run', disk / 'filler'
    begin = functools.partial(
      runs.Run, 'stein_cd_mnist', workdir=workdir, log=self.folder / 'log'
    )
    for num_lines in (0, 3, 9, 12):
      if num_lines:
        run = begin(*_FLAGS)
        self.assertTrue(run.wait_for(lambda: run.num_lines() >= num_lines))
      with open(filler, 'wb', 0) as file, self.assertRaises(OSError):
        while file.write(bytes(512)):
          pass
      if not num_lines:
        run = begin(*_FLAGS)
      self.refused(run, 'No space left on device')
      filler.unlink()
    begin(*_FLAGS).finish()
    runs.assert_equal(runs.contents(workdir), runs.contents(alone.workdir))

  @_needs_root
  def test_a_workdir_that_cannot_be_written(self):
    training.train(smoke.get_config('stein_cd_mnist'), self.workdir)
    before = everything(self.workdir)
    disk = self.mount('--bind', self.folder)
    subprocess.run(['mount', '-o', 'remount,ro,bind', disk], check=True)
    for folder in (disk / 'run', disk / 'new'):
      with self.assertRaisesRegex(OSError, f'{folder}.* cannot be written'):
        training.train(smoke.get_config('stein_cd_mnist'), folder)
    with self.assertRaisesRegex(OSError, f'{disk}/run cannot be written'):
      evaluation.evaluate(training.read_config(self.workdir), disk / 'run')
    self.assertEqual(everything(self.workdir), before)

  @_needs_root
  @pytest.mark.slow
  def test_a_checkpoint_that_is_not_written_is_noticed_before_the_next(self):
    config = smoke.get_config('stein_cd_mnist')
    config.num_steps, config.checkpoint_every = 10_000, 5_000
    config.log_every, config.eval_every = 100, 0
    with smoke.stop_after(1):
      training.train(config, self.workdir)
    # The checkpoints' disk alone is full.
    small = self.mount('-t', 'tmpfs', '-o', 'size=8k', 'none')
    folder = self.workdir / 'checkpoints'
    subprocess.run(['mount', '--bind', small, folder], check=True)
    self.addCleanup(subprocess.run, ['umount', folder], check=True)
    with self.assertRaisesRegex(OSError, 'checkpoint could not be written'):
      training.train(config, self.workdir)
    last = reporting.read_metrics(self.workdir)[-1]['step']
    self.assertBetween(last, 5_000, 9_900)

  def test_a_second_run_is_refused_until_the_first_is_dead(self):
    flags = ('--config.num_steps=1000000', '--config.checkpoint_every=10')
    config = smoke.get_config('stein_cd_mnist')
    config.num_steps, config.checkpoint_every = 1_000_000, 10
    first = runs.Run('stein_cd_mnist', *flags, workdir=self.workdir)
    self.addCleanup(first.kill)
    self.assertTrue(first.wait_for(lambda: runs.saved(self.workdir)))
    with self.assertRaisesRegex(
      RuntimeError, f'Another run is in .*process {first.process.pid} on'
    ):
      training.train(config, self.workdir)
    self.assertIsNone(first.process.poll())
    first.kill()
    first.end()
    with smoke.stop_after(1):
      state = training.train(config, self.workdir)
    self.assertGreater(int(state.step), 10)

  @parameterized.parameters(
    ('metrics.jsonl', True),
    ('events', True),
    ('lock', True),
    ('', False),
  )
  def test_what_is_gone_ends_the_run(self, name, is_saved):
    config = smoke.get_config('svgd_toy')
    config.num_steps, config.log_every, config.checkpoint_every = 40, 2, 20
    config.eval_every, path = 0, self.workdir / name

    def take_away(step, metrics):
      del metrics
      if step == 4:
        path.rename(self.folder / 'elsewhere')

    with self.assertRaisesRegex(OSError, f'Moved, deleted.*: .*{path}'):
      training.train(config, self.workdir, on_metrics=take_away)
    self.assertEqual(self.workdir.exists(), is_saved)
    if is_saved:
      (step,) = runs.saved(self.workdir)
      self.assertLess(int(step), 20)
      state = training.train(config, self.workdir)
      self.assertEqual(int(state.step), 40)

  @parameterized.parameters(
    ('metrics.jsonl', 'cut'),
    ('metrics.jsonl', 'linked'),
    ('config.json', 'cut'),
    ('config.json', 'linked'),
    ('batch.json', 'linked'),
    ('checkpoints', 'linked'),
    ('checkpoints', 'moved'),
  )
  def test_so_does_what_is_cut_or_a_link_to_where_it_went(self, name, how):
    config = smoke.get_config('svgd_toy')
    config.num_steps, config.log_every, config.checkpoint_every = 40, 2, 10
    config.eval_every, path = 0, self.workdir / name
    elsewhere = self.folder / 'elsewhere'

    def take_away(step, metrics):
      del metrics
      if step != 14:
        return
      while not runs.saved(self.workdir):  # step 10 is written beside the run
        time.sleep(0.001)
      if how == 'cut':
        os.truncate(path, 1)
        return
      path.rename(elsewhere)
      if how == 'linked':
        path.symlink_to(elsewhere)

    with self.assertRaisesRegex(OSError, f'cut or replaced.*: {path}') as error:
      training.train(config, self.workdir, on_metrics=take_away)
    if (name, how) == ('checkpoints', 'linked'):  # nothing is written there
      self.assertLess(max(map(int, os.listdir(elsewhere))), 14)
      return
    last = runs.saved(self.workdir)[-1]
    self.assertBetween(last, 15, 19)
    self.assertEqual(error.exception.__notes__, [f'Step {last} is saved.'])

  def test_a_link_deep_in_a_workdir_is_refused(self):
    config = smoke.get_config('svgd_toy')
    training.train(config, self.workdir)
    elsewhere = self.folder / 'elsewhere'
    elsewhere.mkdir()
    (elsewhere / 'mine').write_text('mine')
    for name in ('events/hparams', 'checkpoints/9', 'report.html'):
      path, own = self.workdir / name, self.folder / 'own'
      if path.exists():
        path.rename(own)
      path.symlink_to(elsewhere)
      for use in (training.train, evaluation.evaluate):
        with self.assertRaisesRegex(ValueError, f'{path} is a link'):
          use(config, self.workdir)
      path.unlink()
    self.assertEqual(os.listdir(elsewhere), ['mine'])

  def test_events_that_were_deleted_are_no_obstacle(self):
    config = smoke.get_config('svgd_toy')
    for _ in range(2):
      with smoke.stop_after(1):
        training.train(config, self.workdir)
    first, _ = sorted((self.workdir / 'events').glob('events.*'))
    first.unlink()
    self.assertEqual(int(training.train(config, self.workdir).step), 4)

  @parameterized.parameters(
    ('metrics.jsonl', b'{"step": 1}\nnone\n', 'in line 2'),
    ('metrics.jsonl', b'{"stop": 1}\n', 'in line 1'),
    ('metrics.jsonl', b'\xff\n', 'in line 1'),
    ('config.json', b'[]', ''),
    ('config.json', b'{"version": "0.2.0"}', 'no number of steps'),
    ('config.json', b'', ''),
    ('rollbacks.json', b'[{}]', 'lists no rollbacks'),
  )
  def test_what_is_damaged_between_launches_is_named(self, name, data, message):
    config = smoke.get_config('svgd_toy')
    with smoke.stop_after(2):
      training.train(config, self.workdir)
    path = self.workdir / name
    path.write_bytes(data)
    with self.assertRaisesRegex(ValueError, f'{path} is damaged.*{message}'):
      training.train(config, self.workdir)
    self.assertEqual(runs.saved(self.workdir), [2])

  @parameterized.parameters(0, 1)
  def test_lost_lines_of_metrics_are_said_and_marked(self, kept):
    config = smoke.get_config('svgd_toy')
    config.log_every = 1
    with smoke.stop_after(3):
      training.train(config, self.workdir)
    path = self.workdir / 'metrics.jsonl'
    path.write_text(''.join(path.read_text().splitlines(True)[:kept]))
    with self.assertLogs(logging.get_absl_logger(), 'ERROR') as said:
      training.train(config, self.workdir)
    self.assertIn(f'ends at step {kept}, and the checkpoint', said.output[0])
    lines = reporting.read_metrics(self.workdir)
    self.assertEqual(lines[kept], {'step': 3, 'metrics/lost_after': kept})
    self.assertEqual([line['step'] for line in lines[kept:]], [3, 4])

  def test_a_clock_that_is_set_back_hides_no_curve(self):
    config = smoke.get_config('svgd_toy')
    with smoke.stop_after(2):
      training.train(config, self.workdir)
    now = time.time()
    with mock.patch.object(time, 'time', lambda: now - 7200):
      training.train(config, self.workdir)
    found = event_accumulator.EventAccumulator(str(self.workdir / 'events'))
    steps = [each.step for each in found.Reload().Scalars('particles/move')]
    self.assertEqual(steps, [2, 4])

  def test_a_link_is_not_written_through(self):
    elsewhere = self.folder / 'elsewhere'
    elsewhere.mkdir()
    for name in ('events', 'metrics.jsonl', 'config.tmp'):
      workdir = self.folder / f'run-{name}'
      workdir.mkdir()
      (workdir / name).symlink_to(elsewhere)
      with self.assertRaisesRegex(ValueError, f'{name} is a link'):
        training.train(smoke.get_config('svgd_toy'), workdir)
    self.assertEmpty(list(elsewhere.iterdir()))

  def test_a_checkpoint_beyond_the_configs_end_is_refused(self):
    config = smoke.get_config('svgd_toy')
    training.train(config, self.workdir)
    fields = reporting.read_json(self.workdir / 'config.json')
    fields['num_steps'] = config.num_steps = 2
    reporting.write_json(self.workdir / 'config.json', fields)
    with self.assertRaisesRegex(ValueError, 'holds step 4.*--extend=4'):
      training.train(config, self.workdir)

  def test_a_damaged_json_file_is_named(self):
    path = self.folder / 'x.json'
    path.write_text('{"a": ')
    with self.assertRaisesRegex(ValueError, f'{path} is damaged'):
      reporting.read_json(path)

  def test_two_that_write_a_json_file_at_once_both_write_it_whole(self):
    path, fsync = self.folder / 'x.json', os.fsync

    def other_comes(number):
      with (
        mock.patch.object(os, 'fsync', fsync),
        mock.patch.object(os, 'getpid', return_value=1),
      ):
        reporting.write_json(path, [1])
      self.assertEqual(reporting.read_json(path), [1])
      fsync(number)

    with mock.patch.object(os, 'fsync', other_comes):
      reporting.write_json(path, list(range(1000)))
    self.assertEqual(reporting.read_json(path)[0], 1)
    self.assertEqual(os.listdir(self.folder), ['x.json'])

  def test_where_files_cannot_be_locked_it_says_so_and_goes_on(self):
    config = smoke.get_config('stein_cd_mnist')
    error = OSError(errno.ENOLCK, 'No locks available')
    with (
      mock.patch.object(fcntl, 'flock', side_effect=error),
      self.assertLogs(level='WARNING') as logs,
    ):
      state = training.train(config, self.workdir)
    self.assertRegex(logs.output[0], 'cannot be locked .No locks available')
    self.assertEqual(int(state.step), 4)

  def test_what_a_kill_at_the_very_start_leaves_is_no_obstacle(self):
    self.workdir.mkdir()
    (self.workdir / 'lock').touch()
    (self.workdir / 'config.tmp').write_text('{"algo')
    config = smoke.get_config('stein_cd_mnist')
    self.assertEqual(int(training.train(config, self.workdir).step), 4)

  def test_how_bad_numbers_are_met_may_change_on_the_way(self):
    config = smoke.get_config('stein_cd_mnist')
    with smoke.stop_after(2):
      training.train(config, self.workdir)
    config.on_nonfinite = 'rollback'
    self.assertEqual(int(training.train(config, self.workdir).step), 4)


if __name__ == '__main__':
  absltest.main()
