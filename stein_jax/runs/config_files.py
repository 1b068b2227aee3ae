"""The flag that names a config file, and the flags of its fields.

_CONFIG = config_files.ConfigFile('config')
launch.run(main, parse=_CONFIG.parse)   # then _CONFIG.value

--config=configs/stein_cd_mnist.py:digits   a file and a scale
--config=stein_cd_mnist:digits              one that came with the package
--config.step.epsilon=0.2                   a field
--config.step.direction.kernel.name=IMQ     another value, with its own defaults
--config.optimizer.learning_rate=0.001      a number in place of a schedule
--config.sample.chain='{"name": "MALA", "step_size": 0.3}'   a section as a whole
"""

import ast
from collections.abc import Mapping, Sequence
import difflib
import importlib.util
import json
import pathlib
import re
import sys

from absl import flags
from flax import traverse_util
from ml_collections import ConfigDict

from stein_jax import build
from stein_jax import locations
from stein_jax.runs import configs
from stein_jax.runs import fields
from stein_jax.runs import launch

_ERRORS = (ValueError, TypeError, FileNotFoundError)


class ConfigFile:
  """A flag of a config file; `value` is its config once flags are parsed.

  It stays None where the flag is not `required` and not given.
  """

  def __init__(self, name: str, *, required: bool = True):
    self._name = name
    self.value: ConfigDict | None = None
    self.texts: dict[str, str] = {}  # of the fields that were given, by name
    flags.DEFINE_string(
      name,
      None,
      'The config file, or the name of one that the package has, with :SCALE for one '
      'of its scales; a field is set by '
      f"--{name}.field=value, a section by --{name}.section='{{...}}'.",
      required=required,
    )
    # `--help` of a command then shows it among the command's own flags.
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])

  def parse(self, argv: Sequence[str]) -> list[str]:
    """Parses all flags, as `launch.run` asks; ends the process where one is wrong."""
    own, others = self._split(argv)
    if set(others) & {'--help', '-help', '-h', '--helpshort'}:
      self._print_fields(others, own)
    self.texts = own
    rest = launch.parse_flags(others)
    if flags.FLAGS[self._name].value is None:
      if own:
        sys.exit(f'--{self._name}.{next(iter(own))} needs --{self._name}=FILE.')
      return rest
    try:
      self.value = read(flags.FLAGS[self._name].value, own)
    except _ERRORS as error:
      joint = '.' if build.FIELD.match(str(error)) else ': '
      sys.exit(f'--{self._name}{joint}{error}')
    return rest

  def _print_fields(self, others, own):
    """Prints the fields of the config that is named beside --help, if one is."""
    flag = re.compile(rf'--?{self._name}(?:=(.*))?')
    for argument, following in zip(others, [*others[1:], ''], strict=True):
      if match := flag.fullmatch(argument):
        config = read(match[1] or following, own)
        print(f'Fields of {match[1] or following}:\n')
        for name, value, meaning in fields.described(config):
          meaning = meaning and f'  # {meaning}'
          print(f'  --{self._name}.{name}={value!r}{meaning}')
        print()

  def _split(self, argv):
    """Returns the texts of fields by name, and the other arguments."""
    field = re.compile(rf'--?{self._name}\.([\w.]+)(?:=(.*))?', re.DOTALL)
    off = re.compile(rf'--?no{self._name}\.([\w.]+)')
    own, others, arguments = {}, [], iter(argv)
    for argument in arguments:
      if match := field.fullmatch(argument):
        name, text = match.groups()
        own.pop(name, None)  # the last one counts, in its place
        own[name] = next(arguments, 'True') if text is None else text
      elif match := off.fullmatch(argument):
        own[match[1]] = 'False'
      else:
        others.append(argument)
    return own, others


def read(path: str, texts: Mapping[str, str]) -> ConfigDict:
  """Returns the completed config of a file, with fields set to what texts say.

  Args:
    path: of the file, or the name of a config of the package; with :SCALE for one of
      its scales.
    texts: dotted names of fields to what a command line says of them.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError, TypeError: the file has no such scale, or a text is no value of its
      field.
  """
  path, _, scale = path.partition(':')
  get_config = _module(path).get_config
  given = getattr(get_config, 'given', get_config)
  found = configs.plain(given(scale) if scale else given())
  whole = configs.plain(configs.complete(found))
  for name, text in texts.items():
    _check_name(name, whole)
    found = configs.with_field(found, name, _parsed(name, text, whole))
  return configs.complete(found)


def _check_name(name, whole):
  """Refuses a field that no section has, and lists those with names like it.

  A section may take fields that it does not have yet, for `build.check_call` to refuse;
  but one that is a value by itself has none.
  """
  first, *rest = name.split('.')
  names = list(traverse_util.flatten_dict(whole, sep='.'))
  known = first in whole and (not rest or hasattr(whole[first], 'keys'))
  if known and (len(rest) != 1 or first not in ('step', 'sample')):
    return
  if known and (rest[0] in whole[first] or rest[0] == 'name'):
    return
  last = name.rpartition('.')[2]
  near = [each for each in names if each.rpartition('.')[2] == last]
  near += difflib.get_close_matches(name, [*names, *whole], 3)
  listed = ', '.join(dict.fromkeys(near)) or ', '.join(whole)
  raise ValueError(f'{name} is no field of this config; near: {listed}.')


def _module(path):
  """Returns the module of a file of Python, or of a config of the package by name."""
  shipped = locations.packaged_configs()
  named = shipped / f'{path}.py'
  file = named if path.isidentifier() else locations.absolute(path)
  if file.suffix != '.py' or not file.is_file():
    names = sorted(each.stem for each in shipped.glob('*.py'))
    name = pathlib.PurePath(path).stem
    near = difflib.get_close_matches(name, names, 5, 0.5) or names
    raise FileNotFoundError(
      f'There is no config file {path}; the package has, without .py: '
      f'{", ".join(near)}.'
    )
  spec = importlib.util.spec_from_file_location(file.stem, file)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def _parsed(name, text, whole):
  """Returns what a text means for the field of that name.

  Raises:
    ValueError: it is nothing that the field can be.
  """
  current = whole
  for part in name.split('.'):
    current = current.get(part) if isinstance(current, dict) else None
  if isinstance(current, str):
    return text
  if isinstance(current, bool) and text.lower() in ('true', 'false'):
    return text.lower() == 'true'
  for parse in (json.loads, ast.literal_eval):
    try:
      return configs.plain(parse(text))
    except (ValueError, SyntaxError):
      continue
  if current is None or isinstance(current, dict):
    return text  # a name
  raise ValueError(f'{name}={text!r} must be {_kind(current)}.')


def _kind(value):
  """Returns what a text has to be for a field that has this value."""
  if isinstance(value, bool):
    return 'True or False'
  if isinstance(value, tuple):
    return 'a sequence, as (1, 2) is'
  return 'an integer' if isinstance(value, int) else 'a number'
