"""SteinGAN on MNIST: an RBM and a deconvolutional sampler (LW17, 5.1).

python -m experiments.train --config=configs/steingan_mnist.py --workdir=runs/steingan
Without kernel: --config.step.kernel=none; SteinCD-GAN: --config.step.alpha=0.25.

Scales: '' is the paper's setting; ':centred' the one that can match its model:
centred RBM, unit noise on a linear output, wide kernel on the hidden features;
':digits' that one on scikit-learn's 8x8 digits; ':smoke' a few steps on noise.

Expect, test log likelihood: ':centred' -743.1 nats in 80 s on two cores, ':digits'
-83.3 in 20 s; '' takes an hour there, and at an eighth of its width runs away
(BUILD_NOTES, Results, has the rates that do not).
"""

from ml_collections import ConfigDict


def get_config(scale=''):
  """Returns the config at that scale."""
  if scale not in ('', 'centred', 'digits', 'smoke'):
    raise ValueError(
      f'scale={scale!r} is unknown; allowed: centred, digits, smoke.'
    )
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
      num_generator_steps=1,
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
  config.energy = ConfigDict(dict(name='RBM', num_hidden=10, centered=False))
  config.generator = ConfigDict(
    dict(
      name='Deconv',
      latent_dim=100,
      width=64,
      shape=(28, 28, 1),
      output='sigmoid',
      output_noise=0.0,
      norm_gain=False,
    )
  )
  config.energy_optimizer = ConfigDict(
    dict(name='adam', learning_rate=3e-4, b1=0.5)
  )
  config.generator_optimizer = (
    config.energy_optimizer.copy_and_resolve_references()
  )
  config.data = ConfigDict(dict(name='mnist', split='train[:50000]'))
  config.evaluation = ConfigDict(
    dict(
      data=dict(name='mnist', split='test'),
      log_likelihood='exact',
      num_samples=100,
    )
  )
  config.seed, config.batch_size, config.num_steps = 0, 100, 10_000
  config.parallel, config.steps_per_call = 'jit', 1
  config.prng_impl, config.on_nonfinite = 'threefry2x32', 'stop'
  config.matmul_precision = 'float32'
  config.log_every = 100
  config.eval_every, config.checkpoint_every = 500, 1000
  if scale in ('centred', 'digits'):
    config.energy.centered = True
    config.generator.output, config.generator.output_noise = 'linear', 1.0
    config.generator.width = 8  # the paper's width is no better here
    config.step.kernel_space = 'features'
    config.num_steps = 6000
    anneal = dict(name='linear_schedule', init_value=3e-4, end_value=0.0)
    config.energy_optimizer = ConfigDict(
      dict(
        name='adam', b1=0.5, learning_rate=dict(anneal, transition_steps=6000)
      )
    )
    config.generator_optimizer.learning_rate = 1e-3
  if scale == 'centred':
    # Near the median of squared distances itself. Over log(n + 1) all other samples
    # weigh as much as three of the 100, and a sample's own score a fourth of phi.
    config.step.bandwidth_scale = 4.0
  if scale == 'digits':
    # Strokes four times as high as the model's noise, as in the other configs.
    config.data = ConfigDict(dict(name='digits', split='train', scale=4.0))
    config.evaluation.data = dict(name='digits', split='test', scale=4.0)
    config.generator.shape = (8, 8, 1)
    config.num_steps, config.eval_every = 2000, 100
    config.energy_optimizer.learning_rate.update(
      init_value=1e-3, transition_steps=2000
    )
    config.generator_optimizer.learning_rate = 3e-3
  if scale == 'smoke':
    config.data = ConfigDict(dict(name='synthetic', shape=(4, 4, 1)))
    config.evaluation.data = dict(
      name='synthetic', shape=(4, 4, 1), split='test'
    )
    config.energy.num_hidden, config.step.alpha = 3, 0.5
    config.generator.update(latent_dim=4, width=2, shape=(4, 4, 1))
    sgd = dict(name='sgd', learning_rate=0.01)
    config.energy_optimizer = ConfigDict(sgd)
    config.generator_optimizer = ConfigDict(sgd)
    config.batch_size, config.num_steps, config.evaluation.num_samples = 8, 4, 4
    config.log_every, config.eval_every, config.checkpoint_every = 2, 2, 2
  return config
