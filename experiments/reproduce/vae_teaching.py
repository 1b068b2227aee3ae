r"""X21 on real images: what an amortised start is worth to a Langevin EBM.

Every row evaluates its energy equally often, and all but GANs have the same energy:
they have as many updates, with as many chains of as many Langevin steps. Chains start
at what a VAE draws (teaching), at what a plain generator draws (CoopNets), at noise, or
where earlier ones ended. DCGAN and WGAN-GP have no chains and get more updates. Beside
them stands the printed Table 1, with PixelCNN and PixelIQN. A CNN trained on the same
data here judges the samples, and those of a generator also before the chain has revised
them. Every finished run is a file: an interrupted call continues.

Example:
  python -m experiments.reproduce.vae_teaching --results=results/fashion \
    --dataset=fashion_mnist --npz=fashion_mnist.npz
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.reproduce import rows
from experiments.reproduce import scripts
from stein_jax import algorithms
from stein_jax import build
from stein_jax import datasets
from stein_jax import generators
from stein_jax import metrics
from stein_jax.runs import configs
from stein_jax.runs import images
from stein_jax.runs import judges
from stein_jax.runs import launch
from stein_jax.runs import reporting

TEACHING, COOPNETS, LANGEVIN = (
  (f'{name}_mnist', 'narrow')
  for name in ('vae_teaching', 'coopnets', 'langevin_ebm')
)
# X21's text has noise in the chain, its code has none: both are rows.
NOISE = {'step.chain.noise': True}  # samples are drawn by the chain that trains
# The chain of the EBM that starts at noise: four times the step, noise, and a cut.
LARGE_STEPS = {
  'step.chain.step_size': 0.008,
  'step.chain.noise': True,
  'step.chain.clip': (-1.0, 1.0),
}
ROWS = (
  rows.Row('teaching', 'VAE teaching', TEACHING),
  rows.Row('teaching-noise', 'VAE teaching, noise', TEACHING, NOISE),
  rows.Row(
    'teaching-printed',
    'VAE teaching, printed objective',
    TEACHING,
    {'step.kl': 'posterior'},
    single=True,
  ),
  rows.Row(
    'teaching-large', 'VAE teaching, large steps', TEACHING, LARGE_STEPS
  ),
  rows.Row('coopnets', 'CoopNets', COOPNETS),
  rows.Row('coopnets-large', 'CoopNets, large steps', COOPNETS, LARGE_STEPS),
  rows.Row('langevin-noise', 'Langevin EBM from noise', LANGEVIN),
  rows.Row(
    'langevin-buffer',
    'Langevin EBM, replay buffer',
    LANGEVIN,
    {'num_chains': 5000},
  ),
  rows.Row('dcgan', 'DCGAN', ('gan_mnist', ''), {'batch_size': 64}),
  rows.Row('wgan-gp', 'WGAN-GP', ('gan_mnist', 'wgan'), {'batch_size': 64}),
  rows.Row('real', 'real images', TEACHING, single=True),
)
JUDGE = rows.Row('judge', 'judge', ('classification_mnist', ''))
# An update of the others evaluates the energy in 20 Langevin steps, at data and at
# samples; of a GAN at data, at samples and for the generator, or between: 22 / 3.
GAN_UPDATES = 7
# Inception scores and Frechet distances that the paper prints of CIFAR-10.
PRINTED = {
  'PixelCNN': ('4.60', '65.93'),
  'PixelIQN': ('5.29', '49.46'),
  'Langevin EBM (Du & Mordatch)': ('6.02', '40.58'),
  'DCGAN': ('6.40', '37.11'),
  'WGAN-GP': ('6.50', '36.4'),
  'CoopNets': ('6.55', '36.4'),
  'VAE teaching': ('6.65', '36.2'),
}


def config_of(plan: scripts.Plan, row: rows.Row, seed: int):
  """Returns the row's config on the plan's data."""
  # One data set for all rows, whatever their configs have.
  config = rows.get_config(row, seed)
  return rows.on_data(config, plan.options.dataset, plan.options.npz)


def trained(plan: scripts.Plan, row: rows.Row):
  """Returns the row's config, with the length of its runs, if it is trained."""
  if row.id == 'real':
    return None
  config = config_of(plan, row, 0)
  gan = config.algorithm == 'gan'
  config.num_steps = plan.steps * (GAN_UPDATES if gan else 1)
  return config


@functools.lru_cache(maxsize=1)
def judge(plan: scripts.Plan) -> judges.Judge:
  """Returns the classifier that judges samples, trained by the first who asks."""
  config = config_of(plan, JUDGE, 0)
  return rows.trained_judge(plan.results, config, plan.options.judge_steps)[0]


def run_row(plan: scripts.Plan, row: rows.Row, seed: int):
  """Returns what is found of a row's samples, and pictures [k, t, ...] in [0, 1]."""
  config = config_of(plan, row, seed)
  unit = functools.partial(datasets.to_unit, section=config.data)
  num = plan.options.samples
  data = unit(datasets.load(**config.evaluation.data)[:]['image'])
  judged = functools.partial(_judged, judge(plan), data[:num])
  in_rows = lambda x: x[:100].reshape(10, 10, *data.shape[1:])
  # What the best model could reach by this judge.
  if row.id == 'real':
    training = unit(datasets.load(**config.data)[:num]['image'])
    return judged(training), in_rows(training)
  chains = hasattr(algorithms.get(config.algorithm), 'revise')

  def look(state):
    """Returns the step, and how far chains take the generator's samples."""
    # The distance that a chain still travels says how well the generator has
    # caught up.
    start, end = (
      drawn(config, state, 100, revised=revised) for revised in (False, True)
    )
    gap = np.linalg.norm((end - start).reshape(100, -1), axis=1).mean()
    return [int(state.step), float(gap)]

  updates = trained(plan, row).num_steps
  state, seen = rows.train(
    config,
    updates,
    row.name,
    # Ten looks make a curve and cost little beside the training.
    every=max(1, updates // 10),
    look=look if chains else None,
  )
  samples = unit(drawn(config, state, num))
  found, pictures = judged(samples), in_rows(samples)
  if chains:
    start = unit(drawn(config, state, num, revised=False))
    # What the generator alone is worth, without its chain.
    found |= {f'start_{key}': value for key, value in judged(start).items()}
    found |= {'gap': seen[-1][1], 'gaps': seen}
    pictures = np.concatenate([pictures, unit(between(config, state))])
  return found, pictures


def _judged(judge, data, samples):
  """Returns those of a judge's findings that the table shows."""
  found = judges.judged(judge, samples, data)
  names = ('inception_score', 'frechet_distance', 'recall', 'coverage')
  pairwise = metrics.pairwise_distance(samples[:1000])
  return {**{name: found[name] for name in names}, 'pairwise': pairwise}


def drawn(config, state, num, *, revised: bool = True) -> np.ndarray:
  """Returns samples [num, ...] of a state, or of its generator where not revised."""
  sample = configs.sample(config)
  if not revised:
    # A chain without steps leaves samples as the generator drew them.
    chain = sample.keywords['chain'].replace(num_steps=0)
    sample = functools.partial(sample, chain=chain)
  draw = jax.jit(lambda state, rng: sample(state, rng, num))
  return np.asarray(draw(state, jax.random.key(config.seed + 1)))


def between(config, state) -> np.ndarray:
  """Returns images [8, 10, ...] on lines between latents: decoded, then revised."""
  rng = jax.random.key(config.seed + 2)
  paths = generators.interpolate(
    state.generator, rng, num_pairs=4, num_points=10
  )
  revise = algorithms.get(config.algorithm).revise
  options = build.values(revise, config.sample)
  # Revised in one batch, as an energy that mixes its batch would be in
  # training.
  ends = revise(state, rng, paths.reshape(40, *paths.shape[2:]), **options)
  return np.asarray(jnp.concatenate([paths, ends.reshape(paths.shape)]))


def _samples(pictures):
  """Returns a PNG of a row's samples and, where it has them, lines between latents."""
  labels = ['samples'] * 10
  if len(pictures) > 10:
    labels += ['between latents, decoded'] * 4 + ['the same, revised'] * 4
  return images.png(images.strips(pictures), zoom=2, labels=labels)


def report(plan: scripts.Plan) -> scripts.Report:
  """Returns the table and the figures of what is there."""
  pictures = scripts.row_figures(plan, ROWS, _samples)
  return scripts.Report(
    f'Amortised starts of a Langevin EBM on {plan.options.dataset}',
    {
      'An equal number of energy evaluations': rows.table(
        plan.results, ROWS, _COLUMNS, plan.seeds
      ),
      'Printed, of CIFAR-10': rows.printed(_PRINTED_COLUMNS, PRINTED),
    },
    _gap_figure(plan) | pictures,
  )


def _gap_figure(plan):
  """Returns the figure of how far chains take samples over training, if any."""
  series = {}
  for row in ROWS:
    found = rows.results(plan.results, row, plan.seeds)
    gaps = np.array([r['gaps'] for r in found if 'gaps' in r])
    if len(gaps):  # [seeds, looks, step and gap]
      series[row.name] = (gaps[0, :, 0], gaps[:, :, 1].T)
  if not series:
    return {}
  png = reporting.curves(
    series, xlabel='update', ylabel='distance from start to end of a chain'
  )
  return {'gap': ('How far chains take the samples of the generator', png)}


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


SCRIPT = scripts.Script(
  'vae_teaching',
  steps=scripts.Option(
    1000, 'Updates of every model; a GAN has more.', smoke=4, minimum=1
  ),
  seeds=2,
  parts={'rows': scripts.Part(lambda plan: ROWS, run_row)},
  report=report,
  trained=trained,
  options={
    'dataset': scripts.Option(
      'mnist', 'What is learned.', choices=('mnist', 'fashion_mnist')
    ),
    'npz': scripts.NPZ,
    'judge_steps': scripts.Option(
      2000, 'Steps of the classifier that judges.', smoke=20, minimum=20
    ),
    'samples': scripts.Option(
      5000, 'Samples judged, of each run.', smoke=200, minimum=100
    ),
  },
)


if __name__ == '__main__':
  launch.run(scripts.main(SCRIPT))
