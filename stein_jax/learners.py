"""Learners: a network's variables with their optimizer, and the gradient step.

Examples:
  >>> data = jnp.ones((10, 2))
  >>> learner = create(jax.random.key(0), nn.Dense(1), optax.sgd(0.1), data)
  >>> loss = lambda params: (jnp.mean(call(learner, params, data) ** 2), {})
  >>> learner, _ = jax.jit(lambda learner: descend(learner, loss))(learner)
  >>> int(learner.step)
  1
"""

from collections.abc import Callable, Mapping
import dataclasses
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
from stein_jax.types import Array, Params, PRNGKey, Tree


class Learner(train_state.TrainState):
  """A flax TrainState that holds its network; `params` is the whole variables dict.

  Attributes:
    module: the network: a Linen module or a `Function`; None if `apply_fn` is all
      that is known.
    input_shape: shape of one example of the network's first input, or of a generator's
      sample; () if unknown.
    batch_size: rows of the batches that it trains on; 0 if unknown.
    num_classes: classes of the labels that it is given; 0 if it is given none.
    prior: name of the distribution of a generator's latent vectors; '' for others.
  """

  module: Any = struct.field(pytree_node=False, default=None)
  input_shape: tuple[int, ...] = struct.field(pytree_node=False, default=())
  batch_size: int = struct.field(pytree_node=False, default=0)
  num_classes: int = struct.field(pytree_node=False, default=0)
  prior: str = struct.field(pytree_node=False, default='')


@dataclasses.dataclass(frozen=True)
class Function:
  """A plain function in the place of a module.

  Attributes:
    apply: the function, called as `apply(params, *inputs, **context)`.
    keywords: names of the keyword arguments that it takes; see `keywords`.
  """

  apply: Callable[..., Any]
  keywords: tuple[str, ...] = ()


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
    optimizer: a config section that names an optax function, or its result. It moves
      the collection 'params' alone; other collections stay constant.
    *inputs: what the module is called with. Arrays are traced; other inputs, such as
      a number of samples, are constants.
    **context: the module's keyword-only arguments.

  Raises:
    ValueError: the module needs something that `call` cannot give it, or keeps
      statistics that nothing updates.
  """
  params, called = _initialize(rng, module, inputs, context)
  _check_network(module, called, params)
  if not isinstance(optimizer, optax.GradientTransformation):
    optimizer = build_optimizer(optimizer)
  if set(params) != {'params'}:  # constants have gradients too
    labels = {name: 'train' if name == 'params' else 'keep' for name in params}
    optimizer = optax.partition(
      {'train': optimizer, 'keep': optax.set_to_zero()}, labels
    )
  # A classifier has classes too, but its one input is the image.
  is_given_labels = len(inputs) > 1
  return _learner(
    module,
    params,
    optimizer,
    inputs,
    num_classes=getattr(module, 'num_classes', 0) if is_given_labels else 0,
    prior=getattr(module, 'prior', ''),
  )


def wrap(
  function: Callable[..., Any],
  params: Tree,
  optimizer: optax.GradientTransformation,
  *inputs: Any,
  keywords: tuple[str, ...] = (),
) -> Learner:
  """Returns a learner of a plain function of parameters and inputs.

  Args:
    function: called as `function(params, *inputs)`.
    params: the initial parameters.
    optimizer: an optax transformation.
    *inputs: arrays, or their shapes as `jax.ShapeDtypeStruct`, like those that the
      function will be given.
    keywords: see `Function`.
  """
  return _learner(Function(function, keywords), params, optimizer, inputs)


def _learner(module, params, optimizer, inputs, **fields):
  shape = inputs[0].shape if inputs and _is_array(inputs[0]) else ()
  learner = Learner.create(
    apply_fn=module.apply,
    params=params,
    tx=optimizer,
    module=module,
    input_shape=tuple(shape[1:]),
    batch_size=shape[0] if shape else 0,
    **fields,
  )
  # TrainState begins with a Python int, which would compile the step twice.
  return learner.replace(step=jnp.zeros((), jnp.int32))


def _initialize(rng, module, inputs, context):
  """Returns the module's variables, and the modules that it called to make them."""
  called = []

  def record(function, args, kwargs, call):
    if call.method_name == '__call__':
      called.append(call.module)
    return function(*args, **kwargs)

  @jax.jit
  def init(rng, arrays, context):
    arrays = iter(arrays)
    values = [next(arrays) if _is_array(v) else v for v in inputs]
    with nn.intercept_methods(record):
      return module.init(rng, *values, **context)

  return init(rng, list(filter(_is_array, inputs)), context), called


def _is_array(value):
  return hasattr(value, 'shape')


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

  A network takes the keyword `axis_name` if it mixes examples and the keyword `rng` if
  it is random (dropout, which is off without a key). Others are not given them.

  Args:
    learner: the learner, or any TrainState.
    params: parameters of the network.
    *inputs: positional arguments.
    method: name of a method; None for the network itself.
    axis_name: the mapped axis over which the batch is split.
    rng: key of the network's dropout.
    **context: further keyword arguments.

  Raises:
    ValueError: the network draws random numbers from elsewhere, or changes variables
      that it keeps.
  """
  offered = {'axis_name': axis_name, 'rng': rng}
  taken = keywords(learner, method)
  context |= {name: offered[name] for name in _OFFERED if name in taken}
  if method is not None:
    context['method'] = method
  try:
    return learner.apply_fn(params, *inputs, **context)
  except (errors.InvalidRngError, errors.ModifyScopeVariableError) as error:
    raise ValueError(
      'A network draws from a key that it takes as the keyword rng, as '
      f'nn.Dropout(rate)(x, rng=rng) does, and changes nothing it keeps: {error}'
    ) from error


def keywords(
  learner: train_state.TrainState, method: str | None = None
) -> tuple[str, ...]:
  """Returns the names of the keyword arguments that the network takes.

  These are its keyword-only arguments and, of `axis_name` and `rng`, those that have
  a default. A network whose property `mixes` is False does not mix examples the way
  it is built, and is given no axis.

  Args:
    learner: the learner. A TrainState without a module takes none.
    method: name of a method, which must take them too.
  """
  module = getattr(learner, 'module', None)
  if module is None:
    return ()
  if isinstance(module, Function):
    return module.keywords
  return _module_keywords(module, method)


def mixes(learner: train_state.TrainState) -> bool:
  """Returns whether the network's value at an example depends on its batch."""
  return 'axis_name' in keywords(learner)


def dropout_key(
  learner: train_state.TrainState,
  rng: PRNGKey | None,
  *,
  axis_name: str | None = None,
) -> PRNGKey | None:
  """Returns the key of all of a step's dropout; None where the network takes none.

  All calls of the network in one step drop the same units, so that its score, its
  chain and its loss are of one function. The key differs from all keys that the step
  splits off its own.
  """
  if rng is None or 'rng' not in keywords(learner):
    return None
  rng = jax.random.fold_in(rng, _DROPOUT)
  return collectives.fold_in_index(rng, axis_name)


_DROPOUT = 2**32 - 1  # no split has as many keys
_OFFERED = ('axis_name', 'rng')


def _module_keywords(module, method=None):
  """Returns the keywords of a Linen module; see `keywords`."""
  names = _function_keywords(type(module).__call__)
  if not getattr(module, 'mixes', True):
    names = tuple(name for name in names if name != 'axis_name')
  function = getattr(type(module), method or '__call__', None)
  if function is None or _forwards_keywords(function):
    return names
  return tuple(name for name in names if name in _function_keywords(function))


def _function_keywords(function):
  optional = lambda p: p.name in _OFFERED and p.default is not p.empty
  return tuple(
    p.name
    for p in inspect.signature(function).parameters.values()
    if p.kind is p.KEYWORD_ONLY or optional(p)
  )


def _forwards_keywords(function):
  parameters = inspect.signature(function).parameters.values()
  return any(p.kind is p.VAR_KEYWORD for p in parameters)


def _check_network(module, called, params):
  """Refuses a network whose needs its own signature does not show.

  Args:
    module: the network.
    called: the modules that it called when it was initialised.
    params: its variables.
  """
  name = type(module).__name__
  if 'batch_stats' in params:
    raise ValueError(
      f'{name} keeps running statistics (batch_stats), which nothing here updates; '
      'allowed: layers.BatchNorm, nn.LayerNorm, nn.GroupNorm.'
    )
  needs = {'axis_name' for each in called if isinstance(each, layers.BatchNorm)}
  if _forwards_keywords(type(module).__call__):
    needs.update(*map(_module_keywords, called))
  lacks = needs.intersection(_OFFERED) - set(_module_keywords(module))
  if lacks:
    raise ValueError(
      f'{name} has layers that take {" and ".join(sorted(lacks))}, and would not be '
      'given it: it must be a keyword of its own __call__, and `mixes` not say '
      'otherwise.'
    )


def build_optimizer(section: Mapping[str, Any]) -> optax.GradientTransformation:
  """Returns the optax optimizer of a config section.

  The section may hold two more numbers: l2 times the parameters is added to the
  gradient, and a gradient whose norm exceeds max_norm is then scaled down to it.

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


# Weights of the past in running means of gradients.
_SHARES = ('b1', 'b2', 'rho', 'decay', 'momentum')


def _check_rate(rate):
  """Refuses a learning rate, or a number of a schedule, that is out of range."""
  if callable(rate):  # an optax schedule, which cannot be looked into
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

  Args:
    learner: the learner, or any TrainState.
    loss_fn: parameters to the loss [] and its metrics. What it returns beside them,
      such as its samples, is returned after the metrics.
    rate: factor on the optimizer's update, as a learning rate would be.
    axis_name: the mapped axis over which the batch is split. The loss is averaged
      over it; a loss that is not a mean over the batch must average its own batch
      terms by `collectives.pmean`.
  """

  # The mean inside keeps shard_map's autodiff from summing over devices. The mean
  # of the gradients is what pmap and vmap need, and changes nothing in shard_map.
  def mean_loss(params):
    loss, metrics, *beside = loss_fn(params)
    loss, metrics = collectives.pmean((loss, metrics), axis_name)
    return loss, (metrics, *beside)

  grads, kept = jax.grad(mean_loss, has_aux=True)(learner.params)
  grads = collectives.pmean(grads, axis_name)
  with jax.numpy_dtype_promotion('standard'):  # Adam's count is an integer
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
