"""SteinGAN on a two-dimensional toy density: an MLP energy and an MLP sampler.

python -m experiments.train --config=configs/steingan_toy.py --workdir=runs/steingan_toy
Without kernel, which collapses: --config.step.kernel=none

Expect: -3.64 nats test log likelihood (AIS; the true density has -3.51) and samples
that a two-sample test takes for data (p = 0.3) after 8,000 steps, a minute on two
cores. With two generator steps and three times the energy's rate the energy falls
away where no samples are (-23 nats).
"""

from ml_collections import ConfigDict


def get_config(scale=''):
  """Returns the config; scale 'smoke' is a few steps of small networks."""
  if scale not in ('', 'smoke'):
    raise ValueError(f'scale={scale!r} is unknown; allowed: smoke.')
  config = ConfigDict()
  config.algorithm = 'steingan'
  config.step = ConfigDict(
    dict(
      kernel='rbf',
      kernel_space='pixels',
      repulsion='exact',
      normalize='count',
      bandwidth_scale=1.0,
      bandwidth_log='n+1',
      bandwidth=0.0,
      diversity='none',
      diversity_weight=1.0,
      num_generator_steps=5,
      negatives='before',
      negative_weight=1.0,
      controller='none',
      alpha=0.0,
      epsilon=0.1,
      joint=True,
      conditional=False,
    )
  )
  config.sample = ConfigDict()
  config.energy = ConfigDict(
    dict(name='MLP', widths=(64, 64), confinement=0.01)
  )
  config.generator = ConfigDict(
    dict(name='MLP', latent_dim=4, dim=2, widths=(128, 128))
  )
  adam = dict(name='adam', b1=0.5)
  config.energy_optimizer = ConfigDict(dict(adam, learning_rate=1e-4))
  config.generator_optimizer = ConfigDict(dict(adam, learning_rate=1e-3))
  config.data = ConfigDict(dict(name='toy', density='eight_gaussians'))
  config.evaluation = ConfigDict(
    dict(
      data=dict(name='toy', density='eight_gaussians', split='test'),
      log_likelihood='ais',
      num_samples=1000,
      ais=dict(num_chains=1000, num_temperatures=1000, step_size=0.5),
    )
  )
  config.seed, config.batch_size, config.num_steps = 0, 200, 8000
  config.parallel, config.steps_per_call = 'jit', 1
  config.prng_impl, config.on_nonfinite = 'threefry2x32', 'stop'
  config.matmul_precision = 'float32'
  config.log_every = 100
  config.eval_every, config.checkpoint_every = 2000, 2000
  if scale == 'smoke':
    sgd = dict(name='sgd', learning_rate=0.01)
    config.energy_optimizer = ConfigDict(sgd)
    config.generator_optimizer = ConfigDict(sgd)
    config.energy.widths, config.generator.widths = (4,), (4,)
    config.evaluation.ais.num_temperatures = 10
    config.evaluation.num_samples, config.batch_size = 4, 8
    config.num_steps, config.log_every = 4, 2
    config.eval_every, config.checkpoint_every = 4, 2
  return config
