"""VGAN on CIFAR-10, and the GAN beside it (Z16, section 7.1, table 1).

python -m experiments.train --config=configs/vgan_cifar10.py --workdir=runs/vgan_cifar10
Three steps of the generator for one of the energy: --config.step.num_generator_steps=3
The GAN, in the same networks: configs/vgan_cifar10.py:gan

The paper names neither widths nor latent vector nor batch: they are those that the
authors' code has for variational contrastive divergence. Scales ':narrow' and
':narrow_gan' are an eighth as wide with half the batch, for two cores; ':smoke' is a
few steps on noise.
"""

from ml_collections import ConfigDict


def get_config(scale=''):
  """Returns the config at that scale."""
  if scale not in ('', 'gan', 'narrow', 'narrow_gan', 'smoke'):
    raise ValueError(
      f'scale={scale!r} is unknown; allowed: gan, narrow, narrow_gan, smoke.'
    )
  config = ConfigDict()
  config.algorithm = 'vgan'
  config.step = ConfigDict(
    dict(num_generator_steps=1, generator_entropy=1.0, data_entropy=1.0)
  )
  config.sample = ConfigDict()
  config.energy = ConfigDict(
    dict(name='MultiModal', widths=(128, 128), dense=1024, num_experts=100)
  )
  config.generator = ConfigDict(
    dict(
      name='DCGAN',
      shape=(32, 32, 3),
      latent_dim=100,
      dense=(1024,),
      base=256,
      widths=(256,),
      strides=(2, 2),
      output='sigmoid',
    )
  )
  adadelta = dict(name='adadelta', learning_rate=0.1, rho=0.95, eps=1e-6)
  config.energy_optimizer = ConfigDict(adadelta)
  config.generator_optimizer = ConfigDict(adadelta)
  config.data = ConfigDict(dict(name='cifar10', split='train', pixels='unit'))
  config.evaluation = ConfigDict(
    dict(
      data=dict(name='cifar10', split='test', pixels='unit'),
      log_likelihood='none',
      num_samples=200,
    )
  )
  config.seed, config.batch_size, config.num_steps = 0, 100, 50_000
  config.parallel, config.steps_per_call = 'jit', 1
  config.prng_impl, config.on_nonfinite = 'threefry2x32', 'stop'
  config.matmul_precision = 'float32'
  config.log_every = 100
  config.eval_every, config.checkpoint_every = 1000, 1000
  if scale in ('gan', 'narrow_gan'):
    config.algorithm = 'gan'
    config.step = ConfigDict(
      dict(
        loss='minimax',
        penalty=10.0,
        generator_every=1,
        num_generator_steps=1,
        joint=True,
        conditional=False,
        l1_weight=0.0,
      )
    )
    config.energy = ConfigDict(
      dict(name='Unimodal', widths=(128, 128), dense=1024)
    )
  if scale in ('narrow', 'narrow_gan'):
    config.energy.update(widths=(16, 16), dense=128)
    config.generator.update(dense=(128,), base=32, widths=(32,))
    config.batch_size, config.num_steps = 50, 2000
  if scale == 'smoke':
    shape = dict(name='synthetic', shape=(8, 8, 3))
    config.data = ConfigDict(dict(shape, split='train'))
    config.evaluation.data = ConfigDict(dict(shape, split='test'))
    config.energy.update(widths=(2, 2), dense=4, num_experts=3)
    config.generator.update(shape=(8, 8, 3), dense=(4,), base=2, widths=(2,))
    sgd = dict(name='sgd', learning_rate=0.01)
    config.energy_optimizer = ConfigDict(sgd)
    config.generator_optimizer = ConfigDict(sgd)
    config.batch_size, config.num_steps, config.evaluation.num_samples = 8, 4, 4
    config.log_every, config.eval_every, config.checkpoint_every = 2, 2, 2
  return config
