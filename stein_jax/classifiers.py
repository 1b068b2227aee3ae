"""Classifiers of images, whose features and logits judge samples."""

from collections.abc import Sequence

from flax import linen as nn
import jax
import jax.numpy as jnp

from stein_jax import checks
from stein_jax import dtypes
from stein_jax import layers
from stein_jax.types import Array, PRNGKey


class CNN(nn.Module):
  """A small convolutional network for digits and clothes.

  It has two 5x5 convolutions with ReLU and 2x2 max pooling, and two dense layers.

  Attributes:
    num_classes: number of classes, and of logits.
    widths: widths of the convolutions.
    dense: number of features before the last layer.
    dropout: share of these features that is set to 0 if a key is given.
  """

  num_classes: int = 10
  widths: Sequence[int] = (16, 32)
  dense: int = 128
  dropout: float = 0.5

  def __post_init__(self):
    checks.count(num_classes=self.num_classes, dense=self.dense)
    checks.counts(widths=self.widths)
    checks.non_negative(dropout=self.dropout)
    checks.at_most(0.99, dropout=self.dropout)
    super().__post_init__()

  @nn.compact
  def __call__(
    self, x: Array, *, rng: PRNGKey | None = None
  ) -> tuple[Array, Array]:
    """Returns features [n, dense] and logits [n, num_classes] of [n, h, w, c]."""
    # Sums over pixels lose digits in half precision.
    x = dtypes.at_least_float32(_images(x))
    for width in self.widths:
      x = layers.max_pool(nn.relu(layers.Conv(width, 5)(x)))
    features = nn.relu(nn.Dense(self.dense)(x.reshape(len(x), -1)))
    x = nn.Dropout(self.dropout)(features, deterministic=rng is None, rng=rng)
    return features, nn.Dense(self.num_classes)(x)


class AllConvolutional(nn.Module):
  """Blocks of convolutions with pooling between, and a mean over pixels.

  This is the network that learns from few labels in Z16. It normalises by the
  statistics of the batch at hand, in tests too, so that its result for an image depends
  a little on the others. If a key is given, Gaussian noise is added to the images, and
  dropout follows every block but the last.

  Attributes:
    blocks: (width, kernel size) of the convolutions of each block.
    num_classes: number of classes, and of logits.
    noise: standard deviation of the noise, in units of the images.
    dropout: share of the results of a block that is set to 0.
  """

  blocks: Sequence[Sequence[Sequence[int]]] = (((64, 3),) * 2,) * 3
  num_classes: int = 10
  noise: float = 0.1
  dropout: float = 0.5

  def __post_init__(self):
    _check_blocks(self.blocks)
    checks.count(num_classes=self.num_classes)
    checks.non_negative(noise=self.noise, dropout=self.dropout)
    checks.at_most(0.99, dropout=self.dropout)
    super().__post_init__()

  @nn.compact
  def __call__(
    self,
    x: Array,
    *,
    rng: PRNGKey | None = None,
    axis_name: str | None = None,
  ) -> tuple[Array, Array]:
    """Returns features [n, width] and logits [n, num_classes] of [n, h, w, c]."""
    x = dtypes.at_least_float32(_images(x))
    # Noise and dropout belong to training, which alone has a key.
    if rng is not None:
      rng, noise_rng = jax.random.split(rng)
      x = x + self.noise * jax.random.normal(noise_rng, x.shape, x.dtype)
    for i, block in enumerate(self.blocks):
      for width, size in block:
        # The norm would subtract a bias, and adds one of its own.
        x = nn.Conv(width, (size, size), use_bias=False)(x)
        x = nn.relu(layers.normalized('batch', x, axis_name=axis_name))
      # The last block goes to the mean over pixels instead.
      if i + 1 < len(self.blocks):
        key = None if rng is None else jax.random.fold_in(rng, i)
        x = nn.Dropout(self.dropout)(
          layers.max_pool(x), deterministic=rng is None, rng=key
        )
    features = jnp.mean(x, (1, 2))
    return features, nn.Dense(self.num_classes)(features)


class ResNet(nn.Module):
  """Residual network of depth 6 n + 2 for small images [HZRS16].

  It has three stages of n blocks, at full, half and a quarter of the resolution. Norms
  are over groups of channels of one example and not over the batch, so that the result
  for an image does not depend on the others.

  Attributes:
    depth: number of layers, one of 8, 14, 20, 26, ..., 110.
    width: channels of the first stage; the others have 2 and 4 times as many.
    num_classes: number of classes, and of logits.
    num_groups: number of groups of every norm.
  """

  depth: int = 32
  width: int = 16
  num_classes: int = 10
  num_groups: int = 4

  def __post_init__(self):
    checks.count(
      num_classes=self.num_classes,
      width=self.width,
      num_groups=self.num_groups,
    )
    # Each block is traced by itself.
    checks.count(maximum=110, depth=self.depth)
    if self.depth < 8 or self.depth % 6 != 2:
      raise ValueError(f'depth={self.depth} must be 6 n + 2, at least 8.')
    if self.width % self.num_groups:
      raise ValueError(
        f'width={self.width} must be divisible by num_groups={self.num_groups}.'
      )
    super().__post_init__()

  @nn.compact
  def __call__(self, x: Array) -> tuple[Array, Array]:
    """Returns features [n, 4 width] and logits [n, num_classes] of [n, h, w, c]."""
    x = dtypes.at_least_float32(_images(x))

    def conv(x, width, stride=1):
      layer = nn.Conv(
        width,
        (3, 3),
        strides=stride,
        padding=1,
        use_bias=False,
        kernel_init=nn.initializers.he_normal(),
      )
      return layer(x)

    # What the network says of an image must not depend on its batch.
    norm = lambda: nn.GroupNorm(self.num_groups)
    x = nn.relu(norm()(conv(x, self.width)))
    for stage in range(3):
      width = self.width * 2**stage
      for block in range((self.depth - 2) // 6):
        stride = 2 if stage and not block else 1
        y = nn.relu(norm()(conv(x, width, stride)))
        y = norm()(conv(y, width))
        # The paper's shortcut has no parameters. It takes every other pixel,
        # and fills the new channels with zeros.
        more = width - x.shape[-1]
        x = jnp.pad(x[:, ::stride, ::stride], ((0, 0),) * 3 + ((0, more),))
        x = nn.relu(x + y)
    features = jnp.mean(x, (1, 2))
    return features, nn.Dense(self.num_classes)(features)


def _images(x):
  """Returns x as an array, and raises ValueError unless it is [n, h, w, c]."""
  x = jnp.asarray(x)
  if x.ndim != 4:
    raise ValueError(f'Images must be [n, h, w, c]; got {x.shape}.')
  return x


def _check_blocks(blocks):
  if not blocks or not all(blocks):
    raise ValueError(
      f'blocks={blocks!r} must be one or more, none of them empty.'
    )
  for i, block in enumerate(blocks):
    for j, layer in enumerate(block):
      name = f'blocks[{i}][{j}]'
      if len(layer) != 2:
        raise ValueError(f'{name}={layer!r} must be (width, kernel size).')
      checks.counts(**{name: layer})


def shifted(rng: PRNGKey, x: Array, *, distance: int, flip: bool) -> Array:
  """Returns images [n, h, w, c], each moved at random and perhaps mirrored.

  Pixels that move in from outside repeat the nearest pixel. The dtype is kept.

  Args:
    rng: key of the moves.
    x: the images.
    distance: largest number of pixels to move by, in both directions.
    flip: whether each image is mirrored with probability one half.

  Raises:
    ValueError: the images are not [n, h, w, c], or the distance is negative.
  """
  checks.key(rng=rng)
  x = _images(x)
  checks.count(minimum=0, distance=distance)
  checks.flag(flip=flip)
  shift_rng, flip_rng = jax.random.split(rng)
  n, h, w, _ = x.shape
  pads = ((0, 0), (distance, distance), (distance, distance), (0, 0))
  # Zeros would put frames around images whose background is not 0.
  padded = jnp.pad(x, pads, mode='edge')
  # An offset of `distance` is the image where it was, since the frame is that
  # wide.
  offsets = jax.random.randint(shift_rng, (n, 2), 0, 2 * distance + 1)

  def cut(image, offset):
    start = (offset[0], offset[1], 0)
    return jax.lax.dynamic_slice(image, start, (h, w, image.shape[-1]))

  x = jax.vmap(cut)(padded, offsets)
  if not flip:
    return x
  # One draw an image, for all its pixels.
  mirror = jax.random.bernoulli(flip_rng, 0.5, (n, 1, 1, 1))
  return jnp.where(mirror, x[:, :, ::-1], x)
