"""Variational contrastive divergence on CIFAR-10 (Z16, section 7.2).

python -m experiments.train --config=configs/vcd_cifar10.py --workdir=runs/vcd_cifar10
rho is what the paper varies: --config.step.rho=0.1

Scales: ':narrow' a quarter of the authors' widths, for two cores; ':smoke' a few steps
on noise.
"""

from stein_jax.runs import configs

CONFIG = dict(
  algorithm='vcd',
  energy=dict(name='MultiModal', widths=(128, 128)),
  generator=dict(
    name='TransitionOperator',
    latent_dim=2048,
    shape=(32, 32, 3),
    widths=(256, 256),
  ),
  energy_optimizer=dict(name='adadelta', learning_rate=0.1, rho=0.95),
  generator_optimizer=dict(name='adadelta', learning_rate=0.1, rho=0.95),
  data=dict(name='cifar10', pixels='unit', split='train[:40000]'),
  batch_size=200,
  num_steps=20000,
)
VARIANTS = dict(
  narrow=dict(
    energy=dict(dense=128, widths=(32, 32)),
    generator=dict(latent_dim=256, widths=(64, 64)),
    batch_size=100,
    num_steps=2000,
  ),
  smoke=dict(
    energy=dict(dense=4, num_experts=3, widths=(2, 2)),
    generator=dict(latent_dim=3, shape=(8, 8, 3), widths=(2, 2)),
    data=dict(name='synthetic', shape=(8, 8, 3)),
  ),
)
get_config = configs.scales(CONFIG, VARIANTS)
