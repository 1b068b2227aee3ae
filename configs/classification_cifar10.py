"""ResNet-32 on CIFAR-10, as samples are judged in LW17 and WL16.

python -m experiments.train --config=configs/classification_cifar10.py \
  --workdir=runs/resnet
On samples that `evaluate` has left:
  --config=configs/classification_cifar10.py:samples --config.data.path=SAMPLES.npz
Scales: ':few' is 1,000 labels, and the network of Z16 a quarter as wide, as in
`classification_mnist`; ':smoke' a few steps on noise. The papers name neither depth nor
schedule: their 92.58 % on real images lies between the published ResNet-32 and -44.
Ours normalises groups of channels in place of the batch. A step takes 0.8 s on two
cores: seen so far are twenty on the real images.
"""

from stein_jax.runs import configs

CONFIG = dict(
  algorithm='classification',
  step=dict(flip=True, shift=4),
  classifier=dict(name='ResNet'),
  optimizer=dict(
    name='sgd',
    l2=0.0001,
    learning_rate=dict(
      name='cosine_decay_schedule', decay_steps=64000, init_value=0.1
    ),
    momentum=0.9,
  ),
  data='cifar10',
  batch_size=128,
  num_steps=64000,
  eval_every=2000,
  checkpoint_every=2000,
)
VARIANTS = dict(
  few=dict(
    step=dict(flip=False, shift=0),
    classifier=dict(
      name='AllConvolutional',
      blocks=(
        ((24, 3), (24, 3), (24, 3)),
        ((48, 3), (48, 3), (48, 3)),
        ((48, 3), (48, 1), (48, 1)),
      ),
      dropout=0.2,
    ),
    optimizer=dict(
      name='adadelta',
      learning_rate=dict(
        name='cosine_decay_schedule', decay_steps=2000, init_value=1.0
      ),
      rho=0.95,
    ),
    data=dict(pixels='unit', split='train[:1000]'),
    batch_size=100,
    num_steps=2000,
  ),
  samples=dict(
    data=dict(name='npz', path='samples.npz', pixels='symmetric'),
    evaluation=dict(data=dict(name='cifar10')),
  ),
  smoke=dict(
    classifier=dict(depth=8, width=4),
    data=dict(name='synthetic', shape=(8, 8, 3)),
    evaluation=dict(num_samples=100),
  ),
)
get_config = configs.scales(CONFIG, VARIANTS)
