"""The ImageNet Inception network of December 2015, for Inception Score and FID.

Published numbers use one frozen graph, `classify_image_graph_def.pb`, which differs
from every library's Inception v3: it has 1008 classes, average pools that leave the
padding out, batch normalisation without a scale, and a max pool in the last block.
Parameters are named as the nodes of that graph, so that its weights, which the user
brings, are `load`ed as they are.
"""

import contextlib
import functools
import itertools
import math
import pathlib
import re
import zipfile

from flax import linen as nn
from flax import traverse_util
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from stein_jax import _archives
from stein_jax import checks
from stein_jax import dtypes
from stein_jax import locations
from stein_jax.types import Array, Params

URL = 'http://download.tensorflow.org/models/image/imagenet/inception-2015-12-05.tgz'
NUM_FEATURES = 2048
NUM_CLASSES = 1008
_GRAPH = 'classify_image_graph_def.pb'
_MAX_BYTES = 2**27  # of the graph, which has 10^8
_MAX_FIELDS = 2**18  # of the graph, which has some 10^4


def average_pool(x: Array) -> Array:
  """Returns 3x3 means at stride 1, like x, of pixels inside the image only.

  Examples:
    >>> print(average_pool(jnp.ones((1, 2, 2, 1)))[0, :, :, 0])
    [[1. 1.]
     [1. 1.]]
  """
  x = dtypes.at_least_float32(x)
  means = nn.avg_pool(x, (3, 3), padding='SAME', count_include_pad=False)
  return means.astype(x.dtype)  # flax counts the pixels in the default type


# A row of the table is a block. Bars separate its paths, which are concatenated, and a
# path is a sequence of layers. '96:3x3' is a convolution to 96 channels with kernel
# 3x3, stride 1, padding SAME; '96:3x3/2' has stride 2 and no padding; '96' is
# 1x1. Paths of one layer have their nodes in the scope of the block, longer ones
# in its tower, tower_1, ...; a fork is a block of the scope 'mixed'.
_STEM = '32:3x3/2 32:3x3/1 64:3x3 halve 80 192:3x3/1 halve'
_BLOCKS = (
  '64 | 48 64:5x5 | 64 96:3x3 96:3x3 | mean 32',
  '64 | 48 64:5x5 | 64 96:3x3 96:3x3 | mean 64',
  '64 | 48 64:5x5 | 64 96:3x3 96:3x3 | mean 64',
  '384:3x3/2 | 64 96:3x3 96:3x3/2 | halve',
  '192 | 128 128:1x7 192:7x1 | 128 128:7x1 128:1x7 128:7x1 192:1x7 | mean 192',
  '192 | 160 160:1x7 192:7x1 | 160 160:7x1 160:1x7 160:7x1 192:1x7 | mean 192',
  '192 | 160 160:1x7 192:7x1 | 160 160:7x1 160:1x7 160:7x1 192:1x7 | mean 192',
  '192 | 192 192:1x7 192:7x1 | 192 192:7x1 192:1x7 192:7x1 192:1x7 | mean 192',
  '192 320:3x3/2 | 192 192:1x7 192:7x1 192:3x3/2 | halve',
  '320 | 384 fork | 448 384:3x3 fork | mean 192',
  '320 | 384 fork | 448 384:3x3 fork | max 192',
)
_FORK = '384:1x3 | 384:3x1'
_POOLS = {
  'mean': average_pool,
  'max': lambda x: nn.max_pool(x, (3, 3), padding='SAME'),
  'halve': lambda x: nn.max_pool(x, (3, 3), (2, 2)),
}


class Inception(nn.Module):
  """The network. All of its weights are parameters; it has no other state.

  Convolutions and blocks are submodules named as in the graph, so their outputs
  are what `apply(..., capture_intermediates=True)` collects.

  Attributes:
    logits_bias: whether `softmax/biases` are added to the logits. The classifier adds
      them; the released code of the Inception Score, hence published scores, does not.
    size: height and width that images are resized to, at least 75; the graph's is 299.
  """

  logits_bias: bool = False
  size: int = 299

  def __post_init__(self):
    checks.count(75, size=self.size)
    super().__post_init__()

  @nn.compact
  def __call__(self, x: Array) -> tuple[Array, Array]:
    """Returns features [n, 2048], logits [n, 1008] of x [n, h, w, 3] in [0, 255]."""
    # The graph's own range, which is not quite [-1, 1].
    x = (resize(x.astype(jnp.float32), self.size) - 128) / 128
    x = _run(_STEM, x, _names('conv'))
    for row, name in zip(_BLOCKS, _names('mixed'), strict=False):
      x = _Block(row, name=name)(x)
    features = jnp.mean(x, (1, 2))
    return features, _Logits(self.logits_bias, name='softmax')(features)


class _Block(nn.Module):
  row: str

  @nn.compact
  def __call__(self, x):
    convs, towers = _names('conv'), _names('tower')
    # Paths of one layer and towers count their nodes apart, as the graph does.
    outputs = [
      _Tower(layers, name=next(towers))(x)
      if ' ' in layers
      else _run(layers, x, convs)
      for layers in self.row.split(' | ')
    ]
    return jnp.concatenate(outputs, -1)


class _Tower(nn.Module):
  layers: str

  @nn.compact
  def __call__(self, x):
    return _run(self.layers, x, _names('conv'))


class _Conv(nn.Module):
  layer: str

  @nn.compact
  def __call__(self, x):
    numbers = re.fullmatch(r'(\d+):?(\d?)x?(\d?)/?(\d?)', self.layer).groups()
    filters, height, width, stride = (int(number or 1) for number in numbers)
    shape = (height, width, x.shape[-1], filters)
    x = lax.conv_general_dilated(
      x,
      self.param('conv2d_params', nn.initializers.he_normal(), shape, x.dtype),
      (stride, stride),
      'VALID' if numbers[-1] else 'SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      precision=lax.Precision.HIGHEST,  # scores must not depend on the device
    )
    return nn.relu(_BatchNorm(name='batchnorm')(x))


class _BatchNorm(nn.Module):
  @nn.compact
  def __call__(self, x):
    def param(name, init):
      return self.param(name, init, x.shape[-1:], x.dtype)[None, None, None]

    x = x - param('moving_mean', nn.initializers.zeros)
    scale = lax.rsqrt(param('moving_variance', nn.initializers.ones) + 0.001)
    return x * scale + param('beta', nn.initializers.zeros)


class _Logits(nn.Module):
  bias: bool

  @nn.compact
  def __call__(self, x):
    init, shape = nn.initializers.lecun_normal(), (x.shape[-1], NUM_CLASSES)
    weights = self.param('weights', init, shape, x.dtype)
    # It is a parameter even where unused, so that the option does not change the tree.
    biases = self.param('biases', nn.initializers.zeros, shape[1:], x.dtype)
    logits = jnp.matmul(x, weights, precision=lax.Precision.HIGHEST)
    return logits + biases[None] if self.bias else logits


def _names(scope):
  """Yields scope, scope_1, scope_2, ..., which is how the graph counts."""
  yield scope
  for i in itertools.count(1):
    yield f'{scope}_{i}'


def _run(layers, x, names):
  """Returns x after the layers, which become submodules of the caller."""
  for layer in layers.split():
    if layer in _POOLS:
      x = _POOLS[layer](x)
    elif layer == 'fork':
      x = _Block(_FORK, name='mixed')(x)
    else:
      x = _Conv(layer, name=next(names))(x)
  return x


def resize(x: Array, size: int) -> Array:
  """Returns x [n, h, w, c] as [n, size, size, c] like the graph's ResizeBilinear.

  Row i of the output lies at i * h / size of the input: neither corners nor
  centres of pixels are aligned, and nothing is smoothed.
  """
  x = dtypes.at_least_float32(x)
  for axis in (2, 1):
    # float32 is the graph's: in float64 some rows would have another neighbour.
    scale = np.float32(x.shape[axis] / size)
    source = np.arange(size, dtype=np.float32) * scale
    low = source.astype(np.int32)
    weight = (source - low).astype(x.dtype)
    weight = weight.reshape([-1 if a == axis else 1 for a in range(4)])
    below = jnp.take(x, low, axis, mode='clip')
    x = below + (jnp.take(x, low + 1, axis, mode='clip') - below) * weight
  return x


def load(path: str | pathlib.Path) -> Params:
  """Returns the parameters of `Inception` that a file holds.

  Args:
    path: `classify_image_graph_def.pb`, the archive it comes in, or an `.npz` of
      arrays named as the nodes of the graph: `conv/conv2d_params` and so on.

  Raises:
    FileNotFoundError: nothing is there; the message says where to get it.
    ValueError: the file is another one, is damaged, or has other nodes.
  """
  path = locations.absolute(path)
  if not path.is_file():
    raise FileNotFoundError(
      f'{path} is no file. Get the network of the Inception Score and FID from\n'
      f'  {URL}\nand name that archive, or the {_GRAPH} in it.'
    )
  x = jax.ShapeDtypeStruct((1, 75, 75, 3), jnp.float32)
  shapes = jax.eval_shape(Inception(size=75).init, jax.random.key(0), x)
  wanted = traverse_util.flatten_dict(shapes['params'], sep='/')
  # A scale is as long as the bias beside it.
  scales = {
    name.removesuffix('beta') + 'gamma': want
    for name, want in wanted.items()
    if name.endswith('/batchnorm/beta')
  }
  found = _read(path, lambda name: name in wanted or name in scales)
  for name, want in wanted.items():
    shape = found[name].shape if name in found else 'no such node'
    if shape != want.shape:
      raise ValueError(f'{path}: {name}: wanted {want.shape}, found {shape}.')
    if not np.issubdtype(found[name].dtype, np.floating):
      raise ValueError(
        f'{path}: {name}: wanted floats, found {found[name].dtype}.'
      )
  for name, want in scales.items():
    scale = found.get(name)
    if scale is not None and (scale.shape != want.shape or np.any(scale != 1)):
      raise ValueError(
        f'{path}: {name}: wanted 1, as this network has no scale.'
      )
  # The network has floats, among which a double may be infinite.
  with np.errstate(over='ignore'):
    found = {name: np.asarray(found[name], np.float32) for name in wanted}
  for name, array in found.items():
    if not np.all(np.isfinite(array)):
      raise ValueError(f'{path}: {name}: wanted finite numbers of float32.')
    # The network divides by its root.
    if name.endswith('/moving_variance') and np.min(array) < 0:
      raise ValueError(f'{path}: {name}: wanted no number below 0.')
  arrays = {name: jnp.asarray(array) for name, array in found.items()}
  return {'params': traverse_util.unflatten_dict(arrays, sep='/')}


def _read(path, needed):
  """Returns the arrays of a file by node name, where `needed(name)` is true."""
  if zipfile.is_zipfile(path):
    with (
      _archives.refused(f'{path} cannot be read'),
      contextlib.closing(_archives.Arrays(path)) as arrays,
    ):
      return arrays.read(name for name in arrays.names if needed(name))
  with (
    _archives.refused(f'{path} is damaged'),
    _archives.open_regular(path) as file,
  ):
    stream = _archives.Bounded(file, _archives.MAX_BYTES)
    head = stream.read(512)
    if _archives.is_tar(head):
      content = _archives.tar_member(head, stream, _GRAPH, _MAX_BYTES)
    else:  # the file is the graph itself, not an archive
      content = head + stream.read(_MAX_BYTES)
      _archives.check_length(len(content), _MAX_BYTES)
  if content is None:
    raise ValueError(f'{path}: no {_GRAPH} in this archive.')
  return _constants(path, content, needed)


def _constants(path, content, needed):
  """Returns the needed constants of a serialised TensorFlow graph by name."""
  arrays = {}
  with _archives.refused(f'{path} is no TensorFlow graph'):
    for name, constant in _constant_nodes(memoryview(content), needed):
      shape, values, dtype = constant
      # One value stands for a tensor full of it.
      if dtype != 1 or len(values) not in (1, math.prod(shape)):
        raise ValueError(
          f'{name}: wanted float32 {shape}, found {_type_name(dtype)} and '
          f'{len(values)} values'
        )
      array = values if len(values) == 1 else values.reshape(shape)
      arrays[name] = np.broadcast_to(array, shape)
  return arrays


# The numbers below are of the fields of GraphDef, NodeDef, AttrValue, TensorProto and
# TensorShapeProto.


def _constant_nodes(graph, needed):
  """Yields the name of each needed constant, and what `_tensor` returns."""
  budget = iter(range(_MAX_FIELDS))
  read = lambda message, *fields: _fields(message, budget, fields)
  for _, node in read(graph, 1):
    parts = [*read(node, 1, 2, 5)]
    name, op = (
      b''.join(value for field, value in parts if field == each).decode()
      for each in (1, 2)
    )
    if op != 'Const' or not needed(name):
      continue
    attributes = [dict(read(value, 1, 2)) for each, value in parts if each == 5]
    (value,) = (each[2] for each in attributes if each[1] == b'value')
    (tensor,) = (value for _, value in read(value, 8))
    yield name, _tensor(tensor, read)


def _tensor(tensor, read):
  """Returns the shape, the values and the number of the type of a TensorProto."""
  parts = [*read(tensor, 1, 2, 4, 5)]
  dims = [
    dim for field, shape in parts if field == 2 for _, dim in read(shape, 2)
  ]
  shape = tuple(dict(read(dim, 1)).get(1, 0) for dim in dims)
  content = b''.join(value for field, value in parts if field == 4)
  if not content:
    content = b''.join(value for field, value in parts if field == 5)
  return shape, np.frombuffer(content, '<f4'), dict(parts).get(1, 0)


def _type_name(number):
  """Returns TensorFlow's name of the number of a type."""
  from tensorboardX.proto import types_pb2  # pylint: disable=g-import-not-at-top

  names = types_pb2.DataType
  return names.Name(number) if number in names.values() else f'type {number}'


def _fields(message, budget, wanted):
  """Yields number and value of the wanted fields of a message of protobuf.

  Not by its own parser, which makes an object of every two bytes of a hostile file.
  """
  at = 0
  while at < len(message):
    if next(budget, None) is None:
      raise ValueError(f'it has more than {_MAX_FIELDS} fields')
    tag, at = _varint(message, at)
    number, kind = tag >> 3, tag & 7
    if kind == 0:
      value, at = _varint(message, at)
    else:
      length = {1: 8, 5: 4}.get(kind)
      if kind == 2:
        length, at = _varint(message, at)
      if length is None or length > len(message) - at or not number:
        raise ValueError(f'its part at byte {at} is damaged')
      value, at = message[at : at + length], at + length
    if number in wanted:
      yield number, value


def _varint(message, at):
  """Returns an integer of seven bits a byte, and where it ends."""
  value = 0
  for shift in range(0, 70, 7):
    if at >= len(message):
      break
    value |= (message[at] & 127) << shift
    at += 1
    if not message[at - 1] & 128:
      return value, at
  raise ValueError(f'its number at byte {at} is damaged')


def activations(
  params: Params,
  images: np.ndarray,
  batch_size: int = 50,
  *,
  network: Inception | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns features [n, 2048] and logits [n, 1008], computed in batches.

  Args:
    params: what `load` returns.
    images: on the host, [n, h, w, 3] of any type, values in [0, 255].
    batch_size: images on the device at a time.
    network: `Inception()` where not given.

  Raises:
    ValueError: the images have another shape or another range, such as [0, 1].
  """
  import tqdm  # pylint: disable=g-import-not-at-top

  checks.count(batch_size=batch_size)
  _check_images(images)
  network, num = network or Inception(), len(images)
  batch_size = min(batch_size, num)
  features = np.empty((num, NUM_FEATURES), np.float32)
  logits = np.empty((num, NUM_CLASSES), np.float32)
  starts = range(0, num, batch_size)
  for start in tqdm.tqdm(starts, 'Inception', unit='batch', disable=None):
    # The last batch overlaps the one before, so that one shape is compiled.
    start = min(start, num - batch_size)
    rows = slice(start, start + batch_size)
    features[rows], logits[rows] = _apply(network, params, images[rows])
  return features, logits


@functools.partial(jax.jit, static_argnums=0)
def _apply(network, params, x):
  """Returns the network's output, compiled once for each shape of images."""
  return network.apply(params, x)


def _check_images(images):
  """Refuses all but images [n, h, w, 3] of 0 to 255."""
  if np.ndim(images) != 4 or images.shape[-1] != 3 or not len(images):
    raise ValueError(
      f'images must be [n, h, w, 3], n > 0; found {np.shape(images)}.'
    )
  low, high = np.min(images), np.max(images)
  # Floats of at most 1 are images in [0, 1], which the network would see as black.
  unit = high <= 1 and not np.issubdtype(images.dtype, np.integer)
  if not 0 <= low <= high <= 255 or unit:
    raise ValueError(f'images must be in [0, 255]; found [{low}, {high}].')
