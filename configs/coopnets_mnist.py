"""Cooperative networks on MNIST, X21's nearest baseline.

python -m experiments.train --config=configs/coopnets_mnist.py:narrow \
  --workdir=runs/coopnets_mnist
Expect an inception score of 3.9 and 4.1 and a Frechet distance of 154 and 152, by a CNN
of 98.7 %, after 1,000 steps of ':narrow' with two seeds.
Scales: '' has the numbers of the authors' code and has not been run to its end;
':narrow' is a quarter as wide, for two cores, with the chain of `vae_teaching_mnist`.
"""

from stein_jax.runs import configs

_CONVS = dict(kernels=(4, 4, 4), strides=(2, 2, 2), scale=0.01)
CONFIG = dict(
  algorithm='coopnets',
  energy=dict(_CONVS, name='ConvNet', outputs=100, reference_sigma=0.016),
  generator=dict(name='VAE', base=512, widths=(256, 128), encoder_widths=()),
  energy_optimizer=dict(name='adam', learning_rate=7e-3, b1=0.5),
  generator_optimizer=dict(name='adam', learning_rate=1e-4, b1=0.5),
  data=dict(name='mnist', pixels='symmetric'),
  evaluation=dict(num_samples=400),
  num_steps=600_000,  # 1,000 epochs
)
_NARROW = dict(
  step=dict(chain=dict(num_steps=20, noise=False)),
  energy=dict(widths=(16, 32, 64), kernels=(5, 3, 3)),
  generator=dict(base=64, widths=(32, 16)),
  energy_optimizer=dict(learning_rate=9e-3),
  generator_optimizer=dict(learning_rate=1e-3),
  evaluation=dict(num_samples=100),
  batch_size=64,
  num_steps=3000,
  eval_every=500,
)
_SMOKE = dict(
  step=dict(chain=dict(num_steps=2)),
  energy=dict(widths=(2, 2, 2), outputs=2),
  generator=dict(shape=(8, 8, 1), latent_dim=3, base=2, widths=(2, 2)),
  energy_optimizer=dict(learning_rate=1e-4),
  generator_optimizer=dict(learning_rate=1e-4),
  data=dict(name='synthetic', pixels='symmetric'),
  batch_size=4,
)
get_config = configs.scales(CONFIG, narrow=_NARROW, smoke=_SMOKE)
