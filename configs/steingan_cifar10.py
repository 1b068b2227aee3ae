"""Conditional SteinGAN on CIFAR-10 (LW17, section 5.2; WL16, section 5).

python -m experiments.train --config=configs/steingan_cifar10.py \
  --workdir=runs/steingan_cifar10
Without kernel: --config.step.kernel=none

Scales: '' is LW17's, as its authors' code of April 2017 has it; ':wl16' that of
WL16, November 2016; ':smoke' a few steps on noise. The networks are the authors'
whole: on two cores a step takes 10 s and 4 GB, so run them on an accelerator. Seen
so far: three steps of either on the real images.
"""

from ml_collections import ConfigDict


def get_config(scale=''):
  """Returns the config at that scale."""
  if scale not in ('', 'wl16', 'smoke'):
    raise ValueError(f'scale={scale!r} is unknown; allowed: wl16, smoke.')
  config = ConfigDict()
  config.algorithm = 'steingan'
  config.step = ConfigDict(
    dict(
      kernel='rbf',
      kernel_space='features',
      repulsion='nearest',
      normalize='count',
      bandwidth_scale=0.25,
      bandwidth_log='n+1',
      bandwidth=0.0,
      diversity='none',
      diversity_weight=1.0,
      num_generator_steps=1,
      negatives='before',
      negative_weight=0.3,
      controller='discount',
      alpha=0.0,
      epsilon=0.1,
      joint=True,
      conditional=True,
    )
  )
  config.sample = ConfigDict()
  autoencoder = dict(
    name='Autoencoder',
    convs=(
      (128, 3, 1, 1),
      (128, 2, 2, 0),
      (256, 3, 1, 1),
      (256, 4, 4, 0),
      (512, 3, 1, 1),
      (512, 4, 4, 0),
    ),
    output='tanh',
    residual='l2',
    norm='batch',
    dropout=0.2,
  )
  config.energy = ConfigDict(
    dict(
      name='JointLabel',
      autoencoder=autoencoder,
      num_classes=10,
      margin=1.0,
      dropout=0.0,
    )
  )
  config.generator = ConfigDict(
    dict(
      name='DCGAN',
      shape=(32, 32, 3),
      latent_dim=100,
      base=512,
      widths=(512, 256, 256, 128, 128),
      strides=(2, 1, 2, 1, 2, 1),
      kernel_size=3,
      num_classes=10,
      output='tanh',
    )
  )
  adam = dict(name='adam', b1=0.5, l2=1e-5)
  config.energy_optimizer = ConfigDict(dict(adam, learning_rate=5e-4))
  config.generator_optimizer = ConfigDict(dict(adam, learning_rate=1e-3))
  config.data = ConfigDict(
    dict(name='cifar10', split='train', pixels='symmetric')
  )
  config.evaluation = ConfigDict(
    dict(
      data=dict(name='cifar10', split='test', pixels='symmetric'),
      log_likelihood='none',
      num_samples=200,
    )
  )
  config.seed, config.batch_size, config.num_steps = 0, 100, 100_000
  config.parallel, config.steps_per_call = 'jit', 1
  config.prng_impl, config.on_nonfinite = 'threefry2x32', 'stop'
  config.matmul_precision = 'float32'
  config.log_every = 100
  config.eval_every, config.checkpoint_every = 1000, 1000
  if scale == 'wl16':
    config.step.update(
      repulsion='swapped', normalize='row_sum', controller='freeze_ahead'
    )
    config.generator.update(widths=(256, 128), strides=(2, 2, 2), kernel_size=5)
    config.num_steps = 50_000
    for name, rate in (('generator', 1e-3), ('energy', 1e-4)):
      schedule = dict(
        name='linear_schedule',
        init_value=rate,
        end_value=0.0,
        transition_steps=25_000,
        transition_begin=25_000,
      )
      config[f'{name}_optimizer'] = ConfigDict(
        dict(adam, learning_rate=schedule)
      )
  if scale == 'smoke':
    shape = dict(
      name='synthetic', shape=(8, 8, 3), num_classes=4, pixels='symmetric'
    )
    config.data = ConfigDict(dict(shape, split='train'))
    config.evaluation.data = ConfigDict(dict(shape, split='test'))
    config.energy.autoencoder.convs = ((2, 3, 1, 1), (2, 4, 4, 0))
    config.energy.num_classes = config.generator.num_classes = 4
    config.generator.update(
      shape=(8, 8, 3), base=2, widths=(2, 2, 2), strides=(2, 1, 2, 1)
    )
    sgd = dict(name='sgd', learning_rate=0.01)
    config.energy_optimizer = ConfigDict(sgd)
    config.generator_optimizer = ConfigDict(sgd)
    config.batch_size, config.num_steps, config.evaluation.num_samples = 8, 4, 4
    config.log_every, config.eval_every, config.checkpoint_every = 2, 2, 2
  return config
