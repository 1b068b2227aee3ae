"""Warnings of runs whose numbers are finite: what is told, when, and of what."""

from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from stein_jax.runs import alarms

# Four numbers an example, each of variance 1: the data spread over 2.
BATCH = {'image': np.array([[-1.0] * 4, [1.0] * 4])}


def told(*lines, batch=BATCH, past=()):
  """Returns the warnings of a run that sees these metrics, at steps 1, 2, ..."""
  with mock.patch.object(alarms.logging, 'warning') as warning:
    watch = alarms.Alarms(batch, past)
    for step, metrics in enumerate(lines, 1):
      watch.see(step, metrics)
  return [text % tuple(rest) for _, (text, *rest), _ in warning.mock_calls]


def gaps(*values):
  return [{'energy/gap': value} for value in values]


class GapTest(parameterized.TestCase):
  def test_a_gap_that_grows_is_told_once(self):
    # Of 21 lines the first 10 reach 2; the 21st is the first above 20, and 40 would be
    # too much for four numbers at once.
    lines = gaps(*[1.0, -2.0] * 10, -20.1, 30.0)
    (text,) = told(*lines)
    self.assertRegex(
      text, 'may be .*: energy/gap is 20.1 at step 21, .* up to step 10'
    )

  def test_growth_below_that_is_not(self):
    self.assertEmpty(told(*gaps(*[1.0] * 20 + [9.9] * 5)))
    # Too early to tell: only 9 lines come before the second half.
    self.assertEmpty(told(*gaps(*[1.0] * 18 + [30.0])))

  @parameterized.parameters(1, -1)
  def test_a_run_that_is_mad_from_the_first_steps_is_seen(self, sign):
    (text,) = told(*gaps(0.1, *[sign * 41.0] * 30))
    self.assertRegex(
      text, 'is running away: energy/gap is -?41 at step 2, .* 4'
    )
    self.assertIn('learning rate', text)
    self.assertEmpty(told(*gaps(0.1, *[sign * 39.0] * 30)))

  def test_chains_from_noise_begin_with_a_large_gap(self):
    self.assertEmpty(told(*gaps(5000.0, *[20_000.0] * 5)))

  def test_what_a_restart_finds_is_normal(self):
    past = [dict(step=5, **{'energy/gap': 5000.0})]
    self.assertEmpty(told(*gaps(500.0), past=past))
    self.assertLen(told(*gaps(1.0, 500.0)), 1)

  def test_a_gap_is_that_of_any_pair(self):
    line = {'energy/data': -20.0, 'energy/samples': 21.0}
    (text,) = told({'energy/data': 0.0, 'energy/samples': 0.0}, line)
    self.assertIn('energy/gap is -41', text)

  def test_it_is_said_how_far_samples_go_where_there_are_any(self):
    mad = {'energy/gap': 41.0}
    (text,) = told(*gaps(0.0), mad)
    self.assertRegex(text, r'4\. Its updates are too large')
    (text,) = told(*gaps(0.0), mad | {'chain/move': 39.0, 'samples/move': 1.0})
    self.assertRegex(
      text, 'Samples move 39 and the data spread over 2, so its up'
    )

  def test_a_loss_may_fall_but_not_rise(self):
    loss = lambda value: {'energy/loss': value}
    self.assertEmpty(told(loss(1.0), loss(-1e9)))
    (text,) = told(loss(-8.0), loss(81.0))
    self.assertIn('energy/loss is 81 at step 2, more than 10', text)


class LikelihoodTest(absltest.TestCase):
  def test_a_fall_from_the_best_is_told_once(self):
    likelihood = lambda value: {'test/log_likelihood': value}
    # Four numbers: 40 nats below the best, -10, is -50.
    self.assertEmpty(told(*map(likelihood, (-1e9, -10.0, -49.0))))
    (text,) = told(*map(likelihood, (-1e9, -10.0, -51.0, -1e3)))
    self.assertRegex(
      text, 'running away: test/log_likelihood is -51 at step 3, and was -10'
    )
    past = [dict(step=1, **likelihood(-10.0))]
    self.assertLen(told(likelihood(-51.0), past=past), 1)


class ChainTest(parameterized.TestCase):
  @parameterized.parameters(*alarms.MOVES)
  def test_samples_far_from_the_data_are_told_and_nothing_else(self, name):
    (text,) = told({name: 201.0, 'energy/gap': 1.0})
    self.assertRegex(text, f'{name} is 201 at step 1, .* spread over 2')
    self.assertIn(alarms.MOVES[name], text)
    # The energy is not blamed for what the chain gave it.
    self.assertLen(told(*[{name: 201.0, 'energy/gap': g} for g in (1, 1e9)]), 1)
    self.assertEmpty(told({name: 199.0}))

  def test_data_that_are_all_alike_have_no_measure(self):
    batch = {'image': np.zeros((3, 2))}
    self.assertEmpty(told({'chain/move': 1e9}, batch=batch))

  def test_a_chain_that_accepts_nothing_goes_nowhere(self):
    rate = lambda value: {'chain/acceptance': value}
    (text,) = told(rate(0.0), rate(0.0), rate(0.0))
    self.assertRegex(text, 'goes nowhere: chain/acceptance is 0 at step 2')
    # One line alone may be an unlucky start, and a later stop has another cause.
    self.assertEmpty(told(rate(0.0)))
    self.assertEmpty(told(rate(0.5), rate(0.0), rate(0.0)))

  def test_a_cold_chain_is_told_once(self):
    line = lambda value: {'chain/temperature': value}
    (text,) = told(line(0.25), line(0.4))
    self.assertRegex(text, 'chain is cold: chain/temperature is 0.25, ')
    # Without noise it is a descent, and meant to be one.
    self.assertEmpty(told(line(0.0), line(0.5), line(2.0), {}))

  def test_a_chain_that_is_cut_is_told_once(self):
    line = lambda value: {'chain/clipped': value}
    (text,) = told(line(0.0), line(0.02), line(0.5))
    self.assertRegex(text, 'chain is cut: chain/clipped is 0.02 of all numbers')
    self.assertEmpty(told(line(0.01), {}))


class ParticlesTest(absltest.TestCase):
  def test_a_kernel_that_is_too_narrow_is_told_once(self):
    line = lambda share: {'particles/predicted_variance': share}
    (text,) = told(line(0.13), line(0.14))
    self.assertRegex(text, 'understate the spread: .*variance is 0.13,')
    self.assertIn('bandwidth.log=none', text)
    self.assertEmpty(told(line(0.81), {}))


class SpreadTest(absltest.TestCase):
  def test_a_collapse_is_told(self):
    spread = lambda value: {'samples/variance': value}
    (text,) = told(spread(0.1), spread(10.0), spread(1.1e-3), spread(0.9e-3))
    self.assertIn(
      'samples/variance is 0.0009 at step 4; the largest was 10', text
    )


if __name__ == '__main__':
  absltest.main()
