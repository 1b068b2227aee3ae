"""SteinGAN on MNIST: an RBM and a deconvolutional sampler (LW17, 5.1).

python -m experiments.train --config=configs/steingan_mnist.py --workdir=runs/steingan
Without kernel: --config.step.kernel=none; SteinCD-GAN: --config.step.alpha=0.25.

Scales: '' is the paper's setting; ':centred' the one that can match its model:
centred RBM, unit noise on a linear output, wide kernel on the hidden features;
':digits' that one on scikit-learn's 8x8 digits; ':smoke' a few steps on noise.

Expect, test log likelihood: ':centred' -743.1 nats in 80 s on two cores, ':digits'
-83.3 in 20 s; '' takes an hour there, and at an eighth of its width runs away
(BUILD_NOTES, Results, has the rates that do not).
"""

from stein_jax.runs import configs

CONFIG = dict(
  algorithm='steingan',
  energy=dict(name='RBM', num_hidden=10),
  generator=dict(name='Deconv'),
  energy_optimizer=dict(name='adam', b1=0.5, learning_rate=0.0003),
  generator_optimizer=dict(name='adam', b1=0.5, learning_rate=0.0003),
  data=dict(name='mnist', split='train[:50000]'),
  evaluation=dict(log_likelihood='exact'),
  eval_every=500,
)
VARIANTS = dict(
  centred=dict(
    step=dict(
      direction=dict(name='FeatureSVGD', kernel=dict(bandwidth=dict(scale=4.0)))
    ),
    energy=dict(centered=True),
    generator=dict(output='linear', output_noise=1.0, width=8),
    energy_optimizer=dict(
      learning_rate=dict(
        name='linear_schedule',
        end_value=0.0,
        init_value=0.0003,
        transition_steps=6000,
      )
    ),
    generator_optimizer=dict(learning_rate=0.001),
    num_steps=6000,
  ),
  digits=dict(
    step=dict(direction=dict(name='FeatureSVGD')),
    energy=dict(centered=True),
    generator=dict(output='linear', output_noise=1.0, shape=(8, 8, 1), width=8),
    energy_optimizer=dict(
      learning_rate=dict(
        name='linear_schedule',
        end_value=0.0,
        init_value=0.001,
        transition_steps=2000,
      )
    ),
    generator_optimizer=dict(learning_rate=0.003),
    data=dict(name='digits', scale=4.0),
    num_steps=2000,
    eval_every=100,
  ),
  smoke=dict(
    step=dict(alpha=0.5),
    energy=dict(num_hidden=3),
    generator=dict(latent_dim=4, shape=(4, 4, 1), width=2),
    data=dict(name='synthetic', shape=(4, 4, 1)),
  ),
)
get_config = configs.scales(CONFIG, VARIANTS)
