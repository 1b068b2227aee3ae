"""VGAN on CIFAR-10, and the GAN beside it (Z16, section 7.1, table 1).

python -m experiments.train --config=configs/vgan_cifar10.py --workdir=runs/vgan_cifar10
Shorter runs are in experiments/reproduce/results/vgan_features.md. The paper names
neither widths nor latent vector nor batch: they are those of the authors' code for
variational contrastive divergence.
Scales: ':gan' is the GAN in the same networks; ':narrow' and ':narrow_gan' are an
eighth as wide, with half the batch, for two cores.
Three steps of the generator for one of the energy: --config.step.num_generator_steps=3
"""

from stein_jax.runs import configs

_ADADELTA = dict(name='adadelta', learning_rate=0.1, rho=0.95)
_MAPS = dict(base=256, dense=(1024,), widths=(256,), strides=(2, 2))
CONFIG = dict(
  algorithm='vgan',
  energy=dict(name='MultiModal', widths=(128, 128), num_experts=100),
  generator=dict(_MAPS, name='DCGAN', output='sigmoid'),
  energy_optimizer=_ADADELTA,
  generator_optimizer=_ADADELTA,
  data=dict(name='cifar10', pixels='unit'),
  evaluation=dict(num_samples=200),
  num_steps=50000,
)
_GAN = dict(
  algorithm='gan',
  step=dict(loss='minimax'),
  energy=dict(name='Unimodal', widths=(128, 128)),
)
_NARROW = dict(
  energy=dict(widths=(16, 16), dense=128),
  generator=dict(base=32, dense=(128,), widths=(32,)),
  batch_size=50,
  num_steps=2000,
)
_NARROW_GAN = configs.changed(_GAN, _NARROW)
_SMOKE = dict(
  energy=dict(widths=(2, 2), dense=4, num_experts=3),
  generator=dict(shape=(8, 8, 3), base=2, dense=(4,), widths=(2,)),
  data=dict(name='synthetic', shape=(8, 8, 3)),
)
get_config = configs.scales(
  CONFIG, gan=_GAN, narrow=_NARROW, narrow_gan=_NARROW_GAN, smoke=_SMOKE
)
