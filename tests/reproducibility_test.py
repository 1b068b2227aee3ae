"""What is the same when a run is repeated: in another process, on other devices."""

import functools
import os
import pathlib
import subprocess
import sys
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import chex
import jax
import numpy as np
import pytest

from tests import ends
from tests import smoke

_NAMES = tuple(sorted(smoke.ALGORITHMS.values()))
_DRAW_NOTHING = (  # in their steps
  'maximum_likelihood_mnist',
  'score_matching_mnist',
  'stein_cd_mnist',
  'svgd_breast_cancer',
)
# Its second step has a unit within rounding of zero, where its slope jumps.
_AT_A_KINK = 'vcd_cifar10'
# The bias of a GAN's logit has gradients near 1/2 of data and of samples, which cancel
# at first. Four steps of 1e-4 leave their rounding, of 2^-25 each.
_CANCELLED = 4 * 1e-4 * 2 * 2.0**-25


@functools.lru_cache
def _ends(mode, devices, names=_NAMES, seed=0, run=1):
  """Returns the states that runs end in, by config; `run` tells two of them apart."""
  del run
  with tempfile.TemporaryDirectory() as parent:
    folder = pathlib.Path(parent) / 'ends'
    command = ('-m', 'tests.ends', folder, str(seed), mode, *names)
    process = subprocess.run(
      [sys.executable, *command],
      cwd=pathlib.Path(__file__).parent.parent,
      env=dict(
        os.environ,
        JAX_PLATFORMS='cpu',
        JAX_NUM_CPU_DEVICES=str(devices),
        JAX_DISABLE_MOST_OPTIMIZATIONS='1',
        JAX_ENABLE_COMPILATION_CACHE='0',
      ),
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      timeout=1800,
    )
    if process.returncode:
      raise AssertionError(process.stdout[-4000:])
    return {name: dict(np.load(folder / f'{name}.npz')) for name in names}


def _differ(one, other):
  """Returns the arrays that differ by more than rounding, which is under 1e-3.

  Differences are relative to the largest number of an array; other random numbers
  make one of 0.4 and more.
  """
  return [
    name
    for name, x in one.items()
    if np.max(np.abs(x - other[name]), initial=0)
    > 1e-2 * np.max(np.abs(x), initial=0) + _CANCELLED
  ]


class ReproducibilityTest(parameterized.TestCase):
  def repeats(self, mode, devices, names):
    one, two = (_ends(mode, devices, names, run=run) for run in (1, 2))
    for name in names:
      with self.subTest(name):
        self.assertNotEmpty(one[name])
        chex.assert_trees_all_equal(one[name], two[name])

  def test_another_process_ends_in_the_same_bits(self):
    name = 'contrastive_divergence_mnist'
    there = _ends('shard_map', jax.device_count(), (name,))[name]
    here, other = (self.ends_here(name, seed) for seed in (0, 1))
    self.assertNotEmpty(here)
    chex.assert_trees_all_equal(there, here)
    # That the numbers do depend on the seed shows that there is something to repeat.
    self.assertNotEmpty(_differ(here, other))

  def ends_here(self, name, seed):
    folder = pathlib.Path(self.create_tempdir().full_path) / str(seed)
    ends.main(folder, seed, 'shard_map', name)
    return dict(np.load(folder / f'{name}.npz'))

  @parameterized.parameters('jit', 'shard_map')
  @pytest.mark.slow
  def test_so_does_every_algorithm(self, mode):
    self.repeats(mode, 4, _NAMES)

  @parameterized.parameters(1, 8)
  @pytest.mark.slow
  def test_jit_ends_in_the_same_numbers_on_any_number_of_devices(self, devices):
    four, others = _ends('jit', 4), _ends('jit', devices)
    for name in set(_NAMES) - {_AT_A_KINK}:
      with self.subTest(name):
        self.assertEmpty(_differ(four[name], others[name]))

  @pytest.mark.slow
  def test_mapped_steps_do_exactly_where_they_draw_nothing(self):
    two, four = _ends('shard_map', 2), _ends('shard_map', 4)
    same = [name for name in _NAMES if not _differ(four[name], two[name])]
    self.assertSequenceEqual(same, _DRAW_NOTHING)


if __name__ == '__main__':
  absltest.main()
