"""Langevin chains on a density of four modes: where they start, which they see."""

import functools

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax

from stein_jax import densities
from stein_jax import generators
from stein_jax import learners
from stein_jax import samplers
from stein_jax.algorithms import amortized_svgd

MEANS = ((2.0, 0.0), (0.0, 4.0), (-6.0, 0.0), (0.0, -8.0))
# The nearest modes are nearly nine standard deviations apart.
SCALE, STEP_SIZE, NUM_CHAINS = 0.5, 0.1, 1000
BATCH = 200  # of what a sampler learns from
STRIDE = 10  # steps between looks


def density():
  """Returns four equal Gaussians, each farther from 0 than the last."""
  return densities.mixture(MEANS, SCALE, jnp.ones(len(MEANS)), start=0.0)


def starts(density, num_steps):
  """Returns {name: (key, num) -> where chains start [num, 2]}."""

  # What a sampler proposes depends on how it has learned, and on nothing else
  # here.
  def ancestral(network, step, rng, num):
    init_rng, step_rng, sample_rng = jax.random.split(rng, 3)
    generator = generators.create(init_rng, network, optax.adam(1e-3), BATCH)
    step = jax.jit(step)
    for i in range(num_steps):
      generator = step(generator, jax.random.fold_in(step_rng, i))
    return generators.sample(generator, sample_rng, num)

  def from_data(generator, rng):
    x = density.sample(rng, BATCH)
    log_density = functools.partial(
      learners.call, generator, method='log_density'
    )
    loss_fn = lambda params: (-jnp.mean(log_density(params, x)), {})
    return learners.descend(generator, loss_fn)[0]

  def from_density(generator, rng):
    state = amortized_svgd.create(density.log_density, generator)
    return amortized_svgd.step(state, None, rng)[0].generator

  # A flow has a density, so that it can learn from data by its likelihood.
  flow = generators.Coupling(dim=2, widths=(64,), num_layers=8)
  network = generators.MLP(latent_dim=4, dim=2, widths=(128, 128))
  return {
    'noise': lambda rng, num: density.start(rng, num, None),
    'data': density.sample,
    'learned-from-data': functools.partial(ancestral, flow, from_data),
    'learned-from-density': functools.partial(ancestral, network, from_density),
  }


def modes_of(density, start, seed: int, looks: int) -> np.ndarray:
  """Returns the mode [looks + 1, NUM_CHAINS] each chain is in, every STRIDE steps."""
  # All starts have one seed, and so the same noise in the chains.
  start_rng, chain_rng = jax.random.split(jax.random.key(seed))
  score = jax.vmap(jax.grad(density.log_density))
  chain = functools.partial(
    samplers.langevin, score_fn=score, step_size=STEP_SIZE, num_steps=STRIDE
  )
  # The mode a chain is in is that of the nearest mean.
  nearest = lambda x: jnp.argmin(
    jnp.sum((x[:, None] - jnp.array(MEANS)[None]) ** 2, -1), 1
  )

  @jax.jit
  def run(x):
    def move(x, rng):
      x = chain(rng, x)
      return x, nearest(x)

    path = lax.scan(move, x, jax.random.split(chain_rng, looks))[1]
    return jnp.concatenate([nearest(x)[None], path])

  return np.asarray(run(start(start_rng, NUM_CHAINS)))


def share_error(modes: np.ndarray) -> np.ndarray:
  """Returns the total variation [t] of the modes' shares from equal ones.

  It is 0 where all modes have as many chains, and 1 - 1 / modes where one has all.

  Args:
    modes: the mode [t, n] of each of n chains.
  """
  k = len(MEANS)
  shares = np.mean(modes[:, :, None] == np.arange(k), 1)
  return 0.5 * np.sum(np.abs(shares - 1 / k), 1)


def visited(modes: np.ndarray) -> np.ndarray:
  """Returns the mean number of modes [t] that a chain has been in up to t."""
  been = modes[:, :, None] == np.arange(len(MEANS))
  return np.mean(np.sum(np.maximum.accumulate(been), -1), 1)
