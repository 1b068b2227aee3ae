"""Stein score matching on MNIST: an RBM by the KSD (LW17, eq 15).

python -m experiments.train \
  --config=configs/score_matching_mnist.py --workdir=runs/score_matching

Scales: '' is MNIST through TFDS; ':digits' behind the file's name is
scikit-learn's 8x8 digits, no download; ':smoke' a few steps on noise.
Expect: -744.3 nats test log likelihood on MNIST, -83.8 on digits; a minute,
half a minute on two cores.
"""

from ml_collections import ConfigDict


def get_config(scale=''):
  """Returns the config at that scale."""
  if scale not in ('', 'digits', 'smoke'):
    raise ValueError(f'scale={scale!r} is unknown; allowed: digits, smoke.')
  config = ConfigDict()
  config.algorithm = 'score_matching'
  config.step = ConfigDict(
    dict(
      objective='stein',
      normalize='count',
      kernel='rbf',
      bandwidth_scale=1.0,
      bandwidth_log='n+1',
      num_projections=1,
      noise_scale=0.1,
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
        init_value=3e-4,
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
