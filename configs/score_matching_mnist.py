"""Stein score matching on MNIST: an RBM by the KSD (LW17, eq 15).

python -m experiments.train \
  --config=configs/score_matching_mnist.py --workdir=runs/score_matching

Scales: '' is MNIST through TFDS; ':digits' behind the file's name is
scikit-learn's 8x8 digits, no download; ':smoke' a few steps on noise.
Expect: -744.3 nats test log likelihood on MNIST, -83.8 on digits; a minute,
half a minute on two cores.
"""

from stein_jax.runs import configs

CONFIG = dict(
  algorithm='score_matching',
  sample=dict(chain=dict(name='Gibbs', num_steps=1000)),
  energy=dict(name='RBM', num_hidden=10),
  optimizer=dict(
    name='adam',
    b1=0.5,
    learning_rate=dict(
      name='linear_schedule',
      end_value=0.0,
      init_value=0.0003,
      transition_steps=10000,
    ),
  ),
  data=dict(name='mnist', split='train[:50000]'),
  evaluation=dict(log_likelihood='exact'),
  eval_every=500,
)
VARIANTS = dict(
  digits=dict(
    energy=dict(centered=True),
    optimizer=dict(learning_rate=dict(init_value=0.01, transition_steps=2000)),
    data=dict(name='digits', scale=4.0),
    num_steps=2000,
    eval_every=100,
  ),
  smoke=dict(
    sample=dict(chain=dict(num_steps=4)),
    energy=dict(centered=True, num_hidden=3),
    data=dict(name='synthetic', shape=(4, 4, 1)),
  ),
)
get_config = configs.scales(CONFIG, VARIANTS)
