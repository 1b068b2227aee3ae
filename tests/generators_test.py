"""Generators against literal networks, and samples against their company."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from stein_jax import generators
from stein_jax import layers
from stein_jax import learners

_AXIS = 'batch'
_SIZE = 8  # rows of a training batch
_TINY = dict(shape=(4, 8, 2), latent_dim=3, base=4, widths=(3,), strides=(2, 2))


class _Plain(nn.Module):
  """A sample is its latent vector, its label, and the mean of its batch."""

  prior: str = 'uniform'
  num_classes: int = 0

  @nn.compact
  def decode(self, z, *, label=None):
    self.param('unused', nn.initializers.zeros, ())
    label = jnp.zeros(len(z)) if label is None else label
    mean = jnp.broadcast_to(jnp.mean(z, 0, keepdims=True), z.shape)
    return jnp.concatenate([z, label.astype(z.dtype)[:, None], mean], 1)

  def latent(self, rng, num):
    return generators.PRIORS[self.prior](rng, (num, 3))

  def __call__(self, rng, num, *, label=None):
    return self.decode(self.latent(rng, num), label=label)


@functools.cache
def _create(module, num=_SIZE):
  """Returns a learner of the module, conditional if the module is."""
  classes = getattr(module, 'num_classes', 0)
  label = jnp.arange(num) % classes if classes else None
  return generators.create(
    jax.random.key(0), module, optax.sgd(1.0), num, label
  )


@functools.cache
def _tiny(scale=1.0, **kwargs):
  """Returns a learner of a small DCGAN with parameters from N(0, scale^2)."""
  module = generators.DCGAN(**_TINY, **kwargs)
  # Shapes alone: compiling the start would take most of the time.
  learner = jax.eval_shape(lambda: _create.__wrapped__(module))
  rng = np.random.default_rng(0)
  draw = lambda leaf: jnp.asarray(
    scale * rng.normal(size=leaf.shape), leaf.dtype
  )
  params = jax.tree.map(draw, learner.params)
  return learner.replace(
    step=0, params=params, opt_state=learner.tx.init(params)
  )


def _with(learner, **kwargs):
  """Returns the learner with options on which its parameters do not depend."""
  return learner.replace(apply_fn=generators.DCGAN(**_TINY, **kwargs).apply)


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


def _up(x, kernel, stride):
  """Returns the adjoint of the 'same' convolution at x, literally."""
  n, height, width, _ = x.shape
  image = jax.ShapeDtypeStruct(
    (n, stride * height, stride * width, kernel.shape[2]), jnp.float32
  )
  padding = (len(kernel) - 1) // 2
  conv = lambda image: layers.conv(
    image, kernel, stride=stride, padding=padding
  )
  return np.asarray(jax.linear_transpose(conv, image)(jnp.float32(x))[0])


def _maps(x, y):
  """Returns images x with the vectors y at every pixel."""
  shape = (*x.shape[:-1], y.shape[-1])
  return np.concatenate([x, np.broadcast_to(y[:, None, None], shape)], -1)


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
      learner = _tiny(num_classes=num_classes)
      self.assertEqual(learner.input_shape, (4, 8, 2))
      self.assertEqual(learner.batch_size, _SIZE)
      self.assertEqual(generators.num_classes(learner), num_classes)
    learner = _create(generators.MLP(dim=5, widths=()), num=6)
    self.assertEqual((learner.input_shape, learner.batch_size), ((5,), 6))
    self.assertEqual(generators.num_classes(learner), 0)

  def test_weights_start_at_a_standard_deviation_of_2_percent(self):
    module = generators.DCGAN(**{**_TINY, 'latent_dim': 200, 'base': 50})
    params = _create(module, num=1).params['params']
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
    (dict(shape=(4, 6, 2)), r'shape=\(4, 6, 2\).*product 4 of strides'),
    (dict(shape=(6, 4, 2)), r'shape=\(6, 4, 2\).*product 4 of strides'),
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
      generators.DCGAN(**{**_TINY, **kwargs})

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
    module = generators.DCGAN(**_TINY, num_classes=num_classes)
    label = jnp.zeros(2, jnp.int32) if given else None
    with self.assertRaisesRegex(
      ValueError, f'num_classes={num_classes}, but label is {message}'
    ):
      _counts(module, label)


class NetworkTest(parameterized.TestCase):
  @parameterized.parameters((0, True), (3, False))
  def test_decode_is_the_literal_network(self, num_classes, norm_gain):
    learner = _tiny(dense=(5,), num_classes=num_classes, norm_gain=norm_gain)
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
    learner = _with(_tiny(scale=3.0), output=output)
    x = jax.jit(generators.generate, static_argnums=3)(
      learner, learner.params, jax.random.key(1), _SIZE
    )
    self.assertEqual((x.shape, x.dtype), ((_SIZE, 4, 8, 2), jnp.float32))
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
        module = generators.DCGAN(**{**_TINY, 'latent_dim': 100}, prior=prior)
      z = module.apply({}, jax.random.key(0), 500, method='latent')
      self.assertEqual(z.shape, (500, 100))
      error = 4 / np.sqrt(z.size)
      self.assertAlmostEqual(jnp.mean(z), 0, delta=error * square**0.5)
      self.assertAlmostEqual(jnp.mean(z**2), square, delta=error * spread**0.5)
      self.assertEqual(jnp.max(jnp.abs(z)) <= 1, prior == 'uniform')

  def test_output_noise(self):
    learner = _with(_tiny(), output='linear')
    noisy = _with(learner, output='linear', output_noise=0.3)
    keys = jax.random.split(jax.random.key(1), 100)
    draw = lambda learner: jax.jit(
      jax.vmap(
        lambda rng: generators.generate(learner, learner.params, rng, _SIZE)
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
    learner = _tiny(num_classes=3)
    z = jax.random.normal(jax.random.key(1), (_SIZE, 3))
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
      sharded.reshape(_SIZE, 4, 8, 2), whole, atol=1e-5
    )

  def test_mlp_does_not_mix_the_batch(self):
    learner = _create(generators.MLP(latent_dim=3, dim=2, widths=(4,)))
    self.assertNotIn('axis_name', learner.takes)
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


class FollowTest(absltest.TestCase):
  def test_gradient_is_minus_the_mean_pullback(self):
    learner = _tiny()
    draw = lambda params: generators.generate(
      learner, params, jax.random.key(1), 3
    )
    phi = jax.random.normal(jax.random.key(2), (3, 4, 8, 2))

    @jax.jit
    def results(params):
      loss_fn = generators.follow(draw, phi)
      gradient, metrics = jax.grad(loss_fn, has_aux=True)(params)
      return gradient, metrics, draw(params), jax.jacrev(draw)(params)

    gradient, metrics, samples, jacobian = results(learner.params)
    for actual, of_leaf in zip(
      jax.tree.leaves(gradient), jax.tree.leaves(jacobian), strict=True
    ):
      expected = -np.tensordot(phi, of_leaf, 4) / 3
      np.testing.assert_allclose(
        actual, expected, atol=1e-5 * np.max(np.abs(expected)), rtol=1e-5
      )
    np.testing.assert_allclose(
      metrics['generator/move'], np.sum(np.square(phi)) / 3, rtol=1e-5
    )
    np.testing.assert_allclose(
      metrics['samples/variance'], np.sum(np.var(samples, 0)), rtol=1e-5
    )

  def test_the_direction_is_constant(self):
    phi = jnp.arange(6.0).reshape(3, 2)
    # G = t (1, 1): -mean t (phi_1 + phi_2) = -5 t, at t = 2 and phi times s.
    draw = lambda t: t * jnp.ones((3, 2))
    loss = lambda t, s: generators.follow(draw, s * t * phi)(t)[0]
    value, slopes = jax.value_and_grad(loss, (0, 1))(2.0, 1.0)
    self.assertEqual((value, *slopes), (-20.0, -10.0, 0.0))

  def test_metrics_over_devices_are_those_of_the_whole(self):
    class Constant(nn.Module):
      @nn.compact
      def __call__(self, x):
        return x + self.param('shift', nn.initializers.zeros, (1, 2))

    x, phi = jax.random.normal(jax.random.key(0), (2, 8, 2))
    learner = learners.create(jax.random.key(0), Constant(), optax.sgd(1.0), x)

    def step(x, phi, axis_name=None):
      draw = lambda params: learner.apply_fn(params, x)
      loss_fn = generators.follow(draw, phi, axis_name=axis_name)
      moved, metrics = learners.descend(learner, loss_fn, axis_name=axis_name)
      return moved.params, metrics

    shard = lambda x: x.reshape(4, 2, 2)
    run = jax.vmap(lambda x, phi: step(x, phi, _AXIS), axis_name=_AXIS)
    params, metrics = jax.jit(run)(shard(x), shard(phi))
    # The shift goes along the mean of phi.
    for shift in params['params']['shift'][:, 0]:
      np.testing.assert_allclose(shift, np.mean(phi, 0), atol=1e-6)
    np.testing.assert_allclose(
      metrics['samples/variance'], np.sum(np.var(x, 0)), rtol=1e-5
    )
    np.testing.assert_allclose(
      metrics['generator/move'], np.mean(np.sum(np.square(phi), 1)), rtol=1e-5
    )


class SampleTest(parameterized.TestCase):
  def test_fewer_samples_are_the_first_of_more(self):
    learner, rng = _with(_tiny(), output_noise=0.1), jax.random.key(1)
    draw = jax.jit(generators.sample, static_argnums=2)
    most = draw(learner, rng, 2 * _SIZE + 3)
    self.assertEqual(most.shape, (2 * _SIZE + 3, 4, 8, 2))
    self.assertLen(np.unique(most.reshape(len(most), -1), axis=0), len(most))
    np.testing.assert_array_equal(draw(learner, rng, 1), most[:1])

  def test_samples_are_rows_of_whole_batches(self):
    # Each batch tells its own mean: eight rows share one, and it is theirs.
    learner = _create(_Plain())
    x = generators.sample(learner, jax.random.key(1), 3 * _SIZE)
    batches = np.asarray(x).reshape(3, _SIZE, 7)
    np.testing.assert_allclose(
      batches[:, :, 4:],
      np.broadcast_to(batches[:, :, :3].mean(1)[:, None], (3, _SIZE, 3)),
      atol=1e-6,
    )
    alone = generators.sample(learner, jax.random.key(2), 1)
    self.assertGreater(np.max(np.abs(alone[0, :3] - alone[0, 4:])), 0.1)

  def test_one_sample_is_distributed_as_one_of_many(self):
    learner = _with(_tiny(), output='linear')
    # Normalised by itself a batch of one is its mean: nothing else is left.
    naive = jax.jit(
      jax.vmap(lambda rng: generators.generate(learner, learner.params, rng, 1))
    )(jax.random.split(jax.random.key(0), 2))
    self.assertGreater(np.max(np.abs(naive)), 0)
    np.testing.assert_allclose(naive[0], naive[1], atol=1e-5)

    def moments(seed, repeats, num):
      """Returns (mean, error) [2 * 16]: pixels and their squares."""
      keys = jax.random.split(jax.random.key(seed), repeats)
      draw = lambda rng: generators.sample(learner, rng, num)
      x = np.asarray(jax.jit(jax.vmap(draw))(keys), np.float64)
      x = x.reshape(repeats, num, -1)[..., :16]
      means = np.concatenate([x, x**2], 2).mean(1)
      return means.mean(0), means.std(0) / np.sqrt(repeats)

    one, error = moments(1, 600, 1)
    many, other = moments(2, 30, 100)
    self.assertGreater(np.min(one[16:]), 0.1)
    # 32 comparisons at 4 standard errors fail by chance once in 500 seeds.
    np.testing.assert_array_less(
      np.abs(one - many), 4 * np.sqrt(error**2 + other**2)
    )

  def test_every_request_gets_its_label_whatever_its_company(self):
    learner, rng = self.labelled(), jax.random.key(1)
    draw = jax.jit(
      lambda label: generators.sample(learner, rng, len(label), label=label)
    )
    label = np.array([2, 0, 2, 1, 2, 2, 0])
    mixed = np.asarray(draw(label))
    self.assertEqual(mixed.shape, (7, 4, 8, 2))
    np.testing.assert_array_equal(np.round(mixed.mean((1, 2, 3)) / 10), label)
    self.assertLen(np.unique(mixed.reshape(7, -1), axis=0), 7)
    # The four of label 2 take two batches, which hold two of each.
    np.testing.assert_array_equal(draw(label[label == 2]), mixed[label == 2])

  def test_a_batch_holds_all_classes(self):
    # Three classes in eight rows: 0, 1, 2, 0, 1, 2, and two more.
    learner = _create(_Plain(num_classes=3))
    draw = jax.jit(
      lambda label=None: generators.sample(
        learner, jax.random.key(1), 9, label=label
      )
    )
    x = np.asarray(draw())
    np.testing.assert_array_equal(x[:, 3], [0, 1, 2] * 3)
    # Two of a class to a batch: six rows share a mean, and three another.
    np.testing.assert_array_equal(x[:6, 4:], np.tile(x[:1, 4:], (6, 1)))
    np.testing.assert_array_equal(x[6:, 4:], np.tile(x[6:7, 4:], (3, 1)))
    self.assertFalse(np.array_equal(x[0, 4:], x[6, 4:]))
    # Labels that are not asked for take turns.
    np.testing.assert_array_equal(draw(jnp.arange(9) % 3), x)

  def test_bad_labels(self):
    with self.assertRaisesRegex(ValueError, 'unconditional'):
      generators.sample(
        _create(_Plain()), jax.random.key(0), 2, label=jnp.zeros(2, int)
      )
    plain = _create(_Plain())
    with self.assertRaisesRegex(ValueError, 'unconditional'):
      generators.decode(
        plain, jax.random.key(0), jnp.zeros((2, 3)), label=jnp.zeros(2, int)
      )
    full = _create(_Plain(num_classes=8))
    for label in (-1, 8):
      with self.assertRaisesRegex(ValueError, f'label={label}.*0, ..., 7'):
        generators.sample(
          full, jax.random.key(0), 2, label=jnp.array([0, label])
        )
    self.assertEmpty(generators.sample(full, jax.random.key(0), 0))
    with self.assertRaisesRegex(ValueError, '8 classes.*batches of 7'):
      generators.sample(full.replace(batch_size=7), jax.random.key(0), 2)
    x = generators.sample(full, jax.random.key(0), 3, label=jnp.full(3, 7))
    np.testing.assert_array_equal(x[:, 3], 7)

  def labelled(self):
    """Returns a learner whose image of label y is 10 y, give or take 1."""
    learner = _tiny(num_classes=3)
    params = learner.params['params']
    last = params['ConvTranspose_1']['kernel']  # inputs: 3 maps, then the label
    # A map is at most its gain times 8, the root of its 8 * 8 values.
    last = 1e-3 * last / jnp.sum(jnp.abs(last))
    # Of a stride of 2 these four taps reach each pixel once.
    taps = jnp.broadcast_to(jnp.array([0.0, 10, 20]), (2, 2, 2, 3))
    last = last.at[2:4, 2:4, :, 3:].set(taps)
    params = {**params, 'ConvTranspose_1': {'kernel': last}}
    return _with(
      learner.replace(params={'params': params}),
      num_classes=3,
      output='linear',
      output_noise=0.1,
    )


class LatentTest(parameterized.TestCase):
  def test_decode_has_company_of_the_key_alone(self):
    learner = _create(_Plain())
    z = jax.random.normal(jax.random.key(1), (5, 3))
    x = generators.decode(learner, jax.random.key(2), z)
    np.testing.assert_array_equal(x[:, :3], z)
    # The mean of eight, times eight, less z: the same seven draws each time.
    others = _SIZE * x[:, 4:] - z
    np.testing.assert_allclose(others, np.tile(others[:1], (5, 1)), atol=1e-5)
    again = generators.decode(learner, jax.random.key(3), z)
    self.assertGreater(np.max(np.abs(again[:, 4:] - x[:, 4:])), 0.01)

  def test_decode_is_a_row_of_a_batch(self):
    learner = _tiny(num_classes=3)
    z = jax.random.normal(jax.random.key(1), (3, 3))
    label = jnp.array([2, 0, 2])
    decode = jax.jit(
      lambda z, label: generators.decode(
        learner, jax.random.key(2), z, label=label
      )
    )
    x = decode(z, label)
    self.assertEqual(x.shape, (3, 4, 8, 2))
    np.testing.assert_array_equal(decode(z[::-1], label[::-1]), x[::-1])
    changed = decode(z, jnp.array([2, 1, 2]))
    np.testing.assert_array_equal(changed[::2], x[::2])
    self.assertGreater(np.max(np.abs(changed[1] - x[1])), 0.01)

  @parameterized.parameters('uniform', 'normal')
  def test_interpolate_between_two_draws(self, prior):
    learner = _create(_Plain(prior))
    x = generators.interpolate(
      learner, jax.random.key(1), num_pairs=200, num_points=5
    )
    self.assertEqual(x.shape, (200, 5, 7))
    z = np.asarray(x[..., :3])
    share = np.linspace(0, 1, 5)[:, None]
    line = (1 - share) * z[:, :1] + share * z[:, -1:]
    np.testing.assert_allclose(z, line, atol=1e-6)
    ends = z[:, [0, -1]].reshape(-1, 3)
    self.assertLen(np.unique(ends, axis=0), 400)
    variance = {'uniform': 1 / 3, 'normal': 1.0}[prior]
    # 4 standard errors of 1200 draws of at most a normal's kurtosis.
    self.assertAlmostEqual(
      np.mean(ends**2), variance, delta=4 * variance * np.sqrt(2 / 1200)
    )
    self.assertAlmostEqual(np.mean(ends), 0, delta=4 * np.sqrt(variance / 1200))

  def test_ends_are_the_decoded_latents(self):
    # The plain generator shows the latents that this key draws.
    rng, lines = jax.random.key(1), dict(num_pairs=2, num_points=3)
    z = generators.interpolate(_create(_Plain()), rng, **lines)[..., :3]
    learner = _tiny()
    x = generators.interpolate(learner, rng, **lines)
    self.assertEqual(x.shape, (2, 3, 4, 8, 2))
    _, others_rng = jax.random.split(rng)
    ends = lambda path: path[:, jnp.array([0, -1])].reshape(-1, *path.shape[2:])
    np.testing.assert_allclose(
      generators.decode(learner, others_rng, ends(z)), ends(x), atol=1e-5
    )

  def test_neighbours_in_latent_space_are_neighbours(self):
    learner, rng = _tiny(), jax.random.key(3)
    paths = [
      np.asarray(
        generators.interpolate(learner, rng, num_pairs=2, num_points=num)
      )
      for num in (65, 257)
    ]
    np.testing.assert_allclose(paths[1][:, ::4], paths[0], atol=1e-5)
    coarse, fine = (np.max(np.abs(np.diff(path, axis=1))) for path in paths)
    # Steps a quarter as long move the images a quarter as far, once they are
    # short beside the bends; a jump would stay as it is.
    self.assertGreater(coarse, 0.01)
    self.assertLess(fine, coarse / 2)

  @parameterized.parameters('uniform', 'normal')
  def test_walk(self, prior):
    learner = _create(_Plain(prior))
    x = generators.random_walk(
      learner,
      jax.random.key(1),
      num_walks=4,
      num_steps=300,
      step_size=0.5,
    )
    self.assertEqual(x.shape, (4, 300, 7))
    z = np.asarray(x[..., :3], np.float64)
    steps = np.diff(z, axis=1)
    self.assertLessEqual(np.max(np.abs(steps)), 0.5 + 1e-6)
    if prior == 'uniform':
      self.assertEqual(np.max(np.abs(z)), 1)
      # A move that would leave ends at the wall; the others are U(-1, 1) / 2.
      free = steps[np.abs(z[:, 1:]) < 1]
      self.assertLess(len(free), steps.size)
    else:
      self.assertGreater(np.max(np.abs(z)), 3)
      # 4 standard errors of 3588 steps of variance 1/12, of kurtosis 9/5.
      self.assertAlmostEqual(np.mean(steps), 0, delta=4 / np.sqrt(12 * 3588))
      self.assertAlmostEqual(
        np.mean(steps**2), 1 / 12, delta=4 * np.sqrt(0.8 / 3588) / 12
      )
    others = _SIZE * x[..., 4:] - x[..., :3]
    np.testing.assert_allclose(
      others, np.broadcast_to(others[:1, :1], others.shape), atol=2e-4
    )

  def test_walks_start_from_the_prior_and_the_step_is_small(self):
    x = generators.random_walk(
      _create(_Plain('normal')), jax.random.key(1), num_walks=400, num_steps=2
    )
    start, step = np.asarray(x[:, 0, :3]), np.diff(x[..., :3], axis=1)
    self.assertAlmostEqual(
      np.mean(start**2), 1, delta=4 * np.sqrt(2 / start.size)
    )
    self.assertBetween(np.max(np.abs(step)), 0.009, 0.01 + 1e-6)

  @parameterized.parameters((None,), ((2, 2, 0, 1),))
  def test_labels_of_paths(self, label):
    learner, rng = _create(_Plain(num_classes=3)), jax.random.key(1)
    given = None if label is None else jnp.array(label)
    walk = generators.random_walk(
      learner, rng, num_walks=4, num_steps=3, label=given
    )
    line = generators.interpolate(
      learner, rng, num_pairs=4, num_points=3, label=given
    )
    # Without labels the paths take turns.
    expected = np.repeat(np.array(label or (0, 1, 2, 0))[:, None], 3, 1)
    np.testing.assert_array_equal(walk[..., 3], expected)
    np.testing.assert_array_equal(line[..., 3], expected)


if __name__ == '__main__':
  absltest.main()
