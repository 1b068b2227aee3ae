"""Algorithms with energies that mix their batch, for tests.

Random numbers are made comparable between devices: each is a function of its row in
the whole batch.
"""

import contextlib
import functools
from unittest import mock

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
import optax

from stein_jax import algorithms
from stein_jax import datasets
from stein_jax import energies
from stein_jax import layers
from stein_jax import learners
from stein_jax import parallel
from stein_jax.generators import networks
from tests import smoke

CONFIGS = dict(
  bicycle_gan='bicycle_gan_facades',
  contrastive_divergence='contrastive_divergence_mnist',
  coopnets='coopnets_mnist',
  gan='gan_mnist',
  langevin_ebm='langevin_ebm_mnist',
  maximum_likelihood='maximum_likelihood_mnist',
  score_matching='score_matching_mnist',
  stein_cd='stein_cd_mnist',
  steingan='steingan_mnist',
  vae_teaching='vae_teaching_mnist',
  vcd='vcd_mnist',
  vgan='vgan_mnist',
)
AUTOENCODER = dict(
  name='Autoencoder', convs=((2, 3, 2, 1), (3, 3, 2, 1)), output='linear'
)
ENERGIES = dict(
  autoencoder=AUTOENCODER,
  discriminator=dict(name='Discriminator', widths=(2, 3)),
  of_labels=dict(name='Discriminator', widths=(2, 3), num_classes=4),
  joint=dict(
    name='JointLabel', autoencoder=AUTOENCODER, num_classes=4, margin=0.1
  ),
  of_pairs=dict(name='OfPairs'),
  of_experts=dict(name='OfExperts'),
)
NAMES = sorted(CONFIGS)
WITH_LABELS = ('of_labels', 'joint')


class OfPairs(nn.Module):
  """An energy of an image and what it is made of, which mixes its batch."""

  @nn.compact
  def __call__(self, x, condition, *, axis_name=None):
    x = jnp.concatenate([x, condition], -1)
    return energies.Discriminator((2, 3))(x, axis_name=axis_name)


class OfExperts(nn.Module):
  """Experts whose logits mix their batch, and drop."""

  @nn.compact
  def expert_logits(self, x, *, axis_name=None, rng=None):
    x = layers.BatchNorm()(nn.Dense(3)(layers.flat(x)), axis_name=axis_name)
    x = nn.Dropout(0.3)(x, deterministic=rng is None, rng=rng)
    return nn.Dense(4)(x)

  def __call__(self, x, *, axis_name=None, rng=None):
    logits = self.expert_logits(x, axis_name=axis_name, rng=rng)
    return energies.expert_energy(logits)


for _module in (OfPairs, OfExperts):
  _module.__module__ = energies.__name__  # what a config may name


def get_config(name, kind, **step):
  """Returns the smoke config of an algorithm with that energy, learned by sgd."""
  config = smoke.get_config(CONFIGS[name])
  config = ConfigDict(config.to_dict(), type_safe=False)
  config.energy = ConfigDict(ENERGIES[kind])
  if name == 'steingan' and kind in WITH_LABELS:
    config.step.alpha = 0.0
  if 'conditional' in config.step:
    config.step.conditional = kind in WITH_LABELS
  if name == 'steingan':
    other = smoke.get_config('gan_mnist')
    for section in ('data', 'evaluation', 'generator'):
      config[section] = other[section]
  if 'num_classes' in config.get('generator', {}):
    config.generator.num_classes = 4 * (kind in WITH_LABELS)
  if name in ('vgan', 'vcd') and kind != 'of_experts':
    config.step.update(generator_entropy=0.0, data_entropy=0.0)
  for section in ('optimizer', 'energy_optimizer', 'generator_optimizer'):
    if section in config:
      config[section] = ConfigDict(dict(name='sgd', learning_rate=1.0))
  if kind == 'of_pairs' and name in ('coopnets', 'vae_teaching', 'bicycle_gan'):
    other = smoke.get_config(f'{name}_facades')
    for section in ('data', 'evaluation', 'generator', 'batch_size'):
      config[section] = other[section]
  elif kind in WITH_LABELS or kind == 'of_pairs':
    for data in (config.data, config.evaluation.data):
      data.update(num_classes=4, condition=kind == 'of_pairs')
  if name == 'langevin_ebm':
    config.num_chains = 0  # which are drawn is by chance
  config.evaluation.log_likelihood = 'none'
  config.batch_size = 8
  config.step.update(step)
  if 'sampler' in config.sample:
    config.sample.sampler = 'langevin'
  return config


def _of_rows(values, axis=0):
  """Returns a stand-in for a sampler, whose values depend on the row alone.

  Args:
    values: a shape to numbers.
    axis: that of the rows.
  """

  def sample(shape, dtype):
    if not shape:
      return jnp.asarray(values(()), dtype)
    try:
      index = lax.axis_index(parallel.AXIS)
    except NameError:  # no axis: these are all rows
      return jnp.asarray(values(shape), dtype)
    num = shape[axis]
    whole = (*shape[:axis], jax.device_count() * num, *shape[axis + 1 :])
    rows = jnp.asarray(values(whole), dtype)
    return lax.dynamic_slice_in_dim(rows, index * num, num, axis)

  return sample


def _draws(shape):
  return np.random.default_rng(0).random(shape)


def normals(shape):
  return np.random.default_rng(1).normal(size=shape)


@contextlib.contextmanager
def random_numbers_of_rows(dropout=True):
  """Makes what is drawn in a step a function of the row in the whole batch."""
  uniform, normal = _of_rows(_draws), _of_rows(normals)
  signs = _of_rows(lambda shape: np.sign(normals(shape)), axis=1)
  patches = dict(
    normal=lambda rng, shape=(), dtype=float: normal(shape, dtype),
    uniform=lambda rng, shape=(), dtype=float, minval=0.0, maxval=1.0: (
      minval + (maxval - minval) * uniform(shape, dtype)
    ),
    # [projections, n, ...]
    rademacher=lambda rng, shape, dtype=int: signs(shape, dtype),
  )
  if dropout:
    patches['bernoulli'] = lambda rng, p=0.5, shape=(): (
      uniform(shape, float) < p
    )
  with contextlib.ExitStack() as stack:
    for name, function in patches.items():
      stack.enter_context(mock.patch.object(jax.random, name, function))
    like = lambda rng, x: jax.tree.map(
      lambda leaf: normal(leaf.shape, leaf.dtype), x
    )
    stack.enter_context(mock.patch.object(optax.tree, 'random_like', like))
    priors = networks.PRIORS
    stack.enter_context(mock.patch.dict(priors, normal=patches['normal']))
    yield


def begin(config):
  """Returns the algorithm, a state with weights that are not small, and a batch."""
  algorithm, init, batch = uninitialised(config)
  return algorithm, grown(init(jax.random.key(0))), batch


@functools.cache
def first_energy(kind):
  """Returns an energy with weights that are not small, and a batch."""
  _, state, batch = begin(get_config('stein_cd', kind))
  return state.energy, batch


def uninitialised(config):
  """Returns the algorithm, a function of a key to a state, and a batch."""
  algorithm = algorithms.get(config.algorithm)
  source = datasets.load(**config.data)
  batch = next(datasets.batches(source, config.batch_size, seed=0))
  return algorithm, lambda rng: algorithm.init(rng, config, batch), batch


def grown(state):
  """Returns a state with fewer zeros and larger weights in its networks."""
  rng = np.random.default_rng(2)
  shift = lambda leaf: (
    leaf + jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype)
  )
  return state._replace(
    **{
      name: learner.replace(params=jax.tree.map(shift, learner.params))
      for name, learner in state._asdict().items()
      if isinstance(learner, learners.Learner)
    }
  )


def changes(before, after):
  """Returns what a step added to the parameters of each network, as vectors."""
  flat = lambda tree: np.concatenate(
    [np.ravel(leaf) for leaf in jax.tree.leaves(tree)]
  )
  return {
    name: flat(getattr(after, name).params) - flat(learner.params)
    for name, learner in before._asdict().items()
    if isinstance(learner, learners.Learner) and learner.params
  }


def halves_on_each_device(batch):
  """Returns a batch whose halves are, on each device, shares of the whole's halves."""
  devices = jax.device_count()
  mix = lambda x: np.stack(
    [half.reshape(devices, -1, *x.shape[1:]) for half in np.split(x, 2)], 1
  ).reshape(x.shape)
  return jax.tree.map(mix, batch)
