"""What is counted of a run's memory, against numbers made by hand."""

import os
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp

from stein_jax.runs import memory
from stein_jax.runs import training
from tests import smoke


def _twice(x):
  return x @ jnp.ones((3, 7)) * 2


def _in_loop(x):
  return jax.lax.scan(
    lambda sum, row: (sum + row, jnp.outer(row, row)), x[0], x
  )


class MemoryTest(parameterized.TestCase):
  @parameterized.parameters(
    (_twice, (5, 7)),  # a product is stored, its double may not be
    (jax.jit(_twice), (5, 7)),
    (lambda x: jax.lax.cond(x[0, 0] > 0, _twice, _twice, x), (5, 7)),
    (_in_loop, (5, 3, 3)),  # rows that a loop writes
  )
  def test_the_largest_result_is(self, function, shape):
    jaxpr = jax.make_jaxpr(function)(jnp.ones((5, 3))).jaxpr
    self.assertEqual(memory.largest_result(jaxpr).shape, shape)

  def test_elementwise_results_do_not_count(self):
    pairs = lambda x: jnp.sum((x[:, None] - x[None]) ** 2)
    jaxpr = jax.make_jaxpr(pairs)(jnp.ones((5, 3))).jaxpr
    self.assertIsNone(memory.largest_result(jaxpr))

  def test_a_device_has_no_more_than_the_machine(self):
    pages = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    self.assertBetween(memory.limit(), 1, pages)

  def test_the_limit_is_where_state_batch_and_result_fit(self):
    state = dict(kernel=jax.ShapeDtypeStruct((1000, 3), jnp.float32))
    batch = dict(image=jnp.ones((5, 3)))
    program = jax.make_jaxpr(_twice)(batch['image'])
    config = dict(steps_per_call=2, energy=dict(widths=(500,), latent=3))
    need = 4 * (1000 * 3 + 2 * 5 * 3 + 5 * 7)
    with mock.patch.object(memory, 'limit', lambda: need):
      memory.check(config, state, batch, program)
    with (
      mock.patch.object(memory, 'limit', lambda: need - 1),
      self.assertRaisesRegex(
        ValueError,
        r"energy.widths\[0\]=500 needs .*state\['kernel'\] \(1000, 3\)",
      ),
    ):
      memory.check(config, state, batch, program)

  def test_data_that_the_device_holds_count(self):
    state = dict(kernel=jax.ShapeDtypeStruct((10, 3), jnp.float32))
    batch = dict(image=jnp.ones((5, 3)))
    held = dict(image=jax.ShapeDtypeStruct((700, 3), jnp.uint8))
    config = dict(feed='device', energy=dict(widths=(500,)))
    need = 4 * (10 * 3 + 5 * 3) + 700 * 3
    with mock.patch.object(memory, 'limit', lambda: need):
      memory.check(config, state, batch, held=held)
    with (
      mock.patch.object(memory, 'limit', lambda: need - 1),
      self.assertRaisesRegex(
        ValueError, r"^feed='device' needs .* part is the data \(700, 3\)"
      ),
    ):
      memory.check(config, state, batch, held=held)

  def test_a_device_without_memory_is_said(self):
    config = dict(generator=dict(latent_dim=10**6), seed=10**8)
    with (
      self.assertRaisesRegex(RuntimeError, 'generator.latent_dim=1000000'),
      memory.explained(config),
    ):
      raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory.')

  def test_the_config_of_a_device_that_holds_it_is_not_refused(self):
    config = smoke.get_config('gan_mnist')
    with mock.patch.object(memory, 'limit', lambda: 2 * 10**6):
      training.check(config)
    with (
      mock.patch.object(memory, 'limit', lambda: 2 * 10**3),
      self.assertRaisesRegex(ValueError, 'needs .* GB'),
    ):
      training.check(config)


if __name__ == '__main__':
  absltest.main()
