"""Pictures of a run: its samples, its ways through latent space, its curves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from stein_jax import algorithms
from stein_jax import build
from stein_jax import datasets
from stein_jax import generators
from stein_jax import learners
from stein_jax.runs import configs
from stein_jax.runs import images
from stein_jax.runs import reporting

_SHOWN = 400  # samples in a picture, at most


def picture(samples, batch, *, columns: int | None = None) -> bytes | None:
  """Returns a PNG of samples: a grid of images, or a scatter over the batch's data.

  None for what has no picture: more dimensions, or a tree.

  Args:
    samples: what to show.
    batch: data beside it, whose range is that of the picture.
    columns: of the grid; a square without.
  """
  if not hasattr(samples, 'ndim'):
    return None
  samples, data = np.asarray(samples), batch['image']
  if samples.ndim == 4 and samples.shape[-1] in (1, 3):
    # Small images are hard to see at one pixel each.
    grid = images.grid(_shown(samples, data), columns=columns)
    return reporting.Pixels(images.png(grid, zoom=3))
  if samples.ndim == 2 and samples.shape[1] <= 2:
    return reporting.scatter({'data': data[: len(samples)], 'samples': samples})
  return None


def recovery_page(samples, batch, section, *, num: int = 8) -> bytes:
  """Returns a PNG: a row each of conditions, samples and true images."""
  rows = [
    datasets.to_unit(x[:num], section)
    # The order of X21's figures: what is known, what is made of it, the truth.
    for x in (batch['condition'], samples, batch['image'])
  ]
  labels = ('known', 'recovered', 'true')
  page = images.strips(np.stack(rows))
  return reporting.Pixels(images.png(page, zoom=2, labels=labels))


def image_condition(batch):
  """Returns the images [n, ...] that samples are made of; None for labels, or none."""
  condition = batch.get('condition')
  return None if condition is None or condition.ndim < 2 else condition


def labels_of(state, num):
  """Returns the labels [num] of a state's samples, None without."""
  if not hasattr(state, 'generator'):
    return None
  classes = state.generator.num_classes
  return np.arange(num) % classes if classes else None


def sample_sections(config, folder, state, samples, batch):
  """Returns the report's sections of samples, and writes their files."""
  labels = labels_of(state, len(samples))
  classes = 0 if labels is None else state.generator.num_classes
  image = picture(samples[:_SHOWN], batch, columns=classes or None)
  if not image:
    return []
  (folder / 'samples.png').write_bytes(image)
  sections = [
    ('Samples, a column for each class' if classes else 'Samples', image)
  ]
  if samples.ndim != 4:
    return sections
  # Bytes, so that any other tool reads the samples, as `datasets.npz` does.
  unit = np.round(255 * datasets.to_unit(samples, config.data))
  arrays = {} if labels is None else {'label': labels}
  np.savez(folder / 'samples.npz', image=unit.astype(np.uint8), **arrays)
  if image_condition(batch) is not None:
    title = 'What is known, what was made of it, and the true image'
    return [*sections, (title, recovery_page(samples, batch, config.data))]
  sections.append(('Data', picture(batch['image'][:_SHOWN], batch)))
  if not _has_latents(state):
    return sections
  shown = functools.partial(_shown, data=batch['image'])
  for name, (title, paths) in _latent_paths(config, state).items():
    paths = shown(np.asarray(paths))
    (folder / f'{name}.gif').write_bytes(images.gif(paths, zoom=3))
    strips = images.png(images.strips(paths), zoom=2)
    sections.append((title, reporting.Pixels(strips)))
  return sections


def _has_latents(state):
  """Returns whether a state has a generator whose latents can be walked through."""
  generator = getattr(state, 'generator', None)
  return generator is not None and all(
    learners.has_method(generator, each) for each in ('latent', 'decode')
  )


def _latent_paths(config, state):
  """Returns a title and images [k, t, ...] for each way through latent space.

  Images that the algorithm revises are shown revised, and on the way there.
  """
  algorithm = algorithms.get(config.algorithm)
  # Another key than that of the samples, which is seed + 1.
  rng = jax.random.key(config.seed + 2)
  paths = {
    'random_walk': (
      'Random walks in latent space, every fourth step',
      generators.random_walk(
        state.generator, rng, num_walks=4, num_steps=120, step_size=0.1
      )[:, ::4],
    )
  }
  points = generators.interpolate(
    state.generator, rng, num_pairs=8, num_points=15
  )
  # What revises; a chain of no steps, or without a count of them, shows none.
  options = build.values(algorithm.sample, configs.plain(config.sample))
  chain = options.get('chain')
  num_steps = getattr(chain, 'num_steps', 0)
  if not (hasattr(algorithm, 'revise') and num_steps):
    return {**paths, 'interpolation': ('Between two latent vectors', points)}
  revise = functools.partial(algorithm.revise, state)
  ends = revise(rng, points.reshape(-1, *points.shape[2:]), chain=chain)
  paths['interpolation'] = (
    'Between two latent vectors, revised',
    ends.reshape(points.shape),
  )
  # One step at a time, so that each can be seen.
  strip = [generators.sample(state.generator, rng, 8)]
  for i in range(num_steps):
    key = jax.random.fold_in(rng, i)
    strip.append(revise(key, strip[-1], chain=chain.replace(num_steps=1)))
  title = 'A sample of the generator, and every step of its revision'
  return {**paths, 'revision': (title, jnp.stack(strip, 1))}


def _shown(samples, data):
  """Returns samples with the range of the data, 0 in it, as [0, 1]."""
  # With the data's range and not their own, samples that are too dark or too
  # bright look so.
  low = min(0.0, float(data.min()))
  return (samples - low) / ((float(data.max()) - low) or 1.0)


def curves(workdir) -> reporting.Plots:
  """Returns one plot for each metric that the run logged more than once."""
  lines = reporting.read_metrics(workdir)
  names = {name: None for line in lines for name in line if name != 'step'}
  plots = reporting.Plots()
  for name in names:
    points = [(line['step'], line[name]) for line in lines if name in line]
    if len(points) > 1:
      plots[name] = reporting.curves(
        {name: tuple(zip(*points, strict=True))},
        xlabel='step',
        ylabel='',
        size=(4, 2.6),
      )
  return plots
