"""Langevin EBM with a replay buffer on CIFAR-10 (X21's row EBM, of Du & Mordatch).

python -m experiments.train --config=configs/langevin_ebm_cifar10.py \
  --workdir=runs/langevin_ebm_cifar10

Buffer, restarts, 60 steps, the weight of the energies' squares, spectral norm and the
optimiser are those of Du & Mordatch 2019; their step 10 and noise 0.005 are of images
in [0, 1], and here of images in [-1, 1]. The network is X21's, theirs is residual.
Scale ':smoke' is a few steps on noise.
Not run to the end: no GPU was at hand. No result to expect.
"""

from ml_collections import ConfigDict


def get_config(scale=''):
  """Returns the config at that scale."""
  if scale not in ('', 'smoke'):
    raise ValueError(f'scale={scale!r} is unknown; allowed: smoke.')
  config = ConfigDict()
  config.algorithm = 'langevin_ebm'
  config.num_chains = 10_000
  # delta^2 / 2 = 4 * 10 and sqrt(temperature) delta = 2 * 0.005.
  chain = dict(
    name='Langevin',
    num_steps=60,
    step_size=8.944,
    noise=True,
    temperature=1.25e-6,
    clip=(-1.0, 1.0),
  )
  config.step = ConfigDict(
    dict(chain=chain, start_scale=1.0, restart=0.05, energy_l2=1.0)
  )
  config.sample = ConfigDict(dict(chain=chain, start_scale=1.0))
  config.energy = ConfigDict(
    dict(
      name='ConvNet',
      widths=(64, 128, 256, 256),
      kernels=(3, 4, 4, 4),
      strides=(1, 2, 2, 2),
      outputs=1,
      reference_sigma=0.0,
      activation='swish',
      spectral_norm=True,
    )
  )
  config.optimizer = ConfigDict(
    dict(name='adam', learning_rate=1e-4, b1=0.0, max_norm=1.0)
  )
  config.data = ConfigDict(
    dict(name='cifar10', split='train', pixels='symmetric')
  )
  config.evaluation = ConfigDict(
    dict(
      data=dict(name='cifar10', split='test', pixels='symmetric'),
      log_likelihood='none',
      num_samples=400,
    )
  )
  config.seed, config.batch_size, config.num_steps = 0, 128, 60_000
  config.parallel, config.steps_per_call = 'jit', 1
  config.prng_impl, config.on_nonfinite = 'threefry2x32', 'stop'
  config.matmul_precision = 'float32'
  config.log_every = 100
  config.eval_every, config.checkpoint_every = 1000, 1000
  if scale == 'smoke':
    config.num_chains = 8
    shape = dict(name='synthetic', shape=(8, 8, 3), pixels='symmetric')
    config.data = ConfigDict(dict(shape, split='train'))
    config.evaluation.data = ConfigDict(dict(shape, split='test'))
    config.step.chain.num_steps = config.sample.chain.num_steps = 2
    config.energy.widths = (2, 2, 2, 2)
    config.optimizer = ConfigDict(dict(name='sgd', learning_rate=1e-4))
    config.batch_size, config.num_steps, config.evaluation.num_samples = 4, 4, 4
    config.log_every, config.eval_every, config.checkpoint_every = 2, 2, 2
  return config
