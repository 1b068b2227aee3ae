"""What a program asks of a device, counted in its text."""

import collections
import math
import re
from unittest import mock

import jax
from jax import lax
import numpy as np

from experiments.reproduce import budgets
from stein_jax import algorithms
from stein_jax.runs import configs

# What a compiled program's text calls its kernels, and what should be none of them.
_INSTRUCTIONS = {
  'kernels': r' (fusion|dot|convolution|custom-call|reduce|sort|scatter)\(',
  'of libraries': r' custom-call\(',
  'copies': r' copy\(',
  'to the host': r' (infeed|outfeed|send|recv)\(',
}
# Marks of the partitioner are calls of nothing.
_MARKS = ('Sharding', 'SPMDFullToShardShape', 'SPMDShardToFullShape')
_TRANSFERS = ('infeed', 'outfeed', 'send', 'recv')


def operations(jaxpr) -> float:
  """Returns the operations of a program's products and convolutions.

  A scan counts for its length, and a loop of unknown length once. Of branches the
  cheapest counts: the others here are for points that are far apart.
  """
  total = 0.0
  for equation in jaxpr.eqns:
    inner = [operations(each) for each in _inner(equation.params)]
    if equation.primitive is lax.dot_general_p:
      ((contracted, _), _) = equation.params['dimension_numbers']
      shape = equation.invars[0].aval.shape
      depth = math.prod(shape[axis] for axis in contracted)
      total += 2 * depth * math.prod(equation.outvars[0].aval.shape)
    elif equation.primitive is lax.conv_general_dilated_p:
      spec = equation.params['dimension_numbers'].rhs_spec
      kernel = equation.invars[1].aval.shape
      taps = math.prod(kernel) / kernel[spec[0]]
      # The zeros between dilated inputs are no work.
      taps /= math.prod(equation.params['lhs_dilation'])
      total += 2 * taps * math.prod(equation.outvars[0].aval.shape)
    elif equation.primitive is lax.cond_p:
      total += min(inner)
    else:
      total += equation.params.get('length', 1) * sum(inner)
  return total


def _inner(params):
  """Returns the programs among an equation's parameters."""
  for value in params.values():
    for each in value if isinstance(value, (tuple, list)) else (value,):
      each = getattr(each, 'jaxpr', each)
      if hasattr(each, 'eqns'):
        yield each


def instructions(text: str) -> dict[str, int]:
  """Returns counts of instructions in the text of a compiled program.

  Those inside a fusion are one kernel with it; those of a loop count once.
  """
  parts = re.split(r'\n(?=\S.*\{\n)', text)
  outside = '\n'.join(p for p in parts if not p.startswith('%fused'))
  return {
    name: len(re.findall(pattern, outside))
    for name, pattern in _INSTRUCTIONS.items()
  }


def lowered(text: str) -> dict[str, int]:
  """Returns counts in the text of a program that is lowered and not compiled.

  What a loop repeats counts once. 'of libraries' are calls of what is no kernel of the
  compiler's, and 'to the host' are those for which a step waits.
  """
  found = collections.Counter(re.findall(r'stablehlo\.(\w+)', text))
  called = re.findall(r'custom_call @(\w+)', text)
  from_host = sum('callback' in name for name in called)
  return {
    'products': found['dot_general'],
    'convolutions': found['convolution'],
    'loops': found['while'],
    'sorts': found['sort'],
    'of libraries': sum(name not in _MARKS for name in called) - from_host,
    'to the host': from_host + sum(found[name] for name in _TRANSFERS),
  }


def step_of(config) -> dict[str, float]:
  """Returns what one step of a config asks of a GPU, which need not be there.

  'GFLOP' is of products and convolutions, where what a loop repeats counts as often;
  'MB of state' and 'MB of batch' are what the step reads; the rest is from `lowered`.
  """
  # What is written for a back end is traced as on that one.
  with mock.patch.object(jax, 'default_backend', lambda: 'gpu'):
    config = configs.fitted(configs.complete(config), budgets.Labels)
    algorithm, rng = algorithms.get(config.algorithm), jax.random.key(0)
    # The batch is there, since some of `init` reads it.
    batch = jax.tree.map(
      lambda leaf: np.zeros(leaf.shape, leaf.dtype), budgets.batch_of(config)
    )
    state = jax.eval_shape(lambda rng: algorithm.init(rng, config, batch), rng)
    traced = jax.jit(configs.step(config)).trace(state, batch, rng)
    text = traced.lower(lowering_platforms=('cuda',)).as_text()
  return {
    'GFLOP': operations(traced.jaxpr.jaxpr) / 1e9,
    'MB of state': _megabytes(state),
    'MB of batch': _megabytes(batch),
    **lowered(text),
  }


def _megabytes(tree):
  leaves = jax.tree.leaves(tree)
  return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) / 1e6
