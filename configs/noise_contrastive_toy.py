"""Energy discrepancy on a two-dimensional toy density: an MLP energy, and no chain.

python -m experiments.train --config=configs/noise_contrastive_toy.py \
  --workdir=runs/noise_contrastive_toy
Expect -3.52 nats of test log likelihood by AIS after 4,000 steps, which take 40 s on
two cores, and the same for ':fixed', which learns log Z too. The true density has
-3.51.
"""

from stein_jax.runs import configs

_RATE = dict(
  name='linear_schedule', init_value=2e-3, end_value=0.0, transition_steps=4000
)
_AIS = dict(num_chains=1000, step_size=0.5)
CONFIG = dict(
  algorithm='noise_contrastive',
  step=dict(noise_scale=1.0),
  sample=dict(chain=dict(num_steps=2000, step_size=0.5)),
  energy=dict(name='MLP', widths=(64, 64)),
  optimizer=dict(name='adam', learning_rate=_RATE, b1=0.5),
  data='toy',
  evaluation=dict(log_likelihood='ais', num_samples=2000, ais=_AIS),
  batch_size=200,
  num_steps=4000,
)
# Classical noise-contrastive estimation, which learns log Z.
_FIXED = dict(step=dict(objective='fixed'))
_SMOKE = dict(
  sample=dict(chain=dict(num_steps=4)),
  energy=dict(widths=(4,)),
  evaluation=dict(ais=dict(num_temperatures=10)),
  eval_every=4,
)
get_config = configs.scales(CONFIG, fixed=_FIXED, smoke=_SMOKE)
