"""The one loop that trains every algorithm."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import functools
import os
import time
import traceback

from absl import logging
import jax
import numpy as np

from stein_jax import algorithms
from stein_jax import datasets
from stein_jax import locations
from stein_jax import parallel
from stein_jax import randomness
from stein_jax.runs import agreement
from stein_jax.runs import checkpoints
from stein_jax.runs import configs
from stein_jax.runs import evaluation
from stein_jax.runs import feeding
from stein_jax.runs import loading
from stein_jax.runs import memory
from stein_jax.runs import pictures
from stein_jax.runs import replays
from stein_jax.runs import reporting
from stein_jax.runs import rollbacks
from stein_jax.runs import stopping
from stein_jax.runs import validation
from stein_jax.runs import workdirs
from stein_jax.types import Batch, Metrics, Tree

read_config = workdirs.read_config
check = validation.check


def train(
  config,
  workdir,
  *,
  on_metrics: Callable[[int, Metrics], None] | None = None,
  extends: bool = False,
) -> Tree:
  """Returns the state after `config.num_steps` steps of the config's algorithm.

  Writes checkpoints, metrics and events to the workdir, and continues from its
  newest whole checkpoint: with the same numbers as an uninterrupted run. SIGTERM
  and SIGINT save and return early. Where numbers go bad the run stops or, if
  `config.on_nonfinite` is 'rollback', goes back to its newest checkpoint and on
  with other random numbers.

  Args:
    config: of the run. Its `start` names a run, 'WORKDIR' or 'WORKDIR:STEP', whose
      networks' parameters a new run begins with.
    workdir: the folder of the run.
    on_metrics: called with the number of steps and the metrics, wherever these are
      written; by one process of several.
    extends: whether the run that is in the workdir may have had fewer steps.

  Raises:
    ValueError, TypeError, FileNotFoundError: a wrong config, or a workdir made
      with another one; before anything is compiled or written.
    RuntimeError: another run is in the workdir, no checkpoint there is whole, or
      another process does not come.
    OSError: the workdir cannot be written.
    FloatingPointError: a metric or the state is not finite.
  """
  workdir = locations.absolute(workdir)
  logging.info('Reading data and checking the config.')
  config, *parts = check(config)
  _, source, _ = parts
  agreement.check(config, source, first_batch(config, source))
  with workdirs.claimed(workdir, config, extends=extends) as watch:
    try:
      with memory.explained(config):
        return _with_rollbacks(config, workdir, *parts, on_metrics, watch)
    except checkpoints.NotFinite as error:
      error.add_note(_first_bad(config, source, workdir, error))
      raise
    except workdirs.Gone:
      raise
    except OSError as error:
      watch.check()  # or what was taken away would be said in others' words
      error.add_note(
        f'{workdir} has the checkpoints that it had; when it can be written again, '
        'the run goes on from the newest.'
      )
      raise


def first_batch(config, source) -> Batch:
  """Returns the whole of the first batch, in every process."""
  return next(
    datasets.batches(source, config.batch_size, seed=config.seed, whole=True)
  )


def initial_state(config, batch: Batch) -> Tree:
  """Returns the state before the first step, placed on all devices.

  Args:
    config: of the run.
    batch: the first one, from `first_batch`: the state may depend on it, and must be
      the same in all processes.
  """
  init = algorithms.get(config.algorithm).init
  state = init(_keys(config)[0], config, batch)
  if config.get('start'):
    state = loading.begun_at(config.start, state)
  return parallel.replicate(state, _partition(config, state))


def steps(
  config,
  source,
  state: Tree,
  past: Sequence[Mapping[str, int]] = (),
  step: Callable | None = None,
) -> Iterator[tuple[int, Tree, Metrics]]:
  """Yields (steps done, state, metrics) after every call, up to `config.num_steps`.

  A call makes `config.steps_per_call` steps. It takes over the memory of the state
  that was yielded before: what is to be kept of one is copied before the next call.

  Args:
    config: of the run.
    source: of the batches.
    state: from `initial_state`, or a later one; the run goes on from its step.
    past: the run's rollbacks, which change the keys of the steps after them.
    step: the config's, from `check`; None to build it.
  """
  held = feeding.held(config, source)
  step_fn = parallel.compile_step(
    step or configs.step(config),
    config.parallel,
    spec=_partition(config, state),
    steps_per_call=config.steps_per_call,
    held=held,
  )
  done = int(state.step)
  read = datasets.batches if held is None else datasets.indices
  batches = read(source, config.batch_size, seed=config.seed, start=done)
  calls = _inputs(config, batches, done, past)
  while done < config.num_steps:
    inputs = next(calls)
    stopping.step()
    # A consumer may have left the precision by now: it is entered anew.
    precision = parallel.precision(config.matmul_precision, learns=True)
    with jax.default_matmul_precision(precision):
      state, metrics = step_fn(state, *inputs)
    done += config.steps_per_call
    yield done, state, metrics


def _with_rollbacks(config, workdir, *parts):
  """Returns the last state of a run that goes back as often as its config allows."""
  past = rollbacks.read(workdir)
  while True:
    try:
      return _train(config, workdir, past, *parts)
    except checkpoints.NotFinite as error:
      if config.on_nonfinite == 'stop':
        raise
      past = rollbacks.go_back(workdir, past, error)


def _first_bad(config, source, workdir, error):
  """Returns what went bad first in a run, from a replay since its last checkpoint."""
  # What the run had on the devices would stand beside the replay.
  traceback.clear_frames(error.__traceback__)
  logging.info('Replaying from step %d: what went bad first?', error.good)
  try:
    config = config.copy_and_resolve_references()
    config.steps_per_call = 1
    with checkpoints.manager(
      workdir / 'checkpoints', read_only=True
    ) as manager:
      state = initial_state(config, first_batch(config, source))
      state = replays.recorded(checkpoints.restore(manager, state))
    state = parallel.replicate(state, _partition(config, state))
    calls = steps(config, source, state, rollbacks.read(workdir))
    optimizers = {
      field: name
      for field in state._fields
      if (name := f'{field}_optimizer') in config
    }
    return replays.first_bad(calls, error.bad, optimizers)
  except Exception as trouble:  # which must not hide what the run ended with
    return f'What went bad first is not known, since a replay failed: {trouble}'


def _train(config, workdir, past, step, source, test_source, on_metrics, watch):
  """Returns the last state of a run that has been rolled back as `past` says."""
  first = first_batch(config, source)
  workdirs.note_batch(workdir, first)
  manager = checkpoints.manager(workdir / 'checkpoints')
  state = checkpoints.restore(manager, initial_state(config, first))
  done = int(state.step)
  if done > config.num_steps:
    raise ValueError(
      f'{manager.directory} holds step {done}, and the config ends at step '
      f'{config.num_steps}; allowed: --extend={done}, or another workdir.'
    )
  checkpoints.drop_later(manager, done)
  sample = evaluation.sampler(config, test_source)
  calls = _told(config, done, steps(config, source, state, past, step))
  stops, waiting, guard = False, None, _Guard(manager, done)
  due = lambda every: done == config.num_steps or (every and done % every == 0)
  with (
    jax.default_matmul_precision(parallel.precision(config.matmul_precision)),
    stopping.Interruption() as interruption,
    checkpoints.closing(manager),
    reporting.Reporter(
      workdir, config, first, start=done, on_metrics=on_metrics
    ) as reporter,
  ):
    watch.add(manager.directory, workdir / workdirs.BATCH_FILE, *reporter.files)
    begin = done + config.steps_per_call
    for done, state, metrics in calls:
      if waiting:  # is fetched while the next step is on its way
        reporter.scalars(waiting[0], guard.fetch(*waiting, state))
        waiting = None
      if done == begin:  # what goes wrong at once is said at once
        metrics = guard.fetch(done, metrics, state)
        reporter.first(done, metrics)
      stops = interruption.stops_after(done)
      log, look = due(config.log_every), due(config.eval_every)
      save = due(config.checkpoint_every) or stops
      if log or look or save:
        _check_files(watch, manager, workdir, state)
        stopping.step()
      if look:
        metrics |= evaluation.test_metrics(config, state, test_source)
      if look or save:
        metrics = guard.fetch(done, metrics, state)
      elif log:
        waiting = done, metrics
      if look:
        png = pictures.picture(sample(state), first)
        reporter.picture(done, 'samples', png)
      if look or (log and save):
        reporter.scalars(done, metrics)
      if save:
        reporter.flush()
        stopping.step()
        checkpoints.save(manager, state)
      reporter.advance(done)
      if stops:
        break
    if done == config.num_steps:
      reporter.hparams()
    checkpoints.wait(manager)
    stopping.step()
  _say_the_end(config, workdir, begin - config.steps_per_call, done)
  return state


def _say_the_end(config, workdir, began, done):
  """Says in one line how a launch ended, from which step to which."""
  end, last = config.num_steps, f'step {done} of {config.num_steps}'
  if done < end:
    logging.info('Stopped early at %s; the same command goes on.', last)
  elif began == end:
    report = workdir / 'report.html'
    where = f'; the report is {report}' if report.exists() else ''
    logging.info('Nothing left to do: finished at %s%s.', last, where)
  elif began:
    logging.info('Finished: continued from step %d to %s.', began, last)
  else:
    logging.info('Finished: %s.', last)


def _told(config, done, calls):
  """Yields what the calls after step `done` yield, and says when the first is over."""
  if done == config.num_steps:
    return
  logging.info(
    'Seed %d, from step %d on. Compiling, which takes longest the first time.',
    config.seed,
    done,
  )
  begin, first = time.monotonic(), next(calls)
  jax.block_until_ready(first[2])
  logging.info('First step after %.1f s.', time.monotonic() - begin)
  yield first
  del first  # or its state would stay in memory
  yield from calls


def _check_files(watch, manager, workdir, state):
  """Ends a run whose files are gone; one process alone saves where its folder is there.

  Raises:
    Gone: they are.
  """
  try:
    watch.check()
  except workdirs.Gone as gone:
    # All processes save together, and the others do not know of this. A link leads to
    # a folder of which nothing is known.
    if (
      jax.process_count() > 1
      or workdir in gone.paths
      or os.path.islink(manager.directory)
    ):
      raise
    with contextlib.suppress(
      OSError
    ):  # that one may have been taken with the rest
      checkpoints.wait(manager)
    if manager.latest_step() != int(state.step):
      checkpoints.save(manager, state)
      checkpoints.wait(manager)
    gone.add_note(f'Step {int(state.step)} is saved.')
    raise


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
      since = min(self._checked + 1, step)
      steps = (
        f'at step {step}'
        if since == step
        else f'between step {since} and {step}'
      )
      raise checkpoints.NotFinite(
        f'Not finite {steps}: {", ".join(bad)}; of the state {fields}.',
        step,
        self._manager,
      )
    self._checked = step
    return metrics


def _keys(config):
  """Returns the key that makes the state, and the key of all steps."""
  # The generator is named, so that a run's numbers do not depend on JAX's default.
  rng = jax.random.key(config.seed, impl='threefry2x32')
  init_rng, step_rng = jax.random.split(rng)
  return init_rng, randomness.convert(step_rng, config.prng_impl)


def _partition(config, state):
  """Returns which leaves of the state are split over the devices, and which copied."""
  algorithm = algorithms.get(config.algorithm)
  return parallel.partition(state, getattr(algorithm, 'SPLIT', ()))


def _inputs(config, batches, done, past):
  """Yields batch and key of every call from step `done` on, stacked where several."""
  num = config.steps_per_call
  key_of = functools.partial(rollbacks.key, _keys(config)[1], past=past)
  key_of = jax.jit(jax.vmap(key_of) if num > 1 else key_of)
  while True:
    if num == 1:
      yield next(batches), key_of(done)
    else:
      several = [next(batches) for _ in range(num)]
      stacked = jax.tree.map(lambda *rows: np.stack(rows), *several)
      yield stacked, key_of(np.arange(done, done + num))
    done += num
