r"""Z16 on real images: VGAN's features, and what rho does to VCD.

Part 'table1' trains GAN and VGAN with one and three generator steps, shows their
samples (figure 2), which a classifier trained on real images here judges, and asks a
linear classifier what it can read off their energies' last layer, beside pixels and
random features. Part 'vcd' trains VCD at every rho:
reconstructions, samples and Markov chains, as grids and moving (figures 3 to 5); and on
all but CIFAR-10 a classifier of 1,000 labels with what the transition operator makes of
its images (table 2). Part 'choices', on MNIST, takes VGAN apart: it trains without
either entropy, with an energy that has no bound, and GANs whose discriminator
normalises data and samples in one batch or in two. Networks are narrow, for two cores;
with `--full` they are the authors'. What the paper prints stands beside. Every finished
run is a file: an interrupted call continues.

Example:
  python -m experiments.reproduce.vgan --results=results/vgan --dataset=mnist
  python -m experiments.reproduce.vgan --results=results/svhn --dataset=svhn_cropped \
    --part=vcd --full --steps=30000 --classifier_steps=2000
"""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.reproduce import rows
from experiments.reproduce import scripts
from stein_jax import datasets
from stein_jax import energies
from stein_jax import generators
from stein_jax import learners
from stein_jax import metrics
from stein_jax.algorithms import vcd
from stein_jax.runs import evaluation
from stein_jax.runs import images
from stein_jax.runs import judges
from stein_jax.runs import launch
from stein_jax.runs import reporting

# The configs of VCD and of the classifier of few labels, by data set. CIFAR-10 has no
# classifier: the paper says that augmentation does not help there.
# Fashion-MNIST has MNIST's shape, and so its networks.
VCD = {
  'mnist': ('vcd_mnist', 'classification_mnist'),
  'fashion_mnist': ('vcd_mnist', 'classification_mnist'),
  'svhn_cropped': ('vcd_svhn', 'classification_cifar10'),
  'cifar10': ('vcd_cifar10', None),
}
# The paper's grid (table 2).
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
VGAN, GAN = ('vgan_mnist', ''), ('gan_mnist', '')
UNBOUNDED = ('vgan_mnist', 'unbounded')
NO_SAMPLES = {'step.generator_entropy': 0.0}
NO_DATA = {'step.data_entropy': 0.0}
# A generator that cannot follow shows what the bound is for.
BEHIND = {'generator_optimizer.learning_rate': 1e-3}  # a hundredth
CHOICES = (
  rows.Row('both-entropies', 'both entropies', VGAN),
  rows.Row('no-sample-entropy', 'without H of samples', VGAN, NO_SAMPLES),
  rows.Row('no-data-entropy', 'without H of data', VGAN, NO_DATA),
  rows.Row('no-entropy', 'without either', VGAN, {**NO_SAMPLES, **NO_DATA}),
  rows.Row('unbounded', 'without either, no bound', UNBOUNDED),
  # Both energies with both generators: what differs is the bound alone.
  rows.Row(
    'no-entropy-behind',
    'without either, generator behind',
    VGAN,
    {**NO_SAMPLES, **NO_DATA, **BEHIND},
  ),
  rows.Row(
    'unbounded-behind',
    'without either, no bound, generator behind',
    UNBOUNDED,
    BEHIND,
  ),
  rows.Row('gan-joint', 'GAN, batch norm of both', GAN, {'step.joint': True}),
  rows.Row(
    'gan-separate', 'GAN, batch norm of each', GAN, {'step.joint': False}
  ),
)
# What judges samples, by data set.
JUDGES = {
  'mnist': 'classification_mnist',
  'fashion_mnist': 'classification_mnist',
  'svhn_cropped': 'classification_cifar10',
  'cifar10': 'classification_cifar10',
}
PIXELS, RANDOM, NO_AUGMENTATION = 'pixels', 'random-features', 'no-augmentation'


def probe_rows(plan: scripts.Plan) -> list[rows.Row]:
  """Returns the rows of table 1, and beside them pixels and random features."""
  config, vgan, gan = 'vgan_cifar10', 'narrow', 'narrow_gan'
  if plan.options.full:
    vgan, gan = '', 'gan'
  # The paper has none of MNIST: narrow at any rate.
  # MNIST and Fashion-MNIST share a config.
  if plan.options.dataset.endswith('mnist'):
    config, vgan, gan = 'vgan_mnist', '', 'gan'
  return [
    *(
      rows.Row(
        f'{name.lower()}-k-{k}',
        f'{name}, k = {k}',
        (config, scale),
        {'step.num_generator_steps': k},
      )
      for name, scale in (('GAN', gan), ('VGAN', vgan))
      for k in (1, 3)
    ),
    rows.Row(RANDOM, 'random features', (config, vgan)),
    rows.Row(PIXELS, 'pixels', (config, vgan), single=True),
  ]


def vcd_rows(plan: scripts.Plan) -> list[rows.Row]:
  """Returns VCD at every rho, and no augmentation where a classifier can have some."""
  name, classifier = VCD[plan.options.dataset]
  config = (name, '' if plan.options.full else 'narrow')
  none = [rows.Row(NO_AUGMENTATION, 'no augmentation', config)]
  return (none if classifier else []) + [
    rows.Row(f'rho-{rho:g}', f'VCD, rho = {rho:g}', config, {'step.rho': rho})
    for rho in RHOS
  ]


def choice_rows(plan: scripts.Plan) -> tuple[rows.Row, ...]:
  """Returns VGAN without parts of it, and GANs by how their energy normalises."""
  return CHOICES if plan.options.dataset == 'mnist' else ()


def config_of(plan: scripts.Plan, row: rows.Row, seed: int):
  """Returns the row's config on the plan's data."""
  config = rows.get_config(row, seed)
  return rows.on_data(config, plan.options.dataset, plan.options.npz)


def trained(plan: scripts.Plan, row: rows.Row):
  """Returns the row's config, with the length of the plan's runs, if it is trained."""
  if row.id in (PIXELS, RANDOM, NO_AUGMENTATION):
    return None
  config = config_of(plan, row, 0)
  config.num_steps = plan.steps
  return config


@functools.lru_cache(maxsize=1)
def judge(plan: scripts.Plan) -> judges.Judge:
  """Returns the classifier that judges samples, trained by the first who asks."""
  row = rows.Row('judge', 'judge', (JUDGES[plan.options.dataset], ''))
  config = config_of(plan, row, 0)
  return rows.trained_judge(plan.results, config, plan.options.judge_steps)[0]


def judged(plan: scripts.Plan, config, state) -> dict[str, float]:
  """Returns what the judge says of a state's samples beside test images."""
  num = plan.options.samples
  config.evaluation.num_samples = num
  samples = datasets.to_unit(rows.sampled(config, state), config.data)
  data = datasets.load(**config.evaluation.data)[:num]['image']
  data = datasets.to_unit(data, config.data)
  found = judges.judged(judge(plan), np.clip(samples, 0, 1), data)
  return {key: found[key] for key in ('inception_score', 'frechet_distance')}


def probe_run(plan: scripts.Plan, row: rows.Row, seed: int):
  """Returns the error of a linear classifier on an energy's features, and samples."""
  config = config_of(plan, row, seed)
  training = datasets.load(**config.data)
  learned = trained(plan, row) is not None
  state, _ = rows.train(
    # Random features are those of the network before its first step.
    config,
    plan.steps if learned else 0,
    row.name,
    source=training,
  )
  samples = rows.sampled(config, state)
  see = jax.jit(
    functools.partial(learners.call, state.energy, method='features')
  )

  def features(x):
    if row.id == PIXELS:
      return x.reshape(len(x), -1)
    # In blocks, as the whole of a data set does not fit.
    blocks = np.split(x, range(1000, len(x), 1000))
    return np.concatenate([see(state.energy.params, b) for b in blocks])

  # As many labels for every row.
  known = training[: plan.options.probed]
  unknown = datasets.load(**config.evaluation.data)[:]
  accuracy = metrics.linear_probe(
    features(known['image']),
    known['label'],
    features(unknown['image']),
    unknown['label'],
  )
  pairwise = metrics.pairwise_distance(samples)
  found = {'error': 100 * (1 - accuracy), 'pairwise': pairwise}
  if not learned:
    return found, None
  return found | judged(plan, config, state), samples[:100]


def vcd_run(plan: scripts.Plan, row: rows.Row, seed: int):
  """Returns the test error with augmentation, and images of the operator's chain.

  Images are [CHAIN + 2, 10, ...]: test images, their reconstructions, and where each
  transition moves them.
  """
  config = config_of(plan, row, seed)
  # Without augmentation there is no operator, and nothing of it to show.
  operator, result, pictures = None, {}, None
  if row.id != NO_AUGMENTATION:
    operator = rows.train(config, plan.steps, row.name)[0].generator
    x = datasets.load(**config.evaluation.data)[:100]['image']
    result, pictures = moved(operator, x)
  if VCD[plan.options.dataset][1]:
    result |= few_labels(plan, config, operator, row.name)
  return result, pictures


def moved(operator, x: np.ndarray):
  """Returns what an operator does to images: numbers, and pictures of ten."""
  # Without noise: what the operator makes of an image on average.
  back = learners.call(operator, operator.params, x, method='reconstruct')
  path = vcd.transitions(operator, jax.random.key(1), x, num_steps=CHAIN)
  pictures = np.concatenate([path[:1], back[None], path[1:]])
  first = np.asarray(path[1]).reshape(len(x), -1)
  flat = x.reshape(len(x), -1)
  return {
    'reconstruction': float(np.mean((np.asarray(back) - x) ** 2)),
    'distance': float(np.mean(np.linalg.norm(first - flat, axis=1))),
    'pairwise': metrics.pairwise_distance(path[-1]),
  }, pictures[:, :10]


class Augmented:
  """A source with what an operator makes of each image, drawn anew at each reading."""

  def __init__(self, source, operator, seed: int):
    self._source, self._operator = source, operator
    # A count of readings, so that no image is augmented twice alike.
    self._rng, self._readings = jax.random.key(seed), itertools.count()
    self._move = jax.jit(functools.partial(learners.call, operator))

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, indices):
    batch = self._source[indices]
    rng = jax.random.fold_in(self._rng, next(self._readings))
    augmented = self._move(self._operator.params, rng, batch['image'])
    return {**batch, 'augmented': np.asarray(augmented)}


def few_labels(
  plan: scripts.Plan, vcd_config, operator, name: str
) -> dict[str, Any]:
  """Returns the test error of a classifier at its best validation error, in per cent.

  It learns from 1,000 labels, and as much from those images as the operator moves
  them, drawn anew each time [Z16 eq 11]; what VCD does not learn from validates.
  """
  few = rows.Row('few', '', (VCD[plan.options.dataset][1], 'few'))
  config = config_of(plan, few, vcd_config.seed)
  if plan.options.full:
    config.classifier.blocks = tuple(
      # The authors' widths are four times ours.
      tuple((4 * width, size) for width, size in block)
      for block in config.classifier.blocks
    )
    config.classifier.dropout = 0.5
  num_steps = plan.options.classifier_steps
  rows.with_length(config, num_steps)
  # VCD learns from 'train[:50000]', which leaves 'train[50000:]' to validate.
  rest = vcd_config.data.split.replace('[:', '[').replace(']', ':]')
  valid, test = (
    datasets.load(**{**config.evaluation.data, 'split': split})
    # Validation images are none that VCD or the classifier has learned from.
    for split in (
      ('train[:500]', 'test[:500]') if plan.smoke else (rest, 'test')
    )
  )
  source = datasets.load(**config.data)
  if operator is not None:
    source = Augmented(source, operator, vcd_config.seed)

  def errors(state):
    accuracies = [
      evaluation.test_metrics(config, state, held_out)['test/accuracy']
      for held_out in (valid, test)
    ]
    return [100 * (1 - accuracy) for accuracy in accuracies]

  _, seen = rows.train(
    config,
    num_steps,
    f'classifier: {name}',
    source=source,
    every=num_steps // 5,
    look=errors,
  )
  # Chosen by validation; the test error of that look is reported.
  best = min(seen, key=lambda pair: pair[0])
  return {'valid_error': best[0], 'error': best[1], 'last_error': seen[-1][1]}


def choice_run(plan: scripts.Plan, row: rows.Row, seed: int):
  """Returns the difference of energies over training, and samples at its end."""
  config = config_of(plan, row, seed)
  training = datasets.load(**config.data)
  data = training[: config.batch_size]['image']

  @jax.jit
  def gap(state):
    samples = generators.generate(
      state.generator, state.generator.params, jax.random.key(0), len(data)
    )
    # Measured as it is trained.
    joint = config.step.get('joint', True)
    values = energies.pair(
      state.energy, state.energy.params, data, samples, joint=joint
    )
    return jnp.mean(values[1]) - jnp.mean(values[0])

  state, gaps = rows.train(
    config,
    plan.steps,
    row.name,
    source=training,
    every=_every(plan),
    look=lambda state: float(gap(state)),
  )
  samples = rows.sampled(config, state)
  return {
    'gaps': gaps,
    'largest_gap': float(np.max(np.abs(gaps))),
    'last_gap': abs(gaps[-1]),
    'pairwise': metrics.pairwise_distance(samples),
  }, samples[:100]


def _every(plan):
  """Returns how many steps lie between looks at the energies."""
  return max(1, plan.steps // LOOKS)


def report(plan: scripts.Plan) -> scripts.Report:
  """Returns the tables and figures of what is there."""
  table = functools.partial(rows.table, plan.results, seeds=plan.seeds)
  probes, moves, choices = probe_rows(plan), vcd_rows(plan), choice_rows(plan)
  tables = {
    'Linear classifiers on the features of energies': table(
      probes, _PROBE_COLUMNS
    ),
    'Printed, of features on CIFAR-10': rows.printed(
      ('test error (%)',), PRINTED_FEATURES
    ),
    'Variational contrastive divergence': table(moves, _VCD_COLUMNS),
    'Printed, of augmentation, 1,000 labels': rows.printed(
      ('MNIST, test error (%)', 'SVHN, test error (%)'), PRINTED_AUGMENTATION
    ),
    'VGAN, part by part': table(choices, _CHOICE_COLUMNS),
  }
  figures = {
    **_rho_figure(plan),
    **_gap_figure(plan),
    **scripts.row_figures(plan, [*probes, *choices]),
    **scripts.row_figures(plan, moves, _chain),
  }
  for row in moves:
    pictures = rows.images_of(plan.results, row)
    if pictures is not None:
      path = rows.result_path(plan.results, row, 0).with_suffix('.gif')
      path.write_bytes(_moving(pictures))
  title = (
    f'VGAN and variational contrastive divergence on {plan.options.dataset}'
  )
  return scripts.Report(title, tables, figures)


def _chain(pictures):
  """Returns a PNG of the chains from test images [CHAIN + 2, n, ...]."""
  transitions = range(1, len(pictures) - 1)
  labels = ['test images', 'reconstructed']
  labels += [f'after {i} transition{"s"[: i > 1]}' for i in transitions]
  return images.png(images.strips(pictures), zoom=2, labels=labels)


def _moving(pictures):
  """Returns a GIF of the chains from test images [CHAIN + 2, n, ...]."""
  # Without the reconstruction, which is no state of the chain.
  chains = np.delete(pictures, 1, axis=0).swapaxes(0, 1)
  return images.gif(np.clip(chains, 0, 1), zoom=2, frames_per_second=2)


def _gap_figure(plan):
  """Returns the figure of the difference of energies over training, if there is one."""
  series = {}
  for row in choice_rows(plan):
    found = rows.results(plan.results, row, plan.seeds)
    if found:
      # Either may be the higher, and a logarithm has no sign.
      gaps = np.abs(np.array([result['gaps'] for result in found]).T)
      series[row.name] = _every(plan) * np.arange(1, len(gaps) + 1), gaps
  if not series:
    return {}
  png = reporting.curves(
    series, xlabel='step', ylabel='|E(samples) - E(data)|', log=True
  )
  return {'gaps': ('Energy of samples and of data, how far apart', png)}


def _rho_figure(plan):
  """Returns the figure of what every finished rho makes of the same images, if any."""
  strips, labels = [], []
  for row in vcd_rows(plan):
    pictures = rows.images_of(plan.results, row)
    if pictures is None:
      continue
    if not strips:
      strips, labels = [pictures[:1]], ['test images']
    strips.append(pictures[[1, 2, -1]])
    labels += [f'{row.name}: reconstructed', 'one transition', 'nine']
  if not strips:
    return {}
  page = images.strips(np.concatenate(strips))
  png = images.png(page, zoom=2, labels=labels)
  return {'rho': ('What VCD makes of test images', png)}


_PROBE_COLUMNS = {
  'test error (%)': 'error',
  'inception score': 'inception_score',
  'Frechet distance': 'frechet_distance',
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

SCRIPT = scripts.Script(
  'vgan',
  steps=scripts.Option(
    2000, 'Steps of every GAN, VGAN and VCD.', smoke=4, minimum=1
  ),
  seeds=3,
  parts={
    'table1': scripts.Part(probe_rows, probe_run),
    'vcd': scripts.Part(vcd_rows, vcd_run),
    'choices': scripts.Part(choice_rows, choice_run),
  },
  report=report,
  trained=trained,
  options={
    'dataset': scripts.Option('mnist', 'What is learned.', choices=tuple(VCD)),
    'npz': scripts.NPZ,
    'classifier_steps': scripts.Option(
      1000, 'Steps of every classifier.', smoke=5, minimum=5
    ),
    'judge_steps': scripts.Option(
      2000, 'Steps of the classifier that judges.', smoke=20, minimum=20
    ),
    'samples': scripts.Option(
      5000, 'Samples judged, of each GAN and VGAN.', smoke=200, minimum=100
    ),
    'full': scripts.Option(False, "The authors' widths, for an accelerator."),
    'probed': scripts.Option(
      10_000,
      'Images that a linear classifier learns from.',
      smoke=300,
      minimum=1,
    ),
  },
)


if __name__ == '__main__':
  launch.run(scripts.main(SCRIPT))
