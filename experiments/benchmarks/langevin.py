"""Cost of a Langevin chain of a convolutional energy, against autodiff's own.

The same energy, images and length: the score through `layers.conv`, whose gradient
is written out, and through XLA's convolution with the gradient that autodiff gives
it. Both as the scan that a chain is; autodiff's also unrolled, which is fast and slow
to compile.

Example:
  python -m experiments.benchmarks.langevin --num=100 --steps=20
"""

from unittest import mock

from absl import flags
import jax
from jax import lax

from experiments.benchmarks import report
from stein_jax import energies
from stein_jax import layers
from stein_jax import learners
from stein_jax.runs import reporting

_NUM = flags.DEFINE_integer('num', 100, 'Chains.', lower_bound=1)
_STEPS = flags.DEFINE_integer('steps', 20, 'Of a chain.', lower_bound=1)


def measure():
  """Returns the text, lines and pictures that `report.run` takes."""
  x = jax.random.uniform(jax.random.key(0), (_NUM.value, 28, 28, 1))
  energy = learners.create(
    jax.random.key(1),
    energies.ConvNet(widths=(16, 32, 64)),
    dict(name='sgd', learning_rate=0.1),
    x,
  )
  # Ours is compiled before the patch below, and keeps `layers.conv` in it.
  chains = {'layers.conv, a scan': chain(energy, x, unroll=1)}
  # All else of the network stays the same, so that the gradient alone differs.
  with mock.patch.object(layers, 'conv', by_autodiff):
    chains |= {
      'autodiff, a scan': chain(energy, x, unroll=1),
      'autodiff, unrolled': chain(energy, x, unroll=_STEPS.value),
    }
  times = report.medians(chains, x)
  ours = times['layers.conv, a scan']
  rows = [row(name, taken, ours) for name, taken in times.items()]
  device = jax.devices()[0].device_kind
  title = f'{_NUM.value} chains of 28x28 images on {device}'
  lines = [
    report.line(
      'Langevin step of a ConvNet',
      ours / _STEPS.value,
      name,
      taken / _STEPS.value,
    )
    for name, taken in times.items()
    if name.startswith('autodiff')
  ]
  return f'{title}\n\n{reporting.table(rows)}', lines, {}


def by_autodiff(x, kernel, *, stride, padding):
  """Returns what `layers.conv` does, with padding 'same', and autodiff's gradient."""
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    padding.upper(),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def chain(energy, x, *, unroll):
  """Returns a compiled chain without noise."""

  def run(x):
    # Without noise, whose cost would be the same and hide the difference.
    step = lambda x, _: (x + 0.1 * energies.score(energy, x), None)
    return lax.scan(step, x, length=_STEPS.value, unroll=unroll)[0]

  # Compiled here, so that the patch is still in place and no timing compiles.
  return jax.jit(run).lower(x).compile()


def row(name, taken, bound):
  return {
    'gradient': name,
    'milliseconds a step': f'{1e3 * taken / _STEPS.value:.2f}',
    'times ours': f'{taken / bound:.2f}',
  }


if __name__ == '__main__':
  report.run('langevin', measure)
