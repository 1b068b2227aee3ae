"""Checkpoints round-trip, and damage is noticed and stepped over."""

import pathlib
import shutil

from absl.testing import absltest
from absl.testing import parameterized
import chex
import jax.numpy as jnp

from stein_jax import parallel
from stein_jax.runs import checkpoints
from tests.faults import states


def data_files(folder):
  """Returns the files that hold array data, largest first."""
  files = [path for path in (folder / 'state').rglob('*') if path.is_file()]
  return sorted(files, key=lambda path: -path.stat().st_size)


def flip_bit(path):
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)


DAMAGE = {
  'flipped bit': lambda folder: flip_bit(data_files(folder)[0]),
  'truncated': lambda folder: data_files(folder)[0].write_bytes(b''),
  'data deleted': lambda folder: data_files(folder)[0].unlink(),
  'no digest': lambda folder: shutil.rmtree(folder / 'digest'),
  'no metadata': lambda folder: (folder / 'state' / '_METADATA').unlink(),
}


class CheckpointsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def save(self, *steps):
    with checkpoints.manager(self.folder) as manager:
      for step in steps:
        checkpoints.save(manager, states.state_at(step))

  def restore(self):
    with checkpoints.manager(self.folder) as manager:
      return checkpoints.restore(
        manager, parallel.replicate(states.state_at(0))
      )

  def test_round_trip_keeps_values_dtypes_and_placement(self):
    self.save(3)
    restored = self.restore()
    chex.assert_trees_all_equal(restored, states.state_at(3))
    chex.assert_trees_all_equal_dtypes(restored, states.state_at(3))
    self.assertEqual(
      restored.weight.sharding,
      parallel.replicate(states.state_at(0)).weight.sharding,
    )

  def test_without_a_checkpoint_the_state_given_comes_back(self):
    chex.assert_trees_all_equal(self.restore(), states.state_at(0))

  def test_the_last_three_are_kept(self):
    self.save(1, 2, 3, 4)
    kept = sorted(
      int(path.name) for path in self.folder.iterdir() if path.is_dir()
    )
    self.assertEqual(kept, [2, 3, 4])

  @parameterized.parameters(*DAMAGE)
  def test_damage_to_the_newest_falls_back_with_a_warning(self, damage):
    self.save(1, 2)
    DAMAGE[damage](self.folder / '2')
    with self.assertLogs(level='ERROR') as logs:
      restored = self.restore()
    chex.assert_trees_all_equal(restored, states.state_at(1))
    self.assertIn('Checkpoint 2', logs.output[0])

  def test_nothing_whole_raises(self):
    self.save(1)
    flip_bit(data_files(self.folder / '1')[0])
    with self.assertRaisesRegex(RuntimeError, r'whole.*step 1: .*weight'):
      self.restore()
    self.assertTrue((self.folder / '1').exists())

  @parameterized.named_parameters(
    ('more', dict(nothing=jnp.zeros(3)), 'nothing is absent there.*float32.3'),
    ('less', dict(nested=None), 'half.* is bfloat16.3. there and absent here'),
    ('shape', dict(weight=jnp.zeros((64, 32))), '64, 33. there .*64, 32. here'),
    (
      'dtype',
      dict(weight=jnp.zeros((64, 33), jnp.bfloat16)),
      'float32.* there and bfloat16.* here',
    ),
  )
  def test_a_state_of_other_arrays_is_told_from_damage(self, changes, message):
    self.save(1, 2)
    other = states.state_at(0)._replace(**changes)
    with checkpoints.manager(self.folder) as manager:
      with self.assertRaisesRegex(RuntimeError, f'of another state.*{message}'):
        checkpoints.restore(manager, parallel.replicate(other))
    # They are still there for the version that wrote them.
    chex.assert_trees_all_equal(self.restore(), states.state_at(2))

  def test_a_step_that_is_there_is_not_passed_over_in_silence(self):
    self.save(1, 2)
    with checkpoints.manager(self.folder) as manager:
      with self.assertRaisesRegex(OSError, 'Step 1 was not saved.*step 2'):
        checkpoints.save(manager, states.state_at(1))

  def test_a_bfloat16_nan_is_noticed(self):
    bad = states.state_at(1)._replace(
      nested={'half': jnp.full(3, jnp.nan, jnp.bfloat16)}
    )
    self.assertEqual(checkpoints.not_finite(bad), ['nested'])
    self.assertEmpty(checkpoints.not_finite(states.state_at(1)))

  def test_a_state_that_is_not_finite_is_not_saved(self):
    bad = states.state_at(5)._replace(weight=jnp.array([1.0, jnp.nan]))
    with checkpoints.manager(self.folder) as manager:
      with self.assertRaisesRegex(FloatingPointError, 'step 5'):
        checkpoints.save(manager, bad)
      self.assertIsNone(manager.latest_step())


if __name__ == '__main__':
  absltest.main()
