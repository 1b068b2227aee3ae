"""SVGD on Bayesian logistic regression, minibatched (LW16, section 5).

python -m experiments.train --config=configs/svgd_breast_cancer.py \
  --workdir=runs/svgd_breast_cancer
Expect 14 s on two cores for 2,000 steps.
"""

from stein_jax.runs import configs

CONFIG = dict(
  algorithm='svgd',
  density=dict(name='logistic_regression', num_examples=455),
  optimizer=dict(name='adagrad', learning_rate=0.1),
  data='breast_cancer',
  batch_size=48,
  num_steps=2000,
  eval_every=0,
)
_SMOKE = dict(num_particles=8, optimizer=dict(learning_rate=1e-4), eval_every=0)
get_config = configs.scales(CONFIG, smoke=_SMOKE)
