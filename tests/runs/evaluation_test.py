"""What is measured of a finished run, and its report."""

import functools
import json
import pathlib
import types
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
from ml_collections import ConfigDict
import numpy as np
import optax
import pytest

from stein_jax import datasets
from stein_jax import energies
from stein_jax import learners
from stein_jax import metrics
from stein_jax.runs import configs
from stein_jax.runs import evaluation
from stein_jax.runs import training
from tests import smoke


class OfLabelsTest(absltest.TestCase):
  def metrics_of(self, **energy):
    config = smoke.get_config('langevin_ebm_mnist')
    fields = configs.plain(config) | dict(energy=energy, num_chains=0)
    config = configs.complete(fields)
    _, state, _ = smoke.begin(config)
    source = datasets.load(**config.evaluation.data)
    return evaluation.test_metrics(config, state, source), state.energy, source

  def test_an_energy_that_classifies_is_tested_as_a_classifier(self):
    found, energy, source = self.metrics_of(
      name='MarginalLabel', classifier=dict(widths=(2,), dense=3)
    )
    rows = source[:]
    logits = learners.call(
      energy, energy.params, rows['image'], method='logits'
    )
    self.assertEqual(
      found,
      {
        'test/accuracy': metrics.accuracy(logits, rows['label']),
        'test/calibration_error': metrics.calibration_error(
          logits, rows['label']
        ),
      },
    )

  def test_others_are_not(self):
    self.assertEqual(self.metrics_of(name='RBM', num_hidden=2)[0], {})


class RecoveredTest(parameterized.TestCase):
  """Images of one value in [-1, 1]: a luminance alone, without a structure."""

  section = dict(name='synthetic', pixels='symmetric')

  def constant(self, *values):
    ones = np.ones((len(values), 12, 12, 1), np.float32)
    return ones * np.reshape(2 * np.array(values) - 1, (-1, 1, 1, 1))

  def test_by_hand(self):
    # Off by 0.1 and, once cut to 1, by 0.05: 20 dB, and 10 log10(400).
    data, samples = self.constant(0.5, 0.95), self.constant(0.6, 1.3)
    found = evaluation.recovered(samples, {'image': data}, self.section)
    decibels = (20 + 26.0206) / 2
    # Without variances (2 a b + K_1^2) / (a^2 + b^2 + K_1^2) is left.
    similarity = [0.6001 / 0.6101, 1.9001 / (0.95**2 + 1.0001)]
    self.assertEqual(set(found), {'samples/psnr', 'samples/ssim'})
    self.assertAlmostEqual(found['samples/psnr'], decibels, delta=1e-3)
    self.assertAlmostEqual(
      found['samples/ssim'], np.mean(similarity), delta=1e-5
    )

  def test_pasted(self):
    # Half of the pixels are known: half the squared error is left, 3.0103 dB.
    data, samples = self.constant(0.5, 0.5), self.constant(0.6, 0.4)
    mask = np.zeros_like(data)
    mask[:, :6] = 1
    batch = {'image': data, 'mask': mask}
    found = evaluation.recovered(samples, batch, self.section)
    self.assertAlmostEqual(found['samples/psnr'], 20, delta=1e-3)
    self.assertAlmostEqual(found['samples/psnr_pasted'], 23.0103, delta=1e-3)
    self.assertBetween(found['samples/ssim'], 0, 0.99)
    self.assertNotEqual(found['samples/ssim_pasted'], found['samples/ssim'])
    all_known = {**batch, 'mask': np.ones_like(mask)}
    found = evaluation.recovered(samples, all_known, self.section)
    # Variances are at least 1e-14 to the package, beside C_2 = 9e-4.
    self.assertAlmostEqual(found['samples/ssim_pasted'], 1, delta=1e-10)
    self.assertEqual(found['samples/psnr_pasted'], np.inf)
    none_known = {**batch, 'mask': np.zeros_like(mask)}
    found = evaluation.recovered(samples, none_known, self.section)
    for name in ('psnr', 'ssim'):
      self.assertEqual(
        found[f'samples/{name}_pasted'], found[f'samples/{name}']
      )

  @parameterized.parameters(np.nan, 0.5, 255)
  def test_a_mask_of_other_values(self, value):
    data = self.constant(0.5)
    batch = {'image': data, 'mask': np.full_like(data, value)}
    with self.assertRaisesRegex(ValueError, 'mask must be 0'):
      evaluation.recovered(data, batch, self.section)


class SamplerTest(parameterized.TestCase):
  @parameterized.parameters((3, 3), (8, 5))
  def test_one_sample_for_each_condition(self, asked, given):
    condition = np.arange(20, dtype=np.float32).reshape(5, 2, 2, 1) / 20
    source = datasets.Arrays({'image': condition, 'condition': condition})
    drawn = self.sampler(source, asked)(7)
    self.assertEqual(drawn['num'], given)
    self.assertEqual(drawn['num_steps'], 2)
    np.testing.assert_array_equal(drawn['condition'], condition[:given])
    self.assertEqual(drawn['state'], 7)

  def test_as_many_as_asked_without(self):
    source = datasets.Arrays({'image': np.zeros((5, 2, 2, 1), np.float32)})
    drawn = self.sampler(source, 8)(7)
    self.assertEqual(drawn['num'], 8)
    self.assertIsNone(drawn['condition'])

  def test_labels_are_left_to_the_algorithm(self):
    images = np.zeros((5, 2, 2, 1), np.float32)
    source = datasets.Arrays({'image': images, 'label': np.arange(5)})
    drawn = self.sampler(source.conditioned_on_labels(), 8)(7)
    self.assertEqual(drawn['num'], 8)
    self.assertIsNone(drawn['condition'])

  def test_nothing_to_draw(self):
    source = datasets.Arrays({'image': np.zeros((5, 2))})
    config = smoke.get_config('classification_mnist')
    self.assertIsNone(evaluation.sampler(config, source)(7))

  def sampler(self, source, asked):
    """Returns the sampler of an algorithm that returns what it is given."""

    def sample(state, rng, num, *, num_steps, condition=None):
      del rng
      return dict(
        state=state, num=num, num_steps=num_steps, condition=condition
      )

    config = types.SimpleNamespace(
      seed=0,
      evaluation=ConfigDict(dict(num_samples=asked, parameters='last')),
    )
    draw = functools.partial(sample, num_steps=2)
    with mock.patch.object(configs, 'sample', lambda config: draw):
      return evaluation.sampler(config, source)


class RefusedTest(parameterized.TestCase):
  """What a command asks of a run that has it not is one sentence."""

  @parameterized.parameters(
    ('exact', True, "='exact' does not fit.*no method log_part.*'ais'.*'none'"),
    ('exact', False, "='exact' needs an energy, and stein_cd learns none"),
    ('ais', False, "='ais' needs an energy"),
  )
  def test_a_likelihood_that_there_is_not(self, method, has_energy, message):
    config = smoke.get_config('stein_cd_mnist')
    config.evaluation.log_likelihood = method
    x = np.ones((2, 3), np.float32)
    source, state = datasets.Arrays({'image': x}), types.SimpleNamespace()
    if has_energy:
      state.energy = learners.create(
        jax.random.key(0), energies.MLP((2,)), optax.sgd(0.1), x
      )
    with self.assertRaisesRegex(ValueError, message):
      evaluation.test_metrics(config, state, source)

  def test_a_likelihood_of_too_many_units(self):
    config = smoke.get_config('stein_cd_mnist')
    config.evaluation.log_likelihood = 'exact'
    x = np.ones((2, 3), np.float32)
    energy = learners.create(
      jax.random.key(0), energies.RBM(40), optax.sgd(0.1), x
    )
    state = types.SimpleNamespace(energy=energy)
    with self.assertRaisesRegex(ValueError, r'energy\.num_hidden=40: enumer'):
      evaluation.check_likelihood(config, state, x)

  @parameterized.parameters(
    ('stein_cd_mnist', '--config.optimizer.ema_decay'),
    ('gan_mnist', '--config.energy_optimizer.*--config.generator_optimizer'),
  )
  def test_an_average_that_is_not_kept(self, name, message):
    config = smoke.get_config(name)
    config.evaluation.parameters = 'average'
    with self.assertRaisesRegex(ValueError, message):
      evaluation.test_metrics(config, (), None)


class EstimateTest(absltest.TestCase):
  """What stands beside a likelihood whose log Z is an estimate."""

  def test_has_its_error(self):
    config = smoke.get_config('contrastive_divergence_mnist')
    config.evaluation.log_likelihood = 'ais'
    config.evaluation.ais = dict(num_chains=20, num_temperatures=10)
    source = datasets.load(**config.evaluation.data)
    state = types.SimpleNamespace(
      energy=learners.create(
        jax.random.key(0), energies.RBM(3), optax.sgd(0.1), source[:4]['image']
      )
    )
    with mock.patch.object(evaluation.logging, 'warning') as warning:
      found = evaluation.test_metrics(config, state, source)
      self.assertEqual(warning.called, found['test/log_partition_error'] > 0.3)
      # One chain has no error, which must not pass for a small one.
      config.evaluation.ais.num_chains = 1
      evaluation.test_metrics(config, state, source)
    (text, *rest) = warning.call_args.args
    self.assertRegex(
      text % tuple(rest), 'not to be trusted: .* nan nats, .* 1 '
    )
    self.assertEqual(
      found['test/log_likelihood_error'], found['test/log_partition_error']
    )
    # The chains start at the mean of the data, unless the config says where.
    sizes = dict(num_chains=20, num_temperatures=10)
    data = np.mean(source[:]['image'], 0)
    for options, base in (({}, data), ({'base_mean': 0.5}, 0.5)):
      for resample in (False, True):
        config.evaluation.ais = dict(sizes, resample=resample, **options)
        found = evaluation.test_metrics(config, state, source)
        expected = energies.ais_estimate(
          state.energy,
          jax.random.key(config.seed),
          base_mean=base,
          resample=resample,
          **sizes,
        )
        self.assertEqual('log_partition_smallest_ess' in expected, resample)
        for name, value in expected.items():
          self.assertAlmostEqual(
            found[f'test/{name}'], float(value), delta=1e-3
          )
    self.assertEqual(
      found['test/log_likelihood_error'], found['test/log_partition_error']
    )


class EvaluateTest(parameterized.TestCase):
  @parameterized.parameters('stein_cd_mnist', 'svgd_toy', 'gan_mnist')
  def test_writes_numbers_samples_and_a_page_that_stands_alone(self, name):
    self.check(name)

  @parameterized.parameters(
    'amortized_svgd_toy', 'contrastive_divergence_toy', 'steingan_mnist_joint'
  )
  @pytest.mark.slow
  def test_so_do_longer_ones(self, name):
    self.check(name)

  def check(self, name):
    workdir = pathlib.Path(self.create_tempdir().full_path) / 'run'
    config = smoke.get_config(name)
    training.train(config, workdir)
    # As a launch has it: how many classes there are is known of the data alone.
    metrics = evaluation.evaluate(config, workdir)
    written = json.loads((workdir / 'evaluation.json').read_text())
    self.assertEqual(written, {'step': 4, **metrics})
    self.assertLen(
      np.load(workdir / 'samples.npy'), config.evaluation.num_samples
    )
    page = (workdir / 'report.html').read_text()
    self.assertIn('data:image/png;base64,', page)
    self.assertIn(config.algorithm, page)
    self.assertNotIn('src="http', page)
    for metric in metrics:
      self.assertIn(metric, page)

  def test_a_judge_that_has_nothing_to_judge_is_told(self):
    workdir = pathlib.Path(self.create_tempdir().full_path) / 'run'
    config = smoke.get_config('svgd_toy')
    training.train(config, workdir)
    with mock.patch.object(evaluation.logging, 'warning') as warning:
      found = evaluation.evaluate(config, workdir, judges={'mine': self.fail})
    self.assertNotIn('mine/judged_by', found)
    (text, *rest) = warning.call_args.args
    self.assertIn('Nothing is judged by mine', text % tuple(rest))

  def test_without_a_checkpoint_it_says_so(self):
    workdir = self.create_tempdir().full_path
    with self.assertRaisesRegex(FileNotFoundError, 'No checkpoint'):
      evaluation.evaluate(smoke.get_config('stein_cd_mnist'), workdir)


if __name__ == '__main__':
  absltest.main()
