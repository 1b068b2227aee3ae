"""Every algorithm with every energy that mixes its batch: one function of the batch.

In jit, pmap and shard_map they agree, or the pair is refused before it is compiled.
Random numbers are made comparable: each is a function of its row in the whole batch.
"""

import contextlib
import functools
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
import optax
import pytest

from stein_jax import algorithms
from stein_jax import datasets
from stein_jax import energies
from stein_jax import learners
from stein_jax import parallel
from stein_jax import training
from stein_jax.algorithms import amortized_svgd
from tests import conformance_test

_CONFIGS = dict(
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
_AUTOENCODER = dict(
  name='Autoencoder', convs=((2, 3, 2, 1), (3, 3, 2, 1)), output='linear'
)
_ENERGIES = dict(
  autoencoder=_AUTOENCODER,
  discriminator=dict(name='Discriminator', widths=(2, 3)),
  of_labels=dict(name='Discriminator', widths=(2, 3), num_classes=4),
  joint=dict(
    name='JointLabel', autoencoder=_AUTOENCODER, num_classes=4, margin=0.1
  ),
  of_pairs=dict(name='OfPairs'),
)
_WITH_LABELS = ('of_labels', 'joint')


class OfPairs(nn.Module):
  """An energy of an image and what it is made of, which mixes its batch."""

  @nn.compact
  def __call__(self, x, condition, *, axis_name=None):
    x = jnp.concatenate([x, condition], -1)
    return energies.Discriminator((2, 3))(x, axis_name=axis_name)


OfPairs.__module__ = energies.__name__  # what a config may name


def get_config(name, kind, **step):
  """Returns the smoke config of an algorithm with that energy, learned by sgd."""
  config = conformance_test.get_config(_CONFIGS[name])
  config = ConfigDict(config.to_dict(), type_safe=False)
  config.energy = ConfigDict(_ENERGIES[kind])
  config.step.update(step)
  if 'conditional' in config.step:
    config.step.conditional = kind in _WITH_LABELS
  if 'num_classes' in config.get('generator', {}):
    config.generator.num_classes = 4 * (kind in _WITH_LABELS)
  if name in ('vgan', 'vcd'):  # these energies have no experts
    config.step.update(generator_entropy=0.0, data_entropy=0.0)
  for section in ('optimizer', 'energy_optimizer', 'generator_optimizer'):
    if section in config:
      config[section] = ConfigDict(dict(name='sgd', learning_rate=1.0))
  if kind == 'of_pairs' and name in ('coopnets', 'vae_teaching', 'bicycle_gan'):
    other = conformance_test.get_config(f'{name}_facades')
    config.update(data=other.data, generator=other.generator)
    config.evaluation = other.evaluation
  elif kind in _WITH_LABELS or kind == 'of_pairs':
    for data in (config.data, config.evaluation.data):
      data.update(num_classes=4, condition=kind == 'of_pairs')
  config.evaluation.log_likelihood = 'none'
  config.batch_size = 8
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


def _normals(shape):
  return np.random.default_rng(1).normal(size=shape)


@contextlib.contextmanager
def random_numbers_of_rows(dropout=True):
  """Makes what is drawn in a step a function of the row in the whole batch."""
  uniform, normal = _of_rows(_draws), _of_rows(_normals)
  signs = _of_rows(lambda shape: np.sign(_normals(shape)), axis=1)
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
    yield


def begin(config):
  """Returns the algorithm, a state with weights that are not small, and a batch."""
  algorithm = algorithms.get(config.algorithm)
  source = datasets.load(**config.data)
  batch = next(datasets.batches(source, config.batch_size, seed=0))
  state = algorithm.init(jax.random.key(0), config, batch)
  return algorithm, grown(state), batch


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


class ModesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(
      mock.patch.object(energies, 'OfPairs', OfPairs, create=True)
    )

  def modes_agree(self, step, state, batch, mapped_batch=None):
    """Checks that one step in each mode comes to the same state and metrics."""
    ends = {}
    with random_numbers_of_rows():
      for mode in parallel.MODES:
        rows = batch if mode == 'jit' else mapped_batch or batch
        start = parallel.replicate(jax.tree.map(jnp.copy, state))
        after, metrics = parallel.compile_step(step, mode)(
          start, rows, jax.random.key(1)
        )
        ends[mode] = changes(state, after), metrics
    expected, expected_metrics = ends['jit']
    for mode in ('pmap', 'shard_map'):
      found, metrics = ends[mode]
      for name, change in expected.items():
        # Rounding is of the size of the largest entries.
        scale = np.max(np.abs(change))
        np.testing.assert_allclose(
          found[name],
          change,
          rtol=0,
          atol=1e-4 * scale,
          err_msg=f'{mode}: {name}',
        )
      for name, value in expected_metrics.items():
        np.testing.assert_allclose(
          metrics[name], value, rtol=1e-4, atol=1e-4, err_msg=f'{mode}: {name}'
        )
    return expected

  def check(self, name, kind, **hyper):
    config = get_config(name, kind, **hyper)
    training.check(config)
    algorithm, state, batch = begin(config)
    found = self.modes_agree(
      functools.partial(algorithm.step, **config.step),
      state,
      batch,
      halves_on_each_device(batch) if name == 'vcd' else None,
    )
    self.assertTrue(learners.mixes(state.energy))
    for change in found.values():
      self.assertGreater(np.max(np.abs(change)), 1e-4)

  @parameterized.parameters(
    'stein_cd', 'score_matching', 'contrastive_divergence'
  )
  def test_one_batch_on_all_devices(self, name):
    self.check(name, 'autoencoder')

  @parameterized.product(
    name=sorted(set(_CONFIGS) - {'maximum_likelihood', 'bicycle_gan'}),
    kind=('autoencoder', 'discriminator'),
  )
  @pytest.mark.slow
  def test_every_algorithm(self, name, kind):
    # In a joint batch a device's rows of data and of samples lie side by side: the
    # mask of a row is another there.
    joint = name in ('gan', 'steingan')
    dropout = {'energy.dropout': 0.0} if joint and kind == 'autoencoder' else {}
    with mock.patch.dict(
      _ENERGIES[kind], {k[7:]: v for k, v in dropout.items()}
    ):
      self.check(name, kind)

  @parameterized.product(
    name=('contrastive_divergence', 'gan', 'stein_cd', 'steingan'),
    kind=_WITH_LABELS,
  )
  @pytest.mark.slow
  def test_every_algorithm_with_labels(self, name, kind):
    with mock.patch.dict(_AUTOENCODER, dropout=0.0):
      self.check(name, kind)

  @parameterized.parameters(
    'bicycle_gan', 'coopnets', 'langevin_ebm', 'vae_teaching'
  )
  @pytest.mark.slow
  def test_every_algorithm_of_pairs(self, name):
    self.check(name, 'of_pairs')

  @parameterized.parameters(
    ('score_matching', dict(objective='sliced', num_projections=2)),
    ('score_matching', dict(objective='denoising')),
    ('stein_cd', dict(symmetric=True, num_steps=2, normalize='row_sum')),
    ('contrastive_divergence', dict(num_steps=3)),
    ('steingan', dict(joint=False)),
    ('steingan', dict(alpha=1.0)),
    ('gan', dict(joint=False)),
    ('vae_teaching', dict(kl='posterior', energy_l2=0.1)),
  )
  @pytest.mark.slow
  def test_options(self, name, hyper):
    with mock.patch.dict(_ENERGIES['autoencoder'], dropout=0.0):
      self.check(name, 'autoencoder', **hyper)

  @parameterized.parameters('autoencoder', 'discriminator')
  @pytest.mark.slow
  def test_a_sampler_of_a_learned_energy(self, kind):
    config = get_config('gan', kind)
    _, state, batch = begin(config)
    state = amortized_svgd.create(state.energy, state.generator)
    found = self.modes_agree(amortized_svgd.step, state, batch)
    self.assertGreater(np.max(np.abs(found['generator'])), 1e-4)


class RefusalsTest(parameterized.TestCase):
  """Before anything is compiled."""

  @parameterized.parameters(
    ('maximum_likelihood', 'autoencoder', {}, 'mixes its batch.*no likelihood'),
    ('maximum_likelihood', 'discriminator', {}, 'mixes its batch'),
    (
      'contrastive_divergence',
      'autoencoder',
      {'step.sampler': 'mala'},
      "step.sampler='mala' .*mixes its batch; allowed: 'langevin'",
    ),
    (
      'contrastive_divergence',
      'discriminator',
      {'step.sampler': 'gibbs'},
      "step.sampler='gibbs' .*mixes its batch; allowed: 'langevin'",
    ),
    (
      'stein_cd',
      'joint',
      {'sample.sampler': 'mala'},
      "sample.sampler='mala' .*mixes its batch; allowed: 'langevin'",
    ),
    (
      'score_matching',
      'autoencoder',
      {'step.objective': 'exact'},
      "step.objective='exact' .*mixes its batch; allowed: 'stein', 'sliced'",
    ),
    (
      'score_matching',
      'discriminator',
      {'step.objective': 'closed_form'},
      "step.objective='closed_form' .*mixes its batch",
    ),
    (
      'stein_cd',
      'autoencoder',
      {'evaluation.log_likelihood': 'ais'},
      "evaluation.log_likelihood='ais' .*mixes its batch.*'none'",
    ),
    (
      'stein_cd',
      'autoencoder',
      {'evaluation.log_likelihood': 'exact'},
      "evaluation.log_likelihood='exact' .*mixes its batch.*'none'",
    ),
    (
      'gan',
      'discriminator',
      {'step.loss': 'wasserstein'},
      "step.loss='wasserstein' .*mixes its batch; allowed: norm='layer'",
    ),
    # Labels where there is no keyword for them.
    ('score_matching', 'joint', {}, "score_matching on .*'y'"),
    ('langevin_ebm', 'of_labels', {}, 'num_classes=4, but label is missing'),
    ('coopnets', 'joint', {}, "coopnets on .*'y'"),
    ('bicycle_gan', 'discriminator', {}, 'num_classes=0, but label is given'),
    ('bicycle_gan', 'autoencoder', {}, 'bicycle_gan on .*positional'),
  )
  def test_by_name(self, name, kind, fields, message):
    config = get_config(name, kind)
    for field, value in fields.items():
      section, key = field.split('.')
      config[section][key] = value
    with self.assertRaisesRegex(ValueError, message):
      training.check(config)


if __name__ == '__main__':
  absltest.main()
