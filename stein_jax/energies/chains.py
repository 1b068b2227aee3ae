"""Markov chains of an energy."""

from collections.abc import Callable, Mapping
import functools

from flax import struct
import jax
from jax import lax
import jax.numpy as jnp

from stein_jax import build
from stein_jax import checks
from stein_jax import collectives
from stein_jax import dtypes
from stein_jax import learners
from stein_jax import samplers
from stein_jax import stein
from stein_jax.energies import values
from stein_jax.learners import Learner
from stein_jax.types import Array, Batch, Metrics, PRNGKey, Target


@struct.dataclass
class _EnergyTarget:
  """The law p(x) proportional to exp(-E(x)), for chains; see `target`."""

  energy: Learner
  condition: tuple[Array, ...] = ()
  dropout_rng: PRNGKey | None = None
  axis_name: str | None = struct.field(pytree_node=False, default=None)

  def log_density(self, x: Array) -> Array:
    """Returns -E(x) [n].

    Raises:
      ValueError: the energy mixes its batch, or is not [n].
    """
    self._check_single('Log densities')
    return -values.value(
      self.energy, self.energy.params, x, *self.condition, **self._context()
    )

  def score(self, x: Array) -> Array:
    """Returns -grad_x E(x), like x; see `energies.score`."""
    return values.score(self.energy, x, *self.condition, **self._context())

  def gibbs(self, rng: PRNGKey, x: Array, num_steps: int) -> Array:
    """Returns x after sweeps of the energy's own Gibbs sampler, like x.

    Raises:
      ValueError: the energy mixes its batch or has no such sampler, the sampler
        returns another shape, or there is a condition.
    """
    self._check_single('Gibbs sweeps')
    if self.condition:
      raise ValueError(
        'Gibbs takes no condition, and this energy is given one; allowed: '
        'Langevin, MALA.'
      )
    if not learners.has_method(self.energy, 'gibbs'):
      raise ValueError(
        'This energy has no method gibbs; allowed: Langevin, Underdamped, MALA.'
      )
    moved = learners.call(
      self.energy,
      self.energy.params,
      rng,
      x,
      num_steps,
      method='gibbs',
      **self._context(),
    )
    checks.shape(x.shape, **{"The energy's gibbs": moved})
    return moved

  def _context(self):
    return dict(axis_name=self.axis_name, rng=self.dropout_rng)

  def _check_single(self, what):
    if learners.mixes(self.energy):
      raise ValueError(
        f'{what} of single examples are asked of an energy that mixes its batch; '
        'allowed: Langevin.'
      )


def target(
  energy: Learner,
  *condition: Array,
  axis_name: str | None = None,
  dropout_rng: PRNGKey | None = None,
) -> Target:
  """Returns the law of a learned energy, under which chains of `samplers` move.

  The law of an energy that mixes its batch is that of the whole batch over all devices,
  prod_i exp(-E(x_i; batch)). It has a score, which Langevin dynamics follow, but no log
  densities of single examples.

  Args:
    energy: the learner.
    *condition: what else the energy takes, [n, ...] each.
    axis_name: the mapped axis over which points are split.
    dropout_rng: key of the energy's dropout, which a chain keeps for all its steps.
  """
  return _EnergyTarget(energy, condition, dropout_rng, axis_name)


def run_chain(
  energy: Learner,
  chain: samplers.Chain,
  rng: PRNGKey,
  x: Array,
  *condition: Array,
  block_size: int = 0,
  ksd: stein.KSD = stein.KSD(max_points=0),
  axis_name: str | None = None,
  dropout_rng: PRNGKey | None = None,
) -> tuple[Array, Metrics]:
  """Returns x after a chain of the energy, like x, and the chain's metrics.

  The metrics are named chain/NAME, and are means over blocks and devices. Beside the
  chain's own there is 'chain/move', the mean distance from start to end.

  Args:
    energy: the learner.
    chain: a value of `samplers`, or any callable of that shape.
    rng: key of the chain.
    x: where it starts [n, ...].
    *condition: what else the energy takes, [n, ...] each.
    block_size: examples at a time, with a key for each block; 0 for all at once. The
      last block is filled with rows of the others.
    ksd: what is returned as 'chain/ksd': with a `max_points` above 0 the squared
      discrepancy of the ends to the energy's law, without dropout.
    axis_name: the mapped axis over which x is split.
    dropout_rng: key of the energy's dropout, the same in all steps of the chain.

  Raises:
    ValueError: an option of the chain is out of range, the energy lacks what the chain
      or the discrepancy asks for, or the chain returns anything but points and scalars.
    TypeError: the chain is a class or the key is none.
  """
  checks.function(samplers.WANTED, chain=chain)
  checks.key(rng=rng)
  checks.count(minimum=0, block_size=block_size)

  def run(rng, x, *condition):
    law = target(
      energy, *condition, axis_name=axis_name, dropout_rng=dropout_rng
    )
    # The message about a wrong option begins with the name of its flag.
    with build.section('chain'):
      return _checked(chain(rng, x, law), x)

  # Steps are too small for integers.
  x = dtypes.floating(x)
  if block_size:
    moved, metrics = _in_blocks(run, block_size, rng, x, *condition)
  else:
    moved, metrics = run(rng, x, *condition)
  metrics = {f'chain/{name}': value for name, value in metrics.items()}
  metrics = collectives.pmean(move(x, moved) | metrics, axis_name)
  checks.has(('max_points',), 'a value, such as stein.KSD()', ksd=ksd)
  if ksd.max_points:
    with build.section('ksd'):
      metrics['chain/ksd'] = _discrepancy(
        energy, ksd, moved, *condition, axis_name=axis_name
      )
  return moved, metrics


def check_num_chains(num_chains: int, batch: Batch) -> None:
  """Raises ValueError unless that many chains can go on from step to step.

  Allowed are 0, for none, and at least as many as the batch has images. Chains need
  data without conditions, since the next batch has other ones.
  """
  checks.count(minimum=0, num_chains=num_chains)
  size = len(batch['image'])
  # A step draws as many chains as the batch has images, no chain twice.
  if num_chains and num_chains < size:
    raise ValueError(
      f'num_chains={num_chains} must be 0 or at least batch_size={size}.'
    )
  if num_chains and values.conditions(batch):
    raise ValueError(
      f'num_chains={num_chains} needs data without conditions, since the next batch '
      'has other ones than its chains; allowed: 0.'
    )


def continued(
  choice_rng: PRNGKey,
  restart_rng: PRNGKey,
  chains: Array | None,
  start: Array,
  *,
  restart: float = 0.05,
) -> tuple[Array, Callable[[Array], Array | None]]:
  """Returns where chains begin, like start, and a function that keeps their ends.

  They begin at rows of the chains that are kept, each with chance `restart` at its
  start instead [DM19]. The function returns the chains with the ends in the rows that
  were drawn. Without chains all begin at the start, and nothing is kept: None.

  Args:
    choice_rng: key of the rows, none of which is drawn twice.
    restart_rng: key of who begins at its start.
    chains: where chains have ended [m, ...], m at least n; or None.
    start: where they begin afresh [n, ...].
    restart: that chance.

  Raises:
    ValueError: the chance is none, or there are fewer chains than starts.

  Examples:
    >>> one, other = jax.random.split(jax.random.key(0))
    >>> chains, afresh = jnp.arange(3.0), jnp.full(2, 9.0)
    >>> start, keep = continued(one, other, chains, afresh, restart=1.0)
    >>> start.tolist(), sorted(keep(start + 1).tolist())[1:]
    ([9.0, 9.0], [10.0, 10.0])
  """
  checks.non_negative(restart=restart)
  checks.at_most(1, restart=restart)
  if chains is None:
    return start, lambda ends: None
  chains, start = dtypes.floating(chains), dtypes.floating(start)
  num = len(start)
  if len(chains) < num:
    raise ValueError(
      f'There are {len(chains)} chains for {num} starts; wanted: as many, or more.'
    )
  # No row is drawn twice, since it could keep the end of one chain only.
  chosen = jax.random.permutation(choice_rng, len(chains))[:num]
  again = jax.random.bernoulli(restart_rng, restart, (num,))
  again = again.reshape(-1, *(1,) * (start.ndim - 1))
  return (
    jnp.where(again, start, chains[chosen]),
    lambda ends: chains.at[chosen].set(ends),
  )


def move(x: Array, moved: Array) -> Metrics:
  """Returns the metric of how far chains went from x [n, ...], on this device."""
  # Bytes would wrap around.
  way = dtypes.at_least_float32(moved) - dtypes.at_least_float32(x)
  way = way.reshape(len(x), -1)
  return {'chain/move': jnp.mean(jnp.linalg.norm(way, axis=1))}


def _discrepancy(energy, ksd, x, *condition, axis_name):
  """Returns the squared KSD [] of points, each to the law under its condition."""
  if learners.mixes(energy):
    raise ValueError(
      f'max_points={ksd.max_points} asks for scores of single examples, which an '
      'energy that mixes its batch does not have; allowed: 0.'
    )
  x, *condition = ksd.first((x, *condition), axis_name=axis_name)
  return ksd(x, values.score(energy, x, *condition), axis_name=axis_name)


def _checked(result, x):
  """Returns a chain's result as points like x, in its dtype, and scalars [].

  Raises:
    ValueError: the result is something else.
  """
  # Any callable may be a chain, so nothing is known of its result.
  if not isinstance(result, tuple) or len(result) != 2:
    raise ValueError(
      f'The chain returns a {type(result).__name__}; wanted: a pair of the points '
      'moved and a dict of metrics.'
    )
  moved, metrics = result
  checks.shape(x.shape, **{'What the chain moved': moved})
  if not isinstance(metrics, Mapping):
    raise ValueError(
      f'The metrics of the chain are a {type(metrics).__name__}; wanted: a dict of '
      'scalars.'
    )
  checks.shape((), **{f'metrics[{name!r}]': v for name, v in metrics.items()})
  means = {name: dtypes.at_least_float32(v) for name, v in metrics.items()}
  return moved.astype(x.dtype), means


def _in_blocks(run, block_size, rng, *rows):
  """Returns the points of `run` on block after block, and the means of its metrics.

  Args:
    run: function of a key and a block of each array to points and metrics.
    block_size: rows of a block.
    rng: key of all blocks.
    *rows: [n, ...] each, the points first.
  """
  num = len(rows[0])
  blocks = -(-num // block_size)
  # Rows of the start fill the last block, since an energy that mixes its batch
  # needs a whole one.
  filled = jnp.arange(blocks * block_size) % num
  split = lambda array: jnp.asarray(array)[filled].reshape(
    blocks, block_size, *array.shape[1:]
  )
  # A block's key depends on its place alone, and not on how many there are.
  keys = jax.vmap(functools.partial(jax.random.fold_in, rng))
  arguments = (keys(jnp.arange(blocks)), *map(split, rows))
  # One block after another, so that memory does not grow with the chains.
  moved, metrics = lax.map(lambda block: run(*block), arguments)
  moved = moved.reshape(-1, *rows[0].shape[1:])[:num]
  return moved, jax.tree.map(lambda each: jnp.mean(each, 0), metrics)


def in_whole_batches(
  energy: Learner, num: int, condition: Array | None = None
) -> tuple[int, tuple[Array, ...]]:
  """Returns how many chains are run for num samples, and (their conditions,) or ().

  Chains of an energy that mixes its batch are whole batches of the training size, in
  which conditions repeat. The caller cuts off those beyond num. Where labels are the
  condition and none are given they are 0, 1, ... in turn.

  Raises:
    ValueError: there are not num conditions.
  """
  # In a batch of another size such an energy is another function. Without a
  # condition no sample then depends on how many are asked for.
  size = energy.batch_size
  rows = -(-num // size) * size if learners.mixes(energy) and size else num
  if condition is None:
    classes = energy.num_classes
    return rows, (jnp.arange(rows) % classes,) if classes else ()
  condition = jnp.asarray(condition)
  checks.shape((num, *condition.shape[1:]), condition=condition)
  return rows, (condition[jnp.arange(rows) % num],)


def sample_state(
  state,
  rng: PRNGKey,
  num: int,
  *,
  condition: Array | None = None,
  chain: samplers.Chain = samplers.MALA(0.3, 1000),
) -> Array:
  """Returns the ends [num, ...] of chains of `state.energy` started at N(0, I).

  This is the `sample` of every algorithm that learns an energy alone. An energy that
  mixes its batch runs whole batches of the training size. A chain, or one in it, that
  has a method `start(rng, shape)`, as those of discrete units, starts there.

  Args:
    state: a state with a learner `energy`.
    rng: key of starts and chains.
    num: number of samples.
    condition: what else the energy takes [num, ...]. Labels are 0, 1, ... in turn if
      None.
    chain: the chain; see `run_chain`.
  """
  checks.key(rng=rng)
  energy = state.energy
  rows, given = in_whole_batches(energy, num, condition)
  start_rng, chain_rng = jax.random.split(rng)
  inner = getattr(chain, 'chain', chain)
  start = getattr(inner, 'start', jax.random.normal)
  x = start(start_rng, (rows, *energy.input_shape))
  # Examples that do not see each other need no blocks.
  block_size = energy.batch_size if learners.mixes(energy) else 0
  moved, _ = run_chain(
    energy, chain, chain_rng, x, *given, block_size=block_size
  )
  return moved[:num]
