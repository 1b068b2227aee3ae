"""Tests of variational MCMC teaching, and of its information geometry [X21].

An energy of the family Pi, normal laws of any mean and variance, and an autoencoder
of the family Q, x = scale z + shift + N(0, gamma / 2), learn data of a normal law:
all divergences between the three have closed forms.
"""

import functools
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import chex
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
import optax
import pytest

from stein_jax import generators
from stein_jax import samplers
from stein_jax.algorithms import vae_teaching
from tests import draws
from tests import literal

GAMMA = 1.0
MEAN, VARIANCE = np.array([1.0, -0.5]), np.array([2.0, 1.2])  # of the data


def exact_chain(precision):
  """Returns one Langevin step that draws from N(mean, 1 / precision), from any start.

  The drift goes all the way to the mean; the noise delta sqrt(T) xi has that variance.
  """
  return samplers.Langevin((2 / precision) ** 0.5, temperature=0.5)


def start(energy, decoder, *, noise=GAMMA / 2, optimizers=(None, None)):
  """Returns the state of an energy's (mean, variance) and a decoder's (scale, shift).

  The encoder is the posterior at that variance of the decoder.
  """
  mean, variance = map(np.asarray, energy)
  return vae_teaching.State(
    jnp.zeros((), jnp.int32),
    literal.quadratic(mean, -np.log(variance), optimizer=optimizers[0]),
    literal.linear(
      *decoder,
      encoder=literal.posterior(*decoder, noise),
      optimizer=optimizers[1],
    ),
  )


class StepTest(parameterized.TestCase):
  def start(self, network):
    """Returns a first state and a batch, of images but for 'Linear'."""
    if network == 'Linear':
      decoder = np.array([0.9, -0.4]), np.array([0.2, 0.1])
      state = start(([0.3, 0.2], [0.7, 1.5]), decoder, noise=0.8)
      return state, {'image': literal.normal(6)}
    networks = dict(
      VAE=literal.VAE_NETWORK, ImageToImage=literal.IMAGE_TO_IMAGE
    )
    batch = literal.images(conditional=network == 'ImageToImage')
    config = ConfigDict(
      dict(
        energy=literal.CONV_NET,
        energy_optimizer=literal.SGD,
        generator=networks[network],
        generator_optimizer=literal.SGD,
      )
    )
    return vae_teaching.init(jax.random.key(1), config, batch), batch

  @parameterized.parameters(
    ('VAE', dict(), dict()),
    ('ImageToImage', dict(), dict(kl_weight=0.5, data_weight=0.2)),
    ('Linear', dict(noise=False, clip=(-0.8, 0.9)), dict(kl_weight=3.0)),
    (
      'Linear',
      dict(temperature=0.2),
      dict(kl='posterior', num_importance=2, energy_l2=0.1),
    ),
  )
  def test_is_variational_mcmc_teaching(self, network, options, hyper):
    state, batch = self.start(network)
    chain = samplers.Langevin(0.4, num_steps=3, **options)
    self.enter_context(draws.fixed())
    with mock.patch.object(
      generators, 'variational_loss', wraps=generators.variational_loss
    ) as bound:
      step = functools.partial(vae_teaching.step, chain=chain, **hyper)
      after, metrics = jax.jit(step)(state, batch, jax.random.key(0))
    num_importance = bound.call_args.kwargs['num_importance']
    self.assertEqual(num_importance, hyper.get('num_importance', 10))
    data, *condition = batch.values()
    energy_l2 = hyper.get('energy_l2', 0.0)
    weight = hyper.get('data_weight', 0.0)
    coding = {'kl_weight': 2.0}  # X21's on CIFAR-10
    for name in ('kl_weight', 'kl'):
      if name in hyper:
        coding[name] = hyper[name]
    dim = 2 if network == 'Linear' else 3
    z = draws.latents((len(data), dim))
    decode = functools.partial(state.generator.apply_fn, method='decode')
    proposed = jax.jit(decode)(state.generator.params, z, *condition)
    revised = literal.chain(state.energy, chain, proposed, *condition)
    energy, energy_metrics = literal.descended(
      state.energy.params,
      literal.contrast(
        state.energy, data, revised, *condition, energy_l2=energy_l2
      ),
    )
    bound = literal.evidence_bound(
      state.generator, revised, *condition, **coding
    )

    def generator_loss(params):
      loss, metrics = bound(params)
      samples = decode(params, z, *condition)
      to_data = jnp.sum(jnp.abs(samples - data)) / len(data)
      return (1 - weight) * loss + weight * to_data, metrics

    generator, generator_metrics = literal.descended(
      state.generator.params, generator_loss
    )
    moves = (revised - np.asarray(proposed)).reshape(len(data), -1)
    spread = np.sum(np.var(revised, 0))
    close = functools.partial(chex.assert_trees_all_close, rtol=2e-4, atol=1e-4)
    close(after.energy.params, energy)
    close(after.generator.params, generator)
    close(
      metrics,
      {
        **literal.watch(state.energy, chain, proposed, *condition),
        **energy_metrics,
        **generator_metrics,
        'samples/revision': np.float32(np.mean(np.linalg.norm(moves, axis=1))),
        'samples/variance': np.float32(spread),
      },
    )
    self.assertEqual(after.step, 1)

  @parameterized.parameters(
    (dict(kl_weight=-1.0), 'kl_weight=-1.0'),
    (dict(kl='evidence'), "kl='evidence'.*'prior', 'posterior'"),
    (dict(num_importance=0), 'num_importance=0'),
    (dict(data_weight=-0.1), 'data_weight=-0.1'),
    (dict(data_weight=1.1), 'data_weight=1.1'),
    (dict(energy_l2=-1.0), 'energy_l2=-1.0'),
    (dict(chain=samplers.MALA(0.1, 0)), 'chain.num_steps=0'),
    (dict(chain=samplers.Langevin(0.1, 0)), 'chain.num_steps=0'),
    (dict(chain=samplers.Langevin(-1.0)), 'chain.step_size=-1.0'),
  )
  def test_bad_arguments(self, hyper, message):
    state = start((MEAN, VARIANCE), (np.ones(2), 0.0))
    step = functools.partial(vae_teaching.step, **hyper)
    batch = {'image': jnp.zeros((4, 2))}
    with self.assertRaisesRegex(ValueError, message):
      jax.eval_shape(step, state, batch, jax.random.key(0))


class SampleTest(absltest.TestCase):
  def test_is_ancestral_langevin_sampling(self):
    """Without steps the decoder's law, without its noise; with them the energy's."""
    state = start((MEAN, [0.5, 0.5]), (np.array([2.0, 0.1]), [3.0, 4.0]))
    num, rng = 4000, jax.random.key(0)
    state = state._replace(generator=state.generator.replace(batch_size=1500))
    chain = exact_chain(2.0)
    first = vae_teaching.sample(
      state, rng, num, chain=chain.replace(num_steps=0)
    )
    ends = vae_teaching.sample(state, rng, num, chain=chain)
    for x, mean, variance in (
      (first, [3.0, 4.0], [4.0, 0.01]),
      (ends, MEAN, [0.5, 0.5]),
    ):
      x = np.asarray(x)
      self.assertEqual(x.shape, (num, 2))
      error = np.abs(x.mean(0) - mean) / np.sqrt(np.divide(variance, num))
      self.assertLess(np.max(error), 4)
      error = np.abs(x.var(0) / variance - 1) * (num / 2) ** 0.5
      self.assertLess(np.max(error), 4)


@functools.partial(jax.jit, static_argnames=('kl', 'num_importance'))
def _updates(state, data, rng, **hyper):
  """Returns minus updates at rate 1 of both networks on each batch, and metrics."""

  def once(x, rng):
    after, metrics = vae_teaching.step(state, {'image': x}, rng, **hyper)
    change = lambda old, new: jax.tree.map(
      lambda o, n: (o - n) / literal.RATE, old.params, new.params
    )
    return (
      change(state.energy, after.energy)['params'],
      change(state.generator, after.generator)['params'],
      metrics,
    )

  return jax.vmap(once)(data, rng)


class GeometryTest(parameterized.TestCase):
  """Expected updates, from 64 batches of 500 draws, in standard errors."""

  def updates(self, state, *, data=(MEAN, VARIANCE), **hyper):
    """Returns minus updates at rate 1 by mean and standard error, of each network."""
    hyper = dict(dict(kl_weight=GAMMA), **hyper)
    x = literal.normal(64, 500, mean=data[0], variance=data[1])
    every = _updates(state, x, jax.random.split(jax.random.key(0), 64), **hyper)
    moments = lambda u: (np.mean(u, 0), np.std(u, 0) / (len(u) - 1) ** 0.5)
    return [{k: moments(u) for k, u in part.items()} for part in every]

  def distance(self, found, expected):
    """Returns the largest difference of the expected updates, in standard errors."""
    self.assertEqual(set(found), set(expected))
    scores = [
      (found[name][0] - np.asarray(value)) / (found[name][1] + 1e-6)
      for name, value in expected.items()
    ]
    return np.max(np.abs(np.concatenate([np.ravel(s) for s in scores])))

  # KL(N(m, v) | N(n, w)) = ((v + (m - n)^2) / w - 1 - log(v / w)) / 2, whose slopes are
  # (n - m) / w in n and (1 / w - (v + (m - n)^2) / w^2) / 2 in w.

  def energy_gradient(self, p, state):
    """Returns that of KL(p | pi) in the energy's parameters."""
    (m, v), values = p, state.energy.params['params']
    n, w = np.asarray(values['mean']), np.exp(-values['log_precision'])
    slope = 0.5 * (1 / w - (v + (m - n) ** 2) / w**2)
    return dict(mean=(n - m) / w, log_precision=-w * slope, offset=0.0)

  def decoder_gradient(self, p, state, noise):
    """Returns that of KL(p | q) in the decoder's parameters; the encoder's are 0."""
    (m, v), values = p, state.generator.params['params']
    n, scale = np.asarray(values['shift']), np.asarray(values['scale'])
    w = scale**2 + noise
    slope = 0.5 * (1 / w - (v + (m - n) ** 2) / w**2)
    zeros = {k: np.zeros(2) for k in values}
    return zeros | dict(shift=(n - m) / w, scale=2 * scale * slope)

  def test_energy_is_projected_from_the_data(self):
    """Chains that converge: the gradient of KL(data | pi), wherever they start."""
    far = np.array([3.0, 0.5]), np.array([-5.0, 8.0])
    state = start(([0.3, 0.2], [0.7, 0.7]), far)
    found, _, metrics = self.updates(state, chain=exact_chain(1 / 0.7))
    expected = self.energy_gradient((MEAN, VARIANCE), state)
    self.assertLess(self.distance(found, expected), 4)
    self.assertGreater(
      self.distance(found, jax.tree.map(np.zeros_like, expected)), 20
    )
    # The revised law is pi: its energy is half a chi-square with two degrees.
    mean, error = metrics['energy/samples']
    self.assertLess(abs(mean - 1), 4 * error)

  def test_unconverged_chains_leave_a_second_divergence(self):
    """The gradient of KL(data | pi) - KL(revised | pi): contrastive divergence.

    Three steps from N(shift, scale^2), the decoder's law without its noise.
    """
    (mean, variance), (scale, shift) = (
      ([0.3, 0.2], [0.7, 1.5]),
      ([1.5, 0.5], 2.0),
    )
    state = start((mean, variance), (np.array(scale), shift))
    delta, steps = 0.6, 3
    chain = samplers.Langevin(delta, steps)
    found, _, _ = self.updates(state, chain=chain)
    shrink = 1 - delta**2 / (2 * np.array(variance))

    def revised(start_variance):
      """Returns the law of y' = shrink y + delta xi, y = x - mean, after steps."""
      v = start_variance
      for _ in range(steps):
        v = shrink**2 * v + delta**2
      return mean + shrink**steps * (shift - np.array(mean)), v

    expected = lambda law: jax.tree.map(
      np.subtract,
      self.energy_gradient((MEAN, VARIANCE), state),
      self.energy_gradient(law, state),
    )
    law = revised(np.array(scale) ** 2)
    self.assertLess(self.distance(found, expected(law)), 4)
    # A start with the decoder's noise can be told apart, and so can convergence.
    noisy = revised(np.array(scale) ** 2 + GAMMA / 2)
    self.assertGreater(self.distance(found, expected(noisy)), 10)
    converged = self.energy_gradient((MEAN, VARIANCE), state)
    self.assertGreater(self.distance(found, converged), 20)

  @parameterized.parameters(
    dict(kl='prior', kl_weight=GAMMA),
    dict(kl='prior', kl_weight=2.0),
    # The evidence is exact where the encoder is: the importance weights are one.
    dict(kl='posterior', kl_weight=2.0, num_importance=2),
  )
  def test_autoencoder_is_projected_from_the_revised(
    self, kl, kl_weight, **more
  ):
    """Fisher's identity: at the posterior, gamma times the gradient of KL(pi | q).

    With the printed divergence the decoder's variance is 1 / 2 and the factor 1,
    whatever gamma is. The encoder, at its best, does not move.
    """
    prior = kl == 'prior'
    noise, factor = (kl_weight / 2, kl_weight) if prior else (0.5, 1.0)
    pi = (np.array([0.3, 0.2]), np.array([0.7, 0.7]))
    decoder = np.array([0.8, -1.1]), np.array([0.9, 0.1])
    state = start(pi, decoder, noise=noise)
    _, found, _ = self.updates(
      state,
      chain=exact_chain(1 / 0.7),
      kl=kl,
      kl_weight=kl_weight,
      **more,
    )
    gradient = self.decoder_gradient(pi, state, noise)
    expected = jax.tree.map(lambda g: factor * g, gradient)
    self.assertLess(self.distance(found, expected), 4)
    # Not at the data, and not with another variance of the decoder.
    for law, other in (((MEAN, VARIANCE), noise), (pi, noise / 2)):
      gradient = self.decoder_gradient(law, state, other)
      wrong = jax.tree.map(lambda g: factor * g, gradient)
      self.assertGreater(self.distance(found, wrong), 20)

  @pytest.mark.slow
  def test_alternating_projections_meet_at_the_data(self):
    """The energy follows the data, the autoencoder the energy, and all three meet.

    Where the energy is held at rest the autoencoder arrives at its law: it never
    sees the data.
    """
    delta, held = 0.7, (np.array([-1.0, 0.5]), np.array([0.8, 2.5]))

    def run(rate):
      state = start(
        held,
        (np.array([0.3, 0.3]), np.array([2.0, 2.0])),
        optimizers=(optax.sgd(rate), optax.sgd(0.1)),
      )
      step = functools.partial(
        vae_teaching.step,
        chain=samplers.Langevin(delta, 40),
        kl_weight=GAMMA,
      )
      data = literal.normal(400, 200, mean=MEAN, variance=VARIANCE)
      _, path = literal.learned(step, state, data, jax.random.key(0))
      return path[0].energy.params['params'], path[0].generator.params['params']

    paths = jax.vmap(run)(jnp.array([0.1, 0.0]))
    # The law of the chains of precision p has the variance 1 / (p (1 - delta^2 p / 4)),
    # which is the data's at this p. After 40 steps the start is forgotten to 2 %.
    precision = 2 * (1 - (1 - delta**2 / VARIANCE) ** 0.5) / delta**2
    held_variance = held[1] / (1 - delta**2 / (4 * held[1]))
    for i, mean, variance, p in (
      (0, MEAN, VARIANCE, precision),
      (1, held[0], held_variance, 1 / held[1]),
    ):
      energy, generator = (
        literal.last_half(jax.tree.map(lambda x: x[i], path)) for path in paths
      )
      scale = np.sqrt(variance - GAMMA / 2)
      expected = dict(mean=mean, log_precision=np.log(p), offset=0.0)
      expected |= literal.posterior(scale, mean, GAMMA / 2)
      expected |= dict(shift=mean, scale=scale)
      found = energy | generator
      self.assertEqual(set(found), set(expected))
      # The largest error in eight seeds: 0.026.
      for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=0.06, err_msg=name)

  def test_neither_can_improve_alone_where_all_three_are_one(self):
    """The equilibrium: no expected update there, and a way back from beside it."""
    variance = np.array([1.5, 1.5])
    data = (MEAN, variance)
    scale = np.sqrt(variance - GAMMA / 2)

    def state(energy_shift=(0.0, 0.0), decoder_shift=(0.0, 0.0)):
      dm, dv = energy_shift
      ds, db = decoder_shift
      return start((MEAN + dm, variance * np.exp(dv)), (scale + ds, MEAN + db))

    def updates(there):
      precision = np.exp(there.energy.params['params']['log_precision'][0])
      return self.updates(there, data=data, chain=exact_chain(precision))

    at_rest = state()
    energy, generator, _ = updates(at_rest)
    none = lambda learner: jax.tree.map(
      np.zeros_like, jax.device_get(learner.params['params'])
    )
    self.assertLess(self.distance(energy, none(at_rest.energy)), 4)
    self.assertLess(self.distance(generator, none(at_rest.generator)), 4)

    for sign in (-1, 1):
      moved, _, _ = updates(state(energy_shift=(0.3 * sign, -0.3 * sign)))
      for name in ('mean', 'log_precision'):
        mean, error = moved[name]
        self.assertGreater(np.min(sign * mean / error), 10, name)
      still, moved, _ = updates(state(decoder_shift=(0.2 * sign, 0.3 * sign)))
      self.assertLess(self.distance(still, none(at_rest.energy)), 4)
      for name in ('scale', 'shift'):
        mean, error = moved[name]
        self.assertGreater(np.min(sign * mean / error), 10, name)


if __name__ == '__main__':
  absltest.main()
