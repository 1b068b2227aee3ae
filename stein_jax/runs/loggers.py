"""Metrics sent to services that show them, by their own packages where installed."""

from collections.abc import Callable, Iterator
import contextlib
import importlib
import sys
import zlib

from absl import logging
import jax

from stein_jax.runs import reporting

NAMES = ('wandb', 'mlflow')
_HELP = {
  'wandb': (
    '`wandb login` asks for one; WANDB_MODE=offline in the environment needs none.'
  ),
  'mlflow': (
    'MLFLOW_TRACKING_URI in the environment names a server, or a folder as '
    'file:FOLDER beside MLFLOW_ALLOW_FILE_STORE=true; `pip install mlflow` brings '
    'the database that is used without one.'
  ),
}


@contextlib.contextmanager
def logger(
  name: str | None, config, workdir
) -> Iterator[Callable[[int, dict[str, float]], None] | None]:
  """Yields a function of steps and metrics for `train`, or None without a name.

  A run that is continued goes on under its own name there: it is made of the workdir.

  Args:
    name: one of `NAMES`, or None.
    config: of the run; the service shows it beside the metrics.
    workdir: the folder of the run, where offline logs lie.

  Raises:
    ModuleNotFoundError: the package is not installed.
    RuntimeError: it has no account or no place to write to.
  """
  if name is None or jax.process_index():
    yield None
    return
  try:
    package = importlib.import_module(name)
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
      f'--logger={name} needs that package: pip install {name}.'
    ) from error
  hook = sys.excepthook
  try:  # before anything is compiled
    {'wandb': _has_account, 'mlflow': _has_store}[name](package)
  except Exception as error:  # both packages have errors of their own
    raise RuntimeError(
      f'--logger={name}: {str(error).splitlines()[0]} {_HELP[name]}'
    ) from error
  finally:
    sys.excepthook = (
      hook  # W&B's would print a traceback before ours says what is wrong
    )
  fields = reporting.flat_config(config)
  open_run = {'wandb': _wandb, 'mlflow': _mlflow}[name]
  with contextlib.ExitStack() as stack:
    opened = []

    # The run is opened with its first metrics: a config that is refused leaves none,
    # and its files would make a workdir of a folder that the loop has not claimed.
    def send(step, metrics):
      if not opened:
        opened.append(stack.enter_context(open_run(package, fields, workdir)))
      opened[0](step, metrics)

    yield send


def _has_account(wandb):
  online = wandb.setup().settings.mode not in ('offline', 'disabled')
  if online and not wandb.login(prompt=False):
    raise ValueError('there is no API key.')


def _has_store(mlflow):
  mlflow.search_experiments(max_results=1)


@contextlib.contextmanager
def _wandb(wandb, fields, workdir):
  run = wandb.init(
    project='stein_jax',
    name=workdir.name,
    id=f'{workdir.name}-{zlib.crc32(str(workdir).encode()):08x}',
    resume='allow',
    dir=str(workdir),
    config=fields,
  )
  with run:
    yield lambda step, metrics: run.log(metrics, step=step)


@contextlib.contextmanager
def _mlflow(mlflow, fields, workdir):
  mlflow.set_experiment('stein_jax')
  tag = {'workdir': str(workdir)}
  past = mlflow.search_runs(
    filter_string=f"tags.workdir = '{workdir}'", output_format='list'
  )
  run_id = past[0].info.run_id if past else None
  named = {} if run_id else {'run_name': workdir.name, 'tags': tag}
  with mlflow.start_run(run_id=run_id, **named):
    if not past:
      mlflow.log_params(fields)
    yield lambda step, metrics: mlflow.log_metrics(metrics, step=step)
  logging.info('MLflow: %s', mlflow.get_tracking_uri())
