"""Measures how often the tests of goodness of fit reject, and what they cost.

`python -m docs.measure tests power chain large` runs what is here.
"""

import functools
import pathlib
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
from matplotlib import pyplot as plt
import numpy as np

from stein_jax import kernels
from stein_jax import samplers
from stein_jax import stein
from stein_jax.types import Array

_MEDIAN = kernels.IMQ(kernels.Median(diagonal=False, log='none'))
_DRAWS = dict(num_bootstrap=500)
_LEVEL = 0.05
_TESTS = {  # of a key, points and scores
  'one bandwidth, the median': lambda rng, x, score: stein.ksd_test(
    rng, x, score, _MEDIAN, **_DRAWS
  ),
  'one, the median over log(n + 1)': lambda rng, x, score: stein.ksd_test(
    rng, x, score, kernels.IMQ(), **_DRAWS
  ),
  'ten bandwidths': lambda rng, x, score: stein.aggregated_ksd_test(
    rng, x, score, **_DRAWS
  ),
  'FSSD': lambda rng, x, score: stein.fssd_test(rng, x, score, num_draws=500),
  'random features': lambda rng, x, score: stein.random_feature_ksd_test(
    rng, x, score, num_draws=500
  ),
  'blocks': lambda _, x, score: stein.block_ksd_test(x, score),
}


def rejecting(test):
  """Returns a compiled function of sets [s, n, d], scores and more to a share.

  It is the share of the sets that the test rejects at 5 %.

  Args:
    test: a function of a key, points, scores and what else is given to a result.
  """

  @jax.jit
  def share(x, score, *args):
    one = lambda of_set: test(*of_set, *args).p_value
    of_sets = _keys(len(x))[:, 1], x, score
    p_values = jax.lax.map(one, of_sets, batch_size=10)
    return jnp.mean(p_values <= _LEVEL)

  return lambda *args: float(share(*args))


def sets(draw, num):
  """Returns `num` sets, of a function of a key to arrays."""
  make = jax.jit(lambda keys: jax.lax.map(draw, keys, batch_size=10))
  return make(_keys(num)[:, 0])


def _keys(num):
  """Returns keys [num, 2], of the points of a set and of its test."""
  return jax.vmap(jax.random.split)(jax.random.split(jax.random.key(7), num))


def plot_shares(axes, x, shares, xlabel):
  """Draws shares of rejected sets, by name, over x."""
  for name, share in shares.items():
    axes.plot(x, share, 'o-', label=name)
  axes.axhline(_LEVEL, color='k', linestyle=':')
  axes.set(xlabel=xlabel, ylabel='share rejected at 5 %')


def tests():
  """Measures how often tests of N(0, I) reject Laplace draws of its variance."""
  sizes, n, num = (1, 2, 5, 10, 20), 200, 100

  laplace = lambda rng, d: jax.random.laplace(rng, (n, d)) / 2**0.5
  drawn = [sets(functools.partial(laplace, d=d), num) for d in sizes]
  power = {}
  for name, test in _TESTS.items():
    share = rejecting(test)
    power[name] = [share(x, -x) for x in drawn]
  fig, ax = plt.subplots(figsize=(6, 3.4))
  plot_shares(ax, sizes, power, 'dimensions')
  ax.set(xscale='log')
  ax.set_xticks(sizes, sizes)
  ax.minorticks_off()
  ax.legend(fontsize=8)
  return fig, dict(dimensions=sizes, points=n, sets=num, power=power)


class _RBM(NamedTuple):
  """p(x) ~ exp(b'x - x'x / 2) prod 2 cosh(B'x / 2 + c), units h of -1 and 1."""

  coupling: Array  # B [d, h]
  visible: Array  # b [d]
  hidden: Array  # c [h]

  def score(self, x):
    field = x @ self.coupling / 2 + self.hidden
    return self.visible - x + jnp.tanh(field) @ self.coupling.T / 2

  def draws(self, rng, n, num_sweeps=100):
    """Returns the ends [n, d] of chains of Gibbs sweeps."""

    def sweep(x, rng):
      of_hidden, of_visible = jax.random.split(rng)
      chance = jax.nn.sigmoid(x @ self.coupling + 2 * self.hidden)
      h = 2.0 * jax.random.bernoulli(of_hidden, chance) - 1
      mean = h @ self.coupling.T / 2 + self.visible
      return mean + jax.random.normal(of_visible, x.shape), None

    of_start, of_sweeps = jax.random.split(rng)
    start = jax.random.normal(of_start, (n, len(self.visible)))
    keys = jax.random.split(of_sweeps, num_sweeps)
    return jax.lax.scan(sweep, start, keys)[0]


def power():
  """Measures how often tests of an RBM reject draws of one with other weights.

  Gibbs sweeps seldom leave the mode where they start, and scores do not tell how much
  mass a mode has, so that draws without noise are right for every test here.
  """
  n, num, d = 300, 100, 50
  noises = {10: (0.0, 0.02, 0.04, 0.06), 40: (0.0, 0.01, 0.02, 0.03)}

  def draw(rng, num_hidden, noise):
    of_noise, of_x, *keys = jax.random.split(rng, 5)
    coupling = jax.random.rademacher(keys[0], (d, num_hidden), jnp.float32)
    model = _RBM(
      coupling,
      jax.random.normal(keys[1], (d,)),
      jax.random.normal(keys[2], (num_hidden,)),
    )
    noisy = coupling + noise * jax.random.normal(of_noise, coupling.shape)
    x = model._replace(coupling=noisy).draws(of_x, n)
    return x, model.score(x)

  found = {hidden: {name: [] for name in _TESTS} for hidden in noises}
  shares = {name: rejecting(test) for name, test in _TESTS.items()}
  for hidden, of_hidden in noises.items():
    for noise in of_hidden:
      drawn = sets(lambda rng, h=hidden, s=noise: draw(rng, h, s), num)
      for name, share in shares.items():
        found[hidden][name].append(share(*drawn))
  fig, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
  for ax, (hidden, shares) in zip(axes, found.items(), strict=True):
    plot_shares(ax, noises[hidden], shares, 'noise on each weight')
    ax.set(title=f'{hidden} hidden units')
  axes[0].legend(fontsize=7)
  return fig, dict(visible=d, points=n, sets=num, noises=noises, power=found)


def _autoregressive(memory):
  """Returns a function of a key and n to a chain [n, 2] of N(0, I)."""

  def chain(rng, n):
    def move(x, noise):
      x = memory * x + (1 - memory**2) ** 0.5 * noise
      return x, x

    noise = jax.random.normal(rng, (n + 1, 2))
    return jax.lax.scan(move, noise[0], noise[1:])[1]

  return chain


def _mala(step_size):
  """Returns a function of a key and n to a chain [n, 2] of N(0, I), by MALA."""
  target = samplers.target(lambda x: -jnp.sum(x * x, 1) / 2)
  move = samplers.MALA(step_size)

  def chain(rng, n):
    def step(x, rng):
      x, _ = move(rng, x, target)
      return x, x[0]

    of_start, of_steps = jax.random.split(rng)
    start = jax.random.normal(of_start, (1, 2))
    return jax.lax.scan(step, start, jax.random.split(of_steps, n))[1]

  return chain


def chain():
  """Measures how often a test rejects a chain that is right, by chance of a flip.

  The chance is given times tau, the chain's autocorrelation time. It is 0.5 for
  independent points. Moved chains lie three standard errors of a mean from N(0, I).
  """
  from numpyro import diagnostics  # pylint: disable=g-import-not-at-top

  n, num, chances = 500, 200, (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
  chains = {
    'AR(1), 0.5': _autoregressive(0.5),
    'AR(1), 0.8': _autoregressive(0.8),
    'AR(1), 0.9': _autoregressive(0.9),
    'MALA': _mala(0.6),
  }
  options = dict(num_bootstrap=300)
  one = rejecting(
    lambda rng, x, score, chance: stein.ksd_test(
      rng, x, score, _MEDIAN, flip_probability=chance, **options
    )
  )
  ten = rejecting(
    lambda rng, x, score, chance: stein.aggregated_ksd_test(
      rng, x, score, flip_probability=chance, **options
    )
  )

  def tau_of(run):
    x = jax.jit(lambda rng: run(rng, 100_000))(jax.random.key(0))
    size = diagnostics.effective_sample_size(np.asarray(x)[None])
    return float(len(x) / np.mean(size))

  rows, levels = {}, {}
  for name, run in chains.items():
    tau = tau_of(run)
    right = sets(functools.partial(run, n=n), num)
    moved = right + jnp.array([3 * (tau / n) ** 0.5, 0.0])
    of_few = lambda x, step: one(x[:, ::step], -x[:, ::step], 0.5)
    rule, step = 0.1 / tau, round(tau)
    rows[name] = {
      'autocorrelation time': tau,
      'independent': one(right, -right, 0.5),
      '0.1 / tau': one(right, -right, rule),
      'ten bandwidths, 0.1 / tau': ten(right, -right, rule),
      'every tau-th': of_few(right, step),
      'every 2 tau-th': of_few(right, 2 * step),
      'moved, 0.1 / tau': one(moved, -moved, rule),
      'moved, every 2 tau-th': of_few(moved, 2 * step),
    }
    levels[f'{name}, tau = {tau:.0f}'] = [
      one(right, -right, min(0.5, chance / tau)) for chance in chances
    ]
  fig, ax = plt.subplots(figsize=(6, 3.4))
  plot_shares(ax, chances, levels, 'flip_probability times tau')
  ax.set(xscale='log')
  ax.set_xticks(chances, chances)
  ax.minorticks_off()
  ax.legend(fontsize=8)
  return fig, dict(
    points=n, sets=num, chances=chances, levels=levels, rows=rows
  )


def _status(field):
  """Returns a field of this process's status, in megabytes."""
  lines = pathlib.Path('/proc/self/status').read_text().splitlines()
  (size,) = (line.split()[1] for line in lines if line.startswith(field))
  return int(size) / 1024


def large():
  """Measures the tests that are linear in n on a million points."""
  n = 1_000_000
  # A fifth of the points, as by default, takes most of a minute to choose.
  kinds = {
    'FSSD, a hundredth chooses': lambda rng, x: stein.fssd_test(
      rng, x, -x, train_share=0.01
    ),
    'random features': lambda rng, x: stein.random_feature_ksd_test(rng, x, -x),
    'blocks of 100': lambda _, x: stein.block_ksd_test(
      x, -x, points_per_block=100
    ),
    'blocks of 1,000': lambda _, x: stein.block_ksd_test(x, -x),
  }
  shifts = {0.0: 20, 0.003: 5, 0.01: 5}
  repeated = lambda name, d: d == 5 and name != 'blocks of 1,000'
  return None, dict(
    points=n,
    rows=[
      dict(test=name, dimensions=d)
      | of_a_million(test, n, d, shifts if repeated(name, d) else {})
      for d in (5, 10)
      for name, test in kinds.items()
    ],
  )


def of_a_million(test, n, d, shifts):
  """Returns seconds and memory of a test, and its p-values for shifted means."""

  @jax.jit
  def draw(seed, shift):
    return shift + jax.random.normal(jax.random.key(seed), (n, d))

  x = jax.block_until_ready(draw(0, 0.0))
  key = jax.random.key(1)
  p_value = jax.jit(lambda rng, x: test(rng, x).p_value).lower(key, x).compile()
  pathlib.Path('/proc/self/clear_refs').write_text('5')  # the peak is now
  before, times = _status('VmRSS'), []
  for _ in range(2):
    start = time.perf_counter()
    p_value(key, x).block_until_ready()
    times.append(time.perf_counter() - start)
  return {
    'seconds': min(times),
    'megabytes beside the points': _status('VmHWM') - before,
    'p-values by shift': {
      shift: [float(p_value(key, draw(seed, shift))) for seed in range(num)]
      for shift, num in shifts.items()
    },
  }
