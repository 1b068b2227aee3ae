"""Tests that networks of any library learn as the same network in plain functions.

Each energy is w2 . tanh(x w1 + b1) + b2 + |x|^2 / 2 and each generator
tanh(z w1 + b1) w2 + b2 with z of a standard normal, so that a step of each has to be
that of the plain function from the same numbers.
"""

from absl.testing import absltest
from absl.testing import parameterized
import equinox as eqx
from flax import linen as nn
from flax import nnx
from flax.nnx import bridge
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stein_jax import generators
from stein_jax import learners
from stein_jax import samplers
from stein_jax import stein
from stein_jax.algorithms import amortized_svgd
from stein_jax.algorithms import contrastive_divergence
from stein_jax.algorithms import score_matching
from stein_jax.algorithms import stein_cd
from stein_jax.algorithms import steingan

_DIM, _WIDTH, _LATENT, _NUM = 3, 4, 2, 6


def _value(w1, b1, w2, b2, x):
  return jnp.tanh(x @ w1 + b1) @ w2[:, 0] + b2[0] + 0.5 * jnp.sum(x**2, 1)


def _drawn(w1, b1, w2, b2, rng, num):
  z = jax.random.normal(rng, (num, _LATENT))
  return jnp.tanh(z @ w1 + b1) @ w2 + b2


class _NnxEnergy(nnx.Module):
  def __init__(self, *, rngs):
    self.first = nnx.Linear(_DIM, _WIDTH, rngs=rngs)
    self.second = nnx.Linear(_WIDTH, 1, rngs=rngs)

  def __call__(self, x):
    y = self.second(nnx.tanh(self.first(x)))[:, 0]
    return y + 0.5 * jnp.sum(x**2, 1)


class _NnxGenerator(nnx.Module):
  def __init__(self, *, rngs):
    self.first = nnx.Linear(_LATENT, _WIDTH, rngs=rngs)
    self.second = nnx.Linear(_WIDTH, _DIM, rngs=rngs)

  def __call__(self, rng, num):
    z = jax.random.normal(rng, (num, _LATENT))
    return self.second(nnx.tanh(self.first(z)))


@hk.transform
def _haiku_energy(x):
  y = hk.Linear(1, name='second')(jnp.tanh(hk.Linear(_WIDTH, name='first')(x)))
  return y[:, 0] + 0.5 * jnp.sum(x**2, 1)


@hk.without_apply_rng
@hk.transform
def _haiku_generator(rng, num):
  z = jax.random.normal(rng, (num, _LATENT))
  hidden = jnp.tanh(hk.Linear(_WIDTH, name='first')(z))
  return hk.Linear(_DIM, name='second')(hidden)


def _equinox(inputs, outputs, call):
  """Returns the parameters and the function of an Equinox MLP."""
  model = eqx.nn.MLP(
    inputs, outputs, _WIDTH, 1, jnp.tanh, key=jax.random.key(3)
  )
  params, static = eqx.partition(model, eqx.is_inexact_array)
  function = lambda params, *inputs: call(
    jax.vmap(eqx.combine(params, static)), *inputs
  )
  return params, function


def _equinox_energy():
  return _equinox(_DIM, 1, lambda net, x: net(x)[:, 0] + 0.5 * jnp.sum(x**2, 1))


def _equinox_generator():
  draw = lambda rng, num: jax.random.normal(rng, (num, _LATENT))
  return _equinox(_LATENT, _DIM, lambda net, rng, num: net(draw(rng, num)))


def _nnx(module):
  """Returns the parameters and the function of an NNX module."""
  graph, params = nnx.split(module(rngs=nnx.Rngs(5)))
  function = lambda params, *inputs: nnx.merge(graph, params)(*inputs)
  return params, function


class _LinenEnergy(nn.Module):
  @nn.compact
  def __call__(self, x):
    y = nn.Dense(1, name='second')(nn.tanh(nn.Dense(_WIDTH, name='first')(x)))[
      :, 0
    ]
    return y + 0.5 * jnp.sum(x**2, 1)


class _LinenGenerator(nn.Module):
  @nn.compact
  def __call__(self, rng, num):
    z = jax.random.normal(rng, (num, _LATENT))
    return nn.Dense(_DIM, name='second')(
      nn.tanh(nn.Dense(_WIDTH, name='first')(z))
    )


# How each library's tree holds (w1, b1, w2, b2).
_OF_FLAX = lambda p: _named(p['params'], 'first', 'second', 'kernel')
_OF_HAIKU = lambda p: _named(p, 'first', 'second', 'w', 'b')
_OF_NNX = lambda p: _named(p, 'first', 'second', 'kernel')


def _named(params, first, second, weight, bias='bias'):
  leaf = lambda layer, name: jnp.asarray(params[layer][name][...])
  return tuple(
    leaf(layer, name) for layer in (first, second) for name in (weight, bias)
  )


def _of_equinox(params):
  first, second = params.layers
  return first.weight.T, first.bias, second.weight.T, second.bias


def _energy(library, x):
  """Returns a learner of the library's energy and its parameters' places."""
  rng, tx = jax.random.key(1), optax.sgd(0.1)
  wrapped = lambda params, function: learners.wrap(function, params, tx, x)
  return {
    'linen': lambda: (learners.create(rng, _LinenEnergy(), tx, x), _OF_FLAX),
    'bridge': lambda: (
      learners.create(rng, bridge.to_linen(_NnxEnergy), tx, x),
      _OF_FLAX,
    ),
    'haiku': lambda: (learners.create(rng, _haiku_energy, tx, x), _OF_HAIKU),
    'nnx': lambda: (wrapped(*_nnx(_NnxEnergy)), _OF_NNX),
    'equinox': lambda: (wrapped(*_equinox_energy()), _of_equinox),
  }[library]()


def _generator(library):
  """Returns a learner of the library's generator and its parameters' places."""
  rng, tx = jax.random.key(2), optax.sgd(0.1)
  create = lambda module: generators.create(rng, module, tx, _NUM)
  wrapped = lambda params, function: generators.wrap(function, params, tx, _NUM)
  return {
    'linen': lambda: (create(_LinenGenerator()), _OF_FLAX),
    'bridge': lambda: (create(bridge.to_linen(_NnxGenerator)), _OF_FLAX),
    'haiku': lambda: (create(_haiku_generator), _OF_HAIKU),
    'nnx': lambda: (wrapped(*_nnx(_NnxGenerator)), _OF_NNX),
    'equinox': lambda: (wrapped(*_equinox_generator()), _of_equinox),
  }[library]()


def _plain(learner, places, function, wrap):
  """Returns the learner of the plain function at another learner's parameters."""
  return wrap(
    lambda params, *inputs: function(*params, *inputs), places(learner.params)
  )


_ZERO = jnp.zeros((), jnp.int32)
_LIBRARIES = ('linen', 'bridge', 'haiku', 'nnx', 'equinox')


def _steps(energy):
  """Returns the state and the step of each algorithm that learns an energy alone."""
  chains = jnp.ones((_NUM, _DIM))
  cd, exact = contrastive_divergence, dict(objective='exact')
  return {
    'cd': (cd.State(_ZERO, energy, None), cd.step, _chain(0.1, 1)),
    'pcd': (cd.State(_ZERO, energy, chains), cd.step, _chain(0.2, 2)),
    'stein_cd': (stein_cd.State(_ZERO, energy), stein_cd.step, {}),
    'score_matching': (
      score_matching.State(_ZERO, energy),
      score_matching.step,
      exact,
    ),
  }


def _chain(step_size, num_steps):
  return dict(chain=samplers.MALA(step_size, num_steps))


def _stepped(state, step, options):
  batch = {'image': jax.random.normal(jax.random.key(7), (_NUM, _DIM))}
  run = jax.jit(lambda state: step(state, batch, jax.random.key(8), **options))
  return run(state)[0]


class LibrariesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    # Networks of others add rows to matrices, which our own code may not.
    self.enter_context(jax.numpy_rank_promotion('allow'))
    self.x = jnp.zeros((_NUM, _DIM))

  def assert_learned_alike(self, learner, places, plain, before):
    """Fails unless both have the same parameters, and all of them have moved."""
    for ours, hand, old in zip(
      places(learner.params), plain.params, places(before.params), strict=True
    ):
      np.testing.assert_allclose(ours, hand, rtol=1e-4, atol=1e-6)
      self.assertGreater(np.max(np.abs(np.subtract(ours, old))), 1e-6)

  def assert_energy_learned_alike(self, after, places, expected, before):
    # All but b2: a constant that is added to an energy has no gradient.
    first = lambda params: places(params)[:3]
    hand = expected.energy.replace(params=expected.energy.params[:3])
    self.assert_learned_alike(after.energy, first, hand, before)

  def plain_energy(self, learner, places):
    wrap = lambda function, params: learners.wrap(
      function, params, optax.sgd(0.1), self.x
    )
    return _plain(learner, places, _value, wrap)

  def plain_generator(self, learner, places):
    wrap = lambda function, params: generators.wrap(
      function, params, optax.sgd(0.1), _NUM
    )
    return _plain(learner, places, _drawn, wrap)

  @pytest.mark.slow
  @parameterized.product(
    library=_LIBRARIES, algorithm=('cd', 'pcd', 'stein_cd', 'score_matching')
  )
  def test_an_energy_learns_as_the_plain_function(self, library, algorithm):
    energy, places = _energy(library, self.x)
    plain = self.plain_energy(energy, places)
    after, expected = (
      _stepped(*_steps(each)[algorithm]) for each in (energy, plain)
    )
    self.assert_energy_learned_alike(after, places, expected, energy)

  @parameterized.parameters(*_LIBRARIES)
  def test_steingan_and_its_samples(self, library):
    energy, of_energy = _energy(library, self.x)
    generator, of_generator = _generator(library)
    ours = steingan.State(_ZERO, energy, generator, jnp.zeros(()), ())
    hand = ours._replace(
      energy=self.plain_energy(energy, of_energy),
      generator=self.plain_generator(generator, of_generator),
    )
    after, expected = (_stepped(s, steingan.step, {}) for s in (ours, hand))
    self.assert_learned_alike(
      after.generator, of_generator, expected.generator, generator
    )
    self.assert_energy_learned_alike(after, of_energy, expected, energy)
    draw = lambda state: steingan.sample(state, jax.random.key(9), 2 * _NUM + 1)
    np.testing.assert_allclose(draw(after), draw(expected), atol=1e-5)

  @parameterized.parameters(*_LIBRARIES)
  def test_amortized_svgd(self, library):
    generator, places = _generator(library)
    log_density = lambda x: -0.5 * jnp.sum((x - 3) ** 2)
    after, expected = (
      _stepped(
        amortized_svgd.create(log_density, each),
        amortized_svgd.step,
        dict(direction=stein.SVGD()),
      )
      for each in (generator, self.plain_generator(generator, places))
    )
    self.assert_learned_alike(
      after.generator, places, expected.generator, generator
    )


if __name__ == '__main__':
  absltest.main()
