"""VGAN on MNIST: an energy of experts and a generator (Z16, section 5).

python -m experiments.train --config=configs/vgan_mnist.py --workdir=runs/vgan
The GAN beside it, in the same networks: configs/vgan_mnist.py:gan
An energy without bound, which explodes (Z16, section 4):
  configs/vgan_mnist.py:unbounded

The paper has VGAN on CIFAR-10 alone; the networks are those of its MNIST experiments,
a quarter as wide and with dense layers an eighth as wide, for two cores. Scale
':smoke' is a few steps on noise.
"""

from stein_jax.runs import configs

CONFIG = dict(
  algorithm='vgan',
  energy=dict(name='MultiModal', dense=128, widths=(16, 16)),
  generator=dict(
    name='DCGAN',
    base=16,
    dense=(128,),
    output='sigmoid',
    shape=(28, 28, 1),
    strides=(2, 2),
    widths=(16,),
  ),
  energy_optimizer=dict(name='adadelta', learning_rate=0.1, rho=0.95),
  generator_optimizer=dict(name='adadelta', learning_rate=0.1, rho=0.95),
  data=dict(name='mnist', split='train[:50000]'),
  evaluation=dict(num_samples=200),
)
VARIANTS = dict(
  gan=dict(
    algorithm='gan',
    step=dict(loss='minimax'),
    energy=dict(name='Unimodal', dense=128, widths=(16, 16)),
  ),
  smoke=dict(
    energy=dict(dense=4, num_experts=3, widths=(2, 2)),
    generator=dict(base=2, dense=(4,), shape=(8, 8, 1), widths=(2,)),
    data=dict(name='synthetic'),
  ),
  unbounded=dict(
    step=dict(data_entropy=0.0, generator_entropy=0.0),
    energy=dict(name='BinaryRBM', num_hidden=128),
  ),
)
get_config = configs.scales(CONFIG, VARIANTS)
