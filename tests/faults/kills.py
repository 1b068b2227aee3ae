"""Kills a run again and again, and compares its end with that of one left alone.

Example:
  python -m tests.faults.kills --kills=51
"""

import collections
import functools
import pathlib
import random
import signal
import tempfile
import time

from absl import app
from absl import flags
import jax

from stein_jax.runs import reporting
from tests.faults import runs

_KILLS = flags.DEFINE_integer('kills', 51, 'Over all runs.', lower_bound=1)
_SEED = flags.DEFINE_integer('seed', 0, 'Of the moments.')

CONFIGS = (
  'stein_cd_mnist',  # an energy alone
  'steingan_toy',  # with a generator
  'contrastive_divergence_toy',  # with persistent chains
)
MOMENTS = ('start', 'compile', 'write', 'loop')
_FLAGS = (
  '--config.log_every=5',
  '--config.eval_every=40',
  '--config.checkpoint_every=20',
  '--noevaluate',
)


def kill_once(run, moment, rng, start) -> str:
  """Returns where a kill -9 found the run: a moment, or 'end' if it had ended.

  `start` is how many seconds it takes to start and compile.
  """
  lines, wanted, seen = run.num_lines(), rng.randint(1, 4), set()
  if moment == 'start':
    time.sleep(rng.uniform(0, start / 2))
  elif moment == 'compile':
    run.wait_for(lambda: run.printed().count('Compiling jit') >= 2 * wanted)
  elif moment == 'loop':
    run.wait_for(lambda: run.num_lines() >= lines + wanted)
  else:
    run.wait_for(lambda: len(seen.update(run.writing()) or seen) >= wanted)
  if moment != 'start':
    time.sleep(rng.uniform(0, 0.05))
  run.kill()
  if run.end() != -signal.SIGKILL:
    if run.process.returncode:
      raise AssertionError(run.printed()[-4000:])
    return 'end'
  if run.writing():
    return 'write'
  if run.compiling():
    return 'compile'
  return 'loop' if ': step ' in run.printed() else 'start'


def check(
  config, folder, num_kills, *, moments=MOMENTS, seed=0, num_steps=1000
):
  """Returns how many kills found a run at which moment; it ended like one left alone.

  Raises:
    AssertionError: it did not.
  """
  rng, found = random.Random(f'{config} {seed}'), collections.Counter()
  begin_run = functools.partial(
    runs.Run, config, *_FLAGS, f'--config.num_steps={num_steps}'
  )
  begin = time.monotonic()
  alone = begin_run(workdir=folder / f'{config}_alone', cache=folder / 'cache')
  alone.wait_for(alone.num_lines)
  start = time.monotonic() - begin
  alone.finish()
  while found.total() < num_kills:
    moment = moments[found.total() % len(moments)]
    cache = folder / ('cache' if moment != 'compile' else f'{found.total()}')
    run = begin_run(workdir=folder / config, cache=cache)
    where = kill_once(run, moment, rng, start)
    if where == 'end':
      raise AssertionError(f'The run ended after {found.total()} kills.')
    found[where] += 1
  begin_run(workdir=folder / config, cache=folder / 'cache').finish()
  runs.assert_equal(
    runs.contents(folder / config), runs.contents(alone.workdir)
  )
  return found


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments: {argv[1:]}')
  jax.config.update('jax_platforms', 'cpu')
  reporting.set_up_logging()
  total, begin = collections.Counter(), time.monotonic()
  with tempfile.TemporaryDirectory() as folder:
    for i, config in enumerate(CONFIGS):
      share = (_KILLS.value + i) // len(CONFIGS)
      found = check(config, pathlib.Path(folder), share, seed=_SEED.value)
      print(f'{config}: killed in {dict(found)}; equal to a run left alone.')
      total += found
  print(
    f'{total.total()} kills in {time.monotonic() - begin:.0f} s: {dict(total)}'
  )


if __name__ == '__main__':
  app.run(main)
