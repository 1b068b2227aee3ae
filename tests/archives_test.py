"""Files that somebody else made are read within bounds, or refused in a sentence."""

import gzip
import io
import json
import math
import os
import pathlib
import struct
import tarfile
from unittest import mock
import warnings
import zipfile
import zlib

from absl import logging
from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
from PIL import Image
import pytest

from stein_jax import _archives
from stein_jax import datasets
from stein_jax import inception
from stein_jax.datasets import _files
from tests.faults import fuzz


def png(red=7):
  buffer = io.BytesIO()
  Image.new('RGB', (2, 2), (red, 0, 0)).save(buffer, 'PNG')
  return buffer.getvalue()


# In which of seven pictures a pixel of an interlaced PNG is, from the standard.
ADAM7 = (
  '16462646', '77777777', '56565656', '77777777', '36463646', '77777777', '56565656',
  '77777777',
)  # fmt: skip


def png_pixels(width, height, bits, interlaced):
  """Returns the zeros of which the pixels of a PNG are made, pixel by pixel."""
  found = 0
  for number in '1234567' if interlaced else ['']:
    for y in range(height):
      row = [number in ADAM7[y % 8][x % 8] for x in range(width)]
      found += any(row) * (1 + math.ceil(sum(row) * bits / 8))
  return bytes(found)


def png_of(*parts):
  """Returns a PNG of parts, each a name and a content."""
  lines = [b'\x89PNG\r\n\x1a\n']
  for name, content in parts:
    lines += [struct.pack('>I', len(content)), name + content]
    lines += [struct.pack('>I', zlib.crc32(name + content))]
  return b''.join(lines)


class FilesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def write(self, red=7, **members):
    """Returns a zip of an image and of some more members, by name."""
    path = self.folder / 'images.zip'
    with zipfile.ZipFile(path, 'w') as archive:
      archive.writestr('0.png', png(red))
      for name, content in members.items():
        archive.writestr(name, content)
    return path

  def load(self, path, split='all', **kwargs):
    return datasets.load(
      'folder', path=str(path), split=split, size=2, **kwargs
    )

  def refuses(self, message, path, read=None):
    """Asserts that reading is refused by one short sentence with the path."""
    with self.assertRaises((ValueError, FileNotFoundError)) as caught:
      (read or self.load)(path)
    said = str(caught.exception)
    self.assertRegex(said, message)
    self.assertIn(str(path), said)
    self.assertLess(len(said), 2000)
    self.assertNotIn('\n', said)


class ZipTest(FilesTest):
  @parameterized.parameters(
    '//train', '/train/1.png', '../1.png', 'a/../../1.png', 'a//1.png', 'a/' * 40,
    'a/' * 40 + '1.png', 'a/' * 20_000 + '1.png', 'b' * 5000 + '.png', '/', '//',
    '..\\1.png',
  )  # fmt: skip
  def test_a_member_whose_name_leads_elsewhere_is_left_out(self, name):
    path = self.write(**{name: png(9)})
    with mock.patch.object(logging, 'warning') as warning:
      self.assertLen(self.load(path), 1)
    warning.assert_called_once()

  @parameterized.parameters('./1.png', '.\\1.png')
  def test_a_member_of_the_same_folder(self, name):
    self.assertLen(self.load(self.write(**{name: png()})), 2)

  def test_folders_by_the_separator_of_windows_are_classes(self):
    path = self.folder / 'images.zip'
    with zipfile.ZipFile(path, 'w') as archive:
      for name in ('a\\1.png', 'b\\1.png'):
        archive.writestr(name, png())
    self.assertEqual(self.load(path)[:]['label'].tolist(), [0, 1])

  def test_what_systems_leave_is_not_seen(self):
    names = (
      '.DS_Store', 'Thumbs.db', 'desktop.ini', '._0.png', '__MACOSX/._0.png',
      '@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg', '.git/config', '.directory',
      '.ipynb_checkpoints/0-checkpoint.png', 'lost+found/1.png', 'Icon\r',
      '0.png:Zone.Identifier', 'ehthumbs.db', '$RECYCLE.BIN/1.png',
    )  # fmt: skip
    path = self.write(**dict.fromkeys(names, b'no image'))
    folder = self.folder / 'images'
    folder.mkdir()
    with zipfile.ZipFile(path) as archive:
      archive.extractall(folder)
    with mock.patch.object(logging, 'warning') as warning:
      for each in (path, folder):
        self.assertLen(self.load(each), 1)
    warning.assert_not_called()

  def test_what_lies_beside_classes_is_told(self):
    path = self.folder / 'images.zip'
    with zipfile.ZipFile(path, 'w') as archive:
      for name in (
        'cat/1.png',
        'cat/2.webp',
        'dog/1.webp',
        'owl/1.png',
        'x.txt',
      ):
        archive.writestr(name, png())
    with mock.patch.object(logging, 'warning') as warning:
      self.assertEqual(self.load(path)[:]['label'].tolist(), [0, 1])
    (call,) = warning.mock_calls
    self.assertEqual(call.args[2:], (3, 5, '.', 'cat/2.webp'))

  def test_members_of_one_name(self):
    with warnings.catch_warnings(action='ignore'):  # zipfile's own
      path = self.write(**{'./0.png': png(9)})
      self.refuses("two members '0.png'", path)
      with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('0.png', png())
        archive.writestr('0.png', png(9))
    self.refuses("two members '0.png'", path)

  def test_names_that_differ_before_the_bytes(self):
    path = self.write(**{'cat/1.png': png(), 'dog/1.png': png()})
    whole = path.read_bytes()
    for name in (b'cat/1.png', b'dog/1.png', b'0.png'):
      for at in (whole.find(name), whole.rfind(name)):
        content = bytearray(whole)
        content[at] ^= 1
        path.write_bytes(content)
        self.refuses('another name', path)

  @parameterized.parameters(1, 3)
  def test_a_directory_without_its_first_members(self, num):
    # zipfile finds where it begins by its length alone.
    path = self.write(**{f'{i}.png': png() for i in range(1, 5)})
    content = bytearray(path.read_bytes())
    end = content.rfind(b'PK\5\6')
    (size,) = struct.unpack_from('<L', content, end + 12)
    struct.pack_into('<L', content, end + 12, size - num * (46 + len('0.png')))
    path.write_bytes(content)
    self.refuses(f'{5 - num} members, and says 5', path)

  def test_something_before_a_zip_and_a_comment_after(self):
    path = self.write()
    with zipfile.ZipFile(path, 'a') as archive:
      archive.comment = b'of a user' * 99
    path.write_bytes(b'#!/bin/sh\n' + path.read_bytes())
    self.assertLen(self.load(path), 1)

  def test_the_form_of_64_bits(self):
    with mock.patch.object(zipfile, 'ZIP_FILECOUNT_LIMIT', 1):
      path = self.write(**{'1.png': png()})
    self.assertIn(b'PK\6\7', path.read_bytes())
    self.assertLen(self.load(path), 2)
    path.write_bytes(path.read_bytes().replace(b'PK\6\7', b'PK\6\6'))
    self.refuses('members, and says', path)

  def test_limits(self):
    path = self.write(**{f'{i}.txt': bytes(10**5) for i in range(9)})
    with mock.patch.object(_archives, 'MAX_MEMBERS', 9):
      self.refuses('more than 9 members', path)
      self.assertLen(self.load(path, limits=2), 1)
    deflated = zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(path, 'w', deflated) as archive:
      archive.writestr('0.png', png() + bytes(10**6))
    length = path.stat().st_size
    with mock.patch.object(_archives, 'MAX_BYTES', 10**5):
      self.refuses(f'{length} bytes unfold to {10**6 + len(png())}', path)
      self.assertLen(self.load(path, limits=100), 1)
    with mock.patch.object(_archives, 'free_memory', lambda: 11):
      self.write(red=8)  # not the picture that is kept
      self.refuses('takes 12 bytes of memory, and 11 are free', path)
      self.assertLen(self.load(path, limits=2), 1)

  def test_a_method_that_is_not_of_zips(self):
    path = self.folder / 'images.zip'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_LZMA) as archive:
      archive.writestr('0.png', png())
    self.refuses('method 14; allowed: 0 .stored. and 8', path)

  def test_a_member_with_a_password(self):
    path = self.write()
    content = bytearray(path.read_bytes())
    for signature, at in ((b'PK\1\2', 8), (b'PK\3\4', 6)):
      content[content.find(signature) + at] |= 1
    path.write_bytes(content)
    self.refuses('0.png.*password', path)


class FolderTest(FilesTest):
  def test_a_pipe_is_never_opened(self):
    for name in ('0.png', 'sub', 'notes.txt'):
      path = self.folder / name
      os.mkfifo(path)
      self.refuses('is a named pipe; allowed: a regular file|no folder', path)
      read = lambda path: datasets.load('npz', path=str(path))
      self.refuses('is a named pipe', path, read)
      with self.assertRaisesRegex(FileNotFoundError, f'{path} is no file'):
        inception.load(path)
    self.refuses('0.png.*is a named pipe', self.folder)
    (self.folder / '0.png').unlink()
    (self.folder / '0.png').write_bytes(png())
    self.assertLen(self.load(self.folder), 1)

  def test_other_things_that_are_no_files(self):
    (self.folder / '0.png').symlink_to('/dev/zero')
    self.refuses('0.png.*is a device', self.folder)
    (self.folder / '0.png').unlink()
    (self.folder / '0.png').symlink_to('nowhere.png')
    self.refuses('0.png.*No such file', self.folder)
    (self.folder / '0.png').unlink()
    (self.folder / 'a').symlink_to('.')
    self.refuses('more than 32 folders', self.folder)

  def test_a_file_of_a_terabyte_is_not_read(self):
    with open(self.folder / '0.png', 'wb') as file:
      file.truncate(2**40)
    self.refuses('0.png.*1099511627776 bytes.*allowed: 268435456', self.folder)

  def test_files_are_compared_with_a_list(self):
    for name in ('a', 'b'):
      (self.folder / name).mkdir()
      (self.folder / name / '1.jpg').write_bytes(
        fuzz.encoded(fuzz.pictures(1)[0], 'JPEG')
      )
    # As `sha256sum */*.jpg` prints it.
    listed = self.folder / 'SHA256SUMS'
    lines = fuzz.sums(self.folder, ['a/1.jpg', 'b/1.jpg'])
    listed.write_text(lines, 'utf-8')
    with mock.patch.object(logging, 'warning') as warning:
      self.assertLen(self.load(self.folder), 2)
    warning.assert_not_called()
    listed.write_text(lines.splitlines()[0], 'utf-8')
    self.refuses('b/1.jpg.*none of that name', self.folder)
    listed.write_text(lines.replace('  ', ' '), 'utf-8')
    self.refuses('SHA256SUMS.*line 1 is not', self.folder)
    listed.write_text(lines, 'utf-8')
    content = bytearray((self.folder / 'a' / '1.jpg').read_bytes())
    content[-20] ^= 1
    (self.folder / 'a' / '1.jpg').write_bytes(content)
    self.refuses('a/1.jpg.*its SHA-256 is', self.folder)

  def test_a_png_whose_pixels_are_damaged(self):
    # Pillow reads rows until it has all, and ignores the checksum after them.
    content = bytearray(fuzz.encoded(fuzz.pictures(1)[0], 'PNG'))
    content[content.find(b'IDAT') + 30] ^= 1
    (self.folder / '0.png').write_bytes(content)
    self.refuses('0.png.*checksum of its part at byte 33', self.folder)

  @parameterized.product(
    size=((1, 1), (5, 3), (8, 8), (9, 17)),
    kind=((1, 0, 1), (2, 3, 1), (8, 2, 3), (8, 4, 2), (16, 6, 4)),
    interlaced=(0, 1),
  )
  def test_a_png_that_ends_early(self, size, kind, interlaced):
    # Every checksum holds; Pillow makes the rest black.
    depth, colour, channels = kind
    pixels = png_pixels(*size, depth * channels, interlaced)
    header = struct.pack('>2I5B', *size, depth, colour, 0, 0, interlaced)
    before = [(b'IHDR', header), (b'PLTE', bytes(12))][: 1 + (colour == 3)]
    for content, whole in ((pixels, True), (pixels[1:], False)):
      packed = zlib.compress(content)
      parts = (b'IDAT', packed[:5]), (b'IDAT', packed[5:]), (b'IEND', b'')
      (self.folder / '0.png').write_bytes(png_of(*before, *parts))
      if whole:
        self.assertLen(self.load(self.folder), 1)
      else:
        self.refuses('0.png.*last 1 bytes of its pixels', self.folder)

  def test_names_cannot_command_a_terminal(self):
    members = {'a\n\x1b[2J\u202e.png': b'no image', 'b\x1b.txt': b''}
    path = self.write(**members)
    with mock.patch.object(logging, 'warning') as warning:
      self.refuses(r': a\\n\\x1b\[2J\\u202e.png is no image', path)
    self.assertEqual(warning.mock_calls[0].args[-1], r'b\x1b.txt')
    path = self.write(**{'a\n\x1b/1.png': b'', 'train/1.png': b''})
    other = lambda path: self.load(path, split='other')
    self.refuses(r'it has: a\\n\\x1b, train', path, other)

  def test_a_jpeg_of_endless_scans(self):
    buffer = io.BytesIO()
    Image.new('RGB', (64, 64)).save(buffer, 'JPEG', progressive=True)
    content = buffer.getvalue()
    at = content.rfind(b'\xff\xda')
    scan = content[at:-2]
    many = content[:at] + 2**18 * scan + b'\xff\xd9'
    (self.folder / '0.jpg').write_bytes(many)
    self.refuses('0.jpg.*262153 scans; allowed: 16 scans', self.folder)

  def test_pictures_beyond_pillows_own_limit_are_read_where_asked_for(self):
    (self.folder / '0.png').write_bytes(
      fuzz.encoded(fuzz.pictures(1)[0], 'PNG')
    )
    with (
      mock.patch.object(_files, 'MAX_PIXELS', 32),
      mock.patch.object(Image, 'MAX_IMAGE_PIXELS', 20),
    ):
      with self.assertWarns(Image.DecompressionBombWarning):
        self.refuses(r'\(8, 8\) pixels; allowed: 32 in all', self.folder)
      self.assertLen(self.load(self.folder, limits=2), 1)
      self.assertEqual(Image.MAX_IMAGE_PIXELS, 20)


class NpzTest(FilesTest):
  def load(self, path, **kwargs):
    return datasets.load('npz', path=str(path), **kwargs)

  def saved(self, **arrays):
    path = self.folder / 'images.npz'
    np.savez_compressed(path, **arrays)
    return path

  def of_members(self, **members):
    path = self.folder / 'images.npz'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
      for name, content in members.items():
        archive.writestr(name, content)
    return path

  def test_all_that_batches_have(self):
    image = np.ones((2, 3, 3, 1))
    path = self.saved(
      image=image, label=[3, 4], condition=image / 2, mask=image
    )
    batch = self.load(path)[:]
    self.assertEqual(batch.keys(), {'image', 'label', 'condition', 'mask'})
    np.testing.assert_array_equal(batch['condition'], 0.5)

  @parameterized.parameters(
    'labels', 'Label', 'images', 'train_label', 'label_train', 'image_label',
    'lable', 'y', 'arr_0', 'label.npy', 'x' * 4000,
  )  # fmt: skip
  def test_an_array_that_nothing_would_read(self, name):
    path = self.saved(**{'image': np.ones((2, 3)), name: np.arange(2)})
    self.refuses(f"has '{name[:40]}.* nothing would read; allowed: image", path)

  def test_an_array_that_takes_more_than_the_file_says(self):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
      header, dict(descr='<f4', fortran_order=False, shape=(10**12, 3))
    )
    path = self.of_members(**{'image.npy': header.getvalue() + bytes(24)})
    self.refuses(r'image.*takes 12000000000000 bytes, and there are 24', path)

  @parameterized.parameters('all', 'train', 'all[:5]')
  def test_rows_are_counted_before_some_are_chosen(self, split):
    image = np.ones((20, 3))
    for label in (np.arange(40), np.arange(7), np.int64(3)):
      path = self.saved(image=image, label=label)
      self.refuses(
        r'label is int64 \(.*\); allowed: one for each of 20',
        path,
        lambda path: self.load(path, split=split),
      )

  @parameterized.parameters(
    ('<f4', (2**40, 0)), ('<U0', (2**40, 3)), ('|V0', (2**40, 3))
  )
  def test_2_to_the_40_rows_of_nothing(self, descr, shape):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
      header, dict(descr=descr, fortran_order=False, shape=shape)
    )
    path = self.of_members(**{'image.npy': header.getvalue()})
    for split in ('all', 'train'):
      self.refuses(
        r'image is .*\(1099511627776, [03]\); allowed: uint8 or floating',
        path,
        lambda path, split=split: self.load(path, split=split),
      )

  def test_one_array_by_two_names(self):
    buffer = io.BytesIO()
    np.save(buffer, np.ones((2, 3)))
    path = self.of_members(
      **{'image.npy': buffer.getvalue(), 'image': buffer.getvalue()}
    )
    self.refuses('an array is there with .npy behind its name', path)

  def test_a_mask_and_a_condition_that_cannot_be_of_the_images(self):
    image = np.ones((2, 3, 3, 1))
    for shape in ((2, 4, 3, 1), (2, 3, 9, 1)):
      path = self.saved(image=image, mask=np.ones(shape))
      self.refuses(r'mask is .* and image \(2, 3, 3, 1\)', path)
    path = self.saved(image=np.ones((2, 9)), mask=image)
    self.refuses(r'mask is .* and image \(2, 9\)', path)
    for kind in (np.uint8, float):  # labels would be numbers, or grey levels
      path = self.saved(image=image, condition=np.array([0, 1], kind))
      self.refuses("condition is .*rank 2.*condition='label'", path)

  def test_zeros_in_a_small_file(self):
    path = self.saved(image=np.zeros((1000, 1000), np.uint8))
    with mock.patch.object(_archives, 'MAX_BYTES', 2**18):
      self.refuses(f'its {path.stat().st_size} bytes unfold to 1000128', path)
      self.assertLen(self.load(path, limits=4), 1000)
    with mock.patch.object(_archives, 'free_memory', lambda: 10**6):
      self.refuses('takes 1000128 bytes of memory, and 1000000 are free', path)
    # Rows of a rule are copies.
    with mock.patch.object(_archives, 'free_memory', lambda: 10**6 + 200):
      self.assertLen(self.load(path), 1000)
      read = lambda path: self.load(path, split='train')
      self.refuses('takes 2000256 bytes', path, read)

  @parameterized.parameters(
    (b'', 'magic'),
    (b'\x93NUMPY\3\0', r'version \(3, 0\)'),
    (b'\x93NUMPY\1\0\xff\xff{', 'EOF|header'),
    (b'\x93NUMPY\1\0\4\0[[[[', 'header'),
    (b'\x93NUMPY\1\0\x40\0' + b'(' * 64, 'header'),
    (b'\x93NUMPY\1\0\x10\x27' + b'(' * 10_000, 'header'),
    (b'\x93NUMPY\1\0\xff\xff' + b'"' * 65_535, 'header'),
    (b'\x80\4\x95', 'magic|truncated'),
  )
  def test_a_member_that_is_no_array(self, content, message):
    path = self.of_members(**{'image.npy': content})
    self.refuses(f'image.*({message})', path)

  @parameterized.parameters(
    ([('a', 'f4')], 'image is .*allowed: uint8'),
    ('M8[s]', 'image is datetime64'),
    ('m8[s]', 'image is timedelta64'),
    ('U0', 'image'),
    ('V0', 'image'),
    ('O', 'allow_pickle=False'),
    ('c8', 'image is complex64'),
  )
  def test_types_that_are_no_images(self, dtype, message):
    self.refuses(message, self.saved(image=np.zeros((2, 3), dtype)))

  def test_labels_of_another_length_of_a_rule(self):
    path = self.saved(image=np.ones((20, 2)), label=np.arange(19))
    read = lambda path: self.load(path, split='train')
    self.refuses(
      'label is int64 .19,.; allowed: one for each of 20', path, read
    )

  def test_types_and_orders_that_are_images(self):
    for order in 'CF':
      image = np.asarray(np.arange(6).reshape(2, 3) / 8, '>f4', order=order)
      found = self.load(
        self.saved(image=image, label=np.arange(2, dtype='>i8'))
      )
      np.testing.assert_array_equal(found[:]['image'], image)
      np.testing.assert_array_equal(found[:]['label'], [0, 1])


def signed(tar):
  """Returns a tar whose first file has a negative length."""
  head = bytearray(tar)
  head[124:136] = b'-00000010000'
  head[148:156] = b' ' * 8
  head[148:155] = b'%06o\0' % sum(head[:512])
  return bytes(head)


class TarTest(FilesTest):
  name = 'weights.pb'

  def tar(self, *sizes, name=None, **attributes):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w') as archive:
      for i, size in enumerate(sizes):
        member = tarfile.TarInfo(
          'x' if i < len(sizes) - 1 else name or self.name
        )
        member.size = size
        for key, value in attributes.items():
          setattr(member, key, value)
        archive.addfile(member, io.BytesIO(bytes([i]) * size))
    return buffer.getvalue()

  def read(self, content, most=2000, total=10**5):
    stream = _archives.Bounded(io.BytesIO(content), total)
    return _archives.tar_member(stream.read(512), stream, self.name, most)

  @parameterized.parameters(0, 1, 511, 512, 513, 2000)
  def test_a_file(self, size):
    for content in (self.tar(700, size), gzip.compress(self.tar(700, size))):
      self.assertEqual(self.read(content), b'\1' * size)
    self.assertEqual(
      self.read(self.tar(9, size, name=f'./a/{self.name}')), b'\1' * size
    )

  def test_no_file_of_that_name(self):
    self.assertIsNone(self.read(self.tar(5, name='README')))
    self.assertIsNone(self.read(self.tar(0, type=tarfile.FIFOTYPE)))

  def test_what_is_refused(self):
    plain, zipped = self.tar(700, 1000), gzip.compress(self.tar(700, 1000))
    damaged = bytearray(zipped)
    damaged[-6] ^= 1  # the checksum
    for content, message in (
      (self.tar(2001), '2001 bytes.*allowed: 2000'),
      (gzip.compress(bytes(10**6)), None),
      (bytes(damaged), 'CRC'),
      (zipped[:-9], None),
      (plain[:1800], None),
      (plain[:1300], None),
      (plain[:600] + b'\1' * 1800, None),
      (gzip.compress(self.tar(10**6, 5)), 'longer than 100000 bytes'),
      (signed(self.tar(700, 5)), 'no number of a tar'),
    ):
      with self.assertRaisesRegex(
        (ValueError, OSError, EOFError), message or ''
      ):
        if self.read(content) is None:
          raise ValueError


class MemoryTest(absltest.TestCase):
  def test_free_memory_is_of_this_machine(self):
    whole = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    self.assertBetween(_archives.free_memory(), 2**20, whole)


class RecordsTest(absltest.TestCase):
  def test_more_examples_than_bytes(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    with mock.patch.dict(os.environ):
      (path,), read = fuzz.array_record(folder)
      info = path.with_name('dataset_info.json')
      said = json.loads(info.read_text())
      said['splits'][0]['shardLengths'] = [str(2**62)]
      info.write_text(json.dumps(said))
      message = (
        f'{path.parent} cannot be read: .* {2**62} examples, in .* bytes'
      )
      with self.assertRaisesRegex(ValueError, message):
        read()
      path.unlink()
      os.mkfifo(path)
      with self.assertRaisesRegex(ValueError, 'it is a named pipe'):
        read()


@pytest.mark.slow
class FuzzTest(parameterized.TestCase):
  """Damaged files are refused or read as if they were whole; nothing else happens."""

  @parameterized.parameters(*fuzz.KINDS)
  def test_2000_damaged_files(self, kind):
    expected = {'equal', 'refused'}
    if kind == 'jpeg':
      expected.add('changed')  # it has no checksum
    found = list(fuzz.outcomes(kind, 2000))
    self.assertLen({case for case, _ in found}, 2000)
    self.assertEmpty([each for each in found if each[1] not in expected])


if __name__ == '__main__':
  absltest.main()
