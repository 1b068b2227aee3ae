"""Tests of learners: gradients by hand, alone and over four devices."""

from absl.testing import absltest
from absl.testing import parameterized
from flax import linen as nn
from flax import nnx
from flax.nnx import bridge
from flax.training import train_state
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
import numpy as np
import optax

from stein_jax import classifiers
from stein_jax import energies
from stein_jax import generators
from stein_jax import layers
from stein_jax import learners

_DEVICES = 4
_AXIS = 'batch'


class _Keyless(nnx.Module):
  """A class of NNX that takes no keys."""

  def __init__(self):
    self.size = nnx.Param(jnp.ones(()))

  def __call__(self, x):
    return self.size * x


class _Streaming(nnx.Module):
  """A class of NNX whose dropout wants a stream of its own."""

  def __init__(self, *, rngs):
    self.dropout = nnx.Dropout(0.5, rngs=rngs)

  def __call__(self, x):
    return self.dropout(x)


class _Shifted(nn.Module):
  """x @ kernel + constant, of which only the kernel is a parameter."""

  @nn.compact
  def __call__(self, x):
    kernel = self.param('kernel', nn.initializers.zeros, (x.shape[1], 2))
    constant = self.variable('constants', 'shift', lambda: jnp.ones((1, 2)))
    return x @ kernel + constant.value


class _Mixing(nn.Module):
  """Takes an axis, which it needs only if it mixes, and two more keywords."""

  mixes: bool = True

  @nn.compact
  def __call__(self, x, shift=0, *, axis_name=None, rng=None, label=None):
    self.param('size', nn.initializers.ones, (x.shape[1] + shift,))
    return x

  def twice(self, x, *, axis_name=None, rng=None):
    return 2 * x

  def alone(self, rng, x):
    return rng, x

  def forwarded(self, **context):
    return context


class _Random(nn.Module):
  """Takes a key alone."""

  @nn.compact
  def __call__(self, x, *, rng=None):
    return x + self.param('shift', nn.initializers.ones, ())


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

  def test_a_schedule_may_have_flags(self):
    rate = dict(name='exponential_decay', init_value=1.0, staircase=True)
    rate.update(transition_steps=2, decay_rate=0.5)
    learner = _learner(dict(name='sgd', learning_rate=rate))
    for _ in range(4):
      learner, _ = learners.descend(learner, _slope)
    # Rates 1, 1, 1/2, 1/2.
    np.testing.assert_allclose(learner.params['params']['bias'], -3.0)

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

  def test_holds_its_network(self):
    module = generators.MLP(prior='uniform')
    learner = generators.create(
      jax.random.key(0), module, optax.sgd(1.0), num=4
    )
    self.assertIs(learner.module, module)
    rng, params = jax.random.key(1), learner.params
    np.testing.assert_array_equal(
      learner.apply_fn(params, rng, 4), module.apply(params, rng, 4)
    )
    self.assertEqual((learner.prior, learner.num_classes), ('uniform', 0))
    self.assertEqual((learner.input_shape, learner.batch_size), ((2,), 4))

  def test_classes_are_those_of_labels_that_it_is_given(self):
    x, y = jnp.zeros((5, 4, 4, 1)), jnp.arange(5) % 3
    for module, inputs, num_classes in (
      (energies.Discriminator((2,), num_classes=3), (x, y), 3),
      (energies.Discriminator((2,)), (x,), 0),
      (classifiers.CNN(num_classes=3, widths=(2,), dense=2), (x,), 0),
    ):
      learner = learners.create(
        jax.random.key(0), module, optax.sgd(1.0), *inputs
      )
      self.assertEqual((learner.num_classes, learner.prior), (num_classes, ''))

  def test_states_compare_by_their_networks(self):
    # A compiled step is for one network: another of equal size must not pass as it.
    one, other = (
      _learner(optax.identity()).replace(tx=None, apply_fn=None, module=module)
      for module in (nn.Dense(2), nn.Dense(2, use_bias=False))
    )
    same = one.replace(module=nn.Dense(2))
    self.assertEqual(jax.tree.structure(one), jax.tree.structure(same))
    self.assertNotEqual(jax.tree.structure(one), jax.tree.structure(other))

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

  def test_inputs_and_context(self):
    # The number is a constant, by which an array may be shaped.
    learner = learners.create(
      jax.random.key(0),
      _Mixing(),
      optax.sgd(1.0),
      jnp.zeros((5, 3)),
      4,
      label=jnp.zeros(5),
    )
    self.assertEqual(learner.params['params']['size'].shape, (7,))
    self.assertEqual((learner.input_shape, learner.batch_size), ((3,), 5))
    self.assertEqual(learners.keywords(learner), ('axis_name', 'rng', 'label'))

  @parameterized.parameters(0.0, 0.1)
  def test_l2_joins_the_gradient(self, l2):
    x, y = _data()
    section = dict(name='sgd', learning_rate=0.5, l2=l2)
    learner = learners.create(jax.random.key(0), _Shifted(), section, x)
    kernel = np.arange(6.0).reshape(3, 2) - 2
    params = {**learner.params, 'params': {'kernel': jnp.float32(kernel)}}
    moved, _ = jax.jit(_step)(learner.replace(params=params), x, y)
    gradient = x.T @ (x @ kernel + 1 - y) / len(x) + l2 * kernel
    np.testing.assert_allclose(
      moved.params['params']['kernel'], kernel - 0.5 * gradient, atol=1e-5
    )
    np.testing.assert_array_equal(moved.params['constants']['shift'], 1)
    self.assertEqual(section['l2'], l2)

  def test_l2_comes_before_adam(self):
    # A gradient of 1 and l2 of 3 at -1: -2, whose sign is Adam's first step.
    section = dict(name='adam', learning_rate=0.25, l2=3.0)
    learner = _learner(section)
    params = jax.tree.map(lambda leaf: leaf - 1, learner.params)
    moved, _ = learners.descend(learner.replace(params=params), _slope)
    np.testing.assert_allclose(moved.params['params']['bias'], -0.75, rtol=1e-5)

  @parameterized.parameters(0.0, 0.5, 100.0)
  def test_the_whole_gradient_is_cut_to_max_norm(self, max_norm):
    x, y = _data()
    section = dict(name='sgd', learning_rate=0.5, l2=0.7, max_norm=max_norm)
    learner = _learner(section)
    start = {
      'kernel': np.arange(6.0).reshape(3, 2) - 2,
      'bias': np.array([1.0, -3.0]),
    }
    params = {'params': jax.tree.map(jnp.float32, start)}
    moved, _ = jax.jit(_step)(learner.replace(params=params), x, y)
    rest = (np.asarray(x) @ start['kernel'] + start['bias'] - y) / len(x)
    gradient = {'kernel': x.T @ rest, 'bias': np.sum(rest, 0)}
    # The penalty is added first. Then the norm is that of both leaves together.
    gradient = {k: np.asarray(g) + 0.7 * start[k] for k, g in gradient.items()}
    norm = sum(np.sum(g**2) for g in gradient.values()) ** 0.5
    self.assertBetween(norm, 1, 50)
    cut = 0.5 / norm if max_norm == 0.5 else 1
    for name, value in gradient.items():
      np.testing.assert_allclose(
        moved.params['params'][name],
        start[name] - 0.5 * cut * value,
        rtol=1e-5,
        atol=1e-5,
      )
    self.assertEqual(section['max_norm'], max_norm)

  @parameterized.parameters('l2', 'max_norm')
  def test_negative(self, name):
    with self.assertRaisesRegex(ValueError, f'{name}=-0.1'):
      _learner({'name': 'sgd', 'learning_rate': 0.1, name: -0.1})


class _Wrapped(nn.Module):
  """Forwards all keywords, so that its signature does not show what it takes."""

  inner: nn.Module

  def __call__(self, x, **kwargs):
    return self.inner(x, **kwargs)


class _Unsaid(nn.Module):
  """Mixes its batch and does not say so, or says otherwise."""

  @nn.compact
  def __call__(self, x):
    return jnp.sum(layers.BatchNorm()(x), 1)


class _Denied(nn.Module):
  mixes = False

  @nn.compact
  def __call__(self, x, *, axis_name=None):
    return jnp.sum(layers.BatchNorm()(x, axis_name=axis_name), 1)


class _Running(nn.Module):
  """Keeps running statistics."""

  average: bool

  @nn.compact
  def __call__(self, x):
    return nn.BatchNorm(use_running_average=self.average)(x)


class _OwnRandom(nn.Module):
  """Draws from a stream of keys that nobody fills."""

  @nn.compact
  def __call__(self, x):
    return nn.Dropout(0.5)(nn.Dense(1)(x), deterministic=False)


class _Counting(nn.Module):
  """Changes what it keeps."""

  @nn.compact
  def __call__(self, x):
    count = self.variable('counts', 'calls', lambda: jnp.zeros(()))
    count.value += 1
    return nn.Dense(1)(x)


class _Positional(nn.Module):
  """Takes an axis and a key by place or by name."""

  @nn.compact
  def __call__(self, x, axis_name=None, rng=None):
    return layers.BatchNorm()(x, axis_name=axis_name)


class NetworkTest(parameterized.TestCase):
  """A network that would silently miss its axis or its key is refused."""

  def create(self, module):
    return learners.create(
      jax.random.key(0), module, optax.sgd(1.0), _data()[0]
    )

  @parameterized.named_parameters(
    ('unsaid', _Unsaid(), '_Unsaid has layers that take axis_name'),
    ('denied', _Denied(), '_Denied has layers that take axis_name'),
    ('wrapped', _Wrapped(_Random()), '_Wrapped has layers that take rng'),
    ('wrapped_norm', _Wrapped(_Positional()), 'take axis_name and rng'),
    (
      'in_a_row',
      nn.Sequential([nn.Dense(2), layers.BatchNorm()]),
      'Sequential has layers that take axis_name',
    ),
    ('running', _Running(False), '_Running keeps running statistics'),
    ('averages', _Running(True), '_Running keeps running statistics'),
  )
  def test_refused_when_created(self, module, message):
    with self.assertRaisesRegex(ValueError, message):
      self.create(module)

  @parameterized.named_parameters(
    ('random', _OwnRandom()), ('counting', _Counting())
  )
  def test_refused_when_called(self, module):
    learner = self.create(module)
    with self.assertRaisesRegex(
      ValueError, 'takes as the keyword rng.*keeps: '
    ):
      jax.eval_shape(
        lambda x: learners.call(learner, learner.params, x), _data()[0]
      )

  def test_what_works_is_taken(self):
    self.assertEqual(
      learners.keywords(self.create(_Positional())), ('axis_name', 'rng')
    )
    plain = nn.Sequential([nn.Dense(3), nn.LayerNorm()])
    self.assertEqual(learners.keywords(self.create(plain)), ())

  def test_the_key_of_dropout(self):
    rng = jax.random.key(1)
    self.assertIsNone(learners.dropout_key(self.create(nn.Dense(2)), rng))
    learner = self.create(_Random())
    self.assertIsNone(learners.dropout_key(learner, None))
    key = learners.dropout_key(learner, rng)
    others = [rng, *jax.random.split(rng, 100), jax.random.fold_in(rng, 0)]
    data = jax.random.key_data(jnp.stack([key, *others]))
    self.assertLen(
      np.unique(data[1:], axis=0), 101
    )  # the last is the first split
    self.assertFalse(np.any(np.all(data[1:] == data[:1], 1)))
    own = jax.vmap(
      lambda _: learners.dropout_key(learner, rng, axis_name=_AXIS),
      axis_name=_AXIS,
    )(jnp.arange(4))
    self.assertLen(np.unique(jax.random.key_data(own), axis=0), 4)


class CallTest(parameterized.TestCase):
  @parameterized.named_parameters(
    ('mixing', _Mixing(), {'axis_name', 'rng'}),
    ('not_as_built', _Mixing(mixes=False), {'rng'}),
    ('random', _Random(), {'rng'}),
    ('plain', nn.Dense(2), set()),
  )
  def test_passes_what_is_taken(self, module, taken):
    learner = learners.create(
      jax.random.key(0), module, optax.sgd(1.0), _data()[0]
    )
    rng = jax.random.key(1)
    offered = {'axis_name': _AXIS, 'rng': rng}
    recorded = self.recording(learner)
    for context in ({}, {'method': 'twice', 'label': 3}):
      args, kwargs = learners.call(
        recorded, 'params', 'x', 'y', **offered, **context
      )
      self.assertEqual(args, ('params', 'x', 'y'))
      expected = {name: offered[name] for name in taken}
      self.assertEqual(kwargs, {**expected, **context})
    # An axis or a key that is not given is passed as None.
    _, kwargs = learners.call(recorded, 'params')
    self.assertEqual(kwargs, dict.fromkeys(taken))

  def test_calls_the_network_or_its_method(self):
    x = _data()[0]
    learner = learners.create(jax.random.key(0), _Mixing(), optax.sgd(1.0), x)
    run = lambda **kwargs: learners.call(learner, learner.params, x, **kwargs)
    np.testing.assert_array_equal(run(axis_name=_AXIS), x)
    np.testing.assert_array_equal(run(method='twice', rng=None), 2 * x)

  def test_a_plain_train_state(self):
    x, _ = _data()
    module = _Random()
    state = train_state.TrainState.create(
      apply_fn=module.apply,
      params=module.init(jax.random.key(0), x),
      tx=optax.sgd(1.0),
    )
    given = dict(axis_name=_AXIS, rng=jax.random.key(1))
    np.testing.assert_array_equal(
      learners.call(state, state.params, x, **given), x + 1
    )
    _, kwargs = learners.call(self.recording(state), state.params, x, **given)
    self.assertEqual(kwargs, {})
    moved, _ = learners.descend(
      state, lambda params: (params['params']['shift'], {}), rate=3.0
    )
    self.assertEqual(moved.params['params']['shift'], -2)
    self.assertEqual(moved.step, 1)

  def test_a_method_is_given_what_its_own_signature_has(self):
    x = _data()[0]
    rng = jax.random.key(1)
    for mixes in (True, False):
      learner = learners.create(
        jax.random.key(0), _Mixing(mixes), optax.sgd(1.0), x
      )
      run = lambda *args, learner=learner, **kwargs: learners.call(
        learner, learner.params, *args, axis_name=_AXIS, **kwargs
      )
      key, rows = run(rng, x, method='alone')
      self.assertIs(key, rng)
      self.assertIs(rows, x)
      self.assertEqual(
        run(method='forwarded', more=1, rng=rng),
        {'rng': rng, 'more': 1} | ({'axis_name': _AXIS} if mixes else {}),
      )

  def test_a_plain_function(self):
    x, y = _data()
    alone = lambda params, x: ((x @ params['kernel'] - y) ** 2, 'unset')
    mixing = lambda params, x, axis_name=None: (alone(params, x)[0], axis_name)
    for function, name in ((alone, 'unset'), (mixing, _AXIS)):
      learner = learners.wrap(
        function,
        {'kernel': jnp.zeros((3, 2))},
        optax.sgd(0.5),
        jax.ShapeDtypeStruct((8, 3), float),
      )
      self.assertEqual((learner.input_shape, learner.batch_size), ((3,), 8))
      self.assertEqual(learners.mixes(learner), name == _AXIS)
      given = dict(axis_name=_AXIS, rng=jax.random.key(0))
      values, found = learners.call(learner, learner.params, x, **given)
      np.testing.assert_array_equal(values, y**2)
      self.assertEqual(found, name)
    moved, _ = learners.descend(
      learner, lambda p: (jnp.mean(learners.call(learner, p, x)[0]), {})
    )
    # The mean of 16 squares of x K - y at K = 0.
    slope = -2 * np.asarray(x).T @ np.asarray(y) / 16
    np.testing.assert_allclose(moved.params['kernel'], -0.5 * slope, rtol=1e-5)

  def recording(self, learner):
    """Returns the learner with a network that returns its arguments."""
    return learner.replace(apply_fn=lambda *args, **kwargs: (args, kwargs))


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

  @parameterized.parameters(1.0, 5.0, 0.0)
  def test_rate_multiplies_the_step(self, rate):
    x, y = _data()
    learner = _learner(optax.sgd(0.1))
    step = jax.jit(
      lambda learner, rate: learners.descend(
        learner, _loss(learner, x, y), rate=rate
      )[0]
    )
    # From zero the gradient is -X'Y / n, and minus the mean of Y.
    moved = step(learner, rate).params['params']
    np.testing.assert_allclose(
      moved['kernel'], rate * 0.1 * x.T @ y / len(x), atol=1e-6
    )
    np.testing.assert_allclose(
      moved['bias'], rate * 0.1 * np.mean(y, 0), atol=1e-6
    )

  def test_rate_is_not_seen_by_the_optimizer(self):
    # Adam forgets the size of gradients: 0.1 a step, 0.5 at five times that.
    learner = _learner(optax.adam(0.1))
    path = []
    for rate in (5.0, 0.0, 1.0):
      learner, _ = learners.descend(learner, _slope, rate=rate)
      path.append(learner.params['params']['bias'][0])
    np.testing.assert_allclose(path, [-0.5, -0.5, -0.6], rtol=1e-5)
    self.assertEqual(learner.step, 3)
    self.assertEqual(optax.tree.get(learner.opt_state, 'count'), 3)

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


class AverageTest(parameterized.TestCase):
  @parameterized.parameters(0.0, 0.9, 0.9999)
  def test_is_the_weighted_mean_of_the_parameters_after_each_step(self, decay):
    learner = learners.averaging(_learner(optax.sgd(0.1)), decay)
    step = jax.jit(lambda learner: learners.descend(learner, _slope)[0])
    path = []
    for _ in range(5):
      learner = step(learner)
      path.append(np.float64(learner.params['params']['bias'][0]))
    # Weights decay^(5 - s) of the s-th of five, over their sum.
    weights = np.power(decay, np.arange(4.0, -1, -1))
    expected = np.sum(weights * path) / np.sum(weights)
    found = learner.average['params']['bias'][0]
    np.testing.assert_allclose(found, expected, rtol=1e-5)

  def test_is_put_in_the_place_of_the_parameters(self):
    plain = _learner(optax.sgd(0.1))
    kept = learners.averaging(plain, 0.5)
    kept = learners.descend(kept, _slope)[0]
    kept = learners.descend(kept, _slope)[0]
    first, second = learners.averaged((kept, plain))
    jax.tree.map(np.testing.assert_array_equal, first.params, kept.average)
    jax.tree.map(np.testing.assert_array_equal, second.params, plain.params)
    with self.assertRaisesRegex(
      ValueError, '--config.optimizer.ema_decay=0.999'
    ):
      learners.averaged((plain,))
    with self.assertRaisesRegex(ValueError, '=0.999 or --config.b.ema_decay'):
      learners.averaged((plain,), ['a', 'b'])

  @parameterized.parameters(1.0, -0.1, float('nan'))
  def test_refuses_a_decay(self, decay):
    with self.assertRaisesRegex(ValueError, 'ema_decay='):
      learners.averaging(_learner(optax.sgd(0.1)), decay)
    section = dict(name='sgd', learning_rate=0.1, ema_decay=decay)
    with self.assertRaisesRegex(ValueError, 'ema_decay='):
      learners.build_optimizer(section)

  def test_a_section_asks_for_one(self):
    section = dict(name='sgd', learning_rate=0.1, ema_decay=0.5)
    learner = _learner(section)
    self.assertEqual(learner.ema_decay, 0.5)
    self.assertIsNone(_learner(section | {'ema_decay': 0.0}).average)


class WrapTest(parameterized.TestCase):
  """What would stay as it was, or has no gradient, is refused."""

  @parameterized.parameters(
    (lambda params, x: 2 * x, {'w': np.ones(3)}, 'does not depend'),
    (
      lambda params, x: x + jnp.sum(jnp.ones(3)) * 2,
      {'w': np.ones(3)},
      'does not depend',
    ),
    (lambda params, x: x, {}, 'no parameters'),
  )
  def test_refuses_what_learns_nothing(self, function, params, message):
    with self.assertRaisesRegex(ValueError, message):
      learners.wrap(function, params, optax.sgd(1.0), jnp.ones((2, 3)))

  @parameterized.parameters([np.ones(3, int)], [True], [3])
  def test_refuses_a_parameter_without_a_gradient(self, leaf):
    function = lambda params, x: params['w'] * x
    with self.assertRaisesRegex(TypeError, "'w'.*no gradient"):
      learners.wrap(function, {'w': leaf}, optax.sgd(1.0), jnp.ones((2, 3)))

  @parameterized.parameters(
    (nnx.Linear(3, 2, rngs=nnx.Rngs(0)), 'to_linen'),
    (lambda x: x, 'no init and apply'),
    (None, 'no init and apply'),
    (energies.MLP, r'network is the class MLP; .* a value, such as MLP\(\)'),
    (nn.Dense, r'network is the class Dense; .*Dense\(features=...\)'),
    (nnx.Linear, r'class Linear of NNX; .*to_linen\(Linear\).*learners.wrap'),
    (
      bridge.to_linen(_Keyless),
      r'_Keyless takes no rngs; .*_Keyless\(\*\*fields, rngs=nnx.Rngs\(...\)\)',
    ),
    (
      bridge.to_linen(nnx.Linear, 4, 2),
      r'Linear on \(2, 3\): dot_general requires contracting',
    ),
    (energies.JointLabel(3), r'JointLabel takes \(x, y\), and is given 1 of'),
  )
  def test_create_refuses_what_it_cannot_initialise(self, module, message):
    with self.assertRaisesRegex(TypeError, message):
      learners.create(
        jax.random.key(0), module, optax.sgd(1.0), jnp.ones((2, 3))
      )

  @parameterized.parameters(
    (0, optax.sgd(1.0), 'rng is the int 0; allowed: a key, such as'),
    (None, 0.1, 'optimizer is the float 0.1; allowed: one of optax, such as'),
    (None, optax.sgd, 'optimizer is the function sgd; allowed: one of optax'),
  )
  def test_create_refuses_what_is_no_key_or_optimizer(
    self, rng, optimizer, message
  ):
    rng = jax.random.key(0) if rng is None else rng
    module = generators.MLP(2, 3)
    for call in (
      lambda: learners.create(rng, nn.Dense(2), optimizer, jnp.ones((2, 3))),
      lambda: generators.create(rng, module, optimizer, 4),
      lambda: generators.create_pair(
        rng, energies.MLP(), optimizer, module, optimizer, jnp.ones((4, 3))
      ),
    ):
      with self.assertRaisesRegex(TypeError, message):
        call()

  @parameterized.parameters((0.1,), (None,), ({'sgd': 0.1},))
  def test_wrap_refuses_what_is_no_optimizer(self, optimizer):
    function, params = lambda params, x: x @ params, jnp.ones(3)
    with self.assertRaisesRegex(TypeError, 'optimizer is .*: one of optax'):
      learners.wrap(function, params, optimizer, jnp.ones((2, 3)))

  def test_wrap_refuses_what_is_no_function(self):
    with self.assertRaisesRegex(TypeError, 'function is the class Dense'):
      learners.wrap(nn.Dense, jnp.ones(3), optax.sgd(1.0), jnp.ones((2, 3)))

  def test_create_refuses_a_condition_that_nothing_takes(self):
    rng, adam, label = jax.random.key(0), optax.adam(0.1), jnp.zeros(4, int)
    with self.assertRaisesRegex(
      TypeError, r'RBM takes \(x\), and no condition.*JointLabel'
    ):
      learners.create(rng, energies.RBM(2), adam, jnp.ones((4, 3)), label)
    with self.assertRaisesRegex(
      TypeError, r'MLP takes \(rng, num, condition\), and no.*DCGAN'
    ):
      generators.create(rng, generators.MLP(2, 3), adam, 4, label)

  def test_a_stream_of_nnx_that_is_missing_is_told_as_others_are(self):
    with self.assertRaisesRegex(
      ValueError, "keyword rng.*keeps: No RngStream named 'dropout'"
    ):
      learners.create(
        jax.random.key(0),
        bridge.to_linen(_Streaming),
        optax.sgd(1.0),
        jnp.ones((2, 3)),
      )

  def test_create_refuses_a_network_without_parameters(self):
    with self.assertRaisesRegex(ValueError, 'no parameters'):
      learners.create(
        jax.random.key(0), _Shiftless(), optax.sgd(1.0), jnp.ones((2, 3))
      )


class _Shiftless(nn.Module):
  def __call__(self, x):
    return 2 * x


class OptaxTest(parameterized.TestCase):
  """Optimizers of a config that take more than numbers."""

  @parameterized.parameters(
    dict(name='optax.contrib:muon', learning_rate=0.1),
    dict(name='optax.contrib:prodigy'),
    dict(name='optax.contrib:schedule_free_adamw', learning_rate=0.1),
    dict(name='polyak_sgd'),
    dict(name='lbfgs'),
  )
  def test_descends_and_gives_its_memory_away(self, **section):
    x, y = _data()
    learner = _learner(section)
    loss = lambda learner: _loss(learner, x, y)
    step = jax.jit(
      lambda learner: learners.descend(learner, loss(learner)),
      donate_argnums=0,
    )
    values = []
    for _ in range(4):
      learner, metrics = step(learner)
      values.append(float(metrics['loss']))
    self.assertLess(values[-1], values[0])

  def test_a_chain_is_its_parts_one_after_another(self):
    parts = (
      dict(name='clip', max_delta=0.5),
      dict(name='sgd', learning_rate=2.0),
    )
    optimizer = learners.build_optimizer(dict(name='chain', args=parts))
    grads = jnp.array([-3.0, 0.25])
    updates, _ = optimizer.update(grads, optimizer.init(grads), grads)
    np.testing.assert_array_equal(updates, [1.0, -0.5])

  def test_schedules_are_joined_at_their_boundaries(self):
    constant = lambda value: dict(name='constant_schedule', value=value)
    rate = dict(
      name='join_schedules',
      schedules=(constant(1.0), constant(3.0)),
      boundaries=(2,),
    )
    optimizer = learners.build_optimizer(dict(name='sgd', learning_rate=rate))
    grads = jnp.ones(())
    state, found = optimizer.init(grads), []
    for _ in range(3):
      update, state = optimizer.update(grads, state)
      found.append(float(update))
    self.assertEqual(found, [-1, -1, -3])

  def test_several_gradients_make_a_step(self):
    section = dict(
      name='MultiSteps',
      opt=dict(name='sgd', learning_rate=1.0),
      every_k_schedule=2,
    )
    optimizer = learners.build_optimizer(section)
    params = jnp.zeros(())
    state, found = optimizer.init(params), []
    for gradient in (1.0, 3.0):
      update, state = optimizer.update(jnp.array(gradient), state, params)
      found.append(float(update))
    self.assertEqual(found, [0, -2])  # the mean of 1 and 3, at the second


class _Holding(nn.Module):
  bias: np.ndarray

  @nn.compact
  def __call__(self, x):
    return x * self.param('scale', nn.initializers.ones, ()) + self.bias[None]


class SeedsTest(parameterized.TestCase):
  @parameterized.parameters(
    dict(name='adam', learning_rate=0.1),
    dict(name='sgd', learning_rate=0.1, l2=0.1, max_norm=1.0),
    dict(
      name='chain',
      args=[
        dict(name='clip', max_delta=0.5),
        dict(
          name='sgd',
          learning_rate=dict(name='constant_schedule', value=0.1),
        ),
      ],
    ),
  )
  def test_a_step_compiled_for_one_seed_serves_another(self, **section):
    traced = []

    @jax.jit
    def step(learner):
      traced.append(learner)
      loss = lambda p: (jnp.sum(learners.call(learner, p, x)), {})
      return learners.descend(learner, loss)[0]

    x = jnp.zeros((4, 6))
    # Centring is a constant, which the optimizer is told to keep.
    for module in (energies.RBM(2), energies.RBM(2, centered=True)):
      del traced[:]
      for seed in range(2):
        key = jax.random.key(seed)
        step(learners.create(key, module, section, x))
      self.assertLen(traced, 1)

  def test_a_module_that_holds_an_array_compiles_anew(self):
    x = jnp.zeros((4, 2))
    call = jax.jit(lambda learner: learners.call(learner, learner.params, x))
    for bias in (1.0, 2.0, 2.0):
      module = _Holding(np.full(2, bias))
      learner = learners.create(jax.random.key(0), module, optax.sgd(1.0), x)
      np.testing.assert_array_equal(call(learner), np.full((4, 2), bias))

  def test_other_options_compile_anew(self):
    optimizers = [
      learners.build_optimizer(dict(name='sgd', learning_rate=rate))
      for rate in (0.1, 0.2, 0.1)
    ]
    self.assertIs(optimizers[0], optimizers[2])
    self.assertIsNot(optimizers[0], optimizers[1])

  def test_an_array_in_a_section_is_taken(self):
    section = dict(name='sgd', learning_rate=jnp.array(0.5))
    optimizer = learners.build_optimizer(section)
    grads = jnp.array(2.0)
    update, _ = optimizer.update(grads, optimizer.init(grads))
    self.assertEqual(float(update), -1)


class RepeatedTest(parameterized.TestCase):
  @parameterized.parameters(
    1, 2, learners.UNROLLED, learners.UNROLLED + 1, 3 * learners.UNROLLED
  )
  def test_each_step_is_from_where_the_one_before_is(self, num):
    rngs = list(jax.random.split(jax.random.key(0), num))
    step = lambda value, rng: (
      2 * value + jax.random.uniform(rng),
      {'from': value},
    )
    expected, before = jnp.ones(()), None
    for rng in rngs:
      before, expected = expected, 2 * expected + jax.random.uniform(rng)
    value, beside = jax.jit(lambda start: learners.repeated(step, start, rngs))(
      jnp.ones(())
    )
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(beside['from'], before, rtol=1e-6)

  def test_a_thousand_steps_are_a_small_program(self):
    rngs = list(jax.random.split(jax.random.key(0), 1000))
    step = lambda value, rng: (value + jax.random.uniform(rng), None)
    sum_of = lambda start: learners.repeated(step, start, rngs)[0]
    traced = jax.make_jaxpr(sum_of)(jnp.zeros(()))
    few = lambda start: learners.repeated(step, start, rngs[:8])[0]
    unrolled = jax.make_jaxpr(few)(jnp.zeros(()))
    self.assertLess(len(traced.eqns), len(unrolled.eqns))


if __name__ == '__main__':
  absltest.main()
