"""VERA: an energy, and a sampler with noise, whose own score is estimated [G21].

The sampler's examples are x = g(z) + s e, which have a density q. Its score is
estimated from latents near the one that made x, so that the generator can descend the
energy and keep its entropy. With another entropy this is the step of `vgan`, and with a
kernel in the place of the score of q that of `steingan`. It is no option of these,
since they draw samples without noise, and do not keep the latents that made them.

The paper learns s, between 0.01 and 0.3, and the spread of the latents that are tried,
by a bound of its own. Here both are given.
"""

from collections.abc import Callable
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from stein_jax import build
from stein_jax import checks
from stein_jax import collectives
from stein_jax import dtypes
from stein_jax import energies
from stein_jax import generators
from stein_jax import layers
from stein_jax import learners
from stein_jax.types import Array, Batch, Metrics, PRNGKey


class State(NamedTuple):
  step: Array
  energy: learners.Learner
  generator: learners.Learner


def init(rng: PRNGKey, config, batch: Batch) -> State:
  """Returns the first state."""
  energy, generator = generators.create_pair(
    rng,
    build.build(energies, **config.energy),
    config.energy_optimizer,
    build.build(generators, **config.generator),
    config.generator_optimizer,
    batch['image'],
  )
  return State(jnp.zeros((), jnp.int32), energy, generator)


def step(
  state: State,
  batch: Batch,
  rng: PRNGKey,
  *,
  entropy: float = 1.0,
  noise_scale: float = 0.1,
  latent_scale: float = 0.1,
  num_draws: int = 20,
  gradient_penalty: float = 0.1,
  axis_name: str | None = None,
) -> tuple[State, Metrics]:
  """Returns the state after one step of VERA [G21 alg 1].

  Args:
    state: the networks.
    batch: 'image' [n, ...].
    rng: key of the step.
    entropy: lambda, the weight of H(q). At a fixed energy q tends to exp(-E / lambda),
      so that 1 is right for densities. With the paper's 1e-4 for images the sampler is
      cold, and the energy learns another scale.
    noise_scale: s.
    latent_scale: spread of the latents that are tried for each sample; see `own_score`.
    num_draws: how many of these there are. 'generator/effective_draws' is how many of
      them count; near 1 `latent_scale` is too large.
    gradient_penalty: gamma, the weight of mean |grad E(data)|^2 / 2 in the energy's
      loss.
    axis_name: the mapped axis over which the batch is split.

  Raises:
    ValueError: an argument is out of its range, a network mixes its batch, or the
      latents are not normal.
  """
  checks.non_negative(entropy=entropy, gradient_penalty=gradient_penalty)
  _check_generator(state.generator)
  energies.check_density(state.energy)
  dropout_rng = learners.dropout_key(state.energy, rng, axis_name=axis_name)
  rng = collectives.fold_in_index(rng, axis_name)
  latent_rng, noise_rng, draw_rng = jax.random.split(rng, 3)
  data = dtypes.at_least_float32(batch['image'])
  z = generators.latent(state.generator, latent_rng, len(data))
  noise = noise_scale * jax.random.normal(noise_rng, data.shape, data.dtype)
  decode = functools.partial(generators.decode_batch, state.generator)

  def direction(x):
    score = energies.score(state.energy, x, rng=dropout_rng)
    own, effective = own_score(
      functools.partial(decode, state.generator.params),
      draw_rng,
      x,
      z,
      noise_scale=noise_scale,
      latent_scale=latent_scale,
      num_draws=num_draws,
    )
    return score - entropy * own, effective

  # The generator moves its samples down the energy and away from each other.
  loss = generators.chain_rule_loss(
    lambda params: decode(params, z) + noise, direction, axis_name=axis_name
  )
  generator, generator_metrics, samples, effective = learners.descend(
    state.generator, loss, axis_name=axis_name
  )
  generator_metrics['generator/effective_draws'] = collectives.pmean(
    jnp.mean(effective), axis_name
  )

  # The energy descends the contrast with these, and stays smooth at the data.
  energy, energy_metrics = energies.ascend_likelihood(
    state.energy,
    data,
    samples,
    terms=(_smoothness(state.energy, data, gradient_penalty, dropout_rng),),
    axis_name=axis_name,
    dropout_rng=dropout_rng,
  )
  metrics = {**generator_metrics, **energy_metrics}
  return State(state.step + 1, energy, generator), metrics


def own_score(
  decode: Callable[[Array], Array],
  rng: PRNGKey,
  x: Array,
  z: Array,
  *,
  noise_scale: float,
  latent_scale: float,
  num_draws: int = 20,
) -> tuple[Array, Array]:
  """Returns the score of q at its samples, like x, and its draws that count [n].

  With x = g(z) + s e and z ~ N(0, I), grad log q(x) is the mean of (g(z) - x) / s^2
  over z given x. That mean is by importance, from draws of N(z_0, eta^2) around the
  latent z_0 that made x, with weights that sum to 1 [G21]. Those that count are
  the draws' effective sample size.

  Args:
    decode: g, of latents [n, k] to x.
    rng: key of the draws.
    x: samples [n, ...].
    z: z_0 [n, k].
    noise_scale: s.
    latent_scale: eta. Draws that are narrower than z given x lie about z_0, so that the
      score is near -e / s, which has the right mean with x and none with z_0: at a
      third of that spread, 20 draws give the generator a fifth of its entropy's
      gradient, and at 1.5 of it nine tenths.
    num_draws: number of draws for each sample.

  Raises:
    ValueError: an argument is out of its range, or decoded latents are not like x.

  Examples:
    >>> z = jax.random.normal(jax.random.key(0), (1000, 1))
    >>> x = 2 * z + jax.random.normal(jax.random.key(1), (1000, 1))  # N(0, 5)
    >>> draw = functools.partial(own_score, noise_scale=1.0, latent_scale=0.5)
    >>> score, _ = draw(lambda z: 2 * z, jax.random.key(2), x, z)
    >>> bool(abs(jnp.mean(score * x) + 1) < 0.05)
    True
  """
  checks.key(rng=rng)
  checks.positive(noise_scale=noise_scale, latent_scale=latent_scale)
  checks.count(num_draws=num_draws)
  x, z = dtypes.at_least_float32(x), dtypes.at_least_float32(z)
  checks.num_rows(len(x), z=z)
  # A row for each sample, as devices have them.
  unit = jax.random.normal(rng, (len(z), num_draws, *z.shape[1:]), z.dtype)
  unit = jnp.moveaxis(unit, 1, 0)
  drawn = z[None] + latent_scale * unit
  decoded = jax.vmap(decode)(drawn)
  checks.shape((num_draws, *x.shape), decoded=decoded)
  back = decoded - x[None]
  half_square = lambda each: (
    0.5 * jnp.sum(each.reshape(*each.shape[:2], -1) ** 2, -1)
  )
  log_weights = (
    half_square(unit) - half_square(drawn) - half_square(back / noise_scale)
  )
  weights = jax.nn.softmax(log_weights, 0)
  shaped = weights.reshape(*weights.shape, *(1,) * (x.ndim - 1))
  score = jnp.sum(shaped * back, 0) / noise_scale**2
  return score, 1 / jnp.sum(weights**2, 0)


def sample(
  state: State,
  rng: PRNGKey,
  num: int,
  *,
  condition: Array | None = None,
  noise_scale: float = 0.1,
) -> Array:
  """Returns samples [num, ...] of the generator, with their noise; see `step`."""
  checks.non_negative(noise_scale=noise_scale)
  checks.key(rng=rng)
  rng, noise_rng = jax.random.split(rng)
  x = generators.sample(
    state.generator, rng, num, **generators.given(condition)
  )
  return x + noise_scale * jax.random.normal(noise_rng, x.shape, x.dtype)


def _smoothness(energy, data, weight, rng):
  """Returns the term weight * mean |grad E(data)|^2 / 2 of an energy's loss."""

  def term(params):
    slope = energies.score(energy.replace(params=params), data, rng=rng)
    penalty = 0.5 * jnp.mean(jnp.sum(layers.flat(slope) ** 2, -1))
    return weight * penalty, {'energy/penalty': penalty}

  return term


def _check_generator(generator):
  if learners.mixes(generator):
    raise ValueError(
      'This generator mixes its batch, so that its samples have no density of their '
      'own; allowed: one without norms of a batch, such as generators.MLP.'
    )
  if generator.prior != 'normal':
    raise ValueError(
      f'The latents of the generator have prior={generator.prior!r}, and their weights '
      "are those of normal ones; allowed: 'normal'."
    )
