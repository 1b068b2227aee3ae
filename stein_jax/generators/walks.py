"""Ways through the latent space of a generator."""

import jax
from jax import lax
import jax.numpy as jnp

from stein_jax import checks
from stein_jax.generators import drawing
from stein_jax.learners import Learner
from stein_jax.types import Array, PRNGKey


def random_walk(
  generator: Learner,
  rng: PRNGKey,
  *,
  num_walks: int,
  num_steps: int,
  step_size: float = 0.01,
  label: Array | None = None,
) -> Array:
  """Returns noise-free samples [num_walks, num_steps, ...] of latent walks.

  z moves by step_size U(-1, 1) in each coordinate [LW17 sec 5.2], and is cut to
  [-1, 1] where the prior is uniform. Labels [num_walks] are one for each walk.
  """
  checks.count(num_walks=num_walks, num_steps=num_steps)
  checks.finite(step_size=step_size)
  start_rng, step_rng, others_rng = jax.random.split(rng, 3)
  start = drawing.latent(generator, start_rng, num_walks)
  steps = step_size * jax.random.uniform(
    step_rng, (num_steps, *start.shape), minval=-1.0
  )
  bounded = generator.apply_fn(
    generator.params, method=lambda module: module.prior == 'uniform'
  )

  def move(z, step):
    following = z + step
    return jnp.clip(following, -1, 1) if bounded else following, z

  path = lax.scan(move, start, steps)[1].swapaxes(0, 1)
  return _decode_paths(generator, others_rng, path, label)


def interpolate(
  generator: Learner,
  rng: PRNGKey,
  *,
  num_pairs: int,
  num_points: int,
  label: Array | None = None,
) -> Array:
  """Returns noise-free samples [num_pairs, num_points, ...] on straight lines.

  Each line joins two draws of the prior. Labels [num_pairs] are one for each line.
  """
  checks.count(num_pairs=num_pairs, num_points=num_points)
  ends_rng, others_rng = jax.random.split(rng)
  first, last = jnp.split(drawing.latent(generator, ends_rng, 2 * num_pairs), 2)
  share = jnp.linspace(0, 1, num_points)[None, :, None]
  path = (1 - share) * first[:, None] + share * last[:, None]
  return _decode_paths(generator, others_rng, path, label)


def _decode_paths(generator, rng, path, label):
  paths, points, _ = path.shape
  classes = drawing.num_classes(generator)
  drawing.check_label(label, classes, paths)
  if label is None and classes:
    label = jnp.arange(paths) % classes
  samples = drawing.decode(
    generator,
    rng,
    path.reshape(paths * points, -1),
    label=None if label is None else jnp.repeat(jnp.asarray(label), points),
  )
  return samples.reshape(paths, points, *samples.shape[1:])
