"""An EBM and a VAE that amortises its sampling, on CIFAR-10 (X21, table 1).

python -m experiments.train --config=configs/vae_teaching_cifar10.py \
  --workdir=runs/vae_teaching_cifar10
There is no result to expect: no GPU was at hand for a run to the end. The numbers are
those of the authors' code, but for as many chains as images, 250, where it has 900.
With Langevin noise, as printed: --config.step.chain.noise=True
"""

from stein_jax.runs import configs

_CONVS = dict(kernels=(3, 4, 4, 4), strides=(1, 2, 2, 2))
_ENERGY = dict(_CONVS, name='ConvNet', reference_sigma=0.016)
_TINY = dict(
  widths=(2, 2, 2), encoder_widths=(2, 2, 2, 2), base=2, latent_dim=3
)
# Rates fall by 2 % every 20 epochs.
_DECAY = dict(name='exponential_decay', decay_rate=0.98, transition_steps=4000)
_ADAM = dict(name='adam', b1=0.5)
CONFIG = dict(
  algorithm='vae_teaching',
  step=dict(chain=dict(noise=False)),
  sample=dict(chain=dict(num_steps=30, clip=(-1.0, 1.0))),
  energy=dict(_ENERGY, widths=(64, 128, 256, 256)),
  generator=dict(
    name='VAE',
    shape=(32, 32, 3),
    widths=(128, 64, 64),
    kernels=(4, 4, 3, 3),
    strides=(2, 2, 2, 1),
    last_norm=False,
    encoder_widths=(64, 128, 256, 512),
    encoder_kernels=(3, 4, 4, 4),
    encoder_strides=(1, 2, 2, 2),
    scale=0.005,
  ),
  energy_optimizer=dict(_ADAM, learning_rate=dict(_DECAY, init_value=9e-3)),
  generator_optimizer=dict(_ADAM, learning_rate=dict(_DECAY, init_value=2e-4)),
  data='cifar10',
  evaluation=dict(num_samples=900),
  batch_size=250,
  num_steps=1_000_000,  # 5,000 epochs
  eval_every=5000,
  checkpoint_every=5000,
)
_SMOKE = dict(
  step=dict(chain=dict(num_steps=2)),
  sample=dict(chain=dict(num_steps=2)),
  energy=dict(widths=(2, 2, 2, 2)),
  generator=dict(_TINY, shape=(8, 8, 3)),
  energy_optimizer=dict(learning_rate=1e-4),
  generator_optimizer=dict(learning_rate=1e-4),
  data=dict(name='synthetic', shape=(8, 8, 3), pixels='symmetric'),
  batch_size=4,
)
get_config = configs.scales(CONFIG, smoke=_SMOKE)
