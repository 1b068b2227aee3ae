"""How good a finished run is: its metrics and its report."""

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

from stein_jax import datasets
from stein_jax import energies
from stein_jax import kernels
from stein_jax import learners
from stein_jax import locations
from stein_jax import metrics
from stein_jax import parallel
from stein_jax import stein
from stein_jax.runs import configs
from stein_jax.runs import judges as judging
from stein_jax.runs import pictures
from stein_jax.runs import reporting
from stein_jax.runs import stopping
from stein_jax.runs import workdirs
from stein_jax.types import Tree

# The formulas lie where they belong; these names of them are promised.
inception_score = metrics.inception_score
frechet_distance = metrics.frechet_distance
log_likelihood = energies.log_likelihood


_LARGE_ERROR = 0.3  # nats; see `energies.ais_estimate`


def test_metrics(config, state, source) -> dict[str, float]:
  """Returns the test metrics of a state on a source.

  A classifier has 'test/accuracy'. An energy has 'test/log_likelihood' in nats where
  `config.evaluation` asks for it: the mean over the source, by the energy's own log Z
  ('exact') or by an estimate of it ('ais', with the keywords `config.evaluation.ais`),
  which overstates the likelihood. Its chains start at the mean of the first thousand
  examples, unless `base_mean` is among the keywords. An estimate has its standard error
  in nats beside it, which is that of the likelihood too, and its effective number of
  chains. Of dequantised images there is 'test/bits_per_dimension', too. An energy that
  classifies images, as `energies.MarginalLabel` does, has 'test/accuracy' and
  'test/calibration_error' where the source has labels.
  """
  state = chosen(config, state)
  if hasattr(state, 'classifier'):
    labels = source[:]['label']
    logits = judging.classified(state.classifier, source[:]['image'])[1]
    return {'test/accuracy': metrics.accuracy(logits, labels)}
  check_likelihood(config, state, source[slice(0, 1)]['image'])
  found = _of_labels(getattr(state, 'energy', None), source)
  if config.evaluation.log_likelihood == 'none':
    return found
  energy = state.energy
  if config.evaluation.log_likelihood == 'exact':
    log_partition = _jitted_exact(energy)
  else:
    rng = jax.random.key(config.seed)
    estimate = _estimated(config, energy, rng, source)
    found |= {f'test/{name}': float(v) for name, v in estimate.items()}
    log_partition = estimate['log_partition']
    error = found['test/log_partition_error']
    if not error < _LARGE_ERROR:
      logging.warning(
        'log Z, and so the likelihood, is not to be trusted: its standard error is '
        '%.2g nats, by an effective number of %.3g chains, and such errors are too '
        'small. More evaluation.ais.num_temperatures helps.',
        error,
        found['test/log_partition_ess'],
      )
  total = 0.0
  for first in range(0, len(source), 1000):
    rows = source[slice(first, first + 1000)]['image']
    values = _jitted_log_likelihood(energy, rows, log_partition)
    total += float(np.sum(np.asarray(values, np.float64)))
  found['test/log_likelihood'] = total / len(source)
  if getattr(source, 'is_dequantized', False):
    found['test/bits_per_dimension'] = datasets.bits_per_dimension(
      found['test/log_likelihood'], rows[0].size, config.evaluation.data
    )
  if 'test/log_partition_error' in found:
    # The rows are those of the test data; what is estimated is log Z alone.
    found['test/log_likelihood_error'] = found['test/log_partition_error']
  return found


def _of_labels(energy, source):
  """Returns the metrics of an energy of images alone that classifies, or {}."""
  module = getattr(energy, 'module', None)
  classifies = module is not None and learners.has_method(energy, 'logits')
  if not classifies or energy.num_classes or 'label' not in source[slice(0, 1)]:
    return {}
  parts = [
    source[slice(first, first + 1000)] for first in range(0, len(source), 1000)
  ]
  logits = np.concatenate([_jitted_logits(energy, x['image']) for x in parts])
  labels = np.concatenate([x['label'] for x in parts])
  return {
    'test/accuracy': metrics.accuracy(logits, labels),
    'test/calibration_error': metrics.calibration_error(logits, labels),
  }


@jax.jit
def _jitted_logits(energy, x):
  return learners.call(energy, energy.params, x, method='logits')


def check_likelihood(config, state, x) -> None:
  """Raises ValueError if a state's energy has not the likelihood that is asked for.

  Args:
    config: its `evaluation` section is what asks.
    state: a state, or its shapes.
    x: examples [n, ...].
  """
  method = config.evaluation.log_likelihood
  if method == 'none':
    return
  if not hasattr(state, 'energy'):
    raise ValueError(
      f'evaluation.log_likelihood={method!r} needs an energy, and '
      f"{config.algorithm} learns none; allowed: 'none'."
    )
  try:
    if method == 'exact':
      jax.eval_shape(energies.exact_log_partition, state.energy)
    else:
      jax.eval_shape(_estimator(config), state.energy, jax.random.key(0))
    jax.eval_shape(energies.log_likelihood, state.energy, x, 0.0)
  except (AttributeError, TypeError, ValueError) as error:
    said = str(error)
    # A field of the network's own has its whole name.
    if said.partition('=')[0] in config.get('energy', {}):
      said = f'energy.{said}'
    raise ValueError(
      f'evaluation.log_likelihood={method!r} does not fit the energy: {said} '
      "Allowed: 'ais', where the energy takes images alone and does not mix its "
      "batch, or 'none'."
    ) from error


def _estimated(config, energy, rng, source):
  """Returns `energies.ais_estimate` by chains that start where the data are."""
  estimate = jax.jit(_estimator(config))
  if 'base_mean' in config.evaluation.get('ais', {}):
    return estimate(energy, rng)
  mean = np.mean(source[slice(0, 1000)]['image'], 0, dtype=np.float32)
  return estimate(energy, rng, base_mean=mean)


def _estimator(config):
  options = config.evaluation.get('ais', {})
  return functools.partial(energies.ais_estimate, **options)


_jitted_log_likelihood = jax.jit(energies.log_likelihood)


_jitted_exact = jax.jit(energies.exact_log_partition)


def sampler(config, source) -> Callable[[Any], Tree]:
  """Returns a compiled function of the state: `config.evaluation`'s samples.

  They are made of the source's first conditions where these are images, and of the
  classes in turn where they are labels. Where the algorithm has nothing to draw, the
  function returns None.
  """
  draw = configs.sample(config)
  if draw is None:
    return lambda state: None
  rng = jax.random.key(config.seed + 1)
  num, options = config.evaluation.num_samples, {}
  condition = pictures.image_condition(source[slice(0, num)])
  if condition is not None:
    num, options['condition'] = len(condition), condition
  return jax.jit(lambda state: draw(chosen(config, state), rng, num, **options))


def chosen(config, state):
  """Returns the state at the parameters that `config.evaluation` names."""
  if config.evaluation.parameters == 'average':
    sections = tuple(name for name in config if name.endswith('optimizer'))
    return learners.averaged(state, sections)
  return state


def evaluate(
  config, workdir, *, judges: Mapping[str, judging.Judge] | None = None
) -> dict[str, float]:
  """Returns the metrics of a run's newest checkpoint, and writes its report.

  Writes evaluation.json, samples.npy, samples.png and report.html to the workdir;
  of images also samples.npz, uint8 with labels where there are any, for
  `datasets.npz`; of a generator moving pictures of walks in latent space.

  Args:
    config: of the run; its `evaluation` section says what is measured.
    workdir: where the run is.
    judges: names to judges of the samples; see `judges.judged`.

  Raises:
    FileNotFoundError: the workdir has no checkpoint.
    PermissionError: it cannot be written.
    ValueError: there are links in it, behind which files would be overwritten.
  """
  config, workdir = configs.complete(config), locations.absolute(workdir)
  workdirs.refuse_links(workdir)
  if workdir.exists() and not os.access(workdir, os.W_OK):
    raise PermissionError(f'{workdir} cannot be written.')
  with (
    tempfile.TemporaryDirectory() as nowhere,
    jax.default_matmul_precision(parallel.precision(config.matmul_precision)),
  ):
    # All processes compute, for they share the state; the first one writes.
    folder = workdir if jax.process_index() == 0 else pathlib.Path(nowhere)
    return _evaluate(config, workdir, folder, judges or {})


def _evaluate(config, workdir, folder, judges):
  """Returns what `evaluate` does, and writes to the folder."""

  source = datasets.load(**config.data)
  config = configs.fitted(config, source)
  test_source = datasets.load(**config.evaluation.data)
  stopping.step()
  state = chosen(config, workdirs.restore(config, workdir))
  logging.info('Evaluating step %d of %s.', int(state.step), workdir)

  stopping.step()
  found = test_metrics(config, state, test_source)
  stopping.step()
  samples = sampler(config, test_source)(state)
  test_batch = test_source[slice(0, config.evaluation.num_samples)]
  sections = []
  if isinstance(samples, jax.Array):
    samples = np.asarray(samples)
    np.save(folder / 'samples.npy', samples)
    found |= _sample_metrics(config, state, samples, test_batch, source, judges)
    sections = pictures.sample_sections(
      config, folder, state, samples, test_batch
    )
  if idle := [name for name in judges if f'{name}/judged_by' not in found]:
    logging.warning(
      'Nothing is judged by %s: judges say what is in two or more images that were '
      'drawn without images as conditions.',
      ', '.join(idle),
    )
  numbers = {'step': int(state.step), **found}
  if plots := pictures.curves(workdir):
    sections = [*sections, ('Over training', plots)]
  reporting.write_json(folder / reporting.EVALUATION_FILE, numbers)
  reporting.write_page(
    folder / 'report.html',
    f'{config.algorithm} on {config.data.name}',
    [
      *sections,
      ('Numbers', reporting.explained(numbers)),
      ('Config', reporting.flat_config(config)),
      ('Code', f'commit {reporting.commit()}'),
    ],
  )
  stopping.step()
  return found


def recovered(samples, batch, section) -> dict[str, float]:
  """Returns `metrics.recovery` of images made of conditions, as 'samples/...'.

  Args:
    samples: [n, h, w, c].
    batch: 'image', like them, and 'mask' [n, h, w, 1] of 0 and 1 where there is one.
    section: the config's data section, which says what range images have.

  Raises:
    ValueError: the images have two shapes, or the mask has other values.
  """
  found = metrics.recovery(
    datasets.to_unit(samples, section),
    datasets.to_unit(batch['image'], section),
    batch.get('mask'),
  )
  return {f'samples/{name}': value for name, value in found.items()}


def _sample_metrics(config, state, samples, batch, source, judges):
  """Returns the metrics of samples [n, ...] beside a batch of data."""
  data = batch['image']
  if pictures.image_condition(batch) is not None:
    return recovered(samples, batch, config.data)
  if min(len(samples), len(data)) < 2:
    return {}
  if samples.ndim == 2:
    x, y = jnp.asarray(samples), jnp.asarray(data)
    found = {'samples/energy_distance': float(metrics.energy_distance(x, y))}
    rng = jax.random.key(config.seed)
    found['samples/two_sample_p'] = float(metrics.two_sample_test(rng, x, y)[1])
    if hasattr(state, 'energy'):
      score = energies.score(state.energy, x)
      found['samples/ksd'] = float(stein.ksd(x, score, kernels.RBF()))
    return found
  if samples.ndim != 4:
    return {}
  # Sets that are read on demand are too large to search.
  training = source[:]['image'] if isinstance(source, datasets.Arrays) else None
  found = metrics.diversity(samples, data, training)
  unit = functools.partial(datasets.to_unit, section=config.data)
  labels = pictures.labels_of(state, len(samples))
  for name, judge in judges.items():
    said = judging.judged(judge, unit(samples), unit(data), labels=labels)
    found |= {f'{name}/{key}': value for key, value in said.items()}
    found[f'{name}/judged_by'] = judging.described(
      judge, len(samples), len(data)
    )
  return found
