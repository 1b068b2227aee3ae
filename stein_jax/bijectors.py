"""Particles with constraints, such as positive numbers, moved without them.

SVGD and chains move points anywhere. A quantity that must stay positive, between two
numbers or on a simplex is written as a function x = T(z) of one that need not, and a
density of x becomes one of z by the logarithm of T's Jacobian. A bijector is that T for
one leaf of a tree: one of these, one of NumPyro, distrax or TensorFlow Probability, or
any object with `forward`, `inverse` and `forward_log_det_jacobian`.

  bijectors_of = {'rate': Softplus(), 'share': Simplex(), 'location': None}
  z = unconstrain(bijectors_of, particles)
  state = svgd.create(unconstrained(bijectors_of, log_density), z, optimizer)
  particles = constrain(bijectors_of, state.particles.params['particles'])
"""

from collections.abc import Callable
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from stein_jax import checks
from stein_jax import dtypes
from stein_jax.types import Array, Tree

_WANTED = (
  'a bijector, such as bijectors.Softplus(), or None for a leaf that is free'
)


@struct.dataclass
class Exp:
  """Positive numbers exp(z), whose logarithms have a scale."""

  def forward(self, z: Array) -> Array:
    """Returns exp(z), like z."""
    return jnp.exp(z)

  def inverse(self, x: Array) -> Array:
    """Returns log(x), like x."""
    return jnp.log(x)

  def forward_log_det_jacobian(self, z: Array) -> Array:
    """Returns the logarithm of the slope, like z."""
    return z


@struct.dataclass
class Softplus:
  """Positive numbers log(1 + exp(z)), which are about z where they are large."""

  def forward(self, z: Array) -> Array:
    """Returns log(1 + exp(z)), like z."""
    return jax.nn.softplus(z)

  def inverse(self, x: Array) -> Array:
    """Returns log(exp(x) - 1), like x."""
    return x + jnp.log(-jnp.expm1(-x))

  def forward_log_det_jacobian(self, z: Array) -> Array:
    """Returns the logarithm of the slope, like z."""
    return jax.nn.log_sigmoid(z)


@struct.dataclass
class Interval:
  """Numbers between two others.

  Attributes:
    low: the lower end.
    high: the upper end.

  Examples:
    >>> print(Interval(low=-1.0, high=3.0).forward(jnp.zeros(2)))
    [1. 1.]
  """

  low: Array | float = 0.0
  high: Array | float = 1.0

  def forward(self, z: Array) -> Array:
    """Returns low + (high - low) / (1 + exp(-z)), like z."""
    return self.low + self._width() * jax.nn.sigmoid(dtypes.floating(z))

  def inverse(self, x: Array) -> Array:
    """Returns log(x - low) - log(high - x), like x."""
    self._width()
    return jnp.log(x - self.low) - jnp.log(self.high - x)

  def forward_log_det_jacobian(self, z: Array) -> Array:
    """Returns the logarithm of the slope, like z."""
    slope = jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z)
    return slope + jnp.log(self._width())

  def _width(self):
    checks.finite(low=self.low, high=self.high)
    width = self.high - self.low
    checks.positive(**{'high - low': width})
    return width


@struct.dataclass
class Simplex:
  """Shares [..., k] that add up to 1, of k - 1 numbers, by breaking a stick.

  Each number breaks off the same share of what is left where it is 0, so that zeros are
  equal shares. Components are not alike otherwise, since the first is broken off first.

  Examples:
    >>> print(Simplex().forward(jnp.zeros(3)))
    [0.25 0.25 0.25 0.25]
  """

  def forward(self, z: Array) -> Array:
    """Returns shares [..., k] of numbers [..., k - 1]."""
    broken, left = self._logarithms(z)
    first = jnp.zeros((*left.shape[:-1], 1), left.dtype)
    left = jnp.concatenate([first, left], -1)
    whole = jnp.concatenate([broken, first], -1)  # the last is what is left
    return jnp.exp(whole + left)

  def inverse(self, x: Array) -> Array:
    """Returns the numbers [..., k - 1] of shares [..., k]."""
    x = dtypes.floating(x)
    left = jnp.flip(jnp.cumsum(jnp.flip(x, -1), -1), -1)[..., 1:]
    return jnp.log(x[..., :-1]) - jnp.log(left) + self._offset(left)

  def forward_log_det_jacobian(self, z: Array) -> Array:
    """Returns the logarithm of the Jacobian of all shares but the last [...]."""
    broken, left = self._logarithms(z)
    # A share is what is broken off times what was left.
    return jnp.sum(broken, -1) + jnp.sum(left, -1)

  def _logarithms(self, z):
    """Returns logarithms of parts broken off and of what each leaves [..., k - 1]."""
    z = dtypes.floating(z)
    shifted = z - self._offset(z)
    left = jnp.cumsum(jax.nn.log_sigmoid(-shifted), -1)
    return jax.nn.log_sigmoid(shifted), left

  def _offset(self, z):
    """Returns what makes equal shares of zeros, like z."""
    pieces = z.shape[-1]
    offset = np.log(np.arange(pieces, 0, -1))
    return jnp.broadcast_to(jnp.asarray(offset, z.dtype), z.shape)


def constrain(bijectors: Tree, z: Tree) -> Tree:
  """Returns particles x = T(z), a tree with leaves [n, ...].

  Args:
    bijectors: a tree like a particle, or the beginning of one, with a bijector or None
      in the place of each leaf, or for all leaves below it.
    z: particles without constraints, a tree with leaves [n, ...].

  Examples:
    >>> z = {'rate': jnp.zeros(3), 'location': jnp.zeros((3, 2))}
    >>> x = constrain({'rate': Exp(), 'location': None}, z)
    >>> print(x['rate'], x['location'].shape)
    [1. 1. 1.] (3, 2)
  """
  return _mapped(lambda b, leaf: jax.vmap(_forward(b))(leaf), bijectors, z)


def unconstrain(bijectors: Tree, x: Tree) -> Tree:
  """Returns particles z with T(z) = x, a tree with leaves [n, ...].

  Args:
    bijectors: as `constrain` takes them.
    x: particles that keep the constraints, a tree with leaves [n, ...].

  Raises:
    ValueError: a particle does not keep its constraint, where its value is known.
      Shares of a simplex must add up to 1 to about 3e-4 in float32.
  """

  def inverse(bijector, leaf):
    found = jax.vmap(_inverse(bijector))(leaf)
    if not isinstance(found, jax.core.Tracer):
      there_and_back = lambda x: _forward(bijector)(_inverse(bijector)(x))
      exact = dtypes.at_least_float32(leaf)
      if not _agree(exact, found, jax.vmap(there_and_back)(exact)):
        raise ValueError(
          f'Some particles of shape {np.shape(leaf)} are outside of what '
          f'{type(bijector).__name__} reaches, or on its edge.'
        )
    return found

  return _mapped(inverse, bijectors, x)


def unconstrained(
  bijectors: Tree, log_density_fn: Callable[..., Array]
) -> Callable[..., Array]:
  """Returns the log density of z where that of x = T(z) is given.

  It is log p(T(z)) + log |det dT / dz|, a function of one position and of what else
  the given one takes.

  Args:
    bijectors: as `constrain` takes them.
    log_density_fn: function of one position, a tree, to log p [] up to a constant.

  Examples:
    An exponential law, by the logarithm z of what it is of:

    >>> log_density = unconstrained(Exp(), lambda x: -x)
    >>> print(log_density(jnp.array(0.0)))
    -1.0
  """

  def log_density(z, *batch):
    z = jax.tree.map(dtypes.at_least_float32, z)
    x = _mapped(lambda b, leaf: _forward(b)(leaf), bijectors, z)
    terms = _mapped(lambda b, leaf: jnp.sum(_log_det(b)(leaf)), bijectors, z)
    return log_density_fn(x, *batch) + sum(jax.tree.leaves(terms))

  return log_density


def _agree(x, z, back):
  """Returns whether z are finite and T(z) is x, of the particles x that are finite."""
  tolerance = float(jnp.finfo(x.dtype).eps) ** 0.5
  x, z, back = map(dtypes.on_host, (x, z, back))
  known = np.all(np.isfinite(x), tuple(range(1, x.ndim)))
  x, z, back = x[known], z[known], back[known]
  # Shares that do not add up to 1 have an inverse, which is that of others.
  size = tolerance * np.max(np.abs(x), initial=0)
  is_inverse = np.allclose(back, x, rtol=tolerance, atol=size)
  return is_inverse and np.all(np.isfinite(z))


def _mapped(function, bijectors, tree):
  """Returns function(bijector, leaf) of each leaf, which stays where it has none."""

  def below(bijector, leaves):
    checks.instance(bijector=bijector)
    if bijector is not None and not _is_bijector(bijector):
      checks.has(('forward', 'inverse'), _WANTED, bijector=bijector)
    bijector = _Free() if bijector is None else bijector
    return jax.tree.map(
      lambda leaf: function(bijector, dtypes.floating(leaf)), leaves
    )

  # Those of NumPyro are trees themselves.
  is_leaf = lambda each: each is None or _is_bijector(each)
  return jax.tree.map(below, bijectors, tree, is_leaf=is_leaf)


@struct.dataclass
class _Free:
  """Any number, as it is: what None stands for."""

  forward = inverse = staticmethod(lambda z: z)
  forward_log_det_jacobian = staticmethod(jnp.zeros_like)


def _is_numpyro(bijector: Any) -> bool:
  return hasattr(bijector, 'log_abs_det_jacobian')


def _is_bijector(bijector: Any) -> bool:
  """Returns whether a value is a bijector of ours, or of a library that is known."""
  own = ('forward', 'inverse', 'forward_log_det_jacobian')
  return _is_numpyro(bijector) or all(hasattr(bijector, each) for each in own)


def _forward(bijector):
  return bijector if _is_numpyro(bijector) else bijector.forward


def _inverse(bijector):
  return bijector.inv if _is_numpyro(bijector) else bijector.inverse


def _log_det(bijector):
  """Returns the function of z to log |det dT / dz|, or to the terms of its sum."""
  if _is_numpyro(bijector):
    return lambda z: bijector.log_abs_det_jacobian(z, bijector(z))
  return bijector.forward_log_det_jacobian
