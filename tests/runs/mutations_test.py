"""Configs with one field that nobody meant: refused by its name, or they train."""

from absl.testing import absltest
from absl.testing import parameterized
import pytest

from tests import mutations

_CHUNK = 100


class MutationsTest(parameterized.TestCase):
  """The default cases are checked; the slow ones are 3,000, a part of which train."""

  def test_what_has_the_name_of_a_field(self):
    for said, expected in (
      ('energy.widths[0]=0 must be at least 1.', True),
      ('energy.widths.x=1 is no argument.', True),
      ('evaluation.data.pixels=1, and energy.widths=2.', True),
      ('my.energy.widths=3 is wrong.', False),
      ('energy.widths_of=3 is wrong.', False),
      ('widths=3 is wrong.', False),
    ):
      self.assertEqual(mutations.names(said, 'energy.widths'), expected, said)

  def test_a_case_is_always_the_same(self):
    first, second = (mutations.outcome(5, trains=False) for _ in range(2))
    self.assertEqual(first[:5], second[:5])

  def test_the_first_are_refused_by_name_or_pass(self):
    self.check([mutations.outcome(case, trains=False) for case in range(40)])

  @parameterized.parameters(*range(30))
  @pytest.mark.slow
  def test_are_refused_by_name_or_train(self, chunk):
    cases = range(_CHUNK * chunk, _CHUNK * (chunk + 1))
    self.check([mutations.outcome(case, case % 8 == 0) for case in cases])

  def check(self, found):
    large = [
      each
      for each in found
      if each.seconds > mutations.SECONDS
      or each.gigabytes > mutations.GIGABYTES
    ]
    self.assertEmpty(large)
    self.assertEmpty([each for each in found if each.end == 'fell'])
    refused = [each for each in found if each.end in ('named', 'unnamed')]
    unnamed = [each for each in refused if each.end == 'unnamed']
    self.assertLessEqual(len(unnamed), len(refused) / 100, unnamed)
    self.assertNotEmpty(refused)
    self.assertLess(len(refused), len(found))


if __name__ == '__main__':
  absltest.main()
