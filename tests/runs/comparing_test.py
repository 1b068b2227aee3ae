"""Runs beside each other: which are one experiment, and what is said of them."""

import json
import pathlib
import subprocess
import sys

from absl.testing import absltest
import numpy as np
import pytest

import stein_jax
from stein_jax.runs import comparing


class ComparingTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def run_(self, rate, seed, result=None):
    """Returns the folder of a run that has ended with a result."""
    workdir = self.folder / f'{rate}-{seed}'
    workdir.mkdir()
    config = {
      'version': stein_jax.__version__,
      'seed': seed,
      'num_steps': 2,
      'optimizer': {'name': 'sgd', 'learning_rate': rate},
    }
    (workdir / 'config.json').write_text(json.dumps(config))
    lines = [{'step': s, 'loss': rate * s + seed} for s in (1, 2)]
    (workdir / 'metrics.jsonl').write_text(
      ''.join(json.dumps(line) + '\n' for line in lines)
    )
    if result is not None:
      (workdir / 'evaluation.json').write_text(
        json.dumps({'step': 2, 'test/score': result})
      )
    return workdir

  def test_seeds_are_one_line(self):
    runs = [
      self.run_(rate, seed, rate + seed)
      for rate in (0.5, 0.25)
      for seed in (0, 1)
    ]
    page = self.folder / 'page' / 'compare.html'
    lines = comparing.write(page, runs)
    # Two values a, a + 1: the half width is t(0.975, 1) / 2 = 12.706 / 2.
    self.assertEqual(
      lines,
      [
        {
          'run': f'optimizer.learning_rate={rate}',
          'seeds': '2',
          'test/score': f'{rate + 0.5:.4g} ± 6.4',
        }
        for rate in (0.5, 0.25)
      ],
    )
    text = page.read_text()
    for said in ('Fields that differ', 'optimizer.learning_rate', 'loss'):
      self.assertIn(said, text)
    self.assertNotIn('<th>seed</th>', text)

  def test_curves_are_at_steps_that_all_seeds_have(self):
    runs = [
      [{'step': 1, 'a': 3.0}, {'step': 2, 'a': 4.0}],
      [{'step': 2, 'a': 5.0}],
    ]
    steps, values = comparing._common(runs, 'a')
    self.assertEqual(steps, [2])
    np.testing.assert_array_equal(values, [[4.0, 5.0]])

  def test_a_run_that_has_not_ended_is_counted_out(self):
    runs = [self.run_(0.5, 0, 1.0), self.run_(0.5, 1)]
    (line,) = comparing.table(comparing.groups(runs))
    self.assertEqual(line['seeds'], '1')
    self.assertEqual(line['test/score'], '1')

  def test_refuses(self):
    with self.assertRaisesRegex(ValueError, 'name one or more'):
      comparing.groups([])
    with self.assertRaisesRegex(FileNotFoundError, 'no config.json'):
      comparing.groups([self.folder])


class SweepTest(absltest.TestCase):
  @pytest.mark.slow
  def test_goes_on_and_names_what_failed(self):
    folder = self.create_tempdir().full_path
    command = (
      *(sys.executable, '-m', 'experiments.sweep'),
      '--config=configs/svgd_toy.py:smoke',
      f'--workdir={folder}',
    )

    def sweep(values):
      return subprocess.run(
        [
          *command,
          f'--grid=optimizer.learning_rate={values}',
          '--config.prng_impl=hashed',
        ],
        cwd=pathlib.Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=600,
      )

    self.assertEqual(sweep('0.1').returncode, 0)
    wrong = sweep('0.1,x')
    self.assertEqual(wrong.returncode, 1)
    self.assertIn("learning_rate='x' must be a number", wrong.stderr)
    self.assertNotIn('begins', wrong.stderr)  # nothing is trained before
    again = sweep('0.1,1e38')
    self.assertEqual(again.returncode, 1)
    self.assertIn('has finished already', again.stderr)
    self.assertIn(
      '1 of 2 runs failed: optimizer.learning_rate=1e38', again.stderr
    )
    self.assertIn('compare.html', again.stdout)


if __name__ == '__main__':
  absltest.main()
