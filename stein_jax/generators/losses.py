"""Losses of a generator."""

from collections.abc import Callable

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from stein_jax import checks
from stein_jax import collectives
from stein_jax import dtypes
from stein_jax import learners
from stein_jax.generators import drawing
from stein_jax.learners import Learner
from stein_jax.types import Array, Metrics, Params, PRNGKey


def chain_rule_loss(
  draw: Callable[[Params], Array],
  direction: Callable[[Array], Array],
  *,
  penalty: Callable[[Params, Array], Array] | None = None,
  axis_name: str | None = None,
) -> Callable[[Params], tuple[Array, Metrics, Array]]:
  """Returns the loss -mean G(xi).phi, phi held fixed [LW17 eq 21] [WL16 eq 10].

  Its gradient is minus the mean over the batch of (dG / d params)' phi: the chain
  rule. The samples come with it, so that they are made once.

  Args:
    draw: the generator's parameters to its samples [n, ...].
    direction: the samples to phi, like them.
    penalty: the parameters and the samples to what joins the loss [].
    axis_name: the mapped axis over which the samples are split.

  Raises:
    ValueError: phi has another shape than the samples, or the penalty has one.
  """
  dot = lambda a, b: jnp.mean(jnp.sum((a * b).reshape(len(a), -1), -1))

  def loss_fn(params):
    samples = draw(params)
    fixed = lax.stop_gradient(samples)
    phi = direction(fixed)
    checks.like(samples, direction=phi)
    phi = lax.stop_gradient(dtypes.at_least_float32(phi))
    spread = dtypes.at_least_float32(fixed)
    spread -= collectives.pmean(jnp.mean(spread, 0, keepdims=True), axis_name)
    metrics = {
      'generator/move': dot(phi, phi),
      'samples/variance': dot(spread, spread),
    }
    loss = -dot(dtypes.at_least_float32(samples), phi)
    if penalty:
      metrics['generator/penalty'] = penalty(params, samples)
      checks.shape((), penalty=metrics['generator/penalty'])
      loss += metrics['generator/penalty']
    return loss, metrics, fixed

  return loss_fn


def pulling_away(features: Array, *, axis_name: str | None = None) -> Array:
  """Returns the mean squared cosine of pairs of rows [] [ZML17 sec 2.4].

  Descended, it turns the features [n, f] of samples away from each other; of one
  sample it is 0.

  Args:
    features: of the samples.
    axis_name: the mapped axis over which they are split; the pairs are of all.

  Raises:
    ValueError: the features are not [n, f].
  """
  features = dtypes.at_least_float32(features)
  if features.ndim != 2:
    raise ValueError(f'features has shape {features.shape}; wanted: [n, f].')
  # In units of the row's largest, which no cosine depends on.
  largest = jnp.max(jnp.abs(features), 1, keepdims=True, initial=0)
  features /= lax.stop_gradient(jnp.where(largest > 0, largest, 1))
  size = jnp.sum(features**2, -1, keepdims=True)
  unit = collectives.all_gather(features * lax.rsqrt(size + 1e-12), axis_name)
  cosine = jnp.matmul(unit, unit.T, precision=lax.Precision.HIGHEST)
  n = len(unit)
  # By a product, not by a choice, which would hide a nan.
  others = cosine**2 * (1 - jnp.eye(n, dtype=cosine.dtype))
  return jnp.sum(others) / max(n * (n - 1), 1)


def batch_norm_entropy(params: Params) -> Array:
  """Returns the entropy of normal units, as wide as the norms' gains [] [KB16].

  sum log(2 pi e gain^2) / 2 over all gains of a generator: what a unit that is
  normal before its norm has after it, taken for the entropy of the samples.

  Raises:
    ValueError: no norm has a gain.
  """
  gains = [
    jnp.ravel(dtypes.at_least_float32(leaf))
    for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    if path and getattr(path[-1], 'key', None) == 'gain'
  ]
  if not gains:
    raise ValueError(
      'This generator has no batch norm with a gain: norm_gain must be True.'
    )
  square = jnp.concatenate(gains) ** 2
  tiny = jnp.finfo(square.dtype).tiny  # where the logarithm is finite
  return 0.5 * jnp.sum(jnp.log(2 * jnp.pi * jnp.e * (square + tiny)))


def kl_divergence(mean: Array, log_variance: Array) -> Array:
  """Returns KL(N(mean, variance) | N(0, I)) of codes [n, k], [n] [KW14].

  Raises:
    ValueError: the two have different shapes.
  """
  checks.same_shape(mean=np.shape(mean), log_variance=np.shape(log_variance))
  mean, log_variance = map(dtypes.at_least_float32, (mean, log_variance))
  return 0.5 * jnp.sum(jnp.expm1(log_variance) - log_variance + mean**2, -1)


def variational_loss(
  generator: Learner,
  rng: PRNGKey,
  x: Array,
  *condition: Array,
  kl_weight: float = 1.0,
  kl: str = 'prior',
  num_importance: int = 10,
  axis_name: str | None = None,
) -> Callable[[Params], tuple[Array, Metrics]]:
  """Returns the loss of a variational autoencoder of x, of its parameters [KW14].

  The mean over examples of |x - decoded code|^2 + kl_weight KL(code | prior): minus
  the evidence bound, up to constants, of a decoder with variance kl_weight / 2
  [X21 panel 4]. The printed objective has the KL to the decoder's posterior (`kl=
  'posterior'`), whose evidence log q(x) is then estimated from draws of the encoder;
  at weight 1 both are one.

  Args:
    generator: with an encoder.
    rng: key of the codes and of dropout.
    x: what is to be generated [n, ...].
    *condition: images that it is generated from.
    kl_weight: gamma.
    kl: 'prior', as the authors' code has it, or 'posterior', as printed.
    num_importance: draws for the evidence.
    axis_name: the mapped axis over which x is split.

  Raises:
    ValueError: an argument is out of its range, a condition is not as long as x, or
      what is decoded has another shape than x.
  """
  checks.non_negative(kl_weight=kl_weight)
  checks.choice(('prior', 'posterior'), kl=kl)
  checks.count(num_importance=num_importance)
  for each in condition:
    checks.num_rows(len(x), condition=each)
  x = lax.stop_gradient(dtypes.at_least_float32(x))
  dropout_rng, code_rng = jax.random.split(rng)

  def loss_fn(params):
    mean, log_variance = learners.call(
      generator,
      params,
      x,
      *condition,
      method='encode',
      axis_name=axis_name,
      key=dropout_rng,
    )
    mean, log_variance = map(dtypes.at_least_float32, (mean, log_variance))
    apart = kl_divergence(mean, log_variance)

    def draw(rng):
      unit = jax.random.normal(rng, mean.shape, mean.dtype)
      z = mean + jnp.exp(0.5 * log_variance) * unit
      back = drawing.decode_batch(
        generator, params, z, *condition, axis_name=axis_name
      )
      checks.shape(x.shape, decoded=back)
      error = jnp.sum((back - x) ** 2, range(1, x.ndim))
      # log q(x | z) + log p(z) - log q(z | x), at decoder variance 1 / 2.
      log_weight = 0.5 * jnp.sum(unit**2 + log_variance - z**2, -1) - error
      return error, log_weight

    if kl == 'prior':
      error, _ = draw(code_rng)
      values = error + kl_weight * apart
    else:
      errors, log_weights = jax.vmap(draw)(
        jax.random.split(code_rng, num_importance)
      )
      error = jnp.mean(errors, 0)
      evidence = jax.nn.logsumexp(log_weights, 0) - jnp.log(num_importance)
      values = (kl_weight - 1) * evidence + kl_weight * (error + apart)
    return jnp.mean(values), {
      'generator/reconstruction': jnp.mean(error),
      'generator/divergence': jnp.mean(apart),
    }

  return loss_fn
