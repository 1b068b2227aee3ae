"""Every config in configs/, at its smoke scale, keeps the contract."""

import dataclasses
import functools
import pathlib

from absl.testing import absltest
from absl.testing import parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stein_jax import algorithms
from stein_jax import parallel
from stein_jax.runs import configs
from stein_jax.runs import training
from tests import smoke

# A run of each kind of state, by default: a resume restores nothing else.
_RESUMED = (
  'amortized_svgd_toy',  # a generator
  'contrastive_divergence_toy',  # an energy, and chains that persist
  'stein_cd_mnist',  # an energy
  'svgd_toy',  # particles
)
# Their steps draw nothing, so modes compare. Those of SteinCD and of score matching
# are compared in their own tests.
_COMPARED = ('maximum_likelihood_mnist', 'svgd_breast_cancer')
# The two that cost the most are lowered by default, and not run.
_NOT_RUN = ('bicycle_gan_facades', 'steingan_cifar10')


def _assert_learned(before, after, metrics, num_steps):
  """Fails unless steps left finite numbers, and moved the first network."""
  chex.assert_tree_all_finite((metrics, after))
  assert int(after.step) == num_steps, after.step
  leaves = (jax.tree.leaves(state[1].params) for state in (before, after))
  moved = [
    np.any(np.asarray(old) != np.asarray(new))
    for old, new in zip(*leaves, strict=True)
  ]
  assert any(moved), 'No parameter of the first network moved.'


class ConfigTest(parameterized.TestCase):
  @parameterized.parameters(sorted(smoke.ALGORITHMS.values()))
  def test_step_and_sample(self, name):
    # Its step runs below.
    self.step_and_sample(name, run=False)

  @parameterized.parameters(
    sorted(set(smoke.NAMES) - set(smoke.ALGORITHMS.values()))
  )
  @pytest.mark.slow
  def test_step_and_sample_of_every_other_config(self, name):
    self.step_and_sample(name, run=True)

  @parameterized.parameters(
    sorted(set(smoke.NAMES) - set(smoke.ALGORITHMS.values()))
  )
  def test_every_other_config_is_traced(self, name):
    # Its init, its step and its samples are.
    training.check(smoke.get_config(name))

  def step_and_sample(self, name, run):
    config = smoke.get_config(name)
    training.check(config)
    algorithm, init, batch = smoke.uninitialised(config)
    # Only what is run is initialised, which compiles.
    init = init if run else functools.partial(jax.eval_shape, init)
    state = init(jax.random.key(0))
    step = jax.jit(configs.step(config))
    # No key is used twice, but for a mask of dropout that several terms share.
    shares = config.algorithm in ('bicycle_gan', 'gan', 'steingan')
    with jax.debug_key_reuse(not shares):
      lowered = step.lower(state, batch, jax.random.key(1))
    after, metrics = lowered.out_info
    chex.assert_trees_all_equal_shapes_and_dtypes(state, after)
    for metric, value in metrics.items():
      self.assertRegex(metric, r'^[a-z]+/[a-z_]+$')
      self.assertEqual(value.shape, ())
    if run:
      after, metrics = lowered.compile()(state, batch, jax.random.key(1))
      _assert_learned(state, after, metrics, num_steps=1)

    # Samples have the data's shape. `check` has drawn as many as the config asks for.
    if not hasattr(algorithm, 'sample'):
      self.assertEqual(config.algorithm, 'classification')
      return
    options = {}
    if 'condition' in batch:
      options['condition'] = batch['condition'][:3]
    draw = functools.partial(configs.sample(config), num=3, **options)
    with self.assertRaisesRegex(TypeError, 'rng is the int 0; allowed: a key'):
      jax.eval_shape(lambda state: draw(state, 0), state)
    with jax.debug_key_reuse(True):
      samples = jax.jit(draw).lower(state, jax.random.key(2)).out_info
    for leaf in jax.tree.leaves(samples):
      self.assertEqual(leaf.shape[0], 3)
    if hasattr(samples, 'shape'):
      self.assertEqual(samples.shape[1:], batch['image'].shape[1:])

  @parameterized.parameters(smoke.NAMES)
  def test_every_hyper_parameter_is_reachable_from_a_flag(self, name):
    config = smoke.get_config(name, '')
    algorithm = algorithms.get(config.algorithm)
    keywords = set(algorithm.step.__kwdefaults__) - {'axis_name'}
    self.assertEqual(set(config.step), keywords)
    for keyword, value in configs.step(config).keywords.items():
      with self.subTest(keyword):
        self.assert_whole(config.step[keyword], value)

  def assert_whole(self, field, value):
    """Checks that a field is a number or a name, or a section with all of a value's."""
    if not dataclasses.is_dataclass(value):
      self.assertIsInstance(field, (bool, int, float, str, tuple))
      return
    names = {each.name for each in dataclasses.fields(value)}
    self.assertEqual(set(field), {'name', *names})
    for name in names:
      self.assert_whole(field[name], getattr(value, name))

  @parameterized.parameters(smoke.NAMES)
  def test_unknown_scale_is_refused(self, name):
    with self.assertRaisesRegex(ValueError, 'huge.*smoke'):
      smoke.get_config(name, 'huge')

  @parameterized.parameters(*_RESUMED)
  def test_a_stopped_run_that_goes_on_equals_an_uninterrupted_one(self, name):
    self.stop_and_go_on(smoke.get_config(name))

  # The mark is of the function: of a parameterized test it would be lost.
  @parameterized.parameters(sorted(set(smoke.NAMES) - set(_RESUMED)))
  @pytest.mark.slow
  def test_so_does_one_of_every_other_config(self, name):
    self.stop_and_go_on(smoke.get_config(name))

  @parameterized.parameters(
    ('steingan_toy', 'jit'),
    ('steingan_toy', 'shard_map'),
    ('vae_teaching_mnist', 'pmap'),
  )
  @pytest.mark.slow
  def test_so_does_one_with_chains_that_a_generator_began(self, name, mode):
    config = smoke.get_config(name)
    config.num_chains, config.parallel = 12, mode
    config.step.chain.num_steps = 2
    self.stop_and_go_on(config)

  def stop_and_go_on(self, config):
    folder = pathlib.Path(self.create_tempdir().full_path)
    straight = training.train(config, folder / 'straight')
    # Step 3 of 4: off the checkpoint and logging intervals.
    with smoke.stop_after(3):
      stopped = training.train(config, folder / 'stopped')
    self.assertEqual(int(stopped.step), 3)
    resumed = training.train(config, folder / 'stopped')
    chex.assert_trees_all_equal(
      jax.tree.leaves(straight), jax.tree.leaves(resumed)
    )
    self.assertEqual(
      smoke.metric_lines(folder / 'straight'),
      smoke.metric_lines(folder / 'stopped'),
    )

  @parameterized.parameters('gan_mnist', 'steingan_mnist')
  def test_a_generator_of_another_shape_is_refused(self, name):
    config = smoke.get_config(name)
    config.data.shape = (12, 12, 1)
    with self.assertRaisesRegex(ValueError, r'data \(12, 12, 1\), samples'):
      smoke.begin(config)


class MappedModesTest(parameterized.TestCase):
  def runs_of_seeds(self, name):
    """Returns functions of a key, init and also a step, and three keys."""
    config = smoke.get_config(name)
    _, init, batch = smoke.uninitialised(config)
    step = configs.step(config)

    def run(key):
      return step(init(key), batch, key)

    return init, run, jax.random.split(jax.random.key(0), 3)

  @parameterized.parameters(sorted(smoke.ALGORITHMS.values()))
  def test_seeds_can_be_an_axis(self, name):
    # What cannot be mapped fails at trace time; the numbers are a slow test's.
    init, run, keys = self.runs_of_seeds(name)
    alone = jax.eval_shape(init, keys[0])
    together, metrics = jax.eval_shape(jax.vmap(run), keys)
    self.assertEqual(
      [leaf.shape for leaf in jax.tree.leaves(together)],
      [(3, *leaf.shape) for leaf in jax.tree.leaves(alone)],
    )
    self.assertEqual({leaf.shape for leaf in metrics.values()}, {(3,)})

  @parameterized.parameters(sorted(smoke.ALGORITHMS.values()))
  @pytest.mark.slow
  def test_a_seed_among_others_is_what_it_is_alone(self, name):
    _, run, keys = self.runs_of_seeds(name)
    together = jax.jit(jax.vmap(run))(keys)
    alone = jax.jit(run)(keys[1])
    chex.assert_trees_all_close(
      [leaf[1] for leaf in jax.tree.leaves(together)],
      jax.tree.leaves(alone),
      rtol=1e-5,
      atol=1e-6,
    )

  @parameterized.parameters(*_COMPARED)
  def test_jit_and_shard_map_agree_and_trace_once(self, name):
    self.modes_agree(name, ('jit', 'shard_map'))

  # There is nothing to compare where each device has random numbers of its own;
  # `tests/algorithms` compares steps of draws that are fixed.
  @parameterized.parameters(
    sorted(set(smoke.ALGORITHMS.values()) - {*_COMPARED, *_NOT_RUN})
  )
  def test_jit_traces_once_and_shard_map_is_traced(self, name):
    self.modes_agree(name, ('jit',))

  @parameterized.parameters(sorted(smoke.ALGORITHMS.values()))
  @pytest.mark.slow
  def test_all_modes_agree_and_trace_once(self, name):
    self.modes_agree(name, parallel.MODES)

  def modes_agree(self, name, modes):
    """Checks that some steps in each mode, on all devices, come to the same state.

    Without shard_map among the modes, its step is traced.
    """
    config = smoke.get_config(name)
    # As many rows on each device as on one of four.
    more = config.batch_size * jax.device_count() // 4
    config.batch_size = max(config.batch_size, more)
    ends, changes_with_key = {}, []
    algorithm, first, batch = smoke.begin(config)
    spec = parallel.partition(first, getattr(algorithm, 'SPLIT', ()))

    def start():
      return parallel.replicate(jax.tree.map(jnp.copy, first), spec)

    for mode in modes:
      chex.clear_trace_counter()
      traced_once = chex.assert_max_traces(algorithm.step, n=1)
      step = parallel.compile_step(
        functools.partial(traced_once, **configs.step(config).keywords),
        mode,
        spec=spec,
      )
      state = start()
      for i in range(3):
        state, metrics = step(state, batch, jax.random.key(i))
      ends[mode] = jax.tree.map(np.asarray, (jax.tree.leaves(state), metrics))
      if mode == 'jit':
        _assert_learned(first, state, metrics, num_steps=3)
        for key in (7, 8):
          after, _ = step(start(), batch, jax.random.key(key))
          changes_with_key.append(
            np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(after)])
          )
    if 'shard_map' not in ends:
      step = parallel.per_device(configs.step(config), spec=spec)
      after, _ = jax.eval_shape(step, first, batch, jax.random.key(1))
      chex.assert_trees_all_equal_shapes_and_dtypes(after, first)
      return
    # The modes sum in other orders, three steps long.
    close = functools.partial(chex.assert_trees_all_close, rtol=3e-5, atol=1e-6)
    if 'pmap' in ends:
      close(ends['pmap'], ends['shard_map'])
    # Random numbers of the mapped modes are each device's own.
    if np.array_equal(*changes_with_key):
      close(ends['jit'], ends['shard_map'])


if __name__ == '__main__':
  absltest.main()
