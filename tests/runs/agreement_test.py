"""What processes compare before the first step; `multihost_test` runs several."""

from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np

import stein_jax
from stein_jax.runs import agreement
from stein_jax.runs import reporting
from tests import smoke

_CONFIG = smoke.get_config('svgd_toy')
_BATCH = {'image': np.arange(6.0).reshape(3, 2)}


def said(config=_CONFIG, source=range(9), batch=None):
  """Returns what a process tells the others of itself."""
  told = []
  other = lambda value: told.append(dict(value)) or {}
  with (
    mock.patch.object(jax, 'process_count', return_value=2),
    mock.patch.object(agreement, 'exchanged', side_effect=other),
  ):
    agreement.check(config, source, batch or _BATCH)
  return told[0]


class CheckTest(parameterized.TestCase):
  def refused(self, theirs):
    with (
      mock.patch.object(jax, 'process_count', return_value=2),
      mock.patch.object(agreement, 'exchanged', return_value={1: theirs}),
      self.assertRaises(ValueError) as caught,
    ):
      agreement.check(_CONFIG, range(9), _BATCH)
    return str(caught.exception)

  def test_alike(self):
    with (
      mock.patch.object(jax, 'process_count', return_value=2),
      mock.patch.object(agreement, 'exchanged', return_value={1: said()}),
    ):
      agreement.check(_CONFIG, range(9), _BATCH)

  def test_one_process_asks_nobody(self):
    with mock.patch.object(agreement, 'exchanged') as exchanged:
      agreement.check(_CONFIG, range(9), _BATCH)
    exchanged.assert_not_called()

  def test_another_version(self):
    with mock.patch.object(stein_jax, '__version__', '9.9'):
      theirs = said()
    self.assertRegex(self.refused(theirs), 'version of stein_jax: .* 9.9 there')

  def test_another_commit(self):
    with mock.patch.object(reporting, 'commit', return_value='abc'):
      theirs = said()
    self.assertRegex(self.refused(theirs), 'commit of the code: .* abc there')

  def test_another_data_set(self):
    self.assertRegex(
      self.refused(said(source=range(8))),
      'examples of the data: 9 here, 8 there',
    )
    # One bit of the first batch, in as many examples.
    other = {'image': _BATCH['image'].copy()}
    other['image'][1, 1] = np.nextafter(other['image'][1, 1], 9)
    message = self.refused(said(batch=other))
    self.assertIn('Process 0 differs from process 1', message)
    self.assertIn('first batch of the data: ', message)

  def test_no_message_holds_an_array(self):
    other = {'image': np.full((1000, 1000), 0.123)}
    message = self.refused(said(batch=other))
    self.assertNotIn('0.123', message)
    self.assertLess(len(message), 500)

  def test_all_fields_differ(self):
    theirs = {name: 'other' for name in said()}
    self.assertLess(len(self.refused(theirs)), 1000)


if __name__ == '__main__':
  absltest.main()
