"""Exports a function of a trained run, for programs without this package.

Example:
  python -m experiments.export --workdir=runs/stein_cd_digits --what=score
  python -m experiments.export --workdir=runs/steingan --what=sample --num=64

Then, with JAX alone, on a CPU, a GPU or a TPU:
  import pathlib
  from jax import export
  data = pathlib.Path('runs/stein_cd_digits/score.jax').read_bytes()
  score = export.deserialize(bytearray(data)).call
  score(x)    # x [n, ...] float32; samples: sample(seed), an int32
"""

from absl import app
from absl import flags

from stein_jax import locations
from stein_jax import runs
from stein_jax.runs import exporting
from stein_jax.runs import launch

_WORKDIR = flags.DEFINE_string('workdir', None, 'The run, as train left it.')
_WHAT = flags.DEFINE_enum(
  'what', 'energy', exporting.WHAT, 'The function that is exported.'
)
_NUM = flags.DEFINE_integer(
  'num', 100, 'Samples of a call, for --what=sample.', lower_bound=1
)
_PARAMETERS = flags.DEFINE_enum(
  'parameters',
  None,
  ['last', 'average'],
  "Which parameters are exported; the config's choice by default.",
)
_OUTPUT = flags.DEFINE_string(
  'output', None, 'The file; WORKDIR/WHAT.jax by default.'
)
_DEBUG = flags.DEFINE_bool('debug', False, 'Show where an error comes from.')
flags.mark_flag_as_required('workdir')


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments: {argv[1:]}')
  launch.set_up(debug=_DEBUG.value)
  run = runs.load(_WORKDIR.value, parameters=_PARAMETERS.value)
  artefact = exporting.artefact(run, _WHAT.value, num=_NUM.value)
  default = run.workdir / f'{_WHAT.value}.jax'
  path = locations.absolute(_OUTPUT.value or default)
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(artefact)
  print(
    f'{path}: {len(artefact):,} bytes, for {", ".join(exporting.PLATFORMS)}'
  )


if __name__ == '__main__':
  launch.run(main)
