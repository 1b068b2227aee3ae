"""Classifiers: sizes, independence of images, and the augmentation by hand."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from stein_jax import classifiers
from stein_jax import learners


def _images(*shape, seed=0):
  x = np.random.default_rng(seed).normal(size=shape)
  return jnp.asarray(x, jnp.float32)


@functools.cache
def _learner(kind, *shape):
  if kind == 'cnn':
    module = classifiers.CNN(5, widths=(2, 3), dense=7, dropout=0.25)
  else:
    module = classifiers.ResNet(depth=8, width=4, num_classes=5, num_groups=2)
  return learners.create(
    jax.random.key(0), module, optax.sgd(1.0), _images(2, *shape)
  )


def _run(learner, x, rng=None):
  run = lambda params, x: learners.call(learner, params, x, rng=rng)
  return jax.jit(run)(learner.params, x)


def _size(module, *shape):
  """Returns the number of parameters and the shapes of the results."""
  (results, params) = jax.eval_shape(
    lambda rng: module.init_with_output(rng, jnp.zeros(shape)),
    jax.random.key(0),
  )
  size = sum(leaf.size for leaf in jax.tree.leaves(params))
  return size, [leaf.shape for leaf in results]


class NetworkTest(parameterized.TestCase):
  def test_cnn(self):
    size, shapes = _size(classifiers.CNN(), 6, 28, 28, 1)
    self.assertEqual(shapes, [(6, 128), (6, 10)])
    # 28 x 28 pixels are pooled twice, to 7 x 7.
    convs = 25 * 1 * 16 + 16 + 25 * 16 * 32 + 32
    self.assertEqual(size, convs + 7 * 7 * 32 * 128 + 128 + 128 * 10 + 10)

  @parameterized.parameters((8, 16, 10), (14, 8, 3), (32, 16, 10))
  def test_resnet(self, depth, width, num_classes):
    size, shapes = _size(
      classifiers.ResNet(depth, width, num_classes), 6, 32, 32, 3
    )
    self.assertEqual(shapes, [(6, 4 * width), (6, num_classes)])
    blocks = (depth - 2) // 6
    # Convolutions of 3 x 3, each with a norm's scale and bias.
    layers = [(3, width), *[(width, width)] * (2 * blocks)]
    for before in (width, 2 * width):
      after = 2 * before
      layers += [(before, after), *[(after, after)] * (2 * blocks - 1)]
    self.assertLen(layers, depth - 1)  # and the dense one makes the depth
    convs = sum(9 * before * after + 2 * after for before, after in layers)
    self.assertEqual(size, convs + 4 * width * num_classes + num_classes)
    if (depth, width) == (32, 16):
      self.assertAlmostEqual(size / 1e6, 0.46, delta=0.01)  # as published

  @parameterized.parameters(2, 9, 12, 33)
  def test_depth_is_6_n_and_2(self, depth):
    with self.assertRaisesRegex(ValueError, f'depth={depth} must be 6 n'):
      classifiers.ResNet(depth=depth)

  def test_bad_arguments(self):
    with self.assertRaisesRegex(ValueError, 'width=6 must.*num_groups=4'):
      classifiers.ResNet(width=6)
    for module in (classifiers.CNN, classifiers.ResNet):
      with self.assertRaisesRegex(ValueError, 'num_classes=0'):
        module(num_classes=0)
    with self.assertRaisesRegex(ValueError, 'dense=0'):
      classifiers.CNN(dense=0)

  @parameterized.parameters(('cnn', 12, 12, 1), ('resnet', 8, 8, 3))
  def test_images_are_alone(self, kind, *shape):
    learner, x = _learner(kind, *shape), _images(4, *shape)
    self.assertNotIn('axis_name', learners.keywords(learner))
    changed = x.at[1:].add(3 * _images(3, *shape, seed=1))
    for before, after in zip(
      _run(learner, x), _run(learner, changed), strict=True
    ):
      np.testing.assert_array_equal(before[0], after[0])
      self.assertGreater(np.max(np.abs(before[1:] - after[1:])), 0.01)

  def test_cnn_is_the_literal_network(self):
    learner, x = _learner('cnn', 12, 12, 1), _images(4, 12, 12, 1)
    features, logits = _run(learner, x)
    of = learner.params['params']
    hidden = x
    for i, side in enumerate((12, 6)):
      padded = jnp.pad(hidden, ((0, 0), (2, 2), (2, 2), (0, 0)))
      kernel, bias = of[f'Conv_{i}']['kernel'], of[f'Conv_{i}']['bias']
      hidden = sum(
        np.asarray(padded[:, a : a + side, b : b + side] @ kernel[a, b])
        for a in range(5)
        for b in range(5)
      )
      hidden = np.maximum(hidden + np.asarray(bias), 0)
      hidden = hidden.reshape(4, side // 2, 2, side // 2, 2, -1).max((2, 4))
    hidden = hidden.reshape(4, -1) @ of['Dense_0']['kernel']
    hidden = np.maximum(hidden + of['Dense_0']['bias'][None], 0)
    np.testing.assert_allclose(features, hidden, atol=1e-5)
    np.testing.assert_allclose(
      logits, hidden @ of['Dense_1']['kernel'], atol=1e-5
    )

  def test_shortcuts_of_the_resnet(self):
    # Blocks that add nothing pass on every other pixel of the first layer, twice, and
    # channels of zeros.
    learner, x = _learner('resnet', 8, 8, 3), 2 * _images(4, 8, 8, 3)
    of = dict(learner.params['params'])
    first = nn.Conv(4, (3, 3), padding=1, use_bias=False)
    stem = jax.jit(
      lambda of: nn.GroupNorm(2).apply(
        {'params': of['GroupNorm_0']}, first.apply({'params': of['Conv_0']}, x)
      )
    )(of)
    for i in (2, 4, 6):  # the second norm of each block
      of[f'GroupNorm_{i}'] = jax.tree.map(jnp.zeros_like, of[f'GroupNorm_{i}'])
    features, logits = _run(learner.replace(params={'params': of}), x)
    expected = np.zeros((4, 16))
    expected[:, :4] = np.maximum(stem, 0)[:, ::4, ::4].mean((1, 2))
    np.testing.assert_allclose(features, expected, atol=1e-5)
    np.testing.assert_allclose(
      logits, features @ of['Dense_0']['kernel'], atol=1e-5
    )

  def test_dropout(self):
    learner, x = _learner('cnn', 12, 12, 1), _images(4, 12, 12, 1)
    self.assertEqual(learners.keywords(learner), ('rng',))
    features, logits = _run(learner, x)
    keys = jax.random.split(jax.random.key(1), 3000)
    run = lambda rng: learners.call(learner, learner.params, x, rng=rng)
    all_features, all_logits = jax.jit(jax.vmap(run))(keys)
    np.testing.assert_allclose(
      all_features, np.broadcast_to(features, all_features.shape), atol=1e-6
    )
    # At a share r = 1/4 the factor, 0 or 4/3, has variance r / (1 - r) = 1/3.
    kernel = learner.params['params']['Dense_1']['kernel']
    variance = np.square(features) @ np.square(kernel) / 3
    error = np.sqrt(variance / len(keys))
    np.testing.assert_array_less(
      np.abs(np.mean(all_logits, 0) - logits), 4 * error + 1e-6
    )
    np.testing.assert_allclose(np.var(all_logits, 0), variance, rtol=0.2)


class AllConvolutionalTest(parameterized.TestCase):
  def test_shapes_and_numbers_of_parameters(self):
    module = classifiers.AllConvolutional(
      blocks=(((4, 3), (8, 3)), ((8, 3), (4, 1))), num_classes=3
    )
    x = _images(2, 6, 6, 1)
    params = module.init(jax.random.key(0), x)
    features, logits = module.apply(params, x)
    self.assertEqual((features.shape, logits.shape), ((2, 4), (2, 3)))
    # Kernels, gain and bias of every norm, the last layer.
    expected = 9 * 4 + 9 * 4 * 8 + 9 * 8 * 8 + 8 * 4
    expected += 2 * (4 + 8 + 8 + 4) + 4 * 3 + 3
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    self.assertEqual(count, expected)

  def test_noise_and_dropout_where_a_key_is_given(self):
    module = classifiers.AllConvolutional(blocks=(((4, 3),), ((4, 3),)))
    x = _images(2, 6, 6, 1)
    params = module.init(jax.random.key(0), x)
    run = lambda module, rng: module.apply(params, x, rng=rng)[1]
    quiet = module.clone(noise=0.0, dropout=0.0)
    still = run(quiet, jax.random.key(1))
    np.testing.assert_allclose(still, run(module, None), rtol=1e-5)
    for part in (quiet.clone(noise=0.1), quiet.clone(dropout=0.5)):
      first, again, other = (run(part, jax.random.key(k)) for k in (1, 1, 2))
      np.testing.assert_array_equal(first, again)
      self.assertGreater(np.abs(first - other).max(), 1e-3)

  @parameterized.parameters(
    (dict(noise=-1.0), 'noise=-1'),
    (dict(dropout=1.0), 'dropout=1'),
  )
  def test_bad_arguments(self, keywords, message):
    with self.assertRaisesRegex(ValueError, message):
      classifiers.AllConvolutional(**keywords)


class ShiftedTest(parameterized.TestCase):
  def test_nothing_to_do(self):
    x = _images(5, 3, 4, 2)
    still = self.shift(x, distance=0, flip=False)
    np.testing.assert_array_equal(still, x)

  def test_crops_by_hand(self):
    # The rows 123, 456 and 789, with the nearest pixels as a border.
    border = np.array(
      [
        [1, 1, 2, 3, 3],
        [1, 1, 2, 3, 3],
        [4, 4, 5, 6, 6],
        [7, 7, 8, 9, 9],
        [7, 7, 8, 9, 9],
      ]
    )
    crops = [
      border[top : top + 3, left : left + 3]
      for top in range(3)
      for left in range(3)
    ]
    counts = self.count(crops, distance=1, flip=False)
    # Each of nine has probability 1/9: a count of 100 with deviation 9.4.
    np.testing.assert_array_less(np.abs(counts - 100), 4 * 9.4)

  def test_flip_only_mirrors(self):
    crops = [
      np.arange(1, 10).reshape(3, 3),
      np.array([[3, 2, 1], [6, 5, 4], [9, 8, 7]]),
    ]
    counts = self.count(crops, distance=0, flip=True)
    # Each of two has probability 1/2: a count of 450 with deviation 15.
    np.testing.assert_array_less(np.abs(counts - 450), 4 * 15)

  def test_far_and_mirrored(self):
    shifts = [-2, -1, 0, 1, 2]
    images = []
    for down, right in [(a, b) for a in shifts for b in shifts]:
      rows = np.clip(np.arange(3) + down, 0, 2)
      columns = np.clip(np.arange(3) + right, 0, 2)
      image = np.arange(1, 10).reshape(3, 3)[rows][:, columns]
      images += [image, image[:, ::-1]]
    counts = self.count(np.unique(images, axis=0), distance=2, flip=True)
    self.assertGreater(np.min(counts), 0)

  def test_channels_move_together(self):
    x = jnp.tile(_images(20, 5, 4, 1), (1, 1, 1, 2)) * jnp.array(
      [[[[1.0, -1.0]]]]
    )
    moved = self.shift(x, distance=2, flip=True)
    self.assertEqual((moved.shape, moved.dtype), (x.shape, x.dtype))
    np.testing.assert_array_equal(moved[..., 0], -moved[..., 1])

  def test_further_than_the_image_is_wide(self):
    # If columns 1, 2, 3 move by s in -9, ..., 9, column j then holds j - s, or the
    # nearest number that there is.
    x = jnp.tile(jnp.arange(1, 4, dtype=jnp.uint8)[:, None], (500, 1, 1, 1))
    moved = self.shift(x, distance=9, flip=False)
    self.assertEqual(moved.dtype, np.uint8)  # pixels are moved, not computed
    columns = {tuple(row) for row in moved[:, 0, :, 0]}
    wanted = {tuple(np.clip(np.arange(1, 4) - s, 1, 3)) for s in range(-9, 10)}
    self.assertEqual(columns, wanted)

  @parameterized.parameters(
    (np.zeros((3, 3, 1)), {}, r'\[n, h, w, c\].*\(3, 3, 1\)'),
    (np.zeros((2, 3, 3, 1)), {'distance': -1}, 'distance=-1'),
    (np.zeros((2, 3, 3, 1)), {'distance': 0.5}, 'distance=0.5'),
    (np.zeros((2, 3, 3, 1)), {'flip': 1}, 'flip=1'),
  )
  def test_refusals(self, x, options, message):
    options = {'distance': 1, 'flip': True, **options}
    with self.assertRaisesRegex(ValueError, message):
      classifiers.shifted(jax.random.key(0), x, **options)

  @parameterized.parameters(
    classifiers.CNN(), classifiers.AllConvolutional(), classifiers.ResNet(8)
  )
  def test_networks_refuse_one_image_alone(self, network):
    # flax would take the rows of [h, w, c] for examples.
    x = jax.ShapeDtypeStruct((8, 8, 3), jnp.float32)
    with self.assertRaisesRegex(ValueError, r'\[n, h, w, c\].*\(8, 8, 3\)'):
      jax.eval_shape(network.init, jax.random.key(0), x)

  def shift(self, x, **kwargs):
    shifted = jax.jit(functools.partial(classifiers.shifted, **kwargs))
    return np.asarray(shifted(jax.random.key(1), x))

  def count(self, expected, **kwargs):
    """Returns how often each image is among 900, which must have no others."""
    x = jnp.tile(jnp.arange(1.0, 10.0).reshape(1, 3, 3, 1), (900, 1, 1, 1))
    actual = self.shift(x, **kwargs)[..., 0]
    same = (actual[:, None] == np.array(expected)[None]).all((2, 3))
    np.testing.assert_array_equal(same.sum(1), 1)
    return same.sum(0)


if __name__ == '__main__':
  absltest.main()
