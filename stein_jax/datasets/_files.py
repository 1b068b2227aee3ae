"""Files of images: folders, .zip files of them, and .npz files."""

import contextlib
import hashlib
import io
import math
import re
import struct
import time
import zipfile
import zlib

from absl import logging
import numpy as np

from stein_jax import _archives
from stein_jax import locations
from stein_jax.datasets import sources

# An image file that asks for more is damaged, or made to fill the memory or the time.
MAX_PIXELS = 2**26
MAX_BYTES = _archives.MAX_BYTES
MAX_CHUNKS = 2**16  # parts of a PNG, which are mostly of 2^13 bytes and more
MAX_SCANS = 16  # of a JPEG of so many pixels; a progressive one has ten
_BAND = 512  # rows
_SHOWN = 9  # names in a message
_QUIET = 10  # seconds after which it is said how far reading is


def part_and_rows(split):
  """Returns the name and the slice of a split such as train or train[:5000]."""
  parts = re.fullmatch(r'(\w+)(?:\[(\d*):(\d*)\])?', split)
  if not parts:
    raise ValueError(f'split={split!r} must be like train or train[:5000].')
  name, *bounds = parts.groups()
  return name, slice(*(int(bound) if bound else None for bound in bounds))


def read_npz(path, part, limits):
  """Returns the arrays of a split of an .npz file, read-only.

  Args:
    path: the file.
    part: what the file has before the names of its arrays and an underscore; 'all' for
      nothing. Where the file has 'train_image' and no 'test_image', or 'image' alone,
      every tenth row is 'test' and the others are 'train'.
    limits: a factor on the limits of `_archives`.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is not an .npz, has no images [n, ...] of that name, or has
      arrays of other names.
  """
  file = locations.absolute(path)
  if file.is_dir():
    raise FileNotFoundError(
      f'path={path!r} is a folder; allowed here: an .npz file. Images in a folder are '
      "read by --path=FOLDER, or by data.name='folder'."
    )
  if not file.exists():
    raise FileNotFoundError(f'path={path!r}: there is no such file as {file}.')
  with _archives.refused(f'path={path!r} is no .npz file that can be read'):
    arrays = _archives.Arrays(file, limits)
  with contextlib.closing(arrays):
    prefix, by_rule = _npz_prefix(arrays.names, part)
    _check_names(path, arrays.names, prefix)
    chosen = [
      prefix + name for name in _ARRAYS if prefix + name in arrays.names
    ]
    with _archives.refused(f'path={path!r} cannot be read'):
      # A rule copies the rows that it chooses.
      found = arrays.read(chosen, copies=2 if by_rule else 1)
  found = {name.removeprefix(prefix): value for name, value in found.items()}
  image = found['image']
  # An array without numbers may have 2^60 rows, in no memory.
  if image.ndim < 2 or not image.size or not image.dtype.itemsize:
    raise ValueError(
      f'path={path!r}: image is {image.dtype} {image.shape}; allowed: uint8 or '
      'floating [n, ...], none of them 0.'
    )
  # A choice of rows, below, would hide that others are of other images.
  for name, array in found.items():
    if array.shape[:1] != image.shape[:1]:
      raise ValueError(
        f'path={path!r}: {name} is {array.dtype} {array.shape}; allowed: one for '
        f'each of {len(image)} images.'
      )
  if by_rule:
    rows = rows_of_rule(part, len(image))
    found = {name: array[rows] for name, array in found.items()}
  return sources.read_only(found)


_ARRAYS = ('image', 'label', 'condition', 'mask')


def _npz_prefix(names, part):
  """Returns what stands before a split's names, and whether a rule splits it off."""
  own = '' if part == 'all' else f'{part}_'
  if f'{own}image' in names or part not in _OF_RULE:
    # Training images are a tenth fewer where nothing else is left for tests.
    alone = part == 'train' and 'test_image' not in names
    return own, alone
  for prefix in ('train_', ''):
    if f'{prefix}image' in names:
      return prefix, True
  return own, False


def _check_names(path, names, prefix):
  """Refuses an .npz without images, or with arrays that nothing would read."""
  allowed = (
    'image, or train_image and test_image, with labels as train_label and so on, and '
    'condition and mask in the same way'
  )
  if prefix + 'image' not in names:
    raise ValueError(
      f'path={path!r} has no {prefix}image; it has: {_listing(names)}. Allowed: '
      f'{allowed}.'
    )
  for name in names:
    before, _, what = name.rpartition('_')
    images = f'{before}_image' if before else 'image'
    # Labels by another name would be left out without a word.
    if what not in _ARRAYS or images not in names:
      raise ValueError(
        f'path={path!r} has {name[:80]!r}, which nothing would read; allowed: '
        f'{allowed}.'
      )


def _listing(names):
  """Returns some names for a message, of which a file may have many and long ones."""
  some = ', '.join(map(_archives.shown, names[:_SHOWN])) or 'none'
  return some + (
    f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
  )


@contextlib.contextmanager
def opened(path, limits):
  """Yields the folder or the .zip, which is read as one, never unpacked.

  Raises:
    FileNotFoundError: it is neither.
    ValueError: it is a pipe or the like, or a .zip that is damaged or beyond a limit.
  """
  root = locations.absolute(path)
  with _archives.refused(f'path={path!r} cannot be read'):
    if root.is_file():
      with _archives.open_regular(root) as file:
        is_one = zipfile.is_zipfile(file)
    else:
      is_one = root.is_dir()
      if root.exists() and not is_one:
        _archives.open_regular(root)  # says what it is
  if not is_one:
    raise FileNotFoundError(
      f'path={path!r} is no folder and no .zip file: {root}. --path=FOLDER names '
      'images that have moved.'
    )
  with _archives.refused(f'path={path!r} cannot be read'):
    found = _archives.opened(root, limits)
  with contextlib.closing(found):
    yield found


def image_files(path, root, part):
  """Returns the images of a split, in natural order, and their labels [n] or None.

  The split is a folder of that name, also in capital letters. Where there is no folder
  of any split, every tenth image is 'test' and the others are 'train'; 'all' is all of
  them. Images that lie in folders of their classes have labels, the classes in natural
  order; a class has one label in all splits, by that of 'train', and those that 'train'
  lacks follow. Names are relative to the path.

  Args:
    path: the folder or .zip as the user named it, for messages.
    root: what `opened` gives.
    part: name of the split.

  Raises:
    FileNotFoundError: there is no such split, or it has no images.
    ValueError: a folder cannot be read.
  """
  if root.left_out:
    logging.warning(
      '%s: %d members are left out, whose names leave the archive or are too long; '
      'the first is %r.',
      path,
      len(root.left_out),
      _archives.shown(root.left_out[0]),
    )
  prefix = ''
  folders, images = _listed(path, root, prefix)
  # A .zip often holds a single folder, which holds everything.
  while not images and len(folders) == 1 and not _own(folders, part, *_SPLITS):
    prefix += f'{folders[0]}/'
    folders, images = _listed(path, root, prefix)
  if own := _own(folders, part):
    splits = sorted(folders, key=lambda name: name.lower() != 'train')
    splits = [f'{prefix}{name}/' for name in splits]
    return _with_labels(path, root, f'{prefix}{own}/', splits)
  if _own(folders, *_SPLITS) or part not in ('all', *_OF_RULE):
    raise FileNotFoundError(
      f'path={path!r} has no folder {part!r}; it has: {_listing(folders)}. '
      'Allowed: split=NAME of one of them, or NAME[:100] and NAME[100:] for parts '
      "of it; 'train' and 'test' where there are no folders of splits."
    )
  files, labels = _with_labels(path, root, prefix, [prefix])
  rows = rows_of_rule(part, len(files))
  return [files[i] for i in rows], None if labels is None else labels[rows]


def rows_of_rule(part, num):
  """Returns which of the rows are in a part, where nothing says which images are."""
  is_test = np.arange(num) % 10 == 9
  return np.flatnonzero(
    {'train': ~is_test, 'test': is_test, 'all': is_test | True}[part]
  )


_OF_RULE = ('train', 'test')
_SPLITS = (*_OF_RULE, 'valid', 'validation', 'val')


def _own(folders, *parts):
  """Returns the folder of one of some splits, in small letters or others, or None."""
  # The name itself goes before one that is like it.
  for name in (*parts, *folders):
    if name in folders and name.lower() in (part.lower() for part in parts):
      return name
  return None


def _listed(path, root, folder):
  """Returns the folders in a folder, and its images, in natural order."""
  folders, others = _in(path, root, folder)
  # A folder of an image's name is refused when it is read.
  images = filter(_is_image, [*folders, *others])
  return tuple(sorted(names, key=_natural) for names in (folders, images))


def _in(path, root, folder):
  """Returns the names of the folders in a folder, and of all else."""
  with _archives.refused(f'path={path!r}: {folder[:80]!r} cannot be read'):
    return root.listed(folder)


def _is_image(name):
  return name.lower().endswith(('.jpg', '.jpeg', '.png'))


def _natural(name):
  """Returns a key by which 2 comes before 10."""
  texts = re.split(r'(\d+)', name)
  texts[1::2] = map(int, texts[1::2])  # numbers are in every second place
  return texts, name  # the name itself tells 1 from 01


def _classes(path, root, prefix):
  """Returns the images of each class of a folder without images, by its name."""
  folders, images = _listed(path, root, prefix)
  if images:
    return {}
  found = {each: _listed(path, root, f'{prefix}{each}/')[1] for each in folders}
  return {each: names for each, names in found.items() if names}


def _with_labels(path, root, prefix, splits):
  """Returns the images of a folder and None, or those of its folders and labels."""
  images = _listed(path, root, prefix)[1]
  files = [f'{prefix}{name}' for name in images]
  labels, read = None, ['']
  if not images:
    classes = _classes(path, root, prefix)
    files = [f'{prefix}{c}/{n}' for c, names in classes.items() for n in names]
    # A split may lack a class that another one has.
    order = dict.fromkeys(
      c for split in splits for c in _classes(path, root, split)
    )
    numbers = dict(zip(order, range(len(order)), strict=True))
    labels = np.repeat(
      np.array([numbers[c] for c in classes], np.int32),
      [len(names) for names in classes.values()],
    )
    read += [f'{c}/' for c in classes]
  others = _others(path, root, prefix, read)
  where = prefix.rstrip('/') or '.'
  if not files:
    raise FileNotFoundError(
      f'path={path!r} has no .jpg, .jpeg or .png file in {where!r}; it has: '
      f'{_listing(others)}.'
    )
  if others:
    logging.warning(
      '%s: %d of %d in %s are left out, being no .jpg, .jpeg or .png; the first is %s.',
      path,
      len(others),
      len(others) + len(files),
      _archives.shown(where),
      _archives.shown(others[0]),
    )
  return files, labels


def _others(path, root, prefix, read):
  """Returns what lies beside the images in some folders of a folder."""
  found = [
    f'{each}{name}'
    for each in read
    for names in _in(path, root, f'{prefix}{each}')
    for name in names
    if not _is_image(name)
    and f'{name}/' not in read
    and f'{prefix}{each}{name}' != _SUMS  # another one would not be compared
  ]
  return sorted(found)


def halves(path, root, files, size, count, channels=3, limits=1.0):
  """Returns uint8 [count, n, size, size, channels]: files cut side by side, resized.

  Each is decoded once, and again when what is in the files has changed.
  """
  with _archives.refused(f'path={path!r}'):
    root.check_total(files)
  digest = digest_of(path, root, files, 'image', limits * MAX_BYTES)
  key = path, files, digest, size, count, channels
  if key not in _decoded:
    while len(_decoded) >= _KEPT:
      _decoded.pop(next(iter(_decoded)))  # the oldest
    _decoded[key] = _decode(path, root, files, size, count, channels, limits)
  return _decoded[key]


# Training and evaluation may ask for the same images.
_KEPT = 8
_decoded = {}


def known_pixels(mask, part, indices, size):
  """Returns uint8 [n, size, size, 1], 1 where a pixel is known."""
  known = np.ones((len(indices), size, size, 1), np.uint8)
  half = size // 2
  if mask == 'half':
    # Rows count from the top: the lower half is hidden.
    known[:, size - half :] = 0
    return known
  for image, index in zip(known, indices, strict=True):
    top = left = (size - half) // 2
    if mask == 'box':
      # The place is a function of split and index, so that an image has one
      # mask in every run.
      rng = np.random.default_rng((index, *part.encode()))
      top, left = rng.integers(0, size - half + 1, 2)
    image[top : top + half, left : left + half] = 0
  return known


def digest_of(path, root, files, kind, most=math.inf):
  """Returns a digest of the files' content, since times and sizes may stay the same.

  Where there is a list SHA256SUMS, each is compared with what it says.

  Args:
    path: the folder as the user named it, for the message.
    root: the folder or .zip, of `_archives`.
    files: names of files in it.
    kind: what each is meant to be, for the message.
    most: bytes that each may have.

  Raises:
    ValueError: a file cannot be read, or is another one than the list says.
  """
  sums = _sums(path, root)
  digest = hashlib.sha256()
  for file in files:
    found = hashlib.sha256()
    with _archives.refused(_no(path, file, kind)):
      with root.open(file, most) as stream:
        # It is read in parts, since a file may be larger than the memory.
        while content := stream.read(2**20):
          found.update(content)
      if sums is not None and sums.get(file) != found.hexdigest():
        raise ValueError(
          f'its SHA-256 is {found.hexdigest()}, and {_SUMS} has '
          f'{sums.get(file, "none of that name")}'
        )
    digest.update(found.digest())
  return digest.hexdigest()


_SUMS = 'SHA256SUMS'


def _sums(path, root):
  """Returns the SHA-256 of each file by name, or None where there is no list of them.

  A JPEG has no checksum, so a flipped bit can be seen by such a list alone; the
  program sha256sum writes it.
  """
  if _SUMS not in root.listed('')[1]:
    return None
  with _archives.refused(_no(path, _SUMS, 'list of SHA-256')):
    with root.open(_SUMS, MAX_BYTES) as stream:
      lines = stream.read().decode('utf-8').splitlines()
    found = [re.fullmatch(r'([0-9a-f]{64}) [ *](?:\./)?(.+)', x) for x in lines]
    if None in found:
      raise ValueError(
        f'line {found.index(None) + 1} is not as sha256sum has it'
      )
  return {line[2]: line[1] for line in found}


def _no(path, file, kind):
  """Returns the beginning of the message that a file cannot be read."""
  return f'path={path!r}: {_archives.shown(file)} is no {kind} that can be read'


def _decode(path, root, files, size, count, channels, limits):
  """Returns what `halves` does, read-only."""
  shape = count, len(files), size, size, channels
  with _archives.refused(f'path={path!r} as images of size={size}'):
    _archives.check_memory(math.prod(shape), limits)
  # Bytes and not floats: a fourth of the memory, and several are kept.
  found, told = np.empty(shape, np.uint8), time.monotonic()
  for i, file in enumerate(files):
    if time.monotonic() > told + _QUIET:
      logging.info('%s: %d of %d images are read.', path, i, len(files))
      told = time.monotonic()
    with _archives.refused(_no(path, file, 'image')):
      with root.open(file, limits * MAX_BYTES) as stream:
        content = stream.read()
      picture = _as_shown(content, int(limits * MAX_PIXELS))
      for half, image in enumerate(np.array_split(picture, count, 1)):
        found[half, i] = _in_channels(sources.square(image, size), channels)
  # All who ask get the same array.
  found.flags.writeable = False
  return found


def _in_channels(image, channels):
  """Returns uint8 [h, w, channels] of an RGB image: itself, or its luminance."""
  if channels == 3:
    return image
  from PIL import Image  # pylint: disable=g-import-not-at-top

  return np.asarray(Image.fromarray(image).convert('L'))[..., None]


def _as_shown(content, most):
  """Returns uint8 [h, w, 3]: a JPEG or PNG file as a viewer shows it, on white."""
  from PIL import Image  # pylint: disable=g-import-not-at-top
  from PIL import ImageOps  # pylint: disable=g-import-not-at-top

  try:
    with _most_pixels(most):
      picture = Image.open(io.BytesIO(content), formats=('JPEG', 'PNG'))
  except Image.UnidentifiedImageError as error:
    # Pillow's own sentence names the stream, not the file.
    raise ValueError('it is no JPEG or PNG file') from error
  if math.prod(picture.size) > most:  # nothing is decoded yet
    raise ValueError(
      f'{picture.size} pixels; allowed: {most} in all, or more by a larger `limits`'
    )
  if picture.format == 'PNG':
    _check_png(content)
    if picture.n_frames > 1:
      raise ValueError(
        f'it is an animation of {picture.n_frames} pictures; save each as a file'
      )
  else:
    _check_scans(content, picture.size, most)
  layout = picture.tile[0][3]
  transparent = 'transparency' in picture.info
  if transparent and layout in ('L;2', 'L;4', 'I;16B', 'RGB;16B'):
    raise ValueError(
      f'it has a transparent colour among {layout} pixels, which Pillow mistakes; '
      'save it with 8 bits'
    )
  picture = ImageOps.exif_transpose(picture)
  width, height = picture.size
  shown = np.empty((height, width, 3), np.uint8)
  # Bands are converted one by one, since each conversion is a copy.
  for top in range(0, height, _BAND):
    bottom = min(top + _BAND, height)
    band = picture.crop((0, top, width, bottom))
    shown[top:bottom] = sources.on_white(band, transparent)
  return shown


@contextlib.contextmanager
def _most_pixels(most):
  """Lets Pillow open pictures of more pixels than it would, where that is asked for."""
  from PIL import Image  # pylint: disable=g-import-not-at-top

  before = Image.MAX_IMAGE_PIXELS
  Image.MAX_IMAGE_PIXELS = max(most, before or most)
  try:
    yield
  finally:
    Image.MAX_IMAGE_PIXELS = before


def _check_png(content):
  """Refuses a PNG whose checksums do not hold, or that has too few pixels.

  Pillow ignores the checksums of pixels, and those that are missing are black there.
  """
  at, kind, wanted, inflated = 8, b'', 0, zlib.decompressobj()
  for _ in range(MAX_CHUNKS):
    if kind == b'IEND':
      break
    length, kind = struct.unpack_from('>I4s', content, at)
    begin, end = at + 8, at + 8 + length
    (checksum,) = struct.unpack_from('>I', content, end)
    if zlib.crc32(memoryview(content)[at + 4 : end]) != checksum:
      raise ValueError(f'the checksum of its part at byte {at} does not hold')
    if kind == b'IHDR':
      wanted = _png_length(*struct.unpack_from('>2I2B2xB', content, begin))
    packed = content[begin:end] if kind == b'IDAT' else b''
    while packed and wanted > 0 and not inflated.eof:
      wanted -= len(inflated.decompress(packed, 2**16))
      packed = inflated.unconsumed_tail
    at = end + 4
  else:
    raise ValueError(f'it has more than {MAX_CHUNKS} parts')
  if wanted > 0:
    raise ValueError(f'the last {wanted} bytes of its pixels are missing')


def _png_length(width, height, depth, colour, interlaced):
  """Returns how many bytes the pixels of a PNG are, with one before each row."""
  bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
  total = 0
  for left, top, right, down in _ADAM7 if interlaced else [(0, 0, 1, 1)]:
    columns, rows = -(-(width - left) // right), -(-(height - top) // down)
    if columns > 0 and rows > 0:
      total += rows * (1 + -(-columns * bits // 8))
  return total


# Where the pictures of an interlaced PNG begin, and how far apart their pixels are.
_ADAM7 = (
  (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
  (0, 1, 1, 2),
)  # fmt: skip


def _check_scans(content, size, most):
  """Refuses a JPEG that draws its pixels more often than a picture needs."""
  scans = content.count(b'\xff\xda')
  if scans * math.prod(size) > MAX_SCANS * most:
    raise ValueError(
      f'{size} pixels in {scans} scans; allowed: {MAX_SCANS} scans of {most} pixels'
    )
