"""Paths as a person writes them."""

import os
import pathlib
import sys


def expand(path: str | os.PathLike) -> str:
  """Returns the path with a home folder for the ~ or ~name that it begins with.

  Raises:
    ValueError: there is no such home folder.
  """
  path = os.fspath(path)
  if not path.startswith('~'):
    return path
  expanded = os.path.expanduser(path)
  # With an empty HOME a ~ would become the root folder.
  if expanded == path or os.environ.get('HOME') == '':
    raise ValueError(
      f'{path!r} begins with ~, and there is no such home folder; write it out, or '
      './~ for a folder of that name.'
    )
  return expanded


def absolute(path: str | os.PathLike) -> pathlib.Path:
  """Returns the path from the root, the same whatever folder a process goes to.

  Raises:
    ValueError: the path begins with ~ and there is no such home folder, or it is not
      text, in which case no checkpoint can be written there.
  """
  found = pathlib.Path(expand(path)).absolute()
  try:
    str(found).encode('utf-8')
  except UnicodeEncodeError:
    raise ValueError(
      f'{found} is no text in {sys.getfilesystemencoding()}; set PYTHONUTF8=1, or '
      'choose a path of plain letters.'
    ) from None
  return found


def packaged_configs() -> pathlib.Path:
  """Returns the folder of the package's own configs.

  It is within an installed package, and beside the package in a clone.
  """
  package = pathlib.Path(__file__).parent
  installed = package / 'configs'
  return installed if installed.is_dir() else package.parent / 'configs'
