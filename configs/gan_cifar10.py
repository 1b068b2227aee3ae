"""Conditional DCGAN on CIFAR-10, SteinGAN's baseline (LW17 and WL16, table 1).

python -m experiments.train --config=configs/gan_cifar10.py --workdir=runs/gan_cifar10
WGAN-GP, a row of X21's table: configs/gan_cifar10.py:wgan, without labels.

The papers do not say how their DCGAN is conditioned: here labels enter every layer,
as in the authors' MNIST script. The generator is SteinGAN's. On two cores a step takes
8 s, of ':wgan' 35 s: run them on an accelerator. Seen so far: three steps of either on
the real images. Scale ':smoke' is a few steps on noise.
"""

from stein_jax.runs import configs

CONFIG = dict(
  algorithm='gan',
  step=dict(joint=False),
  energy=dict(name='Discriminator', widths=(128, 256, 512)),
  generator=dict(
    name='DCGAN',
    kernel_size=3,
    strides=(2, 1, 2, 1, 2, 1),
    widths=(512, 256, 256, 128, 128),
  ),
  energy_optimizer=dict(name='adam', b1=0.5, l2=1e-05, learning_rate=0.0002),
  generator_optimizer=dict(name='adam', b1=0.5, l2=1e-05, learning_rate=0.0002),
  data=dict(name='cifar10', condition='label'),
  evaluation=dict(num_samples=200),
  batch_size=128,
  num_steps=78000,
)
VARIANTS = dict(
  smoke=dict(
    energy=dict(widths=(2, 3)),
    generator=dict(base=2, shape=(8, 8, 3), strides=(2, 2), widths=(2,)),
    data=dict(
      name='synthetic',
      num_classes=4,
      pixels='symmetric',
      shape=(8, 8, 3),
      condition='label',
    ),
  ),
  wgan=dict(
    step=dict(generator_every=5, loss='wasserstein'),
    energy=dict(norm='layer'),
    energy_optimizer=dict(b1=0.0, b2=0.9, learning_rate=0.0001),
    generator_optimizer=dict(b1=0.0, b2=0.9, learning_rate=0.0001),
  ),
)
get_config = configs.scales(CONFIG, VARIANTS)
