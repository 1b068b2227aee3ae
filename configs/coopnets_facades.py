"""Recovery of hidden parts of facades by conditional CoopNets (X21, table 2).

python -m experiments.train --config=configs/coopnets_facades.py:narrow \
  --path=facades.zip --workdir=runs/coopnets_facades
The file is a zip, or a folder, of train/ and test/ with pairs side by side, photograph
left. The photograph from its label map: --config.data.mask=none \
  --config.evaluation.data.mask=none. Whole photographs: --config.data.side=all \
  --config.evaluation.data.side=all

Scales: '' has the numbers of the nearest released code, image to image; ':narrow' 64
pixels, a quarter of the width, two residual blocks for six, batches of 20 for 50 and
1,500 steps, for two cores, chains cut to the data's range and rates of 1e-3: at
3e-3 and without the cut the energy runs away; ':smoke' a few steps on noise.
Expect of ':narrow' after 500 steps, two seeds: 18.3, 17.7 dB and SSIM
0.55, 0.54 on the test images. '' has not been run to its end.
"""

from stein_jax.runs import configs

CONFIG = dict(
  algorithm='coopnets',
  step=dict(data_weight=0.2, chain=dict(num_steps=20, noise=False)),
  energy=dict(
    name='ConvNet',
    kernels=(4, 4, 4, 4),
    outputs=100,
    reference_sigma=0.016,
    strides=(2, 2, 2, 2),
    widths=(64, 128, 256, 512),
  ),
  generator=dict(name='ImageToImage', shape=(128, 128, 3)),
  energy_optimizer=dict(name='adam', b1=0.5, learning_rate=0.003),
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
    step=dict(chain=dict(clip=(-1.0, 1.0))),
    energy=dict(widths=(16, 32, 64, 64)),
    generator=dict(
      encoder_widths=(16, 32, 64),
      num_blocks=2,
      shape=(64, 64, 3),
      widths=(16, 32, 64),
    ),
    energy_optimizer=dict(learning_rate=0.001),
    generator_optimizer=dict(learning_rate=0.001),
    data=dict(size=64),
    batch_size=20,
    num_steps=1500,
    eval_every=200,
    checkpoint_every=200,
  ),
  smoke=dict(
    step=dict(chain=dict(num_steps=2)),
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
