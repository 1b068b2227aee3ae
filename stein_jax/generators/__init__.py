"""Generators: a key and a count in, samples [n, ...] out.

Modules of flax.linen that own their noise. `decode` is the network from a latent
vector on; what normalises by batch statistics is drawn in whole training-size
batches by `sample`, so that no sample depends on how many were asked for.
"""

from stein_jax.generators.autoencoders import VAE
from stein_jax.generators.autoencoders import ImageToImage
from stein_jax.generators.drawing import create
from stein_jax.generators.drawing import create_pair
from stein_jax.generators.drawing import decode
from stein_jax.generators.drawing import decode_batch
from stein_jax.generators.drawing import generate
from stein_jax.generators.drawing import latent
from stein_jax.generators.drawing import num_classes
from stein_jax.generators.drawing import sample
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
  'generate',
  'interpolate',
  'kl_divergence',
  'latent',
  'num_classes',
  'pulling_away',
  'random_walk',
  'sample',
  'variational_loss',
]
