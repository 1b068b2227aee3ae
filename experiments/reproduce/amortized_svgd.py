"""Amortised SVGD on two-dimensional densities: every projection of WL16, section 2.

A network learns to draw from a density that is known. Its samples stand beside exact
draws: KSD, energy distance, and the two-sample test between them. The row 'exact
draws' is what a perfect sampler would show. Two things stand beside the projections: a
regression to where many steps of SVGD lead, and a flow, whose density is known, by
SVGD and by KL itself. One network learns all bananas at once, and the projections train
the sampler of SteinGAN. Every finished run is a file: an interrupted call continues.

Example:
  python -m experiments.reproduce.amortized_svgd --results=results/amortized_svgd
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from configs import steingan_toy
from experiments.reproduce import rows
from experiments.reproduce import scripts
from stein_jax import build
from stein_jax import densities
from stein_jax import energies
from stein_jax import generators
from stein_jax import kernels
from stein_jax import learners
from stein_jax import metrics
from stein_jax import stein
from stein_jax.algorithms import amortized_svgd
from stein_jax.runs import configs
from stein_jax.runs import launch
from stein_jax.runs import reporting

CONFIG = ('amortized_svgd_toy', '')
DENSITIES = ('eight_gaussians', 'banana')
FULL = {
  'step.projection': 'full',
  # A full projection regresses towards fixed targets, in ten steps.
  'step.inner_steps': 10,
  'step.epsilon': 0.3,
}
# So far that particles have settled: the network regresses to where SVGD ends.
LONG = {**FULL, 'step.svgd_steps': 100}
LINEAR = {
  'step.projection': 'linear',
  # The linearised projection has solved for the step's size, which Adam would
  # undo.
  'optimizer': dict(name='sgd', learning_rate=0.3),
}
NO_KERNEL = {'step.direction': 'Score'}
FLOW = {'generator': dict(name='Coupling', dim=2, widths=(64,), num_layers=8)}
# A projection's id, to its name and what it changes of the config.
PROJECTIONS = {
  'chain-rule': ('chain rule (eq 10)', {}),
  'linear': ('linearised (eq 9)', LINEAR),
  'full': ('full projection (eq 8)', FULL),
  'long': ('SVGD for 100 steps, then regression', LONG),
  'no-kernel': ('chain rule, no kernel', NO_KERNEL),
  'flow': ('flow, chain rule (eq 10)', FLOW),
  'flow-kl': (
    'flow, KL (eq 11)',
    {**FLOW, **NO_KERNEL, 'step.known_density': True},
  ),
}
# Inside SteinGAN: a projection's id, to its steps for each step of the energy.
# Cheap projections get five steps for one of the others.
FITS = {'chain-rule': 5, 'linear': 1, 'full': 1, 'long': 1, 'no-kernel': 5}
# How ids end of rows that train no network of their own: exact draws, and those of the
# network for all bananas.
EXACT, SHARED = 'exact', 'shared'
SAMPLES = 1000
FAMILY = 8  # bananas in a batch of the network for all
CURVATURES = (-1.0, 0.0, 0.5, 1.0)


def densities_of(plan: scripts.Plan) -> tuple[str, ...]:
  """Returns the names of the plan's densities."""
  # A smoke run sees every projection, for which one density does.
  return DENSITIES[:1] if plan.smoke else DENSITIES


def density_rows(plan: scripts.Plan) -> list[rows.Row]:
  """Returns exact draws and every projection on every density."""
  return [row for name in densities_of(plan) for row in rows_on(name)]


def rows_on(density: str) -> list[rows.Row]:
  """Returns exact draws and every projection on one density."""
  on = {'density': dict(name=density), 'data.density': density}
  return [
    rows.Row(f'{density}-{EXACT}', 'exact draws', CONFIG, on),
    *(
      rows.Row(f'{density}-{key}', name, CONFIG, {**on, **changes})
      for key, (name, changes) in PROJECTIONS.items()
    ),
  ]


def family_rows(plan: scripts.Plan) -> list[rows.Row]:
  """Returns one network for all bananas, and each its own, on some bananas."""
  return [
    rows.Row(
      f'banana{curvature:+g}-{key}',
      f'{curvature:g}: {name}',
      CONFIG,
      {'density': dict(name='banana', curvature=curvature)},
    )
    for curvature in (CURVATURES[:1] if plan.smoke else CURVATURES)
    for key, name in (
      (EXACT, 'exact draws'),
      (SHARED, 'one network for all'),
      ('own', 'its own network'),
    )
  ]


def inside_rows(plan: scripts.Plan) -> list[rows.Row]:
  """Returns the projections inside SteinGAN, on the first density."""
  del plan
  return [
    rows.Row(
      f'steingan-{key}', PROJECTIONS[key][0], CONFIG, PROJECTIONS[key][1]
    )
    for key in FITS
  ]


def density_run(plan: scripts.Plan, row: rows.Row, seed: int):
  """Returns how near draws are to the row's density, and the draws [SAMPLES, 2]."""
  config = rows.get_config(row, seed)
  density = build.build(densities, **config.density)
  if row.id.endswith(EXACT):
    # Another key than that of the draws which all rows are compared with.
    rng = jax.random.fold_in(jax.random.key(7), seed)
    return measured(density, density.sample(rng, SAMPLES), seed)
  if row.id.endswith(SHARED):
    draw = learned_family(plan.steps, seed)
    return measured(density, draw(config.density.curvature), seed)
  # A step of the full projection is many of the optimizer: all rows get as many.
  full = config.step.projection == 'full'
  num_steps = plan.steps // (config.step.inner_steps if full else 1)
  state, _ = rows.train(config, max(1, num_steps), row.name)
  return measured(density, rows.sampled(config, state), seed)


class Bananas:
  """A source of bananas' curvatures, for a network that draws `batch_size` samples.

  A batch has FAMILY curvatures, drawn anew, and each has an equal share of the samples.
  """

  def __init__(self, batch_size: int, seed: int):
    self._batch_size, self._rng = batch_size, np.random.default_rng(seed)

  def __len__(self) -> int:
    return self._batch_size

  def __getitem__(self, indices):
    curvature = self._rng.uniform(-1, 1, (FAMILY, 1)).astype(np.float32)
    # The number of rows is all that the sampler reads of them.
    image = np.zeros((len(indices), 2), np.float32)
    return {'image': image, 'condition': curvature}


@functools.lru_cache(maxsize=1)
def learned_family(num_steps: int, seed: int):
  """Returns a function of a curvature to samples [SAMPLES, 2] of the one network."""
  config = rows.get_config(rows.Row('family', 'all bananas', CONFIG), seed)
  # Each banana gets as many samples a step as a network of its own has.
  config.batch_size *= FAMILY
  init_rng, sample_rng = jax.random.split(jax.random.key(seed))
  generator = generators.create(
    init_rng,
    build.build(generators, **config.generator),
    config.optimizer,
    config.batch_size,
    # Its shape alone is used, to build the network.
    condition=jnp.zeros((config.batch_size, 1)),
  )
  start = amortized_svgd.create(
    lambda x, curvature: densities.banana(curvature[0]).log_density(x),
    generator,
  )
  source = Bananas(config.batch_size, seed)
  state, _ = rows.train(
    config, num_steps, 'all bananas', source=source, state=start
  )
  draw = jax.jit(amortized_svgd.sample, static_argnames='num')
  return lambda curvature: draw(
    state, sample_rng, num=SAMPLES, condition=jnp.full((SAMPLES, 1), curvature)
  )


def inside_run(plan: scripts.Plan, row: rows.Row, seed: int):
  """Returns how near a network is to the data that SteinGAN's energy learns from."""
  config = rows.get_config(row, seed)
  density = build.build(densities, **config.density)
  fits = FITS[row.id.removeprefix('steingan-')]
  draws = learned_steingan(density, config, fits, plan.steps, row.name)
  return measured(density, draws, seed)


def learned_steingan(density, config, fits: int, num_steps: int, label: str):
  """Returns samples [SAMPLES, 2] of a network that follows a learning energy."""
  toy = steingan_toy.get_config()
  keys = jax.random.split(jax.random.key(config.seed), 4)
  energy = learners.create(
    keys[0],
    build.build(energies, **toy.energy),
    toy.energy_optimizer,
    density.sample(keys[0], config.batch_size),
  )
  generator = generators.create(
    keys[1],
    build.build(generators, **config.generator),
    config.optimizer,
    config.batch_size,
  )
  # The row's projection, as it stands alone.
  follow = configs.step(config)

  @functools.partial(jax.jit, donate_argnums=0)
  def step(state, rng):
    # A key for everything that is random, so that no two rows share noise by
    # accident.
    data_rng, sample_rng, *fit_rngs = jax.random.split(rng, 2 + fits)
    # The sampler first, as in WL16's algorithm: the energy then sees what it
    # has become.
    for fit_rng in fit_rngs:
      state, _ = follow(state, None, fit_rng)
    data = density.sample(data_rng, config.batch_size)
    samples = amortized_svgd.sample(state, sample_rng, config.batch_size)
    loss = energies.contrast(state.energy, data, samples)
    return state._replace(energy=learners.descend(state.energy, loss)[0])

  state = amortized_svgd.create(energy, generator)
  for i in tqdm.trange(num_steps, desc=f'SteinGAN, {label}', disable=None):
    state = step(state, jax.random.fold_in(keys[2], i))
  return amortized_svgd.sample(state, keys[3], SAMPLES)


def measured(density, x, seed: int):
  """Returns how near samples [n, 2] are to a density, and the samples."""
  # The same exact draws for all rows of a seed, which so differ in their
  # samples alone.
  other = density.sample(jax.random.key(1000 + seed), SAMPLES)
  # One bandwidth for all rows, or a collapsed set would choose its own.
  kernel = kernels.RBF().at(other)
  score = jax.vmap(jax.grad(density.log_density))
  found = {
    'ksd': stein.ksd(x, score(x), kernel, unbiased=True),
    'energy_distance': metrics.energy_distance(x, other),
    'two_sample_p': metrics.two_sample_test(jax.random.key(seed), x, other)[1],
    'spread': jnp.sum(jnp.var(x, 0)) / jnp.sum(jnp.var(other, 0)),
  }
  return jax.tree.map(float, found), np.asarray(x)


def report(plan: scripts.Plan) -> scripts.Report:
  """Returns the tables and the figures of what is there."""
  table = functools.partial(
    rows.table, plan.results, columns=_COLUMNS, seeds=plan.seeds
  )
  tables, figures = {}, {}
  for name in densities_of(plan):
    exact, *learned = rows_on(name)
    tables[name] = table([exact, *learned])
    cloud = rows.images_of(plan.results, exact)
    found = scripts.row_figures(
      plan,
      learned,
      lambda x, cloud=cloud: reporting.scatter(
        {'exact draws': cloud, 'samples': x}
      ),
    )
    figures |= {
      file: (f'{name}: {title}', png) for file, (title, png) in found.items()
    }
  tables['One network for all bananas'] = table(family_rows(plan))
  inside = [rows_on(DENSITIES[0])[0], *inside_rows(plan)]
  tables[f'Inside SteinGAN, on {DENSITIES[0]}'] = table(inside)
  title = 'Amortised SVGD on known densities'
  return scripts.Report(title, tables, figures)


_COLUMNS = {
  'KSD^2': 'ksd',
  'energy distance': 'energy_distance',
  'two-sample p': 'two_sample_p',
  'spread': 'spread',
  'seconds': 'seconds',
}

SCRIPT = scripts.Script(
  'amortized_svgd',
  steps=scripts.Option(5000, 'Steps of every run.', smoke=20, minimum=1),
  seeds=3,
  parts={
    'densities': scripts.Part(density_rows, density_run),
    'family': scripts.Part(family_rows, density_run),
    'steingan': scripts.Part(inside_rows, inside_run),
  },
  report=report,
)


if __name__ == '__main__':
  launch.run(scripts.main(SCRIPT))
