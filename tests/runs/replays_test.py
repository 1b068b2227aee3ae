"""What went bad first: the chain, the gradient or the update, by a replay."""

import pathlib
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stein_jax import energies
from stein_jax import learners
from stein_jax.runs import evaluation
from stein_jax.runs import replays
from stein_jax.runs import training
from tests import smoke


class ReplaysTest(parameterized.TestCase):
  def note(self, config):
    """Returns what a run that ends at bad numbers says beside them."""
    workdir = pathlib.Path(self.create_tempdir().full_path) / 'run'
    with self.assertRaises(FloatingPointError) as caught:
      training.train(config, workdir)
    return caught.exception.__notes__[-1]

  def config(self, mode='jit', steps_per_call=1):
    config = smoke.get_config('contrastive_divergence_mnist')
    config.num_steps, config.eval_every, config.parallel = 8, 0, mode
    config.steps_per_call = steps_per_call
    config.evaluation.log_likelihood = 'none'
    return config

  def test_a_step_size_out_of_all_bounds_is_the_chain(self):
    config = self.config()
    config.step.chain.step_size = 1e18
    self.assertRegex(
      self.note(config),
      'chain went bad first: at step 1 .* chain/move.* smaller step.chain.step_size',
    )

  def test_a_huge_update_is_to_blame_for_the_chain_after_it(self):
    config = self.config()
    # Plain gradients leave the data finite, and their scores not.
    config.optimizer.learning_rate = 1e38
    self.assertRegex(
      self.note(config),
      'update of energy .* chain/move.* a smaller optimizer.learning_rate',
    )

  def test_data_moved_too_far_are_the_step_of_what_moves_them(self):
    config = smoke.get_config('steingan_mnist')
    config.step.alpha, config.step.epsilon = 1.0, 1e38
    config.evaluation.log_likelihood = 'none'
    self.assertRegex(self.note(config), 'samples/move.* a smaller step.epsilon')

  @parameterized.parameters(('jit', 1))
  def test_a_rate_out_of_all_bounds_is_the_update(self, mode, steps_per_call):
    self.check_update(mode, steps_per_call)

  @pytest.mark.slow
  def test_so_it_is_on_several_devices(self):
    self.check_update('pmap', 1)
    self.check_update('shard_map', 2)

  def check_update(self, mode, steps_per_call):
    config = self.config(mode, steps_per_call)
    # An update of a rate is that rate, but for Adam's epsilon.
    config.optimizer = dict(name='adam', learning_rate=1e38)
    self.assertRegex(
      self.note(config),
      r'update of energy went bad first: that of step 1 was up to 1e\+38 .*energy/data',
    )

  def test_a_gradient_alone(self):
    # The root of 0 has an infinite derivative, and 0 times it is none.
    root = lambda params, x: jnp.sum(x**2, 1) + jnp.sqrt(0.0 * params['w'])
    learner = learners.wrap(
      root, {'w': jnp.ones(())}, optax.sgd(0.1), jnp.ones((4, 2))
    )
    note = self.note_of(learner, jnp.ones((4, 2)), jnp.zeros((4, 2)))
    self.assertRegex(note, 'gradient of energy went bad first: at step 1')

  def test_an_update_of_a_finite_gradient(self):
    linear = lambda params, x: params['w'] * jnp.sum(x**2, 1)
    optimizer = optax.chain(optax.sgd(1e30), optax.scale(1e30))
    learner = learners.wrap(
      linear, {'w': jnp.ones(())}, optimizer, jnp.ones((4, 2))
    )
    note = self.note_of(learner, jnp.ones((4, 2)), jnp.zeros((4, 2)))
    self.assertRegex(note, 'update of energy went bad first: at step 1')

  def test_a_network_that_begins_so(self):
    linear = lambda params, x: params['w'] * jnp.sum(x**2, 1)
    learner = learners.wrap(
      linear, {'w': jnp.array(3e38)}, optax.sgd(1.0), jnp.ones((4, 2))
    )
    note = self.note_of(learner, jnp.ones((4, 2)), jnp.zeros((4, 2)))
    self.assertRegex(note, 'network went bad first: at step 1.*energy/data')

  def note_of(self, learner, data, samples):
    """Returns what is said of one step of contrastive divergence."""
    from stein_jax.algorithms import contrastive_divergence as cd

    state = replays.recorded(cd.State(jnp.zeros((), jnp.int32), learner, None))

    def calls(state):
      loss_fn = energies.contrast(learner, data, samples)
      energy, metrics = learners.descend(state.energy, loss_fn)
      yield 1, state._replace(energy=energy), metrics

    return replays.first_bad(calls(state), 1)

  def test_numbers_of_the_test_data_alone(self):
    config = self.config()
    bad = {'test/log_likelihood': np.nan}
    with mock.patch.object(evaluation, 'test_metrics', return_value=bad):
      config.eval_every = 2
      self.assertRegex(self.note(config), 'up to 2 finds all .* finite')

  def test_optimizers_do_what_they_did(self):
    config = self.config()
    algorithm, state, batch = smoke.begin(config)
    step = jax.jit(algorithm.step)
    rng = jax.random.key(0)
    plain, recorded = state, replays.recorded(state)
    for _ in range(3):
      plain, _ = step(plain, batch, rng)
      recorded, _ = step(recorded, batch, rng)
    for a, b in zip(
      jax.tree.leaves(plain.energy.params),
      jax.tree.leaves(recorded.energy.params),
      strict=True,
    ):
      np.testing.assert_array_equal(a, b)


if __name__ == '__main__':
  absltest.main()
