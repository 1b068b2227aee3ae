"""Conditional SteinGAN on CIFAR-10 (LW17, section 5.2; WL16, section 5).

python -m experiments.train --config=configs/steingan_cifar10.py \
  --workdir=runs/steingan_cifar10
Without kernel: --config.step.kernel=none

Scales: '' is LW17's, as its authors' code of April 2017 has it; ':wl16' that of
WL16, November 2016; ':smoke' a few steps on noise. The networks are the authors'
whole: on two cores a step takes 10 s and 4 GB, so run them on an accelerator. Seen
so far: three steps of either on the real images.
"""

from stein_jax.runs import configs

CONFIG = dict(
  algorithm='steingan',
  step=dict(
    negative_weight=0.3,
    direction=dict(
      name='FeatureSVGD',
      kernel=dict(bandwidth=dict(scale=0.25)),
      form='nearest',
    ),
    controller=dict(name='Discount'),
  ),
  energy=dict(
    name='JointLabel',
    autoencoder=dict(
      name='Autoencoder',
      convs=(
        (128, 3, 1, 1),
        (128, 2, 2, 0),
        (256, 3, 1, 1),
        (256, 4, 4, 0),
        (512, 3, 1, 1),
        (512, 4, 4, 0),
      ),
      dropout=0.2,
      output='tanh',
    ),
  ),
  generator=dict(
    name='DCGAN',
    kernel_size=3,
    strides=(2, 1, 2, 1, 2, 1),
    widths=(512, 256, 256, 128, 128),
  ),
  energy_optimizer=dict(name='adam', b1=0.5, l2=1e-05, learning_rate=0.0005),
  generator_optimizer=dict(name='adam', b1=0.5, l2=1e-05, learning_rate=0.001),
  data=dict(name='cifar10', condition='label'),
  evaluation=dict(num_samples=200),
  num_steps=100000,
)
VARIANTS = dict(
  smoke=dict(
    energy=dict(autoencoder=dict(convs=((2, 3, 1, 1), (2, 4, 4, 0)))),
    generator=dict(
      base=2, shape=(8, 8, 3), strides=(2, 1, 2, 1), widths=(2, 2, 2)
    ),
    data=dict(
      name='synthetic',
      num_classes=4,
      pixels='symmetric',
      shape=(8, 8, 3),
      condition='label',
    ),
  ),
  wl16=dict(
    step=dict(
      direction=dict(normalize='row_sum', form='swapped'),
      controller=dict(name='FreezeAhead'),
    ),
    generator=dict(kernel_size=5, strides=(2, 2, 2), widths=(256, 128)),
    energy_optimizer=dict(
      learning_rate=dict(
        name='linear_schedule',
        end_value=0.0,
        init_value=0.0001,
        transition_begin=25000,
        transition_steps=25000,
      )
    ),
    generator_optimizer=dict(
      learning_rate=dict(
        name='linear_schedule',
        end_value=0.0,
        init_value=0.001,
        transition_begin=25000,
        transition_steps=25000,
      )
    ),
    num_steps=50000,
  ),
)
get_config = configs.scales(CONFIG, VARIANTS)
