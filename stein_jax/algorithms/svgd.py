"""Stein variational gradient descent of particles on any log density [LW16].

From Python, `create` a state from a log density over any pytree, then `step` it. A
config names one of `densities`.
"""

from collections.abc import Callable
import functools
from typing import NamedTuple

import jax
from jax import flatten_util
import jax.numpy as jnp
import optax

from stein_jax import build
from stein_jax import checks
from stein_jax import collectives
from stein_jax import densities
from stein_jax import dtypes
from stein_jax import learners
from stein_jax import stein
from stein_jax.types import Array, Batch, Metrics, PRNGKey, Tree

SPLIT = ('particles',)
FIELDS = dict(num_particles=100)
_MANY = 10  # dimensions, in which the prediction holds for narrow kernels too


class State(NamedTuple):
  step: Array
  particles: learners.Learner  # params: {'particles': leaves [n, ...]}


def create(
  log_density_fn: Callable[..., Array],
  particles: Tree,
  optimizer: optax.GradientTransformation,
) -> State:
  """Returns a state of particles on a log density.

  Args:
    log_density_fn: function of one position, a tree like one particle, to log p [] up
      to a constant. It takes the batch as second argument if `step` is given one.
    particles: a tree with leaves [n, ...]; integers are taken as numbers.
    optimizer: an optax optimizer, which descends -phi.

  Raises:
    ValueError: the leaves do not hold one number of particles, or the log density is
      not [] or fails at one position. One that takes a batch is checked at the first
      step.
    TypeError: the optimizer is none of optax.

  Examples:
    >>> log_density = lambda x: -0.5 * jnp.sum((x - 3) ** 2)
    >>> start = jax.random.normal(jax.random.key(0), (20, 2))
    >>> state = create(log_density, start, optax.sgd(0.5))
    >>> one_step = jax.jit(step)
    >>> for _ in range(100):
    ...   state, metrics = one_step(state, None, None)
    >>> print(state.particles.params['particles'].mean(0).round(1))
    [3. 3.]
  """
  particles = jax.tree.map(dtypes.floating, particles)
  shapes = [leaf.shape for leaf in jax.tree.leaves(particles)]
  counts = {shape[:1] for shape in shapes}
  # A scalar has no axis of particles, and an empty leaf no particle.
  if len(counts) != 1 or counts & {(), (0,)}:
    raise ValueError(
      f'particles have shapes {shapes}; wanted: leaves [n, ...] of one n.'
    )
  first = jax.tree.map(lambda leaf: leaf[0], particles)
  checks.log_density(log_density_fn, first)
  # The function is called on one particle, and not on the tree of all of them.
  learner = learners.unchecked(
    log_density_fn, {'particles': particles}, optimizer
  )
  return State(jnp.zeros((), jnp.int32), learner)


def init(rng: PRNGKey, config, batch: Batch) -> State:
  """Returns particles drawn where the config's density says."""
  checks.count(num_particles=config.num_particles)
  density = build.build(densities, **config.density)
  particles = density.start(rng, config.num_particles, batch)
  optimizer = learners.build_optimizer(config.optimizer)
  return create(density.log_density, particles, optimizer)


def step(
  state: State,
  batch: Batch | None,
  rng: PRNGKey,
  *,
  direction: Callable[..., Tree] = stein.SVGD(),
  ksd: stein.KSD = stein.KSD(max_points=0),
  axis_name: str | None = None,
) -> tuple[State, Metrics]:
  """Returns the state after one SVGD step [LW16 alg 1] and its metrics.

  In many dimensions few particles understate the spread, and their mean is right.
  'particles/predicted_variance' is what they will have of a Gaussian's variance
  (`stein.predicted_variance`), from 10 dimensions on and where the direction tells.
  'particles/mean_score' and 'particles/spread_error' are those of `stein.moments`,
  which settle as the particles come to rest, however many they are.

  Args:
    state: the particles.
    batch: data behind the log density, or None.
    rng: key of a direction that asks for one; others are deterministic.
    direction: rule of particles and scores, two trees with leaves [n, ...], to phi. It
      is given what it asks for of a key, the log density and the number of steps; see
      `stein.call`.
    ksd: what is logged as 'particles/ksd', of the particles before the step: with a
      `max_points` above 0 their squared discrepancy.
    axis_name: the mapped axis over which the particles, and the batch, are
      split; every particle sees the whole batch.

  Raises:
    ValueError: the log density is not [], or fails at one position.
    TypeError: the direction is a class, or cannot be called; or the log density is an
      integer, which has no score, where the direction asks for scores.
  """
  checks.function(stein.WANTED, direction=direction)
  stored = state.particles.params['particles']
  particles = jax.tree.map(dtypes.at_least_float32, stored)
  # A device holds a share of the batch, but each density is of the whole.
  data = () if batch is None else (collectives.all_gather(batch, axis_name),)

  def log_density(position):
    with checks.at_one_position(position):
      value = learners.call(state.particles, position, *data)
    checks.shape((), log_density=value)
    return value

  # Every particle moves along phi, which the optimizer ascends [alg 1].
  needs_score = stein.needs_score(direction)

  def scored(position):
    value = log_density(position)
    checks.has_slope(log_density=value)
    return value

  score_of = jax.vmap(jax.grad(scored))
  score = score_of(particles) if needs_score else None
  with build.section('direction'):
    phi = stein.call(
      direction,
      particles,
      score,
      axis_name=axis_name,
      log_density=log_density,
      rng=rng,
      step=state.step,
    )
  # phi was computed in float32, and particles keep the dtype that they came in.
  grads = jax.tree.map(lambda phi, leaf: (-phi).astype(leaf.dtype), phi, stored)
  # `learners.descend` would average devices, whose particles are different.
  learner = state.particles.apply_gradients(grads={'particles': grads})

  metrics = {'particles/move': _mean_square(phi)}
  if needs_score:
    metrics['particles/score'] = _mean_square(score)
  metrics = collectives.pmean(metrics, axis_name)
  if needs_score:
    metrics |= _moments(particles, score, direction, axis_name)
  checks.has(('max_points',), 'a value, such as stein.KSD()', ksd=ksd)
  if ksd.max_points:
    first = functools.partial(ksd.first, axis_name=axis_name)
    some = first(particles)
    scores = first(score) if needs_score else score_of(some)
    with build.section('ksd'):
      metrics['particles/ksd'] = ksd(some, scores, axis_name=axis_name)
  return State(state.step + 1, learner), metrics


def sample(
  state: State, rng: PRNGKey, num: int, *, condition: Array | None = None
) -> Tree:
  """Returns num of the particles [num, ...], none twice unless they are fewer.

  Raises:
    ValueError: there is a condition, or num is negative.
  """
  checks.key(rng=rng)
  if condition is not None:
    raise ValueError(
      'svgd takes no condition, since its particles are of one density.'
    )
  particles = state.particles.params['particles']
  checks.count(minimum=0, num=num)
  n = jax.tree.leaves(particles)[0].shape[0]
  chosen = jax.random.choice(rng, n, (num,), replace=num > n)
  return jax.tree.map(lambda leaf: leaf[chosen], particles)


def _mean_square(tree):
  """Returns the mean over particles of the squared length of a tree [n, ...]."""
  return jnp.mean(jnp.sum(_rows(tree) ** 2, -1))


def _rows(tree):
  """Returns a tree with leaves [n, ...] as an array [n, d]."""
  return jax.vmap(lambda leaves: flatten_util.ravel_pytree(leaves)[0])(tree)


def _moments(particles, score, direction, axis_name):
  """Returns metrics of the particles' mean and spread, and of what this will be."""
  x = _rows(particles)
  moments = stein.moments(x, _rows(score), axis_name=axis_name)
  found = {
    'particles/mean_score': moments.mean_score,
    'particles/spread_error': moments.spread_error,
  }
  count, dim = len(x) * collectives.size(axis_name), x.shape[1]
  share = stein.predicted_variance(
    direction, count, dim, variance=moments.variance
  )
  if share is not None and dim >= _MANY:
    found['particles/predicted_variance'] = share
  return found
