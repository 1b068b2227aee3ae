"""PCD on a two-dimensional toy density: an MLP energy and persistent chains.

python -m experiments.train --config=configs/contrastive_divergence_toy.py \
  --workdir=runs/contrastive_divergence_toy
Expect: -3.55 nats test log likelihood by AIS after 4,000 steps (the true density has
-3.51), 40 s on two cores.
"""

from stein_jax.runs import configs

CONFIG = dict(
  algorithm='contrastive_divergence',
  step=dict(chain=dict(name='MALA', num_steps=10, step_size=0.5)),
  sample=dict(chain=dict(num_steps=2000, step_size=0.5)),
  persistent=True,
  energy=dict(name='MLP', widths=(64, 64)),
  optimizer=dict(
    name='adam',
    b1=0.5,
    learning_rate=dict(
      name='linear_schedule',
      end_value=0.0,
      init_value=0.002,
      transition_steps=4000,
    ),
  ),
  data='toy',
  evaluation=dict(
    ais=dict(num_chains=1000, step_size=0.5),
    log_likelihood='ais',
    num_samples=2000,
  ),
  batch_size=200,
  num_steps=4000,
)
VARIANTS = dict(
  smoke=dict(
    sample=dict(chain=dict(num_steps=4)),
    energy=dict(widths=(4,)),
    evaluation=dict(ais=dict(num_temperatures=10)),
    eval_every=4,
  )
)
get_config = configs.scales(CONFIG, VARIANTS)
