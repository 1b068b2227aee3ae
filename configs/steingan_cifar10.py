"""Conditional SteinGAN on CIFAR-10 (LW17, section 5.2; WL16, section 5).

python -m experiments.train --config=configs/steingan_cifar10.py \
  --workdir=runs/steingan_cifar10
There is no result to expect: the networks are the authors' whole, and a step takes 10 s
and 4 GB on two cores. Three of either scale have been taken on the real images. Run
them on an accelerator.
Scales: '' is LW17's as its authors' code of April 2017 has it; ':wl16' is WL16's of
November 2016.
Without a kernel: --config.step.direction=Score
"""

from stein_jax.runs import configs

_KERNEL = dict(bandwidth=dict(scale=0.25))
# A convolution has maps, a side, a stride and padding.
_FIRST_CONVS = ((128, 3, 1, 1), (128, 2, 2, 0), (256, 3, 1, 1), (256, 4, 4, 0))
_CONVS = (*_FIRST_CONVS, (512, 3, 1, 1), (512, 4, 4, 0))
_LAYERS = dict(convs=_CONVS, output='tanh', dropout=0.2)
_MAPS = dict(widths=(512, 256, 256, 128, 128), strides=(2, 1, 2, 1, 2, 1))
_ADAM = dict(name='adam', b1=0.5, l2=1e-5)
# Rates are constant for the first half, and then fall to 0.
_HALF = dict(transition_begin=25000, transition_steps=25000)
_RATE = dict(_HALF, name='linear_schedule', end_value=0.0)
CONFIG = dict(
  algorithm='steingan',
  step=dict(
    direction=dict(name='FeatureSVGD', kernel=_KERNEL, form='nearest'),
    controller='Discount',
    negative_weight=0.3,
  ),
  energy=dict(name='JointLabel', autoencoder=dict(_LAYERS, name='Autoencoder')),
  generator=dict(_MAPS, name='DCGAN', kernel_size=3),
  energy_optimizer=dict(_ADAM, learning_rate=5e-4),
  generator_optimizer=dict(_ADAM, learning_rate=1e-3),
  data=dict(name='cifar10', condition='label'),
  evaluation=dict(num_samples=200),
  num_steps=100_000,
)
_SWAPPED = dict(normalize='row_sum', form='swapped')
_WL16 = dict(
  step=dict(direction=_SWAPPED, controller='FreezeAhead'),
  generator=dict(widths=(256, 128), strides=(2, 2, 2), kernel_size=5),
  energy_optimizer=dict(learning_rate=dict(_RATE, init_value=1e-4)),
  generator_optimizer=dict(learning_rate=dict(_RATE, init_value=1e-3)),
  num_steps=50000,
)
_TINY = dict(base=2, widths=(2, 2, 2), strides=(2, 1, 2, 1))
_SYNTHETIC = dict(name='synthetic', shape=(8, 8, 3), num_classes=4)
_SMOKE = dict(
  energy=dict(autoencoder=dict(convs=((2, 3, 1, 1), (2, 4, 4, 0)))),
  generator=dict(_TINY, shape=(8, 8, 3)),
  data=dict(_SYNTHETIC, pixels='symmetric', condition='label'),
)
get_config = configs.scales(CONFIG, wl16=_WL16, smoke=_SMOKE)
