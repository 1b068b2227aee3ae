"""Variational contrastive divergence on SVHN (Z16, section 7.2).

python -m experiments.train --config=configs/vcd_svhn.py --workdir=runs/vcd_svhn
There is no result to expect: no run to the end has been recorded.
The networks are the authors'; those of ':narrow' are a quarter as wide, for two cores.
The paper varies rho: --config.step.rho=0.1
"""

from stein_jax.runs import configs

_ADADELTA = dict(name='adadelta', learning_rate=0.1, rho=0.95)
_OPERATOR = dict(name='TransitionOperator', shape=(32, 32, 3))
CONFIG = dict(
  algorithm='vcd',
  energy=dict(name='MultiModal', widths=(128, 128)),
  generator=dict(_OPERATOR, widths=(128, 128), latent_dim=2048),
  energy_optimizer=_ADADELTA,
  generator_optimizer=_ADADELTA,
  data=dict(name='svhn_cropped', split='train[:60000]'),
  batch_size=200,  # half for the energy, half for the operator
  num_steps=30000,  # 100 epochs
)
_NARROW = dict(
  energy=dict(widths=(32, 32), dense=128),
  generator=dict(widths=(32, 32), latent_dim=256),
  batch_size=100,
  num_steps=2000,
)
_SMOKE = dict(
  energy=dict(widths=(2, 2), dense=4, num_experts=3),
  generator=dict(shape=(8, 8, 3), widths=(2, 2), latent_dim=3),
  data=dict(name='synthetic', shape=(8, 8, 3)),
)
get_config = configs.scales(CONFIG, narrow=_NARROW, smoke=_SMOKE)
