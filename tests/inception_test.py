"""Tests of the Inception network against a literal one in NumPy."""

import functools
import io
import pickle
import tarfile

from absl.testing import absltest
from absl.testing import parameterized
from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from tensorboardX.proto import graph_pb2
from tensorboardX.proto import types_pb2

from stein_jax import inception

SIZE = 139  # the last maps are 3x3: a corner, an edge and a middle


class _Literal:
  """The network in float64, on weights that it draws at the first call.

  Attributes:
    weights: by name of the node, of the shapes that the layers here ask for.
    outputs: of convolutions and blocks, by name of the node.
  """

  def __init__(self, images):
    self._rng = np.random.default_rng(0)
    self.weights, self.outputs = {}, {}
    x = self._stem((_bilinear(images, SIZE) - 128) / 128)
    for name, pooled in (('mixed', 32), ('mixed_1', 64), ('mixed_2', 64)):
      x = self._mixed_35(x, name, pooled)
    x = self._mixed_3(x)
    for name, width in (
      *(('mixed_4', 128), ('mixed_5', 160)),
      *(('mixed_6', 160), ('mixed_7', 192)),
    ):
      x = self._mixed_17(x, name, width)
    x = self._mixed_8(x)
    x = self._mixed_9_or_10(x, 'mixed_9', _average_pool)
    x = self._mixed_9_or_10(
      x, 'mixed_10', lambda x: _max_pool(_pad(x, -np.inf))
    )
    self.features = x.mean((1, 2))
    self.logits = self.features @ self._draw(
      'softmax/weights', 0.02, 2048, 1008
    )
    self.logits_with_bias = self.logits + self._draw(
      'softmax/biases', 0.1, 1008
    )

  def _stem(self, x):
    x = self._conv(x, 'conv', 32, 3, 3, stride=2, pad=False)
    x = self._conv(x, 'conv_1', 32, 3, 3, pad=False)
    x = self._conv(x, 'conv_2', 64, 3, 3)
    x = self._conv(_max_pool(x, 2), 'conv_3', 80, 1, 1)
    x = self._conv(x, 'conv_4', 192, 3, 3, pad=False)
    return _max_pool(x, 2)

  def _mixed_35(self, x, name, pooled):
    a = self._conv(x, f'{name}/conv', 64, 1, 1)
    b = self._conv(x, f'{name}/tower/conv', 48, 1, 1)
    b = self._conv(b, f'{name}/tower/conv_1', 64, 5, 5)
    c = self._conv(x, f'{name}/tower_1/conv', 64, 1, 1)
    c = self._conv(c, f'{name}/tower_1/conv_1', 96, 3, 3)
    c = self._conv(c, f'{name}/tower_1/conv_2', 96, 3, 3)
    d = self._conv(_average_pool(x), f'{name}/tower_2/conv', pooled, 1, 1)
    return self._join(name, a, b, c, d)

  def _mixed_3(self, x):
    a = self._conv(x, 'mixed_3/conv', 384, 3, 3, stride=2, pad=False)
    b = self._conv(x, 'mixed_3/tower/conv', 64, 1, 1)
    b = self._conv(b, 'mixed_3/tower/conv_1', 96, 3, 3)
    b = self._conv(b, 'mixed_3/tower/conv_2', 96, 3, 3, stride=2, pad=False)
    return self._join('mixed_3', a, b, _max_pool(x, 2))

  def _mixed_17(self, x, name, width):
    a = self._conv(x, f'{name}/conv', 192, 1, 1)
    b = self._conv(x, f'{name}/tower/conv', width, 1, 1)
    b = self._conv(b, f'{name}/tower/conv_1', width, 1, 7)
    b = self._conv(b, f'{name}/tower/conv_2', 192, 7, 1)
    c = self._conv(x, f'{name}/tower_1/conv', width, 1, 1)
    c = self._conv(c, f'{name}/tower_1/conv_1', width, 7, 1)
    c = self._conv(c, f'{name}/tower_1/conv_2', width, 1, 7)
    c = self._conv(c, f'{name}/tower_1/conv_3', width, 7, 1)
    c = self._conv(c, f'{name}/tower_1/conv_4', 192, 1, 7)
    d = self._conv(_average_pool(x), f'{name}/tower_2/conv', 192, 1, 1)
    return self._join(name, a, b, c, d)

  def _mixed_8(self, x):
    a = self._conv(x, 'mixed_8/tower/conv', 192, 1, 1)
    a = self._conv(a, 'mixed_8/tower/conv_1', 320, 3, 3, stride=2, pad=False)
    b = self._conv(x, 'mixed_8/tower_1/conv', 192, 1, 1)
    b = self._conv(b, 'mixed_8/tower_1/conv_1', 192, 1, 7)
    b = self._conv(b, 'mixed_8/tower_1/conv_2', 192, 7, 1)
    b = self._conv(b, 'mixed_8/tower_1/conv_3', 192, 3, 3, stride=2, pad=False)
    return self._join('mixed_8', a, b, _max_pool(x, 2))

  def _mixed_9_or_10(self, x, name, pool):
    a = self._conv(x, f'{name}/conv', 320, 1, 1)
    b = self._conv(x, f'{name}/tower/conv', 384, 1, 1)
    b_wide = self._conv(b, f'{name}/tower/mixed/conv', 384, 1, 3)
    b_tall = self._conv(b, f'{name}/tower/mixed/conv_1', 384, 3, 1)
    c = self._conv(x, f'{name}/tower_1/conv', 448, 1, 1)
    c = self._conv(c, f'{name}/tower_1/conv_1', 384, 3, 3)
    c_wide = self._conv(c, f'{name}/tower_1/mixed/conv', 384, 1, 3)
    c_tall = self._conv(c, f'{name}/tower_1/mixed/conv_1', 384, 3, 1)
    d = self._conv(pool(x), f'{name}/tower_2/conv', 192, 1, 1)
    return self._join(name, a, b_wide, b_tall, c_wide, c_tall, d)

  def _conv(self, x, name, filters, height, width, stride=1, pad=True):
    if pad:
      x = _pad(x, 0, height // 2, width // 2)
    channels = x.shape[-1]
    scale = np.sqrt(2 / (height * width * channels))
    weight = self._draw(
      f'{name}/conv2d_params', scale, height, width, channels, filters
    )
    patches = _windows(x, height, width, stride)
    x = np.einsum('nijchw,hwcf->nijf', patches, weight, optimize=True)
    norm = f'{name}/batchnorm'
    x = x - self._draw(f'{norm}/moving_mean', 0.3, filters)
    variance = self._draw(f'{norm}/moving_variance', 0.3, filters, offset=2)
    x = x / np.sqrt(variance + 0.001) + self._draw(f'{norm}/beta', 0.3, filters)
    self.outputs[name] = np.maximum(x, 0)
    return self.outputs[name]

  def _join(self, name, *parts):
    self.outputs[name] = np.concatenate(parts, -1)
    return self.outputs[name]

  def _draw(self, name, scale, *shape, offset=0):
    draw = self._rng.standard_normal(shape, np.float32)
    self.weights[name] = np.float32(offset) + np.float32(scale) * draw
    return self.weights[name].astype(np.float64)


def _windows(x, height, width, stride=1):
  """Returns the windows [n, i, j, c, height, width] of x inside the array."""
  view = np.lib.stride_tricks.sliding_window_view(x, (height, width), (1, 2))
  return view[:, ::stride, ::stride]


def _pad(x, value, height=1, width=1):
  edges = ((0, 0), (height, height), (width, width), (0, 0))
  return np.pad(x, edges, constant_values=value)


def _max_pool(x, stride=1):
  return _windows(x, 3, 3, stride).max((-2, -1))


def _average_pool(x):
  return np.nanmean(_windows(_pad(x, np.nan), 3, 3), (-2, -1))


def _bilinear(x, size):
  for _ in range(2):  # rows, then columns as rows
    num, rows = x.shape[1], []
    for i in range(size):
      low = i * num // size
      part, high = i * num / size - low, min(low + 1, num - 1)
      rows.append((1 - part) * x[:, low] + part * x[:, high])
    x = np.stack(rows, 2)
  return x


def _images(num=2):
  return np.random.default_rng(1).integers(0, 256, (num, 60, 80, 3), np.uint8)


@functools.cache
def _literal():
  return _Literal(_images().astype(np.float64))


def _params(weights):
  arrays = {name: jnp.asarray(value) for name, value in weights.items()}
  return {'params': traverse_util.unflatten_dict(arrays, sep='/')}


def _flat(params):
  return traverse_util.flatten_dict(params['params'], sep='/')


class InceptionTest(parameterized.TestCase):
  def test_every_layer_is_the_literal_one(self):
    literal, network = _literal(), inception.Inception(size=SIZE)
    call = jax.jit(
      functools.partial(
        network.apply, capture_intermediates=True, mutable=['intermediates']
      )
    )
    (features, logits), found = call(_params(literal.weights), _images())
    found = traverse_util.flatten_dict(found['intermediates'], sep='/')
    self.assertLen(literal.outputs, 94 + 11)  # convolutions, blocks
    for name, wanted in literal.outputs.items():
      self.assert_close(found[f'{name}/__call__'][0], wanted, name)
    self.assert_close(features, literal.features, 'features')
    self.assert_close(logits, literal.logits, 'logits')

  def test_logits_with_the_bias(self):
    literal = _literal()
    network = inception.Inception(logits_bias=True, size=SIZE)
    _, logits = inception.activations(
      _params(literal.weights), _images(), network=network
    )
    self.assert_close(logits, literal.logits_with_bias, 'logits')

  def test_parameters(self):
    x = jnp.zeros((1, 8, 8, 3))
    init = inception.Inception(size=75).init
    variables = jax.eval_shape(init, jax.random.key(0), x)
    self.assertEqual(list(variables), ['params'])
    self.assertEqual(
      {name: value.shape for name, value in _flat(variables).items()},
      {name: value.shape for name, value in _literal().weights.items()},
    )
    # Keras says 23,851,784 of its Inception v3, whose convolutions and (unscaled)
    # normalisations have these sizes, with 8 classes fewer.
    self.assertEqual(
      sum(value.size for value in jax.tree.leaves(variables)),
      23_851_784 + 8 * (2048 + 1),
    )

  def test_average_pool_leaves_the_padding_out(self):
    x = jnp.arange(1.0, 10.0).reshape(1, 3, 3, 1)
    np.testing.assert_allclose(
      inception.average_pool(x)[0, :, :, 0],
      [[3, 3.5, 4], [4.5, 5, 5.5], [6, 6.5, 7]],  # (1 + 2 + 4 + 5) / 4, ...
      rtol=1e-6,
    )

  def test_resize_by_hand(self):
    x = jnp.array([[0.0, 8.0], [16.0, 24.0]])[None, :, :, None]
    # At 0, 1/2, 1 and 3/2, where the last pixel is all there is.
    np.testing.assert_array_equal(
      inception.resize(x, 4)[0, :, :, 0],
      np.array([0, 8, 16, 16])[:, None] + np.array([0, 4, 8, 8]),
    )
    # At 0 and 3/2.
    x = jnp.array([0.0, 10.0, 40.0])
    x = x[None, :, None, None] + x[None, None, :, None]
    np.testing.assert_array_equal(
      inception.resize(x, 2)[0, :, :, 0], [[0, 25], [25, 50]]
    )

  def test_size_of_the_input_is_kept(self):
    x = jnp.asarray(_images(), jnp.float32)[:, :, :60]
    np.testing.assert_array_equal(inception.resize(x, 60), x)
    with self.assertRaisesRegex(ValueError, 'size=74.*75'):
      inception.Inception(size=74)

  def test_float64_changes_nothing(self):
    network, x = inception.Inception(size=75), jnp.zeros((2, 20, 30, 3))
    shapes = lambda x: jax.eval_shape(network.init, jax.random.key(0), x)
    apply = lambda x: jax.eval_shape(network.apply, shapes(x), x)
    plain = shapes(x), apply(x)
    with jax.enable_x64(True):
      x = np.zeros(x.shape, np.float64)
      self.assertEqual((shapes(x), apply(x)), plain)

  @parameterized.parameters(2, 50)
  def test_activations_do_not_depend_on_batches(self, batch_size):
    network, params = inception.Inception(size=75), _params(_literal().weights)
    images = _images(3)
    features, logits = inception.activations(
      params, images.astype(np.float64), batch_size, network=network
    )
    wanted = jax.jit(network.apply)(params, images)
    self.assertEqual((features.shape, logits.shape), ((3, 2048), (3, 1008)))
    self.assert_close(features, wanted[0], 'features')
    self.assert_close(logits, wanted[1], 'logits')

  @parameterized.parameters(
    (np.zeros((2, 8, 8, 1)), r'\(2, 8, 8, 1\)'),
    (np.zeros((0, 8, 8, 3)), r'\(0, 8, 8, 3\)'),
    (np.zeros((8, 8, 3)), r'\(8, 8, 3\)'),
    (np.full((2, 8, 8, 3), 1.0), r'\[0, 255\].*\[1.0, 1.0\]'),
    (np.full((2, 8, 8, 3), -1.0), r'\[-1.0, -1.0\]'),
    (np.full((2, 8, 8, 3), 256.0), r'\[256.0, 256.0\]'),
    (np.full((2, 8, 8, 3), np.nan), 'nan'),
  )
  def test_bad_images(self, images, message):
    with self.assertRaisesRegex(ValueError, message):
      inception.activations({}, images)

  def assert_close(self, found, wanted, name):
    """Asserts equality up to float32 rounding, relative to the largest value."""
    self.assertEqual(found.shape, wanted.shape, name)
    np.testing.assert_allclose(
      found, wanted, rtol=0, atol=2e-5 * np.max(np.abs(wanted)), err_msg=name
    )


class LoadTest(absltest.TestCase):
  def test_graph(self):
    weights = _literal().weights
    gamma = {'conv/batchnorm/gamma': np.ones(32, np.float32)}
    params = inception.load(self.write('g.pb', _graph({**weights, **gamma})))
    self.assert_same(params, weights)

  def test_arrays(self):
    path = self.create_tempdir().full_path + '/weights.npz'
    np.savez(path, **_literal().weights, unrelated=np.zeros(3))
    self.assert_same(inception.load(path), _literal().weights)

  def test_numbers_that_make_no_score(self):
    path = self.create_tempdir().full_path + '/weights.npz'
    for name, number, message in (
      ('conv/batchnorm/beta', np.nan, 'finite'),
      ('conv/batchnorm/moving_mean', 1e39, 'finite numbers of float32'),
      ('conv/batchnorm/moving_variance', -1.0, 'below 0'),
    ):
      weights = dict(_literal().weights)
      weights[name] = np.array(weights[name], np.float64)
      weights[name][3] = number
      np.savez(path, **weights)
      with self.assertRaisesRegex(ValueError, f'{name}: .*{message}'):
        inception.load(path)

  def test_archive(self):
    weights = _constants()
    path = self.write('inception.tgz', _archive(_graph(weights, full=False)))
    self.assert_same(inception.load(path), weights)

  def test_no_file(self):
    with self.assertRaisesRegex(
      FileNotFoundError, r'nowhere\.pb.*\n.*inception-2015-12-05\.tgz'
    ):
      inception.load('nowhere.pb')

  def test_missing_node(self):
    weights = _constants()
    del weights['mixed_4/tower_1/conv_3/conv2d_params']
    self.assert_refused(
      _graph(weights, full=False),
      r'mixed_4/tower_1/conv_3/conv2d_params.*\(7, 1, 128, 128\).*no such node',
    )

  def test_wrong_shape(self):
    weights = _constants()
    weights['softmax/weights'] = np.zeros((2048, 1000), np.float32)
    self.assert_refused(
      _graph(weights, full=False),
      r'softmax/weights.*\(2048, 1008\).*\(2048, 1000\)',
    )

  def test_wrong_values(self):
    graph = _graph(_constants(), full=False)
    tensor = graph.node[-1].attr['value'].tensor
    tensor.dtype = types_pb2.DT_INT32
    self.assert_refused(graph, 'softmax/biases.*DT_INT32')
    tensor.dtype, tensor.tensor_content = types_pb2.DT_FLOAT, bytes(4 * 1007)
    self.assert_refused(graph, r'softmax/biases.*\(1008,\).*1007 values')

  def test_a_scale_is_not_ignored(self):
    gamma = {'conv/batchnorm/gamma': np.full(32, 2, np.float32)}
    self.assert_refused(
      _graph({**_constants(), **gamma}, full=False), 'conv/batchnorm/gamma'
    )

  def test_a_graph_that_is_made_to_fill_the_memory(self):
    # Two bytes each, of which a parser would make objects.
    self.assert_refused(b'\n\0' * 2**19, 'more than 262144 fields')
    graph = _graph({'conv/batchnorm/gamma': np.ones((1, 1))}, full=False)
    for dim in graph.node[-1].attr['value'].tensor.tensor_shape.dim:
      dim.size = 10**9
    constants = _graph(_constants(), full=False)
    self.assert_refused(
      constants.SerializeToString() + graph.SerializeToString(),
      'gamma: wanted 1',
    )

  def test_other_files(self):
    self.assert_refused(pickle.dumps({'conv': 1}), 'no TensorFlow graph')
    self.assert_refused(
      _archive(b'', 'README'), 'no classify_image_graph_def.pb'
    )
    noise = np.random.default_rng(0).bytes(10**5)
    self.assert_refused(_archive(noise)[: 5 * 10**4], 'damaged')
    path = self.create_tempdir().full_path + '/weights.npz'
    np.savez(path, **{'conv/conv2d_params': np.array([{}], object)})
    with self.assertRaisesRegex(ValueError, 'allow_pickle'):
      inception.load(path)

  def write(self, name, content):
    if not isinstance(content, bytes):
      content = content.SerializeToString()
    return self.create_tempfile(name, content, mode='wb').full_path

  def assert_refused(self, content, message):
    with self.assertRaisesRegex(ValueError, message):
      inception.load(self.write('file', content))

  def assert_same(self, params, weights):
    found = _flat(params)
    self.assertSameElements(found, weights)
    for name, value in found.items():
      np.testing.assert_array_equal(value, weights[name], name)


def _constants():
  """Returns arrays of the shapes of the weights, each full of its number."""
  return {
    name: np.broadcast_to(np.float32(i), value.shape)
    for i, (name, value) in enumerate(_literal().weights.items())
  }


def _graph(arrays, full=True):
  """Returns a GraphDef of the arrays, of one value each unless full."""
  graph = graph_pb2.GraphDef()
  graph.node.add(name='DecodeJpeg/contents', op='Placeholder')
  for name, value in arrays.items():
    tensor = graph.node.add(name=name, op='Const').attr['value'].tensor
    tensor.dtype = types_pb2.DT_FLOAT
    for size in value.shape:
      tensor.tensor_shape.dim.add(size=size)
    if full:
      tensor.tensor_content = value.tobytes()
    else:
      tensor.float_val.append(value.flat[0])
  return graph


def _archive(content, name='./classify_image_graph_def.pb'):
  if not isinstance(content, bytes):
    content = content.SerializeToString()
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode='w:gz') as archive:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
  return buffer.getvalue()


if __name__ == '__main__':
  absltest.main()
