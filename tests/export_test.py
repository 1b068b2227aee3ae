"""Everything lowers for TPU and CUDA, and collectives do not multiply with devices.

On a machine that has neither: an operation that is missing on a platform is found
here. What is written for a backend is traced as on that backend.
"""

import collections
import functools
import re
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
from jax import export
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType, PartitionSpec
import numpy as np
import pytest

from stein_jax import collectives
from stein_jax import datasets
from stein_jax import kernels
from stein_jax import parallel
from stein_jax import randomness
from stein_jax import samplers
from stein_jax import stein
from stein_jax.runs import configs
from tests import smoke

_PLATFORMS = ('tpu', 'cuda')
_COLLECTIVE = re.compile(
  r'stablehlo\.(all_reduce|all_gather|collective_permute|reduce_scatter)'
)
_POINTS = jax.ShapeDtypeStruct((64, 3), jnp.float32)
_KEY = jax.eval_shape(lambda: jax.random.key(0))
_KERNELS = {
  'rbf': lambda x: kernels.RBF().at(x),
  'imq': lambda x: kernels.imq,
}
_log_density = lambda x: -jnp.sum(x * x, -1) / 2
PRIMITIVES = {
  'squared_distance': (kernels.squared_distance, _POINTS, _POINTS),
  'median_bandwidth': (kernels.median_bandwidth, _POINTS),
  'stein_operator': (
    lambda x: stein.stein_operator(jnp.negative, jnp.sin, x),
    _POINTS,
  ),
  'ksd_test': (
    lambda rng, x: stein.ksd_test(rng, x, -x, kernels.imq, num_bootstrap=9),
    _KEY,
    _POINTS,
  ),
  'aggregated_ksd_test': (
    lambda rng, x: tuple(
      stein.aggregated_ksd_test(rng, x, -x, num_bootstrap=9)
    ),
    _KEY,
    _POINTS,
  ),
  'aggregated_mmd_test': (
    lambda rng, x: tuple(
      stein.aggregated_mmd_test(rng, x, 2 * x, num_permutations=9)
    ),
    _KEY,
    _POINTS,
  ),
  'block_ksd_test': (lambda x: tuple(stein.block_ksd_test(x, -x)), _POINTS),
  'fssd_test': (
    lambda rng, x: tuple(stein.fssd_test(rng, x, -x, num_draws=9)),
    _KEY,
    _POINTS,
  ),
  'thin': (lambda x: stein.thin(x, -x, 5, covariance=True), _POINTS),
  'importance_weights': (lambda x: stein.importance_weights(x, -x), _POINTS),
  'control_functional': (
    lambda x: stein.control_functional(x[:, 0], x, -x),
    _POINTS,
  ),
  'polynomial_control_variates': (
    lambda x: stein.polynomial_control_variates(x[:, 0], x, -x, order=2),
    _POINTS,
  ),
  'langevin': (
    lambda rng, x: samplers.langevin(
      rng, x, jnp.negative, step_size=0.1, num_steps=3
    ),
    _KEY,
    _POINTS,
  ),
  'mala': (
    lambda rng, x: samplers.mala(
      rng, x, _log_density, step_size=0.1, num_steps=3
    ),
    _KEY,
    _POINTS,
  ),
  'annealed_importance': (
    lambda rng: samplers.annealed_importance(
      rng, _log_density, (3,), num_chains=4, num_temperatures=5, step_size=0.1
    ),
    _KEY,
  ),
  'held': (
    lambda held, indices: held[indices],
    datasets.synthetic().held(),
    jax.ShapeDtypeStruct((8,), jnp.int32),
  ),
}
for _name, _kernel in _KERNELS.items():
  PRIMITIVES |= {
    f'svgd_direction, {_name}': (
      lambda x, kernel=_kernel: stein.svgd_direction(x, -x, kernel(x)),
      _POINTS,
    ),
    f'ksd, {_name}': (
      lambda x, kernel=_kernel: stein.ksd(x, -x, kernel(x)),
      _POINTS,
    ),
    f'feature_svgd_direction, {_name}': (
      lambda x, kernel=_kernel: stein.feature_svgd_direction(
        x, -x, jnp.sin, kernel(x)
      ),
      _POINTS,
    ),
  }


def exported(function, *args, platform):
  """Returns the module for a platform, traced as on it."""
  backend = {'cuda': 'gpu'}.get(platform, platform)
  with mock.patch.object(jax, 'default_backend', lambda: backend):
    # A function of its own: what was traced for another backend is kept.
    found = export.export(
      jax.jit(lambda *args: function(*args)), platforms=[platform]
    )(*args)
  return found.mlir_module()


def lowered(function, *args):
  """Returns the module for TPU; `export` does not take all that is lowered."""
  with mock.patch.object(jax, 'default_backend', lambda: 'tpu'):
    traced = jax.jit(lambda *args: function(*args)).trace(*args)
    return traced.lower(lowering_platforms=('tpu',)).as_text()


def on_mesh(function, num, in_specs, out_specs):
  return jax.shard_map(
    functools.partial(function, axis_name=parallel.AXIS),
    mesh=AbstractMesh((num,), (parallel.AXIS,), axis_types=(AxisType.Auto,)),
    in_specs=in_specs,
    out_specs=out_specs,
  )


def collectives_of(module):
  return collections.Counter(_COLLECTIVE.findall(module))


class PlatformTest(parameterized.TestCase):
  @parameterized.product(name=tuple(PRIMITIVES), platform=_PLATFORMS)
  def test_primitives(self, name, platform):
    function, *args = PRIMITIVES[name]
    self.assertIn('stablehlo', exported(function, *args, platform=platform))

  @parameterized.product(
    impl=tuple(randomness.IMPLEMENTATIONS), platform=_PLATFORMS
  )
  def test_random_numbers(self, impl, platform):
    draw = lambda rng: jax.random.normal(randomness.convert(rng, impl), (8,))
    self.assertIn('stablehlo', exported(draw, _KEY, platform=platform))

  @parameterized.product(
    name=sorted(smoke.ALGORITHMS.values()), platform=_PLATFORMS
  )
  @pytest.mark.slow
  def test_steps(self, name, platform):
    config = smoke.get_config(name)
    _, state, batch = smoke.begin(config)
    step = configs.step(config)
    rng = jax.random.key(1)
    module = exported(step, state, batch, rng, platform=platform)
    self.assertIn('stablehlo', module)


class PodTest(parameterized.TestCase):
  @parameterized.parameters(stein.svgd_direction, stein.ksd)
  def test_primitives_have_as_many_collectives_on_any_pod(self, function):
    split = PartitionSpec(parallel.AXIS)

    def local(x, axis_name):
      kernel = kernels.RBF().at(x, axis_name)
      total = jnp.sum(function(x, -x, kernel, axis_name=axis_name))
      return collectives.pmean(total, axis_name)

    found = []
    for num in (8, 32, 256):
      mapped = on_mesh(local, num, split, PartitionSpec())
      points = jax.ShapeDtypeStruct((num * 16, 3), jnp.float32)
      found.append(collectives_of(lowered(mapped, points)))
    self.assertGreater(found[0]['collective_permute'], 0)
    self.assertEqual(found[0], found[1])
    self.assertEqual(found[0], found[2])

  @parameterized.parameters(sorted(smoke.ALGORITHMS.values()))
  @pytest.mark.slow
  def test_steps_have_as_many_collectives_on_any_pod(self, name):
    config = smoke.get_config(name)
    algorithm, _, batch = smoke.begin(config)
    found = []
    for num in (8, 256):
      rows = 16 * num  # more than the few points of a shorter median
      for field in ('num_particles', 'num_chains'):
        if field in config:
          config[field] = rows
      whole = {
        key: np.resize(x, (rows, *x.shape[1:])) for key, x in batch.items()
      }
      state = jax.eval_shape(
        lambda rng, whole=whole: algorithm.init(rng, config, whole), _KEY
      )
      spec = parallel.partition(state, getattr(algorithm, 'SPLIT', ()))
      mapped = on_mesh(
        configs.step(config),
        num,
        (spec, PartitionSpec(parallel.AXIS), PartitionSpec()),
        (spec, PartitionSpec()),
      )
      found.append(collectives_of(lowered(mapped, state, whole, _KEY)))
    self.assertGreater(sum(found[0].values()), 0)
    self.assertEqual(*found)


if __name__ == '__main__':
  absltest.main()
