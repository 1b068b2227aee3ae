"""Tests of exact maximum likelihood; and the small RBM that its siblings learn."""

import functools
import itertools

from absl.testing import absltest
from absl.testing import parameterized
import jax
from jax import flatten_util
from jax import lax
import jax.numpy as jnp
import ml_collections
import numpy as np
from scipy import stats

from stein_jax import samplers
from stein_jax.algorithms import maximum_likelihood

_STATES = np.array(list(itertools.product([-1.0, 1.0], repeat=2)))
TRUTH = {
  'bias': np.array([0.5, -0.5, 0.0, 1.0]),
  'weight': np.array([[1.5, 0.0], [0.0, 1.5], [1.0, -1.0], [-1.0, 0.5]]),
  'hidden_bias': np.array([0.3, -0.2]),
}
NUM_PARAMETERS = 4 + 8 + 2
NUM_DATA = 300
# The best fit is NUM_PARAMETERS / 2n nats above the truth on its own data (Wilks).
# An estimator of efficiency 1 / 10 is nine times that below; a start is 5 below.
SLACK = 9 * NUM_PARAMETERS / (2 * NUM_DATA)


def mixture(params):
  """Returns weights [4] and means [4, d]: p is their sum of N(b + Bh, I)."""
  params = jax.tree.map(np.asarray, params)
  means = params['bias'] + _STATES @ params['weight'].T
  weights = np.exp(_STATES @ params['hidden_bias'] + 0.5 * np.sum(means**2, 1))
  return weights / np.sum(weights), means


def log_likelihood(params, x):
  """Returns the mean of log p(x)."""
  weights, means = mixture(params)
  sq_dist = np.sum((x[:, None] - means) ** 2, -1)
  return np.mean(np.log(np.exp(-0.5 * sq_dist) @ weights)) - 2 * np.log(
    2 * np.pi
  )


def log_partition(params):
  """Returns log Z, a sum over the hidden states of unit Gaussians."""
  params = jax.tree.map(np.asarray, params)
  means = params['bias'] + _STATES @ params['weight'].T
  log_weights = _STATES @ params['hidden_bias'] + 0.5 * np.sum(means**2, 1)
  return np.log(np.sum(np.exp(log_weights))) + 2 * np.log(2 * np.pi)


def data(num, spread=1.0, seed=0):
  """Returns draws [num, 4] of the truth, its unit Gaussians given that spread."""
  rng = np.random.default_rng(seed)
  weights, means = mixture(TRUTH)
  return means[rng.choice(4, num, p=weights)] + spread * rng.normal(
    size=(num, 4)
  )


def statistics(params, x):
  """Returns the means of -dE / d(b, B, c) = (x, x h', h), h = tanh(B'x + c)."""
  params, x = jax.tree.map(np.asarray, (params, x))
  h = np.tanh(x @ params['weight'] + params['hidden_bias'])
  return {
    'bias': x.mean(0),
    'weight': x.T @ h / len(x),
    'hidden_bias': h.mean(0),
  }


def moments(params):
  """Returns the means under p of what `statistics` has, which are those with h."""
  weights, means = mixture(params)
  return {
    'bias': weights @ means,
    'weight': (weights * means.T) @ _STATES,
    'hidden_bias': weights @ _STATES,
  }


def init(algorithm, rng, x, optimizer, **config):
  energy = dict(name='RBM', num_hidden=2)
  config = ml_collections.ConfigDict(
    dict(energy=energy, optimizer=optimizer, **config)
  )
  return algorithm.init(rng, config, {'image': x})


def at_truth(algorithm, x, **fields):
  """Returns a state with the true parameters, whose step adds -gradient."""
  x = jnp.asarray(x)
  energy = _untrained(x.shape[1:], x.dtype.name)
  params = {'params': jax.tree.map(lambda p: jnp.asarray(p, x.dtype), TRUTH)}
  # Arrays of its own: a compiled step is given its state to destroy.
  zero = lambda: jnp.zeros((), jnp.int32)
  return algorithm.State(
    zero(), energy.replace(params=params, step=zero()), **fields
  )


@functools.lru_cache
def _untrained(shape, dtype):
  del dtype  # part of the cache key
  return init(
    maximum_likelihood,
    jax.random.key(0),
    jnp.zeros((1, *shape)),
    dict(name='sgd', learning_rate=1.0),
  ).energy


def ascent(algorithm, state, x, rng=None, **hyper):
  """Returns what one step adds to the parameters."""
  rng = jax.random.key(0) if rng is None else rng
  step = jax.jit(functools.partial(algorithm.step, **hyper))
  moved, _ = step(state, {'image': jnp.asarray(x)}, rng)
  return jax.tree.map(
    jnp.subtract, moved.energy.params['params'], state.energy.params['params']
  )


def learn(algorithm, x, *, num_train_steps, num_seeds=2, config=(), **hyper):
  """Returns the parameters after full-batch training, one tree per seed."""
  x = jnp.asarray(x, jnp.float32)
  rate = dict(
    name='linear_schedule',
    init_value=0.1,
    end_value=0.0,
    transition_steps=num_train_steps,
  )

  @jax.jit
  @jax.vmap
  def train(rng):
    state = init(
      algorithm, rng, x, dict(name='adam', learning_rate=rate), **dict(config)
    )

    def step(state, rng):
      return algorithm.step(state, {'image': x}, rng, **hyper)[0], None

    state, _ = lax.scan(step, state, jax.random.split(rng, num_train_steps))
    return state.energy.params['params']

  params = train(jax.random.split(jax.random.key(0), num_seeds))
  leaves = lambda seed: jax.tree.map(
    lambda p: np.asarray(p[seed], float), params
  )
  return [leaves(seed) for seed in range(num_seeds)]


class MaximumLikelihoodTest(parameterized.TestCase):
  @parameterized.parameters(0.0, 0.7)
  def test_gradient_by_finite_differences(self, gamma):
    self.enter_context(jax.enable_x64(True))
    x = data(20)
    state = at_truth(maximum_likelihood, x)
    flat, unravel = flatten_util.ravel_pytree(TRUTH)

    def regularised(flat):
      params = unravel(flat)
      return log_likelihood(params, x) + gamma * log_partition(params)

    step = 1e-5  # errs by step^2 and 1e-15 / step
    expected = [
      (regularised(flat + axis) - regularised(flat - axis)) / (2 * step)
      for axis in step * np.eye(flat.size)
    ]
    moved = ascent(maximum_likelihood, state, x, negative_weight=1 - gamma)
    actual = flatten_util.ravel_pytree(moved)[0]
    np.testing.assert_allclose(actual, expected, atol=1e-8)
    _, metrics = jax.jit(maximum_likelihood.step)(state, {'image': x}, None)
    self.assertAlmostEqual(
      metrics['energy/data'] + metrics['energy/log_partition'],
      -log_likelihood(TRUTH, x),
      places=12,
    )

  def test_learning(self):
    x = data(NUM_DATA)
    for params in learn(
      maximum_likelihood, x, num_train_steps=600, num_seeds=6
    ):
      with self.subTest('at the optimum the moments agree'):
        model = moments(params)
        for name, observed in statistics(params, x).items():
          np.testing.assert_allclose(observed, model[name], atol=1e-3)
      with self.subTest('likelihood'):
        # Wilks: 2 n (best - truth) ~ chi^2 with one degree per parameter.
        excess = log_likelihood(params, x) - log_likelihood(TRUTH, x)
        self.assertBetween(
          2 * len(x) * excess, 0, stats.chi2.ppf(0.9999, NUM_PARAMETERS)
        )

  def test_discounted_moments_are_larger(self):
    # At the optimum of mean E(data) + 0.3 log Z the bias asks for it.
    x, weight = data(NUM_DATA), 0.3
    (params,) = learn(
      maximum_likelihood,
      x,
      num_train_steps=3000,
      num_seeds=1,
      negative_weight=weight,
    )
    model = moments(params)['bias']
    np.testing.assert_allclose(model, x.mean(0) / weight, atol=1e-2)

  @parameterized.parameters(0.0, -0.3, np.inf)
  def test_bad_weight(self, weight):
    state = at_truth(maximum_likelihood, data(4))
    with self.assertRaisesRegex(ValueError, f'negative_weight={weight}'):
      maximum_likelihood.step(
        state, {'image': data(4)}, None, negative_weight=weight
      )

  def test_sample(self):
    images = jnp.asarray(data(5), jnp.float32).reshape(5, 2, 2, 1)
    state = at_truth(maximum_likelihood, images)
    sample = functools.partial(
      maximum_likelihood.sample, state, chain=samplers.Gibbs(2)
    )
    for num in (1, 3):
      self.assertEqual(sample(jax.random.key(0), num).shape, (num, 2, 2, 1))


if __name__ == '__main__':
  absltest.main()
