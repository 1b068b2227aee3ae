"""What the fields of version 0.1's configs are called now."""

from collections.abc import Mapping
from typing import Any

from flax import traverse_util

_DIRECTION = {
  'step.kernel': 'step.direction.kernel.name',
  'step.bandwidth_scale': 'step.direction.kernel.bandwidth.scale',
  'step.bandwidth_log': 'step.direction.kernel.bandwidth.log',
  'step.normalize': 'step.direction.normalize',
}


def _chain(section):
  """Returns the table of a section's fields that are a chain's now."""
  options = ('num_steps', 'step_size', 'noise', 'temperature', 'clip')
  return {f'{section}.sampler': f'{section}.chain.name'} | {
    f'{section}.{name}': f'{section}.chain.{name}' for name in options
  }


# The old name of a field to its new one, for each algorithm that has renamed ones.
FIELDS = {
  'contrastive_divergence': _chain('step') | _chain('sample'),
  'langevin_ebm': _chain('step') | _chain('sample'),
  'coopnets': _chain('step') | _chain('sample'),
  'vae_teaching': _chain('step') | _chain('sample'),
  'maximum_likelihood': _chain('sample'),
  'score_matching': _DIRECTION | _chain('sample'),
  'stein_cd': _DIRECTION | _chain('sample'),
  'svgd': _DIRECTION,
  'amortized_svgd': _DIRECTION,
  'steingan': _DIRECTION
  | {
    'step.kernel_space': 'step.direction.name',
    'step.repulsion': 'step.direction.form',
    'step.controller': 'step.controller.name',
  },
}
_CHAINS = {'langevin': 'Langevin', 'mala': 'MALA', 'gibbs': 'Gibbs'}
# The new name of a field to what its old values are called.
VALUES = {
  # A GPU's steps, of which these say nothing, were float32.
  'matmul_precision': {'float32': 'auto'},
  'step.chain.name': _CHAINS,
  'sample.chain.name': _CHAINS,
  'step.direction.name': {'pixels': 'SVGD', 'features': 'FeatureSVGD'},
  'step.direction.kernel.name': {'rbf': 'RBF'},
  'step.controller.name': {
    'none': 'Fixed',
    'discount': 'Discount',
    'speed': 'Speed',
    'freeze_ahead': 'FreezeAhead',
  },
}


def renamed(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a whole config of version 0.1 in the fields of today.

  Raises:
    KeyError: a field has a value that no config file of 0.1 had.
  """
  table = FIELDS.get(config['algorithm'], {})
  found = {}
  for old, value in traverse_util.flatten_dict(config, sep='.').items():
    new = table.get(old, old)
    found[new] = VALUES[new][value] if new in VALUES else value
  # A kernel had a number beside its rule; 0 was for the rule, which all files kept.
  if found.pop('step.bandwidth', 0.0):
    raise KeyError('step.bandwidth')
  # What a section had to state and what it named did not read is no field any more.
  if found.get('step.direction.name') == 'SVGD':
    del found['step.direction.form']
  if found.get('sample.chain.name') == 'Gibbs':
    del found['sample.chain.step_size']
  conditional = found.pop('step.conditional', False)
  for section in ('data', 'evaluation.data'):
    # Synthetic examples that come in pairs said so by the name that labels have now.
    if f'{section}.condition' in found:
      found[f'{section}.pairs'] = found.pop(f'{section}.condition')
    if conditional:
      found[f'{section}.condition'] = 'label'
  return traverse_util.unflatten_dict(found, sep='.')
