"""LW17 Figure 1(b)-(d) on MNIST, and the repulsions of the joint model of WL16.

An RBM and its sampler, from SteinGAN (alpha = 0) to SteinCD (alpha = 1) and without
kernel, in the paper's setting and in one that can match its model; a fresh sampler on
SteinCD's finished energy; and how far the cheap repulsions are from the exact one while
the conditional autoencoder energy is trained, whose samples are judged by
`experiments.reproduce.cifar10 --dataset=mnist`. Likelihoods are exact, in float64, at
the last step; samples are judged by a CNN trained here. Every finished run is a file:
an interrupted call continues.

Part 'choices' takes the centred setting apart: another kernel or none, other ways to
keep samples apart, and the paper's choices put back one by one, beside what the exact
negative phase reaches in as many steps. There the samples' spread stands beside the
model's own. Part 'deep' asks the same of the conditional autoencoder energy: the exact
repulsion, none, and noise on the output.

Example:
  python -m experiments.reproduce.steingan --results=results/steingan
"""

import functools
import pathlib
from typing import NamedTuple

from absl import app
from absl import flags
import jax
import numpy as np
import tqdm

from experiments.reproduce import likelihood
from experiments.reproduce import rows
from stein_jax import build
from stein_jax import datasets
from stein_jax import energies
from stein_jax import generators
from stein_jax import kernels
from stein_jax import learners
from stein_jax import locations
from stein_jax import metrics
from stein_jax import stein
from stein_jax.algorithms import amortized_svgd
from stein_jax.runs import images
from stein_jax.runs import judges
from stein_jax.runs import launch
from stein_jax.runs import reporting

_RESULTS = flags.DEFINE_string(
  'results', 'results/steingan', 'Folder of the results.'
)
_STEPS = flags.DEFINE_integer(
  'steps', 6000, 'Steps of every RBM run.', lower_bound=1
)
_JOINT_STEPS = flags.DEFINE_integer(
  'joint_steps', 3000, 'Steps of every conditional run.', lower_bound=4
)
_CHOICE_STEPS = flags.DEFINE_integer(
  'choice_steps', 6000, "Steps of every run of 'choices'.", lower_bound=1
)
_SEEDS = flags.DEFINE_integer('seeds', 3, 'Runs of every row.', lower_bound=2)
_PARTS = flags.DEFINE_multi_enum(
  'part',
  ['figure', 'frozen', 'choices', 'deep'],
  ['figure', 'frozen', 'choices', 'deep'],
  'What to run; the report shows what has been run.',
)
_SMOKE = flags.DEFINE_bool(
  'smoke', False, 'A few steps of two seeds of every row: five minutes.'
)

ALPHAS = (0.0, 0.1, 0.25, 0.5, 1.0)
# The paper's rate for both, 3e-4, lets the energy run away from the sampler.
PAPER = {
  'energy_optimizer.learning_rate': 1e-5,
  'generator_optimizer.learning_rate': 1e-3,
  'generator.width': 8,
}


class Plan(NamedTuple):
  """What one call is to do."""

  results: pathlib.Path
  steps: int
  joint_steps: int
  choice_steps: int
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
    steps=20 if smoke else _STEPS.value,
    joint_steps=4 if smoke else _JOINT_STEPS.value,
    choice_steps=4 if smoke else _CHOICE_STEPS.value,
    seeds=2 if smoke else _SEEDS.value,
    samples=200 if smoke else 10_000,
    smoke=smoke,
  )
  settings = rows.claim(plan)

  @functools.cache
  def judge():
    config = rows.get_config(JUDGE, 0)
    num_steps = 20 if smoke else config.num_steps
    return rows.trained_judge(plan.results, config, num_steps)[0]

  parts = {
    'figure': (figure_rows(), rbm_run),
    'frozen': ([FROZEN], frozen_run),
    'choices': (choice_rows(), choice_run),
    'deep': (deep_rows(), joint_run),
  }
  for part in _PARTS.value:
    part_rows, run = parts[part]
    run = functools.partial(run, plan, judge)
    rows.run_all(plan.results, part_rows, plan.seeds, run)
  report(plan, settings)


def figure_rows() -> list[rows.Row]:
  """Returns the rows of Figure 1(b)-(d), in the paper's setting and centred."""
  found = []
  for setting, scale, changes in (
    ('paper', '', PAPER),
    ('centred', 'centred', {}),
  ):
    config = ('steingan_mnist', scale)
    found += [
      rows.Row(f'{setting}, alpha {a:g}', config, {**changes, 'step.alpha': a})
      for a in ALPHAS
    ]
    no_kernel = {**changes, 'step.kernel': 'none'}
    found.append(rows.Row(f'{setting}, no kernel', config, no_kernel))
  return found


FROZEN = rows.Row(
  'fresh sampler on a finished SteinCD energy', ('steingan_mnist', ''), PAPER
)
JUDGE = rows.Row('judge', ('classification_mnist', ''))


def deep_rows() -> list[rows.Row]:
  """Returns the conditional model and ways to spread its samples."""
  choices = {
    'swapped repulsion, as it is': {},
    'exact repulsion': {'step.repulsion': 'exact'},
    'no kernel': {'step.kernel': 'none'},
    'output noise 0.1': {'generator.output_noise': 0.1},
    'output noise 0.3': {'generator.output_noise': 0.3},
    'exact repulsion, output noise 0.3': {
      'step.repulsion': 'exact',
      'generator.output_noise': 0.3,
    },
  }
  config = ('steingan_mnist_joint', 'narrow')
  return [
    rows.Row(f'conditional, {name}', config, changes)
    for name, changes in choices.items()
  ]


def choice_rows() -> list[rows.Row]:
  """Returns the centred setting with one choice at a time made otherwise."""
  apart = {'step.kernel': 'none', 'step.diversity': 'pulling_away'}
  entropy = {
    'step.kernel': 'none',
    'step.diversity': 'batch_norm_entropy',
    'generator.norm_gain': True,
  }
  choices = {
    'as it is': {},
    'IMQ kernel': {'step.kernel': 'imq'},
    'kernel on pixels': {'step.kernel_space': 'pixels'},
    'kernel on the first features': {'step.kernel_space': 'first_features'},
    'bandwidth a quarter': {'step.bandwidth_scale': 1.0},
    'bandwidth four times': {'step.bandwidth_scale': 16.0},
    'fixed bandwidth 1': {'step.bandwidth': 1.0},
    'no kernel': {'step.kernel': 'none'},
    'no kernel, pulling away': apart,
    'no kernel, pulling away, weight 10': {
      **apart,
      'step.diversity_weight': 10.0,
    },
    'no kernel, entropy of norms': entropy,
    'no kernel, entropy of norms, weight 0.1': {
      **entropy,
      'step.diversity_weight': 0.1,
    },
    'gamma 0.7': {'step.negative_weight': 0.3},
    'RBM not centred': {'energy.centered': False},
    'sigmoid output': {'generator.output': 'sigmoid'},
    'no output noise': {'generator.output_noise': 0.0},
    'no output noise, kernel on pixels': {
      'generator.output_noise': 0.0,
      'step.kernel_space': 'pixels',
    },
  }
  config = ('steingan_mnist', 'centred')
  return [
    rows.Row('exact negatives', ('maximum_likelihood_mnist', '')),
    *(
      rows.Row(f'choice: {name}', config, changes)
      for name, changes in choices.items()
    ),
  ]


def rbm_run(plan: Plan, judge, row: rows.Row, seed: int):
  """Returns the result and samples of one run of an RBM with its sampler."""
  config = rows.get_config(row, seed)
  state, result = learned_rbm(plan, config, plan.steps, row.name)
  found, samples = sampled(plan, judge, config, state.generator)
  return {**result, **found}, samples


def choice_run(plan: Plan, judge, row: rows.Row, seed: int):
  """Returns the result of one choice, how its samples spread, and 200 of them."""
  config = rows.get_config(row, seed)
  centred = rows.get_config(choice_rows()[1], seed)
  if config.algorithm == 'maximum_likelihood':
    config.energy, config.optimizer = centred.energy, centred.energy_optimizer
  section = config.get('energy_optimizer', config.get('optimizer'))
  section.learning_rate.transition_steps = plan.choice_steps
  state, result = learned_rbm(plan, config, plan.choice_steps, row.name)
  if config.algorithm == 'maximum_likelihood':
    return result, np.zeros((0,))
  found, samples = sampled(plan, judge, config, state.generator)
  spread = beside_model(state, min(plan.samples, 1000), seed)
  return {**result, **found, **spread}, samples


def learned_rbm(plan: Plan, config, num_steps: int, label: str):
  """Returns the state after training, and exact likelihoods on the way."""
  data = likelihood_data(plan.smoke)
  module = build.build(energies, **config.energy)

  def look(state, _):
    params = jax.tree.map(lambda leaf: leaf[None], state.energy.params)
    valid, test = likelihood.exact_log_likelihoods(module, params, data)
    return float(valid[0]), float(test[0])

  state, seen = rows.train(
    config, num_steps, label, every=num_steps // 4, look=look
  )
  return state, dict(
    valid=seen[-1][0], test=seen[-1][1], curve=[test for _, test in seen]
  )


def beside_model(state, num, seed) -> dict[str, float]:
  """Returns the samples' variance along B'x over the model's, and what else it has.

  Both with their noise: 1 is right, less a collapse. The model's own distance is of
  its noise-free means, by enumeration.
  """
  keys = jax.random.split(jax.random.key(1000 + seed), 3)
  ask = lambda key, method: learners.call(
    state.energy, state.energy.params, key, num, method=method
  )
  weight = state.energy.params['params']['weight']
  spread = lambda x: np.sum(np.var(x.reshape(num, -1) @ weight, 0))
  samples = generators.sample(state.generator, keys[0], num)
  return {
    'variance_ratio': float(spread(samples) / spread(ask(keys[1], 'sample'))),
    'model/pairwise_distance': metrics.pairwise_distance(ask(keys[2], 'means')),
  }


def frozen_run(plan: Plan, judge, row: rows.Row, seed: int):
  """Returns the result and samples of a fresh sampler on a finished energy."""
  config = rows.get_config(row, seed)
  stein_cd = rows.get_config(rows.Row('', ('stein_cd_mnist', ''), {}), seed)
  steps = plan.steps if plan.smoke else stein_cd.num_steps
  energy, _ = rows.train(stein_cd, steps, 'SteinCD')
  generator = generators.create(
    jax.random.key(1000 + seed),
    build.build(generators, **config.generator),
    config.generator_optimizer,
    config.batch_size,
  )
  state = amortized_svgd.create(energy.energy, generator)
  step = jax.jit(amortized_svgd.step, donate_argnums=0)
  for i in tqdm.trange(plan.steps, desc=row.name, disable=None):
    state, _ = step(state, None, jax.random.fold_in(jax.random.key(seed), i))
  return sampled(plan, judge, config, state.generator)


def joint_run(plan: Plan, judge, row: rows.Row, seed: int):
  """Returns the result and samples of the conditional model.

  With how far the cheap repulsions are from the exact one, at four moments of
  training: the cosine of the angle and the ratio of norms.
  """
  config = rows.lasting(rows.get_config(row, seed), plan.joint_steps)
  state, seen = rows.train(
    config,
    plan.joint_steps,
    row.name,
    every=plan.joint_steps // 4,
    look=functools.partial(repulsions, num=8 if plan.smoke else 100),
  )
  found, samples = sampled(plan, judge, config, state.generator)
  return {**found, 'repulsions': seen}, samples


def sampled(plan: Plan, judge, config, generator):
  """Returns what is found of a sampler, and 200 of its samples, without noise."""
  data = datasets.load(**config.evaluation.data)[:]['image']
  samples = rows.drawn(generator, plan.samples, config.seed)
  classes = generator.num_classes
  labels = np.arange(len(samples)) % classes if classes else None
  found = judges.judged(
    judge(), np.clip(samples, 0, 1), data[: plan.samples], labels=labels
  )
  found |= metrics.diversity(samples[:1000], data[:1000])
  return found, samples[:200]


@jax.jit
def _repulsions(state, data, rng):
  """Returns (cosine, norm ratio) of 'swapped' and 'nearest' to 'exact'."""
  labels = np.arange(len(data)) % 10
  samples = generators.generate(
    state.generator, state.generator.params, rng, len(data), label=labels
  )

  def features(x):
    return energies.pair(
      state.energy, state.energy.params, data, x, method='features'
    )[1]

  kernel = kernels.at_median('rbf', features(samples), scale=0.25)
  exact, *others = (
    stein.feature_repulsion(samples, features, kernel, form=form).ravel()
    for form in ('exact', 'swapped', 'nearest')
  )
  norm = lambda v: (v @ v) ** 0.5
  return [
    (other @ exact / (norm(other) * norm(exact)), norm(other) / norm(exact))
    for other in others
  ]


def repulsions(state, batch, num):
  """Returns the step, and how far each cheap repulsion is from the exact one."""
  found = _repulsions(state, batch['image'][:num], jax.random.key(0))
  return [int(state.step), jax.tree.map(float, found)]


@functools.lru_cache(maxsize=1)
def likelihood_data(smoke: bool) -> likelihood.Images:
  """Returns MNIST's validation and test images in float64."""
  flat = lambda source: source[:]['image'].reshape(len(source), -1)
  valid = flat(datasets.load('mnist', split='train[50000:]'))
  test = flat(datasets.load('mnist', split='test'))
  limit = 1000 if smoke else None
  with jax.enable_x64(True):
    double = lambda x: jax.numpy.asarray(x[:limit], jax.numpy.float64)
    return likelihood.Images(None, double(valid), double(test))


def report(plan: Plan, settings) -> None:
  """Writes table.md, the figures and report.html of what is there; prints tables."""
  tables = {
    'RBM and sampler': rows.table(
      plan.results, [*figure_rows(), FROZEN], _RBM_COLUMNS, plan.seeds
    ),
    'The centred setting, choice by choice': rows.table(
      plan.results, choice_rows(), _CHOICE_COLUMNS, plan.seeds
    ),
    'The conditional model': rows.table(
      plan.results, deep_rows(), _DEEP_COLUMNS, plan.seeds
    ),
    'Cheap repulsions beside the exact one': _repulsion_table(plan),
  }
  sections = []
  for key, label in (
    ('test', 'test log likelihood (nats)'),
    ('inception_score', 'inception score'),
  ):
    series = _by_alpha(plan, key)
    if series:
      png = reporting.curves(series, xlabel='alpha', ylabel=label)
      (plan.results / f'{key}.png').write_bytes(png)
      sections.append((f'{label} against alpha', png))
  shown = [*figure_rows(), FROZEN, *choice_rows()[1:], *deep_rows()]
  for row in shown:
    path = rows.result_path(plan.results, row, 0).with_suffix('.npy')
    if path.exists():
      samples = np.load(path, allow_pickle=False)[:100]
      png = images.png(images.grid(samples, columns=10), zoom=2)
      path.with_suffix('.png').write_bytes(png)
      sections.append((row.name, png))
  rows.write_report(
    plan.results, 'SteinGAN on MNIST', tables, sections, settings
  )


_RBM_COLUMNS = {
  'test (nats)': 'test',
  'inception score': 'inception_score',
  'pairwise distance': 'samples/pairwise_distance',
  'nearest distance': 'samples/nearest_distance',
  'class entropy': 'class_entropy',
  'seconds': 'seconds',
}
_DEEP_COLUMNS = {
  'own label': 'own_label',
  'inception score': 'inception_score',
  'Frechet distance': 'frechet_distance',
  'recall': 'recall',
  'coverage': 'coverage',
  'pairwise distance': 'samples/pairwise_distance',
  'nearest distance': 'samples/nearest_distance',
  'seconds': 'seconds',
}
_CHOICE_COLUMNS = {
  'test (nats)': 'test',
  'variance along the features, over the model': 'variance_ratio',
  'inception score, noise-free': 'inception_score',
  'pairwise distance, noise-free': 'samples/pairwise_distance',
  "pairwise distance of the model's means": 'model/pairwise_distance',
  'seconds': 'seconds',
}


def _by_alpha(plan, key):
  """Returns {setting: (alphas, values [alphas, seeds])} of the figure's rows."""
  series = {}
  for setting in ('paper', 'centred'):
    figure = [
      r for r in figure_rows() if r.name.startswith(f'{setting}, alpha')
    ]
    values = [
      [r[key] for r in rows.results(plan.results, row, plan.seeds)]
      for row in figure
    ]
    if all(len(v) == plan.seeds for v in values):
      series[setting] = (ALPHAS, np.array(values))
  return series


def _repulsion_table(plan):
  results = rows.results(plan.results, deep_rows()[0], plan.seeds)
  return [
    {
      'step': step,
      'swapped: cosine': f'{swapped[0]:.3f}',
      'swapped: norm ratio': f'{swapped[1]:.3g}',
      'nearest: cosine': f'{nearest[0]:.3f}',
      'nearest: norm ratio': f'{nearest[1]:.3g}',
    }
    for step, (swapped, nearest) in (
      results[0]['repulsions'] if results else []
    )
  ]


if __name__ == '__main__':
  app.run(main)
