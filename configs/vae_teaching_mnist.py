"""An EBM and a VAE that amortises its sampling, on MNIST (X21, figure 1).

python -m experiments.train --config=configs/vae_teaching_mnist.py:narrow \
  --workdir=runs/vae_teaching
Expect an inception score of 4.3 and 3.8 and a Frechet distance of 133 and 157, by a CNN
of 98.7 %, after 1,000 steps of ':narrow' with two seeds; 4.9, 4.8 and 92, 96 with the
larger, noisy steps of `langevin_ebm_mnist`.
Scales: '' has the numbers of the authors' code and has not been run to its end;
':narrow' is a quarter as wide, with 20 Langevin steps of twice the size, for two cores.
With Langevin noise, as printed: --config.step.chain.noise=True
Fashion-MNIST: --config.data.name=fashion_mnist
"""

from stein_jax.runs import configs

_TINY = dict(widths=(2, 2), encoder_widths=(2, 2, 2), base=2, latent_dim=3)
# Rates fall by 2 % every 20 epochs.
_DECAY = dict(name='exponential_decay', decay_rate=0.98, transition_steps=3000)
_CHAIN = dict(num_steps=50, step_size=0.001, noise=False)
_ADAM = dict(name='adam', b1=0.5)
CONFIG = dict(
  algorithm='vae_teaching',
  step=dict(chain=_CHAIN, kl_weight=3.0),
  energy=dict(name='ConvNet', outputs=100, reference_sigma=0.016),
  generator=dict(name='VAE', dropout=0.2),
  energy_optimizer=dict(_ADAM, learning_rate=dict(_DECAY, init_value=9e-3)),
  generator_optimizer=dict(_ADAM, learning_rate=dict(_DECAY, init_value=1e-4)),
  data=dict(name='mnist', pixels='symmetric'),
  evaluation=dict(num_samples=400),
  batch_size=400,
  num_steps=750_000,  # 5,000 epochs
)
_NARROW = dict(
  # As steps are few, the autoencoder is faster and says more: with a weight of 3
  # samples are half as varied.
  step=dict(chain=dict(num_steps=20, step_size=0.002), kl_weight=0.5),
  energy=dict(widths=(16, 32, 64), strides=(2, 2, 2)),
  generator=dict(
    base=64, widths=(32, 16), encoder_widths=(16, 16, 16), dropout=0.0
  ),
  generator_optimizer=dict(learning_rate=dict(init_value=1e-3)),
  evaluation=dict(num_samples=100),
  batch_size=64,
  num_steps=3000,
  eval_every=500,
)
_SMOKE = dict(
  step=dict(chain=dict(num_steps=2)),
  energy=dict(widths=(2, 2, 2), outputs=2),
  generator=dict(_TINY, shape=(8, 8, 1)),
  energy_optimizer=dict(learning_rate=1e-4),
  generator_optimizer=dict(learning_rate=1e-4),
  data=dict(name='synthetic', pixels='symmetric'),
  batch_size=4,
)
get_config = configs.scales(CONFIG, narrow=_NARROW, smoke=_SMOKE)
