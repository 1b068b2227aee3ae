"""The Ising model against sums over every state."""

import itertools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax

from stein_jax import energies
from stein_jax import learners
from stein_jax.algorithms import maximum_likelihood
from tests.energies import models


def learner(coupling, field, dtype=jnp.float32, shape=None):
  """Returns an Ising learner with these parameters."""
  energy = learners.create(
    jax.random.key(0),
    energies.Ising(),
    optax.adam(0.1),
    jnp.zeros((2, *(shape or (len(field),)))),
  )
  params = {
    'coupling': jnp.asarray(coupling, dtype),
    'field': jnp.asarray(field, dtype),
  }
  return energy.replace(params={'params': params})


def random(d):
  """Returns a coupling matrix, symmetric without a diagonal, and a field."""
  rng = np.random.default_rng(d)
  upper = np.triu(rng.normal(size=(d, d)), 1)
  return upper + upper.T, rng.normal(size=d)


def states(d):
  return np.array(list(itertools.product((-1.0, 1.0), repeat=d)))


def log_weights(x, coupling, field):
  """Sums over pairs, each once."""
  found = x @ field
  for i, j in itertools.combinations(range(len(field)), 2):
    found = found + coupling[i, j] * x[:, i] * x[:, j]
  return found


def ring(d, strength):
  """Returns the coupling matrix of spins on a ring."""
  i = np.arange(d)
  coupling = np.zeros((d, d))
  coupling[i, (i + 1) % d] = strength
  return coupling + coupling.T


class IsingTest(parameterized.TestCase):
  def test_energy_is_the_sum_over_pairs(self):
    coupling, field = random(6)
    x = states(6).reshape(-1, 2, 3)
    energy = learner(coupling, field, shape=(2, 3))
    np.testing.assert_allclose(
      models.call(energy, x),
      -log_weights(states(6), coupling, field),
      atol=2e-5,
    )
    # One side of the diagonal, doubled, and a diagonal say the same.
    other = 2 * np.triu(coupling) + np.diag(np.arange(6.0))
    np.testing.assert_allclose(
      models.call(learner(other, field), x), models.call(energy, x), atol=2e-5
    )

  @parameterized.parameters(1, 2, 3, 10)
  def test_log_partition_and_moments(self, d):
    self.enter_context(jax.enable_x64(True))
    (coupling, field), x = random(d), states(d)
    energy = learner(coupling, field, jnp.float64)
    weights = np.exp(log_weights(x, coupling, field))
    np.testing.assert_allclose(
      models.call(energy, method='log_partition'),
      np.log(weights.sum()),
      rtol=1e-13,
    )
    mean, pairs = models.call(energy, method='moments')
    p = weights / weights.sum()
    np.testing.assert_allclose(mean, p @ x, atol=1e-13)
    np.testing.assert_allclose(pairs, (p * x.T) @ x, atol=1e-13)

  @parameterized.parameters((3, 0.4), (8, -0.7), (22, 0.3))
  def test_ring(self, d, strength):
    energy = learner(ring(d, strength), np.zeros(d))
    expected = np.logaddexp(
      d * np.log(2 * np.cosh(strength)),
      d * np.log(2 * np.abs(np.sinh(strength))),
    )
    if strength < 0:
      self.assertEqual(d % 2, 0)  # else the second term is subtracted
    np.testing.assert_allclose(
      models.call(energy, method='log_partition'), expected, rtol=1e-5
    )

  def test_samples_have_the_exact_moments(self):
    coupling, field = random(5)
    energy = learner(coupling, field)
    x = models.call(energy, jax.random.key(0), 20_000, method='sample')
    mean, pairs = models.call(energy, method='moments')
    # Products of spins are within 1: a standard error is 1 / sqrt(n) at most.
    np.testing.assert_allclose(x.mean(0), mean, atol=5 / 20_000**0.5)
    np.testing.assert_allclose(x.T @ x / len(x), pairs, atol=5 / 20_000**0.5)

  def test_exact_maximum_likelihood_matches_the_moments(self):
    # The family has a parameter for each of them, so that learning ends there.
    coupling, field = random(3)
    x = np.random.default_rng(0).choice((-1.0, 1.0), (200, 3), p=(0.3, 0.7))
    x[:, 1] = np.where(np.arange(200) % 3, x[:, 0], x[:, 1])
    state = maximum_likelihood.State(0, learner(coupling, field))
    batch = {'image': jnp.asarray(x, jnp.float32)}

    @jax.jit
    def learn(state):
      step = lambda i, state: maximum_likelihood.step(state, batch, None)[0]
      return jax.lax.fori_loop(0, 1000, step, state)

    mean, pairs = models.call(learn(state).energy, method='moments')
    np.testing.assert_allclose(mean, x.mean(0), atol=1e-3)
    np.testing.assert_allclose(pairs, x.T @ x / len(x), atol=1e-3)

  def test_nan_and_half_precision(self):
    coupling, field = random(4)
    for spoilt in ((np.nan * coupling, field), (coupling, np.nan * field)):
      energy = learner(*spoilt)
      found = (
        models.call(energy, states(4)),
        models.call(energy, method='log_partition'),
        *models.call(energy, method='moments'),
      )
      for each in found:
        self.assertTrue(np.all(np.isnan(each)))
    half = learner(coupling, field, jnp.bfloat16)
    same = learner(*(np.array(v, jnp.bfloat16) for v in (coupling, field)))
    for method in (None, 'log_partition'):
      args = (states(4).astype(np.int8),) if method is None else ()
      found = models.call(half, *args, method=method)
      self.assertEqual(found.dtype, jnp.float32)
      np.testing.assert_array_equal(
        found, models.call(same, *args, method=method)
      )

  @parameterized.parameters(
    ('log_partition', 31), ('moments', 31), ('sample', 21, jax.random.key(0), 2)
  )
  def test_enumeration_has_a_limit(self, method, d, *args):
    energy = learner(np.zeros((d, d)), np.zeros(d))
    with self.assertRaisesRegex(ValueError, f'{d} spins.*stops at {d - 1}'):
      models.call(energy, *args, method=method)


if __name__ == '__main__':
  absltest.main()
