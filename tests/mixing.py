"""Algorithms with energies that mix their batch, for tests."""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from stein_jax import energies
from stein_jax import layers
from stein_jax import learners
from stein_jax.runs import configs
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
  given = configs.plain(smoke.get_config(CONFIGS[name]))
  if name == 'steingan':
    _borrow(given, 'gan_mnist', 'data', 'evaluation', 'generator')
  if kind == 'of_pairs' and name in ('coopnets', 'vae_teaching', 'bicycle_gan'):
    sections = ('data', 'evaluation', 'generator')
    _borrow(given, f'{name}_facades', *sections)
  elif name != 'bicycle_gan':
    labels = 'label' if kind in WITH_LABELS else 'none'
    data = dict(num_classes=4, pairs=kind == 'of_pairs', condition=labels)
    for section in (given, given['evaluation']):
      section['data'] = section['data'] | data
  given |= dict(energy=ENERGIES[kind], batch_size=8)
  given['evaluation']['log_likelihood'] = 'none'
  for section in ('optimizer', 'energy_optimizer', 'generator_optimizer'):
    if section in given:
      given[section] = dict(name='sgd', learning_rate=1.0)
  if name == 'langevin_ebm':
    given['num_chains'] = 0  # which are drawn is by chance
  if name == 'steingan' and kind in WITH_LABELS:
    step = dict(alpha=0.0) | step
  if name in ('vgan', 'vcd') and kind != 'of_experts':
    step = dict(generator_entropy=0.0, data_entropy=0.0) | step
  given['step'] = configs.changed(given['step'], step)
  if given['sample'].get('chain', {}).get('name') in ('MALA', 'Gibbs'):
    given['sample']['chain'] = dict(name='Langevin', step_size=0.3)
  return configs.complete(given)


def _borrow(given, name, *sections):
  """Takes sections of another config."""
  other = configs.plain(smoke.get_config(name))
  given |= {section: other[section] for section in sections}


def begin(config):
  """Returns the algorithm, a state with weights that are not small, and a batch."""
  algorithm, init, batch = smoke.uninitialised(config)
  return algorithm, grown(init(jax.random.key(0))), batch


@functools.cache
def first_energy(kind):
  """Returns an energy with weights that are not small, and a batch."""
  _, state, batch = begin(get_config('stein_cd', kind))
  return state.energy, batch


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
