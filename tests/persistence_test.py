"""Chains that a generator begins and that go on from step to step."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import chex
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
import optax

from stein_jax import energies
from stein_jax import generators
from stein_jax import parallel
from stein_jax import samplers
from stein_jax import stein
from stein_jax.algorithms import steingan
from stein_jax.algorithms import vae_teaching
from tests import literal

# Of the energy, a normal law of variance 1, and of the generator.
MEAN, SHIFT, SCALE = np.array([0.3, -0.2]), np.array([1.0, 2.0]), 2.0
_RATE = optax.sgd(0.1)
_ALGORITHMS = {
  vae_teaching: {},
  steingan: dict(direction=stein.Score()),
}


def begin(algorithm, chains, optimizer=_RATE, size=8):
  """Returns a state of that energy and generator, which keeps these chains."""
  energy = literal.quadratic(MEAN, 0.0, optimizer=optimizer)
  generator = literal.linear(SCALE, SHIFT, optimizer=optimizer, batch_size=size)
  if algorithm is steingan:
    state = literal.steingan_state(energy, generator)
  else:
    state = algorithm.State(jnp.zeros((), jnp.int32), energy, generator)
  return state._replace(chains=chains)


def run(algorithm, chain, **hyper):
  """Returns the algorithm's step with these options."""
  options = _ALGORITHMS[algorithm] | dict(chain=chain) | hyper
  return functools.partial(algorithm.step, **options)


def config(num_chains, *, images):
  """Returns a config of small networks."""
  mlp = dict(name='MLP', widths=(3,))
  return ConfigDict(
    dict(
      energy=literal.CONV_NET if images else mlp,
      energy_optimizer=literal.SGD,
      generator=literal.VAE_NETWORK if images else dict(mlp, dim=2),
      generator_optimizer=literal.SGD,
      num_chains=num_chains,
      step={},
    )
  )


class ContinuedTest(parameterized.TestCase):
  def test_who_begins_where(self):
    chains, afresh = jnp.arange(10.0), 100 + jnp.arange(4.0)

    def once(rng, restart):
      start, keep = energies.continued(
        *jax.random.split(rng), chains, afresh, restart=restart
      )
      return start, keep(1000 + start)

    many = jax.jit(jax.vmap(once, in_axes=(0, None)))
    keys = jax.random.split(jax.random.key(0), 1000)
    start, after = map(np.asarray, many(keys, 0.3))
    fresh = start >= 100
    np.testing.assert_array_equal(start[fresh] % 100, np.nonzero(fresh)[1])
    for begun, kept in zip(start, after, strict=True):
      # Each goes back to one row, those that go on to their own.
      self.assertLen(set(begun), 4)
      self.assertEqual(set(kept[kept >= 1000]), set(1000 + begun))
      for old in begun[begun < 100]:
        self.assertEqual(kept[int(old)], 1000 + old)
      np.testing.assert_array_equal(
        kept[kept < 1000], np.nonzero(kept < 1000)[0]
      )
    # Four standard errors of 4,000 draws, and of each row's 1,000.
    self.assertAlmostEqual(fresh.mean(), 0.3, delta=4 * (0.21 / 4000) ** 0.5)
    drawn = (after >= 1000).mean(0)
    np.testing.assert_allclose(drawn, 0.4, atol=4 * (0.24 / 1000) ** 0.5)
    self.assertTrue(np.all(np.asarray(many(keys, 1.0)[0]) >= 100))
    self.assertTrue(np.all(np.asarray(many(keys, 0.0)[0]) < 100))

  def test_without_chains_nothing_is_kept(self):
    start, keep = energies.continued(None, None, None, jnp.ones(3))
    np.testing.assert_array_equal(start, 1)
    self.assertIsNone(keep(start))

  @parameterized.parameters(
    (3, -0.1, 'restart=-0.1'),
    (3, 1.1, 'restart=1.1'),
    (2, 0.1, '2 chains for 3'),
  )
  def test_refusals(self, num, restart, message):
    keys = jax.random.split(jax.random.key(0))
    with self.assertRaisesRegex(ValueError, message):
      energies.continued(*keys, jnp.ones(num), jnp.ones(3), restart=restart)


class StepTest(parameterized.TestCase):
  @parameterized.parameters(*_ALGORITHMS)
  def test_the_law_is_a_mixture_over_ages(self, algorithm):
    # A step is y' = r y + delta xi about the mean, whose variance rests at V. The
    # second moment of the generator's samples, S, is left in a share r^(2 k n) after
    # n uses, and n is geometric: V + p r^2k (S - V) / (1 - (1 - p) r^2k).
    delta, num_steps, p, size, rows = 0.4, 3, 0.05, 500, 1000
    r = 1 - delta**2 / 2
    rest, start = delta**2 / (1 - r**2), SCALE**2 + (SHIFT - MEAN) ** 2
    once = r ** (2 * num_steps)
    expected = rest + p * once * (start - rest) / (1 - (1 - p) * once)
    chains = SHIFT + SCALE * np.random.default_rng(0).normal(size=(rows, 2))
    state = begin(algorithm, jnp.float32(chains), optax.sgd(0.0), size)
    data = jnp.zeros((400, size, 2))
    step = run(algorithm, samplers.Langevin(delta, num_steps), restart=p)
    _, path = literal.learned(step, state, data, jax.random.key(0))
    # The mean energy is half of the two second moments.
    found = np.mean(path[1]['energy/samples'][100:])
    # 150,000 uses, of which a seventh or so are independent: 1 % is six errors.
    np.testing.assert_allclose(found, expected.sum() / 2, rtol=0.015)
    # What always begins anew, or never, is far from it.
    for other in rest + once * (start - rest), np.full(2, rest):
      self.assertGreater(abs(other.sum() / 2 / found - 1), 0.2)

  @parameterized.parameters(*_ALGORITHMS)
  def test_to_begin_anew_each_time_is_to_keep_none(self, algorithm):
    step = run(algorithm, samplers.Langevin(0.5, 2, noise=False), restart=1.0)
    batch, rng = {'image': literal.normal(8)}, jax.random.key(0)
    chains = jnp.full((20, 2), 99.0)
    after, metrics = jax.jit(step)(begin(algorithm, chains), batch, rng)
    alone, expected = jax.jit(step)(begin(algorithm, None), batch, rng)
    self.assertIsNone(alone.chains)
    close = functools.partial(chex.assert_trees_all_close, rtol=1e-5, atol=1e-6)
    close(after._replace(chains=None), alone)
    close(metrics, expected)
    moved = np.asarray(after.chains)
    moved = moved[moved[:, 0] != 99]
    self.assertLen(moved, 8)
    self.assertAlmostEqual(
      np.mean(np.sum((moved - MEAN) ** 2, 1)) / 2,
      float(metrics['energy/samples']),
      4,
    )

  @parameterized.product(
    algorithm=list(_ALGORITHMS), mode=['jit', 'pmap', 'shard_map']
  )
  def test_chains_go_on_on_every_device(self, algorithm, mode):
    # Each step halves the way to the mean; the generator is not asked.
    chain = samplers.Langevin(1.0, 2, noise=False)
    chains = np.random.default_rng(1).normal(0, 3, (8, 2)).astype(np.float32)
    state = begin(algorithm, jnp.array(chains))
    spec = parallel.partition(state, algorithm.SPLIT)
    step = parallel.compile_step(
      run(algorithm, chain, restart=0.0), mode, spec=spec
    )
    data = literal.normal(8)
    after, metrics = step(
      parallel.replicate(state, spec), {'image': data}, jax.random.key(0)
    )
    ends = MEAN + (chains - MEAN) / 4
    np.testing.assert_allclose(after.chains, ends, rtol=1e-5, atol=1e-6)
    self.assertAlmostEqual(
      float(metrics['energy/samples']),
      np.mean(np.sum((ends - MEAN) ** 2, 1)) / 2,
      5,
    )
    # E falls at the data and rises at the ends: dE/dmean = mean - x.
    change = after.energy.params['params']['mean'] - MEAN
    expected = 0.1 * (data.mean(0) - ends.mean(0))
    np.testing.assert_allclose(change, expected, rtol=1e-4, atol=1e-6)

  def test_the_generator_of_steingan_moves_where_it_did(self):
    batch, rng = {'image': literal.normal(8)}, jax.random.key(0)
    state = begin(steingan, None)
    chain = samplers.Langevin(1.0, 1, noise=False)
    plain, metrics = jax.jit(run(steingan, chain.replace(num_steps=0)))(
      state, batch, rng
    )
    self.assertNotIn('chain/move', metrics)
    for negatives in 'before', 'fresh':
      step = run(steingan, chain, negatives=negatives)
      after, found = jax.jit(step)(state, batch, rng)
      chex.assert_trees_all_close(
        after.generator.params, plain.generator.params, rtol=1e-6
      )
      self.assertIn('chain/move', found)
      if negatives == 'before':
        # Half the way to the mean leaves a fourth of the energy.
        self.assertAlmostEqual(
          float(found['energy/samples']),
          float(metrics['energy/samples']) / 4,
          4,
        )

  def test_refusals(self):
    batch, rng = {'image': literal.normal(8)}, jax.random.key(0)
    chain = samplers.Langevin(0.1)
    kept, few = (begin(steingan, jnp.ones((num, 2))) for num in (8, 7))
    still = run(steingan, chain.replace(num_steps=0))
    cases = [
      (
        begin(algorithm, None),
        run(algorithm, chain, restart=2.0),
        'restart=2.0',
      )
      for algorithm in _ALGORITHMS
    ]
    cases.append((kept, still, 'chain.num_steps=0'))
    cases.append((few, run(steingan, chain), '7 chains for 8'))
    for state, step, message in cases:
      with self.assertRaisesRegex(ValueError, message):
        jax.eval_shape(step, state, batch, rng)

  def test_an_energy_that_mixes_has_data_apart(self):
    data = np.float32(np.random.default_rng(0).normal(size=(8, 2, 2, 1)))
    state = literal.steingan_state(
      literal.encoder(8, (2, 2, 1), norm=True),
      literal.fixed_generator(8, (2, 2, 1), norm=True),
    )
    step = run(steingan, samplers.Langevin(0.1))
    go = lambda **options: jax.eval_shape(
      functools.partial(step, **options),
      state,
      {'image': data},
      jax.random.key(0),
    )
    with self.assertRaisesRegex(ValueError, 'allowed: joint=False, or chain.'):
      go()
    self.assertIn('chain/move', go(joint=False)[1])


class InitTest(parameterized.TestCase):
  @parameterized.product(algorithm=list(_ALGORITHMS), num=[0, 4, 30])
  def test_first_chains_are_the_generators(self, algorithm, num):
    images = algorithm is vae_teaching
    batch = literal.images(4) if images else {'image': jnp.zeros((4, 2))}
    state = algorithm.init(jax.random.key(0), config(num, images=images), batch)
    if not num:
      self.assertIsNone(state.chains)
      return
    chains = np.asarray(state.chains)
    self.assertEqual(chains.shape, (num, *batch['image'].shape[1:]))
    self.assertLen(np.unique(chains.reshape(num, -1), axis=0), num)
    samples = generators.sample(state.generator, jax.random.key(1), 500)
    # Moments of both, in standard errors of the fewer.
    error = np.std(samples, 0) / num**0.5
    gap = np.abs(chains.mean(0) - np.mean(samples, 0))
    self.assertTrue(np.all(gap < 5 * error + 1e-6))

  @parameterized.parameters(
    (3, False, 'num_chains=3 must be 0 or at least batch_size=4'),
    (-1, False, 'num_chains=-1 must be at least 0'),
    (4, True, 'num_chains=4 needs data without conditions.*allowed: 0'),
  )
  def test_bad_numbers_of_chains(self, num, conditional, message):
    fields = config(num, images=True)
    if conditional:
      fields.generator = ConfigDict(literal.IMAGE_TO_IMAGE)
    with self.assertRaisesRegex(ValueError, message):
      vae_teaching.init(
        jax.random.key(0), fields, literal.images(4, conditional)
      )


if __name__ == '__main__':
  absltest.main()
