"""Chains of units of two values, against transition matrices written out."""

import itertools

from absl.testing import absltest
from absl.testing import parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from stein_jax import build
from stein_jax import energies
from stein_jax import learners
from stein_jax import samplers
from tests.energies import models

_NUM = 4000  # chains from each state
_SPINS = (-1.0, 1.0)
_BITS = (0.0, 1.0)


def states(d, values):
  """Returns all points [2^d, d] of units with these values."""
  return np.array(list(itertools.product(values, repeat=d)))


def ising(d=5, scale=0.6):
  """Returns an Ising learner, E [2^d] and dE/dx [2^d, d] of all states by hand."""
  rng = np.random.default_rng(0)
  coupling = np.triu(scale * rng.normal(size=(d, d)), 1)
  coupling, field = coupling + coupling.T, scale * rng.normal(size=d)
  x = states(d, _SPINS)
  energy = learners.create(
    jax.random.key(0), energies.Ising(), optax.sgd(1.0), jnp.asarray(x)
  )
  params = {'params': {'coupling': coupling, 'field': field}}
  energy = energy.replace(params=jax.tree.map(jnp.float32, params))
  return (
    energy,
    -0.5 * np.sum(x @ coupling * x, 1) - x @ field,
    -x @ coupling - field,
  )


def binary_rbm(scale=1.5):
  """Returns a 4-3 learner, E [16] and dE/dx [16, 4] of all states by hand."""
  rng = np.random.default_rng(1)
  weight, bias, hidden_bias = (
    scale * rng.normal(size=shape) for shape in ((4, 3), 4, 3)
  )
  x = states(4, _BITS)
  energy = learners.create(
    jax.random.key(0), energies.BinaryRBM(3), optax.sgd(1.0), jnp.asarray(x)
  )
  dense = {'kernel': weight, 'bias': hidden_bias}
  params = {'params': {'bias': bias, 'Dense_0': dense}}
  energy = energy.replace(params=jax.tree.map(jnp.float32, params))
  logits = x @ weight + hidden_bias
  value = -x @ bias - np.sum(np.log(1 + np.exp(logits)), 1)
  return energy, value, -bias - (1 / (1 + np.exp(-logits))) @ weight.T


def law(value):
  """Returns p [k] of the states with energies [k]."""
  weight = np.exp(-value)
  return weight / weight.sum()


def proposals(x, slope, delta=None):
  """Returns q(y | x) [k, k] for all pairs of states.

  A unit is chosen where there is no delta, and all are tossed where there is one.
  """
  k, d = x.shape
  q = np.zeros((k, k))
  for a, b in itertools.product(range(k), repeat=2):
    change = x[b] - x[a]
    if delta is None:
      if np.count_nonzero(change) == 1:
        (i,) = np.flatnonzero(change)
        # What each unit's change would add to -E, halved.
        others = x[:, i].min() + x[:, i].max() - x[a]
        weights = np.exp(-0.5 * (others - x[a]) * slope[a])
        q[a, b] = weights[i] / weights.sum()
      continue
    # Langevin's proposal in every unit, over its two values.
    step = lambda y: np.exp(
      -((y - x[a] + 0.5 * delta**2 * slope[a]) ** 2) / (2 * delta**2)
    )
    total = sum(step(np.full(d, value)) for value in np.unique(x))
    q[a, b] = np.prod(step(x[b]) / total)
  return q


def metropolis(q, value):
  """Returns the transition matrix [k, k] of proposals that are accepted or not."""
  ratio = np.exp(value[:, None] - value[None]) * q.T / np.where(q > 0, q, 1)
  matrix = q * np.minimum(ratio, 1)
  return matrix + np.diag(1 - matrix.sum(1))


def stationary(matrix):
  """Returns the law [k] that a transition matrix [k, k] keeps."""
  return np.linalg.matrix_power(matrix, 2**14)[0]


def distance(p, q):
  """Returns the total variation of two laws."""
  return 0.5 * np.abs(p - q).sum()


def counts(x, all_states):
  """Returns how often each state [k, d] is among points [n, d], as shares [k]."""
  equal = np.all(x[:, None] == all_states[None], -1)
  assert np.all(equal.sum(1) == 1)
  return equal.mean(0)


class TransitionsTest(parameterized.TestCase):
  @parameterized.named_parameters(
    ('gibbs_ising', ising, samplers.GibbsWithGradients(values=_SPINS), True),
    ('gibbs_rbm', binary_rbm, samplers.GibbsWithGradients(), True),
    ('ising', ising, samplers.DiscreteLangevin(1.6, values=_SPINS), True),
    ('rbm', binary_rbm, samplers.DiscreteLangevin(0.8), True),
    (
      'unadjusted_ising',
      ising,
      samplers.DiscreteLangevin(1.6, values=_SPINS, accept=False),
      False,
    ),
    (
      'unadjusted_rbm',
      binary_rbm,
      samplers.DiscreteLangevin(0.8, accept=False),
      False,
    ),
  )
  def test_one_step_is_the_transition_matrix(self, make, chain, accepts):
    energy, value, slope = make()
    x = states(slope.shape[1], chain.values)
    matrix = q = proposals(x, slope, getattr(chain, 'step_size', None))
    np.testing.assert_allclose(q.sum(1), 1, rtol=1e-12)
    if accepts:
      matrix, p = metropolis(q, value), law(value)
      flow = p[:, None] * matrix
      np.testing.assert_allclose(flow, flow.T, atol=1e-15)  # detailed balance
    start = jnp.asarray(np.repeat(x, _NUM, 0), jnp.float32)
    run = jax.jit(
      lambda x: chain(jax.random.key(0), x, energies.target(energy))
    )
    moved, metrics = run(start)
    shares = np.array(
      [counts(each, x) for each in np.split(np.asarray(moved), len(x))]
    )
    # Of 1,024 shares none is five standard errors off, and where one is rare its
    # count is.
    error = np.sqrt(matrix * (1 - matrix) / _NUM)
    self.assertTrue(np.all(np.abs(shares - matrix) < 5 * error + 8 / _NUM))
    if accepts:
      expected = np.sum(q * np.minimum(1, matrix / np.where(q > 0, q, 1)), 1)
      expected = expected.mean()  # the starts are all states alike
      error = 0.5 / len(start) ** 0.5
      self.assertAlmostEqual(
        float(metrics['acceptance']), expected, delta=5 * error
      )
    else:
      self.assertEqual(metrics, {})

  def test_law_of_the_chain_without_an_accept_step(self):
    (energy, value, slope), num = binary_rbm(), 20_000
    x, p = states(4, _BITS), law(value)
    matrix = proposals(x, slope, 1.0)
    expected = stationary(matrix)
    # A step of the size of the values has a law of its own, and small ones have p.
    self.assertGreater(distance(expected, p), 0.05)
    biases = [
      distance(stationary(proposals(x, slope, delta)), p)
      for delta in (0.5, 0.3)
    ]
    self.assertLess(biases[1], biases[0])
    self.assertLess(biases[1], 0.05)
    steps = 30
    self.assertLess(
      distance(p @ np.linalg.matrix_power(matrix, steps), expected), 1e-3
    )
    start = jnp.asarray(x[np.random.default_rng(0).choice(16, num, p=p)])
    target = energies.target(energy)
    for chain, wanted in (
      (samplers.DiscreteLangevin(1.0, steps, accept=False), expected),
      (samplers.DiscreteLangevin(1.0, steps), p),
    ):
      moved = jax.jit(lambda x: chain(jax.random.key(1), x, target)[0])(start)
      # Sixteen shares of 20,000 chains are off by a standard error of 0.0015 or so.
      self.assertLess(distance(counts(np.asarray(moved), x), wanted), 0.02)

  def test_one_unit_is_metropolis(self):
    # Proposals are always the other value: p(1) / p(0) = 1 / 4 is accepted.
    target = samplers.target(lambda x: -np.log(4) * x[:, 0])
    x, metrics = samplers.GibbsWithGradients()(
      jax.random.key(0), jnp.zeros((_NUM, 1)), target
    )
    for found in (x.mean(), metrics['acceptance']):
      self.assertAlmostEqual(float(found), 0.25, delta=5 * (0.19 / _NUM) ** 0.5)

  def test_flatter_laws_of_parallel_tempering(self):
    # Two states of aligned spins, 8 apart in log p from all between.
    target = samplers.target(lambda x: jnp.abs(jnp.sum(x, -1)) ** 2 / 2)
    chain = samplers.Tempered(
      samplers.GibbsWithGradients(4, values=_SPINS), (1, 0.5, 0.25, 0.1), 40
    )
    start = jnp.ones((500, 4))
    run = jax.jit(lambda x: chain(jax.random.key(0), x, target)[0])
    # Five standard errors of 500 chains.
    self.assertAlmostEqual(float(jnp.mean(run(start))), 0, delta=0.22)


_CHAINS = (
  samplers.GibbsWithGradients(3),
  samplers.DiscreteLangevin(1.0, 3),
  samplers.DiscreteLangevin(1.0, 3, accept=False),
)


class DoorsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.target = samplers.target(
      lambda x: sum(
        jnp.sum(leaf.reshape(len(leaf), -1), 1) for leaf in jax.tree.leaves(x)
      )
    )

  @parameterized.product(chain=_CHAINS[:2], dtype=[np.bool_, jnp.bfloat16])
  def test_dtypes(self, chain, dtype):
    x = np.random.default_rng(0).integers(0, 2, (6, 2, 3))
    expected = chain(jax.random.key(0), np.float32(x), self.target)
    found = chain(jax.random.key(0), x.astype(dtype), self.target)
    chex.assert_trees_all_equal(jax.tree.map(np.float32, found), expected)
    kept = dtype if dtype != np.bool_ else np.float32
    self.assertEqual(found[0].dtype, kept)

  @parameterized.parameters(*_CHAINS[::2])
  def test_double_precision_and_values_that_are_rounded(self, chain):
    with jax.enable_x64(True):
      chain = chain.replace(values=(0.1, 0.7))
      for dtype in (np.float64, np.float16):
        low, high = np.array((0.1, 0.7), dtype)
        x, _ = chain(jax.random.key(0), np.full((50, 3), low), self.target)
        self.assertEqual(x.dtype, dtype)
        self.assertEqual(set(np.unique(x)), {low, high})

  @parameterized.parameters(*_CHAINS[::2])
  def test_trees_and_vmap(self, chain):
    x = {'a': jnp.zeros((5, 2, 2)), 'b': jnp.ones(5)}
    run = lambda rng: chain(rng, x, self.target)
    keys = jax.random.split(jax.random.key(0), 3)
    alone = [run(key) for key in keys]
    found = jax.jit(jax.vmap(run))(keys)
    chex.assert_trees_all_equal(
      found, jax.tree.map(lambda *each: jnp.stack(each), *alone)
    )
    chex.assert_trees_all_equal_shapes(alone[0][0], x)

  @parameterized.parameters(*_CHAINS)
  def test_over_devices(self, chain):
    x = jnp.asarray(
      np.random.default_rng(0).integers(0, 2, (8, 3)), jnp.float32
    )
    run = lambda x: chain(jax.random.key(0), x, self.target)[0]
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ('i',))
    spec = jax.sharding.PartitionSpec('i')
    found = jax.jit(
      jax.shard_map(run, mesh=mesh, in_specs=spec, out_specs=spec)
    )(x)
    np.testing.assert_array_equal(
      found, jnp.concatenate([run(x[i : i + 2]) for i in (0, 2, 4, 6)])
    )

  def test_a_config_names_them(self):
    for chain in (_CHAINS[0], _CHAINS[1]):
      section = {k: v for k, v in vars(chain).items()}
      built = build.build(samplers, name=type(chain).__name__, **section)
      self.assertEqual(built, chain)

  def test_step_sizes_under_vmap(self):
    x = jnp.zeros((4, 6))
    run = lambda delta: samplers.DiscreteLangevin(delta, 5)(
      jax.random.key(0), x, self.target
    )[0]
    sizes = jnp.array([0.5, 1.0, 2.0])
    np.testing.assert_array_equal(
      jax.jit(jax.vmap(run))(sizes), np.stack([run(size) for size in sizes])
    )

  @parameterized.parameters(*_CHAINS)
  def test_logits_far_from_zero(self, chain):
    # Every unit is 1 with certainty: exp of these overflows.
    target = samplers.target(lambda x: 1e4 * jnp.sum(x, -1))
    x = jnp.ones((4, 3)).at[0].set(0)
    moved, _ = chain(jax.random.key(0), x, target)
    np.testing.assert_array_equal(moved, 1)

  @parameterized.parameters(*_CHAINS)
  def test_nan_stays(self, chain):
    x = jnp.zeros((3, 4)).at[1, 2].set(jnp.nan)
    moved, _ = chain(jax.random.key(0), x, self.target)
    self.assertTrue(np.isnan(moved[1, 2]))
    self.assertTrue(np.all(np.isfinite(moved[::2])))
    # An energy that is no number, and one whose slope alone is none.
    for log_density in (
      lambda x: jnp.sum(jnp.nan * x, -1),
      lambda x: jnp.sum(jnp.sqrt(x * 0), -1),
    ):
      moved, _ = chain(
        jax.random.key(0), jnp.zeros((3, 4)), samplers.target(log_density)
      )
      self.assertTrue(np.all(np.isnan(moved)))

  @parameterized.parameters(*_CHAINS)
  def test_other_values_are_refused_or_end_as_nan(self, chain):
    x = jnp.array([[0.0, 1.0], [0.0, 0.5]])
    call = lambda x: chain(jax.random.key(0), x, self.target)[0]
    with self.assertRaisesRegex(
      ValueError, r'unit of 0.5, and values=\(0.0, 1.0\)'
    ):
      call(x)
    found = np.isnan(jax.jit(call)(x))
    self.assertFalse(found[0].any())
    self.assertTrue(found[1, 1])

  @parameterized.parameters(*_CHAINS)
  def test_what_is_out_of_range_is_refused(self, chain):
    x, rng = jnp.zeros((2, 3)), jax.random.key(0)
    for changes, message in (
      (dict(num_steps=0), 'num_steps=0'),
      (dict(values=(1, 0)), r'values=\(1, 0\) must be two numbers, the lower'),
      (dict(values=(0, 1, 2)), 'must be two numbers'),
      (dict(values=1.0), 'values=1.0 must be two numbers'),
      (dict(values=(0, np.inf)), r'values\[1\]=inf'),
    ):
      with self.assertRaisesRegex(ValueError, message):
        chain.replace(**changes)(rng, x, self.target)
    with self.assertRaisesRegex(TypeError, 'rng is the int 0; allowed: a key'):
      chain(0, x, self.target)
    with self.assertRaisesRegex(
      TypeError, 'target is a function.*a target, such'
    ):
      chain(rng, x, lambda x: x)
    with self.assertRaisesRegex(ValueError, 'there is no chain'):
      chain(rng, x[:0], self.target)
    if hasattr(chain, 'step_size'):
      for changes, message in (
        (dict(step_size=-1.0), 'step_size=-1.0'),
        (dict(accept=1), 'accept=1 must be True or False'),
      ):
        with self.assertRaisesRegex(ValueError, message):
          chain.replace(**changes)(rng, x, self.target)


class SamplesTest(parameterized.TestCase):
  def test_samples_of_a_state_begin_at_units(self):
    energy, value, _ = ising(4)
    state = models.state(energy)
    gibbs = samplers.GibbsWithGradients(40, _SPINS)
    sample = jax.jit(
      lambda rng, num, chain: energies.sample_state(
        state, rng, num, chain=chain
      ),
      static_argnums=1,
    )
    x = np.asarray(sample(jax.random.key(0), 8000, gibbs))
    # Sixteen shares of 8,000 chains are off by 0.003 or so.
    self.assertLess(distance(counts(x, states(4, _SPINS)), law(value)), 0.03)
    tempered = samplers.Tempered(gibbs.replace(num_steps=1), num_rounds=2)
    for chain in (tempered, samplers.DiscreteLangevin(1.6, values=_SPINS)):
      x = np.asarray(sample(jax.random.key(0), 20, chain))
      self.assertEqual(set(np.unique(x)), {-1.0, 1.0})

  def test_starts_are_even(self):
    for chain in (
      samplers.GibbsWithGradients(values=_SPINS),
      samplers.DiscreteLangevin(1.0, values=_SPINS),
    ):
      x = chain.start(jax.random.key(0), (100, 100))
      self.assertEqual(set(np.unique(x)), {-1.0, 1.0})
      self.assertAlmostEqual(float(x.mean()), 0, delta=0.05)


if __name__ == '__main__':
  absltest.main()
