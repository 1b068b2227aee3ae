"""Langevin EBM with a replay buffer on CIFAR-10 (X21's row EBM, of Du & Mordatch).

python -m experiments.train --config=configs/langevin_ebm_cifar10.py \
  --workdir=runs/langevin_ebm_cifar10

Buffer, restarts, 60 steps, the weight of the energies' squares, spectral norm and the
optimiser are those of Du & Mordatch 2019; their step 10 and noise 0.005 are of images
in [0, 1], and here of images in [-1, 1]. The network is X21's, theirs is residual.
Scale ':smoke' is a few steps on noise.
Not run to the end: no GPU was at hand. No result to expect.
"""

from stein_jax.runs import configs

CONFIG = dict(
  algorithm='langevin_ebm',
  step=dict(
    energy_l2=1.0,
    chain=dict(step_size=8.944, temperature=1.25e-06, clip=(-1.0, 1.0)),
  ),
  num_chains=10000,
  energy=dict(
    name='ConvNet',
    activation='swish',
    kernels=(3, 4, 4, 4),
    spectral_norm=True,
    strides=(1, 2, 2, 2),
    widths=(64, 128, 256, 256),
  ),
  optimizer=dict(name='adam', b1=0.0, learning_rate=0.0001, max_norm=1.0),
  data='cifar10',
  evaluation=dict(num_samples=400),
  batch_size=128,
  num_steps=60000,
)
VARIANTS = dict(
  smoke=dict(
    step=dict(chain=dict(num_steps=2)),
    num_chains=8,
    energy=dict(widths=(2, 2, 2, 2)),
    optimizer=dict(learning_rate=0.0001),
    data=dict(name='synthetic', pixels='symmetric', shape=(8, 8, 3)),
    batch_size=4,
  )
)
get_config = configs.scales(CONFIG, VARIANTS)
