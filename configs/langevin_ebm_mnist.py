"""Langevin EBM on MNIST, without an amortised sampler (X21, panel 3).

python -m experiments.train --config=configs/langevin_ebm_mnist.py:narrow \
  --workdir=runs/langevin_ebm
Fashion-MNIST: --config.data.name=fashion_mnist \
  --config.evaluation.data.name=fashion_mnist
Persistent chains: --config.num_chains=100 --config.step.restart=0.0
A replay buffer: --config.num_chains=10000

The energy is that of `vae_teaching_mnist`. Chains of every step start at uniform noise;
the reference pulls them to 0 only slowly, so they are longer and their steps larger.
Scales: ':narrow' as there, for two cores; ':smoke' a few steps on noise.
Expect of ':narrow' after 1,000 steps, two seeds: inception score 4.5, 4.1, Frechet
distance 110, 124 by a CNN of 98.7 %; with 5,000 chains in the buffer 5.3, 5.6 and 81,
68. '' has not been run to its end.
"""

from stein_jax.runs import configs

CONFIG = dict(
  algorithm='langevin_ebm',
  step=dict(chain=dict(step_size=0.004, clip=(-1.0, 1.0))),
  energy=dict(name='ConvNet', outputs=100, reference_sigma=0.016),
  optimizer=dict(name='adam', b1=0.5, learning_rate=0.009),
  data=dict(name='mnist', pixels='symmetric'),
  evaluation=dict(num_samples=400),
  batch_size=400,
  num_steps=150000,
)
VARIANTS = dict(
  narrow=dict(
    step=dict(chain=dict(num_steps=20, step_size=0.008)),
    energy=dict(strides=(2, 2, 2), widths=(16, 32, 64)),
    evaluation=dict(num_samples=100),
    batch_size=64,
    num_steps=3000,
    eval_every=500,
  ),
  smoke=dict(
    step=dict(chain=dict(num_steps=2)),
    num_chains=8,
    energy=dict(outputs=2, widths=(2, 2, 2)),
    optimizer=dict(learning_rate=0.0001),
    data=dict(name='synthetic', pixels='symmetric'),
    batch_size=4,
  ),
)
get_config = configs.scales(CONFIG, VARIANTS)
