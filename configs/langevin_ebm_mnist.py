"""Langevin EBM on MNIST, without an amortised sampler (X21, panel 3).

python -m experiments.train --config=configs/langevin_ebm_mnist.py:narrow \
  --workdir=runs/langevin_ebm
Fashion-MNIST: --config.data.name=fashion_mnist \
  --config.evaluation.data.name=fashion_mnist
Persistent chains: --config.num_chains=100 --config.step.restart=0.0
A replay buffer: --config.num_chains=10000

The energy is that of `vae_teaching_mnist`. Chains of every step start at uniform noise;
the reference pulls them to 0 only slowly, so they are longer and their steps larger.
Scales: ':narrow' as there, for two cores; ':smoke' a few steps on noise.
Expect of ':narrow' after 1,000 steps, two seeds: inception score 4.5, 4.1, Frechet
distance 110, 124 by a CNN of 98.7 %; with 5,000 chains in the buffer 5.3, 5.6 and 81,
68. '' has not been run to its end.
"""

from ml_collections import ConfigDict


def get_config(scale=''):
  """Returns the config at that scale."""
  if scale not in ('', 'narrow', 'smoke'):
    raise ValueError(f'scale={scale!r} is unknown; allowed: narrow, smoke.')
  config = ConfigDict()
  config.algorithm = 'langevin_ebm'
  config.num_chains = 0
  chain = dict(
    name='Langevin',
    num_steps=60,
    step_size=0.004,
    noise=True,
    temperature=1.0,
    clip=(-1.0, 1.0),
  )
  config.step = ConfigDict(
    dict(chain=chain, start_scale=1.0, restart=0.05, energy_l2=0.0)
  )
  config.sample = ConfigDict(dict(chain=chain, start_scale=1.0))
  config.energy = ConfigDict(
    dict(
      name='ConvNet',
      widths=(64, 128, 256),
      kernels=(5, 3, 3),
      strides=(2, 2, 1),
      outputs=100,
      reference_sigma=0.016,
    )
  )
  config.optimizer = ConfigDict(dict(name='adam', learning_rate=0.009, b1=0.5))
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
  config.seed, config.batch_size, config.num_steps = 0, 400, 150_000
  config.parallel, config.steps_per_call = 'jit', 1
  config.prng_impl, config.on_nonfinite = 'threefry2x32', 'stop'
  config.matmul_precision = 'float32'
  config.log_every = 100
  config.eval_every, config.checkpoint_every = 1000, 1000
  if scale == 'narrow':
    chain = dict(num_steps=20, step_size=0.008)
    config.step.chain.update(chain)
    config.sample.chain.update(chain)
    config.energy.update(widths=(16, 32, 64), strides=(2, 2, 2))
    config.batch_size, config.num_steps = 64, 3000
    config.eval_every, config.evaluation.num_samples = 500, 100
  if scale == 'smoke':
    config.num_chains = 8
    shape = dict(name='synthetic', shape=(8, 8, 1), pixels='symmetric')
    config.data = ConfigDict(dict(shape, split='train'))
    config.evaluation.data = ConfigDict(dict(shape, split='test'))
    config.step.chain.num_steps = config.sample.chain.num_steps = 2
    config.energy.update(widths=(2, 2, 2), outputs=2)
    config.optimizer = ConfigDict(dict(name='sgd', learning_rate=1e-4))
    config.batch_size, config.num_steps, config.evaluation.num_samples = 4, 4, 4
    config.log_every, config.eval_every, config.checkpoint_every = 2, 2, 2
  return config
