"""Conditional SteinGAN on MNIST: an autoencoder energy of image and label (WL16).

python -m experiments.train --config=configs/steingan_mnist_joint.py \
  --workdir=runs/steingan_joint

Scales: '' is the authors' networks and length; ':narrow' a quarter of their width
and 3,000 steps for two cores, with the energy's rate and rule of LW17; ':smoke' a
few steps on noise.
Rates are constant for the first half, then fall linearly to 0.

Expect of ':narrow': a classifier gives 99.9 % of samples the label they were drawn
with, after four minutes on two cores.
"""

from stein_jax.runs import configs

CONFIG = dict(
  algorithm='steingan',
  step=dict(
    joint=False,
    negative_weight=0.3,
    direction=dict(
      name='FeatureSVGD',
      kernel=dict(bandwidth=dict(scale=0.25)),
      normalize='row_sum',
      form='swapped',
    ),
    controller=dict(name='FreezeAhead'),
  ),
  energy=dict(
    name='JointLabel',
    autoencoder=dict(name='Autoencoder'),
    dropout=0.3,
    margin=0.2,
  ),
  generator=dict(
    name='DCGAN',
    base=128,
    dense=(1024,),
    output='sigmoid',
    shape=(28, 28, 1),
    strides=(2, 2),
    widths=(64,),
  ),
  energy_optimizer=dict(
    name='adam',
    b1=0.5,
    l2=1e-05,
    learning_rate=dict(
      name='linear_schedule',
      end_value=0.0,
      init_value=0.0001,
      transition_begin=25000,
      transition_steps=25000,
    ),
  ),
  generator_optimizer=dict(
    name='adam',
    b1=0.5,
    l2=1e-05,
    learning_rate=dict(
      name='linear_schedule',
      end_value=0.0,
      init_value=0.001,
      transition_begin=25000,
      transition_steps=25000,
    ),
  ),
  data=dict(name='mnist', split='train[:50000]', condition='label'),
  evaluation=dict(num_samples=200),
  num_steps=50000,
)
VARIANTS = dict(
  narrow=dict(
    step=dict(controller=dict(name='Discount')),
    energy=dict(
      autoencoder=dict(convs=((16, 5, 2, 2), (32, 5, 2, 2), (128, 7, 7, 0)))
    ),
    generator=dict(base=32, dense=(256,), widths=(16,)),
    energy_optimizer=dict(
      learning_rate=dict(
        init_value=0.0005, transition_begin=1500, transition_steps=1500
      )
    ),
    generator_optimizer=dict(
      learning_rate=dict(transition_begin=1500, transition_steps=1500)
    ),
    num_steps=3000,
  ),
  smoke=dict(
    energy=dict(autoencoder=dict(convs=((2, 5, 2, 2), (3, 4, 4, 0)))),
    generator=dict(base=2, dense=(4,), shape=(8, 8, 1), widths=(2,)),
    data=dict(name='synthetic', num_classes=4, condition='label'),
  ),
)
get_config = configs.scales(CONFIG, VARIANTS)
