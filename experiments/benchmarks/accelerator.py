"""What a GPU or a TPU makes of the project: one command, some minutes, one file.

Every program is timed on the device at hand, beside what it asks of it: operations of
products and convolutions, kernels, copies, calls of libraries and transfers to the
host. Shares are of the roof, a large float32 product in the same run. PyTorch is timed
on the same device where it has that: pip install 'stein_jax[bench]'.

Example:
  python -m experiments.benchmarks.accelerator --seconds=2
"""

from collections.abc import Callable
import contextlib
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from configs import langevin_ebm_mnist
from configs import vae_teaching_mnist
from experiments.benchmarks import counting
from experiments.benchmarks import primitives
from experiments.benchmarks import report
from experiments.benchmarks import training
from stein_jax import algorithms
from stein_jax import kernels
from stein_jax import stein
from stein_jax.runs import configs
from stein_jax.runs import reporting

_DIM = 64
# A device that is no CPU is not filled by less than the latter of these.
_SIDE = {'cpu': 1024}, 8192  # of the products that are the roof
_POINTS = {'cpu': (1000, 5000)}, (5000, 50_000)
_IMAGES = (100, 28, 28, 1)
_TASKS = {
  **training.TASKS,
  'Langevin EBM 28x28': training.Task(langevin_ebm_mnist.get_config(), _IMAGES),
  'VAE teaching 28x28': training.Task(vae_teaching_mnist.get_config(), _IMAGES),
}
_PRECISIONS = ('float32', 'tensorfloat32', 'bfloat16')


class Program(NamedTuple):
  """What is timed.

  Attributes:
    function: of arrays to arrays.
    args: the arrays.
    torch: the same in PyTorch, called without arguments; None where there is none.
  """

  function: Callable
  args: tuple[Any, ...]
  torch: Callable | None = None


def measure():
  """Returns the text, lines and pictures that `report.run` takes."""
  device, torch = jax.devices()[0], _torch()
  roof = {precision: product_speed(precision) for precision in _PRECISIONS}
  rows, lines = [], []
  for name, program in programs(torch).items():
    row, line = measured(name, program, roof['float32'])
    rows.append(row)
    lines.append(line)
  products = ', '.join(f'{k} {v / 1e12:.3g}' for k, v in roof.items())
  text = (
    f'{device.device_kind} ({device.platform}), jax {jax.__version__}, '
    f'{f"torch {torch.__version__}" if torch else "no PyTorch on it"}\n\n'
    f'Products, TFLOP/s: {products}\n\n{reporting.table(rows)}'
  )
  return text, lines, {}


def measured(name: str, program: Program, roof: float) -> tuple[dict, dict]:
  """Returns a program's line of this table, and of that of all benchmarks."""
  compiled = jax.jit(program.function).lower(*program.args).compile()
  timed = {'ours': lambda: compiled(*program.args)}
  if program.torch is not None:
    timed['PyTorch'] = program.torch
  times = report.medians(timed)
  ours, theirs = times['ours'], times.get('PyTorch', 0.0)
  asked = counting.operations(
    jax.make_jaxpr(program.function)(*program.args).jaxpr
  )
  row = {
    'program': name,
    'ms': f'{1e3 * ours:.3g}',
    'PyTorch': f'{1e3 * theirs:.3g}' if theirs else '',
    'GFLOP': f'{asked / 1e9:.3g}',
    'share of the roof': f'{asked / ours / roof:.2f}',
    **counting.instructions(compiled.as_text()),
  }
  return row, report.line(name, ours, 'PyTorch' if theirs else '', theirs)


def programs(torch) -> dict[str, Program]:
  """Returns what is timed, by name."""
  found, kernel = {}, kernels.RBF(25.0)
  for n in _here(_POINTS):
    points = jax.random.normal(jax.random.key(0), (2, n, _DIM))
    theirs = None
    if torch:
      theirs = functools.partial(
        primitives.torch_direction(torch),
        *(torch.tensor(jax.device_get(each)) for each in points),
      )
    found |= {
      f'direction, {n} points': Program(
        stein.SVGD(kernel), tuple(points), theirs
      ),
      f'direction at the median, {n} points': Program(
        stein.SVGD(), tuple(points)
      ),
      f'discrepancy, {n} points': Program(
        functools.partial(stein.ksd, kernel=kernel), tuple(points)
      ),
    }
  for name, task in _TASKS.items():
    found[f'step, {name}'] = step_of(task, torch)
  return found


def step_of(task: training.Task, torch) -> Program:
  """Returns one training step, with its batch on the device."""
  config = task.config
  batch = {'image': jnp.asarray(np.random.default_rng(0).random(task.shape))}
  batch = jax.tree.map(jnp.float32, batch)
  algorithm = algorithms.get(config.algorithm)
  state = algorithm.init(jax.random.key(0), config, batch)
  make = training.TORCH_STEPS.get(config.algorithm)
  theirs = make(torch, task) if torch and make else None
  return Program(
    configs.step(config), (state, batch, jax.random.key(1)), theirs
  )


def product_speed(precision: str) -> float:
  """Returns the operations a second of a large product of matrices."""
  n = _here(_SIDE)
  matrix = jax.random.normal(jax.random.key(0), (n, n))
  with jax.default_matmul_precision(precision):
    product = jax.jit(jnp.matmul).lower(matrix, matrix).compile()
  run = {'product': lambda: product(matrix, matrix)}
  return 2 * n**3 / report.medians(run)['product']


def _here(choices):
  """Returns the choice for the platform at hand."""
  of_platforms, otherwise = choices
  return of_platforms.get(jax.default_backend(), otherwise)


def _torch():
  """Returns PyTorch, whose tensors lie on the device at hand, or None."""
  with contextlib.suppress(ImportError):
    import torch  # pylint: disable=g-import-not-at-top

    if jax.default_backend() == 'cpu':
      return torch
    if jax.default_backend() == 'gpu' and torch.cuda.is_available():
      torch.set_default_device('cuda')
      return torch
  return None


if __name__ == '__main__':
  report.run('accelerator', measure)
