"""Tests of VERA on linear generators, whose densities are normal."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax

from stein_jax import generators
from stein_jax.algorithms import vera
from tests import draws
from tests import literal
from tests import smoke

_KEY = jax.random.key(0)
_ZERO = jnp.zeros((), jnp.int32)
_W = np.array(
  [[1.2, -0.3], [0.4, 0.8], [-0.6, 0.5]]
)  # three numbers of two latents
_B = np.array([0.5, -1.0, 0.2])


def decode(z):
  return z @ jnp.asarray(_W.T, z.dtype) + jnp.asarray(_B, z.dtype)[None]


def linear_samples(num, noise_scale, seed=0):
  """Returns latents [num, 2], and what the linear generator makes of them."""
  rng = np.random.default_rng(seed)
  z, e = rng.normal(size=(num, 2)), rng.normal(size=(num, 3))
  return np.float32(z), np.float32(z @ _W.T + _B + noise_scale * e)


class OwnScoreTest(parameterized.TestCase):
  def exact(self, x, noise_scale):
    """Returns the score of N(b, WW' + s^2 I)."""
    covariance = _W @ _W.T + noise_scale**2 * np.eye(3)
    return -np.linalg.solve(covariance, (x - _B).T).T

  @parameterized.parameters(0.5, 1.0)
  def test_many_draws_find_the_exact_score(self, noise_scale):
    z, x = linear_samples(6, noise_scale)
    score, effective = jax.jit(
      lambda x, z: vera.own_score(
        decode,
        _KEY,
        x,
        z,
        noise_scale=noise_scale,
        latent_scale=0.7,
        num_draws=100_000,
      )
    )(x, z)
    np.testing.assert_allclose(score, self.exact(x, noise_scale), atol=0.05)
    self.assertTrue(np.all(effective > 1000) and np.all(effective < 100_000))

  @parameterized.parameters((0.4, 0.3), (0.1, 0.08))
  def test_few_draws_are_right_on_average(self, noise_scale, latent_scale):
    """-E[score.(x - b)] is d of any density, by parts."""
    z, x = linear_samples(4000, noise_scale)
    score, _ = jax.jit(
      lambda x, z: vera.own_score(
        decode, _KEY, x, z, noise_scale=noise_scale, latent_scale=latent_scale
      )
    )(x, z)
    found = -np.mean(np.sum(np.float64(score) * (x - _B), 1))
    self.assertAlmostEqual(found / 3, 1, delta=0.05)

  def test_by_a_loop(self):
    z, x = linear_samples(4, 0.5)
    with draws.fixed():
      found, effective = vera.own_score(
        decode, _KEY, x, z, noise_scale=0.5, latent_scale=0.3, num_draws=6
      )
    unit = draws.normals((4, 6, 2))
    for i in range(4):
      weights, pulls = [], []
      for j in range(6):
        drawn = z[i] + 0.3 * unit[i, j]
        back = drawn @ _W.T + _B - x[i]
        prior, likelihood = drawn @ drawn / 2, back @ back / (2 * 0.5**2)
        proposal = unit[i, j] @ unit[i, j] / 2
        weights.append(np.exp(proposal - prior - likelihood))
        pulls.append(back / 0.5**2)
      weights = np.array(weights) / np.sum(weights)
      np.testing.assert_allclose(found[i], weights @ pulls, rtol=1e-4)
      count = 1 / np.sum(weights**2)
      np.testing.assert_allclose(effective[i], count, rtol=1e-4)

  def test_refusals(self):
    z, x = linear_samples(4, 0.5)
    run = lambda decode=decode, z=z, **options: vera.own_score(
      decode, _KEY, x, z, **(dict(noise_scale=0.5, latent_scale=0.3) | options)
    )
    for options, message in (
      (dict(noise_scale=0.0), 'noise_scale=0.0 must be a positive number'),
      (dict(latent_scale=-1.0), 'latent_scale=-1.0 must be a positive number'),
      (dict(num_draws=0), 'num_draws=0 must be at least 1'),
      (dict(z=z[:3]), r'z has shape \(3, 2\); wanted: \(4, ...\)'),
      (
        dict(decode=lambda z: z),
        r'decoded has shape \(20, 4, 2\); wanted: \(2',
      ),
    ):
      with self.assertRaisesRegex(ValueError, message):
        run(**options)


class StepTest(parameterized.TestCase):
  def state(self, scale, shift=0.0, log_precision=0.0, rate=1.0):
    energy = literal.quadratic(
      literal.MEAN, log_precision, optimizer=optax.sgd(rate)
    )
    generator = literal.linear(
      scale, [shift, shift], optimizer=optax.sgd(rate)
    ).replace(prior='normal', module=literal.LinearVAE())
    return vera.State(_ZERO, energy, generator)

  def test_by_hand(self):
    """A move down energy and q, and a contrast with a penalty on slopes at data."""
    x = literal.normal(7)
    state = self.state(0.8, 0.3, np.log([1.0, 4.0]))
    hyper = dict(entropy=0.7, noise_scale=0.4, gradient_penalty=0.2)
    step = functools.partial(vera.step, latent_scale=0.3, num_draws=5, **hyper)
    with draws.fixed():
      after, metrics = jax.jit(step)(state, {'image': x}, _KEY)
      own, effective = vera.own_score(
        lambda z: 0.8 * z + 0.3,
        _KEY,
        0.8 * draws.latents((7, 2)) + 0.3 + 0.4 * draws.normals((7, 2)),
        draws.latents((7, 2)),
        noise_scale=0.4,
        latent_scale=0.3,
        num_draws=5,
      )
    z, noise = draws.latents((7, 2)), draws.normals((7, 2))
    samples = 0.8 * z + 0.3 + 0.4 * noise
    precision = np.array([1.0, 4.0])
    phi = -precision * (samples - literal.MEAN) - 0.7 * np.asarray(own)
    found = after.generator.params['params']
    np.testing.assert_allclose(found['shift'], 0.3 + phi.mean(0), atol=1e-5)
    np.testing.assert_allclose(
      found['scale'], 0.8 + (phi * z).mean(0), atol=1e-5
    )
    np.testing.assert_allclose(
      metrics['generator/effective_draws'], np.mean(effective), rtol=1e-5
    )
    # E has the slopes precision (mean - x) by the mean, and by log precision half the
    # square; |grad E|^2 / 2 has precision^2 (mean - x), and precision^2 (x - mean)^2.
    way, other = x - literal.MEAN, samples - literal.MEAN
    by_mean = -precision * (way.mean(0) - other.mean(0))
    by_mean -= 0.2 * precision**2 * way.mean(0)
    by_log = precision * ((way**2).mean(0) - (other**2).mean(0)) / 2
    by_log += 0.2 * precision**2 * (way**2).mean(0)
    found = after.energy.params['params']
    np.testing.assert_allclose(found['mean'], literal.MEAN - by_mean, atol=1e-5)
    np.testing.assert_allclose(
      found['log_precision'], np.log(precision) - by_log, atol=1e-5
    )
    penalty = np.mean(np.sum((precision * way) ** 2, 1)) / 2
    np.testing.assert_allclose(metrics['energy/penalty'], penalty, rtol=1e-5)

  def test_the_sampler_rests_at_the_tempered_density(self):
    """At E = lam x^2 / 2 it is N(0, lambda / lam), its noise included.

    The generator's scale w moves by E[phi.z] = w (lambda / (w^2 + s^2) - lam), if the
    latents that are tried are as wide as the prior, and many.
    """
    entropy, noise_scale, lam, num = 0.7, 0.5, 1.3, 10_000
    rest = (entropy / lam - noise_scale**2) ** 0.5

    step = jax.jit(
      functools.partial(
        vera.step,
        entropy=entropy,
        noise_scale=noise_scale,
        latent_scale=1.0,
        num_draws=200,
      )
    )
    energy = literal.quadratic([0.0, 0.0], np.log([lam, lam]))

    def move(scale):
      state = self.state(scale)._replace(energy=energy)
      after, _ = step(state, {'image': jnp.zeros((num, 2))}, _KEY)
      return jnp.mean(after.generator.params['params']['scale']) - scale

    for scale in (rest - 0.2, rest, rest + 0.2):
      exact = scale * (entropy / (scale**2 + noise_scale**2) - lam)
      # The moves are 0.2 either way. The mean of draws is off by 0.02.
      self.assertAlmostEqual(float(move(scale)), exact, delta=0.06)

  def test_narrow_draws_lose_most_of_the_entropy(self):
    """They lie about the latent that made x, and say of its noise what is known."""
    z, e = np.random.default_rng(0).normal(size=(2, 5000, 2)).astype(np.float32)
    x = 0.7 * z + 0.5 * e
    whole = 0.7 / (0.7**2 + 0.5**2)  # E[-score.z] of each number
    found = {
      scale: -np.mean(
        z
        * vera.own_score(
          lambda z: 0.7 * z,
          _KEY,
          x,
          z,
          noise_scale=0.5,
          latent_scale=scale,
        )[0]
      )
      for scale in (0.2, 0.8)
    }
    self.assertLess(found[0.2] / whole, 0.3)
    self.assertBetween(found[0.8] / whole, 0.8, 1.0)

  def test_modes_agree(self):
    state = self.state(0.8, 0.3, np.log([1.0, 4.0]))
    step = functools.partial(vera.step, num_draws=3, latent_scale=0.3)
    with draws.fixed():
      smoke.assert_modes_agree(step, state, {'image': literal.normal(8)})

  def test_samples_have_the_noise(self):
    state = self.state(0.8, 0.3)
    draw = functools.partial(vera.sample, state, _KEY, 5000)
    x = np.float64(draw(noise_scale=0.5))
    self.assertAlmostEqual(x.var() / (0.8**2 + 0.5**2), 1, delta=0.06)
    self.assertAlmostEqual(
      np.float64(draw(noise_scale=0.0)).var() / 0.64, 1, delta=0.06
    )

  def test_refusals(self):
    state = self.state(0.8)
    batch = {'image': jnp.zeros((4, 2))}
    run = lambda state=state, **hyper: jax.eval_shape(
      functools.partial(vera.step, **hyper), state, batch, _KEY
    )
    for options, message in (
      (dict(entropy=-1.0), 'entropy=-1.0 must be zero or more'),
      (dict(gradient_penalty=-1.0), 'gradient_penalty=-1.0 must be zero'),
      (dict(noise_scale=0.0), 'noise_scale=0.0 must be a positive'),
      (
        dict(
          state=state._replace(
            generator=state.generator.replace(prior='uniform')
          )
        ),
        "prior='uniform', .*allowed: 'normal'",
      ),
    ):
      with self.assertRaisesRegex(ValueError, message):
        run(**options)
    mixing = generators.create(
      _KEY,
      generators.DCGAN(
        shape=(8, 8, 1),
        latent_dim=2,
        base=2,
        dense=(4,),
        widths=(2,),
        strides=(2, 2),
      ),
      optax.sgd(1.0),
      4,
    )
    with self.assertRaisesRegex(ValueError, 'generator mixes its batch'):
      run(state=state._replace(generator=mixing))


if __name__ == '__main__':
  absltest.main()
