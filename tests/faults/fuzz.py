"""Flips bits of files and cuts them off, and says what reading them gives.

Example:
  python -m tests.faults.fuzz --kind=npz --cases=2000
"""

from collections.abc import Callable, Iterator
import hashlib
import io
import os
import pathlib
import random
import resource
import signal
import subprocess
import sys
import tarfile
import tempfile
from unittest import mock
import zipfile

from absl import app
from absl import flags
import jax
import numpy as np
from PIL import Image

from stein_jax import datasets
from stein_jax import inception
from stein_jax.runs import checkpoints
from tests.faults import states

_KIND = flags.DEFINE_string('kind', 'npz', 'Of the file.')
_CASES = flags.DEFINE_integer('cases', 2000, 'Damaged files.')
_FIRST = flags.DEFINE_integer('first', 0, 'The first case.')
_WORKER = flags.DEFINE_bool('worker', False, 'Reads them, in this process.')

SECONDS = 10  # that reading a file may take
GIGABYTES = 1.0  # of a process that has read them all


def outcomes(kind: str, cases: int) -> Iterator[tuple[int, str]]:
  """Yields what each case gives: 'equal', 'refused', 'changed' or what went wrong.

  Files are read in a process of their own, so that its death and its memory are seen.
  """
  first, begun = 0, True
  while first < cases:
    if not begun:
      raise RuntimeError(f'The files of {kind} cannot be made.')
    begun = False
    process = subprocess.Popen(
      [sys.executable, '-m', 'tests.faults.fuzz', '--worker', f'--kind={kind}']
      + [f'--first={first}', f'--cases={cases}'],
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
    )
    memory = 'no line'
    for line in process.stdout:
      number, _, said = line.strip().partition(' ')
      begun = True
      if number == 'memory':
        memory = float(said)
      elif number.isdigit():
        yield int(number), said
        first = int(number) + 1
    if process.wait():
      yield first, f'the process ended with {process.returncode}'
      first += 1
    elif memory > GIGABYTES:
      yield first, f'{memory} GB'


def damaged(content: bytes, case: int) -> bytes:
  """Returns the bytes with one bit the other way, or, of every fourth, cut off."""
  rng = random.Random(case)
  if case % 4 == 3:
    return content[: rng.randrange(len(content))]
  at = rng.randrange(8 * len(content))
  found = bytearray(content)
  found[at // 8] ^= 1 << at % 8
  return bytes(found)


def pictures(num: int) -> np.ndarray:
  """Returns uint8 [num, 8, 8, 3] that neither PNG nor JPEG makes much smaller."""
  return np.random.default_rng(0).integers(0, 256, (num, 8, 8, 3), np.uint8)


def encoded(pixels, kind):
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, kind)
  return buffer.getvalue()


def sums(folder, names):
  """Returns what the program sha256sum prints of files in a folder."""
  digest = lambda name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
  return ''.join(f'{digest(name)}  {name}\n' for name in names)


def _folder(path):
  source = lambda: datasets.load('folder', path=str(path), split='all', size=8)
  return lambda: source()[:]


def npz(folder):
  path = folder / 'images.npz'
  arrays = dict(
    image=pictures(6), label=np.arange(6), mask=np.ones((6, 8, 8, 1))
  )
  np.savez_compressed(path, **arrays)
  return [path], lambda: datasets.load('npz', path=str(path))[:]


def npz_stored(folder):
  path = folder / 'images.npz'
  np.savez(path, train_image=pictures(2), test_image=pictures(3))
  return [path], lambda: datasets.load('npz', path=str(path), split='test')[:]


def zip_of_images(folder):
  path = folder / 'images.zip'
  with zipfile.ZipFile(path, 'w') as archive:
    for i, pixels in enumerate(pictures(6)):
      kind = ('PNG', 'JPEG')[i % 2]
      archive.writestr(
        f'{("cats", "hündchen")[i // 3]}/{i}.{kind.lower()}',
        encoded(pixels, kind),
        (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)[i % 3 == 0],
      )
  return [path], _folder(path)


def png(folder):
  path = folder / '0.png'
  path.write_bytes(encoded(pictures(1)[0], 'PNG'))
  return [path], _folder(folder)


def jpeg(folder):
  path = folder / '0.jpg'
  path.write_bytes(encoded(pictures(1)[0], 'JPEG'))
  return [path], _folder(folder)


def jpeg_with_sums(folder):
  paths, read = jpeg(folder)
  listed = folder / 'SHA256SUMS'
  listed.write_text(sums(folder, ['0.jpg']), 'utf-8')
  return [*paths, listed], read


def inception_tgz(folder):
  from tensorboardX.proto import graph_pb2  # pylint: disable=g-import-not-at-top
  from tensorboardX.proto import types_pb2  # pylint: disable=g-import-not-at-top

  graph = graph_pb2.GraphDef()
  for i, pixels in enumerate(pictures(3)):
    tensor = graph.node.add(name=f'w{i}', op='Const').attr['value'].tensor
    tensor.dtype = types_pb2.DT_FLOAT
    tensor.tensor_shape.dim.add(size=pixels.size)
    tensor.tensor_content = pixels.astype(np.float32).tobytes()
  path = folder / 'inception.tgz'
  (folder / 'classify_image_graph_def.pb').write_bytes(
    graph.SerializeToString()
  )
  (folder / 'LICENSE').write_bytes(bytes(700))
  with tarfile.open(path, 'w:gz') as archive:
    for name in ('LICENSE', 'classify_image_graph_def.pb'):
      archive.add(folder / name, name)
  shapes = {f'w{i}': np.zeros(8 * 8 * 3, np.float32) for i in range(3)}

  def read():
    with mock.patch.object(jax, 'eval_shape', return_value={'params': shapes}):
      return inception.load(path)['params']

  return [path], read


def array_record(folder):
  import tensorflow_datasets as tfds  # pylint: disable=g-import-not-at-top

  pixels = np.random.default_rng(0).integers(0, 256, (6, 28, 28), np.uint8)
  # TFDS would encode arrays by TensorFlow.
  rows = [
    dict(image=io.BytesIO(encoded(x, 'PNG')), label=i)
    for i, x in enumerate(pixels)
  ]
  builder = tfds.builder('mnist', data_dir=folder, file_format='array_record')
  splits = lambda self, manager: {'train': enumerate(rows)}
  with mock.patch.object(type(builder), '_split_generators', splits):
    builder.download_and_prepare()
  os.environ['TFDS_DATA_DIR'] = str(folder)
  files = [p for p in folder.rglob('*') if p.is_file()]
  paths = [p for p in files if 'array_record' in p.name]
  return paths, lambda: datasets.load('mnist')[:]


def array_record_json(folder):
  _, read = array_record(folder)
  return sorted(folder.rglob('*.json')), read


def checkpoint(folder):
  with checkpoints.manager(folder) as manager:
    for step in (1, 2):
      checkpoints.save(manager, states.state_at(step))

  def read():
    with checkpoints.manager(folder, read_only=True) as manager:
      state = checkpoints.restore(manager, states.state_at(0))
    # Before the damage is what was saved before.
    np.testing.assert_equal(
      jax.tree.map(np.asarray, state),
      jax.tree.map(np.asarray, states.state_at(int(state.step))),
    )
    return {}

  paths = [p for p in sorted((folder / '2').rglob('*')) if p.is_file()]
  return [p for p in paths if p.stat().st_size], read


KINDS: dict[str, Callable] = {
  each.__name__: each
  for each in (npz, npz_stored, zip_of_images, png, jpeg, jpeg_with_sums)
  + (inception_tgz, array_record, array_record_json, checkpoint)
}


def outcome(read, whole, name) -> str:
  """Returns what reading gives."""
  try:
    found = read()
  except (ValueError, OSError, RuntimeError) as error:
    said = str(error)
    good = name in said and len(said) < 2000 and type(error) in _REFUSALS
    return 'refused' if good else f'{type(error).__name__}: {said[:300]}'
  except Exception as error:
    return f'{type(error).__name__}: {str(error)[:300]}'
  same = found.keys() == whole.keys() and all(
    np.array_equal(found[each], whole[each]) for each in whole
  )
  return 'equal' if same else 'changed'


_REFUSALS = (ValueError, FileNotFoundError, RuntimeError)


def read_all(kind, first, cases):
  """Prints what each case gives, and the memory that was taken."""
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    paths, read = KINDS[kind](folder)
    contents = [path.read_bytes() for path in paths]
    whole = read()
    print('begun', flush=True)
    for case in range(first, cases):
      path, content = paths[case % len(paths)], contents[case % len(paths)]
      path.write_bytes(damaged(content, case))
      signal.alarm(SECONDS)
      said = outcome(read, whole, name).replace('\n', ' ')
      signal.alarm(0)
      print(case, said, flush=True)
      path.write_bytes(content)
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  print('memory', peak / 2**20, flush=True)


def main(argv):
  del argv
  if _WORKER.value:
    read_all(_KIND.value, _FIRST.value, _CASES.value)
    return
  counts = {}
  for case, said in outcomes(_KIND.value, _CASES.value):
    counts[said] = counts.get(said, 0) + 1
    if counts[said] == 1:
      print(case, said, flush=True)
  print(counts)


if __name__ == '__main__':
  jax.config.update('jax_platforms', 'cpu')
  app.run(main)
