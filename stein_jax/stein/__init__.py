"""Stein primitives: the operator, directions, discrepancies, tests, thinning, weights.

All of them take points, scores at the points (grad_x log p) and a radial kernel, and
nothing else, so that any density will do. A kernel may hold a rule in place of its
bandwidth, such as `kernels.Median`, which is applied to the points. Everything is pure
and may be jitted, vmapped, mapped over devices (`axis_name`) and differentiated.
"""

from stein_jax.stein.descent import ksd_descent
from stein_jax.stein.descent import stein_points
from stein_jax.stein.directions import NORMALIZATIONS
from stein_jax.stein.directions import SVGD
from stein_jax.stein.directions import WANTED
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
from stein_jax.stein.goodness_of_fit import aggregated_ksd_test
from stein_jax.stein.goodness_of_fit import block_ksd_test
from stein_jax.stein.goodness_of_fit import composite_ksd_test
from stein_jax.stein.goodness_of_fit import ksd_test
from stein_jax.stein.results import TestResult
from stein_jax.stein.thinning import thin
from stein_jax.stein.two_sample import aggregated_mmd_test
from stein_jax.stein.two_sample import mmd
from stein_jax.stein.two_sample import mmd_test
from stein_jax.stein.weights import control_functional
from stein_jax.stein.weights import importance_weights
from stein_jax.stein.weights import polynomial_control_variates

__all__ = [
  'FeatureSVGD',
  'KSD',
  'NORMALIZATIONS',
  'SVGD',
  'Score',
  'TestResult',
  'WANTED',
  'aggregated_ksd_test',
  'aggregated_mmd_test',
  'block_ksd_test',
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
  'polynomial_control_variates',
  'stein_matrix',
  'stein_operator',
  'stein_points',
  'svgd_direction',
  'thin',
]
