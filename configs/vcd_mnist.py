"""Variational contrastive divergence on MNIST (Z16, section 7.2).

python -m experiments.train --config=configs/vcd_mnist.py --workdir=runs/vcd_mnist
rho is what the paper varies: --config.step.rho=0.1

Scales: '' is the authors' networks; ':narrow' a quarter as wide, half the batch and
2,000 steps, for two cores; ':smoke' a few steps on noise.
Expect of ':narrow': mean squared error of reconstruction 0.023; 91 ms a step
on one core.
"""

from stein_jax.runs import configs

CONFIG = dict(
  algorithm='vcd',
  energy=dict(name='MultiModal'),
  generator=dict(name='TransitionOperator'),
  energy_optimizer=dict(name='adadelta', learning_rate=0.1, rho=0.95),
  generator_optimizer=dict(name='adadelta', learning_rate=0.1, rho=0.95),
  data=dict(name='mnist', split='train[:50000]'),
  batch_size=200,
  num_steps=25000,
)
VARIANTS = dict(
  narrow=dict(
    energy=dict(dense=128, widths=(16, 16)),
    generator=dict(widths=(16, 16)),
    batch_size=100,
    num_steps=2000,
  ),
  smoke=dict(
    energy=dict(dense=4, num_experts=3, widths=(2, 2)),
    generator=dict(latent_dim=3, shape=(8, 8, 1), widths=(2, 2)),
    data=dict(name='synthetic'),
  ),
)
get_config = configs.scales(CONFIG, VARIANTS)
