"""How good a model is: pure metrics, and `evaluate` on a finished run."""

from collections.abc import Callable, Mapping
import functools
import os
import pathlib
import tempfile
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np

from stein_jax import algorithms
from stein_jax import build
from stein_jax import checkpoints
from stein_jax import checks
from stein_jax import datasets
from stein_jax import dtypes
from stein_jax import energies
from stein_jax import generators
from stein_jax import images
from stein_jax import inception
from stein_jax import kernels
from stein_jax import locations
from stein_jax import metrics
from stein_jax import parallel
from stein_jax import reporting
from stein_jax import samplers
from stein_jax import stein
from stein_jax.learners import Learner
from stein_jax.types import Array, PRNGKey, Tree

# Images [n, h, w, c] in [0, 1] to features [n, f] and logits [n, k].
Judge = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

inception_score = metrics.inception_score
frechet_distance = metrics.frechet_distance

_SHOWN = 400  # samples in a picture, at most
_MANIFOLD_ROWS = 5000  # whose matrix of distances is held


def log_likelihood(energy: Learner, x: Array, log_partition: Array) -> Array:
  """Returns log p(x) = -E(x) - log Z [n], in nats.

  Raises:
    ValueError: exp(-E) is no density of one example, or E is not [n].
  """
  energies.check_density(energy)
  return -energies.value(energy, energy.params, x) - log_partition


def log_mean_exp(log_weights: Array) -> Array:
  """Returns log mean exp of the weights [n], []."""
  log_weights = dtypes.accumulated(log_weights)
  if not log_weights.size:
    raise ValueError('There is no mean of no weights.')
  return jax.nn.logsumexp(log_weights) - jnp.log(float(log_weights.size))


def exact_log_partition(energy: Learner) -> Array:
  """Returns log Z [] from the energy's own method; see `energies.log_partition`."""
  return energies.log_partition(energy, energy.params)


def ais_log_partition(
  energy: Learner,
  rng: PRNGKey,
  *,
  num_chains: int = 100,
  num_temperatures: int = 1000,
  step_size: float = 0.2,
  init: Array | None = None,
) -> Array:
  """Returns an estimate of log Z [] by annealed importance sampling.

  From N(0, I) a lower bound in expectation; from exact samples `init` an upper
  one. Arguments as in `samplers.annealed_importance`.

  Raises:
    ValueError: exp(-E) is no density of one example, or E is not [n].
  """
  energies.check_density(energy)
  log_weights = samplers.annealed_importance(
    rng,
    lambda x: -energies.value(energy, energy.params, x),
    energy.input_shape,
    num_chains=num_chains,
    num_temperatures=num_temperatures,
    step_size=step_size,
    init=init,
  )
  if init is None:
    return log_mean_exp(log_weights)
  return -log_mean_exp(-log_weights)


def energy_distance(x: Array, y: Array) -> Array:
  """Returns the energy distance 2 E|x - y| - E|x - x'| - E|y - y'| [] [SR13].

  Zero in the mean only where two samples [n, d], [m, d] have one law: the means over
  pairs leave out those of a point with itself, so it can be below zero. Differentiable,
  with slope 0 where points coincide; memory is bounded.

  Raises:
    ValueError: points that are not [n, d] and [m, d], or fewer than 2 of either,
      which have no pair.
  """
  x, y = dtypes.accumulated(x), dtypes.accumulated(y)
  if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
    raise ValueError(
      f'Points must be [n, d] and [m, d]; got {x.shape} and {y.shape}.'
    )
  if min(len(x), len(y)) < 2:
    raise ValueError(f'{len(x)} and {len(y)} points: each needs 2 for a pair.')

  def distance(a, b, same):
    def from_row(row):
      square = jnp.sum((row[None] - b) ** 2, 1)
      apart = square != 0
      root = jnp.sqrt(jnp.where(apart, square, 1))  # which has no slope at 0
      return jnp.sum(jnp.where(apart, root, 0))

    total = jnp.sum(kernels.map_rows(from_row, a, b.size, None))
    return total / (len(a) * (len(b) - same))

  return 2 * distance(x, y, 0) - distance(x, x, 1) - distance(y, y, 1)


def check_section(section) -> None:
  """Raises ValueError or TypeError unless a config's `evaluation` section is one."""
  signature = lambda data, log_likelihood, num_samples, ais=None: None
  with build.section('evaluation'):
    build.check_call(signature, section, 'evaluation')
    checks.section(data=section.data)
    checks.choice(
      ('exact', 'ais', 'none'), log_likelihood=section.log_likelihood
    )
    checks.count(num_samples=section.num_samples)
  ais = section.get('ais', {})
  with build.section('evaluation.ais'):
    build.check_call(ais_log_partition, ais, 'ais', None, None)
    checks.positive(**ais)


def check(config, state, source, test_source) -> None:
  """Raises ValueError if a state like this cannot be evaluated as asked.

  Args:
    config: its `evaluation` section is what asks.
    state: a state, or its shapes.
    source: of the training data.
    test_source: of the test data.
  """
  data, test_data = source[slice(0, 1)], test_source[slice(0, 1)]
  labels = ('label',) if hasattr(state, 'classifier') else ()
  for name in ('image', 'condition', *labels):
    shapes = [
      of[name].shape[1:] if name in of else 'none' for of in (data, test_data)
    ]
    if shapes[0] != shapes[1]:
      raise ValueError(
        f'evaluation.data has {name} {shapes[1]}, data has {shapes[0]}: they '
        'must be alike.'
      )
  for name in ('pixels', 'scale'):
    values = [getattr(of, name) for of in (source, test_source)]
    if values[0] != values[1]:
      raise ValueError(
        f'evaluation.data has {name}={values[1]!r}, data has {values[0]!r}: '
        'they must be alike.'
      )
  method = config.evaluation.log_likelihood
  if method != 'none' and not hasattr(state, 'energy'):
    raise ValueError(
      f'evaluation.log_likelihood={method!r} needs an energy, and '
      f"{config.algorithm} learns none; allowed: 'none'."
    )
  if method == 'none':
    return
  rng, x = jax.random.key(0), test_data['image']
  try:
    if method == 'exact':
      jax.eval_shape(exact_log_partition, state.energy)
    else:
      jax.eval_shape(_estimator(config), state.energy, rng)
    jax.eval_shape(log_likelihood, state.energy, x, 0.0)
  except (AttributeError, TypeError, ValueError) as error:
    raise ValueError(
      f'evaluation.log_likelihood={method!r} does not fit the energy: {error} '
      "Allowed: 'ais', where the energy takes images alone and does not mix its "
      "batch, or 'none'."
    ) from error


def test_metrics(config, state, source) -> dict[str, float]:
  """Returns the test metrics of a state on a source.

  Of a classifier 'test/accuracy'. Where `config.evaluation` asks for it
  'test/log_likelihood' in nats, the mean over the source, by the energy's own
  log Z ('exact') or an estimate of it ('ais', with `config.evaluation.ais` its
  keywords, which overstates the likelihood).
  """
  if hasattr(state, 'classifier'):
    labels = source[:]['label']
    logits = _classified(state.classifier, source[:]['image'])[1]
    checks.labels(logits.shape[1], label=labels)
    hits = np.argmax(logits, 1) == labels
    known = np.all(np.isfinite(logits), 1)
    return {'test/accuracy': float(np.mean(np.where(known, hits, np.nan)))}
  if config.evaluation.log_likelihood == 'none':
    return {}
  energy = state.energy
  found = {}
  if config.evaluation.log_likelihood == 'exact':
    log_partition = _jitted_exact(energy)
  else:
    rng = jax.random.key(config.seed)
    log_partition = jax.jit(_estimator(config))(energy, rng)
    found['test/log_partition'] = float(log_partition)
  total = 0.0
  for first in range(0, len(source), 1000):
    rows = source[slice(first, first + 1000)]['image']
    values = _jitted_log_likelihood(energy, rows, log_partition)
    total += float(np.sum(np.asarray(values, np.float64)))
  found['test/log_likelihood'] = total / len(source)
  return found


def _estimator(config):
  options = config.evaluation.get('ais', {})
  return functools.partial(ais_log_partition, **options)


_jitted_log_likelihood = jax.jit(log_likelihood)
_jitted_exact = jax.jit(exact_log_partition)


@jax.jit
def _classify(classifier, rows):
  return classifier.apply_fn(classifier.params, rows)


def _classified(classifier, rows):
  """Returns the classifier's features [n, f] and logits [n, k], by blocks."""
  blocks = [
    _classify(classifier, rows[first : first + 1000])
    for first in range(0, len(rows), 1000)
  ]
  return tuple(np.concatenate(part) for part in zip(*blocks, strict=True))


def sampler(algorithm, config, source) -> Callable[[Any], Tree]:
  """Returns a compiled function of the state: `config.evaluation`'s samples.

  They are made of the first images of the source's conditions, where it has any. Of
  an algorithm that has nothing to draw, a function that returns None.
  """
  if not hasattr(algorithm, 'sample'):
    return lambda state: None
  rng = jax.random.key(config.seed + 1)
  num, options = config.evaluation.num_samples, dict(config.sample)
  if 'condition' in source[slice(0, 1)]:
    options['condition'] = source[slice(0, num)]['condition']
    num = len(options['condition'])
  return jax.jit(lambda state: algorithm.sample(state, rng, num, **options))


def picture(samples, batch, *, columns: int | None = None) -> bytes | None:
  """Returns a PNG of samples: a grid of images, or a scatter over the batch's data.

  None for what has no picture: more dimensions, or a tree.

  Args:
    samples: what to show.
    batch: data beside it, whose range is that of the picture.
    columns: of the grid; a square without.
  """
  if not hasattr(samples, 'ndim'):
    return None
  samples, data = np.asarray(samples), batch['image']
  if samples.ndim == 4 and samples.shape[-1] in (1, 3):
    grid = images.grid(_shown(samples, data), columns=columns)
    return images.png(grid, zoom=3)
  if samples.ndim == 2 and samples.shape[1] <= 2:
    return reporting.scatter({'data': data[: len(samples)], 'samples': samples})
  return None


def judge(config, workdir) -> Judge:
  """Returns the judge that a finished run of `classification` is.

  Raises:
    FileNotFoundError: the workdir has no checkpoint.
    ValueError: it is a run of another algorithm.
  """
  if config.algorithm != 'classification':
    raise ValueError(
      f'{workdir} is a run of {config.algorithm}; allowed: classification.'
    )
  classifier = restore(config, workdir).classifier
  return lambda rows: _classified(
    classifier, datasets.from_unit(rows, config.data)
  )


def inception_judge(path) -> Judge:
  """Returns the ImageNet Inception judge; see `inception.load` for the file."""
  params = inception.load(path)
  # Bytes times 255 would wrap.
  return lambda rows: inception.activations(
    params, np.float32(255) * np.asarray(rows, np.float32)
  )


def judged(
  judge: Judge, samples, data, *, labels: np.ndarray | None = None
) -> dict[str, float]:
  """Returns what a judge says of samples beside data, both [n, h, w, c] in [0, 1].

  Inception score, Frechet distance to the data, the classes' share and entropy,
  precision and recall, density and coverage; and the share of samples that are
  given the label they were made with.

  Raises:
    ValueError: a judge that does not say [n, f] and [n, k] of n images, or labels
      that are not [n] and among the k classes.
  """
  features, logits = _said(judge, samples)
  real_features, real_logits = _said(judge, data)
  splits = max(1, min(10, len(samples) // 1000, len(data) // 1000))
  score, spread = metrics.inception_score(logits, splits)
  found = {
    'inception_score': score,
    'inception_score_spread': spread,
    'inception_score_of_data': metrics.inception_score(real_logits, splits)[0],
    'frechet_distance': metrics.frechet_distance(features, real_features),
    'class_entropy': metrics.histogram_entropy(metrics.class_histogram(logits)),
  }
  if min(len(samples), len(data)) > 10:
    few = slice(0, _MANIFOLD_ROWS)
    found |= metrics.manifold_metrics(real_features[few], features[few])
  if labels is not None:
    checks.labels(logits.shape[1], labels=labels)
    checks.per_example(len(samples), labels=labels)
    hits = np.argmax(logits, 1) == np.asarray(labels)
    known = np.isfinite(np.max(logits, 1)).all()
    found['own_label'] = float(np.mean(hits)) if known else float('nan')
  return found


def _said(judge, images):
  """Returns a judge's features [n, f] and logits [n, k] of images [n, ...]."""
  features, logits = map(np.asarray, judge(images))
  for name, rows in (('features', features), ('logits', logits)):
    if rows.ndim != 2 or len(rows) != len(images):
      raise ValueError(
        f"The judge's {name} have shape {rows.shape}; wanted: [n, k] of "
        f'{len(images)} images.'
      )
  return features, logits


def diversity(samples, data, training=None) -> dict[str, float]:
  """Returns distances among samples [n, ...] and data [m, ...], in their units.

  Mean pairwise and nearest-neighbour distances of both; with training images, the
  mean distance of a sample, and of a datum, to the nearest of them: a sampler that
  remembers is nearer to them than data are.
  """
  found = {
    'samples/pairwise_distance': metrics.pairwise_distance(samples),
    'data/pairwise_distance': metrics.pairwise_distance(data),
    'samples/nearest_distance': metrics.nearest_neighbour_distance(samples),
    'data/nearest_distance': metrics.nearest_neighbour_distance(data),
  }
  if training is not None:
    for name, rows in (('samples', samples), ('data', data)):
      distance, _ = metrics.nearest_training(rows, training)
      found[f'{name}/nearest_training'] = float(np.mean(distance))
  return found


def restore(config, workdir):
  """Returns the state of a run's newest whole checkpoint.

  Raises:
    FileNotFoundError: the workdir has no checkpoint.
  """
  workdir = locations.absolute(workdir)
  manager = checkpoints.manager(workdir / 'checkpoints', read_only=True)
  if manager.latest_step() is None:
    raise FileNotFoundError(f'No checkpoint in {workdir}; train there first.')
  source = datasets.load(**config.data)
  batch = next(
    datasets.batches(source, config.batch_size, seed=config.seed, whole=True)
  )
  state = algorithms.get(config.algorithm).init(
    jax.random.key(config.seed), config, batch
  )
  return checkpoints.restore(manager, parallel.replicate(state))


def evaluate(
  config, workdir, *, judges: Mapping[str, Judge] | None = None
) -> dict[str, float]:
  """Returns the metrics of a run's newest checkpoint, and writes its report.

  Writes evaluation.json, samples.npy, samples.png and report.html to the workdir;
  of images also samples.npz, uint8 with labels where there are any, for
  `datasets.npz`; of a generator moving pictures of walks in latent space.

  Args:
    config: of the run; its `evaluation` section says what is measured.
    workdir: where the run is.
    judges: names to judges of the samples; see `judged`.

  Raises:
    FileNotFoundError: the workdir has no checkpoint.
    PermissionError: it cannot be written.
  """
  workdir = locations.absolute(workdir)
  if workdir.exists() and not os.access(workdir, os.W_OK):
    raise PermissionError(f'{workdir} cannot be written.')
  with (
    tempfile.TemporaryDirectory() as nowhere,
    jax.default_matmul_precision(config.matmul_precision),
  ):
    # All processes compute, for they share the state; the first one writes.
    folder = workdir if jax.process_index() == 0 else pathlib.Path(nowhere)
    return _evaluate(config, workdir, folder, judges or {})


def _evaluate(config, workdir, folder, judges):
  """Returns what `evaluate` does, and writes to the folder."""
  algorithm = algorithms.get(config.algorithm)
  source = datasets.load(**config.data)
  test_source = datasets.load(**config.evaluation.data)
  state = restore(config, workdir)
  logging.info('Evaluating step %d of %s.', int(state.step), workdir)

  found = test_metrics(config, state, test_source)
  samples = sampler(algorithm, config, test_source)(state)
  test_batch = test_source[slice(0, config.evaluation.num_samples)]
  sections = []
  if isinstance(samples, jax.Array):
    samples = np.asarray(samples)
    np.save(folder / 'samples.npy', samples)
    found |= _sample_metrics(config, state, samples, test_batch, source, judges)
    sections = _sample_sections(config, folder, state, samples, test_batch)
  numbers = {'step': int(state.step), **found}
  reporting.write_json(folder / 'evaluation.json', numbers)
  reporting.write_page(
    folder / 'report.html',
    f'{config.algorithm} on {config.data.name}',
    [
      ('Numbers', numbers),
      *_curve_sections(workdir),
      *sections,
      ('Config', reporting.flat_config(config)),
      ('Code', f'commit {reporting.commit()}'),
    ],
  )
  return found


def recovered(samples, batch, section) -> dict[str, float]:
  """Returns how near images made of conditions are to the true ones.

  The means of the peak signal-to-noise ratio in dB and the structural similarity over
  images; where a mask says what was known, also with that put in its place.

  Args:
    samples: [n, h, w, c].
    batch: 'image', like them, and 'mask' [n, h, w, 1] of 0 and 1 where there is one.
    section: the config's data section, which says what range images have.

  Raises:
    ValueError: images of two shapes, or a mask with other values.
  """
  unit = functools.partial(datasets.to_unit, section=section)
  data, versions = unit(batch['image']), {'': unit(samples)}
  if 'mask' in batch:
    if not np.isin(batch['mask'], (0, 1)).all():
      raise ValueError(
        'mask must be 0 where a pixel is unknown, and 1 elsewhere.'
      )
    versions['_pasted'] = np.where(batch['mask'], data, versions[''])
  found = {}
  for name, version in versions.items():
    found[f'samples/psnr{name}'] = np.mean(metrics.psnr(version, data))
    found[f'samples/ssim{name}'] = np.mean(metrics.ssim(version, data))
  return {name: float(value) for name, value in found.items()}


def _sample_metrics(config, state, samples, batch, source, judges):
  """Returns the metrics of samples [n, ...] beside a batch of data."""
  data = batch['image']
  if 'condition' in batch:
    return recovered(samples, batch, config.data)
  if min(len(samples), len(data)) < 2:
    return {}
  if samples.ndim == 2:
    x, y = jnp.asarray(samples), jnp.asarray(data)
    found = {'samples/energy_distance': float(energy_distance(x, y))}
    rng = jax.random.key(config.seed)
    found['samples/two_sample_p'] = float(metrics.two_sample_test(rng, x, y)[1])
    if hasattr(state, 'energy'):
      score = energies.score(state.energy, x)
      kernel = kernels.at_median('rbf', x)
      found['samples/ksd'] = float(stein.ksd(x, score, kernel))
    return found
  if samples.ndim != 4:
    return {}
  # Sets that are read on demand are too large to search.
  training = source[:]['image'] if isinstance(source, datasets.Arrays) else None
  found = diversity(samples, data, training)
  unit = functools.partial(datasets.to_unit, section=config.data)
  labels = _labels(state, len(samples))
  for name, judge in judges.items():
    said = judged(judge, unit(samples), unit(data), labels=labels)
    found |= {f'{name}/{key}': value for key, value in said.items()}
  return found


def _labels(state, num):
  """Returns the labels [num] of a state's samples, None without."""
  if not hasattr(state, 'generator'):
    return None
  classes = generators.num_classes(state.generator)
  return np.arange(num) % classes if classes else None


def _sample_sections(config, folder, state, samples, batch):
  """Returns the report's sections of samples, and writes their files."""
  labels = _labels(state, len(samples))
  classes = 0 if labels is None else generators.num_classes(state.generator)
  image = picture(samples[:_SHOWN], batch, columns=classes or None)
  if not image:
    return []
  (folder / 'samples.png').write_bytes(image)
  sections = [
    ('Samples, a column for each class' if classes else 'Samples', image)
  ]
  if samples.ndim != 4:
    return sections
  unit = np.round(255 * datasets.to_unit(samples, config.data))
  arrays = {} if labels is None else {'label': labels}
  np.savez(folder / 'samples.npz', image=unit.astype(np.uint8), **arrays)
  if 'condition' in batch:
    title = 'What is known, what was made of it, and the true image'
    return [*sections, (title, recovery_page(samples, batch, config.data))]
  sections.append(('Data', picture(batch['image'][:_SHOWN], batch)))
  if not hasattr(state, 'generator'):
    return sections
  shown = functools.partial(_shown, data=batch['image'])
  for name, (title, paths) in _latent_paths(config, state).items():
    paths = shown(np.asarray(paths))
    (folder / f'{name}.gif').write_bytes(images.gif(paths, zoom=3))
    sections.append((title, images.png(images.strips(paths), zoom=2)))
  return sections


def _latent_paths(config, state):
  """Returns a title and images [k, t, ...] for each way through latent space.

  Images that the algorithm revises are shown revised, and on the way there.
  """
  algorithm = algorithms.get(config.algorithm)
  rng = jax.random.key(config.seed + 2)
  paths = {
    'random_walk': (
      'Random walks in latent space, every fourth step',
      generators.random_walk(
        state.generator, rng, num_walks=4, num_steps=120, step_size=0.1
      )[:, ::4],
    )
  }
  points = generators.interpolate(
    state.generator, rng, num_pairs=8, num_points=15
  )
  if not (hasattr(algorithm, 'revise') and config.sample.num_steps):
    return {**paths, 'interpolation': ('Between two latent vectors', points)}
  revise = functools.partial(algorithm.revise, state, **config.sample)
  ends = revise(rng, points.reshape(-1, *points.shape[2:]))
  paths['interpolation'] = (
    'Between two latent vectors, revised',
    ends.reshape(points.shape),
  )
  strip = [generators.sample(state.generator, rng, 8)]
  for i in range(config.sample.num_steps):
    key = jax.random.fold_in(rng, i)
    strip.append(revise(key, strip[-1], num_steps=1))
  title = 'A sample of the generator, and every step of its revision'
  return {**paths, 'revision': (title, jnp.stack(strip, 1))}


def recovery_page(samples, batch, section, *, num: int = 8) -> bytes:
  """Returns a PNG: a row each of conditions, samples and true images."""
  rows = [
    datasets.to_unit(x[:num], section)
    for x in (batch['condition'], samples, batch['image'])
  ]
  return images.png(images.strips(np.stack(rows)), zoom=2)


def _shown(samples, data):
  """Returns samples with the range of the data, 0 in it, as [0, 1]."""
  low = min(0.0, float(data.min()))
  return (samples - low) / ((float(data.max()) - low) or 1.0)


def _curve_sections(workdir):
  """Returns one plot for each metric that the run logged more than once."""
  lines = reporting.read_metrics(workdir)
  names = {name: None for line in lines for name in line if name != 'step'}
  sections = []
  for name in names:
    points = [(line['step'], line[name]) for line in lines if name in line]
    if len(points) > 1:
      plot = reporting.curves(
        {name: tuple(zip(*points, strict=True))}, xlabel='step', ylabel=name
      )
      sections.append((name, plot))
  return sections
