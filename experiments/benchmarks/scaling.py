"""What an algorithm's step costs and sends, against the number of devices.

Compiled for so many simulated CPU devices: the floating-point operations of one
device, and every collective of the program with the bytes that a device receives in
it. Nothing is run. The batch of a device stays the same (weak scaling) or that of all
does (strong). Particles of the direction travel in a ring.

Example:
  python -m experiments.benchmarks.scaling --devices=1,2,4,8 --batch_size=64
"""

import collections
import functools
import importlib
import math
import pathlib
import re

from absl import app
from absl import flags
import jax
from jax.sharding import Mesh, PartitionSpec
import numpy as np

from stein_jax import algorithms
from stein_jax import kernels
from stein_jax import parallel
from stein_jax import reporting
from stein_jax import stein

_DEVICES = flags.DEFINE_list('devices', ['1', '2', '8'], 'How many.')
_BATCH = flags.DEFINE_integer(
  'batch_size', 64, 'On one device, and in all for strong scaling.'
)
_PARTICLES = flags.DEFINE_integer(
  'particles', 4096, 'On one device, of 64 dimensions.'
)
_RESULTS = flags.DEFINE_string(
  'results', 'results/benchmarks', 'Folder of the table.'
)
_CONFIGS = (
  'stein_cd_mnist',
  'steingan_mnist_joint:narrow',
  'vae_teaching_mnist:narrow',
)
_COLLECTIVE = re.compile(
  r'= (.*?) (all-reduce|all-gather|collective-permute|reduce-scatter)'
  r'(?:-start)?\('
)
_ARRAY = re.compile(r'(pred|[a-z]+)(\d*)\[([\d,]*)\]')


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments: {argv[1:]}')
  reporting.set_up_logging()
  counts = [int(number) for number in _DEVICES.value]
  jax.config.update('jax_num_cpu_devices', max(counts))
  folder = pathlib.Path(_RESULTS.value)
  folder.mkdir(parents=True, exist_ok=True)
  lines = [line('direction', n, direction(n, _PARTICLES.value)) for n in counts]
  for name in _CONFIGS:
    lines += [line(f'{name}, weak', n, step(name, n, n)) for n in counts]
    lines += [line(f'{name}, strong', n, step(name, n, 1)) for n in counts]
  text = f'Of one device\n\n{reporting.table(lines)}'
  (folder / 'scaling.md').write_text(text, 'utf-8')
  print(text)


def mesh(num: int) -> Mesh:
  return Mesh(np.array(jax.devices()[:num]), (parallel.AXIS,))


def direction(num: int, rows: int):
  """Returns the compiled direction and bandwidth of so many rows on each device."""
  axis, split = parallel.AXIS, PartitionSpec(parallel.AXIS)

  def local(x, score):
    kernel = kernels.at_median('rbf', x, axis_name=axis)
    return stein.svgd_direction(x, score, kernel, axis_name=axis)

  points = jax.ShapeDtypeStruct((num * rows, 64), np.float32)
  mapped = jax.shard_map(
    local, mesh=mesh(num), in_specs=(split, split), out_specs=split
  )
  return jax.jit(mapped).lower(points, points).compile()


def step(name: str, num: int, share: int):
  """Returns a config's compiled step on `share` batches over so many devices."""
  file, _, scale = name.partition(':')
  config = importlib.import_module(f'configs.{file}').get_config(scale)
  algorithm = algorithms.get(config.algorithm)
  rows = _BATCH.value * share
  batch = {
    'image': np.zeros((rows, 28, 28, 1), np.float32),
    'label': np.zeros(rows, np.int32),
  }
  rng = jax.random.key(0)
  state = jax.eval_shape(lambda rng: algorithm.init(rng, config, batch), rng)
  split = PartitionSpec(parallel.AXIS)
  mapped = jax.shard_map(
    functools.partial(algorithm.step, axis_name=parallel.AXIS, **config.step),
    mesh=mesh(num),
    in_specs=(PartitionSpec(), split, PartitionSpec()),
    out_specs=(PartitionSpec(), PartitionSpec()),
  )
  return jax.jit(mapped).lower(state, batch, rng).compile()


def line(name, num, compiled):
  found, received = collections.Counter(), 0
  for shapes, kind in _COLLECTIVE.findall(compiled.as_text()):
    found[kind] += 1
    received += sum(
      math.prod(map(int, filter(None, sizes.split(',')))) * int(bits or 8) // 8
      for _, bits, sizes in _ARRAY.findall(shapes)
    )
  flops = (compiled.cost_analysis() or {}).get('flops', float('nan'))
  return {
    'program': name,
    'devices': num,
    'GFLOP': f'{flops / 1e9:.2f}',
    'collectives': ', '.join(
      f'{n} {kind}' for kind, n in sorted(found.items())
    ),
    'megabytes received': f'{received / 1e6:.2f}',
  }


if __name__ == '__main__':
  app.run(main)
