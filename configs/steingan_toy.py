"""SteinGAN on a two-dimensional toy density: an MLP energy and an MLP sampler.

python -m experiments.train --config=configs/steingan_toy.py --workdir=runs/steingan_toy
Without kernel, which collapses: --config.step.kernel=none

Expect: -3.64 nats test log likelihood (AIS; the true density has -3.51) and samples
that a two-sample test takes for data (p = 0.3) after 8,000 steps, a minute on two
cores. With two generator steps and three times the energy's rate the energy falls
away where no samples are (-23 nats).
"""

from stein_jax.runs import configs

CONFIG = dict(
  algorithm='steingan',
  step=dict(num_generator_steps=5),
  energy=dict(name='MLP', widths=(64, 64)),
  generator=dict(name='MLP', latent_dim=4),
  energy_optimizer=dict(name='adam', b1=0.5, learning_rate=0.0001),
  generator_optimizer=dict(name='adam', b1=0.5, learning_rate=0.001),
  data='toy',
  evaluation=dict(
    ais=dict(num_chains=1000, step_size=0.5),
    log_likelihood='ais',
    num_samples=1000,
  ),
  batch_size=200,
  num_steps=8000,
  eval_every=2000,
  checkpoint_every=2000,
)
VARIANTS = dict(
  smoke=dict(
    energy=dict(widths=(4,)),
    generator=dict(widths=(4,)),
    evaluation=dict(ais=dict(num_temperatures=10)),
    eval_every=4,
  )
)
get_config = configs.scales(CONFIG, VARIANTS)
