"""Tests of classification against the cross entropy by hand."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stein_jax import datasets
from stein_jax import layers
from stein_jax import learners
from stein_jax import parallel
from stein_jax.algorithms import classification

_IMAGES = np.random.default_rng(0).normal(size=(8, 3, 4, 1))
_LABELS = np.random.default_rng(1).integers(3, size=8)


class Dense(nn.Module):
  """Logits of dense layers, the last one's inputs dropped where a key is given."""

  num_classes: int = 3
  widths: tuple[int, ...] = ()
  dropout: float = 0.0

  @nn.compact
  def __call__(self, x, *, rng=None):
    x = x.reshape(len(x), -1)
    for width in self.widths:
      x = nn.relu(nn.Dense(width)(x))
    drop = nn.Dropout(self.dropout, deterministic=rng is None)
    return x, nn.Dense(self.num_classes)(drop(x, rng=rng))


@functools.cache
def _state(dropout=0.0):
  classifier = learners.create(
    jax.random.key(0),
    Dense(dropout=dropout),
    optax.sgd(0.5),
    jnp.zeros((8, 3, 4, 1)),
  )
  return classification.State(jnp.zeros((), jnp.int32), classifier)


@functools.cache
def _compiled(**hyper):
  return jax.jit(functools.partial(classification.step, **hyper))


def _run(images=_IMAGES, rng=None, state=None, shift=0, flip=False):
  """Returns the parameters after a step, and its metrics."""
  batch = {'image': np.float32(images), 'label': np.int32(_LABELS)}
  after, metrics = _compiled(shift=shift, flip=flip)(
    _state() if state is None else state,
    batch,
    jax.random.key(0) if rng is None else rng,
  )
  return after.classifier.params['params']['Dense_0'], metrics


class StepTest(parameterized.TestCase):
  def test_by_hand(self):
    start = _state().classifier.params['params']['Dense_0']
    x, one_hot = _IMAGES.reshape(8, 12), np.eye(3)[_LABELS]
    logits = x @ np.asarray(start['kernel'], np.float64)  # biases begin at 0
    probability = np.exp(logits)
    probability /= probability.sum(1, keepdims=True)
    # The slope of -log p_y by the logits is p less the label's one-hot.
    slope = (probability - one_hot) / 8
    after, metrics = _run()
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    close(after['kernel'], start['kernel'] - 0.5 * x.T @ slope)
    close(after['bias'], -0.5 * slope.sum(0))
    close(
      metrics['classifier/loss'],
      -np.mean(np.log(probability[np.arange(8), _LABELS])),
    )
    hits = np.argmax(logits, 1) == _LABELS
    self.assertBetween(hits.sum(), 1, 7)
    close(metrics['classifier/accuracy'], hits.mean())

  def test_far_logits(self):
    # log softmax of logits some hundreds apart stays finite.
    _, metrics = _run(images=1e3 * _IMAGES)
    chex.assert_tree_all_finite(metrics)
    self.assertGreater(metrics['classifier/loss'], 100)

  def test_augmentation(self):
    # Moving does not change images of one value, nor mirroring symmetric ones.
    constant = np.broadcast_to(_IMAGES[:, :1, :1], _IMAGES.shape)
    chex.assert_trees_all_close(
      _run(constant, shift=2, flip=True), _run(constant), rtol=1e-6
    )
    symmetric = _IMAGES + _IMAGES[:, :, ::-1]
    chex.assert_trees_all_close(
      _run(symmetric, flip=True), _run(symmetric), rtol=1e-6
    )
    # But others, and by another key in another way.
    first, second = jax.random.split(jax.random.key(0))
    losses = [
      float(_run(rng=rng, **hyper)[1]['classifier/loss'])
      for hyper in (dict(shift=2, flip=True), dict(flip=True))
      for rng in (first, second)
    ]
    losses.append(float(_run()[1]['classifier/loss']))
    self.assertLen(set(losses), 5)

  def test_dropout_follows_the_key(self):
    first, second = jax.random.split(jax.random.key(0))
    run = functools.partial(_run, state=_state(dropout=0.5))
    losses = [float(run(rng=k)[1]['classifier/loss']) for k in (first, second)]
    self.assertLen({*losses, float(_run()[1]['classifier/loss'])}, 3)

  def test_augmented_images_count_as_much_in_a_batch_of_their_own(self):
    class Normed(nn.Module):
      @nn.compact
      def __call__(self, x, *, axis_name=None):
        x = layers.BatchNorm()(x.reshape(len(x), -1), axis_name=axis_name)
        return x, nn.Dense(3)(x)

    classifier = learners.create(
      jax.random.key(0), Normed(), optax.sgd(0.5), jnp.zeros((8, 3, 4, 1))
    )
    state = classification.State(jnp.zeros((), jnp.int32), classifier)
    others = np.float32(3 * _IMAGES[::-1] + 1)  # of other statistics

    def run(**arrays):
      batch = {**arrays, 'label': np.int32(_LABELS)}
      after, metrics = _compiled(shift=0)(state, batch, jax.random.key(0))
      return after.classifier.params, metrics['classifier/loss']

    images = np.float32(_IMAGES)
    alone, moved = run(image=images), run(image=others)
    # Of the mean of two losses the step is the mean of the two steps.
    chex.assert_trees_all_close(
      run(image=images, augmented=others),
      jax.tree.map(lambda a, b: (a + b) / 2, alone, moved),
      rtol=1e-5,
      atol=1e-6,
    )

  def test_updates_are_those_of_one_device(self):
    self.check_modes('shard_map')

  @pytest.mark.slow
  def test_pmap(self):
    self.check_modes('pmap')

  def check_modes(self, mode):
    batch = {'image': np.float32(_IMAGES), 'label': np.int32(_LABELS)}
    step = functools.partial(classification.step, shift=0)

    def run(mode):
      start = parallel.replicate(jax.tree.map(jnp.copy, _state()))
      compiled = parallel.compile_step(step, mode)
      after, metrics = compiled(start, batch, jax.random.key(0))
      return jax.tree.map(np.asarray, (after.classifier.params, metrics))

    chex.assert_trees_all_close(run(mode), run('jit'), rtol=1e-5, atol=1e-6)

  def test_negative_shift(self):
    with self.assertRaisesRegex(ValueError, 'shift=-1'):
      _run(shift=-1)


class LearningTest(absltest.TestCase):
  def test_digits(self):
    # On six seeds 95.8 to 96.9 % of the 360 test digits.
    train = datasets.digits('train')
    network = Dense(num_classes=10, widths=(64,), dropout=0.2)
    batches = datasets.batches(train, 100, seed=0)
    classifier = learners.create(
      jax.random.key(0), network, optax.adam(1e-2), train[:100]['image']
    )
    state = classification.State(jnp.zeros((), jnp.int32), classifier)
    step = jax.jit(functools.partial(classification.step, shift=0))
    for i in range(200):
      state, _ = step(state, next(batches), jax.random.key(i))
    test = datasets.digits('test')[:]
    _, logits = network.apply(state.classifier.params, test['image'])
    self.assertGreater(np.mean(np.argmax(logits, 1) == test['label']), 0.93)


if __name__ == '__main__':
  absltest.main()
