"""The one loop that trains every algorithm."""

import functools

import jax
import numpy as np

from stein_jax import datasets
from stein_jax import locations
from stein_jax import parallel
from stein_jax import randomness
from stein_jax.runs import checkpoints
from stein_jax.runs import configs
from stein_jax.runs import evaluation
from stein_jax.runs import pictures
from stein_jax.runs import reporting
from stein_jax.runs import rollbacks
from stein_jax.runs import stopping
from stein_jax.runs import validation
from stein_jax.runs import workdirs
from stein_jax.types import Tree

read_config = workdirs.read_config
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
  config = configs.complete(config)
  parts = check(config)
  with workdirs.claimed(workdir, config):
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
    configs.step(config),
    config.parallel,
    spec=spec,
    steps_per_call=config.steps_per_call,
  )
  sample = evaluation.sampler(algorithm, config, test_source)
  done = int(state.step)
  checkpoints.drop_later(manager, done)
  inputs = _inputs(config, source, step_rng, done, past)
  waiting, stops = None, False
  guard = _Guard(manager, done)
  due = lambda every: done == config.num_steps or (every and done % every == 0)
  with (
    jax.default_matmul_precision(config.matmul_precision),
    stopping.Interruption() as interruption,
    manager,
    reporting.Reporter(workdir, config, start=done) as reporter,
  ):
    while done < config.num_steps and not stops:
      state, metrics = step_fn(state, *next(inputs))
      if waiting:  # is fetched while the next step is on its way
        reporter.scalars(waiting[0], guard.fetch(*waiting, state))
        waiting = None
      done += config.steps_per_call
      stops = interruption.stops_after(done)
      log, look = due(config.log_every), due(config.eval_every)
      save = due(config.checkpoint_every) or stops
      if look:
        metrics |= evaluation.test_metrics(config, state, test_source)
      if look or save:
        metrics = guard.fetch(done, metrics, state)
      elif log:
        waiting = done, metrics
      if look:
        picture = pictures.picture(sample(state), first)
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
