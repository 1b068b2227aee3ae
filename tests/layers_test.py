"""Layers against literal adjoints and NumPy, alone and over four devices."""

import functools
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
import numpy as np
import optax
import pytest

from stein_jax import layers
from stein_jax import learners

_DEVICES = 4
_AXIS = 'batch'


def _normal(*shape, seed=0):
  x = np.random.default_rng(seed).normal(size=shape)
  return jnp.asarray(x, jnp.float32)


def _run(module, x, **context):
  """Returns the parameters and the result of a layer on x."""
  params = module.init(jax.random.key(0), x, **context)
  return params, module.apply(params, x, **context)


class _Norm(nn.Module):
  kind: str

  @nn.compact
  def __call__(self, x, *, axis_name=None):
    return layers.normalized(self.kind, x, axis_name=axis_name)


class _Conv(nn.Module):
  @nn.compact
  def __call__(self, x):
    kernel = self.param('kernel', nn.initializers.ones, (3, 3, 2, 3))
    return layers.conv(x, kernel, stride=2, padding='same')


def _literal_conv(x, kernel, *, stride, padding):
  """Returns XLA's own convolution, with its own derivatives."""
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    'SAME' if padding == 'same' else [(padding, padding)] * 2,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


class ConvTest(parameterized.TestCase):
  def take(self, as_product):
    """Makes small convolutions one product of matrices, or none."""
    size = 2**21 if as_product else 0
    self.enter_context(mock.patch.object(layers, '_PATCH_ENTRIES', size))

  @parameterized.product(
    stride=(1, 2),
    padding=(0, 2),
    as_product=(True, False),
  )
  def test_correlation_by_hand(self, stride, padding, as_product):
    self.take(as_product)
    x, kernel = _normal(2, 5, 4, 3), _normal(3, 3, 3, 2, seed=1)
    padded = np.pad(x, ((0, 0), (padding,) * 2, (padding,) * 2, (0, 0)))
    rows = (5 + 2 * padding - 3) // stride + 1
    columns = (4 + 2 * padding - 3) // stride + 1
    expected = np.zeros((2, rows, columns, 2))
    for row in range(rows):
      for column in range(columns):
        top, left = stride * row, stride * column
        window = padded[:, top : top + 3, left : left + 3]
        expected[:, row, column] = np.einsum('nhwi,hwio->no', window, kernel)
    np.testing.assert_allclose(
      layers.conv(x, kernel, stride=stride, padding=padding),
      expected,
      atol=1e-5,
    )

  @parameterized.parameters(
    # kernel, stride, padding, height, width
    (2, 1, 0, 4, 3),
    (2, 1, 1, 3, 4),
    (2, 2, 0, 6, 5),  # the last column meets no window
    (2, 4, 0, 7, 6),
    (2, 7, 1, 13, 8),
    (3, 1, 0, 5, 4),
    (3, 1, 1, 5, 4),
    (3, 2, 1, 6, 7),
    (3, 4, 2, 9, 8),
    (3, 7, 0, 10, 12),
    (4, 1, 3, 3, 5),
    (4, 2, 1, 8, 7),
    (4, 4, 0, 8, 8),
    (4, 7, 2, 9, 11),
    (5, 1, 2, 4, 5),
    (5, 2, 2, 8, 7),
    (5, 4, 2, 16, 9),
    (5, 7, 1, 14, 12),
    (7, 1, 3, 4, 6),
    (7, 2, 0, 9, 8),
    (7, 4, 3, 12, 9),
    (7, 7, 0, 7, 14),
    (7, 7, 6, 8, 7),
    (3, 2, 'same', 14, 7),
    (4, 2, 'same', 7, 8),
    (5, 2, 'same', 28, 9),
    (4, 1, 'same', 5, 4),
    (3, 2, 0, 3, 3),  # a dense layer
    (3, 1, 1, 3, 3),
  )
  def test_transpose_is_the_adjoint(self, k, stride, padding, height, width):
    options = dict(stride=stride, padding=padding)
    kernel = _normal(k, k, 2, 3)
    image = jax.ShapeDtypeStruct((2, height, width, 2), jnp.float32)
    conv = lambda x: _literal_conv(x, kernel, **options)
    y = _normal(*jax.eval_shape(conv, image).shape, seed=1)
    cotangent = _normal(*image.shape, seed=2)

    def literal(y, kernel):
      conv = lambda x: _literal_conv(x, kernel, **options)
      return jax.linear_transpose(conv, image)(y)[0]

    def transpose(y, kernel, few_maps):
      size = (height, width)
      with mock.patch.object(layers, '_FEW_MAPS', few_maps):
        return layers.conv_transpose(y, kernel, size=size, **options)

    together = functools.partial(transpose, few_maps=3)
    apart = functools.partial(transpose, few_maps=2)

    @jax.jit
    def results(y, kernel):
      every = []
      for function in (literal, together, apart):
        value, pullback = jax.vjp(function, y, kernel)
        every.append((value, *pullback(cotangent)))
      return every

    expected, *found = results(y, kernel)
    for each in found:
      for actual, wanted in zip(each, expected, strict=True):
        # Sums of up to 500 products of normals, in two orders.
        np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=3e-5)

  def test_a_kernel_of_the_size_of_the_images(self):
    x, kernel = _normal(2, 3, 3, 4), _normal(3, 3, 4, 5, seed=1)
    np.testing.assert_allclose(
      layers.conv(x, kernel, stride=3, padding=0),
      np.einsum('nhwi,hwio->no', x, kernel)[:, None, None],
      atol=1e-5,
    )

  @parameterized.product(k=(3, 4, 5), stride=(1, 2), padding=(0, 2, 'same'))
  def test_slopes_are_those_of_autodiff(self, k, stride, padding):
    # The heights take turns, and each meets every kernel, stride and padding.
    turn = k + stride + (padding == 2)
    x = _normal(2, (8, 11)[turn % 2], 9, 2)
    kernel = _normal(k, k, 2, 3, seed=1)

    def slopes(conv):
      # A cubic, so that the slopes of the slopes are not constants.
      def total(x, kernel):
        y = conv(x, kernel, stride=stride, padding=padding)
        return jnp.mean(y**3)

      def steep(x, kernel):
        back = jax.grad(total)(x, kernel)
        return jnp.mean(back**2), back

      return jax.grad(steep, (0, 1), has_aux=True)(x, kernel)

    @jax.jit
    def all_slopes():
      found = []
      for as_product in (True, False):
        self.take(as_product)
        found.append(slopes(layers.conv))
      return found, slopes(_literal_conv)

    found, literal = map(jax.tree.leaves, all_slopes())
    for i, actual in enumerate(found):
      expected = literal[i % len(literal)]
      scale = np.abs(expected).max()
      np.testing.assert_allclose(actual / scale, expected / scale, atol=1e-5)

  @parameterized.product(mode=('vmap', 'shard_map'), as_product=(True, False))
  def test_four_devices_are_one_batch(self, mode, as_product):
    self.check_four_devices(mode, as_product)

  @parameterized.parameters(True, False)
  @pytest.mark.slow
  def test_pmap(self, as_product):
    self.check_four_devices('pmap', as_product)

  def check_four_devices(self, mode, as_product):
    self.take(as_product)
    # The kernel is the same everywhere, images are split.
    x, kernel = _normal(8, 5, 4, 2), _normal(3, 3, 2, 3, seed=1)
    module = _Conv()
    learner = learners.create(jax.random.key(0), module, optax.sgd(1.0), x)
    learner = learner.replace(params={'params': {'kernel': kernel}})

    def body(learner, x, axis_name=None):
      cubes = lambda params, x: jnp.sum(module.apply(params, x) ** 3, (1, 2, 3))
      slope = jax.grad(lambda x: jnp.sum(cubes(learner.params, x)))(x)
      loss = lambda params: (jnp.mean(cubes(params, x)), {})
      moved, _ = learners.descend(learner, loss, axis_name=axis_name)
      return slope, moved.params

    def literal(kernel, x):
      y = _literal_conv(x, kernel, stride=2, padding='same')
      return jnp.sum(y**3) / 8

    slope, moved = _over_devices(mode, body, learner, x)
    # What sgd(1.0) subtracted is the gradient itself.
    actual = kernel - moved['params']['kernel']
    expected, of_x = jax.jit(jax.grad(literal, (0, 1)))(kernel, x)
    scale = np.max(np.abs(expected))
    np.testing.assert_allclose(actual / scale, expected / scale, atol=1e-5)
    scale = np.max(np.abs(of_x))
    np.testing.assert_allclose(slope / 8 / scale, of_x / scale, atol=1e-5)

  @parameterized.parameters(True, False)
  def test_one_image_under_a_kernel_of_each_device(self, as_product):
    self.take(as_product)
    # The image is whole and the kernels are split: its slope is a sum over kernels.
    x, kernels = _normal(1, 5, 4, 2), _normal(4, 3, 3, 2, 3, seed=1)
    total = lambda conv, x, kernel: jnp.sum(
      conv(x, kernel, stride=2, padding='same') ** 3
    )

    def body(x, kernels):
      loss = lambda x: jax.lax.psum(total(layers.conv, x, kernels[0]), _AXIS)
      return jax.grad(loss)(x)

    split, whole = PartitionSpec(_AXIS), PartitionSpec()
    run = jax.shard_map(
      body,
      mesh=Mesh(np.array(jax.devices()[:_DEVICES]), (_AXIS,)),
      in_specs=(whole, split),
      out_specs=whole,
    )
    literal = lambda x: sum(total(_literal_conv, x, k) for k in kernels)
    actual, expected = jax.jit(run)(x, kernels), jax.jit(jax.grad(literal))(x)
    scale = np.max(np.abs(expected))
    np.testing.assert_allclose(actual / scale, expected / scale, atol=1e-5)

  def test_transpose_of_one_point_is_its_kernel(self):
    # A 1 at (1, 2) of stride 2 and padding 1 paints the kernel from (1, 3) on.
    y = jnp.zeros((1, 4, 4, 1)).at[0, 1, 2, 0].set(1)
    kernel = jnp.arange(1.0, 10.0).reshape(3, 3, 1, 1)
    expected = np.zeros((8, 8))
    expected[1:4, 3:6] = kernel[:, :, 0, 0]
    x = layers.conv_transpose(y, kernel, stride=2, padding=1, size=(8, 8))
    np.testing.assert_array_equal(x[0, :, :, 0], expected)


class ConvLayerTest(parameterized.TestCase):
  @parameterized.parameters((28, 5), (7, 3), (6, 4))
  def test_is_the_convolution_of_flax(self, side, size):
    x = np.random.default_rng(0).normal(size=(2, side, side, 3))
    x, key = jnp.asarray(x, jnp.float32), jax.random.key(1)
    ours, theirs = layers.Conv(4, size), nn.Conv(4, (size, size))
    params, own = (jax.jit(each.init)(key, x) for each in (ours, theirs))
    chex.assert_trees_all_equal(params, own)
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    found, expected = (each.apply(params, x) for each in (ours, theirs))
    np.testing.assert_allclose(found, expected, atol=1e-4)


class ConvTransposeTest(parameterized.TestCase):
  @parameterized.product(kernel_size=(1, 3, 5), stride=(1, 2, 4))
  def test_output_is_input_times_stride(self, kernel_size, stride):
    module = layers.ConvTranspose(6, kernel_size, stride)
    (x, params) = jax.eval_shape(
      lambda rng: module.init_with_output(rng, jnp.zeros((2, 3, 4, 5))),
      jax.random.key(0),
    )
    self.assertEqual(x.shape, (2, 3 * stride, 4 * stride, 6))
    shapes = jax.tree.map(lambda leaf: leaf.shape, params['params'])
    self.assertEqual(shapes, {'kernel': (kernel_size, kernel_size, 6, 5)})

  def test_adjoint_of_the_same_convolution(self):
    x, image = _normal(2, 3, 4, 2), _normal(2, 6, 8, 3, seed=1)
    params, result = _run(layers.ConvTranspose(3), x)
    down = layers.conv(image, params['params']['kernel'], stride=2, padding=2)
    self.assertEqual(down.shape, x.shape)
    np.testing.assert_allclose(
      jnp.vdot(down, x), jnp.vdot(image, result), rtol=1e-4
    )

  def test_weights_start_at_a_standard_deviation_of_2_percent(self):
    params, _ = _run(layers.ConvTranspose(40), _normal(1, 1, 1, 40))
    kernel = np.asarray(params['params']['kernel'])  # 40,000 draws
    standard_error = 0.02 / np.sqrt(kernel.size)
    self.assertAlmostEqual(np.mean(kernel), 0, delta=4 * standard_error)
    self.assertAlmostEqual(np.std(kernel), 0.02, delta=3 * standard_error)


class MaxPoolTest(parameterized.TestCase):
  @parameterized.parameters((4, 6), (5, 7))
  def test_is_a_reduction_over_windows(self, height, width):
    x = _normal(2, height, width, 3)
    literal = lambda x: nn.max_pool(x, (2, 2), (2, 2))
    np.testing.assert_array_equal(layers.max_pool(x), literal(x))
    weights = _normal(*literal(x).shape, seed=1)
    grads = [
      jax.grad(lambda x, pool=pool: jnp.sum(weights * pool(x)))(x)
      for pool in (layers.max_pool, literal)
    ]
    np.testing.assert_array_equal(*grads)


class BatchNormTest(parameterized.TestCase):
  @parameterized.parameters(((6, 3),), ((3, 4, 2, 3),))
  def test_statistics_by_hand(self, shape):
    x = 5 + 3 * _normal(*shape)
    rows = np.asarray(x, np.float64).reshape(-1, 3)
    plain = (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5)
    gain, bias = np.array([2.0, -1.0, 0.5]), np.array([1.0, 0.0, -3.0])
    place = (1,) * (len(shape) - 1) + (3,)
    params = {'gain': gain.reshape(place), 'bias': bias.reshape(place)}
    actual = layers.BatchNorm().apply(
      {'params': jax.tree.map(jnp.float32, params)}, x
    )
    np.testing.assert_allclose(
      actual, (plain * gain + bias).reshape(shape), atol=1e-5
    )

  def test_epsilon_bounds_a_collapsed_batch(self):
    # Deviations of +-1e-3 are a variance of 1e-6.
    x = jnp.array([[1e-3], [-1e-3]])
    module = layers.BatchNorm(gain=False, bias=False, epsilon=3e-6)
    np.testing.assert_allclose(module.apply({}, x), [[0.5], [-0.5]], rtol=1e-5)
    np.testing.assert_array_equal(module.apply({}, jnp.ones((4, 2))), 0)

  @parameterized.product(gain=(False, True), bias=(False, True))
  def test_parameters(self, gain, bias):
    module = layers.BatchNorm(gain, bias)
    params, _ = _run(module, _normal(2, 3, 1000))
    params = params.get('params', {})
    self.assertEqual(
      {name: value.shape for name, value in params.items()},
      {
        name: (1, 1, 1000)
        for name, wanted in (('gain', gain), ('bias', bias))
        if wanted
      },
    )
    if (
      gain
    ):  # 4 standard errors of the mean and of the deviation of N(1, 0.02^2)
      self.assertAlmostEqual(jnp.mean(params['gain']), 1, delta=0.0026)
      self.assertAlmostEqual(jnp.std(params['gain']), 0.02, delta=0.0018)
    if bias:
      np.testing.assert_array_equal(params['bias'], 0)

  @parameterized.parameters('vmap', 'pmap', 'shard_map')
  def test_four_devices_are_one_batch(self, mode):
    x, target = 2 + _normal(8, 3, 2), _normal(8, 3, 2, seed=1)
    module = layers.BatchNorm()
    learner = learners.create(jax.random.key(0), module, optax.sgd(1.0), x)
    place = _normal(2, 1, 1, 2, seed=2)
    params = {'params': {'gain': place[0], 'bias': place[1]}}
    learner = learner.replace(params=params)

    def cubes(params, x, target, axis_name):
      y = module.apply(params, x, axis_name=axis_name)
      return jnp.sum((y - target) ** 3, (1, 2)), y

    def body(learner, x, target, axis_name=None):
      def loss(params):
        return jnp.mean(cubes(params, x, target, axis_name)[0]), {}

      def total(x):
        values, y = cubes(learner.params, x, target, axis_name)
        return jnp.sum(values), y

      slope, y = jax.grad(total, has_aux=True)(x)
      moved, _ = learners.descend(learner, loss, axis_name=axis_name)
      return (y, slope), moved.params

    (y, slope), moved = _over_devices(mode, body, learner, x, target)
    (expected_y, expected_slope), expected = jax.jit(body)(learner, x, target)
    np.testing.assert_allclose(y, expected_y, atol=2e-6)
    np.testing.assert_allclose(slope, expected_slope, rtol=1e-4, atol=1e-4)
    for name, start in params['params'].items():
      actual, whole = moved['params'][name], expected['params'][name]
      # The gradient itself, which sgd(1.0) subtracted.
      ratio = (start - actual) / (start - whole)
      np.testing.assert_allclose(ratio, 1.0, atol=1e-5)


class NormalizedTest(parameterized.TestCase):
  @parameterized.parameters(((4,),), ((3, 2, 4),))
  def test_layer_by_hand(self, shape):
    x = 5 + 3 * _normal(6, *shape)
    params, actual = _run(_Norm('layer'), x)
    rows = np.asarray(x, np.float64).reshape(6, -1)
    # The norm begins as the identity; flax adds 1e-6 to the variance.
    expected = (rows - rows.mean(1)[:, None]) / rows.std(1)[:, None]
    np.testing.assert_allclose(actual, expected.reshape(x.shape), atol=1e-5)
    self.assertEqual(
      jax.tree.leaves(jax.tree.map(lambda p: p.size, params)),
      [4, 4],
    )

  @parameterized.parameters(('batch', False), ('layer', True), ('none', True))
  def test_whether_examples_are_alone(self, kind, alone):
    x = _normal(4, 2, 2, 3)
    others = x.at[1:].add(_normal(3, 2, 2, 3, seed=1))
    params, before = _run(_Norm(kind), x)
    after = _Norm(kind).apply(params, others)
    change = np.max(np.abs(after[0] - before[0]))
    self.assertEqual(change == 0, alone)
    self.assertEqual(change < 0.01, alone)

  def test_none_is_the_identity(self):
    x = _normal(3, 2)
    params, y = _run(_Norm('none'), x)
    self.assertEqual(params, {})
    np.testing.assert_array_equal(y, x)

  def test_unknown(self):
    with self.assertRaisesRegex(ValueError, "norm='group'.*'batch', 'layer'"):
      _run(_Norm('group'), _normal(3, 2))


class SpectralTest(parameterized.TestCase):
  @parameterized.parameters(((3, 3, 2, 5),), ((2, 2, 3, 1),))
  def test_of_a_clear_gap(self, shape):
    # A product of unit vectors, ten times, beside entries of 0.1: the next singular
    # value is below 1.2, and twelve steps leave (1.2 / 10)^24 of the error.
    rng = np.random.default_rng(0)
    rows = int(np.prod(shape[:-1]))
    u, v = rng.normal(size=rows), rng.normal(size=shape[-1])
    matrix = 10 * np.outer(u / np.linalg.norm(u), v / np.linalg.norm(v))
    matrix = matrix + 0.1 * rng.normal(size=matrix.shape)
    normed = jax.jit(layers.spectral_normalized)(
      jnp.float32(matrix.reshape(shape))
    )
    self.assertEqual(normed.shape, shape)
    np.testing.assert_allclose(
      normed.reshape(rows, -1),
      matrix / np.linalg.norm(matrix, 2),
      rtol=1e-5,
      atol=1e-7,
    )

  @parameterized.parameters((5, 5), (64, 64), (8, 100))
  def test_of_random_numbers(self, *shape):
    kernels = [_normal(*shape, seed=seed) for seed in range(20)]
    normed = jax.jit(jax.vmap(layers.spectral_normalized))(jnp.stack(kernels))
    largest = np.linalg.norm(normed, 2, (1, 2))
    # Twelve steps find sqrt(m_24 / m_23) of the moments of the squared singular
    # values, weighted by the start's squares, so at least (w_1)^(1/48) of the
    # largest; w_1 is about 1 / n, and of 20 hardly below a thousandth of that.
    n = shape[-1]
    self.assertGreater(np.min(largest), 1 - 1e-5)
    self.assertLess(np.mean(largest), n ** (1 / 48))
    self.assertLess(np.max(largest), (1000 * n) ** (1 / 48))

  def test_more_steps_come_nearer(self):
    kernel = _normal(64, 64)
    largest = [
      np.linalg.norm(
        jax.jit(layers.spectral_normalized, static_argnums=1)(kernel, num), 2
      )
      for num in (1, 30)
    ]
    self.assertGreater(largest[0], 1.1)
    self.assertAlmostEqual(largest[1], 1, delta=0.02)

  def test_zeros_stay_zeros(self):
    def run(kernel):
      normed = layers.spectral_normalized(kernel)
      return jnp.sum(normed), normed

    slope, normed = jax.jit(jax.grad(run, has_aux=True))(
      jnp.zeros((3, 3, 2, 4))
    )
    np.testing.assert_array_equal(normed, 0)
    self.assertTrue(np.all(np.isfinite(slope)))

  def test_slope_by_hand(self):
    # The slope of the largest singular value is u v', so that of c.W / value is
    # c / value - (c.W) u v' / value^2.
    matrix = np.diag([5.0, 1.0, 0.5]) + 0.1 * np.asarray(_normal(3, 3))
    weights = np.asarray(_normal(3, 3, seed=1), np.float64)
    total = lambda w: jnp.sum(weights * layers.spectral_normalized(w))
    slope = jax.jit(jax.grad(total))(jnp.float32(matrix))
    u, values, v = np.linalg.svd(matrix)
    outer = np.outer(u[:, 0], v[0])
    expected = (
      weights / values[0] - np.sum(weights * matrix) * outer / values[0] ** 2
    )
    np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-6)


class OneHotTest(parameterized.TestCase):
  @parameterized.parameters(np.int32, np.uint8, np.int8)
  def test_a_label_that_is_no_class_is_nan(self, dtype):
    label = jnp.array([2, 0, 3, 1]).astype(dtype)
    label = label.at[3].set(jnp.asarray(-1).astype(dtype))  # as a byte 255
    expected = np.eye(3)[[2, 0, 0, 0]]
    expected[2:] = np.nan
    hot = jax.jit(lambda label: layers.one_hot(label, 3))(label)
    np.testing.assert_array_equal(hot, expected)

  def test_more_classes_than_a_byte_has(self):
    hot = layers.one_hot(jnp.array([44, 255], jnp.uint8), 300)
    np.testing.assert_array_equal(hot, np.eye(300)[[44, 255]])

  @parameterized.parameters(
    (np.array([0, 3]), 'label=3 must be in 0, ..., 2'),
    (np.array([0, -1]), 'label=-1 must be in 0, ..., 2'),
    (np.array([0.0, 1.0]), 'label is float64 .*allowed: integers'),
    (np.array([[0], [1]]), r'label is int64 \(2, 1\); allowed: integers \[n\]'),
    (np.array(1), r'label is int64 \(\); allowed'),
  )
  def test_what_is_known_to_be_wrong_is_refused(self, label, message):
    with self.assertRaisesRegex(ValueError, message):
      layers.one_hot(label, 3)

  @parameterized.parameters(True, False)
  def test_labels_without_classes_are_refused(self, traced):
    encode = lambda label: layers.one_hot(label, 0)
    with self.assertRaisesRegex(
      ValueError, 'num_classes=0, but label is given'
    ):
      (jax.jit(encode) if traced else encode)(np.zeros(2, np.int32))


class WithLabelTest(parameterized.TestCase):
  @parameterized.parameters(((),), ((2, 3),))
  def test_label_is_further_channels(self, middle):
    x, label = _normal(2, *middle, 4), jnp.eye(3)[jnp.array([2, 0])]
    joined = layers.with_label(x, label)
    self.assertEqual(joined.shape, (2, *middle, 7))
    np.testing.assert_array_equal(joined[..., :4], x)
    for row, number in enumerate((2, 0)):
      of_label = np.asarray(joined[row, ..., 4:]).reshape(-1, 3)
      np.testing.assert_array_equal(
        of_label, np.tile(np.eye(3)[number], (len(of_label), 1))
      )

  def test_no_label(self):
    x = _normal(2, 3)
    self.assertIs(layers.with_label(x, None), x)

  def test_what_is_nan_stays_so_beside_bytes(self):
    hot = jnp.array([[jnp.nan, jnp.nan]])
    joined = layers.with_label(jnp.ones((1, 3), jnp.uint8), hot)
    np.testing.assert_array_equal(joined, [[1, 1, 1, np.nan, np.nan]])

  def test_labels_of_other_images_are_refused(self):
    with self.assertRaisesRegex(
      ValueError, r'label has shape \(1, 3\); wanted'
    ):
      layers.with_label(_normal(2, 4), jnp.eye(3)[:1])

  def test_dtype_is_that_of_the_input(self):
    x = jnp.ones((2, 3), jnp.bfloat16)
    self.assertEqual(layers.with_label(x, jnp.eye(2)).dtype, jnp.bfloat16)


def _over_devices(mode, body, learner, *rows):
  """Returns (split, whole) results of the body, over four devices, rejoined."""
  body = functools.partial(body, axis_name=_AXIS)
  if mode == 'shard_map':
    split, whole = PartitionSpec(_AXIS), PartitionSpec()
    run = jax.shard_map(
      body,
      mesh=Mesh(np.array(jax.devices()[:_DEVICES]), (_AXIS,)),
      in_specs=(whole, *[split] * len(rows)),
      out_specs=(split, whole),
    )
    return jax.jit(run)(learner, *rows)
  mapped = jax.pmap if mode == 'pmap' else jax.vmap
  run = mapped(body, axis_name=_AXIS, in_axes=(None, *[0] * len(rows)))
  rows = [x.reshape(_DEVICES, -1, *x.shape[1:]) for x in rows]
  split, whole = (jax.jit(run) if mode == 'vmap' else run)(learner, *rows)
  jax.tree.map(
    lambda x: np.testing.assert_array_equal(x, np.broadcast_to(x[:1], x.shape)),
    whole,
  )
  join = lambda x: x.reshape(-1, *x.shape[2:])
  return jax.tree.map(join, split), jax.tree.map(lambda x: x[0], whole)


if __name__ == '__main__':
  absltest.main()
