"""The convolutional energy against XLA's own layers, and the papers' sizes."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax

from stein_jax import energies
from stein_jax import learners

_STRIDES = (2, 1, 2)
_TINY = dict(widths=(3, 4, 3), kernels=(3, 4, 5), strides=_STRIDES, outputs=2)


def _normal(*shape, seed=0):
  x = np.random.default_rng(seed).normal(size=shape)
  return jnp.asarray(x, jnp.float32)


def _params(module, *inputs, gap=0.0):
  """Returns parameters from N(0, 0.5^2), and kernels a product of vectors more."""
  shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
  rng = np.random.default_rng(1)

  def draw(leaf):
    value = 0.5 * rng.normal(size=leaf.shape)
    rows = np.prod(leaf.shape[:-1], dtype=int)
    outer = rng.normal(size=(rows, 1)) * rng.normal(size=leaf.shape[-1])
    return jnp.asarray(value + gap * outer.reshape(leaf.shape), leaf.dtype)

  return jax.tree.map(draw, shapes)


def _literal(params, x, *condition, activation='leaky_relu'):
  """Returns the sum of the network's outputs [n]."""
  of = jax.tree.map(np.asarray, params['params'])
  x = np.concatenate([x, *condition], -1)
  for i, stride in enumerate(_STRIDES):
    x = lax.conv_general_dilated(
      x,
      of[f'kernel_{i}'],
      (stride, stride),
      'SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    x = np.asarray(x) + of[f'bias_{i}']
    if activation == 'swish':
      x = x / (1 + np.exp(-x))
    else:
      x = np.where(x > 0, x, 0.2 * x)
  return np.sum(x.reshape(len(x), -1) @ of['kernel'] + of['bias'], 1)


class ConvNetTest(parameterized.TestCase):
  @parameterized.parameters(
    ('leaky_relu', 0.0, 0), ('swish', 0.5, 0), ('leaky_relu', 2.0, 1)
  )
  def test_is_the_literal_network(self, activation, sigma, num_conditions):
    module = energies.ConvNet(
      **_TINY, activation=activation, reference_sigma=sigma
    )
    x = _normal(4, 7, 6, 2)
    condition = (10 * _normal(4, 7, 6, 3, seed=2),) * num_conditions
    params = _params(module, x, *condition)
    expected = -_literal(params, x, *condition, activation=activation)
    if sigma:  # of the image, not of its condition
      expected += np.sum(np.square(x), (1, 2, 3)) / (2 * sigma**2)
    actual = jax.jit(module.apply)(params, x, *condition)
    self.assertEqual(actual.shape, (4,))
    np.testing.assert_allclose(
      actual, expected, rtol=1e-4, atol=1e-4 * np.max(np.abs(expected))
    )

  # Each layer: area, inputs, outputs. A bias for each output is apart.
  @parameterized.named_parameters(
    (
      'cifar10',
      dict(widths=(64, 128, 256, 256), kernels=(3, 4, 4, 4)),
      ((32, 32, 3),),
      1,
      # 1,728 + 131,072 + 524,288 + 1,048,576 + 4,096, and 705 biases.
      [(9, 3, 64), (16, 64, 128), (16, 128, 256), (16, 256, 256)],
      4 * 4,
      1_710_465,
    ),
    (
      'mnist',
      dict(widths=(64, 128, 256), kernels=(5, 3, 3), strides=(2, 2, 1)),
      ((28, 28, 1),),
      100,
      # 1,600 + 73,728 + 294,912 + 1,254,400, and 548 biases.
      [(25, 1, 64), (9, 64, 128), (9, 128, 256)],
      7 * 7,
      1_625_188,
    ),
    (
      'coopnets_mnist',
      dict(widths=(64, 128, 256), kernels=(4, 4, 4), strides=(2, 2, 2)),
      ((28, 28, 1),),
      100,
      # 1,024 + 131,072 + 524,288 + 409,600, and 548 biases.
      [(16, 1, 64), (16, 64, 128), (16, 128, 256)],
      4 * 4,
      1_066_532,
    ),
    (
      'recovery',
      dict(
        widths=(64, 128, 256, 512), kernels=(4, 4, 4, 4), strides=(2, 2, 2, 2)
      ),
      ((64, 64, 3), (64, 64, 3)),
      100,
      # 6,144 + 131,072 + 524,288 + 2,097,152 + 819,200, and 1,060 biases.
      [(16, 6, 64), (16, 64, 128), (16, 128, 256), (16, 256, 512)],
      4 * 4,
      3_578_916,
    ),
  )
  def test_networks_of_the_papers(
    self, options, shapes, outputs, convs, pixels, total
  ):
    module = energies.ConvNet(
      **{'strides': (1, 2, 2, 2), **options}, outputs=outputs
    )
    images = [jnp.zeros((2, *shape)) for shape in shapes]
    params = jax.eval_shape(module.init, jax.random.key(0), *images)
    weights = sum(map(np.prod, convs)) + pixels * convs[-1][-1] * outputs
    biases = sum(width for _, _, width in convs) + outputs
    self.assertEqual(weights + biases, total)
    self.assertEqual(sum(leaf.size for leaf in jax.tree.leaves(params)), total)

  def test_weights_start_small(self):
    module = energies.ConvNet((40,), (5,), (5,), scale=0.01)
    params = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 5, 5, 10)))
    params = params['params']
    kernel = np.asarray(params['kernel_0'])  # 10,000 draws
    self.assertAlmostEqual(np.mean(kernel), 0, delta=4 * 0.01 / 100)
    self.assertAlmostEqual(np.std(kernel), 0.01, delta=3 * 0.01 / 100)
    for name in ('bias_0', 'bias'):
      np.testing.assert_array_equal(params[name], 0)

  def test_no_example_sees_another(self):
    x = _normal(3, 7, 6, 2)
    module = energies.ConvNet(**_TINY)
    energy = learners.create(jax.random.key(0), module, optax.sgd(1.0), x)
    self.assertEqual(learners.keywords(energy), ())
    energy = energy.replace(params=_params(module, x))
    call = jax.jit(lambda x: energy.apply_fn(energy.params, x))
    before, after = call(x), call(x.at[1:].add(1))
    np.testing.assert_allclose(before[0], after[0], rtol=1e-5)
    self.assertGreater(np.min(np.abs(before[1:] - after[1:])), 1e-3)

  @parameterized.parameters(
    # A product of vectors has a singular value far above the others, which is found.
    # Of random numbers the next may be near, and twelve steps do not separate them.
    (1.0, 1e-4),
    (0.0, 0.03),
  )
  def test_spectral_norm(self, gap, tolerance):
    plain = energies.ConvNet(**_TINY)
    normed = energies.ConvNet(**_TINY, spectral_norm=True)
    x = _normal(4, 7, 6, 2)
    params = _params(plain, x, gap=gap)
    self.assertEqual(
      jax.tree.map(jnp.shape, params),
      jax.tree.map(jnp.shape, _params(normed, x)),
    )
    literal = dict(params['params'])
    for name, kernel in literal.items():
      if name.startswith('kernel'):
        matrix = np.asarray(kernel).reshape(-1, kernel.shape[-1])
        literal[name] = kernel / np.linalg.norm(matrix, 2)
    # Biases are not divided.
    expected = -_literal({'params': literal}, x)
    actual = jax.jit(normed.apply)(params, x)
    scale = np.max(np.abs(expected))
    np.testing.assert_allclose(actual, expected, atol=4 * tolerance * scale)
    self.assertGreater(
      np.max(np.abs(jax.jit(plain.apply)(params, x) - actual)), scale
    )

  @parameterized.parameters(
    (dict(strides=(2, 1)), r'widths=.*kernels=.*strides=\(2, 1\)'),
    (dict(kernels=(3,)), r'kernels=\(3,\)'),
    (dict(widths=()), r'widths=\(\)'),
    (dict(outputs=0), 'outputs=0'),
    (dict(reference_sigma=-0.1), 'reference_sigma=-0.1'),
    (dict(activation='relu'), "activation='relu'.*'leaky_relu', 'swish'"),
    (dict(scale=0.0), 'scale=0.0'),
  )
  def test_bad_arguments(self, kwargs, message):
    with self.assertRaisesRegex(ValueError, message):
      energies.ConvNet(**{**_TINY, **kwargs})


if __name__ == '__main__':
  absltest.main()
