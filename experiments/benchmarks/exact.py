"""Times of exact results against the plain form of each, in one process and in turn.

Log Z of an RBM is beside its states one by one, the Frechet distance beside the
singular values of two factors, the KSD test beside the product of its signs with a
matrix that is there, the exact repulsion beside one pass back for each particle, and
steps of few particles beside whole matrices.

Example:
  python -m experiments.benchmarks.exact --features=2048 --points=10000
"""

import functools
import itertools

from absl import flags
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import report
from stein_jax import energies
from stein_jax import kernels
from stein_jax import metrics
from stein_jax import stein
from stein_jax.runs import reporting

_HIDDEN = flags.DEFINE_integer('hidden', 20, 'Hidden units.', lower_bound=1)
_FEATURES = flags.DEFINE_integer('features', 2048, 'Features.', lower_bound=1)
_POINTS = flags.DEFINE_integer(
  'points', 10_000, 'Points of the test, rows of features.', lower_bound=2
)
_STEPS = 1000
_DRAWS = 1000


def measure():
  """Returns the text, lines and pictures that `report.run` takes."""
  lines = []
  for what, (ours, plain) in pairs().items():
    times = report.medians({'ours': ours, 'plain': plain})
    lines.append(report.line(what, times['ours'], 'plain', times['plain']))
  title = f'Exact results on {jax.devices()[0].device_kind}'
  return f'{title}\n\n{reporting.table(lines)}', lines, {}


def pairs():
  """Returns {what: (ours, the plain form)}, functions of nothing."""
  return {
    **of_log_partition(_HIDDEN.value),
    'Frechet distance': of_frechet(_POINTS.value, _FEATURES.value),
    'KSD test': of_test(_POINTS.value),
    **{f'repulsion, {n} particles': of_repulsion(n) for n in (100, 400)},
    **of_few_particles(10, 2),
    **of_few_particles(100, 10),
  }


def of_log_partition(num_hidden):
  module = energies.RBM(num_hidden)
  params = module.init(jax.random.key(0), jnp.zeros((1, 784)))

  def plain(params):
    bias, weight, hidden_bias = (
      params['params'][name] for name in ('bias', 'weight', 'hidden_bias')
    )
    gram, linear = weight.T @ weight, weight.T @ bias + hidden_bias

    def of_state(index):
      h = 2.0 * ((index >> jnp.arange(num_hidden)) & 1) - 1
      return h @ linear + 0.5 * h @ gram @ h

    indices = jnp.arange(2**num_hidden)
    states = lax.map(of_state, indices, batch_size=min(len(indices), 4096))
    constant = bias @ bias + len(bias) * jnp.log(2 * jnp.pi)
    return jax.nn.logsumexp(states) + 0.5 * constant

  ours = functools.partial(module.apply, method='log_partition')
  both = lambda wrap: tuple(
    functools.partial(jax.jit(wrap(each)), params) for each in (ours, plain)
  )
  what = f'log Z, {num_hidden} hidden units'
  return {what: both(lambda f: f), f'gradient of {what}': both(jax.grad)}


def of_frechet(num, num_features):
  rng = np.random.default_rng(0)
  x, y = rng.normal(size=(2, num, num_features))

  def plain():
    root = lambda rows: np.linalg.qr(rows - rows.mean(0), mode='r')
    product = root(x) @ root(y).T / (num - 1)
    cross = np.linalg.svd(product, compute_uv=False).sum()
    gap = np.sum((x.mean(0) - y.mean(0)) ** 2)
    return gap + x.var(0, ddof=1).sum() + y.var(0, ddof=1).sum() - 2 * cross

  return functools.partial(metrics.frechet_distance, x, y), plain


def of_test(num):
  x = jax.random.normal(jax.random.key(0), (num, 2))
  kernel = kernels.IMQ(1.0)
  rng = jax.random.key(1)

  matrix = jax.random.normal(rng, (num, num))
  signs = jax.random.rademacher(rng, (num, _DRAWS), x.dtype)
  ours = jax.jit(
    lambda x: stein.ksd_test(rng, x, -x, kernel, num_bootstrap=_DRAWS)[:2]
  )
  return functools.partial(ours, x), lambda: matrix @ signs


def of_repulsion(num):
  sizes, keys = (784, 128, 128, 10), jax.random.split(jax.random.key(0), 4)
  x = jax.random.uniform(keys[0], (num, sizes[0]))
  weights = [
    jax.random.normal(key, shape) / shape[0] ** 0.5
    for key, shape in zip(keys[1:], itertools.pairwise(sizes), strict=True)
  ]

  def features(x):
    for weight in weights:
      x = jnp.tanh(x @ weight)
    return x

  alone = functools.partial(features)
  alone.mixes = False
  kernel = kernels.RBF().at(features(x))
  return tuple(
    functools.partial(
      jax.jit(lambda x, f=f: stein.feature_repulsion(x, f, kernel)), x
    )
    for f in (alone, features)
  )


def of_few_particles(num, dim):
  """Returns steps of SVGD on N(0, I), at a fixed bandwidth and the median."""
  x = jax.random.normal(jax.random.key(0), (num, dim))

  def plain(x, score, bandwidth):
    norms = jnp.sum(x * x, 1)
    sq_dist = norms[:, None] + norms[None] - 2 * x @ x.T
    if bandwidth is None:
      bandwidth = jnp.median(sq_dist) / jnp.log(num + 1.0)
    k = jnp.exp(-sq_dist / bandwidth)
    pull = k.sum(1, keepdims=True) * x - k @ x
    return (k @ score + 2 / bandwidth * pull) / num

  def steps(direction):
    step = lambda x, _: (x + 0.01 * direction(x, -x), None)
    run = jax.jit(lambda x: lax.scan(step, x, length=_STEPS)[0])
    return functools.partial(run, x)

  what = f'{_STEPS} steps of {num} particles in {dim} dimensions'
  return {
    f'{what}, {name}': (
      steps(stein.SVGD(kernel)),
      steps(functools.partial(plain, bandwidth=bandwidth)),
    )
    for name, kernel, bandwidth in (
      ('fixed bandwidth', kernels.RBF(25.0), 25.0),
      ('median', kernels.RBF(), None),
    )
  }


if __name__ == '__main__':
  report.run('exact', measure)
