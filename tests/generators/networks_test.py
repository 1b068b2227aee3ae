"""Generators against literal networks, and the papers' sizes."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from stein_jax import generators
from stein_jax import layers
from stein_jax import learners
from tests.generators import networks

_AXIS = 'batch'


def _counts(module, label=None):
  """Returns how many weights a generator has, and how many norm parameters."""
  context = {} if label is None else {'label': label}
  params = jax.eval_shape(
    lambda rng: module.init(rng, rng, 2, **context), jax.random.key(0)
  )
  weights = others = 0
  for path, leaf in jax.tree.leaves_with_path(params):
    if path[-1].key == 'kernel':
      weights += leaf.size
    else:
      others += leaf.size
  return weights, others


def _same(x, kernel, stride):
  """Returns XLA's own 'SAME' convolution, with its own derivatives."""
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    'SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def _up(x, kernel, stride, size=None):
  """Returns the adjoint of a convolution at x, literally.

  Of the 'SAME' one of images of that size; without, of the one with equal zeros
  around images `stride` times as large.
  """
  n, height, width, _ = x.shape
  padding = (len(kernel) - 1) // 2
  image = jax.ShapeDtypeStruct(
    (n, *(size or (stride * height, stride * width)), kernel.shape[2]),
    jnp.float32,
  )

  def conv(image):
    if size:
      return _same(image, kernel, stride)
    return lax.conv_general_dilated(
      image,
      kernel,
      (stride, stride),
      [(padding, padding)] * 2,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )

  return np.asarray(jax.linear_transpose(conv, image)(jnp.float32(x))[0])


def _leaky(x):
  return np.where(x > 0, x, 0.2 * x)


def _encoded(of, x, strides):
  """Returns the literal encoder's mean and log variance."""
  of = jax.tree.map(np.asarray, of)
  for i, stride in enumerate(strides):
    x = _same(jnp.float32(x), of[f'kernel_{i}'], stride)
    x = _leaky(np.asarray(x) + of[f'bias_{i}'])
  x = x.reshape(len(x), -1)
  return [
    x @ of[name]['kernel'] + of[name]['bias']
    for name in ('mean', 'log_variance')
  ]


def _maps(x, y):
  """Returns images x with the vectors y at every pixel."""
  shape = (*x.shape[:-1], y.shape[-1])
  return np.concatenate([x, np.broadcast_to(y[:, None, None], shape)], -1)


class CouplingTest(parameterized.TestCase):
  @parameterized.parameters((2, 2), (3, 3))
  def test_density_by_change_of_variables(self, dim, num_layers):
    # log q(G(z)) = log N(z; 0, I) - log |det dG / dz|.
    module = generators.Coupling(dim=dim, widths=(4,), num_layers=num_layers)
    params = networks.drawn(module).params
    decode = lambda z: module.apply(params, z, method='decode')
    z = jax.random.normal(jax.random.key(0), (20, dim))
    jacobian = jax.vmap(jax.jacfwd(lambda z: decode(z[None])[0]))(z)
    log_normal = np.sum(stats.norm.logpdf(z), 1)
    expected = log_normal - np.linalg.slogdet(jacobian)[1]
    self.assertGreater(np.ptp(expected - log_normal), 0.5)
    np.testing.assert_allclose(
      module.apply(params, decode(z), method='log_density'), expected, rtol=1e-3
    )

  def test_samples_are_decoded_latents_and_start_normal(self):
    learner = networks.create(generators.Coupling(dim=3))
    rng = jax.random.key(1)
    x = learner.apply_fn(learner.params, rng, 5)
    z = learner.apply_fn(learner.params, rng, 5, method='latent')
    np.testing.assert_array_equal(x, z)

  @parameterized.parameters(
    (dict(dim=1), 'dim=1'), (dict(num_layers=0), 'num_layers=0')
  )
  def test_refuses(self, attributes, message):
    with self.assertRaisesRegex(ValueError, message):
      generators.Coupling(**attributes)


class SizeTest(parameterized.TestCase):
  # Counted are the weights of dense and convolution layers, as the papers do;
  # gains and biases of norms are apart. Layers: kernel area, inputs, outputs.
  @parameterized.named_parameters(
    (
      'rbm',
      generators.Deconv(),
      6.73,
      [(1, 100, 1024), (1, 1024, 7 * 7 * 128), (25, 128, 64), (25, 64, 1)],
      0,
    ),
    (
      'joint_mnist',
      generators.DCGAN(
        shape=(28, 28, 1),
        dense=(1024,),
        base=128,
        widths=(64,),
        strides=(2, 2),
        num_classes=10,
        output='sigmoid',
      ),
      6.82,
      [(1, 110, 1024), (1, 1034, 7 * 7 * 128), (25, 138, 64), (25, 74, 1)],
      1024 + 7 * 7 * 128 + 64,
    ),
    (
      'cifar10_2016',
      generators.DCGAN(num_classes=10),
      5.10,
      [
        (1, 110, 4 * 4 * 512),
        (25, 522, 256),
        (25, 266, 128),
        (25, 138, 3),
      ],
      4 * 4 * 512 + 256 + 128,
    ),
    (
      'cifar10_2017',
      generators.DCGAN(
        widths=(512, 256, 256, 128, 128),
        strides=(2, 1, 2, 1, 2, 1),
        kernel_size=3,
        num_classes=10,
      ),
      5.59,
      [
        (1, 110, 4 * 4 * 512),
        (9, 522, 512),
        (9, 522, 256),
        (9, 266, 256),
        (9, 266, 128),
        (9, 138, 128),
        (9, 138, 3),
      ],
      4 * 4 * 512 + 512 + 2 * 256 + 2 * 128,
    ),
    (
      'faces',
      generators.DCGAN(
        shape=(64, 64, 3),
        base=1024,
        widths=(512, 256, 128),
        strides=(2, 2, 2, 2),
      ),
      18.9,
      [
        (1, 100, 4 * 4 * 1024),
        (25, 1024, 512),
        (25, 512, 256),
        (25, 256, 128),
        (25, 128, 3),
      ],
      4 * 4 * 1024 + 512 + 256 + 128,
    ),
  )
  def test_networks_of_the_papers(self, module, millions, shapes, normed):
    label = jnp.zeros(2, jnp.int32) if module.num_classes else None
    weights, others = _counts(module, label)
    self.assertEqual(weights, sum(map(np.prod, shapes)))
    self.assertAlmostEqual(
      weights / 1e6, millions, delta=0.05 if millions > 10 else 0.005
    )
    self.assertEqual(others, 2 * normed)  # a gain and a bias each

  def test_create_records_the_sizes(self):
    for num_classes in (0, 3):
      learner = networks.tiny(num_classes=num_classes)
      self.assertEqual(learner.input_shape, (4, 8, 2))
      self.assertEqual(learner.batch_size, networks.SIZE)
      self.assertEqual(learner.num_classes, num_classes)
    learner = networks.create(generators.MLP(dim=5, widths=()), num=6)
    self.assertEqual((learner.input_shape, learner.batch_size), ((5,), 6))
    self.assertEqual(learner.num_classes, 0)

  def test_weights_start_at_a_standard_deviation_of_2_percent(self):
    module = generators.DCGAN(
      **{**networks.TINY, 'latent_dim': 200, 'base': 50}
    )
    params = networks.create(module, num=1).params['params']
    for name in ('Dense_0', 'ConvTranspose_0'):
      kernel = np.asarray(params[name]['kernel'])
      standard_error = 0.02 / np.sqrt(kernel.size)
      self.assertAlmostEqual(np.mean(kernel), 0, delta=4 * standard_error)
      self.assertAlmostEqual(np.std(kernel), 0.02, delta=3 * standard_error)

  def test_deconv_is_of_any_size(self):
    module = generators.Deconv(
      latent_dim=5, width=2, shape=(8, 12, 3), output_noise=0.5
    )
    weights, others = _counts(module)
    expected = 5 * 32 + 32 * 2 * 3 * 4 + 25 * 4 * 2 + 25 * 2 * 3
    self.assertEqual((weights, others), (expected, 0))
    self.assertEqual(module.output_noise, 0.5)

  @parameterized.parameters(
    (dict(strides=(2, 2, 2)), r'strides=\(2, 2, 2\).*widths=\(3,\)'),
    (
      dict(shape=(4, 6, 2)),
      r'shape=\(4, 6, 2\).*by 4, the product of strides=',
    ),
    (
      dict(shape=(6, 4, 2)),
      r'shape=\(6, 4, 2\).*by 4, the product of strides=',
    ),
    (dict(output='relu'), "output='relu'.*'sigmoid', 'tanh'"),
    (dict(prior='cauchy'), "prior='cauchy'.*'uniform', 'normal'"),
    (dict(output_noise=-0.1), 'output_noise=-0.1'),
    (dict(latent_dim=0), 'latent_dim=0'),
    (dict(base=2.5), 'base=2.5'),
    (dict(num_classes=-1), 'num_classes=-1'),
    (dict(kernel_size=4), 'kernel_size=4 must be odd'),
  )
  def test_bad_arguments(self, kwargs, message):
    with self.assertRaisesRegex(ValueError, message):
      generators.DCGAN(**{**networks.TINY, **kwargs})

  @parameterized.parameters(
    (dict(latent_dim=0), 'latent_dim=0'),
    (dict(dim=0), 'dim=0'),
    (dict(prior='cauchy'), "prior='cauchy'"),
  )
  def test_bad_arguments_of_the_mlp(self, kwargs, message):
    with self.assertRaisesRegex(ValueError, message):
      generators.MLP(**kwargs)

  @parameterized.parameters((0, True, 'given'), (3, False, 'missing'))
  def test_labels_and_classes_go_together(self, num_classes, given, message):
    module = generators.DCGAN(**networks.TINY, num_classes=num_classes)
    label = jnp.zeros(2, jnp.int32) if given else None
    with self.assertRaisesRegex(
      ValueError, f'num_classes={num_classes}, but label is {message}'
    ):
      _counts(module, label)


class NetworkTest(parameterized.TestCase):
  @parameterized.parameters((0, True), (3, False))
  def test_decode_is_the_literal_network(self, num_classes, norm_gain):
    learner = networks.tiny(
      dense=(5,), num_classes=num_classes, norm_gain=norm_gain
    )
    params = jax.tree.map(np.asarray, learner.params)
    z = np.random.default_rng(1).normal(size=(6, 3))
    label = np.array([0, 2, 1, 1, 0, 2]) if num_classes else None
    actual = jax.jit(
      lambda params, z: learner.apply_fn(
        params, z, label=label, method='decode'
      )
    )(params, jnp.float32(z))

    of = params['params']
    y = np.eye(3)[label] if num_classes else np.zeros((6, 0))

    def active(x, number):
      axes = tuple(range(x.ndim - 1))
      x = x - x.mean(axes, keepdims=True)
      x = x / np.sqrt((x**2).mean(axes, keepdims=True) + 1e-5)
      if norm_gain:
        norm = of[f'BatchNorm_{number}']
        x = x * norm['gain'] + norm['bias']
      return np.maximum(x, 0)

    x = np.concatenate([z, y], 1) @ of['Dense_0']['kernel']
    x = np.concatenate([active(x, 0), y], 1) @ of['Dense_1']['kernel']
    # From a vector of units to maps at a quarter of the size.
    x = _maps(active(x, 1).reshape(6, 1, 2, 4), y)
    x = active(_up(x, of['ConvTranspose_0']['kernel'], 2), 2)
    x = _up(_maps(x, y), of['ConvTranspose_1']['kernel'], 2)
    np.testing.assert_allclose(actual, np.tanh(x), atol=2e-4)

  @parameterized.parameters(
    ('sigmoid', 0, 1), ('tanh', -1, 1), ('linear', -9, 9)
  )
  def test_range_of_the_output(self, output, low, high):
    learner = networks.with_options(networks.tiny(scale=3.0), output=output)
    x = jax.jit(generators.generate, static_argnums=3)(
      learner, learner.params, jax.random.key(1), networks.SIZE
    )
    self.assertEqual(
      (x.shape, x.dtype), ((networks.SIZE, 4, 8, 2), jnp.float32)
    )
    if output == 'linear':
      self.assertLess(np.min(x), low)
      self.assertGreater(np.max(x), high)
    else:
      self.assertBetween(np.min(x), low, low + 0.01)
      self.assertBetween(np.max(x), high - 0.01, high)

  @parameterized.parameters('dcgan', 'mlp')
  def test_priors(self, name):
    # 4 standard errors of the mean and of the mean square.
    for prior, square, spread in (('uniform', 1 / 3, 4 / 45), ('normal', 1, 2)):
      if name == 'mlp':
        module = generators.MLP(latent_dim=100, prior=prior)
      else:
        module = generators.DCGAN(
          **{**networks.TINY, 'latent_dim': 100}, prior=prior
        )
      z = module.apply({}, jax.random.key(0), 500, method='latent')
      self.assertEqual(z.shape, (500, 100))
      error = 4 / np.sqrt(z.size)
      self.assertAlmostEqual(jnp.mean(z), 0, delta=error * square**0.5)
      self.assertAlmostEqual(jnp.mean(z**2), square, delta=error * spread**0.5)
      self.assertEqual(jnp.max(jnp.abs(z)) <= 1, prior == 'uniform')

  def test_output_noise(self):
    learner = networks.with_options(networks.tiny(), output='linear')
    noisy = networks.with_options(learner, output='linear', output_noise=0.3)
    keys = jax.random.split(jax.random.key(1), 100)
    draw = lambda learner: jax.jit(
      jax.vmap(
        lambda rng: generators.generate(
          learner, learner.params, rng, networks.SIZE
        )
      )
    )(keys)
    noise = np.asarray(draw(noisy) - draw(learner)).reshape(100, -1)
    error = 4 * 0.3 / np.sqrt(noise.size)
    self.assertAlmostEqual(np.mean(noise), 0, delta=error)
    self.assertAlmostEqual(np.std(noise), 0.3, delta=error)
    # Independent of one batch to the next, and of pixels.
    correlation = np.corrcoef(noise[:, :6].T)[~np.eye(6, dtype=bool)]
    self.assertLess(np.max(np.abs(correlation)), 4 / np.sqrt(100))

  def test_four_devices_are_one_batch(self):
    learner = networks.tiny(num_classes=3)
    z = jax.random.normal(jax.random.key(1), (networks.SIZE, 3))
    label = jnp.array([0, 1, 2, 2, 1, 1, 0, 2])
    decode = lambda z, label, axis_name: learner.apply_fn(
      learner.params, z, label=label, axis_name=axis_name, method='decode'
    )
    shard = lambda x: x.reshape(4, 2, *x.shape[1:])
    sharded = jax.jit(
      jax.vmap(lambda *args: decode(*args, _AXIS), axis_name=_AXIS)
    )(shard(z), shard(label))
    whole = jax.jit(decode, static_argnums=2)(z, label, None)
    np.testing.assert_allclose(
      sharded.reshape(networks.SIZE, 4, 8, 2), whole, atol=1e-5
    )

  def test_mlp_does_not_mix_the_batch(self):
    learner = networks.create(generators.MLP(latent_dim=3, dim=2, widths=(4,)))
    self.assertNotIn('axis_name', learners.keywords(learner))
    z = jax.random.normal(jax.random.key(1), (5, 3))
    dense = learner.params['params']
    hidden = z @ dense['Dense_0']['kernel'] + dense['Dense_0']['bias'][None]
    hidden = hidden / (1 + np.exp(-hidden))  # swish
    expected = hidden @ dense['Dense_1']['kernel']
    np.testing.assert_allclose(
      learner.apply_fn(learner.params, z, method='decode'), expected, atol=1e-6
    )
    samples = generators.generate(
      learner, learner.params, jax.random.key(2), 5, axis_name=_AXIS
    )
    self.assertEqual(samples.shape, (5, 2))


class VAETest(parameterized.TestCase):
  @parameterized.parameters((True, 'tanh'), (False, 'linear'))
  def test_decode_is_the_literal_network(self, last_norm, output):
    learner = networks.vae(last_norm=last_norm, output=output)
    z = np.random.default_rng(1).normal(size=(6, 3))
    actual = self.call(learner, jnp.float32(z), method='decode')

    of = jax.tree.map(np.asarray, learner.params['params'])

    def norm(x, number):
      x = x - x.mean((0, 1, 2))
      x = x / np.sqrt((x**2).mean((0, 1, 2)) + 1e-3)  # and no gain
      return x + of[f'norms_{number}']['bias']

    x = norm((z @ of['first']['kernel']).reshape(6, 2, 2, 4), 0)
    x = _up(_leaky(x), of['rises_0']['kernel'], 2, (3, 3))
    if last_norm:
      x = norm(x, 1)
    x = _up(_leaky(x), of['rises_1']['kernel'], 2, (5, 6)) + of['bias']
    expected = np.tanh(x) if output == 'tanh' else x
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=2e-4)
    self.assertEqual('norms_1' in of, last_norm)

  def test_encode_is_the_literal_network(self):
    learner = networks.vae()
    x = np.random.default_rng(1).normal(size=(6, 5, 6, 2))
    expected = _encoded(learner.params['params']['encoder'], x, (1, 2))
    actual = self.call(learner, jnp.float32(x), method='encode')
    for value, wanted in zip(actual, expected, strict=True):
      self.assertEqual(value.shape, (6, 3))
      np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=2e-4)

  def test_dropout_is_of_a_key(self):
    # After one convolution mean and log variance are linear in what dropout leaves, so
    # that dropout keeps both on average.
    one = dict(encoder_widths=(3,), encoder_kernels=(3,), encoder_strides=(2,))
    learner = networks.vae(dropout=0.4, **one)
    x = jnp.float32(np.random.default_rng(1).normal(size=(2, 5, 6, 2)))
    encode = lambda rng: learner.apply_fn(
      learner.params, x, method='encode', key=rng
    )
    keys = jax.random.split(jax.random.key(0), 1000)
    codes, plain = jax.jit(lambda: (jax.vmap(encode)(keys), encode(None)))()
    expected = _encoded(learner.params['params']['encoder'], x, (2,))
    for code, value, wanted in zip(codes, plain, expected, strict=True):
      np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-4)
      error = np.std(code, 0) / np.sqrt(len(keys))
      self.assertGreater(np.min(error), 1e-3)
      np.testing.assert_array_less(np.abs(np.mean(code, 0) - value), 4 * error)

  def test_without_an_encoder(self):
    learner = networks.vae(encoder_widths=())
    self.assertNotIn('encoder', learner.params['params'])
    self.assertEqual(learner.input_shape, (5, 6, 2))
    with self.assertRaisesRegex(ValueError, r'encoder_widths=\(\)'):
      self.call(learner, jnp.zeros((2, 5, 6, 2)), method='encode')

  def test_without_norms_no_image_depends_on_others(self):
    plain = dict(widths=(), strides=(2,), kernels=(4,), last_norm=False)
    for changes, mixes in (
      ({}, True),
      (dict(last_norm=False), True),  # one norm is left
      (plain, False),
      (dict(plain, last_norm=True), True),
    ):
      learner = networks.vae(**changes)
      z = jnp.float32(np.random.default_rng(1).normal(size=(6, 3)))
      decode = lambda z: learners.call(
        learner, learner.params, z, method='decode'
      )
      apart = np.abs(decode(z)[:2] - decode(z[:2])).max()
      self.assertEqual(learners.mixes(learner), mixes)
      self.assertEqual(apart > 1e-3, mixes)

  def test_maps_of_28_pixels(self):
    module = generators.VAE()
    rises = lambda module, _: isinstance(module, layers.ConvTranspose)

    def run(rng):
      params = module.init(rng, rng, 2)
      z = module.apply(params, rng, 2, method='latent')
      x, variables = module.apply(
        params,
        z,
        method='decode',
        capture_intermediates=rises,
        mutable=['intermediates'],
      )
      return params['params']['first'], variables['intermediates'], x

    first, maps, x = jax.tree.map(
      lambda leaf: leaf.shape, jax.eval_shape(run, jax.random.key(0))
    )
    self.assertEqual(first, {'kernel': (100, 4 * 4 * 256)})
    self.assertEqual(
      [maps[f'rises_{i}']['__call__'][0] for i in range(3)],
      [(2, 7, 7, 128), (2, 14, 14, 64), (2, 28, 28, 1)],
    )
    self.assertEqual(x, (2, 28, 28, 1))

  @parameterized.parameters(False, True)
  def test_network_of_the_paper(self, encoder):
    options = dict(encoder_widths=())
    # The dense layer, the kernels, offsets of the first three norms, the bias:
    # 409,600 + 693,952 + 448 + 3.
    total = 100 * 4 * 4 * 256
    total += 16 * 256 * 128 + 16 * 128 * 64 + 9 * 64 * 64 + 9 * 64 * 3
    total += (256 + 128 + 64) + 3
    self.assertEqual(total, 1_104_003)
    if encoder:
      options = dict(
        encoder_widths=(64, 128, 256, 512),
        encoder_kernels=(3, 4, 4, 4),
        encoder_strides=(1, 2, 2, 2),
      )
      total += 9 * 3 * 64 + 16 * (64 * 128 + 128 * 256 + 256 * 512)
      total += 64 + 128 + 256 + 512
      total += 2 * (4 * 4 * 512 + 1) * 100  # mean and log variance
    weights, others = _counts(
      generators.VAE(
        shape=(32, 32, 3),
        base=256,
        widths=(128, 64, 64),
        strides=(2, 2, 2, 1),
        kernels=(4, 4, 3, 3),
        last_norm=False,
        **options,
      )
    )
    self.assertEqual(weights + others, total)

  @parameterized.parameters(
    (dict(strides=(2,)), r'strides=\(2,\).*widths=\(3,\)'),
    (dict(kernels=(3, 3, 3)), r'kernels=\(3, 3, 3\).*widths=\(3,\)'),
    (dict(encoder_kernels=(3,)), r'encoder_kernels=\(3,\)'),
    (dict(output='relu'), "output='relu'"),
    (dict(dropout=1.0), 'dropout=1.0'),
    (dict(latent_dim=0), 'latent_dim=0'),
    (dict(base=0), 'base=0'),
    (dict(scale=0.0), 'scale=0.0'),
  )
  def test_bad_arguments(self, kwargs, message):
    with self.assertRaisesRegex(ValueError, message):
      generators.VAE(**{**networks.VAE, **kwargs})

  def call(self, learner, *args, **kwargs):
    run = lambda params: learner.apply_fn(params, *args, **kwargs)
    return jax.jit(run)(learner.params)


class ImageToImageTest(parameterized.TestCase):
  def test_is_the_literal_network(self):
    learner, z, condition = self.learner()
    decode = jax.jit(
      lambda z, condition: generators.decode_batch(
        learner, learner.params, z, condition
      )
    )
    actual = decode(z, condition)
    self.assertEqual(learner.input_shape, (4, 6, 2))
    self.assertEqual(actual.shape, (5, 4, 6, 2))

    of = jax.tree.map(np.asarray, learner.params['params'])
    kernels, norms = iter(range(9)), iter(range(9))

    def conv(x, stride=1):
      kernel = of[f'kernel_{next(kernels)}']
      return np.asarray(_same(jnp.float32(x), kernel, stride))

    def norm(x):
      parameters = of[f'InstanceNorm_{next(norms)}']
      x = x - x.mean((1, 2), keepdims=True)
      x = x / np.sqrt((x**2).mean((1, 2), keepdims=True) + 1e-5)
      return x * parameters['scale'] + parameters['bias']

    relu = lambda x: np.maximum(x, 0)
    x = relu(norm(conv(condition)))  # 7 x 7
    x = relu(norm(conv(x, 2)))
    offset = np.asarray(z) @ of['Dense_0']['kernel'] + of['Dense_0']['bias']
    x = x + offset[:, None, None]
    x = x + norm(conv(relu(norm(conv(x)))))
    x = relu(norm(_up(x, of['ConvTranspose_0']['kernel'], 2, (4, 6))))
    x = conv(x) + of['bias']
    np.testing.assert_allclose(actual, np.tanh(x), atol=1e-3)
    sides = [of[f'kernel_{i}'].shape[0] for i in range(5)]
    self.assertEqual(sides, [7, 3, 3, 3, 7])

    # The first image stays as it was if all others change.
    others = decode(z.at[1:].add(1), condition.at[1:].multiply(-2))
    np.testing.assert_allclose(others[0], actual[0], atol=1e-6)
    for changed in (
      decode(z.at[0].add(1), condition),
      decode(z, condition.at[0].multiply(-2)),
    ):
      self.assertGreater(np.max(np.abs(changed[0] - actual[0])), 0.01)
      np.testing.assert_allclose(changed[1:], actual[1:], atol=1e-6)

  def test_encode_sees_image_and_condition(self):
    learner, _, condition = self.learner()
    x = jnp.float32(np.random.default_rng(3).normal(size=(5, 4, 6, 2)))
    both = np.concatenate([x, condition], -1)
    expected = _encoded(learner.params['params']['encoder'], both, (2,))
    actual = jax.jit(
      lambda: learner.apply_fn(learner.params, x, condition, method='encode')
    )()
    for value, wanted in zip(actual, expected, strict=True):
      np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-4)

  @parameterized.parameters(
    (dict(shape=(5, 6, 2)), r'shape=\(5, 6, 2\) must be divisible by 2'),
    (dict(shape=(4, 7, 2)), r'shape=\(4, 7, 2\) must be divisible by 2'),
    (dict(latent_dim=0), 'latent_dim=0'),
    (dict(num_blocks=-1), 'num_blocks=-1'),
    (dict(output='relu'), "output='relu'"),
    (dict(scale=0.0), 'scale=0.0'),
  )
  def test_bad_arguments(self, kwargs, message):
    with self.assertRaisesRegex(ValueError, message):
      generators.ImageToImage(**{**networks.PAIR, **kwargs})

  def learner(self):
    """Returns a learner, with latents and conditions for five images."""
    rng = np.random.default_rng(2)
    z, condition = rng.normal(size=(5, 3)), rng.normal(size=(5, 4, 6, 1))
    learner = networks.drawn(
      generators.ImageToImage(**networks.PAIR),
      0.5,
      jnp.zeros((networks.SIZE, 4, 6, 1)),
    )
    return learner, jnp.float32(z), jnp.float32(condition)


if __name__ == '__main__':
  absltest.main()
