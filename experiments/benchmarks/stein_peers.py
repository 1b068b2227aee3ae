"""Stein methods beside other libraries on the same problems: time and result.

Every library's SVGD moves particles from draws of N(0, I), with one optimizer, to the
variance that they end with. A test, a discrepancy and Stein thinning are of the same
points and kernel. A library that is not installed is left out and said to be:
pip install 'stein_jax[bench]'.

Example:
  python -m experiments.benchmarks.stein_peers --particles=100 --steps=1000
"""

import functools

from absl import flags
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmarks import report
from stein_jax import kernels
from stein_jax import stein
from stein_jax.algorithms import svgd
from stein_jax.runs import reporting

_PARTICLES = flags.DEFINE_integer(
  'particles', 100, 'Particles of SVGD.', lower_bound=2
)
_DIM = flags.DEFINE_integer('dim', 50, 'Of a particle.', lower_bound=1)
_STEPS = flags.DEFINE_integer('steps', 1000, 'Steps of SVGD.', lower_bound=1)
_POINTS = flags.DEFINE_integer(
  'points', 5000, 'Points to test and to thin.', lower_bound=100
)
_RATE = 0.05  # of Adam, for all of them
_KEPT = 200  # points, by thinning
_AXES = 10  # of the points


def measure():
  """Returns the text, lines and pictures that `report.run` takes."""
  missing, text, lines = set(), [], []
  for compare in (directions, tests, discrepancies, thinnings):
    found_text, found_lines = compare(missing)
    text.append(found_text)
    lines += found_lines
  text += [
    f'{name} is not installed, so that it is not in the tables.'
    for name in sorted(missing)
  ]
  return '\n\n'.join(text) + '\n', lines, {}


def directions(missing):
  """Returns text and lines of SVGD: seconds of a step, variance after all steps."""
  n, d = _PARTICLES.value, _DIM.value
  start = jax.random.normal(jax.random.key(0), (n, d))
  runs = {
    'ours, RBF': _ours(start, stein.SVGD(kernels.RBF())),
    'ours, RBF of 2 medians': _ours(
      start, stein.SVGD(kernels.RBF(kernels.Median(scale=2.0, log='none')))
    ),
    'ours, IMQ of 2 medians': _ours(
      start, stein.SVGD(kernels.IMQ(kernels.Median(scale=2.0, log='none')))
    ),
    **_installed(missing, 'blackjax', _blackjax, start),
    **_installed(missing, 'numpyro', _numpyro, n, d),
  }
  step = {name: jax.jit(one) for name, (one, *_) in runs.items()}
  times = report.medians(
    {
      name: functools.partial(step[name], state)
      for name, (_, state, _) in runs.items()
    }
  )

  def variances(name):
    _, state, particles = runs[name]
    for _ in range(_STEPS.value):
      state = step[name](state)
    return float(jnp.mean(jnp.var(particles(state), 0)))

  title = (
    f'SVGD of {n} particles on N(0, I) in {d} dimensions, {_STEPS.value} steps of '
    f'Adam from draws of it, on {jax.devices()[0].device_kind}'
  )
  rows = [
    {
      'SVGD': name,
      'ms a step': f'{1e3 * times[name]:.2f}',
      'variance, truth 1': f'{variances(name):.3f}',
    }
    for name in runs
  ]
  ours = times['ours, RBF']
  lines = [
    report.line(f'SVGD step, {n} particles', ours, name, taken)
    for name, taken in times.items()
    if not name.startswith('ours')
  ]
  return f'{title}\n\n{reporting.table(rows)}', lines


def _ours(start, direction):
  """Returns a step, a state and what takes particles out of one."""
  log_density = lambda x: -jnp.sum(x**2) / 2
  step = lambda state: svgd.step(
    state, None, jax.random.key(0), direction=direction
  )[0]
  particles = lambda state: state.particles.params['particles']
  return step, svgd.create(log_density, start, optax.adam(_RATE)), particles


def _blackjax(start):
  import blackjax  # pylint: disable=g-import-not-at-top

  algorithm = blackjax.svgd(lambda x: -x, optax.adam(_RATE))
  particles = lambda state: state.particles
  return {
    'BlackJAX, RBF': (algorithm.step, algorithm.init(start), particles),
  }


def _numpyro(n, d):
  import numpyro  # pylint: disable=g-import-not-at-top
  from numpyro import distributions
  from numpyro.contrib import einstein
  from numpyro.infer import initialization

  def model():
    normal = distributions.Normal(0, 1).expand([d]).to_event(1)
    numpyro.sample('x', normal)

  def run(method, kernel, *of_init):
    options = dict(
      num_stein_particles=n,
      guide_kwargs=dict(init_loc_fn=initialization.init_to_sample),
    )
    fitted = method(model, numpyro.optim.Adam(_RATE), kernel, **options)
    state = fitted.init(jax.random.key(0), *of_init)
    (name,) = fitted.get_params(state)
    return (
      lambda state: fitted.update(state)[0],
      state,
      lambda state: fitted.get_params(state)[name],
    )

  return {
    'NumPyro SVGD, RBF': run(einstein.SVGD, einstein.RBFKernel()),
    'NumPyro SVGD, IMQ': run(einstein.SVGD, einstein.IMQKernel()),
    'NumPyro ASVGD, RBF': run(
      einstein.ASVGD, einstein.RBFKernel(), _STEPS.value
    ),
  }


def tests(missing):
  """Returns text and lines of the FSSD test at locations that are given."""
  x, bandwidth = _points()
  locations = jax.random.normal(jax.random.key(1), (5, _AXES))
  kernel = kernels.RBF(bandwidth)
  ours = jax.jit(
    lambda rng, x: tuple(
      stein.fssd_test(rng, x, -x, kernel, locations=locations)
    )
  )
  return _compared(
    f'FSSD test of {_said(x)}, 5 locations',
    {
      'ours': lambda: ours(jax.random.key(2), x),
      **_installed(missing, 'hyppo', _hyppo, x, locations, bandwidth),
    },
    lambda found: {'n FSSD': f'{found[0]:.6g}', 'p-value': f'{found[1]:.3g}'},
  )


def _hyppo(x, locations, bandwidth):
  from hyppo import kgof  # pylint: disable=g-import-not-at-top

  x, locations = np.array(x, np.float64), np.array(locations, np.float64)

  def test():
    # The draws of its null, as many as ours, are part of the test.
    null = kgof.FSSDH0SimCovObs(n_simulate=3000, seed=0)
    density = kgof.IsotropicNormal(np.zeros(_AXES), 1.0)
    kernel = kgof.KGauss(bandwidth / 2)
    found = kgof.FSSD(density, kernel, locations, null).test(x)
    return found['test_stat'], found['pvalue']

  return {'hyppo': test}


def discrepancies(missing):
  """Returns text and lines of the KSD, a V-statistic."""
  x, bandwidth = _points()
  ours = jax.jit(lambda x: stein.ksd(x, -x, kernels.IMQ(bandwidth)))
  return _compared(
    f'Squared KSD of {_said(x)}, IMQ',
    {
      'ours': lambda: ours(x),
      **_installed(missing, 'coreax', _coreax_ksd, x, bandwidth),
    },
    lambda found: {'KSD': f'{found:.6g}'},
  )


def _coreax_ksd(x, bandwidth):
  import coreax  # pylint: disable=g-import-not-at-top
  from coreax import metrics  # pylint: disable=g-import-not-at-top

  metric = metrics.KSD(_coreax_kernel(bandwidth))
  data = coreax.Data(x)
  ksd = jax.jit(lambda data: metric.compute(data, data) ** 2)
  return {'coreax': lambda: ksd(data)}


def _coreax_kernel(bandwidth):
  from coreax import kernels as theirs  # pylint: disable=g-import-not-at-top

  # It divides squared distances by twice the square of its length.
  imq = theirs.PCIMQKernel(length_scale=(bandwidth / 2) ** 0.5)
  return theirs.SteinKernel(imq, score_function=lambda x: -x)


def thinnings(missing):
  """Returns text and lines of Stein thinning, whose indices should be the same."""
  x, bandwidth = _points()
  kernel = kernels.IMQ(bandwidth)

  def ours(dtype):
    with jax.enable_x64(dtype == np.float64):
      points = jnp.array(x, dtype)
      return thin(points)

  thin = jax.jit(
    lambda x: stein.thin(x, -x, _KEPT, kernel, standardize=False)[0]
  )
  double = np.asarray(ours(np.float64))
  return _compared(
    f'Stein thinning of {_said(x)} to {_KEPT}, IMQ',
    {
      'ours': lambda: ours(np.float32),
      'ours in float64': lambda: ours(np.float64),
      **_installed(missing, 'stein_thinning', _stein_thinning, x, bandwidth),
      **_installed(missing, 'coreax', _coreax_thinning, x, bandwidth),
    },
    lambda found: {
      'indices as ours in float64': int(np.sum(np.asarray(found) == double)),
    },
  )


def _stein_thinning(x, bandwidth):
  from stein_thinning import thinning  # pylint: disable=g-import-not-at-top

  x = np.array(x, np.float64)
  return {
    'stein_thinning': lambda: thinning.thin(
      x, -x, _KEPT, standardize=False, preconditioner=str(bandwidth)
    )
  }


def _coreax_thinning(x, bandwidth):
  import coreax  # pylint: disable=g-import-not-at-top
  from coreax import solvers  # pylint: disable=g-import-not-at-top

  solver = solvers.SteinThinning(
    _KEPT, _coreax_kernel(bandwidth), unique=False, regularise=False
  )
  data = coreax.Data(x)
  reduce = jax.jit(lambda data: solver.reduce(data)[0].unweighted_indices)
  return {'coreax': lambda: reduce(data)}


def _points():
  """Returns draws [n, d] of a law that N(0, I) is near, and a bandwidth for them."""
  x = 0.1 + 1.1 * jax.random.normal(jax.random.key(0), (_POINTS.value, _AXES))
  rule = kernels.IMQ(kernels.Median(diagonal=False, log='none'))
  return x, float(rule.at(x[:1000]).bandwidth)


def _said(x):
  return f'{len(x)} draws of N(0.1, 1.21 I) in {x.shape[1]} dimensions'


def _installed(missing, package, make, *args):
  """Returns what `make` does of a package, or nothing, and adds to the missing."""
  try:
    return make(*args)
  except ModuleNotFoundError as error:
    if error.name.split('.')[0] != package:
      raise
    missing.add(package)
    return {}


def _compared(title, runs, columns):
  """Returns text and lines of functions of the same points, ours the first."""
  times = report.medians(runs)
  rows = [
    {
      'library': name,
      'ms': f'{1e3 * times[name]:.3g}',
      'over ours': f'{times[name] / times["ours"]:.2f}',
      **columns(run()),
    }
    for name, run in runs.items()
  ]
  lines = [
    report.line(title, times['ours'], name, taken)
    for name, taken in times.items()
    if not name.startswith('ours')
  ]
  return f'{title}\n\n{reporting.table(rows)}', lines


if __name__ == '__main__':
  report.run('stein_peers', measure)
