"""Every way to learn an energy, where likelihood is exact.

Data are exact draws of an RBM, and an RBM of that size learns them. Its log Z is exact,
and so is how many nats it ends from the truth. Two parts have images in their place,
and what fits them best in the place of the truth. A way has as many trials as any
other, of rates alone or of rates and an option, and held-out data choose among them. It
learns from the usual start, and begins once more at the truth or the best fit, which
says where it comes to rest: what it loses there no patience brings back. A generator
begins anew in both. Rates fall linearly to 0. All trials of a way are one program, and
so are its seeds, whose time is shared. Every finished row is a file: an interrupted
call continues.

Example:
  python -m experiments.reproduce.objectives --part=overlapping-10000
"""

from collections.abc import Callable, Mapping, Sequence
import functools
import io
import time
import types
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
from ml_collections import config_dict
import numpy as np
import optax

from experiments.reproduce import rows
from experiments.reproduce import scripts
from experiments.reproduce import truths
from stein_jax import algorithms
from stein_jax import kernels
from stein_jax import randomness
from stein_jax import samplers
from stein_jax import stein
from stein_jax.algorithms import noise_contrastive
from stein_jax.runs import launch
from stein_jax.runs import reporting

BATCH = 200  # and as many persistent chains
LOOKS = 10  # at the likelihood of a run
SIZES = (1000, 10_000, 100_000)
IMAGES = {'mnist': 'mnist', 'digits-images': 'digits'}  # to their data set
SHARES = {'mnist': 0.4}  # of the updates, where a whole run would take hours
TRUTH_RATE = 5e-3  # of runs that begin at the truth
_CHOOSERS = 2  # seeds by which trials are chosen
# Seeds of draws and runs that choose, beyond those that count.
_FIRST_CHOOSER = 1000
_RATES = (1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2)
_FEW_RATES = (3e-3, 1e-2, 3e-2)


class Way(NamedTuple):
  """A way to learn an energy.

  Attributes:
    name: what the table says.
    algorithm: its module's name.
    evaluations: of the energy, or of a gradient of it, at an example in an update: one
      for each step of a chain or of SVGD, and two for the contrast. Those by
      parameters, and log Z, do not count.
    options: function of a value to keywords of the algorithm's step.
    values: two of these to choose from; () where rates alone are chosen.
    rates: of the energy, to choose from; () for the usual ones.
    fields: fields of the config that `init` reads.
    begin: function of a key and the first state, whose energy may be the truth, to what
      the state is then.
  """

  name: str
  algorithm: str
  evaluations: int
  options: Callable[[jax.Array], Mapping[str, Any]] = lambda value: {}
  values: Sequence[float] = ()
  rates: Sequence[float] = ()
  fields: Mapping[str, Any] = {}
  begin: Callable[[jax.Array, Any], Any] = lambda rng, state: state

  def trials(self) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rates and the values of all trials [6]."""
    rates = self.rates or (_FEW_RATES if self.values else _RATES)
    grid = [(rate, v) for rate in rates for v in self.values or (np.nan,)]
    return tuple(np.transpose(grid))


def _as_many_chains(rng, state):
  """Returns a state with as many persistent chains as a batch has examples."""
  return state._replace(chains=state.chains[:BATCH])


def _gibbs(num_steps: int):
  return lambda value: {'chain': samplers.Gibbs(num_steps)}


def _langevin(num_steps: int):
  return lambda value: {'chain': samplers.Langevin(value, num_steps)}


def _svgd(direction: Callable):
  # Under Adam the size of the step along it hardly counts.
  return lambda value: {'direction': direction}


def _score(objective: str):
  return lambda value: {'objective': objective}


def _noisy(objective: str, **options):
  return lambda value: dict(objective=objective, noise_scale=value, **options)


def _steingan(direction: Callable):
  # Negatives are of the generator that has moved, as in the papers' algorithm.
  return lambda value: {'direction': direction, 'negatives': 'fresh'}


def _with_log_partition(rng, state):
  """Returns a state whose log Z is estimated anew, since the energy may be another."""
  return noise_contrastive.create(rng, state.energy, state.noise)


_CD, _STEIN_CD = 'contrastive_divergence', 'stein_cd'
_SCORE, _NOISE = 'score_matching', 'noise_contrastive'
_STEINGAN = 'steingan'
# A way with a generator chooses that one's rate, and has its energy follow slowly.
_GENERATOR = dict(values=(3e-3, 1e-2), rates=(1e-3, 3e-3, 1e-2))
_WIDE = kernels.RBF(kernels.Median(2.0, log='none'))
# A way's id, to what it is.
WAYS = {
  'exact': Way('Exact maximum likelihood', 'maximum_likelihood', 1),
  'cd-1-gibbs': Way('CD-1 Gibbs', _CD, 3, _gibbs(1)),
  'cd-10-gibbs': Way('CD-10 Gibbs', _CD, 12, _gibbs(10)),
  'cd-1-langevin': Way('CD-1 Langevin', _CD, 3, _langevin(1), (0.5, 1.0)),
  'cd-10-langevin': Way('CD-10 Langevin', _CD, 12, _langevin(10), (0.5, 1.0)),
  'pcd': Way(
    'PCD, a Gibbs step',
    _CD,
    3,
    _gibbs(1),
    fields={'persistent': True},
    begin=_as_many_chains,
  ),
  'stein-cd': Way('SteinCD, as printed', _STEIN_CD, 3, _svgd(stein.SVGD())),
  'stein-cd-wide': Way(
    'SteinCD, twice the median', _STEIN_CD, 3, _svgd(stein.SVGD(_WIDE))
  ),
  'stein-cd-others': Way(
    'SteinCD, without its own term',
    _STEIN_CD,
    3,
    _svgd(stein.SVGD(diagonal=False)),
  ),
  'score-exact': Way('Score matching, exact', _SCORE, 2, _score('closed_form')),
  'score-stein': Way('Score matching, Stein', _SCORE, 2, _score('stein')),
  'score-sliced': Way('Score matching, sliced', _SCORE, 2, _score('sliced')),
  'denoising': Way(
    'Denoising score matching', _SCORE, 1, _noisy('denoising'), (0.1, 0.3)
  ),
  'denoising-variate': Way(
    'Denoising score matching, control variate',
    _SCORE,
    2,
    _noisy('denoising', control_variate=True),
    (0.1, 0.3),
  ),
  'nce': Way(
    'NCE, fitted Gaussian',
    _NOISE,
    2,
    lambda value: {'objective': 'fixed', 'num_noise': 1},
    begin=_with_log_partition,
  ),
  'nce-conditional': Way(
    'Conditional NCE, 4 noises', _NOISE, 5, _noisy('conditional'), (0.3, 1.0)
  ),
  'recovery': Way(
    'Recovery likelihood, 5 Gibbs steps',
    'recovery_likelihood',
    7,
    lambda value: dict(noise_scales=(0.7,), chain=samplers.Gibbs(5)),
  ),
  'discrepancy': Way(
    'Energy discrepancy, 4 noises', _NOISE, 5, _noisy('discrepancy'), (0.3, 0.7)
  ),
  'steingan': Way(
    'SteinGAN, as printed', _STEINGAN, 3, _steingan(stein.SVGD()), **_GENERATOR
  ),
  'steingan-wide': Way(
    'SteinGAN, twice the median',
    _STEINGAN,
    3,
    _steingan(stein.SVGD(_WIDE)),
    **_GENERATOR,
  ),
  'vera': Way(
    'VERA',
    'vera',
    3,
    lambda value: dict(noise_scale=0.5, latent_scale=0.3, gradient_penalty=0.0),
    **_GENERATOR,
  ),
  'coopnets': Way(
    'CoopNets, 10 Langevin steps',
    'coopnets',
    12,
    lambda value: {'chain': samplers.Langevin(0.5, 10)},
    **_GENERATOR,
  ),
}


def row_of(name: str, n: int | None, way: str) -> rows.Row:
  """Returns the row of a way that learns from n draws of a truth, or from images."""
  what = dict(name=name, n=n, way=way)
  part = f'{name}-{n}' if n else name
  return rows.Row(f'{part}-{way}', WAYS[way].name, changes=what)


def source_of(plan: scripts.Plan, name: str, n: int | None):
  """Returns what is learned from, n draws of a truth or images."""
  if n:
    return truths.Draws(truths.get(name, plan.results), n)
  fit = {'fit_steps': plan.steps} if plan.smoke else {}
  return truths.Images(IMAGES[name], plan.results, **fit)


def steps_of(plan: scripts.Plan, name: str) -> int:
  """Returns the updates of a run on these data, in whole looks."""
  return round(plan.steps * SHARES.get(name, 1)) // LOOKS * LOOKS


def run(plan: scripts.Plan, row: rows.Row):
  """Returns, for each seed, how far a way ends from the best, and None for images."""
  name, n, key = (row.changes[k] for k in ('name', 'n', 'way'))
  source, way = source_of(plan, name, n), WAYS[key]
  rates, values = way.trials()
  choosers = range(_FIRST_CHOOSER, _FIRST_CHOOSER + _CHOOSERS)
  num_steps = steps_of(plan, name)
  tried, _ = train(source, way, choosers, num_steps, rates, values)
  last = jax.tree.map(lambda leaf: leaf[:, :, -1], tried)
  # A run that ended as nan is the worst.
  gaps = _gaps_of(source, choosers, last, source.valid)
  gaps = np.nan_to_num(gaps, nan=np.inf).mean(0)
  best = int(np.argmin(gaps))
  shared = {'rate': float(rates[best])}
  if way.values:
    shared['value'] = float(values[best])
  # One program of both starts: the second at the best, at a rate all ways share.
  seeds = range(plan.seeds)
  both, seconds = train(
    source,
    way,
    seeds,
    num_steps,
    np.array([rates[best], TRUTH_RATE]),
    values[[best, best]],
    np.array([False, True]),
  )
  test = source.test()
  found = _gaps_of(source, seeds, both, lambda seed: test)
  seconds /= 2 * plan.seeds
  share = np.arange(1, LOOKS + 1) / LOOKS
  curve = dict(
    evaluations=(way.evaluations * BATCH * num_steps * share).tolist(),
    elapsed=(seconds * share).tolist(),
  )
  return [
    (
      {
        'gap': float(scratch[-1]),
        'test': source.best(seed).log_likelihood(test) - float(scratch[-1]),
        'from_truth': float(begun[-1]),
        'valid': float(gaps[best]),
        'training_seconds': seconds,
        'millions': curve['evaluations'][-1] / 1e6,
        'curve': scratch.tolist(),
        'trials': gaps.tolist(),
        **shared,
        **curve,
      },
      None,
    )
    for seed, (scratch, begun) in zip(seeds, found, strict=True)
  ]


def _gaps_of(source, seeds, params, points):
  """Returns the gaps [seeds, ...] of models to the best of each seed, on its points."""
  of_seed = lambda i: jax.tree.map(lambda leaf: leaf[i], params)
  return np.stack(
    [
      source.best(seed).gaps(of_seed(i), points(seed))
      for i, seed in enumerate(seeds)
    ]
  )


def train(
  source: truths.Draws | truths.Images,
  way: Way,
  seeds: Sequence[int],
  num_steps: int,
  rates: np.ndarray,
  values: np.ndarray,
  begun: np.ndarray | None = None,
):
  """Returns (the parameters at `LOOKS` times, leaves [seeds, m, LOOKS, ...]; seconds).

  Args:
    source: what is learned from.
    way: how it is learned.
    seeds: of data and runs.
    num_steps: updates, in whole looks.
    rates: the first rates [m], one for each run of a seed.
    values: of the way's option [m].
    begun: whether a run begins at the truth, or the best fit [m]; None for none.
  """
  data = np.stack([source.train(seed) for seed in seeds])
  bests = jax.tree.map(
    lambda *leaves: np.stack(leaves), *(source.best(seed) for seed in seeds)
  )
  keys = jnp.stack([jax.random.key(seed) for seed in seeds])
  # A chain spends most of its time on noise.
  keys = randomness.convert(keys, 'hashed')
  begun = np.zeros(len(rates), bool) if begun is None else begun
  one = functools.partial(_train_one, way, num_steps)
  # Runs of a seed share its data, of which there is one copy.
  of_seed = jax.vmap(one, in_axes=(None, None, None, 0, 0, 0))
  every = jax.jit(jax.vmap(of_seed, in_axes=(0, 0, 0, None, None, None)))
  arguments = data, keys, bests, rates, values, begun
  # The time of the runs alone, without compilation.
  compiled = every.lower(*arguments).compile()
  begin = time.perf_counter()
  found = jax.block_until_ready(compiled(*arguments))
  return found, time.perf_counter() - begin


def _train_one(way, num_steps, data, rng, best, rate, value, begun):
  """Returns the parameters of one run at `LOOKS` times, leaves [LOOKS, ...]."""
  start_rng, begin_rng, rng = jax.random.split(rng, 3)
  algorithm, options = algorithms.get(way.algorithm), way.options(value)
  dim, num_hidden = best.weight.shape
  config = types.SimpleNamespace(
    energy=dict(name='RBM', num_hidden=num_hidden, centered=True),
    optimizer=_adam(rate, num_steps),
    # These are of ways that have a generator, whose option is its rate.
    energy_optimizer=_adam(rate, num_steps),
    generator=dict(name='MLP', latent_dim=dim, dim=dim),
    generator_optimizer=_adam(value, num_steps),
    step=config_dict.ConfigDict(options),
    **{**getattr(algorithm, 'FIELDS', {}), **way.fields},
  )
  # The constant mean is that of all data.
  state = algorithm.init(start_rng, config, {'image': data})
  truly = best.params(jnp.mean(data, 0))
  params = jax.tree.map(
    lambda a, b: jnp.where(begun, jnp.asarray(b, a.dtype), a),
    state.energy.params,
    truly,
  )
  energy = state.energy.replace(params=params)
  state = way.begin(begin_rng, state._replace(energy=energy))

  def step(state, i):
    batch_rng, step_rng = jax.random.split(jax.random.fold_in(rng, i))
    chosen = jax.random.randint(batch_rng, (BATCH,), 0, len(data))
    batch = {'image': data[chosen]}
    return algorithm.step(state, batch, step_rng, **options)[0], None

  def between(state, indices):
    state, _ = lax.scan(step, state, indices)
    return state, state.energy.params

  indices = jnp.arange(num_steps).reshape(LOOKS, -1)
  return lax.scan(between, state, indices)[1]


def _adam(rate, num_steps):
  """Returns Adam, whose rate falls linearly to 0."""
  falling = lambda i: -rate * (1 - i / num_steps)
  return optax.chain(optax.scale_by_adam(), optax.scale_by_schedule(falling))


def report(plan: scripts.Plan) -> scripts.Report:
  """Returns the gaps of all ways on all data, and a table of each."""
  tables = {
    title: overview(plan, key)
    for title, key in (
      ('Nats from the truth', 'gap'),
      ('Nats from the truth, begun at it', 'from_truth'),
    )
  }
  figures = {
    f'gaps_{n}': (f'Nats from the truth, of {n:,} draws', png)
    for n in SIZES
    if (png := gaps_picture(plan, n))
  }
  for name in (*truths.TRUTHS, *IMAGES):
    for n in SIZES if name in truths.TRUTHS else (None,):
      mine = [row_of(name, n, way) for way in WAYS]
      title = f'{name}, {n:,} draws' if n else f'{name}, real images'
      columns = _COLUMNS if n else _IMAGE_COLUMNS
      tables[title] = rows.table(plan.results, mine, columns, plan.seeds)
    best = 'truth' if name in truths.TRUTHS else 'best fit'
    for key, (label, series) in curves(plan, name).items():
      if series:
        png = reporting.curves(
          series, xlabel=label, ylabel=f'nats from the {best}', log=True
        )
        figures[f'{name}_{key}'] = f'{name}: over {label}', png
  title = 'Ways to learn an energy whose likelihood is exact'
  return scripts.Report(title, tables, figures)


def overview(plan: scripts.Plan, key: str) -> list[dict[str, str]]:
  """Returns a line for each way, of one number on all data that have been run.

  The first line is what exact maximum likelihood has to pay: half a nat a parameter,
  over n.
  """
  ran = {
    (name, n): f'{name}, {n:,}'
    for name in truths.TRUTHS
    for n in SIZES
    if any(_found(plan, name, n, way) for way in WAYS)
  }
  floors = {
    title: f'{truths.get(name, plan.results).num_parameters / (2 * n):.2g}'
    for (name, n), title in ran.items()
  }
  lines = [{'': 'parameters / 2n', **floors}] if ran else []
  for way in WAYS:
    line = {'': WAYS[way].name}
    for (name, n), title in ran.items():
      values = [result[key] for result in _found(plan, name, n, way)]
      line[title] = rows.cell(key, values) if values else ''
    if any(line[title] for title in ran.values()):
      lines.append(line)
  return lines


def gaps_picture(plan: scripts.Plan, n: int) -> bytes | None:
  """Returns a PNG of all ways' gaps from n draws of each truth; None without any.

  Dots are means over seeds, and hollow ones those of runs that began at the truth. The
  dashed line is half a nat a parameter over n.
  """
  from matplotlib import figure as mpl_figure  # pylint: disable=g-import-not-at-top

  found = {
    name: {
      way: results for way in WAYS if (results := _found(plan, name, n, way))
    }
    for name in truths.TRUTHS
  }
  found = {name: ways for name, ways in found.items() if ways}
  if not found:
    return None
  shown = [way for way in WAYS if any(way in ways for ways in found.values())]
  figure = mpl_figure.Figure(
    (3 + 3 * len(found), 1.5 + 0.24 * len(shown)), layout='constrained'
  )
  every = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
  for axes, (name, ways) in zip(every, found.items(), strict=True):
    heights = [shown.index(way) for way in ways]
    for key, face, label in (
      ('from_truth', 'none', 'begun at the truth'),
      ('gap', 'C0', 'from the usual start'),
    ):
      means = [np.mean([r[key] for r in results]) for results in ways.values()]
      axes.scatter(
        means, heights, facecolors=face, edgecolors='C0', label=label, zorder=2
      )
    floor = truths.get(name, plan.results).num_parameters / (2 * n)
    axes.axvline(floor, color='0.5', linestyle='--', label='parameters / 2n')
    axes.set(xscale='log', title=name, xlabel='nats from the truth')
    axes.grid(alpha=0.3)
  every[0].set_yticks(range(len(shown)), [WAYS[way].name for way in shown])
  every[0].invert_yaxis()
  handles, labels = every[0].get_legend_handles_labels()
  figure.legend(handles, labels, loc='outside lower right', ncols=3)
  buffer = io.BytesIO()
  figure.savefig(buffer, format='png', dpi=110)
  return buffer.getvalue()


def curves(plan: scripts.Plan, name: str):
  """Returns mean gaps of ways, over draws of a truth and over their costs.

  They are named series by what they stand over, with its label. Costs are those of
  10,000 draws, or of as many as have been run. Images are never more or fewer, and have
  costs alone.
  """
  sizes = SIZES if name in truths.TRUTHS else (None,)
  over_data, costs = {}, {'evaluations': {}, 'elapsed': {}}
  for key, way in WAYS.items():
    found = {n: _found(plan, name, n, key) for n in sizes}
    found = {n: results for n, results in found.items() if results}
    if not found:
      continue
    mean = lambda results, number: np.mean([r[number] for r in results], 0)
    if name in truths.TRUTHS:
      gaps = [mean(results, 'gap') for results in found.values()]
      over_data[way.name] = list(found), gaps
    results = found.get(SIZES[1], next(iter(found.values())))
    for cost, series in costs.items():
      series[way.name] = mean(results, cost), mean(results, 'curve')
  return {
    'data': ('draws of the truth', over_data),
    'evaluations': ('evaluations of the energy', costs['evaluations']),
    'elapsed': ('seconds of a run', costs['elapsed']),
  }


def _found(plan, name, n, way):
  return rows.results(plan.results, row_of(name, n, way), plan.seeds)


_COST_COLUMNS = {
  'rate': 'rate',
  'option': 'value',
  'on validation data': 'valid',
  'million evaluations': 'millions',
  'seconds of a run': 'training_seconds',
}
_COLUMNS = {
  'nats from the truth': 'gap',
  'begun at the truth': 'from_truth',
  **_COST_COLUMNS,
}
_IMAGE_COLUMNS = {
  'test log likelihood (nats)': 'test',
  'below the best fit': 'gap',
  'below it, begun there': 'from_truth',
  **_COST_COLUMNS,
}


def table_rows(plan: scripts.Plan, name: str, n: int | None) -> list[rows.Row]:
  """Returns every way that learns from n draws of a truth, or from images."""
  # A smoke run sees every way, for which one truth does, and two of images.
  ways = list(WAYS)
  if plan.smoke:
    ways = {
      (next(iter(truths.TRUTHS)), SIZES[0]): ways,
      ('digits-images', None): ['exact', 'cd-1-langevin'],
    }.get((name, n), [])
  return [row_of(name, n, way) for way in ways]


_PARTS = {f'{name}-{n}': (name, n) for name in truths.TRUTHS for n in SIZES}
_PARTS |= {name: (name, None) for name in IMAGES}
SCRIPT = scripts.Script(
  'objectives',
  steps=scripts.Option(
    5000,
    f'Updates of every run, in whole {LOOKS}ths; MNIST has two fifths of them.',
    smoke=20,
    minimum=LOOKS,
  ),
  seeds=5,
  parts={
    part: scripts.Part(
      functools.partial(table_rows, name=name, n=n), run, together=True
    )
    for part, (name, n) in _PARTS.items()
  },
  report=report,
)


if __name__ == '__main__':
  launch.run(scripts.main(SCRIPT))
