"""The kernels for GPUs, interpreted, against the primitives they stand in for."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from stein_jax import kernels
from stein_jax import stein


class FusionTest(parameterized.TestCase):
  @parameterized.parameters(
    (1, 1),  # a point alone
    (64, 16),  # one block, no coordinate added
    (130, 3),  # blocks that are not full
  )
  def test_equals_unfused(self, n, d):
    x, score = jax.random.normal(jax.random.key(0), (2, n, d))
    x = x.at[: n // 3].set(x[-1])  # duplicates, which do count
    kernel = kernels.RBF(0.7)

    @functools.partial(jax.jit, static_argnums=0)
    def results(fused):
      direction = stein.svgd_direction(x, score, kernel, fused=fused)
      return direction, stein.ksd(x, score, kernel, fused=fused)

    for actual, expected in zip(results(True), results(False), strict=True):
      scale = np.max(np.abs(expected))
      np.testing.assert_allclose(actual / scale, expected / scale, atol=2e-6)

  def test_a_bandwidth_may_be_computed(self):
    x, score = jax.random.normal(jax.random.key(1), (2, 20, 2))

    @jax.jit
    def both(x):
      ksd = functools.partial(stein.ksd, x, score, kernels.RBF(), unbiased=True)
      return ksd(fused=True), ksd()

    np.testing.assert_allclose(*both(x), rtol=1e-5)

  @parameterized.parameters(True, False)
  def test_of_a_tree(self, diagonal):
    x, score = jax.random.normal(jax.random.key(2), (2, 20, 2, 3))
    found = []
    for fused in (True, False):
      options = dict(fused=fused, diagonal=diagonal)
      direction = jax.jit(stein.SVGD(kernels.RBF(6.0), **options))
      found.append(direction({'x': x}, {'x': score}))
    np.testing.assert_allclose(found[0]['x'], found[1]['x'], atol=2e-6)

  @parameterized.parameters(
    (kernels.imq, 2, None, 'another kernel'),
    (kernels.rbf, 257, None, 'at most 256 dimensions, not 257'),
    (kernels.rbf, 2, 'batch', "axis_name='batch'"),
  )
  def test_refuses(self, kernel, dim, axis_name, message):
    x = jnp.zeros((1, 3, dim))
    for function in (stein.svgd_direction, stein.ksd):
      run = lambda x, function=function: function(
        x, x, kernel, fused=True, axis_name=axis_name
      )
      with self.assertRaisesRegex(ValueError, message):
        jax.vmap(run, axis_name=axis_name or 'other')(x)


if __name__ == '__main__':
  absltest.main()
