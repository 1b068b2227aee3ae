"""Cooperative networks on MNIST, X21's nearest baseline.

python -m experiments.train --config=configs/coopnets_mnist.py:narrow \
  --workdir=runs/coopnets_mnist

Scales: '' has the numbers of the authors' code; ':narrow' a quarter of its width, 20
Langevin steps without noise as the VAE beside it has, batches of 64 and 3,000 steps,
for two cores; ':smoke' a few steps on noise.
Expect of ':narrow' after 1,000 steps, two seeds: inception score 3.9, 4.1, Frechet
distance 154, 152 by a CNN of 98.7 %. '' has not been run to its end.
"""

from stein_jax.runs import configs

CONFIG = dict(
  algorithm='coopnets',
  energy=dict(
    name='ConvNet',
    kernels=(4, 4, 4),
    outputs=100,
    reference_sigma=0.016,
    scale=0.01,
    strides=(2, 2, 2),
  ),
  generator=dict(name='VAE', base=512, encoder_widths=(), widths=(256, 128)),
  energy_optimizer=dict(name='adam', b1=0.5, learning_rate=0.007),
  generator_optimizer=dict(name='adam', b1=0.5, learning_rate=0.0001),
  data=dict(name='mnist', pixels='symmetric'),
  evaluation=dict(num_samples=400),
  num_steps=600000,
)
VARIANTS = dict(
  narrow=dict(
    step=dict(chain=dict(num_steps=20, noise=False)),
    energy=dict(kernels=(5, 3, 3), widths=(16, 32, 64)),
    generator=dict(base=64, widths=(32, 16)),
    energy_optimizer=dict(learning_rate=0.009),
    generator_optimizer=dict(learning_rate=0.001),
    evaluation=dict(num_samples=100),
    batch_size=64,
    num_steps=3000,
    eval_every=500,
  ),
  smoke=dict(
    step=dict(chain=dict(num_steps=2)),
    energy=dict(outputs=2, widths=(2, 2, 2)),
    generator=dict(base=2, latent_dim=3, shape=(8, 8, 1), widths=(2, 2)),
    energy_optimizer=dict(learning_rate=0.0001),
    generator_optimizer=dict(learning_rate=0.0001),
    data=dict(name='synthetic', pixels='symmetric'),
    batch_size=4,
  ),
)
get_config = configs.scales(CONFIG, VARIANTS)
