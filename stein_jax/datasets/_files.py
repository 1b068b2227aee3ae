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


def read_npz(path, prefix):
  """Returns 'image' and, if there, 'label' of an .npz file, read-only.

  Args:
    path: the file.
    prefix: what the file has before these two names.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is not an .npz, or has no images [n, ...] of that name.
  """
  file = locations.absolute(path)
  if not file.is_file():
    raise FileNotFoundError(f'path={path!r}: there is no such file as {file}.')
  if not zipfile.is_zipfile(file):
    raise ValueError(f'path={path!r} is no .npz file, or only a part of one.')
  # A pickle could run anything.
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
  image = found['image']
  if image.ndim < 2:
    raise ValueError(
      f'path={path!r}: image is {image.dtype} {image.shape}; allowed: uint8 or '
      'floating [n, ...].'
    )
  return sources.read_only(found)


def image_files(path, part):
  """Returns the images of a split, relative to the path, in natural order."""
  # The names are listed for the message, since a split is often misspelt.
  folders = {each.name: each for each in _root(path).iterdir() if each.is_dir()}
  if part not in folders:
    raise FileNotFoundError(
      f'path={path!r} has no folder {part!r}; it has: '
      f'{", ".join(sorted(folders)) or "none"}.'
    )
  found = [each.name for each in folders[part].iterdir()]
  # Such files are an operating system's own, as .DS_Store is.
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
    texts = re.split(r'(\d+)', name)
    texts[1::2] = map(int, texts[1::2])  # numbers are in every second place
    return texts, name  # the name itself tells 1 from 01

  return [f'{part}/{name}' for name in sorted(names, key=natural)]


def halves(path, files, size, count):
  """Returns uint8 [count, n, size, size, 3]: files cut side by side, resized.

  Each is decoded once, and again when what is in the files has changed.
  """
  digest = digest_of(path, _root(path), files, 'image')
  return _decoded_halves(path, files, digest, size, count)


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
    f'path={path!r} is no folder and no .zip file: {root}.'
  )


def _unreadable(path, file, kind, error):
  """Returns the error that says which file cannot be read."""
  return ValueError(
    f'path={path!r}: {file} is no {kind} that can be read: {error}'
  )


@functools.lru_cache(maxsize=8)
def _decoded_halves(path, files, digest, size, count):
  """Returns what `halves` does, from a cache of which the digest is a key."""
  del digest
  root = _root(path)
  # Bytes and not floats: a fourth of the memory, and the cache keeps several.
  found = np.empty((count, len(files), size, size, 3), np.uint8)
  for i, file in enumerate(files):
    try:
      picture = _as_shown(_bounded_stream(root / file))
      for half, image in enumerate(np.array_split(picture, count, 1)):
        found[half, i] = sources.square(image, size)
    except Exception as error:  # each decoder has its own
      raise _unreadable(path, file, 'image', error) from error
  # The cache gives the same array to all who ask.
  found.flags.writeable = False
  return found


def _as_shown(stream):
  """Returns uint8 [h, w, 3]: a JPEG or PNG file as a viewer shows it, on white."""
  from PIL import Image  # pylint: disable=g-import-not-at-top
  from PIL import ImageOps  # pylint: disable=g-import-not-at-top

  picture = Image.open(stream, formats=('JPEG', 'PNG'))
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
