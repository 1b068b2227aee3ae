"""X21 on real images: what an amortised start is worth to a Langevin EBM.

Every row has as many evaluations of its energy, and all but GANs the same one: so many
steps of Langevin dynamics, of as many chains, in as many updates. Chains start at what
a VAE draws (teaching), at what a plain generator draws (CoopNets), at noise, or where
earlier ones ended; DCGAN and WGAN-GP, which have none, get more updates. Beside them
stands the printed Table 1, with PixelCNN and PixelIQN. Samples are judged by a CNN
trained on the same data here; those of the generator before and after the chain has
revised them. Every finished run is a file: an interrupted call continues.

Example:
  python -m experiments.reproduce.vae_teaching --results=results/fashion \
    --dataset=fashion_mnist --npz=fashion_mnist.npz
"""

import functools
import pathlib
from typing import NamedTuple

from absl import app
from absl import flags
import jax
import jax.numpy as jnp
import numpy as np

from experiments.reproduce import rows
from stein_jax import algorithms
from stein_jax import datasets
from stein_jax import generators
from stein_jax import locations
from stein_jax import metrics
from stein_jax.runs import images
from stein_jax.runs import judges
from stein_jax.runs import launch
from stein_jax.runs import reporting

_RESULTS = flags.DEFINE_string(
  'results', 'results/vae_teaching', 'Folder of the results.'
)
_DATASET = flags.DEFINE_enum(
  'dataset', 'mnist', ['mnist', 'fashion_mnist'], 'What is learned.'
)
_NPZ = flags.DEFINE_string(
  'npz', None, 'Images in place of the data set, as `train` takes them.'
)
_STEPS = flags.DEFINE_integer(
  'steps', 1000, 'Updates of every model.', lower_bound=1
)
_JUDGE_STEPS = flags.DEFINE_integer(
  'judge_steps', 2000, 'Steps of the classifier that judges.', lower_bound=20
)
_SEEDS = flags.DEFINE_integer('seeds', 2, 'Runs of every row.', lower_bound=2)
_SMOKE = flags.DEFINE_bool(
  'smoke', False, 'A few steps of two seeds of every row: some minutes.'
)

NOISE = {'step.noise': True, 'sample.noise': True}
# That of the EBM whose chains start at noise: four times the step, noise, and a cut.
LARGE_STEPS = {
  f'{section}.{field}': value
  for section in ('step', 'sample')
  for field, value in dict(
    step_size=0.008, noise=True, clip=(-1.0, 1.0)
  ).items()
}
ROWS = (
  rows.Row('VAE teaching', ('vae_teaching_mnist', 'narrow')),
  rows.Row('VAE teaching, noise', ('vae_teaching_mnist', 'narrow'), NOISE),
  rows.Row(
    'VAE teaching, printed objective',
    ('vae_teaching_mnist', 'narrow'),
    {'step.kl': 'posterior'},
    single=True,
  ),
  rows.Row(
    'VAE teaching, large steps', ('vae_teaching_mnist', 'narrow'), LARGE_STEPS
  ),
  rows.Row('CoopNets', ('coopnets_mnist', 'narrow')),
  rows.Row('CoopNets, large steps', ('coopnets_mnist', 'narrow'), LARGE_STEPS),
  rows.Row('Langevin EBM from noise', ('langevin_ebm_mnist', 'narrow')),
  rows.Row(
    'Langevin EBM, replay buffer',
    ('langevin_ebm_mnist', 'narrow'),
    {'num_chains': 5000},
  ),
  rows.Row('DCGAN', ('gan_mnist', ''), {'batch_size': 64}),
  rows.Row('WGAN-GP', ('gan_mnist', 'wgan'), {'batch_size': 64}),
  rows.Row('real images', ('vae_teaching_mnist', 'narrow'), single=True),
)
# An update of the others evaluates the energy in 20 Langevin steps, at data and at
# samples; of a GAN at data, at samples and for the generator, or between: 22 / 3.
GAN_UPDATES = 7
# Of CIFAR-10, by Inception: score and Frechet distance.
PRINTED = {
  'PixelCNN': ('4.60', '65.93'),
  'PixelIQN': ('5.29', '49.46'),
  'Langevin EBM (Du & Mordatch)': ('6.02', '40.58'),
  'DCGAN': ('6.40', '37.11'),
  'WGAN-GP': ('6.50', '36.4'),
  'CoopNets': ('6.55', '36.4'),
  'VAE teaching': ('6.65', '36.2'),
}

JUDGE = rows.Row('judge', ('classification_mnist', ''))


class Plan(NamedTuple):
  """What one call is to do."""

  results: pathlib.Path
  dataset: str
  npz: str | None
  steps: int
  judge_steps: int
  seeds: int
  samples: int  # judged, of each run
  smoke: bool


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments: {argv[1:]}')
  launch.set_up()
  smoke = _SMOKE.value
  if smoke:  # compiling is nearly all of its time
    jax.config.update('jax_disable_most_optimizations', True)
  plan = Plan(
    locations.absolute(_RESULTS.value),
    _DATASET.value,
    _NPZ.value,
    steps=4 if smoke else _STEPS.value,
    judge_steps=20 if smoke else _JUDGE_STEPS.value,
    seeds=2 if smoke else _SEEDS.value,
    samples=200 if smoke else 5000,
    smoke=smoke,
  )
  settings = rows.claim(plan)
  config = rows.on_data(rows.get_config(JUDGE, 0), plan.dataset, plan.npz)
  judge, _ = rows.trained_judge(plan.results, config, plan.judge_steps)
  run = functools.partial(run_row, plan, judge)
  rows.run_all(plan.results, ROWS, plan.seeds, run)
  report(plan, settings)


def run_row(plan: Plan, judge, row: rows.Row, seed: int):
  """Returns what is found of a row's samples, and pictures [k, t, ...] in [0, 1]."""
  config = rows.on_data(rows.get_config(row, seed), plan.dataset, plan.npz)
  data = datasets.to_unit(
    datasets.load(**config.evaluation.data)[:]['image'], config.data
  )
  judged = functools.partial(_judged, judge, data[: plan.samples])
  if row.name == 'real images':
    training = datasets.load(**config.data)[: plan.samples]['image']
    training = datasets.to_unit(training, config.data)
    return judged(training), training[:100].reshape(10, 10, *data.shape[1:])
  seen = []
  chains = hasattr(algorithms.get(config.algorithm), 'revise')

  def look(state, _):
    if not chains:
      return
    start, end = (
      drawn(config, state, 100, num_steps=num)
      for num in (0, config.sample.num_steps)
    )
    gap = np.linalg.norm((end - start).reshape(100, -1), axis=1).mean()
    seen.append([int(state.step), float(gap)])

  updates = plan.steps * (GAN_UPDATES if config.algorithm == 'gan' else 1)
  state, _ = rows.train(
    config,
    updates,
    row.name,
    source=datasets.load(**config.data),
    every=max(1, updates // 10),
    look=look,
  )
  unit = functools.partial(datasets.to_unit, section=config.data)
  samples = unit(drawn(config, state, plan.samples))
  found = judged(samples)
  pictures = samples[:100].reshape(10, 10, *samples.shape[1:])
  if chains:
    start = unit(drawn(config, state, plan.samples, num_steps=0))
    found |= {f'start_{key}': value for key, value in judged(start).items()}
    pictures = np.concatenate([pictures, unit(between(config, state))])
  if seen:
    found |= {'gap': seen[-1][1], 'gaps': seen}
  return found, pictures


def _judged(judge, data, samples):
  """Returns what of a judge's findings the table shows."""
  found = judges.judged(judge, samples, data)
  names = ('inception_score', 'frechet_distance', 'recall', 'coverage')
  pairwise = metrics.pairwise_distance(samples[:1000])
  return {**{name: found[name] for name in names}, 'pairwise': pairwise}


def drawn(config, state, num, **options) -> np.ndarray:
  """Returns samples [num, ...] of a state."""
  sample = algorithms.get(config.algorithm).sample
  options = {**config.sample, **options}
  draw = jax.jit(lambda state, rng: sample(state, rng, num, **options))
  return np.asarray(draw(state, jax.random.key(config.seed + 1)))


def between(config, state) -> np.ndarray:
  """Returns images [8, 10, ...] between latents, four pairs decoded, then revised."""
  rng = jax.random.key(config.seed + 2)
  paths = generators.interpolate(
    state.generator, rng, num_pairs=4, num_points=10
  )
  revise = algorithms.get(config.algorithm).revise
  ends = revise(
    state, rng, paths.reshape(40, *paths.shape[2:]), **config.sample
  )
  return np.asarray(jnp.concatenate([paths, ends.reshape(paths.shape)]))


def report(plan: Plan, settings) -> None:
  """Writes table.md, pictures and report.html of what is there; prints the table."""
  lines = rows.table(plan.results, ROWS, _COLUMNS, plan.seeds)
  sections = _gap_section(plan)
  for row in ROWS:
    path = rows.result_path(plan.results, row, 0).with_suffix('.npy')
    if not path.exists():
      continue
    pictures = np.load(path, allow_pickle=False)
    png = images.png(images.strips(pictures), zoom=2)
    path.with_suffix('.png').write_bytes(png)
    title = row.name
    if len(pictures) > 10:
      title += '; below, between latents: four lines decoded, then revised'
    sections.append((title, png))
  rows.write_report(
    plan.results,
    f'Amortised starts of a Langevin EBM on {plan.dataset}',
    {
      'An equal number of energy evaluations': lines,
      'Printed, of CIFAR-10': rows.printed(_PRINTED_COLUMNS, PRINTED),
    },
    sections,
    settings,
  )


def _gap_section(plan):
  """Returns the plot of how far chains take the generator's samples, over training."""
  series = {}
  for row in ROWS:
    found = rows.results(plan.results, row, plan.seeds)
    gaps = np.array([r['gaps'] for r in found if 'gaps' in r])
    if len(gaps):  # [seeds, looks, step and gap]
      series[row.name] = (gaps[0, :, 0], gaps[:, :, 1].T)
  if not series:
    return []
  png = reporting.curves(
    series, xlabel='update', ylabel='distance from start to end of a chain'
  )
  (plan.results / 'gap.png').write_bytes(png)
  return [('How far chains take the samples of the generator', png)]


_COLUMNS = {
  'inception score': 'inception_score',
  'Frechet distance': 'frechet_distance',
  'recall': 'recall',
  'coverage': 'coverage',
  'pairwise distance': 'pairwise',
  'generator alone: inception score': 'start_inception_score',
  'generator alone: Frechet distance': 'start_frechet_distance',
  'start to end of a chain': 'gap',
  'seconds': 'seconds',
}
_PRINTED_COLUMNS = ('inception score', 'Frechet distance')


if __name__ == '__main__':
  app.run(main)
