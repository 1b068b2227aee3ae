"""Training steps a second, against the same models written in PyTorch.

CD-k with Langevin steps of an RBM on 784 inputs, of an MLP in two dimensions, and of a
convolutional energy of 28x28 images; SteinGAN in LW17's setting on MNIST. The PyTorch
programs are written out here, run eagerly and through torch.compile; ours as the
training loop runs it, also with hashed noise (config.prng_impl), and with 50 steps a
call (config.steps_per_call). One process, in turn. PyTorch comes with pip install
'stein_jax[bench]'; without it ours alone is timed.

Example:
  python -m experiments.benchmarks.training --seconds=2
"""

import functools
import math
from typing import NamedTuple

import jax
from ml_collections import ConfigDict
import numpy as np

from configs import steingan_mnist
from experiments.benchmarks import report
from stein_jax import algorithms
from stein_jax import parallel
from stein_jax import randomness
from stein_jax.runs import configs
from stein_jax.runs import reporting

_SEVERAL = 50  # steps a call
_COLUMNS = (
  'ours',
  'ours, hashed',
  'ours, hashed, 50 a call',
  'PyTorch, eager',
  'PyTorch, compiled',
  'PyTorch, one pass',
)
# The same on both sides; no time depends on them.
RATE, STEP_SIZE = 1e-3, 0.1


class Task(NamedTuple):
  """What is trained: a config's algorithm on batches of such a shape."""

  config: ConfigDict
  shape: tuple[int, ...]  # of the batch


def langevin(energy, shape, num_steps) -> Task:
  """Returns CD-k with Langevin steps from the data."""
  config = dict(
    algorithm='contrastive_divergence',
    step=dict(chain=dict(num_steps=num_steps, step_size=STEP_SIZE)),
    energy=energy,
    optimizer=dict(name='adam', learning_rate=RATE),
  )
  return Task(configs.complete(config), shape)


_RBM = dict(name='RBM', num_hidden=10)
_MLP = dict(name='MLP', widths=(64, 64), confinement=0.0)
_CONVNET = dict(
  name='ConvNet', widths=(16, 32, 64), kernels=(5, 3, 3), strides=(2, 2, 2)
)


def _deep_steingan() -> ConfigDict:
  """Returns SteinGAN whose energy is an autoencoder that mixes no examples."""
  config = steingan_mnist.get_config()
  config.energy = dict(name='Autoencoder', norm='none', dropout=0.0)
  return configs.complete(config)


# From a small network, in which overhead shows, to a large one.
TASKS = {
  'RBM 784-10, CD-1': langevin(_RBM, (100, 784), 1),
  'RBM 784-10, CD-10': langevin(_RBM, (100, 784), 10),
  'MLP 2-64-64-1, CD-10': langevin(_MLP, (200, 2), 10),
  'MLP 2-64-64-1, CD-100': langevin(_MLP, (200, 2), 100),
  'ConvNet 28x28, 20 steps': langevin(_CONVNET, (100, 28, 28, 1), 20),
  'SteinGAN 28x28': Task(steingan_mnist.get_config(), (100, 28, 28, 1)),
  'SteinGAN 28x28, autoencoder': Task(_deep_steingan(), (100, 28, 28, 1)),
}


def measure():
  """Returns the text, lines and pictures that `report.run` takes."""
  speeds = {name: measured(task) for name, task in TASKS.items()}
  rows = [row(name, found) for name, found in speeds.items()]
  lines = [
    report.line(
      # The best way of each side, since a user would choose it.
      f'step of {name}',
      1 / best(found, 'ours'),
      'PyTorch' if best(found, 'PyTorch') else '',
      1 / (best(found, 'PyTorch') or 1),
    )
    for name, found in speeds.items()
  ]
  return f'Training steps a second\n\n{reporting.table(rows)}', lines, {}


def measured(task: Task) -> dict[str, float]:
  """Returns steps a second of every program."""
  programs = {'ours': ours(task), 'ours, hashed': ours(task, 1, 'hashed')}
  if len(task.shape) == 2:  # a scan slows convolutions on a CPU
    programs['ours, hashed, 50 a call'] = ours(task, _SEVERAL, 'hashed')
  try:
    import torch  # pylint: disable=g-import-not-at-top
  except ImportError:
    pass
  else:
    # PyTorch's weights are random too, but time does not depend on them.
    torch.manual_seed(0)
    make = functools.partial(TORCH_STEPS[task.config.algorithm], torch, task)
    programs['PyTorch, eager'] = make()
    programs['PyTorch, compiled'] = make(compiled=True)
    if task.config.algorithm == 'steingan':
      programs['PyTorch, one pass'] = make(one_pass=True)
  # In one process and in turn, so that neither side has the machine to itself.
  times = report.medians(programs)
  return {
    name: (_SEVERAL if name.endswith('a call') else 1) / taken
    for name, taken in times.items()
  }


def best(speeds, who):
  """Returns the steps a second of the fastest program of ours or theirs, or 0."""
  found = [speed for key, speed in speeds.items() if key.startswith(who)]
  return max(found, default=0)


def row(name, speeds):
  theirs = best(speeds, 'PyTorch')
  ratio = best(speeds, 'ours') / theirs if theirs else float('nan')
  shown = {name: f'{speed:.3g}' for name, speed in speeds.items()}
  return {
    'model': name,
    **{column: shown.get(column, '') for column in _COLUMNS},
    'best over best': f'{ratio:.2f}',
  }


def ours(task: Task, steps_per_call: int = 1, prng_impl: str = 'threefry2x32'):
  """Returns a function that makes one call of the compiled step, and waits for it."""
  config = task.config
  algorithm = algorithms.get(config.algorithm)
  # On the host, as the loop has it: each call pays for its way to the device.
  batch = {'image': np.random.default_rng(0).random(task.shape, np.float32)}
  state = algorithm.init(jax.random.key(0), config, batch)
  rng = randomness.convert(jax.random.key(1), prng_impl)
  if steps_per_call > 1:
    batch = jax.tree.map(lambda x: np.stack([x] * steps_per_call), batch)
    rng = jax.random.split(rng, steps_per_call)
  step = parallel.compile_step(
    configs.step(config),
    'jit',
    steps_per_call=steps_per_call,
  )
  # The state may be donated, so that each call begins where the last one ended.
  holder = [state]

  def call():
    holder[0], metrics = step(holder[0], batch, rng)
    return metrics

  return call


def torch_cd(torch, task: Task, *, compiled: bool = False):
  """Returns a function that makes one step of the same CD-k in PyTorch."""
  energy = _torch_energy(torch, task.config.energy, task.shape)
  num_steps = task.config.step.chain.num_steps
  parameters = list(energy.parameters())
  optimizer = torch.optim.Adam(parameters, lr=RATE)
  data = torch.rand(task.shape)
  if len(task.shape) == 4:
    # PyTorch's convolutions want channels first.
    data = data.permute(0, 3, 1, 2)

  def chain(x):
    for _ in range(num_steps):
      # Each step begins a new graph, or the chain would be differentiated as a
      # whole.
      x = x.detach().requires_grad_()
      (slope,) = torch.autograd.grad(energy(x).sum(), x)
      x = x - STEP_SIZE**2 / 2 * slope + STEP_SIZE * torch.randn_like(x)
    return x.detach()

  def loss(samples):
    return energy(data).mean() - energy(samples).mean()

  if compiled:
    # One Langevin step is one program; autograd.grad does not trace in a loop.
    gradient = torch.compile(
      torch.func.grad(lambda x: energy(x).sum()), dynamic=False
    )
    loss = torch.compile(loss, dynamic=False)

    def chain(x):
      for _ in range(num_steps):
        with torch.no_grad():
          slope = gradient(x)
          x = x - STEP_SIZE**2 / 2 * slope + STEP_SIZE * torch.randn_like(x)
      return x

  def call():
    value = loss(chain(data))
    optimizer.zero_grad(set_to_none=True)
    value.backward()
    optimizer.step()
    return float(value.detach())

  return call


def torch_steingan(
  torch, task: Task, *, compiled: bool = False, one_pass: bool = False
):
  """Returns a function that makes one step of the same SteinGAN in PyTorch.

  With one pass, and PyTorch's fused Adam, it is what somebody would write who knows
  that the samples' scores and their part of the contrast can be had at once.
  """
  config, num = task.config, task.shape[0]
  generator = _torch_deconv(torch, config.generator)
  energy = _torch_energy(torch, config.energy, (num, 784))
  adam = lambda network: torch.optim.Adam(
    network.parameters(),
    lr=config.energy_optimizer.learning_rate,
    fused=one_pass,
  )
  move_generator, move_energy = adam(generator), adam(energy)
  data = torch.rand(num, 784)
  loss = lambda samples: energy(data).mean() - energy(samples).mean()
  draw = generator
  if compiled:
    draw, loss = (torch.compile(f, dynamic=False) for f in (draw, loss))

  def score_and_slopes(x):
    x = x.detach().requires_grad_()
    of = [x, *energy.parameters()] if one_pass else [x]
    value = energy(x).sum()
    slope, *slopes = torch.autograd.grad(value, of)
    return slope, slopes

  def direction(x, slope):
    x = x.detach()
    sq_dist = torch.cdist(x, x) ** 2
    # The authors' rule, written as PyTorch users write it.
    bandwidth = sq_dist.median() / math.log(num + 1)
    k = torch.exp(-sq_dist / bandwidth)
    pull = k.sum(1, keepdim=True) * x - k @ x
    return (2 / bandwidth * pull - k @ slope) / num

  def descend(optimizer, value):
    optimizer.zero_grad(set_to_none=True)
    value.backward()
    optimizer.step()
    return float(value.detach())

  def call():
    latent = 2 * torch.rand(num, config.generator.latent_dim) - 1
    samples = draw(latent).flatten(1)
    slope, slopes = score_and_slopes(samples)
    phi = direction(samples, slope)
    descend(move_generator, -(samples * phi).sum(1).mean())
    if not one_pass:
      return descend(move_energy, loss(samples.detach()))
    move_energy.zero_grad(set_to_none=True)
    value = energy(data).mean()
    value.backward()
    for parameter, of_samples in zip(energy.parameters(), slopes, strict=True):
      parameter.grad.sub_(of_samples, alpha=1 / num)
    move_energy.step()
    return float(value.detach())

  return call


def _torch_deconv(torch, section):
  nn, width = torch.nn, section.width
  # Norms by the batch at hand and without a gain, as our generator has them.
  free = dict(affine=False, track_running_stats=False)
  larger = functools.partial(
    nn.ConvTranspose2d,
    kernel_size=5,
    stride=2,
    padding=2,
    output_padding=1,
    bias=False,
  )
  return nn.Sequential(
    nn.Linear(section.latent_dim, 16 * width, bias=False),
    *(nn.BatchNorm1d(16 * width, **free), nn.ReLU()),
    nn.Linear(16 * width, 49 * 2 * width, bias=False),
    *(nn.BatchNorm1d(49 * 2 * width, **free), nn.ReLU()),
    nn.Unflatten(1, (2 * width, 7, 7)),
    larger(2 * width, width),
    *(nn.BatchNorm2d(width, **free), nn.ReLU()),
    *(larger(width, 1), nn.Sigmoid()),
  )


TORCH_STEPS = {
  'contrastive_divergence': torch_cd,
  'steingan': torch_steingan,
}


def _torch_energy(torch, section, shape):
  nn = torch.nn
  if section.name == 'RBM':

    class RBM(nn.Module):
      def __init__(self, visible, hidden):
        super().__init__()
        self.weight = nn.Parameter(0.05 * torch.randn(visible, hidden))
        self.visible = nn.Parameter(torch.zeros(visible))
        self.hidden = nn.Parameter(torch.zeros(hidden))

      def forward(self, x):
        pull = ((x - self.visible) ** 2).sum(1) / 2
        field = x @ self.weight + self.hidden
        return pull - nn.functional.softplus(2 * field).sum(1) + field.sum(1)

    return RBM(shape[1], section.num_hidden)
  if section.name == 'Autoencoder':
    return _torch_autoencoder(torch, section)
  if section.name == 'MLP':
    sizes = (shape[1], *section.widths)
    layers = []
    for before, after in zip(sizes, sizes[1:], strict=False):
      layers += [nn.Linear(before, after), nn.SiLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 1), nn.Flatten(0))
  # The side is followed through the strides, for the size of the last layer.
  maps, layers, side = 1, [], shape[1]
  for width, kernel, stride in zip(
    *(section[key] for key in ('widths', 'kernels', 'strides')), strict=True
  ):
    layers += [
      nn.Conv2d(maps, width, kernel, stride, padding=kernel // 2),
      nn.LeakyReLU(0.2),
    ]
    maps, side = width, -(-side // stride)
  return nn.Sequential(
    *layers, nn.Flatten(), nn.Linear(maps * side**2, 1), nn.Flatten(0)
  )


def _torch_autoencoder(torch, section):
  nn, call = torch.nn, torch.nn.functional

  class Autoencoder(nn.Module):
    def __init__(self):
      super().__init__()
      maps = [1, *(width for width, *_ in section.convs)]
      self.kernels = nn.ParameterList(
        0.02 * torch.randn(after, before, size, size)
        for before, after, (_, size, *_) in zip(
          maps, maps[1:], section.convs, strict=False
        )
      )

    def forward(self, x):
      y = x = x.view(-1, 1, 28, 28)
      layers = list(zip(self.kernels, section.convs, strict=True))
      for kernel, (_, _, stride, padding) in layers:
        y = torch.relu(call.conv2d(y, kernel, None, stride, padding))
      for i, (kernel, (_, size, stride, padding)) in enumerate(layers[::-1]):
        # What the strided convolution left out on the other side.
        extra = 0 if stride == size else 1
        y = call.conv_transpose2d(y, kernel, None, stride, padding, extra)
        y = torch.relu(y) if i < len(layers) - 1 else torch.sigmoid(y)
      return (x - y).flatten(1).norm(dim=1)

  return Autoencoder()


if __name__ == '__main__':
  report.run('training', measure)
