"""Layers that energies, generators and classifiers share."""

import math

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from stein_jax import checks
from stein_jax import collectives
from stein_jax import dtypes
from stein_jax.types import Array

_DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')

ACTIVATIONS = {
  'linear': lambda x: x,
  'sigmoid': nn.sigmoid,
  'tanh': jnp.tanh,
}
NORMS = ('batch', 'layer', 'none')
# On a CPU a convolution is faster as a product of matrices if the patches of the images
# fit into a cache and the kernel is small: the gradient is a sum with a term for each
# position in the kernel.
_PATCH_ENTRIES, _KERNEL_SIDE = 2**21, 5
# The phases of a transposed convolution are faster one by one, by a third, unless their
# products have so few columns.
_FEW_MAPS = 8


def flat(x: Array) -> Array:
  """Returns rows [n, d] of x [n, ...]."""
  return x.reshape(x.shape[0], -1)


def normal(scale: float = 0.02):
  """Returns the initializer N(0, scale^2) of the authors' networks."""
  return nn.initializers.normal(scale)


class BatchNorm(nn.Module):
  """Batch normalisation by the statistics of the batch at hand.

  There are no running averages, neither in training nor in sampling, so its result for
  one example depends on the other examples. The statistics are those of the whole batch
  over `axis_name`.

  Attributes:
    gain: whether it learns a factor, drawn from N(1, 0.02^2) at first.
    bias: whether it learns an offset, 0 at first.
    epsilon: number added to the variance.
  """

  gain: bool = True
  bias: bool = True
  epsilon: float = 1e-5

  @nn.compact
  def __call__(self, x: Array, *, axis_name: str | None = None) -> Array:
    """Returns x [n, ..., c] with mean 0 and variance 1 over all axes but c."""
    # A variance in half precision would lose its digits.
    x = dtypes.at_least_float32(x)
    axes = tuple(range(x.ndim - 1))
    mean = collectives.pmean(jnp.mean(x, axes, keepdims=True), axis_name)
    # The mean of squares less the square of the mean would cancel digits.
    centred = x - mean
    variance = collectives.pmean(
      jnp.mean(centred**2, axes, keepdims=True), axis_name
    )
    x = centred * lax.rsqrt(variance + self.epsilon)
    shape = (1,) * (x.ndim - 1) + (x.shape[-1],)
    if self.gain:
      start = lambda rng, shape: 1 + normal()(rng, shape)
      x = x * self.param('gain', start, shape)
    if self.bias:
      x = x + self.param('bias', nn.initializers.zeros, shape)
    return x


def normalized(
  kind: str, x: Array, *, axis_name: str | None = None, **options
) -> Array:
  """Returns x after a norm layer that the calling compact method thereby makes.

  Args:
    kind: 'batch'; 'layer', which normalises each example by itself; or 'none'.
    x: activations [n, ..., c].
    axis_name: the mapped axis over which the batch is split.
    **options: attributes of `BatchNorm`.
  """
  checks.choice(NORMS, norm=kind)
  if kind == 'batch':
    return BatchNorm(**options)(x, axis_name=axis_name)
  if kind == 'layer':
    return nn.LayerNorm(reduction_axes=tuple(range(1, x.ndim)))(x)
  return x


def max_pool(x: Array) -> Array:
  """Returns the maximum of every 2x2 pixels [n, h // 2, w // 2, c].

  An odd last row or column is left out.
  """
  n, h, w, c = x.shape
  if min(h, w) < 2:
    raise ValueError(f'There is no 2x2 pooling of {h} x {w} pixels.')
  x = x[:, : h // 2 * 2, : w // 2 * 2]
  # A reduction over windows has a slower gradient on XLA's CPU backend.
  return jnp.max(x.reshape(n, h // 2, 2, w // 2, 2, c), (2, 4))


def conv(x: Array, kernel: Array, *, stride: int, padding: int | str) -> Array:
  """Returns the convolution [n, h', w', o] of images x, without flipping the kernel.

  XLA's CPU backend computes its gradient by x slowly inside a loop such as a Langevin
  chain. So on a CPU a small convolution is a product of matrices here, and the gradient
  of any other is computed by `conv_transpose`.

  Args:
    x: images [n, h, w, i].
    kernel: weights [k, k, i, o].
    stride: step in pixels, in both directions.
    padding: number of zeros on every side; or 'same' for a result of ceil(h / stride)
      rows, with one zero more at the end if their number is odd.

  Raises:
    ValueError: the kernel is larger than the padded images.
  """
  for extent in x.shape[1:3]:
    if sum(_pads(extent, len(kernel), stride, padding)) + extent < len(kernel):
      raise ValueError(
        f'A kernel of side {len(kernel)} with padding={padding} does not fit '
        f'into {extent} pixels.'
      )
  x, kernel = dtypes.promoted(x, kernel)
  if _is_dense(x.shape[1:3], kernel, padding):
    return (flat(x) @ kernel.reshape(-1, kernel.shape[-1]))[:, None, None]
  # shard_map wants equally varying arguments of a function with its own gradient.
  x, kernel = collectives.match_varying(x, kernel)
  if jax.default_backend() == 'cpu' and _is_small(x, kernel, stride):
    return _patch_product(x, kernel, stride, padding)
  return _conv(x, kernel, stride, padding)


def _is_dense(size, kernel, padding):
  """Returns whether a kernel covers its images, so that the layer is a dense one."""
  return tuple(size) == kernel.shape[:2] and padding == 0


def _is_small(x, kernel, stride):
  """Returns whether the patches of a convolution are few enough for a product."""
  # A program for any number of images does not know that.
  if not isinstance(x.shape[0], int) or len(kernel) > _KERNEL_SIDE:
    return False
  entries = math.prod(x.shape[:3]) // stride**2 * math.prod(kernel.shape[:3])
  return entries <= _PATCH_ENTRIES


def _patch_product(x, kernel, stride, padding):
  """Returns the convolution as a product of the patches of x and the kernel."""
  k, *_, outputs = kernel.shape
  pads = [_pads(extent, k, stride, padding) for extent in x.shape[1:3]]
  x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
  height, width = ((extent - k) // stride + 1 for extent in x.shape[1:3])
  shifted = [
    x[:, i : i + height * stride : stride, j : j + width * stride : stride]
    for i in range(k)
    for j in range(k)
  ]
  patches = jnp.stack(shifted, 3).reshape(-1, k * k * x.shape[-1])
  result = patches @ kernel.reshape(-1, outputs)
  return result.reshape(-1, height, width, outputs)


def _correlation(x, kernel, stride, padding):
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    [_pads(extent, len(kernel), stride, padding) for extent in x.shape[1:3]],
    dimension_numbers=_DIMENSIONS,
  )


_conv = jax.custom_vjp(_correlation, nondiff_argnums=(2, 3))


def _conv_forward(x, kernel, stride, padding):
  return _conv(x, kernel, stride, padding), (x, kernel)


def _conv_backward(stride, padding, inputs, slope):
  x, kernel = inputs
  back = conv_transpose(
    slope, kernel, stride=stride, padding=padding, size=x.shape[1:3]
  )
  of_kernel = lambda kernel: _correlation(x, kernel, stride, padding)
  return back, jax.vjp(of_kernel, kernel)[1](slope)[0]


_conv.defvjp(_conv_forward, _conv_backward)


def _pads(extent, size, stride, padding):
  """Returns the numbers of zeros before and after `extent` pixels."""
  if padding != 'same':
    return padding, padding
  total = max((-(-extent // stride) - 1) * stride + size - extent, 0)
  return total // 2, total - total // 2


def conv_transpose(
  y: Array,
  kernel: Array,
  *,
  stride: int,
  padding: int | str,
  size: tuple[int, int],
) -> Array:
  """Returns the adjoint of `conv`, images [n, *size, i], at y.

  The pixels of the result that have the same offset modulo the stride are an ordinary
  convolution of y, by the kernel's entries of that offset. The weight gradient of the
  equivalent dilated convolution takes ten to forty times as long on XLA's CPU backend.

  Args:
    y: an array [n, h', w', o] of the shape that `conv` gives for images of that size.
    kernel: weights [k, k, i, o] of `conv`.
    stride: stride of `conv`.
    padding: padding of `conv`.
    size: height and width of the result.
  """
  y, kernel = dtypes.promoted(y, kernel)
  k, _, inputs, outputs = kernel.shape
  if _is_dense(size, kernel, padding):
    product = flat(y) @ kernel.reshape(-1, outputs).T
    return product.reshape(-1, k, k, inputs)
  # Some phases have no entry if the stride is larger than the kernel.
  together = inputs < _FEW_MAPS or stride > k
  of_phases = _together if together else _apart
  x = of_phases(y, kernel, stride, padding, size)
  # The pixels of [n, h, r, w, s, i], r and s < stride, lie next to each other.
  _, height, _, width, *_ = x.shape
  x = x.reshape(-1, height * stride, width * stride, inputs)
  return x[:, : size[0], : size[1]]


def _apart(y, kernel, stride, padding, size):
  """Returns the phases of `conv_transpose`, one convolution each."""
  side = len(kernel)

  # Pixel stride * q + r of the result is the sum over t of y at q - t times the
  # kernel's entry stride * t + r + padding, if there is such an entry.
  def phase(r, extent, have):
    start = r + _pads(extent, side, stride, padding)[0]
    first, last = -(start // stride), (side - 1 - start) // stride
    entries = slice(start % stride, None, stride)
    return entries, (last, -(-extent // stride) - have - first)

  def convolution(r, s):
    rows, vertical = phase(r, size[0], y.shape[1])
    columns, horizontal = phase(s, size[1], y.shape[2])
    # Pixels that no entry meets are cut off first: with negative padding XLA's CPU
    # backend computes a wrong gradient by the kernel (jax 0.10.2).
    cuts = [(min(a, 0), min(b, 0), 0) for a, b in (vertical, horizontal)]
    pads = [(max(a, 0), max(b, 0)) for a, b in (vertical, horizontal)]
    return lax.conv_general_dilated(
      lax.pad(y, jnp.zeros((), y.dtype), [(0, 0, 0), *cuts, (0, 0, 0)]),
      kernel[rows, columns][::-1, ::-1].swapaxes(2, 3),
      (1, 1),
      pads,
      dimension_numbers=_DIMENSIONS,
    )

  offsets = range(stride)
  rows = [jnp.stack([convolution(r, s) for s in offsets], 3) for r in offsets]
  return jnp.stack(rows, 2)


def _together(y, kernel, stride, padding, size):
  """Returns the phases of `conv_transpose` as channels of one convolution.

  Each has as many taps as the largest, some of them zeros.
  """
  k, _, inputs, outputs = kernel.shape
  spans, pads = [], []
  for extent, have in zip(size, y.shape[1:3], strict=True):
    zeros, _ = _pads(extent, k, stride, padding)
    first = -((stride - 1 + zeros) // stride)
    last = (k - 1 - zeros) // stride
    spans.append((last - first + 1, -(stride * first + zeros)))
    pads.append((last, -(-extent // stride) - 1 - first - (have - 1)))
  (rows, above), (columns, left) = spans
  phases = jnp.pad(
    kernel,
    (
      (above, stride * rows - k - above),
      (left, stride * columns - k - left),
      (0, 0),
      (0, 0),
    ),
  ).reshape(rows, stride, columns, stride, inputs, outputs)
  phases = phases[::-1, :, ::-1].transpose(0, 2, 5, 1, 3, 4)
  phases = phases.reshape(rows, columns, outputs, stride**2 * inputs)

  x = lax.conv_general_dilated(
    y, phases, (1, 1), pads, dimension_numbers=_DIMENSIONS
  )
  x = x.reshape(*x.shape[:3], stride, stride, inputs)
  return x.transpose(0, 1, 3, 2, 4, 5)


class Conv(nn.Module):
  """Flax's convolution with padding 'same' and a bias, by `conv`.

  Its parameters have the same names and first values; in a chain it is many times as
  fast on a CPU.

  Attributes:
    features: channels of the result.
    kernel_size: side of the kernel.
  """

  features: int
  kernel_size: int

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns [n, h, w, features] of x [n, h, w, c]."""
    shape = (self.kernel_size,) * 2 + (x.shape[-1], self.features)
    kernel = self.param('kernel', nn.initializers.lecun_normal(), shape)
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    x = conv(x, kernel, stride=1, padding='same')
    return x + bias[None, None, None]


class ConvTranspose(nn.Module):
  """The adjoint of a strided convolution, without bias.

  Attributes:
    features: channels of the result.
    kernel_size: side of the kernel; odd if there is no `size`.
    stride: factor on height and width.
    size: height and width of the result, for a convolution with padding 'same'. None
      for exactly stride times those of the input and equal padding on all sides.
    scale: standard deviation of the initial weights.
  """

  features: int
  kernel_size: int = 5
  stride: int = 2
  size: tuple[int, int] | None = None
  scale: float = 0.02

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns [n, h', w', features] of x [n, h, w, c]."""
    shape = (self.kernel_size,) * 2 + (self.features, x.shape[-1])
    times = (x.shape[1] * self.stride, x.shape[2] * self.stride)
    return conv_transpose(
      x,
      self.param('kernel', normal(self.scale), shape),
      stride=self.stride,
      padding='same' if self.size else (self.kernel_size - 1) // 2,
      size=self.size or times,
    )


def spectral_normalized(kernel: Array, num_iterations: int = 12) -> Array:
  """Returns the kernel divided by the largest singular value of its matrix [..., o].

  A convolution by it stretches no input by much more than the number of positions in
  the kernel. The singular value is found by power iteration from a fixed start at every
  call, so that no state is kept between steps. The value is some per cent too small if
  the second largest is near it. The gradient takes the singular vectors as constants.
  """
  kernel = dtypes.at_least_float32(kernel)
  matrix = kernel.reshape(-1, kernel.shape[-1])
  frozen = lax.stop_gradient(matrix)
  right = jax.random.normal(jax.random.key(0), (matrix.shape[1],), kernel.dtype)
  for _ in range(num_iterations):
    left = frozen @ right
    left /= jnp.linalg.norm(left) + _TINY
    right = left @ frozen
    right /= jnp.linalg.norm(right) + _TINY
  return kernel / (left @ matrix @ right + _TINY)


_TINY = 1e-12  # keeps a kernel of zeros from becoming nan


def one_hot(label: Array, num_classes: int) -> Array:
  """Returns rows [n, num_classes] of labels [n]: 1 at the label and 0 elsewhere.

  A traced label cannot be refused. If it is not a class its row is nan.

  Raises:
    ValueError: there are no classes, the labels are not integers [n], or labels whose
      values are known are out of range.
  """
  if not num_classes:
    raise ValueError(
      'num_classes=0, but label is given: it must be the number of classes.'
    )
  checks.labels(num_classes, label=label)
  label = jnp.asarray(label)
  if label.dtype.itemsize < 4:  # a byte cannot hold every number of classes
    label = label.astype(jnp.int32)
  hot = jax.nn.one_hot(label, num_classes)
  return jnp.where(jnp.sum(hot, -1, keepdims=True) == 1, hot, jnp.nan)


def with_label(x: Array, label: Array | None) -> Array:
  """Returns x [n, ..., c] with the one-hot label [n, k] as k more channels."""
  if label is None:
    return x
  checks.shape((x.shape[0], label.shape[-1]), label=label)
  x = dtypes.floating(x)
  maps = label.reshape(label.shape[0], *(1,) * (x.ndim - 2), -1)
  maps = jnp.broadcast_to(maps, (*x.shape[:-1], maps.shape[-1]))
  return jnp.concatenate([x, maps.astype(x.dtype)], -1)
