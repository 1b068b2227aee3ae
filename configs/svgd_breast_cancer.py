"""SVGD on Bayesian logistic regression, minibatched (LW16, section 5).

python -m experiments.train --config=configs/svgd_breast_cancer.py \
  --workdir=runs/svgd_breast_cancer
Expect: 14 s on two cores for 2,000 steps.
"""

from ml_collections import ConfigDict


def get_config(scale=''):
  """Returns the config; scale 'smoke' is a few steps of a few particles."""
  if scale not in ('', 'smoke'):
    raise ValueError(f'scale={scale!r} is unknown; allowed: smoke.')
  config = ConfigDict()
  config.algorithm = 'svgd'
  config.step = ConfigDict(
    dict(
      kernel='rbf',
      normalize='count',
      bandwidth_scale=1.0,
      bandwidth_log='n+1',
    )
  )
  config.sample = ConfigDict()
  config.density = ConfigDict(
    dict(name='logistic_regression', num_examples=455)
  )
  config.num_particles = 100
  config.optimizer = ConfigDict(dict(name='adagrad', learning_rate=0.1))
  config.data = ConfigDict(dict(name='breast_cancer', split='train'))
  config.evaluation = ConfigDict(
    dict(
      data=dict(name='breast_cancer', split='test'),
      log_likelihood='none',
      num_samples=100,
    )
  )
  config.seed, config.batch_size, config.num_steps = 0, 48, 2000
  config.parallel, config.steps_per_call = 'jit', 1
  config.prng_impl, config.on_nonfinite = 'threefry2x32', 'stop'
  config.matmul_precision = 'float32'
  config.log_every = 100
  config.eval_every, config.checkpoint_every = 0, 1000
  if scale == 'smoke':
    config.optimizer = ConfigDict(dict(name='sgd', learning_rate=1e-4))
    config.num_particles, config.evaluation.num_samples = 8, 4
    config.batch_size, config.num_steps = 8, 4
    config.log_every, config.checkpoint_every = 2, 2
  return config
