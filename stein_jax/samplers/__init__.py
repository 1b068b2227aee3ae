"""Markov chains on any unnormalised log density, as scans.

Points are a pytree whose leaves lead with the chain axis, [n, ...]; the chains
are independent. `step_size` is the papers' delta: a step adds delta^2 / 2 times
the score and delta times unit noise. Dtype and shape are kept, but that chains of
integers are of floats; those of half-precision points run in float32, in which a
small step is not lost. What a score or a density returns is checked as it is traced.

A chain with its options is a value, as `Langevin` or `MALA` is, which moves points
under a target: an object with `log_density` and `score`, as `target(log_density)` and
`energies.target(energy)` return. Any function of a key, points and a target that
returns the points moved and a dict of scalars is such a chain too.

  chain = samplers.MALA(step_size=0.3, num_steps=100)
  x, metrics = chain(rng, x, samplers.target(log_density))
"""

from stein_jax.samplers.adaptation import Adapted
from stein_jax.samplers.adaptation import adapt
from stein_jax.samplers.annealing import Resampled
from stein_jax.samplers.annealing import annealed
from stein_jax.samplers.annealing import annealed_importance
from stein_jax.samplers.annealing import annealed_resampling
from stein_jax.samplers.diffusions import Langevin
from stein_jax.samplers.diffusions import Underdamped
from stein_jax.samplers.diffusions import langevin
from stein_jax.samplers.diffusions import underdamped
from stein_jax.samplers.discrete import DiscreteLangevin
from stein_jax.samplers.discrete import GibbsWithGradients
from stein_jax.samplers.gibbs import Gibbs
from stein_jax.samplers.metropolis import MALA
from stein_jax.samplers.metropolis import mala
from stein_jax.samplers.preconditioning import Preconditioned
from stein_jax.samplers.targets import WANTED
from stein_jax.samplers.targets import Chain
from stein_jax.samplers.targets import target
from stein_jax.samplers.tempering import Tempered
from stein_jax.samplers.weights import effective_sample_size
from stein_jax.samplers.weights import log_mean_exp
from stein_jax.samplers.weights import log_mean_exp_error

__all__ = [
  'Adapted',
  'Chain',
  'DiscreteLangevin',
  'Gibbs',
  'GibbsWithGradients',
  'Langevin',
  'MALA',
  'Preconditioned',
  'Resampled',
  'Tempered',
  'Underdamped',
  'WANTED',
  'adapt',
  'annealed',
  'annealed_importance',
  'annealed_resampling',
  'effective_sample_size',
  'langevin',
  'log_mean_exp',
  'log_mean_exp_error',
  'mala',
  'target',
  'underdamped',
]
