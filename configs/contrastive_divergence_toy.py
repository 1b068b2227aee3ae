"""PCD on a two-dimensional toy density: an MLP energy and persistent chains.

python -m experiments.train --config=configs/contrastive_divergence_toy.py \
  --workdir=runs/contrastive_divergence_toy
Expect: -3.55 nats test log likelihood by AIS after 4,000 steps (the true density has
-3.51), 40 s on two cores.
"""

from ml_collections import ConfigDict


def get_config(scale=''):
  """Returns the config; scale 'smoke' is a few steps of a small network."""
  if scale not in ('', 'smoke'):
    raise ValueError(f'scale={scale!r} is unknown; allowed: smoke.')
  config = ConfigDict()
  config.algorithm = 'contrastive_divergence'
  config.step = ConfigDict(
    dict(
      chain=dict(name='MALA', num_steps=10, step_size=0.5), conditional=False
    )
  )
  config.sample = ConfigDict(
    dict(chain=dict(name='MALA', num_steps=2000, step_size=0.5))
  )
  config.energy = ConfigDict(
    dict(name='MLP', widths=(64, 64), confinement=0.01)
  )
  config.optimizer = ConfigDict(
    dict(
      name='adam',
      b1=0.5,
      learning_rate=dict(
        name='linear_schedule',
        init_value=2e-3,
        end_value=0.0,
        transition_steps=4000,
      ),
    )
  )
  config.data = ConfigDict(dict(name='toy', density='eight_gaussians'))
  config.evaluation = ConfigDict(
    dict(
      data=dict(name='toy', density='eight_gaussians', split='test'),
      log_likelihood='ais',
      num_samples=2000,
      ais=dict(num_chains=1000, num_temperatures=1000, step_size=0.5),
    )
  )
  config.persistent = True
  config.seed, config.batch_size, config.num_steps = 0, 200, 4000
  config.parallel, config.steps_per_call = 'jit', 1
  config.prng_impl, config.on_nonfinite = 'threefry2x32', 'stop'
  config.matmul_precision = 'float32'
  config.log_every = 100
  config.eval_every, config.checkpoint_every = 1000, 1000
  if scale == 'smoke':
    config.optimizer = ConfigDict(dict(name='sgd', learning_rate=0.01))
    config.energy.widths, config.sample.chain.num_steps = (4,), 4
    config.evaluation.ais.num_temperatures = 10
    config.evaluation.num_samples, config.batch_size = 4, 8
    config.num_steps, config.log_every = 4, 2
    config.eval_every, config.checkpoint_every = 4, 2
  return config
