"""Conditional DCGAN on CIFAR-10, SteinGAN's baseline (LW17 and WL16, figure 2).

python -m experiments.train --config=configs/gan_cifar10.py --workdir=runs/gan_cifar10
There is no result to expect: a step takes 8 s on two cores, one of ':wgan' 35 s, and
three of either have been taken on the real images. Run them on an accelerator.
':wgan' is WGAN-GP without labels, a row of X21's table. The papers do not say how their
DCGAN is conditioned: here labels enter every layer, as in the authors' MNIST script.
"""

from stein_jax.runs import configs

_ADAM = dict(name='adam', learning_rate=2e-4, b1=0.5, l2=1e-5)
_WGAN_ADAM = dict(learning_rate=1e-4, b1=0.0, b2=0.9, l2=0.0)
# The generator's maps are those of `steingan_cifar10`.
_MAPS = dict(widths=(512, 256, 256, 128, 128), strides=(2, 1, 2, 1, 2, 1))
CONFIG = dict(
  algorithm='gan',
  step=dict(joint=False),
  energy=dict(name='Discriminator', widths=(128, 256, 512)),
  generator=dict(_MAPS, name='DCGAN', kernel_size=3),
  energy_optimizer=_ADAM,
  generator_optimizer=_ADAM,
  data=dict(name='cifar10', condition='label'),
  evaluation=dict(num_samples=200),
  batch_size=128,
  num_steps=78000,
)
_SYNTHETIC = dict(name='synthetic', shape=(8, 8, 3), num_classes=4)
_WGAN = dict(
  step=dict(loss='wasserstein', generator_every=5),
  energy=dict(norm='layer'),
  energy_optimizer=_WGAN_ADAM,
  generator_optimizer=_WGAN_ADAM,
  data=dict(condition='none'),
)
_SMOKE = dict(
  energy=dict(widths=(2, 3)),
  generator=dict(shape=(8, 8, 3), base=2, widths=(2,), strides=(2, 2)),
  data=dict(_SYNTHETIC, pixels='symmetric', condition='label'),
)
get_config = configs.scales(CONFIG, wgan=_WGAN, smoke=_SMOKE)
