"""Data sets: every public function is one, and returns a source.

To add one is to add a function here; `datasets.load` and a config's `data` section find
it by its name.
"""

import math

import jax
import numpy as np

from stein_jax import build
from stein_jax import checks
from stein_jax import densities
from stein_jax.datasets import _files
from stein_jax.datasets import _tfds
from stein_jax.datasets import sources

_SPLITS = ('train', 'test')
# Made at every launch: noise is for tests, and points are drawn at once.
_MAX_NOISE, _MAX_POINTS = 2**26, 10**6
# Height and channels of sets of one size, so that images of a folder can take their
# place in front of the same networks.
SHAPES = {
  'digits': (8, 1),
  'mnist': (28, 1),
  'fashion_mnist': (28, 1),
  'cifar10': (32, 3),
  'svhn_cropped': (32, 3),
}


def digits(
  split: str = 'train', pixels: str = 'unit', scale: float = 1.0
) -> sources.Arrays:
  """Returns scikit-learn's 1,797 real handwritten digits, [8, 8, 1], with labels.

  Every fifth is 'test' (360), the rest 'train' (1,437). `scale` multiplies the pixels,
  which makes strokes higher than the unit noise that an RBM has.
  """
  from sklearn import datasets as sklearn_datasets  # pylint: disable=g-import-not-at-top

  checks.choice(_SPLITS, split=split)
  bunch = sklearn_datasets.load_digits()
  # Values are 0..16; as uint8 they go the way of every other image set.
  images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
  test = np.arange(len(images)) % 5 == 0
  keep = test if split == 'test' else ~test
  # Bytes and their range are made floats by the source, as for every image set.
  arrays = {'image': images[keep], 'label': bunch.target[keep]}
  return sources.Arrays(arrays, pixels=pixels, scale=scale)


def breast_cancer(split: str = 'train') -> sources.Arrays:
  """Returns scikit-learn's breast-cancer table: 30 standardised features, label.

  Every fifth row is 'test' (114), the rest 'train' (455), whose mean and
  standard deviation scale both.
  """
  from sklearn import datasets as sklearn_datasets  # pylint: disable=g-import-not-at-top

  checks.choice(_SPLITS, split=split)
  features, labels = sklearn_datasets.load_breast_cancer(return_X_y=True)
  test = np.arange(len(features)) % 5 == 0
  # Nothing of the test rows goes into what a model is trained on.
  mean, spread = features[~test].mean(0), features[~test].std(0)
  features = ((features - mean) / spread).astype(np.float32)
  keep = test if split == 'test' else ~test
  return sources.Arrays({'image': features[keep], 'label': labels[keep]})


def toy(
  density: str = 'eight_gaussians',
  num_examples: int = 10_000,
  split: str = 'train',
) -> sources.Arrays:
  """Returns exact draws [n, d] from one of `densities`."""
  checks.count(1, _MAX_POINTS, num_examples=num_examples)
  checks.choice(_SPLITS, split=split)
  # The draws do not depend on JAX's default generator.
  rng = jax.random.key(_SPLITS.index(split), impl='threefry2x32')
  with build.section('density'):
    sample = build.build(densities, density).sample
  return sources.Arrays({'image': np.asarray(sample(rng, num_examples))})


def synthetic(
  shape: tuple[int, ...] = (8, 8, 1),
  num_examples: int = 64,
  num_classes: int = 10,
  split: str = 'train',
  pixels: str = 'unit',
  pairs: bool = False,
) -> sources.Arrays:
  """Returns uint8 noise of that shape, for tests of everything but learning.

  With `pairs` each image has another one as its condition.
  """
  checks.count(num_examples=num_examples, num_classes=num_classes)
  checks.counts(shape=shape)
  if num_examples * math.prod(shape) > _MAX_NOISE:
    fields = f'shape={shape}', f'num_examples={num_examples}'
    first, second = fields if max(shape) > num_examples else fields[::-1]
    raise ValueError(
      f'{first} with {second} is more noise than the {_MAX_NOISE} bytes that are '
      'allowed.'
    )
  checks.choice(_SPLITS, split=split)
  # Another seed for each split, so that test images are not those of training.
  rng = np.random.default_rng(_SPLITS.index(split))
  noise = lambda: rng.integers(0, 256, (num_examples, *shape), np.uint8)
  arrays = {
    'image': noise(),
    'label': rng.integers(0, num_classes, num_examples),
  }
  if pairs:
    arrays['condition'] = noise()
  return sources.Arrays(arrays, pixels=pixels)


def mnist(split: str = 'train', pixels: str = 'unit') -> sources.Arrays:
  """Returns MNIST through TFDS: [28, 28, 1], 60,000 'train', 10,000 'test'."""
  return _tfds.in_memory('mnist', split, pixels)


def fashion_mnist(split: str = 'train', pixels: str = 'unit') -> sources.Arrays:
  """Returns Fashion-MNIST through TFDS: [28, 28, 1], 60,000 and 10,000."""
  return _tfds.in_memory('fashion_mnist', split, pixels)


def cifar10(split: str = 'train', pixels: str = 'symmetric') -> sources.Arrays:
  """Returns CIFAR-10 through TFDS: [32, 32, 3], 50,000 and 10,000."""
  return _tfds.in_memory('cifar10', split, pixels)


def svhn_cropped(split: str = 'train', pixels: str = 'unit') -> sources.Arrays:
  """Returns SVHN through TFDS: [32, 32, 3], 73,257 and 26,032."""
  return _tfds.in_memory('svhn_cropped', split, pixels)


def celeb_a(
  split: str = 'train', pixels: str = 'symmetric', size: int = 64
) -> sources.Records:
  """Returns CelebA through TFDS, centre-cropped and resized to [size, size, 3]."""
  records = _tfds.data_source('celeb_a', split)
  return sources.Records(records, size=size, pixels=pixels)


def lsun(
  split: str = 'train',
  pixels: str = 'symmetric',
  size: int = 64,
  category: str = 'bedroom',
) -> sources.Records:
  """Returns a category of LSUN through TFDS, cropped to [size, size, 3]."""
  records = _tfds.data_source(f'lsun/{category}', split)
  return sources.Records(records, size=size, pixels=pixels)


def npz(
  path: str,
  pixels: str = 'unit',
  split: str = 'all',
  scale: float = 1.0,
  limits: float = 1.0,
) -> sources.Arrays:
  """Returns the arrays of an .npz file: 'image' and, if there, 'label' and the others.

  Floats of rank 3 and more must be in the range of `pixels` already; see `Arrays`.

  Args:
    path: the file.
    pixels: range, 'unit' or 'symmetric'.
    split: 'all', or what stands before the underscore of arrays named 'train_image',
      'test_label' and so on; 'train[:5000]' and the like are rows of it. Where a file
      has no 'test_image', every tenth row is 'test' and the others are 'train'.
    scale: a factor on the pixels.
    limits: a factor on the limits of a file: its arrays may take 200 times as many
      bytes as the file, or 2^28, and what memory is free.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is not an .npz, is damaged, has no images of that split, or
      holds arrays of other names or kinds, or beyond a limit.
  """
  checks.positive(limits=limits)
  part, rows = _files.part_and_rows(split)
  arrays = _files.read_npz(path, part, limits)
  arrays = {name: array[rows] for name, array in arrays.items()}
  try:
    return sources.Arrays(arrays, pixels=pixels, scale=scale)
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
  channels: int = 3,
  limits: float = 1.0,
) -> sources.Arrays:
  """Returns images of a folder, or of a .zip of one, and what is known of them.

  The .jpg, .jpeg and .png files come in natural order. Their central squares are
  resized to 'image' [size, size, channels]. Where a `mask` hides a part of them, or a
  `side` is chosen, there is a 'condition' like the image. Unless `mask` is 'none' there
  is a 'mask' [size, size, 1] too, 1 where a pixel is known and 0 where it is hidden. A
  hidden pixel of the condition is 128, the byte nearest to 0 in symmetric range.

  A file is read as a viewer shows it on a white page: turned as its EXIF says, grey
  as RGB, 16 bits of grey rounded to 8 and those of colours cut, transparent pixels
  white, and the first picture where a JPEG has several. Its colour profile and gamma
  are left alone. Animations are refused.

  Args:
    path: the files, or a folder of them for each split; where files lie in folders of
      their classes, these are their labels, the same ones in each split.
    split: the folder's name; 'train[:300]' and the like are rows of it. Without folders
      of splits every tenth file is 'test', the others are 'train', and 'all' is all.
    size: height and width, at least 2.
    side: the half of each file that is the image, 'left' or 'right', or 'all'.
    mask: what is hidden: 'centre' for a box of half the height and width in the centre;
      'box' for one of that size anywhere, always the same for one index and folder;
      'half' for the lower half. With 'none' the condition is the file's other half,
      and of side='all' there is none.
    mirrored: whether the mirror images of all examples follow them.
    pixels: range, 'unit' or 'symmetric'.
    channels: 3 for RGB, 1 for luminance.
    limits: a factor on the limits of what is read: 2^26 pixels and 2^28 bytes of a
      file, and 2^18 files of a .zip, which take 200 times its bytes together, or 2^28.

  Raises:
    FileNotFoundError: there is no such folder or .zip, no such split, or no image.
    ValueError: an option is bad, or a file is damaged or beyond a limit; the message
      names it.
  """
  checks.choice(('all', 'left', 'right'), side=side)
  checks.choice(('none', 'centre', 'box', 'half'), mask=mask)
  checks.choice(sources.RANGES, pixels=pixels)
  checks.choice((1, 3), channels=channels)
  checks.count(2, 2**13, size=size)  # as many pixels as a picture may have
  checks.positive(limits=limits)
  part, rows = _files.part_and_rows(split)
  # A pair is one file, cut in the middle.
  num_halves = 1 if side == 'all' else 2
  with _files.opened(path, limits) as root:
    files, labels = _files.image_files(path, root, part)
    indices = np.arange(len(files))[rows]
    if not len(indices):
      raise ValueError(
        f'path={path!r}: split={split!r} has none of {len(files)} images.'
      )
    halves = _files.halves(
      path, root, tuple(files[rows]), size, num_halves, channels, limits
    )
  chosen = int(side == 'right')
  arrays = {'image': halves[chosen]}
  if labels is not None:
    arrays['label'] = labels[rows]
  if mask == 'none' and side != 'all':
    arrays['condition'] = halves[1 - chosen]
  if mask != 'none':
    known = _files.known_pixels(mask, part, indices, size)
    arrays['mask'] = known
    # The byte nearest to 0 in symmetric range says nothing of the pixel.
    arrays['condition'] = np.where(known, arrays['image'], np.uint8(128))
  if mirrored:
    arrays = {
      # The mirror images of a pair are mirrored together, and so fit each
      # other.
      name: np.concatenate(
        [value, value[:, :, ::-1] if value.ndim == 4 else value]
      )
      for name, value in arrays.items()
    }
  return sources.Arrays(sources.read_only(arrays), pixels=pixels)
