"""Several processes on one host, by the command that a pod's workers run."""

import json
import os
import pathlib
import socket
import subprocess
import sys

from absl.testing import absltest
from absl.testing import parameterized
import chex
import pytest

from stein_jax import evaluation
from stein_jax import parallel
from stein_jax import training
from tests import conformance_test

_DEVICES = 4  # over all processes, as this one has
_SPLIT = ('langevin_ebm_mnist', 'svgd_toy')  # states are split over devices


def _launch(config, workdir, num_processes, *flags):
  """Returns what each process printed; AssertionError if one failed."""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'localhost:{free.getsockname()[1]}'
  command = (
    *(sys.executable, '-m', 'experiments.train', f'--workdir={workdir}'),
    *(f'--config=configs/{config}.py:smoke', '--multihost', *flags),
  )
  processes = []
  for index in range(num_processes):
    environment = dict(
      os.environ,
      JAX_PLATFORMS='cpu',
      JAX_NUM_CPU_DEVICES=str(_DEVICES // num_processes),
      JAX_DISABLE_MOST_OPTIMIZATIONS='1',
      JAX_ENABLE_COMPILATION_CACHE='0',
      JAX_COORDINATOR_ADDRESS=address,
      JAX_NUM_PROCESSES=str(num_processes),
      JAX_PROCESS_ID=str(index),
    )
    processes.append(
      subprocess.Popen(
        command,
        env=environment,
        cwd=pathlib.Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
      )
    )
  printed = [process.communicate(timeout=300)[0] for process in processes]
  for process, text in zip(processes, printed, strict=True):
    if process.returncode:
      raise AssertionError(text[-4000:])
  return printed


class ProcessesTest(parameterized.TestCase):
  def check(self, name, mode, num_processes):
    """Trains and evaluates a run by this process and by several, on as many devices."""
    folder = pathlib.Path(self.create_tempdir().full_path)
    printed = _launch(
      name, folder / 'several', num_processes, f'--config.parallel={mode}'
    )
    last = num_processes - 1
    self.assertIn(f'Process {last} of {num_processes}', printed[last])

    config = conformance_test.get_config(name)
    config.parallel = mode
    training.train(config, folder / 'one')
    evaluation.evaluate(config, folder / 'one')
    found = {}
    for run in ('one', 'several'):
      numbers = (folder / run / 'evaluation.json').read_text('utf-8')
      lines = conformance_test.metric_lines(folder / run)
      found[run] = *lines, json.loads(numbers)
    self.assertLen(found['one'], 1 + config.num_steps // config.log_every)
    for expected, actual in zip(*found.values(), strict=True):
      chex.assert_trees_all_close(actual, expected, rtol=1e-4)

    # What several wrote one restores, and leaves as it is.
    training.train(config, folder / 'several')
    lines = conformance_test.metric_lines(folder / 'several')
    self.assertSequenceEqual(lines, found['several'][:-1])

  def test_two_are_what_one_is(self):
    self.check('svgd_toy', 'pmap', 2)

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
    if (mode, num_processes) == ('pmap', 4) and config in _SPLIT:
      with self.assertRaisesRegex(
        AssertionError, "allowed: 'jit', 'shard_map'"
      ):
        self.check(config, mode, num_processes)
      return
    self.check(config, mode, num_processes)


if __name__ == '__main__':
  absltest.main()
