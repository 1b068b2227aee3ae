"""Classification: the training of networks that judge samples."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from stein_jax import build
from stein_jax import checks
from stein_jax import classifiers
from stein_jax import collectives
from stein_jax import layers
from stein_jax import learners
from stein_jax.types import Array, Batch, Metrics, PRNGKey


class State(NamedTuple):
  step: Array
  classifier: learners.Learner


def init(rng: PRNGKey, config, batch: Batch) -> State:
  """Returns the first state."""
  classifier = learners.create(
    rng,
    build.build(classifiers, **config.classifier),
    config.optimizer,
    batch['image'],
  )
  return State(jnp.zeros((), jnp.int32), classifier)


def step(
  state: State,
  batch: Batch,
  rng: PRNGKey,
  *,
  shift: int = 2,
  flip: bool = False,
  axis_name: str | None = None,
) -> tuple[State, Metrics]:
  """Returns the state after one step down the cross entropy, and its metrics.

  Args:
    state: the classifier.
    batch: 'image' [n, h, w, c] and integers 'label' [n]; a traced label that is not a
      class makes the loss nan. 'augmented', if there, has other images of the same
      labels, whose mean cross entropy counts as much [Z16 eq 11]. Norms take each of
      the two as a batch of its own.
    rng: key of the augmentation and of dropout.
    shift: largest shift of an image in pixels, either way; 0 for none.
    flip: whether each image is mirrored with probability one half.
    axis_name: the mapped axis over which the batch is split.

  Raises:
    ValueError: an argument is out of its range, the labels are not those of the
      classes, or the network does not return features and logits.
  """
  checks.count(minimum=0, shift=shift)
  rng = collectives.fold_in_index(rng, axis_name)
  # The keys are the same with augmented images and without.
  shift_rng, *dropout_rngs = jax.random.split(rng, 3)
  parts = [batch[name] for name in ('image', 'augmented') if name in batch]
  if shift or flip:
    parts = [
      classifiers.shifted(shift_rng, part, distance=shift, flip=flip)
      for part in parts
    ]

  def cross_entropy(params):
    logits = [
      _logits(
        state.classifier, params, part, rng=dropout_rng, axis_name=axis_name
      )
      for part, dropout_rng in zip(parts, dropout_rngs, strict=False)
    ]
    label = batch['label']
    hot = layers.one_hot(label, logits[0].shape[-1])
    checks.rows(len(logits[0]), label=hot)
    hot = hot.astype(logits[0].dtype)
    losses = [optax.softmax_cross_entropy(each, hot) for each in logits]
    loss = jnp.mean(jnp.stack(losses))
    # argmax answers at nan too, which would count as a hit or a miss.
    hits = jnp.argmax(logits[0], -1) == label
    accuracy = jnp.mean(
      jnp.where(jnp.isnan(losses[0]), jnp.nan, hits.astype(jnp.float32))
    )
    return loss, {'classifier/loss': loss, 'classifier/accuracy': accuracy}

  classifier, metrics = learners.descend(
    state.classifier, cross_entropy, axis_name=axis_name
  )
  return State(state.step + 1, classifier), metrics


def _logits(classifier, params, x, **context):
  """Returns the classifier's logits [n, k], or refuses another kind of network."""
  outputs = learners.call(classifier, params, x, **context)
  if not isinstance(outputs, tuple) or len(outputs) != 2:
    raise ValueError(
      f'The classifier returns {jax.tree.map(jnp.shape, outputs)}; wanted: features '
      '[n, f] and logits [n, k].'
    )
  features, logits = outputs
  checks.rows(len(x), features=features, logits=logits)
  return logits
