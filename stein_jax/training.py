"""The one loop that trains every algorithm."""

import contextlib
import fcntl
import functools
import os
import platform
import signal
import threading

from absl import logging
import jax
from jax.experimental import multihost_utils
from ml_collections import ConfigDict
import numpy as np

from stein_jax import checkpoints
from stein_jax import datasets
from stein_jax import evaluation
from stein_jax import locations
from stein_jax import parallel
from stein_jax import randomness
from stein_jax import reporting
from stein_jax import rollbacks
from stein_jax import validation
from stein_jax.types import Tree

CONFIG_FILE = 'config.json'
_LOCK_FILE = 'lock'
check = validation.check


def train(config, workdir) -> Tree:
  """Returns the state after `config.num_steps` steps of the config's algorithm.

  Writes checkpoints, metrics and events to the workdir, and continues from its
  newest whole checkpoint: with the same numbers as an uninterrupted run. SIGTERM
  and SIGINT save and return early. Where numbers go bad the run stops or, if
  `config.on_nonfinite` is 'rollback', goes back to its newest checkpoint and on
  with other random numbers.

  Raises:
    ValueError, TypeError, FileNotFoundError: a wrong config, or a workdir made
      with another one; before anything is compiled or written.
    RuntimeError: another run is in the workdir, or no checkpoint there is whole.
    OSError: the workdir cannot be written.
    FloatingPointError: a metric or the state is not finite.
  """
  workdir = locations.absolute(workdir)
  parts = check(config)
  with _claimed(workdir, config):
    past = rollbacks.read(workdir)
    while True:
      try:
        return _train(config, workdir, *parts, past)
      except checkpoints.NotFinite as error:
        if config.on_nonfinite == 'stop':
          raise
        past = rollbacks.go_back(workdir, past, error)
      except OSError as error:
        error.add_note(
          f'{workdir} has the checkpoints that it had; when it can be written again, '
          'the run goes on from the newest.'
        )
        raise


def _train(config, workdir, algorithm, source, test_source, past):
  """Returns the last state of a run that has been rolled back as `past` says."""
  # By name: a run's numbers are the config's, whatever JAX's default is.
  rng = jax.random.key(config.seed, impl='threefry2x32')
  init_rng, step_rng = jax.random.split(rng)
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
  done = int(state.step)
  checkpoints.drop_later(manager, done)
  inputs = _inputs(config, source, step_rng, done, past)
  waiting, stopping = None, False
  guard = _Guard(manager, done)
  due = lambda every: done == config.num_steps or (every and done % every == 0)
  with (
    jax.default_matmul_precision(config.matmul_precision),
    _Interruption() as interruption,
    manager,
    reporting.Reporter(workdir, config, start=done) as reporter,
  ):
    while done < config.num_steps and not stopping:
      state, metrics = step_fn(state, *next(inputs))
      if waiting:  # is fetched while the next step is on its way
        reporter.scalars(waiting[0], guard.fetch(*waiting, state))
        waiting = None
      done += config.steps_per_call
      stopping = interruption.stops_after(done)
      log, look = due(config.log_every), due(config.eval_every)
      save = due(config.checkpoint_every) or stopping
      if look:
        metrics |= evaluation.test_metrics(config, state, test_source)
      if look or save:
        metrics = guard.fetch(done, metrics, state)
      elif log:
        waiting = done, metrics
      if look:
        picture = evaluation.picture(sample(state), first)
        reporter.picture(done, 'samples', picture)
      if look or (log and save):
        reporter.scalars(done, metrics)
      if save:
        reporter.flush()
        checkpoints.save(manager, state)
      reporter.advance(done)
    if done == config.num_steps:
      reporter.hparams()
    checkpoints.wait(manager)
  return state


def read_config(workdir) -> ConfigDict:
  """Returns the config that a workdir was made with.

  Raises:
    FileNotFoundError: it is no workdir.
    ValueError: its config is damaged.
  """
  workdir = locations.absolute(workdir)
  path = workdir / CONFIG_FILE
  if not path.exists():
    raise FileNotFoundError(
      f'{workdir} holds no {CONFIG_FILE}; train there first.'
    )
  return ConfigDict(_read_json(path))


def _read_json(path):
  try:
    return reporting.read_json(path)
  except ValueError as error:  # of the text's encoding too
    raise ValueError(f'{path} is damaged: {error}') from error


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
    if self._requested and number == signal.SIGINT:
      raise KeyboardInterrupt  # a second one does not wait for the step to end
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


class _Guard:
  """Fetches metrics, and ends a run whose numbers or checkpoints have gone bad."""

  def __init__(self, manager, start):
    self._manager, self._checked = manager, start

  def fetch(self, step, metrics, state):
    """Returns the metrics of a step on the host.

    Raises:
      NotFinite: one of them is nan or infinite; the message has the steps since the
        last fetch, and which fields of `state`, which may be a later one, are not
        finite either.
      OSError: a checkpoint could not be written.
    """
    checkpoints.check(self._manager)
    metrics = {name: float(value) for name, value in metrics.items()}
    bad = [name for name, value in metrics.items() if not np.isfinite(value)]
    if bad:
      fields = ', '.join(checkpoints.not_finite(state)) or 'nothing'
      raise checkpoints.NotFinite(
        f'Not finite between step {self._checked + 1} and {step}: '
        f'{", ".join(bad)}; of the state {fields}.',
        step,
        self._manager,
      )
    self._checked = step
    return metrics


@contextlib.contextmanager
def _claimed(workdir, config):
  """Makes the workdir this config's, and keeps other runs out while it is entered.

  Raises:
    ValueError: it is another config's, or holds something else.
    RuntimeError: another run is in it.
    OSError: it cannot be written.
  """
  _is_ours(workdir, config)
  if jax.process_index():
    yield
    return
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    lock = _locked(workdir)
    # The one who had the lock may have made it another config's by now.
    if not _is_ours(workdir, config):
      reporting.write_json(workdir / CONFIG_FILE, _as_json(config), indent=2)
  except OSError as error:
    raise OSError(
      error.errno, f'{workdir} cannot be written: {error.strerror}'
    ) from error
  with lock:
    yield


def _locked(workdir):
  """Returns a file that is locked until it is closed or its process ends in any way.

  Raises:
    RuntimeError: another run has locked it.
    OSError: it cannot be written.
  """
  file = open(workdir / _LOCK_FILE, 'a+', encoding='utf-8')
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    file.seek(0)
    raise RuntimeError(
      f'Another run is in {workdir}: {file.read().strip()}. Wait for it to end, or '
      'choose another workdir.'
    ) from None
  except OSError as error:
    logging.warning(
      '%s cannot be locked (%s): see to it that no other run is in it.',
      workdir,
      error.strerror,
    )
  else:
    file.truncate(0)
    file.write(f'process {os.getpid()} on {platform.node()}\n')
    file.flush()
  return file


def _is_ours(workdir, config):
  """Returns whether the workdir is this config's; False if it is new or empty.

  Raises:
    ValueError: it is another config's, or holds something else.
  """
  path = workdir / CONFIG_FILE
  if path.exists():
    a, b = (
      reporting.flat_config(each)
      for each in (_as_json(config), _read_json(path))
    )
    changed = [
      f'{key}: {b.get(key, "(absent)")!r} there, {a.get(key, "(absent)")!r} here'
      for key in sorted((a.keys() | b.keys()) - {'on_nonfinite'})
      if a.get(key) != b.get(key)
    ]
    if changed:
      raise ValueError(
        f'{workdir} was made with another config; choose another workdir. '
        f'Different: {"; ".join(changed)}.'
      )
    return True
  if workdir.exists() and not workdir.is_dir():
    raise ValueError(f'{workdir} is no folder; choose another workdir.')
  # What a run that was killed at its very start may leave.
  ours = {_LOCK_FILE, path.with_suffix('.tmp').name}
  if workdir.exists() and {each.name for each in workdir.iterdir()} - ours:
    raise ValueError(f'{workdir} is not empty and holds no {CONFIG_FILE}.')
  return False


def _as_json(config):
  return reporting.from_json(config.to_json_best_effort())


def _inputs(config, source, step_rng, done, past):
  """Yields batch and key of every call from step `done` on, stacked where several."""
  num = config.steps_per_call
  batches = datasets.batches(
    source, config.batch_size, seed=config.seed, start=done
  )
  key_of = functools.partial(rollbacks.key, step_rng, past=past)
  key_of = jax.jit(jax.vmap(key_of) if num > 1 else key_of)
  while True:
    if num == 1:
      yield next(batches), key_of(done)
    else:
      several = [next(batches) for _ in range(num)]
      stacked = jax.tree.map(lambda *rows: np.stack(rows), *several)
      yield stacked, key_of(np.arange(done, done + num))
    done += num
