"""Chains of an energy."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax

from stein_jax import energies
from stein_jax import kernels
from stein_jax import learners
from stein_jax import samplers
from stein_jax import stein
from tests import draws
from tests import literal
from tests.energies import models

_AXIS = 'batch'


class ChainTest(parameterized.TestCase):
  def test_without_noise_it_is_gradient_descent(self):
    # On E = |x|^2 / (2 sigma^2) a step multiplies by 1 - delta^2 / (2 sigma^2):
    # by 0.9921875 at X21's delta 0.002 and sigma 0.016.
    energy = models.linear().replace(
      apply_fn=lambda params, x: jnp.sum(x**2, -1) / (2 * 0.016**2)
    )
    x = jnp.asarray(models.points(), jnp.float32)
    noisy = samplers.Langevin(0.002, num_steps=3)
    ends = lambda seed, chain: energies.run_chain(
      energy, chain, jax.random.key(seed), x
    )[0]
    quiet = noisy.replace(noise=False)
    after = ends(0, quiet)
    np.testing.assert_allclose(after, 0.9921875**3 * x, rtol=1e-5)
    np.testing.assert_array_equal(ends(1, quiet), after)
    self.assertGreater(np.max(np.abs(ends(0, noisy) - after)), 0.001)

  def test_temperature_is_of_the_noise(self):
    # E = a.x: two steps of -a delta^2 / 2, and 2 T delta^2 of variance.
    energy, x = models.linear(), jnp.zeros((3000, 3))
    a, delta = np.array([0.5, -1.0, 0.25]), 0.4
    run = lambda temperature: energies.run_chain(
      energy,
      samplers.Langevin(delta, 2, temperature=temperature),
      jax.random.key(0),
      x,
    )[0]
    ends = {t: np.asarray(run(t) + delta**2 * a[None]) for t in (0.0, 1.0, 4.0)}
    np.testing.assert_allclose(ends[0.0], 0, atol=1e-6)
    np.testing.assert_allclose(ends[4.0], 2 * ends[1.0], atol=1e-5)
    # 4 standard errors of the mean square of 9000 normals.
    self.assertAlmostEqual(
      np.mean(ends[1.0] ** 2) / (2 * delta**2), 1, delta=4 * (2 / 9000) ** 0.5
    )

  def test_every_step_is_cut(self):
    # On E = 2.5 x^2 steps of delta^2 / 2 = 1/2 go to -1.5 x: from 1 to -1.5, cut to
    # -1; to 1.5, cut to 0.4; to -0.6. Cut at the end alone, -3.375 would be -1.
    energy = models.linear().replace(
      apply_fn=lambda params, x: 2.5 * jnp.sum(x**2, -1)
    )
    chain = samplers.Langevin(1.0, 3, noise=False, clip=(-1.0, 0.4))
    after, _ = energies.run_chain(
      energy, chain, jax.random.key(0), jnp.ones((2, 1))
    )
    np.testing.assert_allclose(after, 0.4 * -1.5 * np.ones((2, 1)), rtol=1e-6)

  @parameterized.parameters(
    samplers.Langevin(0.7, 4),
    samplers.MALA(0.7, 4),
    samplers.Underdamped(0.7, 4),
    samplers.Tempered(samplers.MALA(0.7), num_rounds=4),
  )
  def test_blocks_have_keys_of_their_own(self, chain):
    energy = models.linear().replace(
      apply_fn=lambda params, x, y: 0.5 * jnp.sum((x - y) ** 2, -1)
    )
    x, y = jnp.asarray(
      np.stack([models.points(), models.points() + 1]), jnp.float32
    )
    rng = jax.random.key(4)
    jitted = lambda: jax.jit(
      functools.partial(energies.run_chain, energy, chain),
      static_argnames='block_size',
    )
    run = jitted()
    whole, _ = run(rng, x, y, block_size=3)
    self.assertEqual(whole.shape, x.shape)
    fewer, _ = run(rng, x[:4], y[:4], block_size=3)
    np.testing.assert_allclose(fewer, whole[:4], atol=1e-6)
    # From one start to as many ends.
    ends, _ = run(rng, jnp.zeros((7, 3)), jnp.ones((7, 3)), block_size=3)
    self.assertLen(np.unique(ends), 21)
    # Of the same draws each block is what it is alone. The last one has one row,
    # beside which there are others or none. Metrics are means over the blocks.
    self.enter_context(draws.fixed())
    run = jitted()
    whole, metrics = run(rng, x, y, block_size=3)
    each = []
    for num, rows in ((3, [0, 1, 2]), (3, [3, 4, 5]), (1, [6, 0, 1])):
      rows = jnp.array(rows)
      alone, found = run(rng, x[rows], y[rows])
      each.append(found)
      np.testing.assert_allclose(whole[rows[:num]], alone[:num], atol=1e-6)
    # That of all rows, without those that fill the last block.
    move = np.mean(np.sqrt(np.sum(np.square(whole - x), 1)))
    np.testing.assert_allclose(metrics.pop('chain/move'), move, rtol=1e-5)
    for name, value in metrics.items():
      mean = np.mean([one[name] for one in each])
      np.testing.assert_allclose(value, mean, rtol=1e-6)
    with self.assertRaisesRegex(ValueError, 'block_size=-1'):
      energies.run_chain(energy, chain, rng, x, y, block_size=-1)

  @parameterized.parameters(
    samplers.Langevin(0.1, 3), samplers.MALA(0.1, 3), samplers.Gibbs(3)
  )
  def test_chains_keep_the_shape(self, chain):
    energy, *_ = models.rbm(4, shape=(2, 2, 1))
    x = jnp.asarray(models.points(5, 4), jnp.float32).reshape(5, 2, 2, 1)
    rng = jax.random.key(0)
    run = functools.partial(energies.run_chain, energy, chain)
    moved, _ = jax.jit(run)(rng, x)
    self.assertEqual((moved.shape, moved.dtype), (x.shape, x.dtype))
    self.assertFalse(np.array_equal(moved, x))
    sample = lambda num: functools.partial(
      energies.sample_state,
      models.state(energy),
      num=num,
      chain=chain,
    )
    self.assertEqual(jax.eval_shape(sample(1), rng).shape, (1, 2, 2, 1))
    samples = jax.jit(sample(6))(rng)
    self.assertEqual(samples.shape, (6, 2, 2, 1))
    self.assertLen(np.unique(samples.reshape(6, -1), axis=0), 6)

  def test_gibbs_takes_no_condition(self):
    energy, *_ = models.rbm()
    with self.assertRaisesRegex(ValueError, 'Gibbs takes no condition'):
      energies.run_chain(
        energy,
        samplers.Gibbs(),
        jax.random.key(0),
        models.points(),
        models.points(),
      )

  def test_gibbs_of_an_energy_that_has_none(self):
    energy = learners.create(
      jax.random.key(0), energies.MLP((3,)), optax.sgd(1.0), models.points()
    )
    with self.assertRaisesRegex(ValueError, 'no method gibbs; allowed: Lang'):
      energies.run_chain(
        energy, samplers.Gibbs(), jax.random.key(0), models.points()
      )

  def test_the_target_is_the_law_of_the_energy(self):
    # E(x) = a.x under a condition that is added to it.
    energy = models.linear().replace(
      apply_fn=lambda params, x, y: x @ params + y
    )
    x, y = jnp.asarray(models.points(), jnp.float32), jnp.arange(7.0)
    law = energies.target(energy, y)
    a = np.asarray(energy.params)
    np.testing.assert_allclose(law.log_density(x), -(x @ a + y), rtol=1e-5)
    np.testing.assert_allclose(law.score(x), np.tile(-a, (7, 1)), rtol=1e-6)

  @parameterized.parameters(0, 3)
  def test_discrepancy_of_the_ends(self, block_size):
    # E(x, y) = |x - y|^2 / 2, whose score is y - x; without a chain's move.
    energy = models.linear().replace(
      apply_fn=lambda params, x, y: 0.5 * jnp.sum((x - y) ** 2, -1)
    )
    x, y = np.float32(np.stack([models.points(), 0.1 * models.points()]))
    run = functools.partial(
      energies.run_chain,
      energy,
      samplers.Langevin(1.0, 0),
      jax.random.key(0),
      block_size=block_size,
    )
    kernel = kernels.IMQ(2.0)
    _, metrics = run(x, y, ksd=stein.KSD(kernel, max_points=5))
    u = literal.imq_stein_matrix(x[:5], (y - x)[:5], 2.0)
    expected = (u.sum() - np.trace(u)) / 5 / 4
    np.testing.assert_allclose(metrics['chain/ksd'], expected, rtol=1e-5)
    self.assertNotIn('chain/ksd', run(x, y)[1])

  def test_discrepancy_over_devices(self):
    energy, x = models.linear(), jnp.asarray(models.points(12), jnp.float32)
    run = lambda ksd, x, axis_name=None: energies.run_chain(
      energy,
      samplers.Langevin(1.0, 0),
      jax.random.key(0),
      x,
      ksd=ksd,
      axis_name=axis_name,
    )[1]['chain/ksd']
    ksd = stein.KSD(max_points=8)
    mapped = functools.partial(run, ksd, axis_name=_AXIS)
    split = jax.vmap(mapped, axis_name=_AXIS)(x.reshape(2, 6, 3))
    own = x.reshape(2, 6, 3)[:, :4].reshape(8, 3)  # four of each device
    np.testing.assert_allclose(split, [run(ksd, own)] * 2, rtol=1e-5)

  def test_discrepancy_of_an_energy_that_mixes_its_batch(self):
    x = models.images()
    with self.assertRaisesRegex(ValueError, 'ksd.max_points=4 .* mixes its'):
      energies.run_chain(
        models.energy('autoencoder'),
        samplers.Langevin(0.1),
        jax.random.key(0),
        x,
        ksd=stein.KSD(max_points=4),
      )

  @parameterized.parameters(
    (samplers.Langevin(0.0), 'chain.step_size=0.0 must be a positive'),
    (samplers.MALA(0.1, 0), 'chain.num_steps=0 must be at least 1'),
    (lambda rng, x, target: x, 'chain: The chain returns a .*; wanted: a pair'),
    (lambda rng, x, target: (x[:1], {}), r'moved has shape \(1, 3\); wanted'),
    (lambda rng, x, target: (x, 0.3), 'metrics .* are a float; wanted: a dict'),
    (
      lambda rng, x, target: (x, {'moves': x}),
      r"metrics\['moves'\] has shape \(7, 3\); wanted: \(\)",
    ),
  )
  def test_what_is_no_chain(self, chain, message):
    energy, *_ = models.rbm()
    with self.assertRaisesRegex(ValueError, message):
      energies.run_chain(
        energy, chain, jax.random.key(0), jnp.asarray(models.points())
      )

  @parameterized.parameters(
    (samplers.Langevin, 0, r'chain is the class.*Langevin\(step_size=...\)'),
    (3, 0, 'chain is the int 3; allowed: a chain, such as'),
    (samplers.Langevin(0.1), 0, 'rng is the int 0; allowed: a key'),
  )
  def test_what_is_no_chain_at_all(self, chain, rng, message):
    energy, *_ = models.rbm()
    points = jnp.asarray(models.points())
    with self.assertRaisesRegex(TypeError, message):
      energies.run_chain(energy, chain, rng, points)

  @parameterized.parameters(
    (stein.SVGD, r'direction is the class SVGD; .* such as SVGD\(\)'),
    ('SVGD', "direction is the str 'SVGD'; allowed: a direction, such as"),
  )
  def test_what_is_no_direction(self, rule, message):
    energy, *_ = models.rbm()
    with self.assertRaisesRegex(TypeError, message):
      energies.direction(energy, rule, jnp.asarray(models.points()))

  def test_any_function_is_a_chain(self):
    # E = a.x: half the way to where the score points, from 0, 1, ... on.
    def chain(rng, x, target):
      return x + target.score(x) / 2, {'start': jnp.mean(x)}

    run = lambda x: energies.run_chain(
      models.linear(), chain, jax.random.key(0), x, axis_name=_AXIS
    )
    x = jnp.arange(12.0).reshape(2, 2, 3)
    moved, metrics = jax.vmap(run, axis_name=_AXIS)(x)
    expected = np.arange(12).reshape(2, 2, 3) + [-0.25, 0.5, -0.125]
    np.testing.assert_allclose(moved, expected, rtol=1e-6)
    # The mean of 0, ..., 11 on every device, not of its own six.
    np.testing.assert_allclose(metrics['chain/start'], [5.5, 5.5], rtol=1e-6)

  def test_condition_reaches_the_energy(self):
    # E(x, y) = |x - y|^2 / 2 has score y - x, and p(x | y) = N(y, I).
    energy, *_ = models.rbm()
    energy = energy.replace(
      apply_fn=lambda params, x, y: 0.5 * jnp.sum((x - y) ** 2, -1)
    )
    y = jnp.full((4000, 3), 5.0)
    np.testing.assert_allclose(
      energies.score(energy, y + 1, y), -np.ones_like(y)
    )
    for chain in (samplers.Langevin(0.5, 60), samplers.MALA(0.5, 60)):
      sample = lambda rng: energies.sample_state(
        models.state(energy), rng, 4000, condition=y, chain=chain
      )
      x = jax.jit(sample)(jax.random.key(0))
      # Left of the start: 5 (1 - delta^2 / 2)^60 < 0.002; 4 / sqrt(12000) of noise,
      # times the spread of unadjusted Langevin, 1 / sqrt(1 - delta^2 / 4).
      self.assertAlmostEqual(jnp.mean(x), 5, delta=0.002 + 0.0365 * 1.04)

  def test_chains_of_bytes_move(self):
    energy = learners.create(
      jax.random.key(0), energies.MLP((3,)), optax.sgd(1.0), jnp.ones((2, 3))
    )
    x = np.array([[0, 1, 3], [2, 5, 250]], np.uint8)
    run = lambda x: energies.run_chain(
      energy, samplers.Langevin(0.1, 2), jax.random.key(1), x
    )[0]
    found, expected = run(x), run(x.astype(np.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


if __name__ == '__main__':
  absltest.main()
