"""Exported functions are the run's own, for any batch, without this package."""

import dataclasses
import pathlib
import subprocess
import sys
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import jax
from jax import export
import jax.numpy as jnp
import numpy as np
import optax

from stein_jax import energies
from stein_jax import learners
from stein_jax import runs
from stein_jax.runs import exporting
from stein_jax.runs import training
from tests import smoke

_ALONE = """
import pathlib, sys
import jax, numpy as np
from jax import export

x = np.load(sys.argv[1])
call = export.deserialize(pathlib.Path(sys.argv[2]).read_bytes()).call
np.save(sys.argv[3], call(x))
assert 'stein_jax' not in sys.modules
"""


class ExportTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.folder = cls.enterClassContext(tempfile.TemporaryDirectory())
    cls.folder = pathlib.Path(cls.folder)
    training.train(smoke.get_config('steingan_toy'), cls.folder / 'run')
    cls.run_ = runs.load(cls.folder / 'run')

  @parameterized.parameters('energy', 'score')
  def test_any_number_of_examples(self, what):
    call = export.deserialize(exporting.artefact(self.run_, what)).call
    for num in (1, 5):
      x = np.random.default_rng(num).normal(size=(num, 2)).astype(np.float32)
      expected = getattr(self.run_, what)(x)
      np.testing.assert_allclose(call(x), expected, rtol=1e-5, atol=1e-6)

  def test_samples_of_a_seed(self):
    call = export.deserialize(
      exporting.artefact(self.run_, 'sample', num=7)
    ).call
    expected = self.run_.sample(7, jax.random.key(3))
    np.testing.assert_allclose(call(jnp.int32(3)), expected, atol=1e-6)

  def test_a_process_without_this_package(self):
    x = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    names = [self.folder / name for name in ('x.npy', 'score.jax', 'out.npy')]
    np.save(names[0], x)
    names[1].write_bytes(exporting.artefact(self.run_, 'score'))
    subprocess.run(
      [sys.executable, '-c', _ALONE, *names], cwd='/', check=True, timeout=300
    )
    np.testing.assert_allclose(
      np.load(names[2]), self.run_.score(x), rtol=1e-5, atol=1e-6
    )

  def test_is_for_every_platform(self):
    found = export.deserialize(exporting.artefact(self.run_, 'energy'))
    self.assertEqual(found.platforms, ('cpu', 'cuda', 'tpu'))

  def test_labels_are_the_second_argument(self):
    module = energies.Discriminator((2, 3), 3, 'layer')
    x, y = jnp.ones((4, 8, 8, 1)), jnp.zeros(4, jnp.int32)
    energy = learners.create(jax.random.key(0), module, optax.sgd(1.0), x, y)
    state = self.run_.state._replace(energy=energy)
    run = runs_like(self.run_, state)
    call = export.deserialize(exporting.artefact(run, 'energy')).call
    x = np.random.default_rng(0).random((3, 8, 8, 1), np.float32)
    label = np.array([0, 2, 1], np.int32)
    expected = energies.value(energy, energy.params, x, label)
    np.testing.assert_allclose(call(x, label), expected, rtol=1e-5)

  def test_refuses_an_energy_that_mixes_its_batch(self):
    module = energies.Discriminator((2, 3), 0, 'batch')
    x = jnp.ones((4, 8, 8, 1))
    energy = learners.create(jax.random.key(0), module, optax.sgd(1.0), x)
    run = runs_like(self.run_, self.run_.state._replace(energy=energy))
    with self.assertRaisesRegex(ValueError, 'mixes its batch'):
      exporting.artefact(run, 'score')


def runs_like(run, state):
  """Returns the run with another state."""
  return dataclasses.replace(run, state=state)


if __name__ == '__main__':
  absltest.main()
