"""Every direction moves particles on densities whose truth is known: which is best?

Particles have equal numbers of scores (`--steps` for each, a Hessian being d of them),
and then equal seconds (`--seconds`, compilation apart). The size of a direction's steps
is chosen from four by the energy distance to draws of the truth, in a run of its own;
the runs that count have other keys and are held against other draws. Rows of exact
draws and of Langevin chains stand beside them. Every finished row is a file: an
interrupted call continues.

Example:
  python -m experiments.reproduce.particles --part=200
"""

from collections.abc import Callable, Sequence
import functools
import io
import math
import time
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.reproduce import problems
from experiments.reproduce import rows
from experiments.reproduce import scripts
from stein_jax import kernels
from stein_jax import metrics
from stein_jax import samplers
from stein_jax import stein
from stein_jax.algorithms import svgd
from stein_jax.runs import launch
from stein_jax.runs import reporting

TRUTH = 5000  # draws of each of four chains
_COMPARED = 1000  # draws that a distance is taken to
_MOST_STEPS = 100_000
_VALIDATION = 100  # the seed of the run that chooses
_EXACT = 'exact'
_MEDIAN, _WIDE = (kernels.Median(s, log='none') for s in (1.0, 2.0))
_ADAM = (0.02, 0.05, 0.1, 0.3)
_PLAIN = (0.1, 0.3, 0.6, 1.0)
_FALL = 0.01  # share of the rate that is left at the end


class Start(NamedTuple):
  """What a direction may be made of.

  Attributes:
    problem: the density.
    particles: where they begin [n, d].
    rate: size of the steps [].
    num_steps: length of the run [].
  """

  problem: problems.Problem
  particles: jax.Array
  rate: jax.Array
  num_steps: jax.Array

  @classmethod
  def example(cls, problem: problems.Problem, n: int) -> 'Start':
    """Returns one by which a direction can be asked what it predicts."""
    return cls(problem, problem.start(jax.random.key(0), n), 0.1, 1000)


class Way(NamedTuple):
  """A way to move particles.

  Attributes:
    name: what the table says.
    make: function of `Start` to a direction.
    rates: sizes of steps to choose from.
    plain: whether steps are phi times the rate, and not those of Adam.
    falls: whether the rate falls in the second half.
    fits: function of a problem to whether the way is for it.
    evaluations: function of d to scores that a step of one particle costs, where a
      Hessian is d of them.
  """

  name: str
  make: Callable[[Start], Callable]
  rates: Sequence[float] = _ADAM
  plain: bool = False
  falls: bool = True
  fits: Callable[[problems.Problem], bool] = lambda problem: True
  evaluations: Callable[[int], int] = lambda dim: 1


def of(direction: Callable) -> Callable[[Start], Callable]:
  """Returns a maker of one direction, wherever particles start."""
  return lambda start: direction


def annealed(schedule) -> Callable[[Start], Callable]:
  """Returns a maker of a direction whose score rises in the first half of a run."""

  def make(start):
    # The schedule is of 1,000 steps.
    rise = lambda step: schedule(2000 * step / start.num_steps)
    return stein.Annealed(stein.SVGD(kernels.IMQ(_MEDIAN)), rise)

  return make


def noisy(start: Start) -> Callable:
  """Returns SVGD with noise, whose bandwidth is that of the first particles."""
  kernel = kernels.RBF().at(start.particles)
  return stein.NoisySVGD(kernel, step_size=start.rate)


def informed(start: Start) -> Callable:
  """Returns SVGD in the subspace that the data inform."""
  prior = stein.Given(start.problem.prior)
  mean = jnp.mean(start.particles, 0)
  return stein.InformedSVGD(prior, mean, stein.SVGD(kernels.IMQ(_WIDE)))


def _whitened(*directions):
  return of(stein.Whitened(stein.Sum(directions)))


_LINEAR = stein.PolynomialSVGD()
_HESSIAN = dict(evaluations=lambda dim: 1 + dim)
_SMALL = dict(fits=lambda problem: _dim(problem) <= 100, **_HESSIAN)
_ALONE = dict(rates=_PLAIN, plain=True)
# A way's id, to what it is. Kernels come first, then what is built on them.
WAYS = {
  'rbf-log': Way('RBF, usual rule', of(stein.SVGD())),
  'rbf-median': Way('RBF, median', of(stein.SVGD(kernels.RBF(_MEDIAN)))),
  'rbf-wide': Way('RBF, twice the median', of(stein.SVGD(kernels.RBF(_WIDE)))),
  'imq-log': Way('IMQ, usual rule', of(stein.SVGD(kernels.IMQ()))),
  'imq-median': Way('IMQ, median', of(stein.SVGD(kernels.IMQ(_MEDIAN)))),
  'imq-wide': Way('IMQ, twice the median', of(stein.SVGD(kernels.IMQ(_WIDE)))),
  'linear-white': Way('linear, whitened', _whitened(_LINEAR), **_ALONE),
  'linear-log-white': Way(
    'linear + RBF (usual rule), whitened',
    _whitened(_LINEAR, stein.SVGD()),
    **_ALONE,
  ),
  'linear-median-white': Way(
    'linear + RBF (median), whitened',
    _whitened(_LINEAR, stein.SVGD(kernels.RBF(_MEDIAN))),
    **_ALONE,
  ),
  'imq-white': Way(
    'IMQ (twice the median), whitened',
    of(stein.Whitened(stein.SVGD(kernels.IMQ(_WIDE)))),
    rates=(1.0, 3.0, 10.0, 30.0),
    plain=True,
  ),
  'units': Way(
    'one bandwidth a coordinate (twice the median)',
    of(
      stein.Whitened(
        stein.SVGD(kernels.RBF(_WIDE)), stein.Variances(), precondition=False
      )
    ),
  ),
  'coordinates': Way('coordinate-wise', of(stein.CoordinateSVGD())),
  'hessian-log': Way(
    'matrix kernel, mean Hessian (usual rule)',
    of(stein.Whitened(stein.SVGD(), stein.Curvature())),
    **_ALONE,
    **_SMALL,
  ),
  'hessian-wide': Way(
    'matrix kernel, mean Hessian (twice the median)',
    of(stein.Whitened(stein.SVGD(kernels.RBF(_WIDE)), stein.Curvature())),
    rates=(1.0, 3.0, 10.0, 30.0),
    plain=True,
    **_SMALL,
  ),
  'hessians': Way(
    'matrix kernels, mixture of Hessians',
    of(stein.MixtureSVGD(kernels.RBF(_WIDE))),
    rates=(0.3, 1.0, 3.0, 10.0),
    plain=True,
    **_SMALL,
  ),
  'newton': Way(
    'Stein variational Newton', of(stein.NewtonSVGD()), **_ALONE, **_SMALL
  ),
  'slices': Way(
    'random slices, whitened',
    of(stein.Whitened(stein.ProjectedSVGD())),
    **_ALONE,
  ),
  'learned-slices': Way('sliced, learned', of(stein.SlicedSVGD())),
  'grassmann': Way(
    'projected, learned (pairs)',
    of(stein.ProjectedSVGD(size=2, basis=stein.LearnedBasis())),
  ),
  'informed': Way(
    'likelihood-informed subspace',
    informed,
    fits=lambda problem: problem.prior is not None,
  ),
  'annealed-tanh': Way(
    'annealed (tanh), IMQ, median', annealed(stein.TanhRise())
  ),
  'annealed-cycles': Way(
    'annealed (cycles), IMQ, median', annealed(stein.CyclicRise())
  ),
  'noise': Way(
    'with noise',
    noisy,
    # For each particle of n: steps of Langevin dynamics.
    rates=(0.003, 0.01, 0.03, 0.1),
    plain=True,
    falls=False,
  ),
  'regularized': Way(
    'regularised (median)',
    of(stein.RegularizedSVGD(kernels.RBF(_MEDIAN))),
  ),
  'gradient-free': Way(
    'gradient-free (twice the median)',
    of(stein.GradientFreeSVGD(kernels.RBF(_WIDE), stein.FittedGaussian(0.7))),
  ),
  'features': Way(
    'random features (twice the median)',
    of(stein.RandomFeatureSVGD(kernels.RBF(_WIDE))),
  ),
  'mala': Way(
    'MALA from the same start',
    None,
    # In theory 1.65 d^(-1/6) is best for standard deviations of 1.
    rates=(0.03, 0.1, 0.3, 1.0),
    falls=False,
  ),
}
# A run of equal scores that would take this many times the equal seconds is left out.
_PATIENCE = 40
# Kernels whose spread is predicted, and the share of the variance that is asked for.
_ASKED = ('rbf-wide', 'imq-wide', 'imq-median')
_ASKED_SHARES = {'gaussian-50': 0.95, 'gaussian-200': 0.9}


def _dim(problem):
  """Returns the numbers of one position."""
  return problem.start(jax.random.key(0), 1).shape[1]


def row_of(problem: str, n: int, way: str) -> rows.Row:
  """Returns the row of a way, or of exact draws, for n particles on a problem."""
  name = WAYS[way].name if way in WAYS else 'draws of the truth'
  what = dict(problem=problem, n=n, way=way)
  return rows.Row(f'{problem}-{n}-{way}', name, changes=what)


def table_rows(plan: scripts.Plan, n: int) -> list[rows.Row]:
  """Returns exact draws and every way with n particles, on the plan's problems."""
  found = []
  # A package that is missing would otherwise be told after an hour.
  problems.check_chains(names(plan))
  for name in names(plan):
    problem = problems.get(name)
    found.append(row_of(name, n, _EXACT))
    for key, way in WAYS.items():
      if way.fits(problem):
        found.append(row_of(name, n, key))
  return found


def asked_rows(plan: scripts.Plan) -> list[rows.Row]:
  """Returns wide kernels on Gaussians, with the particles that a prediction asks."""
  found = []
  for name, share in _ASKED_SHARES.items():
    for key in _ASKED if name in names(plan) else ():
      n = particles_for(WAYS[key].make(None), _dim(problems.get(name)), share)
      found.append(row_of(name, n, key))
  return found


def particles_for(direction, dim: int, share: float) -> int:
  """Returns how many particles keep a share of a Gaussian's variance, up to a tenth."""
  n = 2
  while stein.predicted_variance(direction, n, dim) < share:
    n = math.ceil(1.1 * n)
  return n


def names(plan: scripts.Plan) -> list[str]:
  """Returns the names of the plan's problems."""
  # A smoke run sees every way, for which one density does.
  return ['gaussian-2'] if plan.smoke else list(problems.PROBLEMS)


def run(plan: scripts.Plan, row: rows.Row):
  """Returns, for each seed, how near the row's particles are, and None for images.

  Numbers of a run of equal scores are named 'steps/...', those of equal seconds
  'seconds/...'.
  """
  name, n, key = (row.changes[k] for k in ('problem', 'n', 'way'))
  measure = measured(name, plan, n)
  if key == _EXACT:
    return [
      ({f'{kind}/{k}': v for kind in _KINDS for k, v in numbers.items()}, None)
      for numbers in map(measure.exact, range(plan.seeds))
    ]
  way, problem = WAYS[key], problems.get(name)
  move = mover(problem, way, n)
  per_step = seconds_per_step(move, way.rates[0])
  dim, seconds = _dim(problem), float(plan.options.seconds)
  lengths = dict(
    steps=max(1, plan.steps // way.evaluations(dim)),
    seconds=min(max(1, int(seconds / per_step)), _MOST_STEPS),
  )
  if lengths['steps'] * per_step > _PATIENCE * seconds:
    del lengths['steps']
  # By the runs of equal scores, where there are any.
  num_steps = next(iter(lengths.values()))
  distances = {
    rate: measure.validation(move(_VALIDATION, rate, num_steps))
    for rate in way.rates
  }
  rate = min(distances, key=distances.get)
  shared = {'per_step': per_step, 'rate': rate}
  if way.make is not None:
    share = stein.predicted_variance(
      way.make(Start.example(problem, n)), n, dim
    )
    shared |= {} if share is None else {'predicted': float(share)}
  found = []
  for seed in range(plan.seeds):
    numbers = dict(shared)
    for kind, num_steps in lengths.items():
      x = move(seed, rate, num_steps)
      of_kind = {**measure(x, seed), 'length': num_steps}
      numbers |= {f'{kind}/{k}': v for k, v in of_kind.items()}
    found.append((numbers, None))
  return found


_KINDS = {'steps': 'equal scores', 'seconds': 'equal seconds'}


def mover(problem: problems.Problem, way: Way, n: int):
  """Returns a function of seed, rate and number of steps to the particles [n, d]."""

  @jax.jit
  def move(rng, rate, num_steps):
    start_rng, rng = jax.random.split(rng)
    x = problem.start(start_rng, n)
    if way.make is None:
      return chain(problem, x, rng, rate, num_steps)
    if not way.falls:  # the noise of n particles is that of one over n
      rate = n * rate
    direction = way.make(Start(problem, x, rate, num_steps))

    def size(step):
      second_half = jnp.maximum(2 * step / num_steps - 1, 0)
      return -rate * (_FALL**second_half if way.falls else 1.0)

    adam = optax.identity() if way.plain else optax.scale_by_adam(b2=0.99)
    optimizer = optax.chain(adam, optax.scale_by_schedule(size))
    state = svgd.create(problem.log_density, x, optimizer)

    def step(i, state):
      rng_i = jax.random.fold_in(rng, i)
      return svgd.step(state, None, rng_i, direction=direction)[0]

    state = lax.fori_loop(0, num_steps, step, state)
    return state.particles.params['particles']

  return lambda seed, rate, num_steps: move(
    jax.random.key(seed), rate, jnp.asarray(num_steps, jnp.int32)
  )


def chain(problem, x, rng, rate, num_steps):
  """Returns where one MALA chain from each particle ends."""
  target = samplers.target(jax.vmap(problem.log_density))
  one = samplers.MALA(rate)
  step = lambda i, x: one(jax.random.fold_in(rng, i), x, target)[0]
  return lax.fori_loop(0, num_steps, step, x)


def seconds_per_step(move, rate: float) -> float:
  """Returns the seconds of a step, the least of three runs of about 0.1 s or more."""
  jax.block_until_ready(move(0, rate, 1))

  def seconds(num_steps):
    begin = time.perf_counter()
    jax.block_until_ready(move(0, rate, num_steps))
    return time.perf_counter() - begin

  # So many that what a call costs apart from its steps does not count.
  num_steps = int(np.clip(0.5 / seconds(5), 5, 2000))
  return min(seconds(num_steps) for _ in range(3)) / num_steps


class Measure:
  """What particles on a problem are judged by.

  Attributes:
    problem: the density.
    n: number of the particles.
    exact: function of a seed to the numbers of n draws of the truth.
  """

  def __init__(self, problem: problems.Problem, truth: np.ndarray, n: int):
    self.problem, self.n = problem, n
    # Draws to choose by, draws to judge by, and draws that are judged.
    self._chooses, self._judges, self._judged = np.split(
      truth, [_COMPARED, len(truth) // 2]
    )
    self._distance = jax.jit(plain_distance)
    self._summary = jax.jit(jax.vmap(problem.summary))
    # An argument, since a constant would be folded as the program is compiled.
    numbers = jax.jit(self._all_numbers)
    self._numbers = lambda x, seed: numbers(
      x, self._judges, jax.random.key(seed)
    )
    self._of_positions = jax.jit(self._position_numbers)

  def validation(self, x: jax.Array) -> float:
    """Returns the energy distance by which steps are chosen; infinite where nan."""
    distance = float(self._distance(self._summary(x), self._chooses))
    return distance if np.isfinite(distance) else np.inf

  def exact(self, seed: int) -> dict[str, float]:
    """Returns the numbers of n draws of the truth."""
    begin = seed * self.n
    chosen = self._judged[begin : begin + self.n]
    return jax.tree.map(float, self._numbers(chosen, seed))

  def __call__(self, x: jax.Array, seed: int) -> dict[str, float]:
    """Returns the numbers of particles [n, d]."""
    found = self._numbers(self._summary(x), seed)
    return jax.tree.map(float, found | self._of_positions(x))

  def _all_numbers(self, x, truth, rng):
    """Returns what summaries [n, m] say."""
    variance = jnp.var(truth, 0)
    ratio = jnp.var(x, 0) / variance
    covariance, found = (
      jnp.cov(each.T).reshape(each.shape[1], -1) for each in (truth, x)
    )
    norm = jnp.linalg.norm
    numbers = {
      'variance': jnp.mean(ratio),
      'least_variance': jnp.min(ratio),
      'largest_variance': jnp.max(ratio),
      'worst_deviation': jnp.max(jnp.abs(jnp.sqrt(ratio) - 1)),
      'covariance_error': norm(found - covariance) / norm(covariance),
      'mean_error': jnp.sqrt(
        jnp.mean((jnp.mean(x, 0) - jnp.mean(truth, 0)) ** 2 / variance)
      ),
      'energy_distance': plain_distance(x, truth[:_COMPARED]),
      'sliced_wasserstein': metrics.sliced_wasserstein(rng, x, truth),
    }
    if self.problem.centres is not None:
      share, within = in_modes(x, self.problem.centres)
      true_share, true_within = in_modes(truth, self.problem.centres)
      numbers['share'] = share[0] / true_share[0]
      numbers['within'] = jnp.mean(within / true_within)
    return numbers

  def _position_numbers(self, x):
    """Returns what positions [n, d] say."""
    log_density, numbers = self.problem.log_density, {}
    score = jax.vmap(jax.grad(log_density))(x)
    # A bandwidth that all ways share, of the width of the start.
    begun = self.problem.start(jax.random.key(0), 500)
    kernel = kernels.IMQ(kernels.Median(log='none')).at(begun)
    square = stein.ksd(x, score, kernel)
    numbers['ksd'] = jnp.sqrt(jnp.maximum(square, 0))
    if self.problem.predict is not None:
      numbers['predictive'] = self.problem.predict(x)
    return numbers


def plain_distance(x: jax.Array, y: jax.Array) -> jax.Array:
  """Returns the energy distance with means over all pairs, which is zero or more [].

  Particles that keep apart would be below zero by pairs of two.
  """
  distance, _ = metrics.two_sample_test(
    jax.random.key(0), x, y, num_permutations=1
  )
  return distance


def in_modes(x: jax.Array, centres: np.ndarray):
  """Returns the share of points nearest to each centre [k], and the variance there.

  The variance [k] is that along the first coordinate, which tells the modes apart.
  """
  distance = jnp.sum((x[:, None] - centres) ** 2, -1)
  nearest = jax.nn.one_hot(jnp.argmin(distance, 1), len(centres))
  share = jnp.mean(nearest, 0)
  mean = jnp.mean(nearest * x[:, :1], 0) / share
  return share, jnp.mean(nearest * (x[:, :1] - mean) ** 2, 0) / share


@functools.lru_cache(maxsize=1)
def measured(name: str, plan: scripts.Plan, n: int) -> Measure:
  """Returns what particles on a problem are judged by."""
  truth = problems.truth(name, plan.results, TRUTH)
  return Measure(problems.get(name), truth, n)


_COLUMNS = {
  'variance': 'variance',
  'least': 'least_variance',
  'largest': 'largest_variance',
  'worst deviation': 'worst_deviation',
  'covariance': 'covariance_error',
  'mean': 'mean_error',
  'within modes': 'within',
  'share of a mode': 'share',
  'KSD': 'ksd',
  'energy distance': 'energy_distance',
  'sliced Wasserstein': 'sliced_wasserstein',
  'predictive': 'predictive',
  'steps': 'length',
}


def report(plan: scripts.Plan) -> scripts.Report:
  """Returns what the ways come to on all problems, and a table of each problem."""
  tables = {
    f'{title}, {n} particles, {equal}': summary(plan, n, f'{kind}/{key}')
    for n in COUNTS
    for kind, equal in _KINDS.items()
    for title, key in (
      (_OVERVIEW, 'energy_distance'),
      ('Variance over the truth', 'variance'),
    )
  }
  tables['Predicted and measured variance'] = predictions(plan)
  for n in COUNTS:
    for name in names(plan):
      for kind, equal in _KINDS.items():
        title = f'{name}, {n} particles, {equal}'
        tables[title] = lines_of(plan, name, n, kind)
  figures = {
    f'overview_{n}': (f'{_OVERVIEW}, {n} particles, equal scores', png)
    for n in COUNTS
    if (png := overview(summary(plan, n, 'steps/energy_distance')))
  }
  if tables['Predicted and measured variance']:
    figures['predicted'] = ('Predicted and measured variance', predicted(plan))
  return scripts.Report('Particles on known densities', tables, figures)


_OVERVIEW = 'Energy distance over that of draws'


def overview(lines: Sequence[dict[str, str]]) -> bytes | None:
  """Returns a picture of a table of ratios, green below 1; None without lines."""
  from matplotlib import figure as mpl_figure  # pylint: disable=g-import-not-at-top

  if not lines:
    return None
  heads = [head for head in lines[0] if head]
  values = [[float(line[head] or 'nan') for head in heads] for line in lines]
  size = (3.5 + 0.7 * len(heads), 1.2 + 0.25 * len(lines))
  figure = mpl_figure.Figure(size, layout='constrained')
  axes = figure.subplots()
  # Equal steps of colour are equal factors; a factor of 8 is as bad as more.
  shown = np.log2(values)
  axes.imshow(shown, cmap='RdYlGn_r', vmin=-3, vmax=3, aspect='auto')
  axes.set_xticks(range(len(heads)), heads, rotation=40, ha='right')
  axes.set_yticks(range(len(lines)), [line[''] for line in lines])
  for (row, column), value in np.ndenumerate(np.array(values)):
    if np.isfinite(value):
      text = f'{value:.2g}' if value < 100 else '>99'
      axes.text(column, row, text, ha='center', va='center', fontsize=7)
  buffer = io.BytesIO()
  figure.savefig(buffer, format='png', dpi=110)
  return buffer.getvalue()


def lines_of(plan: scripts.Plan, name: str, n: int, kind: str):
  """Returns the table of one problem and budget."""
  columns = {title: f'{kind}/{key}' for title, key in _COLUMNS.items()}
  columns |= {'rate': 'rate', 'seconds a step': 'per_step'}
  mine = [row_of(name, n, key) for key in (_EXACT, *WAYS)]
  found = rows.table(plan.results, mine, columns, plan.seeds)
  # A problem of one mode or without data has no numbers of these.
  used = [title for title in columns if any(line[title] for line in found)]
  return [{title: line[title] for title in ('', *used)} for line in found]


def means(plan: scripts.Plan, name: str, n: int, way: str) -> dict[str, float]:
  """Returns the means of a row's numbers over its seeds, {} before it has run."""
  found = rows.results(plan.results, row_of(name, n, way), plan.seeds)
  keys = (
    [k for k, v in found[0].items() if isinstance(v, float)] if found else []
  )
  return {key: float(np.mean([each[key] for each in found])) for key in keys}


def summary(plan: scripts.Plan, n: int, key: str) -> list[dict[str, str]]:
  """Returns a line for each way, of one number on every problem that has been run.

  Distances are shown over those of as many draws of the truth.
  """
  ran = [name for name in names(plan) if means(plan, name, n, _EXACT)]
  lines = []
  for way in (_EXACT, *WAYS):
    line = {'': row_of('', n, way).name}
    for name in ran:
      value = means(plan, name, n, way).get(key)
      unit = means(plan, name, n, _EXACT)[key] if 'distance' in key else 1.0
      line[name] = '' if value is None else f'{value / unit:.2f}'
    if any(line[name] for name in ran):
      lines.append(line)
  return lines


def predictions(plan: scripts.Plan) -> list[dict[str, Any]]:
  """Returns what was predicted of the spread on Gaussians, and what it was."""
  every = [r for n in COUNTS for r in table_rows(plan, n)] + asked_rows(plan)
  lines = []
  for row in every:
    name, n, way = (row.changes[k] for k in ('problem', 'n', 'way'))
    found = means(plan, name, n, way)
    if name.startswith('gaussian') and 'predicted' in found:
      lines.append(
        {
          '': row.name,
          'dimensions': _dim(problems.get(name)),
          'particles': n,
          'predicted': f'{found["predicted"]:.3f}',
          'equal scores': f'{found.get("steps/variance", math.nan):.3f}',
          'equal seconds': f'{found["seconds/variance"]:.3f}',
        }
      )
  return lines


def predicted(plan: scripts.Plan) -> bytes:
  """Returns a plot of the measured variance against the prediction."""
  groups = {}
  for line in predictions(plan):
    x, y = groups.setdefault(f'd = {line["dimensions"]}', ([], []))
    x.append(float(line['predicted']))
    y.append(float(line['equal scores']))
  clouds = {title: np.transpose(points) for title, points in groups.items()}
  line = np.linspace(0, 1, 200)
  clouds['equal'] = np.stack([line, line], 1)
  return reporting.scatter(clouds, xlabel='predicted', ylabel='measured')


COUNTS = (200, 50, 1000)
SCRIPT = scripts.Script(
  'particles',
  steps=scripts.Option(1000, 'Scores of each particle.', smoke=20, minimum=1),
  seeds=3,
  parts={
    **{
      str(n): scripts.Part(
        functools.partial(table_rows, n=n), run, together=True
      )
      for n in COUNTS
    },
    'asked': scripts.Part(asked_rows, run, together=True),
  },
  report=report,
  options={
    'seconds': scripts.Option(
      '0.5', 'Seconds of the runs of equal time.', smoke='0.02'
    ),
  },
)


if __name__ == '__main__':
  launch.run(scripts.main(SCRIPT))
