"""Variational contrastive divergence on CIFAR-10 (Z16, section 7.2).

python -m experiments.train --config=configs/vcd_cifar10.py --workdir=runs/vcd_cifar10
rho is what the paper varies: --config.step.rho=0.1

Scales: ':narrow' a quarter of the authors' widths, for two cores; ':smoke' a few steps
on noise.
"""

from ml_collections import ConfigDict


def get_config(scale=''):
  """Returns the config at that scale."""
  if scale not in ('', 'narrow', 'smoke'):
    raise ValueError(f'scale={scale!r} is unknown; allowed: narrow, smoke.')
  config = ConfigDict()
  config.algorithm = 'vcd'
  config.step = ConfigDict(
    dict(
      rho=0.01,
      reconstruction='cross_entropy',
      num_generator_steps=1,
      generator_entropy=1.0,
      data_entropy=1.0,
    )
  )
  config.sample = ConfigDict(dict(num_steps=9))
  config.energy = ConfigDict(
    dict(name='MultiModal', widths=(128, 128), dense=1024, num_experts=128)
  )
  config.generator = ConfigDict(
    dict(
      name='TransitionOperator',
      shape=(32, 32, 3),
      widths=(256, 256),
      latent_dim=2048,
      keep=0.5,
    )
  )
  adadelta = dict(name='adadelta', learning_rate=0.1, rho=0.95, eps=1e-6)
  config.energy_optimizer = ConfigDict(adadelta)
  config.generator_optimizer = ConfigDict(adadelta)
  config.data = ConfigDict(
    dict(name='cifar10', split='train[:40000]', pixels='unit')
  )
  config.evaluation = ConfigDict(
    dict(
      data=dict(name='cifar10', split='test', pixels='unit'),
      log_likelihood='none',
      num_samples=100,
    )
  )
  # Half of a batch is the energy's, half the operator's: 100 epochs.
  config.seed, config.batch_size, config.num_steps = 0, 200, 20_000
  config.parallel, config.steps_per_call = 'jit', 1
  config.prng_impl, config.on_nonfinite = 'threefry2x32', 'stop'
  config.matmul_precision = 'float32'
  config.log_every = 100
  config.eval_every, config.checkpoint_every = 1000, 1000
  if scale == 'narrow':
    config.energy.update(widths=(32, 32), dense=128)
    config.generator.update(widths=(64, 64), latent_dim=256)
    config.batch_size, config.num_steps = 100, 2000
  if scale == 'smoke':
    shape = dict(name='synthetic', shape=(8, 8, 3))
    config.data = ConfigDict(dict(shape, split='train'))
    config.evaluation.data = ConfigDict(dict(shape, split='test'))
    config.energy.update(widths=(2, 2), dense=4, num_experts=3)
    config.generator.update(shape=(8, 8, 3), widths=(2, 2), latent_dim=3)
    sgd = dict(name='sgd', learning_rate=0.01)
    config.energy_optimizer = ConfigDict(sgd)
    config.generator_optimizer = ConfigDict(sgd)
    config.batch_size, config.num_steps, config.evaluation.num_samples = 8, 4, 4
    config.log_every, config.eval_every, config.checkpoint_every = 2, 2, 2
  return config
