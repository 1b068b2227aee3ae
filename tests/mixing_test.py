"""Every algorithm with every energy that mixes its batch: one function of the batch.

In jit, pmap and shard_map they agree, or the pair is refused before it is compiled.
Random numbers are made comparable: each is a function of its row in the whole batch.
"""

import functools
import operator
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
from jax import flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stein_jax import energies
from stein_jax import learners
from stein_jax import parallel
from stein_jax import samplers
from stein_jax.algorithms import amortized_svgd
from stein_jax.algorithms import contrastive_divergence
from stein_jax.algorithms import langevin_ebm
from stein_jax.algorithms import score_matching
from stein_jax.algorithms import stein_cd
from stein_jax.runs import configs
from stein_jax.runs import evaluation
from stein_jax.runs import training
from tests import draws
from tests import mixing


class ModesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    for module in (mixing.OfPairs, mixing.OfExperts):
      self.enter_context(
        mock.patch.object(energies, module.__name__, module, create=True)
      )

  def modes_agree(
    self, step, state, batch, mapped_batch=None, modes=parallel.MODES
  ):
    """Checks that one step in each mode comes to the same state and metrics."""
    ends, spec = {}, parallel.partition(state, ('chains',))
    with draws.fixed():
      for mode in modes:
        rows = batch if mode == 'jit' else mapped_batch or batch
        start = parallel.replicate(jax.tree.map(jnp.copy, state), spec)
        compiled = parallel.compile_step(step, mode, spec=spec)
        after, metrics = compiled(start, rows, jax.random.key(1))
        ends[mode] = mixing.changes(state, after), metrics
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
    config = mixing.get_config(name, kind, **hyper)
    if persistent:
      config.persistent = True
    training.check(config)
    algorithm, state, batch = mixing.begin(config)
    found = self.modes_agree(
      configs.step(config),
      state,
      batch,
      mixing.halves_on_each_device(batch) if name == 'vcd' else None,
    )
    self.assertTrue(learners.mixes(state.energy))
    for change in found.values():
      self.assertGreater(np.max(np.abs(change)), 1e-4)

  @parameterized.parameters(
    (stein_cd, 'shard_map'), (contrastive_divergence, 'pmap')
  )
  def test_one_batch_on_all_devices(self, algorithm, mode):
    self.check_first_energy(algorithm, mode)

  @parameterized.parameters(
    (stein_cd, 'pmap'),
    (score_matching, 'pmap'),
    (contrastive_divergence, 'shard_map'),
  )
  @pytest.mark.slow
  def test_so_it_is_in_other_modes(self, algorithm, mode):
    self.check_first_energy(algorithm, mode)

  def check_first_energy(self, algorithm, mode):
    energy, batch = mixing.first_energy('autoencoder')
    fields = (None,) if algorithm is contrastive_divergence else ()
    state = algorithm.State(jnp.zeros((), jnp.int32), energy, *fields)
    found = self.modes_agree(algorithm.step, state, batch, modes=('jit', mode))
    self.assertGreater(np.max(np.abs(found['energy'])), 1e-4)

  @parameterized.product(
    name=sorted(set(mixing.CONFIGS) - {'maximum_likelihood', 'bicycle_gan'}),
    kind=('autoencoder', 'discriminator'),
  )
  @pytest.mark.slow
  def test_every_algorithm(self, name, kind):
    # In a joint batch a device's rows of data and of samples lie side by side: the
    # mask of a row is another there.
    joint = name in ('gan', 'steingan')
    dropout = {'energy.dropout': 0.0} if joint and kind == 'autoencoder' else {}
    with mock.patch.dict(
      mixing.ENERGIES[kind], {k[7:]: v for k, v in dropout.items()}
    ):
      self.check(name, kind)

  @parameterized.product(
    name=(
      'contrastive_divergence',
      'gan',
      'langevin_ebm',
      'stein_cd',
      'steingan',
    ),
    kind=mixing.WITH_LABELS,
  )
  @pytest.mark.slow
  def test_every_algorithm_with_labels(self, name, kind):
    with mock.patch.dict(mixing.AUTOENCODER, dropout=0.0):
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
    (
      'stein_cd',
      dict(symmetric=True, num_steps=2, direction=dict(normalize='row_sum')),
    ),
    ('contrastive_divergence', dict(chain=dict(num_steps=3))),
    ('contrastive_divergence', dict(persistent=True)),
    ('steingan', dict(joint=False)),
    ('steingan', dict(alpha=1.0)),
    ('gan', dict(joint=False)),
    ('vae_teaching', dict(kl='posterior', energy_l2=0.1)),
  )
  @pytest.mark.slow
  def test_options(self, name, hyper):
    with mock.patch.dict(mixing.ENERGIES['autoencoder'], dropout=0.0):
      self.check(name, 'autoencoder', **hyper)

  @parameterized.parameters('vcd', 'vgan')
  @pytest.mark.slow
  def test_experts(self, name):
    self.check(name, 'of_experts')

  @parameterized.parameters('autoencoder', 'discriminator')
  @pytest.mark.slow
  def test_a_sampler_of_a_learned_energy(self, kind):
    config = mixing.get_config('gan', kind)
    _, state, batch = mixing.begin(config)
    state = amortized_svgd.create(state.energy, state.generator)
    found = self.modes_agree(amortized_svgd.step, state, batch)
    self.assertGreater(np.max(np.abs(found['generator'])), 1e-4)


class OneFunctionTest(absltest.TestCase):
  """What phi follows and what the contrast descends is one function of a batch."""

  def test_steincd_by_finite_differences(self):
    """F(x) = mean E(x_i; x), under one mask of dropout [LW17 eq 13]."""
    self.enter_context(jax.enable_x64(True))
    x, epsilon, rng = draws.normals((3, 4, 4, 1)), 0.3, jax.random.key(5)
    module = energies.Autoencoder(((2, 3, 2, 1), (2, 2, 2, 0)), output='linear')
    energy = learners.create(rng, module, optax.sgd(1.0), x)
    state = mixing.grown(stein_cd.State(jnp.zeros((), jnp.int32), energy))
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
      mixing.changes(state, after)['energy'],
      (expected[1] - expected[0]) / len(x),
      atol=1e-7,
    )
    self.assertGreater(
      np.max(np.abs(mixing.changes(state, after)['energy'])), 0.01
    )


class DropoutTest(parameterized.TestCase):
  """It acts in every algorithm, and alone makes an update depend on the key."""

  def depends(self, name, dropout):
    with mock.patch.dict(mixing.AUTOENCODER, dropout=dropout):
      config = mixing.get_config(name, 'autoencoder')
    if name == 'vcd':
      config.generator.keep = 1.0
    if name == 'vae_teaching':
      config.generator.dropout = 0.0
    if name == 'steingan':
      config.step.alpha = 0.0
    algorithm, state, batch = mixing.begin(config)
    with draws.fixed(dropout=False):
      step = jax.jit(configs.step(config))
      first, second = (
        mixing.changes(state, step(state, batch, jax.random.key(seed))[0])[
          'energy'
        ]
        for seed in (1, 2)
      )
    return np.max(np.abs(first - second)) > 1e-3 * np.max(np.abs(first))

  @parameterized.parameters(
    sorted(set(mixing.CONFIGS) - {'bicycle_gan', 'gan', 'maximum_likelihood'})
  )
  @pytest.mark.slow
  def test_in_every_algorithm(self, name):
    self.assertTrue(self.depends(name, 0.3))
    self.assertFalse(self.depends(name, 0.0))


class ChainTest(parameterized.TestCase):
  """Langevin dynamics of a whole batch, and samples that are rows of one."""

  def test_descends_the_sum_over_the_batch(self):
    energy, _ = mixing.first_energy('autoencoder')
    x = jnp.asarray(draws.normals((8, 4, 4, 1)), jnp.float32)

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
    energy, _ = mixing.first_energy('autoencoder')
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
    state = stein_cd.State(0, mixing.first_energy('of_labels')[0])
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
    energy, x = mixing.first_energy('autoencoder')[0], jnp.zeros((2, 4, 4, 1))
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
      'step.chain: Log densities .*mixes its batch; allowed: Langevin',
    ),
    (
      'contrastive_divergence',
      'discriminator',
      {'step.chain': dict(name='Gibbs')},
      'step.chain: Gibbs sweeps .*mixes its batch; allowed: Langevin',
    ),
    (
      'stein_cd',
      'joint',
      {'sample.chain': dict(name='MALA', step_size=0.3)},
      'sample.chain: Log densities .*mixes its batch; allowed: Langevin',
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
    (
      'score_matching',
      'joint',
      {},
      r'score_matching on .*JointLabel takes \(x, y\), and is given 1 of',
    ),
    (
      'langevin_ebm',
      'of_labels',
      {'data.condition': 'none', 'evaluation.data.condition': 'none'},
      'num_classes=4, but label is missing',
    ),
    (
      'coopnets',
      'joint',
      {},
      'coopnets on .* takes .*, and no condition; allowed: no condition',
    ),
    ('bicycle_gan', 'discriminator', {}, 'num_classes=0, but label is given'),
    (
      'bicycle_gan',
      'autoencoder',
      {},
      r'bicycle_gan on .*Autoencoder takes \(x\), and no condition',
    ),
  )
  def test_by_name(self, name, kind, fields, message):
    config = mixing.get_config(name, kind)
    for field, value in fields.items():
      *path, key = field.split('.')
      functools.reduce(operator.getitem, path, config)[key] = value
    with self.assertRaisesRegex(ValueError, message):
      training.check(config)


if __name__ == '__main__':
  absltest.main()
