"""Sources of examples, and batches of them.

A source has a length, and `source[indices]` is a dict of arrays: 'image'
float32 [n, ...] and, where there are any, 'label' int32 [n], 'condition' float32
[n, ...], what is known of the image, and 'mask' float32 [n, h, w, 1], 1 where its
pixels are. They are the caller's own: writing into them changes no source. A data
set is a function that returns a source; a config's `data` section calls it.
"""

from collections.abc import Iterator, Mapping
import functools
import hashlib
import inspect
import io
import math
import os
import re
from typing import Any
import zipfile

from absl import logging
import jax
from jax import dtypes
import numpy as np

from stein_jax import build
from stein_jax import checks
from stein_jax import densities
from stein_jax import locations


class Arrays:
  """A source of arrays in memory.

  Bytes become float32 on reading: 0 to 255 the range of `pixels`, times `scale`.
  Floats of rank 3 and more are images in that range already; those of rank 1 and 2
  are numbers and points [n, d], which have no range and are taken as they are.
  Arrays that can be written to are copied, so that whoever does so changes no source;
  those that cannot are shared.

  Raises:
    ValueError: arrays that are no images, labels or masks of one length, are not
      finite, or are out of range; the message has what was found.
  """

  def __init__(
    self,
    arrays: Mapping[str, np.ndarray],
    *,
    pixels: str = 'unit',
    scale: float = 1.0,
  ):
    checks.choice(_PIXELS, pixels=pixels)
    checks.positive(scale=scale)
    arrays = {name: np.asarray(value) for name, value in arrays.items()}
    if 'image' not in arrays:
      raise ValueError(f'Arrays need an image; got {", ".join(arrays)}.')
    for name, value in arrays.items():
      if not value.ndim:
        raise ValueError(
          f'{name} is one {value.dtype}; allowed: arrays [n, ...] of n examples.'
        )
    sizes = {name: len(value) for name, value in arrays.items()}
    if len(set(sizes.values())) != 1 or not all(sizes.values()):
      raise ValueError(f'Arrays need one length of at least 1; got {sizes}.')
    for name, value in arrays.items():
      _CHECKS.get(name, _check_image)(name, value, pixels)
    self._arrays = {name: _frozen(value) for name, value in arrays.items()}
    self.pixels, self.scale = pixels, scale

  def __len__(self) -> int:
    return len(self._arrays['image'])

  def __getitem__(self, indices) -> dict[str, np.ndarray]:
    rows = {name: value[indices] for name, value in self._arrays.items()}
    return _as_batch(rows, self.pixels, self.scale)

  @property
  def num_classes(self) -> int:
    """One more than the largest label; 0 without labels."""
    return 1 + int(np.max(self._arrays.get('label', -1)))


class Records:
  """A source that reads TFDS records when asked, for sets larger than memory."""

  scale = 1.0

  def __init__(self, records, *, size: int, pixels: str = 'unit'):
    checks.choice(_PIXELS, pixels=pixels)
    self._records, self._size, self.pixels = records, size, pixels

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, indices) -> dict[str, np.ndarray]:
    indices = np.arange(len(self))[indices]
    records = self._records.__getitems__([int(i) for i in indices])
    images = [square(record['image'], self._size) for record in records]
    return _as_batch({'image': np.stack(images)}, self.pixels)


_PIXELS = {'unit': (1 / 255, 0.0), 'symmetric': (2 / 255, -1.0)}
# An image file that asks for more is damaged, or made to fill the memory.
_MAX_PIXELS = 2**26
_MAX_BYTES = 2**28
_DTYPES = {'label': np.int32, 'mask': np.float32}  # all else is an image
# By which floats may leave the range of their pixels: half precision's rounding.
_SLACK = 1e-3


def load(name: str, **kwargs):
  """Returns the source of a config's data section: `datasets.name(**kwargs)`.

  Raises:
    ValueError: no such data set; the message names those there are.
    TypeError: an argument that the data set does not take.
    FileNotFoundError: it is not on disk; the message has the command.
  """
  checks.choice(NAMES, name=name)
  function = globals()[name]
  build.check_call(function, kwargs, name)
  return function(**kwargs)


def batches(
  source, batch_size: int, *, seed: int, start: int = 0, whole: bool = False
) -> Iterator[dict[str, np.ndarray]]:
  """Yields this process's rows of the batches from step `start` on, for ever.

  The batch of a step is a pure function of (seed, step): epochs are seeded
  permutations, and the rows left over at an epoch's end are dropped.

  Args:
    source: what to read.
    batch_size: rows over all processes.
    seed: of the permutations.
    start: first step.
    whole: all rows, whatever the process.

  Raises:
    ValueError: a batch larger than the source or not divisible by the processes.
  """
  checks.count(batch_size=batch_size)
  processes = jax.process_count()
  if batch_size > len(source):
    raise ValueError(
      f'batch_size={batch_size} is more than the {len(source)} examples.'
    )
  if batch_size % processes:
    raise ValueError(
      f'batch_size={batch_size} must divide over {processes} processes.'
    )
  rows = slice(0, batch_size)
  if not whole:
    share = batch_size // processes
    rows = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
  return _batches(source, batch_size, seed, start, rows)


def _batches(source, batch_size, seed, step, rows):
  per_epoch = len(source) // batch_size

  @functools.lru_cache(maxsize=1)
  def order(epoch):
    return np.random.default_rng((seed, epoch)).permutation(len(source))

  while True:
    epoch, place = divmod(step, per_epoch)
    begin = place * batch_size
    yield source[order(epoch)[begin : begin + batch_size][rows]]
    step += 1


def digits(
  split: str = 'train', pixels: str = 'unit', scale: float = 1.0
) -> Arrays:
  """Returns scikit-learn's 1,797 real handwritten digits, [8, 8, 1].

  Every fifth is 'test' (360), the rest 'train' (1,437). `scale` multiplies the
  pixels: an energy with unit noise, as the RBM, sees strokes of that height.
  """
  from sklearn import datasets as sklearn_datasets  # pylint: disable=g-import-not-at-top

  checks.choice(('train', 'test'), split=split)
  bunch = sklearn_datasets.load_digits()
  # Values are 0..16; as uint8 they go the way of every other image set.
  images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
  test = np.arange(len(images)) % 5 == 0
  keep = test if split == 'test' else ~test
  arrays = {'image': images[keep], 'label': bunch.target[keep]}
  return Arrays(arrays, pixels=pixels, scale=scale)


def breast_cancer(split: str = 'train') -> Arrays:
  """Returns scikit-learn's breast-cancer table: 30 standardised features, label.

  Every fifth row is 'test' (114), the rest 'train' (455), whose mean and
  standard deviation scale both.
  """
  from sklearn import datasets as sklearn_datasets  # pylint: disable=g-import-not-at-top

  checks.choice(('train', 'test'), split=split)
  features, labels = sklearn_datasets.load_breast_cancer(return_X_y=True)
  test = np.arange(len(features)) % 5 == 0
  mean, spread = features[~test].mean(0), features[~test].std(0)
  features = ((features - mean) / spread).astype(np.float32)
  keep = test if split == 'test' else ~test
  return Arrays({'image': features[keep], 'label': labels[keep]})


def toy(
  density: str = 'eight_gaussians',
  num_examples: int = 10_000,
  split: str = 'train',
) -> Arrays:
  """Returns exact draws [n, d] from one of `densities`."""
  checks.count(num_examples=num_examples)
  checks.choice(('train', 'test'), split=split)
  seed = ('train', 'test').index(split)
  rng = jax.random.key(seed, impl='threefry2x32')  # whatever the default is
  with build.section('density'):
    sample = build.build(densities, density).sample
  return Arrays({'image': np.asarray(sample(rng, num_examples))})


def synthetic(
  shape: tuple[int, ...] = (8, 8, 1),
  num_examples: int = 64,
  num_classes: int = 10,
  split: str = 'train',
  pixels: str = 'unit',
  condition: bool = False,
) -> Arrays:
  """Returns uint8 noise of that shape, for tests of everything but learning."""
  checks.count(num_examples=num_examples, num_classes=num_classes)
  checks.counts(shape=shape)
  checks.choice(('train', 'test'), split=split)
  rng = np.random.default_rng(('train', 'test').index(split))
  noise = lambda: rng.integers(0, 256, (num_examples, *shape), np.uint8)
  arrays = {
    'image': noise(),
    'label': rng.integers(0, num_classes, num_examples),
  }
  if condition:
    arrays['condition'] = noise()
  return Arrays(arrays, pixels=pixels)


def mnist(split: str = 'train', pixels: str = 'unit') -> Arrays:
  """Returns MNIST through TFDS: [28, 28, 1], 60,000 'train', 10,000 'test'."""
  return _in_memory('mnist', split, pixels)


def fashion_mnist(split: str = 'train', pixels: str = 'unit') -> Arrays:
  """Returns Fashion-MNIST through TFDS: [28, 28, 1], 60,000 and 10,000."""
  return _in_memory('fashion_mnist', split, pixels)


def cifar10(split: str = 'train', pixels: str = 'symmetric') -> Arrays:
  """Returns CIFAR-10 through TFDS: [32, 32, 3], 50,000 and 10,000."""
  return _in_memory('cifar10', split, pixels)


def svhn_cropped(split: str = 'train', pixels: str = 'unit') -> Arrays:
  """Returns SVHN through TFDS: [32, 32, 3], 73,257 and 26,032."""
  return _in_memory('svhn_cropped', split, pixels)


def celeb_a(
  split: str = 'train', pixels: str = 'symmetric', size: int = 64
) -> Records:
  """Returns CelebA through TFDS, centre-cropped and resized to [size, size, 3]."""
  return Records(_data_source('celeb_a', split), size=size, pixels=pixels)


def lsun(
  split: str = 'train',
  pixels: str = 'symmetric',
  size: int = 64,
  category: str = 'bedroom',
) -> Records:
  """Returns a category of LSUN through TFDS, cropped to [size, size, 3]."""
  return Records(
    _data_source(f'lsun/{category}', split), size=size, pixels=pixels
  )


NAMES = (
  'digits',
  'breast_cancer',
  'toy',
  'synthetic',
  'npz',
  'folder',
  'mnist',
  'fashion_mnist',
  'cifar10',
  'svhn_cropped',
  'celeb_a',
  'lsun',
)


def square(image: np.ndarray, size: int) -> np.ndarray:
  """Returns the central square of uint8 [h, w, c], resized to [size, size, c].

  Raises:
    ValueError: other values, of no known range, or no pixels.
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
  picture = picture.resize((size, size), Image.Resampling.BOX, box=box)
  return np.asarray(picture).reshape(size, size, -1)


def npz(
  path: str, pixels: str = 'unit', split: str = 'all', scale: float = 1.0
) -> Arrays:
  """Returns the arrays of an .npz file: 'image' and, if there, 'label'.

  `split` is 'all' or, of arrays named 'train_image', 'test_label' and so on, what
  stands before the underscore; 'train[:5000]' and the like are rows of it. Floats of
  rank 3 and more must be in the range of `pixels` already; see `Arrays`. `scale`
  multiplies the pixels.

  Raises:
    FileNotFoundError: no such file.
    ValueError: it is no .npz file, has no images of that split, or arrays that are
      no images or labels.
  """
  file = locations.absolute(path)
  if not file.is_file():
    raise FileNotFoundError(f'path={path!r}: there is no such file as {file}.')
  if not zipfile.is_zipfile(file):
    raise ValueError(f'path={path!r} is no .npz file, or only a part of one.')
  part, rows = _part_and_rows(split)
  prefix = '' if part == 'all' else f'{part}_'
  with np.load(file, allow_pickle=False) as arrays:
    if prefix + 'image' not in arrays:
      raise ValueError(
        f'path={path!r} has no {prefix}image; it has: {", ".join(arrays)}.'
      )
    try:
      found = {
        name: arrays[prefix + name]
        for name in ('image', 'label')
        if prefix + name in arrays
      }
    except Exception as error:  # zipfile, zlib and NumPy have their own
      raise ValueError(f'path={path!r} cannot be read: {error}') from error
  try:
    image = found['image']
    if image.ndim < 2:
      raise ValueError(
        f'image is {image.dtype} {image.shape}; allowed: uint8 or floating '
        '[n, ...].'
      )
    found = {name: array[rows] for name, array in _our_own(found).items()}
    return Arrays(found, pixels=pixels, scale=scale)
  except ValueError as error:
    raise ValueError(f'path={path!r}: {error}') from None


def folder(
  path: str,
  split: str = 'train',
  size: int = 64,
  side: str = 'all',
  mask: str = 'none',
  mirrored: bool = False,
  pixels: str = 'symmetric',
) -> Arrays:
  """Returns images of a folder, or of a .zip of one, and what is known of them.

  Of the .jpg, .jpeg and .png files, in natural order, the central squares,
  resized: 'image' and 'condition' [size, size, 3] and, unless `mask` is 'none',
  'mask' [size, size, 1], 1 where a pixel is known and 0 where it is hidden.
  Hidden pixels of the condition are 128, 1/255 in symmetric range; no byte is
  nearer to 0.

  A file is what a viewer shows of it on a white page: turned as its EXIF says, grey
  as RGB, 16 bits rounded to 8, what is transparent white, the first picture of several
  in a JPEG. Its colour profile and gamma are left alone. Animations are refused.

  Args:
    path: has a folder of files for each split.
    split: the folder's name; 'train[:300]' and the like are rows of it.
    size: height and width, at least 2.
    side: the half of each file that is the image, 'left' or 'right', or 'all'.
    mask: what is hidden: in the 'centre' a box of half the height and width; a
      'box' of that size anywhere, always the same for one index and folder; the
      lower 'half'. With 'none' the condition is the other half of the file.
    mirrored: adds the mirror images of all examples after them.
    pixels: range, 'unit' or 'symmetric'.

  Raises:
    FileNotFoundError: no such folder or .zip, no such split, or no images in it.
    ValueError: a bad option, or a damaged file; the message names it.
  """
  checks.choice(('all', 'left', 'right'), side=side)
  checks.choice(('none', 'centre', 'box', 'half'), mask=mask)
  checks.choice(_PIXELS, pixels=pixels)
  checks.count(2, size=size)
  if mask == 'none' and side == 'all':
    raise ValueError(
      "mask='none' conditions on the other half: side must be 'left' "
      "or 'right', not 'all'."
    )
  part, rows = _part_and_rows(split)
  files = _image_files(path, part)
  indices = np.arange(len(files))[rows]
  if not len(indices):
    raise ValueError(f'split={split!r} has none of {len(files)} images.')
  files = tuple(files[rows])
  digest = _digest(path, _root(path), files, 'image')
  halves = _halves(path, files, digest, size, 1 if side == 'all' else 2)
  chosen = int(side == 'right')
  arrays = {'image': halves[chosen]}
  if mask == 'none':
    arrays['condition'] = halves[1 - chosen]
  else:
    known = _known(mask, part, indices, size)
    arrays['mask'] = known
    arrays['condition'] = np.where(known, arrays['image'], np.uint8(128))
  if mirrored:
    arrays = {
      name: np.concatenate([value, value[:, :, ::-1]])
      for name, value in arrays.items()
    }
  return Arrays(_our_own(arrays), pixels=pixels)


def from_file(section: Mapping[str, Any], path: str) -> dict[str, Any]:
  """Returns a config's data section, its images read from an .npz file instead.

  The file has arrays 'train_image', 'train_label', 'test_image', 'test_label'.
  """
  kept = {key: _option(section, key) for key in ('split', 'pixels', 'scale')}
  said = {key: value for key, value in kept.items() if value is not None}
  return dict(name='npz', path=path, **said)


def to_unit(images: np.ndarray, section: Mapping[str, Any]) -> np.ndarray:
  """Returns images in the range of a config's data section as [0, 1], cut."""
  factor, offset = _range_of(section)
  return np.clip((np.asarray(images) - offset) / (255 * factor), 0, 1)


def from_unit(images: np.ndarray, section: Mapping[str, Any]) -> np.ndarray:
  """Returns images in [0, 1] in the range of a config's data section."""
  factor, offset = _range_of(section)
  return np.asarray(images, np.float32) * np.float32(255 * factor) + offset


def _range_of(section):
  """Returns what uint8 images are multiplied by, and what is added."""
  factor, offset = _PIXELS[_option(section, 'pixels')]
  scale = _option(section, 'scale') or 1.0
  return scale * factor, np.float32(scale * offset)


def _option(section, name):
  """Returns what a section, or else its data set, says; None if it takes no such."""
  defaults = inspect.signature(globals()[section['name']]).parameters
  default = defaults[name].default if name in defaults else None
  return section.get(name, default)


def _check_image(name, value, pixels):
  """Refuses what is no bytes or floats, is not finite or is out of range."""
  floats = dtypes.issubdtype(value.dtype, np.floating)  # of bfloat16 too
  if not value.size or not (floats or value.dtype == np.uint8):
    raise ValueError(
      f'{name} is {value.dtype} {value.shape}; allowed: uint8 or floating [n, ...], '
      f'of 0 to 255 or in the range of pixels={pixels!r}.'
    )
  if floats:
    _check_finite(name, value)
  if value.ndim >= 3:
    _check_range(name, value, pixels)


def _check_range(name, value, pixels):
  """Refuses floats out of the range of their pixels; warns of a range unlikely."""
  low, high = float(value.min()), float(value.max())
  if value.dtype == np.uint8:
    if high == 1:
      logging.warning(
        '%s is uint8 of at most 1, which is black among 0 to 255: save images of 0 '
        'and 1 as floats.',
        name,
      )
    return
  scale, offset = _PIXELS[pixels]
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
  """Refuses what are no classes [n]."""
  del pixels
  whole = np.issubdtype(value.dtype, np.integer)
  if not whole or value.ndim != 1:
    raise ValueError(
      f'{name} is {value.dtype} {value.shape}; allowed: integers [n] of at least 0.'
    )
  for each in (value.min(), value.max()):
    if not 0 <= each < 2**31 - 1:  # one more is a number of classes
      raise ValueError(
        f'{name}={each} must be at least 0, and below {2**31 - 1}.'
      )


def _check_mask(name, value, pixels):
  """Refuses what does not say of pixels whether they are known."""
  del pixels
  if value.ndim != 4 or value.shape[-1] != 1 or value.dtype.kind not in 'biuf':
    raise ValueError(
      f'{name} is {value.dtype} {value.shape}; allowed: [n, h, w, 1].'
    )
  if not np.all((value == 0) | (value == 1)):
    raise ValueError(
      f'{name} has values from {value.min()} to {value.max()}; allowed: 0 and 1.'
    )


_CHECKS = {'label': _check_label, 'mask': _check_mask}  # all else is an image


def _check_finite(name, value):
  with np.errstate(over='ignore'):  # of what float32 does not hold
    rows = np.asarray(value, np.float32).reshape(len(value), -1)
  bad = np.flatnonzero(~np.isfinite(rows).all(1))
  if len(bad):
    raise ValueError(
      f'Arrays must be finite: {name}[{bad[0]}] is not, of {len(bad)} rows in all.'
    )


def _frozen(array):
  """Returns the array, or a copy of one that somebody may write to, read-only."""
  owner = array
  while isinstance(owner, np.ndarray) and not owner.flags.writeable:
    owner = owner.base  # of a view that is read-only, the array it is of
  if isinstance(owner, np.ndarray):
    return _our_own({'': array.copy()})['']
  return array


def _our_own(arrays):
  """Returns arrays that nobody else has, made read-only: they need not be copied."""
  for array in arrays.values():
    array.flags.writeable = False
  return arrays


def _part_and_rows(split):
  """Returns the name and the slice of a split such as train or train[:5000]."""
  parts = re.fullmatch(r'(\w+)(?:\[(\d*):(\d*)\])?', split)
  if not parts:
    raise ValueError(f'split={split!r} must be like train or train[:5000].')
  name, *bounds = parts.groups()
  return name, slice(*(int(bound) if bound else None for bound in bounds))


def _root(path):
  """Returns the folder or the .zip, which is read as one, never unpacked."""
  root = locations.absolute(path)
  if root.is_dir():
    return root
  if zipfile.is_zipfile(root):
    return zipfile.Path(root)
  raise FileNotFoundError(
    f'path={path!r} is no folder and no .zip file: {root}.'
  )


def _image_files(path, part):
  """Returns the images of a split, relative to the path, in natural order."""
  folders = {each.name: each for each in _root(path).iterdir() if each.is_dir()}
  if part not in folders:
    raise FileNotFoundError(
      f'path={path!r} has no folder {part!r}; it has: '
      f'{", ".join(sorted(folders)) or "none"}.'
    )
  found = [each.name for each in folders[part].iterdir()]
  found = [name for name in found if not name.startswith('.')]
  names = [
    name for name in found if name.lower().endswith(('.jpg', '.jpeg', '.png'))
  ]
  if not names:
    raise FileNotFoundError(
      f'path={path!r} has no .jpg, .jpeg or .png file in {part!r}; it has: '
      f'{", ".join(sorted(found)[:9]) or "none"}.'
    )
  others = sorted(set(found) - set(names))
  if others:
    logging.warning(
      '%s: %d of %d in %s are left out, being no .jpg, .jpeg or .png; the first is %s.',
      path,
      len(others),
      len(found),
      part,
      others[0],
    )

  def natural(name):
    # Numbers in every second place; the name itself tells 1 from 01.
    texts = re.split(r'(\d+)', name)
    texts[1::2] = map(int, texts[1::2])
    return texts, name

  return [f'{part}/{name}' for name in sorted(names, key=natural)]


def _digest(path, root, files, kind):
  """Returns a digest of what is in the files of a root: times and sizes may stay."""
  digest = hashlib.sha1(usedforsecurity=False)
  for file in files:
    try:
      with (root / file).open('rb') as stream:
        while content := stream.read(2**20):
          digest.update(content)
        digest.update(f' {stream.tell()} '.encode())
    except Exception as error:  # of a .zip zipfile and zlib have their own
      raise _unreadable(path, file, kind, error) from error
  return digest.hexdigest()


def _unreadable(path, file, kind, error):
  return ValueError(
    f'path={path!r}: {file} is no {kind} that can be read: {error}'
  )


@functools.lru_cache(maxsize=8)
def _halves(path, files, digest, size, count):
  """Returns uint8 [count, n, size, size, 3]: files cut side by side, resized.

  Each is decoded once, and again when the digest of the files is another.
  """
  del digest  # part of the cache key
  root = _root(path)
  halves = np.empty((count, len(files), size, size, 3), np.uint8)
  for i, file in enumerate(files):
    try:
      picture = _seen(_stream(root / file))
      for half, image in enumerate(np.array_split(picture, count, 1)):
        halves[half, i] = square(image, size)
    except Exception as error:  # each decoder has its own
      raise _unreadable(path, file, 'image', error) from error
  halves.flags.writeable = False
  return halves


def _seen(stream):
  """Returns uint8 [h, w, 3]: a JPEG or PNG file as a viewer shows it, on white."""
  from PIL import Image  # pylint: disable=g-import-not-at-top
  from PIL import ImageOps  # pylint: disable=g-import-not-at-top

  picture = Image.open(stream, formats=('JPEG', 'PNG'))
  if math.prod(picture.size) > _MAX_PIXELS:  # not decoded yet
    raise ValueError(f'{picture.size} pixels; allowed: {_MAX_PIXELS} in all')
  if picture.format == 'PNG' and picture.n_frames > 1:
    raise ValueError(
      f'it is an animation of {picture.n_frames} pictures; save each as a file'
    )
  raw = picture.tile[0][3]  # how the file has its pixels
  transparent = 'transparency' in picture.info
  if transparent and raw in ('L;2', 'L;4', 'I;16B', 'RGB;16B'):
    raise ValueError(
      f'it has a transparent colour among {raw} pixels, which Pillow mistakes; save '
      'it with 8 bits'
    )
  picture = ImageOps.exif_transpose(picture)
  if picture.mode in ('I', 'I;16'):  # of 16 bits; Pillow would cut them at 255
    grey = np.round(np.asarray(picture, np.float32) / 257)
    picture = Image.fromarray(grey.astype(np.uint8))
  if transparent or 'A' in picture.mode:
    page = Image.new('RGBA', picture.size, 'white')
    page.alpha_composite(picture.convert('RGBA'))
    picture = page
  return np.asarray(picture.convert('RGB'))


def _stream(file):
  """Returns a file of a folder or a .zip as a stream, unless it is too long."""
  with file.open('rb') as stream:
    content = stream.read(_MAX_BYTES + 1)
  if len(content) > _MAX_BYTES:
    raise ValueError(f'it is longer than {_MAX_BYTES} bytes')
  return io.BytesIO(content)


def _known(mask, part, indices, size):
  """Returns uint8 [n, size, size, 1], 1 where a pixel is known."""
  known = np.ones((len(indices), size, size, 1), np.uint8)
  half = size // 2
  if mask == 'half':
    known[:, size - half :] = 0
    return known
  for image, index in zip(known, indices, strict=True):
    top = left = (size - half) // 2
    if mask == 'box':
      rng = np.random.default_rng((index, *part.encode()))
      top, left = rng.integers(0, size - half + 1, 2)
    image[top : top + half, left : left + half] = 0
  return known


def _in_memory(name, split, pixels):
  # One decoding per process: training and evaluation ask for the same split.
  root = _builder(name).data_path
  files = sorted(each.name for each in root.iterdir() if each.is_file())
  digest = _digest(str(root), root, files, 'record')
  return Arrays(_decoded(name, split, str(root), digest), pixels=pixels)


@functools.lru_cache(maxsize=8)
def _decoded(name, split, folder, digest):
  del folder, digest  # parts of the cache key
  records = _data_source(name, split)
  rows = records.__getitems__(range(len(records)))
  image = np.stack([row['image'] for row in rows])
  label = np.array([row['label'] for row in rows], np.int32)
  return _our_own({'image': image, 'label': label})


def _data_source(name, split) -> Any:
  """Returns TFDS's random-access source of a split."""
  builder = _builder(name)
  names = sorted(builder.info.splits)
  if re.split(r'[\[+]', split)[0] not in names:
    raise ValueError(
      f'split={split!r} is unknown; {name!r} has: {", ".join(names)}.'
    )
  return builder.as_data_source(split=split)


def _builder(name) -> Any:
  """Returns TFDS's builder of a set that is prepared, or says how to prepare it."""
  import tensorflow_datasets as tfds  # pylint: disable=g-import-not-at-top

  try:
    builder = tfds.builder(
      name, data_dir=_data_dir(), file_format='array_record'
    )
    prepared = builder.data_path.exists() and bool(builder.info.splits)
  except tfds.core.registered.DatasetNotFoundError as error:
    raise FileNotFoundError(f'TFDS has no data set {name!r}: {error}') from None
  if not prepared:
    raise FileNotFoundError(
      f'{name!r} is not prepared in {builder.data_path}. Prepare it once with\n'
      '  pip install "stein_jax[prepare]" && python -c "import '
      f"tensorflow_datasets as tfds; tfds.builder('{name}', "
      "file_format='array_record').download_and_prepare()\"\n"
      'or set TFDS_DATA_DIR to a folder that holds it.'
    )
  return builder


def _data_dir():
  return locations.expand(os.environ.get('TFDS_DATA_DIR', '')) or None


def _as_batch(rows, pixels, multiple=1.0):
  """Returns new arrays: images as float32 in the range of `pixels`, scaled."""
  scale, offset = (np.float32(multiple * number) for number in _PIXELS[pixels])
  batch = {}
  for name, value in rows.items():
    if name in _DTYPES:
      value = np.array(value, _DTYPES[name])
    elif value.dtype == np.uint8:
      value = value * scale + offset
    else:
      value = np.array(value, np.float32) * np.float32(multiple)
    batch[name] = value
  return batch
