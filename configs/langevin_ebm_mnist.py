"""Langevin EBM on MNIST, without an amortised sampler (X21, panel 3).

python -m experiments.train --config=configs/langevin_ebm_mnist.py:narrow \
  --workdir=runs/langevin_ebm
Expect an inception score of 4.5 and 4.1 and a Frechet distance of 110 and 124, by a CNN
of 98.7 %, after 1,000 steps of ':narrow' with two seeds; 5.3, 5.6 and 81, 68 with 5,000
chains in a replay buffer. '' has not been run to its end.
The energy and the scales are those of `vae_teaching_mnist`.
A replay buffer: --config.num_chains=10000
Persistent chains: --config.num_chains=100 --config.step.restart=0.0
Fashion-MNIST: --config.data.name=fashion_mnist
"""

from stein_jax.runs import configs

CONFIG = dict(
  algorithm='langevin_ebm',
  # Chains start at uniform noise, and the reference pulls them to 0 only slowly: they
  # are longer than `vae_teaching_mnist`'s, and their steps larger.
  step=dict(chain=dict(step_size=0.004, clip=(-1.0, 1.0))),
  energy=dict(name='ConvNet', outputs=100, reference_sigma=0.016),
  optimizer=dict(name='adam', learning_rate=9e-3, b1=0.5),
  data=dict(name='mnist', pixels='symmetric'),
  evaluation=dict(num_samples=400),
  batch_size=400,
  num_steps=150_000,
)
_NARROW = dict(
  step=dict(chain=dict(num_steps=20, step_size=0.008)),
  energy=dict(widths=(16, 32, 64), strides=(2, 2, 2)),
  evaluation=dict(num_samples=100),
  batch_size=64,
  num_steps=3000,
  eval_every=500,
)
_SMOKE = dict(
  step=dict(chain=dict(num_steps=2)),
  num_chains=8,
  energy=dict(widths=(2, 2, 2), outputs=2),
  optimizer=dict(learning_rate=1e-4),
  data=dict(name='synthetic', pixels='symmetric'),
  batch_size=4,
)
get_config = configs.scales(CONFIG, narrow=_NARROW, smoke=_SMOKE)
