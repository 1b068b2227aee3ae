"""What data sets return: arrays in memory, or records that are read on demand."""

from collections.abc import Mapping
import copy
import dataclasses
import math
import sys
from typing import Any

from absl import logging
import jax
from jax import dtypes
from jax import lax
import jax.numpy as jnp
import numpy as np

from stein_jax import checks
from stein_jax.types import Array, Batch

# What bytes are multiplied by, and what is added then, by the name of a range.
RANGES = {'unit': (1 / 255, 0.0), 'symmetric': (2 / 255, -1.0)}
# How far floats may leave their range: that is the rounding of half precision.
_SLACK = 1e-3


class Arrays:
  """A source of arrays in memory.

  Bytes become float32 when they are read: 0 to 255 become the range of `pixels`, times
  `scale`. Floats of rank 3 and more are images in that range already; floats of rank 1
  and 2 are numbers and points [n, d], which have no range and stay as they are.
  An array that somebody can write to is copied, so that nobody changes the source; one
  that nobody can write to is shared.

  Args:
    arrays: 'image' [n, ...] and, where there are any, 'label' [n], 'condition' [n, ...]
      and 'mask' [n, h, w, 1].
    pixels: the range of images, 'unit' for [0, 1] or 'symmetric' for [-1, 1].
    scale: a factor on all images.

  Attributes:
    is_dequantized: whether images have noise of one grey level.

  Raises:
    ValueError: an array cannot be what its name says, is not finite or is out of
      range, or lengths differ; the message has what was found.
  """

  is_dequantized = False

  def __init__(
    self,
    arrays: Mapping[str, np.ndarray],
    *,
    pixels: str = 'unit',
    scale: float = 1.0,
  ):
    checks.choice(RANGES, pixels=pixels)
    _check_scale(scale)
    # JAX arrays and lists are taken, too.
    arrays = {name: _as_array(name, value) for name, value in arrays.items()}
    if 'image' not in arrays:
      raise ValueError(f'Arrays need an image; got {", ".join(arrays)}.')
    for name, value in arrays.items():
      if not value.ndim:
        raise ValueError(
          f'{name} is one {value.dtype}; allowed: arrays [n, ...] of n examples.'
        )
    # All lengths are in the message, since it is often one array that is off.
    sizes = {name: len(value) for name, value in arrays.items()}
    if len(set(sizes.values())) != 1 or not all(sizes.values()):
      raise ValueError(f'Arrays need one length of at least 1; got {sizes}.')
    _check(arrays, pixels, scale)
    _check_fit(arrays)
    self._arrays = {name: _unshared(value) for name, value in arrays.items()}
    self.pixels, self.scale = pixels, scale

  def __len__(self) -> int:
    return len(self._arrays['image'])

  def __getitem__(self, indices) -> dict[str, np.ndarray]:
    rows = {name: value[indices] for name, value in self._arrays.items()}
    batch = _as_batch(rows, self.pixels, self.scale)
    if self.is_dequantized:
      scale, offset = _map(self.pixels, self.scale)
      noise = _noise(np.arange(len(self))[indices], rows['image'].shape)
      # 256 levels share the range that ends at the 255th otherwise.
      levels = (rows['image'] + noise) * np.float32(255 / 256)
      batch['image'] = levels * scale + offset
    return batch

  @property
  def num_classes(self) -> int:
    """One more than the largest label; 0 without labels."""
    # The largest counts, and not how many differ: a class without examples is a class.
    return 1 + int(np.max(self._arrays.get('label', -1)))

  def dequantized(self) -> 'Arrays':
    """Returns this source with noise of one grey level on its images [TOB16].

    A byte k becomes (k + u) / 256 of the range, with u uniform on [0, 1). So images
    have a density, which no energy can make infinite by learning the grid. An image has
    the same noise whenever it is read, and in every run.

    Raises:
      ValueError: the images are no bytes.
    """
    image = self._arrays['image']
    if image.dtype != np.uint8:
      raise ValueError(
        f'dequantize=True needs uint8 images, and these are {image.dtype}; allowed: '
        'False.'
      )
    source = copy.copy(self)
    source.is_dequantized = True
    return source

  def binarized(self) -> 'Arrays':
    """Returns this source with images of two levels: bytes from 128 on become 255.

    Raises:
      ValueError: the images are no bytes.
    """
    image = self._arrays['image']
    if image.dtype != np.uint8:
      raise ValueError(
        f'binarize=True needs uint8 images, and these are {image.dtype}; allowed: '
        'False.'
      )
    source = copy.copy(self)
    levels = np.where(image >= 128, np.uint8(255), np.uint8(0))
    source._arrays = {**self._arrays, 'image': levels}
    return source

  def conditioned_on_labels(self) -> 'Arrays':
    """Returns this source with its labels in batches as 'condition' too, int32 [n]."""
    source = copy.copy(self)
    labels = self._arrays['label'].astype(np.int32)
    source._arrays = {**self._arrays, 'condition': labels}
    return source

  def held(self) -> 'Held | None':
    """Returns this source for a device to hold; None of what it cannot make there.

    That is other than images of bytes, with labels or nothing beside them, and the
    noise of `dequantized`, which the host draws.
    """
    rest = dict(self._arrays)
    image = rest.pop('image')
    has_labels_alone = all(value.ndim == 1 for value in rest.values())
    if image.dtype != np.uint8 or self.is_dequantized or not has_labels_alone:
      return None
    every = {'image': np.arange(256, dtype=np.uint8)}
    table = _as_batch(every, self.pixels, self.scale)['image']
    return Held(image, _as_batch(rest, self.pixels, self.scale), table)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Held:
  """A source that a device can hold: `held[indices]` is a batch, also in a program.

  It is the batch of the source that it was made of, bit for bit: a table has what each
  byte becomes there, where a compiler may round a product and a sum at once.

  Attributes:
    image: uint8 [n, ...].
    rest: what there is beside images, int32 [n], by name.
    table: float32 [256].
  """

  image: Array
  rest: dict[str, Array]
  table: Array

  def __getitem__(self, indices: Array) -> Batch:
    rows = lambda array: jnp.take(array, indices, axis=0, mode='clip')
    image = jnp.take(self.table, rows(self.image), mode='clip')
    batch = {'image': image, **jax.tree.map(rows, self.rest)}
    # So that XLA fuses it with nothing that reads a batch, which could round in another
    # way than where the batch is from the host.
    return lax.optimization_barrier(batch)


class Records:
  """A source that reads TFDS records when asked, for sets larger than memory."""

  scale = 1.0

  def __init__(self, records, *, size: int, pixels: str = 'unit'):
    checks.choice(RANGES, pixels=pixels)
    self._records, self._size, self.pixels = records, size, pixels

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, indices) -> dict[str, np.ndarray]:
    # So slices, negative indices and masks are understood as NumPy does.
    indices = np.arange(len(self))[indices]
    records = self._records.__getitems__([int(i) for i in indices])
    images = [square(record['image'], self._size) for record in records]
    return _as_batch({'image': np.stack(images)}, self.pixels)


class Items:
  """A source of anything that has a length and items, read one by one when asked.

  Such are a list of arrays, a Hugging Face or torch data set, and a grain source. An
  item is an image, a pair of image and label, or a mapping. An image is a NumPy, JAX or
  torch array or one of Pillow's, as it is seen on white: [h, w], [h, w, c], torch's
  [c, h, w] with 1 or 3 channels, or a point [d]. Bytes and floats have the ranges that
  `Arrays` takes.

  Args:
    items: the data set.
    pixels: the range of images, 'unit' or 'symmetric'.
    scale: a factor on all images.
    image: key of the image, where items are mappings.
    label: key of the label, which all items have, or none.
    num_classes: number of classes, for labels that are to be the condition.

  Raises:
    TypeError: it has no length or no items, or is a mapping of data sets.
    ValueError: it is empty or without end, or its first item is none of these.
  """

  def __init__(
    self,
    items: Any,
    *,
    pixels: str = 'unit',
    scale: float = 1.0,
    image: str = 'image',
    label: str = 'label',
    num_classes: int = 0,
  ):
    checks.choice(RANGES, pixels=pixels)
    _check_scale(scale)
    checks.count(0, num_classes=num_classes)
    if isinstance(items, Mapping):
      raise TypeError(
        f'A {type(items).__name__} is no source; allowed: one of its values, such as a '
        'split.'
      )
    if not hasattr(items, '__len__') or not hasattr(items, '__getitem__'):
      raise TypeError(
        f'A {type(items).__name__} is no source; allowed: anything with __len__ and '
        '__getitem__.'
      )
    if not len(items):
      raise ValueError('The source has no items.')
    if len(items) == sys.maxsize:  # the length that grain gives what has none
      raise ValueError(
        'The source has no end; allowed: one that is not repeated.'
      )
    self.pixels, self.scale, self.num_classes = pixels, scale, num_classes
    self._items, self._keys = items, (image, label)
    self._conditioned = False
    first = items[0]
    self._labelled = _parts(first, image, label)[1] is not None
    if isinstance(first, Mapping) and len(first) > 1 and not self._labelled:
      logging.warning(
        'Items have no %r, and batches no labels; they have: %s.',
        label,
        ', '.join(map(str, first)),
      )
    self[np.array([0])]  # refuses what is no image before anything is compiled

  def __len__(self) -> int:
    return len(self._items)

  def __getitem__(self, indices) -> dict[str, np.ndarray]:
    chosen = np.arange(len(self))[indices]
    rows = [_parts(self._items[int(i)], *self._keys) for i in chosen]
    images = [_as_image(image) for image, _ in rows]
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
      raise ValueError(
        f'Images have the shapes {sorted(shapes)}; allowed: one shape, as '
        '`datasets.square` makes it.'
      )
    for image in images:
      _check_image('image', image[None], self.pixels)
    if len({image.dtype == np.uint8 for image in images}) > 1:
      raise ValueError(
        'Some images are bytes and some are not; allowed: one kind.'
      )
    if not images:
      return _as_batch({'image': np.zeros((0,))}, self.pixels, self.scale)
    arrays = {'image': np.stack(images)}
    labels = [label for _, label in rows if label is not None]
    if len(labels) != self._labelled * len(rows):
      raise ValueError(
        f'{len(rows) - len(labels)} of {len(rows)} items have no {self._keys[1]!r}, '
        f'and the first item has {"one" if self._labelled else "none"}; allowed: a '
        'label of each item, or of none.'
      )
    if labels:
      arrays['label'] = _stacked(labels)
    _check(arrays, self.pixels, self.scale)
    if labels and self.num_classes:
      checks.labels(self.num_classes, label=arrays['label'])
    batch = _as_batch(arrays, self.pixels, self.scale)
    if self._conditioned:
      batch['condition'] = batch['label'].copy()
    return batch

  def conditioned_on_labels(self) -> 'Items':
    """Returns this source with its labels in batches as 'condition' too, int32 [n].

    Raises:
      ValueError: the number of classes is not known.
    """
    if not self.num_classes:
      raise ValueError(
        "condition='label' needs the number of classes; allowed: "
        'datasets.Items(items, num_classes=10) and so on.'
      )
    source = copy.copy(self)
    source._conditioned = True
    return source


def _parts(item, image, label):
  """Returns the image and the label, or None, of an item."""
  if isinstance(item, Mapping):
    if image not in item:
      raise ValueError(
        f'An item has no {image!r}; it has: {", ".join(map(str, item))}. Allowed: '
        "datasets.Items(items, image='...') with one of these."
      )
    return item[image], item.get(label)
  if isinstance(item, (tuple, list)):
    return (item[0], item[1]) if len(item) > 1 else (item[0], None)
  return item, None


def _stacked(labels):
  """Returns the labels of some items as an array [n]."""
  labels = [_as_array('label', label) for label in labels]
  for label in labels:
    if label.ndim:
      raise ValueError(
        f'A label has the shape {label.shape}; allowed: one number an item, of one '
        'image.'
      )
    if label.dtype.kind not in 'iu':  # among others it might become a number
      _check_label('label', label[None], None)
  return np.stack(labels)


# Modes of Pillow in which a PNG of 16 bits of grey may be; the first has room for more.
_GREY_16 = ('I', 'I;16', 'I;16B', 'I;16L', 'I;16N')


def on_white(picture, transparent: bool) -> np.ndarray:
  """Returns uint8 [h, w, 3] of a picture of Pillow, as it is seen on white.

  Args:
    picture: of any mode but 'F', whose range nobody knows.
    transparent: whether a colour of it is transparent.

  Raises:
    ValueError: it has numbers of more than 16 bits, or below 0.
  """
  from PIL import Image  # pylint: disable=g-import-not-at-top

  if picture.mode in _GREY_16:  # Pillow would cut them at 255
    grey = np.round(np.asarray(picture, np.float32) / 257)
    if grey.min() < 0 or grey.max() > 255:
      raise ValueError(
        f'A picture has numbers from {np.min(picture)} to {np.max(picture)}; allowed: '
        '0 to 65535.'
      )
    picture = Image.fromarray(grey.astype(np.uint8))
  if transparent or 'A' in picture.mode:
    page = Image.new('RGBA', picture.size, 'white')
    page.alpha_composite(picture.convert('RGBA'))
    picture = page
  return np.asarray(picture.convert('RGB'))


def _as_image(image):
  """Returns an array [h, w, c], or a point [d], of what an item has for an image."""
  # One of Pillow's may have a palette; its floats are numbers like any.
  if hasattr(image, 'convert') and image.mode != 'F':
    mode, transparent = image.mode, 'transparency' in image.info
    image = on_white(image, transparent)
    if mode in ('1', 'L', *_GREY_16) and not transparent:
      image = image[..., :1]
  image = _as_array('image', image)
  if image.ndim == 2:
    return image[..., None]
  # torch's images have their channels first.
  if image.ndim == 3 and image.shape[0] in (1, 3):
    if image.shape[-1] not in (1, 3):
      return np.moveaxis(image, 0, -1)
  return image


def square(image: np.ndarray, size: int) -> np.ndarray:
  """Returns the central square of uint8 [h, w, c], resized to [size, size, c].

  Raises:
    ValueError: the image is not bytes, whose range is known, or has no pixels.
  """
  from PIL import Image  # pylint: disable=g-import-not-at-top

  if image.dtype != np.uint8 or image.ndim != 3 or not image.size:
    raise ValueError(
      f'An image is {image.dtype} {image.shape}; allowed: uint8 [h, w, c].'
    )
  side = min(image.shape[:2])
  top, left = ((extent - side) // 2 for extent in image.shape[:2])
  box = (left, top, left + side, top + side)
  # Pillow has no one-channel arrays of rank 3.
  picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
  # A box filter: each pixel is the mean of those that it covers, without
  # ringing.
  picture = picture.resize((size, size), Image.Resampling.BOX, box=box)
  return np.asarray(picture).reshape(size, size, -1)


def read_only(arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
  """Returns arrays that nobody else has, made read-only: `Arrays` shares them then."""
  for array in arrays.values():
    array.flags.writeable = False
  return arrays


def _unshared(array):
  """Returns the array, or a read-only copy of one that somebody may write to."""
  owner = array
  # A view that is read-only may be of an array that is not.
  while isinstance(owner, np.ndarray) and not owner.flags.writeable:
    owner = owner.base
  if isinstance(owner, np.ndarray):
    return read_only({'': array.copy()})['']
  return array


def _map(pixels, multiple):
  """Returns what bytes are multiplied by, and what is added then."""
  return tuple(np.float32(multiple * number) for number in RANGES[pixels])


def _noise(indices, shape):
  """Returns uniform numbers of a shape, whose rows depend on their indices alone."""
  rows = [
    np.random.Generator(np.random.Philox(key=int(i))).random(
      math.prod(shape[np.ndim(indices) :]), np.float32
    )
    for i in np.ravel(indices)
  ]
  return np.reshape(np.array(rows, np.float32), shape)


def _as_batch(rows, pixels, multiple=1.0):
  """Returns new arrays: images as float32 in the range of `pixels`, scaled."""
  scale, offset = _map(pixels, multiple)
  batch = {}
  for name, value in rows.items():
    if name == 'mask':
      value = np.array(value, np.float32)
    elif name == 'label' or value.dtype == np.int32:
      # A condition of this dtype is labels; other integers are bytes.
      value = np.array(value, np.int32)
    elif value.dtype == np.uint8:
      value = value * scale + offset
    else:
      value = np.array(value, np.float32) * np.float32(multiple)
    batch[name] = value
  return batch


def _as_array(name, value):
  """Returns an array of whatever NumPy takes for one."""
  if np.ma.is_masked(value):
    raise ValueError(
      f'{name} has masked values; allowed: arrays where all are known.'
    )
  try:
    return np.asarray(value)
  # Rows may have several lengths, and arrays of others raise what they like.
  except Exception as error:
    raise ValueError(f'{name} is no array: {error}') from error


def _check_scale(scale):
  """Refuses a factor that is zero or infinite in float32, which batches are in."""
  checks.positive(scale=scale)
  with np.errstate(over='ignore'):
    if not np.float32(scale / 255) > 0 or np.isinf(np.float32(scale)):
      raise ValueError(
        f'scale={scale} must be a positive number of float32, and a 255th of it too.'
      )


def _check(arrays, pixels, scale):
  """Refuses arrays that cannot be what their names say, in a batch."""
  for name, value in arrays.items():
    _CHECKS.get(name, _check_image)(name, value, pixels)
    if name not in _CHECKS:
      _check_finite(name, value, pixels, scale)
      if value.ndim >= 3:
        _check_range(name, value, pixels)


def _check_image(name, value, pixels):
  """Refuses all but bytes and floats."""
  # JAX counts bfloat16 among the floats, as NumPy does not.
  floats = dtypes.issubdtype(value.dtype, np.floating)
  if not value.size or not (floats or value.dtype == np.uint8):
    raise ValueError(
      f'{name} is {value.dtype} {value.shape}; allowed: uint8 or floating [n, ...], '
      f'of 0 to 255 or in the range of pixels={pixels!r}.'
    )


def _check_range(name, value, pixels):
  """Refuses floats out of the range of their pixels; warns of an unlikely range."""
  low, high = float(value.min()), float(value.max())
  if value.dtype == np.uint8:
    if high == 1:
      logging.warning(
        '%s is uint8 of at most 1, which is black among 0 to 255: save images of 0 '
        'and 1 as floats.',
        name,
      )
    return
  scale, offset = RANGES[pixels]
  least, most = offset, offset + 255 * scale
  if low < least - _SLACK or high > most + _SLACK:
    raise ValueError(
      f'{name} has {value.dtype} values from {low:.6g} to {high:.6g}, and '
      f'pixels={pixels!r} are from {least:g} to {most:g}: save them as uint8 of 0 to '
      "255, or as floats from 0 to 1 (pixels='unit') or -1 to 1 (pixels='symmetric')."
    )
  if low >= 0 > least:
    logging.warning(
      "%s has values from %.6g to %.6g and pixels='symmetric' are from -1 to 1: if 0 "
      "is black there, say pixels='unit'.",
      name,
      low,
      high,
    )


def _check_label(name, value, pixels):
  """Refuses all but integers [n] that can be classes."""
  del pixels
  # Durations count as integers in NumPy.
  if value.dtype.kind not in 'iu' or value.ndim != 1:
    raise ValueError(
      f'{name} is {value.dtype} {value.shape}; allowed: integers [n] of at least 0.'
    )
  for each in (value.min(), value.max()):
    if not 0 <= each < 2**31 - 1:  # one more is a number of classes
      raise ValueError(
        f'{name}={each} must be at least 0, and below {2**31 - 1}.'
      )


def _check_mask(name, value, pixels):
  """Refuses all but 0 and 1 for each pixel [n, h, w, 1]."""
  del pixels
  if value.ndim != 4 or value.shape[-1] != 1 or value.dtype.kind not in 'biuf':
    raise ValueError(
      f'{name} is {value.dtype} {value.shape}; allowed: [n, h, w, 1].'
    )
  if not np.all((value == 0) | (value == 1)):
    raise ValueError(
      f'{name} has values from {value.min()} to {value.max()}; allowed: 0 and 1.'
    )


def _check_fit(arrays):
  """Refuses what cannot belong to the images."""
  image, mask = arrays['image'], arrays.get('mask')
  if mask is not None and (
    image.ndim != 4 or mask.shape[:-1] != image.shape[:-1]
  ):
    raise ValueError(
      f'mask is {mask.shape} and image {image.shape}; allowed: a mask [n, h, w, 1] of '
      'images [n, h, w, c].'
    )
  if 'condition' in arrays and arrays['condition'].ndim == 1:
    raise ValueError(
      f'condition is {arrays["condition"].dtype} [n]; allowed: [n, ...] of rank 2 and '
      "more. Labels have the name 'label'; with condition='label' they are it."
    )


# What has another name is an image.
_CHECKS = {'label': _check_label, 'mask': _check_mask}


def _check_finite(name, value, pixels, scale):
  """Refuses numbers that are not finite as batches have them: in float32, scaled."""
  # What the least and the greatest become bounds all, and nan is both.
  with np.errstate(invalid='ignore'):
    ends = np.array([value.min(), value.max()], value.dtype)
  if _finite(ends, pixels, scale).all():
    return
  rows = _finite(value, pixels, scale).reshape(len(value), -1).all(1)
  bad = np.flatnonzero(~rows)
  raise ValueError(
    f'Arrays must be finite: {name}[{bad[0]}] is not in float32'
    f'{"" if scale == 1 else f", times scale={scale}"}, of {len(bad)} rows in all.'
  )


def _finite(value, pixels, scale):
  with np.errstate(over='ignore', invalid='ignore'):
    return np.isfinite(_as_batch({'image': value}, pixels, scale)['image'])
