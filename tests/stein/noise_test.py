"""Tests of the law that SVGD with noise samples."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax

from stein_jax import kernels
from stein_jax import stein
from stein_jax.algorithms import svgd
from tests.stein import literal


def _stationary(direction, n, d, *, chains, num_steps):
  """Returns particles [chains, n, d] after a long run on N(0, I), from exact draws."""

  def run(rng):
    start_rng, rng = jax.random.split(rng)
    x = jax.random.normal(start_rng, (n, d))

    def step(x, rng):
      phi = stein.call(direction, x, -x, rng=rng)
      return x + direction.step_size * phi, None

    return lax.scan(step, x, jax.random.split(rng, num_steps))[0]

  keys = jax.random.split(jax.random.key(0), chains)
  return np.float64(jax.jit(jax.vmap(run))(keys))


class LawTest(parameterized.TestCase):
  def test_mean_and_covariance_of_a_step(self):
    # x + eps phi, eps = 0.3: of mean x + eps (drift + delta s) and covariance
    # 2 eps (K / n + delta I) for each coordinate, delta = 0.5 / n.
    x, score = literal.points(4, 2)
    direction = stein.NoisySVGD(kernels.RBF(8.0), step_size=0.3, langevin=0.5)
    keys = jax.random.split(jax.random.key(0), 40_000)
    call = lambda rng: direction(x, score, rng=rng)
    moved = 0.3 * np.float64(jax.jit(jax.vmap(call))(keys))
    sq_dist = np.sum((x[:, None] - x[None]) ** 2, -1)
    spread = 2 * 0.3 * (np.exp(-sq_dist / 8) / 4 + 0.5 / 4 * np.eye(4))
    drift = stein.SVGD(kernels.RBF(8.0))(x, score) + 0.125 * score
    error = np.sqrt(np.diag(spread).max() / len(keys))
    np.testing.assert_allclose(moved.mean(0), 0.3 * drift, atol=4 * error)
    noise = moved - moved.mean(0)
    found = np.einsum('sia,sjb->ijab', noise, noise) / len(keys)
    expected = np.einsum('ij,ab->ijab', spread, np.eye(2))
    # A product of two normal numbers of variance v has a variance of 2 v^2 at most.
    error = np.sqrt(2 / len(keys)) * spread.max()
    np.testing.assert_allclose(found, expected, atol=4 * error)

  def test_of_three_particles(self):
    # The law is N(0, I) for each and independent, up to a bias of Euler's steps as
    # they are for Langevin's: eps / n / 2. Without noise it is 0.46 and -0.23.
    direction = stein.NoisySVGD(kernels.RBF(2.0), step_size=0.15)
    x = _stationary(direction, 3, 2, chains=4000, num_steps=300)
    count = x.size
    self.assertAlmostEqual(
      np.mean(x**2), 1, delta=4 * np.sqrt(2 / count) + 0.15 / 3
    )
    across = (
      np.mean(x[:, 0] * x[:, 1] + x[:, 1] * x[:, 2] + x[:, 2] * x[:, 0]) / 3
    )
    self.assertAlmostEqual(across, 0, delta=4 / np.sqrt(count) + 0.01)

  def test_of_one_particle(self):
    # x' = (1 - eps) x + sqrt(2 eps) z, eps = step_size (1 + langevin), has the variance
    # 1 / (1 - eps / 2).
    direction = stein.NoisySVGD(kernels.IMQ(2.0), step_size=0.4, langevin=0.5)
    x = _stationary(direction, 1, 1, chains=20_000, num_steps=40)
    expected = 1 / (1 - 0.6 / 2)
    np.testing.assert_allclose(
      np.mean(x**2), expected, rtol=4 * np.sqrt(2 / x.size)
    )

  def test_does_not_collapse(self):
    # In 20 dimensions, where SVGD keeps 0.18 of the variance.
    x = jax.random.normal(jax.random.key(1), (50, 20))
    direction = stein.NoisySVGD(
      kernels.RBF().at(x), step_size=2.5, langevin=1.0
    )
    state = svgd.create(lambda x: -0.5 * jnp.sum(x**2), 0.3 * x, optax.sgd(2.5))

    def step(state, rng):
      state, _ = svgd.step(state, None, rng, direction=direction)
      return state, jnp.var(state.particles.params['particles'])

    keys = jax.random.split(jax.random.key(2), 400)
    variances = jax.jit(lambda s: lax.scan(step, s, keys)[1])(state)
    self.assertBetween(np.mean(variances[100:]), 0.9, 1.15)

  @parameterized.parameters(
    (dict(kernel=kernels.RBF()), ValueError, 'has a rule for its bandwidth'),
    (
      dict(kernel=kernels.Sum((kernels.RBF(1.0), kernels.IMQ()))),
      ValueError,
      'has a rule for its bandwidth',
    ),
    (dict(step_size=0.0), ValueError, 'step_size=0.0 must be a positive'),
    (dict(langevin=0.0), ValueError, 'langevin=0.0 must be a positive'),
  )
  def test_refuses(self, fields, error, message):
    x = jnp.ones((4, 3))
    with self.assertRaisesRegex(error, message):
      stein.NoisySVGD(**fields)(x, x, rng=jax.random.key(0))

  def test_a_run_without_a_key_is_refused(self):
    state = svgd.create(lambda x: jnp.sum(x), jnp.ones((4, 3)), optax.sgd(0.1))
    with self.assertRaisesRegex(TypeError, 'rng is None; allowed: a key'):
      svgd.step(state, None, None, direction=stein.NoisySVGD())


if __name__ == '__main__':
  absltest.main()
