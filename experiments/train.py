"""Trains the algorithm of a config.

Example:
  python -m experiments.train --config=configs/stein_cd_mnist.py:digits \
    --workdir=runs/stein_cd_digits --config.num_steps=2000
  python -m experiments.train --config=configs/gan_cifar10.py --npz=cifar10.npz \
    --workdir=runs/gan_cifar10
  python -m experiments.train --config=configs/vae_teaching_facades.py:narrow \
    --path=facades.zip --workdir=runs/facades
  python -m experiments.train --config=configs/vgan_cifar10.py:narrow \
    --path=photos --workdir=runs/photos
"""

from absl import app
from absl import flags
from ml_collections import ConfigDict

from stein_jax import datasets
from stein_jax import locations
from stein_jax.runs import config_files
from stein_jax.runs import evaluation
from stein_jax.runs import launch
from stein_jax.runs import training

_CONFIG = config_files.ConfigFile('config')
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Where the run lives; one that exists is continued.'
)
_NPZ = flags.DEFINE_string(
  'npz',
  None,
  "Read images from this file in place of the config's data set: train_image, "
  'train_label, test_image, test_label.',
)
_PATH = flags.DEFINE_string(
  'path',
  None,
  "Read images from this folder or .zip in place of the config's data set: files, "
  'or train/ and test/ of files, or of folders for their classes.',
)
_MULTIHOST = flags.DEFINE_bool(
  'multihost', False, 'Join the other processes of a pod; started on each.'
)
_EVALUATE = flags.DEFINE_bool(
  'evaluate', True, 'Write the report when training has finished.'
)
flags.mark_flag_as_required('workdir')


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments: {argv[1:]}')
  launch.leave_on_sigterm()  # the loop saves first
  launch.set_up(multihost=_MULTIHOST.value)
  config, workdir = _CONFIG.value, locations.absolute(_WORKDIR.value)
  if _NPZ.value:
    for section in (config, config.evaluation):
      section.data = ConfigDict(datasets.from_file(section.data, _NPZ.value))
  if _PATH.value:
    for section in (config, config.evaluation):
      section.data = ConfigDict(datasets.from_folder(section.data, _PATH.value))
  # All is decided by now: the loop sees no flag.
  state = training.train(config, workdir)
  if _EVALUATE.value and int(state.step) == config.num_steps:
    print(evaluation.evaluate(config, workdir))
    print(f'Report: {workdir}/report.html')


if __name__ == '__main__':
  app.run(main, flags_parser=_CONFIG.parse)
