"""Measures what the guides show, and saves numbers and figures beside them.

python -m docs.measure kernel dimensions energy variates tests power chain large \
  failures

The numbers lie in docs/pages/guides/NAME.json, a figure, if there is one, in NAME.png.
"""

import functools
import json
import pathlib
import sys
import time

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
from sklearn import datasets as sklearn_datasets

from docs import goodness
from docs import learning
from stein_jax import densities
from stein_jax import energies
from stein_jax import kernels
from stein_jax import learners
from stein_jax import metrics as sample_metrics
from stein_jax import samplers
from stein_jax import stein
from stein_jax.algorithms import langevin_ebm
from stein_jax.algorithms import svgd

matplotlib.use('agg')
from matplotlib import pyplot as plt  # noqa: E402

_GUIDES = pathlib.Path(__file__).parent / 'pages' / 'guides'
_SEEDS = 5
_KERNELS = {
  'RBF': kernels.RBF,
  'IMQ': kernels.IMQ,
  'RationalQuadratic': kernels.RationalQuadratic,
}


def particles(density, num, kernel, *, seeds=_SEEDS, num_steps=2000):
  """Returns the particles [seeds, num, d] that SVGD ends with."""
  rate = optax.cosine_decay_schedule(0.1, num_steps)
  direction = stein.SVGD(kernel)

  @jax.jit
  def run(rng):
    start = density.start(rng, num, None)
    state = svgd.create(density.log_density, start, optax.adam(rate))
    step = lambda state, _: svgd.step(state, None, None, direction=direction)
    state, _ = jax.lax.scan(step, state, length=num_steps)
    return state.particles.params['particles']

  return jax.lax.map(run, jax.random.split(jax.random.key(0), seeds))


def averages(x):
  """Returns the means [..., 200] of 200 random cosines over points [..., n, 2]."""
  rng = np.random.default_rng(0)
  frequency, phase = rng.normal(size=(2, 200)), rng.uniform(0, 7, 200)
  return jnp.cos(x @ frequency + phase).mean(-2)


def kernel():
  """Measures kernels, bandwidths and numbers of particles on the banana."""
  density = densities.banana()
  exact = density.sample(jax.random.key(1), 1_000_000)
  truth = averages(exact)
  error = lambda x: float(jnp.sqrt(jnp.mean((averages(x) - truth) ** 2)))
  counts, scales = (8, 32, 128, 512), (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
  independent = exact[: 100 * 512].reshape(100, 512, 2)
  by_count = {'independent draws': [error(independent[:, :n]) for n in counts]}
  for name, make in _KERNELS.items():
    by_count[name] = [error(particles(density, n, make())) for n in counts]
  by_scale = {
    name: [
      error(particles(density, 100, make(kernels.Median(scale=scale))))
      for scale in scales
    ]
    for name, make in _KERNELS.items()
  }
  fig, axes = plt.subplots(1, 2, figsize=(9, 3.4))
  for name, errors in by_count.items():
    axes[0].loglog(
      counts, errors, 'o-' if name in _KERNELS else 'k:', label=name
    )
  for name, errors in by_scale.items():
    axes[1].loglog(scales, errors, 'o-', label=name)
  axes[0].set(xlabel='particles', ylabel='error of averages')
  axes[0].set_xticks(counts, counts)
  axes[0].minorticks_off()
  axes[1].set(xlabel='bandwidth / median rule, 100 particles')
  axes[0].legend()
  return fig, dict(
    counts=counts, by_count=by_count, scales=scales, by_scale=by_scale
  )


def dimensions():
  """Measures the variance of particles on N(0, I), and what a chain adds to it."""
  sizes, counts = (1, 2, 5, 10, 20, 50, 100), (20, 100, 500)

  def normal(d):
    return densities.mixture(jnp.zeros((1, d)), 1.0, jnp.ones(1), start=0.0)

  def variance(x):
    return float(jnp.mean(jnp.var(x, axis=-2, ddof=1)))

  def moved(d, x, num_steps):
    target = samplers.target(jax.vmap(normal(d).log_density))
    # The step that MALA's acceptance allows shrinks as d^(-1/6).
    chain = samplers.MALA(step_size=1.2 * d ** (-1 / 6), num_steps=num_steps)
    run = jax.jit(lambda rng, x: chain(rng, x, target)[0])
    return jax.lax.map(lambda x: run(jax.random.key(1), x), x)

  run = lambda d, n, kernel: particles(normal(d), n, kernel, seeds=2)
  found = {
    f'RBF, {n} particles': [run(d, n, kernels.RBF()) for d in sizes]
    for n in counts
  }
  hundred = found['RBF, 100 particles']
  found['IMQ, 100 particles'] = [run(d, 100, kernels.IMQ()) for d in sizes]
  found['RBF without log, 100 particles'] = [
    run(d, 100, kernels.RBF(kernels.Median(log='none'))) for d in sizes
  ]
  for steps in (10, 100):
    found[f'RBF, 100 particles, then {steps} steps of MALA'] = [
      moved(d, x, steps) for d, x in zip(sizes, hundred, strict=True)
    ]
  variances = {name: list(map(variance, xs)) for name, xs in found.items()}
  fig = plot_dimensions(sizes, counts, variances)
  return fig, dict(dimensions=sizes, variances=variances)


def plot_dimensions(sizes, counts, variances):
  """Returns the figure of `dimensions`, whose dots are log(n + 1) / d."""
  fig, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharex=True, sharey=True)
  by_count = [f'RBF, {n} particles' for n in counts]
  for i, (name, n) in enumerate(zip(by_count, counts, strict=True)):
    axes[0].semilogx(sizes, variances[name], f'C{i}o-', label=name)
    law = np.minimum(1, np.log(n + 1) / np.array(sizes))
    axes[0].semilogx(sizes, law, f'C{i}:')
  axes[1].semilogx(sizes, variances[by_count[1]], 'C7o-', label=by_count[1])
  for name in (name for name in variances if name not in by_count):
    axes[1].semilogx(sizes, variances[name], 'o-', label=name)
  axes[0].set(xlabel='dimensions', ylabel='variance, truth 1', ylim=(0, 1.3))
  axes[1].set(xlabel='dimensions')
  for ax in axes:
    ax.legend(fontsize=7)
  return fig


_RUNS = {  # what differs from the first
  'as in the tutorial': {},
  'rate 15 times as high': dict(rate=0.03, energy_l2=0.0),
  'the same, energy_l2 = 0.01': dict(rate=0.03),
  'chain of 2 steps of 0.05': dict(num_steps=2, step_size=0.05),
  'the same, from noise': dict(num_steps=2, step_size=0.05, num_chains=0),
  'step of 0.6 where 0.15 is right': dict(step_size=0.6),
}


def train(
  data,
  *,
  rate=2e-3,
  num_steps=20,
  step_size=0.15,
  energy_l2=0.01,
  num_chains=1024,
):
  """Returns an energy of points after 2,000 steps, and the metrics of each step."""
  energy = learners.create(
    jax.random.key(0), energies.MLP(confinement=0.1), optax.adam(rate), data[:9]
  )
  start = functools.partial(jax.random.uniform, minval=-3, maxval=3)
  chains = start(jax.random.key(1), (num_chains, 2)) if num_chains else None
  step = functools.partial(
    langevin_ebm.step,
    chain=samplers.Langevin(step_size, num_steps),
    start_scale=3.0,
    restart=0.02,
    energy_l2=energy_l2,
  )

  def body(state, rng):
    batch_rng, rng = jax.random.split(rng)
    rows = jax.random.choice(batch_rng, len(data), (256,))
    return step(state, {'image': data[rows]}, rng)

  state = langevin_ebm.State(jnp.zeros((), jnp.int32), energy, chains)
  keys = jax.random.split(jax.random.key(2), 2000)
  return jax.jit(lambda state: jax.lax.scan(body, state, keys))(state)


def energy():
  """Measures what goes wrong with an energy of two moons, and how it shows."""
  moons, _ = sklearn_datasets.make_moons(4000, noise=0.1, random_state=0)
  data = jnp.asarray(2 * (moons - moons.mean(0)), jnp.float32)
  rows, (fig, ax) = {}, plt.subplots(figsize=(9, 3.6))
  for name, changes in _RUNS.items():
    state, metrics = train(data, **changes)
    samples = langevin_ebm.sample(
      state._replace(chains=None),
      jax.random.key(9),
      1000,
      chain=samplers.Langevin(0.15, 1000),
      start_scale=3.0,
    )
    last = lambda metric: float(metrics[metric][-200:].mean())
    rows[name] = {
      'energy/gap': last('energy/gap'),
      'energy/data': last('energy/data'),
      'energy distance': float(
        sample_metrics.energy_distance(samples, data[:1000])
      ),
    }
    ax.plot(metrics['energy/gap'].reshape(-1, 20).mean(1), label=name)
  ax.set_yscale('symlog', linthresh=0.1)
  ax.set(xlabel='step / 20', ylabel='energy/gap')
  ax.legend(fontsize=8, loc='center left', bbox_to_anchor=(1, 0.5))
  return fig, dict(rows=rows)


def variates():
  """Measures what control variates gain on a posterior, over twenty chains of NUTS."""
  from numpyro import infer  # pylint: disable=g-import-not-at-top

  data = sklearn_datasets.load_breast_cancer()
  features = (data.data - data.data.mean(0)) / data.data.std(0)
  features = jnp.array(np.c_[features, np.ones(len(features))], jnp.float32)
  sign = jnp.array(2.0 * data.target - 1, jnp.float32)

  def log_density(weights):
    margins = sign * (features @ weights)
    return -jnp.sum(jnp.logaddexp(0, -margins)) - jnp.sum(weights**2) / 2

  chains, dim = 20, features.shape[1]
  kernel = infer.NUTS(potential_fn=lambda weights: -log_density(weights))
  run = infer.MCMC(
    kernel,
    num_warmup=300,
    num_samples=1000,
    num_chains=chains,
    chain_method='vectorized',
    progress_bar=False,
  )
  run.run(jax.random.key(0), init_params=jnp.zeros((chains, dim)))
  x = run.get_samples(group_by_chain=True)
  score = jax.jit(jax.vmap(jax.vmap(jax.grad(log_density))))(x)

  def gain(values, order):
    """Returns variances of averages over those of estimates, by coordinate."""

    @jax.jit
    def of_chain(chain):
      values, x, score = chain
      one = functools.partial(
        stein.polynomial_control_variates, x=x, score=score, order=order
      )
      return jax.lax.map(one, values.T)

    found = jax.lax.map(of_chain, (values, x, score))
    return (jnp.var(values.mean(1), 0) / jnp.var(found, 0)).tolist()

  gains = {
    f'{name}, order {order}': gain(values, order)
    for name, values in {'mean': x, 'mean square': x**2}.items()
    for order in (1, 2)
  }
  fig, ax = plt.subplots(figsize=(6, 3.4))
  ax.boxplot(list(gains.values()), tick_labels=list(gains))
  ax.set(yscale='log', ylabel='variance of the average / of the estimate')
  ax.tick_params(axis='x', labelsize=7)
  medians = {name: float(np.median(ratios)) for name, ratios in gains.items()}
  return fig, dict(chains=chains, samples=1000, medians=medians, gains=gains)


def main(names):
  for name in names:
    start = time.perf_counter()
    elsewhere = getattr(goodness, name, None) or getattr(learning, name, None)
    measure = globals().get(name) or elsewhere
    fig, numbers = measure()
    if fig is not None:
      fig.tight_layout()
      fig.savefig(_GUIDES / f'{name}.png', dpi=110)
    numbers['seconds'] = round(time.perf_counter() - start)
    text = json.dumps(numbers, indent=1)
    (_GUIDES / f'{name}.json').write_text(text + '\n', 'utf-8')
    print(text, flush=True)


if __name__ == '__main__':
  main(sys.argv[1:])
