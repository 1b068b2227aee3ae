"""What programs ask of a device, counted by hand."""

from absl.testing import absltest
import jax
from jax import lax
import jax.numpy as jnp

from configs import contrastive_divergence_mnist
from experiments.benchmarks import counting


def operations(function, *shapes):
  args = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
  return counting.operations(jax.make_jaxpr(function)(*args).jaxpr)


def lowered(function, *args):
  traced = jax.jit(function).trace(*args)
  text = traced.lower(lowering_platforms=('cuda',)).as_text()
  return counting.lowered(text)


class OperationsTest(absltest.TestCase):
  def test_of_products(self):
    self.assertEqual(operations(jnp.matmul, (2, 3), (3, 5)), 2 * 2 * 3 * 5)
    batched = lambda a, b: jnp.einsum('bij,bjk->bik', a, b)
    wanted = 4 * 2 * 2 * 3 * 5
    self.assertEqual(operations(batched, (4, 2, 3), (4, 3, 5)), wanted)

  def test_of_a_scan_and_of_branches(self):
    def function(x):
      x, _ = lax.scan(lambda x, _: (x @ x, None), x, length=7)
      dear = lambda x: x @ x @ x
      return lax.cond(jnp.sum(x) > 0, dear, lambda x: x @ x, x)

    self.assertEqual(operations(function, (3, 3)), 8 * 2 * 27)

  def test_of_a_convolution(self):
    convolve = lambda x, kernel: lax.conv_general_dilated(
      x, kernel, (2, 2), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    # A side of 6 has two places for taps of 3 at a stride of 2.
    wanted = 2 * (5 * 2 * 2 * 4) * (3 * 3 * 2)
    self.assertEqual(operations(convolve, (5, 6, 6, 2), (3, 3, 2, 4)), wanted)

  def test_counts_a_fusion_once(self):
    text = jax.jit(lambda x: jnp.sin(x) @ x).lower(jnp.ones((4, 4))).compile()
    found = counting.instructions(text.as_text())
    self.assertEqual(found['to the host'], 0)
    self.assertBetween(found['kernels'], 1, 3)

  def test_of_a_lowered_program(self):
    function = lambda x: lax.while_loop(
      lambda x: x[0, 0] > 0, lambda x: x @ x, x
    )
    found = lowered(function, jnp.ones((3, 3)))
    self.assertEqual((found['products'], found['loops']), (1, 1))
    self.assertEqual((found['of libraries'], found['to the host']), (0, 0))
    found = lowered(jnp.linalg.eigvalsh, jnp.eye(3))
    self.assertGreater(found['of libraries'], 0)
    self.assertEqual(found['to the host'], 0)
    # A callback is lowered only where the device is.
    text = '%0 = stablehlo.custom_call @xla_ffi_python_gpu_callback(%arg0)'
    self.assertEqual(counting.lowered(text)['to the host'], 1)

  def test_of_a_step_of_contrastive_divergence(self):
    config = contrastive_divergence_mnist.get_config('')
    found = counting.step_of(config)
    num_hidden = config.energy.num_hidden
    size = 784 * num_hidden + 784 + num_hidden
    # The parameters and Adam's two moments of each, and the mean that centres.
    wanted = 4 * (3 * size + 784 * config.energy.centered)
    self.assertAlmostEqual(found['MB of state'], wanted / 1e6, delta=1e-3)
    self.assertEqual((found['to the host'], found['convolutions']), (0, 0))
    self.assertEqual(found['loops'], 1)  # the chain


if __name__ == '__main__':
  absltest.main()
