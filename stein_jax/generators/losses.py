"""Losses of a generator."""

from collections.abc import Callable
import functools
from typing import Any

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
  direction: Callable[[Array], Array | tuple[Array, Any]],
  *,
  penalty: Callable[[Params, Array], Array] | None = None,
  axis_name: str | None = None,
) -> Callable[[Params], tuple[Any, ...]]:
  """Returns the loss -mean G(xi).phi with a constant phi [LW17 eq 21] [WL16 eq 10].

  By the chain rule its gradient is minus the mean over the batch of (dG / d params)'
  phi. The loss returns its samples after its metrics, so that they need not be drawn
  again.

  Args:
    draw: function of the generator's parameters to samples [n, ...].
    direction: function of the samples to phi, like the samples, or to a pair of phi
      and what the loss is to return after its samples.
    penalty: function of parameters and samples to a number that is added to the loss.
    axis_name: the mapped axis over which the samples are split.

  Raises:
    ValueError: phi has another shape than the samples, or the penalty is not [].
  """
  dot = lambda a, b: jnp.mean(jnp.sum((a * b).reshape(len(a), -1), -1))

  def loss_fn(params):
    samples = draw(params)
    # phi is a constant, so nothing that it is computed from has a gradient.
    fixed = lax.stop_gradient(samples)
    found = direction(fixed)
    phi, *beside = found if isinstance(found, tuple) else (found,)
    checks.like(samples, direction=phi)
    phi = lax.stop_gradient(dtypes.at_least_float32(phi))
    spread = dtypes.at_least_float32(fixed)
    spread -= collectives.pmean(jnp.mean(spread, 0, keepdims=True), axis_name)
    metrics = {
      'generator/move': dot(phi, phi),
      'samples/variance': dot(spread, spread),
    }
    loss = -dot(dtypes.at_least_float32(samples), phi)
    # The penalty has the samples themselves, and so a gradient through them.
    if penalty:
      metrics['generator/penalty'] = penalty(params, samples)
      checks.shape((), penalty=metrics['generator/penalty'])
      loss += metrics['generator/penalty']
    return loss, metrics, fixed, *beside

  return loss_fn


def pulling_away(features: Array, *, axis_name: str | None = None) -> Array:
  """Returns the mean squared cosine of pairs of rows [] [ZML17 sec 2.4].

  Its descent turns the features of the samples away from each other. It is 0 for one
  sample.

  Args:
    features: features [n, f] of the samples.
    axis_name: the mapped axis over which the samples are split. The pairs are those of
      the samples of all shards.

  Raises:
    ValueError: the features are not [n, f].
  """
  features = dtypes.at_least_float32(features)
  if features.ndim != 2:
    raise ValueError(f'features has shape {features.shape}; wanted: [n, f].')
  # No cosine depends on the unit of a row, and in this one no square overflows.
  largest = jnp.max(jnp.abs(features), 1, keepdims=True, initial=0)
  features /= lax.stop_gradient(jnp.where(largest > 0, largest, 1))
  size = jnp.sum(features**2, -1, keepdims=True)
  unit = collectives.all_gather(features * lax.rsqrt(size + 1e-12), axis_name)
  cosine = jnp.matmul(unit, unit.T, precision=lax.Precision.HIGHEST)
  n = len(unit)
  # A product keeps the nan of a pair, which jnp.where would hide.
  others = cosine**2 * (1 - jnp.eye(n, dtype=cosine.dtype))
  return jnp.sum(others) / max(n * (n - 1), 1)


def batch_norm_entropy(params: Params) -> Array:
  """Returns the sum of log(2 pi e gain^2) / 2 over all gains of a generator [] [KB16].

  A unit that is normal before its norm has this entropy after it. Their sum stands for
  the entropy of the samples.

  Raises:
    ValueError: no norm has a gain.
  """
  # `layers.BatchNorm` alone has parameters of this name.
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
  tiny = jnp.finfo(square.dtype).tiny  # keeps the logarithm finite
  return 0.5 * jnp.sum(jnp.log(2 * jnp.pi * jnp.e * (square + tiny)))


def kl_divergence(mean: Array, log_variance: Array) -> Array:
  """Returns KL(N(mean, variance) | N(0, I)) of codes [n, k], [n] [KW14].

  Raises:
    ValueError: the two have different shapes.
  """
  checks.same_shape(mean=np.shape(mean), log_variance=np.shape(log_variance))
  mean, log_variance = map(dtypes.at_least_float32, (mean, log_variance))
  # exp(v) - 1 would lose digits near the prior, where v is near 0.
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
  """Returns the loss of a variational autoencoder of x, a function of its parameters.

  The loss is the mean over examples of |x - decoded code|^2 + kl_weight KL, with the KL
  of the code to the prior [KW14]. Up to constants it is minus the evidence bound of a
  decoder with variance kl_weight / 2 [X21 panel 4]. The printed objective has the KL to
  the decoder's posterior. It needs the evidence log q(x), which is estimated by
  importance sampling from the encoder. At kl_weight 1 both are the same.

  Args:
    generator: a generator with an encoder.
    rng: key of the codes and of dropout.
    x: examples to be generated [n, ...].
    *condition: images that the examples are generated from.
    kl_weight: gamma.
    kl: distribution to which the KL is taken: 'prior', as in the authors' code, or
      'posterior', as printed.
    num_importance: number of codes with which the evidence is estimated.
    axis_name: the mapped axis over which x is split.

  Raises:
    ValueError: an argument is out of its range, a condition is not as long as x, or
      the decoder's result has another shape than x.
  """
  checks.key(rng=rng)
  checks.non_negative(kl_weight=kl_weight)
  checks.choice(('prior', 'posterior'), kl=kl)
  checks.count(num_importance=num_importance)
  for each in condition:
    checks.num_rows(len(x), condition=each)
  # x may come from a chain of the energy, which this loss does not train.
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
    divergence = kl_divergence(mean, log_variance)
    draw = functools.partial(
      _decode_code,
      lambda z: drawing.decode_batch(
        generator, params, z, *condition, axis_name=axis_name
      ),
      x,
      mean,
      log_variance,
    )
    if kl == 'prior':
      error, _ = draw(code_rng)
      values = error + kl_weight * divergence
    else:
      errors, log_weights = jax.vmap(draw)(
        jax.random.split(code_rng, num_importance)
      )
      # Up to a constant the KL to the posterior is error + divergence +
      # evidence. The loss is gamma times that, minus the evidence.
      error = jnp.mean(errors, 0)
      evidence = jax.nn.logsumexp(log_weights, 0) - jnp.log(num_importance)
      values = (kl_weight - 1) * evidence + kl_weight * (error + divergence)
    return jnp.mean(values), {
      'generator/reconstruction': jnp.mean(error),
      'generator/divergence': jnp.mean(divergence),
    }

  return loss_fn


def _decode_code(decode, x, mean, log_variance, rng):
  """Returns the squared error of a decoded code of x, and its log weight, [n] each.

  The weight is q(x | z) p(z) / q(z | x) at decoder variance 1 / 2, up to a constant.
  """
  unit = jax.random.normal(rng, mean.shape, mean.dtype)
  # Codes are functions of fixed noise, so that gradients reach the encoder.
  z = mean + jnp.exp(0.5 * log_variance) * unit
  decoded = decode(z)
  checks.shape(x.shape, decoded=decoded)
  error = jnp.sum((decoded - x) ** 2, range(1, x.ndim))
  log_weight = 0.5 * jnp.sum(unit**2 + log_variance - z**2, -1) - error
  return error, log_weight
