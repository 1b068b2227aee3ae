"""VERA on a two-dimensional toy density: an MLP energy and an MLP sampler with noise.

python -m experiments.train --config=configs/vera_toy.py --workdir=runs/vera
Expect -3.9 nats of test log likelihood by AIS, where the true density has -3.51 and
`steingan_toy` -3.64, and samples that a two-sample test takes for data (p = 0.4), after
8,000 steps, which take three minutes on two busy cores.
Draws that are too narrow, with -4.1 nats: --config.step.latent_scale=0.1
"""

from stein_jax.runs import configs

_AIS = dict(num_chains=1000, step_size=0.5)
CONFIG = dict(
  algorithm='vera',
  # Latents are tried as widely as some of the draws allow.
  step=dict(noise_scale=0.3, latent_scale=0.2),
  energy=dict(name='MLP', widths=(64, 64)),
  generator=dict(name='MLP', latent_dim=2),
  energy_optimizer=dict(name='adam', learning_rate=1e-4, b1=0.0, b2=0.9),
  generator_optimizer=dict(name='adam', learning_rate=1e-3, b1=0.0, b2=0.9),
  data='toy',
  evaluation=dict(log_likelihood='ais', num_samples=1000, ais=_AIS),
  batch_size=200,
  num_steps=8000,
  eval_every=2000,
  checkpoint_every=2000,
)
_SMOKE = dict(
  step=dict(num_draws=3),
  energy=dict(widths=(4,)),
  generator=dict(widths=(4,)),
  evaluation=dict(ais=dict(num_temperatures=10)),
  eval_every=4,
)
get_config = configs.scales(CONFIG, smoke=_SMOKE)
