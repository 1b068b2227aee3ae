"""SteinGAN on CelebA and on bedrooms of LSUN, at 64x64 (LW17, section 5.2; WL16).

python -m experiments.train --config=configs/steingan_celeba.py \
  --workdir=runs/steingan_celeba
Bedrooms: --config=configs/steingan_celeba.py:lsun

Scales: '' and ':lsun' are LW17's, as its authors' code of April 2017 has them; ':wl16'
that of WL16, November 2016, on CelebA; ':smoke' a few steps on noise. The networks are
the authors' whole, for an accelerator. Seen so far: a step traced on images read
through TFDS, the same code on small networks, and a step or two of each scale on an
.npz of 64x64 images (36 to 90 s of one core with compiling, ':wl16' in 7.8 GB); no
training at this size.
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
    controller=dict(name='Speed'),
  ),
  energy=dict(
    name='Autoencoder',
    convs=(
      (64, 3, 1, 1),
      (128, 5, 4, 2),
      (128, 3, 1, 1),
      (256, 5, 4, 2),
      (256, 3, 1, 1),
      (256, 4, 4, 0),
    ),
    output='tanh',
    residual='l1_l2',
  ),
  generator=dict(
    name='DCGAN',
    base=1024,
    shape=(64, 64, 3),
    strides=(2, 2, 2, 2),
    widths=(512, 256, 128),
  ),
  energy_optimizer=dict(name='adam', b1=0.5, l2=1e-05, learning_rate=0.0001),
  generator_optimizer=dict(name='adam', b1=0.5, l2=1e-05, learning_rate=0.001),
  data='celeb_a',
  evaluation=dict(num_samples=196),
  num_steps=81000,
)
VARIANTS = dict(
  lsun=dict(
    data=dict(name='lsun'),
    evaluation=dict(data=dict(split='validation')),
    num_steps=600000,
  ),
  smoke=dict(
    energy=dict(convs=((2, 3, 1, 1), (3, 4, 4, 0))),
    generator=dict(base=2, shape=(8, 8, 3), strides=(2, 2), widths=(2,)),
    data=dict(name='synthetic', pixels='symmetric', shape=(8, 8, 3)),
  ),
  wl16=dict(
    step=dict(direction=dict(normalize='row_sum', form='swapped')),
    energy=dict(
      convs=(
        (128, 3, 1, 1),
        (128, 4, 4, 0),
        (256, 3, 1, 1),
        (256, 4, 4, 0),
        (512, 3, 1, 1),
        (512, 4, 4, 0),
      ),
      residual='l2',
    ),
    num_steps=32000,
  ),
)
get_config = configs.scales(CONFIG, VARIANTS)
