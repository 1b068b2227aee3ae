"""Ways to learn one energy of images, at an equal number of its evaluations.

Images have half of their contrast and Gaussian noise, so that a chain of unit
temperature can follow their density; without noise it has no scale, and an energy that
learns by chains runs away. The energy is a smooth ConvNet of 28x28 pixels for all, and
generators are alike. Each row is an existing config, changed by flags. A row has two
trials, of the energy's rate, among which the Frechet distance to held-out training
images chooses; their seed does not count. A CNN trained on the same images judges what
each way draws by itself, and what one long Langevin chain from noise makes of its
energy. Beside these stand the test likelihood by annealed importance sampling, if
enough of its chains count to tell it, and how well the energy tells test images from
those of another data set.

Denoising score matching learns one network for several levels of noise, whose lowest
stands for the data. VERA needs a generator without batch norm, and has a shallow one.

Every finished run is a file: an interrupted call continues.

Example:
  python -m experiments.reproduce.image_energies --results=results/image_energies
"""

import functools
import os
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import config_dict
import numpy as np

from experiments.reproduce import budgets
from experiments.reproduce import rows
from experiments.reproduce import scripts
from stein_jax import build
from stein_jax import datasets
from stein_jax import energies
from stein_jax import learners
from stein_jax import metrics
from stein_jax import samplers
from stein_jax.runs import configs
from stein_jax.runs import images
from stein_jax.runs import judges
from stein_jax.runs import launch
from stein_jax.runs import reporting

# The reference keeps exp(-E) normalisable: the network grows linearly at most.
ENERGY = dict(
  name='ConvNet',
  widths=(16, 32, 64),
  strides=(2, 2, 2),
  reference_sigma=1.0,
  activation='swish',
  scale=0.05,
)
TINY = (2, 2, 2)  # widths of a smoke run
BATCH = 64
# Standard deviation of the noise, where images are from -1/2 to 1/2.
NOISE = 0.15
# It forgets the noise in ten steps: 22 evaluations with the update's own two.
CHAIN = dict(name='Langevin', step_size=0.1, num_steps=20, clip=(-1.0, 1.0))
MOST = 2 + CHAIN['num_steps']
COMMON_STEPS = 500  # of the chain that all energies are sampled by
LEVELS = (
  1.0,
  0.7,
  0.5,
  0.35,
  0.25,
  0.18,
  0.12,
  0.08,
  0.05,
)  # added to the noise
AIS = dict(num_chains=100, num_temperatures=2000)
ENOUGH = 10  # effective chains that tell a log Z
# Nats a pixel between data and samples, beyond which a run's alarm says that an energy
# runs away.
RUNAWAY = 10
LOOKS, LOOKED = 5, 100  # times, and samples, at which that is seen
TRIAL_SEED = 1000
RATES = (3e-4, 1e-3)
GENERATOR_RATE = 1e-3

_VAE = dict(name='VAE', base=64, widths=(32, 16))
_DECODER = dict(_VAE, encoder_widths=())
_AUTOENCODER = dict(_VAE, encoder_widths=(16, 16, 16))
# No chain gives its samples the noise of the images.
_NOISY = dict(
  name='DCGAN', base=64, widths=(32,), strides=(2, 2), output_noise=NOISE
)
# Maps of 7x7 pixels and one transposed convolution.
_SHALLOW = dict(
  name='VAE',
  latent_dim=32,
  base=32,
  widths=(),
  strides=(4,),
  kernels=(8,),
  last_norm=False,
  encoder_widths=(),
)
# The bandwidth that does not shrink with the number of samples.
_SVGD = dict(name='SVGD', kernel=dict(bandwidth=dict(scale=2.0, log='none')))
_LANGEVIN = ('langevin_ebm_mnist', 'narrow')
_STEINGAN = ('steingan_mnist', '')
_FROM_GENERATOR = {'step.direction': _SVGD, 'generator': _NOISY}
ROWS = (
  rows.Row(
    'langevin-noise',
    'Langevin EBM from noise',
    _LANGEVIN,
    {'step.chain': CHAIN},
  ),
  rows.Row(
    'langevin-buffer',
    'Langevin EBM, replay buffer',
    _LANGEVIN,
    {'step.chain': CHAIN, 'num_chains': 5000},
  ),
  rows.Row(
    'recovery',
    'Recovery likelihood, noise 0.7',
    ('recovery_likelihood_mnist', 'narrow'),
    {
      'step.noise_scales': (0.7,),
      'step.chain': dict(name='Langevin', step_size=0.3, num_steps=20),
    },
  ),
  *(
    rows.Row(
      f'discrepancy-{noise:g}',
      f'Energy discrepancy, noise {noise:g}',
      ('noise_contrastive_toy', ''),
      {'step.noise_scale': noise, 'sample.chain': dict(CHAIN, num_steps=200)},
    )
    for noise in (0.3, 0.1)
  ),
  rows.Row(
    'denoising',
    f'Denoising score matching, {len(LEVELS)} levels',
    ('score_matching_mnist', ''),
    {
      'step.objective': 'denoising',
      'step.noise_levels': LEVELS,
      'sample.chain': dict(name='Langevin', step_size=0.3, num_steps=25),
    },
  ),
  *(
    rows.Row(
      f'vera-{scale:g}',
      f'VERA, latent {scale:g}',
      ('vera_toy', ''),
      {
        'generator': _SHALLOW,
        'step.noise_scale': NOISE,
        'step.latent_scale': scale,
        'sample.noise_scale': NOISE,
      },
    )
    for scale in (0.1, 0.02)
  ),
  rows.Row(
    'steingan', 'SteinGAN, twice the median', _STEINGAN, _FROM_GENERATOR
  ),
  rows.Row(
    'steingan-persistent',
    'SteinGAN, persistent chains',
    _STEINGAN,
    {**_FROM_GENERATOR, 'step.chain': CHAIN, 'num_chains': 5000},
  ),
  rows.Row(
    'coopnets',
    'CoopNets',
    ('coopnets_mnist', 'narrow'),
    {'step.chain': CHAIN, 'generator': _DECODER},
  ),
  rows.Row(
    'teaching',
    'VAE teaching',
    ('vae_teaching_mnist', 'narrow'),
    {'step.chain': CHAIN, 'generator': _AUTOENCODER},
  ),
  rows.Row('real', 'real images', single=True),
)
# What each is asked to tell from its own.
FOREIGN = {'mnist': 'fashion_mnist', 'fashion_mnist': 'mnist'}


def section(plan: scripts.Plan, split: str, *, foreign: bool = False):
  """Returns the data section of a split in noise, or of that of the foreign set.

  A smoke run has noise alone, of which a split of rows is all of them.
  """
  found = dict(split=split, pixels='symmetric', dequantize=True)
  if plan.smoke:
    split = split.split('[')[0]
    return found | dict(name='synthetic', split=split, num_examples=100)
  prepare(plan)
  return found | dict(name='npz', path=str(_path(plan, foreign)))


def _path(plan, foreign):
  return plan.results / ('foreign_in_noise.npz' if foreign else 'in_noise.npz')


@functools.cache
def prepare(plan: scripts.Plan) -> None:
  """Writes the images of both sets in noise, if they are not there."""
  options = plan.options
  plan.results.mkdir(parents=True, exist_ok=True)
  for foreign, seed in ((False, 0), (True, 1)):
    path = _path(plan, foreign)
    if path.exists():
      continue
    name = FOREIGN[options.dataset] if foreign else options.dataset
    npz = options.foreign_npz if foreign else options.npz
    rng, arrays = np.random.default_rng(seed), {}
    for split in ('train', 'test'):
      found = dict(name=name, split=split)
      found = datasets.from_file(found, npz) if npz else found
      batch = datasets.load(**found)[:]
      arrays[f'{split}_image'] = in_noise(batch['image'], rng)
      arrays[f'{split}_label'] = batch['label']
    half = path.with_suffix('.half.npz')
    np.savez(half, **arrays)
    os.replace(half, path)


def in_noise(images_: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Returns images in [0, 1] as bytes of half the contrast, with noise."""
  noise = rng.standard_normal(images_.shape, np.float32)
  symmetric = images_ - 0.5 + NOISE * noise
  return np.rint(255 * np.clip((symmetric + 1) / 2, 0, 1)).astype(np.uint8)


@functools.cache
def loaded(plan: scripts.Plan, split: str, foreign: bool = False) -> np.ndarray:
  """Returns the images [n, h, w, c] of a split in [-1, 1]."""
  return datasets.load(**section(plan, split, foreign=foreign))[:]['image']


LEARNED, VALID = 'train[:50000]', 'train[50000:]'


def config_of(plan: scripts.Plan, row: rows.Row, seed: int, rate: float):
  """Returns the row's config with the networks, data and length of all."""
  config = rows.get_config(row, seed)
  energy = {**ENERGY, **(dict(widths=TINY) if plan.smoke else {})}
  if levels := config.step.get('noise_levels'):
    energy = dict(name='Levels', energy=energy, lowest=levels[-1])
  config.energy = config_dict.ConfigDict(energy)
  config.data = config_dict.ConfigDict(section(plan, LEARNED))
  config.evaluation.data = config_dict.ConfigDict(section(plan, 'test'))
  config.batch_size = BATCH
  optimizer = 'optimizer'
  if 'generator' in config:
    optimizer = 'energy_optimizer'
    config.generator.shape = (8, 8, 1) if plan.smoke else (28, 28, 1)
    config.generator_optimizer = _adam(GENERATOR_RATE)
  config[optimizer] = _adam(rate)
  # Equal evaluations: who spends more on an update makes fewer of them.
  evaluations = budgets.evaluations(config)
  config.num_steps = max(1, round(plan.steps * MOST / evaluations))
  return config


def _adam(rate):
  return config_dict.ConfigDict(dict(name='adam', b1=0.5, learning_rate=rate))


def trained(plan: scripts.Plan, row: rows.Row):
  """Returns the row's config, with the length of its runs, if it is trained."""
  return None if row.id == 'real' else config_of(plan, row, 0, RATES[0])


@functools.lru_cache(maxsize=1)
def judge(plan: scripts.Plan) -> judges.Judge:
  """Returns the classifier that judges samples, trained by the first who asks."""
  scale = 'smoke' if plan.smoke else ''
  config = rows.get_config(
    rows.Row('judge', 'judge', ('classification_mnist', scale)), 0
  )
  for place, split in ((config, LEARNED), (config.evaluation, 'test')):
    data = section(plan, split) | dict(pixels='unit', dequantize=False)
    place.data = config_dict.ConfigDict(data)
  return rows.trained_judge(plan.results, config, plan.options.judge_steps)[0]


class Run(NamedTuple):
  """A run that is finished.

  Attributes:
    energy: the learner.
    samples: what the way draws by itself [num, ...], in [-1, 1] or about.
    gaps: energy of held-out data less that of such samples, on the way.
    seconds: of training.
  """

  energy: learners.Learner
  samples: np.ndarray
  gaps: list[float]
  seconds: float

  @property
  def is_finite(self) -> bool:
    """Whether energies and samples stayed finite."""
    return bool(
      np.isfinite(self.samples).all() and np.isfinite(self.gaps).all()
    )

  @property
  def is_stable(self) -> bool:
    """Whether they did, and no gap was as large as that of an energy that runs away."""
    limit = RUNAWAY * self.samples[0].size
    return self.is_finite and max(map(abs, self.gaps)) < limit


def train(plan: scripts.Plan, config, label: str) -> Run:
  """Returns a run of a config."""
  sample = configs.sample(config)
  draw = jax.jit(
    lambda state, rng, num: sample(state, rng, num), static_argnums=2
  )
  held_out = loaded(plan, VALID)[:LOOKED]
  rng = jax.random.key(config.seed + 1)

  def look(state):
    """Returns the gap, and how long it took to see it."""
    begin = time.perf_counter()
    energy = density(config, state)
    samples = np.asarray(draw(state, rng, LOOKED))
    gap = values(energy, held_out).mean() - values(energy, samples).mean()
    return float(gap), time.perf_counter() - begin

  # The last look is at the end.
  every = max(1, config.num_steps // LOOKS)
  begin = time.perf_counter()
  state, seen = rows.train(
    config, config.num_steps, label, every=every, look=look
  )
  jax.block_until_ready(state)
  seconds = time.perf_counter() - begin - sum(taken for _, taken in seen)
  samples = np.asarray(draw(state, rng, plan.options.samples))
  gaps = [gap for gap, _ in seen]
  return Run(density(config, state), samples, gaps, seconds)


def density(config, state) -> learners.Learner:
  """Returns the energy of a state as a function of images alone.

  All of one network are one function, which is compiled once.
  """
  module = build.build(energies, **config.energy)
  shape = state.energy.input_shape
  return _learner(module, shape).replace(params=state.energy.params)


@functools.cache
def _learner(module, shape):
  images_ = jnp.zeros((1, *shape))
  unused = dict(name='sgd', learning_rate=1.0)
  return learners.create(jax.random.key(0), module, unused, images_)


@jax.jit
def _values(energy, x):
  return energies.value(energy, energy.params, x)


def values(energy: learners.Learner, x: np.ndarray) -> np.ndarray:
  """Returns E(x) [n] in float64, by blocks that bound memory."""
  blocks = [_values(energy, x[i : i + 1000]) for i in range(0, len(x), 1000)]
  return np.concatenate(blocks).astype(np.float64)


@functools.partial(jax.jit, static_argnames=('num', 'num_steps'))
def common_samples(energy, rng, num, num_steps):
  """Returns samples [num, ...] by the rule that all energies share."""
  start_rng, rng = jax.random.split(rng)
  start = jax.random.uniform(start_rng, (num, *energy.input_shape), minval=-1.0)
  chain = samplers.Langevin(CHAIN['step_size'], num_steps, clip=CHAIN['clip'])
  return energies.run_chain(energy, chain, rng, start)[0]


@functools.partial(jax.jit, static_argnames=('num_chains', 'num_temperatures'))
def _estimated(energy, rng, mean, *, num_chains, num_temperatures):
  options = dict(num_chains=num_chains, num_temperatures=num_temperatures)
  return energies.ais_estimate(energy, rng, base_mean=mean, **options)


def likelihood(
  plan: scripts.Plan, energy: learners.Learner, seed: int
) -> dict[str, float]:
  """Returns the 'nats' of a test image with their error, if they are told, and 'ess'.

  They are of dequantised images in noise.
  """
  mean = jnp.asarray(loaded(plan, LEARNED).mean(0))
  options = AIS | (dict(num_temperatures=20) if plan.smoke else {})
  found = _estimated(energy, jax.random.key(seed + 2), mean, **options)
  found = {name: float(value) for name, value in found.items()}
  told = {'ess': found['log_partition_ess']}
  if told['ess'] >= ENOUGH:
    negative = values(energy, loaded(plan, 'test')).mean()
    told['nats'] = float(-negative - found['log_partition'])
    told['nats_error'] = found['log_partition_error']
  return told


def judged(plan, samples, split) -> dict[str, float]:
  """Returns what the judge says of samples in [-1, 1] beside as many of a split."""
  unit = functools.partial(datasets.to_unit, section=section(plan, split))
  data = loaded(plan, split)[: len(samples)]
  found = judges.judged(judge(plan), unit(samples), unit(data))
  names = ('inception_score', 'frechet_distance', 'recall')
  return {name: found[name] for name in names}


def rates(plan: scripts.Plan) -> tuple[float, ...]:
  """Returns the energy's rates that are tried."""
  return RATES[:1] if plan.smoke else RATES


def table_rows(plan: scripts.Plan) -> list[rows.Row]:
  """Returns the rows; of a smoke run one of each kind, since each is compiled."""
  kinds = ('langevin-buffer', 'denoising', 'vera-0.1', 'real')
  return [row for row in ROWS if not plan.smoke or row.id in kinds]


def chosen(plan: scripts.Plan, row: rows.Row) -> float:
  """Returns the rate whose samples are nearest to held-out images (Frechet)."""
  folder = plan.results / 'trials'
  distances = {}
  for rate in rates(plan):
    trial = row._replace(id=f'{row.id}-{rate:g}')
    rows.finish(
      folder, trial, TRIAL_SEED, functools.partial(_trial, plan, row, rate)
    )
    path = rows.result_path(folder, trial, TRIAL_SEED)
    # A trial that went bad has no distance.
    found = reporting.read_json(path).get('frechet_distance', np.inf)
    distances[rate] = found
  return min(distances, key=distances.get)


def _trial(plan, row, rate, trial, seed):
  run = train(plan, config_of(plan, row, seed, rate), f'{row.name}, {rate:g}')
  del trial
  return judged(plan, run.samples, VALID) if run.is_finite else {}, None


def run_row(plan: scripts.Plan, row: rows.Row, seed: int):
  """Returns what is found of a run, and pictures [10, 10, ...] in [0, 1]."""
  num = plan.options.samples
  if row.id == 'real':
    found = loaded(plan, LEARNED)[:num]
    return judged(plan, found, 'test'), _pictures(plan, found)
  foreign = loaded(plan, 'test', foreign=True)  # missed before hours are spent
  rate = chosen(plan, row)
  config = config_of(plan, row, seed, rate)
  run = train(plan, config, row.name)
  found = {
    'rate': rate,
    'updates': config.num_steps,
    'evaluations': config.num_steps * budgets.evaluations(config),
    'training_seconds': run.seconds,
    'finite': int(run.is_finite),
    'stable': int(run.is_stable),
  }
  if not run.is_finite:
    return found, None
  steps = 2 if plan.smoke else COMMON_STEPS
  common = np.asarray(
    common_samples(run.energy, jax.random.key(seed + 3), num, steps)
  )
  of_common = judged(plan, common, 'test')
  inside, outside = (
    -values(run.energy, x) for x in (loaded(plan, 'test'), foreign)
  )
  found |= {
    'gap': run.gaps[-1],
    **judged(plan, run.samples, 'test'),
    **{f'common_{name}': value for name, value in of_common.items()},
    **likelihood(plan, run.energy, seed),
    'auroc': metrics.auroc(inside, outside),
  }
  return found, _pictures(plan, run.samples, common)


def _pictures(plan, *samples):
  """Returns a hundred images [10, 10, ...] in [0, 1], as many of each."""
  each = 100 // len(samples)
  shown = np.concatenate([x[:each] for x in samples])
  shown = datasets.to_unit(shown, section(plan, LEARNED))
  return shown.reshape(10, 10, *shown.shape[1:])


def _drawing(labels):
  """Returns a function of pictures [10, 10, ...] to a PNG."""
  return lambda x: images.png(images.strips(x), zoom=2, labels=labels)


def report(plan: scripts.Plan) -> scripts.Report:
  """Returns the table and the figures of what is there."""
  *learned, real = ROWS
  own = ['its own samples'] * 5 + ['a long chain from noise'] * 5
  pictures = scripts.row_figures(plan, learned, _drawing(own))
  pictures |= scripts.row_figures(plan, [real], _drawing(['images'] * 10))
  return scripts.Report(
    f'Ways to learn an energy of {plan.options.dataset}',
    {'An equal number of energy evaluations': table(plan)},
    pictures,
  )


def table(plan: scripts.Plan) -> list[dict[str, str]]:
  """Returns a line for each row that has results; counts are of its seeds."""
  lines = []
  for row in ROWS:
    found = rows.results(plan.results, row, plan.seeds)
    for line in rows.table(plan.results, [row], _COLUMNS, plan.seeds):
      if row.id != 'real':
        told = sum('nats' in result for result in found)
        stable = sum(result['stable'] for result in found)
        line['stable'] = f'{stable} of {len(found)}'
        line['log Z told'] = f'{told} of {len(found)}'
        line[_NATS] = line[_NATS] or 'not told'
      lines.append(line)
  return lines


_NATS = 'test nats an image'
_COLUMNS = {
  'inception score': 'inception_score',
  'Frechet distance': 'frechet_distance',
  'recall': 'recall',
  'long chain: inception score': 'common_inception_score',
  'long chain: Frechet distance': 'common_frechet_distance',
  'long chain: recall': 'common_recall',
  _NATS: 'nats',
  'their standard error': 'nats_error',
  'effective chains': 'ess',
  'AUROC of foreign images': 'auroc',
  'data less samples (nats)': 'gap',
  'rate': 'rate',
  'updates': 'updates',
  'evaluations': 'evaluations',
  'seconds of training': 'training_seconds',
}

SCRIPT = scripts.Script(
  'image_energies',
  steps=scripts.Option(
    800,
    f'Updates of the rows whose update takes {MOST} evaluations of the energy; the '
    'others have as many evaluations.',
    smoke=1,
    minimum=1,
  ),
  seeds=3,
  parts={'rows': scripts.Part(table_rows, run_row)},
  report=report,
  trained=trained,
  options={
    'dataset': scripts.Option(
      'mnist', 'What is learned.', choices=tuple(FOREIGN)
    ),
    'npz': scripts.NPZ,
    'foreign_npz': scripts.Option(
      None,
      'Images in place of the other data set, whose test images are foreign.',
    ),
    'judge_steps': scripts.Option(
      2000, 'Steps of the classifier that judges.', smoke=20, minimum=20
    ),
    'samples': scripts.Option(
      1000, 'Samples judged, of each run.', smoke=100, minimum=100
    ),
  },
)


if __name__ == '__main__':
  launch.run(scripts.main(SCRIPT))
