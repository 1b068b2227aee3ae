"""What the runs of two rows say of their order: Welch's test, alone and under Holm.

The runs of two rows share no random numbers that a pairing could use, so Welch's test
is the one for all. It needs each row's mean, deviation and number of runs alone, which
is what a stored table has.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LEVEL = 0.05  # of a verdict by itself, and of the family under Holm
_MOST = 1000  # runs of a row; what needs more is within the noise


class Sample(NamedTuple):
  """The runs of a row, as a test needs them.

  Attributes:
    mean: of their numbers.
    deviation: the standard deviation, with num - 1 in it; nan of one run.
    num: of runs.
  """

  mean: float
  deviation: float
  num: int


class Difference(NamedTuple):
  """What two samples say of the difference of their means.

  Attributes:
    mean: the difference.
    low: lower end of its 95 % interval.
    high: upper end.
    p: two-sided p-value of no difference.
  """

  mean: float
  low: float
  high: float
  p: float


def sample(values: Sequence[float]) -> Sample:
  """Returns the sample of some numbers, one for each run."""
  values = np.asarray(values, np.float64)
  deviation = values.std(ddof=1) if len(values) > 1 else np.nan
  return Sample(float(values.mean()), float(deviation), len(values))


def from_interval(mean: float, half: float, num: int) -> Sample:
  """Returns the sample of `num` runs whose 95 % Student interval is mean ± half."""
  from scipy import stats  # pylint: disable=g-import-not-at-top

  deviation = half * num**0.5 / stats.t.ppf(1 - LEVEL / 2, num - 1)
  return Sample(mean, float(deviation), num)


def interval(of: Sample) -> float:
  """Returns the half width of the 95 % Student interval of a mean; nan of one run."""
  from scipy import stats  # pylint: disable=g-import-not-at-top

  width = stats.t.ppf(1 - LEVEL / 2, of.num - 1) if of.num > 1 else np.nan
  return float(width * of.deviation / of.num**0.5)


def welch(larger: Sample, smaller: Sample) -> Difference:
  """Returns what two samples of two runs or more say of larger - smaller (Welch)."""
  from scipy import stats  # pylint: disable=g-import-not-at-top

  mean = larger.mean - smaller.mean
  parts = [each.deviation**2 / each.num for each in (larger, smaller)]
  variance = sum(parts)
  if not variance:  # nothing to estimate it from
    return Difference(mean, mean, mean, float(mean == 0))
  freedom = variance**2 / sum(
    part**2 / (each.num - 1)
    for part, each in zip(parts, (larger, smaller), strict=True)
  )
  error = variance**0.5
  half = stats.t.ppf(1 - LEVEL / 2, freedom) * error
  p = 2 * stats.t.sf(abs(mean) / error, freedom)
  return Difference(mean, float(mean - half), float(mean + half), float(p))


def holm(p_values: Sequence[float]) -> list[float]:
  """Returns Holm's adjusted p-values, in the order of the given ones.

  The smallest of m counts m times, the next m - 1 times and so on, and none counts less
  than one before it. Those of at most 5 % hold at a family-wise 5 %.
  """
  num = len(p_values)
  adjusted, reached = [0.0] * num, 0.0
  for rank, place in enumerate(np.argsort(p_values, kind='stable')):
    reached = max(reached, min(1.0, (num - rank) * p_values[place]))
    adjusted[place] = reached
  return adjusted


def verdict(mean: float, p: float, *, reduced: bool) -> str:
  """Returns what a difference with that p-value says.

  Args:
    mean: the difference, positive where it has the order that is claimed.
    p: by itself, or adjusted.
    reduced: whether the runs were shorter or smaller than the paper's.
  """
  if not p <= LEVEL:
    return 'open'
  if mean > 0:
    return 'reproduced'
  # What a short run does not show, a long one might.
  return 'refuted at this scale' if reduced else 'refuted'


def runs_needed(larger: Sample, smaller: Sample) -> int | None:
  """Returns how many runs of each row would decide, or None for more than 1,000.

  Means and deviations are taken to stay as they are.
  """
  for num in range(max(larger.num, smaller.num) + 1, _MOST + 1):
    pair = (each._replace(num=num) for each in (larger, smaller))
    if welch(*pair).p <= LEVEL:
      return num
  return None
