"""SteinGAN: an energy learns by amortised maximum likelihood, a generator by SVGD.

SteinCD-GAN(alpha) takes the negatives of SteinCD in a share alpha of its steps, so that
SteinGAN is SteinCD-GAN(0).
"""

from collections.abc import Callable
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from stein_jax import build
from stein_jax import checks
from stein_jax import collectives
from stein_jax import controllers
from stein_jax import dtypes
from stein_jax import energies
from stein_jax import generators
from stein_jax import learners
from stein_jax import revision
from stein_jax import samplers
from stein_jax import stein
from stein_jax.types import Array, Batch, Metrics, Params, PRNGKey, Tree

_DIVERSITIES = ('none', 'pulling_away', 'batch_norm_entropy')
_NEGATIVES = ('before', 'fresh')

SPLIT = ('chains',)
FIELDS = dict(num_chains=0)


class State(NamedTuple):
  step: Array
  energy: learners.Learner
  generator: learners.Learner
  gap: Array  # [] of the last step; 0 if the controller does not need it
  control: Tree  # the controller's own state
  first: Params | None = None  # the energy's first, if features need them
  chains: Array | None = None  # [m, ...] if they go on from step to step


def init(rng: PRNGKey, config, batch: Batch) -> State:
  """Returns the first state, conditional where the batch has a condition.

  `config.num_chains` is 0 where all chains begin at samples of the generator. Else that
  many persist, as many as the batch has images or more.

  Raises:
    ValueError: see `energies.check_num_chains`.
  """
  num = getattr(config, 'num_chains', 0)
  rng, chain_rng = jax.random.split(rng) if num else (rng, None)
  energy, generator = generators.create_pair(
    rng,
    build.build(energies, **config.energy),
    config.energy_optimizer,
    build.build(generators, **config.generator),
    config.generator_optimizer,
    batch['image'],
    **generators.given(batch.get('condition')),
  )
  # A section of research code may leave out what it does not change.
  options = build.defaults(step) | build.values(step, config.step)
  first = None
  if options['first_features']:
    first = jax.tree.map(jnp.array, energy.params)  # a copy: states are donated
  return State(
    jnp.zeros((), jnp.int32),
    energy,
    generator,
    jnp.zeros(()),
    options['controller'].init(),
    first,
    revision.first_chains(chain_rng, generator, num, batch),
  )


def step(
  state: State,
  batch: Batch,
  rng: PRNGKey,
  *,
  direction: Callable[..., Array] = stein.SVGD(),
  first_features: bool = False,
  diversity: str = 'none',
  diversity_weight: float = 1.0,
  num_generator_steps: int = 1,
  negatives: str = 'before',
  negative_weight: float = 1.0,
  chain: samplers.Chain = samplers.Langevin(0.01, 0),
  restart: float = 0.05,
  controller: controllers.Fixed = controllers.Fixed(),
  alpha: float = 0.0,
  epsilon: float = 0.1,
  joint: bool = True,
  axis_name: str | None = None,
) -> tuple[State, Metrics]:
  """Returns the state after one SteinGAN step [LW17 alg 2] [WL16 alg 2].

  The generator moves its samples along the direction [LW17 eq 21]; then the energy
  descends mean E(data) - (1 - gamma) mean E(samples) [LW17 eq 23] [WL16 eq 16].

  Args:
    state: the networks, and the chains that persist.
    batch: 'image' [n, ...], and 'condition' where both networks take labels or images;
      samples are given the batch's.
    rng: key of the step.
    direction: rule of points and scores to phi: `stein.SVGD` on pixels,
      `stein.FeatureSVGD` on the energy's features, `stein.Score` without a kernel, or
      another; see `energies.direction`. Its number of steps is that of the updates.
    first_features: whether features are those of the energy's first parameters.
    diversity: a term that keeps samples apart beside the kernel or in its place:
      'none', 'pulling_away' for `generators.pulling_away` of the energy's features, or
      'batch_norm_entropy' for `generators.batch_norm_entropy`.
    diversity_weight: weight of that term in the generator's loss. Without a kernel the
      rest of the loss is mean E(samples).
    num_generator_steps: k, each with noise of its own.
    negatives: the samples that the energy sees. 'before' are those that the generator
      drew for its last step; 'fresh' are new ones, drawn after that step, as in WL16's
      algorithm.
    negative_weight: 1 - gamma.
    chain: what takes the samples nearer to the energy's law before the energy sees
      them; by default nothing does. If the state has chains, as many of these as the
      batch has images go on instead, and all are put back where they end.
    restart: chance that a persistent chain begins at a sample of the generator.
    controller: what changes the energy's step by how far the energy is ahead.
    alpha: chance that a step of the energy uses the negatives of SteinCD, one SVGD
      step from the data and under their conditions, in place of the generator's.
    epsilon: size of that SVGD step.
    joint: whether data and samples are normalised in one batch; see `energies.pair`.
    axis_name: the mapped axis over which the batch, and the chains, are split.

  Raises:
    ValueError: an argument is out of its range, chains persist and take no step, or
      they are of an energy that sees data and samples in one batch.
  """
  checks.key(rng=rng)
  wanted = 'a controller, such as controllers.Fixed()'
  checks.has(('update', 'needs_gap'), wanted, controller=controller)
  checks.choice(_NEGATIVES, negatives=negatives)
  checks.count(
    maximum=learners.MAX_REPEATED, num_generator_steps=num_generator_steps
  )
  checks.non_negative(restart=restart)
  checks.at_most(1, restart=restart)
  # All devices choose the same negatives, and draw samples of their own.
  shared_rng, rng = jax.random.split(rng)
  rng = collectives.fold_in_index(rng, axis_name)
  dropout_rng, gap_rng, noise_rng = jax.random.split(rng, 3)
  *draw_rngs, fresh_rng = jax.random.split(noise_rng, num_generator_steps + 1)
  data = dtypes.at_least_float32(batch['image'])
  examples = data, *energies.conditions(batch)
  context = dict(joint=joint, axis_name=axis_name, rng=dropout_rng)
  draw = generators.drawer(state.generator, batch, axis_name=axis_name)
  # Where the energy sees the samples that were moved, the pass that gave their
  # scores gives the gradient of their energies too.
  revises = state.chains is not None or getattr(chain, 'num_steps', 1) != 0
  is_seen = negatives == 'before' and checks.is_zero(alpha) and not revises
  one_pass = is_seen and energies.has_one_pass(state.energy, joint=joint)
  phi_at, features = _followed(
    state,
    examples,
    direction,
    first_features,
    one_pass,
    shared_rng,
    **context,
  )
  penalty = _penalty(diversity, diversity_weight, features, axis_name)

  # The generator moves its samples along phi [alg 2, the generator's update].
  generator, generator_metrics, samples, *mean = _generator_steps(
    state.generator, draw, draw_rngs, phi_at, penalty, axis_name
  )

  # Negatives are its samples, or where a chain takes these; or, of SteinCD, the data
  # moved [LW17 sec 4].
  if revises:
    fresh_rng, chain_rng = jax.random.split(fresh_rng)
  if negatives == 'fresh':
    samples = draw(generator.params, fresh_rng)
  ends, chains, chain_metrics = samples, None, {}
  if revises:
    ends, chains, chain_metrics = _revised(
      state, examples, samples, chain, restart, chain_rng, **context
    )
  seen, move_metrics = _or_moved_data(
    mean[0] if mean else ends,
    *(data, phi_at, alpha, epsilon, shared_rng, axis_name),
  )

  # The energy descends the contrast with them [alg 2, the energy's update].
  with build.section('controller'):
    factors, control = controller.update(state.gap, state.control)
  energy, energy_metrics = _energy_step(
    state.energy, examples, seen, negative_weight, factors, **context
  )

  # The controller's next step depends on who is ahead now.
  gap = state.gap
  if controller.needs_gap:
    gap = _gap(energy, data, samples, joint, gap_rng, axis_name, gap.dtype)
  metrics = generator_metrics | energy_metrics | chain_metrics | move_metrics
  state = State(
    state.step + 1, energy, generator, gap, control, state.first, chains
  )
  return state, metrics


def sample(
  state: State, rng: PRNGKey, num: int, *, condition: Array | None = None
) -> Array:
  """Returns samples [num, ...] of the generator, on the condition if given."""
  return generators.sample(
    state.generator, rng, num, **generators.given(condition)
  )


def _followed(
  state,
  examples,
  direction,
  first_features,
  one_pass,
  noise_rng,
  *,
  joint,
  axis_name,
  rng,
):
  """Returns two functions of samples: one to phi, one to the energy's features.

  The first takes a turn before them, which tells its calls in one step apart. With one
  pass it gives a pair of phi and the samples' mean energy.
  """
  data, *condition = examples
  # An energy that mixes its batch scores samples together with the data, as
  # they meet in its loss. Any other sees every example by itself.
  mixed = joint and learners.mixes(state.energy)
  context = dict(normalized_with=data if mixed else None, axis_name=axis_name)
  features_of = _first_energy(state) if first_features else None

  def phi_at(turn, x):
    score, *mean = (
      energies.score_and_mean(state.energy, x, *condition, rng=rng)
      if one_pass
      else [None]
    )
    phi = energies.direction(
      state.energy,
      direction,
      x,
      *condition,
      score=score,
      features_of=features_of,
      noise_rng=stein.own_key(direction, noise_rng, turn),
      step=state.step,
      rng=rng,
      **context,
    )
    return (phi, *mean) if mean else phi

  return phi_at, energies.features(state.energy, **context)


def _generator_steps(generator, draw, rngs, phi_at, penalty, axis_name):
  """Returns the generator after a step for each key, and the last step's results.

  These are its metrics, the samples that it drew before it moved, and what `phi_at`
  gave of them beside phi.
  """

  def move(moved, rng):
    turn = 1 + moved.step - generator.step  # turn 0 is that of the data
    loss = generators.chain_rule_loss(
      functools.partial(draw, rng=rng),
      functools.partial(phi_at, turn),
      penalty=penalty,
      axis_name=axis_name,
    )
    return learners.descend(moved, loss, axis_name=axis_name)

  return learners.repeated(move, generator, rngs)


def _revised(
  state, examples, samples, chain, restart, chain_rng, *, joint, axis_name, rng
):
  """Returns the ends of chains from samples, the chains with these, and metrics."""
  if joint and learners.mixes(state.energy):
    raise ValueError(
      'A chain is of samples alone, and this energy sees them in one batch with data; '
      'allowed: joint=False, or chain.num_steps=0.'
    )
  checks.moves(chain=chain)
  chain_rng, *rngs = jax.random.split(chain_rng, 3)
  start, keep = energies.continued(
    *rngs, state.chains, samples, restart=restart
  )
  ends, metrics = energies.run_chain(
    state.energy,
    chain,
    chain_rng,
    start,
    *examples[1:],
    axis_name=axis_name,
    dropout_rng=rng,
  )
  return ends, keep(ends), metrics


def _or_moved_data(samples, data, phi_at, alpha, epsilon, rng, axis_name):
  """Returns the samples or, with chance alpha, the data after a step along phi.

  How far the data move is returned beside them, as a metric.
  """
  checks.non_negative(alpha=alpha)
  checks.at_most(1, alpha=alpha)
  checks.positive(epsilon=epsilon)
  if checks.is_zero(alpha):  # a known 0 spares the score of the data
    return samples, {}
  moved = data + epsilon * phi_at(0, data)
  distance = energies.distance_moved(data, moved, axis_name=axis_name)
  # One draw for the step: no batch has negatives of both kinds.
  seen = jnp.where(jax.random.bernoulli(rng, alpha), moved, samples)
  return seen, {'samples/move': distance}


def _energy_step(
  energy, examples, samples, weight, factors, *, axis_name, **context
):
  """Returns the energy after its step, unless it is frozen, and metrics."""
  checks.non_negative(negative_weight=weight)
  data, *condition = examples
  contrast = energies.contrast(
    energy,
    data,
    samples,
    *condition,
    negative_weight=weight * factors.negatives,
    axis_name=axis_name,
    **context,
  )
  moved, metrics = learners.descend(
    energy, contrast, rate=factors.rate, axis_name=axis_name
  )
  # The whole learner is kept, so its optimizer has not seen the step either.
  keep = lambda old, new: jnp.where(factors.frozen, old, new)
  return jax.tree.map(keep, energy, moved), metrics


def _gap(energy, data, samples, joint, rng, axis_name, dtype):
  """Returns the mean reconstruction error of data less that of samples []."""
  errors = energies.pair(
    energy,
    energy.params,
    data,
    samples,
    joint=joint,
    axis_name=axis_name,
    rng=rng,
    method='reconstruction_error',
  )
  # The gap is part of the state, and so must be the same on all devices.
  means = collectives.pmean(tuple(map(jnp.mean, errors)), axis_name)
  return (means[0] - means[1]).astype(dtype)


def _penalty(diversity, weight, features, axis_name):
  """Returns the diversity term of parameters and samples, or None for 'none'."""
  checks.non_negative(diversity_weight=weight)
  checks.choice(_DIVERSITIES, diversity=diversity)
  if diversity == 'none':
    return None
  if diversity == 'pulling_away':
    return lambda _, samples: (
      weight * generators.pulling_away(features(samples), axis_name=axis_name)
    )
  # A loss falls, and the entropy is to rise.
  return lambda params, _: -weight * generators.batch_norm_entropy(params)


def _first_energy(state):
  """Returns the energy at its first parameters."""
  if state.first is None:
    raise ValueError(
      'first_features=True needs a state that `init` made for it.'
    )
  return state.energy.replace(params=state.first)
