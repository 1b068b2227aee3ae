"""Functions of a trained run as artefacts that JAX alone can call."""

import jax
from jax import export
import jax.numpy as jnp

from stein_jax import checks
from stein_jax import energies
from stein_jax.runs import configs
from stein_jax.runs.loading import Run

PLATFORMS = ('cpu', 'cuda', 'tpu')
WHAT = ('energy', 'score', 'sample')


def artefact(run: Run, what: str, *, num: int = 100) -> bytes:
  """Returns a function of a run, serialised by `jax.export`, with its parameters in it.

  `jax.export.deserialize(artefact).call` is E(x) [n] or the score, like x, of float32
  examples x [n, ...] in any number, after which come int32 labels [n] where there are
  classes; or samples [num, ...] of a seed, int32 [].

  Args:
    run: from `runs.load`.
    what: 'energy', 'score' or 'sample'.
    num: number of samples of a call.

  Raises:
    ValueError: the algorithm learns no energy or has nothing to draw, or the energy
      mixes its batch, whose size then has a meaning.
  """
  checks.choice(WHAT, what=what)
  checks.count(num=num)
  if what == 'sample':
    return _serialised(_sample(run, num), jax.ShapeDtypeStruct((), jnp.int32))
  energy = run.learner('energy')
  energies.check_density(energy)
  if what == 'energy':
    function = lambda x, *label: energies.value(
      energy, energy.params, x, *label
    )
  else:
    function = lambda x, *label: energies.score(energy, x, *label)
  (rows,) = export.symbolic_shape('n')
  shapes = [((rows, *energy.input_shape), jnp.float32)]
  if energy.num_classes:
    shapes.append(((rows,), jnp.int32))
  return _serialised(
    function, *(jax.ShapeDtypeStruct(*each) for each in shapes)
  )


def _sample(run, num):
  """Returns a function of a seed to samples."""
  sample = configs.sample(run.config)
  if sample is None:
    raise ValueError(f'{run.config.algorithm} has nothing to draw.')
  # The generator is named, so that samples do not depend on who loads the artefact.
  key = lambda seed: jax.random.key(seed, impl='threefry2x32')
  return lambda seed: sample(run.state, key(seed), num)


def _serialised(function, *arguments):
  return export.export(jax.jit(function), platforms=PLATFORMS)(
    *arguments
  ).serialize()
