"""An EBM and a VAE that amortises its sampling, on CIFAR-10 (X21, table 1).

python -m experiments.train --config=configs/vae_teaching_cifar10.py \
  --workdir=runs/vae_teaching_cifar10
With Langevin noise, as printed: --config.step.chain.noise=True \
  --config.sample.chain.noise=True

The numbers of the authors' code, which is without noise and revises with 30 steps when
tested; but as many chains as images, 250, where theirs has 900. Scale ':smoke' is a few
steps on noise.
Not run to the end: no GPU was at hand. No result to expect.
"""

from ml_collections import ConfigDict


def get_config(scale=''):
  """Returns the config at that scale."""
  if scale not in ('', 'smoke'):
    raise ValueError(f'scale={scale!r} is unknown; allowed: smoke.')
  config = ConfigDict()
  config.algorithm = 'vae_teaching'
  chain = dict(
    name='Langevin',
    num_steps=15,
    step_size=0.002,
    noise=False,
    temperature=1.0,
    clip=(),
  )
  config.step = ConfigDict(
    dict(
      chain=chain,
      kl_weight=2.0,
      kl='prior',
      num_importance=10,
      data_weight=0.0,
      energy_l2=0.0,
    )
  )
  config.sample = ConfigDict(
    dict(chain=dict(chain, num_steps=30, clip=(-1.0, 1.0)))
  )
  config.energy = ConfigDict(
    dict(
      name='ConvNet',
      widths=(64, 128, 256, 256),
      kernels=(3, 4, 4, 4),
      strides=(1, 2, 2, 2),
      outputs=1,
      reference_sigma=0.016,
    )
  )
  config.generator = ConfigDict(
    dict(
      name='VAE',
      shape=(32, 32, 3),
      latent_dim=100,
      base=256,
      widths=(128, 64, 64),
      strides=(2, 2, 2, 1),
      kernels=(4, 4, 3, 3),
      last_norm=False,
      encoder_widths=(64, 128, 256, 512),
      encoder_strides=(1, 2, 2, 2),
      encoder_kernels=(3, 4, 4, 4),
      scale=0.005,
    )
  )
  decayed = lambda rate: dict(
    name='adam',
    learning_rate=dict(
      name='exponential_decay',
      init_value=rate,
      transition_steps=4000,  # 20 epochs
      decay_rate=0.98,
    ),
    b1=0.5,
  )
  config.energy_optimizer = ConfigDict(decayed(0.009))
  config.generator_optimizer = ConfigDict(decayed(2e-4))
  config.data = ConfigDict(
    dict(name='cifar10', split='train', pixels='symmetric')
  )
  config.evaluation = ConfigDict(
    dict(
      data=dict(name='cifar10', split='test', pixels='symmetric'),
      log_likelihood='none',
      num_samples=900,
    )
  )
  # 5,000 epochs.
  config.seed, config.batch_size, config.num_steps = 0, 250, 1_000_000
  config.parallel, config.steps_per_call = 'jit', 1
  config.prng_impl, config.on_nonfinite = 'threefry2x32', 'stop'
  config.matmul_precision = 'float32'
  config.log_every = 100
  config.eval_every, config.checkpoint_every = 5000, 5000
  if scale == 'smoke':
    shape = dict(name='synthetic', shape=(8, 8, 3), pixels='symmetric')
    config.data = ConfigDict(dict(shape, split='train'))
    config.evaluation.data = ConfigDict(dict(shape, split='test'))
    config.step.chain.num_steps = config.sample.chain.num_steps = 2
    config.energy.widths = (2, 2, 2, 2)
    config.generator.update(shape=(8, 8, 3), latent_dim=3, base=2)
    config.generator.update(widths=(2, 2, 2), encoder_widths=(2, 2, 2, 2))
    sgd = dict(name='sgd', learning_rate=1e-4)
    config.energy_optimizer = ConfigDict(sgd)
    config.generator_optimizer = ConfigDict(sgd)
    config.batch_size, config.num_steps, config.evaluation.num_samples = 4, 4, 4
    config.log_every, config.eval_every, config.checkpoint_every = 2, 2, 2
  return config
