"""Cooperative networks on CIFAR-10, X21's nearest baseline.

python -m experiments.train --config=configs/coopnets_cifar10.py \
  --workdir=runs/coopnets_cifar10

There is no result to expect: no GPU was at hand for a run to the end. The numbers are
those of the authors' code, with 100 chains for its 144.
"""

from stein_jax.runs import configs

_ENERGY_CONVS = dict(kernels=(3, 4, 4, 4), strides=(1, 2, 2, 2), scale=0.01)
_GENERATOR_CONVS = dict(kernels=(4, 4, 3, 3), strides=(2, 2, 2, 1), scale=0.005)
CONFIG = dict(
  algorithm='coopnets',
  energy=dict(
    _ENERGY_CONVS,
    name='ConvNet',
    widths=(64, 128, 256, 256),
    reference_sigma=0.016,
  ),
  generator=dict(
    _GENERATOR_CONVS,
    name='VAE',
    shape=(32, 32, 3),
    widths=(128, 64, 64),
    last_norm=False,
    encoder_widths=(),
  ),
  energy_optimizer=dict(name='adam', learning_rate=7e-3, b1=0.5),
  generator_optimizer=dict(name='adam', learning_rate=1e-4, b1=0.5),
  data='cifar10',
  evaluation=dict(num_samples=900),
  num_steps=500_000,  # 1,000 epochs
)
_SMOKE = dict(
  step=dict(chain=dict(num_steps=2)),
  energy=dict(widths=(2, 2, 2, 2)),
  generator=dict(shape=(8, 8, 3), latent_dim=3, base=2, widths=(2, 2, 2)),
  energy_optimizer=dict(learning_rate=1e-4),
  generator_optimizer=dict(learning_rate=1e-4),
  data=dict(name='synthetic', shape=(8, 8, 3), pixels='symmetric'),
  batch_size=4,
)
get_config = configs.scales(CONFIG, dict(smoke=_SMOKE))
