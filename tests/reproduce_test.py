"""Rows of the reproduced tables: what is kept, and how it is written."""

import pathlib

from absl.testing import absltest
import numpy as np

from experiments.reproduce import rows
from stein_jax import reporting


class RowsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.calls = []

  def run_row(self, row, seed):
    self.calls.append((row.name, seed))
    return {'value': 10.0 + seed, 'text': 'x'}, np.full((2, 3), seed)

  def test_a_finished_run_is_not_run_again(self):
    many, one = (
      rows.Row('a, b = 1', ('', '')),
      rows.Row('c', ('', ''), single=True),
    )
    rows.run_all(self.folder, [many, one], 2, self.run_row)
    expected = [('a, b = 1', 0), ('c', 0), ('a, b = 1', 1)]
    self.assertEqual(self.calls, expected)
    path = rows.result_path(self.folder, many, 1)
    np.testing.assert_array_equal(np.load(path.with_suffix('.npy')), 1)
    path.unlink()
    rows.run_all(self.folder, [many, one], 2, self.run_row)
    self.assertEqual(self.calls, [*expected, ('a, b = 1', 1)])
    values = [r['value'] for r in rows.results(self.folder, many, 2)]
    self.assertEqual(values, [10.0, 11.0])

  def test_table_has_mean_and_interval_of_what_is_there(self):
    row, other = rows.Row('a', ('', '')), rows.Row('b', ('', ''))
    rows.run_all(self.folder, [row], 2, self.run_row)
    (line,) = rows.table(
      self.folder, [row, other], {'value': 'value', '-': 'no'}, 3
    )
    # 10 and 11: standard error 0.5, of one degree of freedom t = 12.706.
    self.assertEqual(
      line, {'': 'a', 'value': '10.5 ± 6.4', '-': '', 'seeds': 2}
    )

  def test_config_of_a_row(self):
    row = rows.Row('', ('gan_mnist', 'smoke'), {'step.loss': 'minimax'})
    config = rows.get_config(row, 7)
    self.assertEqual((config.step.loss, config.seed), ('minimax', 7))
    with self.assertRaises(KeyError):
      rows.get_config(row._replace(changes={'step.los': 'minimax'}), 7)

  def test_training_looks_and_prepares(self):
    config = rows.get_config(rows.Row('', ('gan_mnist', 'smoke')), 0)
    sizes = []

    def prepare(batch, rng):
      del rng
      sizes.append(len(batch['image']))
      return batch

    state, seen = rows.train(
      config,
      4,
      'test',
      every=2,
      look=lambda state, batch: int(state.step),
      prepare=prepare,
    )
    self.assertEqual((int(state.step), seen), (4, [2, 4]))
    self.assertEqual(sizes, [config.batch_size] * 4)

  def test_report(self):
    line = {'name': 'a', 'value': 1}
    rows.write_report(
      self.folder, 'Title', {'one': [line], 'none': []}, [], {'seeds': 3}
    )
    text = (self.folder / 'table.md').read_text('utf-8')
    self.assertEqual(text, f'one\n\n{reporting.table([line])}')
    page = (self.folder / 'report.html').read_text('utf-8')
    for word in ('Title', 'one', 'seeds'):
      self.assertIn(word, page)
    self.assertNotIn('none', text)


if __name__ == '__main__':
  absltest.main()
