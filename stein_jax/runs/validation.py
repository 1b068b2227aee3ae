"""What a config can get wrong, refused before anything is compiled or written."""

from collections.abc import Iterator
import contextlib

from flax import traverse_util
import jax
import numpy as np

from stein_jax import algorithms
from stein_jax import build
from stein_jax import checks
from stein_jax import datasets
from stein_jax import energies
from stein_jax import learners
from stein_jax import parallel
from stein_jax import randomness
from stein_jax.runs import configs
from stein_jax.runs import evaluation
from stein_jax.runs import feeding
from stein_jax.runs import loading
from stein_jax.runs import memory
from stein_jax.runs import rollbacks

# These belong to no algorithm, like what the loop reads.
_OWN = ('algorithm', 'step', 'sample', 'data', 'evaluation')


def check(config):
  """Returns (config, step, training source, test source), if the config can run.

  The config that comes back is whole: completed, with the classes of the data. The step
  is the algorithm's of (state, batch, rng); `training.steps` need not trace it again.

  Everything a config can get wrong short of the data's content is refused here:
  the step is traced on shapes, so that its arguments are checked by the code that
  uses them, but nothing is compiled.

  Raises:
    ValueError, TypeError, FileNotFoundError: with the field and what is allowed.
  """
  config = configs.with_absolute_paths(configs.complete(config))
  _check_loop(config)
  _check_lengths(config)
  _check_sections(config)  # before data are read, which may take a while
  with build.section('data', config.data):
    source = datasets.load(**config.data)
  held = feeding.held(config, source)  # refuses what no device can hold
  _check_enough(config, source)
  config = configs.fitted(config, source)
  algorithm = algorithms.get(config.algorithm)
  classes = _check_sections(config)
  with build.section('evaluation.data', config.evaluation.data):
    test_source = datasets.load(**config.evaluation.data)
  _check_classes(config, classes, source, test_source)
  step, state, traced = _trace(algorithm, config, source)
  _check_numbers(config)  # which the code that uses them may have let pass
  if config.start:
    with build.section('start'):
      loading.parameters_of(config.start, state)
  _check_evaluable(config, state, source, test_source)
  with build.section('sample'):
    sampler = evaluation.sampler(config, test_source)
    draw, samples = jax.make_jaxpr(sampler, return_shape=True)(state)
  memory.check(config, state, _batch(config, source), traced, draw, held=held)
  if hasattr(samples, 'shape'):  # those of a tree, or none, are like no data
    data = source[slice(0, 1)]['image']
    checks.same_shape(data=data.shape[1:], samples=samples.shape[1:])
  return config, step, source, test_source


def _check_loop(config):
  """Refuses what the loop itself reads."""
  if 'data' not in config:
    raise ValueError('The config lacks: data.')
  checks.count(
    batch_size=config.batch_size,
    num_steps=config.num_steps,
    log_every=config.log_every,
    steps_per_call=config.steps_per_call,
  )
  checks.count(
    minimum=0,
    checkpoint_every=config.checkpoint_every,
    eval_every=config.eval_every,
    seed=config.seed,
  )
  checks.at_most(2**31 - 4, seed=config.seed)  # a few more are made of it
  for name in ('num_steps', 'log_every', 'eval_every', 'checkpoint_every'):
    if config[name] % config.steps_per_call:
      raise ValueError(
        f'{name}={config[name]} must be a multiple of '
        f'steps_per_call={config.steps_per_call}.'
      )
  if not isinstance(config.start, str):
    raise TypeError(f'start={config.start!r} must be a string.')
  checks.choice(parallel.MODES, parallel=config.parallel)
  checks.choice(feeding.WAYS, feed=config.feed)
  checks.choice(randomness.IMPLEMENTATIONS, prng_impl=config.prng_impl)
  checks.choice(rollbacks.ACTIONS, on_nonfinite=config.on_nonfinite)
  checks.choice(parallel.PRECISIONS, matmul_precision=config.matmul_precision)
  if config.batch_size % jax.device_count():
    raise ValueError(
      f'batch_size={config.batch_size} must be divisible by '
      f'{jax.device_count()} devices.'
    )


# Loops in one call: these end within hours, and those of a billion steps never do.
_LOOPS = (
  'num_steps',
  'svgd_steps',
  'inner_steps',
  'cg_steps',
  'num_temperatures',
  'num_samples',
  'num_importance',
  'num_projections',
)
_LONGEST = 10**6


def _check_lengths(config):
  """Refuses loops within a step, or within an evaluation, that never end."""
  for name, value in _leaves(config):
    place, _, last = name.rpartition('.')
    if last in _LOOPS and place and type(value) is int:
      checks.at_most(_LONGEST, **{name: value})


def _check_numbers(config):
  """Refuses what no section has looked at and no float32 holds."""
  for name, value in _leaves(config):
    if isinstance(value, float) and not abs(value) <= _LARGEST:
      raise ValueError(
        f'{name}={value} must be finite, and at most {_LARGEST:.3g} as float32 is.'
      )


_LARGEST = float(np.finfo(np.float32).max)


def _leaves(value, place=''):
  """Yields (name, value) of every field of a config, and each entry of sequences."""
  if hasattr(value, 'items'):
    for name, each in value.items():
      yield from _leaves(each, f'{place}.{name}' if place else name)
  elif isinstance(value, (tuple, list)):
    for i, each in enumerate(value):
      yield from _leaves(each, f'{place}[{i}]')
  else:
    yield place, value


def _check_sections(config):
  """Refuses sections that are no calls; returns how many classes networks have."""
  named = [
    name
    for name in config
    if name in configs.FAMILIES or name.endswith('optimizer')
  ]
  for name in ('step', 'sample', 'data', 'evaluation', *named):
    checks.section(**{name: config[name]})
  configs.step(config)
  if configs.sample(config) is None and config.sample:
    raise ValueError(
      f'sample: {config.algorithm} has nothing to draw, and takes: nothing.'
    )
  _check_evaluation(config.evaluation)
  classes = {}
  for name in named:
    with build.section(name, config[name]):
      if name in configs.FAMILIES:
        built = build.build(configs.FAMILIES[name], **config[name])
        classes[name] = learners.attribute(built, 'num_classes', 0)
      else:
        learners.build_optimizer(config[name])
  return classes


def _check_enough(config, source):
  """Refuses batches that are larger than the source."""
  if config.batch_size > len(source):
    own = [
      f'data.{name}={config.data[name]!r}'
      for name in ('split', 'num_examples')
      if name in config.data
    ]
    raise ValueError(
      f'batch_size={config.batch_size} is more than the {len(source)} examples of '
      f'{", ".join(own)}.'
    )


def _check_classes(config, classes, *sources):
  """Refuses networks of other classes than the labels of the sources."""
  found = max(getattr(source, 'num_classes', 0) for source in sources)
  for name, number in classes.items():
    if number and found and number != found:
      own = [
        f' {field}={value}.'
        for field, value in _leaves(config)
        if field.endswith(('data.num_classes', 'data.num_examples'))
      ]
      raise ValueError(
        f'{name}.num_classes={number}, but labels are from 0 to {found - 1}; '
        f'allowed: {found}.{"".join(own)}'
      )


def _trace(algorithm, config, source):
  """Returns the step, the shapes of the state after it, and the program traced."""
  batch = _batch(config, source)
  rng, fields, noted = jax.random.key(0), _Fields(config), _NotedBatch(batch)
  with _explained(config, batch):
    state = jax.eval_shape(lambda rng: algorithm.init(rng, fields, noted), rng)
  if config.data.get('condition') == 'label' and 'condition' not in noted.read:
    raise ValueError(
      f"data.condition='label', but {config.algorithm} takes no condition; allowed: "
      "'none'."
    )
  unknown = set(config) - fields.read - {*configs.LOOP, *_OWN}
  if unknown:
    raise ValueError(
      f'The config has {", ".join(sorted(unknown))}, which {config.algorithm} '
      f'does not read; it reads: {", ".join(sorted(fields.read))}.'
    )
  spec = parallel.partition(state, getattr(algorithm, 'SPLIT', ()))
  _check_split(config, state, spec)
  step = configs.step(config)
  if config.parallel == 'jit':
    body = step = jax.jit(step)  # which remembers its trace
  else:
    body = parallel.per_device(step, spec=spec)
  # As the loop will call it, or jit would take it for another call.
  inputs = parallel.replicated_shapes(state, spec), batch, rng
  precision = parallel.precision(config.matmul_precision, learns=True)
  with (
    _explained(config, batch),
    build.section('step'),
    jax.default_matmul_precision(precision),
  ):
    traced, (state, _) = jax.make_jaxpr(body, return_shape=True)(*inputs)
  return step, state, traced


def _batch(config, source):
  """Returns the whole of the first batch."""
  return next(
    datasets.batches(source, config.batch_size, seed=config.seed, whole=True)
  )


def _check_split(config, state, spec):
  """Refuses a state that is to be split over devices and does not divide."""
  for name, leaves, specs in zip(state._fields, state, spec, strict=True):
    for leaf, of in zip(
      jax.tree.leaves(leaves), jax.tree.leaves(specs), strict=True
    ):
      if len(of) and leaf.shape[0] % jax.device_count():
        raise ValueError(
          f'num_{name}={leaf.shape[0]} must be divisible by {jax.device_count()} '
          'devices.'
        )


_SUSPECT = 10**4


@contextlib.contextmanager
def _explained(config, batch) -> Iterator[None]:
  """Says of whatever a trace raises which algorithm and data it was of."""
  shapes = ', '.join(f'{key} {value.shape[1:]}' for key, value in batch.items())
  what = f'{config.algorithm} on {_data_fields(config.data)}, of {shapes}'
  try:
    yield
  except Exception as error:  # of networks that do not fit JAX has any
    ours = isinstance(error, (ValueError, TypeError))
    if ours and build.FIELD.match(str(error)):
      raise
    said = str(error)
    if isinstance(error, KeyError) and error.args:
      # Most have a name alone, but some a sentence, which `str` would quote.
      (said, *_) = map(str, error.args)
      said = said if ' ' in said else f'there is no {said!r}'
    said = checks.shortened(said, 600)
    if near := _near(config, said):
      said = f'{said} The config has {", ".join(near)}.'
    large = [
      each
      for each in memory.largest_fields(config)
      if int(each.partition('=')[2]) > _SUSPECT
    ]
    if large:  # JAX's own words of such an array have no field
      said = f'{said} The largest sizes are {", ".join(large)}.'
    raise ValueError(f'{what}: {said}') from error


def _data_fields(section):
  """Returns what a data section says beside the defaults of its set, and its name."""
  own = build.named(datasets.sets, section.name)
  defaults = build.defaults(datasets.load) | build.defaults(own)
  defaults = configs.plain(defaults)
  fields = configs.plain(section)
  fields = {'name': fields.pop('name')} | fields
  return ', '.join(
    f'data.{name}={checks.shown(value)}'
    for name, value in fields.items()
    if value != defaults.get(name)
  )


def _near(config, said):
  """Returns 'field=value' of what JAX's own words may be about.

  These are the fields of a network that they name, and shapes where they are of shapes.
  """
  found = []
  for section in ('data', *configs.FAMILIES):
    fields = configs.plain(config.get(section, {}))
    named = section != 'data' and fields.get('name', said) in said
    for name, value in traverse_util.flatten_dict(fields, sep='.').items():
      is_shape = 'hape' in said and name in ('shape', 'dim')
      if is_shape or (named and isinstance(value, (int, tuple))):
        found.append(f'{section}.{name}={checks.shown(value)}')
  return found


class _NotedBatch(dict):
  """A batch that notes which of its arrays are read."""

  def __init__(self, batch):
    super().__init__(batch)
    self.read = set()

  def __getitem__(self, name):
    self.read.add(name)
    return super().__getitem__(name)

  def get(self, name, default=None):
    return self[name] if name in self else default


class _Fields(dict):
  """A config, or a section of one, that names a missing field and notes those read."""

  def __init__(self, fields, place=''):
    super().__init__(fields)
    self.place, self.read = place, set()

  def __getattr__(self, name):
    if name not in self:
      raise ValueError(f'The config lacks: {self.place}{name}.')
    self.read.add(name)
    value = self[name]
    if hasattr(value, 'keys'):
      return _Fields(value, f'{self.place}{name}.')
    return value


def _check_evaluation(section):
  """Raises ValueError or TypeError unless a config's `evaluation` section is one."""
  signature = lambda data, log_likelihood, num_samples, parameters, ais: None
  with build.section('evaluation', section):
    build.check_call(signature, section, 'evaluation')
    checks.section(data=section.data)
    checks.choice(
      ('exact', 'ais', 'none'), log_likelihood=section.log_likelihood
    )
    checks.choice(('last', 'average'), parameters=section.parameters)
    checks.count(2, num_samples=section.num_samples)  # a distance wants two
  ais = section.get('ais', {})
  with build.section('evaluation.ais', ais):
    build.check_call(energies.ais_log_partition, ais, 'ais', None, None)
    given = dict(ais)
    checks.flag(resample=given.pop('resample', False))
    checks.finite(base_mean=given.pop('base_mean', 0.0))
    checks.positive(**given)


def _check_evaluable(config, state, source, test_source):
  """Raises ValueError if a state like this cannot be evaluated as asked.

  Args:
    config: its `evaluation` section is what asks.
    state: a state, or its shapes.
    source: of the training data.
    test_source: of the test data.
  """
  data, test_data = source[slice(0, 1)], test_source[slice(0, 1)]
  labels = ('label',) if hasattr(state, 'classifier') else ()
  for name in ('image', 'condition', *labels):
    shapes = [
      of[name].shape[1:] if name in of else 'none' for of in (data, test_data)
    ]
    if shapes[0] != shapes[1]:
      raise ValueError(
        f'evaluation.data has {name} {shapes[1]}, data has {shapes[0]}: they '
        f'must be alike. {_differing(config)}'
      )
  for name in ('pixels', 'scale'):
    values = [getattr(of, name) for of in (source, test_source)]
    if values[0] != values[1]:
      raise ValueError(
        f'evaluation.data.{name}={values[1]!r}, and data.{name}={values[0]!r}: '
        'they must be alike.'
      )
  evaluation.check_likelihood(config, state, test_data['image'])


def _differing(config):
  """Returns what the two data sections say of the same field in two ways."""
  fields = dict(_leaves(config.data)), dict(_leaves(config.evaluation.data))
  said = [
    f'data.{name}={checks.shown(fields[0].get(name))} and evaluation.data.{name}='
    f'{checks.shown(fields[1].get(name))}'
    for name in sorted({*fields[0], *fields[1]} - {'split'})
    if fields[0].get(name) != fields[1].get(name)
  ]
  return f'There are {", ".join(said)}.' if said else ''
