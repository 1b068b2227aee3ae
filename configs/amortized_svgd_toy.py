"""A network that draws from a known two-dimensional density (WL16, section 2).

python -m experiments.train --config=configs/amortized_svgd_toy.py \
  --workdir=runs/amortized_svgd
Expect an energy distance of 0.003 to exact draws after 5,000 steps, which take 20 s on
two cores. Two sets of exact draws are -0.01 to 0.01 apart.
Another density: --config.density.name=banana --config.data.density=banana
Least squares on the linearised network: --config.step.projection=linear
  --config.optimizer.name=sgd --config.optimizer.learning_rate=0.5
"""

from stein_jax.runs import configs

CONFIG = dict(
  algorithm='amortized_svgd',
  density='eight_gaussians',
  generator=dict(name='MLP', latent_dim=4),
  optimizer=dict(name='adam', learning_rate=1e-3),
  # The density takes no data; exact draws stand beside the samples.
  data='toy',
  evaluation=dict(num_samples=1000),
  batch_size=200,
  num_steps=5000,
  eval_every=0,
)
_SMOKE = dict(
  step=dict(inner_steps=2),
  generator=dict(widths=(4,)),
  optimizer=dict(learning_rate=0.1),
  eval_every=0,
)
get_config = configs.scales(CONFIG, smoke=_SMOKE)
