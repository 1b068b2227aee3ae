"""DCGAN on CelebA at 64x64, and on bedrooms of LSUN: SteinGAN's baseline (LW17).

python -m experiments.train --config=configs/gan_celeba.py --workdir=runs/gan_celeba
There is no result to expect: the networks are whole and need an accelerator. Two steps
of '' have been taken, on an .npz of 64x64 images (48 s and 2.6 GB a step of one core),
and one on images read through TFDS has been traced.
':lsun' is the bedrooms. The generator is SteinGAN's, the discriminator that of the
authors' library; the lengths are ours, of as many images as SteinGAN sees.
"""

from stein_jax.runs import configs

_ADAM = dict(name='adam', learning_rate=2e-4, b1=0.5, l2=1e-5)
_CONVS = dict(widths=(512, 256, 128), strides=(2, 2, 2, 2))
CONFIG = dict(
  algorithm='gan',
  step=dict(joint=False),
  # It has 17,229,184 weights beside the norms': LW17's '17 M'.
  energy=dict(name='Discriminator', widths=(128, 256, 512, 1024)),
  generator=dict(_CONVS, name='DCGAN', shape=(64, 64, 3), base=1024),
  energy_optimizer=_ADAM,
  generator_optimizer=_ADAM,
  data='celeb_a',
  evaluation=dict(num_samples=196),
  batch_size=128,
  num_steps=63000,  # 50 epochs of 162,770
)
_LSUN = dict(
  data='lsun',
  evaluation=dict(data=dict(split='validation')),
  num_steps=470_000,  # 20 epochs of 3,033,042
)
_SMOKE = dict(
  energy=dict(widths=(2, 3)),
  generator=dict(shape=(8, 8, 3), base=2, widths=(2,), strides=(2, 2)),
  data=dict(name='synthetic', shape=(8, 8, 3), pixels='symmetric'),
)
get_config = configs.scales(CONFIG, lsun=_LSUN, smoke=_SMOKE)
