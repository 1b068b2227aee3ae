"""DCGAN on MNIST, the baseline of SteinGAN: same generator, three losses.

python -m experiments.train --config=configs/gan_mnist.py --workdir=runs/gan
WGAN-GP: configs/gan_mnist.py:wgan. Conditional: configs/gan_mnist.py:conditional.
Minimax, as printed: --config.step.loss=minimax

Widths are a quarter of DCGAN's, for two cores. Expect, of 10,000 samples judged by the
CNN of `classification_mnist`: inception score 8.2 and Frechet distance 55 after 10,000
steps, five minutes on two cores; ':conditional' 8.0 and 87, its samples of a class much
alike; ':wgan' 6.0 and 216 after 7,400 steps. Scale ':smoke' is a few steps.
"""

from stein_jax.runs import configs

CONFIG = dict(
  algorithm='gan',
  step=dict(joint=False),
  energy=dict(name='Discriminator', widths=(16, 32)),
  generator=dict(
    name='DCGAN',
    base=32,
    dense=(256,),
    output='sigmoid',
    shape=(28, 28, 1),
    strides=(2, 2),
    widths=(16,),
  ),
  energy_optimizer=dict(name='adam', b1=0.5, l2=1e-05, learning_rate=0.0002),
  generator_optimizer=dict(name='adam', b1=0.5, l2=1e-05, learning_rate=0.0002),
  data=dict(name='mnist', split='train[:50000]'),
  evaluation=dict(num_samples=200),
)
VARIANTS = dict(
  conditional=dict(data=dict(condition='label')),
  smoke=dict(
    energy=dict(widths=(2, 3)),
    generator=dict(base=2, dense=(4,), shape=(8, 8, 1), widths=(2,)),
    data=dict(name='synthetic', num_classes=4, condition='label'),
  ),
  wgan=dict(
    step=dict(generator_every=5, loss='wasserstein'),
    energy=dict(norm='layer'),
    energy_optimizer=dict(b1=0.0, b2=0.9, learning_rate=0.0001),
    generator_optimizer=dict(b1=0.0, b2=0.9, learning_rate=0.0001),
    num_steps=20000,
  ),
)
get_config = configs.scales(CONFIG, VARIANTS)
