"""Chains in units of their own, in which a law that is narrow in some ways is round."""

from flax import struct
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax

from stein_jax import checks
from stein_jax import dtypes
from stein_jax.samplers import _steps
from stein_jax.samplers import targets
from stein_jax.types import Array, Metrics, PRNGKey, Target, Tree

_HIGHEST = lax.Precision.HIGHEST  # TPU and GPU products are half precision


@struct.dataclass
class Preconditioned:
  """A chain in coordinates z in which a covariance M is the identity: x = A z, M = AA'.

  A step of `Langevin` is then x + (delta^2 / 2) M s(x) + delta A xi, and MALA's accept
  step measures noise by M^-1. A `step_size` is in units of M. With M the covariance of
  a Gaussian all its directions mix alike, and `Langevin` makes all of them wider by
  1 / (1 - delta^2 / 4): with precision L its law has the covariance
  (L - (delta^2 / 4) L M L)^-1.

  M is a constant. One that follows the points, as that of RMSprop, biases the law.

  Attributes:
    chain: what moves z, such as `MALA` or an `Adapted` one. It has no `clip`, which
      is in units of x.
    covariance: M: variances like a point, or a matrix [d, d] for points [n, d].

  Examples:
    >>> from stein_jax import samplers
    >>> variances = jnp.array([1.0, 10000.0])
    >>> normal = samplers.target(lambda x: -0.5 * jnp.sum(x**2 / variances, -1))
    >>> chain = Preconditioned(samplers.MALA(1.0, num_steps=30), variances)
    >>> start = jnp.zeros((2000, 2))
    >>> x, _ = jax.jit(lambda rng: chain(rng, start, normal))(jax.random.key(0))
    >>> print(x.std(0).round(-1))
    [  0. 100.]
  """

  chain: targets.Chain
  covariance: Tree

  def __call__(
    self, rng: PRNGKey, x: Tree, target: Target
  ) -> tuple[Tree, Metrics]:
    """Returns x after the chain, like x, and the chain's metrics [].

    Raises:
      ValueError: a covariance of another shape, or with a value that is known and not
        positive; or the chain has a `clip`.
    """
    checks.has(('log_density', 'score'), targets.TARGETS, target=target)
    checks.function(targets.WANTED, chain=self.chain)
    if getattr(self.chain, 'clip', ()):
      raise ValueError(
        f'chain.clip={self.chain.clip} would cut points in other units than their '
        'own; allowed: ().'
      )
    start, _ = _steps.chains(x)
    x = _steps.accumulated(start)
    units = _units(self.covariance, x)
    white = units.to_white(x)
    moved, metrics = self.chain(rng, white, _White(target, units))
    checks.like(x, moved=moved)
    # The way is added, so that a chain that stays returns its start to the last bit.
    way = units.to_points(jax.tree.map(jnp.subtract, moved, white))
    return optax.tree.cast_like(_steps.add(x, 1, way), start), metrics


@struct.dataclass
class _Scales:
  """The map z -> x = root z of a root like a point."""

  root: Tree

  def to_points(self, z):
    return jax.tree.map(lambda scale, leaf: scale[None] * leaf, self.root, z)

  def to_white(self, x):
    return jax.tree.map(lambda scale, leaf: leaf / scale[None], self.root, x)

  def to_white_score(self, score):
    return self.to_points(score)


@struct.dataclass
class _Matrix:
  """The map z -> x = root z of points [n, d], by a lower triangular root [d, d]."""

  root: Array

  def to_points(self, z):
    return jnp.dot(z, self.root.T, precision=_HIGHEST)

  def to_white(self, x):
    return jax.scipy.linalg.solve_triangular(self.root, x.T, lower=True).T

  def to_white_score(self, score):
    return jnp.dot(score, self.root, precision=_HIGHEST)


@struct.dataclass
class _White:
  """The law of z where x has that of a target."""

  target: Target
  units: _Scales | _Matrix

  @property
  def axis_name(self):
    return getattr(self.target, 'axis_name', None)

  def log_density(self, z: Tree) -> Array:
    return self.target.log_density(self.units.to_points(z))

  def score(self, z: Tree) -> Tree:
    score = self.target.score(self.units.to_points(z))
    checks.like(z, score=score)
    return self.units.to_white_score(score)


def _units(covariance, x):
  """Returns the map in which the covariance, of points like x, is the identity."""
  if isinstance(covariance, (tuple, list)) and hasattr(x, 'shape'):
    covariance = np.asarray(covariance)  # of a config
  if np.ndim(x) == 2 and np.shape(covariance) == 2 * x.shape[1:]:
    root = _cholesky(dtypes.at_least_float32(covariance))
    return _Matrix(root.astype(x.dtype))
  point = jax.tree.map(lambda leaf: leaf[0], x)
  checks.like(point, covariance=covariance)
  for leaf in jax.tree.leaves(covariance):
    checks.positive(covariance=jnp.min(jnp.asarray(leaf)))
  return _Scales(
    jax.tree.map(
      lambda variance, leaf: jnp.sqrt(jnp.asarray(variance, leaf.dtype)),
      covariance,
      point,
    )
  )


def _cholesky(covariance):
  root = jnp.linalg.cholesky(covariance)
  if not isinstance(root, jax.core.Tracer) and not (
    np.allclose(covariance, covariance.T) and np.all(np.isfinite(root))
  ):
    raise ValueError(
      'covariance must be a symmetric positive definite matrix, or positive '
      'variances.'
    )
  return root
