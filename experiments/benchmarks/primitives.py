"""Speed and memory of the Stein primitives, against what nothing can do without.

The lower bound is three bare products of matrices, X X', K S and K X, without the
exponential; for the discrepancy the closed form on whole matrices. Other libraries
are measured where they are installed: pip install 'stein_jax[bench]'. All in one
process, in turn. Extra memory is what the compiler sets aside for a call.

Example:
  python -m experiments.benchmarks.primitives --sizes=100,1000,5000 --dim=64
"""

import functools
import pathlib

from absl import app
from absl import flags
import jax
import jax.numpy as jnp

from experiments.benchmarks import timing
from stein_jax import kernels
from stein_jax import reporting
from stein_jax import stein

_SIZES = flags.DEFINE_list(
  'sizes', ['100', '1000', '2000', '5000', '10000'], 'Numbers of particles.'
)
_DIM = flags.DEFINE_integer('dim', 64, 'Of a particle.', lower_bound=1)
_SECONDS = flags.DEFINE_float(
  'seconds', 1.0, 'Spent on each function of each size.', lower_bound=0.0
)
_RESULTS = flags.DEFINE_string(
  'results', 'results/benchmarks', 'Folder of the table and the figure.'
)
_LARGE = 100_000  # particles, whose memory is asked for
_BLACKJAX = 2000  # particles that take it seconds a step


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments: {argv[1:]}')
  reporting.set_up_logging()
  folder = pathlib.Path(_RESULTS.value)
  folder.mkdir(parents=True, exist_ok=True)
  lines, curves = [], {}
  for size in map(int, _SIZES.value):
    times = measured(size, _DIM.value)
    lines.append(line(size, times))
    for name, taken in times.items():
      curves.setdefault(name, []).append((size, 1e3 * taken))
  memory = {
    name: f'{extra_memory(function, _LARGE, _DIM.value) / 2**20:.0f} MB'
    for name, function in ours().items()
  }
  device = jax.devices()[0].device_kind
  text = (
    f'Stein primitives in {_DIM.value} dimensions on {device}\n\n'
    f'{reporting.table(lines)}\n'
    f'Extra memory of {_LARGE} particles: {memory}\n'
  )
  (folder / 'primitives.md').write_text(text, 'utf-8')
  series = {
    name: tuple(zip(*points, strict=True)) for name, points in curves.items()
  }
  png = reporting.curves(
    series, xlabel='particles', ylabel='milliseconds', log=True
  )
  (folder / 'primitives.png').write_bytes(png)
  print(text)


def ours():
  """Returns {name: function of particles and scores} of what the project has."""
  kernel = functools.partial(kernels.rbf, bandwidth=25.0)
  at_median = lambda x: kernels.at_median('rbf', x)
  return {
    'direction': lambda x, s: stein.svgd_direction(x, s, kernel),
    'direction at the median': lambda x, s: stein.svgd_direction(
      x, s, at_median(x)
    ),
    'discrepancy': lambda x, s: stein.ksd(x, s, kernel),
    'discrepancy, unbiased': lambda x, s: stein.ksd(
      x, s, kernel, unbiased=True
    ),
  }


def measured(size, dim) -> dict[str, float]:
  """Returns the seconds of a call of ours, of the bounds and of what is installed."""
  x, score = jax.random.normal(jax.random.key(0), (2, size, dim))
  functions = {
    'three products': three_products,
    'plain direction': plain_direction,
    'plain discrepancy': plain_discrepancy,
    **ours(),
  }
  times = timing.medians(
    {name: jax.jit(function) for name, function in functions.items()},
    x,
    score,
    seconds=_SECONDS.value,
  )
  for name, (function, *args) in peers(x, score).items():
    times |= timing.medians({name: function}, *args, seconds=_SECONDS.value)
  return times


def line(size, times):
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


def three_products(x, score):
  gram = x @ x.T
  return gram @ score, gram @ x


def plain_direction(x, score, bandwidth=25.0):
  """Returns the direction as its formula on whole matrices."""
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
      _torch_direction(torch),
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


def _torch_direction(torch, bandwidth=25.0):
  @torch.no_grad()
  def direction(x, score):
    k = torch.exp(-(torch.cdist(x, x) ** 2) / bandwidth)
    pull = k.sum(1, keepdim=True) * x - k @ x
    return ((k @ score + 2 / bandwidth * pull) / len(x)).numpy()

  return direction


def extra_memory(function, size, dim) -> int:
  """Returns the bytes that a call needs beside its arguments."""
  array = jax.ShapeDtypeStruct((size, dim), jnp.float32)
  found = jax.jit(function).lower(array, array).compile().memory_analysis()
  return found.temp_size_in_bytes + found.output_size_in_bytes


if __name__ == '__main__':
  app.run(main)
