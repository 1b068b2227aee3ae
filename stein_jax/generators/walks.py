"""Paths through the latent space of a generator."""

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
  """Returns noise-free samples [num_walks, num_steps, ...] of random latent walks.

  Each step adds step_size U(-1, 1) to every coordinate of z [LW17 sec 5.2]. With a
  uniform prior z is then clipped to its range [-1, 1].

  Args:
    generator: the learner.
    rng: key of starts and steps.
    num_walks: number of walks.
    num_steps: samples of each walk.
    step_size: largest step in a coordinate.
    label: labels [num_walks]; all classes in turn if None and there are classes.
  """
  checks.key(rng=rng)
  checks.count(num_walks=num_walks, num_steps=num_steps)
  checks.finite(step_size=step_size)
  start_rng, step_rng, others_rng = jax.random.split(rng, 3)
  start = drawing.latent(generator, start_rng, num_walks)
  steps = step_size * jax.random.uniform(
    step_rng, (num_steps, *start.shape), minval=-1.0
  )
  # Outside the range of a uniform prior the generator has learned nothing.
  bounded = generator.prior == 'uniform'

  def move(z, step):
    # The place before the step is kept, so that a walk begins at its start.
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
  """Returns noise-free samples [num_pairs, num_points, ...] on straight latent lines.

  Args:
    generator: the learner.
    rng: key of the ends, which are draws of the prior.
    num_pairs: number of lines.
    num_points: samples of each line, its ends among them.
    label: labels [num_pairs]; all classes in turn if None and there are classes.
  """
  checks.key(rng=rng)
  checks.count(num_pairs=num_pairs, num_points=num_points)
  ends_rng, others_rng = jax.random.split(rng)
  first, last = jnp.split(drawing.latent(generator, ends_rng, 2 * num_pairs), 2)
  share = jnp.linspace(0, 1, num_points)[None, :, None]
  path = (1 - share) * first[:, None] + share * last[:, None]
  return _decode_paths(generator, others_rng, path, label)


def _decode_paths(generator, rng, path, label):
  paths, points, _ = path.shape
  classes = generator.num_classes
  drawing.check_label(label, classes, paths)
  if label is None and classes:
    label = jnp.arange(paths) % classes
  # With one key the rest of the batch does not change along a path.
  samples = drawing.decode(
    generator,
    rng,
    path.reshape(paths * points, -1),
    label=None if label is None else jnp.repeat(jnp.asarray(label), points),
  )
  return samples.reshape(paths, points, *samples.shape[1:])
