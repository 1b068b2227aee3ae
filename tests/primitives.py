"""The primitives against their definitions in float64, in whatever environment.

python -m tests.primitives prints what fails, and ends with code 1 if anything does.
"""

import sys
import traceback

import jax
import jax.numpy as jnp
import numpy as np
from scipy import linalg
from scipy import special

from stein_jax import build
from stein_jax import densities
from stein_jax import kernels
from stein_jax import metrics
from stein_jax import samplers
from stein_jax import stein

BANDWIDTH = 1.7
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(9, 3)), RNG.normal(size=(7, 3))
SCORE = RNG.normal(size=(9, 3))
KERNELS = {
  'rbf': lambda d2: kernels.rbf(d2, BANDWIDTH),
  'imq': lambda d2: kernels.imq(d2, BANDWIDTH),
}
# k, k' and k'' of the squared distance.
PROFILES = {
  'rbf': lambda t: [
    (-1 / BANDWIDTH) ** i * np.exp(-t / BANDWIDTH) for i in range(3)
  ],
  'imq': lambda t: [
    factor / BANDWIDTH**i * (1 + t / BANDWIDTH) ** (-0.5 - i)
    for i, factor in enumerate((1, -0.5, 0.75))
  ],
}


def differences():
  return X[:, None] - X[None]


def squares(x, y):
  return np.sum((x[:, None] - y[None]) ** 2, -1)


def directions():
  """Yields [LW17 eq 5] with k(x_j, x_i), whose gradient in x_j is 2 k' (x_j - x_i)."""
  for name, profile in PROFILES.items():
    k, slope, _ = profile(squares(X, X))
    repulsion = -2 * np.einsum('ij,ijd->id', slope, differences())
    drive = k @ SCORE
    for normalize, total in (('count', 9), ('row_sum', k.sum(1)[:, None])):
      for block_size in (None, 4):
        found = stein.svgd_direction(
          jnp.asarray(X),
          jnp.asarray(SCORE),
          KERNELS[name],
          normalize=normalize,
          block_size=block_size,
        )
        yield found, (drive + repulsion) / total


def feature_directions():
  """Yields those of F(x) = x W: repulsions through W', in every form."""
  weights = RNG.normal(size=(3, 2))
  features = X @ weights
  k, slope, _ = PROFILES['rbf'](squares(features, features))
  between = features[:, None] - features[None]
  each = -2 * slope[..., None] * between @ weights.T
  whole = (k @ SCORE + each.sum(1)) / 9
  distances = squares(features, features) + 1e9 * np.eye(9)
  nearest = SCORE + 0.5 * each[np.arange(9), distances.argmin(1)]
  of = jnp.asarray(weights)
  for form, expected in (
    ('exact', whole),
    ('swapped', whole),
    ('nearest', nearest),
  ):
    found = stein.feature_svgd_direction(
      jnp.asarray(X),
      jnp.asarray(SCORE),
      lambda x: jnp.matmul(x, of, precision='highest'),
      KERNELS['rbf'],
      form=form,
    )
    yield found, expected


def few_points():
  """Yields what is left of the primitives where points coincide or are alone."""
  x, score = jnp.asarray(X[:1]), jnp.asarray(SCORE[:1])
  kernel = KERNELS['rbf']
  yield stein.svgd_direction(x, score, kernel), SCORE[:1]
  expected = np.sum(SCORE[0] ** 2) + 2 * 3 / BANDWIDTH
  yield stein.ksd(x, score, kernel), expected
  same = jnp.tile(x, (4, 1))
  scores = jnp.asarray(SCORE[:4])
  mean = np.tile(SCORE[:4].mean(0), (4, 1))
  yield stein.svgd_direction(same, scores, kernel), mean
  yield kernels.median_bandwidth(same) > 0, True
  yield metrics.pairwise_distance(same), 0
  yield metrics.nearest_neighbour_distance(same), 0


def targets():
  """Yields the score of each density beside a difference of its log density."""
  for name in ('two_modes', 'eight_gaussians', 'banana'):
    density = build.build(densities, name)
    x = density.sample(jax.random.key(0), 50)
    yield np.isfinite(x).all(), True
    score = jax.vmap(jax.grad(density.log_density))(x)
    step = 1e-2 * np.eye(x.shape[1])[:1]
    ahead, behind = (
      np.asarray(
        jax.vmap(density.log_density)(x + jnp.asarray(way * step, x.dtype))
      )
      for way in (1, -1)
    )
    slope = (ahead - behind) / 2e-2
    yield np.abs(score[:, 0] - slope).max() < 0.05, True


def stein_kernel(name):
  """Returns u(x_i, x_j) [9, 9] [WL16 eq 6], its derivatives written out."""
  d, d2 = differences(), squares(X, X)
  k, first, second = PROFILES[name](d2)
  of_x = 2 * first[..., None] * d  # the gradient in the first argument
  cross = -4 * second * d2 - 2 * 3 * first
  return (
    SCORE @ SCORE.T * k
    - np.einsum('id,ijd->ij', SCORE, of_x)
    + np.einsum('jd,ijd->ij', SCORE, of_x)
    + cross
  )


def discrepancies():
  for name, kernel in KERNELS.items():
    u = stein_kernel(name)
    x, score = jnp.asarray(X), jnp.asarray(SCORE)
    yield stein.stein_matrix(x, score, x, score, kernel), u
    for block_size in (None, 4):
      of = lambda **kwargs: stein.ksd(
        x, score, kernel, block_size=block_size, **kwargs
      )
      yield of(), u.mean()
      yield of(unbiased=True), (u.sum() - np.trace(u)) / 72
    statistic, p = stein.ksd_test(
      jax.random.key(0), x, score, kernel, num_bootstrap=20
    )
    yield statistic, 9 * u.mean()
    # (1 + how many of 20 are as large) / 21.
    yield 21 * p, np.clip(np.round(21 * np.asarray(p, float)), 1, 21)


def operator():
  # s . phi + div phi of s = -x, phi = x * x: -sum x^3 + 2 sum x.
  found = stein.stein_operator(lambda x: -x, lambda x: x * x, jnp.asarray(X))
  yield found, np.sum(2 * X - X**3, 1)


def bandwidths():
  # Even and odd numbers of squared distances, the zeros of the diagonal in.
  for x in (X, RNG.normal(size=(8, 2)), RNG.normal(size=(600, 2))):
    found = kernels.median_bandwidth(jnp.asarray(x))
    yield found, np.median(squares(x, x)) / np.log(len(x) + 1)
  yield kernels.squared_distance(jnp.asarray(X), jnp.asarray(Y)), squares(X, Y)


def chains():
  x = jnp.asarray(X)
  found = samplers.langevin(
    jax.random.key(0),
    x,
    lambda x: -2 * x,
    step_size=0.3,
    num_steps=5,
    noise=False,
  )
  yield found, X * (1 - 0.3**2) ** 5
  # Stationary laws, to five standard errors of a variance of 3,000 numbers: of
  # unadjusted steps delta^2 / (1 - c^2), c = 1 - delta^2 / 2.
  start = jnp.zeros((1000, 3))
  found = samplers.langevin(
    jax.random.key(1), start, lambda x: -x, step_size=0.8, num_steps=40
  )
  yield bounded(found, 0.8**2 / (1 - (1 - 0.8**2 / 2) ** 2)), True
  found, acceptance = samplers.mala(
    jax.random.key(2),
    start,
    lambda x: -jnp.sum(x * x, -1) / 2,
    step_size=0.8,
    num_steps=40,
  )
  yield bounded(found, 1), True
  yield 0.5 < acceptance < 1, True
  # log Z of N(0, 4 I) in 3 dimensions, to what 200 chains can tell.
  log_weights = samplers.annealed_importance(
    jax.random.key(3),
    lambda x: -jnp.sum(x * x, -1) / 8,
    (3,),
    num_chains=200,
    num_temperatures=100,
    step_size=0.5,
  )
  found = samplers.log_mean_exp(log_weights)
  yield abs(found - 1.5 * np.log(8 * np.pi)) < 0.3, True


def bounded(x, variance):
  """Returns whether numbers have that variance, to five standard errors."""
  ratio = np.mean(np.asarray(x, np.float64) ** 2) / variance
  return abs(ratio - 1) < 5 * (2 / np.size(x)) ** 0.5


def sample_metrics():
  x, y = jnp.asarray(X), jnp.asarray(Y)
  distance = lambda a, b: np.sqrt(squares(a, b))
  of_others = distance(X, X)[~np.eye(9, dtype=bool)].reshape(9, 8)
  yield metrics.pairwise_distance(x), of_others.mean()
  yield metrics.nearest_neighbour_distance(x), of_others.min(1).mean()
  found, index = metrics.nearest_training(x, y)
  yield found, distance(X, Y).min(1)
  yield index, distance(X, Y).argmin(1)
  within = lambda a: distance(a, a).sum() / (len(a) * (len(a) - 1))
  expected = 2 * distance(X, Y).mean() - within(X) - within(Y)
  yield metrics.energy_distance(x, y), expected
  _, p = metrics.two_sample_test(jax.random.key(0), x, y + 100)
  yield p < 0.01, True
  root = linalg.sqrtm(np.cov(X.T) @ np.cov(Y.T)).real
  yield (
    metrics.frechet_distance(X, Y),
    np.sum((X.mean(0) - Y.mean(0)) ** 2)
    + np.trace(np.cov(X.T) + np.cov(Y.T) - 2 * root),
  )
  shares = special.softmax(X, 1)
  gain = np.sum(special.rel_entr(shares, shares.mean(0)), 1).mean()
  yield metrics.inception_score(x, 1)[0], np.exp(gain)
  image = RNG.uniform(size=(2, 12, 12, 1))
  other = np.clip(image + 0.1, 0, 1)
  error = np.mean((image - other) ** 2, (1, 2, 3))
  yield metrics.psnr(image, other), -10 * np.log10(error)
  yield metrics.ssim(image, image), np.ones(2)
  yield metrics.ssim(image, other) < 1, [True, True]
  # Of equal sets all points are in balls of each other.
  found = metrics.manifold_metrics(X, X, nearest_k=2)
  yield [found['precision'], found['recall'], found['coverage']], [1, 1, 1]
  yield metrics.class_histogram(np.eye(3)), np.full(3, 1 / 3)
  labels = (X[:, 0] > 0).astype(int)
  yield metrics.linear_probe(x, labels, x, labels) > 0.7, True


CHECKS = (
  directions,
  feature_directions,
  few_points,
  discrepancies,
  operator,
  bandwidths,
  targets,
  chains,
  sample_metrics,
)


def main():
  tolerance = 1e-9 if jax.config.jax_enable_x64 else 1e-4
  failed = False
  for check in CHECKS:
    try:
      for found, expected in check():
        np.testing.assert_allclose(
          found, expected, rtol=tolerance, atol=tolerance
        )
    except Exception:  # pylint: disable=broad-exception-caught
      failed = True
      print(f'{check.__name__}:\n{traceback.format_exc()}')
  sys.exit(failed)


if __name__ == '__main__':
  main()
