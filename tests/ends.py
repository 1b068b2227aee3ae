"""Trains configs at their smoke scale, and writes the states they end in.

python -m tests.ends FOLDER SEED MODE NAME...
"""

import pathlib
import sys
import tempfile

import jax
import numpy as np

from stein_jax.runs import training
from tests import smoke


def main(folder, seed, mode, *names):
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True)
  for name in names:
    config = smoke.get_config(name)
    config.seed, config.parallel, config.batch_size = int(seed), mode, 8
    with tempfile.TemporaryDirectory() as workdir:
      state = training.train(config, workdir)
    leaves = jax.tree_util.tree_leaves_with_path(state)
    arrays = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
    np.savez(folder / f'{name}.npz', **jax.tree.map(np.asarray, arrays))


if __name__ == '__main__':
  main(*sys.argv[1:])
