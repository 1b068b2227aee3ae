"""Compiling a step for the devices at hand: jit, pmap or shard_map.

One body runs in three ways. `jit` sees the whole batch and lets XLA split the work;
`pmap` and `shard_map` run the body on each device with `axis_name` set. All three take
and return the same state, so that a checkpoint of one continues in another.
"""

from collections.abc import Callable, Sequence
import functools

import jax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np

from stein_jax import checks
from stein_jax.types import Batch, Tree

MODES = ('jit', 'pmap', 'shard_map')
# What products in networks are rounded to, where a device has a choice; see
# `jax.default_matmul_precision`. Stein primitives keep float32.
PRECISIONS = ('auto', 'float32', 'tensorfloat32', 'bfloat16')
AXIS = 'batch'


def precision(name: str, *, learns: bool = False) -> str:
  """Returns the precision of products in networks that a config's name stands for.

  'auto' is 'tensorfloat32' while a GPU learns, as in other frameworks, and 'float32'
  on other devices and wherever results are measured: an error of 1e-3 of an energy is
  noise in a gradient, and a nat in a likelihood. Other names stand for themselves.

  Args:
    name: one of `PRECISIONS`.
    learns: whether the products are of a training step.
  """
  if name != 'auto':
    return name
  gpu = learns and jax.default_backend() == 'gpu'
  return 'tensorfloat32' if gpu else 'float32'


def mesh() -> Mesh:
  """Returns the mesh of all devices, one axis."""
  return Mesh(np.array(jax.devices()), (AXIS,))


def partition(state: Tree, split: Sequence[str] = ()) -> Tree:
  """Returns a PartitionSpec for every leaf of a NamedTuple state.

  Leaves of the fields named in `split` are split along their leading axis over the
  devices. All others are replicated, and so are scalars inside a split field, such as
  a step count.
  """

  def of_field(name, value):
    return jax.tree.map(
      lambda leaf: (
        PartitionSpec(AXIS)
        if name in split and np.ndim(leaf)
        else PartitionSpec()
      ),
      value,
    )

  return type(state)(*map(of_field, state._fields, state))


def replicated_shapes(state: Tree, spec: Tree) -> Tree:
  """Returns the shapes of what `replicate` returns for a state of these shapes."""
  devices = mesh()
  return jax.tree.map(
    lambda x, each: jax.ShapeDtypeStruct(
      x.shape,
      x.dtype,
      sharding=NamedSharding(devices, each),
      weak_type=x.weak_type,
    ),
    state,
    spec,
  )


def replicate(state: Tree, spec: Tree | None = None) -> Tree:
  """Returns the state placed on all devices, split where `spec` says."""
  devices = mesh()
  if spec is None:
    spec = jax.tree.map(lambda _: PartitionSpec(), state)
  if jax.process_count() > 1:
    # An array that is put from one device onto many cannot name its shards in a
    # process that has one device (jax 0.10).
    # The host's copy has no device.
    state = jax.tree.map(np.asarray, state)
  return jax.tree.map(
    lambda leaf, s: jax.device_put(leaf, NamedSharding(devices, s)),
    state,
    spec,
  )


def compile_step(
  step: Callable,
  mode: str,
  *,
  spec: Tree | None = None,
  steps_per_call: int = 1,
  held: Tree | None = None,
) -> Callable:
  """Returns step(state, local_batch, rng) -> (state, metrics), compiled.

  The state is donated, but not on a CPU. `local_batch` is this process's rows of the
  batch, as host arrays. On several CPU devices a call waits for its result.

  Args:
    step: an algorithm's step with its hyper-parameters bound.
    mode: 'jit', 'pmap' or 'shard_map'.
    spec: what of the state is split, from `partition`; None where nothing is.
    steps_per_call: steps that one call makes, which saves time where they are short.
      Above 1, batches and keys have one more leading axis, of that size, and the
      metrics are the last step's.
    held: the data, such as `datasets.Held`, which every device then holds under 'jit':
      a batch is `held[indices]`, and `local_batch` the indices.

  Raises:
    ValueError: the mode is unknown, or holds no data, or rows do not divide over the
      devices.
  """
  checks.choice(MODES if held is None else MODES[:1], parallel=mode)
  checks.count(steps_per_call=steps_per_call)
  devices = mesh()
  rows_axis, given = 0, {}
  if held is not None:
    # An argument of the program, which would else have a copy among its constants.
    given = {'held': replicate(held)}
    step = functools.partial(_on_held, step)
  if steps_per_call > 1:
    step, rows_axis = functools.partial(_several, step), 1
  by_rows = NamedSharding(devices, _rows(rows_axis))

  def place(batch: Batch):
    # One device's batch is placed by jit, a quarter millisecond faster.
    if jax.device_count() == 1:
      return batch
    return jax.tree.map(
      # No process has the whole batch, but together they have it.
      lambda x: jax.make_array_from_process_local_data(by_rows, x),
      batch,
    )

  if mode == 'pmap':
    return _one_at_a_time(
      _pmapped(functools.partial(step, axis_name=AXIS), spec, rows_axis)
    )
  if mode == 'jit':
    body = step
  else:
    body = per_device(step, spec=spec, rows_axis=rows_axis)
  # XLA copies what an optimizer would overwrite too early, into memory that is new in
  # every call: on a CPU a step of 7 million weights takes a fourth longer donated.
  donated = () if jax.default_backend() == 'cpu' else 0
  compiled = jax.jit(body, donate_argnums=donated)
  return _one_at_a_time(
    lambda state, batch, rng: compiled(state, place(batch), rng, **given)
  )


def per_device(
  step: Callable, *, spec: Tree | None = None, rows_axis: int = 0
) -> Callable:
  """Returns the step of the whole batch whose body each device runs on its rows."""
  state_spec = PartitionSpec() if spec is None else spec
  return jax.shard_map(
    functools.partial(step, axis_name=AXIS),
    mesh=mesh(),
    in_specs=(state_spec, _rows(rows_axis), PartitionSpec()),
    out_specs=(state_spec, PartitionSpec()),
  )


def _rows(axis):
  """Returns the PartitionSpec of arrays whose rows, along that axis, are split."""
  return PartitionSpec(*[None] * axis, AXIS)


def _on_held(step, state, indices, rng, *, held):
  """Returns what the step makes of a batch of data that the device holds."""
  return step(state, held[indices], rng)


def _several(step, state, batches, rngs, **options):
  """Returns the state after one step for each batch and key, and the last metrics."""
  advance = lambda state, inputs: step(state, *inputs, **options)
  state, metrics = lax.scan(advance, state, (batches, rngs))
  return state, jax.tree.map(lambda values: values[-1], metrics)


def _one_at_a_time(step):
  """Returns the step, waited for where devices share the host's threads.

  Collectives of two steps in flight on several CPU devices can wait for each
  other's threads for ever; accelerators queue them.
  """
  if jax.default_backend() != 'cpu' or jax.device_count() == 1:
    return step
  return lambda *args: jax.block_until_ready(step(*args))


def _pmapped(step, spec, rows_axis):
  """Returns the step under pmap, on states without a device axis.

  Leaves go in and out as a tuple: with several processes pmap hashes their axes, and a
  tree of axes like the state holds dicts. It then also takes arrays of each process's
  own, while the arrays of the state outside belong to all.
  """
  # A process maps over its own devices, while the state belongs to all.
  num_local, num_all = jax.local_device_count(), jax.device_count()
  whole, own = mesh(), mesh().local_mesh
  share = lambda x: x.reshape(
    *x.shape[:rows_axis], num_local, -1, *x.shape[rows_axis + 1 :]
  )

  def to_own(x, s):
    # A leaf that is not split is the same on every device, of this process and all.
    if not len(s):
      return _on(own, x, s, x.shape)
    x = _on(own, x, s, (len(x) * num_local // num_all, *x.shape[1:]))
    return x.reshape(num_local, -1, *x.shape[1:])

  def to_whole(x, s):
    if not len(s):
      return _on(whole, x, s, x.shape)
    x = x.reshape(-1, *x.shape[2:])
    return _on(whole, x, s, (len(x) * num_all // num_local, *x.shape[1:]))

  def compiled(state, batch, rng):
    leaves, tree = jax.tree.flatten(state)
    specs = tuple(
      [PartitionSpec()] * len(leaves) if spec is None else jax.tree.leaves(spec)
    )
    leaves, metrics = mapped(tree, specs)(
      tuple(map(to_own, leaves, specs)), jax.tree.map(share, batch), rng
    )
    return jax.tree.unflatten(tree, map(to_whole, leaves, specs)), metrics

  @functools.lru_cache(maxsize=1)
  # Compiled once: the shapes of a state do not change from step to step.
  def mapped(tree, specs):
    def on_leaves(leaves, batch, rng):
      state, metrics = step(jax.tree.unflatten(tree, leaves), batch, rng)
      return tuple(jax.tree.leaves(state)), metrics

    axes = tuple(0 if len(s) else None for s in specs)
    return jax.pmap(
      on_leaves,
      axis_name=AXIS,
      in_axes=(axes, rows_axis, None),
      out_axes=(axes, None),
      donate_argnums=0,
    )

  return compiled


def _on(devices, x, spec, shape):
  """Returns the array of that shape which has this process's parts of x on a mesh."""
  sharding = NamedSharding(devices, spec)
  if jax.process_count() == 1:
    return jax.device_put(x, sharding)
  parts = [shard.data for shard in x.addressable_shards]
  return jax.make_array_from_single_device_arrays(shape, sharding, parts)
