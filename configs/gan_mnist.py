"""DCGAN on MNIST, the baseline of SteinGAN: same generator, three losses.

python -m experiments.train --config=configs/gan_mnist.py --workdir=runs/gan
WGAN-GP: configs/gan_mnist.py:wgan. Conditional: configs/gan_mnist.py:conditional.
Minimax, as printed: --config.step.loss=minimax

Widths are a quarter of DCGAN's, for two cores. Expect, of 10,000 samples judged by the
CNN of `classification_mnist`: inception score 8.2 and Frechet distance 55 after 10,000
steps, five minutes on two cores; ':conditional' 8.0 and 87, its samples of a class much
alike; ':wgan' 6.0 and 216 after 7,400 steps. Scale ':smoke' is a few steps.
"""

from ml_collections import ConfigDict


def get_config(scale=''):
  """Returns the config at that scale."""
  if scale not in ('', 'wgan', 'conditional', 'smoke'):
    raise ValueError(
      f'scale={scale!r} is unknown; allowed: wgan, conditional, smoke.'
    )
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
      l1_weight=0.0,
    )
  )
  config.sample = ConfigDict()
  config.energy = ConfigDict(
    dict(name='Discriminator', widths=(16, 32), num_classes=0, norm='batch')
  )
  config.generator = ConfigDict(
    dict(
      name='DCGAN',
      shape=(28, 28, 1),
      latent_dim=100,
      dense=(256,),
      base=32,
      widths=(16,),
      strides=(2, 2),
      num_classes=0,
      output='sigmoid',
    )
  )
  adam = dict(name='adam', learning_rate=2e-4, b1=0.5, l2=1e-5)
  config.energy_optimizer = ConfigDict(adam)
  config.generator_optimizer = ConfigDict(adam)
  config.data = ConfigDict(dict(name='mnist', split='train[:50000]'))
  config.evaluation = ConfigDict(
    dict(
      data=dict(name='mnist', split='test'),
      log_likelihood='none',
      num_samples=200,
    )
  )
  config.seed, config.batch_size, config.num_steps = 0, 100, 10_000
  config.parallel, config.steps_per_call = 'jit', 1
  config.prng_impl, config.on_nonfinite = 'threefry2x32', 'stop'
  config.matmul_precision = 'float32'
  config.log_every = 100
  config.eval_every, config.checkpoint_every = 1000, 1000
  if scale == 'wgan':
    config.step.update(loss='wasserstein', generator_every=5)
    config.energy.norm = 'layer'
    adam = dict(name='adam', learning_rate=1e-4, b1=0.0, b2=0.9)
    config.energy_optimizer = ConfigDict(adam)
    config.generator_optimizer = ConfigDict(adam)
    config.num_steps = 20_000
  if scale in ('conditional', 'smoke'):
    config.step.conditional = True
    config.energy.num_classes = config.generator.num_classes = 10
  if scale == 'smoke':
    shape = dict(name='synthetic', shape=(8, 8, 1), num_classes=4)
    config.data = ConfigDict(dict(shape, split='train'))
    config.evaluation.data = ConfigDict(dict(shape, split='test'))
    config.energy.update(widths=(2, 3), num_classes=4)
    config.generator.update(
      shape=(8, 8, 1), dense=(4,), base=2, widths=(2,), num_classes=4
    )
    sgd = dict(name='sgd', learning_rate=0.01)
    config.energy_optimizer = ConfigDict(sgd)
    config.generator_optimizer = ConfigDict(sgd)
    config.batch_size, config.num_steps, config.evaluation.num_samples = 8, 4, 4
    config.log_every, config.eval_every, config.checkpoint_every = 2, 2, 2
  return config
