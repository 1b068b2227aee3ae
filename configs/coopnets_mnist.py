"""Cooperative networks on MNIST, X21's nearest baseline.

python -m experiments.train --config=configs/coopnets_mnist.py:narrow \
  --workdir=runs/coopnets_mnist

Scales: '' has the numbers of the authors' code; ':narrow' a quarter of its width, 20
Langevin steps without noise as the VAE beside it has, batches of 64 and 3,000 steps,
for two cores; ':smoke' a few steps on noise.
Expect of ':narrow' after 1,000 steps, two seeds: inception score 3.9, 4.1, Frechet
distance 154, 152 by a CNN of 98.7 %. '' has not been run to its end.
"""

from ml_collections import ConfigDict


def get_config(scale=''):
  """Returns the config at that scale."""
  if scale not in ('', 'narrow', 'smoke'):
    raise ValueError(f'scale={scale!r} is unknown; allowed: narrow, smoke.')
  config = ConfigDict()
  config.algorithm = 'coopnets'
  chain = dict(
    name='Langevin',
    num_steps=15,
    step_size=0.002,
    noise=True,
    temperature=1.0,
    clip=(),
  )
  config.step = ConfigDict(
    dict(chain=chain, generator_sigma=0.3, data_weight=0.0, energy_l2=0.0)
  )
  config.sample = ConfigDict(dict(chain=chain))
  config.energy = ConfigDict(
    dict(
      name='ConvNet',
      widths=(64, 128, 256),
      kernels=(4, 4, 4),
      strides=(2, 2, 2),
      outputs=100,
      reference_sigma=0.016,
      scale=0.01,
    )
  )
  config.generator = ConfigDict(
    dict(
      name='VAE',
      shape=(28, 28, 1),
      latent_dim=100,
      base=512,
      widths=(256, 128),
      encoder_widths=(),
    )
  )
  adam = lambda rate: dict(name='adam', learning_rate=rate, b1=0.5)
  config.energy_optimizer = ConfigDict(adam(0.007))
  config.generator_optimizer = ConfigDict(adam(1e-4))
  config.data = ConfigDict(
    dict(name='mnist', split='train', pixels='symmetric')
  )
  config.evaluation = ConfigDict(
    dict(
      data=dict(name='mnist', split='test', pixels='symmetric'),
      log_likelihood='none',
      num_samples=400,
    )
  )
  # 1,000 epochs.
  config.seed, config.batch_size, config.num_steps = 0, 100, 600_000
  config.parallel, config.steps_per_call = 'jit', 1
  config.prng_impl, config.on_nonfinite = 'threefry2x32', 'stop'
  config.matmul_precision = 'float32'
  config.log_every = 100
  config.eval_every, config.checkpoint_every = 1000, 1000
  if scale == 'narrow':
    chain = dict(num_steps=20, noise=False)
    config.step.chain.update(chain)
    config.sample.chain.update(chain)
    config.energy.update(widths=(16, 32, 64), kernels=(5, 3, 3))
    config.generator.update(base=64, widths=(32, 16))
    config.energy_optimizer.learning_rate = 0.009
    config.generator_optimizer.learning_rate = 1e-3
    config.batch_size, config.num_steps = 64, 3000
    config.eval_every, config.evaluation.num_samples = 500, 100
  if scale == 'smoke':
    shape = dict(name='synthetic', shape=(8, 8, 1), pixels='symmetric')
    config.data = ConfigDict(dict(shape, split='train'))
    config.evaluation.data = ConfigDict(dict(shape, split='test'))
    config.step.chain.num_steps = config.sample.chain.num_steps = 2
    config.energy.update(widths=(2, 2, 2), outputs=2)
    config.generator.update(
      shape=(8, 8, 1), latent_dim=3, base=2, widths=(2, 2)
    )
    sgd = dict(name='sgd', learning_rate=1e-4)
    config.energy_optimizer = ConfigDict(sgd)
    config.generator_optimizer = ConfigDict(sgd)
    config.batch_size, config.num_steps, config.evaluation.num_samples = 4, 4, 4
    config.log_every, config.eval_every, config.checkpoint_every = 2, 2, 2
  return config
