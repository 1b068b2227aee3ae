"""Random walks and lines in latent space."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from stein_jax import generators
from tests import draws
from tests.generators import networks


class WalksTest(parameterized.TestCase):
  @parameterized.parameters('uniform', 'normal')
  def test_interpolate_between_two_draws(self, prior):
    learner = networks.create(networks.Plain(prior))
    x = generators.interpolate(
      learner, jax.random.key(1), num_pairs=200, num_points=5
    )
    self.assertEqual(x.shape, (200, 5, 7))
    z = np.asarray(x[..., :3])
    share = np.linspace(0, 1, 5)[:, None]
    line = (1 - share) * z[:, :1] + share * z[:, -1:]
    np.testing.assert_allclose(z, line, atol=1e-6)
    ends = z[:, [0, -1]].reshape(-1, 3)
    self.assertLen(np.unique(ends, axis=0), 400)
    variance = {'uniform': 1 / 3, 'normal': 1.0}[prior]
    # 4 standard errors of 1200 draws of at most a normal's kurtosis.
    self.assertAlmostEqual(
      np.mean(ends**2), variance, delta=4 * variance * np.sqrt(2 / 1200)
    )
    self.assertAlmostEqual(np.mean(ends), 0, delta=4 * np.sqrt(variance / 1200))

  def test_ends_are_the_decoded_latents(self):
    # The plain generator shows the latents that this key draws.
    rng, lines = jax.random.key(1), dict(num_pairs=2, num_points=3)
    self.enter_context(draws.fixed())
    z = generators.interpolate(networks.create(networks.Plain()), rng, **lines)[
      ..., :3
    ]
    learner = networks.tiny()
    x = generators.interpolate(learner, rng, **lines)
    self.assertEqual(x.shape, (2, 3, 4, 8, 2))
    ends = lambda path: path[:, jnp.array([0, -1])].reshape(-1, *path.shape[2:])
    np.testing.assert_allclose(
      generators.decode(learner, rng, ends(z)), ends(x), atol=1e-5
    )

  def test_neighbours_in_latent_space_are_neighbours(self):
    learner, rng = networks.tiny(), jax.random.key(3)
    paths = [
      np.asarray(
        generators.interpolate(learner, rng, num_pairs=2, num_points=num)
      )
      for num in (65, 257)
    ]
    np.testing.assert_allclose(paths[1][:, ::4], paths[0], atol=1e-5)
    coarse, fine = (np.max(np.abs(np.diff(path, axis=1))) for path in paths)
    # Steps a quarter as long move the images a quarter as far, once they are
    # short beside the bends; a jump would stay as it is.
    self.assertGreater(coarse, 0.01)
    self.assertLess(fine, coarse / 2)

  @parameterized.parameters('uniform', 'normal')
  def test_walk(self, prior):
    learner = networks.create(networks.Plain(prior))
    x = generators.random_walk(
      learner,
      jax.random.key(1),
      num_walks=4,
      num_steps=300,
      step_size=0.5,
    )
    self.assertEqual(x.shape, (4, 300, 7))
    z = np.asarray(x[..., :3], np.float64)
    steps = np.diff(z, axis=1)
    self.assertLessEqual(np.max(np.abs(steps)), 0.5 + 1e-6)
    if prior == 'uniform':
      self.assertEqual(np.max(np.abs(z)), 1)
      # A move that would leave ends at the wall; the others are U(-1, 1) / 2.
      free = steps[np.abs(z[:, 1:]) < 1]
      self.assertLess(len(free), steps.size)
    else:
      self.assertGreater(np.max(np.abs(z)), 3)
      # 4 standard errors of 3588 steps of variance 1/12, of kurtosis 9/5.
      self.assertAlmostEqual(np.mean(steps), 0, delta=4 / np.sqrt(12 * 3588))
      self.assertAlmostEqual(
        np.mean(steps**2), 1 / 12, delta=4 * np.sqrt(0.8 / 3588) / 12
      )
    others = networks.SIZE * x[..., 4:] - x[..., :3]
    np.testing.assert_allclose(
      others, np.broadcast_to(others[:1, :1], others.shape), atol=2e-4
    )

  def test_walks_start_from_the_prior_and_the_step_is_small(self):
    x = generators.random_walk(
      networks.create(networks.Plain('normal')),
      jax.random.key(1),
      num_walks=400,
      num_steps=2,
    )
    start, step = np.asarray(x[:, 0, :3]), np.diff(x[..., :3], axis=1)
    self.assertAlmostEqual(
      np.mean(start**2), 1, delta=4 * np.sqrt(2 / start.size)
    )
    self.assertBetween(np.max(np.abs(step)), 0.009, 0.01 + 1e-6)

  @parameterized.parameters((None,), ((2, 2, 0, 1),))
  def test_labels_of_paths(self, label):
    learner = networks.create(networks.Plain(num_classes=3))
    rng = jax.random.key(1)
    given = None if label is None else jnp.array(label)
    walk = generators.random_walk(
      learner, rng, num_walks=4, num_steps=3, label=given
    )
    line = generators.interpolate(
      learner, rng, num_pairs=4, num_points=3, label=given
    )
    # Without labels the paths take turns.
    expected = np.repeat(np.array(label or (0, 1, 2, 0))[:, None], 3, 1)
    np.testing.assert_array_equal(walk[..., 3], expected)
    np.testing.assert_array_equal(line[..., 3], expected)


if __name__ == '__main__':
  absltest.main()
