"""Every file of the newest checkpoint, damaged in turn."""

import pathlib
import pickle
import shutil
import sys
from unittest import mock

from absl.testing import absltest
import chex
import numpy as np
import pytest

from stein_jax import parallel
from stein_jax.runs import checkpoints
from stein_jax.runs import evaluation
from stein_jax.runs import training
from tests import smoke
from tests.faults import runs
from tests.faults import states


def flip(content, place):
  """Returns the bytes with one bit the other way, at a share of their length."""
  content = bytearray(content)
  content[int(place * (len(content) - 1))] ^= 1
  return bytes(content)


DAMAGE = {
  'halved': lambda content: content[: len(content) // 2],
  'emptied': lambda content: b'',
  'deleted': lambda content: None,
  **{
    f'flipped at {place}': lambda content, place=place: flip(content, place)
    for place in (0, 0.25, 0.5, 0.75, 1)
  },
}


def damaged_copies(folder, copy, checkpoint, damages=tuple(DAMAGE)):
  """Yields each file and damage, with `copy` made of the folder and damaged so."""
  files = sorted((folder / checkpoint).rglob('*'))
  for path in filter(pathlib.Path.is_file, files):
    path = path.relative_to(folder)
    for name in damages:
      shutil.rmtree(copy, ignore_errors=True)
      shutil.copytree(folder, copy)
      content = DAMAGE[name]((copy / path).read_bytes())
      (copy / path).unlink()
      if content is not None:
        (copy / path).write_bytes(content)
      yield str(path), name


class CheckpointTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path) / 'whole'
    with checkpoints.manager(self.folder) as manager:
      for step in (1, 2):
        checkpoints.save(manager, states.state_at(step))

  def test_no_damage_is_loaded_and_the_step_can_be_saved_again(self):
    copy = self.folder.with_name('copy')
    template = parallel.replicate(states.state_at(0))
    fallen_back = set()
    damages = ('halved', 'emptied', 'deleted', 'flipped at 0.5')
    for file, damage in damaged_copies(self.folder, copy, '2', damages):
      with (
        self.subTest(file=file, damage=damage),
        mock.patch.object(checkpoints.logging, 'error') as error,
      ):
        with checkpoints.manager(copy) as manager:
          state = checkpoints.restore(manager, template)
          step = int(state.step)
          chex.assert_trees_all_equal(state, states.state_at(step))
          checkpoints.drop_later(manager, step)
          if step == 1:
            fallen_back.add(file)
            said = ' '.join(str(arg) for arg in error.call_args_list[0].args)
            # The item, or the leaf.
            self.assertRegex(said, r'2 .*/2(/digest|/state| .*: \.)')
            checkpoints.save(manager, states.state_at(2))
        with checkpoints.manager(copy) as manager:
          again = checkpoints.restore(manager, template)
          chex.assert_trees_all_equal(again, states.state_at(2))
    # Arrays, their index, the digest: whatever is read at all.
    self.assertGreaterEqual(len(fallen_back), 6)

  def test_reading_damaged_checkpoints_leaves_them(self):
    (
      self.folder / '3.orbax-checkpoint-tmp'
    ).mkdir()  # one that is being written
    digest = self.folder / '2' / 'digest' / 'metadata'
    digest.write_bytes(flip(digest.read_bytes(), 0.5))
    before = sorted(self.folder.rglob('*'))
    with checkpoints.manager(self.folder, read_only=True) as manager:
      state = checkpoints.restore(
        manager, parallel.replicate(states.state_at(0))
      )
    self.assertEqual(int(state.step), 1)
    self.assertEqual(sorted(self.folder.rglob('*')), before)

  def test_no_pickle_is_read(self):
    found, listening = [], True

    def hook(event, args):
      if listening and event == 'pickle.find_class':
        found.append(args)

    sys.addaudithook(hook)  # stays until the process ends
    pickle.loads(pickle.dumps(np.zeros(2)))
    self.assertNotEmpty(found)
    found.clear()
    with checkpoints.manager(self.folder) as manager:
      checkpoints.restore(manager, parallel.replicate(states.state_at(0)))
    listening = False
    self.assertEmpty(found)


class RunTest(absltest.TestCase):
  """A run whose newest checkpoint is damaged ends like one that is left alone."""

  def setUp(self):
    super().setUp()
    self.workdir = pathlib.Path(self.create_tempdir().full_path) / 'run'

  @pytest.mark.slow
  def test_goes_on(self):
    config = smoke.get_config('stein_cd_mnist')
    training.train(config, self.workdir)
    alone = runs.contents(self.workdir)
    copy = self.workdir.with_name('copy')
    for file, damage in damaged_copies(self.workdir, copy, 'checkpoints/4'):
      with self.subTest(file=file, damage=damage):
        training.train(config, copy)
        runs.assert_equal(runs.contents(copy), alone)

  @pytest.mark.slow
  def test_is_evaluated_before_the_damage(self):
    config = smoke.get_config('stein_cd_mnist')
    training.train(config, self.workdir)
    digest = self.workdir / 'checkpoints' / '4' / 'digest' / 'metadata'
    digest.write_bytes(digest.read_bytes()[:20])
    with self.assertLogs(level='ERROR') as logs:
      evaluation.evaluate(config, self.workdir)
    self.assertRegex(logs.output[0], 'Checkpoint 4.*/4/digest')
    self.assertIn(
      '"step": 2', (self.workdir / 'evaluation.json').read_text('utf-8')
    )
    self.assertTrue(digest.exists())


if __name__ == '__main__':
  absltest.main()
