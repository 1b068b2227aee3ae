"""The small CNN that MNIST samples are judged by.

python -m experiments.train --config=configs/classification_mnist.py \
  --workdir=runs/classifier
Fashion-MNIST: --config.data.name=fashion_mnist \
  --config.evaluation.data.name=fashion_mnist
On samples that `evaluate` has left: --config=configs/classification_mnist.py:samples \
  --config.data.path=runs/joint/samples.npz

Scales: ':digits' is scikit-learn's 8x8 digits; ':few' 1,000 labels, and the network of
Z16 a quarter as wide, with less dropout and a rate falling in a cosine; ':smoke' a
few steps on noise.
Expect: 99.45 % of the test images after 6,000 steps, ten minutes on two cores; 98.1 %
of ':digits' in half a minute.
"""

from ml_collections import ConfigDict


def get_config(scale=''):
  """Returns the config at that scale."""
  if scale not in ('', 'digits', 'samples', 'few', 'smoke'):
    raise ValueError(
      f'scale={scale!r} is unknown; allowed: digits, samples, few, smoke.'
    )
  config = ConfigDict()
  config.algorithm = 'classification'
  config.sample = ConfigDict()
  config.step = ConfigDict(dict(shift=2, flip=False))
  config.classifier = ConfigDict(
    dict(name='CNN', num_classes=10, widths=(16, 32), dense=128, dropout=0.5)
  )
  config.optimizer = ConfigDict(
    dict(
      name='adam',
      learning_rate=dict(
        name='cosine_decay_schedule', init_value=2e-3, decay_steps=6000
      ),
    )
  )
  config.data = ConfigDict(dict(name='mnist', split='train'))
  config.evaluation = ConfigDict(
    dict(
      data=dict(name='mnist', split='test'),
      log_likelihood='none',
      num_samples=100,
    )
  )
  config.seed, config.batch_size, config.num_steps = 0, 100, 6000
  config.parallel, config.steps_per_call = 'jit', 1
  config.prng_impl, config.on_nonfinite = 'threefry2x32', 'stop'
  config.matmul_precision = 'float32'
  config.log_every = 100
  config.eval_every, config.checkpoint_every = 1000, 1000
  if scale == 'digits':
    config.data.name = config.evaluation.data.name = 'digits'
    config.step.shift, config.num_steps = 1, 1500
    config.optimizer.learning_rate.decay_steps = 1500
  if scale == 'samples':
    config.data = ConfigDict(dict(name='npz', path='samples.npz'))
  if scale == 'few':
    config.data.split = 'train[:1000]'
    config.classifier = ConfigDict(
      dict(
        name='AllConvolutional',
        blocks=(((16, 3), (16, 3)),) * 3,
        num_classes=10,
        noise=0.1,
        dropout=0.2,
      )
    )
    config.step.shift, config.num_steps = 0, 2000  # 200 epochs
    config.optimizer = ConfigDict(
      dict(
        name='adadelta',
        rho=0.95,
        eps=1e-6,
        learning_rate=dict(
          name='cosine_decay_schedule', init_value=1.0, decay_steps=2000
        ),
      )
    )
  if scale == 'smoke':
    shape = dict(name='synthetic', shape=(8, 8, 1))
    config.data = ConfigDict(dict(shape, split='train'))
    config.evaluation.data = ConfigDict(dict(shape, split='test'))
    config.optimizer = ConfigDict(dict(name='sgd', learning_rate=0.01))
    config.classifier.widths, config.classifier.dense = (2, 2), 4
    config.batch_size, config.num_steps, config.log_every = 8, 4, 2
    config.eval_every, config.checkpoint_every = 2, 2
  return config
