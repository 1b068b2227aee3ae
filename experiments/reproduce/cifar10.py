"""LW17 Figure 2 and WL16's: SteinGAN, without kernel and DCGAN as data sets.

What conditional models draw is judged twice, beside real images and 500 of them copied.
The inception score is by a classifier trained on the real images here (WL16's row
'model trained on CIFAR-10': a ResNet on CIFAR-10, a small CNN on MNIST and
Fashion-MNIST), and by the ImageNet Inception where `--inception` names its file. The
accuracy is that classifier's on real test images when it learns from the samples alone.
Part 'matched' has SteinGAN and DCGAN with as many parameters in the discriminator as in
the energy, rates that fall alike, and the energy's rate chosen among as many on
validation images. Part 'sizes' counts the parameters of the authors' networks (LW17
Table 1); nothing is trained for it. Without `--steps` and `--width` networks and
lengths are those of the configs, on CIFAR-10 the authors' own. Every run has
checkpoints, and every finished one is a file: an interrupted call continues.

Example:
  python -m experiments.reproduce.cifar10 --results=results/cifar10 --npz=cifar10.npz
  python -m experiments.reproduce.cifar10 --results=results/mnist --dataset=mnist
"""

import functools
import itertools

from ml_collections import config_dict
import numpy as np

from experiments.reproduce import budgets
from experiments.reproduce import rows
from experiments.reproduce import scripts
from stein_jax import datasets
from stein_jax import metrics
from stein_jax.runs import judges
from stein_jax.runs import launch
from stein_jax.runs import reporting
from stein_jax.runs import training

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
# The papers print these of CIFAR-10: inception scores by ImageNet and by CIFAR-10, and
# accuracy in per cent.
PRINTED = {
  'real images': ('11.237', '9.848', '92.58'),
  '500 duplicates': ('11.100', '9.807', '44.96'),
  'DCGAN': ('6.581', '7.193', '44.78'),
  'SteinGAN, LW17': ('6.711', '', '61.09'),
  'SteinGAN, WL16': ('6.209', '7.065', '63.89'),
  'SteinGAN without kernel, LW17': ('6.243', '', '60.50'),
}


# Both networks of a model in one batch lose a class; the authors have two.
APART = {'step.joint': False}
# The networks whose parameters LW17's Table 1 counts.
SIZES = {
  'cifar10': ('CIFAR-10', 'cifar10', ''),
  'celeba': ('CelebA', 'celeba', ''),
  'lsun': ('LSUN', 'celeba', 'lsun'),
}
# Factors on the energy's rate, of which validation images choose one.
FACTORS = (0.3, 1.0, 3.0)
TRIAL_SEED = 1000  # of no run that is reported
# Images of a data set that a matched row learns from; the others choose its rate.
LEARNED = {'cifar10': 45_000, 'mnist': 50_000, 'fashion_mnist': 50_000}


def _configs(plan):
  """Returns the configs of SteinGAN, DCGAN and the classifier."""
  return [
    (name, 'smoke' if plan.smoke else scale)
    for name, scale in CONFIGS[plan.options.dataset]
  ]


def table_rows(plan: scripts.Plan) -> list[rows.Row]:
  """Returns the rows of the table."""
  steingan, gan, classifier = _configs(plan)
  return [
    rows.Row('real', 'real images', classifier),
    # LW17's warning: copies of 500 images deceive an inception score.
    rows.Row('duplicates', '500 duplicates', classifier),
    rows.Row('dcgan', 'DCGAN', gan),
    rows.Row('steingan', 'SteinGAN', steingan, APART),
    rows.Row(
      'steingan-no-kernel',
      'SteinGAN without kernel',
      steingan,
      {**APART, 'step.direction': 'Score'},
    ),
  ]


def matched_rows(plan: scripts.Plan) -> list[rows.Row]:
  """Returns SteinGAN, and DCGAN with as many parameters and the same choices."""
  steingan, gan, _ = _configs(plan)
  return [
    rows.Row('steingan-chosen', 'SteinGAN, rate chosen', steingan, APART),
    rows.Row('dcgan-matched', 'DCGAN, matched, rate chosen', gan),
  ]


def size_rows(plan: scripts.Plan) -> list[rows.Row]:
  """Returns the networks of LW17 Table 1, of CIFAR-10's folder alone."""
  if plan.options.dataset != 'cifar10':
    return []
  return [
    *(
      rows.Row(
        f'size-{name.lower()}-{key}',
        f'{name}, {images}',
        (f'{config}_{data}', scale),
        single=True,
      )
      for key, (images, data, scale) in SIZES.items()
      for name, config in (('DCGAN', 'gan'), ('SteinGAN', 'steingan'))
    ),
    rows.Row(
      'size-dcgan-cifar10-four',
      'DCGAN, CIFAR-10, four layers',
      ('gan_cifar10', ''),
      {'energy.widths': (128, 256, 512, 1024)},  # those of 64 pixels
      single=True,
    ),
  ]


def size_run(plan: scripts.Plan, row: rows.Row, seed: int):
  """Returns the parameters of a row's energy and of its generator."""
  del plan
  found = budgets.parameters(rows.get_config(row, seed))
  return {f'{name}_parameters': size for name, size in found.items()}, None


def config_of(plan: scripts.Plan, row: rows.Row, seed: int):
  """Returns the row's config on the plan's data."""
  config = rows.get_config(row, seed)
  if plan.smoke:  # which is on noise
    return config
  return rows.on_data(config, plan.options.dataset, plan.options.npz)


def classifier_config(plan: scripts.Plan):
  """Returns the config of the network that judges, and that learns from samples."""
  config = config_of(plan, table_rows(plan)[0], 0)
  # The ResNet has a depth to choose, the small CNN has none.
  if 'depth' in config.classifier:
    config.classifier.depth = plan.options.depth
  num_steps = plan.options.classifier_steps or config.num_steps
  return rows.with_length(config, num_steps)


def narrowed(config, factor: int):
  """Returns the config with networks of a `factor`-th of the width, at least 1."""
  # All widths by one factor, so that networks keep their proportions.
  narrow = lambda widths: tuple(max(1, width // factor) for width in widths)
  generator, energy = config.generator, config.energy
  generator.update(
    dense=narrow(generator.get('dense', ())),
    base=max(1, generator.base // factor),
    widths=narrow(generator.widths),
  )
  # The joint energy holds an autoencoder, the discriminator does not.
  if 'autoencoder' in energy:
    convs = energy.autoencoder.convs
    energy.autoencoder.convs = tuple(
      (max(1, width // factor), *rest) for width, *rest in convs
    )
  else:
    energy.widths = narrow(energy.widths)
  return config


@functools.lru_cache(maxsize=1)
def trained_judge(plan: scripts.Plan) -> tuple[judges.Judge, float]:
  """Returns what has learned from all real images, and its test accuracy."""
  config = classifier_config(plan)
  return rows.trained_judge(plan.results, config, config.num_steps)


def run_row(plan: scripts.Plan, row: rows.Row, seed: int):
  """Returns how good a row's images are as data, and 100 of them in [0, 1].

  Names that begin with "kept/" are shares of what real images reach.
  """
  # Rows of comparison are not drawn from a model.
  make = {'real': real_images, 'duplicates': duplicates}.get(row.id, drawn)
  pictures, labels = make(plan, row, seed)
  found = judged(plan, pictures, labels)
  path = rows.result_path(plan.results, row, seed)
  config = classifier_config(plan)
  # The measure of LW17 Figure 2: samples are as good as what a classifier learns
  # from them.
  learned = rows.accuracy_from(
    path.with_name(f'{path.stem}_classifier'),
    config,
    config.num_steps,
    pictures,
    labels,
  )
  kept = {
    'accuracy': 100 * learned,
    'kept/accuracy': learned / trained_judge(plan)[1],
    'kept/inception_score': (
      found['inception_score'] / found['inception_score_of_data']
    ),
  }
  return {**found, **kept}, pictures[:100]


def trained(plan: scripts.Plan, row: rows.Row, seed: int = 0):
  """Returns the config that is trained, if one is."""
  ids = [each.id for each in (*table_rows(plan)[2:], *matched_rows(plan))]
  if row.id not in ids:
    return None
  config = narrowed(config_of(plan, row, seed), plan.options.width)
  if row.id == 'dcgan-matched':
    steingan = trained(plan, matched_rows(plan)[0])
    widened(config, budgets.parameters(steingan)['energy'])
    config.batch_size = steingan.batch_size
    return rows.with_length(config, steingan.num_steps)
  # Schedules end with the run, however long it is.
  return rows.with_length(config, plan.steps or config.num_steps)


def widened(config, num: int) -> None:
  """Widens a discriminator, by eighths, until it has so many parameters."""
  widths = config.energy.widths
  for eighths in itertools.count(8):
    # All widths by one factor, so that the network keeps its proportions.
    config.energy.widths = tuple(eighths * width // 8 for width in widths)
    if budgets.parameters(config)['energy'] >= num:
      return


def at_rate(plan: scripts.Plan, config, factor: float):
  """Returns the config with that factor on the energy's rate; both rates fall to 0."""
  for name, times in (('energy', factor), ('generator', 1.0)):
    optimizer = config[f'{name}_optimizer'].to_dict()
    rate = optimizer['learning_rate']
    first = rate if isinstance(rate, float) else rate['init_value']
    half = config.num_steps // 2
    optimizer['learning_rate'] = dict(
      name='linear_schedule',
      init_value=times * first,
      end_value=0.0,
      transition_begin=half,
      transition_steps=config.num_steps - half,
    )
    # As a whole, since a number cannot become a section.
    config[f'{name}_optimizer'] = config_dict.ConfigDict(optimizer)
  if not plan.smoke:
    config.data.split = f'train[:{LEARNED[plan.options.dataset]}]'
  return config


def chosen(plan: scripts.Plan, row: rows.Row) -> float:
  """Returns the factor whose samples are nearest to validation images (Frechet)."""
  folder = plan.results / 'trials' / row.id
  if (folder / 'chosen.json').exists():
    return reporting.read_json(folder / 'chosen.json')['factor']
  distances = {}
  for factor in FACTORS:
    config = at_rate(plan, trained(plan, row, TRIAL_SEED), factor)
    generator = training.train(config, folder / f'{factor:g}').generator
    section = {**config.evaluation.data}
    if not plan.smoke:
      section['split'] = f'train[{LEARNED[plan.options.dataset]}:]'
    data = datasets.to_unit(datasets.load(**section)[:]['image'], section)
    samples = rows.drawn(generator, len(data), TRIAL_SEED)
    samples = datasets.to_unit(samples, config.data)
    found = judges.judged(trained_judge(plan)[0], samples, data)
    distances[factor] = found['frechet_distance']
  best = min(distances, key=distances.get)
  said = {
    'factor': best,
    'distances': {f'{k:g}': v for k, v in distances.items()},
  }
  reporting.write_json(folder / 'chosen.json', said)
  return best


def drawn(plan: scripts.Plan, row: rows.Row, seed: int):
  """Returns samples of a conditional model in [0, 1], and the labels asked for."""
  config = trained(plan, row, seed)
  if row in matched_rows(plan):
    config = at_rate(plan, config, chosen(plan, row))
  path = rows.result_path(plan.results, row, seed)
  generator = training.train(config, path.with_name(path.stem)).generator
  samples = rows.drawn(generator, plan.options.samples, seed + 1)
  # Classes in turn, which is how samples are drawn.
  labels = np.arange(len(samples)) % generator.num_classes
  return datasets.to_unit(samples, config.data), labels


def duplicates(plan: scripts.Plan, row: rows.Row, seed: int):
  """Returns 500 training images, in as many copies as it takes, and their labels."""
  num = 6 if plan.smoke else 500
  pictures, labels = metrics.duplicates(
    *_all_images(plan, row, seed),
    num_distinct=num,
    # As many images as each model draws, so that no row has more to learn from.
    copies=plan.options.samples // num,
    seed=seed,
  )
  order = np.random.default_rng(seed).permutation(len(pictures))
  return pictures[order], labels[order]


def real_images(plan: scripts.Plan, row: rows.Row, seed: int):
  """Returns as many training images in [0, 1] as are drawn, and their labels."""
  num = plan.options.samples
  return tuple(x[:num] for x in _all_images(plan, row, seed))


def _all_images(plan, row, seed):
  """Returns the training images in [0, 1] and their labels, in random order."""
  config = config_of(plan, row, seed)
  batch = datasets.load(**config.data)[:]
  order = np.random.default_rng(seed).permutation(len(batch['label']))
  # Judges see images in [0, 1], whatever range the networks have.
  pictures = datasets.to_unit(batch['image'][order], config.data)
  return pictures, batch['label'][order]


def judged(plan: scripts.Plan, pictures, labels) -> dict[str, float]:
  """Returns what the judges say of images in [0, 1] beside real test images."""
  config = classifier_config(plan)
  test = datasets.load(**config.evaluation.data)[:]['image']
  data = datasets.to_unit(test, config.evaluation.data)
  # A thousand, since distances between all pairs grow with the square.
  found = metrics.diversity(pictures[:1000], data[:1000])
  found |= judges.judged(trained_judge(plan)[0], pictures, data, labels=labels)
  if plan.options.inception:
    imagenet = judges.inception_judge(plan.options.inception)
    numbers = judges.judged(imagenet, pictures, data, labels=labels)
    found |= {f'imagenet_{key}': value for key, value in numbers.items()}
  return found


def report(plan: scripts.Plan) -> scripts.Report:
  """Returns the tables and pictures of what is there."""
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
  table = [*table_rows(plan), *matched_rows(plan)]
  title = f'Samples as data: {plan.options.dataset}'
  # The sizes need no judge, and shall not train one.
  if any(rows.results(plan.results, row, plan.seeds) for row in table):
    right = trained_judge(plan)[1]
    title += f'; the judge has {right:.2%} of the test images right'
  return scripts.Report(
    title,
    {
      'Here': rows.table(plan.results, table, columns, plan.seeds),
      'Printed, of CIFAR-10': rows.printed(_PRINTED_COLUMNS, PRINTED),
      'Parameters': _size_table(plan),
    },
    scripts.row_figures(plan, table),
  )


def _size_table(plan):
  """Returns a line for each network whose parameters have been counted."""
  return [
    {
      '': row.name,
      'energy or discriminator': f'{found["energy_parameters"]:,}',
      'generator': f'{found["generator_parameters"]:,}',
    }
    for row in size_rows(plan)
    for found in rows.results(plan.results, row, 1)
  ]


_PRINTED_COLUMNS = (
  'inception score, ImageNet',
  'inception score, Inception trained on CIFAR-10',
  'accuracy of a ResNet trained on them (%)',
)

SCRIPT = scripts.Script(
  'cifar10',
  steps=scripts.Option(
    None, "Steps of every model; the configs' own without.", smoke=4, minimum=1
  ),
  seeds=3,
  parts={
    'rows': scripts.Part(table_rows, run_row),
    'matched': scripts.Part(matched_rows, run_row),
    'sizes': scripts.Part(size_rows, size_run),
  },
  report=report,
  trained=trained,
  options={
    'dataset': scripts.Option(
      'cifar10', 'What is learned.', choices=tuple(CONFIGS)
    ),
    'npz': scripts.NPZ,
    'inception': scripts.Option(
      None, 'File of the ImageNet Inception of 2015, a second judge.'
    ),
    'classifier_steps': scripts.Option(
      None,
      "Steps of every classifier; the config's own without.",
      smoke=4,
      minimum=1,
    ),
    'width': scripts.Option(
      1, "Networks have the configs' widths over this.", smoke=1, minimum=1
    ),
    'depth': scripts.Option(
      32, 'Layers of the ResNet: 8, 14, 20 and so on.', smoke=8, minimum=8
    ),
    'samples': scripts.Option(
      50_000,
      'Samples drawn of each model, and as many copies and real images.',
      smoke=60,
      minimum=1000,
    ),
  },
)


if __name__ == '__main__':
  launch.run(scripts.main(SCRIPT))
