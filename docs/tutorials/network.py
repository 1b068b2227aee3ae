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
# # Bring your own network
#
# An energy here is any function of parameters and points to E(x) [n]. This page
# writes the same small network in plain JAX, Equinox, Haiku, Flax NNX and Flax
# Linen, trains each by persistent contrastive divergence on the same points, and
# checks that all of them learn.
#
# A network becomes a learner, which holds its parameters and its optimizer.
# `learners.wrap` takes a function and parameters, whatever library they are from.
# `learners.create` takes a module with `init` and `apply`.

# %%
import functools

import equinox as eqx
from flax import linen as nn
from flax import nnx
import haiku as hk
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax

from stein_jax import densities
from stein_jax import energies
from stein_jax import learners
from stein_jax import metrics as sample_metrics
from stein_jax import samplers
from stein_jax.algorithms import contrastive_divergence

density = densities.eight_gaussians(radius=2.0, scale=0.3)
data = density.sample(jax.random.key(0), 4000)
example = data[:256]  # learners know shapes by it
adam = optax.adam(optax.cosine_decay_schedule(3e-3, 1000))


def energy_of(output, x):
  """Returns E(x) [n] of a network's output [n, 1]: what all five share."""
  # The quadratic term keeps the density from being spread over the whole plane.
  return output[:, 0] + 0.05 * jnp.sum(x**2, -1)


# %% [markdown]
# ## A plain function
#
# Parameters are any tree of floating arrays.


# %%
def plain(params, x):
  hidden = x
  for w, b in params[:-1]:
    hidden = nn.swish(hidden @ w + b)
  w, b = params[-1]
  return energy_of(hidden @ w + b, x)


sizes = (2, 64, 64, 1)
keys = jax.random.split(jax.random.key(1), 3)
params = [
  (jax.random.normal(key, (i, o)) / i**0.5, jnp.zeros((1, o)))
  for key, i, o in zip(keys, sizes, sizes[1:], strict=False)
]
networks = {'plain': learners.wrap(plain, params, adam, example)}

# %% [markdown]
# ## Equinox
#
# `eqx.partition` sets the arrays apart from the rest, such as activation functions,
# which no optimizer can move.

# %%
model = eqx.nn.MLP(2, 1, 64, 2, activation=jax.nn.swish, key=jax.random.key(1))
params, static = eqx.partition(model, eqx.is_inexact_array)


def equinox(params, x):
  return energy_of(jax.vmap(eqx.combine(params, static))(x), x)


networks['Equinox'] = learners.wrap(equinox, params, adam, example)

# %% [markdown]
# ## Haiku
#
# A transformed function has `init` and `apply`, so `create` takes it.


# %%
@hk.transform
def haiku(x):
  return energy_of(hk.nets.MLP((64, 64, 1), activation=nn.swish)(x), x)


networks['Haiku'] = learners.create(jax.random.key(1), haiku, adam, example)

# %% [markdown]
# ## Flax NNX
#
# An NNX module holds its parameters. `nnx.split` takes them out, and `nnx.merge`
# puts them back inside the function.


# %%
class Network(nnx.Module):
  def __init__(self, rngs):
    self.layers = nnx.List(
      [
        nnx.Linear(i, o, rngs=rngs)
        for i, o in zip(sizes, sizes[1:], strict=False)
      ]
    )

  def __call__(self, x):
    hidden = x
    for layer in self.layers[:-1]:
      hidden = nnx.swish(layer(hidden))
    return energy_of(self.layers[-1](hidden), x)


graph, params = nnx.split(Network(nnx.Rngs(1)), nnx.Param)
merged = lambda params, x: nnx.merge(graph, params)(x)
networks['NNX'] = learners.wrap(merged, params, adam, example)


# %% [markdown]
# ## Flax Linen


# %%
class Linen(nn.Module):
  @nn.compact
  def __call__(self, x):
    hidden = x
    for width in sizes[1:-1]:
      hidden = nn.swish(nn.Dense(width)(hidden))
    return energy_of(nn.Dense(1)(hidden), x)


networks['Linen'] = learners.create(jax.random.key(1), Linen(), adam, example)

# %% [markdown]
# ## Train them all
#
# From here on nothing knows which library a network is from.


# %%
@functools.partial(jax.jit, static_argnames='num_steps')
def train(state, rng, num_steps=1000):
  chain = samplers.Langevin(step_size=0.2, num_steps=10)

  def step(state, rng):
    batch_rng, rng = jax.random.split(rng)
    batch = {'image': jax.random.choice(batch_rng, data, (256,))}
    return contrastive_divergence.step(state, batch, rng, chain=chain)

  return jax.lax.scan(step, state, jax.random.split(rng, num_steps))


trained = {}
held_out = density.sample(jax.random.key(5), 2000)
chain = samplers.MALA(step_size=0.3, num_steps=500)
for name, energy in networks.items():
  state = contrastive_divergence.State(
    jnp.zeros((), jnp.int32), energy, example
  )
  state, metrics = train(state, jax.random.key(2))
  trained[name] = state.energy
  start = 2 * jax.random.normal(jax.random.key(3), (1000, 2))
  samples, _ = energies.run_chain(state.energy, chain, jax.random.key(4), start)
  distance = sample_metrics.energy_distance(samples, held_out)
  gap = metrics['energy/gap'][-200:].mean()
  print(f'{name:8} energy distance to the data {distance:.3f}, gap {gap:+.3f}')

# %%
side = jnp.linspace(-3.2, 3.2, 120)
grid = jnp.stack(jnp.meshgrid(side, side), -1).reshape(-1, 2)
fig, axes = plt.subplots(1, 5, figsize=(11, 2.6), sharey=True)
for ax, (name, energy) in zip(axes, trained.items(), strict=True):
  value = energies.value(energy, energy.params, grid).reshape(120, 120)
  ax.contourf(side, side, jnp.exp(value.min() - value), 20, cmap='Blues')
  ax.set(title=name, aspect='equal')
fig.tight_layout()
plt.show()

# %% [markdown]
# ## When nothing would learn
#
# A function that computes with a model from outside, and not with the parameters
# that it is given, would train for hours and never move. It is refused:

# %%
try:
  learners.wrap(lambda params, x: equinox(model, x), params, adam, example)
except ValueError as error:
  print(error)
