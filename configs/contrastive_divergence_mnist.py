"""CD-k on MNIST: an RBM by Langevin steps from the data (LW17, 5.1).

python -m experiments.train \
  --config=configs/contrastive_divergence_mnist.py --workdir=runs/contrastive_divergence

Scales: '' is MNIST through TFDS; ':digits' behind the file's name is
scikit-learn's 8x8 digits, no download; ':smoke' a few steps on noise.
Expect: -744.5 nats test log likelihood on MNIST, -81.6 on digits; a minute,
half a minute on two cores.
"""

from ml_collections import ConfigDict


def get_config(scale=''):
  """Returns the config at that scale."""
  if scale not in ('', 'digits', 'smoke'):
    raise ValueError(f'scale={scale!r} is unknown; allowed: digits, smoke.')
  config = ConfigDict()
  config.algorithm = 'contrastive_divergence'
  config.step = ConfigDict(
    dict(
      chain=dict(name='Langevin', num_steps=1, step_size=1.0), conditional=False
    )
  )
  config.sample = ConfigDict(dict(chain=dict(name='Gibbs', num_steps=1000)))
  config.energy = ConfigDict(dict(name='RBM', num_hidden=10, centered=False))
  config.optimizer = ConfigDict(
    dict(
      name='adam',
      b1=0.5,
      learning_rate=dict(
        name='linear_schedule',
        init_value=2e-3,
        end_value=0.0,
        transition_steps=10_000,
      ),
    )
  )
  config.data = ConfigDict(dict(name='mnist', split='train[:50000]'))
  config.evaluation = ConfigDict(
    dict(
      data=dict(name='mnist', split='test'),
      log_likelihood='exact',
      num_samples=100,
    )
  )
  config.persistent = False  # True: chains go on from where they were (PCD)
  config.seed, config.batch_size, config.num_steps = 0, 100, 10_000
  config.parallel, config.steps_per_call = 'jit', 1
  config.prng_impl, config.on_nonfinite = 'threefry2x32', 'stop'
  config.matmul_precision = 'float32'
  config.log_every = 100
  config.eval_every, config.checkpoint_every = 500, 1000
  if scale:
    # Strokes four times as high as the model's noise; the paper's are no higher.
    config.data = ConfigDict(dict(name='digits', split='train', scale=4.0))
    config.evaluation.data = dict(name='digits', split='test', scale=4.0)
    config.energy.centered = True
    config.num_steps, config.eval_every = 2000, 100
    config.optimizer.learning_rate.init_value = 0.01
    config.optimizer.learning_rate.transition_steps = 2000
  if scale == 'smoke':
    config.data = ConfigDict(dict(name='synthetic', shape=(4, 4, 1)))
    config.evaluation.data = dict(
      name='synthetic', shape=(4, 4, 1), split='test'
    )
    config.optimizer = ConfigDict(dict(name='sgd', learning_rate=0.01))
    config.energy.num_hidden, config.sample.chain.num_steps = 3, 4
    config.batch_size, config.num_steps, config.evaluation.num_samples = 8, 4, 4
    config.log_every, config.eval_every, config.checkpoint_every = 2, 2, 2
  return config
