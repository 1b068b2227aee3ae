"""Rows of the reproduced tables: what is kept, and how it is written."""

import pathlib

from absl.testing import absltest
import numpy as np

from experiments.reproduce import chains
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


class ChainsTest(absltest.TestCase):
  def test_shares_and_visits_by_hand(self):
    # Two chains: one stays in mode 0, one goes from 1 to 3 and back.
    path = np.array([[0, 1], [0, 3], [0, 1]])
    # Shares are 1/2 and 1/2 of two modes of four.
    np.testing.assert_allclose(chains.share_error(path), 0.5)
    np.testing.assert_allclose(chains.visited(path), [1, 1.5, 1.5])
    everywhere = np.arange(4)[None]
    np.testing.assert_allclose(chains.share_error(everywhere), 0)
    np.testing.assert_allclose(chains.share_error(0 * everywhere), 0.75)

  def test_chains_stay_where_they_start(self):
    # Between the nearest two means, 4.5 apart, lies a barrier of 10 nats and more.
    density = chains.density()
    starts = chains.starts(density, 0)
    paths = {
      name: chains.modes_of(density, starts[name], 0, 50)
      for name in ('noise', 'data')
    }
    for name, path in paths.items():
      self.assertEqual(path.shape, (51, chains.NUM_CHAINS), name)
      np.testing.assert_array_equal(path[10:], path[10:11].repeat(41, 0))
    # Draws of the density are in each mode equally often, to 4 standard errors;
    # those of N(0, I) nearly all in the first, which is nearest.
    error = 4 * (3 / 16 / chains.NUM_CHAINS) ** 0.5
    self.assertLess(chains.share_error(paths['data'])[-1], 2 * error)
    self.assertGreater(chains.share_error(paths['noise'])[-1], 0.4)


if __name__ == '__main__':
  absltest.main()
