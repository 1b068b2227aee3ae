"""Rows of the reproduced tables: what is kept, and how it is written."""

import importlib
import itertools
import pathlib
from unittest import mock

from absl import app
from absl import flags
from absl.testing import absltest
from absl.testing import parameterized
import chex
import jax
import numpy as np
import pytest

from experiments.reproduce import chains
from experiments.reproduce import cifar10
from experiments.reproduce import claims
from experiments.reproduce import page
from experiments.reproduce import rows
from experiments.reproduce import scripts
from experiments.reproduce import vae_teaching
from experiments.reproduce import vgan
from stein_jax import datasets
from stein_jax.runs import launch
from stein_jax.runs import reporting
from stein_jax.runs import training

SCRIPTS = {
  name: importlib.import_module(f'experiments.reproduce.{name}').SCRIPT
  for name in scripts.NAMES
}


def found(row, seed):
  """Returns the result of a run and its images."""
  return {'value': 10.0 + seed, 'text': row.id}, np.full((2, 3), seed)


def toy_script(calls, *, together=False):
  """Returns a script of two rows, which notes what it runs."""
  toy_rows = (
    rows.Row('many', 'a, b = 1'),
    rows.Row('one', 'c', single=not together),
  )

  def run(plan, row, seed):
    del plan
    calls.append((row.id, seed))
    return found(row, seed)

  def run_together(plan, row):
    calls.append(row.id)
    return [found(row, seed) for seed in range(plan.seeds)]

  part = scripts.Part(
    lambda plan: toy_rows, run_together if together else run, together
  )

  def report(plan):
    lines = rows.table(plan.results, toy_rows, {'v': 'value'}, plan.seeds)
    tables = {f'In {plan.options.colour}': lines, 'Nothing': []}
    figures = {'runs/many_0': ('A picture', b'png')}
    return scripts.Report('Toy', tables, figures)

  return scripts.Script(
    'toy',
    steps=scripts.Option(7, 'Steps.', smoke=1, minimum=1),
    seeds=3,
    parts={'first': part},
    report=report,
    options={
      'colour': scripts.Option('red', 'Colour.', choices=('red', 'blue'))
    },
  )


class ScriptsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.calls = []
    self.script = toy_script(self.calls)

  def plan(self, script=None, **values):
    return scripts.plan_of(script or self.script, self.folder, **values)

  def test_a_plan_has_defaults_what_is_given_and_what_smoke_changes(self):
    plan = self.plan(steps=9)
    self.assertEqual((plan.steps, plan.seeds, plan.smoke), (9, 3, False))
    self.assertEqual(plan.options.colour, 'red')
    plan = self.plan(steps=9, smoke=True, colour='blue')
    self.assertEqual((plan.steps, plan.seeds, plan.smoke), (1, 2, True))
    self.assertEqual(plan.options.colour, 'blue')
    with self.assertRaisesRegex(TypeError, 'toy has no colours'):
      self.plan(colours='blue')

  def test_a_finished_run_is_not_run_again(self):
    (part,) = self.script.parts.values()
    scripts.run_all(self.plan(seeds=2), part)
    expected = [('many', 0), ('one', 0), ('many', 1)]
    self.assertEqual(self.calls, expected)
    (row, _) = part.rows(None)
    path = rows.result_path(self.folder, row, 1)
    np.testing.assert_array_equal(np.load(path.with_suffix('.npy')), 1)
    path.unlink()
    scripts.run_all(self.plan(seeds=2), part)
    self.assertEqual(self.calls, [*expected, ('many', 1)])
    values = [r['value'] for r in rows.results(self.folder, row, 2)]
    self.assertEqual(values, [10.0, 11.0])

  def test_seeds_that_are_trained_together_are_run_row_by_row(self):
    script = toy_script(self.calls, together=True)
    (part,) = script.parts.values()
    scripts.run_all(self.plan(script), part)
    self.assertEqual(self.calls, ['many', 'one'])
    (_, row) = part.rows(None)
    rows.result_path(self.folder, row, 2).unlink()
    scripts.run_all(self.plan(script), part)
    self.assertEqual(self.calls, ['many', 'one', 'one'])
    values = [r['value'] for r in rows.results(self.folder, row, 3)]
    self.assertEqual(values, [10.0, 11.0, 12.0])

  def test_seeds_are_added_to_a_folder_and_other_settings_refused(self):
    scripts.claim(self.script, self.plan(seeds=2))
    settings = scripts.claim(self.script, self.plan(seeds=3))
    self.assertEqual((settings['seeds'], settings['steps']), (3, 7))
    with self.assertRaisesRegex(ValueError, "holds results of .*'steps': 7"):
      scripts.claim(self.script, self.plan(steps=8))
    with self.assertRaisesRegex(ValueError, "holds results of .*'toy'"):
      scripts.claim(self.script._replace(name='other'), self.plan())

  def test_seeds_that_are_trained_together_are_part_of_the_settings(self):
    script = toy_script(self.calls, together=True)
    scripts.claim(script, self.plan(script))
    with self.assertRaisesRegex(ValueError, "'seeds': 3"):
      scripts.claim(script, self.plan(script, seeds=4))

  def test_main_runs_and_writes_what_is_there(self):
    others = set(flags.FLAGS)
    main = scripts.main(self.script)
    defined = set(flags.FLAGS) - others
    self.addCleanup(flags.FLAGS.remove_flag_values, defined)
    self.assertEqual(defined, {'results', 'steps', 'seeds', 'smoke', 'colour'})
    self.assertEqual(flags.FLAGS['results'].default, 'results/toy')
    flags.FLAGS['results'].value = str(self.folder)
    flags.FLAGS['colour'].value = 'blue'
    self.enter_context(mock.patch.object(launch, 'set_up'))
    with self.assertRaisesRegex(app.UsageError, 'stray'):
      main(['', 'stray'])
    main([''])
    self.assertLen(self.calls, 4)
    text = (self.folder / 'table.md').read_text('utf-8')
    self.assertStartsWith(text, 'In blue\n\n|  | v | seeds |')
    self.assertNotIn('Nothing', text)
    html = (self.folder / 'report.html').read_text('utf-8')
    for word in ('Toy', 'In blue', 'A picture', 'colour'):
      self.assertIn(word, html)
    self.assertEqual((self.folder / 'runs/many_0.png').read_bytes(), b'png')

  @parameterized.parameters(*scripts.NAMES)
  def test_a_script_has_its_modules_name_and_the_flags_of_all(self, name):
    others = set(flags.FLAGS)
    scripts.main(SCRIPTS[name])
    defined = set(flags.FLAGS) - others
    self.addCleanup(flags.FLAGS.remove_flag_values, defined)
    self.assertContainsSubset({'results', 'steps', 'seeds', 'smoke'}, defined)
    self.assertEqual(flags.FLAGS['results'].default, f'results/{name}')

  @parameterized.parameters(*scripts.NAMES)
  def test_rows_have_ids_of_their_own_and_configs(self, name):
    plan = self.plan(SCRIPTS[name])
    listed = [
      row for part in SCRIPTS[name].parts.values() for row in part.rows(plan)
    ]
    ids = [row.id for row in listed]
    self.assertLen(set(ids), len(ids))
    for row in listed:
      self.assertRegex(row.id, r'^[a-z0-9_.+-]+$')  # a file's name
      if row.config[0]:
        self.assertEqual(rows.get_config(row, 3).seed, 3)


class RowsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def test_table_has_mean_and_interval_of_what_is_there(self):
    row, other = rows.Row('a', 'A'), rows.Row('b', 'B')
    for seed in range(2):
      rows.finish(self.folder, row, seed, found)
    (line,) = rows.table(
      self.folder, [row, other], {'value': 'value', '-': 'no'}, 3
    )
    # 10 and 11: standard error 0.5, of one degree of freedom t = 12.706.
    self.assertEqual(
      line, {'': 'A', 'value': '10.5 ± 6.4', '-': '', 'seeds': 2}
    )

  def test_config_of_a_row(self):
    row = rows.Row(
      'a',
      'A',
      ('gan_mnist', 'smoke'),
      {
        'step.loss': 'minimax',
        'energy_optimizer': dict(name='sgd', learning_rate=0.5),
      },
    )
    config = rows.get_config(row, 7)
    self.assertEqual((config.step.loss, config.seed), ('minimax', 7))
    self.assertEqual(config.energy_optimizer.learning_rate, 0.5)
    for changes in ({'step.los': 'minimax'}, {'energi': {'name': 'RBM'}}):
      with self.assertRaisesRegex((KeyError, TypeError), 'los|energi'):
        rows.get_config(row._replace(changes=changes), 7)

  def test_another_data_set_or_a_file_in_place_of_the_configs(self):
    config = rows.get_config(rows.Row('', '', ('gan_cifar10', '')), 0)
    rows.on_data(config, 'svhn_cropped', None)
    expected = dict(
      name='svhn_cropped',
      split='test',
      pixels='symmetric',
      condition='label',
      dequantize=False,
      binarize=False,
    )
    self.assertEqual(config.evaluation.data.to_dict(), expected)
    rows.on_data(config, 'svhn_cropped', 'svhn.npz')
    expected = dict(
      name='npz',
      path='svhn.npz',
      split='train',
      pixels='symmetric',
      condition='label',
      dequantize=False,
      binarize=False,
    )
    self.assertEqual(config.data.to_dict(), expected)

  def test_schedules_are_as_long_as_the_run(self):
    of = lambda *config: rows.get_config(rows.Row('', '', config), 0)
    # Constant for half of 3,000 steps, then falling for the other half.
    config = rows.with_length(of('steingan_mnist_joint', 'narrow'), 200)
    rate = config.energy_optimizer.learning_rate
    self.assertEqual(config.num_steps, 200)
    self.assertEqual((rate.transition_begin, rate.transition_steps), (100, 100))
    config = rows.with_length(of('classification_cifar10', ''), 10)
    self.assertEqual(config.optimizer.learning_rate.decay_steps, 10)
    config = rows.with_length(of('gan_cifar10', ''), 10)
    self.assertEqual(config.generator_optimizer.learning_rate, 2e-4)

  @pytest.mark.slow
  def test_a_classifier_learns_from_images_and_is_tested_on_real_ones(self):
    row = rows.Row(
      '',
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

  def test_a_table_trains_as_train_does(self):
    config = self.cd_config(prng_impl='hashed', steps_per_call=2)
    expected = training.train(config, self.folder / 'run')
    state, seen = rows.train(
      config, 4, 'test', every=2, look=lambda state: int(state.step)
    )
    self.assertSameLeaves(state, expected)
    self.assertEqual(seen, [2, 4])

  def test_training_goes_on_from_a_state_on_another_source(self):
    config = self.cd_config()
    whole, _ = rows.train(config, 4, 'test')
    half, _ = rows.train(config, 2, 'test')
    state, _ = rows.train(config, 4, 'test', state=half)
    self.assertSameLeaves(state, whole)
    source = datasets.load(**config.evaluation.data)
    other, _ = rows.train(config, 4, 'test', source=source)
    with self.assertRaises(AssertionError):
      self.assertSameLeaves(other, whole)

  def cd_config(self, **changes):
    config = ('contrastive_divergence_mnist', 'smoke')
    return rows.get_config(rows.Row('cd', '', config, changes), 5)

  def assertSameLeaves(self, tree, other):
    chex.assert_trees_all_equal(*map(jax.tree.leaves, (tree, other)))


class Cifar10Test(absltest.TestCase):
  def test_networks_of_a_part_of_the_width(self):
    get = lambda name: rows.get_config(rows.Row('', '', (name, '')), 0)
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
      plan = scripts.plan_of(cifar10.SCRIPT, '', dataset=dataset)
      table = cifar10.table_rows(plan)
      self.assertEqual({row.name for row in table}, names)
      for row in table:
        config = cifar10.config_of(plan, row, 3)
        self.assertEqual(config.data.name, dataset)


class VganTest(absltest.TestCase):
  def test_rows_are_the_tables(self):
    for dataset, full in itertools.product(vgan.VCD, (False, True)):
      plan = scripts.plan_of(vgan.SCRIPT, '', dataset=dataset, full=full)
      learned = [row.name for row in vgan.probe_rows(plan) if '=' in row.name]
      self.assertEqual(learned, list(vgan.PRINTED_FEATURES))
      table = vgan.vcd_rows(plan)
      printed = list(vgan.PRINTED_AUGMENTATION)
      if dataset == 'cifar10':
        printed.remove('no augmentation')
      self.assertEqual([row.name for row in table], printed)
      # The authors' 64 or 128 maps, or a quarter.
      maps = (64 if dataset.endswith('mnist') else 128) // (1 if full else 4)
      for row in table:
        config = vgan.config_of(plan, row, 0)
        self.assertEqual(config.energy.widths, (maps, maps))

  def test_augmented_images_are_drawn_anew(self):
    config = rows.get_config(rows.Row('', '', ('vcd_mnist', 'smoke')), 0)
    source = datasets.load(**config.data)
    operator = rows.train(config, 0, 'test', source=source)[0].generator
    augmented = vgan.Augmented(source, operator, 0)
    self.assertLen(augmented, len(source))
    first, second = (augmented[np.arange(3)] for _ in range(2))
    np.testing.assert_array_equal(first['image'], second['image'])
    self.assertEqual(first['augmented'].shape, first['image'].shape)
    self.assertTrue(np.any(first['augmented'] != second['augmented']))

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
    plan = scripts.plan_of(
      vgan.SCRIPT, '', dataset='svhn_cropped', npz=path, classifier_steps=5
    )
    config = rows.get_config(vgan.vcd_rows(plan)[0], 0)
    config.data.split = 'train[:1000]'
    errors = vgan.few_labels(plan, config, None, 'none')
    # The last 100 images validate, the first 100 test: both in whole per cents.
    for error in errors.values():
      self.assertAlmostEqual(error, round(error), places=6)
      self.assertBetween(error, 0, 100)


class VaeTeachingTest(absltest.TestCase):
  def test_rows_evaluate_their_energies_as_often(self):
    for row in vae_teaching.ROWS:
      config = rows.get_config(row, 0)
      self.assertEqual(config.batch_size, 64)
      if config.algorithm != 'gan':
        evaluations = config.step.chain.num_steps + 2  # at data and at samples
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

  def test_a_page_finds_the_folders_of_a_script_by_its_settings(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    claim = next(c for c in claims.CLAIMS if c.script == 'rbm')
    for name, script in (('any-name', 'rbm'), ('rbm', 'other')):
      reporting.claim(folder / name, {'script': script, 'steps': 7})
      for place, key in enumerate(claim.order):
        for seed in range(2):
          value = (7.0 if script == 'rbm' else 900.0) - place + 0.1 * seed
          result = {claim.key: value}
          rows.keep(folder / name, rows.Row(key, key), seed, result, None)
    (folder / 'rbm' / 'table.md').write_text('| a |\n| --- |\n| 1 |\n')
    page.write(folder)
    text = (folder / 'results.md').read_text()
    (first, *_) = [line for line in text.splitlines() if claim.says in line]
    self.assertIn('| reproduced |', first)
    self.assertIn('| any-name |', first)
    self.assertIn('7.0', first)
    self.assertNotIn('900.0', text)
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
      'Paper', 'b keeps less of y', 'a', ('x', 'y'), ('r', 'r'), ('0.9', '')
    )
    kept = [{'x': 0.9, 'y': 0.5}, {'x': 0.91, 'y': 0.51}]
    runs = {
      'one': page.Runs('a', {'r': kept}),
      'two': page.Runs('a', {'r': [{'x': 1.0}]}),
      'a': page.Runs('b', {'r': kept}),
      'three': page.Runs('a', {'other': kept}),
    }
    lines = page.claim_lines(claim, runs)
    self.assertEqual(
      [(line['results'], line['verdict']) for line in lines],
      [('one', 'reproduced'), ('two', 'not run')],
    )
    self.assertEqual(lines[0]['printed'], '0.9 > ?')
    (line,) = page.claim_lines(claim, {})
    self.assertEqual((line['results'], line['verdict']), ('', 'not run'))

  def test_every_claim_is_of_rows_that_a_script_has(self):
    for claim in claims.CLAIMS:
      script = SCRIPTS[claim.script]
      plan = scripts.plan_of(script, '')
      known = {
        row.id for part in script.parts.values() for row in part.rows(plan)
      }
      self.assertContainsSubset(claim.order, known)
      self.assertIn(len(claim.printed), (0, len(claim.order)))
      if not isinstance(claim.key, str):
        self.assertLen(claim.key, len(claim.order))


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
