"""Amortised SVGD on two-dimensional densities: every projection of WL16, section 2.

A network learns to draw from a density that is known. Its samples stand beside exact
draws: KSD, energy distance, and the two-sample test between them. The row 'exact
draws' is what a perfect sampler would show. SVGD run on and then regressed to, and a
flow, whose density is known, by SVGD and by KL itself, stand beside the projections.

Example:
  python -m experiments.reproduce.amortized_svgd --results=results/amortized_svgd
"""

import functools
import time

from absl import app
from absl import flags
from absl import logging
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm

from configs import steingan_toy
from experiments.reproduce import rows
from stein_jax import build
from stein_jax import densities
from stein_jax import energies
from stein_jax import generators
from stein_jax import kernels
from stein_jax import learners
from stein_jax import locations
from stein_jax import metrics
from stein_jax import stein
from stein_jax.algorithms import amortized_svgd
from stein_jax.runs import launch
from stein_jax.runs import reporting

_RESULTS = flags.DEFINE_string(
  'results', 'results/amortized_svgd', 'Folder of the results.'
)
_STEPS = flags.DEFINE_integer('steps', 5000, 'Of every run.', lower_bound=1)
_SEEDS = flags.DEFINE_integer('seeds', 3, 'Of every row.', lower_bound=2)
_SMOKE = flags.DEFINE_bool(
  'smoke', False, 'A few steps of two seeds on one density: two minutes.'
)

DENSITIES = ('eight_gaussians', 'banana')
MLP = generators.MLP(latent_dim=4, dim=2, widths=(128, 128))
FLOW = generators.Coupling(dim=2, widths=(64,), num_layers=8)
FULL = {'projection': 'full', 'inner_steps': 10, 'epsilon': 0.3}
# (keywords of the step, optimizer, steps of it in one, network).
ROWS = {
  'chain rule (eq 10)': ({}, optax.adam(1e-3), 1, MLP),
  'linearised (eq 9)': ({'projection': 'linear'}, optax.sgd(0.3), 1, MLP),
  'full projection (eq 8)': (FULL, optax.adam(1e-3), 10, MLP),
  'SVGD for 100 steps, then regression': (
    {**FULL, 'svgd_steps': 100},
    optax.adam(1e-3),
    10,
    MLP,
  ),
  'chain rule, no kernel': ({'kernel': 'none'}, optax.adam(1e-3), 1, MLP),
  'flow, chain rule (eq 10)': ({}, optax.adam(1e-3), 1, FLOW),
  'flow, KL (eq 11)': ({'kernel': 'density'}, optax.adam(1e-3), 1, FLOW),
}
BATCH, SAMPLES = 200, 1000
FAMILY = 8  # bananas a step of the network of all
CURVATURES = (-1.0, 0.0, 0.5, 1.0)
# Steps of the sampler for each of the energy in SteinGAN.
INSIDE = {
  'chain rule (eq 10)': 5,
  'linearised (eq 9)': 1,
  'full projection (eq 8)': 1,
  'SVGD for 100 steps, then regression': 1,
  'chain rule, no kernel': 5,
}


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments: {argv[1:]}')
  launch.set_up()
  results = locations.absolute(_RESULTS.value)
  smoke = _SMOKE.value
  if smoke:  # compiling is nearly all of its time
    jax.config.update('jax_disable_most_optimizations', True)
  steps = 20 if smoke else _STEPS.value
  seeds = 2 if smoke else _SEEDS.value
  settings = dict(steps=steps, seeds=seeds)
  reporting.claim(results, settings)
  tables, sections = {}, []
  for name in DENSITIES[:1] if smoke else DENSITIES:
    density = build.build(densities, name)
    exact = density.sample(jax.random.key(99), SAMPLES)
    clouds = {'exact draws': np.asarray(exact)}
    lines = [measured('exact draws', density, exact, 0.0)]
    for row, (keywords, optimizer, share, network) in ROWS.items():
      begin = time.monotonic()
      learn = functools.partial(
        learned, density, network, keywords, optimizer, steps // share
      )
      draws = [learn(f'{name}, {row}', s) for s in range(seeds)]
      seconds = (time.monotonic() - begin) / len(draws)
      lines.append(measured(row, density, draws, seconds))
      logging.info('%s, %s: %s', name, row, lines[-1])
      clouds[row] = np.asarray(draws[0])
    tables[name] = lines
    for row, cloud in list(clouds.items())[1:]:
      png = reporting.scatter(
        {'exact draws': clouds['exact draws'], 'samples': cloud}
      )
      slug = ''.join(c if c.isalnum() else '_' for c in f'{name} {row}')
      (results / f'{slug}.png').write_bytes(png)
      sections.append((f'{name}: {row}', png))
  tables['One network for all bananas'] = family_lines(
    steps, seeds, CURVATURES[:1] if smoke else CURVATURES
  )
  tables[f'Inside SteinGAN, of {DENSITIES[0]}'] = steingan_lines(steps, seeds)
  title = 'Amortised SVGD on known densities'
  rows.write_report(results, title, tables, sections, settings)


def learned(density, network, keywords, optimizer, steps, label, seed):
  """Returns samples [SAMPLES, 2] of a network that learned the density."""
  init_rng, step_rng, sample_rng = jax.random.split(jax.random.key(seed), 3)
  generator = generators.create(init_rng, network, optimizer, BATCH)
  state = amortized_svgd.create(density.log_density, generator)
  step = jax.jit(functools.partial(amortized_svgd.step, **keywords))
  for i in tqdm.trange(steps, desc=label, disable=None):
    state, _ = step(state, None, jax.random.fold_in(step_rng, i))
  return amortized_svgd.sample(state, sample_rng, SAMPLES)


def family_lines(steps, seeds, curvatures):
  """Returns the lines of one network for all curvatures, and of those of one each."""
  begin = time.monotonic()
  samplers = [learned_family(steps, seed) for seed in range(seeds)]
  seconds = (time.monotonic() - begin) / len(samplers)
  lines = []
  for curvature in curvatures:
    density = densities.banana(curvature)
    exact = density.sample(jax.random.key(99), SAMPLES)
    lines.append(measured(f'{curvature:g}: exact draws', density, exact, 0.0))
    draws = [sampler(curvature) for sampler in samplers]
    name = f'{curvature:g}: one network for all'
    lines.append(measured(name, density, draws, seconds))
    begin = time.monotonic()
    learn = functools.partial(
      learned, density, MLP, {}, optax.adam(1e-3), steps
    )
    name = f'{curvature:g}: its own network'
    draws = [learn(name, seed) for seed in range(seeds)]
    taken = (time.monotonic() - begin) / len(draws)
    lines.append(measured(name, density, draws, taken))
    logging.info('%s', lines[-2:])
  return lines


def learned_family(steps, seed):
  """Returns a function of a curvature to samples [SAMPLES, 2] of the one network."""
  init_rng, step_rng, sample_rng = jax.random.split(jax.random.key(seed), 3)
  num = FAMILY * BATCH
  generator = generators.create(
    init_rng, MLP, optax.adam(1e-3), num, condition=jnp.zeros((num, 1))
  )
  state = amortized_svgd.create(
    lambda x, curvature: densities.banana(curvature[0]).log_density(x),
    generator,
  )

  @jax.jit
  def step(state, rng):
    curvature = jax.random.uniform(rng, (FAMILY, 1), minval=-1, maxval=1)
    batch = {'image': jnp.zeros((num, 2)), 'condition': curvature}
    return amortized_svgd.step(state, batch, rng)[0]

  for i in tqdm.trange(steps, desc='all bananas', disable=None):
    state = step(state, jax.random.fold_in(step_rng, i))
  draw = jax.jit(amortized_svgd.sample, static_argnames='num')
  return lambda curvature: draw(
    state, sample_rng, num=SAMPLES, condition=jnp.full((SAMPLES, 1), curvature)
  )


def steingan_lines(steps, seeds):
  """Returns the lines of SteinGAN on the first density, by each way of fitting."""
  density = build.build(densities, DENSITIES[0])
  exact = density.sample(jax.random.key(99), SAMPLES)
  lines = [measured('exact draws', density, exact, 0.0)]
  for name, fits in INSIDE.items():
    begin = time.monotonic()
    draws = [
      learned_steingan(density, name, fits, steps, s) for s in range(seeds)
    ]
    seconds = (time.monotonic() - begin) / len(draws)
    lines.append(measured(name, density, draws, seconds))
    logging.info('SteinGAN, %s', lines[-1])
  return lines


def learned_steingan(density, name, fits, steps, seed):
  """Returns samples [SAMPLES, 2] of a network that follows a learning energy."""
  config = steingan_toy.get_config()
  keywords, optimizer, _, network = ROWS[name]
  keys = jax.random.split(jax.random.key(seed), 4)
  energy = learners.create(
    keys[0],
    build.build(energies, **config.energy),
    config.energy_optimizer,
    density.sample(keys[0], BATCH),
  )
  generator = generators.create(keys[1], network, optimizer, BATCH)

  @functools.partial(jax.jit, donate_argnums=0)
  def step(state, rng):
    data_rng, sample_rng, *fit_rngs = jax.random.split(rng, 2 + fits)
    for fit_rng in fit_rngs:
      state, _ = amortized_svgd.step(state, None, fit_rng, **keywords)
    samples = amortized_svgd.sample(state, sample_rng, BATCH)
    loss = energies.contrast(
      state.energy, density.sample(data_rng, BATCH), samples
    )
    return state._replace(energy=learners.descend(state.energy, loss)[0])

  state = amortized_svgd.create(energy, generator)
  for i in tqdm.trange(steps, desc=f'SteinGAN, {name}', disable=None):
    state = step(state, jax.random.fold_in(keys[2], i))
  return amortized_svgd.sample(state, keys[3], SAMPLES)


def measured(name, density, draws, seconds):
  """Returns a row of the table; for exact draws, of three further sets of them."""
  if not isinstance(draws, list):
    keys = jax.random.split(jax.random.key(7), 3)
    draws = [density.sample(key, SAMPLES) for key in keys]
  score = jax.vmap(jax.grad(density.log_density))
  found = {'KSD^2': [], 'energy distance': [], 'two-sample p': [], 'spread': []}
  for i, x in enumerate(draws):
    other = density.sample(jax.random.key(1000 + i), SAMPLES)
    # One bandwidth for all rows, or a collapsed set would choose its own.
    kernel = kernels.at_median('rbf', other)
    found['KSD^2'].append(stein.ksd(x, score(x), kernel, unbiased=True))
    found['energy distance'].append(metrics.energy_distance(x, other))
    p = metrics.two_sample_test(jax.random.key(i), x, other)[1]
    found['two-sample p'].append(p)
    found['spread'].append(jnp.sum(jnp.var(x, 0)) / jnp.sum(jnp.var(other, 0)))
  cells = {
    key: ', '.join(f'{float(value):.3g}' for value in values)
    for key, values in found.items()
  }
  return {'sampler': name, **cells, 'seconds a run': f'{seconds:.0f}'}


if __name__ == '__main__':
  app.run(main)
