"""DCGAN on CelebA and on bedrooms of LSUN, at 64x64: SteinGAN's baseline (LW17).

python -m experiments.train --config=configs/gan_celeba.py --workdir=runs/gan_celeba
Bedrooms: --config=configs/gan_celeba.py:lsun

The generator is SteinGAN's, the discriminator that of the authors' library; the lengths
are ours: as many images as SteinGAN sees. Scale ':smoke' is a few steps on noise. The
networks are whole, for an accelerator. Seen so far: a step traced on images read
through TFDS, the same code on small networks, and two steps of '' on an .npz of 64x64
images: 48 s and 2.6 GB a step of one core; no training at this size.
"""

from ml_collections import ConfigDict

# Weights of the discriminator, norms apart, LW17's '17 M':
# 25*(3*128 + 128*256 + 256*512 + 512*1024) + 4*4*1024
#     = 9,600 + 819,200 + 3,276,800 + 13,107,200 + 16,384 = 17,229,184


def get_config(scale=''):
  """Returns the config at that scale."""
  if scale not in ('', 'lsun', 'smoke'):
    raise ValueError(f'scale={scale!r} is unknown; allowed: lsun, smoke.')
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
      conditional=False,
      l1_weight=0.0,
    )
  )
  config.sample = ConfigDict()
  config.energy = ConfigDict(
    dict(name='Discriminator', widths=(128, 256, 512, 1024), norm='batch')
  )
  config.generator = ConfigDict(
    dict(
      name='DCGAN',
      shape=(64, 64, 3),
      latent_dim=100,
      base=1024,
      widths=(512, 256, 128),
      strides=(2, 2, 2, 2),
      output='tanh',
    )
  )
  adam = dict(name='adam', learning_rate=2e-4, b1=0.5, l2=1e-5)
  config.energy_optimizer = ConfigDict(adam)
  config.generator_optimizer = ConfigDict(adam)
  name, test, num_steps = 'celeb_a', 'test', 63_000  # 50 epochs of 162,770
  if scale == 'lsun':
    name, test, num_steps = 'lsun', 'validation', 470_000  # 20 of 3,033,042
  config.data = ConfigDict(dict(name=name, split='train', pixels='symmetric'))
  config.evaluation = ConfigDict(
    dict(
      data=dict(name=name, split=test, pixels='symmetric'),
      log_likelihood='none',
      num_samples=196,
    )
  )
  config.seed, config.batch_size, config.num_steps = 0, 128, num_steps
  config.parallel, config.steps_per_call = 'jit', 1
  config.prng_impl, config.on_nonfinite = 'threefry2x32', 'stop'
  config.matmul_precision = 'float32'
  config.log_every = 100
  config.eval_every, config.checkpoint_every = 1000, 1000
  if scale == 'smoke':
    shape = dict(name='synthetic', shape=(8, 8, 3), pixels='symmetric')
    config.data = ConfigDict(dict(shape, split='train'))
    config.evaluation.data = ConfigDict(dict(shape, split='test'))
    config.energy.widths = (2, 3)
    config.generator.update(
      shape=(8, 8, 3), base=2, widths=(2,), strides=(2, 2)
    )
    sgd = dict(name='sgd', learning_rate=0.01)
    config.energy_optimizer = ConfigDict(sgd)
    config.generator_optimizer = ConfigDict(sgd)
    config.batch_size, config.num_steps, config.evaluation.num_samples = 8, 4, 4
    config.log_every, config.eval_every, config.checkpoint_every = 2, 2, 2
  return config
