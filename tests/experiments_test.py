"""The entry points, as a user starts them."""

import ast
import json
import os
import pathlib
import subprocess
import sys

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np
from PIL import Image
import pytest

from stein_jax.runs import evaluation
from stein_jax.runs import judges
from stein_jax.runs import training
from tests import smoke

_ROOT = pathlib.Path(__file__).parent.parent
_MAINS = (
  'train',
  'evaluate',
  'demo',
  'reproduce.rbm',
  'reproduce.steingan',
  'reproduce.amortized_svgd',
  'reproduce.cifar10',
  'reproduce.cost',
  'reproduce.image_energies',
  'reproduce.modes',
  'reproduce.objectives',
  'reproduce.page',
  'reproduce.particles',
  'reproduce.recovery',
  'reproduce.vae_teaching',
  'reproduce.vgan',
  'benchmarks.accelerator',
  'benchmarks.annealing',
  'benchmarks.exact',
  'benchmarks.langevin',
  'benchmarks.loop',
  'benchmarks.primitives',
  'benchmarks.repulsion',
  'benchmarks.report',
  'benchmarks.scaling',
  'benchmarks.stein_peers',
  'benchmarks.training',
  'benchmarks.updates',
)


def run(module, *flags):
  """Returns the finished process of `python -m experiments.<module>`."""
  return subprocess.run(
    [sys.executable, '-m', f'experiments.{module}', *flags],
    cwd=_ROOT,
    capture_output=True,
    text=True,
    check=False,
    timeout=1200,
    env={
      **os.environ,
      'JAX_PLATFORMS': 'cpu',
      'JAX_COMPILATION_CACHE_DIR': jax.config.jax_compilation_cache_dir,
      'PYTHONPATH': str(_ROOT),
    },
  )


class ExperimentsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def test_train_then_evaluate(self):
    trained = run(
      'train',
      '--config=configs/stein_cd_mnist.py:smoke',
      f'--workdir={self.folder}/run',
      '--config.num_steps=6',
    )
    self.assertEqual(trained.returncode, 0, trained.stderr)
    self.assertIn('report.html', trained.stdout)
    self.assertIn('step 6 of 6', trained.stderr)
    self.assertNotIn('orbax', trained.stderr)  # others' chatter is left out
    evaluated = run(
      'evaluate',
      f'--workdir={self.folder}/run',
      '--num_samples=3',
      '--log_likelihood=none',
    )
    self.assertEqual(evaluated.returncode, 0, evaluated.stderr)
    numbers = json.loads((self.folder / 'run' / 'evaluation.json').read_text())
    self.assertEqual(numbers['step'], 6)
    self.assertNotIn('test/log_likelihood', numbers)
    self.assertGreater(numbers['samples/pairwise_distance'], 0)

  @pytest.mark.slow
  def test_a_classifier_judges_samples(self):
    for name, run_name in (
      ('classification_mnist', 'judge'),
      ('gan_mnist', 'gan'),
    ):
      training.train(smoke.get_config(name), self.folder / run_name)
    judged = run(
      'evaluate',
      f'--workdir={self.folder}/gan',
      '--num_samples=40',
      f'--classifier={self.folder}/judge',
    )
    self.assertEqual(judged.returncode, 0, judged.stderr)
    numbers = json.loads((self.folder / 'gan' / 'evaluation.json').read_text())
    # An untrained judge can tell nothing apart, but each metric has its range.
    self.assertBetween(numbers['classifier/inception_score'], 1, 10)
    self.assertBetween(numbers['classifier/own_label'], 0, 1)
    self.assertRegex(
      numbers['classifier/judged_by'],
      'classification of synthetic, seed 0, step 4, of an accuracy that was not '
      'measured, CRC-32 .*; 40 samples beside 40 data, inception score of 1 part',
    )
    self.assertIn('classifier/judged_by', judged.stdout)
    self.assertGreaterEqual(numbers['classifier/frechet_distance'], 0)
    for name in ('random_walk.gif', 'interpolation.gif'):
      self.assertTrue((self.folder / 'gan' / name).exists())
    # The samples are a data set that a classifier can learn.
    config = smoke.get_config('classification_mnist', 'samples')
    config.data.path = str(self.folder / 'gan' / 'samples.npz')
    config.evaluation.data = {'name': 'synthetic', 'shape': (8, 8, 1)}
    config.num_steps, config.batch_size = 1, 40
    learned = training.train(config, self.folder / 'learned')
    self.assertEqual(int(learned.step), 1)
    config = smoke.get_config('gan_mnist')
    with self.assertRaisesRegex(ValueError, 'allowed: classification'):
      judges.judge(config, self.folder / 'gan')

  @pytest.mark.slow
  def test_revised_samples_are_shown_on_their_way(self):
    config = smoke.get_config('coopnets_mnist')
    training.train(config, self.folder / 'run')
    evaluation.evaluate(config, self.folder / 'run')
    page = (self.folder / 'run' / 'report.html').read_text()
    self.assertIn('every step of its revision', page)
    for name in ('revision.gif', 'interpolation.gif', 'random_walk.gif'):
      self.assertTrue((self.folder / 'run' / name).exists())

  @pytest.mark.slow
  def test_hidden_parts_of_a_folder_of_images(self):
    rng = np.random.default_rng(0)
    for split, num in (('train', 8), ('test', 3)):
      (self.folder / 'images' / split).mkdir(parents=True)
      for i in range(num):
        pixels = rng.integers(0, 256, (16, 32, 3), np.uint8)
        image = Image.fromarray(pixels)
        image.save(self.folder / 'images' / split / f'{i}.png')
    config = smoke.get_config('vae_facades')
    config.data = dict(
      name='folder',
      path=str(self.folder / 'images'),
      split='train',
      size=16,
      side='left',
      mask='centre',
    )
    config.evaluation.data = dict(config.data, split='test')
    training.train(config, self.folder / 'run')
    numbers = evaluation.evaluate(config, self.folder / 'run')
    # A quarter of the pixels is hidden; the rest is put back.
    gain = 10 * np.log10(4)
    self.assertAlmostEqual(
      numbers['samples/psnr_pasted'], numbers['samples/psnr'] + gain, delta=1
    )
    self.assertGreater(numbers['samples/ssim_pasted'], numbers['samples/ssim'])
    page = (self.folder / 'run' / 'report.html').read_text()
    self.assertIn('What is known, what was made of it', page)

  def test_bad_commands_are_refused_and_leave_nothing(self):
    self.check_refused('--config.step.epsilom=1', message='epsilon')

  def check_refused(self, *flags, message):
    process = run(
      'train',
      '--config=configs/stein_cd_mnist.py:smoke',
      f'--workdir={self.folder}/run',
      *flags,
    )
    self.assertNotEqual(process.returncode, 0)
    self.assertRegex(process.stderr + process.stdout, message)
    self.assertFalse((self.folder / 'run').exists())

  @parameterized.parameters(
    (('stray',), 'stray'),
    (('--config=configs/nowhere.py',), 'configs/nowhere.py'),
    (('--config=configs/stein_cd_mnist.py:huge',), "scale='huge'.*smoke"),
    (('--config.num_steps=2.5',), 'num_steps=2.5 must be an integer'),
    (('--config.num_steps=many',), "num_steps='many' must be an integer"),
    (('--config.step.epsilon=-1',), 'step.epsilon=-1 must be a positive'),
    (
      ('--config.step.direction.kernel.name=rbf',),
      "--config.step.direction.kernel.name='rbf' is not in .*RBF",
    ),
    (('--path=images.zip',), "--path: 'synthetic' is read from no path"),
    (('--bogus=1',), "Unknown command line flag 'bogus'"),
    (('--workdir=README.md',), 'README.md is no folder'),
  )
  @pytest.mark.slow
  def test_so_are_others(self, flags, message):
    self.check_refused(*flags, message=message)

  @parameterized.parameters(*_MAINS)
  @pytest.mark.slow
  def test_a_main_says_its_flags_and_refuses_others(self, name):
    told = run(name, '--help')
    self.assertIn(f'python -m experiments.{name} ', told.stdout)
    self.assertNotIn('Traceback', told.stderr)
    refused = run(name, '--bogus=1')
    self.assertNotEqual(refused.returncode, 0)
    self.assertIn("Unknown command line flag 'bogus'", refused.stderr)

  @pytest.mark.slow
  def test_a_workdir_is_asked_for(self):
    process = run('train', '--config=configs/stein_cd_mnist.py:smoke')
    self.assertNotEqual(process.returncode, 0)
    self.assertIn('--workdir must have a value', process.stderr)

  @parameterized.parameters(*_MAINS)
  def test_docstring_has_an_example(self, name):
    path = _ROOT / 'experiments' / f'{name.replace(".", "/")}.py'
    docstring = ast.get_docstring(ast.parse(path.read_text('utf-8')))
    self.assertIn(f'python -m experiments.{name} ', docstring)

  @pytest.mark.slow
  def test_demo(self):
    process = run('demo', f'--workdir={self.folder}/demo')
    self.assertEqual(process.returncode, 0, process.stderr)
    page = (self.folder / 'demo' / 'report.html').read_text()
    for name in (
      'SteinCD',
      'CD-1',
      'CD-10',
      'Exact maximum likelihood',
      'SteinGAN',
    ):
      self.assertIn(name, page)
      self.assertIn(name, process.stdout)

  @pytest.mark.slow
  def test_reproduce_rbm_goes_on_where_it_was(self):
    flags = ('--smoke', '--dataset=digits', f'--results={self.folder}/rbm')
    first = run('reproduce.rbm', *flags)
    self.assertEqual(first.returncode, 0, first.stderr)
    table = (self.folder / 'rbm' / 'table.md').read_text()
    runs = sorted((self.folder / 'rbm' / 'runs').glob('*.json'))
    runs[0].unlink()
    again = run('reproduce.rbm', *flags)
    self.assertEqual(again.returncode, 0, again.stderr)
    # The one row missing is trained again; its numbers, not its time, come out the
    # same.
    strip = lambda text: [line.rsplit('|', 3)[0] for line in text.splitlines()]
    self.assertEqual(
      strip(table), strip((self.folder / 'rbm' / 'table.md').read_text())
    )
    other = run(
      'reproduce.rbm', '--dataset=digits', f'--results={self.folder}/rbm'
    )
    self.assertIn('choose another folder', other.stderr)

  @pytest.mark.slow
  def test_reproduce_amortized_svgd(self):
    folder = f'--results={self.folder}/amortized'
    process = run('reproduce.amortized_svgd', '--smoke', folder)
    self.assertEqual(process.returncode, 0, process.stderr)
    for name in ('flow, KL', 'full projection', '-1: one network for all'):
      self.assertIn(name, process.stdout)

  @pytest.mark.slow
  def test_reproduce_particles(self):
    folder = f'--results={self.folder}/particles'
    process = run('reproduce.particles', '--smoke', '--part=50', folder)
    self.assertEqual(process.returncode, 0, process.stderr)
    for name in ('Stein variational Newton', 'MALA', 'draws of the truth'):
      self.assertIn(f'| {name}', process.stdout)

  @pytest.mark.slow
  def test_reproduce_objectives(self):
    folder = self.folder / 'objectives'
    process = run('reproduce.objectives', '--smoke', f'--results={folder}')
    self.assertEqual(process.returncode, 0, process.stderr)
    for name in ('Exact maximum likelihood', 'PCD', 'SteinCD', 'Denoising'):
      self.assertIn(f'| {name}', process.stdout)
    self.assertTrue((folder / 'overlapping_data.png').exists())

  @pytest.mark.slow
  def test_reproduce_image_energies(self):
    folder = self.folder / 'images'
    process = run('reproduce.image_energies', '--smoke', f'--results={folder}')
    self.assertEqual(process.returncode, 0, process.stderr)
    for name in ('replay buffer', 'Denoising', 'VERA', 'real images'):
      self.assertIn(name, process.stdout)
    # Trials are of a seed that the table does not count.
    self.assertLen(list((folder / 'trials' / 'runs').glob('*_1000.json')), 3)
    self.assertTrue((folder / 'runs' / 'denoising_0.png').exists())

  @pytest.mark.slow
  def test_reproduce_modes(self):
    folder = self.folder / 'modes'
    process = run('reproduce.modes', '--smoke', f'--results={folder}')
    self.assertEqual(process.returncode, 0, process.stderr)
    # The last of the lines of each start.
    for name in ('noise', 'data', 'sampler that learned from data'):
      self.assertIn(f'| {name} | 100 |', process.stdout)
    self.assertTrue((folder / 'visited.png').exists())

  @pytest.mark.slow
  @pytest.mark.skipif(
    'TFDS_DATA_DIR' not in os.environ, reason='TFDS_DATA_DIR names no MNIST'
  )
  def test_reproduce_cost(self):
    process = run('reproduce.cost', '--smoke', f'--results={self.folder}/cost')
    self.assertEqual(process.returncode, 0, process.stderr)
    # 204 evaluations are 2 updates of 102, and 68 of 3.
    for name, updates in (('MCMC-MLE, 100 steps from noise', 2), ('CD-1', 68)):
      line = next(
        line for line in process.stdout.splitlines() if f'| {name} |' in line
      )
      self.assertIn(f'| {updates} |', line)

  @pytest.mark.slow
  @pytest.mark.skipif(
    'TFDS_DATA_DIR' not in os.environ, reason='TFDS_DATA_DIR names no MNIST'
  )
  def test_reproduce_steingan(self):
    process = run(
      'reproduce.steingan', '--smoke', f'--results={self.folder}/steingan'
    )
    self.assertEqual(process.returncode, 0, process.stderr)
    for name in (
      'centred, no kernel',
      'fresh sampler',
      'swapped',
      'exact negatives',
      'choice: kernel on the first features',
      'conditional, exact repulsion',
    ):
      self.assertIn(name, process.stdout)

  @pytest.mark.slow
  def test_reproduce_cifar10(self):
    folder = f'--results={self.folder}/cifar10'
    process = run('reproduce.cifar10', '--smoke', folder)
    self.assertEqual(process.returncode, 0, process.stderr)
    here, printed = process.stdout.split('Printed')
    for name in ('real', 'duplicates', 'DCGAN', 'SteinGAN without kernel'):
      self.assertIn(f'{name} ', here)
    self.assertIn('61.09', printed)

  @pytest.mark.slow
  @pytest.mark.skipif(
    'TFDS_DATA_DIR' not in os.environ, reason='TFDS_DATA_DIR names no MNIST'
  )
  def test_reproduce_vgan(self):
    process = run('reproduce.vgan', '--smoke', f'--results={self.folder}/vgan')
    self.assertEqual(process.returncode, 0, process.stderr)
    for name in (
      'VGAN, k = 3',
      'pixels',
      'rho = 0.001',
      'no augmentation',
      'without either, no bound',
      'GAN, batch norm of each',
    ):
      self.assertIn(name, process.stdout)

  @pytest.mark.slow
  def test_reproduce_recovery(self):
    folder = f'--results={self.folder}/recovery'
    process = run('reproduce.recovery', '--smoke', folder)
    self.assertEqual(process.returncode, 0, process.stderr)
    for name in ('conditional VAE teaching', 'pix2pix', 'SSIM', 'BicycleGAN'):
      self.assertIn(name, process.stdout)

  @pytest.mark.slow
  @pytest.mark.skipif(
    'TFDS_DATA_DIR' not in os.environ, reason='TFDS_DATA_DIR names no MNIST'
  )
  def test_reproduce_vae_teaching(self):
    folder = f'--results={self.folder}/teaching'
    process = run('reproduce.vae_teaching', '--smoke', folder)
    self.assertEqual(process.returncode, 0, process.stderr)
    for name in ('printed objective', 'replay buffer', 'WGAN-GP', 'PixelIQN'):
      self.assertIn(name, process.stdout)


if __name__ == '__main__':
  absltest.main()
