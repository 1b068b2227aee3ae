"""Learners: a network's variables with their optimizer, and the gradient step."""

from collections.abc import Callable, Mapping
import inspect
import numbers
from typing import Any

from flax import errors
from flax import linen as nn
from flax import struct
from flax.training import train_state
import jax
import jax.numpy as jnp
import optax

from stein_jax import build
from stein_jax import checks
from stein_jax import collectives
from stein_jax import layers
from stein_jax.types import Array, Params, PRNGKey


class Learner(train_state.TrainState):
  """A flax TrainState whose `params` is the whole variables dict.

  Attributes:
    input_shape: of one example of the network's first input, or of a generator's
      sample; () without.
    batch_size: of the batches it trains on.
    takes: keywords of the network; see `call`.
    num_classes: of the labels that it is given beside its input; 0 for none.
  """

  input_shape: tuple[int, ...] = struct.field(pytree_node=False, default=())
  batch_size: int = struct.field(pytree_node=False, default=0)
  takes: tuple[str, ...] = struct.field(pytree_node=False, default=())
  num_classes: int = struct.field(pytree_node=False, default=0)


def create(
  rng: PRNGKey,
  module: nn.Module,
  optimizer: Mapping[str, Any] | optax.GradientTransformation,
  *inputs: Any,
  **context: Any,
) -> Learner:
  """Returns a learner of the module, initialised on its inputs and context.

  Args:
    rng: key of the initial parameters.
    module: the network.
    optimizer: a config section that names an optax function, or its result.
      Collections other than 'params' are constants to it.
    *inputs: what the module is called with; numbers that are no arrays are
      constants.
    **context: its keyword-only arguments.

  Raises:
    ValueError: the network has what `call` cannot give it, or keeps to itself.
  """
  is_array = lambda value: hasattr(value, 'shape')
  inside = []

  def noted(function, args, kwargs, call):
    if call.method_name == '__call__':
      inside.append(call.module)
    return function(*args, **kwargs)

  @jax.jit
  def start(rng, arrays, context):
    arrays = iter(arrays)
    values = [next(arrays) if is_array(v) else v for v in inputs]
    with nn.intercept_methods(noted):
      return module.init(rng, *values, **context)

  params = start(rng, list(filter(is_array, inputs)), context)
  _check_network(module, inside, params)
  if not isinstance(optimizer, optax.GradientTransformation):
    optimizer = build_optimizer(optimizer)
  if set(params) != {'params'}:
    labels = {name: 'train' if name == 'params' else 'keep' for name in params}
    optimizer = optax.partition(
      {'train': optimizer, 'keep': optax.set_to_zero()}, labels
    )
  shape = inputs[0].shape if inputs and is_array(inputs[0]) else ()
  learner = Learner.create(
    apply_fn=module.apply,
    params=params,
    tx=optimizer,
    input_shape=tuple(shape[1:]),
    batch_size=shape[0] if shape else 0,
    takes=_takes(module),
    num_classes=getattr(module, 'num_classes', 0) if len(inputs) > 1 else 0,
  )
  # An array from the start: a Python int would compile the step twice.
  return learner.replace(step=jnp.zeros((), jnp.int32))


def call(
  learner: train_state.TrainState,
  params: Params,
  *inputs: Any,
  method: str | None = None,
  axis_name: str | None = None,
  rng: PRNGKey | None = None,
  **context: Any,
) -> Any:
  """Returns the network at these parameters, or a method of it, on the inputs.

  `axis_name` and `rng` reach it if it takes them: a network takes the one exactly
  when it mixes examples (unless its property `mixes` says that, as built, it does
  not), the other when it is random (dropout, off without a key).

  Raises:
    ValueError: the network draws random numbers from elsewhere, or changes what it
      keeps.
  """
  offered = {'axis_name': axis_name, 'rng': rng}
  takes = getattr(learner, 'takes', ())
  taken = {name: value for name, value in offered.items() if name in takes}
  if method is not None:
    context['method'] = method
  try:
    return learner.apply_fn(params, *inputs, **taken, **context)
  except (errors.InvalidRngError, errors.ModifyScopeVariableError) as error:
    raise ValueError(
      'A network draws from a key that it takes as the keyword rng, as '
      f'nn.Dropout(rate)(x, rng=rng) does, and changes nothing it keeps: {error}'
    ) from error


def mixes(learner: train_state.TrainState) -> bool:
  """Returns whether the network's value at an example depends on its batch."""
  return 'axis_name' in getattr(learner, 'takes', ())


def dropout_key(
  learner: train_state.TrainState,
  rng: PRNGKey | None,
  *,
  axis_name: str | None = None,
) -> PRNGKey | None:
  """Returns the key of all of a step's dropout; None where the network takes none.

  Wherever a step calls the network it drops the same: so it is of one function. The
  key is none of those that the step splits off its own.
  """
  if rng is None or 'rng' not in getattr(learner, 'takes', ()):
    return None
  rng = jax.random.fold_in(rng, _DROPOUT)
  return collectives.fold_in_index(rng, axis_name)


_DROPOUT = 2**32 - 1  # no split has as many


def _takes(module):
  """Returns the names of what a network takes by keyword; see `call`."""
  optional = lambda p: p.name in _OFFERED and p.default is not p.empty
  return tuple(
    p.name
    for p in _parameters(module)
    if (p.kind is p.KEYWORD_ONLY or optional(p))
    and (p.name != 'axis_name' or getattr(module, 'mixes', True))
  )


_OFFERED = ('axis_name', 'rng')


def _parameters(module):
  return inspect.signature(type(module).__call__).parameters.values()


def _check_network(module, inside, params):
  """Refuses a network that needs what it does not say, or that has to be kept up.

  Args:
    module: the network.
    inside: the modules that it called when it was initialised.
    params: its variables.
  """
  if 'batch_stats' in params:
    raise ValueError(
      f'{type(module).__name__} keeps running statistics (batch_stats), which '
      'nothing here updates; allowed: layers.BatchNorm, nn.LayerNorm, nn.GroupNorm.'
    )
  needs = {'axis_name' for each in inside if isinstance(each, layers.BatchNorm)}
  if any(p.kind is p.VAR_KEYWORD for p in _parameters(module)):
    needs.update(*map(_takes, inside))
  lacks = needs.intersection(_OFFERED) - set(_takes(module))
  if lacks:
    raise ValueError(
      f'{type(module).__name__} has layers that take {" and ".join(sorted(lacks))}, '
      'and would not be given it: it must be a keyword of its own __call__, and '
      '`mixes` not say otherwise.'
    )


def build_optimizer(section: Mapping[str, Any]) -> optax.GradientTransformation:
  """Returns the optax optimizer of a config section.

  The section may hold two more: `l2`, which times the parameters joins the gradient,
  and `max_norm`, to which the whole gradient is then scaled down.

  Raises:
    ValueError: unknown name, or a number out of range.
    TypeError: an argument that the optimizer does not take.
  """
  section = dict(section)
  l2, max_norm = section.pop('l2', 0.0), section.pop('max_norm', 0.0)
  checks.non_negative(l2=l2, max_norm=max_norm)
  _check_rate(section.get('learning_rate', 1.0))
  shares = {name: section[name] for name in _SHARES if name in section}
  checks.non_negative(**shares)
  checks.at_most(1, **shares)
  optimizer = build.build(optax, **section)
  if not isinstance(optimizer, optax.GradientTransformation):
    raise ValueError(f'name={section["name"]!r} is no optimizer, as adam is.')
  before = [optax.add_decayed_weights(l2)] if l2 else []
  before += [optax.clip_by_global_norm(max_norm)] if max_norm else []
  return optax.chain(*before, optimizer) if before else optimizer


# Of the past, in running means.
_SHARES = ('b1', 'b2', 'rho', 'decay', 'momentum')


def _check_rate(rate):
  """Refuses a learning rate, or a schedule, of numbers out of range."""
  if callable(rate):  # a schedule that is built already
    return
  if not hasattr(rate, 'items'):
    checks.positive(learning_rate=rate)
    return
  for name, value in rate.items():
    if name in ('transition_steps', 'decay_steps'):
      checks.count(**{f'learning_rate.{name}': value})
    elif isinstance(value, numbers.Number) and not isinstance(value, bool):
      checks.non_negative(**{f'learning_rate.{name}': value})


def descend(
  learner: train_state.TrainState,
  loss_fn: Callable[[Params], tuple[Any, ...]],
  *,
  rate: Array | float = 1.0,
  axis_name: str | None = None,
) -> tuple[Any, ...]:
  """Returns the learner after one gradient step, and the loss's metrics.

  The loss returns its value [] and metrics; what else it returns (its samples, say)
  is returned as it is, after them.

  A loss that is a mean over the batch is averaged over the axis here; one that
  is not must average its own batch terms with `collectives.pmean`. `rate`
  multiplies the optimizer's update, as a learning rate would.
  """

  # The mean inside keeps shard_map's autodiff from summing over devices; the
  # one outside is what pmap and vmap need. Together they are right in all.
  def mean_loss(params):
    loss, metrics, *beside = loss_fn(params)
    loss, metrics = collectives.pmean((loss, metrics), axis_name)
    return loss, (metrics, *beside)

  grads, kept = jax.grad(mean_loss, has_aux=True)(learner.params)
  grads = collectives.pmean(grads, axis_name)
  with jax.numpy_dtype_promotion('standard'):  # Adam's counts are integers
    updates, opt_state = learner.tx.update(
      grads, learner.opt_state, learner.params
    )
  updates = jax.tree.map(lambda update: rate * update, updates)
  learner = learner.replace(
    step=learner.step + 1,
    params=optax.apply_updates(learner.params, updates),
    opt_state=opt_state,
  )
  return learner, *kept
