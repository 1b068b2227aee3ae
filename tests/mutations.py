"""Changes one field of a config to what nobody meant, and says what a launch does.

A case is a number, and always the same. What is refused must be refused by the whole
name of the field, within seconds and a gigabyte; what is accepted must train.

Example:
  python -m tests.mutations --begin=0 --count=100
"""

import pathlib
import random
import re
import resource
import signal
import tempfile
import time
from typing import Any, NamedTuple

from absl import app
from absl import flags
import jax
from ml_collections import ConfigDict

from stein_jax.runs import config_files
from stein_jax.runs import training
from tests import smoke

_BEGIN = flags.DEFINE_integer('begin', 0, 'The first case.')
_COUNT = flags.DEFINE_integer('count', 100, 'How many.')
_TRAINS = flags.DEFINE_integer(
  'trains', 1, 'Every how many-th of those accepted.'
)

SECONDS = 5  # of a processor, that a check may take
GIGABYTES = 1.0  # that a check may add to the process
_LATE = 300  # seconds of two steps, compiled beside other programs
_CONFIGS = pathlib.Path(__file__).parent.parent / 'configs'

_GONE = object()
_LARGE = (2**31 - 1, 2**31, 2**63, 10**6, 10**9, 10**12, 10**400)
_NUMBERS = (0, 1, 2, 3, 7, 64, 100, 1000, -1, 0.0, 0.5, -0.5, 1.5, 1e-30, 1e30)
_STRANGE = (1e39, float('nan'), float('inf'), -float('inf'), True, False, None)
_OTHERS = (
  '',
  'x',
  'x' * 5000,
  'naïve\n\x00',
  b'x',
  1j,
  (),
  (1,),
  (0, -1),
  (1, 2, 3, 4),
  ((1, 2), (3,)),
  (10**6,) * 3,
  ('x', None),
  {},
  {'name': 'x'},
  {'name': None},
  {1: 2},
  {'x': {'y': [1, {'z': ()}]}},
)


class Outcome(NamedTuple):
  """What became of a case: what was changed, how it ended, and what it took.

  `end` is 'named' or 'unnamed', of a refusal with or without the field; 'trained', or
  'accepted' where training was not asked for; or 'failed' and 'fell', of a training
  whose error has the field or has not.
  """

  config: str
  field: str
  value: str
  end: str
  said: str
  seconds: float
  gigabytes: float


def outcome(case: int, trains: bool = True) -> Outcome:
  """Returns what the launch of a mutated config gives."""
  rng = random.Random(case)
  name = rng.choice(smoke.NAMES)
  whole = smoke.get_config(name).to_dict()
  field = rng.choice(list(_fields(whole)))
  value = _mutated(
    rng, _at(whole, field), [_at(whole, f) for f in _fields(whole)]
  )
  # Every third comes from a command line.
  text = case % 3 == 0 and value is not _GONE
  _reset_peak()
  begun, held = time.process_time(), _status('VmRSS')
  config, said = None, ''
  try:
    if text:
      path = f'{_CONFIGS / name}.py:smoke'
      config = config_files.read(path, {field: f'{value}'})
    else:
      config = ConfigDict(_with(whole, field, value), type_safe=False)
    config, *_ = training.check(config)
  except (ValueError, TypeError, FileNotFoundError) as error:
    config, said = None, str(error)
  seconds = time.process_time() - begun
  gigabytes = (_status('VmHWM') - held) / 1e6
  if config is None:
    end = 'named' if names(said, field) else 'unnamed'
  else:
    end, said = _trained(config, field) if trains else ('accepted', '')
  return Outcome(name, field, f'{value!r:.60}', end, said, seconds, gigabytes)


def names(said: str, field: str) -> bool:
  """Returns whether a sentence has a field's whole name, as its flag does.

  The name may be that of a field of it, where the field is a section.
  """
  return re.search(rf'(?<![\w.]){re.escape(field)}(?!\w)', said) is not None


def _trained(config, field):
  """Returns how two steps of a config end, and what is said."""
  config.num_steps = 2 * config.steps_per_call
  with tempfile.TemporaryDirectory() as folder:
    signal.signal(signal.SIGALRM, _late)
    signal.alarm(_LATE)
    try:
      training.train(config, pathlib.Path(folder) / 'run')
    except Exception as error:  # whatever it is, it has to name the field
      notes = getattr(error, '__notes__', ())
      said = ' '.join((f'{type(error).__name__}: {error}', *notes))
      return 'failed' if names(said, field) else 'fell', said
    finally:
      signal.alarm(0)
  return 'trained', ''


def _late(*_):
  raise TimeoutError(f'two steps take more than {_LATE} seconds')


def _fields(section, place=''):
  """Yields the dotted names of all fields, those of sections before their own."""
  for name, value in section.items():
    yield f'{place}{name}'
    if isinstance(value, dict):
      yield from _fields(value, f'{place}{name}.')


def _at(section, field):
  first, _, rest = field.partition('.')
  return _at(section[first], rest) if rest else section[first]


def _with(section, field, value):
  """Returns a copy with one field changed, or taken away."""
  first, _, rest = field.partition('.')
  if rest:
    value = _with(section[first], rest, value)
  return {
    name: value if name == first else old
    for name, old in section.items()
    if name != first or value is not _GONE
  }


def _mutated(rng, value, others) -> Any:
  """Returns another value in place of a field's."""
  kind = rng.randrange(10)
  if kind < 2:
    return rng.choice(_LARGE)
  if kind < 4:
    return rng.choice(_NUMBERS)
  if kind == 4:
    return rng.choice(_STRANGE)
  if kind == 5:
    return rng.choice(_OTHERS)
  if kind == 6:
    return rng.choice(others)  # what another field has
  if kind == 7:
    return _GONE
  return _near(rng, value)


def _near(rng, value):
  """Returns a value like a field's own, of its kind or nearly."""
  if isinstance(value, bool):
    return rng.choice((int(value), str(value), not value))
  if isinstance(value, (int, float)):
    return rng.choice(
      (-value, value + 1, 10 * value, value * 10**5, float(value), str(value))
    )
  if isinstance(value, str):
    return rng.choice((value.upper(), value[:-1], f'{value}_', (value,)))
  if isinstance(value, (tuple, list)) and value:
    at = rng.randrange(len(value))
    one = _near(rng, value[at])
    return rng.choice(
      ((*value[:at], one, *value[at + 1 :]), value[:at], (*value, *value))
    )
  if isinstance(value, dict):
    return value | {
      rng.choice(('x', 'name', 'nam', 'seed')): rng.choice(_NUMBERS)
    }
  return rng.choice(_OTHERS)


def _reset_peak():
  """Lets Linux count the process's largest memory anew."""
  pathlib.Path('/proc/self/clear_refs').write_text('5')


def _status(name):
  """Returns a line of the process's status, in kB."""
  lines = pathlib.Path('/proc/self/status').read_text().splitlines()
  (line,) = [line for line in lines if line.startswith(f'{name}:')]
  return int(line.split()[1])


def main(argv):
  del argv
  jax.config.update('jax_disable_most_optimizations', True)
  # A process that asks for terabytes ends, and not the machine.
  resource.setrlimit(resource.RLIMIT_AS, (2**36, 2**36))
  accepted = 0
  for case in range(_BEGIN.value, _BEGIN.value + _COUNT.value):
    found = outcome(case, accepted % _TRAINS.value == 0)
    accepted += found.end in ('trained', 'accepted', 'failed', 'fell')
    slow = found.seconds > SECONDS or found.gigabytes > GIGABYTES
    print(
      f'{case}\t{found.end}\t{found.seconds:.1f}\t{found.gigabytes:.2f}\t'
      f'{found.config}\t{found.field}\t{found.value}\t'
      f'{"" if found.end in ("named", "trained") and not slow else found.said}',
      flush=True,
    )


if __name__ == '__main__':
  app.run(main)
