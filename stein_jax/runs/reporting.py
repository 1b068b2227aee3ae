"""What a person sees: progress, metrics files, curves and the report page."""

from collections.abc import Mapping, Sequence
import html
import io
import json
import logging as std_logging
import math
import os
import pathlib
import shutil
import subprocess
import sys
import time
from typing import Any

from absl import logging
import jax
import numpy as np

from stein_jax import _archives
from stein_jax import locations
from stein_jax.runs import alarms
from stein_jax.runs import images
from stein_jax.types import Batch

METRICS_FILE = 'metrics.jsonl'
EVALUATION_FILE = 'evaluation.json'
_LOST = (
  'metrics/lost_after'  # a mark in the metrics: the last step before a gap
)
_FRESH = 30  # seconds that curves may be old for who watches a run


class Reporter:
  """Writes a run's metrics, and shows how far it is; process 0 alone does.

  `metrics.jsonl` gets one object a line, TensorBoard events the same scalars,
  images and hyper-parameters; a terminal a progress bar, anything else log lines.
  A context manager: its files are closed however the run ends.
  """

  def __init__(
    self, workdir, config, batch: Batch, *, start: int, on_metrics=None
  ):
    self._active = jax.process_index() == 0
    self._config = config
    self._since = (start, time.monotonic())
    self._flushed = time.monotonic()
    self._on_metrics = on_metrics
    self.files = []  # that are open
    if not self._active:
      return
    # It is imported here, so that importing the package for research stays fast.
    import tqdm  # pylint: disable=g-import-not-at-top

    self._workdir = locations.absolute(workdir)
    _drop_later(self._workdir / METRICS_FILE, start)
    lost = self._lost_after(start)
    self._alarms = alarms.Alarms(batch, read_metrics(workdir))
    self._lines = open(self._workdir / METRICS_FILE, 'a', encoding='utf-8')
    if lost is not None:
      logging.error(
        '%s ends at step %d, and the checkpoint is of step %d: lines are lost.',
        self._workdir / METRICS_FILE,
        lost,
        start,
      )
      self._lines.write(to_json({'step': start, _LOST: lost}) + '\n')
    self._events = _Events(self._workdir / 'events', start=start)
    self.files = [self._workdir / METRICS_FILE, self._events.path]
    self._bar = tqdm.tqdm(
      total=config.num_steps,
      initial=start,
      desc=config.algorithm,
      unit='step',
      disable=None,
      mininterval=0.5,
    )

  def _lost_after(self, start):
    """Returns the last step that was logged, where a later one was; None elsewhere."""
    every = self._config.log_every
    logged = [line['step'] for line in read_metrics(self._workdir)]
    last = max(logged, default=0)
    return last if every and last < start // every * every else None

  def __enter__(self) -> 'Reporter':
    return self

  def __exit__(self, kind, error, trace) -> None:
    # Numbers that are not finite are so in all processes; anything else may be
    # one's own trouble, and closing the checkpoints waits for the others.
    alone = error is not None and not isinstance(error, FloatingPointError)
    if alone and jax.process_count() > 1:
      logging.error(
        'This process fails: %s. If another is gone, start all again; they go on '
        'from the newest checkpoint.',
        kind.__name__,
      )
    if self._active:
      self._events.close()
      self._lines.close()
      self._bar.close()

  def flush(self) -> None:
    """Puts on disk what was reported; to be called before a step is saved.

    A run that goes on from a step writes nothing again that came before it.
    """
    if self._active:
      self._flushed = time.monotonic()
      # The lines come before the checkpoint on disk: a run that goes on would
      # miss those that a crash of the machine has taken.
      os.fsync(self._lines.fileno())
      self._events.flush()

  def advance(self, step: int) -> None:
    """Moves the progress bar to that many steps done."""
    if self._active:
      self._bar.update(step - self._bar.n)

  def first(self, step: int, metrics: Mapping[str, float]) -> None:
    """Shows the alarms the metrics after the run's first call, which are not logged."""
    if self._active:
      self._alarms.see(step, metrics)

  def scalars(self, step: int, metrics: Mapping[str, float]) -> None:
    """Writes the metrics after that many steps, and the speed up to there."""
    if not self._active:
      return
    (before, then), now = self._since, time.monotonic()
    self._since = (step, now)
    # A clock of low resolution may not have moved.
    speed = {'steps_per_second': (step - before) / max(now - then, 1e-9)}
    self._lines.write(to_json({'step': step, **metrics, **speed}) + '\n')
    self._lines.flush()
    self._events.scalars({**metrics, **speed}, step)
    if self._on_metrics:
      self._on_metrics(step, {**metrics, **speed})
    if now > self._flushed + _FRESH:
      self.flush()
    self._alarms.see(step, metrics)
    if not self._bar.disable:
      # The bar has room for few: what is measured on test data comes first.
      first = sorted(metrics, key=lambda name: not name.startswith('test/'))[:3]
      self._bar.set_postfix_str(_shown({name: metrics[name] for name in first}))
      return
    logging.info(
      '%s: step %d of %d: %s',
      self._config.algorithm,
      step,
      self._config.num_steps,
      _shown({**metrics, **speed}),
    )

  def picture(self, step: int, name: str, png: bytes | None) -> None:
    """Writes a PNG picture, if there is one, to the events."""
    if self._active and png:
      self._events.image(name, images.read_png(png), step)

  def hparams(self) -> None:
    """Writes the config as hyper-parameters, beside the last metrics."""
    if not self._active:
      return
    # TensorBoard takes no tuples here.
    flat = {
      key: value if isinstance(value, (int, float, str, bool)) else str(value)
      for key, value in flat_config(self._config).items()
    }
    lines = read_metrics(self._workdir) or [{}]
    metrics = {
      name: value
      for name, value in lines[-1].items()
      if name not in ('step', 'steps_per_second')
    }
    folder = self._workdir / 'events' / 'hparams'
    # The part that a killed process wrote would stand beside the whole.
    shutil.rmtree(folder, ignore_errors=True)
    events = _Events(folder, start=0)
    events.hparams(flat, metrics)
    events.close()


class _Events:
  """A TensorBoard event file that hides what earlier ones have after a step.

  tensorboardX's own SummaryWriter hands events to a thread: a kill loses those on
  their way, and on a full disk the thread dies and the run waits for it for ever.
  """

  def __init__(self, folder: pathlib.Path, *, start: int):
    from tensorboardX import event_file_writer  # pylint: disable=g-import-not-at-top
    from tensorboardX import summary  # pylint: disable=g-import-not-at-top
    from tensorboardX.proto import event_pb2  # pylint: disable=g-import-not-at-top

    # The other methods need these modules, which few programs import.
    self._summary, self._proto = summary, event_pb2
    folder.mkdir(parents=True, exist_ok=True)
    # Files are read in the order of their names. A number comes first in them, since
    # the clock, which is next, may have been set back.
    numbers = (path.name.split('.')[1] for path in folder.glob('events.*'))
    last = max((int(each) for each in numbers if each.isdecimal()), default=-1)
    self._file = event_file_writer.EventsWriter(
      str(folder / f'events.{last + 1:06}'), f'.{start:010}'
    )
    (self.path,) = folder.glob(f'events.{last + 1:06}.*')
    begin = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    self._write(start + 1, session_log=begin)

  def scalars(self, metrics: Mapping[str, float], step: int) -> None:
    for name, value in metrics.items():
      self._write(step, summary=self._summary.scalar(name, value))

  def image(self, name: str, pixels: np.ndarray, step: int) -> None:
    image = self._summary.image(name, pixels, dataformats='HWC')
    self._write(step, summary=image)

  def hparams(self, values, metrics) -> None:
    for part in self._summary.hparams(values, metrics):
      self._write(0, summary=part)
    self.scalars(metrics, 0)

  def flush(self) -> None:
    self._file.flush()

  def close(self) -> None:
    self._file.close()

  def _write(self, step, **content):
    event = self._proto.Event(step=step, wall_time=time.time(), **content)
    self._file.write_event(event)


def _shown(metrics):
  return ', '.join(f'{name} {value:.5g}' for name, value in metrics.items())


def set_up_logging() -> None:
  """Shows our log lines, and other libraries' only from warnings up.

  What is printed ends no run: of a letter that the terminal lacks its number is shown.
  """
  if hasattr(sys.stdout, 'reconfigure'):
    sys.stdout.reconfigure(errors='backslashreplace')
  logging.set_verbosity(logging.INFO)
  package = pathlib.Path(__file__).parent.parent
  # In a clone the commands lie beside the package, in a wheel inside.
  ours = (str(package), str(package.parent / 'experiments'))
  handler = logging.get_absl_handler()
  handler.setFormatter(_Lines())
  handler.addFilter(
    lambda record: (
      record.levelno >= logging.converter.STANDARD_WARNING
      or (record.pathname.startswith(ours) and '/.venv/' not in record.pathname)
    )
  )


class _Lines(std_logging.Formatter):
  """The hour and the message, after the level of a warning or an error."""

  def format(self, record):
    hour = time.strftime('%H:%M:%S', time.localtime(record.created))
    urgent = record.levelno >= logging.converter.STANDARD_WARNING
    level = f'{record.levelname.lower()}: ' if urgent else ''
    return f'{hour} {level}{super().format(record)}'


def flat_config(config: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """Returns the config with dotted names."""
  flat = {}
  for key, value in config.items():
    if isinstance(value, Mapping) or hasattr(value, 'items'):
      flat.update(flat_config(value, f'{prefix}{key}.'))
    else:
      flat[prefix + key] = value
  return flat


def read_metrics(workdir) -> list[dict[str, float]]:
  """Returns the lines of a run's metrics file, oldest first.

  Raises:
    ValueError: it is damaged.
  """
  path = locations.absolute(workdir) / METRICS_FILE
  if not path.exists():
    return []
  return list(_lines(path).values())


def _lines(path):
  """Returns the whole lines of a metrics file with what they say, in order.

  Raises:
    ValueError: one is damaged; says which. Or it is no file.
  """
  found = {}
  with (
    _archives.refused(f'{path} is damaged'),
    _archives.open_regular(path) as file,
  ):
    lines = file.read().splitlines(keepends=True)
  for number, line in enumerate(lines, 1):
    # The last one of a run that was killed, or is running, may be torn.
    if not line.endswith(b'\n'):
      continue
    try:
      found[number, line] = from_json(line.decode())
      int(found[number, line]['step'])
    except (ValueError, TypeError, LookupError, RecursionError) as error:
      raise ValueError(
        f'{path} is damaged in line {number} ({error}); take that line away.'
      ) from error
  return found


def curves(
  series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
  *,
  xlabel: str,
  ylabel: str,
  floor: Mapping[str, float] | None = None,
  ylim: tuple[float, float] | None = None,
  log: bool = False,
  size: tuple[float, float] = (9, 4.5),
) -> bytes:
  """Returns a PNG plot of named (x, y) series, with dashed lines at `floor`.

  A y of shape [points, runs] is drawn as its mean with the 95 % interval. `log` is of
  both axes, and `size` in inches of 110 pixels. A single series has no legend.
  """
  figure, axes = _figure(xlabel, ylabel, size)
  _draw(axes, series, floor or {}, ylim)
  if log:
    axes.set(xscale='log', yscale='log')
  if len(series) + len(floor or {}) > 1:
    figure.legend(loc='outside right upper', fontsize='small')
  return _png(figure)


def panels(
  groups: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
  *,
  xlabel: str,
  ylabel: str,
  floor: Mapping[str, float] | None = None,
  ylim: tuple[float, float] | None = None,
) -> bytes:
  """Returns a PNG of plots side by side, one of each title's series, as `curves`."""
  from matplotlib import figure as mpl_figure  # pylint: disable=g-import-not-at-top

  figure = mpl_figure.Figure((3.6 * len(groups), 5), layout='constrained')
  every = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
  for axes, (title, series) in zip(every, groups.items(), strict=True):
    axes.set(title=title, xlabel=xlabel)
    axes.grid(alpha=0.3)
    _draw(axes, series, floor or {}, ylim)
    axes.legend(loc='upper center', bbox_to_anchor=(0.5, -0.13), fontsize=8)
  every[0].set_ylabel(ylabel)
  return _png(figure)


def scatter(
  clouds: Mapping[str, np.ndarray], *, xlabel: str = 'x0', ylabel: str = 'x1'
) -> bytes:
  """Returns a PNG plot of named point sets [n, 1 or 2]; 1-D ones as histograms."""
  figure, axes = _figure(xlabel, ylabel)
  for name, points in clouds.items():
    if points.shape[1] == 1:
      axes.hist(points[:, 0], bins=60, density=True, alpha=0.5, label=name)
    else:
      axes.scatter(points[:, 0], points[:, 1], s=4, alpha=0.5, label=name)
  axes.legend(fontsize='small')
  return _png(figure)


def mean_interval(values: np.ndarray, axis: int = 0):
  """Returns the mean and half the width of its 95 % Student interval.

  The half width of a single run is nan: it has no interval.
  """
  from scipy import stats  # pylint: disable=g-import-not-at-top

  values = np.asarray(values, float)
  n = values.shape[axis]
  mean = values.mean(axis)
  if n < 2:
    return mean, np.full_like(mean, np.nan)
  # The variance is estimated from the same runs, hence n - 1 and Student's t.
  spread = values.std(axis, ddof=1) / n**0.5
  return mean, stats.t.ppf(0.975, n - 1) * spread


def numbers_of(workdir) -> str:
  """Returns the numbers that an evaluation left in a workdir, as a table."""
  found = read_json(locations.absolute(workdir) / EVALUATION_FILE)
  return table(
    [
      {'metric': name, 'value': _text(value, 5)}
      for name, value in found.items()
    ]
  )


def explained(numbers: Mapping[str, float]) -> list[dict[str, str]]:
  """Returns rows of metrics: the rounded value, its meaning, and the better way."""
  rows = []
  for name, value in numbers.items():
    meaning, better = _MEANINGS.get(name.rpartition('/')[2], ('', ''))
    if name.startswith('data/'):
      better = ''
    rows.append(
      {
        'metric': name,
        'value': _text(value, 4),
        'means': meaning,
        'better': better,
      }
    )
  return rows


def _text(value, digits):
  return value if isinstance(value, str) else f'{value:.{digits}g}'


# The last part of a name says what it means, and which way is better.
_MEANINGS = {
  'step': ('steps of training', ''),
  'log_likelihood': ('mean log p of the test data, in nats', 'higher'),
  'bits_per_dimension': ('bits for each number of an image', 'lower'),
  'log_likelihood_error': ('its standard error, that of log Z, in nats', ''),
  'log_partition': ('log Z by annealed importance sampling, in nats', ''),
  'log_partition_error': (
    'its standard error in nats; too small where it is above 0.3',
    'lower',
  ),
  'log_partition_ess': ('effective number of its chains', 'higher'),
  'log_partition_smallest_ess': (
    'the smallest on the way, before chains are resampled',
    'higher',
  ),
  'log_partition_acceptance': (
    'share of its steps that were accepted; 0.57 is best',
    '',
  ),
  'accuracy': ('share of test images whose class is found', 'higher'),
  'calibration_error': ('how far confidence is from accuracy', 'lower'),
  'energy_distance': ('distance of the laws of samples and data', 'lower'),
  'two_sample_p': (
    'chance of such a distance between two equal laws',
    'higher',
  ),
  'ksd': ('squared Stein discrepancy of samples from the energy', 'lower'),
  'pairwise_distance': ('mean distance between two images', 'as of data'),
  'nearest_distance': (
    'mean distance to the nearest other image',
    'as of data',
  ),
  'nearest_training': ('distance to the nearest training image', 'as of data'),
  'psnr': ('peak signal over noise, in dB', 'higher'),
  'ssim': ('structural similarity', 'higher'),
  'psnr_pasted': ('the same, with the known pixels put back', 'higher'),
  'ssim_pasted': ('the same, with the known pixels put back', 'higher'),
  'judged_by': ('the judge, on which its scores depend', ''),
  'inception_score': ('sharp and diverse classes by the judge', 'higher'),
  'frechet_distance': ('distance of the features of samples and data', 'lower'),
  'precision': ('share of samples among the data', 'higher'),
  'recall': ('share of the data among the samples', 'higher'),
  'density': ('how densely data surround samples', 'higher'),
  'coverage': ('share of data that have a sample near', 'higher'),
  'own_label': ('share of samples of the class asked for', 'higher'),
  'class_entropy': ('entropy of the classes of samples, in nats', 'higher'),
}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
  """Returns a Markdown table; its columns are the keys of the first row."""
  columns = list(rows[0])
  lines = [columns, ['---'] * len(columns)]
  # A row may lack what others have, as the interval of a single run.
  lines += [[str(row.get(column, '')) for column in columns] for row in rows]
  return ''.join('| ' + ' | '.join(line) + ' |\n' for line in lines)


class Pixels(bytes):
  """A PNG whose pixels are looked at, such as a grid of images."""


class Plots(dict):
  """Titles to PNG plots that are shown beside each other."""


def write_page(
  path,
  title: str,
  sections: Sequence[
    tuple[str, str | bytes | Sequence[Mapping[str, Any]] | Mapping]
  ],
) -> None:
  """Writes one self-contained HTML page, for light and dark screens.

  Args:
    path: the file.
    title: of the page.
    sections: (heading, content) each: text as a paragraph, PNG bytes as a picture,
      `Pixels` as one whose pixels stay sharp, `Plots` beside each other, a list of rows
      as a table, a mapping as two columns.
  """
  body = [f'<h1>{html.escape(title)}</h1>']
  for heading, content in sections:
    body.append(f'<h2>{html.escape(heading)}</h2>{_as_html(content)}')
  # The page has everything in it, so that it can be sent as one file.
  locations.absolute(path).write_text(
    '<!doctype html><html lang="en"><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width">'
    f'<title>{html.escape(title)}</title><style>{_STYLE}</style>'
    f'<body>{"".join(body)}</body></html>\n',
    'utf-8',
  )


# Plots are drawn on white, which a dark page leaves as it is. Columns are as wide as
# they are: 990 pixels, or 440 where several stand beside each other.
_STYLE = (
  ':root{color-scheme:light dark}'
  'body{font:15px/1.5 sans-serif;max-width:67em;margin:2em auto;padding:0 1em}'
  'h2{margin-top:1.6em}table{border-collapse:collapse;display:block;overflow-x:auto}'
  'td,th{border:1px solid #8886;padding:.2em .6em;text-align:left;'
  'font-variant-numeric:tabular-nums}img{max-width:100%;background:#fff}'
  'img.pixels{image-rendering:pixelated}'
  '.plots{display:grid;gap:1em;grid-template-columns:repeat(auto-fill,'
  'minmax(min(100%,440px),1fr))}.plots figure{margin:0}figcaption{font-size:13px}'
)


def to_json(value, *, indent: int | None = None) -> str:
  """Returns JSON that every reader takes, also of numbers that are not finite.

  Bare words for them are no JSON. They are the strings 'NaN', 'Infinity' and
  '-Infinity', of which JavaScript's Number and Python's float make them again.
  """

  def spelled(value):
    special = isinstance(value, float) and not math.isfinite(value)
    return json.dumps(value) if special else value

  return json.dumps(_each(spelled, value), indent=indent, allow_nan=False)


def from_json(text: str) -> Any:
  """Returns the value of `to_json`, and of the bare words that it once wrote."""
  # A text that happens to be one of these words is taken for the number:
  # metrics and configs have none.
  number = lambda value: (
    float(value) if value in ('NaN', 'Infinity', '-Infinity') else value
  )
  return _each(number, json.loads(text))


def _each(function, value):
  """Returns a value of JSON with the function of each part that has no parts."""
  if hasattr(value, 'tolist'):  # arrays and numbers of NumPy and JAX
    value = np.asarray(value).tolist()
  if isinstance(value, Mapping):
    return {key: _each(function, part) for key, part in value.items()}
  if isinstance(value, (list, tuple)):
    return [_each(function, part) for part in value]
  return function(value)


def read_json(path) -> Any:
  """Returns the value of a JSON file; see `from_json`.

  Raises:
    ValueError: it is damaged.
  """
  path = locations.absolute(path)
  try:
    with _archives.open_regular(path, _archives.MAX_BYTES) as file:
      return from_json(file.read().decode('utf-8'))
  except (ValueError, RecursionError) as error:  # of its encoding too
    raise ValueError(
      f'{path} is damaged ({error}); put a whole copy there, or take it away.'
    ) from error


def write_json(path, value, *, indent: int | None = None) -> None:
  """Writes a JSON file at once: it is whole, or as it was; makes its folder."""
  path = locations.absolute(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  _write_whole(path, to_json(value, indent=indent) + '\n')


def _write_whole(path, text):
  """Writes a file that no reader, and no crash of the machine, sees half done."""
  # Two processes may write it at once, as two evaluations do.
  temporary = path.with_suffix(f'.{os.getpid()}.tmp')
  # A link that somebody has put there is taken away, not written through.
  temporary.unlink(missing_ok=True)
  with open(temporary, 'x', encoding='utf-8') as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  temporary.replace(path)
  folder = os.open(path.parent, os.O_RDONLY)
  try:
    os.fsync(folder)  # the new name is on disk, too
  except OSError:  # as on some network disks, which order names themselves
    pass
  finally:
    os.close(folder)


def claim(folder, settings: Mapping[str, Any]) -> None:
  """Makes a folder of results these settings', or finds that it is.

  Raises:
    ValueError: it holds the results of other settings.
  """
  path = locations.absolute(folder) / 'settings.json'
  mine = from_json(to_json(settings))
  if path.exists():
    # JSON has no tuples, so that both sides are compared as they are read.
    theirs = read_json(path)
    if theirs != mine:
      raise ValueError(
        f'{folder} holds results of {theirs}, not of {mine}; choose another '
        'folder.'
      )
  write_json(path, mine)


def commit() -> str:
  """Returns the commit of the code that runs, with '+' if it was changed."""
  here = pathlib.Path(__file__).parent
  try:
    run = lambda *words: subprocess.run(
      ['git', *words],
      cwd=here,
      capture_output=True,
      encoding='utf-8',
      errors='replace',
      check=True,
    ).stdout.strip()
    return run('rev-parse', '--short', 'HEAD') + (
      '+' if run('status', '--porcelain', '--untracked-files=no') else ''
    )
  except (OSError, subprocess.CalledProcessError):
    return 'unknown (not a git checkout)'


def _as_html(content):
  if isinstance(content, Plots):
    figures = (
      f'<figure>{_as_html(png)}<figcaption>{html.escape(title)}</figcaption></figure>'
      for title, png in content.items()
    )
    return f'<div class="plots">{"".join(figures)}</div>'
  if isinstance(content, bytes):
    kind = ' class="pixels"' if isinstance(content, Pixels) else ''
    return f'<img alt=""{kind} src="{images.data_uri(content)}">'
  if isinstance(content, str):
    return f'<p>{html.escape(content)}</p>'
  if isinstance(content, Mapping):
    # A mapping is shown as a table of two columns.
    content = [{'': key, 'value': value} for key, value in content.items()]
  columns = list(content[0])
  cells = lambda tag, values: ''.join(
    f'<{tag}>{html.escape(str(value))}</{tag}>' for value in values
  )
  rows = ''.join(
    f'<tr>{cells("td", [row.get(c, "") for c in columns])}</tr>'
    for row in content
  )
  return f'<table><tr>{cells("th", columns)}</tr>{rows}</table>'


def _figure(xlabel, ylabel, size=(9, 4.5)):
  from matplotlib import figure as mpl_figure  # pylint: disable=g-import-not-at-top

  # pyplot would keep every figure, and may look for a display.
  figure = mpl_figure.Figure(figsize=size, layout='constrained')
  axes = figure.add_subplot(xlabel=xlabel, ylabel=ylabel)
  axes.grid(alpha=0.3)
  return figure, axes


def _draw(axes, series, floor, ylim):
  """Draws named (x, y) series, and dashed lines."""
  for i, (name, (x, y)) in enumerate(series.items()):
    look = dict(label=name, linestyle=('-', '--', ':')[i // 10 % 3])
    y = np.asarray(y, float)
    if y.ndim == 1:
      axes.plot(x, y, **look)
      continue
    mean, half = mean_interval(y, axis=1)
    (line,) = axes.plot(x, mean, **look)
    axes.fill_between(
      x, mean - half, mean + half, alpha=0.2, color=line.get_color()
    )
  for name, value in floor.items():
    axes.axhline(value, color='0.5', linestyle='--', linewidth=1, label=name)
  if ylim:
    axes.set_ylim(*ylim)


def _png(figure):
  buffer = io.BytesIO()
  figure.savefig(buffer, format='png', dpi=110)
  return buffer.getvalue()


def _drop_later(path, step):
  """Cuts lines after that step: a resumed run writes them again."""
  if not path.exists():
    return
  # A torn last line, of a run that was killed, is dropped as well.
  kept = b''.join(
    line for (_, line), said in _lines(path).items() if said['step'] <= step
  )
  if kept != path.read_bytes():
    _write_whole(path, kept.decode())
