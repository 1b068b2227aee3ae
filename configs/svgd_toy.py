"""SVGD particles on a known two-dimensional density (LW16).

python -m experiments.train --config=configs/svgd_toy.py --workdir=runs/svgd_toy
Expect an energy distance of -0.009 to exact draws after 2,000 steps, which take 16 s on
two cores. Two sets of 400 exact draws are -0.01 to 0.04 apart.
Another density: --config.density.name=banana --config.data.density=banana
"""

from stein_jax.runs import configs

CONFIG = dict(
  algorithm='svgd',
  num_particles=400,
  density='eight_gaussians',
  # Plain descent along phi: Adam's scaling by coordinate favours the diagonals.
  optimizer=dict(name='sgd', learning_rate=0.5),
  # The density takes no data; exact draws stand beside the particles.
  data='toy',
  evaluation=dict(num_samples=400),
  batch_size=8,
  num_steps=2000,
  eval_every=0,
)
_SMOKE = dict(num_particles=8, optimizer=dict(learning_rate=0.1), eval_every=0)
get_config = configs.scales(CONFIG, smoke=_SMOKE)
