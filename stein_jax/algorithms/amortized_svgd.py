"""Amortised SVGD: a network learns to draw from a given density [WL16].

The density is held as an energy that is never updated. From Python, `create` a state
from any log density or from a learner of `energies`, then `step` it. A config names one
of `densities`. The log density may have parameters: one network that is conditioned on
them then learns to draw from every member of the family.
"""

from collections.abc import Callable
import functools
from typing import NamedTuple

import jax
from jax import flatten_util
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax

from stein_jax import build
from stein_jax import checks
from stein_jax import collectives
from stein_jax import densities
from stein_jax import dtypes
from stein_jax import energies
from stein_jax import generators
from stein_jax import learners
from stein_jax import stein
from stein_jax.types import Array, Batch, Metrics, PRNGKey

_PROJECTIONS = ('chain_rule', 'full', 'linear')


class State(NamedTuple):
  step: Array
  generator: learners.Learner
  energy: learners.Learner  # that of the density, which no step changes


def create(
  log_density: Callable[..., Array] | learners.Learner,
  generator: learners.Learner,
) -> State:
  """Returns a state whose generator is to draw from a density.

  Args:
    log_density: function of one position, and for a family of one member's parameters
      [k], to log p [] up to a constant; or a learned energy, which is taken without
      dropout.
    generator: from `generators.create`, with a `condition` [n, k] for a family.

  Raises:
    ValueError: the log density is not [] (one of a family is checked at the first
      step), or the energy's examples have another shape than the generator's samples.
  """
  energy = log_density
  if not isinstance(energy, learners.Learner):
    # The check below cannot call a log density of several arguments, so that of
    # a family is checked here, when a step traces it.
    def one(*x):
      with checks.at_one_position(x[0]):
        value = log_density(*x)
      checks.shape((), log_density=value)
      return -value

    checks.log_density(log_density, jnp.zeros(generator.input_shape))
    samples = (generator.batch_size, *generator.input_shape)
    # It has no parameters to learn, but a learner must have an optimizer. The
    # shape tells the learner what its examples are.
    energy = learners.unchecked(
      lambda params, *x: jax.vmap(one)(*x),
      {},
      optax.identity(),
      jax.ShapeDtypeStruct(samples, float),
    )
  checks.same_shape(energy=energy.input_shape, samples=generator.input_shape)
  return State(jnp.zeros((), jnp.int32), generator, energy)


def init(rng: PRNGKey, config, batch: Batch) -> State:
  """Returns the state of a new generator, with batches of this one's size."""
  density = build.build(densities, **config.density)
  generator = generators.create(
    rng,
    build.build(generators, **config.generator),
    config.optimizer,
    len(batch['image']),
  )
  return create(density.log_density, generator)


def step(
  state: State,
  batch: Batch | None,
  rng: PRNGKey,
  *,
  projection: str = 'chain_rule',
  direction: Callable[..., Array] = stein.SVGD(),
  known_density: bool = False,
  epsilon: float = 0.1,
  svgd_steps: int = 1,
  inner_steps: int = 10,
  damping: float = 1e-2,
  cg_steps: int = 20,
  axis_name: str | None = None,
) -> tuple[State, Metrics]:
  """Returns the state after one step of amortised SVGD [WL16 alg 1].

  Args:
    state: the generator and the density.
    batch: its size is the number of samples, on this device; None for the generator's
      own batch size. 'condition' [m, k], if there, has the parameters of m members of a
      family, each of which gets an equal share of the samples.
    rng: key of the samples, and of a direction that asks for one.
    projection: how the generator follows the direction phi of its samples. 'chain_rule'
      is one gradient step [WL16 eq 10] [LW17 eq 21]. 'full' moves the samples by
      `svgd_steps` steps x + epsilon phi, and fits the generator to them by
      `inner_steps` optimizer steps on the squared error [WL16 eq 8] [LW17 eq 20].
      'linear' solves that least squares to first order in the parameters [WL16 eq 9],
      and gives the optimizer minus the solution as its gradient.
    direction: rule of points and scores to phi; see `energies.direction`. Its number of
      steps is that of the updates.
    known_density: whether phi is the score minus that of the generator's own density,
      which its network must have as `log_density`. This is the reparameterised gradient
      of KL without a kernel [WL16 eq 11], and needs `direction` to be `stein.Score`.
    epsilon: step size along phi in 'full'.
    svgd_steps: steps along phi in 'full', 1 as printed; many fit the network to what
      SVGD makes of its samples in the end.
    inner_steps: optimizer steps in 'full'.
    damping: damping of 'linear', see `least_squares`; 0 is the least-norm solution, as
      far as `cg_steps` go.
    cg_steps: largest number of conjugate gradient steps in 'linear'.
    axis_name: the mapped axis over which the samples are split.

  Raises:
    ValueError: an argument is out of its range, the members cannot share the samples
      equally, or the energy of a family mixes its batch.
  """
  checks.choice(_PROJECTIONS, projection=projection)
  checks.positive(epsilon=epsilon)
  checks.non_negative(damping=damping)
  checks.count(
    svgd_steps=svgd_steps, inner_steps=inner_steps, cg_steps=cg_steps
  )
  shared_rng, rng = rng, collectives.fold_in_index(rng, axis_name)
  num = state.generator.batch_size if batch is None else len(batch['image'])
  family = (batch or {}).get('condition')
  condition = None if family is None else _repeat(family, num)
  draw = functools.partial(
    generators.generate,
    state.generator,
    rng=rng,
    num=num,
    condition=condition,
    axis_name=axis_name,
  )
  phi_at = _phi(
    state, family, condition, direction, known_density, shared_rng, axis_name
  )

  # The generator descends -G(xi).phi, phi held fixed [alg 1, eq 10].
  if projection == 'chain_rule':
    along = functools.partial(phi_at, 0)
    loss = generators.chain_rule_loss(draw, along, axis_name=axis_name)
    generator, metrics, _ = learners.descend(
      state.generator, loss, axis_name=axis_name
    )
    return State(state.step + 1, generator, state.energy), metrics

  # Or it is fitted to its samples after a move along phi [alg 1, eq 8 and 9].
  samples = dtypes.at_least_float32(draw(state.generator.params))
  phi = phi_at(0, samples)
  if projection == 'full':
    move = lambda i, x: x + epsilon * phi_at(i, x)
    target = lax.fori_loop(1, svgd_steps, move, samples + epsilon * phi)
    generator, metrics = _reach(
      state.generator, draw, target, inner_steps, axis_name
    )
  else:
    generator, metrics = _solve(
      state.generator, draw, phi, damping, cg_steps, axis_name
    )
  moved = jnp.mean(jnp.sum(phi.reshape(num, -1) ** 2, -1))
  metrics = {**metrics, 'generator/move': collectives.pmean(moved, axis_name)}
  return State(state.step + 1, generator, state.energy), metrics


def _solve(generator, draw, phi, damping, num_steps, axis_name):
  """Returns the generator after an optimizer step along the solution, and {}."""
  change = least_squares(
    draw,
    generator.params,
    phi,
    damping=damping,
    num_steps=num_steps,
    axis_name=axis_name,
  )
  # Optimizers descend what they are given.
  grads = jax.tree.map(jnp.negative, change)
  return generator.apply_gradients(grads=grads), {}


def least_squares(
  draw: Callable,
  params,
  direction: Array,
  *,
  damping: float,
  num_steps: int,
  axis_name: str | None = None,
):
  """Returns the change D of the parameters that moves samples by phi [WL16 eq 9].

  With J the Jacobian of the samples, D = (J' J + shift I)^-1 J' phi minimises
  |J D - phi|^2 + shift |D|^2. If shift is 0 it is the shortest minimiser. J is never
  formed, since conjugate gradients need only the products J' J D.

  Args:
    draw: function of parameters to samples [n, ...].
    params: where J is taken.
    direction: phi, like the samples.
    damping: shift in units of |J' phi|^2 / |phi|^2, the Rayleigh quotient of J J' at
      phi.
    num_steps: largest number of conjugate gradient steps.
    axis_name: the mapped axis over which the samples are split; the solution is
      that of all samples.

  Returns:
    D, like the parameters. It is nan if anything is not finite.

  Raises:
    ValueError: phi has another shape than the samples.
  """
  checks.non_negative(damping=damping)
  checks.count(num_steps=num_steps)
  direction = dtypes.at_least_float32(direction)
  wide = jax.tree.map(dtypes.at_least_float32, params)
  flat, unravel_own = flatten_util.ravel_pytree(wide)
  # ravel_pytree's inverse refuses another dtype if leaves differ in theirs.
  unravel = lambda flat, own=flat.dtype: unravel_own(flat.astype(own))
  # All is solved in one dtype, the wider of the parameters' and the samples'.
  dtype = np.promote_types(flat.dtype, direction.dtype)
  flat = flat.astype(dtype)
  at = lambda flat: draw(unravel(flat)).astype(dtype)
  checks.shape(jax.eval_shape(at, flat).shape, direction=direction)
  direction = direction.astype(dtype)

  # This is J'v over the samples of all devices. As in `learners.descend` the
  # inner mean is for shard_map, and the outer one for pmap.
  def pull(v):
    dot = lambda flat: collectives.pmean(jnp.vdot(at(flat), v), axis_name)
    return collectives.pmean(jax.grad(dot)(flat), axis_name)

  push = lambda change: jax.jvp(at, (flat,), (change,))[1]
  target = pull(direction)
  size = collectives.pmean(jnp.vdot(direction, direction), axis_name)
  # Samples that stay have phi = 0, for which the shift would be 0 / 0.
  shift = damping * jnp.vdot(target, target) / jnp.where(size > 0, size, 1)
  product = lambda change: pull(push(change)) + shift * change
  change = unravel(_conjugate_gradients(product, target, num_steps))
  # Parameters in half precision were solved for in float32.
  return jax.tree.map(
    lambda change, leaf: change.astype(jnp.result_type(leaf)), change, params
  )


def _conjugate_gradients(product, target, num_steps):
  """Returns the solution x of product(x) = target.

  `jax.scipy.sparse.linalg.cg` does not pass shard_map's check (jax 0.10.2, 0.12.0): it
  takes the solution to vary over devices, as the noise in `product` does. It would also
  stop at a residual of nan and return what it has, which may be zeros.

  Args:
    product: function of a vector [n] to its product with a positive definite matrix.
    target: right-hand side [n].
    num_steps: largest number of steps.
  """
  # Squared norms are compared, so the residual may be 1e-6 of the target.
  tolerance = 1e-12 * jnp.vdot(target, target)

  def unsolved(state):
    i, _, _, _, sq_residual = state
    # An infinite target has an infinite tolerance, at which the start would
    # count as solved. Steps go on instead, and the solution becomes nan.
    solved = (sq_residual <= tolerance) & jnp.isfinite(sq_residual)
    return (i < num_steps) & ~solved

  def improve(state):
    i, solution, residual, along, sq_residual = state
    image = product(along)
    rate = sq_residual / jnp.vdot(along, image)
    residual = residual - rate * image
    following = jnp.vdot(residual, residual)
    return (
      i + 1,
      solution + rate * along,
      residual,
      residual + following / sq_residual * along,
      following,
    )

  # From 0 the solution stays in the span of J', so that without damping it
  # tends to the least-norm one.
  start = (0, jnp.zeros_like(target), target, target, jnp.vdot(target, target))
  return lax.while_loop(unsolved, improve, start)[1]


def _phi(state, family, condition, direction, known_density, rng, axis_name):
  """Returns a function of a turn and samples [n, ...] to phi, like the samples.

  A turn tells the calls of one step apart.
  """
  if known_density and not isinstance(direction, stein.Score):
    raise ValueError(
      'known_density=True takes no kernel: direction must be Score.'
    )
  if family is not None and learners.mixes(state.energy):
    raise ValueError(
      'This energy mixes its batch, in which members of a family would meet; allowed: '
      "norm='layer' or 'none'."
    )
  given = () if condition is None else (condition,)

  def of_all(turn, samples):
    return energies.direction(
      state.energy,
      direction,
      samples,
      noise_rng=stein.own_key(direction, rng, turn),
      step=state.step,
      axis_name=axis_name,
    )

  def of_each_member(turn, samples):
    # A kernel compares samples of one density alone. A device holds whole
    # members, so the direction needs no axis.
    share = lambda x: x.reshape(len(family), len(x) // len(family), -1)
    score = None
    if stein.needs_score(direction):
      score = energies.score(state.energy, samples, *given, axis_name=axis_name)
      score = share(score)
    keys = stein.own_key(direction, rng, turn)
    if keys is not None:  # no two members share their noise
      own = collectives.fold_in_index(keys, axis_name)
      keys = jax.random.split(own, len(family))

    def of_member(x, score, member, key):
      def log_density(point):
        position = point.reshape(1, *samples.shape[1:])
        energy = state.energy
        return -energies.value(energy, energy.params, position, member[None])[0]

      available = dict(log_density=log_density, rng=key, step=state.step)
      return stein.call(direction, x, score, **available)

    with build.section('direction'):
      phi = jax.vmap(of_member)(share(samples), score, family, keys)
    return phi.reshape(samples.shape)

  def by_density(_, samples):
    score = energies.score(state.energy, samples, *given, axis_name=axis_name)
    # Only x is differentiated: the derivative of the generator's log density by
    # its parameters has mean 0 [WL16 eq 11].
    return score - jax.grad(own_log_density)(samples)

  def own_log_density(x):
    generator = state.generator
    log_density = learners.call(
      generator, generator.params, x, *given, method='log_density'
    )
    checks.per_example(len(x), log_density=log_density)
    return jnp.sum(log_density)

  if known_density:
    return by_density
  return of_all if family is None else of_each_member


def _repeat(family, num):
  """Returns the condition of each sample [num, k], in equal shares of [m, k]."""
  if num % len(family):
    raise ValueError(
      f'The batch of {num} samples must be divisible by the {len(family)} conditions.'
    )
  # Samples of a member are neighbours, as `of_each_member` reshapes them.
  return jnp.repeat(family, num // len(family), axis=0)


def _reach(generator, draw, target, num_steps, axis_name):
  """Returns the generator after steps towards target samples [WL16 eq 8]."""
  target = lax.stop_gradient(target)

  # `draw` has one key for all steps: sample i is regressed on its own latent.
  def loss_fn(params):
    error = jnp.sum((draw(params) - target).reshape(len(target), -1) ** 2, -1)
    return 0.5 * jnp.mean(error), {'generator/distance': jnp.mean(error)}

  def one(generator, _):
    return learners.descend(generator, loss_fn, axis_name=axis_name)

  generator, metrics = lax.scan(one, generator, length=num_steps)
  return generator, jax.tree.map(lambda values: values[-1], metrics)


def sample(
  state: State, rng: PRNGKey, num: int, *, condition: Array | None = None
) -> Array:
  """Returns samples [num, ...] of the generator, one for each condition if given."""
  return generators.sample(state.generator, rng, num, condition=condition)
