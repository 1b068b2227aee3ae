"""Layers that energies and generators share."""

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
# Convolutions that are products on a CPU: entries of the matrix, and taps a side, of
# which each pair is a sum of its own on the way back.
_IN_CACHE, _FEW_TAPS = 2**21, 5


def flat(x: Array) -> Array:
  """Returns rows [n, d] of x [n, ...]."""
  return x.reshape(len(x), -1)


def normal(scale: float = 0.02):
  """Returns the initialiser N(0, scale^2) of the authors' networks."""
  return nn.initializers.normal(scale)


class BatchNorm(nn.Module):
  """Batch normalisation by the statistics of the batch at hand, always.

  There are no running averages, in training or in sampling: what it returns for
  one example depends on the others. Statistics are those of the whole batch over
  `axis_name`.

  Attributes:
    gain: learn a factor, begun at N(1, 0.02^2).
    bias: learn an offset.
    epsilon: added to the variance.
  """

  gain: bool = True
  bias: bool = True
  epsilon: float = 1e-5

  @nn.compact
  def __call__(self, x: Array, *, axis_name: str | None = None) -> Array:
    """Returns x [n, ..., c] with mean 0 and variance 1 over all but c."""
    x = dtypes.at_least_float32(x)
    axes = tuple(range(x.ndim - 1))
    mean = collectives.pmean(jnp.mean(x, axes, keepdims=True), axis_name)
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
  """Returns x after a new norm layer of that kind, in a compact method.

  Args:
    kind: 'batch', 'layer' (each example by itself) or 'none'.
    x: [n, ..., c].
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
  """Returns the largest of every 2x2 pixels [n, h // 2, w // 2, c].

  An odd last row or column is left out. As a reduction over windows, the same, its
  gradient is slower on XLA's CPU backend.
  """
  n, h, w, c = x.shape
  if min(h, w) < 2:
    raise ValueError(f'There is no 2x2 pooling of {h} x {w} pixels.')
  x = x[:, : h // 2 * 2, : w // 2 * 2]
  return jnp.max(x.reshape(n, h // 2, 2, w // 2, 2, c), (2, 4))


def conv(x: Array, kernel: Array, *, stride: int, padding: int | str) -> Array:
  """Returns the correlation [n, h', w', o] of x [n, h, w, i].

  XLA's CPU backend is slow at its gradient with respect to x inside a loop, such as
  a Langevin chain. There a small one is a product of matrices; of others the
  gradient is `conv_transpose`.

  Args:
    x: images.
    kernel: [k, k, i, o].
    stride: in pixels, both ways.
    padding: zeros on every side; 'same' for ceil(h / stride) rows of result, an odd
      zero at the end.
  """
  for extent in x.shape[1:3]:
    if sum(_pads(extent, len(kernel), stride, padding)) + extent < len(kernel):
      raise ValueError(
        f'A kernel of side {len(kernel)} with padding={padding} does not fit '
        f'into {extent} pixels.'
      )
  x, kernel = dtypes.promoted(x, kernel)
  # Made equal outside: a shard's own examples beside parameters of all of them.
  x, kernel = collectives.match_varying(x, kernel)
  entries = math.prod(x.shape[:3]) // stride**2 * math.prod(kernel.shape[:3])
  small = entries <= _IN_CACHE and len(kernel) <= _FEW_TAPS
  if jax.default_backend() == 'cpu' and small:
    return _product(x, kernel, stride, padding)
  return _conv(x, kernel, stride, padding)


def _product(x, kernel, stride, padding):
  k, *_, outputs = kernel.shape
  pads = [_pads(extent, k, stride, padding) for extent in x.shape[1:3]]
  x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
  height, width = ((extent - k) // stride + 1 for extent in x.shape[1:3])
  seen = [
    x[:, i : i + height * stride : stride, j : j + width * stride : stride]
    for i in range(k)
    for j in range(k)
  ]
  columns = jnp.stack(seen, 3).reshape(-1, k * k * x.shape[-1])
  result = columns @ kernel.reshape(-1, outputs)
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
  """Returns the zeros before and after a side of so many pixels."""
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
  """Returns the adjoint of `conv` [n, *size, i] at y [n, h', w', o].

  Each of the stride^2 phases of the result is an ordinary convolution of y; all
  of them are one, whose channels then are laid out as pixels. As a dilated
  convolution, which computes the same, its weight gradient takes XLA's CPU
  backend ten to forty times as long.

  Args:
    y: what `conv` gives, for images of that size.
    kernel: of `conv`, [k, k, i, o].
    stride: of `conv`.
    padding: of `conv`.
    size: height and width of the result.
  """
  y, kernel = dtypes.promoted(y, kernel)
  k, _, inputs, outputs = kernel.shape
  # Pixel stride * q + r of the result takes y at q - t with the kernel's entry
  # stride * t + r + padding, where there is one; r < stride.
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
  _, height, width, _ = x.shape
  x = x.reshape(-1, height, width, stride, stride, inputs)
  x = x.transpose(0, 1, 3, 2, 4, 5)
  x = x.reshape(-1, height * stride, width * stride, inputs)
  return x[:, : size[0], : size[1]]


class ConvTranspose(nn.Module):
  """The adjoint of a strided convolution, without bias.

  Attributes:
    features: channels of the result.
    kernel_size: its side.
    stride: factor on height and width.
    size: of the result where the convolution is `padding='same'`; without, exactly
      stride times as large, with the zeros on all sides equal, for an odd kernel.
    scale: standard deviation of the first weights.
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
  """Returns the kernel over the largest singular value of its matrix [..., o].

  So a layer stretches no input by much more than the number of its taps. The value is
  found by power iteration from a fixed start, anew at each call: nothing is kept
  from step to step. It is some per cent too small where the second largest is near.
  The iterates are constants to autodiff, the value is not.
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


_TINY = 1e-12  # a kernel of zeros stays one


def one_hot(label: Array, num_classes: int) -> Array:
  """Returns [n, num_classes] of labels [n]: 1 at the label and 0 elsewhere.

  The row of a label that is no class is nan: of a traced label it is all that can be
  said.

  Raises:
    ValueError: the labels are no integers [n], or are known and out of range.
  """
  checks.labels(num_classes, label=label)
  label = jnp.asarray(label)
  if label.dtype.itemsize < 4:  # in a byte there may not be as many classes
    label = label.astype(jnp.int32)
  hot = jax.nn.one_hot(label, num_classes)
  return jnp.where(jnp.sum(hot, -1, keepdims=True) == 1, hot, jnp.nan)


def with_label(x: Array, label: Array | None) -> Array:
  """Returns x [n, ..., c] with the one-hot label [n, k] as k further channels."""
  if label is None:
    return x
  checks.shape((len(x), label.shape[-1]), label=label)
  x = dtypes.floating(x)
  maps = label.reshape(len(label), *(1,) * (x.ndim - 2), -1)
  maps = jnp.broadcast_to(maps, (*x.shape[:-1], maps.shape[-1]))
  return jnp.concatenate([x, maps.astype(x.dtype)], -1)
