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

from experiments.reproduce import budgets
from experiments.reproduce import chains
from experiments.reproduce import cifar10
from experiments.reproduce import claims
from experiments.reproduce import image_energies
from experiments.reproduce import page
from experiments.reproduce import recovery
from experiments.reproduce import rows
from experiments.reproduce import scripts
from experiments.reproduce import stored
from experiments.reproduce import vae_teaching
from experiments.reproduce import verdicts
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

  def test_parts_that_must_be_asked_for(self):
    (part,) = self.script.parts.values()
    parts = {'usual': part, 'long': part._replace(asked=True)}
    others = set(flags.FLAGS)
    scripts.main(self.script._replace(parts=parts))
    self.addCleanup(flags.FLAGS.remove_flag_values, set(flags.FLAGS) - others)
    self.assertEqual(flags.FLAGS['part'].default, ['usual'])

  def test_every_script_is_named(self):
    folder = pathlib.Path(scripts.__file__).parent
    found = {
      path.stem
      for path in folder.glob('*.py')
      if 'SCRIPT = ' in path.read_text('utf-8')
    }
    self.assertEqual(set(scripts.NAMES), found)

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
      self.assertEqual(kept['image'].dtype, np.uint8)

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
      updates = vae_teaching.GAN_UPDATES if config.algorithm == 'gan' else 1
      # 20 steps of a chain, and the update at data and at samples.
      self.assertAlmostEqual(updates * budgets.evaluations(config), 22, delta=1)


class ImageEnergiesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    script = image_energies.SCRIPT
    self.plan = scripts.plan_of(script, self.create_tempdir().full_path)
    # In the place of images, which not all machines have: shapes are asked for.
    arrays = {
      f'{split}_{name}': np.zeros((num, *shape), np.uint8)
      for split, num in (('train', 50_100), ('test', 100))
      for name, shape in (('image', (28, 28, 1)), ('label', ()))
    }
    for name in ('in_noise', 'foreign_in_noise'):
      np.savez_compressed(self.plan.results / f'{name}.npz', **arrays)

  def test_rows_evaluate_one_energy_as_often(self):
    sizes = {}
    for row in image_energies.ROWS[:-1]:
      config = image_energies.trained(self.plan, row)
      self.assertEqual(config.batch_size, 64)
      spent = config.num_steps * budgets.evaluations(config)
      self.assertAlmostEqual(spent, 22 * self.plan.steps, delta=12)
      sizes[row.id] = budgets.parameters(config)['energy']
    # 5x5 and 3x3 convolutions to 16, 32 and 64 maps, of which 4x4 pixels are left.
    energy = 25 * 16 + 9 * (16 * 32 + 32 * 64) + 112 + 4 * 4 * 64 + 1
    # The level is a second channel.
    self.assertEqual(sizes.pop('denoising'), energy + 25 * 16)
    self.assertEqual(set(sizes.values()), {energy})

  def test_noise_is_about_half_of_the_contrast(self):
    images = np.repeat(np.array([0.0, 1.0], np.float32), 10_000)
    found = image_energies.in_noise(images, np.random.default_rng(0))
    symmetric = found.reshape(2, -1) / 127.5 - 1
    np.testing.assert_allclose(symmetric.mean(1), [-0.5, 0.5], atol=0.01)
    np.testing.assert_allclose(symmetric.std(1), 0.15, atol=0.005)

  def test_a_trial_that_went_bad_is_not_chosen(self):
    row, (first, second) = image_energies.ROWS[0], image_energies.RATES
    for rate, found in ((first, {}), (second, {'frechet_distance': 9.0})):
      trial = row._replace(id=f'{row.id}-{rate:g}')
      folder = self.plan.results / 'trials'
      rows.keep(folder, trial, image_energies.TRIAL_SEED, found, None)
    self.assertEqual(image_energies.chosen(self.plan, row), second)

  @parameterized.parameters(
    ([1.0, -2.0], 0.0, True, True),
    ([1.0, -10.1 * 784], 0.0, True, False),
    ([1.0, np.nan], 0.0, False, False),
    ([1.0, 2.0], np.inf, False, False),
  )
  def test_stability(self, gaps, pixel, is_finite, is_stable):
    run = image_energies.Run(None, np.full((2, 28, 28, 1), pixel), gaps, 0.0)
    self.assertEqual((run.is_finite, run.is_stable), (is_finite, is_stable))

  def test_the_table_says_where_no_log_z_is_told(self):
    row = image_energies.ROWS[0]
    for seed, found in enumerate(({'nats': 1.0, 'stable': 1}, {'stable': 0})):
      rows.keep(self.plan.results, row, seed, found, None)
    rows.keep(self.plan.results, image_energies.ROWS[1], 0, {'stable': 1}, None)
    first, second = image_energies.table(self.plan)
    self.assertEqual((first['stable'], first['log Z told']), ('1 of 2',) * 2)
    self.assertEqual(first['test nats an image'], '1')
    self.assertEqual(second['test nats an image'], 'not told')


class VerdictsTest(parameterized.TestCase):
  def test_samples_by_hand(self):
    # Deviations from 2 are -1, 0 and 1: 2 / (3 - 1) = 1.
    self.assertEqual(verdicts.sample([1.0, 2.0, 3.0]), (2.0, 1.0, 3))
    one = verdicts.sample([5.0])
    self.assertEqual((one.mean, one.num), (5.0, 1))
    self.assertTrue(np.isnan(one.deviation))
    # t = 4.3027 at two degrees, so the half width of deviation 1 is 4.3027 / 3^0.5.
    half = 4.302653 / 3**0.5
    self.assertAlmostEqual(
      verdicts.interval(verdicts.Sample(2.0, 1.0, 3)), half, places=5
    )
    mean, deviation, num = verdicts.from_interval(2.0, half, 3)
    self.assertEqual((mean, num), (2.0, 3))
    self.assertAlmostEqual(deviation, 1.0, places=5)

  def test_welch_by_the_literal_formula(self):
    larger, smaller = [11.0, 12.0, 13.0], [1.0, 2.0, 4.0, 5.0]
    # Variances 1 and 10 / 3, of 3 and 4 runs.
    parts = 1 / 3, 10 / 12
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 2 + parts[1] ** 2 / 3)
    error = sum(parts) ** 0.5
    # The density of Student's t, integrated by a sum.
    t = np.linspace(-3000, 3000, 6_000_001)
    density = (1 + t**2 / freedom) ** (-(freedom + 1) / 2)
    density /= density.sum()
    at = 9.0 / error
    found = verdicts.welch(verdicts.sample(larger), verdicts.sample(smaller))
    self.assertAlmostEqual(found.mean, 9.0)
    np.testing.assert_allclose(found.p, density[abs(t) >= at].sum(), rtol=2e-3)
    within = abs(t) <= (found.high - found.mean) / error
    self.assertAlmostEqual(density[within].sum(), 0.95, places=4)
    self.assertAlmostEqual(found.high - 9.0, 9.0 - found.low)

  def test_welch_of_equal_variances(self):
    # Variances of 1, so the difference has 2 / 3 and 4 degrees: t = 2.776.
    found = verdicts.welch(
      verdicts.sample([11.0, 12.0, 13.0]), verdicts.sample([1.0, 2.0, 3.0])
    )
    half = 2.776 * (2 / 3) ** 0.5
    np.testing.assert_allclose(
      (found.low, found.high), (10 - half, 10 + half), atol=1e-3
    )
    same = verdicts.sample([2.0, 2.0])
    apart = verdicts.welch(same, verdicts.sample([1.0, 1.0]))
    self.assertEqual(apart, (1.0, 1.0, 1.0, 0.0))
    self.assertEqual(verdicts.welch(same, same).p, 1.0)

  def test_holm_by_hand(self):
    # Of four, sorted 0.005, 0.01, 0.03, 0.04: times 4, 3, 2, 1 these are 0.02, 0.03,
    # 0.06 and 0.04, and the last is no less than the one before it.
    np.testing.assert_allclose(
      verdicts.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02]
    )
    np.testing.assert_allclose(verdicts.holm([0.5, 0.6]), [1.0, 1.0])
    np.testing.assert_allclose(verdicts.holm([0.02]), [0.02])
    self.assertEqual(verdicts.holm([]), [])

  @parameterized.parameters(
    (1.0, 0.05, True, 'reproduced'),
    (1.0, 0.051, True, 'open'),
    (-1.0, 0.01, True, 'refuted at this scale'),
    (-1.0, 0.01, False, 'refuted'),
    (-1.0, float('nan'), False, 'open'),
  )
  def test_verdicts(self, mean, p, reduced, expected):
    self.assertEqual(verdicts.verdict(mean, p, reduced=reduced), expected)

  def test_runs_that_would_decide(self):
    # A difference of 1 with deviations of 1: of n runs each t is (n / 2)^0.5 at 2 n - 2
    # degrees. 2 at n = 8 is below 2.145, and 2.121 at n = 9 is above 2.120.
    larger, smaller = verdicts.Sample(1.0, 1.0, 3), verdicts.Sample(0.0, 1.0, 3)
    self.assertEqual(verdicts.runs_needed(larger, smaller), 9)
    self.assertIsNone(verdicts.runs_needed(larger, larger._replace(mean=0.999)))


def runs(found, **fields):
  """Returns the runs of a setting of script 'a', by row and the name of a number."""

  def sample(row, key):
    values = found.get(row, {}).get(key)
    return values and verdicts.sample(values)

  return page.Runs('a', 'here', sample, **fields)


class PageTest(absltest.TestCase):
  claim = claims.Claim(
    'Paper', 'r is above s', 'a', 'x', ('r', 's'), ('0.9', '')
  )
  high, low = [11.0, 12.0, 13.0], [1.0, 2.0, 3.0]

  def said(self, r, s, claim=None, **fields):
    found = runs({'r': {'x': r}, 's': {'x': s}}, **fields)
    (line,) = page.claim_lines([claim or self.claim], [found])
    return line

  def test_a_line_has_all_that_follows_from_the_runs(self):
    line = self.said(
      self.high, self.low, command='make', budget=lambda row: f'{row} updates'
    )
    self.assertEqual(line['by itself'], 'reproduced')
    self.assertEqual(line['under Holm'], 'reproduced')
    self.assertEqual(line['here'], '12.0 ± 2.5 > 2.0 ± 2.5')
    self.assertEqual(line['printed'], '0.9 > ?')
    self.assertEqual(line['seeds'], '3, 3')
    self.assertEqual(line['difference'], '[7.73, 12.3]')
    # t is 10 / (2 / 3)^0.5 = 12.25 at four degrees.
    self.assertEqual(line['p (Welch)'], '0.00026')
    self.assertEqual(line['budget'], 'r updates against s updates')
    self.assertEqual((line['setting'], line['command']), ('here', 'make'))

  def test_small_runs_refute_at_their_scale(self):
    line = self.said(self.low, self.high)
    self.assertEqual(line['by itself'], 'refuted at this scale')
    line = self.said(self.low, self.high, reduced=False)
    self.assertEqual(line['by itself'], 'refuted')
    full = self.claim._replace(full=True)
    line = self.said(self.low, self.high, claim=full)
    self.assertEqual(line['by itself'], 'refuted')

  def test_what_is_open_says_what_would_settle_it(self):
    line = self.said(self.high, [11.0, 12.0, 12.5], cost='a minute a run')
    self.assertRegex(
      line['by itself'], r'^open: \d+ seeds of each .*; a minute a run$'
    )
    self.assertEqual(line['under Holm'], 'open')
    line = self.said(self.high, [1.0], cost='a minute a run')
    self.assertIn('open: one seed; two more', line['by itself'])
    self.assertEqual(line['p (Welch)'], '')
    claim = self.claim._replace(settles='an hour of a core')
    line = self.said(self.high, None, claim=claim)
    self.assertEqual(line['by itself'], 'open: s not run; an hour of a core')
    self.assertIn('not finite', self.said(self.high, [np.nan] * 2)['by itself'])

  def test_failed_models_decide_nothing(self):
    bar = claims.Bar('s', 5.0, 'x', 'it learned nothing')
    claim = self.claim._replace(bar=bar)
    line = self.said(self.high, self.low, claim=claim)
    self.assertEqual(
      line['by itself'],
      'not testable: it learned nothing (2 is not above 5)',
    )
    self.assertEqual(line['under Holm'], 'not testable')
    claim = self.claim._replace(bar=bar._replace(above='r', below='s'))
    self.assertEqual(
      self.said(self.high, self.low, claim=claim)['by itself'], 'reproduced'
    )
    claim = self.claim._replace(bar=bar._replace(above='absent'))
    self.assertEqual(
      self.said(self.high, self.low, claim=claim)['by itself'], 'reproduced'
    )
    line = self.said(self.high, self.low, failed={'s': 'it broke'})
    self.assertEqual(line['by itself'], 'not testable: it broke')

  def test_a_family_is_all_that_is_tested_on_the_page(self):
    # By itself p is some 0.03, of three tested lines 0.09; what is not tested does not
    # count.
    near = [1.0, 2.0, 3.0], [3.6, 4.5, 5.4]
    claim = self.claim._replace(order=('s', 'r'))
    found = runs({'r': {'x': near[0]}, 's': {'x': near[1]}})
    (alone,) = page.claim_lines([claim], [found])
    self.assertEqual(alone['under Holm'], 'reproduced')
    lines = page.claim_lines([claim] * 3, [found])
    self.assertEqual({line['by itself'] for line in lines}, {'reproduced'})
    self.assertEqual({line['under Holm'] for line in lines}, {'open'})
    absent = claim._replace(order=('s', 'absent'))
    lines = page.claim_lines([claim, absent, absent], [found])
    self.assertEqual(lines[0]['under Holm'], 'reproduced')

  def test_counts_need_no_seeds(self):
    claim = self.claim._replace(exact=True)
    line = self.said([17_000_000], [10_000_000], claim=claim)
    self.assertEqual(line['here'], '17,000,000 > 10,000,000')
    self.assertStartsWith(line['by itself'], 'reproduced: a count')
    line = self.said([1], [2], claim=claim)
    self.assertStartsWith(line['by itself'], 'refuted: a count')
    self.assertEqual(line['p (Welch)'], '')

  def test_a_claim_has_a_line_for_each_setting_with_its_rows(self):
    claim = self.claim._replace(key=('x', 'y'), order=('r', 'r'))
    kept = {'x': [0.9, 0.91], 'y': [0.5, 0.51]}
    found = [
      runs({'r': kept})._replace(setting='one'),
      runs({'r': {'x': [1.0, 1.1]}})._replace(setting='two'),
      runs({'r': kept})._replace(script='b'),
      runs({'other': kept}),
    ]
    lines = page.claim_lines([claim], found)
    self.assertEqual([line['setting'] for line in lines], ['one', 'two'])
    self.assertEqual(lines[0]['by itself'], 'reproduced')
    self.assertIn('not run', lines[1]['by itself'])
    (line,) = page.claim_lines([claim], [])
    self.assertEqual((line['setting'], line['seeds']), ('', '0, 0'))

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
    # An RBM of 784 pixels and 10 units; SteinCD has a step of SVGD beside data and
    # samples, CD-10 ten.
    size = 784 * 10 + 784 + 10
    self.assertIn(
      f'| 7 × 3; {size:,} + 0 against 7 × 12; {size:,} + 0 |', first
    )
    self.assertIn('experiments.reproduce.rbm --steps=7', first)
    self.assertNotIn('900.0', text)
    self.assertIn('"steps": 7', text)
    self.assertIn('not run', text)
    html = (folder / 'results.html').read_text()
    self.assertIn('reproduced', html)
    self.assertIn('<td>1</td>', html)

  def test_the_papers_own_size(self):
    full = {'dataset': 'mnist', 'steps': 10_000, 'seeds': 2}
    self.assertFalse(page.is_reduced('rbm', full))
    self.assertTrue(page.is_reduced('rbm', {**full, 'steps': 3_000}))
    self.assertTrue(page.is_reduced('vae_teaching', {'steps': 750_000}))

  def test_tables_are_what_was_written(self):
    first, second = [{'': 'a', 'x': '1 ± 2'}], [{'y': '3'}, {'y': ''}]
    text = f'One\n\n{reporting.table(first)}\nTwo\n\n{reporting.table(second)}'
    self.assertEqual(page.tables(text), [('One', first), ('Two', second)])
    self.assertEqual(page.tables(reporting.table(second)), [('', second)])

  def test_every_claim_is_of_rows_that_a_script_has(self):
    for claim in claims.CLAIMS:
      known = ids_of(claim.script)
      self.assertContainsSubset(claim.order, known)
      self.assertLen(claim.order, 2)
      self.assertIn(len(claim.printed), (0, 2))
      if claim.bar:
        ends = (claim.bar.above, claim.bar.below)
        self.assertContainsSubset(
          [end for end in ends if isinstance(end, str)], known
        )
      if not isinstance(claim.key, str):
        self.assertLen(claim.key, 2)

  def test_no_claim_stands_twice(self):
    said = [claim.says + claim.source for claim in claims.CLAIMS]
    self.assertLen(set(said), len(said))


def ids_of(script):
  """Returns the ids of a script's rows, over all of its data sets."""
  script = SCRIPTS[script]
  datasets_of = script.options.get('dataset')
  return {
    row.id
    for dataset in (datasets_of.choices if datasets_of else (None,))
    for plan in [
      scripts.plan_of(script, '', **({'dataset': dataset} if dataset else {}))
    ]
    for part in script.parts.values()
    for row in part.rows(plan)
  }


class StoredTest(parameterized.TestCase):
  @parameterized.parameters(
    ('4.07 (4.30, 3.82, 4.11)', (4.30, 3.82, 4.11)),
    ('98.4, 98.6, 98.3', (98.4, 98.6, 98.3)),
    ('33 ± 114 (0.6, 85.3, 11.8)', (0.6, 85.3, 11.8)),
    ('17,232,768', (17232768,)),
    ('96.2 %', (96.2,)),
  )
  def test_cells_of_single_seeds(self, cell, values):
    found = stored.read(cell, 5)
    self.assertEqual(found.num, len(values))
    self.assertAlmostEqual(found.mean, np.mean(values))
    if len(values) > 1:
      self.assertAlmostEqual(found.deviation, np.std(values, ddof=1))

  def test_cells_of_intervals(self):
    # t at four degrees is 2.776: the deviation is 0.15 * 5^0.5 / 2.776.
    found = stored.read('-744.63 ± 0.15', 5)
    self.assertEqual((found.mean, found.num), (-744.63, 5))
    self.assertAlmostEqual(found.deviation, 0.15 * 5**0.5 / 2.776, places=4)
    self.assertIsNone(stored.read('', 3))

  def test_every_row_of_a_table_is_there_and_its_scripts(self):
    for table in stored.TABLES:
      self.assertContainsSubset(table.names, ids_of(table.script))
      found = [
        stored.sample(table, row, key)
        for row in table.names
        for key in table.heads
      ]
      self.assertTrue(any(found), table.setting)
      settings = {k: v for k, v in table.settings.items() if k != 'part'}
      plan = scripts.plan_of(SCRIPTS[table.script], '', **settings)
      self.assertEqual(plan.seeds, SCRIPTS[table.script].seeds)
    names = [table.setting for table in stored.TABLES]
    self.assertLen(set(names), len(names))

  def test_the_page_is_what_the_tables_say(self):
    text = (stored.FOLDER / 'claims.md').read_text('utf-8')
    there = dict(page.tables(text))['## Verdicts']
    with mock.patch.object(page, 'budget', return_value='') as counted:
      lines = stored.claim_lines()
    self.assertGreater(counted.call_count, len(lines))
    shown = set(there[0]) - {'budget'}
    self.assertEqual(
      [{name: line[name] for name in shown} for line in there],
      [{name: line[name] for name in shown} for line in lines],
    )
    self.assertIn(stored.counts(lines), text)

  def test_the_difference_of_figure_1a_by_hand(self):
    # -744.63 ± 0.15 against -743.57 ± 0.04 over five seeds: 1.06 less, whose error is
    # (0.15^2 + 0.04^2)^0.5 / 2.776 = 0.0559, at 4.6 degrees, where t is 2.65.
    line = next(
      line
      for line in stored.claim_lines(stored.TABLES[:1])
      if line['claim'] == 'SteinCD is above CD-10 in test likelihood'
    )
    low, high = map(float, line['difference'][1:-1].split(', '))
    np.testing.assert_allclose(
      (low, high), (-1.06 - 0.148, -1.06 + 0.148), atol=3e-3
    )
    self.assertEqual(line['by itself'], 'refuted')

  def test_the_mean_alone_is_the_stored_one(self):
    lines = stored.stored('rbm', 1)
    (mean,) = [
      line for line in lines if line['learned by'] == 'N(training mean, I)'
    ]
    self.assertEqual(float(mean['test (nats)']), claims.MEAN_ALONE)


class BudgetsTest(parameterized.TestCase):
  def config(self, name, scale='', **changes):
    return rows.get_config(rows.Row('', '', (name, scale), changes), 0)

  def test_parameters_by_hand(self):
    config = self.config('steingan_mnist', 'centred')
    found = budgets.parameters(config)
    # Ten units of 784 pixels, and the biases of both; the mean is not trained.
    self.assertEqual(found['energy'], 784 * 10 + 784 + 10)
    # The widths are an eighth: dense 100-128-784, deconvolutions 5x5 16-8-1, without
    # biases and gains.
    weights = 100 * 128 + 128 * 784 + 25 * 16 * 8 + 25 * 8
    self.assertEqual(found['generator'], weights)

  @parameterized.parameters(
    ('stein_cd_mnist', {'step.num_steps': 5}, 7),
    ('contrastive_divergence_mnist', {'step.chain.num_steps': 10}, 12),
    ('steingan_mnist', {}, 3),
    ('vgan_mnist', {'step.num_generator_steps': 3}, 5),
    ('steingan_mnist', {'step.chain.num_steps': 20}, 23),
    ('gan_mnist', {}, 3),
    ('recovery_likelihood_mnist', {'step.chain.num_steps': 20}, 22),
    ('noise_contrastive_toy', {'step.num_noise': 6}, 7),
    ('noise_contrastive_toy', {'step.objective': 'self'}, 2),
    ('score_matching_mnist', {}, 2),
    ('score_matching_mnist', {'step.objective': 'denoising'}, 1),
    ('vera_toy', {}, 4),
    ('vera_toy', {'step.gradient_penalty': 0.0}, 3),
    ('vae_facades', {}, 0),
    ('bicycle_gan_facades', {}, 6),
  )
  def test_evaluations_of_an_update(self, name, changes, expected):
    self.assertEqual(
      budgets.evaluations(self.config(name, **changes)), expected
    )

  def test_every_claimed_row_that_is_trained_has_a_budget(self):
    for claim in claims.CLAIMS:
      script = SCRIPTS[claim.script]
      dataset = {'cifar10': 'mnist'}.get(claim.script)
      plan = scripts.plan_of(
        script, '', **({'dataset': dataset} if dataset else {})
      )
      for part in script.parts.values():
        for row in part.rows(plan):
          # The discriminator of that row is widened until it is as large.
          if row.id in claim.order and row.id != 'dcgan-matched':
            config = script.trained(plan, row)
            if config is not None:
              self.assertGreaterEqual(budgets.evaluations(config), 0)

  def test_a_discriminator_as_large_as_the_energy(self):
    plan = scripts.plan_of(
      cifar10.SCRIPT, '', dataset='mnist', width=8, steps=10
    )
    energy, matched = (
      budgets.parameters(cifar10.trained(plan, row))['energy']
      for row in cifar10.matched_rows(plan)
    )
    # An eighth more width is at most some 1.3 times the parameters.
    self.assertBetween(matched, energy, 1.3 * energy)


class RecoveryTest(absltest.TestCase):
  def test_a_hidden_part_is_continued_smoothly(self):
    y, x = np.mgrid[:9, :11].astype(np.float64)
    # What is linear in each direction is the mean of its neighbours.
    image = np.stack([2 * x + 3 * y, x * y], -1)
    known = np.ones((9, 11))
    known[3:6, 2:8] = 0
    seen = np.where(known[..., None] == 1, image, -1.0)
    np.testing.assert_allclose(
      recovery.continued(seen, known), image, atol=1e-9
    )


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
