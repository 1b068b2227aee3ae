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
from jax import flatten_util
from jax import lax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
import optax
import pytest

from stein_jax import algorithms
from stein_jax import datasets
from stein_jax import energies
from stein_jax import layers
from stein_jax import learners
from stein_jax import parallel
from stein_jax import samplers
from stein_jax.algorithms import amortized_svgd
from stein_jax.algorithms import contrastive_divergence
from stein_jax.algorithms import langevin_ebm
from stein_jax.algorithms import score_matching
from stein_jax.algorithms import stein_cd
from stein_jax.generators import networks
from stein_jax.runs import configs
from stein_jax.runs import evaluation
from stein_jax.runs import training
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
  of_experts=dict(name='OfExperts'),
)
NAMES = sorted(_CONFIGS)
_WITH_LABELS = ('of_labels', 'joint')


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
  config = conformance_test.get_config(_CONFIGS[name])
  config = ConfigDict(config.to_dict(), type_safe=False)
  config.energy = ConfigDict(_ENERGIES[kind])
  if name == 'steingan' and kind in _WITH_LABELS:
    config.step.alpha = 0.0
  if 'conditional' in config.step:
    config.step.conditional = kind in _WITH_LABELS
  if name == 'steingan':
    other = conformance_test.get_config('gan_mnist')
    for section in ('data', 'evaluation', 'generator'):
      config[section] = other[section]
  if 'num_classes' in config.get('generator', {}):
    config.generator.num_classes = 4 * (kind in _WITH_LABELS)
  if name in ('vgan', 'vcd') and kind != 'of_experts':
    config.step.update(generator_entropy=0.0, data_entropy=0.0)
  for section in ('optimizer', 'energy_optimizer', 'generator_optimizer'):
    if section in config:
      config[section] = ConfigDict(dict(name='sgd', learning_rate=1.0))
  if kind == 'of_pairs' and name in ('coopnets', 'vae_teaching', 'bicycle_gan'):
    other = conformance_test.get_config(f'{name}_facades')
    for section in ('data', 'evaluation', 'generator', 'batch_size'):
      config[section] = other[section]
  elif kind in _WITH_LABELS or kind == 'of_pairs':
    for data in (config.data, config.evaluation.data):
      data.update(num_classes=4, condition=kind == 'of_pairs')
  if name == 'langevin_ebm':
    config.num_chains = 0  # which are drawn is by chance
  config.evaluation.log_likelihood = 'none'
  config.batch_size = 8
  config.step.update(step)
  if config.get('sample', {}).get('chain', {}).get('name') in ('MALA', 'Gibbs'):
    config.sample.chain = ConfigDict(dict(name='Langevin', step_size=0.3))
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


class ModesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    for module in (OfPairs, OfExperts):
      self.enter_context(
        mock.patch.object(energies, module.__name__, module, create=True)
      )

  def modes_agree(
    self, step, state, batch, mapped_batch=None, modes=parallel.MODES
  ):
    """Checks that one step in each mode comes to the same state and metrics."""
    ends, spec = {}, parallel.partition(state, ('chains',))
    with random_numbers_of_rows():
      for mode in modes:
        rows = batch if mode == 'jit' else mapped_batch or batch
        start = parallel.replicate(jax.tree.map(jnp.copy, state), spec)
        compiled = parallel.compile_step(step, mode, spec=spec)
        after, metrics = compiled(start, rows, jax.random.key(1))
        ends[mode] = changes(state, after), metrics
    expected, expected_metrics = ends.pop('jit')
    for mode, (found, metrics) in ends.items():
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

  def check(self, name, kind, persistent=False, **hyper):
    config = get_config(name, kind, **hyper)
    if persistent:
      config.persistent = True
    training.check(config)
    algorithm, state, batch = begin(config)
    found = self.modes_agree(
      configs.step(config),
      state,
      batch,
      halves_on_each_device(batch) if name == 'vcd' else None,
    )
    self.assertTrue(learners.mixes(state.energy))
    for change in found.values():
      self.assertGreater(np.max(np.abs(change)), 1e-4)

  @parameterized.parameters(
    (stein_cd, parallel.MODES),
    (score_matching, ('jit', 'pmap')),
    (contrastive_divergence, ('jit', 'shard_map')),
  )
  def test_one_batch_on_all_devices(self, algorithm, modes):
    energy, batch = first_energy('autoencoder')
    fields = (None,) if algorithm is contrastive_divergence else ()
    state = algorithm.State(jnp.zeros((), jnp.int32), energy, *fields)
    found = self.modes_agree(algorithm.step, state, batch, modes=modes)
    self.assertGreater(np.max(np.abs(found['energy'])), 1e-4)

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
    ('contrastive_divergence', dict(persistent=True)),
    ('steingan', dict(joint=False)),
    ('steingan', dict(alpha=1.0)),
    ('gan', dict(joint=False)),
    ('vae_teaching', dict(kl='posterior', energy_l2=0.1)),
  )
  @pytest.mark.slow
  def test_options(self, name, hyper):
    with mock.patch.dict(_ENERGIES['autoencoder'], dropout=0.0):
      self.check(name, 'autoencoder', **hyper)

  @parameterized.parameters('vcd', 'vgan')
  @pytest.mark.slow
  def test_experts(self, name):
    self.check(name, 'of_experts')

  @parameterized.parameters('autoencoder', 'discriminator')
  @pytest.mark.slow
  def test_a_sampler_of_a_learned_energy(self, kind):
    config = get_config('gan', kind)
    _, state, batch = begin(config)
    state = amortized_svgd.create(state.energy, state.generator)
    found = self.modes_agree(amortized_svgd.step, state, batch)
    self.assertGreater(np.max(np.abs(found['generator'])), 1e-4)


class OneFunctionTest(absltest.TestCase):
  """What phi follows and what the contrast descends is one function of a batch."""

  def test_steincd_by_finite_differences(self):
    """F(x) = mean E(x_i; x), under one mask of dropout [LW17 eq 13]."""
    self.enter_context(jax.enable_x64(True))
    x, epsilon, rng = _normals((3, 4, 4, 1)), 0.3, jax.random.key(5)
    module = energies.Autoencoder(((2, 3, 2, 1), (2, 2, 2, 0)), output='linear')
    energy = learners.create(rng, module, optax.sgd(1.0), x)
    state = grown(stein_cd.State(jnp.zeros((), jnp.int32), energy))
    energy, key = state.energy, learners.dropout_key(state.energy, rng)
    self.assertIsNotNone(key)
    flat, unravel = flatten_util.ravel_pytree(energy.params)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, 0))
    def total(flat, x):
      return jnp.sum(energy.apply_fn(unravel(flat), x, rng=key))

    def slopes(at, steps):
      """Returns central differences of the total, each along its own step."""
      ends = [at(sign * 1e-6 * steps) for sign in (1, -1)]
      return (total(*ends[0]) - total(*ends[1])) / 2e-6

    num = len(flat)
    steps = np.eye(x.size).reshape(-1, *x.shape)
    of_x = lambda steps: (jnp.tile(flat[None], (x.size, 1)), x[None] + steps)
    score = -np.asarray(slopes(of_x, steps)).reshape(len(x), -1)
    rows = x.reshape(len(x), -1)
    difference = rows[:, None] - rows[None]
    sq_dist = np.sum(difference**2, -1)
    bandwidth = np.median(sq_dist) / np.log(len(x) + 1)
    k = np.exp(-sq_dist / bandwidth)
    phi = k @ score + np.sum(2 / bandwidth * difference * k[..., None], 1)
    samples = x + epsilon * phi.reshape(x.shape) / len(x)
    of_params = lambda x: (
      lambda steps: (
        flat[None] + steps,
        jnp.tile(x[None], (num, 1, 1, 1, 1)),
      )
    )
    expected = [slopes(of_params(x), np.eye(num)) for x in (x, samples)]
    step = jax.jit(functools.partial(stein_cd.step, epsilon=epsilon))
    after, _ = step(state, {'image': jnp.asarray(x)}, rng)
    np.testing.assert_allclose(
      changes(state, after)['energy'],
      (expected[1] - expected[0]) / len(x),
      atol=1e-7,
    )
    self.assertGreater(np.max(np.abs(changes(state, after)['energy'])), 0.01)


class DropoutTest(parameterized.TestCase):
  """It acts in every algorithm, and alone makes an update depend on the key."""

  def depends(self, name, dropout):
    with mock.patch.dict(_AUTOENCODER, dropout=dropout):
      config = get_config(name, 'autoencoder')
    if name == 'vcd':
      config.generator.keep = 1.0
    if name == 'vae_teaching':
      config.generator.dropout = 0.0
    if name == 'steingan':
      config.step.alpha = 0.0
    algorithm, state, batch = begin(config)
    with random_numbers_of_rows(dropout=False):
      step = jax.jit(configs.step(config))
      first, second = (
        changes(state, step(state, batch, jax.random.key(seed))[0])['energy']
        for seed in (1, 2)
      )
    return np.max(np.abs(first - second)) > 1e-3 * np.max(np.abs(first))

  @parameterized.parameters(
    sorted(set(_CONFIGS) - {'bicycle_gan', 'gan', 'maximum_likelihood'})
  )
  @pytest.mark.slow
  def test_in_every_algorithm(self, name):
    self.assertTrue(self.depends(name, 0.3))
    self.assertFalse(self.depends(name, 0.0))


class ChainTest(parameterized.TestCase):
  """Langevin dynamics of a whole batch, and samples that are rows of one."""

  def test_descends_the_sum_over_the_batch(self):
    energy, _ = first_energy('autoencoder')
    x = jnp.asarray(_normals((8, 4, 4, 1)), jnp.float32)

    @jax.jit
    def ends(x):
      total = lambda x: jnp.sum(energy.apply_fn(energy.params, x))
      moved = x - 0.5 * 0.4**2 * jax.grad(total)(x)
      of_one = lambda x, i: energy.apply_fn(energy.params, x)[i]
      alone = jnp.stack([jax.grad(of_one)(x, i)[i] for i in range(len(x))])
      chain = samplers.Langevin(0.4, noise=False)
      run = lambda x, **options: energies.run_chain(
        energy, chain, jax.random.key(0), x, **options
      )[0]
      return run(x), moved, x - 0.5 * 0.4**2 * alone, run(x[:3], block_size=8)

    found, expected, without_others, filled = ends(x)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # What a row does to the others' statistics is part of it.
    self.assertGreater(np.max(np.abs(found - without_others)), 1e-3)
    # A block that is not full repeats its rows.
    again = ends(x[jnp.arange(8) % 3])[0]
    np.testing.assert_allclose(filled, again[:3], atol=1e-5)

  def test_a_sample_does_not_depend_on_how_many_there_are(self):
    energy, _ = first_energy('autoencoder')
    self.assertEqual(energy.batch_size, 8)
    states = {
      stein_cd: stein_cd.State(0, energy),
      langevin_ebm: langevin_ebm.State(0, energy, None),
    }
    for algorithm, state in states.items():
      chain = samplers.Langevin(0.5, num_steps=2)
      sample = functools.partial(
        algorithm.sample, state, jax.random.key(0), chain=chain
      )
      one, whole = jax.jit(lambda sample=sample: (sample(1), sample(8)))()
      np.testing.assert_allclose(one, whole[:1], atol=1e-5)
      shape = jax.eval_shape(lambda sample=sample: sample(11)).shape
      self.assertEqual(shape, (11, 4, 4, 1))

  @pytest.mark.slow
  def test_samples_of_labels(self):
    state = stein_cd.State(0, first_energy('of_labels')[0])
    self.assertEqual(state.energy.num_classes, 4)
    sample = functools.partial(
      stein_cd.sample,
      state,
      jax.random.key(0),
      chain=samplers.Langevin(0.3, num_steps=2),
    )

    @jax.jit
    def draws():
      label = jnp.arange(8) % 4
      return (
        sample(8),
        sample(8, condition=label),
        sample(3, condition=label[:3]),
        sample(8, condition=label[jnp.arange(8) % 3]),
      )

    in_turn, of_labels, few, repeated = draws()
    np.testing.assert_array_equal(in_turn, of_labels)
    np.testing.assert_allclose(few, repeated[:3], atol=1e-6)
    self.assertGreater(np.max(np.abs(few - of_labels[:3])), 1e-5)
    with self.assertRaisesRegex(
      ValueError, r'condition has shape .2,.; wanted'
    ):
      sample(3, condition=jnp.arange(2))

  def test_likelihoods_are_refused(self):
    energy, x = first_energy('autoencoder')[0], jnp.zeros((2, 4, 4, 1))
    for ask in (
      lambda: evaluation.log_likelihood(energy, x, 0.0),
      lambda: energies.ais_log_partition(energy, jax.random.key(0)),
      lambda: energies.exact_log_partition(energy),
    ):
      with self.assertRaisesRegex(ValueError, 'mixes its batch.*no density'):
        ask()


class RefusalsTest(parameterized.TestCase):
  """Before anything is compiled."""

  @parameterized.parameters(
    ('maximum_likelihood', 'autoencoder', {}, 'mixes its batch.*no likelihood'),
    ('maximum_likelihood', 'discriminator', {}, 'mixes its batch'),
    (
      'contrastive_divergence',
      'autoencoder',
      {'step.chain': dict(name='MALA', step_size=0.3)},
      'step: chain: Log densities .*mixes its batch; allowed: Langevin',
    ),
    (
      'contrastive_divergence',
      'discriminator',
      {'step.chain': dict(name='Gibbs')},
      'step: chain: Gibbs sweeps .*mixes its batch; allowed: Langevin',
    ),
    (
      'stein_cd',
      'joint',
      {'sample.chain': dict(name='MALA', step_size=0.3)},
      'sample: chain: Log densities .*mixes its batch; allowed: Langevin',
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
