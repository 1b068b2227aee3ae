"""What processes compare before the first step; `multihost_test` runs several."""

from concurrent import futures
import contextlib
import socket
import time
from unittest import mock

from absl import logging
from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np

import stein_jax
from stein_jax.runs import agreement
from stein_jax.runs import reporting
from tests import smoke

_CONFIG = smoke.get_config('svgd_toy')
_BATCH = {'image': np.arange(6.0).reshape(3, 2)}


def said(config=_CONFIG, source=range(9), batch=None):
  """Returns what a process tells the others of itself."""
  told = []
  other = lambda value: told.append(dict(value)) or {}
  with (
    mock.patch.object(jax, 'process_count', return_value=2),
    mock.patch.object(agreement, 'exchanged', side_effect=other),
  ):
    agreement.check(config, source, batch or _BATCH)
  return told[0]


class CheckTest(parameterized.TestCase):
  def refused(self, theirs):
    with (
      mock.patch.object(jax, 'process_count', return_value=2),
      mock.patch.object(agreement, 'exchanged', return_value={1: theirs}),
      self.assertRaises(ValueError) as caught,
    ):
      agreement.check(_CONFIG, range(9), _BATCH)
    return str(caught.exception)

  def test_alike(self):
    with (
      mock.patch.object(jax, 'process_count', return_value=2),
      mock.patch.object(agreement, 'exchanged', return_value={1: said()}),
    ):
      agreement.check(_CONFIG, range(9), _BATCH)

  def test_one_process_asks_nobody(self):
    with mock.patch.object(agreement, 'exchanged') as exchanged:
      agreement.check(_CONFIG, range(9), _BATCH)
    exchanged.assert_not_called()

  def test_another_version(self):
    with mock.patch.object(stein_jax, '__version__', '9.9'):
      theirs = said()
    self.assertRegex(self.refused(theirs), 'version of stein_jax: .* 9.9 there')

  def test_another_commit(self):
    with mock.patch.object(reporting, 'commit', return_value='abc'):
      theirs = said()
    self.assertRegex(self.refused(theirs), 'commit of the code: .* abc there')

  def test_another_data_set(self):
    self.assertRegex(
      self.refused(said(source=range(8))),
      'examples of the data: 9 here, 8 there',
    )
    # One bit of the first batch, in as many examples.
    other = {'image': _BATCH['image'].copy()}
    other['image'][1, 1] = np.nextafter(other['image'][1, 1], 9)
    message = self.refused(said(batch=other))
    self.assertIn('Process 0 differs from process 1', message)
    self.assertIn('first batch of the data: ', message)

  def test_no_message_holds_an_array(self):
    other = {'image': np.full((1000, 1000), 0.123)}
    message = self.refused(said(batch=other))
    self.assertNotIn('0.123', message)
    self.assertLess(len(message), 500)

  def test_all_fields_differ(self):
    theirs = {name: 'other' for name in said()}
    self.assertLess(len(self.refused(theirs)), 1000)


class MeetTest(absltest.TestCase):
  """Processes that meet, as threads."""

  def setUp(self):
    super().setUp()
    with socket.socket() as free:
      free.bind(('localhost', 0))
      self.address = f'localhost:{free.getsockname()[1]}'
    self.enter_context(mock.patch.object(agreement, '_patience', 3))
    self.enter_context(mock.patch.object(agreement, '_SILENCE', 1))

  def meet(self, *processes):
    """Returns what each of (process, count) hears, None where it may go."""

    def hears(process, count):
      try:
        agreement.meet(self.address, process, count)
      except (RuntimeError, ValueError) as error:
        return str(error)

    with futures.ThreadPoolExecutor() as pool:
      return list(pool.map(hears, *zip(*processes, strict=True)))

  def test_all_come(self):
    self.assertEqual(self.meet((0, 3), (1, 3), (2, 3)), [None] * 3)
    self.assertEqual(self.meet((1, 2), (0, 2)), [None] * 2)  # the port is free
    self.assertEqual(self.meet((0, 1)), [None])

  def test_who_is_missing_is_named_to_all(self):
    with self.assertLogs(logging.get_absl_logger(), 'WARNING') as said:
      heard = self.meet((0, 4), (2, 4))
    for text in heard:
      self.assertStartsWith(text, 'Waited 3 s for process 1 and 3, which')
    for text in said.output[:2]:
      self.assertIn(f'Waiting for process 1 and 3 at {self.address}', text)

  def test_the_first_is_missing(self):
    (text,) = self.meet((1, 2))
    self.assertRegex(text, 'Process 1 waited 3 s for process 0 at .*refused')

  def test_they_count_in_another_way(self):
    for text in self.meet((0, 2), (1, 3)):
      self.assertIn('Process 1 was started as one of 3', text)
    for text in self.meet((0, 3), (1, 3), (1, 3)):
      self.assertIn('Two processes were started as number 1', text)
    late = lambda: time.sleep(1) or self.meet((3, 4))
    with futures.ThreadPoolExecutor() as pool:
      heard = pool.submit(late)
      heard = self.meet((0, 4), (1, 3)) + heard.result()
    for text in heard:
      self.assertIn('Process 1 was started as one of 3', text)
    (text,) = self.meet((2, 2))
    self.assertIn('JAX_PROCESS_ID=2 do not fit', text)

  def test_the_port_is_taken(self):
    port = int(self.address.rpartition(':')[2])
    with socket.create_server(('', port)) as other:
      other.settimeout(0.1)
      for text in self.meet((0, 2)):
        self.assertIn(f'cannot listen at port {port}', text)

  def test_a_stranger_is_no_process(self):
    def disturb():
      host, _, port = self.address.rpartition(':')
      for text in (
        b'',
        b'GET / HTTP/1.1\r\n\r\n',
        b'[]\n',
        b'{"process": 1}\n',
      ):
        with contextlib.suppress(OSError), socket.socket() as one:
          time.sleep(0.1)
          one.connect((host, int(port)))
          one.sendall(text)

    with futures.ThreadPoolExecutor() as pool:
      disturbed = pool.submit(disturb)
      self.assertEqual(self.meet((0, 2), (1, 2)), [None] * 2)
      disturbed.result()


if __name__ == '__main__':
  absltest.main()
