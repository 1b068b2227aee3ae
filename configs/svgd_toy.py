"""SVGD particles on a known two-dimensional density (LW16).

python -m experiments.train --config=configs/svgd_toy.py --workdir=runs/svgd_toy
Another density: --config.density.name=banana --config.data.density=banana
Expect: energy distance to exact draws -0.009 after 2,000 steps, 16 s on two cores
(two sets of 400 exact draws: -0.01 to 0.04).
"""

from stein_jax.runs import configs

CONFIG = dict(
  algorithm='svgd',
  num_particles=400,
  density=dict(name='eight_gaussians'),
  optimizer=dict(name='sgd', learning_rate=0.5),
  data='toy',
  evaluation=dict(num_samples=400),
  batch_size=8,
  num_steps=2000,
  eval_every=0,
)
VARIANTS = dict(
  smoke=dict(num_particles=8, optimizer=dict(learning_rate=0.1), eval_every=0)
)
get_config = configs.scales(CONFIG, VARIANTS)
