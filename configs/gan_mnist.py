"""DCGAN on MNIST, the baseline of SteinGAN: the same generator, three losses.

python -m experiments.train --config=configs/gan_mnist.py --workdir=runs/gan
Expect an inception score of 8.2 and a Frechet distance of 55 after 10,000 steps, which
take five minutes on two cores. The CNN of `classification_mnist` judges 10,000 samples.
':conditional' has 8.0 and 87, with samples of a class much alike; ':wgan' (WGAN-GP) has
6.0 and 216 after 7,400 steps. All are a quarter as wide as DCGAN.
Minimax, as printed: --config.step.loss=minimax
"""

from stein_jax.runs import configs

_ADAM = dict(name='adam', learning_rate=2e-4, b1=0.5, l2=1e-5)
_WGAN_ADAM = dict(learning_rate=1e-4, b1=0.0, b2=0.9, l2=0.0)
_MAPS = dict(base=32, dense=(256,), widths=(16,), strides=(2, 2))
CONFIG = dict(
  algorithm='gan',
  step=dict(joint=False),
  energy=dict(name='Discriminator', widths=(16, 32)),
  generator=dict(_MAPS, name='DCGAN', shape=(28, 28, 1), output='sigmoid'),
  energy_optimizer=_ADAM,
  generator_optimizer=_ADAM,
  data=dict(name='mnist', split='train[:50000]'),
  evaluation=dict(num_samples=200),
)
_CONDITIONAL = dict(data=dict(condition='label'))
_WGAN = dict(
  step=dict(loss='wasserstein', generator_every=5),
  energy=dict(norm='layer'),
  energy_optimizer=_WGAN_ADAM,
  generator_optimizer=_WGAN_ADAM,
  num_steps=20000,
)
_SMOKE = dict(
  energy=dict(widths=(2, 3)),
  generator=dict(shape=(8, 8, 1), base=2, dense=(4,), widths=(2,)),
  data=dict(name='synthetic', num_classes=4, condition='label'),
)
get_config = configs.scales(
  CONFIG, conditional=_CONDITIONAL, wgan=_WGAN, smoke=_SMOKE
)
