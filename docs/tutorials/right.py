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
# # Is my sampler right?
#
# A sampler returns points whether or not it works. The kernelised Stein discrepancy
# (KSD) compares points with a density through its score alone: it needs no
# normaliser and no exact draws. This page tests samplers with it, asks how often
# the test would notice a fault of a given size, shows two mistakes that it invites,
# and uses the same kernel to thin a chain.
#
# The density is an equal mixture of N((-2.5, 0), I) and N((2.5, 0), I), from which
# we can also draw exactly.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

from stein_jax import densities
from stein_jax import kernels
from stein_jax import samplers
from stein_jax import stein

means = jnp.array([[-2.5, 0.0], [2.5, 0.0]])
density = densities.mixture(means, 1.0, jnp.ones(2), start=0.0)
log_density = jax.vmap(density.log_density)
score = jax.vmap(jax.grad(density.log_density))
kernel = kernels.IMQ(bandwidth=1.0)

# %% [markdown]
# An inverse multiquadric kernel, `IMQ`, is the usual choice for a test. With the
# Gaussian kernel there are sequences of points that run away from the density while
# their KSD goes to 0 (Gorham & Mackey 2017).
#
# ## One test
#
# `stein.ksd_test` returns n · KSD² and a p-value. Here it sees 400 exact draws, and
# 400 ends of Langevin chains. Langevin without an accept step is biased, the more
# so the larger its step δ: on N(0, 1) its variance is 1 / (1 - δ² / 4).


# %%
def langevin(rng, num, step_size):
  start_rng, rng = jax.random.split(rng)
  x = density.sample(
    start_rng, num
  )  # the start is right; only the step is wrong
  return samplers.langevin(rng, x, score, step_size=step_size, num_steps=200)


def test(rng, x, flip_probability=0.5):
  return stein.ksd_test(
    rng,
    x,
    score(x),
    kernel,
    num_bootstrap=400,
    flip_probability=flip_probability,
  )


num_sets, most = 200, 400
draws = {'exact': density.sample(jax.random.key(0), num_sets * most)}
for step_size in (0.5, 0.75, 1.0):
  name = f'Langevin {step_size}'
  draws[name] = langevin(jax.random.key(0), num_sets * most, step_size)
for name, x in draws.items():
  statistic, p_value = test(jax.random.key(1), x[:most])
  print(f'{name:13} n KSD² {statistic:5.2f}   p {p_value:.3f}')

# %% [markdown]
# One p-value is one draw. The exact draws were unlucky here: one set in twenty of
# right points has a p-value of at most 0.05. A large one says only that this test,
# with this many points, did not notice. How much would it notice?
#
# ## A power study
#
# The power of a test is the chance that it rejects. We take 200 sets of points from
# each sampler and count p-values of at most 0.05. For exact draws the count is the
# rate of false alarms, and should be near 5 %. The test is a pure function, so that
# a study is one `lax.map` over sets and keys.


# %%
@jax.jit
def rejected(sets, flip_probability=0.5):
  """Returns the share of the sets [k, n, 2] that are rejected at 5 %."""

  def one(argument):
    return test(*argument, flip_probability)[1] <= 0.05

  keys = jax.random.split(jax.random.key(2), len(sets))
  return jnp.mean(jax.lax.map(one, (keys, sets), batch_size=10))


sizes = (50, 100, 200, 400)
power = {}
for name, x in draws.items():
  sets = x.reshape(num_sets, most, 2)
  power[name] = [float(rejected(sets[:, :n])) for n in sizes]
print('points       ', *(f'{n:7}' for n in sizes))
for name, rates in power.items():
  print(f'{name:13}', *(f'{100 * rate:5.1f} %' for rate in rates))

# %%
fig, ax = plt.subplots(figsize=(6, 3.6))
for name, rates in power.items():
  ax.plot(sizes, rates, 'o-', label=name)
ax.axhline(0.05, color='0.6', ls=':')
ax.set(xscale='log', xlabel='points', ylabel='share rejected at 5 %')
ax.set_xticks(sizes, sizes)
ax.minorticks_off()
ax.legend()
fig.tight_layout()
plt.show()

# %% [markdown]
# Read it the other way round: it says how many points are needed before "not
# rejected" means something.
#
# ## What it cannot see
#
# KSD knows the density by its score, and a score says nothing of how much mass lies
# in modes far apart. Draws of the right half of the mixture alone are all wrong:

# %%
for distance in (1.5, 2.5, 5.0):
  means = jnp.array([[-distance, 0.0], [distance, 0.0]])
  apart = densities.mixture(means, 1.0, jnp.ones(2), start=0.0)
  right = means[1] + jax.random.normal(jax.random.key(3), (most, 2))
  statistic, p_value = stein.ksd_test(
    jax.random.key(1),
    right,
    jax.vmap(jax.grad(apart.log_density))(right),
    kernel,
  )
  print(f'modes at ±{distance}: n KSD² {statistic:5.2f}   p {p_value:.3f}')

# %% [markdown]
# So a test that does not reject is no proof that all modes were found. Start chains
# from many places, and compare.
#
# The test is as blind where one or two points have scores so large that they carry the
# whole statistic, as the far ones of a chain whose step was too large: signs do not
# change what one point adds to itself. Look at the statistic and at the largest score
# beside the p-value.
#
# Points are one array [n, d] here. Positions that are a tree, as in [SVGD on your
# posterior](posterior.md), become one by
# `jax.vmap(lambda z: jax.flatten_util.ravel_pytree(z)[0])`.
#
# ## Points of one chain
#
# The states of a chain are correlated, and their averages scatter more than those
# of independent points. A test that takes them for independent raises false alarms.
# The wild bootstrap allows for it by signs that flip seldom, with a
# `flip_probability` below 0.5. We test 200 chains of MALA, which are right, at
# every second of their states.


# %%
def chains_of_mala(rng, x, num, step_size):
  """Returns states [k, num, 2] of chains from x [k, 2], every second one."""

  def step(x, rng):
    x, _ = samplers.mala(rng, x, log_density, step_size=step_size, num_steps=2)
    return x, x

  _, states = jax.lax.scan(step, x, jax.random.split(rng, num))
  return jnp.swapaxes(states, 0, 1)


right = chains_of_mala(
  jax.random.key(3), density.sample(jax.random.key(4), num_sets), most, 1.2
)
for flip_probability in (0.5, 0.1, 0.05, 0.02):
  rate = rejected(right, flip_probability)
  print(f'flip_probability {flip_probability:4}: {100 * rate:4.1f} % rejected')

# %% [markdown]
# The slower the signs flip, the more correlation they allow for, and the fewer
# faults they notice. Thinning the chain until its states are nearly independent is
# the other way.
#
# ## Thin a chain
#
# Averages of a costly function, say a simulator, want few states. Stein thinning
# (Riabiz et al. 2022) takes them one after another, each time the one that makes
# the KSD of those taken smallest. With the Stein kernel u of `stein.stein_matrix`
# that is the state x with the smallest u(x, x) / 2 + Σ u(x, taken). It needs no
# burn-in to be cut off: the states on the way are not taken.


# %%
def thin(x, num):
  u = stein.stein_matrix(x, score(x), x, score(x), kernel)

  def take(total, _):
    best = jnp.argmin(jnp.diagonal(u) / 2 + total)
    return total + u[best], best

  return jax.lax.scan(take, jnp.zeros(len(x)), length=num)[1]


far = jnp.array([[8.0, 8.0]])
chain = chains_of_mala(jax.random.key(6), far, 2000, 0.5)[0]
kept = {
  'the chain': jnp.arange(2000),
  'every 50th': jnp.arange(0, 2000, 50),
  'Stein thinning': thin(chain, 40),
}
for name, rows in kept.items():
  x = chain[rows]
  ksd = stein.ksd(x, score(x), kernel) ** 0.5
  size = jnp.mean(jnp.sum(x**2, 1))
  print(f'{name:15} {len(x):4} states   KSD {ksd:.3f}   mean |x|² {size:.2f}')
print(f'{"the density":41} mean |x|² {2 + 2.5**2:.2f}')

# %%
fig, axes = plt.subplots(1, 2, figsize=(8, 3.6), sharex=True, sharey=True)
for ax, name in zip(axes, ('every 50th', 'Stein thinning'), strict=True):
  ax.plot(*chain.T, '-', lw=0.4, color='0.8')
  ax.plot(*chain[kept[name]].T, 'o', ms=4)
  ax.set(title=name, aspect='equal')
fig.tight_layout()
plt.show()
