"""What each controller does to an energy that is ahead, behind, or far away."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from stein_jax import controllers

# Gaps: far ahead, ahead, level, behind, far behind.
_GAPS = (-0.6, -0.1, 0.0, 0.1, 0.6)
_THIRD = 1 / 3
# Factors on the negatives, on the rate, and whether the energy stands still.
_TABLE = (
  (controllers.Fixed(), [1] * 5, [1] * 5, [0] * 5),
  (controllers.Discount(), [_THIRD] * 3 + [1] * 2, [1] * 5, [0] * 5),
  (
    controllers.Discount(when='behind'),
    [1] * 3 + [_THIRD] * 2,
    [1] * 5,
    [0] * 5,
  ),
  (controllers.Discount(share=0.5), [0.5] * 3 + [1] * 2, [1] * 5, [0] * 5),
  (controllers.Speed(), [1] * 5, [1] * 3 + [5] * 2, [0] * 5),
  (controllers.Speed(factor=2.0), [1] * 5, [1] * 3 + [2] * 2, [0] * 5),
  (controllers.Freeze(), [1] * 5, [1] * 3 + [5] * 2, [1, 0, 0, 0, 1]),
  (controllers.Freeze(limit=0.05), [1] * 5, [1] * 3 + [5] * 2, [1, 1, 0, 1, 1]),
  (
    controllers.FreezeAhead(),
    [_THIRD] * 3 + [1] * 2,
    [1] * 3 + [5] * 2,
    [1, 0, 0, 0, 0],
  ),
)


class ControllersTest(parameterized.TestCase):
  @parameterized.parameters(*_TABLE)
  def test_factors(self, controller, negatives, rates, frozen):
    def factors(gap):
      return controller.update(gap, controller.init())[0]

    for row in zip(_GAPS, negatives, rates, frozen, strict=True):
      gap, *expected = row
      for function in (factors, jax.jit(factors)):
        found = function(jnp.float32(gap))
        np.testing.assert_allclose(
          [float(each) for each in found], expected, rtol=1e-6
        )

  @parameterized.parameters(*_TABLE)
  def test_a_gap_that_is_nan_is_not_swallowed(self, controller, *_):
    factors, _ = controller.update(jnp.float32(jnp.nan), controller.init())
    lost = [np.isnan(factors.negatives), np.isnan(factors.rate)]
    self.assertEqual(any(lost), controller.needs_gap)

  def test_a_sweep_is_a_vmap(self):
    update = lambda share: controllers.Discount(share=share).update(
      jnp.float32(-1), ()
    )
    factors, _ = jax.vmap(update)(jnp.array([0.25, 0.5]))
    np.testing.assert_array_equal(factors.negatives, [0.25, 0.5])

  @parameterized.parameters(
    (controllers.Discount(share=2.0), 'share=2.0 must be at most 1'),
    (controllers.Discount(share=0.0), 'share=0.0 must be a positive number'),
    (controllers.Discount(when='late'), "when='late'.*'ahead', 'behind'"),
    (controllers.Speed(factor=-1.0), 'factor=-1.0 must be a positive'),
    (controllers.Freeze(limit=0.0), 'limit=0.0 must be a positive'),
  )
  def test_refuses(self, controller, message):
    with self.assertRaisesRegex(ValueError, message):
      controller.update(jnp.float32(0), controller.init())


if __name__ == '__main__':
  absltest.main()
