"""Pseudo-likelihood on binary MNIST: an RBM of binary units, and no chain.

python -m experiments.train --config=configs/pseudo_likelihood_mnist.py \
  --workdir=runs/pseudo_likelihood
Expect -238 nats of test log likelihood, after 100 s on two cores, and -18.3 for
':digits', which is scikit-learn's 8x8 digits, after half a minute.
"""

from stein_jax.runs import configs

_RATE = dict(
  name='linear_schedule', init_value=5e-3, end_value=0.0, transition_steps=4000
)
CONFIG = dict(
  algorithm='pseudo_likelihood',
  step=dict(num_units=64),
  sample=dict(chain=dict(name='Gibbs', num_steps=1000)),
  energy=dict(name='BinaryRBM', num_hidden=20),
  optimizer=dict(name='adam', learning_rate=_RATE),
  data=dict(name='mnist', split='train[:50000]', binarize=True),
  evaluation=dict(log_likelihood='exact'),
  num_steps=4000,
  eval_every=500,
)
_DIGITS = dict(
  step=dict(num_units=0),
  optimizer=dict(learning_rate=dict(init_value=0.02, transition_steps=2000)),
  data=dict(name='digits', binarize=True),
  num_steps=2000,
)
_SMOKE = dict(
  step=dict(num_units=3),
  sample=dict(chain=dict(num_steps=4)),
  energy=dict(num_hidden=3),
  data=dict(name='synthetic', shape=(4, 4, 1), binarize=True),
)
get_config = configs.scales(CONFIG, digits=_DIGITS, smoke=_SMOKE)
