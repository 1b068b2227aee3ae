"""Numbers that go bad: what is said, and how a run that rolls back goes on."""

import functools
import json
import pathlib
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stein_jax import algorithms
from stein_jax.runs import checkpoints
from stein_jax.runs import reporting
from stein_jax.runs import rollbacks
from stein_jax.runs import training
from tests import smoke

_BAD = 5  # the step that goes wrong, counted from 0


def poison(config, *, always=False, field='energy'):
  """Returns a patch that makes nans in step `_BAD`: with its first key, or always."""
  algorithm = algorithms.get(config.algorithm)
  step = algorithm.step
  _, step_rng = jax.random.split(jax.random.key(config.seed))
  first_key = jax.random.key_data(jax.random.fold_in(step_rng, _BAD))

  @functools.wraps(step)
  def poisoned(state, batch, rng, **options):
    after, metrics = step(state, batch, rng, **options)
    same_key = jnp.all(jax.random.key_data(rng) == first_key)
    bad = (state.step == _BAD) & (same_key | always)
    spoil = lambda x: jnp.where(bad, jnp.nan, x)
    learner = getattr(after, field)
    learner = learner.replace(params=jax.tree.map(spoil, learner.params))
    return after._replace(**{field: learner}), metrics

  return mock.patch.object(algorithm, 'step', poisoned)


def get_config(name='stein_cd_mnist', **changes):
  """Returns a smoke config of twelve steps, a checkpoint every second."""
  config = smoke.get_config(name)
  config.num_steps, config.eval_every = 12, 0
  config.update(changes)
  return config


class NumbersTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.workdir = pathlib.Path(self.create_tempdir().full_path) / 'run'

  def rolled_back(self):
    return json.loads((self.workdir / rollbacks.FILE).read_text())

  def steps(self):
    return [line['step'] for line in reporting.read_metrics(self.workdir)]

  @parameterized.parameters(np.nan, np.inf, -np.inf)
  def test_data_that_are_not_finite_are_refused(self, value):
    images = np.zeros((16, 4, 4, 1), np.float32)
    images[3, 1, 2, 0] = images[7] = value
    path = str(self.workdir.with_suffix('.npz'))
    np.savez(path, image=images)
    config = get_config()
    config.data = dict(name='npz', path=path)
    with self.assertRaisesRegex(ValueError, r'image\[3\].* of 2 rows'):
      training.train(config, self.workdir)
    self.assertFalse(self.workdir.exists())

  @parameterized.parameters(
    ('stein_cd_mnist', 'energy', 1, 'jit'),
  )
  def test_a_run_stops_and_says_what_was_bad(self, name, field, num, mode):
    self.check_stops(name, field, num, mode)

  @pytest.mark.slow
  def test_so_does_one_of_two_networks_on_several_devices(self):
    self.check_stops('steingan_toy', 'generator', 2, 'shard_map')

  def check_stops(self, name, field, num, mode):
    config = get_config(name, steps_per_call=num, parallel=mode)
    with (
      poison(config, field=field),
      self.assertRaises(FloatingPointError) as caught,
    ):
      training.train(config, self.workdir)
    # Step 6, at which it is saved, is the first after the bad one.
    self.assertRegex(
      str(caught.exception),
      f'state of step 6 is not finite in: {field};.*Last good checkpoint: step 4',
    )
    with checkpoints.manager(self.workdir / 'checkpoints') as manager:
      self.assertEqual(manager.latest_step(), 4)

  def test_metrics_tell_the_steps_between_which_it_went_bad(self):
    config = get_config(log_every=4, checkpoint_every=0)
    with poison(config), self.assertRaises(FloatingPointError) as caught:
      training.train(config, self.workdir)
    self.assertRegex(
      str(caught.exception),
      'between step 5 and 8: energy/.*; of the state energy. No checkpoint',
    )
    self.assertEqual(self.steps(), [4])

  def test_a_test_metric_counts_too(self):
    config = get_config(eval_every=4)
    bad = {'test/log_likelihood': np.nan}
    with (
      mock.patch('stein_jax.runs.evaluation.test_metrics', return_value=bad),
      self.assertRaisesRegex(FloatingPointError, 'test/log_likelihood'),
    ):
      training.train(config, self.workdir)

  def test_a_rollback_goes_on_with_other_numbers(self):
    self.check_goes_on('jit', 1)

  @pytest.mark.slow
  def test_so_does_one_of_several_steps_a_call(self):
    self.check_goes_on('pmap', 2)

  def check_goes_on(self, mode, steps_per_call):
    config = get_config(
      'contrastive_divergence_mnist',
      on_nonfinite='rollback',
      parallel=mode,
      steps_per_call=steps_per_call,
    )
    training.train(config, self.workdir.with_name('alone'))
    with poison(config):
      after = training.train(config, self.workdir)
    self.assertEqual(self.rolled_back(), [{'bad': 6, 'good': 4}])
    self.assertEqual(int(after.step), 12)
    self.assertEqual(self.steps(), [2, 4, 6, 8, 10, 12])
    alone, lines = (
      smoke.metric_lines(folder)
      for folder in (self.workdir.with_name('alone'), self.workdir)
    )
    self.assertEqual(lines[:2], alone[:2])
    self.assertNotEqual(lines[2:], alone[2:])
    self.assertTrue(np.all(np.isfinite(after.energy.params['params']['bias'])))

  # Calls 1 to 6 lead to the bad step, those from 7 on go on from step 4.
  @parameterized.parameters(6, 7, 9)
  @pytest.mark.slow
  def test_a_rollback_survives_a_death(self, num_calls):
    config = get_config('contrastive_divergence_toy', on_nonfinite='rollback')
    with poison(config):
      straight = training.train(config, self.workdir.with_name('straight'))
      with smoke.during(num_calls, self.die):
        with self.assertRaises(SystemExit):
          training.train(config, self.workdir)
      resumed = training.train(config, self.workdir)
    chex.assert_trees_all_equal(
      jax.tree.leaves(straight), jax.tree.leaves(resumed)
    )
    self.assertSequenceEqual(
      *map(
        smoke.metric_lines,
        (self.workdir.with_name('straight'), self.workdir),
      )
    )

  @staticmethod
  def die():
    raise SystemExit

  @pytest.mark.slow
  def test_three_rollbacks_are_all(self):
    config = get_config(on_nonfinite='rollback')
    with poison(config, always=True):
      for _ in range(2):  # when it is started again too
        with self.assertRaises(FloatingPointError) as caught:
          training.train(config, self.workdir)
        self.assertRegex(str(caught.exception), 'not finite in: energy')
        self.assertIn('after 3 rollbacks', caught.exception.__notes__[0])
        self.assertEqual(self.rolled_back(), [{'bad': 6, 'good': 4}] * 3)
    with checkpoints.manager(self.workdir / 'checkpoints') as manager:
      self.assertEqual(manager.latest_step(), 4)
    # Once the cause is gone, it goes on.
    self.assertEqual(int(training.train(config, self.workdir).step), 12)

  @parameterized.parameters(
    ([], 6, True),
    ([6, 6], 6, True),
    ([6, 6, 6], 6, False),
    ([6, 6, 6], 4, False),
    ([6, 4, 5], 6, False),
    ([6, 6, 6], 8, True),  # it got further
    ([6, 6, 6, 8, 8], 7, True),
    ([6, 6, 6, 8, 8, 8], 7, False),
  )
  def test_in_a_row_means_without_getting_further(self, before, bad, allowed):
    self.workdir.mkdir()
    with checkpoints.manager(self.workdir / 'checkpoints') as manager:
      error = checkpoints.NotFinite('It is bad.', bad, manager)
    past = [{'bad': each, 'good': 0} for each in before]
    if allowed:
      past = rollbacks.go_back(self.workdir, past, error)
      self.assertEqual(past, rollbacks.read(self.workdir))
      self.assertEqual(past[-1], {'bad': bad, 'good': 0})
    else:
      with self.assertRaisesRegex(FloatingPointError, 'It is bad'):
        rollbacks.go_back(self.workdir, past, error)

  def test_keys_change_after_a_rollback_and_not_before_it(self):
    rng = jax.random.key(0)
    key = lambda step, past: tuple(
      np.asarray(jax.random.key_data(rollbacks.key(rng, step, past))).tolist()
    )
    once, twice = [{'bad': 9, 'good': 4}], [{'bad': 9, 'good': 4}] * 2
    plain = jax.random.key_data(jax.random.fold_in(rng, 3)).tolist()
    self.assertSequenceEqual(key(3, []), plain)
    self.assertEqual(key(3, once), key(3, []))
    self.assertLen({key(4, past) for past in ([], once, twice)}, 3)
    # Back to an earlier step: what lies between has another key as well.
    self.assertNotEqual(key(3, [*once, {'bad': 9, 'good': 2}]), key(3, once))

  def test_samples_that_become_one_are_told_of(self):
    config = get_config('steingan_toy', num_steps=6)
    algorithm = algorithms.get('steingan')
    step = algorithm.step

    def collapse(state, *args, **options):
      state, metrics = step(state, *args, **options)
      flat = jax.tree.map(
        lambda x: x * (state.step < 3), state.generator.params
      )
      return state._replace(
        generator=state.generator.replace(params=flat)
      ), metrics

    collapse.__kwdefaults__ = step.__kwdefaults__
    with (
      mock.patch.object(algorithm, 'step', functools.wraps(step)(collapse)),
      self.assertLogs(level='WARNING') as logs,
    ):
      state = training.train(config, self.workdir)
    said = [line for line in logs.output if 'may have collapsed' in line]
    self.assertLen(said, 1)
    self.assertRegex(said[0], r'samples/variance is \S+ at step 4')
    # The bandwidth of samples that are all the same has a floor.
    chex.assert_tree_all_finite(state.energy.params)


if __name__ == '__main__':
  absltest.main()
