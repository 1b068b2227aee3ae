"""CD-k on MNIST: an RBM by Langevin steps from the data (LW17, 5.1).

python -m experiments.train \
  --config=configs/contrastive_divergence_mnist.py --workdir=runs/contrastive_divergence

Scales: '' is MNIST through TFDS; ':digits' behind the file's name is
scikit-learn's 8x8 digits, no download; ':smoke' a few steps on noise.
Expect: -744.5 nats test log likelihood on MNIST, -81.6 on digits; a minute,
half a minute on two cores.
"""

from stein_jax.runs import configs

CONFIG = dict(
  algorithm='contrastive_divergence',
  step=dict(chain=dict(step_size=1.0)),
  sample=dict(chain=dict(name='Gibbs', num_steps=1000)),
  energy=dict(name='RBM', num_hidden=10),
  optimizer=dict(
    name='adam',
    b1=0.5,
    learning_rate=dict(
      name='linear_schedule',
      end_value=0.0,
      init_value=0.002,
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
