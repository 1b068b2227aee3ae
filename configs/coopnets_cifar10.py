"""Cooperative networks on CIFAR-10, X21's nearest baseline.

python -m experiments.train --config=configs/coopnets_cifar10.py \
  --workdir=runs/coopnets_cifar10

The numbers of the authors' code, with 100 chains for its 144. Scale ':smoke' is a few
steps on noise.
Not run to the end: no GPU was at hand. No result to expect.
"""

from stein_jax.runs import configs

CONFIG = dict(
  algorithm='coopnets',
  energy=dict(
    name='ConvNet',
    kernels=(3, 4, 4, 4),
    reference_sigma=0.016,
    scale=0.01,
    strides=(1, 2, 2, 2),
    widths=(64, 128, 256, 256),
  ),
  generator=dict(
    name='VAE',
    encoder_widths=(),
    kernels=(4, 4, 3, 3),
    last_norm=False,
    scale=0.005,
    shape=(32, 32, 3),
    strides=(2, 2, 2, 1),
    widths=(128, 64, 64),
  ),
  energy_optimizer=dict(name='adam', b1=0.5, learning_rate=0.007),
  generator_optimizer=dict(name='adam', b1=0.5, learning_rate=0.0001),
  data='cifar10',
  evaluation=dict(num_samples=900),
  num_steps=500000,
)
VARIANTS = dict(
  smoke=dict(
    step=dict(chain=dict(num_steps=2)),
    energy=dict(widths=(2, 2, 2, 2)),
    generator=dict(base=2, latent_dim=3, shape=(8, 8, 3), widths=(2, 2, 2)),
    energy_optimizer=dict(learning_rate=0.0001),
    generator_optimizer=dict(learning_rate=0.0001),
    data=dict(name='synthetic', pixels='symmetric', shape=(8, 8, 3)),
    batch_size=4,
  )
)
get_config = configs.scales(CONFIG, VARIANTS)
