"""Tests of contrastive divergence on exact samples of a small RBM."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import blackjax
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
import optax
import pytest

from stein_jax import energies
from stein_jax import learners
from stein_jax import samplers
from stein_jax import stein
from stein_jax.algorithms import contrastive_divergence
from stein_jax.algorithms import maximum_likelihood
from tests import draws
from tests import literal

_CD = dict(persistent=False)
_PCD = dict(persistent=True)


def hmc(rng, x, target):
  """Returns x after a transition of another library's kernel, and its metrics."""
  kernel = blackjax.hmc(
    lambda point: target.log_density(point[None])[0],
    step_size=0.5,
    inverse_mass_matrix=jnp.ones(x[0].size),
    num_integration_steps=5,
  )
  keys, start = jax.random.split(rng, len(x)), jax.vmap(kernel.init)(x)
  end, info = jax.vmap(kernel.step)(keys, start)
  return end.position, {'acceptance': jnp.mean(info.acceptance_rate)}


def nuts(rng, x, target):
  """Returns what `hmc` does, for trajectories that end where they turn back."""
  kernel = blackjax.nuts(
    lambda point: target.log_density(point[None])[0],
    step_size=0.5,
    inverse_mass_matrix=jnp.ones(x[0].size),
  )
  keys, start = jax.random.split(rng, len(x)), jax.vmap(kernel.init)(x)
  end, info = jax.vmap(kernel.step)(keys, start)
  return end.position, {'depth': jnp.mean(info.num_trajectory_expansions)}


class OtherLibrariesTest(parameterized.TestCase):
  """BlackJAX's kernels are chains."""

  def test_the_stationary_law(self):
    self.check_law(hmc)

  @pytest.mark.slow
  def test_the_stationary_law_of_nuts(self):
    self.check_law(nuts)

  def check_law(self, chain):
    # Twenty transitions from 0 to a normal law of these moments.
    mean, variance, num = np.array([1.0, -2.0]), np.array([0.5, 2.0]), 2000
    law = samplers.target(
      lambda x: -0.5 * jnp.sum((x - mean[None]) ** 2 / variance[None], 1)
    )

    def step(x, rng):
      return chain(rng, x, law)[0], None

    keys = jax.random.split(jax.random.key(0), 20)
    run = jax.jit(lambda x: jax.lax.scan(step, x, keys)[0])
    x = np.asarray(run(jnp.zeros((num, 2))), np.float64)
    error = np.abs(x.mean(0) - mean) / (variance / num) ** 0.5
    self.assertLess(np.max(error), 4)
    error = np.abs(x.var(0) / variance - 1) / (2 / num) ** 0.5
    self.assertLess(np.max(error), 4)

  def test_make_the_negatives(self):
    self.check_negatives(hmc, 'acceptance')

  @pytest.mark.slow
  def test_make_the_negatives_of_nuts(self):
    self.check_negatives(nuts, 'depth')

  def check_negatives(self, chain, metric):
    # The update is the difference of the statistics of data and of chains.
    x = jnp.asarray(literal.rbm_data(6), jnp.float32)
    state = literal.at_truth(contrastive_divergence, x, chains=x + 1)
    step = functools.partial(contrastive_divergence.step, chain=chain)
    after, metrics = jax.jit(step)(state, {'image': x}, jax.random.key(0))
    before = state.energy.params['params']
    positive, negative = (
      literal.rbm_statistics(before, y) for y in (x, after.chains)
    )
    for name, value in after.energy.params['params'].items():
      np.testing.assert_allclose(
        value, before[name] + positive[name] - negative[name], atol=1e-5
      )
    self.assertGreater(np.max(np.abs(after.chains - state.chains)), 0.1)
    self.assertGreater(metrics[f'chain/{metric}'], 0)


class ContrastiveDivergenceTest(parameterized.TestCase):
  def test_logs_the_discrepancy_of_its_chains(self):
    x = jnp.asarray(literal.rbm_data(6), jnp.float32)
    state = literal.at_truth(contrastive_divergence, x, chains=x + 1)
    ksd = stein.KSD(max_points=4)
    step = functools.partial(contrastive_divergence.step, ksd=ksd)
    after, metrics = jax.jit(step)(state, {'image': x}, jax.random.key(0))
    score = energies.score(state.energy, after.chains)  # of the energy before
    u = literal.imq_stein_matrix(after.chains[:4], score[:4], 1.0)
    expected = (u.sum() - np.trace(u)) / 4 / 3
    np.testing.assert_allclose(metrics['chain/ksd'], expected, rtol=1e-4)

  def z_scores(self, x, rng, expected=None, **hyper):
    """Returns the mean update's distance from the expected, in standard errors."""
    state = literal.at_truth(contrastive_divergence, x[0], chains=None)
    updates = jax.jit(
      jax.vmap(
        lambda x, rng: literal.ascent(
          contrastive_divergence, state, x, rng, **hyper
        )
      )
    )(x, jax.random.split(rng, len(x)))
    expected = expected or jax.tree.map(lambda _: 0.0, updates)
    scores = jax.tree.map(
      lambda u, e: (u.mean(0) - e) / (u.std(0) / len(x) ** 0.5),
      updates,
      expected,
    )
    return np.abs(np.concatenate([s.ravel() for s in jax.tree.leaves(scores)]))

  @parameterized.parameters(
    (samplers.Gibbs(), True),
    (samplers.MALA(1.0, num_steps=3), True),
    (hmc, True),
    # Without the accept step the chain leaves p: CD then has a bias.
    (samplers.Langevin(1.5, num_steps=5), False),
  )
  def test_no_drift_at_the_truth(self, chain, invariant):
    x = jnp.asarray(literal.rbm_data(64 * 400), jnp.float32).reshape(64, 400, 4)
    largest = np.max(self.z_scores(x, jax.random.key(0), chain=chain))
    if invariant:
      self.assertLess(largest, 4)
    else:
      self.assertGreater(largest, 20)

  def test_long_chains_give_the_likelihood_gradient(self):
    x = jnp.asarray(literal.rbm_data(100) + 0.5, jnp.float32)
    state = literal.at_truth(maximum_likelihood, x)
    likelihood = literal.ascent(maximum_likelihood, state, x)
    x, rng = jnp.tile(x[None], (64, 1, 1)), jax.random.key(1)
    run = lambda num_steps: np.max(
      self.z_scores(x, rng, likelihood, chain=samplers.Gibbs(num_steps))
    )
    self.assertLess(run(200), 4)
    self.assertGreater(
      run(1), 20
    )  # one step is biased where the data are not p

  @parameterized.parameters(
    samplers.Langevin(0.3), samplers.MALA(0.3), samplers.Gibbs()
  )
  def test_persistent_chains(self, chain):
    x = literal.rbm_data(6).astype(np.float32)
    state = literal.at_truth(contrastive_divergence, x, chains=jnp.asarray(x))
    other = {
      'image': jnp.asarray(x[:3] + 1)
    }  # the chains need not fit the batch
    self.enter_context(draws.fixed())
    run = jax.jit(functools.partial(energies.run_chain, chain=chain))
    step = jax.jit(functools.partial(contrastive_divergence.step, chain=chain))
    for seed in range(2):
      rng = jax.random.key(seed)
      chains, chain_metrics = run(state.energy, rng=rng, x=state.chains)
      before = state.energy.params['params']
      positive, negative = (
        literal.rbm_statistics(before, x) for x in (other['image'], chains)
      )
      moved, metrics = step(state, other, rng)
      for name, value in chain_metrics.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-6)
      np.testing.assert_allclose(moved.chains, chains, rtol=1e-6)
      self.assertGreater(np.max(np.abs(moved.chains - state.chains)), 0.1)
      for name, after in moved.energy.params['params'].items():
        np.testing.assert_allclose(
          after, before[name] + positive[name] - negative[name], atol=1e-5
        )
      state = moved
    self.assertEqual(state.step, 2)

  @parameterized.parameters(_CD, _PCD)
  def test_chains_start_at_the_data(self, persistent):
    x = jnp.asarray(literal.rbm_data(6), jnp.float32)
    state = literal.init_rbm(
      contrastive_divergence,
      jax.random.key(0),
      x,
      dict(name='sgd', learning_rate=1.0),
      persistent=persistent,
    )
    if persistent:
      np.testing.assert_array_equal(state.chains, x)
    else:
      moved, _ = contrastive_divergence.step(
        state, {'image': x}, jax.random.key(0)
      )
      self.assertIsNone(moved.chains)

  @parameterized.parameters(
    samplers.Langevin(0.5, num_steps=3), samplers.MALA(0.5, num_steps=3)
  )
  def test_chains_keep_their_labels(self, chain):
    """E(x, y) = |x - m_y|^2 / 2 learns m_k from what left it [LW17 eq 25]."""
    x, y = np.float32(literal.rbm_data(9)), np.arange(9) % 3
    means = np.random.default_rng(3).normal(size=(3, 4))
    energy = learners.create(
      jax.random.key(0),
      literal.ByLabel(means),
      optax.sgd(1.0),
      jnp.asarray(x),
      y,
    )
    step = functools.partial(contrastive_divergence.step, chain=chain)
    zero, rng = jnp.zeros((), jnp.int32), jax.random.key(2)
    state = contrastive_divergence.State(zero, energy, None)
    batch = {'image': x, 'condition': y}
    self.enter_context(draws.fixed())
    after, _ = jax.jit(step)(state, batch, rng)

    # Of its own density a chain of label y is one of N(m_y, I).
    if isinstance(chain, samplers.Langevin):
      ends = literal.chain(energy, chain, x, y)
    else:
      ends, _ = samplers.mala(
        rng,
        x,
        lambda x: -0.5 * jnp.sum((x - jnp.float32(means)[y]) ** 2, -1),
        num_steps=3,
        step_size=0.5,
      )
    expected = means + np.eye(3)[y].T @ (x - ends) / len(x)
    found = after.energy.params['params']['means']
    np.testing.assert_allclose(found, expected, atol=1e-5)

  def test_persistent_chains_have_no_condition(self):
    config = ConfigDict(
      dict(
        persistent=True,
        energy=dict(name='RBM', num_hidden=2),
        optimizer=dict(name='sgd', learning_rate=1.0),
      )
    )
    batch = {'image': jnp.zeros((3, 4)), 'condition': jnp.zeros(3, jnp.int32)}
    with self.assertRaisesRegex(ValueError, 'persistent=True.*allowed: False'):
      contrastive_divergence.init(jax.random.key(0), config, batch)

  @parameterized.parameters((_CD, 600), (_PCD, 1500))
  def test_learning(self, config, num_steps):
    self.check_learning(config, num_steps, samplers.Gibbs())

  @pytest.mark.slow
  def test_learning_by_langevin(self):
    self.check_learning(_CD, 600, samplers.Langevin(0.5))

  def check_learning(self, config, num_steps, chain):
    x = literal.rbm_data(literal.NUM_DATA)
    for params in literal.fit_rbm(
      contrastive_divergence,
      x,
      num_train_steps=num_steps,
      config=config,
      chain=chain,
    ):
      self.assertGreater(
        literal.rbm_log_likelihood(params, x),
        literal.rbm_log_likelihood(literal.RBM_TRUTH, x) - literal.SLACK,
      )


if __name__ == '__main__':
  absltest.main()
