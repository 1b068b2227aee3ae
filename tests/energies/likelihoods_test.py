"""Log likelihoods and partition functions of energies."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from stein_jax import energies
from stein_jax import learners


def rbm(seed=0, d=3, num_hidden=2):
  return learners.create(
    jax.random.key(seed),
    energies.RBM(num_hidden),
    dict(name='sgd', learning_rate=0.1),
    jnp.zeros((1, d)),
  )


class LikelihoodTest(parameterized.TestCase):
  def test_log_likelihood_of_a_gaussian(self):
    # With B = 0 and c = 0 the RBM is N(b, I).
    energy = rbm()
    mean = np.array([0.5, -1.0, 2.0], np.float32)
    params = jax.tree.map(jnp.zeros_like, energy.params)
    params['params']['bias'] = jnp.asarray(mean)
    energy = energy.replace(params=params)
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    expected = -0.5 * np.sum((x - mean) ** 2, 1) - 1.5 * np.log(2 * np.pi)
    values = energies.log_likelihood(
      energy, x, energies.exact_log_partition(energy)
    )
    np.testing.assert_allclose(values, expected, rtol=1e-5)

  def test_ais_brackets_the_exact_log_partition(self):
    energy = rbm(d=6, num_hidden=4)
    energy = energy.replace(
      params=jax.tree.map(lambda p: 10 * p, energy.params)
    )
    exact = float(energies.exact_log_partition(energy))
    options = dict(num_chains=400, num_temperatures=200, step_size=0.4)
    draws = energy.apply_fn(
      energy.params, jax.random.key(1), 400, method='sample'
    )
    estimate = jax.jit(
      lambda rng, init: energies.ais_estimate(energy, rng, init=init, **options)
    )
    found = [
      estimate(jax.random.key(2), None),
      estimate(jax.random.key(3), draws),
    ]
    below, above = (each['log_partition'] for each in found)
    for each in found:
      off = abs(float(each['log_partition']) - exact)
      self.assertLess(off, 5 * float(each['log_partition_error']))
      self.assertBetween(float(each['log_partition_ess']), 200, 400)
      self.assertBetween(float(each['log_partition_acceptance']), 0.5, 1)
    alone = jax.jit(
      lambda rng: energies.ais_log_partition(energy, rng, **options)
    )(jax.random.key(2))
    self.assertEqual(float(alone), float(below))
    # The weights' spread at these lengths is below 0.5 nats: 4 errors are 0.1.
    self.assertAlmostEqual(float(below), exact, delta=0.1)
    self.assertAlmostEqual(float(above), exact, delta=0.1)
    self.assertLess(float(below), float(above) + 0.1)


if __name__ == '__main__':
  absltest.main()
