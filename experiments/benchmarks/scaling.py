"""What a step computes and sends on each of many devices, and when sending takes over.

Steps are traced for meshes of abstract devices, however many; nothing is compiled. The
floating-point operations are those of products and convolutions, loops counted as
often as they run (a loop of unknown length once); collectives and their bytes are the
program's own, an all-reduce taken as a ring. From these, on paper: the seconds that a
chip computes and sends, one collective after another on a square torus, and the number
of devices from which it sends longer than it computes: with the share of a device held
fixed, or the batch of all.

Then, compiled and run on simulated devices: particles that travel in a ring, as here,
against all of them gathered on each device; bytes set aside and time.

Example:
  python -m experiments.benchmarks.scaling --devices=8,64,256 --batch_size=128
"""

import collections
import functools
import importlib
import math
from unittest import mock

from absl import flags
import jax
from jax import lax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType, Mesh, PartitionSpec
import numpy as np

from experiments.benchmarks import report
from experiments.benchmarks import timing
from stein_jax import algorithms
from stein_jax import collectives
from stein_jax import kernels
from stein_jax import parallel
from stein_jax import stein
from stein_jax.runs import configs
from stein_jax.runs import reporting

_DEVICES = flags.DEFINE_list('devices', ['8', '256'], 'How many.')
_BATCH = flags.DEFINE_integer(
  'batch_size', 128, 'Examples of one device; 8 times as many of all.'
)
_PARTICLES = flags.DEFINE_integer(
  'particles',
  4096,
  'Particles of one device, of 64 dimensions; 8 times of all.',
)
# Round numbers of an accelerator; the results follow them in proportion.
_FLOPS = flags.DEFINE_float('flops', 40e12, "A chip's operations a second.")
_BANDWIDTH = flags.DEFINE_float(
  'bandwidth', 100e9, 'Bytes a second that a chip receives.'
)
_LATENCY = flags.DEFINE_float('latency', 2e-6, 'Seconds of each hop.')
_SIMULATED = flags.DEFINE_integer(
  'simulated', 8, 'Devices on which ring and gathering are run.'
)
# One config for each kind of traffic: gradients alone, particles, features,
# split chains.
_STEPS = (
  'contrastive_divergence_mnist',
  'stein_cd_mnist',
  'score_matching_mnist',
  'steingan_mnist',
  'steingan_cifar10',
  'gan_cifar10',
  'vgan_cifar10',
  'vcd_cifar10',
  'langevin_ebm_cifar10',
  'coopnets_cifar10',
  'vae_teaching_cifar10',
)
_ALL = 8  # shares of all, where that is held fixed
_AXIS = parallel.AXIS
_SPLIT = PartitionSpec(_AXIS)


def measure():
  """Returns the text, lines and pictures that `report.run` takes."""
  # Before JAX looks for its devices, which it does once.
  jax.config.update('jax_num_cpu_devices', _SIMULATED.value)
  counts = [int(number) for number in _DEVICES.value]
  rows, crossings = [], []
  for name, build in programs().items():
    # The rows and the crossing ask for the same programs, and tracing one takes
    # seconds.
    cost = functools.cache(lambda num, share, f=build: Cost(f(num, share), num))
    rows += [row(name, num, cost(num, 1)) for num in counts]
    crossings.append(
      {
        'sends longer than it computes': name,
        'share held': crossing(lambda num, c=cost: c(num, 1)),
        'all held': crossing(lambda num, c=cost: c(num, _ALL / num)),
      }
    )
  text = (
    f'Of one device, on paper: {_FLOPS.value:.0e} operations and '
    f'{_BANDWIDTH.value:.0e} bytes a second, {_LATENCY.value:.0e} s a hop\n\n'
    f'{reporting.table(rows)}\n{reporting.table(crossings)}\n'
    f'On {_SIMULATED.value} simulated devices\n\n'
    f'{reporting.table(ring_and_gathering())}'
  )
  return text, [], {}


def programs():
  """Returns {name: function of a number of devices to the program's jaxpr}."""
  share = _PARTICLES.value
  return {
    f'direction, {share} particles': functools.partial(
      of_points, stein.svgd_direction, _SPLIT
    ),
    f'discrepancy, {share} points': functools.partial(
      of_points, stein.ksd, PartitionSpec()
    ),
    **{name: functools.partial(of_step, name) for name in _STEPS},
  }


def crossing(cost):
  """Returns the first power of 4 devices that send longer than they compute."""
  # Powers of 4 are square tori; in between the answer changes little.
  for num in (4**i for i in range(1, 6)):
    computes, sends = cost(num).seconds()
    if sends > computes:
      return f'{num}'
  return f'above {num}'


def of_points(function, out, num: int, share: float):
  """Returns the jaxpr of a Stein primitive at the median bandwidth."""
  mapped = on_shares(function, out, abstract(num))
  rows = num * max(1, round(share * _PARTICLES.value))
  # Shapes are enough for tracing: nothing is computed.
  points = jax.ShapeDtypeStruct((rows, 64), np.float32)
  return jax.make_jaxpr(mapped)(points, points)


def abstract(num: int) -> AbstractMesh:
  """Returns a mesh of so many devices that are not there."""
  return AbstractMesh((num,), (_AXIS,), axis_types=(AxisType.Auto,))


def on_shares(function, out, mesh):
  def on_share(x, score):
    kernel = kernels.RBF().at(x, _AXIS)
    return function(x, score, kernel, axis_name=_AXIS)

  return jax.shard_map(
    on_share, mesh=mesh, in_specs=(_SPLIT, _SPLIT), out_specs=out
  )


def of_step(name: str, num: int, share: float):
  """Returns the jaxpr of a config's step on a share of `--batch_size`, not below 1."""
  config = importlib.import_module(f'configs.{name}').get_config()
  algorithm = algorithms.get(config.algorithm)
  rows = num * max(1, round(share * _BATCH.value))
  # A buffer of chains is split like the batch, and so grows with it.
  if config.get('num_chains'):
    config.num_chains = rows
  shape = (32, 32, 3) if name.endswith('cifar10') else (28, 28, 1)
  batch = {
    'image': jax.ShapeDtypeStruct((rows, *shape), np.float32),
    'label': jax.ShapeDtypeStruct((rows,), np.int32),
  }
  if config.data.condition == 'label':
    batch['condition'] = batch['label']
  rng = jax.random.key(0)
  state = jax.eval_shape(
    lambda rng, batch: algorithm.init(rng, config, batch), rng, batch
  )
  spec = parallel.partition(state, getattr(algorithm, 'SPLIT', ()))
  mapped = jax.shard_map(
    functools.partial(configs.step(config), axis_name=_AXIS),
    mesh=abstract(num),
    in_specs=(spec, _SPLIT, PartitionSpec()),
    out_specs=(spec, PartitionSpec()),
  )
  return jax.make_jaxpr(mapped)(state, batch, rng)


class Cost:
  """What one device computes and sends in a program.

  Attributes:
    flops: operations of products and convolutions.
    calls: {kind: how often} of collectives.
    received: bytes.
    hops: steps from device to device, one after another.
  """

  def __init__(self, closed, num):
    self.flops = self.received = self.hops = 0
    self.calls = collections.Counter()
    self._num = num
    self._add(closed.jaxpr, 1)

  def seconds(self):
    """Returns the seconds of computing, and of sending."""
    sends = self.received / _BANDWIDTH.value + self.hops * _LATENCY.value
    return self.flops / _FLOPS.value, sends

  def _add(self, jaxpr, times):
    # A ring sends all but one's own part; the hops are those across the two
    # sides of a torus.
    others, across = 1 - 1 / self._num, 2 * (math.sqrt(self._num) - 1)
    for equation in jaxpr.eqns:
      name, params = equation.primitive.name, equation.params
      size = sum(_bytes(v.aval) for v in equation.outvars)
      if name == 'dot_general':
        (contracted, _), _ = params['dimension_numbers']
        shape = equation.invars[0].aval.shape
        inner = math.prod(shape[axis] for axis in contracted)
        # A multiplication and an addition for each term of each sum.
        self.flops += times * 2 * inner * equation.outvars[0].aval.size
      elif name == 'conv_general_dilated':
        kernel = equation.invars[1].aval
        # The layout of a kernel is the program's to choose, so the axis is
        # asked for.
        outputs = kernel.shape[params['dimension_numbers'].rhs_spec[0]]
        inner = kernel.size // outputs
        self.flops += times * 2 * inner * equation.outvars[0].aval.size
      elif name.startswith(('psum', 'pmax', 'pmin')):
        # Once round to add the parts up, and once more to spread the sum.
        self._send('all-reduce', times, 2 * size * others, 2 * across)
      elif name == 'all_gather':
        self._send('all-gather', times, size * others, across)
      elif name == 'ppermute':
        self._send('permute', times, size, 1)
      # A loop's body stands in the program once and runs as often as the loop
      # is long.
      within = times * params.get('length', 1) if name == 'scan' else times
      # Whatever holds programs of its own, as scan, cond and jit do, is looked
      # into.
      for value in params.values():
        for part in value if isinstance(value, (tuple, list)) else (value,):
          part = getattr(part, 'jaxpr', part)
          if hasattr(part, 'eqns'):
            self._add(part, within)

  def _send(self, kind, times, size, hops):
    self.calls[kind] += times
    self.received += times * size
    self.hops += times * hops


def _bytes(aval):
  return aval.size * aval.dtype.itemsize


def row(name, num, cost):
  computes, sends = cost.seconds()
  return {
    'program': name,
    'devices': num,
    'GFLOP': f'{cost.flops / 1e9:.3g}',
    'collectives': ', '.join(f'{n} {k}' for k, n in sorted(cost.calls.items())),
    'MB received': f'{cost.received / 1e6:.3g}',
    'computes': f'{1e3 * computes:.3g} ms',
    'sends': f'{1e3 * sends:.3g} ms',
  }


def ring_and_gathering():
  """Returns the table's lines of both ways on simulated devices."""
  num = _SIMULATED.value
  devices = Mesh(np.array(jax.devices()[:num]), (_AXIS,))
  x, score = jax.random.normal(jax.random.key(0), (2, num * 512, 64))
  split = jax.NamedSharding(devices, _SPLIT)
  x, score = jax.device_put((x, score), split)
  ways = {}
  for way, sum_over in {
    'ring': collectives.ring_sum,
    'gathered': gathered_sum,
  }.items():
    # The sum over shares alone is exchanged; the formulas are the same.
    with mock.patch.object(collectives, 'ring_sum', sum_over):
      mapped = on_shares(stein.svgd_direction, _SPLIT, devices)
      ways[way] = jax.jit(mapped).lower(x, score).compile()
  times = timing.medians(ways, x, score, seconds=5.0)
  return [
    {
      'direction': f'{way}, 512 particles each',
      'MB of a device': f'{_extra(compiled) / 1e6:.2f}',
      'milliseconds': f'{1e3 * times[way]:.0f}',
    }
    for way, compiled in ways.items()
  ]


def gathered_sum(function, share, axis_name):
  """Returns what `collectives.ring_sum` does, with all shares on every device."""
  shares = jax.tree.map(lambda leaf: lax.all_gather(leaf, axis_name), share)
  owners = jnp.arange(collectives.size(axis_name))
  parts = lax.map(lambda pair: function(*pair), (shares, owners))
  return jax.tree.map(lambda leaf: jnp.sum(leaf, 0), parts)


def _extra(compiled):
  """Returns the bytes that a device sets aside."""
  return compiled.memory_analysis().temp_size_in_bytes


if __name__ == '__main__':
  report.run('scaling', measure)
