"""Runs that are over, or go on elsewhere, as things to work with."""

import dataclasses
import functools
import pathlib
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np

from stein_jax import checks
from stein_jax import datasets
from stein_jax import energies
from stein_jax import locations
from stein_jax.learners import Learner
from stein_jax.runs import configs
from stein_jax.runs import evaluation
from stein_jax.runs import reporting
from stein_jax.runs import workdirs
from stein_jax.types import Array, Batch, PRNGKey, Tree


@dataclasses.dataclass(frozen=True)
class Run:
  """A run that has been trained, from `load`.

  Attributes:
    workdir: its folder.
    config: the whole config that it was trained with.
    state: its state, whose fields such as `energy` and `generator` are learners.
    batch: zeros like a batch that it was trained on.
  """

  workdir: pathlib.Path
  config: ConfigDict = dataclasses.field(repr=False)
  state: Tree = dataclasses.field(repr=False)
  batch: Batch = dataclasses.field(repr=False)

  def sample(
    self, num: int, rng: PRNGKey | None = None, *, condition: Any = None
  ) -> np.ndarray:
    """Returns samples [num, ...] in the range of the data, as `evaluate` draws them.

    Particles, of SVGD, are drawn with replacement.

    Args:
      num: number of samples.
      rng: key of the samples; that of seed 0 if None.
      condition: labels [num], or images [num, ...]; all classes in turn if None.

    Raises:
      ValueError: the algorithm has nothing to draw, or the condition is not that of
        the run.
    """
    checks.count(num=num)
    if condition is not None:
      condition = self._condition(num, condition)
    rng = jax.random.key(0) if rng is None else rng
    return np.asarray(self._draw(self.state, rng, num, condition=condition))

  def energy(self, x: Array, condition: Array | None = None) -> np.ndarray:
    """Returns E(x) [n].

    Args:
      x: examples [n, ...] in the range of the run's data, as `datasets.load(
        **run.config.data)` has them; `datasets.from_unit(x, run.config.data)` brings
        images in [0, 1] there, and bytes are brought there here.
      condition: labels [n], or images [n, ...], where the run has them.

    Raises:
      ValueError: the algorithm learns no energy, or the examples or the condition are
        not like those of the run.
    """
    energy = self.learner('energy')
    return np.asarray(_value(energy, *self._examples(x, condition)))

  def score(self, x: Array, condition: Array | None = None) -> np.ndarray:
    """Returns -grad_x E(x), like x, which is as in `energy`.

    Raises:
      ValueError: see `energy`.
    """
    energy = self.learner('energy')
    return np.asarray(_score(energy, *self._examples(x, condition)))

  def metrics(self) -> list[dict[str, float]]:
    """Returns what was logged: a row for each line of metrics.jsonl, oldest first."""
    return reporting.read_metrics(self.workdir)

  def _examples(self, x, condition):
    """Returns examples, and their condition if there is one, like those of the run."""
    wanted = self.batch['image'].shape[1:]
    if np.shape(x)[1:] != wanted or not len(x):
      sizes = ', '.join(map(str, wanted))
      raise ValueError(
        f'x has shape {np.shape(x)}; wanted: (n, {sizes}), as the data of the run.'
      )
    if np.asarray(x).dtype == np.uint8 and len(wanted) == 3:
      x = datasets.from_unit(np.asarray(x) / 255, self.config.data)
    if condition is None and 'condition' not in self.batch:
      return (x,)
    return x, self._condition(len(x), condition)

  def _condition(self, num, condition):
    """Returns the condition of that many examples, checked against the run's."""
    if 'condition' not in self.batch:
      raise ValueError('A condition is given; the run was trained without any.')
    like = self.batch['condition']
    if condition is None:
      what = 'labels' if like.ndim == 1 else 'images'
      raise ValueError(
        f'No condition is given; the run was trained with {what}.'
      )
    checks.shape((num, *like.shape[1:]), condition=condition)
    networks = (getattr(self.state, name, None) for name in self.state._fields)
    classes = max(getattr(each, 'num_classes', 0) for each in networks)
    if like.ndim == 1 and classes:
      checks.labels(classes, condition=condition)
    return jnp.asarray(condition)

  @functools.cached_property
  def _draw(self):
    sample = configs.sample(self.config)
    if sample is None:
      raise ValueError(f'{self.config.algorithm} has nothing to draw.')
    return jax.jit(sample, static_argnums=2)

  def learner(self, name: str) -> Learner:
    """Returns a learner of the state, such as its 'energy' or 'generator'.

    Raises:
      ValueError: the algorithm learns none of that name.
    """
    if not hasattr(self.state, name):
      raise ValueError(f'{self.config.algorithm} learns no {name}.')
    return getattr(self.state, name)


def load(
  workdir, *, step: int | None = None, parameters: str | None = None
) -> Run:
  """Returns a run, without reading its data.

  Args:
    workdir: the folder of a run.
    step: that of a checkpoint which is there; None for the newest whole one.
    parameters: 'last', or 'average' for the moving averages that networks keep; None
      for what the config's `evaluation` says.

  Raises:
    FileNotFoundError: it is no workdir, or has no such checkpoint.
    ValueError: no network keeps an average, or there are no such parameters.
  """
  if parameters is not None:
    checks.choice(('last', 'average'), parameters=parameters)
  workdir = locations.absolute(workdir)
  config = configs.complete(workdirs.read_config(workdir))
  state = workdirs.restore(config, workdir, step=step)
  asked = config.copy_and_resolve_references()
  asked.evaluation.parameters = parameters or config.evaluation.parameters
  state = evaluation.chosen(asked, state)
  return Run(workdir, config, state, workdirs.batch_like(workdir))


def begun_at(start: str, state: Tree) -> Tree:
  """Returns a state with the parameters of another run's networks.

  Args:
    start: the other run, 'WORKDIR' or 'WORKDIR:STEP'.
    state: the first one of a run; networks that the other has not stay as they are.

  Raises:
    FileNotFoundError, ValueError: see `parameters_of`.
  """
  taken = {}
  for name, params in parameters_of(start, state).items():
    learner = getattr(state, name)
    # Copies, since a step takes the memory over.
    copy = lambda params=params: jax.tree.map(jnp.array, params)
    average = None if learner.average is None else copy()
    taken[name] = learner.replace(params=copy(), average=average)
  logging.info('Parameters of %s begin at %s.', ', '.join(taken), start)
  return state._replace(**taken)


def parameters_of(start: str, state: Tree) -> dict[str, Tree]:
  """Returns the parameters of a run's networks that are like those of a state.

  Raises:
    FileNotFoundError: there is no such run or checkpoint.
    ValueError: it has no network like one of the state.
  """
  workdir, _, step = str(start).partition(':')
  other = load(workdir, step=int(step) if step else None).state
  shapes = lambda tree: jax.tree.map(np.shape, tree)
  found = {}
  for name, learner in state._asdict().items():
    theirs = getattr(other, name, None)
    both = isinstance(learner, Learner) and isinstance(theirs, Learner)
    if both and shapes(learner.params) == shapes(theirs.params):
      found[name] = theirs.params
  if not found:
    raise ValueError(
      f'{start} has no network like one of this run; allowed: a run whose networks '
      'have the same names and shapes of parameters.'
    )
  return found


@jax.jit
def _value(energy, x, *condition):
  return energies.value(energy, energy.params, x, *condition)


@jax.jit
def _score(energy, x, *condition):
  return energies.score(energy, x, *condition)
