"""How good a model is: pure metrics, and `evaluate` on a finished run."""

from collections.abc import Callable
import functools
import json
import pathlib
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np

from stein_jax import algorithms
from stein_jax import checkpoints
from stein_jax import checks
from stein_jax import datasets
from stein_jax import images
from stein_jax import parallel
from stein_jax import reporting
from stein_jax import samplers
from stein_jax.learners import Learner
from stein_jax.types import Array, PRNGKey, Tree


def log_likelihood(energy: Learner, x: Array, log_partition: Array) -> Array:
  """Returns log p(x) = -E(x) - log Z [n], in nats."""
  return -energy.apply_fn(energy.params, x) - log_partition


def log_mean_exp(log_weights: Array) -> Array:
  """Returns log mean exp of the weights []."""
  return jax.nn.logsumexp(log_weights) - jnp.log(log_weights.size)


def exact_log_partition(energy: Learner) -> Array:
  """Returns log Z [] from the energy's own method."""
  return energy.apply_fn(energy.params, method='log_partition')


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
  """
  log_weights = samplers.annealed_importance(
    rng,
    lambda x: -energy.apply_fn(energy.params, x),
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

  Zero only where two samples [n, d], [m, d] have one law; unbiased means.
  """

  def distance(a, b, same):
    total = jnp.sum(jnp.sqrt(jnp.sum((a[:, None] - b[None]) ** 2, -1)))
    return total / (len(a) * (len(b) - same))

  return 2 * distance(x, y, 0) - distance(x, x, 1) - distance(y, y, 1)


def check(config, state) -> None:
  """Raises ValueError if a state like this cannot be evaluated as asked.

  Args:
    config: its `evaluation` section is what asks.
    state: a state, or its shapes.
  """
  method = config.evaluation.log_likelihood
  checks.choice(
    ('exact', 'ais', 'none'), **{'evaluation.log_likelihood': method}
  )
  if method != 'none' and not hasattr(state, 'energy'):
    raise ValueError(
      f'evaluation.log_likelihood={method!r} needs an energy, and '
      f"{config.algorithm} learns none; allowed: 'none'."
    )
  if method == 'exact':
    try:
      jax.eval_shape(exact_log_partition, state.energy)
    except AttributeError as error:
      raise ValueError(
        f"evaluation.log_likelihood={method!r}: {error}; use 'ais'."
      ) from None


def test_metrics(config, state, source) -> dict[str, float]:
  """Returns the test metrics that `config.evaluation` asks for.

  'test/log_likelihood' in nats, the mean over the source, by the energy's own
  log Z ('exact') or an estimate of it ('ais', with `config.evaluation.ais` its
  keywords, which overstates the likelihood).
  """
  if config.evaluation.log_likelihood == 'none':
    return {}
  energy = state.energy
  metrics = {}
  if config.evaluation.log_likelihood == 'exact':
    log_partition = _jitted_exact(energy)
  else:
    log_partition = jax.jit(
      functools.partial(ais_log_partition, **config.evaluation.ais)
    )(energy, jax.random.key(config.seed))
    metrics['test/log_partition'] = float(log_partition)
  total = 0.0
  for first in range(0, len(source), 1000):
    rows = source[slice(first, first + 1000)]['image']
    values = _jitted_log_likelihood(energy, rows, log_partition)
    total += float(np.sum(np.asarray(values, np.float64)))
  metrics['test/log_likelihood'] = total / len(source)
  return metrics


_jitted_log_likelihood = jax.jit(log_likelihood)
_jitted_exact = jax.jit(exact_log_partition)


def sampler(algorithm, config) -> Callable[[Any], Tree]:
  """Returns a compiled function of the state: `config.evaluation`'s samples."""
  rng = jax.random.key(config.seed + 1)
  return jax.jit(
    lambda state: algorithm.sample(
      state, rng, config.evaluation.num_samples, **config.sample
    )
  )


def picture(samples, batch) -> bytes | None:
  """Returns a PNG of samples: a grid of images, or a scatter over the batch's data.

  None for what has no picture: more dimensions, or a tree.
  """
  if not hasattr(samples, 'ndim'):
    return None
  samples, data = np.asarray(samples), batch['image']
  if samples.ndim == 4 and samples.shape[-1] in (1, 3):
    low = min(0.0, float(data.min()))
    return images.png(images.grid((samples - low) / (data.max() - low)), zoom=3)
  if samples.ndim == 2 and samples.shape[1] <= 2:
    return reporting.scatter({'data': data[: len(samples)], 'samples': samples})
  return None


def evaluate(config, workdir) -> dict[str, float]:
  """Returns the metrics of a run's newest checkpoint, and writes its report.

  Writes evaluation.json, samples.npy, samples.png and report.html to the
  workdir.

  Raises:
    FileNotFoundError: the workdir has no checkpoint.
  """
  workdir = pathlib.Path(workdir)
  algorithm = algorithms.get(config.algorithm)
  source = datasets.load(**config.data)
  test_source = datasets.load(**config.evaluation.data)
  manager = checkpoints.manager(workdir / 'checkpoints')
  if manager.latest_step() is None:
    raise FileNotFoundError(f'No checkpoint in {workdir}; train there first.')
  batch = next(datasets.batches(source, config.batch_size, seed=config.seed))
  state = algorithm.init(jax.random.key(config.seed), config, batch)
  state = checkpoints.restore(manager, parallel.replicate(state))
  logging.info('Evaluating step %d of %s.', int(state.step), workdir)

  metrics = test_metrics(config, state, test_source)
  sections = []
  samples = sampler(algorithm, config)(state)
  test_batch = test_source[slice(0, config.evaluation.num_samples)]
  if isinstance(samples, jax.Array):
    np.save(workdir / 'samples.npy', samples)
    if samples.ndim == 2:
      metrics['samples/energy_distance'] = float(
        energy_distance(samples, jnp.asarray(test_batch['image']))
      )
  image = picture(samples, test_batch)
  if image:
    (workdir / 'samples.png').write_bytes(image)
    sections.append(('Samples', image))
    if samples.ndim == 4:
      sections.append(('Data', picture(test_batch['image'], test_batch)))
  numbers = {'step': int(state.step), **metrics}
  _write_json(workdir / 'evaluation.json', numbers)
  reporting.write_page(
    workdir / 'report.html',
    f'{config.algorithm} on {config.data.name}',
    [
      ('Numbers', numbers),
      *_curve_sections(workdir),
      *sections,
      ('Config', reporting.flat_config(config)),
      ('Code', f'commit {reporting.commit()}'),
    ],
  )
  return metrics


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


def _write_json(path, value):
  temporary = path.with_suffix('.tmp')
  temporary.write_text(json.dumps(value, indent=2) + '\n', 'utf-8')
  temporary.replace(path)
