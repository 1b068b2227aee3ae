"""What a row spends: the parameters of its networks, its updates and evaluations.

All of it follows from a config. Nothing is trained, and the networks are made as shapes
alone. No data are read where a data set's shape is known.
"""

import functools
import importlib
import math

import jax
import jax.numpy as jnp

from stein_jax import algorithms
from stein_jax import datasets
from stein_jax.runs import configs

NUM_CLASSES = 10  # of every data set here that has labels
_SHAPES = {
  'mnist': (28, 28, 1),
  'fashion_mnist': (28, 28, 1),
  'cifar10': (32, 32, 3),
  'svhn_cropped': (32, 32, 3),
  'celeb_a': (64, 64, 3),
  'lsun': (64, 64, 3),
}


def parameters(config) -> dict[str, int]:
  """Returns how many parameters the 'energy' and the 'generator' of a config have.

  Those are what an optimizer changes: running averages of norms do not count, and nor
  does the mean of a centred RBM. A model with two energies has the sum of both.
  """
  config = configs.fitted(config, Labels)
  init = algorithms.get(config.algorithm).init
  state = jax.eval_shape(
    lambda rng, batch: init(rng, config, batch),
    jax.random.key(0),
    batch_of(config),
  )
  size = lambda name: _size(getattr(state, name)) if hasattr(state, name) else 0
  return {
    'energy': size('energy') + size('prior_energy'),
    'generator': size('generator'),
  }


class Labels:
  """Stands for a source, of which `configs.fitted` asks the number of classes."""

  num_classes = NUM_CLASSES


def batch_of(config):
  """Returns the shapes of a batch of the config's data, with labels in any case."""
  data = config.data
  if data.name == 'folder':
    shape = (data.size, data.size, 3)
  elif data.name in _SHAPES:
    shape = _SHAPES[data.name]
  else:
    shape = datasets.load(**data)[:1]['image'].shape[1:]
  num = config.batch_size
  image = jax.ShapeDtypeStruct((num, *shape), jnp.float32)
  label = jax.ShapeDtypeStruct((num,), jnp.int32)
  batch = {'image': image, 'label': label}
  if data.name == 'folder' or data.get('pairs'):
    batch['condition'] = image
  if data.get('condition') == 'label':
    batch['condition'] = label
  return batch


def _size(learner):
  """Returns how many numbers of a learner's parameters are trained."""
  params = learner.params.get('params', learner.params)
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def evaluations(config) -> float:
  """Returns how often an update evaluates the energy, or its gradient, on a batch.

  The energy's own update is two evaluations, at data and at samples. Each step of a
  chain or of SVGD is one more, and so is each update of a generator by the energy. A
  score counts once, whatever its own gradient takes.

  Raises:
    ValueError: nothing is known here of the config's algorithm.
  """
  step = configs.step(config).keywords
  match config.algorithm:
    case 'vae':
      return 0
    case 'stein_cd':
      return 2 + step['num_steps']
    case 'steingan':
      return 2 + step['num_generator_steps'] + step['chain'].num_steps
    case 'vgan' | 'vcd':
      return 2 + step.get('num_generator_steps', 1)
    case 'vera':  # a penalty asks for the slope at data
      return 3 + (step['gradient_penalty'] > 0)
    case 'noise_contrastive':  # at each datum, and at its noises
      return 2 if step['objective'] == 'self' else 1 + step['num_noise']
    case 'score_matching' if step['objective'] == 'denoising':
      return 1 + step['control_variate']
    case 'score_matching' if step['objective'] != 'exact':
      return 2
    case 'gan':
      between = step['loss'] == 'wasserstein'  # where the slope is penalised
      each = step['num_generator_steps'] / step['generator_every']
      return 2 + between + each
    case 'bicycle_gan':  # which has two energies
      return 6
    case (
      'contrastive_divergence'
      | 'coopnets'
      | 'langevin_ebm'
      | 'recovery_likelihood'
      | 'vae_teaching'
    ):
      return 2 + step['chain'].num_steps
  raise ValueError(f'No evaluations are known of {config.algorithm}.')


@functools.cache
def words(name: str, plan, row: str) -> str:
  """Returns 'updates × evaluations; energy + generator' of a row of a script's plan.

  It is '' of a row that is not trained, or that the script does not have.
  """
  script = importlib.import_module(f'experiments.reproduce.{name}').SCRIPT
  for each in script.parts.values():
    for found in each.rows(plan):
      config = script.trained(plan, found) if found.id == row else None
      if config is not None:
        size = parameters(config)
        return (
          f'{config.num_steps:,} × {evaluations(config):g}; '
          f'{size["energy"]:,} + {size["generator"]:,}'
        )
  return ''
