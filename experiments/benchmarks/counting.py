"""What a program asks of a device, counted in its text."""

import math
import re

from jax import lax

# What a compiled program's text calls its kernels, and what should be none of them.
_INSTRUCTIONS = {
  'kernels': r' (fusion|dot|convolution|custom-call|reduce|sort|scatter)\(',
  'of libraries': r' custom-call\(',
  'copies': r' copy\(',
  'to the host': r' (infeed|outfeed|send|recv)\(',
}


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
