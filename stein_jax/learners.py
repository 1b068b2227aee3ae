"""Learners: a network's variables with their optimizer, and the gradient step."""

from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn
from flax import struct
from flax.training import train_state
import jax
import jax.numpy as jnp
import optax

from stein_jax import build
from stein_jax import checks
from stein_jax import collectives
from stein_jax.types import Array, Metrics, Params, PRNGKey


class Learner(train_state.TrainState):
  """A flax TrainState whose `params` is the whole variables dict.

  Attributes:
    input_shape: of one example of the network's first input; () without inputs.
  """

  input_shape: tuple[int, ...] = struct.field(pytree_node=False, default=())


def create(
  rng: PRNGKey,
  module: nn.Module,
  optimizer: Mapping[str, Any] | optax.GradientTransformation,
  *inputs: Any,
) -> Learner:
  """Returns a learner of the module, initialised on the inputs.

  Args:
    rng: key of the initial parameters.
    module: the network.
    optimizer: a config section that names an optax function, or its result.
      Collections other than 'params' are constants to it.
    *inputs: what the module is called with.
  """
  params = jax.jit(module.init)(rng, *inputs)
  if not isinstance(optimizer, optax.GradientTransformation):
    optimizer = build_optimizer(optimizer)
  if set(params) != {'params'}:
    labels = {name: 'train' if name == 'params' else 'keep' for name in params}
    optimizer = optax.partition(
      {'train': optimizer, 'keep': optax.set_to_zero()}, labels
    )
  shape = inputs[0].shape[1:] if hasattr(inputs[0], 'shape') else ()
  learner = Learner.create(
    apply_fn=module.apply,
    params=params,
    tx=optimizer,
    input_shape=tuple(shape),
  )
  # An array from the start: a Python int would compile the step twice.
  return learner.replace(step=jnp.zeros((), jnp.int32))


def build_optimizer(section: Mapping[str, Any]) -> optax.GradientTransformation:
  """Returns the optax optimizer of a config section.

  Raises:
    ValueError: unknown name, or a learning rate that is not positive.
    TypeError: an argument that the optimizer does not take.
  """
  if 'learning_rate' in section:
    checks.positive(learning_rate=section['learning_rate'])
  return build.build(optax, **section)


def descend(
  learner: train_state.TrainState,
  loss_fn: Callable[[Params], tuple[Array, Metrics]],
  *,
  axis_name: str | None = None,
) -> tuple[train_state.TrainState, Metrics]:
  """Returns the learner after one gradient step, and the loss's metrics.

  A loss that is a mean over the batch is averaged over the axis here; one that
  is not must average its own batch terms with `collectives.pmean`.
  """

  # The mean inside keeps shard_map's autodiff from summing over devices; the
  # one outside is what pmap and vmap need. Together they are right in all.
  def mean_loss(params):
    return collectives.pmean(loss_fn(params), axis_name)

  grads, metrics = jax.grad(mean_loss, has_aux=True)(learner.params)
  grads = collectives.pmean(grads, axis_name)
  return learner.apply_gradients(grads=grads), metrics
