"""A small state for tests that save and restore one."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class State(NamedTuple):
  step: jax.Array
  weight: jax.Array
  nothing: None
  nested: dict


def state_at(step):
  rng = np.random.default_rng(step)
  return State(
    jnp.array(step, jnp.int32),
    jnp.asarray(rng.normal(size=(64, 33)), jnp.float32),
    None,
    {'count': jnp.array(step), 'half': jnp.ones(3, jnp.bfloat16)},
  )
