"""VGAN on MNIST: an energy of experts and a generator (Z16, section 5).

python -m experiments.train --config=configs/vgan_mnist.py --workdir=runs/vgan
Shorter runs are in experiments/reproduce/results/vgan_choices.md. The paper has VGAN on
CIFAR-10 alone; the networks are those of its MNIST experiments, a quarter as wide and
with dense layers an eighth as wide, for two cores.
Scales: ':gan' is the GAN in the same networks; ':unbounded' has an energy without
bound, which explodes (Z16, section 4).
"""

from stein_jax.runs import configs

_ADADELTA = dict(name='adadelta', learning_rate=0.1, rho=0.95)
_MAPS = dict(base=16, dense=(128,), widths=(16,), strides=(2, 2))
CONFIG = dict(
  algorithm='vgan',
  energy=dict(name='MultiModal', widths=(16, 16), dense=128),
  generator=dict(_MAPS, name='DCGAN', shape=(28, 28, 1), output='sigmoid'),
  energy_optimizer=_ADADELTA,
  generator_optimizer=_ADADELTA,
  data=dict(name='mnist', split='train[:50000]'),
  evaluation=dict(num_samples=200),
)
_GAN = dict(
  algorithm='gan',
  step=dict(loss='minimax'),
  energy=dict(name='Unimodal', widths=(16, 16), dense=128),
)
_UNBOUNDED = dict(
  step=dict(generator_entropy=0.0, data_entropy=0.0),
  energy=dict(name='BinaryRBM', num_hidden=128),
)
_SMOKE = dict(
  energy=dict(widths=(2, 2), dense=4, num_experts=3),
  generator=dict(shape=(8, 8, 1), base=2, dense=(4,), widths=(2,)),
  data='synthetic',
)
get_config = configs.scales(
  CONFIG, gan=_GAN, unbounded=_UNBOUNDED, smoke=_SMOKE
)
