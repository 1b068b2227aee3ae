"""SteinGAN and DCGAN at 64x64: sizes of the networks, and images through TFDS."""

import io
import os
import pathlib
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest
import tensorflow_datasets as tfds

from stein_jax import algorithms
from stein_jax.runs import evaluation
from stein_jax.runs import training
from tests import smoke


def convolution(*widths, sides):
  """Returns the weights of convolutions of these sides between these widths."""
  pairs = zip(widths[:-1], widths[1:], sides, strict=True)
  return sum(side**2 * before * after for before, after, side in pairs)


def norms(*widths):
  """Returns the gains and biases of norms."""
  return 2 * sum(widths)


class NetworksTest(parameterized.TestCase):
  def sizes(self, config):
    """Returns the numbers of parameters of energy and generator."""
    algorithm = algorithms.get(config.algorithm)
    batch = {'image': jnp.zeros((2, 64, 64, 3))}
    state = jax.eval_shape(
      lambda rng: algorithm.init(rng, config, batch), jax.random.key(0)
    )
    return [
      sum(leaf.size for leaf in jax.tree.leaves(learner.params))
      for learner in (state.energy, state.generator)
    ]

  # Millions are those that the papers or their authors' code have; norms are apart.
  @parameterized.parameters(
    ('', 2.81, (3, 64, 128, 128, 256, 256, 256), (3, 5, 3, 5, 3, 4)),
    ('lsun', 2.81, (3, 64, 128, 128, 256, 256, 256), (3, 5, 3, 5, 3, 4)),
    ('wl16', 6.98, (3, 128, 128, 256, 256, 512, 512), (3, 4, 3, 4, 3, 4)),
  )
  def test_steingan(self, scale, millions, widths, sides):
    config = smoke.get_config('steingan_celeba', scale)
    weights = convolution(*widths, sides=sides)
    self.assertAlmostEqual(weights / 1e6, millions, delta=0.005)
    both_ways = norms(*widths[2:]) + norms(*widths[1:-1])
    expected = [weights + both_ways, self.generator_size()]
    self.assertEqual(self.sizes(config), expected)

  @parameterized.parameters('', 'lsun')
  def test_dcgan(self, scale):
    config = smoke.get_config('gan_celeba', scale)
    weights = convolution(3, 128, 256, 512, 1024, sides=[5] * 4) + 4 * 4 * 1024
    self.assertAlmostEqual(weights / 1e6, 17.2, delta=0.05)
    expected = [weights + norms(256, 512, 1024), self.generator_size()]
    self.assertEqual(self.sizes(config), expected)

  def generator_size(self):
    """Returns the parameters of DCGAN's generator; the first norm is of units."""
    weights = 100 * 4 * 4 * 1024
    weights += convolution(1024, 512, 256, 128, 3, sides=[5] * 4)
    self.assertAlmostEqual(weights / 1e6, 18.9, delta=0.05)
    return weights + norms(4 * 4 * 1024, 512, 256, 128)


def picture(colour, shape):
  """Returns a PNG file of a coloured square in the middle of black."""
  pixels = np.zeros((*shape, 3), np.uint8)
  side = min(shape)
  top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
  pixels[top : top + side, left : left + side] = colour
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, 'PNG')
  return io.BytesIO(file.getvalue())


def faces(num):
  """Returns examples as the builder of CelebA has them: 218 x 178 and much beside."""
  features = tfds.builder('celeb_a').info.features
  beside = {
    'landmarks': dict.fromkeys(features['landmarks'], 0),
    'attributes': dict.fromkeys(features['attributes'], True),
    'identity': dict.fromkeys(features['identity'], 0),
  }
  return [
    dict(beside, image=picture((i, 100, 200), (218, 178))) for i in range(num)
  ]


def bedrooms(num):
  """Returns examples as the builder of LSUN has them, of any width."""
  return [
    dict(id=str(i), image=picture((i, 100, 200), (64, 90 + i)))
    for i in range(num)
  ]


def prepare(name, folder, **splits):
  """Prepares a data set by its own builder, of examples in place of downloads."""
  builder = tfds.builder(name, data_dir=folder, file_format='array_record')
  generators_of = lambda self, manager: {
    split: enumerate(examples) for split, examples in splits.items()
  }
  with mock.patch.object(type(builder), '_split_generators', generators_of):
    builder.download_and_prepare()


class TfdsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    data = {'TFDS_DATA_DIR': str(self.folder / 'tfds')}
    self.enter_context(mock.patch.dict(os.environ, data))

  def test_prepared_bedrooms_are_read(self):
    self.read('gan_celeba', 'lsun', 'lsun/bedroom', bedrooms, 'validation')

  @pytest.mark.slow
  def test_prepared_bedrooms_are_learned(self):
    whole = self.read(
      'gan_celeba', 'lsun', 'lsun/bedroom', bedrooms, 'validation'
    )
    self.learn('gan_celeba', whole)

  @pytest.mark.slow
  def test_prepared_faces_are_read_and_learned(self):
    whole = self.read('steingan_celeba', '', 'celeb_a', faces, 'test')
    self.learn('steingan_celeba', whole)

  def read(self, name, scale, builder, examples, test):
    prepare(
      builder,
      os.environ['TFDS_DATA_DIR'],
      train=examples(128),
      **{test: examples(4)},
    )
    # The whole config is traced on them.
    whole = smoke.get_config(name, scale)
    _, _, source, _ = training.check(whole)
    self.assertLen(source, 128)
    batch = source[np.array([7, 0])]
    self.assertEqual(batch['image'].shape, (2, 64, 64, 3))
    self.assertEqual(batch['image'].dtype, np.float32)
    reds = np.round((source[:]['image'][..., 0] + 1) * 127.5)
    # Records come in an order of their own; black is cut off.
    self.assertEqual(set(reds.ravel()), set(range(128)))
    np.testing.assert_array_equal(np.ptp(reds, (1, 2)), 0)
    blue = batch['image'][..., 2]
    np.testing.assert_allclose(blue, 200 / 127.5 - 1, atol=1e-6)
    return whole

  def learn(self, name, whole):
    """Small networks learn from them, and the report shows walks."""
    config = smoke.get_config(name)
    config.data = dict(whole.data, size=8)
    config.evaluation.data = dict(whole.evaluation.data, size=8)
    state = training.train(config, self.folder / 'run')
    self.assertEqual(int(state.step), config.num_steps)
    evaluation.evaluate(config, self.folder / 'run')
    with Image.open(self.folder / 'run' / 'random_walk.gif') as walk:
      self.assertEqual(walk.n_frames, 30)
    page = (self.folder / 'run' / 'report.html').read_text('utf-8')
    self.assertIn('Random walks in latent space', page)

  def test_what_is_not_prepared_is_refused_before_anything_is_written(self):
    config = smoke.get_config('gan_celeba', '')
    with self.assertRaisesRegex(FileNotFoundError, "'celeb_a' is not prepared"):
      training.train(config, self.folder / 'run')
    self.assertFalse((self.folder / 'run').exists())


if __name__ == '__main__':
  absltest.main()
