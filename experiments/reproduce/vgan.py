"""Z16 on real images: VGAN's features, and what rho does to VCD.

Part 'table1' trains GAN and VGAN with one and three generator steps, shows their
samples (figure 2), and asks a linear classifier what it can read off their energies'
last layer, beside pixels and random features. Part 'vcd' trains VCD at every rho:
reconstructions, samples and Markov chains, as grids and moving (figures 3 to 5); and on
all but CIFAR-10 a classifier of 1,000 labels with what the transition operator makes of
its images (table 2). Part 'choices', on MNIST, takes VGAN apart: without either
entropy, with an energy that has no bound, and GANs whose discriminator normalises data
and samples in one batch or in two. Networks are narrow, for two cores; with `--full`
they are the authors'. What the paper prints stands beside. Every finished run is a
file: an interrupted call continues.

Example:
  python -m experiments.reproduce.vgan --results=results/vgan --dataset=mnist
  python -m experiments.reproduce.vgan --results=results/svhn --dataset=svhn_cropped \
    --part=vcd --full --steps=30000 --classifier_steps=2000
"""

import functools
import pathlib
from typing import Any, NamedTuple

from absl import app
from absl import flags
import jax
import jax.numpy as jnp
import numpy as np

from experiments.reproduce import rows
from stein_jax import algorithms
from stein_jax import datasets
from stein_jax import energies
from stein_jax import generators
from stein_jax import learners
from stein_jax import locations
from stein_jax import metrics
from stein_jax.algorithms import vcd
from stein_jax.runs import evaluation
from stein_jax.runs import images
from stein_jax.runs import launch
from stein_jax.runs import reporting

_RESULTS = flags.DEFINE_string(
  'results', 'results/vgan', 'Folder of the results.'
)
_DATASET = flags.DEFINE_enum(
  'dataset',
  'mnist',
  ['mnist', 'fashion_mnist', 'svhn_cropped', 'cifar10'],
  'What is learned.',
)
_NPZ = flags.DEFINE_string(
  'npz', None, 'Images in place of the data set, as `train` takes them.'
)
_STEPS = flags.DEFINE_integer(
  'steps', 2000, 'Steps of every GAN, VGAN and VCD.', lower_bound=1
)
_CLASSIFIER_STEPS = flags.DEFINE_integer(
  'classifier_steps', 1000, 'Steps of every classifier.', lower_bound=5
)
_FULL = flags.DEFINE_bool(
  'full', False, "The authors' widths, for an accelerator."
)
_SEEDS = flags.DEFINE_integer('seeds', 3, 'Runs of every row.', lower_bound=2)
_PARTS = flags.DEFINE_multi_enum(
  'part',
  ['table1', 'vcd', 'choices'],
  ['table1', 'vcd', 'choices'],
  'What to run; the report shows what has been run.',
)
_SMOKE = flags.DEFINE_bool(
  'smoke', False, 'A few steps of two seeds of every row: some minutes.'
)

# VCD's config, and the classifier's of few labels.
VCD = {
  'mnist': ('vcd_mnist', 'classification_mnist'),
  'fashion_mnist': ('vcd_mnist', 'classification_mnist'),
  'svhn_cropped': ('vcd_svhn', 'classification_cifar10'),
  'cifar10': ('vcd_cifar10', None),  # is said not to be helped by augmentation
}
RHOS = (0.0, 0.001, 0.01, 0.1, 1.0)
CHAIN = 9  # transitions shown
# Test errors in per cent, of CIFAR-10 (table 1); of MNIST and SVHN (table 2).
PRINTED_FEATURES = {
  'GAN, k = 1': ('84.7',),
  'GAN, k = 3': ('86.6',),
  'VGAN, k = 1': ('36.5',),
  'VGAN, k = 3': ('32.5',),
}
PRINTED_AUGMENTATION = {
  'no augmentation': ('2.2', '19'),
  'VCD, rho = 0': ('2.9', '26'),
  'VCD, rho = 0.001': ('2.0', '20'),
  'VCD, rho = 0.01': ('1.7', '18'),
  'VCD, rho = 0.1': ('1.9', '17'),
  'VCD, rho = 1': ('21', '37'),
}
LOOKS = 20  # at the energies of a run


class Plan(NamedTuple):
  """What one call is to do."""

  results: pathlib.Path
  dataset: str
  npz: str | None
  steps: int
  classifier_steps: int
  full: bool
  seeds: int
  probed: int  # images that a linear classifier learns from
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
    classifier_steps=5 if smoke else _CLASSIFIER_STEPS.value,
    full=_FULL.value,
    seeds=2 if smoke else _SEEDS.value,
    probed=300 if smoke else 10_000,
    smoke=smoke,
  )
  settings = rows.claim(plan)
  parts = {
    'table1': (probe_rows, probe_run),
    'vcd': (vcd_rows, vcd_run),
    'choices': (choice_rows, choice_run),
  }
  for part in _PARTS.value:
    list_rows, run = parts[part]
    run = functools.partial(run, plan)
    rows.run_all(plan.results, list_rows(plan), plan.seeds, run)
  report(plan, settings)


def probe_rows(plan: Plan) -> list[rows.Row]:
  """Returns the rows of table 1, and what nothing learned says."""
  config, vgan, gan = 'vgan_cifar10', 'narrow', 'narrow_gan'
  if plan.full:
    vgan, gan = '', 'gan'
  if plan.dataset.endswith('mnist'):  # the paper has none: narrow at any rate
    config, vgan, gan = 'vgan_mnist', '', 'gan'
  return [
    *(
      rows.Row(
        f'{name}, k = {k}', (config, scale), {'step.num_generator_steps': k}
      )
      for name, scale in (('GAN', gan), ('VGAN', vgan))
      for k in (1, 3)
    ),
    rows.Row('random features', (config, vgan)),
    rows.Row('pixels', (config, vgan), single=True),
  ]


def vcd_rows(plan: Plan) -> list[rows.Row]:
  """Returns VCD at every rho, and no augmentation beside it where there is any."""
  name, classifier = VCD[plan.dataset]
  config = (name, '' if plan.full else 'narrow')
  none = [rows.Row('no augmentation', config)] if classifier else []
  return none + [
    rows.Row(f'VCD, rho = {rho:g}', config, {'step.rho': rho}) for rho in RHOS
  ]


def choice_rows(plan: Plan) -> list[rows.Row]:
  """Returns VGAN without parts of it, and GANs by how their energy normalises."""
  if plan.dataset != 'mnist':
    return []
  vgan, gan = ('vgan_mnist', ''), ('gan_mnist', '')
  no_samples, no_data = (
    {f'step.{side}_entropy': 0.0} for side in ('generator', 'data')
  )
  return [
    rows.Row('both entropies', vgan),
    rows.Row('without H of samples', vgan, no_samples),
    rows.Row('without H of data', vgan, no_data),
    rows.Row('without either', vgan, {**no_samples, **no_data}),
    rows.Row('without either, no bound', ('vgan_mnist', 'unbounded')),
    rows.Row(
      'without either, no bound, generator behind',
      ('vgan_mnist', 'unbounded'),
      {'generator_optimizer.learning_rate': 1e-3},  # a hundredth
    ),
    rows.Row('GAN, batch norm of both', gan, {'step.joint': True}),
    rows.Row('GAN, batch norm of each', gan, {'step.joint': False}),
  ]


def sources(plan: Plan, config) -> tuple[datasets.Arrays, datasets.Arrays]:
  """Returns training and test data, of the config or the files named."""
  rows.on_data(config, plan.dataset, plan.npz)
  return datasets.load(**config.data), datasets.load(**config.evaluation.data)


def probe_run(plan: Plan, row: rows.Row, seed: int):
  """Returns the error of a linear classifier on an energy's features, and samples."""
  config = rows.get_config(row, seed)
  training, test = sources(plan, config)
  learned = row.name not in ('pixels', 'random features')
  state, _ = rows.train(
    config, plan.steps if learned else 0, row.name, source=training
  )
  draw = evaluation.sampler(algorithms.get(config.algorithm), config, test)
  samples = np.asarray(draw(state))
  see = jax.jit(
    functools.partial(learners.call, state.energy, method='features')
  )

  def features(x):
    if row.name == 'pixels':
      return x.reshape(len(x), -1)
    blocks = np.split(x, range(1000, len(x), 1000))
    return np.concatenate([see(state.energy.params, b) for b in blocks])

  known, unknown = training[: plan.probed], test[:]
  accuracy = metrics.linear_probe(
    features(known['image']),
    known['label'],
    features(unknown['image']),
    unknown['label'],
  )
  return {
    'error': 100 * (1 - accuracy),
    'pairwise': metrics.pairwise_distance(samples),
  }, samples[:100]


def vcd_run(plan: Plan, row: rows.Row, seed: int):
  """Returns the test error with augmentation, and images of reconstruction and chain.

  Images are [CHAIN + 2, 10, ...]: test images, their reconstructions, and what they
  move to.
  """
  config = rows.get_config(row, seed)
  training, test = sources(plan, config)
  augment, result, pictures = None, {}, np.zeros((0,))
  if row.name != 'no augmentation':
    state, seen = rows.train(
      config,
      plan.steps,
      row.name,
      source=training,
      every=plan.steps,
      look=functools.partial(look, test[:100]['image']),
    )
    result, pictures = seen[0]
    operator = state.generator

    @jax.jit
    def augment(batch, rng):
      moved = learners.call(operator, operator.params, rng, batch['image'])
      return {**batch, 'augmented': moved}

  if VCD[plan.dataset][1]:
    result = dict(result, **few_labels(plan, config, seed, augment, row.name))
  return result, pictures


def choice_run(plan: Plan, row: rows.Row, seed: int):
  """Returns the difference of energies over training, and samples at the end."""
  config = rows.get_config(row, seed)
  training, test = sources(plan, config)

  @jax.jit
  def gap(state, batch):
    samples = generators.generate(
      state.generator, state.generator.params, jax.random.key(0), len(batch)
    )
    joint = config.step.get('joint', True)
    values = energies.pair(
      state.energy, state.energy.params, batch, samples, joint=joint
    )
    return jnp.mean(values[1]) - jnp.mean(values[0])

  every = max(1, plan.steps // LOOKS)
  state, gaps = rows.train(
    config,
    plan.steps,
    row.name,
    source=training,
    every=every,
    look=lambda state, batch: float(gap(state, batch['image'])),
  )
  draw = evaluation.sampler(algorithms.get(config.algorithm), config, test)
  samples = np.asarray(draw(state))
  return {
    'gaps': gaps,
    'largest_gap': float(np.max(np.abs(gaps))),
    'last_gap': abs(gaps[-1]),
    'pairwise': metrics.pairwise_distance(samples),
  }, samples[:100]


def look(x, state, _):
  """Returns what an operator does to test images: numbers, and pictures."""
  operator = state.generator
  back = learners.call(operator, operator.params, x, method='reconstruct')
  path = vcd.transitions(operator, jax.random.key(1), x, num_steps=CHAIN)
  pictures = np.concatenate([path[:1], back[None], path[1:]])
  moved = np.asarray(path[1]).reshape(len(x), -1)
  flat = x.reshape(len(x), -1)
  return {
    'reconstruction': float(np.mean((np.asarray(back) - x) ** 2)),
    'distance': float(np.mean(np.linalg.norm(moved - flat, axis=1))),
    'pairwise': metrics.pairwise_distance(path[-1]),
  }, pictures[:, :10]


def few_labels(
  plan: Plan, vcd_config, seed: int, augment, name: str
) -> dict[str, Any]:
  """Returns the test error of a classifier at its best validation error, in per cent.

  It learns from 1,000 labels, and as much from those images as the operator moves
  them, drawn anew each time [Z16 eq 11]; what VCD does not learn from validates.
  """
  few = rows.Row('', (VCD[plan.dataset][1], 'few'))
  config = rows.get_config(few, seed)
  if plan.full:
    config.classifier.blocks = tuple(
      tuple((4 * width, size) for width, size in block)
      for block in config.classifier.blocks
    )
    config.classifier.dropout = 0.5
  rows.lasting(config, plan.classifier_steps)
  rows.on_data(config, plan.dataset, plan.npz)
  # 'train[:50000]' leaves 'train[50000:]'.
  rest = vcd_config.data.split.replace('[:', '[').replace(']', ':]')
  valid, test = (
    datasets.load(**{**config.evaluation.data, 'split': split})
    for split in (
      ('train[:500]', 'test[:500]') if plan.smoke else (rest, 'test')
    )
  )

  def errors(state, _):
    accuracies = [
      evaluation.test_metrics(config, state, source)['test/accuracy']
      for source in (valid, test)
    ]
    return [100 * (1 - accuracy) for accuracy in accuracies]

  _, seen = rows.train(
    config,
    plan.classifier_steps,
    f'classifier: {name}',
    source=datasets.load(**config.data),
    every=plan.classifier_steps // 5,
    look=errors,
    prepare=augment,
  )
  best = min(seen, key=lambda pair: pair[0])
  return {'valid_error': best[0], 'error': best[1], 'last_error': seen[-1][1]}


def report(plan: Plan, settings) -> None:
  """Writes table.md, pictures and report.html of what is there; prints tables."""
  table = functools.partial(rows.table, plan.results, seeds=plan.seeds)
  tables = {
    'Linear classifiers on the features of energies': table(
      probe_rows(plan), _PROBE_COLUMNS
    ),
    'Printed, of features on CIFAR-10': rows.printed(
      ('test error (%)',), PRINTED_FEATURES
    ),
    'Variational contrastive divergence': table(vcd_rows(plan), _VCD_COLUMNS),
    'Printed, of augmentation, 1,000 labels': rows.printed(
      ('MNIST, test error (%)', 'SVHN, test error (%)'), PRINTED_AUGMENTATION
    ),
    'VGAN, part by part': table(choice_rows(plan), _CHOICE_COLUMNS),
  }
  sections = []
  for row in [*probe_rows(plan), *vcd_rows(plan), *choice_rows(plan)]:
    path = rows.result_path(plan.results, row, 0).with_suffix('.npy')
    pictures = (
      np.load(path, allow_pickle=False) if path.exists() else np.zeros((0,))
    )
    if row.name in ('pixels', 'random features') or not len(pictures):
      continue
    title = row.name
    if pictures.ndim == 5:
      title += ': test images, reconstructions, and nine transitions'
      chains = np.delete(pictures, 1, axis=0).swapaxes(0, 1)
      path.with_suffix('.gif').write_bytes(
        images.gif(np.clip(chains, 0, 1), zoom=2, frames_per_second=2)
      )
      pictures = pictures.reshape(-1, *pictures.shape[2:])
    png = images.png(images.grid(np.clip(pictures, 0, 1), columns=10), zoom=2)
    path.with_suffix('.png').write_bytes(png)
    sections.append((title, png))
  gaps = _gap_figure(plan)
  if gaps:
    (plan.results / 'gaps.png').write_bytes(gaps)
    sections.insert(0, ('Energy of samples and of data, how far apart', gaps))
  page = _rho_page(plan)
  if page:
    (plan.results / 'rho.png').write_bytes(page)
    title = (
      'Test images; below, for each rho from 0 to 1: reconstructions, one '
      'transition, nine'
    )
    sections.insert(0, (title, page))
  title = f'VGAN and variational contrastive divergence on {plan.dataset}'
  rows.write_report(plan.results, title, tables, sections, settings)


def _gap_figure(plan):
  """Returns a PNG of the difference of energies over training, or None."""
  series = {}
  for row in choice_rows(plan):
    found = rows.results(plan.results, row, plan.seeds)
    if found:
      gaps = np.abs(np.array([result['gaps'] for result in found]).T)
      every = max(1, plan.steps // LOOKS)
      series[row.name] = every * np.arange(1, len(gaps) + 1), gaps
  if not series:
    return None
  return reporting.curves(
    series, xlabel='step', ylabel='|E(samples) - E(data)|', log=True
  )


def _rho_page(plan):
  """Returns a PNG of what every finished rho makes of the same images, or None."""
  strips = []
  for row in vcd_rows(plan):
    path = rows.result_path(plan.results, row, 0).with_suffix('.npy')
    pictures = (
      np.load(path, allow_pickle=False) if path.exists() else np.zeros((0,))
    )
    if pictures.ndim == 5:
      strips += [pictures[[1, 2, -1]]] if strips else [pictures[[0, 1, 2, -1]]]
  if not strips:
    return None
  return images.png(images.strips(np.concatenate(strips)), zoom=2)


_PROBE_COLUMNS = {
  'test error (%)': 'error',
  'pairwise distance of samples': 'pairwise',
  'seconds': 'seconds',
}
_CHOICE_COLUMNS = {
  'largest difference of energies': 'largest_gap',
  'at the last step': 'last_gap',
  'pairwise distance of samples': 'pairwise',
  'seconds': 'seconds',
}
_VCD_COLUMNS = {
  'test error, 1,000 labels (%)': 'error',
  'at the last step (%)': 'last_error',
  'squared error of reconstruction': 'reconstruction',
  'distance of a transition': 'distance',
  'pairwise distance after nine': 'pairwise',
  'seconds': 'seconds',
}


if __name__ == '__main__':
  app.run(main)
