"""What the training loop adds to its steps, and what a launch costs.

The same compiled step, called bare on batches at hand and by the loop, which reads
batches, folds keys, logs, and shows progress; short steps fed by the host, and of data
that the device holds; then `experiments.train` started as a process, from the command
to the first step: with nothing compiled yet, and again.

Example:
  python -m experiments.benchmarks.loop --steps=600
"""

import importlib
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from absl import flags
import jax

from experiments.benchmarks import report
from stein_jax import algorithms
from stein_jax import datasets
from stein_jax import parallel
from stein_jax.runs import configs
from stein_jax.runs import reporting
from stein_jax.runs import training

_STEPS = flags.DEFINE_integer('steps', 600, 'Timed, each way.', lower_bound=200)


def measure():
  """Returns the text, lines and pictures that `report.run` takes."""
  with tempfile.TemporaryDirectory() as scratch:
    scratch = pathlib.Path(scratch)
    config = get_config(_STEPS.value)
    # In turn, so that both see the same machine.
    bare, loop = [], []
    for i in range(3):
      bare.append(bare_seconds(config))
      loop.append(loop_seconds(config, scratch / f'run{i}'))
    # The least of three: what else runs on the machine only ever adds.
    lines = [report.line('step of the loop', min(loop), 'bare', min(bare))]
    for num in (1, 25):
      cpu = feed_seconds(config, num)
      what = f'step of held data, {num} a call, CPU'
      lines.append(report.line(what, cpu['device'], 'by the host', cpu['host']))
    # Both have one cache, which the first finds empty.
    for name in ('first launch', 'second launch'):
      seconds = launch_seconds(scratch, name)
      lines.append(report.line(f'{name} to the end of step 1', seconds))
  return reporting.table(lines), lines, {}


def get_config(num_steps):
  """Returns a config whose steps take some milliseconds, without looks or saves."""
  module = importlib.import_module('configs.contrastive_divergence_mnist')
  config = module.get_config('')
  # Noise needs no files, and costs what images of that size cost.
  shape = dict(name='synthetic', shape=(28, 28, 1), num_examples=10_000)
  config.data = dict(shape, split='train')
  config.evaluation.data = dict(shape, split='test')
  config.evaluation.log_likelihood = 'none'
  # Ten steps make an update of some milliseconds, which a loop should not
  # notice.
  config.step.chain.num_steps = 10
  config.num_steps, config.log_every = num_steps, 50
  # Looks and saves cost what they measure or write, whatever the loop is.
  config.eval_every = config.checkpoint_every = 0
  return config


def bare_seconds(config) -> float:
  """Returns seconds a step of the compiled step on one batch."""
  algorithm = algorithms.get(config.algorithm)
  source = datasets.load(**config.data)
  batch = next(datasets.batches(source, config.batch_size, seed=0))
  state = algorithm.init(jax.random.key(0), config, batch)
  step = parallel.compile_step(configs.step(config), config.parallel)
  rng = jax.random.key(1)
  # The first call compiles.
  state, _ = step(parallel.replicate(state), batch, rng)
  jax.block_until_ready(state)
  begin = time.perf_counter()
  for _ in range(config.num_steps):
    state, _ = step(state, batch, rng)
  jax.block_until_ready(state)
  return (time.perf_counter() - begin) / config.num_steps


def loop_seconds(config, workdir) -> float:
  """Returns seconds a step of a run, by its log without first and last line."""
  training.train(config, workdir)
  # The first line has the compilation in it, the last the end of the run.
  lines = reporting.read_metrics(workdir)[1:-1]
  seconds = [50 / line['steps_per_second'] for line in lines]
  return sum(seconds) / (50 * len(seconds))


def feed_seconds(config, steps_per_call) -> dict[str, float]:
  """Returns seconds of CPU of a short step, by what feeds it: least of 20 rounds."""
  config = config.copy_and_resolve_references()
  config.data.num_examples = 50_000  # as many as of MNIST
  config.step.chain.num_steps, config.num_steps = 1, 10**6
  config.steps_per_call = steps_per_call
  calls, least = {}, {}
  for feed in ('host', 'device'):
    own = config.copy_and_resolve_references()
    own.feed = feed
    source = datasets.load(**own.data)
    state = training.initial_state(own, training.first_batch(own, source))
    calls[feed] = training.steps(own, source, state)
    jax.block_until_ready(next(calls[feed]))  # compiled
  for _ in range(20):
    for feed, each in calls.items():
      begin = time.process_time()
      for _ in range(100 // steps_per_call):
        _, state, _ = next(each)
      jax.block_until_ready(state)
      seconds = (time.process_time() - begin) / 100
      least[feed] = min(seconds, least.get(feed, seconds))
  return least


def launch_seconds(scratch, name) -> float:
  """Returns seconds of a launch, from the command to the end of its one step."""
  command = (
    *(sys.executable, '-m', 'experiments.train', '--noevaluate'),
    '--config=configs/stein_cd_mnist.py:digits',
    f'--workdir={scratch}/{name.replace(" ", "_")}',
    *('--config.num_steps=1', '--config.log_every=1'),
    *('--config.eval_every=0', '--config.checkpoint_every=0'),
  )
  # A cache of its own, so that no program of the user's makes the first launch
  # fast.
  environment = dict(os.environ, XDG_CACHE_HOME=str(scratch / 'cache'))
  begin = time.perf_counter()
  subprocess.run(command, check=True, env=environment, capture_output=True)
  return time.perf_counter() - begin


if __name__ == '__main__':
  report.run('loop', measure)
