"""A network that draws from a known two-dimensional density (WL16, section 2).

python -m experiments.train --config=configs/amortized_svgd_toy.py \
  --workdir=runs/amortized_svgd
Another density: --config.density.name=banana --config.data.density=banana
  --config.evaluation.data.density=banana
Least squares on the linearised network: --config.step.projection=linear
  --config.optimizer.name=sgd --config.optimizer.learning_rate=0.5

Expect: energy distance to exact draws 0.003 (two sets of exact draws: -0.01 to 0.01)
after 5,000 steps, 20 s on two cores.
"""

from stein_jax.runs import configs

CONFIG = dict(
  algorithm='amortized_svgd',
  generator=dict(name='MLP', latent_dim=4),
  density=dict(name='eight_gaussians'),
  optimizer=dict(name='adam', learning_rate=0.001),
  data='toy',
  evaluation=dict(num_samples=1000),
  batch_size=200,
  num_steps=5000,
  eval_every=0,
)
VARIANTS = dict(
  smoke=dict(
    step=dict(inner_steps=2),
    generator=dict(widths=(4,)),
    optimizer=dict(learning_rate=0.1),
    eval_every=0,
  )
)
get_config = configs.scales(CONFIG, VARIANTS)
