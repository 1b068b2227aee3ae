"""Tests of the divergence through a chain's last step against what is known of it."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import optimize

from stein_jax import samplers
from stein_jax.algorithms import contrastive_divergence
from stein_jax.algorithms import langevin_ebm
from tests import draws
from tests import literal
from tests import smoke

_KEY = jax.random.key(0)
_ZERO = jnp.zeros((), jnp.int32)


def terms(lam, delta, num_steps, v=1.0):
  """Returns the contrast's slope by lam, and that of KL(q || p) by the last step.

  Chains x' = r x + delta xi, r = 1 - delta^2 lam / 2, start at data of variance v. The
  last one moves its start by -delta^2 / 2 x for a unit of lam, and KL has the slopes
  lam x' by x', and 1 / (2 var) of its entropy by var.
  """
  r = 1 - delta**2 * lam / 2
  before = v
  for _ in range(num_steps - 1):
    before = r**2 * before + delta**2
  after = r**2 * before + delta**2
  return (v - after) / 2, delta**2 * r * before / 2 * (1 / after - lam)


class GaussianTest(parameterized.TestCase):
  """One dimension's numbers, of eight that are alike: neighbours have moments then."""

  @parameterized.parameters(
    (0.1, 1, 1.0025, 1.0013, 1.240),
    (0.3, 1, 1.024, 1.011, 1.276),
    (0.5, 1, 1.072, 1.032, 1.362),
    (0.5, 10, 1.072, 1.054, 1.092),
  )
  def test_fixed_points(self, delta, num_steps, contrast, minus, plus):
    for weight, expected in ((0, contrast), (-1, minus), (1, plus)):
      slope = lambda lam, weight=weight: np.dot(
        terms(lam, delta, num_steps), (1, weight)
      )
      found = optimize.brentq(slope, 0.9, 1.5)
      self.assertAlmostEqual(found, expected, delta=1e-3)

  def test_the_step_is_that_gradient(self):
    self.check_gradient(0.5, 1, 1.4, 40)

  @parameterized.parameters((0.5, 1, 1.032), (0.5, 4, 1.4))
  @pytest.mark.slow
  def test_so_it_is_elsewhere(self, delta, num_steps, lam):
    self.check_gradient(delta, num_steps, lam, 100)

  def check_gradient(self, delta, num_steps, lam, keys):
    dim, num = 8, 300
    energy = literal.quadratic(
      np.zeros(dim), np.full(dim, np.log(lam)), optimizer=optax.sgd(1.0)
    )
    state = contrastive_divergence.State(_ZERO, energy, None)
    data = literal.normal(keys, num, mean=np.zeros(dim), variance=np.ones(dim))
    chain = samplers.Langevin(delta, num_steps)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, 0, None, None))
    def slope(rng, x, minus, plus):
      step = functools.partial(
        contrastive_divergence.step, chain=chain, minus_kl=minus, plus_kl=plus
      )
      after, _ = step(state, {'image': x}, rng)
      moved = after.energy.params['params']['log_precision'] - np.log(lam)
      return -jnp.mean(moved) / lam

    rngs = jax.random.split(_KEY, keys)
    of_contrast, of_divergence = terms(lam, delta, num_steps)
    for minus, plus in ((1.0, 0.0), (0.0, 1.0), (0.0, 0.5)):
      found = np.float64(slope(rngs, data, minus, plus))
      error = found.std() / keys**0.5
      exact = of_contrast + (plus - minus) * of_divergence
      self.assertLess(abs(found.mean() - exact), 4 * error)
      # The term shows, but where the truth is that there is none.
      if lam == 1.4:
        self.assertGreater(abs(of_divergence), 5 * error * (plus + minus))


class TermTest(parameterized.TestCase):
  def literal_term(self, params, before, chain, noise):
    """Returns mean E - H of the ends, of an RBM's parameters in the last step."""
    logits = lambda p, x: x @ p['weight'] + p['hidden_bias']

    def energy(x):
      hidden = np.log(2 * np.cosh(logits(literal.RBM_TRUTH, x))).sum(1)
      return 0.5 * np.sum(x**2, 1) - x @ literal.RBM_TRUTH['bias'] - hidden

    hidden = np.tanh(logits(params, before))
    score = params['bias'] - before + hidden @ params['weight'].T
    x = before + chain.step_size**2 / 2 * score + chain.step_size * noise
    distance = np.linalg.norm(x[:, None] - x[None], axis=-1)
    nearest = np.min(distance + np.diag(np.full(len(x), np.inf)), 1)
    return np.mean(energy(x)) - 4 * np.mean(np.log(nearest))

  def test_is_the_slope_of_its_definition(self):
    self.enter_context(jax.enable_x64(True))
    data = literal.rbm_data(12)
    chain = samplers.Langevin(0.6, 3)
    state = literal.at_truth(contrastive_divergence, data, chains=None)
    ascents = [
      self.ascent(state, data, chain, minus_kl=minus) for minus in (0.0, 0.7)
    ]
    noise = draws.normals(data.shape)
    before = data
    for _ in range(2):
      logits = before @ literal.RBM_TRUTH['weight']
      hidden = np.tanh(logits + literal.RBM_TRUTH['hidden_bias'])
      score = literal.RBM_TRUTH['bias'] - before
      score = score + hidden @ literal.RBM_TRUTH['weight'].T
      before = before + 0.6**2 / 2 * score + 0.6 * noise
    for name, value in literal.RBM_TRUTH.items():
      slope = np.zeros(value.shape)
      for index in np.ndindex(value.shape):
        ends = []
        for sign in (1, -1):
          moved = value.copy()
          moved[index] += sign * 1e-5
          params = literal.RBM_TRUTH | {name: moved}
          ends.append(self.literal_term(params, before, chain, noise))
        slope[index] = np.subtract(*ends) / 2e-5
      # Minus the term is in the loss, and sgd of rate 1 goes down that.
      found = ascents[1][name] - ascents[0][name]
      np.testing.assert_allclose(found, 0.7 * slope, atol=1e-7)
      self.assertGreater(np.max(np.abs(slope)), 1e-3)

  def ascent(self, state, x, chain, **hyper):
    with draws.fixed():
      return literal.ascent(
        contrastive_divergence, state, x, chain=chain, **hyper
      )

  def test_metrics_are_those_of_the_whole_chain(self):
    x = jnp.asarray(literal.rbm_data(6), jnp.float32)
    state = literal.at_truth(contrastive_divergence, x, chains=x)

    def run(**weights):
      step = functools.partial(
        contrastive_divergence.step, chain=samplers.Langevin(0.5, 3), **weights
      )
      return jax.jit(step)(state, {'image': x}, _KEY)

    with draws.fixed():
      (without, expected), (after, found) = run(), run(plus_kl=1.0)
    np.testing.assert_allclose(after.chains, without.chains, atol=1e-5)
    self.assertEqual(set(found), set(expected))
    for name, value in expected.items():
      np.testing.assert_allclose(found[name], value, rtol=1e-4)

  def test_chains_that_are_one_have_no_slope_apart(self):
    x = jnp.zeros((4, 4))
    state = literal.at_truth(contrastive_divergence, x, chains=None)
    after = literal.ascent(
      contrastive_divergence,
      state,
      x,
      chain=samplers.Langevin(0.5, noise=False),
      minus_kl=1.0,
    )
    self.assertTrue(all(np.isfinite(a).all() for a in jax.tree.leaves(after)))

  def test_modes_agree(self):
    self.check_modes('contrastive_divergence_mnist')

  @pytest.mark.slow
  def test_modes_agree_on_a_convolutional_energy(self):
    self.check_modes('langevin_ebm_mnist')

  def check_modes(self, name):
    config = smoke.get_config(name)
    if name == 'langevin_ebm_mnist':
      config.num_chains = 0
    algorithm, state, batch = smoke.begin(config)
    images = np.tile(batch['image'], (2, 1, 1, 1))
    # No two rows are alike, or the nearest would be a matter of rounding.
    batch['image'] = np.float32(images + 0.1 * draws.normals(images.shape))
    step = functools.partial(
      algorithm.step, chain=samplers.Langevin(0.3, 2), minus_kl=0.5
    )
    with draws.fixed():
      smoke.assert_modes_agree(step, state, batch)

  def test_refusals(self):
    x = jnp.zeros((4, 4))
    state = literal.at_truth(contrastive_divergence, x, chains=None)
    for weights, chain, message in (
      (dict(minus_kl=-1.0), samplers.Langevin(0.1), 'minus_kl=-1.0 must be z'),
      (dict(plus_kl=1.0), samplers.Gibbs(), 'plus_kl=1.0 ask.*allowed: 0'),
      (dict(minus_kl=0.5), samplers.MALA(0.1), 'minus_kl=0.5 .*Langevin alone'),
    ):
      with self.assertRaisesRegex(ValueError, message):
        contrastive_divergence.step(
          state, {'image': x}, _KEY, chain=chain, **weights
        )
    state = langevin_ebm.State(_ZERO, state.energy, None)
    with self.assertRaisesRegex(ValueError, 'plus_kl=nan must be'):
      langevin_ebm.step(state, {'image': x}, _KEY, plus_kl=float('nan'))


if __name__ == '__main__':
  absltest.main()
