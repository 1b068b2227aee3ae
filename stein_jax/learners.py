"""Learners: a network's variables with their optimizer, and the gradient step.

Examples:
  >>> data = jnp.ones((10, 2))
  >>> learner = create(jax.random.key(0), nn.Dense(1), optax.sgd(0.1), data)
  >>> loss = lambda params: (jnp.mean(call(learner, params, data) ** 2), {})
  >>> learner, _ = jax.jit(lambda learner: descend(learner, loss))(learner)
  >>> int(learner.step)
  1
"""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import dataclasses
import functools
import inspect
import math
import numbers
from typing import Any

from flax import core as flax_core
from flax import errors
from flax import linen as nn
from flax import struct
from flax.training import train_state
import jax
from jax import lax
from jax.extend import core
import jax.numpy as jnp
import optax

from stein_jax import build
from stein_jax import checks
from stein_jax import collectives
from stein_jax import layers
from stein_jax.types import Array, Params, PRNGKey, Tree

# An optimizer's section may hold these beside optax's arguments.
OPTIMIZER = dict(l2=0.0, max_norm=0.0, ema_decay=0.0)


class Learner(train_state.TrainState):
  """A flax TrainState that holds its network; `params` is the whole variables dict.

  Attributes:
    average: exponential moving average of the parameters, like `params`; None if none
      is kept.
    ema_decay: weight in it of the past, for each step; 0 if none is kept.
    module: the network: a Linen module, a `Function`, or a pair of `init` and `apply`
      of another library; None if `apply_fn` is all that is known.
    input_shape: shape of one example of the network's first input, or of a generator's
      sample; () if unknown.
    batch_size: rows of the batches that it trains on; 0 if unknown.
    num_classes: classes of the labels that it is given; 0 if it is given none.
    prior: name of the distribution of a generator's latent vectors; '' for others.
  """

  average: Any = None
  ema_decay: float = struct.field(pytree_node=False, default=0.0)
  module: Any = struct.field(pytree_node=False, default=None)
  input_shape: tuple[int, ...] = struct.field(pytree_node=False, default=())
  batch_size: int = struct.field(pytree_node=False, default=0)
  num_classes: int = struct.field(pytree_node=False, default=0)
  prior: str = struct.field(pytree_node=False, default='')


@dataclasses.dataclass(frozen=True)
class Function:
  """A function of parameters in the place of a module.

  Attributes:
    apply: the function, called as `apply(params, *inputs, **context)`.
  """

  apply: Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class _Apply:
  """A module's `apply`, which equals that of an equal module, as bound methods do not.

  A step that is compiled for one state thus serves the state of another seed.
  """

  module: Any

  def __call__(self, *args, **kwargs):
    return self.module.apply(*args, **kwargs)


def _apply_of(module):
  """Returns what a learner of the module calls."""
  try:
    hash(module)
  except TypeError:
    # An array is in it, and no comparison says whether such modules are equal.
    return module.apply
  return _Apply(module)


def create(
  rng: PRNGKey,
  module: Any,
  optimizer: Mapping[str, Any] | optax.GradientTransformation,
  *inputs: Any,
  **context: Any,
) -> Learner:
  """Returns a learner of the module, initialised on its inputs and context.

  Args:
    rng: key of the initial parameters.
    module: the network: a Linen module, or anything else with `init(rng, *inputs)` to
      parameters and `apply(params, *inputs)`, as Haiku's `transform` returns it. An
      `apply` of parameters, a key called rng and inputs is given the key of dropout.
    optimizer: a config section that names an optax function, or its result. It moves
      the collection 'params' of a Linen module alone; others stay constant.
    *inputs: what the module is called with. Arrays are traced; other inputs, such as
      a number of samples, are constants.
    **context: the module's keyword-only arguments.

  Raises:
    TypeError: the module is a class, has no `init` and `apply`, does not take the
      inputs, or has parameters that have no gradients; or the key or the optimizer is
      none.
    ValueError: the module needs something that `call` cannot give it, keeps
      statistics that nothing updates, or has no parameters.
  """
  checks.key(rng=rng)
  _check_kind(module)
  _check_inputs(module, inputs, context)
  if not hasattr(optimizer, 'keys'):
    _check_optimizer(optimizer)
  params, called = _initialize(rng, module, inputs, context)
  decay = 0.0
  if hasattr(optimizer, 'keys'):  # a section of a config
    decay = optimizer.get('ema_decay', OPTIMIZER['ema_decay'])
    optimizer = build_optimizer(optimizer)
  if isinstance(module, nn.Module):
    _check_network(module, called, params)
    if set(params) != {'params'}:  # constants have gradients too
      optimizer = _keeping(optimizer, tuple(params))
  else:
    module = Function(_with_dropout_key(module.apply))
  _check_params(params)
  # A classifier has classes too, but its one input is the image.
  is_given_labels = len(inputs) > 1
  learner = _learner(
    module,
    params,
    optimizer,
    inputs,
    num_classes=attribute(module, 'num_classes', 0) if is_given_labels else 0,
    prior=attribute(module, 'prior', ''),
  )
  return averaging(learner, decay) if decay else learner


def wrap(
  function: Callable[..., Any],
  params: Tree,
  optimizer: optax.GradientTransformation,
  *inputs: Any,
  num_classes: int = 0,
) -> Learner:
  """Returns a learner of a function of parameters and inputs.

  That is how a network of any library becomes a learner. The function is given a key
  for dropout if it has a keyword `rng` with a default, and the mapped axis if it has a
  keyword `axis_name` with a default, which says that it mixes examples.

  Args:
    function: called as `function(params, *inputs)`, with keyword-only arguments by
      name.
    params: the initial parameters: a tree of floating arrays.
    optimizer: an optax transformation.
    *inputs: arrays, or their shapes as `jax.ShapeDtypeStruct`, like those that the
      function will be given; other inputs are constants.
    num_classes: number of classes of the labels that it is given.

  Raises:
    TypeError: a parameter has no gradient, since it is no floating array, or the
      optimizer is none of optax.
    ValueError: the function's result does not depend on the parameters.
  """
  checks.function('a function of parameters and inputs', function=function)
  _check_params(params)
  _check_used(function, params, inputs)
  return unchecked(
    function, params, optimizer, *inputs, num_classes=num_classes
  )


def unchecked(
  function: Callable[..., Any],
  params: Tree,
  optimizer: optax.GradientTransformation,
  *inputs: Any,
  num_classes: int = 0,
) -> Learner:
  """Returns what `wrap` does of a function that may have nothing to learn."""
  checks.function('a function of parameters and inputs', function=function)
  _check_optimizer(optimizer)
  return _learner(
    Function(function), params, optimizer, inputs, num_classes=num_classes
  )


def averaging(learner: Learner, decay: float) -> Learner:
  """Returns the learner with an exponential moving average of its parameters.

  After t steps it is the mean of the parameters after each of these, that of step s
  with a weight in proportion to decay^(t - s). So the initial parameters have none.

  Raises:
    ValueError: the decay is not in [0, 1).
  """
  checks.non_negative(ema_decay=decay)
  checks.below(1, ema_decay=decay)
  # A copy, since a step may take over the memory of the parameters.
  copy = jax.tree.map(jnp.copy, learner.params)
  return learner.replace(average=copy, ema_decay=float(decay))


def averaged(state: Tree, sections: Sequence[str] = ('optimizer',)) -> Tree:
  """Returns a state whose learners have their averages as parameters, where kept.

  Args:
    state: holds the learners.
    sections: of the config that have `ema_decay`, for the message.

  Raises:
    ValueError: none of the learners keeps an average.
  """
  is_learner = lambda node: isinstance(node, Learner)
  leaves = jax.tree.leaves(state, is_leaf=is_learner)
  if not any(is_learner(each) and each.average is not None for each in leaves):
    flags = [f'--config.{name}.ema_decay=0.999' for name in sections]
    raise ValueError(
      'No network keeps an average of its parameters; train with ema_decay, as in '
      f'{" or ".join(flags)}.'
    )

  def swap(node):
    if not is_learner(node) or node.average is None:
      return node
    return node.replace(params=node.average)

  return jax.tree.map(swap, state, is_leaf=is_learner)


def _learner(module, params, optimizer, inputs, **fields):
  shape = inputs[0].shape if inputs and _is_array(inputs[0]) else ()
  # `TrainState.create` begins with a Python int, which would compile the step twice,
  # and takes no tree of parameters but a mapping.
  return Learner(
    step=jnp.zeros((), jnp.int32),
    apply_fn=_apply_of(module),
    params=params,
    tx=optimizer,
    # Some optimizers keep the first parameters, whose memory the step takes over.
    opt_state=jax.tree.map(jnp.array, optimizer.init(params)),
    module=module,
    input_shape=tuple(shape[1:]),
    batch_size=shape[0] if shape else 0,
    **fields,
  )


def _initialize(rng, module, inputs, context):
  """Returns the module's variables, and the modules that it called to make them."""
  called = []

  def record(function, args, kwargs, call):
    if call.method_name == '__call__':
      called.append(call.module)
    return function(*args, **kwargs)

  @jax.jit
  def init(rng, arrays, context):
    values = _filled(inputs, arrays)
    with nn.intercept_methods(record):
      return module.init(rng, *values, **context)

  with _explained(module, inputs), _keys_explained():
    return init(rng, list(filter(_is_array, inputs)), context), called


@contextlib.contextmanager
def _explained(module, inputs):
  """Says of what a network cannot compute which shapes it was given."""
  try:
    yield
  except (TypeError, ValueError) as error:
    if build.FIELD.match(str(error)):
      raise
    given = ', '.join(str(getattr(each, 'shape', each)) for each in inputs)
    # JAX's own exceptions, which are subclasses, take other arguments.
    kind = TypeError if isinstance(error, TypeError) else ValueError
    raise kind(f'{_class(module).__name__} on {given}: {error}') from error


@contextlib.contextmanager
def _keys_explained():
  """Says of a network that draws or keeps something where its key comes from."""
  try:
    yield
  except Exception as error:
    flax = (errors.InvalidRngError, errors.ModifyScopeVariableError)
    # NNX raises a plain KeyError for a stream that is missing.
    if not isinstance(error, flax) and 'RngStream' not in str(error):
      raise
    said = error.args[0] if isinstance(error, KeyError) else error
    raise ValueError(
      'A network draws from a key that it takes as the keyword rng, as '
      f'nn.Dropout(rate)(x, rng=rng) does, and changes nothing it keeps: {said}'
    ) from error


def _is_array(value):
  return hasattr(value, 'shape')


def _filled(inputs, arrays):
  """Returns the inputs with the arrays in place of those that are arrays."""
  arrays = iter(arrays)
  return [next(arrays) if _is_array(each) else each for each in inputs]


def _check_kind(module):
  """Refuses what has no parameters to initialise, and says how it becomes a learner."""
  name = type(module).__name__
  if isinstance(module, type) and build.is_nnx(module):
    name = module.__name__
    raise TypeError(
      f'network is the class {name} of NNX; allowed: '
      f'flax.nnx.bridge.to_linen({name}), with its fields, or `learners.wrap` of a '
      'function that merges what flax.nnx.split returns.'
    )
  checks.instance(network=module)
  if build.is_bridge(module) and not module.skip_rng:
    build.check_takes_rngs(module.nnx_class)
  if build.is_nnx(type(module)):
    raise TypeError(
      f'{name} is an NNX module that has its parameters already; allowed: '
      'flax.nnx.bridge.to_linen of its class, or `learners.wrap` of a function '
      'that merges what flax.nnx.split returns.'
    )
  if not hasattr(module, 'init') or not hasattr(module, 'apply'):
    raise TypeError(
      f'{name} has no init and apply; allowed: a Linen module, a pair of such '
      'functions, or `learners.wrap` of a function of parameters and inputs.'
    )


def _check_inputs(module, inputs, context):
  """Refuses inputs and conditions that a network's signature has no place for."""
  if not isinstance(module, nn.Module) or not callable(module):
    return
  signature = inspect.signature(_class(module).__call__)
  try:
    signature.bind(module, *inputs, **context)
  except TypeError as error:
    _, *parameters = signature.parameters.values()
    # What it is offered later has a default; a generator's key has none.
    offered = lambda p: p.name in _OFFERED and p.default is not p.empty
    takes = [each.name for each in parameters if not offered(each)]
    name, names = _class(module).__name__, ', '.join(takes)
    beyond = ' and '.join(sorted(set(context) - set(takes)))
    if beyond or len(inputs) + len(context) > len(takes):
      raise TypeError(
        f'{name} takes ({names}), and no {beyond or "condition such as labels"}; '
        'allowed: no condition, or a network that takes one, such as JointLabel or '
        'Discriminator (energies), or DCGAN or ImageToImage (generators).'
      ) from error
    raise TypeError(
      f'{name} takes ({names}), and is given {len(inputs) + len(context)} of these; '
      'allowed: all of them, with labels or images where it takes a condition.'
    ) from error


def _check_optimizer(optimizer):
  """Refuses what cannot move parameters."""
  wanted = 'one of optax, such as optax.adam(0.1)'
  checks.has(('init', 'update'), wanted, optimizer=optimizer)


def _check_params(params):
  """Refuses parameters that nothing could train."""
  leaves = jax.tree_util.tree_leaves_with_path(params)
  if not leaves:
    raise ValueError('The network has no parameters, so nothing would learn.')
  for path, leaf in leaves:
    dtype = getattr(leaf, 'dtype', type(leaf))
    if not jnp.issubdtype(dtype, jnp.floating):
      raise TypeError(
        f'The parameter {jax.tree_util.keystr(path)} is {dtype}, which has no '
        'gradient; allowed: floating arrays alone. What is constant belongs in the '
        'function, as flax.nnx.split and equinox.partition set it apart.'
      )


def _check_used(function, params, inputs):
  """Refuses a function whose result no parameter reaches: nothing would learn."""
  arrays = list(filter(_is_array, inputs))

  def results(params, arrays):
    found = function(params, *_filled(inputs, arrays))
    return list(filter(_is_array, jax.tree.leaves(found)))

  traced = jax.make_jaxpr(results)(params, arrays).jaxpr
  reached = set(traced.invars[: len(jax.tree.leaves(params))])
  for equation in traced.eqns:
    if reached.intersection(_variables(equation.invars)):
      reached.update(equation.outvars)
  if not reached.intersection(_variables(traced.outvars)):
    raise ValueError(
      'The result of the function does not depend on its parameters, so nothing '
      'would learn: it must compute with the params that it is given, not with a '
      'model from outside.'
    )


def _variables(atoms):
  """Yields those that are no literals, which have no hash."""
  return (each for each in atoms if isinstance(each, core.Var))


def _with_dropout_key(apply):
  """Returns `apply` with a key between parameters and inputs as the keyword `rng`."""
  names = list(inspect.signature(apply).parameters)
  if names[1:2] != ['rng']:
    return apply
  return lambda params, *inputs, rng=None: apply(params, rng, *inputs)


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
    ValueError: the network is a function, which has no methods, draws random numbers
      from elsewhere, or changes variables that it keeps.
  """
  offered = {'axis_name': axis_name, 'rng': rng}
  taken = keywords(learner, method)
  context |= {name: offered[name] for name in _OFFERED if name in taken}
  if method is not None:
    module = getattr(learner, 'module', None)
    if isinstance(module, Function):
      raise ValueError(f'A network that is a function has no method {method}.')
    nnx_class = build.is_bridge(module)
    context['nnx_method' if nnx_class else 'method'] = method
  with _keys_explained():
    return learner.apply_fn(params, *inputs, **context)


def has_method(learner: train_state.TrainState, method: str) -> bool:
  """Returns whether the network has a method of that name.

  A function has none, and of a TrainState without a module it is not known, but True.
  """
  module = getattr(learner, 'module', None)
  return module is None or hasattr(_class(module), method)


def keywords(
  learner: train_state.TrainState, method: str | None = None
) -> tuple[str, ...]:
  """Returns the names of the keyword arguments that the network takes.

  These are its keyword-only arguments and, of `axis_name` and `rng`, those that have
  a default. A network whose property `mixes` or `drops` is False has neither use for
  an axis or for a key the way it is built, and is given none.

  Args:
    learner: the learner. A TrainState without a module takes none.
    method: name of a method, which must take them too.
  """
  module = getattr(learner, 'module', None)
  if module is None:
    return ()
  if isinstance(module, Function):
    return _function_keywords(module.apply)
  return _module_keywords(module, method)


def mixes(learner: train_state.TrainState) -> bool:
  """Returns whether the network's value at an example depends on its batch."""
  return 'axis_name' in keywords(learner)


def drops(learner: train_state.TrainState) -> bool:
  """Returns whether the network is random if it is given a key."""
  return 'rng' in keywords(learner)


def searches(learner: train_state.TrainState) -> bool:
  """Returns whether the optimizer asks for the loss elsewhere, as line searches do."""
  asked = []

  def value_fn(params):
    asked.append(params)
    return jnp.zeros(())

  # It is traced, which costs no step.
  jax.eval_shape(
    lambda: _updates(
      learner, learner.params, value=jnp.zeros(()), value_fn=value_fn
    )
  )
  return bool(asked)


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
  checks.key(rng=rng)
  rng = jax.random.fold_in(rng, _DROPOUT)
  return collectives.fold_in_index(rng, axis_name)


_DROPOUT = 2**32 - 1  # no split has as many keys
_OFFERED = ('axis_name', 'rng')


def _module_keywords(module, method=None):
  """Returns the keywords of a Linen module; see `keywords`."""
  names = _function_keywords(_class(module).__call__)
  for has, name in (('mixes', 'axis_name'), ('drops', 'rng')):
    if not attribute(module, has, True):
      names = tuple(each for each in names if each != name)
  function = getattr(_class(module), method or '__call__', None)
  if function is None or _forwards_keywords(function):
    return names
  return tuple(name for name in names if name in _function_keywords(function))


def _class(module):
  """Returns the class that has a module's methods: that of NNX behind its bridge."""
  if build.is_bridge(module):
    return module.nnx_class
  return type(module)


def attribute(module: Any, name: str, default: Any) -> Any:
  """Returns what a module says of itself, or the default where it says nothing.

  What a class of NNX says is looked up behind its bridge: in the arguments that it was
  given, or in the class.
  """
  if build.is_bridge(module):
    own = getattr(module.nnx_class, name, default)
    return module.kwargs.get(name, own)
  return getattr(module, name, default)


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
  name = _class(module).__name__
  if 'batch_stats' in params:
    raise ValueError(
      f'{name} keeps running statistics (batch_stats), which nothing here updates; '
      'allowed: layers.BatchNorm, nn.LayerNorm, nn.GroupNorm.'
    )
  needs = {'axis_name' for each in called if isinstance(each, layers.BatchNorm)}
  if _forwards_keywords(_class(module).__call__):
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

  The section may hold the numbers of `OPTIMIZER` too: l2 times the parameters is added
  to the gradient, and a gradient whose norm exceeds max_norm is then scaled down to it.
  `create` reads the third, the decay of `averaging`. Equal sections have one optimizer,
  for which a step is compiled once.

  Args:
    section: `name` of an optax function or, as 'optax.contrib:muon', of any other; and
      its arguments. An argument may be a section, or a sequence of them, which `args`
      is for the positional arguments of `optax.chain`.

  Raises:
    ValueError: unknown name, or a number out of range.
    TypeError: an argument that the optimizer does not take.
  """
  section = _frozen(section)
  try:
    hash(section)
  except TypeError:  # an array is in it
    return _optimizer.__wrapped__(section)
  return _optimizer(section)


def _frozen(value):
  """Returns a value of a config, its mappings and lists such that they have a hash."""
  if hasattr(value, 'items'):
    return flax_core.FrozenDict({k: _frozen(each) for k, each in value.items()})
  if isinstance(value, (list, tuple)):
    return tuple(map(_frozen, value))
  return value


# jit tells optimizers apart as objects: another seed's state would compile anew.
_kept = functools.lru_cache(maxsize=64)


@_kept
def _keeping(optimizer, collections):
  """Returns the optimizer, for 'params' alone of a network's collections."""
  labels = {
    name: 'train' if name == 'params' else 'keep' for name in collections
  }
  parts = {'train': optimizer, 'keep': optax.set_to_zero()}
  return optax.partition(parts, labels)


@_kept
def _optimizer(section):
  section = dict(section)
  own = {name: section.pop(name, of) for name, of in OPTIMIZER.items()}
  checks.non_negative(**own)
  checks.below(1, ema_decay=own['ema_decay'])
  _check_rate(section.get('learning_rate', 1.0))
  shares = {name: section[name] for name in _SHARES if name in section}
  checks.non_negative(**shares)
  checks.at_most(1, **shares)
  optimizer = build.build(optax, **section)
  if hasattr(optimizer, 'gradient_transformation'):  # of optax.MultiSteps
    optimizer = optimizer.gradient_transformation()
  if not isinstance(optimizer, optax.GradientTransformation):
    raise ValueError(f'name={section["name"]!r} is no optimizer, as adam is.')
  before = [optax.add_decayed_weights(own['l2'])] if own['l2'] else []
  if own['max_norm']:
    before.append(optax.clip_by_global_norm(own['max_norm']))
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

  (loss, kept), grads = jax.value_and_grad(mean_loss, has_aux=True)(
    learner.params
  )
  grads = collectives.pmean(grads, axis_name)
  updates, opt_state = _updates(
    learner, grads, value=loss, value_fn=lambda params: mean_loss(params)[0]
  )
  updates = jax.tree.map(lambda update: rate * update, updates)
  moved = learner.replace(
    step=learner.step + 1,
    params=optax.apply_updates(learner.params, updates),
    opt_state=opt_state,
  )
  return _with_average(moved), *kept


def _updates(learner, grads, **searched):
  """Returns the optimizer's updates of the parameters, and its next state."""
  # A line search asks for these; whoever does not leaves them out of the program.
  searched['grad'] = grads
  tx = optax.with_extra_args_support(learner.tx)
  with jax.numpy_dtype_promotion('standard'):  # Adam's count is an integer
    return tx.update(grads, learner.opt_state, learner.params, **searched)


# Steps of a network within one of an algorithm that are traced one by one. XLA's CPU
# backend computes convolutions slowly inside a loop, and a few are quicker apart;
# of many the tracing alone takes minutes.
UNROLLED = 8
MAX_REPEATED = 1000  # each has a key that is traced by itself


def repeated(
  step: Callable[..., tuple[Any, ...]], start: Tree, rngs: Sequence[PRNGKey]
) -> tuple[Any, ...]:
  """Returns what the last of several steps returns, each from where the one before is.

  Args:
    step: what moves (value, key) to the next value, and to what comes beside it.
    start: the first value.
    rngs: the key of each step; there is at least one.
  """
  *early, last = rngs
  if len(rngs) > UNROLLED:
    advance = lambda value, rng: (step(value, rng)[0], None)
    start, _ = lax.scan(advance, start, jnp.stack(early))
    early = ()
  for rng in early:
    start, *_ = step(start, rng)
  return step(start, last)


def _with_average(learner):
  """Returns the learner with its parameters in their average, if it keeps one."""
  if getattr(learner, 'average', None) is None:
    return learner
  # The share of step t is (1 - decay) / (1 - decay^t), and so 1 of the first. A decay
  # close to 1 leaves few digits of either difference in float32.
  decay = learner.ema_decay
  rate = math.log(decay) if decay else -math.inf
  steps = learner.step.astype(jnp.float32)
  share = (1 - decay) / -jnp.expm1(steps * rate)
  average = jax.tree.map(
    lambda old, new: old + (share * (new - old)).astype(old.dtype),
    learner.average,
    learner.params,
  )
  return learner.replace(average=average)
