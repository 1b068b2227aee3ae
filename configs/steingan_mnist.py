"""SteinGAN on MNIST: an RBM and a deconvolutional sampler (LW17, 5.1).

python -m experiments.train --config=configs/steingan_mnist.py:centred \
  --workdir=runs/steingan
Expect -743.1 nats of test log likelihood after 80 s on two cores, and -83.3 for
':digits', which is scikit-learn's 8x8 digits, after 20 s.
Scales: '' is the paper's setting, which takes an hour there, and runs away at an eighth
of its width. In the others unit noise on a linear output lets samples match the RBM.
Without a kernel: --config.step.direction=Score
SteinCD-GAN: --config.step.alpha=0.25
"""

from stein_jax.runs import configs

_FALL = dict(name='linear_schedule', init_value=3e-4, end_value=0.0)
# The bandwidth is about the median of squared distances. With a scale of 1 all other
# samples weigh as much as three of the 100, and a sample's own score a fourth of phi.
_WIDE = dict(name='FeatureSVGD', kernel=dict(bandwidth=dict(scale=4.0)))
# The paper's width is no better here.
_LINEAR = dict(width=8, output='linear', output_noise=1.0)
CONFIG = dict(
  algorithm='steingan',
  energy=dict(name='RBM', num_hidden=10),
  generator='Deconv',
  energy_optimizer=dict(name='adam', learning_rate=3e-4, b1=0.5),
  generator_optimizer=dict(name='adam', learning_rate=3e-4, b1=0.5),
  data=dict(name='mnist', split='train[:50000]'),
  evaluation=dict(log_likelihood='exact'),
  eval_every=500,
)
_CENTRED = dict(
  step=dict(direction=_WIDE),
  energy=dict(centered=True),
  generator=_LINEAR,
  energy_optimizer=dict(learning_rate=dict(_FALL, transition_steps=6000)),
  generator_optimizer=dict(learning_rate=1e-3),
  num_steps=6000,
)
_DIGITS = dict(
  step=dict(direction='FeatureSVGD'),
  energy=dict(centered=True),
  generator=dict(_LINEAR, shape=(8, 8, 1)),
  energy_optimizer=dict(
    learning_rate=dict(_FALL, init_value=1e-3, transition_steps=2000)
  ),
  generator_optimizer=dict(learning_rate=3e-3),
  # Strokes are four times as high as the model's noise, as in the other configs.
  data=dict(name='digits', scale=4.0),
  num_steps=2000,
  eval_every=100,
)
_SMOKE = dict(
  step=dict(alpha=0.5),
  energy=dict(num_hidden=3),
  generator=dict(shape=(4, 4, 1), latent_dim=4, width=2),
  data=dict(name='synthetic', shape=(4, 4, 1)),
)
get_config = configs.scales(
  CONFIG, centred=_CENTRED, digits=_DIGITS, smoke=_SMOKE
)
