"""Cost of a Langevin chain of a convolutional energy, against autodiff's own.

The same energy, images and length: the score through `layers.conv`, whose gradient
is written out, and through XLA's convolution with the gradient that autodiff gives
it. Both as the scan that a chain is; autodiff's also unrolled, which is fast and slow
to compile.

Example:
  python -m experiments.benchmarks.langevin --num=100 --steps=20
"""

import statistics
import time
from unittest import mock

from absl import app
from absl import flags
import jax
from jax import lax

from stein_jax import energies
from stein_jax import layers
from stein_jax import learners
from stein_jax import reporting

_NUM = flags.DEFINE_integer('num', 100, 'Chains.', lower_bound=1)
_STEPS = flags.DEFINE_integer('steps', 20, 'Of a chain.', lower_bound=1)
_REPEATS = flags.DEFINE_integer(
  'repeats', 5, 'Timings, of which the median counts.', lower_bound=1
)


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments: {argv[1:]}')
  x = jax.random.uniform(jax.random.key(0), (_NUM.value, 28, 28, 1))
  energy = learners.create(
    jax.random.key(1),
    energies.ConvNet(widths=(16, 32, 64)),
    dict(name='sgd', learning_rate=0.1),
    x,
  )
  ours = seconds(energy, x, unroll=1)
  with mock.patch.object(layers, 'conv', by_autodiff):
    plain = {n: seconds(energy, x, unroll=n) for n in (1, _STEPS.value)}
  rows = [
    row('layers.conv, a scan', ours, ours),
    row('autodiff, a scan', plain[1], ours),
    row('autodiff, unrolled', plain[_STEPS.value], ours),
  ]
  device = jax.devices()[0].device_kind
  print(f'{_NUM.value} chains of 28x28 images on {device}')
  print(reporting.table(rows))


def by_autodiff(x, kernel, *, stride, padding):
  """Returns what `layers.conv` does, with padding 'same', and autodiff's gradient."""
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    padding.upper(),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def seconds(energy, x, *, unroll) -> float:
  """Returns the median time of a step of a compiled chain without noise."""

  @jax.jit
  def chain(x):
    step = lambda x, _: (x + 0.1 * energies.score(energy, x), None)
    return lax.scan(step, x, length=_STEPS.value, unroll=unroll)[0]

  jax.block_until_ready(chain(x))
  times = []
  for _ in range(_REPEATS.value):
    begin = time.monotonic()
    jax.block_until_ready(chain(x))
    times.append(time.monotonic() - begin)
  return statistics.median(times) / _STEPS.value


def row(name, taken, bound):
  return {
    'gradient': name,
    'milliseconds a step': f'{1e3 * taken:.2f}',
    'times ours': f'{taken / bound:.2f}',
  }


if __name__ == '__main__':
  app.run(main)
