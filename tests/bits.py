"""The bits of every config's last state at smoke scale, and of the primitives.

python -m tests.bits --out=before.json writes them down; after a change that is to keep
every number, python -m tests.bits --against=before.json prints what differs, and ends
with code 1 if anything does. Both take minutes; --only=REGEX takes fewer cases.
The bits are of one machine and one set of packages: compare two commits on one.
"""

import argparse
import hashlib
import importlib
import json
import pathlib
import re
import sys
import tempfile

from flax import traverse_util
import jax
import numpy as np

from stein_jax.runs import configs
from stein_jax.runs import reporting
from stein_jax.runs import training
from tests import primitives


def _direction(**fields):
  return dict(step=dict(direction=fields))


# What the smoke scales leave out: a name of the case, the config, its changes.
OPTIONS = {
  'cd_langevin': ('contrastive_divergence_mnist', {}),
  'cd_mala': (
    'contrastive_divergence_mnist',
    dict(step=dict(chain=dict(name='MALA', step_size=1.0))),
  ),
  'cd_gibbs': (
    'contrastive_divergence_mnist',
    dict(step=dict(chain=dict(name='Gibbs'))),
  ),
  'pcd': ('contrastive_divergence_mnist', dict(persistent=True)),
  'stein_cd_imq': ('stein_cd_mnist', _direction(kernel='IMQ')),
  'stein_cd_rational_quadratic': (
    'stein_cd_mnist',
    _direction(
      kernel=dict(name='RationalQuadratic', bandwidth=dict(scale=0.5))
    ),
  ),
  'stein_cd_row_sum': (
    'stein_cd_mnist',
    _direction(normalize='row_sum', kernel=dict(bandwidth=dict(log='none'))),
  ),
  'stein_cd_unit_ball': (
    'stein_cd_mnist',
    dict(step=dict(direction=dict(normalize='unit_ball'), num_steps=2)),
  ),
  'stein_cd_symmetric': ('stein_cd_mnist', dict(step=dict(symmetric=True))),
  'svgd_imq': (
    'svgd_toy',
    _direction(kernel=dict(name='IMQ', bandwidth=dict(log='n'))),
  ),
  'svgd_row_sum': ('svgd_toy', _direction(normalize='row_sum')),
  **{
    f'steingan_{space}_{form}': (
      'steingan_mnist',
      dict(
        step=dict(
          direction=dict(name='FeatureSVGD', form=form),
          first_features=space == 'first_features',
        )
      ),
    )
    for space in ('features', 'first_features')
    for form in ('exact', 'swapped', 'nearest')
  },
  **{
    f'steingan_{name}': (
      'steingan_mnist_joint',
      dict(step=dict(controller=controller)),
    )
    for name, controller in dict(
      none='Fixed',
      discount='Discount',
      discount_printed=dict(name='Discount', when='behind'),
      speed='Speed',
      freeze='Freeze',
      freeze_ahead='FreezeAhead',
    ).items()
  },
  'steingan_no_kernel': (
    'steingan_mnist',
    dict(step=dict(direction='Score')),
  ),
  'steingan_bandwidth': (
    'steingan_mnist',
    _direction(kernel=dict(bandwidth=0.7)),
  ),
  'steingan_fresh': (
    'steingan_mnist',
    dict(step=dict(negatives='fresh', num_generator_steps=2)),
  ),
  'steingan_pulling_away': (
    'steingan_mnist_joint',
    dict(step=dict(diversity='pulling_away')),
  ),
  'steingan_entropy': (
    'steingan_mnist',
    dict(step=dict(diversity='batch_norm_entropy')),
  ),
  'steingan_separate': ('steingan_cifar10', dict(step=dict(joint=False))),
  **{
    f'gan_{loss}': ('gan_mnist', dict(step=dict(loss=loss)))
    for loss in ('wasserstein', 'margin', 'minimax')
  },
  'gan_every': (
    'gan_mnist',
    dict(step=dict(generator_every=2, num_generator_steps=1)),
  ),
  'gan_l1': ('gan_mnist', dict(step=dict(joint=True))),
  **{
    f'amortized_{projection}': (
      'amortized_svgd_toy',
      dict(step=dict(projection=projection)),
    )
    for projection in ('full', 'linear', 'chain_rule')
  },
  **{
    f'score_matching_{objective}': (
      'score_matching_mnist',
      dict(step=dict(objective=objective)),
    )
    for objective in ('exact', 'sliced', 'denoising')
  },
  'langevin_ebm_fresh': ('langevin_ebm_mnist', dict(num_chains=0)),
  'coopnets_clip': ('coopnets_mnist', dict(step=dict(energy_l2=0.1))),
}


def cases():
  """Yields (name, config) of every smoke config and of `OPTIONS`."""
  for path in sorted(pathlib.Path('configs').glob('*.py')):
    yield path.stem, get_config(path.stem)
  for case, (name, changes) in OPTIONS.items():
    module = importlib.import_module(f'configs.{name}')
    fields = configs.changed(module.get_config.given('smoke'), changes)
    yield case, configs.complete(fields)


def get_config(name):
  return importlib.import_module(f'configs.{name}').get_config('smoke')


def digest(leaf):
  """Returns a short digest of an array's dtype, shape and bytes."""
  if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(
    leaf.dtype, jax.dtypes.prng_key
  ):
    leaf = jax.random.key_data(leaf)
  leaf = np.asarray(leaf)
  text = f'{leaf.dtype} {leaf.shape} '.encode() + leaf.tobytes()
  return hashlib.sha256(text).hexdigest()[:16]


def of_run(config):
  """Returns the digests of the last state's leaves, and what was logged."""
  with tempfile.TemporaryDirectory() as workdir:
    state = training.train(config, workdir)
    lines = reporting.read_metrics(workdir)
  leaves, _ = jax.tree_util.tree_flatten_with_path(state)
  found = {jax.tree_util.keystr(path): digest(leaf) for path, leaf in leaves}
  for line in lines:
    line.pop('steps_per_second', None)
  return {'state': found, 'metrics': lines}


def of_primitives():
  return {
    check.__name__: [
      digest(leaf) for found, _ in check() for leaf in jax.tree.leaves(found)
    ]
    for check in primitives.CHECKS
  }


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--out')
  parser.add_argument('--against')
  parser.add_argument('--only', default='')
  flags = parser.parse_args()
  found = {}
  if re.search(flags.only, 'primitives'):
    found['primitives'] = of_primitives()
  for name, config in cases():
    if re.search(flags.only, name):
      print(name, flush=True)
      try:
        found[name] = of_run(config)
      except (ValueError, TypeError) as error:
        found[name] = {'refused': str(error)}
        print(f'  refused: {error}')
      jax.clear_caches()
  if flags.out:
    pathlib.Path(flags.out).write_text(json.dumps(found, indent=1))
  if flags.against:
    before = json.loads(pathlib.Path(flags.against).read_text())
    sys.exit(compare(before, json.loads(json.dumps(found))))


def compare(before, after):
  """Prints what differs; returns whether anything does."""
  differs = False
  for name, found in after.items():
    was = traverse_util.flatten_dict(_mapped(before.get(name, {})), sep=' ')
    now = traverse_util.flatten_dict(_mapped(found), sep=' ')
    changed = sorted(
      key for key in was.keys() | now.keys() if was.get(key) != now.get(key)
    )
    if changed:
      differs = True
      print(f'{name}: {len(changed)} of {len(was)} differ: {changed[:4]}')
  return differs


def _mapped(tree):
  """Returns the tree with lists as mappings from their indices."""
  if isinstance(tree, list):
    tree = {str(i): leaf for i, leaf in enumerate(tree)}
  if isinstance(tree, dict):
    return {key: _mapped(value) for key, value in tree.items()}
  return tree


if __name__ == '__main__':
  main()
