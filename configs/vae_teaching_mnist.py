"""An EBM and a VAE that amortises its sampling, on MNIST (X21, figure 1).

python -m experiments.train --config=configs/vae_teaching_mnist.py:narrow \
  --workdir=runs/vae_teaching
Fashion-MNIST: --config.data.name=fashion_mnist \
  --config.evaluation.data.name=fashion_mnist
With Langevin noise, as printed: --config.step.noise=True --config.sample.noise=True

Scales: '' has the numbers of the authors' code, which is without noise; ':narrow' a
quarter of their width, 20 Langevin steps of twice the size, batches of 64 and 3,000
steps, for two cores, and because they are few a faster autoencoder that says more:
rate 1e-3, gamma 0.5 (with 3, samples are half as varied), no dropout; ':smoke' a few
steps on noise.
Expect of ':narrow' after 1,000 steps, two seeds: inception score 4.3, 3.8, Frechet
distance 133, 157 by a CNN of 98.7 %; 4.9, 4.8 and 92, 96 with the larger, noisy steps
of `langevin_ebm_mnist`. '' has not been run to its end.
"""

from stein_jax.runs import configs

CONFIG = dict(
  algorithm='vae_teaching',
  step=dict(
    kl_weight=3.0, chain=dict(num_steps=50, step_size=0.001, noise=False)
  ),
  energy=dict(name='ConvNet', outputs=100, reference_sigma=0.016),
  generator=dict(name='VAE', dropout=0.2),
  energy_optimizer=dict(
    name='adam',
    b1=0.5,
    learning_rate=dict(
      name='exponential_decay',
      decay_rate=0.98,
      init_value=0.009,
      transition_steps=3000,
    ),
  ),
  generator_optimizer=dict(
    name='adam',
    b1=0.5,
    learning_rate=dict(
      name='exponential_decay',
      decay_rate=0.98,
      init_value=0.0001,
      transition_steps=3000,
    ),
  ),
  data=dict(name='mnist', pixels='symmetric'),
  evaluation=dict(num_samples=400),
  batch_size=400,
  num_steps=750000,
)
VARIANTS = dict(
  narrow=dict(
    step=dict(kl_weight=0.5, chain=dict(num_steps=20, step_size=0.002)),
    energy=dict(strides=(2, 2, 2), widths=(16, 32, 64)),
    generator=dict(
      base=64, dropout=0.0, encoder_widths=(16, 16, 16), widths=(32, 16)
    ),
    generator_optimizer=dict(learning_rate=dict(init_value=0.001)),
    evaluation=dict(num_samples=100),
    batch_size=64,
    num_steps=3000,
    eval_every=500,
  ),
  smoke=dict(
    step=dict(chain=dict(num_steps=2)),
    energy=dict(outputs=2, widths=(2, 2, 2)),
    generator=dict(
      base=2,
      encoder_widths=(2, 2, 2),
      latent_dim=3,
      shape=(8, 8, 1),
      widths=(2, 2),
    ),
    energy_optimizer=dict(learning_rate=0.0001),
    generator_optimizer=dict(learning_rate=0.0001),
    data=dict(name='synthetic', pixels='symmetric'),
    batch_size=4,
  ),
)
get_config = configs.scales(CONFIG, VARIANTS)
