"""Recovery of hidden parts of facades by BicycleGAN (X21, table 2, a baseline).

python -m experiments.train --config=configs/bicycle_gan_facades.py:narrow \
  --path=facades.zip --workdir=runs/bicycle_gan
The file is a zip, or a folder, of train/ and test/ with pairs side by side, photograph
left. The photograph from its label map: --config.data.mask=none \
  --config.evaluation.data.mask=none. Whole photographs: --config.data.side=all \
  --config.evaluation.data.side=all
cVAE-GAN++: --config.step.latent_weight=0; cVAE-GAN: --config.step.prior_weight=0 too.

Generator and discriminators are those of `gan_facades`. Scales as there.
Expect of ':narrow' after 500 steps, three seeds: 17.1, 17.7, 17.0 dB and SSIM 0.51,
0.56, 0.55 on the test images; of cVAE-GAN 18.9 dB and 0.59. '' has not been run to its
end.
"""

from stein_jax.runs import configs

CONFIG = dict(
  algorithm='bicycle_gan',
  energy=dict(
    name='ConvNet',
    kernels=(4, 4, 4, 4),
    scale=0.02,
    strides=(2, 2, 2, 2),
    widths=(64, 128, 256, 512),
  ),
  generator=dict(name='ImageToImage', latent_dim=8, shape=(128, 128, 3)),
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
    step=dict(image_weight=100.0),
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
