"""Conditional DCGAN on CIFAR-10, SteinGAN's baseline (LW17 and WL16, table 1).

python -m experiments.train --config=configs/gan_cifar10.py --workdir=runs/gan_cifar10
WGAN-GP, a row of X21's table: configs/gan_cifar10.py:wgan, without labels.

The papers do not say how their DCGAN is conditioned: here labels enter every layer,
as in the authors' MNIST script. The generator is SteinGAN's. On two cores a step takes
8 s, of ':wgan' 35 s: run them on an accelerator. Seen so far: three steps of either on
the real images. Scale ':smoke' is a few steps on noise.
"""

from ml_collections import ConfigDict


def get_config(scale=''):
  """Returns the config at that scale."""
  if scale not in ('', 'wgan', 'smoke'):
    raise ValueError(f'scale={scale!r} is unknown; allowed: wgan, smoke.')
  config = ConfigDict()
  config.algorithm = 'gan'
  config.step = ConfigDict(
    dict(
      loss='non_saturating',
      penalty=10.0,
      margin=10.0,
      generator_every=1,
      num_generator_steps=1,
      joint=False,
      conditional=True,
      l1_weight=0.0,
    )
  )
  config.sample = ConfigDict()
  config.energy = ConfigDict(
    dict(
      name='Discriminator', widths=(128, 256, 512), num_classes=10, norm='batch'
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
  adam = dict(name='adam', learning_rate=2e-4, b1=0.5, l2=1e-5)
  config.energy_optimizer = ConfigDict(adam)
  config.generator_optimizer = ConfigDict(adam)
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
  config.seed, config.batch_size, config.num_steps = 0, 128, 78_000
  config.parallel, config.steps_per_call = 'jit', 1
  config.prng_impl, config.on_nonfinite = 'threefry2x32', 'stop'
  config.matmul_precision = 'float32'
  config.log_every = 100
  config.eval_every, config.checkpoint_every = 1000, 1000
  if scale == 'wgan':
    config.step.update(loss='wasserstein', generator_every=5)
    config.energy.norm = 'layer'
    adam = dict(name='adam', learning_rate=1e-4, b1=0.0, b2=0.9)
    config.energy_optimizer = ConfigDict(adam)
    config.generator_optimizer = ConfigDict(adam)
    config.step.conditional = False
    config.energy.num_classes = config.generator.num_classes = 0
  if scale == 'smoke':
    shape = dict(
      name='synthetic', shape=(8, 8, 3), num_classes=4, pixels='symmetric'
    )
    config.data = ConfigDict(dict(shape, split='train'))
    config.evaluation.data = ConfigDict(dict(shape, split='test'))
    config.energy.update(widths=(2, 3), num_classes=4)
    config.generator.update(
      shape=(8, 8, 3), base=2, widths=(2,), strides=(2, 2), num_classes=4
    )
    sgd = dict(name='sgd', learning_rate=0.01)
    config.energy_optimizer = ConfigDict(sgd)
    config.generator_optimizer = ConfigDict(sgd)
    config.batch_size, config.num_steps, config.evaluation.num_samples = 8, 4, 4
    config.log_every, config.eval_every, config.checkpoint_every = 2, 2, 2
  return config
