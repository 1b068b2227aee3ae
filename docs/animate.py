"""Draws the moving pictures of README and of the documentation.

python -m docs.animate banana modes
python -m docs.animate digits --workdir=runs/teaching

They are written to docs/pages/figures: particles that SVGD moves onto a banana, a
network that learns to draw from eight Gaussians, and chains that revise the digits of
a generator, of a run of `vae_teaching` or `coopnets`.
"""

import argparse
import io
import pathlib

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
from PIL import Image

from stein_jax import algorithms
from stein_jax import datasets
from stein_jax import densities
from stein_jax import generators
from stein_jax import runs
from stein_jax.algorithms import amortized_svgd
from stein_jax.algorithms import svgd
from stein_jax.runs import configs
from stein_jax.runs import images

matplotlib.use('agg')
from matplotlib import pyplot as plt  # noqa: E402

_FOLDER = pathlib.Path(__file__).parent / 'pages' / 'figures'
_FRAMES = 48


def banana(args):
  """Returns a GIF of 200 particles from a Gaussian onto the banana."""
  del args
  density = densities.banana()
  start = density.start(jax.random.key(0), 200, None)
  state = svgd.create(density.log_density, start, optax.adam(0.05))
  advance = jax.jit(lambda state, _: (svgd.step(state, None, None)[0], None))
  clouds, steps = [start], [0]
  # Most happens in the beginning, so the steps between frames grow.
  for i in range(_FRAMES):
    num = 1 + i // 3
    state, _ = jax.lax.scan(advance, state, length=num)
    clouds.append(state.particles.params['particles'])
    steps.append(steps[-1] + num)
  return scene(density.log_density, clouds, steps, (-3, 3, -2, 4))


def modes(args):
  """Returns a GIF of a network's samples while it learns eight Gaussians."""
  del args
  density = densities.eight_gaussians()
  generator = generators.create(
    jax.random.key(0),
    generators.MLP(latent_dim=4, dim=2),
    optax.adam(1e-3),
    num=200,
  )
  state = amortized_svgd.create(density.log_density, generator)

  @jax.jit
  def advance(state, rng):
    return amortized_svgd.step(state, None, rng)[0], None

  @jax.jit
  def draw(state):
    return amortized_svgd.sample(state, jax.random.key(1), 400)

  clouds, steps = [draw(state)], [0]
  for i in range(_FRAMES):
    num = 5 + 4 * i
    keys = jax.random.split(jax.random.key(2 + i), num)
    state, _ = jax.lax.scan(advance, state, keys)
    clouds.append(draw(state))
    steps.append(steps[-1] + num)
  return scene(density.log_density, clouds, steps, (-6, 6, -6, 6))


def scene(log_density, clouds, steps, extent):
  """Returns a GIF of clouds of points over the density, with the number of steps."""
  left, right, low, high = extent
  x, y = np.meshgrid(np.linspace(left, right, 120), np.linspace(low, high, 120))
  points = jnp.stack([x.ravel(), y.ravel()], 1)
  height = np.exp(jax.vmap(log_density)(points)).reshape(x.shape)
  fig, ax = plt.subplots(figsize=(3.2, 3.2), layout='constrained')
  ax.contourf(x, y, height, 12, cmap='Blues')
  ax.set(xlim=(left, right), ylim=(low, high), xticks=[], yticks=[])
  dots = ax.scatter([], [], s=6, color='C1', edgecolors='none')
  frames = []
  for cloud, step in zip(clouds, steps, strict=True):
    dots.set_offsets(np.asarray(cloud))
    ax.set_title(f'step {step}', fontsize=10)
    buffer = io.BytesIO()
    fig.savefig(buffer, dpi=100)
    frames.append(Image.open(buffer).convert('RGB'))
  return animation(frames)


def digits(args):
  """Returns a GIF of chains that revise a generator's samples, step by step."""
  run = runs.load(args.workdir)
  revise = algorithms.get(run.config.algorithm).revise
  rng = jax.random.key(3)
  x = generators.sample(run.state.generator, rng, 24)
  chain = configs.sample(run.config).keywords['chain']
  path = [x]
  for i in range(chain.num_steps):
    key = jax.random.fold_in(rng, i)
    path.append(
      revise(run.state, key, path[-1], chain=chain.replace(num_steps=1))
    )
  unit = datasets.to_unit(np.stack(path), run.config.data)
  frames = [
    Image.fromarray(
      np.kron(images.grid(x, columns=8), np.ones((3, 3, 1), 'u1'))
    )
    for x in unit
  ]
  return animation(frames)


def animation(frames):
  """Returns a GIF of pictures that stays at its first and its last one."""
  times = [80] * len(frames)
  times[0], times[-1] = 800, 2000
  buffer = io.BytesIO()
  # One palette for all frames keeps the file small.
  palette = frames[-1].quantize(48)
  frames = [frame.quantize(palette=palette, dither=0) for frame in frames]
  frames[0].save(
    buffer,
    'GIF',
    save_all=True,
    append_images=frames[1:],
    duration=times,
    loop=0,
    optimize=True,
  )
  return buffer.getvalue()


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('names', nargs='+', choices=('banana', 'modes', 'digits'))
  parser.add_argument('--workdir', help='Run whose generator draws the digits.')
  args = parser.parse_args()
  _FOLDER.mkdir(exist_ok=True)
  for name in args.names:
    (_FOLDER / f'{name}.gif').write_bytes(globals()[name](args))


if __name__ == '__main__':
  main()
