"""How good samples are: quality, variety, copies, and tests of two laws.

These are pure functions of arrays: of a classifier's logits, of whatever features are
given, of points or of images. Distances go by blocks of rows, in float32; spectra,
class probabilities and pixels are float64 on the host. Where a number that goes in is
nan, what comes out is nan.
"""

from stein_jax.metrics.chains import convergence
from stein_jax.metrics.classes import accuracy
from stein_jax.metrics.classes import auroc
from stein_jax.metrics.classes import calibration_error
from stein_jax.metrics.classes import class_histogram
from stein_jax.metrics.classes import classifier_metrics
from stein_jax.metrics.classes import duplicates
from stein_jax.metrics.classes import histogram_entropy
from stein_jax.metrics.classes import inception_score
from stein_jax.metrics.classes import linear_probe
from stein_jax.metrics.classes import num_splits
from stein_jax.metrics.distances import diversity
from stein_jax.metrics.distances import nearest_neighbour_distance
from stein_jax.metrics.distances import nearest_training
from stein_jax.metrics.distances import pairwise_distance
from stein_jax.metrics.images import psnr
from stein_jax.metrics.images import recovery
from stein_jax.metrics.images import ssim
from stein_jax.metrics.laws import energy_distance
from stein_jax.metrics.laws import frechet_distance
from stein_jax.metrics.laws import manifold_metrics
from stein_jax.metrics.laws import sliced_wasserstein
from stein_jax.metrics.laws import two_sample_test

__all__ = [
  'accuracy',
  'auroc',
  'calibration_error',
  'class_histogram',
  'classifier_metrics',
  'convergence',
  'diversity',
  'duplicates',
  'energy_distance',
  'frechet_distance',
  'histogram_entropy',
  'inception_score',
  'linear_probe',
  'manifold_metrics',
  'nearest_neighbour_distance',
  'nearest_training',
  'num_splits',
  'pairwise_distance',
  'psnr',
  'recovery',
  'sliced_wasserstein',
  'ssim',
  'two_sample_test',
]
