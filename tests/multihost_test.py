"""Several processes on one host, by the command that a pod's workers run."""

import functools
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from absl.testing import absltest
from absl.testing import parameterized
import chex
import numpy as np
import pytest

from stein_jax import parallel
from stein_jax.runs import evaluation
from stein_jax.runs import training
from tests import smoke
from tests.faults import runs

_DEVICES = 4  # over all processes, as this one has
_ELSEWHERE = (
  'langevin_ebm',
  'steingan',
  'svgd',
  'vae_teaching',
)  # in all modes
_ROOT = pathlib.Path(__file__).parent.parent


def _launch(
  config,
  workdirs,
  *flags,
  devices=_DEVICES,
  accidents=None,
  own=None,
  absent=(),
  stuck=(),
  module='tests.worker',
  seconds=300,
  environments=None,
):
  """Returns the exit code of each process, and what it printed.

  Args:
    config: trained at its smoke scale.
    workdirs: of the processes, one each.
    *flags: of all.
    devices: over all processes.
    accidents: of processes, by their number.
    own: flags of processes, by their number, after those of all.
    absent: numbers of processes that are not started.
    stuck: numbers of processes that are not waited for; they have no code.
    module: what they run.
    seconds: after which they are killed, and TimeoutExpired is raised.
    environments: variables of processes, by their number.
  """
  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'localhost:{free.getsockname()[1]}'
  processes, outputs = [], []
  for index, workdir in enumerate(workdirs):
    command = [sys.executable, '-m', module, '--multihost']
    command += [f'--config=configs/{config}.py:smoke', *flags]
    command.append(f'--workdir={workdir}')
    if accidents and index in accidents:
      command.append(f'--accident={accidents[index]}')
    command += (own or {}).get(index, ())
    if index in absent:
      continue
    outputs.append(tempfile.TemporaryFile('w+'))
    processes.append(
      subprocess.Popen(
        command,
        env=dict(
          os.environ,
          JAX_PLATFORMS='cpu',
          JAX_NUM_CPU_DEVICES=str(devices // len(workdirs)),
          JAX_DISABLE_MOST_OPTIMIZATIONS='1',
          JAX_ENABLE_COMPILATION_CACHE='0',
          JAX_COORDINATOR_ADDRESS=address,
          JAX_NUM_PROCESSES=str(len(workdirs)),
          JAX_PROCESS_ID=str(index),
        )
        | (environments or {}).get(index, {}),
        cwd=_ROOT,
        stdout=outputs[-1],
        stderr=subprocess.STDOUT,
      )
    )
  end = time.monotonic() + seconds
  try:
    codes = [
      process.wait(max(0.0, end - time.monotonic()))
      for index, process in enumerate(processes)
      if index not in stuck
    ]
  finally:
    for process in processes:
      process.kill()
      process.wait()
  printed = []
  for output in outputs:
    with output:
      output.seek(0)
      printed.append(output.read())
  return codes, printed


def _succeed(*args, **kwargs):
  """Returns what the processes of `_launch` printed; AssertionError if one failed."""
  codes, printed = _launch(*args, **kwargs)
  if any(codes):
    raise AssertionError('\n'.join([str(codes), *printed]))
  return printed


def _numbers(workdir):
  """Returns what a run logged and what its evaluation found."""
  report = json.loads((workdir / 'evaluation.json').read_text('utf-8'))
  return *smoke.metric_lines(workdir), report


class ProcessesTest(parameterized.TestCase):
  def check(self, name, mode, num_processes, devices=_DEVICES):
    """Trains and evaluates a run by this process and by several."""
    folder = pathlib.Path(self.create_tempdir().full_path)
    printed = _succeed(
      name,
      [folder / 'several'] * num_processes,
      f'--config.parallel={mode}',
      devices=devices,
      module='experiments.train',
    )
    last = num_processes - 1
    self.assertIn(f'Process {last} of {num_processes}', printed[last])

    config = smoke.get_config(name)
    config.parallel = mode
    training.train(config, folder / 'one')
    evaluation.evaluate(config, folder / 'one')
    found = {run: _numbers(folder / run) for run in ('one', 'several')}
    self.assertLen(found['one'], 1 + config.num_steps // config.log_every)
    # VCD's samples are 0.1 apart, where data are 6: rounding shows in that.
    atol = 3e-4 if name == 'vcd_cifar10' else 0
    for expected, actual in zip(*found.values(), strict=True):
      # Two steps on, rounding has moved units past their kinks.
      chex.assert_trees_all_close(actual, expected, rtol=1e-3, atol=atol)

    # What several wrote one restores, and leaves as it is.
    training.train(config, folder / 'several')
    lines = smoke.metric_lines(folder / 'several')
    self.assertSequenceEqual(lines, found['several'][:-1])

  @pytest.mark.slow
  def test_two_are_what_one_is(self):
    # Its numbers are the same on any number of devices, here one a process.
    self.check('svgd_toy', 'pmap', 2, devices=2)

  @parameterized.product(
    config=(
      'langevin_ebm_mnist',  # with chains that are split
      'steingan_toy',  # with a generator
      'svgd_toy',  # particles that are split
      'vae_teaching_mnist',
    ),
    mode=parallel.MODES,
    num_processes=(2, 4),
  )
  @pytest.mark.slow
  def test_several_are_what_one_is(self, config, mode, num_processes):
    self.check(config, mode, num_processes)

  @parameterized.parameters(
    sorted(
      name
      for algorithm, name in smoke.ALGORITHMS.items()
      if algorithm not in _ELSEWHERE
    )
  )
  @pytest.mark.slow
  def test_two_of_every_other_algorithm_are_what_one_is(self, config):
    self.check(config, 'jit', 2)


class AccidentsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def launch(self, run, num_processes, *flags, mode='jit', **kwargs):
    """Returns codes and output of a run that may be stopped before it ends."""
    return _launch(
      'svgd_toy',
      [self.folder / run] * num_processes,
      f'--config.parallel={mode}',
      '--config.num_steps=40',
      '--pause=0.05',
      *flags,
      **kwargs,
    )

  def goes_on(self, run, mode='jit', **changes):
    """Ends a run in this process, and sees that nothing was lost."""
    config = smoke.get_config('svgd_toy')
    config.parallel, config.num_steps = mode, 40
    config.update(changes)
    for name in (run, 'straight'):
      training.train(config, self.folder / name)
      evaluation.evaluate(config, self.folder / name)
    expected, actual = (
      _numbers(self.folder / 'straight'),
      _numbers(self.folder / run),
    )
    self.assertLen(expected, 1 + 40 // config.log_every)
    for one, other in zip(expected, actual, strict=True):
      chex.assert_trees_all_close(other, one, rtol=1e-4)

  def stops(self, accidents, *flags, num_processes=2, **kwargs):
    """Returns the step after which all stop, having saved it."""
    codes, printed = self.launch(
      'run', num_processes, *flags, accidents=accidents, **kwargs
    )
    self.assertEqual(codes, [0] * num_processes, printed)
    (step,) = {
      text.split('all stop after step ')[1].split('.')[0] for text in printed
    }
    self.assertEqual(runs.saved(self.folder / 'run')[-1], int(step))
    self.assertBetween(int(step), 1, 39)
    return int(step)

  def test_a_signal_to_one_stops_all_and_nothing_is_lost(self):
    self.assertGreaterEqual(self.stops({1: 'TERM:5'}), 5)
    self.goes_on('run')

  @parameterized.parameters(
    ({0: 'TERM:5'}, 'pmap'),
    ({0: 'TERM:9', 1: 'TERM:5'}, 'shard_map'),
    ({1: 'INT:5'}, 'pmap'),
    ({0: 'TERM:0'}, 'shard_map'),  # before the first step
  )
  @pytest.mark.slow
  def test_so_do_others_at_other_moments(self, accidents, mode):
    self.stops(accidents, mode=mode)
    self.goes_on('run', mode)

  @parameterized.parameters('jit', 'shard_map')
  @pytest.mark.slow
  def test_four_of_which_three_get_it(self, mode):
    accidents = {1: 'TERM:6', 2: 'TERM:5', 3: 'INT:7'}
    self.stops(accidents, mode=mode, num_processes=4)
    self.goes_on('run', mode)

  @pytest.mark.slow
  def test_several_steps_a_call(self):
    flags = ('--config.steps_per_call=2',)
    step = self.stops({1: 'TERM:5'}, *flags)
    self.assertEqual(step % 2, 0)
    # A signal before the loop goes on is heard too.
    again = self.stops({1: 'TERM:0'}, *flags)
    self.assertGreater(again, step)
    self.goes_on('run', steps_per_call=2)

  @pytest.mark.slow
  def test_a_signal_in_the_last_step_lets_the_run_end(self):
    codes, printed = self.launch('run', 2, accidents={1: 'TERM:40'})
    self.assertEqual(codes, [0, 0], printed)
    self.assertEqual(runs.saved(self.folder / 'run')[-1], 40)
    self.assertTrue((self.folder / 'run' / 'report.html').exists())

  @parameterized.parameters(
    (2, 0, 'jit'),  # the one that the others ask who is there
    (2, 1, 'jit'),
    (2, 1, 'pmap'),
    (4, 2, 'shard_map'),
  )
  @pytest.mark.slow
  def test_one_killed_ends_the_others_with_an_error(
    self, num_processes, killed, mode
  ):
    begin = time.monotonic()
    codes, printed = self.launch(
      'run',
      num_processes,
      '--heartbeat=15',
      mode=mode,
      accidents={killed: 'KILL:21'},
    )
    self.assertLess(time.monotonic() - begin, 120)
    self.assertEqual(codes.pop(killed), -9)
    printed.pop(killed)
    for code, text in zip(codes, printed, strict=True):
      self.assertNotEqual(code, 0)
      self.assertRegex(
        text, 'This process fails: .*start all again|another task died'
      )
    # A checkpoint on its way is lost with it, and those before are kept.
    self.assertGreaterEqual(runs.saved(self.folder / 'run')[-1], 16)
    codes, printed = self.launch('run', num_processes, mode=mode)
    self.assertEqual(codes, [0] * num_processes, printed)
    self.goes_on('run', mode)

  @parameterized.parameters(0, 1)
  @pytest.mark.slow
  def test_an_error_in_one_ends_the_others(self, failing):
    # JAX's default is to wait for the others for five minutes.
    codes, printed = self.launch(
      'run', 2, accidents={failing: 'ERROR:21'}, seconds=120
    )
    self.assertEqual(codes[failing], 1)
    self.assertIn('RuntimeError: an accident', printed[failing])
    self.assertNotEqual(codes[1 - failing], 0)
    self.goes_on('run')

  @parameterized.parameters(
    (0, 'EXIT:21', 'Stopped early by an exit with 3'),
    (1, 'EXIT:21', 'Stopped early by an exit with 3'),
    (1, 'ERROR:end', 'RuntimeError: an accident'),
    (1, 'LONG:21', r'ValueError: \[0.123456789, .* \.\.\.'),
  )
  @pytest.mark.slow
  def test_so_does_whatever_one_leaves_by(self, failing, accident, message):
    begin = time.monotonic()
    codes, printed = self.launch('run', 2, accidents={failing: accident})
    self.assertLess(time.monotonic() - begin, 80)
    self.assertNotIn(0, codes, printed)
    self.assertRegex(printed[failing], message)
    self.assertIn(f'Process {failing} has failed', printed[1 - failing])
    for text in printed:  # holds no arrays
      self.assertLess(len(text), 20_000)

  @parameterized.parameters('SLEEP:21', 'SLEEP:save', 'SLEEP:end')
  @pytest.mark.slow
  def test_so_does_one_that_is_alive_and_does_nothing(self, accident):
    # Its heartbeats go on, which another thread sends.
    begin = time.monotonic()
    codes, printed = self.launch(
      'run', 2, '--patience=45', accidents={1: accident}
    )
    self.assertLess(time.monotonic() - begin, 110)
    self.assertEqual(codes, [1, 1], printed)
    self.assertRegex(printed[1], 'Process .*1 stood still for 30 s')

  @parameterized.parameters(0, 1)
  @pytest.mark.slow
  def test_a_signal_ends_one_who_waits_for_the_other_in_a_save(self, stuck):
    accidents = {stuck: 'STOP:save', 1 - stuck: 'TERM:save'}
    begin = time.monotonic()
    (code,), printed = self.launch(
      'run', 2, accidents=accidents, stuck=(stuck,)
    )
    self.assertLess(time.monotonic() - begin, 80)
    self.assertEqual(code, 1, printed)
    self.assertIn('SIGTERM: no step in 25 s', printed[1 - stuck])

  @parameterized.parameters(0, 1)
  @pytest.mark.slow
  def test_one_that_stands_still_ends_the_others(self, stuck):
    begin = time.monotonic()
    (code,), printed = self.launch(
      'run', 2, '--heartbeat=15', accidents={stuck: 'STOP:21'}, stuck=(stuck,)
    )
    self.assertLess(time.monotonic() - begin, 120)
    self.assertNotEqual(code, 0, printed)

  @parameterized.parameters(0, 1)
  @pytest.mark.slow
  def test_a_signal_ends_one_whom_the_other_does_not_answer(self, stuck):
    accidents = {stuck: 'STOP:21', 1 - stuck: 'TERM:21'}
    begin = time.monotonic()
    (code,), printed = self.launch(
      'run', 2, accidents=accidents, stuck=(stuck,)
    )
    # Its heartbeats would be missed after 100 s; 30 s and what comes before.
    self.assertLess(time.monotonic() - begin, 80)
    self.assertEqual(code, 1, printed)
    self.assertIn('SIGTERM: no step in 25 s', printed[1 - stuck])

  @pytest.mark.slow
  def test_the_first_one_killed_before_the_first_step(self):
    begin = time.monotonic()
    codes, printed = self.launch(
      'run', 2, '--heartbeat=15', accidents={0: 'KILL:0'}
    )
    self.assertLess(time.monotonic() - begin, 120)
    self.assertEqual(codes[0], -9)
    self.assertNotEqual(codes[1], 0, printed)

  @pytest.mark.slow
  def test_a_checkpoint_that_one_cannot_read_is_taken_by_none(self):
    flags = (
      '--config.parallel=shard_map',
      '--config.num_particles=2048',  # smaller parts share a file
      f'--states={self.folder / "states"}',
    )
    workdirs = [self.folder / 'run'] * 2
    _succeed('svgd_toy', workdirs, *flags)
    newest = self.folder / 'run' / 'checkpoints' / '4' / 'state'
    parts = [*(newest / 'ocdbt.process_1' / 'd').iterdir()]
    self.assertNotEmpty(parts)
    for path in parts:
      path.write_bytes(b'')
    printed = _succeed('svgd_toy', workdirs, *flags)
    for text in printed:
      self.assertIn('Checkpoint 4 is not whole', text)
    with np.load(self.folder / 'states' / 'saved_2.npz') as saved:
      with np.load(self.folder / 'states' / 'restored_2.npz') as restored:
        chex.assert_trees_all_equal(dict(saved), dict(restored))


class AgreementTest(parameterized.TestCase):
  """Processes that were not started alike end before the first step, and say why."""

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def refused(self, message, *args, **kwargs):
    codes, printed = _launch('svgd_toy', *args, seconds=120, **kwargs)
    self.assertNotIn(0, codes, printed)
    for text in printed:
      self.assertRegex(text, message)
      self.assertNotIn('Traceback', text)
    self.assertEmpty(list(self.folder.rglob('checkpoints')))

  @parameterized.parameters(
    ('--config.optimizer.learning_rate=0.01', 'learning_rate: 0.01 here'),
    ('--config.num_steps=8', 'num_steps: 8 here, 4 there'),
    ('--config.data=breast_cancer', 'process|Process 1 has failed'),
  )
  @pytest.mark.slow
  def test_of_another_config(self, flag, message):
    there = message.split(': ')[0]
    self.refused(
      f'{message}|{there}: .* there|ValueError',
      [self.folder / 'run'] * 2,
      own={1: (flag,)},
      module='experiments.train',
    )

  @pytest.mark.slow
  def test_in_another_folder(self):
    codes, printed = _launch(
      'svgd_toy',
      [self.folder / 'one', self.folder / 'other'],
      module='experiments.train',
      seconds=180,
    )
    self.assertNotIn(0, codes, printed)
    self.assertIn('is another folder than', printed[1])
    self.assertEmpty(list(self.folder.rglob('[0-9]*')))

  @pytest.mark.slow
  def test_with_one_that_never_comes(self):
    begin = time.monotonic()
    codes, printed = _launch(
      'svgd_toy',
      [self.folder / 'run'] * 2,
      absent=(1,),
      module='experiments.train',
      seconds=180,
    )
    self.assertLess(time.monotonic() - begin, 150)
    self.assertNotIn(0, codes)
    self.assertIn('Waiting for process 1 at localhost', printed[0])

  @pytest.mark.slow
  def test_who_is_missing_is_named_and_nobody_else(self):
    codes, printed = _launch(
      'svgd_toy',
      [self.folder / 'run'] * 4,
      '--patience=30',
      absent=(2,),
      module='experiments.train',
      seconds=120,
    )
    self.assertEqual(codes, [1] * 3, printed)
    for text in printed:
      self.assertIn('Waiting for process 2 at localhost', text)
      self.assertIn('Waited 30 s for process 2, which has not come', text)

  @parameterized.parameters(
    ({'JAX_PROCESS_ID': '1'}, 'Two processes were started as number 1'),
    ({'JAX_PROCESS_ID': '3'}, 'JAX_PROCESS_ID=3 do not fit|for process 2, '),
    (
      {'JAX_PROCESS_ID': 'c'},
      "JAX_PROCESS_ID='c' .* no number|for process 2, ",
    ),
    ({'JAX_PROCESS_ID': '0'}, '0 cannot listen|for process .*2, '),
    ({'JAX_NUM_PROCESSES': '4'}, 'as one of 4, process 0 as one of 3'),
    ({'JAX_NUM_CPU_DEVICES': '2'}, 'process 1: 1, process 2: 2'),
    ({'JAX_ENABLE_X64': '1'}, 'jax_enable_x64: '),
  )
  @pytest.mark.slow
  def test_started_in_another_way(self, environment, message):
    self.refused(
      message,
      [self.folder / 'run'] * 3,
      '--patience=30',
      '--config.batch_size=12',
      '--config.num_particles=12',
      devices=3,
      environments={2: environment},
      module='experiments.train',
    )


class TopologyTest(parameterized.TestCase):
  def goes_on_elsewhere(self, name, there, here):
    """Continues a run on other (processes, devices), from the same bits."""
    begun = _run_on(name, *there)
    folder = pathlib.Path(self.create_tempdir().full_path)
    shutil.copytree(pathlib.Path(begun.name) / 'run', folder / 'run')
    shutil.rmtree(folder / 'run' / 'checkpoints' / '4')
    _train_on(name, *here, folder)

    before, after = pathlib.Path(begun.name) / 'states', folder / 'states'
    with np.load(before / 'saved_2.npz') as saved:
      with np.load(after / 'restored_2.npz') as restored:
        self.assertNotEmpty(saved.files)
        chex.assert_trees_all_equal(dict(saved), dict(restored))
    with np.load(before / 'saved_4.npz') as expected:
      with np.load(after / 'saved_4.npz') as actual:
        chex.assert_trees_all_close(
          dict(actual), dict(expected), rtol=1e-4, atol=1e-6
        )
    numbers = (
      _numbers(pathlib.Path(begun.name) / 'run'),
      _numbers(folder / 'run'),
    )
    for expected, actual in zip(*numbers, strict=True):
      chex.assert_trees_all_close(actual, expected, rtol=1e-3)

  @pytest.mark.slow
  def test_two_processes_to_one_device(self):
    self.goes_on_elsewhere('svgd_toy', (2, 4), (1, 1))

  @parameterized.product(
    name=('langevin_ebm_mnist', 'svgd_toy'),
    places=(
      ((1, 4), (1, 1)),
      ((1, 4), (1, 8)),
      ((1, 4), (4, 4)),
      ((2, 4), (1, 1)),
      ((2, 4), (4, 8)),
      ((4, 4), (2, 2)),
    ),
  )
  @pytest.mark.slow
  def test_other_processes_and_devices(self, name, places):
    self.goes_on_elsewhere(name, *places)


@functools.lru_cache
def _run_on(name, num_processes, devices):
  """Returns the temporary folder of a whole run, for all tests that go on from it."""
  folder = tempfile.TemporaryDirectory()
  _train_on(name, num_processes, devices, pathlib.Path(folder.name))
  return folder


def _train_on(name, num_processes, devices, folder):
  _succeed(
    name,
    [folder / 'run'] * num_processes,
    '--config.batch_size=8',
    '--config.parallel=jit',
    f'--states={folder / "states"}',
    devices=devices,
  )


if __name__ == '__main__':
  absltest.main()
