"""Recovery of hidden parts of facades by a GAN with an L1 term, after pix2pix.

python -m experiments.train --config=configs/gan_facades.py:narrow \
  --path=facades.zip --workdir=runs/gan_facades
The file is a zip, or a folder, of train/ and test/ with pairs side by side, photograph
left. The photograph from its label map: --config.data.mask=none \
  --config.evaluation.data.mask=none. Whole photographs: --config.data.side=all \
  --config.evaluation.data.side=all

The generator is that of `vae_teaching_facades`, the discriminator its energy without
the reference; pix2pix has a U-Net and judges patches. Scales as there.
Expect of ':narrow' after 500 steps, two seeds: 18.7, 19.4 dB and SSIM
0.58, 0.58 on the test images. '' has not been run to its end.
"""

from stein_jax.runs import configs

CONFIG = dict(
  algorithm='gan',
  step=dict(joint=False, l1_weight=100.0),
  energy=dict(
    name='ConvNet',
    kernels=(4, 4, 4, 4),
    scale=0.02,
    strides=(2, 2, 2, 2),
    widths=(64, 128, 256, 512),
  ),
  generator=dict(name='ImageToImage', shape=(128, 128, 3)),
  energy_optimizer=dict(name='adam', b1=0.5, learning_rate=0.0002),
  generator_optimizer=dict(name='adam', b1=0.5, learning_rate=0.0002),
  data=dict(
    name='folder',
    mask='centre',
    mirrored=True,
    path='facades.zip',
    side='left',
    size=128,
  ),
  evaluation=dict(num_samples=106),
  batch_size=50,
  num_steps=50000,
  log_every=20,
)
VARIANTS = dict(
  narrow=dict(
    energy=dict(widths=(16, 32, 64, 64)),
    generator=dict(
      encoder_widths=(16, 32, 64),
      num_blocks=2,
      shape=(64, 64, 3),
      widths=(16, 32, 64),
    ),
    generator_optimizer=dict(learning_rate=0.001),
    data=dict(size=64),
    batch_size=20,
    num_steps=1500,
    eval_every=200,
    checkpoint_every=200,
  ),
  smoke=dict(
    energy=dict(widths=(2, 2, 2, 2)),
    generator=dict(
      encoder_widths=(2, 2),
      latent_dim=3,
      num_blocks=1,
      shape=(16, 16, 3),
      widths=(2, 2),
    ),
    energy_optimizer=dict(learning_rate=0.0001),
    generator_optimizer=dict(learning_rate=0.0001),
    data=dict(
      name='synthetic', pixels='symmetric', shape=(16, 16, 3), pairs=True
    ),
    batch_size=4,
  ),
)
get_config = configs.scales(CONFIG, VARIANTS)
