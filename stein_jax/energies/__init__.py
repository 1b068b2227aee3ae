"""Energies E(x) [n], with p(x) proportional to exp(-E(x)).

Modules of flax.linen without mutable state; images [n, h, w, c] or vectors
[n, d] come in. What a module offers beyond E is a method, called as
`energy.apply_fn(energy.params, ..., method='log_partition')`.
"""

from stein_jax.energies.functions import chain
from stein_jax.energies.functions import check_density
from stein_jax.energies.functions import conditions
from stein_jax.energies.functions import contrast
from stein_jax.energies.functions import free_energy
from stein_jax.energies.functions import log_partition
from stein_jax.energies.functions import pair
from stein_jax.energies.functions import sample_state
from stein_jax.energies.functions import score
from stein_jax.energies.functions import value
from stein_jax.energies.functions import variational_contrast
from stein_jax.energies.functions import whole
from stein_jax.energies.networks import MLP
from stein_jax.energies.networks import Autoencoder
from stein_jax.energies.networks import ConvNet
from stein_jax.energies.networks import Discriminator
from stein_jax.energies.networks import JointLabel
from stein_jax.energies.networks import MultiModal
from stein_jax.energies.networks import Unimodal
from stein_jax.energies.networks import expert_energy
from stein_jax.energies.networks import expert_entropy
from stein_jax.energies.rbm import RBM
from stein_jax.energies.rbm import BinaryRBM

__all__ = [
  'Autoencoder',
  'BinaryRBM',
  'ConvNet',
  'Discriminator',
  'JointLabel',
  'MLP',
  'MultiModal',
  'RBM',
  'Unimodal',
  'chain',
  'conditions',
  'contrast',
  'expert_energy',
  'expert_entropy',
  'free_energy',
  'pair',
  'sample_state',
  'score',
  'variational_contrast',
  'check_density',
  'log_partition',
  'value',
  'whole',
]
