"""Controllers of the game between an energy and a generator [LW17 sec 5.2].

A controller is a value with `init() -> state` and `update(gap, state) -> (factors,
state)`, as an optax transformation is. The gap [] is the mean reconstruction error of
data minus that of samples, by an autoencoder energy after its last step. Below 0 the
energy is ahead of the generator, since it reconstructs data better than samples; above
0 it is behind. A gap of nan makes the factors that depend on its sign nan.
"""

from typing import Any, NamedTuple

from flax import struct
import jax.numpy as jnp

from stein_jax import checks
from stein_jax.types import Array


class Factors(NamedTuple):
  """What a controller does to the next step of an energy."""

  negatives: Array | float = 1.0  # factor on the weight of the samples
  rate: Array | float = 1.0  # factor on the update
  frozen: Array | bool = False  # whether there is no update


@struct.dataclass
class Fixed:
  """Leaves the energy alone, whatever the gap."""

  # Unannotated, this is not a field. A gap costs a pass of the energy, and asks
  # for one that reconstructs.
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
    share: share of the weight that is left, in (0, 1]. A third takes gamma from 0.7 to
      0.9.
    when: 'ahead', or 'behind' as LW17 prints it.
  """

  share: float = 1 / 3
  when: str = struct.field(pytree_node=False, default='ahead')

  needs_gap = True

  def update(self, gap: Array, state: Any) -> tuple[Factors, Any]:
    """Returns the factor on the samples' weight, and the state."""
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
    factor: factor on the energy's update while it is behind.
  """

  factor: float = 5.0

  needs_gap = True

  def update(self, gap: Array, state: Any) -> tuple[Factors, Any]:
    """Returns the factor on the update, and the state."""
    checks.positive(factor=self.factor)
    return Factors(rate=_by_sign(gap, 1.0, self.factor)), state


@struct.dataclass
class Freeze(Fixed):
  """Speeds an energy up that is behind, and stops one far ahead or behind [WL16].

  This is the rule as printed; see `FreezeAhead` for that of the code.

  Attributes:
    limit: gap, either way, beyond which the energy does not learn.
    factor: factor on its update while it is behind.

  Examples:
    >>> factors, _ = Freeze(limit=0.5).update(jnp.array(0.8), None)
    >>> print(factors.frozen)
    True
  """

  limit: float = 0.5
  factor: float = 5.0

  needs_gap = True

  def update(self, gap: Array, state: Any) -> tuple[Factors, Any]:
    """Returns the factors of the gap [], and the state."""
    checks.positive(limit=self.limit, factor=self.factor)
    # A gap of nan freezes nothing, so that the nan rate shows in the energy.
    rate = _by_sign(gap, 1.0, self.factor)
    return Factors(rate=rate, frozen=jnp.abs(gap) > self.limit), state


@struct.dataclass
class FreezeAhead(Fixed):
  """Discounts and stops an energy that is ahead, and speeds up one that is behind.

  This is the rule of WL16's code.

  Attributes:
    limit: how far ahead the energy may be and still learn.
    share: share of the samples' weight that is left while it is ahead.
    factor: factor on its update while it is behind.
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
  """Returns one of two numbers by the sign of the gap []; nan if it is nan."""
  # The gap of a first state is 0, which counts as ahead. Numbers take the gap's
  # dtype, since nan has it too.
  chosen = jnp.where(gap > 0, behind, ahead).astype(jnp.result_type(gap))
  return jnp.where(jnp.isnan(gap), gap, chosen)
