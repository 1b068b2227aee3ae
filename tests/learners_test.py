"""Tests of learners: gradients by hand, alone and over four devices."""

from absl.testing import absltest
from absl.testing import parameterized
from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
import numpy as np
import optax

from stein_jax import learners

_DEVICES = 4
_AXIS = 'batch'


class _Shifted(nn.Module):
  """x @ kernel + constant, of which only the kernel is a parameter."""

  @nn.compact
  def __call__(self, x):
    kernel = self.param('kernel', nn.initializers.zeros, (x.shape[1], 2))
    constant = self.variable('constants', 'shift', lambda: jnp.ones((1, 2)))
    return x @ kernel + constant.value


def _learner(optimizer, x=None):
  return learners.create(
    jax.random.key(0),
    nn.Dense(2, kernel_init=nn.initializers.zeros),
    optimizer,
    _data()[0] if x is None else x,
  )


def _data():
  rng = np.random.default_rng(0)
  x, y = rng.normal(size=(8, 3)) + 1, rng.normal(size=(8, 2)) - 1
  return jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)


def _loss(learner, x, y):
  """Returns |x @ kernel + bias - y|^2 / 2, a mean over the batch."""

  def loss_fn(params):
    loss = 0.5 * jnp.mean(jnp.sum((learner.apply_fn(params, x) - y) ** 2, 1))
    return loss, {'loss': loss}

  return loss_fn


def _slope(params):
  return jnp.sum(params['params']['bias']), {}


def _step(learner, x, y, axis_name=None):
  return learners.descend(learner, _loss(learner, x, y), axis_name=axis_name)


def _sharded(x):
  return x.reshape(_DEVICES, -1, *x.shape[1:])


def _vmap(learner, x, y):
  body = lambda x, y: _step(learner, x, y, _AXIS)
  return jax.vmap(body, axis_name=_AXIS)(_sharded(x), _sharded(y))


def _pmap(learner, x, y):
  body = lambda learner, x, y: _step(learner, x, y, _AXIS)
  return jax.pmap(body, axis_name=_AXIS, in_axes=(None, 0, 0))(
    learner, _sharded(x), _sharded(y)
  )


def _shard_map(learner, x, y):
  split, whole = PartitionSpec(_AXIS), PartitionSpec()
  body = jax.shard_map(
    lambda learner, x, y: _step(learner, x, y, _AXIS),
    mesh=Mesh(np.array(jax.devices()[:_DEVICES]), (_AXIS,)),
    in_specs=(whole, split, split),
    out_specs=(whole, whole),
  )
  return jax.jit(body)(learner, x, y)


class CreateTest(parameterized.TestCase):
  @parameterized.named_parameters(
    ('section', dict(name='sgd', learning_rate=0.5, momentum=0.9)),
    ('transform', optax.sgd(0.5, momentum=0.9)),
  )
  def test_optimizer(self, optimizer):
    learner = _learner(optimizer)
    for _ in range(2):
      learner, _ = learners.descend(learner, _slope)
    # Gradients of 1 with momentum 0.9: 0.5 (1 + 1.9).
    np.testing.assert_allclose(
      learner.params['params']['bias'], -1.45, rtol=1e-6
    )

  def test_nested_schedule(self):
    rate = dict(
      name='linear_schedule', init_value=1.0, end_value=0.0, transition_steps=2
    )
    learner = _learner(dict(name='sgd', learning_rate=rate))
    path = []
    for _ in range(4):
      learner, _ = learners.descend(learner, _slope)
      path.append(float(learner.params['params']['bias'][0]))
    self.assertEqual(path, [-1.0, -1.5, -1.5, -1.5])  # rates 1, 1/2, 0, 0

  @parameterized.parameters(
    (ValueError, 'learning_rate=0.0', dict(name='sgd', learning_rate=0.0)),
    (ValueError, "'adamm'.*adam", dict(name='adamm', learning_rate=0.1)),
    (
      TypeError,
      'takes: learning_rate',
      dict(name='sgd', learning_rate=0.1, b1=0.5),
    ),
  )
  def test_bad_optimizer(self, error, message, section):
    with self.assertRaisesRegex(error, message):
      _learner(section)

  @parameterized.parameters(((5, 3),), ((2, 4, 4, 1),))
  def test_input_shape(self, shape):
    self.assertEqual(
      _learner(optax.sgd(1.0), jnp.zeros(shape)).input_shape, shape[1:]
    )

  def test_input_shape_without_arrays(self):
    class Count(nn.Module):
      @nn.compact
      def __call__(self, num):
        return jnp.zeros(3) + self.param('bias', nn.initializers.zeros, ())

    learner = learners.create(jax.random.key(0), Count(), optax.sgd(1.0), 4)
    self.assertEqual(learner.input_shape, ())

  def test_other_collections_are_constants(self):
    x, y = _data()
    learner = learners.create(jax.random.key(0), _Shifted(), optax.adam(0.1), x)
    gradient = jax.grad(lambda p: _loss(learner, x, y)(p)[0])(learner.params)
    self.assertGreater(np.min(np.abs(gradient['constants']['shift'])), 0.1)
    moved, _ = _step(learner, x, y)
    np.testing.assert_array_equal(moved.params['constants']['shift'], 1)
    # Adam's first step is its rate, against the sign of the gradient.
    np.testing.assert_allclose(
      moved.params['params']['kernel'],
      -0.1 * np.sign(gradient['params']['kernel']),
      rtol=1e-4,
    )


class DescendTest(parameterized.TestCase):
  @parameterized.named_parameters(
    ('alone', _step),
    ('vmap', _vmap),
    ('pmap', _pmap),
    ('shard_map', _shard_map),
  )
  def test_gradient_is_that_of_the_whole_batch(self, run):
    x, y = _data()
    learner, metrics = run(_learner(optax.sgd(1.0)), x, y)
    # From zero, sgd(1.0) leaves minus the gradient: X'(0 - Y) / n, column means.
    gradient = {'kernel': -x.T @ y / len(x), 'bias': -jnp.mean(y, 0)}
    for name, expected in gradient.items():
      actual = learner.params['params'][name]
      ratio = -actual / jnp.broadcast_to(expected, actual.shape)
      np.testing.assert_allclose(ratio, 1.0, atol=1e-6)
    np.testing.assert_allclose(
      metrics['loss'], 0.5 * np.mean(np.sum(np.square(y), 1)), rtol=1e-6
    )

  def test_many_steps_compile_once(self):
    traces = []

    @jax.jit
    def step(learner, x, y):
      traces.append(None)
      return _step(learner, x, y)

    learner = _learner(optax.adam(0.1))
    self.assertIsInstance(learner.step, jax.Array)
    for _ in range(5):
      learner, _ = step(learner, *_data())
    self.assertLen(traces, 1)
    self.assertEqual(learner.step, 5)


if __name__ == '__main__':
  absltest.main()
