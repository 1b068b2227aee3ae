"""VGAN on MNIST: an energy of experts and a generator (Z16, section 5).

python -m experiments.train --config=configs/vgan_mnist.py --workdir=runs/vgan
The GAN beside it, in the same networks: configs/vgan_mnist.py:gan
An energy without bound, which explodes (Z16, section 4):
  configs/vgan_mnist.py:unbounded

The paper has VGAN on CIFAR-10 alone; the networks are those of its MNIST experiments,
a quarter as wide and with dense layers an eighth as wide, for two cores. Scale
':smoke' is a few steps on noise.
"""

from ml_collections import ConfigDict


def get_config(scale=''):
  """Returns the config at that scale."""
  if scale not in ('', 'gan', 'unbounded', 'smoke'):
    raise ValueError(
      f'scale={scale!r} is unknown; allowed: gan, unbounded, smoke.'
    )
  config = ConfigDict()
  config.algorithm = 'vgan'
  config.step = ConfigDict(
    dict(num_generator_steps=1, generator_entropy=1.0, data_entropy=1.0)
  )
  config.sample = ConfigDict()
  config.energy = ConfigDict(
    dict(name='MultiModal', widths=(16, 16), dense=128, num_experts=128)
  )
  config.generator = ConfigDict(
    dict(
      name='DCGAN',
      shape=(28, 28, 1),
      latent_dim=100,
      dense=(128,),
      base=16,
      widths=(16,),
      strides=(2, 2),
      output='sigmoid',
    )
  )
  adadelta = dict(name='adadelta', learning_rate=0.1, rho=0.95, eps=1e-6)
  config.energy_optimizer = ConfigDict(adadelta)
  config.generator_optimizer = ConfigDict(adadelta)
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
  if scale == 'gan':
    config.algorithm = 'gan'
    config.step = ConfigDict(
      dict(
        loss='minimax',
        penalty=10.0,
        generator_every=1,
        num_generator_steps=1,
        joint=True,
        conditional=False,
        l1_weight=0.0,
      )
    )
    config.energy = ConfigDict(
      dict(name='Unimodal', widths=(16, 16), dense=128)
    )
  if scale == 'unbounded':
    config.energy = ConfigDict(dict(name='BinaryRBM', num_hidden=128))
    config.step.update(generator_entropy=0.0, data_entropy=0.0)
  if scale == 'smoke':
    shape = dict(name='synthetic', shape=(8, 8, 1))
    config.data = ConfigDict(dict(shape, split='train'))
    config.evaluation.data = ConfigDict(dict(shape, split='test'))
    config.energy.update(widths=(2, 2), dense=4, num_experts=3)
    config.generator.update(shape=(8, 8, 1), dense=(4,), base=2, widths=(2,))
    sgd = dict(name='sgd', learning_rate=0.01)
    config.energy_optimizer = ConfigDict(sgd)
    config.generator_optimizer = ConfigDict(sgd)
    config.batch_size, config.num_steps, config.evaluation.num_samples = 8, 4, 4
    config.log_every, config.eval_every, config.checkpoint_every = 2, 2, 2
  return config
