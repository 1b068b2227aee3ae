"""Configs: files that state what differs, completed from the signatures they call.

A file says what identifies an experiment, its `CONFIG`, and small changes of it by
name; `scales` makes its `get_config` of them. Whatever they leave out comes from the
defaults of what a section calls: `complete` writes them in, so that every field is a
flag and a saved config is whole.
"""

from collections.abc import Callable, Mapping
import functools
import inspect
from typing import Any

from ml_collections import ConfigDict
import numpy as np
import optax

from stein_jax import algorithms
from stein_jax import build
from stein_jax import checks
from stein_jax import classifiers
from stein_jax import datasets
from stein_jax import densities
from stein_jax import energies
from stein_jax import generators
from stein_jax import learners
from stein_jax import locations

# The loop reads these fields, and has these defaults.
LOOP = dict(
  seed=0,
  batch_size=100,
  num_steps=10_000,
  parallel='jit',
  steps_per_call=1,
  feed='auto',
  prng_impl='threefry2x32',
  on_nonfinite='stop',
  matmul_precision='auto',
  log_every=100,
  eval_every=1000,
  checkpoint_every=1000,
  start='',
)
# `evaluation` has these beside its data and `ais`.
_EVALUATION = dict(log_likelihood='none', num_samples=100, parameters='last')
# Lengths of optax's schedules, which are the run's where a config is silent.
_LENGTHS = ('decay_steps', 'transition_steps')
# What adds examples to a set: the test data are without, unless `evaluation` says so.
_AUGMENTATIONS = ('mirrored',)
# Sections of networks and densities, and where their names are looked up.
FAMILIES = dict(
  energy=energies,
  generator=generators,
  classifier=classifiers,
  density=densities,
)
# What the smoke scale of every config changes; and its optimizers, since Adam hides how
# large a gradient is.
_SMOKE = dict(
  batch_size=8,
  num_steps=4,
  log_every=2,
  eval_every=2,
  checkpoint_every=2,
  evaluation=dict(num_samples=4),
)
_SMOKE_OPTIMIZER = dict(name='sgd', learning_rate=0.01)


def scales(
  config: Mapping[str, Any], /, **variants: Mapping[str, Any]
) -> Callable[..., ConfigDict]:
  """Returns the `get_config` of a file: of the name of a scale, '' for the whole one.

  Its attribute `given` returns what the file says of a scale, before it is completed,
  and `names` has the names of the scales.

  Args:
    config: what identifies the experiment.
    **variants: what each scale changes, by its name; see `changed`. What every 'smoke'
      changes need not be said: few steps and examples, and plain gradients.
  """

  names = ('', *variants)

  def given(scale=''):
    if scale not in names:
      raise ValueError(
        f'there is no scale :{scale}; allowed: '
        f'{", ".join(f":{name}" for name in variants)}.'
      )
    found = dict(config)
    if scale == 'smoke':
      found = changed(found, _SMOKE)
      found |= {
        name: _SMOKE_OPTIMIZER for name in found if name.endswith('optimizer')
      }
    return changed(found, variants.get(scale, {}))

  def get_config(scale=''):
    """Returns the completed config at that scale."""
    return complete(given(scale))

  get_config.given, get_config.names = given, names
  return get_config


def changed(
  fields: Mapping[str, Any], changes: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns fields with changes to some, section by section.

  A section that is given another name takes nothing over from the old one.
  """
  found = dict(fields)
  for key, new in changes.items():
    old = found.get(key)
    if isinstance(old, str) and hasattr(new, 'keys'):
      old = {'name': old}
    if (
      hasattr(old, 'keys')
      and hasattr(new, 'keys')
      and new.get('name', old.get('name')) == old.get('name')
    ):
      new = changed(old, new)
    found[key] = new
  return found


def with_field(fields: Any, name: str, value: Any) -> dict[str, Any]:
  """Returns fields with one set, as its flag sets it.

  Args:
    fields: of a config, before or after it is completed.
    name: dotted; a section that was a name alone, or a number, becomes whole.
    value: of the field; a mapping stands for a section as a whole.
  """
  if isinstance(fields, str):
    fields = {'name': fields}
  elif not hasattr(fields, 'keys'):
    fields = {}
  first, _, rest = name.partition('.')
  if rest:
    value = with_field(fields.get(first), rest, value)
  return {**fields, first: value}


def complete(config: Mapping[str, Any]) -> ConfigDict:
  """Returns the config with every field of its loop and of its sections.

  A string stands for the section that has this name alone: data='mnist'. The test data
  are those of training with split='test' and without augmentation, unless `evaluation`
  says otherwise; and `sample` is called with what `step` is, where the two have one
  default of it, unless the section `sample` says otherwise.

  Raises:
    ValueError, TypeError: a section names what there is not, or is no section.
  """
  given = plain(config)
  _check_plain('', given)
  if 'algorithm' not in given:
    raise ValueError('The config lacks: algorithm.')
  algorithm = algorithms.get(given['algorithm'])
  found = LOOP | getattr(algorithm, 'FIELDS', {}) | given
  found['step'] = _completed('step', algorithm.step, given.get('step', {}))
  found['sample'] = given.get('sample', {})
  if hasattr(algorithm, 'sample'):
    checks.section(sample=found['sample'])
    fields = changed(_shared(algorithm, found['step']), found['sample'])
    found['sample'] = _completed('sample', algorithm.sample, fields)
  for name in found:
    if name in FAMILIES:
      found[name] = _named(name, FAMILIES[name], found[name])
    elif name.endswith('optimizer'):
      found[name] = learners.OPTIMIZER | _named(name, optax, found[name])
  if 'data' in given:
    found['data'] = _data('data', _as_fields('data', given['data']))
  found['evaluation'] = _evaluation(given)
  return ConfigDict(found)


def fitted(config: ConfigDict, source: Any) -> ConfigDict:
  """Returns the config with what follows from its data and its length.

  Networks have as many classes as the source has labels where these are the condition,
  and a schedule of a learning rate is as long as the run. What a config says of these
  itself is kept.

  Args:
    config: a whole config; it is not changed.
    source: its training data.
  """
  found = config.copy_and_resolve_references()
  for name in found:
    if name.endswith('optimizer'):
      section = plain(found[name])
      with build.section(name, section):
        found[name] = ConfigDict(_with_lengths(section, found.num_steps))
  if config.data.get('condition') == 'label':
    for name in FAMILIES:
      if name in found and found[name].get('num_classes') == 0:
        found[name].num_classes = source.num_classes
  return found


def _with_lengths(section, num_steps):
  """Returns an optimizer's section whose schedules have the run's length."""
  if isinstance(section, tuple):
    return tuple(_with_lengths(each, num_steps) for each in section)
  if not build.is_section(section):
    return section
  function = build.named(optax, section['name'])
  # Those that are joined one after another cannot all be as long as the run.
  found = {
    name: value if name == 'schedules' else _with_lengths(value, num_steps)
    for name, value in section.items()
  }
  wanted = inspect.signature(function).parameters
  return found | {
    name: num_steps
    for name in _LENGTHS
    if name in wanted
    and name not in found
    # One that has a default is the length of a part, as a warm-up's is.
    and wanted[name].default is inspect.Parameter.empty
  }


def with_files(
  config: ConfigDict, *, npz: str | None = None, path: str | None = None
) -> ConfigDict:
  """Returns the config with data read from files in place of its own data set.

  Args:
    config: a whole config; it is not changed.
    npz: an .npz file; see `datasets.npz`.
    path: a folder or .zip of images; see `datasets.folder`.

  Raises:
    ValueError: both are given.
  """
  if npz and path:
    raise ValueError('npz and path both name data; allowed: one of them.')
  found = config.copy_and_resolve_references()
  for each in (found, found.evaluation):
    if npz:
      each.data = ConfigDict(datasets.from_file(each.data, npz))
    if path:
      each.data = ConfigDict(datasets.from_folder(each.data, path))
  return found


def with_absolute_paths(config: ConfigDict) -> ConfigDict:
  """Returns the config with paths that are the same from every folder."""
  found = config.copy_and_resolve_references()
  for section in (found.get('data', {}), found.evaluation.get('data', {})):
    if isinstance(section.get('path'), str):
      section.path = str(locations.absolute(section.path))
  return found


def plain(config: Any) -> Any:
  """Returns a config as dicts, with tuples in place of lists, which have no hash."""
  if isinstance(config, ConfigDict):
    config = config.to_dict()
  if hasattr(config, 'items'):
    return {name: plain(value) for name, value in config.items()}
  if isinstance(config, (list, tuple)):
    return tuple(map(plain, config))
  # A number of NumPy is one of Python, which every file can hold.
  return config.item() if isinstance(config, np.generic) else config


def _check_plain(place, value):
  """Refuses what no config file can hold, and numbers that no device can.

  Raises:
    ValueError, TypeError: with the whole name of the field.
  """
  if hasattr(value, 'keys'):
    for name, each in value.items():
      if not isinstance(name, str):
        raise TypeError(
          f'{place or "config"}: the name {checks.shown(name)} of a field must be a '
          'string.'
        )
      _check_plain(f'{place}.{name}' if place else name, each)
  elif isinstance(value, tuple):
    for i, each in enumerate(value):
      _check_plain(f'{place}[{i}]', each)
  elif isinstance(value, int) and abs(value) > checks.MAX_COUNT:
    raise ValueError(
      f'{place}={checks.shown(value)} must be at most {checks.MAX_COUNT}; a number '
      'that need not be an integer may be larger, with a point, as in 1e12.'
    )
  elif not isinstance(value, (bool, int, float, str, type(None))):
    raise TypeError(
      f'{place}={checks.shown(value)} must be a number, a string, True, False, None, '
      'a sequence or a section.'
    )


def step(config: Mapping[str, Any]) -> Callable:
  """Returns the config's algorithm's `step` of (state, batch, rng), with its values.

  Raises:
    ValueError, TypeError: a value of the section is wrong.
  """
  return _bound('step', config)


def sample(config: Mapping[str, Any]) -> Callable | None:
  """Returns its `sample` of (state, rng, num), or None where there is nothing to draw.

  Raises:
    ValueError, TypeError: a value of the section is wrong.
  """
  return _bound('sample', config)


def _bound(name, config):
  function = getattr(algorithms.get(config['algorithm']), name, None)
  if function is None:
    return None
  with build.section(name, config[name]):
    values = build.values(function, plain(config[name]))
    # Both take three arguments before their keywords.
    build.check_call(function, values, config['algorithm'], None, None, None)
  return functools.partial(function, **values)


def _shared(algorithm, step_fields):
  """Returns what `sample` is called with as `step` is: where both have one default."""
  of_step, of_sample = map(build.defaults, (algorithm.step, algorithm.sample))
  return {
    name: step_fields[name]
    for name, default in of_sample.items()
    if name in of_step and of_step[name] == default and name in step_fields
  }


def _completed(place, function, fields):
  """Returns the completed section of a function's keywords."""
  checks.section(**{place: fields})
  with build.section(place, fields):
    return build.complete(function, fields)


def _named(place, namespace, fields):
  """Returns a completed section that names a member of a namespace."""
  fields = _as_fields(place, fields)
  with build.section(place, fields):
    if 'name' not in fields:
      raise ValueError('name is missing.')
    name = fields.pop('name')
    function = build.named(namespace, name)
    return {'name': name, **build.complete(function, fields, namespace)}


def _evaluation(config):
  """Returns the completed section of what is measured, and on which data."""
  own = config.get('evaluation', {})
  checks.section(evaluation=own)
  found = _EVALUATION | own
  if 'data' in config:
    fields = _test_fields(
      _as_fields('data', config['data']),
      _as_fields('evaluation.data', own.get('data', {})),
    )
    found['data'] = _data('evaluation.data', fields)
  found['ais'] = _completed(
    'evaluation.ais', energies.ais_log_partition, own.get('ais', {})
  )
  return found


def _test_fields(training, own):
  """Returns what the test data are: as those of training, but for their own fields.

  Another set takes nothing over: its fields are others.
  """
  if own.get('name', training.get('name')) != training.get('name'):
    training = {}
  followed = {
    name: value
    for name, value in training.items()
    if name not in _AUGMENTATIONS
  }
  name = (followed | own).get('name', '')
  with build.section('evaluation.data'):
    takes = inspect.signature(build.named(datasets.sets, name)).parameters
  split = {'split': 'test'} if 'split' in takes else {}
  return followed | split | own


def _data(place, fields):
  """Returns a completed data section, with what `load` takes beside a set's own."""
  fields = _named(place, datasets.sets, fields)
  return build.defaults(datasets.load) | fields


def _as_fields(place, section):
  """Returns a copy of a section; a string is the name of one without more."""
  if isinstance(section, str):
    return {'name': section}
  checks.section(**{place: section})
  return dict(section)
