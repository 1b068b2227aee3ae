"""Tests of what directions in few dimensions at a time are for."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stein_jax import kernels
from stein_jax import stein
from stein_jax.algorithms import svgd
from tests.stein import literal


def _run(direction, log_density, start, schedule, num_steps):
  state = svgd.create(log_density, start, optax.sgd(schedule))

  def step(state, rng):
    return svgd.step(state, None, rng, direction=direction)[0], None

  keys = jax.random.split(jax.random.key(1), num_steps)
  state = jax.jit(lambda s: lax.scan(step, s, keys)[0])(state)
  return state.particles.params['particles']


class ProjectedTest(parameterized.TestCase):
  def test_one_block_is_svgd(self):
    # Distances do not see a rotation.
    x, score = literal.points(8, 3)
    for size in (3, 7):
      found = stein.ProjectedSVGD(size=size)(x, score, rng=jax.random.key(0))
      literal.assert_close(found, stein.SVGD()(x, score), 256)

  def test_in_one_dimension_it_is_svgd(self):
    x, score = literal.points(8, 1)
    found = stein.ProjectedSVGD()(x, score, rng=jax.random.key(0))
    literal.assert_close(found, stein.SVGD()(x, score))

  def test_no_two_blocks_share_their_noise(self):
    # Noise of covariance (2 / step) D in each block, D the matrix within one, has the
    # trace 2 d / step tr D / n; along the sum of the slices it is that of one slice.
    x = jnp.zeros((1, 4))
    noisy = stein.NoisySVGD(kernels.RBF(bandwidth=1.0), 1.0, langevin=1.0)
    direction = stein.ProjectedSVGD(noisy)

    def along_the_sum(rng):
      basis = stein.RandomBasis()(x, x, 1, rng=rng)
      phi = direction(x, x, rng=rng)
      return jnp.sum(phi @ basis) / 2

    keys = jax.random.split(jax.random.key(0), 4000)
    found = np.var(jax.vmap(along_the_sum)(keys))
    # One particle: D = (1 + langevin) k(0), and the variance is 2 D.
    self.assertAlmostEqual(found, 4, delta=4 * 4 * (2 / 4000) ** 0.5)

  def test_every_rotation_is_as_likely(self):
    # E A A' B A A' for a random column A is (2 B + tr(B) I) / (d (d + 2)), of a
    # symmetric B.
    x = jnp.zeros((1, 3))
    draw = lambda rng: stein.RandomBasis()(x, x, 1, rng=rng)
    bases = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 40_000))
    bases = np.float64(bases)
    products = np.einsum('nij,nkj->nik', bases, bases)
    np.testing.assert_allclose(
      products, np.tile(np.eye(3), (40_000, 1, 1)), atol=1e-5
    )
    b = np.diag([1.0, 2.0, 6.0])
    for column in np.moveaxis(bases, 2, 0):
      projector = np.einsum('ni,nj->nij', column, column)
      found = projector @ b @ projector
      error = 4 * np.std(found, 0) / 200
      expected = (2 * b + 9 * np.eye(3)) / 15
      np.testing.assert_array_less(np.abs(found.mean(0) - expected), error)
    # Signs are even, too.
    np.testing.assert_allclose(bases.mean(0), 0, atol=4 / 200)

  @parameterized.parameters((1, 0.8), (2, 0.65))
  @pytest.mark.slow
  def test_slices_keep_the_spread(self, size, least):
    # Of N(0, diag(1, ..., 4)) in 20 dimensions, whitened, where SVGD keeps 0.18.
    scale = jnp.linspace(1, 2, 20)
    log_density = lambda x: -0.5 * jnp.sum((x / scale) ** 2)
    start = scale[None] * jax.random.normal(jax.random.key(0), (50, 20))
    sliced = stein.Whitened(stein.ProjectedSVGD(size=size))
    schedule = optax.linear_schedule(0.2, 0.002, 800)
    x = _run(sliced, log_density, start, schedule, 800)
    self.assertBetween(np.mean(np.var(x / scale[None], 0)), least, 1.05)

  def test_a_learned_basis_sees_more(self):
    # The score is wrong along one direction alone, which random blocks dilute.
    x = jax.random.normal(jax.random.key(0), (60, 5))
    along = jnp.array([[3.0, 4.0, 0.0, 0.0, 0.0]]) / 5
    score = -x + 2 * along
    rng, size = jax.random.key(1), 2
    bases = [
      stein.LearnedBasis(num_steps=steps, step_size=0.1)(
        x, score, size, rng=rng
      )
      for steps in (0, 10, 100)
    ]
    for basis in bases:
      np.testing.assert_allclose(basis.T @ basis, np.eye(5), atol=1e-5)
    objective = stein.LearnedBasis().objective
    found = [float(objective(basis, x, score, size)) for basis in bases]
    self.assertGreater(found[1], 1.1 * found[0])
    self.assertGreater(found[2], 0.99 * found[1])
    of_block = lambda a: stein.ksd(x @ a, score @ a, kernels.RBF())
    literal_sum = sum(of_block(bases[1][:, i : i + 2]) for i in (0, 2, 4))
    np.testing.assert_allclose(found[1], literal_sum, rtol=1e-5)

  def test_a_learned_basis_is_one_over_devices(self):
    x, score = map(jnp.array, literal.points(8, 3))
    learned = stein.ProjectedSVGD(size=2, basis=stein.LearnedBasis())
    call = lambda x, score, axis_name=None: learned(
      x, score, rng=jax.random.key(0), axis_name=axis_name
    )
    split = lambda x, score: call(x, score, literal.AXIS)
    found = literal.mapped('shard_map', split, x, score)
    literal.assert_close(found, call(x, score), 1024)

  def test_steps_leave_the_span_of_a_block(self):
    # With a single block there is nowhere to go.
    x, score = literal.points(8, 3)
    rng = jax.random.key(0)
    basis = stein.LearnedBasis(num_steps=3)(x, score, 3, rng=rng)
    start = stein.RandomBasis()(x, score, 3, rng=rng)
    np.testing.assert_allclose(basis, start, atol=0.35)
    np.testing.assert_allclose(basis @ basis.T, np.eye(3), atol=1e-5)

  @parameterized.parameters(
    (dict(size=0), 'size=0 must be'),
    (dict(basis=stein.LearnedBasis(step_size=0.0)), 'basis.step_size=0.0'),
    (dict(basis=stein.LearnedBasis(num_steps=-1)), 'basis.num_steps=-1'),
    (
      dict(basis=lambda x, score, size: x),
      r'basis has shape \(4, 3\); wanted: \(3, 3\)',
    ),
    (
      dict(direction=stein.SVGD(kernels.RBF(-1.0))),
      'direction.kernel.bandwidth=-1.0',
    ),
  )
  def test_refuses(self, fields, message):
    x = jnp.ones((4, 3))
    with self.assertRaisesRegex(ValueError, message):
      stein.ProjectedSVGD(**fields)(x, x, rng=jax.random.key(0))


class SlicedTest(parameterized.TestCase):
  def test_objective_by_definition(self):
    # mean_ij v v' k + r (v d_t' k + v' d_t k) + r^2 d_t d_t' k, r = g_a.
    x, score = map(np.float64, literal.points(6, 3))
    g = np.array([0.6, 0.0, 0.8])
    k = lambda t, u: jnp.exp(-((t - u) ** 2) / 2.0)

    def term(t, v, u, w):
      slopes = v * jax.grad(k, 1)(t, u) + w * jax.grad(k)(t, u)
      curve = jax.grad(jax.grad(k), 1)(t, u)
      return v * w * k(t, u) + g[2] * slopes + g[2] ** 2 * curve

    with jax.enable_x64(True):
      t, v = jnp.asarray(x @ g), jnp.asarray(score[:, 2])
      over = jax.vmap(jax.vmap(term, (None, None, 0, 0)), (0, 0, None, None))
      expected = jnp.mean(over(t, v, t, v))
      sliced = stein.SlicedSVGD(kernels.RBF(2.0))
      objective = lambda g: sliced.objective(g, 2, jnp.asarray(x), v)
      np.testing.assert_allclose(objective(jnp.asarray(g)), expected, rtol=1e-9)
      slope = jax.grad(objective)(jnp.asarray(g))
      step = 1e-5 * np.eye(3)
      change = [
        (objective(jnp.asarray(g + e)) - objective(jnp.asarray(g - e))) / 2e-5
        for e in step
      ]
    np.testing.assert_allclose(slope, change, rtol=1e-6, atol=1e-9)

  def test_without_steps_it_is_of_coordinates(self):
    x, score = literal.points(8, 3)
    found = stein.SlicedSVGD(kernels.IMQ(), num_steps=0)(x, score)
    literal.assert_close(found, stein.CoordinateSVGD(kernels.IMQ())(x, score))

  def test_slices_turn_to_what_they_should_see(self):
    # Of independent particles for a density that ties x_0 to x_1, the score of x_0 is
    # a function of both.
    x = jax.random.normal(jax.random.key(0), (100, 4))
    score = (-x).at[:, 0].add(2 * x[:, 1])
    few, many = (
      stein.SlicedSVGD(num_steps=n).slices(x, score) for n in (1, 20)
    )
    np.testing.assert_allclose(np.linalg.norm(many, axis=1), 1, rtol=1e-5)
    objective = stein.SlicedSVGD().objective
    seen = [float(objective(g[0], 0, x, score[:, 0])) for g in (few, many)]
    self.assertGreater(seen[1], 1.5 * seen[0])
    self.assertGreater(abs(many[0, 1]), 5 * np.max(np.abs(many[0, 2:])))

  @parameterized.parameters(
    (dict(num_steps=-1), 'num_steps=-1 must be'),
    (dict(step_size=0.0), 'step_size=0.0 must be'),
    (dict(kernel=kernels.RBF(-1.0)), 'kernel.bandwidth=-1.0 must be'),
  )
  def test_refuses(self, fields, message):
    x = jnp.ones((4, 3))
    with self.assertRaisesRegex(ValueError, message):
      stein.SlicedSVGD(**fields)(x, x)


class CoordinateTest(parameterized.TestCase):
  def test_sees_neighbours_alone(self):
    # In a chain 0 - 1 - 2 - 3 a move of x_3 moves phi_2 and phi_3.
    chain = stein.CoordinateSVGD(neighbours=((1,), (0, 2), (1, 3), (2,)))
    x, score = literal.points(8, 4)
    moved = x.copy()
    moved[:, 3] *= 1.5
    change = np.abs(chain(moved, score) - chain(x, score)).max(0)
    np.testing.assert_allclose(change[:2], 0, atol=1e-6)
    self.assertGreater(np.min(change[2:]), 1e-3)

  def test_independent_coordinates_keep_their_spread(self):
    # In 20 dimensions, where SVGD keeps 0.18.
    start = jax.random.normal(jax.random.key(0), (40, 20)) * 0.5 + 1
    x = _run(
      stein.CoordinateSVGD(), lambda x: -0.5 * jnp.sum(x**2), start, 0.5, 200
    )
    np.testing.assert_allclose(np.mean(x, 0), 0, atol=0.02)
    self.assertBetween(np.mean(np.var(x, 0)), 0.9, 1.0)

  @parameterized.parameters(
    (((1,), (0,)), 'neighbours=.* must be as many as the coordinates: 3'),
    (((1,), (0, 0), ()), r'neighbours\[1\]=\(0, 0\) must be other coordinates'),
    (((0,), (), ()), r'neighbours\[0\]=\(0,\) must be other coordinates'),
    (((3,), (), ()), r'neighbours\[0\]\[0\]=3 must be at most 2'),
  )
  def test_refuses(self, neighbours, message):
    x = jnp.ones((4, 3))
    with self.assertRaisesRegex(ValueError, message):
      stein.CoordinateSVGD(neighbours=neighbours)(x, x)


class InformedTest(parameterized.TestCase):
  def test_of_a_linear_model(self):
    # Two sums of eight coordinates are observed. What they do not tell stays as drawn,
    # and what they do is SVGD in two dimensions.
    rng = np.random.default_rng(0)
    design = jnp.asarray(rng.normal(size=(2, 8)), jnp.float32)
    scale = jnp.linspace(0.5, 2, 8)
    observed = jnp.array([1.0, -2.0])

    def log_density(x):
      return -0.5 * jnp.sum((x / scale) ** 2) - 2 * jnp.sum(
        (design @ x - observed) ** 2
      )

    start = scale[None] * jnp.asarray(rng.normal(size=(60, 8)), jnp.float32)
    prior = stein.Given(scale**2)
    direction = stein.InformedSVGD(prior, rank=4)
    x = _run(direction, log_density, start, 0.05, 600)
    # In units of the prior the rows of the design span what is told.
    white = design * scale[None]
    flat = np.linalg.svd(white)[2][2:]
    told = np.linalg.svd(white)[2][:2]
    z, z_start = x / scale[None], start / scale[None]
    np.testing.assert_allclose(z @ flat.T, z_start @ flat.T, atol=2e-3)
    precision = np.eye(2) + 4 * told @ white.T @ white @ told.T
    mean = np.linalg.solve(precision, 4 * told @ white.T @ observed)
    found = z @ told.T
    np.testing.assert_allclose(found.mean(0), mean, atol=0.02)
    spread = np.diag(np.cov(np.transpose(found), ddof=0) @ precision)
    np.testing.assert_allclose(spread, 1, atol=0.15)

  @parameterized.parameters(
    (dict(rank=0), 'rank=0 must be'),
    (dict(tolerance=-1.0), 'tolerance=-1.0 must be'),
    (dict(prior=stein.Given(np.ones(2))), 'prior: covariance has shape'),
  )
  def test_refuses(self, fields, message):
    x = jnp.ones((4, 3))
    fields = dict(prior=stein.Given(np.ones(3))) | fields
    with self.assertRaisesRegex(ValueError, message):
      stein.InformedSVGD(**fields)(x, x)


if __name__ == '__main__':
  absltest.main()
