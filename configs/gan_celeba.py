"""DCGAN on CelebA and on bedrooms of LSUN, at 64x64: SteinGAN's baseline (LW17).

python -m experiments.train --config=configs/gan_celeba.py --workdir=runs/gan_celeba
Bedrooms: --config=configs/gan_celeba.py:lsun

The generator is SteinGAN's, the discriminator that of the authors' library; the lengths
are ours: as many images as SteinGAN sees. Scale ':smoke' is a few steps on noise. The
networks are whole, for an accelerator. Seen so far: a step traced on images read
through TFDS, the same code on small networks, and two steps of '' on an .npz of 64x64
images: 48 s and 2.6 GB a step of one core; no training at this size.
"""

from stein_jax.runs import configs

CONFIG = dict(
  algorithm='gan',
  step=dict(joint=False),
  energy=dict(name='Discriminator', widths=(128, 256, 512, 1024)),
  generator=dict(
    name='DCGAN',
    base=1024,
    shape=(64, 64, 3),
    strides=(2, 2, 2, 2),
    widths=(512, 256, 128),
  ),
  energy_optimizer=dict(name='adam', b1=0.5, l2=1e-05, learning_rate=0.0002),
  generator_optimizer=dict(name='adam', b1=0.5, l2=1e-05, learning_rate=0.0002),
  data='celeb_a',
  evaluation=dict(num_samples=196),
  batch_size=128,
  num_steps=63000,
)
VARIANTS = dict(
  lsun=dict(
    data=dict(name='lsun'),
    evaluation=dict(data=dict(split='validation')),
    num_steps=470000,
  ),
  smoke=dict(
    energy=dict(widths=(2, 3)),
    generator=dict(base=2, shape=(8, 8, 3), strides=(2, 2), widths=(2,)),
    data=dict(name='synthetic', pixels='symmetric', shape=(8, 8, 3)),
  ),
)
get_config = configs.scales(CONFIG, VARIANTS)
