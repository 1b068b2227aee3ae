"""LW17 Figure 1(b)-(d) on MNIST, and the repulsions of the joint model of WL16.

Part 'figure' trains an RBM with its sampler, from SteinGAN (alpha = 0) to SteinCD
(alpha = 1) and without kernel, in the paper's setting and in one that can match its
model. Part 'authors' has the paper's setting at the authors' width, rates and length;
it takes an hour or more a run, and is run only where it is asked for. Part 'fresh'
trains a fresh sampler on SteinCD's finished energy, in either setting. Part 'choices'
takes the centred setting apart: it has another kernel or none, other ways to keep
samples apart, and the paper's choices put back one by one, beside what the exact
negative phase reaches in as many steps; there the samples' spread stands beside the
model's own. Part 'joint' asks the same of the conditional autoencoder energy, and how
far the cheap repulsions are from the exact one while it is trained.

Likelihoods are exact, in float64, at the last step. A CNN that is trained here judges
the samples; `experiments.reproduce.cifar10 --dataset=mnist` judges those of the
conditional energy further. Every finished run is a file: an interrupted call continues.

Example:
  python -m experiments.reproduce.steingan --results=results/steingan
"""

import functools

import jax
import numpy as np

from experiments.reproduce import likelihood
from experiments.reproduce import rows
from experiments.reproduce import scripts
from stein_jax import build
from stein_jax import datasets
from stein_jax import energies
from stein_jax import generators
from stein_jax import kernels
from stein_jax import learners
from stein_jax import metrics
from stein_jax import stein
from stein_jax.algorithms import amortized_svgd
from stein_jax.runs import configs
from stein_jax.runs import judges
from stein_jax.runs import launch
from stein_jax.runs import reporting

ALPHAS = (0.0, 0.1, 0.25, 0.5, 1.0)
PAPER = ('steingan_mnist', '')
CENTRED = ('steingan_mnist', 'centred')
JOINT = ('steingan_mnist_joint', 'narrow')
NO_KERNEL = {'step.direction': 'Score'}
# The paper's rate for both, 3e-4, lets the energy run away from the sampler.
PAPER_CHANGES = {
  'energy_optimizer.learning_rate': 1e-5,
  'generator_optimizer.learning_rate': 1e-3,
  # Narrow, for two cores.
  'generator.width': 8,
}
# As the authors' code has it: its width, length and rates are the config's own.
AUTHORS_CHANGES = {'step.direction.normalize': 'row_sum'}
EXACT = {'step.direction.form': 'exact'}
NOISE = {'generator.output_noise': 0.3}
# Rows of the conditional model, by id: their name and what they change.
JOINT_CHANGES = {
  'joint-swapped': ('swapped repulsion, as it is', {}),
  'joint-exact': ('exact repulsion', EXACT),
  'joint-no-kernel': ('no kernel', NO_KERNEL),
  'joint-noise-0.1': ('output noise 0.1', {'generator.output_noise': 0.1}),
  'joint-noise-0.3': ('output noise 0.3', NOISE),
  'joint-exact-noise-0.3': (
    'exact repulsion, output noise 0.3',
    {**EXACT, **NOISE},
  ),
}
APART = {**NO_KERNEL, 'step.diversity': 'pulling_away'}
ENTROPY = {
  **NO_KERNEL,
  'step.diversity': 'batch_norm_entropy',
  'generator.norm_gain': True,
}
QUIET = {'generator.output_noise': 0.0}
# Rows of the centred setting, by id: their name and what they change.
# One choice at a time against 'as it is', so that each row says what that
# choice is worth.
CHOICES = {
  'choice-none': ('as it is', {}),
  'choice-imq': ('IMQ kernel', {'step.direction.kernel.name': 'IMQ'}),
  'choice-pixels': ('kernel on pixels', {'step.direction.name': 'SVGD'}),
  'choice-first-features': (
    'kernel on the first features',
    {'step.first_features': True},
  ),
  'choice-bandwidth-quarter': (
    'bandwidth a quarter',
    {'step.direction.kernel.bandwidth.scale': 1.0},
  ),
  'choice-bandwidth-four': (
    'bandwidth four times',
    {'step.direction.kernel.bandwidth.scale': 16.0},
  ),
  'choice-bandwidth-1': (
    'fixed bandwidth 1',
    {'step.direction.kernel.bandwidth': 1.0},
  ),
  'choice-no-kernel': ('no kernel', NO_KERNEL),
  'choice-pulling-away': ('no kernel, pulling away', APART),
  'choice-pulling-away-10': (
    'no kernel, pulling away, weight 10',
    {**APART, 'step.diversity_weight': 10.0},
  ),
  'choice-entropy': ('no kernel, entropy of norms', ENTROPY),
  'choice-entropy-0.1': (
    'no kernel, entropy of norms, weight 0.1',
    {**ENTROPY, 'step.diversity_weight': 0.1},
  ),
  'choice-gamma-0.7': ('gamma 0.7', {'step.negative_weight': 0.3}),
  'choice-not-centred': ('RBM not centred', {'energy.centered': False}),
  'choice-sigmoid': ('sigmoid output', {'generator.output': 'sigmoid'}),
  'choice-no-noise': ('no output noise', QUIET),
  'choice-no-noise-pixels': (
    'no output noise, kernel on pixels',
    {**QUIET, 'step.direction.name': 'SVGD'},
  ),
}
# The ceiling: what this model reaches in as many steps if its negatives are
# exact.
EXACT_NEGATIVES = rows.Row(
  'exact-negatives', 'exact negatives', ('maximum_likelihood_mnist', '')
)
# What is frozen is of the setting that the sampler has.
FRESH = (
  rows.Row(
    'fresh-sampler',
    'paper, fresh sampler on a finished SteinCD energy',
    PAPER,
    PAPER_CHANGES,
  ),
  rows.Row(
    'fresh-sampler-centred',
    'centred, fresh sampler on a finished SteinCD energy',
    CENTRED,
  ),
)
STEIN_CD = rows.Row('stein-cd', 'SteinCD', ('stein_cd_mnist', ''))
JUDGE = rows.Row('judge', 'judge', ('classification_mnist', ''))


def figure_rows(plan: scripts.Plan) -> list[rows.Row]:
  """Returns the rows of Figure 1(b)-(d), in the paper's setting and centred."""
  del plan
  found = []
  # A sampler with a sigmoid at its end cannot match a model with Gaussian
  # noise; that of the centred setting can.
  for setting, config, changes in (
    ('paper', PAPER, PAPER_CHANGES),
    ('centred', CENTRED, {}),
  ):
    found += [
      rows.Row(
        f'{setting}-alpha-{alpha:g}',
        f'{setting}, alpha {alpha:g}',
        config,
        {**changes, 'step.alpha': alpha},
      )
      for alpha in ALPHAS
    ]
    found.append(
      rows.Row(
        f'{setting}-no-kernel',
        f'{setting}, no kernel',
        config,
        {**changes, **NO_KERNEL},
      )
    )
  return found


def authors_rows(plan: scripts.Plan) -> list[rows.Row]:
  """Returns the rows of Figure 1(b)-(d) at the authors' width, rates and length."""
  del plan
  changes = {
    'alpha-0': {},
    'alpha-0.25': {'step.alpha': 0.25},
    'alpha-0.5': {'step.alpha': 0.5},
    'alpha-1': {'step.alpha': 1.0},
    'no-kernel': NO_KERNEL,
  }
  return [
    rows.Row(
      f'authors-{key}',
      f'authors, {key.replace("-", " ", 1)}',
      PAPER,
      change if change is NO_KERNEL else {**AUTHORS_CHANGES, **change},
    )
    for key, change in changes.items()
  ]


def joint_rows(plan: scripts.Plan) -> list[rows.Row]:
  """Returns the conditional model and ways to spread its samples."""
  del plan
  return [
    rows.Row(key, f'conditional, {name}', JOINT, changes)
    for key, (name, changes) in JOINT_CHANGES.items()
  ]


def choice_rows(plan: scripts.Plan) -> list[rows.Row]:
  """Returns the centred setting with one choice at a time made otherwise."""
  del plan
  return [
    EXACT_NEGATIVES,
    *(
      rows.Row(key, f'choice: {name}', CENTRED, changes)
      for key, (name, changes) in CHOICES.items()
    ),
  ]


@functools.lru_cache(maxsize=1)
def judge(plan: scripts.Plan) -> judges.Judge:
  """Returns the classifier that judges samples, trained by the first who asks."""
  config = rows.get_config(JUDGE, 0)
  num_steps = 20 if plan.smoke else config.num_steps
  # One judge for all rows, trained on real images.
  return rows.trained_judge(plan.results, config, num_steps)[0]


def rbm_run(plan: scripts.Plan, row: rows.Row, seed: int):
  """Returns the result and samples of one run of an RBM with its sampler."""
  config = rows.get_config(row, seed)
  num_steps = trained(plan, row).num_steps
  state, result = learned_rbm(plan, config, num_steps, row.name)
  found, samples = judged(plan, config, state.generator)
  return {**result, **found}, samples


def choice_run(plan: scripts.Plan, row: rows.Row, seed: int):
  """Returns the result of one choice, how its samples spread, and 200 of them."""
  config = rows.get_config(row, seed)
  if row.id == EXACT_NEGATIVES.id:
    # It has no sampler, and all else as the rows beside it.
    centred = rows.get_config(rows.Row('', '', CENTRED), seed)
    config.energy, config.optimizer = centred.energy, centred.energy_optimizer
    config.num_steps = centred.num_steps
  num_steps = plan.options.choice_steps
  config = rows.with_length(config, num_steps)
  state, result = learned_rbm(plan, config, num_steps, row.name)
  if row.id == EXACT_NEGATIVES.id:
    return result, None
  found, samples = judged(plan, config, state.generator)
  # A thousand are enough for a variance.
  spread = beside_model(state, min(plan.options.samples, 1000), seed)
  return {**result, **found, **spread}, samples


def learned_rbm(plan: scripts.Plan, config, num_steps: int, label: str):
  """Returns the state after training, and exact likelihoods on the way."""
  data = likelihood.held_out(1000 if plan.smoke else None)
  module = build.build(energies, **config.energy)

  def look(state):
    params = jax.tree.map(lambda leaf: leaf[None], state.energy.params)
    valid, test = likelihood.exact_log_likelihoods(module, params, data)
    return float(valid[0]), float(test[0])

  state, seen = rows.train(
    # Four looks: an exact likelihood takes seconds.
    config,
    num_steps,
    label,
    every=num_steps // 4,
    look=look,
  )
  return state, dict(
    valid=seen[-1][0], test=seen[-1][1], curve=[test for _, test in seen]
  )


def beside_model(state, num, seed) -> dict[str, float]:
  """Returns how far a sampler's samples spread, beside what its energy draws exactly.

  'variance_ratio' is the samples' variance along B'x over the model's, both with their
  noise: 1 is right, and less says that samples have collapsed.
  'model/pairwise_distance' is that of the model's noise-free means.
  """
  keys = jax.random.split(jax.random.key(1000 + seed), 3)
  ask = lambda key, method: learners.call(
    state.energy, state.energy.params, key, num, method=method
  )
  # Along B'x the model has its modes; elsewhere it is noise.
  weight = state.energy.params['params']['weight']
  spread = lambda x: np.sum(np.var(x.reshape(num, -1) @ weight, 0))
  samples = generators.sample(state.generator, keys[0], num)
  return {
    'variance_ratio': float(spread(samples) / spread(ask(keys[1], 'sample'))),
    'model/pairwise_distance': metrics.pairwise_distance(ask(keys[2], 'means')),
  }


def fresh_run(plan: scripts.Plan, row: rows.Row, seed: int):
  """Returns the result and samples of a fresh sampler on a finished energy."""
  config = rows.get_config(row, seed)
  stein_cd = rows.get_config(STEIN_CD, seed)
  stein_cd.energy = config.energy
  num_steps = plan.steps if plan.smoke else stein_cd.num_steps
  # In full, since the claim is of a finished energy.
  energy = rows.train(stein_cd, num_steps, STEIN_CD.name)[0].energy
  generator = generators.create(
    jax.random.key(1000 + seed),
    build.build(generators, **config.generator),
    config.generator_optimizer,
    config.batch_size,
  )
  # The sampler alone is trained, along the direction that its setting has.
  direction = config.step.direction
  config.algorithm, config.step = 'amortized_svgd', {'direction': direction}
  config = configs.complete(config)
  start = amortized_svgd.create(energy, generator)
  state, _ = rows.train(config, plan.steps, row.name, state=start)
  return judged(plan, config, state.generator)


def joint_run(plan: scripts.Plan, row: rows.Row, seed: int):
  """Returns the result and samples of the conditional model.

  The result has how far the cheap repulsions are from the exact one at four moments of
  training: the cosine of the angle and the ratio of norms.
  """
  num_steps = plan.options.joint_steps
  config = rows.with_length(rows.get_config(row, seed), num_steps)
  source = datasets.load(**config.data)
  data = source[: 8 if plan.smoke else 100]['image']

  def look(state):
    # The same noise at every look: what changes is the networks.
    found = repulsions(state, data, jax.random.key(0))
    return [int(state.step), jax.tree.map(float, found)]

  state, seen = rows.train(
    config, num_steps, row.name, source=source, every=num_steps // 4, look=look
  )
  found, samples = judged(plan, config, state.generator)
  return {**found, 'repulsions': seen}, samples


def trained(plan: scripts.Plan, row: rows.Row):
  """Returns the row's config, with the length of its runs."""
  config = rows.get_config(row, 0)
  options = plan.options
  if row.id.startswith('joint-'):
    return rows.with_length(config, options.joint_steps)
  if row.id.startswith('choice-') or row == EXACT_NEGATIVES:
    return rows.with_length(config, options.choice_steps)
  # The authors' runs have the authors' length.
  if plan.smoke or not row.id.startswith('authors-'):
    config.num_steps = plan.steps
  return config


def judged(plan: scripts.Plan, config, generator):
  """Returns how good a sampler is without its noise, and 200 of its samples."""
  num = plan.options.samples
  data = datasets.load(**config.evaluation.data)[:]['image']
  # Without output noise, which a judge would take for a fault.
  samples = rows.drawn(generator, num, config.seed)
  classes = generator.num_classes
  labels = np.arange(len(samples)) % classes if classes else None
  found = judges.judged(
    judge(plan), np.clip(samples, 0, 1), data[:num], labels=labels
  )
  found |= metrics.diversity(samples[:1000], data[:1000])
  return found, samples[:200]


@jax.jit
def repulsions(state, data, rng):
  """Returns the (cosine, norm ratio) to 'exact' of 'swapped', then of 'nearest'."""
  # A generator's samples are of its ten classes in turn.
  labels = np.arange(len(data)) % 10
  samples = generators.generate(
    state.generator, state.generator.params, rng, len(data), label=labels
  )

  def features(x):
    return energies.pair(
      state.energy, state.energy.params, data, x, method='features'
    )[1]

  # One bandwidth for all three forms.
  kernel = kernels.RBF(kernels.Median(0.25)).at(features(samples))
  exact, *others = (
    stein.feature_repulsion(samples, features, kernel, form=form).ravel()
    for form in ('exact', 'swapped', 'nearest')
  )
  norm = lambda v: (v @ v) ** 0.5
  return [
    (other @ exact / (norm(other) * norm(exact)), norm(other) / norm(exact))
    for other in others
  ]


def report(plan: scripts.Plan) -> scripts.Report:
  """Returns the tables and figures of what is there."""
  table = functools.partial(rows.table, plan.results, seeds=plan.seeds)
  tables = {
    'RBM and sampler': table(
      [*figure_rows(plan), *authors_rows(plan), *FRESH], _RBM_COLUMNS
    ),
    'The centred setting, choice by choice': table(
      choice_rows(plan), _CHOICE_COLUMNS
    ),
    'The conditional model': table(joint_rows(plan), _JOINT_COLUMNS),
    'Cheap repulsions beside the exact one': _repulsion_table(plan),
  }
  figures = {}
  for key, label in (
    ('test', 'test log likelihood (nats)'),
    ('inception_score', 'inception score'),
  ):
    series = _by_alpha(plan, key)
    if series:
      png = reporting.curves(series, xlabel='alpha', ylabel=label)
      figures[key] = (f'{label} against alpha', png)
  shown = [*figure_rows(plan), *authors_rows(plan), *FRESH]
  shown += [*choice_rows(plan), *joint_rows(plan)]
  figures |= scripts.row_figures(plan, shown)
  return scripts.Report('SteinGAN on MNIST', tables, figures)


_RBM_COLUMNS = {
  'test (nats)': 'test',
  'inception score': 'inception_score',
  'pairwise distance': 'samples/pairwise_distance',
  'nearest distance': 'samples/nearest_distance',
  'class entropy': 'class_entropy',
  'seconds': 'seconds',
}
_JOINT_COLUMNS = {
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
    values = [
      [r[key] for r in rows.results(plan.results, row, plan.seeds)]
      for row in figure_rows(plan)
      if row.id.startswith(f'{setting}-alpha')
    ]
    # A figure of some seeds here and others there would compare unequal things.
    if all(len(v) == plan.seeds for v in values):
      series[setting] = (ALPHAS, np.array(values))
  return series


def _repulsion_table(plan):
  """Returns a line for each look at the repulsions, of the first seed."""
  results = rows.results(plan.results, joint_rows(plan)[0], 1)
  return [
    {
      'step': step,
      'swapped: cosine': f'{swapped[0]:.3f}',
      'swapped: norm ratio': f'{swapped[1]:.3g}',
      'nearest: cosine': f'{nearest[0]:.3f}',
      'nearest: norm ratio': f'{nearest[1]:.3g}',
    }
    for result in results
    for step, (swapped, nearest) in result['repulsions']
  ]


SCRIPT = scripts.Script(
  'steingan',
  steps=scripts.Option(6000, 'Steps of every RBM run.', smoke=20, minimum=4),
  seeds=3,
  parts={
    'figure': scripts.Part(figure_rows, rbm_run),
    'authors': scripts.Part(authors_rows, rbm_run, asked=True),
    'fresh': scripts.Part(lambda plan: FRESH, fresh_run),
    'choices': scripts.Part(choice_rows, choice_run),
    'joint': scripts.Part(joint_rows, joint_run),
  },
  report=report,
  trained=trained,
  options={
    'joint_steps': scripts.Option(
      3000, 'Steps of every conditional run.', smoke=4, minimum=4
    ),
    'choice_steps': scripts.Option(
      6000, "Steps of every run of 'choices'.", smoke=4, minimum=4
    ),
    'samples': scripts.Option(
      10_000, 'Samples judged, of each run.', smoke=200, minimum=200
    ),
  },
)


if __name__ == '__main__':
  launch.run(scripts.main(SCRIPT))
