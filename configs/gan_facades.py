"""Recovery of hidden parts of facades by a GAN with an L1 term, after pix2pix.

python -m experiments.train --config=configs/gan_facades.py:narrow \
  --path=facades.zip --workdir=runs/gan_facades
The file is a zip, or a folder, of train/ and test/ with pairs side by side, photograph
left. The photograph from its label map: --config.data.mask=none \
  --config.evaluation.data.mask=none. Whole photographs: --config.data.side=all \
  --config.evaluation.data.side=all

The generator is that of `vae_teaching_facades`, the discriminator its energy without
the reference; pix2pix has a U-Net and judges patches. Scales as there.
Expect of ':narrow' after 500 steps, two seeds: 18.7, 19.4 dB and SSIM
0.58, 0.58 on the test images. '' has not been run to its end.
"""

from ml_collections import ConfigDict


def get_config(scale=''):
  """Returns the config at that scale."""
  if scale not in ('', 'narrow', 'smoke'):
    raise ValueError(f'scale={scale!r} is unknown; allowed: narrow, smoke.')
  config = ConfigDict()
  config.algorithm = 'gan'
  config.step = ConfigDict(
    dict(
      loss='non_saturating',
      penalty=10.0,
      margin=10.0,
      generator_every=1,
      num_generator_steps=1,
      joint=False,
      conditional=False,
      l1_weight=100.0,
    )
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
      latent_dim=128,
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
