"""The configs at their smoke scale, and what tests do with their runs."""

import importlib
import itertools
import os
import pathlib
import signal
from unittest import mock

import chex
import jax
import jax.numpy as jnp
import numpy as np

from stein_jax import algorithms
from stein_jax import datasets
from stein_jax import parallel
from stein_jax.runs import configs
from stein_jax.runs import reporting

_CONFIGS = pathlib.Path(__file__).parent.parent / 'configs'
NAMES = sorted(path.stem for path in _CONFIGS.glob('*.py'))


def get_config(name, scale='smoke'):
  return importlib.import_module(f'configs.{name}').get_config(scale)


# One config of each algorithm, for what does not depend on the data: of labels if any.
ALGORITHMS = {
  get_config(name).algorithm: name
  for name in sorted(
    reversed(NAMES),
    key=lambda name: get_config(name).data.condition == 'label',
  )
}


def begin(config):
  """Returns the algorithm, its first state and the first batch."""
  algorithm, init, batch = uninitialised(config)
  return algorithm, init(jax.random.key(0)), batch


def uninitialised(config):
  """Returns the algorithm, a function of a key to its first state, and a batch."""
  source = datasets.load(**config.data)
  config = configs.fitted(config, source)
  batch = next(datasets.batches(source, config.batch_size, seed=0))
  algorithm = algorithms.get(config.algorithm)
  return algorithm, lambda rng: algorithm.init(rng, config, batch), batch


def stop_after(num_steps):
  """Returns a patch that sends this process SIGTERM during that step."""
  return during(num_steps, lambda: os.kill(os.getpid(), signal.SIGTERM))


def during(num_steps, action):
  """Returns a patch that calls `action` at the beginning of that step."""
  compile_step, calls = parallel.compile_step, itertools.count(1)

  def patched(*args, **kwargs):
    step = compile_step(*args, **kwargs)

    def stopping(*args):
      if next(calls) == num_steps:
        action()
      return step(*args)

    return stopping

  return mock.patch.object(parallel, 'compile_step', patched)


def metric_lines(workdir):
  """Returns the lines of the metrics file without what the clock decides."""
  lines = reporting.read_metrics(workdir)
  return [
    {k: v for k, v in line.items() if k != 'steps_per_second'} for line in lines
  ]


def assert_modes_agree(step, state, batch):
  """Fails unless a step is one under jit, pmap and shard_map."""
  # Weights of 0.02 would make updates as small as rounding.
  scaled = jax.tree.map(lambda leaf: 10 * leaf, state.energy.params)
  state = state._replace(energy=state.energy.replace(params=scaled))

  def run(mode):
    start = parallel.replicate(jax.tree.map(jnp.copy, state))
    ends = parallel.compile_step(step, mode)(start, batch, jax.random.key(0))
    return jax.tree.map(np.asarray, ends)

  expected = run('jit')
  moved = jax.tree.map(
    lambda old, new: np.max(np.abs(old - new)),
    state.energy.params,
    expected[0].energy.params,
  )
  assert max(jax.tree.leaves(moved)) > 1e-3, moved
  for mode in ('pmap', 'shard_map'):
    chex.assert_trees_all_close(run(mode), expected, rtol=1e-4, atol=1e-5)
