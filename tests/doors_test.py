"""Every public function that takes arrays, in one table: dtypes, and nan.

A row calls its function with arrays of small whole numbers, which all dtypes have.
Its answer for a dtype is that for the same numbers in float32, to rounding; or the
function refuses the dtype by name. Values, sums and statistics of half precision are
in float32 or wider. What is like its points (directions, chains, scores) has their
dtype, and so has what is found entry by entry, such as a kernel, or only moves
entries. A number that is nan makes a result nan.
"""

from collections.abc import Callable
import functools
import importlib
import inspect
import pkgutil
from typing import Any, NamedTuple
import warnings

from absl.testing import absltest
from absl.testing import parameterized
from flax import linen as nn
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

import stein_jax
from stein_jax import _medians
from stein_jax import bijectors
from stein_jax import classifiers
from stein_jax import datasets
from stein_jax import densities
from stein_jax import dtypes
from stein_jax import energies
from stein_jax import generators
from stein_jax import inception
from stein_jax import kernels
from stein_jax import layers
from stein_jax import learners
from stein_jax import metrics
from stein_jax import revision
from stein_jax import samplers
from stein_jax import stein
from stein_jax.algorithms import amortized_svgd
from stein_jax.algorithms import noise_contrastive
from stein_jax.algorithms import pseudo_likelihood
from stein_jax.algorithms import recovery_likelihood
from stein_jax.algorithms import score_matching
from stein_jax.algorithms import svgd
from stein_jax.algorithms import vcd
from stein_jax.algorithms import vera
from stein_jax.runs import evaluation
from stein_jax.runs import images
from stein_jax.runs import judges
from stein_jax.runs import pictures
from stein_jax.runs import reporting

# What is compiled for each dtype of a row is nearly all that it costs. By default
# bytes are run, of the modules whose numbers are read, and two dtypes are traced; of
# the other modules bytes are traced. The others are `slow`.
_RUN = ('evaluation', 'kernels', '_medians', 'metrics', 'samplers', 'stein')
_TRACED = (np.float16, np.float64)
_MORE_DTYPES = (np.float16, ml_dtypes.bfloat16, np.int8, np.int32, np.bool_)

# Formulas, whose every public function has a row: all modules of these names.
_FORMULAS = (
  'energies',
  'generators',
  'metrics',
  'revision',
  'samplers',
  'stein',
)
# What takes no arrays of numbers, and why.
_WITHOUT_ARRAYS = {
  'stein.calling.needs': 'a name',
  'stein.calling.needs_score': 'directions',
  'stein.calling.own_key': 'a direction and a key',
  'energies.values.conditions': 'a batch, as it is',
  'energies.values.has_one_pass': 'an energy',
  'energies.likelihoods.check_density': 'an energy',
  'energies.likelihoods.log_partition': 'an energy',
  'energies.likelihoods.exact_log_partition': 'an energy',
  'energies.chains.check_num_chains': 'a batch, as it is',
  'energies.chains.in_whole_batches': 'conditions, as they are',
  'energies.chains.target': 'an energy',
  'metrics.classes.num_splits': 'a count',
  'revision.first_chains': 'a batch, as it is',
  'revision.init': 'a batch, as it is',
  'revision.propose_and_revise': 'a shape',
  'samplers.targets.target': 'a function',
  'stein.descent.stein_points': 'functions',
  'generators.drawing.create': 'shapes',
  'generators.drawing.create_pair': 'shapes',
  'generators.drawing.wrap': 'shapes',
  'generators.losses.chain_rule_loss': 'functions',
  'generators.walks.interpolate': 'a key',
  'generators.drawing.drawer': 'a batch, as it is',
  'generators.drawing.given': 'a condition, as it is',
  'generators.drawing.latent': 'a key',
  'generators.walks.random_walk': 'a key',
  'generators.drawing.check_label': 'labels, which are integers',
}
_OF_AN_ALGORITHM = ('init', 'step', 'sample')


def levels(*shape, seed=0, high=20):
  """Returns whole numbers from 0 to below `high`, whose squares pass 8 bits."""
  return np.random.default_rng(seed).integers(0, high, shape)


_KEY = jax.random.key(0)
_X, _Y = levels(6, 2), levels(5, 2, seed=1)
_SCORE = levels(6, 2, seed=2)
_NEAR = levels(6, 2, seed=3, high=3)
_SQ_DIST = levels(3, 4, seed=3)
_ROWS, _MORE_ROWS = levels(9, 3, seed=4), levels(8, 3, seed=5)
_LABELS = np.array([0, 1, 1])
_IMAGES, _OTHERS = levels(3, 4, 4, 1, seed=6), levels(3, 4, 4, 1, seed=7)
_BITS, _OTHER_BITS = (levels(2, 12, 12, 1, seed=i, high=2) for i in (8, 9))
_CONV = levels(3, 3, 1, 2, seed=10)
_SECTION = dict(name='synthetic', pixels='symmetric')
_rbf = functools.partial(kernels.rbf, bandwidth=60.0)


def _filled(tree):
  """Returns arrays for shapes: a wave, or zeros of integers, or a variance of 1."""

  def fill(path, leaf):
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
      return np.zeros(leaf.shape, leaf.dtype)
    if 'variance' in str(path[-1]):
      return np.ones(leaf.shape, leaf.dtype)
    size, inputs = (
      np.prod(s, dtype=int) for s in (leaf.shape, leaf.shape[:-1])
    )
    wave = 0.3 * np.sin(1 + np.arange(size)) / inputs**0.5
    return wave.reshape(leaf.shape).astype(leaf.dtype)

  return jax.tree_util.tree_map_with_path(fill, tree)


@functools.cache
def learner(module, shape, *more):
  """Returns a learner of a module on arrays of these shapes, without compiling."""
  inputs = [jax.ShapeDtypeStruct(s, jnp.float32) for s in (shape, *more)]
  create = lambda *inputs: learners.create(
    _KEY, module, optax.sgd(0.1), *inputs
  )
  return _filled(jax.eval_shape(create, *inputs))


@functools.cache
def labelled(module):
  """Returns a learner of an energy of images and labels."""
  inputs = jnp.zeros(_IMAGES.shape), jnp.asarray(_LABELS)
  create = lambda *inputs: learners.create(
    _KEY, module, optax.sgd(0.1), *inputs
  )
  return _filled(jax.eval_shape(create, *inputs))


@functools.cache
def generator(module, num=3, condition=None):
  """Returns a learner of a generator that draws `num`."""
  given = {}
  if condition:
    given['condition'] = jax.ShapeDtypeStruct(condition, jnp.float32)
  create = lambda **given: generators.create(
    _KEY, module, optax.sgd(0.1), num, **given
  )
  return _filled(jax.eval_shape(create, **given))


_mlp = lambda: learner(energies.MLP(widths=(4,)), (6, 2))
# Of a network that is linear in pieces the slope says nothing of a nan.
_CURVED = energies.ConvNet((2,), (3,), (2,), activation='swish')
_conv = lambda: learner(_CURVED, (3, 4, 4, 1))
_mixing = lambda: learner(energies.Discriminator(widths=(2, 2)), (3, 4, 4, 1))
_autoencoder = lambda: learner(
  energies.Autoencoder(convs=((2, 3, 2, 1), (2, 2, 1, 0))), (3, 4, 4, 1)
)
# Of two vectors.
_beside = lambda: _mlp().replace(
  apply_fn=lambda params, x, c: 0.5 * jnp.sum((x - c) ** 2, 1)
)
_experts = energies.MultiModal(widths=(2,), dense=3, num_experts=2)
_multimodal = lambda: learner(_experts, (3, 4, 4, 1))
_marginal = energies.MarginalLabel(classifiers.CNN(2, (2,), 3, dropout=0.0))
_classifying = lambda: learner(_marginal, (3, 4, 4, 1))
_plane = lambda: generator(generators.MLP(2, 2, (3,)))
_given = lambda: generator(generators.MLP(2, 2, (3,)), num=6, condition=(6, 2))
_vae = lambda: generator(
  generators.VAE((4, 4, 1), 2, 2, (2,), strides=(2, 1), kernels=(3, 3))
)
_painter = lambda: generator(
  generators.ImageToImage((4, 4, 1), 2, (2,), num_blocks=1),
  condition=(3, 4, 4, 1),
)


def applied(make):
  """Returns what a learner's network says of its inputs."""
  return lambda *x: learners.call(make(), make().params, *x)


def of_module(module, shape):
  return applied(lambda: learner(module, shape))


def with_params(objective):
  """Returns the value of a loss of `_mlp`'s parameters."""
  return lambda *x: objective(_mlp(), *x)(_mlp().params)


class State(NamedTuple):
  energy: Any
  generator: Any = None


class Door(NamedTuple):
  """A row of the table.

  Attributes:
    call: the function, of the arrays alone.
    arrays: whole numbers.
    host: it runs on the host, and takes no tracers.
    whole: a result of bytes or places, or one that keeps its dtype.
    refused: dtypes that it refuses; None: all but float32 and float64.
    keeps: the first result has the dtype of the first array.
    nan: why nan may go in and not come out; '' where it may not.
    parts: whether some of the results are of some of the arrays.
    slow: it is compiled in the slow suite alone, being long, or a few lines over
      others of the table.
  """

  call: Callable
  arrays: tuple
  host: bool = False
  whole: bool = False
  refused: tuple = ()
  keeps: bool = False
  nan: str = ''
  parts: bool = False
  slow: bool = False


_chain = dict(step_size=0.5, num_steps=2)
_log_density = lambda x: -0.01 * jnp.sum(jnp.asarray(x) ** 2, -1)


def _judge(rows):
  rows = np.asarray(rows, np.float32).reshape(len(rows), -1)
  return rows[:, :3], rows[:, :2]


def _svgd(x):
  state = svgd.create(lambda x: -0.01 * jnp.sum(x**2), x, optax.sgd(0.1))
  state, metrics = svgd.step(state, None, _KEY)
  return state.particles.params['particles'], metrics


def _amortized(condition):
  state = amortized_svgd.create(
    lambda x, center: -jnp.sum((x - center) ** 2), _given()
  )
  batch = {'image': jnp.zeros((6, 2)), 'condition': condition}
  return amortized_svgd.step(state, batch, _KEY)[0].generator.params


def _descended(rate):
  loss = lambda params: (params['params']['Dense_0']['bias'].sum() ** 2, {})
  return learners.descend(_mlp(), loss, rate=rate)[0].params


def _logistic(features, weights, log_precision):
  position = {'weights': weights, 'log_precision': log_precision}
  batch = {'image': features, 'label': np.arange(6) % 2}
  return densities.logistic_regression(9).log_density(position, batch)


def _png(samples, data):
  return images.read_png(pictures.picture(samples, {'image': data}))


def _recovery_page(condition, samples, image):
  batch = {'condition': condition, 'image': image}
  return images.read_png(pictures.recovery_page(samples, batch, _SECTION))


def _recovered(samples, image, mask):
  batch = {'image': image, 'mask': mask}
  return evaluation.recovered(samples, batch, _SECTION)


def _normalized(x):
  norm = learner(layers.BatchNorm(), x.shape)
  return learners.call(norm, norm.params, x)


class _Norm(nn.Module):
  kind: str

  @nn.compact
  def __call__(self, x):
    return layers.normalized(self.kind, x)


DOORS = {
  'dtypes.floating': Door(dtypes.floating, (_X,), keeps=True),
  'dtypes.at_least_float32': Door(dtypes.at_least_float32, (_X,)),
  'dtypes.promoted': Door(dtypes.promoted, (_X, _Y), parts=True),
  'dtypes.on_host': Door(dtypes.on_host, (_X,), host=True),
  # Kernels.
  'kernels.rbf': Door(kernels.rbf, (_SQ_DIST, np.array(9)), keeps=True),
  'kernels.imq': Door(kernels.imq, (_SQ_DIST, np.array(9)), keeps=True),
  'kernels.rational_quadratic': Door(
    kernels.rational_quadratic, (_SQ_DIST, np.array(9)), keeps=True
  ),
  'kernels.resolved': Door(
    lambda x: kernels.resolved(kernels.RBF(), x)(jnp.array([[1.0, 2.0]])), (_X,)
  ),
  'kernels.points': Door(
    lambda x, y: kernels.points(x=x, y=y), (_X, _Y), parts=True
  ),
  'kernels.squared_distance': Door(kernels.squared_distance, (_X, _Y)),
  'kernels.median_bandwidth': Door(kernels.median_bandwidth, (_X,)),
  '_medians.median_squared_distance': Door(
    _medians.median_squared_distance, (_X,), slow=True
  ),
  # Stein primitives.
  'stein.discrepancies.stein_operator': Door(
    lambda x: stein.stein_operator(lambda x: -0.5 * x, lambda x: x**2, x), (_X,)
  ),
  'stein.directions.svgd_direction': Door(
    lambda x, s: stein.svgd_direction(x, s, _rbf), (_X, _SCORE), keeps=True
  ),
  'stein.directions.feature_svgd_direction': Door(
    lambda x, s: stein.feature_svgd_direction(x, s, lambda x: 2 * x, _rbf),
    (_X, _SCORE),
    keeps=True,
  ),
  'stein.directions.feature_repulsion': Door(
    lambda x: stein.feature_repulsion(x, lambda x: 2 * x, _rbf),
    (_X,),
    keeps=True,
  ),
  'stein.discrepancies.stein_matrix': Door(
    lambda *points: stein.stein_matrix(*points, _rbf),
    (_X, _SCORE, _Y, levels(5, 2, seed=11)),
  ),
  'stein.discrepancies.ksd': Door(
    lambda x, s: stein.ksd(x, s, _rbf), (_X, _SCORE)
  ),
  'stein.calling.call': Door(
    lambda x, s: stein.call(stein.SVGD(_rbf), x, s),
    (_X, _SCORE),
    keeps=True,
    slow=True,
  ),
  'stein.variances.moments': Door(stein.moments, (_X, _SCORE), parts=True),
  'stein.variances.predicted_variance': Door(
    lambda v: stein.predicted_variance(stein.SVGD(), 200, 50, variance=v),
    (np.array(3),),
  ),
  'stein.whitening.units_of': Door(stein.units_of, (np.array([1, 9, 3]),)),
  'stein.goodness_of_fit.ksd_test': Door(
    lambda x, s: tuple(stein.ksd_test(_KEY, x, s, _rbf, num_bootstrap=9)),
    (_X, _SCORE),
  ),
  'stein.goodness_of_fit.aggregated_ksd_test': Door(
    lambda x, s: tuple(
      stein.aggregated_ksd_test(
        _KEY, x, s, kernels.RBF(60.0), scales=(0.5, 1.0), num_bootstrap=9
      )
    ),
    (_X, _SCORE),
  ),
  'stein.weights.importance_weights': Door(
    lambda x, s: stein.importance_weights(x, s, kernels.IMQ(60.0)),
    (_X, _SCORE),
  ),
  'stein.weights.control_functional': Door(
    lambda f, x, s: stein.control_functional(f, x, s, kernels.IMQ(60.0)),
    (levels(6), _X, _SCORE),
  ),
  'stein.weights.polynomial_control_variates': Door(
    stein.polynomial_control_variates, (levels(6), _X, _SCORE)
  ),
  'stein.goodness_of_fit.composite_ksd_test': Door(
    lambda x: tuple(
      stein.composite_ksd_test(
        _KEY,
        x,
        lambda x: x.mean(0, keepdims=True),
        lambda mean, x: mean - x,
        lambda rng, mean, n: mean + jax.random.normal(rng, (n, 2)),
        _rbf,
        num_bootstrap=3,
      )
    ),
    (_X,),
  ),
  'stein.descent.ksd_descent': Door(
    lambda x: stein.ksd_descent(x, lambda x: -0.1 * x, _rbf, num_steps=2),
    (_X,),
    slow=True,
  ),
  'stein.goodness_of_fit.block_ksd_test': Door(
    lambda x, s: tuple(stein.block_ksd_test(x, s, _rbf, points_per_block=2)),
    (_X, _SCORE),
  ),
  'stein.features.fssd': Door(
    lambda x, s, v: stein.fssd(x, s, v, _rbf), (_X, _SCORE, _NEAR)
  ),
  'stein.features.fssd_locations': Door(
    lambda x, s: stein.fssd_locations(
      _KEY, x, s, kernels.RBF(60.0), num_locations=2, num_steps=1
    ),
    (_X, _SCORE),
    slow=True,
  ),
  'stein.features.fssd_test': Door(
    lambda x, s, v: tuple(
      stein.fssd_test(_KEY, x, s, _rbf, locations=v, num_draws=9)
    ),
    (_X, _SCORE, _NEAR),
  ),
  'stein.features.random_feature_ksd': Door(
    lambda x, s: stein.random_feature_ksd(_KEY, x, s, kernels.RBF(60.0)),
    (_X, _SCORE),
  ),
  'stein.features.random_feature_ksd_test': Door(
    lambda x, s: tuple(
      stein.random_feature_ksd_test(
        _KEY, x, s, kernels.RBF(60.0), num_features=4, num_draws=9
      )
    ),
    (_X, _SCORE),
  ),
  'stein.two_sample.mmd': Door(lambda x, y: stein.mmd(x, y, _rbf), (_X, _Y)),
  'stein.two_sample.mmd_test': Door(
    lambda x, y: tuple(stein.mmd_test(_KEY, x, y, _rbf, num_permutations=9)),
    (_X, _Y),
  ),
  'stein.two_sample.aggregated_mmd_test': Door(
    lambda x, y: tuple(
      stein.aggregated_mmd_test(
        _KEY,
        x,
        y,
        kernels.RBF(60.0),
        scales=(0.5, 1.0),
        num_permutations=9,
      )
    ),
    (_X, _Y),
  ),
  'stein.thinning.thin': Door(
    lambda x, s: stein.thin(x, s, 3, kernels.IMQ(60.0))[1], (_X, _SCORE)
  ),
  # Samplers.
  'samplers.diffusions.langevin': Door(
    lambda x: samplers.langevin(_KEY, x, lambda x: -0.1 * x, **_chain),
    (_X,),
    keeps=True,
  ),
  'samplers.diffusions.underdamped': Door(
    lambda x: samplers.underdamped(_KEY, x, lambda x: -0.1 * x, **_chain),
    (_X,),
    parts=True,
    keeps=True,
  ),
  'samplers.metropolis.mala': Door(
    lambda x: samplers.mala(_KEY, x, _log_density, **_chain),
    (_X,),
    parts=True,
    keeps=True,
  ),
  'samplers.adaptation.adapt': Door(
    lambda x: _adapted(x)[::-1], (_X,), parts=True, keeps=True
  ),
  'samplers.annealing.annealed_importance': Door(
    lambda init: samplers.annealed_importance(
      _KEY,
      _log_density,
      (2,),
      num_chains=6,
      num_temperatures=2,
      step_size=0.5,
      init=init,
    ),
    (_X,),
  ),
  'samplers.annealing.annealed_resampling': Door(
    lambda mean: samplers.annealed_resampling(
      _KEY,
      _log_density,
      (2,),
      num_chains=6,
      num_temperatures=2,
      step_size=0.5,
      base_mean=mean,
    ),
    (np.array([1, 3]),),
    parts=True,
  ),
  'samplers.annealing.annealed': Door(
    lambda init: samplers.annealed(
      _KEY, _log_density, (2,), num_chains=6, num_temperatures=2, init=init
    ),
    (_X,),
    parts=True,
  ),
  # Metrics.
  'metrics.chains.convergence': Door(
    lambda x: (pytest.importorskip('arviz'), metrics.convergence(x))[1],
    (levels(2, 8),),
    host=True,
  ),
  'metrics.classes.inception_score': Door(
    lambda x: metrics.inception_score(x, 2), (_ROWS,), host=True
  ),
  'metrics.laws.frechet_distance': Door(
    metrics.frechet_distance, (_ROWS, _MORE_ROWS), host=True
  ),
  'metrics.laws.manifold_metrics': Door(
    lambda x, y: metrics.manifold_metrics(x, y, nearest_k=2),
    (_ROWS, _MORE_ROWS),
    host=True,
  ),
  'metrics.classes.class_histogram': Door(
    metrics.class_histogram, (_ROWS,), host=True
  ),
  'metrics.classes.auroc': Door(
    metrics.auroc, (levels(5), levels(6, seed=1)), host=True
  ),
  'metrics.classes.calibration_error': Door(
    lambda logits: metrics.calibration_error(logits, np.arange(9) % 3),
    (_ROWS,),
    host=True,
  ),
  'metrics.classes.histogram_entropy': Door(
    metrics.histogram_entropy, (np.array([0, 1, 0]),), host=True
  ),
  'metrics.distances.pairwise_distance': Door(
    metrics.pairwise_distance, (_X,), host=True
  ),
  'metrics.distances.nearest_neighbour_distance': Door(
    metrics.nearest_neighbour_distance, (_X,), host=True
  ),
  'metrics.distances.nearest_training': Door(
    lambda x, y: metrics.nearest_training(x, y)[0], (_X, _Y), host=True
  ),
  'metrics.images.psnr': Door(metrics.psnr, (_BITS, _OTHER_BITS), host=True),
  'metrics.images.ssim': Door(metrics.ssim, (_BITS, _OTHER_BITS), host=True),
  'metrics.laws.two_sample_test': Door(
    lambda x, y: metrics.two_sample_test(_KEY, x, y, num_permutations=9),
    (_X, _Y),
  ),
  'metrics.classes.linear_probe': Door(
    lambda x, y: metrics.linear_probe(x, np.arange(9) % 2, y, np.arange(8) % 2),
    (_ROWS, _MORE_ROWS),
    host=True,
  ),
  'metrics.classes.accuracy': Door(
    lambda x: metrics.accuracy(x, np.arange(9) % 3), (_ROWS,), host=True
  ),
  'metrics.classes.classifier_metrics': Door(
    lambda f, x, g, y: metrics.classifier_metrics(f, x, g, y),
    (_ROWS, _ROWS, _MORE_ROWS, _MORE_ROWS),
    host=True,
    parts=True,
  ),
  'metrics.images.recovery': Door(
    metrics.recovery,
    (_BITS, _OTHER_BITS, levels(2, 12, 12, 1, seed=12, high=2)),
    host=True,
    parts=True,
  ),
  'metrics.classes.duplicates': Door(
    lambda x: metrics.duplicates(x, np.arange(9), num_distinct=9, copies=2)[0],
    (_ROWS,),
    host=True,
    whole=True,
  ),
  # Evaluation.
  'energies.likelihoods.log_likelihood': Door(
    lambda x, log_z: evaluation.log_likelihood(_mlp(), x, log_z),
    (_X, np.array(3)),
  ),
  'samplers.weights.log_mean_exp': Door(samplers.log_mean_exp, (levels(6),)),
  'samplers.weights.effective_sample_size': Door(
    samplers.effective_sample_size, (levels(6),)
  ),
  'samplers.weights.log_mean_exp_error': Door(
    samplers.log_mean_exp_error, (levels(6),)
  ),
  'energies.likelihoods.ais_log_partition': Door(
    lambda init: energies.ais_log_partition(
      _mlp(), _KEY, num_chains=6, num_temperatures=2, init=init
    ),
    (_X,),
    slow=True,
  ),
  'energies.likelihoods.ais_estimate': Door(
    lambda init: energies.ais_estimate(
      _mlp(), _KEY, num_chains=6, num_temperatures=2, init=init
    )['log_partition'],
    (_X,),
    slow=True,
  ),
  'metrics.laws.energy_distance': Door(metrics.energy_distance, (_X, _Y)),
  'metrics.laws.sliced_wasserstein': Door(
    lambda x, y: metrics.sliced_wasserstein(_KEY, x, y, num_slices=5), (_X, _Y)
  ),
  'runs.pictures.picture': Door(
    _png,
    (_BITS, _OTHER_BITS),
    host=True,
    whole=True,
    nan='a picture has no nan',
  ),
  'runs.pictures.recovery_page': Door(
    _recovery_page,
    (_BITS, _OTHER_BITS, _BITS),
    host=True,
    whole=True,
    nan='a picture has no nan',
  ),
  'runs.evaluation.recovered': Door(
    lambda x, y: _recovered(x, y, levels(2, 12, 12, 1, seed=12, high=2)),
    (_BITS, _OTHER_BITS),
    host=True,
    parts=True,
  ),
  'runs.judges.judged': Door(
    lambda x, y: judges.judged(_judge, x, y, labels=np.arange(9) % 2),
    (_ROWS, _MORE_ROWS),
    host=True,
    parts=True,
  ),
  'metrics.distances.diversity': Door(
    metrics.diversity,
    (_X, _Y, _SCORE),
    host=True,
    parts=True,
    slow=True,
  ),
  # Energies.
  'energies.values.value': Door(
    lambda x: energies.value(_mlp(), _mlp().params, x), (_X,)
  ),
  'energies.values.score': Door(
    lambda x, normalized_with: energies.score(
      _mixing(), x, normalized_with=normalized_with
    ),
    (_IMAGES, _OTHERS),
    keeps=True,
  ),
  'energies.values.score_and_mean': Door(
    lambda x: energies.score_and_mean(_mlp(), x)[0], (_X,), keeps=True
  ),
  'energies.values.pair': Door(
    lambda x, y: energies.pair(_mlp(), _mlp().params, x, y),
    (_X, _SCORE),
    parts=True,
  ),
  'energies.losses.contrast': Door(
    lambda x, y: energies.contrast(_mlp(), x, y)(_mlp().params),
    (_X, _SCORE),
    parts=True,
  ),
  'energies.losses.ascend_likelihood': Door(
    lambda x, y: energies.ascend_likelihood(_mlp(), x, y)[0].params,
    (_X, _Y),
    parts=True,
    slow=True,
  ),
  'energies.losses.cross_entropy': Door(
    lambda x: energies.cross_entropy(_classifying(), x, jnp.array(_LABELS))(
      _classifying().params
    )[1],
    (_IMAGES,),
  ),
  'energies.chains.run_chain': Door(
    lambda x: energies.run_chain(_mlp(), samplers.Langevin(0.1), _KEY, x)[0],
    (_X,),
    keeps=True,
  ),
  'energies.chains.continued': Door(
    lambda x, y: _continued(x, y), (_X, _Y[:3]), parts=True, whole=True
  ),
  'energies.chains.move': Door(energies.chains.move, (_X, _SCORE)),
  'energies.divergences.run_with_divergence': Door(
    lambda x: _with_divergence(
      *energies.run_with_divergence(
        _mlp(), samplers.Langevin(0.1, 2), _KEY, x, minus_kl=0.5
      )
    ),
    (_X,),
    parts=True,
    keeps=True,
  ),
  'energies.directions.direction': Door(
    lambda x: energies.direction(_mlp(), stein.SVGD(_rbf), x),
    (_X,),
    keeps=True,
  ),
  'energies.directions.distance_moved': Door(
    energies.distance_moved, (_X, _SCORE)
  ),
  'energies.directions.features': Door(
    lambda x, normalized_with: energies.features(
      _autoencoder(), normalized_with
    )(x),
    (_IMAGES, _OTHERS),
    slow=True,
  ),
  'energies.losses.free_energy': Door(
    # With weight 1 it is 0, and rounding, where all examples are one to the experts.
    lambda x: energies.free_energy(
      _multimodal(), _multimodal().params, x, entropy=0.5
    ),
    (_IMAGES,),
  ),
  'energies.losses.variational_contrast': Door(
    lambda x, y: energies.variational_contrast(_multimodal(), x, y)(
      _multimodal().params
    ),
    (_IMAGES, _OTHERS),
    parts=True,
    slow=True,
  ),
  'energies.chains.sample_state': Door(
    lambda condition: energies.sample_state(
      State(learner(_CURVED, (3, 4, 4, 1), (3, 4, 4, 1))),
      _KEY,
      3,
      condition=condition,
      chain=samplers.Langevin(0.3),
    ),
    (_IMAGES,),
    slow=True,
  ),
  'energies.networks.expert_energy': Door(energies.expert_energy, (_ROWS,)),
  'energies.networks.expert_entropy': Door(energies.expert_entropy, (_ROWS,)),
  'energies.networks.MLP': Door(applied(_mlp), (_X,)),
  'energies.networks.Autoencoder': Door(applied(_autoencoder), (_IMAGES,)),
  'energies.networks.ConvNet': Door(applied(_conv), (_IMAGES,)),
  'energies.networks.Discriminator': Door(applied(_mixing), (_IMAGES,)),
  'energies.networks.JointLabel': Door(
    lambda x: applied(
      lambda: labelled(
        energies.JointLabel(energies.Autoencoder(convs=((2, 3, 2, 1),)), 2)
      )
    )(x, _LABELS),
    (_IMAGES,),
  ),
  'energies.networks.MarginalLabel': Door(applied(_classifying), (_IMAGES,)),
  'energies.networks.MultiModal': Door(applied(_multimodal), (_IMAGES,)),
  'energies.networks.Unimodal': Door(
    of_module(energies.Unimodal(widths=(2,), dense=3), (3, 4, 4, 1)), (_IMAGES,)
  ),
  'energies.ising.Ising': Door(of_module(energies.Ising(), (6, 2)), (_X,)),
  'energies.rbm.RBM': Door(of_module(energies.RBM(2), (6, 2)), (_X,)),
  'energies.rbm.BinaryRBM': Door(
    of_module(energies.BinaryRBM(2), (6, 2)), (_X,)
  ),
  # Generators.
  'generators.losses.batch_norm_entropy': Door(
    lambda gain: generators.batch_norm_entropy({'gain': gain}), (levels(3),)
  ),
  'generators.drawing.decode': Door(
    lambda z: generators.decode(_plane(), _KEY, z), (_Y,)
  ),
  'generators.drawing.decode_batch': Door(
    lambda z: generators.decode_batch(_plane(), _plane().params, z), (_Y,)
  ),
  'generators.losses.kl_divergence': Door(
    generators.kl_divergence, (_X, levels(6, 2, high=4))
  ),
  'generators.drawing.generate': Door(
    lambda c: generators.generate(
      _given(), _given().params, _KEY, 6, condition=c
    ),
    (_X,),
  ),
  'generators.losses.pulling_away': Door(generators.pulling_away, (_ROWS,)),
  'revision.revise': Door(
    lambda x: revision.revise(
      State(_mlp(), _plane()), _KEY, x, chain=samplers.Langevin(0.1)
    ),
    (_X,),
    slow=True,
    keeps=True,
  ),
  'revision.moved': Door(revision.moved, (_X, _SCORE), parts=True),
  'generators.drawing.sample': Door(
    lambda c: generators.sample(_given(), _KEY, 6, condition=c), (_X,)
  ),
  'revision.sample': Door(
    lambda c: revision.sample(
      State(_beside(), _given()),
      _KEY,
      6,
      condition=c,
      chain=samplers.Langevin(0.1),
    ),
    (_X,),
    slow=True,
  ),
  'generators.losses.variational_loss': Door(
    lambda x: generators.variational_loss(_vae(), _KEY, x)(_vae().params),
    (_IMAGES,),
    slow=True,
  ),
  'generators.networks.MLP': Door(
    lambda c: learners.call(_given(), _given().params, _KEY, 6, condition=c),
    (_X,),
  ),
  'generators.networks.Coupling': Door(
    lambda x: learners.call(
      generator(generators.Coupling(2, (3,), 2)),
      generator(generators.Coupling(2, (3,), 2)).params,
      x,
      method='log_density',
    ),
    (_X,),
  ),
  'generators.networks.TransitionOperator': Door(
    lambda x: learners.call(_operator(), _operator().params, _KEY, x),
    (_IMAGES,),
    slow=True,
  ),
  'generators.autoencoders.VAE': Door(
    lambda x: learners.call(_vae(), _vae().params, x, method='encode'),
    (_IMAGES,),
  ),
  'generators.autoencoders.ImageToImage': Door(
    lambda c: learners.call(
      _painter(), _painter().params, _KEY, 3, condition=c
    ),
    (_IMAGES,),
    slow=True,
  ),
  # Networks and what they are made of.
  'layers.flat': Door(layers.flat, (_IMAGES,), whole=True),
  'layers.max_pool': Door(layers.max_pool, (_IMAGES,), whole=True),
  'layers.conv': Door(
    functools.partial(layers.conv, stride=1, padding=1), (_IMAGES, _CONV)
  ),
  'layers.conv_transpose': Door(
    functools.partial(layers.conv_transpose, stride=2, padding=1, size=(8, 8)),
    (levels(2, 4, 4, 2), _CONV),
  ),
  'layers.spectral_normalized': Door(
    layers.spectral_normalized, (_CONV,), slow=True
  ),
  'layers.with_label': Door(
    layers.with_label, (_ROWS, levels(9, 2, high=2)), keeps=True
  ),
  'layers.normalized': Door(of_module(_Norm('layer'), (9, 3)), (_ROWS,)),
  'layers.BatchNorm': Door(_normalized, (_ROWS,)),
  'layers.Conv': Door(of_module(layers.Conv(2, 3), (3, 4, 4, 1)), (_IMAGES,)),
  'layers.ConvTranspose': Door(
    of_module(layers.ConvTranspose(2, 3), (3, 4, 4, 1)), (_IMAGES,)
  ),
  'classifiers.CNN': Door(
    of_module(classifiers.CNN(2, (2,), 3), (3, 4, 4, 1)), (_IMAGES,)
  ),
  'classifiers.AllConvolutional': Door(
    of_module(classifiers.AllConvolutional((((2, 3),),), 2), (3, 4, 4, 1)),
    (_IMAGES,),
  ),
  'classifiers.ResNet': Door(
    of_module(classifiers.ResNet(8, 2, 2, 1), (3, 4, 4, 1)),
    (_IMAGES,),
    slow=True,
  ),
  'classifiers.shifted': Door(
    lambda x: classifiers.shifted(_KEY, x, distance=1, flip=True),
    (_IMAGES,),
    whole=True,
    slow=True,
  ),
  'inception.average_pool': Door(inception.average_pool, (_IMAGES,)),
  'inception.resize': Door(lambda x: inception.resize(x, 6), (_IMAGES,)),
  'inception.activations': Door(
    lambda x: inception.activations(
      learner(inception.Inception(size=75), (1, 4, 4, 3)).params,
      x,
      network=inception.Inception(size=75),
    ),
    (levels(1, 4, 4, 3),),
    host=True,
    slow=True,
    refused=(np.bool_,),  # their range is [0, 1]
  ),
  # Densities.
  'densities.mixture': Door(
    lambda means, weights, x: densities.mixture(
      means, 9.0, weights, 0.0
    ).log_density(x),
    (_X, 1 + levels(6), np.array([3, 1])),
  ),
  'densities.two_modes': Door(
    lambda x: densities.two_modes().log_density(x), (np.array([3]),)
  ),
  'densities.eight_gaussians': Door(
    lambda x: densities.eight_gaussians().log_density(x), (np.array([3, 1]),)
  ),
  'densities.banana': Door(
    lambda x: densities.banana().log_density(x), (np.array([3, 1]),)
  ),
  'densities.logistic_regression': Door(
    _logistic, (_X, levels(3, seed=13), np.array(2))
  ),
  # Constraints.
  'bijectors.constrain': Door(
    lambda z: bijectors.constrain(bijectors.Softplus(), z), (_X,), keeps=True
  ),
  'bijectors.unconstrain': Door(
    lambda x: bijectors.unconstrain(bijectors.Interval(-1, 21), x),
    (_X,),
    keeps=True,
  ),
  'bijectors.unconstrained': Door(
    bijectors.unconstrained(bijectors.Softplus(), lambda x: -jnp.sum(x)),
    (np.array([3, 1]),),
  ),
  # Learners and algorithms.
  'learners.call': Door(applied(_mlp), (_X,), slow=True),
  'learners.create': Door(
    lambda x: (
      learners.create(
        _KEY, energies.RBM(2, centered=True), optax.sgd(0.1), x
      ).params
    ),
    (_X,),
    parts=True,
  ),
  'learners.descend': Door(_descended, (np.array(2),)),
  'algorithms.recovery_likelihood.blur': Door(
    lambda x: recovery_likelihood.blur(_KEY, x, (0.5,))[1].points, (_X,)
  ),
  'algorithms.recovery_likelihood.recover': Door(
    lambda points: recovery_likelihood.recover(
      _mlp(), samplers.Langevin(0.1), _KEY, _noisy(points)
    ),
    (_X,),
    parts=True,
  ),
  'algorithms.score_matching.exact_objective': Door(
    with_params(score_matching.exact_objective), (_X,)
  ),
  'algorithms.score_matching.stein_objective': Door(
    with_params(score_matching.stein_objective), (_X,), slow=True
  ),
  'algorithms.score_matching.sliced_objective': Door(
    with_params(
      lambda energy, x: score_matching.sliced_objective(energy, x, _KEY)
    ),
    (_X,),
    slow=True,
  ),
  'algorithms.score_matching.denoising_objective': Door(
    with_params(
      lambda energy, x: score_matching.denoising_objective(energy, x, _KEY)
    ),
    (_X,),
    slow=True,
  ),
  'algorithms.noise_contrastive.discrepancy_objective': Door(
    with_params(
      lambda energy, x: noise_contrastive.discrepancy_objective(energy, x, _KEY)
    ),
    (_X,),
  ),
  'algorithms.noise_contrastive.conditional_objective': Door(
    with_params(
      lambda energy, x: noise_contrastive.conditional_objective(energy, x, _KEY)
    ),
    (_X,),
    slow=True,
  ),
  'algorithms.noise_contrastive.fixed_objective': Door(
    with_params(
      lambda energy, x: noise_contrastive.fixed_objective(
        energy,
        x,
        _KEY,
        noise=noise_contrastive.Noise(jnp.zeros(2), jnp.ones(2)),
        log_partition=0.0,
      )
    ),
    (_X,),
    parts=True,  # ratios of the noise
  ),
  'algorithms.noise_contrastive.self_objective': Door(
    with_params(noise_contrastive.self_objective), (_X, _SCORE), slow=True
  ),
  'algorithms.noise_contrastive.fit': Door(noise_contrastive.fit, (_X,)),
  'algorithms.pseudo_likelihood.unit_gaps': Door(
    lambda x: pseudo_likelihood.unit_gaps(_mlp(), _mlp().params, x),
    (_X % 2,),
    parts=True,
  ),
  'algorithms.pseudo_likelihood.pseudo_likelihood_objective': Door(
    with_params(pseudo_likelihood.pseudo_likelihood_objective),
    (_X % 2,),
    slow=True,
  ),
  'algorithms.pseudo_likelihood.ratio_matching_objective': Door(
    with_params(pseudo_likelihood.ratio_matching_objective),
    (_X % 2,),
    slow=True,
  ),
  'algorithms.svgd.create': Door(_svgd, (_X,), keeps=True, slow=True),
  'algorithms.amortized_svgd.create': Door(
    _amortized, (levels(3, 2),), slow=True
  ),
  'algorithms.amortized_svgd.least_squares': Door(
    lambda phi: amortized_svgd.least_squares(
      lambda params: jnp.outer(jnp.arange(6.0), params['x']),
      {'x': jnp.ones(2)},
      phi,
      damping=0.1,
      num_steps=3,
    ),
    (_SCORE,),
  ),
  'algorithms.vera.own_score': Door(
    lambda x, z: vera.own_score(
      lambda z: 2 * z, _KEY, x, z, noise_scale=1.0, latent_scale=0.5
    ),
    (_X, _NEAR),
  ),
  'algorithms.vcd.transitions': Door(
    lambda x: vcd.transitions(_operator(), _KEY, x, num_steps=1),
    (_IMAGES,),
    slow=True,
    keeps=True,
  ),
  # Pictures.
  'runs.images.grid': Door(
    images.grid, (_BITS,), host=True, whole=True, nan='a picture has no nan'
  ),
  'runs.images.strips': Door(
    images.strips,
    (_BITS[None],),
    host=True,
    whole=True,
    nan='a picture has no nan',
  ),
  'runs.images.gif': Door(
    lambda x: np.frombuffer(images.gif(x), np.uint8),
    (_BITS[None],),
    host=True,
    whole=True,
    nan='a picture has no nan',
  ),
  'datasets.sections.to_unit': Door(
    lambda x: datasets.to_unit(x, _SECTION), (_BITS,), host=True
  ),
  'datasets.sections.from_unit': Door(
    lambda x: datasets.from_unit(x, _SECTION), (_BITS,), host=True
  ),
  'runs.reporting.mean_interval': Door(
    reporting.mean_interval, (_ROWS,), host=True
  ),
}


def _adapted(x):
  chain, x = samplers.adapt(
    _KEY, x, samplers.target(_log_density), samplers.MALA(0.5), num_warmup=3
  )
  return chain.step_size, x


def _continued(chains, start):
  keys = jax.random.split(_KEY)
  begun, keep = energies.continued(*keys, chains, start, restart=0.6)
  return begun, keep(begun)


def _with_divergence(moved, metrics, terms):
  return moved, metrics, terms[0](_mlp().params)


def _noisy(points):
  ones = jnp.ones((len(points), 1))
  return recovery_likelihood.Noisy(points, ones, ones, ())


def _operator():
  module = generators.TransitionOperator((4, 4, 1), 2, (2,))
  create = lambda x: learners.create(_KEY, module, optax.sgd(0.1), _KEY, x)
  return _filled(
    jax.eval_shape(create, jax.ShapeDtypeStruct((3, 4, 4, 1), jnp.float32))
  )


# Files are made of bytes alone.
_OF_BYTES = {
  'runs.images.png': lambda x: images.read_png(images.png(x)),
  'datasets.sources.square': lambda x: datasets.square(x, 2),
}


def public():
  """Yields the names of all public functions, and networks, of the package."""
  for module in pkgutil.walk_packages(stein_jax.__path__, 'stein_jax.'):
    for name, value in vars(importlib.import_module(module.name)).items():
      network = inspect.isclass(value) and issubclass(value, nn.Module)
      if not (network or inspect.isfunction(value)) or name.startswith('_'):
        continue
      if value.__module__ == module.name:
        yield f'{module.name.removeprefix("stein_jax.")}.{name}'


def known(name):
  """Returns whether a function has a row, or owes none."""
  *modules, last = name.split('.')
  # Networks and private modules owe none.
  owes = modules[0] in _FORMULAS and last[0].islower() and '._' not in name
  return not owes or name in (*DOORS, *_WITHOUT_ARRAYS)


@functools.cache
def compiled(name):
  return DOORS[name].call if DOORS[name].host else jax.jit(DOORS[name].call)


def answer(name, arrays):
  """Returns the row's results of float32, as a list of arrays."""
  found = compiled(name)(*(np.asarray(a, np.float32) for a in arrays))
  return list(map(np.asarray, jax.tree.leaves(found)))


def of_dtypes(names, kinds):
  """Returns a named case for each name and each dtype."""
  return [
    (f'_{name}_{np.dtype(dtype)}', name, dtype)
    for name in names
    for dtype in kinds
  ]


def is_costly(name):
  """Returns whether a row takes seconds, and cannot be traced alone."""
  return DOORS[name].slow and (DOORS[name].host or name.startswith('inception'))


def is_run(name):
  """Returns whether a row is run by default; others are traced."""
  return name.split('.')[0] in _RUN and not DOORS[name].slow


def is_floating(array):
  return jnp.issubdtype(array.dtype, jnp.floating)


class DoorsTest(parameterized.TestCase):
  def test_every_public_function_has_a_row(self):
    missing = [name for name in public() if not known(name)]
    self.assertEmpty(missing, 'Give each a row in DOORS.')
    names = set(public())
    self.assertEmpty([name for name in DOORS if name not in names])

  @parameterized.named_parameters(
    *of_dtypes((n for n in DOORS if not is_costly(n)), (np.uint8,)),
    *of_dtypes((n for n in DOORS if is_run(n)), _TRACED),
  )
  def test_dtypes(self, name, dtype):
    traced = dtype in _TRACED or not is_run(name)
    self.check(name, dtype, traced=traced and not DOORS[name].host)

  @parameterized.named_parameters(
    *of_dtypes(DOORS, _MORE_DTYPES),
    *of_dtypes((n for n in DOORS if not is_run(n)), (np.uint8, np.float64)),
  )
  @pytest.mark.slow
  def test_more_dtypes(self, name, dtype):
    traced = dtype is np.float64 and not DOORS[name].host
    self.check(name, dtype, traced=traced)

  @parameterized.parameters(jnp.float16, jnp.bfloat16, jnp.int8, jnp.bool_)
  def test_promotion_may_be_strict(self, dtype):
    with jax.numpy_dtype_promotion('strict'):
      found = dtypes.at_least_float32(jnp.ones(2, dtype))
    self.assertEqual(found.dtype, jnp.float32)

  @parameterized.parameters(
    dtypes.floating, dtypes.at_least_float32, dtypes.on_host
  )
  def test_complex_numbers_are_refused(self, function):
    with self.assertRaisesRegex(TypeError, 'complex64 is of no real numbers'):
      function(np.ones(2, np.complex64))

  def check(self, name, dtype, *, traced):
    """The answer is that of float32, or the dtype is refused by name."""
    door = DOORS[name]
    arrays = [a % 2 if dtype is np.bool_ else a for a in door.arrays]
    inputs = [a.astype(dtype) for a in arrays]
    # As constants, which are NumPy arrays to the function.
    run = lambda: door.call(*inputs)
    if dtype in door.refused:
      with self.assertRaisesRegex((TypeError, ValueError), r'\.$'):
        run()
      return
    with warnings.catch_warnings():
      warnings.simplefilter('error')
      if traced:
        self.check_dtypes(door, inputs, jax.tree.leaves(jax.eval_shape(run)))
        return
      found = run() if door.host else jax.jit(run)()
    found = list(map(np.asarray, jax.tree.leaves(found)))
    self.check_dtypes(door, inputs, found)
    expected = answer(name, arrays)
    self.assertLen(found, len(expected))
    for value, wanted in zip(found, expected, strict=True):
      eps = jnp.finfo(value.dtype).eps if is_floating(value) else 0
      value, wanted = np.float64(value), np.float64(wanted)
      size = np.max(np.abs(wanted), initial=0, where=np.isfinite(wanted))
      tolerance = max(4 * float(eps), 1e-5)
      np.testing.assert_allclose(value, wanted, rtol=0, atol=tolerance * size)

  def check_dtypes(self, door, inputs, found):
    """What is summed is in 32 bits or more, what is like the points in theirs."""
    for i, each in enumerate(() if door.whole else found):
      self.assertTrue(is_floating(each), each.dtype)
      if door.keeps and not i:
        self.assertEqual(each.dtype, dtypes.floating(inputs[0]).dtype)
      else:
        self.assertGreaterEqual(jnp.finfo(each.dtype).bits, 32)

  @parameterized.named_parameters(
    (f'_{n}', n) for n, door in DOORS.items() if not (door.slow or door.nan)
  )
  def test_nan_is_not_swallowed(self, name):
    self.check_nan(name)

  @parameterized.named_parameters(
    (f'_{n}', n) for n, door in DOORS.items() if door.slow
  )
  @pytest.mark.slow
  def test_nan_is_not_swallowed_by_what_is_slow(self, name):
    self.check_nan(name)

  def check_nan(self, name):
    arrays = [np.asarray(a, np.float32) for a in DOORS[name].arrays]
    self.assertTrue(all(np.isfinite(a).all() for a in answer(name, arrays)))
    for i, array in enumerate(arrays):
      bad = array.copy()
      bad.flat[-1] = np.nan
      try:
        found = answer(name, [*arrays[:i], bad, *arrays[i + 1 :]])
      except (TypeError, ValueError) as error:
        self.assertRegex(str(error), r'\.$')
        continue
      lost = [not np.isnan(np.float64(each)).any() for each in found]
      swallowed = all(lost) if DOORS[name].parts else any(lost)
      self.assertFalse(swallowed, f'nan in array {i} is lost: {lost}.')

  @parameterized.named_parameters(
    of_dtypes(_OF_BYTES, (np.uint8, np.float64, *_MORE_DTYPES))
  )
  def test_files_are_of_bytes(self, name, dtype):
    picture = np.arange(48).reshape(4, 4, 3)
    if dtype is np.uint8:
      _OF_BYTES[name](picture.astype(dtype))
      return
    with self.assertRaisesRegex((TypeError, ValueError), r'\.$'):
      _OF_BYTES[name](picture.astype(dtype))


if __name__ == '__main__':
  absltest.main()
