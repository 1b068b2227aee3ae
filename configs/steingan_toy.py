"""SteinGAN on a two-dimensional toy density: an MLP energy and an MLP sampler.

python -m experiments.train --config=configs/steingan_toy.py --workdir=runs/steingan_toy
Expect -3.64 nats of test log likelihood by AIS, where the true density has -3.51, and
samples that a two-sample test takes for data (p = 0.3), after 8,000 steps, which take a
minute on two cores.
Without a kernel, which collapses: --config.step.direction=Score
"""

from stein_jax.runs import configs

_AIS = dict(num_chains=1000, step_size=0.5)
CONFIG = dict(
  algorithm='steingan',
  # With two of these, and three times the energy's rate, the energy falls away where no
  # samples are (-23 nats).
  step=dict(num_generator_steps=5),
  energy=dict(name='MLP', widths=(64, 64)),
  generator=dict(name='MLP', latent_dim=4),
  energy_optimizer=dict(name='adam', learning_rate=1e-4, b1=0.5),
  generator_optimizer=dict(name='adam', learning_rate=1e-3, b1=0.5),
  data='toy',
  evaluation=dict(log_likelihood='ais', num_samples=1000, ais=_AIS),
  batch_size=200,
  num_steps=8000,
  eval_every=2000,
  checkpoint_every=2000,
)
_SMOKE = dict(
  energy=dict(widths=(4,)),
  generator=dict(widths=(4,)),
  evaluation=dict(ais=dict(num_temperatures=10)),
  eval_every=4,
)
get_config = configs.scales(CONFIG, smoke=_SMOKE)
