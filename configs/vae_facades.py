"""Recovery of hidden parts of facades by a conditional VAE (X21, table 2).

python -m experiments.train --config=configs/vae_facades.py:narrow \
  --path=facades.zip --workdir=runs/vae_facades
Expect 20.1 and 19.5 dB and SSIM 0.64 and 0.63 on the test images after 500 steps of
':narrow' with two seeds. '' has not been run to its end.
Data, scales and network are those of `vae_teaching_facades`, but the data teach it.
"""

from stein_jax.runs import configs

_SMALL = dict(widths=(16, 32, 64), encoder_widths=(16, 32, 64), num_blocks=2)
_TINY = dict(widths=(2, 2), encoder_widths=(2, 2), num_blocks=1, latent_dim=3)
_FACADES = dict(name='folder', path='facades.zip', side='left', mask='centre')
CONFIG = dict(
  algorithm='vae',
  step=dict(kl_weight=2.0),
  generator=dict(name='ImageToImage', shape=(128, 128, 3)),
  generator_optimizer=dict(name='adam', learning_rate=2e-4, b1=0.5),
  data=dict(_FACADES, size=128, mirrored=True),
  evaluation=dict(num_samples=106),
  batch_size=50,
  num_steps=50000,
  log_every=20,
)
_RUN = dict(batch_size=20, num_steps=1500, eval_every=200, checkpoint_every=200)
_NARROW = dict(
  step=dict(kl_weight=0.3),
  generator=dict(_SMALL, shape=(64, 64, 3)),
  generator_optimizer=dict(learning_rate=1e-3),
  data=dict(size=64),
  **_RUN,
)
_SMOKE = dict(
  generator=dict(_TINY, shape=(16, 16, 3)),
  generator_optimizer=dict(learning_rate=1e-4),
  data=dict(
    name='synthetic', shape=(16, 16, 3), pixels='symmetric', pairs=True
  ),
  batch_size=4,
)
get_config = configs.scales(CONFIG, narrow=_NARROW, smoke=_SMOKE)
