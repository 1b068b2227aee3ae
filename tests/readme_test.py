"""The Python blocks of README.md run as they stand."""

import importlib
import pathlib
import re
import unittest

from absl.testing import absltest
from absl.testing import parameterized
import jax
import pytest

_README = pathlib.Path(__file__).parent.parent / 'README.md'
_BLOCKS = re.findall(r'```python\n(.*?)```', _README.read_text('utf-8'), re.S)


class ReadmeTest(parameterized.TestCase):
  @parameterized.parameters(i for i in range(len(_BLOCKS)) if i != 1)
  def test_block_runs(self, i):
    self.check(i)

  @pytest.mark.slow
  def test_block_of_several_devices_runs(self):
    self.check(1)

  def check(self, i):
    for package in ('numpyro', 'blackjax'):
      if f'import {package}' in _BLOCKS[i]:
        try:
          importlib.import_module(package)
        except ImportError:
          raise unittest.SkipTest(f'{package} is not installed') from None
    names = {}
    # Readers do not raise on rank promotion.
    with jax.numpy_rank_promotion('allow'):
      exec(_BLOCKS[i], names)  # pylint: disable=exec-used
    checks = {
      0: lambda: abs(names['x'].mean() - 3.0) < 0.05,
      1: lambda: (
        abs(names['by_pmap'].reshape(-1, 2) - names['each'][0]).max() < 1e-5
        and abs(names['by_shard_map'] - names['each'][0]).max() < 1e-5
      ),
      # The sample mean is 1.475, and a prior of scale 10 hardly moves it.
      2: lambda: abs(names['posterior']['mean'].mean() - 1.475) < 0.05,
      # What is zero at rest is the mean of the scores weighted by the kernel.
      3: lambda: (
        abs(names['samples'].mean() - 3.0) < 0.4
        and abs(names['samples'].std() - 1.0) < 0.3
      ),
      4: lambda: names['metrics']['energy/data'] < 0,
      5: lambda: 0.5 < names['metrics']['chain/acceptance'] < 1,
    }
    self.assertTrue(checks[i]())


if __name__ == '__main__':
  absltest.main()
