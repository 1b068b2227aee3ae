"""An EBM and a VAE that amortises its sampling, on CIFAR-10 (X21, table 1).

python -m experiments.train --config=configs/vae_teaching_cifar10.py \
  --workdir=runs/vae_teaching_cifar10
With Langevin noise, as printed: --config.step.noise=True --config.sample.noise=True

The numbers of the authors' code, which is without noise and revises with 30 steps when
tested; but as many chains as images, 250, where theirs has 900. Scale ':smoke' is a few
steps on noise.
Not run to the end: no GPU was at hand. No result to expect.
"""

from stein_jax.runs import configs

CONFIG = dict(
  algorithm='vae_teaching',
  step=dict(chain=dict(noise=False)),
  sample=dict(chain=dict(num_steps=30, clip=(-1.0, 1.0))),
  energy=dict(
    name='ConvNet',
    kernels=(3, 4, 4, 4),
    reference_sigma=0.016,
    strides=(1, 2, 2, 2),
    widths=(64, 128, 256, 256),
  ),
  generator=dict(
    name='VAE',
    encoder_kernels=(3, 4, 4, 4),
    encoder_strides=(1, 2, 2, 2),
    encoder_widths=(64, 128, 256, 512),
    kernels=(4, 4, 3, 3),
    last_norm=False,
    scale=0.005,
    shape=(32, 32, 3),
    strides=(2, 2, 2, 1),
    widths=(128, 64, 64),
  ),
  energy_optimizer=dict(
    name='adam',
    b1=0.5,
    learning_rate=dict(
      name='exponential_decay',
      decay_rate=0.98,
      init_value=0.009,
      transition_steps=4000,
    ),
  ),
  generator_optimizer=dict(
    name='adam',
    b1=0.5,
    learning_rate=dict(
      name='exponential_decay',
      decay_rate=0.98,
      init_value=0.0002,
      transition_steps=4000,
    ),
  ),
  data='cifar10',
  evaluation=dict(num_samples=900),
  batch_size=250,
  num_steps=1000000,
  eval_every=5000,
  checkpoint_every=5000,
)
VARIANTS = dict(
  smoke=dict(
    step=dict(chain=dict(num_steps=2)),
    sample=dict(chain=dict(num_steps=2)),
    energy=dict(widths=(2, 2, 2, 2)),
    generator=dict(
      base=2,
      encoder_widths=(2, 2, 2, 2),
      latent_dim=3,
      shape=(8, 8, 3),
      widths=(2, 2, 2),
    ),
    energy_optimizer=dict(learning_rate=0.0001),
    generator_optimizer=dict(learning_rate=0.0001),
    data=dict(name='synthetic', pixels='symmetric', shape=(8, 8, 3)),
    batch_size=4,
  )
)
get_config = configs.scales(CONFIG, VARIANTS)
