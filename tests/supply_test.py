"""Files that users name: what is no image, no array or no network is refused."""

import ast
import io
import json
import os
import pathlib
import struct
import tarfile
from unittest import mock
import zipfile
import zlib

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
from PIL import Image

from stein_jax import datasets
from stein_jax import inception
from stein_jax.datasets import _files
from stein_jax.runs import reporting
from stein_jax.runs import training
from stein_jax.runs import workdirs

_ROOT = pathlib.Path(__file__).parent.parent


def png(height=8, width=8):
  buffer = io.BytesIO()
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
  Image.fromarray(pixels).save(buffer, 'PNG')
  return buffer.getvalue()


def bomb(side):
  """Returns a PNG file of a few bytes that says it has side x side pixels."""

  def chunk(kind, content):
    check = struct.pack('>I', zlib.crc32(kind + content))
    return struct.pack('>I', len(content)) + kind + content + check

  header = struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)
  rows = zlib.compress(bytes(64))
  return b'\x89PNG\r\n\x1a\n' + b''.join(
    chunk(*of) for of in ((b'IHDR', header), (b'IDAT', rows), (b'IEND', b''))
  )


class FilesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def images(self, **files):
    """Returns a folder, and a zip of it, that has these files and a good one."""
    folder = self.folder / 'images'
    (folder / 'train').mkdir(parents=True)
    for name, content in {'good': png(), **files}.items():
      (folder / 'train' / f'{name}.png').write_bytes(content)
    archive = self.folder / 'images.zip'
    with zipfile.ZipFile(archive, 'w') as file:
      for path in folder.rglob('*.png'):
        file.write(path, path.relative_to(folder))
    return folder, archive

  @parameterized.parameters(
    (b'', 'it is no JPEG or PNG file'),
    (b'GIF89a, or so', 'it is no JPEG or PNG file'),
    (png()[:-40], 'truncated|broken|Truncated'),
    (bomb(9000), r'\(9000, 9000\) pixels; allowed: 67108864'),
    (bomb(60000), 'decompression bomb'),
  )
  def test_no_image(self, content, message):
    for path in self.images(bad=content):
      with self.assertRaisesRegex(
        ValueError, rf"path='{path}': train/bad.png is no image.*{message}"
      ):
        datasets.load('folder', path=str(path), size=8, mask='centre')

  def test_an_image_file_that_is_too_long(self):
    with mock.patch.object(_files, 'MAX_BYTES', len(png()) + 2):
      for path in self.images():
        datasets.load('folder', path=str(path), size=4, mask='centre')
      self.setUp()
      for path in self.images(long=png() + bytes(3)):
        with self.assertRaisesRegex(ValueError, 'train/long.png.*longer than'):
          datasets.load('folder', path=str(path), size=4, mask='centre')

  def test_a_folder_where_a_file_is_meant(self):
    folder, _ = self.images()
    (folder / 'train' / 'a.png').mkdir()
    with self.assertRaisesRegex(ValueError, 'train/a.png is no image'):
      datasets.load('folder', path=str(folder), size=8, mask='centre')
    for name in ('', 'train'):
      with self.assertRaisesRegex(FileNotFoundError, 'is a folder'):
        datasets.load('npz', path=str(folder / name))
      with self.assertRaisesRegex(FileNotFoundError, 'is no file'):
        inception.load(folder / name)

  def test_paths_of_a_zip_that_leave_it_are_not_followed(self):
    outside = self.folder / 'outside.png'
    outside.write_bytes(b'not to be read')
    folder, archive = self.images()
    with zipfile.ZipFile(archive, 'a') as file:
      file.writestr('train/../../outside.png', b'no image')
      file.writestr('../train/up.png', b'no image')
      file.writestr(str(outside), b'no image')
    self.assertLen(
      datasets.load('folder', path=str(archive), size=8, mask='centre'), 1
    )
    # Nothing is unpacked either.
    self.assertEqual(outside.read_bytes(), b'not to be read')
    self.assertCountEqual(
      [folder, archive, outside], list(self.folder.iterdir())
    )

  @parameterized.parameters(
    (dict(image=np.array([{}], object)), 'allow_pickle=False'),
    (dict(image=np.zeros((2, 3, 3, 1), np.int64)), 'image is int64.*uint8 or fl'),
    (dict(image=np.array(['a', 'b'])), 'image is <U1.*uint8 or floating'),
    (dict(image=np.zeros((2, 3), complex)), 'image is complex128'),
    (dict(image=np.zeros(2)), r'image is float64 \(2,\).*\[n, ...\]'),
    (dict(image=np.full((2, 3), np.nan)), 'must be finite'),
    (dict(image=np.zeros((0, 3))), r'image is float64 \(0, 3\).*none of them 0'),
    (dict(picture=np.zeros((2, 3))), 'has no image; it has: picture'),
    (dict(image=np.zeros((2, 3)), label=np.zeros(3, int)), 'label is .* of 2 images'),
    (dict(image=np.zeros((2, 3)), label=np.zeros(2)), 'label is float64.*integers'),
    (dict(image=np.zeros((2, 3)), label=np.zeros((2, 1), int)), r'label is .*\(2, 1\)'),
    (dict(image=np.zeros((2, 3)), label=np.array([0, -1])), 'at least 0'),
    (dict(image=np.zeros((2, 3)), label=np.array([{}, 1], object)), 'allow_pickle'),
  )  # fmt: skip
  def test_arrays_that_are_no_images_or_labels(self, arrays, message):
    path = str(self.folder / 'images.npz')
    np.savez(path, **arrays)
    with self.assertRaisesRegex(ValueError, f"path='{path}'.*{message}"):
      datasets.load('npz', path=path)

  def test_a_file_that_is_no_npz(self):
    path = self.folder / 'images.npz'
    np.savez(path, image=np.zeros((2, 3)))
    whole = path.read_bytes()
    single = io.BytesIO()
    np.save(single, np.zeros((2, 3)))
    for content in (b'', b'text', single.getvalue(), whole[:-30]):
      path.write_bytes(content)
      with self.assertRaisesRegex(ValueError, 'is no .npz file'):
        datasets.load('npz', path=str(path))
    damaged = bytearray(whole)
    damaged[150] ^= 255  # a bit of the array, which the zip has a checksum of
    path.write_bytes(damaged)
    with self.assertRaisesRegex(ValueError, 'cannot be read: .*CRC'):
      datasets.load('npz', path=str(path))

  @parameterized.parameters(
    (np.array([{}], object), 'cannot be read.*allow_pickle=False'),
    (np.zeros((3, 3, 3, 32), np.int32), 'wanted floats, found int32'),
    (np.zeros((3, 3, 32, 3)), r'wanted \(3, 3, 3, 32\), found'),
  )
  def test_weights_of_another_kind(self, array, message):
    path = self.folder / 'weights.npz'
    np.savez(path, **{'conv/conv2d_params': array})
    # The first node that is looked at.
    with mock.patch.object(
      inception.traverse_util,
      'flatten_dict',
      return_value={'conv/conv2d_params': np.zeros((3, 3, 3, 32))},
    ):
      with self.assertRaisesRegex(ValueError, f'{path}.*{message}'):
        inception.load(path)

  def test_weights_that_are_too_long(self):
    name = 'classify_image_graph_def.pb'
    with mock.patch.object(inception, '_MAX_BYTES', 9):
      path = self.folder / name
      path.write_bytes(bytes(10))
      with self.assertRaisesRegex(ValueError, '10 bytes.*allowed: 9'):
        inception.load(path)
      archive = self.folder / 'weights.tgz'
      with tarfile.open(archive, 'w:gz') as file:
        file.add(path, name)
      with self.assertRaisesRegex(ValueError, '10 bytes.*allowed: 9'):
        inception.load(archive)

  def test_a_link_in_an_archive_is_no_graph(self):
    archive = self.folder / 'weights.tgz'
    with tarfile.open(archive, 'w:gz') as file:
      link = tarfile.TarInfo('classify_image_graph_def.pb')
      link.type, link.linkname = tarfile.SYMTYPE, '/etc/passwd'
      file.addfile(link)
    with self.assertRaisesRegex(ValueError, 'no classify_image.*in this arch'):
      inception.load(archive)

  @parameterized.parameters(
    '{"algorithm": ', '[1, 2]', 'null', '[' * 10**5, '{"data": {}}', '\x80',
    '{"algorithm": "svgd", "version": "0.2.0"}', '{"version": 3}',
    '{"algorithm": "svgd", "data": {}, "version": "0.2.0", "__class__": 1}',
  )  # fmt: skip
  def test_a_workdir_of_something_else(self, content):
    (self.folder / 'config.json').write_bytes(content.encode('latin-1'))
    with self.assertRaisesRegex(
      ValueError, 'config.json is damaged|was made by'
    ):
      training.read_config(self.folder)

  @parameterized.parameters(
    ('{"energy": {"name": "os:system", "command": "false"}}', 'os'),
    ('{"optimizer": {"name": "chain", "args": [{"name": "os.path:x"}]}}', 'os'),
    ('{"data": {"name": "toy", "density": "builtins:eval"}}', 'builtins'),
    ('{"algorithm": "my.module"}', 'my'),
    ('{"energy": {"name": "stein_jax.build:import_module"}}', 'stein_jax'),
    ('{"energy": {"name": "optax.contrib._muon:muon"}}', 'optax'),
  )
  def test_a_program_that_a_workdir_names(self, fields, package):
    # Whoever wrote the config may be somebody else.
    given = json.loads(fields)
    fields = dict(version='0.2.0', algorithm='x', data={}, num_steps=1) | given
    (self.folder / 'config.json').write_text(json.dumps(fields))
    for listed in ('', 'o', 'other,m', 'my.module.part'):
      with (
        mock.patch.dict(os.environ, STEIN_JAX_IMPORTS=listed),
        self.assertRaisesRegex(ValueError, f'STEIN_JAX_IMPORTS={package} '),
      ):
        training.read_config(self.folder)
    with mock.patch.dict(os.environ, STEIN_JAX_IMPORTS=f'other, {package}'):
      self.assertIn('algorithm', training.read_config(self.folder))

  def test_what_a_workdir_may_name(self):
    fields = dict(
      version='0.2.0',
      algorithm='svgd',
      num_steps=1,
      data=dict(name='folder', path='C:/a', split='train[:5]'),
      optimizer=dict(name='optax.contrib:muon'),
      start='runs/a:b',
    )
    (self.folder / 'config.json').write_text(json.dumps(fields))
    with mock.patch.dict(os.environ, STEIN_JAX_IMPORTS=''):
      self.assertEqual(training.read_config(self.folder).algorithm, 'svgd')

  @parameterized.parameters(
    '{"image": ["float32", [1000000, 1000000]]}', '{"image": ["O", [2, 2]]}', '[1]',
    '{"image": ["float32", [-1, 2]]}', '{"image": ["float32", [0]]}', '{}', '[' * 10**5,
    '{"image": 3}',
  )  # fmt: skip
  def test_a_batch_of_a_workdir(self, content):
    (self.folder / 'batch.json').write_text(content)
    with self.assertRaisesRegex(ValueError, 'batch.json is damaged'):
      workdirs.batch_like(self.folder)

  def test_pipes_in_a_workdir(self):
    for name in ('config.json', 'batch.json', 'metrics.jsonl'):
      os.mkfifo(self.folder / name)
    for read in (
      training.read_config,
      workdirs.batch_like,
      reporting.read_metrics,
    ):
      with self.assertRaisesRegex(ValueError, 'it is a named pipe'):
        read(self.folder)

  @parameterized.parameters('no json', '[1]', '{"loss": 1}', '\x80')
  def test_metrics_of_something_else(self, line):
    path = self.folder / 'metrics.jsonl'
    path.write_bytes(b'{"step": 1}\n' + line.encode('latin-1') + b'\n')
    with self.assertRaisesRegex(ValueError, 'metrics.jsonl is damaged'):
      reporting.read_metrics(self.folder)
    path.write_text('{"step": 1}\n{"ste')  # torn, and so left out
    self.assertLen(reporting.read_metrics(self.folder), 1)


class CodeTest(parameterized.TestCase):
  @parameterized.parameters('stein_jax', 'experiments', 'configs')
  def test_neither_unpickles_nor_downloads(self, package):
    # TFDS alone downloads, against the checksums that it has of each set.
    forbidden = {
      *('pickle', 'dill', 'cloudpickle', 'joblib', 'marshal', 'shelve'),
      *('urllib', 'requests', 'http', 'ftplib', 'socket'),
    }
    loads = 0
    for path in sorted((_ROOT / package).rglob('*.py')):
      for node in ast.walk(ast.parse(path.read_text('utf-8'))):
        names = []
        if isinstance(node, ast.Import):
          names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
          names = [node.module]
        found = {name.split('.')[0] for name in names} & forbidden
        if path.name == 'agreement.py':
          found -= {'socket'}  # which the processes of a run meet by
        self.assertEmpty(found, path)
        if not isinstance(node, ast.Call):
          continue
        called = ast.unparse(node.func)
        self.assertNotIn(called, ('eval', 'exec', 'pickle.loads'), path)
        if called == 'np.load':
          loads += 1
          self.assertIn('allow_pickle=False', ast.unparse(node), path)
    self.assertEqual(loads > 0, package != 'configs')

  def test_tests_import_no_tests(self):
    for path in sorted((_ROOT / 'tests').rglob('*.py')):
      for node in ast.walk(ast.parse(path.read_text('utf-8'))):
        names = []
        if isinstance(node, ast.Import):
          names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
          names = [f'{node.module}.{alias.name}' for alias in node.names]
        parts = [part for name in names for part in name.split('.')]
        self.assertEmpty([p for p in parts if p.endswith('_test')], path)


if __name__ == '__main__':
  absltest.main()
