"""Generators, which draw samples [n, ...] from a key and a number n.

The networks are Linen modules that draw their own noise, and have a method `decode`
from latent vectors to samples without noise. A network may normalise by the statistics
of its batch, so `sample` draws whole batches of the training size. No sample depends on
how many are asked for.
"""

from stein_jax.generators.autoencoders import VAE
from stein_jax.generators.autoencoders import ImageToImage
from stein_jax.generators.drawing import create
from stein_jax.generators.drawing import create_pair
from stein_jax.generators.drawing import decode
from stein_jax.generators.drawing import decode_batch
from stein_jax.generators.drawing import drawer
from stein_jax.generators.drawing import generate
from stein_jax.generators.drawing import given
from stein_jax.generators.drawing import latent
from stein_jax.generators.drawing import sample
from stein_jax.generators.drawing import wrap
from stein_jax.generators.losses import batch_norm_entropy
from stein_jax.generators.losses import chain_rule_loss
from stein_jax.generators.losses import kl_divergence
from stein_jax.generators.losses import pulling_away
from stein_jax.generators.losses import variational_loss
from stein_jax.generators.networks import DCGAN
from stein_jax.generators.networks import MLP
from stein_jax.generators.networks import PRIORS
from stein_jax.generators.networks import Coupling
from stein_jax.generators.networks import Deconv
from stein_jax.generators.networks import TransitionOperator
from stein_jax.generators.walks import interpolate
from stein_jax.generators.walks import random_walk

__all__ = [
  'Coupling',
  'DCGAN',
  'Deconv',
  'ImageToImage',
  'MLP',
  'PRIORS',
  'TransitionOperator',
  'VAE',
  'batch_norm_entropy',
  'chain_rule_loss',
  'create',
  'create_pair',
  'decode',
  'decode_batch',
  'drawer',
  'generate',
  'given',
  'interpolate',
  'kl_divergence',
  'latent',
  'pulling_away',
  'random_walk',
  'sample',
  'variational_loss',
  'wrap',
]
