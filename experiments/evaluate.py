r"""Evaluates the newest checkpoint of a run: numbers, samples, report page.

Example:
  python -m experiments.evaluate --workdir=runs/stein_cd_digits --num_samples=400
  python -m experiments.evaluate --workdir=runs/steingan --num_samples=10000 \
    --classifier=runs/classifier --inception=inception-2015-12-05.tgz
"""

from absl import app
from absl import flags

from stein_jax import locations
from stein_jax.runs import configs
from stein_jax.runs import evaluation
from stein_jax.runs import judges
from stein_jax.runs import launch
from stein_jax.runs import training

_WORKDIR = flags.DEFINE_string('workdir', None, 'The run, as train left it.')
_NPZ = flags.DEFINE_string(
  'npz', None, 'Data in this file, where that of the training has moved.'
)
_PATH = flags.DEFINE_string(
  'path', None, 'Data in this folder or .zip, where that has moved.'
)
_NUM_SAMPLES = flags.DEFINE_integer(
  'num_samples',
  None,
  "Samples drawn; the config's number by default.",
  lower_bound=2,
)
_LOG_LIKELIHOOD = flags.DEFINE_enum(
  'log_likelihood',
  None,
  ['exact', 'ais', 'none'],
  "How log Z is found; the config's way by default.",
)
_PARAMETERS = flags.DEFINE_enum(
  'parameters',
  None,
  ['last', 'average'],
  "Which parameters are evaluated: the last step's, or their average, which a run "
  "with an optimizer's ema_decay keeps; the config's choice by default.",
)
_CLASSIFIER = flags.DEFINE_string(
  'classifier',
  None,
  'A run of configs/classification_*.py, which judges the samples.',
)
_INCEPTION = flags.DEFINE_string(
  'inception',
  None,
  'File of the ImageNet Inception of 2015, which judges them too.',
)
_DEBUG = flags.DEFINE_bool('debug', False, 'Show where an error comes from.')
flags.mark_flag_as_required('workdir')


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments: {argv[1:]}')
  launch.set_up(debug=_DEBUG.value)
  # The run's own config, which nobody has to name again.
  config = configs.with_files(
    configs.complete(training.read_config(_WORKDIR.value)),
    npz=_NPZ.value,
    path=_PATH.value,
  )
  if _NUM_SAMPLES.value:
    config.evaluation.num_samples = _NUM_SAMPLES.value
  if _LOG_LIKELIHOOD.value:
    config.evaluation.log_likelihood = _LOG_LIKELIHOOD.value
    config.evaluation.ais = config.evaluation.get('ais', {})
  if _PARAMETERS.value:
    config.evaluation.parameters = _PARAMETERS.value
  named = {}
  if _CLASSIFIER.value:
    named['classifier'] = judges.judge(
      training.read_config(_CLASSIFIER.value), _CLASSIFIER.value
    )
  if _INCEPTION.value:
    named['inception'] = judges.inception_judge(_INCEPTION.value)
  evaluation.evaluate(config, _WORKDIR.value, judges=named)
  launch.show_report(locations.absolute(_WORKDIR.value))


if __name__ == '__main__':
  launch.run(main)
