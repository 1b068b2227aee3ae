"""The small CNN that judges samples of MNIST.

python -m experiments.train --config=configs/classification_mnist.py \
  --workdir=runs/classifier
Expect 99.45 % of the test images after 6,000 steps, which take ten minutes on two
cores, and 98.1 % of ':digits' in half a minute.
Fashion-MNIST: --config.data=fashion_mnist
Scales: ':digits' is scikit-learn's 8x8 digits; ':few' has 1,000 labels and the network
of Z16 a quarter as wide, with less dropout and a rate that falls in a cosine;
':samples' trains on samples that `evaluate` has left, with
--config.data.path=runs/joint/samples.npz
"""

from stein_jax.runs import configs

_COSINE = dict(name='cosine_decay_schedule')
CONFIG = dict(
  algorithm='classification',
  classifier='CNN',
  optimizer=dict(
    name='adam', learning_rate=dict(_COSINE, init_value=2e-3, decay_steps=6000)
  ),
  data='mnist',
  num_steps=6000,
)
_DIGITS = dict(
  step=dict(shift=1),
  optimizer=dict(learning_rate=dict(decay_steps=1500)),
  data='digits',
  num_steps=1500,
)
_SAMPLES = dict(
  data=dict(name='npz', path='samples.npz'), evaluation=dict(data='mnist')
)
_FEW = dict(
  step=dict(shift=0),
  classifier=dict(
    name='AllConvolutional', blocks=(((16, 3), (16, 3)),) * 3, dropout=0.2
  ),
  optimizer=dict(
    name='adadelta',
    learning_rate=dict(_COSINE, init_value=1.0, decay_steps=2000),
    rho=0.95,
  ),
  data=dict(name='mnist', split='train[:1000]'),
  num_steps=2000,  # 200 epochs
)
_SMOKE = dict(
  classifier=dict(widths=(2, 2), dense=4),
  data='synthetic',
  evaluation=dict(num_samples=100),
)
get_config = configs.scales(
  CONFIG, digits=_DIGITS, samples=_SAMPLES, few=_FEW, smoke=_SMOKE
)
