"""Controllers of the game between an energy and a generator [LW17 sec 5.2].

A controller is a value with `init() -> state` and `update(gap, state) -> (factors,
state)`, as an optax transformation is. The gap [] is the mean reconstruction error of
data less that of samples, by an autoencoder energy after its last step: below 0 the
energy is ahead of the generator, since it reconstructs data better than samples; above
0 it is behind. A gap that is nan makes what depends on its sign nan.
"""

from typing import Any, NamedTuple

from flax import struct
import jax.numpy as jnp

from stein_jax import checks
from stein_jax.types import Array


class Factors(NamedTuple):
  """What a controller does to the next step of an energy."""

  negatives: Array | float = 1.0  # times the weight of the samples
  rate: Array | float = 1.0  # times the update
  frozen: Array | bool = False  # whether there is none


@struct.dataclass
class Fixed:
  """Leaves the energy alone; the gap need not be known."""

  needs_gap = False

  def init(self) -> Any:
    """Returns the first state, which is empty."""
    return ()

  def update(self, gap: Array, state: Any) -> tuple[Factors, Any]:
    """Returns factors that change nothing, and the state."""
    del gap
    return Factors(), state


@struct.dataclass
class Discount(Fixed):
  """Weighs samples less while the energy is ahead, as LW17's code does.

  Attributes:
    share: of the weight that is left, in (0, 1]: a third takes gamma from 0.7 to 0.9.
    when: 'ahead'; or 'behind', as LW17 prints it.
  """

  share: float = 1 / 3
  when: str = struct.field(pytree_node=False, default='ahead')

  needs_gap = True

  def update(self, gap: Array, state: Any) -> tuple[Factors, Any]:
    """Returns the factor of the gap [], and the state."""
    checks.choice(('ahead', 'behind'), when=self.when)
    checks.positive(share=self.share)
    checks.at_most(1, share=self.share)
    ahead, behind = self.share, 1.0
    if self.when == 'behind':
      ahead, behind = behind, ahead
    return Factors(negatives=_by_sign(gap, ahead, behind)), state


@struct.dataclass
class Speed(Fixed):
  """Lets the energy learn faster while it is behind, as LW17 does on faces.

  Attributes:
    factor: of its rate then.
  """

  factor: float = 5.0

  needs_gap = True

  def update(self, gap: Array, state: Any) -> tuple[Factors, Any]:
    """Returns the factor of the gap [], and the state."""
    checks.positive(factor=self.factor)
    return Factors(rate=_by_sign(gap, 1.0, self.factor)), state


@struct.dataclass
class Freeze(Fixed):
  """Speeds the energy up while it is behind, and stops it where the two are far apart.

  As WL16 prints it.

  Attributes:
    limit: of the gap, either way, beyond which the energy does not learn.
    factor: of its rate while it is behind.
  """

  limit: float = 0.5
  factor: float = 5.0

  needs_gap = True

  def update(self, gap: Array, state: Any) -> tuple[Factors, Any]:
    """Returns the factors of the gap [], and the state."""
    checks.positive(limit=self.limit, factor=self.factor)
    rate = _by_sign(gap, 1.0, self.factor)
    return Factors(rate=rate, frozen=jnp.abs(gap) > self.limit), state


@struct.dataclass
class FreezeAhead(Fixed):
  """Discounts and stops an energy that is ahead, and speeds up one that is behind.

  As WL16's code does.

  Attributes:
    limit: how far ahead the energy may be and still learn.
    share: of the weight of samples that is left while it is ahead.
    factor: of its rate while it is behind.
  """

  limit: float = 0.5
  share: float = 1 / 3
  factor: float = 5.0

  needs_gap = True

  def update(self, gap: Array, state: Any) -> tuple[Factors, Any]:
    """Returns the factors of the gap [], and the state."""
    checks.positive(limit=self.limit, share=self.share, factor=self.factor)
    checks.at_most(1, share=self.share)
    factors = Factors(
      negatives=_by_sign(gap, self.share, 1.0),
      rate=_by_sign(gap, 1.0, self.factor),
      frozen=gap < -self.limit,
    )
    return factors, state


def _by_sign(gap, ahead, behind):
  """Returns one of two numbers by the sign of the gap []; nan where it is nan."""
  chosen = jnp.where(gap > 0, behind, ahead).astype(jnp.result_type(gap))
  return jnp.where(jnp.isnan(gap), gap, chosen)
