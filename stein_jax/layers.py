"""Layers that energies and generators share."""

from flax import linen as nn
from jax import lax
import jax.numpy as jnp

from stein_jax import checks
from stein_jax import collectives
from stein_jax.types import Array

_DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')

ACTIVATIONS = {
  'linear': lambda x: x,
  'sigmoid': nn.sigmoid,
  'tanh': jnp.tanh,
}
NORMS = ('batch', 'layer', 'none')


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
  x = x[:, : h // 2 * 2, : w // 2 * 2]
  return jnp.max(x.reshape(n, h // 2, 2, w // 2, 2, c), (2, 4))


def conv(x: Array, kernel: Array, *, stride: int, padding: int) -> Array:
  """Returns the correlation [n, h', w', o] of x [n, h, w, i].

  Args:
    x: images.
    kernel: [k, k, i, o].
    stride: in pixels, both ways.
    padding: zeros on every side.
  """
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    [(padding, padding)] * 2,
    dimension_numbers=_DIMENSIONS,
  )


def conv_transpose(
  y: Array, kernel: Array, *, stride: int, padding: int, size: tuple[int, int]
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
  k, _, inputs, outputs = kernel.shape
  # Pixel stride * q + r of the result takes y at q - t with the kernel's entry
  # stride * t + r + padding, where there is one; r < stride.
  first = -((stride - 1 + padding) // stride)
  last = (k - 1 - padding) // stride
  taps = last - first + 1
  before = -(stride * first + padding)
  phases = jnp.pad(
    kernel, ((before, stride * taps - k - before),) * 2 + ((0, 0),) * 2
  ).reshape(taps, stride, taps, stride, inputs, outputs)
  phases = phases[::-1, :, ::-1].transpose(0, 2, 5, 1, 3, 4)
  phases = phases.reshape(taps, taps, outputs, stride**2 * inputs)

  height, width = (-(-extent // stride) for extent in size)
  pads = [
    (last, extent - 1 - first - (have - 1))
    for extent, have in zip((height, width), y.shape[1:3], strict=True)
  ]
  x = lax.conv_general_dilated(
    y, phases, (1, 1), pads, dimension_numbers=_DIMENSIONS
  )
  x = x.reshape(-1, height, width, stride, stride, inputs)
  x = x.transpose(0, 1, 3, 2, 4, 5)
  x = x.reshape(-1, height * stride, width * stride, inputs)
  return x[:, : size[0], : size[1]]


class ConvTranspose(nn.Module):
  """The adjoint of a 'same' strided convolution: output exactly input x stride.

  Attributes:
    features: channels of the result.
    kernel_size: side of the kernel, odd.
    stride: factor on height and width.
  """

  features: int
  kernel_size: int = 5
  stride: int = 2

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns [n, stride h, stride w, features] of x [n, h, w, c]; no bias."""
    shape = (self.kernel_size,) * 2 + (self.features, x.shape[-1])
    return conv_transpose(
      x,
      self.param('kernel', normal(), shape),
      stride=self.stride,
      padding=(self.kernel_size - 1) // 2,
      size=(x.shape[1] * self.stride, x.shape[2] * self.stride),
    )


def with_label(x: Array, label: Array | None) -> Array:
  """Returns x [n, ..., c] with the one-hot label [n, k] as k further channels."""
  if label is None:
    return x
  maps = label.reshape(len(label), *(1,) * (x.ndim - 2), -1)
  maps = jnp.broadcast_to(maps, (*x.shape[:-1], maps.shape[-1]))
  return jnp.concatenate([x, maps.astype(x.dtype)], -1)
