r"""Trains the algorithm of a config.

Example:
  python -m experiments.train --config=configs/stein_cd_mnist.py:digits \
    --workdir=runs/stein_cd_digits --config.num_steps=2000
  python -m experiments.train --config=configs/gan_cifar10.py --npz=cifar10.npz \
    --workdir=runs/gan_cifar10
  python -m experiments.train --config=configs/vae_teaching_facades.py:narrow \
    --path=facades.zip --workdir=runs/facades
  python -m experiments.train --config=configs/vgan_cifar10.py:narrow \
    --path=photos --workdir=runs/photos
  python -m experiments.train --workdir=runs/photos --extend=20000
"""

from absl import app
from absl import flags

from stein_jax import locations
from stein_jax.runs import agreement
from stein_jax.runs import config_files
from stein_jax.runs import configs
from stein_jax.runs import evaluation
from stein_jax.runs import launch
from stein_jax.runs import loggers
from stein_jax.runs import training

_CONFIG = config_files.ConfigFile('config', required=False)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Where the run lives; one that exists is continued.'
)
_NPZ = flags.DEFINE_string(
  'npz',
  None,
  "Read images from this file in place of the config's data set: train_image, "
  'train_label, test_image, test_label; or train_image alone.',
)
_PATH = flags.DEFINE_string(
  'path',
  None,
  "Read images from this folder or .zip in place of the config's data set: files, "
  'or train/ and test/ of files, or of folders for their classes.',
)
_EXTEND = flags.DEFINE_integer(
  'extend',
  None,
  'Go on with the run in --workdir up to this number of steps, and with its config; '
  "a learning rate's schedule stays at its end.",
  lower_bound=1,
)
_START = flags.DEFINE_string(
  'start',
  None,
  "Begin a new run with the parameters of another's networks: its workdir, or "
  'WORKDIR:STEP for one of its checkpoints.',
)
_LOGGER = flags.DEFINE_enum(
  'logger', None, loggers.NAMES, 'Send metrics there too, as they are written.'
)
_MULTIHOST = flags.DEFINE_bool(
  'multihost', False, 'Join the other processes of a pod; started on each.'
)
_PATIENCE = flags.DEFINE_integer(
  'patience',
  agreement.PATIENCE,
  'Seconds that the processes of a pod wait for each other before they give up.',
  lower_bound=30,
)
_EVALUATE = flags.DEFINE_bool(
  'evaluate', True, 'Write the report when training has finished.'
)
_DEBUG = flags.DEFINE_bool('debug', False, 'Show where an error comes from.')
flags.mark_flag_as_required('workdir')


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments: {argv[1:]}')
  launch.leave_on_sigterm()  # the loop saves first
  launch.set_up(
    multihost=_MULTIHOST.value,
    debug=_DEBUG.value,
    patience=_PATIENCE.value,
  )
  workdir = locations.absolute(_WORKDIR.value)
  config = get_config(workdir)
  with loggers.logger(_LOGGER.value, config, workdir) as on_metrics:
    state = training.train(
      config, workdir, on_metrics=on_metrics, extends=bool(_EXTEND.value)
    )
  if _EVALUATE.value and int(state.step) == config.num_steps:
    evaluation.evaluate(config, workdir)
    launch.show_report(workdir)


def get_config(workdir):
  """Returns the config that the flags say, or that of the run they extend."""
  if _EXTEND.value:
    if _CONFIG.value is not None:
      raise app.UsageError('--extend goes on with the config of the workdir.')
    config = training.read_config(workdir)
    if config.num_steps >= _EXTEND.value:
      raise app.UsageError(
        f'--extend={_EXTEND.value}: the run has {config.num_steps} steps already.'
      )
    config.num_steps = _EXTEND.value
    # The data may have moved since.
    return configs.with_files(
      configs.complete(config), npz=_NPZ.value, path=_PATH.value
    )
  if _CONFIG.value is None:
    raise app.UsageError('--config names the config file of a new run.')
  config = configs.with_files(_CONFIG.value, npz=_NPZ.value, path=_PATH.value)
  if _START.value:
    start, _, step = _START.value.partition(':')
    config.start = str(locations.absolute(start)) + (step and f':{step}')
  return config


if __name__ == '__main__':
  launch.run(main, parse=_CONFIG.parse)
