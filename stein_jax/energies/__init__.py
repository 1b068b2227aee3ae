"""Energies E(x) [n], with p(x) proportional to exp(-E(x)).

The networks are Linen modules without mutable state, and take images [n, h, w, c] or
vectors [n, d]. A learner of one is called as `value(energy, energy.params, x)`. Further
methods that some have are called as `learners.call(energy, energy.params, ...,
method='log_partition')`.
"""

from stein_jax.energies.chains import check_num_chains
from stein_jax.energies.chains import continued
from stein_jax.energies.chains import in_whole_batches
from stein_jax.energies.chains import run_chain
from stein_jax.energies.chains import sample_state
from stein_jax.energies.chains import target
from stein_jax.energies.directions import direction
from stein_jax.energies.directions import distance_moved
from stein_jax.energies.directions import features
from stein_jax.energies.divergences import run_with_divergence
from stein_jax.energies.ising import Ising
from stein_jax.energies.likelihoods import ais_estimate
from stein_jax.energies.likelihoods import ais_log_partition
from stein_jax.energies.likelihoods import check_density
from stein_jax.energies.likelihoods import exact_log_partition
from stein_jax.energies.likelihoods import log_likelihood
from stein_jax.energies.likelihoods import log_partition
from stein_jax.energies.losses import ascend_likelihood
from stein_jax.energies.losses import contrast
from stein_jax.energies.losses import cross_entropy
from stein_jax.energies.losses import free_energy
from stein_jax.energies.losses import variational_contrast
from stein_jax.energies.networks import MLP
from stein_jax.energies.networks import Autoencoder
from stein_jax.energies.networks import ConvNet
from stein_jax.energies.networks import Discriminator
from stein_jax.energies.networks import JointLabel
from stein_jax.energies.networks import Levels
from stein_jax.energies.networks import MarginalLabel
from stein_jax.energies.networks import MultiModal
from stein_jax.energies.networks import Unimodal
from stein_jax.energies.networks import expert_energy
from stein_jax.energies.networks import expert_entropy
from stein_jax.energies.rbm import RBM
from stein_jax.energies.rbm import BinaryRBM
from stein_jax.energies.values import KnownMean
from stein_jax.energies.values import conditions
from stein_jax.energies.values import has_one_pass
from stein_jax.energies.values import pair
from stein_jax.energies.values import score
from stein_jax.energies.values import score_and_mean
from stein_jax.energies.values import value

__all__ = [
  'Autoencoder',
  'BinaryRBM',
  'ConvNet',
  'Discriminator',
  'Ising',
  'JointLabel',
  'KnownMean',
  'Levels',
  'MLP',
  'MarginalLabel',
  'MultiModal',
  'RBM',
  'Unimodal',
  'ais_estimate',
  'ais_log_partition',
  'ascend_likelihood',
  'check_density',
  'check_num_chains',
  'conditions',
  'continued',
  'contrast',
  'cross_entropy',
  'direction',
  'distance_moved',
  'exact_log_partition',
  'expert_energy',
  'expert_entropy',
  'features',
  'free_energy',
  'has_one_pass',
  'in_whole_batches',
  'log_likelihood',
  'log_partition',
  'pair',
  'run_chain',
  'run_with_divergence',
  'sample_state',
  'score',
  'score_and_mean',
  'target',
  'value',
  'variational_contrast',
]
