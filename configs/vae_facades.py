"""Recovery of hidden parts of facades by a conditional VAE (X21, table 2).

python -m experiments.train --config=configs/vae_facades.py:narrow \
  --path=facades.zip --workdir=runs/vae_facades
The file is a zip, or a folder, of train/ and test/ with pairs side by side, photograph
left. The photograph from its label map: --config.data.mask=none \
  --config.evaluation.data.mask=none. Whole photographs: --config.data.side=all \
  --config.evaluation.data.side=all

The network is that of `vae_teaching_facades`, taught by the data itself. Scales as
there.
Expect of ':narrow' after 500 steps, two seeds: 20.1, 19.5 dB and SSIM
0.64, 0.63 on the test images. '' has not been run to its end.
"""

from stein_jax.runs import configs

CONFIG = dict(
  algorithm='vae',
  step=dict(kl_weight=2.0),
  generator=dict(name='ImageToImage', shape=(128, 128, 3)),
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
    step=dict(kl_weight=0.3),
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
    generator=dict(
      encoder_widths=(2, 2),
      latent_dim=3,
      num_blocks=1,
      shape=(16, 16, 3),
      widths=(2, 2),
    ),
    generator_optimizer=dict(learning_rate=0.0001),
    data=dict(
      name='synthetic', pixels='symmetric', shape=(16, 16, 3), pairs=True
    ),
    batch_size=4,
  ),
)
get_config = configs.scales(CONFIG, VARIANTS)
