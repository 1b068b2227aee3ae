"""Tests of primitives where points lie in groups far apart, against float64."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import chex
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
import numpy as np
import pytest

from stein_jax import _distances
from stein_jax import kernels
from stein_jax import metrics
from stein_jax import stein

_AXIS = 'batch'
_BANDWIDTH = 2.0
# Points, dimensions and groups, whose size is 1 and whose distance 1e4: of a squared
# distance in a group nothing is left in float32 from one middle.
_GROUPS = (
  ('line', 20, 1, 3),
  ('plane', 50, 2, 25),
  ('few', 24, 16, 5),
  ('many', 24, 20, 2),
  ('most', 60, 20, 16),
  ('pixels', 24, 784, 4),
)


def _points(n, d, groups, gap=1e4, spread=1.0):
  """Returns points and scores [n, d], and the group of each [n]."""
  rng = np.random.default_rng((n, d, groups))
  middles = rng.normal(size=(groups, d))
  # Apart by `gap` where they are nearest.
  apart = np.linalg.norm(middles[:, None] - middles[None], axis=-1)
  middles *= gap / np.min(apart[~np.eye(groups, dtype=bool)], initial=np.inf)
  group = rng.permutation(n) % groups
  noise, score = rng.normal(size=(2, n, d))
  x = middles[group] + spread * noise / d**0.5
  return x.astype(np.float32), score.astype(np.float32), group


def _definitions(name, x, score):
  """Returns squared distances, phi and the Stein matrix in float64."""
  x, score = np.asarray(x, np.float64), np.asarray(score, np.float64)
  change = x[:, None] - x[None]
  sq_dist = np.sum(change**2, -1)
  base = 1 + sq_dist / _BANDWIDTH
  k, slope, curve = {
    'rbf': [
      np.exp(-sq_dist / _BANDWIDTH) * (-1 / _BANDWIDTH) ** i for i in range(3)
    ],
    'imq': [
      base**-0.5,
      -0.5 / _BANDWIDTH * base**-1.5,
      0.75 / _BANDWIDTH**2 * base**-2.5,
    ],
  }[name]
  phi = k @ score + 2 * np.einsum('ij,jid->id', slope, change)
  turn = np.einsum('ijd,ijd->ij', score[None] - score[:, None], change)
  u = k * (score @ score.T) + 2 * slope * (turn - x.shape[1])
  return sq_dist, phi / len(x), u - 4 * curve * sq_dist


def _assert_close(actual, expected):
  """Agreement to some roundings of the largest entry in float32."""
  expected = np.asarray(expected)
  np.testing.assert_allclose(
    np.asarray(actual, np.float64),
    expected,
    rtol=0,
    atol=3e-6 * np.max(np.abs(expected)),
  )


def _kernel(name):
  kinds = {'rbf': kernels.RBF, 'imq': kernels.IMQ}
  return kinds[name](_BANDWIDTH)


class GroupsTest(chex.TestCase):
  @parameterized.named_parameters(*_GROUPS)
  def test_squared_distances(self, n, d, groups):
    x, score, _ = _points(n, d, groups)
    expected = _definitions('rbf', x, score)[0]
    actual = jax.jit(kernels.squared_distance)(x, x)
    other = ~np.eye(n, dtype=bool)
    np.testing.assert_allclose(actual[other], expected[other], rtol=1e-5)

  def test_of_two_sets(self):
    x, _, _ = _points(30, 20, 3)
    actual = jax.jit(kernels.squared_distance)(x[:10], x[10:])
    expected = _definitions('rbf', x, x)[0][:10, 10:]
    np.testing.assert_allclose(actual, expected, rtol=1e-5)

  @parameterized.named_parameters(*_GROUPS)
  def test_median(self, n, d, groups):
    x, score, group = _points(n, d, groups)
    x = x[group == 0] if groups > 3 else x
    x = np.concatenate([x, x[:2] + 1e4])  # most pairs are of one group
    expected = np.median(
      _definitions('rbf', x, x)[0][~np.eye(len(x), dtype=bool)]
    )
    median = functools.partial(
      kernels.median_bandwidth, log='none', diagonal=False
    )
    np.testing.assert_allclose(jax.jit(median)(x), expected, rtol=1e-5)

  @parameterized.parameters(('few', 'rbf'), ('most', 'imq'), ('pixels', 'imq'))
  def test_direction_and_discrepancy(self, of, name):
    self.check_sums(of, name)

  @parameterized.parameters(
    ('plane', 'rbf'),
    ('plane', 'imq'),
    ('few', 'imq'),
    ('most', 'rbf'),
    ('pixels', 'rbf'),
  )
  @pytest.mark.slow
  def test_so_are_others(self, of, name):
    self.check_sums(of, name)

  def check_sums(self, of, name):
    ((n, d, groups),) = (case[1:] for case in _GROUPS if case[0] == of)
    x, score, _ = _points(n, d, groups)
    _, phi, u = _definitions(name, x, score)

    @jax.jit
    def found(x, score):
      kernel = _kernel(name)
      rng = jax.random.key(0)
      return (
        stein.svgd_direction(x, score, kernel),
        stein.stein_matrix(x, score, x, score, kernel),
        stein.ksd(x, score, kernel),
        stein.ksd_test(rng, x, score, kernel, num_bootstrap=1)[0],
      )

    direction, matrix, ksd, statistic = found(x, score)
    _assert_close(direction, phi)
    other = ~np.eye(n, dtype=bool)
    _assert_close(matrix[other], u[other])
    np.testing.assert_allclose(ksd, np.mean(u), rtol=1e-5)
    np.testing.assert_allclose(statistic, n * np.mean(u), rtol=1e-5)

  def test_discrepancy_of_pairs_that_are_seen_once(self):
    x, score, _ = _points(2001, 20, 4)
    expected = np.mean(_definitions('imq', x, score)[2])
    ksd = jax.jit(functools.partial(stein.ksd, kernel=_kernel('imq')))
    np.testing.assert_allclose(ksd(x, score), expected, rtol=1e-5)

  def test_each_shard_has_some_groups(self):
    x, score, group = _points(16, 20, 4)
    order = np.argsort(group)  # a group on each device
    x, score = x[order], score[order]

    def local(x, score):
      kernel = _kernel('imq')
      return (
        stein.svgd_direction(x, score, kernel, axis_name=_AXIS),
        stein.ksd(x, score, kernel, axis_name=_AXIS),
        kernels.median_bandwidth(x, log='none', axis_name=_AXIS),
      )

    rows = PartitionSpec(_AXIS)
    mapped = jax.shard_map(
      local,
      mesh=Mesh(np.array(jax.devices()[:4]), (_AXIS,)),
      in_specs=rows,
      out_specs=(rows, PartitionSpec(), PartitionSpec()),
    )
    sq_dist, phi, u = _definitions('imq', x, score)
    direction, ksd, median = jax.jit(mapped)(x, score)
    _assert_close(direction, phi)
    np.testing.assert_allclose(ksd, np.mean(u), rtol=1e-5)
    np.testing.assert_allclose(median, np.median(sq_dist), rtol=1e-5)

  @parameterized.parameters(3, 20)
  def test_sets_of_which_one_has_groups(self, d):
    x, score, _ = _points(70, d, 3)  # fewer have no branches in few dimensions
    near, _, _ = _points(70, d, 1, gap=1.0)
    sets, scores = np.stack([x, near]), np.stack([score, score])
    direction = functools.partial(stein.svgd_direction, kernel=_kernel('rbf'))
    mapped = jax.vmap(direction)
    for points, found in zip(sets, jax.jit(mapped)(sets, scores), strict=True):
      _assert_close(found, _definitions('rbf', points, score)[1])
    # One branch is run for all of them, not both.
    (cond,) = (
      equation
      for equation in jax.make_jaxpr(mapped)(sets, scores).eqns
      if equation.primitive.name == 'cond'
    )
    self.assertEqual(cond.invars[0].aval.shape, ())

  @parameterized.parameters(3, 20)
  def test_swapped_repulsion(self, f):
    x, _, _ = _points(12, f, 3)
    found = jax.jit(
      lambda x: stein.feature_repulsion(
        x, lambda x: x, _kernel('imq'), form='swapped'
      )
    )(x)
    score = np.zeros_like(x)
    _assert_close(found, len(x) * _definitions('imq', x, score)[1])


class HarderTest(chex.TestCase):
  """Points that no few middles do justice."""

  def points(self, kind, d):
    """Returns points and scores [n, d], in units of the smallest distances."""
    rng = np.random.default_rng(d)
    x, score = rng.normal(size=(2, 40, d))
    if kind == 'unequal':  # a group a thousand times as wide as another
      x[:20] *= 1e3
      x[20:] += 1e4
    elif kind == 'nested':  # groups of four, in groups of four of those
      place = np.arange(40) // 4
      near, far = rng.normal(size=(2, 10, d))
      x += 1e2 * near[place] + 1e4 * far[place // 4]
    elif kind == 'pairs':  # twenty, more than are told apart
      x[20:] = 1e3 * x[:20] + 0.1 * x[20:]
      x[:20] *= 1e3
    elif kind == 'stray':  # groups in turn, and a point far from all
      x += 1e3 * rng.normal(size=(16, d))[np.arange(40) % 16]
      x[0] += 1e5
    return x.astype(np.float32), score.astype(np.float32)

  @parameterized.parameters(
    ('unequal', 6), ('nested', 40), ('pairs', 6), ('stray', 40)
  )
  def test_squared_distances_and_direction(self, kind, d):
    self.check_sums(kind, d)

  @parameterized.parameters(
    ('unequal', 40), ('nested', 6), ('pairs', 40), ('stray', 6)
  )
  @pytest.mark.slow
  def test_so_are_others(self, kind, d):
    self.check_sums(kind, d)

  def check_sums(self, kind, d):
    x, score = self.points(kind, d)
    sq_dist, phi, u = _definitions('imq', x, score)

    @jax.jit
    def found(x, score):
      kernel = _kernel('imq')
      return (
        kernels.squared_distance(x, x),
        stein.svgd_direction(x, score, kernel),
        stein.ksd(x, score, kernel, unbiased=True),
        stein.stein_matrix(x, score, x, score, kernel),
      )

    actual, direction, ksd, matrix = found(x, score)
    other = ~np.eye(len(x), dtype=bool)
    np.testing.assert_allclose(actual[other], sq_dist[other], rtol=2e-5)
    _assert_close(direction, phi)
    _assert_close(matrix[other], u[other])
    error = abs(ksd - np.mean(u[other])) / np.mean(np.abs(u[other]))
    self.assertLess(error, 1e-5)


class MetricsTest(parameterized.TestCase):
  # Of one dimension, of groups that are told apart, and of the widest.
  @parameterized.named_parameters(_GROUPS[0], *_GROUPS[4:])
  def test_of_distances(self, n, d, groups):
    x, _, _ = _points(n, d, groups)
    apart = np.sqrt(_definitions('rbf', x, x)[0])
    np.testing.assert_allclose(
      metrics.pairwise_distance(x), np.sum(apart) / (n * (n - 1)), rtol=1e-5
    )
    nearest = apart + np.diag(np.full(n, np.inf))
    np.testing.assert_allclose(
      metrics.nearest_neighbour_distance(x),
      np.mean(np.min(nearest, 1)),
      rtol=1e-5,
    )
    lengths, rows = metrics.nearest_training(x[:5], x[5:])
    np.testing.assert_array_equal(rows, np.argmin(apart[:5, 5:], 1))
    np.testing.assert_allclose(lengths, np.min(apart[:5, 5:], 1), rtol=1e-5)


class MixedTest(parameterized.TestCase):
  @parameterized.parameters(2, 20)
  def test_samples_of_float64_beside_data_of_float32(self, d):
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(d)
    samples, data = rng.normal(size=(2, 6, d))
    data = data.astype(np.float32)
    found = metrics.nearest_training(samples, data)[0]
    apart = np.linalg.norm(samples[:, None] - data[None], axis=-1)
    np.testing.assert_allclose(found, np.min(apart, 1), rtol=1e-5)


class DerivativesTest(parameterized.TestCase):
  @parameterized.parameters(1, 3, 20)
  def test_where_points_coincide(self, d):
    # |x - y|^2: slope 0, second derivatives 2 I, and -2 I across.
    x = jnp.linspace(1.0, 2.0, d)
    sq_dist = lambda x, y: kernels.squared_distance(x[None], y[None])[0, 0]
    slope = jax.jit(jax.grad(sq_dist))
    np.testing.assert_allclose(slope(x, x), 0, atol=1e-6)
    own, across = jax.jit(jax.hessian(sq_dist, (0, 1)))(x, x)[0]
    np.testing.assert_allclose(own, 2 * np.eye(d), atol=1e-5)
    np.testing.assert_allclose(across, -2 * np.eye(d), atol=1e-5)

  @parameterized.parameters(3, 20)
  def test_of_groups(self, d):
    x, _, _ = _points(6, d, 2)
    total = lambda x: jnp.sum(_kernel('rbf')(kernels.squared_distance(x, x)))
    # Each pair is there twice.
    phi = _definitions('rbf', x, np.zeros_like(x))[1]
    _assert_close(jax.jit(jax.grad(total))(x), -2 * len(x) * phi)


class MiddlesTest(parameterized.TestCase):
  @parameterized.parameters(2, 5, 16)
  def test_are_one_of_each_group(self, groups):
    x, _, group = _points(8 * groups, 20, groups)
    found = np.asarray(_distances.group_middles(jnp.asarray(x)))
    apart = np.linalg.norm(x[:, None] - found[None], axis=-1)
    self.assertLess(np.max(np.min(apart, 1)), 10)
    nearest = np.argmin(apart, 1)
    self.assertLen(set(zip(nearest, group, strict=True)), groups)

  def test_of_one_group_are_one(self):
    x, _, _ = _points(50, 20, 1, gap=1.0)
    found = np.asarray(_distances.group_middles(jnp.asarray(x)))
    np.testing.assert_array_equal(
      found, np.broadcast_to(found[:1], found.shape)
    )


if __name__ == '__main__':
  absltest.main()
