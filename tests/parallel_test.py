"""Several steps in one call are those steps, one after another."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stein_jax import datasets
from stein_jax import parallel
from stein_jax.runs import configs
from tests import smoke

_NAMES = (
  'contrastive_divergence_mnist',  # an energy
  'langevin_ebm_mnist',  # with chains that persist
  'steingan_toy',  # with a generator
  'svgd_toy',  # particles that are split over devices
)


class SeveralStepsTest(parameterized.TestCase):
  @parameterized.parameters(
    *((_NAMES[0], mode) for mode in parallel.MODES),
    ('svgd_toy', 'shard_map'),
  )
  def test_equal_single_ones(self, name, mode):
    self.check(name, mode)

  @parameterized.product(name=_NAMES[1:], mode=parallel.MODES)
  @pytest.mark.slow
  def test_so_do_others(self, name, mode):
    self.check(name, mode)

  def check(self, name, mode):
    config = smoke.get_config(name)
    algorithm, first, _ = smoke.begin(config)
    spec = parallel.partition(first, getattr(algorithm, 'SPLIT', ()))
    source = datasets.load(**config.data)
    batches = datasets.batches(source, config.batch_size, seed=0)
    batches = [next(batches) for _ in range(3)]
    keys = jax.random.split(jax.random.key(1), 3)
    compiled = functools.partial(
      parallel.compile_step,
      configs.step(config),
      mode,
      spec=spec,
    )
    start = lambda: parallel.replicate(jax.tree.map(jnp.copy, first), spec)

    expected, step = start(), compiled()
    for batch, key in zip(batches, keys, strict=True):
      expected, metrics = step(expected, batch, key)
    stacked = jax.tree.map(lambda *rows: np.stack(rows), *batches)
    actual = compiled(steps_per_call=3)(start(), stacked, keys)
    chex.assert_trees_all_close(
      jax.tree.leaves(actual),
      jax.tree.leaves((expected, metrics)),
      rtol=1e-5,
      atol=1e-6,
    )
    self.assertEqual(actual[0].step, 3)

  def test_fewer_than_one_are_refused(self):
    with self.assertRaisesRegex(ValueError, 'steps_per_call=0'):
      parallel.compile_step(lambda *a: a, 'jit', steps_per_call=0)


if __name__ == '__main__':
  absltest.main()
