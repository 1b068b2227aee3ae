"""A run that is killed at random moments ends like one that is left alone."""

import pathlib

from absl.testing import absltest
from absl.testing import parameterized
import pytest

from tests.faults import kills


class KillsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def test_while_a_checkpoint_is_written(self):
    found = kills.check(
      'stein_cd_mnist', self.folder, 1, moments=('write',), num_steps=80
    )
    self.assertEqual(found.total(), 1)

  @parameterized.parameters(*kills.CONFIGS)
  @pytest.mark.slow
  def test_at_any_moment(self, config):
    found = kills.check(config, self.folder, 8, seed=1)
    self.assertEqual(found.total(), 8)
    self.assertGreaterEqual(found['write'], 1)


if __name__ == '__main__':
  absltest.main()
