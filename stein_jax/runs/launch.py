"""What every command does first: logs, what is kept for later ones, other hosts."""

import collections
from collections.abc import Callable, Sequence
import contextlib
import functools
import os
import re
import signal
import sys
import textwrap

from absl import app
from absl import flags
from absl import logging
import jax
from jax._src import distributed

from stein_jax.runs import agreement
from stein_jax.runs import compiled
from stein_jax.runs import reporting
from stein_jax.runs import stopping

_LONG = 2000  # letters of an error
# These are raised with a sentence for whoever started the command.
_SAID = (
  ValueError,
  TypeError,
  OSError,
  RuntimeError,
  ArithmeticError,
  ImportError,
)


def run(main: Callable, *, parse: Callable | None = None) -> None:
  """Runs a command's main function, as `app.run` does.

  A wrong flag or argument ends the process with a sentence and code 1, without the
  page of all flags.

  Args:
    main: a function of the arguments that are left, and of the program's name before
      them.
    parse: a function of all arguments to these; `parse_flags` if None.
  """

  def told(argv):
    try:
      main(argv)
      if distributed.global_state.client:
        agreement.exchanged({})  # JAX's farewell does not hear of failures
    except app.UsageError as error:
      sys.exit(f'{error} --help says more.')
    except SystemExit as error:
      # At its exit JAX waits for the others, which wait for this process in a step.
      if distributed.global_state.client:
        _leave(_say, SystemExit, error, None)
      raise

  app.run(told, flags_parser=parse or parse_flags)


def parse_flags(argv: Sequence[str]) -> list[str]:
  """Parses all flags; ends the process with a sentence where one is wrong."""
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    missing = re.match(r'flag --(\w+)=None: .* must have a value', str(error))
    text = f'--{missing[1]} is missing.' if missing else f'{error}'
    sys.exit(f'{text} --help lists all flags.')


def set_up(
  *,
  multihost: bool = False,
  debug: bool = False,
  patience: int = agreement.PATIENCE,
) -> None:
  """Shows log lines, keeps what later launches need, and joins the others if asked.

  An error ends the process with its sentence alone, and with code 1, unless `debug`
  shows where it came from.
  """
  reporting.set_up_logging()
  compiled.keep()
  compiled.keep_data()
  if not debug:
    sys.excepthook = _say
  if multihost:
    join(patience)


def leave_on_sigterm() -> None:
  """Ends the process with code 0 at SIGTERM: where there is nothing to save."""

  def leave(*_):
    # A handler may write to a descriptor, and may not print.
    os.write(2, b'Stopped early by SIGTERM; the same command goes on.\n')
    sys.exit(0)

  # Without a handler the process would die in the middle of a write.
  signal.signal(signal.SIGTERM, leave)


def join(patience: int = agreement.PATIENCE) -> None:
  """Joins the other processes of a pod; to be called before any computation.

  TPU pods and the usual clusters say by themselves who takes part. Elsewhere the
  environment does: JAX_COORDINATOR_ADDRESS (host:port of process 0),
  JAX_NUM_PROCESSES and JAX_PROCESS_ID.

  They end together: one that fails leaves at once, one that is gone or stands still is
  noticed by its heartbeat, and the others leave with an error too. SIGTERM ends a
  process within 30 seconds if the others do not let it save.

  Args:
    patience: seconds that processes wait for each other. Two thirds of it may pass
      without a sign of life, since a host may be frozen, to be moved, and as much for
      a call of steps in which no host does anything.
  """
  agreement.be_patient(patience)
  deadline = stopping.listen(patience)
  address = os.environ.get('JAX_COORDINATOR_ADDRESS')
  count, process = map(_number, ('JAX_NUM_PROCESSES', 'JAX_PROCESS_ID'))
  if None not in (address, count, process):
    agreement.meet(address, process, count)
  else:
    logging.info('Waiting for the other processes, up to %d s.', patience)
  try:
    jax.distributed.initialize(
      num_processes=count,
      process_id=process,
      initialization_timeout=patience,
      heartbeat_timeout_seconds=patience * 5 // 6,
      shutdown_timeout_seconds=patience,
    )
  except ValueError as error:
    error.add_note(
      'Where no cluster says who takes part, the environment does, by '
      'JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.'
    )
    raise
  deadline.take_over()
  # One process has no others that wait for it.
  sys.excepthook = functools.partial(_leave, sys.excepthook)
  logging.info(
    'Process %d of %d, %d of %d devices.',
    jax.process_index(),
    jax.process_count(),
    jax.local_device_count(),
    jax.device_count(),
  )
  there = collections.Counter(each.process_index for each in jax.devices())
  if len(set(there.values())) > 1:
    counts = ', '.join(f'process {i}: {there[i]}' for i in sorted(there))
    raise ValueError(f'All processes need as many devices; here: {counts}.')


def _number(name):
  """Returns the number that a variable of the environment holds, None if none."""
  text = os.environ.get(name)
  if text is not None and not text.isdecimal():
    raise ValueError(f'{name}={text!r} of the environment is no number.')
  return None if text is None else int(text)


def show_report(workdir) -> None:
  """Prints the numbers of a run that was evaluated; one process of several does."""
  if jax.process_index() == 0:
    print(reporting.numbers_of(workdir))
    print(f'Report: {workdir}/report.html')


def _say(kind, error, trace):
  """Prints the sentence of an error, or all of one that has none for a user."""
  if issubclass(kind, KeyboardInterrupt):
    print('Stopped early by Ctrl-C; the same command goes on.', file=sys.stderr)
    return
  if issubclass(kind, SystemExit):
    print(f'Stopped early by an exit with {error}.', file=sys.stderr)
    return
  # A frozen machine or a bug in a library is not to be summed up.
  if not issubclass(kind, _SAID) or not str(error):
    sys.__excepthook__(kind, error, trace)
    return
  notes = getattr(error, '__notes__', ())
  text = '\n'.join([f'{kind.__name__}: {error}', *notes])
  if len(text) > _LONG:  # some libraries print all that they hold
    text = f'{text[:_LONG]} ...'
  print(f'{text}\n(--debug shows where.)', file=sys.stderr)


def _leave(say, kind, error, trace):
  """Prints an error and ends this process, without JAX's farewell at exit.

  That waits for the others, which wait for this one in a collective.
  """
  say(kind, error, trace)
  with contextlib.suppress(Exception):  # the others may be gone
    # What ends this process is often that another has left, with a reason.
    text = agreement.failure()
    if text and text not in str(error):
      print(text, file=sys.stderr)
    agreement.tell_failure(
      f'{kind.__name__}: {textwrap.shorten(str(error), 500)}'
    )
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(1)
