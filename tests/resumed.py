"""A run that is stopped and continued, beside one that is not, and evaluated.

python -m tests.resumed WORKDIR NAME trains the smoke scale of configs/NAME.py both
ways, ends with an error where they differ, and prints what was logged.
"""

import json
import sys

import chex
import jax

from stein_jax import locations
from stein_jax.runs import evaluation
from stein_jax.runs import launch
from stein_jax.runs import training
from tests import smoke


def no_json(word):
  raise ValueError(f'{word} is no JSON.')


def main(workdir, name):
  launch.set_up()
  config = smoke.get_config(name)
  whole = training.train(config, f'{workdir}/whole')
  with smoke.stop_after(config.num_steps // 2):
    training.train(config, f'{workdir}/halved')
  halved = training.train(config, f'{workdir}/halved')
  chex.assert_trees_all_equal(*map(jax.tree.leaves, (halved, whole)))
  evaluation.evaluate(config, f'{workdir}/halved')
  for file in ('config.json', 'evaluation.json', 'metrics.jsonl'):
    text = (locations.absolute(workdir) / 'halved' / file).read_text('utf-8')
    for line in text.splitlines() if file == 'metrics.jsonl' else [text]:
      json.loads(line, parse_constant=no_json)
  lines, others = (
    smoke.metric_lines(f'{workdir}/{run}') for run in ('whole', 'halved')
  )
  assert lines == others, (lines, others)
  print(f'logged: {lines}')


if __name__ == '__main__':
  main(*sys.argv[1:])
