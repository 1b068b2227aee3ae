"""Cooperative networks on CIFAR-10, X21's nearest baseline.

python -m experiments.train --config=configs/coopnets_cifar10.py \
  --workdir=runs/coopnets_cifar10
There is no result to expect: no GPU was at hand for a run to the end. The numbers are
those of the authors' code, with 100 chains for its 144.
"""

from stein_jax.runs import configs

_CONVS = dict(kernels=(3, 4, 4, 4), strides=(1, 2, 2, 2), scale=0.01)
_ENERGY = dict(_CONVS, name='ConvNet', reference_sigma=0.016)
CONFIG = dict(
  algorithm='coopnets',
  energy=dict(_ENERGY, widths=(64, 128, 256, 256)),
  generator=dict(
    name='VAE',
    shape=(32, 32, 3),
    widths=(128, 64, 64),
    kernels=(4, 4, 3, 3),
    strides=(2, 2, 2, 1),
    last_norm=False,
    encoder_widths=(),
    scale=0.005,
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
get_config = configs.scales(CONFIG, smoke=_SMOKE)
