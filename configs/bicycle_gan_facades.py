"""Recovery of hidden parts of facades by BicycleGAN (X21, table 2, a baseline).

python -m experiments.train --config=configs/bicycle_gan_facades.py:narrow \
  --path=facades.zip --workdir=runs/bicycle_gan
The file is a zip, or a folder, of train/ and test/ with pairs side by side, photograph
left. The photograph from its label map: --config.data.mask=none \
  --config.evaluation.data.mask=none. Whole photographs: --config.data.side=all \
  --config.evaluation.data.side=all
cVAE-GAN++: --config.step.latent_weight=0; cVAE-GAN: --config.step.prior_weight=0 too.

Generator and discriminators are those of `gan_facades`. Scales as there.
Expect of ':narrow' after 500 steps, three seeds: 17.1, 17.7, 17.0 dB and SSIM 0.51,
0.56, 0.55 on the test images; of cVAE-GAN 18.9 dB and 0.59. '' has not been run to its
end.
"""

from ml_collections import ConfigDict


def get_config(scale=''):
  """Returns the config at that scale."""
  if scale not in ('', 'narrow', 'smoke'):
    raise ValueError(f'scale={scale!r} is unknown; allowed: narrow, smoke.')
  config = ConfigDict()
  config.algorithm = 'bicycle_gan'
  config.step = ConfigDict(
    dict(image_weight=10.0, kl_weight=0.01, prior_weight=1.0, latent_weight=0.5)
  )
  config.sample = ConfigDict()
  config.energy = ConfigDict(
    dict(
      name='ConvNet',
      widths=(64, 128, 256, 512),
      kernels=(4, 4, 4, 4),
      strides=(2, 2, 2, 2),
      outputs=1,
      reference_sigma=0.0,
      scale=0.02,
    )
  )
  config.generator = ConfigDict(
    dict(
      name='ImageToImage',
      shape=(128, 128, 3),
      latent_dim=8,
      widths=(32, 64, 128),
      num_blocks=6,
      encoder_widths=(64, 128, 256),
    )
  )
  adam = lambda rate: dict(name='adam', learning_rate=rate, b1=0.5)
  config.energy_optimizer = ConfigDict(adam(2e-4))
  config.generator_optimizer = ConfigDict(adam(2e-4))
  facades = dict(name='folder', path='facades.zip', side='left', mask='centre')
  config.data = ConfigDict(
    dict(facades, split='train', size=128, mirrored=True, pixels='symmetric')
  )
  config.evaluation = ConfigDict(
    dict(
      data=dict(facades, split='test', size=128, pixels='symmetric'),
      log_likelihood='none',
      num_samples=106,
    )
  )
  config.seed, config.batch_size, config.num_steps = 0, 50, 50000
  config.parallel, config.steps_per_call = 'jit', 1
  config.prng_impl, config.on_nonfinite = 'threefry2x32', 'stop'
  config.matmul_precision = 'float32'
  config.log_every = 20
  config.eval_every, config.checkpoint_every = 1000, 1000
  if scale == 'narrow':
    config.data.size = config.evaluation.data.size = 64
    config.generator.update(shape=(64, 64, 3), widths=(16, 32, 64))
    config.generator.update(num_blocks=2, encoder_widths=(16, 32, 64))
    config.energy.widths = (16, 32, 64, 64)
    config.step.image_weight = 100.0  # of so short a run
    config.generator_optimizer.learning_rate = 1e-3
    config.batch_size, config.num_steps = 20, 1500
    config.eval_every = config.checkpoint_every = 200
  if scale == 'smoke':
    shape = dict(
      name='synthetic', shape=(16, 16, 3), pixels='symmetric', pairs=True
    )
    config.data = ConfigDict(dict(shape, split='train'))
    config.evaluation.data = ConfigDict(dict(shape, split='test'))
    config.generator.update(shape=(16, 16, 3), widths=(2, 2), num_blocks=1)
    config.generator.update(latent_dim=3, encoder_widths=(2, 2))
    config.energy.widths = (2, 2, 2, 2)
    sgd = dict(name='sgd', learning_rate=1e-4)
    config.energy_optimizer = ConfigDict(sgd)
    config.generator_optimizer = ConfigDict(sgd)
    config.batch_size, config.num_steps, config.evaluation.num_samples = 4, 4, 4
    config.log_every, config.eval_every, config.checkpoint_every = 2, 2, 2
  return config
