"""Energies against literal networks, and the papers' sizes."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax

from stein_jax import classifiers
from stein_jax import energies
from stein_jax import layers
from stein_jax import learners
from tests.energies import models

_MNIST = ((64, 5, 2, 2), (128, 5, 2, 2), (512, 7, 7, 0))
_CIFAR10 = (
  (128, 3, 1, 1),
  (128, 2, 2, 0),
  (256, 3, 1, 1),
  (256, 4, 4, 0),
  (512, 3, 1, 1),
  (512, 4, 4, 0),
)
_FACES_2016 = (
  (128, 3, 1, 1),
  (128, 4, 4, 0),
  (256, 3, 1, 1),
  (256, 4, 4, 0),
  (512, 3, 1, 1),
  (512, 4, 4, 0),
)
_FACES_2017 = (
  (64, 3, 1, 1),
  (128, 5, 4, 2),
  (128, 3, 1, 1),
  (256, 5, 4, 2),
  (256, 3, 1, 1),
  (256, 4, 4, 0),
)


class MLPTest(absltest.TestCase):
  def test_confinement_is_a_parabola(self):
    x = jnp.asarray(models.points(4, 6), jnp.float32).reshape(4, 2, 3, 1)
    loose = energies.MLP((5, 4), confinement=0.0)
    tight = energies.MLP((5, 4), confinement=0.3)
    params = loose.init(jax.random.key(0), x)
    values = loose.apply(params, x)
    self.assertEqual(values.shape, (4,))
    self.assertGreater(np.ptp(values), 0)
    np.testing.assert_allclose(
      tight.apply(params, x) - values, 0.15 * np.sum(x**2, (1, 2, 3)), rtol=1e-5
    )


def _shapes(module, x, *inputs):
  """Returns the shapes of the parameters and of what the norms return."""

  def run(rng):
    params = module.init(rng, x, *inputs)
    _, variables = module.apply(
      params,
      x,
      *inputs,
      capture_intermediates=lambda module, _: 'Norm' in (module.name or ''),
      mutable=['intermediates'],
    )
    return params['params'], variables['intermediates']

  return jax.tree.map(
    lambda leaf: leaf.shape, jax.eval_shape(run, jax.random.key(0))
  )


def _weights(params):
  """Returns how many weights there are, and how many parameters of norms."""
  weights = others = 0
  is_shape = lambda node: isinstance(node, tuple)
  for path, shape in jax.tree.leaves_with_path(params, is_leaf=is_shape):
    if path[-1].key.startswith('kernel'):
      weights += np.prod(shape)
    else:
      others += np.prod(shape)
  return weights, others


def _normed(x, norm, parameters):
  """Returns x after the literal norm, given (factor, offset)."""
  if norm == 'none':
    return x
  x = np.asarray(x)
  axes = tuple(range(x.ndim - 1) if norm == 'batch' else range(1, x.ndim))
  x = x - x.mean(axes, keepdims=True)
  epsilon = {'batch': 1e-5, 'layer': 1e-6}[norm]
  factor, offset = map(np.asarray, parameters)
  return (
    x / np.sqrt((x**2).mean(axes, keepdims=True) + epsilon) * factor + offset
  )


def _literal_conv(x, kernel, *, stride, padding):
  """Returns XLA's own convolution, with its own derivatives."""
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    [(padding, padding)] * 2,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def _norms(energy):
  """Yields (factor, offset) of each norm, in the order of their making."""
  of = energy.params['params']
  for i in range(len(of)):
    if f'BatchNorm_{i}' in of:
      yield of[f'BatchNorm_{i}']['gain'], of[f'BatchNorm_{i}']['bias']
    if f'LayerNorm_{i}' in of:
      yield of[f'LayerNorm_{i}']['scale'], of[f'LayerNorm_{i}']['bias']


class AutoencoderTest(parameterized.TestCase):
  # Counted are the weights of the layers, once for encoder and decoder, as the
  # papers do; gains and biases of the norms are apart. Sizes are of each layer.
  @parameterized.named_parameters(
    ('mnist', _MNIST, (28, 28, 1), 3.42, (14, 7, 1), 5120),
    ('cifar10', _CIFAR10, (32, 32, 3), 6.79, (32, 16, 16, 4, 4, 1), 0),
    ('faces_2016', _FACES_2016, (64, 64, 3), 6.98, (64, 16, 16, 4, 4, 1), 0),
    ('faces_2017', _FACES_2017, (64, 64, 3), 2.81, (64, 16, 16, 4, 4, 1), 0),
  )
  def test_networks_of_the_papers(self, convs, shape, millions, sizes, head):
    module, y = energies.Autoencoder(convs), ()
    if head:  # the linear classifier of the features, 512 x 10
      module, y = energies.JointLabel(module, 10), (jnp.zeros(2, jnp.int32),)
    params, norms = _shapes(module, jnp.zeros((2, *shape)), *y)
    if head:
      self.assertEqual(params['classifier'], {'kernel': (512, 10)})
      norms = norms['autoencoder']
    else:  # the decoder has no kernels of its own
      self.assertEqual(
        {name for name in params if 'Norm' not in name},
        {f'kernel_{i}' for i in range(len(convs))},
      )
    widths = [width for width, *_ in convs]
    expected = head + sum(
      size**2 * before * width
      for before, (width, size, _, _) in zip(
        [shape[-1], *widths[:-1]], convs, strict=True
      )
    )
    weights, others = _weights(params)
    self.assertEqual(weights, expected)
    self.assertAlmostEqual(weights / 1e6, millions, delta=0.005)
    # All layers but the first are normed on the way in, and on the way out.
    self.assertEqual(others, 2 * (sum(widths[1:]) + sum(widths[:-1])))
    maps = [
      (2, size, size, width) for size, width in zip(sizes, widths, strict=True)
    ]
    self.assertEqual(
      [norms[f'BatchNorm_{i}']['__call__'][0] for i in range(len(norms))],
      [*maps[1:], *maps[-2::-1]],
    )

  @parameterized.parameters(
    ('none', 'sigmoid', 'l2'),
    ('batch', 'tanh', 'l1_l2'),
    ('layer', 'linear', 'squared'),
  )
  def test_is_the_literal_network(self, norm, output, residual):
    energy = models.energy('autoencoder', norm)
    module = energies.Autoencoder(models.CONVS, output, residual, norm)
    inputs = x = models.images(4, seed=1)
    kernels = [energy.params['params'][f'kernel_{i}'] for i in range(2)]
    norms, shapes = _norms(energy), []
    for i, (_, _, stride, padding) in enumerate(models.CONVS):
      shapes.append(x.shape)
      x = layers.conv(x, kernels[i], stride=stride, padding=padding)
      x = np.maximum(_normed(x, norm, next(norms, None)) if i else x, 0)
    features = np.reshape(x, (4, -1))
    for i in (1, 0):
      _, _, stride, padding = models.CONVS[i]
      up = jax.linear_transpose(
        functools.partial(
          _literal_conv, kernel=kernels[i], stride=stride, padding=padding
        ),
        jax.ShapeDtypeStruct(shapes[i], jnp.float32),
      )
      x = np.asarray(up(jnp.asarray(x))[0])
      x = np.maximum(_normed(x, norm, next(norms, None)), 0) if i else x
    if output != 'linear':
      x = np.tanh(x) if output == 'tanh' else 1 / (1 + np.exp(-x))
    error = np.reshape(np.asarray(inputs) - x, (4, -1))
    squares = np.sum(error**2, 1)
    expected = {
      'l2': np.sqrt(squares),
      'l1_l2': np.sqrt(np.sum(np.abs(error), 1)) + np.sqrt(squares),
      'squared': squares,
    }[residual]

    @jax.jit
    def results(params):
      run = lambda method: module.apply(params, inputs, method=method)
      names = ('features', 'reconstruct', 'reconstruction_error')
      return module.apply(params, inputs), *map(run, names)

    actual = results(energy.params)
    for value, wanted in zip(
      actual, (expected, features, x, expected), strict=True
    ):
      np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-4)

  def test_weights_start_at_a_standard_deviation_of_2_percent(self):
    module = energies.Autoencoder(((40, 5, 5, 0),), norm='none')
    params = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 5, 5, 10)))
    kernel = np.asarray(params['params']['kernel_0'])  # 10,000 draws
    self.assertAlmostEqual(np.mean(kernel), 0, delta=4 * 0.02 / 100)
    self.assertAlmostEqual(np.std(kernel), 0.02, delta=3 * 0.02 / 100)

  @parameterized.parameters('l2', 'l1_l2', 'squared')
  def test_a_perfect_reconstruction_has_a_slope(self, residual):
    # Without biases and norms the image of zeros is reconstructed as it is.
    module = energies.Autoencoder(models.CONVS, 'linear', residual, 'none')
    total = lambda x, params: jnp.sum(module.apply(params, x))
    value, (of_image, of_params) = jax.jit(jax.value_and_grad(total, (0, 1)))(
      jnp.zeros((2, 8, 8, 2)), models.energy('autoencoder', 'none').params
    )
    for leaf in (of_image, *jax.tree.leaves(of_params)):
      self.assertTrue(np.all(np.isfinite(leaf)))
      if residual != 'l1_l2':  # its root of |r| is steep there
        np.testing.assert_array_equal(leaf, 0)
    self.assertAlmostEqual(value, 0, delta=1e-5)

  def test_dropout(self):
    # One kernel of one weight, 1: the reconstruction is what dropout leaves.
    rate, x = 0.2, 1 + jnp.abs(models.images(2)[..., :1])
    module = energies.Autoencoder(
      ((1, 1, 1, 0),), 'linear', 'squared', 'none', dropout=rate
    )
    energy = learners.create(jax.random.key(0), module, optax.sgd(1.0), x)
    energy = energy.replace(params=jax.tree.map(jnp.ones_like, energy.params))
    run = lambda rng, method=None: learners.call(
      energy, energy.params, x, rng=rng, method=method
    )
    keys = jax.random.split(jax.random.key(1), 3000)
    values = jax.jit(jax.vmap(run))(keys)
    kept = jax.jit(jax.vmap(lambda rng: run(rng, 'reconstruct')))(keys)
    wholes = jnp.broadcast_to(x / (1 - rate), kept.shape)
    np.testing.assert_allclose(kept, jnp.where(kept == 0, 0, wholes), rtol=1e-6)
    share = np.mean(kept == 0)
    self.assertAlmostEqual(
      share, rate, delta=4 * np.sqrt(rate * (1 - rate) / kept.size)
    )
    # x^2 with chance r, (x r / (1 - r))^2 otherwise: r / (1 - r) x^2.
    expected = rate / (1 - rate) * np.sum(x**2, (1, 2, 3))
    error = np.std(values, 0) / np.sqrt(len(keys))
    np.testing.assert_array_less(
      np.abs(np.mean(values, 0) - expected), 4 * error
    )
    np.testing.assert_array_equal(run(keys[0]), run(keys[0]))
    np.testing.assert_array_equal(run(None), 0)

  @parameterized.parameters(
    (dict(output='relu'), "output='relu'.*'sigmoid', 'tanh'"),
    (dict(residual='l1'), "residual='l1'.*'l2', 'l1_l2', 'squared'"),
    (dict(norm='group'), "norm='group'.*'batch', 'layer', 'none'"),
    (dict(dropout=-0.1), 'dropout=-0.1'),
    (dict(dropout=1.0), 'dropout=1.0'),
  )
  def test_bad_arguments(self, kwargs, message):
    with self.assertRaisesRegex(ValueError, message):
      energies.Autoencoder(**kwargs)


class MarginalLabelTest(parameterized.TestCase):
  def learner(self, classifier):
    return learners.create(
      jax.random.key(0),
      energies.MarginalLabel(classifier),
      optax.sgd(0.1),
      jnp.zeros((3, 8, 8, 1)),
    )

  def test_is_the_classifier(self):
    classifier = classifiers.CNN(4, (2,), 5, dropout=0.4)
    learner = self.learner(classifier)
    x = np.float32(np.random.default_rng(1).normal(size=(3, 8, 8, 1)))
    own = {'params': learner.params['params']['classifier']}
    for rng in (None, jax.random.key(2)):
      features, logits = classifier.apply(own, x, rng=rng)
      call = functools.partial(
        learners.call, learner, learner.params, x, rng=rng
      )
      np.testing.assert_allclose(call(method='logits'), logits, rtol=1e-6)
      np.testing.assert_allclose(call(method='features'), features, rtol=1e-6)
      expected = -np.log(np.sum(np.exp(logits), 1))
      np.testing.assert_allclose(call(), expected, rtol=1e-5)

  def test_a_constant_moves_nothing_but_the_energy(self):
    learner = self.learner(classifiers.CNN(4, (2,), 5))
    x = np.float32(np.random.default_rng(1).normal(size=(3, 8, 8, 1)))
    shift = lambda leaf: leaf + 3.0 if leaf.shape == (4,) else leaf
    moved = learner.replace(params=jax.tree.map(shift, learner.params))
    values = [energies.value(e, e.params, x) for e in (learner, moved)]
    np.testing.assert_allclose(values[1], values[0] - 3, rtol=1e-4)
    scores = [energies.score(e, x) for e in (learner, moved)]
    np.testing.assert_allclose(scores[1], scores[0], atol=1e-5)

  def test_says_what_its_classifier_takes(self):
    both = self.learner(classifiers.AllConvolutional((((2, 3),),), 2))
    self.assertTrue(learners.mixes(both) and learners.drops(both))
    neither = self.learner(classifiers.ResNet(8, 2, 2, 1))
    self.assertFalse(learners.mixes(neither) or learners.drops(neither))

  def test_another_network_is_refused(self):
    with self.assertRaisesRegex(
      ValueError, r'classifier returns \(3,\); wanted: features \[n, f\] and'
    ):
      self.learner(energies.ConvNet((2,), (3,), (2,)))


class JointLabelTest(parameterized.TestCase):
  def test_energy_and_its_slope_by_hand(self):
    energy, x = models.energy('joint', 'none'), models.images(seed=1)

    @jax.jit
    def results(params, x):
      run = lambda method, x: energy.apply_fn(params, x, method=method)
      # The likeliest label has a cross entropy of at most log 3, which is below
      # the margin 1.1, and the least likely one of at least that.
      logits = run('logits', x)
      y = jnp.where(
        jnp.arange(8) < 4, jnp.argmax(logits, 1), jnp.argmin(logits, 1)
      )
      error = lambda x: jnp.sum(run('reconstruction_error', x))
      both = lambda params, x: energy.apply_fn(params, x, y)
      of_params, of_x = jax.jacrev(both, (0, 1))(params, x)
      of_x = jnp.sum(of_x, 1)  # no example's energy is of another
      return (
        both(params, x),
        y,
        logits,
        run('reconstruction_error', x),
        of_x - jax.grad(error)(x),
        of_params['params']['classifier']['kernel'],
      )

    value, y, logits, error, slope, of_classifier = map(
      np.asarray, results(energy.params, x)
    )
    self.assertEqual(logits.shape, (8, 3))
    logits = logits.astype(np.float64)
    cross_entropy = np.log(np.sum(np.exp(logits), 1)) - logits[range(8), y]
    below = cross_entropy < 1.1
    np.testing.assert_array_equal(below, np.arange(8) < 4)
    np.testing.assert_allclose(
      value, error + np.where(below, 1.1, cross_entropy), rtol=1e-5
    )
    for of_label in (slope, of_classifier):
      largest = np.max(np.abs(of_label.reshape(8, -1)), 1)
      np.testing.assert_array_less(largest[below], 1e-5)
      np.testing.assert_array_less(1e-3, largest[~below])
    np.testing.assert_array_equal(of_classifier[below], 0)

  def test_methods_are_those_of_the_autoencoder(self):
    joint, x = models.energy('joint'), models.images(seed=1)
    inner = {'params': joint.params['params']['autoencoder']}
    module = energies.Autoencoder(models.CONVS)
    names = ('features', 'reconstruct', 'reconstruction_error')

    def values(apply, params, names):
      return [apply(params, x, method=name) for name in names]

    values = jax.jit(values, static_argnums=(0, 2))
    *actual, logits = values(joint.apply_fn, joint.params, (*names, 'logits'))
    expected = values(module.apply, inner, names)
    for value, of_inner in zip(actual, expected, strict=True):
      np.testing.assert_allclose(value, of_inner, atol=1e-6)
    kernel = joint.params['params']['classifier']['kernel']
    np.testing.assert_allclose(
      logits, expected[0] @ kernel, rtol=1e-4, atol=1e-4
    )

  def test_dropout_of_features(self):
    module = energies.JointLabel(
      energies.Autoencoder(models.CONVS, norm='none', dropout=0.0),
      3,
      dropout=0.5,
    )
    plain, x = models.energy('joint', 'none'), models.images(2, seed=1)
    energy = plain.replace(apply_fn=module.apply)
    run = lambda rng: learners.call(
      energy, energy.params, x, rng=rng, method='logits'
    )
    keys = jax.random.split(jax.random.key(1), 3000)
    logits = np.asarray(jax.jit(jax.vmap(run))(keys), np.float64)
    # Logits are linear in the features: dropout leaves their mean.
    error = np.std(logits, 0) / np.sqrt(len(keys))
    self.assertGreater(np.min(error), 1e-3)
    np.testing.assert_array_less(
      np.abs(np.mean(logits, 0) - jax.jit(run)(None)), 4 * error
    )

  @parameterized.parameters(
    (dict(num_classes=-1), 'num_classes=-1'),
    (dict(margin=-1.0), 'margin=-1.0'),
    (dict(dropout=-0.5), 'dropout=-0.5'),
    (dict(dropout=1.0), 'dropout=1.0'),
  )
  def test_bad_arguments(self, kwargs, message):
    with self.assertRaisesRegex(ValueError, message):
      energies.JointLabel(energies.Autoencoder(models.CONVS), **kwargs)

  def test_a_label_needs_classes(self):
    module = energies.JointLabel(energies.Autoencoder(models.CONVS))
    with self.assertRaisesRegex(
      ValueError, 'num_classes=0, but label is given'
    ):
      _shapes(module, models.images(), models.labels())


class DiscriminatorTest(parameterized.TestCase):
  @parameterized.parameters(('batch', 3), ('layer', 0), ('none', 3))
  def test_is_the_literal_network(self, norm, num_classes):
    energy = models.energy('discriminator', norm, num_classes)
    x, y = models.images(4, seed=1), models.labels(4)
    label = (y,) if num_classes else ()
    actual = models.call(energy, x, *label)
    one_hot = np.eye(3)[y] if num_classes else np.zeros((4, 0))
    norms, of = _norms(energy), energy.params['params']
    for i in (0, 1):
      maps = np.broadcast_to(
        one_hot[:, None, None], (*x.shape[:3], one_hot.shape[-1])
      )
      x = jnp.concatenate([x, jnp.asarray(maps, x.dtype)], -1)
      x = layers.conv(x, of[f'kernel_{i}'], stride=2, padding=2)
      x = (
        _normed(np.asarray(x), norm, next(norms, None)) if i else np.asarray(x)
      )
      x = np.where(x > 0, x, 0.2 * x)
    x = np.concatenate([x.reshape(4, -1), one_hot], 1)
    # The energy is minus the logit that x is real.
    np.testing.assert_allclose(
      actual, -(x @ of['Dense_0']['kernel'])[:, 0], rtol=1e-4, atol=1e-4
    )

  def test_network_of_the_paper(self):
    module = energies.Discriminator((128, 256, 512, 1024))
    params, norms = _shapes(module, jnp.zeros((2, 64, 64, 3)))
    weights, others = _weights(params)
    kernels = 25 * (3 * 128 + 128 * 256 + 256 * 512 + 512 * 1024)
    self.assertEqual(weights, kernels + 4 * 4 * 1024)
    self.assertAlmostEqual(weights / 1e6, 17.2, delta=0.05)
    self.assertEqual(others, 2 * (256 + 512 + 1024))
    self.assertEqual(norms['BatchNorm_2']['__call__'][0], (2, 4, 4, 1024))

  def test_bad_arguments(self):
    with self.assertRaisesRegex(ValueError, "norm='group'"):
      energies.Discriminator(norm='group')
    with self.assertRaisesRegex(ValueError, 'num_classes=-1'):
      energies.Discriminator(num_classes=-1)
    for classes, label, message in ((3, (), 'missing'), (0, (0,), 'given')):
      module = energies.Discriminator((2,), classes)
      with self.assertRaisesRegex(
        ValueError, f'num_classes={classes}, but label is {message}'
      ):
        _shapes(module, models.images(), *[models.labels() for _ in label])


if __name__ == '__main__':
  absltest.main()
