"""Speed and memory of the Stein primitives, against what nothing can do without.

The lower bound is three bare products of matrices, X X', K S and K X, without the
exponential; for the discrepancy the closed form on whole matrices. Other libraries
are measured where they are installed: pip install 'stein_jax[bench]'. All in one
process, in turn. Extra memory is what a call adds to the resident memory of a process
of its own, at its peak, as Linux counts it.

Example:
  python -m experiments.benchmarks.primitives --sizes=100,1000,5000 --dim=64
"""

from concurrent import futures
import functools
import multiprocessing
import pathlib

from absl import flags
import jax
import jax.numpy as jnp

from experiments.benchmarks import report
from stein_jax import kernels
from stein_jax import stein
from stein_jax.runs import reporting

_SIZES = flags.DEFINE_list(
  'sizes', ['100', '1000', '2000', '5000', '10000'], 'Numbers of particles.'
)
_DIM = flags.DEFINE_integer('dim', 64, 'Of a particle.', lower_bound=1)
_BESIDE = ('three products', 'plain direction', 'PyTorch direction')
_PLAIN = 'plain direction'
# Particles of which memory alone is asked for; the median of more takes minutes, and
# the plain form of more some gigabytes.
_LARGE = {
  'direction': 100_000,
  'direction at the median': 30_000,
  'discrepancy': 100_000,
  _PLAIN: 20_000,
}
_BLACKJAX = 2000  # particles that take it seconds a step


def measure():
  """Returns the text, lines and pictures that `report.run` takes."""
  rows, lines, curves = [], [], {}
  for size in map(int, _SIZES.value):
    times = measured(size, _DIM.value)
    rows.append(row(size, times))
    lines += comparisons(size, times)
    # Milliseconds, in which most of the times are between 1 and 1,000.
    for name, taken in times.items():
      curves.setdefault(name, []).append((size, 1e3 * taken))
  memory = memory_by_size([*map(int, _SIZES.value)], _DIM.value)
  device = jax.devices()[0].device_kind
  text = (
    f'Stein primitives in {_DIM.value} dimensions on {device}\n\n'
    f'{reporting.table(rows)}\n'
    'Extra memory: '
    + ', '.join(
      f'{name} {points[-1][1]:.0f} MB of {points[-1][0]:,} particles'
      for name, points in memory.items()
    )
    + '\n'
  )
  figures = {'primitives': ('milliseconds', curves), 'memory': ('MB', memory)}
  return text, lines, {name: figure(*what) for name, what in figures.items()}


def figure(unit, curves) -> bytes:
  series = {
    name: tuple(zip(*points, strict=True)) for name, points in curves.items()
  }
  return reporting.curves(series, xlabel='particles', ylabel=unit, log=True)


def memory_by_size(sizes, dim):
  """Returns {name: [(particles, megabytes beside the arguments), ...]}."""
  return {
    name: [(n, extra_memory(name, n, dim)) for n in [*sizes, largest]]
    for name, largest in _LARGE.items()
  }


def ours():
  """Returns {name: function of particles and scores} of what the project has."""
  # A fixed bandwidth, so that the rule of the median is timed apart.
  kernel = functools.partial(kernels.rbf, bandwidth=25.0)
  return {
    'direction': lambda x, s: stein.svgd_direction(x, s, kernel),
    'direction at the median': lambda x, s: stein.svgd_direction(
      x, s, kernels.RBF()
    ),
    'discrepancy': lambda x, s: stein.ksd(x, s, kernel),
    'discrepancy, unbiased': lambda x, s: stein.ksd(
      x, s, kernel, unbiased=True
    ),
  }


def measured(size, dim) -> dict[str, float]:
  """Returns the seconds of a call of ours, of the bounds and of what is installed."""
  # Scores need not be those of a density: no time depends on values.
  x, score = jax.random.normal(jax.random.key(0), (2, size, dim))
  functions = {
    'three products': three_products,
    'plain direction': plain_direction,
    'plain discrepancy': plain_discrepancy,
    **ours(),
  }
  times = report.medians(
    {name: jax.jit(function) for name, function in functions.items()}, x, score
  )
  # Peers come after ours, when their threads are not yet there to disturb it.
  for name, (function, *args) in peers(x, score).items():
    times |= report.medians({name: function}, *args)
  return times


def row(size, times):
  """Returns the table's line of one size: every time over its bound."""
  bound, matrix = times['three products'], times['plain discrepancy']
  over = lambda name, by: f'{times[name] / by:.2f}' if name in times else ''
  return {
    'particles': size,
    'three products': f'{1e3 * bound:.2f} ms',
    'direction': over('direction', bound),
    'plain JAX': over('plain direction', bound),
    'PyTorch': over('PyTorch direction', bound),
    'at the median': over('direction at the median', bound),
    'BlackJAX': over('BlackJAX step', bound),
    'discrepancy on matrices': f'{1e3 * matrix:.2f} ms',
    'V': over('discrepancy', matrix),
    'U': over('discrepancy, unbiased', matrix),
  }


def comparisons(size, times):
  """Returns the lines of one size in the table of all benchmarks."""
  pairs = [('direction', other) for other in times if other in _BESIDE]
  pairs += [
    ('direction at the median', 'three products'),
    ('direction at the median', 'BlackJAX step'),
    ('discrepancy', 'plain discrepancy'),
  ]
  return [
    report.line(f'{name}, {size} points', times[name], other, times[other])
    for name, other in pairs
    if other in times
  ]


def three_products(x, score):
  gram = x @ x.T
  return gram @ score, gram @ x


def plain_direction(x, score, bandwidth=25.0):
  """Returns the direction as its formula on whole matrices."""
  # By products, which is what one writes for speed; distances by subtraction
  # would need n^2 d numbers.
  norms = jnp.sum(x * x, 1)
  k = jnp.exp(-(norms[:, None] + norms[None] - 2 * x @ x.T) / bandwidth)
  pull = k.sum(1, keepdims=True) * x - k @ x
  return (k @ score + 2 / bandwidth * pull) / len(x)


def plain_discrepancy(x, score, bandwidth=25.0):
  """Returns the discrepancy as its formula on whole matrices."""
  norms, drive = jnp.sum(x * x, 1), jnp.sum(x * score, 1)
  sq_dist = norms[:, None] + norms[None] - 2 * x @ x.T
  k = jnp.exp(-sq_dist / bandwidth)
  change = x @ score.T + score @ x.T - drive[:, None] - drive[None]
  trace = 2 * x.shape[1] / bandwidth - 4 * sq_dist / bandwidth**2
  return jnp.mean(k * (score @ score.T - 2 / bandwidth * change + trace))


def peers(x, score):
  """Returns {name: (function, *arguments)} of the libraries that are installed."""
  found = {}
  try:
    import torch  # pylint: disable=g-import-not-at-top

    found['PyTorch direction'] = (
      torch_direction(torch),
      *(torch.tensor(jax.device_get(a)) for a in (x, score)),
    )
  except ImportError:
    pass
  try:
    import blackjax  # pylint: disable=g-import-not-at-top
    import optax  # pylint: disable=g-import-not-at-top

    if len(x) <= _BLACKJAX:
      algorithm = blackjax.svgd(lambda x: -x, optax.sgd(0.1))
      found['BlackJAX step'] = jax.jit(algorithm.step), algorithm.init(x)
  except ImportError:
    pass
  return found


def torch_direction(torch, bandwidth=25.0):
  """Returns a function of particles and scores to the direction, on the host."""

  @torch.no_grad()
  def direction(x, score):
    k = torch.exp(-(torch.cdist(x, x) ** 2) / bandwidth)
    pull = k.sum(1, keepdim=True) * x - k @ x
    return ((k @ score + 2 / bandwidth * pull) / len(x)).cpu().numpy()

  return direction


def extra_memory(name, size, dim) -> float:
  """Returns the megabytes that a call needs beside its arguments."""
  with futures.ProcessPoolExecutor(
    # Spawned, since a fork would begin with the parent's memory and its locks.
    max_workers=1,
    mp_context=multiprocessing.get_context('spawn'),
  ) as alone:
    return alone.submit(_growth, name, size, dim).result()


def _growth(name, size, dim):
  function = {**ours(), _PLAIN: plain_direction}[name]
  points = jax.random.normal(jax.random.key(0), (2, size, dim))
  # Compiled before the count begins: the compiler takes more memory than the
  # call.
  compiled = jax.jit(function).lower(*points).compile()
  jax.block_until_ready(points)
  pathlib.Path('/proc/self/clear_refs').write_text('5')  # the peak is now
  before = _status('VmRSS')
  jax.block_until_ready(compiled(*points))
  return (_status('VmHWM') - before) / 1024


def _status(field) -> int:
  """Returns a field of this process's status, in kilobytes."""
  lines = pathlib.Path('/proc/self/status').read_text().splitlines()
  (value,) = (line.split()[1] for line in lines if line.startswith(field))
  return int(value)


if __name__ == '__main__':
  report.run('primitives', measure)
