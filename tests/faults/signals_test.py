"""SIGTERM at any moment: an exit with code 0 in time, and nothing is lost."""

import pathlib
import signal
import time

from absl.testing import absltest
from absl.testing import parameterized
import pytest

from tests.faults import runs

_GRACE = 30  # seconds between SIGTERM and SIGKILL on most clusters
_FLAGS = (
  '--config.num_steps=120',
  '--config.log_every=5',
  '--config.eval_every=40',
  '--config.checkpoint_every=10',
)

# When a run is at each of the moments.
MOMENTS = {
  'importing': lambda run: True,
  'compiling at the start': lambda run: 'Compiling jit' in run.printed(),
  'compiling the step': lambda run: 'Compiling jit(step)' in run.printed(),
  'in the loop': lambda run: run.num_lines() > 0,
  'writing a checkpoint': lambda run: run.writing(),
  'evaluating': lambda run: 'jit(ais_estimate)' in run.printed(),
  'drawing samples': lambda run: 'jit(<lambda>)' in run.printed(),
  'writing the last checkpoint': lambda run: any(
    name.startswith('120.') for name in run.writing()
  ),
  'writing the report': lambda run: 'Evaluating step 120' in run.printed(),
}


class SigtermTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def stop(self, config, moment, times=1, cache=None):
    """Sends SIGTERM to a run in the folder at a moment, and waits for its end."""
    run = runs.Run(config, *_FLAGS, workdir=self.folder / 'run', cache=cache)
    self.assertTrue(
      run.wait_for(lambda: MOMENTS[moment](run)), run.printed()[-2000:]
    )
    self.assertIsNone(run.process.poll(), 'It ended before.')
    begin = time.monotonic()
    for _ in range(times):
      run.kill(signal.SIGTERM)
      time.sleep(0.01)
    code = run.end()
    # Python itself ends at once, before there is anything that could be damaged.
    expected = (0, -signal.SIGTERM) if moment == 'importing' else (0,)
    self.assertIn(code, expected, run.printed()[-2000:])
    self.assertLess(time.monotonic() - begin, _GRACE)

  def goes_on(self, config):
    """Lets the run come to its end, which is that of a run left alone."""
    ended = []
    for name in ('run', 'alone'):
      run = runs.Run(config, *_FLAGS, workdir=self.folder / name)
      run.finish()
      ended.append(runs.contents(run.workdir))
    runs.assert_equal(*ended)

  @pytest.mark.slow
  def test_twice_while_a_checkpoint_is_written(self):
    self.stop('stein_cd_mnist', 'writing a checkpoint', times=2)
    self.goes_on('stein_cd_mnist')

  @parameterized.parameters('steingan_toy', 'contrastive_divergence_toy')
  @pytest.mark.slow
  def test_at_every_moment_in_turn(self, config):
    for moment in MOMENTS:
      # An empty folder of programs: all of them are compiled.
      self.stop(config, moment, cache=self.folder / moment)
    self.goes_on(config)


if __name__ == '__main__':
  absltest.main()
