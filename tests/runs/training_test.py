"""The loop: what it writes, what it refuses, and what it says when numbers go bad."""

import functools
import json
import pathlib
import re
import shutil
import tempfile
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import chex
import jax
import pytest
from tensorboard.backend.event_processing import event_accumulator

from stein_jax import algorithms
from stein_jax import parallel
from stein_jax.runs import checkpoints
from stein_jax.runs import evaluation
from stein_jax.runs import reporting
from stein_jax.runs import training
from tests import smoke


def get_config(**changes):
  """Returns SteinCD's smoke config with dotted fields changed."""
  config = smoke.get_config('stein_cd_mnist')
  config.update_from_flattened_dict(
    {name.replace('__', '.'): value for name, value in changes.items()}
  )
  return config


@functools.cache
def finished():
  """Returns the temporary folder of a run that came to its end, in 'run'."""
  folder = tempfile.TemporaryDirectory()
  training.train(get_config(), pathlib.Path(folder.name) / 'run')
  return folder


class TrainTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.workdir = pathlib.Path(self.create_tempdir().full_path) / 'run'

  def copy_finished(self):
    source = pathlib.Path(finished().name) / 'run'
    shutil.copytree(source, self.workdir)

  def test_writes_metrics_events_and_checkpoints(self):
    self.copy_finished()
    lines = reporting.read_metrics(self.workdir)
    self.assertEqual([line['step'] for line in lines], [2, 4])
    for name in ('energy/data', 'test/log_likelihood', 'steps_per_second'):
      self.assertIn(name, lines[0])

    events = event_accumulator.EventAccumulator(
      str(self.workdir / 'events')
    ).Reload()
    scalar = events.Scalars('test/log_likelihood')
    self.assertEqual([event.step for event in scalar], [2, 4])
    self.assertAlmostEqual(
      scalar[1].value, lines[1]['test/log_likelihood'], delta=1e-4
    )
    self.assertEqual([image.step for image in events.Images('samples')], [2, 4])
    hparams = event_accumulator.EventAccumulator(
      str(self.workdir / 'events' / 'hparams')
    ).Reload()
    self.assertNotEmpty(hparams.Tags()['scalars'])

    with checkpoints.manager(self.workdir / 'checkpoints') as manager:
      self.assertEqual(manager.latest_step(), 4)

  def test_a_finished_run_is_left_as_it_is(self):
    self.copy_finished()
    before = (self.workdir / reporting.METRICS_FILE).read_text()
    state = training.train(get_config(), self.workdir)
    self.assertEqual(int(state.step), 4)
    self.assertEqual(
      (self.workdir / reporting.METRICS_FILE).read_text(), before
    )

  def test_a_torn_metrics_line_is_dropped_on_resume(self):
    with smoke.stop_after(3):
      training.train(get_config(), self.workdir)
    with open(self.workdir / reporting.METRICS_FILE, 'a') as file:
      file.write('{"step": 3, "ener')
    steps = [line['step'] for line in reporting.read_metrics(self.workdir)]
    self.assertEqual(steps, [2])
    training.train(get_config(), self.workdir)
    steps = [line['step'] for line in reporting.read_metrics(self.workdir)]
    self.assertEqual(steps, [2, 4])

  def test_several_steps_a_call_change_no_number(self):
    self.copy_finished()
    other = self.workdir.with_name('several')
    config = get_config(steps_per_call=2)
    with smoke.stop_after(1):
      training.train(config, other)
    self.assertEqual(int(training.train(config, other).step), 4)
    lines = zip(
      smoke.metric_lines(self.workdir),
      smoke.metric_lines(other),
      strict=True,
    )
    for expected, actual in lines:
      chex.assert_trees_all_close(actual, expected, rtol=1e-5)

  def test_other_random_numbers_are_as_repeatable(self):
    self.check_repeatable('shard_map')

  @parameterized.parameters('jit', 'pmap')
  @pytest.mark.slow
  def test_so_they_are_in_other_modes(self, mode):
    self.check_repeatable(mode)

  def check_repeatable(self, mode):
    lines = []
    for name in ('one', 'two'):
      config = smoke.get_config('contrastive_divergence_mnist')
      config.prng_impl, config.parallel = 'hashed', mode
      training.train(config, self.workdir / name)
      lines.append(smoke.metric_lines(self.workdir / name))
    self.assertSequenceEqual(*lines)
    config.prng_impl = 'threefry2x32'
    training.train(config, self.workdir / 'three')
    other = smoke.metric_lines(self.workdir / 'three')
    self.assertNotEqual(lines[0], other)

  def test_steps_and_samples_are_of_the_precision_asked_for(self):
    precision = 'bfloat16'  # the default is float32
    config = get_config(matmul_precision=precision)
    algorithm = algorithms.get(config.algorithm)
    found = []

    def noted(function):
      def call(*args, **kwargs):
        found.append(jax.config.jax_default_matmul_precision)
        return function(*args, **kwargs)

      return functools.wraps(function)(call)

    for name in ('step', 'sample'):
      patch = mock.patch.object(
        algorithm, name, noted(getattr(algorithm, name))
      )
      self.enter_context(patch)
    parts = training.check(config)
    del found[:]  # nothing is computed there
    with mock.patch.object(training, 'check', lambda _: parts):
      training.train(config, self.workdir)
    evaluation.evaluate(config, self.workdir)
    self.assertGreater(len(found), 2)
    self.assertEqual(set(found), {precision})

  def test_a_gpu_learns_in_tf32_and_measures_in_float32(self):
    cases = (
      ('gpu', True, 'tensorfloat32'),
      ('gpu', False, 'float32'),
      ('tpu', True, 'float32'),
      ('cpu', True, 'float32'),
    )
    for backend, learns, expected in cases:
      with mock.patch.object(jax, 'default_backend', lambda: backend):
        found = parallel.precision('auto', learns=learns)
        self.assertEqual(found, expected)
        named = parallel.precision('bfloat16', learns=learns)
        self.assertEqual(named, 'bfloat16')

  def test_steps_learn_and_the_rest_measures(self):
    asked = []
    usual = parallel.precision

    def noted(name, *, learns=False):
      asked.append(learns)
      return usual(name, learns=learns)

    config = get_config()
    self.assertEqual(config.matmul_precision, 'auto')
    with mock.patch.object(parallel, 'precision', noted):
      training.train(config, self.workdir)
      calls = config.num_steps // config.steps_per_call
      # The check traces a step first.
      self.assertEqual(asked, [True, False] + calls * [True])
      del asked[:]
      evaluation.evaluate(config, self.workdir)
    self.assertEqual(asked, [False])

  def test_a_run_traces_its_step_once(self):
    # One device: several are given batches that lie on them, which no check has.
    self.enter_context(mock.patch.object(jax, 'device_count', lambda: 1))
    self.enter_context(
      mock.patch.object(jax, 'devices', lambda: jax.local_devices()[:1])
    )
    config = get_config()
    algorithm = algorithms.get(config.algorithm)
    traced = []

    def noted(*args, **kwargs):
      traced.append(args)
      return step(*args, **kwargs)

    step = algorithm.step
    noted = functools.wraps(step)(noted)
    with mock.patch.object(algorithm, 'step', noted):
      training.train(config, self.workdir)
    self.assertLen(traced, 1)

  def test_another_configs_workdir_is_refused_untouched(self):
    self.copy_finished()
    files = {path: path.stat().st_mtime_ns for path in self.workdir.rglob('*')}
    with self.assertRaisesRegex(
      ValueError, 'step.epsilon: 0.1 there, 0.5 here'
    ):
      training.train(get_config(step__epsilon=0.5), self.workdir)
    self.assertEqual(
      files, {path: path.stat().st_mtime_ns for path in self.workdir.rglob('*')}
    )

  def test_a_folder_of_something_else_is_refused(self):
    self.workdir.mkdir()
    (self.workdir / 'thesis.tex').write_text('')
    with self.assertRaisesRegex(ValueError, 'not empty'):
      training.train(get_config(), self.workdir)

  def test_every_launch_ends_with_one_line(self):
    config = get_config(num_steps=4, checkpoint_every=2, eval_every=0)

    def last_line():
      with self.assertLogs('absl', 'INFO') as logged:
        training.train(config, self.workdir)
      return logged.records[-1].getMessage()

    with smoke.stop_after(2):
      self.assertRegex(last_line(), r'^Stopped early at step \d of 4')
    self.assertRegex(
      last_line(), r'^Finished: continued from step \d to step 4 of 4\.$'
    )
    self.assertEqual(
      last_line(), 'Nothing left to do: finished at step 4 of 4.'
    )
    (self.workdir / 'report.html').touch()
    self.assertIn(f'the report is {self.workdir}', last_line())
    self.workdir = self.workdir.with_name('other')
    self.assertEqual(last_line(), 'Finished: step 4 of 4.')

  def test_numbers_gone_bad_name_the_steps_and_the_last_good_checkpoint(self):
    # A rate of 1e38 overflows at the first update; losses see it at the second.
    config = get_config(
      optimizer__learning_rate=1e38, num_steps=8, eval_every=0
    )
    config.checkpoint_every = 0
    with self.assertRaisesRegex(
      FloatingPointError, 'at step 2.*energy.*No checkpoint'
    ):
      training.train(config, self.workdir)

  def test_the_good_checkpoint_survives(self):
    with smoke.stop_after(2):
      training.train(get_config(), self.workdir)
    config = json.loads((self.workdir / 'config.json').read_text())
    config['optimizer']['learning_rate'] = 1e38
    (self.workdir / 'config.json').write_text(json.dumps(config))
    with self.assertRaisesRegex(FloatingPointError, 'checkpoint: step 2'):
      training.train(get_config(optimizer__learning_rate=1e38), self.workdir)
    with checkpoints.manager(self.workdir / 'checkpoints') as manager:
      self.assertEqual(manager.latest_step(), 2)

  def test_checking_compiles_no_step(self):
    step = lambda x: x + 1
    step.__name__ = 'step'
    with jax.log_compiles(), self.assertLogs('jax', 'WARNING') as logs:
      training.check(get_config(num_steps=3))
      jax.jit(functools.partial(step))(1.0)  # so that there is a line
    compiled = re.findall(
      r'XLA compilation of jit\((step|start)\)', ' '.join(logs.output)
    )
    self.assertEqual(compiled, ['step'])


if __name__ == '__main__':
  absltest.main()
