"""Rows of the reproduced tables: what is kept, and how it is written."""

import importlib
import json
import pathlib

from absl import flags
from absl.testing import absltest
import numpy as np
import pytest

from experiments.reproduce import chains
from experiments.reproduce import claims
from experiments.reproduce import rows
from stein_jax import datasets
from stein_jax.runs import reporting


def main(name):
  """Returns a script, its flags taken back: others have flags of the same names."""
  module = importlib.import_module(f'experiments.reproduce.{name}')
  defined = flags.FLAGS.flags_by_module_dict().get(module.__name__, ())
  flags.FLAGS.remove_flag_values([flag.name for flag in defined])
  return module


cifar10, page, rbm, recovery, steingan, vae_teaching, vgan = map(
  main,
  ('cifar10', 'page', 'rbm', 'recovery', 'steingan', 'vae_teaching', 'vgan'),
)


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

  def test_seeds_are_added_to_a_folder_and_other_settings_refused(self):
    plan = vae_teaching.Plan(
      self.folder,
      'mnist',
      None,
      steps=4,
      judge_steps=5,
      seeds=2,
      samples=6,
      smoke=True,
    )
    rows.claim(plan)
    settings = rows.claim(plan._replace(seeds=3))
    self.assertEqual((settings['seeds'], settings['steps']), (3, 4))
    with self.assertRaisesRegex(ValueError, "holds results of .*'steps': 4"):
      rows.claim(plan._replace(steps=7))

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

  def test_another_data_set_or_a_file_in_place_of_the_configs(self):
    config = rows.get_config(rows.Row('', ('gan_cifar10', '')), 0)
    rows.on_data(config, 'svhn_cropped', None)
    expected = dict(name='svhn_cropped', split='test', pixels='symmetric')
    self.assertEqual(config.evaluation.data.to_dict(), expected)
    rows.on_data(config, 'svhn_cropped', 'svhn.npz')
    expected = dict(
      name='npz', path='svhn.npz', split='train', pixels='symmetric'
    )
    self.assertEqual(config.data.to_dict(), expected)

  def test_schedules_are_as_long_as_the_run(self):
    of = lambda *config: rows.get_config(rows.Row('', config), 0)
    # Constant for half of 3,000 steps, then falling for the other half.
    config = rows.lasting(of('steingan_mnist_joint', 'narrow'), 200)
    rate = config.energy_optimizer.learning_rate
    self.assertEqual(config.num_steps, 200)
    self.assertEqual((rate.transition_begin, rate.transition_steps), (100, 100))
    config = rows.lasting(of('classification_cifar10', ''), 10)
    self.assertEqual(config.optimizer.learning_rate.decay_steps, 10)
    config = rows.lasting(of('gan_cifar10', ''), 10)
    self.assertEqual(config.generator_optimizer.learning_rate, 2e-4)

  @pytest.mark.slow
  def test_a_classifier_learns_from_images_and_is_tested_on_real_ones(self):
    row = rows.Row(
      '',
      ('classification_mnist', 'digits'),
      {'classifier.widths': (8, 8), 'classifier.dropout': 0.0},
    )
    batch = datasets.load('digits')[:]
    accuracy = rows.accuracy_from(
      self.folder / 'run',
      rows.get_config(row, 0),
      100,
      batch['image'],
      batch['label'],
    )
    # By chance 0.1, with a deviation of 0.016 over 360 images.
    self.assertGreater(accuracy, 0.5)
    with np.load(self.folder / 'run.npz') as kept:
      self.assertEqual(kept['train_image'].dtype, np.uint8)

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


class Cifar10Test(absltest.TestCase):
  def test_networks_of_a_part_of_the_width(self):
    get = lambda name: rows.get_config(rows.Row('', (name, '')), 0)
    config = cifar10.narrowed(get('steingan_cifar10'), 8)
    widths = [width for width, *_ in config.energy.autoencoder.convs]
    self.assertEqual(widths, [16, 16, 32, 32, 64, 64])
    self.assertEqual(config.energy.autoencoder.convs[1], (16, 2, 2, 0))
    generator = config.generator
    self.assertEqual((generator.base, generator.dense), (64, ()))
    self.assertEqual(generator.widths, (64, 32, 32, 16, 16))
    config = cifar10.narrowed(get('gan_cifar10'), 200)
    self.assertEqual(config.energy.widths, (1, 1, 2))

  def test_rows_are_the_tables(self):
    names = {name.split(',')[0] for name in cifar10.PRINTED}
    for dataset in cifar10.CONFIGS:
      plan = cifar10.Plan(
        self.create_tempdir().full_path,
        dataset,
        None,
        None,
        steps=None,
        classifier_steps=None,
        width=1,
        depth=20,
        seeds=1,
        samples=1000,
        smoke=False,
      )
      table = cifar10.table_rows(plan)
      self.assertEqual({row.name for row in table}, names)
      for row in table:
        config = cifar10.config_of(plan, row, 3)
        self.assertEqual(config.data.name, dataset)
        self.assertEqual(config.seed, 3)
    self.assertEqual(config.step.kernel, 'none')


class VganTest(absltest.TestCase):
  def plan(self, dataset, full):
    return vgan.Plan(
      self.create_tempdir().full_path,
      dataset,
      None,
      steps=4,
      classifier_steps=4,
      full=full,
      seeds=1,
      probed=4,
      smoke=False,
    )

  def test_rows_are_the_tables(self):
    for dataset in vgan.VCD:
      for full in (False, True):
        plan = self.plan(dataset, full)
        table = vgan.probe_rows(plan)
        learned = [row.name for row in table if '=' in row.name]
        self.assertEqual(learned, list(vgan.PRINTED_FEATURES))
        for row in table:
          rows.get_config(row, 0)
        table = vgan.vcd_rows(plan)
        printed = list(vgan.PRINTED_AUGMENTATION)
        if dataset == 'cifar10':
          printed.remove('no augmentation')
        self.assertEqual([row.name for row in table], printed)
        for row in table:
          config = rows.get_config(row, 0)
          # The authors' 64 or 128 maps, or a quarter.
          maps = (64 if dataset.endswith('mnist') else 128) // (
            1 if full else 4
          )
          self.assertEqual(config.energy.widths, (maps, maps))

  @pytest.mark.slow
  def test_few_labels_of_any_data_set(self):
    rng = np.random.default_rng(0)
    path = self.create_tempdir().full_path + '/svhn.npz'
    images = rng.integers(0, 256, (1100, 16, 16, 3), np.uint8)
    labels = rng.integers(0, 10, 1100)
    np.savez(
      path,
      train_image=images,
      train_label=labels,
      test_image=images[:100],
      test_label=labels[:100],
    )
    plan = self.plan('svhn_cropped', False)._replace(
      npz=path, classifier_steps=5
    )
    config = rows.get_config(vgan.vcd_rows(plan)[0], 0)
    config.data.split = 'train[:1000]'
    found = vgan.few_labels(plan, config, 0, None, 'none')
    # The last 100 images validate, the first 100 test: both in whole per cents.
    for error in found.values():
      self.assertAlmostEqual(error, round(error), places=6)
      self.assertBetween(error, 0, 100)


class VaeTeachingTest(absltest.TestCase):
  def test_rows_evaluate_their_energies_as_often(self):
    for row in vae_teaching.ROWS:
      config = rows.get_config(row, 0)
      self.assertEqual(config.batch_size, 64)
      if config.algorithm != 'gan':
        evaluations = config.step.num_steps + 2  # at data and at samples
        self.assertEqual(evaluations, 22)
        continue
      # At data and samples; WGAN-GP's also between, for the generator at times.
      wgan = config.step.loss == 'wasserstein'
      each = 2 + wgan + 1 / config.step.generator_every
      self.assertAlmostEqual(vae_teaching.GAN_UPDATES * each, 22, delta=1)


class PageTest(absltest.TestCase):
  def test_intervals_by_hand(self):
    # Variances of 1, so the difference has 2 / 3 and 4 degrees: t = 2.776.
    low, high = page.interval([11.0, 12.0, 13.0], [1.0, 2.0, 3.0])
    half = 2.776 * (2 / 3) ** 0.5
    np.testing.assert_allclose((low, high), (10 - half, 10 + half), atol=1e-3)
    self.assertEqual(page.interval([2.0, 2.0], [1.0, 1.0]), (1.0, 1.0))

  def test_verdicts(self):
    high, middle, low = [11.0, 12.0, 13.0], [6.0, 7.0, 8.0], [1.0, 2.0, 3.0]
    self.assertEqual(page.verdict([high, middle, low]), 'reproduced')
    self.assertEqual(page.verdict([high, low, middle]), 'refuted')
    self.assertEqual(page.verdict([high, [11.5, 12.0, 12.1]]), 'open')
    self.assertEqual(page.verdict([high, [1.0]]), 'open: one seed')
    self.assertEqual(page.verdict([high, []]), 'not run')
    self.assertIn('not finite', page.verdict([high, [1.0, np.nan]]))

  def test_a_page_of_two_folders(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    for name in ('rbm', 'recovery'):
      (folder / name).mkdir()
      (folder / name / 'settings.json').write_text('{"steps": 7}')
    rates = [  # the better rate on validation images is the one that counts
      dict(name='SteinCD, phi / n', valid=[[1.0, 1.0]], test=[[5.0, 5.1]]),
      dict(name='SteinCD, phi / n', valid=[[0.0, 0.0]], test=[[9.0, 9.1]]),
      dict(name='CD-10 Langevin', valid=[[0.0, 0.0]], test=[[4.0, 4.1]]),
      dict(name='CD-1 Langevin', valid=[[0.0, 0.0]], test=[[3.0, 3.1]]),
    ]
    (folder / 'rbm' / 'results.json').write_text(json.dumps(dict(main=rates)))
    (folder / 'recovery' / 'table.md').write_text('| a |\n| --- |\n| 1 |\n')
    page.write(folder)
    text = (folder / 'results.md').read_text()
    (first, *_) = [
      line for line in text.splitlines() if 'LW17 Figure 1(a)' in line
    ]
    self.assertIn('| reproduced |', first)
    self.assertIn('5.0', first)
    self.assertNotIn('9.0', first)
    self.assertIn('"steps": 7', text)
    self.assertIn('not run', text)
    html = (folder / 'results.html').read_text()
    self.assertIn('reproduced', html)
    self.assertIn('<td>1</td>', html)

  def test_tables_are_what_was_written(self):
    first, second = [{'': 'a', 'x': '1 ± 2'}], [{'y': '3'}, {'y': ''}]
    text = f'One\n\n{reporting.table(first)}\nTwo\n\n{reporting.table(second)}'
    self.assertEqual(page.tables(text), [('One', first), ('Two', second)])
    self.assertEqual(page.tables(reporting.table(second)), [('', second)])

  def test_a_claim_has_a_line_for_each_folder_with_its_rows(self):
    claim = claims.Claim(
      'Paper', 'b keeps less of y', 'a-b', ('x', 'y'), ('r', 'r'), ('0.9', '')
    )
    kept = [{'x': 0.9, 'y': 0.5}, {'x': 0.91, 'y': 0.51}]
    numbers = {
      'a-b': {'r': kept},
      'a-b-mnist': {'r': [{'x': 1.0}]},
      'a-bc': {'r': kept},
      'a-b-other': {'other': kept},
    }
    lines = page.claim_lines(claim, numbers)
    self.assertEqual(
      [(line['results'], line['verdict']) for line in lines],
      [('a-b', 'reproduced'), ('a-b-mnist', 'not run')],
    )
    self.assertEqual(lines[0]['printed'], '0.9 > ?')
    (line,) = page.claim_lines(claim, {})
    self.assertEqual((line['results'], line['verdict']), ('a-b', 'not run'))

  def test_every_claim_is_of_rows_that_the_scripts_have(self):
    smoke = dict(dataset='mnist', smoke=False, full=False, npz=None)
    plan = lambda module: module.Plan(
      **{field: smoke.get(field) for field in module.Plan._fields}
    )
    names = {
      'cifar10': cifar10.table_rows(plan(cifar10)),
      'vgan': [
        *vgan.probe_rows(plan(vgan)),
        *vgan.vcd_rows(plan(vgan)),
        *vgan.choice_rows(plan(vgan)),
      ],
      'vae-teaching': vae_teaching.ROWS,
      'steingan': [*steingan.figure_rows(), steingan.FROZEN],
      'recovery': recovery.method_rows(plan(recovery)),
      'rbm': rbm.main_rows(
        2, rbm.RATES, {'CD-1 Langevin': 1.0, 'CD-10 Langevin': 1.0}
      ),
    }
    for claim in claims.CLAIMS:
      known = {row.name for row in names[claim.folder]}
      self.assertContainsSubset(claim.order, known)
      self.assertIn(len(claim.printed), (0, len(claim.order)))


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
