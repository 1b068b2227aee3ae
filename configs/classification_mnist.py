"""The small CNN that MNIST samples are judged by.

python -m experiments.train --config=configs/classification_mnist.py \
  --workdir=runs/classifier
Fashion-MNIST: --config.data.name=fashion_mnist \
  --config.evaluation.data.name=fashion_mnist
On samples that `evaluate` has left: --config=configs/classification_mnist.py:samples \
  --config.data.path=runs/joint/samples.npz

Scales: ':digits' is scikit-learn's 8x8 digits; ':few' 1,000 labels, and the network of
Z16 a quarter as wide, with less dropout and a rate falling in a cosine; ':smoke' a
few steps on noise.
Expect: 99.45 % of the test images after 6,000 steps, ten minutes on two cores; 98.1 %
of ':digits' in half a minute.
"""

from stein_jax.runs import configs

CONFIG = dict(
  algorithm='classification',
  classifier=dict(name='CNN'),
  optimizer=dict(
    name='adam',
    learning_rate=dict(
      name='cosine_decay_schedule', decay_steps=6000, init_value=0.002
    ),
  ),
  data='mnist',
  num_steps=6000,
)
VARIANTS = dict(
  digits=dict(
    step=dict(shift=1),
    optimizer=dict(learning_rate=dict(decay_steps=1500)),
    data=dict(name='digits'),
    num_steps=1500,
  ),
  few=dict(
    step=dict(shift=0),
    classifier=dict(
      name='AllConvolutional',
      blocks=(((16, 3), (16, 3)), ((16, 3), (16, 3)), ((16, 3), (16, 3))),
      dropout=0.2,
    ),
    optimizer=dict(
      name='adadelta',
      learning_rate=dict(
        name='cosine_decay_schedule', decay_steps=2000, init_value=1.0
      ),
      rho=0.95,
    ),
    data=dict(split='train[:1000]'),
    num_steps=2000,
  ),
  samples=dict(
    data=dict(name='npz', path='samples.npz'),
    evaluation=dict(data=dict(name='mnist')),
  ),
  smoke=dict(
    classifier=dict(dense=4, widths=(2, 2)),
    data=dict(name='synthetic'),
    evaluation=dict(num_samples=100),
  ),
)
get_config = configs.scales(CONFIG, VARIANTS)
