"""Measures how an energy goes wrong, and what mends it, where likelihood is exact.

An RBM with ten hidden units learns scikit-learn's digits, whose strokes are four times
as high as its noise, by the Langevin chains that networks learn by. Its log Z and draws
of it are exact, so that what the metrics say can be held against what is true.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stein_jax import datasets
from stein_jax import energies
from stein_jax import learners
from stein_jax import metrics as sample_metrics
from stein_jax import randomness
from stein_jax import samplers
from stein_jax.algorithms import langevin_ebm

_SEEDS = 3
_STEPS = 2000
_CHAIN = samplers.Langevin(0.5, 20)
_COLD = samplers.Langevin(0.5, 20, noise_ratio=0.1)
_RUNS = {  # what differs from the first
  'as it should be': {},
  'rate 300 times as high': dict(rate=3.0),
  'the same, energy_l2 = 0.01': dict(rate=3.0, energy_l2=0.01),
  'noise a tenth': dict(chain=_COLD),
  'chains from noise': dict(num_chains=0),
  'the same, 100 steps': dict(
    num_chains=0, chain=_CHAIN.replace(num_steps=100)
  ),
}


def failures():
  """Measures three failures of an energy and their remedies, on digits."""
  train, test = map(_digits, ('train', 'test'))
  rows = {}
  for name, changes in _RUNS.items():
    runs = [_found(train, test, seed, **changes) for seed in range(_SEEDS)]
    rows[name] = {
      key: [float(f'{run[key]:.4g}') for run in runs] for key in runs[0]
    }
  return None, dict(seeds=_SEEDS, steps=_STEPS, rows=rows)


def learn(
  data,
  seed,
  *,
  rate=1e-2,
  chain=_CHAIN,
  num_chains=1000,
  energy_l2=0.0,
):
  """Returns the state of an RBM after all steps, and the metrics of each."""
  keys = jax.random.split(jax.random.key(seed), 3)
  # A chain spends most of its time on noise.
  keys = randomness.convert(keys, 'hashed')
  energy = learners.create(
    keys[0],
    energies.RBM(10, centered=True),
    optax.adam(optax.linear_schedule(rate, 0.0, _STEPS)),
    data,
  )
  start = functools.partial(jax.random.uniform, minval=-4, maxval=4)
  chains = start(keys[1], (num_chains, data.shape[1])) if num_chains else None
  step = functools.partial(
    langevin_ebm.step,
    chain=chain,
    start_scale=4.0,
    restart=0.02,
    energy_l2=energy_l2,
  )

  def body(state, rng):
    batch_rng, rng = jax.random.split(rng)
    rows = jax.random.choice(batch_rng, len(data), (200,))
    return step(state, {'image': data[rows]}, rng)

  state = langevin_ebm.State(jnp.zeros((), jnp.int32), energy, chains)
  rngs = jax.random.split(keys[2], _STEPS)
  return jax.jit(lambda state: jax.lax.scan(body, state, rngs))(state)


def _found(train, test, seed, **changes):
  """Returns what the metrics of a run say, and what is true of its energy."""
  state, metrics = learn(train, seed, **changes)
  energy = state.energy
  keys = jax.random.split(jax.random.key(1000 + seed))
  drawn = {
    'its own chains': langevin_ebm.sample(
      state,
      keys[0],
      len(test),
      chain=changes.get('chain', _CHAIN),
      start_scale=4.0,
    ),
    'exact draws': learners.call(
      energy, energy.params, keys[1], len(test), method='sample'
    ).reshape(test.shape),
  }
  log_partition = energies.exact_log_partition(energy)
  likelihood = energies.log_likelihood(energy, test, log_partition)
  gap = np.asarray(metrics['energy/gap'])
  shown = ('temperature', 'virial_temperature', 'score_norm')
  return {
    'test/log_likelihood': float(np.mean(np.asarray(likelihood, np.float64))),
    **{
      f'energy distance, {name}': float(sample_metrics.energy_distance(x, test))
      for name, x in drawn.items()
    },
    'energy/gap': float(gap[-200:].mean()),
    'energy/gap, largest': float(np.abs(gap).max()),
    **{
      f'chain/{name}': float(metrics[f'chain/{name}'][-200:].mean())
      for name in shown
    },
  }


def _digits(split):
  source = datasets.load('digits', split=split, scale=4.0)
  return jnp.asarray(source[:]['image']).reshape(len(source), -1)
