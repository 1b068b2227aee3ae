# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     name: python3
#     display_name: Python 3
#     language: python
# ---

# %% [markdown]
# # An EBM in thirty lines
#
# An energy-based model is a function E whose exp(-E) is a density up to a constant.
# It learns by comparison: E falls at the data and rises at samples of the model,
# which a Langevin chain makes. This page learns the energy of two moons, shows the
# landscape and the samples, and says how to see that training goes well.

# %%
import functools

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn import datasets as sklearn_datasets

from stein_jax import energies
from stein_jax import learners
from stein_jax import metrics as sample_metrics
from stein_jax import samplers
from stein_jax.algorithms import langevin_ebm

# %% [markdown]
# ## The thirty lines
#
# A state holds the energy, its optimizer and a buffer of chains that go on from
# step to step. `step` is a pure function of state, batch and key, so `jit` and
# `scan` take it. The chain is a value. Its step δ should be about the width of the
# finest thing that the density has; the arms of the moons are 0.15 wide.

# %%
moons, _ = sklearn_datasets.make_moons(4000, noise=0.1, random_state=0)
data = jnp.asarray(2 * (moons - moons.mean(0)), jnp.float32)  # [4000, 2]

energy = learners.create(
  jax.random.key(0),
  energies.MLP(widths=(128, 128), confinement=0.1),
  optax.adam(optax.cosine_decay_schedule(2e-3, 2400)),
  data[:256],
)
chains = jax.random.uniform(jax.random.key(1), (1024, 2), minval=-3, maxval=3)
state = langevin_ebm.State(jnp.zeros((), jnp.int32), energy, chains)
step = functools.partial(
  langevin_ebm.step,
  chain=samplers.Langevin(step_size=0.15, num_steps=20),
  start_scale=3.0,
  restart=0.02,
  energy_l2=0.01,
)


@jax.jit
def some_steps(state, rng):
  def body(state, rng):
    batch_rng, rng = jax.random.split(rng)
    rows = jax.random.choice(batch_rng, len(data), (256,))
    return step(state, {'image': data[rows]}, rng)

  return jax.lax.scan(body, state, jax.random.split(rng, 600))


history = []
for i in range(4):
  state, metrics = some_steps(state, jax.random.key(2 + i))
  history.append(metrics)
  print(
    f'{600 * (i + 1)} steps: gap {metrics["energy/gap"][-100:].mean():+.3f}'
  )

# %% [markdown]
# The batch calls its examples `image`, whatever they are: every algorithm of the
# package does.
#
# ## Did it go well?
#
# `energy/gap` is the mean energy of the data minus that of the samples. It is not a
# loss, and falling is not what it should do. When the model is right, data and
# samples are alike and the gap is about 0. A gap far below 0 means that the chain
# does not reach where the energy is low. A gap that grows without end is an energy
# that runs away.

# %%
gap = np.concatenate([metrics['energy/gap'] for metrics in history])
fig, ax = plt.subplots(figsize=(6, 2.8))
ax.plot(gap, lw=0.3, color='0.7')
ax.plot(np.convolve(gap, np.ones(100) / 100, 'valid'))
ax.axhline(0, color='0.4', ls=':')
ax.set(xlabel='step', ylabel='energy/gap', ylim=(-1, 1))
fig.tight_layout()
plt.show()

# %% [markdown]
# ## Samples
#
# `sample` continues chains of the buffer. A longer chain from noise shows whether
# the energy itself is right, and not only its short chains. We draw both.

# %%
chain = samplers.Langevin(step_size=0.15, num_steps=20)
persistent = langevin_ebm.sample(state, jax.random.key(9), 1000, chain=chain)
fresh = langevin_ebm.sample(
  state._replace(chains=None),
  jax.random.key(9),
  1000,
  chain=samplers.MALA(step_size=0.15, num_steps=1000),
  start_scale=3.0,
)
held_out, _ = sklearn_datasets.make_moons(1000, noise=0.1, random_state=1)
held_out = jnp.asarray(2 * (held_out - moons.mean(0)), jnp.float32)
named = {'data': data[:1000], 'persistent': persistent, 'fresh': fresh}
for name, x in named.items():
  print(
    f'{name:10} energy distance {sample_metrics.energy_distance(x, held_out):.4f}'
  )

# %%
side = jnp.linspace(-3.7, 3.7, 200)
grid = jnp.stack(jnp.meshgrid(side, side), -1).reshape(-1, 2)
landscape = energies.value(state.energy, state.energy.params, grid)
landscape = landscape.reshape(200, 200)
fig, axes = plt.subplots(1, 3, figsize=(10, 3.4), sharex=True, sharey=True)
for ax, (name, x) in zip(axes, named.items(), strict=True):
  ax.contourf(
    side, side, jnp.exp(landscape.min() - landscape), 20, cmap='Blues'
  )
  ax.plot(*x.T, '.', ms=2, color='C1')
  ax.set(title=name, aspect='equal')
fig.suptitle('exp(-E) in blue, points in orange')
fig.tight_layout()
plt.show()
