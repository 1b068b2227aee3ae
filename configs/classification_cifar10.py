"""ResNet-32 on CIFAR-10, which judges samples in LW17 and WL16.

python -m experiments.train --config=configs/classification_cifar10.py \
  --workdir=runs/resnet
A step takes 0.8 s on two cores; only twenty have been taken on the real images. The
papers name neither depth nor schedule: their 92.58 % on real images lies between the
published ResNet-32 and ResNet-44. Ours normalises groups of channels, not the batch.
Scales: ':few' has 1,000 labels and the network of Z16 a quarter as wide, as in
`classification_mnist`; ':samples' trains on samples that `evaluate` has left, with
--config.data.path=SAMPLES.npz
"""

from stein_jax.runs import configs

_COSINE = dict(name='cosine_decay_schedule')
_MAPS = ((24, 3), (24, 3), (24, 3)), ((48, 3), (48, 3), (48, 3))
CONFIG = dict(
  algorithm='classification',
  step=dict(shift=4, flip=True),
  classifier='ResNet',
  optimizer=dict(
    name='sgd',
    learning_rate=dict(_COSINE, init_value=0.1, decay_steps=64000),
    momentum=0.9,
    l2=1e-4,
  ),
  data='cifar10',
  batch_size=128,
  num_steps=64000,
  eval_every=2000,
  checkpoint_every=2000,
)
_SAMPLES = dict(
  data=dict(name='npz', path='samples.npz', pixels='symmetric'),
  evaluation=dict(data='cifar10'),
)
_FEW = dict(
  step=dict(shift=0, flip=False),
  classifier=dict(
    name='AllConvolutional',
    blocks=(*_MAPS, ((48, 3), (48, 1), (48, 1))),
    dropout=0.2,
  ),
  optimizer=dict(
    name='adadelta',
    learning_rate=dict(_COSINE, init_value=1.0, decay_steps=2000),
    rho=0.95,
  ),
  data=dict(name='cifar10', split='train[:1000]', pixels='unit'),
  batch_size=100,
  num_steps=2000,  # 200 epochs
)
_SMOKE = dict(
  classifier=dict(depth=8, width=4),
  data=dict(name='synthetic', shape=(8, 8, 3)),
  evaluation=dict(num_samples=100),
)
get_config = configs.scales(CONFIG, samples=_SAMPLES, few=_FEW, smoke=_SMOKE)
