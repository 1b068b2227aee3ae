"""Directions on an energy: what they are given of it."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from stein_jax import energies
from stein_jax import stein
from tests import literal
from tests.energies import models


class DirectionTest(parameterized.TestCase):
  def test_log_density_is_minus_the_energy(self):
    # On a Gaussian one particle takes one step to the mean.
    energy = literal.quadratic(literal.MEAN, np.log([1.0, 4.0]))
    x = jnp.array([[2.0, 3.0]])
    phi = energies.direction(energy, stein.NewtonSVGD(), x)
    np.testing.assert_allclose(x + phi, literal.MEAN[None], atol=1e-5)

  def test_without_score(self):
    # A surrogate that is the density itself makes the direction that of SVGD.
    energy = literal.quadratic(0.0, np.log([1.0, 4.0]))
    x = jnp.asarray(models.points(6, 2), jnp.float32)
    precision = jnp.array([[1.0, 4.0]])
    rule = stein.GradientFreeSVGD(
      surrogate=lambda x, axis_name: (
        lambda y: -0.5 * jnp.sum(precision * y**2, 1)
      )
    )
    phi = energies.direction(energy, rule, x)
    np.testing.assert_allclose(
      phi, stein.SVGD()(x, -precision * x), rtol=1e-4, atol=1e-6
    )

  def test_step_and_key(self):
    energy = literal.quadratic(literal.MEAN, 0.0)
    x, key = jnp.asarray(models.points(5, 2), jnp.float32), jax.random.key(3)
    half = stein.Annealed(stein.Score(), stein.LinearRise(num_steps=10))
    phi = energies.direction(energy, half, x, step=5)
    np.testing.assert_allclose(phi, (literal.MEAN[None] - x) / 2, rtol=1e-5)
    phi = energies.direction(energy, literal.Noise(), x, noise_rng=key)
    np.testing.assert_array_equal(phi, np.full((5, 2), jax.random.uniform(key)))
    with self.assertRaisesRegex(ValueError, 'direction: Noise needs rng'):
      energies.direction(energy, literal.Noise(), x)
    with self.assertRaisesRegex(ValueError, 'direction: Annealed needs step'):
      energies.direction(energy, half, x)

  @parameterized.parameters((None,), ('labels',))
  def test_no_log_density_of_one_example(self, condition):
    kind, given = 'autoencoder', ()  # which mixes its batch
    if condition:
      kind, given = 'discriminator', (models.labels(),)
    message = 'direction: NewtonSVGD needs log_density, of one example alone'
    with self.assertRaisesRegex(ValueError, message):
      energies.direction(
        models.energy(kind, norm='batch' if not given else 'none'),
        stein.NewtonSVGD(),
        models.images(),
        *given,
      )


if __name__ == '__main__':
  absltest.main()
