"""Chains that begin at samples of a generator."""

import types

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from stein_jax import energies
from stein_jax import generators
from stein_jax import learners
from stein_jax import revision
from stein_jax import samplers
from tests import draws
from tests.generators import networks

_AXIS = 'batch'


class RevisionTest(parameterized.TestCase):
  def test_by_hand_alone_and_over_devices(self):
    start = networks.rows(8, 3, 2)
    revised = 3 + 2 * networks.rows(8, 3, 2, seed=1)
    expected = {
      'samples/revision': np.mean(
        np.sqrt(np.sum(np.square(revised - start), (1, 2)))
      ),
      'samples/variance': np.sum(np.var(revised, 0)),
    }
    shard = lambda x: x.reshape(4, 2, 3, 2)
    each = jax.vmap(
      lambda *x: revision.moved(*x, axis_name=_AXIS), axis_name=_AXIS
    )(shard(start), shard(revised))
    whole = revision.moved(start, revised)
    self.assertEqual(set(whole), set(expected))
    for name, value in expected.items():
      np.testing.assert_allclose(whole[name], value, rtol=1e-5)
      # Every shard says what the whole does.
      np.testing.assert_allclose(each[name], value, rtol=1e-5)

  @parameterized.parameters(False, True)
  def test_samples_are_drawn_then_led_down(self, conditional):
    state, condition = self.state(conditional)
    given = {'condition': condition} if conditional else {}
    chain = samplers.Langevin(0.5, 3, temperature=0.3, clip=(-1.5, 1.5))
    none = chain.replace(num_steps=0)
    rng = jax.random.key(5)
    self.enter_context(draws.fixed())

    @jax.jit
    def results():
      start = generators.sample(state.generator, rng, 11, **given)
      end, _ = energies.run_chain(
        state.energy,
        chain,
        rng,
        start,
        *given.values(),
        block_size=networks.SIZE,
      )
      few = {name: c[:3] for name, c in given.items()}
      return (
        start,
        end,
        (
          revision.sample(state, rng, 11, chain=none, **given),
          revision.sample(state, rng, 11, chain=chain, **given),
          revision.revise(state, rng, start, chain=chain, **given),
          revision.sample(state, rng, 3, chain=chain, **few),
        ),
      )

    start, end, (left, revised, after, fewer) = results()
    self.assertGreater(np.max(np.abs(end - start)), 0.1)
    np.testing.assert_array_equal(left, start)
    np.testing.assert_allclose(revised, end, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(after, end, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(fewer, end[:3], rtol=1e-6, atol=1e-6)

  @parameterized.parameters(False, True)
  def test_a_batch_of_an_energy_that_mixes_is_whole(self, conditional):
    # On a sum of |x - mean|^2 / 2 a step leads to the mean of a training batch.
    state, condition = self.state(conditional)
    apply = lambda params, x, *c, axis_name=None: (
      0.5 * jnp.sum((x - jnp.mean(x, 0, keepdims=True)) ** 2, 1)
    )
    state.energy = state.energy.replace(
      apply_fn=apply,
      module=learners.Function(apply),
      batch_size=networks.SIZE,
    )
    rng = jax.random.key(5)
    first = jnp.broadcast_to(condition[:1], (networks.SIZE, 2))
    chain = samplers.Langevin(2**0.5, noise=False)
    one, most = (
      revision.sample(
        state,
        rng,
        num,
        condition=first[:num] if conditional else None,
        chain=chain,
      )
      for num in (1, networks.SIZE)
    )
    np.testing.assert_allclose(one, most[:1], rtol=1e-5, atol=1e-6)
    start = revision.sample(
      state,
      rng,
      networks.SIZE,
      condition=first if conditional else None,
      chain=chain.replace(num_steps=0),
    )
    mean = np.broadcast_to(np.mean(start, 0), most.shape)
    np.testing.assert_allclose(most, mean, rtol=1e-5, atol=1e-5)

  def test_without_noise(self):
    # On E = |x|^2 / 2 a step of 0.2 multiplies by 1 - 0.02.
    state, _ = self.state(False)
    chain = samplers.Langevin(0.2, 15, noise=False)
    revised = revision.revise(
      state, jax.random.key(0), jnp.ones((2, 7)), chain=chain
    )
    np.testing.assert_allclose(revised, 0.98**15, rtol=1e-5)

  def test_the_default_chain_is_that_of_the_paper(self):
    # X21 makes fifteen steps of 0.002, with noise.
    state, _ = self.state(False)
    rng, x = jax.random.key(0), jnp.ones((2, 7))
    found = revision.revise(state, rng, x)
    chain = samplers.Langevin(0.002, 15)
    expected = revision.revise(state, rng, x, chain=chain)
    np.testing.assert_array_equal(found, expected)
    self.assertGreater(np.max(np.abs(found - x)), 0.001)

  def state(self, conditional):
    """Returns a state whose energy is |x - c|^2 / 2, and c for eleven samples."""
    condition = jnp.arange(22.0).reshape(11, 2) / 22
    generator = (
      networks.beside(condition[: networks.SIZE])
      if conditional
      else networks.create(networks.Plain('normal'))
    )
    energy = networks.create(generators.MLP(widths=())).replace(
      apply_fn=lambda params, x, *c: (
        0.5
        * jnp.sum((x - sum(jnp.sum(y, 1, keepdims=True) for y in c)) ** 2, 1)
      )
    )
    return types.SimpleNamespace(energy=energy, generator=generator), condition


if __name__ == '__main__':
  absltest.main()
