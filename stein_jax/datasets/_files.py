"""Files of images: folders, .zip files of them, and .npz files."""

import functools
import hashlib
import io
import math
import re
import zipfile

from absl import logging
import numpy as np

from stein_jax import locations
from stein_jax.datasets import sources

# An image file that asks for more is damaged, or made to fill the memory.
MAX_PIXELS = 2**26
MAX_BYTES = 2**28


def part_and_rows(split):
  """Returns the name and the slice of a split such as train or train[:5000]."""
  parts = re.fullmatch(r'(\w+)(?:\[(\d*):(\d*)\])?', split)
  if not parts:
    raise ValueError(f'split={split!r} must be like train or train[:5000].')
  name, *bounds = parts.groups()
  return name, slice(*(int(bound) if bound else None for bound in bounds))


def read_npz(path, part):
  """Returns 'image' and, if there, 'label' of a split of an .npz file, read-only.

  Args:
    path: the file.
    part: what the file has before these two names and an underscore; 'all' for
      nothing. Where the file has 'train_image' and no 'test_image', or 'image' alone,
      every tenth row is 'test' and the others are 'train'.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is not an .npz, or has no images [n, ...] of that name.
  """
  file = locations.absolute(path)
  if file.is_dir():
    raise FileNotFoundError(
      f'path={path!r} is a folder; allowed here: an .npz file. Images in a folder are '
      "read by --path=FOLDER, or by data.name='folder'."
    )
  if not file.is_file():
    raise FileNotFoundError(f'path={path!r}: there is no such file as {file}.')
  if not zipfile.is_zipfile(file):
    raise ValueError(f'path={path!r} is no .npz file, or only a part of one.')
  # A pickle could run anything.
  with np.load(file, allow_pickle=False) as arrays:
    prefix, by_rule = _npz_prefix(arrays, part)
    if prefix + 'image' not in arrays:
      raise ValueError(
        f'path={path!r} has no {prefix}image; it has: {", ".join(arrays)}. Allowed: '
        'image, or train_image and test_image, with labels as train_label and so on.'
      )
    try:
      found = {
        name: arrays[prefix + name]
        for name in ('image', 'label')
        if prefix + name in arrays
      }
    except Exception as error:  # zipfile, zlib and NumPy have their own
      raise ValueError(f'path={path!r} cannot be read: {error}') from error
  image = found['image']
  if image.ndim < 2:
    raise ValueError(
      f'path={path!r}: image is {image.dtype} {image.shape}; allowed: uint8 or '
      'floating [n, ...].'
    )
  if by_rule:
    rows = rows_of_rule(part, len(image))
    found = {name: array[rows] for name, array in found.items()}
  return sources.read_only(found)


def _npz_prefix(arrays, part):
  """Returns what stands before a split's names, and whether a rule splits it off."""
  own = '' if part == 'all' else f'{part}_'
  if f'{own}image' in arrays or part not in _OF_RULE:
    # Training images are a tenth fewer where nothing else is left for tests.
    alone = part == 'train' and 'test_image' not in arrays
    return own, alone
  for prefix in ('train_', ''):
    if f'{prefix}image' in arrays:
      return prefix, True
  return own, False


def image_files(path, part):
  """Returns the images of a split, in natural order, and their labels [n] or None.

  The split is a folder of that name. Where there is no folder of any split, every
  tenth image is 'test' and the others are 'train'; 'all' is all of them. Images that
  lie in folders of their classes have labels, the classes in natural order. Names are
  relative to the path.

  Raises:
    FileNotFoundError: there is no such split, or it has no images.
  """
  root, prefix = _root(path), ''
  folders, images = _listed(root)
  # A .zip often holds a single folder, which holds everything.
  while not images and len(folders) == 1 and not {*folders} & {part, *_SPLITS}:
    prefix += f'{folders[0]}/'
    folders, images = _listed(root / prefix)
  if part in folders:
    return _with_labels(path, root, f'{prefix}{part}/')
  if {*folders} & {*_SPLITS} or part not in ('all', *_OF_RULE):
    raise FileNotFoundError(
      f'path={path!r} has no folder {part!r}; it has: '
      f'{", ".join(folders) or "none"}. Allowed: split=NAME of one of them, or '
      "NAME[:100] and NAME[100:] for parts of it; 'train' and 'test' where there "
      'are no folders of splits.'
    )
  files, labels = _with_labels(path, root, prefix)
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


def _listed(folder):
  """Returns the folders in a folder, and its images, in natural order."""
  # Such names are an operating system's own, as .DS_Store is.
  found = [
    each
    for each in folder.iterdir()
    if not each.name.startswith(('.', '__MACOSX'))
  ]
  folders = [each.name for each in found if each.is_dir()]
  images = [each.name for each in found if _is_image(each.name)]
  return tuple(sorted(names, key=_natural) for names in (folders, images))


def _is_image(name):
  return name.lower().endswith(('.jpg', '.jpeg', '.png'))


def _natural(name):
  """Returns a key by which 2 comes before 10."""
  texts = re.split(r'(\d+)', name)
  texts[1::2] = map(int, texts[1::2])  # numbers are in every second place
  return texts, name  # the name itself tells 1 from 01


def _with_labels(path, root, prefix):
  """Returns the images of a folder and None, or those of its folders and labels."""
  folders, images = _listed(root / prefix)
  if not images:
    classes = [(each, _listed(root / f'{prefix}{each}')[1]) for each in folders]
    classes = [(each, names) for each, names in classes if names]
    if classes:
      files = [f'{prefix}{each}/{n}' for each, names in classes for n in names]
      sizes = [len(names) for _, names in classes]
      return files, np.repeat(np.arange(len(classes), dtype=np.int32), sizes)
  others = sorted(
    each.name
    for each in (root / prefix).iterdir()
    if not each.name.startswith('.') and each.name not in images
  )
  where = prefix.rstrip('/') or '.'
  if not images:
    raise FileNotFoundError(
      f'path={path!r} has no .jpg, .jpeg or .png file in {where!r}; it has: '
      f'{", ".join(others[:9]) or "none"}.'
    )
  if others:
    logging.warning(
      '%s: %d of %d in %s are left out, being no .jpg, .jpeg or .png; the first is %s.',
      path,
      len(others),
      len(others) + len(images),
      where,
      others[0],
    )
  return [f'{prefix}{name}' for name in images], None


def halves(path, files, size, count, channels=3):
  """Returns uint8 [count, n, size, size, channels]: files cut side by side, resized.

  Each is decoded once, and again when what is in the files has changed.
  """
  digest = digest_of(path, _root(path), files, 'image')
  return _decoded_halves(path, files, digest, size, count, channels)


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


def digest_of(path, folder, files, kind):
  """Returns a digest of the files' content, since times and sizes may stay the same.

  Args:
    path: the folder as the user named it, for the message.
    folder: the folder or .zip.
    files: names of files in it.
    kind: what each is meant to be, for the message.

  Raises:
    ValueError: a file cannot be read.
  """
  digest = hashlib.sha1(usedforsecurity=False)
  for file in files:
    try:
      with (folder / file).open('rb') as stream:
        # By parts, since a file may be larger than the memory.
        while content := stream.read(2**20):
          digest.update(content)
        # The length parts one file from the next.
        digest.update(f' {stream.tell()} '.encode())
    except Exception as error:  # zipfile and zlib have their own
      raise _unreadable(path, file, kind, error) from error
  return digest.hexdigest()


def _root(path):
  """Returns the folder or the .zip, which is read as one, never unpacked."""
  root = locations.absolute(path)
  if root.is_dir():
    return root
  if zipfile.is_zipfile(root):
    return zipfile.Path(root)
  raise FileNotFoundError(
    f'path={path!r} is no folder and no .zip file: {root}. --path=FOLDER names '
    'images that have moved.'
  )


def _unreadable(path, file, kind, error):
  """Returns the error that says which file cannot be read."""
  return ValueError(
    f'path={path!r}: {file} is no {kind} that can be read: {error}'
  )


@functools.lru_cache(maxsize=8)
def _decoded_halves(path, files, digest, size, count, channels):
  """Returns what `halves` does, from a cache of which the digest is a key."""
  del digest
  root = _root(path)
  # Bytes and not floats: a fourth of the memory, and the cache keeps several.
  found = np.empty((count, len(files), size, size, channels), np.uint8)
  for i, file in enumerate(files):
    try:
      picture = _as_shown(_bounded_stream(root / file))
      for half, image in enumerate(np.array_split(picture, count, 1)):
        found[half, i] = _in_channels(sources.square(image, size), channels)
    except Exception as error:  # each decoder has its own
      raise _unreadable(path, file, 'image', error) from error
  # The cache gives the same array to all who ask.
  found.flags.writeable = False
  return found


def _in_channels(image, channels):
  """Returns uint8 [h, w, channels] of an RGB image: itself, or its luminance."""
  if channels == 3:
    return image
  from PIL import Image  # pylint: disable=g-import-not-at-top

  return np.asarray(Image.fromarray(image).convert('L'))[..., None]


def _as_shown(stream):
  """Returns uint8 [h, w, 3]: a JPEG or PNG file as a viewer shows it, on white."""
  from PIL import Image  # pylint: disable=g-import-not-at-top
  from PIL import ImageOps  # pylint: disable=g-import-not-at-top

  try:
    picture = Image.open(stream, formats=('JPEG', 'PNG'))
  except Image.UnidentifiedImageError as error:
    # Pillow's own sentence names the stream, not the file.
    raise ValueError('it is no JPEG or PNG file') from error
  if math.prod(picture.size) > MAX_PIXELS:  # nothing is decoded yet
    raise ValueError(f'{picture.size} pixels; allowed: {MAX_PIXELS} in all')
  if picture.format == 'PNG' and picture.n_frames > 1:
    raise ValueError(
      f'it is an animation of {picture.n_frames} pictures; save each as a file'
    )
  layout = picture.tile[0][3]
  transparent = 'transparency' in picture.info
  if transparent and layout in ('L;2', 'L;4', 'I;16B', 'RGB;16B'):
    raise ValueError(
      f'it has a transparent colour among {layout} pixels, which Pillow mistakes; '
      'save it with 8 bits'
    )
  picture = ImageOps.exif_transpose(picture)
  if picture.mode in ('I', 'I;16'):  # Pillow would cut 16 bits at 255
    grey = np.round(np.asarray(picture, np.float32) / 257)
    picture = Image.fromarray(grey.astype(np.uint8))
  if transparent or 'A' in picture.mode:
    page = Image.new('RGBA', picture.size, 'white')
    page.alpha_composite(picture.convert('RGBA'))
    picture = page
  return np.asarray(picture.convert('RGB'))


def _bounded_stream(file):
  """Returns a file of a folder or a .zip as a stream, unless it is too long."""
  with file.open('rb') as stream:
    # The size that a .zip states of a file may be false, so the bytes are
    # counted.
    content = stream.read(MAX_BYTES + 1)
  if len(content) > MAX_BYTES:
    raise ValueError(f'it is longer than {MAX_BYTES} bytes')
  return io.BytesIO(content)
