"""Chains that draw each variable from its law given the others."""

from flax import struct

from stein_jax import checks
from stein_jax.types import Metrics, PRNGKey, Target, Tree


@struct.dataclass
class Gibbs:
  """A chain of Gibbs sweeps, without metrics, of targets that have them.

  Such a target has the method `gibbs(rng, x, num_steps)`, which returns x moved.

  Attributes:
    num_steps: sweeps over the variables, at least 1.
  """

  num_steps: int = struct.field(pytree_node=False, default=1)

  def __call__(
    self, rng: PRNGKey, x: Tree, target: Target
  ) -> tuple[Tree, Metrics]:
    """Returns x after the sweeps, like x, and {}.

    Raises:
      ValueError: an option out of range, or a target without the method.
    """
    checks.instance(target=target)
    checks.key(rng=rng)
    checks.count(num_steps=self.num_steps)
    # A score is not enough: the energy itself must know its conditional laws.
    if not hasattr(target, 'gibbs'):
      raise ValueError(
        'Gibbs needs conditional laws that can be sampled, and this target has no '
        'method gibbs(rng, x, num_steps); allowed: Langevin, Underdamped, MALA.'
      )
    return target.gibbs(rng, x, self.num_steps), {}
