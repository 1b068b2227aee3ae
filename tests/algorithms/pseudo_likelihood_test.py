"""Tests of pseudo-likelihood and ratio matching against sums over all states."""

import functools
import itertools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stein_jax import energies
from stein_jax import learners
from stein_jax import parallel
from stein_jax.algorithms import pseudo_likelihood
from tests import literal

_KEY = jax.random.key(0)
_STATES = np.array(list(itertools.product([0.0, 1.0], repeat=4)))
_OBJECTIVES = ('pseudo_likelihood', 'ratio_matching')
_RNG = np.random.default_rng(0)
_TRUTH = dict(
  weight=_RNG.normal(size=(4, 3)),
  bias=_RNG.normal(size=4),
  hidden_bias=_RNG.normal(size=3),
)


def _params(weight, bias, hidden_bias):
  dense = {'kernel': jnp.asarray(weight), 'bias': jnp.asarray(hidden_bias)}
  return {'params': {'Dense_0': dense, 'bias': jnp.asarray(bias)}}


def _energy(x, weight, bias, hidden_bias):
  """Returns E(x) [n] of the RBM in NumPy."""
  return -x @ bias - np.sum(np.log(1 + np.exp(x @ weight + hidden_bias)), 1)


def _law(**truth):
  """Returns the probabilities of all states [16]."""
  weights = np.exp(-_energy(_STATES, **truth))
  return weights / np.sum(weights)


def _conditionals(x, **truth):
  """Returns p(x_i | the others) [n, d], by the probabilities of all states."""
  index = (x @ [8, 4, 2, 1]).astype(int)
  law = _law(**truth)
  own = law[index]
  other = np.stack([law[index ^ (8 >> i)] for i in range(4)], 1)
  return own[:, None] / (own[:, None] + other)


def _literal_loss(objective, x, **truth):
  p = _conditionals(x, **truth)
  if objective == 'pseudo_likelihood':
    return -np.mean(np.sum(np.log(p), 1))
  return np.mean(np.sum((1 - p) ** 2, 1))


def _learner(x, module=None, **truth):
  """Returns a learner with these parameters; its rate is 1."""
  module = module or energies.BinaryRBM(num_hidden=3)
  learner = learners.create(_KEY, module, optax.sgd(1.0), jnp.asarray(x))
  return learner.replace(params=_params(**(_TRUTH | truth)))


def _plain(x):
  """Returns a learner of the same energy that has no method for its gaps."""
  return learners.wrap(
    energies.BinaryRBM(num_hidden=3).apply,
    _params(**_TRUTH),
    optax.sgd(1.0),
    jnp.asarray(x),
  )


def _state(energy):
  return pseudo_likelihood.State(jnp.zeros((), jnp.int32), energy)


def _loss_fn(objective, *args, **options):
  of = getattr(pseudo_likelihood, f'{objective}_objective')
  return of(*args, **options)


class ObjectiveTest(parameterized.TestCase):
  @parameterized.parameters(*_OBJECTIVES)
  def test_is_of_the_conditional_laws(self, objective):
    self.enter_context(jax.enable_x64(True))
    x = _STATES[[0, 3, 5, 5, 9, 14, 15]]
    expected = _literal_loss(objective, x, **_TRUTH)
    slopes = {}
    for name, value in _TRUTH.items():
      slopes[name] = np.zeros(value.shape)
      for place in np.ndindex(value.shape):
        step = np.zeros(value.shape)
        step[place] = 1e-5
        ends = [
          _literal_loss(objective, x, **(_TRUTH | {name: value + sign * step}))
          for sign in (1, -1)
        ]
        slopes[name][place] = (ends[0] - ends[1]) / 2e-5
    for energy in (_learner(x), _plain(x)):
      loss_fn = _loss_fn(objective, energy, jnp.asarray(x))
      loss, grads = jax.jit(jax.value_and_grad(loss_fn))(energy.params)
      self.assertAlmostEqual(loss, expected, places=12)
      found = grads['params']
      np.testing.assert_allclose(found['bias'], slopes['bias'], atol=1e-9)
      dense = found['Dense_0']
      np.testing.assert_allclose(dense['kernel'], slopes['weight'], atol=1e-9)
      np.testing.assert_allclose(
        dense['bias'], slopes['hidden_bias'], atol=1e-9
      )

  @parameterized.parameters(*_OBJECTIVES)
  def test_truth_is_the_optimum_of_the_population(self, objective):
    self.enter_context(jax.enable_x64(True))
    energy = _learner(_STATES)
    law = jnp.asarray(_law(**_TRUTH))

    @jax.jit
    def slope(params):
      def loss(params):
        each = lambda x: _loss_fn(objective, energy, x[None])(params)
        return law @ jax.vmap(each)(jnp.asarray(_STATES))

      grads = jax.grad(loss)(params)
      return jnp.concatenate([g.ravel() for g in jax.tree.leaves(grads)])

    self.assertLess(np.max(np.abs(slope(energy.params))), 1e-9)
    off = _params(**(_TRUTH | {'bias': _TRUTH['bias'] + 0.3}))
    self.assertGreater(np.max(np.abs(slope(off))), 1e-3)

  @parameterized.product(objective=_OBJECTIVES, num_units=[1, 3])
  def test_chosen_units_are_all_of_them_in_the_mean(self, objective, num_units):
    x = jnp.asarray(_STATES[[3, 9, 14]])
    energy = _learner(x)
    expected = _loss_fn(objective, energy, x)(energy.params)

    @jax.jit
    @jax.vmap
    def losses(rng):
      loss_fn = _loss_fn(objective, energy, x, rng, num_units=num_units)
      return loss_fn(energy.params)

    found = losses(jax.random.split(_KEY, 4000))
    error = np.std(found) / 4000**0.5
    self.assertLess(0, error)
    np.testing.assert_allclose(np.mean(found), expected, atol=4 * error)

  def test_gaps_in_one_go_and_one_by_one(self):
    # Images of more units than are taken at a time, of which some are chosen.
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.integers(0, 2, (5, 6, 6, 1)), jnp.float32)
    module = energies.BinaryRBM(num_hidden=7)
    energy = learners.create(_KEY, module, optax.sgd(1.0), x)
    index = jnp.asarray(rng.integers(0, 36, (4, 5)))
    grown = jax.tree.map(lambda leaf: 10 * leaf + 0.1, energy.params)

    @jax.jit
    def gaps(x, params):
      both = lambda *of: pseudo_likelihood.unit_gaps(energy, params, x, *of)
      return both(), both(index)

    every, some = gaps(x, grown)
    self.assertEqual(every.shape, (36, 5))
    np.testing.assert_allclose(
      some, np.take_along_axis(np.asarray(every), np.asarray(index), 0),
      rtol=1e-5, atol=1e-6,
    )  # fmt: skip
    own = module.apply(grown, x)
    for i in (0, 17, 35):
      flat = x.reshape(5, 36)
      other = flat.at[:, i].set(1 - flat[:, i]).reshape(x.shape)
      np.testing.assert_allclose(
        every[i], own - module.apply(grown, other), rtol=1e-4, atol=1e-5
      )

  def test_of_spins(self):
    """E = -J x_1 x_2 has p(x_i | other) = sigmoid(2 J x_1 x_2), in {-1, 1}."""
    coupling = 0.7
    energy = learners.wrap(
      lambda params, x: -params['coupling'] * x[:, 0] * x[:, 1],
      {'coupling': jnp.asarray(coupling)},
      optax.sgd(1.0),
      jnp.ones((1, 2)),
    )
    x = np.array([[1, 1], [1, -1], [-1, -1]])
    p = 1 / (1 + np.exp(-2 * coupling * x[:, 0] * x[:, 1]))
    found = [
      _loss_fn(objective, energy, x, states=(-1, 1))(energy.params)
      for objective in _OBJECTIVES
    ]
    expected = [-2 * np.mean(np.log(p)), 2 * np.mean((1 - p) ** 2)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)

  def test_gray_pixels(self):
    x = np.array([[0.0, 0.5, 1.0, 1.0]])
    energy = _learner(_STATES)
    message = (
      r'x has a unit that is 0.5; allowed: 0 and 1 alone, as data.binarize'
    )
    for objective in _OBJECTIVES:
      loss_fn = _loss_fn(objective, energy, x)
      with self.assertRaisesRegex(ValueError, message):
        loss_fn(energy.params)
      # Where they are traced nobody knows, and nothing is learned silently.
      traced = jax.jit(
        lambda x, of=objective: jax.value_and_grad(_loss_fn(of, energy, x))(
          energy.params
        )
      )
      self.assertTrue(np.isnan(traced(x)[0]))
      leaves = jax.tree.leaves(traced(x)[1])
      self.assertTrue(all(np.isnan(leaf).any() for leaf in leaves))
      # Integers, booleans and bytes that were scaled are binary.
      for binary in (
        x > 0.7,
        np.int8(x > 0.7),
        np.float32(x > 0.7) * (1 - 1e-7),
      ):
        self.assertTrue(
          np.isfinite(_loss_fn(objective, energy, binary)(energy.params))
        )


class StepTest(parameterized.TestCase):
  @parameterized.product(objective=_OBJECTIVES, mode=['shard_map'])
  def test_devices(self, objective, mode):
    self.check_devices(objective, mode)

  @parameterized.product(objective=_OBJECTIVES, mode=['pmap'])
  @pytest.mark.slow
  def test_pmap(self, objective, mode):
    self.check_devices(objective, mode)

  def check_devices(self, objective, mode):
    x = np.float32(_STATES[[0, 3, 5, 5, 9, 14, 15, 1]])

    def step(state, batch, rng, axis_name=None):
      return pseudo_likelihood.step(
        state, batch, rng, objective=objective, axis_name=axis_name
      )

    def run(mode):
      state = parallel.replicate(_state(_learner(x)))
      compiled = parallel.compile_step(step, mode)
      after, metrics = compiled(state, {'image': x}, _KEY)
      return after.energy.params, metrics

    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
      run(mode),
      run('jit'),
    )

  def test_chosen_units_on_devices(self):
    # Each device chooses for its own rows.
    x = np.float32(_STATES[[3, 3, 3, 3]])
    step = functools.partial(pseudo_likelihood.step, num_units=1)
    state = parallel.replicate(_state(_learner(x)))
    compiled = parallel.compile_step(step, 'shard_map')
    every = np.asarray(
      pseudo_likelihood.unit_gaps(_learner(x), _params(**_TRUTH), x[:1])
    )[:, 0]
    terms = 4 * np.log(1 + np.exp(every))
    _, metrics = compiled(state, {'image': x}, _KEY)
    means = np.mean(list(itertools.product(terms, repeat=4)), 1)
    self.assertLess(np.min(np.abs(means - metrics['energy/loss'])), 1e-4)
    alike = np.min(np.abs(terms - metrics['energy/loss']))
    self.assertGreater(alike, 1e-3)

  @parameterized.parameters(
    (dict(objective='pl'), "objective='pl'.*'ratio_matching'"),
    (dict(num_units=-1), 'num_units=-1 must be at least 0'),
    (dict(states=(1.0, 0.0)), r'states=\(1.0, 0.0\) must be two numbers'),
    (dict(states=(1.0,)), r'states=\(1.0,\) must be two numbers'),
    (dict(states=(0.0, np.nan)), r'states\[1\]=nan must be a finite'),
  )
  def test_refuses(self, hyper, message):
    x = _STATES[:3]
    with self.assertRaisesRegex(ValueError, message):
      pseudo_likelihood.step(_state(_learner(x)), {'image': x}, _KEY, **hyper)

  def test_refuses_energies_that_mix(self):
    x = np.round(literal.images()['image'] > 0)
    module = energies.Discriminator((2, 2))
    energy = learners.create(_KEY, module, optax.sgd(0.1), x)
    with self.assertRaisesRegex(ValueError, 'mixes its batch'):
      pseudo_likelihood.step(_state(energy), {'image': x}, _KEY)

  @parameterized.parameters(*_OBJECTIVES)
  def test_learning(self, objective):
    """From zero to the law of exact draws, by its likelihood."""
    index = np.random.default_rng(0).choice(16, 1000, p=_law(**_TRUTH))
    x = jnp.asarray(_STATES[index], jnp.float32)
    energy = _learner(x, weight=0.1 * _TRUTH['weight'], bias=np.zeros(4))
    adam = optax.adam(0.03)
    energy = energy.replace(tx=adam, opt_state=adam.init(energy.params))

    @jax.jit
    def train(state):
      step = lambda state, rng: (
        pseudo_likelihood.step(state, {'image': x}, rng, objective=objective)[
          0
        ],
        None,
      )
      return jax.lax.scan(step, state, jax.random.split(_KEY, 300))[0]

    params = train(_state(energy)).energy.params['params']
    found = dict(
      weight=np.asarray(params['Dense_0']['kernel']),
      bias=np.asarray(params['bias']),
      hidden_bias=np.asarray(params['Dense_0']['bias']),
    )
    of_truth, of_model, of_start = (
      np.mean(np.log(_law(**each))[index])
      for each in (_TRUTH, found, _TRUTH | {'bias': np.zeros(4)})
    )
    # Laws of 16 states have 15 numbers: 15 / 2n nats, times the price of the method.
    slack = 4 * 15 / (2 * 1000)
    self.assertGreater(of_model, of_truth - slack)
    self.assertLess(of_start, of_truth - slack)


if __name__ == '__main__':
  absltest.main()
