"""VGAN on CIFAR-10, and the GAN beside it (Z16, section 7.1, table 1).

python -m experiments.train --config=configs/vgan_cifar10.py --workdir=runs/vgan_cifar10
Three steps of the generator for one of the energy: --config.step.num_generator_steps=3
The GAN, in the same networks: configs/vgan_cifar10.py:gan

The paper names neither widths nor latent vector nor batch: they are those that the
authors' code has for variational contrastive divergence. Scales ':narrow' and
':narrow_gan' are an eighth as wide with half the batch, for two cores; ':smoke' is a
few steps on noise.
"""

from stein_jax.runs import configs

CONFIG = dict(
  algorithm='vgan',
  energy=dict(name='MultiModal', num_experts=100, widths=(128, 128)),
  generator=dict(
    name='DCGAN',
    base=256,
    dense=(1024,),
    output='sigmoid',
    strides=(2, 2),
    widths=(256,),
  ),
  energy_optimizer=dict(name='adadelta', learning_rate=0.1, rho=0.95),
  generator_optimizer=dict(name='adadelta', learning_rate=0.1, rho=0.95),
  data=dict(name='cifar10', pixels='unit'),
  evaluation=dict(num_samples=200),
  num_steps=50000,
)
VARIANTS = dict(
  gan=dict(
    algorithm='gan',
    step=dict(loss='minimax'),
    energy=dict(name='Unimodal', widths=(128, 128)),
  ),
  narrow=dict(
    energy=dict(dense=128, widths=(16, 16)),
    generator=dict(base=32, dense=(128,), widths=(32,)),
    batch_size=50,
    num_steps=2000,
  ),
  narrow_gan=dict(
    algorithm='gan',
    step=dict(loss='minimax'),
    energy=dict(name='Unimodal', dense=128, widths=(16, 16)),
    generator=dict(base=32, dense=(128,), widths=(32,)),
    batch_size=50,
    num_steps=2000,
  ),
  smoke=dict(
    energy=dict(dense=4, num_experts=3, widths=(2, 2)),
    generator=dict(base=2, dense=(4,), shape=(8, 8, 3), widths=(2,)),
    data=dict(name='synthetic', shape=(8, 8, 3)),
  ),
)
get_config = configs.scales(CONFIG, VARIANTS)
