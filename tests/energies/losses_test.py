"""Losses of energies by hand, in a batch and over devices."""

import functools
import itertools

from absl.testing import absltest
from absl.testing import parameterized
import chex
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
import numpy as np

from stein_jax import energies
from stein_jax import learners
from stein_jax import parallel
from tests.energies import models

_AXIS = 'batch'


class ContrastTest(parameterized.TestCase):
  @parameterized.parameters(1.0, 0.3)
  def test_contrast_gradient_by_hand(self, weight):
    energy, _, matrix, c = models.rbm()
    data = models.points(4)
    samples = models.points(7)[4:] + 1  # unequal in number
    loss = energies.contrast(
      energy, jnp.asarray(data), jnp.asarray(samples), negative_weight=weight
    )
    gradient, metrics = jax.grad(loss, has_aux=True)(energy.params)

    def expectations(x):  # -dE / d(b, B, c) = (x, x h', h) at h = tanh(B'x + c)
      h = np.tanh(x @ matrix + c)
      return {
        'bias': x.mean(0),
        'weight': x.T @ h / len(x),
        'hidden_bias': h.mean(0),
      }

    positive, negative = expectations(data), expectations(samples)
    for name, value in gradient['params'].items():
      np.testing.assert_allclose(
        value, weight * negative[name] - positive[name], atol=2e-6
      )
    np.testing.assert_allclose(
      metrics['energy/data'], jnp.mean(models.call(energy, data)), rtol=1e-6
    )
    np.testing.assert_allclose(
      metrics['energy/samples'],
      jnp.mean(models.call(energy, samples)),
      rtol=1e-6,
    )

  @parameterized.parameters(0.0, 0.3)
  def test_squared_energies_by_hand(self, energy_l2):
    # Of E = a.x the loss is a.(mean data - w mean samples) and the squares of each.
    energy = models.linear()
    data, samples = models.points(4), models.points(7)[4:] + 1
    a = np.array([0.5, -1.0, 0.25])
    loss = energies.contrast(
      energy,
      jnp.asarray(data),
      jnp.asarray(samples),
      negative_weight=0.6,
      energy_l2=energy_l2,
    )
    (value, metrics), slope = jax.value_and_grad(loss, has_aux=True)(
      jnp.float32(a)
    )
    expected = a @ (data.mean(0) - 0.6 * samples.mean(0))
    of_a = data.mean(0) - 0.6 * samples.mean(0)
    for x in (data, samples):
      expected += energy_l2 * np.mean((x @ a) ** 2)
      of_a = of_a + 2 * energy_l2 * x.T @ (x @ a) / len(x)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(slope, of_a, rtol=1e-5)
    # The gap is without the weight.
    gap = a @ (data.mean(0) - samples.mean(0))
    np.testing.assert_allclose(metrics['energy/gap'], gap, rtol=1e-5)

  def test_negative_energy_l2(self):
    with self.assertRaisesRegex(ValueError, 'energy_l2=-0.1'):
      energies.contrast(
        models.linear(), models.points(), models.points(), energy_l2=-0.1
      )

  def test_samples_are_constants(self):
    energy, *_ = models.rbm()
    data = jnp.asarray(models.points(), jnp.float32)
    loss = lambda shift: energies.contrast(energy, data, data + shift)(
      energy.params
    )[0]
    self.assertEqual(jax.grad(loss)(0.5), 0)
    self.assertNotAlmostEqual(loss(0.5), 0)

  @parameterized.parameters(True, False)
  def test_contrast_of_a_mixing_energy(self, joint):
    energy = models.energy('discriminator')
    data, samples = models.images(seed=1), 2 * models.images(seed=2) + 1
    y = models.labels()

    def literal(params):
      run = lambda *args: energy.apply_fn(params, *args)
      if joint:
        both = run(jnp.concatenate([data, samples]), jnp.concatenate([y, y]))
        return jnp.mean(both[:8]) - 0.3 * jnp.mean(both[8:])
      return jnp.mean(run(data, y)) - 0.3 * jnp.mean(run(samples, y))

    loss_fn = energies.contrast(
      energy, data, samples, y, negative_weight=0.3, joint=joint
    )
    results = jax.jit(
      lambda params: (
        jax.value_and_grad(loss_fn, has_aux=True)(params),
        jax.value_and_grad(literal)(params),
      )
    )
    (((value, metrics), gradient), literals) = results(energy.params)
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
      (value, gradient),
      literals,
    )
    self.assertAlmostEqual(
      metrics['energy/data'] - 0.3 * metrics['energy/samples'], value, 5
    )

  @parameterized.product(
    known=('data', 'samples'), mode=('jit', 'vmap', 'pmap', 'shard_map')
  )
  def test_one_pass_gives_what_two_do(self, known, mode):
    energy = models.energy('discriminator', 'none')
    rows = models.images(seed=1), 2 * models.images(seed=2) + 1, models.labels()
    self.assertTrue(energies.has_one_pass(energy))

    def one_pass(energy, data, samples, y, axis_name=None):
      both = dict(data=data, samples=samples)
      score, both[known] = energies.score_and_mean(energy, both[known], y)
      loss_fn = energies.contrast(
        energy, *both.values(), y, negative_weight=0.3, axis_name=axis_name
      )
      moved, metrics = learners.descend(energy, loss_fn, axis_name=axis_name)
      return score, (moved.params, metrics)

    if mode == 'jit':
      found = jax.jit(one_pass)(energy, *rows)
    else:
      found = _over_devices(mode, one_pass, energy, *rows)
    score = energies.score(energy, rows[known == 'samples'], rows[2])
    _, (params, metrics) = _JITTED(energy, *rows)
    chex.assert_trees_all_close(
      found, (score, (params, metrics)), rtol=1e-4, atol=1e-5
    )
    # SGD's rate is 1, so that this is a look at the gradient.
    moves = jax.tree.map(jnp.subtract, params, energy.params)
    self.assertGreater(
      min(np.max(np.abs(x)) for x in jax.tree.leaves(moves)), 0.1
    )

  def test_squares_of_a_mean(self):
    energy, *_ = models.rbm()
    data = jnp.asarray(models.points(), jnp.float32)
    _, mean = energies.score_and_mean(energy, data)
    with self.assertRaisesRegex(ValueError, 'energy_l2 is of energies one by'):
      energies.contrast(energy, data, mean, energy_l2=0.1)

  @parameterized.parameters(('pmap', 'discriminator'), ('shard_map', 'joint'))
  def test_four_devices_are_one_batch(self, mode, kind):
    energy = models.energy(kind)
    rows = models.images(seed=1), 2 * models.images(seed=2) + 1, models.labels()
    score, (params, metrics) = _over_devices(
      mode, _score_and_step, energy, *rows
    )
    expected_score, (expected, expected_metrics) = _JITTED(energy, *rows)
    scale = np.max(np.abs(expected_score))
    np.testing.assert_allclose(
      score, expected_score, rtol=1e-4, atol=1e-5 * scale
    )
    for name, value in expected_metrics.items():
      np.testing.assert_allclose(metrics[name], value, rtol=1e-5)
    # The ratio of the gradients, which sgd(1.0) subtracted, by least squares.
    for start, actual, whole in zip(
      *map(jax.tree.leaves, (energy.params, params, expected)), strict=True
    ):
      gradient = start - whole
      ratio = jnp.vdot(start - actual, gradient) / jnp.vdot(gradient, gradient)
      self.assertAlmostEqual(ratio, 1, delta=1e-4)
      np.testing.assert_allclose(
        start - actual, gradient, atol=1e-4 * np.max(np.abs(gradient))
      )


def _score_and_step(energy, data, samples, y, axis_name=None):
  score = energies.score(
    energy, samples, y, normalized_with=data, axis_name=axis_name
  )
  loss_fn = energies.contrast(
    energy, data, samples, y, negative_weight=0.3, axis_name=axis_name
  )
  moved, metrics = learners.descend(energy, loss_fn, axis_name=axis_name)
  return score, (moved.params, metrics)


_JITTED = jax.jit(_score_and_step)  # compiled once for the modes


def _over_devices(mode, body, learner, *rows):
  """Returns (split, whole) results of the body, over four devices, rejoined."""
  body = functools.partial(body, axis_name=_AXIS)
  if mode == 'shard_map':
    split, whole = PartitionSpec(_AXIS), PartitionSpec()
    run = jax.shard_map(
      body,
      mesh=Mesh(np.array(jax.devices()[:4]), (_AXIS,)),
      in_specs=(whole, *[split] * len(rows)),
      out_specs=(split, whole),
    )
    return jax.jit(run)(learner, *rows)
  mapped = jax.pmap if mode == 'pmap' else jax.vmap
  run = mapped(body, axis_name=_AXIS, in_axes=(None, *[0] * len(rows)))
  rows = [x.reshape(4, -1, *x.shape[1:]) for x in rows]
  split, whole = (jax.jit(run) if mode == 'vmap' else run)(learner, *rows)
  join = lambda x: x.reshape(-1, *x.shape[2:])
  return jax.tree.map(join, split), jax.tree.map(lambda x: x[0], whole)


class FreeEnergyTest(parameterized.TestCase):
  """On a space of eight points, where everything can be summed."""

  def setUp(self):
    super().setUp()
    self.points = jnp.asarray(list(itertools.product((0.0, 1.0), repeat=3)))
    self.energy = learners.create(
      jax.random.key(0),
      energies.MLP(widths=(5,)),
      dict(name='sgd', learning_rate=1.0),
      self.points,
    )

  def test_bound_on_the_likelihood(self):
    # -log p(x) = E(x) + log Z, and log Z >= H(q) - E_q E for any q: what the
    # generator's free energy bounds [Z16 eq 4]. Equality where q = p.
    values = np.asarray(self.energy.apply_fn(self.energy.params, self.points))
    values = 3 * values.astype(np.float64)
    log_z = np.log(np.exp(-values).sum())
    p = np.exp(-values - log_z)
    rng = np.random.default_rng(0)
    for q in (*rng.dirichlet(np.ones(8), size=20), p):
      bound = -(q * np.log(q)).sum() - (q * values).sum()
      self.assertLessEqual(bound, log_z + 1e-12)
    self.assertAlmostEqual(bound, log_z)

  def test_without_weight_any_energy_will_do(self):
    value, mean, total = energies.free_energy(
      self.energy, self.energy.params, self.points, entropy=0.0
    )
    expected = self.energy.apply_fn(self.energy.params, self.points).mean()
    np.testing.assert_allclose((value, mean, total), (expected, expected, 0))

  @parameterized.parameters('jit', 'shard_map')
  def test_updates_are_those_of_one_device(self, mode):
    x = jax.random.uniform(jax.random.key(3), (8, 8, 8, 1))
    energy = learners.create(
      jax.random.key(1),
      energies.MultiModal(widths=(2,), dense=3, num_experts=4),
      dict(name='sgd', learning_rate=1.0),
      x,
    )

    def step(energy, batch, rng, *, axis_name=None):
      del rng
      loss = energies.variational_contrast(
        energy, batch['image'], batch['other'], entropy=0.7, axis_name=axis_name
      )
      return learners.descend(energy, loss, axis_name=axis_name)

    batch = {'image': x, 'other': jnp.flip(x, 1) ** 2}

    def literal(params):
      logits = energy.apply_fn(params, x, method='expert_logits')
      others = energy.apply_fn(params, batch['other'], method='expert_logits')
      p, q = jax.nn.sigmoid(logits), jax.nn.sigmoid(others)
      h = lambda p: -p * jnp.log(p) - (1 - p) * jnp.log1p(-p)
      mean = lambda p: jnp.mean(jnp.sum(h(p), 1))
      return mean(p) - mean(q) - 0.7 * jnp.sum(h(jnp.mean(p, 0)))

    grads = jax.jit(jax.grad(literal))(energy.params)
    expected = jax.tree.map(jnp.subtract, energy.params, grads)
    compiled = parallel.compile_step(step, mode)
    found, _ = compiled(parallel.replicate(energy), batch, jax.random.key(0))
    chex.assert_trees_all_close(found.params, expected, rtol=1e-4, atol=1e-6)


if __name__ == '__main__':
  absltest.main()
