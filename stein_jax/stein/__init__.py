"""Stein primitives: the operator, directions, discrepancies, tests, thinning, weights.

All of them take points, scores at the points (grad_x log p) and a radial kernel, and
nothing else, so that any density will do. A kernel may hold a rule in place of its
bandwidth, such as `kernels.Median`, which is applied to the points. Everything is pure
and may be jitted and vmapped; what has an `axis_name` may be mapped over devices.
Directions, discrepancies and control variates may be differentiated, with a bandwidth
by a rule held constant. What searches (`ksd_descent`, `fssd_locations`,
`importance_weights`) has no reverse mode, and a test's p-value no slope.
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
from stein_jax.stein.calling import own_key
from stein_jax.stein.combining import Sum
from stein_jax.stein.curvature import Curvature
from stein_jax.stein.curvature import MixtureSVGD
from stein_jax.stein.curvature import NewtonSVGD
from stein_jax.stein.descent import ksd_descent
from stein_jax.stein.descent import stein_points
from stein_jax.stein.directions import NORMALIZATIONS
from stein_jax.stein.directions import SVGD
from stein_jax.stein.directions import FeatureSVGD
from stein_jax.stein.directions import Score
from stein_jax.stein.directions import feature_repulsion
from stein_jax.stein.directions import feature_svgd_direction
from stein_jax.stein.directions import svgd_direction
from stein_jax.stein.discrepancies import KSD
from stein_jax.stein.discrepancies import ksd
from stein_jax.stein.discrepancies import stein_matrix
from stein_jax.stein.discrepancies import stein_operator
from stein_jax.stein.features import fssd
from stein_jax.stein.features import fssd_locations
from stein_jax.stein.features import fssd_test
from stein_jax.stein.features import random_feature_ksd
from stein_jax.stein.features import random_feature_ksd_test
from stein_jax.stein.goodness_of_fit import aggregated_ksd_test
from stein_jax.stein.goodness_of_fit import block_ksd_test
from stein_jax.stein.goodness_of_fit import composite_ksd_test
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
from stein_jax.stein.results import TestResult
from stein_jax.stein.thinning import thin
from stein_jax.stein.two_sample import aggregated_mmd_test
from stein_jax.stein.two_sample import mmd
from stein_jax.stein.two_sample import mmd_test
from stein_jax.stein.variances import Moments
from stein_jax.stein.variances import moments
from stein_jax.stein.variances import predicted_variance
from stein_jax.stein.weights import control_functional
from stein_jax.stein.weights import importance_weights
from stein_jax.stein.weights import polynomial_control_variates
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
  'KSD',
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
  'TestResult',
  'Units',
  'Variances',
  'WANTED',
  'Whitened',
  'aggregated_ksd_test',
  'aggregated_mmd_test',
  'block_ksd_test',
  'call',
  'composite_ksd_test',
  'control_functional',
  'feature_repulsion',
  'feature_svgd_direction',
  'fssd',
  'fssd_locations',
  'fssd_test',
  'importance_weights',
  'ksd',
  'ksd_descent',
  'ksd_test',
  'mmd',
  'mmd_test',
  'moments',
  'needs',
  'needs_score',
  'own_key',
  'polynomial_control_variates',
  'predicted_variance',
  'random_feature_ksd',
  'random_feature_ksd_test',
  'stein_matrix',
  'stein_operator',
  'stein_points',
  'svgd_direction',
  'thin',
  'units_of',
]
