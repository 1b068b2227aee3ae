"""LW17 Table 1 and WL16's: SteinGAN, without kernel and DCGAN as data sets.

What conditional models draw, beside real images and 500 of them copied, has two
judges: the inception score, by a classifier trained on the real images here (WL16's
row 'model trained on CIFAR-10': a ResNet on CIFAR-10, a small CNN on MNIST and
Fashion-MNIST) and by the ImageNet Inception where `--inception` names its file; and
the accuracy on real test images of that classifier when it learns from the samples
alone. Without `--steps` and `--width` networks and lengths are those of the configs:
on CIFAR-10 the authors' whole. Every run has checkpoints, and every finished one is
a file: an interrupted call continues.

Example:
  python -m experiments.reproduce.cifar10 --results=results/cifar10 --npz=cifar10.npz
  python -m experiments.reproduce.cifar10 --results=results/mnist --dataset=mnist
"""

import functools
import pathlib
from typing import NamedTuple

from absl import app
from absl import flags
import jax
import numpy as np

from experiments.reproduce import rows
from stein_jax import datasets
from stein_jax import locations
from stein_jax import metrics
from stein_jax.runs import images
from stein_jax.runs import launch
from stein_jax.runs import training

_RESULTS = flags.DEFINE_string(
  'results', 'results/cifar10', 'Folder of the results.'
)
_DATASET = flags.DEFINE_enum(
  'dataset',
  'cifar10',
  ['cifar10', 'mnist', 'fashion_mnist'],
  'What is learned.',
)
_NPZ = flags.DEFINE_string(
  'npz', None, 'Images in place of the data set, as `train` takes them.'
)
_INCEPTION = flags.DEFINE_string(
  'inception', None, 'File of the ImageNet Inception of 2015, a second judge.'
)
_STEPS = flags.DEFINE_integer(
  'steps', None, "Of every model; the configs' own without.", lower_bound=1
)
_CLASSIFIER_STEPS = flags.DEFINE_integer(
  'classifier_steps',
  None,
  "Of every classifier; the config's own without.",
  lower_bound=1,
)
_WIDTH = flags.DEFINE_integer(
  'width', 1, "Networks have the configs' widths over this.", lower_bound=1
)
_DEPTH = flags.DEFINE_integer(
  'depth', 32, 'Of the ResNet: 8, 14, 20 and so on.', lower_bound=8
)
_SEEDS = flags.DEFINE_integer('seeds', 3, 'Runs of every model.', lower_bound=1)
_SAMPLES = flags.DEFINE_integer(
  'samples',
  50_000,
  'Drawn of each, and as many copies and real images.',
  lower_bound=1000,
)
_SMOKE = flags.DEFINE_bool(
  'smoke', False, 'A few steps of every row, on noise: a minute.'
)

# SteinGAN, DCGAN, and what judges them.
CONFIGS = {
  'cifar10': (
    ('steingan_cifar10', ''),
    ('gan_cifar10', ''),
    ('classification_cifar10', ''),
  ),
  'mnist': (
    ('steingan_mnist_joint', 'narrow'),
    ('gan_mnist', 'conditional'),
    ('classification_mnist', ''),
  ),
}
CONFIGS['fashion_mnist'] = CONFIGS['mnist']
# Of CIFAR-10: inception scores by ImageNet and by CIFAR-10, accuracy in per cent.
PRINTED = {
  'real images': ('11.237', '9.848', '92.58'),
  '500 duplicates': ('11.100', '9.807', '44.96'),
  'DCGAN': ('6.581', '7.193', '44.78'),
  'SteinGAN, LW17': ('6.711', '', '61.09'),
  'SteinGAN, WL16': ('6.209', '7.065', '63.89'),
  'SteinGAN without kernel, LW17': ('6.243', '', '60.50'),
}


class Plan(NamedTuple):
  """What one call is to do."""

  results: pathlib.Path
  dataset: str
  npz: str | None
  inception: str | None
  steps: int | None
  classifier_steps: int | None
  width: int
  depth: int
  seeds: int
  samples: int
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
    _INCEPTION.value,
    steps=4 if smoke else _STEPS.value,
    classifier_steps=4 if smoke else _CLASSIFIER_STEPS.value,
    width=1 if smoke else _WIDTH.value,
    depth=8 if smoke else _DEPTH.value,
    seeds=1 if smoke else _SEEDS.value,
    samples=60 if smoke else _SAMPLES.value,
    smoke=smoke,
  )
  settings = rows.claim(plan)
  config = classifier_config(plan)
  judge, accuracy = rows.trained_judge(plan.results, config, config.num_steps)
  judges = {'': judge}
  if plan.inception:
    judges['imagenet_'] = judges.inception_judge(plan.inception)
  run = functools.partial(run_row, plan, judges, accuracy)
  rows.run_all(plan.results, table_rows(plan), plan.seeds, run)
  report(plan, {**settings, 'test accuracy of the judge': f'{accuracy:.2%}'})


def table_rows(plan: Plan) -> list[rows.Row]:
  """Returns the rows of the table."""
  steingan, gan, classifier = (
    (name, 'smoke' if plan.smoke else scale)
    for name, scale in CONFIGS[plan.dataset]
  )
  return [
    rows.Row('real images', classifier),
    rows.Row('500 duplicates', classifier),
    rows.Row('DCGAN', gan),
    rows.Row('SteinGAN', steingan),
    rows.Row('SteinGAN without kernel', steingan, {'step.kernel': 'none'}),
  ]


def config_of(plan: Plan, row: rows.Row, seed: int):
  """Returns the row's config on the plan's data."""
  config = rows.get_config(row, seed)
  return config if plan.smoke else rows.on_data(config, plan.dataset, plan.npz)


def classifier_config(plan: Plan):
  """Returns the config of the network that judges, and that learns from samples."""
  config = config_of(plan, table_rows(plan)[0], 0)
  if 'depth' in config.classifier:
    config.classifier.depth = plan.depth
  return rows.lasting(config, plan.classifier_steps or config.num_steps)


def narrowed(config, factor: int):
  """Returns the config with networks of a `factor`-th of the width, at least 1."""
  narrow = lambda widths: tuple(max(1, width // factor) for width in widths)
  generator, energy = config.generator, config.energy
  generator.update(
    dense=narrow(generator.get('dense', ())),
    base=max(1, generator.base // factor),
    widths=narrow(generator.widths),
  )
  if 'autoencoder' in energy:
    convs = energy.autoencoder.convs
    energy.autoencoder.convs = tuple(
      (max(1, width // factor), *rest) for width, *rest in convs
    )
  else:
    energy.widths = narrow(energy.widths)
  return config


def run_row(plan: Plan, judges, accuracy: float, row: rows.Row, seed: int):
  """Returns what is found of a row's images, and 100 of them in [0, 1].

  `accuracy` is the judge's, which has learned from all real images: how much of it,
  and of the inception score of the test images, a row keeps is found too.
  """
  if row.name == 'real images':
    pictures, labels = real_images(plan, row, seed)
    pictures, labels = pictures[: plan.samples], labels[: plan.samples]
  elif row.name == '500 duplicates':
    pictures, labels = duplicates(plan, row, seed)
  else:
    pictures, labels = drawn(plan, row, seed)
  found = said(plan, judges, pictures, labels)
  path = rows.result_path(plan.results, row, seed)
  config = classifier_config(plan)
  learned = rows.accuracy_from(
    path.with_name(f'{path.stem}_classifier'),
    config,
    config.num_steps,
    pictures,
    labels,
  )
  kept = {
    'accuracy': 100 * learned,
    'kept/accuracy': learned / accuracy,
    'kept/inception_score': (
      found['inception_score'] / found['inception_score_of_data']
    ),
  }
  return {**found, **kept}, pictures[:100]


def drawn(plan: Plan, row: rows.Row, seed: int):
  """Returns samples of a conditional model in [0, 1], and the labels asked for."""
  config = narrowed(config_of(plan, row, seed), plan.width)
  config = rows.lasting(config, plan.steps or config.num_steps)
  workdir = rows.result_path(plan.results, row, seed).with_suffix('')
  generator = training.train(config, workdir).generator
  samples = rows.drawn(generator, plan.samples, seed + 1)
  labels = np.arange(plan.samples) % generator.num_classes
  return datasets.to_unit(samples, config.data), labels


def duplicates(plan: Plan, row: rows.Row, seed: int):
  """Returns 500 training images, in as many copies as it takes, and their labels."""
  num = 6 if plan.smoke else 500
  pictures, labels = metrics.duplicates(
    *real_images(plan, row, seed),
    num_distinct=num,
    copies=plan.samples // num,
    seed=seed,
  )
  order = np.random.default_rng(seed).permutation(len(pictures))
  return pictures[order], labels[order]


def said(plan: Plan, judges, pictures, labels) -> dict[str, float]:
  """Returns what judges say of images in [0, 1] beside real test images."""
  config = classifier_config(plan)
  test = datasets.load(**config.evaluation.data)[:]['image']
  data = datasets.to_unit(test, config.evaluation.data)
  found = metrics.diversity(pictures[:1000], data[:1000])
  for name, judge in judges.items():
    numbers = judges.judged(judge, pictures, data, labels=labels)
    found |= {f'{name}{key}': value for key, value in numbers.items()}
  return found


def real_images(plan: Plan, row: rows.Row, seed: int):
  """Returns the training images in [0, 1] and their labels, in random order."""
  config = config_of(plan, row, seed)
  batch = datasets.load(**config.data)[:]
  order = np.random.default_rng(seed).permutation(len(batch['label']))
  pictures = datasets.to_unit(batch['image'][order], config.data)
  return pictures, batch['label'][order]


def report(plan: Plan, settings) -> None:
  """Writes table.md, pictures and report.html of what is there; prints tables."""
  classifier = classifier_config(plan).classifier
  judge = classifier.name + (
    f'-{classifier.depth}' if 'depth' in classifier else ''
  )
  columns = {
    'inception score, ImageNet': 'imagenet_inception_score',
    f'inception score, {judge}': 'inception_score',
    f'accuracy of a {judge} trained on them (%)': 'accuracy',
    'own label': 'own_label',
    'Frechet distance': 'frechet_distance',
    'recall': 'recall',
    'coverage': 'coverage',
    'pairwise distance': 'samples/pairwise_distance',
    'seconds': 'seconds',
  }
  lines = rows.table(plan.results, table_rows(plan), columns, plan.seeds)
  printed = rows.printed(_PRINTED_COLUMNS, PRINTED)
  sections = []
  for row in table_rows(plan):
    path = rows.result_path(plan.results, row, 0).with_suffix('.npy')
    if path.exists():
      shown = np.load(path, allow_pickle=False)
      png = images.png(images.grid(shown, columns=10), zoom=2)
      path.with_suffix('.png').write_bytes(png)
      sections.append((row.name, png))
  rows.write_report(
    plan.results,
    f'Samples as data: {plan.dataset}',
    {'Here': lines, 'Printed, of CIFAR-10': printed},
    sections,
    settings,
  )


_PRINTED_COLUMNS = (
  'inception score, ImageNet',
  'inception score, Inception trained on CIFAR-10',
  'accuracy of a ResNet trained on them (%)',
)


if __name__ == '__main__':
  app.run(main)
