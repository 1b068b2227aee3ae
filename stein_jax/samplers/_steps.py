"""One Metropolis-adjusted Langevin step, and what chains of any points share."""

import functools

import jax
import jax.numpy as jnp
import optax

from stein_jax import checks
from stein_jax import dtypes

# On a Gaussian in d dimensions, for large d, MALA moves furthest at a step of 1.651
# d^(-1/6) standard deviations, where it accepts 0.574.
BEST_RATE = 0.574
BEST_STEP = 1.651
FURTHEST = 20.0  # logarithms between an adapted step and its first value


def chains(x):
  """Returns floating points with leaves [n, ...], and n; refuses what has no n."""
  x = jax.tree.map(dtypes.floating, x)
  shapes = [leaf.shape for leaf in jax.tree.leaves(x)]
  if not shapes or not all(shapes) or len({shape[0] for shape in shapes}) > 1:
    raise ValueError(
      f'x has shapes {shapes}; wanted: [n, ...] each, of one n, the chains.'
    )
  if not shapes[0][0]:
    raise ValueError(f'x has shapes {shapes}: there is no chain.')
  return x, shapes[0][0]


def per_chain(log_density_fn, num_chains):
  """Returns the log density as a function that refuses values other than [n]."""

  def checked(x):
    log_density = dtypes.at_least_float32(log_density_fn(x))
    checks.per_example(num_chains, log_density=log_density)
    return log_density

  return checked


def like_points(score_fn):
  """Returns the score as a function that refuses values unlike its points."""

  def checked(x):
    score = jax.tree.map(dtypes.floating, score_fn(x))
    checks.like(x, score=score)
    return score

  return checked


def accumulated(x):
  """Returns x with half-precision leaves in float32: small steps add up."""
  return jax.tree.map(dtypes.at_least_float32, x)


def evaluate(log_density_fn, x):
  """Returns (x, log density [n], score like x)."""
  log_density, pullback = jax.vjp(log_density_fn, x)
  (score,) = pullback(jnp.ones_like(log_density))
  return x, log_density, score


def mala_step(rng, here, evaluate_fn, step_size, mix=lambda value: value):
  """Returns the points after one step, who moved [n], and its probability [n].

  Args:
    rng: key of the step.
    here: (x, log density, score) or more than one density and score of each, as
      `evaluate_fn` returns them of x.
    evaluate_fn: function of x, such as `evaluate` of a density.
    step_size: delta.
    mix: function of the log densities, and of the scores, to those of the target.
  """
  noise_rng, accept_rng = jax.random.split(rng)
  x, log_densities, scores = here
  noise = optax.tree.random_like(noise_rng, x)
  proposal = add(drift(x, mix(scores), step_size), step_size, noise)
  there = evaluate_fn(proposal)
  # The noise that the way back would need, in the same units.
  back = jax.tree.map(
    lambda x, mean: (x - mean) / step_size,
    x,
    drift(proposal, mix(there[2]), step_size),
  )
  log_ratio = (
    mix(there[1])
    - mix(log_densities)
    + 0.5 * per_chain_sum_of_squares(noise)
    - 0.5 * per_chain_sum_of_squares(back)
  )
  uniform = jax.random.uniform(accept_rng, log_ratio.shape)
  accept = jnp.log(uniform) < log_ratio  # False where the ratio is nan
  rate = jnp.where(jnp.isnan(log_ratio), 0, jnp.exp(jnp.minimum(log_ratio, 0)))
  moved = jax.tree.map(functools.partial(select, accept), there, here)
  return moved, accept, rate


def select(accept, new, old):
  return jnp.where(accept.reshape(-1, *[1] * (old.ndim - 1)), new, old)


def drift(x, score, step_size):
  step_size = 1.0 * step_size  # an integer of 8 bits has no square
  return add(x, step_size**2 / 2, score)


def add(x, scale, direction):
  """Returns x + scale * direction, in the dtypes of x."""
  return jax.tree.map(
    lambda x, d: x + (scale * d).astype(x.dtype), x, direction
  )


def per_chain_sum_of_squares(tree):
  return sum(
    jnp.sum(leaf.reshape(len(leaf), -1) ** 2, -1)
    for leaf in jax.tree.leaves(tree)
  )
