"""Langevin EBM with a replay buffer on CIFAR-10 (X21's row EBM, of Du & Mordatch).

python -m experiments.train --config=configs/langevin_ebm_cifar10.py \
  --workdir=runs/langevin_ebm_cifar10
There is no result to expect: no GPU was at hand for a run to the end. Buffer, chain,
restarts, penalty of the energies' squares, spectral norm and optimiser are those of Du
& Mordatch 2019; the network is X21's, and theirs is residual.
"""

from stein_jax.runs import configs

# Their step 10 and noise 0.005 are for images in [0, 1]; for these in [-1, 1],
# step_size^2 / 2 = 4 * 10 and sqrt(temperature) step_size = 2 * 0.005.
_CHAIN = dict(step_size=8.944, temperature=1.25e-6, clip=(-1.0, 1.0))
CONFIG = dict(
  algorithm='langevin_ebm',
  step=dict(chain=_CHAIN, energy_l2=1.0),
  num_chains=10000,
  energy=dict(
    name='ConvNet',
    widths=(64, 128, 256, 256),
    kernels=(3, 4, 4, 4),
    strides=(1, 2, 2, 2),
    activation='swish',
    spectral_norm=True,
  ),
  optimizer=dict(name='adam', learning_rate=1e-4, b1=0.0, max_norm=1.0),
  data='cifar10',
  evaluation=dict(num_samples=400),
  batch_size=128,
  num_steps=60000,
)
_SMOKE = dict(
  step=dict(chain=dict(num_steps=2)),
  num_chains=8,
  energy=dict(widths=(2, 2, 2, 2)),
  optimizer=dict(learning_rate=1e-4),
  data=dict(name='synthetic', shape=(8, 8, 3), pixels='symmetric'),
  batch_size=4,
)
get_config = configs.scales(CONFIG, smoke=_SMOKE)
