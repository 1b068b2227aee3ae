"""Diffusion recovery likelihood on MNIST (Gao et al. 2021), six levels of noise.

python -m experiments.train --config=configs/recovery_likelihood_mnist.py:digits \
  --workdir=runs/recovery
Expect legible digits of 8x8 pixels after three minutes on two cores, at 3.9 from the
nearest training image on average, where test images are at 2.1. '' and ':narrow' have
not been run to their end; 600 steps of the latter are too few.
The energy takes the level as `Discriminator` takes a label. Of one level it takes none:
--config.step.noise_scales=(0.7,)
"""

from stein_jax.runs import configs

CONFIG = dict(
  algorithm='recovery_likelihood',
  energy=dict(name='Discriminator', widths=(64, 128, 256), norm='none'),
  optimizer=dict(name='adam', learning_rate=1e-4, ema_decay=0.999),
  data=dict(name='mnist', pixels='symmetric'),
  evaluation=dict(num_samples=400, parameters='average'),
  num_steps=50_000,
)
_NARROW = dict(
  energy=dict(widths=(16, 32, 64)),
  optimizer=dict(learning_rate=5e-4, ema_decay=0.99),
  evaluation=dict(num_samples=100),
  batch_size=64,
  num_steps=3000,
  eval_every=500,
)
_DIGITS = _NARROW | dict(
  energy=dict(widths=(32, 64)),
  data=dict(name='digits', pixels='symmetric'),
  num_steps=2000,
)
_SMOKE = dict(
  step=dict(noise_scales=(0.6, 1.0), chain=dict(num_steps=2)),
  energy=dict(widths=(2, 3)),
  optimizer=dict(ema_decay=0.9),
  data=dict(name='synthetic', pixels='symmetric'),
  batch_size=4,
)
get_config = configs.scales(
  CONFIG, narrow=_NARROW, digits=_DIGITS, smoke=_SMOKE
)
