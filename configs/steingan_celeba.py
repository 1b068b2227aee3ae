"""SteinGAN on CelebA and on bedrooms of LSUN, at 64x64 (LW17, section 5.2; WL16).

python -m experiments.train --config=configs/steingan_celeba.py \
  --workdir=runs/steingan_celeba
Bedrooms: --config=configs/steingan_celeba.py:lsun

Scales: '' and ':lsun' are LW17's, as its authors' code of April 2017 has them; ':wl16'
that of WL16, November 2016, on CelebA; ':smoke' a few steps on noise. The networks are
the authors' whole, for an accelerator. Seen so far: a step traced on images read
through TFDS, the same code on small networks, and a step or two of each scale on an
.npz of 64x64 images (36 to 90 s of one core with compiling, ':wl16' in 7.8 GB); no
training at this size.
"""

from ml_collections import ConfigDict

# Weights, side^2 x maps in x maps out, once for encoder and decoder; norms apart.
# 2017: 9*3*64 + 25*64*128 + 9*128*128 + 25*128*256 + 9*256*256 + 16*256*256
#     = 1,728 + 204,800 + 147,456 + 819,200 + 589,824 + 1,048,576 = 2,811,584
# 2016: 9*3*128 + 16*128*128 + 9*128*256 + 16*256*256 + 9*256*512 + 16*512*512
#     = 3,456 + 262,144 + 294,912 + 1,048,576 + 1,179,648 + 4,194,304 = 6,983,040
# Generator: 100*4*4*1024 + 25*(1024*512 + 512*256 + 256*128 + 128*3)
#     = 1,638,400 + 13,107,200 + 3,276,800 + 819,200 + 9,600 = 18,851,200


def get_config(scale=''):
  """Returns the config at that scale."""
  if scale not in ('', 'lsun', 'wl16', 'smoke'):
    raise ValueError(f'scale={scale!r} is unknown; allowed: lsun, wl16, smoke.')
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
      controller='speed',
      alpha=0.0,
      epsilon=0.1,
      joint=True,
      conditional=False,
    )
  )
  config.sample = ConfigDict()
  config.energy = ConfigDict(
    dict(
      name='Autoencoder',
      convs=(
        (64, 3, 1, 1),
        (128, 5, 4, 2),
        (128, 3, 1, 1),
        (256, 5, 4, 2),
        (256, 3, 1, 1),
        (256, 4, 4, 0),
      ),
      output='tanh',
      residual='l1_l2',
      norm='batch',
      dropout=0.3,
    )
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
  adam = dict(name='adam', b1=0.5, l2=1e-5)
  # 5e-4 where samples are reconstructed better than data: 'speed'.
  config.energy_optimizer = ConfigDict(dict(adam, learning_rate=1e-4))
  config.generator_optimizer = ConfigDict(dict(adam, learning_rate=1e-3))
  name, test, num_steps = 'celeb_a', 'test', 81_000  # 50 epochs of 162,770
  if scale == 'lsun':
    name, test, num_steps = 'lsun', 'validation', 600_000  # 20 of 3,033,042
  config.data = ConfigDict(dict(name=name, split='train', pixels='symmetric'))
  config.evaluation = ConfigDict(
    dict(
      data=dict(name=name, split=test, pixels='symmetric'),
      log_likelihood='none',
      num_samples=196,
    )
  )
  config.seed, config.batch_size, config.num_steps = 0, 100, num_steps
  config.parallel, config.steps_per_call = 'jit', 1
  config.prng_impl, config.on_nonfinite = 'threefry2x32', 'stop'
  config.matmul_precision = 'float32'
  config.log_every = 100
  config.eval_every, config.checkpoint_every = 1000, 1000
  if scale == 'wl16':
    config.step.update(repulsion='swapped', normalize='row_sum')
    config.energy.residual = 'l2'
    config.energy.convs = (
      (128, 3, 1, 1),
      (128, 4, 4, 0),
      (256, 3, 1, 1),
      (256, 4, 4, 0),
      (512, 3, 1, 1),
      (512, 4, 4, 0),
    )
    config.num_steps = 32_000  # 20 epochs
  if scale == 'smoke':
    shape = dict(name='synthetic', shape=(8, 8, 3), pixels='symmetric')
    config.data = ConfigDict(dict(shape, split='train'))
    config.evaluation.data = ConfigDict(dict(shape, split='test'))
    config.energy.convs = ((2, 3, 1, 1), (3, 4, 4, 0))
    config.generator.update(
      shape=(8, 8, 3), base=2, widths=(2,), strides=(2, 2)
    )
    sgd = dict(name='sgd', learning_rate=0.01)
    config.energy_optimizer = ConfigDict(sgd)
    config.generator_optimizer = ConfigDict(sgd)
    config.batch_size, config.num_steps, config.evaluation.num_samples = 8, 4, 4
    config.log_every, config.eval_every, config.checkpoint_every = 2, 2, 2
  return config
