"""Files that somebody else made: folders, zips, `.npz` and `.tgz`, read within bounds.

What is opened is a regular file: a named pipe would wait for ever. Nothing is unpacked
to disk or unpickled. Sizes are compared with limits by what a file says of itself,
before memory is taken for it, and an error is one sentence that names the file.
"""

from collections.abc import Iterable
import contextlib
import gzip
import math
import os
import pathlib
import re
import stat
import struct
from typing import BinaryIO
import zipfile

import numpy as np

# A member of a zip takes 20 microseconds and 900 bytes of memory.
MAX_MEMBERS = 2**18
MAX_BYTES = 2**28  # of a file that is read whole, such as an image
# What a zip unfolds to, in multiples of its own size. MNIST deflates by 5, and by 98
# where its pixels are 0 and 1 in float64; zeros alone deflate by 1,030.
MAX_RATIO = 200
_MAX_DEPTH = 32  # folders within folders
_MAX_NAME = 4096  # bytes of a name with its folders, as in Linux
# Names that systems give to what they leave beside a user's files, in small letters.
# Names that begin with a dot are hidden, too.
_LEFT_BY_SYSTEMS = frozenset(
  ('__macosx', 'thumbs.db', 'ehthumbs.db', 'desktop.ini', 'icon\r', '@eadir')
  + ('@recycle', '#recycle', '$recycle.bin', 'lost+found')
  + ('system volume information', 'network trash folder', 'temporary items')
)
_MAX_REASON, _MAX_NAME_SHOWN = 800, 200  # letters
_KINDS = (
  (stat.S_ISDIR, 'a folder'),
  (stat.S_ISFIFO, 'a named pipe'),
  (stat.S_ISSOCK, 'a socket'),
  (stat.S_ISCHR, 'a device'),
  (stat.S_ISBLK, 'a device'),
)


def reason(error: Exception) -> str:
  """Returns what an error says, with its kind where it would say little."""
  if isinstance(error, (EOFError, struct.error)):
    return 'it is truncated, or damaged'
  own = isinstance(error, (ValueError, OSError)) and str(error)
  said = str(error) if own else f'{type(error).__name__} {error}'
  # Some libraries quote what they cannot read.
  return shown(' '.join(said.split()), _MAX_REASON)


def shown(name: str, most: int = _MAX_NAME_SHOWN) -> str:
  """Returns a name for a message, which it can neither break nor make long."""
  # Names in a zip may have line ends, or letters that command a terminal.
  name = name if len(name) <= most else f'{name[:most]}...'
  return name if name.isprintable() else ascii(name)[1:-1]


@contextlib.contextmanager
def refused(what: str):
  """Makes one ValueError, of `what` and a reason, of all that a bad file raises."""
  try:
    yield
  except Exception as error:  # zipfile, zlib, NumPy and decoders have their own
    raise ValueError(f'{what}: {reason(error)}') from error


def open_regular(path: str | os.PathLike, most: float = math.inf) -> BinaryIO:
  """Returns a file, opened.

  Raises:
    OSError: there is none, or it may not be read.
    ValueError: it is no regular file, which is not opened, or has more bytes than
      `most`.
  """
  found = os.stat(path)
  for is_kind, name in _KINDS:
    if is_kind(found.st_mode):
      raise ValueError(f'it is {name}; allowed: a regular file')
  check_length(found.st_size, most)
  return open(path, 'rb')


def is_left_by_system(name: str) -> bool:
  """Returns whether a name without folders is hidden, or of a system's own file."""
  return (
    name.startswith('.')
    or name.lower() in _LEFT_BY_SYSTEMS
    or name.endswith(':Zone.Identifier')  # of a download, copied to Linux
  )


class Folder:
  """The files of a folder.

  Args:
    path: of the folder.
  """

  left_out = ()

  def __init__(self, path: pathlib.Path):
    self._path = path

  def listed(self, folder: str) -> tuple[list[str], list[str]]:
    """Returns the names of the folders in one of its folders, and of all else.

    Hidden ones and those that systems leave are not among them.
    """
    if folder.count('/') > _MAX_DEPTH:
      raise ValueError(f'it has more than {_MAX_DEPTH} folders in each other')
    folders, others = [], []
    with os.scandir(self._path / folder) as entries:
      for entry in entries:
        if not is_left_by_system(entry.name):
          (folders if _is_folder(entry) else others).append(entry.name)
    return folders, others

  def open(self, name: str, most: float = math.inf) -> BinaryIO:
    """Returns one of its files, opened; see `open_regular`."""
    return open_regular(self._path / name, most)

  def check_total(self, names: Iterable[str]) -> None:
    """Does nothing: what lies in a folder is as large as it says."""

  def close(self) -> None:
    """Does nothing, since each file is opened by itself."""


class Zip:
  """The members of a zip, in folders; nothing is unpacked to disk.

  A name that is absolute, leads out of the archive or has too many folders is left out.
  The name of each member is compared with the one that stands before its bytes,
  since a flipped bit would make it one of another folder.

  Args:
    path: the file.
    limits: a factor on the limits.

  Attributes:
    names: of the members that are files.
    left_out: names of the members that are not read.

  Raises:
    ValueError: it is no zip, is damaged, has two members of one name, or more members
      than a limit.
  """

  # zipfile.Path is avoided: some names keep it busy for ever (CVE-2024-8088).

  def __init__(self, path: pathlib.Path, limits: float = 1.0):
    self._limits = limits
    self._members, self._folders = {}, {'': ({}, {})}
    self._file = open_regular(path)
    try:
      members = _directory(self._file, limits * MAX_MEMBERS)
      self._archive = zipfile.ZipFile(self._file)
      _check_members(self._file, self._archive.infolist(), members)
      self.left_out = [
        info.filename
        for info in self._archive.infolist()
        if not self._add(info)
      ]
    except BaseException:
      self._file.close()
      raise
    self.names = list(self._members)

  def _add(self, info):
    """Returns whether a member's name is safe, and then takes it into its folders."""
    # Some programs of Windows write their own separator.
    name = info.filename.replace('\\', '/')
    is_folder = name.endswith('/')
    parts = [part for part in name.removesuffix('/').split('/') if part != '.']
    if len(name.encode(errors='replace')) > _MAX_NAME or (
      len(parts) > _MAX_DEPTH or not {*parts}.isdisjoint(('', '..'))
    ):
      return False
    at = ''
    for part in parts if is_folder else parts[:-1]:
      self._folders[at][0].setdefault(part)
      at += f'{part}/'
      self._folders.setdefault(at, ({}, {}))
    if not is_folder and parts:
      if at + parts[-1] in self._members:
        raise ValueError(f'it has two members {at + parts[-1]!r}')
      self._folders[at][1].setdefault(parts[-1])
      self._members[at + parts[-1]] = info
    return True

  def listed(self, folder: str) -> tuple[list[str], list[str]]:
    """Returns the names of the folders in one of its folders, and of all else.

    Hidden ones and those that systems leave are not among them.
    """
    folders, others = (
      [name for name in names if not is_left_by_system(name)]
      for names in self._folders[folder]
    )
    return folders, others

  def length(self, name: str) -> int:
    """Returns how many bytes a member says that it has."""
    return self._members[name].file_size

  def open(self, name: str, most: float = math.inf) -> BinaryIO:
    """Returns a member, opened; reading it to its end compares its checksum.

    Raises:
      ValueError: there is none, it has more bytes than `most`, or it is stored by other
        means than zips and `.npz` files use.
    """
    if name not in self._members:
      raise ValueError('it is a folder; allowed: a file')
    info = self._members[name]
    check_length(info.file_size, most)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
      raise ValueError(
        f'it is compressed by method {info.compress_type}; allowed: 0 (stored) and 8 '
        '(deflated)'
      )
    return self._archive.open(info)

  def check_total(self, names: Iterable[str]) -> None:
    """Raises ValueError if members unfold to more than the limits."""
    length = os.fstat(self._file.fileno()).st_size
    total = sum(map(self.length, names))
    most = int(self._limits * max(MAX_BYTES, MAX_RATIO * length))
    if total > most:
      raise ValueError(
        f'its {length} bytes unfold to {total}; allowed: {most}, or more by a larger '
        '`limits`'
      )

  def close(self) -> None:
    """Closes the file."""
    self._archive.close()
    self._file.close()


def opened(path: pathlib.Path, limits: float = 1.0) -> Folder | Zip:
  """Returns a folder or a zip.

  Raises:
    ValueError: it is neither, or a damaged zip.
  """
  return Folder(path) if path.is_dir() else Zip(path, limits)


class Arrays:
  """The arrays of an `.npz` file, of which none is read before it is asked for.

  Args:
    path: the file.
    limits: a factor on the limits.

  Attributes:
    names: of the arrays.

  Raises:
    ValueError: it is no zip, or damaged.
  """

  def __init__(self, path: pathlib.Path, limits: float = 1.0):
    self._zip, self._limits = Zip(path, limits), limits
    self._members = {
      name.removesuffix('.npy'): name for name in self._zip.names
    }
    self.names = list(self._members)
    if len(self.names) < len(self._zip.names):
      self.close()
      raise ValueError(
        'an array is there with .npy behind its name and without'
      )

  def read(
    self, names: Iterable[str], copies: int = 1
  ) -> dict[str, np.ndarray]:
    """Returns arrays by name.

    Args:
      names: some of `names`.
      copies: how many of each the memory has to hold.

    Raises:
      ValueError: an array is damaged, has objects, is of another size than the file
        says, or all together unfold to more than the limits or the memory.
    """
    members = {name: self._members[name] for name in names}
    for name, member in members.items():
      with refused(name):
        self._check_header(member)
    self._zip.check_total(members.values())
    total = sum(map(self._zip.length, members.values()))
    check_memory(copies * total, self._limits)
    return {name: self._array(name, each) for name, each in members.items()}

  def _check_header(self, member):
    """Refuses an array whose shape and type do not make the bytes that it has."""
    with self._zip.open(member) as stream:
      version = np.lib.format.read_magic(stream)
      if version not in _NPY_HEADERS:
        raise ValueError(f'it is of version {version}; allowed: 1 and 2')
      with refused('its header is damaged'):
        shape, _, dtype = _NPY_HEADERS[version](stream)
      length = self._zip.length(member) - stream.tell()
    if dtype.hasobject:
      raise ValueError(
        'it has Python objects, which allow_pickle=False refuses'
      )
    wanted = math.prod(shape) * dtype.itemsize
    if wanted != length or min(shape, default=0) < 0:
      raise ValueError(
        f'{dtype} {shape} takes {wanted} bytes, and there are {length}'
      )

  def _array(self, name, member):
    with refused(name), self._zip.open(member) as stream:
      array = np.load(stream, allow_pickle=False)  # a pickle could run anything
      # The checksum is compared at the end.
      if stream.read(1):
        raise ValueError('it is longer than its array')
      return array

  def close(self) -> None:
    """Closes the file."""
    self._zip.close()


_NPY_HEADERS = {
  (1, 0): np.lib.format.read_array_header_1_0,
  (2, 0): np.lib.format.read_array_header_2_0,
}


class Bounded:
  """A stream of at most so many bytes, unfolded if it is one of gzip.

  Args:
    stream: of bytes.
    most: bytes that may be read of it.
  """

  def __init__(self, stream: BinaryIO, most: int):
    is_gzip = stream.read(2) == b'\x1f\x8b'
    stream.seek(0)
    self._stream = gzip.GzipFile(fileobj=stream) if is_gzip else stream
    self._left = self._most = most

  def read(self, length: int) -> bytes:
    """Returns the next bytes, fewer at the end.

    Raises:
      ValueError: there are more than allowed, or the file is damaged.
    """
    found = []
    while length and (part := self._stream.read(min(length, 2**20))):
      found.append(part)
      length -= len(part)
      self._left -= len(part)
      if self._left < 0:
        raise ValueError(f'it is longer than {self._most} bytes')
    return b''.join(found)

  def skip(self, length: int) -> bool:
    """Passes over bytes; returns whether there were so many."""
    while length and (part := self.read(min(length, 2**20))):
      length -= len(part)
    return not length


_BLOCK = 512  # bytes, of which a tar is made


def tar_member(
  head: bytes, stream: Bounded, name: str, most: int
) -> bytes | None:
  """Returns what a file in a tar holds, or None where no file has that name.

  Not by tarfile, whose way through hostile headers can be without end (CVE-2024-6232,
  CVE-2025-8194). Long names and sparse files are not known here.

  Args:
    head: its first 512 bytes.
    stream: the others, which are read to their end, where gzip compares a checksum.
    name: of the file, without its folders.
    most: bytes that it may have.

  Raises:
    ValueError: it is no tar, is damaged, or the file has more bytes.
  """
  content = None
  while len(head) == _BLOCK and any(head):
    if not is_tar(head):
      raise ValueError('it is no tar, or damaged')
    length = _octal(head[124:136])
    blocks = -(-length // _BLOCK) * _BLOCK
    is_file = head[156:157] in (b'0', b'\0')
    own = head[:100].split(b'\0')[0].decode().split('/')[-1]
    if content is None and is_file and own == name:
      check_length(length, most)
      content = stream.read(blocks)[:length]
      if len(content) < length:
        raise EOFError
    elif not stream.skip(blocks):
      raise EOFError
    head = stream.read(_BLOCK)
  while stream.read(2**20):
    pass
  return content


def is_tar(head: bytes) -> bool:
  """Returns whether 512 bytes begin a file in a tar, by their checksum."""
  if len(head) < _BLOCK or not any(head[148:156]):
    return False
  try:
    said = _octal(head[148:156])
  except ValueError:
    return False
  return said == sum(head[:148]) + 8 * ord(' ') + sum(head[156:])


def _octal(field):
  """Returns a number of a tar, which has no sign."""
  digits = field.strip(b' \0')
  if not re.fullmatch(rb'[0-7]*', digits):
    raise ValueError(f'{field!r} is no number of a tar')
  return int(digits or b'0', 8)


def check_memory(needed: int, limits: float = 1.0) -> None:
  """Raises ValueError if that many bytes are more than the memory that is free."""
  free = free_memory()
  if needed > limits * free:
    raise ValueError(
      f'it takes {needed} bytes of memory, and {free} are free; a larger `limits` lets '
      'it try'
    )


def free_memory() -> int:
  """Returns how many bytes this process can take, by what the system says."""
  found = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  with contextlib.suppress(OSError, ValueError, AttributeError):
    text = pathlib.Path('/proc/meminfo').read_text('utf-8')
    found = 1024 * int(re.search(r'MemAvailable: *(\d+)', text)[1])
  # A container has a limit of its own.
  with contextlib.suppress(OSError, ValueError):
    group = pathlib.Path('/sys/fs/cgroup')
    limit, used = (
      int((group / f'memory.{each}').read_text('utf-8'))
      for each in ('max', 'current')
    )
    found = min(found, max(limit - used, 0))
  return found


def _is_folder(entry):
  try:
    return entry.is_dir()
  except OSError:  # a link that leads to itself
    return False


def check_length(length: int, most: float) -> None:
  """Raises ValueError if a file of that many bytes has more than `most`."""
  if length > most:
    raise ValueError(
      f'it has {length} bytes and is longer than what is allowed: {int(most)}'
    )


# The records of a zip, by the names of the format's description: end of central
# directory, its locator and form of 64 bits, an entry, and a member's local header.
_END = struct.Struct('<4s4H2LH')
_LOCATOR = struct.Struct('<4sLQL')
_END_64 = struct.Struct('<4sQ2H2L4Q')
_ENTRY = struct.Struct('<4s6H3L5H2L')
_LOCAL = struct.Struct('<4s5H3L2H')
_UTF_8 = 0x800


def _directory(file, most) -> list[tuple[bytes, int]]:
  """Returns name and flags of each member by the directory at a zip's end.

  zipfile takes as many entries as there are bytes for, whatever number is stated.
  """
  length = file.seek(0, os.SEEK_END)
  start = file.seek(max(0, length - 2**16 - _END.size))
  tail = file.read()
  at = tail.rfind(b'PK\5\6')
  if at < 0 or len(tail) - at < _END.size:
    raise ValueError('it is no zip, or only a part of one')
  end = _END.unpack_from(tail, at)
  number, size, wrap = end[4], end[5], 2**16
  close = start + at  # where the directory ends
  file.seek(max(0, close - _END_64.size - _LOCATOR.size))
  before = file.read(_END_64.size + _LOCATOR.size)
  if before[_END_64.size :].startswith(b'PK\6\7'):
    number, size = _END_64.unpack_from(before)[7:9]
    close, wrap = close - len(before), 2**64
  if size > close:
    raise ValueError(f'its directory of {size} bytes is damaged')
  # Something may stand before a zip, so offsets are not from the file's begin.
  file.seek(close - size)
  directory, at, found = file.read(size), 0, []
  while at < size:
    if len(found) + 1 > most:
      raise ValueError(
        f'it has more than {int(most)} members; a larger `limits` allows more'
      )
    entry = _ENTRY.unpack_from(directory, at)
    name, extra, comment = entry[10:13]
    begin = at + _ENTRY.size
    found.append((directory[begin : begin + name], entry[3] & _UTF_8))
    at = begin + name + extra + comment
  # Some programs write large numbers without the form of 64 bits.
  if len(found) % wrap != number:
    raise ValueError(f'it has {len(found)} members, and says {number}')
  return found


def _check_members(file, infos, members):
  """Refuses a zip whose members have other names than its directory says."""
  for info, (name, flags) in zip(infos, members, strict=True):
    file.seek(info.header_offset)
    local = _LOCAL.unpack(file.read(_LOCAL.size))
    # A flag says how letters are written that are not ASCII.
    same = name.isascii() or local[2] & _UTF_8 == flags
    if local[0] != b'PK\3\4' or file.read(local[9]) != name or not same:
      raise ValueError(f'{info.filename!r} has another name before its bytes')
