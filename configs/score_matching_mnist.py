"""Stein score matching on MNIST: an RBM by the KSD (LW17, eq 15).

python -m experiments.train --config=configs/score_matching_mnist.py \
  --workdir=runs/score_matching
Expect -744.3 nats of test log likelihood, after a minute on two cores, and -83.8 for
':digits', which is scikit-learn's 8x8 digits, after half a minute.
"""

from stein_jax.runs import configs

_RATE = dict(
  name='linear_schedule', init_value=3e-4, end_value=0.0, transition_steps=10000
)
CONFIG = dict(
  algorithm='score_matching',
  sample=dict(chain=dict(name='Gibbs', num_steps=1000)),
  energy=dict(name='RBM', num_hidden=10),
  optimizer=dict(name='adam', learning_rate=_RATE, b1=0.5),
  data=dict(name='mnist', split='train[:50000]'),
  evaluation=dict(log_likelihood='exact'),
  eval_every=500,
)
_DIGITS = dict(
  energy=dict(centered=True),
  optimizer=dict(learning_rate=dict(init_value=0.01, transition_steps=2000)),
  # Strokes are four times as high as the model's noise; the paper's are no higher.
  data=dict(name='digits', scale=4.0),
  num_steps=2000,
  eval_every=100,
)
_SMOKE = dict(
  sample=dict(chain=dict(num_steps=4)),
  energy=dict(num_hidden=3, centered=True),
  data=dict(name='synthetic', shape=(4, 4, 1)),
)
get_config = configs.scales(CONFIG, digits=_DIGITS, smoke=_SMOKE)
