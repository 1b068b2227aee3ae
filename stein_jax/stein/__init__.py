"""Stein primitives: the operator, directions of SVGD, kernel discrepancies, tests.

All of them take points, scores at the points (grad_x log p) and a radial kernel, and
nothing else, so that any density will do. A kernel may hold a rule in place of its
bandwidth, such as `kernels.Median`, which is applied to the points. Everything is pure
and may be jitted, vmapped, mapped over devices (`axis_name`) and differentiated.
"""

from stein_jax.stein.annealing import Annealed
from stein_jax.stein.annealing import CyclicRise
from stein_jax.stein.annealing import LinearRise
from stein_jax.stein.annealing import TanhRise
from stein_jax.stein.calling import NEEDS
from stein_jax.stein.calling import WANTED
from stein_jax.stein.calling import call
from stein_jax.stein.calling import needs
from stein_jax.stein.calling import needs_score
from stein_jax.stein.combining import Sum
from stein_jax.stein.curvature import Curvature
from stein_jax.stein.curvature import MixtureSVGD
from stein_jax.stein.curvature import NewtonSVGD
from stein_jax.stein.directions import NORMALIZATIONS
from stein_jax.stein.directions import SVGD
from stein_jax.stein.directions import FeatureSVGD
from stein_jax.stein.directions import Score
from stein_jax.stein.directions import feature_repulsion
from stein_jax.stein.directions import feature_svgd_direction
from stein_jax.stein.directions import svgd_direction
from stein_jax.stein.discrepancies import ksd
from stein_jax.stein.discrepancies import stein_matrix
from stein_jax.stein.discrepancies import stein_operator
from stein_jax.stein.goodness_of_fit import ksd_test
from stein_jax.stein.gradient_free import FittedGaussian
from stein_jax.stein.gradient_free import GradientFreeSVGD
from stein_jax.stein.noise import NoisySVGD
from stein_jax.stein.polynomials import PolynomialSVGD
from stein_jax.stein.projections import CoordinateSVGD
from stein_jax.stein.projections import InformedSVGD
from stein_jax.stein.projections import LearnedBasis
from stein_jax.stein.projections import ProjectedSVGD
from stein_jax.stein.projections import RandomBasis
from stein_jax.stein.projections import SlicedSVGD
from stein_jax.stein.random_features import RandomFeatureSVGD
from stein_jax.stein.regularization import RegularizedSVGD
from stein_jax.stein.variances import Moments
from stein_jax.stein.variances import moments
from stein_jax.stein.variances import predicted_variance
from stein_jax.stein.whitening import Covariance
from stein_jax.stein.whitening import Given
from stein_jax.stein.whitening import Units
from stein_jax.stein.whitening import Variances
from stein_jax.stein.whitening import Whitened
from stein_jax.stein.whitening import units_of

__all__ = [
  'Annealed',
  'CoordinateSVGD',
  'Covariance',
  'Curvature',
  'CyclicRise',
  'FeatureSVGD',
  'FittedGaussian',
  'Given',
  'GradientFreeSVGD',
  'InformedSVGD',
  'LearnedBasis',
  'LinearRise',
  'MixtureSVGD',
  'Moments',
  'NEEDS',
  'NORMALIZATIONS',
  'NewtonSVGD',
  'NoisySVGD',
  'PolynomialSVGD',
  'ProjectedSVGD',
  'RandomBasis',
  'RandomFeatureSVGD',
  'RegularizedSVGD',
  'SVGD',
  'Score',
  'SlicedSVGD',
  'Sum',
  'TanhRise',
  'Units',
  'Variances',
  'WANTED',
  'Whitened',
  'call',
  'feature_repulsion',
  'feature_svgd_direction',
  'ksd',
  'ksd_test',
  'moments',
  'needs',
  'needs_score',
  'predicted_variance',
  'stein_matrix',
  'stein_operator',
  'svgd_direction',
  'units_of',
]
