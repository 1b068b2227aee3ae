"""SteinGAN on CelebA at 64x64, and on bedrooms of LSUN (LW17, section 5.2; WL16).

python -m experiments.train --config=configs/steingan_celeba.py \
  --workdir=runs/steingan_celeba
There is no result to expect: the networks are the authors' whole and need an
accelerator. A step or two of each scale have been taken, on an .npz of 64x64 images (36
to 90 s of one core with compiling, ':wl16' in 7.8 GB), and one on images read through
TFDS has been traced.
Scales: '' and ':lsun', the bedrooms, are LW17's as its authors' code of April 2017 has
them; ':wl16' is WL16's of November 2016, on CelebA.
"""

from stein_jax.runs import configs

# A convolution has maps, a side, a stride and padding. Beside the norms', encoder and
# decoder share 2,811,584 weights, in ':wl16' 6,983,040; the generator has 18,851,200.
_FIRST_CONVS = ((64, 3, 1, 1), (128, 5, 4, 2), (128, 3, 1, 1), (256, 5, 4, 2))
_CONVS = (*_FIRST_CONVS, (256, 3, 1, 1), (256, 4, 4, 0))
_WL16_CONVS = tuple(
  (maps, *conv) for maps in (128, 256, 512) for conv in ((3, 1, 1), (4, 4, 0))
)
_LAYERS = dict(convs=_CONVS, output='tanh', residual='l1_l2')
_KERNEL = dict(bandwidth=dict(scale=0.25))
_MAPS = dict(base=1024, widths=(512, 256, 128), strides=(2, 2, 2, 2))
_ADAM = dict(name='adam', b1=0.5, l2=1e-5)
CONFIG = dict(
  algorithm='steingan',
  step=dict(
    direction=dict(name='FeatureSVGD', kernel=_KERNEL, form='nearest'),
    # The energy's rate is 5e-4 where samples are reconstructed better than data.
    controller='Speed',
    negative_weight=0.3,
  ),
  energy=dict(_LAYERS, name='Autoencoder'),
  generator=dict(_MAPS, name='DCGAN', shape=(64, 64, 3)),
  energy_optimizer=dict(_ADAM, learning_rate=1e-4),
  generator_optimizer=dict(_ADAM, learning_rate=1e-3),
  data='celeb_a',
  evaluation=dict(num_samples=196),
  num_steps=81000,  # 50 epochs of 162,770
)
_LSUN = dict(
  data='lsun',
  evaluation=dict(data=dict(split='validation')),
  num_steps=600_000,  # 20 epochs of 3,033,042
)
_WL16 = dict(
  step=dict(direction=dict(normalize='row_sum', form='swapped')),
  energy=dict(convs=_WL16_CONVS, residual='l2'),
  num_steps=32000,  # 20 epochs
)
_SMOKE = dict(
  energy=dict(convs=((2, 3, 1, 1), (3, 4, 4, 0))),
  generator=dict(shape=(8, 8, 3), base=2, widths=(2,), strides=(2, 2)),
  data=dict(name='synthetic', shape=(8, 8, 3), pixels='symmetric'),
)
get_config = configs.scales(CONFIG, lsun=_LSUN, wl16=_WL16, smoke=_SMOKE)
