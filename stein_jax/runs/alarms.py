"""Warnings of a run whose numbers are finite and yet tell that it goes wrong.

Each is given once. The limits are wide, so that a healthy run is not warned of.
"""

from collections.abc import Mapping, Sequence
import math

from absl import logging
import numpy as np

from stein_jax.types import Batch

GAP, LOSS, SPREAD = 'energy/gap', 'energy/loss', 'samples/variance'
ACCEPTANCE, LIKELIHOOD = 'chain/acceptance', 'test/log_likelihood'
PREDICTED = 'particles/predicted_variance'
TEMPERATURE, CLIPPED = 'chain/temperature', 'chain/clipped'
# Distances that samples move in a step, and what makes them shorter.
MOVES = {
  'chain/move': 'step.chain.step_size',
  'samples/move': 'step.epsilon',
  'samples/revision': 'step.chain.step_size',
}
_ENOUGH = 10  # log lines that tell how large the gap of a run is
_RUNAWAY = 10  # times that a gap or a loss may exceed what is normal
_FAR = 100  # times that samples may move further than the data spread
_STUCK = 1e-3  # share of proposals accepted, by a chain that goes nowhere
_NARROW = (
  0.8  # of the target's variance, below which particles are too close together
)
_COLD = (
  0.5  # temperature of a chain's noise, below which it trains another energy
)
_CUT = 0.01  # share of numbers on the bounds of a chain
_COLLAPSE = 1e-4  # of its largest value, to which the variance may fall


class Alarms:
  """Watches the metrics of a run.

  Args:
    batch: the first one. An energy is in nats, and a nat for each number of an example
      is a large gap; what samples move is measured by how far the data spread.
    lines: metrics with their 'step' that the run has logged before, in order.
  """

  def __init__(self, batch: Batch, lines: Sequence[Mapping[str, float]] = ()):
    rows = np.asarray(batch['image'], np.float64)
    self._dimensions = max(rows[0].size, 1)
    self._reach = float(np.sqrt(np.sum(np.var(rows, 0))))
    self._normal, self._best = {}, -math.inf
    self._seen = {GAP: [], SPREAD: [], ACCEPTANCE: []}
    self._told = set()
    # What was seen before a restart counts, or each restart would begin its half of
    # the run anew.
    for line in lines:
      self._note(line['step'], line)

  def see(self, step: int, metrics: Mapping[str, float]) -> None:
    """Warns if the metrics of a step tell of trouble."""
    metrics = self._note(step, metrics)
    chain = self._see_moves(step, metrics) or self._see_stuck(step)
    # An energy that is contrasted with samples from nowhere is not to blame.
    if not chain:
      self._see_size(step, metrics)
      self._see_growth()
    self._see_likelihood(step, metrics)
    self._see_collapse()
    self._see_narrow(metrics)
    self._see_cold(metrics)
    self._see_clipped(metrics)

  def _note(self, step, metrics):
    """Remembers the metrics of a step; returns them, with the gap of any pair."""
    pair = 'energy/data', 'energy/samples'
    if GAP not in metrics and all(name in metrics for name in pair):
      metrics = {**metrics, GAP: metrics[pair[0]] - metrics[pair[1]]}
    for name in self._seen.keys() & metrics.keys():
      self._seen[name].append((step, abs(metrics[name])))
    self._best = max(self._best, metrics.get(LIKELIHOOD, -math.inf))
    # The first values are those of a network that has learned nothing yet. Chains that
    # start at noise have a gap then that is larger than any after it.
    for name in {GAP, LOSS} & metrics.keys():
      self._normal.setdefault(name, max(abs(metrics[name]), self._dimensions))
    return metrics

  def _see_moves(self, step, metrics):
    """Returns whether samples leave the region of the data; warns of it."""
    limit = _FAR * self._reach
    far = [name for name in MOVES if 0 < limit < metrics.get(name, 0)]
    for name in far:
      self._tell(
        name,
        'The chain goes astray first: %s is %.3g at step %d, and the data spread '
        'over %.3g. What helps: a smaller %s.',
        metrics[name],
        step,
        self._reach,
        MOVES[name],
      )
    return bool(far)

  def _see_stuck(self, step):
    """Returns whether a chain has accepted nothing since the start; warns of it."""
    rates = [rate for _, rate in self._seen[ACCEPTANCE]]
    # One that accepts nothing later may have been given an energy that ran away.
    stuck = len(rates) > 1 and max(rates) < _STUCK
    if stuck:
      self._tell(
        ACCEPTANCE,
        'The chain goes nowhere: %s is %.3g at step %d, as it was from the start. What '
        'helps: a smaller step.chain.step_size.',
        rates[-1],
        step,
      )
    return stuck

  def _see_size(self, step, metrics):
    """Warns of an energy that is too large for any that learns."""
    # A loss that falls without end is another matter than one that rises.
    sizes = {GAP: abs(metrics.get(GAP, 0)), LOSS: metrics.get(LOSS, 0)}
    moves = [metrics[each] for each in MOVES if each in metrics]
    why = 'Its'
    if moves:
      why = (
        f'Samples move {max(moves):.3g} and the data spread over {self._reach:.3g}, so '
        'its'
      )
    for name, size in sizes.items():
      if size > _RUNAWAY * self._normal.get(name, math.inf):
        self._tell(
          name,
          'The energy is running away: %s is %.3g at step %d, more than %d times what '
          'is normal for it, %.3g. %s updates are too large. What helps: a smaller '
          'learning rate, max_norm of the optimizer.',
          metrics[name],
          step,
          _RUNAWAY,
          self._normal[name],
          why,
        )

  def _see_growth(self):
    """Warns of an energy that runs away from its samples."""
    gaps = self._seen[GAP]
    # The first half is the measure: a gap that grows all the time would be
    # normal by its latest values.
    early = gaps[: len(gaps) // 2]
    if len(early) < _ENOUGH:
      return
    (step, gap), largest = gaps[-1], max(gap for _, gap in early)
    if gap > _RUNAWAY * largest:
      self._tell(
        GAP,
        'The energy may be running away: %s is %.3g at step %d, more than %d times '
        'what it was up to step %d. What helps: a smaller learning rate, '
        'step.energy_l2, energy.spectral_norm, max_norm of the optimizer, longer '
        'chains.',
        gap,
        step,
        _RUNAWAY,
        early[-1][0],
      )

  def _see_likelihood(self, step, metrics):
    """Warns of a density that leaves the data: samples near them have a small gap."""
    found = metrics.get(LIKELIHOOD, math.inf)
    if found < self._best - _RUNAWAY * self._dimensions:
      self._tell(
        LIKELIHOOD,
        'The energy is running away: %s is %.3g at step %d, and was %.3g; it fell by '
        'more than %d nats for each of %d numbers. What helps: a smaller '
        'learning rate, max_norm of the optimizer.',
        found,
        step,
        self._best,
        _RUNAWAY,
        self._dimensions,
      )

  def _see_collapse(self):
    """Warns of a generator whose samples are all but one."""
    spreads = self._seen[SPREAD]
    if not spreads:
      return
    # Relative to the largest, since images and points have variances of any
    # size.
    (step, spread), largest = spreads[-1], max(each for _, each in spreads)
    if spread <= _COLLAPSE * largest:
      self._tell(
        SPREAD,
        'The generator may have collapsed: %s is %.3g at step %d; the largest was '
        '%.3g. A direction with a kernel may help, or a smaller learning rate.',
        spread,
        step,
        largest,
      )

  def _see_narrow(self, metrics):
    """Warns of particles that will be too close together, however long they move."""
    share = metrics.get(PREDICTED, 1.0)
    if share < _NARROW:
      self._tell(
        PREDICTED,
        'The particles will understate the spread: %s is %.2g, their share of the '
        'variance of a Gaussian. What helps: a wider kernel, as by '
        'step.direction.kernel.bandwidth.log=none, or more particles.',
        share,
      )

  def _see_cold(self, metrics):
    """Warns of noise too small for a chain's step; without any it is a descent."""
    temperature = metrics.get(TEMPERATURE, 1.0)
    if 0 < temperature < _COLD:
      self._tell(
        TEMPERATURE,
        'The chain is cold: %s is %.2g, so that the energy is trained to be T times '
        'that of the data, and its likelihood means nothing. What helps: '
        'step.chain.temperature=1 and step.chain.noise_ratio=1, with a smaller '
        'step.chain.step_size.',
        temperature,
      )

  def _see_clipped(self, metrics):
    """Warns of a chain whose law is not that of the energy, since it is cut."""
    share = metrics.get(CLIPPED, 0.0)
    if share > _CUT:
      self._tell(
        CLIPPED,
        'The chain is cut: %s is %.2g of all numbers, so that its law is not that of '
        'the energy. What helps: step.chain.clip=(), or a smaller '
        'step.chain.step_size.',
        share,
      )

  def _tell(self, name, text, *numbers):
    if name not in self._told:
      self._told.add(name)
      logging.warning(text, name, *numbers)
