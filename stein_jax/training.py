"""The one loop that trains every algorithm."""

import functools
import json
import os
import pathlib
import signal
import threading

from absl import logging
import jax
from jax.experimental import multihost_utils
from ml_collections import ConfigDict
import numpy as np

from stein_jax import algorithms
from stein_jax import build
from stein_jax import checkpoints
from stein_jax import checks
from stein_jax import datasets
from stein_jax import evaluation
from stein_jax import parallel
from stein_jax import randomness
from stein_jax import reporting
from stein_jax.types import Tree

CONFIG_FILE = 'config.json'
_FIELDS = (
  'algorithm',
  'step',
  'sample',
  'data',
  'evaluation',
  'seed',
  'batch_size',
  'num_steps',
  'parallel',
  'prng_impl',
  'steps_per_call',
  'log_every',
  'eval_every',
  'checkpoint_every',
)


def train(config, workdir) -> Tree:
  """Returns the state after `config.num_steps` steps of the config's algorithm.

  Writes checkpoints, metrics and events to the workdir, and continues from its
  newest whole checkpoint: with the same numbers as an uninterrupted run. SIGTERM
  and SIGINT save and return early.

  Raises:
    ValueError, TypeError, FileNotFoundError: a wrong config, or a workdir made
      with another one; before anything is compiled or written.
    FloatingPointError: a metric or the state is not finite.
  """
  workdir = pathlib.Path(workdir)
  algorithm, source, test_source = check(config)
  _claim(workdir, config)
  init_rng, step_rng = jax.random.split(jax.random.key(config.seed))
  step_rng = randomness.convert(step_rng, config.prng_impl)
  # All processes begin with the same state, which may depend on the data.
  first = next(
    datasets.batches(source, config.batch_size, seed=config.seed, whole=True)
  )
  state = algorithm.init(init_rng, config, first)
  spec = parallel.partition(state, getattr(algorithm, 'SPLIT', ()))
  manager = checkpoints.manager(workdir / 'checkpoints')
  state = checkpoints.restore(manager, parallel.replicate(state, spec))
  step_fn = parallel.compile_step(
    functools.partial(algorithm.step, **config.step),
    config.parallel,
    spec=spec,
    steps_per_call=config.steps_per_call,
  )
  sample = evaluation.sampler(algorithm, config, test_source)
  done = checked = int(state.step)
  inputs = _inputs(config, source, step_rng, done)
  metrics, waiting, stopping = {}, None, False
  due = lambda every: done == config.num_steps or (every and done % every == 0)
  with (
    manager,
    reporting.Reporter(workdir, config, start=done) as reporter,
    _Interruption() as interruption,
  ):
    while done < config.num_steps and not stopping:
      state, metrics = step_fn(state, *next(inputs))
      if waiting:  # is fetched while the next step is on its way
        reporter.scalars(waiting[0], _finite(*waiting, checked, manager))
        checked, waiting = waiting[0], None
      done += config.steps_per_call
      stopping = interruption.stops_after(done)
      log, look = due(config.log_every), due(config.eval_every)
      save = due(config.checkpoint_every) or stopping
      if look or save:
        metrics = _finite(done, metrics, checked, manager)
        checked = done
      elif log:
        waiting = done, metrics
      if look:
        metrics |= evaluation.test_metrics(config, state, test_source)
        picture = evaluation.picture(sample(state), first)
        reporter.picture(done, 'samples', picture)
      if look or (log and save):
        reporter.scalars(done, metrics)
      if save:
        checkpoints.save(manager, state)
      reporter.advance(done)
    if done == config.num_steps:
      reporter.hparams(metrics)
  return state


def check(config):
  """Returns (algorithm, training source, test source) of a config that can run.

  Everything a config can get wrong short of the data's content is refused here:
  the step is traced on shapes, so that its arguments are checked by the code that
  uses them, but nothing is compiled.

  Raises:
    ValueError, TypeError, FileNotFoundError: with the field and what is allowed.
  """
  missing = [name for name in _FIELDS if name not in config]
  if missing:
    raise ValueError(f'The config lacks: {", ".join(missing)}.')
  checks.count(
    batch_size=config.batch_size,
    num_steps=config.num_steps,
    log_every=config.log_every,
    steps_per_call=config.steps_per_call,
    **{'evaluation.num_samples': config.evaluation.num_samples},
  )
  checks.non_negative(
    checkpoint_every=config.checkpoint_every,
    eval_every=config.eval_every,
    seed=config.seed,
  )
  for name in ('num_steps', 'log_every', 'eval_every', 'checkpoint_every'):
    if config[name] % config.steps_per_call:
      raise ValueError(
        f'{name}={config[name]} must be a multiple of '
        f'steps_per_call={config.steps_per_call}.'
      )
  checks.choice(parallel.MODES, parallel=config.parallel)
  checks.choice(randomness.IMPLEMENTATIONS, prng_impl=config.prng_impl)
  if config.parallel != 'jit' or jax.device_count() > 1:
    if config.batch_size % jax.device_count():
      raise ValueError(
        f'batch_size={config.batch_size} must divide over '
        f'{jax.device_count()} devices.'
      )
  algorithm = algorithms.get(config.algorithm)
  rng = jax.random.key(0)
  for section in ('step', 'sample'):
    # Both take three arguments before their keywords.
    function = getattr(algorithm, section, lambda state, rng, num: None)
    build.check_call(function, config[section], section, None, None, None)
  source = datasets.load(**config.data)
  test_source = datasets.load(**config.evaluation.data)
  batch = next(datasets.batches(source, config.batch_size, seed=config.seed))

  def one_step(rng):
    state = algorithm.init(rng, config, batch)
    return algorithm.step(state, batch, rng, **config.step)

  state, _ = jax.eval_shape(one_step, rng)
  evaluation.check(config, state)
  jax.eval_shape(evaluation.sampler(algorithm, config, test_source), state)
  return algorithm, source, test_source


def read_config(workdir) -> ConfigDict:
  """Returns the config that a workdir was made with.

  Raises:
    FileNotFoundError: it is no workdir.
  """
  path = pathlib.Path(workdir) / CONFIG_FILE
  if not path.exists():
    raise FileNotFoundError(
      f'{workdir} holds no {CONFIG_FILE}; train there first.'
    )
  return ConfigDict(json.loads(path.read_text('utf-8')))


class _Interruption:
  """Notes SIGTERM and SIGINT while it is entered, and says when to stop.

  Of several processes one that gets a signal stops all. JAX has its own handler of
  SIGTERM then, which tells the others.
  """

  def __init__(self):
    self._requested = False
    self._handlers = {}
    self._asked = 0
    self._several = jax.process_count() > 1

  def __enter__(self):
    numbers = [signal.SIGINT]
    if not self._several:
      numbers.append(signal.SIGTERM)
    if threading.current_thread() is threading.main_thread():
      for number in numbers:
        self._handlers[number] = signal.signal(number, self._note)
    return self

  def __exit__(self, *_):
    for number, handler in self._handlers.items():
      signal.signal(number, handler)

  def _note(self, number, frame):
    del frame
    if self._requested:  # a second one does not wait for the step to end
      raise KeyboardInterrupt
    self._requested = True
    if self._several:
      os.kill(os.getpid(), signal.SIGTERM)
    logging.warning('Signal %d: stopping after this step.', number)

  def stops_after(self, done):
    """Returns whether the run ends with step `done`: the same in every process."""
    if not self._several:
      return self._requested
    # The processes agree, in the background, on a step that none has asked about,
    # and each is told when it asks about that one: so no step is left out, be it
    # within a call or before the run was continued.
    steps = range(self._asked + 1, done + 1)
    self._asked = done
    agreed = any([*map(multihost_utils.reached_preemption_sync_point, steps)])
    if agreed:
      logging.warning('A process got a signal: all stop after step %d.', done)
    return agreed


def _claim(workdir, config):
  """Makes the workdir this config's, or raises ValueError if it is another's."""
  mine = json.loads(config.to_json_best_effort())
  path = workdir / CONFIG_FILE
  if path.exists():
    theirs = json.loads(path.read_text('utf-8'))
    a, b = reporting.flat_config(mine), reporting.flat_config(theirs)
    changed = [
      f'{key}: {b.get(key, "(absent)")!r} there, {a.get(key, "(absent)")!r} here'
      for key in sorted(a.keys() | b.keys())
      if a.get(key) != b.get(key)
    ]
    if changed:
      raise ValueError(
        f'{workdir} was made with another config; choose another workdir. '
        f'Different: {"; ".join(changed)}.'
      )
    return
  if workdir.exists() and any(workdir.iterdir()):
    raise ValueError(f'{workdir} is not empty and holds no {CONFIG_FILE}.')
  if jax.process_index() == 0:
    workdir.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix('.tmp')
    temporary.write_text(json.dumps(mine, indent=2) + '\n', 'utf-8')
    temporary.replace(path)


def _inputs(config, source, step_rng, done):
  """Yields batch and key of every call from step `done` on, stacked where several."""
  num = config.steps_per_call
  batches = datasets.batches(
    source, config.batch_size, seed=config.seed, start=done
  )
  key_of = jax.jit(functools.partial(jax.random.fold_in, step_rng))
  if num > 1:
    key_of = jax.jit(jax.vmap(key_of))
  while True:
    if num == 1:
      yield next(batches), key_of(done)
    else:
      several = [next(batches) for _ in range(num)]
      stacked = jax.tree.map(lambda *rows: np.stack(rows), *several)
      yield stacked, key_of(np.arange(done, done + num))
    done += num


def _finite(done, metrics, checked, manager):
  """Returns the metrics on the host; raises FloatingPointError on nan or inf."""
  metrics = {name: float(value) for name, value in metrics.items()}
  bad = [name for name, value in metrics.items() if not np.isfinite(value)]
  if bad:
    good = manager.latest_step()
    raise FloatingPointError(
      f'Not finite between step {checked + 1} and {done}: {", ".join(bad)}. '
      + (
        f'Last good checkpoint: step {good} in {manager.directory}.'
        if good is not None
        else 'No checkpoint was saved before.'
      )
    )
  return metrics
