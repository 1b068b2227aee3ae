"""An EBM and a VAE that amortises its sampling, on MNIST (X21, figure 1).

python -m experiments.train --config=configs/vae_teaching_mnist.py:narrow \
  --workdir=runs/vae_teaching
Fashion-MNIST: --config.data.name=fashion_mnist \
  --config.evaluation.data.name=fashion_mnist
With Langevin noise, as printed: --config.step.chain.noise=True \
  --config.sample.chain.noise=True

Scales: '' has the numbers of the authors' code, which is without noise; ':narrow' a
quarter of their width, 20 Langevin steps of twice the size, batches of 64 and 3,000
steps, for two cores, and because they are few a faster autoencoder that says more:
rate 1e-3, gamma 0.5 (with 3, samples are half as varied), no dropout; ':smoke' a few
steps on noise.
Expect of ':narrow' after 1,000 steps, two seeds: inception score 4.3, 3.8, Frechet
distance 133, 157 by a CNN of 98.7 %; 4.9, 4.8 and 92, 96 with the larger, noisy steps
of `langevin_ebm_mnist`. '' has not been run to its end.
"""

from ml_collections import ConfigDict


def get_config(scale=''):
  """Returns the config at that scale."""
  if scale not in ('', 'narrow', 'smoke'):
    raise ValueError(f'scale={scale!r} is unknown; allowed: narrow, smoke.')
  config = ConfigDict()
  config.algorithm = 'vae_teaching'
  chain = dict(
    name='Langevin',
    num_steps=50,
    step_size=0.001,
    noise=False,
    temperature=1.0,
    clip=(),
  )
  config.step = ConfigDict(
    dict(
      chain=chain,
      kl_weight=3.0,
      kl='prior',
      num_importance=10,
      data_weight=0.0,
      energy_l2=0.0,
    )
  )
  config.sample = ConfigDict(dict(chain=chain))
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
  config.generator = ConfigDict(
    dict(
      name='VAE',
      shape=(28, 28, 1),
      latent_dim=100,
      base=256,
      widths=(128, 64),
      encoder_widths=(64, 64, 64),
      dropout=0.2,
    )
  )
  decayed = lambda rate: dict(
    name='adam',
    learning_rate=dict(
      name='exponential_decay',
      init_value=rate,
      transition_steps=3000,  # 20 epochs
      decay_rate=0.98,
    ),
    b1=0.5,
  )
  config.energy_optimizer = ConfigDict(decayed(0.009))
  config.generator_optimizer = ConfigDict(decayed(1e-4))
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
  # 5,000 epochs.
  config.seed, config.batch_size, config.num_steps = 0, 400, 750_000
  config.parallel, config.steps_per_call = 'jit', 1
  config.prng_impl, config.on_nonfinite = 'threefry2x32', 'stop'
  config.matmul_precision = 'float32'
  config.log_every = 100
  config.eval_every, config.checkpoint_every = 1000, 1000
  if scale == 'narrow':
    chain = dict(num_steps=20, step_size=0.002)
    config.step.chain.update(chain)
    config.step.kl_weight = 0.5
    config.sample.chain.update(chain)
    config.energy.update(widths=(16, 32, 64), strides=(2, 2, 2))
    config.generator.update(base=64, widths=(32, 16), encoder_widths=(16,) * 3)
    config.generator.dropout = 0.0
    config.generator_optimizer.learning_rate.init_value = 1e-3
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
    config.generator.encoder_widths = (2, 2, 2)
    sgd = dict(name='sgd', learning_rate=1e-4)
    config.energy_optimizer = ConfigDict(sgd)
    config.generator_optimizer = ConfigDict(sgd)
    config.batch_size, config.num_steps, config.evaluation.num_samples = 4, 4, 4
    config.log_every, config.eval_every, config.checkpoint_every = 2, 2, 2
  return config
