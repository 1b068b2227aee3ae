"""Tests of KSD descent, and of the KSD that a run logs."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
import numpy as np
import optax

from stein_jax import kernels
from stein_jax import stein
from tests import literal

_KEY = jax.random.key(0)
_PRECISION = np.array([[2.0, 0.8], [0.8, 1.0]])


def ksd_of(x):
  """Returns the squared KSD [] of IMQ, bandwidth 2, to N(0, P^-1), literally."""
  return literal.imq_stein_matrix(x, -x @ _PRECISION, 2.0).mean()


class DescentTest(absltest.TestCase):
  def test_goes_down_to_where_the_slope_is_zero(self):
    start = 2 + np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32)
    score = lambda x: -x @ jnp.asarray(_PRECISION, jnp.float32)
    x, ksds = jax.jit(
      lambda x: stein.ksd_descent(x, score, kernels.IMQ(2.0), num_steps=60)
    )(start)
    np.testing.assert_allclose(ksds[0], ksd_of(start), rtol=1e-4)
    self.assertLess(np.diff(ksds).max(), 1e-5)
    self.assertLess(ksd_of(x), ksd_of(start) / 100)
    # Slopes by differences of the literal form.
    x = np.asarray(x, np.float64)

    def slope(x):
      found = np.zeros_like(x)
      for place in np.ndindex(x.shape):
        ahead, behind = x.copy(), x.copy()
        ahead[place] += 1e-5
        behind[place] -= 1e-5
        found[place] = (ksd_of(ahead) - ksd_of(behind)) / 2e-5
      return np.abs(found).max()

    self.assertLess(slope(x), slope(np.float64(start)) / 100)

  def test_stays_on_an_axis_of_symmetry(self):
    # The warning of the docstring: no force leads away from it.
    start = np.stack([np.linspace(-1, 2, 6), np.zeros(6)], 1)
    x, _ = jax.jit(
      lambda x: stein.ksd_descent(
        x, jnp.negative, kernels.IMQ(2.0), num_steps=5
      )
    )(start)
    np.testing.assert_array_equal(x[:, 1], 0)
    self.assertGreater(np.abs(x[:, 0] - start[:, 0]).max(), 0.1)

  def test_refuses(self):
    with self.assertRaisesRegex(ValueError, 'num_steps=0'):
      stein.ksd_descent(np.ones((3, 2)), jnp.negative, num_steps=0)
    with self.assertRaisesRegex(TypeError, 'score_fn is an array'):
      stein.ksd_descent(np.ones((3, 2)), np.ones((3, 2)))


class PointsTest(absltest.TestCase):
  def test_of_candidates_that_stay_are_what_thinning_keeps(self):
    rows = np.random.default_rng(0).normal(size=(80, 2)).astype(np.float32)
    kernel = kernels.IMQ(2.0)
    points, ksds = jax.jit(
      lambda rng: stein.stein_points(
        rng,
        12,
        jnp.negative,
        lambda rng, n: rows[:n],
        kernel,
        num_candidates=80,
      )
    )(_KEY)
    indices, expected = stein.thin(rows, -rows, 12, kernel, standardize=False)
    np.testing.assert_array_equal(points, rows[np.asarray(indices)])
    np.testing.assert_allclose(ksds, expected, rtol=1e-3)
    u = literal.imq_stein_matrix(points, -points, 2.0)
    np.testing.assert_allclose(ksds[-1], u.mean(), rtol=1e-3)

  def test_are_nearer_than_draws(self):
    propose = lambda rng, n: 2 * jax.random.normal(rng, (n, 2))
    points, ksds = jax.jit(
      lambda rng: stein.stein_points(
        rng, 30, jnp.negative, propose, num_candidates=300
      )
    )(_KEY)
    draws = np.random.default_rng(0).normal(size=(20, 30, 2))
    of_draws = [literal.imq_stein_matrix(x, -x, 1.0).mean() for x in draws]
    self.assertLess(ksds[-1], min(of_draws) / 2)
    self.assertLess(np.abs(np.mean(points, 0)).max(), 0.15)

  def test_refuses(self):
    propose = lambda rng, n: jnp.zeros((n, 2))
    with self.assertRaisesRegex(ValueError, 'num=0'):
      stein.stein_points(_KEY, 0, jnp.negative, propose)
    with self.assertRaisesRegex(ValueError, r'score_fn has shape \(1000,\)'):
      stein.stein_points(_KEY, 3, lambda x: x[:, 0], propose)
    with self.assertRaisesRegex(ValueError, r'candidates \(1000,\)'):
      stein.stein_points(_KEY, 3, jnp.negative, lambda rng, n: jnp.zeros(n))


class LoggedTest(parameterized.TestCase):
  def test_is_of_the_first_points(self):
    x = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    metric = stein.KSD(kernels.IMQ(2.0), max_points=25)
    u = literal.imq_stein_matrix(x[:25], -x[:25], 2.0)
    expected = (u.sum() - np.trace(u)) / 25 / 24
    self.assertAlmostEqual(jax.jit(metric)(x, -x), expected, places=5)
    # Of a tree too, whose leaves lie side by side.
    tree = {'a': x[:, :1], 'b': x[:, 1]}
    found = metric(tree, jax.tree.map(jnp.negative, tree))
    self.assertAlmostEqual(found, expected, places=5)

  def test_costs_the_same_for_any_number_of_points(self):
    def flops(n):
      points = jax.ShapeDtypeStruct((n, 4), jnp.float32)
      lowered = jax.jit(stein.KSD(max_points=100)).lower(points, points)
      return lowered.compile().cost_analysis()['flops']

    self.assertLess(flops(100_000), 1.1 * flops(1000))

  def test_of_particles_on_several_devices(self):
    x = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    metric = stein.KSD(kernels.IMQ(2.0), max_points=12)
    rows = PartitionSpec('batch')
    mapped = jax.shard_map(
      functools.partial(metric, axis_name='batch'),
      mesh=Mesh(np.array(jax.devices()[:4]), ('batch',)),
      in_specs=(rows, rows),
      out_specs=PartitionSpec(),
    )
    own = x.reshape(4, 10, 2)[:, :3].reshape(12, 2)  # three of each device
    self.assertAlmostEqual(jax.jit(mapped)(x, -x), metric(own, -own), places=5)

  def test_falls_while_svgd_runs(self):
    metric, direction = stein.KSD(max_points=50), stein.SVGD()
    start = 2 + jax.random.normal(_KEY, (80, 2))
    optimizer = optax.adam(0.1)

    def step(carry, _):
      x, state = carry
      value = metric(x, -x)
      move, state = optimizer.update(-direction(x, -x), state)
      return (optax.apply_updates(x, move), state), value

    run = jax.jit(
      lambda x: jax.lax.scan(step, (x, optimizer.init(x)), length=200)
    )
    _, values = run(start)
    self.assertLess(values[-1], values[0] / 100)

  def test_refuses_a_rule(self):
    x = np.ones((4, 2))
    with self.assertRaisesRegex(ValueError, 'is a rule, which needs points'):
      stein.KSD(kernels.IMQ())(x, x)
    self.assertTrue(np.isfinite(stein.KSD(kernels.IMQ().at(x))(x, x)))
    with self.assertRaisesRegex(ValueError, 'max_points=1 must be at least 2'):
      stein.KSD(max_points=1)(x, x)


if __name__ == '__main__':
  absltest.main()
