"""What went bad first in a run whose numbers are not finite.

A step leaves nan in all that it touches, and what is fetched later cannot tell where it
began. The steps since the last checkpoint are made again with optimizers that also keep
how large the gradients and the updates are.
"""

from collections.abc import Iterator, Mapping
import math
import types
from typing import Any, NamedTuple

from flax.training import train_state
import jax
import jax.numpy as jnp
import optax

from stein_jax.runs import alarms
from stein_jax.types import Array, Metrics, Tree

_HUGE = 1e4  # no network of use has parameters of that size


class _Kept(NamedTuple):
  """State of an optimizer that keeps the largest entries of what it saw."""

  inner: Any
  gradient: Array
  update: Array


def recorded(state: Tree) -> Tree:
  """Returns the state with optimizers that keep how large their numbers are."""

  def of(node):
    if not _is_learner(node):
      return node
    kept = _Kept(node.opt_state, jnp.zeros(()), jnp.zeros(()))
    return node.replace(tx=_recording(node.tx), opt_state=kept)

  return jax.tree.map(of, state, is_leaf=_is_learner)


def first_bad(
  calls: Iterator[tuple[int, Tree, Metrics]],
  last: int,
  optimizers: Mapping[str, str] = types.MappingProxyType({}),
) -> str:
  """Returns a sentence about the first of some steps after which a number is bad.

  Args:
    calls: (steps done, state, metrics) of each step, from a state that is `recorded`.
    last: the step at which it was noticed.
    optimizers: the section of the config that a field of the state is moved by; it is
      'optimizer' where nothing is said.
  """
  before = {}
  for done, state, metrics in calls:
    metrics = {name: float(value) for name, value in metrics.items()}
    sizes = jax.device_get(_sizes(state))
    finite = all(map(math.isfinite, [*metrics.values(), *_flat(sizes)]))
    if not finite:
      return _blame(done, metrics, sizes, before, optimizers)
    if done >= last:
      break
    before = sizes
  return (
    f'A replay of the steps up to {last} finds all of their numbers finite.'
  )


def _blame(
  step: int, metrics: Mapping[str, float], sizes, before, optimizers
) -> str:
  """Returns what went bad first at a step, by the order in which it computes."""
  rate = lambda field: f'{optimizers.get(field, "optimizer")}.learning_rate'
  bad = [name for name, value in metrics.items() if not math.isfinite(value)]
  sampled = [
    name
    for name in bad
    if name.startswith(('chain/', 'samples/', 'energy/samp'))
  ]
  # The data pass through the network before anything is drawn from it.
  at_data = 'energy/data' in bad or (bad and not sampled)
  names = ', '.join(bad)
  if at_data and not before:
    return (
      f'The network went bad first: at step {step}, of the parameters that it began '
      f'with, these are not finite: {names}. What helps: smaller data, or smaller '
      'first parameters.'
    )
  largest = max(before, key=lambda n: before[n].get('update', 0), default='')
  if at_data or (sampled and before and _is_outsized(before[largest])):
    when = f'of step {step - 1}'
    return _blame_update(largest, before[largest], when, names, rate(largest))
  shorter = {alarms.MOVES[name] for name in metrics if name in alarms.MOVES}
  if sampled and not shorter and 'generator' in sizes:
    # Without a chain samples are what the generator makes of noise.
    size = (before or sizes)['generator']
    return _blame_update('generator', size, 'before', names, rate('generator'))
  if sampled:
    return (
      f'The chain went bad first: at step {step} the energy of the data is finite, and '
      f'these are not: {", ".join(sampled)}. What helps: a smaller '
      f'{", ".join(shorter) or "step of what moves samples"}.'
    )
  for field, size in sizes.items():
    if not math.isfinite(size.get('gradient', 0.0)):
      return (
        f'The gradient of {field} went bad first: at step {step} all metrics are '
        'finite and it is not. JAX_DEBUG_NANS=1 shows the operation.'
      )
  field = next(
    name for name in sizes if not all(map(math.isfinite, sizes[name].values()))
  )
  return (
    f'The update of {field} went bad first: at step {step} all metrics and gradients '
    f'are finite, and the state after it is not. What helps: a smaller {rate(field)}.'
  )


def _is_outsized(size):
  """Returns whether an update is what its parameters now consist of, and huge."""
  update, parameters = size.get('update', 0), size.get('parameters', 0)
  return update > _HUGE and update > parameters / 2


def _blame_update(field, size, when, names, rate):
  update, gradient = (
    size.get(kind, math.nan) for kind in ('update', 'gradient')
  )
  large = ''
  if math.isfinite(update):
    large = f'was up to {update:.3g} of a gradient up to {gradient:.3g}, and '
  return (
    f'The update of {field} went bad first: that {when} {large}leaves parameters with '
    f'which these are not finite: {names}. What helps: a smaller {rate}, or max_norm '
    'beside it.'
  )


@jax.jit
def _sizes(state):
  """Returns the largest numbers of a state by field and, in learners, by kind."""

  def of(value):
    if not _is_learner(value):
      return {'values': _largest(value)}
    return {
      'gradient': value.opt_state.gradient,
      'update': value.opt_state.update,
      'parameters': _largest(value.params),
      'optimizer': _largest(value.opt_state.inner),
    }

  return {name: of(value) for name, value in state._asdict().items()}


def _flat(sizes):
  return [value for each in sizes.values() for value in each.values()]


def _recording(tx):
  """Returns an optimizer that does what another does, and keeps how large it is."""
  tx = optax.with_extra_args_support(tx)

  def update(grads, kept, params=None, **extra):
    updates, inner = tx.update(grads, kept.inner, params, **extra)
    return updates, _Kept(inner, _largest(grads), _largest(updates))

  return optax.GradientTransformationExtraArgs(tx.init, update)


def _largest(tree):
  """Returns the largest absolute entry of the floating leaves [], nan if one is nan."""
  sizes = [
    jnp.max(jnp.abs(leaf)).astype(jnp.float32)
    for leaf in jax.tree.leaves(tree)
    if jnp.issubdtype(jnp.result_type(leaf), jnp.floating) and jnp.size(leaf)
  ]
  return jnp.max(jnp.stack(sizes)) if sizes else jnp.zeros(())


def _is_learner(node):
  return isinstance(node, train_state.TrainState)
